//! The same strictness over HTTP/2: a refusal or a reset for the stream, nothing for its siblings.

use std::io::ErrorKind;
use std::io::Read;
use std::io::Write;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::mpsc;
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;

use super::LIMITS;
use crate::harness::Edge;
use crate::harness::Origin;
use crate::harness::PATIENCE;
use crate::harness::Respond;
use crate::harness::edge::simple;
use crate::harness::frames::DATA;
use crate::harness::frames::END_HEADERS;
use crate::harness::frames::END_STREAM;
use crate::harness::frames::HEADERS;
use crate::harness::frames::RESET;
use crate::harness::frames::block;
use crate::harness::frames::frame;
use crate::harness::frames::literal;
use crate::harness::gate;
use crate::harness::http2;
use crate::harness::ok;

/// A client that writes HTTP/2 frames by hand, since honest clients would not send what we need.
struct Frames(TcpStream);

/// What became of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Status(u16),
    Reset,
    /// The whole connection ended.
    Gone,
}

impl Frames {
    fn open(to: SocketAddr) -> Self {
        let stream = TcpStream::connect(to).expect("edgeproxy listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
        let mut frames = Self(stream);
        frames.0.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").expect("it is taken");
        frames.send(4, 0, 0, &[]);
        frames
    }

    fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        // A connection that has ended already is seen when it is read.
        let _ = self.0.write_all(&frame(kind, flags, stream, payload));
    }

    fn headers(&mut self, stream: u32, fields: &[(&str, &str)], end: bool) {
        let flags = END_HEADERS | if end { END_STREAM } else { 0 };
        self.send(HEADERS, flags, stream, &block(fields));
    }

    /// Reads on until this stream is answered or reset.
    fn outcome(&mut self, wanted: u32) -> Outcome {
        loop {
            let mut head = [0; 9];
            if let Err(e) = self.0.read_exact(&mut head) {
                let waited = matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
                assert!(!waited, "nothing becomes of stream {wanted}");
                return Outcome::Gone;
            }
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            let mut payload = vec![0; length as usize];
            if self.0.read_exact(&mut payload).is_err() {
                return Outcome::Gone;
            }
            match head[3] {
                HEADERS if stream == wanted => return Outcome::Status(status(&payload)),
                RESET if stream == wanted => return Outcome::Reset,
                _ => {}
            }
        }
    }
}

/// The code of the reset of stream 1 that comes before what is answered to a PING sent now, if one does.
fn reset_by_now(client: &mut Frames) -> Option<u32> {
    const PING: u8 = 6;
    client.send(PING, 0, 0, b"8 octets");
    loop {
        let mut head = [0; 9];
        client.0.read_exact(&mut head).expect("the connection stays");
        let mut payload = vec![0; usize::from(head[2]) | usize::from(head[1]) << 8];
        client.0.read_exact(&mut payload).expect("the connection stays");
        match (head[3], &payload[..]) {
            (PING, _) => return None,
            (RESET, [a, b, c, d]) if head[8] == 1 => {
                return Some(u32::from_be_bytes([*a, *b, *c, *d]));
            }
            _ => {}
        }
    }
}

/// `:status`, which comes first: from the static table, or a literal of three digits that the dynamic
/// table does not know yet, since every case has a connection of its own.
fn status(block: &[u8]) -> u16 {
    let known = [200, 204, 206, 304, 400, 404, 500];
    match block {
        [index @ 0x88..=0x8e, ..] => known[usize::from(index - 0x88)],
        [0x48 | 0x08, length, value @ ..] if length & 0x80 == 0 => {
            value[..3].iter().fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0'))
        }
        [0x48 | 0x08, _, value @ ..] => huffman_digits(value),
        _ => panic!("not a status: {block:?}"),
    }
}

/// Three digits in the Huffman code of RFC 7541, appendix B: 0 to 2 take five bits, 3 to 9 six.
fn huffman_digits(bytes: &[u8]) -> u16 {
    let bits = bytes[..3].iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << 8;
    let (mut at, mut number) = (0, 0);
    for _ in 0..3 {
        let five = bits << at >> 27;
        let (digit, width) = if five < 3 { (five, 5) } else { ((bits << at >> 26) - 0x16, 6) };
        number = number * 10 + u16::try_from(digit).expect("a digit");
        at += width;
    }
    number
}

