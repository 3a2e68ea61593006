//! What an origin does wrong at one stage after the other: what the client sees, by when, and that nothing is said
//! twice that may have been acted upon.

use std::io::Read;
use std::io::Write;
use std::net::TcpListener;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::mpsc;
use std::time::Duration;
use std::time::Instant;

use super::after;
use super::at_once;
use super::head;
use super::patient;
use super::quick;
use crate::harness::Edge;
use crate::harness::Origin;
use crate::harness::client::End;
use crate::harness::edge::NEAR;
use crate::harness::edge::simple;
use crate::harness::edge::timeouts;
use crate::harness::ok;

type Deed = fn(&mut TcpStream);

fn say(stream: &mut TcpStream, bytes: &[u8]) {
    let _ = stream.write_all(bytes);
}

/// Whatever was sent goes its way before.
fn reset(stream: &mut TcpStream) {
    std::thread::sleep(Duration::from_millis(20));
    socket2::SockRef::from(&*stream)
        .set_linger(Some(Duration::ZERO))
        .expect("an option can be set");
}

fn until_given_up(stream: &mut TcpStream) {
    let _ = stream.read_to_end(&mut Vec::new());
}

const BEGUN: &[u8] =
    b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 100\r\n\r\nhalf";

/// When the client hears of it.
#[derive(Clone, Copy)]
enum Heard {
    /// As soon as we can.
    AtOnce,
    /// When the time between two reads is over.
    AfterRead,
}

use Heard::AfterRead;
use Heard::AtOnce;

impl Heard {
    /// The deadline that has to pass, if any.
    fn deadline(self) -> Option<&'static str> {
        match self {
            AtOnce => None,
            AfterRead => Some("read"),
        }
    }

    #[track_caller]
    fn expect(self, began: Instant, told: &str) {
        match self {
            AtOnce => at_once(began, told),
            AfterRead => after(NEAR, began, told),
        }
    }
}

/// Each of them once the head of a request was read.
const FAULTS: [(&str, Heard, Deed); 11] = [
    ("closed before the header", AtOnce, |_| ()),
    ("reset before the header", AtOnce, reset),
    ("silent before the header", AfterRead, until_given_up),
    ("closed in the header", AtOnce, |stream| say(stream, b"HTTP/1.1 200 OK\r\nX")),
    ("reset in the header", AtOnce, |stream| {
        say(stream, b"HTTP/1.1 200 OK\r\nX");
        reset(stream);
    }),
    ("silent in the header", AfterRead, |stream| {
        say(stream, b"HTTP/1.1 200 OK\r\nX");
        until_given_up(stream);
    }),
    ("garbage", AtOnce, |stream| say(stream, b"garbage\r\n\r\n")),
    ("a huge header", AtOnce, |stream| {
        say(stream, format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(100_000)).as_bytes());
        until_given_up(stream);
    }),
    ("closed in the body", AtOnce, |stream| say(stream, BEGUN)),
    ("reset in the body", AtOnce, |stream| {
        say(stream, BEGUN);
        reset(stream);
    }),
    ("silent in the body", AfterRead, |stream| {
        say(stream, BEGUN);
        until_given_up(stream);
    }),
];

fn failing(deed: Deed) -> Origin {
    Origin::script().take_over("/a", move |_, mut stream| deed(&mut stream)).start()
}

/// Two that both fail so; only the deadline that has to pass is near.
fn before(one: &Origin, two: &Origin, heard: Heard, cache: &str) -> Edge {
    Edge::with(&format!(
        "listeners: [{{name: http, address: \"127.0.0.1:0\"}}]\n\
         upstreams:\n  app:\n    addresses: [\"{}\", \"{}\"]\n    health: off\n    breaker: off\n    {}\n\
         routes: [{{upstream: app, cache: {cache}}}]\n",
        one.address,
        two.address,
        timeouts(heard.deadline())
    ))
}

#[test]
fn a_post_is_said_once_whatever_goes_wrong_after_it_left() {
    for (told, heard, deed) in FAULTS {
        let (one, two) = (failing(deed), failing(deed));
        let edge = before(&one, &two, heard, "off");
        let began = Instant::now();
        let mut wire = edge.wire();
        wire.ask("POST", "edge.test", "/a", &[], b"pay 10");
        let reply = wire.any_reply("POST");
        let failed = reply.as_ref().is_none_or(|reply| {
            (reply.status == 502 || reply.status == 504) && reply.end == End::Whole
                || reply.status == 200 && reply.end == End::Cut
        });
        assert!(failed, "{told}: {reply:?}");
        heard.expect(began, told);
        assert_eq!(one.seen().len() + two.seen().len(), 1, "{told}");
    }
}

#[test]
fn no_fault_is_stored_or_looks_whole_and_each_is_over_in_time() {
    for (told, heard, deed) in FAULTS {
        let (one, two) = (failing(deed), failing(deed));
        let edge = before(&one, &two, heard, "on");
        for times in 1..=2 {
            let began = Instant::now();
            let reply = edge.get("/a");
            let failed = (reply.status == 502 || reply.status == 504) && reply.end == End::Whole;
            assert!(failed || reply.end == End::Cut, "{told}: {reply:?}");
            heard.expect(began, told);
            assert!(one.seen().len() + two.seen().len() >= times, "{told} was stored");
        }
    }
}

