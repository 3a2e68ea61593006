//! The connections to one address of an upstream: how many there may be, who waits for one, and those
//! that wait for a request.
//!
//! A request first takes a [`Slot`], which bounds what is in use, and then a connection: one that is
//! idle, or a new one. The last one that came back to this thread goes out first, so that those that are too many
//! grow old and are closed.
//!
//! Nothing waits for idle connections: each is looked at right before it is used, and from time to time by
//! the one task of its upstream ([`Dial::tend`](crate::upstream::connect::Dial::tend)).

mod idle;
mod queue;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::Weak;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use arc_swap::ArcSwap;
use pingora::Error;
use pingora::ErrorType;
use pingora::Result;
use pingora::protocols::Digest;

use self::idle::Waiters;
use self::queue::Queue;
pub use self::queue::Refused;
pub use self::queue::Slot;
use crate::message::ends::Ends;
use crate::terms::clock;
use crate::upstream::Protocol;
use crate::upstream::connect::Dial;
use crate::upstream::connect::Kept;
use crate::upstream::connect::To;
use crate::upstream::guard::OriginIo;
use crate::upstream::http2;
use crate::upstream::line::Line;

/// The shortest and the longest time between two looks at what is idle. In the longest one a connection
/// that its origin closed costs a descriptor, and nothing else.
const ROUND_LEAST: Duration = Duration::from_secs(1);
const ROUND_MOST: Duration = Duration::from_secs(5);

/// What a pool allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Connections at once, idle ones included; at least 1.
    pub max_connections: u32,
    /// How many of them uploads that are still coming in may hold; `None` is half of them.
    pub uploads: Option<u32>,
    /// Requests that may wait for one.
    pub queue: u32,
    /// How long they wait.
    pub queue_timeout: Duration,
    /// How long a connection may be idle.
    pub idle: Duration,
    /// How old a connection may become; `None` is no limit.
    pub max_age: Option<Duration>,
    /// How many requests a connection may carry; `None` is no limit.
    pub max_requests: Option<u32>,
    /// How many connections are kept ready although nobody asked for them.
    pub min_idle: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            max_connections: 100,
            uploads: None,
            queue: 1000,
            queue_timeout: Duration::from_secs(5),
            idle: Duration::from_secs(90),
            max_age: None,
            max_requests: None,
            min_idle: 0,
        }
    }
}

/// A pool at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Connections that exist.
    pub open: u32,
    /// Of these, those that wait for a request.
    pub idle: u32,
    /// Requests that have a connection, or a stream of one.
    pub in_use: u32,
    /// Requests that wait for one.
    pub queued: u32,
    /// How often a connection was used once more.
    pub reused: u64,
    /// How many connections were made.
    pub created: u64,
    /// How many could not be made.
    pub failed: u64,
}

/// The connections to one address.
#[derive(Debug)]
pub struct Pool {
    /// How many requests one connection carries at once.
    streams: AtomicU32,
    /// How its connections are made; `None` of a pool of places alone.
    source: Option<Source>,
    queue: Queue,
    settings: ArcSwap<Settings>,
    idle: Waiters,
    /// Connections that carry requests side by side; `None` where HTTP/1 is spoken.
    shared: Option<Arc<http2::shelf::Shelf>>,
    counts: Arc<Counts>,
}

/// How connections are made.
#[derive(Debug)]
struct Source {
    dial: Weak<Dial>,
    to: To,
}

#[derive(Debug, Default)]
struct Counts {
    open: AtomicU32,
    reused: AtomicU64,
    created: AtomicU64,
    failed: AtomicU64,
}

/// Counts a connection for as long as it exists.
#[derive(Debug)]
pub(super) struct Opened(Arc<Counts>);

impl Drop for Opened {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Pool {
    /// A pool of places, for connections that others make and that carry one request at a time.
    #[must_use]
    pub fn new(settings: Settings) -> Arc<Self> {
        Self::build(settings, 1, None, None)
    }

    /// A pool of connections that `dial` makes, on which this is spoken.
    pub(super) fn towards(
        to: To,
        speaks: Protocol,
        dial: Weak<Dial>,
        settings: Settings,
    ) -> Arc<Self> {
        let source = Some(Source { dial, to });
        match speaks {
            Protocol::Http1 => Self::build(settings, 1, source, None),
            Protocol::Http2 => Self::build(settings, http2::STREAMS, source, Some(Arc::default())),
        }
    }

