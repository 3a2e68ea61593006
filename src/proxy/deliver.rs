//! What the client sees: conditions and ranges answered from what is stored, and our own fields.

use std::any::Any;

use async_trait::async_trait;
use bytes::Bytes;
use http::Method;
use http::StatusCode;
use http::Version;
use http::header;
use pingora::Error;
use pingora::ErrorType;
use pingora::Result;
use pingora::http::ResponseHeader;
use pingora::modules::http::HttpModule;
use pingora::modules::http::HttpModuleBuilder;
use pingora::modules::http::HttpModuleCtx;
use pingora::modules::http::HttpModules;
use pingora::modules::http::Module;
use pingora_cache::NoCacheReason;
use pingora_proxy::RangeType;
use pingora_proxy::Session;

use crate::cache::freshness;
use crate::cache::revalidate;
use crate::cache::status::Outcome;
use crate::proxy::context::Asked;
use crate::proxy::context::RequestCtx;
use crate::proxy::dress::Dress;
use crate::proxy::dress::Head;
use crate::proxy::fetch;
use crate::proxy::stored::Selection;
use crate::refusal::Refusal;
use crate::storage::flights::Stage;
use crate::terms::clock;
use crate::upstream::fault::error_of;

/// Whether the client already has what this response says.
pub(crate) fn is_not_modified(
    session: &Session,
    response: &ResponseHeader,
    ctx: &RequestCtx,
) -> bool {
    !is_read_from_the_store(ctx) && selection(session, response) == Selection::NotModified
}

/// Whether this is a fetch whose response is being stored. All who wait for it read it there, each what he
/// wants of it; an answer of its own that ended sooner than the response would end the fetch for them.
fn is_read_from_the_store(ctx: &RequestCtx) -> bool {
    ctx.flight.as_ref().is_some_and(|flight| !matches!(flight.stage(), Stage::Asking))
}

/// The part of a response that answers the client's conditions and range.
pub(crate) fn selection(session: &Session, response: &ResponseHeader) -> Selection {
    let request = session.req_header();
    let length = length(response);
    Selection::of(&request.method, &request.headers, response.status, &response.headers, length)
}

/// The length that a response says its content has.
pub(crate) fn length(response: &ResponseHeader) -> Option<u64> {
    response.headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// The part of a stored response that the client asked for; edits the response accordingly.
pub(crate) fn select_range(
    session: &Session,
    response: &mut ResponseHeader,
    ctx: &RequestCtx,
) -> RangeType {
    if is_read_from_the_store(ctx) {
        return RangeType::None;
    }
    let (selection, Some(length)) = (selection(session, response), length(response)) else {
        return RangeType::None;
    };
    let range_type = match &selection {
        // Pingora made the header of a 304 by now, where it is one. Several parts are only sent of what
        // is stored; this response passes through on its way there.
        Selection::Whole | Selection::NotModified | Selection::Parts(_) => return RangeType::None,
        Selection::Unsatisfiable => RangeType::Invalid,
        Selection::Part(part) => {
            let (Ok(start), Ok(end)) = (usize::try_from(part.start), usize::try_from(part.end))
            else {
                return RangeType::None;
            };
            RangeType::Single(start..end)
        }
    };
    let status = selection.status(response.status);
    match selection.reshape(response, length).and_then(|()| response.set_status(status)) {
        Ok(()) => range_type,
        Err(_) => RangeType::None,
    }
}

/// After a 304 Pingora shows what is stored, whatever we said of the 304. That must not be where the
/// 304 was about something else (RFC 9111 §4.3.4): then the origin is asked again, without
/// conditions and past the cache. Nor where nobody had asked for a 304.
fn not_this_answer(session: &mut Session, ctx: &mut RequestCtx) -> Option<Box<Error>> {
    if ctx.refusal == Some(Refusal::OriginMalformed) {
        return Some(error_of(Refusal::OriginMalformed));
    }
    if ctx.origin.conditions != Asked::Again || ctx.origin.not_modified.take().is_none() {
        return None;
    }
    session.cache.disable(NoCacheReason::Custom(fetch::ASK_AGAIN));
    let mut error = Error::new(ErrorType::Custom(fetch::ASK_AGAIN));
    error.as_up();
    Some(error)
}

/// Whether nothing follows this head of a response.
pub(crate) fn is_all(response: &ResponseHeader) -> bool {
    let is_empty = response.headers.get(header::CONTENT_LENGTH).is_some_and(|length| length == "0");
    let has_none = [StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED].contains(&response.status);
    !response.status.is_informational() && (is_empty || has_none)
}

/// Dresses the response for the client.
pub(crate) fn dress(
    session: &mut Session,
    response: &mut ResponseHeader,
    ctx: &mut RequestCtx,
) -> Result<()> {
    if response.status.is_informational() {
        return Ok(());
    }
    if let Some(error) = not_this_answer(session, ctx) {
        return Err(error);
    }
    let revalidated = ctx.cache.outcome == Some(Outcome::Revalidated);
    if revalidated && !ctx.cache.status.stored {
        update(response, ctx)?;
    }
    let confirmed = revalidated.then(|| session.cache.maybe_cache_meta()).flatten();
    // Made elsewhere and confirmed now: as old as the 304 says (RFC 9111 §4.3.4).
    let confirmed = confirmed.map(|meta| meta.age().as_secs());
    put_on(&session.req_header().method, response, confirmed, ctx)?;
    suit(session, response, ctx);
    ctx.tell();
    Ok(())
}

/// Brings what is stored up to date for one client, where what the 304 says keeps it from being stored so:
/// Pingora takes over only some of the fields (RFC 9111 §4.3.4).
fn update(response: &mut ResponseHeader, ctx: &RequestCtx) -> Result<()> {
    let Some(fresh) = &ctx.origin.not_modified else { return Ok(()) };
    let merged = revalidate::merge(&response.headers, fresh, ctx.wall);
    for name in fresh.keys() {
        response.remove_header(name);
        for line in merged.get_all(name) {
            response.append_header(name, line)?;
        }
    }
    Ok(())
}

/// Says what we have to say of the final answer to a request of this method; `confirmed` is the age of
/// what an origin has confirmed.
fn put_on(
    method: &Method,
    response: &mut ResponseHeader,
    confirmed: Option<u64>,
    ctx: &mut RequestCtx,
) -> Result<()> {
    dress_for(method, response, confirmed, ctx).put_on(response)
}

/// The same, still to be put on: the first byte is about to leave.
pub(crate) fn dress_for<'c>(
    method: &Method,
    response: &impl Head,
    confirmed: Option<u64>,
    ctx: &'c mut RequestCtx,
) -> Dress<'c> {
    ctx.first_byte.get_or_insert_with(|| clock::since(ctx.started));
    ctx.bodiless = method == Method::HEAD
        || matches!(response.status(), StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let mut dress = Dress::of(ctx);
    if confirmed.is_some() {
        dress.age = confirmed;
    } else if let Some(line) = response.first(&header::AGE)
        && ctx.origin.status.is_some()
    {
        // From the origin: many lines or no number would confuse the caches behind us.
        dress.age = Some(freshness::age_of(line).as_secs());
    }
    dress
}

