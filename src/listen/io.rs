//! A client's connection as HTTP sees it: only the bytes of the current request, at a decent pace.
//!
//! The keep-alive loop reads and validates each request head itself and then lends the connection to
//! Pingora with `EdgeIo::begin`. From there on `poll_read` gives out the canonical head, then
//! exactly the body that the head framed, checked against the grammar as it passes. What the client
//! sends beyond that (a pipelined request) stays here until the next round, so that Pingora never
//! sees a byte that is not the current request's.

pub(crate) mod multiplexed;
mod short;

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::RawFd;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Context;
use std::task::Poll;
use std::task::Waker;
use std::task::ready;
use std::time::Duration;
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Buf;
use bytes::Bytes;
use bytes::BytesMut;
use http::Version;
use pingora::protocols::ALPN;
use pingora::protocols::GetProxyDigest;
use pingora::protocols::GetSocketDigest;
use pingora::protocols::GetTimingDigest;
use pingora::protocols::Peek;
use pingora::protocols::Shutdown;
use pingora::protocols::SocketDigest;
use pingora::protocols::Ssl;
use pingora::protocols::TimingDigest;
use pingora::protocols::UniqueID;
use pingora::protocols::UniqueIDType;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::tls::SslDigest;
use tokio::io::AsyncRead;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWrite;
use tokio::io::AsyncWriteExt;
use tokio::io::ReadBuf;

use crate::listen::census::Place;
use crate::listen::census::Streams;
use crate::listen::conn::Conn;
use crate::listen::io::multiplexed::Cork;
use crate::listen::io::multiplexed::Multiplexed;
use crate::listen::refuse;
use crate::listen::transport::Transport;
use crate::listen::watch::Watch;
use crate::message::chunked::BodyScanner;
use crate::message::head::BodyFraming;
use crate::message::head::RequestHead;
use crate::message::head::Upgrade;
use crate::refusal::Refusal;
use crate::terms;
use crate::terms::pace::MinRate;
use crate::terms::pace::Pace;
use crate::terms::room::Room;

/// Response bytes are gathered up to here, so that a header and a small body leave in one write.
const GATHER: usize = 16 * 1024;
/// The most of a request body that one read gives out: bounds what a route's spool overshoots.
const READ_AT_MOST: usize = 16 * 1024;
/// How much of an unwanted request is read away before the connection is closed, and for how long,
/// so that the client gets to read the response instead of a reset.
const LINGER_BYTES: usize = 256 * 1024;
const LINGER_TIME: Duration = Duration::from_secs(2);

/// What a connection of HTTP/2 has room for at its start (RFC 9113 §6.9.2).
const WINDOW: u32 = 65_535;

/// What the connection carries at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// HTTP/1: framed by the head that was lent.
    Http1,
    /// HTTP/2: every byte passes; its own framing rules.
    Http2,
    /// After a 101 that was asked for: every byte passes.
    Tunnel,
}

/// A client's connection, lent to Pingora one request at a time.
pub struct EdgeIo {
    /// `None` only once a close was handed to a task of its own.
    transport: Option<Transport>,
    conn: Arc<Conn>,
    /// Counted until the last byte has left.
    place: Option<Place>,
    mode: Mode,
    /// Of HTTP/2: what it is watched for.
    http2: Option<Box<Multiplexed>>,
    /// Read from the transport, given to nobody yet.
    received: BytesMut,
    /// The canonical head of the current request, given out first.
    head: Bytes,
    /// What of `received` and of what follows belongs to the current request.
    body: BodyScanner,
    /// The current request asked for a WebSocket.
    may_tunnel: bool,
    /// Written by HTTP, not yet by the transport.
    gathered: BytesMut,
    /// Nothing of the current response was written yet.
    fresh: bool,
    /// The client speaks HTTP/1.0, whose responses may end with the connection.
    old: bool,
    /// The client took too long to take what we sent.
    stuck: bool,
    /// The connection was cut before its response was begun: that may still be said.
    last_words: bool,
    /// `shutdown` was called: the close is an orderly one.
    closed: bool,
    /// Waits for a 101 to open the tunnel, or for the client to go away.
    idle: Option<Waker>,
    reading: Pace,
    writing: Pace,
    read_rate: MinRate,
    write_rate: MinRate,
}

impl fmt::Debug for EdgeIo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EdgeIo")
            .field("peer", &self.conn.peer)
            .field("mode", &self.mode)
            .finish_non_exhaustive()
    }
}

