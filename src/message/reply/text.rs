//! The head of a response as the text that it came as, for who writes most of it again as it is.

use std::ops::Range;

use http::HeaderName;
use http::StatusCode;
use http::Version;

use super::OriginFault;
use super::Seen;
use super::head::Reply;
use super::head::ReplyHead;
use super::request::Asked;
use crate::message::chunked::BodyFraming;
use crate::message::head::fields::Span;
use crate::message::list::is_word;

/// The head of a response to a request that was neither HEAD nor offered a tunnel, where it stands.
#[derive(Debug, Clone, Copy)]
pub struct ReplyText<'a> {
    /// The status.
    pub status: StatusCode,
    /// HTTP/1.0 or HTTP/1.1.
    pub version: Version,
    /// How its body is framed; `None` of an interim response, which another head follows.
    pub body: Option<BodyFraming>,
    /// How many bytes it is long.
    pub len: usize,
    text: &'a [u8],
    seen: &'a Seen,
}

/// A field line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line<'a> {
    /// The name, in the case that it came in.
    pub name: &'a [u8],
    /// The value, without the whitespace around it.
    pub value: &'a [u8],
    /// Where the line stands in what [`ReplyText::bytes`] gives out, if it is written as we write lines: a colon, one space and the
    /// line end.
    pub place: Option<(usize, usize)>,
}

impl<'a> ReplyText<'a> {
    /// The head that was seen at the front of `text`.
    ///
    /// # Errors
    /// What a [`ReplyGuard`](super::ReplyGuard) does not let pass either.
    pub fn of(text: &'a [u8], seen: &'a Seen) -> Result<Self, OriginFault> {
        let (end, reply) = seen.whole().ok_or(OriginFault::TruncatedHead)?;
        let text = text.get(..end).ok_or(OriginFault::TruncatedHead)?;
        let (status, body) = meaning(&reply)?;
        Ok(Self { status, version: reply.version(), body, len: end, text, seen })
    }

    /// The bytes of these positions.
    #[must_use]
    pub fn bytes(&self, range: Range<usize>) -> &'a [u8] {
        self.text.get(range).unwrap_or_default()
    }

    /// The field lines, in the order that they came in.
    pub fn lines(&self) -> impl Iterator<Item = Line<'a>> + use<'a> {
        let text = self.text;
        self.seen.spans().iter().map(move |(name, value)| Line {
            name: name.of(text),
            value: value.of(text),
            place: place(text, *name, *value),
        })
    }

    /// The values of the lines of a field.
    pub fn values<'n>(&self, name: &'n HeaderName) -> impl Iterator<Item = &'a [u8]> + use<'a, 'n> {
        let (text, name) = (self.text, name.as_str().as_bytes());
        self.seen
            .spans_for(name.len())
            .iter()
            .filter(move |(span, _)| span.len() == name.len() && is_word(span.of(text), name))
            .map(move |(_, value)| value.of(text))
    }
}

/// Where a line stands that is written as we would.
fn place(text: &[u8], name: Span, value: Span) -> Option<(usize, usize)> {
    let (begin, end) = (name.start(), value.end() + 2);
    let is_ours = value.start() == name.end() + 2
        && text.get(name.end()..value.start()) == Some(b": ")
        && text.get(value.end()..end) == Some(b"\r\n");
    is_ours.then_some((begin, end))
}

/// The status, and how the body is framed; `None` of an interim response.
pub(super) fn meaning(reply: &ReplyHead) -> Result<(StatusCode, Option<BodyFraming>), OriginFault> {
    let body = match reply.judge(Asked::Content)? {
        Reply::Interim => None,
        Reply::Switched => return Err(OriginFault::UnaskedUpgrade),
        Reply::Final(framing) => Some(framing),
    };
    let status = StatusCode::from_u16(reply.status()).map_err(|_| OriginFault::BadStatus)?;
    Ok((status, body))
}

#[cfg(test)]
mod tests {
    use http::header;

    use super::*;
    use crate::message::reply::ReplyLimits;

    const TEXT: &[u8] =
        b"HTTP/1.1 200 OK\r\nServer: a\r\nX:b\r\nY: c \r\nVIA:\r\nvia: d\r\nZ: \r\n\r\nbody";

    fn seen(text: &[u8]) -> Seen {
        Seen::read(text, &ReplyLimits::default()).expect("a good head").expect("a whole head")
    }

    #[test]
    fn a_line_has_a_place_if_it_can_be_written_as_it_is() {
        let seen = seen(TEXT);
        let head = ReplyText::of(TEXT, &seen).expect("a good head");
        assert_eq!((head.status, head.version), (StatusCode::OK, Version::HTTP_11));
        assert_eq!((head.body, &TEXT[head.len..]), (Some(BodyFraming::UntilClose), &b"body"[..]));
        let text = |bytes| std::str::from_utf8(bytes).expect("the test is ASCII");
        let lines: Vec<_> = head
            .lines()
            .map(|Line { name, value, place }| {
                let whole = place.map(|(begin, end)| text(head.bytes(begin..end)));
                (text(name), text(value), whole)
            })
            .collect();
        let expected = [
            ("Server", "a", Some("Server: a\r\n")),
            ("X", "b", None),
            ("Y", "c", None),
            ("VIA", "", None),
            ("via", "d", Some("via: d\r\n")),
            ("Z", "", Some("Z: \r\n")),
        ];
        assert_eq!(lines, expected);
        let via: Vec<_> = head.values(&header::VIA).collect();
        assert_eq!(via, [&b""[..], b"d"]);
        assert_eq!(head.values(&header::AGE).next(), None);
    }

    #[test]
    fn what_is_no_head_of_these_bytes_is_none() {
        let seen = seen(TEXT);
        assert_eq!(ReplyText::of(&TEXT[..20], &seen).unwrap_err(), OriginFault::TruncatedHead);
        assert_eq!(ReplyText::of(TEXT, &Seen::default()).unwrap_err(), OriginFault::TruncatedHead);
    }
}
