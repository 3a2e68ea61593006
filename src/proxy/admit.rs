//! May the request come in, and where does it belong? Refusals and local answers end it here.

use std::sync::Arc;
use std::time::Instant;
use std::time::SystemTime;

use http::HeaderName;
use http::HeaderValue;
use http::Method;
use http::StatusCode;
use http::Uri;
use http::header;
use pingora::Error;
use pingora::ErrorType;
use pingora::Result;
use pingora_proxy::Session;

use crate::listen::insist;
use crate::message::hops;
use crate::message::hops::MaxForwards;
use crate::proxy::answer;
use crate::proxy::context::Arrival;
use crate::proxy::context::RequestCtx;
use crate::proxy::enter;
use crate::proxy::enter::Heard;
use crate::proxy::lookup;
use crate::proxy::obtain;
use crate::proxy::purge;
use crate::refusal::Refusal;
use crate::route::Ask;
use crate::route::action::Action;
use crate::route::purging::is_purge;
use crate::route::rewrite::Values;
use crate::terms;
use crate::terms::pace::Pace;
use crate::upstream::Protocol;

/// The most that is read of a body before an origin connection is taken. Pingora replays at most
/// 64 KiB to an origin; one read gives out at most 16 KiB, and must not overshoot.
const SPOOL_MOST: u64 = 48 * 1024;

/// `true`: the request is answered.
pub(crate) async fn decide(session: &mut Session, ctx: &mut RequestCtx) -> Result<bool> {
    if ctx.arrival == Arrival::Refresh {
        // It was, on behalf of the client.
        return Ok(false);
    }
    if let Err(refusal) = enter(session, ctx) {
        // What is doubtful is refused, and the connection with it.
        session.set_keepalive(None);
        let allow = (refusal == Refusal::MethodNotAllowed)
            .then_some((header::ALLOW, HeaderValue::from_static(Refusal::METHODS)));
        answer::refuse(session, ctx, refusal, allow.as_slice()).await?;
        return Ok(true);
    }
    if let Some(to) = by_https(ctx) {
        redirect(session, ctx, StatusCode::PERMANENT_REDIRECT, to).await?;
        return Ok(true);
    }
    if is_purge(&session.req_header().method) && purge::by_method(session, ctx).await? {
        return Ok(true);
    }
    let Err(refusal) = find_route(session, ctx) else {
        return act(session, ctx).await;
    };
    let allow = match refusal {
        Refusal::MethodNotAllowed => allowed(session, ctx),
        _ => None,
    };
    answer::refuse(session, ctx, refusal, allow.as_slice()).await?;
    Ok(true)
}

/// Judges the message, and puts its normal form in its place.
fn enter(session: &mut Session, ctx: &mut RequestCtx) -> std::result::Result<(), Refusal> {
    let request = session.req_header();
    let (admitted, client) =
        enter::enter(&Heard::of(request), ctx.conn.as_deref(), &ctx.runtime, SystemTime::now())?;

    // From here on everybody sees the normal form: routing, the key, the origin.
    let authority = admitted.authority.to_string();
    let version = request.version;
    let request = session.req_header_mut();
    let uri = if version == http::Version::HTTP_2 {
        Uri::builder()
            .scheme(admitted.scheme.as_str())
            .authority(authority.as_str())
            .path_and_query(admitted.target.as_str())
            .build()
    } else {
        Uri::builder().path_and_query(admitted.target.as_str()).build()
    };
    request.set_uri(uri.map_err(|_| Refusal::BadTarget)?);
    request.insert_header(header::HOST, authority).map_err(|_| Refusal::BadHost)?;
    ctx.client = Some(client);
    ctx.admitted = Some(admitted);
    Ok(())
}

