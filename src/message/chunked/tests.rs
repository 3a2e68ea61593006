use proptest::prelude::*;

use super::*;

/// The whole input in one piece.
fn whole(input: &[u8]) -> Result<(usize, bool, u64), ChunkFault> {
    let mut scanner = ChunkScanner::default();
    let fed = scanner.feed(input)?;
    Ok((fed.consumed, fed.done, scanner.data_bytes()))
}

/// The same input cut before each of these positions.
fn in_pieces(input: &[u8], cuts: &[usize]) -> Result<(usize, bool, u64), ChunkFault> {
    let mut scanner = ChunkScanner::default();
    let mut cuts: Vec<_> = cuts.iter().map(|cut| cut % (input.len() + 1)).collect();
    cuts.push(input.len());
    cuts.sort_unstable();
    let (mut from, mut consumed) = (0, 0);
    for to in cuts {
        consumed += scanner.feed(&input[from..to])?.consumed;
        from = to;
    }
    Ok((consumed, scanner.is_done(), scanner.data_bytes()))
}

fn fault(input: &[u8]) -> ChunkFault {
    let found = whole(input).expect_err("a fault");
    let every: Vec<_> = (0..input.len()).collect();
    assert_eq!(in_pieces(input, &every), Err(found), "byte by byte");
    found
}

#[test]
fn a_body_ends_behind_the_last_chunk_and_the_empty_trailer_section() {
    assert_eq!(whole(b"5\r\nhello\r\n0\r\n\r\nGET"), Ok((15, true, 5)));
    assert_eq!(whole(b"0\r\n\r\n"), Ok((5, true, 0)));
    assert_eq!(whole(b"000\r\n\r\n"), Ok((7, true, 0)));
}

#[test]
fn a_body_without_its_last_bytes_is_not_done() {
    let body = b"A;x=\"y\"\r\n0123456789\r\n0\r\nGrpc-Status: 0\r\n\r\n";
    for cut in 0..body.len() {
        assert_eq!(whole(&body[..cut]).map(|(at, done, _)| (at, done)), Ok((cut, false)));
    }
    assert_eq!(whole(body), Ok((body.len(), true, 10)));
}

#[test]
fn both_letter_cases_of_hexadecimal_digits_count() {
    for size in ["1f", "1F"] {
        let body = format!("{size}\r\n{}\r\n0\r\n\r\n", "x".repeat(31));
        assert_eq!(whole(body.as_bytes()), Ok((body.len(), true, 31)));
    }
}

#[test]
fn an_empty_size_is_not_zero() {
    for body in ["\r\n", ";x\r\n", " \r\n", "\t0\r\n", "1\r\na\r\n\r\n\r\n"] {
        assert_eq!(fault(body.as_bytes()), ChunkFault::EmptySize, "{body:?}");
    }
}

#[test]
fn a_size_is_hexadecimal_digits_alone() {
    for body in ["0x5\r\n", "+5\r\n", "-1\r\n", "5_0\r\n", "g\r\n", "5,\r\n", "\x005\r\n", "5 \r\n"]
    {
        assert_eq!(fault(body.as_bytes()), ChunkFault::BadSize, "{body:?}");
    }
}

#[test]
fn a_size_has_sixteen_digits_at_most() {
    assert_eq!(fault(b"00000000000000000\r\n"), ChunkFault::SizeTooLarge);
    assert_eq!(whole(b"0000000000000000\r\n\r\n"), Ok((20, true, 0)));
}

#[test]
fn a_size_fits_a_signed_number() {
    assert_eq!(whole(b"7fffffffffffffff\r\nx"), Ok((19, false, 1)));
    assert_eq!(fault(b"8000000000000000\r\n"), ChunkFault::SizeTooLarge);
    assert_eq!(fault(b"ffffffffffffffff\r\n"), ChunkFault::SizeTooLarge);
}

#[test]
fn every_line_ends_in_crlf() {
    for body in ["5\nhello\r\n", "5\r0", "5;x\n", "5 \n", "0\r\n\n", "0\r\n\rX", "0\r\nA: b\n"] {
        assert_eq!(fault(body.as_bytes()), ChunkFault::BareLineFeed, "{body:?}");
    }
}

#[test]
fn data_is_followed_by_crlf() {
    for body in ["1\r\nab\r\n", "1\r\na\n", "1\r\na\r\r", "1\r\na0\r\n\r\n"] {
        assert_eq!(fault(body.as_bytes()), ChunkFault::UnterminatedData, "{body:?}");
    }
}

