use std::time::UNIX_EPOCH;

use http::HeaderValue;
use proptest::prelude::*;

use super::*;

const NOW: u64 = 1_800_000_000;

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + secs(seconds)
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Field values; an integer in a date field counts from now.
fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in lines {
        let text = match (*name, value.parse::<i64>()) {
            ("age", _) | (_, Err(_)) => (*value).to_owned(),
            (_, Ok(offset)) => date::format(at(NOW.saturating_add_signed(offset))),
        };
        map.append(HeaderName::from_static(name), HeaderValue::from_str(&text).unwrap());
    }
    map
}

fn initial(lines: &[(&'static str, &str)]) -> Duration {
    initial_age(&headers(lines), Exchange::at(at(NOW)))
}

fn explicit(lines: &[(&'static str, &str)]) -> Option<(Duration, LifetimeSource)> {
    let map = headers(lines);
    let (directives, source) = ResponseDirectives::governing(&map);
    explicit_lifetime(&map, &directives, source, at(NOW))
}

fn life(age: u64, lifetime: u64) -> Life {
    Life {
        arrived: at(NOW),
        age_at_arrival: secs(age),
        lifetime: secs(lifetime),
        stale_while_revalidate: Duration::ZERO,
        stale_if_error: Duration::ZERO,
        staleness: Staleness::Open,
        validation: Validation::WhenStale,
        change: Change::Possible,
    }
}

#[test]
fn apparent_age_is_arrival_minus_date() {
    assert_eq!(initial(&[("date", "-10")]), secs(10));
}

#[test]
fn a_date_in_the_future_makes_no_negative_age() {
    assert_eq!(initial(&[("date", "10")]), secs(0));
}

#[test]
fn age_outweighs_a_younger_date_and_the_reverse() {
    assert_eq!(initial(&[("date", "-10"), ("age", "25")]), secs(25));
    assert_eq!(initial(&[("date", "-30"), ("age", "25")]), secs(30));
}

#[test]
fn the_time_the_request_took_is_added_to_age() {
    let exchange = Exchange { requested: at(NOW - 3), arrived: at(NOW) };
    assert_eq!(initial_age(&headers(&[("age", "25")]), exchange), secs(28));
}

#[test]
fn a_clock_that_stepped_back_during_the_exchange_adds_nothing() {
    let exchange = Exchange { requested: at(NOW + 3), arrived: at(NOW) };
    assert_eq!(initial_age(&headers(&[("age", "25")]), exchange), secs(25));
}

#[test]
fn fractions_of_a_second_do_not_age_a_new_response() {
    let arrived = at(NOW) + Duration::from_millis(900);
    assert_eq!(initial_age(&headers(&[("date", "0")]), Exchange::at(arrived)), secs(0));
}

#[test]
fn without_a_readable_date_the_arrival_stands_for_it() {
    assert_eq!(initial(&[]), secs(0));
    assert_eq!(initial(&[("date", "foo")]), secs(0));
    assert_eq!(initial(&[("date", "-10"), ("date", "-20")]), secs(0));
}

#[test]
fn the_first_member_of_age_counts() {
    assert_eq!(initial(&[("age", "7200,0")]), secs(7200));
    assert_eq!(initial(&[("age", "0, 7200")]), secs(0));
    assert_eq!(initial(&[("age", "7200"), ("age", "0")]), secs(7200));
    assert_eq!(initial(&[("age", "0"), ("age", "7200")]), secs(0));
}

#[test]
fn an_age_that_is_no_number_is_ignored() {
    for value in ["abc", "-7200", "7200.0", "", "\"7\""] {
        assert_eq!(initial(&[("age", value)]), secs(0), "{value}");
    }
}

#[test]
fn an_age_beyond_counting_is_the_greatest() {
    assert_eq!(initial(&[("age", "99999999999999999999999")]), LONGEST);
}

#[test]
fn s_maxage_precedes_max_age_precedes_expires() {
    let all = [("cache-control", "max-age=2, s-maxage=1"), ("expires", "3"), ("date", "0")];
    assert_eq!(explicit(&all), Some((secs(1), LifetimeSource::SMaxage)));
    let two = [("cache-control", "max-age=2"), ("expires", "3"), ("date", "0")];
    assert_eq!(explicit(&two), Some((secs(2), LifetimeSource::MaxAge)));
    let one = [("expires", "3"), ("date", "0")];
    assert_eq!(explicit(&one), Some((secs(3), LifetimeSource::Expires)));
    assert_eq!(explicit(&[("date", "0")]), None);
}

#[test]
fn expires_counts_from_date_whatever_our_clock_says() {
    assert_eq!(explicit(&[("expires", "20"), ("date", "10")]).unwrap().0, secs(10));
    assert_eq!(explicit(&[("expires", "10"), ("date", "-10")]).unwrap().0, secs(20));
}

#[test]
fn expires_counts_from_the_arrival_where_there_is_no_date() {
    assert_eq!(explicit(&[("expires", "20")]).unwrap().0, secs(20));
    assert_eq!(explicit(&[("expires", "20"), ("date", "foo")]).unwrap().0, secs(20));
}

#[test]
fn an_expires_at_or_before_date_is_zero() {
    assert_eq!(explicit(&[("expires", "0"), ("date", "0")]).unwrap().0, secs(0));
    assert_eq!(explicit(&[("expires", "300"), ("date", "400")]).unwrap().0, secs(0));
}

#[test]
fn an_unreadable_or_contradictory_expires_is_zero() {
    assert_eq!(explicit(&[("expires", "now"), ("date", "0")]).unwrap().0, secs(0));
    let twice = [("expires", "10"), ("expires", "20"), ("date", "0")];
    assert_eq!(explicit(&twice).unwrap().0, secs(0));
}

#[test]
fn a_targeted_field_shuts_out_expires() {
    assert_eq!(explicit(&[("cdn-cache-control", "foo"), ("expires", "20")]), None);
}

#[test]
fn the_heuristic_is_a_fraction_of_the_time_without_change() {
    let map = headers(&[("last-modified", "-1000"), ("date", "0")]);
    assert_eq!(heuristic_lifetime(&map, 10, secs(3600), at(NOW)), Some(secs(100)));
}

#[test]
fn the_heuristic_is_bounded() {
    let map = headers(&[("last-modified", "-1000000"), ("date", "0")]);
    assert_eq!(heuristic_lifetime(&map, 10, secs(3600), at(NOW)), Some(secs(3600)));
}

#[test]
fn there_is_no_heuristic_without_a_past_last_modified() {
    for value in ["0", "10", "foo"] {
        let map = headers(&[("last-modified", value), ("date", "0")]);
        assert_eq!(heuristic_lifetime(&map, 10, secs(3600), at(NOW)), None, "{value}");
    }
    assert_eq!(heuristic_lifetime(&headers(&[]), 10, secs(3600), at(NOW)), None);
}

#[test]
fn zero_percent_turns_the_heuristic_off() {
    let map = headers(&[("last-modified", "-1000"), ("date", "0")]);
    assert_eq!(heuristic_lifetime(&map, 0, secs(3600), at(NOW)), None);
}

#[test]
fn a_response_is_fresh_while_its_lifetime_is_greater_than_its_age() {
    assert_eq!(life(5, 10).overdue(at(NOW + 4)), None);
    assert_eq!(life(5, 10).overdue(at(NOW + 5)), Some(secs(0)));
    assert_eq!(life(5, 10).overdue(at(NOW + 6)), Some(secs(1)));
}

#[test]
fn a_clock_that_stepped_back_does_not_rejuvenate() {
    assert_eq!(life(5, 10).age(at(NOW - 100)), secs(5));
}

#[test]
fn remaining_seconds_go_below_zero() {
    assert_eq!(life(5, 10).remaining_seconds(at(NOW)), 5);
    assert_eq!(life(5, 10).remaining_seconds(at(NOW + 8)), -3);
}

#[test]
fn a_soft_purge_makes_stale_and_never_fresh() {
    let mut fresh = life(5, 10);
    fresh.expire(at(NOW + 1));
    assert_eq!(fresh.overdue(at(NOW + 1)), Some(secs(0)));
    let mut stale = life(20, 10);
    stale.expire(at(NOW));
    assert_eq!(stale.overdue(at(NOW)), Some(secs(10)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn age_is_monotone(
        age in 0..=1_u64 << 31,
        lifetime in 0..=1_u64 << 31,
        earlier in 0..4_000_000_000_u64,
        more in 0..4_000_000_000_u64,
    ) {
        let life = life(age, lifetime);
        prop_assert!(life.age(at(earlier)) <= life.age(at(earlier + more)));
        prop_assert!(life.overdue(at(earlier)) <= life.overdue(at(earlier + more)));
    }

    #[test]
    fn a_greater_age_field_never_makes_younger(date in -1000..1000_i64, age in 0..5000_u64) {
        let with = |age: u64| initial(&[("date", &date.to_string()), ("age", &age.to_string())]);
        prop_assert!(with(age) <= with(age + 1));
    }
}
