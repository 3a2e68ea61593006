//! How a reload is asked for, and what is said about it.

use std::fs;
use std::os::unix::fs::symlink;

use nix::sys::signal::Signal;

use super::json;
use super::saying;
use crate::harness::Edge;
use crate::harness::Origin;
use crate::harness::edge::simple;
use crate::harness::ok;
use crate::process::daemon::eventually;
use crate::process::outcome;

const RESULT: &str = "edgeproxy_config_reloads_total";
const SUCCESSFUL: &str = "edgeproxy_config_last_reload_successful";

#[track_caller]
fn expect_soon(edge: &Edge, body: &str) {
    eventually("another configuration is in use", || (edge.get("/").text() == body).then_some(()));
}

#[test]
fn a_signal_puts_the_file_to_use() {
    let edge = Edge::with(&saying("one"));
    edge.get("/").expect_body("one");
    edge.write(&saying("two")).signal(Signal::SIGHUP);
    expect_soon(&edge, "two");
    edge.wait_for_log("configuration reloaded");
    let line = edge.wait_for_log("routes changed: all");
    assert!(line.contains("way=signal"), "{line}");
}

#[test]
fn the_admin_listener_answers_with_what_changed() {
    let edge = Edge::with(&saying("one"));
    edge.write(&saying("two").replace(
        "routes: [",
        "routes: [{name: new, match: {path: /new}, respond: {status: 204}}, ",
    ));
    let answer = edge.reload();
    let said = json(answer.expect_status(200));
    assert_eq!(said["summary"], "routes added: new; routes changed: all");
    assert_eq!(said["changes"]["routes"]["added"], serde_json::json!(["new"]));
    edge.get("/").expect_body("two");
    edge.get("/new").expect_status(204);
    assert_eq!(
        edge.metric("edgeproxy_config_changes_total{change=\"changed\",what=\"route\"}"),
        1.0
    );
    assert_eq!(edge.metric("edgeproxy_config_changes_total{change=\"added\",what=\"route\"}"), 1.0);

    let said = json(edge.reload().expect_status(200));
    assert_eq!(said["summary"], "nothing changed");
    assert_eq!(edge.metric(&format!("{RESULT}{{result=\"reloaded\"}}")), 1.0);
    assert_eq!(edge.metric(&format!("{RESULT}{{result=\"unchanged\"}}")), 1.0);
    edge.admin("GET", "/v1/reload").expect_status(405);
}

#[test]
fn the_command_says_how_it_went() {
    let edge = Edge::with(&saying("one"));
    let reload = || outcome(edge.folder(), &["reload", "-c", "edge.yaml"]);
    edge.write(&saying("two"));
    assert_eq!(reload(), (Some(0), String::new()));
    edge.get("/").expect_body("two");

    edge.write(&saying("three").replace("respond", "repsond"));
    let (code, said) = reload();
    assert_eq!(code, Some(78));
    assert!(said.contains("unknown key \"repsond\"") && said.contains("respond"), "{said}");
    edge.write(&saying("three").replace("listeners", "cache: {memory: 99MiB}\nlisteners"));
    let (code, said) = reload();
    assert_eq!(code, Some(1));
    assert!(said.contains("cache.memory: start a new process with -u"), "{said}");
    edge.get("/").expect_body("two");
    drop(edge);
}

#[test]
fn a_file_that_is_watched_is_read_when_it_changes_however_that_is_done() {
    let watched = |text: &str| {
        saying(text)
            + "process: {threads: 2, state_dir: $DIR/state, upgrade_socket: $DIR/upgrade.sock, watch: true}\n"
    };
    let edge = Edge::with(&watched("one"));
    edge.write(&watched("two"));
    expect_soon(&edge, "two");
    let line = edge.wait_for_log("configuration reloaded");
    assert!(line.contains("way=file"), "{line}");

    // As editors do it, and as orchestrators do it.
    let file = edge.folder().path().join("edge.yaml");
    let [other, behind] = ["other.yaml", "behind.yaml"].map(|name| edge.folder().path().join(name));
    let text = fs::read_to_string(&file).expect("it is there");
    fs::write(&other, text.replace("two", "three")).expect("the folder can be written to");
    fs::rename(&other, &file).expect("the folder can be written to");
    expect_soon(&edge, "three");
    fs::write(&behind, text.replace("two", "four")).expect("the folder can be written to");
    symlink(&behind, &other).expect("the folder can be written to");
    fs::rename(&other, &file).expect("the folder can be written to");
    expect_soon(&edge, "four");
    fs::write(&behind, text.replace("two", "five")).expect("the folder can be written to");
    expect_soon(&edge, "five");

    // One that is wrong is told once.
    fs::write(&behind, "nonsense").expect("the folder can be written to");
    edge.wait_for_metric(&format!("{RESULT}{{result=\"refused\"}}"), 1.0);
    fs::write(&behind, text.replace("two", "six").replace("watch: true", "watch: false"))
        .expect("the folder can be written to");
    expect_soon(&edge, "six");
    assert_eq!(edge.metric(&format!("{RESULT}{{result=\"refused\"}}")), 1.0);
}

