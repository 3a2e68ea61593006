//! Request bodies.

use std::io::Read;
use std::io::Write;
use std::sync::mpsc;

use bytes::Bytes;
use http::Request;

use crate::bodies::BLOCK;
use crate::bodies::GROWTH;
use crate::bodies::growth;
use crate::bodies::unlimited;
use crate::harness::Edge;
use crate::harness::Origin;
use crate::harness::PATIENCE;
use crate::harness::edge::simple;
use crate::harness::http2;
use crate::harness::ok;

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";

/// An origin that reads this many bytes of a body at `/up`, then answers.
fn swallowing(bytes: u64) -> Origin {
    Origin::script()
        .take_over("/up", move |_, mut stream| {
            let mut left = bytes;
            let mut block = vec![0; BLOCK];
            while left > 0 {
                let n = stream.read(&mut block).expect("the body comes");
                assert_ne!(n, 0, "{left} bytes are missing");
                left = left.checked_sub(n as u64).expect("no more than the body comes");
            }
            stream.write_all(OK).expect("the answer is taken");
        })
        .start()
}

#[test]
fn a_gibibyte_goes_up_while_memory_stays_flat() {
    const SIZE: u64 = 1 << 30;
    let origin = swallowing(SIZE);
    let edge = unlimited(&origin);
    let mut wire = edge.wire();

    let grown = growth(&edge, || {
        wire.send(format!("POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: {SIZE}\r\n\r\n"));
        let block = vec![b'x'; BLOCK];
        for _ in 0..SIZE / BLOCK as u64 {
            wire.send(&block);
        }
        wire.reply().expect_status(200).expect_body("ok");
    });

    assert!(grown < GROWTH, "grew by {} MiB", grown >> 20);
}

#[test]
fn an_origin_that_does_not_read_holds_the_client_back() {
    let (may_read, wait) = mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let origin = Origin::script()
        .take_over("/up", move |_, mut stream| {
            let _ = wait.lock().unwrap().recv();
            let _ = std::io::copy(&mut stream, &mut std::io::sink());
        })
        .start();
    let edge = unlimited(&origin);
    let mut wire = edge.wire();
    wire.send(format!("POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", 1u64 << 30));

    let (told, sent) = mpsc::channel();
    let client = std::thread::spawn(move || {
        let block = vec![b'x'; BLOCK];
        while wire.try_send(&block).is_ok() && told.send(BLOCK).is_ok() {}
    });
    let before = edge.resident();
    let mut taken = 0usize;
    // Until nothing moves any more: all that is between us and the origin is full.
    while let Ok(bytes) = sent.recv_timeout(std::time::Duration::from_millis(700)) {
        taken += bytes;
    }

    let grown = edge.resident().saturating_sub(before);
    assert!(taken < 256 << 20, "{} MiB were taken", taken >> 20);
    // A segment or two of the allocator, and nothing that grows with what is sent.
    assert!(grown < 24 << 20, "grew by {} MiB", grown >> 20);
    drop(may_read);
    drop(sent);
    drop(edge);
    client.join().unwrap();
}

#[test]
fn the_first_bytes_reach_the_origin_before_the_last_are_sent() {
    let (seen, first) = mpsc::channel();
    let origin = Origin::script()
        .take_over("/up", move |_, mut stream| {
            let mut byte = [0; 1];
            stream.read_exact(&mut byte).unwrap();
            seen.send(()).unwrap();
            let mut rest = vec![0; (1 << 20) - 1];
            stream.read_exact(&mut rest).unwrap();
            stream.write_all(OK).unwrap();
        })
        .start();
    let edge = Edge::to(&origin);
    let mut wire = edge.wire();

    wire.send(format!("POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", 1 << 20));
    // More than is spooled, less than the whole.
    wire.send(vec![b'x'; 1 << 19]);
    first.recv_timeout(PATIENCE).expect("the body streams");
    wire.send(vec![b'x'; 1 << 19]);

    wire.reply().expect_status(200);
}

#[test]
fn a_small_body_reaches_the_origin_whole_and_once() {
    let origin = Origin::script().otherwise(|seen| ok(seen.body.clone())).start();
    let edge = Edge::to(&origin);
    let mut wire = edge.wire();

    wire.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n");
    wire.send("hello");
    // Spooled: what is not whole yet has not asked for a connection.
    assert_eq!(origin.connections(), 0);
    wire.send("world");

    wire.reply().expect_status(200).expect_body("helloworld");
    assert_eq!(origin.seen().len(), 1);
    assert_eq!(origin.seen()[0].value("content-length"), Some("10"));
}

#[test]
fn bodies_around_the_spools_size_arrive_whole() {
    let origin = Origin::script().otherwise(|seen| ok(seen.body.len().to_string())).start();
    let edge = Edge::to(&origin);
    let mut wire = edge.wire();
    let sizes = [0, 1, 16, 32, 47, 48, 49, 63, 64, 65, 80, 128].map(|kib: usize| kib * 1024);

    for size in sizes.into_iter().flat_map(|size| [size.saturating_sub(1), size, size + 1]) {
        let body = vec![b'x'; size];
        let reply = wire.request("POST", "edge.test", "/", &[], &body);
        reply.expect_status(200).expect_body(&size.to_string());
    }
}

