//! What must never be, judged from what happened alone: the oracle keeps its own books, and asks the upstream
//! nothing.

use std::collections::VecDeque;
use std::time::Duration;

use super::setting::breaker_settings;
use super::setting::budget_settings;
use super::setting::ejection_settings;
use super::setting::limit_settings;
use crate::refusal::Refusal;
use crate::resilience::breaker::State;
use crate::resilience::ejection::most_out;

/// Times are kept in milliseconds, rounded up.
const ROUNDED: Duration = Duration::from_millis(1);

#[derive(Debug, Clone, Copy, PartialEq)]
enum Life {
    Closed,
    Open { until: Duration },
    HalfOpen,
}

/// How a request went, as far as a breaker is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Went {
    Well,
    Badly,
    /// Badly: it was not connected, or its connection broke.
    Cut,
    /// Nothing was said of it.
    Unsaid,
}

/// What a request was to the breaker when it was sent.
#[derive(Debug)]
pub(super) struct Leave {
    /// In which life of the breaker.
    life: u32,
    /// After how many of all things that happened.
    at: u64,
}

/// What was counted of one backend.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counted {
    pub(super) sent: u64,
    pub(super) failed: u64,
    pub(super) opened: u64,
    pub(super) half_opened: u64,
    pub(super) closed: u64,
    pub(super) ejected: u64,
}

struct Book {
    life: Life,
    /// The number of that life; also another one when probes are taken for lost.
    lives: u32,
    drained: bool,
    healthy: bool,
    out_until: Duration,
    /// How long checks have said the same.
    same_checks: (bool, u32),
    /// Failures in a row, those that were cut together as one.
    row: u32,
    /// When the last one of them was.
    last_failure: u64,
    /// The requests of the life, when they ended and whether badly.
    ended: VecDeque<(Duration, bool)>,
    /// Probes of this half-open life: sent and succeeded.
    probes_out: u32,
    probes_won: u32,
    last_probe: Duration,
    counted: Counted,
}

pub(super) struct Oracle {
    books: Vec<Book>,
    /// Requests and retries, when.
    requests: VecDeque<Duration>,
    retries: VecDeque<Duration>,
    /// How many wait for the answer of a backend now.
    lent: u32,
    /// Whether that is limited.
    limited: bool,
    /// How much happened.
    happened: u64,
    /// Failures that others were cut together with.
    cut_together: u64,
}

impl Oracle {
    pub(super) fn new(backends: usize, limited: bool) -> Self {
        let book = || Book {
            life: Life::Closed,
            lives: 0,
            drained: false,
            healthy: true,
            out_until: Duration::ZERO,
            same_checks: (true, 0),
            row: 0,
            last_failure: 0,
            ended: VecDeque::new(),
            probes_out: 0,
            probes_won: 0,
            last_probe: Duration::ZERO,
            counted: Counted::default(),
        };
        Self {
            books: (0..backends).map(|_| book()).collect(),
            requests: VecDeque::new(),
            retries: VecDeque::new(),
            lent: 0,
            limited,
            happened: 0,
            cut_together: 0,
        }
    }

    pub(super) fn cut_together(&self) -> u64 {
        self.cut_together
    }

    pub(super) fn counted(&self, backend: usize) -> Counted {
        self.books[backend].counted
    }

    pub(super) fn is_closed(&self, backend: usize) -> bool {
        self.books[backend].life == Life::Closed
    }

    /// How many failures in a row there were.
    pub(super) fn row(&self, backend: usize) -> u32 {
        self.books[backend].row
    }

    pub(super) fn drained(&mut self, backend: usize, drained: bool) {
        self.books[backend].drained = drained;
    }

    /// A check; three failures in a row take a backend out, two successes bring it back.
    pub(super) fn checked(&mut self, backend: usize, passed: bool) {
        let book = &mut self.books[backend];
        let count = if book.same_checks.0 == passed { book.same_checks.1 + 1 } else { 1 };
        book.same_checks = (passed, count);
        match (book.healthy, passed) {
            (true, false) if count >= 3 => book.healthy = false,
            (false, true) if count >= 2 => book.healthy = true,
            (true | false, true | false) => {}
        }
    }

