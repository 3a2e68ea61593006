//! The head of a response as who passes it on needs it, read from bytes that a guard has let pass.

use bytes::BytesMut;
use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use http::StatusCode;
use http::Version;

use super::OriginFault;
use super::ReplyLimits;
use super::Seen;
use super::text::meaning;
use crate::message::chunked::BodyFraming;
use crate::message::spare;

/// The head of a response to a request that was neither HEAD nor offered a tunnel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplyMessage {
    /// The status.
    pub status: StatusCode,
    /// HTTP/1.0, HTTP/1.1, or HTTP/2 where the library read it.
    pub version: Version,
    /// Every field.
    pub headers: HeaderMap,
    /// How its body is framed; `None` of an interim response, which another head follows.
    pub body: Option<BodyFraming>,
}

impl ReplyMessage {
    /// Takes a whole head off the front of `buf`; `None` while it is not whole. Values share the memory
    /// of `buf`.
    ///
    /// # Errors
    /// What a [`ReplyGuard`](super::ReplyGuard) does not let pass either.
    pub fn take(buf: &mut BytesMut, limits: &ReplyLimits) -> Result<Option<Self>, OriginFault> {
        let Some(seen) = Seen::read(buf, limits)? else { return Ok(None) };
        Self::take_seen(buf, &seen).map(Some)
    }

    /// Takes the head off the front of `buf` that was seen there.
    ///
    /// # Errors
    /// What a [`ReplyGuard`](super::ReplyGuard) does not let pass either.
    pub fn take_seen(buf: &mut BytesMut, seen: &Seen) -> Result<Self, OriginFault> {
        let (end, reply) = seen.whole().ok_or(OriginFault::TruncatedHead)?;
        if end > buf.len() {
            return Err(OriginFault::TruncatedHead);
        }
        let (status, body) = meaning(&reply)?;
        let text = buf.split_to(end).freeze();
        let mut headers = spare::fields();
        let room = seen.spans().len() + ROOM;
        headers.try_reserve(room).map_err(|_| OriginFault::TooManyFields)?;
        for &(name, value) in seen.spans() {
            let name = HeaderName::from_bytes(name.of(&text));
            let value = match value.of(&text) {
                // An empty value lies nowhere.
                [] => Ok(HeaderValue::from_static("")),
                bytes => HeaderValue::from_maybe_shared(text.slice_ref(bytes)),
            };
            let (Ok(name), Ok(value)) = (name, value) else {
                return Err(OriginFault::MalformedField);
            };
            headers.try_append(name, value).map_err(|_| OriginFault::TooManyFields)?;
        }
        Ok(Self { status, version: reply.version(), headers, body })
    }
}

/// Room for what we add ourselves.
const ROOM: usize = 6;

#[cfg(test)]
mod tests {
    use http::header;

    use super::*;
    use crate::message::reply::ReplyGuard;

    fn take(text: &str) -> (Result<Option<ReplyMessage>, OriginFault>, BytesMut) {
        let mut buf = BytesMut::from(text);
        let taken = ReplyMessage::take(&mut buf, &ReplyLimits::default());
        (taken, buf)
    }

    #[test]
    fn a_whole_head_is_taken_and_what_follows_is_left() {
        let (taken, left) = take(
            "HTTP/1.1 404 No\r\nContent-Length: 3\r\nX-A:\r\nSet-Cookie: a\r\nset-cookie: b\r\n\r\nbod",
        );
        let head = taken.expect("a good head").expect("a whole head");
        assert_eq!((head.status.as_u16(), head.version), (404, Version::HTTP_11));
        assert_eq!(head.body, Some(BodyFraming::Length(3)));
        assert_eq!(head.headers["x-a"], "");
        let cookies: Vec<_> = head.headers.get_all(header::SET_COOKIE).iter().collect();
        assert_eq!(cookies, ["a", "b"]);
        assert_eq!(left, "bod");
    }

    #[test]
    fn nothing_is_taken_of_a_head_that_is_not_whole() {
        let text = "HTTP/1.1 200 OK\r\nX: y\r\n";
        let (taken, left) = take(text);
        assert_eq!((taken, &left[..]), (Ok(None), text.as_bytes()));
    }

    #[test]
    fn the_body_is_framed_as_the_head_says() {
        for (text, body) in [
            ("HTTP/1.1 103 Hints\r\n\r\n", None),
            ("HTTP/1.1 204 No\r\n\r\n", Some(BodyFraming::None)),
            ("HTTP/1.1 304 Same\r\nContent-Length: 9\r\n\r\n", Some(BodyFraming::None)),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", Some(BodyFraming::Chunked)),
            ("HTTP/1.0 200 OK\r\n\r\n", Some(BodyFraming::UntilClose)),
        ] {
            let head = take(text).0.expect("a good head").expect("a whole head");
            assert_eq!(head.body, body, "{text}");
        }
    }

    /// What a guard has seen is what is read anew; of an interim response and the answer behind it the former.
    #[test]
    fn what_a_guard_has_seen_need_not_be_read_again() {
        for text in [
            "HTTP/1.1 404 No\r\nContent-Length: 3\r\nX-A:\r\nSet-Cookie: a\r\n\r\nbod",
            "HTTP/1.1 103 Hints\r\nLink: a\r\n\r\nHTTP/1.1 200 OK\r\nX: y\r\n\r\n",
            "HTTP/1.0 200\r\n\r\n",
        ] {
            let mut guard = ReplyGuard::default();
            guard.on_own_request();
            guard.on_reply_bytes(text.as_bytes()).expect("an answer");
            let mut buf = BytesMut::from(text);
            let seen = guard.take_seen().expect("it came in one piece");
            let taken = ReplyMessage::take_seen(&mut buf, &seen).map(Some);
            assert_eq!((taken, buf), take(text), "{text}");
            assert!(guard.take_seen().is_none(), "once");
        }
    }

    #[test]
    fn of_a_head_in_pieces_nothing_is_remembered() {
        let text = b"HTTP/1.1 200 OK\r\nX: y\r\nContent-Length: 0\r\n\r\n";
        for cut in 1..text.len() {
            let mut guard = ReplyGuard::default();
            guard.on_own_request();
            guard.on_reply_bytes(&text[..cut]).expect("some of an answer");
            guard.on_reply_bytes(&text[cut..]).expect("the rest");
            assert!(guard.take_seen().is_none(), "{cut}");
        }
    }

    #[test]
    fn what_a_guard_refuses_is_refused_here() {
        for (text, fault) in [
            ("HTTP/1.1 101 Go\r\nUpgrade: websocket\r\n\r\n", OriginFault::UnaskedUpgrade),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
                OriginFault::AmbiguousLength,
            ),
            ("nonsense", OriginFault::MalformedStatusLine),
        ] {
            assert_eq!(take(text).0, Err(fault), "{text}");
        }
    }
}
