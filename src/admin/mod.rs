//! The admin listener: what operators and their tools ask a running process. Never in the data path.

mod certificates;
mod explain;
mod purge;
mod reload;
mod upstreams;

use std::sync::Arc;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use http::HeaderValue;
use http::Method;
use http::Response;
use http::StatusCode;
use http::header;
use pingora::apps::http_app::ServeHttp;
use pingora::protocols::http::ServerSession;
use serde::Serialize;

use crate::acme::keeper::Standing;
use crate::admin::certificates::Standings;
use crate::cache::purge::Wish;
use crate::listen::census::Census;
use crate::message::secret::bearer;
use crate::runtime::Runtime;
use crate::runtime::reload::Reload;

/// The admin application.
pub struct Admin {
    runtime: Arc<ArcSwap<Runtime>>,
    census: Arc<Census>,
    reload: Arc<dyn Reload>,
    certificates: Option<Standings>,
}

impl Admin {
    /// An admin application for this process.
    #[must_use]
    pub fn new(
        runtime: Arc<ArcSwap<Runtime>>,
        census: Arc<Census>,
        reload: Arc<dyn Reload>,
    ) -> Self {
        Self { runtime, census, reload, certificates: None }
    }

    /// The same, which asks here how certificates stand that are ordered.
    #[must_use]
    pub fn with_certificates(
        self,
        standings: impl Fn() -> Vec<Standing> + Send + Sync + 'static,
    ) -> Self {
        Self { certificates: Some(Box::new(standings)), ..self }
    }

    fn answer(&self, method: &Method, path: &str) -> Response<Vec<u8>> {
        let runtime = self.runtime.load();
        let read = method == Method::GET || method == Method::HEAD;
        match (path, read) {
            ("/healthz", true) => text(StatusCode::OK, "ok\n".to_owned()),
            ("/readyz", true) if runtime.draining.has_begun() => text(
                StatusCode::SERVICE_UNAVAILABLE,
                format!("draining, {} connections left\n", self.census.total()),
            ),
            ("/readyz", true) => text(StatusCode::OK, "ready\n".to_owned()),
            ("/metrics", true) => {
                let mut response = text(StatusCode::OK, runtime.metrics.render());
                response.headers_mut().insert(
                    header::CONTENT_TYPE,
                    HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"),
                );
                response
            }
            (CERTIFICATES, true) => certificates::list(self.certificates.as_ref()),
            ("/healthz" | "/readyz" | "/metrics" | CERTIFICATES, false) => not_allowed("GET, HEAD"),
            (CLEAR | PURGE | EXPLAIN | RELOAD, _) => not_allowed("POST"),
            _ => text(
                StatusCode::NOT_FOUND,
                "There is: GET /healthz, GET /readyz, GET /metrics, POST /v1/purge, \
                 POST /v1/explain, POST /v1/reload, GET /v1/upstreams and below it, \
                 GET /v1/certificates, POST /cache/clear\n"
                    .to_owned(),
            ),
        }
    }

    /// Why this may not be asked. Where there is a token, it is needed for all but the two questions
    /// of those who watch over processes.
    fn refusal(&self, session: &ServerSession) -> Option<Response<Vec<u8>>> {
        let request = session.req_header();
        // A page in a browser can make it send requests to loopback addresses, but not without
        // saying so. Operators' tools send no Origin.
        if request.headers.contains_key(header::ORIGIN) {
            return Some(text(StatusCode::FORBIDDEN, "Not from a web page.\n".to_owned()));
        }
        let runtime = self.runtime.load();
        let is_open = matches!(request.uri.path(), "/healthz" | "/readyz");
        if let Some(token) = runtime.plan.admin_token.as_ref().filter(|_| !is_open) {
            let presented = bearer(session.get_header_bytes(header::AUTHORIZATION));
            if presented.is_some_and(|presented| token.is(presented)) {
                return None;
            }
            let mut response = text(
                StatusCode::UNAUTHORIZED,
                "Send the token: Authorization: Bearer ...\n".to_owned(),
            );
            let ask = HeaderValue::from_static("Bearer realm=\"edgeproxy\"");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, ask);
            return Some(response);
        }
        let is_local = is_local(session.get_header_bytes(header::HOST));
        (!is_local)
            .then(|| text(StatusCode::FORBIDDEN, "Ask for this host by its address.\n".to_owned()))
    }
}

