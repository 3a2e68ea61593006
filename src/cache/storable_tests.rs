use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use http::HeaderValue;
use proptest::prelude::*;

use super::*;
use crate::cache::ClientDirectives;
use crate::cache::date;

const NOW: u64 = 1_800_000_000;

fn now() -> SystemTime {
    UNIX_EPOCH + secs(NOW)
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

type Lines<'a> = &'a [(&'static str, &'a str)];

/// Field values; an integer in a date field counts from now.
fn headers(lines: Lines<'_>) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in lines {
        let text = match (*name, value.parse::<i64>()) {
            ("date" | "expires" | "last-modified", Ok(offset)) => {
                date::format(UNIX_EPOCH + secs(NOW.saturating_add_signed(offset)))
            }
            _ => (*value).to_owned(),
        };
        map.append(HeaderName::from_static(name), HeaderValue::from_str(&text).unwrap());
    }
    map
}

/// A GET that is answered 200, unless said otherwise.
struct Case {
    method: Method,
    request: HeaderMap,
    status: u16,
    response: HeaderMap,
    policy: Policy,
}

fn case(response: Lines<'_>) -> Case {
    Case {
        method: Method::GET,
        request: HeaderMap::new(),
        status: 200,
        response: headers(response),
        policy: Policy::default(),
    }
}

impl Case {
    fn method(self, method: Method) -> Self {
        Self { method, ..self }
    }

    fn request(self, lines: Lines<'_>) -> Self {
        Self { request: headers(lines), ..self }
    }

    fn status(self, status: u16) -> Self {
        Self { status, ..self }
    }

    fn policy(mut self, change: impl FnOnce(&mut Policy)) -> Self {
        change(&mut self.policy);
        self
    }

    fn judge(&self) -> Result<Kept, NotStorable> {
        let request = Request::new(&self.method, &self.request);
        let status = StatusCode::from_u16(self.status).unwrap();
        let response = Response { status, headers: &self.response };
        match may_keep(&request, &response, &self.policy, Exchange::at(now())) {
            Keep::Yes(kept) => Ok(kept),
            Keep::No(reason) => Err(reason),
        }
    }

    fn kept(&self) -> Kept {
        self.judge().unwrap()
    }

    fn refused(&self) -> NotStorable {
        self.judge().unwrap_err()
    }

    fn lifetime(&self) -> (Duration, LifetimeSource) {
        let kept = self.kept();
        (kept.life.lifetime, kept.lifetime_source)
    }

    fn stripped(&self) -> Vec<String> {
        let mut names: Vec<_> =
            self.kept().strip.iter().map(|name| name.as_str().to_owned()).collect();
        names.sort();
        names
    }
}

const MINUTE: (&str, &str) = ("cache-control", "max-age=60");

// ── what forbids storing ────────────────────────────────────────────────────────────────────────

#[test]
fn explicit_freshness_is_kept() {
    let kept = case(&[MINUTE]).kept();
    assert_eq!(kept.life.lifetime, secs(60));
    assert_eq!(kept.life.arrived, now());
    assert_eq!(kept.directives_source, Source::CacheControl);
    assert!(kept.vary.is_empty() && kept.strip.is_empty());
}

#[test]
fn a_route_that_does_not_cache_keeps_nothing() {
    let off = case(&[MINUTE]).policy(|policy| policy.enabled = false);
    assert_eq!(off.refused(), NotStorable::Disabled);
}

#[test]
fn only_answers_to_get_and_head_are_kept() {
    assert_eq!(case(&[MINUTE]).method(Method::GET).kept().answers, Answers::GetAndHead);
    assert_eq!(case(&[MINUTE]).method(Method::HEAD).kept().answers, Answers::HeadOnly);
    for method in [Method::POST, Method::PUT, Method::OPTIONS] {
        assert_eq!(case(&[MINUTE]).method(method).refused(), NotStorable::Method);
    }
}

