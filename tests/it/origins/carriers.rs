//! The connections that carry requests to origins of HTTP/2 side by side: how many there are, and how long.

use std::io::Write;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use bytes::Bytes;
use http::Response;

use super::through::THE_LONG_WAY;
use crate::harness::Authority;
use crate::harness::Edge;
use crate::harness::Gate;
use crate::harness::Origin2;
use crate::harness::PATIENCE;
use crate::harness::edge::timeouts;
use crate::harness::frames::DATA;
use crate::harness::frames::END_HEADERS;
use crate::harness::frames::END_STREAM;
use crate::harness::frames::GOAWAY;
use crate::harness::frames::HEADERS;
use crate::harness::frames::RESET;
use crate::harness::frames::RawOrigin2;
use crate::harness::frames::SETTINGS;
use crate::harness::frames::block;
use crate::harness::frames::frame;
use crate::harness::origin2::Call;

fn edge(address: impl std::fmt::Display, more: &str) -> Edge {
    Edge::with(&format!(
        "listeners: [{{name: http, address: \"127.0.0.1:0\"}}]\nupstreams:\n  origin:\n    \
         addresses: [\"{address}\"]\n    protocol: http2\n{more}\
         routes: [{{upstream: origin, cache: off}}]\n"
    ))
}

fn origin() -> Origin2 {
    Origin2::start(None, |mut call: Call| async move { call.respond(Response::new(()), "x") })
}

/// Waits until it is so.
#[track_caller]
fn until(told: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < PATIENCE, "not: {told}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn connections_of_http_2_are_counted_as_those_of_http_1() {
    let origin = origin();
    let edge = edge(origin.address, "");
    let mut wire = edge.wire();
    for _ in 0..3 {
        wire.get("edge.test", "/", &[]).expect_status(200).expect_body("x");
    }
    until("it is open and idle", || {
        edge.metric("edgeproxy_backend_pool_open") == 1.0
            && edge.metric("edgeproxy_backend_pool_idle") == 1.0
            && edge.metric("edgeproxy_backend_pool_in_use") == 0.0
    });
    assert_eq!(edge.metric("edgeproxy_backend_pool_created_total"), 1.0);
    assert_eq!(edge.metric("edgeproxy_backend_pool_reused_total"), 2.0);
    assert_eq!(origin.connections(), 1);
}

#[test]
fn connections_of_http_2_are_kept_ready_before_anybody_asks() {
    let origin = origin();
    let edge = edge(origin.address, "    pool: {warm: 2}\n");
    // Accepted is not ready: a request that comes in between makes its own.
    until("two are there", || edge.metric("edgeproxy_backend_pool_idle") == 2.0);
    edge.get("/").expect_status(200);
    assert_eq!(origin.connections(), 2);
}

#[test]
fn a_connection_of_http_2_carries_as_many_requests_as_it_may() {
    let origin = origin();
    let edge = edge(origin.address, "    pool: {max_requests: 2}\n");
    for _ in 0..6 {
        edge.get("/").expect_status(200).expect_body("x");
    }
    assert_eq!(origin.connections(), 3);
}

#[test]
fn a_connection_of_http_2_that_is_idle_for_too_long_is_closed() {
    let origin = origin();
    let edge = edge(origin.address, "    timeouts: {idle: 1s}\n");
    edge.get("/").expect_status(200);
    until("none is open", || edge.metric("edgeproxy_backend_pool_open") == 0.0);
    edge.get("/").expect_status(200);
    assert_eq!(origin.connections(), 2);
}

#[test]
fn a_connection_of_http_2_that_is_too_old_is_given_no_more_requests_though_it_is_never_idle() {
    let origin = origin();
    let edge = edge(origin.address, "    pool: {max_age: 1s}\n");
    let began = Instant::now();
    until("there is another one", || {
        edge.get("/").expect_status(200).expect_body("x");
        origin.connections() == 2
    });
    assert!(began.elapsed() >= Duration::from_secs(1), "it was not that old");
    until("the first one is closed", || edge.metric("edgeproxy_backend_pool_open") <= 1.0);
    assert!(edge.metric("edgeproxy_backend_pool_reused_total") > 1.0);
}

