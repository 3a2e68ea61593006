//! The same where backends speak HTTP/2: two streams in the place of two connections.

use std::future::Future;
use std::future::poll_fn;
use std::io::Read;
use std::io::Write;
use std::net::TcpListener;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::time::Duration;

use http::Response;
use tokio::sync::Notify;

use super::hedge::ON;
use super::hedge::hedged_over;
use super::hedge::hedges;
use crate::harness::Edge;
use crate::harness::Origin2;
use crate::harness::frames::DATA;
use crate::harness::frames::END_HEADERS;
use crate::harness::frames::END_STREAM;
use crate::harness::frames::HEADERS;
use crate::harness::frames::RESET;
use crate::harness::frames::RawOrigin2;
use crate::harness::frames::block;
use crate::harness::frames::frame;
use crate::harness::origin2::Call;

/// Longer than any of this takes.
const LATE: Duration = Duration::from_secs(10);

const PING: u8 = 6;

/// One that does this to `/late`, and is quick with all others.
fn late<F, Fut>(answer: F) -> Origin2
where
    F: Fn(Call) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let answer = Arc::new(answer);
    Origin2::start(None, move |mut call: Call| {
        let answer = Arc::clone(&answer);
        async move {
            match call.head.uri.path() {
                "/late" => answer(call).await,
                _ => call.respond(Response::new(()), "quick"),
            }
        }
    })
}

/// One that says nothing to `/late`, and tells when that was given up.
fn silent() -> (Origin2, mpsc::Receiver<h2::Reason>) {
    let (tell, given_up) = mpsc::channel();
    let origin = late(move |call| {
        let tell = tell.clone();
        async move { until_reset(call, &tell).await }
    });
    (origin, given_up)
}

async fn until_reset(mut call: Call, tell: &mpsc::Sender<h2::Reason>) {
    let reason = poll_fn(|cx| call.answer.poll_reset(cx)).await;
    tell.send(reason.expect("the connection stays")).expect("there is a test");
}

/// One that answers `/late` at once.
fn fast() -> Origin2 {
    late(|mut call| async move { call.respond(Response::new(()), "fast") })
}

fn asked_late(origin: &Origin2) -> usize {
    origin.seen().iter().filter(|head| head.uri.path() == "/late").count()
}

fn between(a: &Origin2, b: &Origin2, more: &str) -> Edge {
    hedged_over(&a.address.to_string(), &b.address.to_string(), "protocol: http2", more)
}

fn of(backend: &str, what: &str) -> String {
    format!("edgeproxy_backend_{what}{{upstream=\"app\",backend=\"{backend}\"")
}

/// Nothing is held against it, and nothing of it is held.
fn is_clear(edge: &Edge, backend: &str) {
    assert_eq!(edge.metric(&of(backend, "failures_total")), 0.0, "{backend}");
    for held in ["requests_in_flight", "pool_in_use"] {
        edge.wait_for_gauge(&of(backend, held), 0.0);
    }
}

#[test]
fn a_backend_of_http_2_that_takes_long_is_overtaken_by_another_and_its_stream_is_reset() {
    let ((slow, given_up), fast) = (silent(), fast());
    let edge = between(&slow, &fast, ON);
    for _ in 0..4 {
        edge.get("/late").expect_status(200).expect_body("fast");
        assert_eq!(given_up.recv_timeout(LATE), Ok(h2::Reason::CANCEL));
    }
    assert_eq!((asked_late(&slow), asked_late(&fast)), (4, 4));
    assert_eq!(hedges(&edge, "won"), 4.0);
    let line = edge.wait_for_access("\"hedge\":\"won\"");
    assert!(line.contains(&fast.address.to_string()), "{line}");
    // Who was only slow is charged with nothing, and its connection carries other requests.
    is_clear(&edge, "a");
    is_clear(&edge, "b");
    edge.get("/").expect_status(200).expect_body("quick");
    assert_eq!((slow.connections(), fast.connections()), (1, 1));
}

#[test]
fn the_first_one_of_http_2_wins_when_it_answers_first_and_the_other_ones_stream_is_reset() {
    let asked = Arc::new(Notify::new());
    let first = late({
        let asked = Arc::clone(&asked);
        move |mut call| {
            let asked = Arc::clone(&asked);
            async move {
                // Once the other one is asked.
                asked.notified().await;
                call.respond(Response::new(()), "late");
            }
        }
    });
    let (tell, given_up) = mpsc::channel();
    let second = late(move |call| {
        let (asked, tell) = (Arc::clone(&asked), tell.clone());
        async move {
            asked.notify_one();
            until_reset(call, &tell).await;
        }
    });
    let edge = between(&first, &second, ON);
    for _ in 0..4 {
        edge.get("/late").expect_status(200).expect_body("late");
        assert_eq!(given_up.recv_timeout(LATE), Ok(h2::Reason::CANCEL));
    }
    assert_eq!(hedges(&edge, "lost"), 4.0);
    is_clear(&edge, "a");
    is_clear(&edge, "b");
    assert_eq!((first.connections(), second.connections()), (1, 1));
}

