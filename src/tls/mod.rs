//! Certificates for the clients' side: by SNI, from files or from the internal CA.

pub mod error;
pub mod files;
pub mod internal;
pub mod leaf;
pub mod store;

use std::path::PathBuf;

pub use error::Error;
pub use error::Warning;
pub use store::CertificateStore;
pub use store::Read;
pub use store::Replaced;
pub use store::server_config;

/// Which TLS a listener speaks, as meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The certificates, in the order written; the first one that names the host wins, exact names
    /// before wildcards.
    pub certificates: Vec<Certificate>,
    /// What a client with an unknown name, or without SNI while no certificate is for an address, is
    /// shown: an index into `certificates`. `None` refuses the handshake.
    pub default: Option<usize>,
    /// The oldest version accepted.
    pub min_version: Version,
    /// Whether HTTP/2 is offered by ALPN.
    pub http2: bool,
}

/// One certificate and the hosts that it is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// Host names, `*.` wildcards and addresses, in lower case.
    pub hosts: Vec<String>,
    /// Where it comes from.
    pub source: Source,
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
}

/// A TLS version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// TLS 1.2.
    Tls12,
    /// TLS 1.3.
    Tls13,
}
