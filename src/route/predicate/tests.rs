use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use http::Method;
use proptest::prelude::*;

use super::Predicates;
use super::Unmet;
use super::ValueMatch;
use crate::message::target::Scheme;
use crate::route::Ask;

fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        let value = HeaderValue::from_bytes(value.as_bytes()).expect("a valid value");
        headers.append(HeaderName::from_static(name), value);
    }
    headers
}

fn ask<'a>(method: &'a Method, query: Option<&'a str>, headers: &'a HeaderMap) -> Ask<'a> {
    Ask { method, scheme: Scheme::Http, host: "a.org", path: "/", query, headers, client: None }
}

fn regex(text: &str) -> ValueMatch {
    ValueMatch::regex(text).expect("a valid expression")
}

fn exact(text: &str) -> ValueMatch {
    ValueMatch::Exact(text.to_owned())
}

fn query_meets(query: Option<&str>, name: &str, wanted: ValueMatch) -> bool {
    let when = Predicates { queries: vec![(name.to_owned(), wanted)], ..Predicates::default() };
    when.holds(&ask(&Method::GET, query, &HeaderMap::new())).is_ok()
}

fn cookie_meets(lines: &[&str], name: &str, wanted: ValueMatch) -> bool {
    let when = Predicates { cookies: vec![(name.to_owned(), wanted)], ..Predicates::default() };
    let lines: Vec<_> = lines.iter().map(|line| ("cookie", *line)).collect();
    when.holds(&ask(&Method::GET, None, &headers(&lines))).is_ok()
}

