//! One stamp: when what it stands for was purged.

use std::time::SystemTime;

use crate::storage::memory::purge::Generation;
use crate::storage::memory::purge::Kind;
use crate::storage::memory::purge::Standing;

/// How many soft purges a stamp tells apart.
const SOFT_MOST: usize = 4;

/// When something was purged: hard for the last time, and soft since then.
#[derive(Debug, Clone, Default)]
pub(super) struct Stamp {
    hard: Generation,
    /// Oldest first.
    soft: Vec<(Generation, SystemTime)>,
}

/// What a stamp may take, in bytes.
pub(super) const STAMP_COST: u64 =
    (size_of::<Stamp>() + SOFT_MOST * size_of::<(Generation, SystemTime)>()) as u64;

impl Stamp {
    /// Notes a purge at `at`, which is later than all that were noted.
    pub(super) fn note(&mut self, at: Generation, kind: Kind) {
        match kind {
            Kind::Hard => {
                self.hard = at;
                self.soft = Vec::new();
            }
            Kind::Soft(now) => {
                self.soft.push((at, now));
                self.shrink();
            }
        }
    }

    /// Takes in another one: what either concerned is concerned from now on.
    pub(super) fn merge(&mut self, other: &Self) {
        self.hard = self.hard.max(other.hard);
        self.soft.extend_from_slice(&other.soft);
        self.soft.retain(|(at, _)| *at > self.hard);
        self.soft.sort_unstable();
        self.shrink();
    }

    /// What it leaves of what was asked for at `asked`.
    pub(super) fn standing(&self, asked: Generation) -> Standing {
        if self.hard > asked {
            return Standing::Purged;
        }
        let since = self.soft.iter().filter(|(at, _)| *at > asked).map(|(_, since)| *since).min();
        since.map_or(Standing::Current, Standing::StaleSince)
    }

    /// The last purge that it knows of.
    pub(super) fn newest(&self) -> Generation {
        self.soft.last().map_or(self.hard, |(at, _)| self.hard.max(*at))
    }

    /// Makes one of the two oldest soft purges: it concerns what the later one did, stale since the
    /// earlier one. What was not looked at since then may so serve stale for a shorter time.
    fn shrink(&mut self) {
        while let [(_, first), (at, second), ..] = self.soft[..]
            && self.soft.len() > SOFT_MOST
        {
            self.soft.remove(0);
            self.soft[0] = (at, first.min(second));
        }
        self.soft.shrink_to(SOFT_MOST);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn noted(purges: &[(u64, bool)]) -> Stamp {
        let mut stamp = Stamp::default();
        for (generation, hard) in purges {
            let kind = if *hard { Kind::Hard } else { Kind::Soft(at(*generation)) };
            stamp.note(Generation(*generation), kind);
        }
        stamp
    }

    #[test]
    fn a_soft_purge_counts_from_the_first_that_concerned_it() {
        let stamp = noted(&[(5, false), (7, false)]);
        assert_eq!(stamp.standing(Generation(4)), Standing::StaleSince(at(5)));
        assert_eq!(stamp.standing(Generation(5)), Standing::StaleSince(at(7)));
        assert_eq!(stamp.standing(Generation(7)), Standing::Current);
        assert_eq!(stamp.newest(), Generation(7));
    }

    #[test]
    fn a_hard_purge_outweighs_the_soft_ones_before_it_and_not_those_after() {
        let stamp = noted(&[(5, false), (6, true), (7, false)]);
        assert_eq!(stamp.standing(Generation(5)), Standing::Purged);
        assert_eq!(stamp.standing(Generation(6)), Standing::StaleSince(at(7)));
    }

    #[test]
    fn soft_purges_without_number_take_no_more_memory_and_never_purge_less() {
        let many: Vec<(u64, bool)> = (1..100).map(|n| (n, false)).collect();
        let stamp = noted(&many);
        assert!(stamp.soft.capacity() <= SOFT_MOST + 1, "{stamp:?}");
        for asked in 0..99 {
            let Standing::StaleSince(since) = stamp.standing(Generation(asked)) else {
                panic!("{asked}: {stamp:?}");
            };
            assert!(since <= at(asked + 1), "{asked}: {since:?}");
        }
        assert_eq!(stamp.standing(Generation(98)), Standing::StaleSince(at(99)));
    }

    fn severity(standing: Standing) -> (u8, std::cmp::Reverse<Option<SystemTime>>) {
        match standing {
            Standing::Current => (0, std::cmp::Reverse(None)),
            Standing::StaleSince(since) => (1, std::cmp::Reverse(Some(since))),
            Standing::Purged => (2, std::cmp::Reverse(None)),
        }
    }

    proptest! {
        #[test]
        fn a_merged_stamp_purges_at_least_what_either_did(
            one in prop::collection::btree_map(1_u64..20, any::<bool>(), 0..8),
            other in prop::collection::btree_map(1_u64..20, any::<bool>(), 0..8),
            asked in 0_u64..20,
        ) {
            let of = |map: std::collections::BTreeMap<u64, bool>| noted(&map.into_iter().collect::<Vec<_>>());
            let (mut one, other) = (of(one), of(other));
            let before = [one.standing(Generation(asked)), other.standing(Generation(asked))];
            one.merge(&other);
            let after = one.standing(Generation(asked));
            for before in before {
                prop_assert!(severity(after) >= severity(before), "{:?} {:?}", before, after);
            }
        }
    }
}
