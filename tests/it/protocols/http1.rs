//! HTTP/1.0 and HTTP/1.1 clients.

use crate::harness::Edge;
use crate::harness::Origin;
use crate::harness::Respond;
use crate::harness::client::End;
use crate::harness::edge::simple;
use crate::harness::gate::Gate;
use crate::harness::ok;
use crate::harness::status;

fn chunked() -> Respond {
    Respond::raw(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n",
    )
}

#[test]
fn one_connection_carries_many_requests_and_so_does_one_to_the_origin() {
    let origin = Origin::script().otherwise(|seen| ok(seen.target())).start();
    let edge = Edge::to(&origin);
    let mut wire = edge.wire();

    for n in 0..10 {
        let target = format!("/{n}");
        wire.get("edge.test", &target, &[]).expect_status(200).expect_body(&target);
    }

    assert_eq!(origin.connections(), 1);
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let origin = Origin::script().otherwise(|seen| ok(seen.target())).start();
    let edge = Edge::to(&origin);
    let mut wire = edge.wire();

    wire.send(
        "GET /1 HTTP/1.1\r\nHost: a\r\n\r\nPOST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc\
         GET /3 HTTP/1.1\r\nHost: a\r\n\r\n",
    );

    for target in ["/1", "/2", "/3"] {
        wire.reply().expect_status(200).expect_body(target);
    }
    assert_eq!(origin.seen_at("/2")[0].body, b"abc");
}

#[test]
fn connection_close_is_honoured() {
    let edge = Edge::to(&Origin::always(ok("x")));
    let mut wire = edge.wire();

    let reply = wire.get("edge.test", "/", &[("Connection", "close")]);

    reply.expect_status(200).expect_body("x");
    assert_eq!(reply.value("connection"), Some("close"), "{reply:?}");
    assert!(wire.until_closed().is_empty());
}

#[test]
fn a_body_of_unknown_length_is_chunked_for_http_1_1() {
    let edge = Edge::to(&Origin::always(chunked()));

    let reply = edge.get("/");

    reply.expect_status(200).expect_body("hello world");
    assert_eq!(reply.value("transfer-encoding"), Some("chunked"));
    assert_eq!(reply.end, End::Whole);
}

#[test]
fn a_body_of_unknown_length_ends_with_the_connection_for_http_1_0() {
    let edge = Edge::to(&Origin::always(chunked()));
    let mut wire = edge.wire();

    wire.send("GET / HTTP/1.0\r\nHost: edge.test\r\nConnection: keep-alive\r\n\r\n");

    let reply = wire.reply();
    reply.expect_status(200).expect_body("hello world");
    assert_eq!(reply.value("transfer-encoding"), None, "{reply:?}");
    assert_ne!(reply.value("connection"), Some("keep-alive"), "{reply:?}");
}

#[test]
fn a_stored_body_of_unknown_length_is_not_chunked_for_http_1_0() {
    let body = "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nTransfer-Encoding: chunked\r\n\r\n\
                5\r\nhello\r\n0\r\n\r\n";
    let edge = Edge::to(&Origin::always(Respond::raw(body)));
    edge.get("/").expect_miss().expect_body("hello");
    let mut wire = edge.wire();

    wire.send("GET / HTTP/1.0\r\nHost: edge.test\r\n\r\n");

    let reply = wire.reply();
    reply.expect_hit().expect_body("hello");
    assert_eq!(reply.value("transfer-encoding"), None, "{reply:?}");
}

#[test]
fn http_1_0_closes_unless_it_asks_for_more() {
    let edge = Edge::to(&Origin::always(ok("x")));
    let mut wire = edge.wire();

    wire.send("GET / HTTP/1.0\r\nHost: edge.test\r\n\r\n");

    let reply = wire.reply();
    reply.expect_status(200).expect_body("x");
    assert_ne!(reply.value("connection"), Some("keep-alive"), "{reply:?}");
    assert!(wire.until_closed().is_empty());
}

#[test]
fn http_1_0_keeps_the_connection_when_it_asks() {
    let edge = Edge::to(&Origin::always(ok("x")));
    let mut wire = edge.wire();

    for _ in 0..3 {
        wire.send("GET / HTTP/1.0\r\nHost: edge.test\r\nConnection: keep-alive\r\n\r\n");
        let reply = wire.reply();
        reply.expect_status(200).expect_body("x");
        // Without being told so, such a client waits for the end (RFC 9112 §C.2.2).
        assert_eq!(reply.value("connection"), Some("keep-alive"), "{reply:?}");
    }
}

