//! Generations: what keeps a response that was asked for before a purge from appearing after it.
//!
//! A purge is a stamp: the next number of one sequence. Whoever asks an origin notes the number
//! that stands at the time; what arrives is refused if its key was stamped later. The stamps of
//! single keys are remembered for a while only: when one is forgotten, everything asked for before
//! it is refused along with it. So memory stays bounded, and a race can cost a fill but never show
//! an old object.

use std::collections::VecDeque;
use std::num::NonZeroU64;
use std::time::SystemTime;

use crate::storage::memory::entry::Entry;

/// How many purges a shard remembers.
const REMEMBERED: usize = 128;

/// A point in the sequence of purges.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Generation(pub(super) u64);

impl Generation {
    /// How many purges there were since an earlier one.
    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// What a purge does to the entries that it concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// They are gone.
    Hard,
    /// They are stale from then on.
    Soft(SystemTime),
}

/// What the purges since it was asked for leave of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// None concerned it.
    Current,
    /// It may be stored, stale from this instant on.
    StaleSince(SystemTime),
    /// It must not be stored.
    Purged,
}

impl Standing {
    /// What two purges leave together.
    pub(super) fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Purged, _) | (_, Self::Purged) => Self::Purged,
            (Self::StaleSince(one), Self::StaleSince(other)) => Self::StaleSince(one.min(other)),
            (Self::Current, other) => other,
            (one, Self::Current) => one,
        }
    }
}

/// The recent purges of the keys and resources of one shard.
#[derive(Debug, Default)]
pub(super) struct Stamps {
    recent: VecDeque<Stamp>,
    /// What was asked for before this may have been purged by a stamp that is forgotten.
    forgotten: Generation,
}

#[derive(Debug, Clone, Copy)]
struct Stamp {
    hash: u64,
    at: Generation,
    kind: Kind,
}

impl Stamps {
    /// Notes that the key, or the resource, was purged at `at`.
    pub(super) fn note(&mut self, hash: u64, at: Generation, kind: Kind) {
        if self.recent.len() >= REMEMBERED
            && let Some(oldest) = self.recent.pop_front()
        {
            self.forgotten = self.forgotten.max(oldest.at);
        }
        self.recent.push_back(Stamp { hash, at, kind });
    }

    /// Whether a response may still be stored after the purges of its key and of its resource.
    pub(super) fn standing(&self, entry: &Entry) -> Standing {
        self.standing_of(entry.hash, entry.resource, entry.asked)
    }

    fn standing_of(&self, hash: u64, resource: Option<NonZeroU64>, asked: Generation) -> Standing {
        if asked < self.forgotten {
            return Standing::Purged;
        }
        let mut standing = Standing::Current;
        let concerns = |stamp: &&Stamp| {
            stamp.at > asked
                && (stamp.hash == hash || Some(stamp.hash) == resource.map(NonZeroU64::get))
        };
        for stamp in self.recent.iter().filter(concerns) {
            standing = standing.and(match stamp.kind {
                Kind::Hard => Standing::Purged,
                Kind::Soft(at) => Standing::StaleSince(at),
            });
        }
        standing
    }
}

/// What the list of recent purges may take per shard, in bytes.
pub(super) const STAMPS_COST: u64 = (REMEMBERED * size_of::<Stamp>()) as u64;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn what_was_asked_before_is_refused_and_what_was_asked_after_is_not() {
        let mut stamps = Stamps::default();
        stamps.note(7, Generation(5), Kind::Hard);
        assert_eq!(stamps.standing_of(7, None, Generation(4)), Standing::Purged);
        assert_eq!(stamps.standing_of(7, None, Generation(5)), Standing::Current);
        assert_eq!(stamps.standing_of(8, None, Generation(4)), Standing::Current);
    }

    #[test]
    fn soft_purges_count_from_the_first_and_a_hard_one_outweighs_them() {
        let mut stamps = Stamps::default();
        stamps.note(7, Generation(5), Kind::Soft(at(50)));
        stamps.note(7, Generation(6), Kind::Soft(at(60)));
        assert_eq!(stamps.standing_of(7, None, Generation(4)), Standing::StaleSince(at(50)));
        assert_eq!(stamps.standing_of(7, None, Generation(5)), Standing::StaleSince(at(60)));
        stamps.note(7, Generation(7), Kind::Hard);
        assert_eq!(stamps.standing_of(7, None, Generation(4)), Standing::Purged);
    }

    #[test]
    fn a_forgotten_stamp_still_refuses_all_that_it_would_have() {
        let mut stamps = Stamps::default();
        stamps.note(7, Generation(1), Kind::Hard);
        for n in 0..REMEMBERED as u64 {
            stamps.note(1000 + n, Generation(2 + n), Kind::Hard);
        }
        assert_eq!(stamps.standing_of(7, None, Generation(0)), Standing::Purged);
        assert_eq!(stamps.standing_of(8, None, Generation(0)), Standing::Purged, "doubt refuses");
        assert_eq!(stamps.standing_of(8, None, Generation(1)), Standing::Current);
    }
}
