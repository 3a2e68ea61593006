//! One HTTP/2 connection from its preface to its end.

use std::future::Future;
use std::future::poll_fn;
use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use h2::SendStream;
use pingora::Error;
use pingora::apps::HttpServerApp;
use pingora::protocols::Stream;
use pingora::protocols::http::ServerSession;
use pingora::protocols::http::v2::server::default_h2_options;
use pingora::protocols::http::v2::server::handshake;
use pingora::server::ShutdownWatch;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::listen::Limits;
use crate::listen::census::Streams;
use crate::listen::conn;
use crate::listen::conn::Conn;
use crate::listen::io::EdgeIo;
use crate::listen::io::multiplexed::Cork;
use crate::listen::patience::Patience;
use crate::listen::serve::EdgeApp;
use crate::listen::session::Http2Session;
use crate::listen::shortcut::Http2Taken;
use crate::listen::shortcut::Rest;
use crate::listen::shortcut::Through;
use crate::listen::stream::Http2Stream;
use crate::listen::stream::Request;
use crate::listen::stream::send_part;
use crate::refusal::Refusal;
use crate::terms::clock;
use crate::terms::pace::MinRate;
use crate::terms::pace::Pace;

/// Streams of one HTTP/2 connection that may break HTTP/2 itself before it is closed: resetting them is
/// work that costs a client nothing (CVE-2025-8671).
const BROKEN_STREAMS: usize = 64;
/// How long a client may take, after it was told to go, to send what was on its way.
const LAST_REQUEST: Duration = Duration::from_secs(2);
/// Response bytes that may wait inside one HTTP/2 stream.
const H2_SEND_BUFFER: usize = 64 * 1024;
/// How many bytes of request bodies may wait on one connection. A stream has the 65,535 of RFC 9113 §6.9.2: uploads of which
/// no more is taken for a while, be it fifteen of them, leave room for the others.
const H2_CONNECTION_WINDOW: u32 = 1024 * 1024;

