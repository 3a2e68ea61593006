//! What a client notices of a backend that fails: as little as is safe.

use std::io::Read;
use std::io::Write;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use super::before;
use super::nobody;
use super::with;
use crate::harness::Edge;
use crate::harness::Origin;
use crate::harness::Respond;
use crate::harness::edge::NEAR;
use crate::harness::edge::timeouts;
use crate::harness::ok;
use crate::harness::status;

/// An origin that closes every connection once it has read a request.
fn closing() -> Origin {
    Origin::always(Respond::raw(""))
}

/// An origin that reads a request and says nothing.
fn silent() -> Origin {
    Origin::script()
        .take_over("/", |_, mut tcp| {
            let _ = tcp.read_to_end(&mut Vec::new());
        })
        .start()
}

#[test]
fn a_refused_connection_is_followed_by_another_whatever_the_method() {
    let origin = Origin::always(ok("here"));
    let edge = with(&format!("\"{}\", \"{}\"", nobody(), origin.address), "    breaker: off\n");
    for _ in 0..4 {
        edge.get("/").expect_status(200);
        edge.wire().request("POST", "edge.test", "/", &[], b"body").expect_status(200);
    }
    let posts = origin.seen().iter().filter(|seen| seen.method() == "POST").count();
    assert_eq!(posts, 4);
    assert!(origin.seen().iter().filter(|s| s.method() == "POST").all(|s| s.body == b"body"));
}

#[test]
fn a_get_that_got_no_answer_goes_to_another_backend() {
    let (bad, good) = (closing(), Origin::always(ok("good")));
    let edge = before(&[&bad, &good], "    breaker: off\n");
    for _ in 0..6 {
        edge.get("/").expect_status(200).expect_body("good");
    }
    for method in ["QUERY", "SEARCH"] {
        let reply = edge.wire().request(method, "edge.test", "/", &[], b"a question");
        reply.expect_status(200).expect_body("good");
        assert_eq!(good.seen().pop().expect("it was asked").body, b"a question");
    }
    assert!(!bad.seen().is_empty());
    assert_eq!(good.seen().len(), 8);
    assert_eq!(
        edge.metric("edgeproxy_upstream_retries_total{outcome=\"sent\""),
        bad.seen().len() as f64
    );
}

#[test]
fn a_post_that_may_have_been_seen_is_never_said_again() {
    let (bad, good) = (closing(), Origin::always(ok("good")));
    let edge = before(&[&bad, &good], "    breaker: off\n");
    for _ in 0..6 {
        edge.wire().request("POST", "edge.test", "/", &[], b"body");
    }
    assert_eq!(bad.seen().len() + good.seen().len(), 6, "each of them was sent once");
    assert!(!bad.seen().is_empty());
}

#[test]
fn a_post_is_said_again_where_the_operator_says_so() {
    let (bad, good) = (closing(), Origin::always(ok("good")));
    let edge = before(&[&bad, &good], "    breaker: off\n    retry: {non_idempotent: true}\n");
    for _ in 0..4 {
        edge.wire().request("POST", "edge.test", "/", &[], b"body").expect_status(200);
    }
    assert!(good.seen().iter().all(|seen| seen.body == b"body"));
}

#[test]
fn chosen_statuses_are_followed_by_another_attempt() {
    let bad = Origin::always(status(503).field("Retry-After", "0"));
    let good = Origin::always(ok("good"));
    let edge = before(&[&bad, &good], "    breaker: off\n    retry: {statuses: [503]}\n");
    for _ in 0..6 {
        edge.get("/").expect_status(200);
    }
    assert!(!bad.seen().is_empty());
}

#[test]
fn what_one_backend_asks_for_delays_no_attempt_at_another() {
    let bad = Origin::always(status(503).field("Retry-After", "3600"));
    let good = Origin::always(ok("good"));
    let more = "    breaker: off\n    retry: {statuses: [503], backoff: 0s, max_backoff: 0s}\n";
    let edge = before(&[&bad, &good], more);
    for _ in 0..6 {
        edge.get("/").expect_status(200).expect_body("good");
    }
    // It is left alone from then on.
    assert_eq!(bad.seen().len(), 1);
}

#[test]
fn backends_that_want_to_be_left_alone_for_long_give_the_answer() {
    let patient = || Origin::always(status(503).field("Retry-After", "3600"));
    let (one, two) = (patient(), patient());
    let edge = before(&[&one, &two], "    breaker: off\n    retry: {statuses: [503]}\n");
    let reply = edge.get("/");
    assert_eq!(reply.expect_status(503).value("retry-after"), Some("3600"));
    assert_eq!((one.seen().len(), two.seen().len()), (1, 1), "each was asked once");
}

