//! A response that we make ourselves.

use bytes::Bytes;
use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use http::Method;
use http::StatusCode;
use http::header;
use pingora::Result;
use pingora::http::ResponseHeader;
use pingora_proxy::Session;

use crate::proxy::arrive::REQUEST_ID;
use crate::proxy::context::RequestCtx;
use crate::proxy::serve;
use crate::refusal::Refusal;
use crate::route::standin::Answer;

/// Answers with a refusal: its status, and a body in the form that the client accepts.
pub(crate) async fn refuse(
    session: &mut Session,
    ctx: &mut RequestCtx,
    refusal: Refusal,
    extra: &[(HeaderName, HeaderValue)],
) -> Result<()> {
    ctx.refusal = Some(refusal);
    if let Some(Answer { status, headers, body }) = stand_in(refusal, ctx) {
        return respond(session, ctx, status, &headers, body).await;
    }
    let json = Refusal::prefers_json(session.get_header_bytes(header::ACCEPT));
    let mut headers = fields(refusal, json);
    for (name, value) in extra {
        headers.append(name.clone(), value.clone());
    }
    respond(session, ctx, refusal.status(), &headers, Bytes::from(refusal.body(json))).await
}

/// The fields of the answer with which a request is refused, in JSON or as text.
pub(crate) fn fields(refusal: Refusal, json: bool) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(8);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(Refusal::content_type(json)));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Some(seconds) = refusal.retry_after() {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    headers
}

/// The route's own answer when its upstream has none.
fn stand_in(refusal: Refusal, ctx: &RequestCtx) -> Option<Answer> {
    let answer = ctx.route()?.standins.answer.as_ref();
    answer.filter(|_| refusal.blames_upstream()).cloned()
}

/// Answers with this response.
pub(crate) async fn respond(
    session: &mut Session,
    ctx: &mut RequestCtx,
    status: StatusCode,
    headers: &HeaderMap,
    body: Bytes,
) -> Result<()> {
    ctx.first_byte.get_or_insert_with(|| ctx.started.elapsed());
    let mut response = ResponseHeader::build_no_case(status, Some(headers.len() + 5))?;
    for (name, value) in headers {
        response.append_header(name, value)?;
    }
    if let Some(hsts) = ctx.runtime.hsts(ctx.conn.as_deref())
        && !response.headers.contains_key(header::STRICT_TRANSPORT_SECURITY)
    {
        response.insert_header(header::STRICT_TRANSPORT_SECURITY, hsts)?;
    }
    if !ctx.id.is_empty() {
        response.insert_header(REQUEST_ID, &ctx.id)?;
    }
    let bodiless = status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED;
    if !bodiless {
        response.insert_header(header::CONTENT_LENGTH, body.len())?;
    }
    if ctx.runtime.draining.has_begun() {
        session.set_keepalive(None);
    }
    let silent = bodiless || body.is_empty() || session.req_header().method == Method::HEAD;
    serve::send_head(session, response, silent).await?;
    if !silent {
        session.as_downstream_mut().write_response_body(body, true).await?;
    }
    if let Some(conn) = &ctx.conn {
        conn.response_is_whole();
    }
    Ok(())
}