/// Purges what its body names.
const PURGE: &str = "/v1/purge";
/// Says what a request would get, and why.
const EXPLAIN: &str = "/v1/explain";
/// Reads the configuration again.
const RELOAD: &str = "/v1/reload";
/// How certificates stand that are ordered.
const CERTIFICATES: &str = "/v1/certificates";
/// Purges everything.
const CLEAR: &str = "/cache/clear";

/// Empties the cache, and says how many responses were in it.
async fn clear(runtime: &Runtime) -> Response<Vec<u8>> {
    let everything = Wish { everything: true, count: true, ..Wish::default() };
    let order = everything.order(&runtime.plan.normalisation);
    let purged = match order {
        Ok(order) => crate::runtime::purge::purge(runtime, &order, &purge::asker()).await,
        Err(unclear) => Err(unclear),
    };
    match purged {
        Ok(report) => text(StatusCode::OK, format!("{}\n", report.count())),
        Err(unclear) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{unclear}\n")),
    }
}

#[async_trait]
impl ServeHttp for Admin {
    async fn response(&self, session: &mut ServerSession) -> Response<Vec<u8>> {
        if let Some(refusal) = self.refusal(session) {
            return refusal;
        }
        let request = session.req_header();
        let (method, path) = (request.method.clone(), request.uri.path().to_owned());
        match (method, path.as_str()) {
            (Method::POST, PURGE) => purge::answer(session, self.runtime.load_full()).await,
            (Method::POST, EXPLAIN) => explain::answer(session, &self.runtime.load_full()).await,
            (Method::POST, RELOAD) => reload::answer(&*self.reload).await,
            (Method::POST, CLEAR) => clear(&self.runtime.load_full()).await,
            (method, path) => match upstreams::ask(path) {
                Some(ask) => upstreams::answer(session, &self.runtime, &method, ask).await,
                None => self.answer(&method, path),
            },
        }
    }
}

/// Whether Host is an address or `localhost`. A web page whose name was made to point here (DNS
/// rebinding) sends that name.
fn is_local(host: &[u8]) -> bool {
    let Ok(host) = std::str::from_utf8(host) else { return false };
    let name = host.rsplit_once(':').map_or(host, |(name, port)| {
        if port.bytes().all(|b| b.is_ascii_digit()) { name } else { host }
    });
    let address = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || address.parse::<std::net::IpAddr>().is_ok()
}

fn text(status: StatusCode, body: String) -> Response<Vec<u8>> {
    let length = HeaderValue::from(body.len());
    let mut response = Response::new(body.into_bytes());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::CONTENT_LENGTH, length);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn json(status: StatusCode, body: &impl Serialize) -> Response<Vec<u8>> {
    let mut body = serde_json::to_string(body).unwrap_or_else(|_| "{}".to_owned());
    body.push('\n');
    let mut response = text(status, body);
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

fn not_allowed(allow: &'static str) -> Response<Vec<u8>> {
    let mut response = text(StatusCode::METHOD_NOT_ALLOWED, format!("Use {allow}.\n"));
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allow));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_and_localhost_are_local() {
        for host in ["localhost", "localhost:9180", "127.0.0.1:9180", "[::1]:9180", "[::1]"] {
            assert!(is_local(host.as_bytes()), "{host}");
        }
        for host in ["evil.example", "evil.example:9180", "", "localhost.evil.example"] {
            assert!(!is_local(host.as_bytes()), "{host}");
        }
    }
}
