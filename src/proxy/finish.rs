//! Afterwards: one line in the access log, and the counters.

use std::time::Duration;
use std::time::Instant;
use std::time::SystemTime;

use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use http::Version;
use http::header;
use pingora::Error;
use pingora_proxy::Session;

use crate::cache::status::Outcome;
use crate::listen::conn::Conn;
use crate::message::admit::MOST_METHOD;
use crate::message::forwarded::Client;
use crate::message::target::Scheme;
use crate::message::trace;
use crate::observe::access_log::Record;
use crate::observe::metrics::labels::CacheResult;
use crate::observe::metrics::labels::Method;
use crate::observe::metrics::requests::Finished;
use crate::proxy::context::Arrival;
use crate::proxy::context::OriginSide;
use crate::proxy::context::RequestCtx;
use crate::proxy::fail;
use crate::refusal::Refusal;
use crate::route::Route;
use crate::route::action::Action;
use crate::runtime::Runtime;
use crate::terms::clock;

/// Records a request at its end. A refresh is nobody's request.
pub(crate) fn record(session: &Session, error: Option<&Error>, ctx: &mut RequestCtx) {
    if std::mem::replace(&mut ctx.logged, true) {
        return;
    }
    if ctx.arrival == Arrival::Refresh {
        return count_origin(&ctx.runtime, ctx.route(), &ctx.origin);
    }
    if error.is_some_and(|error| !fail::is_early_end(error)) {
        note_cut(ctx);
    }
    let request = session.req_header();
    let response = session.response_written();
    let status = response.filter(|r| r.status.as_u16() >= 200 || r.status.as_u16() == 101);
    tell(&Told {
        method: request.method.as_str().as_bytes(),
        version: Some(request.version),
        target: request.raw_path(),
        fields: Some(&request.headers),
        status: status.map(|r| r.status.as_u16()),
        sent: session.body_bytes_sent() as u64,
        received: session.body_bytes_read() as u64,
        ..told_of(ctx, Instant::now())
    });
}

/// Records a request that was passed through.
pub(crate) fn passed(
    ctx: &mut RequestCtx,
    fields: &HeaderMap,
    target: &[u8],
    status: Option<u16>,
    sent: u64,
) {
    ctx.logged = true;
    tell(&Told {
        method: b"GET",
        version: Some(ctx.version),
        target,
        fields: Some(fields),
        status,
        sent,
        // Of the turn in which the last of the answer came.
        ..told_of(ctx, clock::now())
    });
}

/// Records a request that was never finished: its task was dropped, or it panicked.
#[cold]
pub(crate) fn record_abandoned(ctx: &mut RequestCtx) {
    let arrived = ctx.conn.is_some() && ctx.arrival == Arrival::Client;
    if std::mem::replace(&mut ctx.logged, true) || !arrived {
        return;
    }
    note_cut(ctx);
    let mut status = None;
    if std::thread::panicking() {
        ctx.refusal = Some(Refusal::Internal);
        // What the connection answers then, where it can.
        let is_begun = ctx.first_byte.is_some() || ctx.version == Version::HTTP_2;
        status = (!is_begun).then(|| Refusal::Internal.status().as_u16());
    }
    let Some(admitted) = ctx.admitted.take() else { return };
    let host = admitted.authority.to_string();
    tell(&Told {
        target: admitted.target.as_str().as_bytes(),
        host: host.as_bytes(),
        status,
        ..told_of(ctx, Instant::now())
    });
}

/// Notes of a request that ended before its answer did, that the process cut it, if that is so.
#[cold]
pub(crate) fn note_cut(ctx: &mut RequestCtx) {
    if ctx.refusal.is_none() && ctx.runtime.draining.is_cut() {
        ctx.refusal = Some(Refusal::Shutdown);
    }
}

fn told_of(ctx: &RequestCtx, ended: Instant) -> Told<'_> {
    Told {
        runtime: &ctx.runtime,
        conn: ctx.conn.as_deref(),
        client: ctx.client.as_ref(),
        id: &ctx.id,
        started: ctx.started,
        ended,
        wall: ctx.wall,
        first_byte: ctx.first_byte,
        route: ctx.route,
        cache: ctx.cache.outcome,
        cache_reason: ctx.cache.status.detail,
        origin: Some(&ctx.origin),
        refusal: ctx.refusal,
        method: b"",
        version: None,
        target: b"",
        host: b"",
        fields: None,
        status: None,
        sent: 0,
        received: 0,
    }
}

/// What is told of a request.
pub(crate) struct Told<'a> {
    pub(crate) runtime: &'a Runtime,
    pub(crate) conn: Option<&'a Conn>,
    pub(crate) client: Option<&'a Client>,
    pub(crate) id: &'a str,
    pub(crate) started: Instant,
    /// When it was over.
    pub(crate) ended: Instant,
    pub(crate) wall: SystemTime,
    /// From its arrival to the first byte of the response.
    pub(crate) first_byte: Option<Duration>,
    pub(crate) route: Option<usize>,
    pub(crate) cache: Option<Outcome>,
    pub(crate) cache_reason: Option<&'static str>,
    /// What the origin had to do with it.
    pub(crate) origin: Option<&'a OriginSide>,
    pub(crate) refusal: Option<Refusal>,
    pub(crate) method: &'a [u8],
    pub(crate) version: Option<Version>,
    pub(crate) target: &'a [u8],
    /// The host, where `fields` are not known.
    pub(crate) host: &'a [u8],
    /// The request's fields.
    pub(crate) fields: Option<&'a HeaderMap>,
    pub(crate) status: Option<u16>,
    /// Bytes of the response's body.
    pub(crate) sent: u64,
    /// Bytes of the request's body.
    pub(crate) received: u64,
}

