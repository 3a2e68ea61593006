//! A hundred reloads, half of them of broken files, under constant load: nobody notices.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::thread;

use super::json;
use crate::harness::Edge;
use crate::harness::Origin;
use crate::harness::PATIENCE;
use crate::harness::Reply;
use crate::harness::Wire;
use crate::harness::client::End;
use crate::harness::http2;
use crate::harness::ok;
use crate::harness::websocket;
use crate::harness::websocket::BINARY;
use crate::harness::websocket::frame;
use crate::harness::websocket::read_frame;
use crate::process::daemon::eventually;

const MASK: Option<[u8; 4]> = Some([1, 2, 3, 4]);
/// What a slow body comes in: a part for each reload, and each is whole only after the last one.
pub(crate) const PARTS: usize = 100;
pub(crate) const PART: usize = 1000;

/// Something that goes on until it is told to stop.
pub(crate) struct Work {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
    thread: thread::JoinHandle<()>,
}

impl Work {
    /// Each round panics when something is not as it should be.
    pub(crate) fn begin(mut round: impl FnMut(usize) + Send + 'static) -> Self {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (told, counted) = (Arc::clone(&stop), Arc::clone(&done));
        let thread = thread::spawn(move || {
            let mut n = 0;
            while !told.load(Ordering::SeqCst) {
                round(n);
                n += 1;
                counted.fetch_add(1, Ordering::SeqCst);
            }
        });
        Self { stop, done, thread }
    }

    /// Waits until so many more rounds are done.
    pub(crate) fn more(&self, rounds: usize) {
        let from = self.done.load(Ordering::SeqCst);
        eventually("it goes on", || {
            let enough = self.done.load(Ordering::SeqCst) >= from + rounds;
            (enough || self.thread.is_finished()).then_some(())
        });
    }

    pub(crate) fn end(self) -> usize {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().expect("nothing failed");
        self.done.load(Ordering::SeqCst)
    }
}

/// Connections on which little happens at a time: a WebSocket, a slow download and a slow upload, whose parts come
/// as `parts` says.
pub(crate) struct Slow {
    /// The conversation over the WebSocket.
    pub(crate) talking: Work,
    download: thread::JoinHandle<Reply>,
    upload: thread::JoinHandle<Reply>,
}

impl Slow {
    pub(crate) fn begin(address: SocketAddr, parts: &Arc<AtomicUsize>) -> Self {
        let mut wire = Wire::plain(address);
        wire.send(websocket::handshake("/ws"));
        wire.reply().expect_status(101);
        let mut count = 0_u64;
        let talking = Work::begin(move |_| {
            count += 1;
            wire.send(frame(BINARY, &count.to_be_bytes(), MASK));
            assert_eq!(read_frame(&mut wire), Some((BINARY, count.to_be_bytes().to_vec())));
        });
        let download = thread::spawn(move || {
            let mut wire = Wire::plain(address);
            wire.ask("GET", "edge.test", "/download", &[], b"").reply()
        });
        let sent = Arc::clone(parts);
        let upload = thread::spawn(move || {
            let mut wire = Wire::plain(address);
            let length = PARTS * PART;
            wire.send(format!(
                "POST /upload HTTP/1.1\r\nHost: edge.test\r\nContent-Length: {length}\r\n\r\n"
            ));
            for n in 0..PARTS {
                eventually("its time comes", || (sent.load(Ordering::SeqCst) > n).then_some(()));
                wire.send([b'u'; PART]);
            }
            wire.reply_to("POST")
        });
        Self { talking, download, upload }
    }

    /// Ends the conversation; how far it went. The others ended by themselves, whole.
    pub(crate) fn end(self) -> usize {
        let download = self.download.join().expect("it is whole");
        assert_eq!(
            (download.status, download.end, download.body.len()),
            (200, End::Whole, PARTS * PART)
        );
        let upload = self.upload.join().expect("it is whole");
        upload.expect_status(200).expect_body(&format!("{}", PARTS * PART));
        self.talking.end()
    }
}

pub(crate) fn origin(parts: Arc<AtomicUsize>) -> Origin {
    Origin::script()
        .take_over("/ws", |_, mut stream| {
            stream.write_all(websocket::agreement().as_bytes()).expect("the agreement is taken");
            websocket::echo(&mut stream);
        })
        .take_over("/download", move |_, mut stream| {
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", PARTS * PART)
                .expect("sent");
            for n in 0..PARTS {
                eventually("its time comes", || (parts.load(Ordering::SeqCst) > n).then_some(()));
                stream.write_all(&[b'd'; PART]).expect("it is taken");
            }
        })
        .with("/upload", |seen| ok(format!("{}", seen.body.len())))
        .on("/stored", ok("stored").field("Cache-Control", "max-age=600"))
        .otherwise(|seen| ok(seen.target().to_owned()))
        .start()
}

