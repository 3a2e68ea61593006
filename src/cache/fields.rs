//! Field values as bytes: list members and quoted strings (RFC 9110 §5.6), read without allocation.
//!
//! A comma inside a quoted string separates nothing; a quoted string that is never closed reaches to
//! the end of its line. Nothing here fails: what a peer sent is always some list.

/// The members of one field line, split at commas outside quoted strings and freed of the white
/// space around them. Empty members are kept: whether they count is the caller's business.
pub fn members(line: &[u8]) -> Pieces<'_> {
    Pieces { rest: Some(line), separator: is_comma }
}

/// The words of one list member: split at white space and semicolons outside quoted strings. A
/// well-formed cache directive is exactly one word.
pub(crate) fn words(member: &[u8]) -> impl Iterator<Item = &[u8]> {
    Pieces { rest: Some(member), separator: is_gap }.filter(|word| !word.is_empty())
}

/// What stands behind the first quotation mark of a line whose last quoted string is never closed, taken apart as if
/// nothing were quoted: words that somebody may have meant.
pub(crate) fn unclosed(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let opens = line.iter().position(|&byte| byte == b'"').filter(|_| !is_closed(line));
    let rest = opens.map_or(&[][..], |at| &line[at + 1..]);
    let is_between = |byte: &u8| is_comma(*byte) || is_gap(*byte) || matches!(byte, b'"' | b'\\');
    rest.split(is_between).filter(|word| !word.is_empty())
}

/// Whether every quoted string of a line is closed.
fn is_closed(line: &[u8]) -> bool {
    let (mut quoted, mut escaped) = (false, false);
    for &byte in line {
        match (quoted, byte) {
            (true, _) if escaped => escaped = false,
            (true, b'\\') => escaped = true,
            (_, b'"') => quoted = !quoted,
            (_, _) => {}
        }
    }
    !quoted
}

/// The pieces of a value between separators; see [`members`].
#[derive(Debug, Clone)]
pub struct Pieces<'a> {
    rest: Option<&'a [u8]>,
    separator: fn(u8) -> bool,
}

impl<'a> Iterator for Pieces<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let rest = self.rest?;
        match end_of_piece(rest, self.separator) {
            Some(end) => {
                self.rest = Some(&rest[end + 1..]);
                Some(trim(&rest[..end]))
            }
            None => {
                self.rest = None;
                Some(trim(rest))
            }
        }
    }
}

fn is_comma(byte: u8) -> bool {
    byte == b','
}

fn is_gap(byte: u8) -> bool {
    matches!(byte, b';' | b' ' | b'\t')
}

fn end_of_piece(value: &[u8], separator: fn(u8) -> bool) -> Option<usize> {
    let mut quoted = false;
    let mut escaped = false;
    for (at, &byte) in value.iter().enumerate() {
        match (quoted, byte) {
            (true, _) if escaped => escaped = false,
            (true, b'\\') => escaped = true,
            (true, b'"') => quoted = false,
            (true, _) => {}
            (false, b'"') => quoted = true,
            (false, byte) if separator(byte) => return Some(at),
            (false, _) => {}
        }
    }
    None
}

