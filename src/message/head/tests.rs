use http::Method;
use http::Version;

use super::*;

fn scan(input: &[u8]) -> Scan {
    HeadScanner::default().scan(input, &HeadLimits::default())
}

/// A head that must be accepted.
fn head(input: &[u8]) -> RequestHead {
    match scan(input) {
        Scan::Head(head) => head,
        other => panic!("{}: {other:?}", String::from_utf8_lossy(input)),
    }
}

/// A GET of HTTP/1.1 with a Host and these field lines besides.
fn with(fields: &str) -> Vec<u8> {
    format!("GET / HTTP/1.1\r\nHost: e\r\n{fields}\r\n").into_bytes()
}

/// A POST likewise.
fn post(fields: &str) -> Vec<u8> {
    format!("POST / HTTP/1.1\r\nHost: e\r\n{fields}\r\n").into_bytes()
}

#[track_caller]
fn refuses(input: impl AsRef<[u8]>, refusal: Refusal) {
    let input = input.as_ref();
    let shown = String::from_utf8_lossy(input).into_owned();
    assert_eq!(scan(input), Scan::Refused(refusal), "{shown:?}");
}

fn rewritten(input: &[u8], authority: Option<&str>) -> String {
    let head = head(input);
    let bytes = canonical(input, &head, authority, head.target(input));
    String::from_utf8(bytes).expect("the test writes text")
}

// ── the request line ──

#[test]
fn an_ordinary_head_is_understood() {
    let input = b"GET /a?b=c HTTP/1.1\r\nHost: example.org\r\nX: \t y z \t\r\n\r\nbody";
    let head = head(input);
    assert_eq!(head.len, input.len() - 4);
    assert_eq!((&head.method, head.version), (&Method::GET, Version::HTTP_11));
    assert_eq!(head.target(input), b"/a?b=c");
    assert_eq!(head.host(input), Some(&b"example.org"[..]));
    let fields: Vec<_> = head.fields(input).collect();
    assert_eq!(fields, [(&b"Host"[..], &b"example.org"[..]), (b"X", b"y z")]);
    assert_eq!(head.body, BodyFraming::None);
    assert!(head.keep_alive);
    assert_eq!(head.upgrade, Upgrade::None);
}

#[test]
fn one_or_two_empty_lines_before_the_request_line_are_passed_over() {
    for (empty, len) in [("\r\n", 29), ("\r\n\r\n", 31)] {
        let input = format!("{empty}GET / HTTP/1.1\r\nHost: e\r\n\r\n");
        assert_eq!(head(input.as_bytes()).len, len);
    }
    refuses("\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: e\r\n\r\n", Refusal::MalformedRequestLine);
}

#[test]
fn an_empty_line_is_crlf() {
    refuses("\nGET / HTTP/1.1\r\n\r\n", Refusal::BareLineFeed);
    refuses("\rGET / HTTP/1.1\r\n\r\n", Refusal::BareLineFeed);
}

#[test]
fn a_method_is_a_token() {
    assert_eq!(head(b"M-SEARCH * HTTP/1.0\r\n\r\n").method.as_str(), "M-SEARCH");
    for line in ["GE(T / HTTP/1.1", "GET: / HTTP/1.1", "G\"T / HTTP/1.1", "\"G\" / HTTP/1.1"] {
        refuses(line, Refusal::BadMethod);
    }
}

#[test]
fn a_method_has_32_bytes_at_most() {
    let line = |length: usize| format!("{} / HTTP/1.0\r\n\r\n", "M".repeat(length));
    assert_eq!(head(line(32).as_bytes()).method.as_str().len(), 32);
    refuses("M".repeat(33), Refusal::BadMethod);
}

#[test]
fn what_cannot_be_a_request_line_is_refused_at_once() {
    for line in ["\x16\x03\x01", " GET /", "\tGET", "GET\t/ ", "GET\r\n", "GET  /", "\0"] {
        refuses(line, Refusal::MalformedRequestLine);
    }
    refuses("GET\n", Refusal::BareLineFeed);
    refuses(b"\x80\xff", Refusal::MalformedRequestLine);
}

