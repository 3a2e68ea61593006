//! Listeners come, go and speak otherwise.

use std::fs;
use std::net::TcpListener;
use std::net::TcpStream;

use super::json;
use super::kept::slow;
use crate::harness::Edge;
use crate::harness::Origin;
use crate::harness::Wire;
use crate::harness::edge::simple;
use crate::harness::ok;
use crate::process::daemon::eventually;
use crate::process::free_address;

/// These listeners, before this origin.
fn with(listeners: &[String], origin: &Origin) -> String {
    format!(
        "listeners: [{}]\nupstreams: {{app: {{health: off, addresses: [\"{}\"]}}}}\n\
         routes: [{{name: all, upstream: app}}]\n",
        listeners.join(", "),
        origin.address
    )
}

fn plain(name: &str, address: std::net::SocketAddr) -> String {
    format!("{{name: {name}, address: \"{address}\"}}")
}

#[test]
fn one_that_is_added_serves_and_one_that_is_removed_lets_those_who_are_in_finish() {
    let (origin, go, begun) = slow();
    let [first, second] = [free_address(), free_address()];
    let edge = Edge::with(&with(&[plain("first", first), plain("second", second)], &origin));
    let mut busy = Wire::plain(second);
    busy.ask("GET", "edge.test", "/slow", &[], b"");
    begun.recv().expect("it begins");
    let mut idle = Wire::plain(second);
    idle.get("edge.test", "/", &[]).expect_status(200);
    let mut stays = Wire::plain(first);
    stays.get("edge.test", "/", &[]).expect_status(200);

    let third = free_address();
    let yaml = with(&[plain("first", first), plain("third", third)], &origin);
    let said = json(edge.write(&yaml).reload().expect_status(200));
    assert_eq!(said["summary"], "listeners added: third; listeners removed: second");
    Wire::plain(third).get("edge.test", "/", &[]).expect_status(200);
    edge.wait_for_metric("edgeproxy_requests_total{cache=\"bypass\",listener=\"third\"", 0.0);
    assert!(TcpStream::connect(second).is_err(), "nobody listens there any more");
    // Nothing happens on the idle one, so it is closed at once; the other one when it has its answer.
    assert!(idle.any_reply("GET").is_none());
    go.send(()).expect("it waits");
    let reply = busy.reply();
    assert_eq!(reply.expect_status(200).body.len(), 10_000);
    assert!(busy.any_reply("GET").is_none());
    stays.get("edge.test", "/", &[]).expect_status(200);

    // The place is free again, for others and for ourselves.
    drop(TcpListener::bind(second).expect("nobody listens there"));
    let yaml = with(&[plain("first", first), plain("again", second)], &origin);
    for _ in 0..3 {
        edge.write(&yaml).reload().expect_status(200);
        Wire::plain(second).get("edge.test", "/", &[]).expect_status(200);
        edge.write(&with(&[plain("first", first)], &origin)).reload().expect_status(200);
        assert!(TcpStream::connect(second).is_err());
    }
    stays.get("edge.test", "/", &[]).expect_status(200);
}

#[test]
fn one_that_is_renamed_keeps_its_socket_and_its_connections() {
    let origin = Origin::always(ok("hello"));
    let address = free_address();
    let edge = Edge::with(&with(&[plain("old", address)], &origin));
    let mut wire = Wire::plain(address);
    wire.get("edge.test", "/", &[]).expect_status(200);
    edge.write(&with(&[plain("new", address)], &origin)).reload().expect_status(200);
    wire.get("edge.test", "/", &[]).expect_status(200);
    Wire::plain(address).get("edge.test", "/", &[]).expect_status(200);
    edge.wait_for_metric("edgeproxy_connections_total{listener=\"new\"}", 1.0);
}

#[test]
fn an_address_that_cannot_be_had_refuses_the_whole_reload() {
    let (origin, other) = (Origin::always(ok("one")), Origin::always(ok("other")));
    let [first, added] = [free_address(), free_address()];
    let edge = Edge::with(&with(&[plain("first", first)], &origin));
    let taken = TcpListener::bind("127.0.0.1:0").expect("loopback can be listened on");
    let taken = taken.local_addr().map(|at| (taken, at)).expect("it has an address");
    let yaml =
        with(&[plain("first", first), plain("added", added), plain("taken", taken.1)], &other);
    let said = json(edge.write(&yaml).reload().expect_status(409));
    let why = said["error"].as_str().expect("a text");
    assert!(why.contains(&format!("cannot listen on {} (listener \"taken\")", taken.1)), "{why}");
    assert!(TcpStream::connect(added).is_err(), "nothing by halves");
    Wire::plain(first).get("edge.test", "/", &[]).expect_body("one");
    drop(taken);
    edge.reload().expect_status(200);
    Wire::plain(added).get("edge.test", "/", &[]).expect_body("other");
    Wire::plain(first).get("edge.test", "/", &[]).expect_body("other");
}

