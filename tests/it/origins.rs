//! Origins that misbehave: the client learns of it, nothing of it is stored, and nobody else notices.

mod carriers;
mod early;
mod faults;
mod multiplexed;
mod patience;
mod promised;
mod through;
mod through_http2;
mod through_to_http2;

use std::io::Read;
use std::io::Write;
use std::net::Shutdown;
use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::time::Duration;
use std::time::Instant;

use crate::harness::Edge;
use crate::harness::Origin;
use crate::harness::Respond;
use crate::harness::client::End;
use crate::harness::edge::NEAR;
use crate::harness::edge::simple;
use crate::harness::edge::timeouts;
use crate::harness::http2;
use crate::harness::nobody;
use crate::harness::ok;

/// Sooner than any deadline that a test is not about, and far later than one that it is about.
const LATE: Duration = Duration::from_secs(10);

/// One origin, which is asked once. The only deadline is `near`.
fn quick(origin: &Origin, more: &str, near: Option<&str>) -> Edge {
    let keys = format!("{}\n    retry: off\n    addresses:", timeouts(near));
    Edge::with(&simple(origin, more).replace("addresses:", &keys))
}

/// One origin, with no deadline anywhere near.
fn patient(origin: &Origin) -> Edge {
    let keys = format!("{}\n    addresses:", timeouts(None));
    Edge::with(&simple(origin, "").replace("addresses:", &keys))
}

/// It is over, and for that no deadline had to pass: all of them are far away.
#[track_caller]
fn at_once(began: Instant, told: &str) {
    assert!(began.elapsed() < LATE, "{told}: {:?}", began.elapsed());
}

/// It is over after this deadline, and the others are far away.
#[track_caller]
fn after(deadline: Duration, began: Instant, told: &str) {
    let took = began.elapsed();
    assert!(took >= deadline && took < LATE, "{told}: {took:?}");
}

/// A head that makes everything behind it storable.
fn head(lines: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\n{lines}\r\n\r\n")
}

/// A whole response that begins with this status line.
fn starting(line: &str) -> String {
    format!("{line}\r\nCache-Control: max-age=60\r\nContent-Length: 4\r\n\r\nbody")
}

/// Asks twice for what the origin answers so: both times the origin is asked, and each time the
/// client is told the truth.
#[track_caller]
fn is_refused(answers: &[String], status: u16, refusal: &str) {
    for answer in answers {
        let told = format!("{:.200}", format!("{answer:?}"));
        let origin = Origin::always(Respond::raw(answer.as_bytes()));
        let edge = patient(&origin);
        let began = Instant::now();
        let reply = edge.get("/a");
        at_once(began, &told);
        assert_eq!(reply.status, status, "{told}: {reply:?}");
        assert_eq!(reply.end, End::Whole, "{told}: {reply:?}");
        assert!(!reply.text().contains("body"), "{told}: {reply:?}");

        let json = edge.get_with("/a", &[("Accept", "application/json")]);
        assert_eq!(json.value("content-type"), Some("application/problem+json"), "{told}");
        let body: serde_json::Value = serde_json::from_slice(&json.body).expect("JSON");
        assert_eq!(body["status"], status, "{told}");
        assert_eq!(body["reason"], refusal, "{told}");
        assert!(origin.seen().len() >= 2, "{told} was stored");

        edge.wait_for_metric(&format!("edgeproxy_refusals_total{{reason=\"{refusal}\"}}"), 2.0);
        edge.wait_for_metric(
            &format!("edgeproxy_upstream_errors_total{{reason=\"{refusal}\",upstream=\"origin\"}}"),
            2.0,
        );
        edge.wait_for_access(&format!("\"refusal\":\"{refusal}\""));
    }
}

#[test]
fn a_head_that_is_none_is_a_bad_gateway() {
    is_refused(
        &[
            "garbage\r\n\r\n".to_owned(),
            "SSH-2.0-OpenSSH_9.7\r\n".to_owned(),
            "\0\u{1}\u{2}\u{3}".to_owned(),
            starting("HTTP/1.1 abc OK"),
            starting("HTTP/1.1 99 OK"),
            starting("HTTP/1.1 600 OK"),
            starting("HTTP/1.1 2000 OK"),
            starting("HTTP/1.1  200 OK"),
            starting("HTTP/2.0 200 OK"),
            starting("HTTP/0.9 200 OK"),
            starting("http/1.1 200 OK"),
            starting("HTTP/1.1 200 O\0K"),
            starting("\r\nHTTP/1.1 200 OK"),
            starting("HTTP/1.1 200 OK").replace("\r\n", "\n"),
        ],
        502,
        "origin_malformed",
    );
}

