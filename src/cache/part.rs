//! Parts of an object, each stored as the origin sent it to whoever asked for a range: which bytes they
//! hold, and which of them bring what is asked for (RFC 9111 §3.3, §3.4).

use std::ops::Range;

use http::HeaderMap;
use http::StatusCode;
use http::header;

use crate::cache::slice::Version;
use crate::cache::slice::content_length;
use crate::cache::slice::content_range;

/// What the answer to the request for a range is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// A part that says which it is, and how long: it may be stored.
    Part,
    /// 206 that does not: it is passed on.
    Unclear,
    /// Nothing partial.
    Other,
}

/// What a response to the request for one range is. Its length has to be announced: what is shorter must
/// be seen to be cut.
pub fn judge(status: StatusCode, response: &HeaderMap) -> Answer {
    if status != StatusCode::PARTIAL_CONTENT {
        return Answer::Other;
    }
    match (content_range(response), content_length(response)) {
        (Some(_), Some(_)) => Answer::Part,
        _ => Answer::Unclear,
    }
}

/// Whether what is stored under the key of a range is a part, and not another answer. Within the store a
/// part is a 200, told from others by its Content-Range.
pub fn is_stored_part(status: StatusCode, headers: &HeaderMap) -> bool {
    status == StatusCode::OK && headers.contains_key(header::CONTENT_RANGE)
}

/// The bytes that a stored part has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Where in the object they are.
    pub bytes: Range<u64>,
    /// The length of the object.
    pub length: u64,
    version: Option<Version>,
}

impl Part {
    /// The part that a response with a body of `len` bytes is. Where that is less than it says, it is the
    /// beginning of the part, as if it had been cut; where it is more, nobody knows what it is.
    pub fn of(response: &HeaderMap, len: u64) -> Option<Self> {
        let (said, length) = content_range(response)?;
        let bytes = said.start..said.start.checked_add(len)?;
        let known = !bytes.is_empty() && bytes.end <= said.end;
        known.then(|| Self { bytes, length, version: Version::of(response) })
    }

    fn holds(&self, wanted: &Range<u64>) -> bool {
        self.bytes.start <= wanted.start && wanted.end <= self.bytes.end
    }

    /// Whether both are of one version of the object, by a strong validator (RFC 9111 §3.4).
    fn goes_with(&self, other: &Self) -> bool {
        self.version.is_some() && self.version == other.version
    }
}

/// What one part contributes to an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    /// Which of the parts.
    pub part: usize,
    /// Where in its body.
    pub bytes: Range<u64>,
}

/// What of which parts makes up the bytes that are wanted: one part that holds them all, the first such, or
/// several of one version. `wanted` says which bytes of an object of this length they are. The first share
/// says which part speaks for the answer.
pub fn cover(
    parts: &[Part],
    wanted: impl Fn(u64) -> Option<Range<u64>>,
) -> Option<(Range<u64>, Vec<Share>)> {
    let ranges: Vec<_> = parts.iter().map(|part| wanted(part.length)).collect();
    let alone = parts
        .iter()
        .zip(&ranges)
        .position(|(part, range)| range.as_ref().is_some_and(|range| part.holds(range)));
    if let Some(at) = alone {
        let range = ranges[at].clone()?;
        let share = share(parts, at, &range);
        return Some((range, vec![share]));
    }
    parts.iter().zip(ranges).find_map(|(first, range)| {
        let range = range?;
        Some((range.clone(), together(parts, first, range)?))
    })
}

fn share(parts: &[Part], part: usize, of: &Range<u64>) -> Share {
    let held = &parts[part].bytes;
    let bytes = of.start - held.start..of.end.min(held.end) - held.start;
    Share { part, bytes }
}

