//! Messages of one process to another: a kind, a length, what it says, and a sum over all of that.
//!
//! Whatever comes is read within bounds; what is not as it was written ends the conversation.

use std::io;
use std::io::Read;
use std::io::Write;

/// The longest message, in bytes.
pub(super) const LONGEST: usize = 4 << 20;

/// Writes one message, which is in these parts.
pub(super) fn write(out: &mut impl Write, kind: u8, parts: &[&[u8]]) -> io::Result<()> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let length = u32::try_from(length).ok().filter(|length| *length as usize <= LONGEST);
    let length = length.ok_or_else(|| io::Error::other("a message that is too long"))?;
    let mut sum = Sum::new(kind, length);
    out.write_all(&[kind])?;
    out.write_all(&length.to_be_bytes())?;
    for part in parts {
        sum.add(part);
        out.write_all(part)?;
    }
    out.write_all(&sum.value().to_be_bytes())
}

/// Reads one message into `text`; its kind, or `None` where the other side has hung up.
pub(super) fn read(from: &mut impl Read, text: &mut Vec<u8>) -> io::Result<Option<u8>> {
    let mut kind = [0];
    if from.read(&mut kind)? == 0 {
        return Ok(None);
    }
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length);
    if length as usize > LONGEST {
        return Err(io::Error::other("a message that is too long"));
    }
    text.clear();
    // Memory is taken as it comes, not as it is announced.
    from.take(length.into()).read_to_end(text)?;
    let mut told = [0; 8];
    from.read_exact(&mut told)?;
    let mut sum = Sum::new(kind[0], length);
    sum.add(text);
    if sum.value() != u64::from_be_bytes(told) {
        return Err(io::Error::other("a message that is not as it was written"));
    }
    Ok(Some(kind[0]))
}

/// A sum over bytes, eight at a time: it finds what went wrong, not who did it.
struct Sum {
    value: u64,
    /// What is not yet eight bytes.
    open: [u8; 8],
    filled: usize,
}

impl Sum {
    fn new(kind: u8, length: u32) -> Self {
        let mut sum = Self { value: 0x9e37_79b9_7f4a_7c15, open: [0; 8], filled: 0 };
        sum.mix(u64::from(kind) << 32 | u64::from(length));
        sum
    }

    fn mix(&mut self, word: u64) {
        // An odd factor and a turn: no change of one word is lost, wherever it is.
        self.value = (self.value ^ word).wrapping_mul(0xff51_afd7_ed55_8ccd).rotate_left(29);
    }

    fn add(&mut self, mut bytes: &[u8]) {
        if self.filled > 0 {
            let taken = bytes.len().min(8 - self.filled);
            self.open[self.filled..self.filled + taken].copy_from_slice(&bytes[..taken]);
            self.filled += taken;
            bytes = &bytes[taken..];
            if self.filled < 8 {
                return;
            }
            self.mix(u64::from_le_bytes(self.open));
            self.filled = 0;
        }
        let (words, rest) = bytes.as_chunks::<8>();
        words.iter().for_each(|word| self.mix(u64::from_le_bytes(*word)));
        self.open[..rest.len()].copy_from_slice(rest);
        self.filled = rest.len();
    }

    fn value(mut self) -> u64 {
        let mut last = [0; 8];
        last[..self.filled].copy_from_slice(&self.open[..self.filled]);
        self.mix(u64::from_le_bytes(last));
        self.value
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(kind: u8, parts: &[&[u8]]) -> Vec<u8> {
        let mut bytes = Vec::new();
        write(&mut bytes, kind, parts).unwrap();
        bytes
    }

    #[test]
    fn who_has_hung_up_says_nothing_more() {
        assert_eq!(read(&mut &[][..], &mut Vec::new()).unwrap(), None);
    }

    #[test]
    fn a_length_beyond_measure_is_refused_before_anything_is_read() {
        let bytes = [b'o', 0xff, 0xff, 0xff, 0xff];
        let error = read(&mut &bytes[..], &mut Vec::new()).unwrap_err();
        assert!(error.to_string().contains("too long"), "{error}");
        assert!(write(&mut Vec::new(), b'o', &[&vec![0; LONGEST + 1]]).is_err());
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_however_it_is_divided(
            kind in any::<u8>(), text in prop::collection::vec(any::<u8>(), 0..60), at in any::<prop::sample::Index>(),
        ) {
            let (one, other) = text.split_at(at.index(text.len() + 1));
            let bytes = written(kind, &[one, other]);
            prop_assert_eq!(&bytes, &written(kind, &[&text]));
            let mut heard = Vec::new();
            let mut from = &bytes[..];
            prop_assert_eq!(read(&mut from, &mut heard).unwrap(), Some(kind));
            prop_assert!(from.is_empty());
            prop_assert_eq!(heard, text);
        }

        #[test]
        fn a_message_that_is_cut_or_changed_is_none(
            text in prop::collection::vec(any::<u8>(), 0..60), at in any::<prop::sample::Index>(), bit in 0_u32..8,
        ) {
            let bytes = written(b'o', &[&text]);
            let at = at.index(bytes.len());
            if at > 0 {
                prop_assert!(read(&mut &bytes[..at], &mut Vec::new()).is_err());
            }
            let mut changed = bytes.clone();
            changed[at] ^= 1 << bit;
            prop_assert!(read(&mut &changed[..], &mut Vec::new()).is_err());
        }
    }
}