#[test]
fn the_answer_to_a_head_never_answers_a_get() {
    assert!(!Answers::HeadOnly.may_answer(&Method::GET));
    assert!(Answers::HeadOnly.may_answer(&Method::HEAD));
    assert!(Answers::GetAndHead.may_answer(&Method::GET));
    assert!(Answers::GetAndHead.may_answer(&Method::HEAD));
    assert!(!Answers::GetAndHead.may_answer(&Method::POST));
}

#[test]
fn the_answer_to_a_get_with_content_is_not_kept() {
    let fat = case(&[MINUTE]).request(&[("content-length", "1")]);
    assert_eq!(fat.refused(), NotStorable::RequestBody);
}

#[test]
fn a_status_that_is_not_final_or_not_whole_is_never_kept() {
    for status in [100, 101, 103, 206, 304] {
        assert_eq!(case(&[MINUTE]).status(status).refused(), NotStorable::Status, "{status}");
    }
}

#[test]
fn any_final_status_is_kept_when_explicitly_fresh() {
    for status in [200, 203, 204, 299, 301, 302, 303, 307, 308, 400, 404, 410, 499, 500, 503, 599] {
        assert_eq!(case(&[MINUTE]).status(status).kept().life.lifetime, secs(60), "{status}");
    }
}

#[test]
fn no_store_is_not_kept() {
    let fresh = case(&[("cache-control", "max-age=60, no-store"), ("expires", "60")]);
    assert_eq!(fresh.refused(), NotStorable::NoStore);
    assert_eq!(case(&[("cache-control", "No-StOrE")]).refused(), NotStorable::NoStore);
}

#[test]
fn no_store_and_private_stand_against_an_override() {
    let over = |line| case(&[line]).policy(|policy| policy.override_ttl = Some(secs(9)));
    assert_eq!(over(("cache-control", "no-store")).refused(), NotStorable::NoStore);
    assert_eq!(over(("cache-control", "private")).refused(), NotStorable::Private);
}

#[test]
fn private_is_not_kept() {
    assert_eq!(case(&[("cache-control", "private, max-age=60")]).refused(), NotStorable::Private);
}

#[test]
fn must_understand_lifts_no_store_for_a_known_status() {
    let line = [("cache-control", "must-understand, no-store, max-age=60")];
    assert_eq!(case(&line).kept().life.lifetime, secs(60));
}

#[test]
fn must_understand_forbids_an_unknown_status() {
    let line = [("cache-control", "must-understand, max-age=60")];
    for status in [299, 306, 418, 499, 599] {
        assert_eq!(case(&line).status(status).refused(), NotStorable::NotUnderstood, "{status}");
    }
}

#[test]
fn the_requests_no_store_is_honoured_unless_ignored() {
    let asked = || case(&[MINUTE]).request(&[("cache-control", "no-store")]);
    assert_eq!(asked().refused(), NotStorable::RequestNoStore);
    let honour = asked().policy(|policy| policy.client_directives = ClientDirectives::Honour);
    assert_eq!(honour.refused(), NotStorable::RequestNoStore);
    let ignore = asked().policy(|policy| policy.client_directives = ClientDirectives::Ignore);
    assert!(ignore.judge().is_ok());
}

#[test]
fn vary_star_is_not_kept() {
    assert_eq!(case(&[MINUTE, ("vary", "foo, *")]).refused(), NotStorable::VaryStar);
    assert_eq!(case(&[MINUTE, ("vary", "a b")]).refused(), NotStorable::VaryMalformed);
    let client = case(&[MINUTE, ("vary", "foo, X-Forwarded-For")]);
    assert_eq!(client.refused(), NotStorable::VaryClient);
}

#[test]
fn vary_is_kept_as_its_fields() {
    let vary = case(&[MINUTE, ("vary", "Foo, Bar")]).kept().vary;
    assert_eq!(vary.names(), ["bar", "foo"]);
}

#[test]
fn an_answer_to_authorization_is_kept_only_when_sharing_is_allowed() {
    let with = |value| case(&[("cache-control", value)]).request(&[("authorization", "x")]);
    for denied in ["max-age=60", "max-age=60, proxy-revalidate", "max-age=60, no-cache=\"a\""] {
        assert_eq!(with(denied).refused(), NotStorable::Authorization, "{denied}");
    }
    for allowed in ["max-age=60, public", "max-age=60, must-revalidate", "s-maxage=60"] {
        assert!(with(allowed).judge().is_ok(), "{allowed}");
    }
}

