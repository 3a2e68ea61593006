//! Counters by a word, found without the lock of the library's own table: each request may count here.

use std::sync::OnceLock;

use prometheus::IntCounter;
use prometheus::IntCounterVec;

/// How many words are found at once. There are fewer: they are labels of enums.
const WORDS: usize = 128;

/// A counter for each word that was ever counted.
pub(super) struct Reasons {
    all: IntCounterVec,
    /// Those that are known by now, from the front on; they never change.
    known: [OnceLock<(&'static str, IntCounter)>; WORDS],
}

impl Reasons {
    pub(super) fn new(all: IntCounterVec) -> Self {
        Self { all, known: [const { OnceLock::new() }; WORDS] }
    }

    /// Counts this word.
    pub(super) fn count(&self, reason: &'static str) {
        for known in &self.known {
            let new = || (reason, self.all.with_label_values(&[reason]));
            let (word, counter) = known.get_or_init(new);
            if *word == reason {
                return counter.inc();
            }
        }
        self.all.with_label_values(&[reason]).inc();
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
        assert_eq!(reasons.known.iter().filter_map(OnceLock::get).count(), 2);
    }

    #[test]
    fn more_words_than_are_found_at_once_are_counted_all_the_same() {
        let all = IntCounterVec::new(Opts::new("a", "b"), &["reason"]).expect("it is well-formed");
        let reasons = Reasons::new(all.clone());
        let words = || (0..WORDS + 2).map(|word| &*format!("word-{word}").leak());
        words().chain(words()).for_each(|word| reasons.count(word));
        assert!(words().all(|word| all.with_label_values(&[word]).get() == 2));
    }
}
