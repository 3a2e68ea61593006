//! A backend that fails is given a rest, and tried again.

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use super::before;
use super::nobody;
use super::with;
use crate::harness::Authority;
use crate::harness::Edge;
use crate::harness::Gate;
use crate::harness::Origin;
use crate::harness::PATIENCE;
use crate::harness::Reply;
use crate::harness::Respond;
use crate::harness::Wire;
use crate::harness::ok;
use crate::harness::status;

/// An origin that answers 503 until it is told that it is well.
fn ailing() -> (Origin, Arc<AtomicBool>) {
    let well = Arc::new(AtomicBool::new(false));
    let is_well = Arc::clone(&well);
    let origin = Origin::script()
        .otherwise(move |_| match is_well.load(Ordering::SeqCst) {
            true => ok("well"),
            false => status(503),
        })
        .start();
    (origin, well)
}

#[test]
fn five_failures_in_a_row_open_it_and_a_probe_closes_it() {
    let (origin, well) = ailing();
    let edge = before(&[&origin], "    breaker: {open_for: 300ms, statuses: [503]}\n");
    for _ in 0..5 {
        edge.get("/").expect_status(503);
    }
    edge.wait_for_log("circuit breaker opened");
    let refused = edge.get_with("/", &[("Accept", "application/json")]);
    assert_eq!(refused.status, 503);
    assert!(refused.text().contains("breaker_open"), "{refused:?}");
    assert_eq!(origin.seen().len(), 5, "an open breaker lets nothing through");
    assert_eq!(edge.metric("edgeproxy_backend_breaker_state{"), 2.0);
    assert_eq!(edge.metric("edgeproxy_backend_breaker_opened_total{"), 1.0);
    let counted = "edgeproxy_upstream_errors_total{reason=\"breaker_open\"";
    assert_eq!(edge.metric(counted), 1.0);

    well.store(true, Ordering::SeqCst);
    let since = Instant::now();
    while edge.get("/").status != 200 {
        assert!(since.elapsed() < PATIENCE, "a probe is let through in the end");
    }
    edge.wait_for_log("circuit breaker half-open");
    edge.wait_for_log("circuit breaker closed");
    assert_eq!(edge.metric("edgeproxy_backend_breaker_half_opened_total{"), 1.0);
    assert_eq!(edge.metric("edgeproxy_backend_breaker_closed_total{"), 1.0);
    assert_eq!(edge.metric("edgeproxy_backend_breaker_state{"), 0.0);
    edge.get("/").expect_body("well");
}

#[test]
fn a_reset_is_logged_and_counted_as_a_change_that_it_is() {
    let (origin, _) = ailing();
    let edge = before(&[&origin], "    breaker: {failures: 1, open_for: 10m, statuses: [503]}\n");
    edge.get("/").expect_status(503);
    edge.get("/").expect_status(503);
    assert_eq!(origin.seen().len(), 1);
    let opened = edge.wait_for_log("circuit breaker opened");
    for part in ["cause=failures", "error=status", "reason=status 503"] {
        assert!(opened.contains(part), "{opened}");
    }
    let reset = || edge.admin_post("/v1/upstreams/app/backends/b0/breaker/reset", "");
    for _ in 0..2 {
        // The second time it is closed already, and nothing changes.
        reset().expect_status(200);
        assert_eq!(edge.metric("edgeproxy_backend_breaker_state{"), 0.0);
        assert_eq!(edge.metric("edgeproxy_backend_breaker_closed_total{"), 1.0);
        assert_eq!(edge.metric("edgeproxy_backend_breaker_half_opened_total{"), 0.0);
    }
    let closed: Vec<String> =
        edge.log().into_iter().filter(|line| line.contains("circuit breaker closed")).collect();
    assert!(closed.len() == 1 && closed[0].contains("cause=reset"), "{closed:?}");
    edge.get("/").expect_status(503);
    assert_eq!(origin.seen().len(), 2);
}

