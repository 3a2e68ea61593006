//! The circuit breaker of one peer: closed, open, half-open.
//!
//! Closed, requests pass, and their failures are counted. When there are too many, it opens, and
//! nothing passes until its time is over; then, half-open, a few probes pass, and either all of them
//! succeed and it closes, or one fails and it opens again.

use std::sync::atomic::AtomicU32;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::resilience::breaker::word::Phase;
use crate::resilience::breaker::word::Word;
use crate::resilience::window::Count;
use crate::resilience::window::Window;

mod word;

/// The most probes there can be.
pub const MOST_PROBES: u32 = word::MOST;

/// When a breaker opens and closes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// How many failures in a row open it. 0: it does not open by that.
    pub failures: u32,
    /// The percentage of failures in the window that opens it. `None`: it does not open by that.
    pub rate: Option<u32>,
    /// How many requests in the window the percentage needs to say anything.
    pub min_requests: u32,
    /// Over how long the percentage is taken.
    pub window: Duration,
    /// How long it stays open; also how long a probe may take until it counts as lost.
    pub open_for: Duration,
    /// How many probes pass when it is half-open, all of which have to succeed; from 1 to
    /// [`MOST_PROBES`].
    pub probes: u32,
}

impl Default for Settings {
    /// Five failures in a row, no percentage, open for 30 s, one probe.
    fn default() -> Self {
        Self {
            failures: 5,
            rate: None,
            min_requests: 20,
            window: Duration::from_secs(10),
            open_for: Duration::from_secs(30),
            probes: 1,
        }
    }
}

/// What a breaker does with requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// They pass.
    Closed,
    /// They do not; once the time is over, the next one passes as a probe.
    Open {
        /// When the first probe may pass. It may be over: nobody has come yet.
        until: Duration,
    },
    /// A few pass, to see how they fare: the first probe has.
    HalfOpen,
}

impl State {
    /// The word for it in logs and metrics.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open { .. } => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

/// A change of state, as it happened; told to exactly one caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transition {
    /// It opened.
    Opened(Cause),
    /// The first probe passed.
    HalfOpened,
    /// It closed.
    Closed(Closing),
}

/// Why a breaker closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Closing {
    /// All probes succeeded.
    Probes,
    /// Somebody asked for it.
    Reset,
    /// There is no breaker any more.
    SwitchedOff,
}

impl Closing {
    /// The word for it in logs.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Probes => "probes",
            Self::Reset => "reset",
            Self::SwitchedOff => "switched_off",
        }
    }
}

/// Why a breaker opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cause {
    /// Too many failures in a row.
    Failures,
    /// Too many failures among the requests of the window.
    Rate,
    /// A probe failed.
    Probe,
}

impl Cause {
    /// The word for it in logs and metrics.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Failures => "failures",
            Self::Rate => "rate",
            Self::Probe => "probe",
        }
    }
}

/// How a request went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// As it should.
    Success,
    /// The peer is to blame.
    Failure,
    /// It is, and the request was cut off: there was no connection, or it broke. Those that are cut at the same moment
    /// are one failure in a row: a peer that restarts meets all that are under way so.
    Cut,
    /// It says nothing about the peer: the client went away, nobody was asked.
    Neutral,
}

/// The leave for one request to pass; given back with [`Breaker::leave`].
///
/// One that is never given back counts for nothing; if it was a probe's, its place is free again
/// after [`Settings::open_for`].
#[derive(Debug)]
#[must_use = "a pass is given back with `leave`"]
pub struct Pass {
    kind: Kind,
    round: u16,
    opened: bool,
    /// How many failures had been counted when it was given.
    counted: u32,
}

/// What a pass is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Any request while the breaker is closed.
    Normal,
    /// One of the few while it is half-open.
    Probe,
}

impl Pass {
    /// What it is for.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// What changed by giving it: the first probe makes the breaker half-open.
    #[must_use]
    pub fn transition(&self) -> Option<Transition> {
        self.opened.then_some(Transition::HalfOpened)
    }
}

/// The breaker of one peer, shared by all threads.
///
/// All of its state that has to change together is one atomic word. While it is closed and all goes
/// well, a request costs a few reads of it, in one line of memory.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Breaker {
    word: AtomicU64,
    /// Failures in a row.
    failures: AtomicU32,
    /// Failures that counted for that, of all times.
    counted: AtomicU32,
    rule: Rule,
    /// All requests, and of note the failed ones.
    window: Window,
}

/// [`Settings`] that can be changed while requests are asked about. Each number counts for itself: one request
/// may meet some that are new and some that are not, as if it had come a moment before or after.
#[derive(Debug)]
struct Rule {
    failures: AtomicU32,
    /// [`NO_RATE`]: there is none.
    rate: AtomicU32,
    min_requests: AtomicU32,
    probes: AtomicU32,
    /// In nanoseconds.
    open_for: AtomicU64,
}

/// More than any percentage.
const NO_RATE: u32 = u32::MAX;