#[test]
fn the_files_that_it_names_are_watched_with_it() {
    let origin = Origin::always(ok("hello"));
    let folder = std::sync::Arc::new(tempfile::tempdir().expect("a folder can be made"));
    let token = folder.path().join("token");
    fs::write(&token, "first").expect("the folder can be written to");
    let yaml = simple(
        &origin,
        "process: {threads: 2, state_dir: $DIR/state, upgrade_socket: $DIR/upgrade.sock, watch: true}\n",
    );
    let yaml = yaml.replace(
        "upstream: origin}",
        "upstream: origin, headers: {request: {set: {x-token: {value_file: token}}}}}",
    );
    let edge = Edge::in_folder(folder, &yaml, &[]);
    let sent = || {
        edge.get("/").expect_status(200);
        let seen = origin.seen();
        seen.last().and_then(|seen| seen.value("x-token").map(str::to_owned))
    };
    assert_eq!(sent().as_deref(), Some("first"));
    fs::write(&token, "second").expect("the folder can be written to");
    eventually("the other token is sent", || (sent().as_deref() == Some("second")).then_some(()));
}

#[test]
fn a_broken_file_changes_nothing_and_says_so_as_check_does() {
    let edge = Edge::with(&saying("one"));
    assert_eq!(edge.metric(SUCCESSFUL), 1.0);
    edge.write(&saying("two").replace("status: 200", "status: 2000"));
    let (code, said) = outcome(edge.folder(), &["check", "-c", "edge.yaml"]);
    assert_eq!(code, Some(78));
    let answer = edge.reload();
    let problems = json(answer.expect_status(422));
    assert_eq!(problems["problems"][0]["path"], "routes[0].respond.status");
    let told = problems["error"].as_str().expect("a text");
    let edge_yaml = edge.folder().path().join("edge.yaml").display().to_string();
    assert_eq!(told.replace(&edge_yaml, "edge.yaml"), said.trim_end());
    edge.get("/").expect_body("one");
    assert_eq!(edge.metric(SUCCESSFUL), 0.0);
    assert_eq!(edge.metric(&format!("{RESULT}{{result=\"refused\"}}")), 1.0);
    edge.wait_for_log("the configuration is not reloaded, the one in use stays");
    let first = said.lines().next().expect("it says something");
    edge.wait_for_log(first);

    edge.write(&saying("three")).reload().expect_status(200);
    edge.get("/").expect_body("three");
    assert_eq!(edge.metric(SUCCESSFUL), 1.0);
}

#[test]
fn what_needs_another_process_is_told_before_anything_changes() {
    let edge = Edge::with(&saying("one"));
    let here = edge.folder().path().display().to_string();
    let process = |more: &str| {
        saying("two")
            + &format!(
                "process: {{state_dir: {here}/state, upgrade_socket: {here}/upgrade.sock, {more}}}\n"
            )
    };
    for (more, key) in [
        ("threads: 3", "process.threads"),
        ("threads: 2, pid_file: /elsewhere", "process.pid_file"),
        ("threads: 2, log_file: /elsewhere", "process.log_file"),
    ] {
        edge.write(&process(more));
        let said = json(edge.reload().expect_status(409));
        assert_eq!(said["beyond"][0]["key"], key, "{said}");
        assert_eq!(said["beyond"][0]["needs"], "upgrade", "{said}");
        edge.get("/").expect_body("one");
    }
    edge.write(&process("threads: 2")).reload().expect_status(200);
    edge.get("/").expect_body("two");
}

#[test]
fn the_level_of_diagnostics_and_the_access_log_change_as_well() {
    let edge = Edge::with(&(saying("one") + "access_log: {fields: [path]}\n"));
    edge.get("/first").expect_status(200);
    edge.wait_for_access("{\"path\":\"/first\"}");
    edge.write(&(saying("one") + "log: {level: \"off\"}\naccess_log: {format: text, fields: [path, status], queue: 10}\n"));
    let said = json(edge.reload().expect_status(200));
    assert_eq!(said["changes"]["settings"], serde_json::json!(["access_log", "log.level"]));
    edge.get("/second").expect_status(200);
    edge.wait_for_access("path=/second status=200");
    edge.write("nonsense").reload().expect_status(422);
    edge.write(
        &(saying("one") + "access_log: {to: $DIR/access.log, format: text, fields: [path]}\n"),
    );
    edge.reload().expect_status(200);
    edge.get("/third").expect_status(200);
    let file = edge.folder().path().join("access.log");
    eventually("the line is in the file", || {
        let text = fs::read_to_string(&file).unwrap_or_default();
        (text == "path=/third\n").then_some(())
    });
    edge.wait_for_log("settings changed: access_log, log.level");
    let told = edge.log().iter().any(|line| line.contains("not reloaded"));
    assert!(!told, "nothing was to be told: {:#?}", edge.log());
    // A file that cannot be opened is told, and lines go on going where they went.
    edge.write(&(saying("one") + "access_log: {to: $DIR/nowhere/access.log}\n"));
    edge.reload().expect_status(409);
    edge.get("/fourth").expect_status(200);
    eventually("the line is in the file", || {
        let text = fs::read_to_string(&file).unwrap_or_default();
        (text == "path=/third\npath=/fourth\n").then_some(())
    });
    edge.wait_for_log("the access log cannot be opened");
}
