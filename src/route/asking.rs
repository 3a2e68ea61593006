//! How a route's upstream is asked, where the route says so itself.

use std::time::Duration;

use http::Method;

/// How a route's upstream is asked, where the route says so itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Asking {
    /// When a second backend is asked beside the first one; `None` never.
    pub hedge: Option<Hedge>,
    /// Who is sent a copy of requests; `None` nobody.
    pub mirror: Option<Mirror>,
    /// What differs from what the upstream says of further attempts.
    pub retry: Retry,
}

/// What of a route's further attempts differs from what its upstream says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Retry {
    /// How often a request is sent at most, the first time included.
    pub attempts: Option<u32>,
    /// How long one attempt may take to the header of its answer; `Some(None)` is no limit.
    pub per_try: Option<Option<Duration>>,
    /// Statuses of responses that are taken for failures.
    pub statuses: Option<Vec<u16>>,
    /// The methods that are sent again although the origin may have seen them, in place of those that
    /// are idempotent.
    pub methods: Option<Vec<Method>>,
}

impl Retry {
    /// Whether a request with this method may be sent again although the origin may have seen it; `None`
    /// leaves that to the upstream.
    #[must_use]
    pub fn repeats(&self, method: &Method) -> Option<bool> {
        let all = self.methods.as_ref()?;
        // GET includes HEAD.
        let is_included = *method == Method::HEAD && all.contains(&Method::GET);
        Some(is_included || all.contains(method))
    }
}

/// Who is sent a copy of requests, and of which.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mirror {
    /// An index into the plan's list of upstreams.
    pub upstream: usize,
    /// Of how many requests in a hundred.
    pub percent: u32,
    /// The largest body that is copied, in bytes.
    pub max_body: usize,
    /// How many copies there may be at once.
    pub at_once: u32,
}

impl Mirror {
    /// Whether a request is copied, by a random number.
    #[must_use]
    pub fn takes(&self, random: u64) -> bool {
        (u128::from(random) * 100) >> 64 < u128::from(self.percent)
    }
}

/// When a second backend is asked beside the first one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hedge {
    /// When the first one has taken longer than so many percent of all answers.
    pub percentile: u32,
    /// And so long at least.
    pub at_least: Duration,
    /// Over how long answers are looked at.
    pub window: Duration,
    /// How many there have to be in that time.
    pub min_requests: u32,
    /// The most second requests, in percent of the requests.
    pub budget: u32,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn mirror(percent: u32) -> Mirror {
        Mirror { upstream: 0, percent, max_body: 0, at_once: 1 }
    }

    #[test]
    fn the_methods_of_a_route_replace_those_that_are_idempotent() {
        let retry = Retry { methods: Some(vec![Method::GET, Method::POST]), ..Retry::default() };
        for (method, may) in
            [(Method::GET, true), (Method::HEAD, true), (Method::POST, true), (Method::PUT, false)]
        {
            assert_eq!(retry.repeats(&method), Some(may), "{method}");
            assert_eq!(Retry::default().repeats(&method), None);
        }
        let head = Retry { methods: Some(vec![Method::HEAD]), ..Retry::default() };
        assert_eq!(head.repeats(&Method::HEAD), Some(true));
        assert_eq!(head.repeats(&Method::GET), Some(false));
    }

    #[test]
    fn all_of_a_hundred_are_all() {
        assert!(mirror(100).takes(0) && mirror(100).takes(u64::MAX));
        assert!(mirror(1).takes(0) && !mirror(1).takes(u64::MAX / 100 + 1));
    }

    proptest! {
        #[test]
        fn so_many_of_a_hundred_are_copied(percent in 1_u32..=100) {
            let draws = 10_000_u64;
            let even = |n| (u128::from(n) * (1 << 64) / u128::from(draws)) as u64;
            let copied = (0..draws).filter(|&n| mirror(percent).takes(even(n))).count() as u64;
            let due = draws * u64::from(percent) / 100;
            prop_assert!(copied.abs_diff(due) <= 1, "{copied} of {due}");
        }
    }
}
