//! What is known of each backend, asked for when somebody looks: backends come and go at run time, and so
//! do their numbers.

use std::sync::Arc;

use parking_lot::Mutex;
use prometheus::core::Collector;
use prometheus::core::Desc;
use prometheus::proto::MetricFamily;

use super::BACKEND_ANSWERS;
use super::BACKEND_BREAKER;
use super::BACKEND_CHECKS;
use super::BACKEND_CLOSED;
use super::BACKEND_EJECTED;
use super::BACKEND_FAILURES;
use super::BACKEND_HALF_OPENED;
use super::BACKEND_HEALTH;
use super::BACKEND_IN_FLIGHT;
use super::BACKEND_OPENED;
use super::BACKEND_REQUESTS;
use super::BACKEND_SECONDS;
use super::BACKEND_UP;
use super::Definition;
use super::POOL_CREATED;
use super::POOL_FAILED;
use super::POOL_IDLE;
use super::POOL_IN_USE;
use super::POOL_OPEN;
use super::POOL_QUEUED;
use super::POOL_REUSED;
use super::UPSTREAM_DRIFT;
use super::UPSTREAM_IN_FLIGHT;
use super::UPSTREAM_LIMIT;
use super::family;
use super::sample;

/// What is known of one backend at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct BackendSample {
    /// The name of its upstream.
    pub upstream: Arc<str>,
    /// Its own.
    pub backend: Arc<str>,
    /// Whether it gets requests.
    pub up: bool,
    /// Attempts sent to it.
    pub requests: u64,
    /// Those that failed.
    pub failures: u64,
    /// Those that it answered.
    pub answers: u64,
    /// The time to the headers of these, in seconds.
    pub seconds: f64,
    /// Requests that it has now.
    pub in_flight: u32,
    /// 0 closed, 1 half-open, 2 open; `None` has no breaker.
    pub breaker: Option<u8>,
    /// How often the breaker has opened.
    pub opened: u64,
    /// How often it has let probes through after that.
    pub half_opened: u64,
    /// How often it has closed: by these, by a reset, or since it was switched off.
    pub closed: u64,
    /// Its connections.
    pub pool: PoolSample,
    /// What its health checks say; `None` has none.
    pub health: Option<HealthSample>,
    /// How often it was ejected; `None`: nobody is.
    pub ejected: Option<u64>,
}

impl BackendSample {
    /// Whether there is anything to count of its breaker. One that was switched off while it was open has closed, and that
    /// is to be seen.
    fn had_breaker(&self) -> bool {
        self.breaker.is_some() || self.opened > 0
    }
}

/// The connections of one backend at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PoolSample {
    /// Those that exist.
    pub open: u32,
    /// Those that wait for a request.
    pub idle: u32,
    /// Requests that have one.
    pub in_use: u32,
    /// Requests that wait for one.
    pub queued: u32,
    /// How often one was used again.
    pub reused: u64,
    /// How many were made.
    pub created: u64,
    /// How many could not be made.
    pub failed: u64,
}

/// What the health checks of one backend say at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HealthSample {
    /// 0 healthy, 1 unknown, 2 unhealthy.
    pub state: u8,
    /// Checks that passed.
    pub passed: u64,
    /// Checks that failed.
    pub failed: u64,
}

/// What is known of one upstream as a whole at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamSample {
    /// Its name.
    pub upstream: Arc<str>,
    /// How many of its backends differ from the configuration.
    pub drift: u64,
    /// How many requests at once it is given, found out from its latency, and how many it has; `None` has no such limit.
    pub concurrency: Option<(u32, u32)>,
}

type Watch = Box<dyn Fn() -> Vec<BackendSample> + Send + Sync>;
type UpstreamWatch = Box<dyn Fn() -> Vec<UpstreamSample> + Send + Sync>;

/// What [`Backends`] gives.
const SAMPLED: &[Definition] = &[
    BACKEND_UP,
    BACKEND_REQUESTS,
    BACKEND_FAILURES,
    BACKEND_ANSWERS,
    BACKEND_SECONDS,
    BACKEND_IN_FLIGHT,
    BACKEND_BREAKER,
    BACKEND_OPENED,
    BACKEND_HALF_OPENED,
    BACKEND_CLOSED,
    POOL_OPEN,
    POOL_IDLE,
    POOL_IN_USE,
    POOL_QUEUED,
    POOL_REUSED,
    POOL_CREATED,
    POOL_FAILED,
    UPSTREAM_DRIFT,
    UPSTREAM_LIMIT,
    UPSTREAM_IN_FLIGHT,
    BACKEND_HEALTH,
    BACKEND_CHECKS,
    BACKEND_EJECTED,
];