#[test]
fn a_request_of_http_0_9_is_refused() {
    refuses("GET /\r\n", Refusal::MalformedRequestLine);
    refuses("GET /\n", Refusal::BareLineFeed);
}

#[test]
fn a_carriage_return_within_the_target_is_not_a_line_end() {
    refuses("GET /a\rb HTTP/1.1\r\n", Refusal::BareLineFeed);
}

#[test]
fn a_target_is_visible_ascii_without_what_carries_other_structure() {
    for byte in *b"\"#<>\\\x80\xff" {
        refuses([b"GET /a", &[byte][..]].concat(), Refusal::BadTarget);
    }
    for byte in [0, 1, b'\t', 0x1f, 0x7f] {
        refuses([b"GET /a", &[byte][..]].concat(), Refusal::ControlByte);
    }
    let input = b"GET /a|b{c}d^e[f]g`h?i=| HTTP/1.0\r\n\r\n";
    assert_eq!(head(input).target(input), b"/a|b{c}d^e[f]g`h?i=|");
}

#[test]
fn a_target_has_as_many_bytes_as_the_limit_says() {
    let limits = HeadLimits { target: 10, ..HeadLimits::default() };
    let long = |length: usize| format!("GET /{} HTTP/1.0\r\n\r\n", "a".repeat(length - 1));
    let mut scanner = HeadScanner::default();
    assert!(matches!(scanner.scan(long(10).as_bytes(), &limits), Scan::Head(_)));
    let refused = Scan::Refused(Refusal::TargetTooLong);
    assert_eq!(scanner.scan(long(11).as_bytes(), &limits), refused);
    assert_eq!(scanner.scan(b"GET /1234567890", &limits), refused, "before the line has ended");
    assert_eq!(scanner.scan(b"GET /123456789", &limits), Scan::NeedMore);
}

#[test]
fn a_version_that_is_well_written_but_not_ours_is_unsupported() {
    for version in ["HTTP/2.0", "HTTP/0.9", "HTTP/1.2", "HTTP/3.1", "HTTP/2.1", "HTTP/9.9"] {
        refuses(format!("GET / {version}\r\n"), Refusal::UnsupportedVersion);
    }
}

#[test]
fn a_version_is_written_exactly() {
    for version in
        ["http/1.1\r", "HTTP/1,1\r", "HTTP/11\r", "HTTP/1.10\r", "HTTP/1.1 \r", " HTTP/1.1\r"]
    {
        refuses(format!("GET / {version}"), Refusal::MalformedRequestLine);
    }
    for version in ["XTTP/1.1\r", "HTTP/1.\r", "HTTP/01.1\r", "HTTP/+1.1\r", "/x HTTP/1.1\r"] {
        refuses(format!("GET / {version}"), Refusal::MalformedRequestLine);
    }
    refuses("GET / HTTP/1.1\n", Refusal::BareLineFeed);
    refuses("GET / HTTP/1.1\rX", Refusal::BareLineFeed);
}

#[test]
fn the_preface_of_http_2_is_recognised() {
    assert_eq!(scan(PREFACE), Scan::Preface);
    assert_eq!(scan(&[&PREFACE[..], b"\0\0\0"].concat()), Scan::Preface);
    for cut in 0..PREFACE.len() {
        assert_eq!(scan(&PREFACE[..cut]), Scan::NeedMore);
    }
}

