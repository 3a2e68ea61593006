//! A second backend is asked when the first one takes longer than nearly all answers do.

use std::io::Read;
use std::io::Write;
use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::mpsc;
use std::time::Duration;

use crate::harness::Edge;
use crate::harness::Origin;
use crate::harness::Respond;
use crate::harness::client::End;
use crate::harness::edge::binary;
use crate::harness::ok;
use crate::harness::origin::Script;

const WHOLE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate";

/// A route before these two, of which the second one is only asked beside the first; it knows how long answers
/// take.
fn hedged(a: &str, b: &str, more: &str) -> Edge {
    hedged_over(a, b, "protocol: http1", more)
}

pub(super) fn hedged_over(a: &str, b: &str, protocol: &str, more: &str) -> Edge {
    let edge = Edge::with(&format!(
        "listeners: [{{name: http, address: \"127.0.0.1:0\", h2c: true}}]\n\
         upstreams:\n  app:\n    health: off\n    {protocol}\n    \
         addresses: [{{id: a, address: \"{a}\"}}, {{id: b, address: \"{b}\", backup: true}}]\n\
         access_log: {{to: stdout, format: json, fields: [uri, hedge, upstream_address, attempts]}}\n\
         routes:\n  - {{name: all, upstream: app, {more}}}\n"
    ));
    for _ in 0..20 {
        edge.get("/").expect_status(200);
    }
    edge
}

pub(super) const ON: &str = "hedge: {min_requests: 20, budget: 50}";

fn quick() -> Script {
    Origin::script().otherwise(|seen| ok(seen.target()))
}

fn between(a: &Origin, b: &Origin, more: &str) -> Edge {
    hedged(&a.address.to_string(), &b.address.to_string(), more)
}

pub(super) fn hedges(edge: &Edge, outcome: &str) -> f64 {
    edge.metric(&format!("edgeproxy_upstream_hedges_total{{outcome=\"{outcome}\""))
}

/// Reads until the other side gives up.
fn until_given_up(stream: &mut TcpStream) {
    let _ = stream.read_to_end(&mut Vec::new());
}

/// One that says this to `/late` and no more, and tells when it was given up.
fn stuck_after(said: &'static [u8]) -> (Origin, mpsc::Receiver<()>) {
    let (given_up, was_given_up) = mpsc::channel();
    let given_up = Mutex::new(given_up);
    let origin = quick()
        .take_over("/late", move |_, mut stream| {
            let _ = stream.write_all(said);
            until_given_up(&mut stream);
            let _ = given_up.lock().expect("nobody panics with it").send(());
        })
        .start();
    (origin, was_given_up)
}

#[test]
fn a_backend_that_takes_long_is_overtaken_by_another_and_let_go() {
    for said in [&b""[..], b"HTTP/1.1 200 OK\r\nContent-Le"] {
        let ((slow, given_up), fast) = (stuck_after(said), quick().on("/late", ok("fast")).start());
        let edge = between(&slow, &fast, ON);
        for _ in 0..4 {
            edge.get("/late").expect_status(200).expect_body("fast");
            given_up.recv_timeout(Duration::from_secs(10)).expect("its connection is closed");
        }
        assert_eq!(slow.seen_at("/late").len(), 4);
        assert_eq!(fast.seen_at("/late").len(), 4);
        assert_eq!(hedges(&edge, "won"), 4.0);
        let line = edge.wait_for_access("\"hedge\":\"won\"");
        assert!(line.contains(&fast.address.to_string()), "{line}");
        // Who was only slow is charged with nothing.
        assert_eq!(
            edge.metric("edgeproxy_backend_failures_total{upstream=\"app\",backend=\"a\""),
            0.0
        );
        assert_eq!(
            edge.metric("edgeproxy_backend_requests_in_flight{upstream=\"app\",backend=\"a\""),
            0.0
        );
    }
}

