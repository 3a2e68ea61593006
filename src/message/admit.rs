//! The one gate: what a request has to be before anything else looks at it.
//!
//! HTTP/1 and HTTP/2 requests pass the same checks once they are parsed. What the next hop could
//! read differently is refused, not repaired; the caller answers and closes the connection. What
//! passes is known by its [`Admitted`] form from here on: routing, the cache key and the origin see
//! nothing else.

mod fields;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

use http::HeaderMap;
use http::Method;
use http::Version;
use http::header;

pub use crate::message::admit::fields::DROPPED;
use crate::message::admit::fields::Present;
pub use crate::message::admit::fields::header_size;
pub use crate::message::admit::fields::is_dropped;
pub use crate::message::admit::fields::is_ordinary;
use crate::message::forwarded::Trust;
use crate::message::list;
use crate::message::target::Authority;
use crate::message::target::Host;
use crate::message::target::Normalisation;
use crate::message::target::Scheme;
use crate::message::target::Target;
use crate::refusal::Refusal;

/// A request as it was received.
#[derive(Debug, Clone, Copy)]
pub struct Received<'a> {
    /// The method.
    pub method: &'a Method,
    /// The raw target: of the request line in HTTP/1, `:path` in HTTP/2.
    pub target: &'a [u8],
    /// The version.
    pub version: Version,
    /// All fields, Host included.
    pub headers: &'a HeaderMap,
    /// The scheme of the connection: `https` under TLS.
    pub scheme: Scheme,
    /// `:authority` of HTTP/2; `None` in HTTP/1.
    pub authority: Option<&'a [u8]>,
    /// What Host was read as before, to save reading it once more; `None` if it was not.
    pub read: Option<&'a Authority>,
    /// Whom an HTTP/1.0 request without Host is for: the listener's address. Other versions need none.
    pub fallback: Option<&'a Authority>,
}

/// How large a request header may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Names, values and four bytes for each line, in all.
    pub header_bytes: usize,
    /// Field lines.
    pub header_fields: usize,
    /// The raw target, in bytes.
    pub target_bytes: usize,
}

/// The longest method, in bytes; the longest that is registered has 17.
pub const MOST_METHOD: usize = 32;

/// A request that may be acted upon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admitted {
    /// The scheme of the connection.
    pub scheme: Scheme,
    /// Whom the request is for, without the scheme's default port.
    pub authority: Authority,
    /// What it is for, in normal form; `*` if `asterisk`.
    pub target: Target,
    /// Whether this is `OPTIONS *`: about the server, not about a resource.
    pub asterisk: bool,
    /// How the body is framed.
    pub body: Body,
    /// The protocol that may take over the connection.
    pub upgrade: Upgrade,
}

/// How a request's body is framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    /// There is none.
    None,
    /// So many bytes; may be 0.
    Length(u64),
    /// HTTP/1.1 chunks.
    Chunked,
    /// HTTP/2 without Content-Length: until the stream ends, which may be at once.
    Stream,
}

/// What the client would switch to (RFC 9110 §7.8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Upgrade {
    /// Nothing, or nothing that we tunnel: the field is removed and the request goes on without.
    None,
    /// `websocket`; valid in itself, still to be accepted by the origin.
    WebSocket,
}

/// Checks a request and brings it into its normal form.
///
/// # Errors
/// The first reason found for which the request is not passed on.
pub fn admit(
    request: &Received<'_>,
    limits: &Limits,
    how: &Normalisation,
) -> Result<Admitted, Refusal> {
    if !matches!(request.version, Version::HTTP_10 | Version::HTTP_11 | Version::HTTP_2) {
        return Err(Refusal::UnsupportedVersion);
    }
    // TRACE echoes credentials, CONNECT makes tunnels; a reverse proxy does neither.
    if matches!(*request.method, Method::TRACE | Method::CONNECT) {
        return Err(Refusal::MethodNotAllowed);
    }
    if request.method.as_str().len() > MOST_METHOD {
        return Err(Refusal::BadMethod);
    }
    if request.target.len() > limits.target_bytes {
        return Err(Refusal::TargetTooLong);
    }
    let present = fields::check(request.headers, request.version, limits)?;
    let body = framing(request.headers, request.version, &present)?;
    if present.expect {
        check_expect(request.headers)?;
    }
    let upgrade = if present.upgrade { upgrade(request, body)? } else { Upgrade::None };
    let (target, named) = locate(request, how)?;
    let authority = authority(request, named, &present)?;
    Ok(Admitted {
        scheme: request.scheme,
        authority: authority.without_default_port(request.scheme),
        asterisk: target.path() == "*",
        target,
        body,
        upgrade,
    })
}

