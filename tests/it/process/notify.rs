//! What a service manager is told. The tests are the manager: a real datagram socket.

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::SocketAddr;
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::sync::Arc;

use nix::sys::signal::Signal;
use nix::time::ClockId;
use nix::time::clock_gettime;
use rustix::net::RecvAncillaryBuffer;
use rustix::net::RecvFlags;
use rustix::net::recvmsg;
use tempfile::TempDir;

use super::at;
use super::free_address;
use super::upgrade::Follower;
use super::upgrade::upgrade;
use crate::harness::Edge;
use crate::harness::Origin;
use crate::harness::PATIENCE;
use crate::harness::edge::binary;
use crate::harness::edge::write_config;
use crate::harness::ok;

/// A service manager.
struct Manager(UnixDatagram);

impl Manager {
    fn on(socket: UnixDatagram) -> Self {
        socket.set_read_timeout(Some(PATIENCE)).expect("sockets can wait");
        Self(socket)
    }

    /// The next message. What comes with it is closed, which is what a barrier waits for.
    fn next(&self) -> String {
        let mut bytes = [0; 4096];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let parts = &mut [IoSliceMut::new(&mut bytes)];
        let message = recvmsg(&self.0, parts, &mut control, RecvFlags::CMSG_CLOEXEC);
        let length = message.expect("something is told in time").bytes;
        drop(control);
        String::from_utf8(bytes[..length].to_vec()).expect("it is text")
    }

    /// The next message that is no sign of life.
    fn news(&self) -> String {
        loop {
            let text = self.next();
            if text != "WATCHDOG=1" {
                return text;
            }
        }
    }
}

/// A process under a manager whose address is `name`, with these further variables.
fn edge(name: &str, origin: &Origin, variables: &[(&str, String)]) -> (Arc<TempDir>, Edge) {
    let folder = Arc::new(tempfile::tempdir().expect("a folder can be made"));
    let path = write_config(&folder, &at(free_address(), origin, ""));
    let mut command = Command::new(binary());
    command.arg("-c").arg(&path).env("NOTIFY_SOCKET", name);
    command.envs(variables.iter().map(|(name, value)| (name, value)));
    let edge = Edge::start(Arc::clone(&folder), command);
    (folder, edge)
}

#[test]
fn a_service_manager_hears_of_start_reload_and_end() {
    let origin = Origin::always(ok("hello"));
    let place = tempfile::tempdir().expect("a folder can be made");
    let path = place.path().join("notify");
    let manager = Manager::on(UnixDatagram::bind(&path).expect("it can be bound"));
    let (folder, mut edge) = edge(&path.display().to_string(), &origin, &[]);
    assert_eq!(manager.news().lines().next(), Some("READY=1"));

    let now = || {
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("there is a clock");
        now.tv_sec() * 1_000_000 + now.tv_nsec() / 1000
    };
    let before = now();
    edge.signal(Signal::SIGHUP);
    let told = manager.news();
    let lines: Vec<&str> = told.lines().collect();
    assert_eq!(lines[0], "RELOADING=1");
    let at =
        lines[1].strip_prefix("MONOTONIC_USEC=").and_then(|at| at.parse().ok()).expect("a time");
    assert!((before..=now()).contains(&at), "{told}");
    assert_eq!(manager.news().lines().next(), Some("READY=1"));

    // A file that is wrong ends the reload as well, and the manager can show why.
    std::fs::write(folder.path().join("edge.yaml"), "routes: 7").expect("it can be written");
    edge.signal(Signal::SIGHUP);
    assert!(manager.news().starts_with("RELOADING=1"));
    let told = manager.news();
    assert!(
        told.starts_with("READY=1\nSTATUS=serving; the configuration is not reloaded: "),
        "{told}"
    );

    edge.signal(Signal::SIGTERM);
    assert!(manager.news().starts_with("STOPPING=1"));
    assert_eq!(edge.wait().code(), Some(0));
}

#[test]
fn a_manager_with_an_abstract_name_hears_that_it_lives() {
    let origin = Origin::always(ok("hello"));
    let name = format!("edgeproxy-test-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).expect("a name");
    let manager = Manager::on(UnixDatagram::bind_addr(&address).expect("it can be bound"));
    let often = [("WATCHDOG_USEC", "300000".to_owned())];
    let (_folder, mut edge) = edge(&format!("@{name}"), &origin, &often);
    assert_eq!(manager.news().lines().next(), Some("READY=1"));
    for _ in 0..5 {
        assert_eq!(manager.next(), "WATCHDOG=1");
    }
    edge.signal(Signal::SIGTERM);
    assert!(manager.news().starts_with("STOPPING=1"));
    assert_eq!(edge.wait().code(), Some(0));
}

#[test]
fn a_watchdog_that_is_another_process_s_is_left_alone() {
    let origin = Origin::always(ok("hello"));
    let place = tempfile::tempdir().expect("a folder can be made");
    let path = place.path().join("notify");
    let manager = Manager::on(UnixDatagram::bind(&path).expect("it can be bound"));
    let other = [("WATCHDOG_USEC", "3000".to_owned()), ("WATCHDOG_PID", "1".to_owned())];
    let (_folder, mut edge) = edge(&path.display().to_string(), &origin, &other);
    assert!(manager.next().starts_with("READY=1"));
    edge.get("/").expect_status(200);
    edge.signal(Signal::SIGTERM);
    assert!(manager.next().starts_with("STOPPING=1"));
    assert_eq!(edge.wait().code(), Some(0));
}

#[test]
fn an_upgrade_tells_the_manager_which_process_to_look_after() {
    let origin = Origin::always(ok("hello"));
    let place = tempfile::tempdir().expect("a folder can be made");
    let path = place.path().join("notify");
    let manager = Manager::on(UnixDatagram::bind(&path).expect("it can be bound"));
    let often = [("WATCHDOG_USEC", "300000".to_owned())];
    let (folder, mut old) = edge(&path.display().to_string(), &origin, &often);
    assert!(manager.news().starts_with("READY=1"));
    let upgrading = std::thread::spawn(move || upgrade(&folder, &[]));
    let (mut successor, mut barrier) = (None, false);
    while !barrier {
        let told = manager.news();
        match told.strip_prefix("MAINPID=") {
            Some(pid) => successor = Some(pid.to_owned()),
            None if told == "BARRIER=1" => barrier = true,
            // The new one says so itself; which of them is heard is the manager's rule.
            None => assert!(told.starts_with("READY=1"), "{told}"),
        }
    }
    let new = Follower::of(upgrading.join().expect("it comes to an end"));
    assert_eq!(successor, Some(new.0.to_string()));
    assert_eq!(old.wait().code(), Some(0));
    // It goes on telling that it lives, although the variables of the first one named that.
    while manager.next() != "WATCHDOG=1" {}
}
