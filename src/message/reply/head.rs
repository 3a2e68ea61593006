//! The head of a response: status line and fields, and what they make of the body.

use std::time::Duration;

use http::Version;

use super::Afterwards;
use super::OriginFault;
use super::ReplyLimits;
use super::request::Asked;
use crate::message::chunked::BodyFraming;
use crate::message::head::bytes::skip_value;
use crate::message::head::fields::FieldScanner;
use crate::message::head::fields::Span;
use crate::message::head::fields::Step;
use crate::message::head::framing::Coding;
use crate::message::head::framing::content_length;
use crate::message::head::framing::lists;
use crate::message::head::framing::transfer_coding;
use crate::message::list::is_word;
use crate::message::names::NameList;

/// Where the status code ends: behind `HTTP/1.1 200`.
const STATUS_END: usize = 12;

/// The fields that concern the message itself.
static MESSAGE: NameList =
    NameList::of(&["upgrade", "connection", "keep-alive", "content-length", "transfer-encoding"]);

/// What came of a look at the buffer.
pub(super) enum ReplyScan {
    /// Everything so far may become a head.
    NeedMore,
    /// A whole head, and the position behind it.
    Head { end: usize, reply: ReplyHead },
}

/// What a head means for the connection.
pub(super) enum Reply {
    /// Another head follows (RFC 9110 §15.2).
    Interim,
    /// The protocol that was asked for takes over.
    Switched,
    /// The answer, its body framed like this.
    Final(BodyFraming),
}

/// What was understood of a response head.
#[derive(Debug, Clone, Copy)]
pub(super) struct ReplyHead {
    version: Version,
    status: u16,
    length: Option<u64>,
    chunked: bool,
    websocket: bool,
    closes: bool,
    keeps: bool,
    patience: Option<u32>,
}

impl Default for ReplyHead {
    fn default() -> Self {
        Self {
            version: Version::HTTP_11,
            status: 0,
            length: None,
            chunked: false,
            websocket: false,
            closes: false,
            keeps: false,
            patience: None,
        }
    }
}

impl ReplyHead {
    /// Takes note of a field that concerns the message itself.
    #[inline]
    fn note(&mut self, name: &[u8], value: &[u8]) -> Result<(), OriginFault> {
        if MESSAGE.may_have(name) { self.note_message(name, value) } else { Ok(()) }
    }

    fn note_message(&mut self, name: &[u8], value: &[u8]) -> Result<(), OriginFault> {
        let is = |known: &[u8]| is_word(name, known);
        match name.len() {
            7 if is(b"upgrade") => {
                self.websocket |= lists(value, b"websocket");
                Ok(())
            }
            10 if is(b"connection") => {
                self.closes |= lists(value, b"close");
                self.keeps |= lists(value, b"keep-alive");
                Ok(())
            }
            10 if is(b"keep-alive") => {
                self.patience = patience(value).or(self.patience);
                Ok(())
            }
            14 if is(b"content-length") => {
                if self.chunked {
                    return Err(OriginFault::AmbiguousLength);
                }
                if self.length.is_some() {
                    return Err(OriginFault::BadContentLength);
                }
                self.length = Some(content_length(value).ok_or(OriginFault::BadContentLength)?);
                Ok(())
            }
            17 if is(b"transfer-encoding") => {
                if self.version == Version::HTTP_10 || self.chunked {
                    return Err(OriginFault::BadTransferEncoding);
                }
                if self.length.is_some() {
                    return Err(OriginFault::AmbiguousLength);
                }
                match transfer_coding(value) {
                    Coding::Chunked => {
                        self.chunked = true;
                        Ok(())
                    }
                    Coding::Unknown => Err(OriginFault::UnknownTransferCoding),
                    Coding::Malformed => Err(OriginFault::BadTransferEncoding),
                }
            }
            _ => Ok(()),
        }
    }

    /// The status code.
    pub(super) fn status(&self) -> u16 {
        self.status
    }

    /// The version of HTTP.
    pub(super) fn version(&self) -> Version {
        self.version
    }

    /// What the origin does with the connection behind this answer (RFC 9112 §9.3).
    pub(super) fn afterwards(&self) -> Afterwards {
        let persists = self.keeps || self.version != Version::HTTP_10;
        if self.closes || !persists {
            return Afterwards::Closes;
        }
        let seconds = self.patience.map(|seconds| Duration::from_secs(seconds.into()));
        Afterwards::Persists { patience: seconds }
    }

    /// What this head answers to such a request (RFC 9112 §6.3).
    pub(super) fn judge(&self, asked: Asked) -> Result<Reply, OriginFault> {
        let bodiless = matches!(self.status, 100..200 | 204);
        // Origins do write `Content-Length: 0` here, against the letter of RFC 9110 §8.6 and without
        // harm; anything else is a body for some of those who read it.
        if bodiless && (self.chunked || self.length.is_some_and(|length| length > 0)) {
            return Err(OriginFault::UnexpectedBody);
        }
        match self.status {
            101 if asked != Asked::WebSocket => Err(OriginFault::UnaskedUpgrade),
            101 if self.version == Version::HTTP_10 || !self.websocket => {
                Err(OriginFault::BadUpgrade)
            }
            101 => Ok(Reply::Switched),
            100..200 => Ok(Reply::Interim),
            204 | 304 => Ok(Reply::Final(BodyFraming::None)),
            _ if asked == Asked::Head => Ok(Reply::Final(BodyFraming::None)),
            _ if self.chunked => Ok(Reply::Final(BodyFraming::Chunked)),
            _ => Ok(Reply::Final(self.length.map_or(BodyFraming::UntilClose, BodyFraming::Length))),
        }
    }
}

