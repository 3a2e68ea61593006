//! gRPC and its like: HTTP/2 from end to end, trailers, both directions at once.

use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;
use http::HeaderValue;
use http::Request;
use http::Response;
use tokio::sync::Notify;

use crate::harness::Edge;
use crate::harness::Origin;
use crate::harness::Origin2;
use crate::harness::http2;
use crate::harness::ok;
use crate::harness::origin2::Call;
use crate::protocols::edge_to;

/// A message as gRPC frames it.
fn message(text: &str) -> Bytes {
    let mut bytes = vec![0];
    bytes.extend_from_slice(&u32::try_from(text.len()).expect("messages are short").to_be_bytes());
    bytes.extend_from_slice(text.as_bytes());
    bytes.into()
}

fn request() -> Request<()> {
    Request::post("http://edge.test/greet.Greeter/Hello")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("grpc-timeout", "5S")
        .body(())
        .expect("a valid request")
}

fn response() -> Response<()> {
    Response::builder()
        .header("content-type", "application/grpc")
        .body(())
        .expect("a valid response")
}

fn trailers(status: &'static str) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static(status));
    trailers.insert("grpc-message", HeaderValue::from_static("so it is"));
    trailers
}

fn edge_in_front_of(origin: &Origin2) -> Edge {
    edge_to(&format!("addresses: [\"{}\"], protocol: http2", origin.address))
}

#[test]
fn a_unary_call_comes_back_with_its_trailers() {
    let origin = Origin2::start(None, |mut call: Call| async move {
        let (body, _) = call.whole().await;
        let mut stream = call.answer.send_response(response(), false).unwrap();
        stream.send_data(body.into(), false).unwrap();
        stream.send_trailers(trailers("0")).unwrap();
    });
    let edge = edge_in_front_of(&origin);

    let reply = http2::run(async {
        let mut h2 = http2::plain(edge.address("http")).await;
        http2::exchange(&mut h2, request(), message("hello")).await.unwrap()
    });

    assert_eq!((reply.status, &reply.body[..]), (200, &message("hello")[..]));
    assert_eq!(reply.value("content-type"), Some("application/grpc"));
    let trailers = reply.trailers.expect("there are trailers");
    assert_eq!(trailers["grpc-status"], "0");
    assert_eq!(trailers["grpc-message"], "so it is");
    let seen = &origin.seen()[0];
    assert_eq!(seen.headers["te"], "trailers");
    assert_eq!(seen.headers["grpc-timeout"], "5S");
}

#[test]
fn a_call_that_fails_at_once_has_only_trailers() {
    let origin = Origin2::start(None, |mut call: Call| async move {
        let mut response = response();
        response.headers_mut().insert("grpc-status", HeaderValue::from_static("12"));
        call.respond(response, "");
    });
    let edge = edge_in_front_of(&origin);

    let reply = http2::run(async {
        let mut h2 = http2::plain(edge.address("http")).await;
        http2::exchange(&mut h2, request(), message("hello")).await.unwrap()
    });

    assert_eq!((reply.status, reply.value("grpc-status")), (200, Some("12")));
    assert!(reply.body.is_empty());
}

#[test]
fn messages_go_to_and_fro_while_both_directions_are_open() {
    let origin = Origin2::start(None, |mut call: Call| async move {
        let mut stream = call.answer.send_response(response(), false).unwrap();
        while let Some(part) = call.data().await {
            stream.send_data(part, false).unwrap();
        }
        stream.send_trailers(trailers("0")).unwrap();
    });
    let edge = edge_in_front_of(&origin);

    http2::run(async {
        let h2 = http2::plain(edge.address("http")).await;
        let (response, mut sending) =
            h2.ready().await.unwrap().send_request(request(), false).unwrap();
        // The origin answers before it is sent anything.
        let mut receiving = response.await.unwrap().into_body();
        for text in ["one", "two", "three"] {
            sending.send_data(message(text), false).unwrap();
            let mut echoed = Vec::new();
            while echoed.len() < message(text).len() {
                let part = receiving.data().await.expect("it goes on").unwrap();
                receiving.flow_control().release_capacity(part.len()).unwrap();
                echoed.extend_from_slice(&part);
            }
            assert_eq!(echoed, message(text));
        }
        sending.send_data(Bytes::new(), true).unwrap();
        assert!(receiving.data().await.is_none());
        let trailers = receiving.trailers().await.unwrap().expect("there are trailers");
        assert_eq!(trailers["grpc-status"], "0");
    });
}