/// A value without the optional white space around it (RFC 9110 §5.6.3).
pub fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = value {
        value = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// The text of a token or of a quoted string, escapes resolved (RFC 9110 §5.6.4). `None` when the
/// value opens a quoted string and does not close it exactly at its end.
pub fn unquote(value: &[u8]) -> Option<Vec<u8>> {
    let [b'"', inner @ ..] = value else {
        return Some(value.to_vec());
    };
    let mut text = Vec::with_capacity(inner.len());
    let mut bytes = inner.iter();
    while let Some(&byte) = bytes.next() {
        match byte {
            b'"' if bytes.as_slice().is_empty() => return Some(text),
            b'"' => return None,
            b'\\' => text.push(*bytes.next()?),
            byte => text.push(byte),
        }
    }
    None
}

/// Whether a byte may stand in a token (RFC 9110 §5.6.2).
pub fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Appends one component, its length first, so that no two lists of components share an encoding.
pub fn push(bytes: &mut Vec<u8>, component: &[u8]) {
    push_number(bytes, component.len());
    bytes.extend_from_slice(component);
}

/// Appends a length or a count: seven bits a byte, the lowest first, and the eighth where more follow. Most
/// are small, and a key has many.
pub(crate) fn push_number(bytes: &mut Vec<u8>, mut number: usize) {
    while number >= 0x80 {
        bytes.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    bytes.push(number.to_le_bytes()[0]);
}

/// Reads what [`push_number`] wrote, and what follows it.
pub(crate) fn take_number(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let end = bytes.iter().position(|byte| byte & 0x80 == 0)?;
    let (digits, rest) = bytes.split_at(end + 1);
    let mut number = 0_usize;
    for digit in digits.iter().rev() {
        number = number.checked_mul(0x80)?.checked_add(usize::from(digit & 0x7f))?;
    }
    Some((number, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(line: &str) -> Vec<&[u8]> {
        members(line.as_bytes()).collect()
    }

    #[test]
    fn members_are_split_at_commas_and_trimmed() {
        assert_eq!(split("a, b ,\tc"), [b"a", b"b", b"c"]);
    }

    #[test]
    fn a_comma_in_a_quoted_string_separates_nothing() {
        assert_eq!(split(r#"a="b, c", d"#), [&br#"a="b, c""#[..], b"d"]);
    }

    #[test]
    fn an_escaped_quote_does_not_close_the_string() {
        assert_eq!(split(r#"a="b\", c", d"#), [&br#"a="b\", c""#[..], b"d"]);
    }

    #[test]
    fn an_unclosed_string_reaches_to_the_end() {
        assert_eq!(split(r#"a="b, c"#), [&br#"a="b, c"#[..]]);
    }

    #[test]
    fn of_an_unclosed_string_the_words_are_known_and_of_a_closed_one_none() {
        let words = |line: &'static str| -> Vec<&[u8]> { unclosed(line.as_bytes()).collect() };
        assert_eq!(words(r#"a, b="c, d; e"#), [b"c", b"d", b"e"]);
        assert_eq!(words(r#"x="\", private"#), [b"private"]);
        // Which of the marks are a pair is anybody's guess.
        assert_eq!(words(r#"x="\", private, y="z""#), [&b"private"[..], b"y=", b"z"]);
        for closed in [r#"a="b, c""#, r#"a="\", c""#, "a, b", "", r#"a="" "#, r#"a="\\""#] {
            assert!(words(closed).is_empty(), "{closed}");
        }
    }

    #[test]
    fn empty_members_are_kept() {
        assert_eq!(split(",a,"), [&b""[..], b"a", b""]);
    }

    #[test]
    fn numbers_are_read_back_and_end_where_they_end() {
        for number in [0, 1, 0x7f, 0x80, 0x3fff, 0x4000, 1 << 40, usize::MAX] {
            let mut bytes = Vec::new();
            push_number(&mut bytes, number);
            bytes.extend_from_slice(b"\xffrest");
            assert_eq!(take_number(&bytes), Some((number, &b"\xffrest"[..])));
        }
        assert_eq!(take_number(b""), None);
        assert_eq!(take_number(b"\x80\x80"), None);
        assert_eq!(take_number(&[0xff; 20]), None);
        assert_eq!(take_number(&[&[0xff; 19][..], &[0x7f]].concat()), None, "too large");
    }

    #[test]
    fn unquoting_resolves_escapes() {
        assert_eq!(unquote(br#""a\"b""#), Some(b"a\"b".to_vec()));
        assert_eq!(unquote(b"a"), Some(b"a".to_vec()));
    }

    #[test]
    fn unquoting_refuses_what_is_not_one_whole_string() {
        for broken in [&br#"""#[..], br#""a"#, br#""a"b"#, br#""a\"#] {
            assert_eq!(unquote(broken), None);
        }
    }
}
