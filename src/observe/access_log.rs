//! One line a request, chosen fields, never blocking.
//!
//! [`Record`] borrows what a request knows at its end, [`write_line`] makes one line of it, and
//! [`AccessLogger`] takes it to its file. What clients sent cannot break a line, hide in a terminal or
//! carry a secret into it: see [`escape`] and [`mask`].

pub mod escape;
pub mod mask;
pub mod writer;

use std::io::Write as _;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::time::Duration;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use super::Format;
use crate::message::certificate::ClientCertificate;
use crate::refusal::Refusal;
use escape::Quote;

pub use writer::AccessLogger;

/// Declares the fields once: variant, name, meaning.
macro_rules! fields {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal,)+) => {
        /// A field of an access log line. Its name is the key, and what the configuration says.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Field {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl Field {
            /// Every field, in the order of the documents.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The key in a line and in the configuration.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }

            /// What it says, in one sentence, for documents and schemas.
            #[must_use]
            pub fn description(self) -> &'static str {
                match self {
                    $(Self::$variant => concat!($($doc,)+).trim_ascii(),)+
                }
            }

            /// What stands before the value in a JSON line, but for the first field.
            fn json_key(self) -> &'static str {
                match self {
                    $(Self::$variant => concat!(",\"", $name, "\":"),)+
                }
            }
        }
    };
}

fields! {
    /// When the request arrived: RFC 3339, UTC, milliseconds.
    Time = "time",
    /// The id that the origin and the client saw too.
    RequestId = "request_id",
    /// The client's address, behind trusted proxies the one that they name.
    Client = "client",
    /// The address and port at the other end of the connection.
    Peer = "peer",
    /// The listener's name.
    Listener = "listener",
    /// `HTTP/1.0`, `HTTP/1.1` or `HTTP/2`.
    Protocol = "protocol",
    /// The version of TLS, if any.
    TlsVersion = "tls_version",
    /// The host name that the client asked for in the TLS handshake.
    TlsSni = "tls_sni",
    /// The subject of the certificate that the client showed (RFC 4514).
    TlsClientSubject = "tls_client_subject",
    /// Its alternative names, with their kinds.
    TlsClientSan = "tls_client_san",
    /// Its SHA-256 fingerprint.
    TlsClientFingerprint = "tls_client_fingerprint",
    /// `yes` if the client showed a certificate, which was good; else `no`.
    TlsClientVerified = "tls_client_verified",
    /// The request method.
    Method = "method",
    /// `http` or `https`.
    Scheme = "scheme",
    /// The host of the request.
    Host = "host",
    /// The path of the request.
    Path = "path",
    /// The query of the request, without `?`; secrets are masked.
    Query = "query",
    /// Path and query; secrets are masked.
    Uri = "uri",
    /// The status that the client saw.
    Status = "status",
    /// Bytes of the response body that were sent.
    BytesSent = "bytes_sent",
    /// Bytes of the request body that were received.
    BytesReceived = "bytes_received",
    /// From the request's arrival to its end, in milliseconds.
    Duration = "duration_ms",
    /// From the request's arrival to the first byte of the response, in milliseconds.
    TimeToFirstByte = "ttfb_ms",
    /// The route's name.
    Route = "route",
    /// The upstream's name, if one was asked.
    Upstream = "upstream",
    /// The address that was asked last.
    UpstreamAddress = "upstream_address",
    /// The status that the origin sent.
    UpstreamStatus = "upstream_status",
    /// What the origin took, in milliseconds.
    UpstreamTime = "upstream_ms",
    /// How often an origin was asked.
    Attempts = "attempts",
    /// What became of a second backend that was asked since the first one took long.
    Hedge = "hedge",
    /// What the cache did.
    Cache = "cache",
    /// Why the cache did it.
    CacheReason = "cache_reason",
    /// Why edgeproxy answered itself.
    Refusal = "refusal",
    /// User-Agent of the request.
    UserAgent = "user_agent",
    /// Referer of the request; secrets are masked.
    Referer = "referer",
    /// The trace context that was passed on.
    Traceparent = "traceparent",
}

