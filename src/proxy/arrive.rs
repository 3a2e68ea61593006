//! A request arrives: who asks, on which connection, under which id.

use std::time::Duration;

use http::header::HeaderName;
use pingora_proxy::Session;
use uuid::Uuid;

use crate::listen::conn;
use crate::message::trace;
use crate::proxy::context::Arrival;
use crate::proxy::context::RequestCtx;

/// How long a request body that nobody wants is read away before the connection is closed instead.
const DRAIN: Duration = Duration::from_secs(2);

/// The name of the request id's field, towards origin and client.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Learns what is known before the message is judged, and sets the session's deadlines.
pub(crate) fn introduce(session: &mut Session, ctx: &mut RequestCtx) {
    if session.as_downstream().is_subrequest() {
        ctx.arrival = Arrival::Refresh;
    }
    ctx.conn = conn::current();
    let rate_window = ctx.runtime.plan.limits.rate_window;
    let downstream = session.as_downstream_mut();
    // The connection itself guards HTTP/1's pace; on HTTP/2 a stream has to.
    downstream.set_read_timeout(None);
    if downstream.is_http2() {
        downstream.set_write_timeout(Some(rate_window));
    }
    downstream.set_total_drain_timeout(Some(DRAIN));
    let theirs = session.get_header_bytes(REQUEST_ID);
    ctx.id = match std::str::from_utf8(theirs) {
        Ok(id) if trace::is_acceptable_request_id(theirs) => id.to_owned(),
        _ => Uuid::now_v7().simple().to_string(),
    };
}
