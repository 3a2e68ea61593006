//! Percent-encoding (RFC 3986 §2): what may stand as it is, and where.

/// Where in a URL a text is put; decides which bytes may stand there unencoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::route) enum Place {
    /// The authority: only what may stand in a label of a host name.
    Authority,
    /// The path, slashes included.
    Path,
    /// A whole query or fragment.
    Query,
    /// One value within a query: the bytes that separate pairs are data here.
    QueryValue,
}

impl Place {
    fn admits(self, byte: u8) -> bool {
        match self {
            Self::Authority => is_unreserved(byte),
            Self::Path => byte.is_ascii_graphic() && !br##""#<>?\^`{|}"##.contains(&byte),
            Self::Query => byte.is_ascii_graphic() && !br##""#<>"##.contains(&byte),
            Self::QueryValue => byte.is_ascii_graphic() && !br##""#<>&+=;"##.contains(&byte),
        }
    }

    /// What a `%` without two hexadecimal digits is.
    fn keeps_bare_percent(self) -> bool {
        // A query is often not encoded at all by those who wrote it, and is passed on as it came.
        self == Self::Query
    }
}

/// Letters, digits, `-`, `.`, `_` and `~` (RFC 3986 §2.3).
pub(in crate::route) fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

/// Appends `text`, which may be percent-encoded in part, so that it holds nothing but what may stand
/// in `place`: no control bytes, no spaces, nothing outside ASCII.
pub(in crate::route) fn push(out: &mut String, text: &str, place: Place) {
    let bytes = text.as_bytes();
    for (at, &byte) in bytes.iter().enumerate() {
        let as_is = if byte == b'%' && place != Place::Authority {
            place.keeps_bare_percent() || octet(&bytes[at..]).is_some()
        } else {
            place.admits(byte)
        };
        if as_is { out.push(char::from(byte)) } else { push_octet(out, byte) }
    }
}

/// Appends `%XX`, in upper case (RFC 3986 §6.2.2.1).
pub(in crate::route) fn push_octet(out: &mut String, byte: u8) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    out.push('%');
    out.push(char::from(DIGITS[usize::from(byte >> 4)]));
    out.push(char::from(DIGITS[usize::from(byte & 15)]));
}

/// The octet that a leading `%XX` stands for.
pub(in crate::route) fn octet(bytes: &[u8]) -> Option<u8> {
    let [b'%', high, low, ..] = bytes else {
        return None;
    };
    let high = char::from(*high).to_digit(16)?;
    let low = char::from(*low).to_digit(16)?;
    u8::try_from(high * 16 + low).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pushed(text: &str, place: Place) -> String {
        let mut out = String::new();
        push(&mut out, text, place);
        out
    }

    #[test]
    fn encoded_octets_stay_and_bare_percents_are_encoded_in_a_path() {
        assert_eq!(pushed("/a%20b%/%4", Place::Path), "/a%20b%25/%254");
    }

    #[test]
    fn controls_spaces_and_other_scripts_are_encoded_everywhere() {
        for place in [Place::Authority, Place::Path, Place::Query, Place::QueryValue] {
            assert_eq!(pushed(" \r\n\u{7f}é", place), "%20%0D%0A%7F%C3%A9");
        }
    }

    #[test]
    fn a_value_in_a_query_cannot_start_another_pair() {
        assert_eq!(pushed("a&b=c+d", Place::QueryValue), "a%26b%3Dc%2Bd");
        assert_eq!(pushed("a&b=c+d", Place::Query), "a&b=c+d");
    }

    #[test]
    fn a_value_in_an_authority_cannot_leave_its_label() {
        assert_eq!(pushed("a/b@c:d%2F", Place::Authority), "a%2Fb%40c%3Ad%252F");
    }
}
