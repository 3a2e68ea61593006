//! One backend in use: an address that can be connected to, and what is known of how it does.
//!
//! A configured backend is one of these, or, where its name stands for several addresses, several. All
//! that a request asks or tells it is a few atomic reads and additions.

use std::cell::Cell;
use std::hash::BuildHasher;
use std::hash::RandomState;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU8;
use std::sync::atomic::AtomicU16;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use pingora::protocols::l4::socket::SocketAddr;
use pingora::upstreams::peer::HttpPeer;

use crate::balance::PeakEwma;
use crate::resilience::breaker;
use crate::resilience::breaker::Breaker;
use crate::resilience::breaker::Transition;
use crate::resilience::ejection;
use crate::resilience::health::Assumed;
use crate::upstream;
use crate::upstream::Sticky;
use crate::upstream::connect::Dial;
use crate::upstream::found::Found;
use crate::upstream::health::Checker;
use crate::upstream::health::Checks;
use crate::upstream::mishap::Mishap;
use crate::upstream::mishap::Why;
use crate::upstream::pool;
use crate::upstream::pool::Pool;
use crate::upstream::prospect::Course;
use crate::upstream::prospect::Prospect;
use crate::upstream::prospect::Tally;
use crate::upstream::prospect::millis;
use crate::upstream::sticky;
use crate::upstream::survey::News;

/// How long an address that could not be connected to stands behind its siblings.
const REST: Duration = Duration::from_secs(10);

/// How fast a peak of latency is forgotten, and how slowly a mean follows.
const DECAY: Duration = Duration::from_secs(10);

/// One address that can be connected to.
// In this order: what a request that is lent it reads of it lies together.
#[derive(Debug)]
#[repr(C)]
pub struct Backend {
    prospect: Prospect,
    pub(super) pool: Arc<Pool>,
    /// The places for uploads that are still coming in. No connections wait here.
    pub(super) uploads: Arc<Pool>,
    id: Arc<str>,
    label: Arc<str>,
    /// The address as text.
    shown: Arc<str>,
    key: u64,
    weight: AtomicU32,
    /// The records by which it was found say its weight.
    weighed: AtomicBool,
    backup: AtomicBool,
    /// How many ranks of the records by which it was found go before it.
    step: AtomicU16,
    peer: HttpPeer,
    /// How it is connected to, for as long as a request has it; `None` for HTTP/2.
    dial: Option<Arc<Dial>>,
    /// Its health checks; `None`: there are none.
    pub(super) checks: Option<Arc<Checks>>,
    /// Told what changes whether it is well, or since when.
    news: Arc<News>,
}

/// Why a backend gets no requests, apart from what passes with time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Reason {
    /// It is switched off.
    Inactive = 1,
    /// It finishes what it has and gets nothing new.
    Draining = 2,
    /// Its health checks fail.
    Unhealthy = 4,
    /// It has not been checked yet, and is not taken for healthy.
    Unknown = 8,
}

/// How particular to be about a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    /// Not tried for this request, not known to be unreachable, and with a connection to spare.
    Rested,
    /// Not tried for this request, and not known to be unreachable; all its connections may be in use.
    Awake,
    /// Not tried for this request.
    Untried,
    /// Any: where there is no other, a second attempt is better than none.
    Any,
}

/// Whether health and ejection are heeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heed {
    /// They are.
    Health,
    /// So few are left that all are tried: the checks may be what is wrong.
    Panic,
}

