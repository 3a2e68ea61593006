//! What an upstream does about which nothing is written, one by one, and that each of it can be said
//! otherwise.

use std::time::Duration;

use super::config;
use super::load_text;
use crate::balance::Algorithm;
use crate::config::Diagnostics;
use crate::config::show;
use crate::resilience::breaker;
use crate::upstream::Settings;
use crate::upstream::health::Probe;

/// An upstream of two backends with these further keys.
fn with(more: &str) -> Settings {
    let text = format!(
        "upstreams: {{a: {{addresses: [\"a:80\", \"b:80\"], {more}}}}}\n\
                        routes: [{{upstream: a}}]"
    );
    config(&text).plan.upstreams[0].clone()
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn breaker(more: &str) -> Option<breaker::Settings> {
    with(more).breaker.map(|breaker| breaker.settings)
}

fn refused(text: &str) -> Vec<String> {
    let text = format!(
        "listeners: [{{address: \"127.0.0.1:80\"}}]\n\
         upstreams: {{a: {{addresses: [\"a:80\", \"b:80\"], {text}}}}}\nroutes: [{{upstream: a}}]"
    );
    messages(&load_text(&text, "t.yaml").expect_err("it contradicts itself"))
}

/// What is said of an upstream `a` and a route, beside another of each.
fn of(upstream: &str, route: &str) -> Result<(), Vec<String>> {
    let text = format!(
        "listeners: [{{address: \"127.0.0.1:80\"}}]\n\
         upstreams: {{a: {{addresses: [\"a:80\", \"b:80\"], {upstream}}}, b: {{addresses: [\"c:80\"]}}}}\n\
         routes: [{{match: {{path: /x}}, {route}}}, {{upstream: b}}]"
    );
    load_text(&text, "t.yaml").map(drop).map_err(|found| messages(&found))
}

fn messages(found: &Diagnostics) -> Vec<String> {
    found.all().iter().map(|one| one.message.clone()).collect()
}

#[test]
fn backends_are_chosen_by_turns() {
    assert_eq!(with("").balance.algorithm, Algorithm::RoundRobin);
    assert_eq!(with("balance: random").balance.algorithm, Algorithm::Random);
}

#[test]
fn the_breaker_is_on() {
    assert!(with("").breaker.is_some());
    assert!(with("breaker: off").breaker.is_none());
}

#[test]
fn five_failures_open_it() {
    assert_eq!(breaker("").expect("it is on").failures, 5);
    assert_eq!(breaker("breaker: {failures: 10}").expect("it is on").failures, 10);
}

#[test]
fn it_is_open_for_30_seconds() {
    assert_eq!(breaker("").expect("it is on").open_for, seconds(30));
    assert_eq!(breaker("breaker: {open_for: 60s}").expect("it is on").open_for, seconds(60));
}

#[test]
fn a_backend_has_100_connections() {
    assert_eq!(with("").pool.max_connections, 100);
    assert_eq!(with("pool: {max_connections: 200}").pool.max_connections, 200);
}

#[test]
fn connecting_takes_10_seconds_at_most() {
    assert_eq!(with("").timeouts.connect, seconds(10));
    assert_eq!(with("timeouts: {connect: 15s}").timeouts.connect, seconds(15));
}

#[test]
fn connections_are_idle_for_90_seconds_at_most() {
    assert_eq!((with("").timeouts.idle, with("").pool.idle), (seconds(90), seconds(90)));
    let other = with("timeouts: {idle: 60s}");
    assert_eq!((other.timeouts.idle, other.pool.idle), (seconds(60), seconds(60)));
}

#[test]
fn there_are_three_attempts() {
    assert_eq!(with("").retry.settings.attempts, 3);
    assert_eq!(with("retry: {attempts: 5}").retry.settings.attempts, 5);
    assert_eq!(with("retry: off").retry.settings.attempts, 1);
}

#[test]
fn the_wait_before_the_second_one_is_100_milliseconds_at_most() {
    assert_eq!(with("").retry.settings.backoff, Duration::from_millis(100));
    let other = with("retry: {backoff: 200ms}");
    assert_eq!(other.retry.settings.backoff, Duration::from_millis(200));
}

#[test]
fn waits_grow() {
    let settings = with("").retry.settings;
    assert!(settings.max_backoff >= 4 * settings.backoff);
    // All alike; and none at all.
    let alike = with("retry: {backoff: 100ms, max_backoff: 100ms}").retry.settings;
    assert_eq!(alike.max_backoff, alike.backoff);
    assert_eq!(with("retry: {backoff: 0}").retry.settings.backoff, Duration::ZERO);
}

#[test]
fn health_is_checked() {
    assert!(with("").health.is_some());
    assert!(with("health: off").health.is_none());
}

#[test]
fn health_is_checked_every_10_seconds() {
    assert_eq!(with("").health.expect("it is on").interval, seconds(10));
    assert_eq!(with("health: {interval: 30s}").health.expect("it is on").interval, seconds(30));
}

#[test]
fn it_is_asked_for_health_where_it_is_asked_by_http() {
    let path = |more: &str| match with(more).health.expect("it is on").probe {
        Probe::Http(request) => Some(request.target),
        Probe::Tcp | Probe::Grpc { .. } => None,
    };
    assert_eq!(path(""), None, "nobody said that it has such a path");
    assert_eq!(path("health: {type: http}").as_deref(), Some("/health"));
    assert_eq!(path("health: {path: /ready}").as_deref(), Some("/ready"));
}

#[test]
fn a_request_has_30_seconds_in_all() {
    assert_eq!(with("").timeouts.total, seconds(30));
    assert_eq!(with("timeouts: {total: 60s}").timeouts.total, seconds(60));
}

#[test]
fn nothing_stalls_for_longer_than_all_may_take_unless_that_is_said() {
    for (text, read, write) in [
        ("", 30, 30),
        ("timeouts: {total: 5s}", 5, 5),
        ("timeouts: {total: 60s}", 30, 30),
        ("timeouts: {total: 5s, read: 30s}", 30, 5),
        ("timeouts: {total: 5s, write: 1h}", 5, 3600),
    ] {
        let timeouts = with(text).timeouts;
        assert_eq!((timeouts.read, timeouts.write), (seconds(read), seconds(write)), "{text}");
    }
}

#[test]
fn settings_that_contradict_each_other_are_errors() {
    for (text, part) in [
        ("retry: {backoff: 1s, max_backoff: 100ms}", "shorter than `backoff`"),
        ("retry: {per_try: 40s}", "longer than `timeouts.total`"),
        ("health: {interval: 1s, timeout: 2s}", "longer than `interval`"),
        ("health: {type: tcp, path: /health}", "`path`"),
        ("health: {type: grpc}", "HTTP/2"),
        ("pool: {max_connections: 5, warm: 6}", "more than `max_connections`"),
        ("breaker: {counts: [], statuses: []}", "nothing counts"),
        ("health: {path: /x, statuses: [204], body: ok}", "`statuses` has no body"),
        ("health: {path: /x, statuses: [304, 205, 204], body: ok}", "`statuses` has no body"),
        ("health: {path: /x, method: HEAD, statuses: [204], body: ok}", "to HEAD has no body"),
        ("concurrency: {min: 10, max: 5}", "below `min`"),
        ("panic_threshold: 50, health: off", "nothing says"),
        ("hash_by: client", "no effect without `balance: hash`"),
        ("breaker: {window: 20s}", "no effect without `rate: …`"),
        ("breaker: {min_requests: 50}", "no effect without `rate: …`"),
        ("retry: {budget: {percent: 0, min_per_second: 0}}", "no further attempt"),
        ("timeouts: {connect: 40s}", "longer than `total`"),
        ("pool: {queue: 0, queue_timeout: 3s}", "nobody waits"),
        ("pool: {queue_timeout: 60s}", "longer than `timeouts.total`"),
        ("timeouts: {total: 5s}, retry: {per_try: 6s}", "longer than `timeouts.total`"),
        ("retry: {backoff: 40s, max_backoff: 50s}", "longer than `timeouts.total`"),
        ("timeouts: {total: 10s}, retry: {max_backoff: 20s}", "longer than `timeouts.total`"),
        ("retry: {attempts: 1, backoff: 1s}", "`backoff` has no effect: there is one attempt"),
        ("retry: {attempts: 1, max_backoff: 1s}", "`max_backoff` has no effect"),
        ("retry: {attempts: 1, statuses: [503]}", "`statuses` has no effect"),
        ("retry: {attempts: 1, non_idempotent: true}", "`non_idempotent` has no effect"),
        ("retry: {attempts: 1, budget: {percent: 5}}", "`budget` has no effect"),
        // Be it what is built in: who writes it counts on it.
        ("timeouts: {connect: 10s, total: 5s}", "longer than `total`"),
        ("timeouts: {total: 1s}, pool: {queue_timeout: 5s}", "longer than `timeouts.total`"),
        ("timeouts: {total: 1s}, retry: {max_backoff: 2s}", "longer than `timeouts.total`"),
        ("pool: {queue: 0, queue_timeout: 5s}", "nobody waits"),
        ("balance: round_robin, hash_by: uri", "no effect without `balance: hash`"),
        ("balance: random, hash_bound: 125", "no effect without `balance: hash`"),
        ("breaker: {window: 10s}", "no effect without `rate: …`"),
        ("breaker: {rate: off, min_requests: 20}", "no effect without `rate: …`"),
        ("health: {type: tcp, method: GET}", "`method` has no effect on TCP checks"),
        ("health: {statuses: [2xx, 3xx]}", "`statuses` has no effect on TCP checks"),
        ("ejection: {deviations: off, min_requests: 100}", "`min_requests` has no effect"),
        ("ejection: {deviations: off, min_backends: 5}", "`min_backends` has no effect"),
        ("ejection: {out_for: 30s, max_out_for: 10s}", "shorter than `out_for`"),
        ("concurrency: {min: 4, max: 2}", "below `min`"),
        ("retry: {backoff: 100ms, max_backoff: 50ms}", "shorter than `backoff`"),
        ("retry: {backoff: 0, max_backoff: 2s}", "`max_backoff` has no effect with `backoff: 0`"),
        ("timeouts: {connect: 6s}, retry: {per_try: 5s}", "no attempt takes longer than 5s"),
        ("timeouts: {connect: 10s}, retry: {per_try: 5s}", "no attempt takes longer than 5s"),
    ] {
        let messages = refused(text);
        assert!(messages.iter().any(|one| one.contains(part)), "{text}: {messages:?}");
    }
}

#[test]
fn a_misspelt_failure_is_one_mistake() {
    for text in ["breaker: {counts: [conect]}", "breaker: {counts: [conect], statuses: []}"] {
        let told = refused(text);
        assert!(told.len() == 1 && told[0].contains("conect"), "{text}: {told:?}");
    }
}

/// What nobody wrote is no longer than all may take, and means nothing where it cannot: what `config show` prints says so,
/// and loads again.
#[test]
fn what_is_built_in_contradicts_nothing() {
    for text in [
        "timeouts: {total: 1s}",
        "timeouts: {total: 1s}, pool: {queue: 0}",
        "timeouts: {total: 50ms}, retry: {attempts: 1}, breaker: {rate: 50}, balance: hash",
        "retry: {attempts: 1, statuses: [], non_idempotent: false}, hash_bound: off",
        "timeouts: {connect: 10s, total: 10s}, ejection: {deviations: off}, health: {type: grpc}, protocol: http2",
        "health: {path: /health}, retry: off, breaker: off, ejection: on",
        "health: {type: http, interval: 1s}, retry: {backoff: 0}, pool: {max_connections: 1}",
        "retry: {backoff: 3s}, ejection: {out_for: 10m}, concurrency: {min: 2000}",
        "retry: {max_backoff: 50ms}, ejection: {max_out_for: 10s}, concurrency: {max: 2}",
        "retry: {backoff: 0, max_backoff: 0}, timeouts: {read: 1m}",
        "retry: {max_backoff: 0, per_try: 5s}, protocol: http2",
        "retry: {attempts: 1, backoff: 3s}, protocol: http2, pool: {max_uploads: 7}",
        "health: {path: /x, statuses: [204, 3xx], body: ok}",
        // Where others can answer, 502 to 504 count.
        "breaker: {counts: []}",
        "breaker: {statuses: []}",
    ] {
        let text = format!(
            "listeners: [{{address: \"127.0.0.1:80\"}}]\n\
             upstreams: {{a: {{addresses: [\"a:80\", \"b:80\"], {text}}}}}\nroutes: [{{upstream: a}}]"
        );
        let first = load_text(&text, "t.yaml").unwrap_or_else(|found| panic!("{found}"));
        let shown = show(&first.config);
        let again = load_text(&shown, "again").unwrap_or_else(|found| panic!("{found}\n{shown}"));
        assert_eq!(first.plan.upstreams, again.plan.upstreams, "{shown}");
        let settings = &first.plan.upstreams[0];
        let (timeouts, total) = (settings.timeouts, settings.timeouts.total);
        assert!(timeouts.connect <= total && settings.pool.queue_timeout <= total, "{text}");
        assert!(settings.retry.settings.max_backoff <= total, "{text}");
    }
}

/// Of two values that limit each other, the one that nobody wrote follows the other.
#[test]
fn what_is_written_of_a_pair_decides_of_the_other() {
    let millis = Duration::from_millis;
    for (text, first, longest) in [
        ("retry: {backoff: 3s}", seconds(3), seconds(3)),
        ("retry: {backoff: 1s}", seconds(1), seconds(2)),
        ("retry: {max_backoff: 50ms}", millis(50), millis(50)),
        ("retry: {max_backoff: 1s}", millis(100), seconds(1)),
        ("retry: {max_backoff: 0}", Duration::ZERO, Duration::ZERO),
        ("retry: {backoff: 500ms}, timeouts: {total: 1s}", millis(500), seconds(1)),
    ] {
        let waits = with(text).retry.settings;
        assert_eq!((waits.backoff, waits.max_backoff), (first, longest), "{text}");
    }
    for (text, first, longest) in [
        ("{out_for: 10m}", 600, 600),
        ("{out_for: 1m}", 60, 300),
        ("{max_out_for: 10s}", 10, 10),
        ("{max_out_for: 10m}", 30, 600),
    ] {
        let rests = with(&format!("ejection: {text}")).ejection.expect("it is on").settings;
        assert_eq!((rests.base, rests.longest), (seconds(first), seconds(longest)), "{text}");
    }
    for (text, min, max) in [
        ("{min: 2000}", 2000, 2000),
        ("{max: 2}", 2, 2),
        ("{max: 10}", 4, 10),
        ("{min: 9}", 9, 1000),
    ] {
        let limit = with(&format!("concurrency: {text}")).concurrency.expect("it is on");
        assert_eq!((limit.min, limit.max), (min, max), "{text}");
        assert!((min..=max).contains(&limit.initial), "{text}");
    }
    // What is out of any range is told of the one that was written alone.
    for text in ["retry: {backoff: 2d}", "ejection: {out_for: 2d}", "concurrency: {min: 2000000}"] {
        let told = refused(text);
        assert!(told.iter().any(|one| one.contains("out of range")), "{text}: {told:?}");
        assert!(told.iter().filter(|one| one.contains("out of range")).count() == 1, "{told:?}");
    }
}

#[test]
fn connecting_takes_no_longer_than_an_attempt_where_that_is_bounded_for_all() {
    let checked = |connect: &str, route: &str| {
        let text = format!(
            "listeners: [{{address: \"127.0.0.1:80\"}}]\n\
             upstreams: {{a: {{addresses: [\"a:80\", \"b:80\"], timeouts: {{{connect}}}, retry: {{per_try: 5s}}}}, \
             b: {{addresses: [\"c:80\"]}}}}\n\
             routes: [{{upstream: a}}, {{match: {{path: /x}}, {route}}}, {{match: {{path: /b}}, upstream: b}}]"
        );
        let loaded = load_text(&text, "t.yaml").map_err(|found| messages(&found))?;
        let again = load_text(&show(&loaded.config), "again").expect("what is shown loads");
        assert_eq!(loaded.plan.upstreams, again.plan.upstreams, "{text}");
        Ok::<_, Vec<String>>(loaded.plan.upstreams[0].timeouts.connect)
    };
    let shorter = "upstream: a, retry: {per_try: 2s}";
    assert_eq!(checked("", shorter), Ok(seconds(5)));
    assert_eq!(checked("connect: 5s", shorter), Ok(seconds(5)));
    assert_eq!(checked("connect: 6s", shorter).expect_err("it is longer").len(), 1);
    // Some attempts may take longer, and copies are no attempts.
    for (route, unwritten) in [
        ("upstream: a, retry: {per_try: 8s}", 8),
        ("upstream: b, fallback: {upstream: a}, retry: {per_try: off}", 10),
        ("upstream: b, mirror: {upstream: a}", 10),
    ] {
        assert_eq!(checked("", route), Ok(seconds(unwritten)), "{route}");
        assert_eq!(checked("connect: 7s", route), Ok(seconds(7)), "{route}");
    }
}

#[test]
fn every_value_in_effect_is_shown() {
    let text = "upstreams:\n  a: {addresses: [\"a:80\"], timeouts: {total: 20s}, health: {interval: 1s}}\n  \
                b: {addresses: [\"b:80\"], health: {path: /up}, pool: {max_connections: 9}}\n  \
                c: {addresses: [\"c:80\"], health: {type: http}, protocol: http2}\n\
                routes: [{upstream: a}, {match: {path: /b}, upstream: b}, {match: {path: /c}, upstream: c}]";
    let shown: serde_yaml::Value =
        serde_yaml::from_str(&show(&config(text).config)).expect("it is YAML");
    for (upstream, section, key, value) in [
        ("a", "timeouts", "read", Some("20s")),
        ("a", "timeouts", "write", Some("20s")),
        ("b", "timeouts", "read", Some("30s")),
        ("a", "health", "type", Some("tcp")),
        ("a", "health", "timeout", Some("1s")),
        ("b", "health", "type", Some("http")),
        ("b", "health", "path", Some("/up")),
        ("b", "health", "timeout", Some("2s")),
        ("c", "health", "path", Some("/health")),
        ("a", "pool", "max_uploads", Some("50")),
        ("b", "pool", "max_uploads", Some("4")),
        // The origin says how many requests a connection carries.
        ("c", "pool", "max_uploads", None),
    ] {
        let is = shown["upstreams"][upstream][section].get(key);
        let is = is.map(|is| {
            is.as_u64().map_or_else(|| is.as_str().unwrap_or("?").to_owned(), |n| n.to_string())
        });
        assert_eq!(is.as_deref(), value, "{upstream}.{section}.{key}");
    }
}

#[test]
fn who_cannot_be_ejected_is_told() {
    let told = |addresses: &str, ejection: &str| {
        let text = format!(
            "upstreams: {{a: {{addresses: [{addresses}], ejection: {ejection}}}}}\nroutes: [{{upstream: a}}]"
        );
        messages(&config(&text).warnings)
    };
    let two = "\"10.0.0.1:80\", \"10.0.0.2:80\"";
    let few = told(two, "{consecutive: off}");
    assert!(few.len() == 1 && few[0].contains("none of 2 backends is ever ejected"), "{few:?}");
    for (addresses, ejection) in [
        (two, "on"),
        (two, "{consecutive: off, min_backends: 2}"),
        ("\"10.0.0.1:80\", \"app:80\"", "{consecutive: off}"),
    ] {
        assert!(told(addresses, ejection).is_empty(), "{addresses} {ejection}");
    }
    assert_eq!(told("\"10.0.0.1:80\"", "{consecutive: off}").len(), 1, "one backend is said once");
}

#[test]
fn what_only_further_attempts_need_is_right_where_a_route_makes_them() {
    let one = "retry: {attempts: 1, backoff: 1s, max_backoff: 3s, statuses: [503], non_idempotent: true, budget: {percent: 5}}";
    of(one, "upstream: a, retry: {attempts: 2}").expect("there are two");
    of(one, "upstream: b, fallback: {upstream: a}, retry: {attempts: 2}").expect("there are two");
    assert_eq!(of(one, "upstream: a, retry: {attempts: 1}").expect_err("one").len(), 5);
    assert_eq!(of(one, "upstream: a").expect_err("one").len(), 5);
    let none = "retry: {attempts: 1, budget: {percent: 0, min_per_second: 0}}";
    let told = of(none, "upstream: a, retry: {attempts: 2}").expect_err("it allows none");
    assert!(told.len() == 1 && told[0].contains("no further attempt"), "{told:?}");
    // Another upstream is asked by the same rules, at once.
    let told = of(one, "upstream: a, fallback: {upstream: b}").expect_err("one");
    let parts = ["`backoff`", "`max_backoff`", "`budget`"];
    assert!(
        told.len() == 3 && told.iter().zip(parts).all(|(is, part)| is.contains(part)),
        "{told:?}"
    );
    // Who comes too late for a connection that is given up waits, without its being counted.
    let told = of(&format!("{one}, protocol: http2"), "upstream: a").expect_err("one");
    assert!(told.len() == 4 && !told.iter().any(|one| one.contains("`backoff`")), "{told:?}");
}

#[test]
fn what_a_route_says_of_attempts_that_there_are_not_is_an_error() {
    for key in ["statuses: [503]", "methods: [POST]"] {
        let route = format!("retry: {{{key}}}");
        let refused =
            of("retry: off", &format!("upstream: a, {route}")).expect_err("there is one attempt");
        assert!(refused[0].contains("one attempt only"), "{refused:?}");
        of("retry: off", &format!("upstream: a, retry: {{attempts: 2, {key}}}"))
            .expect("there are two");
        of("", &format!("upstream: a, {route}")).expect("there are three");
    }
    // With another upstream there is one more, by the same rules.
    of(
        "retry: off",
        "upstream: a, retry: {statuses: [503], methods: [POST]}, fallback: {upstream: b}",
    )
    .expect("the other one is asked");
}

#[test]
fn what_of_a_route_comes_after_its_time_is_an_error() {
    let checked = |upstream: &str, route: &str, defaults: &str| {
        let text = format!(
            "listeners: [{{address: \"127.0.0.1:80\"}}]\ndefaults: {{{defaults}}}\n\
             upstreams: {{a: {{addresses: [\"a:80\", \"b:80\"], {upstream}}}}}\n\
             routes: [{{upstream: a, {route}}}]"
        );
        load_text(&text, "t.yaml")
            .map(|loaded| messages(&loaded.warnings))
            .map_err(|found| messages(&found))
    };
    for (upstream, route, defaults, part) in [
        ("timeouts: {total: 5s}", "hedge: {at_least: 6s}", "", "all attempts together have 5s"),
        ("timeouts: {total: 5s}", "retry: {per_try: 6s}", "", "all attempts together have 5s"),
        ("", "timeout: 12s, retry: {per_try: 20s}", "", "all attempts together have 12s"),
        ("", "timeout: 12s, hedge: {at_least: 12s}", "", "all attempts together have 12s"),
        ("", "retry: {per_try: 20s}", "timeout: 12s", "all attempts together have 12s"),
        ("", "hedge: {at_least: 20s}", "timeout: 12s", "all attempts together have 12s"),
        ("", "hedge: {at_least: 3s}, retry: {per_try: 3s}", "", "an attempt has 3s"),
        ("retry: {per_try: 3s}", "hedge: {at_least: 4s}", "", "an attempt has 3s"),
        ("retry: {per_try: 5ms}", "hedge: on", "", "an attempt has 5ms"),
    ] {
        let told = checked(upstream, route, defaults).expect_err(route);
        assert!(told.len() == 1 && told[0].contains(part), "{told:?}");
    }
    assert!(checked("", "retry: {per_try: 12s}", "timeout: 12s").is_ok_and(|told| told.is_empty()));
    assert!(checked("", "timeout: off, retry: {per_try: 20s}", "timeout: 12s").is_ok());
    // What is said for all routes of an upstream is bounded by what one of them says, and told.
    let upstream = "retry: {per_try: 20s}";
    let told = checked(upstream, "timeout: 12s", "").expect("it is bounded");
    assert!(told.len() == 1 && told[0].contains("shorter than that of one attempt"), "{told:?}");
    let told = checked(upstream, "timeout: 12s, retry: {per_try: 4s}", "").expect("it says so");
    assert!(told.is_empty(), "{told:?}");
    // What the route says comes before what its upstream does.
    let upstream = "retry: {per_try: 3s}";
    for per_try in ["off", "5s"] {
        let route = format!("hedge: {{at_least: 4s}}, retry: {{per_try: {per_try}}}");
        assert_eq!(checked(upstream, &route, ""), Ok(Vec::new()), "{per_try}");
    }
    assert_eq!(checked(upstream, "hedge: {at_least: 2s}", ""), Ok(Vec::new()));
    // Only who wrote a time to connect wants so much of it.
    assert_eq!(checked("", "timeout: 5s", ""), Ok(Vec::new()));
    let told = checked("timeouts: {connect: 8s}", "timeout: 5s", "").expect("it is bounded");
    assert!(told.len() == 1 && told[0].contains("to connect to \"a\""), "{told:?}");
}

#[test]
fn of_upstreams_that_share_requests_each_is_looked_at() {
    let checked = |one: &str, other: &str, route: &str| {
        let text = format!(
            "listeners: [{{address: \"127.0.0.1:80\"}}]\n\
             upstreams: {{a: {{addresses: [\"a:80\", \"b:80\"], {one}}}, b: {{addresses: [\"c:80\", \"d:80\"], {other}}}}}\n\
             routes: [{{split: [{{upstream: a, weight: 1}}, {{upstream: b, weight: 1}}], {route}}}]"
        );
        load_text(&text, "t.yaml")
            .map(|loaded| messages(&loaded.warnings))
            .map_err(|found| messages(&found))
    };
    let slow = "timeouts: {connect: 8s}, retry: {per_try: 9s}";
    let told = checked("", slow, "timeout: 5s").expect("they are warnings");
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told.iter().all(|one| one.contains("\"b\"")), "{told:?}");
    // One that has the time is enough for a second request.
    let short = "retry: {per_try: 1s}";
    for (one, other) in [(short, "retry: {per_try: 3s}"), (short, "")] {
        assert_eq!(checked(one, other, "hedge: {at_least: 2s}"), Ok(Vec::new()), "{other}");
    }
    let told = checked(short, "retry: {per_try: 2s}", "hedge: {at_least: 2s}");
    assert_eq!(told, Err(vec!["an attempt has 2s".to_owned()]));
}

