//! One check over HTTP/2, on a connection of its own.

use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use h2::RecvStream;
use http::HeaderMap;
use http::HeaderValue;
use http::Method;
use http::Version;
use http::header::USER_AGENT;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::time::timeout;

use super::Request;
use super::checker::Failure;
use super::http::AGENT;
use super::http::Search;

/// The largest header list of an answer.
const HEADER_LIST: u32 = 64 << 10;

/// How long the farewell may take.
const FAREWELL: Duration = Duration::from_millis(100);

/// A request over HTTP/2.
pub(super) struct Said<'a> {
    pub(super) method: Method,
    pub(super) host: &'a str,
    pub(super) secure: bool,
    pub(super) target: &'a str,
    /// Those set by the operator go over those of ours.
    pub(super) own: HeaderMap,
    pub(super) headers: &'a HeaderMap,
    pub(super) body: Bytes,
}

/// Sends the request and judges the answer.
pub(super) async fn ask<T>(
    io: T,
    request: &Request,
    host: &str,
    secure: bool,
) -> Result<(), Failure>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let said = Said {
        method: request.method.clone(),
        host,
        secure,
        target: &request.target,
        own: HeaderMap::new(),
        headers: &request.headers,
        body: Bytes::new(),
    };
    say(io, said, async |response: http::Response<RecvStream>| {
        let status = response.status().as_u16();
        if !request.allows(status) {
            return Err(Failure::Status(status));
        }
        let Some(text) = &request.body else { return Ok(()) };
        let mut search = Search::new(text);
        let mut body = response.into_body();
        while let Some(part) = next(&mut body).await? {
            if let Some(found) = search.take(&part) {
                return found;
            }
        }
        Err(Failure::Body)
    })
    .await
}

/// Makes one request on a connection that ends with it.
pub(super) async fn say<T>(
    io: T,
    said: Said<'_>,
    judge: impl AsyncFnOnce(http::Response<RecvStream>) -> Result<(), Failure>,
) -> Result<(), Failure>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let broken = |error: h2::Error| Failure::of_http2(&error);
    let mut settings = h2::client::Builder::new();
    settings.enable_push(false).max_header_list_size(HEADER_LIST);
    let (sender, connection) = settings.handshake::<_, Bytes>(io).await.map_err(broken)?;
    let exchange = async move {
        let mut sender = sender.ready().await.map_err(broken)?;
        let body = said.body.clone();
        let head = head(said)?;
        let (response, mut stream) = sender.send_request(head, body.is_empty()).map_err(broken)?;
        if !body.is_empty() {
            stream.send_data(body, true).map_err(broken)?;
        }
        judge(response.await.map_err(broken)?).await
    };
    let (mut exchange, mut connection) = (pin!(exchange), pin!(connection));
    let (judged, is_open) = tokio::select! {
        biased;
        judged = &mut exchange => (judged, true),
        // What came before the end is still there to be read.
        _ = &mut connection => (exchange.await, false),
    };
    if is_open {
        // Nobody holds a stream any more: it says GOAWAY and ends.
        let _ = timeout(FAREWELL, connection).await;
    }
    judged
}

/// The next part of a body.
pub(super) async fn next(body: &mut RecvStream) -> Result<Option<Bytes>, Failure> {
    let Some(part) = body.data().await else { return Ok(None) };
    let part = part.map_err(|error| Failure::of_http2(&error))?;
    let _ = body.flow_control().release_capacity(part.len());
    Ok(Some(part))
}

fn head(said: Said<'_>) -> Result<http::Request<()>, Failure> {
    let scheme = if said.secure { "https" } else { "http" };
    let mut head = http::Request::new(());
    let uri = format!("{scheme}://{}{}", said.host, said.target);
    *head.uri_mut() = uri.parse().map_err(|error| Failure::broken("internal", &error))?;
    *head.method_mut() = said.method;
    *head.version_mut() = Version::HTTP_2;
    *head.headers_mut() = said.own;
    head.headers_mut().insert(USER_AGENT, HeaderValue::from_static(AGENT));
    for name in said.headers.keys() {
        head.headers_mut().remove(name);
        for value in said.headers.get_all(name) {
            head.headers_mut().append(name.clone(), value.clone());
        }
    }
    Ok(head)
}
