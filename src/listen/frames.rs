//! How many HTTP/2 frames a client may send that ask for nothing (RFC 9113 §10.5).
//!
//! PING, SETTINGS, PRIORITY, WINDOW_UPDATE and unknown frames cost the sender nothing and us some work
//! each. What a client needs of them grows with what it is sent; what it sends beyond that is a flood.
//! Frames that carry requests have limits of their own.

use tokio::time::Instant;

/// The length of a frame's header (RFC 9113 §4.1).
const HEADER: usize = 9;
/// What a client sends before its first request (RFC 9113 §3.4).
const PREFACE: usize = 24;
/// DATA, HEADERS, RST_STREAM and CONTINUATION: they belong to requests.
const OF_REQUESTS: [u8; 4] = [0x0, 0x1, 0x3, 0x9];
/// A part of a body.
const DATA: u8 = 0x0;
/// The client gives a stream up.
const RST_STREAM: u8 = 0x3;
/// Frames that may come at once.
const BURST: f64 = 4_000.0;
/// Frames that may come each second.
const PER_SECOND: f64 = 200.0;
/// Bytes sent to the client that allow it one frame more: less than a small message has, and more than
/// the answer to a PING.
const BYTES_EACH: f64 = 24.0;

/// Counts the frames of one connection as its bytes pass.
#[derive(Debug)]
pub(super) struct Frames {
    /// What is still to come before the next frame's header.
    skip: usize,
    header: [u8; HEADER],
    have: usize,
    /// What is to come is a part of a body.
    in_data: bool,
    /// What came of bodies, padding included, and was not asked for yet.
    data: u64,
    allowed: f64,
    since: Option<Instant>,
}

impl Frames {
    /// At the start of a connection, before its preface.
    pub(super) fn new() -> Self {
        Self {
            skip: PREFACE,
            header: [0; HEADER],
            have: 0,
            in_data: false,
            data: 0,
            allowed: BURST,
            since: None,
        }
    }

    /// So many bytes were sent to the client.
    #[expect(clippy::cast_precision_loss, reason = "writes are far smaller than 2^52")]
    pub(super) fn sent(&mut self, bytes: usize) {
        self.allowed = (self.allowed + bytes as f64 / BYTES_EACH).min(BURST);
    }

    /// These bytes came from the client; false when there were too many idle frames. Tells which streams
    /// it gave up.
    pub(super) fn came(
        &mut self,
        mut bytes: &[u8],
        now: Instant,
        mut given_up: impl FnMut(u32),
    ) -> bool {
        let since = self.since.replace(now).unwrap_or(now);
        let earned = now.saturating_duration_since(since).as_secs_f64() * PER_SECOND;
        self.allowed = (self.allowed + earned).min(BURST);
        while !bytes.is_empty() {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            if self.in_data {
                self.data += skipped as u64;
            }
            bytes = &bytes[skipped..];
            let taken = (HEADER - self.have).min(bytes.len());
            self.header[self.have..self.have + taken].copy_from_slice(&bytes[..taken]);
            self.have += taken;
            bytes = &bytes[taken..];
            if self.have == HEADER {
                self.have = 0;
                let [a, b, c, kind, _, stream @ ..] = self.header;
                self.in_data = kind == DATA;
                if kind == RST_STREAM {
                    given_up(u32::from_be_bytes(stream));
                }
                self.skip = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
                if !OF_REQUESTS.contains(&kind) {
                    self.allowed -= 1.0;
                }
            }
        }
        self.allowed >= 0.0
    }

