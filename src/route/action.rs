//! What a route does with a request.

use bytes::Bytes;
use http::HeaderMap;
use http::StatusCode;

use crate::route::rewrite::Template;

/// What a route does with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Pass it to an upstream: an index into the plan's list.
    Upstream(usize),
    /// Send the client elsewhere.
    Redirect {
        /// 301, 302, 303, 307 or 308.
        status: StatusCode,
        /// The Location.
        location: Template,
    },
    /// Answer it here.
    Respond {
        /// The status.
        status: StatusCode,
        /// The header fields, Content-Type among them.
        headers: HeaderMap,
        /// The body.
        body: Bytes,
    },
}
