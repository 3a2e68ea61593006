//! `edgeproxy upgrade`: the running process starts the one that follows it.

use std::fs;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Output;
use std::sync::Arc;
use std::thread;

use nix::sys::signal::Signal;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use tempfile::TempDir;

use super::Gate;
use super::at;
use super::daemon::Daemon;
use super::daemon::pid_in;
use super::daemon::until_gone;
use super::edgeproxy;
use super::free_address;
use super::gated;
use crate::harness::Edge;
use crate::harness::Origin;
use crate::harness::Wire;
use crate::harness::clients::s_client;
use crate::harness::edge::binary;
use crate::harness::edge::write_config;
use crate::harness::ok;

/// Runs `edgeproxy upgrade` with these further arguments; its exit code and all that it said.
pub(super) fn upgrade(folder: &TempDir, arguments: &[&str]) -> (Option<i32>, String) {
    let all = [&["upgrade", "-c", "edge.yaml"], arguments].concat();
    let Output { status, stdout, stderr } = edgeproxy(folder, &all).output().expect("it runs");
    let text = [stdout, stderr].concat();
    (status.code(), String::from_utf8_lossy(&text).into_owned())
}

/// A process that is not our child; it ends with the test.
pub(super) struct Follower(pub(super) Pid);

impl Follower {
    /// That of which an upgrade says that it serves.
    pub(super) fn of((code, said): (Option<i32>, String)) -> Self {
        assert_eq!(code, Some(0), "{said}");
        let pid = said.strip_prefix("Process ").and_then(|rest| rest.split(' ').next());
        Self(Pid::from_raw(
            pid.and_then(|pid| pid.parse().ok()).unwrap_or_else(|| panic!("{said}")),
        ))
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let _ = kill(self.0, Signal::SIGKILL);
    }
}

/// A program that does this instead of serving.
fn program(folder: &TempDir, does: &str) -> String {
    let path = folder.path().join("program");
    fs::write(&path, format!("#!/bin/sh\n{does}\n")).expect("it can be written");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("it is ours");
    path.display().to_string()
}

fn running(origin: &Origin) -> (Arc<TempDir>, SocketAddr, Edge) {
    let address = free_address();
    let folder = Arc::new(tempfile::tempdir().expect("a folder can be made"));
    let edge = Edge::in_folder(Arc::clone(&folder), &at(address, origin, ""), &[]);
    (folder, address, edge)
}

#[test]
fn a_process_in_the_foreground_is_followed_by_one_that_is_started_as_it_was() {
    let origin = Origin::always(ok("hello"));
    let (folder, address, mut old) = running(&origin);
    let mut kept = old.wire();
    kept.get("edge.test", "/", &[]).expect_status(200);
    let before = old.pid();

    let said = upgrade(&folder, &[]);
    assert!(said.1.contains(&format!("process {before} finishes")), "{}", said.1);
    let new = Follower::of(said);
    assert_ne!(new.0, before);
    let arguments = fs::read(format!("/proc/{}/cmdline", new.0)).expect("it runs");
    let arguments = String::from_utf8_lossy(&arguments).replace('\0', " ");
    assert!(arguments.contains("--successor -c "), "{arguments}");

    // Who has a connection to the old one is answered there, and sent on.
    old.wait_for_log("draining 1 connections");
    let last = kept.get("edge.test", "/", &[]);
    assert_eq!(last.expect_status(200).value("connection"), Some("close"));
    assert_eq!(old.wait().code(), Some(0));
    Wire::plain(address).get("edge.test", "/", &[]).expect_status(200);
    old.admin("GET", "/readyz").expect_status(200).expect_body("ready\n");

    // That one can be followed in its turn, by a program in another place.
    let copy = folder.path().join("other-edgeproxy");
    fs::copy(binary(), &copy).expect("it can be copied");
    let third = Follower::of(upgrade(&folder, &["--binary", "other-edgeproxy"]));
    until_gone(new.0);
    let exe = fs::read_link(format!("/proc/{}/exe", third.0)).expect("it runs");
    assert_eq!(exe, copy);
    Wire::plain(address).get("edge.test", "/", &[]).expect_status(200);
}

