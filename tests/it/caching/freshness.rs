//! How long a response is fresh, and how old it says it is.

use crate::caching::date;
use crate::caching::minute;
use crate::caching::number;
use crate::caching::numbered;
use crate::caching::until_expired;
use crate::caching::with_rules;
use crate::harness::Edge;
use crate::harness::Origin;
use crate::harness::ok;

/// An edge in front of an origin that gives this answer at `/`.
fn answering(fields: &[(&str, &str)]) -> (Origin, Edge) {
    let mut respond = ok("");
    for (name, value) in fields {
        respond = respond.field(name, value);
    }
    let origin = Origin::script().with("/", numbered(respond)).start();
    let edge = Edge::to(&origin);
    (origin, edge)
}

#[track_caller]
fn is_hit_the_second_time(fields: &[(&str, &str)]) {
    let (_origin, edge) = answering(fields);
    edge.get("/").expect_miss().expect_body("answer 0");
    edge.get("/").expect_hit().expect_body("answer 0");
}

#[track_caller]
fn is_asked_for_twice(fields: &[(&str, &str)]) {
    let (_origin, edge) = answering(fields);
    edge.get("/").expect_miss().expect_body("answer 0");
    let second = edge.get("/");
    assert_ne!(second.value("x-cache"), Some("HIT"), "{second:?}");
    second.expect_body("answer 1");
}

#[test]
fn a_life_from_miss_over_hit_and_expired_to_hit() {
    let (origin, edge) = answering(&[("Cache-Control", "max-age=1")]);
    edge.get("/").expect_miss().expect_body("answer 0");
    let hit = edge.get("/");
    hit.expect_hit().expect_body("answer 0");
    assert!(number(&hit, "age") < 1, "{hit:?}");

    let expired = until_expired(&edge, "/");
    // Without a validator it cannot be confirmed, so a new response comes in its place.
    expired.expect_body("answer 1");
    assert!(matches!(expired.value("x-cache"), Some("EXPIRED" | "MISS")), "{expired:?}");
    edge.get("/").expect_hit().expect_body("answer 1");
    assert_eq!(origin.seen().len(), 2);
}

#[test]
fn a_stale_response_with_a_validator_is_told_as_expired() {
    let respond = ok("").field("Cache-Control", "max-age=60").field("Age", "60");
    let origin = Origin::script().with("/", numbered(respond.field("ETag", "\"1\""))).start();
    let edge = Edge::to(&origin);
    edge.get("/").expect_miss();
    edge.get("/").expect_cache("EXPIRED").expect_body("answer 1");
}

#[test]
fn the_age_that_the_origin_says_is_counted_on() {
    let (_origin, edge) = answering(&[("Cache-Control", "max-age=600"), ("Age", "100")]);
    let miss = edge.get("/");
    assert_eq!(miss.value("age"), Some("100"), "{miss:?}");
    let age = number(&edge.get("/"), "age");
    assert!((100..130).contains(&age), "{age}");
}

#[test]
fn an_age_as_large_as_the_lifetime_leaves_nothing() {
    is_asked_for_twice(&[("Cache-Control", "max-age=60"), ("Age", "60")]);
}

#[test]
fn a_date_in_the_past_counts_as_age() {
    let (_origin, edge) = answering(&[("Cache-Control", "max-age=600"), ("Date", &date(-200))]);
    edge.get("/").expect_miss();
    let age = number(&edge.get("/"), "age");
    assert!((200..230).contains(&age), "{age}");
}

#[test]
fn a_date_in_the_future_makes_nothing_younger_than_new() {
    let (_origin, edge) = answering(&[("Cache-Control", "max-age=600"), ("Date", &date(200))]);
    edge.get("/").expect_miss();
    let age = number(edge.get("/").expect_hit(), "age");
    assert!(age < 30, "{age}");
}

#[test]
fn s_maxage_counts_before_max_age() {
    is_asked_for_twice(&[("Cache-Control", "max-age=600, s-maxage=0"), ("Expires", &date(600))]);
    is_hit_the_second_time(&[("Cache-Control", "max-age=0, s-maxage=600")]);
}

#[test]
fn max_age_counts_before_expires() {
    is_asked_for_twice(&[("Cache-Control", "max-age=0"), ("Expires", &date(600))]);
    is_hit_the_second_time(&[("Cache-Control", "max-age=600"), ("Expires", &date(-600))]);
}

#[test]
fn expires_is_measured_against_the_date_of_its_own_clock() {
    // An origin whose clock is an hour behind: by ours the response has long expired.
    is_asked_for_twice(&[("Date", &date(-3600)), ("Expires", &date(-3600))]);
    is_hit_the_second_time(&[("Expires", &date(600))]);
}

#[test]
fn an_expires_that_is_no_date_has_passed() {
    is_asked_for_twice(&[("Expires", "0")]);
    is_asked_for_twice(&[("Expires", "soon"), ("Last-Modified", &date(-86400))]);
}

#[test]
fn a_response_that_says_nothing_is_not_stored() {
    is_asked_for_twice(&[]);
}

#[test]
fn last_modified_alone_gives_a_tenth_of_its_age() {
    is_hit_the_second_time(&[("Last-Modified", &date(-86400))]);
}

#[test]
fn a_targeted_field_speaks_in_place_of_cache_control_and_stays_here() {
    let (_origin, edge) =
        answering(&[("Cache-Control", "no-store"), ("CDN-Cache-Control", "max-age=60")]);
    let miss = edge.get("/");
    assert_eq!(miss.expect_miss().value("cdn-cache-control"), None, "{miss:?}");
    let hit = edge.get("/");
    assert_eq!(hit.expect_hit().value("cdn-cache-control"), None, "{hit:?}");
    assert_eq!(hit.value("cache-control"), Some("no-store"), "{hit:?}");
}

