//! The request that the origin sees: rebuilt, never passed through.

mod changes;

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use http::HeaderValue;
use http::Method;
use http::Uri;
use http::Version;
use http::header;
use http::request::Parts;
use pingora::Error;
use pingora::ErrorType;
use pingora::Result;
use pingora::http::RequestHeader;
use pingora_proxy::Session;

use crate::cache::revalidate::Conditions;
use crate::listen::conn::Conn;
use crate::message::admit::Admitted;
use crate::message::hops;
use crate::message::hops::MaxForwards;
use crate::message::spare;
use crate::message::target::Authority;
use crate::proxy::arrive::REQUEST_ID;
use crate::proxy::context::Arrival;
use crate::proxy::context::Asked;
use crate::proxy::context::RequestCtx;
use crate::proxy::forward::changes::Changes;
use crate::proxy::mirror;
use crate::proxy::outgoing::Outgoing;
use crate::refusal::Refusal;
use crate::route::HeaderRule;
use crate::route::Route;
use crate::route::rewrite::Values;
use crate::runtime::Runtime;
use crate::storage::memory::Found;
use crate::terms;
use crate::upstream::Protocol;
use crate::upstream::exchange::Question;

/// Room for the header of most requests.
const TEXT: usize = 1024;

/// Rebuilds the request's header for the origin.
pub(crate) fn rebuild(
    session: &mut Session,
    request: &mut RequestHeader,
    ctx: &mut RequestCtx,
) -> Result<()> {
    // A fetch of ours has none.
    let bodiless = ctx.arrival == Arrival::Refresh || session.as_downstream_mut().is_body_empty();
    let stale = session.cache.enabled().then(|| session.cache.maybe_cache_meta()).flatten();
    let stale = stale.and_then(|meta| meta.extensions().get::<Found>());
    let speaks = ctx.upstream().map(|index| ctx.runtime.plan.upstreams[index].protocol);
    request.set_version(match speaks {
        Some(Protocol::Http2) => Version::HTTP_2,
        Some(Protocol::Http1) | None => Version::HTTP_11,
    });
    let asked = Outgoing { bodiless, ..Outgoing::of(session) };
    write_anew(&asked, request, stale, ctx)?;
    mirror::begin(&asked, session, request, ctx);
    Ok(())
}

/// Rebuilds the header `request` of what was `asked`, about what is stored and stale if that is to be
/// validated.
///
/// # Errors
/// There is no target or host that it could have.
pub(crate) fn write_anew(
    asked: &Outgoing<'_>,
    request: &mut RequestHeader,
    stale: Option<&Found>,
    ctx: &mut RequestCtx,
) -> Result<()> {
    let Some(admitted) = &ctx.admitted else { return Err(refused(ctx, Refusal::Internal)) };
    let runtime = Arc::clone(&ctx.runtime);
    let Some(route) = ctx.route.map(|index| &runtime.plan.routes.routes()[index]) else {
        return Err(refused(ctx, Refusal::NoRoute));
    };
    let to_http2 = request.version == Version::HTTP_2;
    let (target, host, changes) = match changes(asked, request.version, admitted, route, ctx) {
        Ok(changes) => changes,
        Err(refusal) => return Err(refused(ctx, refusal)),
    };
    changes.apply(request)?;
    let uri = if to_http2 {
        Uri::builder().scheme("http").authority(&*host).path_and_query(target.as_str()).build().ok()
    } else {
        target.parse::<Uri>().ok()
    };
    let Some(uri) = uri else { return Err(refused(ctx, Refusal::BadTarget)) };
    request.set_uri(uri);
    set_conditions(request, stale, ctx)?;
    if let Some(piece) = ctx.cache.piece {
        request.insert_header(header::RANGE, piece.wanted())?;
    }
    if let Some(range) = ctx.cache.range {
        request.insert_header(header::RANGE, range.to_value())?;
    }

    for rule in &route.headers.request {
        match rule {
            HeaderRule::Set(name, value) => request.insert_header(name, value)?,
            HeaderRule::Add(name, value) => {
                request.append_header(name, value)?;
            }
            HeaderRule::Remove(name) => {
                request.remove_header(name);
            }
        }
    }
    Ok(())
}

