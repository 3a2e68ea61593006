//! When an entry came, and for how long it may serve.

use std::time::Duration;
use std::time::SystemTime;

/// The times of a stored response, as the policy computed them when it arrived or was last
/// validated. The tier keeps them to the nanosecond and judges nothing by them but what to sweep.
///
/// Times before 1970 and after the year 2554 are kept as these bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// When the response was first stored; a validation leaves it alone.
    pub created: SystemTime,
    /// When the response, or the 304 that last validated it, arrived (RFC 9111 §4.2.3
    /// `response_time`).
    pub responded: SystemTime,
    /// The freshness lifetime (RFC 9111 §4.2.1).
    pub lifetime: Duration,
    /// The age it had on arrival (RFC 9111 §4.2.3 `corrected_initial_age`).
    pub age: Duration,
    /// For how long after it became stale it may be served while it is validated (RFC 5861 §3).
    pub while_revalidate: Duration,
    /// For how long after it became stale it may be served when the origin fails (RFC 5861 §4).
    pub if_error: Duration,
}

impl Times {
    /// The instant from which it is stale: arrival, less its age then, plus its lifetime.
    pub fn fresh_until(&self) -> SystemTime {
        Packed::from(*self).fresh_until()
    }

    /// The instant at which its age was zero.
    pub fn epoch(&self) -> SystemTime {
        instant(nanos_since_1970(self.responded).saturating_sub(nanos(self.age)))
    }

    /// Its age at `now` (RFC 9111 §4.2.3 `current_age`). A clock that was set back adds nothing.
    pub fn current_age(&self, now: SystemTime) -> Duration {
        self.age.saturating_add(now.duration_since(self.responded).unwrap_or_default())
    }
}

/// [`Times`] in half the space: nanoseconds, instants counted from 1970.
#[derive(Debug, Clone, Copy)]
pub(super) struct Packed {
    created: u64,
    responded: u64,
    lifetime: u64,
    age: u64,
    while_revalidate: u64,
    if_error: u64,
}

impl Packed {
    /// See [`Times::fresh_until`].
    pub(super) fn fresh_until(&self) -> SystemTime {
        instant(self.fresh_until_nanos())
    }

    /// [`Times::fresh_until`] in nanoseconds since 1970.
    pub(super) fn fresh_until_nanos(&self) -> u64 {
        self.responded.saturating_add(self.lifetime).saturating_sub(self.age)
    }

    /// All of it, in the order of its fields.
    pub(super) fn numbers(&self) -> [u64; 6] {
        let Self { created, responded, lifetime, age, while_revalidate, if_error } = *self;
        [created, responded, lifetime, age, while_revalidate, if_error]
    }

    /// The inverse of [`Self::numbers`].
    pub(super) fn of_numbers(numbers: [u64; 6]) -> Self {
        let [created, responded, lifetime, age, while_revalidate, if_error] = numbers;
        Self { created, responded, lifetime, age, while_revalidate, if_error }
    }

    /// The longer of the two windows in which a stale response may serve, in nanoseconds.
    pub(super) fn longest_window_nanos(&self) -> u64 {
        self.while_revalidate.max(self.if_error)
    }
}

impl From<Times> for Packed {
    fn from(times: Times) -> Self {
        Self {
            created: nanos_since_1970(times.created),
            responded: nanos_since_1970(times.responded),
            lifetime: nanos(times.lifetime),
            age: nanos(times.age),
            while_revalidate: nanos(times.while_revalidate),
            if_error: nanos(times.if_error),
        }
    }
}

impl From<Packed> for Times {
    fn from(packed: Packed) -> Self {
        Self {
            created: instant(packed.created),
            responded: instant(packed.responded),
            lifetime: Duration::from_nanos(packed.lifetime),
            age: Duration::from_nanos(packed.age),
            while_revalidate: Duration::from_nanos(packed.while_revalidate),
            if_error: Duration::from_nanos(packed.if_error),
        }
    }
}

/// Nanoseconds, the longest representable at most.
pub(super) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Nanoseconds since 1970; zero before.
pub(super) fn nanos_since_1970(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, nanos)
}

/// The inverse of [`nanos_since_1970`].
pub(super) fn instant(nanos: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_nanos(nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn times() -> Times {
        Times {
            created: at(900) + Duration::from_nanos(1),
            responded: at(1000) + Duration::from_nanos(123_456_789),
            lifetime: Duration::from_secs(60),
            age: Duration::from_secs(10),
            while_revalidate: Duration::from_millis(1500),
            if_error: Duration::from_secs(300),
        }
    }

    #[test]
    fn packing_loses_nothing() {
        assert_eq!(Times::from(Packed::from(times())), times());
    }

    #[test]
    fn the_age_on_arrival_shortens_the_freshness_and_moves_the_epoch_back() {
        let times = Times { responded: at(1000), ..times() };
        assert_eq!(times.fresh_until(), at(1050));
        assert_eq!(times.epoch(), at(990));
        assert_eq!(times.current_age(at(1005)), Duration::from_secs(15));
    }

    #[test]
    fn a_clock_set_back_does_not_rejuvenate() {
        assert_eq!(times().current_age(at(1)), Duration::from_secs(10));
    }

    #[test]
    fn an_age_beyond_everything_is_stale_since_1970_and_a_huge_lifetime_does_not_wrap() {
        assert_eq!(
            Times { age: Duration::MAX, lifetime: Duration::ZERO, ..times() }.fresh_until(),
            at(0)
        );
        let forever = Times { lifetime: Duration::MAX, age: Duration::ZERO, ..times() };
        assert!(forever.fresh_until() > at(1 << 33));
    }
}
