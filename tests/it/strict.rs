//! What a client may not say: every refusal seen from both sides, at the client and at the origin.

mod bodies;
mod http2;
mod panics;
mod slow;

use crate::harness::Edge;
use crate::harness::Origin;
use crate::harness::Reply;
use crate::harness::Respond;
use crate::harness::edge::simple;
use crate::harness::ok;

/// What an attacker hopes to get to the origin, behind whatever confuses the two.
const NEXT: &str = "GET /smuggled HTTP/1.1\r\nHost: edge.test\r\n\r\n";

/// An origin that answers everything, and says so.
fn origin() -> Origin {
    Origin::always(ok("from the origin").field("Cache-Control", "no-store"))
}

/// Small limits, so that little is needed to go beyond them.
const LIMITS: &str = "limits: {header_bytes: 4KiB, header_fields: 20, target_bytes: 1KiB}\n\
                      defaults: {max_body: 1KiB}\n";

/// One message that is refused.
struct Case {
    bytes: Vec<u8>,
    status: u16,
    refusal: &'static str,
}

fn case(bytes: impl AsRef<[u8]>, status: u16, refusal: &'static str) -> Case {
    Case { bytes: bytes.as_ref().to_vec(), status, refusal }
}

/// Sends each message with another request behind it. The client must get one refusal and the end of
/// the connection, the origin nothing at all, the operator a count and a line that say why.
#[track_caller]
fn all_are_refused(cases: &[Case]) {
    let origin = origin();
    let edge = Edge::with(&simple(&origin, LIMITS));
    for Case { bytes, status, refusal } in cases {
        let told = String::from_utf8_lossy(bytes).into_owned();
        let counter = format!("edgeproxy_refusals_total{{reason=\"{refusal}\"}}");
        let before = edge.metric(&counter);

        let mut wire = edge.wire();
        wire.send([bytes.as_slice(), NEXT.as_bytes()].concat());
        let reply = wire.any_reply("GET").unwrap_or_else(|| panic!("no reply to {told:?}"));
        assert_eq!(reply.status, *status, "{told:?}: {reply:?}");
        assert_eq!(reply.value("connection"), Some("close"), "{told:?}: {reply:?}");
        let rest = wire.until_closed();
        assert!(rest.is_empty(), "{told:?} was followed by {:?}", String::from_utf8_lossy(&rest));

        assert!(origin.seen().is_empty(), "{told:?} reached the origin: {:?}", origin.seen());
        edge.wait_for_metric(&counter, before + 1.0);
        let id = reply.value("x-request-id").unwrap_or_else(|| panic!("{told:?}: {reply:?}"));
        let line = edge.wait_for_access(&format!("\"request_id\":\"{id}\""));
        assert!(line.contains(&format!("\"refusal\":\"{refusal}\"")), "{told:?}: {line}");
    }
    edge.get("/well").expect_status(200).expect_body("from the origin");
    assert_eq!(origin.seen().len(), 1, "only the last request was one");
}

/// A GET with these further lines.
fn with(lines: &str) -> String {
    format!("GET /a HTTP/1.1\r\nHost: edge.test\r\n{lines}\r\n\r\n")
}

/// A request line, and all else well.
fn line(line: &str) -> String {
    format!("{line}\r\nHost: edge.test\r\n\r\n")
}

/// A POST with these further lines.
fn post(lines: &str, body: &str) -> String {
    format!("POST /a HTTP/1.1\r\nHost: edge.test\r\n{lines}\r\n\r\n{body}")
}

/// A GET whose Host is this.
fn to_host(host: &str) -> String {
    format!("GET /a HTTP/1.1\r\nHost: {host}\r\n\r\n")
}