/// A GET past the cache as its origin gets it.
///
/// # Errors
/// There is no target or host that it could have.
pub(crate) fn question(asked: &Outgoing<'_>, ctx: &mut RequestCtx) -> Result<Question> {
    let speaks = ctx.upstream().map(|index| ctx.runtime.plan.upstreams[index].protocol);
    match speaks {
        Some(Protocol::Http1) | None => text(asked, ctx).map(Question::Text),
        Some(Protocol::Http2) => {
            let mut head = http::Request::new(()).into_parts().0;
            head.headers = asked.headers.clone();
            head.version = Version::HTTP_2;
            let mut request = RequestHeader::from(head);
            write_anew(asked, &mut request, None, ctx)?;
            Ok(Question::Fields(Box::new(Parts::from(request))))
        }
    }
}

/// The whole header of a GET past the cache, as an HTTP/1 origin gets it; what [`write_anew`] would make
/// of it.
fn text(asked: &Outgoing<'_>, ctx: &mut RequestCtx) -> Result<Vec<u8>> {
    let runtime = Arc::clone(&ctx.runtime);
    let route = ctx.route.map(|index| &runtime.plan.routes.routes()[index]);
    let (Some(admitted), Some(route)) = (&ctx.admitted, route) else {
        return Err(refused(ctx, Refusal::Internal));
    };
    let mut text = spare::text();
    text.reserve(TEXT);
    text.extend_from_slice(b"GET ");
    if route.headers.request.is_empty() {
        let (target, _, changes) = match changes(asked, Version::HTTP_11, admitted, route, ctx) {
            Ok(changes) => changes,
            Err(refusal) => return Err(refused(ctx, refusal)),
        };
        text.extend_from_slice(target.as_bytes());
        text.extend_from_slice(b" HTTP/1.1\r\n");
        changes.write(asked.headers, &mut text);
        ctx.origin.conditions = Asked::Plainly;
    } else {
        // What a route's rules change is only known when all is there.
        let mut request = RequestHeader::build_no_case(Method::GET, b"/", None)?;
        for (name, value) in asked.headers {
            request.append_header(name, value)?;
        }
        write_anew(asked, &mut request, None, ctx)?;
        text.extend_from_slice(request.raw_path());
        text.extend_from_slice(b" HTTP/1.1\r\n");
        request.header_to_h1_wire(&mut text);
    }
    text.extend_from_slice(b"\r\n");
    Ok(text)
}

/// The target and the host that the origin sees, and what changes of the fields.
fn changes<'a>(
    asked: &Outgoing<'_>,
    towards: Version,
    admitted: &'a Admitted,
    route: &Route,
    ctx: &'a RequestCtx,
) -> std::result::Result<(String, Cow<'a, str>, Changes), Refusal> {
    let (target, host) = destination(&ctx.runtime, route, admitted, ctx)?;
    let mut changes = Changes::of(asked, ctx.version, towards);
    changes.set_underscores(route.headers.underscores);
    if let MaxForwards::PassOn(number) = hops::max_forwards(asked.method, asked.headers) {
        changes.put(header::MAX_FORWARDS, HeaderValue::from(number));
    }
    if let Some(client) = &ctx.client {
        changes.introduce(client, &authority(route, admitted));
    }
    changes.present(route.headers.client, ctx.conn.as_deref().and_then(Conn::client));
    if ![&*ctx.id, &host].into_iter().all(|text| text.bytes().all(|byte| byte.is_ascii_graphic())) {
        return Err(Refusal::BadHost);
    }
    changes.put_text(REQUEST_ID, &ctx.id);
    changes.put_text(header::HOST, &host);
    Ok((target, host, changes))
}

