//! Marks on keys that fade: a table of a fixed size, without locks.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Instant;

/// How many marks there is room for. Two keys that meet in one place overwrite each other's.
const PLACES: usize = 8192;

/// Marks by hash. One may be lost to another, or, once in four thousand million, taken for another:
/// they may say what is worth doing, never what is right.
#[derive(Debug)]
pub(super) struct Marks {
    /// Half of a hash, and the tenths of a second since `began` at which the mark has faded.
    places: Box<[AtomicU64]>,
    began: Instant,
}

impl Default for Marks {
    fn default() -> Self {
        Self { places: (0..PLACES).map(|_| AtomicU64::new(0)).collect(), began: Instant::now() }
    }
}

impl Marks {
    /// Marks `hash` until `until`.
    pub(super) fn set(&self, hash: u64, until: Instant) {
        let fades = self.tenths(until).saturating_add(1);
        self.place(hash).store(hash & !0xffff_ffff | u64::from(fades), Ordering::Relaxed);
    }

    /// Takes the mark off.
    pub(super) fn clear(&self, hash: u64) {
        let place = self.place(hash);
        let mark = place.load(Ordering::Relaxed);
        if (mark ^ hash) >> 32 == 0 {
            let _ = place.compare_exchange(mark, 0, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    /// Whether `hash` is marked.
    pub(super) fn stands(&self, hash: u64, now: Instant) -> bool {
        let mark = self.place(hash).load(Ordering::Relaxed);
        let fades = mark & 0xffff_ffff;
        (mark ^ hash) >> 32 == 0 && u64::from(self.tenths(now)) < fades
    }

    fn place(&self, hash: u64) -> &AtomicU64 {
        let index = usize::try_from(hash & 0xffff_ffff).unwrap_or(0);
        &self.places[index % PLACES]
    }

    fn tenths(&self, at: Instant) -> u32 {
        let tenths = at.saturating_duration_since(self.began).as_millis() / 100;
        u32::try_from(tenths).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_mark_stands_until_it_fades_or_is_taken_off() {
        let marks = Marks::default();
        let now = Instant::now();
        let hash = 0x1234_5678_0000_0042;
        assert!(!marks.stands(hash, now));
        marks.set(hash, now + Duration::from_secs(10));
        assert!(marks.stands(hash, now + Duration::from_secs(9)));
        assert!(!marks.stands(hash, now + Duration::from_secs(11)));
        marks.clear(hash);
        assert!(!marks.stands(hash, now));
    }

    #[test]
    fn a_mark_is_one_keys_own() {
        let marks = Marks::default();
        let now = Instant::now();
        marks.set(0x1111_1111_0000_0042, now + Duration::from_secs(10));
        let neighbour = 0x2222_2222_0000_0042;
        assert!(!marks.stands(neighbour, now));
        marks.clear(neighbour);
        assert!(marks.stands(0x1111_1111_0000_0042, now), "taking off another's does nothing");
    }
}
