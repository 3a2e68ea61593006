//! What the layer that speaks HTTP/2 ends by itself, as told by what it writes.
//!
//! That layer answers malformed requests and broken rules before anybody here hears of them. What it
//! sends then is seen by the connection: a reset or a GOAWAY with an error, or a response that is nothing
//! but its status, which is 431 (for a header list far beyond what `admit` refuses). Our own responses
//! have more fields, and our own resets have reasons of their own. The room that it gives to bodies is seen on the way.

use crate::refusal::Refusal;

/// The length of a frame's header (RFC 9113 §4.1).
const HEADER: usize = 9;
/// The longest header block that is looked at.
const SHORT: usize = 8;

const DATA: u8 = 0x0;
const HEADERS: u8 = 0x1;
const RST_STREAM: u8 = 0x3;
const GOAWAY: u8 = 0x7;
const WINDOW_UPDATE: u8 = 0x8;
const END_STREAM: u8 = 0x1;

// Of the codes in RFC 9113 §7, those that are not all alike here.
const NO_ERROR: u32 = 0x0;
const INTERNAL_ERROR: u32 = 0x2;
const REFUSED_STREAM: u32 = 0x7;
const CANCEL: u32 = 0x8;
const ENHANCE_YOUR_CALM: u32 = 0xb;

/// A stream or a connection was ended because of what the client sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct End {
    /// Why.
    pub(super) refusal: Refusal,
    /// What the client was told, if that was a response.
    pub(super) status: Option<u16>,
}

/// Finds them as the bytes of one connection pass.
#[derive(Debug)]
pub(super) struct Ends {
    /// What is still to come of a frame that was looked at.
    skip: usize,
    /// A frame as far as it is looked at.
    frame: [u8; HEADER + SHORT],
    have: usize,
    /// Streams whose response is begun: what may still be short is their trailers.
    begun: Vec<u32>,
    /// The stream that was last answered by nothing but a status; a reset may follow.
    answered: u32,
    /// What the client was given room for on its connection, and was not asked for yet.
    room: u64,
}

impl Ends {
    /// At the start of a connection.
    pub(super) fn new() -> Self {
        Self {
            skip: 0,
            frame: [0; HEADER + SHORT],
            have: 0,
            begun: Vec::new(),
            answered: 0,
            room: 0,
        }
    }

    /// These bytes went to the client: tells of each end among them.
    pub(super) fn went(&mut self, mut bytes: &[u8], mut tell: impl FnMut(End)) {
        while !bytes.is_empty() {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            let taken = (self.wanted() - self.have).min(bytes.len());
            self.frame[self.have..self.have + taken].copy_from_slice(&bytes[..taken]);
            self.have += taken;
            bytes = &bytes[taken..];
            if self.have >= HEADER && self.have == self.wanted() {
                self.skip = HEADER + self.length() - self.have;
                if let Some(end) = self.judge() {
                    tell(end);
                }
                self.have = 0;
            }
        }
    }

    /// How many more bytes of bodies the client was allowed on its connection since this was asked last.
    pub(super) fn take_room(&mut self) -> u64 {
        std::mem::take(&mut self.room)
    }

    /// The client gave a stream up.
    pub(super) fn given_up(&mut self, stream: u32) {
        if let Some(at) = self.begun.iter().rposition(|begun| *begun == stream) {
            self.begun.swap_remove(at);
        }
    }

    /// The length of the frame's payload.
    fn length(&self) -> usize {
        usize::from(self.frame[0]) << 16
            | usize::from(self.frame[1]) << 8
            | usize::from(self.frame[2])
    }

    /// How much of the frame is looked at, as far as that is known.
    fn wanted(&self) -> usize {
        if self.have < HEADER {
            return HEADER;
        }
        let length = self.length();
        HEADER
            + match self.frame[3] {
                RST_STREAM | WINDOW_UPDATE => length.min(4),
                GOAWAY => length.min(8),
                HEADERS if self.frame[4] & END_STREAM != 0 && length <= SHORT => length,
                _ => 0,
            }
    }

