//! More requests than an upstream can take: some are told at once, and none of them waits for nothing.

use std::collections::VecDeque;
use std::io::Read;
use std::io::Write;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use http::Request;

use super::before;
use crate::harness::Edge;
use crate::harness::Origin;
use crate::harness::PATIENCE;
use crate::harness::http2;
use crate::harness::ok;

/// An origin that answers nothing until it is told to.
fn held() -> (Origin, Arc<(Mutex<bool>, Condvar)>) {
    let gate = Arc::new((Mutex::new(false), Condvar::new()));
    let waits = Arc::clone(&gate);
    let origin = Origin::script()
        .otherwise(move |_| {
            let (open, opened) = &*waits;
            let open = open.lock().expect("no test panics with it");
            drop(opened.wait_while(open, |open| !*open).expect("no test panics with it"));
            ok("done")
        })
        .start();
    (origin, gate)
}

fn open(gate: &(Mutex<bool>, Condvar)) {
    *gate.0.lock().expect("no test panics with it") = true;
    gate.1.notify_all();
}

#[test]
fn above_the_limit_requests_are_shed_with_a_time_to_come_back() {
    let (origin, gate) = held();
    let edge = before(&[&origin], "    concurrency: {min: 2, max: 2}\n");
    let mut clients: Vec<_> = (0..2).map(|_| edge.wire()).collect();
    for (n, client) in clients.iter_mut().enumerate() {
        client.ask("GET", "edge.test", &format!("/{n}"), &[], b"");
    }
    origin.wait_for(2);
    let shed = edge.get_with("/more", &[("Accept", "application/json")]);
    shed.expect_status(503);
    assert!(shed.text().contains("\"shed\""), "{shed:?}");
    assert_eq!(shed.value("retry-after"), Some("1"));
    open(&gate);
    for client in &mut clients {
        client.reply().expect_status(200);
    }
    edge.get("/after").expect_status(200);
    assert_eq!(origin.seen_at("/more").len(), 0);
}

#[test]
fn who_has_an_answer_and_takes_its_time_keeps_nobody_out() {
    let begin = |_, mut stream: TcpStream| {
        let head = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf ";
        stream.write_all(head.as_bytes()).expect("it is read");
        // Until nobody wants it any more.
        let _ = stream.read(&mut [0]);
    };
    let mut origin = Origin::script().otherwise(|_| ok("done"));
    let paths = ["/1", "/2", "/3"];
    for path in paths {
        origin = origin.take_over(path, begin);
    }
    let edge = before(&[&origin.start()], "    concurrency: {min: 2, max: 2}\n");
    let clients = paths.map(|path| {
        let mut client = edge.wire();
        client.ask("GET", "edge.test", path, &[], b"");
        assert_eq!(client.read_raw(12), b"HTTP/1.1 200", "{path}");
        client
    });
    edge.get("/").expect_status(200);
    assert_eq!(edge.metric("edgeproxy_upstream_concurrency{upstream=\"app\"}"), 0.0);
    drop(clients);
}

#[test]
fn who_is_slow_to_send_keeps_nobody_out() {
    let origin = Origin::script().otherwise(|_| ok("done")).start();
    let more = "    concurrency: {min: 2, max: 2}\ndefaults: {spool: 0B}\n";
    let edge = before(&[&origin], more);
    let mut clients: Vec<_> = (0..3).map(|_| edge.wire()).collect();
    for (n, client) in clients.iter_mut().enumerate() {
        let length = "Content-Length: 10";
        client.send(format!("POST /{n} HTTP/1.1\r\nHost: edge.test\r\n{length}\r\n\r\nhalf "));
        // It has a connection, and keeps the next one out no longer.
        edge.wait_for_gauge("edgeproxy_backend_pool_in_use{", (n + 1) as f64);
        edge.wait_for_gauge("edgeproxy_upstream_concurrency{", 0.0);
    }
    edge.get("/").expect_status(200);
    assert_eq!(edge.metric("edgeproxy_upstream_concurrency{upstream=\"app\"}"), 0.0);
    for client in &mut clients {
        client.send("done.");
        client.reply().expect_status(200);
    }
}

