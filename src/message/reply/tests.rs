use proptest::prelude::*;

use super::*;
use crate::message::chunked::ChunkFault;
use crate::message::head::PREFACE;
use crate::refusal::Refusal;

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: e\r\n\r\n";
const HEAD: &[u8] = b"HEAD / HTTP/1.1\r\nHost: e\r\n\r\n";
const WEBSOCKET: &[u8] =
    b"GET / HTTP/1.1\r\nHost: e\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
const SWITCHED: &[u8] =
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: WebSocket\r\nConnection: upgrade\r\n\r\n";
const EMPTY: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

/// A guard behind which this request was sent.
fn asked(request: &[u8]) -> ReplyGuard {
    let mut guard = ReplyGuard::default();
    guard.on_request_bytes(request).expect("a good request");
    guard
}

/// What comes of this reply to a GET.
fn reply(bytes: impl AsRef<[u8]>) -> Result<(), OriginFault> {
    asked(GET).on_reply_bytes(bytes.as_ref())
}

/// A 200 with these field lines.
fn with(fields: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\n{fields}\r\n").into_bytes()
}

#[track_caller]
fn faults(bytes: impl AsRef<[u8]>, fault: OriginFault) {
    let shown = String::from_utf8_lossy(bytes.as_ref()).into_owned();
    assert_eq!(reply(bytes), Err(fault), "{shown:?}");
}

/// The reply is whole after exactly these bytes and the connection may be used again.
#[track_caller]
fn completes(request: &[u8], bytes: &[u8]) {
    let mut guard = asked(request);
    let (last, before) = bytes.split_last().expect("some bytes");
    assert_eq!(guard.on_reply_bytes(before), Ok(()));
    assert!(!guard.is_idle(), "not before the last byte");
    assert_eq!(guard.on_reply_bytes(&[*last]), Ok(()));
    assert!(guard.is_idle());
    assert_eq!(guard.on_eof(), Ok(()));
}

// ── one exchange after the other ──

#[test]
fn what_was_said_of_one_exchange_does_not_go_for_the_next() {
    let mut guard = asked(WEBSOCKET);
    assert!(guard.offers_tunnel());
    guard.on_reply_bytes(EMPTY).expect("it declines");
    guard.on_request_bytes(&GET[..9]).expect("a part of a head");
    assert!(!guard.offers_tunnel(), "the next one is not known to offer one");

    let mut guard = ReplyGuard::default();
    guard.on_own_request();
    // Nobody asks where its fields are.
    guard.on_reply_bytes(EMPTY).expect("a good reply");
    guard.on_request_bytes(GET).expect("a good request");
    guard.on_reply_bytes(&with("Content-Length: 0\r\nA: b\r\n")).expect("a good reply");
    assert!(guard.take_seen().is_none());
}

// ── the status line ──

#[test]
fn an_ordinary_reply_is_whole_with_its_last_byte() {
    completes(GET, &[&with("Content-Length: 5\r\n")[..], b"hello"].concat());
}

#[test]
fn a_reason_may_be_missing() {
    for line in ["HTTP/1.1 200", "HTTP/1.1 200 ", "HTTP/1.1 200 Tr\u{e8}s bien\t!", "HTTP/1.0 200"]
    {
        completes(GET, format!("{line}\r\nContent-Length: 1\r\n\r\nx").as_bytes());
    }
}

#[test]
fn a_status_line_is_written_exactly() {
    for line in ["http/1.1 200", "HTTP/1.1  200", "HTTP/1.1 2000", "HTTP/1.1 20 ", "HTTP/1,1 200"] {
        faults(format!("{line} OK\r\n\r\n"), OriginFault::MalformedStatusLine);
    }
    for junk in ["<html>", "\r\nHTTP/1.1 200 OK\r\n\r\n", "220 mail ready", "\0", "HTTP/1.1 +20"] {
        faults(junk, OriginFault::MalformedStatusLine);
    }
}

