//! Taking over from a running process, and certificates that change while it runs.

use std::fs;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::thread;

use nix::sys::signal::Signal;
use rustls::pki_types::CertificateDer;

use super::Gate;
use super::at;
use super::daemon::Daemon;
use super::daemon::eventually;
use super::daemon::pid_in;
use super::daemon::until_gone;
use super::free_address;
use super::gated;
use super::outcome;
use crate::harness::Edge;
use crate::harness::Origin;
use crate::harness::Wire;
use crate::harness::authority::Authority;
use crate::harness::client::tls_config;
use crate::harness::edge::admin_at;
use crate::harness::edge::simple;
use crate::harness::edge::write_config;
use crate::harness::ok;

/// Clients that ask without a pause, each request on a connection of its own.
struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    clients: Vec<thread::JoinHandle<()>>,
}

impl Load {
    fn on(address: SocketAddr) -> Self {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let clients = (0..4).map(|_| {
            let (stop, answered) = (Arc::clone(&stop), Arc::clone(&answered));
            thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    // Panics when the connection is refused, reset, or ends without a reply.
                    let reply = Wire::plain(address).get("edge.test", "/", &[]);
                    reply.expect_status(200).expect_body("hello");
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            })
        });
        let clients = clients.collect();
        Self { stop, answered, clients }
    }

    /// Waits until so many more were answered.
    fn more(&self, count: usize) {
        let from = self.answered.load(Ordering::Relaxed);
        eventually("requests are answered", || {
            let failed = self.clients.iter().any(thread::JoinHandle::is_finished);
            (failed || self.answered.load(Ordering::Relaxed) >= from + count).then_some(())
        });
    }

    fn end(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.join().expect("every request is answered");
        }
        self.answered.load(Ordering::Relaxed)
    }
}

#[test]
fn no_connection_is_refused_or_reset_while_one_process_follows_another() {
    let origin = Origin::always(ok("hello").field("Cache-Control", "max-age=600"));
    let address = free_address();
    let yaml = at(address, &origin, "");
    let folder = Arc::new(tempfile::tempdir().expect("a folder can be made"));
    let mut edge = Edge::in_folder(Arc::clone(&folder), &yaml, &[]);
    let load = Load::on(address);
    load.more(50);

    for _ in 0..3 {
        let next = Edge::in_folder(Arc::clone(&folder), &yaml, &["-u"]);
        assert_eq!(edge.wait().code(), Some(0));
        edge.wait_for_log("another process has taken over");
        edge = next;
        load.more(50);
    }
    let answered = load.end();
    assert!(answered >= 200, "only {answered} requests");
    edge.admin("GET", "/readyz").expect_status(200).expect_body("ready\n");
}

#[test]
fn the_old_process_finishes_what_it_began() {
    let gate = Gate::default();
    let origin = gated(&gate);
    let address = free_address();
    let yaml = at(address, &origin, "");
    let folder = Arc::new(tempfile::tempdir().expect("a folder can be made"));
    let mut old = Edge::in_folder(Arc::clone(&folder), &yaml, &[]);
    let mut wire = old.wire();
    wire.send("GET /slow HTTP/1.1\r\nHost: edge.test\r\n\r\n");
    origin.wait_for(1);

    let new = Edge::in_folder(folder, &yaml, &["-u"]);
    old.wait_for_log("draining 1 connections");
    // The admin listener is the new one's: it is ready while the old one drains.
    for _ in 0..10 {
        new.admin("GET", "/readyz").expect_status(200);
    }
    new.get("/").expect_status(200);
    gate.open();
    wire.reply().expect_status(200).expect_body("slow");
    assert_eq!(old.wait().code(), Some(0));
    new.get("/").expect_status(200);
    new.admin("GET", "/readyz").expect_status(200);
}

