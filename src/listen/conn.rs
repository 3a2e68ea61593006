//! What is known of a connection before its first request, and how a request finds it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use crate::listen::pace::MinRate;

/// What is known of a connection.
#[derive(Debug)]
pub struct Conn {
    /// Which of the listeners accepted it: an index into the plan's list.
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
}

/// What a TLS handshake settled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFacts {
    /// `TLSv1.2` or `TLSv1.3`.
    pub version: &'static str,
    /// The name that the client asked for, in lower case.
    pub server_name: Option<Arc<str>>,
}

impl Conn {
    /// Whether the client's side is TLS.
    #[must_use]
    pub fn is_secure(&self) -> bool {
        self.tls.is_some()
    }

    pub(crate) fn count_in(&self, bytes: usize) {
        self.bytes_in.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn count_out(&self, bytes: usize) {
        self.bytes_out.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Notes that a whole response was written although HTTP will not keep the connection: it is
    /// closed in an orderly way, so that the client gets to read it.
    pub fn response_is_whole(&self) {
        self.whole.store(true, Ordering::Relaxed);
    }
}

/// What the request in progress is held to by whoever waits on its behalf.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// When its response has to be whole; `None` is no limit.
    pub ends: Option<Instant>,
    /// How long an origin may take from the first byte of its header to the last.
    pub header: Duration,
    /// The slowest that the client may send its body, where its connection does not see to that.
    pub upload: Option<MinRate>,
}

/// What belongs to one request of a connection.
struct Current {
    conn: Arc<Conn>,
    terms: OnceLock<Terms>,
}

tokio::task_local! {
    static CURRENT: Current;
}

/// Runs `work`, one request, as something that happens on `conn`.
pub(crate) async fn on<F: Future>(conn: Arc<Conn>, work: F) -> F::Output {
    CURRENT.scope(Current { conn, terms: OnceLock::new() }, work).await
}

/// The connection that the running request came on; `None` for what no client asked for, such as a
/// background refresh.
#[must_use]
pub fn current() -> Option<Arc<Conn>> {
    CURRENT.try_with(|current| Arc::clone(&current.conn)).ok()
}

/// Settles the terms of the running request, once: later ones do not count. Without effect where no
/// client asked.
pub fn agree(terms: Terms) {
    let _ = CURRENT.try_with(|current| current.terms.set(terms));
}

/// The terms of the running request, once they are settled.
#[must_use]
pub fn terms() -> Option<Terms> {
    CURRENT.try_with(|current| current.terms.get().copied()).ok().flatten()
}
