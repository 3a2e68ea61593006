//! The scripted origin and the minimal proxy of the scenarios.

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use pingora::Error;
use pingora::Result;
use pingora::apps::HttpServerApp;
use pingora::protocols::http::ServerSession;
use pingora::proxy::FailToProxy;
use pingora::proxy::HttpProxy;
use pingora::proxy::ProxyHttp;
use pingora::proxy::Session;
use pingora::server::configuration::ServerConf;
use pingora::upstreams::peer::HttpPeer;
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::AsyncRead;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWrite;
use tokio::io::AsyncWriteExt;
use tokio::io::DuplexStream;
use tokio::net::TcpListener;
use tokio::net::UnixListener;
use tokio::sync::Notify;
use tokio_rustls::TlsAcceptor;

use crate::balance::Algorithm;
use crate::message::reply::ReplyLimits;
use crate::refusal::Refusal;
use crate::resilience::budget;
use crate::resilience::retry;
use crate::upstream::Backend;
use crate::upstream::Balance;
use crate::upstream::OriginTls;
use crate::upstream::Place;
use crate::upstream::Protocol;
use crate::upstream::Retry;
use crate::upstream::Settings;
use crate::upstream::Timeouts;
use crate::upstream::connect::Dials;
use crate::upstream::connect::EdgeConnector;
use crate::upstream::fault::error_of;
use crate::upstream::fault::fault_of;
use crate::upstream::fault::refusal_of;
use crate::upstream::lift::lift;
use crate::upstream::peer::Upstream;
use crate::upstream::peer::Wish;
use crate::upstream::pool;

/// An upstream of one address, with patient deadlines.
pub(in crate::upstream) fn settings(at: Place) -> Settings {
    let long = Duration::from_secs(10);
    Settings {
        name: "origin".into(),
        active: true,
        backends: vec![Backend::new("one", at)],
        balance: Balance { algorithm: Algorithm::RoundRobin, by: None },
        sticky: None,
        concurrency: None,
        panic_threshold: 0,
        slow_start: Duration::ZERO,
        tls: None,
        protocol: Protocol::Http1,
        proxy_protocol: None,
        host: None,
        timeouts: Timeouts { connect: long, read: long, write: long, idle: long, total: long },
        resolvers: Vec::new(),
        resolve_every: long,
        breaker: None,
        retry: Retry {
            settings: retry::Settings {
                attempts: 1,
                backoff: Duration::ZERO,
                max_backoff: Duration::ZERO,
                statuses: Vec::new(),
                non_idempotent: false,
            },
            budget: budget::Settings { percent: 20, minimum: 10 },
            per_try: None,
        },
        health: None,
        ejection: None,
        pool: pool::Settings::default(),
    }
}

/// The minimal proxy: every request goes to its one upstream.
pub(super) struct Edge {
    proxy: Arc<HttpProxy<Mini, EdgeConnector>>,
    dials: Arc<Dials>,
    seen: Arc<Seen>,
}

#[derive(Default)]
struct Seen {
    refusals: Mutex<Vec<Refusal>>,
    faults: AtomicUsize,
}

struct Mini {
    upstream: Arc<Upstream>,
    seen: Arc<Seen>,
}

impl Edge {
    pub(super) async fn before(settings: Settings) -> Self {
        let upstream = Upstream::build(settings, ReplyLimits::default()).unwrap();
        let dials = Arc::new(Dials::default());
        dials.set(&upstream.dials());
        let seen = Arc::new(Seen::default());
        let mini = Mini { upstream, seen: seen.clone() };
        let connector = EdgeConnector::new(dials.clone());
        let proxy = lift(&Arc::new(ServerConf::default()), mini, connector).await.unwrap();
        Self { proxy, dials, seen }
    }

    /// All that a client gets for a GET, to the end of its connection.
    pub(super) async fn get(&self, path: &str) -> String {
        let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
        self.send(async |client| client.write_all(request.as_bytes()).await.unwrap()).await
    }

