//! The TLS handshake: the client says whom it wants, and is spoken to as that host's clients are.

use std::io;
use std::sync::Arc;
use std::time::Duration;
use std::time::SystemTime;

use rustls::server::Acceptor;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::time::Instant;
use tokio::time::timeout_at;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use crate::listen::conn::TlsFacts;
use crate::listen::hands::Hands;
use crate::listen::watch::Handshake;
use crate::listen::watch::Why;
use crate::socket::Socket;
use crate::tls::CertificateStore;
use crate::tls::clients::Shown;
use crate::tls::meet;
use crate::tls::meet::Settled;
use crate::tls::meet::Whom;

/// How long a client that is refused may take to close, and how much it may say meanwhile.
const PARTING: Duration = Duration::from_secs(1);
const PARTING_BYTES: usize = 64 * 1024;

/// A connection that is ready for requests.
pub(super) struct Ready {
    pub(super) stream: TlsStream<Socket>,
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
    socket: Socket,
    certificates: &CertificateStore,
    within: Duration,
    (hands, most): (&Hands, u64),
) -> Result<Shaken, Handshake> {
    let deadline = Instant::now() + within;
    let late = |_| Handshake::TimedOut;
    let start = timeout_at(deadline, LazyConfigAcceptor::new(Acceptor::default(), socket));
    let start = start.await.map_err(late)?.map_err(|_| Handshake::Failed(Why::Disagreed))?;
    // From here on it costs something. Who only connects takes nobody's place.
    let hand = timeout_at(deadline, hands.take(most)).await.map_err(late)?;
    let met = certificates.meet(&start.client_hello());
    let rest = start.into_stream(Arc::clone(&met.config)).into_fallible();
    let ended = timeout_at(deadline, rest).await.map_err(late)?;
    drop(hand);
    let (terms, verifier) = match met.whom {
        Whom::Host { terms, verifier } => (terms, verifier),
        Whom::Proof => {
            return ended.map(|_| Shaken::Proven).map_err(|_| Handshake::Failed(Why::Disagreed));
        }
        Whom::Nobody => return Err(Handshake::Failed(Why::UnknownName)),
    };
    let stream = match ended {
        Ok(stream) => stream,
        Err((error, socket)) => {
            let why = why(&error);
            if matches!(why, Why::Certificate(_)) {
                part(socket, deadline.min(Instant::now() + PARTING)).await;
            }
            return Err(Handshake::Failed(why));
        }
    };
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

/// Lets a client read why its certificate is refused. Over TLS 1.3 it has sent its request by then; to close the
/// connection before that was read would reset it, and take the alert back.
async fn part(mut socket: Socket, until: Instant) {
    let listen = async {
        socket.shutdown().await?;
        let (mut rest, mut heard) = ([0; 1024], 0);
        while heard < PARTING_BYTES {
            match socket.read(&mut rest).await? {
                0 => break,
                some => heard += some,
            }
        }
        io::Result::Ok(())
    };
    // Whatever becomes of it, it is over.
    let _ = timeout_at(until, listen).await;
}

fn why(error: &io::Error) -> Why {
    Shown::of_failure(error).map_or(Why::Disagreed, Why::Certificate)
}
