//! A backend that a request is lent, and what becomes of it there.
//!
//! Who holds a [`Lease`] counts as a request in flight. It says once how the attempt went; a lease that
//! is dropped without a word (the client went away) is held against nobody.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use log::info;
use log::warn;
use pingora::Result;
use pingora::upstreams::peer::HttpPeer;

use crate::message::ends::Ends;
use crate::resilience::breaker::Breaker;
use crate::resilience::breaker::Kind;
use crate::resilience::breaker::Pass;
use crate::resilience::breaker::Transition;
use crate::resilience::breaker::Verdict;
use crate::resilience::ejection::Outcome;
use crate::resilience::limit::Ended;
use crate::upstream::Fault;
use crate::upstream::Protocol;
use crate::upstream::backend::Backend;
use crate::upstream::connect::Kept;
use crate::upstream::eject;
use crate::upstream::exchange::Exchange;
use crate::upstream::exchange::http1;
use crate::upstream::guard::OriginIo;
use crate::upstream::http2::stream::Stream;
use crate::upstream::mishap::Why;
use crate::upstream::peer::Upstream;
use crate::upstream::pool;
use crate::upstream::pool::Pool;
use crate::upstream::pool::Slot;

/// The longest time for which a backend is left alone because it says so.
const MOST_ALONE: Duration = Duration::from_secs(60);

/// A backend that a request is lent.
#[derive(Debug)]
pub struct Lease {
    backend: Arc<Backend>,
    pass: Option<Pass>,
    slot: Option<Slot>,
    upload: Option<Slot>,
    /// For whom its connections speak, where the backend is told.
    client: Option<Ends>,
    /// What of the request's body is still to come.
    body: Body,
    /// Its answer is counted among the failures of the backend.
    blamed: bool,
    /// Behind the others: what they report is reported by then.
    turn: Turn,
}

/// The body of a request that wants a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    /// It is here as a whole, or there is none.
    Here,
    /// The client is still to send of it.
    Coming,
    /// It is one side of a conversation, which ends when both have said all.
    Conversation,
}

/// A place among the requests that the upstream works at at once: those that were sent to it, or wait for one of its
/// connections, and have no answer. A client that takes its time for a body, either way, is in nobody's way.
#[derive(Debug)]
pub(super) struct Turn {
    upstream: Arc<Upstream>,
    place: Place,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Taken at this time.
    Taken(Duration),
    /// Left until the client has sent the rest of its body, after so much time.
    Lent(Duration),
    /// There is none, or none any more.
    None,
}

impl Turn {
    /// A place; `None` when there is none. Who was let in before has one: it was counted out in between only.
    pub(super) fn take(upstream: &Arc<Upstream>, is_let_in: bool) -> Option<Self> {
        let place = match upstream.limit() {
            Some(limit) if is_let_in => {
                limit.enter_again(upstream.now());
                Place::Taken(upstream.now())
            }
            Some(limit) if limit.try_enter(|| upstream.now()) => Place::Taken(upstream.now()),
            Some(_) => return None,
            None => Place::None,
        };
        Some(Self { upstream: Arc::clone(upstream), place })
    }

    /// The client still has to send of the request's body, or waits for others that do.
    fn lend(&mut self) {
        if let (Place::Taken(since), Some(limit)) = (self.place, self.upstream.limit()) {
            let now = self.upstream.now();
            limit.leave_for_now(now);
            self.place = Place::Lent(now.saturating_sub(since));
        }
    }

    /// It no longer does.
    fn take_back(&mut self) {
        if let (Place::Lent(waited), Some(limit)) = (self.place, self.upstream.limit()) {
            let now = self.upstream.now();
            limit.enter_again(now);
            // As if it had been taken so much later.
            self.place = Place::Taken(now.saturating_sub(waited));
        }
    }

