//! One fetch for all who ask for the same at the same time, and stale answers while it runs.

use std::io::Read;
use std::io::Write;
use std::net::Shutdown;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::Barrier;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use crate::caching::minute;
use crate::caching::with_rules;
use crate::harness::Edge;
use crate::harness::Gate;
use crate::harness::Origin;
use crate::harness::PATIENCE;
use crate::harness::Respond;
use crate::harness::client::End;
use crate::harness::http2;
use crate::harness::ok;
use crate::harness::status;

const HEAD: &str = "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 10\r\n\r\n";

/// An origin that gives the first half of an answer, and the second once the gate is open.
fn halves(gate: &Gate) -> Origin {
    let gate = gate.clone();
    Origin::script()
        .take_over("/a", move |_, mut stream| {
            stream.write_all(HEAD.as_bytes()).expect("edgeproxy reads");
            stream.write_all(b"first").expect("edgeproxy reads");
            gate.pass();
            stream.write_all(b"later").expect("edgeproxy reads");
        })
        .start()
}

/// Reads up to the first half of the body.
fn first_half(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\nfirst") {
        let mut byte = [0; 1];
        stream.read_exact(&mut byte).expect("the first half streams");
        bytes.push(byte[0]);
    }
    bytes
}

fn asking(edge: &Edge) -> TcpStream {
    let mut stream = TcpStream::connect(edge.address("http")).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time");
    stream.write_all(b"GET /a HTTP/1.1\r\nHost: edge.test\r\n\r\n").expect("it reads");
    stream
}

#[test]
fn hundreds_who_ask_for_what_is_not_stored_are_one_request_to_the_origin() {
    const CLIENTS: usize = 300;
    let gate = Gate::default();
    let origin = halves(&gate);
    let edge = Edge::to(&origin);
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| asking(&edge)).collect();
    // All of them came before the answer was whole.
    let heads = clients.iter_mut().map(|client| String::from_utf8(first_half(client)).unwrap());
    let collapsed = heads.filter(|head| head.contains("; collapsed")).count();
    gate.open();
    for client in &mut clients {
        let mut rest = [0; 5];
        client.read_exact(&mut rest).expect("the second half");
        assert_eq!(&rest, b"later");
    }
    assert_eq!(origin.seen().len(), 1);
    assert_eq!(collapsed, CLIENTS - 1, "all but the first one");
}

#[test]
fn who_waits_gets_what_has_arrived_at_once() {
    let gate = Gate::default();
    let origin = halves(&gate);
    let edge = Edge::to(&origin);
    let mut readers: Vec<_> = (0..3).map(|_| asking(&edge)).collect();
    for reader in &mut readers {
        first_half(reader);
    }
    // One who comes now begins at the beginning, too.
    let mut late = asking(&edge);
    let head = String::from_utf8(first_half(&mut late)).unwrap();
    assert!(head.contains("collapsed"), "{head}");
    gate.open();
    for reader in readers.iter_mut().chain([&mut late]) {
        let mut rest = [0; 5];
        reader.read_exact(&mut rest).unwrap();
        assert_eq!(&rest, b"later");
    }
    assert_eq!(origin.seen().len(), 1);
    edge.get("/a").expect_hit().expect_body("firstlater");
}

#[test]
fn a_first_client_that_goes_away_takes_nothing_with_it() {
    let gate = Gate::default();
    let origin = halves(&gate);
    let edge = Edge::to(&origin);
    let mut first = asking(&edge);
    first_half(&mut first);
    let mut second = asking(&edge);
    first_half(&mut second);
    first.shutdown(Shutdown::Both).unwrap();
    drop(first);
    edge.wait_for_gauge("edgeproxy_connections{", 1.0);
    gate.open();
    let mut rest = [0; 5];
    second.read_exact(&mut rest).unwrap();
    assert_eq!(&rest, b"later");
    edge.get("/a").expect_hit().expect_body("firstlater");
    assert_eq!(origin.seen().len(), 1);
}

