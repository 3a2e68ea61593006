//! Which paths a route serves.
//!
//! Patterns are compared with the normal form of a request's path: percent-encoded, unreserved
//! characters decoded, hexadecimal digits in upper case (RFC 3986 §6.2.2), no dot segments. What the
//! configuration says is brought into the same form, so that `/café` and `/caf%c3%a9` are one path.

mod pattern;

use std::fmt;
use std::sync::Arc;

use regex::Regex;

use crate::route::captures;
use crate::route::captures::Captures;
use crate::route::encode;
use crate::route::encode::Place;
use crate::route::expression;
use crate::route::path::pattern::Pattern;

pub(in crate::route) use crate::route::path::pattern::Segment;
pub(in crate::route) use crate::route::path::pattern::first_segment;

/// One path pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathPattern(Kind);

/// The forms of a path pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::route) enum Kind {
    /// Exactly this path.
    Exact(Box<str>),
    /// Segments with captures.
    Pattern(Pattern),
    /// This path and what is below it.
    Prefix(Box<str>),
    /// A regular expression.
    Regex(Expression),
    /// Every path.
    Any,
}

/// A regular expression over the whole path.
#[derive(Debug, Clone)]
pub(in crate::route) struct Expression {
    text: Box<str>,
    regex: Regex,
    /// The named groups, with their numbers.
    names: Vec<(usize, Arc<str>)>,
}

/// What an expression is, its text says.
impl PartialEq for Expression {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Expression {}

impl PathPattern {
    /// Every path.
    #[must_use]
    pub fn any() -> Self {
        Self(Kind::Any)
    }

    /// Whether it is every path.
    #[must_use]
    pub fn is_any(&self) -> bool {
        match self.kind() {
            Kind::Any => true,
            Kind::Exact(_) | Kind::Pattern(_) | Kind::Prefix(_) | Kind::Regex(_) => false,
        }
    }

    /// Exactly this path.
    ///
    /// # Errors
    /// A sentence that says what is wrong with it. The same holds for its siblings.
    pub fn exact(text: &str) -> Result<Self, String> {
        Ok(Self(Kind::Exact(whole(text)?.into())))
    }

    /// This path and everything below it, at segment boundaries: `/api` matches `/api` and `/api/x`,
    /// but not `/apix`; `/api/` matches `/api/` and `/api/x`, but not `/api`.
    ///
    /// # Errors
    /// As above.
    pub fn prefix(text: &str) -> Result<Self, String> {
        Ok(Self(Kind::Prefix(whole(text)?.into())))
    }

    /// Segments with captures: `/users/{id}/files/{*rest}`.
    ///
    /// `{name}` is one segment, which is not empty; `{*name}` is all that follows its slash, which
    /// may be empty, and stands at the end only.
    ///
    /// # Errors
    /// As above.
    pub fn pattern(text: &str) -> Result<Self, String> {
        Pattern::parse(text).map(|pattern| Self(Kind::Pattern(pattern)))
    }

    /// A regular expression over the whole path; named groups are captures. It is matched against
    /// the path's normal form, which is percent-encoded ASCII.
    ///
    /// # Errors
    /// As above.
    pub fn regex(text: &str) -> Result<Self, String> {
        let regex = expression::anchored(text)?;
        let mut names = Vec::new();
        for (group, name) in regex.capture_names().enumerate() {
            let Some(name) = name else { continue };
            captures::check_name(name)?;
            names.push((group, Arc::from(name)));
        }
        Ok(Self(Kind::Regex(Expression { text: text.into(), regex, names })))
    }

    /// The names that `{name}` may use in a redirect or a rewrite.
    #[must_use]
    pub fn captures(&self) -> Vec<String> {
        match &self.0 {
            Kind::Pattern(pattern) => pattern.names().map(|name| name.to_string()).collect(),
            Kind::Regex(regex) => regex.names.iter().map(|(_, name)| name.to_string()).collect(),
            Kind::Exact(_) | Kind::Prefix(_) | Kind::Any => Vec::new(),
        }
    }

    /// Whether the pattern matches a path in its normal form.
    #[must_use]
    pub fn matches(&self, path: &str) -> bool {
        match &self.0 {
            Kind::Exact(text) => **text == *path,
            Kind::Pattern(pattern) => pattern.matches(path),
            Kind::Prefix(prefix) => path.starts_with(&**prefix) && ends_segment(path, prefix.len()),
            Kind::Regex(expression) => expression.regex.is_match(path),
            Kind::Any => true,
        }
    }

