//! Answers that come before the request's body was read: they reach the client at once, although the rest of the body
//! is not taken.

use std::io::Read;
use std::io::Write;
use std::net::Shutdown;
use std::net::TcpStream;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;
use std::sync::mpsc::Sender;
use std::sync::mpsc::channel;
use std::time::Duration;
use std::time::Instant;

use bytes::Bytes;
use http::HeaderMap;
use http::Request;
use http::Response;

use super::at_once;
use crate::harness::Edge;
use crate::harness::Gate;
use crate::harness::Origin;
use crate::harness::Origin2;
use crate::harness::PATIENCE;
use crate::harness::edge::timeouts;
use crate::harness::frames::DATA;
use crate::harness::frames::END_HEADERS;
use crate::harness::frames::END_STREAM;
use crate::harness::frames::GOAWAY;
use crate::harness::frames::HEADERS;
use crate::harness::frames::RESET;
use crate::harness::frames::RawOrigin2;
use crate::harness::frames::block;
use crate::harness::frames::frame;
use crate::harness::http2;
use crate::harness::origin2::Call;

/// SETTINGS_INITIAL_WINDOW_SIZE of 0 (RFC 9113 §6.5.2): not a byte of a body may be sent.
pub(super) const NO_WINDOW: &[u8] = &[0, 4, 0, 0, 0, 0];

/// Asks origins of this protocol, with no deadline anywhere near.
pub(super) fn in_front_of(address: impl std::fmt::Display, protocol: &str, route: &str) -> Edge {
    Edge::with(&format!(
        "listeners: [{{name: http, address: \"127.0.0.1:0\", h2c: true}}]\n\
         upstreams:\n  app:\n    addresses: [\"{address}\"]\n    protocol: {protocol}\n    breaker: off\n    \
         {}\nroutes: [{{upstream: app, cache: off{route}}}]\n\
         access_log: {{to: stdout, format: json}}\n",
        timeouts(None)
    ))
}

/// A whole answer to a stream.
pub(super) fn answer(stream: u32, status: &str, body: &str) -> Vec<u8> {
    let length = body.len().to_string();
    let fields = [(":status", status), ("content-length", &length)];
    let mut frames = frame(HEADERS, END_HEADERS, stream, &block(&fields));
    frames.extend(frame(DATA, END_STREAM, stream, body.as_bytes()));
    frames
}

/// What a client of each version gets to an upload of so many bytes, all of which it sends before it reads.
#[track_caller]
fn is_refused_at_once(edge: &Edge, target: &str, size: usize, told: &str) {
    let began = Instant::now();
    let mut stream = TcpStream::connect(edge.address("http")).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time limit");
    let head =
        format!("POST {target} HTTP/1.1\r\nHost: edge.test\r\nContent-Length: {size}\r\n\r\n");
    let mut to = stream.try_clone().expect("a second handle");
    let sends = std::thread::spawn(move || {
        // Once the answer is there, the rest may not be taken any more.
        let _ = to.write_all(&[head.as_bytes(), &vec![b'x'; size]].concat());
    });
    let mut said = Vec::new();
    while !said.ends_with(b"\r\n\r\nno") {
        let mut some = [0; 1024];
        let read = stream.read(&mut some).expect("an answer comes");
        assert_ne!(read, 0, "{told}: {:?}", String::from_utf8_lossy(&said));
        said.extend_from_slice(&some[..read]);
    }
    assert!(said.starts_with(b"HTTP/1.1 413 "), "{told}: {:?}", String::from_utf8_lossy(&said));
    at_once(began, told);
    let _ = stream.shutdown(Shutdown::Both);
    sends.join().expect("it sends");

    let began = Instant::now();
    let (status, body) = http2::run(async {
        let client = http2::plain(edge.address("http")).await;
        let request =
            Request::post(format!("http://edge.test{target}")).body(()).expect("a request");
        let (response, mut sending) = client
            .ready()
            .await
            .expect("it is open")
            .send_request(request, false)
            .expect("a stream");
        sending.send_data(vec![b'x'; size].into(), true).expect("it is open yet");
        let mut response = response.await.expect("an answer comes");
        let body = response.body_mut().data().await.expect("it has a body").expect("a whole one");
        (response.status(), body)
    });
    assert_eq!((status.as_u16(), &*body), (413, &b"no"[..]), "{told}");
    at_once(began, told);
}

