//! The steps of a reload: read, check, compare, build, swap.
//!
//! Whatever can fail is done first and touches nothing that is in use; only then everything is exchanged.
//! Requests under way keep what they began with, each connection takes the new configuration with its
//! next request.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::OnceLock;
use std::time::Duration;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use futures_util::future::BoxFuture;
use log::error;
use log::info;
use log::warn;
use parking_lot::Mutex;
use pingora::proxy::HttpProxy;
use tokio::runtime::Handle;

use crate::admin::Admin;
use crate::app::bind;
use crate::app::diagnostics;
use crate::app::doors::Doors;
use crate::app::life::Life;
use crate::app::notify;
use crate::app::notify::News;
use crate::app::order::Orders;
use crate::app::server;
use crate::app::stamps::Stamps;
use crate::config;
use crate::config::Loaded;
use crate::config::diagnostic::Style;
use crate::config::diff;
use crate::config::diff::Changes;
use crate::config::diff::Difference;
use crate::config::plan::Plan;
use crate::listen::Limits;
use crate::listen::accept::House;
use crate::observe::access_log::AccessLogger;
use crate::observe::metrics;
use crate::observe::metrics::labels;
use crate::proxy::EdgeProxy;
use crate::runtime::Runtime;
use crate::runtime::build::Lasting;
use crate::runtime::build::Next;
use crate::runtime::build::Row;
use crate::runtime::build::Unusable;
use crate::runtime::reload::Occasion;
use crate::runtime::reload::Refused;
use crate::runtime::reload::Reload;
use crate::runtime::reload::Reloaded;
use crate::upstream::connect::EdgeConnector;

/// How often certificates are read again. A leaf of the internal CA is renewed when a third of its 90 days
/// remains: a day is often enough.
const RENEW: Duration = Duration::from_secs(24 * 3600);
/// How often files are looked at, where they are watched. One that changes is read when it has not changed
/// from one look to the next.
const LOOK: Duration = Duration::from_secs(1);

/// What clients are served in.
pub(super) type Public = House<HttpProxy<EdgeProxy, EdgeConnector>>;
/// What operators are served in.
pub(super) type Private = House<Admin>;

/// Reads the configuration again and puts it to use.
pub(super) struct Reloader {
    /// Where the configuration stands; `None` came from the command line.
    pub(super) file: Option<config::File>,
    /// Its files as they were when they were last read.
    pub(super) seen: Mutex<Stamps>,
    pub(super) lasting: Lasting,
    pub(super) runtime: Arc<ArcSwap<Runtime>>,
    pub(super) access_log: Arc<ArcSwap<AccessLogger>>,
    pub(super) house: Arc<ArcSwap<Public>>,
    pub(super) admin: OnceLock<Arc<ArcSwap<Private>>>,
    pub(super) orders: Arc<Orders>,
    /// Whoever has it reloads; the others wait.
    pub(super) doors: Mutex<Doors>,
    pub(super) demo: Mutex<Option<SocketAddr>>,
    pub(super) life: Arc<Life>,
}

/// A reloader that anybody may hold.
pub(super) struct Shared(pub(super) Arc<Reloader>);

impl Reload for Shared {
    fn reload(&self, by: Occasion) -> BoxFuture<'static, Result<Reloaded, Refused>> {
        let reloader = Arc::clone(&self.0);
        // It blocks: files are read, and only one reloads at a time.
        let work = tokio::task::spawn_blocking(move || reloader.reload(&by));
        Box::pin(async move {
            let no_end = |e| Refused::Unusable(format!("the reload came to no end: {e}"));
            work.await.map_err(no_end)?
        })
    }
}