    /// Ends here, `now`, after some time.
    fn leave(&mut self, now: Duration, ended: impl FnOnce(Duration) -> Ended) {
        let place = std::mem::replace(&mut self.place, Place::None);
        let Some(limit) = self.upstream.limit() else { return };
        match place {
            Place::Taken(since) => limit.leave(ended(now.saturating_sub(since)), now),
            // What it took was the client's time; that the upstream has too much it says at any time.
            Place::Lent(waited) => {
                if let Ended::Dropped = ended(waited) {
                    limit.dropped_meanwhile(now);
                }
            }
            Place::None => {}
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Place::Taken(_) = self.place {
            self.leave(self.upstream.now(), Ended::Gone);
        }
    }
}

impl Lease {
    /// Takes `backend` for one attempt, which its breaker lets in.
    pub(super) fn new(turn: Turn, backend: &Arc<Backend>, pass: Option<Pass>) -> Self {
        backend.begin();
        let backend = Arc::clone(backend);
        Self {
            backend,
            pass,
            slot: None,
            upload: None,
            client: None,
            body: Body::Here,
            blamed: false,
            turn,
        }
    }

    /// Whose it is.
    #[must_use]
    pub fn upstream(&self) -> &Arc<Upstream> {
        &self.turn.upstream
    }

    /// Which one it is.
    #[must_use]
    pub fn backend(&self) -> &Arc<Backend> {
        &self.backend
    }

    /// Has its connections speak for the client at these ends of a connection, where the backend is told.
    pub fn speak_for(&mut self, client: Option<Ends>) {
        self.client = client.filter(|_| self.turn.upstream.settings().proxy_protocol.is_some());
    }

    /// For whom its connections speak.
    #[must_use]
    pub fn client(&self) -> Option<Ends> {
        self.client
    }

    /// Waits for one of the connections that the backend may have, for no longer than `patience`. Of
    /// these an upload that is still coming in may have a part only: it holds one for as long as the
    /// client likes.
    ///
    /// # Errors
    /// When as many wait as may, or it takes too long.
    pub async fn connection(
        &mut self,
        body: Body,
        patience: Duration,
    ) -> std::result::Result<(), pool::Refused> {
        self.body = body;
        if body == Body::Coming && self.upload.is_none() {
            // Others who send slowly are in the way, and not the upstream.
            self.turn.lend();
            self.upload = Some(self.backend.uploads.acquire(patience).await?);
            self.turn.take_back();
        }
        if self.slot.is_none() {
            self.slot = Some(self.backend.pool.acquire(patience).await?);
        }
        Ok(())
    }

    /// Takes one of these connections, if that is possible at once: whether it was.
    pub fn try_connection(&mut self, body: Body) -> bool {
        self.body = body;
        if body == Body::Coming {
            self.upload = self.backend.uploads.try_acquire();
            if self.upload.is_none() {
                return false;
            }
        }
        self.slot = self.backend.pool.try_acquire();
        self.slot.is_some()
    }

    /// There is a connection: the client's time for what is still to come of the request's body begins.
    pub fn connected(&mut self) {
        if self.body != Body::Here {
            self.turn.lend();
        }
    }

    /// Whether that is what is waited for.
    #[must_use]
    pub fn waits_for_body(&self) -> bool {
        matches!(self.turn.place, Place::Lent(_))
    }

    /// All of the request's body has been passed on.
    pub fn body_is_sent(&mut self) {
        self.turn.take_back();
    }

    /// Where its connections are kept.
    #[must_use]
    pub fn pool(&self) -> Arc<Pool> {
        Arc::clone(&self.backend.pool)
    }

    /// What Pingora has to know to talk to it.
    #[must_use]
    pub fn peer(&self) -> Box<HttpPeer> {
        self.backend.peer()
    }

    /// A connection to it for one exchange past Pingora, within `patience`, or a stream of one.
    ///
    /// # Errors
    /// There is none.
    pub async fn exchange(&self, patience: Duration, kept: Kept) -> Result<Exchange> {
        Ok(match self.turn.upstream.settings().protocol {
            Protocol::Http1 => Exchange::Http1(self.http1(patience, kept).await?),
            Protocol::Http2 => Exchange::Http2(Box::new(self.stream(patience, kept).await?)),
        })
    }