#[test]
fn head_has_the_fields_of_get_and_no_body() {
    let edge = Edge::to(&Origin::always(ok("hello").field("ETag", "\"e\"")));
    let mut wire = edge.wire();

    let head = wire.request("HEAD", "edge.test", "/", &[], b"");
    head.expect_status(200);
    assert_eq!(head.value("content-length"), Some("5"));
    assert_eq!(head.value("etag"), Some("\"e\""));

    // Were there a body, it would be taken for the next reply.
    wire.get("edge.test", "/", &[]).expect_status(200).expect_body("hello");
}

#[test]
fn head_of_what_is_stored_has_no_body() {
    let edge = Edge::to(&Origin::always(ok("hello").field("Cache-Control", "max-age=60")));
    let mut wire = edge.wire();
    wire.get("edge.test", "/", &[]).expect_miss();

    let head = wire.request("HEAD", "edge.test", "/", &[], b"");
    head.expect_status(200).expect_hit();
    assert_eq!(head.value("content-length"), Some("5"));

    wire.get("edge.test", "/", &[]).expect_hit().expect_body("hello");
}

#[test]
fn no_content_and_not_modified_have_no_body() {
    for code in [204, 304] {
        let origin = Origin::always(status(code).field("ETag", "\"e\""));
        let edge = Edge::with(&simple(&origin, "defaults: {cache: off}"));
        let mut wire = edge.wire();
        for _ in 0..2 {
            let reply = wire.get("edge.test", "/", &[("If-None-Match", "\"e\"")]);
            reply.expect_status(code);
            assert_eq!(reply.value("transfer-encoding"), None, "{reply:?}");
            assert_eq!(reply.value("content-length"), None, "{reply:?}");
        }
    }
}

#[test]
fn a_stored_response_is_not_modified_without_a_body() {
    let stored = ok("hello").field("Cache-Control", "max-age=60").field("ETag", "\"e\"");
    let edge = Edge::to(&Origin::always(stored));
    let mut wire = edge.wire();
    wire.get("edge.test", "/", &[]).expect_miss();

    let reply = wire.get("edge.test", "/", &[("If-None-Match", "\"e\"")]);
    reply.expect_status(304);
    assert_eq!(reply.value("etag"), Some("\"e\""));

    wire.get("edge.test", "/", &[]).expect_hit().expect_body("hello");
}

#[test]
fn options_for_the_whole_server_reaches_the_origin() {
    let origin = Origin::always(status(204).field("Allow", "GET, OPTIONS"));
    let edge = Edge::to(&origin);

    let reply = edge.wire().request("OPTIONS", "edge.test", "*", &[], b"");

    reply.expect_status(204);
    assert_eq!(reply.value("allow"), Some("GET, OPTIONS"));
    assert_eq!(origin.seen()[0].line, "OPTIONS * HTTP/1.1");
    assert_eq!(origin.seen()[0].value("host"), Some("edge.test"));
}

#[test]
fn request_trailers_end_at_an_http_1_origin() {
    let origin = Origin::always(ok("x"));
    let edge = Edge::to(&origin);
    let mut wire = edge.wire();

    wire.send(
        "POST / HTTP/1.1\r\nHost: edge.test\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n\
         3\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n",
    );
    wire.reply().expect_status(200);
    wire.get("edge.test", "/next", &[]).expect_status(200);

    let seen = &origin.seen()[0];
    assert_eq!(seen.body, b"abc");
    assert_eq!((seen.value("x-sum"), seen.value("trailer")), (None, None), "{seen:?}");
}

#[test]
fn who_says_no_more_is_answered_from_memory_only() {
    let gate = Gate::default();
    let held = gate.clone();
    let origin = Origin::script()
        .on("/stored", ok("hello").field("Cache-Control", "max-age=60"))
        .with("/slow", move |_| {
            held.pass();
            ok("slow")
        })
        .start();
    let edge = Edge::to(&origin);
    edge.get("/stored").expect_status(200);
    let ask = |target: &str| {
        let mut wire = edge.wire();
        wire.send(format!("GET {target} HTTP/1.1\r\nHost: edge.test\r\n\r\n")).finish();
        wire.any_reply("GET")
    };
    ask("/stored").expect("an answer").expect_hit().expect_body("hello");
    assert!(ask("/slow").is_none(), "it is taken for gone");
    gate.open();
}
