//! Starting in the foreground.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs;
use std::io::ErrorKind;
use std::io::Write;
use std::net::TcpListener;
use std::net::TcpStream;
use std::num::NonZero;
use std::os::fd::AsRawFd;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::process::Command;
use std::process::Stdio;
use std::sync::Arc;
use std::thread::available_parallelism;

use nix::sys::signal::Signal;
use nix::sys::signal::kill;
use nix::unistd::Pid;

use super::at;
use super::daemon::eventually;
use super::free_address;
use super::outcome;
use crate::harness::Edge;
use crate::harness::Origin;
use crate::harness::Wire;
use crate::harness::edge::admin_says;
use crate::harness::edge::binary;
use crate::harness::edge::simple;
use crate::harness::edge::write_config;
use crate::harness::ok;

/// Waits until so many threads are called like workers. A new thread has its parent's name for a
/// moment.
#[track_caller]
fn expect_workers(edge: &Edge, wanted: usize) {
    let what = format!("there are {wanted} workers");
    eventually(&what, || (threads(edge.pid()).get("edge") == Some(&wanted)).then_some(()));
}

/// How many threads have which name.
fn threads(pid: Pid) -> HashMap<String, usize> {
    let mut names = HashMap::new();
    for task in fs::read_dir(format!("/proc/{pid}/task")).expect("the process is there") {
        let comm = task.expect("a thread").path().join("comm");
        let Ok(name) = fs::read_to_string(comm) else { continue };
        *names.entry(name.trim().to_owned()).or_insert(0) += 1;
    }
    names
}

#[test]
fn there_are_as_many_workers_as_configured() {
    let origin = Origin::always(ok("hello"));
    for wanted in [1, 3] {
        let process = format!("process: {{threads: {wanted}, state_dir: $DIR/state}}");
        let edge = Edge::with(&simple(&origin, &process));
        expect_workers(&edge, wanted);
    }
}

#[test]
fn by_default_there_are_as_many_workers_as_cores() {
    let origin = Origin::always(ok("hello"));
    let edge = Edge::with(&simple(&origin, "process: {state_dir: $DIR/state}"));
    expect_workers(&edge, available_parallelism().map_or(1, NonZero::get));
}

#[test]
fn an_address_in_use_is_said_and_ends_the_start() {
    let origin = Origin::always(ok("hello"));
    let other = TcpListener::bind("127.0.0.1:0").expect("loopback can be listened on");
    let address = other.local_addr().expect("a bound socket has an address");
    let folder = tempfile::tempdir().expect("a folder can be made");
    write_config(&folder, &at(address, &origin, ""));

    for arguments in [&["-c", "edge.yaml"][..], &["-c", "edge.yaml", "-d"]] {
        let (code, said) = outcome(&folder, arguments);
        assert_eq!(code, Some(1), "{said}");
        assert!(
            said.contains(&format!("cannot listen on {address} (listener \"http\")")),
            "{said}"
        );
        assert!(said.contains("take over from it with -u"), "{said}");
    }
    assert!(!folder.path().join("state/edgeproxy.pid").exists());
}

