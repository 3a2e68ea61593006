//! `/metrics`, read as Prometheus reads it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::cacheable;
use super::over_tcp;
use crate::harness::Edge;
use crate::harness::Origin;
use crate::harness::Wire;
use crate::harness::edge::simple;
use crate::harness::ok;

/// A family of samples.
#[derive(Debug, Default)]
struct Family {
    help: Option<String>,
    kind: Option<String>,
    samples: Vec<Sample>,
}

/// A line with a value.
#[derive(Debug)]
struct Sample {
    name: String,
    labels: Vec<(String, String)>,
    value: f64,
}

/// Reads the text format; panics at what it does not allow.
fn parse(text: &str) -> BTreeMap<String, Family> {
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    assert!(text.ends_with('\n'), "the last line has no end");
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').expect("a help text");
            let family = families.entry(name.to_owned()).or_default();
            assert!(family.help.replace(help.to_owned()).is_none(), "two helps: {line}");
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("a type");
            let family = families.entry(name.to_owned()).or_default();
            assert!(family.samples.is_empty(), "the type comes after samples: {line}");
            assert!(family.kind.replace(kind.to_owned()).is_none(), "two types: {line}");
        } else {
            let sample = sample(line);
            let family = family_of(&sample.name, &families);
            families.get_mut(&family).expect("just found").samples.push(sample);
        }
    }
    families
}

fn family_of(name: &str, families: &BTreeMap<String, Family>) -> String {
    let stems = ["", "_bucket", "_sum", "_count"].iter().filter_map(|end| name.strip_suffix(end));
    for stem in stems {
        if families.contains_key(stem) {
            return stem.to_owned();
        }
    }
    panic!("{name} belongs to no family");
}

fn sample(line: &str) -> Sample {
    let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no value: {line}"));
    let value = value.parse().unwrap_or_else(|_| panic!("no number: {line}"));
    let (name, labels) = match series.split_once('{') {
        None => (series, ""),
        Some((name, rest)) => (name, rest.strip_suffix('}').unwrap_or_else(|| panic!("{line}"))),
    };
    let valid = |c: char| c.is_ascii_alphanumeric() || c == '_';
    assert!(!name.is_empty() && name.chars().all(valid), "{line}");
    let labels = labels.split(',').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or_else(|| panic!("{line}"));
        assert!(!name.is_empty() && name.chars().all(valid), "{line}");
        let value = value.strip_prefix('"').and_then(|v| v.strip_suffix('"'));
        (name.to_owned(), value.unwrap_or_else(|| panic!("{line}")).to_owned())
    });
    Sample { name: name.to_owned(), labels: labels.collect(), value }
}

fn busy() -> (Edge, BTreeMap<String, Family>) {
    let edge = Edge::to(&cacheable());
    edge.get("/a").expect_miss();
    edge.get("/a").expect_hit();
    edge.wire().send("nonsense\r\n\r\n").reply().expect_status(400);
    let text = edge.admin("GET", "/metrics").text();
    (edge, parse(&text))
}

#[test]
fn every_line_parses_and_every_family_says_what_it_is() {
    let (_edge, families) = busy();
    assert!(families.len() > 20, "only {}", families.len());
    for (name, family) in &families {
        assert!(family.help.as_ref().is_some_and(|help| !help.is_empty()), "{name} has no help");
        let kind = family.kind.as_deref().unwrap_or_else(|| panic!("{name} has no type"));
        assert!(!family.samples.is_empty(), "{name} is empty");
        match kind {
            "counter" => {
                assert!(name.ends_with("_total"), "{name}");
                assert!(family.samples.iter().all(|s| s.value >= 0.0), "{family:?}");
            }
            "gauge" => assert!(!name.ends_with("_total"), "{name}"),
            "histogram" => histogram(name, family),
            _ => panic!("{name}: {kind}"),
        }
    }
}

/// Buckets grow, and the last one is the count.
fn histogram(name: &str, family: &Family) {
    let mut last: BTreeMap<Vec<(String, String)>, f64> = BTreeMap::new();
    for sample in &family.samples {
        let labels: Vec<_> = sample.labels.iter().filter(|(n, _)| n != "le").cloned().collect();
        if sample.name.ends_with("_bucket") {
            let before = last.insert(labels, sample.value).unwrap_or(0.0);
            assert!(sample.value >= before, "{name}: {sample:?}");
        } else if sample.name.ends_with("_count") {
            assert!((last[&labels] - sample.value).abs() < 0.5, "{name}: {sample:?}");
        }
    }
}

#[test]
fn a_series_appears_once() {
    let (_edge, families) = busy();
    for family in families.values() {
        let mut seen: Vec<_> = family.samples.iter().map(|s| (&s.name, &s.labels)).collect();
        let all = seen.len();
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), all, "{family:?}");
    }
}

#[test]
fn every_metric_is_in_the_documents_with_its_labels() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md");
    let page = fs::read_to_string(page).expect("it is there");
    let (_edge, families) = busy();
    for (name, family) in families {
        let row = page.lines().find(|line| line.starts_with(&format!("| `{name}` |")));
        let row = row.unwrap_or_else(|| panic!("{name} is not in docs/metrics.md"));
        assert!(row.contains(&format!("| {} |", family.kind.expect("it has a type"))), "{row}");
        for (label, _) in family.samples.iter().flat_map(|s| &s.labels).filter(|(n, _)| n != "le") {
            assert!(row.contains(&format!("`{label}`")), "{label} of {name} is not in: {row}");
        }
    }
}

