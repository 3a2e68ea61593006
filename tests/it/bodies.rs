//! Bodies: streamed in both directions, whole or visibly cut, and never held in memory.

mod download;
mod early;
mod upload;

use std::sync::Mutex;
use std::sync::PoisonError;

use crate::harness::Edge;
use crate::harness::Origin;

/// How much resident memory may grow while bodies pass that are many times larger.
const GROWTH: u64 = 48 << 20;

/// What a large body is made of.
const BLOCK: usize = 256 << 10;

/// A plain listener without a body limit, in front of `origin`.
fn unlimited(origin: &Origin) -> Edge {
    Edge::with(&crate::harness::edge::simple(origin, "defaults: {max_body: off, cache: off}"))
}

/// Watches a process's memory while `work` runs: the most that it grew by. One at a time, since such
/// work takes a whole machine.
fn growth(edge: &Edge, work: impl FnOnce() + Send) -> u64 {
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let before = edge.resident();
    std::thread::scope(|scope| {
        let working = scope.spawn(work);
        let mut most = before;
        while !working.is_finished() {
            most = most.max(edge.resident());
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        working.join().expect("the work succeeds");
        most.max(edge.resident()).saturating_sub(before)
    })
}
