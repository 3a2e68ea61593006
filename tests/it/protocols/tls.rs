//! TLS towards clients: versions, names, certificates.

use std::io::Read;
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::ClientConnection;
use rustls::NamedGroup;
use rustls::RootCertStore;
use rustls::SupportedProtocolVersion;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::version::TLS12;
use rustls::version::TLS13;

use crate::harness::Authority;
use crate::harness::Edge;
use crate::harness::Origin;
use crate::harness::PATIENCE;
use crate::harness::Wire;
use crate::harness::http2;
use crate::harness::ok;
use crate::protocols::secure;

const INTERNAL: &str = "{certificates: [{hosts: [edge.test], internal: true}]}";

fn only(version: &'static SupportedProtocolVersion, root: &Path) -> Arc<ClientConfig> {
    client(rustls::crypto::ring::default_provider(), version, root)
}

fn client(
    provider: CryptoProvider,
    version: &'static SupportedProtocolVersion,
    root: &Path,
) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    let certificate = CertificateDer::from_pem_file(root).expect("the root is a PEM file");
    roots.add(certificate).expect("the root is an authority");
    let config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[version])
        .expect("the provider has both versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
}

#[test]
fn http_1_1_runs_over_tls_with_many_requests_a_connection() {
    let origin = Origin::script().otherwise(|seen| ok(seen.target())).start();
    let edge = Edge::with(&secure(&origin, INTERNAL));

    let mut wire =
        Wire::tls(edge.address("https"), "edge.test", &edge.root(), &["http/1.1"]).unwrap();
    assert_eq!(wire.alpn().as_deref(), Some(&b"http/1.1"[..]));

    for target in ["/1", "/2", "/3"] {
        wire.get("edge.test", target, &[]).expect_status(200).expect_body(target);
    }
    assert_eq!(origin.seen()[0].value("x-forwarded-proto"), Some("https"));
}

#[test]
fn http_2_may_be_switched_off() {
    let tls = "{http2: false, certificates: [{hosts: [edge.test], internal: true}]}";
    let edge = Edge::with(&secure(&Origin::always(ok("x")), tls));

    let mut wire =
        Wire::tls(edge.address("https"), "edge.test", &edge.root(), &["h2", "http/1.1"]).unwrap();

    assert_eq!(wire.alpn().as_deref(), Some(&b"http/1.1"[..]));
    wire.get("edge.test", "/", &[]).expect_status(200);
}

#[test]
fn tls_1_2_and_1_3_are_spoken() {
    let edge = Edge::with(&secure(&Origin::always(ok("x")), INTERNAL));

    for (version, protocol) in
        [(&TLS12, rustls::ProtocolVersion::TLSv1_2), (&TLS13, rustls::ProtocolVersion::TLSv1_3)]
    {
        let config = only(version, &edge.root());
        let mut wire = Wire::tls_with(edge.address("https"), "edge.test", config).unwrap();
        assert_eq!(wire.handshake().and_then(|tls| tls.protocol_version()), Some(protocol));
        wire.get("edge.test", "/", &[]).expect_status(200);
    }
}

#[test]
fn keys_are_exchanged_so_that_no_quantum_computer_finds_them_with_who_begins_so() {
    let edge = Edge::with(&secure(&Origin::always(ok("x")), INTERNAL));
    let exchanged = |config: Arc<ClientConfig>| {
        let mut wire = Wire::tls_with(edge.address("https"), "edge.test", config).unwrap();
        let group = wire.handshake().and_then(|tls| tls.negotiated_key_exchange_group());
        let name = group.map(|group| group.name());
        wire.get("edge.test", "/", &[]).expect_status(200);
        name
    };
    let new = aws_lc_rs::default_provider();
    let group = exchanged(client(new.clone(), &TLS13, &edge.root()));
    assert_eq!(group, Some(NamedGroup::X25519MLKEM768));
    assert_eq!(exchanged(client(new, &TLS12, &edge.root())), Some(NamedGroup::X25519));
    assert_eq!(exchanged(only(&TLS13, &edge.root())), Some(NamedGroup::X25519));
}

#[test]
fn the_oldest_version_may_be_raised() {
    let tls = "{min_version: \"1.3\", certificates: [{hosts: [edge.test], internal: true}]}";
    let edge = Edge::with(&secure(&Origin::always(ok("x")), tls));

    let old = Wire::tls_with(edge.address("https"), "edge.test", only(&TLS12, &edge.root()));
    assert!(old.is_err(), "TLS 1.2 was spoken");

    let new = Wire::tls_with(edge.address("https"), "edge.test", only(&TLS13, &edge.root()));
    new.unwrap().get("edge.test", "/", &[]).expect_status(200);
}

/// Two certificates of two authorities; a client that trusts one of them sees which is shown.
struct TwoNames {
    edge: Edge,
    one: std::path::PathBuf,
    two: std::path::PathBuf,
    _folders: [tempfile::TempDir; 2],
}

