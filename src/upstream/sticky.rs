//! The number by which a client's cookie names the backend that served it.

use ring::hmac;

use crate::upstream::Sticky;

impl Sticky {
    /// The number of the backend of this label: the same in each process and on each node that has the same key. Who
    /// does not have the key learns nothing of the label from it, and cannot find out whether a guess is right.
    ///
    /// Without a key everybody can make it.
    #[must_use]
    pub fn number(&self, label: &str) -> u64 {
        let Some(key) = &self.key else { return number(label) };
        let key = hmac::Key::new(hmac::HMAC_SHA256, key.reveal());
        let tag = hmac::sign(&key, label.as_bytes());
        let first = tag.as_ref().first_chunk().expect("a tag of SHA-256 has 32 bytes");
        u64::from_be_bytes(*first)
    }
}

/// The number of a label that everybody can find out: FNV-1a, the same everywhere and for ever, since clients keep
/// it in cookies.
pub(super) fn number(label: &str) -> u64 {
    label.bytes().fold(0xCBF2_9CE4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::secret::Token;

    fn sticky(key: Option<&str>) -> Sticky {
        Sticky { cookie: "home".to_owned(), max_age: None, key: key.map(Token::new) }
    }

    #[test]
    fn a_number_is_the_same_in_every_version() {
        // Computed elsewhere: FNV-1a, and the first bytes of HMAC-SHA256.
        assert_eq!(sticky(None).number("10.0.0.1:8080"), 0x8C20_5676_CB13_9B95);
        assert_eq!(
            sticky(Some("a key that nobody guesses")).number("10.0.0.1:8080"),
            0xCA0D_E501_8571_0BD0
        );
    }

    #[test]
    fn another_key_or_another_label_is_another_number() {
        let numbers = [
            sticky(None).number("a"),
            sticky(Some("one")).number("a"),
            sticky(Some("two")).number("a"),
            sticky(Some("one")).number("b"),
        ];
        for (n, one) in numbers.iter().enumerate() {
            assert!(!numbers[..n].contains(one), "{numbers:x?}");
        }
    }
}
