//! What a reload does not change keeps its state.

use std::io::Read;
use std::io::Write;
use std::sync::Mutex;
use std::sync::mpsc;

use serde_json::Value;
use serde_json::json;

use super::json;
use crate::harness::Edge;
use crate::harness::Origin;
use crate::harness::edge::simple;
use crate::harness::ok;
use crate::harness::status;

/// Several backends, with further keys of their upstream and further sections.
fn app(backends: &[(&str, &Origin)], more: &str, sections: &str) -> String {
    let addresses: Vec<String> = backends
        .iter()
        .map(|(id, one)| format!("{{id: {id}, address: \"{}\"}}", one.address))
        .collect();
    format!(
        "listeners: [{{name: http, address: \"127.0.0.1:0\"}}]\n\
         upstreams:\n  app:\n    health: off\n    addresses: [{}]\n{more}\
         routes: [{{upstream: app}}]\n{sections}\n",
        addresses.join(", ")
    )
}

fn upstream(edge: &Edge) -> Value {
    json(edge.admin("GET", "/v1/upstreams/app").expect_status(200))
}

fn backend<'a>(upstream: &'a Value, id: &str) -> &'a Value {
    let backends = upstream["backends"].as_array().expect("a list");
    backends.iter().find(|one| one["id"] == id).unwrap_or_else(|| panic!("no {id} in {upstream}"))
}

#[test]
fn what_is_stored_is_found_and_kept_connections_are_used() {
    let origin = Origin::script()
        .on("/stored", ok("stored").field("Cache-Control", "max-age=600"))
        .otherwise(|_| ok("passed"))
        .start();
    let edge = Edge::to(&origin);
    edge.get("/stored").expect_miss();
    edge.get("/passed").expect_status(200);
    for (n, more) in
        ["limits: {connections: 9999}\n", "paths: {merge_slashes: false}\n", ""].iter().enumerate()
    {
        edge.write(&simple(&origin, more)).reload().expect_status(200);
        edge.get("/stored").expect_hit().expect_body("stored");
        edge.get(&format!("/passed?{n}")).expect_body("passed");
    }
    // Other deadlines, another Host: it is another upstream by then, with the same backend.
    for more in
        ["    timeouts: {read: 7s}\n", "    host: other.test\n", "    pool: {max_connections: 7}\n"]
    {
        let yaml =
            simple(&origin, "").replace("    health: off\n", &format!("    health: off\n{more}"));
        let said = json(edge.write(&yaml).reload().expect_status(200));
        assert_eq!(said["summary"], "upstreams changed: origin");
        edge.get("/stored").expect_hit();
        edge.get("/passed").expect_body("passed");
    }
    assert_eq!(origin.connections(), 1);
}

#[test]
fn breakers_counts_and_what_operators_changed_go_on() {
    let good = Origin::always(ok("good"));
    let bad = Origin::always(status(500));
    let added = Origin::always(ok("added"));
    let breaker =
        "    breaker: {failures: 2, statuses: [500], open_for: 10m}\n    retry: {attempts: 1}\n";
    let all: &[(&str, &Origin)] = &[("good", &good), ("bad", &bad), ("drained", &good)];
    // Two backends at one place are one: the third one is elsewhere.
    let third = Origin::always(ok("third"));
    let all = &[all[0], all[1], ("drained", &third)];
    let edge = Edge::with(&app(all, breaker, ""));
    edge.admin_post(
        "/v1/upstreams/app/backends",
        &format!("{{\"id\": \"added\", \"address\": \"{}\"}}", added.address),
    )
    .expect_status(201);
    edge.admin_says("PATCH", "/v1/upstreams/app/backends/good", "{\"weight\": 5}")
        .expect_status(200);
    edge.admin_post("/v1/upstreams/app/backends/drained/drain", "").expect_status(200);
    let is_open =
        |upstream: &Value| backend(upstream, "bad")["addresses"][0]["breaker"]["state"] == "open";
    while !is_open(&upstream(&edge)) {
        edge.get("/");
    }
    let before = upstream(&edge);
    let requests = edge.metric("edgeproxy_upstream_requests_total{");
    let counted = |upstream: &Value, id: &str| {
        let address = &backend(upstream, id)["addresses"][0];
        (address["requests"].clone(), address["failures"].clone(), address["answers"].clone())
    };

    for more in [
        breaker.to_owned() + "    timeouts: {total: 7s}\n",
        breaker.to_owned() + "    balance: least_connections\n",
        breaker.to_owned() + "    pool: {max_connections: 7}\n",
        breaker.to_owned(),
    ] {
        edge.write(&app(all, &more, "")).reload().expect_status(200);
        let after = upstream(&edge);
        assert!(is_open(&after), "{after}");
        for id in ["good", "bad", "drained", "added"] {
            assert_eq!(counted(&after, id), counted(&before, id), "{id}");
        }
        assert_eq!(after["drift"], before["drift"]);
        assert_eq!(backend(&after, "good")["weight"], 5);
        assert_eq!(backend(&after, "drained")["draining"], true);
        assert_eq!(edge.metric("edgeproxy_upstream_requests_total{"), requests);
    }
    // With another threshold it is the same breaker.
    let other = breaker.replace("failures: 2", "failures: 3");
    edge.write(&app(all, &other, "")).reload().expect_status(200);
    assert!(is_open(&upstream(&edge)));
    assert_eq!(counted(&upstream(&edge), "bad"), counted(&before, "bad"));
}

