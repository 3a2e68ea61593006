use super::*;

use std::collections::BTreeMap;
use std::collections::HashSet;
use std::time::Duration;

use super::labels::CacheResult;
use super::labels::Ending;
use super::labels::Method;
use super::labels::Reused;
use super::labels::UpstreamError;
use super::requests::Finished;

const START: SystemTime = UNIX_EPOCH;

/// One line of the exposition: name, labels, value.
type Sample = (String, BTreeMap<String, String>, f64);

/// Reads the text format line by line and insists on its grammar: HELP and TYPE before the samples of
/// a family, every family once, every series once.
fn parse(text: &str) -> (BTreeMap<String, String>, Vec<Sample>) {
    let mut types = BTreeMap::new();
    let mut helped = None;
    let mut family = String::new();
    let mut series = HashSet::new();
    let mut samples = Vec::new();
    assert!(text.ends_with('\n'));
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            helped = help.split_once(' ').map(|(name, _)| name.to_owned());
            continue;
        }
        if let Some(typed) = line.strip_prefix("# TYPE ") {
            let (name, kind) = typed.split_once(' ').unwrap();
            assert_eq!(helped.as_deref(), Some(name));
            assert_eq!(types.insert(name.to_owned(), kind.to_owned()), None, "{name} twice");
            name.clone_into(&mut family);
            continue;
        }
        let (what, value) = line.rsplit_once(' ').unwrap();
        assert!(series.insert(what.to_owned()), "{what} twice");
        let (name, labels) = match what.split_once('{') {
            Some((name, labels)) => (name, labels.strip_suffix('}').unwrap()),
            None => (what, ""),
        };
        let suffixes =
            if types[&family] == "histogram" { &["_bucket", "_sum", "_count"][..] } else { &[""] };
        assert!(
            suffixes.iter().any(|suffix| name.strip_suffix(suffix) == Some(&*family)),
            "{name} is not of {family}"
        );
        samples.push((name.to_owned(), parse_labels(labels), value.parse().unwrap()));
    }
    (types, samples)
}

fn parse_labels(mut text: &str) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    while !text.is_empty() {
        let (name, rest) = text.split_once("=\"").unwrap();
        let mut value = String::new();
        let mut characters = rest.char_indices();
        let end = loop {
            match characters.next().unwrap() {
                (at, '"') => break at,
                (_, '\\') => value.push(match characters.next().unwrap().1 {
                    'n' => '\n',
                    other => other,
                }),
                (_, other) => value.push(other),
            }
        };
        assert_eq!(labels.insert(name.to_owned(), value), None);
        text = &rest[end + 1..];
        text = text.strip_prefix(',').unwrap_or(text);
    }
    labels
}

/// The value of the one series of `name` that has these labels among its own.
fn value(metrics: &Metrics, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let (_, samples) = parse(&metrics.render());
    let mut found = samples.into_iter().filter(|(sample, theirs, _)| {
        sample == name && labels.iter().all(|&(l, v)| theirs.get(l).is_some_and(|t| t == v))
    });
    let first = found.next().map(|(_, _, value)| value);
    assert!(found.next().is_none(), "{name} {labels:?} is not one series");
    first
}

fn finished(method: Method, status: u16, cache: CacheResult) -> Finished {
    Finished {
        method,
        status: Some(status),
        cache,
        duration: Duration::from_millis(3),
        time_to_first_byte: Some(Duration::from_millis(2)),
    }
}