#[test]
fn other_versions_are_not_ours() {
    for version in ["HTTP/2.0", "HTTP/0.9", "HTTP/1.2"] {
        faults(format!("{version} 200 OK\r\n\r\n"), OriginFault::UnsupportedVersion);
    }
}

#[test]
fn a_status_lies_between_100_and_599() {
    for status in ["000", "099", "600", "999"] {
        faults(format!("HTTP/1.1 {status} X\r\n"), OriginFault::BadStatus);
    }
    completes(GET, b"HTTP/1.1 599 X\r\nContent-Length: 0\r\n\r\n");
}

#[test]
fn lines_of_a_head_end_in_crlf() {
    for head in ["HTTP/1.1 200 OK\n", "HTTP/1.1 200\n", "HTTP/1.1 200 OK\rX"] {
        faults(head, OriginFault::BareLineFeed);
    }
    for fields in ["A: b\n", "A: b\rC: d\r\n", "\n"] {
        faults(with(fields), OriginFault::BareLineFeed);
    }
}

#[test]
fn a_reason_holds_no_control_byte() {
    faults("HTTP/1.1 200 O\0K\r\n", OriginFault::ControlByte);
}

// ── fields ──

#[test]
fn field_lines_are_held_to_the_grammar() {
    faults(with("A : b\r\n"), OriginFault::MalformedField);
    faults(with("A\r\n"), OriginFault::MalformedField);
    faults(with(": b\r\n"), OriginFault::MalformedField);
    faults(with("A: b\r\n c\r\n"), OriginFault::FoldedField);
    faults(with("A: b\0\r\n"), OriginFault::ControlByte);
}

#[test]
fn a_head_has_64_kib_at_most() {
    let head = |bytes: usize| {
        let empty = with("Content-Length: 0\r\nX: \r\n").len();
        with(&format!("Content-Length: 0\r\nX: {}\r\n", "x".repeat(bytes - empty)))
    };
    assert_eq!(head(65_536).len(), 65_536);
    completes(GET, &head(65_536));
    faults(head(65_537), OriginFault::HeadTooLarge);
    faults(&head(70_000)[..65_536], OriginFault::HeadTooLarge);
    assert_eq!(reply(&head(70_000)[..65_535]), Ok(()));
}

#[test]
fn a_head_has_200_fields_at_most() {
    let fields = |count: usize| "A: b\r\n".repeat(count - 1) + "Content-Length: 0\r\n";
    completes(GET, &with(&fields(200)));
    faults(with(&fields(201)), OriginFault::TooManyFields);
}

#[test]
fn the_limits_can_be_set() {
    let limits = ReplyLimits { head: 50, fields: 2, interim: 0 };
    let send = |bytes: &[u8]| {
        let mut guard = ReplyGuard::new(limits);
        guard.on_request_bytes(GET).expect("a good request");
        guard.on_reply_bytes(bytes)
    };
    assert_eq!(send(&with("A: b\r\nC: d\r\n")), Ok(()));
    assert_eq!(send(&with("A: b\r\nC: d\r\nE: f\r\n")), Err(OriginFault::TooManyFields));
    assert_eq!(send(&with(&format!("A: {}\r\n", "b".repeat(40)))), Err(OriginFault::HeadTooLarge));
    assert_eq!(send(b"HTTP/1.1 100 Continue\r\n\r\n"), Err(OriginFault::TooManyInterim));
}

// ── length ──

#[test]
fn content_length_is_one_line_of_digits() {
    for value in ["", "+5", "5,5", "5, 5", "0x5", "5 5", "9223372036854775808"] {
        faults(with(&format!("Content-Length: {value}\r\n")), OriginFault::BadContentLength);
    }
    for second in ["5", "6"] {
        let fields = format!("Content-Length: 5\r\nContent-Length: {second}\r\n");
        faults(with(&fields), OriginFault::BadContentLength);
    }
}

