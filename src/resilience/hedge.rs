//! Hedged requests: a second one when the first takes longer than nearly all others do.
//!
//! The delay is a quantile of the latencies of a route, so that few requests are hedged; a budget
//! sees to it when latencies change faster than the quantile.

use std::array;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::resilience::budget;
use crate::resilience::budget::Budget;

/// Buckets in each power of two: a quantile is at most an eighth above the truth.
const FINE: usize = 8;

/// Powers of two that have buckets of their own, the first one from 2^[`FIRST`] microseconds.
const POWERS: usize = 20;

/// Latencies below 64 µs share the first bucket.
const FIRST: u32 = 6;

/// One for what is below, the rest for the powers. What is above 67 s is in the last one.
const BUCKETS: usize = 1 + POWERS * FINE;

/// When a route's requests are hedged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// The quantile of the latencies after which a request is hedged, in thousandths: 950.
    pub quantile: u32,
    /// No request is hedged sooner, however fast the others are.
    pub at_least: Duration,
    /// Over how long latencies are looked at.
    pub window: Duration,
    /// How many answers there have to be in that time before they say anything.
    pub samples: u32,
    /// How many hedges there may be.
    pub budget: budget::Settings,
}

impl Default for Settings {
    /// After 95 of 100, of half a minute and no fewer than 100, 10 ms at least; never more than 5 of 100.
    fn default() -> Self {
        Self {
            quantile: 950,
            at_least: Duration::from_millis(10),
            window: Duration::from_secs(30),
            samples: 100,
            budget: budget::Settings { percent: 5, minimum: 0 },
        }
    }
}

/// The hedging of one route.
#[derive(Debug)]
pub struct Hedge {
    settings: Settings,
    latencies: Latencies,
    budget: Budget,
}

impl Hedge {
    /// Nothing was asked for yet.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let latencies = Latencies::new(settings.window);
        Self { settings, latencies, budget: Budget::new(settings.budget) }
    }

    /// A request begins. After how long it may be hedged; `None` until enough is known.
    pub fn begin(&self, now: Duration) -> Option<Duration> {
        self.budget.deposit(now);
        self.delay(now)
    }

    /// After how long an attempt may be hedged that begins now; `None` until enough is known.
    #[must_use]
    pub fn delay(&self, now: Duration) -> Option<Duration> {
        let Settings { quantile, at_least, samples, .. } = self.settings;
        self.latencies.quantile(quantile, samples, now).map(|delay| delay.max(at_least))
    }

    /// Whether a request whose delay is over is hedged. If so, it is counted.
    #[must_use = "a hedge that was granted is counted"]
    pub fn may_hedge(&self, now: Duration) -> bool {
        self.budget.withdraw(now)
    }

    /// A request was answered, counted from its beginning, whoever answered it.
    pub fn observe(&self, latency: Duration, now: Duration) {
        self.latencies.observe(latency, now);
    }
}

/// Latencies of the last while, in buckets.
///
/// Two halves take turns: what is asked for is in the one that is being filled and the one before, so
/// it reaches back for between half of the while and the whole.
#[derive(Debug)]
pub struct Latencies {
    /// The length of a half in nanoseconds.
    half: u64,
    halves: [Half; 2],
}

#[derive(Debug)]
struct Half {
    /// The number of the turn that is counted here.
    turn: AtomicU64,
    counts: [AtomicU32; BUCKETS],
}

impl Latencies {
    /// Nothing was observed yet.
    #[must_use]
    pub fn new(window: Duration) -> Self {
        let half = u64::try_from(window.as_nanos() / 2).unwrap_or(u64::MAX).max(1);
        let empty =
            |_| Half { turn: AtomicU64::new(0), counts: array::from_fn(|_| AtomicU32::new(0)) };
        Self { half, halves: array::from_fn(empty) }
    }

