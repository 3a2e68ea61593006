//! The stream of an HTTP/1 origin connection, on which every byte of an answer is checked before
//! the proxy reads it.
//!
//! Pingora's own parser is lenient where an origin's fault would become ours: it takes both framings
//! in one head, an empty chunk size, or an unasked 101. [`OriginIo`] therefore shows each read to a
//! [`ReplyGuard`](crate::message::reply::ReplyGuard) first. A fault becomes an [`io::Error`] that carries the [`OriginFault`], and the
//! connection is never used again. Where the exchange ended cleanly on both sides and the origin goes
//! on listening, the connection goes back to its [`Pool`] by itself.

mod kept;
mod stream;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::io::IoSlice;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;
use std::task::Waker;
use std::task::ready;
use std::time::Duration;

use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::io::ReadBuf;
use tokio::time::Sleep;

use crate::message::reply::Afterwards;
use crate::message::reply::OriginFault;
use crate::message::reply::ReplyLimits;
use crate::message::reply::Seen;
use crate::refusal::Refusal;
use crate::terms;
use crate::upstream::ahead::Ahead;
use crate::upstream::fault::overdue;
use crate::upstream::line::Lent;
use crate::upstream::line::Line;
use crate::upstream::pool::Pool;
use crate::upstream::vigil::Awaited;
use crate::upstream::vigil::Heard;

/// Writes are gathered up to this many bytes, so that what belongs together leaves together.
const GATHER: usize = 16 * 1024;

/// A write buffer larger than this is given back once it is empty: an idle connection holds little.
const KEEP: usize = 2 * 1024;

/// An origin connection under guard.
pub struct OriginIo {
    /// With what watches it: that is large, and stays where it is from one request to the next.
    line: Lent,
    answer: Answer,
    origin: Origin,
    /// How much of the line's pending bytes the wire has taken.
    sent: usize,
    /// How many bytes at the start of the next write the guard has seen already.
    inspected: usize,
    taking: Taking,
    /// What waits was not taken by the time that it was written: reading sees to it. When all of it has to be.
    kept: Option<Pin<Box<Sleep>>>,
    /// Whether the connection carried requests before this one.
    history: History,
    /// How long the origin may be silent after a request that offers a tunnel.
    patience: Duration,
    silence: Option<Pin<Box<Sleep>>>,
    /// How often the proxy flushed since the request in flight began.
    flushes: u8,
    held: Option<Waker>,
    /// What came while nothing was taken. Mostly there is none.
    ahead: Option<Box<Ahead>>,
}

/// Whether a connection was used before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum History {
    /// It was made for this request.
    Fresh,
    /// It carried others.
    Used,
}

/// Whether the origin has said anything to the request in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    /// Not a byte: an end here is a connection that was closed, not a message that was cut.
    Awaited,
    /// At least a byte.
    Begun,
}

/// Whether the origin takes what is to leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Taking {
    /// As far as it was tried.
    Readily,
    /// Not the last time that it was tried.
    Slowly,
}

/// Whether what is written still arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// As far as we know.
    Listening,
    /// It closed before it answered. What it said before that is still to be read.
    Gone,
    /// We said that we would send no more.
    Dismissed,
}

impl OriginIo {
    /// Puts a connection under guard that was made for this request. It will go back to `home`.
    pub(super) fn fresh(line: Line, home: Option<Arc<Pool>>, limits: ReplyLimits) -> Self {
        Self::new(Box::new(line), home, limits, Duration::MAX)
    }

    /// Puts a connection of `home` under guard: one that waited there, or a new one. The origin may be silent for
    /// so long after a request that offers a tunnel. For all others Pingora keeps that deadline, but it would go
    /// on with it in the tunnel.
    #[inline]
    pub(super) fn again(
        line: Box<Line>,
        home: Arc<Pool>,
        limits: ReplyLimits,
        patience: Duration,
    ) -> Self {
        Self::new(line, Some(home), limits, patience)
    }

    #[inline]
    fn new(
        mut line: Box<Line>,
        home: Option<Arc<Pool>>,
        limits: ReplyLimits,
        patience: Duration,
    ) -> Self {
        let history = if line.carried > 0 { History::Used } else { History::Fresh };
        line.guard.hold_to(limits);
        Self {
            line: Lent::new(line, home),
            answer: Answer::Awaited,
            origin: Origin::Listening,
            sent: 0,
            inspected: 0,
            taking: Taking::Readily,
            kept: None,
            history,
            patience,
            silence: None,
            flushes: 0,
            held: None,
            ahead: None,
        }
    }

