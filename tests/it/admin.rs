//! The admin listener and the access log: what operators see.

mod access_log;
mod metrics;

use std::io::Read;
use std::io::Write;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

use crate::harness::Edge;
use crate::harness::Origin;
use crate::harness::PATIENCE;
use crate::harness::Wire;
use crate::harness::edge::simple;
use crate::harness::ok;

fn cacheable() -> Origin {
    Origin::always(ok("hello").field("Cache-Control", "max-age=60"))
}

/// With the admin listener on a TCP address.
fn over_tcp(origin: &Origin) -> (Edge, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback can be listened on");
    let address = listener.local_addr().expect("a bound socket has an address");
    drop(listener);
    let edge = Edge::with(&simple(origin, &format!("admin: {{address: \"{address}\"}}")));
    (edge, address)
}

/// Sends these bytes to a Unix socket; returns all that comes back.
fn raw(socket: &Path, bytes: &[u8]) -> String {
    let mut stream = UnixStream::connect(socket).expect("somebody listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
    stream.write_all(bytes).expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    answer
}

#[test]
fn a_process_that_serves_is_healthy_and_ready() {
    let edge = Edge::to(&cacheable());
    let health = edge.admin("GET", "/healthz");
    health.expect_status(200).expect_body("ok\n");
    assert_eq!(health.value("content-type"), Some("text/plain; charset=utf-8"));
    assert_eq!(health.value("cache-control"), Some("no-store"));
    edge.admin("GET", "/readyz").expect_status(200).expect_body("ready\n");
}

#[test]
fn head_is_get_without_a_body() {
    let edge = Edge::to(&cacheable());
    for path in ["/healthz", "/readyz", "/metrics"] {
        edge.admin("HEAD", path).expect_status(200).expect_body("");
    }
}

#[test]
fn clearing_the_cache_says_how_many_objects_went() {
    let edge = Edge::to(&cacheable());
    edge.get("/a").expect_miss();
    edge.get("/b").expect_miss();
    edge.get("/a").expect_hit();
    edge.admin("POST", "/cache/clear").expect_status(200).expect_body("2 objects\n");
    edge.get("/a").expect_miss();
}

#[test]
fn what_is_not_there_is_404_and_says_what_is() {
    let edge = Edge::to(&cacheable());
    for path in ["/", "/healthz/", "/metrics/x", "/cache", "/cache/clear/x"] {
        let reply = edge.admin("GET", path);
        reply.expect_status(404);
        assert!(reply.text().contains("GET /readyz"), "{path}: {reply:?}");
    }
}

#[test]
fn a_wrong_method_is_405_and_changes_nothing() {
    let edge = Edge::to(&cacheable());
    edge.get("/a").expect_miss();
    for method in ["GET", "HEAD", "PUT", "DELETE"] {
        let reply = edge.admin(method, "/cache/clear");
        reply.expect_status(405);
        assert_eq!(reply.value("allow"), Some("POST"), "{method}");
    }
    for path in ["/healthz", "/readyz", "/metrics"] {
        let reply = edge.admin("POST", path);
        reply.expect_status(405);
        assert_eq!(reply.value("allow"), Some("GET, HEAD"), "{path}");
    }
    edge.get("/a").expect_hit();
}

#[test]
fn it_listens_on_a_loopback_address_too() {
    let origin = cacheable();
    let (_edge, address) = over_tcp(&origin);
    let mut wire = Wire::plain(address);
    // More than one request on a connection, by name and by address.
    for host in ["localhost", "127.0.0.1", &address.to_string(), "[::1]:1"] {
        wire.get(host, "/readyz", &[]).expect_status(200);
    }
    let again = Wire::plain(address).request("POST", "localhost", "/cache/clear", &[], b"");
    again.expect_status(200).expect_body("0 objects\n");
}

#[test]
fn web_pages_are_refused() {
    let origin = cacheable();
    let (edge, address) = over_tcp(&origin);
    edge.get("/a").expect_miss();
    for origin in ["http://evil.example", "null", "http://localhost", ""] {
        let fields = [("Origin", origin)];
        let reply = Wire::plain(address).request("POST", "localhost", "/cache/clear", &fields, b"");
        reply.expect_status(403);
    }
    edge.get("/a").expect_hit();
}

#[test]
fn names_that_were_made_to_point_here_are_refused() {
    let origin = cacheable();
    let (_edge, address) = over_tcp(&origin);
    for host in ["evil.example", "evil.example:9180", "localhost.evil.example", "127.0.0.1.nip.io"]
    {
        Wire::plain(address).get(host, "/metrics", &[]).expect_status(403);
    }
    // Two names, one of which would do.
    Wire::plain(address).get("localhost", "http://evil.example/metrics", &[]).expect_status(400);
}

#[test]
fn only_its_user_can_open_the_socket() {
    let edge = Edge::to(&cacheable());
    for name in ["admin.sock", "upgrade.sock"] {
        let about = edge.folder().path().join(name).symlink_metadata().expect("it exists");
        assert_eq!(about.permissions().mode() & 0o777, 0o600, "{name}");
    }
}

#[test]
fn hostile_bytes_end_their_connection_and_nothing_else() {
    let edge = Edge::to(&cacheable());
    let socket = edge.folder().path().join("admin.sock");
    for (bytes, status) in [
        (&b"GET /metrics HTTP/1.1\r\n\r\n"[..], "400"),
        (b"GET /metrics HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "400"),
        (b"nonsense\r\n\r\n", "400"),
        (b"POST /cache/clear HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", "400"),
    ] {
        let answer = raw(&socket, bytes);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
    }
    edge.admin("GET", "/readyz").expect_status(200);
}

#[test]
fn asking_leaves_no_trace_in_metrics_and_logs() {
    let edge = Edge::to(&cacheable());
    for _ in 0..3 {
        edge.admin("GET", "/healthz").expect_status(200);
    }
    assert!(edge.metric("edgeproxy_requests_total") < 0.5);
    assert!(edge.metric("edgeproxy_connections_total") < 0.5);
    edge.get("/marker").expect_status(200);
    edge.wait_for_access("/marker");
    assert_eq!(edge.access_log().len(), 1, "{:?}", edge.access_log());
}
