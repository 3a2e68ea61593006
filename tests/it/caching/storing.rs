//! What is kept, and what is not.

use std::io::Write;

use crate::caching::minute;
use crate::caching::numbered;
use crate::caching::with_rules;
use crate::harness::Edge;
use crate::harness::Origin;
use crate::harness::Respond;
use crate::harness::client::End;
use crate::harness::ok;
use crate::harness::status;

/// Asked for twice, it is twice answered by the origin.
#[track_caller]
fn is_never_stored(respond: Respond) {
    let origin = Origin::script().with("/", numbered(respond)).start();
    let edge = Edge::to(&origin);
    edge.get("/").expect_miss();
    edge.get("/").expect_miss();
    assert_eq!(origin.seen().len(), 2);
}

/// The client sees that something is missing: the connection ends within the body, or before it.
#[track_caller]
fn is_cut(edge: &Edge) {
    let mut wire = edge.wire();
    wire.send("GET / HTTP/1.1\r\nHost: edge.test\r\n\r\n");
    if let Some(reply) = wire.any_reply("GET") {
        assert!(reply.end == End::Cut || reply.status == 502, "{reply:?}");
    }
}

#[track_caller]
fn is_stored(respond: Respond) {
    let origin = Origin::script().with("/", numbered(respond)).start();
    let edge = Edge::to(&origin);
    let first = edge.get("/");
    first.expect_miss();
    edge.get("/").expect_hit().expect_status(first.status).expect_body(&first.text());
    assert_eq!(origin.seen().len(), 1);
}

#[test]
fn no_store_and_private_are_never_stored() {
    for directives in ["no-store", "private", "no-store, max-age=60", "max-age=60, private"] {
        is_never_stored(ok("").field("Cache-Control", directives));
    }
    is_never_stored(minute("").field("Cache-Control", "No-Store"));
    is_never_stored(minute("").field("Cache-Control", "private=\"Set-Cookie\", private"));
}

#[test]
fn no_cache_is_stored_and_never_served_unasked() {
    let origin = Origin::script()
        .with("/", numbered(ok("").field("Cache-Control", "no-cache").field("ETag", "\"1\"")))
        .start();
    let edge = Edge::to(&origin);
    edge.get("/").expect_miss();
    edge.get("/").expect_body("answer 1");
    assert_eq!(origin.seen()[1].value("if-none-match"), Some("\"1\""));
}

#[test]
fn a_response_that_sets_a_cookie_is_not_stored() {
    is_never_stored(minute("").field("Set-Cookie", "id=1"));
}

#[test]
fn a_route_may_store_without_the_cookie() {
    let origin = Origin::script().on("/", minute("page").field("Set-Cookie", "id=1")).start();
    let edge = with_rules(&origin, "{set_cookie: strip}");
    edge.get("/").expect_miss();
    let hit = edge.get("/");
    hit.expect_hit().expect_body("page");
    assert_eq!(hit.value("set-cookie"), None, "{hit:?}");
}

#[test]
fn a_route_may_keep_the_cookie_for_everybody() {
    let origin = Origin::script().on("/", minute("page").field("Set-Cookie", "shard=1")).start();
    let edge = with_rules(&origin, "{set_cookie: keep}");
    edge.get("/").expect_miss();
    let hit = edge.get("/");
    hit.expect_hit().expect_body("page");
    assert_eq!(hit.value("set-cookie"), Some("shard=1"), "{hit:?}");
}

#[test]
fn errors_that_say_nothing_are_not_stored() {
    for code in [400, 403, 404, 500, 502, 503] {
        is_never_stored(status(code));
    }
}

#[test]
fn errors_are_not_stored_by_a_default_lifetime_either() {
    let origin = Origin::script().otherwise(|_| status(404).body("none")).start();
    let edge = with_rules(&origin, "{ttl: 1m}");
    edge.get("/").expect_miss();
    edge.get("/").expect_miss();
}

#[test]
fn a_404_with_a_lifetime_is_stored() {
    is_stored(status(404).field("Cache-Control", "max-age=60"));
}

#[test]
fn redirects_and_empty_answers_with_a_lifetime_are_stored() {
    for code in [204, 301, 302, 308, 410] {
        let respond = status(code).field("Cache-Control", "max-age=60").field("Location", "/a");
        let origin = Origin::always(respond);
        let edge = Edge::to(&origin);
        edge.get("/").expect_miss().expect_status(code);
        edge.get("/").expect_hit().expect_status(code);
    }
}

#[test]
fn a_part_that_nobody_asked_for_is_never_stored() {
    let part = status(206).field("Cache-Control", "max-age=60");
    is_never_stored(part.field("Content-Range", "bytes 0-7/100"));
}

#[test]
fn a_304_that_nobody_asked_for_never_reaches_the_client() {
    let origin = Origin::always(status(304).field("Cache-Control", "max-age=60"));
    let edge = Edge::to(&origin);
    edge.get("/").expect_status(502);
    edge.get("/").expect_status(502);
    assert_eq!(origin.seen().len(), 2);
}

#[test]
fn a_body_cut_short_of_its_length_is_never_stored() {
    let cut = "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 10\r\n\r\nfive!";
    let origin = Origin::always(Respond::raw(cut));
    let edge = Edge::to(&origin);
    for seen in 1..=2 {
        is_cut(&edge);
        assert_eq!(origin.seen().len(), seen);
    }
}

