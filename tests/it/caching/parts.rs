//! Ranges that are fetched and stored as they are asked for (RFC 9111 §3.3, §3.4).

use crate::caching::with_rules;
use crate::harness::Edge;
use crate::harness::Origin;
use crate::harness::Respond;
use crate::harness::client::End;
use crate::harness::ok;
use crate::harness::origin::Seen;
use crate::harness::status;

const BODY: &str = "0123456789abcdefghij";
const RULES: &str = "{ranges: as-asked}";

/// What an origin that knows ranges answers for an object with this body.
fn partial(seen: &Seen, body: &str, tag: Option<&str>) -> Respond {
    let length = body.len();
    let asked = seen.value("range").and_then(|range| {
        let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
        Some(match (first.parse::<usize>(), last.parse::<usize>()) {
            (Ok(first), Ok(last)) => (first, last.min(length - 1)),
            (Ok(first), Err(_)) => (first, length - 1),
            (Err(_), Ok(count)) => (length - count, length - 1),
            (Err(_), Err(_)) => return None,
        })
    });
    let respond = match asked {
        Some((first, last)) => status(206)
            .body(&body.as_bytes()[first..=last])
            .field("Content-Range", &format!("bytes {first}-{last}/{length}")),
        None => ok(body),
    };
    let respond = respond.field("Cache-Control", "max-age=60");
    tag.into_iter().fold(respond, |respond, tag| respond.field("ETag", tag))
}

fn of_parts(tag: Option<&'static str>) -> (Origin, Edge) {
    let origin = Origin::script().with("/", move |seen| partial(seen, BODY, tag)).start();
    let edge = with_rules(&origin, RULES);
    (origin, edge)
}

fn ranges(origin: &Origin) -> Vec<String> {
    let range = |seen: &Seen| seen.value("range").unwrap_or("none").to_owned();
    origin.seen().iter().map(range).collect()
}

#[test]
fn a_range_is_fetched_alone_and_answers_what_lies_in_it() {
    let (origin, edge) = of_parts(None);
    let mut wire = edge.wire();
    for (range, x_cache, body, at) in [
        ("bytes=-10", "MISS", "abcdefghij", "bytes 10-19/20"),
        ("bytes=-10", "HIT", "abcdefghij", "bytes 10-19/20"),
        ("bytes=12-13", "HIT", "cd", "bytes 12-13/20"),
        ("bytes=15-", "HIT", "fghij", "bytes 15-19/20"),
        ("bytes=-1", "HIT", "j", "bytes 19-19/20"),
        ("bytes=18-1000", "HIT", "ij", "bytes 18-19/20"),
        ("bytes=9-10", "MISS", "9a", "bytes 9-10/20"),
    ] {
        let part = wire.get("edge.test", "/", &[("Range", range)]);
        part.expect_status(206).expect_cache(x_cache).expect_body(body);
        assert_eq!(part.values("content-range"), [at], "{range}");
        assert_eq!(part.values("content-length"), [body.len().to_string()], "{range}");
    }
    assert_eq!(ranges(&origin), ["bytes=-10", "bytes=9-10"]);
    // Without a strong validator nothing says that they are of one version.
    wire.get("edge.test", "/", &[("Range", "bytes=9-19")]).expect_status(206).expect_miss();
    wire.get("edge.test", "/", &[]).expect_status(200).expect_miss().expect_body(BODY);
    // Stored whole, it answers everything.
    wire.get("edge.test", "/", &[("Range", "bytes=0-3")]).expect_hit().expect_body("0123");
    assert_eq!(ranges(&origin).len(), 4);
}

