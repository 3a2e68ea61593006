//! Clients that take their time, and clients that come in numbers.

use std::time::Duration;
use std::time::Instant;

use super::post;
use crate::harness::Edge;
use crate::harness::Origin;
use crate::harness::Wire;
use crate::harness::client::End;
use crate::harness::edge::simple;
use crate::harness::http2;
use crate::harness::ok;

/// Deadlines that a test can wait for. The rates are such that a drip is far below them.
const QUICK: &str = "limits:\n  header_timeout: 600ms\n  idle_timeout: 300ms\n  \
                     min_body_rate: 1KiB\n  min_send_rate: 1KiB\n  rate_window: 1s\n";

/// No deadline of ours is this long.
const LATE: Duration = Duration::from_secs(10);

fn edge(origin: &Origin) -> Edge {
    Edge::with(&simple(origin, QUICK))
}

fn origin() -> Origin {
    Origin::always(ok("from the origin").field("Cache-Control", "no-store"))
}

/// Sends this, a byte every 50 ms, until the other side has had enough.
fn drip(wire: &mut Wire, bytes: impl IntoIterator<Item = u8>) {
    let start = Instant::now();
    for byte in bytes {
        if wire.try_send([byte]).is_err() || wire.has_reply(Duration::from_millis(50)) {
            return;
        }
        assert!(start.elapsed() < LATE, "the drip goes on and on");
    }
}

#[test]
fn a_header_that_drips_is_cut_at_the_deadline_of_the_whole() {
    let origin = origin();
    let edge = edge(&origin);
    let endless = std::iter::repeat_n(*b"X: y\r\n", 1000).flatten();
    let head = b"GET / HTTP/1.1\r\nHost: edge.test\r\n".iter().copied();
    let mut wire = edge.wire();
    let start = Instant::now();
    drip(&mut wire, head.chain(endless));
    wire.any_reply("GET").expect("an answer").expect_status(408);
    assert!(start.elapsed() >= Duration::from_millis(600), "{:?}", start.elapsed());
    assert!(wire.until_closed().is_empty());
    edge.wait_for_metric("edgeproxy_refusals_total{reason=\"head_timeout\"}", 1.0);
    edge.wait_for_access("\"refusal\":\"head_timeout\"");
    assert_eq!(origin.connections(), 0);
}

#[test]
fn a_later_header_of_a_connection_has_the_same_deadline() {
    let origin = origin();
    let edge = edge(&origin);
    let mut wire = edge.wire();
    wire.get("edge.test", "/", &[]).expect_status(200);
    drip(&mut wire, std::iter::repeat_n(*b"GET / HTTP/1.1\r\nX: y", 1000).flatten());
    assert!(matches!(wire.any_reply("GET").map(|r| r.status), Some(400 | 408)));
    assert!(wire.until_closed().is_empty());

    let mut wire = edge.wire();
    wire.get("edge.test", "/", &[]).expect_status(200);
    wire.send("GET / HT");
    wire.any_reply("GET").expect("an answer").expect_status(408);
    assert!(wire.until_closed().is_empty());
}

#[test]
fn a_connection_that_says_nothing_is_closed_without_a_word() {
    let origin = origin();
    let edge = edge(&origin);
    let mut silent = edge.wire();
    let mut idle = edge.wire();
    idle.get("edge.test", "/", &[]).expect_status(200);
    let start = Instant::now();
    assert!(idle.until_closed().is_empty());
    assert!(silent.until_closed().is_empty());
    assert!(start.elapsed() < LATE);
}

#[test]
fn a_preface_that_stays_short_does_not_hang() {
    let origin = origin();
    let edge = edge(&origin);
    for part in ["P", "PRI * HTTP/2.0\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r"] {
        let mut wire = edge.wire();
        wire.send(part);
        let reply = wire.any_reply("GET").unwrap_or_else(|| panic!("no answer to {part:?}"));
        reply.expect_status(408);
        assert!(wire.until_closed().is_empty());
    }
    // And whole, but without the settings that have to follow.
    let mut wire = edge.wire();
    wire.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    let _ = wire.until_closed();
    edge.get("/").expect_status(200);
}