#[test]
fn an_extension_has_256_bytes_at_most() {
    let with = |length: usize| format!("1;{}\r\na\r\n0\r\n\r\n", "x".repeat(length - 1));
    assert_eq!(whole(with(256).as_bytes()).map(|(_, done, _)| done), Ok(true));
    assert_eq!(fault(with(257).as_bytes()), ChunkFault::ExtensionTooLong);
}

#[test]
fn extensions_in_all_may_not_outweigh_the_body() {
    let small = format!("1;{}\r\na\r\n", "x".repeat(200)).repeat(100);
    assert_eq!(fault(small.as_bytes()), ChunkFault::ExtensionTooLong);
    let large = format!("ff;{}\r\n{}\r\n", "x".repeat(200), "a".repeat(255)).repeat(100);
    assert_eq!(whole(large.as_bytes()), Ok((large.len(), false, 25_500)));
}

#[test]
fn an_extension_holds_no_control_byte() {
    for body in ["1;a\0\r\n", "1;a\x7f\r\n", "1;\x0b\r\n"] {
        assert_eq!(fault(body.as_bytes()), ChunkFault::ExtensionControl, "{body:?}");
    }
    // A CR that no LF follows is the end of a line for some.
    assert_eq!(fault(b"1;a\rb\r\n"), ChunkFault::BareLineFeed);
}

#[test]
fn trailers_are_counted_to_the_body() {
    let body = b"0\r\nGrpc-Status: 0\r\nX-Checksum: abc\r\n\r\nrest";
    assert_eq!(whole(body), Ok((body.len() - 4, true, 0)));
}

#[test]
fn a_trailer_section_has_8_kib_at_most() {
    let with = |bytes: usize| format!("0\r\nA: {}\r\n\r\n", "x".repeat(bytes - 7));
    assert_eq!(whole(with(8192).as_bytes()), Ok((8192 + 3, true, 0)));
    assert_eq!(fault(with(8193).as_bytes()), ChunkFault::TrailersTooLarge);
}

#[test]
fn a_trailer_section_has_64_fields_at_most() {
    let with = |count: usize| format!("0\r\n{}\r\n", "A: b\r\n".repeat(count));
    assert!(whole(with(64).as_bytes()).is_ok_and(|(_, done, _)| done));
    assert_eq!(fault(with(65).as_bytes()), ChunkFault::TrailersTooLarge);
}

#[test]
fn a_trailer_is_a_field_line() {
    for body in ["0\r\n: b\r\n", "0\r\nA : b\r\n", "0\r\nA\r\n", "0\r\n b\r\n", "0\r\nA: \0\r\n"] {
        assert_eq!(fault(body.as_bytes()), ChunkFault::MalformedTrailer, "{body:?}");
    }
}

#[test]
fn a_trailer_does_not_frame_route_or_authenticate() {
    for name in ["Content-Length", "transfer-encoding", "HOST", "Authorization", "If-Match"] {
        let body = format!("0\r\n{name}: 1\r\n\r\n");
        assert_eq!(fault(body.as_bytes()), ChunkFault::ForbiddenTrailer, "{name}");
    }
}

#[test]
fn a_trailer_of_an_answer_that_must_be_none_is_passed_over_and_a_malformed_one_is_not() {
    let fed = |body: &[u8]| BodyScanner::of(Of::Answer, BodyFraming::Chunked).feed(body);
    for name in ["Cache-Control", "Content-Type", "Set-Cookie", "Vary", "Host"] {
        let body = format!("1\r\na\r\n0\r\n{name}: 1\r\n\r\nrest");
        let length = body.len() - 4;
        assert_eq!(fed(body.as_bytes()), Ok(Fed { consumed: length, done: true }), "{name}");
    }
    for name in ["Content-Length", "transfer-encoding"] {
        let body = format!("0\r\n{name}: 1\r\n\r\n");
        assert_eq!(fed(body.as_bytes()), Err(ChunkFault::ForbiddenTrailer), "{name}");
    }
    assert_eq!(fed(b"0\r\nCache Control: 1\r\n\r\n"), Err(ChunkFault::MalformedTrailer));
}

#[test]
fn a_fault_is_final() {
    let mut scanner = ChunkScanner::default();
    assert_eq!(scanner.feed(b"z"), Err(ChunkFault::BadSize));
    assert_eq!(scanner.feed(b"0\r\n\r\n"), Err(ChunkFault::BadSize));
    assert_eq!(scanner.feed(b""), Err(ChunkFault::BadSize));
}