/// Answers a request on its stream with this.
fn say(to: &mut TcpStream, stream: u32, body: &str) -> bool {
    let head = frame(HEADERS, END_HEADERS, stream, &block(&[(":status", "200")]));
    let body = frame(DATA, END_STREAM, stream, body.as_bytes());
    to.write_all(&[head, body].concat()).is_ok()
}

/// Waits until the other side has read all that was written.
fn until_read(stream: &mut TcpStream) -> Option<()> {
    stream.write_all(&frame(PING, 0, 0, &[7; 8])).ok()?;
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        stream.read_exact(&mut vec![0; length as usize]).ok()?;
        if (head[3], head[4]) == (PING, 1) {
            return Some(());
        }
    }
}

/// Two that do this, once both of them were asked. Those that the route learns from the first one answers.
fn together(
    first: impl Fn(&mut TcpStream, u32) -> bool + Send + Sync + 'static,
    second: impl Fn(&mut TcpStream, u32) -> bool + Send + Sync + 'static,
) -> (RawOrigin2, RawOrigin2) {
    let (asked, was_asked) = mpsc::channel();
    let (asked, was_asked) = (Mutex::new(asked), Mutex::new(was_asked));
    let learned = AtomicUsize::new(0);
    let a = RawOrigin2::start(move |to, stream| {
        if learned.fetch_add(1, Ordering::SeqCst) < 20 {
            return say(to, stream, "quick");
        }
        was_asked.lock().expect("nobody panics with it").recv().expect("the other one is asked");
        first(to, stream)
    });
    let b = RawOrigin2::start(move |to, stream| {
        asked.lock().expect("nobody panics with it").send(()).expect("the other one waits");
        second(to, stream)
    });
    (a, b)
}

#[test]
fn the_failure_of_one_of_http_2_leaves_the_other_at_work() {
    for first_fails in [true, false] {
        // Who works answers when it is known that the other one has failed.
        let (failed, has_failed) = mpsc::channel();
        let (failed, has_failed) = (Mutex::new(failed), Mutex::new(has_failed));
        let failing = move |to: &mut TcpStream, stream: u32| {
            let reset = to.write_all(&frame(RESET, 0, stream, &[0, 0, 0, 2])).is_ok();
            let read = until_read(to).is_some();
            failed.lock().expect("nobody panics with it").send(()).expect("the other one waits");
            reset && read
        };
        let working = move |to: &mut TcpStream, stream: u32| {
            has_failed.lock().expect("nobody panics with it").recv().expect("it will have");
            say(to, stream, "late")
        };
        let (a, b) = match first_fails {
            true => together(failing, working),
            false => together(working, failing),
        };
        let addresses = (a.address.to_string(), b.address.to_string());
        let edge = hedged_over(&addresses.0, &addresses.1, "protocol: http2", ON);
        for _ in 0..4 {
            edge.get("/late").expect_status(200).expect_body("late");
        }
        assert_eq!((a.asked(), b.asked()), (24, 4), "both were asked each time");
        let (bad, good, outcome) =
            if first_fails { ("a", "b", "won") } else { ("b", "a", "failed") };
        assert_eq!(edge.metric(&of(bad, "failures_total")), 4.0, "{bad}");
        assert_eq!(hedges(&edge, outcome), 4.0);
        is_clear(&edge, good);
        for held in ["requests_in_flight", "pool_in_use"] {
            edge.wait_for_gauge(&of(bad, held), 0.0);
        }
        assert_eq!((a.connections(), b.connections()), (1, 1));
    }
}

#[test]
fn when_both_of_http_2_fail_the_client_is_told_at_once() {
    let fail = |to: &mut TcpStream, stream: u32| {
        to.write_all(&frame(RESET, 0, stream, &[0, 0, 0, 2])).is_ok()
    };
    let (a, b) = together(fail, fail);
    let addresses = (a.address.to_string(), b.address.to_string());
    let more = "protocol: http2\n    retry: off";
    let edge = hedged_over(&addresses.0, &addresses.1, more, ON);
    edge.get("/late").expect_status(502);
    assert_eq!((a.asked(), b.asked()), (21, 1));
    for backend in ["a", "b"] {
        assert_eq!(edge.metric(&of(backend, "failures_total")), 1.0, "{backend}");
        edge.wait_for_gauge(&of(backend, "pool_in_use"), 0.0);
    }
    assert_eq!(hedges(&edge, "failed"), 1.0);
}

