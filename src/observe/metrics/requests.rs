//! Requests by listener, route, method, status and cache result: five labels and no look-up.
//!
//! A request knows its [`RouteMetrics`] from routing on; within, counters are array cells found by
//! index, made when they are first used, so that what never happens costs neither memory nor a line
//! in the exposition.

use std::array;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::Mutex;
use prometheus::core::Collector;
use prometheus::core::Desc;
use prometheus::proto::MetricFamily;

use super::Definition;
use super::labels::CacheResult;
use super::labels::Label;
use super::labels::Method;
use super::labels::StatusLabel;
use super::lanes::Laned;
use super::times::Times;
use super::times::TimesVec;

const METHODS: usize = Method::ALL.len();
const RESULTS: usize = CacheResult::ALL.len();

type ByResult = [OnceLock<Laned>; RESULTS];

/// What a request reports at its end.
#[derive(Debug, Clone, Copy)]
pub struct Finished {
    /// Its method.
    pub method: Method,
    /// The status that the client saw, if any.
    pub status: Option<u16>,
    /// What the cache did.
    pub cache: CacheResult,
    /// From arrival to end.
    pub duration: Duration,
    /// From arrival to the response's first byte.
    pub time_to_first_byte: Option<Duration>,
}

/// The counters of one route on one listener.
pub struct RouteMetrics {
    listener: Box<str>,
    route: Box<str>,
    methods: [OnceLock<Box<ByResult>>; METHODS],
    times: Arc<RouteTimes>,
}

impl fmt::Debug for RouteMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RouteMetrics")
            .field("listener", &self.listener)
            .field("route", &self.route)
            .finish_non_exhaustive()
    }
}

impl RouteMetrics {
    /// Counts one request.
    pub fn record(&self, finished: &Finished) {
        let results = self.methods[finished.method.index()]
            .get_or_init(|| Box::new(array::from_fn(|_| OnceLock::new())));
        let statuses =
            results[finished.cache.index()].get_or_init(|| Laned::new(StatusLabel::COUNT));
        statuses.add([(StatusLabel::of(finished.status).index(), 1)]);
        self.times.observe(finished);
    }

    /// Every counter that was ever used.
    fn each(&self, mut visit: impl FnMut(Method, usize, CacheResult, u64)) {
        for &method in Method::ALL {
            let Some(results) = self.methods[method.index()].get() else { continue };
            for &result in CacheResult::ALL {
                let Some(statuses) = results[result.index()].get() else { continue };
                for status in 0..StatusLabel::COUNT {
                    let count = statuses.get(status);
                    if count > 0 {
                        visit(method, status, result, count);
                    }
                }
            }
        }
    }
}

/// The times of one route, on all listeners.
#[derive(Debug)]
struct RouteTimes {
    route: Box<str>,
    durations: TimesVec,
    first_bytes: TimesVec,
    by_result: [OnceLock<(Arc<Times>, Arc<Times>)>; RESULTS],
    /// The route is not configured any more: what is not there yet is not made.
    is_forgotten: AtomicBool,
}

impl RouteTimes {
    fn observe(&self, finished: &Finished) {
        let known = &self.by_result[finished.cache.index()];
        if known.get().is_none() && self.is_forgotten.load(Ordering::Relaxed) {
            return;
        }
        let (duration, first_byte) = known.get_or_init(|| {
            let labels = [&*self.route, finished.cache.label()];
            (self.durations.of(&labels), self.first_bytes.of(&labels))
        });
        duration.observe(finished.duration);
        if let Some(time) = finished.time_to_first_byte {
            first_byte.observe(time);
        }
    }
}

/// Every route on every listener that ever was; counters outlive a reload.
pub(super) struct Requests {
    routes: Mutex<Known>,
    durations: TimesVec,
    first_bytes: TimesVec,
    descriptions: [Desc; 2],
}

#[derive(Default)]
struct Known {
    pairs: BTreeMap<(Box<str>, Box<str>), Arc<RouteMetrics>>,
    times: BTreeMap<Box<str>, Arc<RouteTimes>>,
}