#[test]
fn a_daemon_is_followed_by_a_daemon_and_the_pid_file_says_so_at_once() {
    let origin = Origin::always(ok("hello"));
    let old = Daemon::start(|address| at(address, &origin, ""));
    let new = Follower::of(upgrade(&old.folder, &[]));
    assert_eq!(pid_in(&old.folder), new.0);
    until_gone(old.pid);
    old.get("/").expect_status(200);
    assert_eq!(pid_in(&old.folder), new.0);
    let session = nix::unistd::getsid(Some(new.0)).expect("it is there");
    assert_eq!(session, new.0);
    let cwd = fs::read_link(format!("/proc/{}/cwd", new.0)).expect("it is there");
    assert_eq!(cwd, PathBuf::from("/"));

    // Relative paths are meant as they were when the first one was started.
    let third = Follower::of(upgrade(&old.folder, &[]));
    until_gone(new.0);
    assert_eq!(pid_in(&old.folder), third.0);
    kill(third.0, Signal::SIGTERM).expect("it is there");
    until_gone(third.0);
    assert!(!old.state("edgeproxy.pid").exists() && !old.state("upgrade.sock").exists());
}

#[test]
fn a_new_process_that_does_not_come_to_serve_changes_nothing_and_says_why() {
    let origin = Origin::always(ok("hello"));
    let (folder, address, old) = running(&origin);
    let serves = || {
        Wire::plain(address).get("edge.test", "/", &[]).expect_status(200);
        old.admin("GET", "/readyz").expect_status(200);
    };
    let goes_on = format!("process {} goes on", old.pid());
    let fails = |arguments: &[&str], code: i32, why: &str| {
        let (ended, said) = upgrade(&folder, arguments);
        assert_eq!(ended, Some(code), "{said}");
        assert!(said.contains(why), "{said}");
        serves();
        said
    };
    fails(&["--binary", "none"], 64, "there is no such program");
    let crashes = program(&folder, "exit 3");
    let said = fails(&["--binary", &crashes], 3, "ended before it served (exit status: 3)");
    assert!(said.contains(&goes_on), "{said}");
    let hangs = program(&folder, "exec sleep 1000");
    let said = fails(&["--binary", &hangs, "--timeout", "200ms"], 1, "did not serve within 200ms");
    assert!(said.contains("--timeout"), "{said}");
    // A program that says nothing of use, and one that is none.
    let strange = program(&folder, "echo x; exec 0<&-; exec sleep 1000");
    fails(&["--binary", &strange], 1, "ended before it served (signal 9)");
    fs::write(folder.path().join("program"), "no program").expect("it can be written");
    fails(&["--binary", "program"], 1, "cannot be started");

    // It has the sockets when it fails.
    let yaml = fs::read_to_string(folder.path().join("edge.yaml")).expect("it is there");
    let taken = TcpListener::bind("127.0.0.1:0").expect("loopback can be listened on");
    let other = taken.local_addr().expect("a bound socket has an address");
    let more = format!("  - {{name: more, address: \"{other}\"}}\nupstreams:");
    write_config(&folder, &yaml.replace("upstreams:", &more));
    fails(&[], 1, &format!("cannot listen on {other}"));
    old.wait_for_log("did not start; going on");
    write_config(&folder, &yaml.replace("upstream: origin", "upstream: orgin"));
    fails(&[], 78, "unknown upstream");

    write_config(&folder, &yaml);
    let new = Follower::of(upgrade(&folder, &[]));
    until_gone(old.pid());
    assert_ne!(new.0, old.pid());
    Wire::plain(address).get("edge.test", "/", &[]).expect_status(200);
}

