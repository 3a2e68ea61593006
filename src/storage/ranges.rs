//! Which ranges of an object were asked for lately, so that those that are stored are found: a table of a
//! fixed size.

use std::hash::BuildHasher;
use std::hash::RandomState;

use parking_lot::Mutex;

use crate::message::range::Spec;

/// How many objects there is room for. Of two that meet in one place, the one that came last is kept.
const PLACES: usize = 2048;

/// How many ranges of one object.
const MOST: usize = 16;

/// Ranges by key of the whole. One object may be lost to another, or, hardly ever, taken for another: they
/// say where to look, never what is there.
#[derive(Debug)]
pub struct AskedRanges {
    places: Box<[Mutex<Place>]>,
    /// Keyed anew in every process, so that no client can choose keys that collide.
    hasher: RandomState,
}

#[derive(Debug, Default)]
struct Place {
    of: u64,
    /// The latest first.
    ranges: Vec<Spec>,
}

impl Default for AskedRanges {
    fn default() -> Self {
        Self { places: (0..PLACES).map(|_| Mutex::default()).collect(), hasher: RandomState::new() }
    }
}

impl AskedRanges {
    /// Notes that this range was asked for of what this is the key of.
    pub fn note(&self, key: &[u8], range: Spec) {
        let (hash, place) = self.place(key);
        let mut place = place.lock();
        if place.of != hash {
            *place = Place { of: hash, ranges: Vec::with_capacity(1) };
        }
        place.ranges.retain(|known| *known != range);
        place.ranges.insert(0, range);
        place.ranges.truncate(MOST);
    }

    /// The ranges that were asked for, the latest first.
    pub fn of(&self, key: &[u8]) -> Vec<Spec> {
        let (hash, place) = self.place(key);
        let place = place.lock();
        if place.of == hash { place.ranges.clone() } else { Vec::new() }
    }

    fn place(&self, key: &[u8]) -> (u64, &Mutex<Place>) {
        let hash = self.hasher.hash_one(key);
        let index = usize::try_from(hash & 0xffff_ffff).unwrap_or(0);
        (hash, &self.places[index % PLACES])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_ranges_are_remembered_once_each() {
        let asked = AskedRanges::default();
        for first in [1, 2, 3, 2] {
            asked.note(b"a", Spec::From(first));
        }
        assert_eq!(asked.of(b"a"), [Spec::From(2), Spec::From(3), Spec::From(1)]);
        assert_eq!(asked.of(b"b"), []);
        for first in 0..100 {
            asked.note(b"a", Spec::From(first));
        }
        assert_eq!(asked.of(b"a").len(), MOST);
        assert_eq!(asked.of(b"a")[0], Spec::From(99));
    }
}
