//! Copies of requests for another upstream: whatever becomes of them, no client notices.

use std::io::Read;
use std::io::Write;
use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::mpsc;

use bytes::Bytes;
use http::Method;
use http::Request;
use http::Response;

use super::nobody;
use crate::harness::Edge;
use crate::harness::Origin;
use crate::harness::Origin2;
use crate::harness::Respond;
use crate::harness::http2;
use crate::harness::ok;
use crate::harness::origin2::Call;
use crate::harness::status;

/// A route to `main` that is copied to what listens at `mirror`.
fn copied(main: &Origin, mirror: &str, settings: &str, route: &str) -> Edge {
    Edge::with(&format!(
        "listeners: [{{name: http, address: \"127.0.0.1:0\", h2c: true}}]\n\
         upstreams:\n  main: {{health: off, addresses: [\"{}\"]}}\n  \
         shadow: {{health: off, breaker: off, timeouts: {{total: 1s}}, addresses: [\"{mirror}\"], {settings}}}\n\
         routes: [{{upstream: main, {route}}}]\n",
        main.address
    ))
}

fn to(main: &Origin, mirror: &Origin) -> Edge {
    copied(main, &mirror.address.to_string(), "host: shadow.test", "mirror: {upstream: shadow}")
}

fn copies(outcome: &str) -> String {
    format!("edgeproxy_upstream_copies_total{{outcome=\"{outcome}\"")
}

#[test]
fn a_copy_is_what_the_origin_gets_for_the_host_of_the_mirror() {
    let (main, mirror) = (Origin::always(ok("main")), Origin::always(ok("mirror")));
    let edge = to(&main, &mirror);
    edge.get_with("/a?b=c", &[("X-Mine", "1")]).expect_status(200).expect_body("main");
    let copy = mirror.wait_for(1)[0].clone();
    assert_eq!(copy.line, main.seen()[0].line);
    assert_eq!(copy.values("host"), ["shadow.test"]);
    for name in ["x-mine", "x-request-id", "x-forwarded-for", "via"] {
        assert_eq!(copy.values(name), main.seen()[0].values(name), "{name}");
    }
    edge.wire().request("POST", "edge.test", "/p", &[], b"a body").expect_body("main");
    let copy = mirror.wait_for(2)[1].clone();
    assert_eq!((copy.method(), &copy.body[..]), ("POST", &b"a body"[..]));
    edge.wire()
        .send(
            "POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
                      3\r\nin \r\n5\r\nparts\r\n0\r\n\r\n",
        )
        .reply()
        .expect_body("main");
    assert_eq!(mirror.wait_for(3)[2].body, b"in parts");
    http2::run(async {
        let mut client = http2::plain(edge.address("http")).await;
        let request = Request::post("http://edge.test/h2").body(()).expect("a request");
        let (answer, mut body) = client.send_request(request, false).expect("it is open");
        body.send_data(Bytes::from("of unknown length"), true).expect("it is open");
        assert_eq!(answer.await.expect("an answer").status(), 200);
    });
    assert_eq!(mirror.wait_for(4)[3].body, b"of unknown length");
    edge.wait_for_metric(&copies("answered"), 4.0);
}

