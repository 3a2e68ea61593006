//! Checks of single fields: bytes, counts, sizes, duplicates, and what is never passed on.

use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use http::Version;
use http::header;

use crate::message::admit::Limits;
use crate::message::certificate;
use crate::message::forwarded;
use crate::message::head::bytes::skip_value;
use crate::message::hops;
use crate::message::list;
use crate::message::names::NameList;
use crate::message::names::has_underscore;
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

static DROPPED_NAMES: NameList = NameList::of(DROPPED);

/// Whether this is one of the names that nearly all requests have, and that no rule here speaks of: it is not
/// dropped, and has no underscore.
#[must_use]
pub fn is_ordinary(name: &HeaderName) -> bool {
    matches!(
        *name,
        header::ACCEPT
            | header::ACCEPT_ENCODING
            | header::ACCEPT_LANGUAGE
            | header::AUTHORIZATION
            | header::CACHE_CONTROL
            | header::CONTENT_LENGTH
            | header::CONTENT_TYPE
            | header::COOKIE
            | header::DNT
            | header::HOST
            | header::IF_MODIFIED_SINCE
            | header::IF_NONE_MATCH
            | header::ORIGIN
            | header::PRAGMA
            | header::RANGE
            | header::REFERER
            | header::UPGRADE_INSECURE_REQUESTS
            | header::USER_AGENT
    )
}

/// Whether a request field is never passed on: one of [`DROPPED`], one that tells of a client's certificate, or a name that CGI and its heirs
/// cannot tell from one that we write or check (`x_forwarded_for` and `x-forwarded-for` are both
/// HTTP_X_FORWARDED_FOR there).
#[must_use]
pub fn is_dropped(name: &HeaderName) -> bool {
    let name = name.as_str();
    if !has_underscore(name) {
        return DROPPED_NAMES.contains(name) || certificate::is_claim(name);
    }
    let twin = name.replace('_', "-");
    DROPPED_NAMES.contains(&twin)
        || certificate::is_claim(&twin)
        || forwarded::is_address_claim(&twin)
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

/// Which fields a request has of those that are read before anything else; noted while all are checked, since each
/// look-up of one that is not there would cost as much as a look at a few.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Present<'a> {
    /// The first Host.
    pub(super) host: Option<&'a HeaderValue>,
    /// There is more than one Host.
    pub(super) hosts: bool,
    /// There is a Content-Length.
    pub(super) length: bool,
    /// There is a Transfer-Encoding.
    pub(super) codings: bool,
    /// There is an Expect.
    pub(super) expect: bool,
    /// There is an Upgrade.
    pub(super) upgrade: bool,
    /// There is a Connection.
    connection: bool,
}

impl<'a> Present<'a> {
    fn note(&mut self, name: &HeaderName, value: &'a HeaderValue) {
        match *name {
            header::HOST => {
                self.hosts = self.host.is_some();
                self.host = self.host.or(Some(value));
            }
            header::CONTENT_LENGTH => self.length = true,
            header::TRANSFER_ENCODING => self.codings = true,
            header::EXPECT => self.expect = true,
            header::UPGRADE => self.upgrade = true,
            header::CONNECTION => self.connection = true,
            _ => {}
        }
    }
}

/// Checks all fields of a request.
pub(super) fn check<'a>(
    headers: &'a HeaderMap,
    version: Version,
    limits: &Limits,
) -> Result<Present<'a>, Refusal> {
    if headers.len() > limits.header_fields {
        return Err(Refusal::TooManyFields);
    }
    let mut bytes = 0;
    let mut present = Present::default();
    for (name, value) in headers {
        bytes += field_size(name, value);
        check_value(value.as_bytes(), version)?;
        present.note(name, value);
    }
    if bytes > limits.header_bytes {
        return Err(Refusal::HeadTooLarge);
    }
    if version == Version::HTTP_2 {
        check_connection_specific(headers)?;
    } else if present.connection {
        hops::check_connection(headers)?;
    }
    // Without repeated names, which is nearly always, there is nothing to look for.
    if headers.len() > headers.keys_len() {
        check_single(headers)?;
    }
    Ok(present)
}

/// Values hold tabs, visible and obs-text bytes (RFC 9110 §5.5). Parsers that skip the checks of the
/// `http` crate exist, so this does not rely on them.
fn check_value(value: &[u8], version: Version) -> Result<(), Refusal> {
    if skip_value(value) < value.len() {
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
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_was_noted_is_what_a_look_up_finds(
            names in prop::collection::vec(
                prop::sample::select(&[
                    header::HOST,
                    header::CONTENT_LENGTH,
                    header::TRANSFER_ENCODING,
                    header::EXPECT,
                    header::UPGRADE,
                    header::CONNECTION,
                    header::ACCEPT,
                ][..]),
                0..8,
            ),
        ) {
            let mut headers = HeaderMap::new();
            for (at, name) in names.into_iter().enumerate() {
                headers.append(name, HeaderValue::from(at));
            }
            let mut present = Present::default();
            for (name, value) in &headers {
                present.note(name, value);
            }
            let expected = Present {
                host: headers.get(header::HOST),
                hosts: headers.get_all(header::HOST).iter().count() > 1,
                length: headers.contains_key(header::CONTENT_LENGTH),
                codings: headers.contains_key(header::TRANSFER_ENCODING),
                expect: headers.contains_key(header::EXPECT),
                upgrade: headers.contains_key(header::UPGRADE),
                connection: headers.contains_key(header::CONNECTION),
            };
            prop_assert_eq!(present, expected);
        }
    }

    #[test]
    fn what_is_ordinary_is_spoken_of_by_no_rule() {
        let common = [header::HOST, header::USER_AGENT, header::COOKIE, header::RANGE];
        assert!(common.iter().all(is_ordinary));
        let lists = [DROPPED, forwarded::ADDRESS_CLAIMS];
        let special = lists.into_iter().flatten().copied();
        for name in special.chain(["connection", "te", "expect", "via", "forwarded", "upgrade"]) {
            assert!(!is_ordinary(&HeaderName::from_static(name)), "{name}");
        }
        for name in &certificate::FIELDS {
            assert!(!is_ordinary(name), "{name}");
        }
    }

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