impl Field {
    /// What a line has when the configuration names no fields.
    pub const DEFAULT: &'static [Self] = &[
        Self::Time,
        Self::RequestId,
        Self::Client,
        Self::Listener,
        Self::Protocol,
        Self::Method,
        Self::Scheme,
        Self::Host,
        Self::Uri,
        Self::Status,
        Self::BytesSent,
        Self::BytesReceived,
        Self::Duration,
        Self::Route,
        Self::Upstream,
        Self::UpstreamAddress,
        Self::UpstreamStatus,
        Self::UpstreamTime,
        Self::Cache,
        Self::CacheReason,
        Self::Refusal,
        Self::UserAgent,
        Self::Referer,
    ];

    /// The field of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|field| field.name() == name)
    }

    /// Every name, in the order of the documents.
    pub fn names() -> impl Iterator<Item = &'static str> {
        Self::ALL.iter().map(|field| field.name())
    }
}

/// What a request knows at its end, borrowed. There is no place for Cookie or Authorization.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    /// When the request arrived.
    pub time: SystemTime,
    /// The request id; empty when none was made yet.
    pub request_id: &'a str,
    /// The client's address.
    pub client: Option<IpAddr>,
    /// The other end of the connection.
    pub peer: Option<SocketAddr>,
    /// The listener's name.
    pub listener: &'a str,
    /// `HTTP/1.0`, `HTTP/1.1` or `HTTP/2`.
    pub protocol: &'a str,
    /// The version of TLS.
    pub tls_version: Option<&'a str>,
    /// The host name of the TLS handshake.
    pub tls_sni: Option<&'a str>,
    /// The certificate that the client showed.
    pub tls_client: Option<&'a ClientCertificate>,
    /// The method as received.
    pub method: &'a [u8],
    /// `http` or `https`.
    pub scheme: &'a str,
    /// The host as received.
    pub host: &'a [u8],
    /// The path as received.
    pub path: &'a [u8],
    /// The query as received, without `?`.
    pub query: Option<&'a [u8]>,
    /// The status that the client saw; `None` when it saw nothing.
    pub status: Option<u16>,
    /// Bytes of the response body.
    pub bytes_sent: u64,
    /// Bytes of the request body.
    pub bytes_received: u64,
    /// From arrival to end.
    pub duration: Duration,
    /// From arrival to the response's first byte.
    pub time_to_first_byte: Option<Duration>,
    /// The route's name.
    pub route: Option<&'a str>,
    /// The upstream's name.
    pub upstream: Option<&'a str>,
    /// The address asked last.
    pub upstream_address: Option<&'a str>,
    /// The origin's status.
    pub upstream_status: Option<u16>,
    /// What the origin took.
    pub upstream_time: Option<Duration>,
    /// How often an origin was asked.
    pub attempts: u32,
    /// What became of a second backend that was asked since the first one took long.
    pub hedge: Option<&'a str>,
    /// What the cache did.
    pub cache: Option<&'a str>,
    /// Why the cache did it.
    pub cache_reason: Option<&'a str>,
    /// Why edgeproxy answered itself.
    pub refusal: Option<Refusal>,
    /// User-Agent.
    pub user_agent: Option<&'a [u8]>,
    /// Referer.
    pub referer: Option<&'a [u8]>,
    /// traceparent.
    pub traceparent: Option<&'a [u8]>,
}

impl Default for Record<'_> {
    /// A request of which nothing is known.
    fn default() -> Self {
        Self {
            time: UNIX_EPOCH,
            request_id: "",
            client: None,
            peer: None,
            listener: "",
            protocol: "",
            tls_version: None,
            tls_sni: None,
            tls_client: None,
            method: b"",
            scheme: "",
            host: b"",
            path: b"",
            query: None,
            status: None,
            bytes_sent: 0,
            bytes_received: 0,
            duration: Duration::ZERO,
            time_to_first_byte: None,
            route: None,
            upstream: None,
            upstream_address: None,
            upstream_status: None,
            upstream_time: None,
            attempts: 0,
            hedge: None,
            cache: None,
            cache_reason: None,
            refusal: None,
            user_agent: None,
            referer: None,
            traceparent: None,
        }
    }
}