impl Backend {
    /// The backend `settings` at `address`, one of as many as its name stands for.
    pub(super) fn new(
        settings: &upstream::Backend,
        peer: HttpPeer,
        pool: Arc<Pool>,
        alone: bool,
        breaker: Option<&breaker::Settings>,
        news: &Arc<News>,
        now: Duration,
    ) -> Self {
        let label = match alone {
            true => Arc::clone(&settings.id),
            false => format!("{}/{}", settings.id, peer._address).into(),
        };
        let course = Arc::new(Course {
            reasons: AtomicU8::new(if settings.active { 0 } else { Reason::Inactive as u8 }),
            begun: AtomicU64::new(0),
            ended: AtomicU64::new(0),
            rests_until: AtomicU64::new(0),
            up_since: AtomicU64::new(millis(now)),
            latency: PeakEwma::new(DECAY),
            record: ejection::Record::default(),
            tally: Tally::default(),
        });
        let breaker = breaker.map(|settings| Arc::new(Breaker::new(settings)));
        Self {
            prospect: Prospect { course, breaker, places: pool.places() },
            id: Arc::clone(&settings.id),
            key: sticky::number(&label),
            label,
            shown: peer._address.to_string().into(),
            weight: AtomicU32::new(settings.weight),
            weighed: AtomicBool::new(false),
            backup: AtomicBool::new(settings.backup),
            step: AtomicU16::new(0),
            peer,
            dial: None,
            uploads: Pool::new(of_uploads(pool.settings(), pool.places())),
            pool,
            checks: None,
            news: Arc::clone(news),
        }
    }

    /// The same, as one that goes on where `before` is, which it follows: what its requests came to and
    /// what its checks said stays, and its breaker where it has one. For `before` nothing changes.
    pub(super) fn following(mut self, before: &Self, pool: &pool::Settings) -> Self {
        self.prospect.places = self.pool.places_with(pool);
        self.prospect.course = Arc::clone(&before.prospect.course);
        if let (Some(mine), Some(known)) = (&mut self.prospect.breaker, before.breaker()) {
            mine.clone_from(known);
        }
        self.checks = self.checks.map(|checks| {
            let judged = before.checks.as_deref();
            Arc::new(Checks::following(Arc::clone(checks.checker_arc()), judged))
        });
        self.uploads = Arc::clone(&before.uploads);
        self
    }

    /// Whether it follows `before`, or is it.
    pub(super) fn is_the_same_as(&self, before: &Self) -> bool {
        Arc::ptr_eq(&self.prospect.course, &before.prospect.course)
    }

    /// Whether it is asked by checks what `other` is asked.
    pub(super) fn is_checked_as(&self, other: &Self) -> bool {
        let (mine, theirs) = (self.checks.as_deref(), other.checks.as_deref());
        mine.zip(theirs).is_some_and(|(mine, theirs)| mine.ask_as(theirs))
    }

    /// From now on it is what requests are lent, and these settings count.
    pub(super) fn takes_over(&self, pool: pool::Settings, breaker: Option<&breaker::Settings>) {
        self.pool.adjust(pool);
        self.uploads.adjust(of_uploads(pool, self.pool.places()));
        if let (Some(breaker), Some(settings)) = (self.breaker(), breaker) {
            breaker.adjust(settings);
        }
        if let Some(checks) = &self.checks {
            checks.takes_over();
        }
    }

    /// The same, with the number that clients' cookies have for it.
    pub(super) fn numbered_by(mut self, sticky: Option<&Sticky>) -> Self {
        if let Some(sticky) = sticky {
            self.key = sticky.number(&self.label);
        }
        self
    }

    /// The same, connected to in this way.
    pub(super) fn dialled_by(mut self, dial: &Arc<Dial>) -> Self {
        self.dial = Some(Arc::clone(dial));
        self
    }

    /// What is looked at of it for each choice.
    pub(super) fn prospect(&self) -> &Prospect {
        &self.prospect
    }

    /// Its breaker; `None`: there is none.
    pub(super) fn breaker(&self) -> Option<&Arc<Breaker>> {
        self.prospect.breaker.as_ref()
    }

    /// How it is connected to.
    pub(super) fn dial(&self) -> Option<&Arc<Dial>> {
        self.dial.as_ref()
    }

    /// The same, with health checks. It may have to wait for the first one.
    pub(super) fn checked_by(mut self, checker: Option<&Arc<Checker>>) -> Self {
        self.checks = checker.map(|checker| {
            if checker.settings().judged.initial == Assumed::Unknown {
                self.set(Reason::Unknown, true);
            }
            Arc::new(Checks::new(Arc::clone(checker)))
        });
        self
    }

    /// The id in the configuration.
    #[must_use]
    pub fn id(&self) -> &Arc<str> {
        &self.id
    }

    /// Its name in logs and metrics: unique in its upstream.
    #[must_use]
    pub fn label(&self) -> &Arc<str> {
        &self.label
    }

