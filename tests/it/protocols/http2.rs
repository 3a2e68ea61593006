//! HTTP/2 clients.

use std::sync::Arc;
use std::sync::Barrier;

use bytes::Bytes;
use http::Request;
use http::Uri;

use crate::harness::Edge;
use crate::harness::Origin;
use crate::harness::Respond;
use crate::harness::edge::simple;
use crate::harness::http2;
use crate::harness::ok;
use crate::harness::status;
use crate::protocols::secure;

#[test]
fn prior_knowledge_opens_http_2_on_plain_text() {
    let origin = Origin::always(ok("hello"));
    let edge = Edge::to(&origin);

    let reply = http2::run(async {
        let mut h2 = http2::plain(edge.address("http")).await;
        http2::get(&mut h2, "http://edge.test/a?b", &[]).await.unwrap()
    });

    assert_eq!((reply.status, &reply.body[..]), (200, &b"hello"[..]));
    let seen = &origin.seen()[0];
    assert_eq!(seen.line, "GET /a?b HTTP/1.1");
    assert_eq!(seen.values("host"), ["edge.test"]);
}

#[test]
fn without_h2c_the_preface_is_refused() {
    let origin = Origin::always(ok("hello"));
    let config = simple(&origin, "").replace("h2c: true", "h2c: false");
    let edge = Edge::with(&config);
    let mut wire = edge.wire();

    wire.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");

    wire.reply().expect_status(505);
    assert!(origin.seen().is_empty());
}

#[test]
fn alpn_opens_http_2_over_tls() {
    let origin = Origin::always(ok("hello"));
    let tls = "{certificates: [{hosts: [edge.test], internal: true}]}";
    let edge = Edge::with(&secure(&origin, tls));

    let reply = http2::run(async {
        let mut h2 = http2::tls(edge.address("https"), "edge.test", &edge.root()).await;
        http2::get(&mut h2, "https://edge.test/", &[]).await.unwrap()
    });

    assert_eq!((reply.status, &reply.body[..]), (200, &b"hello"[..]));
    assert_eq!(origin.seen()[0].value("x-forwarded-proto"), Some("https"));
}

#[test]
fn streams_run_beside_each_other() {
    const STREAMS: usize = 40;
    // Each request is answered only when all of them have arrived.
    let all = Arc::new(Barrier::new(STREAMS));
    let origin = Origin::script()
        .otherwise(move |seen| {
            all.wait();
            ok(seen.target())
        })
        .start();
    let edge = Edge::to(&origin);

    http2::run(async {
        let h2 = http2::plain(edge.address("http")).await;
        let tasks = (0..STREAMS).map(|n| {
            let mut h2 = h2.clone();
            tokio::spawn(async move {
                let uri = format!("http://edge.test/{n}");
                (n, http2::get(&mut h2, &uri, &[]).await.unwrap())
            })
        });
        for task in tasks.collect::<Vec<_>>() {
            let (n, reply) = task.await.unwrap();
            assert_eq!((reply.status, reply.body), (200, format!("/{n}").into_bytes()));
        }
    });
}

#[test]
fn more_streams_than_allowed_wait_for_their_turn() {
    let origin = Origin::script().otherwise(|seen| ok(seen.target())).start();
    let edge = Edge::with(&simple(&origin, "limits: {h2_streams: 4}"));

    http2::run(async {
        let mut h2 = http2::plain(edge.address("http")).await;
        http2::get(&mut h2, "http://edge.test/first", &[]).await.unwrap();
        assert_eq!(h2.current_max_send_streams(), 4);
        let tasks = (0..50).map(|n| {
            let mut h2 = h2.clone();
            tokio::spawn(async move {
                http2::get(&mut h2, &format!("http://edge.test/{n}"), &[]).await.unwrap().status
            })
        });
        for task in tasks.collect::<Vec<_>>() {
            assert_eq!(task.await.unwrap(), 200);
        }
    });
}

#[test]
fn head_no_content_and_not_modified_have_no_body() {
    let origin = Origin::script()
        .on("/head", ok("hello"))
        .on("/204", status(204))
        .on("/304", status(304).field("ETag", "\"e\""))
        .start();
    let edge = Edge::with(&simple(&origin, "defaults: {cache: off}"));

    http2::run(async {
        let mut h2 = http2::plain(edge.address("http")).await;
        let head = Request::head("http://edge.test/head").body(()).unwrap();
        let reply = http2::exchange(&mut h2, head, Bytes::new()).await.unwrap();
        assert_eq!((reply.status, reply.body.len()), (200, 0));
        assert_eq!(reply.value("content-length"), Some("5"));
        for (path, status) in [("/204", 204), ("/304", 304)] {
            let uri = format!("http://edge.test{path}");
            let reply = http2::get(&mut h2, &uri, &[("if-none-match", "\"e\"")]).await.unwrap();
            assert_eq!((reply.status, reply.body.len()), (status, 0), "{reply:?}");
            assert_eq!(reply.value("content-length"), None, "{reply:?}");
        }
    });
}

#[test]
fn head_has_no_body_where_the_cache_makes_a_get_of_it() {
    let origin = Origin::always(ok("hello"));
    let edge = Edge::to(&origin);

    http2::run(async {
        let mut h2 = http2::plain(edge.address("http")).await;
        let head = Request::head("http://edge.test/").body(()).unwrap();
        let reply = http2::exchange(&mut h2, head, Bytes::new()).await.unwrap();
        assert_eq!((reply.status, reply.body.len()), (200, 0));
        assert_eq!(reply.value("content-length"), Some("5"));
    });
}

