//! Bodies: broken chunks, requests hidden in them, and what is left unread.

use std::io::Write;

use super::Case;
use super::LIMITS;
use super::NEXT;
use super::all_are_refused;
use super::case;
use super::origin;
use super::post;
use crate::harness::Edge;
use crate::harness::Origin;
use crate::harness::client::End;
use crate::harness::edge::simple;
use crate::harness::ok;

/// Chunked bodies that break the grammar of RFC 9112 §7.1, each in one way.
fn broken() -> Vec<String> {
    let long_extension = format!("3;{}\r\nabc\r\n0\r\n\r\n", "x".repeat(300));
    let long_trailers = format!("3\r\nabc\r\n0\r\nX: {}\r\n\r\n", "x".repeat(9000));
    [
        "\r\nabc\r\n0\r\n\r\n",
        "3\r\nabc\r\n\r\n\r\n",
        ";a=b\r\nabc\r\n0\r\n\r\n",
        "g\r\nabc\r\n0\r\n\r\n",
        "0x3\r\nabc\r\n0\r\n\r\n",
        "+3\r\nabc\r\n0\r\n\r\n",
        "-3\r\nabc\r\n0\r\n\r\n",
        "3_0\r\nabc\r\n0\r\n\r\n",
        " 3\r\nabc\r\n0\r\n\r\n",
        "3 3\r\nabc\r\n0\r\n\r\n",
        "3,\r\nabc\r\n0\r\n\r\n",
        "10000000000000003\r\nabc\r\n0\r\n\r\n",
        "ffffffffffffffff\r\nabc\r\n0\r\n\r\n",
        "3\nabc\n0\n\n",
        "3\r\nabc\n0\r\n\r\n",
        "3\r\nabcd\r\n0\r\n\r\n",
        "3\r\nab\r\n0\r\n\r\n",
        "3\r\nabc0\r\n\r\n",
        "3;a=\u{1}\r\nabc\r\n0\r\n\r\n",
        "3;a=b\nc\r\nabc\r\n0\r\n\r\n",
        "3\r\nabc\r\n0\r\nX : y\r\n\r\n",
        "3\r\nabc\r\n0\r\n X: y\r\n\r\n",
        "3\r\nabc\r\n0\r\nContent-Length: 3\r\n\r\n",
        "3\r\nabc\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n",
        "3\r\nabc\r\n0\r\nHost: evil.test\r\n\r\n",
        &long_extension,
        &long_trailers,
    ]
    .map(str::to_owned)
    .into()
}

#[test]
fn a_broken_chunk_is_refused_before_an_origin_is_asked() {
    let cases: Vec<Case> = broken()
        .iter()
        .map(|body| case(post("Transfer-Encoding: chunked", body), 400, "bad_chunk"))
        .collect();
    all_are_refused(&cases);
}

#[test]
fn a_broken_chunk_never_completes_a_request_at_the_origin() {
    // Without a spool the origin is asked before the chunk is seen.
    let origin = origin();
    let edge = Edge::with(&simple(&origin, "defaults: {spool: 0B}"));
    for body in broken() {
        let mut wire = edge.wire();
        wire.send(post("Transfer-Encoding: chunked", "3\r\nabc\r\n"));
        wire.send([&body, NEXT].concat());
        let reply = wire.any_reply("POST").unwrap_or_else(|| panic!("no reply to {body:?}"));
        assert_eq!(reply.status, 400, "{body:?}: {reply:?}");
        assert!(wire.until_closed().is_empty(), "{body:?}");
        assert!(origin.seen().is_empty(), "{body:?}: {:?}", origin.seen());
    }
}

#[test]
fn a_body_that_ends_early_is_no_request() {
    for spool in ["16KiB", "0B"] {
        let origin = origin();
        let edge = Edge::with(&simple(&origin, &format!("defaults: {{spool: {spool}}}")));
        for (lines, body) in [
            ("Content-Length: 10", "abc"),
            ("Transfer-Encoding: chunked", "3\r\nabc\r\n"),
            ("Transfer-Encoding: chunked", "3\r\nab"),
            ("Transfer-Encoding: chunked", "3\r\nabc\r\n0\r\n"),
        ] {
            let mut wire = edge.wire();
            wire.send(post(lines, body)).finish();
            let reply = wire.any_reply("POST");
            assert!(reply.as_ref().is_none_or(|r| r.status == 400), "{lines} {body}: {reply:?}");
            assert!(wire.until_closed().is_empty());
        }
        assert!(origin.seen().is_empty(), "{:?}", origin.seen());
    }
}

#[test]
fn a_request_within_a_body_is_a_body() {
    let origin =
        Origin::script().otherwise(|seen| ok(format!("{} {}", seen.line, seen.body.len()))).start();
    let edge = Edge::to(&origin);
    let chunked = format!("{:x}\r\n{NEXT}\r\n0\r\n\r\n", NEXT.len());
    let coded = [("Transfer-Encoding", "chunked")];
    let mut wire = edge.wire();
    for method in ["POST", "PUT", "GET", "DELETE", "OPTIONS"] {
        let plain = wire.request(method, "edge.test", "/a", &[], NEXT.as_bytes());
        plain.expect_body(&format!("{method} /a HTTP/1.1 {}", NEXT.len()));
        let coded = wire.request(method, "edge.test", "/b", &coded, chunked.as_bytes());
        coded.expect_body(&format!("{method} /b HTTP/1.1 {}", NEXT.len()));
    }
    assert!(origin.seen_at("/smuggled").is_empty());
    assert_eq!(origin.seen().len(), 10);
}

