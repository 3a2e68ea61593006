//! One request to a server that is no upstream: on a connection of its own, under the same guard as those of
//! requests.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use bytes::BytesMut;
use http::HeaderValue;
use http::Request;
use http::Response;
use http::header;
use http::uri::Scheme;
use pingora::Error;
use pingora::ErrorType;
use pingora::OrErr;
use pingora::Result;
use pingora::http::RequestHeader;
use pingora::protocols::http::v1::client::HttpSession;
use pingora::protocols::l4::socket::SocketAddr;
use rustls::ClientConfig;
use tokio::net::lookup_host;
use tokio_rustls::TlsConnector;

use crate::message::reply::ReplyLimits;
use crate::upstream::guard::OriginIo;
use crate::upstream::line::Line;
use crate::upstream::socket;
use crate::upstream::tls;

/// Sends `request`, whose target is a whole `https` URL, and waits for the answer, the body of which may have
/// `most` bytes. Has no deadline.
///
/// # Errors
/// No connection can be made, it breaks, what comes is not HTTP, or too much of it.
pub async fn ask(
    request: Request<Bytes>,
    trust: &Arc<ClientConfig>,
    most: usize,
) -> Result<Response<Bytes>> {
    let (head, body) = request.into_parts();
    let authority = head.uri.authority().filter(|_| head.uri.scheme() == Some(&Scheme::HTTPS));
    let Some(authority) = authority else {
        return Error::e_explain(ErrorType::InvalidHTTPHeader, "not an https URL");
    };
    let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
    let mut sent = RequestHeader::build(head.method.clone(), target.as_bytes(), Some(8))?;
    sent.insert_header(header::HOST, authority.as_str())?;
    for (name, value) in &head.headers {
        sent.append_header(name.clone(), HeaderValue::clone(value))?;
    }
    if !body.is_empty() {
        sent.insert_header(header::CONTENT_LENGTH, body.len().to_string())?;
    }
    sent.insert_header(header::CONNECTION, "close")?;

    let line = connect(authority.host(), authority.port_u16().unwrap_or(443), trust).await?;
    let io = OriginIo::fresh(line, None, ReplyLimits::default());
    let mut session = HttpSession::new(Box::new(io));
    session.write_request_header(Box::new(sent)).await?;
    if !body.is_empty() {
        session.write_body(&body).await?;
    }
    session.finish_body().await?;
    loop {
        session.read_response().await?;
        match session.get_status().map(|status| status.as_u16()) {
            // Interim answers; the guard allows so many.
            Some(100..=199) => {}
            Some(_) | None => break,
        }
    }
    let mut answer = BytesMut::new();
    while let Some(part) = session.read_body_bytes().await? {
        if answer.len() + part.len() > most {
            return Error::e_explain(ErrorType::ReadError, "the answer is too long");
        }
        answer.extend_from_slice(&part);
    }
    let Some(got) = session.resp_header() else {
        return Error::e_explain(ErrorType::ReadError, "there is no answer");
    };
    let mut response = Response::new(answer.freeze());
    *response.status_mut() = got.status;
    response.headers_mut().clone_from(&got.headers);
    Ok(response)
}

/// To the first address of the host that takes the connection.
async fn connect(host: &str, port: u16, trust: &Arc<ClientConfig>) -> Result<Line> {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let started = Instant::now();
    let found = lookup_host((host, port)).await;
    let found = found.or_err_with(ErrorType::ConnectNoRoute, || format!("looking up {host}"))?;
    let mut why = format!("{host} has no address");
    for address in found {
        let address = SocketAddr::Inet(address);
        match socket::connect(&address).await {
            Ok(socket) => {
                let name = tls::server_name(host)
                    .map_err(|e| Error::because(ErrorType::InvalidCert, "server name", e))?;
                let handshake = TlsConnector::from(Arc::clone(trust)).connect(name, socket).await;
                let stream = handshake.or_err_with(ErrorType::TLSHandshakeFailure, || {
                    format!("TLS with {host} at {address}")
                })?;
                return Ok(Line::tls(stream, &address, started.elapsed()));
            }
            Err(e) => why = format!("connecting to {host} at {address}: {e}"),
        }
    }
    Error::e_explain(ErrorType::ConnectError, why)
}