    fn build(
        settings: Settings,
        streams: u32,
        source: Option<Source>,
        shared: Option<Arc<http2::shelf::Shelf>>,
    ) -> Arc<Self> {
        Arc::new(Self {
            streams: AtomicU32::new(streams),
            source,
            queue: Queue::new(limit(&settings, streams), settings.queue),
            settings: ArcSwap::from_pointee(settings),
            idle: Waiters::new(settings),
            shared,
            counts: Arc::default(),
        })
    }

    /// What is spoken on its connections.
    pub(super) fn speaks(&self) -> Protocol {
        if self.shared.is_some() { Protocol::Http2 } else { Protocol::Http1 }
    }

    /// How many requests one connection carries at once.
    fn streams(&self) -> u32 {
        self.streams.load(Ordering::Relaxed)
    }

    /// The origin allows so many requests at once on a connection.
    pub(super) fn allow_streams(self: &Arc<Self>, most: u32) {
        let most = most.max(1);
        // Read first: a write would take the line away from all other threads.
        if self.streams() != most && self.streams.swap(most, Ordering::Relaxed) != most {
            let settings = self.settings();
            queue::adjust(self, limit(&settings, most), settings.queue);
        }
    }

    /// A place among those that are in use, as soon as there is one: first come, first served.
    ///
    /// Waits no longer than `patience` and the pool's own timeout. A request that gives up leaves the
    /// queue; a place that was about to be its goes to the next.
    ///
    /// # Errors
    /// There is none, and the queue is full, or the time is over.
    pub async fn acquire(
        self: &Arc<Self>,
        patience: Duration,
    ) -> std::result::Result<Slot, Refused> {
        if let Some(slot) = self.try_acquire() {
            return Ok(slot);
        }
        let queue_timeout = self.settings().queue_timeout;
        // Boxed, as all that is rare: what is not there takes no room in the futures of all requests.
        Box::pin(queue::wait(self, patience.min(queue_timeout))).await
    }

    /// A place, if there is one now that nobody waits for.
    pub(super) fn try_acquire(self: &Arc<Self>) -> Option<Slot> {
        queue::enter(self)
    }

    /// What it allows.
    #[must_use]
    pub fn settings(&self) -> Settings {
        **self.settings.load()
    }

    /// Allows something else from now on. What is too much goes as it comes back.
    pub fn adjust(self: &Arc<Self>, settings: Settings) {
        self.settings.store(Arc::new(settings));
        self.idle.hold_to(settings);
        queue::adjust(self, limit(&settings, self.streams()), settings.queue);
    }

    /// Keeps no connection any more: those that are idle are closed, those in use when they come back.
    pub(super) fn retire(&self) {
        let settings = Settings { min_idle: 0, idle: Duration::ZERO, ..self.settings() };
        // First, so that none is put back to a shelf that was emptied.
        self.settings.store(Arc::new(settings));
        self.idle.hold_to(settings);
        drop(self.idle.take_all());
        if let Some(shared) = &self.shared {
            shared.retire();
        }
    }

    /// How many requests it carries at once.
    #[must_use]
    pub fn places(&self) -> u32 {
        self.places_with(&self.settings())
    }

    /// The same, as these settings would have it.
    pub(super) fn places_with(&self, settings: &Settings) -> u32 {
        settings.max_connections.saturating_mul(self.streams())
    }

    /// How it stands.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let shared = self.shared.as_ref().map_or(0, |shared| shared.idle());
        let idle = self.idle.len() + shared;
        let (in_use, queued) = self.queue.numbers();
        Stats {
            open: self.open(),
            idle: u32::try_from(idle).unwrap_or(u32::MAX),
            in_use,
            queued,
            reused: self.counts.reused.load(Ordering::Relaxed),
            created: self.counts.created.load(Ordering::Relaxed),
            failed: self.counts.failed.load(Ordering::Relaxed),
        }
    }

    /// Where its connections go; `None` where they are not ours.
    pub(super) fn to(&self) -> Option<&To> {
        self.source.as_ref().map(|source| &source.to)
    }

