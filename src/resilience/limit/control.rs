//! How a limit of concurrency is found: what is known from one window to the next.
//!
//! Latency alone does not say how much of it is a queue: who is slower because there is more to do, and who has become
//! slower by itself, look the same while as much is in flight. So latency is compared with a baseline, that of the
//! group while it has little to do, and where the two have been apart for a while, little is let in for a moment to
//! see that latency again.
//!
//! Answers take different times by chance, and a mean of few of them says little. What is not beyond that chance is no
//! news.

use std::time::Duration;

use super::Settings;

/// How many answers a window has at least.
const LEAST_SAMPLES: f64 = 10.0;

/// The same of a look, where these say enough.
const LEAST_LOOK: f64 = 3.0;

/// A window ends when the standard error of its mean is no more than this part of it, ...
const PRECISION: f64 = 0.1;

/// ... or after so many times its least duration.
const LONGEST: f64 = 10.0;

/// How many standard errors are beyond chance.
const BEYOND_CHANCE: f64 = 3.0;

/// The square of the coefficient of variation of latencies that nothing is known about: that of an exponential distribution.
const UNKNOWN_NOISE: f64 = 1.0;

/// Of about how many answers the noise is an average.
const NOISE_SAMPLES: f64 = 100.0;

/// As how many answers the baseline counts at most, against new ones.
const MOST_WEIGHT: f64 = 1000.0;

/// How much a limit may shrink in one window.
const LEAST_GRADIENT: f64 = 0.5;

/// What is left of the limit when the group says by itself that it has too much.
const BACKED_OFF: f64 = 0.9;

/// How much of the way to the new limit is made in the least duration of a window.
const STEP: f64 = 0.4;

/// How many times as much as is in flight the limit may grow to: beyond that nobody knows what the group would do.
const ROOM: f64 = 2.0;

/// How much of what a group takes without a queue it may have where its latency is that without a queue: what it takes
/// is an estimate.
const CALM: f64 = 0.5;

/// How many seconds it is remembered how much was in flight.
const MEMORY: f64 = 10.0;

/// After how many slow seconds there is a look. Otherwise a group that is always full would never show its latency
/// without a queue.
const DOUBT: f64 = 1.0;

/// How much of a slow second one that is not slow takes away.
const REASSURED: f64 = 0.25;

/// There is one at once when the limit has come down to this part of what it was, is used up, and the group is still slow: it may
/// have become slower by itself, and all that is shed is shed for nothing.
const DOWN: f64 = 0.5;

/// There is one, too, when the group has become so much faster while it was busy. How fast it is without its queue is
/// not known then.
const FASTER: f64 = 0.8;

/// How many seconds there are between two looks, at first and at most: each one doubles them, since it costs requests.
const LEAST_PATIENCE: f64 = 1.0;
const MOST_PATIENCE: f64 = 10.0;

/// The same at most, where the last one found no queue: the group takes more or less time by itself.
const NEEDLESS_PATIENCE: f64 = 60.0;

/// How much of what was in flight when a look began may be there later on: uploads that become whole meanwhile are not
/// shed.
const MUCH_LESS: f64 = 0.6;

/// After how many seconds without a look the next one may come early again.
const FORGOTTEN: f64 = 300.0;

/// How many latencies are time enough for some answers, beside the longest window; and how many times the baseline a latency counts for that
/// at most: it may be the mean of short answers and of those that wait for news.
const MANY_LATENCIES: f64 = 20.0;
const MUCH_SLOWER: f64 = 10.0;

/// The latter doubles with each look that has seen nothing, up to this: the baseline may be that of errors that came at once. Of
/// latencies that are slower than usual these are enough.
const MOST_SLOWER: f64 = 1e5;
const SOME_LATENCIES: f64 = 4.0;

/// The longest time between letting in more and more where nobody is answered, in times of what is enough for some answers.
const MOST_HUNGER: f64 = 64.0;

