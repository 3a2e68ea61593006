//! When an attempt fails: whose fault is it, and may the request be sent once more?

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use pingora::Error;
use pingora::ErrorSource;
use pingora::ErrorType;
use pingora::RetryType;

use crate::cache::forget::is_safe;
use crate::observe::metrics::UpstreamMetrics;
use crate::observe::metrics::labels::Retried;
use crate::observe::metrics::labels::UpstreamError;
use crate::proxy::context::RequestCtx;
use crate::proxy::fetch::ASK_AGAIN;
use crate::proxy::fetch::time_left;
use crate::proxy::hedge;
use crate::proxy::outgoing::Outgoing;
use crate::refusal::Refusal;
use crate::resilience::retry;
use crate::resilience::retry::Counted;
use crate::resilience::retry::Decision;
use crate::resilience::retry::Failed;
use crate::resilience::retry::Sent;
use crate::resilience::retry::What;
use crate::route::asking;
use crate::terms::clock;
use crate::upstream::Fault;
use crate::upstream::backend::random;
use crate::upstream::connect::Kept;
use crate::upstream::fault::Unseen;
use crate::upstream::fault::refusal_of;
use crate::upstream::fault::unseen;
use crate::upstream::mishap::Why;
use crate::upstream::peer::Upstream;

/// The type of the error that makes Pingora ask another: the answer was a failure.
const TRY_ANOTHER: &str = "an answer that is a failure";

/// No connection came about. Nothing was sent, so another attempt harms nobody.
#[cold]
pub(crate) fn not_connected(
    request: &Outgoing<'_>,
    mut error: Box<Error>,
    ctx: &mut RequestCtx,
) -> Box<Error> {
    error.as_up();
    hedge::settle(ctx);
    note(&error, ctx.upstream(), ctx);
    ctx.origin.failed = Some(refusal_of(&error));
    if let Some(lease) = &mut ctx.origin.lease {
        lease.failed(Fault::Connect, Why::Error(&error));
    }
    let again = may_try_again(request, ctx, What::Connect, Sent::Nothing, None);
    error.set_retry(again.is_some());
    error
}

/// The exchange broke. Said again is only what harms nobody when it is said twice.
#[cold]
pub(crate) fn broke(
    request: &Outgoing<'_>,
    mut error: Box<Error>,
    ctx: &mut RequestCtx,
) -> Box<Error> {
    hedge::settle(ctx);
    if error.etype() == &ErrorType::Custom(ASK_AGAIN) {
        ctx.origin.forget_last();
        error.set_retry(true);
        return error;
    }
    if error.etype() == &ErrorType::Custom(TRY_ANOTHER) {
        // It was decided when the status was seen.
        error.set_retry(true);
        return error;
    }
    let dead = matches!(error.retry, RetryType::ReusedOnly) && ctx.origin.status.is_none();
    let refusal = refusal_of(&error);
    if !is_theirs(&error, refusal, ctx) {
        error.set_retry(false);
        return error;
    }
    // A connection that died while it was idle says nothing of the backend. Of a stream that was reset
    // Pingora does not say that it may be that.
    let died = dead && ctx.origin.reused && refusal == Refusal::OriginClosed;
    let (what, sent) = match (died, unseen(&error), refusal) {
        (_, Some(Unseen::Left), _) => (What::Left, Sent::Nothing),
        (_, Some(Unseen::Refused), _) => (What::Refused, Sent::Nothing),
        (true, None, _) => (What::DeadConnection, Sent::Something),
        (false, None, Refusal::OriginTimeout) => (What::TimedOut, Sent::Something),
        (false, None, _) => (What::Broken, Sent::Something),
    };
    // It may go on to another upstream, which is not to blame.
    let asked = ctx.upstream();
    let again = may_try_again(request, ctx, what, sent, None);
    if what == What::DeadConnection && again == Some(Counted::No) {
        // And so may all be that are kept. Those of an origin that gives one up are told by it.
        ctx.origin.kept = Kept::Unwanted;
    }
    let is_blamed = retry::is_blamed(what, again, ctx.origin.uncounted);
    if !is_blamed && again == Some(Counted::No) {
        ctx.origin.forget_last();
    } else {
        note(&error, asked, ctx);
        ctx.origin.failed = Some(refusal);
        if let Some(lease) = ctx.origin.lease.as_mut().filter(|_| is_blamed) {
            lease.failed(Fault::of(refusal), Why::Error(&error));
        }
    }
    error.set_retry(again.is_some());
    error
}

