//! One connection from its first byte to its last: the keep-alive loop, and HTTP/2.
//!
//! An idle connection waits in a small future here. Only while a request runs does Pingora's large
//! one exist.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::SystemTime;

use bytes::Bytes;
use futures_util::FutureExt;
use pingora::apps::HttpServerApp;
use pingora::protocols::Digest;
use pingora::protocols::Shutdown;
use pingora::protocols::Stream;
use pingora::protocols::http::ServerSession;
use pingora::protocols::http::v2::server::H2Accept;
use pingora::protocols::http::v2::server::HttpSession;
use pingora::protocols::http::v2::server::default_h2_options;
use pingora::protocols::http::v2::server::handshake;
use pingora::server::ShutdownWatch;
use tokio::io::AsyncWriteExt;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::listen::Limits;
use crate::listen::conn;
use crate::listen::conn::Conn;
use crate::listen::io::EdgeIo;
use crate::listen::refuse;
use crate::listen::watch::Watch;
use crate::message::admit::origin_form;
use crate::message::head::HeadLimits;
use crate::message::head::HeadScanner;
use crate::message::head::RequestHead;
use crate::message::head::Scan;
use crate::message::head::canonical;
use crate::message::target::Scheme;
use crate::refusal::Refusal;

/// Streams of one HTTP/2 connection that may be refused before it is closed.
const MALFORMED_STREAMS: usize = 32;
/// How long a new connection may take to its first request when the process is ending: whoever just
/// connected is about to ask, and would see its request fail.
const FIRST_GRACE: Duration = Duration::from_secs(1);
/// Streams of one HTTP/2 connection that may break HTTP/2 itself before it is closed: resetting them is
/// work that costs a client nothing (CVE-2025-8671).
const BROKEN_STREAMS: usize = 64;
/// Response bytes that may wait inside one HTTP/2 stream.
const H2_SEND_BUFFER: usize = 64 * 1024;

/// Serves connections with one shared HTTP application.
pub struct EdgeApp<A> {
    app: Arc<A>,
    limits: Arc<Limits>,
    watch: Arc<dyn Watch>,
}

/// What came next on an HTTP/1 connection.
enum Next {
    /// A whole, valid head.
    Head(RequestHead),
    /// HTTP/2 by prior knowledge.
    Http2,
    /// Something that is refused.
    Refused(Refusal),
    /// Nothing more.
    End,
}