/// A request that is well, with these fields in place of its own or behind them.
fn request(changes: &[(&'static str, &'static str)]) -> Vec<(&'static str, &'static str)> {
    let mut fields = vec![
        (":method", "GET"),
        (":scheme", "http"),
        (":path", "/bad"),
        (":authority", "edge.test"),
    ];
    for (name, value) in changes {
        match fields.iter_mut().find(|(n, _)| n == name && name.starts_with(':')) {
            Some(field) => field.1 = value,
            None => fields.push((name, value)),
        }
    }
    fields
}

fn without(name: &str) -> Vec<(&'static str, &'static str)> {
    request(&[]).into_iter().filter(|(n, _)| *n != name).collect()
}

/// A gate that a test opens for the origin.
#[derive(Default)]
struct Gate(Mutex<u32>, Condvar);

impl Gate {
    fn open(&self) {
        *self.0.lock().expect("nobody panics here") += 1;
        self.1.notify_all();
    }

    fn pass(&self) {
        let free = self.0.lock().expect("nobody panics here");
        let (mut free, _) = self
            .1
            .wait_timeout_while(free, PATIENCE, |free| *free == 0)
            .expect("nobody panics here");
        *free = free.saturating_sub(1);
    }
}

#[test]
fn a_stream_that_breaks_the_rules_ends_alone() {
    let gate = Arc::new(Gate::default());
    let origin = Origin::script()
        .with("/held", {
            let gate = Arc::clone(&gate);
            move |_| {
                gate.pass();
                ok("held").field("Cache-Control", "no-store")
            }
        })
        .otherwise(|_| ok("well").field("Cache-Control", "no-store"))
        .start();
    let edge = Edge::with(&simple(&origin, LIMITS));
    let long_path: &'static str = format!("/{}", "a".repeat(1024)).leak();
    let long_value: &'static str = "a".repeat(4096).leak();
    let many: &'static [_] = vec![("x", "y"); 21].leak();

    let cases = [
        request(&[("connection", "close")]),
        request(&[("connection", "x-y")]),
        request(&[("keep-alive", "timeout=5")]),
        request(&[("proxy-connection", "close")]),
        request(&[("transfer-encoding", "chunked")]),
        request(&[("transfer-encoding", "identity")]),
        request(&[("upgrade", "h2c")]),
        request(&[("te", "gzip")]),
        request(&[("te", "trailers, chunked")]),
        request(&[("host", "evil.test")]),
        request(&[("host", "edge.test"), ("host", "edge.test")]),
        request(&[(":authority", "me@edge.test")]),
        request(&[(":authority", "edge.test/x")]),
        request(&[(":authority", "edge.test:x")]),
        request(&[(":authority", "edge test")]),
        request(&[(":authority", "")]),
        without(":authority"),
        without(":path"),
        without(":method"),
        without(":scheme"),
        request(&[(":scheme", "https")]),
        request(&[(":scheme", "ftp")]),
        request(&[(":path", "")]),
        request(&[(":path", "a")]),
        request(&[(":path", "?a")]),
        request(&[(":path", "*")]),
        request(&[(":path", "/a b")]),
        request(&[(":path", "/a\\b")]),
        request(&[(":path", "/a%00")]),
        request(&[(":path", "/a%")]),
        request(&[(":path", "/a\r\nX: y")]),
        request(&[(":path", "/a HTTP/1.1\r\nHost: evil.test\r\n\r\n")]),
        request(&[(":path", "http://edge.test/a")]),
        request(&[(":path", "http://evil.test/a")]),
        request(&[(":path", "@evil.test/a")]),
        request(&[(":path", long_path)]),
        request(&[(":method", "TRACE")]),
        request(&[("content-length", "5")]),
        request(&[("content-length", "-1")]),
        request(&[("content-length", "0, 5")]),
        request(&[("content-length", "0"), ("content-length", "5")]),
        request(&[("expect", "200-ok")]),
        request(&[("x", " a")]),
        request(&[("range", "bytes=0-0"), ("range", "bytes=1-1")]),
        request(&[("x", long_value)]),
        request(many),
    ];
    for fields in &cases {
        let told = format!("{:.300}", format!("{fields:?}"));
        let mut client = Frames::open(edge.address("http"));
        client.headers(1, &request(&[(":path", "/held")]), true);
        client.headers(3, fields, true);
        match client.outcome(3) {
            Outcome::Status(status) => assert!((400..500).contains(&status), "{told}: {status}"),
            Outcome::Reset => {}
            Outcome::Gone => panic!("{told}: the siblings were lost"),
        }
        gate.open();
        assert_eq!(client.outcome(1), Outcome::Status(200), "{told}: the sibling");
        client.headers(5, &request(&[(":path", "/well")]), true);
        assert_eq!(client.outcome(5), Outcome::Status(200), "{told}: the next one");
    }
    let wrong: Vec<_> =
        origin.seen().into_iter().filter(|s| !["/held", "/well"].contains(&s.target())).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn what_is_no_header_at_all_ends_the_stream_or_the_connection() {
    // Such bytes are no field to the decoder, which gives the connection up (RFC 9113 §8.1.1 leaves
    // that to it).
    let origin = Origin::always(ok("well"));
    let edge = Edge::to(&origin);
    for fields in [
        request(&[(":method", "G T")]),
        request(&[(":method", "GET /smuggled HTTP/1.1\r\n")]),
        request(&[("x y", "a")]),
        request(&[("X-Upper", "a")]),
        request(&[("x:y", "a")]),
        request(&[(":evil", "a")]),
        request(&[("x", "a\r\ny: z")]),
        request(&[("x", "a\0b")]),
        request(&[("x", "a\nb")]),
    ] {
        let mut client = Frames::open(edge.address("http"));
        client.headers(1, &fields, true);
        match client.outcome(1) {
            Outcome::Status(status) => {
                assert!((400..500).contains(&status), "{fields:?}: {status}")
            }
            Outcome::Reset | Outcome::Gone => {}
        }
        assert!(origin.seen().is_empty(), "{fields:?}: {:?}", origin.seen());
    }
    edge.get("/").expect_status(200);
}

#[test]
fn the_scheme_of_a_request_is_that_of_its_connection() {
    let origin = Origin::always(ok("well"));
    let ask = |edge: &Edge, scheme| {
        let mut client = Frames::open(edge.address("http"));
        client.headers(1, &request(&[(":scheme", scheme)]), true);
        client.outcome(1)
    };
    let edge = Edge::to(&origin);
    assert_eq!(ask(&edge, "http"), Outcome::Status(200));
    assert_eq!(ask(&edge, "https"), Outcome::Status(421));
    assert_eq!(ask(&edge, "ftp"), Outcome::Status(400));
    assert_eq!(edge.metric("edgeproxy_refusals_total{reason=\"misdirected\"}"), 1.0);
    // A proxy that ended TLS hands its client's scheme on.
    let edge = Edge::with(&simple(&origin, "trusted_proxies: [\"127.0.0.0/8\"]"));
    assert_eq!(ask(&edge, "https"), Outcome::Status(200));
    assert_eq!(ask(&edge, "ftp"), Outcome::Status(400));
}

#[test]
fn a_stream_that_the_http_2_layer_rejects_is_logged_and_counted() {
    let origin = Origin::always(ok("well"));
    let mut edge = Edge::with(&simple(&origin, "access_log: {to: stdout, format: json}"));
    let mut client = Frames::open(edge.address("http"));
    // Nothing that it asks for, and a field of connections.
    client.headers(1, &without(":path"), true);
    assert_eq!(client.outcome(1), Outcome::Reset);
    client.headers(3, &request(&[("connection", "close")]), true);
    assert_eq!(client.outcome(3), Outcome::Reset);
    client.headers(5, &request(&[(":path", "/well")]), true);
    assert_eq!(client.outcome(5), Outcome::Status(200));
    assert_eq!(edge.metric("edgeproxy_refusals_total{reason=\"malformed_stream\"}"), 2.0);

    drop(client);
    edge.signal(Signal::SIGTERM);
    assert_eq!(edge.wait().code(), Some(0));
    let lines = edge.access_log();
    assert_eq!(lines.len(), 3, "{lines:?}");
    for line in lines.iter().filter(|line| !line.contains("/well")) {
        let line: Value = serde_json::from_str(line).expect("JSON");
        assert_eq!(line["refusal"], "malformed_stream", "{line}");
        assert_eq!(line["protocol"], "HTTP/2", "{line}");
        assert_eq!(line["client"], "127.0.0.1", "{line}");
        assert_eq!(line["status"].as_u64(), None, "{line}");
    }
    assert_eq!(origin.seen().len(), 1);
}

#[test]
fn a_few_bytes_that_nobody_wants_are_let_come_and_many_are_not() {
    const NO_ERROR: u32 = 0;
    const PROTOCOL_ERROR: u32 = 1;
    let origin = Origin::always(ok("well"));
    let edge = Edge::with(&simple(&origin, "").replace(
        "routes:\n",
        "routes:\n  - {match: {path: /here}, respond: {status: 200, body: here}}\n",
    ));
    let answered = |length: &'static str| {
        let mut client = Frames::open(edge.address("http"));
        let fields = [(":method", "POST"), (":path", "/here"), ("content-length", length)];
        client.headers(1, &request(&fields), false);
        assert_eq!(client.outcome(1), Outcome::Status(200));
        client
    };
    let mut client = answered("5");
    assert_eq!(reset_by_now(&mut client), None);
    client.send(DATA, END_STREAM, 1, b"hello");
    assert_eq!(reset_by_now(&mut client), None);
    client.headers(3, &request(&[(":path", "/here")]), true);
    assert_eq!(client.outcome(3), Outcome::Status(200));

    // What announced something else is malformed also then (RFC 9113 §8.1.1).
    let mut client = answered("1");
    client.send(DATA, END_STREAM, 1, b"hello");
    assert_eq!(reset_by_now(&mut client), Some(PROTOCOL_ERROR));

    // Who would send much is told to stop (§8.1).
    let mut client = answered("1000000");
    let mut code = None;
    while code.is_none() {
        code = reset_by_now(&mut client);
    }
    assert_eq!(code, Some(NO_ERROR));
}

