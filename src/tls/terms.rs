//! How clients of a host are spoken to, and the settings of the TLS library that do it.

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::server::ClientHello;
use rustls::server::NoServerSessionStorage;
use rustls::server::ResolvesServerCert;
use rustls::server::StoresServerSessions;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::CertifiedKey;
use rustls::version::TLS12;
use rustls::version::TLS13;

use super::Version;
use super::clients::Checked;
use super::clients::ClientAuth;
use super::clients::Scope;
use super::error::Error;
use super::files;
use super::tickets::Tickets;

/// How clients of a host are spoken to, as meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manner {
    /// The oldest version accepted.
    pub min_version: Version,
    /// Whether HTTP/2 is offered by ALPN.
    pub http2: bool,
    /// Whether clients are asked for a certificate.
    pub clients: ClientAuth,
}

/// What those are held to who connect for a host. Who was held to less is not served what the host has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// The oldest version accepted.
    pub min_version: Version,
    /// Whose certificates are believed.
    pub clients: Scope,
}

impl Terms {
    /// Whether a connection of this version, made under these terms, is as good as one made under `needed`.
    #[must_use]
    pub fn fulfil(&self, version: Version, needed: &Self) -> bool {
        self.clients == needed.clients && version >= needed.min_version
    }
}

/// A manner, ready to be spoken.
#[derive(Debug)]
pub(super) struct Spoken {
    pub(super) manner: Manner,
    pub(super) terms: Arc<Terms>,
    /// Looks at a certificate again that came back in a ticket.
    pub(super) verifier: Option<Arc<dyn ClientCertVerifier>>,
    config: ServerConfig,
}

impl Spoken {
    /// Clients are spoken to like this, and `checked` looks at their certificates.
    ///
    /// # Errors
    /// The TLS library refuses it.
    pub(super) fn new(
        manner: Manner,
        checked: Checked,
        terms: Arc<Terms>,
        tickets: Option<&Arc<Tickets>>,
        sessions: Arc<dyn StoresServerSessions>,
    ) -> Result<Self, Error> {
        let versions: &[_] = match manner.min_version {
            Version::Tls12 => &[&TLS13, &TLS12],
            Version::Tls13 => &[&TLS13],
        };
        let verifier = checked.verifier.clone();
        let mut config = ServerConfig::builder_with_provider(Arc::new(files::provider()))
            .with_protocol_versions(versions)
            .map_err(|source| Error::Settings { source })?
            .with_client_cert_verifier(
                checked.verifier.unwrap_or_else(WebPkiClientVerifier::no_client_auth),
            )
            .with_cert_resolver(Arc::new(Only(None)));
        config.alpn_protocols = match manner.http2 {
            true => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
            false => vec![b"http/1.1".to_vec()],
        };
        // Every suite on offer is sound, and the client knows whether it has AES in hardware.
        config.ignore_client_order = false;
        // Resumption without state: the ticket carries the session, and a client that comes back costs
        // no signature. The memory is for TLS 1.2 clients that know session ids only.
        match tickets {
            Some(tickets) => {
                config.ticketer = tickets.within(terms.clients);
                config.session_storage = sessions;
            }
            None => {
                config.session_storage = Arc::new(NoServerSessionStorage {});
                config.send_tls13_tickets = 0;
            }
        }
        // Early data can be replayed (RFC 8470), and nothing is sent before the client is known to be
        // there.
        config.max_early_data_size = 0;
        config.send_half_rtt_data = false;
        Ok(Self { manner, terms, verifier, config })
    }

    /// The settings for a client that is shown this certificate, or none.
    pub(super) fn showing(&self, certified: Option<Arc<CertifiedKey>>) -> Arc<ServerConfig> {
        let mut config = self.config.clone();
        config.cert_resolver = Arc::new(Only(certified));
        Arc::new(config)
    }

    /// The settings for a client that wants to see this certificate, and agrees on this protocol alone.
    pub(super) fn proving(
        &self,
        certified: Option<Arc<CertifiedKey>>,
        protocol: &[u8],
    ) -> Arc<ServerConfig> {
        let mut config = self.config.clone();
        config.alpn_protocols = vec![protocol.to_vec()];
        config.cert_resolver = Arc::new(Only(certified));
        Arc::new(config)
    }
}

/// Whom a client asked for was known when these settings were chosen.
#[derive(Debug)]
struct Only(Option<Arc<CertifiedKey>>);

impl ResolvesServerCert for Only {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.clone()
    }
}