impl<A> EdgeApp<A>
where
    A: HttpServerApp + Send + Sync + 'static,
{
    pub(super) async fn serve_http2(&self, io: Box<EdgeIo>, shutdown: &ShutdownWatch) {
        let conn = Arc::clone(io.conn());
        let cork = Arc::new(Cork::default());
        let streams = io.streams();
        let mut io = io;
        io.become_http2(Arc::clone(&self.watch), Arc::clone(&cork));
        let active = Arc::new(Active::new(Instant::now(), streams));
        self.http2(io, &cork, &conn, &active, shutdown).await;
    }

    async fn http2(
        &self,
        io: Box<EdgeIo>,
        cork: &Cork,
        conn: &Arc<Conn>,
        active: &Arc<Active>,
        shutdown: &ShutdownWatch,
    ) {
        let mut options = default_h2_options();
        options.max_concurrent_streams(self.limits.h2_streams);
        options.max_header_list_size(self.limits.h2_header_list());
        options.max_send_buffer_size(H2_SEND_BUFFER);
        options.initial_connection_window_size(H2_CONNECTION_WINDOW);
        options.max_local_error_reset_streams(Some(BROKEN_STREAMS));
        let stream: Stream = io;
        let opening =
            tokio::time::timeout(self.limits.header_timeout, handshake(stream, Some(options)));
        let mut h2 = match opening.await {
            Ok(Ok(h2)) => h2,
            Ok(Err(error)) => {
                if is_breach(&error) {
                    self.watch.ended(conn, Refusal::BrokenConnection, None);
                }
                return;
            }
            Err(_) => return,
        };

        let mut patience = Patience::new(self.limits.idle_timeout, shutdown);
        // Since when the client knows that it is to go.
        let mut draining: Option<Instant> = None;
        // Whether a request came since the clock was last looked at.
        let mut heard = false;
        loop {
            let turn = poll_fn(|cx| {
                if draining.is_none() && patience.poll_ending(cx).is_ready() {
                    return Poll::Ready(Turn::Ending);
                }
                // While one request follows the other, their answers wait for each other.
                cork.close();
                let mut accepted = h2.poll_accept(cx);
                if accepted.is_pending() && cork.open() {
                    accepted = h2.poll_accept(cx);
                }
                if let Poll::Ready(accepted) = accepted {
                    return Poll::Ready(Turn::Accepted(accepted.map(|one| one.map(Request::of))));
                }
                let now = Instant::now();
                if std::mem::take(&mut heard) {
                    active.noted(now);
                }
                let idle_since = active.idle_since(now);
                let until = match draining {
                    None => idle_since + self.limits.idle_timeout,
                    // A client that does not answer the PING that goes with the GOAWAY (RFC 9113
                    // §6.8) is not waited for longer than a last request may need to get here.
                    Some(since) => {
                        idle_since.max(since) + LAST_REQUEST.min(self.limits.idle_timeout)
                    }
                };
                patience.poll_until(cx, until).map(|()| Turn::Idle)
            })
            .await;
            let accepted = match turn {
                Turn::Accepted(accepted) => accepted,
                Turn::Ending => {
                    draining = Some(Instant::now());
                    h2.graceful_shutdown();
                    continue;
                }
                Turn::Idle => return,
            };
            heard = true;
            match accepted {
                Some(Ok(mut request)) => {
                    conn.count_request();
                    match self.offer_stream(&mut request, conn, active) {
                        Offered::Declined => self.stream(request, conn, active, shutdown),
                        Offered::Answered => {}
                        Offered::Through(work) => self.pass(work, request, conn, active),
                        Offered::Begun(stream, rest, busy) => {
                            let rate = self.limits.least_send_rate();
                            tokio::spawn(async move {
                                let _busy = busy;
                                send_rest(stream, rest, rate).await;
                            });
                        }
                    }
                }
                // Its streams are told. Until they have ended, and are told of, the connection has not.
                None | Some(Err(_)) => return active.ended().await,
            }
        }
    }

    /// Offers a stream to the short way. An answer that fits into the stream's window is sent here:
    /// a task of its own would cost more than the answer.
    fn offer_stream(
        &self,
        request: &mut Request,
        conn: &Arc<Conn>,
        active: &Arc<Active>,
    ) -> Offered {
        if !request.incoming.is_end_stream() {
            return Offered::Declined;
        }
        let run = AssertUnwindSafe(|| self.shortcut.http2(&mut request.head, conn));
        let (response, mut rest) = match catch_unwind(run) {
            Ok(Http2Taken::Answered(response, rest)) => (response, rest),
            Ok(Http2Taken::Through(work)) => return Offered::Through(work),
            Ok(Http2Taken::Declined) => return Offered::Declined,
            Err(_) => {
                self.watch.panicked(conn);
                return Offered::Answered;
            }
        };
        let first = rest.next();
        // What is small leaves at once, mostly, and is not counted then.
        let busy = if first.is_none() || rest.is_done() {
            None
        } else {
            let Some(busy) = active.enter(&self.limits) else {
                rest.ended(0);
                request.answer.send_reset(h2::Reason::REFUSED_STREAM);
                return Offered::Answered;
            };
            Some(busy)
        };
        let begun = request.answer.send_response(response, first.is_none());
        let (Some(first), Ok(mut stream)) = (first, begun) else {
            rest.ended(0);
            return Offered::Answered;
        };
        stream.reserve_capacity(first.len());
        if stream.capacity() < first.len() || !rest.is_done() {
            let busy = busy.unwrap_or_else(|| active.enter_anyway());
            return Offered::Begun(stream, Box::new(Begun { first, rest }), busy);
        }
        let length = first.len() as u64;
        let sent = stream.send_data(first, true).map_or(0, |()| length);
        rest.ended(sent);
        Offered::Answered
    }

    fn stream(
        &self,
        mut request: Request,
        conn: &Arc<Conn>,
        active: &Arc<Active>,
        shutdown: &ShutdownWatch,
    ) {
        let Some(busy) = self.let_in(&mut request, active) else { return };
        let app = Arc::clone(&self.app);
        let shutdown = shutdown.clone();
        let session = Box::new(Http2Session::new(request, self.limits.least_send_rate()));
        self.spawn(conn, busy, async move {
            let session = ServerSession::new_custom(session);
            app.process_new_http(session, &shutdown).await;
        });
    }

    /// Lends a stream to who answers its request.
    fn pass(
        &self,
        work: Box<dyn Through>,
        mut request: Request,
        conn: &Arc<Conn>,
        active: &Arc<Active>,
    ) {
        let Some(busy) = self.let_in(&mut request, active) else { return };
        let stream = Http2Stream::new(request, self.limits.least_send_rate());
        self.spawn(conn, busy, clock::by_turns(work.run_http2(stream)));
    }

    /// A place for a stream that has to wait for something; refused where there are too many.
    fn let_in(&self, request: &mut Request, active: &Arc<Active>) -> Option<Busy> {
        let busy = active.enter(&self.limits);
        if busy.is_none() {
            // Nothing was done for it: the client may ask again (RFC 9113 §8.7).
            request.answer.send_reset(h2::Reason::REFUSED_STREAM);
        }
        busy
    }

    /// Runs what answers one stream; a panic harms only that.
    fn spawn(&self, conn: &Arc<Conn>, busy: Busy, work: impl Future<Output = ()> + Send + 'static) {
        let watch = Arc::clone(&self.watch);
        let conn = Arc::clone(conn);
        tokio::spawn(async move {
            let _busy = busy;
            let run = AssertUnwindSafe(work).catch_unwind();
            if conn::on(Arc::clone(&conn), run).await.is_err() {
                watch.panicked(&conn);
            }
        });
    }
}