#[test]
fn what_is_wrong_with_a_request_is_said_as_over_http_1() {
    let origin = Origin::always(ok("well"));
    let edge = Edge::to(&origin);
    let cases = [
        (without(":authority"), "missing_host"),
        (request(&[(":authority", "me@edge.test")]), "bad_host"),
        (request(&[("host", "evil.test")]), "conflicting_host"),
        (request(&[("host", "edge.test"), ("host", "edge.test")]), "duplicate_host"),
        (request(&[("content-length", "")]), "bad_content_length"),
        (request(&[(":path", "/a%")]), "bad_target"),
        (request(&[(":method", "M".repeat(33).leak())]), "bad_method"),
    ];
    for (fields, reason) in cases {
        let mut client = Frames::open(edge.address("http"));
        client.headers(1, &fields, true);
        assert_eq!(client.outcome(1), Outcome::Status(400), "{fields:?}");
        let counted = edge.metric(&format!("edgeproxy_refusals_total{{reason=\"{reason}\"}}"));
        assert_eq!(counted, 1.0, "{fields:?}");
    }
    // Alone with `:authority`, as RFC 9113 §8.5 has it.
    let tunnels = [(":method", "CONNECT"), (":authority", "edge.test:22")];
    for (fields, end) in [(&tunnels[..], true), (&tunnels[..], false)] {
        let mut client = Frames::open(edge.address("http"));
        client.headers(1, fields, end);
        assert_eq!(client.outcome(1), Outcome::Status(405), "{end}");
    }
    let counted = edge.metric("edgeproxy_refusals_total{reason=\"method_not_allowed\"}");
    assert_eq!(counted, 2.0);
    assert!(origin.seen().is_empty(), "{:?}", origin.seen());
}

