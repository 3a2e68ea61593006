//! May we ask an origin, and which one?

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use pingora::Error;
use pingora::Result;
use pingora::upstreams::peer::HttpPeer;
use pingora_proxy::Session;
use tokio::time::Sleep;

use crate::balance::hash::key;
use crate::observe::metrics::labels::Reused;
use crate::observe::metrics::labels::UpstreamError;
use crate::proxy::admit;
use crate::proxy::again;
use crate::proxy::answer;
use crate::proxy::context::RequestCtx;
use crate::proxy::hedge;
use crate::proxy::lookup;
use crate::proxy::outgoing::Outgoing;
use crate::proxy::sticky;
use crate::refusal::Refusal;
use crate::route::predicate::pairs;
use crate::terms;
use crate::terms::AnswerTime;
use crate::terms::Terms;
use crate::terms::Upload;
use crate::terms::clock;
use crate::terms::pace::MinRate;
use crate::upstream::HashBy;
use crate::upstream::Protocol;
use crate::upstream::Settings;
use crate::upstream::backend::random;
use crate::upstream::connect::Kept;
use crate::upstream::connect::Wanted;
use crate::upstream::fault::error_of;
use crate::upstream::lease::Body;
use crate::upstream::lease::Lease;
use crate::upstream::peer::Wish;
use crate::upstream::pool;

/// How long a tunnel may be silent. Whoever talks WebSocket pings far more often.
const TUNNEL_IDLE: Duration = Duration::from_secs(3600);
/// The type of the error that makes Pingora ask once more: a 304 was about something else.
pub(crate) const ASK_AGAIN: &str = "a 304 about something else";
/// The least time that an origin is given to answer a read.
const LEAST_READ: Duration = Duration::from_millis(100);

/// `false`: the request must not leave, and is answered.
pub(crate) async fn may_go(session: &mut Session, ctx: &mut RequestCtx) -> Result<bool> {
    let wants_only_cached =
        ctx.route().is_some_and(|route| lookup::is_only_if_cached(session, route));
    if wants_only_cached {
        answer::refuse(session, ctx, Refusal::NotCached, &[]).await?;
        return Ok(false);
    }
    ctx.origin.upstream = ctx.route().and_then(|route| route.standins.share(random()));
    Ok(true)
}

/// What an attempt is given beside its backend.
pub(crate) struct Allowance {
    /// The time to the end of the answer's header.
    pub(crate) answer: Duration,
    /// The time to the end of the answer, where the route bounds it.
    pub(crate) whole: Option<Duration>,
    /// Whether its connection may have waited for a request.
    pub(crate) kept: Kept,
}

impl Allowance {
    /// A timeout of the upstream's, cut to the time in which there has to be an answer.
    pub(crate) fn for_answer(&self, timeout: Duration) -> Duration {
        timeout.min(self.answer.max(LEAST_READ))
    }

    /// A timeout of the upstream's, cut to the time in which the whole answer has to be there.
    pub(crate) fn for_all(&self, timeout: Duration) -> Duration {
        self.whole.map_or(timeout, |whole| timeout.min(whole.max(LEAST_READ)))
    }
}

/// The peer for the next attempt, as Pingora wants it.
pub(crate) async fn choose(request: &Outgoing<'_>, ctx: &mut RequestCtx) -> Result<Box<HttpPeer>> {
    let allowance = lend(request, ctx).await?;
    let Some(lease) = &ctx.origin.lease else { return Err(refused(ctx, Refusal::Internal)) };
    terms::bring(Arc::new(Wanted {
        kept: allowance.kept,
        client: lease.client(),
        race: ctx.origin.race.clone(),
        pool: Some(lease.pool()),
    }));
    let mut peer = lease.peer();
    let options = &mut peer.options;
    options.total_connection_timeout =
        options.total_connection_timeout.map(|timeout| allowance.for_answer(timeout));
    // Our own connections know a header from what follows it; see `terms`.
    if request.body != Body::Here {
        // It would be held against the origin that the client is slow: the connection knows who is waited for.
        options.read_timeout = None;
    } else if request.offers_tunnel && lease.upstream().settings().protocol == Protocol::Http1 {
        // The origin's deadline for its answer is kept by the connection itself (see `guard`): what
        // Pingora waits for here is also the silence within a tunnel.
        options.read_timeout = Some(TUNNEL_IDLE);
    }
    options.read_timeout = options.read_timeout.map(|timeout| allowance.for_all(timeout));
    Ok(peer)
}