fn header_meets(lines: &[(&'static str, &str)], wanted: ValueMatch) -> bool {
    let when = Predicates {
        headers: vec![(HeaderName::from_static("x-a"), wanted)],
        ..Predicates::default()
    };
    when.holds(&ask(&Method::GET, None, &headers(lines))).is_ok()
}

#[test]
fn no_conditions_hold_for_every_request() {
    assert!(Predicates::default().holds(&ask(&Method::PUT, None, &HeaderMap::new())).is_ok());
    assert_eq!(Predicates::default().conditions(), 0);
}

#[test]
fn get_includes_head_but_head_does_not_include_get() {
    let fields = HeaderMap::new();
    let get = Predicates { methods: vec![Method::GET], ..Predicates::default() };
    assert!(get.holds(&ask(&Method::HEAD, None, &fields)).is_ok());
    assert!(get.holds(&ask(&Method::POST, None, &fields)).is_err());
    let head = Predicates { methods: vec![Method::HEAD], ..Predicates::default() };
    assert!(head.holds(&ask(&Method::GET, None, &fields)).is_err());
}

#[test]
fn any_line_of_a_field_may_meet_the_condition() {
    let lines = [("x-a", "one"), ("x-a", "two")];
    assert!(header_meets(&lines, exact("two")));
    assert!(header_meets(&lines, ValueMatch::Prefix("tw".to_owned())));
    assert!(header_meets(&lines, regex("t.o")));
    assert!(!header_meets(&lines, exact("tw")));
    assert!(!header_meets(&lines, regex("tw")));
}

#[test]
fn present_and_absent_are_opposites() {
    assert!(header_meets(&[("x-a", "")], ValueMatch::Present));
    assert!(!header_meets(&[("x-a", "")], ValueMatch::Absent));
    assert!(!header_meets(&[("x-b", "")], ValueMatch::Present));
    assert!(header_meets(&[("x-b", "")], ValueMatch::Absent));
}

#[test]
fn a_field_value_outside_utf_8_is_present_but_matches_no_expression() {
    let mut fields = HeaderMap::new();
    let value = HeaderValue::from_bytes(b"\xff").expect("a valid value");
    fields.insert(HeaderName::from_static("x-a"), value);
    let holds = |wanted| {
        let name = HeaderName::from_static("x-a");
        let when = Predicates { headers: vec![(name, wanted)], ..Predicates::default() };
        when.holds(&ask(&Method::GET, None, &fields)).is_ok()
    };
    assert!(holds(ValueMatch::Present));
    assert!(!holds(regex(".*")));
}

#[test]
fn query_names_and_values_are_decoded() {
    assert!(query_meets(Some("x=1&n%61me=a+b%20c"), "name", exact("a b c")));
    assert!(query_meets(Some("a=%zz%4"), "a", exact("%zz%4")));
    assert!(query_meets(Some("a=b=c"), "a", exact("b=c")));
}

#[test]
fn a_query_parameter_without_a_value_is_present_and_empty() {
    assert!(query_meets(Some("debug&x"), "debug", ValueMatch::Present));
    assert!(query_meets(Some("debug"), "debug", exact("")));
}

#[test]
fn an_empty_query_has_no_parameters() {
    for query in [None, Some(""), Some("&&")] {
        assert!(query_meets(query, "", ValueMatch::Absent), "{query:?}");
    }
}

#[test]
fn cookies_are_read_over_all_lines() {
    let lines = ["a=1; b=2", " c = 3 ;d", "b=4"];
    assert!(cookie_meets(&lines, "b", exact("4")));
    assert!(cookie_meets(&lines, "c", exact("3")));
    assert!(cookie_meets(&lines, "d", ValueMatch::Absent));
    assert!(cookie_meets(&lines, "A", ValueMatch::Absent));
}

#[test]
fn a_cookie_value_may_hold_equals_signs() {
    assert!(cookie_meets(&["t=YQ==; x=y"], "t", exact("YQ==")));
}

#[test]
fn the_first_unmet_condition_is_named() {
    let when = Predicates {
        methods: vec![Method::GET, Method::POST],
        queries: vec![("v".to_owned(), regex("[12]"))],
        ..Predicates::default()
    };
    assert_eq!(when.conditions(), 2);
    let fields = HeaderMap::new();
    let unmet = when.holds(&ask(&Method::PUT, None, &fields)).expect_err("the method");
    assert_eq!(unmet.to_string(), "the method must be GET or POST");
    let unmet = when.holds(&ask(&Method::GET, Some("v=3"), &fields)).expect_err("the query");
    assert!(matches!(unmet, Unmet::Query("v", _)));
    assert_eq!(unmet.to_string(), "the query parameter `v` must match `[12]`");
}

#[test]
fn a_condition_on_a_secret_is_named_without_it() {
    let fields = HeaderMap::new();
    let unmet = |when: Predicates| {
        let method = Method::GET;
        when.holds(&ask(&method, None, &fields)).map_err(|unmet| unmet.to_string()).unwrap_err()
    };
    let key = HeaderName::from_static("x-api-key");
    let headers = vec![(key, exact("hunter2"))];
    let told = unmet(Predicates { headers, ..Predicates::default() });
    assert_eq!(told, "the field `x-api-key` must be \"***\"");
    let queries = vec![("token".to_owned(), regex("hunter2"))];
    let told = unmet(Predicates { queries, ..Predicates::default() });
    assert_eq!(told, "the query parameter `token` must match `***`");
    let cookies = vec![("session".to_owned(), ValueMatch::Prefix("hunter2".to_owned()))];
    let told = unmet(Predicates { cookies, ..Predicates::default() });
    assert_eq!(told, "the cookie `session` must begin with \"***\"");
}

#[test]
fn fewer_conditions_cover_more() {
    let get = Predicates { methods: vec![Method::GET], ..Predicates::default() };
    let head = Predicates { methods: vec![Method::HEAD], ..Predicates::default() };
    let with_query = Predicates {
        methods: vec![Method::GET],
        queries: vec![("v".to_owned(), exact("1"))],
        ..Predicates::default()
    };
    assert!(Predicates::default().cover(&get) && !get.cover(&Predicates::default()));
    assert!(get.cover(&head) && !head.cover(&get));
    assert!(get.cover(&with_query) && !with_query.cover(&get));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn a_parameter_is_found_however_it_was_encoded(
        name in "[a-z&=+%]{1,5}", value in "\\PC{0,8}", before in "[a-z=&%+]{0,8}",
    ) {
        let encoded = |text: &str| -> String {
            text.bytes().map(|byte| format!("%{byte:02x}")).collect()
        };
        let query = format!("{before}&{}={}", encoded(&name), encoded(&value));
        prop_assert!(query_meets(Some(&query), &name, ValueMatch::Exact(value)));
    }

    #[test]
    fn any_cookie_line_is_read_without_panic(line in "[ -~]{0,30}") {
        let absent = cookie_meets(&[&line], "a", ValueMatch::Absent);
        prop_assert_eq!(absent, !cookie_meets(&[&line], "a", ValueMatch::Present));
    }
}
