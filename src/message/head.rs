//! The head of an HTTP/1 request, read strictly from the raw bytes (RFC 9112 §2–§6).
//!
//! This parser stands before every other one. What it does not understand beyond doubt it refuses,
//! as soon as the doubt is certain; what it accepts is written anew by [`canonical`], so that no
//! parser behind it sees the client's own bytes of framing.
//!
//! ```
//! use edgeproxy::message::head::HeadLimits;
//! use edgeproxy::message::head::HeadScanner;
//! use edgeproxy::message::head::Scan;
//!
//! let mut scanner = HeadScanner::default();
//! let limits = HeadLimits::default();
//! assert_eq!(scanner.scan(b"GET /a HTTP/1.1\r\nHost: e", &limits), Scan::NeedMore);
//! let bytes = b"GET /a HTTP/1.1\r\nHost: example.org\r\n\r\n";
//! let Scan::Head(head) = scanner.scan(bytes, &limits) else { panic!("a whole head") };
//! assert_eq!(head.target(bytes), b"/a");
//! assert_eq!(head.len, bytes.len());
//! ```

pub(in crate::message) mod bytes;
mod canonical;
mod common;
pub(in crate::message) mod fields;
pub(in crate::message) mod framing;
mod line;
mod map;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

use http::Method;
use http::Version;

pub use self::canonical::canonical;
pub use self::canonical::canonical_into;
use self::fields::FieldFault;
use self::fields::FieldScanner;
use self::fields::Span;
use self::fields::Step;
use self::framing::Facts;
use self::framing::FieldKind;
use self::framing::kind_of;
use self::line::LineStep;
use self::line::RequestLine;
pub use self::map::canonical_fields;
pub use super::chunked::BodyFraming;
use crate::message::spare;
use crate::refusal::Refusal;

/// What an HTTP/2 client sends first (RFC 9113 §3.4).
pub const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// No limit on the bytes of a head goes beyond this.
pub(in crate::message) const MOST_BYTES: usize = 16 << 20;

/// Room for the fields of most requests: browsers send up to twenty.
const ROOM: usize = 24;

/// The empty lines before a request line that are passed over. One is what RFC 9112 §2.2 asks for,
/// after clients that end a body with a line end of their own.
const MOST_EMPTY_LINES: u8 = 2;

/// How much of a head is accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadLimits {
    /// Bytes in all, from the first to the end of the empty line; at most 16 MiB.
    pub bytes: usize,
    /// Field lines.
    pub fields: usize,
    /// Bytes of the target.
    pub target: usize,
}

impl Default for HeadLimits {
    fn default() -> Self {
        Self { bytes: 32 << 10, fields: 100, target: 8 << 10 }
    }
}

/// What came of a look at the buffer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scan {
    /// Everything so far may become a head.
    NeedMore,
    /// A whole head stands at the start of the buffer.
    Head(RequestHead),
    /// The buffer begins with the preface of HTTP/2, [`PREFACE`].
    Preface,
    /// Whatever follows, this is not a request that we take. The connection is to be closed.
    Refused(Refusal),
}

/// Whether the client asks for another protocol (RFC 9110 §7.8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Upgrade {
    /// It does not.
    None,
    /// For a WebSocket, in a request that may become one: GET, HTTP/1.1, `Connection: upgrade`, no
    /// body (RFC 6455 §4.1).
    WebSocket,
    /// For something else, such as `h2c`, or not properly. The request is served as if it had not
    /// asked (RFC 9110 §7.8: a server may ignore Upgrade).
    Ignored,
}

