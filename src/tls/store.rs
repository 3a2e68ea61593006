//! The certificates of a listener, found by SNI, replaced as a whole while handshakes go on.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::ring::Ticketer;
use rustls::pki_types::CertificateDer;
use rustls::server::ClientHello;
use rustls::server::ResolvesServerCert;
use rustls::server::ServerSessionMemoryCache;
use rustls::sign::CertifiedKey;
use rustls::version::TLS12;
use rustls::version::TLS13;

use super::Settings;
use super::Source;
use super::Version;
use super::answers::Answers;
use super::answers::PROTOCOL;
use super::error::Error;
use super::error::Warning;
use super::files;
use super::internal;
use super::issued;

/// Sessions of TLS 1.2 clients without tickets that are remembered; a few hundred bytes each.
const SESSIONS: usize = 1024;

/// The certificates of one listener.
#[derive(Debug)]
pub struct CertificateStore {
    table: ArcSwap<Table>,
    /// What ACME servers are shown, when handshakes are how.
    answers: Option<Arc<Answers>>,
}

#[derive(Debug, Default)]
struct Table {
    /// By host name, in lower case.
    exact: HashMap<Box<str>, Arc<CertifiedKey>>,
    /// By what follows the `*`, with its dot.
    wildcard: HashMap<Box<str>, Arc<CertifiedKey>>,
    /// By address.
    address: HashMap<IpAddr, Arc<CertifiedKey>>,
    /// For clients without SNI: the first certificate that is for an address, else the default.
    nameless: Option<Arc<CertifiedKey>>,
    /// For names that nothing is for.
    default: Option<Arc<CertifiedKey>>,
}

/// Certificates that were read and are not in use yet.
#[derive(Debug)]
pub struct Read {
    table: Table,
    warnings: Vec<Warning>,
}

/// Whether certificates that were read again are others than before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replaced {
    /// They are the same.
    BySame,
    /// Some are others, or for other names.
    ByOthers,
}

impl CertificateStore {
    /// Reads every certificate of `settings`, and puts none to use. Blocks on the file system.
    ///
    /// # Errors
    /// The first certificate that cannot be used.
    pub fn read(settings: &Settings, state_dir: &Path, now: SystemTime) -> Result<Read, Error> {
        let (table, warnings) = Table::load(settings, state_dir, now)?;
        Ok(Read { table, warnings })
    }

    /// A store of what was read.
    #[must_use]
    pub fn of(read: Read) -> Self {
        Self { table: ArcSwap::from_pointee(read.table), answers: None }
    }

    /// Replaces all certificates at once by those that were read; handshakes under way keep what they
    /// have. Warnings are logged. Says whether they are others.
    pub fn put(&self, read: Read) -> Replaced {
        for warning in read.warnings {
            log::warn!(target: "edgeproxy::tls", "{warning}");
        }
        let before = self.table.swap(Arc::new(read.table));
        match before.shows() == self.table.load().shows() {
            true => Replaced::BySame,
            false => Replaced::ByOthers,
        }
    }

    /// Loads every certificate of `settings`; those of the internal CA are issued where needed.
    /// What is odd about them is told with the configuration. Blocks on the file system.
    ///
    /// # Errors
    /// The first certificate that cannot be used.
    pub fn load(settings: &Settings, state_dir: &Path, now: SystemTime) -> Result<Self, Error> {
        Self::read(settings, state_dir, now).map(Self::of)
    }

    /// The same, and ACME servers are shown what `answers` has for them.
    #[must_use]
    pub fn with_answers(self, answers: Arc<Answers>) -> Self {
        Self { answers: Some(answers), ..self }
    }

    /// Loads again and replaces all certificates at once; handshakes under way keep what they have.
    /// Called when the configuration or a file changed, and once a day, so that the internal CA's
    /// leaves are renewed. Warnings are logged. Blocks on the file system.
    ///
    /// # Errors
    /// As [`Self::load`]; the certificates in use stay then.
    pub fn reload(
        &self,
        settings: &Settings,
        state_dir: &Path,
        now: SystemTime,
    ) -> Result<(), Error> {
        self.put(Self::read(settings, state_dir, now)?);
        Ok(())
    }

    /// The certificate for a client that asks for `sni`: exact names before wildcards of one label,
    /// then the default. Without SNI (RFC 6066 §3: clients that connect to an address) the first
    /// certificate that is for an address, else the default.
    #[must_use]
    pub fn find(&self, sni: Option<&str>) -> Option<Arc<CertifiedKey>> {
        let table = self.table.load();
        let found = match sni {
            Some(name) => table.named(name).or(table.default.as_ref()),
            None => table.nameless.as_ref(),
        };
        found.cloned()
    }

