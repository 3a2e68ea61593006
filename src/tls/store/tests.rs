use super::*;
use parking_lot::Mutex;
use rcgen::BasicConstraints;
use rcgen::CertificateParams;
use rcgen::CertificateRevocationListParams;
use rcgen::DnType;
use rcgen::ExtendedKeyUsagePurpose;
use rcgen::IsCa;
use rcgen::Issuer;
use rcgen::KeyIdMethod;
use rcgen::KeyPair;
use rcgen::KeyUsagePurpose;
use rcgen::RevokedCertParams;
use rustls::pki_types::PrivateKeyDer;
use rustls::server::Acceptor;
use rustls::version::TLS12;
use rustls::version::TLS13;

use crate::tls::clients::Need;
use crate::tls::clients::Shown;
use crate::tls::meet::Settled;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::HandshakeKind;
use rustls::ProtocolVersion;
use rustls::RootCertStore;
use rustls::pki_types::ServerName;
use rustls::pki_types::pem::PemObject;
use tempfile::TempDir;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::TlsConnector;

use crate::tls::Certificate;
use crate::tls::leaf::Leaf;

/// A state folder, a store in it, and a server.
struct Edge {
    state: TempDir,
    settings: Settings,
    store: Arc<CertificateStore>,
    /// What the last handshake settled.
    settled: Mutex<Option<Settled>>,
}

/// What a client saw of a handshake.
#[derive(Debug)]
struct Seen {
    names: Vec<String>,
    version: Option<ProtocolVersion>,
    protocol: Option<Vec<u8>>,
    kind: Option<HandshakeKind>,
}

fn settings(certificates: &[&[&str]]) -> Settings {
    Settings {
        certificates: certificates
            .iter()
            .map(|hosts| Certificate {
                hosts: hosts.iter().map(|&host| host.to_owned()).collect(),
                source: Source::Internal,
                manner: manner(),
            })
            .collect(),
        default: None,
        manner: manner(),
        resumption: Resumption::Own,
    }
}

fn manner() -> Manner {
    Manner { min_version: Version::Tls12, http2: true, clients: ClientAuth::Off }
}

impl Edge {
    fn start(settings: Settings) -> Self {
        let state = tempfile::tempdir().unwrap();
        let store =
            Arc::new(CertificateStore::load(&settings, state.path(), SystemTime::now()).unwrap());
        Self { state, settings, store, settled: Mutex::default() }
    }

    fn reload(&self, settings: Settings) {
        self.follow(&settings, SystemTime::now()).unwrap();
    }

    /// What a reload of the configuration does.
    fn follow(&self, settings: &Settings, now: SystemTime) -> Result<Replaced, Error> {
        Ok(self.store.put(self.store.read(settings, self.state.path(), now)?))
    }

    fn roots(&self) -> RootCertStore {
        let root = fs::read(internal::root_certificate(self.state.path())).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(&root).unwrap()).unwrap();
        roots
    }

    /// A client that trusts the root of this edge.
    fn client(&self, versions: &[&'static rustls::SupportedProtocolVersion]) -> ClientConfig {
        let mut client = ClientConfig::builder_with_provider(Arc::new(files::provider()))
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(self.roots())
            .with_no_client_auth();
        client.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        client
    }

    async fn visit(&self, name: &str) -> io::Result<Seen> {
        self.shake(Arc::new(self.client(rustls::ALL_VERSIONS)), name).await
    }

    async fn shake(&self, client: Arc<ClientConfig>, name: &str) -> io::Result<Seen> {
        let (near, far) = tokio::io::duplex(64 << 10);
        let server = async {
            let start = LazyConfigAcceptor::new(Acceptor::default(), far).await?;
            let met = self.store.meet(&start.client_hello());
            let mut stream = start.into_stream(met.config).await?;
            let Whom::Host { terms, verifier } = met.whom else { panic!("nobody was met") };
            let session = stream.get_ref().1;
            let settled = meet::settle(session, &terms, verifier.as_deref(), SystemTime::now())
                .map_err(|shown| io::Error::other(format!("{shown:?}")))?;
            *self.settled.lock() = Some(settled);
            stream.write_all(b"hello").await?;
            stream.shutdown().await
        };
        let client = async {
            let name = ServerName::try_from(name.to_owned()).unwrap();
            let mut stream = TlsConnector::from(client).connect(name, near).await?;
            let mut said = Vec::new();
            stream.read_to_end(&mut said).await?;
            assert_eq!(said, b"hello");
            let session = stream.get_ref().1;
            let leaf = session.peer_certificates().and_then(<[_]>::first);
            Ok(Seen {
                names: leaf.and_then(Leaf::read).map_or_else(Vec::new, |leaf| leaf.names),
                version: session.protocol_version(),
                protocol: session.alpn_protocol().map(<[u8]>::to_vec),
                kind: session.handshake_kind(),
            })
        };
        tokio::join!(server, client).1
    }
}

