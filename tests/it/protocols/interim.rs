//! Interim responses: 100 Continue is ours, 103 Early Hints the origin's.

use std::io::Write;

use bytes::Bytes;
use http::Request;

use crate::harness::Edge;
use crate::harness::Origin;
use crate::harness::Respond;
use crate::harness::edge::simple;
use crate::harness::http2;
use crate::harness::ok;

#[test]
fn an_expectation_is_met_once_the_request_is_admitted() {
    let origin = Origin::script().otherwise(|seen| ok(seen.body.clone())).start();
    let edge = Edge::to(&origin);
    let mut wire = edge.wire();

    wire.send(
        "POST / HTTP/1.1\r\nHost: edge.test\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n",
    );
    assert_eq!(wire.any_reply("POST").map(|interim| interim.status), Some(100));
    assert!(origin.seen().is_empty(), "the origin was asked before there was a body");
    wire.send("hello");

    wire.reply().expect_status(200).expect_body("hello");
    assert_eq!(origin.seen()[0].value("expect"), None);
}

#[test]
fn an_expectation_is_met_once_only() {
    let edge = Edge::to(&Origin::script().otherwise(|seen| ok(seen.body.clone())).start());
    let mut wire = edge.wire();

    wire.send(
        "POST / HTTP/1.1\r\nHost: edge.test\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n",
    );
    assert_eq!(wire.any_reply("POST").map(|interim| interim.status), Some(100));
    wire.send("hello");
    assert_eq!(wire.any_reply("POST").map(|reply| reply.status), Some(200));

    wire.get("edge.test", "/", &[]).expect_status(200);
}

#[test]
fn another_expectation_fails() {
    let origin = Origin::always(ok("x"));
    let edge = Edge::to(&origin);
    let mut wire = edge.wire();

    wire.send("POST / HTTP/1.1\r\nHost: edge.test\r\nContent-Length: 5\r\nExpect: magic\r\n\r\n");

    assert_eq!(wire.any_reply("POST").map(|reply| reply.status), Some(417));
    assert!(origin.seen().is_empty());
}

#[test]
fn a_refused_request_is_not_told_to_continue() {
    let origin = Origin::always(ok("x"));
    let edge = Edge::with(&format!(
        "listeners:\n  - {{name: http, address: \"127.0.0.1:0\"}}\n\
         upstreams:\n  origin: {{addresses: [\"{}\"]}}\n\
         routes:\n  - {{match: {{path_prefix: /api}}, upstream: origin, max_body: 1KiB}}\n",
        origin.address
    ));

    let expecting = |line: &str, length: u32| {
        let mut wire = edge.wire();
        wire.send(format!(
            "{line} HTTP/1.1\r\nHost: edge.test\r\nContent-Length: {length}\r\n\
             Expect: 100-continue\r\n\r\n"
        ));
        wire.any_reply("POST").map(|reply| reply.status)
    };
    assert_eq!(expecting("POST /nowhere", 5), Some(404));
    assert_eq!(expecting("POST /api", 1025), Some(413));
    assert_eq!(expecting("TRACE /api", 5), Some(405));
    assert!(origin.seen().is_empty());
}

#[test]
fn an_expectation_over_http_2_does_not_reach_the_origin() {
    let origin = Origin::script().otherwise(|seen| ok(seen.body.clone())).start();
    let edge = Edge::to(&origin);

    let reply = http2::run(async {
        let mut h2 = http2::plain(edge.address("http")).await;
        let request = Request::post("http://edge.test/").header("expect", "100-continue");
        let request = request.body(()).unwrap();
        http2::exchange(&mut h2, request, Bytes::from_static(b"hello")).await.unwrap()
    });

    assert_eq!((reply.status, &reply.body[..]), (200, &b"hello"[..]));
    assert_eq!(origin.seen()[0].value("expect"), None);
}

fn with_hints(cache_control: &str) -> Origin {
    Origin::always(Respond::raw(format!(
        "HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n\
         HTTP/1.1 200 OK\r\nCache-Control: {cache_control}\r\nContent-Length: 5\r\n\r\nhello"
    )))
}

