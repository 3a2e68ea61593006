//! Certificates for origins and listeners of a test's.

use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use rcgen::BasicConstraints;
use rcgen::CertificateParams;
use rcgen::DnType;
use rcgen::IsCa;
use rcgen::Issuer;
use rcgen::KeyPair;
use rcgen::SanType;
use rustls::RootCertStore;
use rustls::ServerConfig;
use rustls::SupportedProtocolVersion;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::NoClientAuth;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;

/// An authority that nobody trusts who was not told to.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    /// A new one.
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().expect("keys can be made");
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "test authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = params.self_signed(&key).expect("a root can be made");
        Self { issuer: Issuer::new(params, key), pem: root.pem() }
    }

    /// Writes the root into `folder` as `ca.pem`.
    pub(crate) fn write(&self, folder: &Path) -> PathBuf {
        let path = folder.join("ca.pem");
        std::fs::write(&path, &self.pem).expect("the folder can be written to");
        path
    }

    /// Writes a certificate for `hosts` and its key into `folder`, named after `name`.
    pub(crate) fn write_leaf(
        &self,
        folder: &Path,
        name: &str,
        hosts: &[&str],
    ) -> (PathBuf, PathBuf) {
        let (certificate, key) = self.leaf(hosts);
        let paths = (folder.join(format!("{name}.pem")), folder.join(format!("{name}.key")));
        std::fs::write(&paths.0, certificate.pem()).expect("the folder can be written to");
        std::fs::write(&paths.1, key.serialize_pem()).expect("the folder can be written to");
        paths
    }

    /// A server for `hosts` that offers `alpn`.
    pub(crate) fn server(&self, hosts: &[&str], alpn: &[&str]) -> Arc<ServerConfig> {
        let none = Arc::new(NoClientAuth);
        self.server_as(hosts, alpn, rustls::ALL_VERSIONS, none)
    }

    /// One that serves clients of this authority alone, in these versions.
    pub(crate) fn server_for(
        &self,
        clients: &Path,
        hosts: &[&str],
        alpn: &[&str],
        versions: &[&'static SupportedProtocolVersion],
    ) -> Arc<ServerConfig> {
        let mut roots = RootCertStore::empty();
        let root = CertificateDer::from_pem_file(clients).expect("the root is a PEM file");
        roots.add(root).expect("the root is an authority");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        let verifier = verifier.build().expect("there is an authority");
        self.server_as(hosts, alpn, versions, verifier)
    }

    fn server_as(
        &self,
        hosts: &[&str],
        alpn: &[&str],
        versions: &[&'static SupportedProtocolVersion],
        clients: Arc<dyn ClientCertVerifier>,
    ) -> Arc<ServerConfig> {
        let (certificate, key) = self.leaf(hosts);
        let key = PrivateKeyDer::try_from(key.serialize_der()).expect("rcgen writes PKCS #8");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .expect("the provider has both versions")
            .with_client_cert_verifier(clients)
            .with_single_cert(vec![certificate.der().clone()], key)
            .expect("the key is the certificate's");
        config.alpn_protocols = alpn.iter().map(|p| p.as_bytes().to_vec()).collect();
        Arc::new(config)
    }

    /// A host with a scheme is a URI.
    fn leaf(&self, hosts: &[&str]) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().expect("keys can be made");
        let (uris, hosts): (Vec<&str>, Vec<&str>) =
            hosts.iter().partition(|host| host.contains("://"));
        let names: Vec<String> = hosts.iter().map(|&host| host.to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("tests use valid names");
        let uri = |uri: &str| SanType::URI(uri.try_into().expect("ASCII"));
        params.subject_alt_names.extend(uris.into_iter().map(uri));
        let leaf = params.signed_by(&key, &self.issuer).expect("a leaf can be made");
        (leaf, key)
    }
}
