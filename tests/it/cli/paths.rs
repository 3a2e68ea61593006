//! Paths that cannot work are told before anything starts.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use nix::unistd::Uid;

use super::Outcome;
use super::folder;
use super::run_in;
use crate::harness::edge::binary;

/// A configuration with these lines.
fn written(folder: &Path, more: &str) {
    let yaml = format!(
        "listeners: [{{address: \"127.0.0.1:0\"}}]\nroutes: [{{respond: {{status: 204}}}}]\n{more}\n"
    );
    fs::write(folder.join("edge.yaml"), yaml).expect("the folder is ours");
}

/// What `-t` says of a configuration with these lines.
fn tested(more: &str) -> Outcome {
    let folder = folder();
    fs::write(folder.path().join("a-file"), "").expect("the folder is ours");
    fs::create_dir(folder.path().join("a-folder")).expect("the folder is ours");
    std::os::unix::fs::symlink("edge.yaml", folder.path().join("a-link")).expect("a link");
    written(folder.path(), more);
    run_in(folder.path(), &["-c", "edge.yaml", "-t"])
}

#[test]
fn a_path_that_stands_for_two_things_is_an_error() {
    for (more, place) in [
        ("process: {pid_file: x, log_file: x}", "process.log_file"),
        ("process: {pid_file: x, upgrade_socket: ./a/../x}", "process.upgrade_socket"),
        ("process: {state_dir: s, log_file: s/edgeproxy.pid}", "process.log_file"),
        ("process: {state_dir: s, pid_file: s}", "process.pid_file"),
        ("process: {upgrade_socket: x}\nadmin: {socket: x}", "admin.socket"),
        ("process: {pid_file: x}\naccess_log: {to: ./x}", "access_log.to"),
        ("process: {pid_file: x}\nadmin: {state_file: x}", "admin.state_file"),
        ("process: {pid_file: a-file}\nadmin: {token_file: a-file}", "process.pid_file"),
        ("process: {log_file: edge.yaml}", "process.log_file"),
        ("process: {pid_file: ./edge.yaml}", "process.pid_file"),
        ("access_log: {to: a-folder/../edge.yaml}", "access_log.to"),
        ("admin: {state_file: edge.yaml}", "admin.state_file"),
        ("access_log: {to: ./a-link}", "access_log.to"),
    ] {
        tested(more).failed(78, &[place, "error: "]);
    }
}

#[test]
fn two_logs_in_one_file_are_a_warning_and_two_on_one_device_are_not() {
    let outcome = tested("process: {log_file: x.log}\naccess_log: {to: ./x.log}");
    assert!(outcome.err.contains("warning: "), "{}", outcome.err);
    assert!(outcome.err.contains("the lines of both are mixed"), "{}", outcome.err);
    outcome.succeeded();
    let outcome = tested("process: {log_file: /dev/null}\naccess_log: {to: /dev/null}");
    assert!(!outcome.err.contains("mixed"), "{}", outcome.err);
    outcome.succeeded();
}

#[test]
fn a_path_of_which_nothing_can_be_made_is_an_error() {
    let long = "x".repeat(120);
    for (more, part) in [
        ("process: {working_directory: nowhere}", "nowhere is not there"),
        ("process: {working_directory: a-file}", "a-file is no folder"),
        ("process: {pid_file: a-folder}", "a-folder is a folder"),
        ("process: {log_file: a-folder}", "a-folder is a folder"),
        ("process: {log_file: a-file/x}", "a-file is not a folder"),
        ("process: {state_dir: a-file}", "a-file is not a folder"),
        ("process: {state_dir: a-file/x}", "a-file is not a folder"),
        ("process: {upgrade_socket: a-file}", "a-file is there, and is no socket"),
        ("admin: {socket: a-folder}", "a-folder is there, and is no socket"),
        ("access_log: {to: ./a-folder}", "./a-folder is a folder"),
        ("access_log: {to: a-file/x}", "a-file is not a folder"),
        (&format!("process: {{upgrade_socket: /{long}}}"), "107 bytes"),
        (&format!("process: {{state_dir: /{long}}}"), "107 bytes"),
        (&format!("admin: {{socket: /{long}}}"), "107 bytes"),
        (&format!("upstreams: {{a: {{addresses: [\"unix:/{long}\"]}}}}"), "107 bytes"),
    ] {
        tested(more).failed(78, &[part, "error: "]);
    }
}

#[test]
fn paths_that_can_be_made_are_all_right() {
    let folder = folder();
    written(
        folder.path(),
        "process: {state_dir: a/b, pid_file: c/pid, log_file: d/log, upgrade_socket: e/up, \
         working_directory: .}\nadmin: {socket: f/admin, state_file: g/state}\naccess_log: {to: h/log}",
    );
    let outcome = run_in(folder.path(), &["-c", "edge.yaml", "-t"]);
    assert_eq!(outcome.err, "");
    outcome.succeeded();
    assert_eq!(fs::read_dir(folder.path()).expect("it is there").count(), 1, "only looked at");
}

#[test]
fn what_only_this_user_may_not_do_is_a_warning() {
    let folder = folder();
    let shut = folder.path().join("shut");
    fs::create_dir(&shut).expect("the folder is ours");
    fs::set_permissions(&shut, fs::Permissions::from_mode(0o555)).expect("the folder is ours");
    let open = fs::Permissions::from_mode(0o755);
    fs::set_permissions(folder.path(), open).expect("the folder is ours");
    written(
        folder.path(),
        "process: {user: root, state_dir: shut/a, pid_file: shut/pid}\naccess_log: {to: shut/log}",
    );
    let mut command = Command::new(binary());
    command.args(["-c", "edge.yaml", "-t"]).current_dir(folder.path()).env("NO_COLOR", "1");
    if Uid::effective().is_root() {
        // Root may write anywhere; nobody is anybody else.
        command.uid(65534).gid(65534);
    }
    let output = command.output().expect("the binary runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    for part in [
        "edge.yaml:3:34  process.state_dir",
        "process.pid_file",
        "access_log.to",
        "you cannot write to ",
        "only root can become this user",
        "4 warnings",
    ] {
        assert!(said.contains(part), "no {part:?} in: {said}");
    }
}

#[test]
fn a_file_is_not_removed_to_listen_where_it_is() {
    let folder = folder();
    written(folder.path(), "process: {state_dir: s}\nadmin: {socket: s/admin}");
    fs::create_dir(folder.path().join("s")).expect("the folder is ours");
    // It comes after the check, as it were: a link to it is no file yet.
    std::os::unix::fs::symlink("../precious", folder.path().join("s/admin")).expect("a link");
    let outcome = run_in(folder.path(), &["-c", "edge.yaml"]);
    outcome.failed(1, &["s/admin", "is no socket"]);
    let link = fs::read_link(folder.path().join("s/admin")).expect("it is still there");
    assert_eq!(link, Path::new("../precious"));
}