/// What was understood of a request head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestHead {
    /// The bytes that the head takes, with skipped empty lines and the final empty line.
    pub len: usize,
    /// The method; whether it is one that we serve is for others to judge.
    pub method: Method,
    /// HTTP/1.0 or HTTP/1.1.
    pub version: Version,
    /// How long the body is: `None`, `Length` or `Chunked`.
    pub body: BodyFraming,
    /// Whether the client lets the connection live on (RFC 9112 §9.3).
    pub keep_alive: bool,
    /// Whether the client waits for `100 (Continue)`; never without a body.
    pub expects_continue: bool,
    /// Whether another protocol is asked for.
    pub upgrade: Upgrade,
    /// Whether the client takes trailers (`TE: trailers`, RFC 9110 §10.1.4).
    pub accepts_trailers: bool,
    target: Span,
    host: Option<Span>,
    fields: Fields,
    nominated: Vec<Vec<u8>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::message) struct Field {
    name: Span,
    value: Span,
    kind: FieldKind,
}

/// The field lines of a head. Their memory is left to the next one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Fields(Vec<Field>);

impl Fields {
    fn empty() -> Self {
        let mut fields = spare::lines();
        fields.reserve(ROOM);
        Self(fields)
    }
}

impl Drop for Fields {
    fn drop(&mut self) {
        spare::leave_lines(std::mem::take(&mut self.0));
    }
}

impl RequestHead {
    /// The target as it stands in the request line: visible ASCII, not empty, its form not judged.
    #[must_use]
    pub fn target<'a>(&self, buf: &'a [u8]) -> &'a [u8] {
        self.target.of(buf)
    }

    /// The value of the only Host field; an HTTP/1.1 request has one. Its syntax is not judged.
    #[must_use]
    pub fn host<'a>(&self, buf: &'a [u8]) -> Option<&'a [u8]> {
        self.host.map(|host| host.of(buf))
    }

    /// How many field lines there are.
    #[must_use]
    pub fn field_count(&self) -> usize {
        self.fields.0.len()
    }

    /// Every field line in the order received: the name as written, the value without the whitespace
    /// around it. Here are also the fields that [`canonical`] leaves out.
    pub fn fields<'a>(
        &'a self,
        buf: &'a [u8],
    ) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + use<'a> {
        self.fields.0.iter().map(|field| (field.name.of(buf), field.value.of(buf)))
    }

    /// Whether Connection names this field as one for this hop only (RFC 9110 §7.6.1).
    #[must_use]
    pub fn nominates(&self, name: &[u8]) -> bool {
        self.nominated.iter().any(|nominated| name.eq_ignore_ascii_case(nominated))
    }
}

/// Reads request heads from a buffer that grows, and looks at every byte once.
///
/// Each call gets the buffer of the last call, possibly with more bytes behind. After anything but
/// [`Scan::NeedMore`] the scanner is as new.
#[derive(Debug, Default)]
pub struct HeadScanner {
    phase: Phase,
    line: RequestLine,
    fields: FieldScanner,
    found: Fields,
    facts: Facts,
}

#[derive(Debug, Clone, Copy)]
enum Phase {
    /// Before the request line, behind this many whole empty lines.
    Start {
        empty: u8,
    },
    Line,
    Fields,
}

impl Default for Phase {
    fn default() -> Self {
        Self::Start { empty: 0 }
    }
}

impl HeadScanner {
    /// Looks at the bytes that it has not seen. `limits` are those of the last call.
    pub fn scan(&mut self, buf: &[u8], limits: &HeadLimits) -> Scan {
        let most = limits.bytes.min(MOST_BYTES);
        let scan = match self.advance(buf.get(..most).unwrap_or(buf), limits) {
            Scan::NeedMore if buf.len() >= most => Scan::Refused(Refusal::HeadTooLarge),
            scan => scan,
        };
        if scan != Scan::NeedMore {
            *self = Self::default();
        }
        scan
    }

