//! Large objects in pieces: which piece to ask for, whether an answer is that piece, and whether two
//! pieces are of one version (RFC 9110 §14, RFC 9111 §3.4).
//!
//! An object is cut at multiples of a fixed size. Each piece is fetched by a range request and stored
//! under a key of its own, so that a part of a huge object never pulls the whole.

use std::ops::Range;
use std::time::SystemTime;

use http::HeaderMap;
use http::HeaderValue;
use http::StatusCode;
use http::header;

use crate::message::conditional::EntityTag;
use crate::message::conditional::Strength;
use crate::message::conditional::Validators;
use crate::message::range::Ranges;

/// One piece of an object: what is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// Counted from zero.
    pub index: u64,
    /// The size of every piece but the last, in bytes.
    pub size: u64,
}

/// What the answer to the request for a piece is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The piece.
    Piece(Version),
    /// The piece, but nothing tells which version of the object it is of, or beforehand how long it is:
    /// it cannot be put together with others.
    Unversioned,
    /// 206 with other bytes than were asked for.
    Misfit,
    /// Nothing partial.
    Other,
}

/// A version of an object. Pieces belong together when theirs are the same (RFC 9111 §3.4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// The length of the whole, in bytes.
    pub length: u64,
    validator: Validator,
}

/// A strong validator (RFC 9110 §8.8.1): the same in two responses only if their bytes are.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Validator {
    /// An entity tag, which goes before a date.
    Tag(Vec<u8>),
    /// Last-Modified, where it is strong.
    Modified(SystemTime),
}

impl Piece {
    /// The piece that byte `at` lies in.
    pub fn with(at: u64, size: u64) -> Self {
        Self { index: at / size.max(1), size }
    }

    /// The piece by which a request begins to be answered, before the length of the object is known:
    /// the one in which its first range begins. The end of an object is found by its beginning.
    pub fn first_for(request: &HeaderMap, size: u64) -> Self {
        // Of an object of this length only what counts from its end lies in the upper half.
        const ENDLESS: u64 = u64::MAX;
        let first = match Ranges::of(request, ENDLESS) {
            Ranges::One(range) => range.start,
            Ranges::Many(ranges) => ranges.first().map_or(0, |range| range.start),
            Ranges::Whole | Ranges::Unsatisfiable => 0,
        };
        Self::with(if first > ENDLESS / 2 { 0 } else { first }, size)
    }

    /// The first byte.
    pub fn start(self) -> u64 {
        self.index.saturating_mul(self.size)
    }

    /// The bytes of it that exist in an object of this length.
    pub fn bytes(self, length: u64) -> Range<u64> {
        self.start().min(length)..self.start().saturating_add(self.size).min(length)
    }

    /// Where in this piece a stretch of the object lies.
    pub fn part_of(self, stretch: &Range<u64>) -> Range<u64> {
        let behind = self.start().saturating_add(self.size);
        let from = stretch.start.max(self.start()).min(behind);
        let until = stretch.end.min(behind).max(from);
        from - self.start()..until - self.start()
    }

    /// The value of Range that asks for it.
    pub fn wanted(self) -> HeaderValue {
        let last = self.start().saturating_add(self.size).saturating_sub(1);
        HeaderValue::try_from(format!("bytes={}-{last}", self.start()))
            .expect("digits and a hyphen are a field value")
    }

    /// What a response to the request for it is.
    pub fn judge(self, status: StatusCode, response: &HeaderMap) -> Answer {
        if status != StatusCode::PARTIAL_CONTENT {
            return Answer::Other;
        }
        let Some((range, length)) = content_range(response) else {
            // Of a length that is not known (`bytes 0-9/*`) it is no less the piece.
            let begins_it = range_of_unknown(response).is_some_and(|range| {
                range.start == self.start() && range.end - range.start <= self.size
            });
            return if begins_it { Answer::Unversioned } else { Answer::Misfit };
        };
        let announced = content_length(response);
        if range != self.bytes(length)
            || announced.is_some_and(|announced| announced != range.end - range.start)
        {
            return Answer::Misfit;
        }
        // Its length has to be announced: what is shorter must be seen to be cut.
        match Version::of(response).filter(|_| announced.is_some()) {
            Some(version) => Answer::Piece(version),
            None => Answer::Unversioned,
        }
    }
}

/// The pieces in which a stretch of an object lies.
pub fn pieces(stretch: &Range<u64>, size: u64) -> impl Iterator<Item = Piece> + use<> {
    let first = Piece::with(stretch.start, size).index;
    let behind = match stretch.is_empty() {
        true => first,
        false => Piece::with(stretch.end - 1, size).index + 1,
    };
    (first..behind).map(move |index| Piece { index, size })
}

