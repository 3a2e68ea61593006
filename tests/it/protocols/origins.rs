//! What is spoken to origins: TLS, Unix sockets, HTTP/2.

use std::time::Duration;
use std::time::Instant;

use bytes::Bytes;
use http::Request;
use http::Response;

use crate::harness::Authority;
use crate::harness::Edge;
use crate::harness::Origin;
use crate::harness::Origin2;
use crate::harness::PATIENCE;
use crate::harness::client::End;
use crate::harness::edge::timeouts;
use crate::harness::http2;
use crate::harness::ok;
use crate::harness::origin2::Call;
use crate::protocols::edge_to;

/// An HTTP/2 origin that answers with what it was sent.
async fn echo(mut call: Call) {
    let (body, _) = call.whole().await;
    call.respond(Response::new(()), body);
}

#[test]
fn an_origin_with_a_certificate_of_our_authority_is_asked_over_tls() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let origin = Origin::script()
        .otherwise(|seen| ok(seen.target()))
        .start_tls(authority.server(&["origin.test"], &["http/1.1"]));
    let edge = edge_to(&format!(
        "addresses: [\"{}\"], tls: {{ca: {}, server_name: origin.test}}",
        origin.address,
        authority.write(folder.path()).display()
    ));
    let mut wire = edge.wire();

    for target in ["/1", "/2"] {
        wire.get("edge.test", target, &[]).expect_status(200).expect_body(target);
    }

    assert_eq!(origin.seen()[0].server_name.as_deref(), Some("origin.test"));
    assert_eq!(origin.seen()[0].value("host"), Some("edge.test"));
    assert_eq!(origin.connections(), 1);
}

#[test]
fn an_origin_with_a_certificate_for_another_name_is_not_asked() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let origin =
        Origin::script().otherwise(|_| ok("x")).start_tls(authority.server(&["other.test"], &[]));
    let edge = edge_to(&format!(
        "addresses: [\"{}\"], tls: {{ca: {}, server_name: origin.test}}, {}",
        origin.address,
        authority.write(folder.path()).display(),
        timeouts(None)
    ));

    let began = Instant::now();
    edge.get("/").expect_status(502);
    assert!(began.elapsed() < Duration::from_secs(10), "no deadline has to pass");

    assert!(origin.seen().is_empty());
    edge.wait_for_access("origin_certificate");
}

#[test]
fn an_origin_of_an_unknown_authority_is_not_asked() {
    let folder = tempfile::tempdir().unwrap();
    let origin = Origin::script()
        .otherwise(|_| ok("x"))
        .start_tls(Authority::new().server(&["origin.test"], &[]));
    let edge = edge_to(&format!(
        "addresses: [\"{}\"], tls: {{ca: {}, server_name: origin.test}}",
        origin.address,
        Authority::new().write(folder.path()).display()
    ));

    edge.get("/").expect_status(502);

    assert!(origin.seen().is_empty());
}

#[test]
fn an_origin_goes_unchecked_only_when_that_is_asked_for() {
    let origin = Origin::script()
        .otherwise(|_| ok("x"))
        .start_tls(Authority::new().server(&["other.test"], &[]));
    let edge = edge_to(&format!(
        "addresses: [\"{}\"], tls: {{verify: false, server_name: origin.test}}",
        origin.address
    ));

    edge.get("/").expect_status(200).expect_body("x");
}

#[test]
fn an_origin_without_tls_where_tls_is_expected_is_a_bad_gateway() {
    let folder = tempfile::tempdir().unwrap();
    let origin = Origin::always(ok("x"));
    let edge = edge_to(&format!(
        "addresses: [\"{}\"], tls: {{ca: {}, server_name: origin.test}}",
        origin.address,
        Authority::new().write(folder.path()).display()
    ));

    edge.get("/").expect_status(502);
}

#[test]
fn an_origin_may_be_on_a_unix_socket() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("origin.sock");
    let origin = Origin::script().otherwise(|seen| ok(seen.body.clone())).start_unix(&path);
    let edge = edge_to(&format!("addresses: [\"unix:{}\"]", path.display()));
    let mut wire = edge.wire();

    for body in ["one", "two"] {
        wire.request("POST", "edge.test", "/", &[], body.as_bytes())
            .expect_status(200)
            .expect_body(body);
    }

    assert_eq!(origin.connections(), 1);
}

