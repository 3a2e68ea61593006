//! The life of a process: starting, signals, draining, in the background, handing over.

mod bequest;
mod cut;
pub(crate) mod daemon;
mod drain;
mod handover;
mod notify;
mod start;
mod trust;
mod twenty;
mod upgrade;

use std::net::SocketAddr;
use std::net::TcpListener;
use std::process::Command;
use std::process::Output;
use std::sync::Arc;
use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::atomic::AtomicU16;
use std::sync::atomic::Ordering;

use tempfile::TempDir;

use crate::harness::Origin;
use crate::harness::PATIENCE;
use crate::harness::edge::binary;
use crate::harness::ok;

/// An address that nobody listens on at the moment. It is below what the system gives to outgoing
/// connections, which would else take it before it is listened on.
pub(crate) fn free_address() -> SocketAddr {
    static TAKEN: AtomicU16 = AtomicU16::new(0);
    // Other runs of these tests begin elsewhere.
    let begin = u16::try_from(std::process::id() % 199).expect("it is small") * 100;
    for _ in 0..u16::MAX {
        let step = begin.wrapping_add(TAKEN.fetch_add(1, Ordering::Relaxed)) % 20_000;
        let address = SocketAddr::from(([127, 0, 0, 1], 12_000 + step));
        if TcpListener::bind(("0.0.0.0", address.port())).is_ok() {
            return address;
        }
    }
    panic!("every port is taken");
}

/// One listener at this address in front of this origin; state and sockets in `$DIR`.
fn at(address: SocketAddr, origin: &Origin, process: &str) -> String {
    format!(
        "listeners:\n  - {{name: http, address: \"{address}\", h2c: true}}\n\
         upstreams:\n  origin:\n    addresses: [\"{}\"]\n\
         routes:\n  - {{name: all, upstream: origin}}\n\
         process: {{threads: 2, state_dir: $DIR/state{process}}}\n",
        origin.address
    )
}

/// The program with these arguments, in this folder.
fn edgeproxy(folder: &TempDir, arguments: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.args(arguments).current_dir(folder.path()).env("NO_COLOR", "1").env_remove("RUST_LOG");
    command
}

/// Runs it to its end; its exit code and what it said on standard error.
pub(crate) fn outcome(folder: &TempDir, arguments: &[&str]) -> (Option<i32>, String) {
    let Output { status, stderr, .. } = edgeproxy(folder, arguments).output().expect("it runs");
    (status.code(), String::from_utf8_lossy(&stderr).into_owned())
}

/// Something that happens once, and is waited for.
#[derive(Clone, Default)]
struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    fn open(&self) {
        *self.0.0.lock().expect("nobody panics with it") = true;
        self.0.1.notify_all();
    }

    fn wait(&self) {
        let open = self.0.0.lock().expect("nobody panics with it");
        let waited = self.0.1.wait_timeout_while(open, PATIENCE, |open| !*open);
        assert!(!waited.expect("nobody panics with it").1.timed_out(), "the gate stays shut");
    }
}

/// An origin that answers `/slow` once the gate is open, and everything else at once.
fn gated(gate: &Gate) -> Origin {
    let gate = gate.clone();
    Origin::script()
        .with("/slow", move |_| {
            gate.wait();
            ok("slow")
        })
        .otherwise(|_| ok("hello"))
        .start()
}
