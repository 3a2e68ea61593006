//! Keep it or not, and for how long.

use std::sync::Arc;
use std::time::Instant;
use std::time::SystemTime;

use http::HeaderMap;
use http::StatusCode;
use http::header;
use pingora::http::ResponseHeader;
use pingora_cache::CacheMeta;
use pingora_cache::CachePhase;
use pingora_cache::NoCacheReason;
use pingora_cache::RespCacheable;
use pingora_proxy::Session;

use crate::cache::Exchange;
use crate::cache::Payload;
use crate::cache::Response;
use crate::cache::directives::RequestDirectives;
use crate::cache::freshness::Life;
use crate::cache::key::Key;
use crate::cache::reuse::Origin;
use crate::cache::reuse::Reuse;
use crate::cache::reuse::may_serve;
use crate::cache::revalidate;
use crate::cache::revalidate::Freshens;
use crate::cache::status::Outcome;
use crate::cache::storable::Concerns;
use crate::cache::storable::Keep;
use crate::cache::storable::Kept;
use crate::cache::storable::may_keep;
use crate::message::hops;
use crate::proxy::context::Asked;
use crate::proxy::context::RequestCtx;
use crate::proxy::lookup;
use crate::route::Route;
pub(crate) use crate::runtime::life::life;
pub(crate) use crate::runtime::life::life_of;
use crate::runtime::place;
use crate::storage::memory::End;
use crate::storage::memory::Found;
use crate::storage::memory::Generation;
use crate::storage::memory::Times;
use crate::storage::memory::Under;
use crate::upstream::Protocol;

/// Judges a response, or what a 304 made of a stored one.
pub(crate) fn keep(
    session: &Session,
    response: &ResponseHeader,
    ctx: &mut RequestCtx,
) -> RespCacheable {
    let judged = judge(session, response, ctx);
    // Before those who wait can see the response.
    ctx.tell();
    if let (RespCacheable::Cacheable(meta), Some(key), Some(fields)) =
        (&judged, &ctx.cache.key, &ctx.cache.fields)
    {
        let reuse = meta.extensions().get::<Verdict>().map_or(Reuse::Fresh, |verdict| verdict.0);
        let flights = &ctx.runtime.flights;
        flights.note_shared(key.as_bytes(), fields, reuse, Instant::now());
    }
    judged
}

fn judge(session: &Session, response: &ResponseHeader, ctx: &mut RequestCtx) -> RespCacheable {
    if !session.cache.enabled() {
        return RespCacheable::Uncacheable(NoCacheReason::NeverEnabled);
    }
    let runtime = Arc::clone(&ctx.runtime);
    let Some(route) = ctx.route.map(|index| &runtime.plan.routes.routes()[index]) else {
        return RespCacheable::Uncacheable(NoCacheReason::NeverEnabled);
    };
    let now = SystemTime::now();
    let requested = ctx.origin.began.map_or(now, |began| now - began.elapsed());
    let exchange = Exchange { requested, arrived: now };

    let validated = (session.cache.phase() == CachePhase::Stale)
        .then(|| session.cache.maybe_cache_meta())
        .flatten()
        .and_then(|meta| meta.extensions().get::<Found>())
        .filter(|_| ctx.origin.not_modified.is_some())
        .cloned();
    if let (Some(Found(entry)), Some(fresh)) = (&validated, &ctx.origin.not_modified)
        && let Freshens::No(mismatch) = revalidate::freshens(&entry.headers(), fresh)
    {
        // The origin no longer knows what is stored; see `deliver::dress` for what comes now.
        runtime.memory.remove(entry);
        ctx.origin.conditions = Asked::Again;
        ctx.cache.status = ctx.cache.status.with_detail(mismatch.label());
        ctx.cache.concerns = Concerns::Itself;
        return RespCacheable::Uncacheable(NoCacheReason::Custom(mismatch.label()));
    }
    if validated.is_some() {
        ctx.cache.outcome = Some(Outcome::Revalidated);
    } else if (ctx.cache.piece.is_some() || ctx.cache.range.is_some())
        && !stands_for_a_piece(response)
    {
        ctx.cache.status = ctx.cache.status.with_detail(NOT_A_PIECE);
        return RespCacheable::Uncacheable(NoCacheReason::Custom(NOT_A_PIECE));
    }
    let mut header = match (&validated, &ctx.origin.not_modified) {
        (Some(Found(entry)), Some(fresh)) => {
            let merged = revalidate::merge(&entry.headers(), fresh, now);
            let Ok(mut header) = ResponseHeader::build_no_case(entry.status(), Some(merged.len()))
            else {
                return RespCacheable::Uncacheable(NoCacheReason::InternalError);
            };
            for (name, value) in &merged {
                if header.append_header(name, value).is_err() {
                    return RespCacheable::Uncacheable(NoCacheReason::InternalError);
                }
            }
            if let Some(length) = entry.unsaid_length()
                && header.insert_header(header::CONTENT_LENGTH, length).is_err()
            {
                return RespCacheable::Uncacheable(NoCacheReason::InternalError);
            }
            header
        }
        _ => response.clone(),
    };

    let request = session.req_header();
    let view = lookup::view(&request.method, &request.headers, ctx.admitted.as_ref())
        .with_payload(Payload::Absent)
        .with_uses(ctx.cache.uses.unwrap_or(u32::MAX));
    let judged = Response { status: header.status, headers: &header.headers };
    let replaces = session.cache.phase() == CachePhase::Stale && validated.is_none();
    let kept = match may_keep(&view, &judged, &route.cache, exchange) {
        Keep::Yes(kept) if replaces => kept.may_replace(header.status).map(|()| kept),
        Keep::Yes(kept) => Ok(kept),
        Keep::No(reason) => Err(reason),
    };
    let kept = match kept {
        Ok(_) if !place::stays(ctx.cache.rule.as_deref(), &header.headers) => {
            // What it stands for would be good for other URLs than it says, and those who wait ask for such.
            let found = session.cache.maybe_cache_meta().and_then(|m| m.extensions().get());
            if let Some(Found(entry)) = found {
                runtime.memory.remove(entry);
            }
            ctx.cache.status = ctx.cache.status.with_detail(NO_VARY_SEARCH);
            ctx.cache.concerns = Concerns::Itself;
            return RespCacheable::Uncacheable(NoCacheReason::Custom(NO_VARY_SEARCH));
        }
        Ok(kept) => kept,
        Err(reason) => {
            if let Some(Found(entry)) = validated.as_ref().filter(|_| reason.is_of_the_response()) {
                // Confirmed, it may answer this once; from now on it may not be here.
                runtime.memory.remove(entry);
            }
            ctx.cache.status = ctx.cache.status.with_detail(reason.label());
            ctx.cache.concerns = reason.concerns();
            return RespCacheable::Uncacheable(NoCacheReason::Custom(reason.label()));
        }
    };
    for name in hops::hop_by_hop(&header.headers) {
        header.remove_header(&name);
    }
    header.remove_header(&header::TRANSFER_ENCODING);
    header.remove_header(&header::AGE);
    for name in &kept.strip {
        for value in header.headers.get_all(name) {
            ctx.origin.private.get_or_insert_default().append(name, value.clone());
        }
        header.remove_header(name);
    }
    ctx.cache.status = ctx.cache.status.stored();
    let under = under(session, &header.headers, route, ctx);
    let reuse = may_serve(&kept.life, &RequestDirectives::default(), now, Origin::Reachable);
    let mut meta = meta(&kept, header, validated);
    meta.extensions_mut().insert(Verdict(reuse));
    let upstream = ctx.upstream().map(|upstream| runtime.plan.upstreams[upstream].protocol);
    meta.extensions_mut().insert(match upstream {
        Some(Protocol::Http2) => End::Stream,
        Some(Protocol::Http1) | None => End::Length,
    });
    if let Some(key) = under {
        let resource = key.resource_len();
        meta.extensions_mut().insert(Under { key: key.into_bytes(), resource });
    }
    RespCacheable::Cacheable(meta)
}