#[test]
fn a_body_that_drips_is_cut_and_never_takes_an_origin() {
    let origin = origin();
    let edge = edge(&origin);
    for lines in ["Content-Length: 100000", "Transfer-Encoding: chunked"] {
        let mut wire = edge.wire();
        wire.send(post(lines, ""));
        drip(&mut wire, std::iter::repeat_n(*b"1\r\na\r\n", 1000).flatten());
        wire.any_reply("POST").expect("an answer").expect_status(408);
        assert!(wire.until_closed().is_empty());
    }
    assert_eq!(origin.connections(), 0);
    edge.wait_for_metric("edgeproxy_refusals_total{reason=\"body_timeout\"}", 2.0);
    edge.wait_for_access("\"refusal\":\"body_timeout\"");
}

#[test]
fn a_body_that_stalls_behind_the_spool_is_cut() {
    let origin = origin();
    let edge = edge(&origin);
    let mut wire = edge.wire();
    wire.send(post("Content-Length: 1000000", &"a".repeat(200_000)));
    wire.any_reply("POST").expect("an answer").expect_status(408);
    assert!(wire.until_closed().is_empty());
    assert!(origin.seen().is_empty(), "the request never was whole");
}

#[test]
fn an_honest_body_at_its_own_pace_is_served() {
    let origin = origin();
    let edge = edge(&origin);
    let mut wire = edge.wire();
    wire.send(post("Content-Length: 40000", ""));
    for _ in 0..20 {
        wire.send([b'a'; 2000]);
        std::thread::sleep(Duration::from_millis(60));
    }
    wire.reply_to("POST").expect_status(200);
    assert_eq!(origin.wait_for(1)[0].body.len(), 40_000);
}

#[test]
fn a_client_is_not_slow_because_the_origin_is() {
    let origin = Origin::script()
        .with("/", |_| {
            // Longer than the window of the rates.
            std::thread::sleep(Duration::from_millis(2200));
            ok("late")
        })
        .start();
    let edge = edge(&origin);
    let reply = edge.wire().request("POST", "edge.test", "/", &[], b"abc");
    reply.expect_status(200).expect_body("late");
}

/// Far more than any socket between us holds.
const LARGE: usize = 24 << 20;

#[test]
fn a_client_that_does_not_read_is_cut() {
    let origin = Origin::always(ok(vec![b'a'; LARGE]).field("Cache-Control", "no-store"));
    let edge = edge(&origin);
    let mut wire = edge.wire();
    wire.send("GET / HTTP/1.1\r\nHost: edge.test\r\n\r\n");
    wait_until(|| edge.metric("edgeproxy_connections{") >= 1.0);
    wait_until(|| edge.metric("edgeproxy_connections{") == 0.0);
    let reply = wire.any_reply("GET").expect("the beginning was sent");
    assert_eq!(reply.end, End::Cut);
    assert!(reply.body.len() < LARGE);
}

#[test]
fn a_stream_that_does_not_read_is_cut_and_its_siblings_live() {
    let origin = Origin::script()
        .on("/large", ok(vec![b'a'; LARGE]).field("Cache-Control", "no-store"))
        .otherwise(|_| ok("small"))
        .start();
    let edge = edge(&origin);
    http2::run(async {
        let mut send = http2::plain(edge.address("http")).await;
        let request = http::Request::get("http://edge.test/large").body(()).expect("valid");
        let (response, _) = send.send_request(request, true).expect("it is sent");
        // Nothing of the body is read, so that its window never opens again.
        let mut body = response.await.expect("a header").into_body();
        let mut taken = 0;
        let cut = tokio::time::timeout(LATE, async {
            loop {
                match body.data().await {
                    Some(Ok(part)) => taken += part.len(),
                    Some(Err(e)) => return e.is_reset(),
                    None => return false,
                }
            }
        });
        assert!(cut.await.expect("it is cut in time"), "cut, and visibly so");
        // The connection's window was filled as well.
        body.flow_control().release_capacity(taken).expect("so much was taken");
        let small = http2::get(&mut send, "http://edge.test/small", &[]).await;
        assert_eq!(small.expect("the connection lives").body, b"small");
    });
}

