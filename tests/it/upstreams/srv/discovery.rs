//! Real look-ups of a real DNS server.

use std::time::Instant;

use hickory_resolver::proto::rr::RecordType;
use serde_json::Value;

use crate::harness::Edge;
use crate::harness::Origin;
use crate::harness::PATIENCE;
use crate::harness::dns::Dns;
use crate::harness::dns::Mood;
use crate::harness::ok;
use crate::process::daemon::eventually;
use crate::process::free_address;
use crate::upstreams::nobody;
use crate::upstreams::of;
use crate::upstreams::shares;
use crate::upstreams::with;

const NAME: &str = "_http._tcp.app.test";
const LOOPBACK: &[[u8; 4]] = &[[127, 0, 0, 1]];
const HOUR: u32 = 3600;

fn port(origin: &Origin) -> u16 {
    origin.address.port()
}

/// A port that nobody listens on.
fn closed() -> u16 {
    nobody().rsplit_once(':').and_then(|(_, port)| port.parse().ok()).expect("a port")
}

/// A server that knows `one.test` to `three.test`, all of them on loopback.
fn dns() -> Dns {
    let dns = Dns::start();
    for host in ["one.test", "two.test", "three.test"] {
        dns.host(host, HOUR, LOOPBACK);
    }
    dns
}

/// Everything passed to this service, asked of this server; `more` are further keys of the upstream.
fn before(dns: &Dns, more: &str) -> Edge {
    and(dns, "", more)
}

/// The same with further addresses.
fn and(dns: &Dns, addresses: &str, more: &str) -> Edge {
    let server = dns.address;
    with(
        &format!("{{id: app, address: \"srv:{NAME}\"}}{addresses}"),
        &format!("    resolvers: [\"{server}\"]\n{more}"),
    )
}

/// The addresses of the service, as they are listed: (port, weight, backup).
fn listed(edge: &Edge) -> Vec<(u16, u64, bool)> {
    let reply = edge.admin("GET", "/v1/upstreams/app/backends/app");
    let backend: Value = serde_json::from_slice(&reply.expect_status(200).body).expect("JSON");
    let addresses = backend["addresses"].as_array().expect("a list");
    let of = |one: &Value| {
        let address = one["address"].as_str().expect("a text");
        let port = address.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
        let weight = one["weight"].as_u64().expect("a number");
        (port.expect("a port"), weight, one["backup"].as_bool().expect("yes or no"))
    };
    let mut all: Vec<_> = addresses.iter().map(of).collect();
    all.sort_unstable();
    all
}

/// Waits until it is listed so.
#[track_caller]
fn wait_for_listed(edge: &Edge, mut wanted: Vec<(u16, u64, bool)>) {
    wanted.sort_unstable();
    let since = Instant::now();
    while listed(edge) != wanted {
        assert!(since.elapsed() < PATIENCE, "{:?} and not {wanted:?}", listed(edge));
        std::thread::yield_now();
    }
}

#[test]
fn the_targets_of_a_service_share_by_the_weights_of_its_records() {
    let (a, b, dns) = (Origin::always(ok("a")), Origin::always(ok("b")), dns());
    dns.service(NAME, HOUR, &[(10, 3, port(&a), "one.test"), (10, 1, port(&b), "two.test")]);
    let edge = before(&dns, "");
    assert_eq!(shares(&edge, 40), of(&[("a", 30), ("b", 10)]));
    assert_eq!(listed(&edge).len(), 2);
    wait_for_listed(&edge, vec![(port(&a), 3, false), (port(&b), 1, false)]);
}

#[test]
fn a_priority_serves_only_while_none_before_it_can_and_configured_backups_come_last() {
    let (b, c, spare) =
        (Origin::always(ok("b")), Origin::always(ok("c")), Origin::always(ok("spare")));
    let (dns, gone) = (dns(), closed());
    let records = |second: u16, third: u16| {
        [(1, 1, gone, "one.test"), (2, 1, second, "two.test"), (3, 1, third, "three.test")]
    };
    dns.service(NAME, 1, &records(port(&b), port(&c)));
    let spare_address = format!(", {{id: spare, address: \"{}\", backup: true}}", spare.address);
    let edge = and(&dns, &spare_address, "    breaker: off\n    health: off\n");
    assert_eq!(shares(&edge, 10), of(&[("b", 10)]));
    assert_eq!((c.seen().len(), spare.seen().len()), (0, 0));
    let other = closed();
    dns.service(NAME, 1, &records(other, port(&c)));
    wait_for_listed(&edge, vec![(gone, 1, false), (other, 1, true), (port(&c), 1, true)]);
    assert_eq!(shares(&edge, 10), of(&[("c", 10)]));
    assert_eq!(spare.seen().len(), 0);
    let third = closed();
    dns.service(NAME, 1, &records(other, third));
    wait_for_listed(&edge, vec![(gone, 1, false), (other, 1, true), (third, 1, true)]);
    assert_eq!(shares(&edge, 10), of(&[("spare", 10)]));
}

