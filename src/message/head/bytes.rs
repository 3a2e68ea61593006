//! Which bytes may stand where: one table, and loops that skip the bytes of a class.

mod wide;

/// A byte of a token (RFC 9110 §5.6.2).
const TOKEN: u8 = 1;
/// A byte of a request target that we pass on.
const TARGET: u8 = 2;

/// The classes of every byte.
static CLASSES: [u8; 256] = classes();

const fn classes() -> [u8; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let b = byte as u8;
        if b.is_ascii_alphanumeric()
            || matches!(
                b,
                b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_'
            )
            || matches!(b, b'`' | b'|' | b'~')
        {
            table[byte] |= TOKEN;
        }
        // RFC 3986 allows fewer than these: browsers send [ ] ^ ` { | } as they are, and no parser
        // behind us reads structure in them. The five that are missing do carry structure for some
        // parser: a fragment, a Windows separator, markup.
        if b.is_ascii_graphic() && !matches!(b, b'"' | b'#' | b'<' | b'>' | b'\\') {
            table[byte] |= TARGET;
        }
        byte += 1;
    }
    table
}

/// Whether this byte may stand in a token (RFC 9110 §5.6.2).
pub(in crate::message) fn is_token(byte: u8) -> bool {
    CLASSES[usize::from(byte)] & TOKEN != 0
}

/// How many bytes at the start belong to a token.
pub(in crate::message) fn skip_token(bytes: &[u8]) -> usize {
    skip(bytes, TOKEN)
}

/// How many bytes at the start are letters, digits and hyphens, as in nearly all names; `None` leaves what comes close
/// to the end to others.
#[inline]
pub(super) fn usual_token(bytes: &[u8]) -> Option<usize> {
    through_blocks(bytes, wide::usual_token)
}

/// How many bytes at the start may stand in a field value; `None` leaves what comes close to the end to others.
#[inline]
pub(super) fn whole_value(bytes: &[u8]) -> Option<usize> {
    through_blocks(bytes, wide::value)
}

/// How many bytes at the start are of a kind, of which `count` says how many a block begins with.
#[inline]
fn through_blocks<const N: usize>(
    bytes: &[u8],
    count: impl Fn(&[u8; N]) -> usize,
) -> Option<usize> {
    let mut length = 0;
    loop {
        let here = count(bytes.get(length..)?.first_chunk()?);
        length += here;
        if here < N {
            return Some(length);
        }
    }
}

/// How many bytes at the start may stand in a request target.
pub(super) fn skip_target(bytes: &[u8]) -> usize {
    skip(bytes, TARGET)
}

fn skip(bytes: &[u8], class: u8) -> usize {
    bytes.iter().position(|b| CLASSES[usize::from(*b)] & class == 0).unwrap_or(bytes.len())
}

/// Whether this byte may stand in a field value: HTAB, SP, VCHAR, obs-text (RFC 9110 §5.5).
pub(in crate::message) fn is_value(byte: u8) -> bool {
    byte == b'\t' || (byte >= 0x20 && byte != 0x7f)
}

/// How many bytes at the start may stand in a field value.
pub(in crate::message) fn skip_value(bytes: &[u8]) -> usize {
    let mut clean = 0;
    while let Some(block) = bytes.get(clean..).and_then(<[u8]>::first_chunk) {
        let here = wide::value(block);
        clean += here;
        if here < block.len() {
            return clean;
        }
    }
    let rest = bytes.get(clean..).unwrap_or_default();
    clean + rest.iter().position(|byte| !is_value(*byte)).unwrap_or(rest.len())
}

/// The bytes without the optional whitespace around them (RFC 9110 §5.6.3).
pub(in crate::message) fn trim(bytes: &[u8]) -> &[u8] {
    let mut rest = bytes;
    while let [b' ' | b'\t', tail @ ..] = rest {
        rest = tail;
    }
    while let [head @ .., b' ' | b'\t'] = rest {
        rest = head;
    }
    rest
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_skipped_at_once_is_what_is_skipped_byte_by_byte(
            bytes in prop_oneof![
                "[a-zA-Z0-9-]{0,40}[:_!{`@\\[/ ]?[a-z]{0,20}".prop_map(String::into_bytes),
                "[ -~\t\u{80}-\u{ff}]{0,40}[\r\u{7f}\u{0}\u{1f}]?[a-z]{0,20}".prop_map(String::into_bytes),
                proptest::collection::vec(any::<u8>(), 0..40),
            ]
        ) {
            let token = bytes.iter().take_while(|byte| is_token(**byte)).count();
            prop_assert_eq!(skip_token(&bytes), token);
            let value = bytes.iter().take_while(|byte| is_value(**byte)).count();
            prop_assert_eq!(skip_value(&bytes), value);
            let is_usual = |byte: &&u8| byte.is_ascii_alphanumeric() || **byte == b'-';
            let usual = bytes.iter().take_while(is_usual).count();
            // It looks at whole blocks, so far as there are any.
            let seen = |length| length < bytes.len() / 16 * 16;
            prop_assert_eq!(usual_token(&bytes), Some(usual).filter(|usual| seen(*usual)));
            prop_assert_eq!(whole_value(&bytes), Some(value).filter(|value| seen(*value)));
        }
    }

    #[test]
    fn a_token_ends_at_each_byte_that_is_none_wherever_it_stands() {
        for byte in 0..=u8::MAX {
            for at in 0..34 {
                let mut name = vec![b'n'; 34];
                name[at] = byte;
                assert_eq!(skip_token(&name), if is_token(byte) { 34 } else { at }, "{byte:#x}");
            }
        }
    }

    #[test]
    fn a_token_has_exactly_the_bytes_of_the_grammar() {
        for byte in 0..=u8::MAX {
            let listed = b"!#$%&'*+-.^_`|~".contains(&byte) || byte.is_ascii_alphanumeric();
            assert_eq!(is_token(byte), listed, "{byte:#x}");
        }
    }

    #[test]
    fn a_target_has_no_space_control_or_foreign_byte() {
        for byte in (0..=b' ').chain(0x7f..=u8::MAX).chain(*b"\"#<>\\") {
            assert_eq!(skip_target(&[byte]), 0, "{byte:#x}");
        }
        assert_eq!(skip_target(b"/a?b=[{|}]^`'%20;~"), 18);
    }

    #[test]
    fn a_value_stops_at_the_first_control_byte_wherever_it_stands() {
        for byte in (0..=u8::MAX).filter(|b| (*b < 0x20 && *b != b'\t') || *b == 0x7f) {
            for at in 0..40 {
                let mut value = vec![b'a'; 40];
                value[at] = byte;
                assert_eq!(skip_value(&value), at, "{byte:#x}");
            }
        }
    }

    #[test]
    fn a_value_may_hold_tabs_and_foreign_bytes() {
        let value = [b'\t', 0x80, 0xff, b' ', b'~'].repeat(9);
        assert_eq!(skip_value(&value), value.len());
    }

    #[test]
    fn whitespace_is_trimmed_on_both_sides_only() {
        assert_eq!(trim(b" \ta b\t "), b"a b");
        assert_eq!(trim(b" \t "), b"");
    }
}
