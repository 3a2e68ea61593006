//! Who may have a connection, and who waits for one: first come, first served.
//!
//! One number says how many places are in use and how many requests wait, so that entering and leaving are one
//! atomic step each as long as nobody waits. Those who do stand in a queue behind a lock, which nobody else takes.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
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
        let before = self.pool.queue.count.leave();
        if before.waiting > 0 {
            hand_out(&self.pool);
        }
    }
}

/// The places of a pool.
#[derive(Debug)]
pub(super) struct Queue {
    count: Count,
    limit: AtomicU32,
    most_waiting: AtomicU32,
    line: Mutex<Waiting>,
}

/// Those who wait, the first one in front.
#[derive(Debug, Default)]
struct Waiting {
    waiters: VecDeque<Waiter>,
    last_number: u64,
}

#[derive(Debug)]
struct Waiter {
    number: u64,
    place: oneshot::Sender<Slot>,
}

/// How many places are in use, and how many requests wait: two numbers in one.
#[derive(Debug, Default)]
struct Count(AtomicU64);

/// The same at one moment.
#[derive(Debug, Clone, Copy)]
struct Numbers {
    in_use: u32,
    waiting: u32,
}

/// Whether a request may go before those who wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum As {
    /// It has just come.
    Newcomer,
    /// It is the first of those who wait.
    First,
}

impl Count {
    const WAITING: u64 = 1 << 32;

    fn now(&self) -> Numbers {
        Self::read(self.0.load(Ordering::Acquire))
    }

    /// Takes a place, where there is one.
    fn enter(&self, limit: u32, comes: As) -> bool {
        let one_more = |count| {
            let Numbers { in_use, waiting } = Self::read(count);
            let may = in_use < limit && (comes == As::First || waiting == 0);
            may.then_some(count + 1)
        };
        // What whoever left the place did before is seen from here on.
        self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more).is_ok()
    }

    /// Gives a place back.
    fn leave(&self) -> Numbers {
        Self::read(self.0.fetch_sub(1, Ordering::AcqRel))
    }

    fn begin_to_wait(&self) {
        self.0.fetch_add(Self::WAITING, Ordering::AcqRel);
    }

    fn end_to_wait(&self) {
        self.0.fetch_sub(Self::WAITING, Ordering::AcqRel);
    }

    #[expect(clippy::cast_possible_truncation, reason = "two halves of one number")]
    fn read(count: u64) -> Numbers {
        Numbers { in_use: count as u32, waiting: (count >> 32) as u32 }
    }
}

impl Queue {
    pub(super) fn new(limit: u32, most_waiting: u32) -> Self {
        Self {
            count: Count::default(),
            limit: AtomicU32::new(limit),
            most_waiting: AtomicU32::new(most_waiting),
            line: Mutex::default(),
        }
    }

    /// How many are in use, and how many wait.
    pub(super) fn numbers(&self) -> (u32, u32) {
        let Numbers { in_use, waiting } = self.count.now();
        (in_use, waiting)
    }

    fn enter(&self, comes: As) -> bool {
        self.count.enter(self.limit.load(Ordering::Acquire), comes)
    }
}

/// A place, if there is one and nobody waits for it.
pub(super) fn enter(pool: &Arc<Pool>) -> Option<Slot> {
    pool.queue.enter(As::Newcomer).then(|| Slot { pool: Arc::clone(pool) })
}

/// A place within `patience`.
pub(super) async fn wait(pool: &Arc<Pool>, patience: Duration) -> Result<Slot, Refused> {
    let (place, coming) = oneshot::channel();
    let number = {
        let most = pool.queue.most_waiting.load(Ordering::Acquire);
        let mut line = pool.queue.line.lock();
        if line.waiters.len() >= usize::try_from(most).unwrap_or(usize::MAX) {
            return Err(Refused::QueueFull);
        }
        line.last_number += 1;
        let number = line.last_number;
        line.waiters.push_back(Waiter { number, place });
        pool.queue.count.begin_to_wait();
        number
    };
    let _leaving = Leaving { pool, number };
    // A place may have become free in between: who left it then did not know that anybody waits.
    hand_out(pool);
    match timeout(patience, coming).await {
        Ok(Ok(slot)) => Ok(slot),
        Ok(Err(_)) | Err(_) => Err(Refused::QueueTimeout),
    }
}

/// Another number of places.
pub(super) fn adjust(pool: &Arc<Pool>, limit: u32, most_waiting: u32) {
    pool.queue.limit.store(limit, Ordering::Release);
    pool.queue.most_waiting.store(most_waiting, Ordering::Release);
    hand_out(pool);
}

/// Gives free places to those who have waited longest, each to exactly one.
#[cold]
fn hand_out(pool: &Arc<Pool>) {
    loop {
        let waiter = {
            let mut line = pool.queue.line.lock();
            if line.waiters.is_empty() || !pool.queue.enter(As::First) {
                return;
            }
            let Some(waiter) = line.waiters.pop_front() else { return };
            pool.queue.count.end_to_wait();
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
        let mut line = self.pool.queue.line.lock();
        let at = line.waiters.binary_search_by_key(&self.number, |waiter| waiter.number);
        if let Ok(at) = at {
            line.waiters.remove(at);
            self.pool.queue.count.end_to_wait();
        }
    }
}