#[test]
fn records_are_asked_for_again_when_their_time_is_over() {
    let (a, b, dns) = (Origin::always(ok("a")), Origin::always(ok("b")), dns());
    dns.service(NAME, 1, &[(1, 1, port(&a), "one.test")]);
    let edge = before(&dns, "    resolve_every: 1h\n");
    assert_eq!(shares(&edge, 4), of(&[("a", 4)]));
    dns.service(NAME, 1, &[(1, 5, port(&a), "one.test"), (1, 15, port(&b), "two.test")]);
    wait_for_listed(&edge, vec![(port(&a), 5, false), (port(&b), 15, false)]);
    assert_eq!(shares(&edge, 40), of(&[("a", 10), ("b", 30)]));
    // Nobody is added and nobody goes: the weights alone are others.
    dns.service(NAME, 1, &[(1, 15, port(&a), "one.test"), (1, 5, port(&b), "two.test")]);
    wait_for_listed(&edge, vec![(port(&a), 15, false), (port(&b), 5, false)]);
    assert_eq!(shares(&edge, 40), of(&[("a", 30), ("b", 10)]));
}

#[test]
fn records_that_last_are_asked_for_again_at_the_interval() {
    let (a, b, dns) = (Origin::always(ok("a")), Origin::always(ok("b")), dns());
    dns.service(NAME, HOUR, &[(1, 1, port(&a), "one.test")]);
    let edge = before(&dns, "    resolve_every: 1s\n");
    assert_eq!(shares(&edge, 4), of(&[("a", 4)]));
    dns.service(NAME, HOUR, &[(1, 1, port(&b), "two.test")]);
    wait_for_listed(&edge, vec![(port(&b), 1, false)]);
    assert_eq!(shares(&edge, 4), of(&[("b", 4)]));
}

#[test]
fn a_failure_of_dns_keeps_the_last_answer() {
    let (a, dns) = (Origin::always(ok("a")), dns());
    dns.service(NAME, HOUR, &[(1, 7, port(&a), "one.test")]);
    let edge = before(&dns, "    resolve_every: 1s\n    breaker: off\n");
    shares(&edge, 1);
    dns.is(Mood::Failing);
    edge.wait_for_log("name not resolved");
    dns.wait_for_more(NAME, RecordType::SRV, 2);
    assert_eq!(shares(&edge, 4), of(&[("a", 4)]));
    // A service that is said not to be there any more is a failure, too.
    dns.is(Mood::Well);
    dns.wait_for_more(NAME, RecordType::SRV, 2);
    dns.service(NAME, HOUR, &[(0, 0, 0, ".")]);
    edge.wait_for_log("the service is not there");
    assert_eq!(listed(&edge), [(port(&a), 7, false)]);
    assert_eq!(shares(&edge, 4), of(&[("a", 4)]));
}

#[test]
fn failures_of_dns_open_the_breaker_and_an_answer_lets_it_be_tried_again() {
    let (a, dns) = (Origin::always(ok("a")), dns());
    dns.service(NAME, HOUR, &[(1, 1, port(&a), "one.test")]);
    let edge = before(
        &dns,
        "    resolve_every: 1s\n    health: off\n    breaker: {failures: 2, open_for: 1s}\n",
    );
    shares(&edge, 1);
    dns.is(Mood::Failing);
    edge.wait_for_metric("edgeproxy_backend_breaker_opened_total{", 1.0);
    dns.is(Mood::Well);
    let since = Instant::now();
    while edge.get("/").status != 200 {
        assert!(since.elapsed() < PATIENCE, "a probe is let through in the end");
    }
}

#[test]
fn a_target_that_cannot_be_resolved_keeps_its_addresses() {
    let (a, b, dns) = (Origin::always(ok("a")), Origin::always(ok("b")), dns());
    dns.service(NAME, 1, &[(1, 1, port(&a), "one.test"), (1, 1, port(&b), "two.test")]);
    let edge = before(&dns, "    breaker: off\n");
    assert_eq!(shares(&edge, 4), of(&[("a", 2), ("b", 2)]));
    dns.host("two.test", HOUR, &[]);
    // What its record says counts nevertheless.
    dns.service(NAME, 1, &[(1, 1, port(&a), "one.test"), (1, 3, port(&b), "two.test")]);
    edge.wait_for_log("targets not resolved");
    wait_for_listed(&edge, vec![(port(&a), 1, false), (port(&b), 3, false)]);
    assert_eq!(shares(&edge, 4), of(&[("a", 1), ("b", 3)]));
}

