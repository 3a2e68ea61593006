//! Whose time it is: what a client does while it sends, or reads, is held against no origin; and what an origin says
//! ahead of its answer gives it no more of it.

use std::io::Read;
use std::io::Write;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::thread::sleep;
use std::time::Duration;
use std::time::Instant;

use http::Response;

use super::LATE;
use super::after;
use super::through::THE_LONG_WAY;
use crate::harness::Edge;
use crate::harness::Origin;
use crate::harness::client::End;
use crate::harness::http2;
use crate::harness::ok;
use crate::harness::origin2::Origin2;

/// A hundredth of a slow upload.
const PART: [u8; 1000] = [b'x'; 1000];

/// One backend, whose breaker opens with its first failure.
fn in_front_of(origin: SocketAddr, protocol: &str, settings: &str, route: &str) -> Edge {
    Edge::with(&format!(
        "listeners: [{{name: http, address: \"127.0.0.1:0\", h2c: true}}]\n\
         upstreams:\n  app:\n    addresses: [\"{origin}\"]\n    protocol: {protocol}\n    health: off\n    \
         breaker: {{failures: 1, counts: [connect, timeout, closed, malformed]}}\n    {settings}\n\
         routes: [{{upstream: app{route}}}]\n"
    ))
}

/// An origin of each version that reads what it is sent, and then answers.
fn well() -> (Origin, Origin2) {
    let two = Origin2::start(None, |mut call| async move {
        call.whole().await;
        call.respond(Response::new(()), "well");
    });
    (Origin::always(ok("well")), two)
}

/// Nothing is held against the backend, and nothing is left of what was asked.
#[track_caller]
fn expect_no_failure(edge: &Edge, told: &str) {
    edge.wait_for_gauge("edgeproxy_backend_pool_in_use{", 0.0);
    assert_eq!(edge.metric("edgeproxy_backend_breaker_opened_total{"), 0.0, "{told}");
    edge.get("/after").expect_status(200).expect_body("well");
}

#[test]
fn a_client_that_sends_slowly_takes_none_of_the_origins_time() {
    let (one, two) = well();
    for (told, settings) in [
        ("all attempts", "timeouts: {total: 300ms, read: 10s, write: 10s}"),
        ("one attempt", "retry: {per_try: 300ms}"),
        // Longer than the client pauses by far.
        ("one read", "timeouts: {read: 1s}"),
    ] {
        for (protocol, address) in [("http1", one.address), ("http2", two.address)] {
            for front in [10, 60] {
                let edge = in_front_of(address, protocol, settings, "");
                let mut wire = edge.wire();
                wire.send("POST /a HTTP/1.1\r\nHost: edge.test\r\nContent-Length: 100000\r\n\r\n");
                wire.send(PART.repeat(front));
                for part in front..100 {
                    if part % 8 == 0 {
                        sleep(Duration::from_millis(150));
                    }
                    wire.send(PART);
                }
                wire.reply_to("POST").expect_status(200).expect_body("well");
                expect_no_failure(&edge, &format!("{told}, {protocol}"));
            }
        }
    }
}

#[test]
fn a_client_of_http_2_that_sends_slowly_takes_none_of_it_either() {
    let (one, two) = well();
    for (protocol, address) in [("http1", one.address), ("http2", two.address)] {
        let edge =
            in_front_of(address, protocol, "timeouts: {total: 300ms, read: 10s, write: 10s}", "");
        http2::run(async {
            let mut client = http2::plain(edge.address("http")).await;
            let request = http::Request::post("http://edge.test/a").body(()).expect("a good head");
            let (answer, mut body) = client.send_request(request, false).expect("a stream");
            body.send_data(PART.repeat(60).into(), false).expect("the stream is open");
            for _ in 0..8 {
                tokio::time::sleep(Duration::from_millis(100)).await;
                body.send_data(PART.to_vec().into(), false).expect("the stream is open");
            }
            body.send_data(PART.to_vec().into(), true).expect("the stream is open");
            assert_eq!(answer.await.expect("an answer").status(), 200, "{protocol}");
        });
        expect_no_failure(&edge, protocol);
    }
}

#[test]
fn the_time_of_a_route_goes_for_what_comes_of_a_body() {
    let (one, two) = well();
    for (protocol, address) in [("http1", one.address), ("http2", two.address)] {
        for route in [", timeout: 300ms", ", timeout: 300ms, cache: off"] {
            // Before an origin is asked, and after that.
            for front in [10, 60] {
                let edge = in_front_of(address, protocol, "", route);
                let began = Instant::now();
                let mut wire = edge.wire();
                wire.send("POST /a HTTP/1.1\r\nHost: edge.test\r\nContent-Length: 100000\r\n\r\n");
                wire.send(PART.repeat(front));
                wire.reply_to("POST").expect_status(408);
                assert!(began.elapsed() < LATE, "{protocol}");
                edge.wait_for_metric("edgeproxy_refusals_total{reason=\"body_timeout\"}", 1.0);
                expect_no_failure(&edge, protocol);
            }
        }
    }
}