#[test]
fn a_unix_socket_that_is_not_there_is_a_bad_gateway() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("nobody.sock");
    let edge = edge_to(&format!("addresses: [\"unix:{}\"]", path.display()));

    edge.get("/").expect_status(502);
}

#[test]
fn an_origin_may_speak_http_2_in_plain_text() {
    let origin = Origin2::start(None, echo);
    let edge = edge_to(&format!("addresses: [\"{}\"], protocol: http2", origin.address));
    let mut wire = edge.wire();

    for body in ["one", "two", "three"] {
        wire.request("POST", "edge.test", "/a?b", &[], body.as_bytes())
            .expect_status(200)
            .expect_body(body);
    }

    let seen = &origin.seen()[0];
    assert_eq!(seen.uri.to_string(), "http://edge.test/a?b");
    assert_eq!(seen.headers.get("host"), None, "{seen:?}");
    assert_eq!(seen.headers["via"], "1.1 edgeproxy");
    assert_eq!(seen.headers["x-forwarded-for"], "127.0.0.1");
    assert_eq!(origin.connections(), 1);
}

#[test]
fn an_origin_may_speak_http_2_over_tls() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let origin = Origin2::start(Some(authority.server(&["origin.test"], &["h2"])), echo);
    let edge = edge_to(&format!(
        "addresses: [\"{}\"], protocol: http2, tls: {{ca: {}, server_name: origin.test}}",
        origin.address,
        authority.write(folder.path()).display()
    ));

    edge.wire()
        .request("POST", "edge.test", "/", &[], b"hello")
        .expect_status(200)
        .expect_body("hello");

    assert_eq!(origin.server_names(), [Some("origin.test".to_owned())]);
    assert_eq!(origin.seen()[0].uri.authority().map(|a| a.as_str()), Some("edge.test"));
    assert_eq!(origin.seen()[0].uri.scheme_str(), Some("https"));
}

#[test]
fn an_http_2_origin_with_a_certificate_for_another_name_is_not_asked() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let origin = Origin2::start(Some(authority.server(&["other.test"], &["h2"])), echo);
    let edge = edge_to(&format!(
        "addresses: [\"{}\"], protocol: http2, tls: {{ca: {}, server_name: origin.test}}, {}",
        origin.address,
        authority.write(folder.path()).display(),
        timeouts(None)
    ));

    let began = Instant::now();
    edge.get("/").expect_status(502);
    assert!(began.elapsed() < Duration::from_secs(10), "no deadline has to pass");

    assert!(origin.seen().is_empty());
    edge.wait_for_access("origin_certificate");
}

#[test]
fn an_origin_that_does_not_speak_http_2_is_a_bad_gateway() {
    let origin = Origin::always(ok("x"));
    let edge = edge_to(&format!("addresses: [\"{}\"], protocol: http2", origin.address));

    edge.get("/").expect_status(502);
}

#[test]
fn streams_of_many_clients_share_a_connection_to_an_http_2_origin() {
    // Each response begins at once and ends only when all have begun: no stream ends while another one
    // looks for a connection.
    let (end, ends) = tokio::sync::watch::channel(false);
    let origin = Origin2::start(None, move |mut call: Call| {
        let mut ends = ends.clone();
        async move {
            let mut stream = call.answer.send_response(Response::new(()), false).unwrap();
            stream.send_data(Bytes::from_static(b"begun, "), false).unwrap();
            ends.wait_for(|end| *end).await.unwrap();
            stream.send_data(Bytes::from_static(b"ended"), true).unwrap();
        }
    });
    let edge = edge_to(&format!("addresses: [\"{}\"], protocol: http2", origin.address));

    let mut clients: Vec<_> = (0..40).map(|_| edge.wire()).collect();
    for (n, client) in clients.iter_mut().enumerate() {
        client.send(format!("GET /{n} HTTP/1.1\r\nHost: edge.test\r\n\r\n"));
        assert!(client.has_reply(PATIENCE));
        if n == 7 {
            assert_eq!(origin.connections(), 1);
        }
    }
    end.send_replace(true);

    for client in &mut clients {
        client.reply().expect_status(200).expect_body("begun, ended");
    }
    assert_eq!(origin.seen().len(), 40);
    // From eight on each of the two threads may have its own.
    assert!(origin.connections() <= 2);
}

