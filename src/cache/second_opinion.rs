//! What another implementation of RFC 9111 says: the crate `http-cache-semantics`, in property tests.
//!
//! Where the two differ for a reason, the cases keep away from it: that crate takes a repeated or
//! field-qualified directive for a plain one, gives `proxy-revalidate` no freshness at all, hears
//! `Pragma` beside `Cache-Control` and in responses, counts neither Date nor delay into an age, gives
//! `immutable` a day, stores few errors, and knows no windows for stale use.

use std::time::Duration;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use http::Method;
use http::StatusCode;
use http_cache_semantics::CacheOptions;
use http_cache_semantics::CachePolicy;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use crate::cache::ClientDirectives;
use crate::cache::Exchange;
use crate::cache::Policy;
use crate::cache::Request;
use crate::cache::Response;
use crate::cache::date;
use crate::cache::directives::RequestDirectives;
use crate::cache::reuse;
use crate::cache::reuse::Origin;
use crate::cache::reuse::Reuse;
use crate::cache::storable;
use crate::cache::storable::Keep;
use crate::cache::vary;

/// When the response arrived.
const ARRIVED: u64 = 1_800_000_000;

fn after(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(ARRIVED + seconds)
}

fn fields(lines: Vec<(&'static str, String)>) -> HeaderMap {
    let line = |(name, value): (&'static str, String)| {
        let value = HeaderValue::from_str(&value).expect("the cases are readable");
        (HeaderName::from_static(name), value)
    };
    lines.into_iter().map(line).collect()
}

/// Directives by name, each once at most; empty where there are none.
fn directives(flags: &[(bool, &str)], numbers: &[(Option<u64>, &str)]) -> String {
    let flags = flags.iter().filter(|(set, _)| *set).map(|(_, name)| (*name).to_owned());
    let numbers = numbers.iter().filter_map(|(n, name)| n.map(|n| format!("{name}={n}")));
    flags.chain(numbers).collect::<Vec<_>>().join(", ")
}

prop_compose! {
    fn response()(
        flags in prop::array::uniform5(prop::bool::weighted(0.12)),
        max_age in option::weighted(0.4, select(vec![0u64, 5, 60, 600])),
        s_maxage in option::weighted(0.2, select(vec![0u64, 5, 60, 600])),
        expires in option::weighted(0.3, select(vec![-60i64, 0, 60, 600])),
        modified in option::weighted(0.4, select(vec![100u64, 1_000, 100_000])),
        age in option::weighted(0.3, select(vec![0u64, 3, 50, 1_000])),
        vary in prop::bool::weighted(0.3),
    ) -> HeaderMap {
        let [no_store, private, no_cache, must_revalidate, public] = flags;
        let said = directives(
            &[
                (no_store, "no-store"),
                (private, "private"),
                (no_cache, "no-cache"),
                (must_revalidate, "must-revalidate"),
                (public, "public"),
            ],
            &[(max_age, "max-age"), (s_maxage, "s-maxage")],
        );
        let at = |offset: i64| date::format(UNIX_EPOCH + Duration::from_secs(ARRIVED.saturating_add_signed(offset)));
        let mut lines = vec![("date", at(0))];
        if !said.is_empty() {
            lines.push(("cache-control", said));
        }
        lines.extend(expires.map(|offset| ("expires", at(offset))));
        lines.extend(modified.map(|ago| ("last-modified", at(-i64::try_from(ago).expect("small")))));
        lines.extend(age.map(|age| ("age", age.to_string())));
        if vary {
            lines.push(("vary", "x-a".to_owned()));
        }
        fields(lines)
    }
}

prop_compose! {
    fn request()(
        no_cache in prop::bool::weighted(0.08),
        no_store in prop::bool::weighted(0.08),
        max_age in option::weighted(0.15, select(vec![0u64, 10, 100])),
        min_fresh in option::weighted(0.15, select(vec![1u64, 30])),
        pragma in prop::bool::weighted(0.08),
        authorization in prop::bool::weighted(0.2),
        a in option::weighted(0.5, select(vec!["1", "2"])),
    ) -> HeaderMap {
        let said = directives(
            &[(no_cache, "no-cache"), (no_store, "no-store")],
            &[(max_age, "max-age"), (min_fresh, "min-fresh")],
        );
        let mut lines = Vec::new();
        match (said.is_empty(), pragma) {
            (false, _) => lines.push(("cache-control", said)),
            (true, true) => lines.push(("pragma", "no-cache".to_owned())),
            (true, false) => {}
        }
        if authorization {
            lines.push(("authorization", "Bearer a".to_owned()));
        }
        lines.extend(a.map(|a| ("x-a", a.to_owned())));
        fields(lines)
    }
}

/// Whether the answer to `first` may be given to `second` without asking, as we see it.
fn ours(
    first: &HeaderMap,
    status: StatusCode,
    response: &HeaderMap,
    second: &HeaderMap,
    now: SystemTime,
) -> bool {
    let policy = Policy { client_directives: ClientDirectives::Honour, ..Policy::default() };
    let asked = Request::new(&Method::GET, first);
    let given = Response { status, headers: response };
    let Keep::Yes(kept) = storable::may_keep(&asked, &given, &policy, Exchange::at(after(0)))
    else {
        return false;
    };
    let selects = vary::matches(&kept.vary, &vary::selecting(&kept.vary, first), second);
    let wishes = RequestDirectives::of(second, policy.client_directives);
    selects && reuse::may_serve(&kept.life, &wishes, now, Origin::Reachable) == Reuse::Fresh
}

/// The same, as the other sees it.
fn theirs(
    first: &HeaderMap,
    status: StatusCode,
    response: &HeaderMap,
    second: &HeaderMap,
    now: SystemTime,
) -> bool {
    let request = |headers: &HeaderMap| {
        let mut request = http::Request::new(());
        *request.headers_mut() = headers.clone();
        request
    };
    let mut given = http::Response::new(());
    *given.status_mut() = status;
    *given.headers_mut() = response.clone();
    let options = CacheOptions { shared: true, ..CacheOptions::default() };
    let policy = CachePolicy::new_options(&request(first), &given, after(0), options);
    policy.is_storable()
        && policy.before_request(&request(second), now).satisfies_without_revalidation()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(5_000))]

    #[test]
    fn another_implementation_would_serve_the_same(
        first in request(),
        status in select(vec![200u16, 203, 404, 410, 301, 302]),
        response in response(),
        second in request(),
        later in select(vec![0u64, 1, 4, 5, 9, 11, 59, 60, 61, 599, 600, 9_999, 10_001]),
    ) {
        let status = StatusCode::from_u16(status).expect("a status");
        let (now, stated) = (after(later), storable_by_its_word(&response));
        // A guess is for the statuses that RFC 9110 §15.1 names, and theirs for all they store.
        prop_assume!(stated || status.as_u16() != 302);
        let ours = ours(&first, status, &response, &second, now);
        let theirs = theirs(&first, status, &response, &second, now);
        prop_assert_eq!(ours, theirs, "{:?}", response);
    }
}

/// Whether it says itself how long it is fresh.
fn storable_by_its_word(response: &HeaderMap) -> bool {
    let said = response.get("cache-control").map_or("", |value| value.to_str().unwrap_or_default());
    response.contains_key("expires") || said.contains("max-age") || said.contains("s-maxage")
}

#[test]
fn the_cases_are_of_both_kinds() {
    let minute = fields(vec![("cache-control", "max-age=60".to_owned())]);
    let (none, ok) = (HeaderMap::new(), StatusCode::OK);
    for (later, fresh) in [(59, true), (60, false)] {
        assert_eq!(ours(&none, ok, &minute, &none, after(later)), fresh);
        assert_eq!(theirs(&none, ok, &minute, &none, after(later)), fresh);
    }
}
