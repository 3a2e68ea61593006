//! Numbers as they stand in fields, a third of the time that formatting takes.

/// The decimal digits of a number.
#[derive(Debug, Clone, Copy)]
pub struct Digits {
    text: [u8; 20],
    begins: usize,
}

impl Digits {
    /// Those of this number, without leading zeros.
    #[must_use]
    pub fn of(mut number: u64) -> Self {
        let mut text = [0; 20];
        let mut begins = text.len();
        loop {
            begins -= 1;
            text[begins] = b'0' + (number % 10) as u8;
            number /= 10;
            if number == 0 {
                return Self { text, begins };
            }
        }
    }

    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.text[self.begins..]).unwrap_or_default()
    }
}

/// The sixteen hexadecimal digits of a number, in lower case.
#[must_use]
pub fn hex(number: u64) -> [u8; 16] {
    let halves = [number >> 32, number & 0xffff_ffff];
    let mut text = [0; 16];
    for (half, text) in halves.into_iter().zip(text.as_chunks_mut::<8>().0) {
        *text = hex_of_half(half).to_be_bytes();
    }
    text
}

/// Eight digits at once: each half byte in a byte of its own, and then made a letter or a digit.
fn hex_of_half(half: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let mut spread = half;
    spread = (spread << 16 | spread) & 0x0000_ffff_0000_ffff;
    spread = (spread << 8 | spread) & 0x00ff_00ff_00ff_00ff;
    spread = (spread << 4 | spread) & (0x0f * ONES);
    // One in each byte from ten on, where six more reach the upper half of the byte.
    let letters = ((spread + 6 * ONES) >> 4) & ONES;
    spread + u64::from(b'0') * ONES + letters * u64::from(b'a' - b'0' - 10)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_have_all_their_digits() {
        for number in [0, 7, 10, 1_000, u64::MAX] {
            assert_eq!(Digits::of(number).as_str(), number.to_string());
        }
    }

    proptest! {
        #[test]
        fn hexadecimal_digits_are_those_that_formatting_writes(number: u64) {
            let text = hex(number);
            prop_assert_eq!(std::str::from_utf8(&text), Ok(&*format!("{number:016x}")));
        }
    }
}