#[test]
fn a_malformed_request_line_is_refused() {
    all_are_refused(&[
        case(line("GET"), 400, "malformed_request_line"),
        case(line("GET /a"), 400, "malformed_request_line"),
        case(line("GET /a "), 400, "malformed_request_line"),
        case(line("GET  /a HTTP/1.1"), 400, "malformed_request_line"),
        case(line("GET /a  HTTP/1.1"), 400, "malformed_request_line"),
        case(line("GET /a HTTP/1.1 "), 400, "malformed_request_line"),
        case(line("GET /a b HTTP/1.1"), 400, "malformed_request_line"),
        case(line(" GET /a HTTP/1.1"), 400, "malformed_request_line"),
        case(line("GET /a http/1.1"), 400, "malformed_request_line"),
        case(line("GET /a HTTP/11"), 400, "malformed_request_line"),
        case(line("GET\t/a\tHTTP/1.1"), 400, "malformed_request_line"),
        case(line("\r\n\r\n\r\nGET /a HTTP/1.1"), 400, "malformed_request_line"),
        case(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, "malformed_request_line"),
        case(line("G@T /a HTTP/1.1"), 400, "bad_method"),
        case(line("GET,POST /a HTTP/1.1"), 400, "bad_method"),
        case(line(&format!("{} /a HTTP/1.1", "M".repeat(33))), 400, "bad_method"),
    ]);
}

#[test]
fn a_line_that_does_not_end_in_crlf_is_refused() {
    all_are_refused(&[
        case("GET /a HTTP/1.1\nHost: edge.test\n\n", 400, "bare_line_feed"),
        case("GET /a HTTP/1.1\r\nHost: edge.test\n\r\n", 400, "bare_line_feed"),
        case("GET /a HTTP/1.1\r\nHost: edge.test\r\n\n", 400, "bare_line_feed"),
        case("GET /a HTTP/1.1\rHost: edge.test\r\n\r\n", 400, "bare_line_feed"),
        case("\nGET /a HTTP/1.1\r\nHost: edge.test\r\n\r\n", 400, "bare_line_feed"),
        case(with("X: a\rTransfer-Encoding: chunked"), 400, "bare_line_feed"),
        case(with("X: a\nTransfer-Encoding: chunked"), 400, "bare_line_feed"),
        case(with("X: a\r\r\nY: b"), 400, "bare_line_feed"),
    ]);
}

#[test]
fn a_malformed_field_is_refused() {
    all_are_refused(&[
        case(with("X: a\r\n b"), 400, "folded_field"),
        case(with("X: a\r\n\tb"), 400, "folded_field"),
        case("GET /a HTTP/1.1\r\n Host: edge.test\r\n\r\n", 400, "folded_field"),
        case(with("X : a"), 400, "malformed_field"),
        case(with("X\t: a"), 400, "malformed_field"),
        case("GET /a HTTP/1.1\r\nHost : edge.test\r\n\r\n", 400, "malformed_field"),
        case(with("Transfer-Encoding : chunked"), 400, "malformed_field"),
        case(with(": a"), 400, "malformed_field"),
        case(with("nonsense"), 400, "malformed_field"),
        case(with("X y: a"), 400, "malformed_field"),
        case(with("X(y): a"), 400, "malformed_field"),
        case(with("X\0: a"), 400, "malformed_field"),
        case(with("X\u{e9}: a"), 400, "malformed_field"),
        case(with("Range: bytes=0-0\r\nRange: bytes=1-1"), 400, "malformed_field"),
        case(with("X: a\0b"), 400, "control_byte"),
        case(with("X: a\u{1}b"), 400, "control_byte"),
        case(with("X: a\u{b}b"), 400, "control_byte"),
        case(with("X: a\u{7f}b"), 400, "control_byte"),
    ]);
}

