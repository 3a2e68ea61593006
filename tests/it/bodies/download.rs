//! Response bodies.

use std::io::Read;
use std::io::Write;
use std::sync::mpsc;

use crate::bodies::BLOCK;
use crate::bodies::GROWTH;
use crate::bodies::growth;
use crate::bodies::unlimited;
use crate::harness::Edge;
use crate::harness::Origin;
use crate::harness::Origin2;
use crate::harness::PATIENCE;
use crate::harness::Wire;
use crate::harness::client::End;
use crate::harness::http2;
use crate::harness::ok;
use crate::protocols::edge_to;

/// An origin that sends this many bytes at `/down`, as fast as they are taken. Says when it is
/// through, and whether all were taken.
fn pouring(bytes: u64) -> (Origin, mpsc::Receiver<bool>) {
    let (ended, end) = mpsc::channel();
    let origin = Origin::script()
        .take_over("/down", move |_, mut stream| {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {bytes}\r\n\r\n");
            let mut taken = stream.write_all(head.as_bytes());
            let block = vec![b'x'; BLOCK];
            for _ in 0..bytes / BLOCK as u64 {
                taken = taken.and_then(|()| stream.write_all(&block));
            }
            let _ = ended.send(taken.is_ok());
            // The connection stays for as long as the other side wants it.
            let _ = stream.read(&mut [0; 1]);
        })
        .start();
    (origin, end)
}

/// Reads a reply's head, and then this many bytes, which it throws away.
fn discard(wire: &mut Wire, mut left: u64) {
    let mut block = vec![0; BLOCK];
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        wire.read_exact(&mut block[..1]).expect("a head comes");
        head.push(block[0]);
    }
    assert!(head.starts_with(b"HTTP/1.1 200 "), "{:?}", String::from_utf8_lossy(&head));
    while left > 0 {
        let most = usize::try_from(left).map_or(BLOCK, |left| left.min(BLOCK));
        let n = wire.read(&mut block[..most]).expect("the body comes");
        assert_ne!(n, 0, "{left} bytes are missing");
        left -= n as u64;
    }
}

#[test]
fn a_gibibyte_comes_down_while_memory_stays_flat() {
    const SIZE: u64 = 1 << 30;
    let (origin, _) = pouring(SIZE);
    let edge = unlimited(&origin);
    let mut wire = edge.wire();

    let grown = growth(&edge, || {
        wire.send("GET /down HTTP/1.1\r\nHost: a\r\n\r\n");
        discard(&mut wire, SIZE);
    });

    assert!(grown < GROWTH, "grew by {} MiB", grown >> 20);
}

#[test]
fn a_body_too_large_to_store_passes_while_memory_stays_flat() {
    const SIZE: u64 = 256 << 20;
    let (origin, _) = pouring(SIZE);
    let edge = Edge::with(&crate::harness::edge::simple(
        &origin,
        "defaults: {cache: {override_ttl: 1h, max_object: 1MiB}}",
    ));
    let mut wire = edge.wire();

    let grown = growth(&edge, || {
        wire.send("GET /down HTTP/1.1\r\nHost: a\r\n\r\n");
        discard(&mut wire, SIZE);
    });

    assert!(grown < GROWTH, "grew by {} MiB", grown >> 20);
}

/// Waits until the client's connection has nothing more to give: edge and kernel are full.
fn until_full(end: &mpsc::Receiver<bool>) {
    let still_pouring = end.recv_timeout(std::time::Duration::from_millis(700));
    assert!(still_pouring.is_err(), "everything was taken from the origin");
}

#[test]
fn a_client_that_does_not_read_holds_the_origin_back() {
    let (origin, end) = pouring(512 << 20);
    let edge = unlimited(&origin);
    let mut wire = edge.wire();
    edge.get("/warm").expect_status(404);
    let before = edge.resident();

    wire.send("GET /down HTTP/1.1\r\nHost: a\r\n\r\n");
    until_full(&end);

    let grown = edge.resident().saturating_sub(before);
    assert!(grown < 24 << 20, "grew by {} MiB", grown >> 20);
    // And then it goes on.
    discard(&mut wire, 512 << 20);
    assert_eq!(end.recv_timeout(PATIENCE), Ok(true));
}

#[test]
fn an_http_2_client_that_does_not_read_holds_the_origin_back() {
    let (origin, end) = pouring(512 << 20);
    let edge = unlimited(&origin);
    edge.get("/warm").expect_status(404);
    let before = edge.resident();

    http2::run(async {
        let h2 = http2::plain(edge.address("http")).await;
        let request = http::Request::get("http://edge.test/down").body(()).unwrap();
        let (response, _) = h2.ready().await.unwrap().send_request(request, true).unwrap();
        let response = response.await.unwrap();
        assert_eq!(response.status(), 200);
        tokio::task::block_in_place(|| until_full(&end));
        let grown = edge.resident().saturating_sub(before);
        assert!(grown < 24 << 20, "grew by {} MiB", grown >> 20);
        drop(response);
    });
}

