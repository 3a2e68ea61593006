use http::HeaderName;
use http::HeaderValue;
use http::Method;

use super::*;
use crate::cache::ClientDirectives;
use crate::cache::course;
use crate::cache::course::Stored;
use crate::cache::directives::RequestDirectives;
use crate::cache::freshness::Change;
use crate::cache::freshness::Staleness;
use crate::cache::freshness::Validation;
use crate::cache::reuse::Origin;

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + secs(1_800_000_000 + seconds)
}

/// Fresh for a minute, then stale.
fn life() -> Life {
    Life {
        arrived: at(0),
        age_at_arrival: secs(5),
        lifetime: secs(60),
        stale_while_revalidate: Duration::ZERO,
        stale_if_error: Duration::ZERO,
        staleness: Staleness::Open,
        validation: Validation::WhenStale,
        change: Change::Possible,
    }
}

fn fields(lines: &[(&'static str, &'static str)]) -> HeaderMap {
    let line = |(name, value): &(&'static str, &'static str)| {
        (HeaderName::from_static(name), HeaderValue::from_static(value))
    };
    lines.iter().map(line).collect()
}

/// What Cache-Status would say after its name, and the outcome.
fn of(
    method: Method,
    lines: &[(&'static str, &'static str)],
    policy: &Policy,
    stored: Stored<'_>,
    lately: Lately,
) -> (Option<&'static str>, String) {
    let headers = fields(lines);
    let request = Request::new(&method, &headers);
    let origin = if lately.failed { Origin::Failing } else { Origin::Reachable };
    let course = course::start(&request, policy)
        .map_or_else(|course| course, |asked| course::by_store(stored, &asked, at(10), origin));
    let verdict = verdict(&course, policy, lately);
    assert!(!verdict.says.is_empty() && !verdict.change.is_empty());
    let status = verdict.status.map(|status| status.to_string()).unwrap_or_default();
    (verdict.outcome.map(Outcome::label), status.replacen("edgeproxy; ", "", 1))
}

fn get(stored: Stored<'_>, lately: Lately) -> (Option<&'static str>, String) {
    of(Method::GET, &[], &Policy::default(), stored, lately)
}

#[test]
fn what_is_fresh_is_a_hit_with_what_is_left() {
    let found = get(Stored::Selected(&life()), Lately::default());
    assert_eq!(found, (Some("hit"), "hit; ttl=45".to_owned()));
}

#[test]
fn what_is_stale_asks_the_origin_or_serves_within_its_window() {
    let stale = Life { lifetime: secs(10), ..life() };
    let expired = (Some("expired"), "fwd=stale; detail=stale".to_owned());
    assert_eq!(get(Stored::Selected(&stale), Lately::default()), expired);
    let refreshed = Life { stale_while_revalidate: secs(9), ..stale };
    assert_eq!(
        get(Stored::Selected(&refreshed), Lately::default()),
        (Some("stale"), "hit; ttl=-5; detail=stale-while-revalidate".to_owned())
    );
    let kept = Life { stale_if_error: secs(9), ..stale };
    let failed = Lately { failed: true, ..Lately::default() };
    assert_eq!(
        get(Stored::Selected(&kept), failed),
        (Some("stale"), "hit; ttl=-5; detail=stale-if-error".to_owned())
    );
    assert_eq!(get(Stored::Selected(&kept), Lately::default()), expired);
}

#[test]
fn a_miss_says_whether_other_variants_are_there() {
    let lately = Lately::default();
    assert_eq!(get(Stored::Nothing, lately), (Some("miss"), "fwd=uri-miss".to_owned()));
    assert_eq!(get(Stored::OtherVariants, lately), (Some("miss"), "fwd=vary-miss".to_owned()));
}

#[test]
fn what_was_not_stored_lately_is_told() {
    let told = |lately| {
        let asked = RequestDirectives::default();
        let course = course::by_store(Stored::Nothing, &asked, at(0), Origin::Reachable);
        verdict(&course, &Policy::default(), lately).change.len()
    };
    assert_eq!(told(Lately::default()), 1);
    assert_eq!(told(Lately { unstored: true, ..Lately::default() }), 2);
    assert_eq!(told(Lately { unstored: true, failed: true, uses: 0 }), 3);
}

#[test]
fn what_goes_past_the_store_says_why() {
    let off = Policy { enabled: false, ..Policy::default() };
    let on = Policy::default();
    let fresh = life();
    for (method, line, policy, outcome, status) in [
        (Method::GET, None, &off, "bypass", "fwd=bypass; detail=disabled"),
        (Method::POST, None, &on, "miss", "fwd=method; detail=method"),
        (
            Method::GET,
            Some(("content-length", "1")),
            &on,
            "bypass",
            "fwd=bypass; detail=request-body",
        ),
        (Method::GET, Some(("upgrade", "x")), &on, "bypass", "fwd=bypass; detail=upgrade"),
        (Method::GET, Some(("if-match", "*")), &on, "miss", "fwd=request; detail=precondition"),
    ] {
        let lines: Vec<_> = line.into_iter().collect();
        let found = of(method, &lines, policy, Stored::Selected(&fresh), Lately::default());
        assert_eq!(found, (Some(outcome), status.to_owned()));
    }
}

#[test]
fn the_clients_wishes_count_as_far_as_the_route_lets_them() {
    let fresh = life();
    let wish = |line, client_directives, stored: Stored<'_>| {
        let policy = Policy { client_directives, ..Policy::default() };
        of(Method::GET, &[("cache-control", line)], &policy, stored, Lately::default())
    };
    let honoured = wish("no-cache", ClientDirectives::Honour, Stored::Selected(&fresh));
    assert_eq!(honoured, (Some("expired"), "fwd=request; detail=request-no-cache".to_owned()));
    let ignored = wish("no-cache", ClientDirectives::Limited, Stored::Selected(&fresh));
    assert_eq!(ignored.0, Some("hit"));
    for stored in [Stored::Nothing, Stored::OtherVariants] {
        assert_eq!(wish("only-if-cached", ClientDirectives::Limited, stored).0, None);
    }
    let hit = wish("only-if-cached", ClientDirectives::Limited, Stored::Selected(&fresh));
    assert_eq!(hit.0, Some("hit"));
}

#[test]
fn a_lifetime_names_what_it_comes_from() {
    let by = |lines: &[(&'static str, &'static str)], policy: &Policy, lifetime: u64| {
        let (method, none, headers) = (Method::GET, HeaderMap::new(), fields(lines));
        let request = Request::new(&method, &none);
        let life = Life { lifetime: secs(lifetime), ..life() };
        sum(&request, (StatusCode::OK, &headers), &life, policy, at(10))
    };
    let plain = Policy::default();
    let minute = [("cache-control", "max-age=60")];
    let expected = Sum {
        lifetime: secs(60),
        by: Some("max-age"),
        age_at_arrival: secs(5),
        here: secs(10),
        remaining: 45,
    };
    assert_eq!(by(&minute, &plain, 60), expected);
    assert_eq!(by(&[("cache-control", "s-maxage=9")], &plain, 9).by, Some("s-maxage"));
    let set = Policy { override_ttl: Some(secs(30)), ..Policy::default() };
    assert_eq!(by(&minute, &set, 30).by, Some("override-ttl"));
    // It was stored under other rules.
    assert_eq!(by(&minute, &set, 60).by, None);
}