fn two_names(default: &str) -> TwoNames {
    let folders = [(); 2].map(|()| tempfile::tempdir().expect("a folder can be made"));
    let [one, two] = [("one", 0), ("two", 1)].map(|(name, at)| {
        let authority = Authority::new();
        let folder = folders[at].path();
        let hosts = [format!("{name}.test"), format!("*.{name}.test")];
        let hosts: Vec<&str> = hosts.iter().map(String::as_str).collect();
        let (certificate, key) = authority.write_leaf(folder, name, &hosts);
        let entry = format!(
            "{{hosts: [{name}.test, \"*.{name}.test\"], certificate: {}, key: {}}}",
            certificate.display(),
            key.display()
        );
        (authority.write(folder), entry)
    });
    let tls = format!("{{default: {default}, certificates: [{}, {}]}}", one.1, two.1);
    let edge = Edge::with(&secure(&Origin::always(ok("x")), &tls));
    TwoNames { edge, one: one.0, two: two.0, _folders: folders }
}

#[test]
fn the_certificate_is_chosen_by_the_name_that_is_asked_for() {
    let names = two_names("first");
    let to = names.edge.address("https");

    for (name, root) in [
        ("one.test", &names.one),
        ("two.test", &names.two),
        ("www.two.test", &names.two),
        ("www.one.test", &names.one),
    ] {
        let mut wire = Wire::tls(to, name, root, &[]).unwrap();
        wire.get(name, "/", &[]).expect_status(200);
    }
    assert!(Wire::tls(to, "one.test", &names.two, &[]).is_err());
}

#[test]
fn an_unknown_name_is_shown_the_first_certificate() {
    let names = two_names("first");

    let shown = Wire::tls(names.edge.address("https"), "nobody.test", &names.one, &[]);

    // It is shown, and the client sees that it is for somebody else.
    let error = shown.err().expect("the name does not fit").to_string();
    assert!(error.contains("not valid for name"), "{error}");
}

#[test]
fn an_unknown_name_may_be_refused() {
    let names = two_names("refuse");

    let refused = Wire::tls(names.edge.address("https"), "nobody.test", &names.one, &[]);

    let error = refused.err().expect("there is no certificate").to_string();
    assert!(error.to_lowercase().contains("alert"), "{error}");
    // Those who are known still come in.
    let mut wire = Wire::tls(names.edge.address("https"), "one.test", &names.one, &[]).unwrap();
    wire.get("one.test", "/", &[]).expect_status(200);
}

#[test]
fn a_host_of_another_certificate_is_misdirected() {
    let names = two_names("first");
    let to = names.edge.address("https");

    let mut wire = Wire::tls(to, "one.test", &names.one, &[]).unwrap();
    wire.get("two.test", "/", &[]).expect_status(421);

    http2::run(async {
        let mut h2 = http2::tls(to, "one.test", &names.one).await;
        let reply = http2::get(&mut h2, "https://two.test/", &[]).await.unwrap();
        assert_eq!(reply.status, 421);
        // Hosts of the same certificate share a connection (RFC 9113 §9.1.1).
        let reply = http2::get(&mut h2, "https://www.one.test/", &[]).await.unwrap();
        assert_eq!(reply.status, 200);
    });
}

#[test]
fn plain_text_on_a_tls_listener_is_no_request() {
    let origin = Origin::always(ok("x"));
    let edge = Edge::with(&secure(&origin, INTERNAL));
    let mut wire = Wire::plain(edge.address("https"));

    wire.send("GET / HTTP/1.1\r\nHost: edge.test\r\n\r\n");

    wire.until_closed();
    assert!(origin.seen().is_empty());
}

#[test]
fn no_more_handshakes_are_under_way_than_allowed_and_who_waits_gets_in() {
    let origin = Origin::always(ok("x"));
    let edge = Edge::with(&(secure(&origin, INTERNAL) + "\nlimits: {handshakes: 1}\n"));
    let to = edge.address("https");
    // Each begins, and says no more when it has been answered.
    let begin = || {
        let name = "edge.test".try_into().expect("a name");
        let mut client =
            ClientConnection::new(only(&TLS13, &edge.root()), name).expect("a client can be made");
        let mut tcp = TcpStream::connect(to).expect("somebody listens");
        client.write_tls(&mut tcp).expect("it is sent");
        tcp
    };
    let is_answered = |tcp: &mut TcpStream, within: Duration| {
        tcp.set_read_timeout(Some(within)).expect("a time can be set");
        tcp.read(&mut [0]).is_ok_and(|read| read > 0)
    };
    // One that says nothing takes no place.
    let _silent = TcpStream::connect(to).expect("somebody listens");
    let mut first = begin();
    assert!(is_answered(&mut first, PATIENCE));
    let mut second = begin();
    assert!(!is_answered(&mut second, Duration::from_millis(200)));
    drop(first);
    assert!(is_answered(&mut second, PATIENCE));
}

#[test]
fn a_handshake_that_does_not_end_is_cut_at_its_deadline() {
    let origin = Origin::always(ok("x"));
    let yaml = secure(&origin, INTERNAL) + "\nlimits: {handshake_timeout: 300ms}\n";
    let edge = Edge::with(&yaml);
    // The beginning of a ClientHello, and then a byte at a time.
    let mut dripping = Wire::plain(edge.address("https"));
    dripping.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03");
    for _ in 0..200 {
        if dripping.has_reply(Duration::from_millis(50)) || dripping.try_send(b"a").is_err() {
            break;
        }
    }
    assert!(dripping.until_closed().is_empty());
    assert!(Wire::plain(edge.address("https")).until_closed().is_empty());
}