impl Reloader {
    /// Reloads, and tells the operator how it went.
    fn reload(&self, by: &Occasion) -> Result<Reloaded, Refused> {
        let mut doors = self.doors.lock();
        notify::tell(&News::Reloading);
        let ended = self.attempt(&mut doors);
        notify::tell(&match &ended {
            Ok(_) => News::Ready,
            Err(refused) => News::Refused(refused.to_string()),
        });
        drop(doors);
        let metrics = &self.lasting.metrics;
        let (way, from) = (by.label(), by.from());
        let result = match &ended {
            Ok(Reloaded { changes, warnings }) => {
                if !warnings.is_empty() {
                    warn!(target: "edgeproxy::app", "{}", warnings.render(Style::Plain).trim_end());
                }
                let text = changes.to_string();
                info!(target: "edgeproxy::audit", way, from, changes = text.as_str();
                    "configuration reloaded");
                metrics.reloaded(metrics::Reload::InUse, SystemTime::now());
                self.count(changes);
                match changes.is_empty() {
                    true => labels::Reloaded::Unchanged,
                    false => labels::Reloaded::Reloaded,
                }
            }
            Err(refused) => {
                error!(target: "edgeproxy::app", way, from;
                    "the configuration is not reloaded, the one in use stays");
                error!(target: "edgeproxy::app", "{refused}");
                metrics.reloaded(metrics::Reload::Refused, SystemTime::now());
                labels::Reloaded::Refused
            }
        };
        metrics.reload_ended(result);
        ended
    }

    fn attempt(&self, doors: &mut Doors) -> Result<Reloaded, Refused> {
        if self.life.draining.has_begun() {
            return Err(Refused::Ending);
        }
        let file = self.file.as_ref().ok_or(Refused::NoFile)?;
        // Before they are read: what changes meanwhile is still to be seen.
        let seen = self.seen.lock().again();
        *self.seen.lock() = seen.clone();
        let Loaded { plan, config, warnings, from_variables: _ } =
            file.load().map_err(Refused::Wrong)?;
        *self.seen.lock() = seen.and(&file.all(&config));

        let before = self.runtime.load_full();
        let Difference { changes, beyond } = diff::between(&before.plan, &plan);
        if !beyond.is_empty() {
            return Err(Refused::Beyond(beyond));
        }
        let changes = self.put_to_use(plan, changes, doors, &before).map_err(Refused::Unusable)?;
        Ok(Reloaded { changes, warnings })
    }

    /// Does first what can fail, and then the rest.
    fn put_to_use(
        &self,
        plan: Plan,
        mut changes: Changes,
        doors: &mut Doors,
        before: &Runtime,
    ) -> Result<Changes, String> {
        let (lasting, handle) = (&self.lasting, Handle::current());
        let rows_before = doors.rows();
        let prospect = doors.prepare(&plan)?;
        let access_log = Arc::new(
            self.access_log
                .load()
                .followed_by(&plan.access_log)
                .map_err(|e| format!("the access log cannot be opened: {e}"))?,
        );
        let demo = self.demo(&plan)?;
        // Until the end nobody changes backends: what was changed before is taken over.
        let turn = lasting.keeper.turn();
        let next = Next::after(before, &plan)?;
        handle.block_on(next.start(&lasting.dials, demo));

        // From here on nothing fails.
        for name in next.changed() {
            if !changes.upstreams.changed.iter().any(|known| known == name) {
                changes.upstreams.changed.push(name.to_owned());
            }
        }
        let rows = prospect.rows.clone();
        let runtime = self.begin(plan, before, &next, &rows, &access_log);
        access_log.take_over();
        self.access_log.store(access_log);
        self.bound(&before.plan.limits, &runtime.plan.limits);
        changes.certificates = doors.carry_out(prospect, &self.house, &self.life, &handle);
        self.orders.follow(&runtime.plan);
        *self.life.drain_timeout.lock() = runtime.plan.process.drain_timeout;
        if runtime.plan.log_level != before.plan.log_level {
            diagnostics::tell(runtime.plan.log_level);
        }
        lasting.keeper.forget(next.gone());
        if !(changes.upstreams.is_empty())
            && let Err(why) = lasting.keeper.keep(&turn, &runtime.upstreams)
        {
            error!(target: "edgeproxy::state", "the next start will not know of changes: {why}");
        }
        drop(turn);
        runtime.forget(before, (&rows_before, &rows));
        Ok(changes)
    }

