//! From a plan to a running process.

use std::any::Any;
use std::fs::File;
use std::io;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use futures_util::FutureExt;
use log::error;
use log::info;
use log::warn;
use nix::sys::resource::Resource;
use nix::sys::resource::getrlimit;
use nix::sys::resource::setrlimit;
use parking_lot::Mutex;
use pingora::server::ListenFds;
use pingora::server::RunArgs;
use pingora::server::Server;
use pingora::server::ShutdownWatch;
use pingora::server::configuration::ServerConf;
use pingora::services::Service;

use crate::admin::Admin;
use crate::app::bequest;
use crate::app::bequest::Beside;
use crate::app::bind;
use crate::app::bind::Origin;
use crate::app::bind::SocketFile;
use crate::app::bind::Sockets;
use crate::app::bind::StartError;
use crate::app::daemon::PidFile;
use crate::app::daemon::Starter;
use crate::app::diagnostics;
use crate::app::doors::Doors;
use crate::app::handover::Named;
use crate::app::handover::Taken;
use crate::app::identity;
use crate::app::identity::Identity;
use crate::app::keys;
use crate::app::life::Life;
use crate::app::life::Signals;
use crate::app::notify;
use crate::app::notify::News;
use crate::app::offer;
use crate::app::order::Orders;
use crate::app::reload;
use crate::app::reload::Reloader;
use crate::app::reload::Shared;
use crate::app::stamps::Stamps;
use crate::app::succession::Invocation;
use crate::app::succession::Succession;
use crate::app::sweep;
use crate::cache::purge::DEFAULT_ZONE;
use crate::config;
use crate::config::plan::AdminAddress;
use crate::config::plan::Plan;
use crate::demo::DemoOrigin;
use crate::listen::Limits;
use crate::listen::accept::Bound;
use crate::listen::accept::Door;
use crate::listen::accept::House;
use crate::listen::accept::Pending;
use crate::listen::accept::Way;
use crate::listen::census::Census;
use crate::listen::serve::EdgeApp;
use crate::listen::watch::Watch;
use crate::observe::Sink;
use crate::observe::access_log::AccessLogger;
use crate::observe::access_log::writer::Flushed;
use crate::observe::metrics::CacheUsage;
use crate::observe::metrics::Metrics;
use crate::observe::metrics::Reload;
use crate::observe::metrics::process;
use crate::proxy::EdgeProxy;
use crate::proxy::short::ShortWay;
use crate::proxy::watch::Reporter;
use crate::runtime::Runtime;
use crate::runtime::build::Lasting;
use crate::runtime::build::Next;
use crate::runtime::build::Row;
use crate::runtime::fellow::Fellows;
use crate::runtime::state::Keeper;
use crate::storage::memory::Memory;
use crate::storage::memory::ZoneStats;
use crate::upstream::connect::EdgeConnector;
use crate::upstream::lift::lift;

/// Connections to the admin listener at once.
const ADMIN_CONNECTIONS: u64 = 1024;
/// How long the access log may take to write its last lines.
const FLUSH: Duration = Duration::from_secs(2);
/// Descriptors that are not clients' connections: files, origins, the machinery.
const OTHER_FILES: u64 = 256;
/// The configuration that the process is started with.
pub(crate) struct Written {
    /// As meant.
    pub(crate) plan: Plan,
    /// Where it stands; `None` came from the command line.
    pub(crate) file: Option<config::File>,
    /// Its files, as they were.
    pub(crate) seen: Mutex<Stamps>,
}

/// How the process is run.
#[derive(Debug, Clone)]
pub(crate) struct Manner {
    /// Who waits for it to serve: always somebody in the background.
    pub(crate) starter: Option<Starter>,
    /// Where it runs.
    pub(crate) ground: Ground,
    /// Whether it takes over from a running process.
    pub(crate) origin: Origin,
    /// How it was started, for the one that follows.
    pub(crate) invocation: Invocation,
}

/// Where a process runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ground {
    /// In the foreground.
    Fore,
    /// As a daemon.
    Back,
}