/// What a window showed so far. Times are in seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Seen {
    /// Now, by the clock of all windows.
    pub(super) now: f64,
    /// For how long it is open, without the time in which nothing was in flight.
    pub(super) span: f64,
    /// How many answers came.
    pub(super) samples: f64,
    /// Their mean latency.
    pub(super) latency: f64,
    /// The square of the coefficient of variation of their latencies.
    pub(super) noise: f64,
    /// The most that was in flight when a request ended.
    pub(super) highest: u32,
    /// How many requests the group had too much of, as it said.
    pub(super) dropped: f64,
    /// Of how many nobody waited for the answers any longer.
    pub(super) gone: f64,
    /// How many are over and say nothing: errors, and those that left before an answer would have come without a queue.
    pub(super) silent: f64,
    /// How much is in flight now.
    pub(super) in_flight: u32,
}

impl Seen {
    /// How many requests are over, and say something.
    fn all(&self) -> f64 {
        self.samples + self.dropped + self.gone
    }

    /// Whether the group had too much of some requests, or their clients had no answer in time.
    fn is_unserved(&self) -> bool {
        self.dropped + self.gone > 0.0 || self.silent > 0.0 && self.samples == 0.0
    }

    /// How many are over.
    fn over(&self) -> f64 {
        self.all() + self.silent
    }
}

/// What is known from one window to the next. Times are in seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct State {
    pub(super) limit: f64,
    /// The latency without a queue; 0: not known.
    pub(super) baseline: f64,
    /// The number of answers that it is the mean of.
    pub(super) weight: f64,
    /// What the baseline was when it was last seen without a queue; what is seen since may have one in it, and lowers it only.
    pub(super) measured: f64,
    /// The square of the coefficient of variation of latencies.
    pub(super) noise: f64,
    /// How much was in flight lately.
    pub(super) reached: f64,
    /// For how long the group was slow.
    pub(super) doubt: f64,
    /// The limit when it became so.
    pub(super) before: f64,
    /// The latency of the last window that may have a queue in it, without what may be chance.
    pub(super) last: f64,
    /// When the last look was over.
    pub(super) looked: f64,
    /// How long the next one has to wait from then on.
    pub(super) patience: f64,
    /// When a look is given up; 0: there is none.
    pub(super) look_ends: f64,
    /// How many answers come first that were asked for when more was let in.
    pub(super) leaving: f64,
    /// How much was in flight when the look began.
    pub(super) full: f64,
    /// How many times the baseline a latency may be.
    pub(super) slower: f64,
    /// How many times as long as enough is waited until more is let in, where nobody is answered.
    pub(super) hunger: f64,
}

impl State {
    /// Nothing is known.
    pub(super) fn new(limit: f64) -> Self {
        Self {
            limit,
            baseline: 0.0,
            weight: 0.0,
            measured: 0.0,
            noise: UNKNOWN_NOISE,
            reached: 0.0,
            doubt: 0.0,
            before: limit,
            last: 0.0,
            looked: f64::NEG_INFINITY,
            patience: LEAST_PATIENCE,
            look_ends: 0.0,
            leaving: 0.0,
            full: 0.0,
            slower: MUCH_SLOWER,
            hunger: 1.0,
        }
    }

    /// Whether a window that is long enough has enough answers: those that were asked for before a look began, or some.
    pub(super) fn may_close(&self, settings: &Settings, seen: &Seen) -> bool {
        self.has_enough(seen)
            || seen.is_unserved() && is_long(settings, seen)
            || self.is_given_up(seen)
            || self.is_starved(settings, seen)
    }

    /// Whether a window has as many answers as it needs at least.
    fn has_enough(&self, seen: &Seen) -> bool {
        match self.is_looking() {
            true if self.leaving > 0.0 => seen.over() >= self.leaving,
            true => seen.all() >= LEAST_LOOK,
            false => seen.all() >= LEAST_SAMPLES,
        }
    }

