//! Who answers when a group as a whole cannot, and groups that share the requests.

use std::time::Duration;
use std::time::Instant;

use super::nobody;
use crate::harness::Edge;
use crate::harness::Origin;
use crate::harness::Respond;
use crate::harness::ok;
use crate::harness::status;

/// Two groups, and routes as written.
fn two(main: &str, other: &str, routes: &str) -> Edge {
    Edge::with(&format!(
        "listeners: [{{name: http, address: \"127.0.0.1:0\"}}]\n\
         upstreams:\n  main: {{breaker: off, addresses: [\"{main}\"]}}\n  \
         other: {{breaker: off, addresses: [\"{other}\"], host: other.test}}\n\
         access_log: {{to: stdout, format: json}}\nroutes: [{routes}]\n"
    ))
}

#[test]
fn another_group_answers_when_the_first_cannot() {
    let other = Origin::always(ok("other"));
    let edge =
        two(&nobody(), &other.address.to_string(), "{upstream: main, fallback: {upstream: other}}");
    edge.get("/a").expect_status(200).expect_body("other");
    assert_eq!(other.seen()[0].value("host"), Some("other.test"));
    let line = edge.wait_for_access("\"/a\"");
    assert!(line.contains("\"upstream\":\"other\""), "{line}");
    // Nothing was sent to the first one: this is harmless for a POST as well.
    edge.wire().request("POST", "edge.test", "/b", &[], b"body").expect_body("other");
}

#[test]
fn a_post_that_may_have_been_seen_does_not_go_to_the_other_group() {
    let (main, other) = (Origin::always(Respond::raw("")), Origin::always(ok("other")));
    let edge = two(
        &main.address.to_string(),
        &other.address.to_string(),
        "{upstream: main, fallback: {upstream: other}}",
    );
    edge.wire().request("POST", "edge.test", "/", &[], b"body").expect_status(502);
    assert_eq!(other.seen().len(), 0);
    edge.get("/").expect_body("other");
}

#[test]
fn an_answer_that_counts_as_a_failure_leads_to_the_other_group() {
    let (main, other) = (Origin::always(status(503).body("tired")), Origin::always(ok("other")));
    let edge = two(
        &format!("{}\", \"{}", main.address, nobody()),
        &other.address.to_string(),
        "{upstream: main, retry: {statuses: [503]}, \
         fallback: {upstream: other, respond: {status: 200, body: sorry}}}",
    );
    for _ in 0..3 {
        edge.get("/").expect_status(200).expect_body("other");
    }
    // What may have been acted upon is not, and the origin's own answer goes before ours.
    edge.wire()
        .request("POST", "edge.test", "/", &[], b"x")
        .expect_status(503)
        .expect_body("tired");
    assert_eq!(other.seen().len(), 3);
    let edge = two(
        &main.address.to_string(),
        &nobody(),
        "{upstream: main, retry: {statuses: [503]}, fallback: {respond: {status: 200, body: sorry}}}",
    );
    edge.get("/").expect_status(503).expect_body("tired");
}

#[test]
fn what_the_other_group_cannot_answer_either_is_answered_here() {
    let edge = two(
        &nobody(),
        &nobody(),
        "{upstream: main, fallback: {upstream: other, respond: {status: 503, body: back soon, \
         headers: {retry-after: \"60\"}}}}",
    );
    let reply = edge.get("/a");
    reply.expect_status(503).expect_body("back soon");
    assert_eq!(reply.value("retry-after"), Some("60"));
    let line = edge.wait_for_access("\"/a\"");
    assert!(line.contains("\"refusal\":\"connect_failed\""), "{line}");
}

#[test]
fn what_fails_is_counted_where_it_failed() {
    let other = Origin::always(ok("other"));
    for (main, errors, class) in [
        (Origin::always(Respond::raw("")), 1.0, "none"),
        (Origin::always(status(503).body("tired")), 0.0, "5xx"),
    ] {
        let edge = two(
            &main.address.to_string(),
            &other.address.to_string(),
            "{upstream: main, retry: {statuses: [503]}, fallback: {upstream: other}}",
        );
        edge.get("/a").expect_status(200).expect_body("other");
        edge.wait_for_access("\"/a\"");
        let of = |what: &str| edge.metric(&format!("edgeproxy_upstream_{what}\"}}"));
        assert_eq!(of("errors_total{reason=\"origin_closed\",upstream=\"main"), errors, "{class}");
        assert_eq!(of(&format!("requests_total{{status_class=\"{class}\",upstream=\"main")), 1.0);
        assert_eq!(of("errors_total{reason=\"origin_closed\",upstream=\"other"), 0.0, "{class}");
        assert_eq!(of(&format!("requests_total{{status_class=\"{class}\",upstream=\"other")), 0.0);
        assert_eq!(of("requests_total{status_class=\"2xx\",upstream=\"other"), 1.0, "{class}");
        let failures = edge.metric("edgeproxy_backend_failures_total{");
        assert_eq!(failures, 1.0, "{:?}", edge.metrics("edgeproxy_backend_failures_total"));
    }
}