#[test]
fn whatever_becomes_of_a_copy_the_client_is_answered() {
    let silent = |_, mut tcp: TcpStream| drop(tcp.read_to_end(&mut Vec::new()));
    let endless = |_, mut tcp: TcpStream| {
        let _ = tcp.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        while tcp.write_all(b"4\r\nmore\r\n").is_ok() {}
    };
    let script = || Origin::script();
    let mirrors = [
        ("silent", script().take_over("/", silent).start()),
        ("closing", Origin::always(Respond::raw(""))),
        ("garbage", Origin::always(Respond::raw("garbage\r\n\r\n"))),
        ("cut", Origin::always(Respond::raw("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx"))),
    ];
    let addresses = mirrors.iter().map(|(told, origin)| (*told, origin.address.to_string()));
    for (told, address) in addresses.chain([("nobody", nobody())]) {
        let main = Origin::always(ok("main"));
        let edge = copied(&main, &address, "", "mirror: {upstream: shadow}");
        for (method, body) in [("GET", &b""[..]), ("POST", b"body")] {
            let mut wire = edge.wire();
            wire.request(method, "edge.test", "/", &[], body)
                .expect_status(200)
                .expect_body("main");
            // The next one on the same connection, too.
            wire.request(method, "edge.test", "/", &[], body)
                .expect_status(200)
                .expect_body("main");
        }
        assert_eq!(main.seen().len(), 4, "{told}");
        edge.wait_for_metric(&copies("failed"), 4.0);
        assert_eq!(edge.metric("edgeproxy_refusals_total{"), 0.0, "{told}");
    }
    // These answer, after a fashion.
    let mirrors = [script().take_over("/", endless).start(), Origin::always(status(500))];
    for mirror in mirrors {
        let main = Origin::always(ok("main"));
        let edge = to(&main, &mirror);
        edge.get("/").expect_status(200).expect_body("main");
        edge.wait_for_metric(&copies("answered"), 1.0);
    }
}

#[test]
fn copies_are_dropped_where_they_would_have_to_wait() {
    for (settings, mirror) in [
        ("", "{upstream: shadow, at_once: 1}"),
        ("pool: {max_connections: 1}", "{upstream: shadow}"),
    ] {
        let (release, released) = mpsc::channel::<()>();
        let released = Mutex::new(released);
        let held = Origin::script()
            .with("/", move |_| {
                let _ = released.lock().expect("nobody panics with it").recv();
                ok("")
            })
            .start();
        let main = Origin::always(ok("main"));
        let at = held.address.to_string();
        let settings = format!("timeouts: {{total: 20s}}, {settings}");
        let edge = Edge::with(&format!(
            "listeners: [{{name: http, address: \"127.0.0.1:0\"}}]\n\
             upstreams:\n  main: {{health: off, addresses: [\"{}\"]}}\n  \
             shadow: {{health: off, addresses: [\"{at}\"], {settings}}}\n\
             routes: [{{upstream: main, mirror: {mirror}}}]\n",
            main.address
        ));
        edge.get("/").expect_body("main");
        held.wait_for(1);
        edge.get("/").expect_body("main");
        edge.get("/").expect_body("main");
        edge.wait_for_metric(&copies("busy"), 2.0);
        release.send(()).expect("the mirror waits");
        edge.wait_for_metric(&copies("answered"), 1.0);
        assert_eq!(held.seen().len(), 1);
    }
}

#[test]
fn copies_go_to_origins_of_http_2_as_well() {
    let main = Origin::always(ok("main"));
    let (bodies, sent) = mpsc::channel();
    let mirror = Origin2::start(None, move |mut call: Call| {
        let bodies = bodies.clone();
        async move {
            let (body, _) = call.whole().await;
            bodies.send(body).expect("the test waits");
            call.respond(Response::new(()), "mirror");
        }
    });
    let at = mirror.address.to_string();
    let settings = "host: shadow.test, protocol: http2";
    let edge = copied(&main, &at, settings, "mirror: {upstream: shadow}");
    edge.get_with("/a?b=c", &[("X-Mine", "1")]).expect_status(200).expect_body("main");
    assert_eq!(sent.recv().expect("a copy"), b"");
    edge.wire().request("POST", "edge.test", "/p", &[], b"a body").expect_body("main");
    assert_eq!(sent.recv().expect("a copy"), b"a body");
    edge.wait_for_metric(&copies("answered"), 2.0);
    let seen = mirror.seen();
    assert_eq!(seen[0].uri.to_string(), "http://shadow.test/a?b=c");
    assert_eq!(seen[0].headers["x-mine"], "1");
    assert_eq!(seen[0].headers["via"], "1.1 edgeproxy");
    assert_eq!(seen[1].method, Method::POST);
    assert_eq!(seen[1].headers["content-length"], "6");
    assert_eq!(mirror.connections(), 1);
}