#[test]
fn chunks_without_an_end_are_never_stored() {
    let cut = "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nTransfer-Encoding: chunked\r\n\r\n\
               5\r\nfive!\r\n";
    let origin = Origin::always(Respond::raw(cut));
    let edge = Edge::to(&origin);
    for seen in 1..=2 {
        is_cut(&edge);
        assert_eq!(origin.seen().len(), seen);
    }
}

#[test]
fn chunks_that_end_are_stored() {
    let whole = "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nTransfer-Encoding: chunked\r\n\r\n\
                 5\r\nfive!\r\n4\r\nnine\r\n0\r\n\r\n";
    let origin = Origin::always(Respond::raw(whole));
    let edge = Edge::to(&origin);
    edge.get("/").expect_miss().expect_body("five!nine");
    let hit = edge.get("/");
    hit.expect_hit().expect_body("five!nine");
    assert_eq!(hit.end, End::Whole);
    // By now the length is known.
    assert_eq!(hit.value("content-length"), Some("9"), "{hit:?}");
    edge.get_with("/", &[("Range", "bytes=5-")]).expect_status(206).expect_body("nine");
    edge.get_with("/", &[("If-None-Match", "*")]).expect_status(304);
}

#[test]
fn a_client_that_leaves_does_not_leave_half_a_response_behind() {
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let origin = Origin::script()
        .take_over("/", move |_, mut stream| {
            let head = "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 10\r\n\r\n";
            let _ = stream.write_all(head.as_bytes());
            let _ = stream.write_all(b"five!");
            // The rest comes only for those that wait for it.
            let _ = wait.lock().expect("nobody panics with it").recv();
            let _ = stream.write_all(b"and 5");
        })
        .start();
    let edge = Edge::to(&origin);
    let mut leaving = edge.wire();
    leaving.send("GET / HTTP/1.1\r\nHost: edge.test\r\n\r\n");
    origin.wait_for(1);
    drop(leaving);
    go.send(()).expect("the origin listens");
    go.send(()).expect("the origin listens");
    edge.get("/").expect_status(200).expect_body("five!and 5");
}

#[test]
fn a_body_larger_than_the_route_allows_passes_unstored() {
    let large = "x".repeat(5000);
    let origin = Origin::script()
        .on("/sized", minute(&large))
        .with("/chunked", {
            let large = large.clone();
            move |_| {
                let body = format!("{:x}\r\n{large}\r\n0\r\n\r\n", large.len());
                ok(body).field("Cache-Control", "max-age=60").field("Transfer-Encoding", "chunked")
            }
        })
        .on("/small", minute("small"))
        .start();
    let edge = with_rules(&origin, "{max_object: 4KiB}");
    for path in ["/sized", "/chunked"] {
        edge.get(path).expect_miss().expect_body(&large);
        edge.get(path).expect_miss().expect_body(&large);
    }
    edge.get("/small").expect_miss();
    edge.get("/small").expect_hit();
}

#[test]
fn a_route_without_cache_says_bypass() {
    let origin = Origin::script().with("/", numbered(minute(""))).start();
    let edge = with_rules(&origin, "off");
    edge.get("/").expect_cache("BYPASS").expect_body("answer 0");
    edge.get("/").expect_cache("BYPASS").expect_body("answer 1");
}

#[test]
fn hits_do_not_carry_the_origins_connection_fields() {
    let origin = Origin::always(
        minute("a").field("Connection", "X-Hop").field("X-Hop", "1").field("Keep-Alive", "5"),
    );
    let edge = Edge::to(&origin);
    edge.get("/").expect_miss();
    let hit = edge.get("/");
    for name in ["x-hop", "keep-alive"] {
        assert_eq!(hit.expect_hit().value(name), None, "{hit:?}");
    }
}

#[test]
fn repeated_fields_come_back_as_they_came() {
    let origin = Origin::always(minute("a").field("X-Two", "1").field("X-Two", "2"));
    let edge = Edge::to(&origin);
    edge.get("/").expect_miss();
    assert_eq!(edge.get("/").expect_hit().values("x-two"), ["1", "2"]);
}

#[test]
fn hits_go_on_when_the_origin_is_down() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback");
    let address = listener.local_addr().expect("bound");
    let edge = Edge::with(&format!(
        "listeners:\n  - {{name: http, address: \"127.0.0.1:0\"}}\n\
         upstreams:\n  origin:\n    addresses: [\"{address}\"]\n\
         routes:\n  - {{upstream: origin}}\n"
    ));
    let once = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("edgeproxy connects");
        let _ = std::io::Read::read(&mut stream, &mut [0; 4096]);
        let whole = "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 2\r\n\
                     Connection: close\r\n\r\nok";
        let _ = stream.write_all(whole.as_bytes());
        // Both sockets are closed here: nobody listens any more.
    });
    edge.get("/").expect_miss().expect_body("ok");
    once.join().expect("the origin ends");
    edge.get("/other").expect_status(502);
    edge.get("/").expect_hit().expect_body("ok");
}

#[test]
fn a_body_cut_on_a_connection_that_was_used_before_is_never_stored() {
    let cut = "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 10\r\n\r\nfive!";
    let origin = Origin::script().on("/", Respond::raw(cut)).otherwise(|_| ok("warm")).start();
    let edge = Edge::to(&origin);
    for _ in 0..3 {
        edge.get("/warm").expect_status(200);
        is_cut(&edge);
    }
    edge.get("/warm").expect_status(200);
    assert_eq!(edge.metric("edgeproxy_cache_objects"), 0.0);
    assert!(!edge.log().iter().any(|line| line.contains("panicked")), "{:?}", edge.log());
}
