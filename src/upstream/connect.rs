//! Connecting to origins ourselves.
//!
//! Pingora asks its custom connector whenever a peer's ALPN is a custom one; we mark every peer so. For an
//! HTTP/1 origin the connector answers with a plain stream, on which Pingora then speaks HTTP/1, for an HTTP/2 origin
//! with a [`Session`]. What is gained: each byte of HTTP/1 passes [`OriginIo`](crate::upstream::guard::OriginIo), each
//! wait for HTTP/2 is under our own deadlines, TLS is one shared configuration per upstream, and the connections are
//! kept in [`Pool`]s of our own, of which Pingora knows nothing.

use std::any::Any;
use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::Weak;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use parking_lot::Mutex;
use parking_lot::RwLock;
use pingora::Error;
use pingora::ErrorType;
use pingora::Result;
use pingora::connectors::http::custom::Connection;
use pingora::connectors::http::custom::Connector;
use pingora::protocols::ALPN;
use pingora::protocols::Stream;
use pingora::protocols::l4::socket::SocketAddr;
use pingora::protocols::tls::CustomALPN;
use pingora::upstreams::peer::HttpPeer;
use pingora::upstreams::peer::Peer;
use rustls::ClientConfig;
use tokio::io::AsyncWriteExt;
use tokio::task::AbortHandle;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio::time::timeout_at;
use tokio_rustls::TlsConnector;

use crate::message::ends::Ends;
use crate::message::reply::ReplyLimits;
use crate::terms;
use crate::upstream::Protocol;
use crate::upstream::http2::session::Session;
use crate::upstream::introduce::ProxyProtocol;
use crate::upstream::line::Line;
use crate::upstream::pool;
use crate::upstream::pool::Pool;
use crate::upstream::race::Race;
use crate::upstream::race::io::RacedIo;
use crate::upstream::socket;
use crate::upstream::tls;

/// The time to connect when a peer says none.
const CONNECT: Duration = Duration::from_secs(10);

/// The mark that makes Pingora ask [`EdgeConnector`].
pub(super) fn marker() -> ALPN {
    ALPN::Custom(CustomALPN::new(b"edge".to_vec()))
}

/// How connections to one upstream are made.
#[derive(Debug)]
pub struct Dial {
    /// The group key of the upstream's peers.
    pub(super) key: u64,
    /// What is spoken on them.
    speaks: Protocol,
    /// TLS over the connection; `None` is plain text.
    pub(super) tls: Option<Arc<ClientConfig>>,
    /// How each connection says for whom it speaks; `None`: it does not.
    introduces: Option<ProxyProtocol>,
    /// What the guard of each connection allows.
    pub(super) limits: ReplyLimits,
    /// How long an origin may be silent before it answers a request that offers a tunnel, in
    /// milliseconds.
    read: AtomicU64,
    /// What its pools allow.
    pool: Mutex<pool::Settings>,
    pools: RwLock<HashMap<SocketAddr, Arc<Pool>>>,
    tended: AtomicBool,
    /// The task that looks after them.
    tending: OnceLock<AbortHandle>,
}

/// Whether a connection that waits for a request may be taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Kept {
    /// It is what is wanted, if it is open at this moment, as far as the kernel knows.
    #[default]
    Welcome,
    /// A new one is: another that waited was dead, and so may all of them be.
    Unwanted,
}

/// What a request wants of the connection that Pingora is to be given for it. It is left by
/// [`terms::bring`], since Pingora passes on nothing but the peer.
#[derive(Debug, Default)]
pub struct Wanted {
    /// Whether it may have waited.
    pub kept: Kept,
    /// For whom it speaks, where the origin is told.
    pub client: Option<Ends>,
    /// The race in which it is the first; `None` is none.
    pub race: Option<Arc<Race>>,
    /// Where connections of the backend are kept; `None`: that is looked up.
    pub pool: Option<Arc<Pool>>,
}

/// Where a connection goes.
#[derive(Debug, Clone)]
pub(super) struct To {
    address: SocketAddr,
    /// The name sent and checked where TLS is spoken.
    name: String,
    /// How long connecting may take when no request waits for it.
    pub(super) patience: Duration,
}

impl To {
    fn of(peer: &HttpPeer) -> Self {
        Self {
            address: peer._address.clone(),
            name: peer.sni.clone(),
            patience: peer.options.total_connection_timeout.unwrap_or(CONNECT),
        }
    }
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
        let mut new = Vec::new();
        for dial in dials {
            if let Some(before) = self.find(dial.key).filter(|before| !Arc::ptr_eq(before, dial)) {
                dial.absorb(&before);
            }
            new.push((dial.key, Arc::downgrade(dial)));
        }
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

/// Pingora's connector towards origins.
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
    type Session = Session;

