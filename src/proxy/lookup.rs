//! Do we already know the answer? The long way, through Pingora's cache machinery.

use std::sync::Arc;
use std::time::SystemTime;

use http::HeaderMap;
use http::Method;
use http::header;
use pingora::Error;
use pingora::ErrorType;
use pingora::Result;
use pingora_cache::CacheKey;
use pingora_cache::CacheMeta;
use pingora_cache::ForcedFreshness;
use pingora_proxy::Session;

use crate::cache::Payload;
use crate::cache::Policy;
use crate::cache::Request;
use crate::cache::course;
use crate::cache::course::Cause;
use crate::cache::directives::RequestDirectives;
use crate::cache::key::Key;
use crate::cache::key::Target;
use crate::cache::lookup::Bypass;
use crate::cache::reuse::Origin;
use crate::cache::reuse::Reuse;
use crate::cache::reuse::Why;
use crate::cache::reuse::Window;
use crate::cache::reuse::may_serve;
use crate::cache::status::Forward;
use crate::cache::status::Outcome;
use crate::cache::storable::Forbids;
use crate::message::admit::Admitted;
use crate::message::target::Scheme;
use crate::proxy::context::Posted;
use crate::proxy::context::RequestCtx;
use crate::proxy::posted;
use crate::proxy::store;
use crate::route::Route;
use crate::route::action::Action;
use crate::runtime::Runtime;
use crate::runtime::partial::Asking;
use crate::runtime::place;
use crate::storage::memory::Belongs;
use crate::storage::memory::Found;
use crate::storage::memory::Largest;
use crate::storage::memory::Observed;
use crate::storage::memory::Observer;

/// Turns the cache on for a request that asks the origin itself, if the response may be stored.
pub(crate) fn open(session: &mut Session, ctx: &RequestCtx) {
    if ctx.cache.key.is_some() {
        session.cache.enable(ctx.runtime.memory, None, None, None, None);
    }
}

/// Finds out whether the store may be asked, and by which key.
pub(crate) fn prepare(session: &mut Session, ctx: &mut RequestCtx) {
    let runtime = Arc::clone(&ctx.runtime);
    let Some(route) = ctx.route.map(|index| &runtime.plan.routes.routes()[index]) else { return };
    if !matches!(route.action, Action::Upstream(_)) {
        return;
    }
    if route.cache.enabled && put_in_normal_form(session, route).is_err() {
        return;
    }
    let payload = payload(session);
    let request = session.req_header();
    let view = view(&request.method, &request.headers, ctx.admitted.as_ref()).with_payload(payload);
    let asked = match course::start(&view, &route.cache) {
        Ok(asked) => asked,
        Err(course) => {
            let other_method = course.cause == Cause::Past(Bypass::Method);
            if other_method && posted::may_answer_a_get(&view, &route.cache) {
                ctx.cache.posted = Posted::Asked(runtime.memory.generation());
            }
            return ctx.cache.take(&course);
        }
    };
    ctx.cache.asked = asked;
    ctx.cache.forbidden = Forbids::of(&view, &route.cache);
    ctx.cache.key = ctx
        .admitted
        .as_ref()
        .and_then(|admitted| key_of(&runtime, route, admitted, ctx.scheme(), &request.headers));
    if ctx.cache.key.is_some() {
        ctx.cache.fields = Some(Arc::new(request.headers.clone()));
    }
}

/// From here on everybody reads the normal form: the key, the variants, the origin.
fn put_in_normal_form(session: &mut Session, route: &Route) -> Result<()> {
    if route.cache.normalise.is_empty() {
        return Ok(());
    }
    let request = session.req_header_mut();
    for (name, value) in route.cache.normalise.changes(&request.headers) {
        match value {
            Some(value) => request.insert_header(name, value)?,
            None => drop(request.remove_header(&name)),
        }
    }
    Ok(())
}

/// What the policy sees of a request.
pub(crate) fn view<'a>(
    method: &'a Method,
    headers: &'a HeaderMap,
    admitted: Option<&'a Admitted>,
) -> Request<'a> {
    let request = Request::new(method, headers);
    match admitted.map(|admitted| &admitted.target) {
        Some(target) => request.with_target(target.path(), target.query()),
        None => request,
    }
}

/// Whether content follows the header.
pub(crate) fn payload(session: &mut Session) -> Payload {
    let downstream = session.as_downstream_mut();
    if downstream.is_body_empty() { Payload::Absent } else { Payload::Present }
}

/// The key of a request that takes this route; `None` where no upstream answers it.
pub(crate) fn key_of(
    runtime: &Runtime,
    route: &Route,
    admitted: &Admitted,
    scheme: Scheme,
    headers: &HeaderMap,
) -> Option<Key> {
    place::own(runtime, route, &target_of(admitted, scheme), headers)
}

/// The request as it is asked which part of an object answers it.
pub(crate) fn asking<'a>(
    session: &'a Session,
    ctx: &'a RequestCtx,
    policy: &'a Policy,
    base: &'a Key,
    now: SystemTime,
) -> Option<Asking<'a>> {
    Some(Asking {
        runtime: &ctx.runtime,
        policy,
        method: &session.req_header().method,
        headers: ctx.cache.fields.as_ref()?,
        asked: &ctx.cache.asked,
        base,
        now,
    })
}

