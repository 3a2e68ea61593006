//! The request that the origin sees: rebuilt, never passed through.

mod changes;

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;
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
use crate::message::append::append;
use crate::message::append::append_few;
use crate::message::spare;
use crate::message::target::Authority;
use crate::proxy::context::Arrival;
use crate::proxy::context::Asked;
use crate::proxy::context::RequestCtx;
use crate::proxy::forward::changes::Changes;
use crate::proxy::forward::changes::Own;
use crate::proxy::mirror;
use crate::proxy::outgoing::Outgoing;
use crate::refusal::Refusal;
use crate::route::HeaderRule;
use crate::route::Route;
use crate::route::rewrite::Values;
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
    let runtime = Arc::clone(&ctx.runtime);
    let Some(route) = ctx.route.map(|index| &runtime.plan.routes.routes()[index]) else {
        return Err(refused(ctx, Refusal::NoRoute));
    };
    if let Err(unable) = address(asked, request, route, ctx) {
        return Err(unable.of(ctx));
    }
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

/// Addresses the header `request` of what was `asked` to its origin, and says all that is said to every origin.
fn address(
    asked: &Outgoing<'_>,
    request: &mut RequestHeader,
    route: &Route,
    ctx: &RequestCtx,
) -> std::result::Result<(), Unable> {
    let destination = destination(route, ctx)?;
    let towards = request.version;
    changes(asked, towards, &destination, route, ctx)?.apply(request)?;
    let Destination { target, host, .. } = &destination;
    let uri = if towards == Version::HTTP_2 {
        Uri::builder().scheme("http").authority(&**host).path_and_query(&**target).build().ok()
    } else {
        target.parse::<Uri>().ok()
    };
    request.set_uri(uri.ok_or(Refusal::BadTarget)?);
    Ok(())
}

/// Why a request cannot be rebuilt.
enum Unable {
    Refused(Refusal),
    Failed(Box<Error>),
}

impl Unable {
    fn of(self, ctx: &mut RequestCtx) -> Box<Error> {
        match self {
            Self::Refused(refusal) => refused(ctx, refusal),
            Self::Failed(error) => error,
        }
    }
}

impl From<Refusal> for Unable {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<Box<Error>> for Unable {
    fn from(error: Box<Error>) -> Self {
        Self::Failed(error)
    }
}

/// A GET past the cache as its origin gets it.
///
/// # Errors
/// There is no target or host that it could have.
pub(crate) fn question(asked: &Outgoing<'_>, ctx: &mut RequestCtx) -> Result<Question> {
    let speaks = ctx.upstream().map(|index| ctx.runtime.plan.upstreams[index].protocol);
    match speaks {
        Some(Protocol::Http1) | None => text(asked, ctx).map(Question::Text),
        Some(Protocol::Http2) => fields(asked, ctx).map(Question::Fields),
    }
}

/// The whole header of a GET past the cache, as an HTTP/2 origin gets it.
#[inline(never)]
fn fields(asked: &Outgoing<'_>, ctx: &mut RequestCtx) -> Result<Box<Parts>> {
    let mut head = http::Request::new(()).into_parts().0;
    head.headers = asked.headers.clone();
    head.version = Version::HTTP_2;
    let mut request = RequestHeader::from(head);
    write_anew(asked, &mut request, None, ctx)?;
    Ok(Box::new(Parts::from(request)))
}

/// The whole header of a GET past the cache, as an HTTP/1 origin gets it; what [`write_anew`] would make
/// of it.
fn text(asked: &Outgoing<'_>, ctx: &mut RequestCtx) -> Result<Vec<u8>> {
    let Some(route) = ctx.route() else { return Err(refused(ctx, Refusal::Internal)) };
    let mut text = spare::text();
    text.reserve(TEXT);
    append_few(&mut text, *b"GET ");
    if route.headers.request.is_empty() {
        if let Err(unable) = write_plainly(asked, route, ctx, &mut text) {
            return Err(unable.of(ctx));
        }
        ctx.origin.conditions = Asked::Plainly;
    } else {
        write_by_rules(asked, ctx, &mut text)?;
    }
    append_few(&mut text, *b"\r\n");
    Ok(text)
}

/// Writes the target and the fields of a request on a route with rules for them. What these change is only known when
/// all is there.
#[inline(never)]
fn write_by_rules(asked: &Outgoing<'_>, ctx: &mut RequestCtx, text: &mut Vec<u8>) -> Result<()> {
    let mut request = RequestHeader::build_no_case(Method::GET, b"/", None)?;
    for (name, value) in asked.headers {
        request.append_header(name, value)?;
    }
    write_anew(asked, &mut request, None, ctx)?;
    append(text, request.raw_path());
    append(text, b" HTTP/1.1\r\n");
    request.header_to_h1_wire(text);
    Ok(())
}

/// Writes the target and the fields of a request on a route without rules for them.
fn write_plainly(
    asked: &Outgoing<'_>,
    route: &Route,
    ctx: &RequestCtx,
    text: &mut Vec<u8>,
) -> std::result::Result<(), Unable> {
    let destination = destination(route, ctx)?;
    append(text, destination.target.as_bytes());
    append(text, b" HTTP/1.1\r\n");
    changes(asked, Version::HTTP_11, &destination, route, ctx)?.write(text)?;
    Ok(())
}

/// Whether a text is visible ASCII throughout.
#[inline(never)]
fn is_visible(text: &str) -> bool {
    // All bytes: one look less for each of them than to stop at the first that is not.
    text.bytes().fold(true, |so_far, b| so_far & b.is_ascii_graphic())
}

/// What changes of the fields on their way to `destination`.
fn changes<'a>(
    asked: &Outgoing<'a>,
    towards: Version,
    destination: &'a Destination<'_>,
    route: &Route,
    ctx: &'a RequestCtx,
) -> std::result::Result<Changes<'a>, Refusal> {
    if !is_visible(&ctx.id) || !is_visible(&destination.host) {
        return Err(Refusal::BadHost);
    }
    let own = Own {
        underscores: route.headers.underscores,
        client: ctx.client.as_ref().map(|client| (client, &*destination.authority)),
        introduction: route.headers.client,
        certificate: ctx.conn.as_deref().and_then(Conn::client),
        id: &ctx.id,
        host: &destination.host,
    };
    Ok(Changes::of(asked, ctx.version, towards, own))
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