#[test]
fn an_http_2_origin_is_cached_and_answers_head() {
    let origin = Origin2::start(None, |mut call: Call| async move {
        let response = Response::builder().header("cache-control", "max-age=60").body(()).unwrap();
        call.respond(response, "hello");
    });
    let edge = edge_to(&format!("addresses: [\"{}\"], protocol: http2", origin.address));
    let mut wire = edge.wire();

    wire.request("HEAD", "edge.test", "/", &[], b"").expect_status(200).expect_miss();
    wire.get("edge.test", "/", &[]).expect_status(200).expect_hit().expect_body("hello");
    assert_eq!(origin.seen().len(), 1);
}

#[test]
fn a_body_of_unknown_length_from_http_2_is_chunked_for_http_1_1_and_not_for_http_1_0() {
    let origin = Origin2::start(None, |mut call: Call| async move {
        let mut stream = call.answer.send_response(Response::new(()), false).unwrap();
        stream.send_data(Bytes::from_static(b"hello "), false).unwrap();
        stream.send_data(Bytes::from_static(b"world"), false).unwrap();
        stream.send_data(Bytes::new(), true).unwrap();
    });
    let edge = edge_to(&format!("addresses: [\"{}\"], protocol: http2", origin.address));

    let new = edge.get("/");
    new.expect_body("hello world");
    assert_eq!(new.value("transfer-encoding"), Some("chunked"));
    assert_eq!(new.end, End::Whole);

    let mut wire = edge.wire();
    wire.send("GET / HTTP/1.0\r\nHost: edge.test\r\nConnection: keep-alive\r\n\r\n");
    let old = wire.reply();
    old.expect_status(200).expect_body("hello world");
    assert_eq!(old.value("transfer-encoding"), None, "{old:?}");
    assert_ne!(old.value("connection"), Some("keep-alive"), "{old:?}");
}

#[test]
fn an_http_2_origin_that_resets_its_stream_is_a_bad_gateway_or_a_cut_body() {
    let origin = Origin2::start(None, |mut call: Call| async move {
        if call.head.uri.path() == "/early" {
            call.answer.send_reset(h2::Reason::INTERNAL_ERROR);
            return;
        }
        let mut stream = call.answer.send_response(Response::new(()), false).unwrap();
        stream.send_data(Bytes::from_static(b"half"), false).unwrap();
        stream.reserve_capacity(1);
        // Until the first half has left.
        std::future::poll_fn(|cx| stream.poll_capacity(cx)).await;
        stream.send_reset(h2::Reason::INTERNAL_ERROR);
    });
    let edge = edge_to(&format!("addresses: [\"{}\"], protocol: http2", origin.address));

    edge.get("/early").expect_status(502);

    let mut wire = edge.wire();
    wire.send("GET /late HTTP/1.1\r\nHost: edge.test\r\n\r\n");
    // Reset before the header got through, or after it: never a whole response.
    let reply = wire.reply();
    assert!(reply.status == 502 || reply.end == End::Cut, "{reply:?}");
}

#[test]
fn http_2_runs_from_end_to_end() {
    let origin = Origin2::start(None, echo);
    let edge = edge_to(&format!("addresses: [\"{}\"], protocol: http2", origin.address));

    http2::run(async {
        let mut h2 = http2::plain(edge.address("http")).await;
        let request = Request::post("http://edge.test/a").header("cookie", "a=1");
        let request = request.header("cookie", "b=2").body(()).unwrap();
        let reply = http2::exchange(&mut h2, request, Bytes::from_static(b"hello")).await.unwrap();
        assert_eq!((reply.status, &reply.body[..]), (200, &b"hello"[..]));
        assert_eq!(reply.headers["via"], "2 edgeproxy");
    });

    let seen = &origin.seen()[0];
    assert_eq!(seen.headers["via"], "2 edgeproxy");
    let cookies: Vec<_> = seen.headers.get_all("cookie").iter().collect();
    let joined = cookies.iter().map(|c| c.to_str().unwrap()).collect::<Vec<_>>().join("; ");
    assert_eq!(joined, "a=1; b=2");
}

#[test]
fn the_origins_host_may_be_fixed_for_http_2_too() {
    let origin = Origin2::start(None, echo);
    let upstream =
        format!("addresses: [\"{}\"], protocol: http2, host: inside.test", origin.address);
    let edge: Edge = edge_to(&upstream);

    edge.get("/").expect_status(200);

    assert_eq!(origin.seen()[0].uri.authority().map(|a| a.as_str()), Some("inside.test"));
}