/// Where a response is stored that says it is good for other URLs as well; `None`: where it was looked for.
fn under(session: &Session, response: &HeaderMap, route: &Route, ctx: &RequestCtx) -> Option<Key> {
    let (admitted, fields) = (ctx.admitted.as_ref()?, ctx.cache.fields.as_ref()?);
    if ctx.cache.rule.is_some() || ctx.cache.piece.is_some() || ctx.cache.range.is_some() {
        return None;
    }
    let asked = session.cache.maybe_cache_key()?.extensions.get::<Generation>()?;
    let target = lookup::target_of(admitted, ctx.scheme());
    place::for_response(&ctx.runtime, route, (&target, fields), response, *asked)
}

/// Whether a response that is stored may answer others as it is.
#[derive(Debug, Clone, Copy)]
struct Verdict(Reuse);

/// Why what came in place of a response that was good for several URLs is not stored under its key: it says
/// something else of queries.
const NO_VARY_SEARCH: &str = "no-vary-search";

/// Why the answer to the request for a piece, or for a range, is not stored under its key: it is the whole, or says
/// only that there is no such piece.
pub(super) const NOT_A_PIECE: &str = "not-a-piece";

/// Whether this may be stored as the answer to the request for a piece: it is the piece (see `receive`),
/// or would be the answer to the request for any.
fn stands_for_a_piece(response: &ResponseHeader) -> bool {
    match response.status {
        StatusCode::OK => response.headers.contains_key(header::CONTENT_RANGE),
        StatusCode::RANGE_NOT_SATISFIABLE => false,
        _ => true,
    }
}

fn meta(kept: &Kept, header: ResponseHeader, found: Option<Found>) -> CacheMeta {
    let life = &kept.life;
    let created = match &found {
        Some(Found(entry)) => entry.times().created,
        None => life.arrived,
    };
    let times = times(life, created);
    let seconds = |window: std::time::Duration| u32::try_from(window.as_secs()).unwrap_or(u32::MAX);
    let mut meta = CacheMeta::new(
        times.fresh_until(),
        created,
        seconds(times.while_revalidate),
        seconds(times.if_error),
        header,
    );
    meta.set_epoch_override(times.epoch());
    meta.extensions_mut().insert(times);
    if let Some(found) = found {
        meta.extensions_mut().insert(found);
    }
    meta
}

/// The times to store with a response that was judged.
pub(crate) fn times(life: &Life, created: SystemTime) -> Times {
    Times {
        created,
        responded: life.arrived,
        lifetime: life.lifetime,
        age: life.age_at_arrival,
        while_revalidate: life.stale_while_revalidate,
        if_error: life.stale_if_error,
    }
}
