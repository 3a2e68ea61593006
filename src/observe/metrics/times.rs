//! Histograms of times, one for each set of label values.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use prometheus::core::Collector;
use prometheus::core::Desc;
use prometheus::proto;
use prometheus::proto::MetricFamily;

use super::BUCKETS;
use super::Definition;
use super::lanes::Laned;

/// Where the sum stands behind the buckets and the one for what is beyond them all.
const SUM: usize = BUCKETS.len() + 1;

/// How long something took, each time.
#[derive(Debug)]
pub(super) struct Times(Laned);

impl Times {
    fn new() -> Self {
        Self(Laned::new(SUM + 1))
    }

    /// It took this long.
    pub(super) fn observe(&self, time: Duration) {
        let seconds = time.as_secs_f64();
        let bucket = BUCKETS.partition_point(|bound| *bound < seconds);
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.0.add([(bucket, 1), (SUM, nanos)]);
    }

    /// What is told of it.
    fn told(&self) -> proto::Histogram {
        let mut count = 0;
        let mut upto = |at| {
            count += self.0.get(at);
            count
        };
        let buckets = BUCKETS.iter().enumerate().map(|(at, bound)| {
            let mut bucket = proto::Bucket::default();
            bucket.set_upper_bound(*bound);
            bucket.set_cumulative_count(upto(at));
            bucket
        });
        let buckets = buckets.collect();
        let count = upto(BUCKETS.len());
        let mut told = proto::Histogram::default();
        told.set_bucket(buckets);
        told.set_sample_count(count);
        told.set_sample_sum(Duration::from_nanos(self.0.get(SUM)).as_secs_f64());
        told
    }
}

/// By the values of the labels.
type Known = BTreeMap<Vec<Box<str>>, Arc<Times>>;

/// All times of a metric, by the values of its labels.
#[derive(Clone)]
pub(super) struct TimesVec {
    definition: &'static Definition,
    description: Desc,
    known: Arc<Mutex<Known>>,
}

impl fmt::Debug for TimesVec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TimesVec").field("name", &self.definition.name).finish_non_exhaustive()
    }
}

impl TimesVec {
    pub(super) fn new(definition: &'static Definition) -> Self {
        Self { definition, description: definition.description(), known: Arc::default() }
    }

    /// Those with these labels.
    pub(super) fn of(&self, labels: &[&str]) -> Arc<Times> {
        let mut known = self.known.lock();
        let times = known.entry(key(labels)).or_insert_with(|| Arc::new(Times::new()));
        Arc::clone(times)
    }

    /// Forgets those with these labels.
    pub(super) fn forget(&self, labels: &[&str]) {
        self.known.lock().remove(&key(labels));
    }
}

fn key(labels: &[&str]) -> Vec<Box<str>> {
    labels.iter().map(|&label| label.into()).collect()
}

impl Collector for TimesVec {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.description]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let known = self.known.lock();
        let metrics = known.iter().map(|(labels, times)| {
            let labels: Vec<_> = labels.iter().map(|label| &**label).collect();
            let mut metric = super::labelled(self.definition, &labels);
            // By their names, as the library tells the labels of its own.
            let mut pairs = metric.take_label();
            pairs.sort_by(|one, other| one.name().cmp(other.name()));
            metric.set_label(pairs);
            metric.set_histogram(times.told());
            metric
        });
        vec![super::family(self.definition, metrics.collect())]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_counts_in_its_bucket_and_all_above() {
        let times = Times::new();
        for micros in [50, 100, 101, 2_000_000, 100_000_000] {
            times.observe(Duration::from_micros(micros));
        }
        let told = times.told();
        assert_eq!(told.get_sample_count(), 5);
        assert!((told.get_sample_sum() - 102.000_251).abs() < 1e-9);
        let counts: Vec<_> = told
            .get_bucket()
            .iter()
            .map(|bucket| (bucket.upper_bound(), bucket.cumulative_count()))
            .collect();
        // A bound belongs to its bucket.
        assert_eq!(counts[..2], [(0.0001, 2), (0.000_25, 3)]);
        assert_eq!(counts[12..14], [(1.0, 3), (2.5, 4)]);
        assert_eq!(counts[17], (60.0, 4));
        assert_eq!(counts.len(), BUCKETS.len());
    }

    #[test]
    fn they_are_told_as_the_library_tells_its_own() {
        let definition = &crate::observe::metrics::DURATION;
        let (ours, theirs) = (TimesVec::new(definition), {
            let opts = prometheus::HistogramOpts::new(definition.name, definition.help);
            prometheus::HistogramVec::new(opts.buckets(BUCKETS.to_vec()), definition.labels)
                .expect("it is well-formed")
        });
        for (route, result) in [("b", "hit"), ("a", "miss"), ("a", "hit")] {
            ours.of(&[route, result]);
            // Halves, quarters and eighths have no rounding.
            for millis in [0, 125, 250, 500, 1_000, 60_000, 61_000, 3_600_000] {
                let time = Duration::from_millis(millis);
                ours.of(&[route, result]).observe(time);
                theirs.with_label_values(&[route, result]).observe(time.as_secs_f64());
            }
        }
        let text = |of: Box<dyn Collector>| {
            let all = prometheus::Registry::new();
            all.register(of).expect("it is the only one");
            prometheus::TextEncoder::new().encode_to_string(&all.gather()).expect("it is text")
        };
        assert_eq!(text(Box::new(ours)), text(Box::new(theirs)));
    }

    #[test]
    fn labels_keep_times_apart_until_they_are_forgotten() {
        let all = TimesVec::new(&crate::observe::metrics::DURATION);
        all.of(&["a", "hit"]).observe(Duration::from_secs(1));
        all.of(&["b", "hit"]);
        let counts = || -> Vec<_> {
            let families = all.collect();
            let metrics = families[0].get_metric().iter();
            let counts = metrics.map(|metric| {
                let label = metric.get_label()[1].value().to_owned();
                (label, metric.get_histogram().get_sample_count())
            });
            counts.collect()
        };
        assert_eq!(counts(), [("a".to_owned(), 1), ("b".to_owned(), 0)]);
        all.forget(&["a", "hit"]);
        assert_eq!(counts(), [("b".to_owned(), 0)]);
    }
}