#[test]
fn a_failing_probe_opens_it_again() {
    let (origin, _) = ailing();
    let edge = before(&[&origin], "    breaker: {failures: 1, open_for: 100ms, statuses: [503]}\n");
    edge.get("/").expect_status(503);
    edge.wait_for_metric("edgeproxy_backend_breaker_opened_total{", 1.0);
    let since = Instant::now();
    while origin.seen().len() < 3 {
        edge.get("/").expect_status(503);
        assert!(since.elapsed() < PATIENCE, "probes are let through");
    }
    assert_eq!(edge.metric("edgeproxy_backend_breaker_opened_total{"), 3.0);
    assert_eq!(edge.metric("edgeproxy_backend_breaker_half_opened_total{"), 2.0);
    assert_eq!(edge.metric("edgeproxy_backend_breaker_closed_total{"), 0.0);
}

/// An origin whose answers are well or not, in turns of this pattern.
fn by_turns(pattern: &'static [bool]) -> Origin {
    let turn = AtomicUsize::new(0);
    Origin::script()
        .otherwise(move |_| match pattern[turn.fetch_add(1, Ordering::SeqCst) % pattern.len()] {
            true => ok("well"),
            false => status(503),
        })
        .start()
}

/// A breaker that looks at rates, over a time in which all of a test happens.
const BY_RATE: &str = "    health: off\n    breaker: {failures: 5, rate: 50, min_requests: 10, \
                       window: 5m, open_for: 5m, statuses: [503]}\n";

#[test]
fn half_of_at_least_so_many_requests_open_it_though_no_two_in_a_row_fail() {
    let origin = by_turns(&[true, false]);
    let edge = before(&[&origin], BY_RATE);
    for _ in 0..9 {
        edge.get("/");
        assert_eq!(edge.metric("edgeproxy_backend_breaker_opened_total{"), 0.0);
    }
    edge.get("/").expect_status(503);
    let log = edge.wait_for_log("circuit breaker opened");
    assert!(log.contains("rate"), "{log}");
    let refused = edge.get_with("/", &[("Accept", "application/json")]);
    assert!(refused.expect_status(503).text().contains("breaker_open"), "{refused:?}");
    assert_eq!(origin.seen().len(), 10, "an open breaker lets nothing through");
}

#[test]
fn fewer_than_half_never_open_it() {
    let origin = by_turns(&[true, false, true]);
    let edge = before(&[&origin], BY_RATE);
    for _ in 0..60 {
        edge.get("/");
    }
    assert_eq!(edge.metric("edgeproxy_backend_breaker_opened_total{"), 0.0);
    assert_eq!(origin.seen().len(), 60);
}

/// How long a breaker is open in tests of its probes, and a probe may take. It is longer than a round of a few requests.
const REST: Duration = Duration::from_secs(3);

/// An origin that fails once, then lets requests wait, and answers them well when the gate is open.
fn convalescent() -> (Origin, Gate) {
    let (gate, asked) = (Gate::default(), AtomicUsize::new(0));
    let opens = gate.clone();
    let origin = Origin::script()
        .otherwise(move |_| {
            if asked.fetch_add(1, Ordering::SeqCst) == 0 {
                return status(503);
            }
            opens.pass();
            ok("well")
        })
        .start();
    (origin, gate)
}

/// A request, once it is answered or has come to `origin`, and whether it has.
fn sent(edge: &Edge, origin: &Origin) -> (Wire, bool) {
    let before = origin.seen().len();
    let mut wire = edge.wire();
    wire.ask("GET", "edge.test", "/", &[], b"");
    let began = Instant::now();
    loop {
        if origin.seen().len() > before {
            return (wire, true);
        }
        if wire.has_reply(Duration::from_millis(5)) {
            return (wire, false);
        }
        assert!(began.elapsed() < PATIENCE, "it is answered or sent on");
    }
}

/// Opens the breaker of `origin`, and waits until two probes are let through, which wait there. What came before
/// these was answered; `others` says how.
fn two_probes(edge: &Edge, origin: &Origin, others: &dyn Fn(Reply)) -> (Instant, Vec<Wire>) {
    let asked = Instant::now();
    while origin.seen().is_empty() {
        assert!(asked.elapsed() < PATIENCE, "it is asked");
        edge.get("/");
    }
    edge.wait_for_log("circuit breaker opened");
    let (mut probes, mut latest) = (Vec::new(), Instant::now());
    let began = Instant::now();
    while probes.len() < 2 {
        assert!(began.elapsed() < PATIENCE, "two probes are let through");
        let asks = Instant::now();
        match sent(edge, origin) {
            (wire, true) => {
                latest = asks;
                probes.push(wire);
            }
            (mut wire, false) => others(wire.reply()),
        }
    }
    (latest, probes)
}

