use http::HeaderName;
use proptest::prelude::*;

use super::*;

const T0: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
const T1: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
const T2: &str = "Sun, 06 Nov 1994 08:49:38 GMT";

fn fields(lines: &[(&str, &str)]) -> HeaderMap {
    lines
        .iter()
        .map(|(name, value)| {
            (HeaderName::try_from(*name).unwrap(), HeaderValue::from_str(value).unwrap())
        })
        .collect()
}

/// The outcome for a representation with the ETag `"a"`, modified at T1, sent at T2.
fn outcome(method: Method, request: &[(&str, &str)]) -> Outcome {
    against(&[("etag", "\"a\""), ("last-modified", T1), ("date", T2)], method, request)
}

fn against(response: &[(&str, &str)], method: Method, request: &[(&str, &str)]) -> Outcome {
    let response = fields(response);
    evaluate(&method, &fields(request), &Validators::of(&response), StatusCode::OK)
}

#[test]
fn no_conditions_proceed() {
    assert_eq!(outcome(Method::GET, &[]), Outcome::Proceed);
    assert_eq!(outcome(Method::GET, &[("range", "bytes=0-1")]), Outcome::Proceed);
}

#[test]
fn if_match_compares_strongly() {
    for (value, expected) in [
        ("\"a\"", Outcome::Proceed),
        ("\"b\", \"a\"", Outcome::Proceed),
        ("*", Outcome::Proceed),
        ("W/\"a\"", Outcome::PreconditionFailed),
        ("\"b\"", Outcome::PreconditionFailed),
        ("a", Outcome::PreconditionFailed),
        ("", Outcome::PreconditionFailed),
    ] {
        assert_eq!(outcome(Method::PUT, &[("if-match", value)]), expected, "{value}");
    }
    let weak = against(&[("etag", "W/\"a\"")], Method::GET, &[("if-match", "W/\"a\"")]);
    assert_eq!(weak, Outcome::PreconditionFailed);
}

#[test]
fn if_unmodified_since_fails_after_the_date_only() {
    assert_eq!(outcome(Method::PUT, &[("if-unmodified-since", T1)]), Outcome::Proceed);
    assert_eq!(outcome(Method::PUT, &[("if-unmodified-since", T2)]), Outcome::Proceed);
    assert_eq!(outcome(Method::PUT, &[("if-unmodified-since", T0)]), Outcome::PreconditionFailed);
    assert_eq!(outcome(Method::PUT, &[("if-unmodified-since", "yesterday")]), Outcome::Proceed);
    let undated = against(&[("etag", "\"a\"")], Method::PUT, &[("if-unmodified-since", T0)]);
    assert_eq!(undated, Outcome::Proceed);
}

#[test]
fn if_match_takes_precedence_over_if_unmodified_since() {
    let request = [("if-match", "\"a\""), ("if-unmodified-since", T0)];
    assert_eq!(outcome(Method::GET, &request), Outcome::Proceed);
}

#[test]
fn if_none_match_compares_weakly() {
    for (value, expected) in [
        ("\"a\"", Outcome::NotModified),
        ("W/\"a\"", Outcome::NotModified),
        ("\"b\" , ,W/\"a\"", Outcome::NotModified),
        ("junk, \"a\"", Outcome::NotModified),
        ("*", Outcome::NotModified),
        ("\"b\"", Outcome::Proceed),
        ("\"A\"", Outcome::Proceed),
        ("w/\"a\"", Outcome::Proceed),
        ("W\"a\"", Outcome::Proceed),
        ("\"a\"x", Outcome::Proceed),
        ("a", Outcome::Proceed),
        ("\"x,\"a\"", Outcome::Proceed),
    ] {
        assert_eq!(outcome(Method::GET, &[("if-none-match", value)]), expected, "{value}");
    }
    let lines = [("if-none-match", "\"b\""), ("if-none-match", "\"a\"")];
    assert_eq!(outcome(Method::GET, &lines), Outcome::NotModified);
}

