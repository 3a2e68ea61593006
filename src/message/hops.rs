//! Fields that belong to one hop, the Via field, and loops (RFC 9110 §7.6).

use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use http::Method;
use http::Version;
use http::header;
use smallvec::SmallVec;

use crate::message::append::append;
use crate::message::append::append_few;
use crate::message::list;
use crate::message::names::NameList;
use crate::refusal::Refusal;

/// Our name in Via (RFC 9110 §7.6.3).
pub const PSEUDONYM: &str = "edgeproxy";

/// The most connection options that a request may name. Honest ones name three.
const MOST_OPTIONS: usize = 16;

/// Fields that are never passed on, whether Connection names them or not (RFC 9110 §7.6.1).
///
/// `Trailer` is among them because trailers are announced anew by whoever frames the next hop.
/// HTTP2-Settings belongs to the h2c upgrade, which we do not pass on.
const STANDARD: &[&str] = &[
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-authentication-info",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "http2-settings",
];

/// Fields that Connection cannot turn into hop-by-hop ones: they are meant for every recipient
/// (RFC 9110 §7.6.1), and a client that has them removed changes what the origin decides.
const ESSENTIAL: &[&str] = &[
    "host",
    "content-length",
    "content-type",
    "content-encoding",
    "content-range",
    "content-location",
    "cache-control",
    "pragma",
    "age",
    "date",
    "etag",
    "expires",
    "last-modified",
    "location",
    "vary",
    "via",
    "forwarded",
    "authorization",
    "www-authenticate",
    "cookie",
    "set-cookie",
    "origin",
    "referer",
    "expect",
    "max-forwards",
    "range",
    "if-match",
    "if-none-match",
    "if-modified-since",
    "if-unmodified-since",
    "if-range",
    "accept",
    "accept-encoding",
    "accept-language",
    "strict-transport-security",
    "content-security-policy",
    "access-control-allow-origin",
    "x-request-id",
    "traceparent",
    "tracestate",
    "x-real-ip",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
];

static STANDARD_NAMES: NameList = NameList::of(STANDARD);
static ESSENTIAL_NAMES: NameList = NameList::of(ESSENTIAL);

/// Names of fields: mostly very few.
pub type Names = SmallVec<[HeaderName; 3]>;

/// Checks the Connection field of a request.
///
/// # Errors
/// [`Refusal::BadConnection`] if an option is not a token, names a field that must not be removed,
/// or if there are more than 16 of them.
pub fn check_connection(headers: &HeaderMap) -> Result<(), Refusal> {
    if !headers.contains_key(header::CONNECTION) {
        return Ok(());
    }
    for (at, option) in list::elements(headers, &header::CONNECTION).enumerate() {
        if at >= MOST_OPTIONS || !list::is_token(option) || is_essential(option) {
            return Err(Refusal::BadConnection);
        }
    }
    Ok(())
}

/// Whether a field, in lower case, is one that we or the origin act upon by its meaning.
pub(super) fn has_fixed_meaning(name: &str) -> bool {
    is_standard(name.as_bytes()) || ESSENTIAL.contains(&name)
}

/// Whether a field is one of [`STANDARD`].
fn is_standard(name: &[u8]) -> bool {
    STANDARD_NAMES.contains_word(name)
}

fn is_essential(option: &[u8]) -> bool {
    ESSENTIAL_NAMES.contains_word(option)
}

/// The fields of this message that end here: the standard ones, and those that Connection names,
/// except the essential ones. Each is present in `headers`.
///
/// A caller that passes on an accepted upgrade, or trailers over HTTP/2, writes these fields anew
/// after removing them; see [`wants_trailers`].
#[must_use]
pub fn hop_by_hop(headers: &HeaderMap) -> Names {
    let mut found: Names =
        headers.keys().filter(|name| is_standard(name.as_str().as_bytes())).cloned().collect();
    if !headers.contains_key(header::CONNECTION) {
        return found;
    }
    for option in list::elements(headers, &header::CONNECTION) {
        // What is not a field name (`close` is one by its form) names no field. Mostly there is none.
        let is_there = str::from_utf8(option).is_ok_and(|name| headers.contains_key(name));
        if is_there
            && !is_essential(option)
            && let Ok(name) = HeaderName::from_bytes(option)
            && !found.contains(&name)
        {
            found.push(name);
        }
    }
    found
}

/// The names of fields that end here because Connection names them, in any case.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Nominated<'a>(SmallVec<[&'a [u8]; 3]>);

impl<'a> Nominated<'a> {
    /// What these lines of Connection name, the essential fields aside; `None` of what is better looked up in a map.
    pub fn by(lines: impl Iterator<Item = &'a [u8]>) -> Option<Self> {
        let mut named = SmallVec::new();
        for option in lines.flat_map(list::split) {
            // Nearly all say no more than how long the connection lasts, which names nobody's field.
            if list::is_word(option, b"keep-alive") || is_essential(option) {
                continue;
            }
            if named.len() == MOST_OPTIONS {
                return None;
            }
            named.push(option);
        }
        Some(Self(named))
    }