#[test]
fn what_may_be_a_password_in_a_host_is_not_logged() {
    let origin = Origin::always(ok("well"));
    for format in ["json", "text"] {
        let log = format!("access_log: {{to: stdout, format: {format}}}");
        let mut edge = Edge::with(&simple(&origin, &log));
        let host = ("host", "me:HIDDEN@edge.test");
        for fields in [
            request(&[host]),
            request(&[host, host]),
            request(&[(":authority", "me:HIDDEN@edge.test")]),
            [without(":authority"), vec![host]].concat(),
            [without(":authority"), vec![("host", "me:HIDDEN")]].concat(),
        ] {
            let mut client = Frames::open(edge.address("http"));
            client.headers(1, &fields, true);
            assert_eq!(client.outcome(1), Outcome::Status(400), "{fields:?}");
        }
        edge.signal(Signal::SIGTERM);
        edge.wait();
        let lines = edge.access_log();
        assert_eq!(lines.len(), 5, "{lines:?}");
        assert!(lines.iter().all(|line| !line.contains("HIDDEN")), "{lines:?}");
        assert!(lines[0].contains("***@edge.test"), "{lines:?}");
    }
}

#[test]
fn what_is_too_large_is_refused_in_the_same_words_over_both_versions() {
    let origin = Origin::always(ok("well").field("Cache-Control", "max-age=60"));
    let mut edge = Edge::with(&simple(
        &origin,
        &format!("{LIMITS}\naccess_log: {{to: stdout, format: json}}"),
    ));
    let long = |n: usize| format!("/{}", "a".repeat(n));
    let large = |n: usize| vec![("x", "a".repeat(n))];
    let many = |n: usize| vec![("x", "y".to_owned()); n];
    let cases = [
        (long(1024), vec![], 414, "target_too_long"),
        (long(8192), vec![], 414, "target_too_long"),
        ("/a".to_owned(), large(4096), 431, "head_too_large"),
        ("/a".to_owned(), large(14_000), 431, "head_too_large"),
        ("/a".to_owned(), many(21), 431, "too_many_fields"),
        ("/a".to_owned(), many(200), 431, "too_many_fields"),
    ];
    // What is stored is no way around it.
    edge.wire().get("edge.test", "/a", &[]).expect_status(200);
    for (path, fields, status, reason) in &cases {
        let told = edge.metric(&format!("edgeproxy_refusals_total{{reason=\"{reason}\"}}"));
        let fields: Vec<_> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let old = edge.wire().get("edge.test", path, &fields);
        let new = http2::run(async {
            let mut client = http2::plain(edge.address("http")).await;
            let url = format!("http://edge.test{path}");
            http2::get(&mut client, &url, &fields).await.expect("it is answered")
        });
        assert_eq!((old.status, new.status), (*status, *status), "{reason}");
        let words = |body: &[u8], id: &str| {
            String::from_utf8(body.to_vec()).expect("text").replace(id, "ID")
        };
        let (old_id, new_id) = (old.value("x-request-id"), new.value("x-request-id"));
        let (old_id, new_id) = (old_id.expect("an id"), new_id.expect("an id"));
        assert_eq!(words(&old.body, old_id), words(&new.body, new_id), "{reason}");
        assert!(!new.body.is_empty(), "{reason}");
        let telling = edge.metric(&format!("edgeproxy_refusals_total{{reason=\"{reason}\"}}"));
        assert_eq!(telling - told, 2.0, "{reason}");
    }
    assert_eq!(origin.seen().len(), 1);
    edge.signal(Signal::SIGTERM);
    assert_eq!(edge.wait().code(), Some(0));
    let ids = edge.access_log().iter().filter(|line| line.contains("\"refusal\":\"")).count();
    assert_eq!(ids, 2 * cases.len());
}

