//! Sixteen bytes at a time: without a branch for each, so that compilers look at all of them in one wide register.

/// How many bytes are looked at.
const WIDTH: usize = 16;

/// How many bytes at the start are letters, digits or hyphens, which are in every token.
#[inline]
pub(super) fn usual_token(block: &[u8; WIDTH]) -> usize {
    until(block, |byte| {
        let letter = (byte | 0x20).wrapping_sub(b'a') < 26;
        let digit = byte.wrapping_sub(b'0') < 10;
        !(letter | digit | (byte == b'-'))
    })
}

/// How many bytes at the start may stand in a field value.
#[inline]
pub(super) fn value(block: &[u8; WIDTH]) -> usize {
    until(block, |byte| (byte < 0x20) & (byte != b'\t') | (byte == 0x7f))
}

/// How many bytes stand before the first of these.
#[inline]
fn until(block: &[u8; WIDTH], is_end: impl Fn(u8) -> bool) -> usize {
    let mut ends = [0; WIDTH];
    for (byte, end) in block.iter().zip(&mut ends) {
        *end = if is_end(*byte) { u8::MAX } else { 0 };
    }
    u128::from_le_bytes(ends).trailing_zeros() as usize / 8
}
