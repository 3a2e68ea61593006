//! What can be wrong with certificates: errors stop the start or the reload, warnings do not.

use std::error;
use std::fmt;
use std::io;
use std::path::Path;
use std::path::PathBuf;

use rustls::pki_types::pem;

/// Why certificates cannot be used. Each says which file, and what to do where that is not plain.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder cannot be read.
    Read {
        /// Which.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file or folder cannot be written.
    Write {
        /// Which.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A PEM block does not decode.
    Pem {
        /// In which file.
        file: PathBuf,
        /// Why.
        source: pem::Error,
    },
    /// A file has no PEM certificate.
    NoCertificate {
        /// Which.
        file: PathBuf,
    },
    /// A file that should hold a certificate holds a private key only.
    KeyInsteadOfCertificate {
        /// Which.
        file: PathBuf,
    },
    /// A certificate is not valid X.509.
    Certificate {
        /// In which file.
        file: PathBuf,
    },
    /// A certificate is not valid now, and the one in use is.
    NotValidNow {
        /// In which file.
        file: PathBuf,
    },
    /// A file has no PEM private key.
    NoKey {
        /// Which.
        file: PathBuf,
    },
    /// A private key is protected by a password.
    EncryptedKey {
        /// In which file.
        file: PathBuf,
    },
    /// A private key is of a kind or size that is not supported.
    UnsupportedKey {
        /// In which file.
        file: PathBuf,
        /// Why.
        source: rustls::Error,
    },
    /// A private key does not belong to the certificate.
    KeyMismatch {
        /// The file with the certificate.
        certificate: PathBuf,
        /// The file with the key.
        key: PathBuf,
    },
    /// Others than the owner may read the key of the internal CA.
    TooOpen {
        /// Which file.
        file: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The internal CA lost one of its two files.
    IncompleteAuthority {
        /// The one that is missing.
        missing: PathBuf,
    },
    /// The key of the internal CA cannot be used.
    AuthorityKey {
        /// Which file.
        file: PathBuf,
        /// Why.
        source: rcgen::Error,
    },
    /// A kept certificate of the internal CA is damaged.
    Damaged {
        /// Which file.
        file: PathBuf,
        /// What is wrong with it.
        source: Box<Self>,
    },
    /// A certificate that was issued is for other hosts.
    OtherHosts {
        /// Which file.
        file: PathBuf,
        /// A host that it is not for.
        host: String,
    },
    /// The root certificate of the internal CA is not one that it can issue under.
    NotAnAuthority {
        /// Which file.
        file: PathBuf,
    },
    /// The root certificate of the internal CA is not valid any more.
    RootExpired {
        /// Which file.
        file: PathBuf,
    },
    /// The internal CA was asked for a certificate without hosts.
    NoHosts,
    /// A host cannot stand in a certificate.
    Host {
        /// Which, as configured.
        host: String,
        /// Why.
        source: rcgen::Error,
    },
    /// The internal CA could not make a key or a certificate.
    Issue {
        /// Why.
        source: rcgen::Error,
    },
    /// A file of revoked certificates cannot be used.
    Revocations {
        /// Which.
        file: PathBuf,
        /// Why.
        cause: String,
    },
    /// A file of ticket keys cannot be used.
    TicketKeys {
        /// Which.
        file: PathBuf,
        /// Why.
        cause: String,
    },
    /// The system gives no random numbers.
    Random,
    /// The TLS library refused the settings.
    Settings {
        /// Why.
        source: rustls::Error,
    },
}

impl Error {
    /// A closure for `map_err` on reading `file`.
    pub(super) fn read(file: &Path) -> impl FnOnce(io::Error) -> Self {
        let file = file.to_owned();
        move |source| Self::Read { file, source }
    }

    /// A closure for `map_err` on writing `file`.
    pub(super) fn write(file: &Path) -> impl FnOnce(io::Error) -> Self {
        let file = file.to_owned();
        move |source| Self::Write { file, source }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read { file, source } if source.kind() == io::ErrorKind::PermissionDenied => {
                write!(
                    f,
                    "{}: may not be read by the user that this process runs as ({source})",
                    file.display()
                )
            }
            Self::Read { file, source } => {
                write!(f, "{}: cannot be read: {source}", file.display())
            }
            Self::Write { file, source } => {
                write!(f, "{}: cannot be written: {source}", file.display())
            }
            Self::Pem { file, source } => {
                write!(f, "{}: a PEM block is malformed: {}", file.display(), Malformed(source))
            }
            Self::NoCertificate { file } => {
                write!(f, "{}: contains no certificate (PEM is expected)", file.display())
            }
            Self::KeyInsteadOfCertificate { file } => {
                write!(
                    f,
                    "{}: contains a private key and no certificate; are the two files swapped?",
                    file.display()
                )
            }
            Self::Certificate { file } => {
                write!(f, "{}: a certificate is not valid X.509", file.display())
            }
            Self::NotValidNow { file } => {
                write!(
                    f,
                    "{}: the certificate has expired or is not valid yet, and the one in use is valid",
                    file.display()
                )
            }
            Self::NoKey { file } => {
                write!(f, "{}: contains no private key (PEM is expected)", file.display())
            }
            Self::EncryptedKey { file } => {
                write!(
                    f,
                    "{}: the private key is protected by a password; store it without one, \
                     readable by this process only",
                    file.display()
                )
            }
            Self::UnsupportedKey { file, source } => {
                write!(
                    f,
                    "{}: the private key is of a kind or size that is not supported: {source}",
                    file.display()
                )
            }
            Self::KeyMismatch { certificate, key } => {
                write!(
                    f,
                    "{}: the private key does not belong to the first certificate in {}",
                    key.display(),
                    certificate.display()
                )
            }
            Self::TooOpen { file, mode } => {
                write!(
                    f,
                    "{}: others may read the key of the internal CA (mode {mode:04o}); \
                     `chmod 600` it, or remove the folder to start anew if it may have leaked",
                    file.display()
                )
            }
            Self::IncompleteAuthority { missing } => {
                write!(
                    f,
                    "{}: is missing; restore it, or remove its folder to have a new internal CA made",
                    missing.display()
                )
            }
            Self::AuthorityKey { file, source } => {
                write!(
                    f,
                    "{}: is not a key that the internal CA can use ({source}); restore it, or remove \
                     its folder to have a new internal CA made",
                    file.display()
                )
            }
            Self::Damaged { file, source } => {
                write!(
                    f,
                    "{}: is damaged and is not overwritten; remove it to have a new certificate \
                     issued ({source})",
                    file.display()
                )
            }
            Self::OtherHosts { file, host } => {
                write!(f, "{}: the certificate is not for {host:?}", file.display())
            }
            Self::NotAnAuthority { file } => {
                write!(
                    f,
                    "{}: is not a certificate that the internal CA made; restore it, or remove its \
                     folder to have a new internal CA made",
                    file.display()
                )
            }
            Self::RootExpired { file } => {
                write!(
                    f,
                    "{}: the root certificate of the internal CA has expired; remove its folder to \
                     have a new one made",
                    file.display()
                )
            }
            Self::NoHosts => {
                f.write_str("a certificate of the internal CA needs at least one host")
            }
            Self::Host { host, source } => {
                write!(f, "the host {host:?} cannot stand in a certificate: {source}")
            }
            Self::Issue { source } => {
                write!(f, "the internal CA could not make a certificate: {source}")
            }
            Self::Revocations { file, cause } | Self::TicketKeys { file, cause } => {
                write!(f, "{}: {cause}", file.display())
            }
            Self::Random => f.write_str("the system gives no random numbers"),
            Self::Settings { source } => write!(f, "these TLS settings do not work: {source}"),
        }
    }
}

impl error::Error for Error {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            Self::Read { source, .. } | Self::Write { source, .. } => Some(source),
            Self::Pem { source, .. } => Some(source),
            Self::UnsupportedKey { source, .. } | Self::Settings { source } => Some(source),
            Self::Host { source, .. }
            | Self::Issue { source }
            | Self::AuthorityKey { source, .. } => Some(source),
            Self::Damaged { source, .. } => Some(source),
            Self::NoCertificate { .. }
            | Self::KeyInsteadOfCertificate { .. }
            | Self::Certificate { .. }
            | Self::NotValidNow { .. }
            | Self::NoKey { .. }
            | Self::EncryptedKey { .. }
            | Self::KeyMismatch { .. }
            | Self::TooOpen { .. }
            | Self::IncompleteAuthority { .. }
            | Self::OtherHosts { .. }
            | Self::NotAnAuthority { .. }
            | Self::RootExpired { .. }
            | Self::Revocations { .. }
            | Self::TicketKeys { .. }
            | Self::Random
            | Self::NoHosts => None,
        }
    }
}