    /// Is `host` served with the certificate that a connection for `sni` was shown? If not, its
    /// requests belong on another connection: 421 (RFC 9110 §15.5.20). `host` is in lower case,
    /// without port and brackets. Without SNI the client chose no name, so every host is served; a
    /// host that no certificate is for is left to routing.
    #[must_use]
    pub fn serves(&self, sni: Option<&str>, host: &str) -> bool {
        let Some(sni) = sni else { return true };
        if sni == host {
            return true;
        }
        let table = self.table.load();
        let needed = match host.parse() {
            Ok(address) => table.address.get(&address),
            Err(_) => table.named(host),
        };
        let shown = table.named(sni).or(table.default.as_ref());
        match (shown, needed.or(table.default.as_ref())) {
            (Some(shown), Some(needed)) => Arc::ptr_eq(shown, needed),
            (None, _) | (_, None) => true,
        }
    }
}

impl ResolvesServerCert for CertificateStore {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        // Only an ACME server offers this protocol, and it offers no other (RFC 8737 §3).
        if let Some(mut offered) = hello.alpn()
            && let (Some(PROTOCOL), None) = (offered.next(), offered.next())
        {
            return self.answers.as_ref()?.certificate(hello.server_name()?);
        }
        self.find(hello.server_name())
    }
}

impl Table {
    fn load(
        settings: &Settings,
        state_dir: &Path,
        now: SystemTime,
    ) -> Result<(Self, Vec<Warning>), Error> {
        let mut table = Self::default();
        let mut warnings = Vec::new();
        for (index, entry) in settings.certificates.iter().enumerate() {
            let certified = match &entry.source {
                Source::Files { certificate, key } => {
                    let (certified, odd) = files::load(certificate, key, &entry.hosts, now)?;
                    warnings.extend(odd);
                    certified
                }
                Source::Internal => {
                    let certified = internal::ensure(state_dir, &entry.hosts, now)?;
                    log::info!(
                        target: "edgeproxy::tls",
                        root:% = internal::root_certificate(state_dir).display();
                        "certificate of the internal CA for {}: clients trust it with `curl --cacert {}`",
                        entry.hosts.join(", "),
                        internal::root_certificate(state_dir).display()
                    );
                    certified
                }
                Source::Acme { folder, proof: _ } => match issued::load(folder, &entry.hosts) {
                    Ok(Some(issued)) => issued.certified,
                    Ok(None) => internal::ensure(state_dir, &entry.hosts, now)?,
                    Err(error) => {
                        log::warn!(
                            target: "edgeproxy::tls",
                            "{error}; the internal CA stands in until another one is issued"
                        );
                        internal::ensure(state_dir, &entry.hosts, now)?
                    }
                },
            };
            let certified = Arc::new(certified);
            table.add(&entry.hosts, &certified);
            if settings.default == Some(index) {
                table.default = Some(certified);
            }
        }
        if table.nameless.is_none() {
            table.nameless.clone_from(&table.default);
        }
        Ok((table, warnings))
    }