    /// Whether a window that has enough answers says enough.
    pub(super) fn is_told(&self, settings: &Settings, seen: &Seen) -> bool {
        let is_precise = self.error(seen) <= PRECISION * seen.latency;
        let is_few = seen.samples < LEAST_SAMPLES && self.is_looking();
        self.leaving > 0.0
            || is_precise
            || self.is_given_up(seen)
            || self.is_starved(settings, seen)
            || !is_few && (is_long(settings, seen) || self.is_slow(settings, seen))
    }

    /// Whether a look has lasted too long.
    fn is_given_up(&self, seen: &Seen) -> bool {
        self.is_looking() && seen.now >= self.look_ends
    }

    /// Whether all that is let in has been there for much longer than answers take, or most of it, as what waits for news does.
    fn is_starved(&self, settings: &Settings, seen: &Seen) -> bool {
        seen.in_flight >= self.admitted(settings)
            && !self.has_enough(seen)
            && !seen.is_unserved()
            && seen.span >= self.enough_time(settings) * self.hunger
    }

    /// In how many seconds a few answers come in any case, but from who waits for news.
    fn enough_time(&self, settings: &Settings) -> f64 {
        let latency = |times: f64| self.last.clamp(self.baseline, self.baseline * times);
        let usual = latency(MUCH_SLOWER) * MANY_LATENCIES;
        longest(settings).as_secs_f64() + usual.max(latency(self.slower) * SOME_LATENCIES)
    }

    /// What is let in: the limit, or little of it during a look.
    pub(super) fn admitted(&self, settings: &Settings) -> u32 {
        let limit = if self.is_looking() { self.calm(settings) } else { self.limit };
        bounded(settings, limit) as u32
    }

    /// What is known after a window.
    ///
    /// A window in which the group had little has no queue in it: its latency is what others are compared with, and says
    /// nothing about the limit. After another one, the limit goes towards itself times the gradient, and its square root
    /// more: room to find out whether there is more.
    pub(super) fn after(self, settings: &Settings, seen: &Seen) -> Self {
        let mut next = self;
        if seen.samples > 1.0 {
            let share = seen.samples / (seen.samples + NOISE_SAMPLES);
            next.noise += (seen.noise - self.noise) * share;
        }
        if seen.samples > 0.0 {
            next.hunger = 1.0;
        }
        next.back_off(settings, seen);
        if self.is_starved(settings, seen) {
            // Uploads may have brought far more than the limit.
            let stays = f64::from(seen.in_flight).clamp(next.limit, next.limit * ROOM);
            next.limit = bounded(settings, stays + stays.sqrt());
            if seen.samples == 0.0 {
                next.hunger = (next.hunger * 2.0).min(MOST_HUNGER);
            }
            return if self.is_looking() { next.given_up(settings, seen) } else { next };
        }
        if self.is_looking() {
            return next.looking_on(settings, seen);
        }
        if seen.samples == 0.0 {
            return next;
        }
        next.reached = (self.reached * (-seen.span / MEMORY).exp()).max(f64::from(seen.highest));
        if f64::from(seen.highest) <= next.calm(settings) {
            next.measure(seen);
            next.doubt = 0.0;
            if f64::from(seen.highest) >= next.limit.floor() {
                next.limit = bounded(settings, next.towards(settings, seen, 1.0));
            }
            return next;
        }
        next.lower(seen);
        next.last = seen.latency - next.chance(seen, tolerance(settings));
        let gradient = next.gradient(settings, seen);
        let is_slow = gradient < 1.0;
        if is_slow {
            if self.doubt == 0.0 {
                next.before = next.limit;
            }
            next.doubt += counted(settings, seen);
        } else {
            next.doubt = (next.doubt - counted(settings, seen) * REASSURED).max(0.0);
        }
        next.limit = bounded(settings, next.towards(settings, seen, gradient));
        let is_due = next.doubt >= DOUBT || next.baseline < next.measured * FASTER;
        let is_full = f64::from(seen.highest) >= next.limit;
        let is_down = is_slow && is_full && next.limit <= next.before * DOWN;
        if is_down || is_due && seen.now >= self.looked + self.patience {
            next.look(settings, seen);
        }
        next
    }