    /// What its guard allows.
    pub(super) fn limits(&self) -> ReplyLimits {
        self.line.guard.limits()
    }

    /// Whether the connection carried requests before this one.
    pub(super) fn was_used(&self) -> bool {
        self.history == History::Used
    }

    /// Whether all was written of the request in flight.
    pub(super) fn has_sent_all(&self) -> bool {
        !self.line.guard.awaits_body() && self.waiting() == 0
    }

    /// What the guard has seen of the head that stands at the front of what was read first, if that is all of it;
    /// once.
    pub(super) fn take_seen(&mut self) -> Option<Seen> {
        self.line.guard.take_seen()
    }

    /// Whether some of a head has come, and not the whole of it.
    pub(super) fn is_in_head(&self) -> bool {
        self.line.guard.is_in_head()
    }

    /// Whether the connection may carry another request: all of this one has left, all of its answer
    /// has come, and nobody wants to close it. Then, how long the origin said that it will wait.
    fn may_go_on(&self) -> Option<Option<Duration>> {
        let patience = match self.line.guard.afterwards() {
            Afterwards::Closes => return None,
            Afterwards::Persists { patience } => patience,
        };
        let clean = self.line.guard.is_idle()
            && self.origin == Origin::Listening
            && self.inspected == 0
            && self.waiting() == 0
            && self.ahead.as_ref().is_none_or(|ahead| ahead.is_spent())
            && self.line.is_flushed();
        clean.then_some(patience)
    }

    /// The same where the origin may be silent for so long.
    #[cfg(test)]
    fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Whether the answer to an offer has to wait. Pingora takes the end of the request's empty body
    /// for the end of the tunnel when it is told of it after a 101 (its issue #946): the first flush
    /// is the head's, the second one that end's.
    fn must_hold(&self) -> bool {
        self.flushes < 2 && self.line.guard.offers_tunnel()
    }

    /// Ready when the origin was silent for too long.
    fn poll_silence(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.line.guard.offers_tunnel() {
            return Poll::Pending;
        }
        let patience = self.patience;
        self.silence.get_or_insert_with(|| Box::pin(tokio::time::sleep(patience))).as_mut().poll(cx)
    }

    /// Shows the guard what the proxy is about to send, each byte once although a write that the
    /// wire did not take comes again.
    fn inspect(&mut self, data: &[u8]) -> io::Result<()> {
        let Some(fresh @ [_, ..]) = data.get(self.inspected..) else { return Ok(()) };
        if self.line.guard.is_idle() {
            self.begin();
        }
        self.line.watch.client_sent(fresh.len());
        let seen = self.line.guard.on_request_bytes(fresh);
        if seen.is_err() {
            // Nor does the part of it that looked well leave any more.
            self.drained();
        }
        self.inspected = data.len();
        seen.map_err(breach)
    }

    /// An exchange begins.
    fn begin(&mut self) {
        self.line.carried = self.line.carried.saturating_add(1);
        self.answer = Answer::Awaited;
        self.line.watch.begin();
        self.flushes = 0;
    }

    /// The next `length` bytes to be written are a whole request without a body, neither HEAD nor an
    /// offer of a tunnel, from [`forward`](crate::proxy)'s own writer: they need not be read once more.
    pub(super) fn begin_own(&mut self, length: usize) {
        if self.line.guard.is_idle() {
            self.begin();
            self.line.guard.on_own_request();
            self.inspected = length;
        }
    }

    /// What is waited for while nothing comes.
    fn awaited(&self) -> Awaited {
        match (self.line.guard.awaits_body() || self.kept.is_some(), self.taking) {
            (false, _) => Awaited::Origin,
            (true, Taking::Readily) => Awaited::Body,
            (true, Taking::Slowly) => Awaited::Room,
        }
    }

    /// What the last bytes were that came.
    fn heard(&self) -> Heard {
        match (self.line.guard.is_in_head(), self.line.guard.awaits_head()) {
            (true, _) => Heard::Part,
            (false, true) => Heard::Interim,
            (false, false) => Heard::Answer,
        }
    }

