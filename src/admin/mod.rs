//! The admin listener: what operators and their tools ask a running process. Never in the data path.

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

use crate::listen::census::Census;
use crate::runtime::Runtime;

/// The admin application.
pub struct Admin {
    runtime: Arc<ArcSwap<Runtime>>,
    census: Arc<Census>,
}

impl Admin {
    /// An admin application for this process.
    #[must_use]
    pub fn new(runtime: Arc<ArcSwap<Runtime>>, census: Arc<Census>) -> Self {
        Self { runtime, census }
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
            ("/cache/clear", false) if method == Method::POST => {
                let cleared = runtime.memory.purge_all();
                let plural = if cleared == 1 { "" } else { "s" };
                text(StatusCode::OK, format!("{cleared} object{plural}\n"))
            }
            ("/healthz" | "/readyz" | "/metrics", false) => not_allowed("GET, HEAD"),
            ("/cache/clear", _) => not_allowed("POST"),
            _ => text(
                StatusCode::NOT_FOUND,
                "There is: GET /healthz, GET /readyz, GET /metrics, POST /cache/clear\n".to_owned(),
            ),
        }
    }
}

#[async_trait]
impl ServeHttp for Admin {
    async fn response(&self, session: &mut ServerSession) -> Response<Vec<u8>> {
        let request = session.req_header();
        // A page in a browser can make it send requests to loopback addresses, but not without
        // saying so. Operators' tools send no Origin.
        if request.headers.contains_key(header::ORIGIN) {
            return text(StatusCode::FORBIDDEN, "Not from a web page.\n".to_owned());
        }
        if !is_local(session.get_header_bytes(header::HOST)) {
            return text(StatusCode::FORBIDDEN, "Ask for this host by its address.\n".to_owned());
        }
        let request = session.req_header();
        let (method, path) = (request.method.clone(), request.uri.path().to_owned());
        self.answer(&method, &path)
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
