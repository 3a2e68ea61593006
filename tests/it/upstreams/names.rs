//! Backends by name, as the system's resolver knows them.

use serde_json::Value;

use crate::harness::Edge;
use crate::harness::Names;
use crate::harness::Origin;
use crate::harness::ok;
use crate::process::daemon::eventually;
use crate::process::free_address;
use crate::upstreams::of;
use crate::upstreams::shares;

/// Origins called `a`, `b` and `c`, at 127.0.0.1, .2 and .3, and the port that they have in common.
fn origins() -> ([Origin; 3], u16) {
    let port = free_address().port();
    let at = |last: u8, who: &str| {
        let who = ok(who);
        Origin::script().otherwise(move |_| who.clone()).start_at(([127, 0, 0, last], port).into())
    };
    ([at(1, "a"), at(2, "b"), at(3, "c")], port)
}

/// Everything passed to `one.test` at this port, looked up every second; `more` are further keys of the upstream.
fn yaml(port: u16, more: &str) -> String {
    format!(
        "listeners: [{{name: http, address: \"127.0.0.1:0\"}}]\nupstreams:\n  app:\n    \
         addresses: [{{id: app, address: \"one.test:{port}\"}}]\n    resolve_every: 1s\n{more}\
         routes: [{{upstream: app}}]\n"
    )
}

/// The addresses of a backend, as they are listed, without their ports.
fn listed(edge: &Edge, id: &str) -> Vec<String> {
    let reply = edge.admin("GET", &format!("/v1/upstreams/app/backends/{id}"));
    let backend: Value = serde_json::from_slice(&reply.expect_status(200).body).expect("JSON");
    let addresses = backend["addresses"].as_array().expect("a list");
    let of = |one: &Value| {
        let address = one["address"].as_str().expect("a text");
        address.rsplit_once(':').expect("a port").0.to_owned()
    };
    let mut all: Vec<_> = addresses.iter().map(of).collect();
    all.sort_unstable();
    all
}

#[test]
fn each_address_of_a_name_is_a_backend_of_its_own() {
    let (_origins, port) = origins();
    let names = Names::none();
    names.host("one.test", &["127.0.0.1", "127.0.0.2", "127.0.0.3"]);
    let edge = names.edge(&yaml(port, ""));
    assert_eq!(shares(&edge, 30), of(&[("a", 10), ("b", 10), ("c", 10)]));
}

#[test]
fn a_name_has_its_addresses_of_both_families() {
    let names = Names::none();
    // Some systems take ::1 in this file for the loopback of version 4.
    names.host("one.test", &["127.0.0.7", "fd00::7"]);
    let edge = names.edge(&yaml(80, "    health: off\n"));
    assert_eq!(listed(&edge, "app"), ["127.0.0.7", "[fd00::7]"]);
}

#[test]
fn a_name_is_looked_up_again_at_the_interval() {
    let (_origins, port) = origins();
    let names = Names::none();
    names.host("one.test", &["127.0.0.1", "127.0.0.2"]);
    let edge = names.edge(&yaml(port, ""));
    assert_eq!(shares(&edge, 4), of(&[("a", 2), ("b", 2)]));
    names.host("one.test", &["127.0.0.2", "127.0.0.3"]);
    let wanted = ["127.0.0.2", "127.0.0.3"];
    eventually("the name is followed", || (listed(&edge, "app") == wanted).then_some(()));
    assert_eq!(shares(&edge, 4), of(&[("b", 2), ("c", 2)]));
}

#[test]
fn a_name_that_is_lost_keeps_its_last_addresses_until_it_is_found_again() {
    let (_origins, port) = origins();
    let names = Names::none();
    names.host("one.test", &["127.0.0.1", "127.0.0.2"]);
    let edge = names.edge(&yaml(port, "    breaker: off\n"));
    assert_eq!(shares(&edge, 4), of(&[("a", 2), ("b", 2)]));
    names.forget();
    edge.wait_for_log("name not resolved");
    assert_eq!(listed(&edge, "app"), ["127.0.0.1", "127.0.0.2"]);
    assert_eq!(shares(&edge, 4), of(&[("a", 2), ("b", 2)]));
    names.host("one.test", &["127.0.0.3"]);
    eventually("it is found again", || (listed(&edge, "app") == ["127.0.0.3"]).then_some(()));
    assert_eq!(shares(&edge, 4), of(&[("c", 4)]));
}

