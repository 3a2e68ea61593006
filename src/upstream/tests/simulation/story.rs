//! One story: what happens to the backends, and what requests come of it.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use super::oracle::Counted;
use super::oracle::Leave;
use super::oracle::Oracle;
use super::oracle::Went;
use super::setting::breaker_settings;
use super::setting::settings;
use crate::balance::Algorithm;
use crate::message::reply::ReplyLimits;
use crate::refusal::Refusal;
use crate::resilience::breaker::State;
use crate::resilience::retry;
use crate::resilience::retry::Decision;
use crate::resilience::retry::Failed;
use crate::resilience::retry::Sent;
use crate::resilience::retry::What;
use crate::terms::clock::Turned;
use crate::upstream::Fault;
use crate::upstream::backend::Backend;
use crate::upstream::backend::Heed;
use crate::upstream::backend::Reason;
use crate::upstream::backend::seed as seed_chance;
use crate::upstream::eject;
use crate::upstream::health;
use crate::upstream::lease::Lease;
use crate::upstream::mishap::Why;
use crate::upstream::peer::Upstream;
use crate::upstream::peer::Wish;

/// For how long things happen to the peers.
const TROUBLE: u64 = 60_000_000;
/// After so much quiet everybody has to be back: the longest ejection, checks and slow start.
const RECOVERY: u64 = 25_000_000;
/// Then shares are counted.
const MEASURED: u64 = 20_000_000;

/// How long an attempt may take, and a whole request.
const ATTEMPT: u64 = 1_000_000;
const REQUEST: u64 = 5_000_000;

/// How many requests come in a burst, and within what time.
const BURST: u64 = 40;
const BURST_LASTS: u64 = 3_000;

/// What a backend is like, in truth.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Mode {
    Fine,
    Dead,
    /// Takes so many times as long.
    Slow(u64),
    /// So many of a hundred requests get a 503.
    Flaky(u64),
}

struct Truth {
    mode: Mode,
    /// When it died, came back or restarted last.
    turned: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// A request comes, and others after it.
    Arrive,
    /// A request of a burst comes.
    One,
    /// An attempt of a request is over, by the number of each.
    End(usize, u32),
    /// This request is tried again.
    Again(usize),
    Churn,
    Restart(usize),
    Check(usize),
    Sweep,
}

struct Request {
    idempotent: bool,
    key: u64,
    began: u64,
    attempts: u32,
    uncounted: u32,
    tried: Vec<Arc<Backend>>,
    /// What it is lent; also while it waits for another attempt, as in the program, when it has no place any more.
    held: Option<Held>,
}

struct Held {
    lease: Lease,
    backend: usize,
    /// Until it was said how it went.
    leave: Option<Leave>,
    began: u64,
    comes: Comes,
    /// The number of the attempt; none when it is over.
    running: Option<u32>,
}

/// What comes of an attempt.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Comes {
    Answer,
    ClientGone,
    Status(u16),
    /// No connection.
    Refused,
    /// A connection that had served others died.
    Dead,
    Broken,
    TimedOut,
}

/// What happened in a story.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Told {
    pub(super) requests: u64,
    pub(super) answered: u64,
    pub(super) failed_idempotent: u64,
    pub(super) failed_others: u64,
    pub(super) retries: u64,
    pub(super) dead: u64,
    pub(super) refused_by_budget: u64,
    /// Nobody was left to ask.
    pub(super) nobody: u64,
    /// There were too many at once.
    pub(super) shed: u64,
    pub(super) opened: u64,
    pub(super) closed: u64,
    pub(super) ejected: u64,
    pub(super) drains: u64,
    /// Breakers that an operator closed.
    pub(super) resets: u64,
    /// Failures that did not count for a row, since their requests were cut together.
    pub(super) cut_together: u64,
    /// How often enough requests for a row were cut at once, and the breaker stayed closed.
    pub(super) outlived: u64,
}

impl Told {
    pub(super) fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.answered += other.answered;
        self.failed_idempotent += other.failed_idempotent;
        self.failed_others += other.failed_others;
        self.retries += other.retries;
        self.dead += other.dead;
        self.refused_by_budget += other.refused_by_budget;
        self.nobody += other.nobody;
        self.shed += other.shed;
        self.opened += other.opened;
        self.closed += other.closed;
        self.ejected += other.ejected;
        self.drains += other.drains;
        self.resets += other.resets;
        self.cut_together += other.cut_together;
        self.outlived += other.outlived;
    }
}

