//! A running upstream: its backends, and which of them a request is lent.

use std::collections::HashSet;
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::os::unix::net::SocketAddr as UnixAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Weak;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use pingora::protocols::l4::socket::SocketAddr;
use pingora::upstreams::peer::HttpPeer;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use crate::message::reply::ReplyLimits;
use crate::refusal::Refusal;
use crate::resilience::budget::Budget;
use crate::resilience::ejection::Ward;
use crate::resilience::limit::Limit;
use crate::terms::clock;
use crate::upstream;
use crate::upstream::Place;
use crate::upstream::Settings;
use crate::upstream::adopt::Kept;
use crate::upstream::backend::Backend;
use crate::upstream::backend::Reason;
use crate::upstream::backend::random;
use crate::upstream::connect::Dial;
use crate::upstream::drift::Meant;
use crate::upstream::eject;
use crate::upstream::found::Found;
use crate::upstream::group::Group;
use crate::upstream::group::Now;
use crate::upstream::group::Wanted;
use crate::upstream::health;
use crate::upstream::health::Checker;
use crate::upstream::lease;
use crate::upstream::lease::Lease;
use crate::upstream::lease::Turn;
use crate::upstream::pattern;
use crate::upstream::report::Report;
use crate::upstream::resolve;
use crate::upstream::survey::News;
use crate::upstream::tls;
use crate::upstream::tls::TlsError;

/// An upstream in use.
// Each request counts itself among those that hold it: what they all read is not to lie beside that count.
#[derive(Debug)]
#[repr(align(64))]
pub struct Upstream {
    pub(super) settings: Settings,
    limits: ReplyLimits,
    pub(super) sources: Mutex<Vec<Source>>,
    group: ArcSwap<Group>,
    /// What happens to its backends.
    news: Arc<News>,
    /// Those that were removed, as long as a request holds them.
    pub(super) leaving: Mutex<Vec<Weak<Backend>>>,
    pub(super) budget: Arc<Budget>,
    pub(super) limit: Option<Arc<Limit>>,
    /// Sees to it that not too many are ejected; `None`: nobody is.
    pub(super) ward: Option<Arc<Ward>>,
    started: Instant,
    /// The number of the next source.
    serial: AtomicU64,
    /// Told when a backend comes or goes.
    changes: Arc<Notify>,
    /// The tasks that work for it; they end with it.
    tasks: Mutex<Vec<AbortHandle>>,
    /// First checks that are under way; each ends with its backend.
    pub(super) beginning: Mutex<Vec<(Arc<Backend>, AbortHandle)>>,
    /// Of those that follow each other, the one that took over last; nothing before the first one did.
    newest: Arc<Mutex<Weak<Self>>>,
}

/// One backend as it is meant, and what it stands for now.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) settings: upstream::Backend,
    pub(super) draining: bool,
    /// Tells it from others that had or will have its id.
    serial: u64,
    /// Whether its name is looked up again and again.
    is_followed: bool,
    pub(super) pattern: HttpPeer,
    pub(super) dial: Arc<Dial>,
    checker: Option<Arc<Checker>>,
    news: Arc<News>,
    pub(super) backends: Vec<Arc<Backend>>,
}

/// A backend that is a name.
#[derive(Debug)]
pub(super) struct Name {
    /// The number of its source.
    pub(super) serial: u64,
    /// What is looked up.
    pub(super) asked: Asked,
}

/// What is looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Asked {
    /// The addresses of a host.
    Host {
        /// Its name.
        host: String,
        /// The port at each of them.
        port: u16,
    },
    /// The targets of a service.
    Service(String),
}

impl Asked {
    /// What is looked up for the addresses of this place; `None`: nothing is.
    pub(super) fn of(place: &Place) -> Option<Self> {
        match place {
            Place::Tcp { host, port } if place.is_name() => {
                Some(Self::Host { host: host.clone(), port: *port })
            }
            Place::Service(name) => Some(Self::Service(name.clone())),
            Place::Tcp { .. } | Place::Unix(_) | Place::Demo => None,
        }
    }

    /// The name.
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Host { host, .. } => host,
            Self::Service(name) => name,
        }
    }
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

/// What new answers changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// Nothing.
    None,
    /// An address came or went.
    Addresses,
}

