//! What is neither stored nor changed is passed through, past Pingora. Both ways have to show the client
//! the same, and the origin too. A condition that no origin here knows sends a request the long way.

use std::io::Read;
use std::io::Write;
use std::sync::Mutex;
use std::sync::mpsc;
use std::time::Duration;
use std::time::Instant;

use crate::harness::Edge;
use crate::harness::Origin;
use crate::harness::Reply;
use crate::harness::Respond;
use crate::harness::client::End;
use crate::harness::edge::simple;
use crate::harness::ok;
use crate::harness::origin::Seen;
use crate::harness::status;

/// Sends a request the long way.
pub(super) const THE_LONG_WAY: (&str, &str) = ("If-Match", "\"any\"");

/// What may differ between two answers: whose they are and, on the long way, when Pingora wrote them.
pub(super) const OF_ONE_ANSWER: [&str; 2] = ["x-request-id", "date"];

/// Nothing is stored.
pub(super) fn uncached(origin: &Origin) -> Edge {
    uncached_with(origin, "")
}

/// The same with further keys of the upstream.
pub(super) fn uncached_with(origin: &Origin, more: &str) -> Edge {
    let yaml = simple(origin, "")
        .replace("upstream: origin}", "upstream: origin, cache: off}")
        .replace("    addresses:", &format!("    breaker: off\n{more}    addresses:"));
    Edge::with(&yaml)
}

/// What a client sees of a reply.
pub(super) fn shown(reply: &Reply) -> (u16, Vec<(String, String)>, Vec<u8>, End) {
    let mut fields: Vec<_> = reply
        .fields
        .iter()
        .map(|(name, value)| (name.to_ascii_lowercase(), value.clone()))
        .filter(|(name, _)| !OF_ONE_ANSWER.contains(&name.as_str()))
        .collect();
    fields.sort_by(|one, other| one.0.cmp(&other.0));
    (reply.status, fields, reply.body.clone(), reply.end)
}

/// What an origin saw of a request.
pub(super) fn heard(seen: &Seen) -> (String, Vec<(String, String)>) {
    let mut fields: Vec<_> = seen
        .fields
        .iter()
        .map(|(name, value)| (name.to_ascii_lowercase(), value.clone()))
        .filter(|(name, _)| name != "if-match" && name != "x-request-id")
        .collect();
    fields.sort();
    (format!("{} {}", seen.method(), seen.target()), fields)
}

/// Asks both ways, and has the same shown both times.
#[track_caller]
pub(super) fn same_both_ways(edge: &Edge, fields: &[(&str, &str)], told: &str) -> Reply {
    let through = edge.get_with("/a?b=c", fields);
    let long = edge.get_with("/a?b=c", &[fields, &[THE_LONG_WAY]].concat());
    assert_eq!(shown(&through), shown(&long), "{told}");
    through
}

/// What came ahead of an answer, and its `Link`.
type Hint = (u16, Option<String>);

