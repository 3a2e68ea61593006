//! The PROXY protocol: who a connection is from, as a proxy in front says.

use std::io::Write;
use std::net::TcpStream;

use crate::harness::Authority;
use crate::harness::Edge;
use crate::harness::Haproxy;
use crate::harness::Origin;
use crate::harness::Wire;
use crate::harness::client::tls_config;
use crate::harness::http2;
use crate::harness::ok;

const TEXT: &[u8] = b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\n";
const NO_HEADER: &str =
    "edgeproxy_connections_refused_total{listener=\"http\",reason=\"no_proxy_header\"}";

/// Version 2, for TCP over IPv6, with something more to say than addresses.
fn binary() -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x21\0\x2b".to_vec();
    let mut ends = [0; 36];
    ends[..4].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
    ends[15] = 7;
    ends[16..20].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
    (ends[31], ends[33], ends[35]) = (1, 80, 90);
    header.extend(ends);
    header.extend(b"\x05\x00\x04abcd");
    header
}

fn edge(origin: &Origin, proxied: &str, more: &str) -> Edge {
    Edge::with(&format!(
        "listeners:\n  - {{name: http, address: \"127.0.0.1:0\", proxy_protocol: {proxied}}}\n\
         \x20 - name: https\n    address: \"127.0.0.1:0\"\n    proxy_protocol: {proxied}\n\
         \x20   tls: {{certificates: [{{hosts: [edge.test], internal: true}}]}}\n\
         upstreams: {{origin: {{addresses: [\"{}\"]}}}}\n\
         routes: [{{name: all, upstream: origin}}]\n{more}",
        origin.address
    ))
}

/// A connection to `http` that begins with this header.
fn proxied(edge: &Edge, header: &[u8]) -> Wire {
    let mut wire = edge.wire();
    wire.send(header);
    wire
}

#[test]
fn the_client_is_whom_a_trusted_proxy_speaks_for() {
    let origin = Origin::always(ok("x"));
    let edge = edge(&origin, "{from: [127.0.0.1]}", "");

    let mut wire = proxied(&edge, TEXT);
    wire.get("edge.test", "/1", &[("X-Forwarded-For", "10.9.9.9")]).expect_status(200);
    wire.get("edge.test", "/2", &[]).expect_status(200);
    proxied(&edge, &binary()).get("edge.test", "/3", &[]).expect_status(200);

    let addresses: Vec<_> =
        origin.seen().iter().map(|seen| seen.values("x-forwarded-for").join("|")).collect();
    assert_eq!(addresses, ["192.0.2.7", "192.0.2.7", "2001:db8::7"]);
    let line = edge.wait_for_access("192.0.2.7");
    assert!(line.contains("\"client\":\"192.0.2.7\""), "{line}");
}

#[test]
fn the_header_comes_before_tls_and_http_2() {
    let origin = Origin::always(ok("x"));
    let edge = edge(&origin, "{from: [127.0.0.0/8]}", "");
    let introduced = || {
        let mut tcp = TcpStream::connect(edge.address("https")).expect("edgeproxy listens");
        tcp.write_all(&binary()).expect("it takes the header");
        tcp
    };

    let config = tls_config(&edge.root(), &["http/1.1"]);
    let mut wire = Wire::tls_over(introduced(), "edge.test", config).expect("TLS begins");
    wire.get("edge.test", "/1", &[]).expect_status(200);
    http2::run(async {
        let mut send = http2::tls_over(introduced(), "edge.test", &edge.root()).await;
        let reply = http2::get(&mut send, "https://edge.test/2", &[]).await.expect("an answer");
        assert_eq!(reply.status, 200);
    });

    for seen in origin.seen() {
        assert_eq!(seen.values("x-forwarded-for"), ["2001:db8::7"]);
        assert_eq!(seen.values("x-forwarded-proto"), ["https"]);
    }
    assert_eq!(origin.seen().len(), 2);
}

#[test]
fn a_proxy_that_speaks_for_itself_is_the_client() {
    let origin = Origin::always(ok("x"));
    let edge = edge(&origin, "{from: [127.0.0.1]}", "");

    let local: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\x00\0\0";
    for header in [local, b"PROXY UNKNOWN\r\n"] {
        proxied(&edge, header).get("edge.test", "/", &[]).expect_status(200);
    }

    assert!(origin.seen().iter().all(|seen| seen.values("x-forwarded-for") == ["127.0.0.1"]));
}

