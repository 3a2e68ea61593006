//! From a plan to a running process.

use std::io;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use log::error;
use log::info;
use log::warn;
use parking_lot::Mutex;
use pingora::server::ListenFds;
use pingora::server::RunArgs;
use pingora::server::Server;
use pingora::server::ShutdownWatch;
use pingora::server::configuration::ServerConf;
use pingora::services::Service;
use rustls::ServerConfig;

use crate::admin::Admin;
use crate::app::handover;
use crate::app::handover::Named;
use crate::app::handover::Taken;
use crate::app::life::Life;
use crate::app::life::Signals;
use crate::config::plan::AdminAddress;
use crate::config::plan::Plan;
use crate::demo::DemoOrigin;
use crate::listen::Limits;
use crate::listen::accept::Bound;
use crate::listen::accept::Door;
use crate::listen::accept::House;
use crate::listen::accept::bind;
use crate::listen::census::Census;
use crate::listen::serve::EdgeApp;
use crate::listen::watch::Watch;
use crate::observe::access_log::AccessLogger;
use crate::observe::access_log::writer::Flushed;
use crate::observe::metrics::CacheUsage;
use crate::observe::metrics::Metrics;
use crate::observe::metrics::Reload;
use crate::observe::metrics::process;
use crate::proxy::EdgeProxy;
use crate::proxy::watch::Reporter;
use crate::runtime::Runtime;
use crate::storage::memory::Memory;
use crate::tls::store::CertificateStore;
use crate::tls::store::server_config;
use crate::upstream::Place;
use crate::upstream::connect::Dials;
use crate::upstream::connect::EdgeConnector;
use crate::upstream::lift::lift;
use crate::upstream::peer::Upstream;

/// How often expired entries are looked for, and how many are looked at each time.
const SWEEP_EVERY: Duration = Duration::from_millis(250);
const SWEEP_STEPS: usize = 4096;
/// What the process may hold beyond the memory tier's limit and 15 % of it, in bytes.
const BESIDES_MEMORY: u64 = 128 << 20;
/// How long the access log may take to write its last lines.
const FLUSH: Duration = Duration::from_secs(2);
/// The name of the admin listener's socket in a handover; no listener can be called so.
const ADMIN: &str = "\tadmin";

/// How the process is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Manner {
    pub(crate) daemon: bool,
    pub(crate) upgrade: bool,
}

/// Why the process does not start.
#[derive(Debug)]
pub(crate) enum StartError {
    /// An address cannot be listened on.
    Bind(String, String, io::Error),
    /// No running process hands its sockets over.
    Upgrade(String, io::Error),
    /// Certificates, authorities or files are not usable.
    Material(String),
}

impl std::fmt::Display for StartError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bind(name, address, e) => {
                write!(f, "cannot listen on {address} (listener \"{name}\"): {e}")?;
                match e.kind() {
                    io::ErrorKind::AddrInUse => write!(
                        f,
                        "; stop what listens there, or take over from it with -u if it is edgeproxy"
                    ),
                    io::ErrorKind::PermissionDenied => {
                        write!(f, "; ports below 1024 need root or CAP_NET_BIND_SERVICE")
                    }
                    io::ErrorKind::AddrNotAvailable => {
                        write!(f, "; the address is not one of this machine's")
                    }
                    _ => Ok(()),
                }
            }
            Self::Upgrade(path, e) => write!(
                f,
                "cannot take over: no running edgeproxy answers at {path} ({e}); start without -u, \
                 or make process.upgrade_socket the same in both configurations"
            ),
            Self::Material(what) => f.write_str(what),
        }
    }
}

/// A listener with everything that can fail done.
struct Prepared {
    index: usize,
    name: Arc<str>,
    socket: std::net::TcpListener,
    tls: Option<(Arc<CertificateStore>, Arc<ServerConfig>)>,
    h2c: bool,
}