    async fn get_http_session<P: Peer + Send + Sync + 'static>(
        &self,
        peer: &P,
    ) -> Result<(Connection<Session>, bool)> {
        let Some(peer) = (peer as &dyn Any).downcast_ref::<HttpPeer>() else {
            return Error::e_explain(ErrorType::InternalError, "not an HTTP peer");
        };
        let wanted = terms::brought::<Wanted>();
        let (kept, client, race, pool) = match wanted.as_deref() {
            Some(Wanted { kept, client, race, pool }) => {
                (*kept, *client, race.clone(), pool.clone())
            }
            None => (Kept::Welcome, None, None, None),
        };
        let pool = pool.or_else(|| Some(self.dials.find(peer.group_key)?.pool(peer)));
        let Some(pool) = pool else {
            return Error::e_explain(ErrorType::InternalError, "a peer of no known upstream");
        };
        let patience = peer.options.total_connection_timeout.unwrap_or(CONNECT);
        if pool.speaks() == Protocol::Http2 {
            let session = Session::begin(&pool, patience, kept, race).await?;
            let used = session.was_used();
            return Ok((Connection::Session(session), used));
        }
        let stream: Stream = match race {
            Some(race) => Box::new(RacedIo::connect(&pool, patience, kept, client, race).await?),
            None => Box::new(pool.connect(patience, kept, client).await?),
        };
        Ok((Connection::Stream(stream), false))
    }

    async fn reused_http_session<P: Peer + Send + Sync + 'static>(
        &self,
        _peer: &P,
    ) -> Option<Session> {
        // All come from our pools.
        None
    }

    async fn release_http_session<P: Peer + Send + Sync + 'static>(
        &self,
        _session: Session,
        _peer: &P,
        _idle_timeout: Option<Duration>,
    ) {
        // Its connection is in its pool already.
    }
}

impl Dial {
    /// How connections of the group `key` are made and kept.
    pub(super) fn new(
        key: u64,
        speaks: Protocol,
        tls: Option<Arc<ClientConfig>>,
        limits: ReplyLimits,
        read: Duration,
        pool: pool::Settings,
    ) -> Self {
        Self {
            key,
            speaks,
            tls,
            introduces: None,
            limits,
            read: AtomicU64::new(millis(read)),
            pool: Mutex::new(pool),
            pools: RwLock::default(),
            tended: AtomicBool::new(false),
            tending: OnceLock::new(),
        }
    }

    /// The same, for origins that are told so for whom each connection speaks.
    #[must_use]
    pub(super) fn introducing(mut self, how: Option<ProxyProtocol>) -> Self {
        self.introduces = how;
        self
    }

    /// Whether an origin is told for whom a connection speaks.
    pub(super) fn introduces(&self) -> bool {
        self.introduces.is_some()
    }

    /// How long an origin may be silent before it answers a request that offers a tunnel.
    pub(super) fn read(&self) -> Duration {
        Duration::from_millis(self.read.load(Ordering::Relaxed))
    }

    /// Allows something else from now on.
    pub(super) fn adjust(&self, read: Duration, pool: pool::Settings) {
        self.read.store(millis(read), Ordering::Relaxed);
        *self.pool.lock() = pool;
        for one in self.pools.read().values() {
            one.adjust(pool);
        }
    }

    /// Nobody wants connections of this kind any more: those that are idle are closed, those in use end
    /// with their requests.
    pub(super) fn retire(&self) {
        for (_, pool) in self.pools.write().drain() {
            pool.retire();
        }
    }

    /// The pool of the connections to `peer`.
    pub fn pool(self: &Arc<Self>, peer: &HttpPeer) -> Arc<Pool> {
        if let Some(pool) = self.pools.read().get(&peer._address) {
            return Arc::clone(pool);
        }
        self.pool_towards(To::of(peer))
    }

    fn pool_towards(self: &Arc<Self>, to: To) -> Arc<Pool> {
        let mut pools = self.pools.write();
        let pool = pools.entry(to.address.clone()).or_insert_with(|| {
            Pool::towards(to, self.speaks, Arc::downgrade(self), *self.pool.lock())
        });
        Arc::clone(pool)
    }

    /// Begins to look after the idle connections, once: closes those that are too old or that their
    /// origins closed, and makes those that are to be kept ready. Ends with the dial.
    pub fn tend(self: &Arc<Self>) {
        let tended = &self.tended;
        if !tended.load(Ordering::Relaxed) && !tended.swap(true, Ordering::Relaxed) {
            let task = tokio::spawn(look_after(Arc::downgrade(self)));
            let _ = self.tending.set(task.abort_handle());
        }
    }

    /// Nobody wants connections to `address` any more. Those in use end with their requests.
    pub(super) fn forget(&self, address: &SocketAddr) {
        if let Some(pool) = self.pools.write().remove(address) {
            pool.retire();
        }
    }

