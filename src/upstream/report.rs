//! What is known of a backend at one moment, for those who look at it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::resilience::breaker;
use crate::upstream::backend::Backend;
use crate::upstream::backend::Reason;
use crate::upstream::health::Health;
use crate::upstream::mishap::Mishap;
use crate::upstream::pool;
use crate::upstream::prospect::Course;

/// What is known of a backend at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The id in the configuration.
    pub id: Arc<str>,
    /// Unique in its upstream: the id, or the id and the address where a name stands for several.
    pub label: Arc<str>,
    /// Where it is.
    pub address: String,
    /// Its share relative to its siblings.
    pub weight: u32,
    /// It serves only while the others cannot.
    pub backup: bool,
    /// Why it gets no requests.
    pub out: Vec<&'static str>,
    /// The state of its breaker; `None` has none.
    pub breaker: Option<breaker::State>,
    /// What went wrong last with a request there, and how long ago.
    pub last_error: Option<(Duration, Arc<Mishap>)>,
    /// Requests that it has now.
    pub in_flight: u32,
    /// Attempts sent to it.
    pub requests: u64,
    /// Those of them that failed.
    pub failures: u64,
    /// Those of them that it answered.
    pub answers: u64,
    /// The time to the headers of these, together.
    pub answering: Duration,
    /// How often its breaker has opened.
    pub opened: u64,
    /// How often it has let probes through after that.
    pub half_opened: u64,
    /// How often it has closed: by these, by a reset, or since it was switched off.
    pub closed: u64,
    /// What its health checks say; `None`: there are none.
    pub health: Option<Health>,
    /// For how long passive checks have it out yet; `None`: they do not.
    pub ejected_for: Option<Duration>,
    /// How often it was ejected.
    pub ejected: u64,
    /// For how long it stands behind its siblings yet; `None`: it does not.
    pub rests_for: Option<Duration>,
    /// Its connections.
    pub pool: pool::Stats,
    /// The time to a header of late, peaks counting at once.
    pub latency: Duration,
}

impl Backend {
    /// What is known of it.
    #[must_use]
    pub fn report(&self, now: Duration) -> Report {
        let reasons = [
            (Reason::Inactive, "inactive"),
            (Reason::Draining, "draining"),
            (Reason::Unhealthy, "unhealthy"),
            (Reason::Unknown, "unknown"),
        ];
        let mut out: Vec<&'static str> =
            reasons.into_iter().filter(|(reason, _)| self.is(*reason)).map(|(_, w)| w).collect();
        if self.is_ejected(now) {
            out.push("ejected");
        }
        let Course { begun, tally, record, latency, .. } = &*self.prospect().course;
        let answered = tally.answered.load(Ordering::Relaxed);
        let micros = tally.micros.load(Ordering::Relaxed);
        Report {
            id: Arc::clone(self.id()),
            label: Arc::clone(self.label()),
            address: self.address().to_string(),
            weight: self.weight(),
            backup: self.is_backup(),
            out,
            breaker: self.breaker().map(|breaker| breaker.state()),
            last_error: tally.last_error.get().map(|last| (now.saturating_sub(last.at), last)),
            in_flight: self.in_flight(),
            requests: begun.load(Ordering::Relaxed),
            failures: tally.failures.load(Ordering::Relaxed),
            answers: answered,
            answering: Duration::from_micros(micros),
            opened: tally.opened.load(Ordering::Relaxed),
            half_opened: tally.half_opened.load(Ordering::Relaxed),
            closed: tally.closed.load(Ordering::Relaxed),
            health: self.checks.as_ref().map(|checks| checks.report(now)),
            ejected_for: record.out_until(now).map(|until| until.saturating_sub(now)),
            ejected: tally.ejected.load(Ordering::Relaxed),
            rests_for: self.prospect().rests_for(now),
            pool: self.pool.stats(),
            latency: latency.value(now),
        }
    }
}
