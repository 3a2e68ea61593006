//! Passive ejection: peers that fail where others do not are left out for a while.
//!
//! A breaker looks at one peer by itself. This looks at a peer among its group: when all of them
//! fail, it is not the peer's fault, and there is nobody better to ask.

use std::borrow::Borrow;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How many points of a hundred a success rate has to be below the mean, whatever the deviations
/// are: where all are nearly the same, a deviation is next to nothing.
const LEAST_GAP: f64 = 5.0;

/// Who is ejected, and for how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// How many errors in a row eject a peer at once. 0: none do.
    pub consecutive: u32,
    /// How many standard deviations below the mean a success rate ejects a peer, in thousandths. 0:
    /// rates are not looked at.
    pub deviations: u32,
    /// How many requests since the last sweep a peer needs for its rate to say anything.
    pub min_requests: u32,
    /// How many peers with that many requests the group needs for a comparison.
    pub min_peers: u32,
    /// For how long a peer is out the first time; twice that the second time, and so on.
    pub base: Duration,
    /// The longest time that a peer is out.
    pub longest: Duration,
    /// The most peers that may be out at once, in percent of the group. One may always be, the last
    /// one never.
    pub max_percent: u32,
}

impl Default for Settings {
    /// Five in a row, or 1.9 deviations of 100 requests among 5 peers; 30 s up to 5 minutes; a third.
    fn default() -> Self {
        Self {
            consecutive: 5,
            deviations: 1900,
            min_requests: 100,
            min_peers: 5,
            base: Duration::from_secs(30),
            longest: Duration::from_secs(300),
            max_percent: 33,
        }
    }
}

/// How a request went, as far as the peer is to blame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Well.
    Success,
    /// Badly.
    Error,
}

/// What came of the requests of one peer since the last sweep.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sample {
    /// How many there were.
    pub requests: u32,
    /// How many of them went badly.
    pub errors: u32,
}

/// What is known of one peer. Lives as long as the peer does, in whichever group that is.
#[derive(Debug, Default)]
#[repr(C)]
pub struct Record {
    /// In milliseconds; 0: never. First, since each choice among the peers asks for it alone.
    out_until: AtomicU64,
    streak: AtomicU32,
    requests: AtomicU32,
    errors: AtomicU32,
    times: AtomicU32,
}

/// What is to be done after a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Suspicion {
    /// Nothing.
    None,
    /// Too many errors in a row: [`Ward::eject`] says whether it goes.
    Streak,
}

impl Record {
    /// Takes in how a request went.
    pub fn note(&self, outcome: Outcome, settings: &Settings) -> Suspicion {
        // Relaxed: these are counts, each for itself.
        self.requests.fetch_add(1, Ordering::Relaxed);
        match outcome {
            Outcome::Success => {
                // Read first: a write would take the line away from all other threads.
                if self.streak.load(Ordering::Relaxed) != 0 {
                    self.streak.store(0, Ordering::Relaxed);
                }
                Suspicion::None
            }
            Outcome::Error => {
                self.errors.fetch_add(1, Ordering::Relaxed);
                let streak = self.streak.fetch_add(1, Ordering::Relaxed).saturating_add(1);
                let too_long = settings.consecutive > 0 && streak >= settings.consecutive;
                if too_long { Suspicion::Streak } else { Suspicion::None }
            }
        }
    }

    /// Until when the peer is left out; `None` when it is not.
    #[must_use]
    pub fn out_until(&self, now: Duration) -> Option<Duration> {
        match self.out_until.load(Ordering::Relaxed) {
            0 => None,
            until => Some(Duration::from_millis(until)).filter(|until| now < *until),
        }
    }

    /// Whether the peer is left out.
    #[must_use]
    pub fn is_out(&self, now: Duration) -> bool {
        self.out_until(now).is_some()
    }

    /// How often it was ejected, less how often it was well since.
    #[must_use]
    pub fn times(&self) -> u32 {
        self.times.load(Ordering::Relaxed)
    }