    /// A stream on a connection that may carry others, within `patience`; on a new one, where those that are there are
    /// not wanted.
    ///
    /// # Errors
    /// There is none.
    pub(super) async fn stream(
        self: &Arc<Self>,
        patience: Duration,
        kept: Kept,
    ) -> Result<http2::stream::Stream> {
        let dial = self.source.as_ref().and_then(|source| source.dial.upgrade());
        let (Some(dial), Some(shared)) = (dial, &self.shared) else {
            return Error::e_explain(ErrorType::InternalError, "nothing makes connections here");
        };
        dial.tend();
        shared.stream(self, &dial, patience, kept).await
    }

    /// A connection: one that waits, where that is welcome, or a new one within `patience`; for this client, where
    /// the origin is told.
    ///
    /// # Errors
    /// None can be made.
    pub(super) async fn connect(
        self: &Arc<Self>,
        patience: Duration,
        kept: Kept,
        client: Option<Ends>,
    ) -> Result<OriginIo> {
        let dial = self.source.as_ref().and_then(|source| source.dial.upgrade());
        let Some(dial) = dial else {
            return Error::e_explain(ErrorType::InternalError, "nothing makes connections here");
        };
        let line = match self.waiting(&dial, kept, client) {
            Some(line) => line,
            None => self.fresh(&dial, patience, client).await?,
        };
        Ok(OriginIo::again(line, Arc::clone(self), dial.limits, dial.read()))
    }

    /// A connection that waits, where that is welcome; for this client, where the origin is told.
    pub(super) fn waiting(
        &self,
        dial: &Arc<Dial>,
        kept: Kept,
        client: Option<Ends>,
    ) -> Option<Box<Line>> {
        dial.tend();
        match kept {
            Kept::Welcome => self.take(clock::now(), client),
            Kept::Unwanted => None,
        }
    }

    /// A new connection.
    ///
    /// # Errors
    /// None can be made.
    pub(super) async fn fresh(
        &self,
        dial: &Dial,
        patience: Duration,
        client: Option<Ends>,
    ) -> Result<Box<Line>> {
        self.make_room();
        Ok(Box::new(Box::pin(self.make(dial, patience, client)).await?))
    }

    /// Makes a connection that nobody asked for.
    pub(super) async fn warm(self: &Arc<Self>, dial: &Arc<Dial>) {
        let Some(to) = self.to() else { return };
        // What fails is counted; the next round tries again.
        if let Some(shared) = &self.shared {
            let _ = shared.add(self, dial, to.patience).await;
        } else if let Ok(line) = self.make(dial, to.patience, None).await {
            self.park(Box::new(line), None, Instant::now());
        }
    }

    /// A new connection, counted.
    async fn make(&self, dial: &Dial, patience: Duration, client: Option<Ends>) -> Result<Line> {
        let Some(to) = self.to() else {
            return Error::e_explain(ErrorType::InternalError, "nothing makes connections here");
        };
        match dial.open(to, patience, client).await {
            Ok(mut line) => {
                self.count(&mut line);
                Ok(line)
            }
            Err(e) => {
                self.count_failure();
                Err(e)
            }
        }
    }

    /// Closes the oldest idle connection where there are as many as may be: all of them may be other clients', or not
    /// wanted.
    fn make_room(&self) {
        if self.open() >= self.settings().max_connections {
            drop(self.idle.take_oldest());
        }
    }

    /// An idle connection that speaks for this client, and on which nothing has happened. Those on which something
    /// has are closed.
    pub(super) fn take(&self, now: Instant, client: Option<Ends>) -> Option<Box<Line>> {
        loop {
            let waiting = self.idle.take(client)?;
            if let Some(line) = waiting.still_good(now) {
                self.count_reuse();
                return Some(line);
            }
        }
    }

    /// Takes a connection back whose origin waits for the next request, as far as it said for
    /// `patience`.
    pub(super) fn park(&self, line: Box<Line>, patience: Option<Duration>, now: Instant) {
        let too_many = self.idle.put(line, patience, now);
        // Closing takes the kernel its time.
        drop(too_many);
    }

    /// Counts `line` as one of this pool's, for as long as it exists.
    pub(super) fn count(&self, line: &mut Line) {
        self.count_made();
        self.count_opened(line);
    }

