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

/// Which bytes stand as they are; a `%` is looked at by itself.
type Table = [bool; 256];

static IN_AUTHORITY: Table = table(Place::Authority);
static IN_PATH: Table = table(Place::Path);
static IN_QUERY: Table = table(Place::Query);
static IN_QUERY_VALUE: Table = table(Place::QueryValue);

const fn table(place: Place) -> Table {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = byte != b'%' as usize && place.admits(byte as u8);
        byte += 1;
    }
    table
}

impl Place {
    const fn admits(self, byte: u8) -> bool {
        match self {
            Self::Authority => is_unreserved(byte),
            Self::Path => {
                byte.is_ascii_graphic()
                    && !matches!(byte, b'"' | b'#' | b'<' | b'>' | b'?' | b'\\' | b'^' | b'`')
                    && !matches!(byte, b'{' | b'|' | b'}')
            }
            Self::Query => byte.is_ascii_graphic() && !matches!(byte, b'"' | b'#' | b'<' | b'>'),
            Self::QueryValue => {
                Self::Query.admits(byte) && !matches!(byte, b'&' | b'+' | b'=' | b';')
            }
        }
    }

    fn table(self) -> &'static Table {
        match self {
            Self::Authority => &IN_AUTHORITY,
            Self::Path => &IN_PATH,
            Self::Query => &IN_QUERY,
            Self::QueryValue => &IN_QUERY_VALUE,
        }
    }

    /// What a `%` without two hexadecimal digits is.
    fn keeps_bare_percent(self) -> bool {
        // A query is often not encoded at all by those who wrote it, and is passed on as it came.
        self == Self::Query
    }
}

/// Letters, digits, `-`, `.`, `_` and `~` (RFC 3986 §2.3).
pub(in crate::route) const fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// Appends `text`, which may be percent-encoded in part, so that it holds nothing but what may stand
/// in `place`: no control bytes, no spaces, nothing outside ASCII.
pub(in crate::route) fn push(out: &mut String, text: &str, place: Place) {
    let bytes = text.as_bytes();
    let table = place.table();
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let plain = bytes[at..].iter().take_while(|&&byte| table[usize::from(byte)]).count();
        if plain > 0 {
            // What stands as it is, is ASCII: no character is cut.
            out.push_str(&text[at..at + plain]);
            at += plain;
            continue;
        }
        let as_is = byte == b'%'
            && place != Place::Authority
            && (place.keeps_bare_percent() || octet(&bytes[at..]).is_some());
        if as_is {
            out.push('%')
        } else {
            push_octet(out, byte)
        }
        at += 1;
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
