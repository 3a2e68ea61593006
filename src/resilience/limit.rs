//! An adaptive limit of concurrency: as many requests at once as a group takes without queueing.
//!
//! When latency grows with the requests in flight, they wait for each other somewhere behind us, and
//! more of them make nothing faster. The limit follows the gradient of the latency: the latency of a
//! group that has little to do, over what it is now.

use std::sync::Mutex;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

mod control;

use control::Seen;
use control::State;
use control::bounded;

/// The longest latency that is told from longer ones, in microseconds: a minute. So the sum of the squares of those of
/// a window fits.
const LONGEST_LATENCY: u64 = 60_000_000;

/// Bounds of a limit, and how it is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The limit at first.
    pub initial: u32,
    /// The least that it becomes; at least 1.
    pub min: u32,
    /// The most that it becomes.
    pub max: u32,
    /// The latency at which the limit shrinks, in percent of that without a queue; at least 100.
    pub tolerance: u32,
    /// How often the limit is found anew.
    pub window: Duration,
}

impl Default for Settings {
    /// 20 at first, from 4 to 1000, half as much latency again, each 100 ms.
    fn default() -> Self {
        Self { initial: 20, min: 4, max: 1000, tolerance: 150, window: Duration::from_millis(100) }
    }
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It was answered after this time.
    Answered(Duration),
    /// The group had too much: a timeout, a 503.
    Dropped,
    /// The client went away after this time, or the request failed for another reason: it says something where an answer
    /// would have come by then without a queue.
    Gone(Duration),
}

/// The limit of one group, shared by all threads.
#[derive(Debug)]
pub struct Limit {
    settings: Settings,
    in_flight: AtomicU32,
    /// What is let in now: the limit, or a part of it during a look.
    admitted: AtomicU32,
    /// When it is looked next whether the window is over, in nanoseconds.
    next: AtomicU64,
    samples: AtomicU64,
    /// The sum of latencies in microseconds.
    latencies: AtomicU64,
    /// The sum of their squares.
    squares: AtomicU64,
    dropped: AtomicU64,
    gone: AtomicU64,
    highest: AtomicU32,
    /// The latency without a queue, in microseconds: who is gone before that says nothing.
    expected: AtomicU64,
    /// Who looks whether the window is over has it, and nobody waits for it.
    control: Mutex<Control>,
}

/// What is known from one window to the next, and when this one began, in seconds.
#[derive(Debug)]
struct Control {
    state: State,
    opened: f64,
}