impl<A> EdgeApp<A>
where
    A: HttpServerApp + Send + Sync + 'static,
{
    /// An application behind these limits.
    pub fn new(app: Arc<A>, limits: Arc<Limits>, watch: Arc<dyn Watch>) -> Self {
        Self { app, limits, watch }
    }

    /// Serves a connection to its end. `h2`: settled by ALPN; `h2c`: may turn out by its first bytes.
    pub async fn serve(&self, io: Box<EdgeIo>, h2: bool, h2c: bool, shutdown: &ShutdownWatch) {
        if h2 {
            self.serve_http2(io, shutdown).await;
        } else {
            self.serve_http1(io, h2c, shutdown).await;
        }
    }

    async fn serve_http1(&self, mut io: Box<EdgeIo>, h2c: bool, shutdown: &ShutdownWatch) {
        let mut left = self.limits.requests_per_connection.max(1);
        let mut wait = self.limits.header_timeout;
        let mut grace = FIRST_GRACE;
        loop {
            let (next, started) = self.next(&mut io, wait, grace, shutdown).await;
            match next {
                Next::Head(mut head) => {
                    left -= 1;
                    head.keep_alive &= left > 0 && !*shutdown.borrow();
                    let text = match self.address(&io, &head) {
                        Ok(text) => text,
                        Err(refusal) => return self.refuse(io, refusal, started.elapsed()).await,
                    };
                    match Box::pin(self.request(io, head, text, shutdown)).await {
                        Some(back) => io = back,
                        None => return,
                    }
                    (wait, grace) = (self.limits.idle_timeout, Duration::ZERO);
                }
                Next::Http2 if h2c => {
                    Box::pin(self.serve_http2(io, shutdown)).await;
                    return;
                }
                Next::Http2 => {
                    let refusal = Refusal::UnsupportedVersion;
                    return self.refuse(io, refusal, started.elapsed()).await;
                }
                Next::Refused(refusal) => {
                    return self.refuse(io, refusal, started.elapsed()).await;
                }
                Next::End => {
                    Shutdown::shutdown(io.as_mut()).await;
                    return;
                }
            }
        }
    }

    /// Waits for a request's first byte, then for the whole of its head; says when the former came.
    async fn next(
        &self,
        io: &mut EdgeIo,
        wait: Duration,
        grace: Duration,
        shutdown: &ShutdownWatch,
    ) -> (Next, Instant) {
        io.rest();
        if io.received().is_empty() {
            let mut shutdown = shutdown.clone();
            let ending = async {
                // A sender that is gone means the end as well.
                let _ = shutdown.wait_for(|down| *down).await;
                tokio::time::sleep(grace).await;
            };
            let first = async {
                tokio::select! {
                    biased;
                    read = io.receive() => read.unwrap_or(0),
                    () = ending => 0,
                }
            };
            // A connection that never sends a byte is closed without a word.
            if tokio::time::timeout(wait, first).await.unwrap_or(0) == 0 {
                return (Next::End, Instant::now());
            }
        }
        let started = Instant::now();
        let limits = HeadLimits {
            bytes: self.limits.header_bytes,
            fields: self.limits.header_fields,
            target: self.limits.target_bytes,
        };
        let mut scanner = HeadScanner::default();
        let deadline = started + self.limits.header_timeout;
        let next = loop {
            match scanner.scan(io.received(), &limits) {
                Scan::Head(head) => break Next::Head(head),
                Scan::Preface => break Next::Http2,
                Scan::Refused(refusal) => break Next::Refused(refusal),
                Scan::NeedMore => {}
            }
            match tokio::time::timeout_at(deadline, io.receive()).await {
                Ok(Ok(0) | Err(_)) => break Next::End,
                Ok(Ok(_)) => {}
                Err(_) => break Next::Refused(Refusal::HeadTimeout),
            }
        };
        (next, started)
    }

    /// The head that HTTP is given: rewritten from what was understood, in origin-form, with one
    /// valid Host.
    fn address(&self, io: &EdgeIo, head: &RequestHead) -> Result<Vec<u8>, Refusal> {
        let scheme = if io.conn().is_secure() { Scheme::Https } else { Scheme::Http };
        let buf = io.received();
        let (host, target) = origin_form(&head.method, head.target(buf), head.host(buf), scheme)?;
        let host = host.map(|host| host.to_string());
        Ok(canonical(buf, head, host.as_deref(), &target))
    }

    /// Lends the connection to HTTP for one request; gives it back when it can carry another.
    async fn request(
        &self,
        mut io: Box<EdgeIo>,
        head: RequestHead,
        text: Vec<u8>,
        shutdown: &ShutdownWatch,
    ) -> Option<Box<EdgeIo>> {
        let conn = Arc::clone(io.conn());
        conn.requests.fetch_add(1, Ordering::Relaxed);
        io.begin(&head, Bytes::from(text));

        let session = ServerSession::new_http1(io);
        let run = AssertUnwindSafe(self.app.process_new_http(session, shutdown)).catch_unwind();
        let back = match conn::on(Arc::clone(&conn), run).await {
            Ok(back) => back,
            Err(_) => {
                self.watch.panicked(&conn);
                None
            }
        };
        let (stream, _) = back?.consume();
        let mut io = stream.into_any().downcast::<EdgeIo>().ok()?;
        if head.keep_alive && io.is_between_requests() {
            return Some(io);
        }
        Shutdown::shutdown(io.as_mut()).await;
        None
    }

    async fn refuse(&self, mut io: Box<EdgeIo>, refusal: Refusal, took: Duration) {
        self.watch.refused(io.conn(), refusal, took, io.received());
        let response = refuse::response(refusal, SystemTime::now());
        let _ = io.write_all(&response).await;
        Shutdown::shutdown(io.as_mut()).await;
    }

    async fn serve_http2(&self, io: Box<EdgeIo>, shutdown: &ShutdownWatch) {
        let conn = Arc::clone(io.conn());
        let mut io = io;
        io.become_http2();
        self.http2(io, &conn, shutdown).await;
    }

    async fn http2(&self, io: Box<EdgeIo>, conn: &Arc<Conn>, shutdown: &ShutdownWatch) {
        let digest = Arc::new(Digest::default());
        let mut options = default_h2_options();
        options.max_concurrent_streams(self.limits.h2_streams);
        options.max_header_list_size(u32::try_from(self.limits.header_bytes).unwrap_or(u32::MAX));
        options.max_send_buffer_size(H2_SEND_BUFFER);
        options.max_local_error_reset_streams(Some(BROKEN_STREAMS));
        let stream: Stream = io;
        let opening =
            tokio::time::timeout(self.limits.header_timeout, handshake(stream, Some(options)));
        let Ok(Ok(mut h2)) = opening.await else { return };

        let active = Arc::new(Active::default());
        let mut shutdown_seen = shutdown.clone();
        let mut draining = false;
        let mut malformed = 0;
        loop {
            let accepted = tokio::select! {
                biased;
                _ = shutdown_seen.wait_for(|down| *down), if !draining => {
                    draining = true;
                    h2.graceful_shutdown();
                    continue;
                }
                accepted = HttpSession::from_h2_conn(&mut h2, Arc::clone(&digest)) => accepted,
                () = active.idle_for(self.limits.idle_timeout) => return,
            };
            match accepted {
                Ok(Some(H2Accept::Session(session))) => {
                    conn.requests.fetch_add(1, Ordering::Relaxed);
                    self.stream(session, conn, &active, shutdown);
                }
                Ok(Some(H2Accept::Rejected)) => {
                    self.watch.rejected(conn);
                    malformed += 1;
                    if malformed >= MALFORMED_STREAMS {
                        return;
                    }
                }
                Ok(None) | Err(_) => return,
            }
        }
    }

    fn stream(
        &self,
        session: HttpSession,
        conn: &Arc<Conn>,
        active: &Arc<Active>,
        shutdown: &ShutdownWatch,
    ) {
        let app = Arc::clone(&self.app);
        let watch = Arc::clone(&self.watch);
        let conn = Arc::clone(conn);
        let shutdown = shutdown.clone();
        let busy = active.enter();
        tokio::spawn(async move {
            let _busy = busy;
            let session = ServerSession::new_http2(session);
            let run = AssertUnwindSafe(app.process_new_http(session, &shutdown)).catch_unwind();
            if conn::on(Arc::clone(&conn), run).await.is_err() {
                watch.panicked(&conn);
            }
        });
    }
}

/// The streams in progress on one HTTP/2 connection.
#[derive(Default)]
struct Active {
    streams: AtomicUsize,
    none: Notify,
}

/// A stream in progress; dropping it ends it.
struct Busy(Arc<Active>);

impl Active {
    fn enter(self: &Arc<Self>) -> Busy {
        self.streams.fetch_add(1, Ordering::AcqRel);
        Busy(Arc::clone(self))
    }

    /// Resolves when no stream was in progress for this long.
    async fn idle_for(&self, time: Duration) {
        loop {
            let ended = self.none.notified();
            if self.streams.load(Ordering::Acquire) == 0 {
                tokio::time::sleep(time).await;
                return;
            }
            ended.await;
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        if self.0.streams.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.none.notify_one();
        }
    }
}
