//! The TLS handshake: the client says whom it wants, and is spoken to as that host's clients are.

use std::io;
use std::sync::Arc;
use std::time::Duration;
use std::time::SystemTime;

use rustls::server::Acceptor;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio::time::timeout_at;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use crate::listen::conn::TlsFacts;
use crate::listen::hands::Hands;
use crate::listen::watch::Handshake;
use crate::listen::watch::Why;
use crate::tls::CertificateStore;
use crate::tls::clients::Shown;
use crate::tls::meet;
use crate::tls::meet::Settled;
use crate::tls::meet::Whom;

/// A connection that is ready for requests.
pub(super) struct Ready {
    pub(super) stream: TlsStream<TcpStream>,
    pub(super) facts: TlsFacts,
    /// HTTP/2 was agreed on.
    pub(super) h2: bool,
    /// Whether a session went on.
    pub(super) resumed: bool,
    /// What became of the client's certificate, where one was asked for.
    pub(super) shown: Option<Shown>,
}

/// What came of a handshake that ended well.
pub(super) enum Shaken {
    /// There may be requests.
    Ready(Box<Ready>),
    /// An ACME server has seen what it wanted; no more is said (RFC 8737 §3).
    Proven,
}

/// Shakes hands within this time, when fewer than `most` others do.
///
/// # Errors
/// How it failed.
pub(super) async fn shake(
    tcp: TcpStream,
    certificates: &CertificateStore,
    within: Duration,
    (hands, most): (&Hands, u64),
) -> Result<Shaken, Handshake> {
    let deadline = Instant::now() + within;
    let late = |_| Handshake::TimedOut;
    let start = timeout_at(deadline, LazyConfigAcceptor::new(Acceptor::default(), tcp));
    let start = start.await.map_err(late)?.map_err(|_| Handshake::Failed(Why::Disagreed))?;
    // From here on it costs something. Who only connects takes nobody's place.
    let _hand = timeout_at(deadline, hands.take(most)).await.map_err(late)?;
    let met = certificates.meet(&start.client_hello());
    let rest = timeout_at(deadline, start.into_stream(Arc::clone(&met.config)));
    let ended = rest.await.map_err(late)?;
    let (terms, verifier) = match met.whom {
        Whom::Host { terms, verifier } => (terms, verifier),
        Whom::Proof => {
            return ended.map(|_| Shaken::Proven).map_err(|_| Handshake::Failed(Why::Disagreed));
        }
        Whom::Nobody => return Err(Handshake::Failed(Why::UnknownName)),
    };
    let stream = ended.map_err(|error| Handshake::Failed(why(&error)))?;
    let session = stream.get_ref().1;
    let settled = meet::settle(session, &terms, verifier.as_deref(), SystemTime::now());
    let Settled { version, resumed, terms, client, shown } =
        settled.map_err(|shown| Handshake::Failed(Why::Certificate(shown)))?;
    let facts = TlsFacts {
        version,
        server_name: session.server_name().map(str::to_ascii_lowercase).map(Arc::from),
        terms,
        client,
    };
    let h2 = session.alpn_protocol() == Some(b"h2");
    Ok(Shaken::Ready(Box::new(Ready { stream, facts, h2, resumed, shown })))
}

fn why(error: &io::Error) -> Why {
    Shown::of_failure(error).map_or(Why::Disagreed, Why::Certificate)
}