#[test]
fn a_stream_whose_body_stalls_is_cut_and_its_siblings_live() {
    // The second one stalls when the spool is full and the origin has been asked.
    std::thread::scope(|threads| {
        for (spool, first) in [("16KiB", 10), ("1KiB", 60_000)] {
            threads.spawn(move || a_stalled_stream_is_cut(spool, first));
        }
    });
}

fn a_stalled_stream_is_cut(spool: &str, first: usize) {
    let origin = origin();
    let edge = Edge::with(&simple(&origin, &format!("{QUICK}defaults: {{spool: {spool}}}\n")));
    http2::run(async {
        let mut send = http2::plain(edge.address("http")).await;
        let request = http::Request::post("http://edge.test/").body(()).expect("valid");
        let (response, mut body) = send.send_request(request, false).expect("it is sent");
        body.send_data(vec![b'a'; first].into(), false).expect("it is taken");
        let cut = tokio::time::timeout(LATE, response).await.expect("it is cut in time");
        match cut {
            Ok(response) => assert_eq!(response.status(), 408),
            Err(e) => assert!(e.is_reset(), "{e}"),
        }
        let small = http2::get(&mut send, "http://edge.test/small", &[]).await;
        assert_eq!(small.expect("the connection lives").status, 200);
    });
    edge.wait_for_access("\"refusal\":\"body_timeout\"");
    assert!(origin.seen().iter().all(|seen| seen.method() == "GET"));
}

#[test]
fn a_connection_carries_only_so_many_requests() {
    let origin = origin();
    let edge = Edge::with(&simple(&origin, "limits: {requests_per_connection: 3}"));
    let mut wire = edge.wire();
    wire.send("GET /1 HTTP/1.1\r\nHost: edge.test\r\n\r\n".repeat(5));
    for last in [false, false, true] {
        let reply = wire.reply();
        reply.expect_status(200);
        let closes = reply.value("connection").is_some_and(|v| v.eq_ignore_ascii_case("close"));
        assert_eq!(closes, last, "{reply:?}");
    }
    assert!(wire.until_closed().is_empty());
    assert_eq!(origin.seen().len(), 3);
}

#[test]
fn limits_on_connections_hold_and_places_come_back() {
    for (limits, reason) in
        [("connections_per_client: 2", "client_limit"), ("connections: 2", "limit")]
    {
        let origin = origin();
        let edge = Edge::with(&simple(&origin, &format!("limits: {{{limits}}}")));
        let mut first = edge.wire();
        let mut second = edge.wire();
        first.get("edge.test", "/", &[]).expect_status(200);
        second.get("edge.test", "/", &[]).expect_status(200);

        let mut third = edge.wire();
        let _ = third.try_send("GET / HTTP/1.1\r\nHost: edge.test\r\n\r\n");
        assert!(third.until_closed().is_empty(), "{limits}");
        let counter =
            format!("edgeproxy_connections_refused_total{{listener=\"http\",reason=\"{reason}\"}}");
        edge.wait_for_metric(&counter, 1.0);

        // Those that are in are not disturbed, and one that leaves makes room.
        first.get("edge.test", "/", &[]).expect_status(200);
        drop(first);
        wait_until(|| {
            let mut wire = edge.wire();
            let _ = wire.try_send("GET / HTTP/1.1\r\nHost: edge.test\r\n\r\n");
            wire.any_reply("GET").is_some_and(|reply| reply.status == 200)
        });
        second.get("edge.test", "/", &[]).expect_status(200);
    }
}

/// Looks again and again until it is so.
#[track_caller]
pub(super) fn wait_until(so: impl Fn() -> bool) {
    let start = Instant::now();
    while !so() {
        assert!(start.elapsed() < LATE, "it does not come to be");
        std::thread::sleep(Duration::from_millis(10));
    }
}