#[test]
fn a_field_that_is_none_is_a_bad_gateway() {
    let with = |line: &str| format!("{}body", head(&format!("Content-Length: 4\r\n{line}")));
    is_refused(
        &[
            with("X : y"),
            with("X: y\r\n z"),
            with("nonsense"),
            with(": y"),
            with("X: a\0b"),
            with("X: a\rb"),
            with("X: a\nb"),
            with(&format!("X: {}", "y".repeat(70_000))),
            with(&vec!["X: y"; 300].join("\r\n")),
        ],
        502,
        "origin_malformed",
    );
}

#[test]
fn a_framing_with_two_readings_is_a_bad_gateway() {
    let with = |lines: &str, body: &str| format!("{}{body}", head(lines));
    let chunked = "4\r\nbody\r\n0\r\n\r\n";
    let coded = |value: &str| with(&format!("Transfer-Encoding: {value}"), chunked);
    is_refused(
        &[
            with("Content-Length: 4\r\nTransfer-Encoding: chunked", chunked),
            with("Transfer-Encoding: chunked\r\nContent-Length: 4", chunked),
            with("Content-Length: 4\r\nContent-Length: 5", "body"),
            with("Content-Length: 4\r\nContent-Length: 4", "body"),
            with("Content-Length: 4, 4", "body"),
            with("Content-Length: +4", "body"),
            with("Content-Length: -4", "body"),
            with("Content-Length: 0x4", "body"),
            with("Content-Length:", "body"),
            with("Content-Length: 18446744073709551620", "body"),
            coded("identity"),
            coded("cow"),
            coded("xchunked"),
            coded("gzip, chunked"),
            coded("chunked, identity"),
            coded("chunked, chunked"),
            with("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", chunked),
            coded("chunked").replace("HTTP/1.1", "HTTP/1.0"),
            with("Content-Length: 4", "body").replace("200 OK", "204 No Content"),
            coded("chunked").replace("200 OK", "204 No Content"),
        ],
        502,
        "origin_malformed",
    );
}

#[test]
fn switching_unasked_and_interim_responses_without_end_are_a_bad_gateway() {
    let interim = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
    let switch = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket";
    let end = starting("HTTP/1.1 200 OK");
    is_refused(
        &[
            format!("{switch}\r\n\r\nbody"),
            format!("{switch}\r\n\r\n{end}"),
            format!("{}{end}", "HTTP/1.1 100 Continue\r\n\r\n".repeat(17)),
        ],
        502,
        "origin_malformed",
    );
    // Those that came before it are passed on as they come.
    let origin = Origin::always(Respond::raw(format!("{}{end}", interim.repeat(40))));
    let edge = Edge::to(&origin);
    edge.get("/a").expect_status(502);
    // As many as are allowed do no harm.
    let origin = Origin::always(Respond::raw(format!("{}{end}", interim.repeat(16))));
    Edge::to(&origin).get("/a").expect_status(200).expect_body("body");
}

#[test]
fn an_end_before_the_header_is_a_bad_gateway() {
    is_refused(
        &[
            String::new(),
            "H".to_owned(),
            "HTTP/1.1 200 OK\r\n".to_owned(),
            "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n".to_owned(),
            "HTTP/1.1 100 Continue\r\n\r\n".to_owned(),
        ],
        502,
        "origin_closed",
    );
}

/// Bodies that do not end as their framing says, in two parts: the first one arrives well.
fn broken_bodies() -> Vec<(String, &'static str)> {
    let length = || head("Content-Length: 100");
    let chunked = || head("Transfer-Encoding: chunked");
    vec![
        (length(), ""),
        (length(), "body"),
        (chunked(), ""),
        (chunked(), "4\r\nbody"),
        (chunked(), "4\r\nbody\r\n"),
        (chunked(), "4\r\nbody\r\n0\r\n"),
        (chunked(), "4\r\nbody\r\n\r\n"),
        (chunked(), "4\r\nbody\r\n\r\n\r\n"),
        (chunked(), "4\r\nbody\r\n;a=b\r\n\r\n"),
        (chunked(), "4\r\nbody\r\nx\r\n\r\n"),
        (chunked(), "4\r\nbody\r\n-1\r\n\r\n"),
        (chunked(), "4\r\nbody\r\n0x0\r\n\r\n"),
        (chunked(), "4\r\nbodies\r\n0\r\n\r\n"),
        (chunked(), "4\r\nbody\r\nffffffffffffffff\r\nbody"),
        (chunked(), "4\r\nbody\r\n0\r\nContent-Length: 4\r\n\r\n"),
        (chunked(), "4\nbody\n0\n\n"),
    ]
}

