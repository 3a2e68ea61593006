//! Vary: which of several stored responses answers whom (RFC 9111 §4.1).

use crate::caching::minute;
use crate::caching::numbered;
use crate::caching::with_rules;
use crate::harness::Edge;
use crate::harness::Origin;

/// An origin whose answers vary by these fields, each with a body of its own.
fn varying(vary: &[&str]) -> (Origin, Edge) {
    let mut respond = minute("");
    for line in vary {
        respond = respond.field("Vary", line);
    }
    let origin = Origin::script().with("/", numbered(respond)).start();
    let edge = Edge::to(&origin);
    (origin, edge)
}

#[test]
fn the_first_varying_response_is_already_a_hit_the_second_time() {
    let (_origin, edge) = varying(&["X-A"]);
    edge.get_with("/", &[("X-A", "1")]).expect_miss();
    edge.get_with("/", &[("X-A", "1")]).expect_hit().expect_body("answer 0");
}

#[test]
fn another_value_is_another_variant_and_both_stay() {
    let (_origin, edge) = varying(&["X-A"]);
    edge.get_with("/", &[("X-A", "1")]).expect_miss();
    edge.get_with("/", &[("X-A", "2")]).expect_miss().expect_body("answer 1");
    edge.get("/").expect_miss().expect_body("answer 2");
    edge.get_with("/", &[("X-A", "1")]).expect_hit().expect_body("answer 0");
    edge.get_with("/", &[("X-A", "2")]).expect_hit().expect_body("answer 1");
    edge.get("/").expect_hit().expect_body("answer 2");
}

#[test]
fn absent_and_empty_are_not_the_same() {
    let (_origin, edge) = varying(&["X-A"]);
    edge.get("/").expect_miss();
    edge.get_with("/", &[("X-A", "")]).expect_miss();
}

#[test]
fn every_field_of_every_line_selects() {
    let (_origin, edge) = varying(&["X-A, X-B", "X-C"]);
    let all = [("X-A", "1"), ("X-B", "1"), ("X-C", "1")];
    edge.get_with("/", &all).expect_miss();
    edge.get_with("/", &all).expect_hit();
    for at in 0..all.len() {
        let mut other = all;
        other[at].1 = "2";
        edge.get_with("/", &other).expect_miss();
    }
    edge.get_with("/", &all).expect_hit().expect_body("answer 0");
}

#[test]
fn every_line_of_a_selecting_field_counts() {
    let (_origin, edge) = varying(&["X-A"]);
    edge.get_with("/", &[("X-A", "1"), ("X-A", "2")]).expect_miss();
    edge.get_with("/", &[("X-A", "1")]).expect_miss().expect_body("answer 1");
    edge.get_with("/", &[("X-A", "1"), ("X-A", "3")]).expect_miss();
    edge.get_with("/", &[("X-A", "1, 2")]).expect_hit().expect_body("answer 0");
}

#[test]
fn what_varies_by_everything_is_never_stored() {
    for vary in [&["*"][..], &["X-A, *"], &["X-A", "*"]] {
        let (_origin, edge) = varying(vary);
        edge.get_with("/", &[("X-A", "1")]).expect_miss();
        edge.get_with("/", &[("X-A", "1")]).expect_miss();
    }
}

/// The origin read our word in these fields, so that two requests without them are no more alike than
/// two clients are.
#[test]
fn what_was_made_for_one_client_by_its_address_is_never_anothers() {
    for vary in ["X-Forwarded-For", "X-Real-IP", "Forwarded", "Accept, X-Forwarded-For"] {
        let (_origin, edge) = varying(&[vary]);
        edge.get("/").expect_miss().expect_body("answer 0");
        edge.get("/").expect_miss().expect_body("answer 1");
        edge.get_with("/", &[("X-Forwarded-For", "127.0.0.1")]).expect_miss();
    }
}