    /// Until when passive checks have a backend out by what it says itself.
    pub(super) fn is_out(&mut self, backend: usize, until: Option<Duration>, now: Duration) {
        let settings = ejection_settings();
        let known = self.books[backend].out_until;
        let Some(until) = until.filter(|until| *until != known) else {
            assert!(until.is_some() || known <= now, "backend {backend} is back too early");
            return;
        };
        assert!(known <= now, "backend {backend} was out already");
        let length = until - now;
        assert!(length >= settings.base && length <= settings.longest + ROUNDED, "for {length:?}");
        let book = &mut self.books[backend];
        book.out_until = until;
        book.counted.ejected += 1;
        // Among those that could take over.
        let free = || self.books.iter().filter(|book| book.healthy && !book.drained);
        let out = free().filter(|book| book.out_until > now).count();
        let most = most_out(free().count(), settings.max_percent);
        assert!(out <= most, "{out} are out, {most} may be");
    }

    /// A request of a client came to a backend.
    pub(super) fn requested(&mut self, now: Duration) {
        self.requests.push_back(now);
    }

    /// A counted retry was granted.
    pub(super) fn retried(&mut self, now: Duration) {
        self.retries.push_back(now);
        let lately = |times: &VecDeque<Duration>, seconds: u64| {
            let length = Duration::from_secs(seconds);
            times.iter().rev().take_while(|at| **at + length > now).count() as u64
        };
        let settings = budget_settings();
        // Nine seconds for certain: of ten, the oldest goes as a whole.
        let most = lately(&self.requests, 10) * u64::from(settings.percent) / 100
            + u64::from(settings.minimum) * 10;
        let spent = lately(&self.retries, 9);
        assert!(spent <= most, "{spent} retries in nine seconds, {most} may be");
    }

    /// A request was lent a backend.
    pub(super) fn sent(&mut self, backend: usize, now: Duration) -> Leave {
        self.happened += 1;
        self.lent += 1;
        let most = limit_settings().max;
        assert!(!self.limited || self.lent <= most, "{} at once", self.lent);
        let settings = breaker_settings();
        let book = &mut self.books[backend];
        book.counted.sent += 1;
        assert!(!book.drained, "backend {backend} is drained");
        assert!(book.healthy, "backend {backend} is not healthy");
        assert!(book.out_until <= now, "backend {backend} is out until {:?}", book.out_until);
        match book.life {
            Life::Closed => {}
            Life::Open { until } => {
                assert!(now >= until, "backend {backend} is half-open too early");
                book.begin(Life::HalfOpen);
                book.counted.half_opened += 1;
                book.probe(now);
            }
            Life::HalfOpen => {
                if book.probes_out + book.probes_won >= settings.probes {
                    let free = book.last_probe + settings.open_for;
                    assert!(now >= free, "backend {backend} has all of its probes out");
                    book.probes_out = 0;
                    book.lives += 1;
                }
                book.probe(now);
            }
        }
        Leave { life: book.lives, at: self.happened }
    }

    /// A backend has answered a request, or will not.
    pub(super) fn is_over(&mut self) {
        self.lent -= 1;
    }

    /// There was no backend for a request.
    pub(super) fn refused(&self, refusal: Refusal, now: Duration) {
        if refusal == Refusal::Shed {
            let least = limit_settings().min;
            assert!(self.limited && self.lent >= least, "{} at once are too many", self.lent);
            return;
        }
        let is_meant = |book: &&Book| book.healthy && !book.drained;
        let meant = || self.books.iter().filter(is_meant);
        let past = |until: Duration| until + ROUNDED <= now;
        for book in meant().filter(|book| past(book.out_until)) {
            assert_eq!(refusal, Refusal::BreakerOpen, "a backend that is well was not asked");
            let lets_pass = match book.life {
                Life::Closed => true,
                Life::Open { until } => past(until),
                Life::HalfOpen => false,
            };
            assert!(!lets_pass, "a backend that could have been asked was not");
        }
        let barred = meant().any(|book| book.out_until <= now && book.life != Life::Closed);
        assert!(refusal == Refusal::NoPeer || barred, "no breaker is in the way: {refusal:?}");
    }

