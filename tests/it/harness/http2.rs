//! HTTP/2 clients and origins.

use std::future::Future;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::path::Path;

use bytes::Bytes;
use h2::SendStream;
use h2::client::SendRequest;
use http::HeaderMap;
use http::Request;
use rustls::pki_types::ServerName;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::PATIENCE;
use super::client::tls_config;

/// Runs a test's asynchronous part, which may not hang.
pub(crate) fn run<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime can be made");
    runtime.block_on(async { tokio::time::timeout(PATIENCE, work).await.expect("it hangs") })
}

/// A reply over HTTP/2.
#[derive(Debug)]
pub(crate) struct Reply2 {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Option<HeaderMap>,
    /// What came ahead of it.
    pub(crate) interim: Vec<(u16, HeaderMap)>,
}

impl Reply2 {
    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|v| v.to_str().ok())
    }
}

/// By prior knowledge.
pub(crate) async fn plain(to: SocketAddr) -> SendRequest<Bytes> {
    open(connect(to).await).await
}

/// By ALPN over TLS.
pub(crate) async fn tls(to: SocketAddr, name: &str, root: &Path) -> SendRequest<Bytes> {
    secured(connect(to).await, name, root).await
}

/// By ALPN over TLS, on a connection on which something may have been said already.
pub(crate) async fn tls_over(
    tcp: std::net::TcpStream,
    name: &str,
    root: &Path,
) -> SendRequest<Bytes> {
    tcp.set_nonblocking(true).expect("an option can be set");
    secured(TcpStream::from_std(tcp).expect("the runtime takes it"), name, root).await
}

async fn secured(tcp: TcpStream, name: &str, root: &Path) -> SendRequest<Bytes> {
    let connector = TlsConnector::from(tls_config(root, &["h2", "http/1.1"]));
    let name = ServerName::try_from(name.to_owned()).expect("tests use valid names");
    let tls = connector.connect(name, tcp).await.expect("the handshake succeeds");
    assert_eq!(tls.get_ref().1.alpn_protocol(), Some(b"h2".as_slice()));
    open(tls).await
}

async fn connect(to: SocketAddr) -> TcpStream {
    let tcp = TcpStream::connect(to).await.expect("edgeproxy listens");
    // The end of a full window would else wait for an acknowledgement, 40 ms each time.
    tcp.set_nodelay(true).expect("an option can be set");
    tcp
}

async fn open<T: AsyncRead + AsyncWrite + Unpin + Send + 'static>(io: T) -> SendRequest<Bytes> {
    let (send, connection) = h2::client::handshake(io).await.expect("HTTP/2 opens");
    tokio::spawn(async move {
        let _ = connection.await;
    });
    send
}

/// Sends a request with a body and reads its reply.
pub(crate) async fn exchange(
    send: &mut SendRequest<Bytes>,
    request: Request<()>,
    body: Bytes,
) -> Result<Reply2, h2::Error> {
    let mut send = send.clone().ready().await?;
    let end = body.is_empty();
    let (mut response, mut stream) = send.send_request(request, end)?;
    if !end {
        stream.send_data(body, true)?;
    }
    let mut interim = Vec::new();
    while let Some(one) = poll_fn(|cx| response.poll_informational(cx)).await {
        let (head, ()) = one?.into_parts();
        interim.push((head.status.as_u16(), head.headers));
    }
    let (head, mut body) = response.await?.into_parts();
    let mut bytes = Vec::new();
    while let Some(part) = body.data().await {
        let part = part?;
        body.flow_control().release_capacity(part.len())?;
        bytes.extend_from_slice(&part);
    }
    let trailers = body.trailers().await?;
    let status = head.status.as_u16();
    Ok(Reply2 { status, headers: head.headers, body: bytes, trailers, interim })
}

/// A GET.
pub(crate) async fn get(
    send: &mut SendRequest<Bytes>,
    uri: &str,
    fields: &[(&str, &str)],
) -> Result<Reply2, h2::Error> {
    let mut request = Request::get(uri);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    let request = request.body(()).expect("tests write valid requests");
    exchange(send, request, Bytes::new()).await
}

/// Sends some of `block`, as much as the other side has room for at the moment, and says how much;
/// `None` when the stream has ended.
pub(crate) async fn send_some(stream: &mut SendStream<Bytes>, block: &Bytes) -> Option<usize> {
    stream.reserve_capacity(block.len());
    // Only an increase is told of: what is there already is not.
    while stream.capacity() == 0 {
        poll_fn(|cx| stream.poll_capacity(cx)).await?.ok()?;
    }
    let room = stream.capacity().min(block.len());
    stream.send_data(block.slice(..room), false).ok()?;
    Some(room)
}
