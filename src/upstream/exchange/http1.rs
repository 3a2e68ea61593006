//! The same with an origin that speaks HTTP/1.
//!
//! Every byte passes the guard of the connection, and errors are those that Pingora would make of the
//! same events, so that whoever judges them need not know which way they came.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;
use std::task::ready;
use std::time::Duration;

use bytes::Bytes;
use pingora::Error;
use pingora::ErrorType;
use pingora::Result;
use pingora::RetryType;
use tokio::io::AsyncWrite;

use crate::message::chunked::BodyFraming;
use crate::message::chunked::Chunk;
use crate::message::chunked::ChunkReader;
use crate::message::ends::Ends;
use crate::message::reply::OriginFault;
use crate::message::reply::ReplyLimits;
use crate::message::reply::ReplyMessage;
use crate::message::reply::ReplyText;
use crate::message::reply::Seen;
use crate::message::spare;
use crate::upstream::connect::Dial;
use crate::upstream::connect::Kept;
use crate::upstream::exchange::inbox::Inbox;
use crate::upstream::exchange::sent;
use crate::upstream::guard::OriginIo;
use crate::upstream::line::Line;
use crate::upstream::pool::Pool;

/// The most that is read of a body at once.
const BODY_ROOM: usize = 64 * 1024;

/// An exchange under way.
pub struct Exchange {
    io: OriginIo,
    limits: ReplyLimits,
    /// What came and was not taken yet.
    inbox: Inbox,
    /// The head that stands at the front of it, once that is whole.
    seen: Option<Seen>,
    body: Body,
    /// How much of the request the connection has taken; `None` before it is offered any.
    written: Option<usize>,
    /// The origin has said something.
    heard: bool,
}

/// What of the answer's body is still to come.
enum Body {
    /// The head is not whole.
    Unknown,
    Length(u64),
    Chunked(ChunkReader),
    UntilClose,
}

impl Exchange {
    /// Takes a connection of `pool`: one that waits, where that is welcome, or a new one, made within `patience`;
    /// in either case one for this client, where the origin is told. `dial` makes them, where that is known.
    ///
    /// # Errors
    /// None can be made.
    pub async fn begin(
        pool: &Arc<Pool>,
        dial: Option<&Arc<Dial>>,
        patience: Duration,
        kept: Kept,
        client: Option<Ends>,
    ) -> Result<Box<Self>> {
        let Some(dial) = dial else {
            return Ok(Self::on(pool.connect(patience, kept, client).await?));
        };
        if let Some(exchange) = Self::kept(pool, dial, kept, client) {
            return Ok(exchange);
        }
        let line = pool.fresh(dial, patience, client).await?;
        Ok(Self::by(line, pool, dial))
    }

    /// Takes a connection of `pool` that waits, where that is welcome, and there is one for this client.
    pub(in crate::upstream) fn kept(
        pool: &Arc<Pool>,
        dial: &Arc<Dial>,
        kept: Kept,
        client: Option<Ends>,
    ) -> Option<Box<Self>> {
        let line = pool.waiting(dial, kept, client)?;
        Some(Self::by(line, pool, dial))
    }

    // What is large is made at the end, and goes where it stays: each that gave it to the next would move it.
    #[inline]
    fn by(line: Box<Line>, pool: &Arc<Pool>, dial: &Dial) -> Box<Self> {
        Self::on(OriginIo::again(line, Arc::clone(pool), dial.limits, dial.read()))
    }

    #[inline]
    fn on(io: OriginIo) -> Box<Self> {
        Box::new(Self {
            limits: io.limits(),
            io,
            inbox: Inbox::new(),
            seen: None,
            body: Body::Unknown,
            written: None,
            heard: false,
        })
    }

    /// Whether the connection carried requests before.
    #[must_use]
    pub fn is_on_used_connection(&self) -> bool {
        self.io.was_used()
    }

    /// Sends a GET that has no body and offers no tunnel: its head. It must be beyond doubt one request (see
    /// `message::head`), since it is not looked at here.
    ///
    /// # Errors
    /// The connection is broken.
    pub fn poll_send(&mut self, cx: &mut Context<'_>, head: &[u8]) -> Poll<Result<()>> {
        if self.written.is_none() {
            self.io.begin_own(head.len());
        }
        self.poll_send_whole(cx, head)
    }

    /// Sends any request that offers no tunnel, its body included. The guard reads it as it reads those of others.
    ///
    /// # Errors
    /// The connection is broken, or it is no request.
    pub fn poll_send_whole(&mut self, cx: &mut Context<'_>, request: &[u8]) -> Poll<Result<()>> {
        let written = ready!(self.poll_write(cx, request));
        Poll::Ready(written.map_err(|e| broken(ErrorType::WriteError, "writing the request", e)))
    }