#[test]
fn if_none_match_is_412_for_methods_that_write() {
    assert_eq!(outcome(Method::HEAD, &[("if-none-match", "*")]), Outcome::NotModified);
    assert_eq!(outcome(Method::PUT, &[("if-none-match", "*")]), Outcome::PreconditionFailed);
    assert_eq!(outcome(Method::PUT, &[("if-none-match", "\"a\"")]), Outcome::PreconditionFailed);
    assert_eq!(outcome(Method::PUT, &[("if-none-match", "\"b\"")]), Outcome::Proceed);
}

#[test]
fn tags_may_hold_commas_and_backslashes() {
    let response = [("etag", "\"a,\\\"")];
    let request = [("if-none-match", "\"x\\\", \"a,\\\"")];
    assert_eq!(against(&response, Method::GET, &request), Outcome::NotModified);
}

#[test]
fn a_tag_without_quotes_matches_its_own_bytes_only() {
    let tag = |asked| against(&[("etag", "abc")], Method::GET, &[("if-none-match", asked)]);
    assert_eq!(tag("abc"), Outcome::NotModified);
    assert_eq!(tag("\"abc\""), Outcome::Proceed);
    let strong = against(&[("etag", "abc")], Method::PUT, &[("if-match", "abc")]);
    assert_eq!(strong, Outcome::PreconditionFailed);
}

#[test]
fn if_modified_since_is_met_at_the_date_itself() {
    assert_eq!(outcome(Method::GET, &[("if-modified-since", T0)]), Outcome::Proceed);
    assert_eq!(outcome(Method::GET, &[("if-modified-since", T1)]), Outcome::NotModified);
    assert_eq!(outcome(Method::HEAD, &[("if-modified-since", T2)]), Outcome::NotModified);
}

#[test]
fn if_modified_since_takes_the_three_forms_of_dates() {
    for value in ["Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"] {
        let request = [("if-modified-since", value)];
        assert_eq!(outcome(Method::GET, &request), Outcome::NotModified, "{value}");
    }
}

#[test]
fn if_modified_since_is_ignored_where_it_means_nothing() {
    assert_eq!(outcome(Method::POST, &[("if-modified-since", T2)]), Outcome::Proceed);
    assert_eq!(outcome(Method::GET, &[("if-modified-since", "0")]), Outcome::Proceed);
    let twice = [("if-modified-since", T2), ("if-modified-since", T2)];
    assert_eq!(outcome(Method::GET, &twice), Outcome::Proceed);
}

#[test]
fn without_last_modified_the_date_decides() {
    let request = |since| against(&[("date", T1)], Method::GET, &[("if-modified-since", since)]);
    assert_eq!(request(T0), Outcome::Proceed);
    assert_eq!(request(T1), Outcome::NotModified);
    assert_eq!(against(&[], Method::GET, &[("if-modified-since", T1)]), Outcome::Proceed);
}

#[test]
fn if_none_match_takes_precedence_over_if_modified_since() {
    let request = [("if-none-match", "\"b\""), ("if-modified-since", T2)];
    assert_eq!(outcome(Method::GET, &request), Outcome::Proceed);
}

#[test]
fn if_match_is_evaluated_before_if_none_match() {
    let request = [("if-match", "\"b\""), ("if-none-match", "\"a\"")];
    assert_eq!(outcome(Method::GET, &request), Outcome::PreconditionFailed);
}

#[test]
fn if_range_needs_the_same_strong_tag() {
    let range = |value| outcome(Method::GET, &[("range", "bytes=0-1"), ("if-range", value)]);
    assert_eq!(range("\"a\""), Outcome::Proceed);
    assert_eq!(range("\"b\""), Outcome::IgnoreRange);
    assert_eq!(range("W/\"a\""), Outcome::IgnoreRange);
    assert_eq!(range("a"), Outcome::IgnoreRange);
    let request = [("range", "bytes=0-1"), ("if-range", "W/\"a\"")];
    assert_eq!(against(&[("etag", "W/\"a\"")], Method::GET, &request), Outcome::IgnoreRange);
}

