//! A connection to an HTTP/1 origin below the requests that it carries, one after the other.
//!
//! While a request runs, a [`Line`] is lent to an [`OriginIo`](crate::upstream::guard::OriginIo); in
//! between it waits in its [`Pool`](crate::upstream::pool::Pool).

use std::ops::Deref;
use std::ops::DerefMut;
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;
use std::task::Waker;
use std::time::Duration;
use std::time::Instant;
use std::time::SystemTime;

use pingora::protocols::SocketDigest;
use pingora::protocols::l4::socket::SocketAddr;
use pingora::protocols::tls::SslDigest;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::io::ReadBuf;
use tokio_rustls::client::TlsStream;

use crate::message::ends::Ends;
use crate::message::reply::ReplyGuard;
use crate::socket::Idle;
use crate::socket::Socket;
use crate::terms::clock;
use crate::upstream::pool::Opened;
use crate::upstream::pool::Pool;
use crate::upstream::vigil::Vigil;

/// A connection to an origin.
pub(super) struct Line {
    pub(super) wire: Wire,
    /// Bytes that the proxy wrote and the wire has not taken. Kept for its room.
    pub(super) pending: Vec<u8>,
    pub(super) tls: Option<Arc<SslDigest>>,
    pub(super) socket: Arc<SocketDigest>,
    /// When it was established, for the eyes of people.
    pub(super) established: SystemTime,
    /// How long connecting took, handshake included.
    pub(super) took: Duration,
    /// When it was established, for its age.
    pub(super) born: Instant,
    /// Holds to the rules of HTTP what passes.
    pub(super) guard: ReplyGuard,
    /// Holds to its time what is under way.
    pub(super) watch: Vigil,
    /// Whom it speaks for, where its origin was told.
    pub(super) client: Option<Ends>,
    /// The requests that it carried to their end.
    pub(super) carried: u32,
    /// It counts as open for as long as it lives.
    pub(super) opened: Option<Opened>,
}

/// A connection while a request has it.
pub(super) struct Lent {
    /// Always there until it is given back.
    line: Option<Box<Line>>,
    /// Where it goes back to; `None` for one of a kind.
    home: Option<Arc<Pool>>,
}

impl Lent {
    pub(super) fn new(line: Box<Line>, home: Option<Arc<Pool>>) -> Self {
        Self { line: Some(line), home }
    }

    /// Takes it away from where it came from. Nothing else is asked of it here after that.
    pub(super) fn take(&mut self) -> Option<Box<Line>> {
        self.line.take()
    }

    /// Gives it back to where it came from, the origin waiting for so long. Nothing else is asked of it
    /// after that.
    pub(super) fn give_back(&mut self, patience: Option<Duration>) {
        if let (Some(line), Some(home)) = (self.line.take(), &self.home) {
            home.park(line, patience, clock::now());
        }
    }
}

impl Deref for Lent {
    type Target = Line;

    fn deref(&self) -> &Line {
        self.line.as_deref().expect("it is given back at the very end")
    }
}

impl DerefMut for Lent {
    fn deref_mut(&mut self) -> &mut Line {
        self.line.as_deref_mut().expect("it is given back at the very end")
    }
}

/// What carries the bytes.
pub(super) enum Wire {
    Plain(Socket),
    Tls(Box<TlsStream<Socket>>),
}

impl Line {
    /// A plain connection to `peer`; connecting took so long.
    pub(super) fn plain(socket: Socket, peer: &SocketAddr, took: Duration) -> Self {
        let digest = socket_digest(&socket, peer);
        Self::new(Wire::Plain(socket), digest, None, took)
    }

    /// A TLS connection to `peer`; connecting, handshake included, took so long.
    pub(super) fn tls(stream: TlsStream<Socket>, peer: &SocketAddr, took: Duration) -> Self {
        let (socket, session) = stream.get_ref();
        let digest = socket_digest(socket, peer);
        let cipher = session.negotiated_cipher_suite().and_then(|suite| suite.suite().as_str());
        let version = session.protocol_version().and_then(|version| version.as_str());
        let tls = SslDigest::new(
            cipher.unwrap_or("unknown"),
            version.unwrap_or("unknown"),
            None,
            None,
            Vec::new(),
        );
        Self::new(Wire::Tls(Box::new(stream)), digest, Some(Arc::new(tls)), took)
    }

    fn new(wire: Wire, socket: SocketDigest, tls: Option<Arc<SslDigest>>, took: Duration) -> Self {
        Self {
            wire,
            pending: Vec::new(),
            tls,
            socket: Arc::new(socket),
            established: SystemTime::now(),
            took,
            born: Instant::now(),
            guard: ReplyGuard::default(),
            watch: Vigil::default(),
            client: None,
            carried: 0,
            opened: None,
        }
    }

    /// The connection's descriptor.
    pub(super) fn socket(&self) -> &Socket {
        match &self.wire {
            Wire::Plain(socket) => socket,
            Wire::Tls(stream) => stream.get_ref().0,
        }
    }

    /// Whether all that was written has left this process.
    pub(super) fn is_flushed(&self) -> bool {
        match &self.wire {
            Wire::Plain(_) => true,
            Wire::Tls(stream) => !stream.get_ref().1.wants_write(),
        }
    }

    /// What has come of it while it was idle, asked of the kernel: what the runtime knows may be older, and
    /// what came meanwhile would be the answer to the next request.
    pub(super) fn look(&mut self) -> Idle {
        if let Wire::Tls(stream) = &mut self.wire {
            // TLS says things of its own, as new session tickets; they are taken here.
            let mut byte = [0; 1];
            let mut buf = ReadBuf::new(&mut byte);
            let mut cx = Context::from_waker(Waker::noop());
            match Pin::new(stream.as_mut()).poll_read(&mut cx, &mut buf) {
                Poll::Pending => {}
                Poll::Ready(Ok(())) if !buf.filled().is_empty() => return Idle::Spoke,
                Poll::Ready(_) => return Idle::Closed,
            }
        }
        self.socket().look()
    }
}

impl Wire {
    pub(super) fn as_pin(&mut self) -> Pin<&mut dyn Duplex> {
        match self {
            Self::Plain(socket) => Pin::new(socket),
            Self::Tls(stream) => Pin::new(stream),
        }
    }
}

/// Both directions of a stream.
pub(super) trait Duplex: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Duplex for T {}

fn socket_digest(socket: &Socket, peer: &SocketAddr) -> SocketDigest {
    let digest = SocketDigest::from_raw_fd(socket.as_raw_fd());
    // A fresh digest has no address yet, so that this cannot fail.
    let _ = digest.peer_addr.set(Some(peer.clone()));
    digest
}