#[tokio::test]
async fn an_exact_name_comes_before_a_wildcard_written_earlier() {
    let edge = Edge::start(settings(&[&["*.edge.test"], &["a.edge.test"]]));
    assert_eq!(edge.visit("a.edge.test").await.unwrap().names, ["a.edge.test"]);
    assert_eq!(edge.visit("b.edge.test").await.unwrap().names, ["*.edge.test"]);
}

#[tokio::test]
async fn a_wildcard_is_not_for_two_labels_or_for_none() {
    let edge = Edge::start(settings(&[&["*.edge.test"]]));
    edge.visit("a.b.edge.test").await.unwrap_err();
    edge.visit("edge.test").await.unwrap_err();
}

#[tokio::test]
async fn the_first_certificate_that_names_a_host_wins() {
    let edge = Edge::start(settings(&[&["a.test", "b.test"], &["b.test", "c.test"]]));
    assert_eq!(edge.visit("b.test").await.unwrap().names, ["a.test", "b.test"]);
}

#[tokio::test]
async fn names_are_compared_without_case() {
    let edge = Edge::start(settings(&[&["A.Edge.test"]]));
    assert_eq!(edge.visit("a.eDGE.test").await.unwrap().names, ["a.edge.test"]);
}

#[tokio::test]
async fn an_unknown_name_is_refused_with_an_alert() {
    let edge = Edge::start(settings(&[&["a.test"]]));
    let error = edge.visit("b.test").await.unwrap_err();
    let error = error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>()).unwrap();
    assert!(matches!(error, rustls::Error::AlertReceived(_)), "{error}");
}

#[test]
fn an_unknown_name_is_shown_the_default_when_there_is_one() {
    let mut settings = settings(&[&["a.test"], &["b.test"]]);
    settings.default = Some(1);
    let edge = Edge::start(settings);
    let shown = edge.store.find(Some("c.test")).unwrap();
    assert!(Arc::ptr_eq(&shown, &edge.store.find(Some("b.test")).unwrap()));
    assert!(Arc::ptr_eq(&shown, &edge.store.find(None).unwrap()));
}

#[tokio::test]
async fn a_client_without_sni_is_shown_the_certificate_for_an_address() {
    let mut settings = settings(&[&["a.test"], &["127.0.0.1"]]);
    settings.default = Some(0);
    let edge = Edge::start(settings);
    assert_eq!(edge.visit("127.0.0.1").await.unwrap().names, ["127.0.0.1"]);
}

#[tokio::test]
async fn a_client_without_sni_is_refused_when_nothing_is_for_it() {
    let edge = Edge::start(settings(&[&["a.test"]]));
    edge.visit("127.0.0.1").await.unwrap_err();
}

#[tokio::test]
async fn the_best_version_and_http2_are_agreed_on() {
    let edge = Edge::start(settings(&[&["a.test"]]));
    let seen = edge.visit("a.test").await.unwrap();
    assert_eq!(seen.version, Some(ProtocolVersion::TLSv1_3));
    assert_eq!(seen.protocol.as_deref(), Some(&b"h2"[..]));
}

#[tokio::test]
async fn http2_is_not_offered_when_it_is_off() {
    let mut settings = settings(&[&["a.test"]]);
    settings.certificates[0].manner.http2 = false;
    let seen = Edge::start(settings).visit("a.test").await.unwrap();
    assert_eq!(seen.protocol.as_deref(), Some(&b"http/1.1"[..]));
}

#[tokio::test]
async fn tls_1_2_is_spoken_unless_the_minimum_is_higher() {
    let mut settings = settings(&[&["a.test"]]);
    let edge = Edge::start(settings.clone());
    let seen = edge.shake(Arc::new(edge.client(&[&TLS12])), "a.test").await.unwrap();
    assert_eq!(seen.version, Some(ProtocolVersion::TLSv1_2));

    settings.certificates[0].manner.min_version = Version::Tls13;
    let edge = Edge::start(settings);
    edge.shake(Arc::new(edge.client(&[&TLS12])), "a.test").await.unwrap_err();
}

#[tokio::test]
async fn a_client_that_comes_back_resumes_its_session() {
    let edge = Edge::start(settings(&[&["a.test"]]));
    for version in [&TLS12, &TLS13] {
        let client = Arc::new(edge.client(&[version]));
        let first = edge.shake(Arc::clone(&client), "a.test").await.unwrap();
        assert_eq!(first.kind, Some(HandshakeKind::Full));
        let second = edge.shake(client, "a.test").await.unwrap();
        assert_eq!(second.kind, Some(HandshakeKind::Resumed));
    }
}