#[test]
fn a_connection_whose_origin_leaves_finishes_its_streams_and_is_given_no_new_ones() {
    let gate = Arc::new((Mutex::new(false), Condvar::new()));
    let opened = Arc::clone(&gate);
    let origin = RawOrigin2::start(move |to, stream| {
        let head = block(&[(":status", "200")]);
        let mut say = |kind, flags, stream, payload: &[u8]| {
            to.write_all(&frame(kind, flags, stream, payload)).is_ok()
        };
        say(HEADERS, END_HEADERS, stream, &head);
        say(DATA, 0, stream, b"begun, ");
        // This stream is the last one that it looks at.
        let last = stream.to_be_bytes();
        say(GOAWAY, 0, 0, &[&last[..], &[0, 0, 0, 0]].concat());
        let (open, changed) = &*opened;
        let open = changed.wait_while(open.lock().unwrap(), |open| !*open).unwrap();
        drop(open);
        say(DATA, END_STREAM, stream, b"ended")
    });
    // Those that are left count, but where there is no other one it is made.
    let edge = edge(origin.address, "    pool: {max_connections: 1}\n");
    let mut clients: Vec<_> = (0..3).map(|_| edge.wire()).collect();
    for (n, client) in (1..).zip(&mut clients) {
        client.send("GET / HTTP/1.1\r\nHost: edge.test\r\n\r\n");
        assert!(client.has_reply(PATIENCE));
        // It has been heard that the origin leaves.
        until("a connection of its own", || origin.connections() == n);
    }
    *gate.0.lock().unwrap() = true;
    gate.1.notify_all();
    for client in &mut clients {
        client.reply().expect_status(200).expect_body("begun, ended");
    }
    until("all are closed", || edge.metric("edgeproxy_backend_pool_open") == 0.0);
}

#[test]
fn a_connection_that_is_left_counts_for_as_long_as_it_is_open() {
    let held = Arc::new(Mutex::new(Vec::new()));
    let begun = Arc::clone(&held);
    // Begins all answers, and leaves the first connection.
    let origin = RawOrigin2::with(&allowing(2), move |to, stream| {
        let mut begun = begun.lock().unwrap();
        let stays = !begun.is_empty() || say_goaway(to, stream, 0);
        begun.push((to.try_clone().unwrap(), stream));
        let head = frame(HEADERS, END_HEADERS, stream, &block(&[(":status", "200")]));
        stays && to.write_all(&[head, frame(DATA, 0, stream, b"begun, ")].concat()).is_ok()
    });
    let edge = edge(origin.address, "    pool: {max_connections: 2}\n");
    let end = |n: usize| {
        let (to, stream) = &mut held.lock().unwrap()[n];
        to.write_all(&frame(DATA, END_STREAM, *stream, b"ended")).unwrap();
    };
    let mut clients: Vec<_> = (0..4).map(|_| edge.wire()).collect();
    for (n, client) in clients.iter_mut().enumerate() {
        client.send("GET / HTTP/1.1\r\nHost: edge.test\r\n\r\n");
        // One on the first connection, two on the second, and no room for the last.
        if n < 3 {
            assert!(client.has_reply(PATIENCE), "{n}");
        }
    }
    until("all are let in", || edge.metric("edgeproxy_backend_pool_in_use") == 4.0);
    let may_begin = clients[3].has_reply(Duration::from_millis(300));
    assert!(!may_begin && origin.connections() == 2);
    assert_eq!(edge.metric("edgeproxy_backend_pool_open"), 2.0);
    end(0);
    clients[0].reply().expect_status(200).expect_body("begun, ended");
    assert!(clients[3].has_reply(PATIENCE));
    assert_eq!(origin.connections(), 3);
    assert_eq!(edge.metric("edgeproxy_backend_pool_open"), 2.0);
    for (n, client) in clients.iter_mut().enumerate().skip(1) {
        end(n);
        client.reply().expect_status(200).expect_body("begun, ended");
    }
}

#[test]
fn an_origin_that_takes_no_further_connection_serves_all_on_those_that_it_has() {
    let gate = Arc::new((Mutex::new(false), Condvar::new()));
    let opened = Arc::clone(&gate);
    let origin = RawOrigin2::taking(1, &allowing(1), move |to, stream| {
        let (open, changed) = &*opened;
        drop(changed.wait_while(open.lock().unwrap(), |open| !*open).unwrap());
        respond(to, stream)
    });
    let edge = edge(origin.address, "    retry: off\n");
    let mut clients: Vec<_> = (0..4).map(|_| edge.wire()).collect();
    for client in &mut clients {
        client.send("GET / HTTP/1.1\r\nHost: edge.test\r\n\r\n");
    }
    until("another connection was tried", || {
        edge.metric("edgeproxy_backend_pool_failed_total") >= 1.0
    });
    *gate.0.lock().unwrap() = true;
    gate.1.notify_all();
    for client in &mut clients {
        client.reply().expect_status(200).expect_body("x");
    }
    // Nobody failed, so nothing is held against the backend.
    assert_eq!(edge.metric("edgeproxy_backend_failures_total"), 0.0);
    until("one is open", || edge.metric("edgeproxy_backend_pool_open") == 1.0);
}

