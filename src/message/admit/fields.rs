//! Checks of single fields: bytes, counts, sizes, duplicates, and what is never passed on.

use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use http::Version;
use http::header;

use crate::message::admit::Limits;
use crate::message::certificate;
use crate::message::forwarded;
use crate::message::hops;
use crate::message::list;
use crate::refusal::Refusal;

/// Request fields that are never passed on: some framework behind us takes each of them in place of
/// what we checked, and none of them is part of a cache key.
///
/// - other targets: X-Original-URL and X-Rewrite-URL (IIS, Symfony), X-Original-URI and the like;
/// - other methods: X-HTTP-Method-Override and its kin (Rails, Spring, Express);
/// - other hosts, schemes, ports: X-Host, X-Forwarded-Server, X-Forwarded-Scheme (Rack) and so on;
/// - `Proxy`, which CGI turns into the variable HTTP_PROXY (httpoxy, CVE-2016-5385).
pub const DROPPED: &[&str] = &[
    "x-original-url",
    "x-original-uri",
    "x-original-host",
    "x-original-method",
    "x-rewrite-url",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-host",
    "x-http-host-override",
    "x-forwarded-server",
    "x-forwarded-scheme",
    "x-forwarded-protocol",
    "x-forwarded-ssl",
    "x-forwarded-port",
    "x-forwarded-prefix",
    "x-forwarded-path",
    "x-forwarded-uri",
    "x-forwarded-method",
    "x-url-scheme",
    "front-end-https",
    "proxy",
];

/// Fields that have one meaning only if they are there once. Recipients differ in which of two they
/// take.
const SINGLE: &[&str] = &[
    "authorization",
    "content-location",
    "content-range",
    "content-type",
    "if-range",
    "max-forwards",
    "origin",
    "proxy-authorization",
    "range",
    "sec-websocket-key",
];

/// Whether a request field is never passed on: one of [`DROPPED`], one that tells of a client's certificate, or a name that CGI and its heirs
/// cannot tell from one that we write or check (`x_forwarded_for` and `x-forwarded-for` are both
/// HTTP_X_FORWARDED_FOR there).
#[must_use]
pub fn is_dropped(name: &HeaderName) -> bool {
    let name = name.as_str();
    if !name.contains('_') {
        return DROPPED.contains(&name) || certificate::is_claim(name);
    }
    let twin = name.replace('_', "-");
    DROPPED.contains(&twin.as_str())
        || certificate::is_claim(&twin)
        || forwarded::ADDRESS_CLAIMS.contains(&twin.as_str())
        || hops::has_fixed_meaning(&twin)
}

/// The bytes of a header section, as HTTP/1 writes it.
#[must_use]
pub fn header_size(headers: &HeaderMap) -> usize {
    headers.iter().fold(0, |sum, (name, value)| sum + field_size(name, value))
}

fn field_size(name: &HeaderName, value: &HeaderValue) -> usize {
    // ": " and the line end.
    name.as_str().len() + value.len() + 4
}

/// Checks all fields of a request.
pub(super) fn check(headers: &HeaderMap, version: Version, limits: &Limits) -> Result<(), Refusal> {
    if headers.len() > limits.header_fields {
        return Err(Refusal::TooManyFields);
    }
    let mut bytes = 0;
    for (name, value) in headers {
        bytes += field_size(name, value);
        check_value(value.as_bytes(), version)?;
    }
    if bytes > limits.header_bytes {
        return Err(Refusal::HeadTooLarge);
    }
    if version == Version::HTTP_2 {
        check_connection_specific(headers)?;
    } else {
        hops::check_connection(headers)?;
    }
    // Without repeated names, which is nearly always, there is nothing to look for.
    if headers.len() > headers.keys_len() {
        check_single(headers)?;
    }
    Ok(())
}

/// Values hold tabs, visible and obs-text bytes (RFC 9110 §5.5). Parsers that skip the checks of the
/// `http` crate exist, so this does not rely on them.
fn check_value(value: &[u8], version: Version) -> Result<(), Refusal> {
    if value.iter().any(|&byte| byte != b'\t' && byte.is_ascii_control()) {
        return Err(Refusal::ControlByte);
    }
    // In HTTP/1 this is white space around the value; here it is the value (RFC 9113 §8.2.1).
    if version == Version::HTTP_2 && list::trim(value).len() != value.len() {
        return Err(Refusal::MalformedField);
    }
    Ok(())
}

/// HTTP/2 has no connection-specific fields, and TE says `trailers` (RFC 9113 §8.2.2).
fn check_connection_specific(headers: &HeaderMap) -> Result<(), Refusal> {
    for name in headers.keys() {
        match name.as_str() {
            "connection" | "keep-alive" | "proxy-connection" => return Err(Refusal::BadConnection),
            "transfer-encoding" => return Err(Refusal::BadTransferEncoding),
            "upgrade" => return Err(Refusal::BadUpgrade),
            _ => {}
        }
    }
    let foreign = headers
        .get_all(header::TE)
        .into_iter()
        .any(|value| !value.as_bytes().eq_ignore_ascii_case(b"trailers"));
    if foreign { Err(Refusal::BadConnection) } else { Ok(()) }
}

fn check_single(headers: &HeaderMap) -> Result<(), Refusal> {
    for name in headers.keys() {
        let repeated = || headers.get_all(name).into_iter().nth(1).is_some();
        let refusal = match name.as_str() {
            "host" => Refusal::DuplicateHost,
            "content-length" => Refusal::BadContentLength,
            "expect" => Refusal::BadExpect,
            name if SINGLE.contains(&name) => Refusal::MalformedField,
            _ => continue,
        };
        if repeated() {
            return Err(refusal);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_bytes_in_values_are_refused() {
        for version in [Version::HTTP_11, Version::HTTP_2] {
            for byte in (0..=0x1f_u8).chain([0x7f]).filter(|&byte| byte != b'\t') {
                let value = [b'a', byte, b'b'];
                assert_eq!(check_value(&value, version), Err(Refusal::ControlByte), "{byte}");
            }
            assert_eq!(check_value(b"a\tb ~\x80\xff", version), Ok(()));
            assert_eq!(check_value(b"", version), Ok(()));
        }
    }
}
