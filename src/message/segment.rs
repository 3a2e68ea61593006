//! One segment of a path, which may be any text (RFC 3986 §3.3).

use std::fmt::Write as _;

/// `text` as a segment: what would end it, or mean something else in it, is percent-encoded.
#[must_use]
pub fn encode(text: &str) -> String {
    let mut segment = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~:@".contains(&byte) {
            segment.push(char::from(byte));
        } else {
            // Writing to a string does not fail.
            let _ = write!(segment, "%{byte:02X}");
        }
    }
    // These alone are not segments but ways up and down.
    if segment == "." || segment == ".." { segment.replace('.', "%2E") } else { segment }
}

/// The text that a segment stands for; `None`: it stands for none.
#[must_use]
pub fn decode(segment: &str) -> Option<String> {
    let mut bytes = segment.bytes();
    let mut text = Vec::with_capacity(segment.len());
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            text.push(byte);
            continue;
        }
        let mut digit = || char::from(bytes.next()?).to_digit(16);
        let value = digit()? * 16 + digit()?;
        text.push(u8::try_from(value).ok()?);
    }
    String::from_utf8(text).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_would_end_a_segment_is_encoded() {
        assert_eq!(encode("10.0.0.1:80"), "10.0.0.1:80");
        assert_eq!(encode("http://a b?c#d%"), "http:%2F%2Fa%20b%3Fc%23d%25");
        assert_eq!(encode(".."), "%2E%2E");
    }

    #[test]
    fn what_is_no_text_is_none() {
        for segment in ["%", "%4", "%zz", "%ff", "%-1"] {
            assert_eq!(decode(segment), None, "{segment}");
        }
        assert_eq!(decode("a%2fb%2Fc"), Some("a/b/c".to_owned()));
    }

    proptest! {
        #[test]
        fn every_text_comes_back_from_one_segment(text in any::<String>()) {
            let segment = encode(&text);
            prop_assert!(!segment.contains('/') && segment.is_ascii());
            prop_assert_eq!(decode(&segment), Some(text));
        }
    }
}