/// Lends the request a backend for the next attempt, and one of its connections.
async fn lend(request: &Outgoing<'_>, ctx: &mut RequestCtx) -> Result<Allowance> {
    if let Some(wait) = begin(ctx) {
        wait.await;
    }
    match lend_now(request, ctx)? {
        Lent::Now(allowance) => Ok(allowance),
        Lent::Later(chosen) => Box::pin(chosen.in_line(request, ctx)).await,
    }
}

/// Begins an attempt. Answers what is waited before it.
pub(crate) fn begin(ctx: &mut RequestCtx) -> Option<Pin<Box<Sleep>>> {
    forget(ctx);
    ctx.origin.wait.take().map(pause)
}

/// What the last attempt came to is no news of the next one.
fn forget(ctx: &mut RequestCtx) {
    ctx.origin.lease = None;
    ctx.origin.race = None;
    ctx.origin.status = None;
    ctx.origin.took = None;
    // What was passed on is said again from its beginning.
    ctx.body_read = 0;
    ctx.origin.interim = 0;
    ctx.refusal = None;
}

/// What a request was lent.
pub(crate) enum Lent {
    /// A backend and one of its connections.
    Now(Allowance),
    /// A backend all of whose connections are in use.
    Later(Box<Chosen>),
}

/// A backend that was chosen for an attempt.
pub(crate) struct Chosen {
    lease: Lease,
    /// When it was asked for, and how long there was until the header of the answer then.
    asked: Instant,
    left: Duration,
    /// By what it was chosen.
    sticky: Option<u64>,
    wished: Option<u64>,
}

/// Lends the request a backend for an attempt that was begun, and one of its connections if there is one now: as there
/// mostly is, and no future has to have room for what is to be known while it waits.
pub(crate) fn lend_now(request: &Outgoing<'_>, ctx: &mut RequestCtx) -> Result<Lent> {
    loop {
        let Some(index) = ctx.upstream() else { return Err(refused(ctx, Refusal::Internal)) };
        let asked = clock::now();
        // Borrowed, since each share of it has its price; what is lent has one.
        let upstream = &ctx.runtime.upstreams[index];
        let left = time_left(ctx, upstream.settings(), asked);
        if left.is_zero() {
            return Err(refused(ctx, Refusal::TotalTimeout));
        }
        let sticky = upstream.settings().sticky.as_ref();
        let sticky = sticky.and_then(|sticky| sticky::wish(sticky, request));
        let wished = upstream.settings().balance.by.as_ref().and_then(|by| hash(by, request, ctx));
        let is_let_in = ctx.origin.let_in_by == Some(index);
        let wish = Wish { tried: &ctx.origin.tried, hash: wished, sticky, is_let_in };
        match upstream.lend(&wish) {
            Ok(mut lease) => {
                lease.speak_for(ctx.ends());
                let is_free = lease.try_connection(request.body);
                let chosen = Chosen { lease, asked, left, sticky, wished };
                return Ok(if is_free {
                    Lent::Now(chosen.settle(request, ctx))
                } else {
                    Lent::Later(Box::new(chosen))
                });
            }
            Err(refusal) => {
                // What was found out of the others stands, and is counted.
                if ctx.origin.failed.is_none() {
                    count(refusal, ctx);
                }
                if !again::fall_back(ctx) {
                    return Err(refused(ctx, ctx.origin.failed.unwrap_or(refusal)));
                }
                forget(ctx);
            }
        }
    }
}