#[test]
fn accept_encoding_is_compared_by_what_it_means() {
    let (_origin, edge) = varying(&["Accept-Encoding"]);
    edge.get_with("/", &[("Accept-Encoding", "gzip, br")]).expect_miss();
    for same in ["br, gzip", "br,gzip", "BR, GZip;q=1.0", "br, gzip, identity;q=0.5, x;q=0"] {
        edge.get_with("/", &[("Accept-Encoding", same)]).expect_hit().expect_body("answer 0");
    }
    for other in ["gzip", "br, gzip;q=0.5", "br, gzip;q=0"] {
        edge.get_with("/", &[("Accept-Encoding", other)]).expect_miss();
    }
}

#[test]
fn cookies_select_byte_by_byte() {
    let (_origin, edge) = varying(&["Cookie"]);
    edge.get_with("/", &[("Cookie", "a=1; b=2")]).expect_miss();
    edge.get_with("/", &[("Cookie", "a=1; b=2")]).expect_hit();
    edge.get_with("/", &[("Cookie", "b=2; a=1")]).expect_miss();
}

#[test]
fn a_new_variant_says_vary_miss_and_a_new_key_uri_miss() {
    let (_origin, edge) = varying(&["X-A"]);
    let first = edge.get_with("/", &[("X-A", "1")]);
    assert!(first.value("cache-status").unwrap_or_default().contains("fwd=uri-miss"), "{first:?}");
    let other = edge.get_with("/", &[("X-A", "2")]);
    assert!(other.value("cache-status").unwrap_or_default().contains("fwd=vary-miss"), "{other:?}");
}

#[test]
fn without_vary_no_field_of_the_request_selects() {
    let (_origin, edge) = varying(&[]);
    edge.get_with("/", &[("Accept-Encoding", "gzip"), ("User-Agent", "a")]).expect_miss();
    edge.get_with("/", &[("Accept-Encoding", "br"), ("User-Agent", "b")]).expect_hit();
}

#[test]
fn a_flood_of_variants_does_not_grow_without_end() {
    let (_origin, edge) = varying(&["X-A"]);
    let mut wire = edge.wire();
    for value in 0..60 {
        wire.get("edge.test", "/", &[("X-A", &value.to_string())]).expect_miss();
    }
    let objects = edge.metric("edgeproxy_cache_objects");
    assert!((1.0..=20.0).contains(&objects), "{objects}");
    wire.get("edge.test", "/", &[("X-A", "59")]).expect_hit();
}

#[test]
fn the_oldest_variant_makes_room_where_there_may_be_few() {
    let origin = Origin::script().with("/", numbered(minute("").field("Vary", "X-A"))).start();
    let edge = Edge::with(&format!(
        "listeners: [{{name: http, address: \"127.0.0.1:0\"}}]\n\
         upstreams: {{origin: {{addresses: [\"{}\"]}}}}\n\
         routes: [{{upstream: origin}}]\ncache: {{variants: 2}}\n",
        origin.address
    ));
    for value in ["1", "2", "3"] {
        edge.get_with("/", &[("X-A", value)]).expect_miss();
    }
    edge.get_with("/", &[("X-A", "2")]).expect_hit();
    edge.get_with("/", &[("X-A", "3")]).expect_hit();
    edge.get_with("/", &[("X-A", "1")]).expect_miss();
}

#[test]
fn a_route_tells_browsers_what_the_cache_did() {
    let own = minute("page").field("Server-Timing", "db;dur=5");
    let origin = Origin::script().on("/", own).start();
    let edge = with_rules(&origin, "{server_timing: true}");
    let missed = edge.get("/");
    let told = missed.expect_miss().values("server-timing");
    assert_eq!(told[0], "db;dur=5");
    let took = told[1].strip_prefix("cache;desc=miss, origin;dur=").expect("how long it took");
    assert!(took.parse::<f64>().is_ok_and(|took| took > 0.0), "{told:?}");
    let hit = edge.get("/");
    assert_eq!(hit.expect_hit().values("server-timing"), ["db;dur=5", "cache;desc=hit"]);
    let silent = Edge::to(&origin).get("/");
    assert_eq!(silent.values("server-timing"), ["db;dur=5"]);
}