/// Metrics in which everything happened once.
fn busy() -> Metrics {
    let metrics = Metrics::new("1.2.3", START);
    metrics.route("http", "a").record(&finished(Method::Get, 200, CacheResult::Hit));
    metrics.cache_reason("private");
    metrics.listener("http").transferred(1, 2);
    metrics.upstream("api").answered(200, Duration::from_millis(1));
    metrics.watch_cache("memory", || {
        vec![CacheUsage { zone: "default".into(), bytes: 1, limit: 2, objects: 3, evictions: 4 }]
    });
    metrics.watch_access_log(|| 5);
    metrics.watch_fetches(|| 6);
    metrics.watch_backends(|| vec![backend()]);
    metrics.watch_upstreams(|| {
        vec![UpstreamSample { upstream: "api".into(), drift: 3, concurrency: Some((20, 7)) }]
    });
    metrics.watch_ends(|| {
        vec![EndSample { listener: "https".into(), what: Ending::Certificate, at: 5 }]
    });
    metrics.watch_orders(|| {
        vec![OrderSample {
            hosts: "a.test".to_owned(),
            issued: 1,
            failed: 2,
            failures: 2,
            succeeded: Some(3),
            expires: Some(4),
        }]
    });
    metrics.purged("tag", Manner::Soft);
    metrics.watch_tasks(|| 8);
    metrics.tls_files_read("https", FilesRead::Same);
    metrics.upstream_files_read("api", FilesRead::Replaced);
    metrics.reload_ended(Reloaded::Reloaded);
    metrics.reload_changed("route", "added", 2);
    metrics
}

/// A backend of which everything is known.
fn backend() -> BackendSample {
    BackendSample {
        upstream: "api".into(),
        backend: "one".into(),
        up: true,
        requests: 7,
        failures: 1,
        answers: 6,
        seconds: 0.5,
        in_flight: 2,
        breaker: Some(2),
        opened: 3,
        half_opened: 2,
        closed: 1,
        pool: PoolSample {
            open: 11,
            idle: 12,
            in_use: 13,
            queued: 14,
            reused: 15,
            created: 16,
            failed: 17,
        },
        health: Some(HealthSample { state: 2, passed: 3, failed: 4 }),
        ejected: Some(5),
    }
}

#[test]
fn the_numbers_of_a_backend_are_those_of_the_moment() {
    let (_, samples) = parse(&busy().render());
    let of = |name: &str| {
        let found = samples.iter().find(|(sample, _, _)| sample == name).expect(name);
        assert_eq!(found.1["upstream"], "api");
        assert_eq!(found.1["backend"], "one");
        found.2
    };
    assert_eq!(of("edgeproxy_backend_up"), 1.0);
    assert_eq!(of("edgeproxy_backend_requests_total"), 7.0);
    assert_eq!(of("edgeproxy_backend_failures_total"), 1.0);
    assert_eq!(of("edgeproxy_backend_answers_total"), 6.0);
    assert_eq!(of("edgeproxy_backend_response_seconds_total"), 0.5);
    assert_eq!(of("edgeproxy_backend_requests_in_flight"), 2.0);
    assert_eq!(of("edgeproxy_backend_breaker_state"), 2.0);
    assert_eq!(of("edgeproxy_backend_breaker_opened_total"), 3.0);
    assert_eq!(of("edgeproxy_backend_breaker_half_opened_total"), 2.0);
    assert_eq!(of("edgeproxy_backend_breaker_closed_total"), 1.0);
    assert_eq!(of("edgeproxy_backend_pool_open"), 11.0);
    assert_eq!(of("edgeproxy_backend_pool_idle"), 12.0);
    assert_eq!(of("edgeproxy_backend_pool_in_use"), 13.0);
    assert_eq!(of("edgeproxy_backend_pool_queued"), 14.0);
    assert_eq!(of("edgeproxy_backend_pool_reused_total"), 15.0);
    assert_eq!(of("edgeproxy_backend_pool_created_total"), 16.0);
    assert_eq!(of("edgeproxy_backend_pool_failed_total"), 17.0);
    assert_eq!(of("edgeproxy_backend_health_state"), 2.0);
    assert_eq!(of("edgeproxy_backend_ejections_total"), 5.0);
    let checks = samples.iter().filter(|(name, ..)| name.ends_with("health_checks_total"));
    let checks: BTreeMap<_, _> =
        checks.map(|(_, labels, count)| (&*labels["result"], *count)).collect();
    assert_eq!(checks, BTreeMap::from([("passed", 3.0), ("failed", 4.0)]));
}