#[test]
fn who_keeps_to_itself_that_a_body_is_whole_counts() {
    let (origin, gate) = held();
    let edge = Edge::with(&format!(
        "listeners: [{{name: http, address: \"127.0.0.1:0\", h2c: true}}]\n\
         upstreams:\n  app: {{health: off, addresses: [\"{}\"], concurrency: on}}\n\
         routes: [{{upstream: app}}]\ndefaults: {{spool: 0B}}\n",
        origin.address
    ));
    http2::run(async {
        let mut client = http2::plain(edge.address("http")).await;
        let request = Request::post("http://edge.test/").header("content-length", "4").body(());
        let (answer, mut body) = client.send_request(request.unwrap(), false).unwrap();
        body.send_data("done".into(), false).unwrap();
        let edge = tokio::task::spawn_blocking(move || {
            origin.wait_for(1);
            edge.wait_for_gauge("edgeproxy_upstream_concurrency{", 1.0);
            open(&gate);
            edge
        });
        let edge = edge.await.unwrap();
        assert_eq!(answer.await.unwrap().status(), 200);
        drop(edge);
    });
}

#[test]
fn who_waits_behind_slow_uploads_to_send_one_keeps_nobody_out() {
    let origin = Origin::script().otherwise(|_| ok("done")).start();
    // One of the connections may have an upload.
    let more = "    concurrency: {min: 2, max: 2}\n    pool: {max_connections: 2, queue_timeout: 30s}\n\
                defaults: {spool: 0B}\n";
    let edge = before(&[&origin], more);
    let mut clients: Vec<_> = (0..4).map(|_| edge.wire()).collect();
    for (n, client) in clients.iter_mut().enumerate() {
        client.send("POST / HTTP/1.1\r\nHost: edge.test\r\nContent-Length: 10\r\n\r\nhalf ");
        edge.wait_for_gauge("edgeproxy_backend_requests_in_flight{", (n + 1) as f64);
        edge.wait_for_gauge("edgeproxy_upstream_concurrency{", 0.0);
    }
    edge.get("/").expect_status(200);
    for client in &mut clients {
        client.send("done.");
    }
    for client in &mut clients {
        client.reply().expect_status(200);
    }
}

/// An origin that takes as long for each answer as it is told, and works at as many at once; others queue.
struct Pond {
    origin: Origin,
    milliseconds: Arc<AtomicU64>,
    workers: Arc<Workers>,
    /// How many it had at once when the last ones came.
    busy: Arc<Mutex<VecDeque<usize>>>,
}

/// So many of the last ones are looked at.
const LAST: usize = 40;

impl Pond {
    fn new() -> Self {
        let milliseconds = Arc::new(AtomicU64::new(0));
        let workers = Arc::new(Workers::default());
        let busy = Arc::new(Mutex::new(VecDeque::new()));
        let (takes, lately, now) =
            (Arc::clone(&milliseconds), Arc::clone(&busy), AtomicUsize::new(0));
        let working = Arc::clone(&workers);
        let origin = Origin::script()
            .otherwise(move |_| {
                let at_once = now.fetch_add(1, Ordering::SeqCst) + 1;
                working.work(Duration::from_millis(takes.load(Ordering::SeqCst)));
                now.fetch_sub(1, Ordering::SeqCst);
                let mut lately = lately.lock().expect("nobody panics with it");
                lately.push_back(at_once);
                if lately.len() > LAST {
                    lately.pop_front();
                }
                ok("done")
            })
            .start();
        Self { origin, milliseconds, workers, busy }
    }