    /// A backend failed, by its own fault.
    pub(super) fn failed(&mut self, backend: usize) {
        self.books[backend].counted.failed += 1;
    }

    /// The breaker of a backend was reset, and is in this state since. Answers whether that changed it.
    pub(super) fn reset(&mut self, backend: usize, is: State) -> bool {
        self.happened += 1;
        let book = &mut self.books[backend];
        let changed = book.life != Life::Closed;
        book.begin(Life::Closed);
        book.counted.closed += u64::from(changed);
        book.expect(backend, is);
        changed
    }

    /// The breaker was told how a request went, and is in this state since.
    pub(super) fn left(
        &mut self,
        backend: usize,
        leave: &Leave,
        went: Went,
        is: State,
        now: Duration,
    ) {
        self.happened += 1;
        let book = &mut self.books[backend];
        // What was sent in an earlier life says nothing of this one.
        if leave.life == book.lives {
            match book.life {
                Life::Closed => {
                    let together = book.went(leave, went, self.happened, now);
                    self.cut_together += u64::from(together);
                }
                Life::HalfOpen => book.probed(went, now),
                Life::Open { .. } => panic!("nothing is sent while it is open"),
            }
        }
        book.expect(backend, is);
    }
}

impl Book {
    /// A request of a closed breaker is over. Answers whether it was cut together with one that counted.
    fn went(&mut self, leave: &Leave, went: Went, happened: u64, now: Duration) -> bool {
        let together = went == Went::Cut && self.last_failure > leave.at;
        match went {
            Went::Unsaid => return false,
            Went::Well => self.row = 0,
            Went::Badly | Went::Cut if !together => {
                self.row += 1;
                self.last_failure = happened;
            }
            Went::Badly | Went::Cut => {}
        }
        self.ended.push_back((now, went != Went::Well));
        // This second and the nine before it.
        let oldest = now.as_secs().saturating_sub(9);
        while self.ended.front().is_some_and(|(at, _)| at.as_secs() < oldest) {
            self.ended.pop_front();
        }
        if went == Went::Well {
            return together;
        }
        let settings = breaker_settings();
        let (all, bad) = (self.ended.len(), self.ended.iter().filter(|(_, bad)| *bad).count());
        let rate = settings.rate.expect("it is set") as usize;
        let too_often = all >= settings.min_requests as usize && bad * 100 >= all * rate;
        let too_many = !together && self.row >= settings.failures;
        if too_many || too_often {
            self.open(now);
        }
        together
    }

    /// A probe came back in time.
    fn probed(&mut self, went: Went, now: Duration) {
        self.probes_out = self.probes_out.saturating_sub(1);
        match went {
            Went::Unsaid => {}
            Went::Well => {
                self.probes_won += 1;
                if self.probes_won == breaker_settings().probes {
                    self.begin(Life::Closed);
                    self.counted.closed += 1;
                }
            }
            Went::Badly | Went::Cut => self.open(now),
        }
    }

    fn probe(&mut self, now: Duration) {
        self.probes_out += 1;
        self.last_probe = now;
    }

    fn open(&mut self, now: Duration) {
        self.begin(Life::Open { until: now + breaker_settings().open_for });
        self.counted.opened += 1;
    }

    fn begin(&mut self, life: Life) {
        self.life = life;
        self.lives += 1;
        self.row = 0;
        self.ended.clear();
        (self.probes_out, self.probes_won) = (0, 0);
    }

    /// The breaker says of itself what the book says.
    fn expect(&self, backend: usize, is: State) {
        let agrees = match (self.life, is) {
            (Life::Closed, State::Closed) | (Life::HalfOpen, State::HalfOpen) => true,
            // Also when its time is over and nobody has come yet.
            (Life::Open { until }, State::Open { until: says }) => {
                says >= until && says < until + ROUNDED
            }
            (Life::Closed | Life::Open { .. } | Life::HalfOpen, _) => false,
        };
        assert!(agrees, "backend {backend}: {:?} in the books, and {is:?}", self.life);
    }
}