impl EdgeIo {
    pub(crate) fn new(
        transport: Transport,
        conn: Arc<Conn>,
        read_rate: MinRate,
        write_rate: MinRate,
    ) -> Self {
        Self {
            transport: Some(transport),
            conn,
            place: None,
            mode: Mode::Http1,
            http2: None,
            received: BytesMut::new(),
            head: Bytes::new(),
            body: BodyScanner::new(BodyFraming::None),
            may_tunnel: false,
            gathered: BytesMut::new(),
            fresh: true,
            old: false,
            stuck: false,
            last_words: false,
            closed: false,
            idle: None,
            reading: Pace::default(),
            writing: Pace::default(),
            read_rate,
            write_rate,
        }
    }

    /// Keeps the connection's place in the census until its end, lingering included.
    pub(crate) fn holding(mut self, place: Place) -> Self {
        self.place = Some(place);
        self
    }

    /// Where the streams of an HTTP/2 connection are counted.
    pub(super) fn streams(&self) -> Option<Streams> {
        self.place.as_ref().map(Place::streams)
    }

    /// Whether the process ends now, whatever is under way.
    fn is_cut(&self) -> bool {
        self.place.as_ref().is_some_and(Place::is_cut)
    }

    /// Whether what is written from here on may leave: of a response that was not begun when the
    /// connection was cut, which says why.
    fn may_write(&mut self) -> io::Result<()> {
        if !self.is_cut() || self.last_words {
            return Ok(());
        }
        if self.mode == Mode::Http1 && self.fresh {
            self.last_words = true;
            return Ok(());
        }
        Err(cut())
    }

    /// The connection's facts.
    #[must_use]
    pub fn conn(&self) -> &Arc<Conn> {
        &self.conn
    }

    /// What was read and belongs to no request yet.
    pub(crate) fn received(&self) -> &[u8] {
        &self.received
    }

    /// Reads once into [`Self::received`]. Zero is the end. Holds no buffer while it waits.
    pub(crate) async fn receive(&mut self) -> io::Result<usize> {
        poll_fn(|cx| self.poll_receive(cx)).await
    }