/// Asks about what is stored, if that is what the request is for, with the validators that are
/// well-formed; notes whether 304 may be the answer.
fn set_conditions(
    request: &mut RequestHeader,
    stored: Option<&Found>,
    ctx: &mut RequestCtx,
) -> Result<()> {
    let again = ctx.origin.conditions == Asked::Again;
    if let Some(Found(entry)) = stored {
        let conditions = match again {
            false => Conditions::of(&entry.headers()),
            true => Conditions::default(),
        };
        for (name, value) in [
            (header::IF_NONE_MATCH, conditions.if_none_match),
            (header::IF_MODIFIED_SINCE, conditions.if_modified_since),
        ] {
            match value {
                Some(value) => request.insert_header(name, value)?,
                None => {
                    request.remove_header(&name);
                }
            }
        }
    }
    let asks = |name| request.headers.contains_key(name);
    if asks(header::IF_NONE_MATCH) || asks(header::IF_MODIFIED_SINCE) {
        ctx.origin.conditions = Asked::OnCondition;
    } else if !again {
        ctx.origin.conditions = Asked::Plainly;
    }
    Ok(())
}

/// The host that the origin is asked for: the one that all hosts of the route stand for, where there is
/// one. What is stored for all of them must not be made from the name of one.
fn authority<'a>(route: &Route, admitted: &'a Admitted) -> Cow<'a, Authority> {
    match &route.cache.key.host {
        Some(host) if route.cache.enabled => Cow::Owned(admitted.authority.of_host(host)),
        Some(_) | None => Cow::Borrowed(&admitted.authority),
    }
}

/// The target and the Host that the origin sees.
fn destination<'a>(
    runtime: &'a Runtime,
    route: &Route,
    admitted: &'a Admitted,
    ctx: &RequestCtx,
) -> std::result::Result<(String, Cow<'a, str>), Refusal> {
    let (path, query) = (admitted.target.path(), admitted.target.query());
    let asked = authority(route, admitted);
    let target = if admitted.asterisk {
        "*".to_owned()
    } else {
        // A path that climbs out of where the rewrite put it is the client's doing.
        route.rewrite.apply(path, query, &ctx.captures).map_err(|_| Refusal::BadTarget)?
    };
    let values = Values {
        scheme: ctx.scheme().as_str(),
        host: asked.host(),
        path,
        query,
        captures: &ctx.captures,
    };
    let upstream_host =
        ctx.upstream().and_then(|index| runtime.plan.upstreams[index].host.as_deref());
    let host = match (&route.rewrite.host, upstream_host) {
        (Some(template), _) => {
            Cow::Owned(template.render_host(&values).map_err(|_| Refusal::BadHost)?)
        }
        (None, Some(host)) => Cow::Borrowed(host),
        (None, None) => match asked {
            Cow::Borrowed(asked) => Cow::Borrowed(asked.as_str()),
            Cow::Owned(asked) => Cow::Owned(asked.to_string()),
        },
    };
    Ok((target, host))
}

/// Counts the body on its way to the origin and holds it under the route's limit.
pub(crate) fn pass_body(body: &mut Option<Bytes>, end: bool, ctx: &mut RequestCtx) -> Result<()> {
    if end && body.as_ref().is_some_and(Bytes::is_empty) {
        // The empty DATA frame with which HTTP/2 clients end a body. Pingora writes it to an HTTP/1
        // origin as a last chunk, and then the last chunk once more.
        *body = None;
    }
    mirror::pass_body(body.as_ref(), end, ctx);
    let Some(body) = body else { return Ok(()) };
    ctx.body_read = ctx.body_read.saturating_add(body.len() as u64);
    let max = ctx.route().map_or(u64::MAX, |route| route.max_body);
    if ctx.body_read > max && !ctx.origin.upgraded {
        // Of an error here Pingora lets the exchange with an HTTP/2 origin know nothing.
        terms::refuse_body();
        return Err(refused(ctx, Refusal::BodyTooLarge));
    }
    Ok(())
}

fn refused(ctx: &mut RequestCtx, refusal: Refusal) -> Box<Error> {
    ctx.refusal = Some(refusal);
    Error::explain(ErrorType::HTTPStatus(refusal.status().as_u16()), refusal.label())
}