    /// Whether a field ends here: it is a standard one, or named.
    #[must_use]
    pub fn ends(&self, name: &[u8]) -> bool {
        is_standard(name) || self.0.iter().any(|named| named.eq_ignore_ascii_case(name))
    }
}

/// Whether the sender takes trailers: `TE: trailers` (RFC 9110 §10.1.4). gRPC servers insist on it,
/// so it is written anew towards an HTTP/2 origin.
#[must_use]
pub fn wants_trailers(headers: &HeaderMap) -> bool {
    headers.contains_key(header::TE) && list::names_token(headers, &header::TE, "trailers")
}

/// All Cookie lines as one, if there are several: HTTP/2 clients may split the field, other
/// recipients need it whole (RFC 9113 §8.2.3).
#[must_use]
pub fn joined_cookie(headers: &HeaderMap) -> Option<HeaderValue> {
    let mut lines = headers.get_all(header::COOKIE).into_iter();
    let first = lines.next()?;
    let mut next = lines.next();
    next?;
    let mut whole = first.as_bytes().to_vec();
    while let Some(line) = next {
        whole.extend_from_slice(b"; ");
        whole.extend_from_slice(line.as_bytes());
        next = lines.next();
    }
    HeaderValue::from_maybe_shared(bytes::Bytes::from(whole)).ok()
}

/// The Via field to send: what came, and ourselves behind it (RFC 9110 §7.6.3). `received` is the
/// version in which the message reached us.
#[must_use]
pub fn via(headers: &HeaderMap, received: Version) -> HeaderValue {
    let own = HeaderValue::from_static(own_via(received));
    if !headers.contains_key(header::VIA) {
        return own;
    }
    let mut whole = Vec::new();
    write_via(&mut whole, headers.get_all(header::VIA).iter().map(HeaderValue::as_bytes), received);
    HeaderValue::from_maybe_shared(bytes::Bytes::from(whole)).unwrap_or(own)
}

/// Writes the Via field to send behind what `out` has: these lines that came, and ourselves.
pub fn write_via<'a>(out: &mut Vec<u8>, came: impl Iterator<Item = &'a [u8]>, received: Version) {
    for line in came.map(list::trim).filter(|line| !line.is_empty()) {
        append(out, line);
        append_few(out, *b", ");
    }
    append(out, own_via(received).as_bytes());
}

/// Ourselves in Via.
fn own_via(received: Version) -> &'static str {
    match received {
        Version::HTTP_10 => "1.0 edgeproxy",
        Version::HTTP_2 => "2 edgeproxy",
        Version::HTTP_3 => "3 edgeproxy",
        _ => "1.1 edgeproxy",
    }
}

/// How often this message went through a proxy of our name: more often than the topology explains
/// is a loop. `pseudonym` is [`PSEUDONYM`] unless the installation has its own.
#[must_use]
pub fn times_through(headers: &HeaderMap, pseudonym: &str) -> usize {
    if !headers.contains_key(header::VIA) {
        return 0;
    }
    list::elements(headers, &header::VIA)
        .filter(|element| {
            // received-protocol RWS received-by [ RWS comment ]
            let mut words = element.split(|byte| matches!(byte, b' ' | b'\t'));
            let received_by = words.by_ref().filter(|word| !word.is_empty()).nth(1);
            received_by.is_some_and(|name| name.eq_ignore_ascii_case(pseudonym.as_bytes()))
        })
        .count()
}

/// What Max-Forwards asks of an intermediary (RFC 9110 §7.6.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MaxForwards {
    /// Nothing: not an OPTIONS request, or no valid field.
    Unlimited,
    /// The request is answered here.
    AnswerHere,
    /// The request is passed on with this number in its place.
    PassOn(u64),
}

