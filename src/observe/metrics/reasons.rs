//! Counters by a word, found without the lock of the library's own table: each request may count here.

use std::sync::Arc;

use arc_swap::ArcSwap;
use prometheus::IntCounter;
use prometheus::IntCounterVec;

/// A counter for each word that was ever counted.
pub(super) struct Reasons {
    all: IntCounterVec,
    /// Those that are known by now. There are few: they are labels of enums.
    known: ArcSwap<Vec<(&'static str, IntCounter)>>,
}

impl Reasons {
    pub(super) fn new(all: IntCounterVec) -> Self {
        Self { all, known: ArcSwap::default() }
    }

    /// Counts this word.
    pub(super) fn count(&self, reason: &'static str) {
        let known = self.known.load();
        if let Some((_, counter)) = known.iter().find(|(word, _)| *word == reason) {
            counter.inc();
            return;
        }
        let counter = self.all.with_label_values(&[reason]);
        counter.inc();
        self.known.rcu(|known| {
            let mut more = Vec::clone(known);
            if !more.iter().any(|(word, _)| *word == reason) {
                more.push((reason, counter.clone()));
            }
            Arc::new(more)
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus::Opts;

    #[test]
    fn each_word_is_counted_by_itself_whoever_counts_it_first() {
        let all = IntCounterVec::new(Opts::new("a", "b"), &["reason"]).expect("it is well-formed");
        let reasons = Reasons::new(all.clone());
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        reasons.count("private");
                        reasons.count("no-store");
                    }
                });
            }
        });
        reasons.count("private");
        let counted = |reason| all.with_label_values(&[reason]).get();
        assert_eq!((counted("private"), counted("no-store"), counted("route")), (401, 400, 0));
        assert_eq!(reasons.known.load().len(), 2);
    }
}
