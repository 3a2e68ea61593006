//! The head of a stored response, in memory of its own.
//!
//! Parsed and checked once, it is kept as the lines that HTTP/1.1 writes: a map of the same fields
//! takes ten times the room, and most hits write lines. Field values that come from a connection are
//! slices of its read buffers; keeping them would pin buffers that nobody counts, so all is copied.

use std::ops::Range;

use bytes::Bytes;
use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use http::StatusCode;
use http::header;

use crate::cache::freshness::Restraint;
use crate::message::title;

/// As many fields as are usually added to those of a stored response.
const ADDED: usize = 6;

/// What is known of a head beside its text.
#[derive(Debug, Clone, Copy)]
pub(super) struct Head {
    pub(super) status: StatusCode,
    /// What the fields say of reuse, read once.
    pub(super) restraint: Restraint,
    /// Whether it says a length.
    pub(super) length: Length,
    /// Whether it has something to validate it by.
    pub(super) validator: Validator,
    /// How many bytes of them, the last ones, must not enter an HTTP/2 table (RFC 7541 §7.1.3).
    sensitive: u32,
}

/// Whether the fields say how long the body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Length {
    Said,
    Unsaid,
}

/// Whether the fields hold an ETag or a Last-Modified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Validator {
    Some,
    None,
}

/// The fields cannot be kept: they are too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooManyFields;

impl Head {
    /// Appends `headers` to `text` as lines.
    pub(super) fn write(
        status: StatusCode,
        headers: &HeaderMap,
        text: &mut Vec<u8>,
    ) -> Result<Self, TooManyFields> {
        let is_sensitive =
            |name: &HeaderName| headers.get_all(name).iter().any(HeaderValue::is_sensitive);
        let mut some_are = false;
        for (name, value) in headers {
            match is_sensitive(name) {
                true => some_are = true,
                false => line(text, name, value),
            }
        }
        let plain = text.len();
        if some_are {
            headers
                .iter()
                .filter(|(name, _)| is_sensitive(name))
                .for_each(|(name, value)| line(text, name, value));
        }
        let has = |name: &HeaderName| headers.contains_key(name);
        Ok(Self {
            status,
            restraint: Restraint::of(headers),
            length: if has(&header::CONTENT_LENGTH) { Length::Said } else { Length::Unsaid },
            validator: match has(&header::ETAG) || has(&header::LAST_MODIFIED) {
                true => Validator::Some,
                false => Validator::None,
            },
            sensitive: u32::try_from(text.len() - plain).map_err(|_| TooManyFields)?,
        })
    }

    /// How many bytes at the end of the lines are of fields that must not enter an HTTP/2 table.
    pub(super) fn sensitive(&self) -> u32 {
        self.sensitive
    }

    /// How many bytes the lines of these fields have.
    pub(super) fn text_len(headers: &HeaderMap) -> usize {
        headers.iter().map(|(name, value)| name.as_str().len() + value.len() + ": \r\n".len()).sum()
    }

    /// The fields of which `wanted` is true, out of `text`: their values share its memory.
    pub(super) fn fields(&self, text: &Bytes, wanted: impl Fn(&str) -> bool) -> HeaderMap {
        let mut fields = HeaderMap::new();
        for (at, line) in Lines::of(text).with_places() {
            if !wanted(line.name) {
                continue;
            }
            // Once, by the usual length of a line, with room for what an answer says beside them.
            if fields.is_empty() && fields.try_reserve(text.len() / 32 + ADDED).is_err() {
                return fields;
            }
            let sensitive = text.len() - at.end < self.sensitive as usize;
            let Some((name, value)) = field(text, &at, &line, sensitive) else { continue };
            if fields.try_append(name, value).is_err() {
                return fields;
            }
        }
        fields
    }
}

fn line(text: &mut Vec<u8>, name: &HeaderName, value: &HeaderValue) {
    text.extend_from_slice(title::of(name).as_bytes());
    text.extend_from_slice(b": ");
    text.extend_from_slice(value.as_bytes());
    text.extend_from_slice(b"\r\n");
}

/// A line as a field again; it was one, so it is.
fn field(
    text: &Bytes,
    at: &Range<usize>,
    line: &Line<'_>,
    sensitive: bool,
) -> Option<(HeaderName, HeaderValue)> {
    let name = HeaderName::from_bytes(line.name.as_bytes()).ok()?;
    let value = text.slice(at.end - "\r\n".len() - line.value.len()..at.end - "\r\n".len());
    let mut value = HeaderValue::from_maybe_shared(value).ok()?;
    value.set_sensitive(sensitive);
    Some((name, value))
}

/// One field of a stored response, as HTTP/1.1 writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line<'a> {
    /// Its name, in the case in which it is written; see [`title::of`].
    pub name: &'a str,
    /// Its value.
    pub value: &'a [u8],
    /// The whole line, its end included.
    pub whole: &'a [u8],
}

