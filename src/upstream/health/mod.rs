//! Active health checks: each backend is asked again and again whether it is well, beside the requests
//! and never in their way.
//!
//! Every backend has a schedule of its own, so that one that hangs delays no other. What its checks add
//! up to is judged by [`crate::resilience::health`]; here it is asked, noted and told. A check goes over
//! a connection of its own, which is neither pooled nor counted, made as those of requests are: to the
//! same address, with the same TLS.

mod checker;
mod checks;
mod grpc;
mod http;
mod http2;

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::Weak;
use std::time::Duration;

use ::http::HeaderMap;
use ::http::Method;
use futures_util::future::join_all;
use log::info;
use log::warn;
use tokio::task::AbortHandle;
use tokio::task::JoinHandle;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio::time::timeout;

pub(super) use self::checker::Checker;
pub use self::checks::Checked;
pub(super) use self::checks::Checks;
pub use self::checks::Health;
use crate::resilience::health;
use crate::resilience::health::Change;
use crate::resilience::health::State;
use crate::upstream::backend::Backend;
use crate::upstream::backend::Reason;
use crate::upstream::backend::random;
use crate::upstream::peer::Upstream;

/// How long the start waits for the first checks of backends that get no requests before.
const START: Duration = Duration::from_secs(2);

/// How long an operator waits for the check of an address that a backend is to go over to.
const BEFOREHAND: Duration = Duration::from_secs(30);

/// How backends are checked, as meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// What is asked.
    pub probe: Probe,
    /// The time from the end of one check to the next.
    pub interval: Duration,
    /// By how many percent that is longer or shorter, by chance.
    pub jitter: u32,
    /// How long a check may take, connecting included.
    pub timeout: Duration,
    /// What results add up to.
    pub judged: health::Settings,
}

/// What a backend is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    /// Whether it can be connected to, TLS included.
    Tcp,
    /// Whether it answers a request as it should.
    Http(Request),
    /// What its gRPC health service says.
    Grpc {
        /// Of this service; empty is the whole server.
        service: String,
        /// The authority; `None` is the upstream's Host, or the backend's address.
        host: Option<Arc<str>>,
        /// Further metadata.
        headers: HeaderMap,
    },
}

/// A request that is no client's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// A safe method.
    pub method: Method,
    /// Path and query.
    pub target: String,
    /// The Host; `None` is the upstream's, or the backend's address.
    pub host: Option<Arc<str>>,
    /// Further fields.
    pub headers: HeaderMap,
    /// The statuses of a backend that is well.
    pub statuses: Vec<RangeInclusive<u16>>,
    /// What the first [`BODY`] bytes of the answer must contain.
    pub body: Option<String>,
}

/// How much of an answer is searched.
pub const BODY: usize = 64 << 10;

/// Why there was no check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotChecked {
    /// There is no backend of this id, or its name has no address yet.
    NoBackend,
    /// The upstream's backends are not checked.
    Off,
}

impl Upstream {
    /// Checks the backend of this id now, all of its addresses at once, or every backend; a check that is
    /// under way is waited for first. The results count like those of any check.
    ///
    /// # Errors
    /// When there is nothing to check.
    pub async fn check_now(self: &Arc<Self>, id: Option<&str>) -> Result<Vec<Checked>, NotChecked> {
        if self.settings().health.is_none() {
            return Err(NotChecked::Off);
        }
        let mut backends = self.backends();
        backends.retain(|backend| id.is_none_or(|id| **backend.id() == *id));
        if backends.is_empty() {
            return Err(NotChecked::NoBackend);
        }
        Ok(check_all(self, backends).await)
    }
}

/// Begins to check the backends of `upstream`: those that it has and those that come. Ends with it.
///
/// Where a backend gets no requests before its first check, this waits for the first results, two seconds
/// at the most.
pub async fn start(upstream: &Arc<Upstream>) {
    if upstream.settings().health.is_none() || !upstream.settings().active {
        return;
    }
    let mut due = upstream.backends();
    due.retain(|backend| is_due(upstream, backend));
    let first = join_all(due.iter().map(|backend| first(upstream, backend)));
    let _ = timeout(START, first).await;
    let task = tokio::spawn(keep(Arc::downgrade(upstream)));
    upstream.adopt(task.abort_handle());
}

/// Whether this one gets no requests before its first check, which is not to wait.
fn is_due(upstream: &Upstream, backend: &Backend) -> bool {
    upstream.settings().active && backend.is(Reason::Unknown) && !backend.is(Reason::Inactive)
}