#[test]
fn a_breaker_takes_other_settings_as_it_is_and_closes_when_it_is_switched_off() {
    let bad = Origin::always(status(500));
    let yaml = |breaker: &str| {
        app(&[("bad", &bad)], &format!("    retry: off\n    breaker: {breaker}\n"), "")
    };
    let on =
        |open_for: &str| yaml(&format!("{{failures: 2, statuses: [500], open_for: {open_for}}}"));
    let edge = Edge::with(&on("10m"));
    for _ in 0..3 {
        edge.get("/");
    }
    assert_eq!(bad.seen().len(), 2);
    let known = || backend(&upstream(&edge), "bad")["addresses"][0].clone();
    let counts = || {
        ["opened", "half_opened", "closed"]
            .map(|what| edge.metric(&format!("edgeproxy_backend_breaker_{what}_total{{")))
    };
    let gauge = || edge.metric("edgeproxy_backend_breaker_state{");

    edge.write(&on("1h")).reload().expect_status(200);
    let is = known();
    assert_eq!((&is["state"], &is["breaker"]["state"]), (&"breaker_open".into(), &"open".into()));
    assert!(is["breaker"]["open_for_ms"].as_u64().is_some_and(|left| left > 600_000), "{is}");
    assert_eq!((counts(), gauge()), ([1.0, 0.0, 0.0], 2.0));
    edge.get("/").expect_status(503);

    // Its time is over by now. Nobody has come yet: it is open, and nothing is counted.
    edge.write(&on("1ms")).reload().expect_status(200);
    let is = known();
    assert_eq!((&is["state"], &is["breaker"]["state"]), (&"probing".into(), &"open".into()));
    assert_eq!((&is["breaker"]["open_for_ms"], &is["out"]), (&0.into(), &json!([])));
    assert_eq!((counts(), gauge()), ([1.0, 0.0, 0.0], 2.0));
    assert_eq!(edge.metric("edgeproxy_backend_up{"), 1.0, "the next request goes there");
    assert_eq!(bad.seen().len(), 2);
    edge.get("/").expect_status(500);
    assert_eq!((counts(), gauge()), ([2.0, 1.0, 0.0], 2.0));
    assert_eq!(bad.seen().len(), 3);

    edge.write(&on("10m")).reload().expect_status(200);
    edge.get("/").expect_status(503);
    edge.write(&yaml("off")).reload().expect_status(200);
    let line = edge.wait_for_log("circuit breaker closed");
    assert!(line.contains("backend=bad") && line.contains("cause=switched_off"), "{line}");
    assert_eq!(counts(), [2.0, 1.0, 1.0]);
    assert_eq!(edge.metrics("edgeproxy_backend_breaker_state{"), [] as [String; 0]);
    assert_eq!(known()["breaker"], json!(null));
    for _ in 0..4 {
        edge.get("/").expect_status(500);
    }
    // A new one begins closed, and counts on.
    edge.write(&on("10m")).reload().expect_status(200);
    assert_eq!((counts(), gauge()), ([2.0, 1.0, 1.0], 0.0));
}

#[test]
fn what_operators_changed_yields_to_what_the_configuration_says_of_the_same() {
    let [a, b, c] = ["a", "b", "c"].map(|name| Origin::always(ok(name)));
    let edge = Edge::with(&app(
        &[("a", &a), ("b", &b)],
        "",
        "admin: {socket: $DIR/admin.sock, state_file: state.json}",
    ));
    edge.admin_post(
        "/v1/upstreams/app/backends",
        &format!("{{\"id\": \"c\", \"address\": \"{}\"}}", c.address),
    )
    .expect_status(201);
    edge.admin_post("/v1/upstreams/app/backends/b/drain", "").expect_status(200);
    let state =
        || std::fs::read_to_string(edge.folder().path().join("state.json")).expect("it is there");
    assert!(state().contains("\"c\""));
    // The configuration has the one now, and the other not any more.
    let sections = "admin: {socket: $DIR/admin.sock, state_file: state.json}";
    edge.write(&app(&[("a", &a), ("c", &c)], "", sections)).reload().expect_status(200);
    let after = upstream(&edge);
    assert_eq!(after["drift"], json!(null));
    assert_eq!(after["backends"].as_array().map(Vec::len), Some(2));
    assert!(!state().contains("\"c\""), "{}", state());
    let reasons: Vec<String> =
        edge.log().into_iter().filter(|line| line.contains("is obsolete")).collect();
    assert_eq!(reasons.len(), 2, "{reasons:?}");
}

