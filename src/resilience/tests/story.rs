//! One story: what happens to the peers, and what requests come of it.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use crate::balance::Algorithm;
use crate::balance::Ask;
use crate::resilience::breaker::Kind;
use crate::resilience::breaker::Pass;
use crate::resilience::breaker::Transition;
use crate::resilience::breaker::Verdict;
use crate::resilience::ejection;
use crate::resilience::ejection::Ejected;
use crate::resilience::ejection::Suspicion;
use crate::resilience::health;
use crate::resilience::health::State;
use crate::resilience::retry;
use crate::resilience::retry::Counted;
use crate::resilience::retry::Decision;
use crate::resilience::retry::Failed;
use crate::resilience::retry::Sent;
use crate::resilience::retry::What;
use crate::resilience::tests::group::Group;
use crate::resilience::tests::oracle::Oracle;

/// For how long things happen to the peers.
const TROUBLE: u64 = 60_000_000;
/// After so much quiet everybody has to be back: the longest ejection, checks and slow start.
const RECOVERY: u64 = 25_000_000;
/// Then shares are counted.
const MEASURED: u64 = 20_000_000;

/// How long an attempt may take, and a whole request.
const ATTEMPT: u64 = 1_000_000;
const REQUEST: u64 = 5_000_000;

/// What a peer is like, in truth.
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
    /// When it died or came back last: what was under way then is broken.
    turned: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Arrive,
    /// The attempt of this request is over.
    End(usize),
    /// This request is tried again.
    Again(usize),
    Churn,
    Check(usize),
    Sweep,
}

struct Request {
    idempotent: bool,
    key: u64,
    began: u64,
    attempts: u32,
    uncounted: u32,
    tried: Vec<usize>,
    running: Option<Attempt>,
}

struct Attempt {
    peer: usize,
    pass: Pass,
    began: u64,
    comes: Comes,
}

/// What comes of an attempt, unless its peer dies meanwhile.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Comes {
    Answer,
    ClientGone,
    Failure(What, Sent),
}

/// What happened in a story.
#[derive(Debug, Clone, Default)]
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
    pub(super) opened: u64,
    pub(super) closed: u64,
    pub(super) ejected: u64,
    pub(super) drains: u64,
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
        self.opened += other.opened;
        self.closed += other.closed;
        self.ejected += other.ejected;
        self.drains += other.drains;
    }
}

pub(super) struct Story {
    random: u64,
    now: u64,
    algorithm: Algorithm,
    retry: retry::Settings,
    truths: Vec<Truth>,
    group: Group,
    oracle: Oracle,
    requests: Vec<Request>,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    /// Events are told apart, and those of one moment come in their order.
    scheduled: u64,
    /// Answers of the measured time.
    shares: Vec<u64>,
    told: Told,
}

impl Story {
    pub(super) fn new(seed: u64, algorithm: Algorithm) -> Self {
        let mut story = Self {
            random: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1,
            now: 0,
            algorithm,
            retry: retry::Settings { statuses: vec![503], ..retry::Settings::default() },
            truths: Vec::new(),
            group: Group::new(algorithm, &[]),
            oracle: Oracle::new(0),
            requests: Vec::new(),
            events: BinaryHeap::new(),
            scheduled: 0,
            shares: Vec::new(),
            told: Told::default(),
        };
        let peers = 2 + story.below(9) as usize;
        let weights: Vec<u32> = (0..peers).map(|_| 1 + story.below(4) as u32).collect();
        story.truths = weights.iter().map(|_| Truth { mode: Mode::Fine, turned: 0 }).collect();
        story.group = Group::new(algorithm, &weights);
        story.oracle = Oracle::new(peers);
        story.shares = vec![0; peers];
        story
    }

    pub(super) fn tell(mut self) -> Told {
        self.after(0, Event::Arrive);
        self.after(500_000, Event::Churn);
        self.after(1_000_000, Event::Sweep);
        for peer in 0..self.truths.len() {
            let later = self.below(1_000_000);
            self.after(later, Event::Check(peer));
        }
        while let Some(Reverse((at, _, event))) = self.events.pop() {
            self.now = at;
            match event {
                Event::Arrive => self.arrive(),
                Event::End(request) => self.end(request),
                Event::Again(request) => self.attempt(request),
                Event::Churn => self.churn(),
                Event::Check(peer) => self.check(peer),
                Event::Sweep => self.sweep(),
            }
        }
        assert!(self.requests.iter().all(|request| request.running.is_none()), "nobody hangs");
        let ended = self.told.answered
            + self.told.failed_idempotent
            + self.told.failed_others
            + self.told.nobody;
        assert_eq!(ended, self.told.requests, "every request ends once");
        self.judge_shares();
        self.told
    }