#[test]
fn transfer_encoding_is_chunked() {
    for value in ["cow", "identity", "xchunked", "gzip, chunked"] {
        let fields = format!("Transfer-Encoding: {value}\r\n");
        faults(with(&fields), OriginFault::UnknownTransferCoding);
    }
    for value in ["", "chunked, identity", "chunked, chunked", "chunked;q=1", "\"chunked\""] {
        faults(with(&format!("Transfer-Encoding: {value}\r\n")), OriginFault::BadTransferEncoding);
    }
    let twice = "Transfer-Encoding: chunked\r\ntransfer-encoding: chunked\r\n";
    faults(with(twice), OriginFault::BadTransferEncoding);
}

#[test]
fn http_1_0_has_no_transfer_encoding() {
    let head = "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    faults(head, OriginFault::BadTransferEncoding);
}

#[test]
fn two_ways_to_tell_the_length_exclude_each_other() {
    let (length, coding) = ("Content-Length: 5\r\n", "Transfer-Encoding: chunked\r\n");
    faults(with(&[length, coding].concat()), OriginFault::AmbiguousLength);
    faults(with(&[coding, length].concat()), OriginFault::AmbiguousLength);
}

#[test]
fn a_chunked_body_is_checked_to_its_end() {
    let coding = "Transfer-Encoding: Chunked\r\n";
    completes(GET, &[&with(coding)[..], b"2;x\r\nok\r\n0\r\nA: b\r\n\r\n"].concat());
    let cut = [&with(coding)[..], b"2\r\nok\r\n\r\n"].concat();
    faults(cut, OriginFault::Chunk(ChunkFault::EmptySize));
}