#[test]
fn no_request_waits_for_dns() {
    let (a, dns) = (Origin::always(ok("a")), dns());
    dns.service(NAME, HOUR, &[(1, 1, port(&a), "one.test")]);
    dns.is(Mood::Silent);
    let edge = before(&dns, "    resolve_every: 1s\n");
    // The server has not said a word yet, and says none before these are answered.
    let refused = edge.get_with("/", &[("Accept", "application/json")]);
    assert!(refused.expect_status(503).text().contains("no_peer"), "{refused:?}");
    dns.is(Mood::Well);
    wait_for_listed(&edge, vec![(port(&a), 1, false)]);
    dns.is(Mood::Silent);
    dns.wait_for_more(NAME, RecordType::SRV, 1);
    assert_eq!(shares(&edge, 4), of(&[("a", 4)]));
}

#[test]
fn an_answer_that_is_too_long_for_udp_is_asked_for_over_tcp() {
    let (a, dns) = (Origin::always(ok("a")), dns());
    let hosts: Vec<String> = (0..60).map(|n| format!("host-{n}.test")).collect();
    let records: Vec<_> = (0..60).map(|n| (1, 1, 10_000 + n, &*hosts[usize::from(n)])).collect();
    let first = [(0, 1, port(&a), "one.test")];
    dns.service(NAME, HOUR, &[&first[..], &records].concat());
    hosts.iter().for_each(|host| dns.host(host, HOUR, LOOPBACK));
    let edge = before(&dns, "");
    assert_eq!(listed(&edge).len(), 61);
    assert!(dns.over_tcp() > 0);
    assert_eq!(shares(&edge, 4), of(&[("a", 4)]));
}

#[test]
fn a_reload_keeps_what_is_known_of_a_service() {
    let (a, b, dns) = (Origin::always(ok("a")), Origin::always(ok("b")), dns());
    dns.service(NAME, HOUR, &[(1, 3, port(&a), "one.test"), (1, 1, port(&b), "two.test")]);
    let server = dns.address;
    let yaml = |more: &str| {
        format!(
            "listeners: [{{name: http, address: \"127.0.0.1:0\"}}]\nupstreams:\n  app:\n    \
             addresses: [{{id: app, address: \"srv:{NAME}\"}}]\n    resolvers: [\"{server}\"]\n{more}\
             routes: [{{upstream: app}}]\n"
        )
    };
    let edge = Edge::with(&yaml(""));
    shares(&edge, 1);
    dns.is(Mood::Silent);
    edge.write(&yaml("    timeouts: {read: 20s}\n")).reload().expect_status(200);
    assert_eq!(listed(&edge).len(), 2);
    assert_eq!(shares(&edge, 40), of(&[("a", 30), ("b", 10)]));
}

#[test]
fn a_service_can_be_added_at_run_time_and_its_weights_are_its_records() {
    let (a, b, dns) = (Origin::always(ok("a")), Origin::always(ok("b")), dns());
    dns.service(NAME, HOUR, &[(1, 4, port(&a), "one.test")]);
    let addresses = format!("{{id: first, address: \"{}\"}}", b.address);
    let edge = with(&addresses, &format!("    resolvers: [\"{}\"]\n", dns.address));
    assert_eq!(shares(&edge, 2), of(&[("b", 2)]));
    let body = format!("{{\"id\": \"app\", \"address\": \"srv:{NAME}\"}}");
    edge.admin_post("/v1/upstreams/app/backends", &body).expect_status(201);
    wait_for_listed(&edge, vec![(port(&a), 4, false)]);
    assert_eq!(shares(&edge, 5), of(&[("a", 4), ("b", 1)]));
    let at = "/v1/upstreams/app/backends/app";
    let refused = edge.admin_says("PATCH", at, "{\"weight\": 2}");
    assert!(refused.expect_status(409).text().contains("records"), "{refused:?}");
    edge.admin_says("PATCH", at, "{\"backup\": true}").expect_status(200);
    assert_eq!(listed(&edge), [(port(&a), 4, true)]);
    assert_eq!(shares(&edge, 5), of(&[("b", 5)]));
}