#[test]
fn who_waits_for_a_stream_has_it_as_soon_as_the_origin_allows_more() {
    let wires = Arc::new(Mutex::new(None));
    let kept = Arc::clone(&wires);
    let origin = RawOrigin2::with(&allowing(1), move |to, stream| match stream {
        1 => {
            *kept.lock().unwrap() = to.try_clone().ok();
            true
        }
        // Only now the first one is answered, too.
        3 => respond(to, 3) && respond(to, 1),
        5 => to.write_all(&frame(SETTINGS, 0, 0, &allowing(0))).is_ok() && respond(to, 5),
        _ => respond(to, stream),
    });
    let edge = edge(origin.address, "    pool: {max_connections: 1}\n");
    let allow = |streams| {
        let mut wire = wires.lock().unwrap();
        let wire = wire.as_mut().expect("a connection");
        wire.write_all(&frame(SETTINGS, 0, 0, &allowing(streams))).unwrap();
    };
    let ask = "GET / HTTP/1.1\r\nHost: edge.test\r\n\r\n";
    let (mut one, mut two) = (edge.wire(), edge.wire());
    one.send(ask);
    until("the first is there", || wires.lock().unwrap().is_some());
    // Among those for whom there is no place.
    two.send(ask);
    until("the second waits", || edge.metric("edgeproxy_backend_pool_queued") == 1.0);
    allow(2);
    two.reply().expect_status(200);
    one.reply().expect_status(200);
    // Where none is allowed for a while, too.
    one.send(ask);
    one.reply().expect_status(200);
    two.send(ask);
    until("it waits", || edge.metric("edgeproxy_backend_pool_in_use") == 1.0);
    allow(1);
    two.reply().expect_status(200);
    assert_eq!(origin.connections(), 1);
}

/// The setting of so many streams at once (RFC 9113 §6.5.2).
fn allowing(streams: u8) -> [u8; 6] {
    [0, 3, 0, 0, 0, streams]
}

fn respond(to: &mut TcpStream, stream: u32) -> bool {
    let head = frame(HEADERS, END_HEADERS, stream, &block(&[(":status", "200")]));
    to.write_all(&[head, frame(DATA, END_STREAM, stream, b"x")].concat()).is_ok()
}

#[test]
fn an_origin_that_agrees_to_http_1_only_is_not_asked_in_http_2() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let server = authority.server(&["origin.test"], &["http/1.1"]);
    let origin = Origin2::start(Some(server), |mut call: Call| async move {
        call.respond(Response::new(()), "x");
    });
    let edge = edge(
        origin.address,
        &format!(
            "    tls: {{ca: {}, server_name: origin.test}}\n",
            authority.write(folder.path()).display()
        ),
    );
    edge.get("/").expect_status(502);
    edge.wait_for_metric("edgeproxy_refusals_total{reason=\"origin_tls\"}", 1.0);
    assert!(origin.seen().is_empty());
}

#[test]
fn a_reload_keeps_the_connections_of_http_2() {
    let origin = origin();
    let config = |name: &str| {
        format!(
            "listeners: [{{name: http, address: \"127.0.0.1:0\"}}]\nupstreams:\n  origin:\n    \
             addresses: [\"{}\"]\n    protocol: http2\n\
             routes: [{{name: {name}, upstream: origin, cache: off}}]\n",
            origin.address
        )
    };
    let edge = Edge::with(&config("one"));
    edge.get("/").expect_status(200);
    edge.write(&config("two")).reload().expect_status(200);
    edge.get("/").expect_status(200);
    assert_eq!(origin.connections(), 1);
}

#[test]
fn a_client_that_does_not_read_holds_up_its_own_stream_alone() {
    // More than all windows and buffers on the way.
    let origin = Origin2::start(None, |mut call: Call| async move {
        if call.head.uri.path() == "/small" {
            return call.respond(Response::new(()), "x");
        }
        let mut stream = call.answer.send_response(Response::new(()), false).unwrap();
        let mut left = 64 << 20;
        while left > 0 {
            stream.reserve_capacity(1 << 16);
            let Some(Ok(room)) = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await else {
                return;
            };
            let part = Bytes::from(vec![b'x'; room.min(left)]);
            left -= part.len();
            if stream.send_data(part, left == 0).is_err() {
                return;
            }
        }
    });
    let edge = edge(origin.address, "");
    let mut lazy = edge.wire();
    lazy.send("GET /large HTTP/1.1\r\nHost: edge.test\r\n\r\n");
    assert!(lazy.has_reply(PATIENCE));
    for _ in 0..20 {
        edge.get("/small").expect_status(200).expect_body("x");
    }
    assert_eq!(origin.connections(), 1);
}