#[test]
fn what_a_lone_client_left_is_stored_all_the_same() {
    let gate = Gate::default();
    let origin = halves(&gate);
    let edge = Edge::to(&origin);
    let mut only = asking(&edge);
    first_half(&mut only);
    drop(only);
    gate.open();
    // Either it is read along, or it is stored by now.
    edge.get("/a").expect_status(200).expect_body("firstlater");
    edge.get("/a").expect_hit();
    assert_eq!(origin.seen().len(), 1);
}

#[test]
fn a_first_client_that_does_not_read_holds_nobody_up() {
    let body = "x".repeat(16 << 20);
    let origin = Origin::always(minute(&body));
    let edge = Edge::to(&origin);
    let _first = asking(&edge);
    origin.wait_for(1);
    let reply = edge.get("/a");
    reply.expect_status(200);
    assert_eq!(reply.body.len(), body.len());
    assert_eq!(origin.seen().len(), 1);
}

#[test]
fn a_body_that_there_is_no_room_for_reaches_all_who_read_it() {
    let body = "0123456789abcdef".repeat(1 << 18);
    let gate = Gate::default();
    let (wait, sent) = (gate.clone(), body.clone());
    let origin = Origin::script()
        .take_over("/a", move |_, mut stream| {
            wait.pass();
            let head = "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nTransfer-Encoding: chunked\r\n\r\n";
            stream.write_all(head.as_bytes()).unwrap();
            for part in sent.as_bytes().chunks(100_000) {
                stream.write_all(format!("{:x}\r\n", part.len()).as_bytes()).unwrap();
                stream.write_all(part).unwrap();
                stream.write_all(b"\r\n").unwrap();
            }
            stream.write_all(b"0\r\n\r\n").unwrap();
        })
        .start();
    // Not announced, it turns out too large while it is read.
    let edge = with_rules(&origin, "{max_object: 1MiB}");
    let mut clients: Vec<_> = (0..2).map(|_| edge.wire()).collect();
    for client in &mut clients {
        client.send("GET /a HTTP/1.1\r\nHost: edge.test\r\n\r\n");
    }
    origin.wait_for(1);
    gate.open();
    std::thread::scope(|scope| {
        for client in &mut clients {
            let body = &body;
            scope.spawn(move || {
                let reply = client.reply();
                assert_eq!(reply.end, End::Whole, "{:?}", reply.fields);
                assert!(reply.body == body.as_bytes(), "{} bytes", reply.body.len());
            });
        }
    });
    edge.get("/a").expect_miss();
}

#[test]
fn a_broken_answer_is_broken_for_all_and_stored_for_none() {
    let gate = Gate::default();
    let wait = gate.clone();
    let broken = AtomicBool::new(true);
    let origin = Origin::script()
        .take_over("/a", move |_, mut stream| {
            if !broken.swap(false, Ordering::SeqCst) {
                stream.write_all(HEAD.as_bytes()).unwrap();
                return stream.write_all(b"firstlater").unwrap();
            }
            stream.write_all(HEAD.as_bytes()).unwrap();
            stream.write_all(b"first").unwrap();
            wait.pass();
        })
        .start();
    let edge = Edge::to(&origin);
    let mut readers: Vec<_> = (0..3).map(|_| asking(&edge)).collect();
    for reader in &mut readers {
        first_half(reader);
    }
    gate.open();
    for mut reader in readers {
        let mut rest = Vec::new();
        // A reset is as visible as an end that is too early.
        let _ = reader.read_to_end(&mut rest);
        assert!(rest.is_empty(), "{rest:?}");
    }
    edge.get("/a").expect_miss().expect_body("firstlater");
}

#[test]
fn what_is_not_shared_is_asked_for_side_by_side() {
    const CLIENTS: usize = 8;
    let together = Arc::new(Barrier::new(CLIENTS - 1));
    let first = AtomicBool::new(true);
    let gate = Gate::default();
    let wait = gate.clone();
    let count = AtomicUsize::new(0);
    let origin = Origin::script()
        .with("/a", move |_| {
            if first.swap(false, Ordering::SeqCst) {
                wait.pass();
            } else {
                // Passed only if all who waited for the first are here at the same time.
                together.wait();
            }
            let number = count.fetch_add(1, Ordering::SeqCst);
            ok(format!("private {number}")).field("Cache-Control", "no-store")
        })
        .start();
    let edge = Edge::to(&origin);
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| edge.wire()).collect();
    for client in &mut clients {
        client.send("GET /a HTTP/1.1\r\nHost: edge.test\r\n\r\n");
    }
    origin.wait_for(1);
    gate.open();
    let mut bodies: Vec<_> = clients.iter_mut().map(|client| client.reply().text()).collect();
    bodies.sort();
    bodies.dedup();
    assert_eq!(bodies.len(), CLIENTS, "each got an answer of its own: {bodies:?}");
}

