//! When a certificate is ordered, and how long to wait after a failure. Pure: time and chance are arguments.

use std::fmt;
use std::time::Duration;
use std::time::SystemTime;

/// The longest wait after failures.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// The shortest wait after the server said that there were too many orders, when it does not say until when.
const LIMITED: Duration = Duration::from_secs(3600);

/// What is known of a certificate that may be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// The certificate that is kept, if there is one for these hosts.
    pub kept: Option<Validity>,
    /// When the server asks us to renew it (RFC 9773).
    pub suggested: Option<SystemTime>,
    /// Not to be tried before this.
    pub again: Option<SystemTime>,
}

/// From when to when a certificate is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// The first moment.
    pub from: SystemTime,
    /// The last one.
    pub until: SystemTime,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Order now.
    Order(Why),
    /// Nothing before this.
    Wait(SystemTime),
}

/// Why a certificate is ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// There is none.
    Missing,
    /// Two thirds of its life are over.
    Due,
    /// The server asks for it.
    Asked,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missing => "there is none yet",
            Self::Due => "two thirds of its life are over",
            Self::Asked => "the server asks for it",
        })
    }
}

/// What came of the last attempt, when it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// In a way that says nothing about the next attempt.
    Plain,
    /// There were too many orders (RFC 8555 §6.6).
    Limited,
    /// The server said until when nothing is to be tried.
    Until(SystemTime),
}

/// What is to be done about a certificate?
#[must_use]
pub fn next(facts: &Facts, now: SystemTime) -> Step {
    let (at, why) = match facts.kept {
        None => (now, Why::Missing),
        Some(validity) => {
            let due = validity.due();
            match facts.suggested {
                // An earlier moment is how servers have certificates replaced that they will revoke; a
                // later one, that renewals are spread. None is believed beyond the end.
                Some(asked) if asked < validity.until => (asked, Why::Asked),
                Some(_) | None => (due, Why::Due),
            }
        }
    };
    let at = facts.again.map_or(at, |again| at.max(again));
    if at <= now { Step::Order(why) } else { Step::Wait(at) }
}

impl Validity {
    /// When two thirds of it are over.
    #[must_use]
    pub fn due(self) -> SystemTime {
        let life = self.until.duration_since(self.from).unwrap_or_default();
        self.from + life / 3 * 2
    }
}

/// When an order is tried again that has failed so many times in a row, this one included. The wait begins
/// with `first` and doubles; up to a quarter of it is added by `chance`, from 0 to 1, so that nodes and hosts
/// do not come all at once.
#[must_use]
pub fn again(
    failures: u32,
    first: Duration,
    failure: Failure,
    chance: f64,
    now: SystemTime,
) -> SystemTime {
    let doublings = failures.saturating_sub(1).min(20);
    let wait = first.saturating_mul(1 << doublings).min(LONGEST);
    let wait = match failure {
        Failure::Plain | Failure::Until(_) => wait,
        Failure::Limited => wait.max(LIMITED),
    };
    let at = now + wait + wait.mul_f64(chance.clamp(0.0, 1.0) / 4.0);
    match failure {
        Failure::Plain | Failure::Limited => at,
        Failure::Until(moment) => at.max(moment),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::UNIX_EPOCH;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn kept(from: u64, until: u64) -> Facts {
        let kept = Some(Validity { from: at(from), until: at(until) });
        Facts { kept, suggested: None, again: None }
    }

    #[test]
    fn what_is_missing_is_ordered_at_once() {
        let facts = Facts { kept: None, suggested: None, again: None };
        assert_eq!(next(&facts, at(0)), Step::Order(Why::Missing));
    }

    #[test]
    fn a_certificate_is_renewed_at_two_thirds_of_its_life_and_not_a_second_sooner() {
        let facts = kept(1000, 1900);
        assert_eq!(next(&facts, at(1599)), Step::Wait(at(1600)));
        assert_eq!(next(&facts, at(1600)), Step::Order(Why::Due));
        assert_eq!(next(&facts, at(5000)), Step::Order(Why::Due));
    }

    #[test]
    fn the_server_says_when_sooner_or_later_but_not_beyond_the_end() {
        let facts = |asked| Facts { suggested: Some(at(asked)), ..kept(1000, 1900) };
        assert_eq!(next(&facts(1100), at(1099)), Step::Wait(at(1100)));
        assert_eq!(next(&facts(1100), at(1100)), Step::Order(Why::Asked));
        assert_eq!(next(&facts(1800), at(1700)), Step::Wait(at(1800)));
        assert_eq!(next(&facts(1900), at(1700)), Step::Order(Why::Due));
    }

    #[test]
    fn after_a_failure_nothing_is_tried_before_its_time() {
        let facts = Facts { kept: None, suggested: None, again: Some(at(50)) };
        assert_eq!(next(&facts, at(49)), Step::Wait(at(50)));
        assert_eq!(next(&facts, at(50)), Step::Order(Why::Missing));
    }

    #[test]
    fn the_wait_doubles_up_to_a_day() {
        let first = Duration::from_secs(300);
        let wait = |failures| again(failures, first, Failure::Plain, 0.0, at(0));
        assert_eq!([wait(0), wait(1), wait(2), wait(3)], [at(300), at(300), at(600), at(1200)]);
        assert_eq!([wait(9), wait(10), wait(u32::MAX)], [at(76_800), at(86_400), at(86_400)]);
    }

    #[test]
    fn what_the_server_says_counts_when_it_is_later() {
        let first = Duration::from_secs(300);
        let wait = |failure| again(1, first, failure, 0.0, at(0));
        assert_eq!(wait(Failure::Until(at(299))), at(300));
        assert_eq!(wait(Failure::Until(at(900))), at(900));
        assert_eq!(wait(Failure::Limited), at(3600));
    }

    proptest! {
        #[test]
        fn nothing_is_tried_again_sooner_than_was_meant(
            failures in 1_u32..40, first in 1_u64..100_000, chance in 0.0_f64..=1.0,
        ) {
            let first = Duration::from_secs(first);
            let wait = |failures, chance| again(failures, first, Failure::Plain, chance, at(0));
            prop_assert!(wait(failures, chance) >= at(0) + first.min(LONGEST));
            prop_assert!(wait(failures, chance) <= at(0) + LONGEST + LONGEST / 4);
            prop_assert!(wait(failures + 1, 0.0) >= wait(failures, 0.0));
        }

        #[test]
        fn a_step_is_never_to_wait_for_what_is_past(
            from in 0_u64..1000, life in 0_u64..1000, now in 0_u64..3000,
            suggested in proptest::option::of(0_u64..3000), again in proptest::option::of(0_u64..3000),
        ) {
            let facts = Facts {
                suggested: suggested.map(at),
                again: again.map(at),
                ..kept(from, from + life)
            };
            if let Step::Wait(until) = next(&facts, at(now)) {
                prop_assert!(until > at(now));
            }
        }
    }
}