/// A field's value, before it is written.
enum Value<'a> {
    Absent,
    Text(&'a [u8]),
    /// Several texts.
    List(&'a [String]),
    /// Path, then query; either may be absent.
    Target(Option<&'a [u8]>, Option<&'a [u8]>),
    Url(&'a [u8]),
    Host(&'a [u8]),
    Client(IpAddr),
    Peer(SocketAddr),
    Number(u64),
    Milliseconds(Duration),
    Moment(SystemTime),
}

impl<'a> Record<'a> {
    fn value(&self, field: Field) -> Value<'a> {
        match field {
            Field::Time => Value::Moment(self.time),
            Field::RequestId => filled(self.request_id.as_bytes()),
            Field::Client => self.client.map_or(Value::Absent, Value::Client),
            Field::Peer => self.peer.map_or(Value::Absent, Value::Peer),
            Field::Listener => filled(self.listener.as_bytes()),
            Field::Protocol => filled(self.protocol.as_bytes()),
            Field::TlsVersion => text(self.tls_version),
            Field::TlsSni => text(self.tls_sni),
            Field::TlsClientSubject => text(self.tls_client.map(|client| &*client.subject)),
            Field::TlsClientSan => {
                self.tls_client.map_or(Value::Absent, |client| Value::List(&client.names))
            }
            Field::TlsClientFingerprint => text(self.tls_client.map(|client| &*client.fingerprint)),
            Field::TlsClientVerified => {
                text(Some(if self.tls_client.is_some() { "yes" } else { "no" }))
            }
            Field::Method => filled(self.method),
            Field::Scheme => filled(self.scheme.as_bytes()),
            Field::Host => match self.host {
                b"" => Value::Absent,
                host => Value::Host(host),
            },
            Field::Path => Value::Target(Some(self.path), None),
            Field::Query => self.query.map_or(Value::Absent, |q| Value::Target(None, Some(q))),
            Field::Uri => Value::Target(Some(self.path), self.query),
            Field::Status => number(self.status),
            Field::BytesSent => Value::Number(self.bytes_sent),
            Field::BytesReceived => Value::Number(self.bytes_received),
            Field::Duration => Value::Milliseconds(self.duration),
            Field::TimeToFirstByte => milliseconds(self.time_to_first_byte),
            Field::Route => text(self.route),
            Field::Upstream => text(self.upstream),
            Field::UpstreamAddress => text(self.upstream_address),
            Field::UpstreamStatus => number(self.upstream_status),
            Field::UpstreamTime => milliseconds(self.upstream_time),
            Field::Attempts => Value::Number(self.attempts.into()),
            Field::Hedge => text(self.hedge),
            Field::Cache => text(self.cache),
            Field::CacheReason => text(self.cache_reason),
            Field::Refusal => text(self.refusal.map(Refusal::label)),
            Field::UserAgent => self.user_agent.map_or(Value::Absent, Value::Text),
            Field::Referer => self.referer.map_or(Value::Absent, Value::Url),
            Field::Traceparent => self.traceparent.map_or(Value::Absent, Value::Text),
        }
    }
}

fn filled(value: &[u8]) -> Value<'_> {
    if value.is_empty() { Value::Absent } else { Value::Text(value) }
}

fn text(value: Option<&str>) -> Value<'_> {
    value.map_or(Value::Absent, |value| Value::Text(value.as_bytes()))
}

fn number<'a>(value: Option<u16>) -> Value<'a> {
    value.map_or(Value::Absent, |value| Value::Number(value.into()))
}

fn milliseconds<'a>(value: Option<Duration>) -> Value<'a> {
    value.map_or(Value::Absent, Value::Milliseconds)
}

/// Appends one line of `fields`, in their order, and its newline. Absent values are left out in JSON
/// and `-` in text.
pub fn write_line(record: &Record<'_>, format: Format, fields: &[Field], line: &mut Vec<u8>) {
    match format {
        Format::Json => write_json(record, fields, line),
        Format::Text => write_text(record, fields, line),
    }
    line.push(b'\n');
}

fn write_json(record: &Record<'_>, fields: &[Field], line: &mut Vec<u8>) {
    line.push(b'{');
    let start = line.len();
    for &field in fields {
        let value = record.value(field);
        if matches!(value, Value::Absent) {
            continue;
        }
        let key = field.json_key();
        let key = if line.len() == start { &key[1..] } else { key };
        line.extend_from_slice(key.as_bytes());
        value.write(Quote::Always, line);
    }
    line.push(b'}');
}

