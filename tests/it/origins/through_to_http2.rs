//! What is passed through to origins that speak HTTP/2: clients of both versions, and the origin, are shown the same as
//! on the long way.

use std::io::Write;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::time::Duration;
use std::time::Instant;

use bytes::Bytes;
use http::HeaderMap;
use http::HeaderValue;
use http::Request;
use http::Response;
use http::request::Parts;
use tokio::sync::Notify;

use super::LATE;
use super::through;
use super::through::THE_LONG_WAY;
use super::through_http2;
use super::through_http2::Shown;
use crate::harness::Edge;
use crate::harness::Origin2;
use crate::harness::Reply;
use crate::harness::client::End;
use crate::harness::frames::DATA;
use crate::harness::frames::END_HEADERS;
use crate::harness::frames::END_STREAM;
use crate::harness::frames::HEADERS;
use crate::harness::frames::RESET;
use crate::harness::frames::RawOrigin2;
use crate::harness::frames::block;
use crate::harness::frames::frame;
use crate::harness::http2;
use crate::harness::origin2::Call;

/// Nothing is stored; `more` are further keys of the upstream.
fn uncached(address: impl std::fmt::Display, more: &str) -> Edge {
    before(&[address.to_string()], &format!("    breaker: off\n{more}"))
}

fn before(addresses: &[String], more: &str) -> Edge {
    Edge::with(&format!(
        "listeners: [{{name: http, address: \"127.0.0.1:0\", h2c: true}}]\n\
         upstreams:\n  origin:\n    addresses: {addresses:?}\n    protocol: http2\n    health: off\n{more}\
         routes: [{{name: all, upstream: origin, cache: off}}]\n\
         access_log: {{to: stdout, format: json}}\n"
    ))
}

/// A frame of an answer.
type Part = (u8, u8, Vec<u8>);

fn head(flags: u8, fields: &[(&str, &str)]) -> Part {
    (HEADERS, END_HEADERS | flags, block(fields))
}

fn data(flags: u8, text: &str) -> Part {
    (DATA, flags, text.as_bytes().to_vec())
}

const DATE: (&str, &str) = ("date", "Sun, 06 Nov 1994 08:49:37 GMT");

fn ok(more: &[(&str, &str)]) -> Part {
    head(0, &[&[(":status", "200"), DATE, ("x-made", "1")], more].concat())
}

fn says(parts: &[Part]) -> RawOrigin2 {
    let parts = parts.to_vec();
    RawOrigin2::start(move |to, stream| {
        parts.iter().all(|(kind, flags, payload)| {
            to.write_all(&frame(*kind, *flags, stream, payload)).is_ok()
        })
    })
}

/// Answers that are passed on as they are.
fn good_answers() -> Vec<Vec<Part>> {
    let large = "x".repeat(16_000);
    let mut in_parts = vec![ok(&[("content-length", "64000")])];
    in_parts.extend(vec![data(0, &large); 3]);
    in_parts.push(data(END_STREAM, &large));
    vec![
        vec![ok(&[("content-length", "4")]), data(END_STREAM, "body")],
        vec![ok(&[]), data(END_STREAM, "body")],
        vec![ok(&[]), data(0, "bo"), data(0, ""), data(0, "dy"), data(END_STREAM, "")],
        vec![head(END_STREAM, &[(":status", "200"), DATE])],
        vec![head(END_STREAM, &[(":status", "200"), DATE, ("content-length", "0")])],
        vec![ok(&[("content-length", "0")]), data(END_STREAM, "")],
        vec![ok(&[]), data(END_STREAM, "")],
        vec![head(END_STREAM, &[(":status", "204"), DATE])],
        vec![head(0, &[(":status", "204"), DATE]), data(END_STREAM, "")],
        vec![head(0, &[(":status", "404"), DATE]), data(END_STREAM, "no")],
        vec![head(END_STREAM, &[(":status", "302"), DATE, ("location", "/b")])],
        vec![ok(&[("set-cookie", "a=b"), ("set-cookie", "c=d"), ("x-empty", "")]), data(1, "1")],
        vec![ok(&[("age", "x"), ("age", "8"), ("alt-svc", "h3"), ("via", "1.0 in")]), data(1, "1")],
        vec![ok(&[("x-request-id", "theirs"), ("proxy-authenticate", "a")]), data(1, "1")],
        // Trailers: of a body, of one with a length, of none; and some that come too late to mean anything.
        vec![ok(&[]), data(0, "body"), head(END_STREAM, &[("grpc-status", "0"), ("x", "y")])],
        vec![ok(&[("content-length", "4")]), data(0, "body"), head(END_STREAM, &[("x", "y")])],
        vec![ok(&[]), head(END_STREAM, &[("grpc-status", "5")])],
        vec![ok(&[]), data(0, "1"), head(END_STREAM, &[("set-cookie", "a=b"), ("x", "y")])],
        vec![ok(&[]), data(0, "1"), head(END_STREAM, &[("cache-control", "no-store")])],
        // Interim responses.
        vec![
            head(0, &[(":status", "103"), ("link", "</a>")]),
            head(0, &[(":status", "100")]),
            head(0, &[(":status", "101")]),
            head(0, &[(":status", "103"), ("link", "</b>")]),
            ok(&[]),
            data(END_STREAM, "body"),
        ],
        in_parts,
    ]
}