/// The shares of parts of the version of `like`, each as far as it goes.
fn together(parts: &[Part], like: &Part, mut wanted: Range<u64>) -> Option<Vec<Share>> {
    let mut shares = Vec::new();
    while !wanted.is_empty() {
        let next = (0..parts.len())
            .filter(|at| like.goes_with(&parts[*at]) && parts[*at].bytes.contains(&wanted.start))
            .max_by_key(|at| parts[*at].bytes.end)?;
        shares.push(share(parts, next, &wanted));
        wanted.start = parts[next].bytes.end.min(wanted.end);
    }
    Some(shares)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn fields(range: &str, tag: Option<&str>) -> HeaderMap {
        let mut fields = HeaderMap::new();
        fields.insert(header::CONTENT_RANGE, HeaderValue::from_str(range).expect("a value"));
        if let Some(tag) = tag {
            fields.insert(header::ETAG, HeaderValue::from_str(tag).expect("a value"));
        }
        fields
    }

    fn part(range: &str, len: u64, tag: Option<&str>) -> Part {
        Part::of(&fields(range, tag), len).expect("a part")
    }

    fn at(range: Range<u64>) -> impl Fn(u64) -> Option<Range<u64>> {
        move |length| (range.end <= length).then(|| range.clone())
    }

    #[test]
    fn a_part_says_which_it_is_and_how_long() {
        let mut said = fields("bytes 0-4/10", None);
        assert_eq!(judge(StatusCode::PARTIAL_CONTENT, &said), Answer::Unclear);
        said.insert(header::CONTENT_LENGTH, HeaderValue::from_static("5"));
        assert_eq!(judge(StatusCode::PARTIAL_CONTENT, &said), Answer::Part);
        assert_eq!(judge(StatusCode::OK, &said), Answer::Other);
        for unclear in ["bytes 0-4/*", "bytes */10", "bytes 4-0/10", "bytes 0-10/10", "0-4/10"] {
            let range = HeaderValue::from_str(unclear).expect("a value");
            said.insert(header::CONTENT_RANGE, range);
            assert_eq!(judge(StatusCode::PARTIAL_CONTENT, &said), Answer::Unclear, "{unclear}");
        }
    }

    #[test]
    fn a_part_that_is_shorter_than_it_says_is_its_beginning() {
        assert_eq!(part("bytes 4-9/10", 5, None).bytes, 4..9);
        assert_eq!(part("bytes 4-9/10", 6, None).bytes, 4..10);
        assert_eq!(Part::of(&fields("bytes 4-9/10", None), 7), None);
        assert_eq!(Part::of(&fields("bytes 4-9/10", None), 0), None);
    }

    #[test]
    fn one_part_brings_what_lies_in_it() {
        let parts = [part("bytes 0-3/10", 4, None), part("bytes 4-9/10", 6, None)];
        let brought = |range| cover(&parts, at(range));
        assert_eq!(brought(6..8), Some((6..8, vec![Share { part: 1, bytes: 2..4 }])));
        assert_eq!(brought(0..4), Some((0..4, vec![Share { part: 0, bytes: 0..4 }])));
        // Nothing says that both are of one version.
        assert_eq!(brought(3..5), None);
        assert_eq!(cover(&parts, |_| None), None);
    }

    #[test]
    fn parts_of_one_version_are_put_together() {
        let one = Some("\"1\"");
        let parts = [
            part("bytes 6-9/10", 4, one),
            part("bytes 0-3/10", 4, one),
            part("bytes 2-6/10", 5, one),
        ];
        let shares = |pairs: &[(usize, Range<u64>)]| {
            let share =
                |(part, bytes): &(usize, Range<u64>)| Share { part: *part, bytes: bytes.clone() };
            pairs.iter().map(share).collect::<Vec<_>>()
        };
        assert_eq!(
            cover(&parts, at(0..10)),
            Some((0..10, shares(&[(1, 0..4), (2, 2..5), (0, 1..4)])))
        );
        for other in [Some("\"2\""), Some("W/\"1\""), None] {
            let parts = [parts[0].clone(), part("bytes 0-5/10", 6, other)];
            assert_eq!(cover(&parts, at(0..10)), None, "{other:?}");
        }
        let longer = [parts[0].clone(), part("bytes 0-5/11", 6, one)];
        assert_eq!(cover(&longer, at(0..10)), None);
    }

    proptest! {
        #[test]
        fn what_is_brought_is_what_was_wanted(
            held in prop::collection::vec((0_u64..100, 1_u64..50), 0..8),
            start in 0_u64..100,
            len in 1_u64..100,
        ) {
            let parts: Vec<_> = held
                .into_iter()
                .map(|(first, len)| part(&format!("bytes {first}-{}/1000", first + len - 1), len, Some("\"1\"")))
                .collect();
            let wanted = start..start + len;
            let is_held = |byte: &u64| parts.iter().any(|part| part.bytes.contains(byte));
            match cover(&parts, at(wanted.clone())) {
                None => prop_assert!(!wanted.clone().all(|byte| is_held(&byte))),
                Some((range, shares)) => {
                    prop_assert_eq!(&range, &wanted);
                    let brought: Vec<_> = shares
                        .into_iter()
                        .flat_map(|share| {
                            let start = parts[share.part].bytes.start;
                            share.bytes.map(move |byte| start + byte)
                        })
                        .collect();
                    prop_assert_eq!(brought, wanted.collect::<Vec<_>>());
                }
            }
        }
    }
}
