//! What the answer to a HEAD says of the stored answer to a GET (RFC 9111 §4.3.5).

use std::sync::Arc;
use std::time::SystemTime;

use http::HeaderMap;
use http::Method;
use http::StatusCode;
use http::header;
use pingora::http::ResponseHeader;
use pingora_proxy::Session;

use crate::cache::Exchange;
use crate::cache::Request;
use crate::cache::Response;
use crate::cache::lookup::Look;
use crate::cache::lookup::may_look;
use crate::cache::revalidate::HeadUpdate;
use crate::cache::revalidate::freshen_by_head;
use crate::cache::storable::Keep;
use crate::cache::storable::may_keep;
use crate::message::hops;
use crate::proxy::context::RequestCtx;
use crate::proxy::lookup;
use crate::proxy::store;
use crate::route::Route;
use crate::runtime::place;
use crate::storage::memory::Arrival;
use crate::storage::memory::Belonging;
use crate::storage::memory::Entry;

/// Takes what a HEAD brought that went past the cache into what is stored: the fields of what is still the
/// same are updated, what is another is let go.
pub(crate) fn by_head(session: &Session, response: &ResponseHeader, ctx: &RequestCtx) {
    let request = session.req_header();
    if request.method != Method::HEAD || response.status != StatusCode::OK {
        return;
    }
    let (Some(route), Some(admitted)) = (ctx.route(), &ctx.admitted) else { return };
    let headers = &request.headers;
    // What a GET with these fields would have been answered with. What answers an Authorization says
    // nothing of what is everybody's.
    let asked = lookup::view(&Method::GET, headers, Some(admitted));
    let past = ctx.cache.key.is_none() && !headers.contains_key(header::AUTHORIZATION);
    if !past || !matches!(may_look(&asked, &route.cache), Look::Yes(_)) {
        return;
    }
    let now = SystemTime::now();
    let target = lookup::target_of(admitted, ctx.scheme());
    let Some(place) = place::of(&ctx.runtime, route, &target, headers) else { return };
    let chosen = |entry: &Arc<Entry>| entry.status() == StatusCode::OK && entry.selects(headers);
    let Some(entry) = ctx.runtime.memory.variants(place.key.as_bytes()).into_iter().find(chosen)
    else {
        return;
    };
    let stored = entry.response_header();
    match freshen_by_head(&stored.headers, &response.headers, now) {
        // Under its rule it was good for other URLs.
        HeadUpdate::Freshen(fresh) if !place::stays(place.rule.as_deref(), &fresh) => {
            ctx.runtime.memory.remove(&entry);
        }
        HeadUpdate::Freshen(fresh) => freshen(&entry, fresh, (&asked, route), ctx, now),
        HeadUpdate::Invalidate => {
            ctx.runtime.memory.remove(&entry);
        }
    }
}

fn freshen(
    entry: &Arc<Entry>,
    mut fresh: HeaderMap,
    (asked, route): (&Request<'_>, &Route),
    ctx: &RequestCtx,
    now: SystemTime,
) {
    let memory = ctx.runtime.memory;
    let requested = ctx.origin.began.map_or(now, |began| now - began.elapsed());
    let exchange = Exchange { requested, arrived: now };
    let response = Response { status: entry.status(), headers: &fresh };
    let kept = match may_keep(asked, &response, &route.cache, exchange) {
        Keep::Yes(kept) => kept,
        Keep::No(reason) if reason.is_of_the_response() => {
            memory.remove(entry);
            return;
        }
        Keep::No(_) => return,
    };
    for name in hops::hop_by_hop(&fresh).iter().chain(&kept.strip) {
        fresh.remove(name);
    }
    fresh.remove(header::AGE);
    let arrival = Arrival {
        key: entry.key(),
        belonging: Belonging { route: Some(&route.name), ..Belonging::default() },
        request: Some(asked.headers),
        status: entry.status(),
        headers: &fresh,
        times: store::times(&kept.life, entry.times().created),
        length: None,
        largest: u64::MAX,
        asked: memory.generation(),
    };
    if let Err(reason) = memory.refresh(entry, &arrival) {
        log::debug!(target: "edgeproxy::cache", "what a HEAD brought is not kept: {reason:?}");
    }
}
