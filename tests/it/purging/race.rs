//! A response that is on its way when its purge comes.

use std::io::Write;
use std::sync::Mutex;
use std::sync::mpsc;

use crate::harness::Edge;
use crate::harness::Origin;
use crate::purging::purge;

/// The first answer waits half-way until it is let go.
fn halting() -> (Origin, mpsc::Sender<()>) {
    let (let_go, held) = mpsc::channel::<()>();
    let held = Mutex::new(Some(held));
    let origin = Origin::script()
        .take_over("/a", move |_, mut stream| {
            let first = held.lock().expect("nobody panics while holding it").take();
            let body: &[u8] = if first.is_some() { b"old!" } else { b"new!" };
            let head = "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nSurrogate-Key: t\r\n\
                        Content-Length: 4\r\nConnection: close\r\n\r\n";
            let _ = stream.write_all(head.as_bytes());
            let _ = stream.write_all(&body[..2]);
            if let Some(held) = first {
                held.recv().expect("the test lets it go");
            }
            let _ = stream.write_all(&body[2..]);
        })
        .start();
    (origin, let_go)
}

#[test]
fn what_is_on_its_way_when_it_is_purged_does_not_show_afterwards() {
    for scope in [
        r#"{"url": "edge.test/a"}"#,
        r#"{"prefix": "edge.test/"}"#,
        r#"{"host": "edge.test"}"#,
        r#"{"route": "all"}"#,
        r#"{"upstream": "origin"}"#,
        r#"{"tag": "t"}"#,
        r#"{"everything": true}"#,
    ] {
        let (origin, let_go) = halting();
        let edge = Edge::to(&origin);
        let mut first = edge.wire();
        first.send("GET /a HTTP/1.1\r\nHost: edge.test\r\n\r\n");
        origin.wait_for(1);
        purge(&edge, scope).expect_status(200);
        let_go.send(()).expect("the origin waits");
        first.reply().expect_status(200).expect_body("old!");
        edge.get("/a").expect_miss().expect_body("new!");
        edge.get("/a").expect_hit().expect_body("new!");
    }
}

#[test]
fn a_soft_purge_lets_in_what_is_on_its_way_as_stale() {
    let (origin, let_go) = halting();
    let edge = Edge::to(&origin);
    let mut first = edge.wire();
    first.send("GET /a HTTP/1.1\r\nHost: edge.test\r\n\r\n");
    origin.wait_for(1);
    purge(&edge, r#"{"tag": "t", "soft": true}"#).expect_status(200);
    let_go.send(()).expect("the origin waits");
    first.reply().expect_status(200).expect_body("old!");
    edge.get("/a").expect_cache("EXPIRED").expect_body("new!");
}
