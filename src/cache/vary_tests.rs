use http::HeaderValue;
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in lines {
        map.append(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
    }
    map
}

fn spec(vary: &[&str]) -> Result<Spec, Unselectable> {
    let lines: Vec<_> = vary.iter().map(|value| ("vary", *value)).collect();
    Spec::parse(&headers(&lines))
}

fn same(vary: &str, one: &[(&'static str, &str)], other: &[(&'static str, &str)]) -> bool {
    let spec = spec(&[vary]).unwrap();
    matches(&spec, &selecting(&spec, &headers(one)), &headers(other))
}

fn encoding(value: &str) -> String {
    accept_encoding(&headers(&[("accept-encoding", value)]))
}

fn language(value: &str) -> String {
    accept_language(&headers(&[("accept-language", value)]))
}

#[test]
fn a_response_without_vary_has_one_variant() {
    let none = spec(&[]).unwrap();
    assert!(none.is_empty());
    assert!(selecting(&none, &headers(&[("foo", "1")])).is_empty());
}

#[test]
fn all_lines_of_vary_count_sorted_and_once() {
    let spec = spec(&["Foo, bar", "BAR,, baz"]).unwrap();
    assert_eq!(spec.names(), ["bar", "baz", "foo"]);
}

#[test]
fn a_star_anywhere_selects_nothing() {
    let stars: [&[&str]; 7] =
        [&["*"], &["*, *"], &["*", "*"], &[", *"], &["", "*"], &["*, Foo"], &["Foo, *"]];
    for vary in stars {
        assert_eq!(spec(vary), Err(Unselectable::Star), "{vary:?}");
    }
    assert_eq!(spec(&["foo bar, *"]), Err(Unselectable::Star));
}

#[test]
fn what_the_origin_hears_of_the_client_from_us_selects_nothing() {
    for vary in ["X-Forwarded-For", "x-real-ip", "Forwarded", "X-Request-ID", "True-Client-IP"] {
        assert_eq!(spec(&["Foo", vary, "Bar"]), Err(Unselectable::Ours), "{vary}");
        assert_eq!(spec(&[vary, "*"]), Err(Unselectable::Star), "{vary}");
    }
    assert!(spec(&["X-Forwarded-Proto, X-Forwarded-Host, Host"]).is_ok());
}

#[test]
fn a_vary_that_names_no_field_selects_nothing() {
    for vary in ["foo bar", "foo;q=1", "\"foo\""] {
        assert_eq!(spec(&[vary]), Err(Unselectable::Malformed), "{vary}");
    }
}

#[test]
fn a_vary_of_too_many_fields_selects_nothing() {
    let names = |count| (0..count).map(|i| format!("f{i}")).collect::<Vec<_>>().join(",");
    assert!(spec(&[&names(32)]).is_ok());
    assert_eq!(spec(&[&names(33)]), Err(Unselectable::Malformed));
}

#[test]
fn the_same_value_matches_and_another_does_not() {
    assert!(same("foo", &[("foo", "1")], &[("foo", "1"), ("other", "2")]));
    assert!(!same("foo", &[("foo", "1")], &[("foo", "2")]));
}

#[test]
fn every_field_must_match() {
    let stored = [("foo", "1"), ("bar", "abc")];
    assert!(same("foo, bar", &stored, &[("bar", "abc"), ("foo", "1")]));
    assert!(!same("foo, bar", &stored, &[("foo", "1"), ("bar", "abd")]));
    assert!(!same("foo, bar", &stored, &[("foo", "1")]));
}

#[test]
fn a_field_that_both_omit_matches() {
    assert!(same("foo, bar", &[("foo", "1")], &[("foo", "1")]));
}

#[test]
fn absence_is_not_emptiness() {
    assert!(!same("foo", &[], &[("foo", "")]));
    assert!(!same("accept-encoding", &[], &[("accept-encoding", "")]));
}

#[test]
fn all_lines_of_a_field_count() {
    assert!(!same("x-tenant", &[("x-tenant", "a")], &[("x-tenant", "a"), ("x-tenant", "admin")]));
    assert!(!same("cookie", &[("cookie", "a")], &[("cookie", "a"), ("cookie", "b")]));
}

#[test]
fn white_space_around_commas_does_not_count() {
    assert!(same("foo", &[("foo", "1,2")], &[("foo", " 1, 2 ")]));
}

#[test]
fn lines_and_members_are_the_same_list() {
    assert!(same("foo", &[("foo", "1, 2")], &[("foo", "1"), ("foo", "2")]));
}