#[test]
fn what_the_http_2_library_ends_by_itself_is_logged_and_counted_by_its_reason() {
    let gate = Arc::new(Gate::default());
    let origin = Origin::script()
        .with("/held", {
            let gate = Arc::clone(&gate);
            move |_| {
                gate.pass();
                ok("held")
            }
        })
        .otherwise(|_| ok("well"))
        .start();
    let mut edge = Edge::with(&simple(
        &origin,
        "limits: {header_bytes: 1KiB, target_bytes: 1KiB, header_fields: 20, h2_streams: 1}\naccess_log: {to: stdout, format: json}",
    ));
    let at = edge.address("http");
    // Several times what a request may have.
    let large: &'static str = "a".repeat(8192).leak();
    let ask = |fields: &[(&str, &str)]| {
        let mut client = Frames::open(at);
        client.headers(1, fields, true);
        client.outcome(1)
    };
    let mut expected = Vec::new();
    // Streams: no method, a pseudo-field of responses, a field of one hop, a length that is not kept.
    for fields in [
        without(":method"),
        request(&[(":status", "200")]),
        request(&[("connection", "close")]),
        request(&[("content-length", "5")]),
    ] {
        assert_eq!(ask(&fields), Outcome::Reset, "{fields:?}");
        expected.push(("malformed_stream", None));
    }
    // It answers this one itself.
    assert_eq!(ask(&request(&[("x", large)])), Outcome::Status(431));
    expected.push(("head_too_large", Some(431)));
    // More at once than was announced.
    let mut client = Frames::open(at);
    client.headers(1, &request(&[(":path", "/held")]), true);
    client.headers(3, &request(&[]), true);
    assert_eq!(client.outcome(3), Outcome::Reset);
    expected.push(("overloaded", None));
    gate.open();
    assert_eq!(client.outcome(1), Outcome::Status(200));
    drop(client);
    // Connections: what is no name of a field, DATA outside of streams, a PING of the wrong size, a header block that is none.
    assert_eq!(ask(&request(&[("X-Upper", "a")])), Outcome::Gone);
    expected.push(("broken_connection", None));
    let no_block: &[u8] = &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
    for (kind, flags, stream, payload) in
        [(0, 0, 0, &b"x"[..]), (6, 0, 0, b"x"), (HEADERS, END_HEADERS | END_STREAM, 1, no_block)]
    {
        let mut client = Frames::open(at);
        client.send(kind, flags, stream, payload);
        assert_eq!(client.outcome(u32::MAX), Outcome::Gone, "{kind}");
        expected.push(("broken_connection", None));
    }
    // What asks for nothing, too often.
    let mut client = Frames::open(at);
    for _ in 0..20_000 {
        client.send(6, 0, 0, &[0; 8]);
    }
    assert_eq!(client.outcome(u32::MAX), Outcome::Gone);
    expected.push(("flood", None));

    for reason in ["malformed_stream", "head_too_large", "overloaded", "broken_connection", "flood"]
    {
        let count = expected.iter().filter(|(expected, _)| *expected == reason).count();
        let metric = edge.metric(&format!("edgeproxy_refusals_total{{reason=\"{reason}\"}}"));
        assert_eq!(metric, f64::from(u32::try_from(count).expect("few")), "{reason}");
    }
    edge.signal(Signal::SIGTERM);
    assert_eq!(edge.wait().code(), Some(0));
    let lines: Vec<Value> = edge
        .access_log()
        .iter()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .filter(|line: &Value| line["refusal"].is_string())
        .collect();
    let mut logged: Vec<_> = lines
        .iter()
        .map(|line| (line["refusal"].as_str().expect("a reason"), line["status"].as_u64()))
        .collect();
    logged.sort_unstable();
    expected.sort_unstable();
    assert_eq!(logged, expected, "{lines:#?}");
    assert!(lines.iter().all(|line| line["protocol"] == "HTTP/2"), "{lines:#?}");
}

