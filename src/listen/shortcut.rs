//! A way past Pingora, for requests that are answered from memory at once or passed through as they are.
//!
//! Each request is offered to a [`Shortcut`] before Pingora hears of it. It answers by handing bytes to
//! the connection itself, takes it upon itself to answer ([`Through`]), or declines and leaves everything
//! as it was.

use std::io;
use std::io::IoSlice;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::Response;
use pingora::http::RequestHeader;
use tokio::io::AsyncWrite;

use crate::listen::conn::Conn;
use crate::listen::io::EdgeIo;
use crate::listen::room::Room;
use crate::listen::stream::Http2Stream;
use crate::message::head::RequestHead;
use crate::message::target::Host;

/// Answers requests past Pingora.
pub trait Shortcut: Send + Sync + 'static {
    /// Answers an HTTP/1 request, or declines.
    fn http1(&self, asked: &Asked<'_>, outlet: &mut Outlet<'_, '_>) -> Taken;

    /// Answers an HTTP/2 request without a body, or declines.
    fn http2(&self, request: &mut RequestHeader, conn: &Arc<Conn>) -> Http2Taken;
}

/// An HTTP/1 request without a body.
pub struct Asked<'a> {
    /// Its head.
    pub head: &'a RequestHead,
    /// What was received; the head stands at its start.
    pub received: &'a Bytes,
    /// Its only Host, in normal form; an HTTP/1.0 request may have none.
    pub host: Option<&'a Host>,
    /// Its target: a path and a query as received.
    pub target: &'a [u8],
    /// The connection it came on.
    pub conn: &'a Arc<Conn>,
}

/// What became of an HTTP/1 request.
pub enum Taken {
    /// It is still to be answered.
    Declined,
    /// The whole answer has left.
    Answered(Afterwards),
    /// The rest of the answer is still to be sent.
    Begun(Box<dyn Rest>, Afterwards),
    /// It is answered by this, which is given the connection for as long as that takes.
    Through(Box<dyn Through>),
    /// The client went away in the middle of it.
    Broken,
}

/// What became of an HTTP/2 request.
pub enum Http2Taken {
    /// It is still to be answered.
    Declined,
    /// This is the answer: a header without fields that HTTP/2 does not know, and what follows it.
    Answered(Response<()>, Box<dyn Rest>),
    /// It is answered by this, which is given the stream.
    Through(Box<dyn Through>),
}

/// Answers a request that it has taken, past Pingora although it cannot do so at once.
pub trait Through: Send {
    /// Fills the room with what answers, and gives the connection back when it can carry another request.
    fn run(self: Box<Self>, io: Box<EdgeIo>, room: &mut Room);

    /// Answers on a stream of HTTP/2.
    fn run_http2(self: Box<Self>, stream: Http2Stream) -> BoxFuture<'static, ()>;
}

/// What happens to the connection after an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Afterwards {
    /// It may carry another request.
    Keep,
    /// It is closed; the answer said so.
    Close,
}

/// What of an answer has not left yet.
pub trait Rest: Send {
    /// The next bytes to send, never none of them; `None` at the end.
    fn next(&mut self) -> Option<Bytes>;

    /// Whether [`Self::next`] has no more.
    fn is_done(&self) -> bool;

    /// So many of these bytes have left, and no more will.
    fn ended(self: Box<Self>, sent: u64);
}

/// Where an answer is written.
pub struct Outlet<'a, 'c> {
    io: &'a mut EdgeIo,
    cx: &'a mut Context<'c>,
}

impl<'a, 'c> Outlet<'a, 'c> {
    pub(crate) fn new(io: &'a mut EdgeIo, cx: &'a mut Context<'c>) -> Self {
        Self { io, cx }
    }

    /// Sends as much of a head and what follows it as the connection takes at once, and says how many
    /// bytes that was and whether they have left.
    ///
    /// # Errors
    /// The connection is broken.
    pub fn send(&mut self, head: &[u8], body: &[u8]) -> io::Result<Sent> {
        let whole = head.len() + body.len();
        let mut bytes = 0;
        while bytes < whole {
            let parts = [
                IoSlice::new(head.get(bytes..).unwrap_or_default()),
                IoSlice::new(&body[bytes.saturating_sub(head.len())..]),
            ];
            match self.io.poll_send(self.cx, &parts) {
                Poll::Ready(sent) => bytes += sent?,
                Poll::Pending => return Ok(Sent { bytes, gone: Gone::NotYet }),
            }
        }
        let gone = match Pin::new(&mut *self.io).poll_flush(self.cx) {
            Poll::Ready(flushed) => flushed.map(|()| Gone::Yes)?,
            Poll::Pending => Gone::NotYet,
        };
        Ok(Sent { bytes, gone })
    }
}

/// What became of bytes that were to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sent {
    /// How many were taken.
    pub bytes: usize,
    /// Whether nothing is left behind.
    pub gone: Gone,
}

impl Sent {
    /// Nothing was tried yet.
    pub const NOTHING: Self = Self { bytes: 0, gone: Gone::NotYet };
}

/// Whether bytes have left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gone {
    /// They have.
    Yes,
    /// The client has to take some before more can leave.
    NotYet,
}

/// Declines everything.
pub struct NoShortcut;

impl Shortcut for NoShortcut {
    fn http1(&self, _asked: &Asked<'_>, _outlet: &mut Outlet<'_, '_>) -> Taken {
        Taken::Declined
    }

    fn http2(&self, _request: &mut RequestHeader, _conn: &Arc<Conn>) -> Http2Taken {
        Http2Taken::Declined
    }
}