/// Runs the process to its end, which was asked for.
///
/// # Errors
/// Why it did not come to serve, or why it ended unasked.
pub(crate) fn run(written: Written, manner: Manner) -> Result<(), StartError> {
    let Written { plan, file, seen } = written;
    let daemon = manner.ground == Ground::Back;
    let identity = match &manner.starter {
        Some(starter) if daemon => detach(&plan, starter)?,
        Some(_) | None => None,
    };
    raise_file_limit(&plan);
    let mut sockets = bind::prepare(&plan, manner.origin, identity.as_ref())?;
    let files = std::mem::take(&mut sockets.files);
    let offered = match settle(&plan, &sockets, identity) {
        Ok(offered) => offered,
        Err(e) => {
            // Those of a process that goes on serving are its own.
            if sockets.taken.is_none() {
                files.iter().for_each(SocketFile::remove);
            }
            return Err(e);
        }
    };
    let life = Arc::new(Life::new(plan.process.drain_timeout, offered));
    let fellows = Arc::new(Fellows::default());
    let metrics = Arc::new(Metrics::new(env!("CARGO_PKG_VERSION"), SystemTime::now()));
    let access_log = Arc::new(ArcSwap::from_pointee(AccessLogger::new(&plan.access_log)));

    // Pingora forks to become a daemon and tells nobody how that went; this process is one already.
    let mut server = Server::new_with_opt_and_conf(None, server_conf(&plan));
    let pid_file = daemon.then(|| plan.process.pid_file.clone());
    let signals = Signals {
        life: Arc::clone(&life),
        access_log: Arc::clone(&access_log),
        log_file: daemon.then(|| plan.process.log_file.clone()),
    };
    server.add_service(EdgeService {
        parts: Some(Parts {
            plan,
            sockets,
            metrics,
            access_log: Arc::clone(&access_log),
            starter: manner.starter,
            succession: Succession {
                invocation: manner.invocation,
                pid_file: pid_file.clone(),
                life: Arc::clone(&life),
            },
            file,
            seen,
            fellows: Arc::clone(&fellows),
        }),
        life: Arc::clone(&life),
    });
    server.run(RunArgs { shutdown_signal: Box::new(signals) });
    life.last_answer();
    fellows.farewell();

    if access_log.load().shutdown(FLUSH) == Flushed::NotInTime {
        warn!(target: "edgeproxy::app", "the last lines of the access log could not be written");
    }
    if !life.was_replaced() {
        files.iter().for_each(SocketFile::remove);
    }
    if let Some(path) = pid_file {
        PidFile::remove(&path);
    }
    life.failure().map_or(Ok(()), |why| Err(StartError::Start(why)))
}

/// What remains to be done when the sockets are there: copies of them for the process that will take over, the
/// access log, and another user.
fn settle(
    plan: &Plan,
    sockets: &Sockets,
    identity: Option<Identity>,
) -> Result<Vec<Named>, StartError> {
    let offered = bind::offered(sockets)?;
    if let Some(Sink::File(path)) = &plan.access_log.to {
        open_log(identity.as_ref(), path).map_err(|e| unusable(path, &e))?;
    }
    if let Some(identity) = identity {
        identity.assume().map_err(|e| {
            StartError::Material(format!("cannot become the user of process.user: {e}"))
        })?;
    }
    Ok(offered)
}

/// What a daemon does before it opens anything: whose it will be, where it writes, where it is.
fn detach(plan: &Plan, starter: &Starter) -> Result<Option<Identity>, StartError> {
    let process = &plan.process;
    let identity = Identity::of(process).map_err(StartError::Material)?;
    if let Some(identity) = &identity {
        let state = &process.state_dir;
        identity.adopt(state, &files(plan)).map_err(|e| unusable(state, &e))?;
    }
    let path = &process.log_file;
    let log = open_log(identity.as_ref(), path);
    log.and_then(|log| starter.redirect(log)).map_err(|e| unusable(path, &e))?;
    let root = PathBuf::from("/");
    let folder = process.working_directory.as_ref().unwrap_or(&root);
    std::env::set_current_dir(folder).map_err(|e| unusable(folder, &e))?;
    Ok(identity)
}

/// The files that the configuration names for the process to write, wherever they are.
fn files(plan: &Plan) -> Vec<&Path> {
    let process = &plan.process;
    let access_log = match &plan.access_log.to {
        Some(Sink::File(path)) => Some(path),
        Some(Sink::Stdout) | None => None,
    };
    let socket = match &plan.admin {
        Some(AdminAddress::Unix(path)) => Some(path),
        Some(AdminAddress::Tcp(_)) | None => None,
    };
    let always = [&process.pid_file, &process.log_file, &process.upgrade_socket];
    let others = [access_log, socket, plan.state_file.as_ref()];
    always.into_iter().chain(others.into_iter().flatten()).map(PathBuf::as_path).collect()
}

fn open_log(identity: Option<&Identity>, path: &Path) -> io::Result<File> {
    identity.map_or_else(|| identity::open_log(path), |identity| identity.open_log(path))
}

