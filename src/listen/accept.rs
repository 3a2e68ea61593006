//! Listening sockets, and what happens between `accept` and the first byte of HTTP.

use std::io;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use arc_swap::ArcSwap;
use log::debug;
use log::warn;
use pingora::apps::HttpServerApp;
use pingora::server::ShutdownWatch;
use socket2::Domain;
use socket2::Protocol;
use socket2::Socket;
use socket2::Type;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::net::UnixListener;
use tokio::net::UnixStream;

use crate::listen::Limits;
use crate::listen::census::Census;
use crate::listen::census::Place;
use crate::listen::conn::Conn;
use crate::listen::handshake;
use crate::listen::handshake::Shaken;
use crate::listen::io::EdgeIo;
use crate::listen::proxied;
use crate::listen::proxied::Beginning;
use crate::listen::proxied::Missing;
use crate::listen::serve::EdgeApp;
use crate::listen::transport::Transport;
use crate::listen::watch::Away;
use crate::listen::watch::Handshake;
use crate::listen::watch::Watch;
use crate::terms::clock;
use crate::terms::pace::MinRate;
use crate::tls::CertificateStore;

/// Connections that the kernel may queue before we accept them.
const BACKLOG: i32 = 4096;
/// The most connections that are still accepted when accepting ends.
const AT_ONCE: usize = BACKLOG as usize;
/// How long a connection that is cut may take to tell of it: its client, and the log.
const CUT_GRACE: Duration = Duration::from_millis(500);
/// How long accepting rests after the process ran out of descriptors or memory.
const EXHAUSTED_REST: Duration = Duration::from_millis(100);

/// Binds a listening socket. Done before the process becomes a daemon or gives up its privileges, so
/// that a failure is seen by who started it.
///
/// # Errors
/// What the system says: the address is in use, not ours, or needs privileges.
pub fn bind(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        // `[::]` beside `0.0.0.0` is two listeners, as written.
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// A bound socket, non-blocking.
pub enum Bound {
    /// TCP.
    Tcp(std::net::TcpListener),
    /// A Unix socket: plain text, and only for who may open its file.
    Unix(std::os::unix::net::UnixListener),
}

/// A bound listener.
pub struct Door {
    /// The socket.
    pub socket: Bound,
    /// What lies behind it. Each connection has what there is when it comes.
    pub way: Arc<ArcSwap<Way>>,
    /// What becomes of connections that the kernel took when accepting ends.
    pub pending: Pending,
}

/// What becomes of connections that the kernel took and we did not, when accepting ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pending {
    /// They are served.
    Serve,
    /// They are left to whoever else accepts on the socket.
    Leave,
}

/// What lies behind a door, whoever comes through it.
pub struct Way {
    /// The door's number: its place in the tables of a generation, for as long as it is open.
    pub index: usize,
    /// The listener's name.
    pub name: Arc<str>,
    /// Whether proxies in front say who a connection is from; `None`: nobody is believed.
    pub proxied: Option<proxied::Settings>,
    /// TLS; `None` is plain text.
    pub tls: Option<Arc<CertificateStore>>,
    /// Whether plain text may turn out to be HTTP/2.
    pub h2c: bool,
}

/// What all doors share.
pub struct House<A> {
    /// Serves each connection.
    pub app: EdgeApp<A>,
    /// What guards each connection.
    pub limits: Arc<Limits>,
    /// Who is in.
    pub census: Arc<Census>,
    /// Who is told.
    pub watch: Arc<dyn Watch>,
}

