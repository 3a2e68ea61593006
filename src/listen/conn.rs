//! What is known of a connection before its first request, and how a request finds it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use crate::message::certificate::ClientCertificate;
use crate::terms;
use crate::terms::room::Room;
use crate::tls::Version;
use crate::tls::terms::Terms;

/// What is known of a connection.
#[derive(Debug)]
pub struct Conn {
    /// Which of the listeners accepted it: its place in the tables of a generation, the same in each.
    pub listener: usize,
    /// The listener's name.
    pub listener_name: Arc<str>,
    /// Who is at the other end.
    pub peer: SocketAddr,
    /// Which of our addresses was connected to.
    pub local: SocketAddr,
    /// What the TLS handshake settled; `None` on plain text.
    pub tls: Option<TlsFacts>,
    /// Requests that were begun on it.
    pub requests: AtomicU64,
    /// Bytes that came from the client, TLS aside.
    pub bytes_in: AtomicU64,
    /// Bytes that went to the client, TLS aside.
    pub bytes_out: AtomicU64,
    /// The response in progress is whole: it may be followed by an orderly close.
    pub(crate) whole: AtomicBool,
    /// What bodies of requests may take up together, over HTTP/2.
    pub(crate) room: OnceLock<Arc<Room>>,
}

/// What a TLS handshake settled.
#[derive(Debug, Clone)]
pub struct TlsFacts {
    /// The version.
    pub version: Version,
    /// The name that the client asked for, in lower case.
    pub server_name: Option<Arc<str>>,
    /// What the client was held to.
    pub terms: Arc<Terms>,
    /// The certificate that it showed.
    pub client: Option<Arc<ClientCertificate>>,
}

impl Conn {
    /// Whether the client's side is TLS.
    #[must_use]
    pub fn is_secure(&self) -> bool {
        self.tls.is_some()
    }

    /// The certificate that the client showed.
    #[must_use]
    pub fn client(&self) -> Option<&ClientCertificate> {
        self.tls.as_ref()?.client.as_deref()
    }

    pub(crate) fn count_in(&self, bytes: usize) {
        count(&self.bytes_in, bytes as u64);
    }

    pub(crate) fn count_out(&self, bytes: usize) {
        count(&self.bytes_out, bytes as u64);
    }

    /// One more request was begun.
    pub(crate) fn count_request(&self) {
        count(&self.requests, 1);
    }

    /// Notes that a whole response was written although HTTP will not keep the connection: it is
    /// closed in an orderly way, so that the client gets to read it.
    pub fn response_is_whole(&self) {
        self.whole.store(true, Ordering::Relaxed);
    }
}

/// Only the connection's own task counts, which need not lock the number against others.
fn count(number: &AtomicU64, more: u64) {
    number.store(number.load(Ordering::Relaxed).wrapping_add(more), Ordering::Relaxed);
}

/// Runs `work`, one request, as something that happens on `conn`.
pub(crate) fn on<F: Future>(conn: Arc<Conn>, work: F) -> impl Future<Output = F::Output> {
    let room = conn.room.get().cloned();
    terms::scope(conn, room, work)
}

/// The connection that the running request came on; `None` for what no client asked for, such as a
/// background refresh.
#[must_use]
pub fn current() -> Option<Arc<Conn>> {
    terms::source()
}
