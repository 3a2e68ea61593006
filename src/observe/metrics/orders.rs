//! What is known of certificates that an ACME server issues, asked for when somebody looks.

use std::sync::Arc;

use parking_lot::Mutex;
use prometheus::core::Collector;
use prometheus::core::Desc;
use prometheus::proto::MetricFamily;

use super::ACME_EXPIRY;
use super::ACME_FAILURES;
use super::ACME_ORDERS;
use super::ACME_SUCCESS;
use super::Definition;
use super::family;
use super::sample;

/// What is known of one certificate at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct OrderSample {
    /// Its hosts.
    pub hosts: String,
    /// Orders of this process that succeeded.
    pub issued: u64,
    /// Orders of this process that failed.
    pub failed: u64,
    /// How many failed in a row.
    pub failures: u32,
    /// When one last succeeded, in seconds since the epoch.
    pub succeeded: Option<u64>,
    /// The end of what was issued, in seconds since the epoch.
    pub expires: Option<u64>,
}

type Watch = Box<dyn Fn() -> Vec<OrderSample> + Send + Sync>;

/// What [`Orders`] gives.
const SAMPLED: &[Definition] = &[ACME_ORDERS, ACME_FAILURES, ACME_SUCCESS, ACME_EXPIRY];

/// Who asks for the samples.
pub(super) struct Orders {
    watch: Mutex<Option<Watch>>,
    descriptions: Vec<Desc>,
}

impl Orders {
    pub(super) fn new() -> Self {
        let descriptions = SAMPLED.iter().map(Definition::description).collect();
        Self { watch: Mutex::default(), descriptions }
    }

    pub(super) fn watch(&self, watch: Watch) {
        *self.watch.lock() = Some(watch);
    }
}

/// Lets the registry own what `Metrics` uses too.
pub(super) struct OrdersCollector(pub(super) Arc<Orders>);

impl Collector for OrdersCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.0.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let samples = self.0.watch.lock().as_ref().map(|watch| watch()).unwrap_or_default();
        let results = samples.iter().flat_map(|one| {
            [("issued", one.issued), ("failed", one.failed)].map(|(result, count)| {
                sample(&ACME_ORDERS, &[one.hosts.as_str(), result], count as f64)
            })
        });
        let family_of = |definition: &Definition, number: fn(&OrderSample) -> Option<f64>| {
            let metrics = samples
                .iter()
                .filter_map(|one| Some(sample(definition, &[one.hosts.as_str()], number(one)?)));
            family(definition, metrics.collect())
        };
        let families = vec![
            family(&ACME_ORDERS, results.collect()),
            family_of(&ACME_FAILURES, |one| Some(f64::from(one.failures))),
            family_of(&ACME_SUCCESS, |one| one.succeeded.map(|moment| moment as f64)),
            family_of(&ACME_EXPIRY, |one| one.expires.map(|moment| moment as f64)),
        ];
        families.into_iter().filter(|family| !family.get_metric().is_empty()).collect()
    }
}
