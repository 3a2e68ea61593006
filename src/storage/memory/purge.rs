//! Generations: what keeps a response that was asked for before a purge from appearing after it.
//!
//! A purge is a stamp: the next number of one sequence. Whoever asks an origin notes the number
//! that stands at the time; what arrives is refused if its key was stamped later. The stamps of
//! single keys are remembered for a while only: when one is forgotten, everything asked for before
//! it is refused along with it. So memory stays bounded, and a race can cost a fill but never show
//! an old object. How many are remembered grows with the tier: every unsafe request leaves one (RFC
//! 9111 §4.4), and where thousands of them come while an origin takes its time, it must still be
//! known that they were for something else.

use std::collections::VecDeque;
use std::time::SystemTime;

/// One purge is remembered for so many bytes of the limit.
const BYTES_PER_STAMP: u64 = 32 << 10;
/// The fewest purges that are remembered.
const FEWEST: u64 = 64;
/// The most purges that are remembered.
const MOST: u64 = 32 << 10;

/// How many purges those remember who have so many bytes of the limit.
fn remembered(bytes: u64) -> u64 {
    (bytes / BYTES_PER_STAMP).clamp(FEWEST, MOST)
}

/// What they may take, in bytes.
pub(super) fn cost(bytes: u64) -> u64 {
    remembered(bytes).next_power_of_two() * size_of::<Stamp>() as u64
}

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

/// The recent purges of single keys, or of single resources that have many.
#[derive(Debug)]
pub(super) struct Stamps {
    /// In the order of the sequence.
    recent: VecDeque<Stamp>,
    most: usize,
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
    /// None yet, of what has so many bytes of the limit.
    pub(super) fn within(bytes: u64) -> Self {
        let most = usize::try_from(remembered(bytes)).unwrap_or(usize::MAX);
        Self { recent: VecDeque::new(), most, forgotten: Generation::default() }
    }

    /// Notes that the key, or the resource, was purged at `at`, which is later than all that were noted.
    pub(super) fn note(&mut self, hash: u64, at: Generation, kind: Kind) {
        if self.recent.len() >= self.most
            && let Some(oldest) = self.recent.pop_front()
        {
            self.forgotten = self.forgotten.max(oldest.at);
        }
        self.recent.push_back(Stamp { hash, at, kind });
    }

    /// What the purges leave of the key, or the resource, that was asked for at `asked`.
    pub(super) fn standing(&self, hash: u64, asked: Generation) -> Standing {
        if asked < self.forgotten {
            return Standing::Purged;
        }
        let since = self.recent.iter().rev().take_while(|stamp| stamp.at > asked);
        since.filter(|stamp| stamp.hash == hash).fold(Standing::Current, |standing, stamp| {
            standing.and(match stamp.kind {
                Kind::Hard => Standing::Purged,
                Kind::Soft(at) => Standing::StaleSince(at),
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn what_was_asked_before_is_refused_and_what_was_asked_after_is_not() {
        let mut stamps = Stamps::within(0);
        stamps.note(7, Generation(5), Kind::Hard);
        assert_eq!(stamps.standing(7, Generation(4)), Standing::Purged);
        assert_eq!(stamps.standing(7, Generation(5)), Standing::Current);
        assert_eq!(stamps.standing(8, Generation(4)), Standing::Current);
    }

    #[test]
    fn soft_purges_count_from_the_first_and_a_hard_one_outweighs_them() {
        let mut stamps = Stamps::within(0);
        stamps.note(7, Generation(5), Kind::Soft(at(50)));
        stamps.note(7, Generation(6), Kind::Soft(at(60)));
        assert_eq!(stamps.standing(7, Generation(4)), Standing::StaleSince(at(50)));
        assert_eq!(stamps.standing(7, Generation(5)), Standing::StaleSince(at(60)));
        stamps.note(7, Generation(7), Kind::Hard);
        assert_eq!(stamps.standing(7, Generation(4)), Standing::Purged);
    }

    #[test]
    fn a_forgotten_stamp_still_refuses_all_that_it_would_have() {
        let mut stamps = Stamps::within(0);
        stamps.note(7, Generation(1), Kind::Hard);
        for n in 0..FEWEST {
            stamps.note(1000 + n, Generation(2 + n), Kind::Hard);
        }
        assert_eq!(stamps.standing(7, Generation(0)), Standing::Purged);
        assert_eq!(stamps.standing(8, Generation(0)), Standing::Purged, "doubt refuses");
        assert_eq!(stamps.standing(8, Generation(1)), Standing::Current);
    }
}