/// Which of `length` bytes that begin at `at` belong to a part.
pub fn within(part: &Range<u64>, at: u64, length: usize) -> Range<usize> {
    let place = |of: u64| usize::try_from(of.saturating_sub(at)).unwrap_or(length).min(length);
    place(part.start)..place(part.end).max(place(part.start))
}

impl Version {
    /// The version that a piece is of, by the fields of its response.
    pub fn of(piece: &HeaderMap) -> Option<Self> {
        let (_, length) = content_range(piece)?;
        let validators = Validators::of(piece);
        let validator = match validators.etag {
            // A weak tag beside a date says that the date is not to be trusted either.
            Some(tag) => EntityTag::parse(tag)
                .filter(|tag| tag.strength == Strength::Strong)
                .map(|tag| Validator::Tag(tag.opaque.to_vec())),
            None => validators.strong_date().map(Validator::Modified),
        };
        Some(Self { length, validator: validator? })
    }
}

/// The bytes that a response says it has of something whose length it says is not known.
fn range_of_unknown(response: &HeaderMap) -> Option<Range<u64>> {
    let mut lines = response.get_all(header::CONTENT_RANGE).iter();
    let (Some(line), None) = (lines.next(), lines.next()) else { return None };
    let (unit, rest) = line.to_str().ok()?.split_once(' ')?;
    let (first, last) = rest.trim_start().strip_suffix("/*")?.split_once('-')?;
    let (first, last) = (number(first)?, number(last)?);
    (unit.eq_ignore_ascii_case("bytes") && first <= last).then(|| first..last.saturating_add(1))
}

/// The bytes that a response says it has, and the length of the whole (RFC 9110 §14.4): `None` when it
/// does not say both, once and without contradiction.
pub(super) fn content_range(response: &HeaderMap) -> Option<(Range<u64>, u64)> {
    let mut lines = response.get_all(header::CONTENT_RANGE).iter();
    let (Some(line), None) = (lines.next(), lines.next()) else { return None };
    let (unit, rest) = line.to_str().ok()?.split_once(' ')?;
    let (range, length) = rest.trim_start().split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last, length) = (number(first)?, number(last)?, number(length)?);
    let valid = unit.eq_ignore_ascii_case("bytes") && first <= last && last < length;
    valid.then(|| (first..last + 1, length))
}

pub(super) fn content_length(response: &HeaderMap) -> Option<u64> {
    let mut lines = response.get_all(header::CONTENT_LENGTH).iter();
    let (Some(line), None) = (lines.next(), lines.next()) else { return None };
    number(line.to_str().ok()?)
}

fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| digits)
}

#[cfg(test)]
mod tests {
    use http::HeaderName;
    use proptest::prelude::*;

    use super::*;

    const SIZE: u64 = 100;

    fn fields(lines: &[(HeaderName, &str)]) -> HeaderMap {
        let mut fields = HeaderMap::new();
        for (name, value) in lines {
            fields.append(name, HeaderValue::from_str(value).expect("a valid value"));
        }
        fields
    }

    fn first_for(range: &str) -> u64 {
        Piece::first_for(&fields(&[(header::RANGE, range)]), SIZE).index
    }

    fn answer(
        index: u64,
        content_range: &str,
        length: &str,
        more: &[(HeaderName, &str)],
    ) -> Answer {
        let mut lines =
            vec![(header::CONTENT_RANGE, content_range), (header::CONTENT_LENGTH, length)];
        lines.extend(more.iter().cloned());
        Piece { index, size: SIZE }.judge(StatusCode::PARTIAL_CONTENT, &fields(&lines))
    }

    const TAG: &[(HeaderName, &str)] = &[(header::ETAG, "\"a\"")];

    #[test]
    fn a_request_begins_with_the_piece_in_which_its_first_range_begins() {
        assert_eq!(Piece::first_for(&HeaderMap::new(), SIZE).index, 0);
        assert_eq!([first_for("bytes=0-9"), first_for("bytes=99-")], [0, 0]);
        assert_eq!([first_for("bytes=100-100"), first_for("bytes=1050-1060, 0-0")], [1, 10]);
        assert_eq!([first_for("bytes=-5"), first_for("lines=300-400")], [0, 0]);
    }

    #[test]
    fn a_piece_is_asked_for_by_its_bytes() {
        assert_eq!(Piece { index: 0, size: SIZE }.wanted(), "bytes=0-99");
        assert_eq!(Piece { index: 3, size: SIZE }.wanted(), "bytes=300-399");
    }

