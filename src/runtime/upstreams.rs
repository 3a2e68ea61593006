//! What the metrics say of the backends of a generation.

use std::sync::Arc;
use std::time::Duration;

use crate::observe::metrics::BackendSample;
use crate::observe::metrics::HealthSample;
use crate::observe::metrics::PoolSample;
use crate::observe::metrics::UpstreamSample;
use crate::resilience::breaker::State;
use crate::resilience::health::State as Health;
use crate::upstream::peer::Upstream;
use crate::upstream::report::Report;

/// What is known of every backend now.
#[must_use]
pub fn samples(upstreams: &[Arc<Upstream>]) -> Vec<BackendSample> {
    let of = |upstream: &Arc<Upstream>| {
        let name = Arc::clone(&upstream.settings().name);
        let ejects = upstream.settings().ejection.is_some();
        let (reports, now) = (upstream.report().into_iter(), upstream.now());
        reports.map(move |report| sample(Arc::clone(&name), report, ejects, now))
    };
    upstreams.iter().flat_map(of).collect()
}

/// What is known of each upstream as a whole.
#[must_use]
pub fn wholes(upstreams: &[Arc<Upstream>]) -> Vec<UpstreamSample> {
    let of = |upstream: &Arc<Upstream>| UpstreamSample {
        upstream: Arc::clone(&upstream.settings().name),
        drift: upstream.drift().count() as u64,
        concurrency: upstream.concurrency(),
    };
    upstreams.iter().map(of).collect()
}

/// Whether a breaker lets nothing through. Once its time is over it waits for a probe, and that is the next request.
pub(super) fn is_barred(breaker: Option<State>, now: Duration) -> bool {
    matches!(breaker, Some(State::Open { until }) if now < until)
}

fn sample(upstream: Arc<str>, report: Report, ejects: bool, now: Duration) -> BackendSample {
    BackendSample {
        upstream,
        up: report.out.is_empty() && !is_barred(report.breaker, now),
        backend: report.label,
        requests: report.requests,
        failures: report.failures,
        answers: report.answers,
        seconds: report.answering.as_secs_f64(),
        in_flight: report.in_flight,
        breaker: report.breaker.map(|state| match state {
            State::Closed => 0,
            State::HalfOpen => 1,
            State::Open { .. } => 2,
        }),
        opened: report.opened,
        half_opened: report.half_opened,
        closed: report.closed,
        pool: PoolSample {
            open: report.pool.open,
            idle: report.pool.idle,
            in_use: report.pool.in_use,
            queued: report.pool.queued,
            reused: report.pool.reused,
            created: report.pool.created,
            failed: report.pool.failed,
        },
        health: report.health.map(|health| HealthSample {
            state: match health.state {
                Health::Healthy => 0,
                Health::Unknown => 1,
                Health::Unhealthy => 2,
            },
            passed: health.passed,
            failed: health.failed,
        }),
        ejected: ejects.then_some(report.ejected),
    }
}
