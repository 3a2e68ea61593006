//! When a request fails: from an error to a refusal, from a refusal to a response.

use std::error::Error as StdError;
use std::io;
use std::time::SystemTime;

use http::StatusCode;
use http::Version;
use pingora::Error;
use pingora::ErrorSource;
use pingora::ErrorType;
use pingora_proxy::FailToProxy;
use pingora_proxy::Session;

use crate::cache::reuse::Origin;
use crate::cache::reuse::Reuse;
use crate::cache::reuse::Why;
use crate::cache::reuse::may_serve;
use crate::listen::io::Cut;
use crate::message::chunked::ChunkFault;
use crate::proxy::answer;
use crate::proxy::context::RequestCtx;
use crate::proxy::store;
use crate::refusal::Refusal;
use crate::storage::flights::Stage;
use crate::storage::memory::Found;
use crate::upstream::fault::refusal_of;

/// Answers a failed request, if nothing was sent yet. What was begun is cut, visibly.
pub(crate) async fn answer(
    session: &mut Session,
    error: &Error,
    ctx: &mut RequestCtx,
) -> FailToProxy {
    if is_early_end(error) {
        return FailToProxy { error_code: 0, can_reuse_downstream: false };
    }
    let refusal = verdict(error, ctx);
    if let Some(flight) = &ctx.flight {
        // Those who wait are told; there is nobody else to answer.
        ctx.tell();
        flight.turn_out(Stage::Failed);
        return FailToProxy { error_code: 0, can_reuse_downstream: false };
    }
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

/// Whether `error` only says that an origin of HTTP/2 had answered wholly before it had taken all of the request. Of
/// that Pingora makes an error when all of the answer has been written.
pub(crate) fn is_early_end(error: &Error) -> bool {
    error.esource() == &ErrorSource::Unset
        && error.etype() == &ErrorType::WriteError
        && error.context.as_ref().is_some_and(|what| what.as_str() == "downstream_state is_errored")
}

/// What a failed request is refused with, and noted so; `None` when the client itself went away.
#[cold]
pub(crate) fn verdict(error: &Error, ctx: &mut RequestCtx) -> Option<Refusal> {
    let refusal = ctx.refusal.or_else(|| refusal_for(error)).map(|refusal| in_total(refusal, ctx));
    ctx.refusal = refusal.map(|refusal| unvalidated(refusal, ctx));
    ctx.refusal
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
/// ahead of asking it.
pub(crate) fn may_serve_stale(
    session: &mut Session,
    error: Option<&Error>,
    ctx: &mut RequestCtx,
) -> bool {
    let Some(failure) = error.and_then(Failure::of) else { return false };
    let found = session.cache.maybe_cache_meta().and_then(|meta| meta.extensions().get::<Found>());
    let (Some(Found(entry)), Some(policy)) = (found, ctx.route().map(|route| &route.cache)) else {
        return false;
    };
    let life = store::life_of(entry, policy);
    let detail = match may_serve(&life, &ctx.cache.asked, SystemTime::now(), Origin::Failing) {
        Reuse::Fresh => None,
        Reuse::Stale(window) => Some(window.label()),
        Reuse::Revalidate(why) | Reuse::MustNot(why) => {
            ctx.cache.unvalidated = Some(why);
            return false;
        }
    };
    // A refusal of ours is no origin's answer.
    if ctx.refusal.is_none()
        && let Some(ErrorType::HTTPStatus(status)) = error.map(Error::etype)
    {
        // Pingora asks this before anything else sees the header.
        ctx.origin.status.get_or_insert(*status);
    }
    if let Some(flight) = &ctx.flight {
        // Who waits judges for himself whether what is stored will do; what Pingora serves now, nobody
        // gets.
        ctx.refusal = error.map(refusal_of);
        ctx.tell();
        flight.turn_out(Stage::Failed);
        return true;
    }
    if failure == Failure::NoAnswer {
        // Pingora closes the client's connection after this: the response has to say so.
        session.set_keepalive(None);
    }
    ctx.refusal = None;
    let failed = ctx.origin.status.and_then(|status| StatusCode::from_u16(status).ok());
    ctx.cache.stale_after(failed, detail);
    true
}

/// In which way an origin failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Failure {
    /// It answered that it did.
    Answered,
    /// It gave no answer, or none that is one.
    NoAnswer,
}

impl Failure {
    /// `None` when this is no failure of the origin, or none that RFC 5861 §4 takes for one.
    fn of(error: &Error) -> Option<Self> {
        if error.esource() != &ErrorSource::Upstream {
            return None;
        }
        match error.etype() {
            ErrorType::HTTPStatus(500 | 502 | 503 | 504) => Some(Self::Answered),
            ErrorType::HTTPStatus(_) => None,
            _ => Some(Self::NoAnswer),
        }
    }
}

/// What must be validated and cannot be, since the origin is out of reach, is a 504 (RFC 9111
/// §5.2.2.2).
fn unvalidated(refusal: Refusal, ctx: &RequestCtx) -> Refusal {
    let must = matches!(ctx.cache.unvalidated, Some(Why::MustRevalidate | Why::NoCache));
    let out_of_reach = matches!(
        refusal,
        Refusal::NoPeer
            | Refusal::BreakerOpen
            | Refusal::Shed
            | Refusal::QueueFull
            | Refusal::QueueTimeout
            | Refusal::UpstreamOff
            | Refusal::ConnectFailed
            | Refusal::OriginTls
            | Refusal::OriginCertificate
            | Refusal::OriginDenied
            | Refusal::OriginClosed
    );
    if must && out_of_reach { Refusal::NotValidated } else { refusal }
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
            if io.get_ref().is_some_and(|inner| inner.is::<Cut>()) {
                return Some(Refusal::Shutdown);
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