/// Who asks for the samples.
pub(super) struct Backends {
    watch: Mutex<Option<Watch>>,
    upstreams: Mutex<Option<UpstreamWatch>>,
    descriptions: Vec<Desc>,
}

impl Backends {
    pub(super) fn new() -> Self {
        let descriptions = SAMPLED.iter().map(Definition::description).collect();
        Self { watch: Mutex::default(), upstreams: Mutex::default(), descriptions }
    }

    pub(super) fn watch(&self, watch: Watch) {
        *self.watch.lock() = Some(watch);
    }

    pub(super) fn watch_upstreams(&self, watch: UpstreamWatch) {
        *self.upstreams.lock() = Some(watch);
    }

    /// What is known of upstreams as a whole.
    fn of_upstreams(&self) -> [MetricFamily; 3] {
        let samples = self.upstreams.lock().as_ref().map(|watch| watch()).unwrap_or_default();
        let family_of = |definition: &Definition, number: fn(&UpstreamSample) -> Option<f64>| {
            let metrics = samples
                .iter()
                .filter_map(|one| Some(sample(definition, &[&*one.upstream], number(one)?)));
            family(definition, metrics.collect())
        };
        [
            family_of(&UPSTREAM_DRIFT, |one| Some(one.drift as f64)),
            family_of(&UPSTREAM_LIMIT, |one| one.concurrency.map(|(limit, _)| f64::from(limit))),
            family_of(&UPSTREAM_IN_FLIGHT, |one| one.concurrency.map(|(_, has)| f64::from(has))),
        ]
    }
}

/// Lets the registry own what `Metrics` uses too.
pub(super) struct BackendsCollector(pub(super) Arc<Backends>);

impl Collector for BackendsCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.0.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let samples = self.0.watch.lock().as_ref().map(|watch| watch()).unwrap_or_default();
        let family_of = |definition: &Definition, number: fn(&BackendSample) -> Option<f64>| {
            let metrics = samples.iter().filter_map(|one| {
                let labels = [&*one.upstream, &*one.backend];
                Some(sample(definition, &labels, number(one)?))
            });
            family(definition, metrics.collect())
        };
        let families = vec![
            family_of(&BACKEND_UP, |one| Some(f64::from(u8::from(one.up)))),
            family_of(&BACKEND_REQUESTS, |one| Some(one.requests as f64)),
            family_of(&BACKEND_FAILURES, |one| Some(one.failures as f64)),
            family_of(&BACKEND_ANSWERS, |one| Some(one.answers as f64)),
            family_of(&BACKEND_SECONDS, |one| Some(one.seconds)),
            family_of(&BACKEND_IN_FLIGHT, |one| Some(f64::from(one.in_flight))),
            family_of(&BACKEND_BREAKER, |one| one.breaker.map(f64::from)),
            family_of(&BACKEND_OPENED, |one| one.had_breaker().then_some(one.opened as f64)),
            family_of(&BACKEND_HALF_OPENED, |one| {
                one.had_breaker().then_some(one.half_opened as f64)
            }),
            family_of(&BACKEND_CLOSED, |one| one.had_breaker().then_some(one.closed as f64)),
            family_of(&POOL_OPEN, |one| Some(f64::from(one.pool.open))),
            family_of(&POOL_IDLE, |one| Some(f64::from(one.pool.idle))),
            family_of(&POOL_IN_USE, |one| Some(f64::from(one.pool.in_use))),
            family_of(&POOL_QUEUED, |one| Some(f64::from(one.pool.queued))),
            family_of(&POOL_REUSED, |one| Some(one.pool.reused as f64)),
            family_of(&POOL_CREATED, |one| Some(one.pool.created as f64)),
            family_of(&POOL_FAILED, |one| Some(one.pool.failed as f64)),
            family_of(&BACKEND_HEALTH, |one| one.health.map(|health| f64::from(health.state))),
            checks(&samples),
            family_of(&BACKEND_EJECTED, |one| one.ejected.map(|count| count as f64)),
        ];
        let families = families.into_iter().chain(self.0.of_upstreams());
        families.filter(|family| !family.get_metric().is_empty()).collect()
    }
}

/// The checks by what came of them.
fn checks(samples: &[BackendSample]) -> MetricFamily {
    let of = |one: &BackendSample| {
        let results =
            one.health.map(|health| [("passed", health.passed), ("failed", health.failed)]);
        let sample = |(result, count): (&str, u64)| {
            sample(&BACKEND_CHECKS, &[&*one.upstream, &*one.backend, result], count as f64)
        };
        results.into_iter().flatten().map(sample).collect::<Vec<_>>()
    };
    family(&BACKEND_CHECKS, samples.iter().flat_map(of).collect())
}