    /// What clients can be shown, by the names that they ask for.
    fn shows(&self) -> Vec<(&str, Option<IpAddr>, &[CertificateDer<'static>])> {
        let named = self.exact.iter().chain(&self.wildcard);
        let named = named.map(|(name, key)| (&**name, None, key.cert.as_slice()));
        let by_address = self.address.iter().map(|(at, key)| ("", Some(*at), key.cert.as_slice()));
        let default = self.default.iter().map(|key| ("", None, key.cert.as_slice()));
        let mut all: Vec<_> = named.chain(by_address).chain(default).collect();
        all.sort_unstable_by_key(|(name, address, _)| (*name, *address));
        all
    }

    /// The first certificate that names a host keeps it.
    fn add(&mut self, hosts: &[String], certified: &Arc<CertifiedKey>) {
        for host in hosts {
            if let Ok(address) = host.parse::<IpAddr>() {
                self.address.entry(address).or_insert_with(|| Arc::clone(certified));
                self.nameless.get_or_insert_with(|| Arc::clone(certified));
                continue;
            }
            let (map, name) = match host.strip_prefix('*') {
                Some(suffix) => (&mut self.wildcard, suffix),
                None => (&mut self.exact, host.as_str()),
            };
            map.entry(name.to_ascii_lowercase().into()).or_insert_with(|| Arc::clone(certified));
        }
    }

    fn named(&self, name: &str) -> Option<&Arc<CertifiedKey>> {
        let name = name.strip_suffix('.').unwrap_or(name);
        if let Some(found) = self.exact.get(name) {
            return Some(found);
        }
        let dot = name.find('.').filter(|&dot| dot > 0)?;
        self.wildcard.get(&name[dot..])
    }
}

/// The TLS side of a listener. The provider is named, no process-wide default is needed; tickets are
/// sealed with a key of this value's own, so listeners do not resume each other's sessions.
///
/// # Errors
/// The TLS library refuses the settings, or has no randomness.
pub fn server_config(
    settings: &Settings,
    store: Arc<CertificateStore>,
) -> Result<Arc<ServerConfig>, Error> {
    let refused = |source| Error::Settings { source };
    let versions: &[_] = match settings.min_version {
        Version::Tls12 => &[&TLS13, &TLS12],
        Version::Tls13 => &[&TLS13],
    };
    let mut config = ServerConfig::builder_with_provider(Arc::new(files::provider()))
        .with_protocol_versions(versions)
        .map_err(refused)?
        .with_no_client_auth()
        .with_cert_resolver(store);
    config.alpn_protocols = if settings.http2 {
        vec![b"h2".to_vec(), b"http/1.1".to_vec()]
    } else {
        vec![b"http/1.1".to_vec()]
    };
    if settings.shows_certificates() {
        config.alpn_protocols.push(PROTOCOL.to_vec());
    }
    // Every suite on offer is sound, and the client knows whether it has AES in hardware.
    config.ignore_client_order = false;
    // Resumption without state: the ticket carries the session, and a client that comes back costs
    // no signature. The memory is for TLS 1.2 clients that know session ids only.
    config.ticketer = Ticketer::new().map_err(refused)?;
    config.session_storage = ServerSessionMemoryCache::new(SESSIONS);
    // Early data can be replayed (RFC 8470), and nothing is sent before the client is known to be
    // there.
    config.max_early_data_size = 0;
    config.send_half_rtt_data = false;
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;
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
    use tokio_rustls::TlsAcceptor;
    use tokio_rustls::TlsConnector;

    use crate::tls::Certificate;
    use crate::tls::leaf::Leaf;

    /// A state folder, a store in it, and a server.
    struct Edge {
        state: TempDir,
        settings: Settings,
        store: Arc<CertificateStore>,
        server: Arc<ServerConfig>,
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
                })
                .collect(),
            default: None,
            min_version: Version::Tls12,
            http2: true,
        }
    }

    impl Edge {
        fn start(settings: Settings) -> Self {
            let state = tempfile::tempdir().unwrap();
            let store = Arc::new(
                CertificateStore::load(&settings, state.path(), SystemTime::now()).unwrap(),
            );
            let server = server_config(&settings, Arc::clone(&store)).unwrap();
            Self { state, settings, store, server }
        }

        /// A client that trusts the root of this edge.
        fn client(&self, versions: &[&'static rustls::SupportedProtocolVersion]) -> ClientConfig {
            let root = fs::read(internal::root_certificate(self.state.path())).unwrap();
            let mut roots = RootCertStore::empty();
            roots.add(CertificateDer::from_pem_slice(&root).unwrap()).unwrap();
            let mut client = ClientConfig::builder_with_provider(Arc::new(files::provider()))
                .with_protocol_versions(versions)
                .unwrap()
                .with_root_certificates(roots)
                .with_no_client_auth();
            client.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
            client
        }

        async fn visit(&self, name: &str) -> io::Result<Seen> {
            self.shake(Arc::new(self.client(rustls::ALL_VERSIONS)), name).await
        }

        async fn shake(&self, client: Arc<ClientConfig>, name: &str) -> io::Result<Seen> {
            let (near, far) = tokio::io::duplex(64 << 10);
            let acceptor = TlsAcceptor::from(Arc::clone(&self.server));
            let server = async {
                let mut stream = acceptor.accept(far).await?;
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
        settings.http2 = false;
        let seen = Edge::start(settings).visit("a.test").await.unwrap();
        assert_eq!(seen.protocol.as_deref(), Some(&b"http/1.1"[..]));
    }

    #[tokio::test]
    async fn tls_1_2_is_spoken_unless_the_minimum_is_higher() {
        let mut settings = settings(&[&["a.test"]]);
        let edge = Edge::start(settings.clone());
        let seen = edge.shake(Arc::new(edge.client(&[&TLS12])), "a.test").await.unwrap();
        assert_eq!(seen.version, Some(ProtocolVersion::TLSv1_2));

        settings.min_version = Version::Tls13;
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
    async fn a_reload_changes_what_the_next_handshake_is_shown() {
        let edge = Edge::start(settings(&[&["a.test"]]));
        edge.visit("b.test").await.unwrap_err();
        let after = settings(&[&["b.test"]]);
        edge.store.reload(&after, edge.state.path(), SystemTime::now()).unwrap();
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
        edge.store.reload(&broken, edge.state.path(), SystemTime::now()).unwrap_err();
        assert!(edge.store.find(Some("a.test")).is_some());
    }

    #[test]
    fn a_reload_renews_what_the_internal_ca_issued_long_ago() {
        let edge = Edge::start(settings(&[&["a.test"]]));
        let before = edge.store.find(Some("a.test")).unwrap();
        let later = SystemTime::now() + Duration::from_secs(80 * 86_400);
        edge.store.reload(&edge.settings, edge.state.path(), later).unwrap();
        assert_ne!(edge.store.find(Some("a.test")).unwrap().cert, before.cert);
    }

    #[test]
    fn a_connection_serves_the_hosts_of_its_certificate_only() {
        let edge = Edge::start(settings(&[&["a.test", "*.a.test"], &["b.test"]]));
        assert!(edge.store.serves(Some("a.test"), "a.test"));
        assert!(edge.store.serves(Some("a.test"), "www.a.test"));
        assert!(!edge.store.serves(Some("a.test"), "b.test"));
        assert!(edge.store.serves(None, "b.test"));
        assert!(edge.store.serves(Some("a.test"), "nothing.is.for.it"));
    }
}