/// Everything that an HTTP/1 client reads of an answer: what comes ahead of it, and the answer itself.
pub(super) fn read(edge: &Edge, fields: &[(&str, &str)]) -> Option<(Vec<Hint>, Reply)> {
    let mut wire = edge.wire();
    let mut request = "GET /a?b=c HTTP/1.1\r\nHost: edge.test\r\n".to_owned();
    for (name, value) in fields {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    wire.send(request + "\r\n");
    let mut interim = Vec::new();
    loop {
        let reply = wire.any_reply("GET")?;
        if reply.status > 199 {
            return Some((interim, reply));
        }
        interim.push((reply.status, reply.value("link").map(ToOwned::to_owned)));
    }
}

/// Answers that are passed on as they are.
pub(super) fn good_answers() -> Vec<String> {
    let fields = "Server: one\r\nX-Made: 1\r\nSet-Cookie: a=b\r\nSet-Cookie: c=d\r\nX-Empty:\r\n\
                  Cache-Control: max-age=60\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n";
    let with = |more: &str| format!("HTTP/1.1 200 OK\r\n{fields}{more}");
    let big = "x".repeat(300_000);
    vec![
        with("Content-Length: 4\r\n\r\nbody"),
        with("Content-Length: 0\r\n\r\n"),
        with("Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n3;ext=1\r\nies\r\n0\r\n\r\n"),
        with("Transfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n4\r\nbody\r\n0\r\nX-T: 1\r\n\r\n"),
        with(
            "Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\nCache-Control: no-store\r\n\
             Content-Type: text/html\r\nSet-Cookie: late=1\r\n\r\n",
        ),
        with("Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        with("\r\nthe end of the connection ends it"),
        with("Connection: close\r\nContent-Length: 4\r\n\r\nbody"),
        with(
            "Connection: X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nContent-Length: 1\r\n\r\n1",
        ),
        with("Via: 1.0 inner\r\nAge: 7\r\nX-Cache: HIT\r\nContent-Length: 1\r\n\r\n1"),
        with(
            "Age: x\r\nAge: 8\r\nAlt-Svc: h3\r\nProxy-Authenticate: a\r\nContent-Length: 1\r\n\r\n1",
        ),
        with("CDN-Cache-Control: max-age=9\r\nX-Request-ID: theirs\r\nContent-Length: 1\r\n\r\n1"),
        with(&format!("Content-Length: {}\r\n\r\n{big}", big.len())),
        with(&format!("Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{big}\r\n0\r\n\r\n", big.len())),
        "HTTP/1.0 200 Old\r\n\r\nold".to_owned(),
        "HTTP/1.1 204 No Content\r\nX: y\r\n\r\n".to_owned(),
        "HTTP/1.1 404 Gone Away\r\nContent-Length: 2\r\n\r\nno".to_owned(),
        "HTTP/1.1 500\r\nContent-Length: 2\r\n\r\nno".to_owned(),
        "HTTP/1.1 302 Found\r\nLocation: /b\r\nContent-Length: 0\r\n\r\n".to_owned(),
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1".to_owned(),
        "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbodyHTTP/1.1 200 OK\r\n\r\n".to_owned(),
    ]
}

#[test]
fn good_answers_are_the_same_both_ways() {
    for answer in good_answers() {
        let told = answer.chars().take(300).collect::<String>();
        let origin = Origin::always(Respond::raw(answer));
        let edge = uncached(&origin);
        let (hints, passed) = read(&edge, &[]).expect("an answer");
        let (as_many, long) = read(&edge, &[THE_LONG_WAY]).expect("an answer");
        assert_eq!(shown(&passed), shown(&long), "{told}");
        assert_eq!(hints, as_many, "{told}");
        assert_eq!(passed.end, End::Whole, "{told}");
    }
}

/// Answers that are not: refused, or cut where that is seen too late.
pub(super) fn bad_answers() -> Vec<String> {
    let head = |lines: &str| format!("HTTP/1.1 200 OK\r\n{lines}\r\n\r\n");
    let chunked = || head("Transfer-Encoding: chunked");
    vec![
        String::new(),
        "nonsense\r\n\r\n".to_owned(),
        "HTTP/1.1 99 Low\r\n\r\n".to_owned(),
        "HTTP/1.1 200 OK\r\nX: y".to_owned(),
        "HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n".to_owned(),
        "HTTP/1.1 304 Not Modified\r\n\r\n".to_owned(),
        "HTTP/1.1 103 Hints\r\n\r\n".repeat(17),
        format!("{}body", head(&format!("X: {}\r\nContent-Length: 4", "y".repeat(70_000)))),
        format!(
            "{}4\r\nbody\r\n0\r\n\r\n",
            head("Transfer-Encoding: chunked\r\nContent-Length: 4")
        ),
        format!("{}body", head("Content-Length: 5")),
        format!("{}4\r\nbody\r\n", chunked()),
        format!("{}4\r\nbody\r\n0\r\n", chunked()),
        format!("{}4\r\nbodies\r\n0\r\n\r\n", chunked()),
        format!("{}\r\n\r\n", chunked()),
    ]
}

#[test]
fn bad_answers_are_the_same_both_ways() {
    for answer in bad_answers() {
        let told = answer.chars().take(300).collect::<String>();
        let origin = Origin::always(Respond::raw(answer));
        let edge = uncached(&origin);
        let through = edge.get("/a");
        let long = edge.get_with("/a", &[THE_LONG_WAY]);
        let refused = |reply: &Reply| reply.status == 502 && reply.end == End::Whole;
        for reply in [&through, &long] {
            assert!(refused(reply) || reply.end == End::Cut, "{told}: {reply:?}");
        }
        if refused(&through) && refused(&long) {
            assert_eq!(shown(&through), shown(&long), "{told}");
        }
    }
}

#[test]
fn the_origin_sees_the_same_both_ways() {
    let origin = Origin::always(ok("x"));
    let edge = uncached_with(&origin, "");
    let cases: &[&[(&str, &str)]] = &[
        &[],
        &[("User-Agent", "test"), ("Accept", "*/*"), ("X-Custom", "a"), ("x-custom", "b")],
        &[("Cookie", "a=1"), ("Cookie", "b=2"), ("Accept-Encoding", "gzip, br;q=0.5")],
        &[
            ("X-Forwarded-For", "192.0.2.1"),
            ("Forwarded", "for=192.0.2.1"),
            ("X-Real-IP", "1.1.1.1"),
        ],
        &[("Via", "1.1 other"), ("traceparent", "nonsense"), ("tracestate", "a=b")],
        &[
            ("Connection", "X-Hop, keep-alive"),
            ("X-Hop", "1"),
            ("TE", "trailers"),
            ("Keep-Alive", "1"),
        ],
        &[("Proxy-Connection", "keep-alive"), ("Proxy-Authorization", "x"), ("Upgrade", "h2c")],
        &[("Authorization", "Basic eDp5"), ("Cache-Control", "no-cache"), ("X-Empty", "")],
    ];
    for fields in cases {
        same_both_ways(&edge, fields, &format!("{fields:?}"));
        let seen = origin.seen();
        let [.., through, long] = &seen[..] else { panic!("two requests were made") };
        assert_eq!(heard(through), heard(long), "{fields:?}");
    }
}

#[test]
fn rewrites_and_header_rules_hold_both_ways() {
    let origin = Origin::always(ok("x").field("X-Gone", "1").field("Server", "one"));
    let yaml = simple(&origin, "").replace(
        "{name: all, upstream: origin}",
        "name: all\n    match: {path_prefix: /a}\n    upstream: origin\n    cache: off\n    \
         rewrite: {add_prefix: /inner, host: inner.test}\n    headers:\n      \
         request: {set: {X-Set: s}, add: {X-Add: a}, remove: [X-Out]}\n      \
         response: {set: {X-Set: s}, add: {X-Add: a}, remove: [X-Gone]}",
    );
    let edge = Edge::with(&yaml);
    let reply = same_both_ways(&edge, &[("X-Out", "1"), ("X-Add", "0")], "rules");
    assert_eq!(reply.value("x-set"), Some("s"));
    assert_eq!(reply.value("x-gone"), None);
    let seen = origin.seen();
    assert_eq!(seen[0].target(), "/inner/a?b=c");
    assert_eq!(seen[0].value("host"), Some("inner.test"));
    assert_eq!(heard(&seen[0]), heard(&seen[1]));
}

#[test]
fn one_connection_carries_one_request_after_the_other() {
    let origin = Origin::script().otherwise(|seen| ok(seen.target())).start();
    let edge = uncached(&origin);
    let mut wire = edge.wire();
    for n in 0..20 {
        let path = format!("/{n}");
        wire.get("edge.test", &path, &[]).expect_status(200).expect_body(&path);
    }
    // All at once, and answered in their order.
    let all: String =
        (0..20).map(|n| format!("GET /{n} HTTP/1.1\r\nHost: edge.test\r\n\r\n")).collect();
    wire.send(&all);
    for n in 0..20 {
        wire.reply().expect_status(200).expect_body(&format!("/{n}"));
    }
    assert_eq!(origin.connections(), 1);
}

#[test]
fn a_client_that_wants_no_more_is_closed_after_its_answer() {
    let origin = Origin::always(ok("x"));
    let edge = uncached(&origin);
    let mut wire = edge.wire();
    let reply = wire.get("edge.test", "/", &[("Connection", "close")]);
    reply.expect_status(200);
    assert_eq!(reply.value("connection"), Some("close"));
    assert!(wire.until_closed().is_empty());
}

#[test]
fn what_comes_is_passed_on_before_the_rest_is_there() {
    for framing in ["Content-Length: 8", "Transfer-Encoding: chunked", "X: y"] {
        let (go, gate) = mpsc::channel();
        let gate = Mutex::new(gate);
        let (first, second) = match framing {
            "Transfer-Encoding: chunked" => ("4\r\nhalf\r\n", "4\r\nrest\r\n0\r\n\r\n"),
            _ => ("half", "rest"),
        };
        let origin = Origin::script()
            .take_over("/", move |_, mut stream| {
                let gate = gate.lock().expect("nobody panics here");
                for part in [&format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n"), first, second] {
                    stream.write_all(part.as_bytes()).expect("edgeproxy listens");
                    if part != second {
                        gate.recv().expect("the test lets it go on");
                    }
                }
            })
            .start();
        let edge = uncached(&origin);
        let mut wire = edge.wire();
        wire.send("GET / HTTP/1.1\r\nHost: edge.test\r\n\r\n");
        let mut got = Vec::new();
        for end in ["\r\n\r\n", "half"] {
            while !String::from_utf8_lossy(&got).trim_end().ends_with(end.trim_end()) {
                got.extend(wire.read_raw(1));
            }
            go.send(()).expect("the origin waits");
        }
        let rest = wire.read_raw(4);
        got.extend(rest);
        assert!(String::from_utf8_lossy(&got).contains("half"), "{framing}");
    }
}

#[test]
fn a_client_that_goes_away_takes_its_request_with_it() {
    let (gone, is_gone) = mpsc::channel();
    let (asked, was_asked) = mpsc::channel();
    let (gone, asked) = (Mutex::new(gone), Mutex::new(asked));
    let origin = Origin::script()
        .take_over("/", move |_, mut stream| {
            asked.lock().expect("nobody panics here").send(()).expect("the test waits");
            let end = stream.read(&mut [0; 16]);
            gone.lock().expect("nobody panics here").send(end.is_ok()).expect("the test waits");
        })
        .start();
    let edge = uncached(&origin);
    let mut wire = edge.wire();
    wire.send("GET / HTTP/1.1\r\nHost: edge.test\r\n\r\n");
    was_asked.recv().expect("the origin is asked");
    drop(wire);
    is_gone.recv_timeout(Duration::from_secs(10)).expect("the origin is left");
    let line = edge.wait_for_access("\"bytes_sent\":0");
    assert!(!line.contains("\"status\""), "{line}");
}

#[test]
fn deadlines_hold() {
    // Of the upstream while nothing comes, and of the route while something does.
    let silent = |said: &'static str| {
        Origin::script()
            .take_over("/", move |_, mut stream| {
                let _ = stream.write_all(said.as_bytes());
                let _ = stream.read_to_end(&mut Vec::new());
            })
            .start()
    };
    for (said, status) in [
        ("", 504),
        ("HTTP/1.1 200 OK\r\nX:", 504),
        ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nsome", 200),
    ] {
        let origin = silent(said);
        let began = Instant::now();
        let edge = uncached_with(&origin, "    timeouts: {read: 300ms}\n");
        let reply = edge.get("/");
        assert_eq!(reply.status, status, "{said:?}: {reply:?}");
        assert_eq!(reply.end == End::Cut, status == 200, "{said:?}");
        assert!(began.elapsed() < Duration::from_secs(20), "{said:?}");
    }
}

#[test]
fn large_bodies_arrive_as_they_were_sent() {
    let body: Vec<u8> = (0..5_000_000_u32).map(|n| (n % 251) as u8).collect();
    for chunked in [false, true] {
        let sent = body.clone();
        let origin = Origin::script()
            .take_over("/", move |_, mut stream| {
                let head =
                    if chunked { "Transfer-Encoding: chunked" } else { "Content-Length: 5000000" };
                let _ = stream.write_all(format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n").as_bytes());
                for part in sent.chunks(70_001) {
                    if chunked {
                        let _ = stream.write_all(format!("{:X}\r\n", part.len()).as_bytes());
                    }
                    let _ = stream.write_all(part);
                    if chunked {
                        let _ = stream.write_all(b"\r\n");
                    }
                }
                if chunked {
                    let _ = stream.write_all(b"0\r\n\r\n");
                }
            })
            .start();
        let edge = uncached(&origin);
        let reply = edge.get("/");
        assert_eq!((reply.status, reply.end), (200, End::Whole));
        assert!(reply.body == body, "chunked: {chunked}");
    }
}

#[test]
fn the_log_and_the_counters_tell_the_same_both_ways() {
    let origin = Origin::always(status(503).body("busy"));
    let edge = uncached(&origin);
    same_both_ways(&edge, &[("User-Agent", "ua"), ("Referer", "r")], "503");
    edge.wait_for_metric("edgeproxy_refusals_total", 0.0);
    let lines = loop {
        let lines = edge.access_log();
        if lines.len() == 2 {
            break lines;
        }
        std::thread::yield_now();
    };
    let told = |line: &str| {
        let mut line: serde_json::Value = serde_json::from_str(line).expect("JSON");
        let fields = line.as_object_mut().expect("an object");
        for varying in ["time", "request_id", "duration_ms", "ttfb_ms", "upstream_ms"] {
            fields.remove(varying);
        }
        line
    };
    assert_eq!(told(&lines[0]), told(&lines[1]));
}
