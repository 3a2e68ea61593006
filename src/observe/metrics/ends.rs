//! When the certificates of listeners end, asked for when somebody looks.

use std::sync::Arc;

use parking_lot::Mutex;
use prometheus::core::Collector;
use prometheus::core::Desc;
use prometheus::proto::MetricFamily;

use super::TLS_EXPIRY;
use super::family;
use super::labels::Ending;
use super::labels::Label;
use super::sample;

/// When the first of a listener's certificates, or of its lists of revoked clients, ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndSample {
    /// The listener.
    pub listener: Arc<str>,
    /// What of it ends.
    pub what: Ending,
    /// When, in seconds since the epoch.
    pub at: i64,
}

type Watch = Box<dyn Fn() -> Vec<EndSample> + Send + Sync>;

/// Who asks for the samples.
pub(super) struct Ends {
    watch: Mutex<Option<Watch>>,
    description: Desc,
}

impl Ends {
    pub(super) fn new() -> Self {
        Self { watch: Mutex::default(), description: TLS_EXPIRY.description() }
    }

    pub(super) fn watch(&self, watch: Watch) {
        *self.watch.lock() = Some(watch);
    }
}

/// Lets the registry own what `Metrics` uses too.
pub(super) struct EndsCollector(pub(super) Arc<Ends>);

impl Collector for EndsCollector {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.0.description]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let samples = self.0.watch.lock().as_ref().map(|watch| watch()).unwrap_or_default();
        let metrics: Vec<_> = samples
            .iter()
            .map(|one| sample(&TLS_EXPIRY, &[&*one.listener, one.what.label()], one.at as f64))
            .collect();
        if metrics.is_empty() { Vec::new() } else { vec![family(&TLS_EXPIRY, metrics)] }
    }
}
