//! Certificates of clients: who must show one, whose are believed, and why one is refused.

use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use ring::digest;
use rustls::CertificateError;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::CertificateRevocationListDer;
use rustls::pki_types::UnixTime;
use rustls::pki_types::pem::PemObject;
use rustls::server::VerifierBuilderError;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use x509_parser::prelude::CertificateRevocationList;
use x509_parser::prelude::FromDer;

use super::disk;
use super::error::Error;
use super::error::Warning;
use super::files;
use super::leaf::seconds;

/// Whether clients are asked for a certificate, as meant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum ClientAuth {
    /// They are not.
    #[default]
    Off,
    /// They are.
    On(Clients),
}

/// Whose certificates are believed, as meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clients {
    /// Whether there must be one.
    pub need: Need,
    /// A file with their authorities.
    pub authorities: PathBuf,
    /// Files with what those authorities revoked; with none of them nothing is.
    pub revoked: Vec<PathBuf>,
}

/// Whether a client must show a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Without one it has no handshake.
    Required,
    /// Without one it is a client like others.
    Optional,
}

impl ClientAuth {
    /// Whether nobody is served without a certificate.
    #[must_use]
    pub fn is_required(&self) -> bool {
        match self {
            Self::Off => false,
            Self::On(clients) => clients.need == Need::Required,
        }
    }

    /// The files that are read for it.
    pub fn files(&self) -> impl Iterator<Item = &PathBuf> {
        let clients = match self {
            Self::Off => None,
            Self::On(clients) => Some(clients),
        };
        clients
            .into_iter()
            .flat_map(|clients| std::iter::once(&clients.authorities).chain(&clients.revoked))
    }
}

/// What clients are held to, beyond doubt: whoever is held to the same authorities and the same revocations has
/// the same one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Scope([u8; 32]);

impl Scope {
    /// Where nobody is asked.
    pub const OPEN: Self = Self([0; 32]);

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    #[cfg(test)]
    pub(super) fn for_tests(seed: u8) -> Self {
        Self([seed; 32])
    }
}

/// Who looks at the certificates of clients.
#[derive(Debug, Clone)]
pub(super) struct Checked {
    /// `None`: nobody asks for one.
    pub(super) verifier: Option<Arc<dyn ClientCertVerifier>>,
    pub(super) scope: Scope,
    /// When the first list of what was revoked has to be followed by another, in seconds since the epoch.
    pub(super) revocations_end: Option<i64>,
}

/// Reads what clients' certificates are held to.
///
/// # Errors
/// A file cannot be read, or holds nothing of the kind.
pub(super) fn read(
    settings: &ClientAuth,
    now: SystemTime,
) -> Result<(Checked, Vec<Warning>), Error> {
    let clients = match settings {
        ClientAuth::Off => {
            let (scope, revocations_end) = (Scope::OPEN, None);
            return Ok((Checked { verifier: None, scope, revocations_end }, Vec::new()));
        }
        ClientAuth::On(clients) => clients,
    };
    let mut scope = digest::Context::new(&digest::SHA256);
    scope.update(match clients.need {
        Need::Required => b"required",
        Need::Optional => b"optional",
    });
    let mut add = |kind: &[u8], der: &[u8]| {
        scope.update(kind);
        scope.update(&(der.len() as u64).to_be_bytes());
        scope.update(der);
    };
    let authorities = authorities(&clients.authorities)?;
    let mut roots = RootCertStore::empty();
    for certificate in &authorities {
        add(b"authority", certificate);
        roots
            .add(certificate.clone())
            .map_err(|_| Error::Certificate { file: clients.authorities.clone() })?;
    }
    let mut warnings = Vec::new();
    let mut revoked = Vec::new();
    let mut revocations_end: Option<i64> = None;
    for file in &clients.revoked {
        for list in lists(file)? {
            add(b"revoked", &list);
            if let Some(ends) = end(file, &list)? {
                let is_over = ends < seconds(now);
                warnings
                    .extend(is_over.then(|| Warning::RevocationsExpired { file: file.clone() }));
                revocations_end = Some(revocations_end.map_or(ends, |first| first.min(ends)));
            }
            revoked.push(list);
        }
    }
    let mut builder =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::new(files::provider()))
            // An attacker who can hold back a new list must not keep an old one in force.
            .enforce_revocation_expiration()
            .with_crls(revoked);
    if clients.need == Need::Optional {
        builder = builder.allow_unauthenticated();
    }
    let verifier = builder.build().map_err(|error| unusable(&error, clients))?;
    let scope = Scope(scope.finish().as_ref().try_into().expect("SHA-256 has 32 bytes"));
    Ok((Checked { verifier: Some(verifier), scope, revocations_end }, warnings))
}

