//! What is looked at of a backend for each choice, and how that lies in memory.
//!
//! In a group of a thousand a choice mostly waits for memory. So what it reads of a backend is one line of memory, and one
//! more of its breaker; where these are is known without a look at the backend itself. That line is written
//! by whoever has a request there, so what is only counted lies in another one.

use std::sync::Arc;
use std::sync::atomic::AtomicU8;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::balance::PeakEwma;
use crate::resilience::breaker::Breaker;
use crate::resilience::ejection;
use crate::upstream::backend::Heed;
use crate::upstream::backend::Reason;
use crate::upstream::mishap;

/// All of a share.
const FULLY: u32 = 1000;

/// How it has gone with a backend so far. After a reload the same backend goes on where it was, and
/// requests that began before still count.
#[derive(Debug)]
#[repr(C, align(128))]
pub(super) struct Course {
    /// Why it gets no requests, one bit for each [`Reason`].
    pub(super) reasons: AtomicU8,
    /// Requests that were sent there.
    pub(super) begun: AtomicU64,
    /// Those of them that are over.
    pub(super) ended: AtomicU64,
    pub(super) rests_until: AtomicU64,
    pub(super) latency: PeakEwma,
    /// How its requests went, compared with those of its siblings; how long it is out stands first.
    pub(super) record: ejection::Record,
    pub(super) up_since: AtomicU64,
    pub(super) tally: Tally,
}

// How long it is out is still in the first line.
const _: () = assert!(std::mem::offset_of!(Course, record) + 8 <= 64);

/// What was counted of one backend since it came.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) failures: AtomicU64,
    pub(super) answered: AtomicU64,
    pub(super) micros: AtomicU64,
    pub(super) opened: AtomicU64,
    pub(super) half_opened: AtomicU64,
    pub(super) closed: AtomicU64,
    pub(super) ejected: AtomicU64,
    pub(super) last_error: mishap::Last,
}

/// What is looked at of one backend.
#[derive(Debug, Clone)]
pub(super) struct Prospect {
    pub(super) course: Arc<Course>,
    pub(super) breaker: Option<Arc<Breaker>>,
    /// How many requests it can have at once.
    pub(super) places: u32,
}

impl Prospect {
    /// Whether it may get a request at `now`.
    pub(super) fn is_usable(&self, heed: Heed, now: Duration) -> bool {
        let off = Reason::Inactive as u8 | Reason::Draining as u8;
        let well = match heed {
            Heed::Health => self.is_well(now),
            Heed::Panic => self.reasons() & off == 0,
        };
        well && self.breaker.as_ref().is_none_or(|breaker| breaker.admits(now))
    }

    /// Whether health and ejection would let it have requests; the breaker has its own say.
    pub(super) fn is_well(&self, now: Duration) -> bool {
        self.reasons() == 0 && !self.course.record.is_out(now)
    }

    /// Why it gets no requests, apart from what passes with time.
    pub(super) fn reasons(&self) -> u8 {
        self.course.reasons.load(Ordering::Relaxed)
    }

    /// Whether it was not unreachable of late, and has a connection to spare.
    pub(super) fn is_rested(&self, now: Duration) -> bool {
        self.is_awake(now) && self.in_flight() < self.places
    }

    /// Whether it is not known to be unreachable.
    pub(super) fn is_awake(&self, now: Duration) -> bool {
        let until = self.course.rests_until.load(Ordering::Relaxed);
        // Mostly it never rested, and no time is asked for.
        until == 0 || until <= millis(now)
    }

    /// For how long it stands behind its siblings yet; `None`: it does not.
    pub(super) fn rests_for(&self, now: Duration) -> Option<Duration> {
        let until = self.course.rests_until.load(Ordering::Relaxed);
        let left = until.saturating_sub(millis(now));
        (left > 0).then(|| Duration::from_millis(left))
    }

    /// Requests that it has now.
    pub(super) fn in_flight(&self) -> u32 {
        // In this order, so that what is over had begun: no request is counted out that was not counted in.
        let ended = self.course.ended.load(Ordering::Acquire);
        let begun = self.course.begun.load(Ordering::Relaxed);
        u32::try_from(begun.wrapping_sub(ended)).unwrap_or(u32::MAX)
    }

    /// What a request there costs by itself: its latency of late. Weight and load are the balancer's affair.
    pub(super) fn cost(&self, now: Duration) -> u64 {
        self.course.latency.cost(self.in_flight(), now)
    }

    /// Since when it is up, in milliseconds.
    pub(super) fn up_since(&self) -> u64 {
        self.course.up_since.load(Ordering::Relaxed)
    }

    /// How ready it is for its share, of 1000, when the way up takes `slow_start`.
    pub(super) fn readiness(&self, slow_start: Duration, now: Duration) -> u32 {
        if slow_start.is_zero() {
            return FULLY;
        }
        readiness(self.up_since(), slow_start, now)
    }
}

/// How ready what came up then is for its share, of 1000.
pub(super) fn readiness(up_since: u64, slow_start: Duration, now: Duration) -> u32 {
    let up = millis(now).saturating_sub(up_since);
    let whole = millis(slow_start).max(1);
    if up >= whole {
        return FULLY;
    }
    // Never nothing: without requests it would not warm up.
    u32::try_from(up.saturating_mul(1000) / whole).unwrap_or(FULLY).clamp(50, FULLY)
}

/// In whole milliseconds.
pub(super) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
