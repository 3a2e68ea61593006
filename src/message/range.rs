//! Byte ranges (RFC 9110 §14): which bytes a request asks for, and how several are sent at once.

use std::fmt;
use std::ops::Range;

use bytes::Bytes;
use http::HeaderMap;
use http::HeaderValue;
use http::header;

use crate::message::list;

/// The most ranges that one response is made of.
const MOST_RANGES: usize = 8;

/// The most ranges that are looked at before overlapping ones are joined.
const MOST_SPECS: usize = 64;

/// What a Range field comes to for a representation of known length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ranges {
    /// The field is absent, malformed, of another unit, or asks for too many ranges: it is ignored
    /// (§14.2), and the whole representation is sent.
    Whole,
    /// No byte of it exists: 416 with [`unsatisfied`] (§15.5.17).
    Unsatisfiable,
    /// These bytes, never none: 206 with [`content_range`].
    One(Range<u64>),
    /// 2 to 8 ranges that do not overlap, in the order asked for where none had to be joined: 206
    /// as [`Multipart`].
    Many(Vec<Range<u64>>),
}

impl Ranges {
    /// Reads the Range field of a request for a representation of `length` bytes. Two fields are
    /// malformed.
    #[must_use]
    pub fn of(request: &HeaderMap, length: u64) -> Self {
        let mut lines = request.get_all(header::RANGE).into_iter();
        match (lines.next(), lines.next()) {
            (Some(line), None) => Self::parse(line.as_bytes(), length),
            _ => Self::Whole,
        }
    }

    /// Reads a field value such as `bytes=0-99, -10`.
    #[must_use]
    pub fn parse(value: &[u8], length: u64) -> Self {
        let Some((unit, set)) = value.split_at_checked(6) else {
            return Self::Whole;
        };
        if !unit.eq_ignore_ascii_case(b"bytes=") {
            return Self::Whole;
        }
        let mut wanted = Wanted::default();
        let mut specs = 0;
        for spec in set.split(|&byte| byte == b',').map(list::trim) {
            if spec.is_empty() {
                continue;
            }
            specs += 1;
            // One malformed range spoils the field: the rest may not mean what it seems to.
            let (true, Some(spec)) = (specs <= MOST_SPECS, Spec::parse(spec)) else {
                return Self::Whole;
            };
            if let Some(range) = spec.within(length) {
                wanted.add(range);
            }
        }
        match specs {
            0 => Self::Whole,
            // Of an empty representation nothing can be named in Content-Range, though the last
            // five bytes of it are satisfiable by the letter (§14.1.2).
            _ if length == 0 && set.split(|&byte| byte == b',').any(is_nonzero_suffix) => {
                Self::Whole
            }
            _ => wanted.into_ranges(),
        }
    }
}

fn is_nonzero_suffix(spec: &[u8]) -> bool {
    matches!(Spec::parse(list::trim(spec)), Some(Spec::Last(1..)))
}

/// One range as asked for (§14.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Spec {
    /// From here to there, both included.
    Between(u64, u64),
    /// From here to the end.
    From(u64),
    /// The last so many bytes.
    Last(u64),
}

impl Spec {
    /// The one range that a request asks for; `None` where it asks for none, for several, or for what
    /// cannot be read.
    #[must_use]
    pub fn only(request: &HeaderMap) -> Option<Self> {
        let mut lines = request.get_all(header::RANGE).into_iter();
        let (Some(line), None) = (lines.next(), lines.next()) else { return None };
        let (unit, spec) = line.as_bytes().split_at_checked(6)?;
        if !unit.eq_ignore_ascii_case(b"bytes=") {
            return None;
        }
        Self::parse(list::trim(spec))
    }

    /// The value of Range that asks for it.
    #[must_use]
    pub fn to_value(self) -> HeaderValue {
        header_value(format!("bytes={self}"))
    }

    fn parse(text: &[u8]) -> Option<Self> {
        let dash = text.iter().position(|&byte| byte == b'-')?;
        match (&text[..dash], &text[dash + 1..]) {
            ([], last) => Some(Self::Last(number(last)?)),
            (first, []) => Some(Self::From(number(first)?)),
            (first, last) => {
                let (first, last) = (number(first)?, number(last)?);
                (first <= last).then_some(Self::Between(first, last))
            }
        }
    }

    /// The bytes of it that exist in a representation of this length; `None` if there are none.
    #[must_use]
    pub fn within(&self, length: u64) -> Option<Range<u64>> {
        let range = match *self {
            Self::Between(first, last) => first..last.saturating_add(1).min(length),
            Self::From(first) => first..length,
            Self::Last(count) => length.saturating_sub(count)..length,
        };
        (range.start < range.end).then_some(range)
    }
}

impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Between(first, last) => write!(f, "{first}-{last}"),
            Self::From(first) => write!(f, "{first}-"),
            Self::Last(count) => write!(f, "-{count}"),
        }
    }
}

/// Digits only; more than 64 bits are as good as the largest number.
fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |number, byte| {
        byte.is_ascii_digit()
            .then(|| number.saturating_mul(10).saturating_add(u64::from(byte - b'0')))
    })
}

/// The satisfiable ranges so far; the first without allocation, because most requests have one.
#[derive(Default)]
struct Wanted {
    first: Option<Range<u64>>,
    more: Vec<Range<u64>>,
}

