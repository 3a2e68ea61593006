//! Asking the origin about what is stored, and what a 304 changes (RFC 9111 §4.3).

use crate::caching::date;
use crate::caching::in_turn;
use crate::caching::minute;
use crate::caching::number;
use crate::caching::with_rules;
use crate::harness::Edge;
use crate::harness::Origin;
use crate::harness::Respond;
use crate::harness::ok;
use crate::harness::origin::Seen;
use crate::harness::status;

/// Stale as soon as it comes, with a tag to ask with.
fn stale(body: &str) -> Respond {
    ok(body).field("Cache-Control", "max-age=60").field("Age", "60").field("ETag", "\"1\"")
}

/// The first answer; then, to who asks with the tag or date, the second.
fn then(first: Respond, second: Respond) -> impl Fn(&Seen) -> Respond + Send + Sync + 'static {
    move |seen| {
        let asks = seen.value("if-none-match").or(seen.value("if-modified-since"));
        if asks.is_some() { second.clone() } else { first.clone() }
    }
}

fn confirmed() -> Respond {
    status(304).field("ETag", "\"1\"").field("Cache-Control", "max-age=60")
}

#[test]
fn a_304_freshens_and_the_client_gets_the_stored_200() {
    let origin = Origin::script().with("/", then(stale("page"), confirmed())).start();
    let edge = Edge::to(&origin);
    edge.get("/").expect_miss();
    let revalidated = edge.get("/");
    revalidated.expect_status(200).expect_cache("REVALIDATED").expect_body("page");
    assert!(number(&revalidated, "age") < 30, "{revalidated:?}");
    let hit = edge.get("/");
    hit.expect_status(200).expect_hit().expect_body("page");
    assert!(number(&hit, "age") < 30, "{hit:?}");
    let seen = origin.seen();
    assert_eq!(seen.len(), 2);
    assert_eq!(seen[1].value("if-none-match"), Some("\"1\""));
}

#[test]
fn a_date_is_asked_with_too() {
    let modified = date(-86400);
    let first = ok("page")
        .field("Cache-Control", "max-age=60")
        .field("Age", "60")
        .field("Last-Modified", &modified);
    let second = status(304).field("Cache-Control", "max-age=60");
    let origin = Origin::script().with("/", then(first, second)).start();
    let edge = Edge::to(&origin);
    edge.get("/").expect_miss();
    edge.get("/").expect_cache("REVALIDATED").expect_body("page");
    edge.get("/").expect_hit();
    assert_eq!(origin.seen()[1].value("if-modified-since"), Some(&*modified));
}

#[test]
fn a_304_updates_the_stored_fields() {
    let first = stale("page").field("X-Old", "1").field("X-Both", "1").field("Content-Type", "a/b");
    let second = confirmed()
        .field("X-Both", "2")
        .field("X-New", "3")
        .field("Content-Length", "999")
        .field("Content-Encoding", "gzip");
    let origin = Origin::script().with("/", then(first, second)).start();
    let edge = Edge::to(&origin);
    edge.get("/").expect_miss();
    for reply in [edge.get("/"), edge.get("/")] {
        reply.expect_status(200).expect_body("page");
        let values = ["x-old", "x-both", "x-new", "content-type", "content-encoding"]
            .map(|name| reply.value(name));
        assert_eq!(values, [Some("1"), Some("2"), Some("3"), Some("a/b"), None], "{reply:?}");
    }
}

#[test]
fn a_304_without_a_lifetime_of_its_own_renews_the_old_one() {
    let origin = Origin::script().with("/", then(stale("page"), status(304))).start();
    let edge = Edge::to(&origin);
    edge.get("/").expect_miss();
    edge.get("/").expect_cache("REVALIDATED");
    edge.get("/").expect_hit();
}

#[test]
fn a_304_with_an_age_counts_from_there() {
    let origin =
        Origin::script().with("/", then(stale("page"), confirmed().field("Age", "30"))).start();
    let edge = Edge::to(&origin);
    edge.get("/").expect_miss();
    edge.get("/").expect_cache("REVALIDATED");
    let age = number(edge.get("/").expect_hit(), "age");
    assert!((30..60).contains(&age), "{age}");
}

#[test]
fn a_200_replaces_what_was_stored() {
    let fresh = ok("new").field("Cache-Control", "max-age=60").field("ETag", "\"2\"");
    let origin = Origin::script().with("/", then(stale("old"), fresh)).start();
    let edge = Edge::to(&origin);
    edge.get("/").expect_miss();
    edge.get("/").expect_cache("EXPIRED").expect_body("new");
    edge.get("/").expect_hit().expect_body("new");
}

#[test]
fn no_cache_is_confirmed_every_time() {
    let first = ok("page").field("Cache-Control", "no-cache").field("ETag", "\"1\"");
    let origin =
        Origin::script().with("/", then(first, status(304).field("ETag", "\"1\""))).start();
    let edge = Edge::to(&origin);
    edge.get("/").expect_miss();
    for _ in 0..3 {
        edge.get("/").expect_status(200).expect_cache("REVALIDATED").expect_body("page");
    }
    assert_eq!(origin.seen().len(), 4);
}