/// The origin answered with a failure: the error with which Pingora asks another, if one may be asked.
pub(crate) fn try_another(
    request: &Outgoing<'_>,
    status: StatusCode,
    retry_after: Option<Duration>,
    ctx: &mut RequestCtx,
) -> Option<Box<Error>> {
    let upstream = upstream_of(ctx)?;
    let own = ctx.route().and_then(|route| route.asking.retry.statuses.as_ref());
    let failures = own.unwrap_or(&upstream.settings().retry.settings.statuses);
    if !failures.contains(&status.as_u16()) {
        return None;
    }
    if let (Some(lease), Some(asked)) = (&ctx.origin.lease, retry_after) {
        lease.leave_alone(asked);
    }
    let what = What::Status(status.as_u16());
    let asked = ctx.upstream()?;
    may_try_again(request, ctx, what, Sent::Something, retry_after)?;
    // What comes of the next attempt is all that is known of the exchange in the end.
    if let Some(took) = ctx.origin.took {
        ctx.runtime.upstream_metrics[asked].answered(status.as_u16(), took);
    }
    if let Some(lease) = &mut ctx.origin.lease {
        lease.unwanted(status.as_u16());
    }
    let mut error = Error::explain(ErrorType::Custom(TRY_ANOTHER), "an answer that is a failure");
    error.as_up();
    Some(error)
}

/// Sends the request to the route's other upstream from now on. `false`: there is none, or it is there
/// already.
#[cold]
pub(crate) fn fall_back(ctx: &mut RequestCtx) -> bool {
    let Some(fallback) = ctx.route().and_then(|route| route.standins.fallback) else {
        return false;
    };
    if ctx.upstream() == Some(fallback) {
        return false;
    }
    let first = upstream_of(ctx).map(|upstream| upstream.settings().timeouts.total);
    ctx.origin.fell_back = first.map(|total| (clock::now(), total));
    ctx.origin.upstream = Some(fallback);
    ctx.origin.forget_tried();
    ctx.origin.wait = None;
    true
}

/// Whether the request is sent once more; sees to the wait before that.
fn may_try_again(
    request: &Outgoing<'_>,
    ctx: &mut RequestCtx,
    what: What,
    sent: Sent,
    retry_after: Option<Duration>,
) -> Option<Counted> {
    let again = may_try_here(request, ctx, what, sent, retry_after);
    if again.is_some() {
        return again;
    }
    // One attempt at another upstream does not depend on how many there were at this one.
    let first = Failed { attempts: 1, ..failed(request, ctx, what, sent, None)? };
    let another = retry::Settings { attempts: 2, ..settings(ctx)? };
    let allowed = matches!(retry::decide(&another, &first, 0), Decision::Again { .. });
    (allowed && fall_back(ctx)).then_some(Counted::Yes)
}

fn is_idempotent(request: &Outgoing<'_>, ctx: &RequestCtx) -> bool {
    let own = ctx.route().and_then(|route| route.asking.retry.repeats(request.method));
    // What is safe is idempotent, too (RFC 9110 §9.2.2); the library knows no methods of other documents.
    own.unwrap_or_else(|| request.method.is_idempotent() || is_safe(request.method))
}

