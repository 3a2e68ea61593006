//! Why a backend fails, as its operator is told.

use std::process::Command;

use serde_json::Value;

use super::before;
use super::nobody;
use super::with;
use crate::harness::Authority;
use crate::harness::Edge;
use crate::harness::Origin;
use crate::harness::edge::binary;
use crate::harness::ok;
use crate::harness::status;

/// What the listing says of one backend.
fn known(edge: &Edge, id: &str) -> Value {
    let reply = edge.admin("GET", &format!("/v1/upstreams/app/backends/{id}"));
    let view: Value = serde_json::from_slice(&reply.expect_status(200).body).expect("JSON");
    view["addresses"][0].clone()
}

/// What `edgeproxy upstreams list` prints.
fn listed(edge: &Edge) -> String {
    let mut command = Command::new(binary());
    command.args(["upstreams", "list", "-c", "edge.yaml"]).current_dir(edge.folder().path());
    command.env("NO_COLOR", "1").env("XDG_RUNTIME_DIR", edge.folder().path());
    let output = command.output().expect("the binary runs");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn a_wrong_certificate_is_seen_at_the_backend_that_has_it() {
    let authority = Authority::new();
    let folder = tempfile::tempdir().expect("a folder can be made");
    let ca = authority.write(folder.path());
    let secure = || Origin::script().otherwise(|_| ok("secure"));
    let right = secure().start_tls(authority.server(&["app.test"], &[]));
    let wrong = secure().start_tls(authority.server(&["other.test"], &[]));
    let tls = format!("{{ca: {}, server_name: app.test}}", ca.display());
    // Requests notice nothing: another backend answers.
    let edge = before(
        &[&right, &wrong],
        &format!("    health: off\n    breaker: {{failures: 2}}\n    tls: {tls}\n"),
    );
    assert_eq!(known(&edge, "b1")["last_error"], Value::Null);
    while known(&edge, "b1")["failures"] == 0 {
        edge.get("/").expect_body("secure");
    }
    let is = known(&edge, "b1");
    let error = &is["last_error"];
    assert_eq!(error["label"], "origin_certificate", "{is}");
    let reason = error["reason"].as_str().expect("a reason");
    assert!(reason.contains("certificate not valid for name"), "{reason}");
    assert!(error["ms_ago"].is_u64(), "{is}");
    assert_eq!(known(&edge, "b0")["last_error"], Value::Null);
    let listed = listed(&edge);
    let line = listed.lines().find(|line| line.starts_with("app b1: ")).expect("a line");
    assert!(line.contains(&format!(" ago: origin_certificate: {reason}")), "{listed}");
    assert!(!listed.contains("app b0: "), "{listed}");
}

#[test]
fn what_opens_a_breaker_is_told_with_it() {
    let authority = Authority::new();
    let wrong =
        Origin::script().otherwise(|_| ok("x")).start_tls(authority.server(&["other.test"], &[]));
    let folder = tempfile::tempdir().expect("a folder can be made");
    let ca = authority.write(folder.path());
    let edge = before(
        &[&wrong],
        &format!(
            "    health: off\n    retry: off\n    breaker: {{failures: 2}}\n    \
             tls: {{ca: {}, server_name: app.test}}\n",
            ca.display()
        ),
    );
    for _ in 0..2 {
        edge.get("/").expect_status(502);
    }
    let line = edge.wait_for_log("circuit breaker opened");
    for part in ["error=origin_certificate", "certificate not valid for name", "other.test"] {
        assert!(line.contains(part), "{line}");
    }
}

#[test]
fn the_last_of_several_errors_stands_there_and_outlives_a_reload() {
    let (bad, good) = (Origin::always(status(503)), Origin::always(ok("good")));
    let addresses = format!(
        "{{id: bad, address: \"{}\"}}, {{id: good, address: \"{}\"}}, {{id: gone, address: \"{}\"}}",
        bad.address,
        good.address,
        nobody()
    );
    let edge = with(&addresses, "    health: off\n    retry: off\n    breaker: {failures: 9}\n");
    for _ in 0..3 {
        edge.get("/");
    }
    let error = |id: &str| known(&edge, id)["last_error"].clone();
    assert_eq!(
        (&error("bad")["label"], &error("bad")["reason"]),
        (&"status".into(), &"status 503".into())
    );
    assert_eq!(error("gone")["label"], "connect_failed");
    assert!(error("gone")["reason"].as_str().is_some_and(|why| why.contains("refused")));
    assert_eq!(error("good"), Value::Null);
    let yaml =
        std::fs::read_to_string(edge.folder().path().join("edge.yaml")).expect("it is there");
    edge.write(&yaml.replace("failures: 9", "failures: 8")).reload().expect_status(200);
    assert_eq!(error("bad")["label"], "status");
}
