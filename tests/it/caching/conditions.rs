//! Conditional requests and ranges, answered from the store (RFC 9110 §13, §14).

use crate::caching::date;
use crate::caching::in_turn;
use crate::caching::minute;
use crate::harness::Edge;
use crate::harness::Origin;
use crate::harness::Reply;
use crate::harness::Respond;
use crate::harness::client::End;
use crate::harness::status;

const LETTERS: &str = "abcdefghijklmnopqrstuvwxyz";

fn page() -> Respond {
    minute(LETTERS)
        .field("ETag", "\"1\"")
        .field("Content-Type", "text/plain")
        .field("Last-Modified", "Mon, 02 Jan 2023 00:00:00 GMT")
}

/// An edge that has the page already.
fn holding(page: Respond) -> (Origin, Edge) {
    let origin = Origin::always(page);
    let edge = Edge::to(&origin);
    edge.get("/").expect_miss();
    (origin, edge)
}

#[test]
fn a_matching_tag_is_answered_from_the_store() {
    let (origin, edge) = holding(page());
    let mut wire = edge.wire();
    for tags in ["\"1\"", "W/\"1\"", "\"0\", \"1\"", "*"] {
        let reply = wire.get("edge.test", "/", &[("If-None-Match", tags)]);
        reply.expect_status(304).expect_hit().expect_body("");
        assert_eq!(reply.value("etag"), Some("\"1\""), "{reply:?}");
        assert_eq!(reply.value("cache-control"), Some("max-age=60"), "{reply:?}");
        assert_eq!(reply.value("content-type"), None, "{reply:?}");
    }
    wire.get("edge.test", "/", &[("If-None-Match", "\"2\"")]).expect_status(200).expect_hit();
    assert_eq!(origin.seen().len(), 1);
}

#[test]
fn a_date_is_compared_only_without_a_tag() {
    let (_origin, edge) = holding(page());
    let modified = "Mon, 02 Jan 2023 00:00:00 GMT";
    let before = "Sun, 01 Jan 2023 00:00:00 GMT";
    edge.get_with("/", &[("If-Modified-Since", modified)]).expect_status(304).expect_hit();
    edge.get_with("/", &[("If-Modified-Since", before)]).expect_status(200).expect_hit();
    edge.get_with("/", &[("If-Modified-Since", modified), ("If-None-Match", "\"2\"")])
        .expect_status(200);
}

#[test]
fn a_condition_on_a_miss_is_not_the_origins_to_judge() {
    let origin = Origin::always(page());
    let edge = Edge::to(&origin);
    let mut wire = edge.wire();
    let reply = wire.get("edge.test", "/", &[("If-None-Match", "\"1\"")]);
    reply.expect_status(304).expect_miss();
    assert_eq!(origin.seen()[0].value("if-none-match"), None);
    wire.get("edge.test", "/", &[]).expect_hit().expect_body(LETTERS);
}

#[test]
fn if_match_goes_to_the_origin() {
    let origin = Origin::script()
        .with("/", |seen| match seen.value("if-match") {
            Some(_) => status(412),
            None => page(),
        })
        .start();
    let edge = Edge::to(&origin);
    edge.get("/").expect_miss();
    edge.get_with("/", &[("If-Match", "\"2\"")]).expect_status(412);
    edge.get_with("/", &[("If-Unmodified-Since", &date(0))]).expect_status(200);
    assert_eq!(origin.seen()[2].values("if-unmodified-since").len(), 1);
    edge.get("/").expect_hit();
}

#[test]
fn one_range_of_what_is_stored() {
    let (origin, edge) = holding(page());
    let mut wire = edge.wire();
    for (range, part, at) in [
        ("bytes=0-0", "a", "bytes 0-0/26"),
        ("bytes=2-4", "cde", "bytes 2-4/26"),
        ("bytes=23-", "xyz", "bytes 23-25/26"),
        ("bytes=-2", "yz", "bytes 24-25/26"),
        ("bytes=20-99", "uvwxyz", "bytes 20-25/26"),
        ("bytes=-99", LETTERS, "bytes 0-25/26"),
    ] {
        let reply = wire.get("edge.test", "/", &[("Range", range)]);
        reply.expect_status(206).expect_hit().expect_body(part);
        assert_eq!(reply.value("content-range"), Some(at), "{reply:?}");
    }
    assert_eq!(origin.seen().len(), 1);
}