#[test]
fn http_2_clients_that_do_not_read_hold_an_http_2_origin_back() {
    const CLIENTS: usize = 20;
    let origin = Origin2::start(None, |mut call| async move {
        let mut stream = call.answer.send_response(http::Response::new(()), false).unwrap();
        let block = bytes::Bytes::from(vec![b'x'; 64 << 10]);
        while http2::send_some(&mut stream, &block).await.is_some() {}
    });
    let edge = edge_to(&format!("addresses: [\"{}\"], protocol: http2", origin.address));
    let before = edge.resident();
    let wires: Vec<Wire> = (0..CLIENTS)
        .map(|_| {
            let mut wire = edge.wire();
            wire.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
            wire
        })
        .collect();

    // Memory grows until every buffer is full, and then no more.
    let mut last = 0;
    loop {
        std::thread::sleep(std::time::Duration::from_millis(300));
        let now = edge.resident();
        if now <= last + (1 << 20) {
            break;
        }
        last = now;
    }
    let each = edge.resident().saturating_sub(before) / CLIENTS as u64;
    assert!(each < 4 << 20, "{} KiB for each client", each >> 10);
    drop(wires);
}

#[test]
fn the_first_bytes_arrive_before_the_last_are_sent() {
    let (go_on, wait) = mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let origin = Origin::script()
        .take_over("/down", move |_, mut stream| {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello").unwrap();
            wait.lock().unwrap().recv().unwrap();
            stream.write_all(b"world").unwrap();
        })
        .start();

    for edge in [unlimited(&origin), Edge::to(&origin)] {
        let mut wire = edge.wire();
        wire.send("GET /down HTTP/1.1\r\nHost: a\r\n\r\n");
        let mut bytes = Vec::new();
        while !bytes.ends_with(b"\r\n\r\nhello") {
            let mut byte = [0; 1];
            wire.read_exact(&mut byte).expect("the body streams");
            bytes.push(byte[0]);
        }
        go_on.send(()).unwrap();
        assert_eq!(wire.read_raw(5), b"world");
    }
}

#[test]
fn chunks_arrive_when_they_are_sent() {
    let (go_on, wait) = mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let origin = Origin::script()
        .take_over("/down", move |_, mut stream| {
            stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap();
            for part in ["5\r\nfirst\r\n", "6\r\nsecond\r\n"] {
                stream.write_all(part.as_bytes()).unwrap();
                wait.lock().unwrap().recv().unwrap();
            }
            stream.write_all(b"0\r\n\r\n").unwrap();
        })
        .start();
    let edge = unlimited(&origin);
    let mut wire = edge.wire();

    wire.send("GET /down HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n\r\n");
    let mut bytes = Vec::new();
    for part in ["first\r\n", "second\r\n"] {
        while !bytes.ends_with(part.as_bytes()) {
            let mut byte = [0; 1];
            wire.read_exact(&mut byte).expect("the body streams");
            bytes.push(byte[0]);
        }
        go_on.send(()).unwrap();
    }
    assert_eq!(wire.read_raw(5), b"0\r\n\r\n");
}

#[test]
fn a_client_that_goes_away_ends_an_exchange_that_nobody_else_waits_for() {
    let (origin, end) = pouring(1 << 30);
    let edge = unlimited(&origin);
    let mut wire = edge.wire();
    wire.send("GET /down HTTP/1.1\r\nHost: a\r\n\r\n");
    discard(&mut wire, 1 << 20);

    drop(wire);

    assert_eq!(end.recv_timeout(PATIENCE), Ok(false), "the origin was read to the end");
    edge.get("/next").expect_status(404);
}

#[test]
fn an_http_2_stream_that_is_given_up_ends_its_exchange_alone() {
    let (origin, end) = pouring(1 << 30);
    let edge = unlimited(&origin);

    http2::run(async {
        let mut h2 = http2::plain(edge.address("http")).await;
        let request = http::Request::get("http://edge.test/down").body(()).unwrap();
        let (response, mut stream) =
            h2.clone().ready().await.unwrap().send_request(request, true).unwrap();
        let mut body = response.await.unwrap().into_body();
        body.data().await.unwrap().unwrap();
        stream.send_reset(h2::Reason::CANCEL);
        let ended = tokio::task::block_in_place(|| end.recv_timeout(PATIENCE));
        assert_eq!(ended, Ok(false), "the origin was read to the end");
        let next = http2::get(&mut h2, "http://edge.test/next", &[]).await.unwrap();
        assert_eq!(next.status, 404);
    });
}

#[test]
fn a_client_that_goes_away_before_there_is_an_answer_ends_the_exchange() {
    let (ended, end) = mpsc::channel();
    let origin = Origin::script()
        .take_over("/slow", move |_, mut stream| {
            ended.send(stream.read(&mut [0; 1]).is_ok_and(|n| n == 0)).unwrap();
        })
        .start();
    let edge = unlimited(&origin);
    let mut wire = edge.wire();
    wire.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    origin.wait_for(1);

    drop(wire);

    assert_eq!(end.recv_timeout(PATIENCE), Ok(true));
}

