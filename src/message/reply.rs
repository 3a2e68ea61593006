//! A connection to an HTTP/1 origin, watched from both sides (RFC 9112 §4–§7).
//!
//! The guard sees the bytes that go to the origin and those that come back, changes none, and says
//! where the origin's answer stops being a message: a head that another parser might read otherwise,
//! a body that ends too early, bytes that nobody asked for. Such a connection is closed, and what it
//! carried is never shown as complete.
//!
//! ```
//! use edgeproxy::message::reply::OriginFault;
//! use edgeproxy::message::reply::ReplyGuard;
//!
//! let mut guard = ReplyGuard::default();
//! guard.on_request_bytes(b"GET / HTTP/1.1\r\nHost: e\r\n\r\n")?;
//! guard.on_reply_bytes(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no")?;
//! assert_eq!(guard.on_eof(), Err(OriginFault::TruncatedBody));
//! # Ok::<(), OriginFault>(())
//! ```

mod fault;
pub mod fields;
mod head;
mod message;
mod request;
mod seen;
#[cfg(test)]
mod tests;
mod text;

use std::time::Duration;

pub use self::fault::OriginFault;
use self::head::Reply;
use self::head::ReplyScan;
use self::head::ReplyScanner;
pub use self::message::ReplyMessage;
use self::request::Asked;
use self::request::RequestTap;
pub use self::seen::Seen;
pub use self::text::Line;
pub use self::text::ReplyText;
use super::chunked::BodyScanner;
use super::chunked::Of;
use super::head::MOST_BYTES;
use super::head::fields::Carry;

/// How much of an origin's answer is accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplyLimits {
    /// Bytes of one head, its status line and empty line included; at most 16 MiB.
    pub head: usize,
    /// Field lines of one head.
    pub fields: usize,
    /// Interim (1xx) responses before the final one.
    pub interim: u32,
}

impl Default for ReplyLimits {
    fn default() -> Self {
        Self { head: 64 << 10, fields: 200, interim: 16 }
    }
}

/// Watches one connection to an origin.
///
/// A fault is final: every later call repeats it.
#[derive(Debug)]
pub struct ReplyGuard {
    limits: ReplyLimits,
    request: RequestTap,
    reply: Receiving,
    interim: u32,
    /// The last request may become a tunnel, or could have.
    offered: bool,
    afterwards: Afterwards,
    /// Of the answer to an own request: its head, where that is known.
    seen: Option<Seen>,
    fault: Option<OriginFault>,
}

/// What an origin does with the connection when its answer is whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Afterwards {
    /// It closes it.
    Closes,
    /// It waits for the next request, as far as it said for so long.
    Persists {
        /// The `timeout` of its `Keep-Alive`.
        patience: Option<Duration>,
    },
}

#[derive(Debug)]
enum Receiving {
    /// No answer is due.
    Idle,
    /// A head is due, of which some bytes may be there.
    Head { asked: Asked, scanner: ReplyScanner, carry: Carry },
    /// Within a body.
    Body(BodyScanner),
    /// Not HTTP/1 any more, in both directions.
    Tunnel,
    /// The connection's end has been seen.
    Closed,
}

impl Default for ReplyGuard {
    fn default() -> Self {
        Self::new(ReplyLimits::default())
    }
}

impl ReplyGuard {
    /// A guard of a new connection.
    #[must_use]
    pub fn new(limits: ReplyLimits) -> Self {
        let mut guard = Self {
            limits,
            request: RequestTap::default(),
            reply: Receiving::Idle,
            interim: 0,
            offered: false,
            afterwards: Afterwards::Persists { patience: None },
            seen: None,
            fault: None,
        };
        guard.hold_to(limits);
        guard
    }

    /// Accepts so much from here on.
    pub fn hold_to(&mut self, limits: ReplyLimits) {
        self.limits = ReplyLimits { head: limits.head.min(MOST_BYTES), ..limits };
    }

    /// How much it accepts.
    #[must_use]
    pub fn limits(&self) -> ReplyLimits {
        self.limits
    }

