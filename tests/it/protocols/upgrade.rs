//! WebSocket: the handshake, both directions, and what is not tunnelled.

use std::io::Read;
use std::io::Write;
use std::net::Shutdown;
use std::sync::Arc;
use std::sync::mpsc;

use crate::harness::Edge;
use crate::harness::Origin;
use crate::harness::Origin2;
use crate::harness::PATIENCE;
use crate::harness::Wire;
use crate::harness::edge::simple;
use crate::harness::ok;
use crate::harness::websocket;
use crate::harness::websocket::BINARY;
use crate::harness::websocket::CLOSE;
use crate::harness::websocket::frame;
use crate::harness::websocket::read_frame;
use crate::protocols::edge_to;
use crate::protocols::secure;

const MASK: Option<[u8; 4]> = Some([1, 2, 3, 4]);

fn echoing() -> Origin {
    Origin::script()
        .take_over("/ws", |_, mut stream| {
            let agreement = websocket::agreement();
            stream.write_all(agreement.as_bytes()).expect("the agreement is taken");
            websocket::echo(&mut stream);
        })
        .otherwise(|_| ok("plain"))
        .start()
}

#[track_caller]
fn open(wire: &mut Wire) {
    wire.send(websocket::handshake("/ws"));
    let reply = wire.reply();
    reply.expect_status(101);
    assert_eq!(reply.value("sec-websocket-accept"), Some(websocket::ACCEPT), "{reply:?}");
    assert!(reply.value("upgrade").is_some_and(|u| u.eq_ignore_ascii_case("websocket")));
    assert!(reply.value("connection").is_some_and(|c| c.eq_ignore_ascii_case("upgrade")));
}

#[test]
fn frames_go_to_and_fro() {
    let origin = echoing();
    let edge = Edge::to(&origin);
    let mut wire = edge.wire();
    open(&mut wire);

    for text in ["one", "two", "three"] {
        wire.send(frame(BINARY, text.as_bytes(), MASK));
        assert_eq!(read_frame(&mut wire), Some((BINARY, text.as_bytes().to_vec())));
    }

    let seen = &origin.seen()[0];
    assert_eq!(seen.value("sec-websocket-key"), Some(websocket::KEY));
    assert!(seen.value("upgrade").is_some_and(|u| u.eq_ignore_ascii_case("websocket")));
    assert!(seen.value("connection").is_some_and(|c| c.eq_ignore_ascii_case("upgrade")));
    assert_eq!(seen.value("x-forwarded-for"), Some("127.0.0.1"));
}

#[test]
fn frames_go_to_and_fro_over_tls() {
    let origin = echoing();
    let tls = "{certificates: [{hosts: [edge.test], internal: true}]}";
    let edge = Edge::with(&secure(&origin, tls));
    let to = edge.address("https");
    let mut wire = Wire::tls(to, "edge.test", &edge.root(), &["http/1.1"]).unwrap();
    open(&mut wire);

    wire.send(frame(BINARY, b"hello", MASK));

    assert_eq!(read_frame(&mut wire), Some((BINARY, b"hello".to_vec())));
}

#[test]
fn large_frames_arrive_whole() {
    let edge = Edge::to(&echoing());
    let mut wire = edge.wire();
    open(&mut wire);
    let payload: Vec<u8> = (0..3_000_000u32).map(|n| (n % 251) as u8).collect();

    wire.send(frame(BINARY, &payload, MASK));

    let (kind, echoed) = read_frame(&mut wire).expect("a frame comes back");
    assert_eq!((kind, echoed.len()), (BINARY, payload.len()));
    assert!(echoed == payload, "the payload was changed");
}

