//! One normal form, seen by routing, the cache's key and the origin alike.

use crate::harness::Edge;
use crate::harness::Origin;
use crate::harness::ok;
use crate::routing::telling;
use crate::routing::with_more;
use crate::routing::with_routes;

const OPEN: &str = "  - {upstream: origin}\n";
const GUARDED: &str = "  - {match: {path_prefix: /admin}, respond: {status: 403, body: no}}\n  \
                       - {upstream: origin}\n";

#[test]
fn the_origin_sees_the_normal_form() {
    let origin = telling();
    let edge = with_routes(&origin, OPEN);
    let mut wire = edge.wire();
    for (asked, seen) in [
        ("/a/./b", "/a/b"),
        ("/a/../b", "/b"),
        ("/a/..", "/"),
        ("/a/b/.", "/a/b/"),
        ("//a///b", "/a/b"),
        ("/%61%2d%7e", "/a-~"),
        ("/a%2fb", "/a%2Fb"),
        ("/a%3ab", "/a%3Ab"),
        ("/caf%c3%a9", "/caf%C3%A9"),
        ("/a?x=%7e&y=/../", "/a?x=%7e&y=/../"),
        ("/a?", "/a?"),
        ("/a??b", "/a??b"),
        ("http://edge.test/a/../b?c", "/b?c"),
        ("http://EDGE.test", "/"),
    ] {
        let reply = wire.get("edge.test", asked, &[]);
        reply.expect_status(200);
        // Escapes in a query stay as the client wrote them or in upper case: the meaning is the same.
        let told = reply.text().replace("%7E", "%7e");
        let told = if asked.contains('?') { told.replace('~', "%7e") } else { told };
        assert_eq!(told, format!("GET {seen}"), "{asked}");
    }
}

#[test]
fn no_spelling_of_a_path_leads_around_its_route() {
    let origin = telling();
    let edge = with_routes(&origin, GUARDED);
    let mut wire = edge.wire();
    for target in [
        "/admin",
        "/admin/",
        "/admin/x",
        "//admin",
        "/./admin",
        "/x/../admin",
        "/%61dmin",
        "/x/%2e%2e/admin",
        "/x/.%2E/admin",
        "/admin/../admin",
        "/admin?x",
        "http://edge.test/x/../admin",
        "http://edge.test//admin",
    ] {
        wire.get("edge.test", target, &[]).expect_status(403);
    }
    assert_eq!(origin.seen().len(), 0);
}

#[test]
fn no_slashes_lead_around_a_route_where_they_are_not_merged() {
    let origin = telling();
    let edge = with_more(&origin, GUARDED, "paths: {merge_slashes: false}");
    for target in ["//admin", "///admin/x", "/x/..//admin", "http://edge.test//admin"] {
        edge.get(target).expect_status(403);
    }
    edge.get("/x//admin").expect_status(200).expect_body("GET /x//admin");
}

#[test]
fn an_encoded_slash_stays_one_segment() {
    let origin = telling();
    let edge = with_routes(&origin, GUARDED);
    // Some origins would climb there.
    edge.get("/x/..%2fadmin").expect_status(400);
    edge.get("/x%2Fadmin").expect_status(200).expect_body("GET /x%2Fadmin");
    edge.get("/admin/a%2fb").expect_status(403);
    assert_eq!(origin.seen().len(), 1);
}

#[test]
fn an_encoded_slash_may_be_refused() {
    let origin = telling();
    let edge = with_more(&origin, OPEN, "paths: {encoded_slash: refuse}");
    for target in ["/a%2fb", "/a%2Fb", "/a%5cb", "/%2f"] {
        edge.get(target).expect_status(400);
    }
    edge.get("/a?b=%2f").expect_status(200);
    assert_eq!(origin.seen().len(), 1);
}

#[test]
fn doubled_slashes_may_stay() {
    let origin = telling();
    let edge = with_more(&origin, OPEN, "paths: {merge_slashes: false}");
    for target in ["/a//b", "/a//", "/a///b"] {
        edge.get(target).expect_status(200).expect_body(&format!("GET {target}"));
    }
    // At the front they would be a host to some.
    edge.get("//a//b").expect_status(200).expect_body("GET /a//b");
}

#[test]
fn a_backslash_a_control_byte_and_a_broken_escape_are_refused() {
    let origin = telling();
    let edge = with_routes(&origin, OPEN);
    for target in ["/a\\b", "/a\x01b", "/%zz", "/%2", "/a#b", "/a%00b"] {
        edge.get(target).expect_status(400);
    }
    assert_eq!(origin.seen().len(), 0);
}

#[test]
fn the_origin_sees_the_hosts_normal_form() {
    let origin = telling();
    let edge = with_routes(&origin, OPEN);
    let mut wire = edge.wire();
    for (host, seen) in [
        ("Edge.TEST", "edge.test"),
        ("edge.test.", "edge.test"),
        ("edge.test:80", "edge.test"),
        ("edge.test:8080", "edge.test:8080"),
        ("[0:0::1]", "[::1]"),
    ] {
        let reply = wire.get(host, "/", &[]);
        assert_eq!(reply.value("x-host"), Some(seen), "{host}");
    }
}

#[test]
fn routing_key_and_origin_agree_on_every_spelling() {
    // Whatever is served from the store must be what the origin would have said to that very target.
    let origin = Origin::script()
        .otherwise(|seen| ok(seen.target()).field("Cache-Control", "max-age=60"))
        .start();
    for paths in ["", "paths: {merge_slashes: false}"] {
        let edge: Edge = with_more(&origin, OPEN, paths);
        let mut wire = edge.wire();
        let targets = [
            "/a/b",
            "/a//b",
            "/a/./b",
            "/A/b",
            "/a/b/",
            "/a/b?",
            "/a/b?x",
            "/a%2Fb",
            "/a;b",
            "/a%3Bb",
            "/a/b;",
            "/a/b?x=%41",
            "/a/b?x=A",
            "/%41/b",
            "//a/b",
        ];
        let first: Vec<String> =
            targets.map(|target| wire.get("edge.test", target, &[]).text()).into();
        let again = targets.map(|target| wire.get("edge.test", target, &[]));
        for ((target, first), again) in targets.iter().zip(&first).zip(&again) {
            again.expect_hit();
            assert_eq!(&again.text(), first, "{target}");
        }
    }
}
