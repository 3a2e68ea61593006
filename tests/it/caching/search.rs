//! What responses say of queries (`No-Vary-Search`): one answers every URL that comes to the same.

use std::sync::Mutex;
use std::sync::mpsc;

use crate::caching::in_turn;
use crate::caching::minute;
use crate::caching::with_rules;
use crate::harness::Edge;
use crate::harness::Origin;
use crate::harness::Respond;
use crate::harness::ok;
use crate::harness::origin::Seen;
use crate::harness::status;

/// Answers with what was asked for, good for a minute and for URLs by this rule.
fn ruled(rule: &'static str) -> impl Fn(&Seen) -> Respond + Send + Sync + 'static {
    move |seen| minute(seen.target()).field("No-Vary-Search", rule)
}

fn with(rule: &'static str, cache: &str) -> (Origin, Edge) {
    let origin = Origin::script().otherwise(ruled(rule)).start();
    let edge = with_rules(&origin, cache);
    (origin, edge)
}

const UTM: &str = "params=(\"utm\")";

#[test]
fn parameters_that_do_not_matter_tell_nothing_apart() {
    let (origin, edge) = with(UTM, "on");
    edge.get("/a?id=1&utm=x").expect_miss();
    for target in ["/a?id=1&utm=y", "/a?utm=z&id=1", "/a?id=1", "/a?%75tm&id=1&&", "/a?id=%31"] {
        let reply = edge.get(target);
        reply.expect_hit().expect_body("/a?id=1&utm=x");
        assert!(reply.value("cache-status").is_some_and(|s| s.starts_with("edgeproxy; hit; ttl=")));
    }
    for target in ["/a?id=2", "/a", "/b?id=1", "/a?id=1&more"] {
        edge.get(target).expect_miss().expect_body(target);
    }
    edge.wire().get("other.test", "/a?id=1", &[]).expect_miss();
    assert_eq!(origin.seen().len(), 6);
}

#[test]
fn only_what_is_excepted_may_matter_and_the_order_need_not() {
    let (_origin, edge) = with("key-order, params, except=(\"id\" \"page\")", "on");
    edge.get("/a?id=1&x=1&page=2").expect_miss();
    edge.get("/a?page=2&y=3&id=1").expect_hit();
    edge.get("/a?page=2").expect_miss();
}

#[test]
fn what_is_not_said_as_it_should_be_is_not_said() {
    let (_origin, edge) = with("params=(utm)", "on");
    edge.get("/a?id=1&utm=x").expect_miss();
    edge.get("/a?id=1").expect_miss();
    edge.get("/a?id=1&utm=x").expect_hit();
}

#[test]
fn a_route_may_take_every_url_for_its_own() {
    let (_origin, edge) = with(UTM, "{key: {no_vary_search: false}}");
    edge.get("/a?id=1&utm=x").expect_miss();
    edge.get("/a?id=1").expect_miss();
    edge.get("/a?id=1&utm=x").expect_hit();
}

#[test]
fn what_the_key_of_a_route_says_holds_beside_it() {
    let (_origin, edge) =
        with(UTM, "{key: {query: {except: [session]}, sort_query: true, headers: [x-lang]}}");
    edge.get_with("/a?b=1&a=2&utm=x&session=1", &[("X-Lang", "de")]).expect_miss();
    edge.get_with("/a?a=2&b=1&session=2", &[("X-Lang", "de")]).expect_hit();
    edge.get_with("/a?a=2&b=1", &[("X-Lang", "fr")]).expect_miss();
    edge.get_with("/a?a=2", &[("X-Lang", "de")]).expect_miss();
}

#[test]
fn pieces_and_ranges_are_found_by_their_own_url() {
    for cache in ["{slice: 16KiB}", "{ranges: as-asked}"] {
        let (_origin, edge) = with(UTM, cache);
        edge.get("/a?utm=x").expect_miss();
        edge.get("/a?utm=y").expect_miss();
    }
}

#[test]
fn a_response_that_varies_has_variants_for_all_its_urls() {
    let origin = Origin::script()
        .otherwise(|seen| {
            let lang = seen.value("x-lang").unwrap_or("none").to_owned();
            minute(&lang).field("Vary", "X-Lang").field("No-Vary-Search", UTM)
        })
        .start();
    let edge = Edge::to(&origin);
    edge.get_with("/a?utm=1", &[("X-Lang", "de")]).expect_miss().expect_body("de");
    let other = edge.get_with("/a?utm=2", &[("X-Lang", "fr")]);
    other.expect_miss().expect_body("fr");
    assert_eq!(other.value("cache-status").map(|s| s.contains("fwd=vary-miss")), Some(true));
    edge.get_with("/a?utm=3", &[("X-Lang", "de")]).expect_hit().expect_body("de");
    edge.get_with("/a", &[("X-Lang", "fr")]).expect_hit().expect_body("fr");
}

#[test]
fn the_newest_answers_whatever_it_is_stored_for() {
    let origin = Origin::script()
        .with(
            "/a",
            in_turn(vec![
                minute("for all").field("No-Vary-Search", "params"),
                minute("for one"),
                minute("for all again").field("No-Vary-Search", "params"),
            ]),
        )
        .start();
    let edge = with_rules(&origin, "{client_directives: honour}");
    edge.get("/a?x=1").expect_miss();
    edge.get("/a?x=2").expect_hit().expect_body("for all");
    edge.admin_post("/v1/purge", r#"{"url": "http://edge.test/a?x=9"}"#).expect_status(200);
    edge.get("/a?x=2").expect_miss().expect_body("for one");
    edge.get("/a?x=1").expect_miss().expect_body("for all again");
    edge.get("/a?x=2").expect_hit().expect_body("for all again");
}

#[test]
fn a_purge_of_any_of_its_urls_reaches_it() {
    let (origin, edge) = with(UTM, "on");
    let purge = |wish: &str| {
        let reply = edge.admin_post("/v1/purge", wish);
        reply.expect_status(200);
        reply.text()
    };
    let ways: [&dyn Fn(); 5] = [
        &|| drop(purge(r#"{"url": "http://edge.test/a?utm=9&id=1"}"#)),
        &|| drop(purge(r#"{"url": "edge.test/a?id=1"}"#)),
        &|| drop(purge(r#"{"prefix": "http://edge.test/a"}"#)),
        &|| drop(purge(r#"{"host": "edge.test"}"#)),
        &|| drop(edge.wire().request("POST", "edge.test", "/a?id=1&utm=7", &[], b"new")),
    ];
    for way in ways {
        edge.get("/a?id=1&utm=x").expect_miss();
        edge.get("/a?id=1&utm=y").expect_hit();
        way();
    }
    edge.get("/a?id=1&utm=x").expect_miss();
    let asked = origin.seen().len();
    assert!(purge(r#"{"url": "http://edge.test/a?id=2"}"#).contains("\"objects\":0"));
    let dry = purge(r#"{"url": "http://edge.test/a?id=1&utm=z", "dry_run": true}"#);
    assert!(dry.contains("\"objects\":1"), "{dry}");
    edge.get("/a?id=1&utm=y").expect_hit();
    assert_eq!(origin.seen().len(), asked);
}

#[test]
fn what_is_stale_is_confirmed_for_all_its_urls() {
    let origin = Origin::script()
        .otherwise(|seen| match seen.value("if-none-match") {
            Some("\"1\"") => status(304)
                .field("ETag", "\"1\"")
                .field("No-Vary-Search", UTM)
                .field("Cache-Control", "max-age=60"),
            _ => ok("page")
                .field("ETag", "\"1\"")
                .field("No-Vary-Search", UTM)
                .field("Cache-Control", "max-age=0"),
        })
        .start();
    let edge = Edge::to(&origin);
    edge.get("/a?utm=1").expect_miss();
    edge.get("/a?utm=2").expect_cache("REVALIDATED").expect_body("page");
    edge.get("/a?utm=1").expect_hit();
    edge.get("/a?utm=3").expect_hit();
    assert_eq!(origin.seen()[1].target(), "/a?utm=2");
}

#[test]
fn what_comes_with_another_rule_is_not_taken_for_the_urls_of_the_first() {
    for later in [Some("params=(\"ref\")"), Some("params"), None] {
        let origin = Origin::script()
            .with("/a", {
                let first = ok("first").field("Cache-Control", "max-age=0").field("ETag", "\"1\"");
                let later = match later {
                    Some(rule) => minute("later").field("No-Vary-Search", rule),
                    None => minute("later"),
                };
                in_turn(vec![first.field("No-Vary-Search", UTM), later])
            })
            .start();
        let edge = Edge::to(&origin);
        edge.get("/a?id=1&utm=1").expect_miss().expect_body("first");
        let other = edge.get("/a?id=1&utm=2");
        other.expect_cache("EXPIRED").expect_body("later");
        let told = other.value("cache-status").unwrap_or_default();
        assert!(told.ends_with("detail=no-vary-search"), "{told}");
        edge.get("/a?id=1&utm=2").expect_miss();
        edge.get("/a?id=1&utm=2").expect_hit().expect_body("later");
        if later != Some("params") {
            edge.get("/a?id=1&utm=1").expect_miss();
        }
    }
}

#[test]
fn a_confirmation_with_another_rule_answers_once() {
    let origin = Origin::script()
        .otherwise(|seen| match seen.value("if-none-match") {
            Some(_) => status(304).field("ETag", "\"1\"").field("No-Vary-Search", "params=(\"x\")"),
            None => ok(seen.target())
                .field("ETag", "\"1\"")
                .field("No-Vary-Search", UTM)
                .field("Cache-Control", "max-age=0"),
        })
        .start();
    let edge = Edge::to(&origin);
    edge.get("/a?utm=1").expect_miss();
    edge.get("/a?utm=2").expect_cache("REVALIDATED").expect_body("/a?utm=1");
    edge.get("/a?utm=3").expect_miss().expect_body("/a?utm=3");
}

/// An origin that answers this target only once it is told to.
fn held(
    target: &'static str,
    respond: impl Fn(&Seen) -> Respond + Send + Sync + 'static,
) -> (Origin, mpsc::Sender<()>) {
    let (open, gate) = mpsc::channel::<()>();
    let gate = Mutex::new(gate);
    let origin = Origin::script()
        .otherwise(move |seen| {
            if seen.target() == target {
                let _ = gate.lock().expect("nobody panics while holding it").recv();
            }
            respond(seen)
        })
        .start();
    (origin, open)
}

#[test]
fn those_who_wait_are_not_given_what_turns_out_to_be_for_another_url() {
    let (origin, open) = held("/a?utm=2", |seen| match seen.target() {
        "/a?utm=1" => ok("old").field("Cache-Control", "max-age=0").field("No-Vary-Search", UTM),
        target => minute(target),
    });
    let edge = Edge::to(&origin);
    edge.get("/a?utm=1").expect_miss();
    let ask = |target: &'static str| {
        let mut wire = edge.wire();
        wire.ask("GET", "edge.test", target, &[], b"");
        std::thread::spawn(move || wire.reply())
    };
    let first = ask("/a?utm=2");
    origin.wait_for(2);
    // It waits for the first, whose URL comes to the same as far as is known.
    let second = ask("/a?utm=3");
    edge.wait_for_gauge("edgeproxy_cache_fetches", 1.0);
    drop(open);
    first.join().expect("a reply").expect_body("/a?utm=2");
    second.join().expect("a reply").expect_body("/a?utm=3");
}

#[test]
fn a_rule_that_comes_after_a_purge_makes_nothing_older_good_for_what_was_purged() {
    let (origin, open) = held("/a?utm=1", ruled(UTM));
    let edge = Edge::to(&origin);
    let mut wire = edge.wire();
    wire.ask("GET", "edge.test", "/a?utm=1", &[], b"");
    origin.wait_for(1);
    // Nobody knows yet that this is about what is under way.
    edge.admin_post("/v1/purge", r#"{"url": "http://edge.test/a?utm=2"}"#).expect_status(200);
    drop(open);
    wire.reply().expect_body("/a?utm=1");
    edge.get("/a?utm=2").expect_miss().expect_body("/a?utm=2");
    edge.get("/a?utm=3").expect_hit().expect_body("/a?utm=2");
}

#[test]
fn a_purge_reaches_what_is_under_way_for_another_of_its_urls() {
    let (origin, open) = held("/a?utm=1", ruled(UTM));
    let edge = Edge::to(&origin);
    edge.get("/b?utm=1").expect_miss();
    let mut wire = edge.wire();
    wire.ask("GET", "edge.test", "/a?utm=1", &[], b"");
    origin.wait_for(2);
    edge.admin_post("/v1/purge", r#"{"url": "http://edge.test/a?utm=2"}"#).expect_status(200);
    drop(open);
    wire.reply().expect_body("/a?utm=1");
    edge.get("/a?utm=2").expect_miss();
}

#[test]
fn a_head_that_says_another_rule_lets_go_of_what_was_good_for_more() {
    let origin = Origin::script()
        .otherwise(|seen| match seen.method() {
            "HEAD" => ok("").field("ETag", "\"1\"").field("No-Vary-Search", "params=(\"x\")"),
            _ => minute(seen.target()).field("ETag", "\"1\"").field("No-Vary-Search", UTM),
        })
        .start();
    let edge = with_rules(&origin, "{methods: [GET]}");
    edge.get("/a?utm=1").expect_miss();
    edge.wire().request("HEAD", "edge.test", "/a?utm=2", &[], b"").expect_status(200);
    edge.get("/a?utm=1").expect_miss();
}

#[test]
fn more_rules_than_an_origin_may_have_are_as_good_as_none() {
    let origin = Origin::script()
        .otherwise(|seen| {
            let name = seen.target().trim_start_matches("/r").split('?').next().unwrap_or_default();
            minute(seen.target()).field("No-Vary-Search", &format!("params=(\"p{name}\")"))
        })
        .start();
    let edge = Edge::to(&origin);
    for n in 0..12 {
        edge.get(&format!("/r{n}?p{n}=1")).expect_miss();
    }
    for n in 0..12 {
        let other = edge.get(&format!("/r{n}?p{n}=2"));
        if n < 8 {
            other.expect_hit()
        } else {
            other.expect_miss()
        };
        edge.get(&format!("/r{n}?p{n}=1")).expect_hit();
    }
}
