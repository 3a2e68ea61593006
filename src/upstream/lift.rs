//! Getting hold of the `Arc<HttpProxy>` that Pingora keeps to itself.
//!
//! Our accept loops need one shared [`HttpProxy`] with our [`EdgeConnector`]. Pingora builds a proxy
//! with a custom connector only inside a listening [`Service`], and shows its `Arc` only to the
//! handler of a custom session. So [`lift`] lets the service listen on loopback for a moment, makes
//! one connection, takes the `Arc` from the handler and stops the service. The proxy then serves
//! only what our own loops give it.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::IntoRawFd;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use pingora::apps::HttpServerOptions;
use pingora::connectors::ConnectorOptions;
use pingora::protocols::Stream;
use pingora::proxy::HttpProxy;
use pingora::proxy::ProcessCustomSession;
use pingora::proxy::ProxyHttp;
use pingora::proxy::ProxyServiceBuilder;
use pingora::server::Fds;
use pingora::server::ShutdownWatch;
use pingora::server::configuration::ServerConf;
use pingora::services::Service as _;
use pingora::services::listening::Service;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::sync::watch;

use crate::upstream::connect::EdgeConnector;

/// How long the service may take to show its proxy. It does so in well under a millisecond.
const PATIENCE: Duration = Duration::from_secs(10);

/// The proxy around `inner`, with `connector` towards HTTP/1 origins, ready for
/// `HttpServerApp::process_new_http`.
///
/// Of `conf`, `upstream_keepalive_pool_size`, `threads` and `max_retries` count. Call it on the
/// runtime that will serve.
///
/// # Errors
/// Fails when loopback cannot be listened on.
pub async fn lift<SV>(
    conf: &Arc<ServerConf>,
    inner: SV,
    connector: EdgeConnector,
) -> io::Result<Arc<HttpProxy<SV, EdgeConnector>>>
where
    SV: ProxyHttp + Send + Sync + 'static,
    SV::CTX: Send + Sync + 'static,
{
    let (caught, catch) = oneshot::channel();
    let mut service = service(conf, inner, connector, caught);

    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let mut fds = Fds::new();
    // The service owns the descriptor from here on: it listens instead of binding.
    fds.add(address.to_string(), listener.into_raw_fd());
    service.add_tcp(&address.to_string());

    let (stop, shutdown) = watch::channel(false);
    let fds = Arc::new(Mutex::new(fds));
    let mut running =
        tokio::spawn(async move { service.start_service(Some(fds), shutdown, 1).await });

    let lifted = tokio::select! {
        proxy = knock(address, catch) => proxy,
        ended = &mut running => {
            let cause = ended.err().map_or_else(|| "it ended".to_owned(), |e| e.to_string());
            return Err(io::Error::other(format!("the proxy service failed: {cause}")));
        }
        () = tokio::time::sleep(PATIENCE) => Err(io::ErrorKind::TimedOut.into()),
    };

    // In this order: a service that sees its accept loop end would tell the proxy to shut down,
    // which can never be taken back.
    running.abort();
    let _ = running.await;
    let _ = stop.send(true);
    lifted
}

fn service<SV>(
    conf: &Arc<ServerConf>,
    inner: SV,
    connector: EdgeConnector,
    caught: oneshot::Sender<Arc<HttpProxy<SV, EdgeConnector>>>,
) -> Service<HttpProxy<SV, EdgeConnector>>
where
    SV: ProxyHttp + Send + Sync + 'static,
    SV::CTX: Send + Sync + 'static,
{
    let caught = Mutex::new(Some(caught));
    let on_custom: ProcessCustomSession<SV, EdgeConnector> =
        Arc::new(move |proxy: Arc<HttpProxy<SV, EdgeConnector>>, _: Stream, _: &ShutdownWatch| {
            // Only the first connection counts; any other, of whomever, is closed.
            if let Some(caught) = caught.lock().take() {
                let _ = caught.send(proxy);
            }
            Box::pin(async { None })
        });
    let mut options = HttpServerOptions::default();
    options.force_custom = true;
    // Else Pingora answers CONNECT before anybody hears of it. It is refused like TRACE, and counted.
    options.allow_connect_method_proxying = true;

    let mut origins = ConnectorOptions::from_server_conf(conf);
    // Every peer brings its own authorities. Without this each of Pingora's two connectors would
    // read the system's once more, and panic over one that it cannot parse.
    origins.ca_file = Some("/dev/null".to_owned());

    ProxyServiceBuilder::new(conf, inner)
        .custom(connector, on_custom)
        .server_options(options)
        .client_options(origins)
        .build()
}

async fn knock<T>(address: std::net::SocketAddr, catch: oneshot::Receiver<T>) -> io::Result<T> {
    let _connection = TcpStream::connect(address).await?;
    catch.await.map_err(|_| io::Error::other("the proxy service closed without its proxy"))
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use pingora::Result;
    use pingora::apps::HttpServerApp;
    use pingora::protocols::http::ServerSession;
    use pingora::proxy::Session;
    use pingora::upstreams::peer::HttpPeer;
    use tokio::io::AsyncReadExt;
    use tokio::io::AsyncWriteExt;

    use super::*;
    use crate::refusal::Refusal;
    use crate::upstream::connect::Dials;
    use crate::upstream::fault::error_of;

    struct Greeter;

    #[async_trait]
    impl ProxyHttp for Greeter {
        type CTX = ();

        fn new_ctx(&self) {}

        async fn request_filter(&self, session: &mut Session, (): &mut ()) -> Result<bool> {
            session.respond_error(404).await?;
            Ok(true)
        }

        async fn upstream_peer(&self, _: &mut Session, (): &mut ()) -> Result<Box<HttpPeer>> {
            Err(error_of(Refusal::NoPeer))
        }
    }

    #[tokio::test]
    async fn a_lifted_proxy_answers_and_is_not_shutting_down() {
        let conf = Arc::new(ServerConf::default());
        let connector = EdgeConnector::new(Arc::new(Dials::default()));
        let proxy = lift(&conf, Greeter, connector).await.unwrap();

        // A proxy that was told to shut down gives up an idle connection at once.
        let (mut client, server) = tokio::io::duplex(4096);
        let serving = proxy.clone();
        let served = tokio::spawn(async move {
            let (_stop, shutdown) = watch::channel(false);
            let mut session = ServerSession::new_http1(Box::new(server));
            session.set_keepalive(Some(60));
            serving.process_new_http(session, &shutdown).await.is_some()
        });
        tokio::task::yield_now().await;
        client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        let mut head = [0; 12];
        client.read_exact(&mut head).await.unwrap();
        assert_eq!(&head, b"HTTP/1.1 404");
        drop(client);
        served.await.unwrap();
        assert_eq!(Arc::strong_count(&proxy), 1, "the service is gone");
    }
}
