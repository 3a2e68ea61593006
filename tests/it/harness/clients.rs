//! Clients that show certificates, and command-line programs as clients.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use std::time::SystemTime;

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
use rcgen::SanType;
use rustls::ClientConfig;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use tempfile::TempDir;

/// A point in time, from what has passed since 1970.
macro_rules! moment {
    ($since:expr) => {
        rcgen::date_time_ymd(1970, 1, 1) + $since
    };
}

/// An authority of clients, and what it issued.
pub(crate) struct Clients {
    folder: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

/// A client with a certificate.
pub(crate) struct Client {
    /// The certificate, in a PEM file.
    pub(crate) certificate: PathBuf,
    /// Its key.
    pub(crate) key: PathBuf,
    /// The certificate.
    pub(crate) der: Vec<u8>,
}

const DAY: Duration = Duration::from_secs(86_400);

impl Clients {
    /// A new authority; its certificate is in `ca.pem` of its folder.
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let key = KeyPair::generate().expect("keys can be made");
        let mut params = CertificateParams::default();
        // No two have the same name.
        let name = folder.path().display().to_string();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let root = params.self_signed(&key).expect("a root can be made");
        let clients = Self { folder, issuer: Issuer::new(params, key) };
        std::fs::write(clients.ca(), root.pem()).expect("the folder can be written to");
        clients.revoke(&[]);
        clients
    }

    /// Its certificate.
    pub(crate) fn ca(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// What it revoked.
    pub(crate) fn crl(&self) -> PathBuf {
        self.folder.path().join("ca.crl")
    }

    /// Revokes these serial numbers and no others.
    pub(crate) fn revoke(&self, serials: &[u64]) {
        let one = |serial: &u64| RevokedCertParams {
            serial_number: (*serial).into(),
            revocation_time: moment!(now() - DAY),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: moment!(now() - DAY),
            next_update: moment!(now() + DAY),
            crl_number: 1.into(),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(one).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = list.signed_by(&self.issuer).expect("a list can be made");
        let draft = self.folder.path().join("draft");
        std::fs::write(&draft, list.pem().expect("PEM")).expect("the folder can be written to");
        std::fs::rename(draft, self.crl()).expect("the folder can be written to");
    }

    /// A client of this name and serial number.
    pub(crate) fn client(&self, name: &str, serial: u64) -> Client {
        self.issue(name, serial, now() + DAY)
    }

    /// One whose certificate is not valid any more.
    pub(crate) fn expired(&self, name: &str, serial: u64) -> Client {
        self.issue(name, serial, now() - DAY)
    }

    /// One whose certificate is valid until then, after 1970.
    pub(crate) fn until(&self, name: &str, serial: u64, until: Duration) -> Client {
        self.issue(name, serial, until)
    }

    fn issue(&self, name: &str, serial: u64, until: Duration) -> Client {
        let key = KeyPair::generate().expect("keys can be made");
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "Test");
        params.distinguished_name.push(DnType::CommonName, name);
        let uri = format!("spiffe://test/{name}").as_str().try_into().expect("ASCII");
        let dns = format!("{name}.test").as_str().try_into().expect("ASCII");
        params.subject_alt_names = vec![SanType::DnsName(dns), SanType::URI(uri)];
        params.serial_number = Some(serial.into());
        params.not_before = moment!(now() - 10 * DAY);
        params.not_after = moment!(until);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let leaf = params.signed_by(&key, &self.issuer).expect("a leaf can be made");
        let at = |ending: &str| self.folder.path().join(format!("{name}-{serial}.{ending}"));
        let client = Client { certificate: at("pem"), key: at("key"), der: leaf.der().to_vec() };
        std::fs::write(&client.certificate, leaf.pem()).expect("the folder can be written to");
        std::fs::write(&client.key, key.serialize_pem()).expect("the folder can be written to");
        client
    }
}

fn now() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("it is later than 1970")
}

impl Client {
    /// This client, trusting only the root in this PEM file.
    pub(crate) fn config(&self, root: &Path, alpn: &[&str]) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        let certificate = CertificateDer::from_pem_file(root).expect("the root is a PEM file");
        roots.add(certificate).expect("the root is an authority");
        let chain = vec![CertificateDer::from(self.der.clone())];
        let key = PrivateKeyDer::from_pem_file(&self.key).expect("the key is a PEM file");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider has the default versions")
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .expect("the key is the certificate's");
        config.alpn_protocols = alpn.iter().map(|p| p.as_bytes().to_vec()).collect();
        Arc::new(config)
    }
}

/// What a program said.
#[derive(Debug)]
pub(crate) struct Said {
    /// Its exit status was 0.
    pub(crate) well: bool,
    /// What it wrote, errors behind the rest.
    pub(crate) text: String,
}

impl Said {
    /// What it wrote contains this.
    #[track_caller]
    pub(crate) fn expect(&self, part: &str) -> &Self {
        assert!(self.text.contains(part), "{part:?} is not in: {}", self.text);
        self
    }

    /// What it wrote does not contain this.
    #[track_caller]
    pub(crate) fn expect_no(&self, part: &str) -> &Self {
        assert!(!self.text.contains(part), "{part:?} is in: {}", self.text);
        self
    }
}

/// curl asks for this URL of a listener at `to`; it says `STATUS VERSION` behind the body.
pub(crate) fn curl(to: SocketAddr, url: &str, root: &Path, arguments: &[&str]) -> Said {
    let mut command = Command::new("curl");
    command.args(["-sS", "--max-time", "30", "--noproxy", "*", "--cacert"]).arg(root);
    command.arg("--connect-to").arg(format!("::{}:{}", to.ip(), to.port()));
    command.args(["-w", "%{http_code} %{http_version}"]).args(arguments).arg(url);
    run(command, b"")
}

/// `openssl s_client` connects and sends these bytes.
pub(crate) fn s_client(to: SocketAddr, root: &Path, arguments: &[&str], say: &str) -> Said {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-connect", &to.to_string(), "-CAfile"]).arg(root);
    command.args(["-verify_return_error", "-ign_eof"]).args(arguments);
    run(command, say.as_bytes())
}

/// `sslscan` tries everything that it knows at the listener at `to`; what it found, as XML.
pub(crate) fn sslscan(to: SocketAddr, name: &str) -> Said {
    let mut command = Command::new("sslscan");
    command.args(["--xml=-", "--no-colour", &format!("--sni-name={name}"), &to.to_string()]);
    run(command, b"")
}

fn run(mut command: Command, say: &[u8]) -> Said {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program is installed: make setup");
    // It may end before it has read anything.
    let _ = child.stdin.take().expect("stdin is piped").write_all(say);
    let output = child.wait_with_output().expect("it ends");
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    Said { well: output.status.success(), text }
}