#[test]
fn a_target_that_is_none_is_refused() {
    all_are_refused(&[
        case(line("GET /a\0b HTTP/1.1"), 400, "control_byte"),
        case(line("GET /a\tb HTTP/1.1"), 400, "control_byte"),
        case(line("GET /a\u{7f} HTTP/1.1"), 400, "control_byte"),
        case(line("GET /a\u{e9} HTTP/1.1"), 400, "bad_target"),
        case(line("GET a HTTP/1.1"), 400, "bad_target"),
        case(line("GET ../../etc/passwd HTTP/1.1"), 400, "bad_target"),
        case(line("GET ?a HTTP/1.1"), 400, "bad_target"),
        case(line("GET * HTTP/1.1"), 400, "bad_target"),
        case(line("GET @evil.test/ HTTP/1.1"), 400, "bad_target"),
        case(line("GET /a#b HTTP/1.1"), 400, "bad_target"),
        case(line("GET /\\evil.test HTTP/1.1"), 400, "bad_target"),
        case(line("GET /% HTTP/1.1"), 400, "bad_target"),
        case(line("GET /%zz HTTP/1.1"), 400, "bad_target"),
        case(line("GET /a%00b HTTP/1.1"), 400, "bad_target"),
        case(line("GET /a%0d%0aX:%20b HTTP/1.1"), 400, "bad_target"),
        case(line("GET edge.test:80 HTTP/1.1"), 400, "bad_target"),
        case(line("GET http:/a HTTP/1.1"), 400, "bad_target"),
        case(line("GET ftp://edge.test/a HTTP/1.1"), 400, "bad_target"),
        case(line("GET file:///etc/passwd HTTP/1.1"), 400, "bad_target"),
        case(line("GET http:///a HTTP/1.1"), 400, "bad_host"),
        case(line("GET http://me@edge.test/a HTTP/1.1"), 400, "bad_host"),
        case(line("GET http://evil.test/a HTTP/1.1"), 400, "conflicting_host"),
        case(line("GET http://edge.test:81/a HTTP/1.1"), 400, "conflicting_host"),
        case(line("GET https://edge.test/a HTTP/1.1"), 421, "misdirected"),
    ]);
}

#[test]
fn methods_and_versions_that_are_not_served_are_refused() {
    all_are_refused(&[
        case(line("TRACE /a HTTP/1.1"), 405, "method_not_allowed"),
        case(line("CONNECT edge.test:443 HTTP/1.1"), 405, "method_not_allowed"),
        case(line("CONNECT /a HTTP/1.1"), 405, "method_not_allowed"),
        case(line("GET /a HTTP/0.9"), 505, "unsupported_version"),
        case(line("GET /a HTTP/1.2"), 505, "unsupported_version"),
        case(line("GET /a HTTP/2.0"), 505, "unsupported_version"),
        case(line("GET /a HTTP/3.0"), 505, "unsupported_version"),
    ]);
}

#[test]
fn a_refusal_has_the_form_that_the_client_accepts() {
    let edge = Edge::to(&origin());
    // Refused before and after the message was understood.
    for (lines, refusal) in
        [("Host: a\r\nHost: b", "duplicate_host"), ("Range: a\r\nRange: b", "malformed_field")]
    {
        let ask = |method: &str, accept: &str| {
            let mut wire = edge.wire();
            wire.send(format!(
                "{method} /a HTTP/1.1\r\nHost: edge.test\r\n{lines}\r\nAccept: {accept}\r\n\r\n"
            ));
            let reply = wire.any_reply(method).expect("a reply comes");
            assert_eq!(wire.until_closed(), b"", "{method}");
            reply
        };
        let json = ask("GET", "application/json");
        assert_eq!(json.value("content-type"), Some("application/problem+json"), "{json:?}");
        let body: serde_json::Value = serde_json::from_slice(&json.body).expect("JSON");
        assert_eq!(body["reason"], refusal);
        let text = ask("GET", "*/*");
        assert_eq!(text.value("content-type"), Some("text/plain; charset=utf-8"), "{text:?}");
        assert!(text.text().starts_with("400 Bad Request\n"), "{text:?}");
        ask("HEAD", "*/*").expect_status(400);
    }
}

#[test]
fn a_method_that_is_refused_everywhere_is_told_which_are_not() {
    let edge = Edge::to(&origin());
    let mut wire = edge.wire();
    wire.send(line("TRACE /a HTTP/1.1"));
    let reply = wire.reply();
    reply.expect_status(405);
    assert!(reply.value("allow").is_some_and(|allow| allow.contains("GET")), "{reply:?}");
}