#[tokio::test]
async fn sessions_may_be_kept_from_going_on() {
    let mut settings = settings(&[&["a.test"]]);
    settings.resumption = Resumption::Off;
    let edge = Edge::start(settings);
    for version in [&TLS12, &TLS13] {
        let client = Arc::new(edge.client(&[version]));
        for _ in 0..2 {
            let seen = edge.shake(Arc::clone(&client), "a.test").await.unwrap();
            assert_eq!(seen.kind, Some(HandshakeKind::Full));
        }
    }
}

#[test]
fn what_was_issued_stays_in_use_when_its_file_is_gone_or_damaged() {
    let state = tempfile::tempdir().unwrap();
    let folder = state.path().join("acme");
    let hosts = ["a.test".to_owned()];
    let mut settings = settings(&[&["a.test"]]);
    settings.certificates[0].source =
        Source::Acme { folder: folder.clone(), proof: crate::tls::Proof::Http01 };
    let issue = || {
        let made = rcgen::generate_simple_self_signed(hosts.to_vec()).unwrap();
        let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        issued::keep(&folder, &hosts, &chain, &key).unwrap().certified.cert
    };
    let now = SystemTime::now();
    let store = CertificateStore::load(&settings, state.path(), now).unwrap();
    let renewed = || {
        let Renewed { replaced, refused } = store.renew(&settings, state.path(), now);
        assert!(refused.is_empty(), "{refused:?}");
        (replaced, store.find(Some("a.test")).unwrap().cert.clone())
    };
    let (replaced, stand_in) = renewed();
    assert_eq!(replaced, Replaced::BySame, "the internal CA's, as long as there is no other");
    let first = issue();
    assert_eq!(renewed(), (Replaced::ByOthers, first.clone()));
    let file = issued::place(&folder, &hosts);
    fs::write(&file, "-----BEGIN CERTIFICATE-----\nhalf").unwrap();
    assert_eq!(renewed(), (Replaced::BySame, first.clone()));
    fs::remove_file(&file).unwrap();
    assert_eq!(renewed(), (Replaced::BySame, first));
    let second = issue();
    assert_eq!(renewed(), (Replaced::ByOthers, second));
    // Another process knows of none.
    fs::remove_file(&file).unwrap();
    let next = CertificateStore::load(&settings, state.path(), now).unwrap();
    assert_eq!(next.find(Some("a.test")).unwrap().cert, stand_in);
}

#[tokio::test]
async fn a_reload_changes_what_the_next_handshake_is_shown() {
    let edge = Edge::start(settings(&[&["a.test"]]));
    edge.visit("b.test").await.unwrap_err();
    let after = settings(&[&["b.test"]]);
    edge.follow(&after, SystemTime::now()).unwrap();
    assert_eq!(edge.visit("b.test").await.unwrap().names, ["b.test"]);
    edge.visit("a.test").await.unwrap_err();
}

#[test]
fn a_failed_reload_changes_nothing() {
    let edge = Edge::start(settings(&[&["a.test"]]));
    let mut broken = edge.settings.clone();
    broken.certificates[0].source = Source::Files {
        certificate: PathBuf::from("/nowhere/cert.pem"),
        key: PathBuf::from("/nowhere/key.pem"),
    };
    edge.follow(&broken, SystemTime::now()).unwrap_err();
    assert!(edge.store.find(Some("a.test")).is_some());
}

#[test]
fn a_reload_renews_what_the_internal_ca_issued_long_ago() {
    let edge = Edge::start(settings(&[&["a.test"]]));
    let before = edge.store.find(Some("a.test")).unwrap();
    let later = SystemTime::now() + Duration::from_secs(80 * 86_400);
    let Renewed { replaced, refused } = edge.store.renew(&edge.settings, edge.state.path(), later);
    assert_eq!((replaced, refused.len()), (Replaced::ByOthers, 0));
    assert_ne!(edge.store.find(Some("a.test")).unwrap().cert, before.cert);
}

fn serves(edge: &Edge, sni: Option<&str>, host: &str) -> bool {
    let terms = edge.store.table.load().same.clone().expect("all are held to the same");
    edge.store.serves(sni, &terms, Version::Tls13, host)
}

