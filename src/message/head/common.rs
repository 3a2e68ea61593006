//! The names that clients write most, in the case in which they write them.
//!
//! Found here, a name needs neither to be brought to lower case nor, where it is none of the names that the map of
//! fields knows by itself, memory of its own.

use http::HeaderName;
use http::header;

/// How many there are.
const COUNT: usize = 44;

/// How they are written, the shorter ones first.
const WRITTEN: [&str; COUNT] = [
    "Range",
    "Accept",
    "Cookie",
    "Origin",
    "Pragma",
    "accept",
    "cookie",
    "origin",
    "Referer",
    "referer",
    "Sec-GPC",
    "Priority",
    "priority",
    "sec-ch-ua",
    "X-Real-IP",
    "User-Agent",
    "user-agent",
    "traceparent",
    "Authorization",
    "authorization",
    "Cache-Control",
    "cache-control",
    "If-None-Match",
    "if-none-match",
    "Sec-Fetch-Dest",
    "Sec-Fetch-Mode",
    "Sec-Fetch-Site",
    "Sec-Fetch-User",
    "sec-fetch-dest",
    "sec-fetch-mode",
    "sec-fetch-site",
    "Accept-Encoding",
    "Accept-Language",
    "X-Forwarded-For",
    "accept-encoding",
    "accept-language",
    "X-Forwarded-Host",
    "X-Requested-With",
    "sec-ch-ua-mobile",
    "If-Modified-Since",
    "X-Forwarded-Proto",
    "sec-ch-ua-platform",
    "Upgrade-Insecure-Requests",
    "upgrade-insecure-requests",
];

/// What each of them names.
static NAMES: [HeaderName; COUNT] = [
    header::RANGE,
    header::ACCEPT,
    header::COOKIE,
    header::ORIGIN,
    header::PRAGMA,
    header::ACCEPT,
    header::COOKIE,
    header::ORIGIN,
    header::REFERER,
    header::REFERER,
    HeaderName::from_static("sec-gpc"),
    HeaderName::from_static("priority"),
    HeaderName::from_static("priority"),
    HeaderName::from_static("sec-ch-ua"),
    HeaderName::from_static("x-real-ip"),
    header::USER_AGENT,
    header::USER_AGENT,
    HeaderName::from_static("traceparent"),
    header::AUTHORIZATION,
    header::AUTHORIZATION,
    header::CACHE_CONTROL,
    header::CACHE_CONTROL,
    header::IF_NONE_MATCH,
    header::IF_NONE_MATCH,
    HeaderName::from_static("sec-fetch-dest"),
    HeaderName::from_static("sec-fetch-mode"),
    HeaderName::from_static("sec-fetch-site"),
    HeaderName::from_static("sec-fetch-user"),
    HeaderName::from_static("sec-fetch-dest"),
    HeaderName::from_static("sec-fetch-mode"),
    HeaderName::from_static("sec-fetch-site"),
    header::ACCEPT_ENCODING,
    header::ACCEPT_LANGUAGE,
    HeaderName::from_static("x-forwarded-for"),
    header::ACCEPT_ENCODING,
    header::ACCEPT_LANGUAGE,
    HeaderName::from_static("x-forwarded-host"),
    HeaderName::from_static("x-requested-with"),
    HeaderName::from_static("sec-ch-ua-mobile"),
    header::IF_MODIFIED_SINCE,
    HeaderName::from_static("x-forwarded-proto"),
    HeaderName::from_static("sec-ch-ua-platform"),
    header::UPGRADE_INSECURE_REQUESTS,
    header::UPGRADE_INSECURE_REQUESTS,
];

/// Two more than the length of the longest: names that are longer than that count as one longer.
const LENGTHS: usize = 27;

/// Where those of each length begin.
static BEGINS: [usize; LENGTHS + 1] = {
    let mut begins = [COUNT; LENGTHS + 1];
    let mut at = COUNT;
    let mut length = LENGTHS;
    while length > 0 {
        length -= 1;
        while at > 0 && WRITTEN[at - 1].len() >= length {
            at -= 1;
        }
        begins[length] = at;
    }
    begins
};

/// The name that is written so, if it is a common one.
pub(super) fn common(written: &[u8]) -> Option<HeaderName> {
    let [.., last] = written else { return None };
    let length = written.len().min(LENGTHS - 1);
    for at in BEGINS[length]..BEGINS[length + 1] {
        // Of those of one length few have their last byte in common.
        let name = WRITTEN[at].as_bytes();
        if name.last() == Some(last) && name == written {
            return Some(NAMES[at].clone());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_is_found_and_named_as_it_is_read() {
        assert!(WRITTEN.is_sorted_by_key(|name| name.len()));
        for (at, written) in WRITTEN.iter().enumerate() {
            assert!(written.len() < LENGTHS - 1, "{written}");
            assert_eq!(HeaderName::from_bytes(written.as_bytes()).ok().as_ref(), Some(&NAMES[at]));
            assert_eq!(common(written.as_bytes()).as_ref(), Some(&NAMES[at]), "{written}");
        }
    }

    proptest! {
        #[test]
        fn what_is_found_is_what_would_be_read(
            at in 0..COUNT,
            changed in any::<(prop::sample::Index, u8)>(),
            cut in 0..40_usize,
        ) {
            let mut bytes = WRITTEN[at].as_bytes().to_vec();
            let place = changed.0.index(bytes.len());
            bytes[place] = changed.1;
            bytes.truncate(cut);
            if let Some(name) = common(&bytes) {
                prop_assert_eq!(HeaderName::from_bytes(&bytes).ok(), Some(name));
            }
        }

        #[test]
        fn other_lengths_have_none(length in 0..60_usize) {
            prop_assert_eq!(common(&vec![b'-'; length]), None);
        }
    }
}