#[test]
fn an_answer_to_a_body_that_an_http_2_origin_does_not_take_reaches_the_client_at_once() {
    for (told, settings) in [("64 KiB", &[][..]), ("nothing", NO_WINDOW)] {
        for resets in [false, true] {
            let origin = RawOrigin2::with(settings, move |to, stream| {
                let mut said = answer(stream, "413", "no");
                if resets {
                    // NO_ERROR: it has answered and wants no more (RFC 9113 §8.1).
                    said.extend(frame(RESET, 0, stream, &[0; 4]));
                }
                to.write_all(&said).is_ok()
            });
            let edge = in_front_of(origin.address, "http2", "");
            for size in [100, 60_000, 100_000, 300_000, 400_000, 1_000_000] {
                let told = format!("{told} are taken, reset: {resets}, {size} bytes");
                is_refused_at_once(&edge, "/a", size, &told);
            }
            assert_eq!(origin.asked(), 12, "nothing is said twice");
            assert_eq!(edge.metric("edgeproxy_upstream_errors_total"), 0.0);
        }
    }
}

/// Until no more comes into its buffer than was there a moment ago.
fn until_nothing_comes(stream: &TcpStream) {
    let mut came = vec![0; 16 << 20];
    let mut before = usize::MAX;
    loop {
        let now = stream.peek(&mut came).expect("something came");
        if now == before {
            return;
        }
        before = now;
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn an_answer_to_a_body_that_an_http_1_origin_does_not_take_reaches_the_client_at_once() {
    const ANSWER: &[u8] =
        b"HTTP/1.1 413 Content Too Large\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno";
    // It reads none of it for as long as this is shut.
    let gate = Gate::default();
    let (early, late) = (gate.clone(), gate.clone());
    let origin = Origin::script()
        .take_over("/early", move |_, mut stream| {
            let _ = stream.write_all(ANSWER);
            early.pass();
        })
        .take_over("/late", move |_, mut stream| {
            until_nothing_comes(&stream);
            let _ = stream.write_all(ANSWER);
            late.pass();
        })
        .start();
    for route in ["", ", timeout: 1m"] {
        let edge = in_front_of(origin.address, "http1", route);
        for (target, size) in
            [("/early", 100), ("/early", 100_000), ("/early", 30_000_000), ("/late", 30_000_000)]
        {
            is_refused_at_once(&edge, target, size, &format!("{target}, {size} bytes{route}"));
        }
        assert_eq!(edge.metric("edgeproxy_upstream_errors_total"), 0.0);
    }
    gate.open();
}

#[test]
fn uploads_that_are_held_leave_room_for_others_of_the_same_connection() {
    const HELD: usize = 8;
    let gate = Gate::default();
    let wait = gate.clone();
    let origin = Origin::script()
        .take_over("/held", move |_, mut stream| {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n");
            wait.pass();
        })
        .otherwise(|request| crate::harness::ok(request.body.len().to_string()))
        .start();
    let edge = in_front_of(origin.address, "http1", "");
    let began = Instant::now();
    http2::run(async {
        let mut client = http2::plain(edge.address("http")).await;
        let mut post = async |target: &str, size: usize| {
            let request = Request::post(format!("http://edge.test{target}")).body(());
            let request = request.expect("a request");
            let ready = client.clone().ready().await.expect("it is open");
            client = ready;
            let (response, mut sending) =
                client.send_request(request, false).expect("there is room for a stream");
            sending.send_data(vec![b'x'; size].into(), true).expect("it is open yet");
            (response.await.expect("an answer comes"), sending)
        };
        let mut held = Vec::new();
        for _ in 0..HELD {
            held.push(post("/held", 30_000_000).await);
        }
        let (mut response, _sending) = post("/other", 50_000).await;
        let body = response.body_mut().data().await.expect("it has a body").expect("a whole one");
        assert_eq!((response.status().as_u16(), &*body), (200, &b"50000"[..]));
        assert_eq!(held.len(), HELD);
    });
    at_once(began, "the other one");
    gate.open();
}

/// Sends as much of an upload as there is room for, and counts it.
async fn sends(mut sending: h2::SendStream<Bytes>, sent: Arc<AtomicUsize>) {
    let block = Bytes::from(vec![b'x'; 1_000_000]);
    while let Some(some) = http2::send_some(&mut sending, &block).await {
        sent.fetch_add(some, Ordering::SeqCst);
    }
}

#[test]
fn a_client_that_is_given_no_room_to_send_in_is_not_too_slow() {
    /// Far more than a connection has room for, at up to 64 KiB each.
    const HELD: usize = 40;
    const WINDOW: Duration = Duration::from_secs(2);
    let takes_all = Origin2::start(None, |mut call| async move {
        let length = call.whole().await.0.len();
        call.respond(Response::new(()), length.to_string());
    });
    for spool in ["0", "48KiB"] {
        let gate = Gate::default();
        let wait = gate.clone();
        let takes_nothing = RawOrigin2::with(NO_WINDOW, move |to, stream| {
            wait.pass();
            to.write_all(&frame(RESET, 0, stream, &[0, 0, 0, 2])).is_ok()
        });
        let edge = Edge::with(&format!(
            "listeners: [{{name: http, address: \"127.0.0.1:0\", h2c: true}}]\n\
             limits: {{rate_window: 2s}}\ndefaults: {{cache: off, spool: {spool}}}\n\
             upstreams:\n  held: {{addresses: [\"{}\"], protocol: http2, breaker: off, {times}}}\n  \
             app: {{addresses: [\"{}\"], protocol: http2, {times}}}\n\
             routes: [{{match: {{path: /held}}, upstream: held}}, {{upstream: app}}]\n",
            takes_nothing.address,
            takes_all.address,
            times = timeouts(None)
        ));
        http2::run(async {
            let client = http2::plain(edge.address("http")).await;
            let post = async |target: &str| {
                let request = Request::post(format!("http://edge.test{target}")).body(());
                let client = client.clone().ready().await;
                let mut client = client.expect("it is open");
                client.send_request(request.expect("a request"), false).expect("there is room")
            };
            let sent = Arc::new(AtomicUsize::new(0));
            let mut held = Vec::new();
            for _ in 0..HELD {
                let (response, sending) = post("/held").await;
                tokio::spawn(sends(sending, Arc::clone(&sent)));
                held.push(response);
            }
            let mut before = usize::MAX;
            while before != sent.load(Ordering::SeqCst) {
                before = sent.load(Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            let (other, mut sending) = post("/other").await;
            sending.send_data(vec![b'x'; 50_000].into(), true).expect("it is open");
            let mut other = tokio::spawn(other);
            let early = tokio::time::timeout(2 * WINDOW, &mut other).await;
            assert!(early.is_err(), "{early:?}");
            gate.open();
            let mut response = other.await.expect("no panic").expect("an answer comes");
            let body = response.body_mut().data().await.expect("it has a body");
            assert_eq!(&*body.expect("a whole one"), b"50000", "{response:?}");
        });
    }
}

#[test]
fn an_upload_goes_on_behind_the_head_of_an_answer_that_is_not_whole() {
    // It says that it will answer, waits for all of the body, which it had not taken until then, and says what it was.
    let gate = Gate::default();
    let wait = gate.clone();
    let origin = Origin::script()
        .take_over("/a", move |_, mut stream| {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n");
            wait.pass();
            let mut came = vec![0; UPLOAD];
            stream.read_exact(&mut came).expect("all of it comes");
            let sum: u64 = came.iter().map(|&byte| u64::from(byte)).sum();
            let _ = stream.write_all(format!("{sum:08}").as_bytes());
        })
        .start();
    const UPLOAD: usize = 12_000_000;
    let edge = in_front_of(origin.address, "http1", "");
    let body: Vec<u8> = (0..UPLOAD).map(|n| u8::from(n % 7 == 0)).collect();
    let wanted: usize = body.iter().map(|&byte| usize::from(byte)).sum();
    let mut stream = TcpStream::connect(edge.address("http")).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time limit");
    let mut to = stream.try_clone().expect("a second handle");
    let sends = std::thread::spawn(move || {
        let head =
            format!("POST /a HTTP/1.1\r\nHost: edge.test\r\nContent-Length: {UPLOAD}\r\n\r\n");
        to.write_all(&[head.as_bytes(), &body].concat()).expect("it is taken");
    });
    let mut said = Vec::new();
    let mut read = |until: &[u8]| {
        while !said.ends_with(until) {
            let mut byte = [0; 1];
            stream.read_exact(&mut byte).expect("an answer comes");
            said.push(byte[0]);
        }
    };
    read(b"\r\n\r\n");
    gate.open();
    read(format!("{wanted:08}").as_bytes());
    sends.join().expect("it sends");
}

/// What comes of the upload of so many bytes to an origin that answers 202 in three pieces before it reads any of it:
/// the client has all of the answer before the rest is read.
#[track_caller]
fn is_uploaded_whole(edge: &Edge, size: usize, read_on: &Sender<()>, came: &Receiver<usize>) {
    let mut stream = TcpStream::connect(edge.address("http")).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time limit");
    let mut to = stream.try_clone().expect("a second handle");
    let head = format!("POST /a HTTP/1.1\r\nHost: edge.test\r\nContent-Length: {size}\r\n\r\n");
    let sends = std::thread::spawn(move || {
        to.write_all(&[head.as_bytes(), &vec![b'x'; size]].concat()).expect("all of it is taken");
    });
    let mut said = Vec::new();
    while !said.ends_with(b"well") {
        let mut byte = [0; 1];
        stream.read_exact(&mut byte).expect("an answer comes");
        said.push(byte[0]);
    }
    assert!(said.starts_with(b"HTTP/1.1 202 "), "{:?}", String::from_utf8_lossy(&said));
    read_on.send(()).expect("the origin waits");
    assert_eq!(came.recv_timeout(PATIENCE), Ok(size), "the origin gets all of it");
    sends.join().expect("it sends");
}

/// What each connection of an origin may wait for.
type Shared = Arc<Mutex<Receiver<()>>>;

/// Where an origin and its test tell each other how far they are.
fn signals() -> (Sender<()>, Shared, Sender<usize>, Receiver<usize>) {
    let (read_on, reads) = channel();
    let (tell, came) = channel();
    (read_on, Arc::new(Mutex::new(reads)), tell, came)
}

const SIZES: [usize; 6] = [1_000, 100_000, 310_000, 600_000, 1_000_000, 5_000_000];

#[test]
fn what_is_left_of_an_upload_reaches_an_http_1_origin_that_has_answered() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let at = folder.path().join("origin");
    let (read_on, reads, tell, came) = signals();
    let listener = UnixListener::bind(&at).expect("the folder can be written to");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("somebody comes");
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0; 1];
                stream.read_exact(&mut byte).expect("a head comes");
                head.push(byte[0]);
            }
            let answer = [
                "HTTP/1.1 202 Accepted\r\nConnection: close\r\nContent-Length: 4\r\n\r\n",
                "we",
                "ll",
            ];
            for piece in answer {
                stream.write_all(piece.as_bytes()).expect("it is taken");
                std::thread::sleep(Duration::from_millis(20));
            }
            let _ = reads.lock().expect("nobody panics").recv();
            let bytes = std::io::copy(&mut stream, &mut std::io::sink()).expect("the body comes");
            let _ = tell.send(usize::try_from(bytes).expect("it is small"));
        }
    });
    let edge = in_front_of(format!("unix:{}", at.display()), "http1", "");
    for size in SIZES {
        is_uploaded_whole(&edge, size, &read_on, &came);
    }
}