#[test]
fn what_is_not_configured_any_more_is_forgotten_and_nothing_else() {
    let metrics = busy();
    for (listener, route) in [("gone", "a"), ("http", "gone"), ("http", "a")] {
        metrics.route(listener, route).record(&finished(Method::Get, 200, CacheResult::Hit));
    }
    metrics.listener("gone").transferred(1, 2);
    metrics.upstream("gone").answered(200, Duration::from_millis(1));
    assert!(metrics.render().contains("\"gone\""));
    let gone = ["gone"];
    metrics.forget(&Gone { listeners: &gone, upstreams: &gone, routes: &gone });
    let text = metrics.render();
    assert!(!text.contains("\"gone\""), "{text}");
    let (_, samples) = parse(&text);
    let requests = samples.iter().filter(|(name, ..)| name == "edgeproxy_requests_total");
    assert_eq!(requests.map(|(_, _, count)| *count).collect::<Vec<_>>(), [2.0]);
    // What is under way ends later, and is counted by nobody.
    let held = metrics.route("gone", "gone");
    metrics.forget(&Gone { listeners: &gone, routes: &gone, ..Gone::default() });
    held.record(&finished(Method::Get, 200, CacheResult::Hit));
    assert_eq!(metrics.render().matches("\"gone\"").count(), text.matches("\"gone\"").count());
}

#[test]
fn what_is_rendered_is_what_is_defined() {
    let (types, samples) = parse(&busy().render());
    for definition in DEFINITIONS {
        let kind = match definition.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        assert_eq!(types.get(definition.name).map(String::as_str), Some(kind), "{definition:?}");
    }
    assert_eq!(types.len(), DEFINITIONS.len());
    for (name, mut labels, _) in samples {
        labels.remove("le");
        let definition = DEFINITIONS.iter().find(|definition| {
            name == definition.name
                || definition.kind == Kind::Histogram && name.starts_with(definition.name)
        });
        let names: HashSet<_> = labels.keys().map(String::as_str).collect();
        assert_eq!(names, definition.unwrap().labels.iter().copied().collect(), "{name}");
    }
}

#[test]
fn names_follow_the_conventions() {
    let mut seen = HashSet::new();
    for definition in DEFINITIONS {
        let Definition { name, kind, help, .. } = definition;
        assert!(seen.insert(name), "{name} twice");
        assert!(name.starts_with("edgeproxy_") || name.starts_with("process_"), "{name}");
        assert_eq!(name.ends_with("_total"), *kind == Kind::Counter, "{name}");
        assert!(*kind != Kind::Histogram || name.ends_with("_seconds"), "{name}");
        assert!(!["_ms", "_milliseconds", "_kb", "_mb"].iter().any(|u| name.contains(u)), "{name}");
        assert!(help.ends_with('.') && !help.contains('\n'), "{name}");
    }
}

#[test]
fn a_request_is_counted_under_its_five_labels() {
    let metrics = Metrics::new("0", START);
    let route = metrics.route("https", "pages");
    for _ in 0..3 {
        route.record(&finished(Method::Get, 200, CacheResult::Hit));
    }
    route.record(&finished(Method::Get, 404, CacheResult::Miss));
    route.record(&finished(Method::Other, 599, CacheResult::None));
    let count = |method, status, cache| {
        let labels = [
            ("listener", "https"),
            ("route", "pages"),
            ("method", method),
            ("status", status),
            ("cache", cache),
        ];
        value(&metrics, "edgeproxy_requests_total", &labels)
    };
    assert_eq!(count("GET", "200", "hit"), Some(3.0));
    assert_eq!(count("GET", "404", "miss"), Some(1.0));
    assert_eq!(count("other", "5xx", "none"), Some(1.0));
    assert_eq!(count("GET", "200", "miss"), None);
}

#[test]
fn the_cache_is_counted_over_all_listeners_and_only_where_it_was_asked() {
    let metrics = Metrics::new("0", START);
    for listener in ["http", "https"] {
        let route = metrics.route(listener, "pages");
        route.record(&finished(Method::Get, 200, CacheResult::Hit));
        route.record(&finished(Method::Get, 301, CacheResult::None));
    }
    let count = |result| {
        let labels = [("route", "pages"), ("result", result)];
        value(&metrics, "edgeproxy_cache_requests_total", &labels)
    };
    assert_eq!(count("hit"), Some(2.0));
    assert_eq!(count("none"), None);
}

