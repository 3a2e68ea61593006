//! HTTP for the ACME library, on connections like those to origins.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use std::time::SystemTime;

use bytes::Bytes;
use http::Request;
use http::StatusCode;
use http::header;
use instant_acme::BodyWrapper;
use instant_acme::BytesResponse;
use instant_acme::Error;
use instant_acme::HttpClient;
use parking_lot::Mutex;
use rustls::ClientConfig;

use crate::upstream::ask::ask;

/// How long one request may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// The largest answer; chains of certificates have a few KiB.
const MOST: usize = 1 << 20;

/// A client that remembers until when the server wants to be left alone.
#[derive(Clone)]
pub(super) struct Client {
    trust: Arc<ClientConfig>,
    rest: Arc<Mutex<Option<SystemTime>>>,
}

impl Client {
    pub(super) fn new(trust: Arc<ClientConfig>) -> Self {
        Self { trust, rest: Arc::default() }
    }

    /// Until when the server said, refusing a request, that it wants to be left alone.
    pub(super) fn rest(&self) -> Option<SystemTime> {
        *self.rest.lock()
    }
}

impl HttpClient for Client {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let Self { trust, rest } = self.clone();
        Box::pin(async move {
            let (mut parts, body) = request.into_parts();
            let agent = concat!("edgeproxy/", env!("CARGO_PKG_VERSION"));
            parts.headers.insert(header::USER_AGENT, http::HeaderValue::from_static(agent));
            // The library's body gives its bytes away in an answer only.
            let mut body = BytesResponse::from(http::Response::new(body)).body;
            let body = body.into_bytes().await.map_err(Error::Other)?;
            let url = parts.uri.clone();
            let asked = ask(Request::from_parts(parts, body), &trust, MOST);
            let answer = match tokio::time::timeout(PATIENCE, asked).await {
                Ok(Ok(answer)) => answer,
                Ok(Err(e)) => return Err(Error::Other(format!("{url}: {}", plain(&e)).into())),
                Err(_) => {
                    let why = format!("{url}: no answer within {PATIENCE:?}");
                    return Err(Error::Other(why.into()));
                }
            };
            if matches!(
                answer.status(),
                StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE
            ) {
                let field = answer.headers().get(header::RETRY_AFTER);
                let moment =
                    field.and_then(|field| moment(field.to_str().ok()?, SystemTime::now()));
                *rest.lock() = moment;
            }
            let (parts, body) = answer.into_parts();
            Ok(BytesResponse { parts, body: Box::new(body) })
        })
    }
}

/// What is at the root of an error of Pingora's, and what was being done.
fn plain(error: &pingora::Error) -> String {
    let context = error.context.as_ref().map(|context| context.as_str().to_owned());
    let cause = error.cause.as_ref().map(ToString::to_string);
    let parts: Vec<String> = context.into_iter().chain(cause).collect();
    if parts.is_empty() { error.to_string() } else { parts.join(": ") }
}

/// What `Retry-After` says (RFC 9110 §10.2.3).
fn moment(text: &str, now: SystemTime) -> Option<SystemTime> {
    match text.trim().parse::<u32>() {
        Ok(seconds) => Some(now + Duration::from_secs(seconds.into())),
        Err(_) => httpdate::parse_http_date(text.trim()).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::UNIX_EPOCH;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        assert_eq!(moment("120", UNIX_EPOCH), Some(UNIX_EPOCH + Duration::from_secs(120)));
        let date = moment("Thu, 01 Jan 1970 00:02:00 GMT", UNIX_EPOCH);
        assert_eq!(date, Some(UNIX_EPOCH + Duration::from_secs(120)));
        assert_eq!(moment("soon", UNIX_EPOCH), None);
        assert_eq!(moment("-1", UNIX_EPOCH), None);
    }
}