    /// A request comes about each 12 ms until all is told.
    fn arrive(&mut self) {
        let end = TROUBLE + RECOVERY + MEASURED;
        if self.now >= end {
            return;
        }
        let pause = 4_000 + self.below(16_000);
        self.after(pause, Event::Arrive);
        let now = self.time();
        self.oracle.requested(now);
        self.group.budget.deposit(now);
        self.told.requests += 1;
        let request = Request {
            idempotent: self.below(5) > 0,
            key: self.number(),
            began: self.now,
            attempts: 0,
            uncounted: 0,
            tried: Vec::new(),
            running: None,
        };
        self.requests.push(request);
        self.attempt(self.requests.len() - 1);
    }

    fn attempt(&mut self, number: usize) {
        let now = self.time();
        let ask = Ask { random: self.number(), hash: Some(self.requests[number].key) };
        let Some(peer) = self.group.choose(&ask, &self.requests[number].tried, now) else {
            self.oracle.nobody(now);
            self.told.nobody += 1;
            return;
        };
        let member = &self.group.members[peer];
        let pass = member.breaker.enter(now).expect("what was chosen lets requests pass");
        if let Some(transition) = pass.transition() {
            self.changed(peer, transition);
        }
        self.oracle.sent(peer, pass.kind(), now);
        let member = &self.group.members[peer];
        member.in_flight.set(member.in_flight.get() + 1);
        let (takes, comes) = self.fate(peer);
        self.requests[number].tried.push(peer);
        self.requests[number].running = Some(Attempt { peer, pass, began: self.now, comes });
        self.after(takes, Event::End(number));
    }

    /// How long an attempt takes, and what comes of it.
    fn fate(&mut self, peer: usize) -> (u64, Comes) {
        let usual = 5_000 + self.below(20_000);
        let of_hundred = self.below(100);
        let truth = &self.truths[peer];
        let young = self.now < truth.turned + 500_000;
        match truth.mode {
            Mode::Dead => (500, Comes::Failure(What::Connect, Sent::Nothing)),
            _ if young && of_hundred < 30 => {
                (300, Comes::Failure(What::DeadConnection, Sent::Something))
            }
            Mode::Slow(times) if usual * times >= ATTEMPT => {
                (ATTEMPT, Comes::Failure(What::TimedOut, Sent::Something))
            }
            Mode::Slow(times) => (usual * times, Comes::Answer),
            Mode::Flaky(percent) if of_hundred < percent => {
                (usual, Comes::Failure(What::Status(503), Sent::Something))
            }
            Mode::Fine | Mode::Flaky(_) if of_hundred == 99 => (usual / 2, Comes::ClientGone),
            Mode::Fine | Mode::Flaky(_) => (usual, Comes::Answer),
        }
    }

    fn end(&mut self, number: usize) {
        let now = self.time();
        let attempt = self.requests[number].running.take().expect("an attempt ends once");
        let peer = attempt.peer;
        let comes = if self.truths[peer].turned > attempt.began {
            Comes::Failure(What::Broken, Sent::Something)
        } else {
            attempt.comes
        };
        let verdict = match comes {
            Comes::Answer => Verdict::Success,
            Comes::ClientGone | Comes::Failure(What::DeadConnection, _) => Verdict::Neutral,
            Comes::Failure(..) => Verdict::Failure,
        };
        let member = &self.group.members[peer];
        member.in_flight.set(member.in_flight.get() - 1);
        if comes == Comes::Answer {
            member.latency.observe(Duration::from_micros(self.now - attempt.began), now);
        }
        // A probe that was taken for lost is not one any more.
        let lost = self.now >= attempt.began + 3_000_000;
        let probe = attempt.pass.kind() == Kind::Probe && !lost;
        let transition = member.breaker.leave(attempt.pass, verdict, now);
        if probe && verdict != Verdict::Failure {
            self.oracle.probe_back(peer, verdict == Verdict::Success);
        }
        if let Some(transition) = transition {
            self.changed(peer, transition);
        }
        self.note(peer, verdict);
        match comes {
            Comes::Answer => {
                self.told.answered += 1;
                if self.now >= TROUBLE + RECOVERY {
                    self.shares[peer] += 1;
                }
            }
            Comes::ClientGone => self.told.answered += 1,
            Comes::Failure(what, sent) => self.failed(number, what, sent),
        }
    }

    /// Takes in for the ejection how a request went.
    fn note(&mut self, peer: usize, verdict: Verdict) {
        let outcome = match verdict {
            Verdict::Success => ejection::Outcome::Success,
            Verdict::Failure | Verdict::Cut => ejection::Outcome::Error,
            Verdict::Neutral => return,
        };
        let now = self.time();
        let record = &self.group.members[peer].record;
        if record.note(outcome, self.group.ward.settings()) == Suspicion::Streak {
            let ejected = self.group.ward.eject(peer, &self.group.records(), now);
            if let Ejected::Until(until) = ejected {
                self.oracle.ejected(peer, until, now);
                self.told.ejected += 1;
            }
        }
    }