/// Gives these two parts, the second one when the first has gone its way.
fn in_parts(first: String, second: &'static str) -> Origin {
    Origin::script()
        .take_over("/a", move |_, mut stream| {
            let _ = stream.write_all(first.as_bytes());
            std::thread::sleep(Duration::from_millis(20));
            let _ = stream.write_all(second.as_bytes());
            let _ = stream.shutdown(Shutdown::Write);
            let _ = stream.read(&mut [0]);
        })
        .start()
}

#[test]
fn a_body_that_ends_early_is_never_shown_as_whole() {
    for (first, second) in broken_bodies() {
        let told = format!("{first:?} {second:?}");
        let origin = in_parts(first, second);
        let edge = patient(&origin);
        for _ in 0..2 {
            let began = Instant::now();
            let reply = edge.get("/a");
            at_once(began, &told);
            let refused = reply.status == 502 && reply.end == End::Whole;
            assert!(refused || reply.end == End::Cut, "{told}: {reply:?}");
            assert_ne!(reply.value("x-cache"), Some("HIT"), "{told}");
        }
        assert!(origin.seen().len() >= 2, "{told} was stored");
        edge.wait_for_metric("edgeproxy_upstream_errors_total{", 2.0);

        http2::run(async {
            let mut send = http2::plain(edge.address("http")).await;
            let reply = http2::get(&mut send, "http://edge.test/a", &[]).await;
            assert!(reply.is_err() || reply.is_ok_and(|r| r.status == 502), "{told}");
        });

        // Without framing of its own, only a reset says that this was not all.
        let mut old = edge.wire();
        old.send("GET /a HTTP/1.0\r\nHost: edge.test\r\n\r\n");
        let (bytes, reset) = old.until_reset();
        assert!(reset || bytes.starts_with(b"HTTP/1.1 502"), "{told}");
    }
}

#[test]
fn what_an_origin_sends_beyond_its_length_is_discarded_and_never_answers_anybody() {
    let smuggled = "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 4\r\n\r\nevil";
    let origin = Origin::script()
        .on("/a", Respond::raw(format!("{}body{smuggled}", head("Content-Length: 4"))))
        .on("/b", ok("good").field("Cache-Control", "max-age=60"))
        .start();
    let edge = Edge::to(&origin);
    edge.get("/a").expect_status(200).expect_miss().expect_body("body");
    edge.get("/b").expect_status(200).expect_miss().expect_body("good");
    edge.get("/a").expect_hit().expect_body("body");
    edge.get("/b").expect_hit().expect_body("good");
}

#[test]
fn a_reset_is_a_bad_gateway_or_a_cut() {
    for sent in
        [String::new(), "HTTP/1.1 200".to_owned(), format!("{}bo", head("Content-Length: 4"))]
    {
        let sent_by_origin = sent.clone();
        let origin = Origin::script()
            .take_over("/a", move |_, mut stream| {
                let _ = stream.write_all(sent_by_origin.as_bytes());
                let now = Some(Duration::ZERO);
                socket2::SockRef::from(&stream).set_linger(now).expect("an option can be set");
            })
            .start();
        let edge = patient(&origin);
        let began = Instant::now();
        let reply = edge.get("/a");
        at_once(began, &sent);
        assert!(reply.status == 502 || reply.end == End::Cut, "{sent:?}: {reply:?}");
        edge.wait_for_metric("edgeproxy_upstream_errors_total{", 1.0);
    }
}

#[test]
fn a_refused_connection_is_a_bad_gateway() {
    let mut origin = Origin::always(ok(""));
    origin.address = nobody();
    let edge = patient(&origin);
    let began = Instant::now();
    edge.get("/a").expect_status(502);
    at_once(began, "with all attempts");
    let json = edge.get_with("/a", &[("Accept", "application/json")]);
    assert!(json.text().contains("\"reason\":\"connect_failed\""), "{json:?}");
    edge.wait_for_metric("edgeproxy_refusals_total{reason=\"connect_failed\"}", 2.0);
}

