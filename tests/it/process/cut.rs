//! What the process does not wait for any longer: it is cut, and told of.

use std::io::Write;
use std::time::Instant;

use bytes::Bytes;
use http::Request;
use nix::sys::signal::Signal;

use super::Gate;
use crate::harness::Edge;
use crate::harness::Origin;
use crate::harness::PATIENCE;
use crate::harness::edge::simple;
use crate::harness::frames::frame;
use crate::harness::http2;
use crate::harness::ok;

/// Never answers `/slow`, and never ends its answer to `/half`, of which five bytes come.
fn unending(gate: &Gate) -> Origin {
    let (slow, half) = (gate.clone(), gate.clone());
    Origin::script()
        .with("/slow", move |_| {
            slow.wait();
            ok("slow")
        })
        .take_over("/half", move |_, mut stream| {
            let head = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nbegun";
            stream.write_all(head.as_bytes()).expect("edgeproxy reads");
            half.wait();
        })
        .otherwise(|_| ok("hello"))
        .start()
}

fn configuration(origin: &Origin, cache: &str) -> String {
    let process = "process: {threads: 2, state_dir: $DIR/state, drain_timeout: 100ms}";
    simple(origin, process)
        .replace("upstream: origin}", &format!("upstream: origin, cache: {cache}}}"))
}

/// The one access log line about this path, once the process has ended.
fn line_of(edge: &Edge, path: &str) -> serde_json::Value {
    let lines = edge.access_log();
    let of_path = lines.iter().filter(|line| line.contains(&format!("\"{path}\"")));
    let of_path: Vec<_> = of_path.collect();
    assert_eq!(of_path.len(), 1, "{path}: {lines:?}");
    serde_json::from_str(of_path[0]).expect("JSON")
}

#[test]
fn what_was_not_answered_is_refused_what_was_begun_is_cut_and_both_are_logged() {
    // Past Pingora and through it; by the drain's limit and by SIGINT.
    for (cache, signal) in [
        ("off", Signal::SIGTERM),
        ("{}", Signal::SIGTERM),
        ("off", Signal::SIGINT),
        ("{}", Signal::SIGINT),
    ] {
        let gate = Gate::default();
        let origin = unending(&gate);
        let mut edge = Edge::with(&configuration(&origin, cache));
        let mut slow = edge.wire();
        slow.send("GET /slow HTTP/1.1\r\nHost: edge.test\r\n\r\n");
        let mut half = edge.wire();
        half.send("GET /half HTTP/1.1\r\nHost: edge.test\r\n\r\n");
        origin.wait_for(2);
        let mut got = Vec::new();
        while !got.ends_with(b"begun") {
            got.extend(half.read_raw(1));
        }
        let start = Instant::now();
        edge.signal(signal);
        slow.reply().expect_status(503);
        assert_eq!(edge.wait().code(), Some(0));
        assert!(start.elapsed() < PATIENCE / 2, "it waited for {:?}", start.elapsed());

        let line = line_of(&edge, "/slow");
        assert_eq!(
            (&line["status"], &line["refusal"]),
            (&503.into(), &"shutdown".into()),
            "{line}"
        );
        assert_eq!(line["method"], "GET", "{line}");
        let line = line_of(&edge, "/half");
        assert_eq!(
            (&line["status"], &line["refusal"]),
            (&200.into(), &"shutdown".into()),
            "{line}"
        );
        assert_eq!(line["bytes_sent"], 5, "{line}");
        assert_eq!(line["protocol"], "HTTP/1.1", "{line}");
        gate.open();
    }
}

#[test]
fn streams_that_are_cut_are_logged_too() {
    for cache in ["off", "{}"] {
        let gate = Gate::default();
        let origin = unending(&gate);
        let mut edge = Edge::with(&configuration(&origin, cache));
        http2::run(async {
            let send = http2::plain(edge.address("http")).await;
            let ask = |path: &str| {
                let mut send = send.clone();
                let request =
                    Request::get(format!("http://edge.test{path}")).body(()).expect("valid");
                tokio::spawn(async move { http2::exchange(&mut send, request, Bytes::new()).await })
            };
            let asked = [ask("/slow"), ask("/half")];
            tokio::task::block_in_place(|| {
                origin.wait_for(2);
                edge.wait_for_metric("edgeproxy_upstream_responses_total", 0.0);
            });
            edge.signal(Signal::SIGTERM);
            for asked in asked {
                assert!(asked.await.expect("no panic").is_err(), "it was cut");
            }
        });
        assert_eq!(edge.wait().code(), Some(0));
        for path in ["/slow", "/half"] {
            let line = line_of(&edge, path);
            assert_eq!(line["refusal"], "shutdown", "{line}");
        }
        gate.open();
    }
}

#[test]
fn a_client_of_http_2_that_does_not_answer_the_ping_is_not_waited_for() {
    let origin = Origin::always(ok("hello"));
    let mut edge = Edge::to(&origin);
    let mut wire = edge.wire();
    // Its settings, an acknowledgement of ours, and nothing more: no PING is ever answered.
    wire.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").send(frame(4, 0, 0, &[]));
    wire.send(frame(4, 1, 0, &[]));
    let settings = wire.read_raw(9);
    assert_eq!(settings[3], 4, "the server's settings come first");
    let start = Instant::now();
    edge.signal(Signal::SIGTERM);
    assert_eq!(edge.wait().code(), Some(0));
    edge.wait_for_log("drained");
    assert!(start.elapsed() < PATIENCE, "it waited for {:?}", start.elapsed());
}