#[test]
fn a_host_that_names_nobody_is_refused() {
    let lines = |lines: &str| format!("GET /a HTTP/1.1\r\n{lines}\r\n\r\n");
    all_are_refused(&[
        case("GET /a HTTP/1.1\r\n\r\n", 400, "missing_host"),
        case("GET http://edge.test/a HTTP/1.1\r\n\r\n", 400, "missing_host"),
        case(lines("Host: edge.test\r\nHost: edge.test"), 400, "duplicate_host"),
        case(lines("Host: edge.test\r\nHost: evil.test"), 400, "duplicate_host"),
        case(lines("Host: edge.test\r\nX: y\r\nhOST: evil.test"), 400, "duplicate_host"),
        case(to_host(""), 400, "bad_host"),
        case(to_host("edge test"), 400, "bad_host"),
        case(to_host("edge.test, evil.test"), 400, "bad_host"),
        case(to_host("edge.test/evil"), 400, "bad_host"),
        case(to_host("edge.test?x"), 400, "bad_host"),
        case(to_host("edge.test#x"), 400, "bad_host"),
        case(to_host("me@edge.test"), 400, "bad_host"),
        case(to_host("edge.test\\evil.test"), 400, "bad_host"),
        case(to_host("http://edge.test"), 400, "bad_host"),
        case(to_host("edge.test:"), 400, "bad_host"),
        case(to_host("edge.test:abc"), 400, "bad_host"),
        case(to_host("edge.test:0"), 400, "bad_host"),
        case(to_host("edge.test:65536"), 400, "bad_host"),
        case(to_host("edge.test:80:80"), 400, "bad_host"),
        case(to_host("[::1"), 400, "bad_host"),
        case(to_host("[::1]evil"), 400, "bad_host"),
        case(to_host("edge..test"), 400, "bad_host"),
        case(to_host("127.1"), 400, "bad_host"),
        case(to_host("edge%2etest"), 400, "bad_host"),
        case(to_host("<script>"), 400, "bad_host"),
        case(to_host("\u{e9}dge.test"), 400, "bad_host"),
    ]);
}

#[test]
fn a_length_with_two_readings_is_refused() {
    all_are_refused(&[
        case(post("Content-Length:", ""), 400, "bad_content_length"),
        case(post("Content-Length: -1", ""), 400, "bad_content_length"),
        case(post("Content-Length: +3", "abc"), 400, "bad_content_length"),
        case(post("Content-Length: 0x3", "abc"), 400, "bad_content_length"),
        case(post("Content-Length: 3 3", "abc"), 400, "bad_content_length"),
        case(post("Content-Length: 3, 3", "abc"), 400, "bad_content_length"),
        case(post("Content-Length: 3;", "abc"), 400, "bad_content_length"),
        case(post("Content-Length: 3.0", "abc"), 400, "bad_content_length"),
        case(post("Content-Length: 1e1", "abc"), 400, "bad_content_length"),
        case(post("Content-Length: 9223372036854775808", "abc"), 400, "bad_content_length"),
        case(post("Content-Length: 18446744073709551619", "abc"), 400, "bad_content_length"),
        case(post("Content-Length: 3\r\nContent-Length: 3", "abc"), 400, "bad_content_length"),
        case(post("Content-Length: 3\r\nContent-Length: 0", "abc"), 400, "bad_content_length"),
        case(post("Content-Length: 0\r\ncontent-length: 44", ""), 400, "bad_content_length"),
    ]);
}

