//! The connections of HTTP/2 to one address, and which of them carries the next request.
//!
//! One on which this thread has streams already does, so that threads do not wait for each other's locks, nor all for
//! the one that moves a connection's frames. Else the least busy one, and of several the newest: those that are too
//! many become idle, grow old and are closed. Where none has room one more is made, and by and by one for each thread
//! that would share a busy one, by a task that belongs to nobody: who asked for it may go, and others wait for it as well.

use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::future::Either;
use futures_util::future::select;
use parking_lot::Mutex;
use parking_lot::MutexGuard;
use pingora::Error;
use pingora::ErrorType;
use pingora::Result;
use tokio::sync::Notify;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio::time::timeout_at;

use super::carrier::Carrier;
use super::carrier::Place;
use super::carrier::Refused;
use super::carrier::Stands;
use super::stream::Stream;
use super::turns::Turns;
use crate::refusal::Refusal;
use crate::upstream::connect::Dial;
use crate::upstream::connect::Kept;
use crate::upstream::fault::error_of;
use crate::upstream::fault::refusal_of;
use crate::upstream::fault::told_as;
use crate::upstream::pool::Pool;
use crate::upstream::pool::Settings;
use crate::upstream::worker;

/// From so many streams on a thread wants a connection of its own, rather than share another one's.
const BUSY: u32 = 8;

/// The least time between two connections that are made for this, and from one that could not be made to the next one
/// that is made beside others.
const GROWTH: Duration = Duration::from_secs(1);

/// Connections that carry requests side by side.
#[derive(Default)]
pub(in crate::upstream) struct Shelf {
    /// Those that may be given streams, the newest at the end. Replaced as a whole, while the state is held.
    carriers: ArcSwap<Vec<Arc<Carrier>>>,
    state: Mutex<State>,
    /// Told when there may be room.
    freed: Notify,
    /// How many want to be told.
    waiting: AtomicU32,
    /// How many are in the line: newcomers stand behind them. Written while the state is held.
    in_line: AtomicUsize,
}

#[derive(Default)]
struct State {
    /// Who waits for a stream.
    turns: Turns,
    /// What becomes of the one that is being made.
    dialling: Option<watch::Receiver<Dialled>>,
    /// When one was made last although there was room on others.
    grown: Option<Instant>,
    /// When one could not be made last.
    failed: Option<Instant>,
}

impl fmt::Debug for Shelf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shelf").field("carriers", &self.carriers.load().len()).finish()
    }
}

/// What became of a connection that was to be made.
#[derive(Debug, Clone)]
enum Dialled {
    /// It is being made.
    Not,
    /// It is there.
    Made,
    /// It could not be made, for everybody who waited for it.
    Failed(Arc<Failure>),
}

#[derive(Debug)]
struct Failure {
    refusal: Refusal,
    kind: ErrorType,
    what: String,
}

/// What there is for a request.
enum Offer {
    Place(Place),
    /// One is being made.
    Soon(watch::Receiver<Dialled>),
    /// As many as may be are there, and all are full. With it when it is looked again, if nobody tells before.
    Full(Instant),
}

impl Shelf {
    /// A stream on a connection of `pool`, within `patience`; on a new one, if those that are there are not
    /// wanted.
    ///
    /// # Errors
    /// There is none in time.
    pub(in crate::upstream) async fn stream(
        self: &Arc<Self>,
        pool: &Arc<Pool>,
        dial: &Arc<Dial>,
        patience: Duration,
        kept: Kept,
    ) -> Result<Stream> {
        let deadline = Instant::now() + patience;
        let mut kept = kept;
        // Mostly there is one, and nobody waits.
        if self.in_line.load(Ordering::Acquire) == 0
            && let Some(place) = self.place(pool, dial, kept)
        {
            return Ok(begun(place, pool));
        }
        let mut turn = Turn { shelf: self, number: None };
        loop {
            // Said before it is looked once more: what becomes free from here on is told.
            let _waiting = Waiting::begin(&self.waiting);
            let mut freed = pin!(self.freed.notified());
            freed.as_mut().enable();
            let waited = match self.offer(pool, dial, patience, kept, &mut turn) {
                Offer::Place(place) => return Ok(begun(place, pool)),
                Offer::Soon(mut dialled) => {
                    let made = pin!(made(&mut dialled));
                    match timeout_at(deadline, select(made, freed)).await {
                        Ok(Either::Left((Dialled::Failed(failure), _))) => {
                            // An origin may take no more connections than it has: then those serve, as they would
                            // if none had been tried.
                            if !self.has_any() {
                                return Err(failure.error());
                            }
                            kept = Kept::Welcome;
                            Ok(())
                        }
                        Ok(Either::Left((Dialled::Made, _))) => {
                            // From here on there is one that was not there before.
                            kept = Kept::Welcome;
                            Ok(())
                        }
                        Ok(Either::Left((Dialled::Not, _)) | Either::Right(_)) => Ok(()),
                        Err(_) => Err(ErrorType::ConnectTimedout),
                    }
                }
                Offer::Full(again) => {
                    let until = again.min(deadline);
                    match timeout_at(until, freed).await {
                        Err(_) if until == deadline => {
                            // There was a place by the settings of the pool, but not by those of the origin.
                            return Err(error_of(Refusal::QueueTimeout));
                        }
                        Ok(()) | Err(_) => Ok(()),
                    }
                }
            };
            if let Err(kind) = waited {
                return Err(Error::explain(kind, "connecting").into_up());
            }
        }
    }