/// What a request wants of an upstream.
#[derive(Debug, Default)]
pub struct Wish<'a> {
    /// Where it was sent already: these come again only when there is no other.
    pub tried: &'a [Arc<Backend>],
    /// What it has in common with others that a consistent hash is to bring to the same backend.
    pub hash: Option<u64>,
    /// The backend that served the client before ([`Backend::key`]).
    pub sticky: Option<u64>,
    /// It was let in before, and is no further request of those that the upstream has at once.
    pub is_let_in: bool,
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
    /// sockets are usable at once, names after [`start`](Self::start).
    ///
    /// Reads the files of authorities that it names.
    ///
    /// # Errors
    /// Fails when its TLS cannot be set up, or a socket path is too long.
    pub fn build(settings: Settings, limits: ReplyLimits) -> Result<Arc<Self>, BuildError> {
        let meant = settings.backends.iter().cloned().map(Meant::new).collect();
        Self::build_as(settings, meant, limits)
    }

    /// The same with other backends than those of `settings`, which are what
    /// [`drift`](Self::drift) compares with.
    ///
    /// # Errors
    /// Fails when the TLS of one cannot be set up, or a socket path is too long.
    pub fn build_as(
        settings: Settings,
        meant: Vec<Meant>,
        limits: ReplyLimits,
    ) -> Result<Arc<Self>, BuildError> {
        Self::build_from(settings, meant, limits, None, |_, error| Err(error))
    }

    /// The same as one that goes on where `before` is, as far as that is meant alike. What becomes of a backend whose
    /// TLS cannot be set up says `otherwise`: an error, or the way in which it is spoken to all the same.
    pub(super) fn build_from(
        settings: Settings,
        meant: Vec<Meant>,
        limits: ReplyLimits,
        before: Option<&Self>,
        mut otherwise: impl FnMut(&upstream::Backend, BuildError) -> Result<Way, BuildError>,
    ) -> Result<Arc<Self>, BuildError> {
        let kept = Kept::of(before, &settings);
        // What happens to a backend that both have concerns both.
        let news = before.map_or_else(Arc::default, |before| Arc::clone(&before.news));
        let upstream = Self {
            limits,
            sources: Mutex::default(),
            leaving: Mutex::default(),
            serial: AtomicU64::new(0),
            group: ArcSwap::from_pointee(Group::new(
                Vec::new(),
                &settings.balance.algorithm,
                &news,
            )),
            news,
            budget: kept.budget.unwrap_or_else(|| Arc::new(Budget::new(settings.retry.budget))),
            limit: kept
                .limit
                .or_else(|| settings.concurrency.clone().map(Limit::new).map(Arc::new)),
            ward: kept.ward.or_else(|| {
                let ejection = settings.ejection.as_ref()?;
                Some(Arc::new(Ward::new(ejection.settings.clone())))
            }),
            // What goes on, goes by the time that it went by.
            started: before.map_or_else(clock::now, |before| before.started),
            changes: Arc::default(),
            tasks: Mutex::default(),
            beginning: Mutex::default(),
            newest: before.map_or_else(Arc::default, |before| Arc::clone(&before.newest)),
            settings,
        };
        {
            let mut sources = upstream.sources.lock();
            let known = before.map(Self::dials).unwrap_or_default();
            for Meant { backend, draining } in meant {
                let mut addresses = fixed(&backend.at)?;
                let way = Way::new(&upstream, &backend, &sources, &known);
                let way = way.or_else(|error| otherwise(&backend, error))?;
                let mut source = Source::new(&upstream, backend, way);
                source.draining = draining;
                let follows = before.map(|before| before.backends_of(&source)).unwrap_or_default();
                if addresses.is_empty() {
                    addresses = follows.iter().map(|one| one.found()).collect();
                }
                let now = upstream.now();
                source.learn_from(addresses, &upstream.settings, &follows, now);
                sources.push(source);
            }
            upstream.regroup(&sources);
        }
        Ok(Arc::new(upstream))
    }

    /// Begins all that goes on beside the requests: looking names up, checking and comparing backends.
    /// Returns when enough is known to serve, after a few seconds at the latest. Ends with the upstream.
    pub async fn start(self: &Arc<Self>) {
        resolve::start(self).await;
        eject::start(self);
        health::start(self).await;
    }

    /// What it was built from.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// How its HTTP/1 connections are made, for [`Dials::set`](crate::upstream::connect::Dials::set),
    /// each once; none for HTTP/2.
    #[must_use]
    pub fn dials(&self) -> Vec<Arc<Dial>> {
        let mut dials: Vec<Arc<Dial>> = Vec::new();
        for dial in self.sources.lock().iter().map(|source| &source.dial) {
            if !dials.iter().any(|known| known.key == dial.key) {
                dials.push(Arc::clone(dial));
            }
        }
        dials
    }

    /// The budget of its further attempts.
    #[must_use]
    pub fn budget(&self) -> &Budget {
        &self.budget
    }

    /// The limit of its requests at once; `None` has none.
    pub(super) fn limit(&self) -> Option<&Limit> {
        self.limit.as_deref()
    }

    /// How many requests at once it is given, and how many it has; `None` has no such limit.
    #[must_use]
    pub fn concurrency(&self) -> Option<(u32, u32)> {
        self.limit().map(|limit| (limit.limit(), limit.in_flight()))
    }

    /// The time by which everything here goes: since it was started.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.at(clock::now())
    }

    /// The same at this moment.
    #[must_use]
    pub fn at(&self, moment: Instant) -> Duration {
        moment.saturating_duration_since(self.started)
    }

    /// Says where the demo origin of this process listens.
    pub fn set_demo(&self, at: std::net::SocketAddr) {
        let mut sources = self.sources.lock();
        for source in sources.iter_mut().filter(|source| source.settings.at == Place::Demo) {
            source.learn(vec![SocketAddr::Inet(at).into()], &self.settings, self.now());
        }
        self.regroup(&sources);
    }

    /// Lends a request a backend, chosen as the settings say. Does no I/O and does not wait.
    ///
    /// # Errors
    /// [`Refusal::UpstreamOff`]; [`Refusal::Shed`] when it has as many as it can take;
    /// [`Refusal::NoPeer`] when none is usable, and
    /// [`Refusal::BreakerOpen`] when breakers alone are in the way.
    pub fn lend(self: &Arc<Self>, wish: &Wish<'_>) -> Result<Lease, Refusal> {
        if !self.settings.active {
            return Err(Refusal::UpstreamOff);
        }
        let Some(turn) = Turn::take(self, wish.is_let_in) else { return Err(Refusal::Shed) };
        let now = self.moment();
        let group = self.group.load();
        let mut refused = Refusal::NoPeer;
        // A breaker that others probe by now: there may be another backend.
        for _ in 0..3 {
            let wanted = Wanted {
                tried: wish.tried,
                hash: wish.hash,
                sticky: wish.sticky,
                random: random(),
            };
            let backend = group.pick(&wanted, &now)?;
            match lease::admit(self, backend, now.at) {
                // Made where the caller has it: to move one takes as long as some of the rest.
                Some(pass) => return Ok(Lease::new(turn, backend, pass)),
                None => refused = Refusal::BreakerOpen,
            }
        }
        Err(refused)
    }

    /// Whether a request that was sent to `tried` can still be sent elsewhere.
    #[must_use]
    pub fn has_other(&self, tried: &[Arc<Backend>]) -> bool {
        self.group.load().has_other(tried, &self.moment())
    }

    /// Whether others are meant to stand in for `backend`, by what there is now: a reload may have taken over since a
    /// request was lent it.
    pub(super) fn has_company(&self, backend: &Backend) -> bool {
        let newest = self.newest.lock().upgrade();
        newest.as_deref().unwrap_or(self).group.load().has_company(backend)
    }

    /// It takes over, and knows who there is.
    pub(super) fn is_newest(self: &Arc<Self>) {
        *self.newest.lock() = Arc::downgrade(self);
    }

    /// What is known of each backend.
    #[must_use]
    pub fn report(&self) -> Vec<Report> {
        let now = self.now();
        self.group.load().backends().map(|backend| backend.report(now)).collect()
    }

    /// Its backends now.
    pub(super) fn backends(&self) -> Vec<Arc<Backend>> {
        self.group.load().backends().cloned().collect()
    }

    /// What tells that a backend came or went. One may wait for it.
    pub(super) fn changes(&self) -> Arc<Notify> {
        Arc::clone(&self.changes)
    }

    /// The backends that are names, all or that of one id, and that nobody looks up yet: who gets
    /// them does.
    pub(super) fn unfollowed(&self, id: Option<&str>) -> Vec<Name> {
        let mut sources = self.sources.lock();
        let wanted = |source: &&mut Source| {
            !source.is_followed && id.is_none_or(|id| &*source.settings.id == id)
        };
        let named = sources.iter_mut().filter(wanted).filter_map(|source| {
            let asked = Asked::of(&source.settings.at)?;
            source.is_followed = true;
            Some(Name { serial: source.serial, asked })
        });
        named.collect()
    }

    /// Whether the source of this number is still there.
    pub(super) fn knows(&self, serial: u64) -> bool {
        self.sources.lock().iter().any(|source| source.serial == serial)
    }

    /// What a source stands for now; `None` when it is not there any more.
    pub(super) fn learn(&self, serial: u64, found: Vec<Found>) -> Option<Change> {
        let mut sources = self.sources.lock();
        let source = sources.iter_mut().find(|source| source.serial == serial)?;
        let change = source.learn(found, &self.settings, self.now());
        if change == Change::Addresses {
            self.regroup(&sources);
        }
        Some(change)
    }

    /// The name of a source could not be resolved, or those of these addresses could not: their breakers
    /// hear of it. `None` when it is not there any more.
    pub(super) fn unresolved(
        &self,
        serial: u64,
        which: Option<&[SocketAddr]>,
        error: &io::Error,
    ) -> Option<()> {
        let now = self.now();
        let backends = {
            let sources = self.sources.lock();
            let source = sources.iter().find(|source| source.serial == serial)?;
            source.backends.clone()
        };
        let is_meant =
            |one: &&Arc<Backend>| which.is_none_or(|which| which.contains(one.address()));
        for backend in backends.iter().filter(is_meant) {
            lease::unresolved(self, backend, error, now);
        }
        Some(())
    }

    /// Ends what goes on beside the requests.
    pub(super) fn rest(&self) {
        for task in self.tasks.lock().drain(..) {
            task.abort();
        }
    }

    /// The first check of `backend` has begun, and ends when that goes.
    pub(super) fn begins_with(&self, backend: &Arc<Backend>, check: AbortHandle) {
        let mut beginning = self.beginning.lock();
        beginning.retain(|(_, check)| !check.is_finished());
        beginning.push((Arc::clone(backend), check));
    }

    /// First checks go on where `goes_on` says so of their backends.
    pub(super) fn keeps_beginning(&self, goes_on: impl Fn(&Backend) -> bool) {
        self.beginning.lock().retain(|(backend, check)| {
            let stays = goes_on(backend);
            if !stays {
                check.abort();
            }
            stays && !check.is_finished()
        });
    }

    /// Ends `task` when the upstream goes.
    pub(super) fn adopt(&self, task: AbortHandle) {
        let mut tasks = self.tasks.lock();
        tasks.retain(|task| !task.is_finished());
        tasks.push(task);
    }

    fn moment(&self) -> Now {
        Now {
            at: self.now(),
            slow_start: self.settings.slow_start,
            panic_threshold: self.settings.panic_threshold,
        }
    }

    /// Makes what the sources stand for now the group that requests choose from.
    pub(super) fn regroup(&self, sources: &[Source]) {
        // An address that two names share is one backend, the first one's.
        let mut seen = HashSet::new();
        let backends = sources
            .iter()
            .flat_map(|source| &source.backends)
            .filter(|backend| {
                seen.insert((backend.address().to_string(), backend.peer().group_key))
            })
            .cloned();
        let algorithm = &self.settings.balance.algorithm;
        let group = Group::new(backends.collect(), algorithm, &self.news);
        self.group.store(Arc::new(group));
        let all = sources.iter().flat_map(|source| &source.backends);
        self.keeps_beginning(|one| all.clone().any(|other| other.is_the_same_as(one)));
        self.changes.notify_one();
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.rest();
    }
}