#[test]
fn a_transfer_coding_that_is_not_exactly_chunked_is_refused() {
    let body = "0\r\n\r\n";
    let coded = |value: &str| post(&format!("Transfer-Encoding: {value}"), body);
    let both = "Content-Length: 5\r\nTransfer-Encoding: chunked";
    let both_ways = "Transfer-Encoding: chunked\r\nContent-Length: 5";
    let twice = "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked";
    let hidden = "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked";
    let old = |lines: &str| {
        format!(
            "POST /a HTTP/1.0\r\nHost: edge.test\r\nConnection: keep-alive\r\n{lines}\r\n\r\n0\r\n\r\n"
        )
    };
    all_are_refused(&[
        case(post(both, body), 400, "ambiguous_length"),
        case(post(both_ways, body), 400, "ambiguous_length"),
        case(post(twice, body), 400, "bad_transfer_encoding"),
        case(coded("chunked, chunked"), 400, "bad_transfer_encoding"),
        case(coded("chunked, identity"), 400, "bad_transfer_encoding"),
        case(coded("chunked;q=1"), 400, "bad_transfer_encoding"),
        case(coded(",chunked"), 400, "bad_transfer_encoding"),
        case(coded("chunked,"), 400, "bad_transfer_encoding"),
        case(coded("\"chunked\""), 400, "bad_transfer_encoding"),
        case(coded(""), 400, "bad_transfer_encoding"),
        case(coded("identity"), 501, "unknown_transfer_coding"),
        case(coded("xchunked"), 501, "unknown_transfer_coding"),
        case(coded("chunkedx"), 501, "unknown_transfer_coding"),
        case(coded("gzip, chunked"), 501, "unknown_transfer_coding"),
        case(post(hidden, body), 501, "unknown_transfer_coding"),
        case(coded("chunked\u{b}"), 400, "control_byte"),
        case(old("Transfer-Encoding: chunked"), 400, "bad_transfer_encoding"),
        case(old("Content-Length: 5\r\nTransfer-Encoding: chunked"), 400, "bad_transfer_encoding"),
    ]);
}

#[test]
fn what_is_too_large_is_refused_in_its_own_words() {
    let long = |n: usize| format!("GET /{} HTTP/1.1\r\nHost: edge.test\r\n\r\n", "a".repeat(n));
    let chunk = format!("401\r\n{}\r\n0\r\n\r\n", "a".repeat(1025));
    all_are_refused(&[
        case(long(1024), 414, "target_too_long"),
        // The target's end is not waited for.
        case(format!("GET /{}", "a".repeat(2000)), 414, "target_too_long"),
        case(with(&format!("X: {}", "a".repeat(4096))), 431, "head_too_large"),
        case(with(vec!["X: y"; 20].join("\r\n").as_str()), 431, "too_many_fields"),
        case(post("Content-Length: 1025", ""), 413, "body_too_large"),
        case(post("Transfer-Encoding: chunked", &chunk), 413, "body_too_large"),
    ]);
}

#[test]
fn just_within_the_limits_is_served() {
    let origin = origin();
    let edge = Edge::with(&simple(&origin, LIMITS));
    let mut wire = edge.wire();
    wire.get("edge.test", &format!("/{}", "a".repeat(1023)), &[]).expect_status(200);
    wire.get("edge.test", "/a", &[("X", "y"); 19]).expect_status(200);
    wire.request("POST", "edge.test", "/a", &[], &[b'a'; 1024]).expect_status(200);
    let chunked = format!("400\r\n{}\r\n0\r\n\r\n", "a".repeat(1024));
    let fields = [("Transfer-Encoding", "chunked")];
    wire.request("POST", "edge.test", "/a", &fields, chunked.as_bytes()).expect_status(200);
    assert_eq!(origin.wait_for(4)[3].body.len(), 1024);
}

#[test]
fn expectations_upgrades_and_connections_that_cannot_be_met_are_refused() {
    let socket = "Connection: Upgrade\r\nUpgrade: websocket";
    all_are_refused(&[
        case(with("Expect: 200-ok"), 417, "bad_expect"),
        case(with("Expect: 100-continue, x"), 417, "bad_expect"),
        case(with("Expect:"), 417, "bad_expect"),
        case(with(&format!("{socket}\r\nContent-Length: 3")), 400, "bad_upgrade"),
        case(with(&format!("{socket}\r\nTransfer-Encoding: chunked")), 400, "bad_upgrade"),
        case(with("Connection: Host"), 400, "bad_connection"),
        case(with("Connection: Content-Length"), 400, "bad_connection"),
        case(with("Connection: close, X-Forwarded-For"), 400, "bad_connection"),
        case(with("Connection: Cookie"), 400, "bad_connection"),
        case(with("Connection: a b"), 400, "bad_connection"),
        case(with("Connection: a,b,c,d,e,f,g,h,i"), 400, "bad_connection"),
    ]);
}