#[test]
fn a_body_that_the_origin_cuts_is_cut_for_the_client() {
    let origin = Origin::script()
        .take_over("/length", |_, mut stream| {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello").unwrap();
        })
        .take_over("/chunked", |_, mut stream| {
            let bytes = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";
            stream.write_all(bytes).unwrap();
        })
        .start();

    for edge in [unlimited(&origin), Edge::to(&origin)] {
        for path in ["/length", "/chunked"] {
            let mut wire = edge.wire();
            wire.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
            let reply = wire.reply();
            assert!(reply.status == 502 || reply.end == End::Cut, "{reply:?}");
        }
        http2::run(async {
            let mut h2 = http2::plain(edge.address("http")).await;
            for path in ["length", "chunked"] {
                let uri = format!("http://edge.test/{path}");
                let reply = http2::get(&mut h2, &uri, &[]).await;
                assert!(reply.as_ref().map_or(true, |reply| reply.status == 502), "{reply:?}");
            }
        });
    }
}

#[test]
fn a_stored_body_is_not_copied_for_each_of_its_readers() {
    const SIZE: usize = 8 << 20;
    const READERS: usize = 50;
    let body = ok(vec![b'x'; SIZE]).field("Cache-Control", "max-age=3600");
    let origin = Origin::script().on("/", body).start();
    let edge = Edge::with(&crate::harness::edge::simple(
        &origin,
        "defaults: {cache: {max_object: 16MiB}}",
    ));
    edge.get("/").expect_miss();
    edge.get("/").expect_hit();
    let before = edge.resident();

    // Each of them takes its head and leaves the rest where it is.
    let mut readers: Vec<Wire> = (0..READERS)
        .map(|_| {
            let mut wire = edge.wire();
            wire.send("GET / HTTP/1.1\r\nHost: edge.test\r\n\r\n");
            let mut head = [0; 15];
            wire.read_exact(&mut head).expect("a head comes");
            assert_eq!(&head, b"HTTP/1.1 200 OK");
            wire
        })
        .collect();

    let grown = edge.resident().saturating_sub(before);
    assert!(grown < GROWTH / 2, "grew by {} MiB for {READERS} readers", grown >> 20);
    // And all of them can read on to the end.
    for wire in &mut readers {
        let reply = {
            let mut rest = Vec::new();
            let mut block = vec![0; BLOCK];
            while rest.len() < SIZE {
                let n = wire.read(&mut block).expect("the body comes");
                assert_ne!(n, 0, "the body was cut");
                rest.extend_from_slice(&block[..n]);
            }
            rest
        };
        assert!(reply.ends_with(&[b'x'; 1024]));
    }
    assert_eq!(origin.seen().len(), 1);
}

#[test]
fn a_stored_body_reaches_http_2_readers_without_copies() {
    const SIZE: usize = 8 << 20;
    let body = ok(vec![b'x'; SIZE]).field("Cache-Control", "max-age=3600");
    let origin = Origin::script().on("/", body).start();
    let edge = Edge::with(&crate::harness::edge::simple(
        &origin,
        "defaults: {cache: {max_object: 16MiB}}",
    ));
    edge.get("/").expect_miss();
    edge.get("/").expect_hit();
    let before = edge.resident();

    http2::run(async {
        let h2 = http2::plain(edge.address("http")).await;
        let mut waiting = Vec::new();
        for _ in 0..50 {
            let request = http::Request::get("http://edge.test/").body(()).unwrap();
            let (response, _) =
                h2.clone().ready().await.unwrap().send_request(request, true).unwrap();
            let response = response.await.unwrap();
            assert_eq!(response.status(), 200);
            waiting.push(response.into_body());
        }
        let grown = edge.resident().saturating_sub(before);
        assert!(grown < GROWTH / 2, "grew by {} MiB", grown >> 20);
        drop(waiting);
    });
}

#[test]
fn of_what_a_head_asks_for_and_nobody_stores_little_is_read() {
    let (over, is_over) = mpsc::channel();
    let origin = Origin::script()
        .take_over("/a", move |_, mut stream| {
            let mut listens =
                stream.write_all(b"HTTP/1.1 200 OK\r\nCache-Control: no-store\r\n\r\n").is_ok();
            while listens {
                listens = stream.write_all(&[b'x'; 1000]).is_ok();
            }
            let _ = over.send(());
        })
        .otherwise(|_| ok("other"))
        .start();
    let edge = Edge::to(&origin);
    let mut wire = edge.wire();
    wire.request("HEAD", "edge.test", "/a", &[], b"").expect_status(200);
    is_over.recv_timeout(PATIENCE).expect("the origin is let go");
    wire.get("edge.test", "/b", &[]).expect_status(200).expect_body("other");
    edge.wait_for_gauge("edgeproxy_backend_pool_in_use{", 0.0);
}