    fn judge(&mut self) -> Option<End> {
        let [_, _, _, kind, flags, a, b, c, d, ..] = self.frame;
        let stream = u32::from_be_bytes([a, b, c, d]);
        let ends = flags & END_STREAM != 0;
        let begun = self.begun.contains(&stream);
        match (kind, ends) {
            (HEADERS, false) if !begun => self.begun.push(stream),
            (DATA | HEADERS, true) | (RST_STREAM, _) => self.given_up(stream),
            _ => {}
        }
        let payload = &self.frame[HEADER..self.have];
        let refusal = match (kind, payload) {
            (HEADERS, [_, ..]) if !begun => {
                self.answered = stream;
                return Some(End { refusal: Refusal::HeadTooLarge, status: Some(431) });
            }
            (WINDOW_UPDATE, [a, b, c, d]) if stream == 0 => {
                self.room += u64::from(u32::from_be_bytes([*a, *b, *c, *d]));
                return None;
            }
            (RST_STREAM, [a, b, c, d]) => match u32::from_be_bytes([*a, *b, *c, *d]) {
                NO_ERROR | INTERNAL_ERROR | CANCEL => return None,
                REFUSED_STREAM => Refusal::Overloaded,
                _ if self.answered == stream => return None,
                _ => Refusal::MalformedStream,
            },
            (GOAWAY, [_, _, _, _, a, b, c, d]) => match u32::from_be_bytes([*a, *b, *c, *d]) {
                NO_ERROR => return None,
                ENHANCE_YOUR_CALM => Refusal::Flood,
                _ => Refusal::BrokenConnection,
            },
            _ => return None,
        };
        Some(End { refusal, status: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const END_HEADERS: u8 = 0x4;

    fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut bytes = vec![length[1], length[2], length[3], kind, flags, 0, 0, 0, stream];
        bytes.extend_from_slice(payload);
        bytes
    }

    fn reset(stream: u8, code: u8) -> Vec<u8> {
        frame(RST_STREAM, 0, stream, &[0, 0, 0, code])
    }

    fn goaway(code: u8) -> Vec<u8> {
        frame(GOAWAY, 0, 0, &[0, 0, 0, 1, 0, 0, 0, code, b'c', b'a', b'l', b'm'])
    }

    fn answer(stream: u8, block: &[u8]) -> Vec<u8> {
        frame(HEADERS, END_STREAM | END_HEADERS, stream, block)
    }

    fn ends(cuts: &[&[u8]]) -> Vec<(Refusal, Option<u16>)> {
        let (mut ends, mut found) = (Ends::new(), Vec::new());
        for bytes in cuts {
            ends.went(bytes, |end| found.push((end.refusal, end.status)));
        }
        found
    }

    #[test]
    fn room_is_what_the_whole_connection_is_given() {
        let bytes = [
            frame(WINDOW_UPDATE, 0, 0, &[0, 15, 0, 1]),
            frame(WINDOW_UPDATE, 0, 1, &[0, 1, 0, 0]),
            frame(DATA, 0, 1, &[0; 4]),
            frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 2]),
        ]
        .concat();
        for size in [1, 7, 12, 100] {
            let mut ends = Ends::new();
            for cut in bytes.chunks(size) {
                ends.went(cut, |end| panic!("{end:?}"));
            }
            assert_eq!((ends.take_room(), ends.take_room()), (0xf_0003, 0), "{size}");
        }
    }

