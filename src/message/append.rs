//! Text put behind text.

/// Puts `text` at the end of `out`.
// Not where it is called: a head is written in dozens of pieces, and the code that makes room is needed once.
#[inline(never)]
pub fn append(out: &mut Vec<u8>, text: &[u8]) {
    out.extend_from_slice(text);
}

/// Puts these few bytes there. For what is no longer than a register: a call would cost more than it does.
#[inline]
pub fn append_few<const N: usize>(out: &mut Vec<u8>, text: [u8; N]) {
    const { assert!(N <= 8) };
    out.extend_from_slice(&text);
}
