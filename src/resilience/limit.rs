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

/// The longest latency that is told from longer ones, in microseconds: a minute.
const LONGEST_LATENCY: u64 = 60_000_000;

/// In which part of a square of microseconds squares are counted, as a power of two: those of a million latencies have
/// room.
const SQUARES: u32 = 8;

/// Since when nothing is in flight: there is something.
const BUSY: u64 = u64::MAX;

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
    /// The client went away after this time, or there is no connection: it says something where an answer
    /// would have come by then without a queue.
    Gone(Duration),
    /// The group failed: whenever that is, it says nothing about its work.
    Failed,
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
    sums: Sums<AtomicU64>,
    highest: AtomicU32,
    /// Since when nothing is in flight, in nanoseconds, or [`BUSY`].
    idle_since: AtomicU64,
    /// The latency without a queue, in microseconds: who is gone before that says nothing.
    expected: AtomicU64,
    /// Who looks whether the window is over has it, and nobody waits for it.
    control: Mutex<Control>,
}

/// What a window counts.
#[derive(Debug, Default)]
struct Sums<N> {
    /// Answers.
    samples: N,
    /// Their latencies in microseconds.
    latencies: N,
    /// The squares of these ([`SQUARES`]).
    squares: N,
    dropped: N,
    gone: N,
    /// What says nothing: errors, and clients that left before an answer would have come without a queue.
    silent: N,
    /// The time in which nothing was in flight, in nanoseconds.
    idle: N,
}

impl Sums<AtomicU64> {
    fn read(&self) -> Sums<u64> {
        let read = |sum: &AtomicU64| sum.load(Ordering::Relaxed);
        Sums {
            samples: read(&self.samples),
            latencies: read(&self.latencies),
            squares: read(&self.squares),
            dropped: read(&self.dropped),
            gone: read(&self.gone),
            silent: read(&self.silent),
            idle: read(&self.idle),
        }
    }

    /// Begins the next window. What was counted since this was read is its own.
    fn take(&self, read: &Sums<u64>) {
        let take = |sum: &AtomicU64, read| sum.fetch_sub(read, Ordering::Relaxed);
        take(&self.samples, read.samples);
        take(&self.latencies, read.latencies);
        take(&self.squares, read.squares);
        take(&self.dropped, read.dropped);
        take(&self.gone, read.gone);
        take(&self.silent, read.silent);
        take(&self.idle, read.idle);
    }
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
            sums: Sums::default(),
            highest: AtomicU32::new(0),
            idle_since: AtomicU64::new(0),
            expected: AtomicU64::new(microseconds(control::longest(&settings))),
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

    /// Counts a request in if it may be; it is counted out with [`Limit::leave`]. `now` is asked for where it may not,
    /// and where it is the only one.
    #[must_use = "a request that was let in has to leave"]
    pub fn try_enter(&self, now: impl Fn() -> Duration) -> bool {
        if self.has_entered(&now) {
            return true;
        }
        // Those that are there may be there for long, and say nothing meanwhile.
        self.close_window(now());
        self.has_entered(&now)
    }

