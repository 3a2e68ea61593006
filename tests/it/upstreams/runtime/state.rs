//! Changes that the next start knows of.

use std::fs;
use std::io::Read;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use serde_json::Value;
use serde_json::json;
use tempfile::TempDir;

use super::act;
use super::add;
use super::add_origin;
use super::app;
use super::ids;
use crate::harness::Edge;
use crate::harness::Origin;
use crate::harness::edge::binary;
use crate::harness::edge::write_config;
use crate::harness::ok;
use crate::process::daemon::eventually;

/// Two origins, and the file to keep changes in.
pub(super) fn config(origins: &[&Origin]) -> String {
    let addresses: Vec<String> = (0..)
        .zip(origins)
        .map(|(n, one)| format!("{{id: b{n}, address: \"{}\"}}", one.address))
        .collect();
    format!(
        "listeners: [{{name: http, address: \"127.0.0.1:0\"}}]\n\
         upstreams: {{app: {{addresses: [{}]}}}}\nroutes: [{{upstream: app}}]\n\
         admin: {{socket: $DIR/admin.sock, state_file: below/state.json}}\n",
        addresses.join(", ")
    )
}

pub(super) fn folder() -> Arc<TempDir> {
    Arc::new(tempfile::tempdir().expect("a folder can be made"))
}

#[test]
fn the_next_start_has_what_was_changed_and_says_what_differs() {
    let [a, b, c] = ["a", "b", "c"].map(|name| Origin::always(ok(name)));
    let folder = folder();
    let edge = Edge::in_folder(Arc::clone(&folder), &config(&[&a, &b]), &[]);
    let file = folder.path().join("below/state.json");
    assert!(!file.exists(), "nothing was changed");
    assert_eq!(edge.metric("edgeproxy_upstream_drift{"), 0.0);
    add_origin(&edge, "c", &c);
    act(&edge, "PATCH", "c", "{\"weight\": 4}").expect_status(200);
    act(&edge, "POST", "b1/drain", "").expect_status(200);
    act(&edge, "DELETE", "b0", "").expect_status(200);
    let drift = json!({"added": ["c"], "changed": ["b1"], "removed": ["b0"]});
    assert_eq!(app(&edge)["drift"], drift);
    assert_eq!(edge.metric("edgeproxy_upstream_drift{"), 3.0);
    let before = app(&edge);
    let mode = fs::metadata(&file).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    drop(edge);

    let edge = Edge::in_folder(Arc::clone(&folder), &config(&[&a, &b]), &[]);
    let line = edge.wait_for_log("differ from the configuration");
    for part in ["upstream=app", "added=1", "changed=1", "removed=1"] {
        assert!(line.contains(part), "no {part} in: {line}");
    }
    let after = app(&edge);
    assert_eq!(after["drift"], drift);
    for key in ["id", "address", "weight", "active", "backup", "draining", "tls"] {
        let of = |view: &Value| -> Vec<Value> {
            view["backends"].as_array().expect("a list").iter().map(|b| b[key].clone()).collect()
        };
        assert_eq!(of(&after), of(&before), "{key}");
    }
    edge.get("/").expect_body("c");
    assert_eq!(edge.metric("edgeproxy_upstream_drift{"), 3.0);

    // Taken back, nothing differs any more.
    add_origin(&edge, "b0", &a);
    act(&edge, "POST", "b1/undrain", "").expect_status(200);
    act(&edge, "DELETE", "c", "").expect_status(200);
    assert_eq!(app(&edge)["drift"], Value::Null);
    drop(edge);
    let edge = Edge::in_folder(Arc::clone(&folder), &config(&[&a, &b]), &[]);
    assert_eq!(ids(&edge), ["b0", "b1"]);
    assert!(!edge.log().iter().any(|line| line.contains("differ from")), "{:?}", edge.log());
}

#[test]
fn without_a_file_changes_end_with_the_process() {
    let [a, b] = ["a", "b"].map(|name| Origin::always(ok(name)));
    let folder = folder();
    let yaml = config(&[&a]).replace("below/state.json", "off");
    let edge = Edge::in_folder(Arc::clone(&folder), &yaml, &[]);
    add_origin(&edge, "b", &b);
    drop(edge);
    let edge = Edge::in_folder(folder, &yaml, &[]);
    assert_eq!(ids(&edge), ["b0"]);
}

#[test]
fn a_damaged_file_is_told_and_kept_and_the_configuration_counts() {
    let [a, b] = ["a", "b"].map(|name| Origin::always(ok(name)));
    let folder = folder();
    fs::create_dir(folder.path().join("below")).expect("it can be made");
    let file = folder.path().join("below/state.json");
    fs::write(&file, "{\"version\": 1, \"upstreams\": {\"ap").expect("it can be written");
    let edge = Edge::in_folder(Arc::clone(&folder), &config(&[&a]), &[]);
    let line = edge.wait_for_log("cannot be used");
    assert!(line.contains("ERROR") && line.contains("state.json"), "{line}");
    edge.wait_for_log("kept as");
    assert_eq!(ids(&edge), ["b0"]);
    let kept = fs::read_to_string(folder.path().join("below/state.json.unused-1"));
    assert!(kept.expect("it is there").ends_with("{\"ap"));
    // It is written anew.
    add_origin(&edge, "b", &b);
    drop(edge);
    assert_eq!(ids(&Edge::in_folder(folder, &config(&[&a]), &[])), ["b0", "b"]);
}

