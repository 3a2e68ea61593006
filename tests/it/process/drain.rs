//! Leaving in order.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use bytes::Bytes;
use http::Request;
use nix::sys::signal::Signal;

use super::Gate;
use super::gated;
use crate::harness::Edge;
use crate::harness::Origin;
use crate::harness::PATIENCE;
use crate::harness::Wire;
use crate::harness::edge::simple;
use crate::harness::http2;
use crate::harness::ok;

/// The drain timeout when none is configured. What ends long before it did not wait for it.
const LONG: Duration = Duration::from_secs(30);

/// Waits until nobody listens there any more.
fn until_refused(address: SocketAddr) {
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        match TcpStream::connect(address) {
            Err(e) if e.kind() == ErrorKind::ConnectionRefused => return,
            _ => thread::yield_now(),
        }
    }
    panic!("connections are still accepted");
}

fn with_drain(origin: &Origin, timeout: &str) -> String {
    let process =
        format!("process: {{threads: 2, state_dir: $DIR/state, drain_timeout: {timeout}}}");
    simple(origin, &process)
}

#[test]
fn what_is_in_flight_finishes_and_then_the_process_ends() {
    let gate = Gate::default();
    let origin = gated(&gate);
    let mut edge = Edge::to(&origin);
    edge.admin("GET", "/readyz").expect_status(200);
    let mut wire = edge.wire();
    wire.send("GET /slow HTTP/1.1\r\nHost: edge.test\r\n\r\n");
    origin.wait_for(1);

    let start = Instant::now();
    edge.signal(Signal::SIGTERM);
    edge.wait_for_log("draining 1 connections");
    until_refused(edge.address("http"));
    let ready = edge.admin("GET", "/readyz");
    // How many are left includes those of the probes above.
    assert!(ready.expect_status(503).text().starts_with("draining, "), "{ready:?}");
    edge.admin("GET", "/healthz").expect_status(200);
    gate.open();

    let reply = wire.reply();
    reply.expect_status(200).expect_body("slow");
    assert_eq!(reply.value("connection"), Some("close"));
    assert_eq!(wire.until_closed(), b"");
    assert_eq!(edge.wait().code(), Some(0));
    edge.wait_for_log("drained");
    assert!(start.elapsed() < LONG / 2, "it waited for {:?}", start.elapsed());
}

#[test]
fn an_idle_connection_is_closed_and_keeps_nobody_waiting() {
    let origin = Origin::always(ok("hello"));
    for signal in [Signal::SIGTERM, Signal::SIGQUIT] {
        let mut edge = Edge::to(&origin);
        let mut wire = edge.wire();
        wire.get("edge.test", "/", &[]).expect_status(200);

        let start = Instant::now();
        edge.signal(signal);
        assert_eq!(wire.until_closed(), b"");
        assert_eq!(edge.wait().code(), Some(0));
        edge.wait_for_log("draining 1 connections");
        assert!(start.elapsed() < LONG / 2, "it waited for {:?}", start.elapsed());
    }
}

#[test]
fn a_client_that_has_just_connected_still_gets_its_first_answer() {
    let origin = Origin::always(ok("hello"));
    let mut edge = Edge::to(&origin);
    let mut wire = edge.wire();
    while edge.metric("edgeproxy_connections{") < 1.0 {
        thread::yield_now();
    }

    edge.signal(Signal::SIGTERM);
    edge.wait_for_log("draining 1 connections");
    let reply = wire.get("edge.test", "/", &[]);
    reply.expect_status(200).expect_body("hello");
    assert_eq!(reply.value("connection"), Some("close"));
    assert_eq!(edge.wait().code(), Some(0));
}

