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

use crate::cache::directives;
use crate::cache::freshness;
use crate::cache::status::Outcome;
use crate::message::conditional;
use crate::message::conditional::Validators;
use crate::message::hops;
use crate::message::range;
use crate::message::range::Ranges;
use crate::proxy::arrive::REQUEST_ID;
use crate::proxy::context::Asked;
use crate::proxy::context::RequestCtx;
use crate::proxy::fetch;
use crate::refusal::Refusal;
use crate::route::HeaderRule;
use crate::route::action::Action;
use crate::upstream::Protocol;
use crate::upstream::fault::error_of;

/// Whether the client already has what this response says.
pub(crate) fn is_not_modified(session: &Session, response: &ResponseHeader) -> bool {
    outcome(session, response) == conditional::Outcome::NotModified
}

fn outcome(session: &Session, response: &ResponseHeader) -> conditional::Outcome {
    let request = session.req_header();
    let current = Validators::of(&response.headers);
    conditional::evaluate(&request.method, &request.headers, &current, response.status)
}

/// The part of a stored response that the client asked for; edits the response accordingly.
pub(crate) fn select_range(session: &Session, response: &mut ResponseHeader) -> RangeType {
    let request = session.req_header();
    if !request.headers.contains_key(header::RANGE)
        || request.method != Method::GET
        || response.status != StatusCode::OK
    {
        return RangeType::None;
    }
    let length = response.headers.get(header::CONTENT_LENGTH);
    let length = length.and_then(|v| v.to_str().ok()).and_then(|v| v.parse::<u64>().ok());
    let Some(length) = length else { return RangeType::None };
    if outcome(session, response) == conditional::Outcome::IgnoreRange {
        return RangeType::None;
    }
    match Ranges::of(&request.headers, length) {
        // Several ranges at once are answered with the whole (RFC 9110 §14.2 leaves it to us).
        Ranges::Whole | Ranges::Many(_) => RangeType::None,
        Ranges::Unsatisfiable => {
            response.set_status(StatusCode::RANGE_NOT_SATISFIABLE).ok();
            response.remove_header(&header::CONTENT_TYPE);
            response.remove_header(&header::CONTENT_ENCODING);
            response.insert_header(header::CONTENT_LENGTH, 0).ok();
            response.insert_header(header::CONTENT_RANGE, range::unsatisfied(length)).ok();
            RangeType::Invalid
        }
        Ranges::One(part) => {
            let (Ok(start), Ok(end)) = (usize::try_from(part.start), usize::try_from(part.end))
            else {
                return RangeType::None;
            };
            response.set_status(StatusCode::PARTIAL_CONTENT).ok();
            response.insert_header(header::CONTENT_LENGTH, part.end - part.start).ok();
            response.insert_header(header::CONTENT_RANGE, range::content_range(&part, length)).ok();
            RangeType::Single(start..end)
        }
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

/// The version in which the response came, now or when it was stored.
fn origins_version(ctx: &RequestCtx) -> Version {
    match ctx.route().map(|route| &route.action) {
        Some(Action::Upstream(index))
            if ctx.runtime.plan.upstreams[*index].protocol == Protocol::Http2 =>
        {
            Version::HTTP_2
        }
        _ => Version::HTTP_11,
    }
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
    ctx.first_byte.get_or_insert_with(|| ctx.started.elapsed());
    ctx.bodiless = session.req_header().method == Method::HEAD
        || matches!(response.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    for name in directives::targeted_fields() {
        response.remove_header(name);
    }
    if response.headers.contains_key(header::AGE) && ctx.origin.status.is_some() {
        // From the origin: many lines or no number would confuse the caches behind us.
        let age = freshness::age_value(&response.headers);
        response.insert_header(header::AGE, age.as_secs())?;
    }
    if ctx.cache.outcome == Some(Outcome::Revalidated)
        && let Some(meta) = session.cache.maybe_cache_meta()
    {
        // Made elsewhere and confirmed now: as old as the 304 says (RFC 9111 §4.3.4).
        response.insert_header(header::AGE, meta.age().as_secs())?;
    }
    let via = hops::via(&response.headers, origins_version(ctx));
    response.insert_header(header::VIA, via)?;
    response.insert_header(REQUEST_ID, &ctx.id)?;
    if let Some(outcome) = ctx.cache.outcome {
        let answered = ctx.origin.status.and_then(|status| StatusCode::from_u16(status).ok());
        let status = match answered {
            Some(answered) => ctx.cache.status.with_status(answered),
            None => ctx.cache.status,
        };
        response.append_header("cache-status", status.to_value())?;
        response.insert_header("x-cache", outcome.x_cache())?;
    }

    if let Some(index) = ctx.route {
        let runtime = std::sync::Arc::clone(&ctx.runtime);
        for rule in &runtime.plan.routes.routes()[index].headers.response {
            match rule {
                HeaderRule::Set(name, value) => response.insert_header(name, value)?,
                HeaderRule::Add(name, value) => {
                    response.append_header(name, value)?;
                }
                HeaderRule::Remove(name) => {
                    response.remove_header(name);
                }
            }
        }
    }

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
    Ok(())
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