impl Rule {
    fn new(settings: &Settings) -> Self {
        let rule = Self {
            failures: AtomicU32::new(0),
            rate: AtomicU32::new(NO_RATE),
            min_requests: AtomicU32::new(0),
            probes: AtomicU32::new(1),
            open_for: AtomicU64::new(0),
        };
        rule.set(settings);
        rule
    }

    fn set(&self, settings: &Settings) {
        let probes = settings.probes.clamp(1, MOST_PROBES);
        let open_for = u64::try_from(settings.open_for.as_nanos()).unwrap_or(u64::MAX);
        self.failures.store(settings.failures, Ordering::Relaxed);
        self.rate.store(settings.rate.unwrap_or(NO_RATE), Ordering::Relaxed);
        self.min_requests.store(settings.min_requests, Ordering::Relaxed);
        self.probes.store(probes, Ordering::Relaxed);
        self.open_for.store(open_for, Ordering::Relaxed);
    }

    /// Nothing opens it.
    fn never(&self) {
        self.failures.store(0, Ordering::Relaxed);
        self.rate.store(NO_RATE, Ordering::Relaxed);
    }

    fn failures(&self) -> u32 {
        self.failures.load(Ordering::Relaxed)
    }

    fn rate(&self) -> Option<u32> {
        Some(self.rate.load(Ordering::Relaxed)).filter(|rate| *rate != NO_RATE)
    }

    fn min_requests(&self) -> u32 {
        self.min_requests.load(Ordering::Relaxed)
    }

    fn probes(&self) -> u32 {
        self.probes.load(Ordering::Relaxed)
    }

    fn open_for(&self) -> Duration {
        Duration::from_nanos(self.open_for.load(Ordering::Relaxed))
    }
}

impl Breaker {
    /// A closed one.
    #[must_use]
    pub fn new(settings: &Settings) -> Self {
        let (rule, window) = (Rule::new(settings), Window::new(settings.window));
        let word = AtomicU64::new(Word::closed(0).pack());
        let (failures, counted) = (AtomicU32::new(0), AtomicU32::new(0));
        Self { word, failures, counted, rule, window }
    }

    /// Goes by these settings from now on, and stays in the state that it is in.
    ///
    /// Open, it stays so for [`Settings::open_for`] as that is now, from when it opened. Half-open, the probes that
    /// are out and those that have succeeded count on, but it takes one more at least to close it. Closed, failures
    /// in a row stay, and may be one too many with the next one; what the percentage is taken of stays where the
    /// window is as long as before, and there was one.
    pub fn adjust(&self, settings: &Settings) {
        let before = self.rule.open_for();
        let won = settings.probes.clamp(1, MOST_PROBES) - 1;
        loop {
            let word = self.load();
            let next = match word.phase {
                Phase::Closed => break,
                Phase::Open => {
                    let until = word.time().saturating_add(settings.open_for);
                    Word::open(word.round, until.saturating_sub(before))
                }
                Phase::HalfOpen => {
                    Word::half_open(word.round, word.time(), word.taken, word.won.min(won))
                }
            };
            if self.replace(word, next) {
                break;
            }
        }
        // After that: one that opens in between has the time of before to its end.
        self.rule.set(settings);
        self.window.adjust(settings.window);
    }

    /// Whether [`Breaker::enter`] would give a pass. Changes nothing.
    #[must_use]
    pub fn admits(&self, now: Duration) -> bool {
        let word = self.load();
        word.phase == Phase::Closed || self.passing(word, now).is_some()
    }

    /// Asks for a pass. Every request to the peer has one.
    pub fn enter(&self, now: Duration) -> Option<Pass> {
        loop {
            let word = self.load();
            if word.phase == Phase::Closed {
                return Some(self.pass(Kind::Normal, word.round, false));
            }
            let next = self.passing(word, now)?;
            if self.replace(word, next) {
                let opened = word.phase == Phase::Open;
                return Some(self.pass(Kind::Probe, next.round, opened));
            }
        }
    }

    fn pass(&self, kind: Kind, round: u16, opened: bool) -> Pass {
        Pass { kind, round, opened, counted: self.counted.load(Ordering::Relaxed) }
    }

    /// Gives a pass back, and says what that changed.
    ///
    /// A pass from before the last change of state says nothing about the peer as it is now and
    /// changes nothing, nor does a probe's that was taken for lost.
    pub fn leave(&self, pass: Pass, verdict: Verdict, now: Duration) -> Option<Transition> {
        match pass.kind {
            Kind::Normal => self.leave_closed(&pass, verdict, now),
            Kind::Probe => self.leave_half_open(pass.round, verdict, now),
        }
    }

    /// What it does with requests: what the last [`Transition`] that was told has made of it.
    #[must_use]
    pub fn state(&self) -> State {
        let word = self.load();
        match word.phase {
            Phase::Closed => State::Closed,
            Phase::Open => State::Open { until: word.time() },
            Phase::HalfOpen => State::HalfOpen,
        }
    }

    /// How many failures in a row there were, up to now.
    #[must_use]
    pub fn consecutive_failures(&self) -> u32 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Closes it and forgets everything. Passes that are out count for nothing. Says what that changed.
    pub fn reset(&self) -> Option<Transition> {
        self.close(Closing::Reset)
    }