#[test]
fn what_only_begins_like_the_preface_is_an_ordinary_request() {
    refuses("PRI * HTTP/2.0\r\n\r\nXX", Refusal::UnsupportedVersion);
    refuses("\r\nPRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Refusal::UnsupportedVersion);
    assert_eq!(head(b"PRI * HTTP/1.1\r\nHost: e\r\n\r\n").method.as_str(), "PRI");
}

// ── field lines ──

#[test]
fn a_field_line_ends_in_crlf() {
    refuses(with("A: b\n"), Refusal::BareLineFeed);
    refuses(with("A: b\rC: d\r\n"), Refusal::BareLineFeed);
    refuses(with("A: b\r\r\n"), Refusal::BareLineFeed);
    refuses("GET / HTTP/1.1\r\nHost: e\r\n\n", Refusal::BareLineFeed);
    refuses("GET / HTTP/1.1\r\nHost: e\r\n\rX", Refusal::BareLineFeed);
}

#[test]
fn a_field_name_is_a_token_right_before_the_colon() {
    for line in ["A : b", "A\t: b", ": b", "A", "A(: b", "\"A\": b", "A\0: b", "\u{e9}: b"] {
        refuses(with(&format!("{line}\r\n")), Refusal::MalformedField);
    }
}

#[test]
fn a_folded_line_is_refused() {
    refuses(with("A: b\r\n c\r\n"), Refusal::FoldedField);
    refuses(with("A: b\r\n\tc\r\n"), Refusal::FoldedField);
    refuses("GET / HTTP/1.1\r\n Host: e\r\n\r\n", Refusal::FoldedField);
}

#[test]
fn a_value_holds_no_control_byte_but_the_tab() {
    for byte in (0..0x20_u8).chain([0x7f]).filter(|b| !b"\t\r\n".contains(b)) {
        let line = [b"GET / HTTP/1.1\r\nA: b", &[byte][..], b"c\r\n"].concat();
        refuses(line, Refusal::ControlByte);
    }
    let input = b"GET / HTTP/1.0\r\nA: b\tc\xe9\xff\r\n\r\n";
    let head = head(input);
    let (_, value) = head.fields(input).next().expect("one field");
    assert_eq!(value, b"b\tc\xe9\xff");
}

#[test]
fn a_value_may_be_empty() {
    let input = with("A:\r\nB: \t \r\n");
    let head = head(&input);
    assert!(head.fields(&input).skip(1).all(|(_, value)| value.is_empty()));
    assert_eq!(head.field_count(), 3);
}

#[test]
fn there_are_as_many_fields_as_the_limit_says() {
    let limits = HeadLimits { fields: 3, ..HeadLimits::default() };
    let mut scanner = HeadScanner::default();
    assert!(matches!(scanner.scan(&with("A: b\r\nC: d\r\n"), &limits), Scan::Head(_)));
    let early = b"GET / HTTP/1.1\r\nHost: e\r\nA: b\r\nA: b\r\nX";
    assert_eq!(scanner.scan(early, &limits), Scan::Refused(Refusal::TooManyFields));
}

#[test]
fn a_head_has_as_many_bytes_as_the_limit_says() {
    let input = with("A: b\r\n");
    let mut scanner = HeadScanner::default();
    let exact = HeadLimits { bytes: input.len(), ..HeadLimits::default() };
    let behind = [&input[..], b"and much more behind it"].concat();
    assert!(matches!(scanner.scan(&behind, &exact), Scan::Head(_)));
    let short = HeadLimits { bytes: input.len() - 1, ..HeadLimits::default() };
    let too_large = Scan::Refused(Refusal::HeadTooLarge);
    assert_eq!(scanner.scan(&input, &short), too_large);
    assert_eq!(scanner.scan(&input[..input.len() - 1], &short), too_large, "certain already");
    assert_eq!(scanner.scan(&input[..input.len() - 2], &short), Scan::NeedMore);
}

// ── Host ──

#[test]
fn http_1_1_has_exactly_one_host() {
    refuses("GET / HTTP/1.1\r\n\r\n", Refusal::MissingHost);
    refuses(with("host: e\r\n"), Refusal::DuplicateHost);
    assert_eq!(head(b"GET / HTTP/1.0\r\n\r\n").host(b""), None);
    refuses("GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n", Refusal::DuplicateHost);
}

// ── length ──

#[test]
fn content_length_is_one_line_of_digits() {
    assert_eq!(head(&post("Content-Length: 0\r\n")).body, BodyFraming::Length(0));
    assert_eq!(head(&post("content-length:\t007 \r\n")).body, BodyFraming::Length(7));
    for value in ["", " ", "+5", "-5", "5,5", "5, 5", "0x5", "5 5", "5_0", "\"5\"", "5.0", "\u{b2}"]
    {
        refuses(post(&format!("Content-Length: {value}\r\n")), Refusal::BadContentLength);
    }
}

#[test]
fn two_content_lengths_are_refused_even_when_they_agree() {
    refuses(post("Content-Length: 5\r\nContent-Length: 5\r\n"), Refusal::BadContentLength);
}

#[test]
fn content_length_fits_a_signed_number_in_19_digits() {
    let largest = i64::MAX.unsigned_abs();
    let length = format!("Content-Length: {largest}\r\n");
    assert_eq!(head(&post(&length)).body, BodyFraming::Length(largest));
    for value in ["9223372036854775808", "18446744073709551616", "00000000000000000005"] {
        refuses(post(&format!("Content-Length: {value}\r\n")), Refusal::BadContentLength);
    }
}

#[test]
fn transfer_encoding_is_chunked() {
    for value in ["chunked", "Chunked", "CHUNKED\t"] {
        let input = post(&format!("Transfer-Encoding: {value}\r\n"));
        assert_eq!(head(&input).body, BodyFraming::Chunked);
    }
}

#[test]
fn an_unknown_transfer_coding_is_not_implemented() {
    for value in ["gzip", "gzip, chunked", "identity", "xchunked", "cow;x=y", "chunked1"] {
        refuses(post(&format!("Transfer-Encoding: {value}\r\n")), Refusal::UnknownTransferCoding);
    }
}

#[test]
fn chunked_is_last_once_and_plain() {
    for value in
        ["", ",chunked", "chunked,", "chunked, chunked", "chunked, identity", "\"chunked\""]
    {
        refuses(post(&format!("Transfer-Encoding: {value}\r\n")), Refusal::BadTransferEncoding);
    }
    for value in ["chunked;x=y", "chunked ;", "chun ked", "gzip chunked", "chunked\u{a0}"] {
        refuses(post(&format!("Transfer-Encoding: {value}\r\n")), Refusal::BadTransferEncoding);
    }
    let twice = "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n";
    refuses(post(twice), Refusal::BadTransferEncoding);
    refuses(post("Transfer-Encoding: chunked\x0b\r\n"), Refusal::ControlByte);
    refuses(post("Transfer-Encoding : chunked\r\n"), Refusal::MalformedField);
}

#[test]
fn http_1_0_has_no_transfer_encoding() {
    let input = "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n";
    refuses(input, Refusal::BadTransferEncoding);
}

#[test]
fn two_ways_to_tell_the_length_exclude_each_other() {
    let (length, coding) = ("Content-Length: 5\r\n", "Transfer-Encoding: chunked\r\n");
    refuses(post(&[length, coding].concat()), Refusal::AmbiguousLength);
    refuses(post(&[coding, length].concat()), Refusal::AmbiguousLength);
}

// ── Expect ──

#[test]
fn the_only_expectation_is_100_continue() {
    assert!(head(&post("Content-Length: 5\r\nExpect: 100-Continue\r\n")).expects_continue);
    for value in ["", "100-continue, x", "200-ok", "100-continue;a=b"] {
        refuses(post(&format!("Expect: {value}\r\n")), Refusal::BadExpect);
    }
    refuses(post("Expect: 100-continue\r\nExpect: 100-continue\r\n"), Refusal::BadExpect);
}

#[test]
fn nobody_waits_for_100_without_a_body() {
    for length in ["", "Content-Length: 0\r\n"] {
        let input = post(&format!("{length}Expect: 100-continue\r\n"));
        assert!(!head(&input).expects_continue);
        assert!(!rewritten(&input, Some("e")).contains("Expect"));
    }
}

#[test]
fn an_expectation_in_http_1_0_is_ignored() {
    let input = b"POST / HTTP/1.0\r\nContent-Length: 5\r\nExpect: anything\r\n\r\n";
    assert!(!head(input).expects_continue);
    assert!(!rewritten(input, None).contains("Expect"));
}

// ── Connection ──

#[test]
fn the_connection_lives_on_by_default_in_http_1_1_alone() {
    let keeps = |line: &str, fields: &str| {
        head(format!("GET / {line}\r\nHost: e\r\n{fields}\r\n").as_bytes()).keep_alive
    };
    assert!(keeps("HTTP/1.1", ""));
    assert!(!keeps("HTTP/1.1", "Connection: Close\r\n"));
    assert!(!keeps("HTTP/1.1", "Connection: keep-alive\r\nConnection: x, close\r\n"));
    assert!(!keeps("HTTP/1.0", ""));
    assert!(keeps("HTTP/1.0", "Connection: Keep-Alive\r\n"));
    assert!(!keeps("HTTP/1.0", "Connection: keep-alive, close\r\n"));
}

#[test]
fn connection_has_eight_options_at_most_over_all_its_lines() {
    let line = |count: usize| format!("Connection: {}\r\n", vec!["x"; count].join(", "));
    assert!(head(&with(&line(8))).keep_alive);
    refuses(with(&line(9)), Refusal::BadConnection);
    refuses(with(&[line(4), line(5)].concat()), Refusal::BadConnection);
}

#[test]
fn empty_elements_of_connection_are_passed_over() {
    assert!(!head(&with("Connection: , ,close,\r\nConnection:\r\n")).keep_alive);
}

#[test]
fn a_connection_option_is_a_token() {
    for value in ["a b", "\"close\"", "close;", "(x)"] {
        refuses(with(&format!("Connection: {value}\r\n")), Refusal::BadConnection);
    }
}

#[test]
fn connection_does_not_name_what_must_arrive() {
    for name in ["Host", "Content-Length", "transfer-encoding", "X-Forwarded-For", "Forwarded"] {
        refuses(with(&format!("Connection: close, {name}\r\n")), Refusal::BadConnection);
    }
    for name in ["Cookie", "authorization", "Cache-Control", "If-None-Match", "Sec-WebSocket-Key"] {
        refuses(with(&format!("Connection: {name}\r\n")), Refusal::BadConnection);
    }
}

#[test]
fn nominated_fields_are_left_out() {
    let input = with("Connection: X-Hop, close\r\nx-hop: 1\r\nX-Hop2: 2\r\n");
    assert!(head(&input).nominates(b"X-HOP"));
    let written = rewritten(&input, Some("e"));
    assert_eq!(written, "GET / HTTP/1.1\r\nHost: e\r\nX-Hop2: 2\r\nConnection: close\r\n\r\n");
}

// ── Upgrade ──

const WEBSOCKET: &str = "Connection: Upgrade\r\nUpgrade: WebSocket\r\n";

#[test]
fn a_websocket_may_be_asked_for() {
    let input = with(WEBSOCKET);
    assert_eq!(head(&input).upgrade, Upgrade::WebSocket);
    let written = rewritten(&input, Some("e"));
    assert!(written.ends_with("\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"));
}

#[test]
fn a_websocket_is_asked_for_properly_or_not_at_all() {
    let cases = [
        with("Upgrade: websocket\r\n"),
        post(WEBSOCKET),
        format!("GET / HTTP/1.0\r\n{WEBSOCKET}\r\n").into_bytes(),
    ];
    for input in cases {
        assert_eq!(head(&input).upgrade, Upgrade::Ignored);
        assert!(!rewritten(&input, None).to_lowercase().contains("upgrade"));
    }
}

#[test]
fn a_websocket_with_a_body_is_refused() {
    let body = ["Content-Length: 1\r\n", "Transfer-Encoding: chunked\r\n"];
    for length in body {
        refuses(with(&[WEBSOCKET, length].concat()), Refusal::BadUpgrade);
        refuses(post(&[length, WEBSOCKET].concat()), Refusal::BadUpgrade);
    }
    let empty = head(&with(&[WEBSOCKET, "Content-Length: 0\r\n"].concat()));
    assert_eq!((empty.upgrade, empty.body), (Upgrade::WebSocket, BodyFraming::None));
}

#[test]
fn h2c_is_ignored_and_dropped() {
    let fields = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMA\r\n";
    let input = with(fields);
    assert_eq!(head(&input).upgrade, Upgrade::Ignored);
    assert_eq!(rewritten(&input, Some("e")), "GET / HTTP/1.1\r\nHost: e\r\n\r\n");
}

#[test]
fn of_several_protocols_websocket_is_passed_on_alone() {
    let input = with("Connection: upgrade\r\nUpgrade: h2c, websocket\r\n");
    assert!(rewritten(&input, Some("e")).contains("\r\nUpgrade: websocket\r\n"));
}

// ── the head written anew ──

#[test]
fn the_head_is_written_from_the_model() {
    let input = b"\r\nPOST http://Example.org/a HTTP/1.1\r\naccept:  */* \r\nHOST: evil\r\n\
        Content-Length: 0005\r\nKeep-Alive: timeout=5\r\nProxy-Connection: close\r\nTrailer: x\r\n\
        TE: gzip, trailers\r\nConnection: keep-alive, te\r\nExpect: 100-CONTINUE\r\nX: y\r\n\r\n";
    let head = head(input);
    let written = canonical(input, &head, Some("example.org"), b"/a");
    let expected = "POST /a HTTP/1.1\r\nHost: example.org\r\naccept: */*\r\nX: y\r\n\
        Content-Length: 5\r\nExpect: 100-continue\r\nTE: trailers\r\n\r\n";
    assert_eq!(String::from_utf8_lossy(&written), expected);
}

#[test]
fn te_without_trailers_is_left_out() {
    assert_eq!(rewritten(&with("TE: gzip\r\n"), Some("e")), "GET / HTTP/1.1\r\nHost: e\r\n\r\n");
}

#[test]
fn http_1_0_says_whether_it_keeps_the_connection() {
    let input = b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n";
    assert_eq!(rewritten(input, None), "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    let input = b"GET / HTTP/1.0\r\n\r\n";
    assert_eq!(rewritten(input, None), "GET / HTTP/1.0\r\nConnection: close\r\n\r\n");
}

#[test]
fn the_head_is_written_behind_what_the_buffer_holds() {
    let input = b"GET / HTTP/1.1\r\nHost: e\r\n\r\n";
    let mut out = b"before".to_vec();
    canonical_into(input, &head(input), Some("e"), b"/", &mut out);
    assert_eq!(out, [&b"before"[..], input].concat());
}

// ── the scanner ──

#[test]
fn a_scanner_that_found_a_head_is_ready_for_the_next() {
    let mut scanner = HeadScanner::default();
    let limits = HeadLimits::default();
    for _ in 0..2 {
        let Scan::Head(head) = scanner.scan(&with(WEBSOCKET), &limits) else { panic!("a head") };
        assert_eq!(head.upgrade, Upgrade::WebSocket);
        let Scan::Head(head) = scanner.scan(&with(""), &limits) else { panic!("a head") };
        assert_eq!(head.upgrade, Upgrade::None);
    }
}

#[test]
fn an_incomplete_head_is_waited_for() {
    let input = post("Content-Length: 5\r\nX: y\r\n");
    for cut in 0..input.len() {
        assert_eq!(scan(&input[..cut]), Scan::NeedMore, "{cut}");
    }
}

#[test]
fn ranges_in_a_foreign_buffer_are_empty() {
    let head = head(&with("A: b\r\n"));
    assert_eq!((head.target(b""), head.host(b"")), (&b""[..], Some(&b""[..])));
    assert!(head.fields(b"").all(|(name, value)| name.is_empty() && value.is_empty()));
}
