//! What the running request is held to, wherever bytes pass on its behalf: its deadlines, and the
//! slowest that a peer may be.
//!
//! The terms belong to the task that serves the request. Connections to clients and to origins both
//! look here, and so need not know each other.

pub mod pace;

use std::sync::OnceLock;
use std::time::Duration;

use tokio::time::Instant;

use crate::terms::pace::MinRate;

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

tokio::task_local! {
    static CURRENT: OnceLock<Terms>;
}

/// Runs `work`, one request, whose terms are still to be settled.
pub(crate) async fn scope<F: Future>(work: F) -> F::Output {
    CURRENT.scope(OnceLock::new(), work).await
}

/// Settles the terms of the running request, once: later ones do not count. Without effect where no
/// client asked.
pub fn agree(terms: Terms) {
    let _ = CURRENT.try_with(|current| current.set(terms));
}

/// The terms of the running request, once they are settled.
#[must_use]
pub fn current() -> Option<Terms> {
    CURRENT.try_with(|current| current.get().copied()).ok().flatten()
}