    /// Counts a latency.
    pub fn observe(&self, latency: Duration, now: Duration) {
        let turn = self.turn(now);
        let half = &self.halves[(turn % 2) as usize];
        let seen = half.turn.load(Ordering::Relaxed);
        // One thread begins the turn. What others count at this moment may go with the old counts.
        if seen < turn
            && half.turn.compare_exchange(seen, turn, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        {
            for count in &half.counts {
                count.store(0, Ordering::Relaxed);
            }
        }
        half.counts[bucket(latency)].fetch_add(1, Ordering::Relaxed);
    }

    /// The latency that so many thousandths of all answers did not exceed, rounded up to the end of its
    /// bucket; `None` when there were fewer than `samples`.
    #[must_use]
    pub fn quantile(&self, thousandths: u32, samples: u32, now: Duration) -> Option<Duration> {
        let turn = self.turn(now);
        let is_recent = |half: usize| self.halves[half].turn.load(Ordering::Relaxed) + 1 >= turn;
        let recent = [is_recent(0), is_recent(1)];
        let count = |bucket: usize| -> u64 {
            let halves = self.halves.iter().zip(recent).filter(|(_, recent)| *recent);
            halves.map(|(half, _)| u64::from(half.counts[bucket].load(Ordering::Relaxed))).sum()
        };
        let total: u64 = (0..BUCKETS).map(count).sum();
        if total < u64::from(samples.max(1)) {
            return None;
        }
        let wanted = (total * u64::from(thousandths.min(1000))).div_ceil(1000).max(1);
        let mut so_far = 0;
        for bucket in 0..BUCKETS {
            so_far += count(bucket);
            if so_far >= wanted {
                return Some(upper_end(bucket));
            }
        }
        // Counts were cleared meanwhile.
        None
    }

    /// Turns are counted from 2, so that neither half is taken for the first one.
    fn turn(&self, now: Duration) -> u64 {
        let nanoseconds = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        (nanoseconds / self.half).saturating_add(2)
    }
}

fn bucket(latency: Duration) -> usize {
    let microseconds = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
    if microseconds < 1 << FIRST {
        return 0;
    }
    let power = microseconds.ilog2();
    // The three bits below the highest one.
    let fine = (microseconds >> (power - 3)) as usize % FINE;
    (1 + (power - FIRST) as usize * FINE + fine).min(BUCKETS - 1)
}

/// The first latency that is too long for the bucket.
fn upper_end(bucket: usize) -> Duration {
    let Some(above) = bucket.checked_sub(1) else {
        return Duration::from_micros(1 << FIRST);
    };
    let power = FIRST + (above / FINE) as u32;
    let eighths = (FINE + above % FINE + 1) as u64;
    Duration::from_micros(eighths << (power - 3))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WINDOW: Duration = Duration::from_secs(30);

    fn milliseconds(value: u64) -> Duration {
        Duration::from_millis(value)
    }

    #[test]
    fn buckets_follow_each_other_without_a_gap() {
        for bucket_number in 0..BUCKETS - 1 {
            let end = upper_end(bucket_number);
            assert_eq!(bucket(end), bucket_number + 1);
            assert_eq!(bucket(end - Duration::from_micros(1)), bucket_number);
        }
        assert_eq!(bucket(Duration::ZERO), 0);
        assert_eq!(bucket(Duration::MAX), BUCKETS - 1);
    }

    #[test]
    fn nothing_is_said_before_there_are_enough_answers() {
        let latencies = Latencies::new(WINDOW);
        for _ in 0..99 {
            latencies.observe(milliseconds(10), milliseconds(5));
        }
        assert_eq!(latencies.quantile(500, 100, milliseconds(5)), None);
        latencies.observe(milliseconds(10), milliseconds(5));
        assert!(latencies.quantile(500, 100, milliseconds(5)).is_some());
    }

    #[test]
    fn what_is_older_than_the_while_is_forgotten() {
        let latencies = Latencies::new(WINDOW);
        for _ in 0..200 {
            latencies.observe(milliseconds(500), milliseconds(14_000));
        }
        assert!(latencies.quantile(950, 100, milliseconds(29_999)).is_some());
        assert_eq!(latencies.quantile(950, 100, milliseconds(30_000)), None);
        for _ in 0..200 {
            latencies.observe(milliseconds(5), milliseconds(31_000));
        }
        let found = latencies.quantile(1000, 100, milliseconds(31_000)).expect("there are enough");
        assert!(found < milliseconds(7), "{found:?}");
    }

    #[test]
    fn hedges_are_few_even_when_all_are_slow() {
        let hedge = Hedge::new(Settings::default());
        let mut hedged = 0;
        for request in 0..10_000_u64 {
            let now = milliseconds(request);
            let delay = hedge.begin(now);
            // From the middle on all of them are slow.
            let latency = milliseconds(if request < 5000 { 10 } else { 1000 });
            let is_late = delay.is_some_and(|delay| delay < latency);
            hedged += u64::from(is_late && hedge.may_hedge(now));
            hedge.observe(latency, now);
        }
        assert!(hedged > 100, "{hedged}");
        assert!(hedged <= 10_000 / 20, "{hedged} of 10000");
    }

    #[test]
    fn no_request_is_hedged_before_its_least_delay() {
        let hedge = Hedge::new(Settings { samples: 1, ..Settings::default() });
        assert_eq!(hedge.begin(milliseconds(1)), None);
        hedge.observe(milliseconds(1), milliseconds(1));
        assert_eq!(hedge.begin(milliseconds(1)), Some(milliseconds(10)));
        hedge.observe(milliseconds(100), milliseconds(1));
        let delay = hedge.delay(milliseconds(1)).expect("there are enough");
        assert!(delay > milliseconds(100) && delay < milliseconds(115), "{delay:?}");
    }

    #[test]
    fn threads_that_observe_together_lose_nothing_within_a_turn() {
        let latencies = Latencies::new(WINDOW);
        latencies.observe(milliseconds(1), milliseconds(1));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for latency in 1..1000 {
                        latencies.observe(milliseconds(latency), milliseconds(2));
                    }
                });
            }
        });
        let total: u64 = latencies
            .halves
            .iter()
            .flat_map(|half| &half.counts)
            .map(|count| u64::from(count.load(Ordering::Relaxed)))
            .sum();
        assert_eq!(total, 1 + 4 * 999);
    }

    proptest! {
        #[test]
        fn a_quantile_is_at_most_an_eighth_above_the_truth(
            mut all in proptest::collection::vec(64_u64..60_000_000, 100..400),
            thousandths in 1_u32..=1000,
        ) {
            let latencies = Latencies::new(WINDOW);
            for &microseconds in &all {
                latencies.observe(Duration::from_micros(microseconds), milliseconds(1));
            }
            all.sort_unstable();
            let rank = (all.len() * thousandths as usize).div_ceil(1000).max(1);
            let truth = all[rank - 1];
            let found = latencies.quantile(thousandths, 100, milliseconds(1)).expect("there are enough");
            let found = found.as_micros() as u64;
            prop_assert!(found > truth && found <= truth + truth / 8 + 1, "{found} for {truth}");
        }

        #[test]
        fn within_any_ten_seconds_no_more_is_hedged_than_the_budget_has(
            percent in 0_u32..=50,
            arrivals in proptest::collection::vec((0_u64..200, 1_u64..3000), 1..600),
        ) {
            let settings = Settings {
                samples: 5,
                budget: budget::Settings { percent, minimum: 0 },
                ..Settings::default()
            };
            let hedge = Hedge::new(settings);
            let (mut now, mut begun, mut hedged) = (0, Vec::new(), Vec::new());
            for (pause, latency) in arrivals {
                now += pause;
                let delay = hedge.begin(milliseconds(now));
                begun.push(now);
                if delay.is_some_and(|delay| delay < milliseconds(latency))
                    && hedge.may_hedge(milliseconds(now))
                {
                    hedged.push(now);
                }
                hedge.observe(milliseconds(latency), milliseconds(now));
            }
            for &last in &hedged {
                // Seconds are counted as wholes: what was begun in the one before may count yet.
                let lately = |all: &[u64], back: u64| {
                    all.iter().filter(|&&at| at <= last && at + back > last).count()
                };
                let most = lately(&begun, 10_000) * percent as usize / 100;
                prop_assert!(lately(&hedged, 9_000) <= most, "{most}");
            }
        }
    }
}