#[test]
fn sessions_go_on_at_the_next_process_and_the_one_after_it() {
    let (origin, address) = (Origin::always(ok("hello")), free_address());
    let folder = Arc::new(tempfile::tempdir().expect("a folder can be made"));
    let yaml = format!(
        "listeners:\n  - {{name: http, address: \"127.0.0.1:0\"}}\n  \
         - {{name: https, address: \"{address}\", tls: {{certificates: [{{hosts: [edge.test], internal: true}}]}}}}\n\
         upstreams: {{origin: {{addresses: [\"{}\"]}}}}\nroutes: [{{upstream: origin}}]\nprocess: {{state_dir: $DIR/state}}\n",
        origin.address
    );
    let mut old = Edge::in_folder(Arc::clone(&folder), &yaml, &[]);
    let root = old.root();
    let session =
        |version: &str| folder.path().join(format!("session{version}")).display().to_string();
    let visit = |version: &str, way: &str| {
        let said = [version, "-servername", "edge.test", way, &session(version)];
        let ask = "GET / HTTP/1.1\r\nHost: edge.test\r\nConnection: close\r\n\r\n";
        s_client(address, &root, &said, ask)
    };
    let versions = ["-tls1_2", "-tls1_3"];
    for version in versions {
        visit(version, "-sess_out").expect("New, TLSv1").expect("HTTP/1.1 200");
    }
    let mut new: Option<Follower> = None;
    for _ in 0..2 {
        let next = Follower::of(upgrade(&folder, &[]));
        match new.replace(next) {
            None => assert_eq!(old.wait().code(), Some(0)),
            Some(before) => until_gone(before.0),
        }
        for version in versions {
            visit(version, "-sess_in").expect("Reused, TLSv1").expect("HTTP/1.1 200");
        }
    }
}

#[test]
fn one_upgrade_at_a_time() {
    let origin = Origin::always(ok("hello"));
    let (folder, address, old) = running(&origin);
    let slow = program(&folder, "exec sleep 1000");
    let first = {
        let folder = Arc::clone(&folder);
        thread::spawn(move || upgrade(&folder, &["--binary", &slow, "--timeout", "2s"]))
    };
    old.wait_for_log("an upgrade:");
    let (code, said) = upgrade(&folder, &[]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("another upgrade is under way"), "{said}");
    let (code, said) = first.join().expect("it comes to an end");
    assert_eq!(code, Some(1), "{said}");
    Wire::plain(address).get("edge.test", "/", &[]).expect_status(200);
}

#[test]
fn what_a_program_that_was_given_up_has_started_ends_with_it() {
    let origin = Origin::always(ok("hello"));
    let (folder, address, _old) = running(&origin);
    let script = program(&folder, "sleep 1000 &\necho $! > started\nwait");
    let (code, said) = upgrade(&folder, &["--binary", &script, "--timeout", "1s"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("did not serve within 1s"), "{said}");
    let started = fs::read_to_string(folder.path().join("started")).expect("it was started");
    until_gone(Pid::from_raw(started.trim().parse().expect("a number")));
    Wire::plain(address).get("edge.test", "/", &[]).expect_status(200);
}

#[test]
fn a_program_that_says_that_it_serves_and_does_not_is_told_of_and_ended() {
    let origin = Origin::always(ok("hello"));
    let (folder, address, old) = running(&origin);
    // Its standard input is the socket on which that is said.
    let script = program(&folder, "printf R >&0\nexec sleep 1000");
    let (code, said) = upgrade(&folder, &["--binary", &script]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("served and did not take over"), "{said}");
    old.wait_for_log("has not taken over yet: it is given 9s more");
    Wire::plain(address).get("edge.test", "/", &[]).expect_status(200);
}

#[test]
fn what_the_old_process_has_begun_it_finishes() {
    let gate = Gate::default();
    let origin = gated(&gate);
    let (folder, _, mut old) = running(&origin);
    let mut wire = old.wire();
    wire.send("GET /slow HTTP/1.1\r\nHost: edge.test\r\n\r\n");
    origin.wait_for(1);
    let _new = Follower::of(upgrade(&folder, &[]));
    old.wait_for_log("draining 1 connections");
    gate.open();
    wire.reply().expect_status(200).expect_body("slow");
    assert_eq!(old.wait().code(), Some(0));
}

#[test]
fn without_a_running_process_it_says_so() {
    let origin = Origin::always(ok("hello"));
    let folder = tempfile::tempdir().expect("a folder can be made");
    write_config(&folder, &at(free_address(), &origin, ""));
    let (code, said) = upgrade(&folder, &[]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("no running edgeproxy answers at"), "{said}");
}
