//! Numbers to which threads add without getting in each other's way.
//!
//! An atomic addition takes the memory away from all other threads, and costs a request more than to find out
//! what it adds to. So each thread has a lane of its own, and adds there as if it were alone, which it is; who
//! reads sums the lanes up.

use std::iter;
use std::sync::OnceLock;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

/// How many lanes there are. Threads that find none of their own share the last one.
const LANES: usize = 32;
/// The lane of all who have none.
const SHARED: usize = LANES - 1;

/// Which lanes are somebody's, a bit for each.
static TAKEN: AtomicU32 = AtomicU32::new(1 << SHARED);

thread_local! {
    static OWN: Lane = Lane::take();
}

/// A thread's lane, to its end.
struct Lane(usize);

impl Lane {
    fn take() -> Self {
        let mut taken = TAKEN.load(Ordering::Relaxed);
        loop {
            let free = taken.trailing_ones();
            if free as usize >= LANES {
                return Self(SHARED);
            }
            // What the one before has added is seen by the next one.
            match TAKEN.compare_exchange_weak(
                taken,
                taken | 1 << free,
                Ordering::Acquire,
                Ordering::Relaxed,
            ) {
                Ok(_) => return Self(free as usize),
                Err(others) => taken = others,
            }
        }
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        if self.0 != SHARED {
            TAKEN.fetch_and(!(1 << self.0), Ordering::Release);
        }
    }
}

/// A row of numbers that only grow.
#[derive(Debug)]
pub(super) struct Laned {
    length: usize,
    lanes: [OnceLock<Box<[AtomicU64]>>; LANES],
}

impl Laned {
    /// So many numbers, all of them zero.
    pub(super) fn new(length: usize) -> Self {
        Self { length, lanes: [const { OnceLock::new() }; LANES] }
    }

    /// Adds to some of them, each by its place.
    pub(super) fn add<const N: usize>(&self, more: [(usize, u64); N]) {
        // At the very end of a thread it has none any more.
        let own = OWN.try_with(|lane| lane.0).unwrap_or(SHARED);
        let lane = self.lanes[own]
            .get_or_init(|| iter::repeat_with(AtomicU64::default).take(self.length).collect());
        for (at, more) in more {
            let Some(number) = lane.get(at) else { continue };
            if own == SHARED {
                number.fetch_add(more, Ordering::Relaxed);
            } else {
                number.store(number.load(Ordering::Relaxed).wrapping_add(more), Ordering::Relaxed);
            }
        }
    }

    /// The number at this place.
    pub(super) fn get(&self, at: usize) -> u64 {
        let lanes = self.lanes.iter().filter_map(OnceLock::get);
        let numbers = lanes.filter_map(|lane| lane.get(at));
        numbers.fold(0, |sum, number| sum.wrapping_add(number.load(Ordering::Relaxed)))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    /// With more threads at once than lanes, and with one thread after the other.
    #[test]
    fn nothing_is_lost_whoever_adds() {
        let all = Laned::new(2);
        let together = Barrier::new(2 * LANES);
        for _ in 0..2 {
            std::thread::scope(|scope| {
                for _ in 0..2 * LANES {
                    scope.spawn(|| {
                        // Each has its lane, or shares the last one, while the others have theirs.
                        all.add([(0, 1)]);
                        together.wait();
                        for _ in 0..1000 {
                            all.add([(0, 1), (1, 2)]);
                        }
                        together.wait();
                    });
                }
            });
        }
        let times = 2 * 2 * LANES as u64;
        assert_eq!((all.get(0), all.get(1)), (times * 1001, times * 2000));
    }

    #[test]
    fn what_is_not_there_is_not_counted() {
        let all = Laned::new(1);
        all.add([(1, 7), (0, 1)]);
        assert_eq!((all.get(0), all.get(1)), (1, 0));
    }
}