impl Requests {
    pub(super) fn new(durations: TimesVec, first_bytes: TimesVec) -> Self {
        Self {
            routes: Mutex::default(),
            durations,
            first_bytes,
            descriptions: [super::REQUESTS.description(), super::CACHE_REQUESTS.description()],
        }
    }

    pub(super) fn route(&self, listener: &str, route: &str) -> Arc<RouteMetrics> {
        let mut known = self.routes.lock();
        let times = Arc::clone(known.times.entry(route.into()).or_insert_with(|| {
            Arc::new(RouteTimes {
                route: route.into(),
                durations: self.durations.clone(),
                first_bytes: self.first_bytes.clone(),
                by_result: array::from_fn(|_| OnceLock::new()),
                is_forgotten: AtomicBool::new(false),
            })
        }));
        let pair = known.pairs.entry((listener.into(), route.into())).or_insert_with(|| {
            Arc::new(RouteMetrics {
                listener: listener.into(),
                route: route.into(),
                methods: array::from_fn(|_| OnceLock::new()),
                times,
            })
        });
        Arc::clone(pair)
    }

    /// Forgets what was counted on these listeners, and of these routes.
    pub(super) fn forget(&self, listeners: &[&str], routes: &[&str]) {
        let mut known = self.routes.lock();
        known.pairs.retain(|(listener, route), _| {
            !listeners.contains(&&**listener) && !routes.contains(&&**route)
        });
        known.times.retain(|route, times| {
            let is_gone = routes.contains(&&**route);
            // Requests of theirs may still be under way.
            times.is_forgotten.fetch_or(is_gone, Ordering::Relaxed);
            !is_gone
        });
        drop(known);
        for route in routes {
            for result in CacheResult::ALL {
                let labels = [*route, result.label()];
                self.durations.forget(&labels);
                self.first_bytes.forget(&labels);
            }
        }
    }
}

/// Lets the registry own what `Metrics` uses too.
pub(super) struct RequestsCollector(pub(super) Arc<Requests>);

impl Collector for RequestsCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.0.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let routes: Vec<_> = self.0.routes.lock().pairs.values().cloned().collect();
        let mut requests = Vec::new();
        let mut by_result: BTreeMap<&str, [u64; RESULTS]> = BTreeMap::new();
        for route in &routes {
            let results = by_result.entry(&route.route).or_default();
            route.each(|method, status, result, count| {
                let status = StatusLabel::text(status);
                requests.push(super::counter(
                    &super::REQUESTS,
                    &[&route.listener, &route.route, method.label(), &status, result.label()],
                    count,
                ));
                results[result.index()] += count;
            });
        }
        let mut cache = Vec::new();
        for (route, counts) in by_result {
            for &result in CacheResult::ALL {
                let count = counts[result.index()];
                // What did not reach the cache is no request to it.
                if count > 0 && result != CacheResult::None {
                    let labels = [route, result.label()];
                    cache.push(super::counter(&super::CACHE_REQUESTS, &labels, count));
                }
            }
        }
        let family = |definition: &Definition, metrics| super::family(definition, metrics);
        vec![family(&super::REQUESTS, requests), family(&super::CACHE_REQUESTS, cache)]
    }
}

/// The counters of every route on every listener of one configuration, by their places in it.
#[derive(Debug)]
pub struct RouteTable {
    columns: usize,
    cells: Vec<Arc<RouteMetrics>>,
}

impl RouteTable {
    pub(super) fn new(requests: &Requests, listeners: &[&str], routes: &[&str]) -> Self {
        // The last column is for requests that matched no route: an empty label.
        let columns = routes.iter().copied().chain([""]);
        Self {
            columns: routes.len() + 1,
            cells: listeners
                .iter()
                .flat_map(|listener| columns.clone().map(|route| requests.route(listener, route)))
                .collect(),
        }
    }

    /// The counters of a request: the places of its listener and, if one matched, its route. `None`
    /// when the configuration has no such listener.
    #[must_use]
    pub fn of(&self, listener: usize, route: Option<usize>) -> Option<&RouteMetrics> {
        let last = self.columns - 1;
        let column = route.unwrap_or(last).min(last);
        let at = listener.checked_mul(self.columns)?.checked_add(column)?;
        self.cells.get(at).map(Arc::as_ref)
    }
}