/// Answers the first `most` requests of each connection, says with the last one that it looks at no further ones, and
/// keeps quiet about those. How many of them there were, it counts.
fn leaving_after(most: u32, late: &Arc<AtomicUsize>) -> RawOrigin2 {
    let late = Arc::clone(late);
    RawOrigin2::start(move |to, stream| {
        let last = 2 * most - 1;
        if stream > last {
            late.fetch_add(1, Ordering::SeqCst);
            return true;
        }
        respond(to, stream) && (stream < last || say_goaway(to, last, 0))
    })
}

/// This stream is the last one that it looks at, for this reason.
fn say_goaway(to: &mut TcpStream, last: u32, reason: u8) -> bool {
    let payload = [&last.to_be_bytes()[..], &[0, 0, 0, reason]].concat();
    to.write_all(&frame(GOAWAY, 0, 0, &payload)).is_ok()
}

#[test]
fn no_client_suffers_from_an_origin_that_leaves_after_a_few_requests() {
    for (method, fields) in [("GET", &[][..]), ("GET", &[THE_LONG_WAY]), ("POST", &[])] {
        let late = Arc::new(AtomicUsize::new(0));
        let origin = leaving_after(12, &late);
        // The first ones wait for the only connection, and go together.
        let edge = edge(origin.address, "    retry: off\n    pool: {max_connections: 1}\n");
        std::thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| {
                    let mut wire = edge.wire();
                    for _ in 0..15 {
                        let reply = wire.request(method, "edge.test", "/", fields, b"");
                        reply.expect_status(200).expect_body("x");
                    }
                });
            }
        });
        assert!(late.load(Ordering::SeqCst) > 0, "{method}: nobody came too late");
        // It is held against nobody.
        for counted in ["edgeproxy_backend_failures_total", "edgeproxy_upstream_retries_total"] {
            assert_eq!(edge.metric(counted), 0.0, "{method} {counted}");
        }
    }
}

#[test]
fn an_origin_that_looks_at_nothing_is_left_in_the_end_and_charged_with_it() {
    // How often it is asked where a request is tried once, and how often that is its failure.
    for (told, reason, asked, failed) in [
        ("leaves", Some(0), 9, 1.0),
        ("leaves in anger", Some(11), 2, 2.0),
        ("refuses", None, 2, 2.0),
    ] {
        let origin = RawOrigin2::start(move |to, stream| match reason {
            Some(reason) => say_goaway(to, 0, reason),
            None => to.write_all(&frame(RESET, 0, stream, &[0, 0, 0, 7])).is_ok(),
        });
        let edge = edge(origin.address, "    retry: off\n");
        for (n, method) in (1..).zip(["GET", "POST"]) {
            let reply = edge.wire().request(method, "edge.test", "/", &[], b"");
            reply.expect_status(502);
            assert_eq!(origin.asked(), n * asked, "{told}, {method}");
        }
        assert_eq!(edge.metric("edgeproxy_backend_failures_total"), 2.0 * failed, "{told}");
    }
}

#[test]
fn who_waited_until_its_connection_was_found_lost_is_answered_by_another_backend() {
    // The second request on its connection, and whatever comes behind it, it does not even read.
    let gate = Gate::default();
    let wait = gate.clone();
    let well = |to: &mut TcpStream, stream: u32, body: &str| {
        let mut said = frame(HEADERS, END_HEADERS, stream, &block(&[(":status", "200")]));
        said.extend(frame(DATA, END_STREAM, stream, body.as_bytes()));
        to.write_all(&said).is_ok()
    };
    let asked = AtomicUsize::new(0);
    let lost = RawOrigin2::start(move |to, stream| {
        if asked.fetch_add(1, Ordering::SeqCst) > 0 {
            wait.pass();
        }
        well(to, stream, "lost")
    });
    let other = RawOrigin2::start(move |to, stream| well(to, stream, "other"));
    let edge = Edge::with(&format!(
        "listeners: [{{name: http, address: \"127.0.0.1:0\"}}]\nupstreams:\n  origin:\n    \
         addresses: [\"{}\", \"{}\"]\n    protocol: http2\n    health: off\n    {}\n\
         routes: [{{upstream: origin, cache: off}}]\n",
        lost.address,
        other.address,
        timeouts(None)
    ));
    let mut bodies: Vec<_> = (0..2).map(|_| edge.get("/").expect_status(200).text()).collect();
    bodies.sort();
    assert_eq!(bodies, ["lost", "other"]);
    while lost.asked() < 2 {
        edge.get("/").expect_status(200).expect_body("other");
    }
    assert_eq!(lost.connections(), 1, "it is not asked once more on another connection");
    gate.open();
}