/// What a request to an origin is for.
struct Destination<'a> {
    /// The target that the origin sees.
    target: Cow<'a, str>,
    /// The Host that it sees.
    host: Cow<'a, str>,
    /// What the client asked for.
    authority: Cow<'a, Authority>,
}

/// Where a request goes on its route.
fn destination<'a>(
    route: &Route,
    ctx: &'a RequestCtx,
) -> std::result::Result<Destination<'a>, Refusal> {
    let Some(admitted) = &ctx.admitted else { return Err(Refusal::Internal) };
    let (path, query) = (admitted.target.path(), admitted.target.query());
    let authority = authority(route, admitted);
    let target = if admitted.asterisk || route.rewrite.keeps_path() {
        Cow::Borrowed(admitted.target.as_str())
    } else {
        // A path that climbs out of where the rewrite put it is the client's doing.
        let rewritten = route.rewrite.apply(path, query, &ctx.captures);
        Cow::Owned(rewritten.map_err(|_| Refusal::BadTarget)?)
    };
    let upstream_host =
        ctx.upstream().and_then(|index| ctx.runtime.plan.upstreams[index].host.as_deref());
    let host = match (&route.rewrite.host, upstream_host) {
        (Some(template), _) => {
            let values = Values {
                scheme: ctx.scheme().as_str(),
                host: authority.host(),
                path,
                query,
                captures: &ctx.captures,
            };
            Cow::Owned(template.render_host(&values).map_err(|_| Refusal::BadHost)?)
        }
        (None, Some(host)) => Cow::Borrowed(host),
        (None, None) => match &authority {
            Cow::Borrowed(asked) => Cow::Borrowed(asked.as_str()),
            Cow::Owned(asked) => Cow::Owned(asked.to_string()),
        },
    };
    Ok(Destination { target, host, authority })
}

/// Counts the body on its way to the origin and holds it under the route's limit.
pub(crate) fn pass_body(
    request: &RequestHeader,
    body: &mut Option<Bytes>,
    end: bool,
    ctx: &mut RequestCtx,
) -> Result<()> {
    if end && body.as_ref().is_some_and(Bytes::is_empty) {
        // The empty DATA frame with which HTTP/2 clients end a body. Pingora writes it to an HTTP/1
        // origin as a last chunk, and then the last chunk once more.
        *body = None;
    }
    // Of a body with trailers, which end here, Pingora tells no other end.
    let end = end || body.is_none();
    mirror::pass_body(body.as_ref(), end, ctx);
    let length = body.as_ref().map_or(0, Bytes::len);
    ctx.body_read = ctx.body_read.saturating_add(length as u64);
    if let Some(lease) = ctx.origin.lease.as_mut().filter(|lease| lease.waits_for_body())
        && (end || is_whole(&request.headers, ctx.body_read))
    {
        lease.body_is_sent();
    }
    if body.is_none() {
        return Ok(());
    }
    let max = ctx.route().map_or(u64::MAX, |route| route.max_body);
    if ctx.body_read > max && !ctx.origin.upgraded {
        // Of an error here Pingora lets the exchange with an HTTP/2 origin know nothing.
        terms::refuse_body();
        return Err(refused(ctx, Refusal::BodyTooLarge));
    }
    Ok(())
}

/// Whether as much has been read of a body as the client has said that there is: over HTTP/2 it may keep the end to itself.
fn is_whole(headers: &HeaderMap, read: u64) -> bool {
    let length = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok());
    length.and_then(|length| length.parse().ok()).is_some_and(|length: u64| read >= length)
}

#[cold]
fn refused(ctx: &mut RequestCtx, refusal: Refusal) -> Box<Error> {
    ctx.refusal = Some(refusal);
    Error::explain(ErrorType::HTTPStatus(refusal.status().as_u16()), refusal.label())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_whole_when_as_much_came_as_was_said() {
        for (length, read, whole) in [
            (Some("4"), 3, false),
            (Some("4"), 4, true),
            (Some("4"), 5, true),
            (Some("four"), 9, false),
            (None, 9, false),
        ] {
            let headers: HeaderMap = length
                .map(|length| (header::CONTENT_LENGTH, length.parse().unwrap()))
                .into_iter()
                .collect();
            assert_eq!(is_whole(&headers, read), whole, "{read} of {length:?}");
        }
    }
}
