//! May we ask an origin, and which one?

use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use http::Version;
use pingora::Error;
use pingora::ErrorSource;
use pingora::ErrorType;
use pingora::Result;
use pingora::upstreams::peer::HttpPeer;
use pingora::upstreams::peer::Peer;
use pingora_proxy::Session;

use crate::observe::metrics::labels::Reused;
use crate::observe::metrics::labels::UpstreamError;
use crate::proxy::admit;
use crate::proxy::answer;
use crate::proxy::context::RequestCtx;
use crate::proxy::lookup;
use crate::refusal::Refusal;
use crate::route::action::Action;
use crate::terms;
use crate::terms::Terms;
use crate::terms::pace::MinRate;
use crate::upstream::fault::error_of;
use crate::upstream::fault::refusal_of;

/// How many addresses of an upstream are tried while connections to it fail.
const CONNECT_ATTEMPTS: u32 = 3;
/// How long a tunnel may be silent. Whoever talks WebSocket pings far more often.
const TUNNEL_IDLE: Duration = Duration::from_secs(3600);
/// The type of the error that makes Pingora ask once more: a 304 was about something else.
pub(crate) const ASK_AGAIN: &str = "a 304 about something else";
/// What is over is given so long to say so before it is given up without a word.
const LAST_WORDS: Duration = Duration::from_millis(250);
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
    Ok(true)
}

/// The peer for the next attempt.
pub(crate) fn choose(session: &Session, ctx: &mut RequestCtx) -> Result<Box<HttpPeer>> {
    let Some(Action::Upstream(index)) = ctx.route().map(|route| &route.action) else {
        return Err(refused(ctx, Refusal::Internal));
    };
    let upstream = Arc::clone(&ctx.runtime.upstreams[*index]);
    let left = ctx.time_left();
    if left.is_some_and(|left| left.is_zero()) {
        return Err(refused(ctx, Refusal::TotalTimeout));
    }
    let mut peer = upstream.choose(&ctx.origin.tried).map_err(|refusal| refused(ctx, refusal))?;
    // There is no other address: what was found out of this one stands.
    if let Some(failed) = ctx.origin.failed
        && ctx.origin.tried.contains(peer.address())
    {
        return Err(refused(ctx, failed));
    }
    if session.is_upgrade_req() && upstream.dial().is_some() {
        // The origin's deadline for its answer is kept by the connection itself (see `guard`): what
        // Pingora waits for here is also the silence within a tunnel.
        peer.options.read_timeout = Some(TUNNEL_IDLE);
    }
    if let Some(left) = left {
        let cut = |timeout: Option<Duration>| timeout.map_or(left, |t| t.min(left)).max(LEAST_READ);
        peer.options.total_connection_timeout = Some(cut(peer.options.total_connection_timeout));
        peer.options.read_timeout = Some(cut(peer.options.read_timeout));
    }
    let ends = left.map(|left| tokio::time::Instant::now() + left);
    terms::agree(Terms {
        ends,
        // Each byte of an HTTP/1 origin passes us, and is waited for until then only.
        given_up: ends.filter(|_| upstream.dial().is_none()).map(|ends| ends + LAST_WORDS),
        header: upstream.settings().timeouts.read,
        upload: paced_upload(session, ctx),
    });
    ctx.origin.attempts += 1;
    ctx.origin.began = Some(Instant::now());
    ctx.origin.address = Some(peer.address().to_string());
    ctx.origin.tried.push(peer.address().clone());
    Ok(peer)
}

/// How fast the client has to send its body to the origin. On HTTP/1 the connection sees to that, and
/// in a conversation each side sends when it has something to say.
fn paced_upload(session: &Session, ctx: &RequestCtx) -> Option<MinRate> {
    if session.req_header().version != Version::HTTP_2 || admit::is_conversation(session) {
        return None;
    }
    let limits = &ctx.runtime.plan.limits;
    Some(MinRate { bytes_per_second: limits.min_body_rate, window: limits.rate_window })
}

/// A connection is there.
pub(crate) fn connected(reused: bool, ctx: &mut RequestCtx) {
    ctx.origin.reused = reused;
    if let Some(Action::Upstream(index)) = ctx.route().map(|route| &route.action) {
        let reused = if reused { Reused::Yes } else { Reused::No };
        ctx.runtime.upstream_metrics[*index].connected(reused);
    }
}

/// No connection came about. Nothing was sent, so another address may be tried.
pub(crate) fn not_connected(mut error: Box<Error>, ctx: &mut RequestCtx) -> Box<Error> {
    error.as_up();
    note(&error, ctx);
    ctx.origin.failed = Some(refusal_of(&error));
    if let Some(Action::Upstream(index)) = ctx.route().map(|route| &route.action)
        && let Some(address) = ctx.origin.tried.last()
    {
        ctx.runtime.upstreams[*index].unreachable(address);
    }
    let time = ctx.time_left().is_none_or(|left| !left.is_zero());
    error.set_retry(time && ctx.origin.attempts < CONNECT_ATTEMPTS);
    error
}

/// The exchange broke. Only what is safe to say twice, on a connection that had died unnoticed, is
/// said again.
pub(crate) fn broke(
    session: &mut Session,
    error: Box<Error>,
    client_reused: bool,
    ctx: &mut RequestCtx,
) -> Box<Error> {
    let mut error = error;
    if error.etype() == &ErrorType::Custom(ASK_AGAIN) {
        ctx.origin.tried.pop();
        error.set_retry(true);
        return error;
    }
    let idempotent = session.req_header().method.is_idempotent();
    let overdue = matches!(refusal_of(&error), Refusal::TotalTimeout | Refusal::BodyTimeout);
    if overdue || !idempotent || session.as_ref().retry_buffer_truncated() {
        error.set_retry(false);
    } else {
        // Of our own pool's connections Pingora does not know.
        error.retry.decide_reuse(client_reused || ctx.origin.reused);
    }
    if !error.retry() {
        note(&error, ctx);
    } else {
        // The same address, with a connection of its own.
        ctx.origin.tried.pop();
    }
    error
}

/// Counts a failure of the origin.
fn note(error: &Error, ctx: &RequestCtx) {
    let refusal = refusal_of(error);
    // Who waits for the client in vain is not at fault.
    if error.esource() != &ErrorSource::Upstream || refusal == Refusal::BodyTimeout {
        return;
    }
    if let Some(Action::Upstream(index)) = ctx.route().map(|route| &route.action) {
        ctx.runtime.upstream_metrics[*index].failed(UpstreamError::of(refusal));
    }
}

fn refused(ctx: &mut RequestCtx, refusal: Refusal) -> Box<Error> {
    ctx.refusal = Some(refusal);
    error_of(refusal)
}