    /// A place on one of those that are there, if nothing is in the way of it.
    fn place(self: &Arc<Self>, pool: &Arc<Pool>, dial: &Arc<Dial>, kept: Kept) -> Option<Place> {
        if kept == Kept::Unwanted {
            return None;
        }
        let (thread, settings) = (worker::own(), pool.settings());
        let carriers = self.carriers.load();
        let own = carriers.iter().rev().filter(|carrier| carrier.is_of(thread));
        let mut has_own = false;
        for carrier in own {
            match enter(carrier, thread, pool, &settings) {
                Ok(place) => return Some(place),
                Err(Refused::Full) => has_own = true,
                // It is closed first.
                Err(Refused::Gone) => return None,
            }
        }
        let carrier = carriers.iter().rev().min_by_key(|carrier| carrier.streams())?;
        if !has_own && carrier.streams() >= BUSY {
            self.grow(pool, dial, &settings);
        }
        enter(carrier, thread, pool, &settings).ok()
    }

    /// The same, where what is gone is closed first, or one that is being made.
    fn offer(
        self: &Arc<Self>,
        pool: &Arc<Pool>,
        dial: &Arc<Dial>,
        patience: Duration,
        kept: Kept,
        turn: &mut Turn<'_>,
    ) -> Offer {
        let (thread, settings) = (worker::own(), pool.settings());
        // Closing takes the kernel its time: dropped after the state is, however this ends.
        let _gone;
        let mut state = self.state.lock();
        _gone = self.sort_out(&state, |carrier| !carrier.has_gone());
        let mut carriers = self.carriers.load_full();
        let are_all = are_all(&carriers, pool, &settings);
        if (kept == Kept::Welcome || are_all) && turn.stand(&mut state) < room(&carriers) {
            // The least busy ones first, and of these the newest.
            let all = Arc::make_mut(&mut carriers);
            all.reverse();
            all.sort_by_cached_key(|carrier| carrier.streams());
            let place = |carrier| enter(carrier, thread, pool, &settings).ok();
            if let Some(place) = all.iter().find_map(place) {
                turn.leave(&mut state);
                return Offer::Place(place);
            }
        }
        if let Some(dialled) = &state.dialling {
            return Offer::Soon(dialled.clone());
        }
        let now = Instant::now();
        if are_all {
            // Nobody tells that the origin of one that is full has left it.
            return Offer::Full(now + GROWTH);
        }
        if kept == Kept::Welcome
            && !carriers.is_empty()
            && let Some(again) = state.failed.map(|failed| failed + GROWTH)
            && now < again
        {
            return Offer::Full(again);
        }
        self.begin(&mut state, pool, dial, patience)
    }

    /// Makes one more although there is room, if there may be more, and none was made for this just now.
    #[cold]
    fn grow(self: &Arc<Self>, pool: &Arc<Pool>, dial: &Arc<Dial>, settings: &Settings) {
        // Who holds it makes one, or looks whether there is room.
        let Some(mut state) = self.state.try_lock() else { return };
        let now = Instant::now();
        let just_now = |then| now.saturating_duration_since(then) < GROWTH;
        if state.dialling.is_some()
            || state.grown.is_some_and(just_now)
            || state.failed.is_some_and(just_now)
            || are_all(&self.carriers.load(), pool, settings)
        {
            return;
        }
        state.grown = Some(now);
        // For nobody in particular: with the patience that such connections have.
        self.begin(&mut state, pool, dial, Duration::ZERO);
    }