    /// Its address, as logs show it.
    #[must_use]
    pub fn shown(&self) -> &Arc<str> {
        &self.shown
    }

    /// A number for its label, which stays the same from start to start and on every node that is configured alike.
    #[must_use]
    pub fn key(&self) -> u64 {
        self.key
    }

    /// Where it is.
    #[must_use]
    pub fn address(&self) -> &SocketAddr {
        &self.peer._address
    }

    /// Its share of requests relative to its siblings.
    #[must_use]
    pub fn weight(&self) -> u32 {
        self.weight.load(Ordering::Relaxed)
    }

    /// Whether it serves only while others cannot.
    #[must_use]
    pub fn is_backup(&self) -> bool {
        self.tier() > 0
    }

    /// How many go before it: it serves only while no backend of a lower tier can. What the configuration
    /// calls a backup comes after all that records put in an order.
    pub(super) fn tier(&self) -> u32 {
        let backup = u32::from(self.backup.load(Ordering::Relaxed));
        (backup << u16::BITS) | u32::from(self.step.load(Ordering::Relaxed))
    }

    /// Gives it another weight, unless records say it, and rank; the group has to be made anew.
    pub(super) fn rank(&self, weight: u32, backup: bool) {
        if !self.weighed.load(Ordering::Relaxed) {
            self.weight.store(weight, Ordering::Relaxed);
        }
        self.backup.store(backup, Ordering::Relaxed);
    }

    /// Gives it the place that records gave it; the group has to be made anew.
    pub(super) fn placed(&self, step: u16, weight: Option<u32>) {
        self.step.store(step, Ordering::Relaxed);
        self.weighed.store(weight.is_some(), Ordering::Relaxed);
        if let Some(weight) = weight {
            self.weight.store(weight, Ordering::Relaxed);
        }
    }

    /// As a look-up found it.
    pub(super) fn found(&self) -> Found {
        let weighed = self.weighed.load(Ordering::Relaxed);
        Found {
            address: self.address().clone(),
            step: self.step.load(Ordering::Relaxed),
            weight: weighed.then(|| self.weight()),
        }
    }

