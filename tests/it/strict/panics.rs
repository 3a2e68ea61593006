//! A defect harms the request that meets it, and nobody else.

use std::any::Any;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use bytes::Bytes;
use edgeproxy::listen::Limits;
use edgeproxy::listen::accept::Bound;
use edgeproxy::listen::accept::Door;
use edgeproxy::listen::accept::House;
use edgeproxy::listen::accept::Pending;
use edgeproxy::listen::accept::Way;
use edgeproxy::listen::accept::bind;
use edgeproxy::listen::census::Census;

use edgeproxy::listen::conn::Conn;
use edgeproxy::listen::serve::EdgeApp;
use edgeproxy::listen::shortcut::Asked;
use edgeproxy::listen::shortcut::Http2Taken;
use edgeproxy::listen::shortcut::Outlet;
use edgeproxy::listen::shortcut::Shortcut;
use edgeproxy::listen::shortcut::Taken;
use edgeproxy::listen::watch::Away;
use edgeproxy::listen::watch::Handshake;
use edgeproxy::listen::watch::Watch;
use edgeproxy::refusal::Refusal;
use pingora::apps::HttpServerApp;
use pingora::apps::ReusedHttpStream;
use pingora::http::RequestHeader;
use pingora::http::ResponseHeader;
use pingora::protocols::http::ServerSession;
use pingora::server::ShutdownWatch;

use super::slow::wait_until;
use crate::harness::Wire;
use crate::harness::client::End;
use crate::harness::http2;

/// Answers, unless it is asked to panic.
struct Fragile;

#[async_trait]
impl HttpServerApp for Fragile {
    async fn process_new_http(
        self: &Arc<Self>,
        mut session: ServerSession,
        _shutdown: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        if !session.read_request().await.ok()? {
            return None;
        }
        let path = session.req_header().uri.path().to_owned();
        if path == "/panic" {
            panic!("as asked");
        }
        let mut header = ResponseHeader::build(200, None).ok()?;
        header.insert_header("Content-Length", 4).ok()?;
        session.write_response_header(Box::new(header)).await.ok()?;
        if path == "/panic-late" {
            session.write_response_body(Bytes::from_static(b"we"), false).await.ok()?;
            panic!("as asked");
        }
        session.write_response_body(Bytes::from_static(b"well"), true).await.ok()?;
        let persistent = pingora::apps::HttpPersistentSettings::for_session(&session);
        let reused = session.finish().await.ok()??;
        Some(ReusedHttpStream::from_reusable_stream(reused, persistent))
    }
}

/// Declines all requests but those over which it panics.
struct FragileShortcut;

impl Shortcut for FragileShortcut {
    fn http1(&self, asked: &Asked<'_>, _outlet: &mut Outlet<'_, '_>) -> Taken {
        assert_ne!(asked.target, b"/panic-early", "as asked");
        Taken::Declined
    }

    fn http2(&self, request: &mut RequestHeader, _conn: &Arc<Conn>) -> Http2Taken {
        assert_ne!(request.uri.path(), "/panic-early", "as asked");
        Http2Taken::Declined
    }
}

/// Counts what it is told.
#[derive(Default)]
struct Counts {
    open: Arc<AtomicUsize>,
    panics: AtomicUsize,
}

