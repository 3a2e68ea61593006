//! Which rules about queries the responses of an origin had lately (`No-Vary-Search`), so that what is
//! stored under them is found: a table of a bounded size.
//!
//! A rule that is not here is as good as not said. So a rule that was let go and comes back is another one,
//! with another number in its keys: what was stored under it before, which purges did not reach meanwhile,
//! is never found again.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use parking_lot::RwLock;

use crate::cache::search::Variance;
use crate::storage::memory::Generation;

/// The most rules of one origin: each is one more place to look.
const MOST_OF_ONE: usize = 8;
/// The most rules in all.
const MOST: usize = 512;
/// A rule makes room for another when nobody used it for so long.
const UNUSED: Duration = Duration::from_secs(3600);

/// A rule of an origin.
#[derive(Debug)]
pub struct Rule {
    /// What it says.
    pub variance: Variance,
    /// Its number among all that ever were.
    pub number: u64,
    /// Where the sequence of purges stood when it was remembered: those before did not reach what is stored
    /// under it.
    since: Generation,
    /// When it was last used, in seconds since the table was made.
    used: AtomicU64,
}

/// Rules by origin.
type Table = HashMap<Box<[u8]>, Vec<Arc<Rule>>>;

/// The rules that are remembered.
#[derive(Debug)]
pub struct Variances {
    rules: RwLock<Table>,
    /// How many there are: most sites have none, and look no further.
    count: AtomicUsize,
    last: AtomicU64,
    began: Instant,
}

impl Default for Variances {
    fn default() -> Self {
        Self {
            rules: RwLock::default(),
            count: AtomicUsize::new(0),
            last: AtomicU64::new(0),
            began: Instant::now(),
        }
    }
}

impl Variances {
    /// Whether no origin has any, as far as a request that looks for an answer needs to know. A purge asks
    /// for the rules themselves.
    pub fn is_empty(&self) -> bool {
        self.count.load(Ordering::Acquire) == 0
    }

    /// The rules of an origin.
    pub fn of(&self, origin: &[u8]) -> Vec<Arc<Rule>> {
        self.rules.read().get(origin).cloned().unwrap_or_default()
    }

    /// What stands under the rule answers a request again.
    pub fn note_use(&self, rule: &Rule, now: Instant) {
        rule.used.store(self.seconds(now), Ordering::Relaxed);
    }

    /// The rule by which a response of this origin is stored that was asked for when the sequence of purges
    /// stood at `asked`. It is remembered from now on, if there is room. `None`: the response is stored
    /// for its own URL alone.
    ///
    /// `stands` says where the sequence stands. A purge moves it before it looks for rules; so either it
    /// finds this one, or what was asked for before it is not stored under it.
    pub fn learn(
        &self,
        origin: &[u8],
        variance: Variance,
        asked: Generation,
        stands: impl FnOnce() -> Generation,
        now: Instant,
    ) -> Option<Arc<Rule>> {
        let known = |rules: &[Arc<Rule>]| rules.iter().find(|r| r.variance == variance).cloned();
        let known_already = self.rules.read().get(origin).and_then(|rules| known(rules));
        if let Some(rule) = known_already {
            self.note_use(&rule, now);
            return (rule.since <= asked).then_some(rule);
        }
        let mut rules = self.rules.write();
        if let Some(rule) = rules.get(origin).and_then(|rules| known(rules)) {
            return (rule.since <= asked).then_some(rule);
        }
        if !self.make_room(&mut rules, origin, now) {
            return None;
        }
        let rule = Arc::new(Rule {
            variance,
            number: self.last.fetch_add(1, Ordering::Relaxed) + 1,
            since: stands(),
            used: AtomicU64::new(self.seconds(now)),
        });
        rules.entry(origin.into()).or_default().push(Arc::clone(&rule));
        self.count.fetch_add(1, Ordering::AcqRel);
        (rule.since <= asked).then_some(rule)
    }

