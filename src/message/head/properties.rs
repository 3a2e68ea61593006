//! What holds for every input: no panic, no difference by where it is cut, and a fixed point of
//! reading and writing.

use proptest::prelude::*;

use super::*;

/// Small limits, so that random heads reach them.
const LIMITS: HeadLimits = HeadLimits { bytes: 300, fields: 8, target: 40 };

fn whole(input: &[u8]) -> Scan {
    HeadScanner::default().scan(input, &LIMITS)
}

/// The outcome when the buffer grows to each of these lengths in turn.
fn in_pieces(input: &[u8], cuts: &[usize]) -> Scan {
    let mut lengths: Vec<_> = cuts.iter().map(|cut| cut % (input.len() + 1)).collect();
    lengths.push(input.len());
    lengths.sort_unstable();
    let mut scanner = HeadScanner::default();
    for length in lengths {
        match scanner.scan(&input[..length], &LIMITS) {
            Scan::NeedMore => {}
            outcome => return outcome,
        }
    }
    Scan::NeedMore
}

/// The first lines of requests, most of them good.
fn lines() -> impl Strategy<Value = String> {
    let methods = proptest::sample::select(vec!["GET", "GET", "POST", "PRI", "\r\nPUT", "G(T", ""]);
    let targets = proptest::sample::select(vec!["/", "/a?b", "*", "http://h/x", "/<", "", "/a b"]);
    let versions =
        proptest::sample::select(vec!["HTTP/1.1", "HTTP/1.1", "HTTP/1.0", "HTTP/2.0", "HTTP/1"]);
    (methods, targets, versions)
        .prop_map(|(method, target, version)| format!("{method} {target} {version}\r\n"))
}

/// Field lines, most of them good, many of them of the parser's own concern.
fn fields() -> impl Strategy<Value = String> {
    proptest::sample::select(vec![
        "Host: e\r\n",
        "Host: e\r\n",
        "Accept: \t*/* \r\n",
        "X:\r\n",
        "X-Hop: v\r\n",
        "Content-Length: 12\r\n",
        "Content-Length: 1,2\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Connection: close\r\n",
        "Connection: keep-alive, X-Hop\r\n",
        "Connection: upgrade\r\n",
        "Upgrade: websocket\r\n",
        "Upgrade: h2c\r\n",
        "HTTP2-Settings: x\r\n",
        "TE: trailers\r\n",
        "Trailer: X\r\n",
        "Expect: 100-continue\r\n",
        "Keep-Alive: 5\r\n",
        " folded\r\n",
        "bare\n",
        "A : b\r\n",
    ])
    .prop_map(str::to_owned)
}

fn heads() -> impl Strategy<Value = Vec<u8>> {
    let noise = proptest::collection::vec(any::<u8>(), 0..4);
    let spot = any::<proptest::sample::Index>();
    (lines(), proptest::collection::vec(fields(), 0..10), noise, spot, any::<bool>()).prop_map(
        |(line, fields, noise, spot, noisy)| {
            let mut head = format!("{line}{}\r\n", fields.concat()).into_bytes();
            if noisy {
                let at = spot.index(head.len());
                head.splice(at..at, noise);
            }
            head
        },
    )
}

/// Heads that are good by construction.
fn good_heads() -> impl Strategy<Value = Vec<u8>> {
    let own = proptest::sample::select(vec![
        "",
        "Content-Length: 012\r\n",
        "Transfer-Encoding: Chunked\r\nExpect: 100-continue\r\n",
        "Upgrade: websocket\r\nConnection: Upgrade\r\n",
        "Upgrade: websocket\r\nConnection: Upgrade, close\r\n",
        "Upgrade: h2c\r\nConnection: upgrade, HTTP2-Settings\r\nHTTP2-Settings: x\r\n",
        "Connection: close, X-Hop\r\nTE: trailers, deflate\r\nX-Hop: y\r\n",
        "Connection: keep-alive\r\nTrailer: X\r\n",
    ]);
    let plain = proptest::collection::vec(("X-[a-z!~]{1,9}", "[ -~\t]{0,20}"), 0..3);
    (own, plain, any::<bool>()).prop_map(|(own, plain, old)| {
        let chunked = own.starts_with("Transfer");
        let version = if old && !chunked { "HTTP/1.0" } else { "HTTP/1.1" };
        let plain: String =
            plain.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        format!("GET /a?b {version}\r\nHost: e\r\n{own}{plain}\r\n").into_bytes()
    })
}