#[test]
fn what_answers_an_authorization_is_given_to_nobody_who_waited() {
    let gate = Gate::default();
    let wait = gate.clone();
    let origin = Origin::script()
        .with("/a", move |seen| match seen.value("authorization") {
            Some(who) => {
                wait.pass();
                minute(who)
            }
            None => minute("anybody"),
        })
        .start();
    let edge = Edge::to(&origin);
    let mut known = edge.wire();
    known.send("GET /a HTTP/1.1\r\nHost: edge.test\r\nAuthorization: alice\r\n\r\n");
    origin.wait_for(1);
    let mut stranger = edge.wire();
    stranger.send("GET /a HTTP/1.1\r\nHost: edge.test\r\n\r\n");
    gate.open();
    known.reply().expect_body("alice");
    stranger.reply().expect_body("anybody");
    edge.get("/a").expect_body("anybody");
}

#[test]
fn each_waits_for_his_own_variant() {
    let gate = Gate::default();
    let wait = gate.clone();
    let origin = Origin::script()
        .with("/a", move |seen| {
            let language = seen.value("x-lang").unwrap_or("none").to_owned();
            if language == "de" {
                wait.pass();
            }
            minute(&language).field("Vary", "X-Lang")
        })
        .start();
    let edge = Edge::to(&origin);
    let ask = |language: &str| {
        let mut wire = edge.wire();
        wire.send(format!("GET /a HTTP/1.1\r\nHost: edge.test\r\nX-Lang: {language}\r\n\r\n"));
        wire
    };
    let mut german = ask("de");
    origin.wait_for(1);
    let mut others: Vec<_> = ["fr", "fr", "it"].map(ask).into_iter().collect();
    gate.open();
    german.reply().expect_body("de");
    for (other, language) in others.iter_mut().zip(["fr", "fr", "it"]) {
        other.reply().expect_body(language);
    }
}

#[test]
fn nobody_waits_for_another_longer_than_he_is_told_to() {
    let gate = Gate::default();
    let wait = gate.clone();
    let first = AtomicBool::new(true);
    let origin = Origin::script()
        .with("/a", move |_| {
            if first.swap(false, Ordering::SeqCst) {
                wait.pass();
                return minute("slow");
            }
            minute("quick")
        })
        .start();
    let edge = with_rules(&origin, "{collapse_wait: 100ms}");
    let mut slow = asking(&edge);
    origin.wait_for(1);
    edge.get("/a").expect_body("quick");
    gate.open();
    let mut some = [0; 12];
    slow.read_exact(&mut some).unwrap();
    assert_eq!(&some, b"HTTP/1.1 200");
}

#[test]
fn without_a_wait_each_asks_for_himself() {
    let together = Arc::new(Barrier::new(2));
    let origin = Origin::script()
        .with("/a", move |_| {
            together.wait();
            minute("page")
        })
        .start();
    let edge = with_rules(&origin, "{collapse_wait: 0s}");
    let mut clients = [edge.wire(), edge.wire()];
    for client in &mut clients {
        client.send("GET /a HTTP/1.1\r\nHost: edge.test\r\n\r\n");
    }
    for client in &mut clients {
        client.reply().expect_body("page");
    }
}