#[test]
fn a_plain_name_that_cannot_be_resolved_keeps_its_addresses_and_its_breaker_hears_of_it() {
    let (a, dns) = (Origin::always(ok("a")), dns());
    let addresses = format!("{{id: app, address: \"one.test:{}\"}}", port(&a));
    let more = |breaker: &str| {
        let server = dns.address;
        format!("    resolvers: [\"{server}\"]\n    resolve_every: 1s\n    breaker: {breaker}\n")
    };
    let edge = with(&addresses, &more("off"));
    let broken = with(&addresses, &more("{failures: 2, open_for: 1h}"));
    assert_eq!(shares(&edge, 2), of(&[("a", 2)]));
    assert_eq!(shares(&broken, 2), of(&[("a", 2)]));
    dns.is(Mood::Failing);
    broken.wait_for_metric("edgeproxy_backend_breaker_opened_total{", 1.0);
    edge.wait_for_log("name not resolved");
    assert_eq!(shares(&edge, 4), of(&[("a", 4)]));
}

#[test]
fn a_plain_name_that_moves_is_followed_and_one_that_is_lost_keeps_its_last_address() {
    let port = free_address().port();
    let at = |last: u8, who: &str| {
        let who = ok(who);
        Origin::script().otherwise(move |_| who.clone()).start_at(([127, 0, 0, last], port).into())
    };
    let (_a, _b, dns) = (at(1, "a"), at(2, "b"), dns());
    let more = format!("    resolvers: [\"{}\"]\n    resolve_every: 1s\n", dns.address);
    let edge = with(&format!("{{id: app, address: \"one.test:{port}\"}}"), &more);
    assert_eq!(shares(&edge, 5), of(&[("a", 5)]));

    dns.host("one.test", HOUR, &[[127, 0, 0, 2]]);
    let moved = || (shares(&edge, 1) == of(&[("b", 1)])).then_some(());
    eventually("requests follow the name", moved);
    assert_eq!(shares(&edge, 5), of(&[("b", 5)]));

    // Gone: no addresses, then no answer.
    dns.host("one.test", HOUR, &[]);
    dns.wait_for_more("one.test", RecordType::A, 2);
    assert_eq!(shares(&edge, 5), of(&[("b", 5)]));
    dns.is(Mood::Failing);
    dns.wait_for_more("one.test", RecordType::A, 2);
    assert_eq!(shares(&edge, 5), of(&[("b", 5)]));

    dns.is(Mood::Well);
    dns.host("one.test", HOUR, LOOPBACK);
    let back = || (shares(&edge, 1) == of(&[("a", 1)])).then_some(());
    eventually("requests follow the name back", back);
    assert_eq!(shares(&edge, 5), of(&[("a", 5)]));
}

#[test]
fn plain_names_are_asked_of_these_servers_too() {
    let (a, dns) = (Origin::always(ok("a")), dns());
    let addresses = format!("{{id: app, address: \"one.test:{}\"}}", port(&a));
    let edge = with(&addresses, &format!("    resolvers: [\"{}\"]\n", dns.address));
    assert_eq!(shares(&edge, 2), of(&[("a", 2)]));
    assert!(dns.asked("one.test", RecordType::A) > 0);
}

#[test]
fn a_service_that_a_backend_left_is_asked_for_no_more() {
    const OTHER: &str = "_http._tcp.other.test";
    let (a, b, dns) = (Origin::always(ok("a")), Origin::always(ok("b")), dns());
    dns.service(NAME, 1, &[(1, 3, port(&a), "one.test")]);
    dns.service(OTHER, 1, &[(1, 5, port(&b), "two.test")]);
    let edge = before(&dns, "");
    assert_eq!(shares(&edge, 4), of(&[("a", 4)]));
    let go = |to: &str| {
        let body = format!("{{\"address\": \"{to}\"}}");
        edge.admin_says("PATCH", "/v1/upstreams/app/backends/app", &body).expect_status(200);
    };
    // The next time would be in a second.
    dns.wait_for_more(NAME, RecordType::SRV, 1);
    go(&format!("srv:{OTHER}"));
    let asked = dns.asked(NAME, RecordType::SRV);
    assert_eq!(listed(&edge), [(port(&b), 5, false)]);
    assert_eq!(shares(&edge, 4), of(&[("b", 4)]));
    dns.wait_for_more(OTHER, RecordType::SRV, 2);
    assert_eq!(dns.asked(NAME, RecordType::SRV), asked);
    dns.service(OTHER, 1, &[(1, 7, port(&a), "one.test")]);
    wait_for_listed(&edge, vec![(port(&a), 7, false)]);
    go(&b.address.to_string());
    assert_eq!(listed(&edge), [(port(&b), 1, false)]);
}