#[test]
fn the_first_one_wins_when_it_answers_first() {
    let (asked, was_asked) = mpsc::channel();
    let (asked, was_asked) = (Mutex::new(asked), Mutex::new(was_asked));
    let first = quick()
        .take_over("/late", move |_, mut stream| {
            // Once the other one is asked.
            was_asked.lock().expect("nobody panics with it").recv().expect("it will be");
            let _ = stream.write_all(WHOLE);
        })
        .start();
    let second = quick()
        .take_over("/late", move |_, mut stream| {
            asked.lock().expect("nobody panics with it").send(()).expect("there is a test");
            until_given_up(&mut stream);
        })
        .start();
    let edge = between(&first, &second, ON);
    edge.get("/late").expect_status(200).expect_body("late");
    assert_eq!(hedges(&edge, "lost"), 1.0);
    assert_eq!(edge.metric("edgeproxy_backend_failures_total{upstream=\"app\",backend=\"b\""), 0.0);
}

#[test]
fn the_failure_of_one_leaves_the_other_at_work() {
    for first_fails in [true, false] {
        // The one that fails does when both were asked, and the other one works on until that was seen.
        let (asked, was_asked) = mpsc::channel();
        let (asked, was_asked) = (Mutex::new(asked), Mutex::new(was_asked));
        let (failed, has_failed) = mpsc::channel();
        let (failed, has_failed) = (Mutex::new(failed), Mutex::new(has_failed));
        let failing = quick()
            .take_over("/late", move |_, stream| {
                was_asked.lock().expect("nobody panics with it").recv().expect("it will be");
                drop(stream);
                failed.lock().expect("nobody panics with it").send(()).expect("there is a test");
            })
            .start();
        let working = quick()
            .take_over("/late", move |_, mut stream| {
                asked.lock().expect("nobody panics with it").send(()).expect("there is a test");
                has_failed.lock().expect("nobody panics with it").recv().expect("it will have");
                // What was closed before is mostly noticed before; else nothing is shown by this round.
                std::thread::sleep(Duration::from_millis(50));
                let _ = stream.write_all(WHOLE);
            })
            .start();
        let edge = match first_fails {
            true => between(&failing, &working, ON),
            false => between(&working, &failing, ON),
        };
        for _ in 0..4 {
            edge.get("/late").expect_status(200).expect_body("late");
        }
        assert_eq!(failing.seen_at("/late").len(), 4, "both were asked each time");
        let (who, outcome) = if first_fails { ("a", "won") } else { ("b", "failed") };
        let failures =
            format!("edgeproxy_backend_failures_total{{upstream=\"app\",backend=\"{who}\"");
        assert_eq!(edge.metric(&failures), 4.0, "{who}");
        assert_eq!(hedges(&edge, outcome), 4.0);
    }
}

#[test]
fn the_budget_bounds_them() {
    let slow = |_: &_| {
        std::thread::sleep(Duration::from_millis(100));
        ok("slow")
    };
    let (a, b) = (quick().with("/late", slow).start(), quick().with("/late", slow).start());
    let edge = between(&a, &b, "hedge: {percentile: 50, min_requests: 20, budget: 10}");
    for _ in 0..10 {
        edge.get("/late").expect_status(200).expect_body("slow");
    }
    let sent = a.seen_at("/late").len() + b.seen_at("/late").len() - 10;
    assert!((1..=3).contains(&sent), "a tenth of thirty: {sent}");
    assert!(hedges(&edge, "over_budget") >= 1.0);
}

#[test]
fn what_must_not_be_said_twice_is_not() {
    let slow = |_: &_| {
        std::thread::sleep(Duration::from_millis(100));
        ok("slow")
    };
    let (a, b) = (quick().with("/late", slow).start(), quick().with("/late", slow).start());
    let edge = between(&a, &b, ON);
    for method in ["POST", "PUT", "DELETE"] {
        edge.wire().request(method, "edge.test", "/late", &[], b"").expect_body("slow");
    }
    edge.wire().request("GET", "edge.test", "/late", &[], b"a body").expect_body("slow");
    assert_eq!(a.seen_at("/late").len() + b.seen_at("/late").len(), 4);
}