impl Wanted {
    fn add(&mut self, range: Range<u64>) {
        match self.first {
            None => self.first = Some(range),
            Some(_) => self.more.push(range),
        }
    }

    fn into_ranges(self) -> Ranges {
        let Some(first) = self.first else {
            return Ranges::Unsatisfiable;
        };
        if self.more.is_empty() {
            return Ranges::One(first);
        }
        let mut asked = self.more;
        asked.insert(0, first);
        let joined = join_overlaps(&asked);
        let ranges = if joined.len() == asked.len() { asked } else { joined };
        match <[Range<u64>; 1]>::try_from(ranges) {
            Ok([one]) => Ranges::One(one),
            Err(many) if many.len() <= MOST_RANGES => Ranges::Many(many),
            Err(_) => Ranges::Whole,
        }
    }
}

/// Ranges in ascending order, overlapping ones as one: no byte is sent twice (§14.2, §17.15).
fn join_overlaps(ranges: &[Range<u64>]) -> Vec<Range<u64>> {
    let mut sorted = ranges.to_vec();
    sorted.sort_unstable_by_key(|range| range.start);
    let mut joined: Vec<Range<u64>> = Vec::with_capacity(sorted.len());
    for range in sorted {
        match joined.last_mut() {
            Some(last) if range.start < last.end => last.end = last.end.max(range.end),
            _ => joined.push(range),
        }
    }
    joined
}

/// Content-Range of a 206: `bytes 0-99/1000` (§14.4). The range is not empty.
#[must_use]
pub fn content_range(range: &Range<u64>, length: u64) -> HeaderValue {
    header_value(content_range_text(range, length))
}

/// Content-Range of a 416: `bytes */1000` (§15.5.17).
#[must_use]
pub fn unsatisfied(length: u64) -> HeaderValue {
    header_value(format!("bytes */{length}"))
}

fn content_range_text(range: &Range<u64>, length: u64) -> String {
    format!("bytes {}-{}/{length}", range.start, range.end.saturating_sub(1))
}

fn header_value(text: String) -> HeaderValue {
    HeaderValue::from_maybe_shared(Bytes::from(text))
        .expect("numbers and letters are a field value")
}

/// A `multipart/byteranges` body (§14.6): what stands between the ranges, and how long it all is.
///
/// The bytes that are sent are the bytes that were counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Multipart {
    parts: Vec<Part>,
    closing: Bytes,
    content_type: HeaderValue,
    content_length: u64,
}

/// One part: its header, and the range of the representation that follows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// The delimiter line, the part's fields and the empty line.
    pub header: Bytes,
    /// The bytes of the representation that follow.
    pub range: Range<u64>,
}

impl Multipart {
    /// Lays out the ranges of a representation of `length` bytes and this Content-Type.
    ///
    /// `None` if the boundary is not 1 to 70 of the letters, digits and `'()+_,-./:=?` that a
    /// boundary may hold (RFC 2046 §5.1.1), or if the body were longer than 64 bits can count. The
    /// caller chooses a boundary that the representation does not hold, at random.
    #[must_use]
    pub fn new(
        boundary: &str,
        content_type: Option<&HeaderValue>,
        ranges: &[Range<u64>],
        length: u64,
    ) -> Option<Self> {
        let valid = (1..=70).contains(&boundary.len())
            && boundary
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"'()+_,-./:=?".contains(&byte));
        if !valid {
            return None;
        }
        let mut parts = Vec::with_capacity(ranges.len());
        let mut total = 0_u64;
        for range in ranges {
            let mut text = Vec::with_capacity(160);
            // The line end before a delimiter belongs to the delimiter.
            if !parts.is_empty() {
                text.extend_from_slice(b"\r\n");
            }
            text.extend_from_slice(b"--");
            text.extend_from_slice(boundary.as_bytes());
            if let Some(value) = content_type {
                text.extend_from_slice(b"\r\nContent-Type: ");
                text.extend_from_slice(value.as_bytes());
            }
            text.extend_from_slice(b"\r\nContent-Range: ");
            text.extend_from_slice(content_range_text(range, length).as_bytes());
            text.extend_from_slice(b"\r\n\r\n");
            total = total
                .checked_add(text.len() as u64)?
                .checked_add(range.end.checked_sub(range.start)?)?;
            parts.push(Part { header: text.into(), range: range.clone() });
        }
        let closing = Bytes::from(format!("\r\n--{boundary}--\r\n"));
        let content_length = total.checked_add(closing.len() as u64)?;
        let content_type = header_value(format!("multipart/byteranges; boundary=\"{boundary}\""));
        Some(Self { parts, closing, content_type, content_length })
    }

    /// The parts, in the order in which they are sent.
    #[must_use]
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// What is sent after the last part.
    #[must_use]
    pub fn closing(&self) -> &Bytes {
        &self.closing
    }

    /// The Content-Type of the response.
    #[must_use]
    pub fn content_type(&self) -> &HeaderValue {
        &self.content_type
    }

    /// The Content-Length of the response.
    #[must_use]
    pub fn content_length(&self) -> u64 {
        self.content_length
    }
}

#[cfg(test)]
mod tests;
