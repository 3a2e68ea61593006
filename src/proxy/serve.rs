//! Writes a response that is at hand to the client: from the store, from one that is being stored, or
//! handed on by a fetch.

use std::ops::Range;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use http::HeaderMap;
use http::Method;
use http::StatusCode;
use http::Version;
use http::header;
use pingora::Error;
use pingora::ErrorSource;
use pingora::ErrorType;
use pingora::Result;
use pingora::http::ResponseHeader;
use pingora::protocols::http::ServerSession;
use pingora_proxy::Session;

use crate::cache::slice;
use crate::proxy::context::RequestCtx;
use crate::proxy::deliver;
use crate::proxy::errand::Piece;
use crate::proxy::errand::Rest;
use crate::proxy::parts;
use crate::proxy::stored;
use crate::proxy::stored::Body;
use crate::proxy::stored::Plan;
use crate::proxy::stored::Selection;
use crate::proxy::stored::Step;
use crate::refusal::Refusal;
use crate::storage::memory::Entry;
use crate::storage::memory::Live;
use crate::storage::memory::LiveReader;
use crate::storage::memory::Times;
use crate::upstream::fault::error_of;

/// Whether `Age` is told although it is zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Age {
    /// It comes from the store.
    Always,
    /// It comes from the origin.
    IfAny,
}

/// Answers with a stored response, which sets nobody's cookie.
pub(crate) async fn entry(
    session: &mut Session,
    ctx: &mut RequestCtx,
    entry: &Arc<Entry>,
    now: SystemTime,
) -> Result<()> {
    ctx.origin.stick = None;
    let (times, mut response) = (entry.times(), entry.response_header());
    let selection = match ctx.cache.range {
        // It is what was asked for.
        Some(_) => Selection::Whole,
        None => stored::select(entry, &session.req_header().method, headers(session)),
    };
    parts::restore(ctx, &mut response)?;
    let plan = head(session, ctx, response, &selection, (&times, Age::Always), now).await?;
    if plan.is_empty() {
        return whole(ctx);
    }
    for part in Body::new(entry, plan) {
        body(session, part).await?;
    }
    finish(session, ctx).await
}

/// Answers with a response that is still being stored.
pub(crate) async fn live(
    session: &mut Session,
    ctx: &mut RequestCtx,
    live: &Live,
    mut reader: LiveReader,
    now: SystemTime,
) -> Result<()> {
    let mut response = header_of(live)?;
    // What is not stored is for the one for whom it was fetched.
    for (name, value) in ctx.origin.private() {
        response.append_header(name, value)?;
    }
    let may_have_length = live.status() != StatusCode::NO_CONTENT;
    if let Some(length) = live.length().filter(|_| may_have_length) {
        response.insert_header(header::CONTENT_LENGTH, length)?;
    }
    let selection = match ctx.cache.range {
        Some(_) => Selection::Whole,
        None => forwards(deliver::selection(session, &response), live.length()),
    };
    parts::restore(ctx, &mut response)?;
    let plan = head(session, ctx, response, &selection, (&live.times(), Age::IfAny), now).await?;
    if plan.is_empty() {
        return whole(ctx);
    }
    for step in plan {
        match step {
            Step::Text(text) => body(session, text).await?,
            Step::Of(part) => stretch(session, ctx, &mut reader, part).await?,
        }
    }
    finish(session, ctx).await
}

/// The header of a response that is arriving, as it is stored.
pub(crate) fn header_of(live: &Live) -> Result<ResponseHeader> {
    let mut response =
        ResponseHeader::build_no_case(live.status(), Some(live.headers().len() + 8))?;
    for (name, value) in live.headers() {
        response.append_header(name, value)?;
    }
    Ok(response)
}

/// Sends a stretch of a body that is arriving.
pub(crate) async fn stretch(
    session: &mut Session,
    ctx: &mut RequestCtx,
    reader: &mut LiveReader,
    part: Range<u64>,
) -> Result<()> {
    reader.seek(part.start, part.end);
    while let Some(part) = unless_gone(session, reader.next()).await?.map_err(|_| cut(ctx))? {
        body(session, part).await?;
    }
    Ok(())
}

/// What is arriving may be gone once it was read: no part is sent that lies before another.
fn forwards(selection: Selection, length: Option<u64>) -> Selection {
    let plan = selection.plan(&Method::GET, StatusCode::OK, length.unwrap_or(u64::MAX));
    if plan.is_ascending() { selection } else { Selection::Whole }
}

/// The most that is read of a body that nobody wants, as of what a HEAD made us ask for and is not stored. The connection to
/// the origin is worth so much, and not a whole download, which may have no end.
const UNWANTED_MOST: u64 = 64 * 1024;

/// Answers with a response that was fetched for this client alone; it is dressed already.
pub(crate) async fn handed(
    session: &mut Session,
    ctx: &mut RequestCtx,
    mut response: Box<ResponseHeader>,
    mut rest: Rest,
) -> Result<()> {
    ctx.first_byte.get_or_insert_with(|| ctx.started.elapsed());
    let bodiless = is_bodiless(session, &response);
    deliver::suit(session, &mut response, ctx);
    frame(session, &mut response, bodiless)?;
    let announced = announced(&response);
    let mut left = if bodiless { Some(0) } else { announced };
    send_head(session, *response, bodiless).await?;
    if bodiless && announced.is_some_and(|length| length > UNWANTED_MOST) {
        return whole(ctx);
    }
    let mut unwanted = 0;
    loop {
        match unless_gone(session, rest.next()).await? {
            Piece::Body(part) if bodiless => {
                unwanted += part.len() as u64;
                if unwanted > UNWANTED_MOST {
                    return whole(ctx);
                }
            }
            Piece::Body(part) => {
                left = left.and_then(|left| left.checked_sub(part.len() as u64));
                body(session, part).await?;
            }
            Piece::Trailers(_) if bodiless => {}
            Piece::Trailers(trailers) => {
                session.as_downstream_mut().write_response_trailers(*trailers).await?;
                return whole(ctx);
            }
            Piece::End if bodiless => return whole(ctx),
            Piece::End => return finish(session, ctx).await,
            // What this client asked for had come by then: nothing, or a range.
            Piece::Cut if left == Some(0) => {
                ctx.refusal = Some(Refusal::OriginClosed);
                return if bodiless { whole(ctx) } else { finish(session, ctx).await };
            }
            Piece::Cut => return Err(cut(ctx)),
        }
    }
}

