//! Origins that speak HTTP/2.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::HeaderMap;
use http::Request;
use http::Response;
use http::request::Parts;
use rustls::ServerConfig;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio_rustls::TlsAcceptor;

/// An HTTP/2 origin, by prior knowledge or over TLS.
pub(crate) struct Origin2 {
    pub(crate) address: SocketAddr,
    log: Arc<Log>,
    runtime: Option<Runtime>,
}

#[derive(Default)]
struct Log {
    seen: Mutex<Vec<Parts>>,
    connections: AtomicUsize,
    names: Mutex<Vec<Option<String>>>,
}

/// One request and the way to answer it.
pub(crate) struct Call {
    pub(crate) head: Parts,
    pub(crate) body: RecvStream,
    pub(crate) answer: SendResponse<Bytes>,
}

impl Call {
    /// The next part of the request's body; `None` at its end.
    pub(crate) async fn data(&mut self) -> Option<Bytes> {
        let part = self.body.data().await?.expect("the stream stays whole");
        let _ = self.body.flow_control().release_capacity(part.len());
        Some(part)
    }

    /// The whole of the request's body, and its trailers.
    pub(crate) async fn whole(&mut self) -> (Vec<u8>, Option<HeaderMap>) {
        let mut body = Vec::new();
        while let Some(part) = self.data().await {
            body.extend_from_slice(&part);
        }
        (body, self.body.trailers().await.expect("the stream stays whole"))
    }

    /// Answers with this head and body.
    pub(crate) fn respond(&mut self, response: Response<()>, body: impl Into<Bytes>) {
        let body = body.into();
        let mut stream =
            self.answer.send_response(response, body.is_empty()).expect("the stream is open");
        if !body.is_empty() {
            stream.send_data(body, true).expect("the stream is open");
        }
    }
}

impl Origin2 {
    /// Starts one on a port of its own; each request is `answer`ed by a task.
    pub(crate) fn start<F, Fut>(tls: Option<Arc<ServerConfig>>, answer: F) -> Self
    where
        F: Fn(Call) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime can be made");
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"));
        let listener = listener.expect("loopback can be listened on");
        let address = listener.local_addr().expect("a bound socket has an address");
        let log = Arc::new(Log::default());
        let answer = Arc::new(answer);
        runtime.spawn({
            let log = Arc::clone(&log);
            async move {
                while let Ok((tcp, _)) = listener.accept().await {
                    log.connections.fetch_add(1, Ordering::SeqCst);
                    let (answer, log, tls) = (Arc::clone(&answer), Arc::clone(&log), tls.clone());
                    tokio::spawn(async move {
                        let Some(config) = tls else { return serve(tcp, log, answer).await };
                        let Ok(tls) = TlsAcceptor::from(config).accept(tcp).await else { return };
                        let name = tls.get_ref().1.server_name().map(ToOwned::to_owned);
                        log.names.lock().expect("no test panics while it holds this").push(name);
                        serve(tls, log, answer).await;
                    });
                }
            }
        });
        Self { address, log, runtime: Some(runtime) }
    }

    /// The heads that were seen so far.
    pub(crate) fn seen(&self) -> Vec<Parts> {
        self.log.seen.lock().expect("no test panics while it holds this").clone()
    }

    /// How many connections were made to it.
    pub(crate) fn connections(&self) -> usize {
        self.log.connections.load(Ordering::SeqCst)
    }

    /// The names that were asked for in handshakes.
    pub(crate) fn server_names(&self) -> Vec<Option<String>> {
        self.log.names.lock().expect("no test panics while it holds this").clone()
    }
}

impl Drop for Origin2 {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn serve<T, F, Fut>(io: T, log: Arc<Log>, answer: Arc<F>)
where
    T: AsyncRead + AsyncWrite + Unpin,
    F: Fn(Call) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let Ok(mut connection) = h2::server::handshake(io).await else { return };
    while let Some(Ok((request, respond))) = connection.accept().await {
        let (head, body) = Request::into_parts(request);
        log.seen.lock().expect("no test panics while it holds this").push(head.clone());
        tokio::spawn(answer(Call { head, body, answer: respond }));
    }
}