/// Runs the process to its end. `true`: it ended in order.
pub(crate) fn run(plan: Plan, manner: Manner) -> Result<bool, StartError> {
    let mut taken = take_over(&plan, manner)?;
    let prepared = prepare(&plan, &mut taken)?;
    let admin = plan.admin.as_ref().map(|at| admin_socket(at, &mut taken)).transpose()?;
    let demo = demo_socket(&plan)?;
    let offered = offered(&prepared, admin.as_ref())?;

    let life = Arc::new(Life::new(plan.process.drain_timeout));
    let metrics = Arc::new(Metrics::new(env!("CARGO_PKG_VERSION"), SystemTime::now()));
    let access_log = Arc::new(AccessLogger::new(&plan.access_log));

    let mut server = Server::new_with_opt_and_conf(None, server_conf(&plan, manner.daemon));
    let pid_file = manner.daemon.then(|| plan.process.pid_file.clone());
    server.add_service(EdgeService {
        parts: Some(Parts {
            plan,
            prepared,
            admin,
            demo,
            offered,
            taken,
            metrics: Arc::clone(&metrics),
            access_log: Arc::clone(&access_log),
        }),
        life: Arc::clone(&life),
    });
    let signals = Signals { life: Arc::clone(&life), access_log: Arc::clone(&access_log) };
    server.run(RunArgs { shutdown_signal: Box::new(signals) });

    if access_log.shutdown(FLUSH) == Flushed::NotInTime {
        warn!(target: "edgeproxy::app", "the last lines of the access log could not be written");
    }
    if let Some(path) = pid_file {
        remove_pid_file(&path);
    }
    Ok(!life.has_failed())
}

fn server_conf(plan: &Plan, daemon: bool) -> ServerConf {
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let process = &plan.process;
    ServerConf {
        daemon,
        threads: process.threads,
        work_stealing: true,
        error_log: Some(text(&process.log_file)),
        pid_file: text(&process.pid_file),
        user: process.user.clone(),
        group: process.group.clone(),
        working_directory: process.working_directory.clone(),
        upgrade_sock: text(&process.upgrade_socket),
        grace_period_seconds: Some(0),
        graceful_shutdown_timeout_seconds: Some(0),
        upstream_keepalive_pool_size: 512,
        ..ServerConf::default()
    }
}

fn take_over(plan: &Plan, manner: Manner) -> Result<Option<Taken>, StartError> {
    if !manner.upgrade {
        return Ok(None);
    }
    let path = &plan.process.upgrade_socket;
    handover::take(path).map(Some).map_err(|e| StartError::Upgrade(path.display().to_string(), e))
}

/// The socket of this name, if it was handed over and still is where it should be.
fn inherited(taken: &mut Option<Taken>, name: &str) -> Option<OwnedFd> {
    let sockets = &mut taken.as_mut()?.sockets;
    let at = sockets.iter().position(|(known, _)| known == name)?;
    Some(sockets.swap_remove(at).1)
}

fn prepare(plan: &Plan, taken: &mut Option<Taken>) -> Result<Vec<Prepared>, StartError> {
    let mut prepared = Vec::with_capacity(plan.listeners.len());
    for (index, listener) in plan.listeners.iter().enumerate() {
        let tls = match &listener.tls {
            None => None,
            Some(settings) => {
                let state = &plan.process.state_dir;
                let material = |e: crate::tls::error::Error| {
                    StartError::Material(format!("listener \"{}\": {e}", listener.name))
                };
                let store = CertificateStore::load(settings, state, SystemTime::now());
                let store = Arc::new(store.map_err(material)?);
                let config = server_config(settings, Arc::clone(&store)).map_err(material)?;
                Some((store, config))
            }
        };
        let failed =
            |e| StartError::Bind(listener.name.to_string(), listener.address.to_string(), e);
        // Handed over by address: a listener may be renamed, but not moved.
        let socket = match inherited(taken, &listener.address.to_string()) {
            Some(fd) => {
                let socket = std::net::TcpListener::from(fd);
                socket.set_nonblocking(true).map_err(failed)?;
                socket
            }
            None => bind(listener.address).map_err(failed)?,
        };
        prepared.push(Prepared {
            index,
            name: Arc::clone(&listener.name),
            socket,
            tls,
            h2c: listener.h2c,
        });
    }
    Ok(prepared)
}

