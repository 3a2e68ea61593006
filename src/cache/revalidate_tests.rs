use std::time::Duration;
use std::time::UNIX_EPOCH;

use proptest::prelude::*;

use super::*;

const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
const LATER: &str = "Sun, 06 Nov 1994 08:49:47 GMT";

fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in lines {
        map.append(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
    }
    map
}

fn arrived() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(784_111_787)
}

fn etag(tag: &str) -> HeaderMap {
    headers(&[("etag", tag)])
}

fn merged(stored: &[(&'static str, &str)], update: &[(&'static str, &str)]) -> HeaderMap {
    merge(&headers(stored), &headers(update), arrived())
}

#[test]
fn both_validators_are_offered() {
    let conditions = Conditions::of(&headers(&[("etag", "\"a\""), ("last-modified", DATE)]));
    assert_eq!(conditions.if_none_match.unwrap(), "\"a\"");
    assert_eq!(conditions.if_modified_since.unwrap(), DATE);
}

#[test]
fn a_weak_tag_is_offered_as_it_is() {
    assert_eq!(Conditions::of(&etag("W/\"a\"")).if_none_match.unwrap(), "W/\"a\"");
}

#[test]
fn malformed_validators_are_not_offered() {
    for tag in ["abc", "\"a", "w/\"a\"", "W\"a\"", "\"a\" \"b\"", "\"a b\""] {
        assert!(Conditions::of(&etag(tag)).is_empty(), "{tag}");
    }
    assert!(Conditions::of(&headers(&[("etag", "\"a\""), ("etag", "\"b\"")])).is_empty());
    assert!(Conditions::of(&headers(&[("last-modified", "yesterday")])).is_empty());
}

#[test]
fn all_tags_of_several_variants_are_offered_once() {
    let (a, b) = (etag("\"a\""), headers(&[("etag", "W/\"b\""), ("last-modified", DATE)]));
    let conditions = Conditions::of_all([&b, &a, &b]);
    assert_eq!(conditions.if_none_match.unwrap(), "W/\"b\", \"a\"");
    assert_eq!(conditions.if_modified_since, None);
    assert_eq!(Conditions::of_all([&b]), Conditions::of(&b));
    assert!(Conditions::of_all([]).is_empty());
}

#[test]
fn several_variants_without_tags_offer_nothing() {
    let dated = headers(&[("last-modified", DATE)]);
    assert!(Conditions::of_all([&dated, &dated]).is_empty());
}

#[test]
fn the_clients_conditions_and_ranges_are_replaced() {
    let mut request = headers(&[
        ("if-none-match", "\"client\""),
        ("if-match", "\"client\""),
        ("if-modified-since", DATE),
        ("if-unmodified-since", DATE),
        ("if-range", "\"client\""),
        ("range", "bytes=0-1"),
        ("abc", "123"),
    ]);
    Conditions::of(&etag("\"a\"")).apply(&mut request);
    assert_eq!(request, headers(&[("abc", "123"), ("if-none-match", "\"a\"")]));
}

#[test]
fn a_strong_tag_must_be_the_same_strong_tag() {
    assert_eq!(freshens(&etag("\"a\""), &etag("\"a\"")), Freshens::Yes);
    let other = Freshens::No(Mismatch::EntityTag);
    assert_eq!(freshens(&etag("\"a\""), &etag("\"b\"")), other);
    assert_eq!(freshens(&etag("W/\"a\""), &etag("\"a\"")), other);
    assert_eq!(freshens(&headers(&[]), &etag("\"a\"")), other);
}

#[test]
fn a_weak_tag_matches_weakly() {
    assert_eq!(freshens(&etag("\"a\""), &etag("W/\"a\"")), Freshens::Yes);
    assert_eq!(freshens(&etag("W/\"a\""), &etag("W/\"a\"")), Freshens::Yes);
    assert_eq!(freshens(&etag("W/\"a\""), &etag("W/\"b\"")), Freshens::No(Mismatch::EntityTag));
}

#[test]
fn a_tag_outweighs_the_date() {
    let stored = headers(&[("etag", "\"a\""), ("last-modified", DATE)]);
    let other_date = headers(&[("etag", "\"a\""), ("last-modified", LATER)]);
    assert_eq!(freshens(&stored, &other_date), Freshens::Yes);
}

#[test]
fn without_a_tag_the_dates_decide() {
    let stored = headers(&[("last-modified", DATE)]);
    assert_eq!(freshens(&stored, &stored), Freshens::Yes);
    let later = headers(&[("last-modified", LATER)]);
    assert_eq!(freshens(&stored, &later), Freshens::No(Mismatch::LastModified));
}

#[test]
fn a_304_without_validators_speaks_of_the_only_one_asked_about() {
    assert_eq!(freshens(&etag("\"a\""), &headers(&[])), Freshens::Yes);
}

#[test]
fn of_several_all_with_the_same_strong_tag_are_selected() {
    let (a, b) = (etag("\"a\""), etag("\"b\""));
    assert_eq!(selected(&[&a, &b, &a], &a), [0, 2]);
}