#[test]
fn neither_default_nor_override_shares_an_answer_to_authorization() {
    let denied = case(&[]).request(&[("authorization", "x")]).policy(|policy| {
        policy.override_ttl = Some(secs(9));
        policy.default_ttl = Some(secs(9));
    });
    assert_eq!(denied.refused(), NotStorable::Authorization);
}

#[test]
fn the_targeted_field_decides_about_authorization() {
    let lines = [("cache-control", "public"), ("cdn-cache-control", "max-age=60")];
    let denied = case(&lines).request(&[("authorization", "x")]);
    assert_eq!(denied.refused(), NotStorable::Authorization);
}

#[test]
fn a_response_that_sets_a_cookie_is_refused_or_stripped() {
    let sets = || case(&[MINUTE, ("set-cookie", "a=b")]);
    assert_eq!(sets().refused(), NotStorable::SetCookie);
    let strip = sets().policy(|policy| policy.set_cookie = SetCookie::Strip);
    assert_eq!(strip.stripped(), ["set-cookie"]);
}

#[test]
fn a_cookie_that_the_response_keeps_from_the_store_refuses_nothing() {
    let value = ("cache-control", "max-age=60, private=\"set-cookie\"");
    assert_eq!(case(&[value, ("set-cookie", "a=b")]).stripped(), ["set-cookie"]);
}

#[test]
fn the_largest_object_is_kept_and_a_larger_one_is_not() {
    let sized = |length| case(&[MINUTE, ("content-length", length)]).policy(|p| p.max_object = 10);
    assert!(sized("10").judge().is_ok());
    assert_eq!(sized("11").refused(), NotStorable::TooLarge);
    assert_eq!(sized("99999999999999999999999").refused(), NotStorable::TooLarge);
}

// ── lifetimes ───────────────────────────────────────────────────────────────────────────────────

#[test]
fn what_says_nothing_is_not_kept() {
    assert_eq!(case(&[]).refused(), NotStorable::NoFreshness);
    assert_eq!(case(&[("etag", "\"a\"")]).refused(), NotStorable::NoFreshness);
}

#[test]
fn the_heuristic_applies_to_some_statuses_only() {
    let day = [("last-modified", "-86400"), ("date", "0")];
    for status in [200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501] {
        let expected = (secs(8640), LifetimeSource::Heuristic);
        assert_eq!(case(&day).status(status).lifetime(), expected, "{status}");
    }
    for status in [201, 202, 302, 303, 307, 403, 500, 502, 503, 504, 599] {
        assert_eq!(case(&day).status(status).refused(), NotStorable::NoFreshness, "{status}");
    }
}

#[test]
fn public_admits_any_status_to_the_heuristic() {
    let lines = [("last-modified", "-86400"), ("cache-control", "public")];
    assert_eq!(case(&lines).status(599).lifetime().1, LifetimeSource::Heuristic);
}

#[test]
fn the_heuristic_never_replaces_what_is_stated() {
    let stated = case(&[("last-modified", "-86400"), ("expires", "-1"), ("date", "0")]);
    assert_eq!(stated.lifetime(), (secs(0), LifetimeSource::Expires));
}

#[test]
fn a_request_with_a_cookie_needs_a_stated_lifetime() {
    let cookie: Lines<'_> = &[("cookie", "a=b")];
    let guess = case(&[("last-modified", "-86400")]).request(cookie);
    assert_eq!(guess.refused(), NotStorable::RequestCookie);
    let default = case(&[]).request(cookie).policy(|policy| policy.default_ttl = Some(secs(9)));
    assert_eq!(default.refused(), NotStorable::RequestCookie);
    assert!(case(&[MINUTE]).request(cookie).judge().is_ok());
    let public = case(&[("last-modified", "-86400"), ("cache-control", "public")]);
    assert!(public.request(cookie).judge().is_ok());
}