#[test]
fn nothing_is_consumed_behind_the_end() {
    let mut scanner = ChunkScanner::default();
    assert_eq!(scanner.feed(b"0\r\n\r\n"), Ok(Fed { consumed: 5, done: true }));
    assert_eq!(scanner.feed(b"0\r\n\r\n"), Ok(Fed { consumed: 0, done: true }));
}

#[test]
fn a_body_of_known_length_ends_with_its_last_byte() {
    let mut body = BodyScanner::new(BodyFraming::Length(5));
    assert_eq!(body.feed(b"hell"), Ok(Fed { consumed: 4, done: false }));
    assert_eq!((body.remaining(), body.at_end(), body.may_close()), (Some(1), false, false));
    assert_eq!(body.feed(b"o!"), Ok(Fed { consumed: 1, done: true }));
    assert_eq!((body.remaining(), body.at_end(), body.body_bytes()), (Some(0), true, 5));
}

#[test]
fn no_body_and_an_empty_body_are_at_their_end() {
    for framing in [BodyFraming::None, BodyFraming::Length(0)] {
        let mut body = BodyScanner::new(framing);
        assert!(body.at_end());
        assert_eq!(body.feed(b"x"), Ok(Fed { consumed: 0, done: true }));
    }
}

#[test]
fn a_body_until_close_and_a_tunnel_may_close_at_any_time() {
    for framing in [BodyFraming::UntilClose, BodyFraming::Tunnel] {
        let mut body = BodyScanner::new(framing);
        assert_eq!(body.feed(b"abc"), Ok(Fed { consumed: 3, done: false }));
        assert_eq!((body.at_end(), body.may_close(), body.remaining()), (false, true, None));
        assert_eq!(body.body_bytes(), 3);
    }
}

#[test]
fn a_chunked_body_counts_its_data_alone() {
    let mut body = BodyScanner::new(BodyFraming::Chunked);
    assert_eq!(body.feed(b"3\r\nabc\r\n"), Ok(Fed { consumed: 8, done: false }));
    assert_eq!((body.body_bytes(), body.remaining(), body.may_close()), (3, None, false));
    assert_eq!(body.feed(b"0\r\n\r\n"), Ok(Fed { consumed: 5, done: true }));
    assert_eq!((body.body_bytes(), body.remaining(), body.at_end()), (3, Some(0), true));
}

#[test]
fn labels_are_unique() {
    let all = [
        ChunkFault::EmptySize,
        ChunkFault::BadSize,
        ChunkFault::SizeTooLarge,
        ChunkFault::BareLineFeed,
        ChunkFault::ExtensionTooLong,
        ChunkFault::ExtensionControl,
        ChunkFault::UnterminatedData,
        ChunkFault::TrailersTooLarge,
        ChunkFault::MalformedTrailer,
        ChunkFault::ForbiddenTrailer,
    ];
    let labels: std::collections::HashSet<_> = all.iter().map(|fault| fault.label()).collect();
    assert_eq!(labels.len(), all.len());
}

/// Chunked bodies, of which some are broken.
fn bodies() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        8 => (0_usize..40).prop_map(|n| format!("{n:x}\r\n{}\r\n", "d".repeat(n)).into_bytes()),
        2 => (1_usize..9).prop_map(|n| format!("{n:X};e=\"v\"\r\n{}\r\n", "d".repeat(n)).into()),
        2 => Just(b"0\r\n\r\n".to_vec()),
        2 => Just(b"0\r\nA: b\r\nC: \t d \r\n\r\n".to_vec()),
        1 => proptest::collection::vec(any::<u8>(), 0..8),
        1 => proptest::collection::vec(proptest::sample::select(&b"0aF;\r\n: \t\x00"[..]), 0..12),
    ];
    proptest::collection::vec(piece, 0..6).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn where_the_input_is_cut_makes_no_difference(
        body in bodies(),
        cuts in proptest::collection::vec(any::<usize>(), 0..12),
    ) {
        prop_assert_eq!(in_pieces(&body, &cuts), whole(&body));
    }

    #[test]
    fn what_an_encoder_writes_is_measured_exactly(
        chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..300), 0..8),
    ) {
        let mut body = Vec::new();
        for chunk in &chunks {
            body.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
            body.extend_from_slice(chunk);
            body.extend_from_slice(b"\r\n");
        }
        body.extend_from_slice(b"0\r\n\r\n");
        let data: usize = chunks.iter().map(Vec::len).sum();
        prop_assert_eq!(whole(&body), Ok((body.len(), true, data as u64)));
    }
}