/// A connection that is open.
struct Open(Arc<AtomicUsize>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Watch for Counts {
    fn opened(&self, _listener: usize) -> Option<Box<dyn Any + Send>> {
        self.open.fetch_add(1, Ordering::SeqCst);
        Some(Box::new(Open(Arc::clone(&self.open))))
    }
    fn turned_away(&self, _listener: usize, _why: Away) {}
    fn handshake(&self, _listener: usize, _settled: Handshake) {}
    fn refused(&self, _: &Conn, _: Refusal, _: Duration, _: &[u8]) -> String {
        String::new()
    }
    fn ended(&self, _conn: &Conn, _refusal: Refusal, _status: Option<u16>) {}
    fn last_word(&self) -> Duration {
        Duration::ZERO
    }
    fn panicked(&self, _conn: &Conn) {
        self.panics.fetch_add(1, Ordering::SeqCst);
    }
}

/// A listener in this process, and what it tells. It ends with the runtime.
fn listen(runtime: &tokio::runtime::Runtime) -> (SocketAddr, Arc<Counts>) {
    let second = Duration::from_secs(1);
    let limits = Arc::new(Limits {
        connections: 100,
        connections_per_client: 100,
        header_timeout: 20 * second,
        handshake_timeout: 20 * second,
        handshakes: 100,
        idle_timeout: 20 * second,
        min_body_rate: 0,
        min_send_rate: 0,
        rate_window: 20 * second,
        requests_per_connection: 100,
        header_bytes: 4096,
        header_fields: 20,
        target_bytes: 1024,
        h2_streams: 10,
        h2_streams_in_all: 100,
        h2_streams_per_client: 100,
        trusted_proxies: Vec::new(),
    });
    let counts = Arc::new(Counts::default());
    let watch: Arc<dyn Watch> = Arc::<Counts>::clone(&counts);
    let house = Arc::new(ArcSwap::from_pointee(House {
        app: EdgeApp::new(Arc::new(Fragile), Arc::clone(&limits), Arc::clone(&watch))
            .with_shortcut(Arc::new(FragileShortcut)),
        limits,
        census: Arc::new(Census::default()),
        watch,
    }));
    let socket = bind("127.0.0.1:0".parse().expect("an address")).expect("loopback can be bound");
    let address = socket.local_addr().expect("a bound socket has an address");
    let way = Way { index: 0, name: "test".into(), proxied: None, tls: None, h2c: true };
    let way = Arc::new(ArcSwap::from_pointee(way));
    let door = Door { socket: Bound::Tcp(socket), way, pending: Pending::Serve };
    runtime.spawn(async move {
        let (_never, shutdown) = tokio::sync::watch::channel(false);
        House::open(house, door, shutdown).await
    });
    (address, counts)
}

#[test]
fn a_panic_ends_its_own_connection_and_no_other() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime can be made");
    let (address, counts) = listen(&runtime);
    let mut other = Wire::plain(address);
    other.get("edge.test", "/", &[]).expect_body("well");
    for (number, path) in (1..).zip(["/panic", "/panic-late", "/panic-early"]) {
        let mut wire = Wire::plain(address);
        wire.get("edge.test", "/", &[]).expect_body("well");
        wire.send(format!("GET {path} HTTP/1.1\r\nHost: edge.test\r\n\r\n"));
        match wire.any_reply("GET") {
            // What was begun is cut, visibly.
            Some(reply) if path == "/panic-late" => assert_eq!(reply.end, End::Cut, "{reply:?}"),
            Some(reply) => {
                reply
                    .expect_status(500)
                    .expect_body("500 Internal Server Error\nSomething went wrong.\n");
                assert_eq!(reply.value("connection"), Some("close"), "{path}");
            }
            None => panic!("{path} is not answered"),
        }
        assert!(wire.until_closed().is_empty());
        wait_until(|| counts.panics.load(Ordering::SeqCst) == number);
        // The connection that was there before, and one that comes after.
        other.get("edge.test", "/", &[]).expect_body("well");
        Wire::plain(address).get("edge.test", "/", &[]).expect_body("well");
    }
    // Their places are free again.
    wait_until(|| counts.open.load(Ordering::SeqCst) == 1);
}

#[test]
fn a_panic_ends_its_own_stream_and_no_other() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime can be made");
    let (address, counts) = listen(&runtime);
    http2::run(async {
        let mut send = http2::plain(address).await;
        let before = http2::get(&mut send, "http://edge.test/", &[]).await;
        assert_eq!(before.expect("an answer").body, b"well");
        for path in ["/panic", "/panic-late", "/panic-early"] {
            let reply = http2::get(&mut send, &format!("http://edge.test{path}"), &[]).await;
            assert!(reply.expect_err("it is reset").is_reset());
            let after = http2::get(&mut send, "http://edge.test/", &[]).await;
            assert_eq!(after.expect("the connection lives").body, b"well");
        }
    });
    wait_until(|| counts.panics.load(Ordering::SeqCst) == 3);
}
