//! Who serves a route's requests beside its one upstream: shares of the traffic, and who stands in when
//! it fails.

use bytes::Bytes;
use http::HeaderMap;
use http::StatusCode;

/// Who serves beside the route's upstream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standins {
    /// The upstreams that share the requests, the route's own among them; empty where it has all.
    pub split: Vec<Share>,
    /// The upstream that is asked when the first one cannot answer: an index into the plan's list.
    pub fallback: Option<usize>,
    /// What is answered when nobody can.
    pub answer: Option<Answer>,
}

/// An upstream's share of a route's requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// An index into the plan's list.
    pub upstream: usize,
    /// Relative to the others; 0 gets nothing.
    pub weight: u32,
}

/// A fixed answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The header fields, Content-Type among them.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Standins {
    /// Whether the route's upstream is alone.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.split.is_empty() && self.fallback.is_none() && self.answer.is_none()
    }

    /// The upstream whose share a request falls into, by a random number; `None` where nothing is
    /// shared.
    #[must_use]
    pub fn share(&self, random: u64) -> Option<usize> {
        let total: u64 = self.split.iter().map(|share| u64::from(share.weight)).sum();
        let mut at = ((u128::from(random) * u128::from(total)) >> 64) as u64;
        for share in &self.split {
            if at < u64::from(share.weight) {
                return Some(share.upstream);
            }
            at -= u64::from(share.weight);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn split(weights: &[u32]) -> Standins {
        let shares = weights.iter().enumerate();
        let split = shares.map(|(upstream, &weight)| Share { upstream, weight }).collect();
        Standins { split, ..Standins::default() }
    }

    #[test]
    fn nothing_shared_is_nobodys() {
        assert_eq!(Standins::default().share(7), None);
        assert_eq!(split(&[0, 0]).share(7), None);
    }

    proptest! {
        #[test]
        fn shares_are_those_of_the_weights(weights in proptest::collection::vec(0_u32..100, 1..5)) {
            let total: u64 = weights.iter().map(|&w| u64::from(w)).sum();
            prop_assume!(total > 0);
            let standins = split(&weights);
            let draws = 1000_u64;
            let mut got = vec![0_u64; weights.len()];
            for n in 0..draws {
                let even = (u128::from(n) * (1 << 64) / u128::from(draws)) as u64;
                got[standins.share(even).expect("somebody has a share")] += 1;
            }
            for (got, weight) in got.iter().zip(&weights) {
                let due = draws * u64::from(*weight) / total;
                prop_assert!(got.abs_diff(due) <= 1, "{got} of {due}");
                prop_assert!(*weight > 0 || *got == 0);
            }
        }
    }
}