/// The seconds of `Keep-Alive: timeout=5, max=100`.
fn patience(value: &[u8]) -> Option<u32> {
    let value = std::str::from_utf8(value).ok()?;
    value.split(',').find_map(|parameter| {
        let (name, seconds) = parameter.split_once('=')?;
        let seconds = seconds.trim().parse().ok()?;
        name.trim().eq_ignore_ascii_case("timeout").then_some(seconds)
    })
}

/// Reads one response head from a buffer that only grows.
#[derive(Debug, Default)]
pub(super) struct ReplyScanner {
    phase: Phase,
    at: usize,
    fields: FieldScanner,
    head: ReplyHead,
}

#[derive(Debug, Clone, Copy, Default)]
enum Phase {
    #[default]
    Status,
    Reason,
    LineFeed,
    Fields,
}

impl ReplyScanner {
    /// Looks at the bytes that it has not seen, and shows each field line as it is read. `buf` was cut at the limit
    /// of a head.
    pub(super) fn scan(
        &mut self,
        buf: &[u8],
        limits: &ReplyLimits,
        found: impl FnMut(Span, Span),
    ) -> Result<ReplyScan, OriginFault> {
        match self.advance(buf, limits, found)? {
            ReplyScan::NeedMore if buf.len() >= limits.head => Err(OriginFault::HeadTooLarge),
            scan => Ok(scan),
        }
    }

    fn advance(
        &mut self,
        buf: &[u8],
        limits: &ReplyLimits,
        mut found: impl FnMut(Span, Span),
    ) -> Result<ReplyScan, OriginFault> {
        if matches!(self.phase, Phase::Status) && self.at == 0 {
            self.usual_start(buf)?;
        }
        loop {
            if matches!(self.phase, Phase::Fields) {
                let Self { fields, head, .. } = self;
                fields.usual_lines(buf, limits.fields, |line| {
                    head.note(line.name, line.value)?;
                    let (name, value) = line.spans();
                    found(name, value);
                    Ok::<_, OriginFault>(())
                })?;
                match self.fields.step(buf, limits.fields) {
                    Step::NeedMore => return Ok(ReplyScan::NeedMore),
                    Step::Field(name, value) => {
                        self.head.note(name.of(buf), value.of(buf))?;
                        found(name, value);
                    }
                    Step::Fault(fault) => return Err(fault.into()),
                    Step::End(end) => return Ok(ReplyScan::Head { end, reply: self.head }),
                }
                continue;
            }
            let rest = buf.get(self.at..).unwrap_or_default();
            let Some(&byte) = rest.first() else { return Ok(ReplyScan::NeedMore) };
            match self.phase {
                Phase::Status if self.at < STATUS_END => {
                    self.status_byte(byte)?;
                    self.at += 1;
                }
                Phase::Status => {
                    self.check_status()?;
                    // The space behind the code is due even when no reason follows (RFC 9112 §4), but
                    // many leave it out, and nobody reads anything else into that.
                    self.phase = match byte {
                        b' ' => Phase::Reason,
                        b'\r' => Phase::LineFeed,
                        b'\n' => return Err(OriginFault::BareLineFeed),
                        _ => return Err(OriginFault::MalformedStatusLine),
                    };
                    self.at += 1;
                }
                Phase::Reason => {
                    let length = skip_value(rest);
                    self.at += length;
                    match rest.get(length) {
                        None => return Ok(ReplyScan::NeedMore),
                        Some(b'\r') => {
                            self.at += 1;
                            self.phase = Phase::LineFeed;
                        }
                        Some(b'\n') => return Err(OriginFault::BareLineFeed),
                        Some(_) => return Err(OriginFault::ControlByte),
                    }
                }
                Phase::LineFeed if byte == b'\n' => {
                    self.fields = FieldScanner::new(self.at + 1);
                    self.phase = Phase::Fields;
                }
                Phase::LineFeed | Phase::Fields => return Err(OriginFault::BareLineFeed),
            }
        }
    }

    /// Reads a status line as nearly all begin, where so much of it is there; leaves everything else to who looks at
    /// one byte after the other.
    fn usual_start(&mut self, buf: &[u8]) -> Result<(), OriginFault> {
        if let Some([b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'1', b' ', code @ .., b' ']) =
            buf.first_chunk::<{ STATUS_END + 1 }>()
            && code.iter().all(u8::is_ascii_digit)
        {
            self.head.status = code.iter().fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0'));
            self.check_status()?;
            self.at = STATUS_END + 1;
            self.phase = Phase::Reason;
        }
        Ok(())
    }

    /// One byte of `HTTP/` DIGIT `.` DIGIT SP 3DIGIT.
    fn status_byte(&mut self, byte: u8) -> Result<(), OriginFault> {
        let fits = match self.at {
            5 | 7 | 9..STATUS_END => byte.is_ascii_digit(),
            6 => byte == b'.',
            8 => byte == b' ',
            _ => b"HTTP/".get(self.at) == Some(&byte),
        };
        match (self.at, byte) {
            _ if !fits => return Err(OriginFault::MalformedStatusLine),
            (5, b'1') | (7, b'1') => {}
            (7, b'0') => self.head.version = Version::HTTP_10,
            (5 | 7, _) => return Err(OriginFault::UnsupportedVersion),
            (9..STATUS_END, _) => {
                self.head.status = self.head.status * 10 + u16::from(byte - b'0');
            }
            _ => {}
        }
        Ok(())
    }

    fn check_status(&self) -> Result<(), OriginFault> {
        match self.head.status {
            100..600 => Ok(()),
            _ => Err(OriginFault::BadStatus),
        }
    }
}