    /// Observes bytes that go to the origin, cut anywhere.
    ///
    /// The head tells what may be answered, and is held to the rules of
    /// [`message::head`](super::head): what we write must be as unambiguous as what we accept.
    /// A connection that begins with the preface of HTTP/2 is not watched any further.
    ///
    /// # Errors
    /// [`OriginFault::OwnRequest`] when these bytes are not a request of HTTP/1, and
    /// [`OriginFault::RequestOverrun`] when they go beyond the request that is being answered, as
    /// bytes for a tunnel do before the origin has agreed to it.
    pub fn on_request_bytes(&mut self, input: &[u8]) -> Result<(), OriginFault> {
        let outcome = self.fault.map_or(Ok(()), Err).and_then(|()| self.follow_request(input));
        self.remember(outcome)
    }

    /// A whole request without a body goes to the origin that neither is a HEAD nor offers a tunnel,
    /// written by somebody who knows how. Without effect while another is under way.
    pub fn on_own_request(&mut self) {
        if self.is_idle() {
            self.request = RequestTap::sent();
            self.interim = 0;
            self.offered = false;
            self.seen = Some(Seen::default());
            self.reply = Receiving::due(Asked::Content);
        }
    }

    /// Where the fields of the first head are that came since [`Self::on_own_request`], if it came whole in one
    /// piece, at the front of that; once.
    pub fn take_seen(&mut self) -> Option<Seen> {
        self.seen.take().filter(Seen::is_whole)
    }

    /// Observes bytes that came from the origin, cut anywhere.
    ///
    /// An origin may send more than its Content-Length announced. What was announced is a message, and
    /// the rest is none (RFC 9112 §6.3): such bytes pass when they come together with the end of that
    /// message, for the proxy to discard, but they are the fault of everything that follows.
    ///
    /// # Errors
    /// The first breach. None of these bytes is to be passed on then: the answer must not look whole.
    pub fn on_reply_bytes(&mut self, input: &[u8]) -> Result<(), OriginFault> {
        let outcome = self.fault.map_or(Ok(()), Err).and_then(|()| self.follow_reply(input));
        self.remember(outcome)
    }