impl<A> House<A>
where
    A: HttpServerApp + Send + Sync + 'static,
{
    /// The same house under other limits, for those who come from now on.
    #[must_use]
    pub fn under(&self, limits: &Arc<Limits>) -> Self {
        Self {
            app: self.app.under(limits),
            limits: Arc::clone(limits),
            census: Arc::clone(&self.census),
            watch: Arc::clone(&self.watch),
        }
    }

    /// Accepts connections at `door` until `shutdown`, each into the house that there is when it comes.
    ///
    /// # Errors
    /// When the socket cannot be used by this runtime.
    pub async fn open(
        house: Arc<ArcSwap<Self>>,
        door: Door,
        mut shutdown: ShutdownWatch,
    ) -> io::Result<()> {
        let Door { socket, way, pending } = door;
        let listener = Listener::new(socket)?;
        loop {
            let accepted = tokio::select! {
                biased;
                _ = shutdown.wait_for(|down| *down) => break,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok(accepted) => house.load_full().let_in(accepted, &way.load(), &shutdown),
                Err(e) if is_about_one_connection(&e) => {
                    debug!(target: "edgeproxy::listen", "accept: {e}");
                }
                Err(e) => {
                    warn!(target: "edgeproxy::listen", "cannot accept on {}: {e}", way.load().name);
                    tokio::time::sleep(EXHAUSTED_REST).await;
                }
            }
        }
        if pending == Pending::Leave {
            return Ok(());
        }
        // For their clients these are connected since the kernel said so: closing the socket now
        // would reset them.
        for accepted in listener.into_pending()? {
            house.load_full().let_in(accepted, &way.load(), &shutdown);
        }
        Ok(())
    }

    fn let_in(self: &Arc<Self>, accepted: Arrival, way: &Way, shutdown: &ShutdownWatch) {
        let (stream, peer, local) = accepted;
        let beginning = match &way.proxied {
            Some(proxied) => proxied.beginning(peer.ip()),
            None => Beginning::Client,
        };
        let per_client = match beginning {
            Beginning::Client => self.limits.connections_per_client,
            // Whose it is is not known yet.
            Beginning::Header => u64::MAX,
            Beginning::Nothing => return self.watch.turned_away(way.index, Away::Stranger),
        };
        let place = match self.census.enter(peer.ip(), self.limits.connections, per_client) {
            Ok(place) => place,
            Err(full) => return self.watch.turned_away(way.index, Away::Full(full)),
        };
        let open = self.watch.opened(way.index);
        let conn = Conn {
            listener: way.index,
            listener_name: Arc::clone(&way.name),
            peer: SocketAddr::new(peer.ip().to_canonical(), peer.port()),
            local: SocketAddr::new(local.ip().to_canonical(), local.port()),
            tls: None,
            requests: AtomicU64::new(0),
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
            whole: AtomicBool::new(false),
            room: OnceLock::new(),
        };
        let tls = way.tls.clone();
        let (house, shutdown, h2c) = (Arc::clone(self), shutdown.clone(), way.h2c);
        tokio::spawn(async move {
            let _open = open;
            let census = Arc::clone(&house.census);
            let serve = async {
                let known = match beginning {
                    // Boxed, so that only such connections have room for it.
                    Beginning::Header => Box::pin(house.introduced(stream, conn, place)).await,
                    Beginning::Client | Beginning::Nothing => Some((stream, conn, place)),
                };
                if let Some((stream, conn, place)) = known {
                    house.connection(stream, tls, conn, place, h2c, &shutdown).await;
                }
            };
            // Boxed, since what is handed on is held twice otherwise, for as long as the connection lasts.
            census.until_cut(CUT_GRACE, clock::by_turns(Box::pin(serve))).await;
        });
    }

    /// The connection as that of the client whom the proxy in front speaks for.
    async fn introduced(
        &self,
        mut stream: Accepted,
        mut conn: Conn,
        mut place: Place,
    ) -> Option<(Accepted, Conn, Place)> {
        let said = match &mut stream {
            Accepted::Tcp(tcp) => proxied::read(tcp, self.limits.handshake_timeout).await,
            Accepted::Unix(_) => Ok(None),
        };
        match said {
            Ok(Some(ends)) => {
                let canonical =
                    |end: SocketAddr| SocketAddr::new(end.ip().to_canonical(), end.port());
                (conn.peer, conn.local) = (canonical(ends.source), canonical(ends.destination));
                match place.of_client(conn.peer.ip(), self.limits.connections_per_client) {
                    Ok(own) => place = own,
                    Err(full) => {
                        self.watch.turned_away(conn.listener, Away::Full(full));
                        return None;
                    }
                }
            }
            Ok(None) => {}
            Err(Missing::Closed) => return None,
            Err(missing) => {
                debug!(target: "edgeproxy::listen", "{}: from {}: {missing}", conn.listener_name, conn.peer);
                self.watch.turned_away(conn.listener, Away::Unproxied);
                return None;
            }
        }
        Some((stream, conn, place))
    }

    async fn connection(
        &self,
        stream: Accepted,
        tls: Option<Arc<CertificateStore>>,
        mut conn: Conn,
        place: Place,
        h2c: bool,
        shutdown: &ShutdownWatch,
    ) {
        let mut h2 = false;
        let transport = match (stream, tls) {
            (Accepted::Unix(unix), _) => Transport::Plain(unix.into()),
            (Accepted::Tcp(tcp), None) => Transport::Plain(tcp.into()),
            (Accepted::Tcp(tcp), Some(certificates)) => {
                let within = self.limits.handshake_timeout;
                let hands = (&self.census.hands, self.limits.handshakes);
                let shaken =
                    Box::pin(handshake::shake(tcp.into(), &certificates, within, hands)).await;
                let ready = match shaken {
                    Ok(Shaken::Ready(ready)) => *ready,
                    Ok(Shaken::Proven) => return,
                    Err(failed) => return self.watch.handshake(conn.listener, failed),
                };
                let (version, resumed) = (ready.facts.version, ready.resumed);
                let done = Handshake::Done { version, resumed, shown: ready.shown };
                self.watch.handshake(conn.listener, done);
                h2 = ready.h2;
                conn.tls = Some(ready.facts);
                Transport::Tls(Box::new(ready.stream))
            }
        };
        let conn = Arc::new(conn);
        let rate = |bytes_per_second| MinRate { bytes_per_second, window: self.limits.rate_window };
        let io = EdgeIo::new(
            transport,
            Arc::clone(&conn),
            rate(self.limits.min_body_rate),
            rate(self.limits.min_send_rate),
        )
        .holding(place);
        let h2c = h2c && !conn.is_secure();
        self.app.serve(Box::new(io), h2, h2c, shutdown).await;
    }
}