impl Chosen {
    /// Waits for one of its connections, or, where that takes too long, has one of the route's other upstream.
    pub(crate) async fn in_line(
        self,
        request: &Outgoing<'_>,
        ctx: &mut RequestCtx,
    ) -> Result<Allowance> {
        let mut chosen = self;
        loop {
            let Err(full) = chosen.wait(request).await else {
                return Ok(chosen.settle(request, ctx));
            };
            let refusal = match full {
                pool::Refused::QueueFull => Refusal::QueueFull,
                pool::Refused::QueueTimeout => Refusal::QueueTimeout,
            };
            count(refusal, ctx);
            if !again::fall_back(ctx) {
                return Err(refused(ctx, ctx.origin.failed.unwrap_or(refusal)));
            }
            ctx.origin.failed.get_or_insert(refusal);
            forget(ctx);
            chosen = match lend_now(request, ctx)? {
                Lent::Now(allowance) => return Ok(allowance),
                Lent::Later(other) => *other,
            };
        }
    }

    async fn wait(&mut self, request: &Outgoing<'_>) -> Result<(), pool::Refused> {
        let queue_timeout = self.lease.upstream().settings().pool.queue_timeout;
        self.lease.connection(request.body, self.left.min(queue_timeout)).await
    }

    /// The attempt is made with it: there is a connection.
    #[inline]
    fn settle(self, request: &Outgoing<'_>, ctx: &mut RequestCtx) -> Allowance {
        let Self { lease, asked, mut left, sticky, wished } = self;
        let upstream = lease.upstream();
        let now = clock::now();
        if now != asked {
            // Some of it was spent waiting.
            left = time_left(ctx, upstream.settings(), now);
        }
        if ctx.origin.attempts == 0 {
            upstream.budget().deposit(upstream.at(now));
        }
        let whole = ctx.time_left();
        let own = ctx.route().and_then(|route| route.asking.retry.per_try);
        let per_try = own.unwrap_or(upstream.settings().retry.per_try);
        let answer = per_try.map_or(left, |per_try| per_try.min(left));
        let began = tokio::time::Instant::from_std(now);
        terms::agree(Terms {
            ends: whole.map(|whole| began + whole),
            answer_by: Some(began + answer),
            header: upstream.settings().timeouts.read,
            upload: upload(request, upstream.settings(), ctx),
        });
        ctx.origin.stick = upstream
            .settings()
            .sticky
            .as_ref()
            .and_then(|settings| sticky::tell(settings, sticky, lease.backend(), ctx));
        // That one of its idle connections was dead says nothing of another backend's.
        let kept = match std::mem::take(&mut ctx.origin.kept) {
            Kept::Unwanted if ctx.origin.address() == Some(lease.backend().shown()) => {
                Kept::Unwanted
            }
            Kept::Unwanted | Kept::Welcome => Kept::Welcome,
        };
        ctx.origin.tries(Arc::clone(lease.backend()));
        ctx.origin.race = hedge::begin(request, upstream, wished, ctx);
        ctx.origin.attempts += 1;
        ctx.origin.let_in_by = ctx.upstream();
        ctx.origin.began = Some(now);
        ctx.origin.lease = Some(lease);
        Allowance { answer, whole, kept }
    }
}

/// What is waited before another attempt.
#[cold]
fn pause(wait: Duration) -> Pin<Box<Sleep>> {
    Box::pin(tokio::time::sleep(wait))
}

/// Counts that the upstream could not be asked.
#[cold]
fn count(refusal: Refusal, ctx: &RequestCtx) {
    if let Some(index) = ctx.upstream() {
        ctx.runtime.upstream_metrics[index].failed(UpstreamError::of(refusal));
    }
}

/// Whether the client still has to send of the request's body.
pub(crate) fn body(session: &mut Session, ctx: &RequestCtx) -> Body {
    if session.is_upgrade_req() {
        return Body::Here;
    }
    let is_conversation = admit::may_converse(session, ctx);
    let downstream = session.as_downstream_mut();
    match (downstream.is_body_empty() || downstream.is_body_done(), is_conversation) {
        (true, _) => Body::Here,
        (false, true) => Body::Conversation,
        (false, false) => Body::Coming,
    }
}

