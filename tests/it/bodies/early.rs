//! Answers that come before the request's body is through.

use std::io::Read;
use std::io::Write;

use crate::harness::Edge;
use crate::harness::Origin;
use crate::harness::edge::simple;
use crate::harness::ok;

/// One route that answers by itself, the others ask the origin.
fn edge(origin: &Origin) -> Edge {
    Edge::with(&simple(origin, "").replace(
        "routes:\n",
        "routes:\n  - {match: {path: /here}, respond: {status: 200, body: here}}\n",
    ))
}

#[test]
fn a_small_body_that_nobody_wants_does_not_become_the_next_request() {
    let origin = Origin::script().otherwise(|seen| ok(seen.target())).start();
    let edge = edge(&origin);
    let mut wire = edge.wire();

    let unwanted = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    wire.request("POST", "edge.test", "/here", &[], unwanted.as_bytes())
        .expect_status(200)
        .expect_body("here");

    // Either the connection goes on after the body, or it is closed.
    let next = wire.try_send("GET /next HTTP/1.1\r\nHost: a\r\n\r\n");
    if let Some(reply) = next.ok().and_then(|()| wire.any_reply("GET")) {
        reply.expect_status(200).expect_body("/next");
    }
    assert!(origin.seen_at("/smuggled").is_empty());
}

#[test]
fn an_answer_of_ours_is_read_by_a_client_that_still_sends() {
    let origin = Origin::always(ok("x"));
    let edge = edge(&origin);
    let mut wire = edge.wire();

    wire.send("POST /nowhere HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n\r\n");
    let mut wire2 = edge.wire();
    wire2.send("POST /here HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n\r\n");
    let _ = wire2.try_send(vec![b'x'; 100_000]);

    wire2.reply().expect_status(200).expect_body("here");
    drop(wire);
}

#[test]
fn a_body_over_the_limit_is_refused_and_the_refusal_read() {
    let origin = Origin::always(ok("x"));
    let edge = Edge::with(&simple(&origin, "defaults: {max_body: 1KiB}"));
    let mut wire = edge.wire();

    wire.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n");
    let _ = wire.try_send(vec![b'x'; 100_000]);

    let reply = wire.reply();
    reply.expect_status(413);
    assert_eq!(reply.value("connection"), Some("close"), "{reply:?}");
    wire.until_closed();
    assert!(origin.seen().is_empty());
}

#[test]
fn an_origin_that_answers_early_is_heard() {
    let origin = Origin::script()
        .take_over("/up", |_, mut stream| {
            let answer = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno";
            stream.write_all(answer).unwrap();
            // It does not read the body, and does not close over it at once either.
            let _ = stream.read(&mut [0; 1]);
        })
        .start();
    let edge = Edge::to(&origin);
    let mut wire = edge.wire();

    wire.send(format!("POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", 100 << 10));
    // More than is spooled: the rest is never sent.
    wire.send(vec![b'x'; 99 << 10]);

    let reply = wire.reply();
    reply.expect_status(403).expect_body("no");
}

#[test]
fn an_origin_that_answers_early_and_closes_is_heard() {
    let origin = Origin::script()
        .take_over("/up", |_, mut stream| {
            let mut some = [0; 1024];
            stream.read_exact(&mut some).unwrap();
            let answer = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\
                           Connection: close\r\n\r\nno";
            stream.write_all(answer).unwrap();
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let _ = std::io::copy(&mut stream, &mut std::io::sink());
        })
        .start();
    let edge = Edge::to(&origin);
    let mut wire = edge.wire();

    wire.send(format!("POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", 1 << 20));
    let _ = wire.try_send(vec![b'x'; 1 << 20]);

    wire.reply().expect_status(403).expect_body("no");
}

#[test]
fn after_an_early_answer_the_connection_is_clean_or_closed() {
    let origin = Origin::script()
        .take_over("/up", |_, mut stream| {
            let answer = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno";
            stream.write_all(answer).unwrap();
            let _ = std::io::copy(&mut stream, &mut std::io::sink());
        })
        .otherwise(|seen| ok(seen.target()))
        .start();
    let edge = Edge::to(&origin);
    let mut wire = edge.wire();

    wire.send(format!("POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", 200 << 10));
    wire.send(vec![b'x'; 100 << 10]);
    wire.reply().expect_status(403).expect_body("no");
    // The rest of the body looks like a request.
    let mut rest = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n".to_vec();
    rest.resize(100 << 10, b'x');
    let _ = wire.try_send(&rest);

    let next = wire.try_send("GET /next HTTP/1.1\r\nHost: a\r\n\r\n");
    if let Some(reply) = next.ok().and_then(|()| wire.any_reply("GET")) {
        reply.expect_status(200).expect_body("/next");
    }
    assert!(origin.seen_at("/smuggled").is_empty());
}