#[test]
fn good_answers_are_the_same_both_ways_for_clients_of_http_1() {
    for answer in good_answers() {
        let told = format!("{:?}", answer.iter().map(|part| (part.0, part.1)).collect::<Vec<_>>());
        let origin = says(&answer);
        let edge = uncached(origin.address, "");
        let (hints, passed) = through::read(&edge, &[]).expect("an answer");
        let (as_many, long) = through::read(&edge, &[THE_LONG_WAY]).expect("an answer");
        assert_eq!(through::shown(&passed), through::shown(&long), "{told}");
        assert_eq!(hints, as_many, "{told}");
        assert_eq!(passed.end, End::Whole, "{told}");
        // On the long way Pingora writes its own: so this went past it.
        assert_eq!(passed.value("date"), Some(DATE.1), "{told}");
        assert_eq!((origin.asked(), origin.connections()), (2, 1), "{told}");
    }
}

#[test]
fn good_answers_are_the_same_both_ways_for_clients_of_http_2() {
    http2::run(async {
        for answer in good_answers() {
            let told =
                format!("{:?}", answer.iter().map(|part| (part.0, part.1)).collect::<Vec<_>>());
            let origin = says(&answer);
            let edge = uncached(origin.address, "");
            let [passed, long] = through_http2::both_ways(&edge, &[]).await;
            assert!(passed.is_ok(), "{told}: {passed:?}");
            assert_eq!(through_http2::shown(&passed), through_http2::shown(&long), "{told}");
            assert_eq!((origin.asked(), origin.connections()), (2, 1), "{told}");
        }
    });
}

#[test]
fn trailers_reach_clients_of_http_2_without_what_comes_too_late() {
    let late = [("grpc-status", "0"), ("set-cookie", "a=b"), ("content-length", "9")];
    let origin = says(&[ok(&[]), data(0, "body"), head(END_STREAM, &late)]);
    let edge = uncached(origin.address, "");
    http2::run(async {
        let mut client = through_http2::connect(&edge).await;
        let fields = [("te", "trailers"), ("content-type", "application/grpc")];
        let reply = http2::get(&mut client, "http://edge.test/", &fields).await.expect("a reply");
        assert_eq!((reply.status, &reply.body[..]), (200, &b"body"[..]));
        let trailers = reply.trailers.expect("trailers");
        assert_eq!(trailers.len(), 1, "{trailers:?}");
        assert_eq!(trailers["grpc-status"], "0");
    });
}