/// Whether `:scheme` of HTTP/2, where it is known, is that of the connection: as for a target in
/// absolute form, what is asked for over TLS is not served over plain text, nor the reverse
/// (RFC 9110 §7.4). A trusted proxy that ended TLS itself may hand on the scheme that its client used.
///
/// # Errors
/// [`Refusal::Misdirected`] for the other scheme, [`Refusal::BadTarget`] for one that is none of ours.
pub fn check_scheme(named: Option<&[u8]>, connection: Scheme, peer: Trust) -> Result<(), Refusal> {
    let Some(named) = named else { return Ok(()) };
    match (Scheme::parse(named), peer) {
        (None, _) => Err(Refusal::BadTarget),
        (Some(_), Trust::Trusted) => Ok(()),
        (Some(named), Trust::Untrusted) if named == connection => Ok(()),
        (Some(_), Trust::Untrusted) => Err(Refusal::Misdirected),
    }
}

/// The body's framing, of which there must be exactly one reading (RFC 9112 §6).
fn framing(headers: &HeaderMap, version: Version, present: &Present<'_>) -> Result<Body, Refusal> {
    let length = if present.length { content_length(headers)? } else { None };
    if present.codings {
        // HTTP/1.0 has none, and who sends one anyway may share a connection with one who does not
        // (§6.1). In HTTP/2 the field was refused before.
        if version != Version::HTTP_11 {
            return Err(Refusal::BadTransferEncoding);
        }
        // The RFC lets us prefer Transfer-Encoding; refusing leaves no one a choice (§6.1).
        if length.is_some() {
            return Err(Refusal::AmbiguousLength);
        }
        return only_chunked(headers);
    }
    Ok(match (length, version) {
        (Some(length), _) => Body::Length(length),
        (None, Version::HTTP_2) => Body::Stream,
        (None, _) => Body::None,
    })
}

/// Transfer-Encoding: one line that says `chunked` and nothing else.
fn only_chunked(headers: &HeaderMap) -> Result<Body, Refusal> {
    let mut lines = headers.get_all(header::TRANSFER_ENCODING).into_iter();
    if let (Some(line), None) = (lines.next(), lines.next())
        && line.as_bytes().eq_ignore_ascii_case(b"chunked")
    {
        return Ok(Body::Chunked);
    }
    // A coding that exists but that we do not do is 501; anything odd about chunked is 400.
    let unknown = list::elements(headers, &header::TRANSFER_ENCODING)
        .any(|coding| list::is_token(coding) && !coding.eq_ignore_ascii_case(b"chunked"));
    Err(if unknown { Refusal::UnknownTransferCoding } else { Refusal::BadTransferEncoding })
}

/// Content-Length: one line of digits, no more than 2^63 - 1, no leading zero.
fn content_length(headers: &HeaderMap) -> Result<Option<u64>, Refusal> {
    let mut lines = headers.get_all(header::CONTENT_LENGTH).into_iter();
    let digits = match (lines.next(), lines.next()) {
        (None, _) => return Ok(None),
        // Two equal lines may be taken for one (RFC 9112 §6.3), but no honest client sends them.
        (Some(_), Some(_)) => return Err(Refusal::BadContentLength),
        (Some(line), None) => line.as_bytes(),
    };
    if !matches!(digits, [b'0'] | [b'1'..=b'9', ..]) {
        return Err(Refusal::BadContentLength);
    }
    let length = digits.iter().try_fold(0_i64, |length, byte| match byte {
        b'0'..=b'9' => length.checked_mul(10)?.checked_add(i64::from(byte - b'0')),
        _ => None,
    });
    length.and_then(|length| u64::try_from(length).ok()).ok_or(Refusal::BadContentLength).map(Some)
}

/// Expect: `100-continue` or nothing (RFC 9110 §10.1.1). In HTTP/1.0 it means nothing; the caller
/// does not pass it on there.
fn check_expect(headers: &HeaderMap) -> Result<(), Refusal> {
    match headers.get(header::EXPECT) {
        Some(value) if !value.as_bytes().eq_ignore_ascii_case(b"100-continue") => {
            Err(Refusal::BadExpect)
        }
        _ => Ok(()),
    }
}

/// Of a request with an Upgrade field: an upgrade to WebSocket is a GET without a body (RFC 6455 §4.1): bytes of a body behind it could
/// be read as frames, or frames as requests. Other protocols, h2c above all, are not spoken behind
/// us; a server may ignore Upgrade (RFC 9110 §7.8), and curl sends h2c by itself.
fn upgrade(request: &Received<'_>, body: Body) -> Result<Upgrade, Refusal> {
    let headers = request.headers;
    let asked = request.version == Version::HTTP_11
        && list::names_token(headers, &header::CONNECTION, "upgrade")
        && list::names_token(headers, &header::UPGRADE, "websocket");
    if !asked {
        return Ok(Upgrade::None);
    }
    match body {
        Body::None | Body::Length(0) if request.method == Method::GET => Ok(Upgrade::WebSocket),
        _ => Err(Refusal::BadUpgrade),
    }
}

