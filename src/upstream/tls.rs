//! TLS towards origins: whom to trust, and one client configuration per upstream.
//!
//! It is the one of [`client_config`], built once per upstream so that sessions are resumed.

use std::fmt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::OnceLock;

use once_cell::sync::OnceCell;
use rustls::ClientConfig;
use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::ServerName;
use rustls::pki_types::pem::PemObject;
use rustls::sign::SingleCertAndKey;

use crate::tls;
use crate::tls::files;
use crate::upstream::OriginTls;
use crate::upstream::Protocol;
use crate::upstream::Shown;
use crate::upstream::pins::Pinned;
use crate::upstream::unverified::Unverified;

/// Why an upstream cannot speak TLS.
#[derive(Debug)]
#[non_exhaustive]
pub enum TlsError {
    /// The file of authorities cannot be read, or is not PEM.
    Authorities {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        cause: String,
    },
    /// The file holds no certificate that can be an authority.
    NoAuthority(PathBuf),
    /// The system's authorities cannot be read, or there are none.
    System(String),
    /// The certificate is to be checked, but against which name is not known.
    NoServerName,
    /// The name is neither a DNS name nor an address.
    BadServerName(String),
    /// What is pinned is neither a DNS name nor an address nor a URI.
    BadPin(String),
    /// The certificate that origins are shown, or its key, cannot be used.
    Shown(tls::Error),
    /// rustls refuses the configuration.
    Rustls(rustls::Error),
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Authorities { path, cause } => {
                write!(f, "cannot read the authorities in {}: {cause}", path.display())
            }
            Self::NoAuthority(path) => write!(f, "no certificate in {}", path.display()),
            Self::System(cause) => write!(f, "cannot read the system's authorities: {cause}"),
            Self::NoServerName => {
                write!(f, "there is no server name to check the certificate against")
            }
            Self::BadServerName(name) => write!(f, "{name:?} is not a TLS server name"),
            Self::BadPin(name) => write!(f, "{name:?} is not a name of a certificate"),
            Self::Shown(e) => e.fmt(f),
            Self::Rustls(e) => write!(f, "TLS cannot be set up: {e}"),
        }
    }
}

impl std::error::Error for TlsError {}

/// The client configuration for what is spoken over TLS as `settings` say.
///
/// Reads the file of authorities, or once per process the system's, and what origins are shown.
///
/// # Errors
/// Fails when there is nobody to trust, or when what is shown cannot be used.
pub fn client_config(
    settings: &OriginTls,
    speaks: Protocol,
) -> Result<Arc<ClientConfig>, TlsError> {
    let provider = provider();
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Rustls)?;
    let builder = if !settings.verify {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(Unverified(provider)))
    } else if settings.names.is_empty() {
        builder.with_root_certificates(roots(settings.ca.as_deref())?)
    } else {
        let (roots, names) = (roots(settings.ca.as_deref())?, settings.names.clone());
        let pinned = Pinned { roots, names, provider };
        builder.dangerous().with_custom_certificate_verifier(Arc::new(pinned))
    };
    let mut config = match &settings.shown {
        None => builder.with_no_client_auth(),
        Some(shown) => builder.with_client_cert_resolver(Arc::new(resolver(shown)?)),
    };
    config.alpn_protocols = match speaks {
        Protocol::Http1 => vec![b"http/1.1".to_vec()],
        Protocol::Http2 => vec![b"h2".to_vec()],
    };
    Ok(Arc::new(config))
}

/// Whether a file of authorities can be trusted by anybody, as `edgeproxy check` asks.
///
/// # Errors
/// Fails when it cannot be read or holds no certificate.
pub fn check_authorities(path: &Path) -> Result<(), TlsError> {
    roots(Some(path)).map(drop)
}

/// Whether the files that `settings` name can be used.
///
/// # Errors
/// Fails for the first one that cannot.
pub fn check_files(settings: &OriginTls) -> Result<(), TlsError> {
    if let Some(path) = &settings.ca {
        check_authorities(path)?;
    }
    settings.shown.as_ref().map_or(Ok(()), |shown| resolver(shown).map(drop))
}

/// The name to check, in a form that TLS can send: `name` as configured.
///
/// # Errors
/// Fails for what is neither a DNS name nor an address.
pub fn server_name(name: &str) -> Result<ServerName<'static>, TlsError> {
    ServerName::try_from(name.to_owned()).map_err(|_| TlsError::BadServerName(name.to_owned()))
}

pub(super) fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    PROVIDER.get_or_init(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider())).clone()
}

/// The certificate is shown to whoever asks for one: the origin says whose it wants, and which it takes.
fn resolver(shown: &Shown) -> Result<SingleCertAndKey, TlsError> {
    let pair = files::pair(&shown.certificate, &shown.key).map_err(TlsError::Shown)?;
    Ok(pair.into())
}

fn roots(own: Option<&Path>) -> Result<Arc<RootCertStore>, TlsError> {
    let Some(path) = own else {
        static SYSTEM: OnceCell<Arc<RootCertStore>> = OnceCell::new();
        let system = SYSTEM.get_or_try_init(|| {
            Some(store(system_certificates()?)).filter(|all| !all.is_empty()).ok_or_else(nobody)
        });
        return system.cloned();
    };
    let store = store(read_certificates(path)?);
    if store.is_empty() {
        return Err(TlsError::NoAuthority(path.to_owned()));
    }
    Ok(store)
}

/// What can be parsed counts: a system's collection may hold oddities that nobody uses.
fn store(certificates: Vec<CertificateDer<'static>>) -> Arc<RootCertStore> {
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(certificates);
    Arc::new(store)
}

fn nobody() -> TlsError {
    TlsError::System("there are none".to_owned())
}

fn system_certificates() -> Result<Vec<CertificateDer<'static>>, TlsError> {
    rustls_native_certs::load_native_certs().map_err(|e| TlsError::System(e.to_string()))
}

fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let unreadable = |cause: String| TlsError::Authorities { path: path.to_owned(), cause };
    let text = tls::disk::read(path).map_err(|e| unreadable(e.to_string()))?;
    CertificateDer::pem_slice_iter(&text)
        .collect::<Result<_, _>>()
        .map_err(|e| unreadable(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_exchanged_with_origins_as_with_clients() {
        let first = provider().kx_groups.first().map(|group| group.name());
        assert_eq!(first, Some(rustls::NamedGroup::X25519MLKEM768));
    }
}
