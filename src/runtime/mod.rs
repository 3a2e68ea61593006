//! A running generation: the plan and what was built from it. A request holds one from its first
//! byte to its log line.

pub mod backends;
pub mod build;
pub mod ends;
pub mod entrance;
pub mod explain;
pub mod fellow;
pub mod guarded;
pub mod life;
pub mod partial;
pub mod patch;
pub mod place;
pub mod purge;
pub mod reload;
pub mod state;
pub mod upstreams;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::HeaderValue;
use http::Version;
use tokio::sync::Semaphore;

use crate::config::plan::Plan;
use crate::listen::conn::Conn;
use crate::listen::insist::Insistence;
use crate::observe::access_log::AccessLogger;
use crate::observe::metrics::ListenerMetrics;
use crate::observe::metrics::Metrics;
use crate::observe::metrics::UpstreamMetrics;
use crate::observe::metrics::requests::RouteTable;
use crate::route::Route;
use crate::route::action::Action;
use crate::runtime::fellow::Fellows;
use crate::runtime::guarded::Guarded;
use crate::runtime::state::Keeper;
use crate::storage::flights::Flights;
use crate::storage::memory::Memory;
use crate::storage::ranges::AskedRanges;
use crate::storage::uses::Uses;
use crate::storage::variances::Variances;
use crate::tls::store::CertificateStore;
use crate::upstream::Protocol;
use crate::upstream::connect::Dials;
use crate::upstream::peer::Upstream;
use crate::upstream::race::Hedging;

/// What a request needs to be served.
pub struct Runtime {
    /// The configuration as meant.
    pub plan: Plan,
    /// The upstreams, in the plan's order.
    pub upstreams: Vec<Arc<Upstream>>,
    /// The hedging of each route, in the plan's order.
    pub hedging: Vec<Option<Arc<Hedging>>>,
    /// The places for copies of each route's requests, in the plan's order.
    pub mirrors: Vec<Option<Arc<Semaphore>>>,
    /// How their HTTP/1 connections are made.
    pub dials: Arc<Dials>,
    /// Where changes of their backends are kept.
    pub keeper: Arc<Keeper>,
    /// Every metric.
    pub metrics: Arc<Metrics>,
    /// The counters of each route on each listener, by the number of its door.
    pub routes: RouteTable,
    /// The counters of each listener, by the numbers of their doors.
    pub listener_metrics: Vec<ListenerMetrics>,
    /// The counters of each upstream, in the plan's order.
    pub upstream_metrics: Vec<UpstreamMetrics>,
    /// The memory tier. It outlives every generation.
    pub memory: &'static Memory,
    /// The fetches under way. They outlive every generation.
    pub flights: Arc<Flights>,
    /// How often what is not stored was asked for. It outlives every generation.
    pub uses: Arc<Uses>,
    /// The processes beside this one. They outlive every generation.
    pub fellows: Arc<Fellows>,
    /// Which ranges were asked for. It outlives every generation.
    pub ranges: Arc<AskedRanges>,
    /// What responses say of queries. It outlives every generation.
    pub variances: Arc<Variances>,
    /// The certificates of each listener, by the numbers of their doors; `None` is plain text.
    pub certificates: Vec<Option<Arc<CertificateStore>>>,
    /// The name of each listener, by the numbers of their doors.
    pub listener_names: Vec<Arc<str>>,
    /// What each listener does so that clients come over TLS, by the numbers of their doors.
    pub insists: Vec<Insistence>,
    /// The hosts that are served to clients with a certificate alone.
    pub guarded: Guarded,
    /// The access log.
    pub access_log: Arc<AccessLogger>,
    /// Set once the process is on its way out.
    pub draining: Arc<Draining>,
}

impl Runtime {
    /// What the listener of a connection does so that clients come over TLS.
    #[must_use]
    pub fn insistence(&self, conn: &Conn) -> &Insistence {
        self.insists.get(conn.listener).unwrap_or(&Insistence::None)
    }

    /// The value of Strict-Transport-Security in answers on this connection.
    #[must_use]
    pub fn hsts(&self, conn: Option<&Conn>) -> Option<&HeaderValue> {
        conn.and_then(|conn| self.insistence(conn).told(conn.is_secure()))
    }

    /// The version in which the responses to a route's requests reach us.
    #[must_use]
    pub fn version_towards(&self, route: &Route) -> Version {
        match &route.action {
            Action::Upstream(index) if self.plan.upstreams[*index].protocol == Protocol::Http2 => {
                Version::HTTP_2
            }
            Action::Upstream(_) | Action::Respond { .. } | Action::Redirect { .. } => {
                Version::HTTP_11
            }
        }
    }
}

/// Whether the process is on its way out: new requests are still answered, but no connection is kept.
#[derive(Debug, Default)]
pub struct Draining {
    begun: AtomicBool,
    /// In milliseconds.
    last_word: AtomicU64,
    cut: AtomicBool,
}

impl Draining {
    /// The process is on its way out. Kept connections may ask once more for so long.
    pub fn begin(&self, last_word: Duration) {
        let millis = u64::try_from(last_word.as_millis()).unwrap_or(u64::MAX);
        self.last_word.store(millis, Ordering::Release);
        self.begun.store(true, Ordering::Release);
    }

    /// How long kept connections may ask once more.
    #[must_use]
    pub fn last_word(&self) -> Duration {
        Duration::from_millis(self.last_word.load(Ordering::Acquire))
    }

    /// The process ends now: what is under way is cut.
    pub fn cut(&self) {
        self.cut.store(true, Ordering::Release);
    }

    /// Whether what is under way is cut.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.cut.load(Ordering::Acquire)
    }

    /// Whether it is.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.begun.load(Ordering::Acquire)
    }
}