/// The parts of a head that canonical form must not change.
fn model(head: &RequestHead) -> impl PartialEq + std::fmt::Debug + use<> {
    let upgrade = if head.upgrade == Upgrade::Ignored { Upgrade::None } else { head.upgrade };
    let connection = (head.keep_alive, head.expects_continue, upgrade, head.accepts_trailers);
    (head.method.clone(), head.version, head.body, connection)
}

/// Its fields for other hops.
fn passed_on(buf: &[u8], head: &RequestHead) -> Vec<(Vec<u8>, Vec<u8>)> {
    head.fields
        .0
        .iter()
        .filter(|field| field.kind == FieldKind::Plain)
        .map(|field| (field.name.of(buf).to_vec(), field.value.of(buf).to_vec()))
        .filter(|(name, _)| !head.nominates(name))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Lines are read in blocks where so much follows, and byte by byte at the end of what is there.
    #[test]
    fn what_follows_a_head_makes_no_difference(
        head in prop_oneof![heads(), good_heads()],
        behind in proptest::collection::vec(any::<u8>(), 16..40),
    ) {
        let scan = whole(&head);
        if scan != Scan::NeedMore {
            prop_assert_eq!(whole(&[head, behind].concat()), scan);
        }
    }

    #[test]
    fn no_bytes_make_the_scanner_panic(
        input in proptest::collection::vec(any::<u8>(), 0..400),
        cuts in proptest::collection::vec(any::<usize>(), 0..4),
    ) {
        prop_assert_eq!(in_pieces(&input, &cuts), whole(&input));
    }

    #[test]
    fn where_the_input_is_cut_makes_no_difference(
        input in heads(),
        cuts in proptest::collection::vec(any::<usize>(), 0..12),
    ) {
        prop_assert_eq!(in_pieces(&input, &cuts), whole(&input));
    }

    #[test]
    fn byte_by_byte_makes_no_difference(input in heads()) {
        let every: Vec<_> = (0..input.len()).collect();
        prop_assert_eq!(in_pieces(&input, &every), whole(&input));
    }

    #[test]
    fn what_is_written_is_read_as_the_same_request(input in good_heads()) {
        let limits = HeadLimits::default();
        let scan = HeadScanner::default().scan(&input, &limits);
        let Scan::Head(first) = scan else { return Err(TestCaseError::fail(format!("{scan:?}"))) };
        let written = canonical(&input, &first, Some("e"), first.target(&input));
        let scan = HeadScanner::default().scan(&written, &limits);
        let Scan::Head(second) = scan else { return Err(TestCaseError::fail(format!("{scan:?}"))) };
        prop_assert_eq!(second.len, written.len());
        prop_assert_eq!(model(&second), model(&first));
        prop_assert_eq!(second.target(&written), first.target(&input));
        prop_assert_eq!(second.host(&written), Some(&b"e"[..]));
        prop_assert_eq!(passed_on(&written, &second), passed_on(&input, &first));
        prop_assert_eq!(canonical(&written, &second, Some("e"), second.target(&written)), written);
    }

    #[test]
    fn whatever_is_accepted_can_be_written_and_accepted_again(input in heads()) {
        let limits = HeadLimits::default();
        let scan = HeadScanner::default().scan(&input, &limits);
        let Scan::Head(head) = scan else { return Ok(()) };
        let written = canonical(&input, &head, Some("e"), head.target(&input));
        let again = HeadScanner::default().scan(&written, &limits);
        prop_assert!(matches!(again, Scan::Head(_)), "{:?}", again);
    }
}
