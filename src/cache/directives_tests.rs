use http::HeaderValue;
use proptest::prelude::*;

use super::*;

fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
    lines
        .iter()
        .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap()))
        .collect()
}

fn response(cache_control: &str) -> ResponseDirectives {
    ResponseDirectives::governing(&headers(&[("cache-control", cache_control)])).0
}

fn request(cache_control: &str) -> RequestDirectives {
    RequestDirectives::of(&headers(&[("cache-control", cache_control)]), ClientDirectives::Honour)
}

fn secs(seconds: u64) -> Option<Duration> {
    Some(Duration::from_secs(seconds))
}

#[test]
fn every_response_directive_is_known() {
    let all = response(
        "no-store, no-cache, private, public, must-revalidate, proxy-revalidate, must-understand, \
         immutable, no-transform, max-age=1, s-maxage=2, stale-while-revalidate=3, \
         stale-if-error=4",
    );
    let expected = ResponseDirectives {
        no_store: true,
        no_cache: Reach::Whole,
        private: Reach::Whole,
        public: true,
        must_revalidate: true,
        proxy_revalidate: true,
        must_understand: true,
        immutable: true,
        no_transform: true,
        max_age: secs(1),
        s_maxage: secs(2),
        stale_while_revalidate: secs(3),
        stale_if_error: secs(4),
    };
    assert_eq!(all, expected);
}

#[test]
fn names_are_case_insensitive() {
    assert_eq!(response("MaX-aGe=60").max_age, secs(60));
    assert!(response("No-StOrE").no_store);
}

#[test]
fn several_lines_are_one_list() {
    let lines = headers(&[("cache-control", "max-age=60"), ("cache-control", "s-maxage=1")]);
    let directives = ResponseDirectives::governing(&lines).0;
    assert_eq!((directives.max_age, directives.s_maxage), (secs(60), secs(1)));
}

#[test]
fn unknown_directives_are_ignored() {
    assert_eq!(response("foobar, max-age=60, x=\"y, no-store\"").max_age, secs(60));
    assert!(!response("x=\"y, no-store\"").no_store);
    assert_eq!(response("stale-while-revalidated=60"), ResponseDirectives::default());
}

#[test]
fn a_directive_inside_a_quoted_string_is_none() {
    assert_eq!(response("extension=\"max-age=3600\", max-age=1").max_age, secs(1));
    assert_eq!(response("max-age=1, extension=\"max-age=3600\"").max_age, secs(1));
}

#[test]
fn restrictions_in_a_quoted_string_that_is_never_closed_count_and_permissions_do_not() {
    let swallowed = response("max-age=600, x=\"\\\", private");
    assert_eq!((swallowed.private, swallowed.max_age), (Reach::Whole, secs(600)));
    let swallowed = response("public, x=\"a, no-store;no-cache=b, must-revalidate");
    assert!(swallowed.no_store && swallowed.must_revalidate && swallowed.public);
    assert_eq!(swallowed.no_cache, Reach::Whole);
    // The last one is what is not closed, which leaves open what the first one was.
    assert!(response("x=\"\\\", no-store, y=\"z\"").no_store);
    let swallowed = response("x=\"a, public, immutable, must-understand, max-age=60");
    assert!(!swallowed.public && !swallowed.immutable && !swallowed.must_understand);
    assert_eq!(swallowed.max_age, secs(0));
    // Of several lines each stands by itself.
    assert!(!response("x=\"a, no-store\", max-age=1").no_store);
    let asked = request("x=\"a, no-store, max-stale");
    assert!(asked.no_store);
    assert_eq!(asked.max_stale, secs(0));
}

#[test]
fn of_repeated_lifetimes_the_first_speaks() {
    assert_eq!(response("max-age=1800, max-age=1").max_age, secs(1800));
    assert_eq!(response("max-age=1, max-age=1800").max_age, secs(1));
    assert_eq!(response("max-age=a, max-age=1800").max_age, secs(0));
}

#[test]
fn a_quoted_number_is_a_number() {
    assert_eq!(response("max-age=\"3600\"").max_age, secs(3600));
}

#[test]
fn leading_zeros_are_digits() {
    assert_eq!(response("max-age=003600").max_age, secs(3600));
}

