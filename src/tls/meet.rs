//! Meeting a client: what it is spoken to like, by what it says first, and what is known of it then.

use std::sync::Arc;
use std::time::SystemTime;

use rustls::HandshakeKind;
use rustls::ProtocolVersion;
use rustls::ServerConfig;
use rustls::ServerConnection;
use rustls::server::danger::ClientCertVerifier;

use super::Version;
use super::answers::PROTOCOL;
use super::clients;
use super::clients::Shown;
use super::identity;
use super::terms::Terms;
use crate::message::certificate::ClientCertificate;

/// A client that has begun to speak, and how it is answered.
#[derive(Debug)]
pub struct Met {
    /// The settings for the rest of the handshake.
    pub config: Arc<ServerConfig>,
    /// Whom it asked for.
    pub whom: Whom,
}

/// Whom a client asked for.
#[derive(Debug)]
pub enum Whom {
    /// A host that something is shown for.
    Host {
        /// What its clients are held to.
        terms: Arc<Terms>,
        /// Who looks at their certificates.
        verifier: Option<Arc<dyn ClientCertVerifier>>,
    },
    /// An ACME server wants to see a certificate that was made for it.
    Proof,
    /// Nobody that is known here: nothing is shown, and the handshake fails.
    Nobody,
}

/// What a handshake settled.
#[derive(Debug)]
pub struct Settled {
    /// The version.
    pub version: Version,
    /// Whether a session went on.
    pub resumed: bool,
    /// What the client is held to.
    pub terms: Arc<Terms>,
    /// The certificate that it showed.
    pub client: Option<Arc<ClientCertificate>>,
    /// What became of it, where it was asked for one.
    pub shown: Option<Shown>,
}

/// What a handshake for a host settled, once it has ended well.
///
/// # Errors
/// The session went on, and the certificate with which it began is not good any more: the connection must not.
pub fn settle(
    session: &ServerConnection,
    terms: &Arc<Terms>,
    verifier: Option<&dyn ClientCertVerifier>,
    now: SystemTime,
) -> Result<Settled, Shown> {
    let resumed = session.handshake_kind() == Some(HandshakeKind::Resumed);
    let chain = session.peer_certificates().unwrap_or_default();
    let mut client = None;
    let mut shown = None;
    if let Some(verifier) = verifier {
        if resumed {
            // The library takes the ticket's word for it.
            clients::again(verifier, chain, now)
                .map_err(|error| Shown::of_error(&error).unwrap_or(Shown::Bad))?;
        }
        client = identity::of(chain).map(Arc::new);
        shown = Some(match (&client, verifier.client_auth_mandatory()) {
            (Some(_), _) => Shown::Verified,
            (None, false) if chain.is_empty() => Shown::None,
            (None, _) => return Err(Shown::Bad),
        });
    }
    Ok(Settled {
        version: match session.protocol_version() {
            Some(ProtocolVersion::TLSv1_3) => Version::Tls13,
            _ => Version::Tls12,
        },
        resumed,
        terms: Arc::clone(terms),
        client,
        shown,
    })
}

/// Whether a client wants to see a proof, and nothing else: only an ACME server offers this protocol, and it
/// offers no other (RFC 8737 §3).
pub(super) fn is_for_proof<'a>(offered: Option<impl Iterator<Item = &'a [u8]>>) -> bool {
    offered.is_some_and(|mut offered| {
        matches!((offered.next(), offered.next()), (Some(PROTOCOL), None))
    })
}