/// How a backend is spoken to.
#[derive(Debug, Clone)]
pub(super) struct Way {
    pub(super) pattern: HttpPeer,
    pub(super) dial: Arc<Dial>,
}

impl Way {
    /// That of `backend`, one more beside `others` of the same upstream.
    pub(super) fn new(
        upstream: &Upstream,
        backend: &upstream::Backend,
        others: &[Source],
        known: &[Arc<Dial>],
    ) -> Result<Self, BuildError> {
        let (settings, limits) = (&upstream.settings, upstream.limits);
        let tls = backend.tls.as_ref();
        let key = pattern::group_key(settings, tls, &backend.at);
        let known = others.iter().map(|other| &other.dial).chain(known);
        let known = known.into_iter().find(|dial| dial.key == key).cloned();
        let new = |tls| {
            let (speaks, read) = (settings.protocol, settings.timeouts.read);
            let dial = Dial::new(key, speaks, tls, limits, read, settings.pool);
            Arc::new(dial.introducing(settings.proxy_protocol))
        };
        let dial = match (known, tls) {
            (Some(known), _) => known,
            (None, None) => new(None),
            (None, Some(tls)) => new(Some(tls::client_config(tls, settings.protocol)?)),
        };
        let pattern = pattern::pattern(settings, &backend.at, tls, key)?;
        Ok(Self { pattern, dial })
    }
}