/// Sends a part of what is handed on.
pub(crate) async fn handed_stretch(
    session: &mut Session,
    ctx: &mut RequestCtx,
    rest: &mut Rest,
    part: Range<u64>,
) -> Result<()> {
    let mut at = 0;
    while at < part.end {
        match unless_gone(session, rest.next()).await? {
            Piece::Body(bytes) => {
                let wanted = bytes.slice(slice::within(&part, at, bytes.len()));
                at += bytes.len() as u64;
                if !wanted.is_empty() {
                    body(session, wanted).await?;
                }
            }
            Piece::Trailers(_) | Piece::End | Piece::Cut => return Err(cut(ctx)),
        }
    }
    Ok(())
}

/// The length that a header gives its body.
fn announced(response: &ResponseHeader) -> Option<u64> {
    response.headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Waits for `next`, unless the client goes away meanwhile. What was written so far leaves first.
pub(crate) async fn unless_gone<T>(
    session: &mut Session,
    next: impl Future<Output = T>,
) -> Result<T> {
    tokio::select! {
        biased;
        next = next => Ok(next),
        // To look for bytes of the client, of which there are none, sends what is gathered.
        idle = session.as_downstream_mut().read_body_or_idle(true) => {
            let gone = || Error::explain(ErrorType::ConnectionClosed, "the client went away");
            Err(idle.err().unwrap_or_else(gone).into_down())
        }
    }
}

/// Writes a 1xx response.
pub(crate) async fn interim(session: &mut Session, response: Box<ResponseHeader>) -> Result<()> {
    session.as_downstream_mut().write_response_header(response).await.map_err(Error::into_down)
}

/// Writes the header of the part that answers the request, and says what follows it.
pub(crate) async fn head(
    session: &mut Session,
    ctx: &mut RequestCtx,
    mut response: ResponseHeader,
    selection: &Selection,
    (times, age): (&Times, Age),
    now: SystemTime,
) -> Result<Plan> {
    let seconds = times.current_age(now).as_secs().min(1 << 31);
    if age == Age::Always || seconds > 0 {
        response.insert_header(header::AGE, seconds)?;
    }
    let length = deliver::length(&response).unwrap_or(u64::MAX);
    let plan = match length {
        0 => Plan::default(),
        _ => selection.plan(&session.req_header().method, response.status, length),
    };
    response.set_status(selection.status(response.status))?;
    selection.reshape(&mut response, length)?;
    deliver::dress(session, &mut response, ctx)?;
    let end = plan.is_empty();
    frame(session, &mut response, end)?;
    send_head(session, response, end).await?;
    Ok(plan)
}

fn headers(session: &Session) -> &HeaderMap {
    &session.req_header().headers
}

fn is_bodiless(session: &Session, response: &ResponseHeader) -> bool {
    session.req_header().method == Method::HEAD
        || matches!(response.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}

/// Without a length a body needs chunks to have an end, where the client knows them.
fn frame(session: &Session, response: &mut ResponseHeader, bodiless: bool) -> Result<()> {
    let framed = response.headers.contains_key(header::CONTENT_LENGTH)
        || response.headers.contains_key(header::TRANSFER_ENCODING);
    if !bodiless && !framed && session.req_header().version == Version::HTTP_11 {
        response.insert_header(header::TRANSFER_ENCODING, "chunked")?;
    }
    Ok(())
}

/// Writes a header, and with it the end where nothing follows.
pub(crate) async fn send_head(
    session: &mut Session,
    response: ResponseHeader,
    end: bool,
) -> Result<()> {
    let downstream = session.as_downstream_mut();
    let response = Box::new(response);
    // HTTP/2 wants to hear about the end with the header.
    if end && let ServerSession::H2(h2) = downstream {
        return h2.write_response_header(response, true).map_err(Error::into_down);
    }
    downstream.write_response_header(response).await.map_err(Error::into_down)?;
    if end {
        downstream.finish_body().await.map_err(Error::into_down)?;
    }
    Ok(())
}

/// Writes a piece of the body.
pub(crate) async fn body(session: &mut Session, part: Bytes) -> Result<()> {
    let written = session.as_downstream_mut().write_response_body(part, false).await;
    written.map_err(Error::into_down)
}

/// Ends the body.
pub(crate) async fn finish(session: &mut Session, ctx: &RequestCtx) -> Result<()> {
    session.as_downstream_mut().finish_body().await.map_err(Error::into_down)?;
    whole(ctx)
}

/// The answer is whole.
pub(crate) fn whole(ctx: &RequestCtx) -> Result<()> {
    if let Some(conn) = &ctx.conn {
        conn.response_is_whole();
    }
    Ok(())
}

/// The origin's response broke: the client's must not seem whole.
pub(crate) fn cut(ctx: &mut RequestCtx) -> Box<Error> {
    ctx.refusal = Some(Refusal::OriginClosed);
    let mut error = error_of(Refusal::OriginClosed);
    error.esource = ErrorSource::Upstream;
    error
}
