//! One connection to an origin that carries requests side by side.
//!
//! It is driven by a task of its own, and lives for as long as somebody may begin a stream on it or has one. An
//! origin that says GOAWAY is given no new stream; those that it has it finishes.

use std::future::Future;
use std::future::poll_fn;
use std::io;
use std::io::IoSlice;
use std::os::fd::AsRawFd;
use std::os::fd::RawFd;
use std::pin::Pin;
use std::pin::pin;
use std::sync::Arc;
use std::sync::Weak;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::task::Context;
use std::task::Poll;
use std::task::Waker;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::Either;
use futures_util::future::select;
use h2::client::Connection;
use h2::client::SendRequest;
use parking_lot::Mutex;
use pingora::Error;
use pingora::ErrorType;
use pingora::Result;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::io::ReadBuf;
use tokio::time::Instant;
use tokio::time::timeout_at;

use super::CONNECTION_WINDOW;
use super::FRAME;
use super::SEND_BUFFER;
use super::STREAM_WINDOW;
use super::STREAMS;
use super::pulse::Pulse;
use crate::message::reply::ReplyLimits;
use crate::refusal::Refusal;
use crate::upstream::fault::error_of;
use crate::upstream::fault::of_tls;
use crate::upstream::http2::fault;
use crate::upstream::http2::shelf::Shelf;
use crate::upstream::line::Line;
use crate::upstream::line::Wire;
use crate::upstream::pool::Opened;
use crate::upstream::pool::Pool;

/// How many streams an origin allows that has not said it yet. None can say this: its word has 32 bits.
const UNSAID: usize = usize::MAX - 1;

/// A connection of HTTP/2.
pub(in crate::upstream) struct Carrier {
    send: SendRequest<Bytes>,
    /// Requests say `https`.
    secure: bool,
    descriptor: RawFd,
    born: Instant,
    /// How much of a head is accepted.
    limits: ReplyLimits,
    pulse: Arc<Pulse>,
    /// The thread that began the first of the streams under way. Written, as the next, while the state is held.
    owner: AtomicUsize,
    /// Streams under way.
    streams: AtomicU32,
    state: Mutex<State>,
}

struct State {
    /// Streams that were begun.
    carried: u32,
    /// Since when there is none.
    idle: Instant,
    /// It is given no new ones.
    leaves: bool,
    /// It counts as open for as long as it lives.
    opened: Option<Opened>,
    /// Where it stands, and is told when a place becomes free.
    stands: Stands,
}

/// Where a connection stands: whose it is, and who hears of room on it.
#[derive(Debug, Default)]
pub(super) struct Stands {
    /// The connections of its kind.
    pub(super) shelf: Weak<Shelf>,
    /// Who lets requests come to them.
    pub(super) pool: Weak<Pool>,
}

impl std::fmt::Debug for Carrier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Carrier").field("descriptor", &self.descriptor).finish_non_exhaustive()
    }
}

/// Why no stream is begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// As many as may be are under way.
    Full,
    /// None is any more.
    Gone,
}

impl Carrier {
    /// Speaks HTTP/2 on `line` from now on. It is there when the origin has said until `deadline` that it does, too,
    /// and how many streams it allows.
    ///
    /// # Errors
    /// It does not, or allows none.
    pub(super) async fn begin(
        line: Line,
        limits: ReplyLimits,
        deadline: Instant,
        stands: Stands,
    ) -> Result<Arc<Self>> {
        let Line { wire, opened, .. } = line;
        let descriptor = match &wire {
            Wire::Plain(socket) => socket.as_raw_fd(),
            Wire::Tls(stream) => stream.get_ref().0.as_raw_fd(),
        };
        let secure = match &wire {
            Wire::Plain(_) => false,
            Wire::Tls(stream) if stream.get_ref().1.alpn_protocol() == Some(b"h2") => true,
            Wire::Tls(_) => {
                let what = "the origin agrees to no HTTP/2";
                return Err(Error::explain(ErrorType::HandshakeError, what).into_up());
            }
        };
        let pulse = Pulse::new();
        let heard = Heard { wire, pulse: Arc::clone(&pulse) };
        let (send, connection) = match timeout_at(deadline, greet(heard, limits)).await {
            Ok(Ok(greeted)) => greeted,
            Ok(Err(e)) => {
                // The library forgets what was wrong with TLS.
                let by_tls = pulse.failed().map(error_of);
                return Err(by_tls.unwrap_or_else(|| fault::no_handshake(e)));
            }
            Err(_) => {
                let what = "the origin says nothing in HTTP/2";
                return Err(Error::explain(ErrorType::ConnectTimedout, what).into_up());
            }
        };
        if send.current_max_send_streams() == 0 {
            let what = "the origin allows no stream";
            return Err(Error::explain(ErrorType::ConnectError, what).into_up());
        }
        let now = Instant::now();
        let state = State { carried: 0, idle: now, leaves: false, opened, stands };
        let carrier = Arc::new(Self {
            send,
            secure,
            descriptor,
            born: now,
            limits,
            pulse,
            owner: AtomicUsize::new(0),
            streams: AtomicU32::new(0),
            state: Mutex::new(state),
        });
        tokio::spawn(drive(connection, Arc::downgrade(&carrier), Arc::clone(&carrier.pulse)));
        Ok(carrier)
    }

