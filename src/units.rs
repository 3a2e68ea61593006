//! Quantities that people write: `64KiB`, `30s`, `5m`. Parsed once, typed from then on.
//!
//! What [`ByteSize`] and [`Period`] print, they read back as the same value.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

mod schema;
#[cfg(test)]
mod tests;

/// A number of bytes; written `512`, `64KiB`, `10MB`, `1GiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(pub u64);

/// A length of time; written `500ms`, `30s`, `5m`, `1h30m`, `7d`, or a bare `0`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Period(pub Duration);

/// Why a text is not a [`ByteSize`]. Its sentence says what is expected and does not repeat the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ByteSizeError {
    /// It does not begin with a digit.
    NoNumber,
    /// It has a decimal point.
    Fraction,
    /// What follows the number is not a unit that we know.
    UnknownUnit,
    /// It is more than 2^64 - 1 bytes.
    TooLarge,
}

/// Why a text is not a [`Period`]. Its sentence says what is expected and does not repeat the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeriodError {
    /// A number is missing where one has to stand.
    NoNumber,
    /// It has a decimal point.
    Fraction,
    /// A number without its unit.
    NoUnit,
    /// What follows a number is not a unit that we know.
    UnknownUnit,
    /// A unit is named twice, or a smaller one stands before a larger one.
    Order,
    /// It is longer than can be counted.
    TooLarge,
}

/// Units of bytes, the largest first: what [`fmt::Display`] tries in this order.
const BYTE_UNITS: &[(&str, u64)] = &[
    ("TiB", 1 << 40),
    ("TB", 1_000_000_000_000),
    ("GiB", 1 << 30),
    ("GB", 1_000_000_000),
    ("MiB", 1 << 20),
    ("MB", 1_000_000),
    ("KiB", 1 << 10),
    ("KB", 1_000),
];

/// Units of time in nanoseconds, the largest first.
const TIME_UNITS: &[(&str, u128)] = &[
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

impl FromStr for ByteSize {
    type Err = ByteSizeError;

    fn from_str(text: &str) -> Result<Self, ByteSizeError> {
        let (digits, unit) = split_number(text);
        if digits.is_empty() {
            return Err(ByteSizeError::NoNumber);
        }
        if unit.starts_with(['.', ',']) {
            return Err(ByteSizeError::Fraction);
        }
        let factor = match unit {
            "" | "B" => 1,
            // The metric prefix is a small k, and both spellings are common.
            "kB" => 1_000,
            _ => BYTE_UNITS
                .iter()
                .find_map(|(name, factor)| (*name == unit).then_some(*factor))
                .ok_or(ByteSizeError::UnknownUnit)?,
        };
        // Digits only, so the one way to fail is overflow.
        let number: u64 = digits.parse().map_err(|_| ByteSizeError::TooLarge)?;
        number.checked_mul(factor).map(Self).ok_or(ByteSizeError::TooLarge)
    }
}

impl FromStr for Period {
    type Err = PeriodError;

    fn from_str(text: &str) -> Result<Self, PeriodError> {
        if text == "0" {
            return Ok(Self(Duration::ZERO));
        }
        let mut rest = text;
        let mut units = TIME_UNITS;
        let mut total: u128 = 0;
        loop {
            let (digits, tail) = split_number(rest);
            if digits.is_empty() {
                return Err(PeriodError::NoNumber);
            }
            if tail.starts_with(['.', ',']) {
                return Err(PeriodError::Fraction);
            }
            let end = tail.bytes().position(|b| !b.is_ascii_alphabetic()).unwrap_or(tail.len());
            let (unit, tail) = tail.split_at(end);
            if unit.is_empty() {
                return Err(match tail {
                    "" => PeriodError::NoUnit,
                    _ => PeriodError::UnknownUnit,
                });
            }
            let Some(at) = units.iter().position(|(name, _)| *name == unit) else {
                return Err(match TIME_UNITS.iter().any(|(name, _)| *name == unit) {
                    true => PeriodError::Order,
                    false => PeriodError::UnknownUnit,
                });
            };
            let number: u128 = digits.parse().map_err(|_| PeriodError::TooLarge)?;
            total = number
                .checked_mul(units[at].1)
                .and_then(|nanos| total.checked_add(nanos))
                .ok_or(PeriodError::TooLarge)?;
            units = &units[at + 1..];
            if tail.is_empty() {
                break;
            }
            rest = tail;
        }
        let seconds = u64::try_from(total / 1_000_000_000).map_err(|_| PeriodError::TooLarge)?;
        let nanos = u32::try_from(total % 1_000_000_000)
            .expect("a remainder of one thousand million fits into 32 bits");
        Ok(Self(Duration::new(seconds, nanos)))
    }
}

/// The leading ASCII digits, and what follows them.
fn split_number(text: &str) -> (&str, &str) {
    let end = text.bytes().position(|b| !b.is_ascii_digit()).unwrap_or(text.len());
    text.split_at(end)
}

impl ByteSize {
    /// The number and the unit in which it is shortest; no unit for plain bytes.
    fn written(self) -> (u64, &'static str) {
        BYTE_UNITS
            .iter()
            .filter(|(_, factor)| self.0 != 0 && self.0 % factor == 0)
            .map(|(name, factor)| (self.0 / factor, *name))
            .min_by_key(|(number, _)| *number)
            .unwrap_or((self.0, ""))
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (number, unit) = self.written();
        write!(f, "{number}{unit}")
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0.as_nanos();
        if rest == 0 {
            return f.write_str("0s");
        }
        for (name, factor) in TIME_UNITS {
            let number = rest / factor;
            if number > 0 {
                write!(f, "{number}{name}")?;
            }
            rest %= factor;
        }
        Ok(())
    }
}

impl fmt::Display for ByteSizeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self {
            Self::NoNumber => "a size begins with a whole number",
            Self::Fraction => "a size is a whole number without a decimal point",
            Self::UnknownUnit => "the unit of this size is not known",
            Self::TooLarge => "this size is larger than 2^64 - 1 bytes",
        };
        write!(
            f,
            "{what}; expected a number of bytes such as 512, \
             or one with KB, MB, GB, TB (powers of 1000) or KiB, MiB, GiB, TiB (powers of 1024), \
             such as 64KiB"
        )
    }
}

impl fmt::Display for PeriodError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self {
            Self::NoNumber => "a duration is made of whole numbers, each followed by its unit",
            Self::Fraction => "a duration has no decimal point: 1500ms, not 1.5s",
            Self::NoUnit => "a duration needs a unit: 30s, not 30",
            Self::UnknownUnit => "the unit of this duration is not known",
            Self::Order => "the units of a duration stand once each, the largest first",
            Self::TooLarge => "this duration is longer than can be counted",
        };
        write!(
            f,
            "{what}; expected 0, or numbers with the units d, h, m, s, ms, us, ns, \
             such as 500ms, 30s or 1h30m"
        )
    }
}

impl std::error::Error for ByteSizeError {}
impl std::error::Error for PeriodError {}
