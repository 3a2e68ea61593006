//! What must go from the store before it is old: what an unsafe method changed.

use pingora::http::ResponseHeader;
use pingora_proxy::Session;

use crate::cache::forget::must_forget;
use crate::cache::key;
use crate::message::target;
use crate::proxy::context::RequestCtx;
use crate::runtime::purge;

/// Forgets what the answer to an unsafe method makes invalid (RFC 9111 §4.4).
pub(crate) fn invalidate(session: &Session, response: &ResponseHeader, ctx: &RequestCtx) {
    let Some(admitted) = &ctx.admitted else { return };
    let asked = key::Target {
        space: "",
        scheme: ctx.scheme().as_str(),
        host: admitted.authority.host(),
        port: admitted.authority.port(),
        path: admitted.target.path(),
        query: admitted.target.query(),
    };
    let plan = &ctx.runtime.plan;
    let method = &session.req_header().method;
    for forgotten in must_forget(method, response.status, &asked, &response.headers) {
        let written = match &forgotten.query {
            Some(query) => format!("{}?{query}", forgotten.path),
            None => forgotten.path,
        };
        // What has no normal form is never stored.
        let Ok(target) = target::Target::normalise(written.as_bytes(), &plan.normalisation) else {
            continue;
        };
        let named = key::Target { path: target.path(), query: target.query(), ..asked };
        purge::invalidate(&ctx.runtime, &named);
    }
}