    /// A connection to an HTTP/1 backend that waits for a request, where that is welcome.
    pub fn try_exchange(&self, kept: Kept) -> Option<Exchange> {
        if self.turn.upstream.settings().protocol != Protocol::Http1 {
            return None;
        }
        let dial = self.backend.dial()?;
        let exchange = http1::Exchange::kept(&self.backend.pool, dial, kept, self.client)?;
        Some(Exchange::Http1(exchange))
    }

    /// A connection to it for one exchange past Pingora, within `patience`; an HTTP/1 backend's only.
    ///
    /// # Errors
    /// None can be made.
    pub async fn http1(&self, patience: Duration, kept: Kept) -> Result<Box<http1::Exchange>> {
        let (pool, dial) = (&self.backend.pool, self.backend.dial());
        http1::Exchange::begin(pool, dial, patience, kept, self.client).await
    }

    /// A stream to it for one exchange past Pingora, within `patience`; an HTTP/2 backend's only.
    ///
    /// # Errors
    /// There is none.
    pub async fn stream(&self, patience: Duration, kept: Kept) -> Result<Stream> {
        self.backend.pool.stream(patience, kept).await
    }

    /// A connection to it, as Pingora would be given one; an HTTP/1 backend's only.
    pub(super) async fn connect(&self, patience: Duration) -> Result<OriginIo> {
        self.backend.pool.connect(patience, Kept::Welcome, self.client).await
    }

    /// It answered with this status, after this time.
    pub fn answered(&mut self, status: u16, took: Duration) {
        let now = self.turn.upstream.now();
        self.backend.answered(took, now);
        self.turn.leave(now, |waited| ended(status, waited));
        let settings = self.turn.upstream.settings();
        let company = || self.turn.upstream.has_company(&self.backend);
        let failed = settings.breaker.as_ref().is_some_and(|one| one.is_bad(status, company));
        let counts = &settings.ejection;
        let strange = counts.as_ref().is_some_and(|ejection| ejection.statuses.contains(&status));
        self.blamed = failed || strange;
        if self.blamed {
            self.backend.failed();
            self.backend.erred(Why::Status(status), now);
        }
        let outcome = if strange { Outcome::Error } else { Outcome::Success };
        eject::note(&self.turn.upstream, &self.backend, outcome, now);
        self.conclude(if failed { Verdict::Failure } else { Verdict::Success }, Some(now));
    }

    /// That answer is not passed on: another one is asked for.
    pub fn unwanted(&mut self, status: u16) {
        if !std::mem::replace(&mut self.blamed, true) {
            self.backend.failed();
            self.backend.erred(Why::Status(status), self.turn.upstream.now());
        }
    }

    /// It asked to be left alone for so long: its siblings go before it meanwhile.
    pub fn leave_alone(&self, time: Duration) {
        self.backend.rest_for(time.min(MOST_ALONE), self.turn.upstream.now());
    }

    /// It gave no answer, or none that is one, and this is why.
    #[cold]
    pub fn failed(&mut self, fault: Fault, why: Why<'_>) {
        let now = self.turn.upstream.now();
        self.backend.failed();
        // First: what follows from it is told with the reason.
        self.backend.erred(why, now);
        eject::note(&self.turn.upstream, &self.backend, Outcome::Error, now);
        if fault == Fault::Connect {
            self.backend.rest(now);
        }
        self.turn.leave(now, |waited| match fault {
            Fault::Timeout => Ended::Dropped,
            Fault::Connect | Fault::Closed | Fault::Malformed => Ended::Gone(waited),
        });
        let counts = counts(&self.turn.upstream, &self.backend, fault);
        let verdict = match fault {
            _ if !counts => Verdict::Neutral,
            Fault::Connect | Fault::Closed => Verdict::Cut,
            Fault::Timeout | Fault::Malformed => Verdict::Failure,
        };
        self.conclude(verdict, Some(now));
    }