    fn advance(&mut self, buf: &[u8], limits: &HeadLimits) -> Scan {
        loop {
            match self.phase {
                Phase::Start { empty } => {
                    if let Some(scan) = self.start(buf, empty) {
                        return scan;
                    }
                }
                Phase::Line => match self.line.step(buf, limits.target) {
                    LineStep::NeedMore => return Scan::NeedMore,
                    LineStep::Refused(refusal) => return Scan::Refused(refusal),
                    LineStep::Done(at) => {
                        self.fields = FieldScanner::new(at);
                        self.found = Fields::empty();
                        self.phase = Phase::Fields;
                    }
                },
                Phase::Fields => return self.fields(buf, limits.fields),
            }
        }
    }

    fn fields(&mut self, buf: &[u8], most: usize) -> Scan {
        let Self { fields, line, found, facts, .. } = self;
        let mut note = |name: &[u8], (name_at, value): (Span, Span)| {
            let kind = kind_of(name);
            // Most say nothing of the message itself.
            if kind != FieldKind::Plain {
                facts.note(kind, value, buf, line.version)?;
            }
            found.0.push(Field { name: name_at, value, kind });
            Ok(())
        };
        let len = loop {
            if let Err(refusal) =
                fields.usual_lines(buf, most, |line| note(line.name, line.spans()))
            {
                return Scan::Refused(refusal);
            }
            match fields.step(buf, most) {
                Step::NeedMore => return Scan::NeedMore,
                Step::Fault(fault) => return Scan::Refused(fault.into()),
                Step::Field(name, value) => {
                    if let Err(refusal) = note(name.of(buf), (name, value)) {
                        return Scan::Refused(refusal);
                    }
                }
                Step::End(len) => break len,
            }
        };
        self.finish(buf, len)
    }

    /// Empty lines, the preface of HTTP/2, or the first byte of a request line.
    fn start(&mut self, buf: &[u8], empty: u8) -> Option<Scan> {
        let at = 2 * usize::from(empty);
        match buf.get(at..).unwrap_or_default() {
            [] => Some(Scan::NeedMore),
            [b'\r', ..] if empty == MOST_EMPTY_LINES => {
                Some(Scan::Refused(Refusal::MalformedRequestLine))
            }
            [b'\r'] => Some(Scan::NeedMore),
            [b'\r', b'\n', ..] => {
                self.phase = Phase::Start { empty: empty + 1 };
                None
            }
            [b'\r' | b'\n', ..] => Some(Scan::Refused(Refusal::BareLineFeed)),
            [b'P', ..] if empty == 0 && PREFACE.starts_with(buf) && buf.len() < PREFACE.len() => {
                Some(Scan::NeedMore)
            }
            [b'P', ..] if empty == 0 && buf.starts_with(PREFACE) => Some(Scan::Preface),
            _ => {
                self.line = RequestLine::new(at);
                self.phase = Phase::Line;
                None
            }
        }
    }

    fn finish(&mut self, buf: &[u8], len: usize) -> Scan {
        let version = self.line.version;
        let Ok(method) = Method::from_bytes(self.line.method.of(buf)) else {
            return Scan::Refused(Refusal::BadMethod);
        };
        let (body, upgrade) = match self.facts.framing(&method, version) {
            Ok(framing) => framing,
            Err(refusal) => return Scan::Refused(refusal),
        };
        Scan::Head(RequestHead {
            len,
            method,
            version,
            body,
            keep_alive: self.facts.keep_alive(version),
            expects_continue: self.facts.expects_continue(body),
            upgrade,
            accepts_trailers: self.facts.accepts_trailers,
            target: self.line.target,
            host: self.facts.host,
            fields: std::mem::take(&mut self.found),
            nominated: std::mem::take(&mut self.facts.nominated),
        })
    }
}

impl From<FieldFault> for Refusal {
    fn from(fault: FieldFault) -> Self {
        match fault {
            FieldFault::Malformed => Self::MalformedField,
            FieldFault::Folded => Self::FoldedField,
            FieldFault::BareLineFeed => Self::BareLineFeed,
            FieldFault::ControlByte => Self::ControlByte,
            FieldFault::TooMany => Self::TooManyFields,
        }
    }
}