    /// Takes over the idle connections of another dial of the same key.
    fn absorb(self: &Arc<Self>, before: &Self) {
        for theirs in before.pools.read().values() {
            if let Some(to) = theirs.to() {
                self.pool_towards(to.clone()).absorb(theirs);
            }
        }
    }

    /// A connection to `peer`: one that waits, or a new one.
    #[cfg(test)]
    pub(super) async fn connect(
        self: &Arc<Self>,
        peer: &HttpPeer,
        kept: Kept,
        client: Option<Ends>,
    ) -> Result<crate::upstream::guard::OriginIo> {
        let patience = peer.options.total_connection_timeout.unwrap_or(CONNECT);
        self.pool(peer).connect(patience, kept, client).await
    }

    /// A connection of its own to `peer`, neither kept nor counted: for a health check.
    pub(super) async fn apart(&self, peer: &HttpPeer, patience: Duration) -> Result<Line> {
        self.open(&To::of(peer), patience, None).await
    }

    /// Connects within `patience`, TLS handshake included, for this client where the origin is told.
    pub(super) async fn open(
        &self,
        to: &To,
        patience: Duration,
        client: Option<Ends>,
    ) -> Result<Line> {
        let client = client.filter(|_| self.introduces());
        let mut line = self.open_for(to, patience, client).await?;
        line.client = client;
        Ok(line)
    }

    async fn open_for(&self, to: &To, patience: Duration, client: Option<Ends>) -> Result<Line> {
        let started = Instant::now();
        let deadline = started + patience;

        let mut socket = match timeout_at(deadline, socket::connect(&to.address)).await {
            Ok(Ok(socket)) => socket,
            Ok(Err(e)) => return Err(not_connected(to, e)),
            Err(_) => return Err(failed(ErrorType::ConnectTimedout, to, None)),
        };
        if let Some(how) = self.introduces {
            let said = async { socket.write_all(&how.header(client)?).await };
            match timeout_at(deadline, said).await {
                Ok(Ok(())) => {}
                Ok(Err(e)) => return Err(not_connected(to, e)),
                Err(_) => return Err(failed(ErrorType::ConnectTimedout, to, None)),
            }
        }
        let Some(config) = &self.tls else {
            return Ok(Line::plain(socket, &to.address, started.elapsed()));
        };

        let name = tls::server_name(&to.name)
            .map_err(|e| Error::because(ErrorType::InvalidCert, "server name", e).into_up())?;
        let handshake = TlsConnector::from(config.clone()).connect(name, socket);
        match timeout_at(deadline, handshake).await {
            Ok(Ok(stream)) => Ok(Line::tls(stream, &to.address, started.elapsed())),
            Ok(Err(e)) => Err(failed(ErrorType::TLSHandshakeFailure, to, Some(e))),
            Err(_) => Err(failed(ErrorType::TLSHandshakeTimedout, to, None)),
        }
    }

    /// One round among the idle connections.
    async fn tidy(self: &Arc<Self>) {
        let pools: Vec<Arc<Pool>> = self.pools.read().values().cloned().collect();
        let mut made = JoinSet::new();
        for pool in pools {
            let missing = pool.tidy(std::time::Instant::now());
            // Held here and among the pools: of a backend that was removed nothing is kept ready.
            let missing = if Arc::strong_count(&pool) > 2 { missing } else { 0 };
            for _ in 0..missing {
                // Requests come first.
                let Some(slot) = pool.spare() else { break };
                let (dial, pool) = (Arc::clone(self), Arc::clone(&pool));
                made.spawn(async move {
                    pool.warm(&dial).await;
                    drop(slot);
                });
            }
        }
        made.join_all().await;
        // An address that went, and that nobody holds any more. Without one there is nothing to lose.
        self.pools.write().retain(|_, pool| Arc::strong_count(pool) > 1 || !pool.is_bare());
    }
}

impl Drop for Dial {
    fn drop(&mut self) {
        if let Some(task) = self.tending.get() {
            task.abort();
        }
    }
}

async fn look_after(dial: Weak<Dial>) {
    loop {
        let Some(pause) = dial.upgrade().map(|dial| dial.pool.lock().round()) else { return };
        let Some(dial) = dial.upgrade() else { return };
        dial.tidy().await;
        drop(dial);
        tokio::time::sleep(pause).await;
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn not_connected(to: &To, e: io::Error) -> Box<Error> {
    let kind = match e.kind() {
        io::ErrorKind::ConnectionRefused => ErrorType::ConnectRefused,
        io::ErrorKind::TimedOut => ErrorType::ConnectTimedout,
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
            ErrorType::ConnectNoRoute
        }
        _ => ErrorType::ConnectError,
    };
    failed(kind, to, Some(e))
}

fn failed(kind: ErrorType, to: &To, cause: Option<io::Error>) -> Box<Error> {
    let context = format!("connecting to {}", to.address);
    match cause {
        Some(e) => Error::because(kind, context, e),
        None => Error::explain(kind, context),
    }
    .into_up()
}