#[test]
fn times_fall_into_their_buckets() {
    let metrics = Metrics::new("0", START);
    metrics.route("http", "pages").record(&finished(Method::Get, 200, CacheResult::Miss));
    let of = |suffix, le: &[(&str, &str)]| {
        let labels = [le, &[("route", "pages"), ("cache", "miss")]].concat();
        value(&metrics, &format!("edgeproxy_request_duration_seconds{suffix}"), &labels)
    };
    assert_eq!(of("_bucket", &[("le", "0.0025")]), Some(0.0));
    assert_eq!(of("_bucket", &[("le", "0.005")]), Some(1.0));
    assert_eq!(of("_bucket", &[("le", "+Inf")]), Some(1.0));
    assert_eq!((of("_count", &[]), of("_sum", &[])), (Some(1.0), Some(0.003)));
}

#[test]
fn a_response_without_a_first_byte_has_no_time_to_it() {
    let metrics = Metrics::new("0", START);
    let mut aborted = finished(Method::Get, 200, CacheResult::Miss);
    (aborted.status, aborted.time_to_first_byte) = (None, None);
    metrics.route("http", "").record(&aborted);
    let none = [("route", ""), ("status", "none")];
    assert_eq!(value(&metrics, "edgeproxy_requests_total", &none), Some(1.0));
    assert_eq!(value(&metrics, "edgeproxy_time_to_first_byte_seconds_count", &[]), Some(0.0));
}

#[test]
fn counters_outlive_a_reload() {
    let metrics = Metrics::new("0", START);
    let request = finished(Method::Get, 200, CacheResult::Hit);
    metrics.routes(&["http"], &["a"]).of(0, Some(0)).unwrap().record(&request);
    metrics.routes(&["other", "http"], &["b", "a"]).of(1, Some(1)).unwrap().record(&request);
    let labels = [("listener", "http"), ("route", "a")];
    assert_eq!(value(&metrics, "edgeproxy_requests_total", &labels), Some(2.0));
}

#[test]
fn the_table_has_a_place_for_no_route_and_none_for_an_unknown_listener() {
    let metrics = Metrics::new("0", START);
    let table = metrics.routes(&["one", "two"], &["a", "b"]);
    let request = finished(Method::Get, 404, CacheResult::None);
    table.of(1, None).unwrap().record(&request);
    table.of(1, Some(usize::MAX)).unwrap().record(&request);
    let labels = [("listener", "two"), ("route", "")];
    assert_eq!(value(&metrics, "edgeproxy_requests_total", &labels), Some(2.0));
    assert!(table.of(2, Some(0)).is_none() && table.of(usize::MAX, None).is_none());
}

#[test]
fn every_refusal_has_a_series_of_its_own() {
    let metrics = Metrics::new("0", START);
    for (count, &refusal) in Refusal::ALL.iter().enumerate() {
        for _ in 0..=count {
            metrics.refused(refusal);
        }
    }
    let (_, samples) = parse(&metrics.render());
    for (count, refusal) in Refusal::ALL.iter().enumerate() {
        let found = samples.iter().find(|(name, labels, _)| {
            name == "edgeproxy_refusals_total" && labels["reason"] == refusal.label()
        });
        assert_eq!(found.unwrap().2, (count + 1) as f64, "{refusal:?}");
    }
}

#[test]
fn a_connection_is_open_until_it_is_dropped() {
    let metrics = Metrics::new("0", START);
    let listener = metrics.listener("http");
    let (one, two) = (listener.connected(), listener.connected());
    assert_eq!(value(&metrics, "edgeproxy_connections", &[]), Some(2.0));
    drop((one, two));
    assert_eq!(value(&metrics, "edgeproxy_connections", &[]), Some(0.0));
    assert_eq!(value(&metrics, "edgeproxy_connections_total", &[]), Some(2.0));
}

