//! Redirects, fixed responses, upstreams that are off, and a route's limits.

use std::io::Read;

use crate::harness::Edge;
use crate::harness::Origin;
use crate::harness::client::End;
use crate::harness::ok;
use crate::routing::telling;
use crate::routing::with_more;
use crate::routing::with_routes;

fn redirecting(routes: &str) -> Edge {
    with_routes(&telling(), routes)
}

#[test]
fn a_redirect_fills_in_what_the_path_captured() {
    let edge = redirecting(
        "  - {match: {path_pattern: \"/u/{id}/f/{*rest}\"}, redirect: {to: \"/users/{id}?file={rest}\", status: 301}}\n  \
         - {match: {path_regex: \"/y(?<year>[0-9]{4})\"}, redirect: {to: \"https://{host}/{year}{path}?{query}\"}}\n",
    );
    let mut wire = edge.wire();
    let reply = wire.get("edge.test", "/u/7/f/a/b", &[]);
    reply.expect_status(301).expect_body("");
    assert_eq!(reply.value("location"), Some("/users/7?file=a/b"), "{reply:?}");
    let reply = wire.get("Edge.test:8080", "/y2024?x=1", &[]);
    reply.expect_status(308);
    assert_eq!(reply.value("location"), Some("https://edge.test/2024/y2024?x=1"), "{reply:?}");
}

#[test]
fn a_redirect_never_leaves_the_host_because_of_its_path() {
    let edge = redirecting(
        "  - {match: {path_pattern: \"/old/{*rest}\"}, redirect: {to: \"/{rest}\", status: 302}}\n",
    );
    for target in ["/old//evil.test", "/old/%2Fevil.test", "/old/%5Cevil.test", "/old/\\evil.test"]
    {
        let reply = edge.get(target);
        let location = reply.value("location").unwrap_or("/");
        assert!(location.starts_with('/'), "{target}: {location}");
        assert!(
            !location.starts_with("//") && !location.starts_with("/\\"),
            "{target}: {location}"
        );
    }
}

#[test]
fn no_line_of_a_redirect_is_the_clients() {
    let edge = redirecting(
        "  - {match: {path_pattern: \"/old/{*rest}\"}, redirect: {to: \"/new/{rest}?{query}\"}}\n",
    );
    let reply = edge.get("/old/a%0d%0aSet-Cookie:x=1?b%0d%0aSet-Cookie:y");
    assert_eq!(reply.value("set-cookie"), None, "{reply:?}");
}

#[test]
fn a_fixed_response_is_what_was_written() {
    let edge = redirecting(
        "  - {match: {path: /teapot}, respond: {status: 418, body: \"{\\\"tea\\\":1}\", \
         content_type: application/json, headers: {x-pot: short}}}\n  \
         - {match: {path: /empty}, respond: {status: 204}}\n",
    );
    let mut wire = edge.wire();
    let reply = wire.get("edge.test", "/teapot", &[]);
    reply.expect_status(418).expect_body("{\"tea\":1}");
    assert_eq!(reply.value("content-type"), Some("application/json"), "{reply:?}");
    assert_eq!(reply.value("x-pot"), Some("short"), "{reply:?}");
    let head = wire.request("HEAD", "edge.test", "/teapot", &[], b"");
    assert_eq!(head.expect_status(418).value("content-length"), Some("9"), "{head:?}");
    let empty = wire.get("edge.test", "/empty", &[]);
    empty.expect_status(204);
    assert_eq!(empty.value("content-length"), None, "{empty:?}");
    // A body that nobody wants is read away, or the connection is said to close.
    let posted = wire.request("POST", "edge.test", "/teapot", &[], b"milk");
    if posted.expect_status(418).value("connection") != Some("close") {
        wire.get("edge.test", "/teapot", &[]).expect_status(418);
    }
}

#[test]
fn an_upstream_that_is_switched_off_is_503() {
    let origin = telling();
    let edge = Edge::with(&format!(
        "listeners:\n  - {{name: http, address: \"127.0.0.1:0\"}}\n\
         upstreams:\n  origin:\n    active: false\n    addresses: [\"{0}\"]\n  \
         other:\n    addresses: [\"{0}\"]\n\
         routes:\n  - {{match: {{path: /off}}, upstream: origin}}\n  - {{upstream: other}}\n",
        origin.address
    ));
    edge.get("/off").expect_status(503);
    assert_eq!(origin.seen().len(), 0);
    edge.get("/on").expect_status(200);
}

#[test]
fn a_route_gives_its_origin_so_much_time() {
    let origin = Origin::script()
        .take_over("/slow", |_, mut stream| {
            let _ = stream.read(&mut [0; 1]);
        })
        .otherwise(|_| ok("here"))
        .start();
    let edge = with_routes(
        &origin,
        "  - {match: {path: /slow}, upstream: origin, timeout: 300ms}\n  - {upstream: origin}\n",
    );
    let start = std::time::Instant::now();
    edge.get("/slow").expect_status(504);
    assert!(start.elapsed() >= std::time::Duration::from_millis(250));
    edge.get("/quick").expect_status(200);
}

#[test]
fn a_route_limits_the_header_of_its_requests() {
    let origin = telling();
    let edge = with_routes(
        &origin,
        "  - {match: {path: /small}, upstream: origin, max_header: 200B}\n  - {upstream: origin}\n",
    );
    let at = |path: &str, length: usize| {
        edge.wire().request("GET", "edge.test", path, &[("X-Long", &"x".repeat(length))], b"")
    };
    at("/small", 100).expect_status(200);
    at("/small", 200).expect_status(431);
    at("/large", 200).expect_status(200);
    assert_eq!(origin.seen_at("/small").len(), 1);
}

#[test]
fn a_route_limits_the_body_of_its_requests() {
    let origin = telling();
    let edge = with_routes(
        &origin,
        "  - {match: {path: /small}, upstream: origin, max_body: 10B}\n  - {upstream: origin}\n",
    );
    let body = [b'x'; 11];
    let at = |path: &str, body: &[u8]| edge.wire().request("POST", "edge.test", path, &[], body);
    at("/small", &body[..10]).expect_status(200);
    at("/small", &body).expect_status(413);
    at("/large", &body).expect_status(200);
    let chunked = "POST /small HTTP/1.1\r\nHost: edge.test\r\nTransfer-Encoding: chunked\r\n\r\n\
                   b\r\nxxxxxxxxxxx\r\n0\r\n\r\n";
    let mut wire = edge.wire();
    let reply = wire.send(chunked).reply();
    reply.expect_status(413);
    assert_eq!(reply.end, End::Whole);
    assert_eq!(origin.seen_at("/small").len(), 1);
}

#[test]
fn defaults_hold_where_a_route_says_nothing() {
    let origin = telling();
    let edge = with_more(
        &origin,
        "  - {match: {path: /own}, upstream: origin, max_body: 20B, cache: on}\n  - {upstream: origin}\n",
        "defaults: {max_body: 5B, cache: off}",
    );
    let at = |path: &str| edge.wire().request("POST", "edge.test", path, &[], &[b'x'; 10]);
    at("/own").expect_status(200);
    at("/other").expect_status(413);
    edge.get("/own").expect_miss();
    edge.get("/other").expect_cache("BYPASS");
}