/// Whether a handshake failed by what the client sent, and not because it went away.
fn is_breach(error: &Error) -> bool {
    let cause = error.cause.as_deref().and_then(|cause| cause.downcast_ref::<h2::Error>());
    cause.is_some_and(|error| !error.is_io())
}

/// What happens next on a connection.
#[expect(clippy::large_enum_variant, reason = "a stream is moved once, not kept")]
enum Turn {
    Accepted(Option<Result<Request, h2::Error>>),
    /// The process is ending.
    Ending,
    /// Nothing did for too long.
    Idle,
}

/// What became of a stream before Pingora heard of it.
enum Offered {
    Declined,
    Answered,
    /// The header is on its way, the body is not.
    Begun(SendStream<Bytes>, Box<Begun>, Busy),
    /// This answers.
    Through(Box<dyn Through>),
}

/// A body that does not fit into its stream's window.
struct Begun {
    first: Bytes,
    rest: Box<dyn Rest>,
}

/// Sends a body at the client's pace; one that is cut is reset, visibly.
async fn send_rest(mut stream: SendStream<Bytes>, begun: Box<Begun>, rate: MinRate) {
    let Begun { first, mut rest } = *begun;
    let mut pace = Pace::default();
    let mut sent = 0;
    let mut part = Some(first);
    let whole = loop {
        let Some(bytes) = part.take().or_else(|| rest.next()) else {
            break stream.send_data(Bytes::new(), true);
        };
        if let Err(e) = send_part(&mut stream, bytes, false, &mut pace, rate, &mut sent).await {
            break Err(e);
        }
    };
    if whole.is_err() {
        stream.send_reset(h2::Reason::INTERNAL_ERROR);
    }
    rest.ended(sent);
}

/// The streams in progress on one HTTP/2 connection.
struct Active {
    streams: AtomicUsize,
    /// Where they are counted beyond this connection; `None`: nowhere.
    counted: Option<Streams>,
    born: Instant,
    /// When something last happened, in milliseconds after `born`.
    last: AtomicU64,
    none: Notify,
}

/// A stream in progress; dropping it ends it.
struct Busy(Arc<Active>);

impl Active {
    fn new(now: Instant, counted: Option<Streams>) -> Self {
        Self {
            streams: AtomicUsize::new(0),
            counted,
            born: now,
            last: AtomicU64::new(0),
            none: Notify::new(),
        }
    }

    /// One more, unless there are too many.
    fn enter(self: &Arc<Self>, limits: &Limits) -> Option<Busy> {
        let (in_all, per_client) = (limits.h2_streams_in_all, limits.h2_streams_per_client);
        let counted = self.counted.as_ref();
        let is_full = counted.is_some_and(|streams| streams.enter(in_all, per_client).is_err());
        (!is_full).then(|| self.entered())
    }

    /// One more, however many there are.
    fn enter_anyway(self: &Arc<Self>) -> Busy {
        if let Some(streams) = &self.counted {
            streams.enter_anyway();
        }
        self.entered()
    }

    fn entered(self: &Arc<Self>) -> Busy {
        self.streams.fetch_add(1, Ordering::AcqRel);
        Busy(Arc::clone(self))
    }

    /// Something happened.
    fn noted(&self, now: Instant) {
        let after = now.saturating_duration_since(self.born).as_millis();
        self.last.fetch_max(u64::try_from(after).unwrap_or(u64::MAX), Ordering::AcqRel);
    }

    /// Waits until no stream is in progress.
    async fn ended(&self) {
        loop {
            let mut none = pin!(self.none.notified());
            none.as_mut().enable();
            if self.streams.load(Ordering::Acquire) == 0 {
                return;
            }
            none.await;
        }
    }

    /// Since when nothing has happened; while a stream is in progress, that is now.
    fn idle_since(&self, now: Instant) -> Instant {
        if self.streams.load(Ordering::Acquire) > 0 {
            return now;
        }
        self.born + Duration::from_millis(self.last.load(Ordering::Acquire))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.noted(Instant::now());
        if let Some(streams) = &self.0.counted {
            streams.leave();
        }
        if self.0.streams.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.none.notify_waiters();
        }
    }
}
