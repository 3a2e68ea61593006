//! Passive ejection: backends that fail where their siblings do not get no requests for a while.
//!
//! [`crate::resilience::ejection`] decides; here requests are reported to it, and what it decides is
//! counted and told. A backend that comes back takes up its share slowly, where that is wished.

use std::sync::Arc;
use std::sync::Weak;
use std::time::Duration;

use log::info;
use log::warn;
use tokio::time::sleep;

use crate::resilience::ejection::Cause;
use crate::resilience::ejection::Ejected;
use crate::resilience::ejection::Outcome;
use crate::resilience::ejection::Record;
use crate::resilience::ejection::Suspicion;
use crate::upstream::backend::Backend;
use crate::upstream::peer::Upstream;

/// Takes in how a request went, and ejects the backend when it is one error too many.
pub(super) fn note(upstream: &Upstream, backend: &Backend, outcome: Outcome, now: Duration) {
    let Some(ward) = &upstream.ward else { return };
    match backend.record().note(outcome, ward.settings()) {
        Suspicion::None => {}
        Suspicion::Streak => {
            let group = candidates(upstream);
            let found = group.iter().position(|one| std::ptr::eq(&**one, backend));
            // One that others keep away already.
            let Some(at) = found else { return };
            match ward.eject(at, &records(&group), now) {
                Ejected::Until(until) => tell(upstream, backend, Cause::Streak, until, now),
                Ejected::Already | Ejected::Full | Ejected::Busy | Ejected::Retired => {}
            }
        }
    }
}

/// Begins to compare the backends of `upstream` with each other. Ends with it.
pub(super) fn start(upstream: &Arc<Upstream>) {
    let Some(ejection) = &upstream.settings().ejection else { return };
    let task = tokio::spawn(compare(Arc::downgrade(upstream), ejection.interval));
    upstream.adopt(task.abort_handle());
}

async fn compare(upstream: Weak<Upstream>, interval: Duration) {
    loop {
        sleep(interval).await;
        let Some(upstream) = upstream.upgrade() else { return };
        sweep(&upstream, upstream.now());
    }
}

/// Compares them once.
pub(super) fn sweep(upstream: &Upstream, now: Duration) {
    let Some(ward) = &upstream.ward else { return };
    let group = candidates(upstream);
    for (at, until) in ward.sweep(&records(&group), now) {
        if let Some(backend) = group.get(at) {
            tell(upstream, backend, Cause::Rate, until, now);
        }
    }
}

/// Nobody is ejected any more: `backend` is in again, if it was out.
pub(super) fn forgive(upstream: &Upstream, backend: &Backend, now: Duration) {
    let was_out = backend.is_ejected(now);
    backend.record().forgive();
    if was_out {
        backend.came_up(now);
        let (upstream, label) = (&*upstream.settings().name, &**backend.label());
        info!(target: "edgeproxy::upstream", upstream, backend = label, cause = "switched_off";
            "backend no longer ejected");
    }
}

/// Those among which one stands out. Who is kept away by an operator or by its health checks does not
/// count: it could not take over from one that is ejected.
fn candidates(upstream: &Upstream) -> Vec<Arc<Backend>> {
    let mut group = upstream.backends();
    group.retain(|backend| backend.is_free());
    group
}

fn records(group: &[Arc<Backend>]) -> Vec<&Record> {
    group.iter().map(|backend| backend.record()).collect()
}

/// Counts an ejection and tells the operator.
#[cold]
fn tell(upstream: &Upstream, backend: &Backend, cause: Cause, until: Duration, now: Duration) {
    backend.ejected(until);
    let (upstream, label, cause) = (&*upstream.settings().name, &**backend.label(), cause.label());
    let seconds = until.saturating_sub(now).as_secs_f64();
    let last = backend.last_error();
    let (error, reason) = last.as_ref().map_or(("", ""), |last| (last.label, &*last.reason));
    warn!(target: "edgeproxy::upstream", upstream, backend = label, cause, seconds, error, reason;
        "backend ejected");
}