impl Limit {
    /// A limit that has seen nothing yet.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let initial = bounded(&settings, f64::from(settings.initial));
        Self {
            in_flight: AtomicU32::new(0),
            admitted: AtomicU32::new(initial as u32),
            next: AtomicU64::new(0),
            samples: AtomicU64::new(0),
            latencies: AtomicU64::new(0),
            squares: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            gone: AtomicU64::new(0),
            highest: AtomicU32::new(0),
            expected: AtomicU64::new(u64::MAX),
            control: Mutex::new(Control { state: State::new(initial), opened: 0.0 }),
            settings,
        }
    }

    /// How many requests may be in flight now.
    #[must_use]
    pub fn limit(&self) -> u32 {
        self.admitted.load(Ordering::Relaxed)
    }

    /// How many are.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Counts a request in if it may be; it is counted out with [`Limit::leave`]. `now` is asked for where it may not.
    #[must_use = "a request that was let in has to leave"]
    pub fn try_enter(&self, now: impl FnOnce() -> Duration) -> bool {
        if self.has_entered() {
            return true;
        }
        // Those that are there may be there for long, and say nothing meanwhile.
        self.close_window(now());
        self.has_entered()
    }

    fn has_entered(&self) -> bool {
        let most = self.limit();
        let one_more = |count: u32| (count < most).then(|| count + 1);
        self.in_flight.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_ok()
    }

    /// Counts a request in that was let in before.
    pub fn enter_again(&self) {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a request out that is none of the group's for a while.
    pub fn leave_for_now(&self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }

    /// Counts a request out, and learns from how it ended.
    pub fn leave(&self, ended: Ended, now: Duration) {
        let in_flight = self.in_flight.fetch_sub(1, Ordering::Relaxed);
        match ended {
            Ended::Answered(latency) => self.observe(microseconds(latency), in_flight),
            Ended::Gone(waited) if microseconds(waited) < self.expected.load(Ordering::Relaxed) => {
                return;
            }
            Ended::Gone(_) => _ = self.gone.fetch_add(1, Ordering::Relaxed),
            Ended::Dropped => _ = self.dropped.fetch_add(1, Ordering::Relaxed),
        }
        self.close_window(now);
    }

    /// Takes in an answer, with what was in flight when it came, itself included.
    fn observe(&self, latency: u64, in_flight: u32) {
        self.latencies.fetch_add(latency, Ordering::Relaxed);
        self.squares.fetch_add(latency * latency, Ordering::Relaxed);
        self.samples.fetch_add(1, Ordering::Relaxed);
        if self.highest.load(Ordering::Relaxed) < in_flight {
            self.highest.fetch_max(in_flight, Ordering::Relaxed);
        }
    }

    /// Finds the limit anew if the window is over and has seen enough.
    fn close_window(&self, now: Duration) {
        let nanoseconds = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let is_early = || nanoseconds(now) < self.next.load(Ordering::Relaxed);
        if is_early() {
            return;
        }
        let Ok(mut control) = self.control.try_lock() else {
            return;
        };
        // Another thread may have looked just now.
        if is_early() {
            return;
        }
        let seen = self.seen(control.opened, now);
        if !control.state.may_close(&self.settings, &seen) {
            return;
        }
        let next = nanoseconds(now.saturating_add(self.settings.window));
        self.next.store(next, Ordering::Relaxed);
        if !control.state.is_told(&self.settings, &seen) {
            return;
        }
        // Answers that come at this moment are counted in this window or in the next, or in none.
        for sum in [&self.samples, &self.latencies, &self.squares, &self.dropped, &self.gone] {
            sum.store(0, Ordering::Relaxed);
        }
        self.highest.store(0, Ordering::Relaxed);
        control.state = control.state.after(&self.settings, &seen);
        control.opened = seen.now;
        if control.state.baseline > 0.0 {
            let expected = Duration::from_secs_f64(control.state.baseline);
            self.expected.store(microseconds(expected), Ordering::Relaxed);
        }
        self.admitted.store(control.state.admitted(&self.settings), Ordering::Relaxed);
    }

    /// What the window shows so far.
    fn seen(&self, opened: f64, now: Duration) -> Seen {
        let samples = self.samples.load(Ordering::Relaxed) as f64;
        let mean = |sum: &AtomicU64| sum.load(Ordering::Relaxed) as f64 / samples.max(1.0);
        let latency = mean(&self.latencies) / 1e6;
        let variance = (mean(&self.squares) / 1e12 - latency * latency).max(0.0);
        // Of few answers, the mean is nearer to them than to what all would have.
        let variance = variance * samples / (samples - 1.0).max(1.0);
        let now = now.as_secs_f64();
        Seen {
            now,
            span: (now - opened).max(0.0),
            samples,
            latency,
            noise: if latency > 0.0 { variance / (latency * latency) } else { 0.0 },
            highest: self.highest.load(Ordering::Relaxed),
            dropped: self.dropped.load(Ordering::Relaxed) as f64,
            gone: self.gone.load(Ordering::Relaxed) as f64,
            in_flight: self.in_flight(),
        }
    }
}

/// A latency, as it is counted.
fn microseconds(latency: Duration) -> u64 {
    u64::try_from(latency.as_micros()).unwrap_or(u64::MAX).min(LONGEST_LATENCY)
}

#[cfg(test)]
#[path = "limit_tests.rs"]
mod tests;
