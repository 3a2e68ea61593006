//! Serving what is stale while the origin fails (RFC 5861 §4).

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use crate::caching::number;
use crate::harness::Edge;
use crate::harness::Origin;
use crate::harness::Respond;
use crate::harness::ok;
use crate::harness::status;

/// An answer that is stale as soon as it comes, and from the second request on a failure.
fn failing(directives: &'static str, failure: Respond) -> (Origin, Edge) {
    with_rules(directives, failure, "on")
}

/// The same with these rules of the route.
fn with_rules(directives: &'static str, failure: Respond, cache: &str) -> (Origin, Edge) {
    let first = AtomicBool::new(true);
    let origin = Origin::script()
        .with("/", move |_| {
            if first.swap(false, Ordering::SeqCst) {
                let page = ok("page").field("Cache-Control", directives).field("Age", "60");
                page.field("ETag", "\"1\"")
            } else {
                failure.clone()
            }
        })
        .start();
    let edge = Edge::with(&format!(
        "listeners:\n  - {{name: http, address: \"127.0.0.1:0\"}}\n\
         upstreams:\n  origin:\n    addresses: [\"{}\"]\n\
         routes:\n  - {{upstream: origin, cache: {cache}}}\n",
        origin.address
    ));
    edge.get("/").expect_miss();
    (origin, edge)
}

const WINDOW: &str = "max-age=60, stale-if-error=600";

#[test]
fn an_error_of_the_origin_is_answered_with_what_is_stale() {
    for code in [500, 502, 503, 504] {
        let (origin, edge) = failing(WINDOW, status(code).body("broken"));
        let reply = edge.get("/");
        reply.expect_status(200).expect_cache("STALE").expect_body("page");
        assert!(number(&reply, "age") >= 60, "{reply:?}");
        let told = reply.value("cache-status").unwrap_or_default();
        let forwarded = format!("; fwd=stale; fwd-status={code}; detail=stale-if-error");
        assert!(told.ends_with(&forwarded), "{reply:?}");
        assert_eq!(origin.seen().len(), 2);
    }
}

#[test]
fn a_refusal_of_the_origin_is_its_answer() {
    let (_origin, edge) = failing(WINDOW, status(404).body("gone"));
    edge.get("/").expect_status(404).expect_body("gone");
}

#[test]
fn a_broken_answer_is_a_failure() {
    let (_origin, edge) = failing(WINDOW, Respond::raw("HTTP/1.1 2000 OK\r\n\r\n"));
    edge.get("/").expect_status(200).expect_cache("STALE").expect_body("page");
}

#[test]
fn a_connection_that_closes_without_an_answer_is_a_failure() {
    let (_origin, edge) = failing(WINDOW, Respond::raw(""));
    edge.get("/").expect_status(200).expect_cache("STALE").expect_body("page");
}

#[test]
fn an_origin_that_cannot_be_reached_is_a_failure() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
    let address = listener.local_addr().expect("bound");
    let edge = Edge::with(&format!(
        "listeners:\n  - {{name: http, address: \"127.0.0.1:0\"}}\n\
         upstreams:\n  origin:\n    addresses: [\"{address}\"]\n\
         routes:\n  - {{upstream: origin}}\n"
    ));
    let once = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("edgeproxy connects");
        let _ = std::io::Read::read(&mut stream, &mut [0; 4096]);
        let whole = "HTTP/1.1 200 OK\r\nCache-Control: max-age=60, stale-if-error=600\r\n\
                     Age: 60\r\nContent-Length: 4\r\nConnection: close\r\n\r\npage";
        let _ = std::io::Write::write_all(&mut stream, whole.as_bytes());
    });
    edge.get("/").expect_miss();
    once.join().expect("the origin ends");
    edge.get("/").expect_status(200).expect_cache("STALE").expect_body("page");
    edge.get("/unknown").expect_status(502);
}

#[test]
fn an_origin_that_does_not_answer_in_time_is_a_failure() {
    let hangs = Arc::new(AtomicBool::new(false));
    let origin = Origin::script()
        .take_over("/", {
            let hangs = Arc::clone(&hangs);
            move |_, mut stream| {
                if hangs.swap(true, Ordering::SeqCst) {
                    // Until edgeproxy gives up.
                    let _ = std::io::Read::read(&mut stream, &mut [0; 16]);
                } else {
                    let whole = "HTTP/1.1 200 OK\r\nCache-Control: max-age=60, stale-if-error=600\
                                 \r\nAge: 60\r\nContent-Length: 4\r\nConnection: close\r\n\r\npage";
                    let _ = std::io::Write::write_all(&mut stream, whole.as_bytes());
                }
            }
        })
        .start();
    let edge = Edge::with(&format!(
        "listeners:\n  - {{name: http, address: \"127.0.0.1:0\"}}\n\
         upstreams:\n  origin:\n    addresses: [\"{}\"]\n    timeouts: {{read: 300ms}}\n\
         routes:\n  - {{upstream: origin}}\n",
        origin.address
    ));
    edge.get("/").expect_miss();
    edge.get("/").expect_status(200).expect_cache("STALE").expect_body("page");
}

