//! Real origins, killed and started again under load.

use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::with;
use crate::harness::PATIENCE;
use crate::harness::Wire;
use crate::harness::edge::binary;

/// A server in a process of its own that can be killed.
struct Server {
    port: u16,
    folder: tempfile::TempDir,
    process: Child,
}

impl Server {
    fn start(port: u16) -> Self {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let here = folder.path().display();
        let yaml = format!(
            "listeners: [{{name: http, address: \"127.0.0.1:{port}\"}}]\n\
             process: {{threads: 1, state_dir: {here}/state, upgrade_socket: {here}/up.sock}}\n\
             admin: off\naccess_log: {{to: off}}\n\
             routes: [{{respond: {{status: 200, body: well}}}}]\n"
        );
        let path = folder.path().join("edge.yaml");
        std::fs::write(&path, yaml).expect("the folder can be written to");
        let process = Command::new(binary())
            .arg("-c")
            .arg(path)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the binary runs");
        let server = Self { port, folder, process };
        let began = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(began.elapsed() < PATIENCE, "it listens");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        server
    }

    /// Ends it without a word, and starts it again.
    fn die_and_come_back(&mut self) {
        self.kill();
        let again = Self::start(self.port);
        let old = std::mem::replace(self, again);
        drop(old);
    }

    fn kill(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        assert!(self.folder.path().exists(), "it had its folder to its end");
    }
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback can be listened on");
    listener.local_addr().expect("a bound socket has an address").port()
}

/// Three servers, of which these are killed in turn while so many clients ask; none of them sees a failure.
fn nobody_notices(killed: &[usize], clients: usize, more: &str) {
    let mut servers: Vec<Server> = (0..3).map(|_| Server::start(free_port())).collect();
    let addresses: Vec<String> =
        servers.iter().map(|server| format!("\"127.0.0.1:{}\"", server.port)).collect();
    let edge = with(&addresses.join(", "), more);
    let stop = Arc::new(AtomicBool::new(false));
    let served = Arc::new(AtomicUsize::new(0));
    let at = edge.address("http");
    let clients: Vec<_> = (0..clients)
        .map(|_| {
            let (stop, served) = (Arc::clone(&stop), Arc::clone(&served));
            std::thread::spawn(move || {
                let mut wire = Wire::plain(at);
                let mut asked = 0;
                while !stop.load(Ordering::Relaxed) {
                    // The edge closes a connection after a thousand requests.
                    if asked % 500 == 0 {
                        wire = Wire::plain(at);
                    }
                    let (method, body) = [("GET", ""), ("PUT", "again"), ("DELETE", "")][asked % 3];
                    asked += 1;
                    let fields = [("Cache-Control", "no-store")];
                    let reply = wire.request(method, "edge.test", "/", &fields, body.as_bytes());
                    assert_eq!((reply.status, reply.text().as_str()), (200, "well"), "{reply:?}");
                    served.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for victim in killed {
        let before = served.load(Ordering::Relaxed);
        servers[*victim].die_and_come_back();
        let began = Instant::now();
        while served.load(Ordering::Relaxed) < before + 200 {
            assert!(clients.iter().all(|client| !client.is_finished()), "a client failed");
            assert!(began.elapsed() < PATIENCE, "requests are served");
            std::thread::yield_now();
        }
    }
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.join().expect("no client saw a failure");
    }
    assert!(served.load(Ordering::Relaxed) > 200 * killed.len());
}

#[test]
fn one_of_three_is_killed_again_and_again_and_no_client_notices() {
    nobody_notices(&[0; 5], 12, "");
}

#[test]
fn each_of_three_is_killed_and_killed_again_and_no_client_notices() {
    // Within a second or so all three take their requests in flight with them, which are more than may be tried again as
    // a rule. Breakers stand as they are: they would stay open for longer than all this takes.
    let more = "    retry: {budget: {percent: 100}}\n";
    nobody_notices(&[0, 1, 2, 0, 1, 2], 12, more);
}