    /// Says how it went, the first time; at this moment, or `None`, where the time was not asked for.
    fn conclude(&mut self, verdict: Verdict, now: Option<Duration>) {
        if let (Some(breaker), Some(pass)) = (self.backend.breaker(), self.pass.take()) {
            // Such a pass is forgotten: the time does not matter, and is not asked for.
            if verdict == Verdict::Neutral && pass.kind() == Kind::Normal {
                return;
            }
            let now = now.unwrap_or_else(|| self.turn.upstream.now());
            if let Some(transition) = breaker.leave(pass, verdict, now) {
                tell(&self.turn.upstream, &self.backend, transition);
            }
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.conclude(Verdict::Neutral, None);
        self.backend.end();
    }
}

/// What an answer with this status after this time says about how much the upstream can take.
pub(super) fn ended(status: u16, waited: Duration) -> Ended {
    match status {
        503 => Ended::Dropped,
        429 | 500.. => Ended::Failed,
        _ => Ended::Answered(waited),
    }
}

/// Whether the breaker of `backend` takes this for a failure.
fn counts(upstream: &Upstream, backend: &Arc<Backend>, fault: Fault) -> bool {
    let company = || upstream.has_company(backend);
    upstream.settings().breaker.as_ref().is_some_and(|one| one.is_failure(fault, company))
}

/// The name of `backend` could not be resolved: a failure like that of a connection.
pub(super) fn unresolved(
    upstream: &Upstream,
    backend: &Arc<Backend>,
    e: &io::Error,
    now: Duration,
) {
    backend.erred(Why::Unresolved(e), now);
    if counts(upstream, backend, Fault::Connect)
        && let Some(breaker) = backend.breaker()
        && let Some(pass) = enter(upstream, backend, breaker, now)
        && let Some(transition) = breaker.leave(pass, Verdict::Failure, now)
    {
        tell(upstream, backend, transition);
    }
}

/// An operator closes the breaker of `backend`, if it has one.
pub(super) fn reset(upstream: &Upstream, backend: &Backend) {
    if let Some(transition) = backend.breaker().and_then(|breaker| breaker.reset()) {
        tell(upstream, backend, transition);
    }
}

/// There are no breakers any more: that of `backend`, if it has one, closes for good, also for requests from before.
pub(super) fn switched_off(upstream: &Upstream, backend: &Backend) {
    if let Some(transition) = backend.breaker().and_then(|breaker| breaker.switch_off()) {
        tell(upstream, backend, transition);
    }
}

/// Asks the breaker of `backend`, if it has one, for a pass; `None` when it lets nobody in.
pub(super) fn admit(upstream: &Upstream, backend: &Backend, now: Duration) -> Option<Option<Pass>> {
    match backend.breaker() {
        Some(breaker) => enter(upstream, backend, breaker, now).map(Some),
        None => Some(None),
    }
}

/// Asks the breaker for a pass; the first one after its rest opens it by half.
fn enter(upstream: &Upstream, backend: &Backend, breaker: &Breaker, now: Duration) -> Option<Pass> {
    let pass = breaker.enter(now)?;
    if let Some(transition) = pass.transition() {
        tell(upstream, backend, transition);
    }
    Some(pass)
}

/// Tells the operator that a breaker has changed.
#[cold]
fn tell(upstream: &Upstream, backend: &Backend, transition: Transition) {
    let (upstream, label) = (&*upstream.settings().name, &**backend.label());
    backend.turned(transition);
    match transition {
        Transition::Opened(cause) => {
            let cause = cause.label();
            // There mostly is one: what opens it was noted before.
            let last = backend.last_error();
            let (error, reason) =
                last.as_ref().map_or(("", ""), |last| (last.label, &*last.reason));
            warn!(target: "edgeproxy::upstream", upstream, backend = label, cause, error, reason;
                "circuit breaker opened");
        }
        Transition::HalfOpened => {
            info!(target: "edgeproxy::upstream", upstream, backend = label;
                "circuit breaker half-open");
        }
        Transition::Closed(cause) => {
            let cause = cause.label();
            info!(target: "edgeproxy::upstream", upstream, backend = label, cause;
                "circuit breaker closed");
        }
    }
}