#[test]
fn a_connection_serves_the_hosts_of_its_certificate_only() {
    let edge = Edge::start(settings(&[&["a.test", "*.a.test"], &["b.test"]]));
    assert!(serves(&edge, Some("a.test"), "a.test"));
    assert!(serves(&edge, Some("a.test"), "www.a.test"));
    assert!(!serves(&edge, Some("a.test"), "b.test"));
    assert!(serves(&edge, None, "b.test"));
    assert!(serves(&edge, Some("a.test"), "nothing.is.for.it"));
}

macro_rules! in_days {
    ($days:expr) => {{
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let day = 86_400 * u64::try_from(20_000 + $days).unwrap();
        rcgen::date_time_ymd(1970, 1, 1) + now + Duration::from_secs(day)
            - Duration::from_secs(86_400 * 20_000)
    }};
}

/// Clients with certificates of an authority of their own.
struct Clients {
    folder: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Clients {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let root = params.self_signed(&key).unwrap();
        fs::write(folder.path().join("clients.pem"), root.pem()).unwrap();
        Self { folder, issuer: Issuer::new(params, key) }
    }

    fn auth(&self, need: Need) -> ClientAuth {
        let authorities = self.folder.path().join("clients.pem");
        ClientAuth::On(crate::tls::Clients { need, authorities, revoked: vec![] })
    }

    /// The same, and this certificate is revoked until `days` from now.
    fn revoking(&self, need: Need, serial: u64, days: i64) -> ClientAuth {
        let list = CertificateRevocationListParams {
            this_update: in_days!(-30),
            next_update: in_days!(days),
            crl_number: 1.into(),
            issuing_distribution_point: None,
            revoked_certs: vec![RevokedCertParams {
                serial_number: serial.into(),
                revocation_time: in_days!(-30),
                reason_code: None,
                invalidity_date: None,
            }],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let file = self.folder.path().join("clients.crl");
        fs::write(&file, list.signed_by(&self.issuer).unwrap().pem().unwrap()).unwrap();
        match self.auth(need) {
            ClientAuth::On(clients) => {
                ClientAuth::On(crate::tls::Clients { revoked: vec![file], ..clients })
            }
            ClientAuth::Off => unreachable!("it is on"),
        }
    }

    /// A client of `edge` with a certificate of this serial number.
    fn client(&self, edge: &Edge, serial: u64, version: Versions) -> Arc<ClientConfig> {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["alice.test".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, "alice");
        params.serial_number = Some(serial.into());
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let leaf = params.signed_by(&key, &self.issuer).unwrap();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(files::provider()))
            .with_protocol_versions(version)
            .unwrap()
            .with_root_certificates(edge.roots())
            .with_client_auth_cert(vec![leaf.der().clone()], key)
            .unwrap();
        Arc::new(config)
    }
}

type Versions = &'static [&'static rustls::SupportedProtocolVersion];
const BOTH: [Versions; 2] = [&[&TLS12], &[&TLS13]];

fn asking(clients: ClientAuth) -> Settings {
    let mut settings = settings(&[&["a.test"], &["open.test"]]);
    settings.certificates[0].manner.clients = clients;
    settings
}

#[tokio::test]
async fn a_client_shows_its_certificate_where_it_is_asked_for_one() {
    let clients = Clients::new();
    let edge = Edge::start(asking(clients.auth(Need::Required)));
    for version in BOTH {
        edge.shake(clients.client(&edge, 1, version), "a.test").await.unwrap();
        let settled = edge.settled.lock().take().unwrap();
        assert_eq!(settled.shown, Some(Shown::Verified));
        let client = settled.client.unwrap();
        assert_eq!(
            (&*client.subject, &client.names[..]),
            ("CN=alice", &["DNS:alice.test".to_owned()][..])
        );

        edge.shake(Arc::new(edge.client(version)), "a.test").await.unwrap_err();
        edge.shake(Arc::new(edge.client(version)), "open.test").await.unwrap();
        let settled = edge.settled.lock().take().unwrap();
        assert!(settled.shown.is_none() && settled.client.is_none());
    }
    let edge = Edge::start(asking(clients.auth(Need::Optional)));
    edge.shake(Arc::new(edge.client(&[&TLS13])), "a.test").await.unwrap();
    assert_eq!(edge.settled.lock().take().unwrap().shown, Some(Shown::None));
    // Optional is that there is one, not that it is good.
    let others = Clients::new().client(&edge, 1, BOTH[1]);
    edge.shake(others, "a.test").await.unwrap_err();
}

