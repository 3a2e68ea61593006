//! What SRV records say: which targets go first, and how they share (RFC 2782).

use crate::upstream::WEIGHTS;

/// One SRV record, and what became of its target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record<T> {
    /// Those of a lower number go before it.
    pub(super) priority: u16,
    /// Its share among those of the same number.
    pub(super) weight: u16,
    /// Where.
    pub(super) target: T,
}

/// A target, as the group of its upstream takes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ranked<T> {
    /// How many lower priorities there are.
    pub(super) step: u16,
    /// One of [`WEIGHTS`].
    pub(super) weight: u32,
    /// Where.
    pub(super) target: T,
}

/// The targets of these records in the order of their priorities.
///
/// Weights are as they were written where a backend may have them. Where one is too great, all of its
/// priority are scaled down together; where one is 0 beside others ("a very small chance"), the greatest
/// becomes the greatest that there is and that one the smallest. All 0 are all alike.
pub(super) fn ranked<T>(mut records: Vec<Record<T>>) -> Vec<Ranked<T>> {
    records.sort_by_key(|record| record.priority);
    let mut ranked = Vec::with_capacity(records.len());
    let mut step = 0;
    let mut rest = records.into_iter().peekable();
    while let Some(first) = rest.peek() {
        let priority = first.priority;
        let mut group = Vec::new();
        while let Some(record) = rest.next_if(|record| record.priority == priority) {
            group.push(record);
        }
        let scale = Scale::of(group.iter().map(|record| record.weight));
        let of = |record: Record<T>| Ranked {
            step,
            weight: scale.weight(record.weight),
            target: record.target,
        };
        ranked.extend(group.into_iter().map(of));
        step += 1;
    }
    ranked
}

/// How the weights of one priority become those of backends.
#[derive(Debug, Clone, Copy)]
enum Scale {
    /// As they are.
    AsWritten,
    /// All alike.
    Alike,
    /// The one becomes the greatest that there is, and the others in proportion.
    From(u16),
}

impl Scale {
    fn of(weights: impl Iterator<Item = u16>) -> Self {
        let (least, most) = weights
            .fold((u16::MAX, 0), |(least, most), weight| (least.min(weight), most.max(weight)));
        if most == 0 {
            Self::Alike
        } else if least == 0 || u32::from(most) > *WEIGHTS.end() {
            Self::From(most)
        } else {
            Self::AsWritten
        }
    }

    fn weight(self, written: u16) -> u32 {
        let written = u32::from(written);
        match self {
            Self::AsWritten => written,
            Self::Alike => *WEIGHTS.start(),
            Self::From(most) => {
                let most = u32::from(most);
                // Rounded: at most 65535 × 1000 and a half.
                let scaled = (written * WEIGHTS.end() + most / 2) / most;
                scaled.clamp(*WEIGHTS.start(), *WEIGHTS.end())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn steps_and_weights(records: &[(u16, u16)]) -> Vec<(u16, u32)> {
        let of = |&(priority, weight)| Record { priority, weight, target: () };
        let ranked = ranked(records.iter().map(of).collect());
        ranked.into_iter().map(|one| (one.step, one.weight)).collect()
    }

    #[test]
    fn priorities_are_ranks_whatever_their_numbers() {
        let records = [(30, 1), (10, 2), (10, 3), (65535, 4)];
        assert_eq!(steps_and_weights(&records), [(0, 2), (0, 3), (1, 1), (2, 4)]);
    }

    #[test]
    fn weights_that_a_backend_may_have_stay_as_they_are() {
        assert_eq!(steps_and_weights(&[(0, 1), (0, 1000)]), [(0, 1), (0, 1000)]);
    }

    #[test]
    fn greater_ones_are_scaled_down_by_themselves_in_each_priority() {
        let records = [(0, 1001), (0, 2002), (1, 7)];
        assert_eq!(steps_and_weights(&records), [(0, 500), (0, 1000), (1, 7)]);
        assert_eq!(steps_and_weights(&[(0, 65535), (0, 1)]), [(0, 1000), (0, 1)]);
    }

    #[test]
    fn a_zero_beside_others_is_a_very_small_chance_and_all_zero_are_alike() {
        assert_eq!(steps_and_weights(&[(0, 0), (0, 5)]), [(0, 1), (0, 1000)]);
        assert_eq!(steps_and_weights(&[(0, 0), (0, 0)]), [(0, 1), (0, 1)]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn shares_are_off_by_a_thousandth_of_the_greatest_at_most(
            weights in prop::collection::vec(0_u16.., 1..20),
        ) {
            let most = f64::from(*weights.iter().max().unwrap_or(&0));
            let records: Vec<_> = weights.iter().map(|weight| (0, *weight)).collect();
            let got = steps_and_weights(&records);
            let greatest = got.iter().map(|(_, weight)| *weight).max().unwrap_or(0);
            for (written, (_, weight)) in weights.iter().zip(&got) {
                prop_assert!(WEIGHTS.contains(weight));
                if most > 0.0 {
                    let meant = f64::from(*written) / most;
                    let is = f64::from(*weight) / f64::from(greatest);
                    prop_assert!((meant - is).abs() <= 0.001, "{meant} and {is}");
                }
            }
        }
    }
}
