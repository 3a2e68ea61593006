//! One HTTP/1 connection from its first byte to its last: the keep-alive loop.
//!
//! An idle connection waits in a small future here. Each request is first offered to the short way,
//! which answers from memory or passes it through; only for what it declines does Pingora's large future
//! exist.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::io::IoSlice;
use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;
use std::time::SystemTime;

use bytes::Buf;
use bytes::Bytes;
use futures_util::FutureExt;
use pingora::apps::HttpServerApp;
use pingora::protocols::Shutdown;
use pingora::protocols::http::ServerSession;
use pingora::server::ShutdownWatch;
use tokio::io::AsyncWriteExt;
use tokio::time::Instant;

use crate::listen::Limits;
use crate::listen::conn;
use crate::listen::conn::Conn;
use crate::listen::io::EdgeIo;
use crate::listen::patience::Came;
use crate::listen::patience::Patience;
use crate::listen::refuse;
use crate::listen::room::Room;
use crate::listen::shortcut::Afterwards;
use crate::listen::shortcut::Asked;
use crate::listen::shortcut::NoShortcut;
use crate::listen::shortcut::Outlet;
use crate::listen::shortcut::Rest;
use crate::listen::shortcut::Shortcut;
use crate::listen::shortcut::Taken;
use crate::listen::shortcut::Through;
use crate::listen::watch::Watch;
use crate::message::admit::origin_form;
use crate::message::head::BodyFraming;
use crate::message::head::HeadLimits;
use crate::message::head::HeadScanner;
use crate::message::head::RequestHead;
use crate::message::head::Scan;
use crate::message::head::Upgrade;
use crate::message::head::canonical;
use crate::message::target::Host;
use crate::message::target::Scheme;
use crate::refusal::Refusal;
use crate::terms::clock;

/// How long a new connection may take to its first request when the process is ending: whoever just
/// connected is about to ask, and would see its request fail.
const FIRST_GRACE: Duration = Duration::from_secs(1);

/// How many parts of an answer are sent at once: 1 MiB in segments of the store, its head with it.
const PARTS: usize = 17;

/// Serves connections with one shared HTTP application.
pub struct EdgeApp<A> {
    pub(super) app: Arc<A>,
    pub(super) limits: Arc<Limits>,
    pub(super) watch: Arc<dyn Watch>,
    pub(super) shortcut: Arc<dyn Shortcut>,
}

/// How long a connection may still ask when the process is ending.
#[derive(Debug, Clone, Copy)]
enum Grace {
    /// It is new.
    First,
    /// It has asked before.
    Kept,
}

/// What became of a request before HTTP heard of it.
enum Offered {
    /// It is no request that we take.
    Refused(Refusal),
    /// HTTP has to answer; this is the head to give it.
    Declined(Vec<u8>),
    /// It is answered.
    Answered(Afterwards),
    /// The answer is begun.
    Begun(Box<dyn Rest>, Afterwards),
    /// This answers.
    Through(Box<dyn Through>),
    /// The connection is of no more use.
    Broken,
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
    /// An application behind these limits, without a short way past it.
    pub fn new(app: Arc<A>, limits: Arc<Limits>, watch: Arc<dyn Watch>) -> Self {
        Self { app, limits, watch, shortcut: Arc::new(NoShortcut) }
    }

    /// The same, and each request is offered to `shortcut` first.
    #[must_use]
    pub fn with_shortcut(self, shortcut: Arc<dyn Shortcut>) -> Self {
        Self { shortcut, ..self }
    }

