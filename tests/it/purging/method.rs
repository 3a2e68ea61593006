//! The method PURGE where clients connect: who may, what goes, what everybody else is told.

use bytes::Bytes;

use crate::harness::Edge;
use crate::harness::Origin;
use crate::harness::Reply;
use crate::harness::http2;
use crate::harness::ok;
use crate::harness::origin::Seen;
use crate::purging::store;
use crate::purging::tagging;

/// Two routes of one upstream; `purge` of the defaults and of the route `/own`, and what else stands at
/// the top.
fn with_rules(origin: &Origin, defaults: &str, own: &str, more: &str) -> Edge {
    Edge::with(&format!(
        "listeners:\n  - {{name: http, address: \"127.0.0.1:0\", h2c: true}}\n\
         upstreams:\n  origin:\n    addresses: [\"{}\"]\n\
         defaults: {{purge: {defaults}}}\n{more}\n\
         routes:\n  - {{name: own, match: {{path_prefix: /own}}, upstream: origin, purge: {own}}}\n  \
         - {{name: passed, match: {{path: /passed, methods: [GET, PURGE]}}, upstream: origin, purge: off}}\n  \
         - {{name: read, match: {{path: /read, methods: [GET]}}, upstream: origin}}\n  \
         - {{name: all, upstream: origin}}\n",
        origin.address
    ))
}

fn ask(edge: &Edge, target: &str, fields: &[(&str, &str)]) -> Reply {
    edge.wire().request("PURGE", "edge.test", target, fields, b"")
}

#[test]
fn nobody_may_unless_a_rule_says_so_and_no_origin_hears_of_it() {
    let origin = tagging();
    let edge = with_rules(&origin, "off", "off", "");
    store(&edge, &["/a"]);
    let reply = ask(&edge, "/a", &[]);
    reply.expect_status(405);
    assert_eq!(reply.value("allow"), Some("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"));
    assert_eq!(ask(&edge, "/read", &[]).expect_status(405).value("allow"), Some("GET, HEAD"));
    edge.get("/a").expect_hit();
    assert!(origin.seen().iter().all(|seen| seen.method() == "GET"));
    // Where a route names the method, the origin is meant.
    ask(&edge, "/passed", &[]).expect_status(200).expect_body("page");
    assert_eq!(origin.seen_at("/passed")[0].method(), "PURGE");
}

#[test]
fn who_comes_from_a_named_network_purges_every_variant() {
    let origin = Origin::script()
        .otherwise(|_: &Seen| {
            ok("page").field("Cache-Control", "max-age=60").field("Vary", "X-Lang")
        })
        .start();
    let edge = with_rules(&origin, "{from: [127.0.0.0/8]}", "off", "");
    let languages = ["de", "fr"];
    for language in languages {
        edge.get_with("/a?x", &[("X-Lang", language)]).expect_miss();
    }
    edge.get("/a").expect_miss();
    let reply = ask(&edge, "/%61/../a?x", &[]);
    reply.expect_status(200).expect_body("purged: 2 objects\n");
    assert_eq!(reply.value("cache-control"), Some("no-store"));
    for language in languages {
        edge.get_with("/a?x", &[("X-Lang", language)]).expect_miss();
    }
    edge.get("/a").expect_hit();
    // Also where the route takes no such method, and over HTTP/2.
    store(&edge, &["/read"]);
    ask(&edge, "/read", &[]).expect_body("purged: 1 object\n");
    store(&edge, &["/read"]);
    http2::run(async {
        let mut send = http2::plain(edge.address("http")).await;
        let request = http::Request::builder().method("PURGE").uri("http://edge.test/read");
        let request = request.body(()).expect("a request");
        let reply = http2::exchange(&mut send, request, Bytes::new()).await.expect("an answer");
        assert_eq!((reply.status, &reply.body[..]), (200, &b"purged: 1 object\n"[..]));
    });
    edge.get("/read").expect_miss();
    let reply = ask(&edge, "/read", &[("Accept", "application/json")]);
    assert_eq!(reply.value("content-type"), Some("application/json"));
    assert!(reply.text().starts_with("{\"purged\":[{\"what\":\"url\""), "{reply:?}");
    assert!(reply.text().contains("\"objects\":1,\"exact\":true"), "{reply:?}");
}

#[test]
fn who_comes_from_elsewhere_is_refused_whatever_he_claims() {
    let origin = tagging();
    let edge = with_rules(&origin, "{from: [10.0.0.0/8]}", "off", "");
    store(&edge, &["/a"]);
    for fields in [&[][..], &[("X-Forwarded-For", "10.0.0.1")]] {
        let reply = ask(&edge, "/a", fields);
        reply.expect_status(403).expect_body("403 Forbidden\nNothing may be purged from there.\n");
    }
    edge.get("/a").expect_hit();
    edge.wait_for_metric("edgeproxy_refusals_total{reason=\"purge_address\"}", 2.0);
}