/// The fields of a request that are told of.
const TOLD: [HeaderName; 4] =
    [header::HOST, header::USER_AGENT, header::REFERER, trace::TRACEPARENT];

/// Of a request's fields those that are told of: for who tells later. Empty if nobody wants to know.
pub(crate) fn kept(headers: &HeaderMap, runtime: &Runtime) -> HeaderMap {
    if !runtime.access_log.is_on() {
        return HeaderMap::new();
    }
    let mut kept = HeaderMap::with_capacity(TOLD.len());
    for name in TOLD {
        if let Some(value) = headers.get(&name) {
            kept.insert(name, value.clone());
        }
    }
    kept
}

/// Writes the line and counts; once for each request.
pub(crate) fn tell(told: &Told<'_>) {
    let runtime = told.runtime;
    let duration = told.ended.saturating_duration_since(told.started);
    count(told, duration);
    if !runtime.access_log.is_on() {
        return;
    }
    let route = told.route.map(|index| &runtime.plan.routes.routes()[index]);
    let origin = told.origin.filter(|origin| origin.attempts > 0);
    let upstream = match route.map(|route| &route.action) {
        Some(Action::Upstream(index)) if origin.is_some() => {
            let index = origin.and_then(|origin| origin.upstream).unwrap_or(*index);
            Some(&*runtime.plan.upstreams[index].name)
        }
        _ => None,
    };
    let (path, query) = match told.target.iter().position(|&byte| byte == b'?') {
        Some(at) => (&told.target[..at], Some(&told.target[at + 1..])),
        None => (told.target, None),
    };
    let field = |name| told.fields.and_then(|fields| fields.get(name)).map(HeaderValue::as_bytes);
    let conn = told.conn;
    runtime.access_log.log(&Record {
        time: told.wall,
        request_id: told.id,
        // Of what was refused before anybody asked who it is from, the peer is what is known.
        client: told
            .client
            .and_then(|client| client.address)
            .or_else(|| conn.map(|conn| conn.peer.ip())),
        peer: conn.map(|conn| conn.peer),
        listener: conn.map_or("", |conn| &conn.listener_name),
        protocol: match told.version {
            None => "",
            Some(Version::HTTP_10) => "HTTP/1.0",
            Some(Version::HTTP_2) => "HTTP/2",
            Some(_) => "HTTP/1.1",
        },
        tls_version: conn.and_then(|conn| conn.tls.as_ref()).map(|tls| tls.version.name()),
        tls_sni: conn.and_then(|conn| conn.tls.as_ref()?.server_name.as_deref()),
        tls_client: conn.and_then(Conn::client),
        // One that is refused for its length too.
        method: &told.method[..told.method.len().min(MOST_METHOD)],
        scheme: told.client.map_or(Scheme::Http, |client| client.scheme).as_str(),
        host: field(header::HOST).unwrap_or(told.host),
        path,
        query,
        status: told.status,
        bytes_sent: told.sent,
        bytes_received: told.received,
        duration,
        time_to_first_byte: told.first_byte,
        route: route.map(|route| &*route.name),
        upstream,
        upstream_address: origin.and_then(|origin| origin.address().map(|address| &**address)),
        upstream_status: told.origin.and_then(|origin| origin.status),
        upstream_time: told.origin.and_then(|origin| origin.took),
        attempts: told.origin.map_or(0, |origin| origin.attempts),
        hedge: told.origin.and_then(|origin| origin.hedge),
        cache: told.cache.map(Outcome::label),
        cache_reason: told.cache_reason,
        refusal: told.refusal,
        user_agent: field(header::USER_AGENT),
        referer: field(header::REFERER),
        traceparent: field(trace::TRACEPARENT),
    });
}

fn count(told: &Told<'_>, duration: Duration) {
    let runtime = told.runtime;
    let listener = told.conn.map_or(0, |conn| conn.listener);
    let Some(route) = runtime.routes.of(listener, told.route) else { return };
    route.record(&Finished {
        method: Method::from_bytes(told.method),
        status: told.status,
        cache: match told.cache {
            Some(Outcome::Hit) => CacheResult::Hit,
            Some(Outcome::Miss) => CacheResult::Miss,
            Some(Outcome::Stale) => CacheResult::Stale,
            Some(Outcome::Expired) => CacheResult::Expired,
            Some(Outcome::Revalidated) => CacheResult::Revalidated,
            Some(Outcome::Bypass) => CacheResult::Bypass,
            None => CacheResult::None,
        },
        duration,
        time_to_first_byte: told.first_byte,
    });
    if let Some(reason) = told.cache_reason {
        runtime.metrics.cache_reason(reason);
    }
    if let Some(metrics) = runtime.listener_metrics.get(listener) {
        metrics.transferred(told.received, told.sent);
    }
    if let Some(refusal) = told.refusal {
        runtime.metrics.refused(refusal);
    }
    let route = told.route.map(|index| &runtime.plan.routes.routes()[index]);
    if let Some(origin) = told.origin {
        count_origin(runtime, route, origin);
    }
}

/// Counts what the origin did, where it was asked.
fn count_origin(runtime: &Runtime, route: Option<&Route>, origin: &OriginSide) {
    if let Some(Action::Upstream(index)) = route.map(|route| &route.action)
        && let (Some(status), Some(took)) = (origin.status, origin.took)
        && !origin.by_errand
    {
        runtime.upstream_metrics[origin.upstream.unwrap_or(*index)].answered(status, took);
    }
}