#[test]
fn requests_and_cache_results_are_counted_by_route() {
    let edge = Edge::to(&cacheable());
    edge.get("/a").expect_miss();
    edge.get("/a").expect_hit();
    edge.get("/a").expect_hit();
    edge.wait_for_access("hit");
    let count = |labels: &str| {
        let start = format!("edgeproxy_requests_total{{{labels}");
        edge.metric(&start).round() as u64
    };
    let labels = |cache: &str| {
        let all = edge.metrics("edgeproxy_requests_total{");
        let line = all.iter().find(|l| l.contains(&format!("cache=\"{cache}\"")));
        line.unwrap_or_else(|| panic!("no {cache} in {all:?}")).clone()
    };
    assert!(labels("hit").ends_with(" 2"), "{}", labels("hit"));
    assert!(labels("miss").ends_with(" 1"), "{}", labels("miss"));
    for part in ["listener=\"http\"", "route=\"all\"", "method=\"GET\"", "status=\"200\""] {
        assert!(labels("hit").contains(part), "{part}");
    }
    assert_eq!(count(""), 3);
    let results = edge.metrics("edgeproxy_cache_requests_total{");
    let hits = results.iter().find(|line| line.contains("result=\"hit\""));
    assert!(hits.is_some_and(|line| line.ends_with(" 2")), "{results:?}");
    assert!(edge.metric("edgeproxy_cache_objects") > 0.5);
    assert!(edge.metric("edgeproxy_cache_bytes") > 0.5);
    assert!(edge.metric("edgeproxy_request_duration_seconds_count") > 2.5);
    assert!(edge.metric("edgeproxy_bytes_sent_total") > 14.5);
    assert!(edge.metric("edgeproxy_upstream_requests_total") > 0.5);
}

#[test]
fn refusals_are_counted_by_reason() {
    let edge = Edge::to(&cacheable());
    let reason = |name: &str| {
        edge.metric(&format!("edgeproxy_refusals_total{{reason=\"{name}\"}}")).round() as u64
    };
    let before = reason("bad_host");
    edge.wire().send("GET / HTTP/1.1\r\n\r\n").reply().expect_status(400);
    edge.wire().send("GET / HTTP/1.1\r\n\r\n").reply().expect_status(400);
    let all = edge.metrics("edgeproxy_refusals_total{");
    let moved: Vec<_> = all.iter().filter(|line| !line.ends_with(" 0")).collect();
    assert_eq!(moved.len(), 1, "{moved:?}");
    assert!(moved[0].ends_with(" 2") && moved[0].contains("host"), "{moved:?}");
    assert_eq!(before, 0);
}

#[test]
fn connections_are_counted_while_they_are_open_and_after() {
    let edge = Edge::to(&cacheable());
    let open = || edge.metric("edgeproxy_connections{listener=\"http\"}").round() as u64;
    let made = || edge.metric("edgeproxy_connections_total{listener=\"http\"}").round() as u64;
    let mut wires = [edge.wire(), edge.wire()];
    for wire in &mut wires {
        wire.get("edge.test", "/", &[]).expect_status(200);
    }
    assert_eq!((open(), made()), (2, 2));
    drop(wires);
    while open() > 0 {
        std::thread::yield_now();
    }
    assert_eq!(made(), 2);
}

#[test]
fn connections_beyond_a_limit_are_counted_by_reason() {
    let origin = cacheable();
    let limits = "limits: {connections_per_client: 1}";
    let edge = Edge::with(&simple(&origin, limits));
    let mut first = edge.wire();
    first.get("edge.test", "/", &[]).expect_status(200);
    assert_eq!(edge.wire().until_closed(), b"");
    let refused = edge.metrics("edgeproxy_connections_refused_total{");
    let refused: Vec<_> = refused.iter().filter(|line| !line.ends_with(" 0")).collect();
    assert_eq!(refused.len(), 1, "{refused:?}");
    assert!(refused[0].contains("reason=\"client_limit\""), "{refused:?}");
}

#[test]
fn an_origin_that_is_not_there_is_counted() {
    let nobody = super::super::process::free_address();
    let yaml = format!(
        "listeners: [{{name: http, address: \"127.0.0.1:0\"}}]\n\
         upstreams: {{origin: {{addresses: [\"{nobody}\"]}}}}\n\
         routes: [{{name: all, upstream: origin}}]\n"
    );
    let edge = Edge::with(&yaml);
    edge.get("/").expect_status(502);
    edge.wait_for_access("502");
    assert!(edge.metric("edgeproxy_upstream_errors_total{") > 0.5);
    let refusals = edge.metrics("edgeproxy_refusals_total{");
    assert!(refusals.iter().any(|line| line.ends_with(" 1")), "{refusals:?}");
}

#[test]
fn the_version_and_the_process_are_told() {
    let edge = Edge::to(&Origin::always(ok("hello")));
    let version = format!("edgeproxy_build_info{{version=\"{}\"}} 1", env!("CARGO_PKG_VERSION"));
    assert_eq!(edge.metrics("edgeproxy_build_info"), [version]);
    assert!(edge.metric("process_resident_memory_bytes") > 1e6);
    assert!(edge.metric("process_open_fds") > 5.0);
    assert!(edge.metric("process_threads") > 2.0);
    assert!(edge.metric("process_start_time_seconds") > 1.7e9);
    assert!(edge.metric("edgeproxy_config_last_reload_successful") > 0.5);
}

#[test]
fn the_content_type_is_prometheus() {
    let origin = cacheable();
    let (_edge, address) = over_tcp(&origin);
    let reply = Wire::plain(address).get("localhost", "/metrics", &[]);
    reply.expect_status(200);
    let kind = reply.value("content-type").expect("it has one");
    assert_eq!(kind, "text/plain; version=0.0.4; charset=utf-8");
}
