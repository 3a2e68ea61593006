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
        ended = &mut running => Err(io::Error::other(match ended {
            Ok(()) => "the proxy service ended at once".to_owned(),
            Err(e) => format!("the proxy service failed: {e}"),
        })),
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