#[test]
fn parts_of_one_version_make_up_a_longer_part_and_the_whole() {
    let (origin, edge) = of_parts(Some("\"1\""));
    let mut wire = edge.wire();
    wire.get("edge.test", "/", &[("Range", "bytes=0-7")]).expect_miss();
    wire.get("edge.test", "/", &[("Range", "bytes=5-14")]).expect_miss();
    let joined = wire.get("edge.test", "/", &[("Range", "bytes=2-14")]);
    joined.expect_status(206).expect_hit().expect_body("23456789abcde");
    assert_eq!(joined.values("content-range"), ["bytes 2-14/20"]);
    wire.get("edge.test", "/", &[("Range", "bytes=15-")]).expect_miss();
    let whole = wire.get("edge.test", "/", &[]);
    whole.expect_status(200).expect_hit().expect_body(BODY);
    assert!(whole.values("content-range").is_empty() && whole.end == End::Whole, "{whole:?}");
    assert_eq!(ranges(&origin), ["bytes=0-7", "bytes=5-14", "bytes=15-"]);
}

#[test]
fn parts_of_two_versions_are_never_put_together() {
    let second = BODY.to_uppercase();
    let origin = Origin::script()
        .with("/", move |seen| match seen.value("range") {
            Some("bytes=0-9") => partial(seen, BODY, Some("\"1\"")),
            _ => partial(seen, &second, Some("\"2\"")),
        })
        .start();
    let edge = with_rules(&origin, RULES);
    edge.get_with("/", &[("Range", "bytes=0-9")]).expect_miss();
    edge.get_with("/", &[("Range", "bytes=10-")]).expect_miss();
    let across = edge.get_with("/", &[("Range", "bytes=8-11")]);
    across.expect_status(206).expect_miss().expect_body("89AB");
    edge.get("/").expect_status(200).expect_miss().expect_body("0123456789ABCDEFGHIJ");
}

#[test]
fn if_range_is_about_the_part_that_is_stored() {
    let (origin, edge) = of_parts(Some("\"1\""));
    edge.get_with("/", &[("Range", "bytes=0-9")]).expect_miss();
    let asked = |tag| edge.get_with("/", &[("Range", "bytes=2-3"), ("If-Range", tag)]);
    asked("\"1\"").expect_status(206).expect_hit().expect_body("23");
    asked("\"2\"").expect_status(200).expect_miss().expect_body(BODY);
    assert_eq!(ranges(&origin), ["bytes=0-9", "none"]);
}

#[test]
fn a_part_that_is_stale_is_confirmed() {
    let origin = Origin::script()
        .with("/", |seen| {
            let respond = match seen.value("if-none-match") {
                Some("\"1\"") => status(304),
                _ => status(206).body("01234").field("Content-Range", "bytes 0-4/20"),
            };
            respond.field("Cache-Control", "no-cache").field("ETag", "\"1\"")
        })
        .start();
    let edge = with_rules(&origin, RULES);
    edge.get_with("/", &[("Range", "bytes=0-4")]).expect_miss();
    let confirmed = edge.get_with("/", &[("Range", "bytes=0-4")]);
    confirmed.expect_status(206).expect_cache("REVALIDATED").expect_body("01234");
    assert_eq!(confirmed.values("content-range"), ["bytes 0-4/20"]);
    assert_eq!(ranges(&origin), ["bytes=0-4", "bytes=0-4"]);
}

#[test]
fn an_origin_that_sends_the_whole_is_asked_for_the_whole() {
    let origin = Origin::script().on("/", ok(BODY).field("Cache-Control", "max-age=60")).start();
    let edge = with_rules(&origin, RULES);
    edge.get_with("/", &[("Range", "bytes=0-4")]).expect_status(200).expect_body(BODY);
    // What came of it is known when it is told of.
    edge.wait_for_access("\"status\":200");
    let second = edge.get_with("/", &[("Range", "bytes=0-4")]);
    second.expect_status(206).expect_miss().expect_body("01234");
    edge.get_with("/", &[("Range", "bytes=5-6")]).expect_status(206).expect_hit();
    assert_eq!(ranges(&origin), ["bytes=0-4", "none"]);
}