#[test]
fn the_clients_own_condition_is_judged_after_the_validation() {
    let origin = Origin::script().with("/", then(stale("page"), confirmed())).start();
    let edge = Edge::to(&origin);
    edge.get("/").expect_miss();
    let mine = edge.get_with("/", &[("If-None-Match", "\"0\"")]);
    mine.expect_status(200).expect_cache("REVALIDATED").expect_body("page");
    assert_eq!(origin.seen()[1].values("if-none-match"), ["\"1\""]);
    edge.get_with("/", &[("If-None-Match", "\"1\"")]).expect_status(304).expect_hit();
}

#[test]
fn a_client_that_has_it_gets_304_from_a_validation() {
    let origin = Origin::script().with("/", then(stale("page"), confirmed())).start();
    let edge = Edge::to(&origin);
    let mut wire = edge.wire();
    wire.get("edge.test", "/", &[]).expect_miss();
    let mine = wire.get("edge.test", "/", &[("If-None-Match", "\"1\"")]);
    mine.expect_status(304).expect_cache("REVALIDATED");
    wire.get("edge.test", "/", &[]).expect_status(200).expect_hit().expect_body("page");
}

#[test]
fn a_range_is_cut_from_what_a_304_confirmed() {
    let origin = Origin::script().with("/", then(stale("page"), confirmed())).start();
    let edge = Edge::to(&origin);
    let mut wire = edge.wire();
    wire.get("edge.test", "/", &[]).expect_miss();
    let part = wire.get("edge.test", "/", &[("Range", "bytes=1-2")]);
    part.expect_status(206).expect_cache("REVALIDATED").expect_body("ag");
    wire.get("edge.test", "/", &[]).expect_hit().expect_body("page");
}

#[test]
fn a_head_confirms_for_a_get() {
    let origin = Origin::script().with("/", then(stale("page"), confirmed())).start();
    let edge = Edge::to(&origin);
    let mut wire = edge.wire();
    wire.get("edge.test", "/", &[]).expect_miss();
    let head = wire.request("HEAD", "edge.test", "/", &[], b"");
    head.expect_status(200).expect_cache("REVALIDATED");
    wire.get("edge.test", "/", &[]).expect_hit().expect_body("page");
}

#[test]
fn a_304_about_something_else_is_asked_again_without_conditions() {
    let about_another = status(304).field("ETag", "\"2\"").field("Cache-Control", "max-age=60");
    let answers = vec![stale("old"), about_another, stale("new").field("X-Third", "1")];
    let origin = Origin::script().with("/", in_turn(answers)).start();
    let edge = Edge::to(&origin);
    edge.get("/").expect_miss().expect_body("old");
    edge.get("/").expect_status(200).expect_body("new");
    let seen = origin.seen();
    assert_eq!(seen.len(), 3);
    assert_eq!(seen[1].value("if-none-match"), Some("\"1\""));
    assert_eq!(seen[2].value("if-none-match"), None);
    // What the origin no longer knows is not kept.
    assert_ne!(edge.get("/").text(), "old");
}

#[test]
fn a_304_that_forbids_storing_ends_the_stored_one() {
    let forbids = status(304).field("ETag", "\"1\"").field("Cache-Control", "private");
    let origin = Origin::script().with("/", then(stale("page"), forbids)).start();
    let edge = Edge::to(&origin);
    edge.get("/").expect_miss();
    edge.get("/").expect_status(200).expect_body("page");
    edge.get("/").expect_miss();
    assert_eq!(origin.seen()[2].value("if-none-match"), None);
}

#[test]
fn only_the_variant_that_was_asked_about_is_confirmed() {
    let origin = Origin::script()
        .with("/", |seen| {
            let language = seen.value("x-lang").unwrap_or("none").to_owned();
            let tag = format!("\"{language}\"");
            match seen.value("if-none-match") {
                Some(asked) if asked == tag => confirmed().field("X-For", &language),
                _ => ok(language)
                    .field("Cache-Control", "max-age=60")
                    .field("Age", "60")
                    .field("Vary", "X-Lang")
                    .field("ETag", &tag),
            }
        })
        .start();
    let edge = Edge::to(&origin);
    let get = |language| edge.get_with("/", &[("X-Lang", language)]);
    get("de").expect_miss().expect_body("de");
    get("fr").expect_miss().expect_body("fr");
    get("de").expect_body("de");
    get("fr").expect_body("fr");
    get("de").expect_body("de");
}

#[test]
fn a_malformed_tag_is_not_sent_as_a_condition() {
    let first = ok("page").field("Cache-Control", "max-age=60, stale-if-error=600");
    let first = first.field("Age", "60").field("ETag", "not quoted");
    let first = first.field("Last-Modified", "yesterday");
    let origin = Origin::script().with("/", in_turn(vec![first.clone(), first])).start();
    let edge = with_rules(&origin, "on");
    edge.get("/").expect_miss();
    edge.get("/").expect_status(200).expect_cache("EXPIRED");
    let seen = origin.seen();
    assert_eq!(seen[1].value("if-none-match"), None, "{seen:?}");
    assert_eq!(seen[1].value("if-modified-since"), None, "{seen:?}");
}

