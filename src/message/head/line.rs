//! The request line: `method SP request-target SP HTTP-version CRLF` (RFC 9112 §3).

use http::Version;

use super::bytes::skip_target;
use super::bytes::skip_token;
use super::fields::Span;
use crate::message::admit::MOST_METHOD;
use crate::refusal::Refusal;

/// What the line reader came to.
pub(super) enum LineStep {
    /// The buffer ends before the line does.
    NeedMore,
    /// The line is whole; the position after it.
    Done(usize),
    /// The line is not one.
    Refused(Refusal),
}

#[derive(Debug, Clone, Copy, Default)]
enum Place {
    #[default]
    Method,
    Target,
    TargetReturn,
    Version,
    LineEnd,
}

/// Reads one request line from a buffer that only grows.
#[derive(Debug)]
pub(super) struct RequestLine {
    at: usize,
    place: Place,
    part: usize,
    /// Where the method stands.
    pub(super) method: Span,
    /// Where the target stands.
    pub(super) target: Span,
    /// The version, once it was read.
    pub(super) version: Version,
}

impl Default for RequestLine {
    fn default() -> Self {
        Self::new(0)
    }
}

impl RequestLine {
    /// The line that begins at this position.
    pub(super) fn new(at: usize) -> Self {
        Self {
            at,
            place: Place::Method,
            part: at,
            method: Span::default(),
            target: Span::default(),
            version: Version::HTTP_11,
        }
    }

    /// Reads on; `most_target` bounds the target in bytes.
    pub(super) fn step(&mut self, buf: &[u8], most_target: usize) -> LineStep {
        loop {
            let rest = buf.get(self.at..).unwrap_or_default();
            let Some(&first) = rest.first() else { return LineStep::NeedMore };
            match self.place {
                Place::Method => {
                    let window = rest.get(..MOST_METHOD + 1).unwrap_or(rest);
                    let length = skip_token(window);
                    if self.at + length - self.part > MOST_METHOD {
                        return LineStep::Refused(Refusal::BadMethod);
                    }
                    self.at += length;
                    match rest.get(length) {
                        None => return LineStep::NeedMore,
                        Some(b' ') if self.at > self.part => {
                            self.method = Span::new(self.part, self.at);
                            self.next(Place::Target);
                        }
                        Some(byte) => return LineStep::Refused(method_fault(*byte)),
                    }
                }
                Place::Target => {
                    let room = most_target.saturating_sub(self.at - self.part).saturating_add(1);
                    let length = skip_target(rest.get(..room).unwrap_or(rest));
                    if length == room {
                        return LineStep::Refused(Refusal::TargetTooLong);
                    }
                    self.at += length;
                    match rest.get(length) {
                        None => return LineStep::NeedMore,
                        Some(b' ') if self.at > self.part => {
                            self.target = Span::new(self.part, self.at);
                            self.next(Place::Version);
                        }
                        Some(b'\r') => {
                            self.at += 1;
                            self.place = Place::TargetReturn;
                        }
                        Some(byte) => return LineStep::Refused(target_fault(*byte)),
                    }
                }
                // `GET /` and no version: a request of HTTP/0.9, or a stray CR within a target.
                Place::TargetReturn if first == b'\n' => {
                    return LineStep::Refused(Refusal::MalformedRequestLine);
                }
                Place::TargetReturn => return LineStep::Refused(Refusal::BareLineFeed),
                // What nearly all say, in one look where all of it is there.
                Place::Version if self.at == self.part && rest.starts_with(b"HTTP/1.1\r\n") => {
                    self.version = Version::HTTP_11;
                    self.place = Place::LineEnd;
                    self.at += b"HTTP/1.1\r".len();
                }
                Place::Version => {
                    if let Some(refusal) = self.version_step(first) {
                        return LineStep::Refused(refusal);
                    }
                }
                Place::LineEnd if first == b'\n' => return LineStep::Done(self.at + 1),
                Place::LineEnd => return LineStep::Refused(Refusal::BareLineFeed),
            }
        }
    }

    /// Goes past the separator to the next part.
    fn next(&mut self, place: Place) {
        self.at += 1;
        self.part = self.at;
        self.place = place;
    }

    /// One byte of `HTTP/` DIGIT `.` DIGIT CR. The name is case-sensitive (RFC 9112 §2.3).
    fn version_step(&mut self, byte: u8) -> Option<Refusal> {
        let index = self.at - self.part;
        let fits = match index {
            0..5 => b"HTTP/".get(index) == Some(&byte),
            5 => {
                self.version = if byte == b'1' { Version::HTTP_11 } else { Version::HTTP_09 };
                byte.is_ascii_digit()
            }
            6 => byte == b'.',
            7 => {
                self.version = match (self.version, byte) {
                    (Version::HTTP_11, b'1') => Version::HTTP_11,
                    (Version::HTTP_11, b'0') => Version::HTTP_10,
                    _ => Version::HTTP_09,
                };
                byte.is_ascii_digit()
            }
            _ => byte == b'\r',
        };
        if !fits {
            return Some(match byte {
                b'\n' => Refusal::BareLineFeed,
                _ => Refusal::MalformedRequestLine,
            });
        }
        self.at += 1;
        if index == 8 {
            // HTTP_09 stands for every version that is written well and is not ours.
            if self.version == Version::HTTP_09 {
                return Some(Refusal::UnsupportedVersion);
            }
            self.place = Place::LineEnd;
        }
        None
    }
}

/// Why this byte does not stand in a method.
fn method_fault(byte: u8) -> Refusal {
    match byte {
        b'\n' => Refusal::BareLineFeed,
        b'!'..=b'~' => Refusal::BadMethod,
        // Not text at all, perhaps TLS sent to a plain listener; or no method, or a line of one word.
        _ => Refusal::MalformedRequestLine,
    }
}

/// Why this byte does not stand in a target.
fn target_fault(byte: u8) -> Refusal {
    match byte {
        b'\n' => Refusal::BareLineFeed,
        // Two spaces between method and target.
        b' ' => Refusal::MalformedRequestLine,
        0..b' ' | 0x7f => Refusal::ControlByte,
        _ => Refusal::BadTarget,
    }
}