/// Begins the first check of a backend, or waits for the one that is under way. A task of its own: it goes on while
/// nobody waits for it, and through a reload, and ends with its backend.
fn first(upstream: &Arc<Upstream>, backend: &Arc<Backend>) -> JoinHandle<()> {
    let (by, whose) = (Arc::clone(upstream), Arc::clone(backend));
    let task = tokio::spawn(async move {
        // Whatever was found out is a first check.
        check_since(&by, &whose, Duration::ZERO).await;
    });
    upstream.begins_with(backend, task.abort_handle());
    task
}

/// What a check found out of a backend that is to take the place of another one, and is not there yet.
#[derive(Debug)]
pub(super) struct Beforehand {
    backend: Arc<Backend>,
    error: Option<Arc<str>>,
    began: Duration,
}

/// Checks backends that are to take the place of others, where they get no requests before their first check. Nothing
/// follows from it before it is [`known`]. What takes too long has failed.
pub(super) async fn beforehand(
    upstream: &Arc<Upstream>,
    backends: &[Arc<Backend>],
) -> Vec<Beforehand> {
    let due = backends.iter().filter(|backend| is_due(upstream, backend)).map(async |backend| {
        let (checks, began) = (backend.checks.as_ref()?, upstream.now());
        let error = match timeout(BEFOREHAND, checks.checker().ask(&backend.peer())).await {
            Ok(result) => result.err().map(|failure| failure.to_string().into()),
            Err(_) => Some(format!("no answer within {}s", BEFOREHAND.as_secs()).into()),
        };
        Some(Beforehand { backend: Arc::clone(backend), error, began })
    });
    join_all(due).await.into_iter().flatten().collect()
}

/// Why none of these is well, where that is so.
pub(super) fn why_none_is_well(found: &[Beforehand]) -> Option<Arc<str>> {
    let errors: Option<Vec<_>> = found.iter().map(|one| one.error.as_ref()).collect();
    errors?.first().map(|error| Arc::clone(error))
}

/// They are there now.
pub(super) fn known(upstream: &Upstream, found: Vec<Beforehand>) {
    for Beforehand { backend, error, began } in found {
        if let Some(checks) = &backend.checks {
            conclude(upstream, &backend, checks, error, began);
        }
    }
}

/// Checks these at once, each in a task of its own.
async fn check_all(upstream: &Arc<Upstream>, backends: Vec<Arc<Backend>>) -> Vec<Checked> {
    let mut tasks = JoinSet::new();
    for (n, backend) in backends.into_iter().enumerate() {
        let upstream = Arc::clone(upstream);
        tasks.spawn(async move { check(&upstream, &backend).await.map(|checked| (n, checked)) });
    }
    let mut checked: Vec<_> = tasks.join_all().await.into_iter().flatten().collect();
    checked.sort_by_key(|(n, _)| *n);
    checked.into_iter().map(|(_, checked)| checked).collect()
}

/// Sees to it that each backend of the upstream has a schedule, and that one that went has none.
async fn keep(upstream: Weak<Upstream>) {
    let mut tasks = JoinSet::new();
    let mut kept: Vec<(Weak<Backend>, AbortHandle)> = Vec::new();
    let is = |known: &Weak<Backend>, one: &Arc<Backend>| known.as_ptr() == Arc::as_ptr(one);
    loop {
        let Some(held) = upstream.upgrade() else { return };
        let (backends, changes) = (held.backends(), held.changes());
        drop(held);
        kept.retain(|(known, task)| {
            let stays = backends.iter().any(|one| is(known, one));
            if !stays {
                task.abort();
            }
            stays
        });
        for one in backends {
            if !kept.iter().any(|(known, _)| is(known, &one)) {
                let known = Arc::downgrade(&one);
                let task = tasks.spawn(watch(Weak::clone(&upstream), Weak::clone(&known)));
                kept.push((known, task));
            }
        }
        while tasks.try_join_next().is_some() {}
        changes.notified().await;
    }
}

