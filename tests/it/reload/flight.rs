//! What is under way goes on as it began; the next request has what there is now.

use std::io::Write;

use super::json;
use super::kept::slow;
use super::saying;
use crate::harness::Edge;
use crate::harness::Origin;
use crate::harness::edge::simple;
use crate::harness::http2;
use crate::harness::ok;
use crate::harness::websocket;
use crate::harness::websocket::BINARY;
use crate::harness::websocket::frame;
use crate::harness::websocket::read_frame;
use crate::process::daemon::eventually;

const MASK: Option<[u8; 4]> = Some([1, 2, 3, 4]);

#[test]
fn a_websocket_goes_on_while_its_route_and_its_upstream_go() {
    let origin = Origin::script()
        .take_over("/ws", |_, mut stream| {
            stream.write_all(websocket::agreement().as_bytes()).expect("the agreement is taken");
            websocket::echo(&mut stream);
        })
        .start();
    let edge = Edge::to(&origin);
    let mut wire = edge.wire();
    wire.send(websocket::handshake("/ws"));
    wire.reply().expect_status(101);
    for n in 0..5 {
        edge.write(&saying(&format!("{n}"))).reload().expect_status(200);
        edge.get("/ws").expect_body(&format!("{n}"));
        wire.send(frame(BINARY, b"hello", MASK));
        assert_eq!(read_frame(&mut wire), Some((BINARY, b"hello".to_vec())));
    }
}

#[test]
fn what_a_websocket_holds_of_an_upstream_that_is_gone_works_no_more() {
    let origin = Origin::script()
        .take_over("/ws", |_, mut stream| {
            stream.write_all(websocket::agreement().as_bytes()).expect("the agreement is taken");
            websocket::echo(&mut stream);
        })
        .otherwise(|_| ok("hello"))
        .start();
    let port = origin.address.port();
    let edge = Edge::with(&format!(
        "listeners: [{{name: http, address: \"127.0.0.1:0\"}}]\n\
         upstreams:\n  app:\n    addresses: [\"localhost:{port}\"]\n    health: {{path: /health, interval: 1h}}\n    \
         pool: {{warm: 2}}\n\
         routes: [{{upstream: app}}]\n"
    ));
    let mut wire = edge.wire();
    wire.send(websocket::handshake("/ws"));
    wire.reply().expect_status(101);
    edge.wait_for_gauge("edgeproxy_backend_pool_idle{", 2.0);
    let tasks = edge.metric("edgeproxy_tasks");
    edge.write(&saying("gone")).reload().expect_status(200);
    // Whoever looked its name up, checked its backend, and chose which are checked.
    eventually("its tasks end", || (edge.metric("edgeproxy_tasks") <= tasks - 3.0).then_some(()));
    // Its connections are closed, but for this one.
    eventually("its connections end", || {
        let open = std::fs::read_to_string("/proc/net/tcp").expect("Linux tells");
        let ours = |line: &&str| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let towards = format!("0100007F:{port:04X}");
            words.get(2) == Some(&towards.as_str()) && words.get(3) == Some(&"01")
        };
        (open.lines().filter(ours).count() <= 1).then_some(())
    });
    wire.send(frame(BINARY, b"hello", MASK));
    assert_eq!(read_frame(&mut wire), Some((BINARY, b"hello".to_vec())));
}

#[test]
fn a_download_goes_on_under_the_limits_that_it_began_with() {
    let (origin, go, begun) = slow();
    let edge = Edge::to(&origin);
    let mut wire = edge.wire();
    wire.ask("GET", "edge.test", "/slow", &[], b"");
    begun.recv().expect("it begins");
    // Long over, by what counts now.
    let yaml = simple(&origin, "").replace("upstream: origin}", "upstream: origin, timeout: 1ms}");
    let said = json(edge.write(&yaml).reload().expect_status(200));
    assert_eq!(said["summary"], "routes changed: all");
    edge.get("/silent").expect_status(504);
    go.send(()).expect("it waits");
    let reply = wire.reply();
    assert_eq!(reply.expect_status(200).body.len(), 10_000);
    wire.get("edge.test", "/silent", &[]).expect_status(504);
}

#[test]
fn a_kept_connection_has_the_new_configuration_with_its_next_request() {
    let edge = Edge::with(&saying("one"));
    let mut wire = edge.wire();
    wire.get("edge.test", "/", &[]).expect_body("one");
    edge.write(&saying("two")).reload().expect_status(200);
    wire.get("edge.test", "/", &[]).expect_body("two");
}

#[test]
fn so_has_an_http2_connection_with_its_next_stream() {
    let edge = Edge::with(&saying("one"));
    http2::run(async {
        let mut send = http2::plain(edge.address("http")).await;
        let one = http2::get(&mut send, "http://edge.test/", &[]).await.expect("it answers");
        edge.write(&saying("two")).reload().expect_status(200);
        let two = http2::get(&mut send, "http://edge.test/", &[]).await.expect("it answers");
        assert_eq!([one.body, two.body], [b"one", b"two"]);
    });
}

#[test]
fn a_fetch_that_others_wait_for_is_shared_across_a_reload() {
    let (origin, go, begun) = {
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let (began, begun) = std::sync::mpsc::channel();
        let (wait, began) = (std::sync::Mutex::new(wait), std::sync::Mutex::new(began));
        let origin = Origin::script()
            .with("/shared", move |_| {
                began.lock().expect("no panic").send(()).expect("the test waits");
                let _ = wait.lock().expect("no panic").recv();
                ok("shared").field("Cache-Control", "max-age=600")
            })
            .start();
        (origin, go, begun)
    };
    let edge = Edge::to(&origin);
    let mut first = edge.wire();
    first.ask("GET", "edge.test", "/shared", &[], b"");
    begun.recv().expect("it begins");
    let yaml =
        simple(&origin, "").replace("health: off\n", "health: off\n    timeouts: {read: 8s}\n");
    edge.write(&yaml).reload().expect_status(200);
    let mut second = edge.wire();
    second.ask("GET", "edge.test", "/shared", &[], b"");
    edge.wait_for_gauge("edgeproxy_connections{", 2.0);
    go.send(()).expect("it waits");
    first.reply().expect_body("shared");
    second.reply().expect_body("shared");
    assert_eq!(origin.seen_at("/shared").len(), 1);
}
