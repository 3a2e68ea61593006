//! Asking the origin about what is stored, and taking in the answer (RFC 9111 §4.3, §3.2).

use std::time::SystemTime;

use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use http::header;

use crate::cache::date;
use crate::cache::storable::hop_by_hop;

/// The conditions that turn a request into a validation (§4.3.1).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Conditions {
    /// The stored entity tags, as one If-None-Match.
    pub if_none_match: Option<HeaderValue>,
    /// The stored Last-Modified, as If-Modified-Since.
    pub if_modified_since: Option<HeaderValue>,
}

impl Conditions {
    /// The conditions that one stored response offers. Validators that are malformed are not offered:
    /// what an origin makes of them is unknown.
    pub fn of(stored: &HeaderMap) -> Self {
        Self {
            if_none_match: entity_tag(stored).cloned(),
            if_modified_since: modification_date(stored).cloned(),
        }
    }

    /// The conditions for a request that several stored variants might answer: all their entity tags.
    /// A date selects nothing among several, so it is offered only for one.
    pub fn of_all<'a>(stored: impl IntoIterator<Item = &'a HeaderMap>) -> Self {
        let mut stored = stored.into_iter();
        let Some(first) = stored.next() else {
            return Self::default();
        };
        let mut all = Self::of(first);
        let mut several = false;
        let mut tags: Vec<&HeaderValue> = entity_tag(first).into_iter().collect();
        for other in stored {
            several = true;
            if let Some(tag) = entity_tag(other).filter(|tag| !tags.contains(tag)) {
                tags.push(tag);
            }
        }
        if several {
            let list: Vec<&[u8]> = tags.iter().map(|tag| tag.as_bytes()).collect();
            all.if_modified_since = None;
            all.if_none_match =
                HeaderValue::from_bytes(&list.join(&b", "[..])).ok().filter(|_| !list.is_empty());
        }
        all
    }

    /// Whether there is nothing to ask with.
    pub fn is_empty(&self) -> bool {
        self.if_none_match.is_none() && self.if_modified_since.is_none()
    }

    /// Makes a request ask for the stored response. The client's own conditions and ranges are
    /// removed: the answer must speak of what is stored, and whole.
    pub fn apply(&self, request: &mut HeaderMap) {
        for name in [
            header::IF_MATCH,
            header::IF_NONE_MATCH,
            header::IF_MODIFIED_SINCE,
            header::IF_UNMODIFIED_SINCE,
            header::IF_RANGE,
            header::RANGE,
        ] {
            request.remove(name);
        }
        if let Some(tags) = &self.if_none_match {
            request.insert(header::IF_NONE_MATCH, tags.clone());
        }
        if let Some(date) = &self.if_modified_since {
            request.insert(header::IF_MODIFIED_SINCE, date.clone());
        }
    }
}

/// The entity tag, if there is one line of one well-formed tag (RFC 9110 §8.8.3).
fn entity_tag(headers: &HeaderMap) -> Option<&HeaderValue> {
    let mut lines = headers.get_all(header::ETAG).iter();
    let tag = lines.next()?;
    let sole = lines.next().is_none();
    (sole && Tag::parse(tag.as_bytes()).is_some()).then_some(tag)
}

/// Last-Modified, if it is a date.
fn modification_date(headers: &HeaderMap) -> Option<&HeaderValue> {
    let date = headers.get(header::LAST_MODIFIED)?;
    // The reference time only decides the century of two-digit years, which does not matter here.
    date::parse(date.as_bytes(), SystemTime::UNIX_EPOCH).map(|_| date)
}

/// An entity tag (RFC 9110 §8.8.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Tag<'a> {
    weak: bool,
    opaque: &'a [u8],
}

impl<'a> Tag<'a> {
    fn parse(text: &'a [u8]) -> Option<Self> {
        let (weak, rest) = match text {
            [b'W', b'/', rest @ ..] => (true, rest),
            rest => (false, rest),
        };
        let [b'"', opaque @ .., b'"'] = rest else {
            return None;
        };
        let valid = opaque.iter().all(|b| matches!(b, 0x21 | 0x23..=0x7e | 0x80..=0xff));
        valid.then_some(Self { weak, opaque })
    }
}

/// Whether a 304 speaks of a stored response (§4.3.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshens {
    /// It does: update the stored header section with [`merge`].
    Yes,
    /// It speaks of something else: the stored response is not updated, and the request must be sent
    /// again without conditions.
    No(Mismatch),
}

/// In what a 304 and a stored response differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mismatch {
    /// The entity tags are not the same.
    EntityTag,
    /// The modification dates are not the same.
    LastModified,
}

impl Mismatch {
    /// The name in logs, metrics and Cache-Status.
    pub fn label(self) -> &'static str {
        match self {
            Self::EntityTag => "etag-mismatch",
            Self::LastModified => "last-modified-mismatch",
        }
    }
}