    /// How many bytes of bodies came since this was asked last, as the window of a connection counts them
    /// (RFC 9113 §6.9.1). Of a frame that is not whole it is those that came: who sends a part of one has not used
    /// its room up.
    pub(super) fn take_data(&mut self) -> u64 {
        std::mem::take(&mut self.data)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const PING: u8 = 6;
    const WINDOW_UPDATE: u8 = 8;
    const START: &[u8; PREFACE] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

    fn frame(kind: u8, length: u8) -> Vec<u8> {
        let mut bytes = vec![0, 0, length, kind, 0, 0, 0, 0, 0];
        bytes.extend(std::iter::repeat_n(0xff, length.into()));
        bytes
    }

    fn frames() -> (Frames, Instant) {
        let (mut frames, now) = (Frames::new(), Instant::now());
        assert!(frames.came(START, now, |_| {}));
        (frames, now)
    }

    #[test]
    fn a_flood_of_every_idle_kind_is_noticed() {
        for kind in [2, 4, PING, 7, WINDOW_UPDATE, 0xa, 0xff] {
            let (mut frames, now) = frames();
            let count = (1..10_000).find(|_| !frames.came(&frame(kind, 8), now, |_| {}));
            assert_eq!(count, Some(4_001), "{kind}");
        }
    }

    #[test]
    fn frames_of_requests_do_not_count() {
        for kind in OF_REQUESTS {
            let (mut frames, now) = frames();
            assert!((0..10_000).all(|_| frames.came(&frame(kind, 8), now, |_| {})), "{kind}");
        }
    }

    #[test]
    fn how_the_bytes_are_cut_does_not_matter() {
        let flood = frame(PING, 8).repeat(4_001);
        let whole = |bytes: &[u8]| frames().0.came(bytes, Instant::now(), |_| {});
        assert!(!whole(&flood) && whole(&flood[17..]));
        for size in [1, 2, 7, 9, 10, 16, 17, 1_000] {
            let (mut frames, now) = frames();
            let results: Vec<_> =
                flood.chunks(size).map(|cut| frames.came(cut, now, |_| {})).collect();
            assert_eq!(results.last(), Some(&false), "{size}");
            let early = (17 * 4_000) / size;
            assert!(results[..early].iter().all(|fine| *fine), "{size}");
        }
    }

    #[test]
    fn of_bodies_that_is_counted_which_came() {
        let bodies = [frame(0x0, 200), frame(0x1, 9), frame(0x0, 0), frame(0x0, 100)].concat();
        for size in [1, 8, 10, 11, 150, 1_000] {
            let (mut frames, now) = frames();
            let mut counted = 0;
            for cut in bodies.chunks(size) {
                assert!(frames.came(cut, now, |_| {}));
                counted += frames.take_data();
            }
            assert_eq!(counted, 300, "{size}");
        }
        let (mut frames, now) = frames();
        assert!(frames.came(&bodies[..HEADER + 50], now, |_| {}));
        assert_eq!((frames.take_data(), frames.take_data()), (50, 0));
    }

    #[test]
    fn time_and_what_is_sent_allow_more() {
        let (mut frames, mut now) = frames();
        for _ in 0..10_000 {
            now += Duration::from_millis(6);
            assert!(frames.came(&frame(PING, 8), now, |_| {}));
        }
        for _ in 0..100_000 {
            frames.sent(64);
            assert!(frames.came(&frame(WINDOW_UPDATE, 4).repeat(2), now, |_| {}));
        }
        // The answer to a PING has 17 bytes, and does not pay for the next one.
        let answered = (0..20_000).all(|_| {
            frames.sent(17);
            frames.came(&frame(PING, 8), now, |_| {})
        });
        assert!(!answered);
    }

    #[test]
    fn streams_that_are_given_up_are_told_of() {
        let (mut frames, now) = frames();
        let reset = |stream: u8| [0, 0, 4, RST_STREAM, 0, 0, 0, 1, stream, 0, 0, 0, 8];
        let bytes = [&reset(1)[..], &frame(PING, 8), &reset(3)].concat();
        let mut streams = Vec::new();
        for cut in bytes.chunks(5) {
            assert!(frames.came(cut, now, |stream| streams.push(stream)));
        }
        assert_eq!(streams, [0x101, 0x103]);
    }
}
