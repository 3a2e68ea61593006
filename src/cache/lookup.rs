//! May I look? Whether the store may be asked about a request, and what the client may ask of it.

use http::HeaderMap;
use http::Method;
use http::header;

use crate::cache::Methods;
use crate::cache::Payload;
use crate::cache::Policy;
use crate::cache::Request;
use crate::cache::directives::RequestDirectives;

/// Whether the store may be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// Yes; [`crate::cache::reuse::may_serve`] takes the directives.
    Yes(RequestDirectives),
    /// No: the request goes to the origin past the cache, which keeps nothing of the answer.
    No(Bypass),
}

/// Why a request goes past the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Bypass {
    /// The route does not cache.
    Disabled,
    /// Only GET and HEAD are answered from the store.
    Method,
    /// The request carries content, which the key does not see.
    RequestBody,
    /// The client asks to change the protocol.
    Upgrade,
    /// A condition of the route.
    Route,
}

impl Bypass {
    /// Every reason.
    pub const ALL: [Self; 5] =
        [Self::Disabled, Self::Method, Self::RequestBody, Self::Upgrade, Self::Route];

    /// The name in logs, metrics and Cache-Status.
    pub fn label(self) -> &'static str {
        match self {
            Self::Disabled => "disabled",
            Self::Method => "method",
            Self::RequestBody => "request-body",
            Self::Upgrade => "upgrade",
            Self::Route => "route-bypass",
        }
    }
}

/// May the store be asked about this request? Range and the conditional fields do not matter here:
/// they are answered from what is found.
pub fn may_look(request: &Request<'_>, policy: &Policy) -> Look {
    if !policy.enabled {
        return Look::No(Bypass::Disabled);
    }
    let head_passes = policy.methods == Methods::Get && request.method == Method::HEAD;
    if !is_cached_method(request.method) || head_passes {
        return Look::No(Bypass::Method);
    }
    if request.payload == Payload::Present {
        return Look::No(Bypass::RequestBody);
    }
    if asks_for_upgrade(request.headers) {
        return Look::No(Bypass::Upgrade);
    }
    if policy.bypass.iter().any(|condition| condition.holds(request)) {
        return Look::No(Bypass::Route);
    }
    Look::Yes(RequestDirectives::of(request.headers, policy.client_directives))
}

/// Whether responses to this method are kept and reused.
pub(crate) fn is_cached_method(method: &Method) -> bool {
    method == Method::GET || method == Method::HEAD
}

fn asks_for_upgrade(headers: &HeaderMap) -> bool {
    headers.contains_key(header::UPGRADE)
}

#[cfg(test)]
mod tests {
    use http::HeaderName;
    use http::HeaderValue;

    use super::*;
    use crate::cache::ClientDirectives;
    use crate::cache::condition::Condition;
    use crate::cache::condition::Names;
    use crate::cache::condition::Place;
    use crate::cache::condition::Wanted;

    fn look(method: Method, lines: &[(&'static str, &'static str)], policy: &Policy) -> Look {
        let headers = lines
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect();
        may_look(&Request::new(&method, &headers), policy)
    }

    #[test]
    fn get_and_head_are_looked_up() {
        for method in [Method::GET, Method::HEAD] {
            assert!(matches!(look(method, &[], &Policy::default()), Look::Yes(_)));
        }
    }

    #[test]
    fn other_methods_are_not() {
        for method in [Method::POST, Method::PUT, Method::OPTIONS, Method::DELETE] {
            assert_eq!(look(method, &[], &Policy::default()), Look::No(Bypass::Method));
        }
    }

    #[test]
    fn a_route_may_leave_heads_to_the_origin() {
        let policy = Policy { methods: Methods::Get, ..Policy::default() };
        assert_eq!(look(Method::HEAD, &[], &policy), Look::No(Bypass::Method));
        assert!(matches!(look(Method::GET, &[], &policy), Look::Yes(_)));
    }

    #[test]
    fn method_names_are_case_sensitive() {
        let lower = Method::from_bytes(b"get").unwrap();
        assert_eq!(look(lower, &[], &Policy::default()), Look::No(Bypass::Method));
    }

    #[test]
    fn a_route_without_cache_is_not_looked_up() {
        let off = Policy { enabled: false, ..Policy::default() };
        assert_eq!(look(Method::GET, &[], &off), Look::No(Bypass::Disabled));
    }

    #[test]
    fn a_get_with_content_goes_past_the_cache() {
        for line in [("content-length", "3"), ("transfer-encoding", "chunked")] {
            assert_eq!(
                look(Method::GET, &[line], &Policy::default()),
                Look::No(Bypass::RequestBody)
            );
        }
    }

    #[test]
    fn a_content_length_of_zero_is_no_content() {
        let zero = [("content-length", "0")];
        assert!(matches!(look(Method::GET, &zero, &Policy::default()), Look::Yes(_)));
    }

    #[test]
    fn content_without_framing_fields_is_said_by_the_caller() {
        let (method, headers) = (Method::GET, HeaderMap::new());
        let request = Request::new(&method, &headers).with_payload(Payload::Present);
        assert_eq!(may_look(&request, &Policy::default()), Look::No(Bypass::RequestBody));
    }

    #[test]
    fn an_upgrade_goes_past_the_cache() {
        let websocket = [("upgrade", "websocket")];
        assert_eq!(look(Method::GET, &websocket, &Policy::default()), Look::No(Bypass::Upgrade));
    }

    #[test]
    fn any_condition_of_the_route_sends_a_request_past_the_cache() {
        let when = |place| Condition { place, wanted: Wanted::Present };
        let policy = Policy {
            bypass: vec![
                when(Place::Header(HeaderName::from_static("x-preview"))),
                when(Place::Cookie(Names::read("session"))),
            ],
            ..Policy::default()
        };
        for line in [("x-preview", ""), ("cookie", "a=b; session=1")] {
            assert_eq!(look(Method::GET, &[line], &policy), Look::No(Bypass::Route), "{line:?}");
        }
        assert!(matches!(look(Method::GET, &[("cookie", "a=b")], &policy), Look::Yes(_)));
    }

    #[test]
    fn authorization_cookies_and_ranges_may_look() {
        let lines = [("authorization", "x"), ("cookie", "a=b"), ("range", "bytes=0-1")];
        assert!(matches!(look(Method::GET, &lines, &Policy::default()), Look::Yes(_)));
    }

    #[test]
    fn the_directives_are_those_the_route_honours() {
        let lines = [("cache-control", "no-cache, only-if-cached")];
        let Look::Yes(limited) = look(Method::GET, &lines, &Policy::default()) else {
            panic!("a GET is looked up");
        };
        assert!(limited.only_if_cached && !limited.no_cache);
        let honour = Policy { client_directives: ClientDirectives::Honour, ..Policy::default() };
        let Look::Yes(all) = look(Method::GET, &lines, &honour) else {
            panic!("a GET is looked up");
        };
        assert!(all.only_if_cached && all.no_cache);
    }
}
