//! Afterwards: one line in the access log, and the counters.

use std::time::Duration;

use http::Version;
use http::header;
use pingora::Error;
use pingora_proxy::Session;

use crate::cache::status::Outcome;
use crate::observe::access_log::Record;
use crate::observe::metrics::labels::CacheResult;
use crate::observe::metrics::labels::Method;
use crate::observe::metrics::requests::Finished;
use crate::proxy::context::Arrival;
use crate::proxy::context::RequestCtx;
use crate::route::action::Action;

/// Records a request at its end. A refresh is nobody's request.
pub(crate) fn record(session: &Session, _error: Option<&Error>, ctx: &mut RequestCtx) {
    if std::mem::replace(&mut ctx.logged, true) || ctx.arrival == Arrival::Refresh {
        return;
    }
    let request = session.req_header();
    let response = session.response_written();
    let status = response.filter(|r| r.status.as_u16() >= 200 || r.status.as_u16() == 101);
    let told = Told {
        method: request.method.as_str().as_bytes(),
        protocol: match request.version {
            Version::HTTP_10 => "HTTP/1.0",
            Version::HTTP_2 => "HTTP/2",
            _ => "HTTP/1.1",
        },
        status: status.map(|r| r.status.as_u16()),
        sent: session.body_bytes_sent() as u64,
        received: session.body_bytes_read() as u64,
        user_agent: request.headers.get(header::USER_AGENT).map(|v| v.as_bytes()),
        referer: request.headers.get(header::REFERER).map(|v| v.as_bytes()),
        traceparent: request.headers.get("traceparent").map(|v| v.as_bytes()),
        host: session.get_header_bytes(header::HOST),
        target: request.raw_path(),
    };
    tell(ctx, &told);
}

/// Records a request that was never finished: its task was dropped, or it panicked.
pub(crate) fn record_abandoned(ctx: &mut RequestCtx) {
    let arrived = ctx.conn.is_some() && ctx.arrival == Arrival::Client;
    if std::mem::replace(&mut ctx.logged, true) || !arrived {
        return;
    }
    let Some(admitted) = ctx.admitted.take() else { return };
    let target = admitted.target.as_str().to_owned();
    let host = admitted.authority.to_string();
    let told = Told { target: target.as_bytes(), host: host.as_bytes(), ..Told::default() };
    tell(ctx, &told);
}

/// What only the session knew.
#[derive(Default)]
struct Told<'a> {
    method: &'a [u8],
    protocol: &'a str,
    status: Option<u16>,
    sent: u64,
    received: u64,
    user_agent: Option<&'a [u8]>,
    referer: Option<&'a [u8]>,
    traceparent: Option<&'a [u8]>,
    host: &'a [u8],
    target: &'a [u8],
}

fn tell(ctx: &RequestCtx, told: &Told<'_>) {
    let runtime = &ctx.runtime;
    let duration = ctx.started.elapsed();
    count(ctx, told, duration);
    if !runtime.access_log.is_on() {
        return;
    }
    let conn = ctx.conn.as_deref();
    let upstream = match ctx.route().map(|route| &route.action) {
        Some(Action::Upstream(index)) if ctx.origin.attempts > 0 => {
            Some(&*runtime.plan.upstreams[*index].name)
        }
        _ => None,
    };
    let (path, query) = match told.target.iter().position(|&byte| byte == b'?') {
        Some(at) => (&told.target[..at], Some(&told.target[at + 1..])),
        None => (told.target, None),
    };
    runtime.access_log.log(&Record {
        time: ctx.wall,
        request_id: &ctx.id,
        // Of what was refused before anybody asked who it is from, the peer is what is known.
        client: ctx
            .client
            .as_ref()
            .and_then(|client| client.address)
            .or_else(|| conn.map(|conn| conn.peer.ip())),
        peer: conn.map(|conn| conn.peer),
        listener: conn.map_or("", |conn| &conn.listener_name),
        protocol: told.protocol,
        tls_version: conn.and_then(|conn| conn.tls.as_ref()).map(|tls| tls.version),
        tls_sni: conn.and_then(|conn| conn.tls.as_ref()?.server_name.as_deref()),
        method: told.method,
        scheme: ctx.scheme().as_str(),
        host: told.host,
        path,
        query,
        status: told.status,
        bytes_sent: told.sent,
        bytes_received: told.received,
        duration,
        time_to_first_byte: ctx.first_byte,
        route: ctx.route().map(|route| &*route.name),
        upstream,
        upstream_address: ctx.origin.address.as_deref(),
        upstream_status: ctx.origin.status,
        upstream_time: ctx.origin.took,
        attempts: ctx.origin.attempts,
        cache: ctx.cache.outcome.map(Outcome::label),
        cache_reason: ctx.cache.status.detail,
        refusal: ctx.refusal,
        user_agent: told.user_agent,
        referer: told.referer,
        traceparent: told.traceparent,
    });
}

fn count(ctx: &RequestCtx, told: &Told<'_>, duration: Duration) {
    let runtime = &ctx.runtime;
    let listener = ctx.conn.as_ref().map_or(0, |conn| conn.listener);
    let Some(route) = runtime.routes.of(listener, ctx.route) else { return };
    route.record(&Finished {
        method: Method::from_bytes(told.method),
        status: told.status,
        cache: match ctx.cache.outcome {
            Some(Outcome::Hit) => CacheResult::Hit,
            Some(Outcome::Miss) => CacheResult::Miss,
            Some(Outcome::Stale) => CacheResult::Stale,
            Some(Outcome::Expired) => CacheResult::Expired,
            Some(Outcome::Revalidated) => CacheResult::Revalidated,
            Some(Outcome::Bypass) => CacheResult::Bypass,
            None => CacheResult::None,
        },
        duration,
        time_to_first_byte: ctx.first_byte,
    });
    if let Some(metrics) = runtime.listener_metrics.get(listener) {
        metrics.transferred(told.received, told.sent);
    }
    if let Some(refusal) = ctx.refusal {
        runtime.metrics.refused(refusal);
    }
    if let Some(Action::Upstream(index)) = ctx.route().map(|route| &route.action)
        && let (Some(status), Some(took)) = (ctx.origin.status, ctx.origin.took)
    {
        runtime.upstream_metrics[*index].answered(status, took);
    }
}
