//! A request as those see it who send it to an origin and judge how that went, whichever way it came.

use http::HeaderMap;
use http::Method;
use http::Version;
use pingora_proxy::Session;

use crate::upstream::lease::Body;

/// A request on its way to an origin.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Outgoing<'a> {
    /// Its method.
    pub(crate) method: &'a Method,
    /// Its fields, as they were admitted.
    pub(crate) headers: &'a HeaderMap,
    /// It may become a tunnel.
    pub(crate) offers_tunnel: bool,
    /// Its body comes over HTTP/2, and is waited for while we wait for the origin.
    pub(crate) paces_upload: bool,
    /// Whether its body is here when a connection is wanted.
    pub(crate) body: Body,
    /// It has no body, as far as is known where that is asked.
    pub(crate) bodiless: bool,
    /// All that was sent of it can be sent again.
    pub(crate) replayable: bool,
    /// The client was sent something of a final answer.
    pub(crate) answered: bool,
}

impl<'a> Outgoing<'a> {
    /// A request that Pingora proxies.
    pub(crate) fn of(session: &'a Session) -> Self {
        let request = session.req_header();
        let written = session.response_written();
        Self {
            method: &request.method,
            headers: &request.headers,
            offers_tunnel: session.is_upgrade_req(),
            // On HTTP/1 the connection sees to that.
            paces_upload: request.version == Version::HTTP_2,
            body: Body::Here,
            bodiless: false,
            replayable: !session.as_ref().retry_buffer_truncated(),
            answered: written.is_some_and(|response| !response.status.is_informational()),
        }
    }
}
