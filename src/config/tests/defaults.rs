//! What an upstream does about which nothing is written, one by one, and that each of it can be said
//! otherwise.

use std::time::Duration;

use super::config;
use super::load_text;
use crate::balance::Algorithm;
use crate::config::Diagnostics;
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
        ("concurrency: {min: 10, max: 5}", "below `min`"),
        ("panic_threshold: 50, health: off", "nothing says"),
        ("hash_by: client", "no effect without `balance: hash`"),
        ("breaker: {window: 20s}", "no effect without `rate: …`"),
        ("breaker: {min_requests: 50}", "no effect without `rate: …`"),
        ("retry: {budget: {percent: 0, min_per_second: 0}}", "no further attempt"),
        ("timeouts: {connect: 40s}", "longer than `total`"),
        ("pool: {queue: 0, queue_timeout: 3s}", "nobody waits"),
        ("pool: {queue_timeout: 60s}", "longer than `timeouts.total`"),
    ] {
        let messages = refused(text);
        assert!(messages.iter().any(|one| one.contains(part)), "{text}: {messages:?}");
    }
}

/// The built-in times stand in what `config show` prints, and contradict nothing that somebody wrote.
#[test]
fn a_short_total_alone_contradicts_nothing() {
    let timeouts = with("timeouts: {total: 1s}, pool: {queue_timeout: 5s}").timeouts;
    assert!(timeouts.connect > timeouts.total);
    with("breaker: {window: 20s, min_requests: 50, rate: 40}, timeouts: {connect: 10s, total: 5s}");
}

#[test]
fn what_a_route_says_of_attempts_that_there_are_not_is_an_error() {
    let checked = |upstream: &str, route: &str| {
        let text = format!(
            "listeners: [{{address: \"127.0.0.1:80\"}}]\n\
             upstreams: {{a: {{addresses: [\"a:80\", \"b:80\"], {upstream}}}}}\n\
             routes: [{{upstream: a, {route}}}]"
        );
        load_text(&text, "t.yaml").map(drop).map_err(|found| messages(&found))
    };
    for key in ["statuses: [503]", "methods: [POST]"] {
        let route = format!("retry: {{{key}}}");
        let refused = checked("retry: off", &route).expect_err("there is one attempt");
        assert!(refused[0].contains("one attempt only"), "{refused:?}");
        checked("retry: off", &format!("retry: {{attempts: 2, {key}}}")).expect("there are two");
        checked("", &route).expect("there are three");
    }
    let refused = checked("timeouts: {total: 5s}", "hedge: {at_least: 6s}");
    assert!(refused.expect_err("it is too late")[0].contains("all attempts together have 5s"));
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
