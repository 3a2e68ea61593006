//! The same over HTTP/2.

use std::collections::HashSet;

use bytes::Bytes;
use http::Request;

use crate::caching::minute;
use crate::caching::numbered;
use crate::harness::Edge;
use crate::harness::Origin;
use crate::harness::edge::simple;
use crate::harness::http2;

#[test]
fn miss_and_hit_are_shared_with_http_1() {
    let origin = Origin::script().with("/", numbered(minute(""))).start();
    let edge = Edge::to(&origin);
    http2::run(async {
        let mut send = http2::plain(edge.address("http")).await;
        let miss = http2::get(&mut send, "http://edge.test/", &[]).await.expect("a reply");
        assert_eq!((miss.value("x-cache"), &*miss.body), (Some("MISS"), &b"answer 0"[..]));
        let hit = http2::get(&mut send, "http://edge.test/", &[]).await.expect("a reply");
        assert_eq!((hit.value("x-cache"), &*hit.body), (Some("HIT"), &b"answer 0"[..]));
        assert!(hit.value("age").is_some(), "{hit:?}");
    });
    edge.get("/").expect_hit().expect_body("answer 0");
    assert_eq!(origin.seen().len(), 1);
}

#[test]
fn hits_one_after_the_other_differ_in_their_ids_alone() {
    let origin = Origin::script().with("/", numbered(minute("").field("ETag", "\"1\""))).start();
    let plain = Edge::to(&origin);
    let silent = Edge::with(&simple(&origin, "").replace(
        "upstream: origin}",
        "upstream: origin, headers: {response: {remove: [x-request-id], set: {x-set: a}}}}",
    ));
    for (edge, shown) in [(&plain, 1), (&silent, 0)] {
        http2::run(async {
            let mut send = http2::plain(edge.address("http")).await;
            http2::get(&mut send, "http://edge.test/", &[]).await.expect("a reply");
            let mut ids = HashSet::new();
            let mut texts = HashSet::new();
            for _ in 0..50 {
                let hit = http2::get(&mut send, "http://edge.test/", &[]).await.expect("a reply");
                let mut fields = hit.headers.clone();
                assert_eq!(fields.get_all("x-request-id").iter().count(), shown, "{hit:?}");
                assert_eq!(fields.contains_key("x-set"), shown == 0, "{hit:?}");
                ids.extend(fields.remove("x-request-id"));
                // What a second changes, and nothing else may.
                assert!(fields.remove("age").is_some(), "{hit:?}");
                assert!(fields.remove("cache-status").is_some(), "{hit:?}");
                texts.insert(format!("{fields:?}"));
            }
            assert_eq!((ids.len(), texts.len()), (50 * shown, 1), "{texts:?}");
        });
    }
}

#[test]
fn head_miss_and_head_hit_have_no_content() {
    let origin = Origin::script().with("/", numbered(minute(""))).start();
    let edge = Edge::to(&origin);
    http2::run(async {
        let mut send = http2::plain(edge.address("http")).await;
        for x_cache in ["MISS", "HIT"] {
            let head = Request::head("http://edge.test/").body(()).expect("valid");
            let reply = http2::exchange(&mut send, head, Bytes::new()).await.expect("a reply");
            assert_eq!(reply.status, 200);
            assert_eq!(reply.value("x-cache"), Some(x_cache));
            assert_eq!(reply.value("content-length"), Some("8"), "{reply:?}");
            assert!(reply.body.is_empty(), "{reply:?}");
        }
        let get = http2::get(&mut send, "http://edge.test/", &[]).await.expect("a reply");
        assert_eq!((get.value("x-cache"), &*get.body), (Some("HIT"), &b"answer 0"[..]));
    });
}

#[test]
fn a_condition_is_answered_without_content_on_miss_and_hit() {
    let origin = Origin::always(minute("page").field("ETag", "\"1\""));
    let edge = Edge::to(&origin);
    http2::run(async {
        let mut send = http2::plain(edge.address("http")).await;
        for x_cache in ["MISS", "HIT"] {
            let fields = [("if-none-match", "\"1\"")];
            let reply = http2::get(&mut send, "http://edge.test/", &fields).await.expect("a reply");
            assert_eq!((reply.status, reply.value("x-cache")), (304, Some(x_cache)), "{reply:?}");
            assert!(reply.body.is_empty(), "{reply:?}");
        }
        let get = http2::get(&mut send, "http://edge.test/", &[]).await.expect("a reply");
        assert_eq!((get.value("x-cache"), &*get.body), (Some("HIT"), &b"page"[..]));
    });
}

#[test]
fn ranges_on_miss_hit_and_beyond_the_end() {
    let origin = Origin::always(minute("abcdef"));
    let edge = Edge::to(&origin);
    http2::run(async {
        let mut send = http2::plain(edge.address("http")).await;
        for x_cache in ["MISS", "HIT"] {
            let fields = [("range", "bytes=1-2")];
            let reply =
                http2::get(&mut send, "http://edge.test/r", &fields).await.expect("a reply");
            assert_eq!((reply.status, &*reply.body), (206, &b"bc"[..]), "{reply:?}");
            assert_eq!(reply.value("x-cache"), Some(x_cache));
            let fields = [("range", "bytes=9-")];
            let uri = format!("http://edge.test/{}", if x_cache == "MISS" { "m" } else { "r" });
            let reply = http2::get(&mut send, &uri, &fields).await.expect("a reply");
            assert_eq!((reply.status, &*reply.body), (416, &b""[..]), "{reply:?}");
        }
    });
}

#[test]
fn a_body_sent_without_framing_fields_is_seen_all_the_same() {
    let origin = Origin::script().with("/", numbered(minute(""))).start();
    let edge = Edge::to(&origin);
    http2::run(async {
        let mut send = http2::plain(edge.address("http")).await;
        let fat = Request::get("http://edge.test/").body(()).expect("valid");
        let reply =
            http2::exchange(&mut send, fat, Bytes::from_static(b"evil")).await.expect("a reply");
        assert_ne!(reply.value("x-cache"), Some("HIT"), "{reply:?}");
        let plain = http2::get(&mut send, "http://edge.test/", &[]).await.expect("a reply");
        assert_eq!((plain.value("x-cache"), &*plain.body), (Some("MISS"), &b"answer 1"[..]));
    });
}

#[test]
fn many_streams_get_each_its_own() {
    let origin = Origin::script().otherwise(|seen| minute(seen.target())).start();
    let edge = Edge::to(&origin);
    http2::run(async {
        let send = http2::plain(edge.address("http")).await;
        let mut streams = tokio::task::JoinSet::new();
        for n in 0..60 {
            let mut send = send.clone();
            streams.spawn(async move {
                let path = format!("/{}", n % 20);
                let reply = http2::get(&mut send, &format!("http://edge.test{path}"), &[]).await;
                (path, reply.expect("a reply").body)
            });
        }
        while let Some(done) = streams.join_next().await {
            let (path, body) = done.expect("no stream panics");
            assert_eq!(String::from_utf8_lossy(&body), path);
        }
    });
}