pub(super) struct Story {
    chance: Chance,
    clock: Turned,
    epoch: Instant,
    now: u64,
    algorithm: Algorithm,
    truths: Vec<Truth>,
    upstream: Arc<Upstream>,
    /// Those of the upstream, in the order of their numbers.
    backends: Vec<Arc<Backend>>,
    weights: Vec<u32>,
    oracle: Oracle,
    requests: Vec<Request>,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    /// Events are told apart, and those of one moment come in their order.
    scheduled: u64,
    /// Attempts so far.
    attempts: u32,
    /// Answers of the measured time.
    shares: Vec<u64>,
    told: Told,
}

impl Story {
    pub(super) fn new(seed: u64) -> Self {
        let mut chance = Chance(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        let epoch = Instant::now();
        let clock = Turned::to(epoch);
        seed_chance(chance.number());
        let count = 2 + chance.below(9) as usize;
        let weights: Vec<u32> = (0..count).map(|_| 1 + chance.below(4) as u32).collect();
        let settings = settings(seed, &weights);
        let (algorithm, limited) = (settings.balance.algorithm, settings.concurrency.is_some());
        let upstream = Upstream::build(settings, ReplyLimits::default()).expect("good settings");
        let backends = upstream.backends();
        assert_eq!(backends.len(), count);
        Self {
            chance,
            clock,
            epoch,
            now: 0,
            algorithm,
            truths: weights.iter().map(|_| Truth { mode: Mode::Fine, turned: 0 }).collect(),
            upstream,
            backends,
            weights,
            oracle: Oracle::new(count, limited),
            requests: Vec::new(),
            events: BinaryHeap::new(),
            scheduled: 0,
            attempts: 0,
            shares: vec![0; count],
            told: Told::default(),
        }
    }

    pub(super) fn tell(mut self) -> Told {
        self.after(0, Event::Arrive);
        self.after(500_000, Event::Churn);
        self.after(1_000_000, Event::Sweep);
        for backend in 0..self.truths.len() {
            let later = self.chance.below(1_000_000);
            self.after(later, Event::Check(backend));
        }
        while let Some(Reverse((at, _, event))) = self.events.pop() {
            self.now = at;
            self.clock.on(self.epoch + self.time());
            match event {
                Event::Arrive => self.arrive(),
                Event::One => self.ask(),
                Event::End(request, attempt) => self.end(request, attempt),
                Event::Again(request) => self.attempt(request),
                Event::Churn => self.churn(),
                Event::Restart(backend) => self.cut(backend),
                Event::Check(backend) => self.check(backend),
                Event::Sweep => self.sweep(),
            }
        }
        assert!(self.requests.iter().all(|request| request.held.is_none()), "nobody hangs");
        let ended = self.told.answered
            + self.told.failed_idempotent
            + self.told.failed_others
            + self.told.nobody
            + self.told.shed;
        assert_eq!(ended, self.told.requests, "every request ends once");
        self.judge_counts();
        self.judge_shares();
        self.told.cut_together = self.oracle.cut_together();
        self.told
    }

    /// A request comes about each 12 ms until all is told.
    fn arrive(&mut self) {
        let end = TROUBLE + RECOVERY + MEASURED;
        if self.now >= end {
            return;
        }
        let pause = 4_000 + self.chance.below(16_000);
        self.after(pause, Event::Arrive);
        self.ask();
    }

    fn ask(&mut self) {
        self.told.requests += 1;
        let request = Request {
            idempotent: self.chance.below(5) > 0,
            key: self.chance.number(),
            began: self.now,
            attempts: 0,
            uncounted: 0,
            tried: Vec::new(),
            held: None,
        };
        self.requests.push(request);
        self.attempt(self.requests.len() - 1);
    }

    fn attempt(&mut self, number: usize) {
        self.give_back(number);
        let now = self.time();
        let request = &self.requests[number];
        let wish = Wish { tried: &request.tried, hash: Some(request.key), ..Wish::default() };
        let lease = match self.upstream.lend(&wish) {
            Ok(lease) => lease,
            Err(refusal) => {
                self.oracle.refused(refusal, now);
                match refusal {
                    Refusal::Shed => self.told.shed += 1,
                    _ => self.told.nobody += 1,
                }
                return;
            }
        };
        let is_lent = |one: &Arc<Backend>| Arc::ptr_eq(one, lease.backend());
        let backend = self.backends.iter().position(is_lent).expect("it is one of them");
        let leave = self.oracle.sent(backend, now);
        if request.attempts + request.uncounted == 0 {
            self.oracle.requested(now);
            self.upstream.budget().deposit(self.upstream.now());
        }
        let (takes, comes) = self.fate(backend);
        self.attempts += 1;
        let request = &mut self.requests[number];
        request.tried.push(Arc::clone(lease.backend()));
        request.held = Some(Held {
            lease,
            backend,
            leave: Some(leave),
            began: self.now,
            comes,
            running: Some(self.attempts),
        });
        self.after(takes, Event::End(number, self.attempts));
    }

    /// How long an attempt takes, and what comes of it.
    fn fate(&mut self, backend: usize) -> (u64, Comes) {
        let usual = 5_000 + self.chance.below(20_000);
        let of_hundred = self.chance.below(100);
        let truth = &self.truths[backend];
        let young = self.now < truth.turned + 500_000;
        match truth.mode {
            Mode::Dead => (500, Comes::Refused),
            _ if young && of_hundred < 30 => (300, Comes::Dead),
            Mode::Slow(times) if usual * times >= ATTEMPT => (ATTEMPT, Comes::TimedOut),
            Mode::Slow(times) => (usual * times, Comes::Answer),
            Mode::Flaky(percent) if of_hundred < percent => (usual, Comes::Status(503)),
            Mode::Fine | Mode::Flaky(_) if of_hundred == 99 => (usual / 2, Comes::ClientGone),
            Mode::Fine | Mode::Flaky(_) => (usual, Comes::Answer),
        }
    }

    /// An attempt is over: what the proxy says of it and does then.
    fn end(&mut self, number: usize, attempt: u32) {
        let held = self.requests[number].held.as_mut();
        // It was cut before.
        let Some(held) = held.filter(|held| held.running == Some(attempt)) else { return };
        held.running = None;
        let (backend, took) = (held.backend, Duration::from_micros(self.now - held.began));
        match held.comes {
            Comes::Answer => {
                held.lease.answered(200, took);
                self.said(number, Went::Well);
                self.told.answered += 1;
                if self.now >= TROUBLE + RECOVERY {
                    self.shares[backend] += 1;
                }
                self.give_back(number);
            }
            Comes::ClientGone => {
                self.told.answered += 1;
                self.give_back(number);
            }
            Comes::Status(status) => {
                held.lease.answered(status, took);
                self.oracle.failed(backend);
                self.said(number, Went::Badly);
                self.again(number, What::Status(status), Sent::Something);
            }
            Comes::Refused => {
                self.fail(number, Fault::Connect);
                self.again(number, What::Connect, Sent::Nothing);
            }
            Comes::Dead => self.again(number, What::DeadConnection, Sent::Something),
            Comes::Broken => {
                self.fail(number, Fault::Closed);
                self.again(number, What::Broken, Sent::Something);
            }
            Comes::TimedOut => {
                self.fail(number, Fault::Timeout);
                self.again(number, What::TimedOut, Sent::Something);
            }
        }
    }

    fn fail(&mut self, number: usize, fault: Fault) {
        let held = self.requests[number].held.as_mut().expect("it is lent something");
        held.lease.failed(fault, Why::Refusal(Refusal::ConnectFailed));
        self.oracle.failed(held.backend);
        self.said(
            number,
            match fault {
                Fault::Connect | Fault::Closed => Went::Cut,
                Fault::Timeout | Fault::Malformed => Went::Badly,
            },
        );
    }

    /// It was said of a request how it went.
    fn said(&mut self, number: usize, went: Went) {
        let now = self.time();
        let held = self.requests[number].held.as_mut().expect("it is lent something");
        let (backend, leave) = (held.backend, held.leave.take().expect("it is said once"));
        self.oracle.is_over();
        let one = &self.backends[backend];
        self.oracle.is_out(backend, one.record().out_until(now), now);
        let state = breaker_of(one);
        self.oracle.left(backend, &leave, went, state, now);
    }

    /// Whatever a request is lent it has no longer.
    fn give_back(&mut self, number: usize) {
        let Some(held) = self.requests[number].held.take() else { return };
        drop(held.lease);
        if let Some(leave) = held.leave {
            self.oracle.is_over();
            let now = self.time();
            let state = breaker_of(&self.backends[held.backend]);
            self.oracle.left(held.backend, &leave, Went::Unsaid, state, now);
        }
    }

    /// Asks whether a request that failed is sent once more, as the proxy does.
    fn again(&mut self, number: usize, what: What, sent: Sent) {
        let now = self.time();
        let random = self.chance.number();
        let request = &mut self.requests[number];
        request.attempts += 1;
        let has_other = self.upstream.has_other(&request.tried);
        let settings = &self.upstream.settings().retry.settings;
        let failed = Failed {
            what,
            sent,
            attempts: request.attempts,
            uncounted: request.uncounted,
            idempotent: request.idempotent,
            replayable: true,
            downstream_started: false,
            left: Some(Duration::from_micros((request.began + REQUEST).saturating_sub(self.now))),
            retry_after: None,
        };
        let Decision::Again { after, counted } = retry::decide(settings, &failed, random) else {
            return self.give_up(number);
        };
        assert!(request.idempotent || sent == Sent::Nothing, "it may have been acted upon");
        assert!(request.attempts <= settings.attempts, "it was tried often enough");
        match counted {
            retry::Counted::No => {
                request.attempts -= 1;
                request.uncounted += 1;
                // The connection was dead, not the backend.
                request.tried.pop();
                self.told.dead += 1;
            }
            retry::Counted::Yes => {
                if sent == Sent::Something && !has_other {
                    return self.give_up(number);
                }
                if !self.upstream.budget().withdraw(self.upstream.now()) {
                    self.told.refused_by_budget += 1;
                    return self.give_up(number);
                }
                self.oracle.retried(now);
                self.told.retries += 1;
            }
        }
        self.after(u64::try_from(after.as_micros()).unwrap_or(u64::MAX), Event::Again(number));
    }

    fn give_up(&mut self, number: usize) {
        self.give_back(number);
        if self.requests[number].idempotent {
            self.told.failed_idempotent += 1;
        } else {
            self.told.failed_others += 1;
        }
    }

    /// Something happens to a backend; in the end all is well.
    fn churn(&mut self) {
        if self.now >= TROUBLE {
            for backend in 0..self.truths.len() {
                self.turn(backend, Mode::Fine);
                self.drain(backend, false);
            }
            return;
        }
        let pause = 200_000 + self.chance.below(2_000_000);
        self.after(pause, Event::Churn);
        let backend = self.chance.below(self.truths.len() as u64) as usize;
        match self.chance.below(17) {
            0..=2 => self.turn(backend, Mode::Dead),
            3..=6 => self.turn(backend, Mode::Fine),
            7 => self.turn(backend, Mode::Slow(10)),
            8 => self.turn(backend, Mode::Slow(1000)),
            9 => self.turn(backend, Mode::Flaky(40)),
            10 => self.drain(backend, true),
            11 => self.drain(backend, false),
            12 => self.burst(),
            13 => self.reset(backend),
            _ => {
                // It restarts in the middle of a burst.
                self.burst();
                self.after(BURST_LASTS, Event::Restart(backend));
            }
        }
    }

    fn burst(&mut self) {
        for _ in 0..BURST {
            let later = self.chance.below(BURST_LASTS);
            self.after(later, Event::One);
        }
    }

    fn turn(&mut self, backend: usize, mode: Mode) {
        let before = self.truths[backend].mode;
        self.truths[backend].mode = mode;
        match (before == Mode::Dead, mode == Mode::Dead) {
            (false, true) => self.cut(backend),
            (true, false) => self.truths[backend].turned = self.now,
            (true, true) | (false, false) => {}
        }
    }

    /// Whatever is under way at a backend is cut off, all of it at this moment.
    fn cut(&mut self, backend: usize) {
        self.truths[backend].turned = self.now;
        let was_closed = self.oracle.is_closed(backend);
        let row_before = self.oracle.row(backend);
        let mut cut = 0;
        for number in 0..self.requests.len() {
            let held = self.requests[number].held.as_mut();
            let Some(held) = held.filter(|held| held.backend == backend) else { continue };
            let Some(attempt) = held.running else { continue };
            held.comes = Comes::Broken;
            cut += 1;
            self.end(number, attempt);
        }
        let in_row = breaker_settings().failures;
        if was_closed && row_before + cut >= in_row && self.oracle.is_closed(backend) {
            self.told.outlived += 1;
        }
    }

    fn drain(&mut self, backend: usize, drained: bool) {
        let before = self.backends[backend].is(Reason::Draining);
        self.told.drains += u64::from(drained && !before);
        let id = self.backends[backend].id();
        self.upstream.drain(id, drained).expect("it is there");
        self.oracle.drained(backend, drained);
    }

    /// An operator closes its breaker.
    fn reset(&mut self, backend: usize) {
        let one = &self.backends[backend];
        self.upstream.reset_breaker(one.id()).expect("it is there");
        let changed = self.oracle.reset(backend, breaker_of(one));
        self.told.resets += u64::from(changed);
    }

    /// Each second, at each backend; a check waits for a second.
    fn check(&mut self, backend: usize) {
        if self.now < TROUBLE + RECOVERY + MEASURED {
            self.after(1_000_000, Event::Check(backend));
        }
        let mode = self.truths[backend].mode;
        let passed = matches!(mode, Mode::Fine | Mode::Slow(10) | Mode::Flaky(_));
        let one = &self.backends[backend];
        let checks = one.checks.as_ref().expect("it is checked");
        let error = (!passed).then(|| "nobody is there".into());
        health::conclude(&self.upstream, one, checks, error, self.upstream.now());
        self.oracle.checked(backend, passed);
    }

    fn sweep(&mut self) {
        if self.now < TROUBLE + RECOVERY + MEASURED {
            self.after(2_000_000, Event::Sweep);
        }
        let now = self.time();
        eject::sweep(&self.upstream, self.upstream.now());
        for (backend, one) in self.backends.iter().enumerate() {
            self.oracle.is_out(backend, one.record().out_until(now), now);
        }
    }

    /// What operators are told is what happened.
    fn judge_counts(&mut self) {
        for (backend, report) in self.upstream.report().into_iter().enumerate() {
            let counted = Counted {
                sent: report.requests,
                failed: report.failures,
                opened: report.opened,
                half_opened: report.half_opened,
                closed: report.closed,
                ejected: report.ejected,
            };
            assert_eq!(counted, self.oracle.counted(backend), "backend {backend}");
            assert_eq!(report.in_flight, 0, "backend {backend}");
            self.told.opened += counted.opened;
            self.told.closed += counted.closed;
            self.told.ejected += counted.ejected;
        }
    }

    /// After the recovery everybody is back and has its share.
    fn judge_shares(&self) {
        let whole: u32 = self.weights.iter().sum();
        let all: u64 = self.shares.iter().sum();
        assert!(all > 1000, "only {all} answers");
        for (backend, &weight) in self.weights.iter().enumerate() {
            let one = &self.backends[backend];
            assert!(one.is_usable(Heed::Health, self.time()), "backend {backend} is not back");
            let share = all as f64 * f64::from(weight) / f64::from(whole);
            // Clients that go away are not counted: their share is by chance, too.
            let chance = 6.0 * share.sqrt();
            let (least, most) = match self.algorithm {
                Algorithm::RoundRobin => (share - 3.0 - share.sqrt(), share + 3.0 + share.sqrt()),
                Algorithm::Random | Algorithm::ConsistentHash { .. } => {
                    (share - chance, share + chance)
                }
                // They look at what is in flight, and at times: everybody has some.
                Algorithm::LeastConnections | Algorithm::PeakEwma => (share / 4.0, share * 4.0),
            };
            let has = self.shares[backend] as f64;
            let algorithm = &self.algorithm;
            assert!(
                has >= least && has <= most,
                "backend {backend}: {has} of {share:.0}, {algorithm:?}"
            );
        }
    }

    fn time(&self) -> Duration {
        Duration::from_micros(self.now)
    }

    fn after(&mut self, microseconds: u64, event: Event) {
        self.scheduled += 1;
        self.events.push(Reverse((self.now + microseconds, self.scheduled, event)));
    }
}

/// The state of a backend's breaker.
fn breaker_of(backend: &Backend) -> State {
    backend.breaker().expect("each has one").state()
}

/// Numbers that follow from a seed.
struct Chance(u64);

impl Chance {
    fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let number = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let number = (number ^ (number >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        number ^ (number >> 31)
    }

    fn below(&mut self, most: u64) -> u64 {
        ((u128::from(self.number()) * u128::from(most)) >> 64) as u64
    }
}