    /// The next limit. A window that is longer than it had to be makes the way of several.
    fn towards(&self, settings: &Settings, seen: &Seen, gradient: f64) -> f64 {
        let is_used = f64::from(seen.highest) * ROOM >= self.limit;
        let more = if is_used { self.limit.sqrt() } else { 0.0 };
        let way = 1.0 - (1.0 - STEP).powf(windows(settings, seen));
        self.limit + (self.limit * gradient + more - self.limit) * way
    }

    /// Takes in what part of the requests the group had too much of. That some have gone may be for other reasons.
    fn back_off(&mut self, settings: &Settings, seen: &Seen) {
        let in_vain = (seen.gone - seen.samples).max(0.0);
        let share = (seen.dropped + in_vain) / seen.all().max(LEAST_SAMPLES);
        let left = (1.0 - (1.0 - BACKED_OFF) * share).powf(windows(settings, seen));
        self.limit = bounded(settings, self.limit * left);
        // That much was too much, however slow the group is.
        self.before *= left;
    }

    /// The standard error of the mean latency of a window.
    fn error(&self, seen: &Seen) -> f64 {
        // When some answers took longer for a reason, those of this window vary more than others did.
        seen.latency * (self.noise.max(seen.noise) / seen.samples.max(1.0)).sqrt()
    }

    /// The standard error of the baseline.
    fn baseline_error(&self) -> f64 {
        self.baseline * (self.noise / self.weight.max(1.0)).sqrt()
    }

    /// How much of its latency a window may have by chance, compared with so many times the baseline.
    fn chance(&self, seen: &Seen, times: f64) -> f64 {
        BEYOND_CHANCE * self.error(seen).hypot(self.baseline_error() * times)
    }

    /// What is tolerated over what a window has, as far as it is more and not by chance.
    fn gradient(&self, settings: &Settings, seen: &Seen) -> f64 {
        let tolerance = tolerance(settings);
        let latency = seen.latency - self.chance(seen, tolerance);
        (self.baseline * tolerance / latency.max(f64::MIN_POSITIVE)).clamp(LEAST_GRADIENT, 1.0)
    }

    fn is_slow(&self, settings: &Settings, seen: &Seen) -> bool {
        self.baseline > 0.0
            && f64::from(seen.highest) > self.calm(settings)
            && self.gradient(settings, seen) < 1.0
    }

    /// Takes in a window without a queue.
    fn measure(&mut self, seen: &Seen) {
        self.average(seen);
        self.measured = self.baseline;
    }

    /// The baseline with this window.
    fn average(&mut self, seen: &Seen) {
        if (seen.latency - self.baseline).abs() > self.chance(seen, 1.0) {
            // The group itself has become slower, or faster.
            (self.baseline, self.weight) = (seen.latency, seen.samples);
        } else {
            let weight = self.weight + seen.samples;
            self.baseline += (seen.latency - self.baseline) * seen.samples / weight;
            self.weight = weight.min(MOST_WEIGHT);
        }
    }

    /// Takes in a window that may have a queue in it.
    fn lower(&mut self, seen: &Seen) {
        if self.baseline == 0.0 {
            (self.baseline, self.weight) = (seen.latency, seen.samples);
            self.measured = self.baseline;
        } else if seen.latency + self.chance(seen, 1.0) < self.baseline {
            (self.baseline, self.weight) = (seen.latency, seen.samples);
        }
    }

    /// With how many requests at once the group has no queue. Where the limit stays as it is, the latency is what is
    /// tolerated over the gradient, of which the root makes up for what is missing to one; so many times what it takes
    /// without a queue is the limit. A limit that is far above what is in flight says nothing.
    fn calm(&self, settings: &Settings) -> f64 {
        let limit = self.limit.min(self.reached).max(1.0);
        let gradient = 1.0 - 1.0 / limit.sqrt();
        (limit * gradient / tolerance(settings) * CALM).max(1.0)
    }