#[test]
fn the_default_is_for_what_says_nothing() {
    let default = |lines| case(lines).policy(|policy| policy.default_ttl = Some(secs(9)));
    assert_eq!(default(&[]).lifetime(), (secs(9), LifetimeSource::Default));
    assert_eq!(default(&[MINUTE]).lifetime().0, secs(60));
    assert_eq!(
        default(&[("last-modified", "-86400")]).lifetime(),
        (secs(9), LifetimeSource::Default)
    );
}

#[test]
fn the_default_does_not_keep_errors_and_empty_answers() {
    for status in [201, 204, 302, 400, 404, 405, 410, 414, 500, 501, 503] {
        let default = case(&[]).status(status).policy(|policy| policy.default_ttl = Some(secs(9)));
        assert_eq!(default.refused(), NotStorable::NoFreshness, "{status}");
    }
}

#[test]
fn an_override_replaces_what_is_stated() {
    let over = |lines| case(lines).policy(|policy| policy.override_ttl = Some(secs(9)));
    for lines in [&[MINUTE][..], &[], &[("cache-control", "max-age=0, no-cache")]] {
        let kept = over(lines).kept();
        assert_eq!(kept.life.lifetime, secs(9));
        assert_eq!(kept.life.validation, Validation::WhenStale);
        assert_eq!(kept.lifetime_source, LifetimeSource::Override);
    }
}

#[test]
fn an_override_never_lengthens_the_life_of_an_error() {
    let over = |ttl| {
        case(&[MINUTE]).status(503).policy(move |policy| policy.override_ttl = Some(secs(ttl)))
    };
    assert_eq!(over(3600).lifetime(), (secs(60), LifetimeSource::MaxAge));
    assert_eq!(over(9).lifetime(), (secs(9), LifetimeSource::Override));
    let silent = case(&[]).status(503).policy(|policy| policy.override_ttl = Some(secs(9)));
    assert_eq!(silent.refused(), NotStorable::NoFreshness);
}

#[test]
fn an_override_leaves_an_error_that_has_to_be_confirmed_to_be_confirmed() {
    let said = [("cache-control", "max-age=60, no-cache"), ("etag", "\"1\"")];
    let validation = |status| {
        let over = case(&said).status(status).policy(|policy| policy.override_ttl = Some(secs(9)));
        over.kept().life.validation
    };
    assert_eq!(validation(200), Validation::WhenStale);
    assert_eq!(validation(404), Validation::Always);
}

#[test]
fn the_longest_lifetime_cuts_all_but_the_override() {
    let cut = |lines| case(lines).policy(|policy| policy.max_ttl = Some(secs(30)));
    assert_eq!(cut(&[MINUTE]).lifetime().0, secs(30));
    assert_eq!(cut(&[("last-modified", "-86400")]).lifetime().0, secs(30));
    let default = cut(&[]).policy(|policy| policy.default_ttl = Some(secs(99)));
    assert_eq!(default.lifetime().0, secs(30));
    let over = cut(&[]).policy(|policy| policy.override_ttl = Some(secs(99)));
    assert_eq!(over.lifetime().0, secs(99));
}

#[test]
fn the_routes_own_lifetimes_count_from_the_arrival() {
    let aged = case(&[("age", "500")]).policy(|policy| policy.default_ttl = Some(secs(9)));
    let life = aged.kept().life;
    assert_eq!(life.overdue(now() + secs(8)), None);
    assert_eq!(life.overdue(now() + secs(9)), Some(secs(0)));
    assert_eq!(life.age_seconds(now()), 500);
}

#[test]
fn age_in_transit_counts_against_what_is_stated() {
    let life = case(&[MINUTE, ("age", "50")]).kept().life;
    assert_eq!(life.overdue(now() + secs(9)), None);
    assert_eq!(life.overdue(now() + secs(10)), Some(secs(0)));
}

#[test]
fn what_can_never_be_used_is_not_kept() {
    for lines in [
        &[("cache-control", "max-age=0")][..],
        &[("cache-control", "no-cache")],
        &[MINUTE, ("age", "60")],
        &[("expires", "0"), ("date", "0")],
        &[("cache-control", "max-age=0, stale-if-error=60, must-revalidate")],
    ] {
        assert_eq!(case(lines).refused(), NotStorable::AlreadyStale, "{lines:?}");
    }
}