#[test]
fn what_is_left_of_an_upload_reaches_an_http_2_origin_that_has_answered() {
    for trailers in [false, true] {
        let (read_on, reads, tell, came) = signals();
        let origin = Origin2::start(None, move |mut call: Call| {
            let (reads, tell) = (Arc::clone(&reads), tell.clone());
            async move {
                let head = Response::builder().status(202).header("content-length", "4");
                let head = head.body(()).expect("a good head");
                let mut answer = call.answer.send_response(head, false).expect("it is open");
                for (piece, last) in [("we", false), ("ll", !trailers)] {
                    answer.send_data(piece.into(), last).expect("it is open");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                if trailers {
                    answer.send_trailers(HeaderMap::new()).expect("it is open");
                }
                let waits = move || reads.lock().expect("nobody panics").recv();
                let _ = tokio::task::spawn_blocking(waits).await;
                let _ = tell.send(call.whole().await.0.len());
            }
        });
        let edge = in_front_of(origin.address, "http2", "");
        for size in SIZES {
            is_uploaded_whole(&edge, size, &read_on, &came);
        }
    }
}

#[test]
fn an_upload_that_an_origin_did_not_look_at_is_said_again_while_it_is_kept() {
    const REFUSED_STREAM: [u8; 4] = [0, 0, 0, 7];
    for (told, what) in [
        ("refused", RESET),
        // The last stream that it looked at was none.
        ("left", GOAWAY),
    ] {
        let asked = AtomicUsize::new(0);
        let origin = RawOrigin2::start(move |to, stream| {
            let refused = match what {
                RESET => frame(RESET, 0, stream, &REFUSED_STREAM),
                _ => frame(GOAWAY, 0, 0, &[0; 8]),
            };
            let is_first = asked.fetch_add(1, Ordering::SeqCst).is_multiple_of(2);
            to.write_all(&if is_first { refused } else { answer(stream, "200", "well") }).is_ok()
        });
        let edge = in_front_of(origin.address, "http2", "");
        for n in 0..40 {
            let body = vec![b'x'; [100, 10_000, 30_000, 60_000][n % 4]];
            let reply = edge.wire().request("POST", "edge.test", "/a", &[], &body);
            assert_eq!(reply.status, 200, "{told}, {n}: {reply:?}");
            reply.expect_body("well");
        }
    }
}
