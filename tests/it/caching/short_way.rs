//! Fresh hits are answered past Pingora. The first request for a path goes the long way, the second
//! the short one: what both say must be the same.

use std::time::Duration;
use std::time::SystemTime;

use bytes::Bytes;
use http::Request;

use crate::caching::minute;
use crate::caching::with_rules;
use crate::harness::Edge;
use crate::harness::Origin;
use crate::harness::Reply;
use crate::harness::Respond;
use crate::harness::client::End;
use crate::harness::http2;
use crate::harness::ok;
use crate::harness::status;

/// What may differ: how old, from where, and whose request it was; HTTP/1 shows the origin's Date from
/// the store, where Pingora writes its own.
const OF_ONE_ANSWER: [&str; 5] = ["age", "x-cache", "cache-status", "x-request-id", "date"];

/// Requests: a name for the path, method, fields.
type Case = (&'static str, &'static str, &'static [(&'static str, &'static str)]);

const CASES: &[Case] = &[
    ("plain", "GET", &[]),
    ("head", "HEAD", &[]),
    ("known", "GET", &[("If-None-Match", "\"1\"")]),
    ("known-weakly", "HEAD", &[("If-None-Match", "W/\"0\", W/\"1\"")]),
    ("unknown", "GET", &[("If-None-Match", "\"2\"")]),
    ("unchanged", "GET", &[("If-Modified-Since", "Sun, 06 Nov 1994 08:49:37 GMT")]),
    ("changed", "GET", &[("If-Modified-Since", "Sun, 06 Nov 1994 08:49:36 GMT")]),
    ("part", "GET", &[("Range", "bytes=2-4")]),
    ("end", "GET", &[("Range", "bytes=-3")]),
    ("beyond", "GET", &[("Range", "bytes=100-")]),
    ("two", "GET", &[("Range", "bytes=0-0, 4-5")]),
    ("range-of-head", "HEAD", &[("Range", "bytes=2-4")]),
    ("range-if-same", "GET", &[("Range", "bytes=2-4"), ("If-Range", "\"1\"")]),
    ("range-if-other", "GET", &[("Range", "bytes=2-4"), ("If-Range", "\"2\"")]),
    ("nonsense", "GET", &[("Range", "lines=1-2"), ("If-None-Match", "1")]),
    ("encoded?a=%41&b", "GET", &[("Accept-Encoding", "gzip, br"), ("X-Extra", "")]),
    ("gone", "GET", &[("Range", "bytes=0-1")]),
    ("bare", "GET", &[]),
    ("empty", "GET", &[("Range", "bytes=0-1")]),
];

fn answer(path: &str) -> Respond {
    let respond = match path.split('?').next() {
        Some("/gone") => status(410).body("it is gone"),
        Some("/bare") => status(204),
        Some("/empty") => ok(""),
        _ => ok("0123456789").field("Content-Type", "text/plain").field("Vary", "Accept-Encoding"),
    };
    respond
        .field("Cache-Control", "max-age=60")
        .field("CDN-Cache-Control", "max-age=600")
        .field("ETag", "\"1\"")
        .field("Last-Modified", "Sun, 06 Nov 1994 08:49:37 GMT")
        .field("Via", "1.0 inner")
        .field("Cache-Status", "inner; hit")
        .field("Link", "</a>; rel=preload")
        .field("Link", "</b>; rel=preload")
        .field("X-Powered-By", "origin")
        .field("No-Vary-Search", "params=(\"utm\")")
}

/// URLs that come to the same.
fn spellings(name: &str) -> [String; 2] {
    let more = if name.contains('?') { "&utm=2" } else { "?utm=2" };
    [name.to_owned(), format!("{name}{more}")]
}

fn origin() -> Origin {
    Origin::script().otherwise(|seen| answer(seen.target())).start()
}

/// The fields of an answer in an order of their own, those of one answer aside.
fn fields(all: impl IntoIterator<Item = (String, String)>) -> Vec<(String, String)> {
    let mut fields: Vec<_> = all
        .into_iter()
        .map(|(name, value)| (name.to_ascii_lowercase(), value))
        .filter(|(name, _)| !OF_ONE_ANSWER.contains(&name.as_str()))
        .collect();
    // Stable: values of one name keep their order.
    fields.sort_by(|(one, _), (other, _)| one.cmp(other));
    fields
}

#[track_caller]
fn assert_alike(case: &Case, long: &Reply, short: &Reply) {
    assert_eq!((long.value("x-cache"), short.value("x-cache")), (Some("MISS"), Some("HIT")));
    assert_eq!(long.status, short.status, "{case:?}");
    assert_eq!(fields(long.fields.clone()), fields(short.fields.clone()), "{case:?}");
    assert_eq!(long.body, short.body, "{case:?}");
    assert_eq!((long.end, short.end), (End::Whole, End::Whole), "{case:?}");
    assert!(short.value("age").is_some(), "{case:?}");
    let told = |reply: &Reply| reply.values("cache-status").first().map(ToString::to_string);
    assert_eq!(told(long), told(short), "what an inner cache said comes first");
}

fn ask_both_ways(edge: &Edge, version: &str, more: &str) {
    for case @ (name, method, lines) in CASES {
        let lines: String = lines.iter().map(|(n, v)| format!("{n}: {v}\r\n")).collect();
        let ask = |name: &str| {
            let mut wire = edge.wire();
            wire.send(format!(
                "{method} /{name} HTTP/{version}\r\nHost: edge.test\r\n{lines}{more}\r\n"
            ));
            let reply = wire.reply_to(method);
            let keeps = reply.value("connection") == Some("keep-alive");
            if !keeps {
                assert!(wire.until_closed().is_empty(), "{case:?}");
            }
            reply
        };
        let (long, short) = (ask(name), ask(name));
        assert_alike(case, &long, &short);
        let [_, other] = spellings(name);
        assert_alike(case, &long, &ask(&other));
    }
}

#[test]
fn both_ways_answer_alike() {
    ask_both_ways(&Edge::to(&origin()), "1.1", "");
}

#[test]
fn both_ways_answer_alike_to_who_will_close() {
    ask_both_ways(&Edge::to(&origin()), "1.1", "Connection: close\r\n");
}

#[test]
fn both_ways_answer_alike_to_http_1_0() {
    ask_both_ways(&Edge::to(&origin()), "1.0", "");
    ask_both_ways(&Edge::to(&origin()), "1.0", "Connection: keep-alive\r\n");
}

#[test]
fn both_ways_apply_what_a_route_changes() {
    let origin = origin();
    let edge = Edge::with(&format!(
        "listeners:\n  - {{name: http, address: \"127.0.0.1:0\"}}\n\
         upstreams:\n  origin:\n    addresses: [\"{}\"]\n\
         routes:\n  - name: all\n    upstream: origin\n    headers:\n      response:\n\
         \x20       set: {{X-Powered-By: edge, ETag: '\"ours\"'}}\n\
         \x20       add: {{Link: '</c>'}}\n        remove: [Via, Age]\n",
        origin.address
    ));
    for case @ (name, method, _) in &CASES[..2] {
        let ask = || edge.wire().request(method, "edge.test", &format!("/{name}"), &[], b"");
        let (long, short) = (ask(), ask());
        assert_eq!(short.value("x-cache"), Some("HIT"));
        assert_eq!(fields(long.fields), fields(short.fields.clone()), "{case:?}");
        assert_eq!(short.value("x-powered-by"), Some("edge"));
        assert_eq!(short.values("link").len(), 3);
        assert_eq!((short.value("via"), short.value("age")), (None, None));
    }
}

#[test]
fn both_ways_answer_alike_over_http_2() {
    let edge = Edge::to(&origin());
    http2::run(async {
        let mut send = http2::plain(edge.address("http")).await;
        for case @ (name, method, lines) in CASES {
            let mut replies = Vec::new();
            for (x_cache, name) in ["MISS", "HIT"].into_iter().zip(spellings(name)) {
                let uri = format!("http://edge.test/{name}");
                let mut request = Request::builder().method(*method).uri(uri);
                for (name, value) in *lines {
                    request = request.header(*name, *value);
                }
                let request = request.body(()).expect("tests write valid requests");
                let reply = http2::exchange(&mut send, request, Bytes::new()).await;
                let reply = reply.expect("a reply");
                assert_eq!(reply.value("x-cache"), Some(x_cache), "{case:?}");
                let all = reply.headers.iter().map(|(name, value)| {
                    let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
                    (name.to_string(), value)
                });
                replies.push((reply.status, fields(all), reply.body));
            }
            assert_eq!(replies[0], replies[1], "{case:?}");
        }
    });
}

#[test]
fn the_origins_date_stays_what_it_was() {
    let then = SystemTime::now() - Duration::from_secs(30);
    let date = httpdate::fmt_http_date(then);
    let edge = Edge::to(&Origin::always(minute("page").field("Date", &date)));
    edge.get("/").expect_miss();
    let hit = edge.get("/");
    assert_eq!(hit.expect_hit().values("date"), [date]);
    let age: u64 = hit.value("age").and_then(|age| age.parse().ok()).expect("a number");
    assert!((30..60).contains(&age), "{hit:?}");
}

#[test]
fn requests_sent_at_once_are_answered_in_their_order() {
    let origin =
        Origin::script().on("/a", minute("a")).on("/b", minute("b")).on("/c", ok("c")).start();
    let edge = Edge::to(&origin);
    edge.get("/a").expect_miss();
    edge.get("/b").expect_miss();
    let mut wire = edge.wire();
    let mut text = String::new();
    let paths = ["/a", "/b", "/c", "/a", "/c", "/c", "/b", "/b"];
    for path in paths {
        text.push_str(&format!("GET {path} HTTP/1.1\r\nHost: edge.test\r\n\r\n"));
    }
    text.push_str("POST /c HTTP/1.1\r\nHost: edge.test\r\nContent-Length: 4\r\n\r\nbody");
    text.push_str("GET /a HTTP/1.1\r\nHost: edge.test\r\n\r\n");
    wire.send(text);
    for path in paths.into_iter().chain(["/c", "/a"]) {
        wire.reply().expect_status(200).expect_body(&path[1..]);
    }
}

#[test]
fn a_hit_in_small_pieces_is_a_hit() {
    let edge = Edge::to(&Origin::always(minute("page")));
    edge.get("/").expect_miss();
    let mut wire = edge.wire();
    for piece in ["GET / HT", "TP/1.1\r\nHo", "st: edge.test\r\n", "\r", "\n"] {
        wire.send(piece);
    }
    wire.reply().expect_hit().expect_body("page");
}

#[test]
fn the_last_request_of_a_connection_is_told_so() {
    let origin = Origin::always(minute("page"));
    let edge = Edge::with(&crate::harness::edge::simple(
        &origin,
        "limits: {requests_per_connection: 3}\n",
    ));
    edge.get("/").expect_miss();
    let mut wire = edge.wire();
    for connection in ["keep-alive", "keep-alive", "close"] {
        let hit = wire.get("edge.test", "/", &[]);
        assert_eq!(hit.expect_hit().value("connection"), Some(connection));
    }
    assert!(wire.until_closed().is_empty());
}

#[test]
fn a_hit_is_logged_and_counted_like_any_request() {
    let origin = Origin::always(minute("0123456789"));
    let edge = with_rules(&origin, "{}");
    edge.get("/").expect_miss();
    let fields = [
        ("User-Agent", "tester"),
        ("Referer", "http://other.test/"),
        ("X-Request-ID", "theirs-1"),
        ("Range", "bytes=2-5"),
    ];
    let hit = edge.get_with("/p/../?q=1", &fields);
    hit.expect_miss();
    let hit = edge.get_with("/p/../?q=1", &fields);
    hit.expect_hit().expect_status(206).expect_body("2345");
    assert_eq!(hit.value("x-request-id"), Some("theirs-1"));
    let line = edge.wait_for_access("\"cache\":\"hit\"");
    for part in [
        "\"request_id\":\"theirs-1\"",
        "\"protocol\":\"HTTP/1.1\"",
        "\"method\":\"GET\"",
        "\"host\":\"edge.test\"",
        "\"uri\":\"/?q=1\"",
        "\"status\":206",
        "\"bytes_sent\":4",
        "\"route\":\"all\"",
        "\"user_agent\":\"tester\"",
        "\"referer\":\"http://other.test/\"",
    ] {
        assert!(line.contains(part), "{part} in {line}");
    }
    assert!(!line.contains("upstream"), "no origin was asked: {line}");
    edge.wait_for_metric("edgeproxy_cache_requests_total{route=\"all\",result=\"hit\"}", 1.0);
    assert_eq!(origin.seen().len(), 2);
}

#[test]
fn a_large_hit_that_is_given_up_is_logged_with_what_left() {
    let body = vec![b'x'; 32 << 20];
    let origin = Origin::script()
        .otherwise(move |_| ok(body.clone()).field("Cache-Control", "max-age=600"))
        .start();
    let edge = with_rules(&origin, "{}");
    edge.get("/").expect_miss();
    let mut wire = edge.wire();
    wire.send("GET / HTTP/1.1\r\nHost: edge.test\r\n\r\n");
    wire.read_raw(1000);
    drop(wire);
    let line = edge.wait_for_access("\"cache\":\"hit\"");
    let sent = line.split("\"bytes_sent\":").nth(1).and_then(|rest| rest.split(',').next());
    let sent: u64 = sent.and_then(|number| number.parse().ok()).expect("a number");
    assert!((1..32 << 20).contains(&sent), "{line}");
}

#[test]
fn what_must_be_asked_for_is_not_answered_from_memory() {
    let origin = Origin::always(minute("page").field("ETag", "\"1\""));
    let edge = with_rules(&origin, "{client_directives: honour}");
    edge.get("/").expect_miss();
    edge.get("/").expect_hit();
    let asks: [(&str, &str, &str); 3] = [
        ("Cache-Control", "no-cache", "EXPIRED"),
        ("If-Match", "\"1\"", "MISS"),
        ("If-Unmodified-Since", "Sun, 06 Nov 1994 08:49:37 GMT", "MISS"),
    ];
    for (asked, (name, value, x_cache)) in (2..).zip(asks) {
        edge.get_with("/", &[(name, value)]).expect_cache(x_cache);
        assert_eq!(origin.seen().len(), asked, "{name}: {value}");
    }
    // With a body, neither is the cache asked nor filled.
    edge.wire().request("GET", "edge.test", "/", &[], b"body").expect_cache("BYPASS");
    edge.get("/").expect_hit();
}