#[test]
fn a_connection_that_nobody_accepts_is_a_gateway_timeout() {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)
        .expect("a socket can be made");
    let any: std::net::SocketAddr = "127.0.0.1:0".parse().expect("an address");
    socket.bind(&any.into()).expect("loopback can be bound");
    socket.listen(0).expect("it can listen");
    let address = socket.local_addr().expect("an address").as_socket().expect("of IP");
    // Two fill its queue; whoever comes next waits.
    let short = Duration::from_millis(200);
    let _full: Vec<_> = (0..3).map(|_| TcpStream::connect_timeout(&address, short)).collect();
    let mut origin = Origin::always(ok(""));
    origin.address = address;
    let edge = quick(&origin, "", Some("connect"));
    let began = Instant::now();
    edge.get("/a").expect_status(504);
    after(NEAR, began, "nobody accepts");
    edge.wait_for_metric("edgeproxy_refusals_total{reason=\"connect_timeout\"}", 1.0);
}

/// Says this, then nothing, until the other side gives up.
fn falls_silent(after: String) -> Origin {
    Origin::script()
        .take_over("/a", move |_, mut stream| {
            let _ = stream.write_all(after.as_bytes());
            let _ = stream.read_to_end(&mut Vec::new());
        })
        .start()
}

#[test]
fn silence_is_a_gateway_timeout_or_a_cut() {
    std::thread::scope(|threads| {
        for said in [
            String::new(),
            "HTTP/1.1 200 OK\r\nX: ".to_owned(),
            "HTTP/1.1 100 Continue\r\n\r\n".to_owned(),
            format!("{}bo", head("Content-Length: 4")),
            format!("{}4\r\nbody\r\n", head("Transfer-Encoding: chunked")),
            format!("{}4\r\nbody\r\n0\r\n", head("Transfer-Encoding: chunked")),
            format!("{}body", head("X: y")),
        ] {
            threads.spawn(move || a_silent_origin_is_given_up(said));
        }
    });
}

fn a_silent_origin_is_given_up(said: String) {
    let origin = falls_silent(said.clone());
    let edge = quick(&origin, "", Some("read"));
    let began = Instant::now();
    let reply = edge.get("/a");
    after(NEAR, began, &said);
    if said.contains("max-age") {
        assert_eq!((reply.status, reply.end), (200, End::Cut), "{said:?}: {reply:?}");
    } else {
        assert_eq!((reply.status, reply.end), (504, End::Whole), "{said:?}: {reply:?}");
    }
    edge.wait_for_metric("edgeproxy_refusals_total{reason=\"origin_timeout\"}", 1.0);
    let again = edge.get("/a");
    assert!(again.status == 504 || again.end == End::Cut, "{said:?} was stored: {again:?}");
    assert!(origin.seen().len() >= 2);
}

/// Says this a byte at a time, without end.
fn drips(first: String, then: &'static [u8]) -> Origin {
    Origin::script()
        .take_over("/a", move |_, mut stream| {
            let _ = stream.write_all(first.as_bytes());
            let start = Instant::now();
            while start.elapsed() < 3 * LATE && stream.write_all(then).is_ok() {
                std::thread::sleep(Duration::from_millis(50));
            }
        })
        .start()
}

#[test]
fn a_header_that_drips_is_a_gateway_timeout() {
    let origin = drips("HTTP/1.1 200 OK\r\nX: ".to_owned(), b"y");
    let edge = quick(&origin, "", Some("read"));
    let began = Instant::now();
    edge.get("/a").expect_status(504);
    after(NEAR, began, "a header that drips");
}

#[test]
fn the_total_time_of_a_route_holds_at_every_stage() {
    for (first, then) in [
        (String::new(), b"".as_slice()),
        ("HTTP/1.1 200 OK\r\nX: ".to_owned(), b"y"),
        (head("Content-Length: 1000000"), b"y"),
        (head("Transfer-Encoding: chunked"), b"1\r\ny\r\n"),
        (head("X: y"), b"y"),
    ] {
        let origin = drips(first.clone(), then);
        // The other deadlines are far away.
        let edge = quick(&origin, "defaults: {timeout: 400ms}", None);
        let began = Instant::now();
        let reply = edge.get("/a");
        after(Duration::from_millis(400), began, &first);
        if first.contains("max-age") {
            assert_eq!((reply.status, reply.end), (200, End::Cut), "{first:?}: {reply:?}");
        } else {
            assert_eq!((reply.status, reply.end), (504, End::Whole), "{first:?}: {reply:?}");
        }
        edge.wait_for_metric("edgeproxy_refusals_total{reason=\"total_timeout\"}", 1.0);
    }
}