#[test]
fn a_body_is_not_changed_on_its_way() {
    let origin = Origin::script().otherwise(|seen| ok(seen.body.clone())).start();
    let edge = Edge::to(&origin);
    let body: Vec<u8> = (0..500_000u32).map(|n| (n % 253) as u8).collect();

    let reply = edge.wire().request("POST", "edge.test", "/", &[], &body);

    assert!(reply.body == body, "{} bytes came back", reply.body.len());
}

#[test]
fn chunked_bodies_arrive_whole() {
    let origin = Origin::script().otherwise(|seen| ok(seen.body.clone())).start();
    let edge = Edge::to(&origin);
    let mut wire = edge.wire();

    for (chunks, chunk) in [(1, 1), (100, 1), (3, 40_000), (20, 10_000), (0, 0)] {
        wire.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
        let mut whole = Vec::new();
        for n in 0..chunks {
            let part = vec![b'a' + (n % 26) as u8; chunk];
            wire.send(format!("{chunk:x};ext=1\r\n"));
            wire.send(&part);
            wire.send("\r\n");
            whole.extend_from_slice(&part);
        }
        wire.send("0\r\n\r\n");
        let reply = wire.reply();
        reply.expect_status(200);
        assert!(reply.body == whole, "{chunks} chunks of {chunk}: {} bytes", reply.body.len());
    }
}

#[test]
fn a_chunked_body_over_the_limit_is_refused_wherever_it_crosses() {
    let origin = Origin::script().otherwise(|_| ok("x")).start();
    let edge = Edge::with(&simple(&origin, "defaults: {max_body: 100KiB}"));

    let sent = |bytes: usize| {
        let mut wire = edge.wire();
        wire.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
        wire.send(format!("{bytes:x}\r\n"));
        // It may be refused before all of it was taken.
        let _ = wire.try_send(vec![b'x'; bytes]);
        let _ = wire.try_send("\r\n0\r\n\r\n");
        wire.reply().status
    };
    assert_eq!(sent(100 << 10), 200);
    assert_eq!(sent((100 << 10) + 1), 413);
    assert_eq!(sent(300 << 10), 413);
}

#[test]
fn a_body_that_ends_early_is_not_passed_on_as_whole() {
    let (seen, ended) = mpsc::channel();
    let origin = Origin::script()
        .take_over("/up", move |_, mut stream| {
            let mut bytes = Vec::new();
            let end = stream.read_to_end(&mut bytes);
            seen.send((bytes, end.is_ok())).unwrap();
        })
        .start();
    let edge = Edge::to(&origin);
    let mut wire = edge.wire();

    wire.send("POST /up HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    wire.send(format!("{:x}\r\n", 1 << 20));
    wire.send(vec![b'x'; 1 << 19]);
    origin.wait_for(1);
    drop(wire);

    let (bytes, _) = ended.recv_timeout(PATIENCE).expect("the exchange ends");
    assert!(!bytes.ends_with(b"0\r\n\r\n"), "a cut body was ended as if it were whole");
}

#[test]
fn an_http_2_body_streams_while_memory_stays_flat() {
    const SIZE: u64 = 128 << 20;
    let origin = Origin::script()
        .take_over("/up", |seen, mut stream| {
            // Of unknown length, hence in chunks; their framing is the edge's affair.
            assert_eq!(seen.value("transfer-encoding"), Some("chunked"));
            let mut tail = Vec::new();
            let mut block = vec![0; BLOCK];
            while !tail.ends_with(b"0\r\n\r\n") {
                let n = stream.read(&mut block).expect("the body comes");
                assert_ne!(n, 0, "the body was cut");
                tail.extend_from_slice(&block[..n]);
                tail.drain(..tail.len().saturating_sub(8));
            }
            stream.write_all(OK).expect("the answer is taken");
        })
        .start();
    let edge = unlimited(&origin);
    let to = edge.address("http");

    let grown = growth(&edge, || {
        http2::run(async {
            let h2 = http2::plain(to).await;
            let request = Request::post("http://edge.test/up").body(()).unwrap();
            let (response, mut sending) =
                h2.ready().await.unwrap().send_request(request, false).unwrap();
            let block = Bytes::from(vec![b'x'; 64 << 10]);
            let mut left = SIZE;
            while left > 0 {
                let most = block.slice(..block.len().min(usize::try_from(left).unwrap()));
                left -= http2::send_some(&mut sending, &most).await.expect("it is taken") as u64;
            }
            sending.send_data(Bytes::new(), true).unwrap();
            assert_eq!(response.await.unwrap().status(), 200);
        });
    });

    assert!(grown < GROWTH, "grew by {} MiB", grown >> 20);
}
