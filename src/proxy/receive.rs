//! What an origin says, before it is stored or passed on.

use std::time::Duration;
use std::time::SystemTime;

use http::HeaderMap;
use http::HeaderValue;
use http::StatusCode;
use http::Version;
use http::header;
use pingora::Error;
use pingora::ErrorType;
use pingora::ImmutStr;
use pingora::OrErr;
use pingora::Result;
use pingora::http::ResponseHeader;
use pingora_proxy::Session;

use crate::cache::date;
use crate::cache::part;
use crate::cache::slice::Answer;
use crate::cache::slice::Piece;
use crate::message::hops;
use crate::message::reply::ReplyLimits;
use crate::message::reply::fields;
use crate::proxy::again;
use crate::proxy::context::Asked;
use crate::proxy::context::RequestCtx;
use crate::proxy::dress::Fields;
use crate::proxy::dress::Head;
use crate::proxy::dress::HeadMut;
use crate::proxy::freshen;
use crate::proxy::hedge;
use crate::proxy::outgoing::Outgoing;
use crate::proxy::posted;
use crate::proxy::purge;
use crate::refusal::Refusal;
use crate::terms::clock;

/// Interim responses that an origin may send before its answer.
const INTERIM_MOST: u32 = 16;

/// Notes the origin's answer and removes what belongs to its own connection.
pub(crate) fn examine(
    session: &Session,
    response: &mut ResponseHeader,
    ctx: &mut RequestCtx,
) -> Result<()> {
    if take_note(&Outgoing::of(session), response, ctx)? == Stage::Interim {
        return Ok(());
    }
    posted::consider(session, response, ctx);
    let purges = purge::invalidate(session, response, ctx);
    freshen::by_head(session, response, ctx);
    // The client speaks our version, whatever the origin's (RFC 9110 §2.5).
    response.set_version(Version::HTTP_11);
    settle(response, ctx)?;
    posted::begin(session, response, ctx, purges);
    Ok(())
}

/// Whether an answer is to be looked at further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// It is passed on as it is: the final one follows, or another protocol.
    Interim,
    /// It is the answer.
    Final,
}

/// Notes what the origin answered.
///
/// # Errors
/// It may not answer so, or another is asked instead.
pub(crate) fn take_note(
    request: &Outgoing<'_>,
    response: &impl Head,
    ctx: &mut RequestCtx,
) -> Result<Stage> {
    hedge::settle(ctx);
    let status = response.status();
    if response.version() == Version::HTTP_2
        && let Some(all) = response.map()
    {
        // The connection itself sees to HTTP/1.
        fields::check(status, all, &ReplyLimits::default())
            .map_err(|fault| malformed(ctx, fault.to_string()))?;
    }
    if status == StatusCode::SWITCHING_PROTOCOLS {
        if !request.offers_tunnel {
            return Err(malformed(ctx, "a 101 that nobody asked for"));
        }
        ctx.origin.upgraded = true;
        note(status, ctx);
        return Ok(Stage::Interim);
    }
    if status.is_informational() {
        ctx.origin.interim += 1;
        if ctx.origin.interim > INTERIM_MOST {
            return Err(malformed(ctx, "interim responses without end"));
        }
        return Ok(Stage::Interim);
    }
    note(status, ctx);
    let retry_after = response.first(&header::RETRY_AFTER).and_then(retry_after);
    match again::try_another(request, status, retry_after, ctx) {
        Some(error) => Err(error),
        None => Ok(Stage::Final),
    }
}

/// Removes from a final answer what belongs to the origin's connection.
///
/// # Errors
/// It answers something else than was asked.
pub(crate) fn settle(response: &mut impl HeadMut, ctx: &mut RequestCtx) -> Result<()> {
    strip(response)?;
    was_asked_for(response.status(), ctx)?;
    if response.status() == StatusCode::NOT_MODIFIED {
        ctx.origin.not_modified = Some(Box::new(response.all().clone()));
    }
    if let Some(piece) = ctx.cache.piece {
        take_for_piece(piece, response, ctx)?;
    }
    if ctx.cache.range.is_some() {
        take_for_range(response)?;
    }
    Ok(())
}