#[test]
fn without_a_window_the_failure_is_shown() {
    let (_origin, edge) = failing("max-age=60", status(503).body("broken"));
    edge.get("/").expect_status(503).expect_body("broken");
}

#[test]
fn a_window_that_has_closed_is_none() {
    // Stale for twenty seconds already.
    let (_origin, edge) = failing("max-age=40, stale-if-error=20", status(503));
    edge.get("/").expect_status(503);
}

#[test]
fn must_revalidate_and_no_cache_close_the_window() {
    for directives in [
        "max-age=60, stale-if-error=600, must-revalidate",
        "max-age=60, stale-if-error=600, proxy-revalidate",
        "no-cache, stale-if-error=600",
    ] {
        let (_origin, edge) = failing(directives, status(503));
        edge.get("/").expect_status(503);
        // Out of reach, what must be validated is a 504 (RFC 9111 §5.2.2.2).
        let (_origin, edge) = failing(directives, Respond::raw(""));
        edge.get("/").expect_status(504);
        edge.wait_for_access("not_validated");
    }
}

#[test]
fn a_routes_window_is_for_responses_that_name_none() {
    let rules = |directives, failure| with_rules(directives, failure, "{stale_if_error: 1h}");
    for failure in [status(503).body("broken"), Respond::raw("")] {
        let (_origin, edge) = rules("max-age=60", failure.clone());
        edge.get("/").expect_status(200).expect_cache("STALE").expect_body("page");
        for closed in ["must-revalidate", "s-maxage=60", "stale-if-error=0", "no-cache"] {
            let directives = Box::leak(format!("max-age=60, {closed}").into_boxed_str());
            let (_origin, edge) = rules(directives, failure.clone());
            assert!(edge.get("/").status >= 500, "{closed}");
        }
    }
}

#[test]
fn a_client_may_ask_for_what_is_stale_when_the_origin_fails() {
    let (_origin, edge) =
        with_rules("max-age=60", status(503).body("broken"), "{client_directives: honour}");
    let asked = [("Cache-Control", "stale-if-error=600")];
    edge.get_with("/", &asked).expect_status(200).expect_cache("STALE").expect_body("page");
    edge.get("/").expect_status(503);
}

#[test]
fn a_stale_answer_leaves_the_clients_connection_open() {
    let (_origin, edge) = failing(WINDOW, Respond::raw(""));
    let mut wire = edge.wire();
    for _ in 0..2 {
        wire.get("edge.test", "/", &[]).expect_cache("STALE");
    }
}

#[test]
fn a_failure_in_the_middle_of_a_body_is_shown_as_one() {
    let cut = "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 10\r\n\r\nfive!";
    let (_origin, edge) = failing(WINDOW, Respond::raw(cut));
    let mut wire = edge.wire();
    wire.send("GET / HTTP/1.1\r\nHost: edge.test\r\n\r\n");
    // Some of it was sent and cut, or nothing and what is stale instead; the two never mix.
    if let Some(reply) = wire.any_reply("GET") {
        let stale = reply.end == crate::harness::client::End::Whole && reply.text() == "page";
        let cut = reply.end == crate::harness::client::End::Cut && !reply.text().contains("page");
        assert!(stale || cut, "{reply:?}");
    }
}

#[test]
fn what_is_stale_may_be_asked_for_by_its_tag() {
    let (_origin, edge) = failing(WINDOW, status(503));
    edge.get_with("/", &[("If-None-Match", "\"1\"")]).expect_status(304).expect_cache("STALE");
}

#[test]
fn what_went_forward_and_failed_is_told_as_forwarded() {
    for (failure, said) in [
        (status(503), "edgeproxy; fwd=stale; fwd-status=503; detail=stale-if-error"),
        (Respond::raw(""), "edgeproxy; fwd=stale; detail=stale-if-error"),
    ] {
        let (_origin, edge) = failing(WINDOW, failure);
        let reply = edge.get("/");
        reply.expect_cache("STALE");
        assert_eq!(reply.values("cache-status"), [said]);
        // For a moment it is not asked again.
        let reply = edge.get("/");
        reply.expect_cache("STALE");
        let said = reply.value("cache-status").unwrap();
        assert!(said.starts_with("edgeproxy; hit; ttl="), "{said}");
        assert!(said.ends_with("detail=stale-if-error"), "{said}");
    }
}