impl Source {
    /// The source of `backend`, which is spoken to in this way.
    pub(super) fn new(upstream: &Upstream, backend: upstream::Backend, way: Way) -> Self {
        let Way { pattern, dial } = way;
        let settings = &upstream.settings;
        let tls = backend.tls.as_ref();
        let checker = settings.health.clone();
        let checker = checker.map(|health| Checker::new(health, settings, &backend.at, tls, &dial));
        Self {
            draining: false,
            serial: upstream.serial.fetch_add(1, Ordering::Relaxed),
            is_followed: false,
            pattern,
            checker: checker.map(Arc::new),
            settings: backend,
            dial,
            news: Arc::clone(&upstream.news),
            backends: Vec::new(),
        }
    }

    /// The backend as it is meant.
    pub(super) fn meant(&self) -> Meant {
        Meant { backend: self.settings.clone(), draining: self.draining }
    }

    /// Replaces the addresses. Those known before keep their state.
    pub(super) fn learn(
        &mut self,
        found: Vec<Found>,
        settings: &Settings,
        now: Duration,
    ) -> Change {
        self.learn_from(found, settings, &[], now)
    }

    /// The same, where new ones go on where these are.
    fn learn_from(
        &mut self,
        found: Vec<Found>,
        settings: &Settings,
        follows: &[Arc<Backend>],
        now: Duration,
    ) -> Change {
        let found = Found::sorted(found);
        if self.backends.iter().map(|backend| backend.found()).eq(found.iter().cloned()) {
            return Change::None;
        }
        let alone = !self.settings.at.is_name();
        let breaker = settings.breaker.as_ref().map(|breaker| &breaker.settings);
        let backends = found.into_iter().map(|found| {
            let Found { address, step, weight } = found;
            let known = self.backends.iter().find(|backend| *backend.address() == address);
            let backend = known.cloned().unwrap_or_else(|| {
                let mut peer = self.pattern.clone();
                peer._address = address;
                let pool = self.dial.pool(&peer);
                let (of, news) = (&self.settings, &self.news);
                let backend = Backend::new(of, peer, pool, alone, breaker, news, now);
                backend.set(Reason::Draining, self.draining);
                let backend = backend.dialled_by(&self.dial);
                let backend = backend.numbered_by(settings.sticky.as_ref());
                let backend = backend.checked_by(self.checker.as_ref());
                let before = follows.iter().find(|one| one.address() == backend.address());
                Arc::new(match before {
                    Some(before) => backend.following(before, &settings.pool),
                    None => backend,
                })
            });
            backend.placed(step, weight);
            backend
        });
        self.backends = backends.collect();
        Change::Addresses
    }
}

/// The addresses that need no resolution.
pub(super) fn fixed(place: &Place) -> Result<Vec<Found>, BuildError> {
    match place {
        Place::Tcp { host, port } => {
            let literal = host.parse::<IpAddr>().ok();
            let address = literal.map(|ip| SocketAddr::Inet((ip, *port).into()).into());
            Ok(address.into_iter().collect())
        }
        Place::Unix(path) => UnixAddr::from_pathname(path)
            .map(|address| vec![SocketAddr::Unix(address).into()])
            .map_err(|e| BuildError::UnixPath(path.clone(), e)),
        Place::Service(_) | Place::Demo => Ok(Vec::new()),
    }
}
