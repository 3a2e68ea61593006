//! The same of origins that speak HTTP/2: what is no whole answer is a failure, and is not stored.

use std::io::Write;
use std::net::TcpStream;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use http::Request;

use super::LATE;
use super::after;
use super::at_once;
use crate::harness::Edge;
use crate::harness::client::End;
use crate::harness::edge::timeouts;
use crate::harness::frames::DATA;
use crate::harness::frames::END_HEADERS;
use crate::harness::frames::END_STREAM;
use crate::harness::frames::GOAWAY;
use crate::harness::frames::HEADERS;
use crate::harness::frames::RESET;
use crate::harness::frames::RawOrigin2;
use crate::harness::frames::block;
use crate::harness::frames::frame;
use crate::harness::http2;

/// The code of a stream that was not looked at (RFC 9113 §7).
const REFUSED_STREAM: u8 = 7;

fn in_front_of(origin: &RawOrigin2, more: &str) -> Edge {
    Edge::with(&format!(
        "listeners:\n  - {{name: http, address: \"127.0.0.1:0\", h2c: true}}\n\
         upstreams:\n  origin:\n    addresses: [\"{}\"]\n    breaker: off\n    protocol: http2\n    \
         timeouts: {{read: 30s}}\nroutes:\n  - {{upstream: origin}}\n\
         access_log: {{to: stdout, format: json}}\n{more}\n",
        origin.address
    ))
}

/// A frame of the answer; its stream is known when it is asked for.
#[derive(Debug, Clone)]
struct Part {
    kind: u8,
    flags: u8,
    payload: Vec<u8>,
}

fn part(kind: u8, flags: u8, payload: &[u8]) -> Part {
    Part { kind, flags, payload: payload.to_vec() }
}

/// A header that makes everything behind it storable.
fn head(more: &[(&str, &str)]) -> Part {
    let fields = [&[(":status", "200"), ("cache-control", "max-age=60")], more].concat();
    part(HEADERS, END_HEADERS, &block(&fields))
}

fn interim(status: &str) -> Part {
    part(HEADERS, END_HEADERS, &block(&[(":status", status)]))
}

fn data(text: &str) -> Part {
    part(DATA, 0, text.as_bytes())
}

fn last(text: &str) -> Part {
    part(DATA, END_STREAM, text.as_bytes())
}

fn reset(code: u8) -> Part {
    part(RESET, 0, &[0, 0, 0, code])
}

fn write(to: &mut TcpStream, stream: u32, parts: &[Part]) -> bool {
    parts.iter().all(|part| {
        let stream = if part.kind == GOAWAY { 0 } else { stream };
        to.write_all(&frame(part.kind, part.flags, stream, &part.payload)).is_ok()
    })
}

/// Asks for what is answered so, over both versions: the client never gets it as a whole answer, and the
/// origin is asked each time.
#[track_caller]
fn is_a_failure(told: &str, parts: &[Part], then_closes: bool) {
    let answer = parts.to_vec();
    let origin = RawOrigin2::start(move |to, stream| write(to, stream, &answer) && !then_closes);
    let edge = in_front_of(&origin, "");
    let mut asked = 0;
    for (method, target) in [("GET", "/a"), ("GET", "/a"), ("POST", "/b")] {
        let mut wire = edge.wire();
        wire.send(format!(
            "{method} {target} HTTP/1.1\r\nHost: edge.test\r\nContent-Length: 0\r\n\r\n"
        ));
        let final_one =
            std::iter::from_fn(|| wire.any_reply(method)).find(|reply| reply.status > 199);
        if let Some(reply) = final_one {
            let failed = [502, 504].contains(&reply.status) && !reply.text().contains("body");
            assert!(failed || reply.end == End::Cut, "{told}: {method} {reply:?}");
        }
        assert!(origin.asked() > asked, "{told}: {method} was answered from the store");
        asked = origin.asked();
    }
    let whole = http2::run(async {
        let mut client = http2::plain(edge.address("http")).await;
        http2::get(&mut client, "http://edge.test/a", &[]).await
    });
    if let Ok(reply) = whole {
        assert!([502, 504].contains(&reply.status), "{told}: {reply:?}");
    }
    assert!(origin.asked() > asked, "{told}: it was answered from the store");
}