    /// The same behind other limits.
    pub(super) fn under(&self, limits: &Arc<Limits>) -> Self {
        Self {
            app: Arc::clone(&self.app),
            limits: Arc::clone(limits),
            watch: Arc::clone(&self.watch),
            shortcut: Arc::clone(&self.shortcut),
        }
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
        let mut grace = Grace::First;
        let mut patience = Patience::new(wait, shutdown);
        let mut host = None;
        let conn = Arc::clone(io.conn());
        loop {
            let (next, started) = self.next(&mut io, &mut patience, wait, grace).await;
            match next {
                Next::Head(mut head) => {
                    left -= 1;
                    head.keep_alive &= left > 0 && !patience.may_be_ending();
                    let offer =
                        poll_fn(|cx| Poll::Ready(self.offer(cx, &mut io, &conn, &head, &mut host)));
                    let back = match offer.await {
                        Offered::Refused(refusal) => {
                            return Box::pin(self.refuse(io, refusal, started.elapsed())).await;
                        }
                        Offered::Declined(text) => {
                            clock::exactly(Box::pin(self.request(io, head, text, shutdown))).await
                        }
                        Offered::Answered(Afterwards::Keep) => Some(io),
                        Offered::Answered(Afterwards::Close) => {
                            return Shutdown::shutdown(io.as_mut()).await;
                        }
                        Offered::Begun(rest, after) => {
                            Box::pin(self.send_rest(io, rest, after)).await
                        }
                        Offered::Through(work) => self.through(io, work).await,
                        Offered::Broken => None,
                    };
                    match back {
                        Some(back) => io = back,
                        None => return,
                    }
                    (wait, grace) = (self.limits.idle_timeout, Grace::Kept);
                }
                // Only a connection's first bytes say that it speaks HTTP/2 (RFC 9113 §3.4).
                Next::Http2 if h2c && io.conn().requests.load(Ordering::Relaxed) == 0 => {
                    drop(patience);
                    Box::pin(self.serve_http2(io, shutdown)).await;
                    return;
                }
                Next::Http2 => {
                    let refusal = Refusal::UnsupportedVersion;
                    return Box::pin(self.refuse(io, refusal, started.elapsed())).await;
                }
                Next::Refused(refusal) => {
                    return Box::pin(self.refuse(io, refusal, started.elapsed())).await;
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
        patience: &mut Patience,
        wait: Duration,
        grace: Grace,
    ) -> (Next, Instant) {
        io.rest();
        let grace = || match grace {
            Grace::First => FIRST_GRACE,
            Grace::Kept => self.watch.last_word(),
        };
        // A connection that never sends a byte is closed without a word.
        if io.received().is_empty() && patience.first_byte(io, wait, grace).await == Came::Nothing {
            return (Next::End, Instant::from_std(clock::now()));
        }
        let started = Instant::from_std(clock::now());
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

    /// Offers a request to the short way. What that declines gets a head that HTTP can be given:
    /// rewritten from what was understood, in origin-form, with one valid Host. `host` is what the last request
    /// said there.
    fn offer(
        &self,
        cx: &mut Context<'_>,
        io: &mut EdgeIo,
        conn: &Arc<Conn>,
        head: &RequestHead,
        host: &mut Option<Host>,
    ) -> Offered {
        let scheme = if conn.is_secure() { Scheme::Https } else { Scheme::Http };
        let received = io.offer(head);
        let named = head.host(&received);
        let offered = match origin_form(&head.method, head.target(&received), named, scheme, host) {
            Err(refusal) => Offered::Refused(refusal),
            Ok((host, target)) => {
                let host = host.as_deref();
                let asked = Asked { head, received: &received, host, target: &target, conn };
                match self.ask(cx, io, &asked) {
                    Offered::Declined(_) => {
                        let host = host.map(|host| host.authority().as_str());
                        Offered::Declined(canonical(&received, head, host, &target))
                    }
                    taken => taken,
                }
            }
        };
        let answered = match &offered {
            Offered::Refused(_) | Offered::Declined(_) => 0,
            Offered::Answered(_) | Offered::Begun(..) | Offered::Through(_) | Offered::Broken => {
                conn.count_request();
                head.len
            }
        };
        if let Offered::Answered(_) = &offered {
            conn.response_is_whole();
        }
        io.put_back(received, answered);
        offered
    }

    fn ask(&self, cx: &mut Context<'_>, io: &mut EdgeIo, asked: &Asked<'_>) -> Offered {
        let head = asked.head;
        if head.body != BodyFraming::None || head.upgrade == Upgrade::WebSocket {
            return Offered::Declined(Vec::new());
        }
        let before = asked.conn.bytes_out.load(Ordering::Relaxed);
        let mut outlet = Outlet::new(io, cx);
        let run = AssertUnwindSafe(|| self.shortcut.http1(asked, &mut outlet));
        match catch_unwind(run) {
            Ok(Taken::Declined) => Offered::Declined(Vec::new()),
            Ok(Taken::Answered(after)) => Offered::Answered(after),
            Ok(Taken::Begun(rest, after)) => Offered::Begun(rest, after),
            Ok(Taken::Through(work)) => Offered::Through(work),
            Ok(Taken::Broken) => Offered::Broken,
            Err(_) => {
                self.watch.panicked(asked.conn);
                // What was begun is cut.
                match asked.conn.bytes_out.load(Ordering::Relaxed) == before {
                    true => Offered::Refused(Refusal::Internal),
                    false => Offered::Broken,
                }
            }
        }
    }

    /// Sends what is left of an answer; gives the connection back when it can carry another request.
    async fn send_rest(
        &self,
        mut io: Box<EdgeIo>,
        mut rest: Box<dyn Rest>,
        after: Afterwards,
    ) -> Option<Box<EdgeIo>> {
        let mut sent = 0;
        let whole = send_all(&mut io, rest.as_mut(), &mut sent).await;
        rest.ended(sent);
        whole.ok()?;
        io.conn().response_is_whole();
        match after {
            Afterwards::Keep => Some(io),
            Afterwards::Close => {
                Shutdown::shutdown(io.as_mut()).await;
                None
            }
        }
    }

    /// Lends the connection to who answers one request; gives it back when it can carry another.
    async fn through(&self, mut io: Box<EdgeIo>, work: Box<dyn Through>) -> Option<Box<EdgeIo>> {
        let conn = Arc::clone(io.conn());
        io.lend();
        let mut room = Room::take();
        work.run(io, &mut room);
        let run = poll_fn(|cx| {
            let polled = catch_unwind(AssertUnwindSafe(|| room.poll(cx)));
            polled.unwrap_or_else(|_| {
                if let Some(conn) = conn::current() {
                    self.watch.panicked(&conn);
                }
                Poll::Ready(None)
            })
        });
        let back = conn::on(conn, run).await;
        room.leave();
        back
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
        conn.count_request();
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
        let id = self.watch.refused(io.conn(), refusal, took, io.received());
        let response = refuse::response(refusal, io.received(), &id, SystemTime::now());
        let _ = io.write_all(&response).await;
        Shutdown::shutdown(io.as_mut()).await;
    }
}

/// Sends all that is left, and adds to `sent` what has left. The kernel is given many parts at once: each
/// call wakes the reader, which costs more than the copy of a part.
async fn send_all(io: &mut EdgeIo, rest: &mut dyn Rest, sent: &mut u64) -> io::Result<()> {
    let mut parts = VecDeque::with_capacity(PARTS);
    loop {
        while parts.len() < PARTS
            && let Some(part) = rest.next()
        {
            parts.push_back(part);
        }
        if parts.is_empty() {
            return io.flush().await;
        }
        let bytes = poll_fn(|cx| {
            let mut slices = [IoSlice::new(&[]); PARTS];
            for (slice, part) in slices.iter_mut().zip(&parts) {
                *slice = IoSlice::new(part);
            }
            io.poll_send(cx, &slices[..parts.len()])
        });
        let bytes = bytes.await?;
        *sent += bytes as u64;
        take_off(&mut parts, bytes);
    }
}

/// Takes the first `bytes` off.
fn take_off(parts: &mut VecDeque<Bytes>, mut bytes: usize) {
    while let Some(part) = parts.front_mut() {
        if bytes < part.len() {
            return part.advance(bytes);
        }
        bytes -= part.len();
        parts.pop_front();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_left_is_taken_off_across_parts() {
        let parts = || VecDeque::from(["one", "two", "three"].map(Bytes::from));
        for (bytes, left) in [
            (0, &["one", "two", "three"][..]),
            (2, &["e", "two", "three"]),
            (3, &["two", "three"]),
            (7, &["hree"]),
            (11, &[]),
        ] {
            let mut parts = parts();
            take_off(&mut parts, bytes);
            assert_eq!(parts, left, "{bytes}");
        }
    }
}