/// The target in normal form, and the authority that it names if it is in absolute form
/// (RFC 9112 §3.2).
fn locate(
    request: &Received<'_>,
    how: &Normalisation,
) -> Result<(Target, Option<Authority>), Refusal> {
    let options = request.method == Method::OPTIONS;
    match request.target {
        [b'/', ..] => Ok((Target::normalise(request.target, how)?, None)),
        b"*" if options => Ok((Target::asterisk(), None)),
        _ if request.target.iter().any(u8::is_ascii_control) => Err(Refusal::ControlByte),
        _ if request.version == Version::HTTP_2 => Err(Refusal::BadTarget),
        absolute => {
            let (authority, rest) = split_absolute(absolute, request.scheme)?;
            let target = match rest {
                // Without a path, OPTIONS is about the server (RFC 9112 §3.2.4).
                [] if options => Target::asterisk(),
                [b'/', ..] => Target::normalise(rest, how)?,
                _ => Target::normalise(&[b"/", rest].concat(), how)?,
            };
            Ok((target, Some(authority)))
        }
    }
}

/// The authority of an absolute-form target, and what follows it: a path, a query, or nothing.
fn split_absolute(absolute: &[u8], scheme: Scheme) -> Result<(Authority, &[u8]), Refusal> {
    let colon = absolute.iter().position(|&byte| byte == b':').ok_or(Refusal::BadTarget)?;
    let named = Scheme::parse(&absolute[..colon]).ok_or(Refusal::BadTarget)?;
    let rest = absolute[colon..].strip_prefix(b"://").ok_or(Refusal::BadTarget)?;
    // An https resource must not be served over plain text (RFC 9110 §7.4), and an http one over TLS
    // would be kept under a scheme that it does not have.
    if named != scheme {
        return Err(Refusal::Misdirected);
    }
    let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?' | b'#'));
    let (authority, rest) = rest.split_at(end.unwrap_or(rest.len()));
    Ok((Authority::parse(authority)?, rest))
}

/// Whom a request is for, if it says so, and what of it is asked for.
pub type OriginForm<'a> = (Option<Cow<'a, Host>>, Cow<'a, [u8]>);

/// The request line and Host that the parser behind us is given: origin-form, and one Host that
/// names what the client meant. [`admit`] judges the whole request afterwards; what only that parser
/// would refuse, in its own words and uncounted, is refused here. `known` keeps what Host was read as, for the next
/// request of the same client, which mostly says the same.
///
/// # Errors
/// The target is in no form that this method may use, or Host does not go with it.
pub fn origin_form<'a>(
    method: &Method,
    target: &'a [u8],
    host: Option<&[u8]>,
    scheme: Scheme,
    known: &'a mut Option<Host>,
) -> Result<OriginForm<'a>, Refusal> {
    if matches!(*method, Method::TRACE | Method::CONNECT) {
        return Err(Refusal::MethodNotAllowed);
    }
    let host = host.map(|host| Host::read_again(known, host)).transpose()?;
    match target {
        [b'/', ..] => Ok((host.map(Cow::Borrowed), Cow::Borrowed(target))),
        b"*" if *method == Method::OPTIONS => Ok((host.map(Cow::Borrowed), Cow::Borrowed(target))),
        absolute => {
            let (named, rest) = split_absolute(absolute, scheme)?;
            let named = Host::of(named)?;
            if host.is_some_and(|host| !named.authority().agrees_with(host.authority(), scheme)) {
                return Err(Refusal::ConflictingHost);
            }
            let target = match rest {
                [] if *method == Method::OPTIONS => Cow::Borrowed(b"*".as_slice()),
                [b'/', ..] => Cow::Borrowed(rest),
                _ => Cow::Owned([b"/", rest].concat()),
            };
            Ok((Some(Cow::Owned(named)), target))
        }
    }
}

/// Whom the request is for. Host and the target's authority may both say so, and must agree: the
/// RFC lets a proxy prefer the latter (RFC 9112 §3.2.2), but what is behind us may not.
fn authority(
    request: &Received<'_>,
    named: Option<Authority>,
    present: &Present<'_>,
) -> Result<Authority, Refusal> {
    let host = present.host;
    if present.hosts {
        return Err(Refusal::DuplicateHost);
    }
    let named = match (named, request.authority) {
        (None, Some(authority)) => Some(Authority::parse(authority)?),
        (named, _) => named,
    };
    let host = match (host, request.authority) {
        // The usual case of HTTP/2 with both: no need to read the same bytes twice.
        (Some(host), Some(authority)) if host.as_bytes() == authority => None,
        (Some(host), _) => match request.read.filter(|read| read.as_str() == host) {
            Some(read) => Some(read.clone()),
            None => Some(Authority::parse(host.as_bytes())?),
        },
        // Host is required even beside an absolute target (RFC 9112 §3.2).
        (None, _) if request.version == Version::HTTP_11 => return Err(Refusal::MissingHost),
        (None, _) => None,
    };
    match (named, host) {
        (Some(named), Some(host)) if !named.agrees_with(&host, request.scheme) => {
            Err(Refusal::ConflictingHost)
        }
        (Some(authority), _) | (None, Some(authority)) => Ok(authority),
        (None, None) => match request.fallback {
            Some(fallback) if request.version == Version::HTTP_10 => Ok(fallback.clone()),
            Some(_) | None => Err(Refusal::MissingHost),
        },
    }
}