#[test]
fn what_follows_a_body_is_nobodys_answer() {
    // Within the same read as the body, or when the connection waits for its next request.
    for pause in [None, Some(Duration::from_millis(50))] {
        let (sent, was_sent) = mpsc::channel();
        let sent = Mutex::new(sent);
        let origin = Origin::script()
            .take_over("/a", move |_, mut stream| {
                let evil = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";
                let answer = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nwell";
                match pause {
                    None => stream.write_all([answer, evil].concat().as_bytes()),
                    Some(pause) => stream.write_all(answer.as_bytes()).and_then(|()| {
                        std::thread::sleep(pause);
                        stream.write_all(evil.as_bytes())
                    }),
                }
                .expect("edgeproxy listens");
                sent.lock().expect("nobody panics here").send(()).expect("the test waits");
                let _ = stream.read_to_end(&mut Vec::new());
            })
            .otherwise(|_| ok("other").field("Cache-Control", "no-store"))
            .start();
        let edge = Edge::to(&origin);
        for _ in 0..3 {
            let reply = edge.get("/a");
            assert!(reply.status == 502 || reply.text() == "well", "{reply:?}");
            was_sent.recv().expect("the origin answers");
            edge.get("/b").expect_status(200).expect_body("other");
        }
    }
}

#[test]
fn a_body_that_ends_with_the_connection_is_framed_for_the_client() {
    for version in ["HTTP/1.1", "HTTP/1.0"] {
        let answer = format!("{version} 200 OK\r\nContent-Type: text/plain\r\n\r\nthe body");
        let origin = Origin::always(Respond::raw(answer));
        let edge = Edge::to(&origin);
        let mut wire = edge.wire();
        for _ in 0..2 {
            let reply = wire.get("edge.test", "/a", &[]);
            reply.expect_status(200).expect_body("the body");
            assert_eq!(reply.end, End::Whole);
            assert_eq!(reply.value("transfer-encoding"), Some("chunked"), "{reply:?}");
        }
        // HTTP/1.0 knows no chunks.
        let mut old = edge.wire();
        old.send("GET /a HTTP/1.0\r\nHost: edge.test\r\n\r\n");
        let reply = old.reply();
        assert_eq!(reply.value("transfer-encoding"), None, "{reply:?}");
        reply.expect_body("the body");
    }
}

#[test]
fn an_answer_before_the_body_was_read_reaches_the_client() {
    let origin = Origin::script()
        .take_over("/a", |_, mut stream| {
            let answer = "HTTP/1.1 403 No\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno";
            let _ = stream.write_all(answer.as_bytes());
            let _ = stream.shutdown(Shutdown::Write);
            // Some of it is still taken, so that no reset overtakes the answer.
            let _ = stream.read(&mut [0; 65536]);
            std::thread::sleep(Duration::from_millis(50));
        })
        .start();
    let edge = Edge::to(&origin);
    for size in [3, 100_000, 400_000] {
        let mut wire = edge.wire();
        wire.send(format!("POST /a HTTP/1.1\r\nHost: edge.test\r\nContent-Length: {size}\r\n\r\n"));
        let _ = wire.try_send(vec![b'a'; size]);
        let reply = wire.any_reply("POST").expect("an answer");
        reply.expect_status(403).expect_body("no");
    }
}

/// Serves one request on each connection, keeps it, and closes when the next request comes.
fn forgets_its_connections() -> Origin {
    let answer = "HTTP/1.1 200 OK\r\nCache-Control: no-store\r\nContent-Length: 4\r\n\r\nwell";
    Origin::script()
        .take_over("/a", move |_, mut stream| {
            let _ = stream.write_all(answer.as_bytes());
            // The next request is read, and not answered.
            let _ = stream.read(&mut [0; 65536]);
        })
        .start()
}

#[test]
fn a_connection_that_died_while_idle_is_replaced_without_a_word() {
    let origin = forgets_its_connections();
    let edge = Edge::to(&origin);
    for _ in 0..4 {
        edge.get("/a").expect_status(200).expect_body("well");
    }
}