#[test]
fn a_304_that_nobody_asked_for_does_not_bring_back_what_is_stale() {
    let first = ok("old").field("Cache-Control", "max-age=60, must-revalidate");
    let first = first.field("Age", "60").field("ETag", "malformed");
    // Stored only for a window that a later validation closes.
    let first = first.field("CDN-Cache-Control", "max-age=60, stale-if-error=600");
    let origin = Origin::script().with("/", in_turn(vec![first, status(304)])).start();
    let edge = Edge::to(&origin);
    edge.get("/").expect_miss();
    // A failure like any other: the window for failures counts, and nothing is confirmed.
    edge.get("/").expect_cache("STALE");
    edge.get("/").expect_cache("STALE");
}

#[test]
fn what_came_in_chunks_keeps_its_length_over_a_validation() {
    let first = ok("4\r\npage\r\n0\r\n\r\n").field("Transfer-Encoding", "chunked");
    let first =
        first.field("Cache-Control", "max-age=60").field("Age", "60").field("ETag", "\"1\"");
    let origin = Origin::script().with("/", then(first, confirmed())).start();
    let edge = Edge::to(&origin);
    edge.get("/").expect_miss().expect_body("page");
    for x_cache in ["REVALIDATED", "HIT"] {
        let reply = edge.get("/");
        reply.expect_cache(x_cache).expect_body("page");
        assert_eq!(reply.value("content-length"), Some("4"), "{reply:?}");
    }
}

/// A route that leaves HEAD to an origin whose page has these tags, in turn.
fn asked_by_head(tags: [&'static str; 2]) -> (Origin, Edge) {
    let origin = Origin::script()
        .with("/", move |seen| {
            let head = seen.method() == "HEAD";
            let (tag, age) = match (head, seen.value("authorization")) {
                (true, Some(_)) => ("\"a stranger's\"", "0"),
                (true, None) => (tags[1], "0"),
                (false, _) => (tags[0], "50"),
            };
            minute("page").field("ETag", tag).field("Age", age).field("X-From", seen.method())
        })
        .start();
    let edge = with_rules(&origin, "{methods: [GET]}");
    edge.get("/").expect_miss();
    edge.wire().request("HEAD", "edge.test", "/", &[], b"").expect_status(200);
    (origin, edge)
}

#[test]
fn a_head_updates_what_is_stored() {
    let (origin, edge) = asked_by_head(["\"1\"", "\"1\""]);
    let hit = edge.get("/");
    hit.expect_hit().expect_body("page");
    assert_eq!(hit.value("x-from"), Some("HEAD"));
    assert!(number(&hit, "age") < 50, "it is as old as what the HEAD brought: {hit:?}");
    assert_eq!(origin.seen().len(), 2);
}

#[test]
fn a_head_of_another_version_lets_go_of_what_is_stored() {
    let (_origin, edge) = asked_by_head(["\"1\"", "\"2\""]);
    edge.get("/").expect_miss();
    // What answers a stranger's Authorization says nothing of everybody's page.
    let (_origin, edge) = asked_by_head(["\"1\"", "\"1\""]);
    let with = [("Authorization", "x")];
    edge.wire().request("HEAD", "edge.test", "/", &with, b"").expect_status(200);
    edge.get("/").expect_hit();
}

#[test]
fn what_a_304_says_reaches_the_client_also_where_it_keeps_the_response_from_being_stored() {
    for (name, value) in
        [("Set-Cookie", "session=2"), ("Vary", "*"), ("Cache-Control", "private"), ("X-A", "new")]
    {
        let first = stale("page").field("X-A", "old");
        // The last is nothing that matters; beside it something has to.
        let reason = if name == "X-A" { ("Cache-Control", "no-store") } else { (name, value) };
        let then_says = status(304).field("ETag", "\"1\"").field("Content-Encoding", "gzip");
        let then_says = then_says.field(name, value);
        let then_says = match name {
            "X-A" => then_says.field(reason.0, reason.1),
            _ => then_says,
        };
        let origin = Origin::script().with("/", then(first, then_says)).start();
        let edge = Edge::to(&origin);
        edge.get("/").expect_miss();
        let reply = edge.get("/");
        reply.expect_status(200).expect_cache("REVALIDATED").expect_body("page");
        assert_eq!(reply.values(name), [value], "{reply:?}");
        assert_eq!(reply.value(reason.0), Some(reason.1));
        assert_eq!(reply.value("content-encoding"), None, "it is about the stored content");
        assert!(!reply.value("cache-status").unwrap().contains("stored"), "{reply:?}");
        // And nobody else gets it.
        let other = edge.get("/");
        assert_eq!((other.value("set-cookie"), other.value("x-cache")), (None, Some("MISS")));
    }
}