    /// The generation that follows `before` is in use from now on.
    fn begin(
        &self,
        plan: Plan,
        before: &Runtime,
        next: &Next,
        rows: &[Row],
        access_log: &Arc<AccessLogger>,
    ) -> Arc<Runtime> {
        let access_log = Arc::clone(access_log);
        let runtime = Runtime::new(plan, Some(before), next, rows, access_log, &self.lasting);
        let runtime = Arc::new(runtime);
        self.runtime.store(Arc::clone(&runtime));
        next.take_over();
        runtime
    }

    /// Where the demo origin is, if a backend is it.
    fn demo(&self, plan: &Plan) -> Result<Option<SocketAddr>, String> {
        let mut demo = self.demo.lock();
        if demo.is_none()
            && let Some(socket) = bind::demo_socket(plan).map_err(|e| e.to_string())?
        {
            *demo = Some(socket.local_addr().map_err(|e| e.to_string())?);
            server::open_demo(socket, &Arc::new(plan.limits.clone()));
        }
        Ok(*demo)
    }

    /// New connections are held to other limits.
    fn bound(&self, before: &Limits, limits: &Limits) {
        if before == limits {
            return;
        }
        server::warn_of_files(limits);
        let limits = Arc::new(limits.clone());
        self.house.store(Arc::new(self.house.load().under(&limits)));
        if let Some(admin) = self.admin.get() {
            admin.store(Arc::new(admin.load().under(&server::admin_limits(&limits))));
        }
    }

    fn count(&self, changes: &Changes) {
        let metrics = &self.lasting.metrics;
        let Changes { listeners, certificates, upstreams, routes, settings } = changes;
        for (what, names) in [("listener", listeners), ("upstream", upstreams), ("route", routes)] {
            for (change, count) in names.counts() {
                metrics.reload_changed(what, change, count);
            }
        }
        metrics.reload_changed("certificate", "changed", certificates.len());
        metrics.reload_changed("setting", "changed", settings.len());
    }

    /// Reads certificates again, and what upstreams are spoken to with, where that is all there is to read. What
    /// cannot be used stays as it is, and nothing else waits for it.
    fn renew(&self) {
        let doors = self.doors.lock();
        let state = &self.runtime.load().plan.process.state_dir;
        doors.renew(state, &self.lasting.metrics);
        self.renew_upstreams(&doors);
    }

    /// Only what upstreams are spoken to with.
    fn renew_upstreams(&self, doors: &Doors) {
        if self.life.draining.has_begun() {
            return;
        }
        let (lasting, handle) = (&self.lasting, Handle::current());
        let before = self.runtime.load_full();
        // Until the end nobody changes backends: what was changed before is taken over.
        let turn = lasting.keeper.turn();
        // Connections that were made with other files are others: an upstream that follows makes them.
        let (next, refused) = Next::renewed(&before);
        for Unusable { upstream, backend, why } in &refused {
            error!(
                target: "edgeproxy::app",
                "files of upstream \"{upstream}\" cannot be read again: backend \"{backend}\": {why}; what is in use \
                 there stays"
            );
        }
        // Once for each upstream, however many of its backends it is.
        for upstream in refused.iter().map(|one| &one.upstream).collect::<BTreeSet<_>>() {
            lasting.metrics.upstream_files_read(upstream, labels::FilesRead::Refused);
        }
        if next.changed().next().is_none() {
            return;
        }
        handle.block_on(next.start(&lasting.dials, *self.demo.lock()));
        let access_log = self.access_log.load_full();
        let plan = before.plan.clone();
        let runtime = self.begin(plan, &before, &next, &doors.rows(), &access_log);
        for name in next.changed() {
            info!(target: "edgeproxy::app", "files of upstream \"{name}\" are read again");
            lasting.metrics.upstream_files_read(name, labels::FilesRead::Replaced);
        }
        if let Err(why) = lasting.keeper.keep(&turn, &runtime.upstreams) {
            error!(target: "edgeproxy::state", "the next start will not know of changes: {why}");
        }
    }