/// The fields of a stored response, those of one name in their order.
#[derive(Debug, Clone)]
pub struct Lines<'a> {
    rest: &'a [u8],
}

impl<'a> Lines<'a> {
    pub(super) fn of(text: &'a [u8]) -> Self {
        Self { rest: text }
    }

    /// Each line and where it stands in the text.
    fn with_places(self) -> impl Iterator<Item = (Range<usize>, Line<'a>)> {
        let mut start = 0;
        self.map(move |line| {
            let end = start + line.whole.len();
            (std::mem::replace(&mut start, end)..end, line)
        })
    }
}

impl<'a> Iterator for Lines<'a> {
    type Item = Line<'a>;

    fn next(&mut self) -> Option<Line<'a>> {
        let end = memchr::memchr(b'\n', self.rest)? + 1;
        let (whole, rest) = self.rest.split_at_checked(end)?;
        self.rest = rest;
        let colon = memchr::memchr(b':', whole)?;
        let name = std::str::from_utf8(whole.get(..colon)?).ok()?;
        let value = whole.get(colon + ": ".len()..end - "\r\n".len())?;
        Some(Line { name, value, whole })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn several() -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.append("content-type", HeaderValue::from_static("text/html"));
        headers.append("x-one", HeaderValue::from_static("1"));
        headers.append("x-one", HeaderValue::from_static(""));
        headers
            .append("x-one", HeaderValue::from_bytes(b"caf\xe9: x").expect("obs-text is allowed"));
        headers
    }

    fn written(headers: &HeaderMap) -> (Head, Bytes) {
        let mut text = Vec::new();
        let head = Head::write(StatusCode::OK, headers, &mut text).expect("few fields");
        assert_eq!(text.len(), Head::text_len(headers));
        (head, text.into())
    }

    #[test]
    fn fields_are_written_as_lines() {
        let (_, text) = written(&several());
        assert_eq!(
            &text[..],
            b"Content-Type: text/html\r\nx-one: 1\r\nx-one: \r\nx-one: caf\xe9: x\r\n"
        );
        let lines: Vec<_> = Lines::of(&text).map(|line| (line.name, line.value)).collect();
        assert_eq!(lines[0], ("Content-Type", b"text/html".as_slice()));
        assert_eq!(lines[3], ("x-one", b"caf\xe9: x".as_slice()));
    }

    #[test]
    fn only_what_is_wanted_is_read_back() {
        let (head, text) = written(&several());
        let read = head.fields(&text, |name| name == "Content-Type");
        assert_eq!(
            (read.len(), &read["content-type"]),
            (1, &HeaderValue::from_static("text/html"))
        );
        assert_eq!(head.fields(&text, |name| name == "x-none"), HeaderMap::new());
    }

    #[test]
    fn what_is_sensitive_stays_so_and_its_values_keep_their_order() {
        let mut headers = several();
        let mut secret = HeaderValue::from_static("secret");
        secret.set_sensitive(true);
        headers.append("x-one", secret);
        let (head, text) = written(&headers);
        let read = head.fields(&text, |_| true);
        assert!(read.get_all("x-one").iter().eq(headers.get_all("x-one")));
        assert!(read.get_all("x-one").iter().all(HeaderValue::is_sensitive));
        assert!(!read["content-type"].is_sensitive());
    }

    #[test]
    fn values_share_the_memory_of_the_text() {
        let (head, text) = written(&several());
        let read = head.fields(&text, |_| true);
        let place = read["content-type"].as_bytes().as_ptr() as usize;
        assert!((text.as_ptr() as usize..text.as_ptr() as usize + text.len()).contains(&place));
    }

    #[test]
    fn a_head_without_fields_has_no_lines() {
        let (head, text) = written(&HeaderMap::new());
        assert!(text.is_empty() && Lines::of(&text).next().is_none());
        assert_eq!(head.fields(&text, |_| true), HeaderMap::new());
    }

    proptest! {
        #[test]
        fn any_fields_read_back_as_they_were(
            fields in prop::collection::vec(("[A-Za-z0-9!#$%&'*+.^_`|~-]{1,12}", "[ -~\u{e9}\t]{0,20}"), 0..20),
        ) {
            let mut headers = HeaderMap::new();
            for (name, value) in fields {
                let name = HeaderName::from_bytes(name.as_bytes()).expect("a token");
                headers.append(name, HeaderValue::from_bytes(value.trim().as_bytes()).expect("no control characters"));
            }
            let (head, text) = written(&headers);
            let read = head.fields(&text, |_| true);
            prop_assert_eq!(&read, &headers);
            for name in headers.keys() {
                prop_assert!(read.get_all(name).iter().eq(headers.get_all(name)));
            }
        }
    }
}