    /// Requests that it has now.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.prospect.in_flight()
    }

    /// How its requests went, compared with those of its siblings.
    pub(super) fn record(&self) -> &ejection::Record {
        &self.prospect.course.record
    }

    /// What Pingora has to know to talk to it.
    pub(super) fn peer(&self) -> Box<HttpPeer> {
        Box::new(self.peer.clone())
    }

    /// Gives it no more requests for this reason, or no longer. Answers whether that is news.
    pub(super) fn set(&self, reason: Reason, holds: bool) -> bool {
        let bit = reason as u8;
        let before = match holds {
            true => self.prospect.course.reasons.fetch_or(bit, Ordering::Relaxed),
            false => self.prospect.course.reasons.fetch_and(!bit, Ordering::Relaxed),
        };
        let is_news = (before & bit != 0) != holds;
        if is_news {
            self.news.tell();
        }
        is_news
    }

    /// Whether this keeps requests away.
    #[must_use]
    pub fn is(&self, reason: Reason) -> bool {
        self.prospect.reasons() & reason as u8 != 0
    }

    /// It comes up now, and takes up its share slowly where that is wished.
    pub(super) fn came_up(&self, now: Duration) {
        self.prospect.course.up_since.store(millis(now), Ordering::Relaxed);
        self.news.tell();
    }

    /// Since when it is up, in milliseconds.
    pub(super) fn up_since(&self) -> u64 {
        self.prospect.up_since()
    }

    /// Whether it may get a request at `now`.
    pub(super) fn is_usable(&self, heed: Heed, now: Duration) -> bool {
        self.prospect.is_usable(heed, now)
    }

    /// Whether health and ejection would let it have requests; the breaker has its own say.
    pub(super) fn is_well(&self, now: Duration) -> bool {
        self.prospect.is_well(now)
    }

    /// Whether nothing but a breaker or an ejection keeps requests away.
    pub(super) fn is_free(&self) -> bool {
        self.prospect.reasons() == 0
    }

    /// Whether it is meant to get requests at all.
    pub(super) fn is_wanted(&self) -> bool {
        !self.is(Reason::Inactive) && !self.is(Reason::Draining)
    }

    /// Whether passive checks have it out.
    #[must_use]
    pub fn is_ejected(&self, now: Duration) -> bool {
        self.prospect.course.record.is_out(now)
    }

    /// Whether it fits `wish`.
    pub(super) fn fits(&self, wish: Wish, tried: &[Arc<Self>], now: Duration) -> bool {
        let untried = || !tried.iter().any(|backend| backend.address() == self.address());
        match wish {
            Wish::Rested => self.prospect.is_rested(now) && untried(),
            Wish::Awake => self.prospect.is_awake(now) && untried(),
            Wish::Untried => untried(),
            Wish::Any => true,
        }
    }

    /// It could not be connected to: for a while it stands behind its siblings.
    pub(super) fn rest(&self, now: Duration) {
        self.rest_for(REST, now);
    }

    /// For so long it stands behind its siblings.
    pub(super) fn rest_for(&self, time: Duration, now: Duration) {
        let until = millis(now.saturating_add(time));
        self.prospect.course.rests_until.store(until, Ordering::Relaxed);
    }

    /// A request goes there.
    pub(super) fn begin(&self) {
        self.prospect.course.begun.fetch_add(1, Ordering::Relaxed);
    }

    /// It is over.
    pub(super) fn end(&self) {
        // Release: who sees the end sees the beginning, too.
        self.prospect.course.ended.fetch_add(1, Ordering::Release);
    }

    /// It answered, after this time.
    pub(super) fn answered(&self, took: Duration, now: Duration) {
        let course = &self.prospect.course;
        course.latency.observe(took, now);
        course.rests_until.store(0, Ordering::Relaxed);
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        course.tally.micros.fetch_add(micros, Ordering::Relaxed);
        course.tally.answered.fetch_add(1, Ordering::Relaxed);
    }

    /// What was asked of it failed.
    pub(super) fn failed(&self) {
        self.prospect.course.tally.failures.fetch_add(1, Ordering::Relaxed);
    }

    /// In this way a request failed, or what it takes to make one.
    pub(super) fn erred(&self, why: Why<'_>, now: Duration) {
        self.prospect.course.tally.last_error.note(why, now);
    }

    /// What went wrong last.
    pub(super) fn last_error(&self) -> Option<Arc<Mishap>> {
        self.prospect.course.tally.last_error.get()
    }

    /// Its breaker changed.
    pub(super) fn turned(&self, transition: Transition) {
        let tally = &self.prospect.course.tally;
        let count = match transition {
            Transition::Opened(_) => &tally.opened,
            Transition::HalfOpened => &tally.half_opened,
            Transition::Closed(_) => &tally.closed,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }

    /// Passive checks have it out until then; its way back up begins there.
    pub(super) fn ejected(&self, until: Duration) {
        self.came_up(until);
        self.prospect.course.tally.ejected.fetch_add(1, Ordering::Relaxed);
    }
}

/// What the places for uploads allow, beside a pool of so many places.
fn of_uploads(pool: pool::Settings, places: u32) -> pool::Settings {
    pool::Settings { max_connections: pool.uploads.unwrap_or(places / 2).max(1), ..pool }
}

thread_local! {
    static CHANCE: Cell<u64> = Cell::new(RandomState::new().hash_one(()));
}

/// Makes what is [`random`] on this thread follow from `seed`.
#[cfg(test)]
pub(super) fn seed(seed: u64) {
    CHANCE.set(seed);
}

