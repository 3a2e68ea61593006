//! Conditional requests (RFC 9110 §13), evaluated against one representation.

use std::time::Duration;
use std::time::SystemTime;

use http::HeaderMap;
use http::HeaderValue;
use http::Method;
use http::StatusCode;
use http::header;

/// What the conditions of a request come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Answer as if there were no conditions.
    Proceed,
    /// Answer 304: the client's copy is good (§15.4.5).
    NotModified,
    /// Answer 412 (§15.5.13).
    PreconditionFailed,
    /// Answer with the whole representation: If-Range does not match (§13.1.5).
    IgnoreRange,
}

/// What a representation can be compared by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Validators<'a> {
    /// The ETag field as sent.
    pub etag: Option<&'a [u8]>,
    /// Last-Modified.
    pub last_modified: Option<SystemTime>,
    /// Date; when the response was received, if it has none.
    pub date: Option<SystemTime>,
}

impl<'a> Validators<'a> {
    /// The validators of a response. A field that is there twice says nothing.
    #[must_use]
    pub fn of(response: &'a HeaderMap) -> Self {
        Self {
            etag: only(response, &header::ETAG).map(HeaderValue::as_bytes),
            last_modified: only(response, &header::LAST_MODIFIED).and_then(date),
            date: only(response, &header::DATE).and_then(date),
        }
    }

    /// Last-Modified, if it is a strong validator: the representation cannot have changed twice in
    /// the second that it names, because Date is at least one second later (§8.8.2.2).
    pub fn strong_date(&self) -> Option<SystemTime> {
        let modified = self.last_modified?;
        let apart = self.date?.duration_since(modified).ok()?;
        (apart >= Duration::from_secs(1)).then_some(modified)
    }
}

/// An entity tag (§8.8.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EntityTag<'a> {
    /// Whether it is marked `W/`.
    pub strength: Strength,
    /// What stands between the quotes.
    pub opaque: &'a [u8],
}

/// Whether equal tags mean equal bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strength {
    /// They do.
    Strong,
    /// They mean the same content, not the same bytes.
    Weak,
}

impl<'a> EntityTag<'a> {
    /// Reads one entity tag and nothing else; `None` if it is malformed.
    #[must_use]
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        match Self::read(bytes)? {
            (tag, []) => Some(tag),
            _ => None,
        }
    }

    /// Reads the entity tag that these bytes begin with, and what follows it.
    fn read(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (strength, quoted) = match bytes.strip_prefix(b"W/") {
            Some(rest) => (Strength::Weak, rest),
            None => (Strength::Strong, bytes),
        };
        let inner = quoted.strip_prefix(b"\"")?;
        let end = inner.iter().position(|&byte| byte == b'"')?;
        let opaque = &inner[..end];
        // There is no escaping in entity tags, and no space.
        let valid = opaque.iter().all(|byte| matches!(byte, b'!' | b'#'..=b'~' | 0x80..));
        valid.then_some((Self { strength, opaque }, &inner[end + 1..]))
    }

    /// The strong comparison (§8.8.3.2).
    #[must_use]
    pub fn matches_strongly(&self, other: &EntityTag<'_>) -> bool {
        self.strength == Strength::Strong
            && other.strength == Strength::Strong
            && self.opaque == other.opaque
    }

    /// The weak comparison (§8.8.3.2).
    #[must_use]
    pub fn matches_weakly(&self, other: &EntityTag<'_>) -> bool {
        self.opaque == other.opaque
    }
}

/// Whether the request has conditions that only an origin server may evaluate: a cache passes it
/// on (RFC 9111 §4.3.2).
#[must_use]
pub fn is_for_origin(request: &HeaderMap) -> bool {
    request.contains_key(header::IF_MATCH) || request.contains_key(header::IF_UNMODIFIED_SINCE)
}

/// Whether a request has anything that [`evaluate`] looks at.
#[must_use]
pub fn has_conditions(request: &HeaderMap) -> bool {
    // One pass over few names is less than a look-up for each.
    request.keys().any(|name| {
        matches!(
            *name,
            header::IF_MATCH
                | header::IF_NONE_MATCH
                | header::IF_MODIFIED_SINCE
                | header::IF_UNMODIFIED_SINCE
                | header::IF_RANGE
        )
    })
}