/// Answers that are none: refused, or cut where that is seen too late.
fn bad_answers() -> Vec<Vec<Part>> {
    let reset = |code| (RESET, 0, vec![0, 0, 0, code]);
    let hint = || head(0, &[(":status", "103")]);
    vec![
        vec![reset(0)],
        vec![reset(2)],
        vec![ok(&[]), reset(0)],
        vec![ok(&[]), data(0, "body"), reset(2)],
        vec![ok(&[("content-length", "9")]), data(END_STREAM, "body")],
        vec![ok(&[("content-length", "3")]), data(END_STREAM, "body")],
        vec![ok(&[("content-length", "9")]), data(0, "body"), head(END_STREAM, &[("x", "y")])],
        vec![ok(&[("content-length", "4"), ("content-length", "4")]), data(END_STREAM, "body")],
        vec![ok(&[("connection", "close")]), data(END_STREAM, "body")],
        vec![ok(&[("x", " a")]), data(END_STREAM, "body")],
        vec![ok(&vec![("x", "a"); 300]), data(END_STREAM, "body")],
        vec![head(END_STREAM, &[(":status", "304"), DATE])],
        vec![head(0, &[(":status", "204"), DATE]), data(END_STREAM, "body")],
        vec![head(0, &[(":status", "999")]), data(END_STREAM, "body")],
        vec![data(END_STREAM, "body")],
        vec![hint(); 17],
        vec![head(END_STREAM, &[(":status", "103")])],
        vec![ok(&[]), data(0, "body"), head(0, &[("x", "y")])],
        vec![ok(&[]), data(0, "body"), head(END_STREAM, &[("connection", "x")])],
    ]
}

#[test]
fn bad_answers_are_the_same_both_ways() {
    for answer in bad_answers() {
        let told = format!("{:?}", answer.iter().map(|part| (part.0, part.1)).collect::<Vec<_>>());
        let origin = says(&answer);
        let edge = uncached(origin.address, "");
        // What was cut may have been so before anything of it left.
        let passed = through::read(&edge, &[]).map(|(_, reply)| reply);
        let long = through::read(&edge, &[THE_LONG_WAY]).map(|(_, reply)| reply);
        let is_refused = |reply: &Reply| reply.status == 502 && reply.end == End::Whole;
        for reply in [&passed, &long].into_iter().flatten() {
            assert!(is_refused(reply) || reply.end == End::Cut, "{told}: {reply:?}");
        }
        if let (Some(passed), Some(long)) = (&passed, &long)
            && is_refused(passed)
            && is_refused(long)
        {
            assert_eq!(through::shown(passed), through::shown(long), "{told}");
        }
        http2::run(async {
            let [passed, long] = through_http2::both_ways(&edge, &[]).await;
            for reply in [&passed, &long] {
                let is_refused = reply.as_ref().map_or(true, |reply| reply.status == 502);
                assert!(is_refused, "{told}: {reply:?}");
            }
            if passed.is_ok() && long.is_ok() {
                // What came ahead of a failure may be lost with it.
                let shown = |reply| through_http2::shown(reply).map(Shown::without_hints);
                assert_eq!(shown(&passed), shown(&long), "{told}");
            }
        });
    }
}

/// What an origin saw of a request.
fn heard(head: &Parts) -> (String, Vec<(String, String)>) {
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let mut fields: Vec<_> = head
        .headers
        .iter()
        .map(|(name, value)| (name.to_string(), text(value)))
        .filter(|(name, _)| name != "if-match" && name != "x-request-id")
        .collect();
    fields.sort();
    (format!("{} {}", head.method, head.uri), fields)
}

fn well() -> Origin2 {
    Origin2::start(None, |mut call| async move { call.respond(Response::new(()), "well") })
}

#[test]
fn the_origin_sees_the_same_both_ways() {
    let cases: &[&[(&str, &str)]] = &[
        &[],
        &[("user-agent", "test"), ("accept", "*/*"), ("x-custom", "a"), ("x-custom", "b")],
        &[("cookie", "a=1"), ("cookie", "b=2"), ("accept-encoding", "gzip, br;q=0.5")],
        &[("x-forwarded-for", "192.0.2.1"), ("forwarded", "for=192.0.2.1"), ("via", "1.1 o")],
        &[("te", "trailers"), ("traceparent", "nonsense"), ("x-real-ip", "1.1.1.1")],
        &[("authorization", "Basic eDp5"), ("cache-control", "no-cache"), ("x-empty", "")],
    ];
    let origin = well();
    let edge = uncached(origin.address, "");
    for fields in cases {
        through::same_both_ways(&edge, fields, &format!("{fields:?}"));
        http2::run(async { through_http2::both_ways(&edge, fields).await.map(Result::unwrap) });
        let seen = origin.seen();
        let [.., passed, long, passed2, long2] = &seen[..] else { panic!("four were made") };
        assert_eq!(heard(passed), heard(long), "{fields:?}");
        assert_eq!(heard(passed2), heard(long2), "{fields:?}");
        assert_eq!(passed.uri.authority().map(|host| host.as_str()), Some("edge.test"));
    }
    let hops = [("Connection", "X-Hop, keep-alive"), ("X-Hop", "1"), ("Keep-Alive", "1")];
    through::same_both_ways(&edge, &hops, "hops");
    let seen = origin.seen();
    let [.., passed, long] = &seen[..] else { panic!("two were made") };
    assert_eq!(heard(passed), heard(long));
    assert!(!passed.headers.contains_key("x-hop"));
}