/// The `n`th configuration: routes, upstream settings, backends and limits differ.
fn config(n: usize, first: &Origin, second: &Origin) -> String {
    let backends = match n % 3 {
        0 => format!("\"{}\"", first.address),
        1 => format!("{{id: a, address: \"{}\"}}", first.address),
        _ => format!("\"{}\", \"{}\"", first.address, second.address),
    };
    format!(
        "listeners: [{{name: http, address: \"127.0.0.1:0\", h2c: true}}]\n\
         limits: {{connections: {connections}}}\n\
         upstreams:\n\
         \x20 app-{name}:\n    addresses: [{backends}]\n    timeouts: {{read: {read}s, total: 60s}}\n\
         \x20 fixed: {{health: off, addresses: [\"{address}\"]}}\n\
         routes:\n\
         \x20 - {{name: route-{n}, match: {{path: /route}}, upstream: app-{name}}}\n\
         \x20 - {{name: fixed, match: {{path: /fixed}}, upstream: fixed}}\n\
         \x20 - {{name: all, upstream: app-{name}}}\n",
        connections = 1000 + n,
        name = n % 7 / 3,
        read = 20 + n % 5,
        address = first.address,
    )
}

fn asking(address: SocketAddr) -> Work {
    let mut wire = Wire::plain(address);
    Work::begin(move |n| {
        if n % 50 == 49 {
            wire = Wire::plain(address);
        }
        for path in ["/route", "/fixed", "/stored", "/other"] {
            let reply = wire.get("edge.test", path, &[]);
            let body = if path == "/stored" { "stored" } else { path };
            assert_eq!(reply.expect_status(200).end, End::Whole);
            reply.expect_body(body);
        }
        wire.request("POST", "edge.test", "/upload", &[], b"12345")
            .expect_status(200)
            .expect_body("5");
    })
}

fn asking_over_http2(address: SocketAddr) -> Work {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime can be made");
    let mut send = runtime.block_on(http2::plain(address));
    Work::begin(move |_| {
        runtime.block_on(async {
            for path in ["/route", "/fixed", "/stored"] {
                let uri = format!("http://edge.test{path}");
                let asked = http2::get(&mut send, &uri, &[]);
                let reply = tokio::time::timeout(PATIENCE, asked).await.expect("it hangs");
                let reply = reply.expect("the stream is answered");
                assert_eq!(reply.status, 200);
                let body = if path == "/stored" { "stored" } else { path };
                assert_eq!(reply.body, body.as_bytes());
            }
        });
    })
}

#[test]
fn nobody_notices() {
    let parts = Arc::new(AtomicUsize::new(0));
    let (first, second) = (origin(Arc::clone(&parts)), origin(Arc::clone(&parts)));
    let edge = Edge::with(&config(0, &first, &second));
    let address = edge.address("http");
    let slow = Slow::begin(address, &parts);
    let works = [asking(address), asking(address), asking_over_http2(address)];
    let all = || works.iter().chain([&slow.talking]);
    all().for_each(|work| work.more(3));
    for n in 1..=PARTS {
        let yaml = config(n, &first, &second);
        if n % 2 == 0 {
            edge.write(&yaml).reload().expect_status(200);
        } else {
            let broken = match n % 4 {
                1 => yaml.replace("upstream: fixed", "upstream: fixde"),
                _ => yaml.replace("limits", "process: {threads: 7, state_dir: $DIR/state, upgrade_socket: $DIR/upgrade.sock}\nlimits"),
            };
            let status = if n % 4 == 1 { 422 } else { 409 };
            json(edge.write(&broken).reload().expect_status(status));
        }
        parts.store(n, Ordering::SeqCst);
        all().for_each(|work| work.more(1));
    }
    let mut rounds = works.map(Work::end).into_iter().chain([slow.end()]);
    assert!(rounds.all(|rounds| rounds > PARTS), "every kind went on all the time");
    assert_eq!(edge.metric("edgeproxy_config_reloads_total{result=\"refused\"}"), 50.0);
    assert_eq!(edge.metric("edgeproxy_config_reloads_total{result=\"reloaded\"}"), 50.0);
    assert_eq!(edge.metric("edgeproxy_panics_total"), 0.0);
    let failed: Vec<String> = edge
        .metrics("edgeproxy_refusals_total{")
        .into_iter()
        .filter(|line| !line.ends_with(" 0"))
        .collect();
    assert!(failed.is_empty(), "{failed:?}");
}
