//! What a client is told of the cache: Cache-Status (RFC 9211), X-Cache, Age.

use crate::caching::minute;
use crate::caching::with_rules;
use crate::harness::Edge;
use crate::harness::Origin;
use crate::harness::Reply;
use crate::harness::ok;
use crate::harness::status;

/// Our member: the last of the list, as its parameters.
#[track_caller]
fn parameters(reply: &Reply) -> Vec<String> {
    let values = reply.values("cache-status").join(", ");
    let ours = values.rsplit(", ").next().unwrap_or_default();
    let mut parts = ours.split("; ").map(str::to_owned);
    assert_eq!(parts.next().as_deref(), Some("edgeproxy"), "{reply:?}");
    parts.collect()
}

#[test]
fn a_miss_says_where_it_went_and_that_it_was_stored() {
    let origin = Origin::always(minute("a"));
    let edge = Edge::to(&origin);
    assert_eq!(parameters(&edge.get("/")), ["fwd=uri-miss", "fwd-status=200", "stored"]);
}

#[test]
fn a_hit_says_how_long_it_stays_one() {
    let origin = Origin::always(minute("a"));
    let edge = Edge::to(&origin);
    edge.get("/");
    let told = parameters(&edge.get("/"));
    assert_eq!(told[0], "hit");
    let ttl: i64 = told[1].strip_prefix("ttl=").and_then(|n| n.parse().ok()).expect("a number");
    assert!((20..=60).contains(&ttl), "{told:?}");
    assert_eq!(told.len(), 2);
}

#[test]
fn a_miss_that_was_not_stored_says_why() {
    for (field, value, why) in [
        ("Cache-Control", "no-store", "no-store"),
        ("Cache-Control", "private", "private"),
        ("X-Nothing", "said", "no-freshness"),
        ("Vary", "*", "vary-star"),
        ("Vary", "X-Forwarded-For", "vary-client"),
    ] {
        let origin = Origin::always(ok("a").field(field, value));
        let edge = Edge::to(&origin);
        let told = parameters(&edge.get("/"));
        assert_eq!(told, ["fwd=uri-miss", "fwd-status=200", &format!("detail={why}")]);
        // The log and the metrics have the same word.
        edge.wait_for_metric(&format!("edgeproxy_cache_reasons_total{{reason=\"{why}\"}}"), 1.0);
    }
}

#[test]
fn a_validation_says_that_what_was_stored_had_gone_stale() {
    let origin = Origin::script()
        .with("/", |seen| match seen.value("if-none-match") {
            Some(_) => status(304),
            None => minute("a").field("Age", "60").field("ETag", "\"1\""),
        })
        .start();
    let edge = Edge::to(&origin);
    edge.get("/");
    let told = parameters(&edge.get("/"));
    assert_eq!(&told[..2], ["fwd=stale", "fwd-status=304"]);
    assert!(told.contains(&"stored".to_owned()), "{told:?}");
}

#[test]
fn a_bypass_says_so() {
    let origin = Origin::always(minute("a"));
    let edge = with_rules(&origin, "off");
    assert_eq!(parameters(&edge.get("/"))[0], "fwd=bypass");
}

#[test]
fn what_a_cache_before_us_said_comes_first() {
    let origin = Origin::always(minute("a").field("Cache-Status", "inner; hit"));
    let edge = Edge::to(&origin);
    let miss = edge.get("/");
    assert!(miss.values("cache-status").join(", ").starts_with("inner; hit, edgeproxy; fwd"));
    let hit = edge.get("/");
    assert_eq!(hit.expect_hit().values("cache-status").join(", ").matches("edgeproxy").count(), 1);
}

#[test]
fn refusals_and_answers_of_our_own_say_nothing_of_the_cache() {
    let origin = Origin::always(minute("a"));
    let edge = Edge::to(&origin);
    let refused = edge.wire().request("TRACE", "edge.test", "/", &[], b"");
    assert_eq!(refused.value("x-cache"), None, "{refused:?}");
}

#[test]
fn every_outcome_is_counted_once() {
    let origin = Origin::always(minute("a"));
    let edge = Edge::to(&origin);
    for _ in 0..3 {
        edge.get("/");
    }
    let start = std::time::Instant::now();
    while edge.metric("edgeproxy_requests_total") < 3.0 {
        // A request is counted after its last byte.
        assert!(start.elapsed() < crate::harness::PATIENCE, "they are not counted");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let counted = |result: &str| {
        edge.metric(&format!("edgeproxy_cache_requests_total{{route=\"all\",result=\"{result}\"}}"))
    };
    assert_eq!((counted("miss"), counted("hit"), counted("stale")), (1.0, 2.0, 0.0));
}