/// The schedule of one backend.
async fn watch(upstream: Weak<Upstream>, backend: Weak<Backend>) {
    loop {
        let (due, wait) = {
            let (Some(upstream), Some(backend)) = (upstream.upgrade(), backend.upgrade()) else {
                return;
            };
            let Some(settings) = &upstream.settings().health else { return };
            let due = is_due(&upstream, &backend).then(|| first(&upstream, &backend));
            (due, jittered(settings.interval, settings.jitter, random()))
        };
        if let Some(first) = due {
            let _ = first.await;
        }
        sleep(wait).await;
        let (Some(upstream), Some(backend)) = (upstream.upgrade(), backend.upgrade()) else {
            return;
        };
        // One that is switched off may not be there at all.
        if !backend.is(Reason::Inactive) && !backend.is(Reason::Unknown) {
            check(&upstream, &backend).await;
        }
    }
}

/// Checks a backend, one check at a time, and acts on what comes of it. Others may wait for the same: a check that began
/// after this was asked for is as good.
async fn check(upstream: &Upstream, backend: &Backend) -> Option<Checked> {
    check_since(upstream, backend, upstream.now()).await
}

/// The same where a check is as good that began at `since` or later.
async fn check_since(upstream: &Upstream, backend: &Backend, since: Duration) -> Option<Checked> {
    let checks = backend.checks.as_ref()?;
    let _turn = checks.turn().await;
    if let Some(checked) = checks.since(since, backend.label()) {
        return Some(checked);
    }
    let began = upstream.now();
    let result = checks.checker().ask(&backend.peer()).await;
    let error = result.err().map(|failure| failure.to_string().into());
    Some(conclude(upstream, backend, checks, error, began))
}

/// Notes how the check went that began then and is over now, and acts on what changes by it.
pub(super) fn conclude(
    upstream: &Upstream,
    backend: &Backend,
    checks: &Checks,
    error: Option<Arc<str>>,
    began: Duration,
) -> Checked {
    let ended = upstream.now();
    let (checked, change) = checks.note(error, began, ended, backend.label());
    if let Some(change) = change {
        act(upstream, backend, change, &checked, ended);
    }
    checked
}

/// A backend is not checked any more: whatever checks said of it keeps no requests away.
pub(super) fn switched_off(upstream: &Upstream, backend: &Backend, now: Duration) {
    let was_unhealthy = backend.set(Reason::Unhealthy, false);
    let was_unknown = backend.set(Reason::Unknown, false);
    if !(was_unhealthy || was_unknown) {
        return;
    }
    backend.came_up(now);
    let (upstream, label) = (&*upstream.settings().name, &**backend.label());
    let from = if was_unhealthy { State::Unhealthy } else { State::Unknown };
    let from = from.label();
    info!(target: "edgeproxy::upstream", upstream, backend = label, from, cause = "switched_off";
        "backend no longer checked");
}

/// Puts a change into force, and tells the operator.
fn act(upstream: &Upstream, backend: &Backend, change: Change, checked: &Checked, now: Duration) {
    let (name, label) = (&*upstream.settings().name, &**backend.label());
    let from = change.from.label();
    match change.to {
        State::Healthy => {
            backend.came_up(now);
            backend.set(Reason::Unhealthy, false);
            backend.set(Reason::Unknown, false);
            info!(target: "edgeproxy::upstream", upstream = name, backend = label, from;
                "backend healthy");
        }
        State::Unhealthy => {
            // In this order: it is not usable in between.
            backend.set(Reason::Unhealthy, true);
            backend.set(Reason::Unknown, false);
            let reason = checked.error.as_deref().unwrap_or_default();
            warn!(target: "edgeproxy::upstream", upstream = name, backend = label, from, reason;
                "backend unhealthy");
        }
        // Nothing leads back there.
        State::Unknown => {}
    }
}

/// `interval`, up to so many percent longer or shorter.
fn jittered(interval: Duration, percent: u32, random: u64) -> Duration {
    let percent = u64::from(percent.min(100));
    let permille = 1000 - percent * 10 + random % (percent * 20 + 1);
    interval.saturating_mul(u32::try_from(permille).unwrap_or(1000)) / 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_goes_both_ways_and_not_further_than_said() {
        let second = Duration::from_secs(1);
        let millis = |percent, random| jittered(second, percent, random).as_millis();
        assert_eq!(millis(0, u64::MAX), 1000);
        assert_eq!([millis(10, 0), millis(10, 100), millis(10, 200)], [900, 1000, 1100]);
        assert_eq!(millis(10, 201), 900);
        assert_eq!([millis(100, 0), millis(100, 2000)], [0, 2000]);
        assert_eq!(jittered(Duration::MAX, 100, 2000), Duration::MAX / 1000);
    }
}