fn find_route(session: &Session, ctx: &mut RequestCtx) -> std::result::Result<(), Refusal> {
    let runtime = Arc::clone(&ctx.runtime);
    let (refusal, found) = {
        let Some(ask) = question(session, ctx) else { return Err(Refusal::Internal) };
        match enter::find_route(&ask, ctx.conn.as_deref(), &runtime) {
            Ok(found) => (None, Some(found)),
            Err((refusal, found)) => (Some(refusal), found),
        }
    };
    if let Some(found) = found {
        ctx.route = Some(found.index);
        ctx.captures = found.captures;
        if is_purge(&session.req_header().method) && !found.route.passes_purge() {
            return Err(refusal.unwrap_or(Refusal::MethodNotAllowed));
        }
    }
    refusal.map_or(Ok(()), Err)
}

fn question<'a>(session: &'a Session, ctx: &'a RequestCtx) -> Option<Ask<'a>> {
    let request = session.req_header();
    let admitted = ctx.admitted.as_ref()?;
    Some(enter::question(
        &request.method,
        &request.headers,
        admitted,
        ctx.scheme(),
        ctx.conn.as_deref(),
    ))
}

fn allowed(session: &Session, ctx: &RequestCtx) -> Option<(HeaderName, HeaderValue)> {
    let methods = ctx.runtime.plan.routes.allowed(&question(session, ctx)?);
    if methods.is_empty() {
        // Every method would find a route; what is not allowed is to purge.
        return Some((header::ALLOW, HeaderValue::from_static(Refusal::METHODS)));
    }
    let list = methods.iter().map(Method::as_str).collect::<Vec<_>>().join(", ");
    Some((header::ALLOW, HeaderValue::try_from(list).ok()?))
}

/// Does what the route says, as far as it needs no origin.
async fn act(session: &mut Session, ctx: &mut RequestCtx) -> Result<bool> {
    let runtime = Arc::clone(&ctx.runtime);
    let Some(route) = ctx.route.map(|index| &runtime.plan.routes.routes()[index]) else {
        return Ok(false);
    };
    match &route.action {
        Action::Upstream(_) if is_for_us(session) => {
            let mut headers = http::HeaderMap::with_capacity(1);
            headers.extend(allowed(session, ctx));
            answer::respond(session, ctx, StatusCode::NO_CONTENT, &headers, bytes::Bytes::new())
                .await?;
            Ok(true)
        }
        Action::Upstream(_) => {
            lookup::prepare(session, ctx);
            if ctx.cache.key.is_some() {
                return obtain::answer(session, ctx).await;
            }
            let began = Instant::now();
            let spooled = spool(session, ctx, route.spool, route.max_body).await;
            ctx.spooling = began.elapsed();
            spooled?;
            Ok(false)
        }
        Action::Respond { status, headers, body } => {
            answer::respond(session, ctx, *status, headers, body.clone()).await?;
            Ok(true)
        }
        Action::Redirect { status, location } => {
            let to = {
                let Some(admitted) = &ctx.admitted else { return Ok(false) };
                location.render(&Values {
                    scheme: ctx.scheme().as_str(),
                    host: admitted.authority.host(),
                    path: admitted.target.path(),
                    query: admitted.target.query(),
                    captures: &ctx.captures,
                })
            };
            redirect(session, ctx, *status, to).await?;
            Ok(true)
        }
    }
}

/// Where the client finds by `https` what it asked for, if this listener answers nobody by `http`.
fn by_https(ctx: &RequestCtx) -> Option<String> {
    let (conn, admitted) = (ctx.conn.as_deref()?, ctx.admitted.as_ref()?);
    let port = ctx.runtime.insistence(conn).https_port(ctx.scheme())?;
    Some(insist::location(admitted.authority.host(), port, admitted.target.as_str()))
}

async fn redirect(
    session: &mut Session,
    ctx: &mut RequestCtx,
    status: StatusCode,
    to: String,
) -> Result<()> {
    let Ok(to) = HeaderValue::try_from(to) else {
        return answer::refuse(session, ctx, Refusal::BadTarget, &[]).await;
    };
    let mut headers = http::HeaderMap::with_capacity(1);
    headers.insert(header::LOCATION, to);
    answer::respond(session, ctx, status, &headers, bytes::Bytes::new()).await
}

/// Whether the request says that it goes no further than here (RFC 9110 §7.6.2).
fn is_for_us(session: &Session) -> bool {
    let request = session.req_header();
    hops::max_forwards(&request.method, &request.headers) == MaxForwards::AnswerHere
}