    /// How many errors in a row there were, up to now.
    #[must_use]
    pub fn streak(&self) -> u32 {
        self.streak.load(Ordering::Relaxed)
    }

    /// Lets the peer in again, as if nothing had been.
    pub fn forgive(&self) {
        self.out_until.store(0, Ordering::Relaxed);
        self.times.store(0, Ordering::Relaxed);
        self.streak.store(0, Ordering::Relaxed);
    }

    /// The counts since they were last taken.
    fn take(&self) -> Sample {
        let errors = self.errors.swap(0, Ordering::Relaxed);
        let requests = self.requests.swap(0, Ordering::Relaxed);
        // A request that ends at this moment may be seen in one count alone.
        Sample { requests: requests.max(errors), errors }
    }

    /// Leaves the peer out from now on, and says until when.
    fn eject(&self, settings: &Settings, now: Duration) -> Duration {
        let times = self.times.load(Ordering::Relaxed).saturating_add(1);
        let until = now.saturating_add(time_out(settings, times));
        // Rounded up, so that nobody is back too early.
        let milliseconds = u64::try_from(until.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX);
        self.times.store(times, Ordering::Relaxed);
        self.streak.store(0, Ordering::Relaxed);
        self.out_until.store(milliseconds, Ordering::Relaxed);
        until
    }
}

/// Why a peer was ejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cause {
    /// Errors in a row.
    Streak,
    /// Fewer successes than the others.
    Rate,
}

impl Cause {
    /// The word for it in logs and metrics.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Streak => "streak",
            Self::Rate => "rate",
        }
    }
}

/// What came of the wish to eject a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ejected {
    /// It is out.
    Until(Duration),
    /// It was out already.
    Already,
    /// As many are out as may be.
    Full,
    /// Another thread is ejecting somebody. The next error asks again.
    Busy,
    /// Nobody is any more.
    Retired,
}

/// Sees to it that not too many peers of one group are out at once.
#[derive(Debug)]
pub struct Ward {
    settings: Settings,
    /// Whether a thread is ejecting. Nobody waits for it.
    busy: AtomicBool,
    /// When the peers were compared last, in milliseconds; 0: not yet.
    swept: AtomicU64,
    /// Whether nobody is ejected any more, by this one or any that it follows.
    retired: Arc<AtomicBool>,
}

