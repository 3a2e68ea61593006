//! What a connection to a scripted origin runs over.

use std::cell::RefCell;
use std::io::Read;
use std::io::Write;
use std::net::Shutdown;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::ServerConnection;
use rustls::StreamOwned;

type Tls = StreamOwned<ServerConnection, TcpStream>;

/// One connection.
pub(crate) enum Line {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Rc<RefCell<Tls>>),
}

impl Line {
    /// Answers a handshake; `None` if the client ends it.
    pub(crate) fn secure(mut tcp: TcpStream, config: &Arc<ServerConfig>) -> Option<Self> {
        let mut tls = ServerConnection::new(Arc::clone(config)).expect("a valid configuration");
        while tls.is_handshaking() {
            if tls.complete_io(&mut tcp).is_err() {
                // Why was said. A client that believes it is in has something to say, and hears it only when
                // that was read.
                let _ = tcp.shutdown(Shutdown::Write);
                let _ = std::io::copy(&mut tcp, &mut std::io::sink());
                return None;
            }
        }
        Some(Self::Tls(Rc::new(RefCell::new(StreamOwned::new(tls, tcp)))))
    }

    /// The other end of the same connection, to be used by the same thread.
    pub(crate) fn again(&self) -> Self {
        match self {
            Self::Tcp(tcp) => Self::Tcp(tcp.try_clone().expect("a socket can be duplicated")),
            Self::Unix(unix) => Self::Unix(unix.try_clone().expect("a socket can be duplicated")),
            Self::Tls(tls) => Self::Tls(Rc::clone(tls)),
        }
    }

    /// The socket, where there is nothing above it.
    pub(crate) fn into_tcp(self) -> Option<TcpStream> {
        match self {
            Self::Tcp(tcp) => Some(tcp),
            Self::Unix(_) | Self::Tls(_) => None,
        }
    }

    /// The name that the client asked for in its handshake.
    pub(crate) fn server_name(&self) -> Option<String> {
        match self {
            Self::Tls(tls) => tls.borrow().conn.server_name().map(ToOwned::to_owned),
            Self::Tcp(_) | Self::Unix(_) => None,
        }
    }

    /// Ends it.
    pub(crate) fn close(&mut self) {
        let _ = match self {
            Self::Tcp(tcp) => tcp.shutdown(Shutdown::Both),
            Self::Unix(unix) => unix.shutdown(Shutdown::Both),
            Self::Tls(tls) => {
                let mut tls = tls.borrow_mut();
                tls.conn.send_close_notify();
                let _ = tls.flush();
                tls.sock.shutdown(Shutdown::Both)
            }
        };
    }
}

impl Read for Line {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::Tcp(tcp) => tcp.read(buf),
            Self::Unix(unix) => unix.read(buf),
            Self::Tls(tls) => tls.borrow_mut().read(buf),
        }
    }
}

impl Write for Line {
    fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        match self {
            Self::Tcp(tcp) => tcp.write(buf),
            Self::Unix(unix) => unix.write(buf),
            Self::Tls(tls) => tls.borrow_mut().write(buf),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        match self {
            Self::Tcp(tcp) => tcp.flush(),
            Self::Unix(unix) => unix.flush(),
            Self::Tls(tls) => tls.borrow_mut().flush(),
        }
    }
}
