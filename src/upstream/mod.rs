//! A named group of backends, and how edgeproxy talks to them.
//!
//! [`Upstream`](peer::Upstream) chooses a [`Backend`](backend::Backend) and lends it to a request as a
//! [`Lease`](lease::Lease), which gives Pingora's `HttpPeer` for it and takes back how it went;
//! [`resolve`] keeps the addresses current, [`health`] asks each backend whether it is well, and ejection
//! leaves out those that stand out. [`connect`] dials connections, which belong to a
//! [`pool`]. On those of HTTP/1 [`guard`] checks every byte that an origin sends; on those of [`http2`] requests go side
//! by side. [`change`] is what operators do to a running upstream, and
//! `adopt` what a reload does; `relocate` brings a backend to another place. [`lift`] makes the proxy that uses both, and [`fault`] says what an
//! error on the origin's side means.

mod adopt;
mod ahead;
pub mod ask;
pub mod backend;
pub mod change;
pub mod connect;
pub mod drift;
mod eject;
pub mod exchange;
pub mod fault;
mod found;
mod group;
pub mod guard;
pub mod health;
pub mod http2;
pub mod introduce;
pub mod lease;
pub mod lift;
mod line;
pub mod mishap;
mod pattern;
pub mod peer;
pub mod pins;
pub mod pool;
mod prospect;
pub mod race;
mod relocate;
pub mod report;
pub mod resolve;
mod socket;
mod sticky;
mod survey;
pub mod tls;
mod unverified;
mod vigil;
mod worker;

#[cfg(test)]
mod tests;

use std::fmt;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;

use crate::balance::Algorithm;
use crate::message::secret::Token;
use crate::refusal::Refusal;
use crate::resilience::breaker;
use crate::resilience::budget;
use crate::resilience::ejection;
use crate::resilience::limit;
use crate::resilience::retry;
use crate::upstream::introduce::ProxyProtocol;
use crate::upstream::pins::Pin;

/// An upstream, as meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The name in the configuration, logs and metrics; unique.
    pub name: Arc<str>,
    /// Switched off: every request is answered 503.
    pub active: bool,
    /// Its backends; never empty, each with an id of its own.
    pub backends: Vec<Backend>,
    /// How one of them is chosen.
    pub balance: Balance,
    /// How a client comes to the backend again that served it before; `None` is not seen to.
    pub sticky: Option<Sticky>,
    /// How many requests the upstream is given at once, found out from its latency; `None` is no limit.
    pub concurrency: Option<limit::Settings>,
    /// Below this percentage of usable backends, health and ejection are not heeded; 0 always heeds
    /// them.
    pub panic_threshold: u32,
    /// How long a backend that came up takes until it gets its whole share; zero is at once.
    pub slow_start: Duration,
    /// TLS towards backends that say nothing of it; they have it as their own. Here for those that are
    /// added later.
    pub tls: Option<OriginTls>,
    /// The HTTP version spoken to it.
    pub protocol: Protocol,
    /// How each connection to it says for whom it speaks; `None`: it does not. HTTP/1 alone.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// The Host that it sees; `None` passes the client's on.
    pub host: Option<Arc<str>>,
    /// Every deadline.
    pub timeouts: Timeouts,
    /// The DNS servers that names are asked of; none: the system's resolver is.
    pub resolvers: Vec<SocketAddr>,
    /// How often names are resolved again.
    pub resolve_every: Duration,
    /// When a backend is given a rest; `None` never.
    pub breaker: Option<Breaker>,
    /// When a failed attempt is followed by another.
    pub retry: Retry,
    /// How its backends are checked; `None`: they are not.
    pub health: Option<health::Settings>,
    /// When a backend that fails where others do not is left out; `None` never.
    pub ejection: Option<Ejection>,
    /// How many connections each backend is given, and how they are kept.
    pub pool: pool::Settings,
}

/// The weights that a backend may have.
pub const WEIGHTS: RangeInclusive<u32> = 1..=1000;

/// One backend, as meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backend {
    /// What it is called, in its upstream unique.
    pub id: Arc<str>,
    /// Where.
    pub at: Place,
    /// Its share of requests relative to its siblings: one of [`WEIGHTS`].
    pub weight: u32,
    /// Whether it gets requests.
    pub active: bool,
    /// It gets requests only while none of the others can be used.
    pub backup: bool,
    /// TLS towards it; `None` is plain text.
    pub tls: Option<OriginTls>,
}