impl Ward {
    /// The ward of a group.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let (busy, swept) = (AtomicBool::new(false), AtomicU64::new(0));
        Self { settings, busy, swept, retired: Arc::default() }
    }

    /// The same with other settings, until both retire.
    #[must_use]
    pub fn followed_by(&self, settings: Settings) -> Self {
        Self { retired: Arc::clone(&self.retired), ..Self::new(settings) }
    }

    /// What it was made with.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Ejects the peer at this position for its [`Streak`](Suspicion::Streak), if one more may be out.
    pub fn eject<R: Borrow<Record>>(&self, peer: usize, group: &[R], now: Duration) -> Ejected {
        if self.retired.load(Ordering::Relaxed) {
            return Ejected::Retired;
        }
        self.alone(|| self.eject_one(peer, group, now)).unwrap_or(Ejected::Busy)
    }

    /// Ejects nobody for a streak from now on, nor do those that it follows: what requests report that began before it
    /// was switched off counts for nothing.
    pub fn retire(&self) {
        self.retired.store(true, Ordering::Relaxed);
    }

    /// Compares all peers by what came of their requests since the last sweep, and ejects those that
    /// stand out, the worst first: their positions and until when. To be done every ten seconds or so.
    ///
    /// Peers that were in since the last time, and do not stand out, have been well: they are out for less long the next
    /// time.
    pub fn sweep<R: Borrow<Record>>(&self, group: &[R], now: Duration) -> Vec<(usize, Duration)> {
        self.alone(|| self.sweep_all(group, now)).unwrap_or_default()
    }

    fn sweep_all<R: Borrow<Record>>(&self, group: &[R], now: Duration) -> Vec<(usize, Duration)> {
        let records = || group.iter().map(Borrow::borrow);
        let samples: Vec<Sample> = records()
            .map(|record| {
                let sample = record.take();
                // What came from before the ejection says nothing new.
                if record.is_out(now) { Sample::default() } else { sample }
            })
            .collect();
        let outliers = outliers(&samples, &self.settings);
        let mut ejected = Vec::new();
        for &peer in &outliers {
            if let Ejected::Until(until) = self.eject_one(peer, group, now) {
                ejected.push((peer, until));
            }
        }
        let moment = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        let before = self.swept.swap(moment, Ordering::Relaxed);
        for (peer, record) in records().enumerate() {
            // Who came back in between has not shown for long that it is well; who was only spared has not at all.
            let was_in = record.out_until.load(Ordering::Relaxed) <= before;
            if was_in && !outliers.contains(&peer) {
                let times = record.times.load(Ordering::Relaxed);
                record.times.store(times.saturating_sub(1), Ordering::Relaxed);
            }
        }
        ejected
    }

    fn eject_one<R: Borrow<Record>>(&self, peer: usize, group: &[R], now: Duration) -> Ejected {
        let Some(record) = group.get(peer).map(Borrow::borrow) else {
            return Ejected::Already;
        };
        if record.is_out(now) {
            return Ejected::Already;
        }
        let out =
            group.iter().filter(|record| Borrow::<Record>::borrow(*record).is_out(now)).count();
        if out >= most_out(group.len(), self.settings.max_percent) {
            return Ejected::Full;
        }
        Ejected::Until(record.eject(&self.settings, now))
    }

    /// What `work` returns, unless another thread is at such work.
    fn alone<T>(&self, work: impl FnOnce() -> T) -> Option<T> {
        // Acquire and release: the counting of those who are out sees all earlier ejections.
        self.busy.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).ok()?;
        let result = work();
        self.busy.store(false, Ordering::Release);
        Some(result)
    }
}

/// How many peers may be out at once: the percentage, at least one, but never all.
#[must_use]
pub fn most_out(peers: usize, percent: u32) -> usize {
    let share = peers as u64 * u64::from(percent.min(100)) / 100;
    let share = usize::try_from(share).unwrap_or(usize::MAX).max(1);
    share.min(peers.saturating_sub(1))
}

/// The peers whose success rates are too far below the mean of all, the worst first.
#[must_use]
pub fn outliers(samples: &[Sample], settings: &Settings) -> Vec<usize> {
    if settings.deviations == 0 {
        return Vec::new();
    }
    let enough = settings.min_requests.max(1);
    let rates: Vec<(usize, f64)> = samples
        .iter()
        .enumerate()
        .filter(|(_, sample)| sample.requests >= enough)
        .map(|(peer, sample)| {
            let errors = sample.errors.min(sample.requests);
            (peer, 100.0 - 100.0 * f64::from(errors) / f64::from(sample.requests))
        })
        .collect();
    if rates.is_empty() || rates.len() < settings.min_peers as usize {
        return Vec::new();
    }
    let count = rates.len() as f64;
    let mean = rates.iter().map(|(_, rate)| rate).sum::<f64>() / count;
    let variance = rates.iter().map(|(_, rate)| (rate - mean).powi(2)).sum::<f64>() / count;
    let gap = (variance.sqrt() * f64::from(settings.deviations) / 1000.0).max(LEAST_GAP);
    let mut out: Vec<(usize, f64)> =
        rates.into_iter().filter(|(_, rate)| *rate < mean - gap).collect();
    out.sort_by(|a, b| a.1.total_cmp(&b.1));
    out.into_iter().map(|(peer, _)| peer).collect()
}

/// For how long a peer is out that is ejected for the `times`-th time.
fn time_out(settings: &Settings, times: u32) -> Duration {
    settings.base.saturating_mul(times).min(settings.longest.max(settings.base))
}

#[cfg(test)]
#[path = "ejection_tests.rs"]
mod tests;