/// A number that nobody can foresee who does not know the process's secret.
#[must_use]
pub fn random() -> u64 {
    // SplitMix64: one addition and three multiplications, and every state gives another number.
    CHANCE.with(|state| {
        let next = state.get().wrapping_add(0x9E37_79B9_7F4A_7C15);
        state.set(next);
        let mixed = (next ^ (next >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::upstream::Place;

    fn address(last: u8) -> SocketAddr {
        SocketAddr::Inet(([192, 0, 2, last], 80).into())
    }

    fn backend(last: u8) -> Arc<Backend> {
        let place = Place::Tcp { host: "origin.test".to_owned(), port: 80 };
        let settings = upstream::Backend::new("one", place);
        let mut peer = HttpPeer::new(("192.0.2.0", 0), false, String::new());
        peer._address = address(last);
        let pool = Pool::new(pool::Settings::default());
        Arc::new(Backend::new(&settings, peer, pool, true, None, &Arc::default(), Duration::ZERO))
    }

    #[test]
    fn an_unreachable_address_rests_ten_seconds_or_until_it_answers() {
        let one = backend(1);
        let at = Duration::from_secs;
        one.rest(at(100));
        assert!(!one.fits(Wish::Rested, &[], at(109)));
        assert!(one.fits(Wish::Untried, &[], at(109)));
        assert!(one.fits(Wish::Rested, &[], at(110)));
        one.rest(at(200));
        one.answered(at(1), at(201));
        assert!(one.fits(Wish::Rested, &[], at(201)));
    }

    #[test]
    fn while_requests_come_and_go_none_is_counted_out_that_was_not_counted_in() {
        let one = backend(1);
        std::thread::scope(|scope| {
            let [first, second] = [(); 2].map(|()| {
                scope.spawn(|| {
                    for _ in 0..50_000 {
                        one.begin();
                        one.end();
                    }
                })
            });
            while !(first.is_finished() && second.is_finished()) {
                // Whoever came and went between the two looks is counted in; nobody is less than none.
                assert!(one.in_flight() <= 100_000, "{}", one.in_flight());
            }
        });
        assert_eq!((one.in_flight(), one.report(Duration::ZERO).requests), (0, 100_000));
    }

    #[test]
    fn what_was_tried_fits_only_the_last_wish() {
        let one = backend(1);
        let tried = [Arc::clone(&one)];
        assert!(!one.fits(Wish::Untried, &tried, Duration::ZERO));
        assert!(one.fits(Wish::Any, &tried, Duration::ZERO));
        assert!(backend(2).fits(Wish::Rested, &tried, Duration::ZERO));
    }

    #[test]
    fn every_reason_keeps_requests_away_and_panic_heeds_only_the_operators() {
        let one = backend(1);
        let now = Duration::from_secs(1);
        let reasons = [Reason::Inactive, Reason::Draining, Reason::Unhealthy, Reason::Unknown];
        for reason in reasons {
            assert!(one.set(reason, true), "news");
            assert!(!one.set(reason, true), "no news");
            assert!(!one.is_usable(Heed::Health, now));
            let operators = matches!(reason, Reason::Inactive | Reason::Draining);
            assert_eq!(one.is_usable(Heed::Panic, now), !operators);
            assert!(one.set(reason, false), "news");
            assert!(one.is_usable(Heed::Health, now));
        }
        let ward = ejection::Ward::new(ejection::Settings {
            base: Duration::from_secs(1),
            ..ejection::Settings::default()
        });
        let ejected = ward.eject(0, &[one.record(), backend(2).record()], now);
        assert_eq!(ejected, ejection::Ejected::Until(Duration::from_secs(2)));
        assert!(!one.is_usable(Heed::Health, now));
        assert!(one.is_usable(Heed::Panic, now));
        assert!(one.is_usable(Heed::Health, Duration::from_secs(2)));
    }

    #[test]
    fn a_slow_start_goes_from_a_little_to_all() {
        let one = backend(1);
        let slow = Duration::from_secs(10);
        one.came_up(Duration::from_secs(100));
        let at = |seconds| one.prospect.readiness(slow, Duration::from_secs(seconds));
        assert_eq!([at(100), at(105), at(110), at(200)], [50, 500, 1000, 1000]);
        assert_eq!(one.prospect.readiness(Duration::ZERO, Duration::from_secs(100)), 1000);
    }

    proptest! {
        /// In proportion to the time, from a twentieth on.
        #[test]
        fn a_slow_start_grows_with_the_time(slow in 1_u64..3_600_000, since in 0_u64..7_200_000) {
            let one = backend(1);
            let up = Duration::from_secs(100);
            one.came_up(up);
            let at = |since| one.prospect.readiness(Duration::from_millis(slow), up + Duration::from_millis(since));
            let wanted = u32::try_from((since * 1000 / slow).clamp(50, 1000)).unwrap();
            prop_assert_eq!(at(since), wanted);
            prop_assert!(at(since + 1) >= at(since));
        }
    }
}
