//! What every request is asked first, wherever it was read: is it one beyond doubt, who sends it, and
//! which route does it take? Both ways to an answer ask here, so that there is one answer.

use std::time::SystemTime;

use http::HeaderMap;
use http::Method;
use http::Version;
use http::header;
use pingora::http::RequestHeader;

use crate::listen::conn::Conn;
use crate::message::admit;
use crate::message::admit::Admitted;
use crate::message::admit::Limits;
use crate::message::admit::Received;
use crate::message::forwarded;
use crate::message::forwarded::Client;
use crate::message::hops;
use crate::message::target::Authority;
use crate::message::target::Scheme;
use crate::refusal::Refusal;
use crate::route::Ask;
use crate::route::action::Action;
use crate::route::table::Found;
use crate::runtime::Runtime;

/// How often a request may come through edgeproxies before it is taken for going in circles.
const MOST_PASSES: usize = 8;

/// A request as it was heard.
#[derive(Clone, Copy)]
pub(crate) struct Heard<'a> {
    /// The method.
    pub(crate) method: &'a Method,
    /// The raw target.
    pub(crate) target: &'a [u8],
    /// The version.
    pub(crate) version: Version,
    /// All fields.
    pub(crate) headers: &'a HeaderMap,
    /// What Host was read as before, if it was.
    pub(crate) read: Option<&'a Authority>,
    /// `:authority` of HTTP/2.
    pub(crate) authority: Option<&'a [u8]>,
    /// `:scheme` of HTTP/2. HTTP/1 names a scheme in absolute targets only, and was judged by them.
    pub(crate) scheme: Option<&'a [u8]>,
}

impl<'a> Heard<'a> {
    /// A request as Pingora holds it.
    pub(crate) fn of(request: &'a RequestHeader) -> Self {
        Self {
            method: &request.method,
            target: request.raw_path(),
            version: request.version,
            headers: &request.headers,
            read: None,
            authority: request.uri.authority().map(|authority| authority.as_str().as_bytes()),
            scheme: match request.version {
                Version::HTTP_2 => request.uri.scheme_str().map(str::as_bytes),
                _ => None,
            },
        }
    }
}

/// Judges a request, and brings it into its normal form.
///
/// # Errors
/// The first reason found for which it is not served.
pub(crate) fn enter(
    heard: &Heard<'_>,
    conn: Option<&Conn>,
    runtime: &Runtime,
    now: SystemTime,
) -> Result<(Admitted, Client), Refusal> {
    let plan = &runtime.plan;
    let limits = Limits {
        header_bytes: plan.limits.header_bytes,
        header_fields: plan.limits.header_fields,
        target_bytes: plan.limits.target_bytes,
    };
    let secure = conn.is_some_and(Conn::is_secure);
    let scheme = if secure { Scheme::Https } else { Scheme::Http };
    let admitted = admit::admit(
        &Received {
            method: heard.method,
            target: heard.target,
            version: heard.version,
            headers: heard.headers,
            scheme,
            authority: heard.authority,
            read: heard.read,
            fallback: fallback(heard, conn)?.as_ref(),
        },
        &limits,
        &plan.normalisation,
    )?;
    if let Some(conn) = conn {
        // Whoever shows it on a new connection is refused there, and whoever has a new one is let in.
        if conn.client().is_some_and(|certificate| certificate.is_over(now)) {
            return Err(Refusal::Misdirected);
        }
        // A name that this handshake's certificate is not for, or whose clients are held to more.
        let certificates = runtime.certificates.get(conn.listener).and_then(Option::as_ref);
        if let (Some(certificates), Some(tls)) = (certificates, &conn.tls)
            && !certificates.serves(
                tls.server_name.as_deref(),
                &tls.terms,
                tls.version,
                admitted.authority.host(),
            )
        {
            return Err(Refusal::Misdirected);
        }
    }
    if hops::times_through(heard.headers, hops::PSEUDONYM) > MOST_PASSES {
        return Err(Refusal::Loop);
    }
    let peer = conn.map(|conn| conn.peer.ip());
    let client = forwarded::client(peer, scheme, &plan.limits.trusted_proxies, heard.headers);
    admit::check_scheme(heard.scheme, scheme, client.peer)?;
    Ok((admitted, client))
}

/// Whom a request is for that need not say it: the address that was connected to.
fn fallback(heard: &Heard<'_>, conn: Option<&Conn>) -> Result<Option<Authority>, Refusal> {
    if heard.version != Version::HTTP_10 {
        return Ok(None);
    }
    let local = conn.map_or_else(|| "localhost".to_owned(), |conn| conn.local.to_string());
    Authority::parse(local.as_bytes()).map(Some)
}

/// What the table of routes is asked about a request that was admitted.
pub(crate) fn question<'a>(
    method: &'a Method,
    headers: &'a HeaderMap,
    admitted: &'a Admitted,
    scheme: Scheme,
    conn: Option<&'a Conn>,
) -> Ask<'a> {
    Ask {
        method,
        scheme,
        host: admitted.authority.host(),
        path: admitted.target.path(),
        query: admitted.target.query(),
        headers,
        client: conn.and_then(Conn::client),
    }
}

/// The route that a request takes, and what its path captured.
///
/// # Errors
/// There is none, or what it serves is not for this connection, or the route does not take a request of
/// this size; in the latter cases the route is known all the same.
pub(crate) fn find_route<'r>(
    ask: &Ask<'_>,
    conn: Option<&Conn>,
    runtime: &'r Runtime,
) -> Result<Found<'r>, (Refusal, Option<Found<'r>>)> {
    let table = &runtime.plan.routes;
    let Some(found) = table.find(ask) else {
        let refusal = if table.allowed(ask).is_empty() {
            Refusal::NoRoute
        } else {
            Refusal::MethodNotAllowed
        };
        return Err((refusal, None));
    };
    let route = found.route;
    let is_answered = match route.action {
        Action::Upstream(_) | Action::Respond { .. } => true,
        // It leads to where the client is asked.
        Action::Redirect { .. } => false,
    };
    if is_answered && !runtime.guarded.admits(conn, ask.host) {
        return Err((Refusal::Misdirected, Some(found)));
    }
    if route.max_header != u64::MAX && admit::header_size(ask.headers) as u64 > route.max_header {
        return Err((Refusal::HeadTooLarge, Some(found)));
    }
    let length = ask.headers.get(header::CONTENT_LENGTH);
    let length = length.and_then(|text| text.to_str().ok()).and_then(|text| text.parse().ok());
    if length.is_some_and(|length: u64| length > route.max_body) {
        return Err((Refusal::BodyTooLarge, Some(found)));
    }
    Ok(found)
}
