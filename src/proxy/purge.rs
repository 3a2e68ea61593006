//! What must go from the store before it is old: what an unsafe method changed, and what PURGE names.

use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;
use http::HeaderValue;
use http::Method;
use http::StatusCode;
use http::header;
use pingora::Result;
use pingora::http::ResponseHeader;
use pingora_proxy::Session;

use crate::cache::forget::must_forget;
use crate::cache::groups;
use crate::cache::key;
use crate::cache::purge::Group;
use crate::cache::purge::Url;
use crate::message::secret::bearer;
use crate::message::target;
use crate::proxy::answer;
use crate::proxy::context::RequestCtx;
use crate::proxy::enter;
use crate::refusal::Refusal;
use crate::route::purging;
use crate::route::purging::Purging;
use crate::route::purging::Unmet;
use crate::runtime::purge;
use crate::runtime::purge::Asker;
use crate::runtime::purge::Way;

/// Answers a PURGE. `false`: no rule is about it, and it is a request like others.
pub(crate) async fn by_method(session: &mut Session, ctx: &mut RequestCtx) -> Result<bool> {
    let runtime = Arc::clone(&ctx.runtime);
    let Some(admitted) = &ctx.admitted else { return Ok(false) };
    let (host, path) = (admitted.authority.host(), admitted.target.path());
    let address = ctx.client.as_ref().and_then(|client| client.address);
    let asker = purging::Asker {
        address,
        presented: bearer(session.get_header_bytes(header::AUTHORIZATION)),
    };
    // The rule is that of the route that a GET takes.
    let headers = &session.req_header().headers;
    let ask = enter::question(&Method::GET, headers, admitted, ctx.scheme(), ctx.conn.as_deref());
    let table = &runtime.plan.routes;
    let Some(taken) = table.find(&ask) else { return Ok(false) };
    let routes = match purging::judge(taken.route, &table.serving(host, path), &asker) {
        Purging::Unruled => return Ok(false),
        // A page in the browser of somebody who may can make it send requests, but not without saying
        // so. Operators' tools send no Origin.
        Purging::Allowed(_) if session.req_header().headers.contains_key(header::ORIGIN) => {
            answer::refuse(session, ctx, Refusal::PurgeAddress, &[]).await?;
            return Ok(true);
        }
        Purging::Allowed(routes) => routes,
        Purging::Refused(Unmet::Address) => {
            answer::refuse(session, ctx, Refusal::PurgeAddress, &[]).await?;
            return Ok(true);
        }
        Purging::Refused(Unmet::Token) => {
            let bearer = HeaderValue::from_static("Bearer realm=\"edgeproxy\"");
            let ask = (header::WWW_AUTHENTICATE, bearer);
            answer::refuse(session, ctx, Refusal::PurgeToken, &[ask]).await?;
            return Ok(true);
        }
    };
    // Plain and secure ones: whoever purges often speaks to us in another way than clients do.
    let url = Url {
        scheme: None,
        authority: admitted.authority.clone(),
        target: admitted.target.clone(),
    };
    let from = address.map_or_else(|| "unix".to_owned(), |address| address.to_string());
    let by = Asker { way: Way::Method, from };
    let report = purge::purge_routes(&runtime, url, &routes, &by);
    if runtime.fellows.is_cut_off() {
        // It is done here, but not where clients are answered from now on.
        answer::refuse(session, ctx, Refusal::Shutdown, &[]).await?;
        return Ok(true);
    }

    let mut headers = HeaderMap::with_capacity(2);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let json = Refusal::prefers_json(session.get_header_bytes(header::ACCEPT));
    let (kind, body) = match serde_json::to_string(&report) {
        Ok(body) if json => ("application/json", format!("{body}\n")),
        _ => ("text/plain; charset=utf-8", format!("purged: {}\n", report.count())),
    };
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    answer::respond(session, ctx, StatusCode::OK, &headers, Bytes::from(body)).await?;
    Ok(true)
}

/// Forgets what the answer to an unsafe method makes invalid (RFC 9111 §4.4, RFC 9875 §3). Says by how many
/// purges.
pub(crate) fn invalidate(session: &Session, response: &ResponseHeader, ctx: &RequestCtx) -> u64 {
    let Some(admitted) = &ctx.admitted else { return 0 };
    let mut purges = 0;
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
        purges += purge::invalidate(&ctx.runtime, &named);
    }
    for name in groups::invalidated(method, &response.headers) {
        let group = Group::new(ctx.scheme(), &admitted.authority, name);
        purge::invalidate_group(&ctx.runtime, group);
        purges += 1;
    }
    purges
}