    /// Whether little is let in at the moment.
    fn is_looking(&self) -> bool {
        self.look_ends > 0.0
    }

    /// Begins to let in little.
    fn look(&mut self, settings: &Settings, seen: &Seen) {
        if seen.now >= self.looked + FORGOTTEN {
            self.patience = LEAST_PATIENCE;
        }
        // What was let in before leaves first.
        self.look_ends = seen.now + self.enough_time(settings) * 2.0;
        self.leaving = f64::from(seen.highest);
        self.full = self.leaving;
    }

    /// After a window of a look. What was let in before it leaves first.
    fn looking_on(mut self, settings: &Settings, seen: &Seen) -> Self {
        let is_clean = seen.dropped + seen.gone < seen.samples;
        let most = f64::from(self.admitted(settings)).max(self.full * MUCH_LESS);
        if self.leaving > 0.0 {
            self.leaving = (self.leaving - seen.over()).max(0.0);
        } else if f64::from(seen.highest) > most {
            self.leaving = f64::from(seen.highest);
        } else if is_clean && seen.samples >= LEAST_LOOK {
            let before = self.baseline;
            self.average(seen);
            if self.baseline > before && !self.had_queue(settings) {
                // It was slower, and that was no reason to let in less.
                self.limit = self.limit.max(bounded(settings, self.before));
            }
            self.slower = MUCH_SLOWER;
            return self.looked(settings, seen);
        }
        if self.is_given_up(seen) { self.given_up(settings, seen) } else { self }
    }

    /// Ends a look that has seen nothing.
    fn given_up(mut self, settings: &Settings, seen: &Seen) -> Self {
        self.slower = (self.slower * 2.0).min(MOST_SLOWER);
        self.looked(settings, seen)
    }

    /// Whether there was a queue before a look, as far as is known after it.
    fn had_queue(&self, settings: &Settings) -> bool {
        self.last > self.baseline * tolerance(settings)
    }

    /// Ends a look.
    fn looked(mut self, settings: &Settings, seen: &Seen) -> Self {
        self.look_ends = 0.0;
        self.leaving = 0.0;
        self.doubt = 0.0;
        self.looked = seen.now;
        self.patience = match self.had_queue(settings) {
            // There was more of a queue than was known; perhaps there still is.
            true if self.baseline < self.measured * FASTER => LEAST_PATIENCE,
            true => (self.patience * 2.0).min(MOST_PATIENCE),
            false => (self.patience * 2.0).min(NEEDLESS_PATIENCE),
        };
        self.measured = self.baseline;
        self
    }
}

/// Whether a window has lasted as long as any does that has enough answers.
fn is_long(settings: &Settings, seen: &Seen) -> bool {
    seen.span >= longest(settings).as_secs_f64()
}

/// How long any window lasts that has enough answers.
pub(super) fn longest(settings: &Settings) -> Duration {
    settings.window.mul_f64(LONGEST)
}

/// As how many windows of the least duration one counts.
fn windows(settings: &Settings, seen: &Seen) -> f64 {
    (seen.span / settings.window.as_secs_f64()).clamp(1.0, LONGEST)
}

/// As how many seconds a window counts.
fn counted(settings: &Settings, seen: &Seen) -> f64 {
    windows(settings, seen) * settings.window.as_secs_f64()
}

/// How many times the baseline is no queue.
fn tolerance(settings: &Settings) -> f64 {
    f64::from(settings.tolerance.max(100)) / 100.0
}

/// A limit within its bounds.
pub(super) fn bounded(settings: &Settings, limit: f64) -> f64 {
    let min = settings.min.max(1);
    limit.clamp(f64::from(min), f64::from(settings.max.max(min)))
}