#[test]
fn a_range_on_a_miss_stores_the_whole() {
    let origin = Origin::always(page());
    let edge = Edge::to(&origin);
    let mut wire = edge.wire();
    let part = wire.get("edge.test", "/", &[("Range", "bytes=2-4")]);
    part.expect_status(206).expect_miss().expect_body("cde");
    assert_eq!(part.value("content-range"), Some("bytes 2-4/26"), "{part:?}");
    wire.get("edge.test", "/", &[]).expect_status(200).expect_hit().expect_body(LETTERS);
    assert_eq!(origin.seen()[0].value("range"), None);
}

/// The parts of a multipart body: what each says of itself, and its bytes.
fn parts(reply: &Reply) -> Vec<(String, String)> {
    let told = reply.value("content-type").expect("a type");
    let boundary = told
        .strip_prefix("multipart/byteranges; boundary=\"")
        .and_then(|rest| rest.strip_suffix('"'))
        .expect("several parts");
    let text = reply.text();
    let (first, behind) = (format!("--{boundary}\r\n"), format!("\r\n--{boundary}"));
    let parts = text.strip_prefix(&first).and_then(|text| text.strip_suffix("--\r\n"));
    let parts = parts.and_then(|text| text.strip_suffix(&behind)).expect("whole parts");
    parts
        .split(&format!("{behind}\r\n"))
        .map(|part| part.split_once("\r\n\r\n").expect("fields and bytes"))
        .map(|(fields, bytes)| (fields.to_owned(), bytes.to_owned()))
        .collect()
}

#[test]
fn several_ranges_of_what_is_stored() {
    let long = LETTERS.repeat(100);
    let origin =
        Origin::always(minute(&long).field("ETag", "\"1\"").field("Content-Type", "text/x"));
    let edge = Edge::to(&origin);
    let mut wire = edge.wire();
    // On the miss as well, since nothing is read backwards; then from the store, in any order.
    for (x_cache, range, expected) in [
        ("MISS", "bytes=0-2, 26-27", &[("0-2", "abc"), ("26-27", "ab")][..]),
        ("HIT", "bytes=0-2, 26-27", &[("0-2", "abc"), ("26-27", "ab")]),
        ("HIT", "bytes=-1, 1-1, 5000-", &[("2599-2599", "z"), ("1-1", "b")]),
    ] {
        let reply = wire.get("edge.test", "/", &[("Range", range)]);
        reply.expect_status(206).expect_cache(x_cache);
        assert_eq!(reply.value("content-range"), None, "each part has its own");
        assert_eq!(reply.value("content-length"), Some(&*reply.body.len().to_string()));
        let expected: Vec<_> = expected
            .iter()
            .map(|(at, bytes)| {
                let fields = format!("Content-Type: text/x\r\nContent-Range: bytes {at}/2600");
                (fields, (*bytes).to_owned())
            })
            .collect();
        assert_eq!(parts(&reply), expected, "{range}");
    }
    assert_eq!(origin.seen().len(), 1);
}

#[test]
fn many_ranges_never_cost_more_than_the_whole() {
    let long = LETTERS.repeat(100);
    let edge = Edge::to(&Origin::always(minute(&long)));
    edge.get("/").expect_miss();
    let ask = |range: &str| edge.get_with("/", &[("Range", range)]);
    // What overlaps is sent once, and as one part.
    ask("bytes=0-9, 5-14, 14-19").expect_status(206).expect_body(&long[..20]);
    // Nine parts, and two that are nearly all of it.
    let nine = (0..9).map(|n| format!("{}-{}", n * 20, n * 20)).collect::<Vec<_>>().join(",");
    ask(&format!("bytes={nine}")).expect_status(200).expect_body(&long);
    ask("bytes=0-1298, 1300-").expect_status(200).expect_body(&long);
    let twice = vec!["0-"; 1000].join(",");
    ask(&format!("bytes={twice}")).expect_status(200).expect_body(&long);
}