#[test]
fn without_the_header_a_proxy_is_not_served() {
    let origin = Origin::always(ok("x"));
    let edge = edge(&origin, "{from: [127.0.0.1]}", "limits: {handshake_timeout: 300ms}");

    for bytes in [
        &b"GET / HTTP/1.1\r\nHost: edge.test\r\n\r\n"[..],
        b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\nGET / HTTP/1.1\r\nHost: edge.test\r\n\r\n",
        b"PROXY TCP4 192.0.2.7 198.51",
        b"",
    ] {
        let mut wire = edge.wire();
        let _ = wire.try_send(bytes);
        assert_eq!(wire.until_reset().0, b"", "{:?}", String::from_utf8_lossy(bytes));
    }
    edge.wait_for_metric(NO_HEADER, 4.0);
    // Whoever only asks whether somebody listens is no mistake.
    drop(edge.wire());
    proxied(&edge, TEXT).get("edge.test", "/", &[]).expect_status(200);
    assert_eq!(edge.metric(NO_HEADER), 4.0);
    assert_eq!(origin.seen().len(), 1);
}

#[test]
fn who_is_no_proxy_is_closed_or_served_as_himself_but_never_believed() {
    let origin = Origin::always(ok("x"));

    let closed = edge(&origin, "{from: [10.0.0.0/8]}", "");
    for bytes in [TEXT, b"GET / HTTP/1.1\r\nHost: edge.test\r\n\r\n"] {
        let mut wire = closed.wire();
        let _ = wire.try_send(bytes);
        assert_eq!(wire.until_reset().0, b"");
    }
    let refused = "edgeproxy_connections_refused_total{listener=\"http\",reason=\"not_a_proxy\"}";
    closed.wait_for_metric(refused, 2.0);

    let served = edge(&origin, "{from: [10.0.0.0/8], others: serve}", "");
    served.get("/").expect_status(200);
    assert_eq!(origin.seen()[0].values("x-forwarded-for"), ["127.0.0.1"]);
    proxied(&served, TEXT).reply().expect_status(400);
    assert_eq!(origin.seen().len(), 1);
}

#[test]
fn the_limit_of_a_client_is_not_that_of_its_proxy() {
    let origin = Origin::always(ok("x"));
    let edge = edge(&origin, "{from: [127.0.0.1]}", "limits: {connections_per_client: 1}");

    let mut others: Vec<Wire> = (1..=3)
        .map(|n| proxied(&edge, format!("PROXY TCP4 192.0.2.{n} 192.0.2.9 1 80\r\n").as_bytes()))
        .collect();
    for wire in &mut others {
        wire.get("edge.test", "/", &[]).expect_status(200);
    }
    let mut second = proxied(&edge, b"PROXY TCP4 192.0.2.1 192.0.2.9 2 80\r\n");
    assert_eq!(second.until_reset().0, b"");
    let refused = "edgeproxy_connections_refused_total{listener=\"http\",reason=\"client_limit\"}";
    edge.wait_for_metric(refused, 1.0);
    drop(others);
    edge.wait_for_gauge("edgeproxy_connections{listener=\"http\"}", 0.0);
    let mut again = proxied(&edge, b"PROXY TCP4 192.0.2.1 192.0.2.9 2 80\r\n");
    again.get("edge.test", "/", &[]).expect_status(200);
}

#[test]
fn a_reload_changes_whom_new_connections_believe() {
    let origin = Origin::always(ok("x"));
    let yaml = |proxied: &str| {
        format!(
            "listeners: [{{name: http, address: \"127.0.0.1:0\"{proxied}}}]\n\
             upstreams: {{origin: {{addresses: [\"{}\"]}}}}\n\
             routes: [{{name: all, upstream: origin}}]\n",
            origin.address
        )
    };
    let edge = Edge::with(&yaml(""));
    let mut before = edge.wire();
    before.get("edge.test", "/", &[]).expect_status(200);

    edge.write(&yaml(", proxy_protocol: {from: [127.0.0.1]}")).reload().expect_status(200);

    before.get("edge.test", "/", &[]).expect_status(200);
    proxied(&edge, TEXT).get("edge.test", "/", &[]).expect_status(200);
    assert_eq!(origin.seen()[2].values("x-forwarded-for"), ["192.0.2.7"]);
    assert_eq!(edge.wire().send("GET / HTTP/1.1\r\n\r\n").until_reset().0, b"");
}

/// A real proxy: HAProxy in TCP mode.
#[test]
fn haproxy_says_who_its_clients_are() {
    let origin = Origin::always(ok("x"));
    let edge = edge(&origin, "{from: [127.0.0.1]}", "");
    for send in ["send-proxy", "send-proxy-v2"] {
        let haproxy = Haproxy::start(&format!(
            "frontend in\n  mode tcp\n  bind {{here}}\n  default_backend edge\n\
             backend edge\n  mode tcp\n  server edge {} {send}\n",
            edge.address("http")
        ));
        let mut wire = Wire::plain_from([127, 0, 0, 5].into(), haproxy.address);
        wire.get("edge.test", "/", &[]).expect_status(200);
        let seen = origin.seen().pop().expect("the origin is asked");
        assert_eq!(seen.values("x-forwarded-for"), ["127.0.0.5"], "{send}");
    }
}