#[test]
fn a_route_gives_a_lifetime_to_what_says_nothing() {
    let origin = Origin::script()
        .with("/silent", numbered(ok("")))
        .with("/says", numbered(ok("").field("Cache-Control", "max-age=0")))
        .start();
    let edge = with_rules(&origin, "{ttl: 1m}");
    edge.get("/silent").expect_miss();
    edge.get("/silent").expect_hit();
    edge.get("/says").expect_miss();
    edge.get("/says").expect_body("answer 1");
}

#[test]
fn a_route_overrides_what_a_response_says_but_not_no_store() {
    let origin = Origin::script()
        .with("/short", numbered(ok("").field("Cache-Control", "max-age=0")))
        .with("/no-cache", numbered(ok("").field("Cache-Control", "no-cache")))
        .with("/no-store", numbered(ok("").field("Cache-Control", "no-store")))
        .with("/private", numbered(ok("").field("Cache-Control", "private")))
        .start();
    let edge = with_rules(&origin, "{override_ttl: 1m}");
    for path in ["/short", "/no-cache"] {
        edge.get(path).expect_miss();
        edge.get(path).expect_hit().expect_body("answer 0");
    }
    for path in ["/no-store", "/private"] {
        edge.get(path).expect_miss();
        edge.get(path).expect_miss().expect_body("answer 1");
    }
}

#[test]
fn a_route_cuts_long_lifetimes() {
    let origin = Origin::script()
        .with("/", numbered(ok("").field("Cache-Control", "max-age=31536000")))
        .start();
    let edge = with_rules(&origin, "{max_ttl: 1s}");
    edge.get("/").expect_miss();
    until_expired(&edge, "/").expect_body("answer 1");
}

#[test]
fn a_client_cannot_force_a_miss() {
    let origin = Origin::script().with("/", numbered(minute(""))).start();
    let edge = Edge::to(&origin);
    edge.get("/").expect_miss();
    for fields in [
        [("Cache-Control", "no-cache")],
        [("Cache-Control", "max-age=0")],
        [("Pragma", "no-cache")],
    ] {
        edge.get_with("/", &fields).expect_hit();
    }
    assert_eq!(origin.seen().len(), 1);
}

#[test]
fn a_route_may_honour_what_clients_ask() {
    let origin = Origin::script().with("/", numbered(minute(""))).start();
    let edge = with_rules(&origin, "{client_directives: honour}");
    edge.get("/").expect_miss();
    edge.get_with("/", &[("Cache-Control", "max-age=600")]).expect_hit();
    let asked = edge.get_with("/", &[("Cache-Control", "no-cache")]);
    asked.expect_cache("EXPIRED").expect_body("answer 1");
    edge.get("/").expect_hit().expect_body("answer 1");
}

#[test]
fn a_client_that_wants_nothing_stored_leaves_nothing_behind() {
    let origin = Origin::script().with("/", numbered(minute(""))).start();
    let edge = Edge::to(&origin);
    edge.get_with("/", &[("Cache-Control", "no-store")]).expect_miss();
    edge.get("/").expect_miss().expect_body("answer 1");
}

#[test]
fn only_if_cached_never_reaches_the_origin() {
    let origin = Origin::script().with("/", numbered(minute(""))).start();
    let edge = Edge::to(&origin);
    let only = [("Cache-Control", "only-if-cached")];
    edge.get_with("/", &only).expect_status(504);
    assert_eq!(origin.seen().len(), 0);
    edge.get("/").expect_miss();
    edge.get_with("/", &only).expect_status(200).expect_hit();
}

#[test]
fn only_if_cached_takes_nothing_stale() {
    let respond = ok("").field("Cache-Control", "max-age=60").field("Age", "60");
    let origin = Origin::script().with("/", numbered(respond.field("ETag", "\"1\""))).start();
    let edge = Edge::to(&origin);
    edge.get("/").expect_miss();
    edge.get_with("/", &[("Cache-Control", "only-if-cached")]).expect_status(504);
    assert_eq!(origin.seen().len(), 1);
}

#[test]
fn a_client_may_take_what_is_stale_where_the_route_lets_it() {
    let respond = ok("").field("Cache-Control", "max-age=60").field("Age", "100");
    let origin = Origin::script().with("/", numbered(respond.field("ETag", "\"1\""))).start();
    let edge = with_rules(&origin, "{client_directives: honour}");
    edge.get("/").expect_miss();
    let stale = edge.get_with("/", &[("Cache-Control", "max-stale=600")]);
    stale.expect_cache("STALE").expect_body("answer 0");
    let told = stale.value("cache-status").unwrap_or_default();
    assert!(told.contains("; hit; ttl=-4") && told.contains("max-stale"), "{told}");
    assert!(number(&stale, "age") >= 100);
    edge.get_with("/", &[("Cache-Control", "max-stale=10")]).expect_cache("EXPIRED");
    let both = [("Cache-Control", "max-stale=600, only-if-cached")];
    edge.get_with("/", &both).expect_status(200).expect_cache("STALE");
}

#[test]
fn a_client_may_ask_for_what_stays_fresh_where_the_route_lets_it() {
    let origin = Origin::script().with("/", numbered(minute(""))).start();
    let edge = with_rules(&origin, "{client_directives: honour}");
    edge.get("/").expect_miss();
    edge.get_with("/", &[("Cache-Control", "min-fresh=10")]).expect_hit();
    edge.get_with("/", &[("Cache-Control", "min-fresh=100")]).expect_cache("EXPIRED");
}
