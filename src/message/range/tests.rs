use proptest::prelude::*;

use super::*;

fn ranges(value: &str, length: u64) -> Ranges {
    Ranges::parse(value.as_bytes(), length)
}

fn many(ranges: &[Range<u64>]) -> Ranges {
    Ranges::Many(ranges.to_vec())
}

#[test]
fn one_range_is_inclusive_at_both_ends() {
    assert_eq!(ranges("bytes=0-0", 10), Ranges::One(0..1));
    assert_eq!(ranges("bytes=2-5", 10), Ranges::One(2..6));
    assert_eq!(ranges("BYTES=9-9", 10), Ranges::One(9..10));
    assert_eq!(ranges("bytes=3-", 10), Ranges::One(3..10));
    assert_eq!(ranges("bytes=0-", 10), Ranges::One(0..10));
}

#[test]
fn a_range_ends_where_the_representation_ends() {
    assert_eq!(ranges("bytes=5-9", 10), Ranges::One(5..10));
    assert_eq!(ranges("bytes=5-10", 10), Ranges::One(5..10));
    assert_eq!(ranges("bytes=0-99999999999999999999999", 10), Ranges::One(0..10));
}

#[test]
fn a_range_that_begins_behind_the_end_is_unsatisfiable() {
    assert_eq!(ranges("bytes=9-", 10), Ranges::One(9..10));
    assert_eq!(ranges("bytes=10-", 10), Ranges::Unsatisfiable);
    assert_eq!(ranges("bytes=10-20", 10), Ranges::Unsatisfiable);
    assert_eq!(ranges("bytes=99999999999999999999999-", 10), Ranges::Unsatisfiable);
    assert_eq!(ranges("bytes=18446744073709551615-", u64::MAX), Ranges::Unsatisfiable);
    let last = 18_446_744_073_709_551_614;
    assert_eq!(ranges("bytes=18446744073709551614-", u64::MAX), Ranges::One(last..u64::MAX));
}

#[test]
fn a_suffix_counts_from_the_end() {
    assert_eq!(ranges("bytes=-1", 10), Ranges::One(9..10));
    assert_eq!(ranges("bytes=-10", 10), Ranges::One(0..10));
    assert_eq!(ranges("bytes=-11", 10), Ranges::One(0..10));
    assert_eq!(ranges("bytes=-99999999999999999999999", 10), Ranges::One(0..10));
    assert_eq!(ranges("bytes=-0", 10), Ranges::Unsatisfiable);
}

#[test]
fn an_empty_representation_has_no_ranges() {
    assert_eq!(ranges("bytes=0-", 0), Ranges::Unsatisfiable);
    assert_eq!(ranges("bytes=0-0", 0), Ranges::Unsatisfiable);
    assert_eq!(ranges("bytes=-0", 0), Ranges::Unsatisfiable);
    assert_eq!(ranges("bytes=-5", 0), Ranges::Whole);
    assert_eq!(ranges("bytes=-1", 0), Ranges::Whole);
    assert_eq!(ranges("bytes=0-0, -5", 0), Ranges::Whole);
}

#[test]
fn malformed_ranges_are_ignored() {
    for value in [
        "",
        "bytes",
        "bytes=",
        "bytes=,",
        "bytes=-",
        "bytes=a-",
        "bytes=1",
        "bytes=5-4",
        "bytes=--1",
        "bytes=1-2-3",
        "bytes= 1 - 2",
        "bytes=+1-2",
        "bytes=0-1,x",
        "bytes=0-1,5-4",
        "bytes 0-1",
        "bytes =0-1",
        "lines=0-1",
        "bytes=0x0-1",
        "bytes=1.0-2",
        "none",
    ] {
        assert_eq!(ranges(value, 10), Ranges::Whole, "{value}");
    }
}

#[test]
fn several_ranges_keep_their_order() {
    assert_eq!(ranges("bytes=0-0, -1", 10), many(&[0..1, 9..10]));
    assert_eq!(ranges("bytes=6-7,,0-1,\t3-3", 10), many(&[6..8, 0..2, 3..4]));
    assert_eq!(ranges("bytes=0-0,1-1", 10), many(&[0..1, 1..2]));
}

#[test]
fn ranges_that_do_not_exist_are_left_out_of_several() {
    assert_eq!(ranges("bytes=0-0, 20-30", 10), Ranges::One(0..1));
    assert_eq!(ranges("bytes=20-30, -0", 10), Ranges::Unsatisfiable);
}

#[test]
fn overlapping_ranges_are_joined() {
    assert_eq!(ranges("bytes=0-4,4-6", 10), Ranges::One(0..7));
    assert_eq!(ranges("bytes=8-9,0-4,2-3", 10), many(&[0..5, 8..10]));
    assert_eq!(ranges("bytes=0-,0-,0-", 10), Ranges::One(0..10));
}

#[test]
fn more_than_eight_ranges_are_ignored() {
    let spread = |n: u64| {
        let specs: Vec<String> = (0..n).map(|i| format!("{0}-{0}", i * 2)).collect();
        ranges(&format!("bytes={}", specs.join(",")), 1_000)
    };
    assert!(matches!(spread(8), Ranges::Many(found) if found.len() == 8));
    assert_eq!(spread(9), Ranges::Whole);
}