#[test]
fn rewrites_and_header_rules_hold_both_ways() {
    let origin = Origin2::start(None, |mut call| async move {
        let response = Response::builder().header("x-gone", "1").header("server", "one").body(());
        call.respond(response.expect("a good head"), "x");
    });
    let edge = Edge::with(&format!(
        "listeners: [{{name: http, address: \"127.0.0.1:0\", h2c: true}}]\n\
         upstreams:\n  origin: {{addresses: [\"{}\"], protocol: http2}}\n\
         routes:\n  - match: {{path_prefix: /a}}\n    upstream: origin\n    cache: off\n    \
         rewrite: {{add_prefix: /inner, host: inner.test}}\n    headers:\n      \
         request: {{set: {{X-Set: s}}, add: {{X-Add: a}}, remove: [X-Out]}}\n      \
         response: {{set: {{X-Set: s}}, add: {{X-Add: a}}, remove: [X-Gone]}}\n",
        origin.address
    ));
    let reply = through::same_both_ways(&edge, &[("X-Out", "1"), ("X-Add", "0")], "rules");
    assert_eq!((reply.value("x-set"), reply.value("x-gone")), (Some("s"), None));
    let seen = origin.seen();
    assert_eq!(seen[0].uri, "http://inner.test/inner/a?b=c");
    assert_eq!(heard(&seen[0]), heard(&seen[1]));
}

#[test]
fn the_log_and_the_counters_tell_the_same_both_ways() {
    let busy = Response::builder().status(503).body(()).expect("a good head");
    let origin = Origin2::start(None, move |mut call| {
        let busy = busy.clone();
        async move { call.respond(busy, "busy") }
    });
    let told = |fields: &[(&str, &str)]| {
        let edge = uncached(origin.address, "");
        let mut wire = edge.wire();
        for _ in 0..2 {
            wire.get("edge.test", "/a?b=c", fields).expect_status(503);
        }
        // What is told and counted last.
        let lines = loop {
            let lines = edge.access_log();
            if lines.len() == 2 {
                break lines;
            }
            std::thread::yield_now();
        };
        edge.wait_for_gauge("edgeproxy_backend_pool_in_use", 0.0);
        edge.wait_for_gauge("edgeproxy_backend_requests_in_flight", 0.0);
        let mut counted: Vec<_> =
            ["edgeproxy_backend_", "edgeproxy_upstream_", "edgeproxy_requests_"]
                .iter()
                .flat_map(|start| edge.metrics(start))
                .filter(|line| !line.contains("seconds"))
                .collect();
        counted.sort();
        let lines: Vec<serde_json::Value> = lines
            .iter()
            .map(|line| {
                let mut line: serde_json::Value = serde_json::from_str(line).expect("JSON");
                let fields = line.as_object_mut().expect("an object");
                for varying in [
                    "time",
                    "request_id",
                    "duration_ms",
                    "ttfb_ms",
                    "upstream_ms",
                    "client",
                    "peer",
                ] {
                    fields.remove(varying);
                }
                line
            })
            .collect();
        (counted, lines)
    };
    let (passed, long) = (told(&[]), told(&[THE_LONG_WAY]));
    assert_eq!(passed, long);
    assert!(passed.0.iter().any(|line| line.contains("pool_reused_total") && line.ends_with(" 1")));
}