#[test]
fn early_hints_pass_when_nothing_may_be_stored() {
    let edge = Edge::with(&simple(&with_hints("no-store"), "defaults: {cache: off}"));
    let mut wire = edge.wire();

    wire.send("GET / HTTP/1.1\r\nHost: edge.test\r\n\r\n");

    let hints = wire.any_reply("GET").unwrap();
    assert_eq!(hints.status, 103, "{hints:?}");
    assert_eq!(hints.value("link"), Some("</style.css>; rel=preload"));
    wire.reply().expect_status(200).expect_body("hello");
}

#[test]
fn early_hints_pass_and_what_follows_them_is_stored() {
    let apart = Origin::script().take_over("/", |_, mut stream| {
        let _ = stream.write_all(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n");
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\n");
        let _ = stream.write_all(b"Content-Length: 5\r\nConnection: close\r\n\r\nhello");
    });
    for origin in [with_hints("max-age=60"), apart.start()] {
        let edge = Edge::to(&origin);
        let mut wire = edge.wire();

        wire.send("GET / HTTP/1.1\r\nHost: edge.test\r\n\r\n");

        let hints = wire.any_reply("GET").unwrap();
        assert_eq!(hints.status, 103, "{hints:?}");
        wire.reply().expect_status(200).expect_miss().expect_body("hello");
        let hit = edge.get("/");
        hit.expect_status(200).expect_hit().expect_body("hello");
        assert_eq!(hit.value("link"), None, "{hit:?}");
        assert_eq!(origin.seen().len(), 1);
    }
}

#[test]
fn early_hints_reach_http_2_in_their_order() {
    let hint = |link: &str| format!("HTTP/1.1 103 Early Hints\r\nLink: <{link}>\r\n\r\n");
    let reply = |kept: &str| {
        format!(
            "{}{}HTTP/1.1 200 OK\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
             Cache-Control: {kept}\r\nContent-Length: 5\r\n\r\nhello",
            hint("/a"),
            hint("/b")
        )
    };
    for (kept, cache) in [("no-store", "off"), ("no-store", "on"), ("max-age=60", "on")] {
        let origin = Origin::always(Respond::raw(reply(kept)));
        let edge = Edge::with(&simple(&origin, &format!("defaults: {{cache: {cache}}}")));

        let reply = http2::run(async {
            let mut h2 = http2::plain(edge.address("http")).await;
            http2::get(&mut h2, "http://edge.test/", &[]).await.unwrap()
        });

        let told = format!("{kept}, {cache}: {reply:?}");
        assert_eq!((reply.status, &reply.body[..]), (200, &b"hello"[..]), "{told}");
        let links: Vec<_> = reply
            .interim
            .iter()
            .map(|(status, fields)| (*status, fields["link"].to_str().unwrap()))
            .collect();
        assert_eq!(links, [(103, "</a>"), (103, "</b>")], "{told}");
        assert_eq!(reply.value("link"), None, "{told}");
        // Nor is the origin's date written over (RFC 9110 §6.6.1).
        assert_eq!(reply.value("date"), Some("Sun, 06 Nov 1994 08:49:37 GMT"), "{told}");
    }
}

#[test]
fn hints_without_end_are_a_fault_of_the_origin() {
    let hint = "HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\n\r\n";
    let mut all = hint.repeat(100);
    all.push_str("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
    let edge = Edge::to(&Origin::always(Respond::raw(all)));

    edge.get("/").expect_status(502);
}

#[test]
fn early_hints_do_not_reach_http_1_0() {
    let origin = with_hints("no-store");
    for more in ["", ", cache: off"] {
        let yaml =
            simple(&origin, "").replace("upstream: origin}", &format!("upstream: origin{more}}}"));
        for request in ["GET /a HTTP/1.0\r\n", "POST /a HTTP/1.0\r\nContent-Length: 0\r\n"] {
            // The origin closes each connection, and says nothing of it: a POST may not meet that.
            let edge = Edge::with(&yaml);
            let mut wire = edge.wire();
            wire.send(format!("{request}Host: edge.test\r\n\r\n"));
            assert_eq!(wire.any_reply("GET").map(|reply| reply.status), Some(200), "{request}");
        }
    }
}