#[test]
fn what_does_not_say_which_part_it_is_is_passed_on_and_not_stored() {
    for range in ["bytes 0-4/*", "bytes 4-0/20", "lines 0-4/20", "bytes 0-20/20"] {
        let origin = Origin::script()
            .on(
                "/",
                status(206)
                    .body("01234")
                    .field("Content-Range", range)
                    .field("Cache-Control", "max-age=60"),
            )
            .start();
        let edge = with_rules(&origin, RULES);
        for _ in 0..2 {
            let part = edge.get_with("/", &[("Range", "bytes=0-4")]);
            part.expect_status(206).expect_miss().expect_body("01234");
            assert_eq!(part.values("content-range"), [range]);
        }
        assert_eq!(origin.seen().len(), 2, "{range}");
    }
}

#[test]
fn a_part_that_is_shorter_than_it_says_answers_for_what_it_has() {
    let origin = Origin::script()
        .on(
            "/",
            status(206)
                .body("01234")
                .field("Content-Range", "bytes 4-9/10")
                .field("Cache-Control", "max-age=60"),
        )
        .start();
    let edge = with_rules(&origin, RULES);
    for x_cache in ["MISS", "HIT"] {
        let part = edge.get_with("/", &[("Range", "bytes=-5")]);
        part.expect_status(206).expect_cache(x_cache).expect_body("01234");
        assert_eq!(part.values("content-range"), ["bytes 4-9/10"], "as the origin said it");
    }
    edge.get_with("/", &[("Range", "bytes=6-8")]).expect_hit().expect_body("234");
    // Its last byte never came.
    edge.get_with("/", &[("Range", "bytes=9-9")]).expect_miss();
}

#[test]
fn what_is_private_or_personal_is_not_stored_in_parts_either() {
    let origin = Origin::script()
        .on(
            "/",
            status(206)
                .body("01")
                .field("Content-Range", "bytes 0-1/20")
                .field("Cache-Control", "private, max-age=60"),
        )
        .start();
    let edge = with_rules(&origin, RULES);
    for _ in 0..2 {
        edge.get_with("/", &[("Range", "bytes=0-1")])
            .expect_status(206)
            .expect_miss()
            .expect_body("01");
    }
}

#[test]
fn what_is_changed_loses_its_parts() {
    let (origin, edge) = of_parts(Some("\"1\""));
    for _ in 0..2 {
        edge.get_with("/", &[("Range", "bytes=0-9")]).expect_miss();
        edge.get_with("/", &[("Range", "bytes=0-5")]).expect_hit();
        edge.wire().request("POST", "edge.test", "/", &[], b"new");
    }
    assert_eq!(ranges(&origin), ["bytes=0-9", "none", "bytes=0-9", "none"]);
}

#[test]
fn clients_that_ask_for_the_same_range_share_its_fetch() {
    let (origin, edge) = of_parts(Some("\"1\""));
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let mut wire = edge.wire();
            std::thread::spawn(move || wire.get("edge.test", "/", &[("Range", "bytes=3-8")]))
        })
        .collect();
    for client in clients {
        let part = client.join().expect("a reply comes");
        part.expect_status(206).expect_body("345678");
        assert_eq!(part.values("content-range"), ["bytes 3-8/20"]);
    }
    assert_eq!(ranges(&origin), ["bytes=3-8"]);
}

#[test]
fn a_range_that_is_passed_on_says_why() {
    let origin = Origin::script()
        .with("/", |seen| partial(seen, BODY, None).field("Set-Cookie", "a=1"))
        .start();
    let edge = with_rules(&origin, RULES);
    for (fields, reason) in [
        (&[][..], "set-cookie"),
        (&[], "unshared"),
        (&[("Cache-Control", "no-store")], "request-no-store"),
    ] {
        let mut all = vec![("Range", "bytes=0-1")];
        all.extend(fields);
        let part = edge.get_with("/", &all);
        part.expect_status(206).expect_miss();
        let said = part.value("cache-status").unwrap();
        assert!(said.ends_with(&format!("detail={reason}")), "{reason}: {said}");
    }
}