/// Removes what belongs to the origin's connection, and says when the answer came if it does not.
pub(crate) fn strip(response: &mut impl Fields) -> Result<()> {
    for name in hops::hop_by_hop(response.all()) {
        // Framing of this message, written anew for the client.
        if name != header::TRANSFER_ENCODING {
            response.remove(&name);
        }
    }
    if !response.all().contains_key(header::DATE) {
        // Who has a clock says when it came (RFC 9110 §6.6.1); ages and strong dates count on it.
        let now = HeaderValue::try_from(date::format(SystemTime::now()));
        response.insert(header::DATE, now.or_err(ErrorType::InvalidHTTPHeader, "a date")?)?;
    }
    // Another connection's offer; ours makes its own.
    response.remove(&header::ALT_SVC);
    Ok(())
}

/// Whether an answer of this status is one to what was asked.
///
/// # Errors
/// It is not.
pub(crate) fn was_asked_for(status: StatusCode, ctx: &mut RequestCtx) -> Result<()> {
    if status == StatusCode::NOT_MODIFIED && ctx.origin.conditions != Asked::OnCondition {
        // Of what? Whoever asked without a condition has nothing to keep (RFC 9110 §15.4.5).
        return Err(malformed(ctx, "a 304 that nobody asked for"));
    }
    Ok(())
}

/// What answers the request for a piece. The piece is an object of its own to the store: 200, told from
/// the whole by the Content-Range that it keeps.
fn take_for_piece(piece: Piece, response: &mut impl HeadMut, ctx: &mut RequestCtx) -> Result<()> {
    match piece.judge(response.status(), response.all()) {
        Answer::Piece(_) => response.set_status(StatusCode::OK)?,
        // As it is, it is not stored.
        Answer::Unversioned => {}
        Answer::Misfit => return Err(malformed(ctx, "other bytes than were asked for")),
        Answer::Other => {
            // It means nothing there, and would make a whole look like a piece.
            if response.status() == StatusCode::OK {
                response.remove(&header::CONTENT_RANGE);
            }
        }
    }
    Ok(())
}

/// What answers the request for a range that is stored by itself: within the store it is a 200 as well.
fn take_for_range(response: &mut impl HeadMut) -> Result<()> {
    match part::judge(response.status(), response.all()) {
        part::Answer::Part => response.set_status(StatusCode::OK)?,
        // As it is, it is not stored.
        part::Answer::Unclear => {}
        part::Answer::Other => {
            if response.status() == StatusCode::OK {
                response.remove(&header::CONTENT_RANGE);
            }
        }
    }
    Ok(())
}

/// Trailers of an origin: nothing that frames or routes may come late.
pub(crate) fn examine_trailers(trailers: &mut HeaderMap) {
    for name in hops::hop_by_hop(trailers) {
        trailers.remove(name);
    }
    for name in [header::CONTENT_LENGTH, header::HOST, header::CACHE_CONTROL, header::SET_COOKIE] {
        trailers.remove(name);
    }
}

fn note(status: StatusCode, ctx: &mut RequestCtx) {
    ctx.origin.status = Some(status.as_u16());
    ctx.origin.took = ctx.origin.began.map(clock::since);
    if let Some(race) = &ctx.origin.race {
        race.answered();
    }
    if let (Some(lease), Some(took)) = (&mut ctx.origin.lease, ctx.origin.took) {
        lease.answered(status.as_u16(), took);
    }
}

/// How long the origin asks to be left alone (RFC 9110 §10.2.3).
fn retry_after(line: &[u8]) -> Option<Duration> {
    let value = std::str::from_utf8(line).ok()?.trim();
    if let Ok(seconds) = value.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let now = SystemTime::now();
    let at = date::parse(value.as_bytes(), now)?;
    Some(at.duration_since(now).unwrap_or_default())
}

#[cold]
fn malformed(ctx: &mut RequestCtx, what: impl Into<ImmutStr>) -> Box<Error> {
    ctx.refusal = Some(Refusal::OriginMalformed);
    let mut error = Error::explain(ErrorType::InvalidHTTPHeader, what);
    error.as_up();
    error
}