#[tokio::test]
async fn a_session_goes_on_with_its_certificate_and_only_where_it_was_asked_for() {
    let clients = Clients::new();
    for version in BOTH {
        let edge = Edge::start(asking(clients.auth(Need::Required)));
        let alice = clients.client(&edge, 1, version);
        edge.shake(Arc::clone(&alice), "a.test").await.unwrap();
        let again = edge.shake(Arc::clone(&alice), "a.test").await.unwrap();
        assert_eq!(again.kind, Some(HandshakeKind::Resumed));
        let settled = edge.settled.lock().take().unwrap();
        assert_eq!(settled.client.unwrap().subject, "CN=alice");

        // Who was asked for nothing is asked now, whatever session it comes back with.
        let open = Edge::start(settings(&[&["a.test"]]));
        let nobody = Arc::new(open.client(version));
        open.reload(asking(ClientAuth::Off));
        open.shake(Arc::clone(&nobody), "a.test").await.unwrap();
        let again = open.shake(Arc::clone(&nobody), "a.test").await.unwrap();
        assert_eq!(again.kind, Some(HandshakeKind::Resumed));
        open.reload(asking(clients.auth(Need::Required)));
        open.shake(Arc::clone(&nobody), "a.test").await.unwrap_err();
        // With optional it is let in, and as nobody.
        open.reload(asking(clients.auth(Need::Optional)));
        let again = open.shake(nobody, "a.test").await.unwrap();
        assert_eq!(again.kind, Some(HandshakeKind::Full));
    }
}

#[tokio::test]
async fn what_is_revoked_is_refused_and_ends_sessions() {
    let clients = Clients::new();
    for version in BOTH {
        let edge = Edge::start(asking(clients.revoking(Need::Required, 7, 30)));
        edge.shake(clients.client(&edge, 7, version), "a.test").await.unwrap_err();
        let alice = clients.client(&edge, 1, version);
        edge.shake(Arc::clone(&alice), "a.test").await.unwrap();
        let settled = edge.settled.lock().take().unwrap();

        edge.reload(asking(clients.revoking(Need::Required, 1, 30)));
        edge.shake(Arc::clone(&alice), "a.test").await.unwrap_err();
        let serves = |terms| edge.store.serves(Some("a.test"), terms, Version::Tls13, "a.test");
        assert!(!serves(&settled.terms), "a connection from before must be made anew");
        // A list that is too old is as good as none.
        edge.reload(asking(clients.revoking(Need::Required, 7, -1)));
        edge.shake(alice, "a.test").await.unwrap_err();
    }
}

#[test]
fn a_connection_serves_hosts_whose_clients_are_held_to_the_same() {
    let clients = Clients::new();
    let mut all =
        settings(&[&["a.test", "*.a.test"], &["b.test"], &["c.test"], &["192.0.2.1", "::1"]]);
    all.default = Some(0);
    for asked in [1, 3] {
        all.certificates[asked].manner.clients = clients.auth(Need::Required);
    }
    all.certificates[2].manner.min_version = Version::Tls13;
    let edge = Edge::start(all);
    let table = edge.store.table.load();
    let terms = |host: &str| Arc::clone(&table.serving(host).unwrap().terms);
    let serves = |sni: Option<&str>, version, host: &str| {
        let terms = terms(sni.unwrap_or("a.test"));
        edge.store.serves(sni, &terms, version, host)
    };
    assert!(serves(Some("a.test"), Version::Tls12, "www.a.test"));
    assert!(serves(Some("b.test"), Version::Tls12, "b.test"));
    for host in ["b.test", "192.0.2.1", "[::1]"] {
        // Without a name there is no other certificate, but there are other terms.
        assert!(!serves(Some("a.test"), Version::Tls13, host), "{host}");
        assert!(!serves(None, Version::Tls13, host), "{host}");
    }
    // Who showed one is not therefore somebody elsewhere.
    assert!(!serves(Some("b.test"), Version::Tls13, "a.test"));
    assert!(!serves(Some("b.test"), Version::Tls13, "nothing.is.for.it"));
    assert!(serves(None, Version::Tls13, "c.test") && !serves(None, Version::Tls12, "c.test"));
}

#[test]
fn one_certificate_in_two_places_is_one() {
    let mut all = settings(&[&["a.test"], &["a.test"]]);
    all.certificates[1].hosts = vec!["b.test".to_owned()];
    let clients = Clients::new();
    let (certificate, key) = ["a.pem", "a.key"].map(|name| clients.folder.path().join(name)).into();
    let made = rcgen::generate_simple_self_signed(vec!["a.test".into(), "b.test".into()]).unwrap();
    fs::write(&certificate, made.cert.pem()).unwrap();
    fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    for entry in &mut all.certificates {
        entry.source = Source::Files { certificate: certificate.clone(), key: key.clone() };
    }
    let edge = Edge::start(all);
    assert!(serves(&edge, Some("a.test"), "b.test"));
}
