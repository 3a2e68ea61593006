//! What a route changes: paths, hosts, headers in both directions.

use std::fs;
use std::process::Command;
use std::sync::Arc;

use crate::harness::Edge;
use crate::harness::Origin;
use crate::harness::edge::binary;
use crate::harness::edge::simple;
use crate::harness::ok;
use crate::routing::telling;
use crate::routing::with_routes;

#[track_caller]
fn becomes(rewrite: &str, targets: &[(&str, &str)]) {
    let origin = telling();
    let edge = with_routes(&origin, &format!("  - {{upstream: origin, rewrite: {rewrite}}}\n"));
    let mut wire = edge.wire();
    for (asked, seen) in targets {
        wire.get("edge.test", asked, &[]).expect_status(200).expect_body(&format!("GET {seen}"));
    }
}

#[test]
fn a_header_takes_its_value_from_a_file_and_nothing_shows_it() {
    let origin = Origin::always(ok("hello"));
    let folder = Arc::new(tempfile::tempdir().expect("a folder can be made"));
    fs::write(folder.path().join("token"), "Bearer hunter2\n").expect("the folder is ours");
    let yaml = simple(&origin, "log: {level: trace}").replace(
        "upstream: origin",
        "upstream: origin, headers: {request: {set: {authorization: {value_file: token}}}}",
    );
    let edge = Edge::in_folder(Arc::clone(&folder), &yaml, &[]);
    edge.get_with("/", &[("Authorization", "Basic other")]).expect_status(200);
    assert_eq!(origin.seen()[0].value("authorization"), Some("Bearer hunter2"));
    assert!(!edge.log().iter().any(|line| line.contains("hunter2")), "{:?}", edge.log());

    let path = folder.path().join("edge.yaml");
    let show = Command::new(binary()).args(["config", "show", "-c"]).arg(path).output();
    let shown = String::from_utf8(show.expect("it runs").stdout).expect("text");
    assert!(shown.contains("value_file: token") && !shown.contains("hunter2"), "{shown}");
}

#[test]
fn a_prefix_is_taken_off() {
    becomes(
        "{strip_prefix: /api}",
        &[("/api/x", "/x"), ("/api", "/"), ("/api/", "/"), ("/apix", "/apix"), ("/api?q", "/?q")],
    );
}

#[test]
fn a_prefix_is_put_before() {
    becomes("{add_prefix: /v2}", &[("/x", "/v2/x"), ("/", "/v2/"), ("/x?q=1", "/v2/x?q=1")]);
}

#[test]
fn a_prefix_is_exchanged() {
    becomes("{strip_prefix: /old, add_prefix: /new}", &[("/old/x", "/new/x"), ("/y", "/new/y")]);
}

#[test]
fn an_expression_puts_its_groups_elsewhere() {
    becomes(
        "{regex: {pattern: \"/(?<kind>[a-z]+)/([0-9]+)\", replacement: \"/by-id/$2/$kind\"}}",
        &[("/item/7", "/by-id/7/item"), ("/item/x", "/item/x"), ("/item/7?q", "/by-id/7/item?q")],
    );
}

#[test]
fn a_rewritten_path_does_not_climb() {
    let origin = telling();
    let edge = with_routes(
        &origin,
        "  - {upstream: origin, rewrite: {regex: {pattern: \"/(.*)x\", replacement: \"/safe/$1\"}}}\n",
    );
    edge.get("/..x/secret").expect_status(200).expect_body("GET /..x/secret");
    edge.get("/a/..x").expect_status(400);
    assert_eq!(origin.seen().len(), 1);
}

#[test]
fn the_host_is_replaced_and_the_clients_is_told() {
    let origin = Origin::script()
        .otherwise(|seen| {
            let of = |name| seen.value(name).unwrap_or("-").to_owned();
            ok(format!("{} {}", of("host"), of("x-forwarded-host")))
        })
        .start();
    let edge = with_routes(
        &origin,
        "  - {match: {path_pattern: \"/t/{tenant}\"}, upstream: origin, \
         rewrite: {host: \"{tenant}.internal.test\"}}\n  \
         - {upstream: origin, rewrite: {host: backend.test}}\n",
    );
    let mut wire = edge.wire();
    wire.get("edge.test", "/", &[]).expect_body("backend.test edge.test");
    wire.get("edge.test", "/t/blue", &[]).expect_body("blue.internal.test edge.test");
    wire.get("edge.test", "/t/a%2Fb", &[]).expect_status(400);
}

#[test]
fn request_headers_are_removed_set_and_added() {
    let origin = Origin::script()
        .otherwise(|seen| {
            let fields = ["x-gone", "x-set", "x-add"].map(|name| seen.values(name).join("+"));
            ok(fields.join(" "))
        })
        .start();
    let edge = with_routes(
        &origin,
        "  - upstream: origin\n    cache: off\n    headers:\n      request:\n        \
         set: {x-set: ours}\n        add: {x-add: more}\n        remove: [x-gone]\n",
    );
    let fields =
        [("X-Gone", "1"), ("X-Gone", "2"), ("X-Set", "theirs"), ("X-Set", "2"), ("X-Add", "first")];
    edge.get_with("/", &fields).expect_body(" ours first+more");
    edge.get("/").expect_body(" ours more");
}

#[test]
fn response_headers_are_changed_on_miss_and_hit() {
    let origin = Origin::always(
        ok("a")
            .field("Cache-Control", "max-age=60")
            .field("Server", "origin/1")
            .field("X-Set", "theirs")
            .field("X-Add", "first"),
    );
    let edge = with_routes(
        &origin,
        "  - upstream: origin\n    headers:\n      response:\n        \
         set: {x-set: ours}\n        add: {x-add: more}\n        remove: [server]\n",
    );
    for reply in [edge.get("/"), edge.get("/")] {
        assert_eq!(reply.values("x-set"), ["ours"], "{reply:?}");
        assert_eq!(reply.values("x-add"), ["first", "more"], "{reply:?}");
        assert_eq!(reply.values("server"), [""; 0], "{reply:?}");
    }
    edge.get("/").expect_hit();
}

#[test]
fn a_rewrite_is_part_of_the_key() {
    let origin = Origin::script()
        .otherwise(|seen| ok(seen.target()).field("Cache-Control", "max-age=60"))
        .start();
    let edge = with_routes(
        &origin,
        "  - {match: {headers: {x-v: present}}, upstream: origin, rewrite: {add_prefix: /v2}}\n  \
         - {upstream: origin}\n",
    );
    edge.get("/a").expect_miss().expect_body("/a");
    edge.get_with("/a", &[("X-V", "1")]).expect_miss().expect_body("/v2/a");
    edge.get("/a").expect_hit().expect_body("/a");
    edge.get_with("/a", &[("X-V", "1")]).expect_hit().expect_body("/v2/a");
}
