//! Paths that cannot work are told before anything starts.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use nix::sys::stat::Mode;
use nix::unistd::Uid;
use nix::unistd::mkfifo;

use super::Outcome;
use super::folder;
use super::run_in;
use crate::harness::Authority;
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
fn what_is_written_is_not_what_is_read_by_another_name() {
    let authority = Authority::new();
    for (more, parts) in [
        ("admin: {state_file: d2/a.key}", ["admin.state_file", "same file as a.key"]),
        ("admin: {state_file: d2/edge.yaml}", ["admin.state_file", "edge.yaml"]),
        ("admin: {token_file: token, state_file: d2/token}", ["admin.state_file", "as token"]),
        ("admin: {state_file: hard}", ["admin.state_file", "same file as a.key"]),
        ("admin: {state_file: d2/x}\nprocess: {pid_file: x}", ["process.pid_file", "as well"]),
        ("admin: {state_file: d2/state/edgeproxy.pid}", ["admin.state_file", "as well"]),
        ("access_log: {to: state/ca/root.key}", ["access_log.to", "is in"]),
        ("process: {state_dir: state, log_file: d2/state/certs/x.pem}", ["log_file", "is in"]),
        ("admin: {state_file: state/acme/../ca/root.key}", ["admin.state_file", "is in"]),
        ("process: {state_dir: state, log_file: root-key}", ["log_file", "a key or a cert"]),
        ("acme: {root: token}\nadmin: {state_file: token}", ["admin.state_file", "read by"]),
    ] {
        let folder = folder();
        let at = |name: &str| folder.path().join(name);
        let more = match more.contains("process: {") {
            true => more.to_owned(),
            false => format!("{more}\nprocess: {{state_dir: state}}"),
        };
        let yaml = format!(
            "listeners: [{{address: \"127.0.0.1:0\", tls: {{certificates: [{{hosts: [a.test], \
             certificate: a.pem, key: a.key}}]}}}}]\nroutes: [{{respond: {{status: 204}}}}]\n{more}\n"
        );
        fs::write(at("edge.yaml"), yaml).expect("the folder is ours");
        authority.write_leaf(folder.path(), "a", &["a.test"]);
        fs::write(at("token"), "a token").expect("the folder is ours");
        fs::create_dir_all(at("state/ca")).expect("the folder is ours");
        fs::create_dir_all(at("state/certs")).expect("the folder is ours");
        fs::write(at("state/ca/root.key"), "a key").expect("the folder is ours");
        fs::hard_link(at("state/ca/root.key"), at("root-key")).expect("a link");
        fs::hard_link(at("a.key"), at("hard")).expect("a link");
        std::os::unix::fs::symlink(".", at("d2")).expect("a link");
        let outcome = run_in(folder.path(), &["-c", "edge.yaml", "-t"]);
        outcome.failed(78, &[parts[0], parts[1], "error: "]);
    }
}

#[test]
fn what_is_to_be_read_and_is_no_file_is_not_waited_for() {
    for section in [
        "listeners: [{address: \"127.0.0.1:0\", tls: {certificates: [{hosts: [a.test], certificate: X, key: X}]}}]",
        "listeners: [{address: \"127.0.0.1:0\", tls: {certificates: [{hosts: [a.test], internal: true}], \
         client_auth: {ca: X}}}]",
        "listeners: [{address: \"127.0.0.1:0\", tls: {certificates: [{hosts: [a.test], internal: true}], \
         client_auth: {ca: ca.pem, crl: [X]}}}]",
        "listeners: [{address: \"127.0.0.1:0\", tls: {certificates: [{hosts: [a.test], internal: true}], \
         tickets: {file: X}}}]",
        "listeners: [{address: \"127.0.0.1:0\"}]\nacme: {root: X}",
        "listeners: [{address: \"127.0.0.1:0\"}]\nupstreams: {a: {addresses: [\"https://a\"], tls: {ca: X}}}",
        "listeners: [{address: \"127.0.0.1:0\"}]\nupstreams: {a: {addresses: [\"https://a\"], tls: {certificate: X, \
         key: X}}}",
    ] {
        let folder = folder();
        let at = |name: &str| folder.path().join(name);
        Authority::new().write(folder.path());
        mkfifo(&at("pipe"), Mode::S_IRWXU).expect("the folder is ours");
        let large = fs::File::create(at("large")).expect("the folder is ours");
        large.set_len((16 << 20) + 1).expect("the folder is ours");
        fs::set_permissions(at("large"), fs::Permissions::from_mode(0o600)).expect("it is ours");
        for (name, why) in [
            ("pipe", "it is not a file"),
            ("/dev/zero", "it is not a file"),
            ("large", "larger than 16 MiB"),
        ] {
            let yaml = format!(
                "{}\nroutes: [{{respond: {{status: 204}}}}]\nprocess: {{state_dir: state}}\n",
                section.replace('X', name)
            );
            fs::write(at("edge.yaml"), yaml).expect("the folder is ours");
            run_in(folder.path(), &["-c", "edge.yaml", "-t"]).failed(78, &[name, why]);
        }
    }
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
