//! What the fields say of the message itself: its host, its length, its connection.

use http::Method;
use http::Version;

use super::Upgrade;
use super::bytes::is_token;
use super::bytes::trim;
use super::fields::Span;
use crate::message::chunked::BodyFraming;
use crate::refusal::Refusal;

/// The most elements of Connection, over all its lines.
const MOST_CONNECTION_OPTIONS: usize = 8;

/// A field that the parser itself understands, or any other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FieldKind {
    Host,
    ContentLength,
    TransferEncoding,
    Connection,
    Upgrade,
    Expect,
    Te,
    /// A field for one hop that nothing behind us needs: Keep-Alive, Proxy-Connection,
    /// HTTP2-Settings, Trailer.
    HopOnly,
    Plain,
}

/// Which of them a name stands for.
pub(super) fn kind_of(name: &[u8]) -> FieldKind {
    let is = |known: &[u8]| name.eq_ignore_ascii_case(known);
    match name.len() {
        2 if is(b"te") => FieldKind::Te,
        4 if is(b"host") => FieldKind::Host,
        6 if is(b"expect") => FieldKind::Expect,
        7 if is(b"upgrade") => FieldKind::Upgrade,
        7 if is(b"trailer") => FieldKind::HopOnly,
        10 if is(b"connection") => FieldKind::Connection,
        10 if is(b"keep-alive") => FieldKind::HopOnly,
        14 if is(b"content-length") => FieldKind::ContentLength,
        14 if is(b"http2-settings") => FieldKind::HopOnly,
        16 if is(b"proxy-connection") => FieldKind::HopOnly,
        17 if is(b"transfer-encoding") => FieldKind::TransferEncoding,
        _ => FieldKind::Plain,
    }
}

/// The value of Content-Length: digits and nothing else (RFC 9110 §8.6).
///
/// At most nineteen digits, and no more than fits a signed 64-bit number: whoever reads this
/// message behind us may count in one.
pub(in crate::message) fn content_length(value: &[u8]) -> Option<u64> {
    if value.is_empty() || value.len() > 19 {
        return None;
    }
    let mut length: u64 = 0;
    for byte in value {
        if !byte.is_ascii_digit() {
            return None;
        }
        length = length.checked_mul(10)?.checked_add(u64::from(byte - b'0'))?;
    }
    (length <= i64::MAX.unsigned_abs()).then_some(length)
}

/// What a Transfer-Encoding asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::message) enum Coding {
    /// `chunked` and nothing else.
    Chunked,
    /// Codings that we do not know, with `chunked` at most at the end.
    Unknown,
    /// Not a list of codings, or `chunked` in the wrong place.
    Malformed,
}

/// Reads one Transfer-Encoding value (RFC 9112 §6.1).
pub(in crate::message) fn transfer_coding(value: &[u8]) -> Coding {
    if value.eq_ignore_ascii_case(b"chunked") {
        return Coding::Chunked;
    }
    let mut chunked_before = false;
    for element in value.split(|b| *b == b',') {
        let mut parts = element.split(|b| *b == b';');
        let coding = trim(parts.next().unwrap_or_default());
        let chunked = coding.eq_ignore_ascii_case(b"chunked");
        let whole = !coding.is_empty() && coding.iter().all(|b| is_token(*b));
        if !whole || chunked_before || (chunked && parts.next().is_some()) {
            return Coding::Malformed;
        }
        chunked_before = chunked;
    }
    Coding::Unknown
}

/// Whether a comma list has this element, letter case aside.
pub(in crate::message) fn lists(value: &[u8], wanted: &[u8]) -> bool {
    value.split(|b| *b == b',').any(|element| trim(element).eq_ignore_ascii_case(wanted))
}

/// What the fields of one request said so far.
#[derive(Debug, Default)]
pub(super) struct Facts {
    pub(super) host: Option<Span>,
    pub(super) nominated: Vec<Vec<u8>>,
    pub(super) accepts_trailers: bool,
    length: Option<u64>,
    chunked: bool,
    continues: bool,
    options: usize,
    closes: bool,
    keeps: bool,
    upgrades: bool,
    websocket: bool,
    other_protocol: bool,
}

impl Facts {
    /// Takes note of one field, and refuses it as soon as it cannot be meant well.
    pub(super) fn note(
        &mut self,
        kind: FieldKind,
        span: Span,
        buf: &[u8],
        version: Version,
    ) -> Result<(), Refusal> {
        let value = span.of(buf);
        match kind {
            FieldKind::Plain | FieldKind::HopOnly => Ok(()),
            FieldKind::Host if self.host.is_some() => Err(Refusal::DuplicateHost),
            FieldKind::Host => {
                self.host = Some(span);
                Ok(())
            }
            FieldKind::ContentLength => self.note_length(value),
            FieldKind::TransferEncoding => self.note_coding(value, version),
            FieldKind::Connection => self.note_connection(value),
            FieldKind::Upgrade => {
                for protocol in value.split(|b| *b == b',') {
                    let websocket = trim(protocol).eq_ignore_ascii_case(b"websocket");
                    self.websocket |= websocket;
                    self.other_protocol |= !websocket;
                }
                Ok(())
            }
            // RFC 9110 §10.1.1: a server ignores the expectation of an HTTP/1.0 request.
            FieldKind::Expect if version == Version::HTTP_10 => Ok(()),
            FieldKind::Expect if self.continues || !value.eq_ignore_ascii_case(b"100-continue") => {
                Err(Refusal::BadExpect)
            }
            FieldKind::Expect => {
                self.continues = true;
                Ok(())
            }
            FieldKind::Te => {
                self.accepts_trailers |= lists(value, b"trailers");
                Ok(())
            }
        }
    }

