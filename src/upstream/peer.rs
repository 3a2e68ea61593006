//! A running upstream: which address is next, and how Pingora is to talk to it.

use std::fmt;
use std::hash::DefaultHasher;
use std::hash::Hash;
use std::hash::Hasher;
use std::io;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::os::unix::net::SocketAddr as UnixAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use parking_lot::Mutex;
use pingora::protocols::ALPN;
use pingora::protocols::TcpKeepalive;
use pingora::protocols::l4::socket::SocketAddr;
use pingora::protocols::tls::CaType;
use pingora::upstreams::peer::HttpPeer;
use pingora::upstreams::peer::PeerOptions;
use pingora::upstreams::peer::Scheme;
use tokio::task::AbortHandle;

use crate::balance::WeightedRoundRobin;
use crate::message::reply::ReplyLimits;
use crate::refusal::Refusal;
use crate::upstream::OriginTls;
use crate::upstream::Place;
use crate::upstream::Protocol;
use crate::upstream::Settings;
use crate::upstream::connect;
use crate::upstream::connect::Dial;
use crate::upstream::endpoint::Member;
use crate::upstream::endpoint::Wish;
use crate::upstream::pool;
use crate::upstream::socket::KEEPALIVE_IDLE;
use crate::upstream::socket::KEEPALIVE_INTERVAL;
use crate::upstream::tls;
use crate::upstream::tls::TlsError;

/// Streams at once on one HTTP/2 connection to an origin.
const H2_STREAMS: usize = 100;

/// What one such stream may hold that its client does not take. Pingora's own choice is 8 MiB.
const H2_STREAM_WINDOW: u32 = 256 << 10;

/// What all streams of such a connection may hold together: clients that do not read must not take
/// the room of those that do.
const H2_CONNECTION_WINDOW: u32 = H2_STREAM_WINDOW * H2_STREAMS as u32;

/// How many keepalive probes go unanswered before the kernel gives a connection up.
const KEEPALIVE_PROBES: usize = 3;

/// An upstream in use.
#[derive(Debug)]
pub struct Upstream {
    settings: Settings,
    dial: Option<Arc<Dial>>,
    members: Vec<Member>,
    balance: WeightedRoundRobin,
    started: Instant,
    /// The tasks that resolve its names; they end with it.
    tasks: Mutex<Vec<AbortHandle>>,
}

/// Why an upstream cannot be used.
#[derive(Debug)]
#[non_exhaustive]
pub enum BuildError {
    /// Its TLS cannot be set up.
    Tls(TlsError),
    /// The path cannot be that of a Unix socket.
    UnixPath(PathBuf, io::Error),
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tls(e) => e.fmt(f),
            Self::UnixPath(path, e) => write!(f, "{} is no socket path: {e}", path.display()),
        }
    }
}

impl std::error::Error for BuildError {}

impl From<TlsError> for BuildError {
    fn from(e: TlsError) -> Self {
        Self::Tls(e)
    }
}

impl Upstream {
    /// The upstream of `settings`, whose HTTP/1 answers must keep to `limits`. Addresses and Unix
    /// sockets are usable at once, names after [`resolve::start`](crate::upstream::resolve::start).
    ///
    /// Reads the file of authorities, if it names one.
    ///
    /// # Errors
    /// Fails when its TLS cannot be set up, or a socket path is too long.
    pub fn build(settings: Settings, limits: ReplyLimits) -> Result<Arc<Self>, BuildError> {
        let key = group_key(&settings);
        let read = settings.timeouts.read;
        let pool = pool::Settings { idle: settings.timeouts.idle, ..pool::Settings::default() };
        let mut authorities = None;
        let mut dial = None;
        match (settings.protocol, &settings.tls) {
            (Protocol::Http1, None) => {
                dial = Some(Dial::new(key, None, limits, read, pool));
            }
            (Protocol::Http1, Some(tls)) => {
                let tls = Some(tls::client_config(tls)?);
                dial = Some(Dial::new(key, tls, limits, read, pool));
            }
            (Protocol::Http2, None) => {}
            (Protocol::Http2, Some(tls)) => {
                authorities = Some(tls::authorities_for_pingora(tls)?);
            }
        }

        let mut members = Vec::with_capacity(settings.addresses.len());
        for address in &settings.addresses {
            let pattern = pattern(&settings, &address.at, key, authorities.clone())?;
            let member = Member::new(address.at.clone(), pattern);
            member.learn(fixed(&address.at)?);
            members.push(member);
        }
        let weights: Vec<u32> = settings.addresses.iter().map(|address| address.weight).collect();
        Ok(Arc::new(Self {
            settings,
            dial: dial.map(Arc::new),
            members,
            balance: WeightedRoundRobin::new(&weights),
            started: Instant::now(),
            tasks: Mutex::default(),
        }))
    }

    /// What it was built from.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// How its HTTP/1 connections are made, for [`Dials::set`](connect::Dials::set); `None` for
    /// HTTP/2.
    #[must_use]
    pub fn dial(&self) -> Option<&Arc<Dial>> {
        self.dial.as_ref()
    }

    /// Says where the demo origin of this process listens.
    pub fn set_demo(&self, at: std::net::SocketAddr) {
        for member in self.members.iter().filter(|member| *member.place() == Place::Demo) {
            member.learn(vec![SocketAddr::Inet(at)]);
        }
    }

