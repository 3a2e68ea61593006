//! What we asked for, read from the bytes that went to the origin.

use http::Method;

use super::OriginFault;
use crate::message::chunked::BodyScanner;
use crate::message::head::HeadLimits;
use crate::message::head::HeadScanner;
use crate::message::head::Scan;
use crate::message::head::Upgrade;
use crate::message::head::fields::Carry;
use crate::refusal::Refusal;

/// Our own heads are bounded by what clients may send and configured edits add; this is far above.
const LIMITS: HeadLimits = HeadLimits { bytes: 1 << 20, fields: 1000, target: 128 << 10 };

/// What decides how an answer is read (RFC 9112 §6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// HEAD: the answer has no body.
    Head,
    /// An ordinary request.
    Content,
    /// A request that may become a WebSocket.
    WebSocket,
    /// Not a request of HTTP/1 at all but the preface of HTTP/2.
    Preface,
}

/// Follows the requests of one connection.
#[derive(Debug, Default)]
pub(super) struct RequestTap {
    sending: Sending,
}

#[derive(Debug, Default)]
enum Sending {
    /// Nothing, or nothing since the last answer was whole.
    #[default]
    Idle,
    /// Within a head.
    Head { scanner: Box<HeadScanner>, carry: Carry },
    /// Within a body.
    Body(BodyScanner),
    /// The request is out, its answer not whole.
    Sent,
}

impl RequestTap {
    /// A request is out, whole.
    pub(super) fn sent() -> Self {
        Self { sending: Sending::Sent }
    }

    /// Whether a next request may begin.
    pub(super) fn is_idle(&self) -> bool {
        matches!(self.sending, Sending::Idle)
    }

    /// Whether the body is under way.
    pub(super) fn is_in_body(&self) -> bool {
        matches!(self.sending, Sending::Body(_))
    }

    /// The answer is whole; if the request is too, the next one may begin.
    pub(super) fn rest(&mut self) {
        if matches!(self.sending, Sending::Sent) {
            self.sending = Sending::Idle;
        }
    }

    /// Takes some of the input and says how much; with the last byte of a head also what it asks.
    pub(super) fn feed(&mut self, input: &[u8]) -> Result<(usize, Option<Asked>), OriginFault> {
        match &mut self.sending {
            Sending::Idle => {
                self.sending = Sending::Head { scanner: Box::default(), carry: Carry::default() };
                Ok((0, None))
            }
            Sending::Head { scanner, carry } => {
                let before = carry.len();
                let head = match scanner.scan(carry.join(input, LIMITS.bytes), &LIMITS) {
                    Scan::NeedMore => {
                        carry.keep(input);
                        return Ok((input.len(), None));
                    }
                    Scan::Preface => return Ok((input.len(), Some(Asked::Preface))),
                    Scan::Refused(refusal) => return Err(OriginFault::OwnRequest(refusal)),
                    Scan::Head(head) => head,
                };
                let asked = match head.method {
                    // Its answer would be a tunnel without a word of the origin's (RFC 9110 §9.3.6).
                    Method::CONNECT => {
                        return Err(OriginFault::OwnRequest(Refusal::MethodNotAllowed));
                    }
                    Method::HEAD => Asked::Head,
                    _ if head.upgrade == Upgrade::WebSocket => Asked::WebSocket,
                    _ => Asked::Content,
                };
                let body = BodyScanner::new(head.body);
                self.sending = if body.at_end() { Sending::Sent } else { Sending::Body(body) };
                Ok((head.len.saturating_sub(before), Some(asked)))
            }
            Sending::Body(body) => {
                let fed =
                    body.feed(input).map_err(|_| OriginFault::OwnRequest(Refusal::BadChunk))?;
                if fed.done {
                    self.sending = Sending::Sent;
                }
                Ok((fed.consumed, None))
            }
            Sending::Sent => Err(OriginFault::RequestOverrun),
        }
    }
}