#[test]
fn http_2_waits_with_http_1() {
    let gate = Gate::default();
    let wait = gate.clone();
    let origin = Origin::script()
        .with("/a", move |_| {
            wait.pass();
            minute("page")
        })
        .start();
    let edge = with_rules(&origin, "on");
    let mut old = edge.wire();
    old.send("GET /a HTTP/1.1\r\nHost: edge.test\r\n\r\n");
    origin.wait_for(1);
    http2::run(async {
        let mut send = http2::plain(edge.address("http")).await;
        let new = http2::get(&mut send, "http://edge.test/a", &[]);
        gate.open();
        let reply = new.await.expect("it is answered");
        assert_eq!((reply.status, &*reply.body), (200, &b"page"[..]));
    });
    old.reply().expect_body("page");
    assert_eq!(origin.seen().len(), 1);
}

/// An answer that comes stale and may be served so while it is refreshed; the refresh waits for the
/// gate.
fn stale_while_revalidate(gate: &Gate) -> Origin {
    let wait = gate.clone();
    let asked = AtomicUsize::new(0);
    Origin::script()
        .with("/a", move |_| match asked.fetch_add(1, Ordering::SeqCst) {
            0 => ok("old")
                .field("Cache-Control", "max-age=60, stale-while-revalidate=600")
                .field("Age", "60"),
            _ => {
                wait.pass();
                minute("new")
            }
        })
        .start()
}

#[test]
fn what_is_stale_is_served_while_one_refresh_runs_in_the_background() {
    let gate = Gate::default();
    let origin = stale_while_revalidate(&gate);
    let edge = Edge::to(&origin);
    edge.get("/a").expect_miss().expect_body("old");
    for _ in 0..5 {
        let reply = edge.get("/a");
        reply.expect_cache("STALE").expect_body("old");
        let told = reply.value("cache-status").unwrap();
        assert!(told.contains("hit") && told.contains("stale-while-revalidate"), "{told}");
    }
    origin.wait_for(2);
    gate.open();
    let fresh = std::iter::repeat_with(|| edge.get("/a")).find(|reply| reply.text() == "new");
    fresh.unwrap().expect_hit();
    assert_eq!(origin.seen().len(), 2, "one refresh, however many asked");
    // A refresh is no client's request.
    edge.wait_for_metric("edgeproxy_cache_requests_total{route=\"all\",result=\"miss\"", 1.0);
    assert_eq!(edge.metric("edgeproxy_cache_requests_total{route=\"all\",result=\"expired\""), 0.0);
}

#[test]
fn a_failing_origin_is_probed_and_not_hammered() {
    const ASKED: usize = 200;
    let failing = AtomicBool::new(false);
    let origin = Origin::script()
        .with("/a", move |_| match failing.swap(true, Ordering::SeqCst) {
            false => ok("old")
                .field("Cache-Control", "max-age=60, stale-if-error=600")
                .field("Age", "60"),
            true => status(500),
        })
        .start();
    let edge = Edge::to(&origin);
    edge.get("/a").expect_miss();
    let mut wire = edge.wire();
    let began = std::time::Instant::now();
    for _ in 0..ASKED {
        wire.get("edge.test", "/a", &[]).expect_cache("STALE").expect_body("old");
    }
    // One probe a second, and one that is due.
    let probes = usize::try_from(began.elapsed().as_secs()).unwrap() + 2;
    let seen = origin.seen().len() - 1;
    assert!((1..=probes).contains(&seen), "{seen} of {ASKED} reached the failing origin");
}

#[test]
fn a_failure_is_the_answer_to_all_who_waited() {
    let gate = Gate::default();
    let wait = gate.clone();
    let origin = Origin::script()
        .with("/a", move |_| {
            wait.pass();
            Respond::raw("nonsense\r\n\r\n")
        })
        .start();
    let edge = Edge::to(&origin);
    let mut clients: Vec<_> = (0..5).map(|_| edge.wire()).collect();
    for client in &mut clients {
        client.send("GET /a HTTP/1.1\r\nHost: edge.test\r\n\r\n");
    }
    origin.wait_for(1);
    gate.open();
    for client in &mut clients {
        client.reply().expect_status(502);
    }
}

#[test]
fn early_hints_reach_the_one_for_whom_they_were_asked() {
    let origin = Origin::always(Respond::raw(
        "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n\
         HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 2\r\n\r\nok",
    ));
    let edge = Edge::to(&origin);
    let mut stream = asking(&edge);
    let mut head = [0; 12];
    stream.read_exact(&mut head).unwrap();
    assert_eq!(&head, b"HTTP/1.1 103");
    edge.get("/a").expect_status(200).expect_body("ok");
}