#[test]
fn answers_to_head_and_some_statuses_have_no_body() {
    completes(HEAD, &with("Content-Length: 5\r\n"));
    completes(HEAD, &with("Transfer-Encoding: chunked\r\n"));
    completes(HEAD, &with(""));
    completes(GET, b"HTTP/1.1 204 No Content\r\n\r\n");
    completes(GET, b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n");
    completes(GET, b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n");
}

#[test]
fn bytes_behind_a_reply_are_a_fault() {
    let head = [&with("Content-Length: 5\r\n")[..], b"hello"].concat();
    assert_eq!(asked(HEAD).on_reply_bytes(&head), Err(OriginFault::Unasked));
    for status in ["204", "304"] {
        faults(format!("HTTP/1.1 {status} X\r\n\r\nhello"), OriginFault::Unasked);
    }
    let chunked = [&with("Transfer-Encoding: chunked\r\n")[..], b"0\r\n\r\n\r\n"].concat();
    faults(chunked, OriginFault::Unasked);
}

#[test]
fn bytes_beyond_an_announced_length_pass_once_and_end_the_connection() {
    let whole = [&with("Content-Length: 5\r\n")[..], b"hello"].concat();
    for surplus in [b"!", EMPTY] {
        let mut guard = asked(GET);
        assert_eq!(guard.on_reply_bytes(&[&whole, surplus].concat()), Ok(()));
        assert_eq!(guard.fault(), Some(OriginFault::Unasked), "no other request may follow");
        assert_eq!(guard.on_reply_bytes(b"!"), Err(OriginFault::Unasked));
        let mut guard = asked(GET);
        assert_eq!(guard.on_reply_bytes(&whole), Ok(()));
        assert_eq!(guard.on_reply_bytes(surplus), Err(OriginFault::Unasked));
    }
}

#[test]
fn bytes_between_a_reply_and_the_next_request_are_a_fault() {
    let mut guard = asked(GET);
    assert_eq!(guard.on_reply_bytes(EMPTY), Ok(()));
    assert_eq!(guard.on_reply_bytes(EMPTY), Err(OriginFault::Unasked));
    assert!(!guard.is_idle());
}

#[test]
fn bytes_before_the_first_request_are_a_fault() {
    assert_eq!(ReplyGuard::default().on_reply_bytes(EMPTY), Err(OriginFault::Unasked));
    let mut guard = ReplyGuard::default();
    assert_eq!(guard.on_request_bytes(&GET[..10]), Ok(()));
    assert_eq!(guard.on_reply_bytes(EMPTY), Err(OriginFault::Unasked));
}

#[test]
fn statuses_without_a_body_do_not_announce_one() {
    for status in ["100", "101", "103", "204"] {
        for fields in ["Content-Length: 5\r\n", "Transfer-Encoding: chunked\r\n"] {
            let head = format!("HTTP/1.1 {status} X\r\n{fields}\r\n");
            faults(head, OriginFault::UnexpectedBody);
        }
    }
}

// ── interim responses and tunnels ──

#[test]
fn interim_responses_come_before_the_final_one() {
    let early = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
    completes(GET, &[&early[..], EMPTY].concat());
}

#[test]
fn sixteen_interim_responses_are_enough() {
    let early = |count: usize| "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(count).into_bytes();
    completes(GET, &[&early(16)[..], EMPTY].concat());
    faults(early(17), OriginFault::TooManyInterim);
}

#[test]
fn interim_responses_are_counted_per_request() {
    let reply = ["HTTP/1.1 103 Early Hints\r\n\r\n".repeat(16).as_bytes(), EMPTY].concat();
    let mut guard = ReplyGuard::default();
    for _ in 0..3 {
        assert_eq!(guard.on_request_bytes(GET), Ok(()));
        assert_eq!(guard.on_reply_bytes(&reply), Ok(()));
    }
}

#[test]
fn a_switch_that_was_asked_for_opens_a_tunnel() {
    let mut guard = asked(WEBSOCKET);
    assert_eq!(guard.on_reply_bytes(&[SWITCHED, b"\x81\x05hello"].concat()), Ok(()));
    assert!(guard.is_tunnel() && !guard.is_idle());
    assert_eq!(guard.on_request_bytes(b"\x88\x00anything"), Ok(()));
    assert_eq!(guard.on_reply_bytes(b"\0\n\r"), Ok(()));
    assert_eq!(guard.on_eof(), Ok(()));
}

#[test]
fn a_switch_that_nobody_asked_for_is_a_fault() {
    faults(SWITCHED, OriginFault::UnaskedUpgrade);
    let h2c = b"GET / HTTP/1.1\r\nHost: e\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n";
    assert_eq!(asked(h2c).on_reply_bytes(SWITCHED), Err(OriginFault::UnaskedUpgrade));
}

#[test]
fn a_switch_names_the_protocol_and_speaks_http_1_1() {
    let heads = [
        "HTTP/1.1 101 X\r\n\r\n",
        "HTTP/1.1 101 X\r\nUpgrade: h2c\r\n\r\n",
        "HTTP/1.0 101 X\r\nUpgrade: websocket\r\n\r\n",
    ];
    for head in heads {
        let outcome = asked(WEBSOCKET).on_reply_bytes(head.as_bytes());
        assert_eq!(outcome, Err(OriginFault::BadUpgrade), "{head:?}");
    }
}

#[test]
fn a_refused_upgrade_is_an_ordinary_reply() {
    completes(WEBSOCKET, b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno");
}

#[test]
fn nothing_goes_through_a_tunnel_before_it_is_open() {
    let mut guard = asked(WEBSOCKET);
    assert_eq!(guard.on_request_bytes(b"\x81"), Err(OriginFault::RequestOverrun));
}

// ── the end of the connection ──

#[test]
fn an_end_before_the_reply_can_be_told_from_one_within() {
    let cases: [(&[u8], OriginFault); 6] = [
        (b"", OriginFault::ClosedBeforeReply),
        (b"H", OriginFault::TruncatedHead),
        (b"HTTP/1.1 200 OK\r\n", OriginFault::TruncatedHead),
        (b"HTTP/1.1 100 Continue\r\n\r\n", OriginFault::TruncatedHead),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no", OriginFault::TruncatedBody),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", OriginFault::TruncatedBody),
    ];
    for (bytes, fault) in cases {
        let mut guard = asked(GET);
        assert_eq!(guard.on_reply_bytes(bytes), Ok(()));
        assert_eq!(guard.on_eof(), Err(fault), "{}", String::from_utf8_lossy(bytes));
        assert_eq!(guard.fault(), Some(fault));
    }
}

#[test]
fn a_reply_without_a_length_lasts_until_the_connection_ends() {
    let mut guard = asked(GET);
    assert_eq!(guard.on_reply_bytes(&[&with("")[..], b"hello"].concat()), Ok(()));
    assert!(!guard.is_idle());
    assert_eq!(guard.on_eof(), Ok(()));
    assert!(!guard.is_idle(), "the connection is gone");
    assert_eq!(guard.on_reply_bytes(b"x"), Err(OriginFault::Unasked));
}

#[test]
fn an_idle_connection_may_end() {
    assert_eq!(ReplyGuard::default().on_eof(), Ok(()));
}

// ── requests ──

#[test]
fn a_connection_serves_one_request_after_another() {
    let mut guard = ReplyGuard::default();
    assert!(guard.is_idle());
    for request in [GET, HEAD, GET, WEBSOCKET] {
        assert_eq!(guard.on_request_bytes(request), Ok(()));
        assert!(!guard.is_idle());
        assert_eq!(guard.on_reply_bytes(EMPTY), Ok(()));
        assert!(guard.is_idle());
    }
}

#[test]
fn a_request_body_is_followed_to_its_end() {
    let heads = ["Content-Length: 11\r\n", "Transfer-Encoding: chunked\r\n"];
    let bodies = [&b"GET / HTTP/"[..], b"1\r\na\r\n0\r\n\r\n"];
    for (fields, body) in heads.iter().zip(bodies) {
        let mut guard = ReplyGuard::default();
        let head = format!("POST / HTTP/1.1\r\nHost: e\r\n{fields}\r\n");
        assert_eq!(guard.on_request_bytes(head.as_bytes()), Ok(()));
        assert_eq!(guard.on_request_bytes(body), Ok(()));
        assert_eq!(guard.on_reply_bytes(EMPTY), Ok(()));
        assert!(guard.is_idle());
    }
}

#[test]
fn a_connection_is_not_idle_while_its_request_is_still_being_sent() {
    let mut guard = asked(b"POST / HTTP/1.1\r\nHost: e\r\nContent-Length: 2\r\n\r\na");
    let early = b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(guard.on_reply_bytes(early), Ok(()));
    assert!(!guard.is_idle());
    assert_eq!(guard.on_request_bytes(b"b"), Ok(()));
    assert!(guard.is_idle());
}

#[test]
fn a_request_does_not_outgrow_its_length() {
    let mut guard = asked(b"POST / HTTP/1.1\r\nHost: e\r\nContent-Length: 2\r\n\r\n");
    assert_eq!(guard.on_request_bytes(b"abc"), Err(OriginFault::RequestOverrun));
    let mut guard = ReplyGuard::default();
    assert_eq!(guard.on_request_bytes(&[GET, GET].concat()), Err(OriginFault::RequestOverrun));
}

#[test]
fn what_we_send_is_held_to_the_same_rules() {
    let cases: [(&[u8], Refusal); 4] = [
        (b"GET / HTTP/1.1\r\n\r\n", Refusal::MissingHost),
        (b"GET / HTTP/1.1\r\nHost: e\r\nA: b\nC: d\r\n\r\n", Refusal::BareLineFeed),
        (b"CONNECT e:1 HTTP/1.1\r\nHost: e\r\n\r\n", Refusal::MethodNotAllowed),
        (b"POST / HTTP/1.1\r\nHost: e\r\nTransfer-Encoding: chunked\r\n\r\nz", Refusal::BadChunk),
    ];
    for (request, refusal) in cases {
        let outcome = ReplyGuard::default().on_request_bytes(request);
        assert_eq!(outcome, Err(OriginFault::OwnRequest(refusal)));
    }
}

#[test]
fn a_connection_of_http_2_is_let_alone() {
    let mut guard = asked(&[&PREFACE[..], b"\0\0\0\x04"].concat());
    assert_eq!(guard.on_reply_bytes(b"\0\0\0\x04\0\0\0\0\0"), Ok(()));
    assert!(guard.is_tunnel());
}

#[test]
fn a_fault_is_final() {
    let mut guard = asked(GET);
    let fault = Err(OriginFault::MalformedStatusLine);
    assert_eq!(guard.on_reply_bytes(b"x"), fault);
    assert_eq!(guard.on_reply_bytes(EMPTY), fault);
    assert_eq!(guard.on_request_bytes(GET), fault);
    assert_eq!(guard.on_eof(), fault);
    assert!(!guard.is_idle() && !guard.is_tunnel());
}

// ── every input ──

/// Replies, of which some are broken.
fn replies() -> impl Strategy<Value = Vec<u8>> {
    let piece = proptest::sample::select(vec![
        "HTTP/1.1 200 OK\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.0 200 OK\r\n\r\nuntil close",
        "HTTP/1.1 100 Continue\r\n\r\n",
        "HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n",
        "HTTP/1.1 204 No Content\r\n",
        "Content-Length: 3\r\n",
        "X: y\r\n",
        "\r\n",
        "3\r\nabc\r\n",
        "0\r\n\r\n",
        "0\r\nA: b\r\n\r\n",
        " \n",
        "abc",
    ]);
    proptest::collection::vec(piece, 0..7).prop_map(|pieces| pieces.concat().into_bytes())
}

/// What the guard says at the end, when the input comes cut before each of these positions.
fn outcome(request: &[u8], input: &[u8], cuts: &[usize]) -> (Option<OriginFault>, bool, bool) {
    let mut cuts: Vec<_> = cuts.iter().map(|cut| cut % (input.len() + 1)).collect();
    cuts.push(input.len());
    cuts.sort_unstable();
    let mut guard = asked(request);
    let mut from = 0;
    for to in cuts {
        let _ = guard.on_reply_bytes(&input[from..to]);
        from = to;
    }
    let (idle, tunnel) = (guard.is_idle(), guard.is_tunnel());
    let _ = guard.on_eof();
    (guard.fault(), idle, tunnel)
}

fn requests() -> impl Strategy<Value = &'static [u8]> {
    proptest::sample::select(vec![GET, HEAD, WEBSOCKET])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn where_the_reply_is_cut_makes_no_difference(
        request in requests(),
        input in replies(),
        cuts in proptest::collection::vec(any::<usize>(), 0..12),
    ) {
        prop_assert_eq!(outcome(request, &input, &cuts), outcome(request, &input, &[]));
        let every: Vec<_> = (0..input.len()).collect();
        prop_assert_eq!(outcome(request, &input, &every), outcome(request, &input, &[]));
    }

    #[test]
    fn where_the_request_is_cut_makes_no_difference(
        cuts in proptest::collection::vec(any::<usize>(), 0..6),
        overrun in any::<bool>(),
    ) {
        let mut input = b"POST / HTTP/1.1\r\nHost: e\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        input.extend_from_slice(b"3\r\nabc\r\n0\r\n\r\n");
        input.extend_from_slice(if overrun { b"x" } else { b"" });
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut % (input.len() + 1)).collect();
        cuts.push(input.len());
        cuts.sort_unstable();
        let mut guard = ReplyGuard::default();
        let mut from = 0;
        for to in cuts {
            let _ = guard.on_request_bytes(&input[from..to]);
            from = to;
        }
        prop_assert_eq!(guard.fault(), overrun.then_some(OriginFault::RequestOverrun));
        let _ = guard.on_reply_bytes(EMPTY);
        prop_assert_eq!(guard.is_idle(), !overrun);
    }

    #[test]
    fn no_bytes_make_the_guard_panic(
        request in proptest::collection::vec(any::<u8>(), 0..60),
        input in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let mut guard = ReplyGuard::default();
        let _ = guard.on_request_bytes(&request);
        let _ = guard.on_reply_bytes(&input);
        let mut guard = asked(GET);
        let _ = guard.on_reply_bytes(&[&b"HTTP/1.1 2"[..], &input].concat());
        prop_assert!(!guard.is_idle(), "random bytes are not a whole reply");
    }
}