    fn has_entered(&self, now: impl Fn() -> Duration) -> bool {
        let most = self.limit();
        let one_more = |count: u32| (count < most).then(|| count + 1);
        let before = self.in_flight.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more);
        if before == Ok(0) {
            self.end_idleness(now());
        }
        before.is_ok()
    }

    /// Counts a request in that was let in before.
    pub fn enter_again(&self, now: Duration) {
        if self.in_flight.fetch_add(1, Ordering::Relaxed) == 0 {
            self.end_idleness(now);
        }
    }

    /// Counts a request out that is none of the group's for a while.
    pub fn leave_for_now(&self, now: Duration) {
        self.count_out(now);
    }

    /// Counts a request out, and learns from how it ended.
    pub fn leave(&self, ended: Ended, now: Duration) {
        let in_flight = self.count_out(now);
        let is_early = |waited| microseconds(waited) < self.expected.load(Ordering::Relaxed);
        match ended {
            Ended::Answered(latency) => self.observe(microseconds(latency), in_flight),
            Ended::Gone(waited) if is_early(waited) => count(&self.sums.silent),
            Ended::Failed => count(&self.sums.silent),
            Ended::Gone(_) => count(&self.sums.gone),
            Ended::Dropped => count(&self.sums.dropped),
        }
        self.close_window(now);
    }

    /// The group had too much of a request that has left for now.
    pub fn dropped_meanwhile(&self, now: Duration) {
        count(&self.sums.dropped);
        self.close_window(now);
    }

    /// Counts a request out; how many there were, itself included.
    fn count_out(&self, now: Duration) -> u32 {
        let in_flight = self.in_flight.fetch_sub(1, Ordering::Relaxed);
        if in_flight == 1 {
            self.idle_since.store(nanoseconds(now), Ordering::Relaxed);
        }
        in_flight
    }

    /// There is something in flight again. Where two threads are quicker than one another, some time is counted as
    /// idle that is not, and a window lasts longer.
    fn end_idleness(&self, now: Duration) {
        let since = self.idle_since.swap(BUSY, Ordering::Relaxed);
        self.sums.idle.fetch_add(nanoseconds(now).saturating_sub(since), Ordering::Relaxed);
    }

    /// Takes in an answer, with what was in flight when it came, itself included.
    fn observe(&self, latency: u64, in_flight: u32) {
        self.sums.latencies.fetch_add(latency, Ordering::Relaxed);
        self.sums.squares.fetch_add((latency * latency) >> SQUARES, Ordering::Relaxed);
        count(&self.sums.samples);
        if self.highest.load(Ordering::Relaxed) < in_flight {
            self.highest.fetch_max(in_flight, Ordering::Relaxed);
        }
    }

    /// Finds the limit anew if the window is over and has seen enough.
    fn close_window(&self, now: Duration) {
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
        let sums = self.sums.read();
        let seen = self.seen(&sums, control.opened, now);
        if !control.state.may_close(&self.settings, &seen) {
            return;
        }
        let next = nanoseconds(now.saturating_add(self.settings.window));
        self.next.store(next, Ordering::Relaxed);
        if !control.state.is_told(&self.settings, &seen) {
            return;
        }
        self.sums.take(&sums);
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
    fn seen(&self, sums: &Sums<u64>, opened: f64, now: Duration) -> Seen {
        let samples = sums.samples as f64;
        let mean = |sum: u64| sum as f64 / samples.max(1.0);
        let latency = mean(sums.latencies) / 1e6;
        let variance = mean(sums.squares) * f64::from(1_u32 << SQUARES) / 1e12 - latency * latency;
        // Of few answers, the mean is nearer to them than to what all would have.
        let variance = variance.max(0.0) * samples / (samples - 1.0).max(1.0);
        let now = now.as_secs_f64();
        let idle = Duration::from_nanos(sums.idle).as_secs_f64();
        Seen {
            now,
            span: (now - opened - idle).max(0.0),
            samples,
            latency,
            noise: if latency > 0.0 { variance / (latency * latency) } else { 0.0 },
            highest: self.highest.load(Ordering::Relaxed),
            dropped: sums.dropped as f64,
            gone: sums.gone as f64,
            silent: sums.silent as f64,
            in_flight: self.in_flight(),
        }
    }
}

fn count(sum: &AtomicU64) {
    sum.fetch_add(1, Ordering::Relaxed);
}

/// A time, as it is compared.
fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(BUSY - 1)
}

/// A latency, as it is counted.
fn microseconds(latency: Duration) -> u64 {
    u64::try_from(latency.as_micros()).unwrap_or(u64::MAX).min(LONGEST_LATENCY)
}

#[cfg(test)]
#[path = "limit_tests.rs"]
mod tests;