#[test]
fn streams_are_limited_over_all_connections_and_a_hit_needs_no_place() {
    for limit in ["h2_streams_per_client: 2", "h2_streams_in_all: 2, h2_streams_per_client: 2"] {
        let gate = gate::Gate::default();
        let origin = Origin::script()
            .on("/kept", ok("kept").field("Cache-Control", "max-age=60"))
            .otherwise({
                let gate = gate.clone();
                move |_| {
                    gate.pass();
                    ok("held")
                }
            })
            .start();
        let edge = Edge::with(&simple(&origin, &format!("limits: {{h2_streams: 2, {limit}}}")));
        edge.wire().get("edge.test", "/kept", &[]).expect_status(200);
        let held = |client: &h2::client::SendRequest<bytes::Bytes>, path: &'static str| {
            let (mut client, url) = (client.clone(), format!("http://edge.test{path}"));
            async move { http2::get(&mut client, &url, &[]).await.map(|reply| reply.status) }
        };
        http2::run(async {
            let connections = [
                http2::plain(edge.address("http")).await,
                http2::plain(edge.address("http")).await,
                http2::plain(edge.address("http")).await,
            ];
            let [first, second, mut third] = connections;
            let waiting = [tokio::spawn(held(&first, "/1")), tokio::spawn(held(&second, "/2"))];
            origin.wait_for(3);
            let refused = held(&third, "/3").await.expect_err(limit);
            assert_eq!(refused.reason(), Some(h2::Reason::REFUSED_STREAM), "{limit}");
            // The connection lives, and what needs no place has none.
            let kept = http2::get(&mut third, "http://edge.test/kept", &[]).await;
            assert_eq!(kept.expect("a hit").status, 200, "{limit}");
            assert_eq!(edge.metric("edgeproxy_refusals_total{reason=\"overloaded\"}"), 1.0);
            gate.open();
            for one in waiting {
                assert_eq!(one.await.expect("it runs").expect("an answer"), 200, "{limit}");
            }
            // Places come back with the end of a stream, which its client may see a moment earlier.
            while held(&third, "/3").await.is_err() {
                tokio::task::yield_now().await;
            }
        });
    }
}