#[test]
fn another_upstream_is_one_that_does_not_get_all_requests_already() {
    let share = |a: u32, b: u32| {
        let split = format!("[{{upstream: a, weight: {a}}}, {{upstream: b, weight: {b}}}]");
        of("", &format!("split: {split}, fallback: {{upstream: a}}"))
    };
    share(1, 1).expect("where b fails, a answers");
    share(0, 1).expect("where b fails, a answers");
    for told in [share(1, 0), of("", "split: [{upstream: a, weight: 1}], fallback: {upstream: a}")]
    {
        let told = told.expect_err("nobody else is asked");
        assert!(
            told.len() == 1 && told[0].contains("gets all of the route's requests"),
            "{told:?}"
        );
    }
}

#[test]
fn methods_that_a_route_does_not_take_are_not_asked_again() {
    let taking = |methods: &str, route: &str| {
        let text = format!(
            "upstreams: {{a: {{addresses: [\"a:80\", \"b:80\"]}}}}\n\
             routes: [{{match: {{methods: {methods}}}, upstream: a, {route}}}]"
        );
        let text = format!("listeners: [{{address: \"127.0.0.1:80\"}}]\n{text}");
        load_text(&text, "t.yaml").map(drop).map_err(|found| messages(&found))
    };
    for (methods, route) in [
        ("[POST, PUT]", "hedge: on"),
        ("[POST]", "hedge: {at_least: 1s}"),
        ("[POST]", "retry: {methods: [GET, PUT]}"),
        ("[GET]", "retry: {methods: [POST]}"),
    ] {
        let told = taking(methods, route).expect_err(route);
        assert!(told.len() == 1 && told[0].contains("this route takes none"), "{told:?}");
    }
    for (methods, route) in [
        ("[POST, HEAD]", "hedge: on"),
        ("[OPTIONS]", "hedge: on"),
        ("[]", "hedge: on, retry: {methods: [POST]}"),
        ("[POST]", "hedge: off, retry: {methods: []}"),
        ("[HEAD]", "retry: {methods: [GET]}"),
        ("[GET]", "retry: {methods: [HEAD]}"),
        ("[GET, POST]", "retry: {methods: [PUT, POST]}"),
    ] {
        assert_eq!(taking(methods, route), Ok(()), "{methods} {route}");
    }
}

