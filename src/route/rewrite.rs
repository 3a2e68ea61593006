//! How a request's path and host are changed on the way to an upstream.

mod replacement;
mod template;

use std::borrow::Cow;
use std::fmt;

use regex::Regex;

use crate::route::captures::Captures;
use crate::route::encode;
use crate::route::encode::Place;
use crate::route::expression;
use crate::route::path;

pub use crate::route::rewrite::template::BadHost;
pub use crate::route::rewrite::template::Template;
pub use crate::route::rewrite::template::Values;

/// Changes to path and host, applied in the order of the fields.
#[derive(Debug, Clone, Default)]
pub struct Rewrite {
    /// Removed from the path's front, at a segment boundary.
    pub strip_prefix: Option<String>,
    /// A regular expression over the whole path and its replacement (`$1`, `$name`). Built by
    /// [`Rewrite::replace`].
    pub regex: Option<(Regex, String)>,
    /// Put before the path.
    pub add_prefix: Option<String>,
    /// The Host that the origin sees.
    pub host: Option<Template>,
}

impl PartialEq for Rewrite {
    fn eq(&self, other: &Self) -> bool {
        let Self { strip_prefix, regex, add_prefix, host } = self;
        let text = |of: &Option<(Regex, String)>| {
            of.as_ref().map(|(regex, replacement)| (regex.as_str().to_owned(), replacement.clone()))
        };
        *strip_prefix == other.strip_prefix
            && text(regex) == text(&other.regex)
            && *add_prefix == other.add_prefix
            && *host == other.host
    }
}

impl Eq for Rewrite {}

/// The changed path would have a dot segment, as when `/files(.*)` becomes `/data/$1` and the request
/// was for `/files../secret`. Such a request is refused: an origin would leave `/data`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DotSegment;

impl Rewrite {
    /// A prefix to strip or to add, in the normal form of paths.
    ///
    /// # Errors
    /// A sentence that says what is wrong with it.
    pub fn prefix(text: &str) -> Result<String, String> {
        path::whole(text)
    }

    /// A regular expression over the whole path and its replacement, for [`Rewrite::regex`].
    ///
    /// In the replacement `$1`, `$name` and `${name}` are groups of the expression or `captures` of
    /// the route's path, `$$` is a dollar sign, and what follows a `?` is put before the request's
    /// query.
    ///
    /// # Errors
    /// A sentence that says what is wrong with either.
    pub fn replace(
        text: &str,
        replacement: &str,
        captures: &[String],
    ) -> Result<(Regex, String), String> {
        let regex = expression::anchored(text)?;
        replacement::check(replacement, &regex, captures)?;
        Ok((regex, replacement.to_owned()))
    }

    /// Whether the path and the query stay as they are.
    #[must_use]
    pub fn keeps_path(&self) -> bool {
        self.strip_prefix.is_none() && self.regex.is_none() && self.add_prefix.is_none()
    }

    /// The path and query that the origin sees, from the request's path in its normal form.
    ///
    /// A prefix that the path does not have, and an expression that does not match all of it, change
    /// nothing. The result begins with exactly one slash and holds neither control bytes nor spaces.
    ///
    /// # Errors
    /// Where the result would have a dot segment.
    pub fn apply(
        &self,
        path: &str,
        query: Option<&str>,
        captures: &Captures,
    ) -> Result<String, DotSegment> {
        let mut path = match &self.strip_prefix {
            Some(prefix) => stripped(path, prefix),
            None => Cow::Borrowed(path),
        };
        let mut added_query = String::new();
        if let Some((regex, replacement)) = &self.regex
            && let Some(groups) = regex.captures(&path)
            && groups.get(0).is_some_and(|all| all.as_str().len() == path.len())
        {
            let (changed, more) = replacement::expand(replacement, &groups, captures);
            added_query = more;
            path = Cow::Owned(changed);
        }
        let asks = query.is_some();
        let query = query.unwrap_or_default();
        let spare = self.add_prefix.as_deref().map_or(0, str::len) + added_query.len() + 3;
        let mut out = String::with_capacity(path.len() + query.len() + spare);
        out.push('/');
        if let Some(prefix) = &self.add_prefix {
            join(&mut out, prefix);
        }
        join(&mut out, &path);
        if out.split('/').any(is_dot_segment) {
            return Err(DotSegment);
        }
        for more in [&*added_query, query] {
            if !more.is_empty() {
                // The first `?` divides path and query; the path holds none.
                out.push(if out.contains('?') { '&' } else { '?' });
                encode::push(&mut out, more, Place::Query);
            }
        }
        // An empty query is not the same as none: the key tells them apart, and so may the origin.
        if asks && !out.contains('?') {
            out.push('?');
        }
        Ok(out)
    }
}

/// Appends a path to one that ends in a slash or not, with one slash between them.
fn join(out: &mut String, path: &str) {
    let inner = path.trim_start_matches('/');
    if !out.ends_with('/') && inner.len() < path.len() {
        out.push('/');
    }
    encode::push(out, inner, Place::Path);
}

fn stripped<'p>(path: &'p str, prefix: &str) -> Cow<'p, str> {
    let bare = prefix.strip_suffix('/').unwrap_or(prefix);
    match path.strip_prefix(bare) {
        Some("") => Cow::Borrowed("/"),
        Some(rest) if rest.starts_with('/') => Cow::Borrowed(rest),
        Some(_) | None => Cow::Borrowed(path),
    }
}

/// Whether a segment is `.` or `..`, encoded or not.
fn is_dot_segment(segment: &str) -> bool {
    let mut dots = 0;
    let mut rest = segment.as_bytes();
    loop {
        rest = match rest {
            [] => return dots > 0,
            [b'.', rest @ ..] | [b'%', b'2', b'e' | b'E', rest @ ..] => rest,
            _ => return false,
        };
        dots += 1;
        if dots > 2 {
            return false;
        }
    }
}

impl fmt::Display for DotSegment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the rewritten path has a dot segment")
    }
}

impl std::error::Error for DotSegment {}

#[cfg(test)]
mod tests;