#[test]
fn what_is_ended_without_a_breach_is_not_counted() {
    let gate = Arc::new(Gate::default());
    let origin = Origin::script()
        .with("/held", {
            let gate = Arc::clone(&gate);
            move |_| {
                gate.pass();
                ok("held")
            }
        })
        // Less than was promised: ours to reset, if it was begun.
        .on("/cut", Respond::raw("HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\nhalf"))
        .otherwise(|_| ok("well"))
        .start();
    let mut edge = Edge::with(&simple(&origin, "access_log: {to: stdout}"));
    let mut client = Frames::open(edge.address("http"));
    client.headers(1, &request(&[(":path", "/cut")]), true);
    while !matches!(client.outcome(1), Outcome::Reset | Outcome::Status(502)) {}
    // An answer before the body is there, which nobody reads then.
    client.headers(3, &request(&[(":method", "POST"), (":path", "/none\\")]), false);
    assert_eq!(client.outcome(3), Outcome::Status(400));
    // The client changes its mind.
    client.headers(5, &request(&[(":path", "/held")]), true);
    client.send(RESET, 0, 5, &[0, 0, 0, 8]);
    gate.open();
    client.headers(7, &request(&[]), true);
    assert_eq!(client.outcome(7), Outcome::Status(200));
    for reason in ["malformed_stream", "overloaded", "broken_connection", "flood"] {
        let name = format!("edgeproxy_refusals_total{{reason=\"{reason}\"}}");
        assert_eq!(edge.metric(&name), 0.0, "{reason}");
    }
    // Nor is the GOAWAY of a process that ends.
    edge.signal(Signal::SIGTERM);
    assert_eq!(client.outcome(u32::MAX), Outcome::Gone);
    assert_eq!(edge.wait().code(), Some(0));
    assert!(edge.access_log().iter().all(|line| !line.contains("broken_connection")));
}

/// The library that reads HTTP/2 drops them before anybody here sees them.
#[test]
fn pseudo_fields_in_trailers_go_no_further() {
    let origin = Origin::always(ok("well"));
    let edge = Edge::to(&origin);
    let mut client = Frames::open(edge.address("http"));
    client.headers(1, &request(&[(":method", "POST")]), false);
    client.send(0, 0, 1, b"body");
    client.headers(1, &[(":path", "/evil"), (":authority", "evil.test"), ("x-t", "a")], true);
    assert_eq!(client.outcome(1), Outcome::Status(200));
    let seen = origin.seen();
    assert_eq!(seen.iter().map(|seen| seen.target()).collect::<Vec<_>>(), ["/bad"]);
    assert_eq!(seen[0].value("host"), Some("edge.test"));
    assert_eq!(seen[0].body, b"body");
}

/// The library that reads HTTP/2 takes the fragment off before anybody here sees it.
#[test]
fn a_fragment_goes_no_further() {
    let origin = Origin::always(ok("well"));
    let edge = Edge::to(&origin);
    let mut client = Frames::open(edge.address("http"));
    client.headers(1, &request(&[(":path", "/a#b")]), true);
    assert_eq!(client.outcome(1), Outcome::Status(200));
    assert_eq!(origin.seen().iter().map(|seen| seen.target()).collect::<Vec<_>>(), ["/a"]);
}