/// Reads Max-Forwards of a request. It has a meaning for OPTIONS (and TRACE, which we refuse).
#[must_use]
pub fn max_forwards(method: &Method, headers: &HeaderMap) -> MaxForwards {
    if method != Method::OPTIONS {
        return MaxForwards::Unlimited;
    }
    let number = headers.get(header::MAX_FORWARDS).and_then(|value| {
        let digits = value.as_bytes();
        let valid = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
        valid.then(|| value.to_str().ok()?.parse::<u64>().ok()).flatten()
    });
    match number {
        None => MaxForwards::Unlimited,
        Some(0) => MaxForwards::AnswerHere,
        Some(number) => MaxForwards::PassOn(number - 1),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fields(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        lines
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    fn removed(lines: &[(&'static str, &'static str)]) -> Vec<String> {
        let mut names: Vec<_> =
            hop_by_hop(&fields(lines)).iter().map(ToString::to_string).collect();
        names.sort();
        names
    }

    #[test]
    fn no_standard_field_is_overlooked_for_its_length() {
        assert!(STANDARD.iter().all(|name| is_standard(name.as_bytes())));
        assert!(is_standard(b"Keep-Alive"));
        assert!(!is_standard(b"x-or"));
    }

    #[test]
    fn standard_hop_by_hop_fields_end_here() {
        for name in STANDARD {
            let mut headers = HeaderMap::new();
            headers.insert(*name, HeaderValue::from_static("x"));
            assert_eq!(hop_by_hop(&headers)[..], [*name]);
        }
        assert!(removed(&[("accept", "*/*"), ("host", "a")]).is_empty());
    }

    #[test]
    fn fields_named_by_connection_end_here_too() {
        let lines = [("connection", "close, X-Secret, te"), ("x-secret", "1"), ("te", "trailers")];
        assert_eq!(removed(&lines), ["connection", "te", "x-secret"]);
    }

    #[test]
    fn connection_cannot_remove_what_is_meant_for_everyone() {
        let lines =
            [("connection", "cookie, HOST, Content-Length"), ("cookie", "a"), ("host", "b")];
        assert_eq!(removed(&lines), ["connection"]);
        for name in ESSENTIAL {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONNECTION, HeaderValue::from_static(name));
            assert_eq!(check_connection(&headers), Err(Refusal::BadConnection), "{name}");
        }
    }

    #[test]
    fn connection_options_are_tokens_and_few() {
        let check = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONNECTION, HeaderValue::from_str(value).unwrap());
            check_connection(&headers)
        };
        assert_eq!(check("keep-alive, Upgrade, HTTP2-Settings"), Ok(()));
        assert_eq!(check(""), Ok(()));
        assert_eq!(check("a b"), Err(Refusal::BadConnection));
        assert_eq!(check("\"close\""), Err(Refusal::BadConnection));
        assert_eq!(check(&["a"; 16].join(",")), Ok(()));
        assert_eq!(check(&["a"; 17].join(",")), Err(Refusal::BadConnection));
        assert_eq!(check_connection(&HeaderMap::new()), Ok(()));
    }

    #[test]
    fn te_trailers_is_seen_among_others() {
        assert!(wants_trailers(&fields(&[("te", "gzip, Trailers")])));
        assert!(!wants_trailers(&fields(&[("te", "gzip")])));
        assert!(!wants_trailers(&HeaderMap::new()));
    }

    #[test]
    fn split_cookies_become_one_line() {
        assert_eq!(joined_cookie(&HeaderMap::new()), None);
        assert_eq!(joined_cookie(&fields(&[("cookie", "a=1")])), None);
        let joined =
            joined_cookie(&fields(&[("cookie", "a=1"), ("cookie", "b=2"), ("cookie", "c")]));
        assert_eq!(joined, Some(HeaderValue::from_static("a=1; b=2; c")));
    }

    #[test]
    fn via_names_us_last_with_the_version_received() {
        assert_eq!(via(&HeaderMap::new(), Version::HTTP_11), "1.1 edgeproxy");
        assert_eq!(via(&HeaderMap::new(), Version::HTTP_2), "2 edgeproxy");
        assert_eq!(via(&HeaderMap::new(), Version::HTTP_10), "1.0 edgeproxy");
        let headers =
            fields(&[("via", "1.0 fred, 1.1 p.example "), ("via", ""), ("via", "2 x (y)")]);
        assert_eq!(
            via(&headers, Version::HTTP_11),
            "1.0 fred, 1.1 p.example, 2 x (y), 1.1 edgeproxy"
        );
    }

    #[test]
    fn our_own_name_is_counted_in_via() {
        let headers = fields(&[
            ("via", "1.1 edgeproxy, 1.1 edgeproxy2, HTTP/2  EdgeProxy (x)"),
            ("via", "1.1 other (edgeproxy), edgeproxy"),
        ]);
        assert_eq!(times_through(&headers, PSEUDONYM), 2);
        assert_eq!(times_through(&HeaderMap::new(), PSEUDONYM), 0);
        let mut headers = HeaderMap::new();
        for times in 1..=3 {
            headers.insert(header::VIA, via(&headers, Version::HTTP_11));
            assert_eq!(times_through(&headers, PSEUDONYM), times);
        }
    }

    #[test]
    fn max_forwards_counts_down_for_options_only() {
        let asked = |method, value| max_forwards(&method, &fields(&[("max-forwards", value)]));
        assert_eq!(asked(Method::OPTIONS, "0"), MaxForwards::AnswerHere);
        assert_eq!(asked(Method::OPTIONS, "1"), MaxForwards::PassOn(0));
        assert_eq!(asked(Method::OPTIONS, "-1"), MaxForwards::Unlimited);
        assert_eq!(asked(Method::OPTIONS, "+1"), MaxForwards::Unlimited);
        assert_eq!(asked(Method::OPTIONS, ""), MaxForwards::Unlimited);
        assert_eq!(asked(Method::GET, "0"), MaxForwards::Unlimited);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn any_connection_field_removes_only_what_is_there(value in "[ -~]{0,40}") {
            let mut headers = fields(&[("host", "a"), ("x", "1"), ("te", "trailers")]);
            headers.insert(header::CONNECTION, HeaderValue::from_str(&value).unwrap());
            let found = hop_by_hop(&headers);
            prop_assert!(found.iter().all(|name| headers.contains_key(name)));
            prop_assert!(!found.contains(&header::HOST));
            let _ = check_connection(&headers);
        }
    }
}