#[test]
fn what_the_client_sends_early_waits_for_the_agreement() {
    let (answer, may_answer) = mpsc::channel::<()>();
    let may_answer = Arc::new(std::sync::Mutex::new(may_answer));
    let origin = Origin::script()
        .take_over("/ws", move |_, mut stream| {
            may_answer.lock().unwrap().recv().unwrap();
            // Whatever is there by now was sent before we agreed.
            stream.set_nonblocking(true).unwrap();
            let early = stream.peek(&mut [0; 64]);
            assert_eq!(early.unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
            stream.set_nonblocking(false).unwrap();
            stream.write_all(websocket::agreement().as_bytes()).unwrap();
            websocket::echo(&mut stream);
        })
        .start();
    let edge = Edge::to(&origin);
    let mut wire = edge.wire();

    let mut early = websocket::handshake("/ws").into_bytes();
    early.extend_from_slice(&frame(BINARY, b"early", MASK));
    wire.send(early);
    origin.wait_for(1);
    wire.send(frame(BINARY, b"still early", MASK));
    answer.send(()).unwrap();

    wire.reply().expect_status(101);
    assert_eq!(read_frame(&mut wire), Some((BINARY, b"early".to_vec())));
    assert_eq!(read_frame(&mut wire), Some((BINARY, b"still early".to_vec())));
}

#[test]
fn an_agreement_at_once_holds() {
    // The 101 may be there before the end of the empty request body was told of.
    let edge = Edge::to(&echoing());
    for n in 0..50u8 {
        let mut wire = edge.wire();
        open(&mut wire);
        wire.send(frame(BINARY, &[n], MASK));
        assert_eq!(read_frame(&mut wire), Some((BINARY, vec![n])));
    }
}

#[test]
fn what_the_origin_sends_with_its_agreement_arrives() {
    let origin = Origin::script()
        .take_over("/ws", |_, mut stream| {
            let mut bytes = websocket::agreement().into_bytes();
            bytes.extend_from_slice(&frame(BINARY, b"welcome", None));
            stream.write_all(&bytes).unwrap();
            websocket::echo(&mut stream);
        })
        .start();
    let edge = Edge::to(&origin);
    let mut wire = edge.wire();
    open(&mut wire);

    assert_eq!(read_frame(&mut wire), Some((BINARY, b"welcome".to_vec())));
    wire.send(frame(BINARY, b"thanks", MASK));
    assert_eq!(read_frame(&mut wire), Some((BINARY, b"thanks".to_vec())));
}

#[test]
fn an_origin_may_decline_and_the_connection_goes_on() {
    let origin = Origin::script().otherwise(|seen| ok(seen.target())).start();
    let edge = Edge::to(&origin);
    let mut wire = edge.wire();

    wire.send(websocket::handshake("/declined"));
    wire.reply().expect_status(200).expect_body("/declined");

    wire.get("edge.test", "/next", &[]).expect_status(200).expect_body("/next");
}

#[test]
fn frames_sent_early_to_an_origin_that_declines_are_not_a_request() {
    let origin = Origin::script().otherwise(|seen| ok(seen.target())).start();
    let edge = Edge::to(&origin);
    let mut wire = edge.wire();

    let mut early = websocket::handshake("/declined").into_bytes();
    early.extend_from_slice(&frame(BINARY, b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n", MASK));
    wire.send(early);

    wire.reply().expect_status(200).expect_body("/declined");
    wire.until_closed();
    assert_eq!(origin.seen().len(), 1);
}

#[test]
fn a_client_that_closes_ends_the_tunnel() {
    let (ended, end) = mpsc::channel();
    let origin = Origin::script()
        .take_over("/ws", move |_, mut stream| {
            stream.write_all(websocket::agreement().as_bytes()).unwrap();
            websocket::echo(&mut stream);
            let _ = stream.shutdown(Shutdown::Write);
            let rest = stream.read(&mut [0; 1]);
            ended.send(matches!(rest, Ok(0) | Err(_))).unwrap();
        })
        .start();
    let edge = Edge::to(&origin);
    let mut wire = edge.wire();
    open(&mut wire);

    wire.send(frame(CLOSE, &1000u16.to_be_bytes(), MASK));

    assert_eq!(read_frame(&mut wire), Some((CLOSE, 1000u16.to_be_bytes().to_vec())));
    drop(wire);
    assert_eq!(end.recv_timeout(PATIENCE), Ok(true));
}

#[test]
fn a_client_that_vanishes_ends_the_tunnel() {
    let (ended, end) = mpsc::channel();
    let origin = Origin::script()
        .take_over("/ws", move |_, mut stream| {
            stream.write_all(websocket::agreement().as_bytes()).unwrap();
            let rest = stream.read(&mut [0; 1]);
            ended.send(matches!(rest, Ok(0) | Err(_))).unwrap();
        })
        .start();
    let edge = Edge::to(&origin);
    let mut wire = edge.wire();
    open(&mut wire);

    drop(wire);

    assert_eq!(end.recv_timeout(PATIENCE), Ok(true));
}

#[test]
fn an_origin_that_closes_ends_the_tunnel_after_its_last_bytes() {
    let origin = Origin::script()
        .take_over("/ws", |_, mut stream| {
            stream.write_all(websocket::agreement().as_bytes()).unwrap();
            stream.write_all(&frame(BINARY, b"last", None)).unwrap();
            stream.write_all(&frame(CLOSE, &1001u16.to_be_bytes(), None)).unwrap();
        })
        .start();
    let edge = Edge::to(&origin);
    let mut wire = edge.wire();
    open(&mut wire);

    assert_eq!(read_frame(&mut wire), Some((BINARY, b"last".to_vec())));
    assert_eq!(read_frame(&mut wire), Some((CLOSE, 1001u16.to_be_bytes().to_vec())));
    assert!(wire.until_closed().is_empty());
}

#[test]
fn an_idle_tunnel_outlives_the_deadlines_of_requests() {
    let origin = echoing();
    let deadlines = "limits: {idle_timeout: 300ms, header_timeout: 300ms, rate_window: 1s}";
    let config = simple(&origin, deadlines)
        .replace("routes:", "    timeouts: {read: 300ms, write: 300ms, idle: 300ms}\nroutes:");
    let edge = Edge::with(&config);
    let mut wire = edge.wire();
    open(&mut wire);
    wire.send(frame(BINARY, b"before", MASK));
    assert_eq!(read_frame(&mut wire), Some((BINARY, b"before".to_vec())));

    // Nothing can be awaited here: that nothing happens is what is tested.
    std::thread::sleep(std::time::Duration::from_millis(1500));

    wire.send(frame(BINARY, b"after", MASK));
    assert_eq!(read_frame(&mut wire), Some((BINARY, b"after".to_vec())));
}

#[test]
fn the_total_time_of_a_route_bounds_a_tunnel() {
    let origin = echoing();
    let edge = Edge::with(&simple(&origin, "defaults: {timeout: 2s}"));
    let mut wire = edge.wire();
    open(&mut wire);
    wire.send(frame(BINARY, b"within", MASK));
    assert_eq!(read_frame(&mut wire), Some((BINARY, b"within".to_vec())));

    assert!(wire.until_closed().is_empty());
}

#[test]
fn an_origin_that_does_not_answer_a_handshake_is_timed_out() {
    let origin = Origin::script()
        .take_over("/ws", |_, mut stream| {
            let _ = stream.read(&mut [0; 1]);
        })
        .start();
    let config = simple(&origin, "").replace("routes:", "    timeouts: {read: 300ms}\nroutes:");
    let edge = Edge::with(&config);
    let mut wire = edge.wire();

    wire.send(websocket::handshake("/ws"));

    wire.reply().expect_status(504);
}

#[test]
fn a_cached_path_is_still_upgraded() {
    let origin = Origin::script()
        .take_over("/ws", |seen, mut stream| {
            if seen.value("upgrade").is_none() {
                let plain = b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\n\
                              Content-Length: 5\r\nConnection: close\r\n\r\nplain";
                stream.write_all(plain).unwrap();
                return;
            }
            stream.write_all(websocket::agreement().as_bytes()).unwrap();
            websocket::echo(&mut stream);
        })
        .start();
    let edge = Edge::to(&origin);
    edge.get("/ws").expect_miss().expect_body("plain");
    edge.get("/ws").expect_hit().expect_body("plain");

    let mut wire = edge.wire();
    open(&mut wire);
    wire.send(frame(BINARY, b"hello", MASK));
    assert_eq!(read_frame(&mut wire), Some((BINARY, b"hello".to_vec())));

    // And what was stored is still there, nothing of the tunnel beside it.
    edge.get("/ws").expect_hit().expect_body("plain");
}

#[test]
fn an_upgrade_with_a_body_is_refused() {
    let origin = echoing();
    let edge = Edge::to(&origin);
    let mut wire = edge.wire();

    let handshake = websocket::handshake("/ws");
    wire.send(handshake.replace("\r\n\r\n", "\r\nContent-Length: 5\r\n\r\nhello"));

    wire.reply().expect_status(400);
    assert!(origin.seen().is_empty());
}

#[test]
fn an_http_2_origin_cannot_be_upgraded_to() {
    let origin = Origin2::start(None, |mut call| async move {
        call.respond(http::Response::new(()), "x");
    });
    let edge = edge_to(&format!("addresses: [\"{}\"], protocol: http2", origin.address));
    let mut wire = edge.wire();

    wire.send(websocket::handshake("/ws"));

    // The request is answered as if the origin had declined: Upgrade is an offer (RFC 9110 §7.8).
    wire.reply().expect_status(200).expect_body("x");
    assert_eq!(origin.seen()[0].headers.get("upgrade"), None);
}