#[test]
fn a_body_beyond_its_limit_or_length_never_completes_at_the_origin() {
    let origin = Origin::always(ok("well"));
    for more in ["", ", spool: 0B"] {
        let edge = Edge::with(&simple(&origin, &format!("defaults: {{max_body: 1KiB{more}}}")));
        // What is announced, and what is sent.
        for (length, sent) in
            [(Some("1025"), 1025), (None, 1025), (None, 9000), (Some("10"), 11), (Some("10"), 9)]
        {
            let told = format!("{length:?} {sent} {more}");
            let mut fields = request(&[(":method", "POST")]);
            fields.extend(length.map(|length| ("content-length", length)));
            let mut client = Frames::open(edge.address("http"));
            client.headers(1, &fields, false);
            client.send(0, END_STREAM, 1, &vec![b'a'; sent]);
            match client.outcome(1) {
                Outcome::Status(status) => {
                    assert!((400..500).contains(&status), "{told}: {status}")
                }
                Outcome::Reset => {}
                Outcome::Gone => panic!("{told}: the connection was lost"),
            }
            client.headers(3, &request(&[(":path", "/well")]), true);
            assert_eq!(client.outcome(3), Outcome::Status(200), "{told}");
        }
    }
    assert!(origin.seen().iter().all(|seen| seen.target() == "/well"), "{:?}", origin.seen());
}

#[test]
fn a_client_that_sends_nothing_but_broken_streams_is_sent_away() {
    let origin = Origin::always(ok("well"));
    let edge = Edge::to(&origin);
    let mut client = Frames::open(edge.address("http"));
    for stream in 0..200 {
        client.headers(2 * stream + 1, &request(&[("connection", "close")]), true);
    }
    while client.outcome(u32::MAX) != Outcome::Gone {}
    assert!(origin.seen().is_empty());
}

#[test]
fn a_flood_of_frames_that_ask_for_nothing_ends_the_connection() {
    let origin = Origin::script().otherwise(|_| ok("fine")).start();
    let edge = Edge::to(&origin);
    // PRIORITY, SETTINGS, PING, WINDOW_UPDATE, and one that nobody knows.
    let [settings, unknown]: [&[u8]; 2] = [b"", b"?"];
    let priority = [0, 0, 0, 0, 1];
    let window = [0, 0, 0, 1];
    for (kind, stream, payload) in [
        (2, 1, &priority[..]),
        (4, 0, settings),
        (6, 0, &[0; 8]),
        (8, 0, &window),
        (99, 0, unknown),
    ] {
        let mut client = Frames::open(edge.address("http"));
        client.headers(1, &request(&[(":path", "/")]), true);
        assert_eq!(client.outcome(1), Outcome::Status(200), "{kind}");
        for _ in 0..20_000 {
            client.send(kind, 0, stream, payload);
        }
        client.headers(3, &request(&[(":path", "/")]), true);
        assert_eq!(client.outcome(3), Outcome::Gone, "{kind}");
    }
    edge.get("/").expect_status(200);
}

#[test]
fn a_connection_without_a_request_ends_whatever_else_it_sends() {
    let origin = Origin::always(ok("fine"));
    let edge = Edge::with(&simple(&origin, "limits: {idle_timeout: 300ms}"));
    let mut part = Vec::new();
    literal(&mut part, "x");
    literal(&mut part, "y");
    part.insert(0, 0);
    let (ping, window) = ((6, 0, &[0; 8][..]), (8, 0, &[0, 0, 0, 1][..]));
    // The header of a request that never ends.
    let (beginning, more) = ((HEADERS, 3, &part[..]), (9, 3, &part[..]));
    for (first, then) in [(ping, ping), (window, window), (beginning, more)] {
        for asks_before in [false, true] {
            let mut client = Frames::open(edge.address("http"));
            if asks_before {
                client.headers(1, &request(&[(":path", "/")]), true);
                assert_eq!(client.outcome(1), Outcome::Status(200));
            }
            client.send(first.0, 0, first.1, first.2);
            let mut dripping = Frames(client.0.try_clone().expect("a socket can be shared"));
            std::thread::scope(|scope| {
                let (over, is_over) = mpsc::channel::<()>();
                scope.spawn(move || {
                    for _ in 0..200 {
                        let pace = Duration::from_millis(50);
                        if is_over.recv_timeout(pace) == Err(RecvTimeoutError::Disconnected) {
                            return;
                        }
                        dripping.send(then.0, 0, then.1, then.2);
                    }
                });
                assert_eq!(client.outcome(u32::MAX), Outcome::Gone, "{first:?} {asks_before}");
                drop(over);
            });
        }
    }
}