#[test]
fn tls_and_its_settings_change_for_who_connects_from_then_on() {
    let origin = Origin::always(ok("hello"));
    let address = free_address();
    let listener = |tls: &str| vec![format!("{{name: https, address: \"{address}\"{tls}}}")];
    let internal = |hosts: &str, more: &str| {
        format!(", tls: {{{more}certificates: [{{hosts: [{hosts}], internal: true}}]}}")
    };
    let edge = Edge::with(&with(&listener(""), &origin));
    let mut before = Wire::plain(address);
    before.get("edge.test", "/", &[]).expect_status(200);

    edge.write(&with(&listener(&internal("edge.test", "")), &origin)).reload().expect_status(200);
    let secure = |name: &str, alpn: &[&str]| Wire::tls(address, name, &edge.root(), alpn);
    let mut first = secure("edge.test", &["http/1.1"]).expect("it speaks TLS");
    first.get("edge.test", "/", &[]).expect_status(200);
    assert!(secure("other.test", &["http/1.1"]).is_err());
    before.get("edge.test", "/", &[]).expect_status(200);

    let both = internal("edge.test, other.test", "http2: false, min_version: \"1.3\", ");
    let said = json(edge.write(&with(&listener(&both), &origin)).reload().expect_status(200));
    assert_eq!(said["changes"]["certificates"], serde_json::json!(["https"]));
    let wire = secure("other.test", &["h2", "http/1.1"]).expect("its certificate is there");
    assert_eq!(wire.alpn().as_deref(), Some(b"http/1.1".as_slice()));
    first.get("edge.test", "/", &[]).expect_status(200);

    edge.write(&with(&listener(""), &origin)).reload().expect_status(200);
    Wire::plain(address).get("edge.test", "/", &[]).expect_status(200);
    first.get("edge.test", "/", &[]).expect_status(200);
}

#[test]
fn sessions_go_on_where_tls_is_spoken_as_before() {
    let origin = Origin::always(ok("hello"));
    let address = free_address();
    let listener = |more: &str| {
        vec![format!(
            "{{name: https, address: \"{address}\", tls: {{{more}certificates: [{{hosts: [edge.test], internal: true}}]}}}}"
        )]
    };
    let edge = Edge::with(&with(&listener(""), &origin));
    let config = crate::harness::client::tls_config(&edge.root(), &["http/1.1"]);
    let visit = || {
        let mut wire = Wire::tls_with(address, "edge.test", config.clone()).expect("it speaks TLS");
        wire.get("edge.test", "/", &[]).expect_status(200);
        wire.handshake().and_then(|tls| tls.handshake_kind())
    };
    assert_eq!(visit(), Some(rustls::HandshakeKind::Full));
    assert_eq!(visit(), Some(rustls::HandshakeKind::Resumed));
    edge.write(&with(&listener("http2: false, "), &origin)).reload().expect_status(200);
    assert_eq!(visit(), Some(rustls::HandshakeKind::Resumed));
    edge.write(&(with(&listener(""), &origin) + "limits: {h2_streams: 7}\n"))
        .reload()
        .expect_status(200);
    assert_eq!(visit(), Some(rustls::HandshakeKind::Resumed));
}

#[test]
fn limits_count_for_who_connects_from_then_on() {
    let origin = Origin::always(ok("hello"));
    let edge = Edge::with(&simple(&origin, ""));
    let mut before = edge.wire();
    before.get("edge.test", "/", &[]).expect_status(200);
    edge.write(&simple(
        &origin,
        "limits: {connections_per_client: 2, requests_per_connection: 1}\n",
    ));
    edge.reload().expect_status(200);
    before.get("edge.test", "/", &[]).expect_status(200);
    let mut second = edge.wire();
    let reply = second.get("edge.test", "/", &[]);
    assert_eq!(reply.expect_status(200).value("connection"), Some("close"));
    // Two are in: one from before, and this one, once the second is gone.
    eventually("there is room again", || {
        (edge.metric("edgeproxy_connections{") < 2.0).then_some(())
    });
    let third = edge.wire();
    let mut fourth = edge.wire();
    let _ = fourth.try_send("GET / HTTP/1.1\r\nHost: edge.test\r\n\r\n");
    let mut byte = [0];
    assert!(!matches!(std::io::Read::read(&mut fourth, &mut byte), Ok(1..)), "it is turned away");
    drop(third);
    before.get("edge.test", "/", &[]).expect_status(200);
}

#[test]
fn a_successor_takes_over_what_was_added() {
    let origin = Origin::always(ok("hello"));
    let [first, added, removed] = [free_address(), free_address(), free_address()];
    let mut edge = Edge::with(&with(&[plain("first", first), plain("removed", removed)], &origin));
    let yaml = with(&[plain("first", first), plain("added", added)], &origin);
    edge.write(&yaml).reload().expect_status(200);
    let text = fs::read_to_string(edge.folder().path().join("edge.yaml")).expect("it is there");
    let next = Edge::in_folder(std::sync::Arc::clone(edge.folder()), &text, &["-u"]);
    assert_eq!(edge.wait().code(), Some(0));
    for address in [first, added] {
        Wire::plain(address).get("edge.test", "/", &[]).expect_status(200);
    }
    assert!(TcpStream::connect(removed).is_err());
    drop(next);
}