/// Suits the response to the version that the client speaks, and to how long its connection is kept.
pub(crate) fn suit(session: &mut Session, response: &mut ResponseHeader, ctx: &RequestCtx) {
    if session.req_header().version == Version::HTTP_10 {
        // It knows no chunks: the end of the connection ends the body.
        response.remove_header(&header::TRANSFER_ENCODING);
        if !response.headers.contains_key(header::CONTENT_LENGTH) {
            session.set_keepalive(None);
            session.downstream_modules_ctx = without_chunks();
        }
    }
    if ctx.runtime.draining.has_begun() {
        session.set_keepalive(None);
    }
}

/// Withholds a body that the client must not get. Towards the cache a HEAD is a GET, and a 304 may
/// be made of a whole response: HTTP/1 drops what follows such a header, HTTP/2 would send it.
pub(crate) fn pass_body(body: &mut Option<Bytes>, ctx: &RequestCtx) {
    if ctx.bodiless {
        *body = None;
    }
}

/// Pingora adds chunks to an HTTP/2 origin's response after our last word on its header; only a
/// module still sees it then.
fn without_chunks() -> HttpModuleCtx {
    let mut modules = HttpModules::new();
    modules.add_module(Box::new(WithoutChunks));
    modules.build_ctx()
}

struct WithoutChunks;

impl HttpModuleBuilder for WithoutChunks {
    fn init(&self) -> Module {
        Box::new(Self)
    }
}

#[async_trait]
impl HttpModule for WithoutChunks {
    async fn response_header_filter(
        &mut self,
        response: &mut ResponseHeader,
        _end_of_stream: bool,
    ) -> Result<()> {
        response.remove_header(&header::TRANSFER_ENCODING);
        Ok(())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_follows_a_head_without_content() {
        let head = |status: u16, length: Option<&str>| {
            let mut head = ResponseHeader::build(status, None).expect("it is a status");
            if let Some(length) = length {
                head.insert_header(header::CONTENT_LENGTH, length).expect("it is a value");
            }
            head
        };
        for (status, length, is) in [
            (200, Some("0"), true),
            (413, Some("0"), true),
            (204, None, true),
            (304, Some("5"), true),
            (200, Some("5"), false),
            // It ends where the connection does, or with its last chunk.
            (200, None, false),
            // The answer is still to come.
            (100, None, false),
            (103, Some("0"), false),
        ] {
            assert_eq!(is_all(&head(status, length)), is, "{status} {length:?}");
        }
    }
}
