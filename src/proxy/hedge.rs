//! Asking a second backend when the first one takes long: what that means for the request.
//!
//! The connection does the asking (`upstream::race`). Here is said which requests it may do that for, and the one
//! that answered is taken over.

use std::sync::Arc;

use http::Method;

use crate::observe::metrics::labels::Hedged;
use crate::observe::metrics::labels::Label;
use crate::observe::metrics::labels::UpstreamError;
use crate::proxy::context::RequestCtx;
use crate::proxy::outgoing::Outgoing;
use crate::upstream::Fault;
use crate::upstream::mishap::Why;
use crate::upstream::peer::Upstream;
use crate::upstream::race::Attempt;
use crate::upstream::race::Outcome;
use crate::upstream::race::Race;

/// The attempt that begins at the last one of the backends that were tried, if it may be hedged: two at once
/// must do no more than one does.
pub(crate) fn begin(
    request: &Outgoing<'_>,
    upstream: &Arc<Upstream>,
    hash: Option<u64>,
    ctx: &RequestCtx,
) -> Option<Arc<Race>> {
    let hedging = ctx.runtime.hedging.get(ctx.route?)?.as_ref()?;
    let is_safe = [Method::GET, Method::HEAD, Method::OPTIONS].contains(request.method);
    let is_plain = request.bodiless && !request.offers_tunnel;
    // A fallback may be what routes of their own are checked not to be.
    let can_be = upstream.settings().sticky.is_none();
    if !(is_safe && is_plain && can_be) {
        return None;
    }
    let attempt = if ctx.origin.attempts == 0 { Attempt::First } else { Attempt::Further };
    Some(Race::begin(hedging, upstream, ctx.origin.tried.to_vec(), hash, ctx.ends(), attempt))
}

/// The race is over: whoever answered is the backend of the request.
pub(crate) fn settle(ctx: &mut RequestCtx) {
    let Some(ended) = ctx.origin.race.as_ref().map(|race| race.ended()) else { return };
    let Some(outcome) = ended.outcome else { return };
    let metrics = ctx.upstream().map(|index| &ctx.runtime.upstream_metrics[index]);
    let label = match outcome {
        Outcome::Won => Hedged::Won,
        Outcome::Lost => Hedged::Lost,
        Outcome::Failed => Hedged::Failed,
        Outcome::OverBudget => Hedged::OverBudget,
        Outcome::NoBackend => Hedged::NoBackend,
    };
    if let Some(metrics) = metrics {
        metrics.hedged(label);
    }
    ctx.origin.hedge = Some(label.label());
    if let Some(how) = ended.first_failed {
        if let Some(metrics) = metrics {
            metrics.failed(UpstreamError::of(how));
        }
        if let Some(first) = &mut ctx.origin.lease {
            first.failed(Fault::of(how), Why::Refusal(how));
        }
    }
    if let Some(second) = ended.second {
        let backend = Arc::clone(second.lease.backend());
        ctx.origin.tries(backend);
        ctx.origin.began = Some(second.began.into_std());
        ctx.origin.reused = second.used;
        // A first one that was only slow is told nothing.
        ctx.origin.lease = Some(second.lease);
    }
}