fn write_text(record: &Record<'_>, fields: &[Field], line: &mut Vec<u8>) {
    for (index, &field) in fields.iter().enumerate() {
        if index > 0 {
            line.push(b' ');
        }
        line.extend_from_slice(field.name().as_bytes());
        line.push(b'=');
        record.value(field).write(Quote::WhereNeeded, line);
    }
}

impl Value<'_> {
    fn write(&self, quote: Quote, line: &mut Vec<u8>) {
        match *self {
            Self::Absent => line.push(b'-'),
            Self::Text(bytes) => escape::write(line, quote, |piece| piece(bytes)),
            Self::List(texts) => escape::write(line, quote, |piece| {
                for (at, text) in texts.iter().enumerate() {
                    if at > 0 {
                        piece(b", ");
                    }
                    piece(text.as_bytes());
                }
            }),
            Self::Target(path, query) => escape::write(line, quote, |piece| {
                if let Some(path) = path {
                    mask::url(path, piece);
                }
                if let Some(query) = query {
                    if path.is_some() {
                        piece(b"?");
                    }
                    mask::query(query, piece);
                }
            }),
            Self::Url(url) => escape::write(line, quote, |piece| mask::url(url, piece)),
            Self::Host(host) => escape::write(line, quote, |piece| mask::host(host, piece)),
            Self::Client(address) => plain(line, quote, |line| {
                write!(line, "{address}").expect("a Vec takes everything");
            }),
            Self::Peer(address) => plain(line, quote, |line| {
                write!(line, "{address}").expect("a Vec takes everything");
            }),
            Self::Number(number) => decimal(line, number),
            Self::Milliseconds(duration) => {
                let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
                decimal(line, micros / 1000);
                line.push(b'.');
                digits(line, micros % 1000, 3);
            }
            Self::Moment(time) => plain(line, quote, |line| rfc3339(line, time)),
        }
    }
}

/// What needs no escape in either format.
fn plain(line: &mut Vec<u8>, quote: Quote, write: impl FnOnce(&mut Vec<u8>)) {
    match quote {
        Quote::Always => {
            line.push(b'"');
            write(line);
            line.push(b'"');
        }
        Quote::WhereNeeded => write(line),
    }
}

fn decimal(line: &mut Vec<u8>, number: u64) {
    let width = number.checked_ilog10().map_or(1, |log| log as usize + 1);
    digits(line, number, width);
}

/// Appends the last `width` digits of `number`, with leading zeros.
fn digits(line: &mut Vec<u8>, mut number: u64, width: usize) {
    let start = line.len();
    line.resize(start + width, b'0');
    for digit in line[start..].iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

/// RFC 3339 in UTC with milliseconds: `2026-01-02T03:04:05.678Z`. A time before 1970 is 1970.
fn rfc3339(line: &mut Vec<u8>, time: SystemTime) {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = civil(days);
    for (number, width, then) in [
        (year, 4, b'-'),
        (month, 2, b'-'),
        (day, 2, b'T'),
        (second / 3600, 2, b':'),
        (second / 60 % 60, 2, b':'),
        (second % 60, 2, b'.'),
        (u64::from(since.subsec_millis()), 3, b'Z'),
    ] {
        digits(line, number, width);
        line.push(then);
    }
}

/// Year, month and day of a day counted from 1970-01-01, in the Gregorian calendar. Years are counted
/// from March here, so that the leap day is the last one of its year.
fn civil(days: u64) -> (u64, u64, u64) {
    const DAYS_IN_400_YEARS: u64 = 146_097;
    // 0000-03-01 is 719,468 days before 1970-01-01.
    let days = days.saturating_add(719_468);
    let (era, day) = (days / DAYS_IN_400_YEARS, days % DAYS_IN_400_YEARS);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    // Months from March repeat 31, 30, 31, 30, 31: 153 days in five.
    let month = (5 * day + 2) / 153;
    let day_of_month = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + u64::from(month <= 2), month, day_of_month)
}

#[cfg(test)]
mod tests;