#[test]
fn what_comes_is_passed_on_before_the_rest_is_there() {
    let go = Arc::new(Notify::new());
    let origin = Origin2::start(None, {
        let go = Arc::clone(&go);
        move |mut call| {
            let go = Arc::clone(&go);
            async move {
                let mut body = call.answer.send_response(Response::new(()), false).expect("open");
                for part in ["half", "rest"] {
                    go.notified().await;
                    body.send_data(part.into(), false).expect("it is open");
                }
                go.notified().await;
                let mut trailers = HeaderMap::new();
                trailers.insert("x", HeaderValue::from_static("y"));
                body.send_trailers(trailers).expect("it is open");
            }
        }
    });
    let edge = uncached(origin.address, "");
    http2::run(async {
        let mut client = through_http2::connect(&edge).await.ready().await.expect("a connection");
        let request = Request::get("http://edge.test/").body(()).expect("a request");
        let (response, _) = client.send_request(request, true).expect("it is sent");
        let mut body = response.await.expect("a header before any body").into_body();
        for part in ["half", "rest"] {
            go.notify_one();
            assert_eq!(body.data().await.expect("a part").expect("it is whole"), part);
        }
        go.notify_one();
        assert!(body.data().await.is_none());
        let trailers = body.trailers().await.expect("it is whole").expect("trailers");
        assert_eq!(trailers["x"], "y");
    });
    let mut wire = edge.wire();
    wire.send("GET / HTTP/1.1\r\nHost: edge.test\r\n\r\n");
    let mut got = Vec::new();
    for end in ["\r\n\r\n", "half\r\n", "rest\r\n", "0\r\n\r\n"] {
        while !String::from_utf8_lossy(&got).ends_with(end) {
            got.extend(wire.read_raw(1));
        }
        go.notify_one();
    }
}

#[test]
fn a_client_that_goes_away_takes_its_request_with_it() {
    let (asked, was_asked) = mpsc::channel();
    let (tell, given_up) = mpsc::channel();
    let origin = Origin2::start(None, move |mut call: Call| {
        let (asked, tell) = (asked.clone(), tell.clone());
        async move {
            if call.head.uri.path() != "/stay" {
                return call.respond(Response::new(()), "well");
            }
            let _ = asked.send(());
            let reason = std::future::poll_fn(|cx| call.answer.poll_reset(cx)).await;
            let _ = tell.send(reason.ok());
        }
    });
    let edge = uncached(origin.address, "");
    let mut wire = edge.wire();
    wire.send("GET /stay HTTP/1.1\r\nHost: edge.test\r\n\r\n");
    was_asked.recv_timeout(LATE).expect("the origin is asked");
    drop(wire);
    assert_eq!(given_up.recv_timeout(LATE), Ok(Some(h2::Reason::CANCEL)));
    let line = edge.wait_for_access("\"bytes_sent\":0");
    assert!(!line.contains("\"status\""), "{line}");
    http2::run(async {
        let mut client = through_http2::connect(&edge).await.ready().await.expect("a connection");
        let request = Request::get("http://edge.test/stay").body(()).expect("a request");
        let (response, mut stream) = client.send_request(request, true).expect("it is sent");
        was_asked.recv_timeout(LATE).expect("the origin is asked");
        stream.send_reset(h2::Reason::CANCEL);
        drop(response);
        assert_eq!(given_up.recv_timeout(LATE), Ok(Some(h2::Reason::CANCEL)));
        let other = http2::get(&mut client, "http://edge.test/", &[]).await.expect("a reply");
        assert_eq!(other.body, b"well");
    });
    assert_eq!(origin.connections(), 1);
    edge.wait_for_gauge("edgeproxy_backend_pool_in_use", 0.0);
    assert_eq!(edge.metric("edgeproxy_backend_failures_total"), 0.0);
}