    /// Nothing comes from the origin: ready when that, or what it waits for itself, takes too long.
    fn poll_overdue(&mut self, cx: &mut Context<'_>) -> Poll<Refusal> {
        let awaited = self.awaited();
        if self.poll_silence(cx).is_ready() {
            return Poll::Ready(Refusal::OriginTimeout);
        }
        self.line.watch.poll_overdue(cx, awaited)
    }

    /// The origin closed its side in an orderly way.
    fn on_end(&mut self) -> io::Result<()> {
        if self.is_between() {
            return Ok(());
        }
        self.line
            .guard
            .on_eof()
            .map_err(|fault| io::Error::new(io::ErrorKind::UnexpectedEof, fault))
    }

    /// Whether an end cuts nothing here. Before the first byte of an answer the proxy must see a
    /// plain end: the connection was closed while it was idle, and the request may be sent again.
    fn is_between(&self) -> bool {
        self.line.guard.fault().is_none()
            && (self.answer == Answer::Awaited || self.line.guard.is_idle())
    }

    /// Bytes waiting for the wire.
    fn waiting(&self) -> usize {
        self.line.pending.len() - self.sent
    }

    /// Inspects `data` and takes it, or as much of it as the wire does.
    fn poll_send(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.inspect(data)?;
        let took = if self.gather(data) {
            data.len()
        } else if let Poll::Ready(took) = self.poll_through(cx, data) {
            took?
        } else {
            ready!(self.poll_keep(cx, data))?;
            data.len()
        };
        self.inspected = self.inspected.saturating_sub(took);
        if self.kept.is_none() {
            self.is_taken();
        }
        Poll::Ready(Ok(took))
    }

    /// Reads what was read ahead, then what comes.
    fn poll_wire(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if let Some(ahead) = &mut self.ahead {
            let given = ahead.give(buf);
            if ahead.is_spent() {
                self.forget_ahead();
            }
            if let Some(given) = given {
                return Poll::Ready(given);
            }
        }
        self.line.wire.as_pin().poll_read(cx, buf)
    }

    fn is_taken(&mut self) {
        self.taking = Taking::Readily;
        self.line.watch.took();
    }

    /// Takes a small write to let it leave with others; `false` leaves a large one to the wire.
    fn gather(&mut self, data: &[u8]) -> bool {
        if self.origin == Origin::Gone {
            return true;
        }
        let fits = self.line.pending.len() + data.len() <= GATHER;
        if fits {
            self.line.pending.extend_from_slice(data);
        }
        fits
    }

    /// Hands everything that waits to the wire.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.waiting() > 0 {
            let Line { wire, pending, .. } = &mut *self.line;
            match ready!(wire.as_pin().poll_write(cx, &pending[self.sent..])) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(wrote) => self.sent += wrote,
                Err(e) => self.on_write_error(e)?,
            }
        }
        self.drained();
        Poll::Ready(Ok(()))
    }

    /// A connection that the origin closed cannot be written to, but only reading tells how it
    /// ended: with an answer given early, or with none, and then the request may be sent again.
    fn on_write_error(&mut self, e: io::Error) -> io::Result<()> {
        let closed = matches!(
            e.kind(),
            io::ErrorKind::BrokenPipe
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::ConnectionAborted
        );
        if !closed || self.answer == Answer::Begun {
            return Err(e);
        }
        self.origin = Origin::Gone;
        self.drained();
        Ok(())
    }

    fn drained(&mut self) {
        self.sent = 0;
        self.line.pending.clear();
        if self.line.pending.capacity() > KEEP {
            self.line.pending = Vec::new();
        }
    }

    /// Writes what waits and `data` together, without a copy of `data`. Answers how much of `data`
    /// the wire took, never 0.
    fn poll_through(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let waiting = self.waiting();
            let Line { wire, pending, .. } = &mut *self.line;
            let slices = [IoSlice::new(&pending[self.sent..]), IoSlice::new(data)];
            let wrote = match ready!(wire.as_pin().poll_write_vectored(cx, &slices)) {
                Ok(wrote) => wrote,
                Err(e) => {
                    self.on_write_error(e)?;
                    return Poll::Ready(Ok(data.len()));
                }
            };
            if wrote == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            if wrote < waiting {
                self.sent += wrote;
                continue;
            }
            self.drained();
            if wrote > waiting {
                return Poll::Ready(Ok(wrote - waiting));
            }
        }
    }
}

