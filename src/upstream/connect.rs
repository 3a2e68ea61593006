//! Connecting to HTTP/1 origins ourselves.
//!
//! Pingora asks its custom connector whenever a peer's ALPN is a custom one; we mark every HTTP/1
//! peer so. The connector answers with a plain stream, on which Pingora then speaks HTTP/1 and which
//! it pools as its own. What is gained: each byte passes [`OriginIo`], and TLS is one shared
//! configuration per upstream.

use std::any::Any;
use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::Weak;
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use pingora::Error;
use pingora::ErrorType;
use pingora::Result;
use pingora::connectors::http::custom::Connection;
use pingora::connectors::http::custom::Connector;
use pingora::protocols::ALPN;
use pingora::protocols::tls::CustomALPN;
use pingora::upstreams::peer::HttpPeer;
use pingora::upstreams::peer::Peer;
use rustls::ClientConfig;
use tokio::time::Instant;
use tokio::time::timeout_at;
use tokio_rustls::TlsConnector;

use crate::message::reply::ReplyGuard;
use crate::message::reply::ReplyLimits;
use crate::upstream::guard::OriginIo;
use crate::upstream::socket::Socket;
use crate::upstream::tls;

/// The time to connect when a peer says none.
const CONNECT: Duration = Duration::from_secs(10);

/// The mark that makes Pingora ask [`EdgeConnector`].
pub(super) fn marker() -> ALPN {
    ALPN::Custom(CustomALPN::new(b"edge/http1".to_vec()))
}

/// How connections to one HTTP/1 upstream are made.
#[derive(Debug)]
pub struct Dial {
    /// The group key of the upstream's peers.
    pub(super) key: u64,
    /// TLS over the connection; `None` is plain text.
    pub(super) tls: Option<Arc<ClientConfig>>,
    /// What the guard of each connection allows.
    pub(super) limits: ReplyLimits,
    /// How long an origin may be silent before it answers a request that offers a tunnel.
    pub(super) read: Duration,
}

/// Every [`Dial`] that a peer in flight may need, by group key.
///
/// An upstream that a reload replaced stays known for as long as a request holds it.
#[derive(Debug, Default)]
pub struct Dials(ArcSwap<HashMap<u64, Weak<Dial>>>);

impl Dials {
    /// Adds the dials of a new generation, at the start and after each reload. Those that nobody
    /// holds any more are forgotten.
    pub fn set<'a>(&self, dials: impl IntoIterator<Item = &'a Arc<Dial>>) {
        let new: Vec<_> = dials.into_iter().map(|dial| (dial.key, Arc::downgrade(dial))).collect();
        self.0.rcu(|old| {
            let alive = old.iter().filter(|(_, dial)| dial.strong_count() > 0);
            let mut all: HashMap<_, _> = alive.map(|(key, dial)| (*key, dial.clone())).collect();
            all.extend(new.iter().cloned());
            all
        });
    }

    fn find(&self, key: u64) -> Option<Arc<Dial>> {
        self.0.load().get(&key).and_then(Weak::upgrade)
    }
}

/// Pingora's connector towards HTTP/1 origins.
#[derive(Debug, Clone)]
pub struct EdgeConnector {
    dials: Arc<Dials>,
}

impl EdgeConnector {
    /// A connector that finds its settings in `dials`.
    #[must_use]
    pub fn new(dials: Arc<Dials>) -> Self {
        Self { dials }
    }
}

#[async_trait]
impl Connector for EdgeConnector {
    type Session = ();

    async fn get_http_session<P: Peer + Send + Sync + 'static>(
        &self,
        peer: &P,
    ) -> Result<(Connection<()>, bool)> {
        let Some(peer) = (peer as &dyn Any).downcast_ref::<HttpPeer>() else {
            return Error::e_explain(ErrorType::InternalError, "not an HTTP peer");
        };
        let Some(dial) = self.dials.find(peer.group_key) else {
            return Error::e_explain(ErrorType::InternalError, "a peer of no known upstream");
        };
        let io = dial.connect(peer).await?;
        Ok((Connection::Stream(Box::new(io)), false))
    }

    async fn reused_http_session<P: Peer + Send + Sync + 'static>(&self, _peer: &P) -> Option<()> {
        // Streams are pooled by Pingora; there are no sessions of our own.
        None
    }

    async fn release_http_session<P: Peer + Send + Sync + 'static>(
        &self,
        _session: (),
        _peer: &P,
        _idle_timeout: Option<Duration>,
    ) {
    }
}

impl Dial {
    /// Connects to `peer` within its deadline, TLS handshake included.
    async fn connect(&self, peer: &HttpPeer) -> Result<OriginIo> {
        let started = Instant::now();
        let patience = peer.options.total_connection_timeout.unwrap_or(CONNECT);
        let deadline = started + patience;

        let socket = match timeout_at(deadline, Socket::connect(&peer._address)).await {
            Ok(Ok(socket)) => socket,
            Ok(Err(e)) => return Err(not_connected(peer, e)),
            Err(_) => return Err(failed(ErrorType::ConnectTimedout, peer, None)),
        };
        let guard = ReplyGuard::new(self.limits);
        let Some(config) = &self.tls else {
            let io = OriginIo::plain(socket, &peer._address, guard, started.elapsed());
            return Ok(io.with_patience(self.read));
        };

        let name = tls::server_name(&peer.sni)
            .map_err(|e| Error::because(ErrorType::InvalidCert, "server name", e).into_up())?;
        let handshake = TlsConnector::from(config.clone()).connect(name, socket);
        match timeout_at(deadline, handshake).await {
            Ok(Ok(stream)) => {
                let io = OriginIo::tls(stream, &peer._address, guard, started.elapsed());
                Ok(io.with_patience(self.read))
            }
            Ok(Err(e)) => Err(failed(ErrorType::TLSHandshakeFailure, peer, Some(e))),
            Err(_) => Err(failed(ErrorType::TLSHandshakeTimedout, peer, None)),
        }
    }
}

fn not_connected(peer: &HttpPeer, e: io::Error) -> Box<Error> {
    let kind = match e.kind() {
        io::ErrorKind::ConnectionRefused => ErrorType::ConnectRefused,
        io::ErrorKind::TimedOut => ErrorType::ConnectTimedout,
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
            ErrorType::ConnectNoRoute
        }
        _ => ErrorType::ConnectError,
    };
    failed(kind, peer, Some(e))
}

fn failed(kind: ErrorType, peer: &HttpPeer, cause: Option<io::Error>) -> Box<Error> {
    let context = format!("connecting to {}", peer._address);
    match cause {
        Some(e) => Error::because(kind, context, e),
        None => Error::explain(kind, context),
    }
    .into_up()
}