/// An origin that takes the PROXY protocol: HAProxy, which says in fields whom it was told of.
fn informed(origin: &Origin) -> Haproxy {
    Haproxy::start(&format!(
        "frontend in\n  mode http\n  bind {{here}} accept-proxy\n\
         \x20 http-request set-header X-From %[src]:%[src_port]\n\
         \x20 http-request set-header X-To %[dst]:%[dst_port]\n\
         \x20 http-request set-header X-Connection %[fc_http_major]-%[uuid()]\n\
         \x20 default_backend origin\nbackend origin\n  mode http\n  server origin {}\n",
        origin.address
    ))
}

/// An edge that believes proxies, in front of `origin`, which wants this version.
fn introducing(to: &Haproxy, version: &str, more: &str) -> Edge {
    Edge::with(&format!(
        "listeners:\n  - {{name: http, address: \"127.0.0.1:0\", proxy_protocol: {{from: [127.0.0.1]}}}}\n\
         upstreams: {{origin: {{addresses: [\"{}\"], proxy_protocol: {version}, health: on, {more}}}}}\n\
         routes: [{{name: all, upstream: origin}}]\n",
        to.address
    ))
}

#[test]
fn an_origin_is_told_for_whom_a_connection_speaks() {
    let origin = Origin::always(ok("x"));
    let haproxy = informed(&origin);
    for version in ["v1", "v2"] {
        let edge = introducing(&haproxy, version, "");
        for (header, from, to) in [
            (TEXT, "192.0.2.7:56324", "198.51.100.1:443"),
            (&binary(), "2001:db8::7:80", "2001:db8::1:90"),
        ] {
            let mut wire = proxied(&edge, header);
            for _ in 0..2 {
                wire.get("edge.test", "/", &[]).expect_status(200);
                let seen = origin.seen().pop().expect("it is asked");
                assert_eq!(seen.values("x-from"), [from], "{version}");
                assert_eq!(seen.values("x-to"), [to], "{version}");
            }
        }
    }
}

#[test]
fn a_connection_that_speaks_for_one_client_carries_no_requests_of_another() {
    let origin = Origin::always(ok("x"));
    let haproxy = informed(&origin);
    let edge = introducing(&haproxy, "v2", "pool: {max_connections: 2}");
    let created = "edgeproxy_backend_pool_created_total";

    let client = |n: usize| {
        let header = format!("PROXY TCP4 192.0.2.{n} 192.0.2.99 {n} 80\r\n");
        proxied(&edge, header.as_bytes())
    };
    let mut wires: Vec<Wire> = (1..=5).map(client).collect();
    for _ in 0..2 {
        for (n, wire) in wires.iter_mut().enumerate() {
            wire.get("edge.test", "/", &[]).expect_status(200);
            wire.get("edge.test", "/", &[]).expect_status(200);
            let seen = origin.seen().pop().expect("it is asked");
            assert_eq!(seen.values("x-from"), [format!("192.0.2.{0}:{0}", n + 1)]);
        }
    }

    // Two requests in a row share one; by the next round it had to make room.
    assert_eq!(edge.metric(created), 10.0, "{:?}", edge.metrics(created));
    assert!(edge.metric("edgeproxy_backend_pool_open{") <= 2.0);
}

#[test]
fn the_header_goes_ahead_of_tls_to_the_origin() {
    let origin = Origin::always(ok("x"));
    let authority = Authority::new();
    let folder = tempfile::tempdir().expect("a folder can be made");
    let root = authority.write(folder.path());
    let (certificate, key) = authority.write_leaf(folder.path(), "server", &["origin.test"]);
    let both = folder.path().join("both.pem");
    let text = [certificate, key].map(|path| std::fs::read_to_string(path).expect("it is there"));
    std::fs::write(&both, text.concat()).expect("the folder can be written to");
    let haproxy = Haproxy::start(&format!(
        "frontend in\n  mode http\n  bind {{here}} accept-proxy ssl crt {}\n\
         \x20 http-request set-header X-From %[src]:%[src_port]\n\
         \x20 default_backend origin\nbackend origin\n  mode http\n  server origin {}\n",
        both.display(),
        origin.address
    ));
    let tls = format!("tls: {{ca: \"{}\", server_name: origin.test}}", root.display());
    let edge = introducing(&haproxy, "v2", &tls);

    proxied(&edge, TEXT).get("edge.test", "/", &[]).expect_status(200);

    assert_eq!(origin.seen()[0].values("x-from"), ["192.0.2.7:56324"]);
}