fn unusable(path: &Path, e: &io::Error) -> StartError {
    StartError::Material(format!("{} cannot be used: {e}", path.display()))
}

/// A proxy needs a descriptor for each side of each connection; the usual soft limit is there for
/// programs that use `select`.
fn raise_file_limit(plan: &Plan) {
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        if soft < hard {
            setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
        }
        Ok(hard)
    });
    match raised {
        Ok(most) => {
            info!(target: "edgeproxy::app", "at most {most} files and connections may be open");
            warn_of_files(&plan.limits);
        }
        Err(e) => warn!(target: "edgeproxy::app", "the limit of open files stays as it is: {e}"),
    }
}

/// Says so when the system allows fewer files than these limits may need.
pub(super) fn warn_of_files(limits: &Limits) {
    let Ok((most, _)) = getrlimit(Resource::RLIMIT_NOFILE) else { return };
    let needed = limits.connections.saturating_mul(2).saturating_add(OTHER_FILES);
    if most < needed {
        warn!(
            target: "edgeproxy::app",
            "limits.connections is {}, for which {needed} files may have to be open; the system \
             allows {most} (ulimit -Hn, or LimitNOFILE= in systemd)",
            limits.connections
        );
    }
}

fn server_conf(plan: &Plan) -> ServerConf {
    ServerConf {
        threads: plan.process.threads,
        // One worker has nobody to take work from, and its scheduler then need not be safe from others.
        work_stealing: plan.process.threads > 1,
        grace_period_seconds: Some(0),
        graceful_shutdown_timeout_seconds: Some(0),
        upstream_keepalive_pool_size: 512,
        ..ServerConf::default()
    }
}

