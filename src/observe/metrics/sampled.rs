//! Numbers that others keep (the stores, the access log, the system), asked for when somebody looks.

use std::sync::Arc;

use parking_lot::Mutex;
use prometheus::core::Collector;
use prometheus::core::Desc;
use prometheus::proto::MetricFamily;

use super::CACHE_BYTES;
use super::CACHE_EVICTIONS;
use super::CACHE_FETCHES;
use super::CACHE_LIMIT;
use super::CACHE_OBJECTS;
use super::CacheUsage;
use super::Definition;
use super::LOG_DROPPED;
use super::PROCESS_CPU;
use super::PROCESS_FDS;
use super::PROCESS_MAX_FDS;
use super::PROCESS_RESIDENT;
use super::PROCESS_START;
use super::PROCESS_THREADS;
use super::PROCESS_VIRTUAL;
use super::TASKS;
use super::family;
use super::process;
use super::sample;

pub(super) type CacheWatch = Box<dyn Fn() -> Vec<CacheUsage> + Send + Sync>;
/// Asked for one number.
pub(super) type Watch = Box<dyn Fn() -> u64 + Send + Sync>;

/// Numbers that others keep and that are asked for when somebody looks.
pub(super) struct Sampled {
    tiers: Mutex<Vec<(String, CacheWatch)>>,
    fetches: Mutex<Option<Watch>>,
    log_dropped: Mutex<Option<Watch>>,
    tasks: Mutex<Option<Watch>>,
    started: f64,
    descriptions: Vec<Desc>,
}

/// What [`Sampled`] gives.
const SAMPLED: &[Definition] = &[
    CACHE_BYTES,
    CACHE_LIMIT,
    CACHE_OBJECTS,
    CACHE_EVICTIONS,
    CACHE_FETCHES,
    LOG_DROPPED,
    TASKS,
    PROCESS_CPU,
    PROCESS_RESIDENT,
    PROCESS_VIRTUAL,
    PROCESS_THREADS,
    PROCESS_FDS,
    PROCESS_MAX_FDS,
    PROCESS_START,
];

impl Sampled {
    pub(super) fn new(started: f64) -> Self {
        Self {
            tiers: Mutex::default(),
            fetches: Mutex::default(),
            log_dropped: Mutex::default(),
            tasks: Mutex::default(),
            started,
            descriptions: SAMPLED.iter().map(Definition::description).collect(),
        }
    }

    pub(super) fn watch_cache(&self, tier: &str, usage: CacheWatch) {
        let mut tiers = self.tiers.lock();
        tiers.retain(|(name, _)| name != tier);
        tiers.push((tier.to_owned(), usage));
    }

    pub(super) fn watch_fetches(&self, running: Watch) {
        *self.fetches.lock() = Some(running);
    }

    pub(super) fn watch_access_log(&self, dropped: Watch) {
        *self.log_dropped.lock() = Some(dropped);
    }

    pub(super) fn watch_tasks(&self, running: Watch) {
        *self.tasks.lock() = Some(running);
    }

    fn cache(&self) -> Vec<MetricFamily> {
        let tiers = self.tiers.lock();
        let usages: Vec<_> = tiers.iter().map(|(name, usage)| (name, usage())).collect();
        let family_of = |definition: &Definition, number: fn(&CacheUsage) -> u64| {
            let of_zones =
                usages.iter().flat_map(|(tier, zones)| zones.iter().map(move |zone| (tier, zone)));
            let metrics = of_zones.map(|(tier, usage)| {
                sample(definition, &[tier.as_str(), usage.zone.as_str()], number(usage) as f64)
            });
            family(definition, metrics.collect())
        };
        vec![
            family_of(&CACHE_BYTES, |usage| usage.bytes),
            family_of(&CACHE_LIMIT, |usage| usage.limit),
            family_of(&CACHE_OBJECTS, |usage| usage.objects),
            family_of(&CACHE_EVICTIONS, |usage| usage.evictions),
        ]
    }

    fn plain(&self) -> impl Iterator<Item = MetricFamily> {
        let told = |watch: &Mutex<Option<Watch>>| watch.lock().as_ref().map_or(0, |watch| watch());
        let usage = process::Usage::now();
        let whole = |number: Option<u64>| number.map(|number| number as f64);
        [
            (CACHE_FETCHES, whole(Some(told(&self.fetches)))),
            (LOG_DROPPED, whole(Some(told(&self.log_dropped)))),
            (TASKS, whole(Some(told(&self.tasks)))),
            (PROCESS_CPU, usage.cpu_seconds),
            (PROCESS_RESIDENT, whole(usage.resident_bytes)),
            (PROCESS_VIRTUAL, whole(usage.virtual_bytes)),
            (PROCESS_THREADS, whole(usage.threads)),
            (PROCESS_FDS, whole(usage.open_fds)),
            (PROCESS_MAX_FDS, whole(usage.max_fds)),
            (PROCESS_START, Some(self.started)),
        ]
        .into_iter()
        .filter_map(|(definition, value)| {
            value.map(|value| family(&definition, vec![sample(&definition, &[], value)]))
        })
    }
}

/// Lets the registry own what `Metrics` uses too.
pub(super) struct SampledCollector(pub(super) Arc<Sampled>);

impl Collector for SampledCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.0.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut families = self.0.cache();
        families.extend(self.0.plain());
        families
    }
}
