//! How much is stored, and what many clients at once get of it.

use std::process::Command;
use std::sync::Arc;

use http::Request;

use crate::harness::Edge;
use crate::harness::Origin;
use crate::harness::Wire;
use crate::harness::edge::binary;
use crate::harness::edge::simple;
use crate::harness::http2;

const MEMORY: u64 = 16 << 20;

/// Bytes that tell where they are and whose.
fn pattern(seed: usize, length: usize) -> Vec<u8> {
    let mut state = seed as u64 ^ 0x9e37_79b9_7f4a_7c15;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// The number that a path ends in.
fn seed(target: &str) -> usize {
    target.rsplit('/').next().and_then(|n| n.parse().ok()).unwrap_or(0)
}

#[test]
fn the_store_never_grows_beyond_its_memory_and_goes_on_storing() {
    const OBJECT: usize = 100_000;
    let origin = Origin::script()
        .otherwise(|seen| {
            let body = pattern(seed(seen.target()), OBJECT);
            crate::harness::ok(body).field("Cache-Control", "max-age=600")
        })
        .start();
    let edge = Edge::with(&simple(&origin, "cache: {memory: 16MiB}"));
    let mut wire = edge.wire();
    // Warm, so that what the process needs for itself is not counted.
    for n in 0..50 {
        wire.get("edge.test", &format!("/{n}"), &[]).expect_miss();
    }
    let before = edge.resident();
    for n in 50..600 {
        let target = format!("/{n}");
        let reply = wire.get("edge.test", &target, &[]);
        reply.expect_miss();
        assert!(reply.body == pattern(n, OBJECT), "{target} is not its own body");
        if n % 10 == 0 {
            wire.get("edge.test", &target, &[]).expect_hit();
        }
    }
    let bytes = edge.metric("edgeproxy_cache_bytes");
    assert!(bytes > MEMORY as f64 / 2.0 && bytes <= MEMORY as f64, "{bytes}");
    assert!(edge.metric("edgeproxy_cache_evictions_total") > 300.0);
    let grown = edge.resident().saturating_sub(before);
    assert!(grown < 3 * MEMORY, "{} MiB more than before", grown >> 20);
}

#[test]
fn an_object_larger_than_the_store_passes_through() {
    let body = pattern(1, 20 << 20);
    let large = body.clone();
    let origin = Origin::script()
        .otherwise(move |_| crate::harness::ok(large.clone()).field("Cache-Control", "max-age=600"))
        .start();
    let edge = Edge::with(&simple(&origin, "cache: {memory: 16MiB}"));
    for _ in 0..2 {
        assert!(edge.get("/").expect_miss().body == body);
    }
}

#[test]
fn a_large_object_comes_back_byte_for_byte() {
    let body = pattern(7, (5 << 20) + 4321);
    let sized = body.clone();
    let chunked = {
        let mut text = Vec::new();
        for part in body.chunks(70_001) {
            text.extend_from_slice(format!("{:x}\r\n", part.len()).as_bytes());
            text.extend_from_slice(part);
            text.extend_from_slice(b"\r\n");
        }
        text.extend_from_slice(b"0\r\n\r\n");
        text
    };
    let origin = Origin::script()
        .with("/sized", move |_| {
            crate::harness::ok(sized.clone()).field("Cache-Control", "max-age=600")
        })
        .with("/chunked", move |_| {
            crate::harness::ok(chunked.clone())
                .field("Cache-Control", "max-age=600")
                .field("Transfer-Encoding", "chunked")
        })
        .start();
    let edge = Edge::to(&origin);
    for path in ["/sized", "/chunked"] {
        assert!(edge.get(path).expect_miss().body == body, "{path} on a miss");
        assert!(edge.get(path).expect_hit().body == body, "{path} on a hit");
        let part = edge.get_with(path, &[("Range", "bytes=65530-131080")]);
        assert!(part.expect_status(206).body == body[65530..=131_080], "{path} in part");
    }
}

#[test]
fn many_clients_of_one_key_get_the_same_bytes() {
    let origin = Origin::script()
        .otherwise(|seen| {
            let body = pattern(seed(seen.target()), 50_000);
            crate::harness::ok(body).field("Cache-Control", "max-age=600")
        })
        .start();
    let edge = Edge::to(&origin);
    let to = edge.address("http");
    let body = Arc::new(pattern(3, 50_000));
    std::thread::scope(|scope| {
        for _ in 0..16 {
            let body = Arc::clone(&body);
            scope.spawn(move || {
                let mut wire = Wire::plain(to);
                for _ in 0..10 {
                    let reply = wire.get("edge.test", "/3", &[]);
                    assert!(reply.expect_status(200).body == *body);
                }
            });
        }
    });
    edge.get("/3").expect_hit();
}

#[test]
fn clients_that_ask_for_many_things_at_once_get_each_its_own() {
    let origin = Origin::script()
        .otherwise(|seen| {
            let length = 1000 + seed(seen.target()) * 997 % 70_000;
            crate::harness::ok(pattern(seed(seen.target()), length))
                .field("Cache-Control", "max-age=600")
        })
        .start();
    // Small enough that things go while others come.
    let edge = Edge::with(&simple(&origin, "cache: {memory: 1MiB}"));
    let to = edge.address("http");
    std::thread::scope(|scope| {
        for client in 0..8 {
            scope.spawn(move || {
                let mut wire = Wire::plain(to);
                for step in 0..60 {
                    let n = (client * 7 + step * 13) % 64;
                    let reply = wire.get("edge.test", &format!("/{n}"), &[]);
                    let length = 1000 + n * 997 % 70_000;
                    assert!(reply.expect_status(200).body == pattern(n, length), "{n}");
                }
            });
        }
    });
    assert!(edge.metric("edgeproxy_cache_bytes") <= (1 << 20) as f64);
}

#[test]
fn a_reader_that_stops_does_not_hold_up_another() {
    let body = pattern(1, 4 << 20);
    let large = body.clone();
    let origin = Origin::script()
        .otherwise(move |_| crate::harness::ok(large.clone()).field("Cache-Control", "max-age=600"))
        .start();
    let edge = Edge::to(&origin);
    edge.get("/").expect_miss();
    let mut slow = edge.wire();
    slow.send("GET / HTTP/1.1\r\nHost: edge.test\r\n\r\n");
    let first = slow.read_raw(100);
    assert!(first.starts_with(b"HTTP/1.1 200"));
    assert!(edge.get("/").expect_hit().body == body);
}

#[test]
fn readers_that_stop_cost_little_however_large_the_object_is() {
    const READERS: u64 = 200;
    const MOST: u64 = 96 << 10;
    let body = pattern(1, 16 << 20);
    let large = body.clone();
    let origin = Origin::script()
        .otherwise(move |_| crate::harness::ok(large.clone()).field("Cache-Control", "max-age=600"))
        .start();
    let edge = Edge::with(&simple(&origin, "limits: {min_send_rate: 0}"));
    edge.get("/").expect_miss();
    // Warm, so that what the process needs for itself is not counted.
    assert!(edge.get("/").expect_hit().body == body);
    let within = |before: u64, what: &str| {
        // Whoever reads all of it gets it meanwhile.
        assert!(edge.get("/").expect_hit().body == body);
        let grown = edge.resident().saturating_sub(before);
        assert!(grown < READERS * MOST, "{what}: {} KiB for each", (grown / READERS) >> 10);
    };

    let before = edge.resident();
    let stopped = (0..READERS).map(|_| {
        let mut wire = edge.wire();
        wire.send("GET / HTTP/1.1\r\nHost: edge.test\r\n\r\n");
        assert!(wire.read_raw(100).starts_with(b"HTTP/1.1 200"));
        wire
    });
    let stopped: Vec<Wire> = stopped.collect();
    within(before, "HTTP/1.1");
    drop(stopped);

    let before = edge.resident();
    http2::run(async {
        let mut stopped = Vec::new();
        for _ in 0..READERS / 20 {
            let client = http2::plain(edge.address("http")).await;
            for _ in 0..20 {
                let mut client = client.clone().ready().await.expect("it is open");
                let request = Request::get("http://edge.test/").body(()).expect("a request");
                let (response, _) = client.send_request(request, true).expect("it is sent");
                let response = response.await.expect("an answer");
                assert_eq!(response.status(), 200);
                stopped.push((client, response));
            }
        }
        within(before, "HTTP/2");
    });
}

#[test]
fn a_zone_that_is_full_empties_no_other_and_is_purged_by_itself() {
    let origin = Origin::script()
        .otherwise(|seen| {
            let body = pattern(seed(seen.target()), 100_000);
            crate::harness::ok(body).field("Cache-Control", "max-age=600")
        })
        .start();
    let edge = Edge::with(&format!(
        "listeners:\n  - {{name: http, address: \"127.0.0.1:0\"}}\n\
         upstreams:\n  origin:\n    addresses: [\"{}\"]\n\
         cache: {{memory: 16MiB, zones: {{images: {{memory: 4MiB}}}}}}\n\
         routes:\n  - {{match: {{path_prefix: /img}}, upstream: origin, cache: {{zone: images}}}}\n  \
         - {{upstream: origin}}\n",
        origin.address
    ));
    let mut wire = edge.wire();
    let pages: Vec<String> = (0..20).map(|n| format!("/page/{n}")).collect();
    let images: Vec<String> = (0..200).map(|n| format!("/img/{n}")).collect();
    for target in pages.iter().chain(&images) {
        wire.get("edge.test", target, &[]).expect_miss();
    }
    let of = |what: &str, zone: &str| {
        edge.metric(&format!("edgeproxy_cache_{what}{{tier=\"memory\",zone=\"{zone}\"}}"))
    };
    let limits = (of("limit_bytes", "default"), of("limit_bytes", "images"));
    assert_eq!(limits, ((12 << 20) as f64, (4 << 20) as f64));
    assert!(of("bytes", "images") <= limits.1);
    assert_eq!((of("objects", "default"), of("evictions_total", "default")), (20.0, 0.0));
    assert!(of("evictions_total", "images") > 100.0);
    for target in &pages {
        wire.get("edge.test", target, &[]).expect_hit();
    }

    // What is in a zone is seen, and is purged without the rest.
    wire.get("edge.test", "/img/1000", &[]).expect_miss();
    wire.get("edge.test", "/img/1000", &[]).expect_hit();
    let explained = verb(&edge, &["explain", "http://edge.test/img/1000"]);
    assert!(explained.contains("upstream origin, zone images"), "{explained}");
    let purged = verb(&edge, &["purge", "--zone", "images"]);
    assert!(purged.contains("images"), "{purged}");
    wire.get("edge.test", "/img/1000", &[]).expect_miss();
    wire.get("edge.test", "/page/1", &[]).expect_hit();
    verb(&edge, &["purge", "--zone", "default"]);
    wire.get("edge.test", "/page/1", &[]).expect_miss();
    wire.get("edge.test", "/img/1000", &[]).expect_hit();
}

/// What a verb says of the running process.
#[track_caller]
fn verb(edge: &Edge, arguments: &[&str]) -> String {
    let mut command = Command::new(binary());
    command.args(arguments).args(["-c", "edge.yaml"]).current_dir(edge.folder().path());
    let output = command.env("NO_COLOR", "1").output().expect("the binary runs");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("text")
}
