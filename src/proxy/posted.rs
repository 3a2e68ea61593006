//! The answer to a POST that says it is what a GET of the same URL gets, and for how long: stored for those
//! who get it (RFC 9110 §9.3.3). A POST itself is never answered from the store.

use std::time::SystemTime;

use bytes::Bytes;
use http::Method;
use http::StatusCode;
use http::header;
use pingora::http::ResponseHeader;
use pingora_proxy::Session;

use crate::cache::Exchange;
use crate::cache::Payload;
use crate::cache::Policy;
use crate::cache::Posts;
use crate::cache::Request;
use crate::cache::Response;
use crate::cache::forget;
use crate::cache::lookup::Look;
use crate::cache::lookup::may_look;
use crate::cache::storable::Keep;
use crate::cache::storable::may_keep;
use crate::message::hops;
use crate::proxy::context::Posted;
use crate::proxy::context::RequestCtx;
use crate::proxy::deliver;
use crate::proxy::lookup;
use crate::proxy::store;
use crate::storage::memory::Arrival;
use crate::storage::memory::Belonging;
use crate::storage::memory::Generation;

/// Whether the answer to this request may be stored for those who get its URL.
pub(crate) fn may_answer_a_get(request: &Request<'_>, policy: &Policy) -> bool {
    let get = Request { method: &Method::GET, payload: Payload::Absent, ..*request };
    policy.posts == Posts::Stored
        && request.method == Method::POST
        && matches!(may_look(&get, policy), Look::Yes(_))
}

/// Before the answer invalidates what is stored: whether it may be stored itself afterwards, for nothing
/// that it could be has been purged since the origin was asked.
pub(crate) fn consider(session: &Session, response: &ResponseHeader, ctx: &mut RequestCtx) {
    let Posted::Asked(asked) = ctx.cache.posted else { return };
    let memory = ctx.runtime.memory;
    // Before it is looked: a purge from here on shows in `begin`.
    let now = memory.generation();
    let current = as_stored(session, response, ctx, asked, |arrival| memory.is_current(arrival));
    ctx.cache.posted = match current {
        Some(true) => Posted::Asked(now),
        Some(false) | None => Posted::Not,
    };
}

/// Begins to store the answer, after it invalidated what was stored by so many purges.
pub(crate) fn begin(
    session: &Session,
    response: &ResponseHeader,
    ctx: &mut RequestCtx,
    purges: u64,
) {
    let Posted::Asked(considered) = std::mem::take(&mut ctx.cache.posted) else { return };
    let memory = ctx.runtime.memory;
    let now = memory.generation();
    // Of what others purged meanwhile nobody knows whether it concerns this.
    if now.since(considered) != purges {
        return;
    }
    let fill = as_stored(session, response, ctx, now, |arrival| memory.begin_fill(arrival).ok());
    if let Some(fill) = fill.flatten() {
        ctx.cache.posted = Posted::Filling(Box::new(fill));
        ctx.cache.status = ctx.cache.status.stored();
    }
}

/// What `act` makes of the answer as it would be stored; `None` where it is not to be.
fn as_stored<T>(
    session: &Session,
    response: &ResponseHeader,
    ctx: &RequestCtx,
    asked: Generation,
    act: impl FnOnce(&Arrival<'_>) -> T,
) -> Option<T> {
    let (route, admitted) = (ctx.route()?, ctx.admitted.as_ref()?);
    let target = lookup::target_of(admitted, ctx.scheme());
    // Its end has to show.
    let length = deliver::length(response)?;
    if response.status != StatusCode::OK || !forget::is_of_its_target(&target, &response.headers) {
        return None;
    }
    let fields = &session.req_header().headers;
    let get = lookup::view(&Method::GET, fields, Some(admitted)).with_payload(Payload::Absent);
    let now = SystemTime::now();
    let requested = ctx.origin.began.map_or(now, |began| now - began.elapsed());
    let judged = Response { status: response.status, headers: &response.headers };
    let exchange = Exchange { requested, arrived: now };
    let kept = match may_keep(&get, &judged, &route.cache, exchange) {
        Keep::Yes(kept) if kept.lifetime_source.is_stated() => kept,
        Keep::Yes(_) | Keep::No(_) => return None,
    };
    let mut headers = response.headers.clone();
    for name in hops::hop_by_hop(&headers).iter().chain(&kept.strip) {
        headers.remove(name);
    }
    headers.remove(header::AGE);
    let key = lookup::key_of(&ctx.runtime, route, admitted, ctx.scheme(), fields)?;
    Some(act(&Arrival {
        key: key.as_bytes(),
        belonging: Belonging { resource: key.resource_len(), route: Some(&route.name) },
        request: Some(fields),
        status: response.status,
        headers: &headers,
        times: store::times(&kept.life, kept.life.arrived),
        length: Some(length),
        largest: route.cache.max_object,
        asked,
    }))
}

/// Takes a piece of the body, and shows the whole once it has ended.
pub(crate) fn take(body: Option<&Bytes>, end: bool, ctx: &mut RequestCtx) {
    let Posted::Filling(fill) = &mut ctx.cache.posted else { return };
    let taken = body.is_none_or(|body| fill.push(body).is_ok());
    if !taken {
        ctx.cache.posted = Posted::Not;
    } else if end && let Posted::Filling(fill) = std::mem::take(&mut ctx.cache.posted) {
        // Cut, purged meanwhile or of another length, it is as if it had not been there.
        let _ = fill.finish();
    }
}