#[test]
fn a_range_beyond_the_end_is_416_on_miss_and_hit() {
    let origin = Origin::always(page());
    let edge = Edge::to(&origin);
    let mut wire = edge.wire();
    for x_cache in ["MISS", "HIT"] {
        for range in ["bytes=26-", "bytes=-0"] {
            let reply = wire.get("edge.test", "/", &[("Range", range)]);
            let x_cache = if range == "bytes=-0" { "HIT" } else { x_cache };
            reply.expect_status(416).expect_cache(x_cache).expect_body("");
            assert_eq!(reply.value("content-range"), Some("bytes */26"), "{reply:?}");
            assert_eq!(reply.end, End::Whole);
        }
    }
    wire.get("edge.test", "/", &[]).expect_hit().expect_body(LETTERS);
}

#[test]
fn what_is_no_range_of_bytes_is_ignored() {
    let (_origin, edge) = holding(page());
    for range in ["bytes", "lines=1-2", "bytes=2-1", "bytes=a-b"] {
        edge.get_with("/", &[("Range", range)]).expect_status(200).expect_body(LETTERS);
    }
}

#[test]
fn if_range_gives_a_part_only_of_the_very_same() {
    let (_origin, edge) = holding(page());
    let part = |with: &str| edge.get_with("/", &[("Range", "bytes=0-1"), ("If-Range", with)]);
    part("\"1\"").expect_status(206).expect_body("ab");
    part("\"2\"").expect_status(200).expect_body(LETTERS);
    part("W/\"1\"").expect_status(200).expect_body(LETTERS);
    part("Mon, 02 Jan 2023 00:00:00 GMT").expect_status(206).expect_body("ab");
    part("Tue, 03 Jan 2023 00:00:00 GMT").expect_status(200).expect_body(LETTERS);
}

#[test]
fn a_range_of_nothing_is_416() {
    let (_origin, edge) = holding(minute(""));
    // The last bytes of nothing are nothing: that could only be told as the whole.
    edge.get_with("/", &[("Range", "bytes=-1")]).expect_status(200).expect_hit();
    for range in ["bytes=0-", "bytes=0-0"] {
        let reply = edge.get_with("/", &[("Range", range)]);
        reply.expect_status(416).expect_hit();
        assert_eq!(reply.value("content-range"), Some("bytes */0"), "{reply:?}");
    }
}

#[test]
fn head_takes_no_range() {
    let (_origin, edge) = holding(page());
    let mut wire = edge.wire();
    let head = wire.request("HEAD", "edge.test", "/", &[("Range", "bytes=0-1")], b"");
    head.expect_status(200).expect_hit();
    assert_eq!(head.value("content-length"), Some("26"), "{head:?}");
    wire.get("edge.test", "/", &[]).expect_hit().expect_body(LETTERS);
}

#[test]
fn a_condition_comes_before_a_range() {
    let (_origin, edge) = holding(page());
    edge.get_with("/", &[("If-None-Match", "\"1\""), ("Range", "bytes=0-1")]).expect_status(304);
    edge.get_with("/", &[("If-None-Match", "\"2\""), ("Range", "bytes=0-1")])
        .expect_status(206)
        .expect_body("ab");
}

#[test]
fn an_uncacheable_answer_is_still_held_against_the_condition() {
    let fresh = page();
    let origin = Origin::script()
        .with(
            "/",
            in_turn(vec![
                crate::harness::ok("x").field("ETag", "\"9\"").field("Cache-Control", "no-store"),
                fresh,
            ]),
        )
        .start();
    let edge = Edge::to(&origin);
    edge.get_with("/", &[("If-None-Match", "\"9\"")]).expect_status(304).expect_miss();
    edge.get("/").expect_miss().expect_body(LETTERS);
}

#[test]
fn a_range_of_an_uncacheable_answer_is_cut_here() {
    let origin = Origin::always(crate::harness::ok(LETTERS).field("Cache-Control", "no-store"));
    let edge = Edge::to(&origin);
    let mut wire = edge.wire();
    for _ in 0..2 {
        let part = wire.get("edge.test", "/", &[("Range", "bytes=1-3")]);
        part.expect_status(206).expect_body("bcd");
    }
}