#[test]
fn no_larger_body_is_copied_than_there_may_be() {
    let checked = |mirror: &str, route: &str, defaults: &str| {
        let text = format!(
            "listeners: [{{address: \"127.0.0.1:80\"}}]\ndefaults: {{{defaults}}}\n\
             upstreams: {{a: {{addresses: [\"a:80\"]}}, b: {{addresses: [\"b:80\"]}}}}\n\
             routes: [{{upstream: a, mirror: {{upstream: b, {mirror}}}, {route}}}]"
        );
        let loaded = load_text(&text, "t.yaml").map_err(|found| messages(&found))?;
        let again = load_text(&show(&loaded.config), "again").expect("what is shown loads");
        let of = |loaded: &crate::config::Loaded| {
            loaded.plan.routes.routes()[0].asking.mirror.expect("it is on").max_body
        };
        assert_eq!(of(&loaded), of(&again), "{text}");
        Ok::<_, Vec<String>>(of(&loaded))
    };
    let part = "no request has a body of more than";
    for (mirror, route, defaults) in
        [("max_body: 64KiB", "max_body: 1KiB", ""), ("max_body: 64KiB", "", "max_body: 1KiB")]
    {
        let told = checked(mirror, route, defaults).expect_err("it is larger");
        assert!(told.len() == 1 && told[0].contains(part), "{told:?}");
    }
    for (mirror, route, defaults, copied) in [
        ("", "max_body: 1KiB", "", 1 << 10),
        ("", "", "max_body: 1KiB", 1 << 10),
        ("", "max_body: off", "max_body: 1KiB", 64 << 10),
        ("max_body: 1KiB", "max_body: 1KiB", "", 1 << 10),
        ("max_body: 128KiB", "", "", 128 << 10),
    ] {
        assert_eq!(checked(mirror, route, defaults), Ok(copied), "{mirror} {route} {defaults}");
    }
}

#[test]
fn an_id_has_an_end() {
    let of = |length: usize| {
        let text = format!(
            "listeners: [{{address: \"127.0.0.1:80\"}}]\n\
             upstreams: {{a: {{addresses: [{{id: {}, address: \"a:80\"}}]}}}}\nroutes: [{{upstream: a}}]",
            "i".repeat(length)
        );
        load_text(&text, "t.yaml").map(drop).map_err(|found| messages(&found))
    };
    assert_eq!(of(255), Ok(()));
    assert!(of(256).expect_err("it is too long")[0].contains("256 bytes"));
}