    fn failed(&mut self, number: usize, what: What, sent: Sent) {
        let now = self.time();
        let random = self.number();
        let request = &mut self.requests[number];
        request.attempts += 1;
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
        let Decision::Again { after, counted } = retry::decide(&self.retry, &failed, random) else {
            return self.fail(number);
        };
        assert!(request.idempotent || sent == Sent::Nothing, "it may have been acted upon");
        assert!(request.attempts <= self.retry.attempts, "it was tried often enough");
        match counted {
            Counted::No => {
                request.attempts -= 1;
                request.uncounted += 1;
                // The connection was dead, not the peer.
                request.tried.pop();
                self.told.dead += 1;
            }
            Counted::Yes => {
                if !self.group.budget.withdraw(now) {
                    self.told.refused_by_budget += 1;
                    return self.fail(number);
                }
                self.oracle.retried(now);
                self.told.retries += 1;
            }
        }
        self.after(u64::try_from(after.as_micros()).unwrap_or(u64::MAX), Event::Again(number));
    }

    fn fail(&mut self, number: usize) {
        if self.requests[number].idempotent {
            self.told.failed_idempotent += 1;
        } else {
            self.told.failed_others += 1;
        }
    }

    fn changed(&mut self, peer: usize, transition: Transition) {
        match transition {
            Transition::Opened(_) => self.told.opened += 1,
            Transition::Closed => self.told.closed += 1,
            Transition::HalfOpened => {}
        }
        let now = self.time();
        self.oracle.changed(peer, transition, now);
    }

    /// Something happens to a peer; in the end all is well.
    fn churn(&mut self) {
        if self.now >= TROUBLE {
            for peer in 0..self.truths.len() {
                self.turn(peer, Mode::Fine);
                self.drain(peer, false);
            }
            return;
        }
        let pause = 200_000 + self.below(2_000_000);
        self.after(pause, Event::Churn);
        let peer = self.below(self.truths.len() as u64) as usize;
        match self.below(12) {
            0..=2 => self.turn(peer, Mode::Dead),
            3..=6 => self.turn(peer, Mode::Fine),
            7 => self.turn(peer, Mode::Slow(10)),
            8 => self.turn(peer, Mode::Slow(1000)),
            9 => self.turn(peer, Mode::Flaky(40)),
            10 => self.drain(peer, true),
            _ => self.drain(peer, false),
        }
    }

    fn turn(&mut self, peer: usize, mode: Mode) {
        let truth = &mut self.truths[peer];
        if (truth.mode == Mode::Dead) != (mode == Mode::Dead) {
            truth.turned = self.now;
        }
        truth.mode = mode;
    }

    fn drain(&mut self, peer: usize, drained: bool) {
        self.told.drains += u64::from(drained && !self.group.members[peer].drained);
        self.group.members[peer].drained = drained;
        self.oracle.drained(peer, drained);
    }

    /// Each second, at each peer; a check waits for a second.
    fn check(&mut self, peer: usize) {
        if self.now < TROUBLE + RECOVERY + MEASURED {
            self.after(1_000_000, Event::Check(peer));
        }
        let passed = matches!(self.truths[peer].mode, Mode::Fine | Mode::Slow(10) | Mode::Flaky(_));
        let outcome = if passed { health::Outcome::Passed } else { health::Outcome::Failed };
        let now = self.time();
        let member = &mut self.group.members[peer];
        if member.checkup.note(outcome).is_some_and(|change| change.to == State::Healthy) {
            member.risen = Some(now);
        }
        self.oracle.checked(peer, passed);
    }

    fn sweep(&mut self) {
        if self.now < TROUBLE + RECOVERY + MEASURED {
            self.after(2_000_000, Event::Sweep);
        }
        let now = self.time();
        for (peer, until) in self.group.ward.sweep(&self.group.records(), now) {
            self.oracle.ejected(peer, until, now);
            self.told.ejected += 1;
        }
    }

    /// After the recovery everybody is back and has its share.
    fn judge_shares(&self) {
        let weights: Vec<u64> =
            self.group.members.iter().map(|member| u64::from(member.weight)).collect();
        let whole: u64 = weights.iter().sum();
        let all: u64 = self.shares.iter().sum();
        assert!(all > 1000, "only {all} answers");
        for (peer, &weight) in weights.iter().enumerate() {
            assert!(self.group.is_usable(peer, self.time()), "peer {peer} is not back");
            let share = all as f64 * weight as f64 / whole as f64;
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
            let has = self.shares[peer] as f64;
            let algorithm = self.algorithm;
            assert!(has >= least && has <= most, "peer {peer}: {has} of {share:.0}, {algorithm:?}");
        }
    }

    fn time(&self) -> Duration {
        Duration::from_micros(self.now)
    }

    fn after(&mut self, microseconds: u64, event: Event) {
        self.scheduled += 1;
        self.events.push(Reverse((self.now + microseconds, self.scheduled, event)));
    }

    fn number(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let number = (self.random ^ (self.random >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let number = (number ^ (number >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        number ^ (number >> 31)
    }

    fn below(&mut self, most: u64) -> u64 {
        ((u128::from(self.number()) * u128::from(most)) >> 64) as u64
    }
}
