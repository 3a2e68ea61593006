//! The demo origin: pages with different caching rules, served on loopback by this very process, so
//! that the first run needs no other server.
//!
//! Every page says how often it was made. Behind the cache that number stands still.

use std::fmt::Write;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use http::Response;
use http::StatusCode;
use http::header;
use pingora::apps::http_app::ServeHttp;
use pingora::protocols::http::ServerSession;

/// The largest page of `/large`, in MiB.
const LARGEST: usize = 64;
/// The slowest page of `/slow`, in milliseconds.
const SLOWEST: u64 = 10_000;
/// The largest body that `/echo` sends back.
const ECHO_LIMIT: usize = 1 << 20;

/// The pages.
#[derive(Debug, Default)]
pub struct DemoOrigin {
    made: AtomicU64,
}

#[async_trait]
impl ServeHttp for DemoOrigin {
    async fn response(&self, session: &mut ServerSession) -> Response<Vec<u8>> {
        let uri = session.req_header().uri.clone();
        let number = self.made.fetch_add(1, Ordering::Relaxed) + 1;
        match uri.path() {
            "/" => page(number, "public, max-age=60", "text/html; charset=utf-8", index(number)),
            "/static/style.css" => page(
                number,
                "public, max-age=86400, immutable",
                "text/css",
                format!("/* made {number} */ body {{ font-family: sans-serif }}\n"),
            ),
            "/api/time" => page(
                number,
                "public, s-maxage=5",
                "application/json",
                format!("{{\"made\":{number}}}\n"),
            ),
            "/vary" => vary(number, session),
            "/etag" => etag(number, session),
            "/private" => page(number, "private, max-age=60", "text/plain", plain(number)),
            "/no-store" => page(number, "no-store", "text/plain", plain(number)),
            "/slow" => {
                let ms = parameter(uri.query(), "ms").unwrap_or(1000).min(SLOWEST);
                tokio::time::sleep(Duration::from_millis(ms)).await;
                page(number, "public, max-age=10", "text/plain", plain(number))
            }
            "/large" => {
                let mib = parameter(uri.query(), "mib").unwrap_or(8);
                let mib = usize::try_from(mib).unwrap_or(LARGEST).min(LARGEST);
                page(number, "public, max-age=60", "application/octet-stream", large(mib))
            }
            "/echo" => echo(number, session).await,
            _ => {
                let mut response = page(number, "max-age=5", "text/plain", plain(number));
                *response.status_mut() = StatusCode::NOT_FOUND;
                response
            }
        }
    }
}

fn page(number: u64, caching: &str, kind: &str, body: impl Into<Vec<u8>>) -> Response<Vec<u8>> {
    let body = body.into();
    Response::builder()
        .header(header::CONTENT_TYPE, kind)
        .header(header::CONTENT_LENGTH, body.len())
        .header(header::CACHE_CONTROL, caching)
        .header("x-demo-made", number)
        .body(body)
        .expect("the fields are our own literals")
}

fn plain(number: u64) -> String {
    format!("made {number}\n")
}

fn index(number: u64) -> String {
    let mut text = format!(
        "<!doctype html><title>edgeproxy demo</title>\n<h1>It works</h1>\n\
         <p>The demo origin made this page as its number {number}. Load it again: the number stands \
         still for a minute, and <code>X-Cache</code> says HIT.</p>\n<ul>\n"
    );
    for (path, what) in [
        ("/static/style.css", "fresh for a day"),
        ("/api/time", "fresh for five seconds, in shared caches"),
        ("/vary", "one copy for each Accept-Language"),
        ("/etag", "asked about each time, sent again only when changed"),
        ("/private", "never stored here"),
        ("/no-store", "never stored anywhere"),
        ("/slow?ms=1000", "takes a second, once"),
        ("/large?mib=8", "eight mebibytes"),
    ] {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "<li><a href=\"{path}\">{path}</a>: {what}</li>");
    }
    text.push_str("</ul>\n");
    text
}

fn vary(number: u64, session: &ServerSession) -> Response<Vec<u8>> {
    let german = session.get_header_bytes("accept-language").starts_with(b"de");
    let text = if german { "Guten Tag" } else { "Good day" };
    let mut response =
        page(number, "public, max-age=60", "text/plain", format!("{text}, made {number}\n"));
    let headers = response.headers_mut();
    headers.insert(header::VARY, header::HeaderValue::from_static("Accept-Language"));
    response
}

fn etag(number: u64, session: &ServerSession) -> Response<Vec<u8>> {
    const TAG: &str = "\"demo-1\"";
    let known = session.get_header_bytes("if-none-match") == TAG.as_bytes();
    let body = if known { String::new() } else { "this page never changes\n".to_owned() };
    let mut response = page(number, "public, no-cache", "text/plain", body);
    response.headers_mut().insert(header::ETAG, header::HeaderValue::from_static(TAG));
    if known {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response.headers_mut().remove(header::CONTENT_LENGTH);
    }
    response
}

fn large(mib: usize) -> Vec<u8> {
    (0..mib << 20).map(|at| (at % 251) as u8).collect()
}

async fn echo(number: u64, session: &mut ServerSession) -> Response<Vec<u8>> {
    let mut body = Vec::new();
    while let Ok(Some(part)) = session.read_request_body().await {
        if body.len() + part.len() > ECHO_LIMIT {
            break;
        }
        body.extend_from_slice(&part);
    }
    page(number, "no-store", "application/octet-stream", body)
}

/// The number that the query gives to `name`.
fn parameter(query: Option<&str>, name: &str) -> Option<u64> {
    query?
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .find(|(key, _)| *key == name)
        .and_then(|(_, value)| value.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_found_by_name() {
        assert_eq!(parameter(Some("a=1&ms=20"), "ms"), Some(20));
        assert_eq!(parameter(Some("a=1&ms=x"), "ms"), None);
        assert_eq!(parameter(None, "ms"), None);
    }

    #[test]
    fn the_large_page_has_the_size_that_was_asked_for() {
        assert_eq!(large(2).len(), 2 << 20);
    }
}