#[test]
fn of_several_only_the_newest_with_the_same_weak_tag_is_selected() {
    let (a, b) = (etag("W/\"a\""), etag("\"b\""));
    assert_eq!(selected(&[&b, &a, &a], &a), [1]);
}

#[test]
fn of_several_none_is_selected_without_a_match() {
    let (a, b) = (etag("\"a\""), etag("\"b\""));
    assert!(selected(&[&a, &a], &b).is_empty());
    assert!(selected(&[&a, &b], &headers(&[])).is_empty());
    assert!(selected(&[], &a).is_empty());
    assert_eq!(selected(&[&a], &headers(&[])), [0]);
}

#[test]
fn fields_of_the_304_replace_all_stored_lines() {
    let merged = merged(&[("a", "1"), ("a", "2"), ("date", DATE)], &[("a", "3"), ("date", DATE)]);
    assert_eq!(merged, headers(&[("a", "3"), ("date", DATE)]));
}

#[test]
fn fields_that_the_304_omits_stay() {
    assert_eq!(merged(&[("test", "1")], &[]).get("test").unwrap(), "1");
}

#[test]
fn several_lines_of_the_304_are_all_taken() {
    let merged = merged(&[("a", "1")], &[("a", "2"), ("a", "3")]);
    assert_eq!(merged.get_all("a").iter().collect::<Vec<_>>(), ["2", "3"]);
}

#[test]
fn what_the_content_depends_on_is_not_updated() {
    for name in ["content-length", "content-encoding", "content-range"] {
        assert_eq!(merged(&[(name, "1")], &[(name, "2")]).get(name).unwrap(), "1", "{name}");
        assert!(merged(&[], &[(name, "2")]).get(name).is_none(), "{name}");
    }
}

#[test]
fn what_describes_the_representation_is_updated() {
    for name in ["content-type", "content-location", "content-foo", "etag", "expires", "vary"] {
        assert_eq!(merged(&[(name, "1")], &[(name, "2")]).get(name).unwrap(), "2", "{name}");
    }
}

#[test]
fn what_concerns_a_connection_is_not_taken() {
    let names = ["transfer-encoding", "keep-alive", "upgrade", "proxy-authenticate", "trailer"];
    for name in names {
        assert!(merged(&[], &[(name, "2")]).get(name).is_none(), "{name}");
    }
    let nominated = merged(&[], &[("connection", "x-hop, close"), ("x-hop", "1")]);
    assert!(nominated.get("x-hop").is_none() && nominated.get("connection").is_none());
}

#[test]
fn age_and_date_become_the_304s() {
    let merged = merged(&[("age", "500"), ("date", DATE)], &[("age", "3"), ("date", LATER)]);
    assert_eq!(merged.get("age").unwrap(), "3");
    assert_eq!(merged.get("date").unwrap(), LATER);
}

#[test]
fn without_age_and_date_the_304_is_as_old_as_its_arrival() {
    let merged = merged(&[("age", "500"), ("date", DATE)], &[]);
    assert!(merged.get("age").is_none());
    assert_eq!(merged.get("date").unwrap(), LATER);
}

#[test]
fn a_head_with_the_same_validators_freshens() {
    let stored = headers(&[("etag", "\"a\""), ("content-length", "5"), ("x", "1")]);
    let head = headers(&[("etag", "\"a\""), ("content-length", "5"), ("x", "2")]);
    let HeadUpdate::Freshen(merged) = freshen_by_head(&stored, &head, arrived()) else {
        panic!("the validators are the same");
    };
    assert_eq!(merged.get("x").unwrap(), "2");
}

#[test]
fn a_head_without_validators_freshens() {
    let stored = headers(&[("etag", "\"a\""), ("content-length", "5")]);
    let head = headers(&[("cache-control", "max-age=1000")]);
    assert!(matches!(freshen_by_head(&stored, &head, arrived()), HeadUpdate::Freshen(_)));
}

#[test]
fn a_head_with_another_validator_or_length_invalidates() {
    let stored = headers(&[("etag", "\"a\""), ("content-length", "5"), ("last-modified", DATE)]);
    for other in [("etag", "\"b\""), ("content-length", "6"), ("last-modified", LATER)] {
        assert_eq!(freshen_by_head(&stored, &headers(&[other]), arrived()), HeadUpdate::Invalidate);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn taking_in_the_same_304_twice_changes_nothing(
        stored in proptest::collection::vec("[a-c]{0,2}", 0..4),
        update in proptest::collection::vec("[a-c]{0,2}", 0..4),
    ) {
        let build = |values: &[String]| {
            let names = ["a", "b", "cache-control", "content-length"];
            let pairs: Vec<_> =
                values.iter().enumerate().map(|(at, v)| (names[at], v.as_str())).collect();
            headers(&pairs)
        };
        let once = merge(&build(&stored), &build(&update), arrived());
        prop_assert_eq!(merge(&once, &build(&update), arrived()), once);
    }
}