#[test]
fn a_body_that_nobody_reads_is_not_the_next_request() {
    // A local answer, a stored one, a refusal by route: none of them needs the body.
    let origin = Origin::script()
        .on("/stored", ok("stored").field("Cache-Control", "max-age=60"))
        .otherwise(|_| ok("from the origin"))
        .start();
    let routes = format!(
        "listeners: [{{name: http, address: \"127.0.0.1:0\"}}]\n\
         upstreams: {{origin: {{addresses: [\"{}\"]}}}}\n\
         routes:\n\
         - {{name: local, match: {{path: /local}}, respond: {{status: 200, body: local}}}}\n\
         - {{name: moved, match: {{path: /moved}}, redirect: {{to: /, status: 302}}}}\n\
         - {{name: reads, match: {{path: /reads, methods: [GET]}}, upstream: origin}}\n\
         - {{name: rest, match: {{path_prefix: /}}, upstream: origin}}\n",
        origin.address
    );
    let edge = Edge::with(&routes);
    edge.get("/stored").expect_status(200).expect_miss();
    for (method, target) in
        [("POST", "/local"), ("POST", "/moved"), ("GET", "/stored"), ("HEAD", "/stored")]
    {
        for size in [NEXT.len(), 300_000] {
            let body = NEXT.repeat(size / NEXT.len());
            let mut wire = edge.wire();
            wire.send(format!(
                "{method} {target} HTTP/1.1\r\nHost: edge.test\r\nContent-Length: {}\r\n\r\n",
                body.len()
            ));
            // What is not read any more need not be taken either.
            let _ = wire.try_send(body);
            let _ = wire.try_send("GET /after HTTP/1.1\r\nHost: edge.test\r\n\r\n");
            let reply = wire.any_reply(method).unwrap_or_else(|| panic!("{method} {target}"));
            assert!(reply.status < 400 && reply.end == End::Whole, "{method} {target}: {reply:?}");
            // Either the body was read away, or there is no next request.
            if let Some(next) = wire.any_reply("GET") {
                next.expect_status(200).expect_body("from the origin");
            }
        }
    }
    assert!(origin.seen_at("/smuggled").is_empty());
}

#[test]
fn a_refused_client_gets_to_read_the_answer_although_it_still_sends() {
    let origin = origin();
    let edge = Edge::with(&simple(&origin, LIMITS));
    let body = vec![b'a'; 128 * 1024];
    let chunk = [b"20000\r\n".as_slice(), &body, b"\r\n0\r\n\r\n"].concat();
    for (head, body, status) in [
        (post("Content-Length: 131072", ""), &body, 413),
        (post("Transfer-Encoding: chunked", ""), &chunk, 413),
        (post("Content-Length: 131072\r\nX : y", ""), &body, 400),
        ("BAD\r\n\r\n".to_owned(), &body, 400),
    ] {
        let mut wire = edge.wire();
        wire.send([head.as_bytes(), body].concat());
        let reply = wire.any_reply("POST").expect("an answer and no reset");
        reply.expect_status(status);
        assert_eq!(reply.end, End::Whole, "{reply:?}");
        assert!(wire.until_closed().is_empty());
    }
    assert!(origin.seen().is_empty());
}

#[test]
fn a_client_that_waits_for_100_is_told_before_it_sends() {
    let origin = origin();
    let edge = Edge::with(&simple(&origin, LIMITS));
    let mut wire = edge.wire();
    wire.send(post("Content-Length: 3\r\nExpect: 100-continue", ""));
    assert_eq!(wire.any_reply("POST").map(|r| r.status), Some(100));
    wire.send("abc");
    wire.reply_to("POST").expect_status(200);
    let seen = origin.wait_for(1).remove(0);
    assert_eq!((seen.body.as_slice(), seen.value("expect")), (b"abc".as_slice(), None));

    // A refusal comes instead of the 100.
    let mut wire = edge.wire();
    wire.send(post("Content-Length: 2000\r\nExpect: 100-continue", ""));
    assert_eq!(wire.any_reply("POST").map(|r| r.status), Some(413));
    assert!(wire.until_closed().is_empty());
}

#[test]
fn a_body_larger_than_the_route_allows_never_completes_at_the_origin() {
    // The limit is passed while the body streams, behind the spool.
    let origin = origin();
    let edge = Edge::with(&simple(&origin, "defaults: {max_body: 200KiB, spool: 1KiB}"));
    let mut wire = edge.wire();
    wire.send(post("Transfer-Encoding: chunked", ""));
    let mut chunk = Vec::new();
    write!(chunk, "8000\r\n{}\r\n", "a".repeat(0x8000)).expect("a Vec takes everything");
    for _ in 0..8 {
        if wire.try_send(&chunk).is_err() {
            break;
        }
    }
    let _ = wire.try_send(format!("0\r\n\r\n{NEXT}"));
    wire.any_reply("POST").expect("an answer").expect_status(413);
    assert!(wire.until_closed().is_empty());
    assert!(origin.seen().is_empty());
}
