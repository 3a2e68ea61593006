//! Certificates for the clients' side: by SNI, from files, from the internal CA or from an ACME server.

pub mod answers;
pub mod clients;
pub(crate) mod disk;
pub mod error;
pub mod files;
mod identity;
pub mod internal;
pub mod issued;
pub mod leaf;
pub mod meet;
pub mod store;
pub mod terms;
pub mod tickets;

use std::path::PathBuf;

pub use clients::ClientAuth;
pub use clients::Clients;
pub use clients::Need;
pub use error::Error;
pub use error::Warning;
pub use store::CertificateStore;
pub use store::Read;
pub use store::Renewed;
pub use store::Replaced;
pub use terms::Manner;
pub use tickets::Resumption;

/// Which TLS a listener speaks, as meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The certificates, in the order written; the first one that names the host wins, exact names
    /// before wildcards.
    pub certificates: Vec<Certificate>,
    /// What a client with an unknown name, or without SNI while no certificate is for an address, is
    /// shown: an index into `certificates`. `None` refuses the handshake.
    pub default: Option<usize>,
    /// How a client is spoken to that is shown none of them.
    pub manner: Manner,
    /// Whose keys sessions go on with.
    pub resumption: Resumption,
}

impl Settings {
    /// Every file that is read for it, those that we write aside.
    #[must_use]
    pub fn files(&self) -> Vec<PathBuf> {
        let mut files: Vec<PathBuf> = Vec::new();
        for certificate in &self.certificates {
            if let Source::Files { certificate, key } = &certificate.source {
                files.extend([certificate.clone(), key.clone()]);
            }
        }
        let manners = self.certificates.iter().map(|certificate| &certificate.manner);
        files.extend(manners.chain([&self.manner]).flat_map(|one| one.clients.files().cloned()));
        if let Resumption::Shared(file) = &self.resumption {
            files.push(file.clone());
        }
        files.sort();
        files.dedup();
        files
    }
}

/// One certificate and the hosts that it is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// Host names, `*.` wildcards and addresses, in lower case.
    pub hosts: Vec<String>,
    /// Where it comes from.
    pub source: Source,
    /// How clients of these hosts are spoken to.
    pub manner: Manner,
}

/// Where a certificate comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Two PEM files.
    Files {
        /// The chain, leaf first.
        certificate: PathBuf,
        /// The private key.
        key: PathBuf,
    },
    /// The internal CA, kept in the state folder.
    Internal,
    /// An ACME server; until it has issued one, the internal CA.
    Acme {
        /// Where what it issued is kept.
        folder: PathBuf,
        /// How it is shown that the hosts are ours.
        proof: Proof,
    },
}

/// How an ACME server is shown that a host is ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// A file at the host, over plain HTTP (RFC 8555 §8.3).
    Http01,
    /// A certificate at the host (RFC 8737).
    TlsAlpn01,
    /// A TXT record of the host (RFC 8555 §8.4).
    Dns01,
}

impl Proof {
    /// The name that ACME has for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Http01 => "http-01",
            Self::TlsAlpn01 => "tls-alpn-01",
            Self::Dns01 => "dns-01",
        }
    }
}

/// A TLS version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// TLS 1.2.
    Tls12,
    /// TLS 1.3.
    Tls13,
}

impl Version {
    /// How it stands in logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Tls12 => "TLSv1.2",
            Self::Tls13 => "TLSv1.3",
        }
    }
}