#[test]
fn health_is_not_found_out_anew() {
    let (well, ill) = (
        Origin::always(ok("well")),
        Origin::script().on("/health", status(500)).otherwise(|_| ok("ill")).start(),
    );
    let checks = |more: &str| {
        format!(
            "    retry: {{attempts: 1}}\n    health:\n      path: /health\n      interval: 1h\n      fall: 1\n{more}"
        )
    };
    let yaml = |checks: &str, more: &str| {
        app(&[("well", &well), ("ill", &ill)], &format!("{checks}{more}"), "")
            .replace("    health: off\n", "")
    };
    let edge = Edge::with(&yaml(&checks(""), ""));
    edge.admin_post("/v1/upstreams/app/check", "").expect_status(200);
    let states = || {
        let upstream = upstream(&edge);
        ["well", "ill"].map(|id| {
            backend(&upstream, id)["addresses"][0]["health"]["state"].as_str().map(str::to_owned)
        })
    };
    let [healthy, unhealthy] = ["healthy", "unhealthy"].map(|word| Some(word.to_owned()));
    assert_eq!(states(), [healthy.clone(), unhealthy.clone()]);
    for (checks, more) in [
        (checks(""), "    timeouts: {total: 9s}\n"),
        (checks("      rise: 5\n"), ""),
        (checks("      timeout: 1s\n      initial: unknown\n"), ""),
    ] {
        edge.write(&yaml(&checks, more)).reload().expect_status(200);
        assert_eq!(states(), [healthy.clone(), unhealthy.clone()], "{checks}{more}");
        for _ in 0..4 {
            edge.get("/").expect_body("well");
        }
    }
    // Nobody checks any more: both get requests, and that is told of the one that did not.
    edge.write(&app(&[("well", &well), ("ill", &ill)], "", "")).reload().expect_status(200);
    let line = edge.wait_for_log("backend no longer checked");
    for part in ["backend=ill", "from=unhealthy", "cause=switched_off"] {
        assert!(line.contains(part), "{line}");
    }
    let bodies: Vec<String> = (0..4).map(|_| edge.get("/").text()).collect();
    assert!(bodies.iter().any(|body| body == "ill"), "{bodies:?}");
    drop((healthy, unhealthy));
}

/// An origin whose `/slow` sends a half, and the other one when it is told to; it says when it has begun.
/// Its `/silent` never answers.
pub(super) fn slow() -> (Origin, mpsc::Sender<()>, mpsc::Receiver<()>) {
    let (go, wait) = mpsc::channel::<()>();
    let (began, begun) = mpsc::channel();
    let (wait, began) = (Mutex::new(wait), Mutex::new(began));
    let origin = Origin::script()
        .otherwise(|_| ok("slow"))
        .take_over("/silent", |_, mut stream| {
            let _ = stream.read(&mut [0]);
        })
        .take_over("/slow", move |_, mut stream| {
            let half = "a".repeat(5000);
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n{half}").expect("sent");
            began.lock().expect("no panic").send(()).expect("the test waits");
            let _ = wait.lock().expect("no panic").recv();
            write!(stream, "{half}").expect("sent");
        })
        .start();
    (origin, go, begun)
}

#[test]
fn backends_and_upstreams_that_go_finish_what_they_have() {
    let (first, go, begun) = slow();
    let other = Origin::always(ok("other"));
    let edge = Edge::with(&app(&[("first", &first)], "", ""));
    let mut wire = edge.wire();
    wire.ask("GET", "edge.test", "/slow", &[], b"");
    begun.recv().expect("it begins");
    let yaml = app(&[("other", &other)], "", "");
    let said = json(edge.write(&yaml).reload().expect_status(200));
    assert_eq!(said["summary"], "upstreams changed: app");
    edge.get("/").expect_body("other");
    let leaving = upstream(&edge)["leaving"].clone();
    let at = first.address.to_string();
    assert_eq!(leaving, json!([{"label": "first", "address": at, "in_flight": 1}]));
    // And now the whole upstream goes.
    let said = json(edge.write(&yaml.replace("app", "next")).reload().expect_status(200));
    assert_eq!(
        said["changes"]["upstreams"],
        json!({"added": ["next"], "removed": ["app"], "changed": []})
    );
    edge.get("/").expect_body("other");
    go.send(()).expect("it waits");
    let reply = wire.reply();
    assert_eq!(reply.expect_status(200).body.len(), 10_000);
    // The connection goes on, with what there is now.
    wire.get("edge.test", "/", &[]).expect_body("other");
    assert!(
        edge.metrics("edgeproxy_upstream_requests_total{")
            .iter()
            .all(|line| !line.contains("\"app\""))
    );
}