    pub(super) async fn send(&self, request: impl AsyncFnOnce(&mut DuplexStream)) -> String {
        let (mut client, server) = tokio::io::duplex(64 * 1024);
        let proxy = self.proxy.clone();
        let serving = tokio::spawn(async move {
            let (_stop, shutdown) = tokio::sync::watch::channel(false);
            let mut session = ServerSession::new_http1(Box::new(server));
            session.set_keepalive(None);
            proxy.process_new_http(session, &shutdown).await;
        });
        request(&mut client).await;
        let mut reply = Vec::new();
        client.read_to_end(&mut reply).await.unwrap();
        serving.await.unwrap();
        String::from_utf8(reply).unwrap()
    }

    pub(super) fn dials(&self) -> &Dials {
        &self.dials
    }

    /// What failed, in order.
    pub(super) fn refusals(&self) -> Vec<Refusal> {
        self.seen.refusals.lock().clone()
    }

    /// How often a guard's fault was behind it.
    pub(super) fn faults(&self) -> usize {
        self.seen.faults.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl ProxyHttp for Mini {
    type CTX = ();

    fn new_ctx(&self) {}

    async fn upstream_peer(&self, _: &mut Session, (): &mut ()) -> Result<Box<HttpPeer>> {
        self.upstream.lend(&Wish::default()).map(|lease| lease.peer()).map_err(error_of)
    }

    async fn fail_to_proxy(&self, session: &mut Session, e: &Error, (): &mut ()) -> FailToProxy {
        let refusal = refusal_of(e);
        self.seen.refusals.lock().push(refusal);
        self.seen.faults.fetch_add(usize::from(fault_of(e).is_some()), Ordering::SeqCst);
        let error_code = refusal.status().as_u16();
        let _ = session.respond_error(error_code).await;
        FailToProxy { error_code, can_reuse_downstream: false }
    }
}

/// An origin that answers each request with the next answer of its script.
pub(super) struct Origin {
    port: u16,
    script: Arc<Script>,
}

#[derive(Default)]
struct Script {
    answers: Mutex<VecDeque<Answer>>,
    connections: AtomicUsize,
    last: Mutex<Vec<u8>>,
    gate: Notify,
}

/// One answer, byte for byte.
pub(super) struct Answer {
    bytes: &'static [u8],
    /// Sent after [`Origin::go_on`].
    later: Option<&'static [u8]>,
    close: bool,
}

impl Answer {
    pub(super) fn keep(bytes: &'static [u8]) -> Self {
        Self { bytes, later: None, close: false }
    }

    pub(super) fn close(bytes: &'static [u8]) -> Self {
        Self { bytes, later: None, close: true }
    }

    pub(super) fn then(self, later: &'static [u8]) -> Self {
        Self { later: Some(later), ..self }
    }
}

impl Origin {
    pub(super) async fn tcp(answers: impl IntoIterator<Item = Answer>) -> Self {
        Self::listen(None, answers).await
    }

    pub(super) async fn tls(tls: &Tls, answers: impl IntoIterator<Item = Answer>) -> Self {
        Self::listen(Some(tls.acceptor(b"http/1.1")), answers).await
    }

    async fn listen(tls: Option<TlsAcceptor>, answers: impl IntoIterator<Item = Answer>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let script = Arc::new(Script::of(answers));
        let serving = script.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (script, tls) = (serving.clone(), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => script.follow(stream).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                script.follow(stream).await;
                            }
                        }
                    }
                });
            }
        });
        Self { port, script }
    }

    pub(super) fn unix(path: &Path, answers: impl IntoIterator<Item = Answer>) -> Self {
        let listener = UnixListener::bind(path).unwrap();
        let script = Arc::new(Script::of(answers));
        let serving = script.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let script = serving.clone();
                tokio::spawn(async move { script.follow(stream).await });
            }
        });
        Self { port: 0, script }
    }

    /// An HTTP/2 origin that greets whoever asks.
    pub(super) async fn http2(tls: Option<&Tls>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let script = Arc::new(Script::default());
        let serving = script.clone();
        let tls = tls.map(|tls| tls.acceptor(b"h2"));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (script, tls) = (serving.clone(), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => script.greet(stream).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                script.greet(stream).await;
                            }
                        }
                    }
                });
            }
        });
        Self { port, script }
    }

    pub(super) fn settings(&self) -> Settings {
        settings(Place::Tcp { host: "127.0.0.1".to_owned(), port: self.port })
    }

    pub(super) fn go_on(&self) {
        self.script.gate.notify_one();
    }

    pub(super) fn connections(&self) -> usize {
        self.script.connections.load(Ordering::SeqCst)
    }

    pub(super) fn last_request(&self) -> String {
        String::from_utf8(self.script.last.lock().clone()).unwrap()
    }
}