#[test]
fn a_length_that_is_not_kept_is_a_failure() {
    for (told, parts) in [
        ("less", vec![head(&[("content-length", "10")]), last("body")]),
        (
            "less, with trailers",
            vec![
                head(&[("content-length", "10")]),
                data("body"),
                part(HEADERS, END_HEADERS | END_STREAM, &block(&[("x", "y")])),
            ],
        ),
        ("more", vec![head(&[("content-length", "3")]), last("body")]),
        ("two", vec![head(&[("content-length", "4"), ("content-length", "5")]), last("body")]),
        ("a list", vec![head(&[("content-length", "4, 5")]), last("body")]),
        ("none", vec![head(&[("content-length", "x")]), last("body")]),
        ("negative", vec![head(&[("content-length", "-4")]), last("body")]),
        ("signed", vec![head(&[("content-length", "+4")]), last("body")]),
        (
            "nothing of it",
            vec![part(
                HEADERS,
                END_HEADERS | END_STREAM,
                &block(&[
                    (":status", "200"),
                    ("cache-control", "max-age=60"),
                    ("content-length", "4"),
                ]),
            )],
        ),
    ] {
        is_a_failure(told, &parts, false);
    }
}

#[test]
fn fields_of_one_hop_and_malformed_ones_are_a_failure() {
    for field in [
        ("connection", "close"),
        ("connection", "x"),
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "close"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "h2c"),
        ("X-Upper", "a"),
        ("x y", "a"),
        (":path", "/"),
        (":evil", "a"),
        (":status", "201"),
        ("x", "a\r\nb: c"),
        ("x", " a"),
        ("content-length", "4, 4"),
    ] {
        is_a_failure(&format!("{field:?}"), &[head(&[field]), last("body")], false);
    }
    let many = vec![("x", "a"); 300];
    is_a_failure("300 fields", &[head(&many), last("body")], false);
    let twice = [("content-length", "4"), ("content-length", "4")];
    is_a_failure("two lengths", &[head(&twice), last("body")], false);
    for status in ["", "20", "2000", "abc", "099", "+20", "600", "999"] {
        let head = part(HEADERS, END_HEADERS, &block(&[(":status", status)]));
        is_a_failure(&format!("{status:?}"), &[head, last("body")], false);
    }
    let without = part(HEADERS, END_HEADERS, &block(&[("cache-control", "max-age=60")]));
    is_a_failure("no status", &[without, last("body")], false);
    is_a_failure("no header", &[last("body")], false);
}

#[test]
fn a_stream_that_ends_before_its_end_is_a_failure() {
    for code in 0..=13 {
        let told = format!("reset with {code}");
        is_a_failure(&told, &[reset(code)], false);
        is_a_failure(&told, &[head(&[]), reset(code)], false);
        is_a_failure(&told, &[head(&[]), data("body"), reset(code)], false);
        is_a_failure(&told, &[head(&[("content-length", "10")]), data("body"), reset(code)], false);
    }
    is_a_failure("closed", &[head(&[]), data("body")], true);
    let goaway = part(GOAWAY, 0, &[0, 0, 0, 1, 0, 0, 0, 0]);
    is_a_failure("goaway", &[head(&[]), data("body"), goaway], true);
}