    proptest! {
        #[test]
        fn what_comes_in_any_portions_is_the_part(
            portions in prop::collection::vec(0usize..50, 0..20),
            start in 0u64..300,
            length in 0u64..300,
        ) {
            let part = start..start + length;
            let (mut at, mut taken) = (0, Vec::new());
            for portion in portions {
                let here = within(&part, at, portion);
                taken.extend(here.map(|place| at + place as u64));
                at += portion as u64;
            }
            let expected: Vec<_> = part.filter(|place| *place < at).collect();
            prop_assert_eq!(taken, expected);
        }
    }

    #[test]
    fn an_answer_is_the_piece_only_to_the_byte() {
        assert!(matches!(answer(1, "bytes 100-199/1000", "100", TAG), Answer::Piece(_)));
        assert!(matches!(answer(9, "bytes 900-949/950", "50", TAG), Answer::Piece(_)));
        for (range, length) in [
            ("bytes 100-198/1000", "99"),
            ("bytes 101-199/1000", "99"),
            ("bytes 100-200/1000", "101"),
            ("bytes 100-199/1000", "99"),
            ("bytes 101-199/*", "99"),
            ("bytes 100-200/*", "101"),
            ("bytes 100-199/150", "100"),
            ("bytes */1000", "100"),
            ("lines 100-199/1000", "100"),
            ("bytes +100-199/1000", "100"),
            ("bytes 100-199", "100"),
        ] {
            assert_eq!(answer(1, range, length, TAG), Answer::Misfit, "{range} {length}");
        }
        // Nothing can be put together with what does not say how long the whole is.
        for (range, length) in [("bytes 100-199/*", "100"), ("bytes 100-149/*", "50")] {
            assert_eq!(answer(1, range, length, TAG), Answer::Unversioned, "{range}");
        }
        let twice = &[(header::CONTENT_RANGE, "bytes 100-199/1000")];
        assert_eq!(answer(1, "bytes 100-199/1000", "100", twice), Answer::Misfit);
        // In chunks it may be cut, and nobody would know before its end.
        let mut chunked = fields(TAG);
        chunked.insert(header::CONTENT_RANGE, HeaderValue::from_static("bytes 100-199/1000"));
        let piece = Piece { index: 1, size: SIZE };
        assert_eq!(piece.judge(StatusCode::PARTIAL_CONTENT, &chunked), Answer::Unversioned);
        let whole = Piece { index: 0, size: SIZE }.judge(StatusCode::OK, &fields(TAG));
        assert_eq!(whole, Answer::Other);
    }

    #[test]
    fn pieces_belong_together_only_by_a_strong_validator() {
        const MODIFIED: HeaderName = header::LAST_MODIFIED;
        let then = (MODIFIED, "Sun, 06 Nov 1994 08:49:37 GMT");
        let date = |second| (header::DATE, second);
        let strong = "Sun, 06 Nov 1994 08:49:38 GMT";
        let of = |lines: &[(HeaderName, &str)]| answer(0, "bytes 0-99/1000", "100", lines);
        assert_eq!(of(&[]), Answer::Unversioned);
        assert_eq!(of(&[(header::ETAG, "W/\"a\"")]), Answer::Unversioned);
        assert_eq!(
            of(&[(header::ETAG, "W/\"a\""), then.clone(), date(strong)]),
            Answer::Unversioned
        );
        assert_eq!(of(&[then.clone(), date("Sun, 06 Nov 1994 08:49:37 GMT")]), Answer::Unversioned);
        assert!(matches!(of(&[then, date(strong)]), Answer::Piece(_)));

        let next = answer(1, "bytes 100-199/1000", "100", TAG);
        assert_eq!(of(TAG), next);
        assert_ne!(of(&[(header::ETAG, "\"b\"")]), next);
        assert_ne!(of(TAG), answer(1, "bytes 100-199/1001", "100", TAG));
    }

    proptest! {
        #[test]
        fn pieces_cover_a_stretch_without_gap_or_overlap(
            start in 0_u64..5000, length in 0_u64..5000, size in 1_u64..700
        ) {
            let stretch = start..start + length;
            let mut at = start;
            for piece in pieces(&stretch, size) {
                let part = piece.part_of(&stretch);
                prop_assert!(part.start < part.end && part.end <= size);
                prop_assert_eq!(piece.start() + part.start, at);
                at = piece.start() + part.end;
            }
            prop_assert_eq!(at, stretch.end);
        }

        #[test]
        fn any_answer_is_judged(range in "bytes [0-9]{0,21}-[0-9]{0,21}/[0-9*]{0,21}", length in "[0-9]{0,21}") {
            let _ = answer(u64::MAX, &range, &length, TAG);
        }
    }
}
