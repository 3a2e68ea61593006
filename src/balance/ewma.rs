//! The latency of one peer: an average that forgets, and that believes bad news at once.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// A moment is counted in steps of 2^16 ns, about 66 µs; the count starts over after 78 hours.
const TICK: u32 = 16;

/// How far a stamp may lie in the future: threads look at the clock one after the other and get
/// here in another order.
const FUTURE: u32 = 1 << 16;

/// Below this, in nanoseconds, a latency is as good as forgotten.
const FORGOTTEN: f64 = 1000.0;

/// What a request is taken to need at a peer that has not answered lately but has one to answer.
const UNKNOWN: u64 = 1_000_000_000;

/// Peak-EWMA latency of one peer.
///
/// A slower answer than the average replaces it at once; a faster one moves it by how much time has
/// passed since the last one, as a share of `decay`. Without answers it goes towards nothing, so
/// that a peer that was slow is tried again.
#[derive(Debug)]
pub struct PeakEwma {
    decay: f64,
    /// The latency in nanoseconds as an `f32`, above the tick of the last observation. In one word,
    /// so that both change together.
    state: AtomicU64,
}

impl PeakEwma {
    /// A peer that has not answered yet. After `decay` without answers about a third is left of
    /// what was known.
    #[must_use]
    pub fn new(decay: Duration) -> Self {
        let decay = decay.max(Duration::from_millis(1)).as_nanos() as f64;
        Self { decay, state: AtomicU64::new(0) }
    }

    /// Takes in that the peer answered within `latency`.
    pub fn observe(&self, latency: Duration, now: Duration) {
        // By way of 64 bits, which the processor makes a float of by itself; 128 it does not.
        let sample = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX) as f64;
        let tick = tick(now);
        let next = |state: u64| {
            let (known, at) = unpack(state);
            let value = if sample >= known {
                sample
            } else {
                sample + (known - sample) * self.left(at, tick)
            };
            Some(pack(value, later(at, tick)))
        };
        // Relaxed: the word says all there is to say. It always is replaced, since `next` never fails.
        let _ = self.state.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
    }

    /// The latency as it is known now; zero when nothing is known any more.
    #[must_use]
    pub fn value(&self, now: Duration) -> Duration {
        Duration::from_nanos(self.nanoseconds(now) as u64)
    }

    /// What a request costs there by itself, for [`Peers::cost`](crate::balance::Peers::cost): the
    /// latency in nanoseconds.
    ///
    /// Where nothing is known of the peer, nothing while it has no request in flight, and much
    /// from then on: one request finds out, and the others wait for what it finds.
    #[must_use]
    pub fn cost(&self, in_flight: u32, now: Duration) -> u64 {
        let known = self.nanoseconds(now);
        if known >= FORGOTTEN {
            known as u64
        } else if in_flight == 0 {
            0
        } else {
            UNKNOWN
        }
    }

    fn nanoseconds(&self, now: Duration) -> f64 {
        let (known, at) = unpack(self.state.load(Ordering::Relaxed));
        if known == 0.0 { 0.0 } else { known * self.left(at, tick(now)) }
    }

    /// How much is left at the tick `now` of what was known at the tick `at`.
    fn left(&self, at: u32, now: u32) -> f64 {
        let elapsed = now.wrapping_sub(at);
        if is_future(elapsed) {
            return 1.0;
        }
        let share = (u64::from(elapsed) << TICK) as f64 / self.decay;
        // Nearly always: the series, beyond what an `f32` can tell from the function that takes its time.
        if share < 1e-3 { 1.0 - share + share * share / 2.0 } else { (-share).exp() }
    }
}

fn tick(now: Duration) -> u32 {
    // The upper bits are meant to go: ticks are compared by their distance.
    (now.as_nanos() >> TICK) as u32
}

fn is_future(elapsed: u32) -> bool {
    elapsed > u32::MAX - FUTURE
}

fn later(at: u32, now: u32) -> u32 {
    if is_future(now.wrapping_sub(at)) { at } else { now }
}

fn pack(nanoseconds: f64, tick: u32) -> u64 {
    u64::from((nanoseconds as f32).to_bits()) << 32 | u64::from(tick)
}

fn unpack(state: u64) -> (f64, u32) {
    (f64::from(f32::from_bits((state >> 32) as u32)), state as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DECAY: Duration = Duration::from_secs(10);

    fn milliseconds(value: u64) -> Duration {
        Duration::from_millis(value)
    }

    /// Equal up to the precision of what is kept.
    #[track_caller]
    fn assert_about(value: Duration, wanted: Duration) {
        let off = value.abs_diff(wanted);
        assert!(off * 1000 <= wanted, "{value:?} instead of about {wanted:?}");
    }

    #[test]
    fn a_slower_answer_counts_at_once() {
        let latency = PeakEwma::new(DECAY);
        latency.observe(milliseconds(5), milliseconds(100));
        latency.observe(milliseconds(300), milliseconds(101));
        assert_about(latency.value(milliseconds(101)), milliseconds(300));
    }

    #[test]
    fn a_faster_answer_moves_it_by_the_time_that_passed() {
        let latency = PeakEwma::new(DECAY);
        latency.observe(milliseconds(300), milliseconds(0));
        latency.observe(milliseconds(100), milliseconds(10_000));
        // 100 + (300 - 100) / e
        assert_about(latency.value(milliseconds(10_000)), Duration::from_micros(173_576));
    }

    #[test]
    fn without_answers_it_is_forgotten() {
        let latency = PeakEwma::new(DECAY);
        latency.observe(milliseconds(100), milliseconds(5));
        assert_about(latency.value(milliseconds(10_005)), Duration::from_micros(36_788));
        assert!(latency.value(Duration::from_secs(300)) < Duration::from_nanos(10));
        assert_eq!(latency.cost(0, Duration::from_secs(300)), 0);
    }

    #[test]
    fn the_first_request_finds_out_and_the_others_stay_away() {
        let latency = PeakEwma::new(DECAY);
        assert_eq!(latency.cost(0, milliseconds(1)), 0);
        assert_eq!(latency.cost(1, milliseconds(1)), 1_000_000_000);
        latency.observe(milliseconds(2), milliseconds(3));
        let cost = latency.cost(1, milliseconds(3));
        assert!(cost.abs_diff(2_000_000) < 2000, "{cost}");
    }

    #[test]
    fn a_look_at_the_clock_that_comes_late_forgets_nothing() {
        let latency = PeakEwma::new(DECAY);
        latency.observe(milliseconds(80), milliseconds(1000));
        assert_about(latency.value(milliseconds(990)), milliseconds(80));
        latency.observe(milliseconds(10), milliseconds(990));
        assert_about(latency.value(milliseconds(1000)), milliseconds(80));
    }

    #[test]
    fn threads_that_observe_together_leave_a_latency_that_was_observed() {
        let latency = PeakEwma::new(DECAY);
        std::thread::scope(|scope| {
            for thread in 1..=4_u64 {
                let latency = &latency;
                scope.spawn(move || {
                    for step in 0..10_000 {
                        latency.observe(milliseconds(thread), Duration::from_micros(step * 10));
                    }
                });
            }
        });
        let value = latency.value(milliseconds(100));
        assert!(value > milliseconds(1) && value <= milliseconds(5), "{value:?}");
    }
}