    /// The files that are read then, and that nobody else looks at.
    fn watched(&self) -> Vec<PathBuf> {
        let runtime = self.runtime.load();
        let mut files = self.doors.lock().files();
        files.extend(runtime.upstreams.iter().flat_map(|one| one.files()));
        if self.file.is_some() && runtime.plan.process.watch {
            let seen = self.seen.lock();
            files.retain(|file| !seen.has(file));
        }
        files
    }
}

/// Reads certificates again once a day and when one was issued, and everything when a signal says so, for as long as the process
/// lives.
pub(super) async fn keep(reloader: Arc<Reloader>) {
    let shared = Shared(Arc::clone(&reloader));
    loop {
        let told = tokio::select! {
            () = tokio::time::sleep(RENEW) => false,
            () = reloader.life.renew.notified() => false,
            () = reloader.life.reload.notified() => true,
        };
        // How it went was told. Certificates that were renewed do not wait for a file to be corrected.
        if told && reloader.file.is_some() && shared.reload(Occasion::Signal).await.is_ok() {
            continue;
        }
        let reloader = Arc::clone(&reloader);
        // It ends without a result only when the process ends or it panicked, which was told.
        let _ = tokio::task::spawn_blocking(move || reloader.renew()).await;
    }
}

/// Reloads when a file has changed, while that is wished, for as long as the process lives.
pub(super) async fn watch(reloader: Arc<Reloader>) {
    if reloader.file.is_none() {
        return;
    }
    let shared = Shared(Arc::clone(&reloader));
    let mut changing: Option<Stamps> = None;
    loop {
        tokio::time::sleep(LOOK).await;
        if !reloader.runtime.load().plan.process.watch {
            changing = None;
            continue;
        }
        let looking = Arc::clone(&reloader);
        let look = tokio::task::spawn_blocking(move || {
            let seen = looking.seen.lock().clone();
            let now = seen.again();
            (now != seen).then_some(now)
        });
        let Ok(now) = look.await else { return };
        if now.is_some() && now == changing {
            if shared.reload(Occasion::File).await.is_err() {
                // How it went was told. Certificates do not wait for the rest to be corrected.
                let reloader = Arc::clone(&reloader);
                let _ = tokio::task::spawn_blocking(move || reloader.renew()).await;
            }
            changing = None;
        } else {
            changing = now;
        }
    }
}

/// Reads certificates again when a file has changed, theirs or an upstream's, for as long as the process lives. Where the
/// whole configuration is watched, what it names is read with it, and the rest is what backends name that were added
/// meanwhile.
pub(super) async fn watch_certificates(reloader: Arc<Reloader>) {
    // As they were before they were read for the first time.
    let mut seen = reloader.seen.lock().clone();
    let mut changing: Option<Stamps> = None;
    loop {
        tokio::time::sleep(LOOK).await;
        let (looking, known) = (Arc::clone(&reloader), seen.clone());
        let look = tokio::task::spawn_blocking(move || {
            let files = looking.watched();
            // What is new here was read before it was looked at, and may be another one by now.
            let is_new = files.iter().any(|file| !known.has(file));
            let known = known.and(&files);
            let now = known.again();
            if is_new {
                looking.renew_upstreams(&looking.doors.lock());
            }
            (known, now)
        });
        let Ok((known, now)) = look.await else { return };
        if now == known {
            (seen, changing) = (known, None);
        } else if changing.as_ref() == Some(&now) {
            let reloader = Arc::clone(&reloader);
            // How it went is told.
            let _ = tokio::task::spawn_blocking(move || reloader.renew()).await;
            (seen, changing) = (now, None);
        } else {
            (seen, changing) = (known, Some(now));
        }
    }
}

/// The files of a configuration, as they are before it is put to use.
pub(super) fn seen(file: Option<&config::File>, config: &config::schema::Config) -> Mutex<Stamps> {
    let files: Vec<PathBuf> = file.map(|file| file.all(config)).unwrap_or_default();
    Mutex::new(Stamps::of(&files))
}