#[test]
fn what_calls_itself_grpc_is_an_upload_where_the_origin_speaks_http_1() {
    let (one, _) = well();
    let edge = in_front_of(one.address, "http1", "pool: {max_connections: 2, queue: 0}", "");
    let grpc = "POST /a HTTP/1.1\r\nHost: edge.test\r\nContent-Type: application/grpc\r\n\
                Content-Length: 10000\r\n\r\n";
    let mut waiting: Vec<_> = (0..4).map(|_| edge.wire()).collect();
    for wire in &mut waiting {
        wire.send(grpc);
        wire.send(PART);
    }
    // They are waited for without a connection.
    expect_no_failure(&edge, "grpc");
    for wire in &mut waiting {
        wire.send(PART.repeat(9));
        wire.reply_to("POST").expect_status(200);
    }
    assert_eq!(one.seen().len(), 5);
}

#[test]
fn a_body_that_turns_out_too_large_is_refused_at_once_whatever_the_origin_speaks() {
    let (one, two) = well();
    for (protocol, address) in [("http1", one.address), ("http2", two.address)] {
        let edge = in_front_of(address, protocol, "", ", max_body: 80KB");
        let began = Instant::now();
        let mut wire = edge.wire();
        wire.send("POST /a HTTP/1.1\r\nHost: edge.test\r\nTransfer-Encoding: chunked\r\n\r\n");
        for _ in 0..9 {
            wire.send([&b"2710\r\n"[..], &PART.repeat(10), b"\r\n"].concat());
        }
        wire.reply_to("POST").expect_status(413);
        assert!(began.elapsed() < LATE, "{protocol}");
        expect_no_failure(&edge, protocol);
    }
}

/// Says until nobody listens that an answer will come, less often than is too often.
fn promises(stream: &mut TcpStream) {
    while stream.write_all(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n").is_ok() {
        sleep(Duration::from_millis(100));
    }
}

#[test]
fn an_interim_response_gives_an_origin_no_more_time() {
    let one = Origin::script().take_over("/a", |_, mut stream| promises(&mut stream)).start();
    let two = Origin2::start(None, |mut call| async move {
        let hint = || Response::builder().status(103).body(()).expect("a good head");
        while call.answer.send_informational(hint()).is_ok() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    let least = Duration::from_millis(400);
    for settings in ["timeouts: {read: 1m, total: 400ms}", "retry: {per_try: 400ms}"] {
        for (protocol, address) in [("http1", one.address), ("http2", two.address)] {
            for fields in [&[][..], &[THE_LONG_WAY]] {
                let edge = in_front_of(address, protocol, settings, ", cache: off");
                let began = Instant::now();
                let mut wire = edge.wire();
                wire.ask("GET", "edge.test", "/a", fields, b"");
                let answer =
                    std::iter::from_fn(|| wire.any_reply("GET")).find(|reply| reply.status > 199);
                // Not 502, for too many of them.
                answer.expect("an answer").expect_status(504);
                after(least, began, &format!("{settings}, {protocol}, {fields:?}"));
            }
        }
    }
}

#[test]
fn a_body_stalls_for_no_longer_than_all_may_take_unless_more_is_asked_for() {
    let origin = Origin::script()
        .take_over("/a", |_, mut stream| {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nbody");
            // Until it is cut off.
            let _ = stream.read_to_end(&mut Vec::new());
        })
        .start();
    for route in ["", ", cache: off"] {
        let edge = in_front_of(origin.address, "http1", "timeouts: {total: 500ms}", route);
        let began = Instant::now();
        let reply = edge.get("/a");
        assert_eq!((reply.status, reply.end), (200, End::Cut), "{reply:?}");
        // The 30 seconds of an origin of which nobody says anything are far away.
        assert!(began.elapsed() < LATE);
        edge.wait_for_metric("edgeproxy_refusals_total{reason=\"origin_timeout\"}", 1.0);
    }
}

#[test]
fn an_answer_that_ends_with_its_head_is_none_while_nothing_of_it_was_passed_on() {
    let broken = Origin2::start(None, |mut call| async move {
        let head = Response::builder().header("content-length", "100").body(());
        let head = head.expect("a good head");
        let mut stream = call.answer.send_response(head, false).expect("the stream is open");
        stream.send_reset(h2::Reason::INTERNAL_ERROR);
    });
    let edge = in_front_of(broken.address, "http2", "", ", cache: off");
    let reply = edge.get("/a");
    assert_eq!((reply.status, reply.end), (502, End::Whole), "{reply:?}");
    http2::run(async {
        let mut client = http2::plain(edge.address("http")).await;
        let reply = http2::get(&mut client, "http://edge.test/a", &[]).await.expect("an answer");
        assert_eq!(reply.status, 503, "the breaker is open by now");
    });
}

#[test]
fn a_client_that_reads_slowly_until_its_time_is_over_is_held_against_no_origin() {
    let one = Origin::script()
        .take_over("/a", |_, mut stream| {
            let head = b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n";
            let mut more = stream.write_all(head).is_ok();
            while more {
                more = stream.write_all(&PART).is_ok();
            }
        })
        .otherwise(|_| ok("well"))
        .start();
    for route in [", timeout: 400ms", ", timeout: 400ms, cache: off"] {
        let edge = in_front_of(one.address, "http1", "", route);
        let mut wire = edge.wire();
        wire.send("GET /a HTTP/1.1\r\nHost: edge.test\r\n\r\n");
        let began = Instant::now();
        while wire.read_raw(100_000).len() == 100_000 {
            assert!(began.elapsed() < LATE);
            sleep(Duration::from_millis(20));
        }
        edge.wait_for_metric("edgeproxy_refusals_total{reason=\"total_timeout\"}", 1.0);
        expect_no_failure(&edge, route);
    }
}
