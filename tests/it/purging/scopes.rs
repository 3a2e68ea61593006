//! What each kind of purge concerns.

use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use crate::harness::Edge;
use crate::harness::Origin;
use crate::harness::ok;
use crate::harness::origin::Seen;
use crate::purging::left;
use crate::purging::purge;
use crate::purging::sometimes_failing;
use crate::purging::store;
use crate::purging::tagging;
use crate::purging::three_routes;

const PAGES: [&str; 6] = ["/blog/a", "/blog/a/b", "/blogs", "/shop/a?x", "/shop/b?x+y", "/c?y"];

#[track_caller]
fn expect_left(body: &str, objects: u64, expected: &[&str]) {
    let origin = tagging();
    let edge = three_routes(&origin);
    store(&edge, &PAGES);
    let reply = purge(&edge, body);
    reply.expect_status(200);
    assert!(reply.text().contains(&format!("\"objects\":{objects},\"exact\":true")), "{reply:?}");
    assert_eq!(left(&edge, &PAGES), expected, "{body}");
}

#[test]
fn a_url_goes_and_nothing_else() {
    let url = r#"{"url": "http://edge.test/shop/a?x"}"#;
    expect_left(url, 1, &["/blog/a", "/blog/a/b", "/blogs", "/shop/b?x+y", "/c?y"]);
    expect_left(r#"{"url": "https://edge.test/shop/a?x"}"#, 0, &PAGES);
    expect_left(r#"{"url": "http://edge.test/shop/a"}"#, 0, &PAGES);
    expect_left(
        r#"{"url": ["edge.test/blog/%61/./b", "edge.test/c?y"]}"#,
        2,
        &["/blog/a", "/blogs", "/shop/a?x", "/shop/b?x+y"],
    );
}

#[test]
fn a_prefix_takes_what_is_below_it_with_any_query() {
    let below = &["/blogs", "/shop/a?x", "/shop/b?x+y", "/c?y"];
    expect_left(r#"{"prefix": "http://edge.test/blog"}"#, 2, below);
    expect_left(
        r#"{"prefix": "edge.test/shop/a"}"#,
        1,
        &["/blog/a", "/blog/a/b", "/blogs", "/shop/b?x+y", "/c?y"],
    );
    expect_left(r#"{"prefix": "other.test/"}"#, 0, &PAGES);
}

#[test]
fn a_route_takes_what_it_stored_and_an_upstream_what_came_from_it() {
    let without_shop = &["/blog/a", "/blog/a/b", "/blogs", "/c?y"];
    expect_left(r#"{"route": "shop"}"#, 2, without_shop);
    expect_left(r#"{"upstream": "two"}"#, 2, without_shop);
    expect_left(r#"{"upstream": "one"}"#, 4, &["/shop/a?x", "/shop/b?x+y"]);
    expect_left(r#"{"route": "rest"}"#, 2, &["/blog/a", "/blog/a/b", "/shop/a?x", "/shop/b?x+y"]);
}

#[test]
fn a_tag_takes_all_that_has_it_whatever_else_that_has() {
    expect_left(r#"{"tag": "x"}"#, 2, &["/blog/a", "/blog/a/b", "/blogs", "/c?y"]);
    let neither = &["/blog/a", "/blog/a/b", "/blogs"];
    expect_left(r#"{"tag": ["x", "y"]}"#, 3, neither);
    expect_left(r#"{"tag": "z"}"#, 0, &PAGES);
}

#[test]
fn everything_is_everything() {
    expect_left(r#"{"everything": true}"#, 6, &[]);
}

#[test]
fn a_host_goes_on_every_port_and_others_stay() {
    let origin = tagging();
    let edge = three_routes(&origin);
    let hosts = ["a.test", "a.test:8080", "b.test"];
    let ask = |host: &str| edge.wire().get(host, "/", &[]);
    for host in hosts {
        ask(host).expect_miss();
    }
    let reply = purge(&edge, r#"{"host": "A.test"}"#);
    assert!(reply.expect_status(200).text().contains("\"objects\":2"), "{reply:?}");
    ask("a.test").expect_miss();
    ask("a.test:8080").expect_miss();
    ask("b.test").expect_hit();
}

#[test]
fn every_variant_and_every_key_of_a_url_goes() {
    let origin = Origin::script()
        .otherwise(|_: &Seen| {
            ok("page").field("Cache-Control", "max-age=60").field("Vary", "X-Lang")
        })
        .start();
    let edge = Edge::with(&format!(
        "listeners:\n  - {{name: http, address: \"127.0.0.1:0\"}}\n\
         upstreams:\n  origin:\n    addresses: [\"{}\"]\n\
         routes:\n  - {{upstream: origin, cache: {{key: {{headers: [x-tenant]}}}}}}\n",
        origin.address
    ));
    let all = [("a", "de"), ("a", "fr"), ("b", "de")];
    let ask = |(tenant, lang)| edge.get_with("/", &[("X-Tenant", tenant), ("X-Lang", lang)]);
    for one in all {
        ask(one).expect_miss();
        ask(one).expect_hit();
    }
    let reply = purge(&edge, r#"{"url": "edge.test/"}"#);
    assert!(reply.text().contains("\"objects\":3,\"exact\":true"), "{reply:?}");
    for one in all {
        ask(one).expect_miss();
    }
}

#[test]
fn a_dry_run_counts_and_changes_nothing() {
    let origin = tagging();
    let edge = three_routes(&origin);
    store(&edge, &PAGES);
    for (what, objects) in [
        (r#""url": "edge.test/c?y""#, 1),
        (r#""prefix": "edge.test/blog""#, 2),
        (r#""host": "edge.test""#, 6),
        (r#""route": "shop""#, 2),
        (r#""tag": "y""#, 2),
        (r#""everything": true"#, 6),
    ] {
        let reply = purge(&edge, &format!("{{{what}, \"dry_run\": true}}"));
        reply.expect_status(200);
        let expected =
            format!("\"objects\":{objects},\"exact\":true,\"soft\":false,\"dry_run\":true");
        assert!(reply.text().contains(&expected), "{what}: {reply:?}");
    }
    assert_eq!(left(&edge, &PAGES), PAGES);
    assert!(edge.metric("edgeproxy_cache_purges_total") < 0.5);
}

#[test]
fn softly_purged_it_serves_while_the_origin_fails_and_is_confirmed_otherwise() {
    for scope in [r#""url": "edge.test/""#, r#""tag": "t""#, r#""host": "edge.test""#] {
        let page = ok("page").field("Surrogate-Key", "s t");
        let (origin, fails) =
            sometimes_failing(page.field("Cache-Control", "max-age=60, stale-if-error=600"));
        let edge = three_routes(&origin);
        store(&edge, &["/"]);
        fails.store(true, Ordering::SeqCst);
        let reply = purge(&edge, &format!("{{{scope}, \"soft\": true}}"));
        assert!(reply.expect_status(200).text().contains("\"soft\":true"), "{reply:?}");
        edge.get("/").expect_status(200).expect_cache("STALE").expect_body("page");
        fails.store(false, Ordering::SeqCst);
        // That it failed is remembered for a moment.
        let start = Instant::now();
        let answer = loop {
            assert!(start.elapsed() < Duration::from_secs(20), "it stays stale");
            let answer = edge.get("/");
            if answer.value("x-cache") != Some("STALE") {
                break answer;
            }
        };
        answer.expect_status(200).expect_cache("REVALIDATED").expect_body("page");
        edge.get("/").expect_hit();
        // Purged hard, there is nothing to serve.
        fails.store(true, Ordering::SeqCst);
        purge(&edge, &format!("{{{scope}}}")).expect_status(200);
        edge.get("/").expect_status(503);
    }
}