/// What is asked for, in whatever space.
pub(crate) fn target_of(admitted: &Admitted, scheme: Scheme) -> Target<'_> {
    Target {
        space: "",
        scheme: scheme.as_str(),
        host: admitted.authority.host(),
        port: admitted.authority.port(),
        path: admitted.target.path(),
        query: admitted.target.query(),
    }
}

/// Finds out anew under which key the answer is, where responses to other URLs may be as good.
pub(crate) fn settle(ctx: &mut RequestCtx) {
    let runtime = Arc::clone(&ctx.runtime);
    let in_parts = ctx.cache.piece.is_some() || ctx.cache.range.is_some();
    if in_parts || (runtime.variances.is_empty() && ctx.cache.rule.is_none()) {
        return;
    }
    let (Some(route), Some(admitted), Some(fields)) =
        (ctx.route(), &ctx.admitted, &ctx.cache.fields)
    else {
        return;
    };
    let target = target_of(admitted, ctx.scheme());
    if let Some(place) = place::of(&runtime, route, &target, fields) {
        ctx.cache.key = Some(place.key);
        ctx.cache.rule = place.rule;
    }
}

/// The key, with all that the store selects by.
pub(crate) fn key(ctx: &RequestCtx) -> Result<CacheKey> {
    let (Some(key), Some(fields)) = (&ctx.cache.key, &ctx.cache.fields) else {
        return Error::e_explain(ErrorType::InternalError, "no key for an uncached request");
    };
    let Some(route) = ctx.route() else {
        return Error::e_explain(ErrorType::InternalError, "no route for a cached request");
    };
    let belongs = Belongs { resource: key.resource_len(), route: Arc::clone(&route.name) };
    let mut key = ctx.runtime.memory.cache_key(key.as_bytes(), "", Arc::clone(fields));
    key.extensions.insert(belongs);
    // A body without an announced length is not stored when it has grown beyond this.
    key.extensions.insert(Largest(route.cache.max_object));
    if let Some(flight) = &ctx.flight {
        key.extensions.insert(Observed(Arc::clone(flight) as Arc<dyn Observer>));
    }
    Ok(key)
}

/// Judges what was found. Our verdict replaces Pingora's own idea of freshness.
pub(crate) fn judge(meta: &CacheMeta, ctx: &mut RequestCtx) -> ForcedFreshness {
    let Some(Found(entry)) = meta.extensions().get::<Found>() else {
        ctx.cache.forwarded(Forward::Miss, None, Outcome::Miss);
        return ForcedFreshness::ForceMiss;
    };
    let Some(policy) = ctx.route().map(|route| Arc::clone(&route.cache)) else {
        return ForcedFreshness::ForceMiss;
    };
    let now = SystemTime::now();
    let life = store::life_of(entry, &policy);
    match may_serve(&life, &ctx.cache.asked, now, Origin::Reachable) {
        Reuse::Fresh => {
            ctx.cache.hit(life.remaining_seconds(now));
            ForcedFreshness::ForceFresh
        }
        Reuse::Stale(window @ Window::MaxStale) => {
            ctx.cache.hit(life.remaining_seconds(now));
            ctx.cache.stale(Some(window.label()));
            ForcedFreshness::ForceFresh
        }
        // The request itself refreshes; what may be served if the origin fails is judged then.
        Reuse::Stale(Window::WhileRevalidate | Window::IfError) => {
            expired(ctx, Why::Stale);
            ForcedFreshness::ForceExpiredServeStale { expired_at: None }
        }
        Reuse::Revalidate(why) | Reuse::MustNot(why) => {
            expired(ctx, why);
            ForcedFreshness::ForceExpiredServeStale { expired_at: None }
        }
    }
}

/// What is stored has to be confirmed.
pub(crate) fn expired(ctx: &mut RequestCtx, why: Why) {
    ctx.cache.status = course::expired(why);
    ctx.cache.outcome = Some(Outcome::Expired);
}

/// Nothing usable was found.
pub(crate) fn missed(session: &mut Session, ctx: &mut RequestCtx) {
    note_missing(ctx);
    session.cache.cache_miss();
}

/// Nothing is stored that this request selects, though something may be for others of the same URI.
fn note_missing(ctx: &mut RequestCtx) {
    let why = if has_variants(ctx) { Forward::VaryMiss } else { Forward::UriMiss };
    ctx.cache.forwarded(why, None, Outcome::Miss);
}

/// Whether something is stored for other requests of the same URI.
pub(crate) fn has_variants(ctx: &RequestCtx) -> bool {
    let runtime = &ctx.runtime;
    let (Some(key), Some(fields)) = (&ctx.cache.key, &ctx.cache.fields) else { return false };
    let in_parts = ctx.cache.piece.is_some() || ctx.cache.range.is_some();
    if !runtime.memory.variants(key.as_bytes()).is_empty() {
        return true;
    }
    let (Some(route), Some(admitted)) = (ctx.route(), &ctx.admitted) else { return false };
    !in_parts
        && !runtime.variances.is_empty()
        && place::has_variants(runtime, route, &target_of(admitted, ctx.scheme()), fields)
}

/// Whether the client wants an answer only if we have one.
pub(crate) fn is_only_if_cached(session: &Session, route: &Route) -> bool {
    let headers = &session.req_header().headers;
    route.cache.enabled
        && headers.contains_key(header::CACHE_CONTROL)
        && RequestDirectives::of(headers, route.cache.client_directives).only_if_cached
}
