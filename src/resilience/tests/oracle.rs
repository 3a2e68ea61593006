//! What must never be, judged from what happened alone: the oracle keeps its own books and asks the
//! group nothing.

use std::collections::VecDeque;
use std::time::Duration;

use crate::resilience::breaker::Kind;
use crate::resilience::breaker::Transition;
use crate::resilience::ejection::most_out;
use crate::resilience::tests::group::breaker_settings;
use crate::resilience::tests::group::budget_settings;
use crate::resilience::tests::group::ejection_settings;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Life {
    Closed,
    Open { until: Duration },
    HalfOpen,
}

struct Book {
    life: Life,
    drained: bool,
    healthy: bool,
    out_until: Duration,
    /// How long checks have said the same.
    same_checks: (bool, u32),
    /// Probes of this half-open life: sent and succeeded.
    probes_out: u32,
    probes_won: u32,
    last_probe: Duration,
}

pub(super) struct Oracle {
    books: Vec<Book>,
    /// Requests and retries, when.
    requests: VecDeque<Duration>,
    retries: VecDeque<Duration>,
}

impl Oracle {
    pub(super) fn new(peers: usize) -> Self {
        let book = || Book {
            life: Life::Closed,
            drained: false,
            healthy: true,
            out_until: Duration::ZERO,
            same_checks: (true, 0),
            probes_out: 0,
            probes_won: 0,
            last_probe: Duration::ZERO,
        };
        Self {
            books: (0..peers).map(|_| book()).collect(),
            requests: VecDeque::new(),
            retries: VecDeque::new(),
        }
    }

    pub(super) fn drained(&mut self, peer: usize, drained: bool) {
        self.books[peer].drained = drained;
    }

    /// A check; three failures in a row take a peer out, two successes bring it back.
    pub(super) fn checked(&mut self, peer: usize, passed: bool) {
        let book = &mut self.books[peer];
        let count = if book.same_checks.0 == passed { book.same_checks.1 + 1 } else { 1 };
        book.same_checks = (passed, count);
        match (book.healthy, passed) {
            (true, false) if count >= 3 => book.healthy = false,
            (false, true) if count >= 2 => book.healthy = true,
            (true | false, true | false) => {}
        }
    }

    pub(super) fn ejected(&mut self, peer: usize, until: Duration, now: Duration) {
        let settings = ejection_settings();
        let book = &mut self.books[peer];
        assert!(book.out_until <= now, "peer {peer} was out already");
        let length = until - now;
        assert!(length >= settings.base && length <= settings.longest, "out for {length:?}");
        book.out_until = until;
        let out = self.books.iter().filter(|book| book.out_until > now).count();
        let most = most_out(self.books.len(), settings.max_percent);
        assert!(out <= most, "{out} are out, {most} may be");
    }

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

    /// A request is sent to a peer.
    pub(super) fn sent(&mut self, peer: usize, kind: Kind, now: Duration) {
        let settings = breaker_settings();
        let book = &mut self.books[peer];
        assert!(!book.drained, "peer {peer} is drained");
        assert!(book.healthy, "peer {peer} is not healthy");
        assert!(book.out_until <= now, "peer {peer} is out until {:?}", book.out_until);
        match (kind, book.life) {
            (Kind::Normal, Life::Closed) => {}
            (Kind::Probe, Life::HalfOpen) => {
                if book.probes_out + book.probes_won >= settings.probes {
                    let free = book.last_probe + settings.open_for;
                    assert!(now >= free, "peer {peer} has all of its probes out");
                    book.probes_out = 0;
                }
                book.probes_out += 1;
                book.last_probe = now;
            }
            (Kind::Normal | Kind::Probe, life) => {
                panic!("a {kind:?} request to peer {peer}: {life:?}")
            }
        }
    }

    /// Nobody was found for a request: everybody has a reason.
    pub(super) fn nobody(&self, now: Duration) {
        // Times are kept in milliseconds, rounded up.
        let past = |until: Duration| until + Duration::from_millis(1) <= now;
        let is_free = |book: &Book| {
            let lets_pass = match book.life {
                Life::Closed => true,
                Life::Open { until } => past(until),
                Life::HalfOpen => false,
            };
            lets_pass && !book.drained && book.healthy && past(book.out_until)
        };
        let free = self.books.iter().position(is_free);
        assert_eq!(free, None, "a peer that could have been asked was not");
    }

    /// A probe came back in time, and said nothing or well.
    pub(super) fn probe_back(&mut self, peer: usize, won: bool) {
        let book = &mut self.books[peer];
        if book.life == Life::HalfOpen {
            book.probes_out = book.probes_out.saturating_sub(1);
            book.probes_won += u32::from(won);
        }
    }

    /// A breaker changed: closed, open, half-open, and then closed or open again.
    pub(super) fn changed(&mut self, peer: usize, transition: Transition, now: Duration) {
        let settings = breaker_settings();
        let book = &mut self.books[peer];
        book.life = match (book.life, transition) {
            (Life::Closed | Life::HalfOpen, Transition::Opened(_)) => {
                Life::Open { until: now + settings.open_for }
            }
            (Life::Open { until }, Transition::HalfOpened) => {
                assert!(now >= until, "peer {peer} half-opened too early");
                Life::HalfOpen
            }
            (Life::HalfOpen, Transition::Closed) => {
                assert_eq!(book.probes_won, settings.probes, "peer {peer} closed too early");
                Life::Closed
            }
            (life, transition) => panic!("peer {peer}: {transition:?} while {life:?}"),
        };
        (book.probes_out, book.probes_won) = (0, 0);
    }
}