#[test]
fn more_than_64_ranges_are_not_even_joined() {
    let same = |n: usize| ranges(&format!("bytes={}", vec!["0-5"; n].join(",")), 10);
    assert_eq!(same(64), Ranges::One(0..6));
    assert_eq!(same(65), Ranges::Whole);
}

#[test]
fn two_range_fields_are_ignored() {
    let mut headers = HeaderMap::new();
    assert_eq!(Ranges::of(&headers, 10), Ranges::Whole);
    headers.append(header::RANGE, HeaderValue::from_static("bytes=0-1"));
    assert_eq!(Ranges::of(&headers, 10), Ranges::One(0..2));
    headers.append(header::RANGE, HeaderValue::from_static("bytes=0-1"));
    assert_eq!(Ranges::of(&headers, 10), Ranges::Whole);
}

#[test]
fn content_range_names_the_last_byte() {
    assert_eq!(content_range(&(0..5), 10), "bytes 0-4/10");
    assert_eq!(unsatisfied(10), "bytes */10");
}

#[test]
fn several_ranges_are_sent_as_parts() {
    let content_type = HeaderValue::from_static("text/plain");
    let body = Multipart::new("xyz", Some(&content_type), &[0..2, 8..10], 10).unwrap();
    let representation = b"0123456789";
    let mut sent = Vec::new();
    for part in body.parts() {
        sent.extend_from_slice(&part.header);
        sent.extend_from_slice(&representation[part.range.start as usize..part.range.end as usize]);
    }
    sent.extend_from_slice(body.closing());
    let expected = "--xyz\r\nContent-Type: text/plain\r\nContent-Range: bytes 0-1/10\r\n\r\n01\
                    \r\n--xyz\r\nContent-Type: text/plain\r\nContent-Range: bytes 8-9/10\r\n\r\n89\
                    \r\n--xyz--\r\n";
    assert_eq!(String::from_utf8(sent).unwrap(), expected);
    assert_eq!(body.content_length(), expected.len() as u64);
    assert_eq!(body.content_type(), "multipart/byteranges; boundary=\"xyz\"");
}

#[test]
fn parts_without_a_type_name_none() {
    let body = Multipart::new("b", None, &[0..1, 2..3], 4).unwrap();
    assert_eq!(&body.parts()[0].header[..], b"--b\r\nContent-Range: bytes 0-0/4\r\n\r\n");
}

#[test]
fn a_boundary_is_checked() {
    let laid_out = |boundary: &str| Multipart::new(boundary, None, &[0..1, 2..3], 4).is_some();
    assert!(laid_out(&"b".repeat(70)));
    assert!(!laid_out(&"b".repeat(71)));
    for bad in ["", "a b", "a\r\nb", "a\"", "é"] {
        assert!(!laid_out(bad), "{bad:?}");
    }
}

#[test]
fn a_body_that_cannot_be_counted_is_not_laid_out() {
    assert!(Multipart::new("b", None, &[0..u64::MAX, 0..u64::MAX], u64::MAX).is_none());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_bytes_have_an_answer(value in proptest::collection::vec(any::<u8>(), 0..40), length: u64) {
        let _ = Ranges::parse(&value, length);
    }

    #[test]
    fn ranges_lie_within_the_representation_and_never_overlap(
        value in "bytes=([0-9]{0,2}-[0-9]{0,2},? ?){0,12}", length in 0..100_u64
    ) {
        let found = match ranges(&value, length) {
            Ranges::Whole | Ranges::Unsatisfiable => vec![],
            Ranges::One(range) => vec![range],
            Ranges::Many(ranges) => {
                prop_assert!((2..=MOST_RANGES).contains(&ranges.len()));
                ranges
            }
        };
        let mut seen = [false; 100];
        for range in found {
            prop_assert!(range.start < range.end && range.end <= length);
            for at in range {
                prop_assert!(!std::mem::replace(&mut seen[at as usize], true));
            }
        }
    }

    #[test]
    fn a_multipart_body_is_as_long_as_it_says(
        starts in proptest::collection::vec((0..1_000_u64, 1..1_000_u64), 1..8)
    ) {
        let ranges: Vec<_> = starts.iter().map(|(start, size)| *start..start + size).collect();
        let body = Multipart::new("boundary", None, &ranges, 2_000).unwrap();
        let sent: u64 = body.parts().iter()
            .map(|part| part.header.len() as u64 + part.range.end - part.range.start)
            .sum();
        prop_assert_eq!(body.content_length(), sent + body.closing().len() as u64);
    }
}

#[test]
fn one_range_alone_is_said_again_as_it_was() {
    let only = |value: &str| {
        let request = HeaderMap::from_iter([(
            header::RANGE,
            HeaderValue::from_str(value).expect("a valid value"),
        )]);
        Spec::only(&request).map(|spec| spec.to_value())
    };
    for (asked, said) in
        [("bytes=0-99", "bytes=0-99"), ("Bytes= 5-", "bytes=5-"), ("bytes=-007", "bytes=-7")]
    {
        assert_eq!(only(asked).as_ref().map(HeaderValue::as_bytes), Some(said.as_bytes()));
    }
    for none in ["bytes=0-1,3-4", "bytes=4-3", "bytes=-", "lines=1-2", "bytes="] {
        assert_eq!(only(none), None, "{none}");
    }
}