impl Script {
    fn of(answers: impl IntoIterator<Item = Answer>) -> Self {
        let answers = Mutex::new(answers.into_iter().collect());
        Self { answers, ..Self::default() }
    }

    async fn follow(&self, mut stream: impl AsyncRead + AsyncWrite + Unpin) {
        self.connections.fetch_add(1, Ordering::SeqCst);
        while let Some(request) = read_request(&mut stream).await {
            *self.last.lock() = request;
            let Some(answer) = self.answers.lock().pop_front() else { return };
            stream.write_all(answer.bytes).await.unwrap();
            stream.flush().await.unwrap();
            if let Some(later) = answer.later {
                self.gate.notified().await;
                stream.write_all(later).await.unwrap();
                stream.flush().await.unwrap();
            }
            if answer.close {
                let _ = stream.shutdown().await;
                return;
            }
        }
    }

    async fn greet(&self, stream: impl AsyncRead + AsyncWrite + Unpin) {
        self.connections.fetch_add(1, Ordering::SeqCst);
        let mut connection = h2::server::handshake(stream).await.unwrap();
        while let Some(Ok((_, mut respond))) = connection.accept().await {
            let mut body = respond.send_response(http::Response::new(()), false).unwrap();
            body.send_data(Bytes::from_static(b"hello"), true).unwrap();
        }
    }
}

/// A head and as much body as its Content-Length says.
async fn read_request(stream: &mut (impl AsyncRead + Unpin)) -> Option<Vec<u8>> {
    let mut all = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&all);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| {
                line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok()
            });
            if body.len() >= length.unwrap_or(0) {
                return Some(all);
            }
        }
        if stream.read_buf(&mut all).await.ok()? == 0 {
            return None;
        }
    }
}

/// An authority and one certificate of it.
pub(super) struct Tls {
    folder: tempfile::TempDir,
    certificate: rcgen::Certificate,
    key: rcgen::KeyPair,
}

impl Tls {
    pub(super) fn of(name: &str) -> Self {
        let mut authority = rcgen::CertificateParams::new(Vec::new()).unwrap();
        authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let authority_key = rcgen::KeyPair::generate().unwrap();
        let pem = authority.self_signed(&authority_key).unwrap().pem();
        let issuer = rcgen::Issuer::new(authority, authority_key);

        let key = rcgen::KeyPair::generate().unwrap();
        let leaf = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = leaf.signed_by(&key, &issuer).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), pem).unwrap();
        Self { folder, certificate, key }
    }

    pub(super) fn ca(&self) -> Option<PathBuf> {
        Some(self.folder.path().join("ca.pem"))
    }

    pub(super) fn trusted_as(&self, name: &str) -> OriginTls {
        OriginTls { server_name: Some(name.to_owned()), ca: self.ca(), ..OriginTls::default() }
    }

    fn acceptor(&self, alpn: &[u8]) -> TlsAcceptor {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let key = PrivateKeyDer::try_from(self.key.serialize_der()).unwrap();
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![self.certificate.der().clone()], key)
            .unwrap();
        config.alpn_protocols = vec![alpn.to_vec()];
        TlsAcceptor::from(Arc::new(config))
    }
}
