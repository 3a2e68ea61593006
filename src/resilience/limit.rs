//! An adaptive limit of concurrency: as many requests at once as a group takes without queueing.
//!
//! When latency grows with the requests in flight, they wait for each other somewhere behind us, and
//! more of them make nothing faster. The limit follows the gradient of the latency: the latency of a
//! group that has little to do, over what it is now.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How many answers a window has at least.
const LEAST_SAMPLES: u64 = 10;

/// How much a limit may shrink in one window.
const LEAST_GRADIENT: f64 = 0.5;

/// What is left of the limit when the group says by itself that it has too much.
const BACKED_OFF: f64 = 0.9;

/// How much of the way to the new limit is made in one window.
const STEP: f64 = 0.4;

/// How much of what a group takes without a queue it may have where its latency is that without a queue: what it takes
/// is an estimate.
const CALM: f64 = 0.5;

/// How much of the way to a window's latency the baseline goes: a few answers that are slow or fast by chance do not
/// move it far.
const DRIFT: f64 = 0.25;

/// After how many slow windows little is let in until the latency of the group without a queue was seen again.
/// Otherwise a group that is always full would never show it.
const SLOW_WINDOWS: u32 = 100;

/// How many windows such a look may last.
const LOOK_WINDOWS: u32 = 10;

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
    /// The group had too much: a timeout, a 503, a full queue.
    Dropped,
    /// It says nothing: the client went away, or it failed for another reason.
    Neutral,
}

/// The limit of one group, shared by all threads.
#[derive(Debug)]
pub struct Limit {
    settings: Settings,
    in_flight: AtomicU32,
    /// What is let in now: the limit, or a part of it during a look.
    admitted: AtomicU32,
    /// When the window ends, in nanoseconds. Who moves it on closes the window.
    ends: AtomicU64,
    samples: AtomicU64,
    /// The sum of latencies in nanoseconds.
    latencies: AtomicU64,
    highest: AtomicU32,
    dropped: AtomicBool,
    /// What only the thread that closes a window touches.
    control: Control,
}

/// The state of the control. Atomics, since another thread closes the next window.
#[derive(Debug)]
struct Control {
    /// An `f64`.
    limit: AtomicU64,
    /// The latency without a queue in nanoseconds, an `f64`; 0: not known.
    baseline: AtomicU64,
    slow_windows: AtomicU32,
    settled: AtomicBool,
}

/// What a window showed.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Seen {
    /// The mean latency in nanoseconds.
    latency: f64,
    /// The most that was in flight when a request ended.
    highest: u32,
    dropped: bool,
}

/// What the control knows from one window to the next.
#[derive(Debug, Clone, Copy, PartialEq)]
struct State {
    limit: f64,
    baseline: f64,
    /// How many windows were slow since there was none with little in it, those of a look included.
    slow_windows: u32,
    /// What was let in before a look has left: the next window shows the group without a queue.
    settled: bool,
}

impl Limit {
    /// A limit that has seen nothing yet.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let initial = f64::from(settings.initial.clamp(settings.min.max(1), most(&settings)));
        Self {
            in_flight: AtomicU32::new(0),
            admitted: AtomicU32::new(initial as u32),
            ends: AtomicU64::new(0),
            samples: AtomicU64::new(0),
            latencies: AtomicU64::new(0),
            highest: AtomicU32::new(0),
            dropped: AtomicBool::new(false),
            control: Control {
                limit: AtomicU64::new(initial.to_bits()),
                baseline: AtomicU64::new(0),
                slow_windows: AtomicU32::new(0),
                settled: AtomicBool::new(false),
            },
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

    /// Counts a request in if it may be; it is counted out with [`Limit::leave`].
    #[must_use = "a request that was let in has to leave"]
    pub fn try_enter(&self) -> bool {
        let most = self.limit();
        let one_more = |count: u32| (count < most).then(|| count + 1);
        self.in_flight.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_ok()
    }

    /// Counts a request out, and learns from how it ended.
    pub fn leave(&self, ended: Ended, now: Duration) {
        let in_flight = self.in_flight.fetch_sub(1, Ordering::Relaxed);
        match ended {
            Ended::Answered(latency) => self.observe(latency, in_flight, now),
            Ended::Dropped => {
                self.dropped.store(true, Ordering::Relaxed);
                self.close_window(now);
            }
            Ended::Neutral => {}
        }
    }

    /// Takes in an answer, with what was in flight when it came, itself included.
    fn observe(&self, latency: Duration, in_flight: u32, now: Duration) {
        self.latencies.fetch_add(nanoseconds(latency), Ordering::Relaxed);
        self.samples.fetch_add(1, Ordering::Relaxed);
        if self.highest.load(Ordering::Relaxed) < in_flight {
            self.highest.fetch_max(in_flight, Ordering::Relaxed);
        }
        self.close_window(now);
    }

    /// Finds the limit anew if the window is over and has seen enough.
    fn close_window(&self, now: Duration) {
        let ends = self.ends.load(Ordering::Relaxed);
        let now = nanoseconds(now);
        if now < ends {
            return;
        }
        let dropped = self.dropped.load(Ordering::Relaxed);
        if self.samples.load(Ordering::Relaxed) < LEAST_SAMPLES && !dropped {
            return;
        }
        let next = now.saturating_add(nanoseconds(self.settings.window));
        // Acquire and release: whoever closes the next window sees what this one leaves behind.
        if self.ends.compare_exchange(ends, next, Ordering::AcqRel, Ordering::Relaxed).is_err() {
            return;
        }
        // Answers that come at this moment are counted here or there.
        let samples = self.samples.swap(0, Ordering::Relaxed);
        let latencies = self.latencies.swap(0, Ordering::Relaxed);
        let highest = self.highest.swap(0, Ordering::Relaxed);
        self.dropped.store(false, Ordering::Relaxed);
        let latency = if samples == 0 { 0.0 } else { latencies as f64 / samples as f64 };
        let state =
            next_state(&self.settings, self.control.load(), Seen { latency, highest, dropped });
        self.control.store(state);
        self.admitted.store(admitted(&self.settings, state), Ordering::Relaxed);
    }
}

impl Control {
    fn load(&self) -> State {
        State {
            limit: f64::from_bits(self.limit.load(Ordering::Relaxed)),
            baseline: f64::from_bits(self.baseline.load(Ordering::Relaxed)),
            slow_windows: self.slow_windows.load(Ordering::Relaxed),
            settled: self.settled.load(Ordering::Relaxed),
        }
    }

