//! The one account that every byte of the tier is drawn from.
//!
//! A [`Charge`] is bytes already taken; dropping it gives them back. Each charge lives inside the
//! very allocation it pays for, so memory that a slow reader still holds stays on the bill after
//! its entry was evicted or purged: the limit bounds what is resident, not what is reachable.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

/// A number of bytes that may be taken, and how many are.
#[derive(Debug)]
pub(super) struct Budget {
    /// Which zone it is the account of.
    zone: usize,
    limit: u64,
    /// The limit for the time being: lower while the allocator holds more than is used.
    ceiling: AtomicU64,
    used: AtomicU64,
}

impl Budget {
    /// An account of `limit` bytes, none of them taken.
    #[cfg(test)]
    pub(super) fn new(limit: u64) -> Arc<Self> {
        Self::of_zone(0, limit)
    }

    /// The account of a zone, of `limit` bytes, none of them taken.
    pub(super) fn of_zone(zone: usize, limit: u64) -> Arc<Self> {
        Arc::new(Self { zone, limit, ceiling: AtomicU64::new(limit), used: AtomicU64::new(0) })
    }

    /// Which zone it is the account of.
    pub(super) fn zone(&self) -> usize {
        self.zone
    }

    /// The most that can be taken, in bytes.
    pub(super) fn limit(&self) -> u64 {
        self.limit
    }

    /// The most that can be taken for the time being, in bytes.
    pub(super) fn ceiling(&self) -> u64 {
        self.ceiling.load(Ordering::Relaxed)
    }

    /// Sets the ceiling, to the limit at most. What is taken already stays taken.
    pub(super) fn set_ceiling(&self, bytes: u64) {
        self.ceiling.store(bytes.min(self.limit), Ordering::Relaxed);
    }

    /// What is taken now, in bytes; never more than the limit.
    pub(super) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    fn try_take(&self, bytes: u64) -> bool {
        let ceiling = self.ceiling();
        self.used
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, |used| {
                used.checked_add(bytes).filter(|after| *after <= ceiling)
            })
            .is_ok()
    }

    fn give_back(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::AcqRel);
    }
}

/// Bytes taken from a [`Budget`], given back on drop.
#[derive(Debug)]
pub(super) struct Charge {
    budget: Arc<Budget>,
    bytes: u64,
}

impl Charge {
    /// A charge of nothing yet.
    pub(super) fn nothing(budget: &Arc<Budget>) -> Self {
        Self { budget: Arc::clone(budget), bytes: 0 }
    }

    /// How much it holds, in bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What it is drawn from.
    pub(super) fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    /// Takes `bytes` more, or nothing at all when they would exceed the limit.
    pub(super) fn try_grow(&mut self, bytes: u64) -> bool {
        let taken = self.budget.try_take(bytes);
        if taken {
            self.bytes = self.bytes.saturating_add(bytes);
        }
        taken
    }

    /// Gives back what exceeds `bytes`.
    pub(super) fn shrink_to(&mut self, bytes: u64) {
        let surplus = self.bytes.saturating_sub(bytes);
        self.bytes -= surplus;
        self.budget.give_back(surplus);
    }

    /// Moves `bytes` (at most all) into a charge of their own.
    pub(super) fn split(&mut self, bytes: u64) -> Self {
        let part = bytes.min(self.bytes);
        self.bytes -= part;
        Self { budget: Arc::clone(&self.budget), bytes: part }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.budget.give_back(self.bytes);
    }
}

/// What an allocator really spends on a request of `bytes`: general-purpose allocators keep four
/// size classes per power of two, so up to a fifth is lost to rounding.
pub(super) fn allocated(bytes: usize) -> u64 {
    const SMALLEST: u64 = 16;
    let bytes = bytes as u64;
    if bytes == 0 {
        return 0;
    }
    if bytes <= SMALLEST {
        return SMALLEST;
    }
    let step = (1_u64 << bytes.ilog2()) / 4;
    bytes.checked_next_multiple_of(step).unwrap_or(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_byte_can_be_taken_and_not_one_more() {
        let budget = Budget::new(100);
        let mut charge = Charge::nothing(&budget);
        assert!(charge.try_grow(100));
        assert!(!charge.try_grow(1));
        assert_eq!((charge.bytes(), budget.used()), (100, 100));
    }

    #[test]
    fn a_lower_ceiling_stops_growth_and_never_exceeds_the_limit() {
        let budget = Budget::new(100);
        let mut charge = Charge::nothing(&budget);
        assert!(charge.try_grow(60));
        budget.set_ceiling(50);
        assert!(!charge.try_grow(1));
        budget.set_ceiling(1000);
        assert!(charge.try_grow(40) && !charge.try_grow(1));
    }

    #[test]
    fn an_absurd_request_is_refused_without_wrapping() {
        let budget = Budget::new(u64::MAX);
        let mut charge = Charge::nothing(&budget);
        assert!(charge.try_grow(10));
        assert!(!charge.try_grow(u64::MAX - 5));
        assert_eq!(budget.used(), 10);
    }

    #[test]
    fn dropping_shrinking_and_splitting_give_back_exactly_what_was_taken() {
        let budget = Budget::new(100);
        let mut charge = Charge::nothing(&budget);
        assert!(charge.try_grow(90));
        charge.shrink_to(60);
        assert_eq!(budget.used(), 60);
        let part = charge.split(20);
        drop(charge);
        assert_eq!(budget.used(), 20);
        drop(part);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn size_classes_never_undercount_and_lose_at_most_a_fifth() {
        for bytes in (17_usize..5000).chain([65_535, 65_536, 65_537, 1 << 20]) {
            let real = allocated(bytes);
            assert!(real >= bytes as u64, "{bytes} counted as {real}");
            assert!(real * 4 <= bytes as u64 * 5, "{bytes} counted as {real}");
        }
        assert_eq!(allocated(65_536), 65_536);
        assert_eq!(allocated(0), 0);
    }
}