    /// The same for good: nothing opens it any more.
    pub fn switch_off(&self) -> Option<Transition> {
        self.rule.never();
        self.close(Closing::SwitchedOff)
    }

    fn close(&self, why: Closing) -> Option<Transition> {
        loop {
            let word = self.load();
            self.forget();
            if self.replace(word, Word::closed(word.next_round())) {
                return (word.phase != Phase::Closed).then_some(Transition::Closed(why));
            }
        }
    }

    /// The word after a pass; `None` when there is no pass.
    fn passing(&self, word: Word, now: Duration) -> Option<Word> {
        let probes = self.rule.probes();
        match word.phase {
            Phase::Closed => Some(word),
            Phase::Open if now < word.time() => None,
            Phase::Open => Some(Word::half_open(word.round, now, 1, 0)),
            Phase::HalfOpen if word.taken + word.won < probes => {
                Some(Word::half_open(word.round, now, word.taken + 1, word.won))
            }
            // All probes that are out are lost. A new round: should one come back, it is too late.
            Phase::HalfOpen if now >= word.time().saturating_add(self.rule.open_for()) => {
                Some(Word::half_open(word.next_round(), now, 1, word.won))
            }
            Phase::HalfOpen => None,
        }
    }

    fn leave_closed(&self, pass: &Pass, verdict: Verdict, now: Duration) -> Option<Transition> {
        let word = self.load();
        if word.phase != Phase::Closed || word.round != pass.round {
            return None;
        }
        let cause = match verdict {
            Verdict::Neutral => return None,
            Verdict::Success => {
                // Read first: a write would take the line away from all other threads.
                if self.failures.load(Ordering::Relaxed) != 0 {
                    self.failures.store(0, Ordering::Relaxed);
                }
                if self.rule.rate().is_some() {
                    self.window.add(Count::One, now);
                }
                return None;
            }
            Verdict::Failure => {
                self.counted.fetch_add(1, Ordering::Relaxed);
                self.failed(true, now)?
            }
            Verdict::Cut => self.failed(self.is_news(pass), now)?,
        };
        let until = now.saturating_add(self.rule.open_for());
        // Another thread may have been first: then the change is that thread's.
        self.replace(word, Word::open(word.next_round(), until))
            .then_some(Transition::Opened(cause))
    }

    /// Whether no failure was counted since this pass was given; then one is.
    fn is_news(&self, pass: &Pass) -> bool {
        let (before, after) = (pass.counted, pass.counted.wrapping_add(1));
        self.counted.compare_exchange(before, after, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// Counts a failure, in a row with the last ones or not, and says whether it is one too many.
    fn failed(&self, in_row: bool, now: Duration) -> Option<Cause> {
        let too_many = in_row && {
            let failures = self.failures.fetch_add(1, Ordering::Relaxed).saturating_add(1);
            let most = self.rule.failures();
            most > 0 && failures >= most
        };
        let cause = too_many.then_some(Cause::Failures);
        let Some(rate) = self.rule.rate() else {
            return cause;
        };
        self.window.add(Count::One, now);
        self.window.add(Count::Noted, now);
        let counts = self.window.sum(now);
        let enough = counts.all >= u64::from(self.rule.min_requests());
        let too_often = enough && counts.noted * 100 >= counts.all * u64::from(rate);
        cause.or(too_often.then_some(Cause::Rate))
    }

    fn leave_half_open(&self, round: u16, verdict: Verdict, now: Duration) -> Option<Transition> {
        let probes = self.rule.probes();
        loop {
            let word = self.load();
            if word.phase != Phase::HalfOpen || word.round != round {
                return None;
            }
            let taken = word.taken.saturating_sub(1);
            let (next, transition) = match verdict {
                Verdict::Neutral => {
                    (Word::half_open(word.round, word.time(), taken, word.won), None)
                }
                Verdict::Success if word.won + 1 < probes => {
                    (Word::half_open(word.round, word.time(), taken, word.won + 1), None)
                }
                Verdict::Success => {
                    // Before it closes: what is counted afterwards is to stay.
                    self.forget();
                    (Word::closed(word.next_round()), Some(Transition::Closed(Closing::Probes)))
                }
                Verdict::Failure | Verdict::Cut => {
                    let until = now.saturating_add(self.rule.open_for());
                    let opened = Transition::Opened(Cause::Probe);
                    (Word::open(word.next_round(), until), Some(opened))
                }
            };
            if self.replace(word, next) {
                return transition;
            }
        }
    }

    fn forget(&self) {
        self.failures.store(0, Ordering::Relaxed);
        self.window.clear();
    }

    // Relaxed: the word is all there is to agree upon; the counts beside it may be a little late.
    fn load(&self) -> Word {
        Word::unpack(self.word.load(Ordering::Relaxed))
    }

    /// Whether the word was still `from` and is `to` now.
    fn replace(&self, from: Word, to: Word) -> bool {
        let (from, to) = (from.pack(), to.pack());
        self.word.compare_exchange(from, to, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

#[cfg(test)]
#[path = "breaker_tests.rs"]
mod tests;