/// What the service is made of; taken when it starts.
struct Parts {
    plan: Plan,
    sockets: Sockets,
    metrics: Arc<Metrics>,
    access_log: Arc<ArcSwap<AccessLogger>>,
    starter: Option<Starter>,
    succession: Succession,
    file: Option<config::File>,
    seen: Mutex<Stamps>,
    fellows: Arc<Fellows>,
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
        if !succeeds(start(parts, &self.life), &self.life).await {
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

/// Whether this start comes to serve; if it does not, the process ends and says why.
async fn succeeds(start: impl Future<Output = io::Result<()>>, life: &Life) -> bool {
    // Pingora would go on waiting for a service that panicked.
    let ended = AssertUnwindSafe(start).catch_unwind().await;
    let Err(why) = outcome(ended) else { return true };
    error!(target: "edgeproxy::app", "cannot start: {why}");
    life.fail(why);
    false
}

/// What kept it from starting, a defect of ours included.
fn outcome(ended: Result<io::Result<()>, Box<dyn Any + Send>>) -> Result<(), String> {
    match ended {
        Ok(started) => started.map_err(|e| e.to_string()),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            Err(format!("a panic while starting: {}", text.unwrap_or("it says nothing")))
        }
    }
}

async fn start(parts: Parts, life: &Arc<Life>) -> io::Result<()> {
    let Parts { plan, sockets, metrics, access_log, starter, succession, file, seen, fellows } =
        parts;
    let Sockets { listeners: prepared, admin, demo, upgrade, files: _, answers, taken } = sockets;
    access_log.load().start()?;

    let limits = Arc::new(plan.limits.clone());
    let demo_address = demo.as_ref().map(std::net::TcpListener::local_addr).transpose()?;
    let lasting = Lasting {
        dials: Arc::default(),
        keeper: Arc::new(Keeper::new(plan.state_file.clone())),
        metrics: Arc::clone(&metrics),
        memory: crate::storage::intern::memory(&plan.storage),
        flights: Arc::default(),
        fellows: Arc::clone(&fellows),
        uses: Arc::default(),
        ranges: Arc::default(),
        variances: Arc::default(),
        draining: Arc::clone(&life.draining),
    };
    let (memory, dials) = (lasting.memory, Arc::clone(&lasting.dials));
    let meant = lasting.keeper.begin(&plan.upstreams);
    let next = Next::first(&plan, meant).map_err(io::Error::other)?;
    next.start(&dials, demo_address).await;

    let rows = plan.listeners.iter().zip(&prepared).map(|(listener, prepared)| Row {
        name: Arc::clone(&listener.name),
        certificates: prepared.tls.clone(),
        insists: listener.insists.clone(),
    });
    let rows: Vec<Row> = rows.collect();
    let runtime = Runtime::new(plan, None, &next, &rows, access_log.load_full(), &lasting);
    drop(next);
    let runtime = Arc::new(ArcSwap::from_pointee(runtime));
    sample(&metrics, &lasting, &access_log, &runtime);
    metrics.reloaded(Reload::InUse, SystemTime::now());

    let conf = Arc::new(server_conf(&runtime.load().plan));
    let proxy =
        lift(&conf, EdgeProxy::new(Arc::clone(&runtime)), EdgeConnector::new(dials)).await?;
    let watch: Arc<dyn Watch> = Arc::new(Reporter::new(Arc::clone(&runtime)));

    let orders = Orders::new(Arc::clone(&answers), Arc::clone(life));
    let watched = Arc::clone(&orders);
    metrics.watch_orders(move || watched.samples());
    if let Some(socket) = demo {
        open_demo(socket, &limits);
    }
    let house = Arc::new(ArcSwap::from_pointee(House {
        app: EdgeApp::new(proxy, Arc::clone(&limits), Arc::clone(&watch)).with_shortcut(Arc::new(
            ShortWay::new(Arc::clone(&runtime)).with_answers(Arc::clone(&answers)),
        )),
        limits: Arc::clone(&limits),
        census: Arc::clone(&life.census),
        watch,
    }));
    let own = process::resident_of_its_own().unwrap_or_default();
    let beside = Beside { runtime: Arc::clone(&runtime), memory, fellows, life: Arc::clone(life) };
    if taken.is_some() {
        // Before the first request: what comes now is older than what that would store.
        let (path, wanted) = {
            let plan = &runtime.load().plan;
            (plan.process.upgrade_socket.clone(), plan.storage.handover)
        };
        keys::inherit(&path, &runtime.load_full()).await;
        bequest::inherit(&path, wanted, beside.clone()).await;
    }
    let doors = Doors::first(prepared, &runtime.load().plan, answers, &house, life);
    let reloader = Arc::new(Reloader {
        file,
        seen,
        lasting,
        runtime: Arc::clone(&runtime),
        access_log,
        house,
        admin: OnceLock::new(),
        orders: Arc::clone(&orders),
        doors: Mutex::new(doors),
        demo: Mutex::new(demo_address),
        life: Arc::clone(life),
    });
    if let Some(socket) = admin {
        open_admin(socket, &reloader, &limits, life);
    }
    orders.follow(&runtime.load().plan);
    if let Err(e) = diagnostics::queue::begin() {
        warn!(target: "edgeproxy::app", "diagnostics go out without a thread of their own: {e}");
    }
    tokio::spawn(sweep::keep(memory, own, Arc::clone(&life.census)));
    tokio::spawn(reload::keep(Arc::clone(&reloader)));
    tokio::spawn(reload::watch(Arc::clone(&reloader)));
    tokio::spawn(reload::watch_certificates(reloader));
    if let Some(place) = upgrade {
        offer::offer(place, succession, beside)?;
    }
    // Whoever is told that we serve may send a signal at once.
    life.attentive.notified().await;
    if starter.is_some() || taken.is_some() {
        tokio::task::spawn_blocking(move || tell(starter, taken))
            .await
            .map_err(io::Error::other)??;
    }
    notify::tell(&News::Ready);
    tokio::spawn(notify::keep_alive());
    info!(target: "edgeproxy::app", "ready");
    Ok(())
}

/// Has the metrics ask for numbers that others keep, always those of the generation in use.
fn sample(
    metrics: &Metrics,
    lasting: &Lasting,
    access_log: &ArcSwap<AccessLogger>,
    runtime: &Arc<ArcSwap<Runtime>>,
) {
    metrics.watch_cache("memory", memory_usage(lasting.memory));
    let fetches = Arc::clone(&lasting.flights);
    metrics.watch_fetches(move || fetches.under_way() as u64);
    let dropped = access_log.load().dropped_counter();
    metrics.watch_access_log(move || dropped.load(Ordering::Relaxed));
    let watched = Arc::clone(runtime);
    metrics.watch_backends(move || crate::runtime::upstreams::samples(&watched.load().upstreams));
    let watched = Arc::clone(runtime);
    metrics.watch_upstreams(move || crate::runtime::upstreams::wholes(&watched.load().upstreams));
    let watched = Arc::clone(runtime);
    metrics.watch_ends(move || crate::runtime::ends::samples(&watched.load()));
    let tasks = tokio::runtime::Handle::current().metrics();
    metrics.watch_tasks(move || tasks.num_alive_tasks() as u64);
}

/// Tells who waits for it that this process serves. Blocks.
fn tell(starter: Option<Starter>, taken: Option<Taken>) -> io::Result<()> {
    // The pid file names this process before the one in it is told to go and tidies up.
    starter.map_or(Ok(()), |starter| starter.serves())?;
    taken.map_or(Ok(()), Taken::serves)
}

/// A listener that is nobody's business but this process's: its connections count for nothing.
fn private_house<A>(app: A, limits: &Arc<Limits>) -> Arc<ArcSwap<House<A>>>
where
    A: pingora::apps::HttpServerApp + Send + Sync + 'static,
{
    let watch: Arc<dyn Watch> = Arc::new(crate::proxy::watch::Unwatched);
    Arc::new(ArcSwap::from_pointee(House {
        app: EdgeApp::new(Arc::new(app), Arc::clone(limits), Arc::clone(&watch)),
        limits: Arc::clone(limits),
        census: Arc::new(Census::default()),
        watch,
    }))
}

/// What lies behind such a listener.
fn private_way(name: &str) -> Arc<ArcSwap<Way>> {
    Arc::new(ArcSwap::from_pointee(Way {
        index: 0,
        name: name.into(),
        proxied: None,
        tls: None,
        h2c: false,
    }))
}

/// Serves the demo origin.
pub(super) fn open_demo(socket: std::net::TcpListener, limits: &Arc<Limits>) {
    // The proxy itself is the only client; no limit on how much it asks at once.
    let limits = Arc::new(Limits {
        connections: u64::MAX,
        connections_per_client: u64::MAX,
        h2_streams_in_all: u64::MAX,
        h2_streams_per_client: u64::MAX,
        ..Limits::clone(limits)
    });
    let house = private_house(DemoOrigin::default(), &limits);
    let socket = Bound::Tcp(socket);
    let door = Door { socket, way: private_way("demo"), pending: Pending::Serve };
    // It serves until the process ends: requests that are drained may still need it.
    tokio::spawn(async move {
        let (_never, forever) = tokio::sync::watch::channel(false);
        let _ = House::open(house, door, forever).await;
    });
}

/// What guards the admin listener: what guards clients, but for how many connections there may be. On a Unix socket
/// all are one client's, and who looks after a process is not to be shut out by the limits of those it serves.
pub(super) fn admin_limits(limits: &Limits) -> Arc<Limits> {
    Arc::new(Limits {
        connections: ADMIN_CONNECTIONS,
        connections_per_client: ADMIN_CONNECTIONS,
        ..limits.clone()
    })
}

fn open_admin(socket: Bound, reloader: &Arc<Reloader>, limits: &Arc<Limits>, life: &Arc<Life>) {
    let shared = Arc::new(Shared(Arc::clone(reloader)));
    let orders = Arc::clone(&reloader.orders);
    let admin = Admin::new(Arc::clone(&reloader.runtime), Arc::clone(&life.census), shared)
        .with_certificates(move || orders.standings());
    let house = private_house(admin, &admin_limits(limits));
    // Nobody else sets it.
    let _ = reloader.admin.set(Arc::clone(&house));
    // The process that took over has the same socket: who asks means that one.
    let door = Door { socket, way: private_way("admin"), pending: Pending::Leave };
    let shutdown = life.shutdown_admin();
    tokio::spawn(async move {
        if let Err(e) = House::open(house, door, shutdown).await {
            error!(target: "edgeproxy::app", "the admin listener failed: {e}");
        }
    });
}

fn memory_usage(memory: &'static Memory) -> impl Fn() -> Vec<CacheUsage> + Send + Sync + 'static {
    let usage = |zone: ZoneStats| CacheUsage {
        zone: match &*zone.name {
            "" => DEFAULT_ZONE.to_owned(),
            name => name.to_owned(),
        },
        bytes: zone.bytes,
        limit: zone.limit,
        objects: zone.objects,
        evictions: zone.evictions,
    };
    move || memory.zones().into_iter().map(usage).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn broken() -> io::Result<()> {
        panic!("seven is no {}", "name")
    }

    #[tokio::test]
    async fn a_panic_while_starting_ends_the_process_and_says_why() {
        let life = Life::new(Duration::ZERO, Vec::new());
        assert!(succeeds(async { Ok(()) }, &life).await);
        assert_eq!(life.failure(), None);
        assert!(!succeeds(broken(), &life).await);
        assert_eq!(life.failure().as_deref(), Some("a panic while starting: seven is no name"));
        assert!(!succeeds(async { Err(io::Error::other("no")) }, &life).await);
        assert_eq!(life.failure().as_deref(), Some("no"));
    }
}