    /// The next address, by weight, and every setting to talk to it. Does no I/O.
    ///
    /// `tried` are the addresses that this request has been sent to already; they come again only
    /// when there is no other. Addresses that could not be connected to a moment ago come last.
    ///
    /// # Errors
    /// [`Refusal::UpstreamOff`], or [`Refusal::NoPeer`] when no name has been resolved yet.
    pub fn choose(&self, tried: &[SocketAddr]) -> Result<Box<HttpPeer>, Refusal> {
        if !self.settings.active {
            return Err(Refusal::UpstreamOff);
        }
        let now = self.started.elapsed();
        for wish in [Wish::Rested, Wish::Untried, Wish::Any] {
            let usable = |index: usize| {
                self.members.get(index).is_some_and(|member| member.has(wish, tried, now))
            };
            let member = self.balance.pick(usable).and_then(|index| self.members.get(index));
            if let Some(peer) = member.and_then(|member| member.take(wish, tried, now)) {
                return Ok(peer);
            }
        }
        Err(Refusal::NoPeer)
    }

    /// Remembers for ten seconds that `address` could not be connected to.
    pub fn unreachable(&self, address: &SocketAddr) {
        let now = self.started.elapsed();
        for member in &self.members {
            member.rest(address, now);
        }
    }

    pub(super) fn members(&self) -> &[Member] {
        &self.members
    }

    /// Ends `task` when the upstream goes.
    pub(super) fn adopt(&self, task: AbortHandle) {
        self.tasks.lock().push(task);
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        for task in self.tasks.get_mut().drain(..) {
            task.abort();
        }
    }
}

/// The key under which Pingora pools connections: peers share them only when nothing that was
/// settled at the handshake differs.
fn group_key(settings: &Settings) -> u64 {
    let mut hasher = DefaultHasher::new();
    settings.name.hash(&mut hasher);
    matches!(settings.protocol, Protocol::Http2).hash(&mut hasher);
    if let Some(tls) = &settings.tls {
        tls.server_name.hash(&mut hasher);
        tls.verify.hash(&mut hasher);
        tls.ca.hash(&mut hasher);
        // Other authorities in the same file are other authorities. A file that cannot be read is
        // reported by whoever needs it.
        let authorities = tls.ca.as_ref().and_then(|path| std::fs::read(path).ok());
        authorities.hash(&mut hasher);
    }
    settings.tls.is_some().hash(&mut hasher);
    hasher.finish()
}

/// Everything about the peers of one address but the address itself.
fn pattern(
    settings: &Settings,
    place: &Place,
    key: u64,
    authorities: Option<Arc<CaType>>,
) -> Result<HttpPeer, TlsError> {
    let mut options = PeerOptions::new();
    let timeouts = settings.timeouts;
    options.connection_timeout = Some(timeouts.connect);
    options.total_connection_timeout = Some(timeouts.connect);
    options.read_timeout = Some(timeouts.read);
    options.write_timeout = Some(timeouts.write);
    options.idle_timeout = Some(timeouts.idle);
    options.tcp_keepalive = Some(TcpKeepalive {
        idle: KEEPALIVE_IDLE,
        interval: KEEPALIVE_INTERVAL,
        count: KEEPALIVE_PROBES,
        user_timeout: Duration::ZERO,
    });
    options.ca = authorities;
    let verify = settings.tls.as_ref().is_none_or(|tls| tls.verify);
    options.verify_cert = verify;
    options.verify_hostname = verify;

    let sni = match &settings.tls {
        Some(tls) => server_name(tls, place)?,
        None => String::new(),
    };
    let scheme = match settings.protocol {
        // Even with TLS, which is then our connector's: Pingora only gets the stream.
        Protocol::Http1 => {
            options.alpn = connect::marker();
            Scheme::HTTP
        }
        // In plain text, Pingora takes H2 without an alternative for prior knowledge.
        Protocol::Http2 => {
            options.alpn = ALPN::H2;
            options.max_h2_streams = H2_STREAMS;
            options.h2_stream_window_size = Some(H2_STREAM_WINDOW);
            options.h2_connection_window_size = Some(H2_CONNECTION_WINDOW);
            Scheme::from_tls_bool(settings.tls.is_some())
        }
    };
    Ok(HttpPeer {
        _address: SocketAddr::Inet((Ipv4Addr::UNSPECIFIED, 0).into()),
        scheme,
        sni,
        proxy: None,
        client_cert_key: None,
        group_key: key,
        options,
    })
}

/// The name to send and to check at `place`. Never empty: Pingora would then check nothing.
fn server_name(tls: &OriginTls, place: &Place) -> Result<String, TlsError> {
    let name = match (&tls.server_name, place) {
        (Some(name), _) => name.as_str(),
        (None, Place::Tcp { host, .. }) => host.as_str(),
        (None, Place::Unix(_) | Place::Demo) if tls.verify => return Err(TlsError::NoServerName),
        (None, Place::Unix(_) | Place::Demo) => "localhost",
    };
    // The final dot of an absolute name is DNS's affair; no certificate has it.
    let name = name.strip_suffix('.').unwrap_or(name);
    tls::server_name(name)?;
    Ok(name.to_owned())
}

/// The addresses that need no resolution.
fn fixed(place: &Place) -> Result<Vec<SocketAddr>, BuildError> {
    match place {
        Place::Tcp { host, port } => {
            let literal = host.parse::<IpAddr>().ok();
            Ok(literal.map(|ip| SocketAddr::Inet((ip, *port).into())).into_iter().collect())
        }
        Place::Unix(path) => UnixAddr::from_pathname(path)
            .map(|address| vec![SocketAddr::Unix(address)])
            .map_err(|e| BuildError::UnixPath(path.clone(), e)),
        Place::Demo => Ok(Vec::new()),
    }
}