fn admin_socket(at: &AdminAddress, taken: &mut Option<Taken>) -> Result<Bound, StartError> {
    match at {
        AdminAddress::Tcp(address) => {
            let failed = |e| StartError::Bind("admin".to_owned(), address.to_string(), e);
            let socket = match inherited(taken, ADMIN).map(std::net::TcpListener::from) {
                Some(socket) if socket.local_addr().is_ok_and(|local| local == *address) => socket,
                _ => bind(*address).map_err(failed)?,
            };
            socket.set_nonblocking(true).map_err(failed)?;
            Ok(Bound::Tcp(socket))
        }
        AdminAddress::Unix(path) => {
            let failed = |e| StartError::Bind("admin".to_owned(), path.display().to_string(), e);
            let bound = private_socket(path).map_err(failed)?;
            bound.set_nonblocking(true).map_err(failed)?;
            Ok(Bound::Unix(bound))
        }
    }
}

/// A Unix socket that only this user can open. One that nobody listens on any more is replaced.
fn private_socket(path: &Path) -> io::Result<UnixListener> {
    if let Some(folder) = path.parent().filter(|folder| !folder.exists()) {
        std::fs::create_dir_all(folder)?;
        std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o700))?;
    }
    let bound = match UnixListener::bind(path) {
        Err(e) if e.kind() == io::ErrorKind::AddrInUse => {
            if std::os::unix::net::UnixStream::connect(path).is_ok() {
                // A running process: it is replaced by name only in an upgrade, where the old one
                // is about to go; its open connections stay with it.
                warn!(target: "edgeproxy::app", "{} is taken over", path.display());
            }
            std::fs::remove_file(path)?;
            UnixListener::bind(path)?
        }
        bound => bound?,
    };
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(bound)
}

fn demo_socket(plan: &Plan) -> Result<Option<std::net::TcpListener>, StartError> {
    let wanted = plan.upstreams.iter().flat_map(|u| &u.addresses).any(|a| a.at == Place::Demo);
    if !wanted {
        return Ok(None);
    }
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    bind(address).map(Some).map_err(|e| StartError::Bind("demo".to_owned(), address.to_string(), e))
}

/// Copies of the listening sockets, for the process that will take over.
fn offered(prepared: &[Prepared], admin: Option<&Bound>) -> Result<Vec<Named>, StartError> {
    let copy = |name: String, fd: io::Result<OwnedFd>| {
        fd.map(|fd| (name, fd)).map_err(|e| {
            StartError::Material(format!("the process may not open enough files: {e}"))
        })
    };
    let mut offered = Vec::new();
    for listener in prepared {
        let address = listener.socket.local_addr().map(|a| a.to_string()).unwrap_or_default();
        offered.push(copy(address, listener.socket.try_clone().map(OwnedFd::from))?);
    }
    if let Some(Bound::Tcp(socket)) = admin {
        offered.push(copy(ADMIN.to_owned(), socket.try_clone().map(OwnedFd::from))?);
    }
    Ok(offered)
}

/// What the service is made of; taken when it starts.
struct Parts {
    plan: Plan,
    prepared: Vec<Prepared>,
    admin: Option<Bound>,
    demo: Option<std::net::TcpListener>,
    offered: Vec<Named>,
    taken: Option<Taken>,
    metrics: Arc<Metrics>,
    access_log: Arc<AccessLogger>,
}

/// Everything that runs, as one Pingora service on one runtime.
struct EdgeService {
    parts: Option<Parts>,
    life: Arc<Life>,
}

#[async_trait]
impl Service for EdgeService {
    async fn start_service(
        &mut self,
        _fds: Option<ListenFds>,
        _shutdown: ShutdownWatch,
        _listeners_per_fd: usize,
    ) {
        let Some(parts) = self.parts.take() else { return };
        if let Err(e) = start(parts, &self.life).await {
            error!(target: "edgeproxy::app", "cannot start: {e}");
            self.life.fail();
            return;
        }
        // The tasks live on this runtime until the process ends.
        std::future::pending::<()>().await;
    }

    fn name(&self) -> &str {
        "edge"
    }

    fn listen_addresses(&self) -> Option<Vec<String>> {
        Some(Vec::new())
    }
}