#[test]
fn an_address_of_another_machine_is_said() {
    let origin = Origin::always(ok("hello"));
    let folder = tempfile::tempdir().expect("a folder can be made");
    // TEST-NET-1 (RFC 5737) belongs to nobody.
    let address = "192.0.2.1:8080".parse().expect("an address");
    write_config(&folder, &at(address, &origin, ""));
    let (code, said) = outcome(&folder, &["-c", "edge.yaml"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("is not one of this machine's"), "{said}");

    // A check warns of it, with its place; the machine may have it by then.
    let (code, said) = outcome(&folder, &["check", "-c", "edge.yaml"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("192.0.2.1 is not an address of this machine now"), "{said}");
    assert!(said.contains("listeners[0].address"), "{said}");
}

#[test]
fn the_soft_limit_of_open_files_is_raised() {
    let origin = Origin::always(ok("hello"));
    let folder = Arc::new(tempfile::tempdir().expect("a folder can be made"));
    let path = write_config(&folder, &simple(&origin, ""));
    let mut command = Command::new("sh");
    let script = "ulimit -Sn 200 && exec \"$0\" -c \"$1\"";
    command.arg("-c").arg(script).arg(binary()).arg(path);
    let edge = Edge::start(folder, command);

    let limits = fs::read_to_string(format!("/proc/{}/limits", edge.pid())).expect("Linux tells");
    let line = limits.lines().find(|l| l.starts_with("Max open files")).expect("a line");
    let numbers: Vec<&str> = line.split_whitespace().skip(3).take(2).collect();
    assert_eq!(numbers[0], numbers[1], "{line}");
    edge.wait_for_log(&format!("at most {} files", numbers[1]));
}

#[test]
fn an_admin_socket_that_another_process_uses_is_not_taken_from_it() {
    let origin = Origin::always(ok("hello"));
    let edge = Edge::to(&origin);
    let folder = edge.folder();
    fs::rename(folder.path().join("edge.yaml"), folder.path().join("first.yaml")).expect("moved");
    write_config(folder, &at(free_address(), &origin, ""));
    let (code, said) = outcome(folder, &["-c", "edge.yaml"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("admin.sock (listener \"admin\")"), "{said}");
    edge.admin("GET", "/readyz").expect_status(200);
}

#[test]
fn socket_files_that_nobody_listens_on_any_more_are_replaced() {
    let origin = Origin::always(ok("hello"));
    let folder = Arc::new(tempfile::tempdir().expect("a folder can be made"));
    let first = Edge::in_folder(Arc::clone(&folder), &simple(&origin, ""), &[]);
    // Killed: it tidies nothing up.
    drop(first);
    assert!(folder.path().join("admin.sock").exists());
    let second = Edge::in_folder(folder, &simple(&origin, ""), &[]);
    second.admin("GET", "/readyz").expect_status(200);
}

#[test]
fn sockets_leave_no_files_behind() {
    let origin = Origin::always(ok("hello"));
    let mut edge = Edge::to(&origin);
    let files =
        [edge.folder().path().join("admin.sock"), edge.folder().path().join("upgrade.sock")];
    assert!(files.iter().all(|file| file.exists()));
    edge.signal(Signal::SIGTERM);
    edge.wait();
    assert!(!files.iter().any(|file| file.exists()));
}

/// Writes into a pipe until it takes no more.
fn fill(pipe: &OwnedFd) {
    // An end of our own: whether it blocks is not shared with the one that the process has.
    let path = format!("/proc/self/fd/{}", pipe.as_raw_fd());
    let mut options = fs::OpenOptions::new();
    let mut own =
        options.write(true).custom_flags(nix::libc::O_NONBLOCK).open(path).expect("a pipe");
    for size in [4096, 1] {
        loop {
            match own.write(&vec![b'\n'; size]) {
                Ok(_) => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) => panic!("{e}"),
            }
        }
    }
}

#[test]
fn who_reads_no_diagnostics_stops_no_request_and_no_end() {
    let origin = Origin::always(ok("hello"));
    let folder = tempfile::tempdir().expect("a folder can be made");
    let address = free_address();
    let yaml = simple(&origin, "").replace("127.0.0.1:0", &address.to_string());
    let path = write_config(&folder, &yaml);
    let (_unread, written) = nix::unistd::pipe().expect("a pipe");
    let mut command = Command::new(binary());
    command.arg("-c").arg(&path).current_dir(folder.path()).stdin(Stdio::null());
    command.stdout(Stdio::null()).stderr(written.try_clone().expect("another end"));
    let child = command.env_remove("RUST_LOG").spawn().expect("the binary runs");
    let child = RefCell::new(child);
    let get = || {
        let wire = TcpStream::connect(address).ok().map(|_| Wire::plain(address));
        wire.map(|mut wire| wire.get("edge.test", "/", &[]).status)
    };
    eventually("it serves", || get().filter(|status| *status == 200));

    fill(&written);
    // What is refused is told each time.
    write_config(&folder, "listeners: 7");
    for _ in 0..20 {
        let head = "POST /v1/reload HTTP/1.1\r\nContent-Length: 0";
        let reply = admin_says(&folder.path().join("admin.sock"), head, "");
        reply.expect("it answers").expect_status(422);
        assert_eq!(get(), Some(200));
    }
    let pid = Pid::from_raw(child.borrow().id().try_into().expect("pids fit"));
    kill(pid, Signal::SIGTERM).expect("it is there");
    let ended = eventually("it ends", || child.borrow_mut().try_wait().expect("a child"));
    assert_eq!(ended.code(), Some(0));
}