/// The same with times in all.
fn two_within(main: (&Origin, &str), other: (&Origin, &str)) -> Edge {
    Edge::with(&format!(
        "listeners: [{{name: http, address: \"127.0.0.1:0\"}}]\n\
         upstreams:\n  main: {{addresses: [\"{}\"], timeouts: {{total: {}}}}}\n  \
         other: {{addresses: [\"{}\"], timeouts: {{total: {}}}}}\n\
         routes: [{{upstream: main, cache: off, fallback: {{upstream: other}}}}]\n",
        main.0.address, main.1, other.0.address, other.1
    ))
}

#[test]
fn the_other_group_has_its_own_time_within_that_of_the_first_one() {
    let late = |milliseconds: u64, answer: fn() -> Respond| {
        Origin::script()
            .otherwise(move |_| {
                std::thread::sleep(Duration::from_millis(milliseconds));
                answer()
            })
            .start()
    };
    // The first one has used up more than the whole time of the other one.
    let (main, other) = (late(700, || Respond::raw("")), late(0, || ok("other")));
    let edge = two_within((&main, "60s"), (&other, "400ms"));
    edge.get("/").expect_status(200).expect_body("other");
    // And the time of the first one is the time in all.
    let (main, other) = (late(0, || Respond::raw("")), late(20_000, || ok("other")));
    let edge = two_within((&main, "500ms"), (&other, "60s"));
    let began = Instant::now();
    edge.get("/").expect_status(504);
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert_eq!(other.seen().len(), 1);
}

#[test]
fn what_is_stale_goes_before_the_fixed_answer() {
    let origin = Origin::script()
        .on("/stored", ok("stored").field("Cache-Control", "max-age=0, stale-if-error=600"))
        .otherwise(|_| status(200))
        .take_over("/gone", |_, _| ())
        .start();
    let edge = two(
        &origin.address.to_string(),
        &nobody(),
        "{upstream: main, fallback: {respond: {status: 503, body: sorry}}}",
    );
    edge.get("/stored").expect_body("stored");
    edge.get("/gone").expect_status(503).expect_body("sorry");
}

#[test]
fn requests_are_shared_by_weight() {
    let (main, other) = (Origin::always(ok("main")), Origin::always(ok("other")));
    let split = |main_weight, other_weight| {
        format!(
            "{{split: [{{upstream: main, weight: {main_weight}}}, \
             {{upstream: other, weight: {other_weight}}}]}}"
        )
    };
    let at = |weights: String| two(&main.address.to_string(), &other.address.to_string(), &weights);
    let edge = at(split(1, 0));
    for n in 0..10 {
        edge.get(&format!("/{n}")).expect_body("main");
    }
    let edge = at(split(1, 1));
    let others = (0..64).filter(|n| edge.get(&format!("/{n}")).text() == "other").count();
    // Fewer than one of 64, or more than 63, comes once in 2^63 runs.
    assert!((1..64).contains(&others), "{others}");
    assert!(other.seen().iter().all(|seen| seen.value("host") == Some("other.test")));
}

#[test]
fn who_asks_for_the_next_version_gets_it_and_the_others_do_not() {
    let (main, other) = (Origin::always(ok("main")), Origin::always(ok("other")));
    let edge = two(
        &main.address.to_string(),
        &other.address.to_string(),
        "{match: {headers: {x-canary: present}}, upstream: other, cache: off}, \
         {split: [{upstream: main, weight: 100}, {upstream: other, weight: 0}], cache: off}",
    );
    for _ in 0..5 {
        edge.get_with("/", &[("X-Canary", "1")]).expect_body("other");
        edge.get("/").expect_body("main");
    }
}