#[test]
fn a_handshake_that_is_not_answered_is_a_gateway_timeout() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback can be listened on");
    let address = listener.local_addr().expect("a bound socket has an address");
    let (connected, was_connected) = mpsc::channel();
    std::thread::spawn(move || {
        let mut held = Vec::new();
        for stream in listener.incoming().flatten() {
            held.push(stream);
            let _ = connected.send(());
        }
    });
    let mut origin = Origin::always(ok(""));
    origin.address = address;
    let keys = format!(
        "tls: {{verify: false}}\n    {}\n    retry: off\n    addresses:",
        timeouts(Some("connect"))
    );
    let edge = Edge::with(&simple(&origin, "").replace("addresses:", &keys));
    let began = Instant::now();
    edge.get("/a").expect_status(504);
    after(NEAR, began, "no handshake");
    was_connected.recv().expect("it was connected to");
    edge.wait_for_metric("edgeproxy_refusals_total{reason=\"connect_timeout\"}", 1.0);
}

#[test]
fn a_body_that_the_origin_does_not_take_is_a_gateway_timeout() {
    not_taken("defaults: {max_body: off}", Some("write"), "origin_timeout", None);
}

#[test]
fn the_total_time_of_a_route_holds_while_the_origin_does_not_take_the_body() {
    let route = format!("defaults: {{max_body: off, timeout: {}ms}}", NEAR.as_millis());
    not_taken(&route, None, "total_timeout", None);
    // One that takes a little now and then meets each deadline of a write.
    not_taken(&route, None, "total_timeout", Some(Duration::from_millis(20)));
}

/// An origin takes nothing of a body, or a little of it in each such time: it is over after `NEAR`, for this reason.
fn not_taken(more: &str, near: Option<&str>, reason: &str, takes: Option<Duration>) {
    let (over, is_over) = mpsc::channel::<()>();
    let is_over = Mutex::new(is_over);
    let origin = Origin::script()
        .take_over("/a", move |_, mut stream| {
            let is_over = is_over.lock().expect("nobody panics with it");
            let Some(takes) = takes else {
                let _ = is_over.recv();
                return;
            };
            let mut little = [0; 1 << 16];
            while is_over.recv_timeout(takes) == Err(mpsc::RecvTimeoutError::Timeout)
                && stream.read(&mut little).is_ok_and(|bytes| bytes > 0)
            {}
        })
        .start();
    let edge = quick(&origin, more, near);
    let began = Instant::now();
    let mut wire = edge.wire();
    let length = 64 << 20;
    wire.send(format!("PUT /a HTTP/1.1\r\nHost: edge.test\r\nContent-Length: {length}\r\n\r\n"));
    let part = vec![b'x'; 1 << 16];
    let mut sent = 0;
    while sent < length && wire.try_send(&part).is_ok() {
        sent += part.len();
    }
    assert!(sent < length, "somebody took all of it");
    if let Some(reply) = wire.any_reply("PUT") {
        assert!(reply.status == 504 || reply.status == 502, "{reply:?}");
    }
    after(NEAR, began, "a body that is not taken");
    edge.wait_for_metric(&format!("edgeproxy_refusals_total{{reason=\"{reason}\"}}"), 1.0);
    assert_eq!(origin.seen().len(), 1);
    drop(over);
}

#[test]
fn a_header_without_end_is_a_bad_gateway() {
    let origin = Origin::script()
        .take_over("/a", |_, mut stream| {
            say(&mut stream, b"HTTP/1.1 200 OK\r\n");
            while stream.write_all(b"X: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n").is_ok() {
            }
        })
        .start();
    let edge = patient(&origin);
    let began = Instant::now();
    edge.get("/a").expect_status(502);
    at_once(began, "a header without end");
    edge.wait_for_metric("edgeproxy_refusals_total{reason=\"origin_malformed\"}", 1.0);
}

#[test]
fn a_body_without_end_flows_until_the_client_leaves_and_is_not_stored() {
    let (given_up, was_given_up) = mpsc::channel();
    let given_up = Arc::new(Mutex::new(given_up));
    let origin = Origin::script()
        .take_over("/a", move |_, mut stream| {
            say(&mut stream, head("Transfer-Encoding: chunked").as_bytes());
            let chunk = [&b"10000\r\n"[..], &[b'x'; 1 << 16], b"\r\n"].concat();
            while stream.write_all(&chunk).is_ok() {}
            let _ = given_up.lock().expect("nobody panics with it").send(());
        })
        .start();
    let more = "defaults: {cache: {max_object: 1MiB}}\ncache: {memory: 16MiB}";
    let edge = Edge::with(&simple(&origin, more));
    for times in 1..=2 {
        let mut wire = edge.wire();
        wire.ask("GET", "edge.test", "/a", &[], b"");
        // Far more than is ever stored of it.
        for _ in 0..64 {
            assert_eq!(wire.read_raw(1 << 19).len(), 1 << 19);
        }
        drop(wire);
        was_given_up.recv_timeout(Duration::from_secs(20)).expect("the origin is let go");
        assert_eq!(origin.seen().len(), times, "it was stored");
    }
}