#[test]
fn the_client_behind_a_trusted_proxy_is_who_counts() {
    let origin = tagging();
    let edge = with_rules(&origin, "{from: [10.0.0.7]}", "off", "trusted_proxies: [127.0.0.1]");
    store(&edge, &["/a"]);
    ask(&edge, "/a", &[("X-Forwarded-For", "10.0.0.8")]).expect_status(403);
    ask(&edge, "/a", &[("X-Forwarded-For", "10.0.0.7")]).expect_body("purged: 1 object\n");
    let line = edge.wait_for_log("edgeproxy::audit");
    for part in ["purged", "way=method", "from=10.0.0.7", "what=url", "which=//edge.test/a"] {
        assert!(line.contains(part), "no {part} in: {line}");
    }
    assert_eq!(edge.metric("edgeproxy_cache_purges_total{manner=\"hard\",what=\"url\"}"), 1.0);
}

#[test]
fn secrets_in_the_url_are_not_in_the_audit_log() {
    let origin = tagging();
    let edge = with_rules(&origin, "{from: [127.0.0.0/8]}", "off", "");
    ask(&edge, "/a?token=HIDDEN&x=1", &[]).expect_status(200);
    let line = edge.wait_for_log("way=method");
    assert!(line.contains("//edge.test/a?token=***&x=1") && !line.contains("HIDDEN"), "{line}");
    let body = r#"{"url": "http://edge.test/b?token=HIDDEN&x=1"}"#;
    edge.admin_post("/v1/purge", body).expect_status(200);
    let line = edge.wait_for_log("way=admin");
    assert!(
        line.contains("http://edge.test/b?token=***&x=1") && !line.contains("HIDDEN"),
        "{line}"
    );
}

#[test]
fn a_token_has_to_be_presented_beside_the_address() {
    let origin = tagging();
    let edge = with_rules(&origin, "{from: [127.0.0.1], token: \"let me in\"}", "off", "");
    store(&edge, &["/a"]);
    for fields in [
        &[][..],
        &[("Authorization", "Bearer let me out")],
        &[("Authorization", "Basic let me in")],
        &[("Authorization", "Bearer ")],
    ] {
        let reply = ask(&edge, "/a", fields);
        assert_eq!(
            reply.expect_status(401).value("www-authenticate"),
            Some("Bearer realm=\"edgeproxy\"")
        );
    }
    edge.get("/a").expect_hit();
    edge.wait_for_metric("edgeproxy_refusals_total{reason=\"purge_token\"}", 4.0);
    ask(&edge, "/a", &[("Authorization", "Bearer let me in")]).expect_status(200);
    edge.get("/a").expect_miss();
}

#[test]
fn a_route_has_a_rule_of_its_own() {
    let origin = tagging();
    let edge = with_rules(&origin, "{from: [127.0.0.1]}", "{token: t}", "");
    store(&edge, &["/own/a", "/a"]);
    ask(&edge, "/a", &[]).expect_body("purged: 1 object\n");
    ask(&edge, "/own/a", &[]).expect_status(401);
    edge.get("/own/a").expect_hit();
    ask(&edge, "/own/a", &[("Authorization", "Bearer t")]).expect_body("purged: 1 object\n");
    edge.get("/own/a").expect_miss();
}

#[test]
fn a_page_in_a_browser_may_not() {
    let origin = tagging();
    let edge = with_rules(&origin, "{from: [127.0.0.1]}", "off", "");
    store(&edge, &["/a"]);
    ask(&edge, "/a", &[("Origin", "http://edge.test")]).expect_status(403);
    edge.get("/a").expect_hit();
}

#[test]
fn a_route_removes_tags_before_the_client_and_they_purge_all_the_same() {
    let origin = tagging();
    let edge = Edge::with(&format!(
        "listeners:\n  - {{name: http, address: \"127.0.0.1:0\"}}\n\
         upstreams:\n  origin:\n    addresses: [\"{}\"]\n\
         routes:\n  - {{upstream: origin, headers: {{response: {{remove: [surrogate-key]}}}}}}\n",
        origin.address
    ));
    assert_eq!(edge.get("/?t").expect_miss().value("surrogate-key"), None);
    assert_eq!(edge.get("/?t").expect_hit().value("surrogate-key"), None);
    edge.admin_post("/v1/purge", r#"{"tag": "t"}"#).expect_status(200);
    edge.get("/?t").expect_miss();
}