#[test]
fn a_101_opens_nothing_and_interim_responses_without_end_are_a_failure() {
    let last_interim =
        |status| part(HEADERS, END_HEADERS | END_STREAM, &block(&[(":status", status)]));
    is_a_failure("101 and no more", &[last_interim("101")], false);
    is_a_failure("101 and the end", &[interim("101"), data("body")], true);
    is_a_failure("103 and no more", &[last_interim("103")], false);

    // HTTP/2 has no 101; the library passes it over like every interim response, and what is answered
    // then is the answer.
    let origin = RawOrigin2::start(|to, stream| {
        write(to, stream, &[interim("101"), head(&[]), last("body")])
    });
    let edge = in_front_of(&origin, "");
    edge.get_with("/a", &[("Connection", "Upgrade"), ("Upgrade", "websocket")]);
    edge.get("/b").expect_status(200).expect_body("body");

    let origin = RawOrigin2::start(|to, stream| {
        loop {
            if !write(to, stream, &[interim("103")]) {
                return false;
            }
        }
    });
    let edge = in_front_of(&origin, "");
    for _ in 0..2 {
        edge.get("/a").expect_status(502);
    }
}

#[test]
fn content_of_an_answer_that_has_none_is_a_failure_and_reaches_nobody() {
    let head =
        part(HEADERS, END_HEADERS, &block(&[(":status", "204"), ("cache-control", "max-age=60")]));
    let with_content = [
        vec![head.clone(), last("body")],
        vec![head.clone(), data("bo"), data("dy"), last("")],
        vec![head.clone(), data(""), last("body")],
    ];
    for parts in with_content {
        let origin = RawOrigin2::start(move |to, stream| write(to, stream, &parts));
        let edge = in_front_of(&origin, "");
        for asked in 1..=2 {
            edge.get("/a").expect_status(502);
            assert_eq!(origin.asked(), asked, "it was stored");
        }
        let reply = http2::run(async {
            let mut client = http2::plain(edge.address("http")).await;
            http2::get(&mut client, "http://edge.test/a", &[]).await.unwrap()
        });
        assert_eq!(reply.status, 502);
    }
    // An end that comes by itself is no content.
    let parts = vec![head, last("")];
    let origin = RawOrigin2::start(move |to, stream| write(to, stream, &parts));
    in_front_of(&origin, "").get("/a").expect_status(204).expect_body("");
}

#[test]
fn the_time_of_a_route_bounds_the_whole_exchange() {
    // A byte every now and then; and nothing any more after the first ones.
    for drips in [true, false] {
        let origin = RawOrigin2::start(move |to, stream| {
            let mut more = write(to, stream, &[head(&[]), data("body")]);
            let began = Instant::now();
            while drips && more && began.elapsed() < 2 * LATE {
                std::thread::sleep(Duration::from_millis(50));
                more = write(to, stream, &[data("x")]);
            }
            more
        });
        for method in ["GET", "POST"] {
            let edge = in_front_of(&origin, "defaults: {timeout: 500ms}");
            let began = Instant::now();
            let mut wire = edge.wire();
            wire.send(format!(
                "{method} / HTTP/1.1\r\nHost: edge.test\r\nContent-Length: 0\r\n\r\n"
            ));
            let reply = wire.any_reply(method).expect("it was begun");
            assert_eq!((reply.status, reply.end), (200, End::Cut), "{drips} {method}: {reply:?}");
            after(Duration::from_millis(500), began, &format!("{drips} {method}"));
            edge.wait_for_metric("edgeproxy_refusals_total{reason=\"total_timeout\"}", 1.0);
        }
        assert_eq!(origin.asked(), 2, "{drips}");
    }
}

/// Does this to its first request, and answers all others.
fn once(deed: impl Fn(&mut TcpStream, u32) -> bool + Send + Sync + 'static) -> RawOrigin2 {
    let times = AtomicUsize::new(0);
    RawOrigin2::start(move |to, stream| match times.fetch_add(1, Ordering::SeqCst) {
        0 => deed(to, stream),
        _ => write(to, stream, &[head(&[("cache-control", "no-store")]), last("body")]),
    })
}

/// What comes of a request to it, and how often it was asked.
fn asked_of(origin: &RawOrigin2, method: &str) -> (u16, usize) {
    let edge = in_front_of(origin, "");
    let reply = edge.wire().request(method, "edge.test", "/a", &[], b"");
    (reply.status, origin.asked())
}