async fn start(parts: Parts, life: &Arc<Life>) -> io::Result<()> {
    let Parts { plan, prepared, admin, demo, offered, taken, metrics, access_log } = parts;
    access_log.start()?;

    let limits = Arc::new(plan.limits.clone());
    let demo_address = demo.as_ref().map(std::net::TcpListener::local_addr).transpose()?;
    let mut upstreams = Vec::with_capacity(plan.upstreams.len());
    for settings in &plan.upstreams {
        let upstream = Upstream::build(settings.clone(), Default::default())
            .map_err(|e| io::Error::other(format!("upstream \"{}\": {e}", settings.name)))?;
        if let Some(address) = demo_address {
            upstream.set_demo(address);
        }
        upstreams.push(upstream);
    }
    let dials = Arc::new(Dials::default());
    dials.set(upstreams.iter().filter_map(|upstream| upstream.dial()));
    for upstream in &upstreams {
        crate::upstream::resolve::start(upstream).await;
    }

    let memory = crate::storage::intern::memory(&plan.storage);
    metrics.watch_cache("memory", memory_usage(memory));
    let dropped = access_log.dropped_counter();
    metrics.watch_access_log(move || dropped.load(Ordering::Relaxed));
    metrics.reloaded(Reload::InUse, SystemTime::now());
    let listeners: Vec<&str> = plan.listeners.iter().map(|l| &*l.name).collect();
    let routes: Vec<&str> = plan.routes.routes().iter().map(|r| &*r.name).collect();
    let runtime = Arc::new(Runtime {
        upstreams,
        metrics: Arc::clone(&metrics),
        routes: metrics.routes(&listeners, &routes),
        listener_metrics: listeners.iter().map(|name| metrics.listener(name)).collect(),
        upstream_metrics: plan.upstreams.iter().map(|u| metrics.upstream(&u.name)).collect(),
        memory,
        certificates: prepared
            .iter()
            .map(|p| p.tls.as_ref().map(|(store, _)| Arc::clone(store)))
            .collect(),
        access_log: Arc::clone(&access_log),
        draining: Arc::clone(&life.draining),
        plan,
    });
    let runtime = Arc::new(ArcSwap::new(runtime));

    let conf = Arc::new(server_conf(&runtime.load().plan, false));
    let proxy =
        lift(&conf, EdgeProxy::new(Arc::clone(&runtime)), EdgeConnector::new(dials)).await?;
    let watch: Arc<dyn Watch> = Arc::new(Reporter::new(Arc::clone(&runtime)));

    if let Some(socket) = demo {
        open_demo(socket, &limits, life);
    }
    let house = Arc::new(House {
        app: EdgeApp::new(proxy, Arc::clone(&limits), Arc::clone(&watch)),
        limits: Arc::clone(&limits),
        census: Arc::clone(&life.census),
        watch,
    });
    for listener in prepared {
        let scheme = if listener.tls.is_some() { "https" } else { "http" };
        info!(
            target: "edgeproxy::app",
            "listening on {scheme}://{} ({})",
            listener.socket.local_addr()?,
            listener.name
        );
        let door = Door {
            index: listener.index,
            name: listener.name,
            socket: Bound::Tcp(listener.socket),
            tls: listener.tls.map(|(_, config)| Arc::new(ArcSwap::new(config))),
            h2c: listener.h2c,
        };
        open(Arc::clone(&house), door, life);
    }
    if let Some(socket) = admin {
        open_admin(socket, &runtime, &limits, life);
    }
    tokio::spawn(sweep(memory));
    offer(&runtime.load().plan.process.upgrade_socket, offered, life);
    if let Some(taken) = taken {
        taken.serves()?;
    }
    info!(target: "edgeproxy::app", "ready");
    Ok(())
}

fn open<A>(house: Arc<House<A>>, door: Door, life: &Arc<Life>)
where
    A: pingora::apps::HttpServerApp + Send + Sync + 'static,
{
    let life = Arc::clone(life);
    tokio::spawn(async move {
        let name = Arc::clone(&door.name);
        if let Err(e) = house.open(door, life.shutdown()).await {
            error!(target: "edgeproxy::app", "listener \"{name}\" failed: {e}");
            life.fail();
        }
    });
}

