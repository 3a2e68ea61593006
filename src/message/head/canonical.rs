//! A request head written anew from what was understood of it.
//!
//! Nothing of the client's framing is copied: the request line, Host, the length, Connection and
//! Upgrade are written from the model, so that the next parser cannot read another message than the
//! one that was judged.

use http::Version;

use super::RequestHead;
use super::Upgrade;
use super::framing::FieldKind;
use crate::message::chunked::BodyFraming;

/// Writes the head anew: `METHOD target HTTP/1.x`, one Host, the fields that are not for this hop.
///
/// `buf` is the buffer that the head was read from. `authority` becomes the only Host; `None` leaves
/// it out, which is right for HTTP/1.0 alone. `target` and `authority` are written as they are: they
/// come from the target's own validation and hold no space or line end.
#[must_use]
pub fn canonical(
    buf: &[u8],
    head: &RequestHead,
    authority: Option<&str>,
    target: &[u8],
) -> Vec<u8> {
    let mut out = Vec::new();
    canonical_into(buf, head, authority, target, &mut out);
    out
}

/// [`canonical`] into a buffer of the caller's, behind what it holds.
pub fn canonical_into(
    buf: &[u8],
    head: &RequestHead,
    authority: Option<&str>,
    target: &[u8],
    out: &mut Vec<u8>,
) {
    let own = target.len() + authority.map_or(0, str::len) + 128;
    out.reserve(head.len.min(buf.len()) + own);

    out.extend_from_slice(head.method.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(target);
    out.extend_from_slice(match head.version {
        Version::HTTP_10 => b" HTTP/1.0\r\n",
        _ => b" HTTP/1.1\r\n",
    });
    if let Some(authority) = authority {
        line(out, b"Host", authority.as_bytes());
    }
    lines(buf, head, |name, value| line(out, name, value.bytes()));
    out.extend_from_slice(b"\r\n");
}

/// The value of a line of the head written anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Value<'a> {
    /// A part of what was received.
    Received(&'a [u8]),
    /// Written by us.
    Ours(&'a [u8]),
}

impl<'a> Value<'a> {
    fn bytes(self) -> &'a [u8] {
        match self {
            Self::Received(bytes) | Self::Ours(bytes) => bytes,
        }
    }
}

/// Every line of the head written anew behind Host, in its order: the fields that are not for this hop, and
/// the fields of this hop, from the model alone.
pub(super) fn lines(buf: &[u8], head: &RequestHead, mut emit: impl FnMut(&[u8], Value<'_>)) {
    for field in &head.fields.0 {
        if field.kind == FieldKind::Plain {
            let name = field.name.of(buf);
            if !head.nominates(name) {
                emit(name, Value::Received(field.value.of(buf)));
            }
        }
    }
    match head.body {
        BodyFraming::Length(length) => {
            emit(b"Content-Length", Value::Ours(length.to_string().as_bytes()));
        }
        BodyFraming::Chunked => emit(b"Transfer-Encoding", Value::Ours(b"chunked")),
        // The other two do not occur in requests (RFC 9112 §6.3).
        BodyFraming::None | BodyFraming::UntilClose | BodyFraming::Tunnel => {}
    }
    let mut ours = |name: &[u8], value: &[u8]| emit(name, Value::Ours(value));
    if head.expects_continue {
        ours(b"Expect", b"100-continue");
    }
    if head.accepts_trailers {
        ours(b"TE", b"trailers");
    }
    let lasts_by_default = head.version != Version::HTTP_10;
    match (head.upgrade, head.keep_alive) {
        (Upgrade::WebSocket, true) => ours(b"Connection", b"upgrade"),
        (Upgrade::WebSocket, false) => ours(b"Connection", b"upgrade, close"),
        (Upgrade::None | Upgrade::Ignored, false) => ours(b"Connection", b"close"),
        (Upgrade::None | Upgrade::Ignored, true) if !lasts_by_default => {
            ours(b"Connection", b"keep-alive");
        }
        (Upgrade::None | Upgrade::Ignored, true) => {}
    }
    if head.upgrade == Upgrade::WebSocket {
        ours(b"Upgrade", b"websocket");
    }
}

fn line(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}