#[test]
fn who_waits_in_the_kernels_queue_when_the_end_begins_is_served() {
    let origin = Origin::always(ok("hello"));
    let mut edge = Edge::to(&origin);
    // Stopped, it accepts nothing; the kernel does it in its place.
    edge.signal(Signal::SIGSTOP);
    let mut wires: Vec<Wire> = (0..10).map(|_| edge.wire()).collect();
    for wire in &mut wires {
        wire.send("GET / HTTP/1.1\r\nHost: edge.test\r\n\r\n");
    }
    edge.signal(Signal::SIGTERM);
    edge.signal(Signal::SIGCONT);

    for wire in &mut wires {
        wire.reply().expect_status(200).expect_body("hello");
    }
    assert_eq!(edge.wait().code(), Some(0));
}

#[test]
fn http_2_clients_are_told_to_go_and_keep_what_they_asked_for() {
    let gate = Gate::default();
    let origin = gated(&gate);
    let mut edge = Edge::to(&origin);
    http2::run(async {
        let mut send = http2::plain(edge.address("http")).await;
        let slow = tokio::spawn({
            let mut send = send.clone();
            async move {
                let request = Request::get("http://edge.test/slow").body(()).expect("valid");
                http2::exchange(&mut send, request, Bytes::new()).await
            }
        });
        tokio::task::block_in_place(|| origin.wait_for(1));
        edge.signal(Signal::SIGTERM);
        tokio::task::block_in_place(|| edge.wait_for_log("draining 1 connections"));
        // GOAWAY is on its way: from some point on nothing new can be asked.
        while http2::get(&mut send, "http://edge.test/new", &[]).await.is_ok() {}
        gate.open();
        let reply = slow.await.expect("no panic").expect("the stream was open before GOAWAY");
        assert_eq!((reply.status, reply.body.as_slice()), (200, b"slow".as_slice()));
    });
    assert_eq!(edge.wait().code(), Some(0));
}

#[test]
fn what_does_not_finish_is_cut_when_the_time_is_up() {
    let gate = Gate::default();
    let origin = gated(&gate);
    let mut edge = Edge::with(&with_drain(&origin, "300ms"));
    let mut wire = edge.wire();
    wire.send("GET /slow HTTP/1.1\r\nHost: edge.test\r\n\r\n");
    origin.wait_for(1);

    edge.signal(Signal::SIGTERM);
    assert_eq!(edge.wait().code(), Some(0));
    edge.wait_for_log("1 connections are cut: the drain timeout is over");
    gate.open();
}

#[test]
fn sigint_waits_for_nobody() {
    let gate = Gate::default();
    let origin = gated(&gate);
    let mut edge = Edge::to(&origin);
    let mut wire = edge.wire();
    wire.send("GET /slow HTTP/1.1\r\nHost: edge.test\r\n\r\n");
    origin.wait_for(1);

    let start = Instant::now();
    edge.signal(Signal::SIGINT);
    assert_eq!(edge.wait().code(), Some(0));
    assert!(start.elapsed() < LONG / 2, "it waited for {:?}", start.elapsed());
    gate.open();
}

#[test]
fn while_it_drains_sigterm_changes_nothing_and_sigint_ends_it() {
    let gate = Gate::default();
    let origin = gated(&gate);
    let mut edge = Edge::to(&origin);
    let mut wire = edge.wire();
    wire.send("GET /slow HTTP/1.1\r\nHost: edge.test\r\n\r\n");
    origin.wait_for(1);

    let start = Instant::now();
    edge.signal(Signal::SIGTERM);
    edge.wait_for_log("draining 1 connections");
    edge.signal(Signal::SIGTERM);
    edge.wait_for_log("still draining 1 connections");
    edge.admin("GET", "/healthz").expect_status(200);
    edge.signal(Signal::SIGINT);
    assert_eq!(edge.wait().code(), Some(0));
    edge.wait_for_log("told to end at once");
    assert!(start.elapsed() < LONG / 2, "it waited for {:?}", start.elapsed());
    gate.open();
}

#[test]
fn signals_that_mean_no_end_do_not_end_it() {
    let origin = Origin::always(ok("hello"));
    let edge = Edge::to(&origin);
    edge.signal(Signal::SIGPIPE);
    edge.signal(Signal::SIGUSR1);
    edge.signal(Signal::SIGHUP);
    edge.wait_for_log("SIGHUP");
    edge.get("/").expect_status(200);
}