    fn note_length(&mut self, value: &[u8]) -> Result<(), Refusal> {
        if self.chunked {
            return Err(Refusal::AmbiguousLength);
        }
        if self.length.is_some() {
            return Err(Refusal::BadContentLength);
        }
        self.length = Some(content_length(value).ok_or(Refusal::BadContentLength)?);
        Ok(())
    }

    fn note_coding(&mut self, value: &[u8], version: Version) -> Result<(), Refusal> {
        // RFC 9112 §6.1: a Transfer-Encoding in HTTP/1.0 is framing that someone may not know.
        if version == Version::HTTP_10 || self.chunked {
            return Err(Refusal::BadTransferEncoding);
        }
        if self.length.is_some() {
            return Err(Refusal::AmbiguousLength);
        }
        match transfer_coding(value) {
            Coding::Chunked => {
                self.chunked = true;
                Ok(())
            }
            Coding::Unknown => Err(Refusal::UnknownTransferCoding),
            Coding::Malformed => Err(Refusal::BadTransferEncoding),
        }
    }

    fn note_connection(&mut self, value: &[u8]) -> Result<(), Refusal> {
        for element in value.split(|b| *b == b',') {
            let option = trim(element);
            // RFC 9110 §5.6.1.2: empty elements of a list are passed over.
            if option.is_empty() {
                continue;
            }
            self.options += 1;
            if self.options > MOST_CONNECTION_OPTIONS || !option.iter().all(|b| is_token(*b)) {
                return Err(Refusal::BadConnection);
            }
            if option.eq_ignore_ascii_case(b"close") {
                self.closes = true;
            } else if option.eq_ignore_ascii_case(b"keep-alive") {
                self.keeps = true;
            } else if option.eq_ignore_ascii_case(b"upgrade") {
                self.upgrades = true;
            } else if must_arrive(option) {
                return Err(Refusal::BadConnection);
            } else if kind_of(option) == FieldKind::Plain {
                self.nominated.push(option.to_ascii_lowercase());
            }
        }
        Ok(())
    }

    /// Whether the connection may carry another request (RFC 9112 §9.3).
    pub(super) fn keep_alive(&self, version: Version) -> bool {
        !self.closes && (version != Version::HTTP_10 || self.keeps)
    }

    /// Whether the client waits for 100 before it sends the body. Without a body there is nothing to
    /// wait for.
    pub(super) fn expects_continue(&self, body: BodyFraming) -> bool {
        self.continues && !matches!(body, BodyFraming::None | BodyFraming::Length(0))
    }

    /// How long the body is, and whether the request may become a tunnel.
    pub(super) fn framing(
        &self,
        method: &Method,
        version: Version,
    ) -> Result<(BodyFraming, Upgrade), Refusal> {
        if version == Version::HTTP_11 && self.host.is_none() {
            return Err(Refusal::MissingHost);
        }
        let body = match self.length {
            _ if self.chunked => BodyFraming::Chunked,
            Some(length) => BodyFraming::Length(length),
            None => BodyFraming::None,
        };
        let asked = self.upgrades && version == Version::HTTP_11;
        if !asked || !self.websocket {
            let other = self.websocket || self.other_protocol;
            return Ok((body, if other { Upgrade::Ignored } else { Upgrade::None }));
        }
        // A body before the tunnel would be read as the tunnel's first bytes by one of the two sides.
        if !matches!(body, BodyFraming::None | BodyFraming::Length(0)) {
            return Err(Refusal::BadUpgrade);
        }
        match *method {
            Method::GET => Ok((BodyFraming::None, Upgrade::WebSocket)),
            _ => Ok((body, Upgrade::Ignored)),
        }
    }
}

/// Fields that a client must not have removed by naming them in Connection: those that say where the
/// message ends, who sent it and what may be done with it (RFC 9110 §7.6.1).
fn must_arrive(name: &[u8]) -> bool {
    const PREFIXES: [&[u8]; 7] =
        [b"accept-", b"access-control-", b"content-", b"if-", b"sec-", b"x-forwarded-", b"x-real-"];
    const NAMES: [&[u8]; 18] = [
        b"accept",
        b"age",
        b"authorization",
        b"cache-control",
        b"cookie",
        b"date",
        b"expect",
        b"forwarded",
        b"host",
        b"max-forwards",
        b"origin",
        b"pragma",
        b"proxy-authorization",
        b"range",
        b"traceparent",
        b"transfer-encoding",
        b"vary",
        b"via",
    ];
    NAMES.iter().any(|known| name.eq_ignore_ascii_case(known))
        || PREFIXES.iter().any(|prefix| {
            name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
        })
}
