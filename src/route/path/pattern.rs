//! Paths written in segments, some of which are captured.

use std::fmt;
use std::sync::Arc;

use crate::route::captures;
use crate::route::captures::Captures;

/// The most segments of a pattern; the look-up descends one level for each.
const MOST_SEGMENTS: usize = 64;

/// A path in segments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::route) struct Pattern {
    segments: Vec<Segment>,
}

/// One segment of a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::route) enum Segment {
    /// This text.
    Literal(Box<str>),
    /// Any one segment that is not empty.
    One(Arc<str>),
    /// All that remains, however many segments; always the last.
    Rest(Arc<str>),
}

impl Pattern {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let Some(inner) = text.strip_prefix('/') else {
            return Err(format!("a path begins with a slash: write `/{text}`"));
        };
        let parts: Vec<&str> = inner.split('/').collect();
        if parts.len() > MOST_SEGMENTS {
            return Err(format!(
                "`{text}` has more than {MOST_SEGMENTS} segments: end it in `{{*rest}}` earlier"
            ));
        }
        let mut segments: Vec<Segment> = Vec::with_capacity(parts.len());
        for (at, part) in parts.iter().enumerate() {
            let last = at + 1 == parts.len();
            let segment = read_segment(part, text)?;
            if matches!(segment, Segment::Rest(_)) && !last {
                return Err(format!(
                    "`{part}` takes all that remains: in `{text}` nothing can follow it"
                ));
            }
            if let Some(name) = segment.name() {
                captures::check_name(name)?;
                if segments.iter().any(|earlier| earlier.name() == Some(name)) {
                    return Err(format!("`{text}` captures `{name}` twice; choose another name"));
                }
            }
            segments.push(segment);
        }
        let literals = segments.iter().map(|segment| match segment {
            Segment::Literal(text) => &**text,
            Segment::One(_) | Segment::Rest(_) => "x",
        });
        super::check_segments(&format!("/{}", literals.collect::<Vec<_>>().join("/")), text)?;
        Ok(Self { segments })
    }

    pub(in crate::route) fn segments(&self) -> &[Segment] {
        &self.segments
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.segments.iter().filter_map(Segment::name)
    }

    pub(super) fn matches(&self, path: &str) -> bool {
        self.walk(path, |_, _| ())
    }

    pub(super) fn capture(&self, path: &str, captures: &mut Captures) {
        // Names are reported before the end is known to match, hence the question first.
        if self.names().next().is_some() && self.matches(path) {
            self.walk(path, |name, text| captures.push(name, text));
        }
    }

    fn walk(&self, path: &str, mut captured: impl FnMut(&Arc<str>, &str)) -> bool {
        let mut remaining = path.strip_prefix('/');
        for segment in &self.segments {
            let Some(text) = remaining else {
                return false;
            };
            let (head, tail) = first_segment(text);
            match segment {
                Segment::Literal(literal) if **literal == *head => {}
                Segment::One(name) if !head.is_empty() => captured(name, head),
                Segment::Rest(name) => {
                    captured(name, text);
                    return true;
                }
                Segment::Literal(_) | Segment::One(_) => return false,
            }
            remaining = tail;
        }
        remaining.is_none()
    }
}

impl Segment {
    fn name(&self) -> Option<&Arc<str>> {
        match self {
            Self::Literal(_) => None,
            Self::One(name) | Self::Rest(name) => Some(name),
        }
    }
}

/// The text before the first slash, and what follows that slash if there is one.
pub(in crate::route) fn first_segment(text: &str) -> (&str, Option<&str>) {
    text.split_once('/').map_or((text, None), |(head, tail)| (head, Some(tail)))
}

fn read_segment(part: &str, whole: &str) -> Result<Segment, String> {
    let Some(inner) = part.strip_prefix('{').and_then(|part| part.strip_suffix('}')) else {
        if part.contains(['{', '}']) {
            return Err(format!(
                "in `{whole}` a capture has to be a whole segment, unlike `{part}`: \
                 write `/{{name}}/`, or a regular expression with a named group `(?<name>…)`"
            ));
        }
        return Ok(Segment::Literal(super::literal(part)?.into()));
    };
    Ok(match inner.strip_prefix('*') {
        Some("") => {
            return Err(format!("in `{whole}` give what remains a name: write `{{*rest}}`"));
        }
        Some(name) => Segment::Rest(name.into()),
        None => Segment::One(inner.into()),
    })
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for segment in &self.segments {
            match segment {
                Segment::Literal(text) => write!(f, "/{text}")?,
                Segment::One(name) => write!(f, "/{{{name}}}")?,
                Segment::Rest(name) => write!(f, "/{{*{name}}}")?,
            }
        }
        Ok(())
    }
}