#[test]
fn a_validator_or_a_window_makes_the_stale_useful() {
    for lines in [
        &[("cache-control", "max-age=0"), ("etag", "\"a\"")][..],
        &[("cache-control", "max-age=0"), ("last-modified", "-5")],
        &[("cache-control", "max-age=0, stale-while-revalidate=60")],
        &[("cache-control", "max-age=0, stale-if-error=60")],
        &[MINUTE, ("age", "60"), ("etag", "W/\"a\"")],
    ] {
        assert!(case(lines).judge().is_ok(), "{lines:?}");
    }
}

// ── what a kept response bears ──────────────────────────────────────────────────────────────────

#[test]
fn no_cache_is_kept_to_be_validated_every_time() {
    let kept = case(&[("cache-control", "no-cache"), ("etag", "\"a\"")]).kept();
    assert_eq!(kept.life.validation, Validation::Always);
    assert_eq!(kept.lifetime_source, LifetimeSource::NoCache);
    let stated = case(&[("cache-control", "max-age=60, no-cache"), ("etag", "\"a\"")]).kept();
    assert_eq!(stated.life.validation, Validation::Always);
}

#[test]
fn the_windows_are_the_responses() {
    let line = "max-age=60, stale-while-revalidate=5, stale-if-error=7";
    let life = case(&[("cache-control", line)]).kept().life;
    assert_eq!((life.stale_while_revalidate, life.stale_if_error), (secs(5), secs(7)));
    assert_eq!(life.staleness, Staleness::Open);
}

#[test]
fn must_revalidate_proxy_revalidate_and_no_cache_close_both_windows() {
    for closing in ["must-revalidate", "proxy-revalidate", "no-cache"] {
        let line = format!("max-age=60, stale-while-revalidate=5, stale-if-error=7, {closing}");
        let life = case(&[("cache-control", &line), ("etag", "\"a\"")]).kept().life;
        assert_eq!((life.stale_while_revalidate, life.stale_if_error), (secs(0), secs(0)));
        assert_eq!(life.staleness, Staleness::Closed, "{closing}");
    }
}

#[test]
fn s_maxage_opens_only_the_windows_that_stand_beside_it() {
    let line = [("cache-control", "s-maxage=60, stale-while-revalidate=5")];
    let life = case(&line).kept().life;
    assert_eq!(life.staleness, Staleness::WindowsOnly);
    assert_eq!((life.stale_while_revalidate, life.stale_if_error), (secs(5), secs(0)));
}

#[test]
fn a_window_that_passed_on_the_way_is_no_reason_to_store() {
    for (age, stored) in [("68", true), ("69", false), ("70", false)] {
        let lines = [("cache-control", "max-age=60, stale-if-error=9"), ("age", age)];
        let refused = case(&lines).judge().err();
        assert_eq!(refused, (!stored).then_some(NotStorable::AlreadyStale), "{age}");
    }
}

#[test]
fn the_routes_window_is_for_responses_that_leave_it_open() {
    let window = |line: &str| {
        let case = case(&[("cache-control", line), ("etag", "\"a\"")]);
        case.policy(|policy| policy.stale_if_error = secs(9)).kept().life
    };
    assert_eq!(window("max-age=60").stale_if_error, secs(9));
    assert_eq!(window("max-age=60, stale-if-error=0").stale_if_error, secs(0));
    for closing in ["must-revalidate", "proxy-revalidate", "no-cache", "s-maxage=60"] {
        let line = format!("max-age=60, {closing}");
        assert_eq!(window(&line).stale_if_error, secs(0), "{closing}");
    }
}