    /// Counts `line` as open for as long as it exists.
    pub(super) fn count_opened(&self, line: &mut Line) {
        line.opened = Some(self.opened());
    }

    /// One more is open, as long as this lives.
    pub(super) fn opened(&self) -> Opened {
        self.counts.open.fetch_add(1, Ordering::Relaxed);
        Opened(Arc::clone(&self.counts))
    }

    /// How many connections are open.
    pub(super) fn open(&self) -> u32 {
        self.counts.open.load(Ordering::Relaxed)
    }

    /// A connection was made.
    pub(super) fn count_made(&self) {
        self.counts.created.fetch_add(1, Ordering::Relaxed);
    }

    /// A connection could not be made.
    pub(super) fn count_failure(&self) {
        self.counts.failed.fetch_add(1, Ordering::Relaxed);
    }

    /// A connection is used once more.
    pub(super) fn count_reuse(&self) {
        self.counts.reused.fetch_add(1, Ordering::Relaxed);
    }

    /// Moves the idle connections of `other` here.
    pub(super) fn absorb(self: &Arc<Self>, other: &Self) {
        let mut theirs = other.idle.take_all();
        for waiting in theirs.iter_mut().flatten() {
            if waiting.line.opened.is_some() {
                waiting.line.opened = Some(self.opened());
            }
        }
        self.idle.add_all(theirs);
        if let (Some(ours), Some(theirs)) = (&self.shared, &other.shared) {
            ours.absorb(theirs, self);
        }
    }

    /// Closes idle connections that are too old, or that their origins closed. Answers how many are
    /// missing to those that are to be kept ready; where HTTP/2 is spoken, each that has room is.
    pub(super) fn tidy(&self, now: Instant) -> u32 {
        self.idle.tidy(now);
        let settings = self.settings();
        let shared = self.shared.as_ref();
        let shared = shared.map_or(0, |shared| shared.tidy(settings.idle, settings.max_age));
        let idle = u32::try_from(self.idle.len() + shared).unwrap_or(u32::MAX);
        let room = settings.max_connections.saturating_sub(self.open());
        settings.min_idle.saturating_sub(idle).min(room)
    }

    /// A place for a connection that nobody asked for, if nobody needs it.
    pub(super) fn spare(self: &Arc<Self>) -> Option<Slot> {
        queue::enter(self)
    }

    /// Whether there is nothing in it that somebody could miss.
    pub(super) fn is_bare(&self) -> bool {
        let stats = self.stats();
        stats.open == 0 && stats.in_use == 0 && stats.queued == 0
    }
}

impl Settings {
    /// The time between two looks at what is idle.
    pub(super) fn round(&self) -> Duration {
        if self.min_idle > 0 {
            return ROUND_LEAST;
        }
        let life = self.max_age.map_or(self.idle, |age| age.min(self.idle));
        (life / 4).clamp(ROUND_LEAST, ROUND_MOST)
    }

    /// When a connection that is idle from `now` on is to be closed.
    fn until(&self, born: Instant, patience: Option<Duration>, now: Instant) -> Option<Instant> {
        // Not at the last moment of what the origin promised: a request needs its time to get there.
        let promised = patience
            .map(|patience| patience.saturating_sub(Duration::from_secs(1).min(patience / 2)));
        let idle = promised.map_or(self.idle, |promised| promised.min(self.idle));
        let idle = now.checked_add(idle);
        let aged = self.max_age.and_then(|age| born.checked_add(age));
        match (idle, aged) {
            (Some(idle), Some(aged)) => Some(idle.min(aged)),
            (idle, aged) => idle.or(aged),
        }
    }
}

fn limit(settings: &Settings, streams: u32) -> u32 {
    settings.max_connections.max(1).saturating_mul(streams.max(1))
}

/// Whether Pingora was given a connection that had carried requests before. To Pingora all are new; what
/// was not established for this request took no time to establish.
#[must_use]
pub fn was_reused(digest: Option<&Digest>) -> bool {
    let last = digest.and_then(|digest| digest.timing_digest.last()?.as_ref());
    last.is_some_and(|timing| timing.establishment_duration.is_none())
}