impl Backend {
    /// A backend of weight 1, in plain text.
    #[must_use]
    pub fn new(id: &str, at: Place) -> Self {
        Self { id: id.into(), at, weight: 1, active: true, backup: false, tls: None }
    }
}

/// How a backend is chosen, as meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Balance {
    /// How one is chosen among those that are usable.
    pub algorithm: Algorithm,
    /// What requests have in common that come to the same backend; `None` for algorithms that do not
    /// ask.
    pub by: Option<HashBy>,
}

/// What requests have in common that a consistent hash brings to the same backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HashBy {
    /// The host, path and query.
    Uri,
    /// The client's address.
    Client,
    /// The first value of this field.
    Header(HeaderName),
    /// The cookie of this name.
    Cookie(String),
}

/// How a client comes to the backend again that served it before, as meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sticky {
    /// The name of the cookie that says which one it was.
    pub cookie: String,
    /// How long the client keeps it; `None` is until it closes.
    pub max_age: Option<Duration>,
    /// By what backends are numbered there; `None`: as everybody can find out who guesses one's label.
    pub key: Option<Token>,
}

/// When a backend is given a rest, as meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Breaker {
    /// How many failures, and for how long.
    pub settings: breaker::Settings,
    /// What counts as a failure, beside statuses; `None` goes by whether others can stand in for the backend.
    pub counts: Option<Vec<Fault>>,
    /// The statuses that count as failures; `None` goes by whether others can stand in for the backend.
    pub statuses: Option<Vec<u16>>,
}

impl Breaker {
    /// Whether this counts as a failure of a backend that `has_company`.
    ///
    /// One that is alone has nobody to stand in for it: what it answers is still better than nothing, and only when it
    /// cannot be reached nothing is lost.
    pub(crate) fn is_failure(&self, fault: Fault, has_company: impl FnOnce() -> bool) -> bool {
        match (&self.counts, fault) {
            (Some(counts), _) => counts.contains(&fault),
            (None, Fault::Connect | Fault::Timeout) => true,
            (None, Fault::Closed | Fault::Malformed) => has_company(),
        }
    }

    /// The same of an answer with this status. A 500 is mostly about one page.
    pub(crate) fn is_bad(&self, status: u16, has_company: impl FnOnce() -> bool) -> bool {
        match &self.statuses {
            Some(statuses) => statuses.contains(&status),
            None => matches!(status, 502..=504) && has_company(),
        }
    }
}

/// In which way a backend failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// No connection: its name, its address, its handshake.
    Connect,
    /// It did not answer in time.
    Timeout,
    /// It closed or reset the connection before it had answered.
    Closed,
    /// What it answered is not HTTP.
    Malformed,
}

impl Fault {
    /// What it is when an attempt ends in this refusal.
    #[must_use]
    pub fn of(refusal: Refusal) -> Self {
        match refusal {
            Refusal::ConnectFailed
            | Refusal::ConnectTimeout
            | Refusal::OriginTls
            | Refusal::OriginCertificate
            | Refusal::OriginDenied => Self::Connect,
            Refusal::OriginTimeout | Refusal::TotalTimeout => Self::Timeout,
            Refusal::OriginMalformed => Self::Malformed,
            // Of the origin's faults this one is left. The others are no faults of a backend: that an attempt
            // ended in one of them says only that it got no answer there.
            Refusal::MalformedRequestLine
            | Refusal::BareLineFeed
            | Refusal::MalformedField
            | Refusal::FoldedField
            | Refusal::ControlByte
            | Refusal::BadTarget
            | Refusal::MissingHost
            | Refusal::DuplicateHost
            | Refusal::BadHost
            | Refusal::ConflictingHost
            | Refusal::AmbiguousLength
            | Refusal::BadContentLength
            | Refusal::BadTransferEncoding
            | Refusal::BadChunk
            | Refusal::IncompleteBody
            | Refusal::BadConnection
            | Refusal::BadUpgrade
            | Refusal::BadExpect
            | Refusal::UnknownTransferCoding
            | Refusal::BadMethod
            | Refusal::MalformedStream
            | Refusal::BrokenConnection
            | Refusal::Flood
            | Refusal::UnsupportedVersion
            | Refusal::TargetTooLong
            | Refusal::HeadTooLarge
            | Refusal::TooManyFields
            | Refusal::BodyTooLarge
            | Refusal::HeadTimeout
            | Refusal::BodyTimeout
            | Refusal::MethodNotAllowed
            | Refusal::NoRoute
            | Refusal::PurgeAddress
            | Refusal::PurgeToken
            | Refusal::Misdirected
            | Refusal::Loop
            | Refusal::NotCached
            | Refusal::NotValidated
            | Refusal::UpstreamOff
            | Refusal::NoPeer
            | Refusal::BreakerOpen
            | Refusal::Shed
            | Refusal::QueueFull
            | Refusal::QueueTimeout
            | Refusal::OriginClosed
            | Refusal::Overloaded
            | Refusal::Shutdown
            | Refusal::Internal => Self::Closed,
        }
    }
}

