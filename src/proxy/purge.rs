//! What must go from the store before it is old: what an unsafe method changed.

use pingora::http::ResponseHeader;
use pingora_proxy::Session;

use crate::cache::forget::must_forget;
use crate::cache::key;
use crate::cache::key::Resource;
use crate::config::plan::Plan;
use crate::message::target;
use crate::proxy::context::RequestCtx;
use crate::proxy::lookup;
use crate::storage::memory::Kind;

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
        for resource in resources(plan, &named) {
            ctx.runtime.memory.purge_resource(&resource, Kind::Hard);
        }
    }
}

/// Under which names the store may have responses of this URL: one for every way in which a route
/// that serves it asks its origin and makes its keys.
fn resources(plan: &Plan, url: &key::Target<'_>) -> Vec<Resource> {
    let mut resources = Vec::new();
    for route in plan.routes.serving(url.host, url.path) {
        if !route.cache.enabled {
            continue;
        }
        let Some(space) = lookup::space(plan, route) else { continue };
        let target = key::Target { space: &space, ..*url };
        let resource = Resource::new(&target, &route.cache.key);
        if !resources.contains(&resource) {
            resources.push(resource);
        }
    }
    resources
}