/// What there is to know of a failed attempt.
fn failed(
    request: &Outgoing<'_>,
    ctx: &RequestCtx,
    what: What,
    sent: Sent,
    retry_after: Option<Duration>,
) -> Option<Failed> {
    Some(Failed {
        what,
        sent,
        attempts: ctx.origin.attempts - ctx.origin.uncounted,
        uncounted: ctx.origin.uncounted,
        idempotent: is_idempotent(request, ctx),
        replayable: request.replayable,
        downstream_started: request.answered,
        left: Some(time_left(ctx, upstream_of(ctx)?.settings(), clock::now())),
        retry_after,
    })
}

/// When a request is tried again: what its upstream says, and its route in place of it.
fn settings(ctx: &RequestCtx) -> Option<retry::Settings> {
    let settings = upstream_of(ctx)?.settings().retry.settings.clone();
    let Some(route) = ctx.route() else { return Some(settings) };
    let asking::Retry { attempts, per_try: _, statuses, methods } = &route.asking.retry;
    Some(retry::Settings {
        attempts: attempts.unwrap_or(settings.attempts),
        statuses: statuses.clone().unwrap_or(settings.statuses),
        // Methods that a route names are all that there are.
        non_idempotent: settings.non_idempotent && methods.is_none(),
        ..settings
    })
}

/// Whether it is sent once more to the same upstream.
fn may_try_here(
    request: &Outgoing<'_>,
    ctx: &mut RequestCtx,
    what: What,
    sent: Sent,
    retry_after: Option<Duration>,
) -> Option<Counted> {
    let upstream = Arc::clone(upstream_of(ctx)?);
    // What one backend asks for does not concern the others. Where there is no other, one that says when
    // it may be asked again is asked again.
    let has_other = upstream.has_other(&ctx.origin.tried);
    let retry_after = retry_after.filter(|_| !has_other);
    let failed = failed(request, ctx, what, sent, retry_after)?;
    let Decision::Again { after, counted } = retry::decide(&settings(ctx)?, &failed, random())
    else {
        return None;
    };
    match counted {
        Counted::No => ctx.origin.uncounted += 1,
        Counted::Yes => {
            // A backend that got the request and failed is not given it again; one that could not be
            // connected to may only be starting.
            if sent == Sent::Something && !has_other && retry_after.is_none() {
                return None;
            }
            let may = upstream.budget().withdraw(upstream.now());
            if let Some(metrics) = metrics_of(ctx) {
                metrics.retried(if may { Retried::Sent } else { Retried::OverBudget });
            }
            if !may {
                return None;
            }
        }
    }
    ctx.origin.wait = (!after.is_zero()).then_some(after);
    Some(counted)
}

/// The counters of the upstream that serves the request.
fn metrics_of(ctx: &RequestCtx) -> Option<&UpstreamMetrics> {
    ctx.runtime.upstream_metrics.get(ctx.upstream()?)
}

/// The upstream that serves the request.
fn upstream_of(ctx: &RequestCtx) -> Option<&Arc<Upstream>> {
    ctx.runtime.upstreams.get(ctx.upstream()?)
}

/// Whether the origin is at fault. A client that is gone or slow is nobody's failure but its own; and when the time of
/// a route is over in the middle of an answer, that may as well be one that is slow to read it.
fn is_theirs(error: &Error, refusal: Refusal, ctx: &RequestCtx) -> bool {
    let read_slowly = refusal == Refusal::TotalTimeout && ctx.origin.status.is_some();
    error.esource() == &ErrorSource::Upstream && !refusal.is_of_body() && !read_slowly
}

/// Counts a failure of the upstream that was asked.
fn note(error: &Error, asked: Option<usize>, ctx: &RequestCtx) {
    let refusal = refusal_of(error);
    if !is_theirs(error, refusal, ctx) {
        return;
    }
    if let Some(metrics) = asked.and_then(|asked| ctx.runtime.upstream_metrics.get(asked)) {
        metrics.failed(UpstreamError::of(refusal));
    }
}