#[test]
fn a_request_that_met_a_dead_connection_is_said_again_on_a_new_one() {
    let kept = 3;
    let together = std::sync::Barrier::new(kept);
    let origin = Origin::script()
        .take_over("/a", move |_, mut stream| {
            together.wait();
            let answer =
                "HTTP/1.1 200 OK\r\nCache-Control: no-store\r\nContent-Length: 4\r\n\r\nwell";
            let _ = stream.write_all(answer.as_bytes());
            // The next request is read, and not answered.
            let _ = stream.read(&mut [0; 65536]);
        })
        .otherwise(|_| ok("new").field("Cache-Control", "no-store"))
        .start();
    // By Pingora, and past it.
    for cache in ["on", "off"] {
        let edge = Edge::with(&simple(&origin, &format!("defaults: {{cache: {cache}}}")));
        // So many that all are kept, and all are dead.
        std::thread::scope(|threads| {
            for n in 0..kept {
                let edge = &edge;
                threads.spawn(move || edge.get(&format!("/a?{n}")).expect_body("well").status);
            }
        });
        let state = "edgeproxy_backend_pool_idle{";
        edge.wait_for_gauge(state, 3.0);
        let reply = edge.get("/b");
        assert_eq!(
            (reply.status, reply.text().as_str()),
            (200, "new"),
            "cache {cache}: {:?} {:?}",
            origin.seen().iter().map(|s| s.line.clone()).collect::<Vec<_>>(),
            edge.metrics("edgeproxy_backend_pool")
        );
    }
}

#[test]
fn a_post_is_never_sent_on_a_connection_that_its_origin_has_closed() {
    let (closed, was_closed) = mpsc::channel();
    let closed = Mutex::new(closed);
    let origin = Origin::script()
        .take_over("/a", move |_, mut stream| {
            let answer =
                "HTTP/1.1 200 OK\r\nCache-Control: no-store\r\nContent-Length: 4\r\n\r\nwell";
            stream.write_all(answer.as_bytes()).expect("edgeproxy listens");
            let _ = stream.shutdown(Shutdown::Both);
            closed.lock().expect("nobody panics here").send(()).expect("the test waits");
        })
        .otherwise(|_| ok("paid").field("Connection", "close"))
        .start();
    let edge = Edge::to(&origin);
    for _ in 0..20 {
        edge.get("/a").expect_status(200).expect_body("well");
        was_closed.recv().expect("the origin answers");
        let reply = edge.wire().request("POST", "edge.test", "/b", &[], b"pay 10");
        reply.expect_status(200).expect_body("paid");
    }
    assert_eq!(origin.seen_at("/b").len(), 20);
}

#[test]
fn a_post_that_may_have_been_seen_is_not_sent_again() {
    let origin = forgets_its_connections();
    let edge = Edge::to(&origin);
    edge.get("/a").expect_status(200);
    let connections = origin.connections();
    // It goes to the kept connection, is read there, and the connection ends.
    let reply = edge.wire().request("POST", "edge.test", "/a", &[], b"pay 10");
    reply.expect_status(502);
    assert_eq!(origin.connections(), connections, "it was sent again");
    assert!(origin.seen().iter().all(|seen| seen.method() == "GET"));
}

#[test]
fn an_address_that_refuses_is_passed_over() {
    let refused = nobody();
    let origin = Origin::always(ok("well").field("Cache-Control", "no-store"));
    let yaml = simple(&origin, "").replace("addresses: [", &format!("addresses: [\"{refused}\", "));
    let edge = Edge::with(&yaml);
    for _ in 0..6 {
        edge.get("/a").expect_status(200).expect_body("well");
        let post = edge.wire().request("POST", "edge.test", "/a", &[], b"abc");
        post.expect_status(200);
    }
    assert_eq!(origin.seen().len(), 12);
}

#[test]
fn a_failure_is_not_kept_for_those_who_come_after() {
    let served = AtomicUsize::new(0);
    let origin = Origin::script()
        .with("/a", move |_| match served.fetch_add(1, Ordering::SeqCst) {
            0 => Respond::raw(format!("{}bo", head("Content-Length: 4"))),
            _ => ok("body").field("Cache-Control", "max-age=60"),
        })
        .start();
    let edge = Edge::to(&origin);
    let failed = edge.get("/a");
    assert!(failed.end == End::Cut || failed.status == 502, "{failed:?}");
    edge.get("/a").expect_status(200).expect_miss().expect_body("body");
    edge.get("/a").expect_hit().expect_body("body");
}