#[test]
fn the_only_backend_is_asked_again_when_it_says_so_soon() {
    let times = AtomicUsize::new(0);
    let origin = Origin::script()
        .with("/", move |_| match times.fetch_add(1, Ordering::SeqCst) {
            0 => status(503).field("Retry-After", "1"),
            _ => ok("again"),
        })
        .start();
    let edge = before(&[&origin], "    breaker: off\n    retry: {statuses: [503]}\n");
    let began = Instant::now();
    edge.get("/").expect_status(200).expect_body("again");
    assert!(began.elapsed() >= Duration::from_secs(1), "it was waited for");
    assert_eq!(origin.seen().len(), 2);
    // One that does not say when is not asked for the same twice.
    let origin = Origin::always(status(503));
    let edge = before(&[&origin], "    breaker: off\n    retry: {statuses: [503]}\n");
    edge.get("/").expect_status(503);
    assert_eq!(origin.seen().len(), 1);
}

#[test]
fn a_route_says_otherwise_than_its_upstream() {
    let quiet = || {
        Origin::script()
            .take_over("/slow", |_, mut tcp| drop(tcp.read_to_end(&mut Vec::new())))
            .on("/status", status(500))
            .otherwise(|_| Respond::raw(""))
            .start()
    };
    let origins = [quiet(), quiet(), quiet()];
    let addresses = origins.iter().map(|one| format!("\"{}\"", one.address));
    let addresses = addresses.collect::<Vec<_>>().join(", ");
    let edge = Edge::with(&format!(
        "listeners: [{{name: http, address: \"127.0.0.1:0\"}}]\n\
         upstreams:\n  app: {{breaker: off, health: off, addresses: [{addresses}], retry: {{statuses: [503]}}}}\n\
         routes:\n  \
         - {{match: {{path: /two}}, upstream: app, retry: {{attempts: 2}}}}\n  \
         - {{match: {{path: /one}}, upstream: app, retry: off}}\n  \
         - {{match: {{path: /slow}}, upstream: app, retry: {{per_try: 200ms}}}}\n  \
         - {{match: {{path: /status}}, upstream: app, retry: {{statuses: [500]}}}}\n  \
         - {{match: {{path: /post}}, upstream: app, retry: {{methods: [POST]}}}}\n  \
         - upstream: app\n"
    ));
    let asked = |path: &str| origins.iter().map(|one| one.seen_at(path).len()).sum::<usize>();
    for (method, path, reply, attempts) in [
        ("GET", "/three", 502, 3),
        ("GET", "/two", 502, 2),
        ("GET", "/one", 502, 1),
        ("GET", "/slow", 504, 3),
        ("POST", "/three", 502, 3 + 1),
        ("POST", "/post", 502, 3),
        ("PUT", "/post", 502, 3 + 1),
        // Last: it leaves connections behind, and one that dies is no attempt.
        ("GET", "/status", 500, 3),
    ] {
        edge.wire().request(method, "edge.test", path, &[], b"").expect_status(reply);
        assert_eq!(asked(path), attempts, "{method} {path}");
    }
}

#[test]
fn with_no_other_backend_the_answer_stands() {
    let origin = closing();
    let edge = before(&[&origin], "    breaker: off\n");
    edge.get("/").expect_status(502);
    assert_eq!(origin.seen().len(), 1);
}

#[test]
fn attempts_end_with_their_number() {
    let origins = [closing(), closing(), closing(), closing()];
    let [a, b, c, d] = &origins;
    let edge = before(&[a, b, c, d], "    breaker: off\n");
    edge.get("/").expect_status(502);
    let asked: Vec<usize> = origins.iter().map(|origin| origin.seen().len()).collect();
    assert_eq!(asked.iter().sum::<usize>(), 3);
    assert!(asked.iter().all(|&times| times <= 1), "another backend each time: {asked:?}");
}

#[test]
fn the_budget_of_all_requests_ends_further_attempts() {
    let (a, b) = (closing(), closing());
    let more = "    breaker: off\n    retry: {budget: {percent: 20, min_per_second: 0}}\n";
    let edge = before(&[&a, &b], more);
    for _ in 0..5 {
        edge.get("/").expect_status(502);
    }
    // The fifth of the requests is the first that there may be another attempt for.
    assert_eq!(a.seen().len() + b.seen().len(), 6);
    assert_eq!(edge.metric("edgeproxy_upstream_retries_total{outcome=\"over_budget\""), 4.0);
}