#[test]
fn a_malformed_number_is_zero() {
    for value in ["", "a3600", "3600a", "-100", "+100", "3600.0", "'3600'", "\"3600", "1 2", "\"\""]
    {
        assert_eq!(response(&format!("max-age={value}")).max_age, secs(0), "{value}");
    }
    assert_eq!(response("max-age").max_age, secs(0));
}

#[test]
fn space_around_the_equals_sign_makes_it_malformed() {
    assert_eq!(response("max-age =3600").max_age, secs(0));
    assert_eq!(response("max-age= 3600").max_age, secs(0));
    assert_eq!(response("max-age = 3600").max_age, secs(0));
}

#[test]
fn too_large_a_number_is_the_largest() {
    assert_eq!(response("max-age=2147483648").max_age, Some(LONGEST));
    assert_eq!(response("max-age=99999999999").max_age, Some(LONGEST));
    assert_eq!(response("max-age=99999999999999999999999999").max_age, Some(LONGEST));
}

#[test]
fn restrictions_count_inside_a_broken_member_and_permissions_do_not() {
    let broken = response("max-age=3600; no-store public private immutable");
    assert!(broken.no_store && !broken.public && !broken.immutable);
    assert_eq!(broken.private, Reach::Whole);
    assert_eq!(broken.max_age, secs(0));
}

#[test]
fn no_cache_and_private_may_name_fields() {
    let names = |reach: &Reach| reach.fields().iter().map(|n| n.to_string()).collect::<Vec<_>>();
    assert_eq!(names(&response("no-cache=\"A, b\"").no_cache), ["a", "b"]);
    assert_eq!(names(&response("private=\"set-cookie\"").private), ["set-cookie"]);
    assert_eq!(names(&response("no-cache=a").no_cache), ["a"]);
    assert_eq!(names(&response("no-cache=\"a\", no-cache=\"b\"").no_cache), ["a", "b"]);
}

#[test]
fn field_names_that_are_none_mean_the_whole_response() {
    for value in ["\"\"", "\"a b\"", "\"a, (\"", "\"a", ""] {
        assert_eq!(response(&format!("private={value}")).private, Reach::Whole, "{value}");
    }
}

#[test]
fn a_qualified_directive_in_a_broken_member_means_the_whole_response() {
    assert_eq!(response("no-cache=\"a\"; x").no_cache, Reach::Whole);
    assert_eq!(response("private=a b").private, Reach::Whole);
}

#[test]
fn an_unqualified_directive_outweighs_a_qualified_one() {
    assert_eq!(response("no-cache=\"a\", no-cache").no_cache, Reach::Whole);
    assert_eq!(response("no-cache, no-cache=\"a\"").no_cache, Reach::Whole);
}