#[test]
fn the_budget_bounds_those_of_http_2() {
    let slow = || {
        late(|mut call| async move {
            tokio::time::sleep(Duration::from_millis(100)).await;
            // The other one may have been first.
            let answer = call.answer.send_response(Response::new(()), false);
            if let Ok(mut answer) = answer {
                let _ = answer.send_data("slow".into(), true);
            }
        })
    };
    let (a, b) = (slow(), slow());
    let edge = between(&a, &b, "hedge: {percentile: 50, min_requests: 20, budget: 10}");
    for _ in 0..10 {
        edge.get("/late").expect_status(200).expect_body("slow");
    }
    let sent = asked_late(&a) + asked_late(&b) - 10;
    assert!((1..=3).contains(&sent), "a tenth of thirty: {sent}");
    assert!(hedges(&edge, "over_budget") >= 1.0);
    edge.wait_for_access("\"hedge\":\"over_budget\"");
}

#[test]
fn a_backend_that_is_still_being_connected_to_is_overtaken() {
    // The kernel takes its connections, and nobody says anything on them: without SETTINGS there is no connection.
    let mute = TcpListener::bind("127.0.0.1:0").expect("loopback can be listened on");
    let fast = fast();
    let edge = Edge::with(&format!(
        "listeners: [{{name: http, address: \"127.0.0.1:0\"}}]\n\
         upstreams:\n  app:\n    health: off\n    protocol: http2\n    timeouts: {{connect: 60s, total: 60s}}\n    \
         addresses: [{{id: a, address: \"{}\", active: false}}, \
         {{id: b, address: \"{}\", backup: true}}]\n\
         access_log: {{to: stdout, format: json, fields: [uri, hedge, upstream_address, attempts]}}\n\
         routes:\n  - {{upstream: app, {ON}}}\n",
        mute.local_addr().expect("a bound socket has an address"),
        fast.address
    ));
    for _ in 0..20 {
        edge.get("/").expect_status(200);
    }
    let on = edge.admin_says("PATCH", "/v1/upstreams/app/backends/a", "{\"active\": true}");
    on.expect_status(200);
    for _ in 0..4 {
        edge.get("/late").expect_status(200).expect_body("fast");
    }
    assert_eq!(hedges(&edge, "won"), 4.0);
    let line = edge.wait_for_access("\"hedge\":\"won\"");
    assert!(line.contains(&fast.address.to_string()), "{line}");
    is_clear(&edge, "a");
    is_clear(&edge, "b");
}

#[test]
fn an_interim_response_of_http_2_is_an_answer_in_a_race() {
    let hint = || Response::builder().status(103).body(()).expect("a good head");
    // Who gave one is let finish, and nobody else is asked.
    let at_work = late(move |mut call| async move {
        call.answer.send_informational(hint()).expect("the stream is open");
        tokio::time::sleep(Duration::from_millis(200)).await;
        call.respond(Response::new(()), "late");
    });
    let other = fast();
    let edge = between(&at_work, &other, ON);
    edge.get("/late").expect_status(200).expect_body("late");
    edge.wait_for_gauge(&of("a", "pool_in_use"), 0.0);
    assert_eq!(asked_late(&other), 0);

    // And who gives the first one has won.
    let (silent, given_up) = silent();
    let go = Arc::new(Notify::new());
    let second = late({
        let go = Arc::clone(&go);
        move |mut call| {
            let go = Arc::clone(&go);
            async move {
                call.answer.send_informational(hint()).expect("the stream is open");
                go.notified().await;
                call.respond(Response::new(()), "late");
            }
        }
    });
    let edge = between(&silent, &second, ON);
    let mut wire = edge.wire();
    wire.send("GET /late HTTP/1.1\r\nHost: edge.test\r\n\r\n");
    assert_eq!(wire.any_reply("GET").map(|hints| hints.status), Some(103));
    assert_eq!(given_up.recv_timeout(LATE), Ok(h2::Reason::CANCEL));
    go.notify_one();
    wire.reply().expect_status(200).expect_body("late");
    assert_eq!(hedges(&edge, "won"), 1.0);
    is_clear(&edge, "a");
}