fn unusable(error: &VerifierBuilderError, clients: &Clients) -> Error {
    match error {
        VerifierBuilderError::InvalidCrl(_) => Error::Revocations {
            file: clients.revoked.first().unwrap_or(&clients.authorities).clone(),
            cause: error.to_string(),
        },
        _ => Error::NoCertificate { file: clients.authorities.clone() },
    }
}

/// Looks at the files, as `edgeproxy check` does.
///
/// # Errors
/// They cannot be used.
pub fn inspect(settings: &ClientAuth, now: SystemTime) -> Result<Vec<Warning>, Error> {
    read(settings, now).map(|(_, warnings)| warnings)
}

fn authorities(file: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    files::chain(file, &disk::read(file).map_err(Error::read(file))?)
}

/// The lists of a file: PEM, as many as there are, or one in DER, as authorities publish them.
fn lists(file: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>, Error> {
    let bytes = disk::read(file).map_err(Error::read(file))?;
    let is_der = bytes.first() == Some(&0x30);
    let lists = if is_der {
        vec![CertificateRevocationListDer::from(bytes)]
    } else {
        CertificateRevocationListDer::pem_slice_iter(&bytes)
            .collect::<Result<_, _>>()
            .map_err(|source| Error::Pem { file: file.to_owned(), source })?
    };
    if lists.is_empty() {
        let cause = "it holds no list of revoked certificates (PEM or DER is expected)".to_owned();
        return Err(Error::Revocations { file: file.to_owned(), cause });
    }
    Ok(lists)
}

/// Until when a list is valid.
fn end(file: &Path, list: &CertificateRevocationListDer<'_>) -> Result<Option<i64>, Error> {
    let (_, parsed) =
        CertificateRevocationList::from_der(list).map_err(|_| Error::Revocations {
            file: file.to_owned(),
            cause: "a list of revoked certificates is malformed".to_owned(),
        })?;
    Ok(parsed.next_update().map(|next| next.timestamp()))
}

/// Whether a chain that was good once, and came back in a ticket, is good still.
///
/// # Errors
/// Why not.
pub(super) fn again(
    verifier: &dyn ClientCertVerifier,
    chain: &[CertificateDer<'_>],
    now: SystemTime,
) -> Result<(), rustls::Error> {
    let Some((leaf, others)) = chain.split_first() else { return Ok(()) };
    let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    verifier.verify_client_cert(leaf, others, UnixTime::since_unix_epoch(since)).map(drop)
}

/// What became of a client that was asked for a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shown {
    /// It showed one that is good.
    Verified,
    /// It showed none, and need not.
    None,
    /// It showed none, and must.
    Missing,
    /// It is not valid any more, or not yet.
    Expired,
    /// Its authority took it back.
    Revoked,
    /// Nobody who is believed issued it.
    UnknownAuthority,
    /// Whether it was revoked cannot be told: there is no list of its authority, or none that is still valid.
    Undetermined,
    /// It is malformed, for something else, or not the client's.
    Bad,
}

impl Shown {
    /// Why a handshake failed, where that was a certificate.
    #[must_use]
    pub fn of_failure(error: &io::Error) -> Option<Self> {
        error.get_ref()?.downcast_ref::<rustls::Error>().and_then(Self::of_error)
    }

    pub(super) fn of_error(error: &rustls::Error) -> Option<Self> {
        let certificate = match error {
            rustls::Error::NoCertificatesPresented => return Some(Self::Missing),
            rustls::Error::InvalidCertificate(certificate) => certificate,
            _ => return None,
        };
        Some(match certificate {
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. } => Self::Expired,
            CertificateError::Revoked => Self::Revoked,
            CertificateError::UnknownIssuer => Self::UnknownAuthority,
            CertificateError::UnknownRevocationStatus
            | CertificateError::ExpiredRevocationList
            | CertificateError::ExpiredRevocationListContext { .. } => Self::Undetermined,
            _ => Self::Bad,
        })
    }
}
