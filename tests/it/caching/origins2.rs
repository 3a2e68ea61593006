//! The same in front of origins that speak HTTP/2.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use http::Response;
use tokio::sync::Notify;

use crate::harness::Edge;
use crate::harness::origin2::Origin2;

/// What the origin gives in turn (the last one again and again): status, fields, body.
type Answer = (u16, &'static [(&'static str, &'static str)], &'static str);

fn answering(answers: &'static [Answer]) -> (Origin2, Edge) {
    let next = AtomicUsize::new(0);
    let origin = Origin2::start(None, move |mut call| {
        let at = next.fetch_add(1, Ordering::SeqCst).min(answers.len() - 1);
        let (status, fields, body) = answers[at];
        async move {
            let mut response = Response::builder().status(status);
            for (name, value) in fields {
                response = response.header(*name, *value);
            }
            call.respond(response.body(()).expect("tests write valid responses"), body);
        }
    });
    let edge = Edge::with(&format!(
        "listeners:\n  - {{name: http, address: \"127.0.0.1:0\", h2c: true}}\n\
         upstreams:\n  origin:\n    addresses: [\"{}\"]\n    protocol: http2\n\
         routes:\n  - {{upstream: origin}}\n",
        origin.address
    ));
    (origin, edge)
}

const STALE: &[(&str, &str)] =
    &[("cache-control", "max-age=60, stale-if-error=600"), ("age", "60"), ("etag", "\"1\"")];

#[test]
fn miss_hit_head_and_range() {
    let (origin, edge) = answering(&[(200, &[("cache-control", "max-age=60")], "abcdef")]);
    let mut wire = edge.wire();
    // As long as the length is not known, there is only the whole; it may be known by then.
    let first = wire.get("edge.test", "/", &[("Range", "bytes=1-2")]);
    let first = (first.expect_miss().status, first.text());
    assert!([(200, "abcdef".into()), (206, "bc".into())].contains(&first), "{first:?}");
    let hit = wire.get("edge.test", "/", &[]);
    assert_eq!(hit.expect_hit().value("content-length"), Some("6"), "{hit:?}");
    let part = wire.get("edge.test", "/", &[("Range", "bytes=1-2")]);
    part.expect_status(206).expect_hit().expect_body("bc");
    wire.request("HEAD", "edge.test", "/", &[], b"").expect_status(200).expect_hit();
    wire.request("HEAD", "edge.test", "/other", &[], b"").expect_status(200).expect_miss();
    wire.get("edge.test", "/other", &[]).expect_hit().expect_body("abcdef");
    assert_eq!(origin.seen().len(), 2);
}

#[test]
fn a_304_freshens() {
    const CONFIRMED: Answer = (304, &[("etag", "\"1\""), ("cache-control", "max-age=60")], "");
    let (origin, edge) = answering(&[(200, STALE, "page"), CONFIRMED]);
    edge.get("/").expect_miss();
    edge.get("/").expect_status(200).expect_cache("REVALIDATED").expect_body("page");
    edge.get("/").expect_hit().expect_body("page");
    assert_eq!(origin.seen()[1].headers["if-none-match"], "\"1\"");
}

#[test]
fn a_304_about_something_else_is_asked_again_without_conditions() {
    let (origin, edge) = answering(&[
        (200, STALE, "old"),
        (304, &[("etag", "\"2\"")], ""),
        (200, &[("cache-control", "max-age=60")], "new"),
    ]);
    edge.get("/").expect_miss();
    edge.get("/").expect_status(200).expect_body("new");
    assert!(!origin.seen()[2].headers.contains_key("if-none-match"));
    edge.get("/").expect_body("new");
}

#[test]
fn a_304_that_nobody_asked_for_never_reaches_the_client() {
    let (_origin, edge) = answering(&[(304, &[], "")]);
    edge.get("/").expect_status(502);
}

#[test]
fn an_error_is_answered_with_what_is_stale() {
    let (_origin, edge) = answering(&[(200, STALE, "page"), (503, &[], "broken")]);
    edge.get("/").expect_miss();
    edge.get("/").expect_status(200).expect_cache("STALE").expect_body("page");
}

/// An origin that announces four bytes, sends them, and once it is told to, ends the stream with these.
fn four_and(more: &'static str) -> (Origin2, Edge, Arc<Notify>) {
    let gate = Arc::new(Notify::new());
    let opened = Arc::clone(&gate);
    let origin = Origin2::start(None, move |mut call| {
        let gate = Arc::clone(&opened);
        async move {
            let head = Response::builder().header("cache-control", "max-age=60");
            let head = head.header("content-length", "4").body(()).expect("a valid response");
            let mut stream = call.answer.send_response(head, false).expect("the stream is open");
            stream.send_data("body".into(), false).expect("the stream is open");
            gate.notified().await;
            let _ = stream.send_data(more.into(), true);
        }
    });
    let edge = Edge::with(&format!(
        "listeners:\n  - {{name: http, address: \"127.0.0.1:0\"}}\n\
         upstreams:\n  origin:\n    addresses: [\"{}\"]\n    protocol: http2\n\
         routes:\n  - {{upstream: origin}}\n",
        origin.address
    ));
    (origin, edge, gate)
}

#[test]
fn what_is_longer_than_it_said_in_a_later_frame_is_not_stored() {
    let (origin, edge, gate) = four_and("more");
    for seen in 1..=2 {
        let mut wire = edge.wire();
        wire.send("GET / HTTP/1.1\r\nHost: edge.test\r\n\r\n");
        // All that was announced has come before anything is wrong.
        let head = wire.read_raw(16);
        assert!(head.starts_with(b"HTTP/1.1 200"), "{head:?}");
        gate.notify_one();
        edge.wait_for_gauge("edgeproxy_cache_fetches", 0.0);
        assert_eq!(origin.seen().len(), seen);
    }
}

#[test]
fn what_ends_in_a_frame_of_its_own_is_stored() {
    let (origin, edge, gate) = four_and("");
    gate.notify_one();
    edge.get("/").expect_miss().expect_body("body");
    edge.wait_for_gauge("edgeproxy_cache_fetches", 0.0);
    edge.get("/").expect_hit().expect_body("body");
    assert_eq!(origin.seen().len(), 1);
}

#[test]
fn a_stream_that_is_reset_in_its_body_is_never_stored() {
    let origin = Origin2::start(None, |mut call| async move {
        let head = Response::builder().header("cache-control", "max-age=60");
        let head = head.body(()).expect("tests write valid responses");
        let mut stream = call.answer.send_response(head, false).expect("the stream is open");
        let _ = stream.send_data("half".into(), false);
        stream.send_reset(h2::Reason::INTERNAL_ERROR);
    });
    let edge = Edge::with(&format!(
        "listeners:\n  - {{name: http, address: \"127.0.0.1:0\"}}\n\
         upstreams:\n  origin:\n    addresses: [\"{}\"]\n    protocol: http2\n\
         routes:\n  - {{upstream: origin}}\n",
        origin.address
    ));
    for seen in 1..=2 {
        let mut wire = edge.wire();
        wire.send("GET / HTTP/1.1\r\nHost: edge.test\r\n\r\n");
        if let Some(reply) = wire.any_reply("GET") {
            let cut = reply.end == crate::harness::client::End::Cut;
            assert!(cut || reply.status == 502, "{reply:?}");
        }
        assert_eq!(origin.seen().len(), seen);
    }
}