/// A listener that is nobody's business but this process's: its connections count for nothing.
fn private_house<A>(app: A, limits: &Arc<Limits>) -> Arc<House<A>>
where
    A: pingora::apps::HttpServerApp + Send + Sync + 'static,
{
    let watch: Arc<dyn Watch> = Arc::new(crate::proxy::watch::Unwatched);
    Arc::new(House {
        app: EdgeApp::new(Arc::new(app), Arc::clone(limits), Arc::clone(&watch)),
        limits: Arc::clone(limits),
        census: Arc::new(Census::default()),
        watch,
    })
}

fn open_demo(socket: std::net::TcpListener, limits: &Arc<Limits>, life: &Arc<Life>) {
    // The proxy itself is the only client; no limit on how many connections it makes.
    let limits = Arc::new(Limits {
        connections: u64::MAX,
        connections_per_client: u64::MAX,
        ..Limits::clone(limits)
    });
    let house = private_house(DemoOrigin::default(), &limits);
    let name = Arc::from("demo");
    let door = Door { index: 0, name, socket: Bound::Tcp(socket), tls: None, h2c: false };
    // It serves until the process ends: requests that are drained may still need it.
    tokio::spawn(async move {
        let (_never, forever) = tokio::sync::watch::channel(false);
        let _ = house.open(door, forever).await;
    });
    let _ = life;
}

fn open_admin(
    socket: Bound,
    runtime: &Arc<ArcSwap<Runtime>>,
    limits: &Arc<Limits>,
    life: &Arc<Life>,
) {
    let house = private_house(Admin::new(Arc::clone(runtime), Arc::clone(&life.census)), limits);
    let door = Door { index: 0, name: Arc::from("admin"), socket, tls: None, h2c: false };
    // It answers while the process drains: that is when it is asked.
    tokio::spawn(async move {
        let (_never, forever) = tokio::sync::watch::channel(false);
        if let Err(e) = house.open(door, forever).await {
            error!(target: "edgeproxy::app", "the admin listener failed: {e}");
        }
    });
}

/// Offers the listening sockets to a process that is started with `-u`.
fn offer(path: &Path, sockets: Vec<Named>, life: &Arc<Life>) {
    let place = match handover::offer(path) {
        Ok(place) => place,
        Err(e) => {
            warn!(
                target: "edgeproxy::app",
                "upgrades with -u are not possible: cannot listen on {}: {e}",
                path.display()
            );
            return;
        }
    };
    let life = Arc::clone(life);
    let sockets = Arc::new(Mutex::new(sockets));
    let thread = std::thread::Builder::new().name("handover".to_owned());
    let spawned = thread.spawn(move || {
        for stream in place.incoming() {
            let Ok(stream) = stream else { continue };
            match handover::give(stream, &sockets.lock()) {
                Ok(true) => {
                    life.replaced.notify_one();
                    return;
                }
                Ok(false) => warn!(
                    target: "edgeproxy::app",
                    "the process that was to take over did not start; going on"
                ),
                Err(e) => warn!(target: "edgeproxy::app", "handing over failed: {e}; going on"),
            }
        }
    });
    if let Err(e) = spawned {
        warn!(target: "edgeproxy::app", "upgrades with -u are not possible: {e}");
    }
}

async fn sweep(memory: &'static Memory) {
    let mut every = tokio::time::interval(SWEEP_EVERY);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    loop {
        every.tick().await;
        memory.sweep(SystemTime::now(), SWEEP_STEPS);
        if let Some(resident) = process::resident() {
            let limit = memory.options().limit;
            let allowed = limit.saturating_add(limit / 20 * 3).saturating_add(BESIDES_MEMORY);
            memory.relieve(resident, allowed);
        }
    }
}

fn memory_usage(memory: &'static Memory) -> impl Fn() -> CacheUsage + Send + Sync + 'static {
    move || {
        let stats = memory.stats();
        CacheUsage {
            bytes: stats.bytes,
            limit: stats.limit,
            objects: stats.objects,
            evictions: stats.evictions,
        }
    }
}

/// Removes the pid file, unless another process has written its own by now.
fn remove_pid_file(path: &Path) {
    let ours = std::fs::read_to_string(path)
        .is_ok_and(|text| text.trim() == std::process::id().to_string());
    if ours {
        let _ = std::fs::remove_file(path);
    }
}