fn governed_by(lines: &[(&'static str, &str)]) -> (Option<Duration>, Source) {
    let (directives, source) = ResponseDirectives::governing(&headers(lines));
    (directives.max_age, source)
}

#[test]
fn a_targeted_field_replaces_cache_control() {
    let lines = headers(&[("cache-control", "no-store"), ("cdn-cache-control", "max-age=60")]);
    let (directives, source) = ResponseDirectives::governing(&lines);
    assert!(!directives.no_store);
    assert_eq!((directives.max_age, source), (secs(60), Source::Targeted));
}

#[test]
fn the_most_specific_target_governs() {
    let (own, cdn, surrogate) = (
        ("edgeproxy-cache-control", "max-age=1"),
        ("cdn-cache-control", "max-age=2"),
        ("surrogate-control", "max-age=3"),
    );
    assert_eq!(governed_by(&[surrogate, cdn, own]).0, secs(1));
    assert_eq!(governed_by(&[surrogate, cdn]).0, secs(2));
    assert_eq!(governed_by(&[surrogate]).0, secs(3));
}

#[test]
fn a_targeted_field_that_is_no_dictionary_is_ignored() {
    for value in [
        "",
        "max-age=10000, &&&&&",
        "max-age=\"10000\"",
        "max-age=1.5",
        "max-age",
        "max-age =100",
        "max-age= 100",
        "MaX-aGe=3600",
        "max-age=3600+600",
    ] {
        let lines = [("cache-control", "max-age=5"), ("cdn-cache-control", value)];
        assert_eq!(governed_by(&lines), (secs(5), Source::CacheControl), "{value}");
    }
}

#[test]
fn an_invalid_target_leaves_the_word_to_the_next() {
    let lines = [("edgeproxy-cache-control", "&"), ("cdn-cache-control", "max-age=2")];
    assert_eq!(governed_by(&lines), (secs(2), Source::Targeted));
}

#[test]
fn a_targeted_lifetime_is_bounded_below_and_above() {
    assert_eq!(governed_by(&[("cdn-cache-control", "max-age=-5")]).0, secs(0));
    assert_eq!(governed_by(&[("cdn-cache-control", "max-age=99999999999")]).0, Some(LONGEST));
}

#[test]
fn a_targeted_restriction_of_the_wrong_type_still_restricts() {
    let lines = headers(&[("cdn-cache-control", "no-store=1, private=2, no-cache=\"a\"")]);
    let directives = ResponseDirectives::governing(&lines).0;
    assert!(directives.no_store);
    assert_eq!(directives.private, Reach::Whole);
    assert_eq!(directives.no_cache.fields().len(), 1);
}

#[test]
fn targeted_lines_are_joined() {
    let lines = [("cdn-cache-control", "foo"), ("cdn-cache-control", "max-age=7;bar")];
    assert_eq!(governed_by(&lines).0, secs(7));
}

#[test]
fn every_request_directive_is_known() {
    let all = request(
        "no-cache, no-store, only-if-cached, max-age=1, max-stale=2, min-fresh=3, \
         stale-if-error=4",
    );
    let expected = RequestDirectives {
        no_cache: true,
        no_store: true,
        only_if_cached: true,
        max_age: secs(1),
        max_stale: secs(2),
        min_fresh: secs(3),
        stale_if_error: secs(4),
    };
    assert_eq!(all, expected);
}

#[test]
fn max_stale_without_a_bound_has_none() {
    assert_eq!(request("max-stale").max_stale, Some(LONGEST));
    assert_eq!(request("max-stale=x").max_stale, secs(0));
    assert_eq!(request("max-stale x").max_stale, secs(0));
}

#[test]
fn a_malformed_min_fresh_asks_for_validation() {
    assert_eq!(request("min-fresh=x").min_fresh, Some(LONGEST));
    assert_eq!(request("min-fresh").min_fresh, Some(LONGEST));
}

#[test]
fn a_limited_client_may_only_say_no_store_and_only_if_cached() {
    let lines = headers(&[("cache-control", "no-cache, max-age=0, no-store, only-if-cached")]);
    let expected = RequestDirectives { no_store: true, only_if_cached: true, ..Default::default() };
    assert_eq!(RequestDirectives::of(&lines, ClientDirectives::Limited), expected);
}

#[test]
fn an_ignored_client_says_nothing() {
    let lines = headers(&[("cache-control", "no-store, only-if-cached, no-cache")]);
    assert_eq!(
        RequestDirectives::of(&lines, ClientDirectives::Ignore),
        RequestDirectives::default()
    );
}

#[test]
fn pragma_counts_only_without_cache_control() {
    let honour = ClientDirectives::Honour;
    let alone = headers(&[("pragma", "foo, No-Cache")]);
    assert!(RequestDirectives::of(&alone, honour).no_cache);
    assert!(!RequestDirectives::of(&alone, ClientDirectives::Limited).no_cache);
    let beside = headers(&[("pragma", "no-cache"), ("cache-control", "max-age=5")]);
    assert!(!RequestDirectives::of(&beside, honour).no_cache);
    assert!(!RequestDirectives::of(&headers(&[("pragma", "extension")]), honour).no_cache);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn reading_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
        let Ok(value) = HeaderValue::from_bytes(&bytes) else { return Ok(()) };
        let mut lines = HeaderMap::new();
        for name in targeted_fields() {
            lines.insert(name, value.clone());
        }
        lines.insert(header::CACHE_CONTROL, value);
        let _ = ResponseDirectives::governing(&lines);
        let _ = RequestDirectives::of(&lines, ClientDirectives::Honour);
    }

    #[test]
    fn no_store_is_seen_beside_anything_without_quotes(
        before in "[ -!#-~]{0,30}",
        after in "[ -!#-~]{0,30}",
    ) {
        let line = format!("{before},no-store,{after}");
        prop_assert!(response(&line).no_store);
    }
}