#[test]
fn a_head_that_began_a_fetch_and_leaves_cuts_nobody() {
    let gate = Gate::default();
    let wait = gate.clone();
    let body = vec![b'x'; 90_000];
    let answer = body.clone();
    let origin = Origin::script()
        .take_over("/a", move |_, mut stream| {
            let head = "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nTransfer-Encoding: chunked\r\n\r\n";
            stream.write_all(head.as_bytes()).expect("edgeproxy reads");
            for half in answer.chunks(45_000) {
                stream.write_all(format!("{:x}\r\n", half.len()).as_bytes()).expect("edgeproxy reads");
                stream.write_all(half).expect("edgeproxy reads");
                stream.write_all(b"\r\n").expect("edgeproxy reads");
                wait.pass();
            }
            stream.write_all(b"0\r\n\r\n").expect("edgeproxy reads");
        })
        .start();
    let edge = Edge::to(&origin);
    let mut head = edge.wire();
    let reply = head.request("HEAD", "edge.test", "/a", &[], b"");
    reply.expect_status(200);
    let mut reader = edge.wire();
    reader.send("GET /a HTTP/1.1\r\nHost: edge.test\r\n\r\n");
    let mut start = [0; 2000];
    reader.read_exact(&mut start).expect("it begins");
    drop(head);
    gate.open();
    let mut rest = Vec::new();
    while !rest.ends_with(b"0\r\n\r\n") {
        let mut more = [0; 4096];
        let count = reader.read(&mut more).expect("it goes on");
        assert!(count > 0, "cut after {} bytes", rest.len());
        rest.extend_from_slice(&more[..count]);
    }
    assert_eq!(origin.seen().len(), 1);
}

/// What the one who began a fetch needs of it ends sooner than what others read along.
#[track_caller]
fn is_whole_for_others(first: (&str, &str), status: u16) {
    let gate = Gate::default();
    let wait = gate.clone();
    let origin = Origin::script()
        .take_over("/a", move |_, mut stream| {
            let head = "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nETag: \"1\"\r\n\
                        Transfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n";
            stream.write_all(head.as_bytes()).expect("edgeproxy reads");
            wait.pass();
            stream.write_all(b"5\r\nlater\r\n0\r\n\r\n").expect("edgeproxy reads");
        })
        .start();
    let edge = Edge::to(&origin);
    let mut conditional = edge.wire();
    conditional.ask("GET", "edge.test", "/a", &[first], b"");
    origin.wait_for(1);
    let mut reader = asking(&edge);
    let head = String::from_utf8(first_half_chunked(&mut reader)).expect("text");
    assert!(head.contains("collapsed"), "{head}");
    gate.open();
    let mut rest = Vec::new();
    while !rest.ends_with(b"0\r\n\r\n") {
        let mut byte = [0; 1];
        reader.read_exact(&mut byte).expect("all of it comes");
        rest.push(byte[0]);
    }
    assert!(rest.windows(5).any(|bytes| bytes == b"later"), "{rest:?}");
    conditional.reply().expect_status(status);
    assert_eq!(origin.seen().len(), 1);
    edge.get("/a").expect_hit().expect_body("firstlater");
}

fn first_half_chunked(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"first\r\n") {
        let mut byte = [0; 1];
        stream.read_exact(&mut byte).expect("the first half streams");
        bytes.push(byte[0]);
    }
    bytes
}

#[test]
fn a_client_that_has_it_already_does_not_end_the_fetch_for_others() {
    is_whole_for_others(("If-None-Match", "\"1\""), 304);
}

#[test]
fn a_client_that_wants_a_part_does_not_end_the_fetch_for_others() {
    is_whole_for_others(("Range", "bytes=0-1"), 200);
}

/// What a stranger may send with any request, and what keeps its answer from others.
const TO_ITSELF: [(&str, &str, &str); 4] = [
    ("Authorization", "anybody", "authorization"),
    ("Cache-Control", "no-store", "request-no-store"),
    ("X-Preview", "1", "route-no-store"),
    ("Cookie", "a=1", "request-cookie"),
];

