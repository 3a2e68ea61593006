//! Short lists of names of fields. Every field of every request is looked up in them, and nearly none is there.

use crate::message::list::is_word;

/// Names of fields, in lower case.
#[derive(Debug)]
pub struct NameList {
    names: &'static [&'static str],
    /// Which lengths the names have that begin with a byte, a bit each; by the lower five bits of that byte.
    lengths: [u64; 32],
}

impl NameList {
    /// The list of these names, each in lower case and shorter than 64 bytes.
    ///
    /// # Panics
    /// On other names: at the compiler's time, where the list is a static one.
    #[must_use]
    pub const fn of(names: &'static [&'static str]) -> Self {
        let mut lengths = [0; 32];
        let mut at = 0;
        while at < names.len() {
            let name = names[at].as_bytes();
            assert!(!name.is_empty() && name.len() < 64);
            lengths[(name[0] & 31) as usize] |= 1 << name.len();
            at += 1;
        }
        Self { names, lengths }
    }

    /// Whether this is one of them.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.may_have(name.as_bytes()) && self.names.contains(&name)
    }

    /// The same of a name in any case, which has no control bytes.
    #[must_use]
    pub fn contains_word(&self, name: &[u8]) -> bool {
        self.may_have(name) && self.names.iter().any(|known| is_word(name, known.as_bytes()))
    }

    /// Whether one of them is as long and begins with the same letter, in any case.
    #[inline]
    #[must_use]
    pub fn may_have(&self, name: &[u8]) -> bool {
        let [first, ..] = name else { return false };
        let lengths = self.lengths[usize::from(first & 31)];
        name.len() < 64 && lengths >> name.len() & 1 == 1
    }
}

/// Whether there is an underscore in a name.
#[must_use]
pub fn has_underscore(name: &str) -> bool {
    let bytes = name.as_bytes();
    let (Some(first), Some(last)) = (bytes.first_chunk(), bytes.last_chunk()) else {
        return bytes.contains(&b'_');
    };
    // The last eight bytes may have been looked at before; that is less than to look at some of them one by one.
    has_underscore_among(*first)
        || has_underscore_among(*last)
        || (bytes.len() > 16
            && bytes.as_chunks().0.iter().any(|eight| has_underscore_among(*eight)))
}

fn has_underscore_among(eight: [u8; 8]) -> bool {
    const ONES: u64 = u64::from_ne_bytes([0x01; 8]);
    const TOPS: u64 = u64::from_ne_bytes([0x80; 8]);
    // Zero where there is one. The lowest byte that is zero, and none below it, borrows from its top bit.
    let unlike = u64::from_ne_bytes(eight) ^ u64::from_ne_bytes([b'_'; 8]);
    unlike.wrapping_sub(ONES) & !unlike & TOPS != 0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SOME: &[&str] = &["a", "b", "ab", "x-one", "x-two", "x-three"];
    static LIST: NameList = NameList::of(SOME);

    #[test]
    fn every_name_is_found_and_its_neighbours_are_not() {
        for name in SOME {
            assert!(LIST.contains(name), "{name}");
            assert!(!LIST.contains(&name.to_ascii_uppercase()), "{name}");
            assert!(LIST.contains_word(name.to_ascii_uppercase().as_bytes()), "{name}");
            assert!(!LIST.contains_word(format!("{name}-").as_bytes()), "{name}");
            assert!(!LIST.contains(&format!("{name}-")), "{name}");
        }
        for name in ["", "c", "x", "x-six", &"a".repeat(64), &"a".repeat(65)] {
            assert!(!LIST.contains(name), "{name}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1024))]

        #[test]
        fn a_list_has_what_a_look_at_each_name_finds(name in "[a-bxA]?-?[a-z]{0,5}") {
            prop_assert_eq!(LIST.contains(&name), SOME.contains(&&*name));
            let has_word = SOME.iter().any(|known| known.eq_ignore_ascii_case(&name));
            prop_assert_eq!(LIST.contains_word(name.as_bytes()), has_word);
        }

        #[test]
        fn an_underscore_is_found_wherever_it_stands(name in "[_^`a\u{7f}\u{e9}-]{0,20}|[a-z-]{0,30}_?[a-z-]{0,30}") {
            prop_assert_eq!(has_underscore(&name), name.contains('_'));
        }
    }
}