    /// Observes that the origin sends no more.
    ///
    /// # Errors
    /// When an answer was due or under way that does not end with the connection.
    pub fn on_eof(&mut self) -> Result<(), OriginFault> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        let outcome = match &self.reply {
            Receiving::Idle | Receiving::Tunnel | Receiving::Closed => Ok(()),
            Receiving::Head { carry, .. } if carry.len() == 0 && self.interim == 0 => {
                Err(OriginFault::ClosedBeforeReply)
            }
            Receiving::Head { .. } => Err(OriginFault::TruncatedHead),
            Receiving::Body(body) if body.may_close() => Ok(()),
            Receiving::Body(_) => Err(OriginFault::TruncatedBody),
        };
        self.reply = Receiving::Closed;
        self.remember(outcome)
    }

    /// Whether the last request was sent whole and its answer came whole, so that another may follow.
    /// Also true before the first request; never after a fault or the connection's end.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.fault.is_none() && matches!(self.reply, Receiving::Idle) && self.request.is_idle()
    }

    /// What the origin said last of the time behind its answer; before its first one that it persists.
    #[must_use]
    pub fn afterwards(&self) -> Afterwards {
        self.afterwards
    }

    /// Whether the connection is a tunnel now, and nothing is checked any more.
    #[must_use]
    pub fn is_tunnel(&self) -> bool {
        self.fault.is_none() && matches!(self.reply, Receiving::Tunnel)
    }

    /// Whether some of a head has come, and not the whole of it.
    #[must_use]
    pub fn is_in_head(&self) -> bool {
        let begun = matches!(&self.reply, Receiving::Head { carry, .. } if carry.len() > 0);
        self.fault.is_none() && begun
    }

    /// Whether the head of an answer is due, of which some may have come.
    #[must_use]
    pub fn awaits_head(&self) -> bool {
        self.fault.is_none() && matches!(self.reply, Receiving::Head { .. })
    }

    /// Whether more of an answer is due, or of what runs in a tunnel.
    #[must_use]
    pub fn awaits_reply(&self) -> bool {
        self.fault.is_none() && !matches!(self.reply, Receiving::Idle | Receiving::Closed)
    }

    /// Whether a request's body has begun and is not whole.
    #[must_use]
    pub fn awaits_body(&self) -> bool {
        self.fault.is_none() && self.request.is_in_body()
    }

    /// Whether the request in flight offered a tunnel that the origin has not agreed to, or not yet.
    #[must_use]
    pub fn offers_tunnel(&self) -> bool {
        self.offered && !matches!(self.reply, Receiving::Tunnel) && !self.is_idle()
    }

    /// The fault that ended the watch, if there was one.
    #[must_use]
    pub fn fault(&self) -> Option<OriginFault> {
        self.fault
    }

    fn remember(&mut self, outcome: Result<(), OriginFault>) -> Result<(), OriginFault> {
        if let Err(fault) = outcome {
            self.fault = Some(fault);
        }
        outcome
    }

    fn follow_request(&mut self, input: &[u8]) -> Result<(), OriginFault> {
        if self.is_idle() {
            // What was said of the last exchange does not go for this one, whose head may not be whole yet.
            self.offered = false;
            self.seen = None;
        }
        let mut rest = input;
        while !rest.is_empty() {
            if matches!(self.reply, Receiving::Tunnel | Receiving::Closed) {
                return Ok(());
            }
            let (taken, asked) = self.request.feed(rest)?;
            rest = rest.get(taken..).unwrap_or_default();
            match asked {
                Some(Asked::Preface) => self.reply = Receiving::Tunnel,
                Some(asked) => {
                    self.interim = 0;
                    self.offered = asked == Asked::WebSocket;
                    self.reply = Receiving::due(asked);
                }
                None => {}
            }
            self.settle();
        }
        Ok(())
    }

    fn follow_reply(&mut self, input: &[u8]) -> Result<(), OriginFault> {
        let mut rest = input;
        while !rest.is_empty() {
            let taken = match &mut self.reply {
                Receiving::Tunnel => return Ok(()),
                Receiving::Idle | Receiving::Closed => return Err(OriginFault::Unasked),
                Receiving::Head { .. } => self.follow_head(rest)?,
                Receiving::Body(body) => {
                    let fed = body.feed(rest)?;
                    if fed.done && body.is_sized() && fed.consumed < rest.len() {
                        self.reply = Receiving::Closed;
                        self.fault = Some(OriginFault::Unasked);
                        return Ok(());
                    }
                    if fed.done {
                        self.reply = Receiving::Idle;
                        self.settle();
                    }
                    fed.consumed
                }
            };
            rest = rest.get(taken..).unwrap_or_default();
        }
        Ok(())
    }

    /// Reads on in a head and says how many bytes belong to it.
    fn follow_head(&mut self, input: &[u8]) -> Result<usize, OriginFault> {
        let Receiving::Head { asked, scanner, carry } = &mut self.reply else { return Ok(0) };
        let before = carry.len();
        let mut seen = self.seen.as_mut().filter(|seen| !seen.is_whole());
        let found = |name, value| {
            if let Some(seen) = &mut seen {
                seen.note(name, value);
            }
        };
        let text = carry.join(input, self.limits.head);
        let (end, reply) = match scanner.scan(text, &self.limits, found)? {
            ReplyScan::NeedMore => {
                carry.keep(input);
                // The rest comes elsewhere.
                self.seen = None;
                return Ok(input.len());
            }
            ReplyScan::Head { end, reply } => (end, reply),
        };
        if let Some(seen) = seen {
            seen.ends(end, reply);
        }
        let asked = *asked;
        let afterwards = reply.afterwards();
        match reply.judge(asked)? {
            Reply::Interim => {
                self.interim = self.interim.saturating_add(1);
                if self.interim > self.limits.interim {
                    return Err(OriginFault::TooManyInterim);
                }
                self.reply = Receiving::due(asked);
            }
            Reply::Switched => self.reply = Receiving::Tunnel,
            Reply::Final(framing) => {
                self.afterwards = afterwards;
                let body = BodyScanner::of(Of::Answer, framing);
                self.reply = if body.at_end() { Receiving::Idle } else { Receiving::Body(body) };
            }
        }
        self.settle();
        Ok(end.saturating_sub(before))
    }

    /// Makes room for the next request once both sides are through with this one. An answer may come
    /// before the request's body has been sent whole; the connection is not idle until then.
    fn settle(&mut self) {
        if matches!(self.reply, Receiving::Idle) {
            self.request.rest();
        }
    }
}

impl Receiving {
    fn due(asked: Asked) -> Self {
        Self::Head { asked, scanner: ReplyScanner::default(), carry: Carry::default() }
    }
}
