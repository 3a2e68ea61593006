//! What is stored outlives the process, and what was purged does not come back.

use std::io::IoSlice;
use std::io::Read;
use std::io::Write;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::thread;

use rustix::net::SendAncillaryBuffer;
use rustix::net::SendAncillaryMessage;
use rustix::net::SendFlags;
use rustix::net::sendmsg;
use tempfile::TempDir;

use super::Gate;
use super::at;
use super::free_address;
use super::gated;
use crate::harness::Edge;
use crate::harness::Origin;
use crate::harness::Wire;
use crate::harness::ok;

/// An origin whose answers are numbered in the order in which it was asked.
fn numbered() -> (Origin, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let counting = Arc::clone(&asked);
    let origin = Origin::script()
        .otherwise(move |seen| {
            let number = counting.fetch_add(1, Ordering::SeqCst);
            let path = seen.target().trim_start_matches('/').to_owned();
            ok(number.to_string())
                .field("Cache-Control", "max-age=600")
                .field("ETag", &format!("\"{number}\""))
                .field("Vary", "Accept-Language")
                .field("Surrogate-Key", &path)
        })
        .start();
    (origin, asked)
}

struct Pair {
    folder: Arc<TempDir>,
    yaml: String,
    address: SocketAddr,
}

impl Pair {
    fn before(origin: &Origin, more: &str) -> (Self, Edge) {
        let address = free_address();
        let folder = Arc::new(tempfile::tempdir().expect("a folder can be made"));
        let yaml = at(address, origin, "") + more;
        let edge = Edge::in_folder(Arc::clone(&folder), &yaml, &[]);
        (Self { folder, yaml, address }, edge)
    }

    /// The one that follows.
    fn next(&self) -> Edge {
        Edge::in_folder(Arc::clone(&self.folder), &self.yaml, &["-u"])
    }
}

