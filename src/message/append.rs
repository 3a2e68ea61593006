//! Text put behind text.

/// Puts `text` at the end of `out`.
// Not where it is called: a head is written in dozens of pieces, and the code that makes room is needed once.
#[inline(never)]
pub fn append(out: &mut Vec<u8>, text: &[u8]) {
    out.extend_from_slice(text);
}