#[test]
fn absolute_form_reaches_the_origin_as_origin_form() {
    let origin = origin();
    let edge = Edge::to(&origin);
    for (target, seen) in [
        ("http://edge.test/a?b=c", "/a?b=c"),
        ("HTTP://EDGE.test:80/a", "/a"),
        ("http://edge.test", "/"),
        ("http://edge.test?q", "/?q"),
        ("http://edge.test/x/../a//b/%7e", "/a/b/~"),
    ] {
        edge.wire().get("edge.test", target, &[]).expect_status(200);
        let last = origin.seen().pop().expect("it was passed on");
        assert_eq!(last.line, format!("GET {seen} HTTP/1.1"), "{target}");
        assert_eq!(last.values("host"), ["edge.test"], "{target}");
    }
    edge.wire().request("OPTIONS", "edge.test", "http://edge.test", &[], b"").expect_status(200);
    assert_eq!(origin.seen().pop().map(|seen| seen.line).as_deref(), Some("OPTIONS * HTTP/1.1"));
}

#[test]
fn h2c_and_other_upgrades_are_not_passed_on() {
    let origin = origin();
    let edge = Edge::to(&origin);
    for upgrade in ["h2c", "TLS/1.3", "h2c, foo"] {
        let fields = [
            ("Connection", "Upgrade, HTTP2-Settings"),
            ("Upgrade", upgrade),
            ("HTTP2-Settings", "AAMAAABkAAQAAP__"),
        ];
        edge.get_with("/a", &fields).expect_status(200);
        let seen = origin.seen().pop().expect("it was passed on");
        for name in ["upgrade", "http2-settings", "connection"] {
            assert_eq!(seen.value(name), None, "{upgrade}: {seen:?}");
        }
    }
}