    /// Whether there is room for one more rule of this origin, by now.
    fn make_room(&self, rules: &mut Table, origin: &[u8], now: Instant) -> bool {
        let is_full = |rules: &Table| {
            rules.get(origin).is_some_and(|own| own.len() >= MOST_OF_ONE)
                || self.count.load(Ordering::Acquire) >= MOST
        };
        if is_full(rules) {
            let now = self.seconds(now);
            rules.retain(|_, own| {
                own.retain(|rule| {
                    now.saturating_sub(rule.used.load(Ordering::Relaxed)) < UNUSED.as_secs()
                });
                !own.is_empty()
            });
            self.count.store(rules.values().map(Vec::len).sum(), Ordering::Release);
        }
        !is_full(rules)
    }

    fn seconds(&self, at: Instant) -> u64 {
        at.saturating_duration_since(self.began).as_secs()
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;
    use http::HeaderValue;

    use super::*;
    use crate::cache::search::NO_VARY_SEARCH;
    use crate::storage::memory::Memory;
    use crate::storage::memory::Options;

    fn rule(number: usize) -> Variance {
        let mut headers = HeaderMap::new();
        let value = HeaderValue::try_from(format!("params=(\"p{number}\")")).unwrap();
        headers.insert(NO_VARY_SEARCH, value);
        Variance::of(&headers).unwrap()
    }

    fn at(purges: usize) -> Generation {
        let memory = Memory::new(Options::with_limit(1 << 20));
        for _ in 0..purges {
            memory.purge(b"x");
        }
        memory.generation()
    }

    fn learn(table: &Variances, origin: &str, number: usize, now: Instant) -> Option<Arc<Rule>> {
        let start = at(0);
        table.learn(origin.as_bytes(), rule(number), start, || start, now)
    }

    #[test]
    fn a_rule_is_remembered_once_for_its_origin() {
        let table = Variances::default();
        let now = Instant::now();
        assert!(table.is_empty() && table.of(b"a").is_empty());
        let first = learn(&table, "a", 1, now).unwrap();
        let again = learn(&table, "a", 1, now).unwrap();
        assert!(Arc::ptr_eq(&first, &again) && table.of(b"a").len() == 1);
        let other = learn(&table, "b", 1, now).unwrap();
        assert!(other.number != first.number && table.of(b"a")[0].number == first.number);
    }

    #[test]
    fn what_is_full_stays_as_it_is_until_something_is_unused_for_an_hour() {
        let table = Variances::default();
        let now = Instant::now();
        let rules: Vec<_> = (0..MOST_OF_ONE).map(|n| learn(&table, "a", n, now).unwrap()).collect();
        assert!(learn(&table, "a", 100, now).is_none());
        let later = now + UNUSED;
        rules[1..].iter().for_each(|rule| table.note_use(rule, later));
        let new = learn(&table, "a", 100, later).unwrap();
        assert!(new.number > rules[MOST_OF_ONE - 1].number);
        assert!(table.of(b"a").iter().all(|rule| rule.number != rules[0].number));
        assert!(learn(&table, "a", 0, later).is_none(), "it would be another one");
    }

    #[test]
    fn strangers_take_no_more_than_there_is_and_drive_nobody_out() {
        let table = Variances::default();
        let now = Instant::now();
        learn(&table, "home", 1, now).unwrap();
        let taken = (0..2 * MOST).filter_map(|n| learn(&table, &format!("x{n}"), 1, now)).count();
        assert_eq!(taken, MOST - 1);
        assert_eq!(table.of(b"home").len(), 1);
    }

    #[test]
    fn what_was_asked_for_before_a_purge_that_missed_the_rule_is_not_stored_under_it() {
        let table = Variances::default();
        let now = Instant::now();
        // The purge came between the request and the rule.
        assert!(table.learn(b"a", rule(1), at(0), || at(1), now).is_none());
        assert!(table.learn(b"a", rule(1), at(0), || at(1), now).is_none());
        assert!(table.learn(b"a", rule(1), at(1), || at(1), now).is_some());
    }
}
