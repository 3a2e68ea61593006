//! When a request fails: from an error to a refusal, from a refusal to a response.

use std::error::Error as StdError;
use std::io;

use http::StatusCode;
use http::Version;
use pingora::Error;
use pingora::ErrorSource;
use pingora::ErrorType;
use pingora_proxy::FailToProxy;
use pingora_proxy::Session;

use crate::message::chunked::ChunkFault;
use crate::proxy::answer;
use crate::proxy::context::RequestCtx;
use crate::refusal::Refusal;
use crate::upstream::fault::refusal_of;

/// Answers a failed request, if nothing was sent yet. What was begun is cut, visibly.
pub(crate) async fn answer(
    session: &mut Session,
    error: &Error,
    ctx: &mut RequestCtx,
) -> FailToProxy {
    let refusal = ctx.refusal.or_else(|| refusal_for(error)).map(|refusal| in_total(refusal, ctx));
    ctx.refusal = refusal;
    let Some(refusal) = refusal else {
        // The client is gone: there is nobody to tell.
        return FailToProxy { error_code: 0, can_reuse_downstream: false };
    };
    let code = refusal.status().as_u16();
    // After a 101 the connection is not HTTP's any more: a response would be taken for its data.
    let begun = session.response_written().is_some_and(|response| {
        !response.status.is_informational() || response.status == StatusCode::SWITCHING_PROTOCOLS
    });
    if !begun {
        session.set_keepalive(None);
        // A client that is gone by now will not be told.
        let _ = answer::refuse(session, ctx, refusal, &[]).await;
    } else if session.req_header().version == Version::HTTP_2 {
        session.as_downstream_mut().shutdown_with_reason(h2::Reason::INTERNAL_ERROR);
    }
    FailToProxy { error_code: code, can_reuse_downstream: false }
}

/// An origin that was given only what the route's time left was not slow by its own deadline.
fn in_total(refusal: Refusal, ctx: &RequestCtx) -> Refusal {
    let waited = matches!(refusal, Refusal::OriginTimeout | Refusal::ConnectTimeout);
    if waited && ctx.time_left().is_some_and(|left| left.is_zero()) {
        Refusal::TotalTimeout
    } else {
        refusal
    }
}

/// Whether what is stored may be served although it is stale: only when the origin failed, and never
/// ahead of asking it. The windows were judged when the response was stored.
pub(crate) fn may_serve_stale(error: Option<&Error>, ctx: &mut RequestCtx) -> bool {
    let failed = error.is_some_and(|error| error.esource() == &ErrorSource::Upstream);
    if failed {
        ctx.refusal = None;
        ctx.cache.stale("stale-if-error");
    }
    failed
}

/// The refusal that an error amounts to; `None` when the client itself went away.
fn refusal_for(error: &Error) -> Option<Refusal> {
    match error.esource() {
        ErrorSource::Upstream => Some(refusal_of(error)),
        ErrorSource::Downstream => downstream_refusal(error),
        ErrorSource::Internal | ErrorSource::Unset => Some(Refusal::Internal),
    }
}

/// What a failure on the client's side amounts to; `None` when the client went away.
pub(crate) fn downstream_refusal(error: &Error) -> Option<Refusal> {
    let mut cause: Option<&(dyn StdError + 'static)> = error.cause.as_deref().map(|c| c as _);
    while let Some(current) = cause {
        if let Some(io) = current.downcast_ref::<io::Error>() {
            if io.get_ref().is_some_and(|inner| inner.is::<ChunkFault>()) {
                return Some(Refusal::BadChunk);
            }
            match io.kind() {
                io::ErrorKind::TimedOut => return Some(Refusal::BodyTimeout),
                io::ErrorKind::UnexpectedEof => return Some(Refusal::IncompleteBody),
                _ => {}
            }
        }
        if let Some(error) = current.downcast_ref::<Box<Error>>() {
            return downstream_refusal(error);
        }
        cause = current.source();
    }
    match error.etype() {
        ErrorType::InvalidHTTPHeader => Some(Refusal::MalformedField),
        _ => None,
    }
}