    /// What the named parts match in a path that matches; empty for one that does not.
    #[must_use]
    pub fn capture(&self, path: &str) -> Captures {
        let mut captures = Captures::default();
        match &self.0 {
            Kind::Pattern(pattern) => pattern.capture(path, &mut captures),
            Kind::Regex(Expression { names, regex, .. }) if !names.is_empty() => {
                let Some(found) = regex.captures(path) else {
                    return captures;
                };
                for (group, name) in names {
                    captures.push(name, found.get(*group).map_or("", |text| text.as_str()));
                }
            }
            Kind::Exact(_) | Kind::Prefix(_) | Kind::Regex(_) | Kind::Any => {}
        }
        captures
    }

    pub(in crate::route) fn kind(&self) -> &Kind {
        &self.0
    }
}

impl Expression {
    pub(in crate::route) fn text(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Exact(text) => write!(f, "exactly {text}"),
            Kind::Pattern(pattern) => write!(f, "pattern {pattern}"),
            Kind::Prefix(text) => write!(f, "prefix {text}"),
            Kind::Regex(expression) => write!(f, "regex {}", expression.text),
            Kind::Any => f.write_str("any path"),
        }
    }
}

/// Whether the first `len` bytes of a path are whole segments. (`len` is at most the path's length.)
pub(in crate::route) fn ends_segment(path: &str, len: usize) -> bool {
    let bytes = path.as_bytes();
    bytes.len() == len
        || bytes.get(len) == Some(&b'/')
        || len.checked_sub(1).and_then(|last| bytes.get(last)) == Some(&b'/')
}

/// A literal path of the configuration in its normal form.
///
/// # Errors
/// A sentence that says what to write instead.
pub(in crate::route) fn whole(text: &str) -> Result<String, String> {
    if !text.starts_with('/') {
        return Err(format!("a path begins with a slash: write `/{text}`"));
    }
    let path = literal(text)?;
    check_segments(&path, text)?;
    Ok(path)
}

/// Literal text of a path in its normal form, of whatever segments.
fn literal(text: &str) -> Result<String, String> {
    let bytes = text.as_bytes();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        at += 1;
        match byte {
            b'%' => {
                let octet = encode::octet(&bytes[at - 1..]).ok_or_else(|| {
                    format!("in `{text}` a `%` has no two hexadecimal digits: write `%25` for a percent sign")
                })?;
                at += 2;
                if encode::is_unreserved(octet) {
                    out.push(char::from(octet));
                } else {
                    encode::push_octet(&mut out, octet);
                }
            }
            b'?' => {
                return Err(format!(
                    "a path ends before its `?`: in `{text}` leave the query out and write a condition on it"
                ));
            }
            b'#' => {
                return Err(format!("`#` never reaches a server: write `%23` in `{text}`"));
            }
            b'*' if text.ends_with("/*") && at == bytes.len() => {
                let prefix = &text[..text.len() - 1];
                return Err(format!(
                    "`*` is an ordinary character in a path: write the prefix `{prefix}` instead of `{text}`"
                ));
            }
            b'{' | b'}' => {
                return Err(format!(
                    "`{text}` has a brace, which captures only in a pattern: write it as a pattern, \
                     or `%7B` and `%7D` for braces that are meant"
                ));
            }
            b'\\' => {
                return Err(format!("segments are divided by `/`: write `/` or `%5C` in `{text}`"));
            }
            _ if byte.is_ascii_control() => {
                return Err(format!("{text:?} has a control character, which no request path has"));
            }
            _ => {
                let end = (at..=bytes.len()).find(|&end| text.is_char_boundary(end));
                let end = end.unwrap_or(bytes.len());
                encode::push(&mut out, &text[at - 1..end], Place::Path);
                at = end;
            }
        }
    }
    Ok(out)
}

/// Refuses segments that no request path in its normal form has.
fn check_segments(path: &str, written: &str) -> Result<(), String> {
    if path.contains("//") {
        return Err(format!(
            "`{written}` has an empty segment: write one slash (a regular expression can match \
             doubled ones where they are kept)"
        ));
    }
    if path.split('/').any(|segment| segment == "." || segment == "..") {
        return Err(format!(
            "`{written}` has a dot segment, which is resolved before a route is chosen: write the \
             path that it leads to"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