#[test]
fn what_is_under_way_is_told() {
    let mut guard = ReplyGuard::default();
    guard.on_request_bytes(b"POST / HTTP/1.1\r\nHost: e\r\nContent-Length: 2\r\n\r\na").unwrap();
    assert!(guard.awaits_body() && !guard.is_in_head());
    guard.on_request_bytes(b"b").unwrap();
    assert!(!guard.awaits_body() && !guard.is_in_head());
    guard.on_reply_bytes(b"HTTP/1.1 100 Continue\r\n").unwrap();
    assert!(guard.is_in_head());
    guard.on_reply_bytes(b"\r\n").unwrap();
    assert!(!guard.is_in_head(), "the next head is due, and has not begun");
    guard.on_reply_bytes(b"HTTP/1.1 200 OK\r\n").unwrap();
    assert!(guard.is_in_head());
    guard.on_reply_bytes(b"Content-Length: 1\r\n\r\n").unwrap();
    assert!(!guard.is_in_head());
}

// ── what comes afterwards ──

#[test]
fn a_connection_persists_unless_its_origin_or_its_version_says_otherwise() {
    let after = |reply: &str| {
        let mut guard = asked(GET);
        guard.on_reply_bytes(reply.as_bytes()).expect("a good reply");
        assert!(guard.is_idle());
        guard.afterwards()
    };
    let stays =
        |seconds: Option<u64>| Afterwards::Persists { patience: seconds.map(Duration::from_secs) };
    for (version, fields, expected) in [
        ("1.1", "", stays(None)),
        ("1.1", "Connection: keep-alive\r\n", stays(None)),
        ("1.1", "Connection: close\r\n", Afterwards::Closes),
        ("1.1", "connection: foo, CLOSE\r\n", Afterwards::Closes),
        ("1.1", "Connection: keep-alive\r\nConnection: close\r\n", Afterwards::Closes),
        ("1.1", "Connection: closed\r\n", stays(None)),
        ("1.0", "", Afterwards::Closes),
        ("1.0", "Connection: Keep-Alive\r\n", stays(None)),
        ("1.0", "Connection: close, keep-alive\r\n", Afterwards::Closes),
        ("1.1", "Keep-Alive: timeout=5, max=100\r\n", stays(Some(5))),
        ("1.1", "Keep-Alive: max=100 , Timeout = 7\r\n", stays(Some(7))),
        ("1.1", "Keep-Alive: timeout=soon\r\n", stays(None)),
        ("1.1", "Keep-Alive: timeout=-1\r\n", stays(None)),
    ] {
        let reply = format!("HTTP/{version} 200 OK\r\nContent-Length: 0\r\n{fields}\r\n");
        assert_eq!(after(&reply), expected, "{reply}");
    }
}

#[test]
fn what_an_interim_reply_says_of_the_connection_does_not_count() {
    let mut guard = asked(GET);
    let interim = "HTTP/1.1 103 Early Hints\r\nConnection: close\r\n\r\n";
    guard.on_reply_bytes(interim.as_bytes()).expect("a good interim reply");
    guard.on_reply_bytes(EMPTY).expect("a good reply");
    assert_eq!(guard.afterwards(), Afterwards::Persists { patience: None });
}