#[test]
fn a_client_that_gives_up_ends_the_call_at_the_origin() {
    let (ended, mut end) = tokio::sync::mpsc::unbounded_channel();
    let origin = Origin2::start(None, move |mut call: Call| {
        let ended = ended.clone();
        async move {
            let mut stream = call.answer.send_response(response(), false).unwrap();
            stream.send_data(message("one"), false).unwrap();
            let reason = std::future::poll_fn(|cx| stream.poll_reset(cx)).await;
            let _ = ended.send(reason.is_ok());
        }
    });
    let edge = edge_in_front_of(&origin);

    http2::run(async {
        let h2 = http2::plain(edge.address("http")).await;
        let (response, mut sending) =
            h2.ready().await.unwrap().send_request(request(), false).unwrap();
        let mut receiving = response.await.unwrap().into_body();
        assert_eq!(receiving.data().await.unwrap().unwrap(), message("one"));
        sending.send_reset(h2::Reason::CANCEL);
        assert_eq!(end.recv().await, Some(true), "the origin was reset");
    });
}

#[test]
fn trailers_that_could_do_harm_are_removed() {
    let origin = Origin2::start(None, |mut call: Call| async move {
        let mut stream = call.answer.send_response(response(), false).unwrap();
        stream.send_data(message("x"), false).unwrap();
        let mut trailers = trailers("0");
        trailers.insert("set-cookie", HeaderValue::from_static("a=1"));
        trailers.insert("cache-control", HeaderValue::from_static("max-age=60"));
        stream.send_trailers(trailers).unwrap();
    });
    let edge = edge_in_front_of(&origin);

    let reply = http2::run(async {
        let mut h2 = http2::plain(edge.address("http")).await;
        http2::exchange(&mut h2, request(), message("x")).await.unwrap()
    });

    let trailers = reply.trailers.expect("there are trailers");
    assert_eq!(trailers["grpc-status"], "0");
    assert_eq!((trailers.get("set-cookie"), trailers.get("cache-control")), (None, None));
}

/// Pingora gives an HTTP/2 request's body on without what follows it.
#[test]
fn request_trailers_end_at_the_proxy() {
    let origin = Origin2::start(None, |mut call: Call| async move {
        let (body, trailers) = call.whole().await;
        assert_eq!(trailers, None);
        call.respond(Response::new(()), body);
    });
    let edge = edge_in_front_of(&origin);

    http2::run(async {
        let h2 = http2::plain(edge.address("http")).await;
        let (response, mut sending) =
            h2.ready().await.unwrap().send_request(request(), false).unwrap();
        sending.send_data(message("x"), false).unwrap();
        sending.send_trailers(trailers("0")).unwrap();
        let mut response = response.await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.body_mut().data().await.unwrap().unwrap(), message("x"));
    });
}

#[test]
fn a_request_with_trailers_is_known_to_be_sent_and_copied() {
    let (shadow, gate) = (Origin::always(ok("shadow")), Arc::new(Notify::new()));
    let opens = Arc::clone(&gate);
    let origin = Origin2::start(None, move |mut call: Call| {
        let gate = Arc::clone(&gate);
        async move {
            call.whole().await;
            gate.notified().await;
            call.respond(Response::new(()), "");
        }
    });
    let edge = Edge::with(&format!(
        "listeners: [{{name: http, address: \"127.0.0.1:0\", h2c: true}}]\n\
         upstreams:\n  app: {{health: off, addresses: [\"{}\"], protocol: http2, concurrency: on}}\n  \
         shadow: {{health: off, addresses: [\"{}\"]}}\n\
         routes: [{{upstream: app, mirror: {{upstream: shadow}}}}]\n",
        origin.address, shadow.address
    ));

    http2::run(async {
        let h2 = http2::plain(edge.address("http")).await;
        // gRPC is not copied.
        let request = Request::post("http://edge.test/").body(()).unwrap();
        let (response, mut sending) =
            h2.ready().await.unwrap().send_request(request, false).unwrap();
        sending.send_data(message("x"), false).unwrap();
        sending.send_trailers(trailers("0")).unwrap();
        let _edge = tokio::task::spawn_blocking(move || {
            edge.wait_for_gauge("edgeproxy_upstream_concurrency{", 1.0);
            assert_eq!(shadow.wait_for(1)[0].body, message("x"));
            opens.notify_one();
            edge
        })
        .await
        .unwrap();
        assert_eq!(response.await.unwrap().status(), 200);
    });
}