#[test]
fn look_ups_in_vain_open_the_breaker_and_an_answer_lets_it_be_tried_again() {
    let (_origins, port) = origins();
    let names = Names::none();
    names.host("one.test", &["127.0.0.1"]);
    let more = "    health: off\n    breaker: {failures: 2, open_for: 1s}\n";
    let edge = names.edge(&yaml(port, more));
    assert_eq!(shares(&edge, 1), of(&[("a", 1)]));
    names.forget();
    edge.wait_for_metric("edgeproxy_backend_breaker_opened_total{", 1.0);
    names.host("one.test", &["127.0.0.1"]);
    eventually("a probe is let through", || (edge.get("/").status == 200).then_some(()));
}

#[test]
fn an_open_breaker_of_a_lost_name_answers_at_once() {
    let (origins, port) = origins();
    let names = Names::none();
    names.host("one.test", &["127.0.0.1"]);
    let more = "    health: off\n    breaker: {failures: 2, open_for: 1h}\n";
    let edge = names.edge(&yaml(port, more));
    assert_eq!(shares(&edge, 1), of(&[("a", 1)]));
    names.forget();
    edge.wait_for_metric("edgeproxy_backend_breaker_opened_total{", 1.0);
    let refused = edge.get_with("/", &[("Accept", "application/json")]);
    assert!(refused.expect_status(503).text().contains("breaker_open"), "{refused:?}");
    assert_eq!(origins[0].seen().len(), 1);
}

#[test]
fn a_name_that_never_had_an_address_is_found_when_it_has() {
    let (_origins, port) = origins();
    let names = Names::none();
    let edge = names.edge(&yaml(port, ""));
    let refused = edge.get_with("/", &[("Accept", "application/json")]);
    assert!(refused.expect_status(503).text().contains("no_peer"), "{refused:?}");
    names.host("one.test", &["127.0.0.2"]);
    eventually("it is found", || (listed(&edge, "app") == ["127.0.0.2"]).then_some(()));
    assert_eq!(shares(&edge, 2), of(&[("b", 2)]));
}

#[test]
fn no_request_waits_for_a_first_answer() {
    let (_origins, port) = origins();
    let names = Names::none();
    names.fall_silent();
    let edge = names.edge(&yaml(port, ""));
    let refused = edge.get_with("/", &[("Accept", "application/json")]);
    assert!(refused.expect_status(503).text().contains("no_peer"), "{refused:?}");
    // The first look-up had not come back before that.
    assert!(names.somebody_waits());
    names.host("one.test", &["127.0.0.1"]);
    eventually("it is found", || (listed(&edge, "app") == ["127.0.0.1"]).then_some(()));
    assert_eq!(shares(&edge, 2), of(&[("a", 2)]));
}

#[test]
fn no_request_waits_for_a_later_answer() {
    let (_origins, port) = origins();
    let names = Names::none();
    names.host("one.test", &["127.0.0.1"]);
    let edge = names.edge(&yaml(port, ""));
    assert_eq!(shares(&edge, 2), of(&[("a", 2)]));
    names.fall_silent();
    // It is taken up when its first look-up has been given two seconds.
    let body = format!("{{\"id\": \"two\", \"address\": \"two.test:{port}\"}}");
    edge.admin_post("/v1/upstreams/app/backends", &body).expect_status(201);
    assert_eq!(shares(&edge, 20), of(&[("a", 20)]));
    assert!(names.somebody_waits());
    names.host("two.test", &["127.0.0.2"]);
    eventually("it is found", || (listed(&edge, "two") == ["127.0.0.2"]).then_some(()));
    assert_eq!(shares(&edge, 4), of(&[("a", 2), ("b", 2)]));
}

#[test]
fn a_reload_keeps_what_is_known_of_a_name() {
    let (_origins, port) = origins();
    let names = Names::none();
    names.host("one.test", &["127.0.0.1", "127.0.0.2"]);
    let edge = names.edge(&yaml(port, "    breaker: off\n"));
    assert_eq!(shares(&edge, 2), of(&[("a", 1), ("b", 1)]));
    names.fall_silent();
    let changed = yaml(port, "    breaker: off\n    timeouts: {read: 20s}\n");
    edge.write(&changed).reload().expect_status(200);
    assert_eq!(listed(&edge, "app"), ["127.0.0.1", "127.0.0.2"]);
    assert_eq!(shares(&edge, 4), of(&[("a", 2), ("b", 2)]));
}