#[test]
fn if_range_by_date_needs_the_exact_date() {
    let range = |value| outcome(Method::GET, &[("range", "bytes=0-1"), ("if-range", value)]);
    assert_eq!(range(T1), Outcome::Proceed);
    assert_eq!(range(T0), Outcome::IgnoreRange);
    assert_eq!(range(T2), Outcome::IgnoreRange);
}

#[test]
fn a_date_is_strong_one_second_after_the_modification() {
    let request = [("range", "bytes=0-1"), ("if-range", T1)];
    let sent = |date| against(&[("last-modified", T1), ("date", date)], Method::GET, &request);
    assert_eq!(sent(T2), Outcome::Proceed);
    assert_eq!(sent(T1), Outcome::IgnoreRange);
    assert_eq!(sent(T0), Outcome::IgnoreRange);
    assert_eq!(against(&[("last-modified", T1)], Method::GET, &request), Outcome::IgnoreRange);
    assert_eq!(against(&[], Method::GET, &request), Outcome::IgnoreRange);
}

#[test]
fn if_range_is_ignored_without_range_and_for_other_methods() {
    assert_eq!(outcome(Method::GET, &[("if-range", "\"b\"")]), Outcome::Proceed);
    let request = [("range", "bytes=0-1"), ("if-range", "\"b\"")];
    assert_eq!(outcome(Method::HEAD, &request), Outcome::Proceed);
}

#[test]
fn a_304_comes_before_if_range() {
    let request = [("if-none-match", "\"a\""), ("range", "bytes=0-1"), ("if-range", "\"b\"")];
    assert_eq!(outcome(Method::GET, &request), Outcome::NotModified);
}

#[test]
fn conditions_count_for_success_only() {
    let request = fields(&[("if-none-match", "*")]);
    let asked = |status| evaluate(&Method::GET, &request, &Validators::default(), status);
    assert_eq!(asked(StatusCode::OK), Outcome::NotModified);
    assert_eq!(asked(StatusCode::NO_CONTENT), Outcome::NotModified);
    assert_eq!(asked(StatusCode::PRECONDITION_FAILED), Outcome::NotModified);
    assert_eq!(asked(StatusCode::NOT_FOUND), Outcome::Proceed);
    assert_eq!(asked(StatusCode::MOVED_PERMANENTLY), Outcome::Proceed);
}

#[test]
fn two_etags_are_none() {
    let response = [("etag", "\"a\""), ("etag", "\"a\"")];
    assert_eq!(against(&response, Method::GET, &[("if-none-match", "\"a\"")]), Outcome::Proceed);
}

#[test]
fn some_conditions_are_for_the_origin() {
    assert!(is_for_origin(&fields(&[("if-match", "*")])));
    assert!(is_for_origin(&fields(&[("if-unmodified-since", T1)])));
    assert!(!is_for_origin(&fields(&[("if-none-match", "*"), ("if-range", T1)])));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_list_of_tags_has_an_answer(line in "[W/\"\\\\a, -]{0,24}") {
        let whole = line.clone().into_bytes();
        prop_assert!(tags(&whole).count() <= whole.len());
        let _ = outcome(Method::GET, &[("if-none-match", line.as_str()), ("if-range", "x")]);
    }

    #[test]
    fn a_tag_is_found_in_any_list_that_holds_it(
        before in proptest::collection::vec("(W/)?\"[a-z,\\\\]{0,4}\"", 0..4),
        opaque in "[a-z,\\\\]{1,6}",
    ) {
        let mut list = before;
        list.push(format!("\"{opaque}\""));
        let etag = format!("\"{opaque}\"");
        let found = against(
            &[("etag", etag.as_str())], Method::GET, &[("if-none-match", list.join(",").as_str())]);
        prop_assert_eq!(found, Outcome::NotModified);
    }
}
