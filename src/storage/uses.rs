//! How often something was asked for lately, before it is worth storing: a table of a fixed size,
//! without locks.

use std::hash::BuildHasher;
use std::hash::RandomState;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

/// How many keys there is room for. Of two that meet in one place, the one that came last is counted.
const PLACES: usize = 32 * 1024;

/// What was not asked for during this time begins anew.
const WHILE: Duration = Duration::from_secs(600);

/// Counts of uses by key. One may be lost to another key, or, once in four thousand million, taken for
/// another's: they may say what is worth storing, never what is right.
#[derive(Debug)]
pub struct Uses {
    /// Half of a hash, the seconds since `began` of the last use (24 bits), and the uses (8 bits).
    places: Box<[AtomicU64]>,
    /// Keyed anew in every process, so that no client can choose keys that collide.
    hasher: RandomState,
    began: Instant,
}

impl Default for Uses {
    fn default() -> Self {
        Self {
            places: (0..PLACES).map(|_| AtomicU64::new(0)).collect(),
            hasher: RandomState::new(),
            began: Instant::now(),
        }
    }
}

impl Uses {
    /// Counts a use of `key`, and says how many there were lately, this one included; at most 255.
    pub fn count(&self, key: &[u8], now: Instant) -> u32 {
        let (place, hash, seconds) = self.at(key, now);
        let counted = |held: u64| {
            let uses = (held_for(hash, held, seconds) + 1).min(0xff);
            hash & !0xffff_ffff | seconds << 8 | uses
        };
        // Two that count at once are counted one after the other, so that both see what they are.
        let before = place
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |held| Some(counted(held)))
            .unwrap_or_default();
        u32::try_from(counted(before) & 0xff).unwrap_or(u32::MAX)
    }

    /// How often `key` was used lately, without counting this.
    pub fn lately(&self, key: &[u8], now: Instant) -> u32 {
        let (place, hash, seconds) = self.at(key, now);
        let uses = held_for(hash, place.load(Ordering::Relaxed), seconds);
        u32::try_from(uses).unwrap_or(u32::MAX)
    }

    /// The place of a key, its hash, and the second that it is.
    fn at(&self, key: &[u8], now: Instant) -> (&AtomicU64, u64, u64) {
        let hash = self.hasher.hash_one(key);
        let place = &self.places[usize::try_from(hash & 0xffff_ffff).unwrap_or(0) % PLACES];
        let seconds = now.saturating_duration_since(self.began).as_secs() & 0xff_ffff;
        (place, hash, seconds)
    }
}

/// How many uses are held, where they are this key's and not too long ago.
fn held_for(hash: u64, held: u64, seconds: u64) -> u64 {
    let since = seconds.wrapping_sub(held >> 8) & 0xff_ffff;
    let lately = (held ^ hash) >> 32 == 0 && since < WHILE.as_secs();
    if lately { held & 0xff } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uses_are_counted_by_key() {
        let (uses, now) = (Uses::default(), Instant::now());
        assert_eq!([uses.count(b"a", now), uses.count(b"a", now)], [1, 2]);
        assert_eq!([uses.lately(b"a", now), uses.lately(b"a", now)], [2, 2]);
        assert_eq!(uses.lately(b"b", now), 0);
        assert_eq!(uses.count(b"b", now), 1);
        assert_eq!(uses.count(b"a", now), 3);
    }

    #[test]
    fn what_nobody_asks_for_begins_anew() {
        let (uses, now) = (Uses::default(), Instant::now());
        assert_eq!(uses.count(b"a", now), 1);
        let later = now + WHILE - Duration::from_secs(1);
        assert_eq!(uses.count(b"a", later), 2);
        assert_eq!(uses.lately(b"a", later + WHILE + Duration::from_secs(1)), 0);
        assert_eq!(uses.count(b"a", later + WHILE + Duration::from_secs(1)), 1);
    }

    #[test]
    fn counting_ends_at_what_there_is_room_for() {
        let (uses, now) = (Uses::default(), Instant::now());
        for _ in 0..1000 {
            uses.count(b"a", now);
        }
        assert_eq!(uses.count(b"a", now), 255);
    }
}