#[test]
fn listeners_count_refusals_handshakes_and_bytes() {
    let metrics = Metrics::new("0", START);
    let listener = metrics.listener("https");
    listener.refused(ConnectionRefusal::ClientLimit);
    listener.handshake(Handshake::Resumed, TlsVersion::Tls13);
    listener.transferred(10, 20);
    for (name, labels, expected) in [
        ("edgeproxy_connections_refused_total", &[("reason", "client_limit")][..], 1.0),
        ("edgeproxy_connections_refused_total", &[("reason", "limit")], 0.0),
        ("edgeproxy_tls_handshakes_total", &[("result", "resumed"), ("version", "1.3")], 1.0),
        ("edgeproxy_bytes_received_total", &[("listener", "https")], 10.0),
        ("edgeproxy_bytes_sent_total", &[("listener", "https")], 20.0),
    ] {
        assert_eq!(value(&metrics, name, labels), Some(expected), "{name}");
    }
}

#[test]
fn upstreams_count_answers_failures_and_connections() {
    let metrics = Metrics::new("0", START);
    let upstream = metrics.upstream("api");
    upstream.answered(503, Duration::from_millis(1));
    upstream.failed(UpstreamError::ConnectTimeout);
    upstream.connected(Reused::Yes);
    for (name, labels) in [
        ("edgeproxy_upstream_requests_total", ("status_class", "5xx")),
        ("edgeproxy_upstream_requests_total", ("status_class", "none")),
        ("edgeproxy_upstream_errors_total", ("reason", "connect_timeout")),
        ("edgeproxy_upstream_connections_total", ("reused", "true")),
    ] {
        assert_eq!(value(&metrics, name, &[labels]), Some(1.0), "{name} {labels:?}");
    }
    assert_eq!(value(&metrics, "edgeproxy_upstream_duration_seconds_count", &[]), Some(1.0));
}

#[test]
fn stores_and_the_log_are_asked_when_somebody_looks() {
    let metrics = busy();
    for (name, expected) in [
        ("edgeproxy_cache_bytes", 1.0),
        ("edgeproxy_cache_limit_bytes", 2.0),
        ("edgeproxy_cache_objects", 3.0),
        ("edgeproxy_cache_evictions_total", 4.0),
        ("edgeproxy_access_log_dropped_total", 5.0),
        ("edgeproxy_cache_fetches", 6.0),
    ] {
        assert_eq!(value(&metrics, name, &[]), Some(expected), "{name}");
    }
    let zone = |zone: &str, bytes| CacheUsage { zone: zone.into(), bytes, ..CacheUsage::default() };
    metrics.watch_cache("memory", move || vec![zone("default", 9), zone("images", 7)]);
    for (zone, bytes) in [("default", 9.0), ("images", 7.0)] {
        let labels = [("tier", "memory"), ("zone", zone)];
        assert_eq!(value(&metrics, "edgeproxy_cache_bytes", &labels), Some(bytes));
    }
}

#[test]
fn a_refused_configuration_leaves_the_time_of_the_one_in_use() {
    let metrics = Metrics::new("0", START);
    metrics.reloaded(Reload::InUse, UNIX_EPOCH + Duration::from_secs(100));
    metrics.reloaded(Reload::Refused, UNIX_EPOCH + Duration::from_secs(200));
    let of = |name: &str| value(&metrics, name, &[]);
    assert_eq!(of("edgeproxy_config_last_reload_successful"), Some(0.0));
    assert_eq!(of("edgeproxy_config_last_reload_success_timestamp_seconds"), Some(100.0));
}

#[test]
fn names_from_the_configuration_cannot_break_the_format() {
    let metrics = Metrics::new("0", START);
    let odd = "a\"b\\c\nd{e}";
    metrics.route(odd, odd).record(&finished(Method::Get, 200, CacheResult::Hit));
    assert_eq!(value(&metrics, "edgeproxy_requests_total", &[("route", odd)]), Some(1.0));
}

#[test]
fn a_panic_is_counted() {
    let metrics = Metrics::new("0", START);
    metrics.panicked();
    assert_eq!(value(&metrics, "edgeproxy_panics_total", &[]), Some(1.0));
}

#[test]
fn the_version_is_a_label() {
    let metrics = Metrics::new("1.2.3", START);
    assert_eq!(value(&metrics, "edgeproxy_build_info", &[("version", "1.2.3")]), Some(1.0));
}