#[test]
fn a_new_process_that_does_not_start_leaves_the_old_one_serving() {
    let origin = Origin::always(ok("hello"));
    let address = free_address();
    let yaml = at(address, &origin, "");
    let folder = Arc::new(tempfile::tempdir().expect("a folder can be made"));
    let mut old = Edge::in_folder(Arc::clone(&folder), &yaml, &[]);
    let load = Load::on(address);

    write_config(&folder, &yaml.replace("upstream: origin", "upstream: orgin"));
    let (code, said) = outcome(&folder, &["-c", "edge.yaml", "-u"]);
    assert_eq!(code, Some(78), "{said}");
    load.more(20);

    // This one fails after it has the sockets.
    let taken = TcpListener::bind("127.0.0.1:0").expect("loopback can be listened on");
    let other = taken.local_addr().expect("a bound socket has an address");
    let more = format!("  - {{name: more, address: \"{other}\"}}\nupstreams:");
    write_config(&folder, &yaml.replace("upstreams:", &more));
    let (code, said) = outcome(&folder, &["-c", "edge.yaml", "-u"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains(&format!("cannot listen on {other}")), "{said}");
    old.wait_for_log("did not start; going on");
    load.more(20);
    old.admin("GET", "/readyz").expect_status(200);

    // And the one after that succeeds.
    let new = Edge::in_folder(folder, &yaml, &["-u"]);
    assert_eq!(old.wait().code(), Some(0));
    load.more(20);
    load.end();
    new.get("/").expect_status(200);
}

#[test]
fn listeners_come_and_go_with_the_new_configuration() {
    let origin = Origin::always(ok("hello"));
    let (kept, gone, added) = (free_address(), free_address(), free_address());
    let with = |second: SocketAddr| {
        let line = format!("  - {{name: second, address: \"{second}\"}}\nupstreams:");
        at(kept, &origin, "").replace("upstreams:", &line)
    };
    let folder = Arc::new(tempfile::tempdir().expect("a folder can be made"));
    let mut old = Edge::in_folder(Arc::clone(&folder), &with(gone), &[]);
    let new = Edge::in_folder(folder, &with(added), &["-u"]);
    old.wait();
    assert_eq!(new.address("second"), added);
    Wire::plain(kept).get("edge.test", "/", &[]).expect_status(200);
    Wire::plain(added).get("edge.test", "/", &[]).expect_status(200);
    assert!(TcpStream::connect(gone).is_err());
}

#[test]
fn nobody_to_take_over_from_is_said() {
    let origin = Origin::always(ok("hello"));
    let folder = tempfile::tempdir().expect("a folder can be made");
    write_config(&folder, &at(free_address(), &origin, ""));
    for arguments in [&["-c", "edge.yaml", "-u"][..], &["-c", "edge.yaml", "-d", "-u"]] {
        let (code, said) = outcome(&folder, arguments);
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("no running edgeproxy answers at"), "{said}");
        assert!(said.contains("start without -u"), "{said}");
    }
}

#[test]
fn a_daemon_follows_a_daemon_and_the_pid_file_says_so() {
    let origin = Origin::always(ok("hello"));
    let old = Daemon::start(|address| at(address, &origin, ""));
    let load = Load::on(old.address);
    let (code, said) = outcome(&old.folder, &["-c", "edge.yaml", "-d", "-u"]);
    assert_eq!(code, Some(0), "{said}");
    let new =
        Daemon { folder: Arc::clone(&old.folder), address: old.address, pid: pid_in(&old.folder) };
    assert_ne!(new.pid, old.pid);
    until_gone(old.pid);
    load.more(20);
    load.end();
    // The old one left what is the new one's.
    assert_eq!(pid_in(&old.folder), new.pid);
    let admin = new.folder.path().join("admin.sock");
    admin_at(&admin, "GET", "/readyz").expect("it answers").expect_status(200);
    assert!(new.state("upgrade.sock").exists());
}

#[test]
fn a_daemon_that_cannot_follow_says_why_and_changes_nothing() {
    let origin = Origin::always(ok("hello"));
    let old = Daemon::start(|address| at(address, &origin, ""));
    let taken = TcpListener::bind("127.0.0.1:0").expect("loopback can be listened on");
    let other = taken.local_addr().expect("a bound socket has an address");
    let more = format!("  - {{name: more, address: \"{other}\"}}\nupstreams:");
    write_config(&old.folder, &at(old.address, &origin, "").replace("upstreams:", &more));
    let (code, said) = outcome(&old.folder, &["-c", "edge.yaml", "-d", "-u"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains(&format!("cannot listen on {other}")), "{said}");
    assert_eq!(pid_in(&old.folder), old.pid);
    old.get("/").expect_status(200);
}

#[test]
fn certificates_that_were_replaced_are_used_after_sighup() {
    let origin = Origin::always(ok("hello"));
    let folder = Arc::new(tempfile::tempdir().expect("a folder can be made"));
    let authority = Authority::new();
    let root = authority.write(folder.path());
    authority.write_leaf(folder.path(), "leaf", &["edge.test"]);
    let yaml = simple(&origin, "").replace(
        "upstreams:",
        "  - name: https\n    address: \"127.0.0.1:0\"\n    tls: {certificates: \
         [{hosts: [edge.test], certificate: $DIR/leaf.pem, key: $DIR/leaf.key}]}\nupstreams:",
    );
    let edge = Edge::in_folder(Arc::clone(&folder), &yaml, &[]);
    let shown = || -> CertificateDer<'static> {
        let config = tls_config(&root, &["http/1.1"]);
        let wire = Wire::tls_with(edge.address("https"), "edge.test", config).expect("TLS opens");
        let chain = wire.handshake().and_then(|tls| tls.peer_certificates()).expect("a chain");
        chain[0].clone().into_owned()
    };
    let first = shown();

    // Damaged files change nothing.
    fs::write(folder.path().join("leaf.pem"), "nonsense").expect("it can be written");
    edge.signal(Signal::SIGHUP);
    edge.wait_for_log("cannot be read again");
    assert_eq!(shown(), first);

    authority.write_leaf(folder.path(), "leaf", &["edge.test"]);
    edge.signal(Signal::SIGHUP);
    edge.wait_for_log("certificates read: https");
    assert_ne!(shown(), first);
}