#[test]
fn a_mirror_of_http_2_that_begins_to_answer_gets_the_rest_of_the_copy() {
    let main = Origin::always(ok("main"));
    let (bodies, sent) = mpsc::channel();
    let mirror = Origin2::start(None, move |mut call: Call| {
        let bodies = bodies.clone();
        async move {
            let head = call.answer.send_response(Response::new(()), false);
            let mut answer = head.expect("it is open");
            bodies.send(call.whole().await.0.len()).expect("the test waits");
            answer.send_data("mirror".into(), true).expect("it is open yet");
        }
    });
    let at = mirror.address.to_string();
    let edge = copied(&main, &at, "protocol: http2", "mirror: {upstream: shadow}");
    for size in [1, 65_535, 65_536] {
        edge.wire().request("POST", "edge.test", "/", &[], &vec![b'x'; size]).expect_body("main");
        assert_eq!(sent.recv().expect("a copy"), size);
    }
    edge.wait_for_metric(&copies("answered"), 3.0);
}

#[test]
fn what_is_too_large_is_not_copied() {
    let (main, mirror) = (Origin::always(ok("main")), Origin::always(ok("mirror")));
    let at = mirror.address.to_string();
    let edge = copied(&main, &at, "", "mirror: {upstream: shadow, max_body: 10B}");
    for (body, copied) in [(&[b'x'; 10][..], 1), (&[b'x'; 11], 1), (&[b'x'; 100_000], 1)] {
        edge.wire().request("PUT", "edge.test", "/", &[], body).expect_body("main");
        assert_eq!(mirror.wait_for(copied).len(), 1);
    }
    edge.wait_for_metric(&copies("too_large"), 2.0);
    assert_eq!(main.seen().len(), 3);
}

#[test]
fn hits_and_conversations_are_not_copied() {
    let fresh = ok("main").field("Cache-Control", "max-age=60");
    let (main, mirror) = (Origin::always(fresh), Origin::always(ok("mirror")));
    let edge = to(&main, &mirror);
    let stored =
        copied(&main, &mirror.address.to_string(), "", "cache: on, mirror: {upstream: shadow}");
    stored.get("/stored").expect_miss();
    stored.get("/stored").expect_hit();
    mirror.wait_for(1);
    let upgrade = [
        ("Connection", "upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    edge.get_with("/socket", &upgrade).expect_status(200);
    edge.wire()
        .request("POST", "edge.test", "/grpc", &[("Content-Type", "application/grpc")], b"x")
        .expect_status(200);
    edge.get("/last").expect_status(200);
    let seen = mirror.wait_for(2);
    let paths: Vec<&str> = seen.iter().map(|seen| seen.target()).collect();
    assert_eq!(paths, ["/stored", "/last"]);
}

#[test]
fn a_request_that_is_said_twice_is_copied_once() {
    let (bad, good) = (Origin::always(Respond::raw("")), Origin::always(ok("good")));
    let mirror = Origin::always(ok("mirror"));
    let edge = Edge::with(&format!(
        "listeners: [{{name: http, address: \"127.0.0.1:0\"}}]\n\
         upstreams:\n  main: {{health: off, breaker: off, addresses: [\"{}\", \"{}\"]}}\n  \
         shadow: {{health: off, addresses: [\"{}\"]}}\n\
         routes: [{{upstream: main, mirror: {{upstream: shadow}}}}]\n",
        bad.address, good.address, mirror.address
    ));
    for _ in 0..4 {
        edge.wire().request("PUT", "edge.test", "/", &[], b"whole").expect_body("good");
    }
    edge.wait_for_metric(&copies("answered"), 4.0);
    assert!(!bad.seen().is_empty());
    assert!(mirror.seen().iter().all(|seen| seen.body == b"whole"));
    assert_eq!(mirror.seen().len(), 4);
}