/// Evaluates the conditions of a request in their order of precedence (§13.2.2).
///
/// `status` is what the request would be answered with if it had none: conditions count for 2xx
/// and 412 only (§13.2.1). The representation exists, so that `*` matches it.
#[must_use]
pub fn evaluate(
    method: &Method,
    request: &HeaderMap,
    current: &Validators<'_>,
    status: StatusCode,
) -> Outcome {
    if !status.is_success() && status != StatusCode::PRECONDITION_FAILED {
        return Outcome::Proceed;
    }
    let reads = method == Method::GET || method == Method::HEAD;

    if request.contains_key(header::IF_MATCH) {
        if !any_tag(request, &header::IF_MATCH, current, Strength::Strong) {
            return Outcome::PreconditionFailed;
        }
    } else if let Some(modified) = current.last_modified
        && let Some(limit) = only(request, &header::IF_UNMODIFIED_SINCE).and_then(date)
        && modified > limit
    {
        return Outcome::PreconditionFailed;
    }

    if request.contains_key(header::IF_NONE_MATCH) {
        if any_tag(request, &header::IF_NONE_MATCH, current, Strength::Weak) {
            return if reads { Outcome::NotModified } else { Outcome::PreconditionFailed };
        }
    } else if reads
        // A stored response without Last-Modified is judged by its Date (RFC 9111 §4.3.2).
        && let Some(modified) = current.last_modified.or(current.date)
        && let Some(since) = only(request, &header::IF_MODIFIED_SINCE).and_then(date)
        && modified <= since
    {
        return Outcome::NotModified;
    }

    if method == Method::GET
        && request.contains_key(header::RANGE)
        && request.contains_key(header::IF_RANGE)
        && !only(request, &header::IF_RANGE).is_some_and(|value| if_range(value, current))
    {
        return Outcome::IgnoreRange;
    }
    Outcome::Proceed
}

/// Whether If-Range names exactly this representation: by a strong entity tag, or by the date
/// itself where it is strong (§13.1.5).
fn if_range(value: &HeaderValue, current: &Validators<'_>) -> bool {
    if let Some(asked) = EntityTag::parse(value.as_bytes()) {
        let tag = current.etag.and_then(EntityTag::parse);
        return tag.is_some_and(|tag| tag.matches_strongly(&asked));
    }
    let asked = date(value);
    asked.is_some() && asked == current.strong_date()
}

/// Whether the list of a field is `*` or has a tag that matches the current one.
fn any_tag(
    request: &HeaderMap,
    name: &header::HeaderName,
    current: &Validators<'_>,
    comparison: Strength,
) -> bool {
    let tag = current.etag.and_then(EntityTag::parse);
    request.get_all(name).into_iter().any(|line| {
        let line = line.as_bytes();
        // An origin that forgets the quotes gets its own words back; the same bytes are the same
        // tag, whatever the grammar says of them.
        if line == b"*"
            || (tag.is_none() && comparison == Strength::Weak && current.etag == Some(line))
        {
            return true;
        }
        let Some(tag) = &tag else {
            return false;
        };
        tags(line).any(|asked| match comparison {
            Strength::Strong => tag.matches_strongly(&asked),
            Strength::Weak => tag.matches_weakly(&asked),
        })
    })
}

/// The entity tags of a line; what is not one is skipped up to the next comma.
///
/// This is not the comma list of other fields: a tag may hold backslashes that escape nothing.
fn tags(line: &[u8]) -> impl Iterator<Item = EntityTag<'_>> {
    let mut rest = line;
    std::iter::from_fn(move || {
        while let [first, tail @ ..] = rest {
            if matches!(first, b' ' | b'\t' | b',') {
                rest = tail;
                continue;
            }
            let read = EntityTag::read(rest);
            let after = read.as_ref().map_or(tail, |(_, after)| *after);
            let end = after.iter().position(|&byte| byte == b',').unwrap_or(after.len());
            rest = &after[end..];
            // A tag with something behind it other than a comma is no element of the list.
            if let Some((tag, _)) = read
                && after[..end].iter().all(|byte| matches!(byte, b' ' | b'\t'))
            {
                return Some(tag);
            }
        }
        None
    })
}

/// The value of a field that is there exactly once.
fn only<'a>(headers: &'a HeaderMap, name: &header::HeaderName) -> Option<&'a HeaderValue> {
    let mut lines = headers.get_all(name).into_iter();
    let first = lines.next()?;
    lines.next().is_none().then_some(first)
}

/// An HTTP-date in any of its three forms (§5.6.7).
fn date(value: &HeaderValue) -> Option<SystemTime> {
    httpdate::parse_http_date(value.to_str().ok()?).ok()
}

#[cfg(test)]
mod tests;