#[test]
fn no_more_probes_than_set_are_at_the_origin_at_once_and_the_rest_is_refused() {
    let (origin, gate) = convalescent();
    let more = "    health: off\n    retry: off\n    \
                breaker: {failures: 1, open_for: 3s, probes: 2, statuses: [503]}\n";
    let edge = before(&[&origin], more);
    let (latest, mut probes) = two_probes(&edge, &origin, &|reply| {
        reply.expect_status(503);
    });
    let mut refused = 0;
    loop {
        let (mut wire, came) = sent(&edge, &origin);
        // A probe that takes longer than that is taken for lost, and another one is let through.
        if latest.elapsed() >= REST {
            break;
        }
        assert!(!came, "a third probe");
        wire.reply().expect_status(503);
        refused += 1;
        if refused == 20 {
            break;
        }
    }
    assert_eq!(edge.metric("edgeproxy_backend_breaker_half_opened_total{"), 1.0);
    gate.open();
    for probe in &mut probes {
        probe.reply().expect_status(200).expect_body("well");
    }
    if refused == 20 {
        assert_eq!(origin.seen().len(), 3);
        edge.wait_for_metric("edgeproxy_backend_breaker_closed_total{", 1.0);
    }
    edge.get("/").expect_status(200);
}

#[test]
fn while_probes_are_out_the_rest_goes_elsewhere() {
    let (origin, gate) = convalescent();
    let good = Origin::always(ok("good"));
    let more = "    health: off\n    retry: off\n    \
                breaker: {failures: 1, open_for: 3s, probes: 2, statuses: [503]}\n";
    let edge = before(&[&origin, &good], more);
    let (latest, mut probes) = two_probes(&edge, &origin, &|reply| {
        reply.expect_status(200).expect_body("good");
    });
    for _ in 0..20 {
        let (mut wire, came) = sent(&edge, &origin);
        if latest.elapsed() >= REST {
            break;
        }
        assert!(!came, "a third probe");
        wire.reply().expect_status(200).expect_body("good");
    }
    gate.open();
    for probe in &mut probes {
        probe.reply().expect_status(200).expect_body("well");
    }
}

#[test]
fn an_open_breaker_sends_requests_elsewhere() {
    let (bad, _) = ailing();
    let good = Origin::always(ok("good"));
    let edge = before(&[&bad, &good], "    breaker: {failures: 2}\n");
    for _ in 0..10 {
        edge.get("/");
    }
    assert_eq!(bad.seen().len(), 2);
    assert_eq!(good.seen().len(), 8);
}

#[test]
fn what_is_stale_is_served_while_every_breaker_is_open() {
    let well = Arc::new(AtomicBool::new(true));
    let is_well = Arc::clone(&well);
    let origin = Origin::script()
        .otherwise(move |_| match is_well.load(Ordering::SeqCst) {
            true => ok("stored").field("Cache-Control", "max-age=0, stale-if-error=600"),
            false => status(503),
        })
        .start();
    let yaml = crate::harness::edge::simple(&origin, "")
        .replace("addresses:", "breaker: {failures: 1, statuses: [503]}\n    addresses:");
    let edge = Edge::with(&yaml);
    edge.get("/a").expect_body("stored");
    well.store(false, Ordering::SeqCst);
    edge.get("/b").expect_status(503);
    let seen = origin.seen().len();
    edge.get("/a").expect_status(200).expect_body("stored");
    assert_eq!(origin.seen().len(), seen, "nobody was asked");
}

#[test]
fn the_only_backend_is_not_given_a_rest_for_what_it_answers() {
    let (origin, _) = ailing();
    let edge = before(&[&origin], "");
    for _ in 0..8 {
        edge.get("/").expect_status(503);
    }
    assert_eq!(origin.seen().len(), 8);
    let closing = Origin::always(Respond::raw(""));
    let edge = before(&[&closing], "");
    for _ in 0..8 {
        edge.get("/").expect_status(502);
    }
}