#[test]
fn what_the_origin_says_that_it_has_not_looked_at_is_said_again_whatever_the_method() {
    for method in ["GET", "POST"] {
        let refused = once(|to, stream| write(to, stream, &[reset(REFUSED_STREAM)]));
        assert_eq!(asked_of(&refused, method), (200, 2), "{method}");
        // The last stream that it looked at was none.
        let goaway = part(GOAWAY, 0, &[0, 0, 0, 0, 0, 0, 0, 0]);
        // It stays until we leave: closing over what it has not read would reset the connection, and take
        // what it said along.
        let leaving = once(move |to, stream| write(to, stream, std::slice::from_ref(&goaway)));
        assert_eq!(asked_of(&leaving, method), (200, 2), "{method}");
    }
}

/// SETTINGS_MAX_CONCURRENT_STREAMS of 0 (RFC 9113 §6.5.2).
const NO_STREAMS: &[u8] = &[0, 3, 0, 0, 0, 0];

#[test]
fn an_origin_that_allows_no_stream_is_left_for_another_one() {
    let none = RawOrigin2::with(NO_STREAMS, |_, _| true);
    let other = RawOrigin2::start(|to, stream| {
        write(to, stream, &[head(&[("cache-control", "no-store")]), last("body")])
    });
    let edge = |addresses: &str| {
        Edge::with(&format!(
            "listeners: [{{name: http, address: \"127.0.0.1:0\"}}]\nupstreams:\n  origin:\n    \
             addresses: [{addresses}]\n    breaker: off\n    protocol: http2\n    {}\n\
             routes: [{{upstream: origin}}]\n",
            timeouts(None)
        ))
    };
    let beside = edge(&format!("\"{}\", \"{}\"", none.address, other.address));
    for (n, method) in ["GET", "POST"].into_iter().cycle().take(6).enumerate() {
        let reply = beside.wire().request(method, "edge.test", &format!("/{n}"), &[], b"");
        reply.expect_status(200).expect_body("body");
    }
    let alone = edge(&format!("\"{}\"", none.address));
    let began = Instant::now();
    alone.get("/").expect_status(502);
    at_once(began, "no stream");
    assert_eq!(none.asked(), 0);
}

#[test]
fn a_post_that_the_origin_may_have_looked_at_is_said_once() {
    for code in (0..=13).filter(|code| *code != REFUSED_STREAM) {
        let origin = once(move |to, stream| write(to, stream, &[reset(code)]));
        assert_eq!(asked_of(&origin, "POST"), (502, 1), "reset with {code}");
    }
    let closing = once(|_, _| false);
    assert_eq!(asked_of(&closing, "POST"), (502, 1));
    // It looked at the first stream, which is this one.
    for reason in [0, 11] {
        let leaving = once(move |to, stream| {
            write(to, stream, &[part(GOAWAY, 0, &[0, 0, 0, 1, 0, 0, 0, reason])]);
            false
        });
        assert_eq!(asked_of(&leaving, "POST"), (502, 1), "GOAWAY with {reason}");
    }
}

#[test]
fn an_attempt_has_its_time_to_the_header_alone_and_the_body_its_own() {
    // The body comes long after the time that the attempt has for its header.
    let origin = RawOrigin2::start(|to, stream| {
        let begun = write(to, stream, &[head(&[("cache-control", "no-store")]), data("slow ")]);
        std::thread::sleep(Duration::from_millis(700));
        begun && write(to, stream, &[last("body")])
    });
    let edge = |more: &str| {
        Edge::with(&format!(
            "listeners: [{{name: http, address: \"127.0.0.1:0\"}}]\nupstreams:\n  origin:\n    \
             addresses: [\"{}\"]\n    protocol: http2\n{more}routes: [{{upstream: origin}}]\n",
            origin.address
        ))
    };
    for more in ["    retry: {per_try: 300ms}\n", "    timeouts: {read: 10s, total: 300ms}\n"] {
        for method in ["GET", "POST"] {
            let reply = edge(more).wire().request(method, "edge.test", "/", &[], b"");
            reply.expect_status(200).expect_body("slow body");
        }
    }
}