/// What is wrong with a PEM block, for people: the library shows the lines as numbers.
struct Malformed<'a>(&'a pem::Error);

impl fmt::Display for Malformed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            pem::Error::MissingSectionEnd { end_marker } => {
                let end = String::from_utf8_lossy(end_marker);
                write!(f, "it has no end, {end:?} is missing: was the file written whole?")
            }
            pem::Error::IllegalSectionStart { line } => {
                write!(f, "{:?} begins nothing", String::from_utf8_lossy(line))
            }
            other => other.fmt(f),
        }
    }
}

/// What an operator should know about a certificate that is used nevertheless.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Warning {
    /// The certificate is not valid any more.
    Expired {
        /// Which file.
        file: PathBuf,
        /// Since how many whole days.
        days: u64,
    },
    /// The certificate is valid for a short time only.
    ExpiresSoon {
        /// Which file.
        file: PathBuf,
        /// For how many whole days.
        days: u64,
    },
    /// The certificate is not valid yet.
    NotYetValid {
        /// Which file.
        file: PathBuf,
    },
    /// The certificate does not name a host that it is configured for.
    HostNotNamed {
        /// Which file.
        file: PathBuf,
        /// The host, as configured.
        host: String,
        /// What it names.
        names: Vec<String>,
    },
    /// A certificate of the chain did not issue the one before it.
    ChainOrder {
        /// Which file.
        file: PathBuf,
        /// The place in the file of the certificate that does not fit, from 1.
        position: usize,
    },
    /// A list of revoked certificates is not valid any more.
    RevocationsExpired {
        /// Which file.
        file: PathBuf,
    },
    /// Everybody may read the private key.
    KeyReadableByAll {
        /// Which file.
        file: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Expired { file, days } => {
                write!(f, "{}: the certificate expired {days} days ago", file.display())
            }
            Self::ExpiresSoon { file, days } => {
                write!(f, "{}: the certificate expires in {days} days", file.display())
            }
            Self::NotYetValid { file } => {
                write!(f, "{}: the certificate is not valid yet", file.display())
            }
            Self::HostNotNamed { file, host, names } => {
                write!(
                    f,
                    "{}: the certificate does not name the host {host:?}; it names {}",
                    file.display(),
                    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
                )
            }
            Self::ChainOrder { file, position } => {
                write!(
                    f,
                    "{}: certificate {position} did not issue the one before it; the order is leaf, \
                     intermediates",
                    file.display()
                )
            }
            Self::RevocationsExpired { file } => {
                write!(
                    f,
                    "{}: the list of revoked certificates is not valid any more: clients of its \
                     authority are refused until there is a new one",
                    file.display()
                )
            }
            Self::KeyReadableByAll { file, mode } => {
                write!(
                    f,
                    "{}: everybody may read this private key (mode {mode:04o}); `chmod 600` it",
                    file.display()
                )
            }
        }
    }
}
