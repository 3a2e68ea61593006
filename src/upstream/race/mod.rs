//! A request that is asked of a second backend when the first one takes longer than nearly all others do.
//!
//! The request and the connection that it is sent on share a [`Race`]. The connection (`io`) runs it, or with an
//! origin of HTTP/2 the session (`http2::race`), since they see when the first head comes; the request asks
//! afterwards who has won, and takes over that one's lease. Whoever loses is closed, or its stream reset, and neither
//! success nor failure is held against it.

pub(super) mod io;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use pingora::Error;
use tokio::time::Instant;

use crate::message::ends::Ends;
use crate::refusal::Refusal;
use crate::resilience::hedge::Hedge;
use crate::resilience::hedge::Settings;
use crate::upstream::Fault;
use crate::upstream::backend::Backend;
use crate::upstream::connect::Kept;
use crate::upstream::guard::OriginIo;
use crate::upstream::http2::stream::Stream;
use crate::upstream::lease::Body;
use crate::upstream::lease::Lease;
use crate::upstream::mishap::Why;
use crate::upstream::peer::Upstream;
use crate::upstream::peer::Wish;

/// The hedging of one route: what is known of its latencies, and what may still be spent.
#[derive(Debug)]
pub struct Hedging {
    hedge: Hedge,
    started: Instant,
}

impl Hedging {
    /// Nothing was asked for yet.
    #[must_use]
    pub fn new(settings: Settings) -> Arc<Self> {
        Arc::new(Self { hedge: Hedge::new(settings), started: Instant::now() })
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }
}

/// Why there is an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attempt {
    /// The request comes for the first time.
    First,
    /// An attempt before it failed.
    Further,
}

/// One attempt of a request that may be hedged.
pub struct Race {
    hedging: Arc<Hedging>,
    upstream: Arc<Upstream>,
    /// Where the request was sent already, the backend of this attempt among them.
    tried: Vec<Arc<Backend>>,
    hash: Option<u64>,
    client: Option<Ends>,
    began: Instant,
    /// When a second backend is asked; `None`: too little is known yet.
    second_at: Option<Instant>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    outcome: Option<Outcome>,
    first_failed: Option<Refusal>,
    second: Option<Second>,
}

/// What became of the second one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It answered first.
    Won,
    /// The first one answered first.
    Lost,
    /// It gave no answer.
    Failed,
    /// It was not asked: there had been too many.
    OverBudget,
    /// It was not asked: no other backend has a connection to spare.
    NoBackend,
}

/// The second backend of a request.
pub struct Second {
    /// What it is lent by.
    pub lease: Lease,
    /// When it was asked.
    pub began: Instant,
    /// Its connection carried requests before.
    pub used: bool,
}

/// How a race ended.
pub struct Ended {
    /// What became of the second one; `None`: none was wanted.
    pub outcome: Option<Outcome>,
    /// In which way the first one failed, where the second answered.
    pub first_failed: Option<Refusal>,
    /// The second one, if it answered.
    pub second: Option<Second>,
}

impl fmt::Debug for Race {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Race").field("second_at", &self.second_at).finish_non_exhaustive()
    }
}

impl Race {
    /// An attempt begins at the last one of `tried`.
    #[must_use]
    pub fn begin(
        hedging: &Arc<Hedging>,
        upstream: &Arc<Upstream>,
        tried: Vec<Arc<Backend>>,
        hash: Option<u64>,
        client: Option<Ends>,
        attempt: Attempt,
    ) -> Arc<Self> {
        let began = Instant::now();
        let delay = match attempt {
            Attempt::First => hedging.hedge.begin(hedging.now()),
            Attempt::Further => hedging.hedge.delay(hedging.now()),
        };
        Arc::new(Self {
            hedging: Arc::clone(hedging),
            upstream: Arc::clone(upstream),
            tried,
            hash,
            client,
            began,
            second_at: delay.map(|delay| began + delay),
            state: Mutex::default(),
        })
    }