#[test]
fn nothing_is_hedged_before_enough_is_known() {
    let slow = |_: &_| {
        std::thread::sleep(Duration::from_millis(100));
        ok("slow")
    };
    let (a, b) = (quick().with("/late", slow).start(), quick().with("/late", slow).start());
    let edge = between(&a, &b, "hedge: {min_requests: 50, budget: 50}");
    for _ in 0..4 {
        edge.get("/late").expect_body("slow");
    }
    assert_eq!(a.seen_at("/late").len() + b.seen_at("/late").len(), 4);
}

#[test]
fn a_backend_that_does_not_accept_is_overtaken_too() {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)
        .expect("a socket can be made");
    let any: std::net::SocketAddr = "127.0.0.1:0".parse().expect("an address");
    socket.bind(&any.into()).expect("loopback can be bound");
    socket.listen(0).expect("it can listen");
    let address = socket.local_addr().expect("an address").as_socket().expect("of IP");
    let fast = quick().on("/late", ok("fast")).start();
    let edge = Edge::with(&format!(
        "listeners: [{{name: http, address: \"127.0.0.1:0\"}}]\n\
         upstreams:\n  app:\n    health: off\n    timeouts: {{connect: 9s}}\n    addresses: \
         [{{id: a, address: \"{address}\", active: false}}, {{id: b, address: \"{}\"}}]\n\
         routes:\n  - {{upstream: app, {ON}}}\n",
        fast.address
    ));
    for _ in 0..20 {
        edge.get("/").expect_status(200);
    }
    let short = Duration::from_millis(200);
    let _full: Vec<_> = (0..3).map(|_| TcpStream::connect_timeout(&address, short)).collect();
    let on = edge.admin_says("PATCH", "/v1/upstreams/app/backends/a", "{\"active\": true}");
    on.expect_status(200);
    for _ in 0..4 {
        edge.get("/late").expect_status(200).expect_body("fast");
    }
    assert!(hedges(&edge, "won") >= 1.0);
}

#[test]
fn fetches_for_the_cache_are_hedged_and_stored_once() {
    let (slow, _given_up) = stuck_after(b"");
    let fresh = ok("fast").field("Cache-Control", "max-age=60");
    let fast = quick().on("/late", fresh).start();
    let edge = between(&slow, &fast, &format!("cache: on, {ON}"));
    for n in 0..4 {
        edge.get(&format!("/late?{n}")).expect_status(200).expect_body("fast");
        edge.get(&format!("/late?{n}")).expect_hit().expect_body("fast");
    }
    assert!(hedges(&edge, "won") >= 1.0);
    edge.wait_for_access("\"hedge\":\"won\"");
}

#[test]
fn an_answer_that_is_cut_behind_its_header_is_cut_whoever_gave_it() {
    let (slow, _given_up) = stuck_after(b"");
    let cut = Respond::raw("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
    let fast = quick().on("/late", cut).start();
    let edge = between(&slow, &fast, &format!("cache: on, {ON}"));
    for _ in 0..4 {
        let reply = edge.get("/late");
        assert!(reply.end == End::Cut || reply.status == 502, "{reply:?}");
    }
}

#[test]
fn where_nothing_can_be_hedged_the_configuration_says_so() {
    for (upstream, told) in [
        ("{addresses: [\"a:1\"], sticky: on}", "is sticky"),
        ("{addresses: [\"10.0.0.1:1\"]}", "has one backend"),
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("edge.yaml");
        let yaml = format!(
            "listeners: [{{address: \"127.0.0.1:0\"}}]\nupstreams: {{app: {upstream}}}\n\
             routes: [{{upstream: app, hedge: on}}]\n"
        );
        std::fs::write(&file, yaml).expect("the folder can be written to");
        let check = std::process::Command::new(binary()).arg("check").arg("-c").arg(&file).output();
        let check = check.expect("the program runs");
        let said = [check.stdout, check.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        assert!(said.contains(told), "{upstream}: {said}");
    }
}