    pub(crate) fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.is_cut() {
            return Poll::Ready(Err(cut()));
        }
        let Some(transport) = self.transport.as_mut() else { return Poll::Ready(Ok(0)) };
        // On the stack: an idle connection owns no read buffer.
        let mut space = [const { MaybeUninit::uninit() }; 8 * 1024];
        let mut buf = ReadBuf::uninit(&mut space);
        ready!(Pin::new(transport).poll_read(cx, &mut buf))?;
        let filled = buf.filled();
        self.conn.count_in(filled.len());
        self.received.extend_from_slice(filled);
        Poll::Ready(Ok(filled.len()))
    }

    /// Lends the connection for one request, whose head stands at the start of what was received;
    /// `text` is what Pingora is given instead.
    pub(crate) fn begin(&mut self, head: &RequestHead, text: Bytes) {
        self.received.advance(head.len);
        if self.received.is_empty() {
            self.received = BytesMut::new();
        }
        self.head = text;
        self.body = BodyScanner::new(head.body);
        self.may_tunnel = head.upgrade == Upgrade::WebSocket;
        self.old = head.version == Version::HTTP_10;
        self.fresh = true;
        self.conn.whole.store(false, Ordering::Relaxed);
        self.reading.rest();
        self.writing.rest();
    }

    /// After a request: whether its body was read to its end, so that what follows is a new request.
    pub(crate) fn is_between_requests(&self) -> bool {
        self.mode == Mode::Http1 && self.head.is_empty() && self.body.at_end()
    }

    /// Gives back what only a running request needs.
    pub(crate) fn rest(&mut self) {
        self.reading.rest();
        self.writing.rest();
        self.idle = None;
        if self.gathered.is_empty() {
            self.gathered = BytesMut::new();
        }
        if self.received.is_empty() {
            self.received = BytesMut::new();
        }
    }

    /// From here on every byte passes: HTTP/2.
    pub(crate) fn become_http2(&mut self, watch: Arc<dyn Watch>, cork: Arc<Cork>) {
        self.mode = Mode::Http2;
        let room = Arc::clone(self.conn.room.get_or_init(|| Arc::new(Room::new(WINDOW))));
        self.http2 = Some(Box::new(Multiplexed::new(watch, cork, room)));
    }

    /// Whether what is written waits for more.
    fn is_corked(&self) -> bool {
        self.http2.as_ref().is_some_and(|http2| http2.is_corked())
    }

    /// Bytes from the client pass; those of HTTP/2 are counted in frames.
    fn pass(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.http2 {
            Some(http2) => http2.came(&self.conn, bytes),
            None => Ok(()),
        }
    }

    fn transport(&mut self) -> io::Result<&mut Transport> {
        self.transport.as_mut().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    fn poll_read_any(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.mode {
            Mode::Http2 => self.poll_read_through(cx, buf),
            Mode::Tunnel if terms::is_client_held(cx) => Poll::Pending,
            Mode::Tunnel => self.poll_read_through(cx, buf),
            Mode::Http1 if !self.head.is_empty() => {
                let n = self.head.len().min(buf.remaining());
                buf.put_slice(&self.head.split_to(n));
                Poll::Ready(Ok(()))
            }
            Mode::Http1 if !self.body.at_end() && terms::is_client_held(cx) => {
                // It is not the client that is slow.
                self.reading.rest();
                Poll::Pending
            }
            Mode::Http1 if !self.body.at_end() => self.poll_read_body(cx, buf),
            Mode::Http1 => self.poll_gone(cx),
        }
    }

    fn poll_read_through(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.received.is_empty() {
            let n = self.received.len().min(buf.remaining());
            let first = self.received.split_to(n);
            buf.put_slice(&first);
            if self.received.is_empty() {
                self.received = BytesMut::new();
            }
            return Poll::Ready(self.pass(&first));
        }
        let before = buf.filled().len();
        ready!(Pin::new(self.transport()?).poll_read(cx, buf))?;
        let got = &buf.filled()[before..];
        self.conn.count_in(got.len());
        Poll::Ready(self.pass(got))
    }

    fn poll_read_body(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.received.is_empty() {
            match self.poll_receive(cx) {
                Poll::Ready(Ok(0)) => {
                    return Poll::Ready(Err(io::Error::new(
                        io::ErrorKind::UnexpectedEof,
                        "the request body ended early",
                    )));
                }
                Poll::Ready(Ok(n)) => self.reading.moved(n),
                Poll::Ready(Err(e)) => return Poll::Ready(Err(e)),
                Poll::Pending => {
                    ready!(self.reading.poll_too_slow(cx, self.read_rate));
                    return Poll::Ready(Err(io::Error::new(
                        io::ErrorKind::TimedOut,
                        "the request body arrives too slowly",
                    )));
                }
            }
        }
        let room = buf.remaining().min(READ_AT_MOST).min(self.received.len());
        let fed = self
            .body
            .feed(&self.received[..room])
            .map_err(|fault| io::Error::new(io::ErrorKind::InvalidData, fault))?;
        buf.put_slice(&self.received[..fed.consumed]);
        self.received.advance(fed.consumed);
        if self.received.is_empty() {
            self.received = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }

    /// The request is read. All that can still happen is that the client goes away, that it sends its
    /// next request early (kept, unread beyond one buffer), or that a 101 opens the tunnel.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.idle = Some(cx.waker().clone());
        self.poll_left(cx)
    }

    /// The same, where no tunnel can be opened.
    fn poll_left(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_cut() {
            return Poll::Ready(Err(cut()));
        }
        if !self.received.is_empty() {
            return Poll::Pending;
        }
        match ready!(self.poll_receive(cx)) {
            // The end: given on as such.
            Ok(0) => Poll::Ready(Ok(())),
            Ok(_) => Poll::Pending,
            Err(e) => Poll::Ready(Err(e)),
        }
    }

    fn poll_drain_gathered(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.gathered.is_empty() {
            let Some(transport) = self.transport.as_mut() else {
                return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
            };
            match Pin::new(transport).poll_write(cx, &self.gathered) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(n)) => {
                    self.gathered.advance(n);
                    self.writing.moved(n);
                    self.conn.count_out(n);
                }
                Poll::Ready(Err(e)) => return Poll::Ready(Err(e)),
                Poll::Pending => return self.poll_blocked(cx),
            }
        }
        if let Some(http2) = &mut self.http2 {
            http2.holds(false);
            // Between one answer and the next, which may be long in coming, nothing is owned.
            self.gathered = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }

    /// The client does not take what we send: pending until it does or was too slow.
    fn poll_blocked<T>(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        ready!(self.writing.poll_too_slow(cx, self.write_rate));
        self.stuck = true;
        Poll::Ready(Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "the client reads its response too slowly",
        )))
    }

    /// Watches the first bytes of a response for the 101 that opens a tunnel.
    fn note_response(&mut self, buf: &[u8]) {
        if !self.fresh || self.mode != Mode::Http1 {
            return;
        }
        if buf.starts_with(b"HTTP/1.1 1") && !buf.starts_with(b"HTTP/1.1 101") {
            return; // An interim response: the next one counts.
        }
        self.fresh = false;
        if self.may_tunnel && buf.starts_with(b"HTTP/1.1 101") {
            self.mode = Mode::Tunnel;
            if let Some(waker) = self.idle.take() {
                waker.wake();
            }
        }
    }
}

/// The process ends, and this connection with it.
#[derive(Debug)]
pub struct Cut;

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the process ends")
    }
}

impl std::error::Error for Cut {}

#[cold]
fn cut() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, Cut)
}