#[test]
fn white_space_in_quoted_strings_counts() {
    assert!(!same("foo", &[("foo", "\"1,2\"")], &[("foo", "\"1, 2\"")]));
}

#[test]
fn case_counts_where_the_field_is_unknown() {
    assert!(!same("foo", &[("foo", "a")], &[("foo", "A")]));
}

#[test]
fn fields_that_are_no_lists_are_compared_byte_by_byte() {
    assert!(!same("user-agent", &[("user-agent", "X (a, b)")], &[("user-agent", "X (a,b)")]));
    assert!(!same("cookie", &[("cookie", "a=1,2")], &[("cookie", "a=1"), ("cookie", "2")]));
}

#[test]
fn codings_are_sorted_lowered_and_named_alike() {
    assert_eq!(encoding("GZip,  br"), "br,gzip");
    assert_eq!(encoding("x-gzip, x-compress"), "compress,gzip");
    assert_eq!(encoding("gzip, gzip"), "gzip");
}

#[test]
fn weights_are_written_one_way() {
    assert_eq!(encoding("gzip;q=1.0, br ; q=0.50"), "br;q=0.5,gzip");
    assert_eq!(encoding("gzip;Q=0.001"), "gzip;q=0.001");
    assert_eq!(encoding("br, gzip;q=0.8"), "br,gzip;q=0.8");
}

#[test]
fn a_coding_at_zero_is_as_good_as_unnamed() {
    assert_eq!(encoding("gzip, br;q=0"), encoding("gzip"));
    assert_eq!(encoding("br;q=0.000"), encoding(""));
}

#[test]
fn a_coding_at_zero_counts_where_a_star_would_admit_it() {
    assert_eq!(encoding("*, br;q=0"), "*,br;q=0");
}

#[test]
fn identity_says_nothing_unless_preferred_or_refused() {
    assert_eq!(encoding("gzip, identity"), "gzip");
    assert_eq!(encoding("identity"), encoding(""));
    assert_eq!(encoding("gzip, identity;q=0.5"), "gzip");
    assert_eq!(encoding("gzip;q=0.5, identity"), "gzip;q=0.5,identity");
    assert_eq!(encoding("gzip, identity;q=0"), "gzip,identity;q=0");
    assert_eq!(encoding("gzip, identity, *;q=0"), "*;q=0,gzip,identity");
}

#[test]
fn a_malformed_weight_is_not_taken_for_another() {
    for odd in ["gzip;q=2", "gzip;q=0.1234", "gzip;q=x", "gzip;level=9", "gzip;q=1;x"] {
        assert_ne!(encoding(odd), encoding("gzip"), "{odd}");
    }
}

#[test]
fn languages_are_ordered_by_weight_then_tag() {
    assert_eq!(language("de, EN"), language("en,de"));
    assert_eq!(language("de;q=0.5, en"), "en,de;q=0.5");
    assert_ne!(language("en, de;q=0.9"), language("de, en;q=0.9"));
}

#[test]
fn the_language_range_keeps_its_weight_of_zero() {
    assert_eq!(language("en, de;q=0"), "en,de;q=0");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn normalising_twice_changes_nothing(value in "[a-c*;q=.01, ]{0,24}") {
        let once = encoding(&value);
        prop_assert_eq!(encoding(&once), once);
        let once = language(&value);
        prop_assert_eq!(language(&once), once);
    }

    #[test]
    fn different_values_of_opaque_fields_never_match(
        one in vec("[ab]{0,2}", 0..3), other in vec("[ab]{0,2}", 0..3),
    ) {
        let lines = |values: &[String]| {
            let pairs: Vec<_> = values.iter().map(|v| ("cookie", v.as_str())).collect();
            headers(&pairs)
        };
        let spec = spec(&["cookie"]).unwrap();
        let selected = matches(&spec, &selecting(&spec, &lines(&one)), &lines(&other));
        prop_assert_eq!(selected, one == other);
    }

    #[test]
    fn a_request_always_matches_itself(name in "[a-z]{1,4}", bytes in vec(any::<u8>(), 0..30)) {
        let Ok(value) = HeaderValue::from_bytes(&bytes) else { return Ok(()) };
        let mut map = HeaderMap::new();
        for name in [name.as_str(), "accept-encoding", "accept-language"] {
            map.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value.clone());
        }
        let spec = spec(&[&format!("{name}, accept-encoding, accept-language")]).unwrap();
        prop_assert!(matches(&spec, &selecting(&spec, &map), &map));
    }
}