    /// Has a connection made.
    fn begin(
        self: &Arc<Self>,
        state: &mut State,
        pool: &Arc<Pool>,
        dial: &Arc<Dial>,
        patience: Duration,
    ) -> Offer {
        let (tell, told) = watch::channel(Dialled::Not);
        state.dialling = Some(told.clone());
        let (shelf, pool, dial) = (Arc::clone(self), Arc::clone(pool), Arc::clone(dial));
        tokio::spawn(async move { shelf.dial(&pool, &dial, patience, &tell).await });
        Offer::Soon(told)
    }

    /// Keeps those that are to stay. Answers the others.
    fn sort_out(
        &self,
        _held: &MutexGuard<'_, State>,
        stays: impl Fn(&Carrier) -> bool,
    ) -> Vec<Arc<Carrier>> {
        let all = self.carriers.load();
        let (stay, gone): (Vec<_>, Vec<_>) =
            all.iter().cloned().partition(|carrier| stays(carrier));
        if !gone.is_empty() {
            self.carriers.store(Arc::new(stay));
        }
        gone
    }

    /// Makes a connection, and tells those who wait for it.
    async fn dial(
        self: &Arc<Self>,
        pool: &Arc<Pool>,
        dial: &Arc<Dial>,
        patience: Duration,
        tell: &watch::Sender<Dialled>,
    ) {
        // Should it panic, nobody waits for ever.
        let mut over = Over { shelf: self, is_said: false };
        let dialled = match self.add(pool, dial, patience).await {
            Ok(()) => Dialled::Made,
            Err(e) => {
                let what = e.cause.as_ref().map_or_else(|| e.to_string(), ToString::to_string);
                let (refusal, kind) = (refusal_of(&e), e.etype().clone());
                Dialled::Failed(Arc::new(Failure { refusal, kind, what }))
            }
        };
        {
            let mut state = self.state.lock();
            state.dialling = None;
            state.failed = matches!(dialled, Dialled::Failed(_)).then(Instant::now);
        }
        // From here on the next one may be made already.
        over.is_said = true;
        let _ = tell.send(dialled);
    }

    /// Makes a connection.
    pub(in crate::upstream) async fn add(
        self: &Arc<Self>,
        pool: &Arc<Pool>,
        dial: &Arc<Dial>,
        patience: Duration,
    ) -> Result<()> {
        let made = async {
            let Some(to) = pool.to() else {
                return Error::e_explain(
                    ErrorType::InternalError,
                    "nothing makes connections here",
                );
            };
            // It is not only for the one who asked first.
            let patience = patience.max(to.patience);
            let deadline = Instant::now() + patience;
            let mut line = dial.open(to, patience, None).await?;
            pool.count_opened(&mut line);
            Carrier::begin(line, dial.limits, deadline, self.stands(pool)).await
        };
        match made.await {
            Ok(carrier) => {
                pool.allow_streams(carrier.most());
                let held = self.state.lock();
                let mut carriers = self.carriers.load_full();
                Arc::make_mut(&mut carriers).push(carrier);
                self.carriers.store(carriers);
                drop(held);
                // Last: who sees it counted finds it.
                pool.count_made();
                Ok(())
            }
            Err(e) => {
                pool.count_failure();
                Err(e)
            }
        }
    }

    /// Where its connections stand, which are those of `pool`.
    fn stands(self: &Arc<Self>, pool: &Arc<Pool>) -> Stands {
        Stands { shelf: Arc::downgrade(self), pool: Arc::downgrade(pool) }
    }

    /// A place became free.
    pub(super) fn freed(&self) {
        // Telling takes a lock, whether anybody listens or not.
        if self.waiting.load(Ordering::Acquire) > 0 {
            self.freed.notify_waiters();
        }
    }

    /// Whether there is a connection on which streams can be begun, now or when others end.
    fn has_any(&self) -> bool {
        self.carriers.load().iter().any(|carrier| !carrier.has_gone())
    }

    /// How many of its connections have no streams.
    pub(in crate::upstream) fn idle(&self) -> usize {
        self.carriers.load().iter().filter(|carrier| carrier.is_idle()).count()
    }