/// How long there is until the header of an answer has to be there, all attempts together: those at another upstream,
/// too, which have that one's own time besides.
pub(crate) fn time_left(ctx: &RequestCtx, upstream: &Settings, now: Instant) -> Duration {
    // While the client sent what was read ahead, nobody waited for an origin.
    let waited = now.saturating_duration_since(ctx.started).saturating_sub(ctx.spooling);
    let fell_back =
        ctx.origin.fell_back.map(|(at, first)| (now.saturating_duration_since(at), first));
    let total = total_left(upstream.timeouts.total, waited, fell_back);
    ctx.time_left().map_or(total, |left| left.min(total))
}

/// What is left of the total time of an upstream after `waited`; of another one to which the request went on so long ago, of
/// its own and of that of the first one.
fn total_left(
    total: Duration,
    waited: Duration,
    fell_back: Option<(Duration, Duration)>,
) -> Duration {
    match fell_back {
        None => total.saturating_sub(waited),
        Some((ago, first)) => first.saturating_sub(waited).min(total.saturating_sub(ago)),
    }
}

/// What a request has in common with others that come to the same backend, as a number; `None`: nothing.
fn hash(by: &HashBy, request: &Outgoing<'_>, ctx: &RequestCtx) -> Option<u64> {
    match by {
        HashBy::Uri => ctx.admitted.as_ref().map(|admitted| {
            let query = admitted.target.query().unwrap_or_default();
            let parts = [admitted.authority.host(), admitted.target.path(), query];
            // Each part at a place of its own: swapped they are another address.
            parts.iter().fold(0, |sum: u64, part| sum.rotate_left(21) ^ key(part.as_bytes()))
        }),
        HashBy::Client => match ctx.client.as_ref().and_then(|client| client.address) {
            Some(IpAddr::V4(address)) => Some(key(&address.octets())),
            Some(IpAddr::V6(address)) => Some(key(&address.octets())),
            None => None,
        },
        HashBy::Header(name) => request.headers.get(name).map(|value| key(value.as_bytes())),
        HashBy::Cookie(name) => {
            pairs::cookies(request.headers, name).next().map(|value| key(&value))
        }
    }
}

/// What goes while the client sends the rest of its body.
fn upload(request: &Outgoing<'_>, upstream: &Settings, ctx: &RequestCtx) -> Option<Upload> {
    let answer = match request.body {
        Body::Here => return None,
        Body::Coming => AnswerTime::BehindBody,
        Body::Conversation => AnswerTime::AtOnce,
    };
    let limits = &ctx.runtime.plan.limits;
    let rate = MinRate { bytes_per_second: limits.min_body_rate, window: limits.rate_window };
    Some(Upload {
        // Where its connection does not see to that; and in a conversation each side sends when it has something to say.
        rate: (request.paces_upload && request.body == Body::Coming).then_some(rate),
        silence: upstream.timeouts.read,
        refusal: upstream.timeouts.write,
        answer,
    })
}

/// A connection is there.
pub(crate) fn connected(reused: bool, ctx: &mut RequestCtx) {
    ctx.origin.reused = reused;
    if let Some(index) = ctx.upstream() {
        let reused = if reused { Reused::Yes } else { Reused::No };
        ctx.runtime.upstream_metrics[index].connected(reused);
    }
    if let Some(lease) = &mut ctx.origin.lease {
        lease.connected();
    }
}

#[cold]
pub(crate) fn refused(ctx: &mut RequestCtx, refusal: Refusal) -> Box<Error> {
    ctx.refusal = Some(refusal);
    error_of(refusal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_attempts_have_the_time_of_the_first_upstream_and_those_at_another_one_its_own_besides() {
        let secs = Duration::from_secs;
        for (total, waited, fell_back, left) in [
            (30, 4, None, 26),
            (3, 4, None, 0),
            // It is asked after more than its own time.
            (3, 4, Some((0, 10)), 3),
            (3, 5, Some((1, 10)), 2),
            // The first one's time ends first.
            (9, 1, Some((0, 2)), 1),
            (9, 3, Some((2, 2)), 0),
            (3, 8, Some((4, 10)), 0),
        ] {
            let fell_back = fell_back.map(|(ago, first)| (secs(ago), secs(first)));
            assert_eq!(total_left(secs(total), secs(waited), fell_back), secs(left));
        }
    }
}
