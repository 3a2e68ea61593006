//! The socket below an origin connection, opened with our options.

use std::io;
use std::time::Duration;

use pingora::protocols::l4::socket::SocketAddr;
use socket2::SockRef;
use socket2::TcpKeepalive;
use tokio::net::TcpStream;
use tokio::net::UnixStream;

use crate::socket::Socket;

/// How long a connection is silent before the kernel asks whether the origin is still there.
pub(super) const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);

/// The time between two such questions.
pub(super) const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// Connects, without a deadline of its own.
pub(super) async fn connect(address: &SocketAddr) -> io::Result<Socket> {
    match address {
        SocketAddr::Inet(address) => {
            let stream = TcpStream::connect(address).await?;
            // A request head must not wait for the acknowledgement of the previous one.
            stream.set_nodelay(true)?;
            let keepalive =
                TcpKeepalive::new().with_time(KEEPALIVE_IDLE).with_interval(KEEPALIVE_INTERVAL);
            SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
            Ok(stream.into())
        }
        SocketAddr::Unix(address) => {
            let path = address.as_pathname().ok_or(io::ErrorKind::InvalidInput)?;
            Ok(UnixStream::connect(path).await?.into())
        }
    }
}