/// A socket that this runtime accepts on.
enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// What was accepted.
enum Accepted {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// A connection, who it is from, and which of our addresses it is to.
type Arrival = (Accepted, SocketAddr, SocketAddr);

impl Listener {
    fn new(bound: Bound) -> io::Result<Self> {
        Ok(match bound {
            Bound::Tcp(socket) => Self::Tcp(TcpListener::from_std(socket)?),
            Bound::Unix(socket) => Self::Unix(UnixListener::from_std(socket)?),
        })
    }

    async fn accept(&self) -> io::Result<Arrival> {
        match self {
            Self::Tcp(socket) => {
                let (tcp, peer) = socket.accept().await?;
                arrived_by_tcp(tcp, peer)
            }
            Self::Unix(socket) => socket.accept().await.map(|(unix, _)| arrived_by_unix(unix)),
        }
    }

    /// What waits to be accepted at this moment; then the socket is closed.
    fn into_pending(self) -> io::Result<Vec<Arrival>> {
        let mut pending = Vec::new();
        match self {
            Self::Tcp(socket) => {
                let socket = socket.into_std()?;
                while let (true, Ok((tcp, peer))) = (pending.len() < AT_ONCE, socket.accept()) {
                    tcp.set_nonblocking(true)?;
                    pending.push(arrived_by_tcp(TcpStream::from_std(tcp)?, peer)?);
                }
            }
            Self::Unix(socket) => {
                let socket = socket.into_std()?;
                while let (true, Ok((unix, _))) = (pending.len() < AT_ONCE, socket.accept()) {
                    unix.set_nonblocking(true)?;
                    pending.push(arrived_by_unix(UnixStream::from_std(unix)?));
                }
            }
        }
        Ok(pending)
    }
}

fn arrived_by_tcp(tcp: TcpStream, peer: SocketAddr) -> io::Result<Arrival> {
    let local = tcp.local_addr()?;
    // Without it a small response could wait for the client's acknowledgement.
    let _ = tcp.set_nodelay(true);
    Ok((Accepted::Tcp(tcp), peer, local))
}

fn arrived_by_unix(unix: UnixStream) -> Arrival {
    // Who may open the file is on this machine.
    let here = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    (Accepted::Unix(unix), here, here)
}

/// Errors of `accept` that concern only the connection that was about to be accepted.
fn is_about_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
            | io::ErrorKind::TimedOut
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_in_use_is_an_error() {
        let first = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let again = bind(first.local_addr().unwrap());
        assert_eq!(again.unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }
}