#[test]
fn a_silent_backend_is_left_after_the_time_for_one_try() {
    let (bad, good) = (silent(), Origin::always(ok("good")));
    let more = "    breaker: off\n    retry: {per_try: 200ms}\n    timeouts: {read: 1m, write: 1m, total: 1m}\n";
    let edge = before(&[&bad, &good], more);
    let mut slow = 0;
    for _ in 0..4 {
        let began = Instant::now();
        edge.get("/").expect_status(200).expect_body("good");
        assert!(began.elapsed() < Duration::from_secs(10), "the other deadlines are far away");
        slow += usize::from(began.elapsed() >= Duration::from_millis(200));
    }
    let silent = bad.seen().len();
    assert!(silent > 0 && slow >= silent, "{slow} took their time, {silent} met nobody");
}

#[test]
fn all_attempts_together_end_with_the_total_time() {
    let (a, b) = (silent(), silent());
    let retry = "retry: {per_try: 300ms}";
    let timeouts = timeouts(Some("total")).replace("connect: 500ms", "connect: 300ms");
    let edge = before(&[&a, &b], &format!("    breaker: off\n    {timeouts}\n    {retry}\n"));
    let began = Instant::now();
    edge.get("/").expect_status(504);
    let took = began.elapsed();
    assert!(took >= NEAR && took < Duration::from_secs(10), "{took:?}");
}

#[test]
fn a_body_that_was_cut_is_cut_for_the_client_and_not_asked_for_again() {
    // Each keeps its connection until the client has seen a part of the body.
    let held = Arc::new(Mutex::new(Vec::new()));
    let cut = || {
        let held = Arc::clone(&held);
        Origin::script()
            .take_over("/", move |_, mut tcp| {
                // Before the client can see anything: what came late would be held for ever.
                let open = tcp.try_clone().expect("a descriptor can be had");
                held.lock().expect("nobody panics with it").push(open);
                tcp.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
                    .expect("the proxy reads");
            })
            .start()
    };
    let (one, two) = (cut(), cut());
    let edge = before(&[&one, &two], &format!("    breaker: off\n    {}\n", timeouts(None)));
    let mut client = edge.wire();
    client.ask("GET", "edge.test", "/", &[], b"");
    let mut got = Vec::new();
    while !got.ends_with(b"half") {
        got.extend(client.read_raw(1));
    }
    let cut = Instant::now();
    held.lock().expect("nobody panics with it").clear();
    assert_eq!(client.until_closed(), b"", "nothing follows");
    assert!(cut.elapsed() < Duration::from_secs(10), "no deadline has to pass");
    assert_eq!(one.seen().len() + two.seen().len(), 1);
}

#[test]
fn an_answer_that_is_no_http_comes_from_another_backend() {
    let (bad, good) = (Origin::always(Respond::raw("garbage\r\n\r\n")), Origin::always(ok("good")));
    let edge = before(&[&bad, &good], "    breaker: off\n");
    for _ in 0..4 {
        edge.get("/").expect_status(200).expect_body("good");
    }
    assert!(!bad.seen().is_empty());
}

#[test]
fn a_body_is_said_again_as_long_as_it_is_still_at_hand() {
    // Each reads the whole of a request, and answers nothing.
    let (bad, good) = (closing(), Origin::always(ok("good")));
    let edge = before(&[&bad, &good], "    breaker: off\n");
    let put = |length: usize| {
        let body: Vec<u8> = (0..length).map(|n| (n % 251) as u8).collect();
        let status = edge.wire().request("PUT", "edge.test", "/", &[], &body).status;
        (status, body)
    };
    for _ in 0..4 {
        let (status, body) = put(60_000);
        assert_eq!(status, 200);
        assert!(good.seen().last().is_some_and(|seen| seen.body == body), "the whole of it");
    }
    let bad_before = bad.seen().len();
    assert!(bad_before > 0);
    // Beyond what is kept it cannot be; who is answered had the other backend at once.
    let statuses: Vec<u16> = (0..4).map(|_| put(200_000).0).collect();
    let refused = statuses.iter().filter(|status| **status == 502).count();
    assert_eq!(refused, bad.seen().len() - bad_before, "{statuses:?}");
    assert!(refused > 0, "{statuses:?}");
    // Where nothing of it was sent, it can.
    let edge = with(&format!("\"{}\", \"{}\"", nobody(), good.address), "    breaker: off\n");
    for _ in 0..4 {
        let body = vec![b'x'; 200_000];
        edge.wire().request("POST", "edge.test", "/", &[], &body).expect_status(200);
        assert_eq!(good.seen().last().map(|seen| seen.body.len()), Some(body.len()));
    }
    // What is said again counts once.
    let edge = before(&[&bad, &good], "    breaker: off\ndefaults: {max_body: 60KB}\n");
    let bad_before = bad.seen().len();
    for _ in 0..4 {
        let body = vec![b'x'; 60_000];
        edge.wire().request("PUT", "edge.test", "/", &[], &body).expect_status(200);
    }
    assert!(bad.seen().len() > bad_before);
}
