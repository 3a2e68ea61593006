//! `edgeproxy upstreams` and what it says.

use std::process::Command;
use std::process::Stdio;

use super::ids;
use crate::harness::Authority;
use crate::harness::Edge;
use crate::harness::Origin;
use crate::harness::edge::binary;
use crate::harness::ok;
use crate::upstreams::before;

struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

fn run(edge: &Edge, arguments: &[&str]) -> Said {
    let mut command = Command::new(binary());
    command.arg("upstreams").args(arguments).current_dir(edge.folder().path());
    command.env("NO_COLOR", "1").env("XDG_RUNTIME_DIR", edge.folder().path()).stdin(Stdio::null());
    let output = command.output().expect("the binary runs");
    Said {
        code: output.status.code(),
        out: String::from_utf8(output.stdout).expect("text"),
        err: String::from_utf8(output.stderr).expect("text"),
    }
}

/// What it says with the configuration of this process.
#[track_caller]
fn says(edge: &Edge, arguments: &[&str]) -> String {
    let said = run(edge, &[arguments, &["-c", "edge.yaml"]].concat());
    assert_eq!(said.code, Some(0), "{arguments:?}: {}{}", said.out, said.err);
    said.out
}

#[test]
fn backends_are_listed_added_changed_drained_and_removed() {
    let [a, b, c] = ["a", "b", "c"].map(|who| Origin::always(ok(who)));
    let edge = before(&[&a], "");
    edge.get("/").expect_body("a");
    let table = says(&edge, &["list"]);
    let mut lines = table.lines();
    let head: Vec<&str> = lines.next().expect("a head").split_whitespace().collect();
    assert_eq!(head[..6], ["UPSTREAM", "BACKEND", "ADDRESS", "STATE", "WEIGHT", "NOW"]);
    let row: Vec<&str> = lines.next().expect("a row").split_whitespace().collect();
    let at = a.address.to_string();
    assert_eq!(row[..8], ["app", "b0", at.as_str(), "up", "1", "0", "1", "0"]);
    assert_eq!(lines.next(), None, "nothing differs");

    let at = format!("http://{}", b.address);
    let added = says(&edge, &["add", "app", &at, "--id", "b1", "--weight", "3", "--backup"]);
    assert_eq!(added, "added: app b1: up\n");
    let set = says(&edge, &["set", "app", "b1", "--weight", "2", "--backup", "false"]);
    assert_eq!(set, "changed: app b1: up, weight 2, 0 in flight\n");
    let drained = says(&edge, &["drain", "app", "b0"]);
    assert_eq!(drained, "draining: app b0: draining, weight 1, 0 in flight\n");
    edge.get("/").expect_body("b");
    let table = says(&edge, &["list", "app"]);
    let last = table.lines().last().expect("a line");
    assert_eq!(last, "app differs from the configuration: added b1; changed b0");
    let undrained = says(&edge, &["undrain", "app", "b0"]);
    assert_eq!(undrained, "no longer draining: app b0: up, weight 1, 0 in flight\n");
    let reset = says(&edge, &["reset", "app", "b0"]);
    assert_eq!(reset, "circuit breaker reset: app b0: up, weight 1, 0 in flight\n");
    let checked = says(&edge, &["check", "app", "b1"]);
    assert!(
        checked.starts_with("app b1: passed in ") && checked.ends_with("healthy\n"),
        "{checked}"
    );
    assert_eq!(says(&edge, &["check", "app"]).lines().count(), 2);
    let at = format!("http://{}", c.address);
    let set = says(&edge, &["set", "app", "b1", "--address", &at]);
    assert_eq!(set, "changed: app b1: up, weight 2, 0 in flight\n");
    assert_eq!(says(&edge, &["remove", "app", "b0"]), "removed: app b0\n");
    edge.get("/").expect_body("c");
    assert_eq!(ids(&edge), ["b1"]);
    let json = says(&edge, &["list", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&json).expect("it is JSON");
    assert_eq!(json["upstreams"][0]["backends"][0]["weight"], 2);
}

#[test]
fn how_a_backend_is_spoken_to_is_told_with_files_that_begin_here() {
    let authority = Authority::new();
    let secure =
        Origin::script().otherwise(|_| ok("secure")).start_tls(authority.server(&["in.test"], &[]));
    let edge = before(&[&secure], "    retry: off\n");
    authority.write(edge.folder().path());
    edge.get("/").expect_status(502);
    says(&edge, &["set", "app", "b0", "--ca", "ca.pem", "--server-name", "in.test"]);
    edge.get("/").expect_body("secure");
    says(&edge, &["set", "app", "b0", "--tls", "on"]);
    edge.get("/").expect_status(502);
    says(&edge, &["set", "app", "b0", "--tls", "upstream"]);
    assert!(says(&edge, &["list", "app"]).lines().count() == 2, "nothing differs any more");
    let at = secure.address.to_string().replace("127.0.0.1", "localhost");
    let tls = ["--ca", "ca.pem", "--server-name", "in.test"];
    says(&edge, &[&["add", "app", &at, "--id", "c"], &tls[..]].concat());
    says(&edge, &["remove", "app", "b0"]);
    edge.get("/").expect_body("secure");
}

#[test]
fn what_makes_no_sense_is_told() {
    let origin = Origin::always(ok("a"));
    let edge = before(&[&origin], "");
    for (arguments, code, part) in [
        (&["list"][..], 64, "which process is meant"),
        (&["list", "-c", "edge.yaml", "--port", "3000"], 64, "cannot be used with"),
        (&["set", "-c", "edge.yaml", "app", "b0"], 64, "--weight"),
        (&["set", "-c", "edge.yaml", "app", "b0", "--weight", "0"], 64, "from 1 to 1000"),
        (&["set", "-c", "edge.yaml", "app", "b0", "--address", "nowhere"], 64, "add the port"),
        (
            &["set", "-c", "edge.yaml", "app", "b0", "--tls", "off", "--ca", "a"],
            64,
            "cannot be used with",
        ),
        (&["add", "-c", "edge.yaml", "app", "nowhere"], 64, "add the port"),
        (&["drain", "-c", "edge.yaml", "app", "b9"], 1, "no backend \"b9\""),
        (&["remove", "-c", "edge.yaml", "app", "b0"], 1, "the only backend"),
        (&["list", "--port", "3999"], 1, "no running process answers"),
    ] {
        let said = run(&edge, arguments);
        assert_eq!(said.code, Some(code), "{arguments:?}: {}{}", said.out, said.err);
        assert!(said.err.contains(part), "no {part:?} in: {}", said.err);
    }
    let help = run(&edge, &["--help"]).out;
    assert!(help.contains("edgeproxy upstreams add -c conf/edge.yaml app 10.0.0.3:8080"), "{help}");
}