#[test]
fn what_goes_with_an_upstream_is_told_and_kept_aside() {
    let [a, b] = ["a", "b"].map(|name| Origin::always(ok(name)));
    let folder = folder();
    let yaml = config(&[&a]);
    let edge = Edge::in_folder(Arc::clone(&folder), &yaml, &[]);
    add_origin(&edge, "b", &b);
    edge.write(&yaml.replace("app", "other"));
    edge.reload().expect_status(200);
    let line = edge.wait_for_log("does not have this upstream any more");
    for part in ["WARN", "upstream=app", "added=1", "changed=0", "removed=0"] {
        assert!(line.contains(part), "no {part} in: {line}");
    }
    let kept = fs::read_to_string(folder.path().join("below/state.json.unused-1"));
    assert!(kept.expect("it is there").contains(&b.address.to_string()));
    // Nothing was changed of this one.
    edge.write(&yaml);
    edge.reload().expect_status(200);
    assert!(!folder.path().join("below/state.json.unused-2").exists());
}

#[test]
fn a_configuration_that_caught_up_counts() {
    let [a, b] = ["a", "b"].map(|name| Origin::always(ok(name)));
    let folder = folder();
    let edge = Edge::in_folder(Arc::clone(&folder), &config(&[&a]), &[]);
    let body = format!("{{\"id\": \"b1\", \"address\": \"{}\", \"weight\": 5}}", b.address);
    add(&edge, &body).expect_status(201);
    drop(edge);
    let edge = Edge::in_folder(Arc::clone(&folder), &config(&[&a, &b]), &[]);
    edge.wait_for_log("is obsolete");
    assert_eq!(app(&edge)["drift"], Value::Null);
    assert_eq!(app(&edge)["backends"][1]["weight"], 1);
    drop(edge);
    let edge = Edge::in_folder(folder, &config(&[&a]), &[]);
    assert_eq!(ids(&edge), ["b0"]);
}

#[test]
fn what_cannot_be_kept_is_told_although_it_is_done() {
    let [a, b] = ["a", "b"].map(|name| Origin::always(ok(name)));
    let folder = folder();
    let edge = Edge::in_folder(Arc::clone(&folder), &config(&[&a]), &[]);
    // Where the file belongs, a folder came.
    fs::create_dir_all(folder.path().join("below/state.json")).expect("it can be made");
    let body = format!("{{\"id\": \"b\", \"address\": \"{}\"}}", b.address);
    let reply = add(&edge, &body);
    assert!(reply.expect_status(500).text().contains("the next start will not know"), "{reply:?}");
    edge.wait_for_log("cannot be written");
    assert_eq!(ids(&edge), ["b0", "b"]);
    // One that is a name is looked up all the same.
    let body = format!("{{\"id\": \"n\", \"address\": \"localhost:{}\"}}", b.address.port());
    add(&edge, &body).expect_status(500);
    eventually("it has an address", || {
        let addresses = app(&edge)["backends"][2]["addresses"].as_array()?.len();
        (addresses > 0).then_some(())
    });
}

#[test]
fn nothing_is_changed_while_another_process_takes_over_that_would_not_know_of_it() {
    let [a, b] = ["a", "b"].map(|name| Origin::always(ok(name)));
    let folder = folder();
    let more = "process: {upgrade_socket: $DIR/upgrade.sock}\n";
    let edge = Edge::in_folder(Arc::clone(&folder), &(config(&[&a, &b]) + more), &[]);
    let change = || act(&edge, "PATCH", "b0", "{\"weight\": 4}");
    let mut next = UnixStream::connect(folder.path().join("upgrade.sock")).expect("it listens");
    // It wants the sockets, and has them.
    next.write_all(b"H").unwrap();
    assert!(next.read(&mut [0; 1024]).unwrap() > 0);
    assert!(change().expect_status(409).text().contains("another process is taking over"));
    act(&edge, "DELETE", "b1", "").expect_status(409);
    assert_eq!(app(&edge)["drift"], Value::Null);
    // It dies over it: this one goes on.
    drop(next);
    eventually("it is changed", || (change().status == 200).then_some(()));
}

#[test]
fn where_nothing_can_be_written_the_check_says_so() {
    let origin = Origin::always(ok("a"));
    for (file, says) in [
        ("edge.yaml/state.json", "nothing can be written in"),
        (".", "is a folder"),
        ("\"\"", "the path is empty"),
    ] {
        let folder = folder();
        let path = write_config(&folder, &config(&[&origin]).replace("below/state.json", file));
        let mut command = std::process::Command::new(binary());
        command.arg("check").arg("-c").arg(path).env("NO_COLOR", "1");
        let output = command.output().expect("the binary runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(78), "{file}: {said}");
        assert!(said.contains(says) && said.contains("admin.state_file"), "{file}: {said}");
    }
}