    fn store(&self, state: State) {
        self.limit.store(state.limit.to_bits(), Ordering::Relaxed);
        self.baseline.store(state.baseline.to_bits(), Ordering::Relaxed);
        self.slow_windows.store(state.slow_windows, Ordering::Relaxed);
        self.settled.store(state.settled, Ordering::Relaxed);
    }
}

/// The limit after a window.
///
/// A window in which the group had little has no queue in it: its latency is what others are compared with, and says
/// nothing about the limit. After another one, the limit goes towards itself times the gradient, and its square root
/// more: room to find out whether there is more.
fn next_state(settings: &Settings, state: State, seen: Seen) -> State {
    let mut next = state;
    if seen.dropped {
        next.limit = bounded(settings, state.limit * BACKED_OFF);
        next.slow_windows += 1;
        return past_look(next);
    }
    if is_looking(state) {
        return looked(settings, state, seen);
    }
    if f64::from(seen.highest) <= calm(settings, state) {
        next.slow_windows = 0;
        next.baseline = match state.baseline > 0.0 {
            // The group itself may have become slower.
            true => state.baseline + (seen.latency - state.baseline) * DRIFT,
            false => seen.latency,
        };
        return next;
    }
    next.baseline = lowered(state, seen);
    let tolerated = next.baseline * f64::from(settings.tolerance.max(100)) / 100.0;
    let gradient = (tolerated / seen.latency.max(1.0)).clamp(LEAST_GRADIENT, 1.0);
    if gradient < 1.0 {
        next.slow_windows += 1;
    }
    let wanted = state.limit * gradient + state.limit.sqrt();
    next.limit = bounded(settings, state.limit + (wanted - state.limit) * STEP);
    next
}

/// After a window of a look, in which little is let in. One in which there was more has some in it that were let in
/// before, and so may the first one in which there was not.
fn looked(settings: &Settings, state: State, seen: Seen) -> State {
    let mut next = state;
    if seen.highest > admitted(settings, state) {
        next.slow_windows += 1;
        next.baseline = lowered(state, seen);
        return past_look(next);
    }
    if state.settled {
        next.slow_windows = 0;
        next.baseline = seen.latency;
    }
    next.settled = !state.settled;
    next
}

/// The baseline after a window that may have a queue in it.
fn lowered(state: State, seen: Seen) -> f64 {
    if state.baseline == 0.0 {
        return seen.latency;
    }
    state.baseline + (seen.latency - state.baseline).min(0.0) * DRIFT
}

/// With how many requests at once the group has no queue. Where the limit stays as it is, the latency is what is
/// tolerated over the gradient, of which the root makes up for what is missing to one; so many times what it takes
/// without a queue is the limit.
fn calm(settings: &Settings, state: State) -> f64 {
    let gradient = 1.0 - 1.0 / state.limit.max(1.0).sqrt();
    let tolerance = f64::from(settings.tolerance.max(100)) / 100.0;
    (state.limit * gradient / tolerance * CALM).max(1.0)
}

/// Whether little is let in at the moment.
fn is_looking(state: State) -> bool {
    state.slow_windows >= SLOW_WINDOWS
}

/// Ends a look that has lasted too long.
fn past_look(mut state: State) -> State {
    if state.slow_windows >= SLOW_WINDOWS + LOOK_WINDOWS {
        state.slow_windows = 0;
        state.settled = false;
    }
    state
}

fn admitted(settings: &Settings, state: State) -> u32 {
    let limit = if is_looking(state) { calm(settings, state) } else { state.limit };
    bounded(settings, limit) as u32
}

fn bounded(settings: &Settings, limit: f64) -> f64 {
    limit.clamp(f64::from(settings.min.max(1)), f64::from(most(settings)))
}

fn most(settings: &Settings) -> u32 {
    settings.max.max(settings.min).max(1)
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[path = "limit_tests.rs"]
mod tests;