#[test]
fn what_one_request_keeps_to_itself_is_not_held_against_others() {
    const CLIENTS: usize = 8;
    for (name, value, reason) in TO_ITSELF {
        let gate = Gate::default();
        let wait = gate.clone();
        let origin = Origin::script()
            .with("/", move |seen| {
                if seen.value(name) != Some(value) {
                    wait.pass();
                }
                // Only a guess says for how long, so that a cookie matters.
                let page = ok("page").field("Last-Modified", "Sun, 06 Nov 1994 08:49:37 GMT");
                match name {
                    "Cookie" => page,
                    _ => page.field("Cache-Control", "max-age=60"),
                }
            })
            .start();
        let edge = with_rules(&origin, "{no_store: {headers: {x-preview: present}}}");
        for _ in 0..2 {
            let own = edge.get_with("/", &[(name, value)]);
            assert!(own.value("cache-status").unwrap().ends_with(&format!("detail={reason}")));
        }
        assert_eq!(origin.seen().len(), 2, "{reason}: its own answers are nobody else's");
        let mut clients: Vec<_> = (0..CLIENTS).map(|_| edge.wire()).collect();
        for client in &mut clients {
            client.send("GET / HTTP/1.1\r\nHost: edge.test\r\n\r\n");
        }
        origin.wait_for(3);
        gate.open();
        for client in &mut clients {
            client.reply().expect_status(200).expect_body("page");
        }
        assert_eq!(origin.seen().len(), 3, "{reason}: all others are one request");
    }
}

#[test]
fn who_waited_for_what_is_anothers_waits_for_the_next() {
    const CLIENTS: usize = 6;
    let (first, second) = (Gate::default(), Gate::default());
    let (begun, goes_on) = (first.clone(), second.clone());
    let origin = Origin::script()
        .with("/a", move |seen| {
            match seen.value("authorization") {
                Some(_) => begun.pass(),
                None => goes_on.pass(),
            }
            minute("page")
        })
        .start();
    let edge = Edge::to(&origin);
    let mut known = edge.wire();
    known.send("GET /a HTTP/1.1\r\nHost: edge.test\r\nAuthorization: alice\r\n\r\n");
    origin.wait_for(1);
    let mut strangers: Vec<_> = (0..CLIENTS).map(|_| edge.wire()).collect();
    for stranger in &mut strangers {
        stranger.send("GET /a HTTP/1.1\r\nHost: edge.test\r\n\r\n");
    }
    first.open();
    known.reply().expect_body("page");
    origin.wait_for(2);
    second.open();
    for stranger in &mut strangers {
        stranger.reply().expect_body("page");
    }
    assert_eq!(origin.seen().len(), 2);
}

#[test]
fn what_has_to_be_confirmed_is_confirmed_by_all_who_waited() {
    const CLIENTS: usize = 6;
    for said in ["no-cache", "max-age=0"] {
        let together = Arc::new(Barrier::new(CLIENTS - 1));
        let first = AtomicBool::new(true);
        let gate = Gate::default();
        let wait = gate.clone();
        let origin = Origin::script()
            .with("/a", move |seen| {
                if first.swap(false, Ordering::SeqCst) {
                    wait.pass();
                } else {
                    // Passed only if all who waited for the first ask at the same time.
                    together.wait();
                }
                let answer = match seen.value("if-none-match") {
                    Some(_) => status(304),
                    None => ok("page"),
                };
                answer.field("Cache-Control", said).field("ETag", "\"1\"")
            })
            .start();
        let edge = Edge::to(&origin);
        let mut clients: Vec<_> = (0..CLIENTS).map(|_| edge.wire()).collect();
        for client in &mut clients {
            client.send("GET /a HTTP/1.1\r\nHost: edge.test\r\n\r\n");
        }
        origin.wait_for(1);
        gate.open();
        for client in &mut clients {
            client.reply().expect_status(200).expect_body("page");
        }
        assert_eq!(origin.seen().len(), CLIENTS, "{said}");
    }
}