    #[test]
    fn errors_are_ends_and_our_own_resets_are_not() {
        for code in 0..=0xd {
            let (stream, connection) = match code {
                0 => (None, None),
                2 | 8 => (None, Some(Refusal::BrokenConnection)),
                7 => (Some(Refusal::Overloaded), Some(Refusal::BrokenConnection)),
                0xb => (Some(Refusal::MalformedStream), Some(Refusal::Flood)),
                _ => (Some(Refusal::MalformedStream), Some(Refusal::BrokenConnection)),
            };
            let as_found = |refusal: Option<Refusal>| {
                refusal.map(|refusal| (refusal, None)).into_iter().collect::<Vec<_>>()
            };
            assert_eq!(ends(&[&reset(1, code)]), as_found(stream), "{code}");
            assert_eq!(ends(&[&goaway(code)]), as_found(connection), "{code}");
        }
    }

    #[test]
    fn a_status_alone_is_an_end_and_what_has_fields_is_not() {
        // 431 as it is first said, and later.
        for block in [&[0x48, 0x83, 0x64, 0x2f, 0x7f][..], &[0xbe], &[0x3f], &[0x3f, 0xff]] {
            assert_eq!(
                ends(&[&answer(1, block)]),
                [(Refusal::HeadTooLarge, Some(431))],
                "{block:?}"
            );
        }
        assert_eq!(ends(&[&answer(1, &[0xbe; 9])]), []);
        assert_eq!(ends(&[&answer(1, &[])]), []);
        // Of a response that goes on, there is more to come; and trailers are as short as they like.
        let begins = frame(HEADERS, END_HEADERS, 1, &[0x8c]);
        for trailers in [&[0x8c][..], &[0xbe]] {
            assert_eq!(ends(&[&begins, &frame(DATA, 0, 1, b"x"), &answer(1, trailers)]), []);
        }
    }

    #[test]
    fn what_is_remembered_of_streams_ends_with_them() {
        let mut ends = Ends::new();
        let begins = |stream| frame(HEADERS, END_HEADERS, stream, &[0x88]);
        for end in [frame(DATA, END_STREAM, 1, b""), answer(1, &[0xbe]), reset(1, 8)] {
            ends.went(&[begins(1), begins(3), end].concat(), |end| panic!("{end:?}"));
            assert_eq!(ends.begun, [3]);
        }
        ends.given_up(5);
        ends.given_up(3);
        assert!(ends.begun.is_empty());
    }

    #[test]
    fn what_is_answered_and_then_reset_counts_once() {
        let status = [0x48, 0x83, 0x64, 0x2f, 0x7f];
        let bytes = [answer(3, &status), reset(3, 1), reset(7, 1)].concat();
        let found = [(Refusal::HeadTooLarge, Some(431)), (Refusal::MalformedStream, None)];
        assert_eq!(ends(&[&bytes]), found);
    }

    #[test]
    fn payloads_are_passed_over_however_the_bytes_are_cut() {
        // A payload that looks like ends.
        let decoy = [reset(9, 1), goaway(1), answer(9, &[0x8c])].concat();
        let bytes = [
            frame(DATA, 0, 1, &decoy),
            reset(3, 1),
            frame(HEADERS, END_STREAM, 1, &[&[0x8c][..], &decoy].concat()),
            answer(5, &[0x8c]),
            frame(4, 0, 0, &[]),
            goaway(0xb),
            reset(7, 7),
        ]
        .concat();
        let found = [
            (Refusal::MalformedStream, None),
            (Refusal::HeadTooLarge, Some(431)),
            (Refusal::Flood, None),
            (Refusal::Overloaded, None),
        ];
        for size in 1..=bytes.len() {
            let cuts: Vec<_> = bytes.chunks(size).collect();
            assert_eq!(ends(&cuts), found, "{size}");
        }
    }

    #[test]
    fn frames_that_are_too_short_are_none_of_ours_and_no_trouble() {
        for length in 0..4 {
            assert_eq!(ends(&[&frame(RST_STREAM, 0, 1, &[1, 1, 1][..length.min(3)])]), []);
            assert_eq!(
                ends(&[&frame(GOAWAY, 0, 0, &[1, 1, 1][..length.min(3)]), &reset(1, 1)]).len(),
                1
            );
        }
    }
}