#[test]
fn an_attempt_that_takes_too_long_to_its_header_is_followed_by_another() {
    let silent = RawOrigin2::start(|_, _| true);
    let other = RawOrigin2::start(|to, stream| {
        write(to, stream, &[head(&[("cache-control", "no-store")]), last("body")])
    });
    let edge = Edge::with(&format!(
        "listeners: [{{name: http, address: \"127.0.0.1:0\"}}]\nupstreams:\n  origin:\n    \
         addresses: [\"{}\", \"{}\"]\n    breaker: off\n    protocol: http2\n    \
         retry: {{per_try: 300ms}}\n    timeouts: {{read: 1m, write: 1m, total: 1m}}\n\
         routes: [{{upstream: origin}}]\n",
        silent.address, other.address,
    ));
    let mut slow = 0;
    for n in 0..4 {
        let began = Instant::now();
        edge.get(&format!("/{n}")).expect_status(200).expect_body("body");
        at_once(began, "the other deadlines are far away");
        slow += usize::from(began.elapsed() >= Duration::from_millis(300));
    }
    let silent = silent.asked();
    assert!(silent > 0 && slow >= silent, "{slow} took their time, {silent} met nobody");
}

#[test]
fn fewer_streams_than_are_wanted_are_waited_for() {
    // Two at once, each of which takes its time.
    let origin = RawOrigin2::with(&[0, 3, 0, 0, 0, 2], |to, stream| {
        std::thread::sleep(Duration::from_millis(20));
        write(to, stream, &[head(&[("cache-control", "no-store")]), last("body")])
    });
    let edge = Edge::with(&format!(
        "listeners: [{{name: http, address: \"127.0.0.1:0\"}}]\nupstreams:\n  origin:\n    \
         addresses: [\"{}\"]\n    protocol: http2\n    pool: {{max_connections: 1}}\n\
         routes: [{{upstream: origin, cache: off}}]\n",
        origin.address
    ));
    let mut clients: Vec<_> = (0..12).map(|_| edge.wire()).collect();
    for client in &mut clients {
        client.send("GET / HTTP/1.1\r\nHost: edge.test\r\n\r\n");
    }
    for client in &mut clients {
        client.reply().expect_status(200).expect_body("body");
    }
    assert_eq!((origin.asked(), origin.connections()), (12, 1));
}

#[test]
fn an_answer_before_the_body_was_read_reaches_the_client_and_ends_the_upload() {
    // NO_ERROR: it has answered and wants no more (RFC 9113 §8.1).
    let origin = RawOrigin2::start(|to, stream| {
        write(to, stream, &[head(&[("content-length", "4")]), last("full"), reset(0)])
    });
    let edge = in_front_of(&origin, "");
    http2::run(async {
        let client = http2::plain(edge.address("http")).await;
        let request = Request::post("http://edge.test/a").body(()).unwrap();
        let (response, mut sending) =
            client.ready().await.unwrap().send_request(request, false).unwrap();
        // More than is spooled.
        sending.send_data(vec![b'x'; 100_000].into(), false).unwrap();
        let mut response = response.await.unwrap();
        assert_eq!(response.status(), 200);
        let body = response.body_mut().data().await.unwrap().unwrap();
        assert_eq!(body, "full");
        // What it sends on nobody reads; it is told so, or may end it.
        let _ = sending.send_data(vec![b'x'; 10_000].into(), false);
        let ended = std::future::poll_fn(|cx| sending.poll_reset(cx)).await;
        assert_eq!(ended.unwrap(), h2::Reason::NO_ERROR);
    });
    let line = edge.wait_for_access("\"/a\"");
    assert!(line.contains("\"status\":200") && !line.contains("refusal"), "{line}");
    assert_eq!(edge.metric("edgeproxy_upstream_errors_total"), 0.0);
}