#[test]
fn it_is_the_only_one_as_long_as_no_other_is_meant_to_get_requests() {
    let ((one, _), (two, well)) = (ailing(), ailing());
    well.store(true, Ordering::SeqCst);
    let edge = before(&[&one], "    breaker: {failures: 2, open_for: 10m}\n    retry: off\n");
    let opened = || edge.metrics("edgeproxy_backend_breaker_opened_total{");
    let act = |path: &str, body: &str| edge.admin_post(&format!("/v1/upstreams/app/{path}"), body);
    let body = format!("{{\"id\": \"two\", \"address\": \"{}\"}}", two.address);
    act("backends", &body).expect_status(201);
    act("backends/two/drain", "").expect_status(200);
    for _ in 0..4 {
        edge.get("/").expect_status(503);
    }
    assert!(opened().iter().all(|line| line.ends_with(" 0")), "{:?}", opened());

    act("backends/two/undrain", "").expect_status(200);
    let refused = (0..8).filter(|_| edge.get("/").status == 503).count();
    assert_eq!(refused, 2, "those before do not count");
    assert!(edge.wait_for_log("circuit breaker opened").contains("backend=b0"));
}

#[test]
fn switched_off_it_lets_every_request_through() {
    let (origin, _) = ailing();
    let edge = before(&[&origin], "    breaker: off\n");
    for _ in 0..8 {
        edge.get("/").expect_status(503);
    }
    assert_eq!(origin.seen().len(), 8);
}

#[test]
fn connections_that_fail_count() {
    let edge = with(&format!("\"{}\"", nobody()), "    breaker: {failures: 2}\n    retry: off\n");
    for expected in [502, 502, 503] {
        edge.get("/").expect_status(expected);
    }
}

/// A backend that fails in this way, and the setting in which it does.
fn failing(kind: &str) -> (String, Option<Origin>) {
    let stays = |origin: Origin| (format!("\"{}\"", origin.address), Some(origin));
    match kind {
        "connect" => (format!("\"{}\"", nobody()), None),
        // Nobody that is trusted vouches for it.
        "TLS" => {
            let tls = Authority::new().server(&["localhost"], &[]);
            let origin = Origin::script().otherwise(|_| ok("secure")).start_tls(tls);
            (format!("\"https://127.0.0.1:{}\"", origin.address.port()), Some(origin))
        }
        "timeout" => stays(
            Origin::script()
                .take_over("/", |_, mut tcp| drop(tcp.read_to_end(&mut Vec::new())))
                .start(),
        ),
        "closed" => stays(Origin::always(Respond::raw(""))),
        "malformed" => stays(Origin::always(Respond::raw("nonsense\r\n\r\n"))),
        _ => panic!("no kind of failure: {kind}"),
    }
}

#[test]
fn each_kind_of_failure_counts_where_it_is_named_and_nowhere_else() {
    const KINDS: [&str; 4] = ["connect", "timeout", "closed", "malformed"];
    for kind in ["connect", "TLS", "timeout", "closed", "malformed"] {
        let counted = if kind == "TLS" { "connect" } else { kind };
        let others =
            KINDS.into_iter().filter(|other| *other != counted).collect::<Vec<_>>().join(", ");
        for (counts, opens) in [(counted, true), (&others, false)] {
            let (address, _origin) = failing(kind);
            let edge = with(
                &address,
                &format!(
                    "    breaker: {{failures: 2, counts: [{counts}], statuses: []}}\n    retry: off\n    \
                     health: off\n    timeouts: {{read: 100ms}}\n"
                ),
            );
            let json = [("Accept", "application/json")];
            let told: Vec<_> = (0..3).map(|_| edge.get_with("/", &json).text()).collect();
            let refused = told.iter().map(|told| told.contains("breaker_open"));
            assert_eq!(
                refused.collect::<Vec<_>>(),
                [false, false, opens],
                "{kind}, {counts}: {told:?}"
            );
        }
    }
}