    /// How many streams it may have at once.
    pub(super) fn most(&self) -> u32 {
        u32::try_from(self.send.current_max_send_streams()).unwrap_or(u32::MAX).min(STREAMS)
    }

    /// How many streams it has, as far as this thread knows.
    pub(super) fn streams(&self) -> u32 {
        self.streams.load(Ordering::Relaxed)
    }

    /// How many more streams it may have now.
    pub(super) fn room(&self) -> u32 {
        self.most().saturating_sub(self.streams())
    }

    /// Whether it has streams, and this thread began the first of them.
    pub(super) fn is_of(&self, thread: usize) -> bool {
        self.streams() > 0 && self.owner.load(Ordering::Relaxed) == thread
    }

    /// Whether no stream can be begun on it any more.
    pub(super) fn has_gone(&self) -> bool {
        self.state.lock().leaves || !self.is_alive()
    }

    /// Whether its origin takes new streams, as far as is known.
    fn is_alive(&self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        !matches!(self.send.clone().poll_ready(&mut cx), Poll::Ready(Err(_)))
    }

    /// A place for one stream, for `thread`; after `most` of them it is given no new ones.
    ///
    /// # Errors
    /// There is none.
    pub(super) fn enter(
        self: &Arc<Self>,
        thread: usize,
        most: Option<u32>,
    ) -> std::result::Result<Place, Refused> {
        let mut state = self.state.lock();
        if state.leaves || !self.is_alive() {
            return Err(Refused::Gone);
        }
        let streams = self.streams();
        if streams >= self.most() {
            return Err(Refused::Full);
        }
        if streams == 0 {
            self.owner.store(thread, Ordering::Relaxed);
        }
        self.streams.store(streams + 1, Ordering::Relaxed);
        let used = state.carried > 0;
        state.carried = state.carried.saturating_add(1);
        state.leaves = most.is_some_and(|most| state.carried >= most);
        drop(state);
        self.pulse.begin();
        Ok(Place { carrier: Arc::clone(self), used })
    }

    /// It is given no new streams.
    pub(super) fn leave(&self) {
        self.state.lock().leaves = true;
    }

    /// Whether it has no streams.
    pub(super) fn is_idle(&self) -> bool {
        self.streams() == 0
    }

    /// Whether it may still be given streams when it has been idle for no longer than `idle`, and is no older than
    /// `age`.
    pub(super) fn is_good(&self, idle: Duration, age: Option<Duration>, now: Instant) -> bool {
        let too_old = age.is_some_and(|age| now.saturating_duration_since(self.born) >= age);
        let state = self.state.lock();
        let too_idle = self.is_idle() && now.saturating_duration_since(state.idle) >= idle;
        !too_old && !too_idle && !state.leaves && self.is_alive()
    }

    /// Its origin allows more streams than before: those who wait for one may come.
    fn widened(&self) {
        let (shelf, pool) = {
            let state = self.state.lock();
            (state.stands.shelf.upgrade(), state.stands.pool.upgrade())
        };
        if let Some(pool) = pool {
            pool.allow_streams(self.most());
        }
        if let Some(shelf) = shelf {
            shelf.freed();
        }
    }

    /// It stands there from now on, and is counted as open there.
    pub(super) fn belong(&self, stands: Stands, count: impl FnOnce() -> Opened) {
        let mut state = self.state.lock();
        state.stands = stands;
        state.opened = Some(count());
    }
}

impl Drop for Carrier {
    fn drop(&mut self) {
        let state = self.state.get_mut();
        state.opened = None;
        // Another one may be made in its place.
        if let Some(shelf) = state.stands.shelf.upgrade() {
            shelf.freed();
        }
    }
}

/// A place for a stream on a connection. It is free again when this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    carrier: Arc<Carrier>,
    /// The connection carried others before.
    pub(super) used: bool,
}

impl Place {
    /// Whose frames the stream's are.
    pub(super) fn sender(&self) -> SendRequest<Bytes> {
        self.carrier.send.clone()
    }