#[test]
fn a_routes_window_for_refreshing_is_for_responses_that_leave_it_open() {
    let window = |line: &str| {
        let case = case(&[("cache-control", line), ("etag", "\"a\"")]);
        let life = case.policy(|policy| policy.stale_while_revalidate = secs(9)).kept().life;
        life.stale_while_revalidate
    };
    assert_eq!(window("max-age=60"), secs(9));
    assert_eq!(window("max-age=60, stale-while-revalidate=3"), secs(3));
    for closing in ["must-revalidate", "proxy-revalidate", "no-cache", "s-maxage=60"] {
        assert_eq!(window(&format!("max-age=60, {closing}")), secs(0), "{closing}");
    }
}

#[test]
fn only_the_routes_statuses_are_kept() {
    let ask = |status| {
        case(&[("cache-control", "max-age=60")]).status(status).policy(|policy| {
            policy.statuses = vec![Statuses::Class(2), Statuses::One(StatusCode::NOT_FOUND)];
        })
    };
    ask(200).kept();
    ask(404).kept();
    assert_eq!(ask(410).refused(), NotStorable::RouteStatus);
    assert_eq!(ask(302).refused(), NotStorable::RouteStatus);
}

#[test]
fn what_was_asked_for_too_seldom_is_not_kept() {
    let policy = Policy { min_uses: 3, ..Policy::default() };
    let headers =
        HeaderMap::from_iter([(header::CACHE_CONTROL, HeaderValue::from_static("max-age=60"))]);
    let nothing = HeaderMap::new();
    let keep = |uses| {
        let request = Request::new(&Method::GET, &nothing).with_uses(uses);
        let response = Response { status: StatusCode::OK, headers: &headers };
        may_keep(&request, &response, &policy, Exchange::at(SystemTime::UNIX_EPOCH))
    };
    assert_eq!(keep(2), Keep::No(NotStorable::TooFewUses));
    assert!(matches!(keep(3), Keep::Yes(_)));
}

// ── what the route says of a status and of a name ───────────────────────────────────────────────

fn by_status(status: u16, lines: Lines<'_>) -> Case {
    case(lines).status(status).policy(|policy| {
        policy.default_ttl = Some(secs(300));
        policy.status_ttl = vec![
            (Statuses::Class(4), StatusTtl::Is(secs(10))),
            (Statuses::One(StatusCode::GONE), StatusTtl::Off),
            (Statuses::One(StatusCode::BAD_GATEWAY), StatusTtl::Is(secs(2))),
        ];
    })
}

#[test]
fn a_status_has_a_lifetime_of_its_own() {
    assert_eq!(by_status(404, &[]).lifetime(), (secs(10), LifetimeSource::Status));
    assert_eq!(by_status(502, &[]).lifetime(), (secs(2), LifetimeSource::Status));
    assert_eq!(by_status(200, &[]).lifetime(), (secs(300), LifetimeSource::Default));
    assert_eq!(by_status(503, &[]).refused(), NotStorable::NoFreshness);
    // The status by itself goes before its class, also to have none, and before a guess.
    let guessed = [("last-modified", "-10000")];
    assert_eq!(by_status(410, &guessed).refused(), NotStorable::NoFreshness);
    // What the response says goes before all of it.
    assert_eq!(by_status(404, &[MINUTE]).lifetime(), (secs(60), LifetimeSource::MaxAge));
    assert_eq!(
        by_status(404, &[]).request(&[("cookie", "a=b")]).refused(),
        NotStorable::RequestCookie
    );
}

#[test]
fn an_error_kept_by_the_routes_word_replaces_nothing() {
    let replaces = |status: u16, lines: Lines<'_>| {
        let status_code = StatusCode::from_u16(status).unwrap();
        by_status(status, lines).kept().may_replace(status_code)
    };
    assert_eq!(replaces(502, &[]), Err(NotStorable::WouldReplace));
    assert_eq!(replaces(502, &[MINUTE]), Ok(()));
    assert_eq!(replaces(404, &[]), Ok(()));
}