#[test]
fn a_304_made_of_the_origins_whole_response_has_no_body() {
    let origin = Origin::always(ok("hello").field("ETag", "\"e\""));
    let edge = Edge::to(&origin);

    http2::run(async {
        let mut h2 = http2::plain(edge.address("http")).await;
        let known = [("if-none-match", "\"e\"")];
        let reply = http2::get(&mut h2, "http://edge.test/", &known).await.unwrap();
        assert_eq!((reply.status, reply.body.len()), (304, 0), "{reply:?}");
    });
}

#[test]
fn what_is_stored_for_http_1_is_a_hit_for_http_2() {
    let origin = Origin::always(Respond::raw(
        "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nConnection: X-Hop\r\nX-Hop: 1\r\n\
         Keep-Alive: timeout=5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    ));
    let edge = Edge::to(&origin);
    edge.get("/").expect_miss().expect_body("hello");

    http2::run(async {
        let mut h2 = http2::plain(edge.address("http")).await;
        let hit = http2::get(&mut h2, "http://edge.test/", &[]).await.unwrap();
        assert_eq!(hit.value("x-cache"), Some("HIT"), "{hit:?}");
        assert_eq!(hit.body, b"hello");
        let head = Request::head("http://edge.test/").body(()).unwrap();
        let reply = http2::exchange(&mut h2, head, Bytes::new()).await.unwrap();
        assert_eq!((reply.value("x-cache"), reply.body.len()), (Some("HIT"), 0));
    });
}

#[test]
fn fields_of_an_http_1_connection_do_not_reach_http_2() {
    let origin = Origin::always(
        ok("x").field("Connection", "X-Hop").field("X-Hop", "1").field("Keep-Alive", "timeout=5"),
    );
    let edge = Edge::to(&origin);

    let reply = http2::run(async {
        let mut h2 = http2::plain(edge.address("http")).await;
        http2::get(&mut h2, "http://edge.test/", &[]).await.unwrap()
    });

    assert_eq!(reply.status, 200);
    for name in ["connection", "x-hop", "keep-alive", "transfer-encoding"] {
        assert_eq!(reply.value(name), None, "{reply:?}");
    }
}

#[test]
fn cookie_crumbs_are_joined_for_an_http_1_origin() {
    let origin = Origin::always(ok("x"));
    let edge = Edge::to(&origin);

    http2::run(async {
        let mut h2 = http2::plain(edge.address("http")).await;
        let crumbs = [("cookie", "a=1"), ("cookie", "b=2"), ("cookie", "c=3")];
        http2::get(&mut h2, "http://edge.test/", &crumbs).await.unwrap();
    });

    assert_eq!(origin.seen()[0].values("cookie"), ["a=1; b=2; c=3"]);
}

#[test]
fn options_for_the_whole_server_reaches_the_origin() {
    let origin = Origin::always(status(204));
    let edge = Edge::to(&origin);

    let reply = http2::run(async {
        let mut h2 = http2::plain(edge.address("http")).await;
        let server = Uri::builder().scheme("http").authority("edge.test").path_and_query("*");
        let request = Request::options(server.build().unwrap()).body(()).unwrap();
        http2::exchange(&mut h2, request, Bytes::new()).await.unwrap()
    });

    assert_eq!(reply.status, 204);
    assert_eq!(origin.seen()[0].line, "OPTIONS * HTTP/1.1");
}

#[test]
fn a_refused_stream_leaves_the_others_alone() {
    let origin = Origin::script().otherwise(|seen| ok(seen.target())).start();
    let edge = Edge::to(&origin);

    http2::run(async {
        let mut h2 = http2::plain(edge.address("http")).await;
        let trace = Request::builder().method("TRACE").uri("http://edge.test/").body(()).unwrap();
        let refused = http2::exchange(&mut h2, trace, Bytes::new()).await.unwrap();
        assert_eq!(refused.status, 405);
        assert!(refused.value("allow").is_some_and(|allow| allow.contains("GET")), "{refused:?}");
        let reply = http2::get(&mut h2, "http://edge.test/after", &[]).await.unwrap();
        assert_eq!((reply.status, &reply.body[..]), (200, &b"/after"[..]));
    });
}

#[test]
fn a_body_that_ends_with_an_empty_frame_ends_once() {
    let origin = Origin::script().otherwise(|seen| ok(seen.body.clone())).start();
    let edge = Edge::to(&origin);

    http2::run(async {
        let h2 = http2::plain(edge.address("http")).await;
        for body in ["", "hello"] {
            let request = Request::post("http://edge.test/").body(()).unwrap();
            let (response, mut sending) =
                h2.clone().ready().await.unwrap().send_request(request, false).unwrap();
            if !body.is_empty() {
                sending.send_data(Bytes::from(body), false).unwrap();
            }
            sending.send_data(Bytes::new(), true).unwrap();
            let mut response = response.await.unwrap();
            assert_eq!(response.status(), 200);
            let mut echoed = Vec::new();
            while let Some(part) = response.body_mut().data().await {
                echoed.extend_from_slice(&part.unwrap());
            }
            assert_eq!(echoed, body.as_bytes());
        }
    });

    // Nothing was left on the origin's connection that another request would have met.
    assert_eq!((origin.seen().len(), origin.connections()), (2, 1));
}

#[test]
fn a_connection_that_began_in_http_1_does_not_become_http_2() {
    let origin = Origin::always(ok("x"));
    let edge = Edge::to(&origin);
    let mut wire = edge.wire();
    wire.get("edge.test", "/", &[]).expect_status(200);
    wire.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    wire.reply().expect_status(505);
}