    /// Takes so long with so many workers from now on, and waits until the most that it has at once is such.
    #[track_caller]
    fn until(&self, milliseconds: u64, workers: usize, is_such: impl Fn(usize) -> bool) {
        self.milliseconds.store(milliseconds, Ordering::SeqCst);
        self.workers.become_so_many(workers);
        self.busy.lock().expect("nobody panics with it").clear();
        let began = Instant::now();
        loop {
            let lately = self.busy.lock().expect("nobody panics with it").clone();
            let most = lately.iter().copied().max().unwrap_or(0);
            if lately.len() == LAST && is_such(most) {
                return;
            }
            let case = format!("{most} at once, {workers} workers for {milliseconds} ms each");
            assert!(began.elapsed() < 2 * PATIENCE, "{case}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// How many may work at once, and how many do.
#[derive(Default)]
struct Workers {
    state: Mutex<(usize, usize)>,
    changed: Condvar,
}

impl Workers {
    fn become_so_many(&self, most: usize) {
        self.state.lock().expect("nobody panics with it").0 = most;
        self.changed.notify_all();
    }

    /// Waits for a worker, and for its work.
    fn work(&self, takes: Duration) {
        let state = self.state.lock().expect("nobody panics with it");
        let is_full = |(most, working): &mut (usize, usize)| working >= most;
        self.changed.wait_while(state, is_full).expect("nobody panics with it").1 += 1;
        std::thread::sleep(takes);
        self.state.lock().expect("nobody panics with it").1 -= 1;
        self.changed.notify_one();
    }
}

#[test]
fn the_limit_shrinks_when_the_origin_has_a_queue_and_only_then() {
    let pond = Pond::new();
    let edge = before(&[&pond.origin], "    concurrency: {min: 2, max: 12, tolerance: 120}\n");
    let is_over = AtomicBool::new(false);
    std::thread::scope(|threads| {
        // However it ends.
        let _over = Over(&is_over);
        for _ in 0..16 {
            threads.spawn(|| {
                while !is_over.load(Ordering::SeqCst) {
                    if edge.get("/").status == 503 {
                        // As a client that was told to come back.
                        std::thread::sleep(Duration::from_millis(20));
                    }
                }
            });
        }
        pond.until(40, 20, |most| most >= 9);
        let shed = || edge.metric("edgeproxy_refusals_total{reason=\"shed\"");
        assert!(shed() > 0.0, "there are more than it lets in");
        let limit = || edge.metric("edgeproxy_upstream_concurrency_limit{upstream=\"app\"}");
        assert!((2.0..=12.0).contains(&limit()), "{}", limit());
        // Who loses workers has a queue, and who gets them back has none.
        pond.until(40, 2, |most| most <= 8);
        pond.until(40, 20, |most| most >= 9);
        // Who has become slower by itself is let in little for a moment, and then as before.
        pond.milliseconds.store(200, Ordering::SeqCst);
        let began = Instant::now();
        while limit() > 8.0 {
            assert!(began.elapsed() < PATIENCE, "{} are let in", limit());
            std::thread::sleep(Duration::from_millis(5));
        }
        pond.until(200, 20, |most| most >= 9);
    });
}

/// Says at its end that all is over.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn what_is_stale_is_served_in_place_of_being_shed() {
    let (held, gate) = held();
    let stored = ok("stored").field("Cache-Control", "max-age=0, stale-if-error=600");
    let waits = held.address;
    let origin = Origin::script()
        .on("/stored", stored)
        .otherwise(move |_| {
            // It takes as long as the other one.
            crate::harness::Wire::plain(waits).get("held.test", "/", &[]);
            ok("done")
        })
        .start();
    let yaml = crate::harness::edge::simple(&origin, "")
        .replace("addresses:", "concurrency: {min: 2, max: 2}\n    addresses:");
    let edge = Edge::with(&yaml);
    edge.get("/stored").expect_status(200).expect_body("stored");
    let mut clients: Vec<_> = (0..2).map(|_| edge.wire()).collect();
    for (n, client) in clients.iter_mut().enumerate() {
        client.ask("GET", "edge.test", &format!("/{n}"), &[], b"");
    }
    held.wait_for(2);
    edge.get("/more").expect_status(503);
    let stale = edge.get("/stored");
    stale.expect_status(200).expect_body("stored");
    let status = stale.value("cache-status").expect("it is told");
    assert!(status.contains("stale") && !status.contains("fwd-status"), "{status}");
    assert_eq!(origin.seen_at("/stored").len(), 1, "nobody was asked");
    open(&gate);
    for client in &mut clients {
        client.reply().expect_status(200);
    }
}

#[test]
fn a_full_line_is_told_and_who_waits_is_served() {
    let (origin, gate) = held();
    let more = "    pool: {max_connections: 1, queue: 1, queue_timeout: 30s}\n";
    let edge = before(&[&origin], more);
    let mut first = edge.wire();
    first.ask("GET", "edge.test", "/1", &[], b"");
    origin.wait_for(1);
    let mut second = edge.wire();
    second.ask("GET", "edge.test", "/2", &[], b"");
    // One of the two who come now is in line, whoever was first; the other is told.
    let mut third = edge.wire();
    third.ask("GET", "edge.test", "/3", &[], b"");
    edge.wait_for_metric("edgeproxy_refusals_total{reason=\"queue_full\"", 1.0);
    open(&gate);
    first.reply().expect_status(200);
    let mut answers = [second.reply().status, third.reply().status];
    answers.sort_unstable();
    assert_eq!(answers, [200, 503]);
    assert_eq!(origin.connections(), 1, "no more than it may have");
}

#[test]
fn who_finds_no_place_or_waits_for_too_long_goes_to_the_other_upstream() {
    let ((origin, gate), other) = (held(), Origin::always(ok("other")));
    let edge = Edge::with(&format!(
        "listeners: [{{name: http, address: \"127.0.0.1:0\"}}]\nupstreams:\n  app:\n    \
         addresses: [\"{}\"]\n    pool: {{max_connections: 1, queue: 1, queue_timeout: 2s}}\n  \
         other: {{addresses: [\"{}\"]}}\nroutes: [{{upstream: app, fallback: {{upstream: other}}}}]\n",
        origin.address, other.address
    ));
    let mut clients: Vec<_> = (0..3).map(|_| edge.wire()).collect();
    for (n, client) in clients.iter_mut().enumerate() {
        client.ask("POST", "edge.test", &format!("/{n}"), &[], b"a body");
    }
    // One has the connection, one was told at once, and one after it had waited.
    assert_eq!(other.wait_for(2)[1].body, b"a body");
    open(&gate);
    let mut answers: Vec<_> =
        clients.iter_mut().map(|client| client.reply().expect_status(200).text()).collect();
    answers.sort_unstable();
    assert_eq!(answers, ["done", "other", "other"]);
    for reason in ["queue_full", "queue_timeout"] {
        let counted = format!("edgeproxy_upstream_errors_total{{reason=\"{reason}\"");
        assert_eq!(edge.metric(&counted), 1.0, "{reason}");
    }
}

#[test]
fn who_waits_for_longer_than_it_may_is_told() {
    let (origin, gate) = held();
    let edge = before(&[&origin], "    pool: {max_connections: 1, queue_timeout: 100ms}\n");
    let mut first = edge.wire();
    first.ask("GET", "edge.test", "/1", &[], b"");
    origin.wait_for(1);
    let told = edge.get_with("/2", &[("Accept", "application/json")]);
    assert!(told.expect_status(503).text().contains("\"queue_timeout\""), "{told:?}");
    edge.wait_for_metric("edgeproxy_refusals_total{reason=\"queue_timeout\"", 1.0);
    open(&gate);
    first.reply().expect_status(200);
    assert_eq!(origin.seen_at("/2").len(), 0);
}

#[test]
fn uploads_that_come_slowly_leave_connections_to_the_others() {
    let origin = Origin::always(ok("here"));
    let edge =
        before(&[&origin], "    pool: {max_connections: 2, queue: 10, queue_timeout: 30s}\n");
    // More than is spooled, and then nothing more for now.
    let (length, part) = (200_000, vec![b'x'; 60_000]);
    let mut uploads: Vec<_> = (0..4).map(|_| edge.wire()).collect();
    for upload in &mut uploads {
        upload.send(format!("POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n"));
        upload.send(&part);
    }
    edge.wait_for_gauge("edgeproxy_backend_requests_in_flight{", 4.0);
    for n in 0..5 {
        edge.get(&format!("/{n}")).expect_status(200);
    }
    // Whoever has the connection now is not known to them: all send on.
    let rest = vec![b'x'; length - part.len()];
    std::thread::scope(|threads| {
        for upload in &mut uploads {
            let rest = &rest;
            threads.spawn(move || {
                upload.send(rest).reply_to("POST").expect_status(200);
            });
        }
    });
    assert_eq!(origin.seen_at("/up").len(), 4);
}
