//! How the names in a table are hashed.
//!
//! What is in the table comes from the configuration, so that nobody can fill it with names that collide: a hash
//! without a secret does, and takes a fraction of the time of the standard library's.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::hash::Hasher;

/// A map by text.
pub(super) type ByText<T> = HashMap<Box<str>, T, BuildHasherDefault<Words>>;

/// Odd, and without a pattern: the golden ratio.
const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

/// Takes in eight bytes at a time by a multiplication whose two halves are folded together, so that each bit of a
/// word reaches all bits of the sum.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Words(u64);

impl Words {
    fn take(&mut self, word: u64) {
        let product = u128::from(self.0 ^ word) * u128::from(FACTOR);
        self.0 = (product as u64 ^ (product >> 64) as u64).wrapping_add(FACTOR);
    }
}

impl Hasher for Words {
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.take(u64::from_le_bytes(*word));
        }
        if !rest.is_empty() {
            self.take(rest.iter().fold(0, |word, byte| word << 8 | u64::from(*byte)));
        }
    }

    /// The end of a text, which tells it from a longer one.
    fn write_u8(&mut self, byte: u8) {
        self.take(u64::from(byte));
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::hash::BuildHasher;

    use super::*;

    fn hash(text: &str) -> u64 {
        BuildHasherDefault::<Words>::default().hash_one(text)
    }

    #[test]
    fn names_that_are_much_alike_fall_into_different_places() {
        let mut names: Vec<String> = (0..1000).map(|n| format!("/api/v1/things/{n}")).collect();
        names.extend((0..1000).map(|n| format!("{n}.example.org")));
        names.extend((0..64).map(|n| "a".repeat(n)));
        // A map goes by the lower bits, and tells those of one place apart by the upper seven.
        for (what, shift) in [("whole", 0), ("upper", 40)] {
            let hashes: HashSet<u64> = names.iter().map(|name| hash(name) >> shift).collect();
            assert!(hashes.len() > names.len() * 99 / 100, "{what}: {}", hashes.len());
        }
        let lower: HashSet<u64> = names.iter().map(|name| hash(name) & 0xffff).collect();
        // Thrown at random, 2,000 leave about 30 in a place that is taken.
        assert!(lower.len() > names.len() - 100, "{}", lower.len());
    }
}