#[test]
fn deadlines_hold() {
    let begun = vec![ok(&[("content-length", "9")]), data(0, "some")];
    let hinted = vec![head(0, &[(":status", "103")])];
    for (told, parts, status) in
        [("nothing", vec![], 504), ("a hint", hinted, 504), ("a part", begun.clone(), 200)]
    {
        for times in ["timeouts: {read: 300ms}", "timeouts: {read: 9s, total: 300ms}"] {
            // The time to the header, all attempts together, does not bound what has begun.
            if told != "nothing" && times.contains("total") {
                continue;
            }
            let origin = says(&parts);
            let edge = uncached(origin.address, &format!("    {times}\n"));
            let began = Instant::now();
            let reply = edge.get("/");
            assert_eq!(reply.status, status, "{told} {times}: {reply:?}");
            assert_eq!(reply.end == End::Cut, status == 200, "{told} {times}");
            let over_http2 = http2::run(async {
                let mut client = through_http2::connect(&edge).await;
                http2::get(&mut client, "http://edge.test/", &[]).await
            });
            let over_http2 = over_http2.ok().map(|reply| reply.status);
            assert_eq!(over_http2, (status == 504).then_some(504), "{told} {times}");
            assert!(began.elapsed() < LATE, "{told} {times}");
            edge.wait_for_gauge("edgeproxy_backend_pool_in_use", 0.0);
        }
    }
    // And that of a route ends what comes drop by drop.
    let origin = RawOrigin2::start(|to, stream| {
        let mut more =
            to.write_all(&frame(HEADERS, END_HEADERS, stream, &block(&[(":status", "200")])));
        let began = Instant::now();
        while more.is_ok() && began.elapsed() < 2 * LATE {
            std::thread::sleep(Duration::from_millis(50));
            more = to.write_all(&frame(DATA, 0, stream, b"x"));
        }
        more.is_ok()
    });
    let edge = Edge::with(&format!(
        "listeners: [{{name: http, address: \"127.0.0.1:0\"}}]\n\
         upstreams:\n  origin: {{addresses: [\"{}\"], protocol: http2}}\n\
         routes: [{{upstream: origin, cache: off, timeout: 500ms}}]\n",
        origin.address
    ));
    let began = Instant::now();
    let reply = edge.get("/");
    assert_eq!((reply.status, reply.end), (200, End::Cut), "{reply:?}");
    assert!(began.elapsed() < LATE);
    edge.wait_for_metric("edgeproxy_refusals_total{reason=\"total_timeout\"}", 1.0);
}

/// Does this to its first request, and answers all others.
fn once(deed: impl Fn(&mut TcpStream, u32) -> bool + Send + Sync + 'static) -> RawOrigin2 {
    let times = AtomicUsize::new(0);
    RawOrigin2::start(move |to, stream| match times.fetch_add(1, Ordering::SeqCst) {
        0 => deed(to, stream),
        _ => {
            let head = frame(HEADERS, END_HEADERS, stream, &block(&[(":status", "200")]));
            to.write_all(&[head, frame(DATA, END_STREAM, stream, b"body")].concat()).is_ok()
        }
    })
}

#[test]
fn a_failure_is_followed_by_another_attempt_both_ways() {
    let refused = |to: &mut TcpStream, stream: u32| {
        to.write_all(&frame(RESET, 0, stream, &[0, 0, 0, 7])).is_ok()
    };
    let broken = |to: &mut TcpStream, stream: u32| {
        to.write_all(&frame(RESET, 0, stream, &[0, 0, 0, 2])).is_ok()
    };
    for fields in [&[][..], &[THE_LONG_WAY]] {
        // Who was not looked at is asked again, although there is no other.
        let origin = once(refused);
        let edge = uncached(origin.address, "");
        edge.get_with("/", fields).expect_status(200).expect_body("body");
        assert_eq!(origin.asked(), 2, "{fields:?}");
        // A connection that died while it was idle is replaced without a word.
        let origin = RawOrigin2::start({
            let asked = AtomicUsize::new(0);
            move |to, stream| {
                let first = asked.fetch_add(1, Ordering::SeqCst) == 0;
                let head =
                    frame(HEADERS, END_HEADERS | END_STREAM, stream, &block(&[(":status", "200")]));
                let _ = to.write_all(&head);
                !first
            }
        });
        let edge = uncached(origin.address, "");
        for _ in 0..2 {
            edge.get_with("/", fields).expect_status(200);
        }
        assert_eq!((origin.asked(), origin.connections()), (2, 2), "{fields:?}");
        assert_eq!(edge.metric("edgeproxy_backend_failures_total"), 0.0, "{fields:?}");
        // Where one breaks another one is asked, and who broke is charged with it.
        let (one, other) = (RawOrigin2::start(broken), well());
        let addresses = [one.address.to_string(), other.address.to_string()];
        let edge = before(&addresses, "    retry: {backoff: 0}\n");
        for _ in 0..4 {
            edge.get_with("/", fields).expect_status(200).expect_body("well");
        }
        // A second attempt takes nobody's turn.
        assert_eq!((one.asked(), other.seen().len()), (2, 4), "{fields:?}");
        assert_eq!(edge.metric("edgeproxy_upstream_retries_total"), 2.0, "{fields:?}");
        // And where one is silent for too long.
        let (silent, other) = (RawOrigin2::start(|_, _| true), well());
        let addresses = [silent.address.to_string(), other.address.to_string()];
        let edge = before(&addresses, "    retry: {per_try: 300ms, backoff: 0}\n");
        for _ in 0..2 {
            edge.get_with("/", fields).expect_status(200).expect_body("well");
        }
        assert_eq!((silent.asked(), other.seen().len()), (1, 2), "{fields:?}");
    }
}

