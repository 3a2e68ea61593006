//! The retry budget of a group: when everything fails, trying everything again makes it worse.

use std::time::Duration;

use crate::resilience::window::Count;
use crate::resilience::window::Counts;
use crate::resilience::window::Window;

/// Over how many seconds requests and retries are counted.
const SECONDS: u64 = 10;

/// How much may be tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Retries per hundred requests.
    pub percent: u32,
    /// Retries in each second that are allowed whatever the requests were, so that a group of few
    /// requests has some, too.
    pub minimum: u32,
}

impl Default for Settings {
    /// 20 percent, and 10 in a second.
    fn default() -> Self {
        Self { percent: 20, minimum: 10 }
    }
}

/// What one group may try again: in any ten seconds the percentage of its requests of that time, and
/// the minimum. Also for other requests that are not the client's own, as hedges.
#[derive(Debug)]
pub struct Budget {
    settings: Settings,
    window: Window,
}

impl Budget {
    /// Nothing was asked for yet.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self { settings, window: Window::new(Duration::from_secs(SECONDS)) }
    }

    /// A request of a client, once however often it is tried.
    pub fn deposit(&self, now: Duration) {
        self.window.add(Count::One, now);
    }

    /// Whether one may be tried again now. If so, it is counted.
    ///
    /// Threads that ask at the same time for what is left may all be refused, but never get more than
    /// there is.
    #[must_use = "what is withdrawn is spent"]
    pub fn withdraw(&self, now: Duration) -> bool {
        self.left(now) > 0 && self.take(now)
    }

    /// Counted first and then looked at: of two threads at least one sees both.
    fn take(&self, now: Duration) -> bool {
        self.window.add(Count::Noted, now);
        let counts = self.window.sum(now);
        let granted = counts.noted <= self.allowed(counts);
        if !granted {
            self.window.take_back(Count::Noted, now);
        }
        granted
    }

    /// How many more may be tried again now.
    #[must_use]
    pub fn left(&self, now: Duration) -> u64 {
        let counts = self.window.sum(now);
        self.allowed(counts).saturating_sub(counts.noted)
    }

    fn allowed(&self, counts: Counts) -> u64 {
        let minimum = u64::from(self.settings.minimum) * SECONDS;
        counts.all * u64::from(self.settings.percent) / 100 + minimum
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;
    use std::sync::atomic::Ordering;

    use proptest::prelude::*;

    use super::*;

    fn withdrawn(budget: &Budget, tries: u32, now: Duration) -> u32 {
        (0..tries).map(|_| u32::from(budget.withdraw(now))).sum()
    }

    #[test]
    fn a_fifth_of_the_requests_and_the_minimum_may_be_tried_again() {
        let budget = Budget::new(Settings::default());
        let now = Duration::from_secs(100);
        for _ in 0..1000 {
            budget.deposit(now);
        }
        assert_eq!(budget.left(now), 300);
        assert_eq!(withdrawn(&budget, 1000, now), 300);
        assert_eq!(budget.left(now), 0);
    }

    #[test]
    fn without_a_minimum_requests_alone_count() {
        let budget = Budget::new(Settings { percent: 20, minimum: 0 });
        let now = Duration::ZERO;
        assert!(!budget.withdraw(now));
        for _ in 0..4 {
            budget.deposit(now);
        }
        assert!(!budget.withdraw(now));
        budget.deposit(now);
        assert!(budget.withdraw(now));
        assert!(!budget.withdraw(now));
    }

    #[test]
    fn what_was_spent_comes_back_after_ten_seconds() {
        let budget = Budget::new(Settings { percent: 0, minimum: 1 });
        assert_eq!(withdrawn(&budget, 50, Duration::from_secs(5)), 10);
        assert_eq!(withdrawn(&budget, 50, Duration::from_millis(14_999)), 0);
        assert_eq!(withdrawn(&budget, 50, Duration::from_secs(15)), 10);
    }

    #[test]
    fn threads_never_get_more_than_there_is() {
        let budget = Budget::new(Settings { percent: 0, minimum: 100 });
        let granted = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for step in 0..5000_u64 {
                        let now = Duration::from_micros(step * 1000);
                        granted.fetch_add(u64::from(budget.withdraw(now)), Ordering::Relaxed);
                    }
                });
            }
        });
        let granted = granted.into_inner();
        // Those who met at the very end may have been refused.
        assert!((900..=1000).contains(&granted), "{granted}");
    }

    #[test]
    fn who_saw_one_left_but_comes_too_late_is_refused_and_takes_nothing() {
        let budget = Budget::new(Settings { percent: 0, minimum: 1 });
        let now = Duration::from_secs(3);
        let granted: Vec<bool> = (0..12).map(|_| budget.take(now)).collect();
        assert_eq!(granted.iter().filter(|granted| **granted).count(), 10);
        assert!(granted[9] && !granted[10] && !granted[11]);
        assert_eq!(budget.window.sum(now).noted, 10);
    }

    proptest! {
        #[test]
        fn in_no_ten_seconds_more_is_tried_again_than_the_budget_says(
            percent in 0_u32..100,
            minimum in 0_u32..3,
            steps in proptest::collection::vec((0_u64..600, any::<bool>()), 1..400),
        ) {
            let budget = Budget::new(Settings { percent, minimum });
            let mut now = 0;
            let mut happened = Vec::new();
            for (step, retry) in steps {
                now += step;
                let at = Duration::from_millis(now);
                if !retry {
                    budget.deposit(at);
                    happened.push((now, false));
                } else if budget.withdraw(at) {
                    happened.push((now, true));
                    // Of nine seconds for certain: the oldest part of ten goes as a whole.
                    let of = |from: u64, kind: bool| {
                        happened.iter().filter(|(at, was)| at + from > now && *was == kind).count() as u64
                    };
                    let most = of(10_000, false) * u64::from(percent) / 100 + u64::from(minimum) * 10;
                    prop_assert!(of(9_000, true) <= most);
                }
            }
        }
    }
}