impl Drop for OriginIo {
    fn drop(&mut self) {
        let may_go_on = self.may_go_on();
        if self.ahead.take().is_some() || self.kept.is_some() {
            terms::hold_client(false);
        }
        if let Some(patience) = may_go_on {
            self.line.give_back(patience);
        } else {
            self.send_the_rest();
        }
    }
}

/// A fault as the error of a read or a write.
fn breach(fault: OriginFault) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, fault)
}

impl AsyncRead for OriginIo {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Some(fault) = this.line.guard.fault() {
            return Poll::Ready(Err(breach(fault)));
        }
        if this.origin == Origin::Gone && this.line.guard.is_idle() {
            // An early answer is complete; the connection is of no further use.
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if buf.remaining() == 0 {
            // Nothing can be read, which is not to be taken for an end.
            return Poll::Ready(Ok(()));
        }
        if this.line.guard.is_idle() {
            // Nothing is due. Pingora looks whether it could keep the connection: it is not to, the
            // pool does.
            return Poll::Ready(Ok(()));
        }
        if let Some(refusal) = this.line.watch.has_ended(this.awaited()) {
            return Poll::Ready(Err(overdue(refusal)));
        }
        if this.must_hold() {
            this.held = Some(cx.waker().clone());
            return Poll::Pending;
        }
        if this.kept.is_some()
            && let Poll::Ready(over) = this.go_on(cx)
        {
            return Poll::Ready(Err(over));
        }
        let before = buf.filled().len();
        let Poll::Ready(read) = this.poll_wire(cx, buf) else {
            return this.poll_overdue(cx).map(|refusal| Err(overdue(refusal)));
        };
        this.silence = None;
        if let Err(e) = read {
            // TLS without close_notify is a cut message, but between messages it is only a close,
            // and what runs in a tunnel marks its own end.
            let whole = this.is_between() || this.line.guard.is_tunnel();
            if e.kind() == io::ErrorKind::UnexpectedEof && whole {
                return Poll::Ready(Ok(()));
            }
            return Poll::Ready(Err(e));
        }
        let Some(got @ [_, ..]) = buf.filled().get(before..) else {
            return Poll::Ready(this.on_end());
        };
        this.answer = Answer::Begun;
        if let Err(fault) = this.line.guard.on_reply_bytes(got) {
            buf.set_filled(before);
            return Poll::Ready(Err(breach(fault)));
        }
        if this.ahead.is_some() || this.kept.is_some() {
            this.hold();
        }
        let heard = this.heard();
        this.line.watch.heard(heard);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for OriginIo {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if data.is_empty() {
            return Poll::Ready(Ok(0));
        }
        this.poll_send(cx, data)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let mut took = 0;
        for data in bufs.iter().filter(|data| !data.is_empty()) {
            match this.poll_send(cx, data) {
                Poll::Ready(Ok(more)) => {
                    took += more;
                    if more < data.len() {
                        break;
                    }
                }
                // What was taken before must be reported; the rest comes again.
                Poll::Ready(Err(_)) | Poll::Pending if took > 0 => break,
                other => return other,
            }
        }
        Poll::Ready(Ok(took))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.poll_drain(cx)?.is_pending() {
            return this.poll_keep(cx, &[]);
        }
        let Poll::Ready(flushed) = this.line.wire.as_pin().poll_flush(cx) else {
            return this.poll_keep(cx, &[]);
        };
        flushed?;
        this.is_taken();
        if this.kept.take().is_some() {
            this.hold();
        }
        this.flushes = this.flushes.saturating_add(1);
        if !this.must_hold()
            && let Some(held) = this.held.take()
        {
            held.wake();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_drain(cx))?;
        this.origin = Origin::Dismissed;
        this.line.wire.as_pin().poll_shutdown(cx)
    }
}

impl fmt::Debug for OriginIo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OriginIo")
            .field("peer", &self.line.socket.peer_addr())
            .field("tls", &self.line.tls.is_some())
            .field("fault", &self.line.guard.fault())
            .finish_non_exhaustive()
    }
}