/// When a backend that fails where others do not is left out, as meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ejection {
    /// Who, and for how long.
    pub settings: ejection::Settings,
    /// How often the backends are compared.
    pub interval: Duration,
    /// The statuses that count as errors.
    pub statuses: Vec<u16>,
}

/// When a failed attempt is followed by another, as meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retry {
    /// Which, how often, how soon.
    pub settings: retry::Settings,
    /// How many in all.
    pub budget: budget::Settings,
    /// How long one attempt may take to the header of its answer; `None` leaves it to the other
    /// deadlines.
    pub per_try: Option<Duration>,
}

/// Where an origin listens.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Place {
    /// A host name or address, and a port.
    Tcp {
        /// A DNS name, or an IP address without brackets.
        host: String,
        /// The port.
        port: u16,
    },
    /// Where the SRV records of this name say.
    Service(String),
    /// A Unix socket.
    Unix(PathBuf),
    /// The demo origin that this process serves on loopback.
    Demo,
}

impl Place {
    /// Whether it is a name that is looked up, and may stand for several addresses.
    #[must_use]
    pub fn is_name(&self) -> bool {
        match self {
            Self::Tcp { host, .. } => host.parse::<IpAddr>().is_err(),
            Self::Service(_) => true,
            Self::Unix(_) | Self::Demo => false,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Service(name) => write!(f, "srv:{name}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Demo => f.write_str("demo"),
        }
    }
}

/// The HTTP version spoken to an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2: by ALPN over TLS, by prior knowledge over plain text.
    Http2,
}

/// TLS towards an upstream.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct OriginTls {
    /// The name sent as SNI and checked in the certificate; `None` takes the address's host name.
    pub server_name: Option<String>,
    /// A PEM file of the authorities to trust instead of the system's.
    pub ca: Option<PathBuf>,
    /// Whether the certificate is checked. Off only by an explicit setting.
    pub verify: bool,
    /// The names of which the certificate must carry one; none: `server_name`.
    pub names: Vec<Pin>,
    /// What origins are shown that want to know who asks.
    pub shown: Option<Shown>,
}

/// A certificate and its key, in PEM files.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Shown {
    /// The certificate, and those that lead to an authority.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

impl Default for OriginTls {
    fn default() -> Self {
        Self { server_name: None, ca: None, verify: true, names: Vec::new(), shown: None }
    }
}

impl OriginTls {
    /// The files that are read for it.
    pub fn files(&self) -> impl Iterator<Item = &PathBuf> {
        let shown = self.shown.iter().flat_map(|shown| [&shown.certificate, &shown.key]);
        self.ca.iter().chain(shown)
    }

    /// The same, to be changed.
    pub fn files_mut(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        let shown = self.shown.iter_mut().flat_map(|one| [&mut one.certificate, &mut one.key]);
        self.ca.iter_mut().chain(shown)
    }
}

/// Every deadline towards an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// To establish a connection, TLS included.
    pub connect: Duration,
    /// Between two reads of the response; the first one is the time to first byte.
    pub read: Duration,
    /// For one write of the request.
    pub write: Duration,
    /// How long an unused connection is kept.
    pub idle: Duration,
    /// From the arrival of a request to the header of its answer, all attempts together.
    pub total: Duration,
}