#[test]
fn what_clients_claim_about_themselves_never_reaches_the_origin() {
    let origin = origin();
    let edge = Edge::to(&origin);
    let claims = [
        "X-Forwarded-For",
        "X-Forwarded-Host",
        "X-Forwarded-Proto",
        "X-Forwarded-Port",
        "X-Forwarded-Prefix",
        "X-Forwarded-Server",
        "X-Forwarded-Scheme",
        "Forwarded",
        "X-Real-IP",
        "X-Client-IP",
        "True-Client-IP",
        "CF-Connecting-IP",
        "X-Original-URL",
        "X-Rewrite-URL",
        "X-Original-Host",
        "X-Host",
        "X-HTTP-Method",
        "X-HTTP-Method-Override",
        "X-Method-Override",
        "Proxy",
        "X_Forwarded_For",
        "X_Original_URL",
        "Content_Length",
        "Transfer_Encoding",
    ];
    let fields: Vec<_> = claims.iter().map(|name| (*name, "for=evil.test")).collect();

    edge.get_with("/a", &fields).expect_status(200);

    let seen = origin.wait_for(1).remove(0);
    let evil: Vec<_> = seen.fields.iter().filter(|(_, value)| value.contains("evil")).collect();
    assert!(evil.is_empty(), "{evil:?}");
    assert_eq!(seen.values("x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(seen.values("x-forwarded-host"), ["edge.test"]);
    assert_eq!(seen.values("x-forwarded-proto"), ["http"]);
}

#[test]
fn fields_of_the_clients_hop_end_here() {
    let origin = origin();
    let edge = Edge::to(&origin);
    let fields = [
        ("Connection", "close, X-Secret"),
        ("Connection", "x-other"),
        ("X-Secret", "1"),
        ("X-Other", "1"),
        ("X-Kept", "1"),
        ("Keep-Alive", "timeout=5"),
        ("Proxy-Connection", "keep-alive"),
        ("Proxy-Authorization", "Basic eDp5"),
        ("TE", "trailers, deflate"),
        ("Trailer", "Expires"),
    ];
    edge.get_with("/a", &fields).expect_status(200);

    let seen = origin.wait_for(1).remove(0);
    for (name, _) in fields {
        let expected = usize::from(name == "X-Kept");
        assert_eq!(seen.values(name).len(), expected, "{name}: {seen:?}");
    }
}

#[test]
fn pipelined_requests_are_answered_in_order_and_one_by_one() {
    let origin = Origin::script()
        .otherwise(|seen| ok(format!("{} {:?}", seen.line, String::from_utf8_lossy(&seen.body))))
        .start();
    let edge = Edge::to(&origin);
    let mut wire = edge.wire();
    wire.send(
        "GET /1 HTTP/1.1\r\nHost: edge.test\r\n\r\n\
         POST /2 HTTP/1.1\r\nHost: edge.test\r\nContent-Length: 3\r\n\r\nabc\
         POST /3 HTTP/1.1\r\nHost: edge.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\ndef\r\n0\r\n\r\n\
         GET /4 HTTP/1.1\r\nHost: edge.test\r\n\r\n",
    );
    let replies: Vec<Reply> = ["GET", "POST", "POST", "GET"].map(|m| wire.reply_to(m)).into();
    let bodies: Vec<String> = replies.iter().map(Reply::text).collect();
    assert_eq!(
        bodies,
        [
            "GET /1 HTTP/1.1 \"\"",
            "POST /2 HTTP/1.1 \"abc\"",
            "POST /3 HTTP/1.1 \"def\"",
            "GET /4 HTTP/1.1 \"\"",
        ]
    );
    let lines: Vec<String> = origin.seen().into_iter().map(|seen| seen.line).collect();
    assert_eq!(lines.len(), 4, "{lines:?}");
}

#[test]
fn hostile_bytes_make_one_log_line_each() {
    let origin = origin();
    let edge = Edge::to(&origin);
    let hostile: [&[u8]; 6] = [
        b"GET /a\"},{\"status\":200 HTTP/1.1\r\n\r\n",
        b"GET /log?x=%0a{\"status\":200} HTTP/1.1\r\nHost: edge.test\r\n\r\n",
        b"GET /log HTTP/1.1\r\nHost: edge.test\r\nUser-Agent: \"\\\x80\xff\xe2\x80\xa8</script>\r\n\r\n",
        b"GET /log HTTP/1.1\r\nHost: edge.test\r\nReferer: http://a/\\n\"}\r\n\r\n",
        b"\x1b[31m\0\x01 /\x7f\r\n\r\n",
        b"GET /log HTTP/1.1\r\nHost: \"}\xff\r\n\r\n",
    ];
    for bytes in hostile {
        let mut wire = edge.wire();
        wire.send(bytes);
        let _ = wire.any_reply("GET").expect("an answer");
    }
    edge.get("/the-end").expect_status(200);
    edge.wait_for_access("/the-end");

    let lines = edge.access_log();
    assert_eq!(lines.len(), hostile.len() + 1, "{lines:#?}");
    for line in &lines {
        let value: serde_json::Value = serde_json::from_str(line).expect("a JSON object");
        assert_eq!(value["client"], "127.0.0.1", "{line}");
        let has_body = value["bytes_sent"].as_u64().is_some_and(|sent| sent > 0);
        assert!(has_body || value["refusal"].is_null(), "{line}");
        assert!(line.bytes().all(|byte| (b' '..0x7f).contains(&byte)), "{line:?}");
    }
}

#[test]
fn what_a_library_warns_of_at_every_response_is_told_a_few_times() {
    // What is longer than it says is a warning of the library that reads it.
    let origin =
        Origin::always(Respond::raw("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab and more"));
    let edge = Edge::with(&simple(&origin, "").replace(": origin}", ": origin, cache: {ttl: 1m}}"));
    for n in 0..40 {
        edge.get(&format!("/{n}")).expect_status(200).expect_body("ab");
    }
    let lines = edge.log();
    let told = lines.iter().filter(|line| line.contains("pingora")).count();
    assert!(told <= 6, "{lines:?}");
}