    /// The scheme of requests.
    pub(super) fn scheme(&self) -> &'static str {
        if self.carrier.secure { "https" } else { "http" }
    }

    /// How much of a head is accepted.
    pub(super) fn limits(&self) -> ReplyLimits {
        self.carrier.limits
    }

    /// The descriptor of the connection.
    pub(super) fn descriptor(&self) -> RawFd {
        self.carrier.descriptor
    }

    /// No stream is begun on the connection any more.
    pub(super) fn leave(&self) {
        self.carrier.leave();
    }

    /// Whether the connection was ended since nobody was there any more.
    pub(super) fn is_lost(&self) -> bool {
        self.carrier.pulse.failed() == Some(Refusal::OriginTimeout)
    }

    /// The origin was silent on a stream that began `then`. Where it was on all others, too, none is begun any more.
    pub(super) fn was_silent_since(&self, then: Instant) {
        if !self.carrier.pulse.was_heard_since(then) {
            self.carrier.leave();
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.carrier.pulse.end();
        let mut state = self.carrier.state.lock();
        let streams = self.carrier.streams().saturating_sub(1);
        self.carrier.streams.store(streams, Ordering::Relaxed);
        if streams == 0 {
            state.idle = Instant::now();
        }
        let shelf = state.stands.shelf.upgrade();
        drop(state);
        if let Some(shelf) = shelf {
            shelf.freed();
        }
    }
}

/// Says who we are, and waits for the origin to do so.
async fn greet(
    io: Heard,
    limits: ReplyLimits,
) -> std::result::Result<(SendRequest<Bytes>, Connection<Heard, Bytes>), h2::Error> {
    let (send, mut connection) = h2::client::Builder::new()
        .enable_push(false)
        .initial_max_send_streams(UNSAID)
        .max_header_list_size(u32::try_from(limits.head).unwrap_or(u32::MAX))
        .max_frame_size(FRAME)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buffer_size(SEND_BUFFER)
        .handshake(io)
        .await?;
    // Its settings come first of all (RFC 9113 §3.4). Nothing is asked of an origin that speaks something else, or
    // allows no stream: then another one can be asked, whatever the request is.
    poll_fn(|cx| match Pin::new(&mut connection).poll(cx) {
        Poll::Ready(Ok(())) => Poll::Ready(Err(h2::Error::from(h2::Reason::NO_ERROR))),
        Poll::Ready(Err(e)) => Poll::Ready(Err(e)),
        Poll::Pending if connection.max_concurrent_send_streams() == UNSAID => Poll::Pending,
        Poll::Pending => Poll::Ready(Ok(())),
    })
    .await?;
    Ok((send, connection))
}

/// Moves the frames until the connection ends, or nobody is there any more.
async fn drive(connection: Connection<Heard, Bytes>, carrier: Weak<Carrier>, pulse: Arc<Pulse>) {
    let mut connection = connection;
    let Some(signs) = connection.ping_pong() else { return };
    let mut allowed = connection.max_concurrent_send_streams();
    // What becomes of it each stream is told.
    let moves = poll_fn(|cx| {
        let moved = Pin::new(&mut connection).poll(cx).map(|_| ());
        let before = std::mem::replace(&mut allowed, connection.max_concurrent_send_streams());
        // An origin may allow more at any time, also where no stream ends that others wait for.
        if before < allowed
            && let Some(carrier) = carrier.upgrade()
        {
            carrier.widened();
        }
        moved
    });
    if let Either::Right(_) = select(pin!(moves), pin!(pulse.stops(signs))).await {
        // Streams are only told that their connection has ended.
        pulse.fail(Refusal::OriginTimeout);
    }
}

/// A wire that notes when something comes.
pub(super) struct Heard {
    wire: Wire,
    pulse: Arc<Pulse>,
}

impl AsyncRead for Heard {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let read = this.wire.as_pin().poll_read(cx, buf);
        if buf.filled().len() > before {
            this.pulse.hear();
        }
        if let Poll::Ready(Err(e)) = &read {
            this.note(e);
        }
        read
    }
}

impl Heard {
    fn note(&self, e: &io::Error) {
        if let Some(refusal) = of_tls(e) {
            self.pulse.fail(refusal);
        }
    }

    /// What becomes of a write of so many bytes. A connection that the origin closed cannot be written to, but only
    /// reading tells how it ended: with an answer given early, or with what was wrong.
    fn taken(wrote: Poll<io::Result<usize>>, bytes: usize) -> Poll<io::Result<usize>> {
        let closed = [
            io::ErrorKind::BrokenPipe,
            io::ErrorKind::ConnectionReset,
            io::ErrorKind::ConnectionAborted,
        ];
        match wrote {
            Poll::Ready(Err(e)) if closed.contains(&e.kind()) => Poll::Ready(Ok(bytes)),
            other => other,
        }
    }
}

impl AsyncWrite for Heard {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let wrote = this.wire.as_pin().poll_write(cx, data);
        Self::taken(wrote, data.len())
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let wrote = this.wire.as_pin().poll_write_vectored(cx, bufs);
        Self::taken(wrote, bufs.iter().map(|data| data.len()).sum())
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = this.wire.as_pin().poll_flush(cx).map_ok(|()| 0);
        Self::taken(flushed, 0).map_ok(|_| ())
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().wire.as_pin().poll_shutdown(cx)
    }
}
