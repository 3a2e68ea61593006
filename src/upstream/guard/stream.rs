//! What Pingora asks of any stream.

use std::future::poll_fn;
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use async_trait::async_trait;
use pingora::protocols::ALPN;
use pingora::protocols::GetProxyDigest;
use pingora::protocols::GetSocketDigest;
use pingora::protocols::GetTimingDigest;
use pingora::protocols::Peek;
use pingora::protocols::Shutdown;
use pingora::protocols::SocketDigest;
use pingora::protocols::Ssl;
use pingora::protocols::TimingDigest;
use pingora::protocols::UniqueID;
use pingora::protocols::UniqueIDType;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::tls::SslDigest;
use tokio::io::AsyncWrite;

use super::History;
use super::OriginIo;

#[async_trait]
impl Shutdown for OriginIo {
    async fn shutdown(&mut self) {
        // One try: an origin that does not read must not hold the request for a polite goodbye.
        // Dropping the socket closes it in any case.
        let mut this = Pin::new(self);
        poll_fn(|cx| {
            let _ = this.as_mut().poll_shutdown(cx);
            Poll::Ready(())
        })
        .await;
    }
}

impl UniqueID for OriginIo {
    fn id(&self) -> UniqueIDType {
        self.line.socket().as_raw_fd()
    }
}

impl Ssl for OriginIo {
    fn get_ssl_digest(&self) -> Option<Arc<SslDigest>> {
        self.line.tls.clone()
    }

    fn selected_alpn_proto(&self) -> Option<ALPN> {
        self.line.tls.as_ref().map(|_| ALPN::H1)
    }
}

impl GetTimingDigest for OriginIo {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        // What was not established for this request took no time (see `pool::was_reused`).
        let took = (self.history == History::Fresh).then_some(self.line.took);
        vec![Some(TimingDigest {
            established_ts: self.line.established,
            establishment_duration: took,
            offload_wait_duration: None,
        })]
    }
}

impl GetProxyDigest for OriginIo {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        None
    }
}

impl GetSocketDigest for OriginIo {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        Some(self.line.socket.clone())
    }
}

impl Peek for OriginIo {}
