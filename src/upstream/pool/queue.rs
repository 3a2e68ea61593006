//! Who may have a connection, and who waits for one: first come, first served.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::upstream::pool::Pool;

/// Why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// As many as may wait do.
    QueueFull,
    /// It waited for as long as it may.
    QueueTimeout,
}

/// A place among those that are in use. It is free again when this is dropped.
pub struct Slot {
    pool: Arc<Pool>,
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Slot")
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.pool.queue.state.lock().in_use -= 1;
        hand_out(&self.pool);
    }
}

/// The places of a pool.
#[derive(Debug)]
pub(super) struct Queue {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    limit: u32,
    most_waiting: u32,
    in_use: u32,
    waiting: VecDeque<Waiter>,
    last_number: u64,
}

#[derive(Debug)]
struct Waiter {
    number: u64,
    place: oneshot::Sender<Slot>,
}

impl Queue {
    pub(super) fn new(limit: u32, most_waiting: u32) -> Self {
        let state =
            State { limit, most_waiting, in_use: 0, waiting: VecDeque::new(), last_number: 0 };
        Self { state: Mutex::new(state) }
    }

    /// How many are in use, and how many wait.
    pub(super) fn numbers(&self) -> (u32, u32) {
        let state = self.state.lock();
        (state.in_use, u32::try_from(state.waiting.len()).unwrap_or(u32::MAX))
    }
}

/// A place, if there is one and nobody waits for it.
pub(super) fn enter(pool: &Arc<Pool>) -> Option<Slot> {
    let mut state = pool.queue.state.lock();
    if !state.waiting.is_empty() || state.in_use >= state.limit {
        return None;
    }
    state.in_use += 1;
    drop(state);
    Some(Slot { pool: Arc::clone(pool) })
}

/// A place within `patience`.
pub(super) async fn wait(pool: &Arc<Pool>, patience: Duration) -> Result<Slot, Refused> {
    let (place, coming) = oneshot::channel();
    let number = {
        let mut state = pool.queue.state.lock();
        if state.waiting.len() >= usize::try_from(state.most_waiting).unwrap_or(usize::MAX) {
            return Err(Refused::QueueFull);
        }
        state.last_number += 1;
        let number = state.last_number;
        state.waiting.push_back(Waiter { number, place });
        number
    };
    let _leaving = Leaving { pool, number };
    // A place may have become free in between.
    hand_out(pool);
    match timeout(patience, coming).await {
        Ok(Ok(slot)) => Ok(slot),
        Ok(Err(_)) | Err(_) => Err(Refused::QueueTimeout),
    }
}

/// Another number of places.
pub(super) fn adjust(pool: &Arc<Pool>, limit: u32, most_waiting: u32) {
    {
        let mut state = pool.queue.state.lock();
        state.limit = limit;
        state.most_waiting = most_waiting;
    }
    hand_out(pool);
}

/// Gives free places to those who have waited longest, each to exactly one.
fn hand_out(pool: &Arc<Pool>) {
    loop {
        let waiter = {
            let mut state = pool.queue.state.lock();
            if state.in_use >= state.limit {
                return;
            }
            let Some(waiter) = state.waiting.pop_front() else { return };
            state.in_use += 1;
            waiter
        };
        // Who has given up meanwhile does not take it; then it comes back by being dropped.
        let _ = waiter.place.send(Slot { pool: Arc::clone(pool) });
    }
}

/// Takes who does not wait any more out of the queue.
struct Leaving<'a> {
    pool: &'a Arc<Pool>,
    number: u64,
}

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        let mut state = self.pool.queue.state.lock();
        if let Ok(at) = state.waiting.binary_search_by_key(&self.number, |waiter| waiter.number) {
            state.waiting.remove(at);
        }
    }
}
