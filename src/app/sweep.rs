//! Keeps the store tidy, and the process within its bounds.

use std::sync::Arc;
use std::time::Duration;
use std::time::SystemTime;

use crate::listen::census::Census;
use crate::observe::metrics::process;
use crate::storage::memory::Held;
use crate::storage::memory::Memory;

/// How often expired entries are looked for, and how many are looked at each time.
const EVERY: Duration = Duration::from_millis(250);
const STEPS: usize = 4096;
/// What the program may hold beyond what it began with, in bytes, before it serves anybody.
const ROOM: u64 = 8 << 20;
/// What an allocator cannot use of a small store, in bytes: it has pages of every size.
const SLACK: u64 = 16 << 20;
/// What a connection may hold, in bytes: both sides' buffers and the proxy's state while a request runs.
const CONNECTION: u64 = 128 << 10;

/// Goes on for as long as the process lives.
///
/// `own` is what it takes to be there, in bytes, before anything is stored: more in a build for debugging.
pub(crate) async fn keep(memory: &'static Memory, own: u64, census: Arc<Census>) {
    let mut every = tokio::time::interval(EVERY);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let limit = memory.options().limit;
    memory.watch(move || {
        let resident = process::resident_of_its_own()?;
        Some(Held { resident, allowed: allowed(limit, own, census.total()) })
    });
    loop {
        every.tick().await;
        memory.sweep(SystemTime::now(), STEPS);
        memory.look();
    }
}

/// What the process may have allocated before the store gives way, in bytes: the store's limit and a sixteenth
/// of it for what an allocator cannot use, the program's own, and what connections take.
fn allowed(limit: u64, own: u64, connections: u64) -> u64 {
    limit
        .saturating_add((limit / 16).max(SLACK))
        .saturating_add(own)
        .saturating_add(ROOM)
        .saturating_add(connections.saturating_mul(CONNECTION))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn a_process_with_256_mib_of_store_and_few_connections_stays_below_320() {
        // The program's text is resident too: up to 16 MiB of it.
        assert!(allowed(256 * MIB, 8 * MIB, 32) < (320 - 16) * MIB);
    }

    #[test]
    fn connections_do_not_drive_out_what_is_stored() {
        // More than an idle one takes, and what a request needs.
        assert!(
            allowed(256 * MIB, MIB, 10_000) - allowed(256 * MIB, MIB, 0) >= 10_000 * 100 * 1024
        );
    }

    #[test]
    fn an_absurd_limit_does_not_wrap() {
        assert_eq!(allowed(u64::MAX, u64::MAX, u64::MAX), u64::MAX);
    }
}
