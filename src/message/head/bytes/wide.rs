//! Sixteen bytes at a time.

use std::ops::RangeInclusive;

use wide::u8x16;

/// How many bytes are looked at.
const WIDTH: usize = 16;

/// How many bytes at the start are letters, digits or hyphens, which are in every token.
#[inline]
pub(super) fn usual_token(block: &[u8; WIDTH]) -> usize {
    let bytes = u8x16::new(*block);
    let letter = within(bytes | u8x16::splat(0x20), b'a'..=b'z');
    let digit = within(bytes, b'0'..=b'9');
    before_first(!(letter | digit | bytes.cmp_eq(u8x16::splat(b'-'))))
}

/// How many bytes at the start may stand in a field value.
#[inline]
pub(super) fn value(block: &[u8; WIDTH]) -> usize {
    let bytes = u8x16::new(*block);
    let tab = bytes.cmp_eq(u8x16::splat(b'\t'));
    let control = within(bytes, 0..=0x1f) & !tab;
    before_first(control | bytes.cmp_eq(u8x16::splat(0x7f)))
}

/// All bits of those bytes that lie in this range, and none of others.
#[inline]
fn within(bytes: u8x16, range: RangeInclusive<u8>) -> u8x16 {
    let above = bytes - u8x16::splat(*range.start());
    above.min(u8x16::splat(range.end() - range.start())).cmp_eq(above)
}

/// How many bytes stand before the first that has all bits.
#[inline]
fn before_first(marked: u8x16) -> usize {
    // Behind the last one there is an end in any case.
    (marked.move_mask() | 1 << WIDTH).trailing_zeros() as usize
}