/// Reads the front of a request body before an origin connection is taken, so that slow uploads do
/// not pin origin connections. Pingora's replay buffer holds what was read and sends it first.
async fn spool(session: &mut Session, ctx: &mut RequestCtx, spool: u64, max: u64) -> Result<()> {
    if session.is_upgrade_req() {
        return Ok(());
    }
    if session.as_downstream_mut().is_body_done() || session.as_downstream_mut().is_body_empty() {
        return Ok(());
    }
    if session.get_header_bytes(header::EXPECT).eq_ignore_ascii_case(b"100-continue") {
        // The request is admitted: the client may send its body. It is not the origin's to ask for.
        let downstream = session.as_downstream_mut();
        let keep_alive = downstream.get_keepalive();
        downstream.write_continue_response().await?;
        // Pingora takes it for an early answer, after which it would close the connection.
        downstream.set_keepalive(keep_alive);
    }
    if spool == 0 || may_converse(session, ctx) {
        return Ok(());
    }
    let spool = spool.min(SPOOL_MOST);
    let window = ctx.runtime.plan.limits.rate_window;
    let least = ctx.runtime.plan.limits.min_body_rate.saturating_mul(window.as_secs().max(1));
    session.as_downstream_mut().enable_retry_buffering();
    let (mut read, mut in_window) = (0u64, 0u64);
    let now = tokio::time::Instant::now();
    let pace = Pace::within(terms::room());
    let mut window_began = pace.since_now();
    let mut window_ends = pace.after(window_began, window);
    // The time of a route goes for all of a request.
    let ends = ctx.time_left().map(|left| now + left);
    while read < spool && !session.as_downstream_mut().is_body_done() {
        // HTTP/1 has its pace guarded below us; this holds for HTTP/2 streams as well.
        let deadline = ends.map_or(window_ends, |ends| ends.min(window_ends));
        let part =
            tokio::time::timeout_at(deadline, session.as_downstream_mut().read_request_body());
        let part = match part.await {
            Ok(part) => part.map_err(|e| fail_reading(e, ctx))?,
            Err(_) if deadline == window_ends && pace.after(window_began, window) > deadline => {
                // It had no room to send in for a while.
                window_ends = pace.after(window_began, window);
                continue;
            }
            Err(_) if deadline == window_ends && in_window >= least.max(1) => {
                in_window = 0;
                window_began = pace.since_now();
                window_ends = pace.after(window_began, window);
                continue;
            }
            Err(_) => return Err(fail(ctx, Refusal::BodyTimeout)),
        };
        let Some(part) = part else { break };
        read += part.len() as u64;
        in_window += part.len() as u64;
        if read > max {
            return Err(fail(ctx, Refusal::BodyTooLarge));
        }
    }
    Ok(())
}

/// Whether both sides may talk at once: the client says so, and the origin could. Of one that speaks HTTP/1 it would only get
/// around what goes for uploads.
pub(crate) fn may_converse(session: &Session, ctx: &RequestCtx) -> bool {
    let upstream = ctx.upstream().and_then(|index| ctx.runtime.upstreams.get(index));
    let speaks_http2 = upstream.is_some_and(|one| one.settings().protocol == Protocol::Http2);
    speaks_http2 && is_conversation(session)
}

/// gRPC and its like talk in both directions at once: the client may wait for the origin before it
/// sends on.
pub(crate) fn is_conversation(session: &Session) -> bool {
    session.get_header_bytes(header::CONTENT_TYPE).starts_with(b"application/grpc")
}

fn fail(ctx: &mut RequestCtx, refusal: Refusal) -> Box<Error> {
    ctx.refusal = Some(refusal);
    Error::explain(ErrorType::HTTPStatus(refusal.status().as_u16()), refusal.label())
}

fn fail_reading(error: Box<Error>, ctx: &mut RequestCtx) -> Box<Error> {
    match crate::proxy::fail::downstream_refusal(&error) {
        Some(refusal) => fail(ctx, refusal),
        None => error.into_down(),
    }
}