    /// Gives no new streams to connections that are too old, were idle for too long, or whose origins left. Answers
    /// how many are left.
    pub(in crate::upstream) fn tidy(&self, idle: Duration, age: Option<Duration>) -> usize {
        let now = Instant::now();
        let held = self.state.lock();
        let gone = self.sort_out(&held, |carrier| carrier.is_good(idle, age, now));
        let left = self.carriers.load().len();
        drop(held);
        leave(&gone);
        left
    }

    /// Gives no new streams to any of them. Each is closed when its last stream ends.
    pub(in crate::upstream) fn retire(&self) {
        let held = self.state.lock();
        let gone = self.sort_out(&held, |_| false);
        drop(held);
        leave(&gone);
    }

    /// Moves the connections of `other` here, to the pool that `pool` is.
    pub(in crate::upstream) fn absorb(self: &Arc<Self>, other: &Self, pool: &Arc<Pool>) {
        let held = other.state.lock();
        let mut carriers = other.sort_out(&held, |_| false);
        drop(held);
        for carrier in &carriers {
            carrier.belong(self.stands(pool), || pool.opened());
        }
        let held = self.state.lock();
        carriers.extend(self.carriers.load().iter().cloned());
        self.carriers.store(Arc::new(carriers));
        drop(held);
    }
}

/// How many streams can be begun on them now.
fn room(carriers: &[Arc<Carrier>]) -> usize {
    let room = carriers.iter().map(|carrier| carrier.room());
    usize::try_from(room.fold(0, u32::saturating_add)).unwrap_or(usize::MAX)
}

/// Whether there may be no more than these and those that are to be closed when their last streams have ended: they
/// are the origin's burden, too. Where only such are left, one more may always be made: a stream may last for hours.
fn are_all(carriers: &[Arc<Carrier>], pool: &Pool, settings: &Settings) -> bool {
    !carriers.is_empty() && pool.open() >= settings.max_connections
}

/// A place on this one for `thread`, if there is one.
fn enter(
    carrier: &Arc<Carrier>,
    thread: usize,
    pool: &Arc<Pool>,
    settings: &Settings,
) -> std::result::Result<Place, Refused> {
    pool.allow_streams(carrier.most());
    carrier.enter(thread, settings.max_requests)
}

/// Gives none of them new streams, also for those who found it before it was taken away.
fn leave(carriers: &[Arc<Carrier>]) {
    for carrier in carriers {
        carrier.leave();
    }
}

fn begun(place: Place, pool: &Pool) -> Stream {
    if place.used {
        pool.count_reuse();
    }
    Stream::new(place)
}

/// One request's turn among those that wait for a stream, which is over when this is dropped.
struct Turn<'a> {
    shelf: &'a Shelf,
    /// `None`: it is not in the line.
    number: Option<u64>,
}

impl Turn<'_> {
    /// It waits from now on, if it does not yet. Answers how many go before it.
    fn stand(&mut self, state: &mut State) -> usize {
        let number = *self.number.get_or_insert_with(|| state.turns.join());
        self.shelf.in_line.store(state.turns.len(), Ordering::Release);
        state.turns.ahead_of(number)
    }

    /// It waits no more.
    fn leave(&mut self, state: &mut State) {
        if let Some(number) = self.number.take() {
            state.turns.leave(number);
            self.shelf.in_line.store(state.turns.len(), Ordering::Release);
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if self.number.is_none() {
            return;
        }
        self.leave(&mut self.shelf.state.lock());
        // It may have been the next one's turn.
        self.shelf.freed();
    }
}

/// Somebody wants to be told when a place becomes free.
struct Waiting<'a>(&'a AtomicU32);

impl<'a> Waiting<'a> {
    fn begin(count: &'a AtomicU32) -> Self {
        count.fetch_add(1, Ordering::AcqRel);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Waits for what becomes of it.
async fn made(dialled: &mut watch::Receiver<Dialled>) -> Dialled {
    match dialled.wait_for(|dialled| !matches!(dialled, Dialled::Not)).await {
        Ok(dialled) => dialled.clone(),
        Err(_) => Dialled::Not,
    }
}

impl Failure {
    fn error(&self) -> Box<Error> {
        told_as(self.refusal, self.kind.clone(), self.what.clone())
    }
}

/// Nothing is being made any more, however that came.
struct Over<'a> {
    shelf: &'a Shelf,
    /// That is known already.
    is_said: bool,
}

impl Drop for Over<'_> {
    fn drop(&mut self) {
        if !self.is_said {
            self.shelf.state.lock().dialling = None;
        }
        self.shelf.freed.notify_waiters();
    }
}