/// Does this 304 speak of this stored response, the only one whose validators were sent? A strong
/// entity tag must be the same strong tag; a weak one needs the same opaque text; where there is no
/// tag, the dates decide.
///
/// A 304 without any validator is taken to speak of the response that was asked about: RFC 9111
/// §4.3.4 says so only for a stored response without validators, but widespread origins leave out
/// Last-Modified, and the conditions named nothing else.
pub fn freshens(stored: &HeaderMap, not_modified: &HeaderMap) -> Freshens {
    match compare(stored, not_modified) {
        Some(verdict) => verdict,
        None => Freshens::Yes,
    }
}

/// Which of several stored responses a 304 speaks of (§4.3.4), by their place in the list, which is
/// ordered from the newest to the oldest: all with the same strong tag, else the newest of those that
/// match weakly. A 304 without a validator speaks of none of several.
pub fn selected(stored: &[&HeaderMap], not_modified: &HeaderMap) -> Vec<usize> {
    if let [only] = stored {
        return match freshens(only, not_modified) {
            Freshens::Yes => vec![0],
            Freshens::No(_) => Vec::new(),
        };
    }
    let mut matching: Vec<usize> = (0..stored.len())
        .filter(|&at| compare(stored[at], not_modified) == Some(Freshens::Yes))
        .collect();
    let tag = entity_tag(not_modified).and_then(|tag| Tag::parse(tag.as_bytes()));
    if tag.is_none_or(|tag| tag.weak) {
        matching.truncate(1);
    }
    matching
}

/// `None` when the new response brings no validator to compare with.
fn compare(stored: &HeaderMap, new: &HeaderMap) -> Option<Freshens> {
    let verdict = |same: bool, mismatch| match same {
        true => Some(Freshens::Yes),
        false => Some(Freshens::No(mismatch)),
    };
    if let Some(new) = new.get(header::ETAG) {
        let old = stored.get(header::ETAG);
        let same = match (old.and_then(|o| Tag::parse(o.as_bytes())), Tag::parse(new.as_bytes())) {
            (Some(old), Some(new)) if !new.weak => old == new,
            (Some(old), Some(new)) => old.opaque == new.opaque,
            // Not tags at all: only the very same text is the same.
            _ => old == Some(new),
        };
        return verdict(same, Mismatch::EntityTag);
    }
    let new = new.get(header::LAST_MODIFIED)?;
    verdict(stored.get(header::LAST_MODIFIED) == Some(new), Mismatch::LastModified)
}

/// The stored header section as a 304, or the answer to a HEAD, updates it (§3.2): every field of the
/// update replaces all stored lines of its name, except those that describe how a message was framed,
/// how the stored content is coded, or one connection.
///
/// Age and Date always become the update's: the stored ones would make a response that was just
/// validated as old as before. Where the update has no Date, `arrived` stands for it (RFC 9110
/// §6.6.1). Ask [`crate::cache::storable::may_keep`] anew with the result, strip what it says, and
/// store nothing when it says no.
#[must_use]
pub fn merge(stored: &HeaderMap, update: &HeaderMap, arrived: SystemTime) -> HeaderMap {
    let mut merged = stored.clone();
    merged.remove(header::AGE);
    merged.remove(header::DATE);
    let excepted = hop_by_hop(update);
    for name in update.keys() {
        if excepted.contains(name) || describes_the_content(name) {
            continue;
        }
        merged.remove(name);
        for line in update.get_all(name) {
            merged.append(name.clone(), line.clone());
        }
    }
    if !merged.contains_key(header::DATE)
        && let Ok(date) = HeaderValue::from_str(&date::format(arrived))
    {
        merged.insert(header::DATE, date);
    }
    merged
}

/// The fields that the stored bytes depend on: another value would make them undecodable.
fn describes_the_content(name: &HeaderName) -> bool {
    [header::CONTENT_LENGTH, header::CONTENT_ENCODING, header::CONTENT_RANGE].contains(name)
}

/// What the 200 answer to a HEAD does to a stored GET response (§4.3.5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeadUpdate {
    /// It is still the same: this is its header section now.
    Freshen(HeaderMap),
    /// It is another: the stored response is stale from now on.
    Invalidate,
}

/// What the answer to a HEAD, with status 200, does to the stored GET response that the same request
/// would have selected: the validators and the length that it brings must be the stored ones.
pub fn freshen_by_head(stored: &HeaderMap, head: &HeaderMap, arrived: SystemTime) -> HeadUpdate {
    let same = [header::ETAG, header::LAST_MODIFIED, header::CONTENT_LENGTH]
        .iter()
        .filter(|name| head.contains_key(*name))
        .all(|name| head.get_all(name) == stored.get_all(name));
    if !same {
        return HeadUpdate::Invalidate;
    }
    HeadUpdate::Freshen(merge(stored, head, arrived))
}

#[cfg(test)]
#[path = "revalidate_tests.rs"]
mod tests;