#[test]
fn a_page_under_the_name_of_a_file_is_not_kept_by_a_rule() {
    const PAGE: (&str, &str) = ("content-type", "text/html");
    let judged = |guard, lines: Lines<'_>| {
        let policy = Policy { guard, default_ttl: Some(secs(300)), ..Policy::default() };
        let (method, asked) = (Method::GET, HeaderMap::new());
        let request = Request::new(&method, &asked).with_target("/account/a.css", None);
        let headers = headers(lines);
        let response = Response { status: StatusCode::OK, headers: &headers };
        match may_keep(&request, &response, &policy, Exchange::at(now())) {
            Keep::Yes(_) => None,
            Keep::No(reason) => Some(reason),
        }
    };
    let differs = Some(NotStorable::ContentType);
    assert_eq!(judged(Guard::Unstated, &[PAGE]), differs);
    assert_eq!(judged(Guard::Unstated, &[PAGE, MINUTE]), None);
    assert_eq!(judged(Guard::All, &[PAGE, MINUTE]), differs);
    assert_eq!(judged(Guard::Off, &[PAGE]), None);
    assert_eq!(judged(Guard::All, &[("content-type", "text/css")]), None);
}

#[test]
fn immutable_is_kept() {
    let line = [("cache-control", "max-age=60, immutable")];
    assert_eq!(case(&line).kept().life.change, Change::Never);
}

#[test]
fn fields_of_one_connection_are_not_stored() {
    let lines = [
        MINUTE,
        ("connection", "a, close"),
        ("a", "1"),
        ("b", "2"),
        ("keep-alive", "timeout=5"),
        ("proxy-authenticate", "x"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "h2c"),
        ("age", "5"),
    ];
    let expected = [
        "a",
        "age",
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "transfer-encoding",
        "upgrade",
    ];
    assert_eq!(case(&lines).stripped(), expected);
}

#[test]
fn fields_named_by_no_cache_and_private_are_not_stored() {
    let lines = [
        ("cache-control", "max-age=60, no-cache=\"a\", private=\"b, c\""),
        ("a", "1"),
        ("b", "2"),
        ("d", "4"),
    ];
    assert_eq!(case(&lines).stripped(), ["a", "b"]);
    assert_eq!(case(&lines).kept().life.validation, Validation::WhenStale);
}

#[test]
fn a_targeted_field_governs_alone() {
    let lines = [
        ("cache-control", "no-store"),
        ("expires", "-5"),
        ("date", "0"),
        ("cdn-cache-control", "max-age=60"),
    ];
    assert_eq!(case(&lines).lifetime(), (secs(60), LifetimeSource::MaxAge));
    assert_eq!(case(&lines).kept().directives_source, Source::Targeted);
    let denied = [MINUTE, ("cdn-cache-control", "no-store")];
    assert_eq!(case(&denied).refused(), NotStorable::NoStore);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn no_lifetime_of_ours_outlasts_the_longest(
        stated in proptest::option::of(0..1000_u64),
        age in 0..1000_u64,
        longest in 0..500_u64,
        default in proptest::option::of(0..1000_u64),
    ) {
        let cache_control = stated.map(|s| format!("max-age={s}")).unwrap_or_default();
        let age = age.to_string();
        let lines = [("cache-control", &*cache_control), ("age", &age), ("etag", "\"a\"")];
        let cut = case(&lines).policy(|policy| {
            policy.max_ttl = Some(secs(longest));
            policy.default_ttl = default.map(secs);
        });
        if let Ok(kept) = cut.judge() {
            prop_assert!(kept.life.overdue(now() + secs(longest)).is_some());
        }
    }

    #[test]
    fn what_forbids_storing_forbids_it_beside_anything(
        words in proptest::collection::vec(
            proptest::sample::select(&[
                "public", "max-age=60", "s-maxage=60", "immutable", "no-cache",
                "stale-if-error=9", "must-revalidate", "private=\"a\"", "x=\"y\"",
            ][..]),
            0..6,
        ),
        at in 0..6_usize,
        forbidding in proptest::sample::select(&["no-store", "private"][..]),
    ) {
        let mut words = words;
        words.insert(at.min(words.len()), forbidding);
        let line = words.join(", ");
        let refused = case(&[("cache-control", &line), ("etag", "\"a\"")]).refused();
        prop_assert!(matches!(refused, NotStorable::NoStore | NotStorable::Private));
    }
}