impl AsyncRead for EdgeIo {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        if this.is_cut() {
            return Poll::Ready(Err(cut()));
        }
        if let Poll::Ready(read) = this.poll_read_any(cx, buf) {
            return Poll::Ready(read);
        }
        // Whoever waits for the client has nothing to add at the moment to what was gathered: it
        // must not wait for more of the response, which may be long in coming.
        if !this.is_corked()
            && let Poll::Ready(Err(e)) = this.poll_drain_gathered(cx)
        {
            return Poll::Ready(Err(e));
        }
        Poll::Pending
    }
}

impl AsyncWrite for EdgeIo {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.may_write()?;
        if this.mode == Mode::Http2 {
            return this.poll_multiplex(cx, buf);
        }
        this.note_response(buf);
        if this.mode == Mode::Http1 && this.gathered.len() + buf.len() <= GATHER {
            this.gathered.extend_from_slice(buf);
            return Poll::Ready(Ok(buf.len()));
        }
        ready!(this.poll_drain_gathered(cx))?;
        match Pin::new(this.transport()?).poll_write(cx, buf) {
            Poll::Ready(Ok(n)) => {
                this.writing.moved(n);
                this.conn.count_out(n);
                Poll::Ready(Ok(n))
            }
            Poll::Ready(Err(e)) => Poll::Ready(Err(e)),
            Poll::Pending => this.poll_blocked(cx),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.may_write()?;
        if this.is_corked() {
            return Poll::Ready(Ok(()));
        }
        ready!(this.poll_drain_gathered(cx))?;
        match Pin::new(this.transport()?).poll_flush(cx) {
            Poll::Pending => this.poll_blocked(cx),
            done => done,
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_drain_gathered(cx))?;
        this.closed = true;
        Pin::new(this.transport()?).poll_shutdown(cx)
    }
}

#[async_trait]
impl Shutdown for EdgeIo {
    /// An orderly close: all that was written leaves, then the end is announced.
    async fn shutdown(&mut self) {
        let _ = AsyncWriteExt::shutdown(self).await;
        self.closed = true;
        let unread = !self.body.at_end() || !self.received.is_empty();
        if let Some(transport) = unread.then(|| self.transport.take()).flatten() {
            linger(transport).await;
        }
    }
}

/// Reads away what the client still sends, within bounds: closing over unread bytes would reset the
/// connection and could take the response with it.
async fn linger(mut transport: Transport) {
    let mut space = vec![0u8; 8 * 1024];
    let drained = async {
        let mut left = LINGER_BYTES;
        while left > 0 {
            match transport.read(&mut space).await {
                Ok(0) | Err(_) => return,
                Ok(n) => left = left.saturating_sub(n),
            }
        }
    };
    let _ = tokio::time::timeout(LINGER_TIME, drained).await;
}

impl Drop for EdgeIo {
    fn drop(&mut self) {
        if self.closed || self.mode != Mode::Http1 {
            return;
        }
        let Some(mut transport) = self.transport.take() else { return };
        if self.fresh && std::thread::panicking() {
            // A defect of ours met this request before its answer was begun: that can be said.
            let now = SystemTime::now();
            self.gathered = refuse::response(Refusal::Internal, &[], "", now)[..].into();
            self.conn.response_is_whole();
        }
        if !self.conn.whole.load(Ordering::Relaxed) {
            if self.fresh {
                return;
            }
            // What was begun in HTTP/1.1 says itself where it should have ended. In HTTP/1.0 only a
            // reset tells a cut response from a whole one; and for who does not read, nothing is kept.
            if self.old || self.stuck {
                transport.reset_on_close();
                return;
            }
        }
        if self.is_cut() {
            return;
        }
        // HTTP gave the connection up: see that what was written arrives.
        let rest = std::mem::take(&mut self.gathered);
        let place = self.place.take();
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(async move {
            let _place = place;
            let send = async {
                transport.write_all(&rest).await?;
                transport.shutdown().await
            };
            if matches!(tokio::time::timeout(LINGER_TIME, send).await, Ok(Ok(()))) {
                linger(transport).await;
            }
        });
    }
}

impl UniqueID for EdgeIo {
    fn id(&self) -> UniqueIDType {
        self.transport.as_ref().map_or(-1, Transport::fd) as RawFd
    }
}

impl Ssl for EdgeIo {
    fn get_ssl_digest(&self) -> Option<Arc<SslDigest>> {
        let tls = self.conn.tls.as_ref()?;
        Some(Arc::new(SslDigest::new("", tls.version.name(), None, None, Vec::new())))
    }

    fn selected_alpn_proto(&self) -> Option<ALPN> {
        None
    }
}

impl GetTimingDigest for EdgeIo {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }
}

impl GetProxyDigest for EdgeIo {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        None
    }
}

impl GetSocketDigest for EdgeIo {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        None
    }
}

#[async_trait]
impl Peek for EdgeIo {}