#[test]
fn breakers_count_what_is_passed_through() {
    let origin = Origin2::start(None, |mut call| async move {
        let busy = Response::builder().status(503).body(()).expect("a good head");
        call.respond(busy, "busy");
    });
    let reset = RawOrigin2::start(|to, stream| {
        to.write_all(&frame(RESET, 0, stream, &[0, 0, 0, 2])).is_ok()
    });
    for (address, status) in [(origin.address, 503), (reset.address, 502)] {
        let breaker = "    breaker: {failures: 3, counts: [closed], statuses: [503]}\n";
        let edge = before(&[address.to_string()], &format!("{breaker}    retry: off\n"));
        for _ in 0..3 {
            edge.get("/").expect_status(status);
        }
        edge.get("/").expect_status(503);
        edge.wait_for_metric("edgeproxy_refusals_total{reason=\"breaker_open\"}", 1.0);
    }
    assert_eq!((origin.seen().len(), reset.asked()), (3, 3));
}

#[test]
fn large_bodies_arrive_as_they_were_sent_on_many_streams() {
    let body: Vec<u8> = (0..1_000_000_u32).map(|n| (n % 251) as u8).collect();
    let sent = Bytes::from(body.clone());
    let origin = Origin2::start(None, move |mut call| {
        let sent = sent.clone();
        async move { call.respond(Response::new(()), sent) }
    });
    // One for all of them: a thread that finds another one's connection busy would want its own.
    let edge = uncached(origin.address, "    pool: {max_connections: 1}\n");
    http2::run(async {
        let client = through_http2::connect(&edge).await;
        let all = (0..16).map(|n| {
            let mut client = client.clone();
            async move { http2::get(&mut client, &format!("http://edge.test/{n}"), &[]).await }
        });
        for reply in futures_util::future::join_all(all).await {
            let reply = reply.expect("it is whole");
            assert!(reply.status == 200 && reply.body == body);
        }
    });
    let reply = edge.get("/");
    assert!(reply.status == 200 && reply.end == End::Whole && reply.body == body);
    assert_eq!(origin.connections(), 1);
}

#[test]
fn what_a_client_does_not_read_is_not_taken_from_the_origin() {
    let taken = Arc::new(AtomicUsize::new(0));
    let (stuck, is_stuck) = mpsc::channel();
    let stuck = Mutex::new(stuck);
    let origin = Origin2::start(None, {
        let taken = Arc::clone(&taken);
        move |mut call: Call| {
            let taken = Arc::clone(&taken);
            let stuck = stuck.lock().expect("nobody panics with it").clone();
            async move {
                let mut body = call.answer.send_response(Response::new(()), false).expect("open");
                let block = Bytes::from(vec![b'x'; 64 << 10]);
                let mut told = false;
                loop {
                    let sent = http2::send_some(&mut body, &block);
                    match tokio::time::timeout(Duration::from_millis(500), sent).await {
                        Ok(Some(bytes)) => drop(taken.fetch_add(bytes, Ordering::SeqCst)),
                        Ok(None) => return,
                        Err(_) if !told => {
                            told = true;
                            let _ = stuck.send(());
                        }
                        Err(_) => {}
                    }
                }
            }
        }
    });
    let edge = uncached(origin.address, "");
    http2::run(async {
        let mut client = through_http2::connect(&edge).await.ready().await.expect("a connection");
        let request = Request::get("http://edge.test/").body(()).expect("a request");
        let (response, _stream) = client.send_request(request, true).expect("it is sent");
        let _body = response.await.expect("a header").into_body();
        tokio::task::spawn_blocking(move || is_stuck.recv_timeout(LATE).expect("it stops"))
            .await
            .expect("it does");
        // The windows of both streams, and what is on its way between them.
        let taken = taken.load(Ordering::SeqCst);
        assert!(taken < 2 << 20, "{taken}");
    });
}