    /// Sends it within `patience`.
    ///
    /// # Errors
    /// The same, or the origin does not take it.
    pub async fn send_whole(&mut self, request: &[u8], patience: Duration) -> Result<()> {
        sent(patience, poll_fn(|cx| self.poll_send_whole(cx, request))).await
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, request: &[u8]) -> Poll<io::Result<()>> {
        let written = self.written.get_or_insert_default();
        while let Some(rest @ [_, ..]) = request.get(*written..) {
            match ready!(Pin::new(&mut self.io).poll_write(cx, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                bytes => *written += bytes,
            }
        }
        Pin::new(&mut self.io).poll_flush(cx)
    }

    /// The next head of the answer: of an interim response, which another follows, or the final one.
    ///
    /// # Errors
    /// There is none, or what came is none.
    pub fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<ReplyMessage>> {
        ready!(self.poll_text(cx))?;
        Poll::Ready(self.take_head())
    }

    /// Ready when that head is whole: for [`Self::text`] and [`Self::take_head`].
    ///
    /// # Errors
    /// There is none, or what came is none.
    pub fn poll_text(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        while self.seen.is_none() {
            let here = self.inbox.bytes();
            if !here.is_empty() {
                self.seen = match self.io.take_seen() {
                    Some(seen) => Some(seen),
                    None => Seen::read(here, &self.limits).map_err(no_head)?,
                };
                if self.seen.is_some() {
                    break;
                }
            }
            let already = here.len();
            match ready!(self.inbox.poll_fill(cx, &mut self.io, spare::ROOM)) {
                Ok(0) => {
                    let what = format!("reading the answer's head, bytes already read: {already}");
                    let e = Error::explain(ErrorType::ConnectionClosed, what).into_up();
                    return Poll::Ready(Err(self.perhaps_dead(e)));
                }
                Ok(_) => self.heard = true,
                Err(e) => {
                    let e = broken(ErrorType::ReadError, "reading the answer's head", e);
                    return Poll::Ready(Err(self.perhaps_dead(e)));
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    /// The head that is whole, where it stands.
    ///
    /// # Errors
    /// None is, or what came is none.
    pub fn text(&self) -> Result<ReplyText<'_>> {
        let seen = self.seen.as_ref().ok_or(OriginFault::TruncatedHead);
        seen.and_then(|seen| ReplyText::of(self.inbox.bytes(), seen)).map_err(no_head)
    }

    /// Leaves a head behind that is so long, and whose body is framed like this.
    pub fn pass_head(&mut self, length: usize, body: Option<BodyFraming>) {
        self.seen = None;
        self.inbox.skip(length);
        self.expect(body);
    }

    /// Takes the head that is whole.
    ///
    /// # Errors
    /// None is, or what came is none.
    pub fn take_head(&mut self) -> Result<ReplyMessage> {
        let seen = self.seen.take().ok_or(OriginFault::TruncatedHead);
        let head = seen.and_then(|seen| ReplyMessage::take_seen(self.inbox.buffer(), &seen));
        let head = head.map_err(no_head)?;
        self.expect(head.body);
        Ok(head)
    }

    /// Marks an error as one of a connection that may have died while it was idle, as Pingora does.
    fn perhaps_dead(&self, mut error: Box<Error>) -> Box<Error> {
        if !self.heard {
            error.retry = RetryType::ReusedOnly;
        }
        error
    }

    fn expect(&mut self, body: Option<BodyFraming>) {
        self.body = match body {
            None => Body::Unknown,
            Some(BodyFraming::None) => Body::Length(0),
            Some(BodyFraming::Length(length)) => Body::Length(length),
            Some(BodyFraming::Chunked) => Body::Chunked(ChunkReader::default()),
            Some(BodyFraming::UntilClose | BodyFraming::Tunnel) => Body::UntilClose,
        };
    }

    /// Writes all that is to come of the answer's body behind `out`, if it is here and no longer than `most`: how
    /// long it is.
    pub fn take_rest(&mut self, out: &mut Vec<u8>, most: usize) -> Option<usize> {
        let Body::Length(left) = &mut self.body else { return None };
        let length = usize::try_from(*left).ok().filter(|length| *length <= most)?;
        out.extend_from_slice(self.inbox.bytes().get(..length)?);
        self.inbox.skip(length);
        *left = 0;
        Some(length)
    }

    /// The next bytes of the answer's body, never none of them; `None` at its end.
    ///
    /// # Errors
    /// It is not whole, or not what its head says.
    pub fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>>> {
        loop {
            let here = self.inbox.bytes().len();
            match &mut self.body {
                Body::Unknown | Body::Length(0) => return Poll::Ready(Ok(None)),
                Body::Length(left) if here > 0 => {
                    let here = usize::try_from(*left).unwrap_or(usize::MAX).min(here);
                    *left -= here as u64;
                    return Poll::Ready(Ok(Some(self.inbox.buffer().split_to(here).freeze())));
                }
                Body::UntilClose if here > 0 => {
                    return Poll::Ready(Ok(Some(self.inbox.buffer().split().freeze())));
                }
                Body::Length(_) | Body::UntilClose => {}
                Body::Chunked(chunks) => match chunks.next(self.inbox.buffer()) {
                    Chunk::Data(data) => return Poll::Ready(Ok(Some(data))),
                    Chunk::End => return Poll::Ready(Ok(None)),
                    Chunk::NeedMore => {}
                },
            }
            let room = match self.body {
                Body::Length(left) => usize::try_from(left).unwrap_or(BODY_ROOM).min(BODY_ROOM),
                Body::Unknown | Body::Chunked(_) | Body::UntilClose => BODY_ROOM,
            };
            match ready!(self.inbox.poll_fill(cx, &mut self.io, room)) {
                // The guard takes it for an error where it is one.
                Ok(0) => return Poll::Ready(Ok(None)),
                Ok(_) => {}
                Err(e) => {
                    let e = broken(ErrorType::ReadError, "reading the answer's body", e);
                    return Poll::Ready(Err(e));
                }
            }
        }
    }
}

/// What came is no head.
fn no_head(fault: OriginFault) -> Box<Error> {
    let fault = io::Error::new(io::ErrorKind::InvalidData, fault);
    broken(ErrorType::ReadError, "reading the answer's head", fault)
}

/// A connection that broke in the middle of something.
#[cold]
fn broken(kind: ErrorType, doing: &'static str, e: io::Error) -> Box<Error> {
    Error::because(kind, doing, e).into_up()
}