    /// The head of an answer came, whoever gave it.
    pub fn answered(&self) {
        self.hedging.hedge.observe(self.began.elapsed(), self.hedging.now());
    }

    /// How it ended; the second time nothing is left to tell.
    #[must_use]
    pub fn ended(&self) -> Ended {
        let State { outcome, first_failed, second } = std::mem::take(&mut *self.state.lock());
        Ended { outcome, first_failed, second }
    }

    /// Lends the request a second backend and connects to it, if that may be. Nothing waits for a place.
    fn second(self: &Arc<Self>) -> BoxFuture<'static, Option<(OriginIo, Second)>> {
        let race = Arc::clone(self);
        async move {
            match race.open().await {
                Ok(opened) => Some(opened),
                Err(outcome) => {
                    race.state.lock().outcome = Some(outcome);
                    None
                }
            }
        }
        .boxed()
    }

    /// The same, where HTTP/2 is spoken.
    pub(super) fn second_stream(self: &Arc<Self>) -> BoxFuture<'static, Option<(Stream, Second)>> {
        let race = Arc::clone(self);
        async move {
            match race.open_stream().await {
                Ok(opened) => Some(opened),
                Err(outcome) => {
                    race.state.lock().outcome = Some(outcome);
                    None
                }
            }
        }
        .boxed()
    }

    async fn open(&self) -> Result<(OriginIo, Second), Outcome> {
        let began = Instant::now();
        let lease = self.lend().await?;
        let patience = self.upstream.settings().timeouts.connect;
        match lease.connect(patience).await {
            Ok(io) => {
                let used = io.was_used();
                Ok((io, Second { lease, began, used }))
            }
            Err(error) => Err(unconnected(lease, &error)),
        }
    }

    async fn open_stream(&self) -> Result<(Stream, Second), Outcome> {
        let began = Instant::now();
        let lease = self.lend().await?;
        let patience = self.upstream.settings().timeouts.connect;
        match lease.stream(patience, Kept::Welcome).await {
            Ok(stream) => {
                let used = stream.was_used();
                Ok((stream, Second { lease, began, used }))
            }
            Err(error) => Err(unconnected(lease, &error)),
        }
    }

    async fn lend(&self) -> Result<Lease, Outcome> {
        if !self.upstream.has_other(&self.tried) {
            return Err(Outcome::NoBackend);
        }
        if !self.hedging.hedge.may_hedge(self.hedging.now()) {
            return Err(Outcome::OverBudget);
        }
        let wish = Wish { tried: &self.tried, hash: self.hash, ..Wish::default() };
        let lease = self.upstream.lend(&wish).ok();
        let is_other = |lease: &Lease| {
            !self.tried.iter().any(|tried| tried.address() == lease.backend().address())
        };
        let mut lease = lease.filter(is_other).ok_or(Outcome::NoBackend)?;
        lease.speak_for(self.client);
        lease.connection(Body::Here, Duration::ZERO).await.map_err(|_| Outcome::NoBackend)?;
        Ok(lease)
    }

    /// When a second backend is asked; `None`: too little is known yet.
    pub(super) fn second_at(&self) -> Option<Instant> {
        self.second_at
    }

    /// The first one answered although a second was asked.
    pub(super) fn second_lost(&self) {
        self.state.lock().outcome = Some(Outcome::Lost);
    }

    /// The second one gave no answer.
    pub(super) fn second_failed(&self, mut second: Second, how: Refusal) {
        second.lease.failed(Fault::of(how), Why::Refusal(how));
        self.state.lock().outcome = Some(Outcome::Failed);
    }

    /// The second one answered.
    pub(super) fn second_won(&self, second: Second, first_failed: Option<Refusal>) {
        *self.state.lock() =
            State { outcome: Some(Outcome::Won), first_failed, second: Some(second) };
    }
}

/// The second one could not be connected to.
fn unconnected(mut lease: Lease, error: &Error) -> Outcome {
    lease.failed(Fault::Connect, Why::Error(error));
    Outcome::Failed
}