#[test]
fn what_is_stored_is_served_by_the_next_process_as_by_this_one() {
    let origin = Origin::script()
        .with("/variant", |seen| {
            let language = seen.value("Accept-Language").unwrap_or("none").to_owned();
            let fields =
                [("Cache-Control", "max-age=600"), ("Vary", "Accept-Language"), ("Age", "100")];
            fields.iter().fold(ok(language), |reply, (name, value)| reply.field(name, value))
        })
        .on("/tagged", ok("tagged").field("Cache-Control", "max-age=600").field("Cache-Tag", "x"))
        .on("/checked", ok("checked").field("Cache-Control", "max-age=600").field("ETag", "\"v1\""))
        .on("/large", ok(vec![b'l'; 300_000]).field("Cache-Control", "max-age=600"))
        .on("/stale", ok("stale").field("Cache-Control", "max-age=600, stale-if-error=600"))
        .on("/private", ok("private").field("Cache-Control", "private"))
        .start();
    let (pair, mut old) = Pair::before(&origin, "");
    for language in ["de", "en"] {
        old.get_with("/variant", &[("Accept-Language", language)]).expect_miss();
    }
    for path in ["/tagged", "/checked", "/large", "/stale", "/private"] {
        old.get(path).expect_status(200);
    }
    old.get("/tagged").expect_hit();
    old.admin_post("/v1/purge", r#"{"url": "edge.test/stale", "soft": true}"#).expect_status(200);
    let asked = origin.seen().len();

    let new = pair.next();
    assert_eq!(old.wait().code(), Some(0));
    old.wait_for_log("handed over 6 stored responses");
    new.wait_for_log("took over 6 stored responses");
    for language in ["de", "en"] {
        let reply = new.get_with("/variant", &[("Accept-Language", language)]);
        reply.expect_hit().expect_body(language);
        let age: u64 = reply.value("age").and_then(|age| age.parse().ok()).expect("a number");
        assert!((100..160).contains(&age), "{age}");
    }
    let reply = new.get("/checked");
    reply.expect_hit();
    new.get_with("/checked", &[("If-None-Match", "\"v1\"")]).expect_status(304);
    assert_eq!(new.get("/large").expect_hit().body, vec![b'l'; 300_000]);
    new.get("/tagged").expect_hit();
    assert_eq!(origin.seen().len(), asked);
    // How often it was used is known, and what was stale stays so.
    let asked = new.admin_post("/v1/explain", r#"{"url": "http://edge.test/tagged"}"#).text();
    assert!(asked.contains("\"hits\":2"), "{asked}");
    new.get("/stale").expect_cache("EXPIRED");

    let purged = new.admin_post("/v1/purge", r#"{"tag": "x", "count": true}"#).text();
    assert!(purged.contains("\"objects\":1"), "{purged}");
    new.get("/tagged").expect_miss();
}

#[test]
fn the_hit_ratio_after_an_upgrade_is_that_before() {
    let (origin, _) = numbered();
    let (pair, mut edge) = Pair::before(&origin, "");
    let ask = |edge: &Edge| {
        let mut wire = Wire::plain(pair.address);
        let hits = (0..400).filter(|n| {
            let reply = wire.get("edge.test", &format!("/{n}"), &[]);
            if reply.value("connection") == Some("close") {
                wire = Wire::plain(pair.address);
            }
            reply.expect_status(200).value("x-cache") == Some("HIT")
        });
        (hits.count(), edge.metric("edgeproxy_cache_objects"))
    };
    ask(&edge);
    let before = ask(&edge);
    assert_eq!(before.0, 400);
    for _ in 0..3 {
        let next = pair.next();
        edge.wait();
        edge = next;
        let (hits, objects) = ask(&edge);
        assert!(hits >= 380, "{hits} of 400");
        assert_eq!(objects, before.1);
    }
}

#[test]
fn bytes_and_time_are_bounded_and_the_hottest_comes_first() {
    let origin = Origin::script()
        .otherwise(|_| ok(vec![b'x'; 100_000]).field("Cache-Control", "max-age=600"))
        .start();
    let (mut pair, mut old) = Pair::before(&origin, "cache: {handover_memory: 1MiB}\n");
    for n in 0..40 {
        old.get(&format!("/{n}")).expect_miss();
    }
    for n in [3, 17, 31] {
        old.get(&format!("/{n}")).expect_hit();
    }
    let mut new = pair.next();
    old.wait();
    let told = new.wait_for_log("took over ");
    let count = told.split("took over ").nth(1).and_then(|rest| rest.split(' ').next());
    let count: usize = count.and_then(|count| count.parse().ok()).expect("a number");
    assert!((5..=10).contains(&count), "{told}");
    for n in [3, 17, 31] {
        new.get(&format!("/{n}")).expect_hit();
    }
    pair.yaml = pair.yaml.replace("handover_memory: 1MiB", "handover_time: 0s");
    let last = pair.next();
    new.wait();
    last.wait_for_log("nothing stored is taken over");
    last.get("/3").expect_miss();
}

/// Purges and asks again, without an end; whatever is asked after a purge was made after it.
fn purging(
    worker: usize,
    folder: &Arc<TempDir>,
    address: SocketAddr,
    asked: &Arc<AtomicUsize>,
    stop: &Arc<AtomicBool>,
) -> thread::JoinHandle<usize> {
    let socket = folder.path().join("admin.sock");
    let (asked, stop) = (Arc::clone(asked), Arc::clone(stop));
    thread::spawn(move || {
        let number = |reply: &crate::harness::Reply| -> usize {
            reply.expect_status(200).text().parse().expect("a number")
        };
        let purge = |body: &str| {
            let mut stream = UnixStream::connect(&socket).expect("somebody listens");
            let head = "POST /v1/purge HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n";
            write!(stream, "{head}Content-Length: {}\r\n\r\n{body}", body.len()).expect("sent");
            let mut answer = String::new();
            stream.read_to_string(&mut answer).expect("it answers");
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        };
        // A connection that was made before an upgrade is the old process's for a while.
        let mut kept = Wire::plain(address);
        let mut rounds = 0;
        while !stop.load(Ordering::SeqCst) {
            let path = format!("/worker{worker}/{}", rounds % 20);
            let before = asked.load(Ordering::SeqCst);
            match rounds % 4 {
                0 => purge(&format!(r#"{{"url": "http://edge.test{path}"}}"#)),
                1 => purge(&format!(r#"{{"tag": "{}"}}"#, &path[1..])),
                2 => purge(&format!(r#"{{"prefix": "edge.test/worker{worker}"}}"#)),
                _ => {
                    let reply = kept.request("POST", "edge.test", &path, &[], b"x");
                    number(&reply);
                    if reply.value("connection") == Some("close") {
                        kept = Wire::plain(address);
                    }
                }
            }
            let reply = Wire::plain(address).get("edge.test", &path, &[]);
            let made = number(&reply);
            assert!(made >= before, "{path}: {made} was made before {before}: {reply:?}");
            let reply = kept.get("edge.test", &path, &[]);
            let made = number(&reply);
            assert!(made >= before, "{path}, kept: {made} was made before {before}: {reply:?}");
            if reply.value("connection") == Some("close") {
                kept = Wire::plain(address);
            }
            rounds += 1;
        }
        rounds
    })
}

#[test]
fn no_upgrade_undoes_a_purge_whichever_process_hears_of_it() {
    let (origin, asked) = numbered();
    let (pair, mut edge) = Pair::before(&origin, "");
    let mut wire = Wire::plain(pair.address);
    for n in 0..300 {
        wire.get("edge.test", &format!("/ballast/{n}"), &[]).expect_miss();
    }
    let stop = Arc::new(AtomicBool::new(false));
    let workers: Vec<_> =
        (0..3).map(|n| purging(n, &pair.folder, pair.address, &asked, &stop)).collect();
    // All of them at once: those before the last one may not have ended yet.
    let mut before = Vec::new();
    for _ in 0..8 {
        let next = pair.next();
        before.push(std::mem::replace(&mut edge, next));
        edge.wait_for_log("took over ");
        assert!(!workers.iter().any(thread::JoinHandle::is_finished));
    }
    stop.store(true, Ordering::SeqCst);
    for worker in workers {
        let rounds = worker.join().expect("nothing that was purged is seen");
        assert!(rounds > 20, "{rounds}");
    }
    for mut old in before {
        assert_eq!(old.wait().code(), Some(0));
        let broken: Vec<_> =
            old.log().into_iter().filter(|line| line.contains("a purge cannot be told")).collect();
        assert!(broken.is_empty(), "{broken:?}");
    }
    // What nobody purged is still there.
    let hits =
        (0..300).filter(|n| edge.get(&format!("/ballast/{n}")).value("x-cache") == Some("HIT"));
    assert!(hits.count() >= 285);
}

#[test]
fn what_a_process_that_drains_hears_of_counts_for_the_next_and_the_other_way_round() {
    let gate = Gate::default();
    let origin = gated(&gate);
    let (pair, mut old) = Pair::before(&origin, "defaults: {cache: {ttl: 10m}}\n");
    // Something under way keeps the old process.
    let mut slow = old.wire();
    slow.send("GET /slow HTTP/1.1\r\nHost: edge.test\r\n\r\n");
    origin.wait_for(1);
    let mut kept = [old.wire(), old.wire()];
    for path in ["/one", "/two"] {
        old.get(path).expect_miss();
    }
    kept.iter_mut().for_each(|wire| {
        wire.get("edge.test", "/one", &[]).expect_hit();
    });
    let new = pair.next();
    old.wait_for_log("draining 3 connections");
    new.get("/one").expect_hit();
    let [one, other] = &mut kept;
    // An unsafe request at the old one.
    one.request("POST", "edge.test", "/one", &[], b"x").expect_status(200);
    new.get("/one").expect_miss();
    // A purge at the new one, which has the admin listener.
    new.admin_post("/v1/purge", r#"{"host": "edge.test"}"#).expect_status(200);
    new.get("/two").expect_miss();
    other.get("edge.test", "/two", &[]).expect_miss();
    gate.open();
    slow.reply().expect_status(200);
    assert_eq!(old.wait().code(), Some(0));
    new.get("/two").expect_hit();
}

#[test]
fn a_purge_that_the_next_process_does_not_hear_of_is_refused() {
    let gate = Gate::default();
    let origin = gated(&gate);
    let defaults = "defaults: {cache: {ttl: 10m}, purge: {from: [127.0.0.1]}}\n";
    let (pair, mut old) = Pair::before(&origin, defaults);
    let mut slow = old.wire();
    slow.send("GET /slow HTTP/1.1\r\nHost: edge.test\r\n\r\n");
    origin.wait_for(1);
    let mut kept = [old.wire(), old.wire()];
    for wire in &mut kept {
        wire.get("edge.test", "/one", &[]).expect_status(200);
    }
    let mut purge = kept.into_iter().map(|mut wire| {
        let reply = wire.request("PURGE", "edge.test", "/one", &[], b"");
        (reply.status, reply.value("connection").map(str::to_owned))
    });
    let closed = Some("close".to_owned());
    let mut new = pair.next();
    old.wait_for_log("draining 3 connections");
    assert_eq!(purge.next(), Some((200, closed.clone())));
    new.get("/one").expect_miss();
    new.signal(nix::sys::signal::Signal::SIGKILL);
    new.wait();
    old.wait_for_log("cannot be heard");
    assert_eq!(purge.next(), Some((503, closed)));
    gate.open();
    slow.reply().expect_status(200);
    assert_eq!(old.wait().code(), Some(0));
}

#[test]
fn a_process_that_dies_in_disorder_takes_what_it_left_with_it() {
    let gate = Gate::default();
    let origin = gated(&gate);
    let (pair, mut old) = Pair::before(&origin, "defaults: {cache: {ttl: 10m}}\n");
    old.get("/one").expect_miss();
    let mut slow = old.wire();
    slow.send("GET /slow HTTP/1.1\r\nHost: edge.test\r\n\r\n");
    origin.wait_for(2);
    let new = pair.next();
    new.get("/one").expect_hit();
    old.signal(nix::sys::signal::Signal::SIGKILL);
    old.wait();
    new.wait_for_log("what was taken over is dropped");
    new.get("/one").expect_miss();
    new.get("/one").expect_hit();
    gate.open();
}

/// The sum that ends a message.
fn sum(kind: u8, text: &[u8]) -> u64 {
    let mix =
        |value: u64, word: u64| (value ^ word).wrapping_mul(0xff51_afd7_ed55_8ccd).rotate_left(29);
    let length = u32::try_from(text.len()).expect("short");
    let begin = mix(0x9e37_79b9_7f4a_7c15, u64::from(kind) << 32 | u64::from(length));
    let (words, rest) = text.as_chunks::<8>();
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    let words = words.iter().chain([&last]);
    words.fold(begin, |value, word| mix(value, u64::from_le_bytes(*word)))
}

fn message(kind: u8, text: &[u8]) -> Vec<u8> {
    let length = u32::try_from(text.len()).expect("short").to_be_bytes();
    [&[kind], &length[..], text, &sum(kind, text).to_be_bytes()].concat()
}

/// A process that hands its socket over and then says this where it is asked for what it has stored.
fn pretender(place: UnixListener, socket: TcpListener, name: String, says: Vec<u8>) {
    thread::spawn(move || {
        let mut taker = None;
        for stream in place.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut wish = [0];
            if stream.read(&mut wish).unwrap_or(0) == 0 {
                continue;
            }
            if wish[0] == b'H' {
                let fds = [socket.as_fd()];
                let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
                let mut control = SendAncillaryBuffer::new(&mut space);
                assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
                let names = format!("{name}\n");
                let parts = [IoSlice::new(names.as_bytes())];
                sendmsg(&stream, &parts, &mut control, SendFlags::empty()).expect("it is sent");
                taker = Some(stream);
            } else if wish[0] != b'K' {
                // All that is asked is read, so that nothing is reset.
                stream.read_exact(&mut [0; 1 + 4 + 18 + 8]).expect("it asks");
                let _ = stream.write_all(&says);
                drop(stream);
            }
        }
        drop(taker);
    });
}

#[test]
fn a_stream_that_is_broken_leaves_an_empty_cache_and_a_line() {
    let origin = Origin::always(ok("hello").field("Cache-Control", "max-age=600"));
    let hello = message(b'h', &1_u16.to_be_bytes());
    let with = |more: &[&[u8]]| [&[&hello[..]], more].concat().concat();
    let body = message(b'b', b"body");
    let mut changed = message(b'e', b"");
    changed[6] ^= 1;
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (Vec::new(), "speaks nothing of the kind"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(), "the cache begins empty"),
        (message(b'h', &9_u16.to_be_bytes()), "speaks version 9, this one version 1"),
        (with(&[]), "ended without a farewell"),
        (with(&[&message(b'o', b"nonsense")]), "something is no stored response"),
        (with(&[&body]), "a body is longer than was announced"),
        (with(&[&message(b'x', b"")]), "what is unknown here"),
        (with(&[&message(b'p', &[0; 9])]), "is dropped"),
        (with(&[&changed]), "not as it was written"),
        (with(&[&[b'o', 0xff, 0xff, 0xff, 0xff]]), "too long"),
        (with(&[&message(b'o', b"x")[..9]]), "is dropped"),
    ];
    for (says, told) in cases {
        let folder = Arc::new(tempfile::tempdir().expect("a folder can be made"));
        let place = folder.path().join("state");
        std::fs::create_dir_all(&place).expect("folders can be made");
        let place = UnixListener::bind(place.join("upgrade.sock")).expect("it can be bound");
        let address = free_address();
        let socket = TcpListener::bind(address).expect("it is free");
        pretender(place, socket, address.to_string(), says);
        let edge = Edge::in_folder(folder, &at(address, &origin, ""), &["-u"]);
        edge.wait_for_log(told);
        edge.get("/").expect_miss().expect_body("hello");
        edge.get("/").expect_hit();
        assert_eq!(edge.metric("edgeproxy_panics_total"), 0.0);
    }
}
