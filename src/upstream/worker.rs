//! The number of the thread that runs: what it keeps for itself it finds by that, and nobody else wants its lock.

use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

/// The number of this thread: each that asks has another one, from 0 on.
pub(super) fn own() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static OWN: usize = NEXT.fetch_add(1, Ordering::Relaxed);
    }
    OWN.with(|own| *own)
}
