//! A client that says exactly what it is told and shows exactly what came back.

use std::io::Read;
use std::io::Write;
use std::net::IpAddr;
use std::net::Shutdown;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::ClientConnection;
use rustls::RootCertStore;
use rustls::StreamOwned;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::ServerName;
use rustls::pki_types::pem::PemObject;
use socket2::Domain;
use socket2::Socket;
use socket2::Type;

use super::PATIENCE;

/// One connection.
pub(crate) struct Wire {
    stream: Channel,
    /// Read, and not yet part of a reply.
    rest: Vec<u8>,
}

enum Channel {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Read for Channel {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::Plain(s) => s.read(buf),
            Self::Tls(s) => s.read(buf),
        }
    }
}

impl Write for Channel {
    fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        match self {
            Self::Plain(s) => s.write(buf),
            Self::Tls(s) => s.write(buf),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        match self {
            Self::Plain(s) => s.flush(),
            Self::Tls(s) => s.flush(),
        }
    }
}

/// How a reply ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// Its framing said so.
    Whole,
    /// The connection ended in the middle.
    Cut,
}

/// A reply.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    pub(crate) end: End,
}

impl Reply {
    /// The values of a field, in order.
    pub(crate) fn values(&self, name: &str) -> Vec<&str> {
        self.fields
            .iter()
            .filter(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, v)| v.as_str())
            .collect()
    }

    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        self.values(name).first().copied()
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub(crate) fn expect_status(&self, status: u16) -> &Self {
        assert_eq!(self.status, status, "{self:?}");
        self
    }

    #[track_caller]
    pub(crate) fn expect_body(&self, body: &str) -> &Self {
        assert_eq!(self.text(), body, "{self:?}");
        self
    }

    #[track_caller]
    pub(crate) fn expect_cache(&self, x_cache: &str) -> &Self {
        assert_eq!(self.value("x-cache"), Some(x_cache), "{self:?}");
        self
    }

    #[track_caller]
    pub(crate) fn expect_miss(&self) -> &Self {
        self.expect_cache("MISS")
    }

    #[track_caller]
    pub(crate) fn expect_hit(&self) -> &Self {
        self.expect_cache("HIT")
    }
}

impl Wire {
    /// Connects in plain text.
    pub(crate) fn plain(to: SocketAddr) -> Self {
        let stream = TcpStream::connect(to).expect("edgeproxy listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
        stream.set_nodelay(true).expect("an option can be set");
        Self { stream: Channel::Plain(stream), rest: Vec::new() }
    }

    /// Connects in plain text, from this address of this machine.
    pub(crate) fn plain_from(from: IpAddr, to: SocketAddr) -> Self {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).expect("a socket");
        socket.bind(&SocketAddr::from((from, 0)).into()).expect("the address is this machine's");
        socket.connect(&to.into()).expect("somebody listens");
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
        Self { stream: Channel::Plain(stream), rest: Vec::new() }
    }

    /// Connects with TLS, trusting only the root in this PEM file.
    pub(crate) fn tls(
        to: SocketAddr,
        name: &str,
        root: &Path,
        alpn: &[&str],
    ) -> std::io::Result<Self> {
        Self::tls_with(to, name, tls_config(root, alpn))
    }

    /// Connects with TLS as configured.
    pub(crate) fn tls_with(
        to: SocketAddr,
        name: &str,
        config: Arc<ClientConfig>,
    ) -> std::io::Result<Self> {
        Self::tls_over(TcpStream::connect(to)?, name, config)
    }

    /// Begins TLS on a connection on which something may have been said already.
    pub(crate) fn tls_over(
        stream: TcpStream,
        name: &str,
        config: Arc<ClientConfig>,
    ) -> std::io::Result<Self> {
        stream.set_read_timeout(Some(PATIENCE))?;
        let name = ServerName::try_from(name.to_owned()).expect("tests use valid names");
        let connection =
            ClientConnection::new(config, name).expect("a client configuration makes connections");
        let mut tls = StreamOwned::new(connection, stream);
        while tls.conn.is_handshaking() {
            tls.conn.complete_io(&mut tls.sock)?;
        }
        Ok(Self { stream: Channel::Tls(Box::new(tls)), rest: Vec::new() })
    }

    /// What the handshake settled; `None` in plain text.
    pub(crate) fn handshake(&self) -> Option<&ClientConnection> {
        match &self.stream {
            Channel::Plain(_) => None,
            Channel::Tls(tls) => Some(&tls.conn),
        }
    }

    /// What ALPN settled.
    pub(crate) fn alpn(&self) -> Option<Vec<u8>> {
        match &self.stream {
            Channel::Plain(_) => None,
            Channel::Tls(tls) => tls.conn.alpn_protocol().map(<[u8]>::to_vec),
        }
    }

    /// Sends these bytes.
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.try_send(bytes).expect("the connection takes what is sent");
        self
    }

    /// Sends these bytes if the connection still takes them.
    pub(crate) fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        self.stream.write_all(bytes.as_ref())?;
        self.stream.flush()
    }

    /// Says that nothing more will be sent.
    pub(crate) fn finish(&mut self) -> &mut Self {
        if let Channel::Plain(stream) = &self.stream {
            let _ = stream.shutdown(Shutdown::Write);
        }
        self
    }

    /// Sends a GET and reads its reply.
    pub(crate) fn get(&mut self, host: &str, target: &str, fields: &[(&str, &str)]) -> Reply {
        self.request("GET", host, target, fields, b"")
    }

    /// Sends a request and reads its reply.
    pub(crate) fn request(
        &mut self,
        method: &str,
        host: &str,
        target: &str,
        fields: &[(&str, &str)],
        body: &[u8],
    ) -> Reply {
        self.ask(method, host, target, fields, body).reply_to(method)
    }

    /// Sends a request.
    pub(crate) fn ask(
        &mut self,
        method: &str,
        host: &str,
        target: &str,
        fields: &[(&str, &str)],
        body: &[u8],
    ) -> &mut Self {
        let mut text = format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\n");
        for (name, value) in fields {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        let framed = fields.iter().any(|(n, _)| n.eq_ignore_ascii_case("transfer-encoding"));
        if !body.is_empty() && !framed {
            text.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        text.push_str("\r\n");
        let mut bytes = text.into_bytes();
        bytes.extend_from_slice(body);
        self.send(bytes)
    }

    /// Reads the reply to a GET.
    pub(crate) fn reply(&mut self) -> Reply {
        self.reply_to("GET")
    }

    /// Reads a reply, interim ones aside.
    #[track_caller]
    pub(crate) fn reply_to(&mut self, method: &str) -> Reply {
        loop {
            let reply = self.any_reply(method).expect("a reply comes");
            if reply.status >= 200 || reply.status == 101 {
                return reply;
            }
        }
    }

    /// Reads a reply, interim ones too; `None` when the connection ends before one begins.
    pub(crate) fn any_reply(&mut self, method: &str) -> Option<Reply> {
        let head = loop {
            if let Some(at) = find(&self.rest, b"\r\n\r\n") {
                break self.rest.drain(..at + 4).collect::<Vec<u8>>();
            }
            if self.more() == 0 {
                assert!(self.rest.is_empty(), "a head was cut: {:?}", self.rest);
                return None;
            }
        };
        let head = String::from_utf8_lossy(&head).into_owned();
        let mut lines = head.trim_end().split("\r\n");
        let line = lines.next().unwrap_or_default();
        let status = line.split(' ').nth(1).and_then(|s| s.parse().ok()).expect("a status line");
        let fields: Vec<(String, String)> = lines
            .filter_map(|l| l.split_once(':'))
            .map(|(n, v)| (n.to_owned(), v.trim().to_owned()))
            .collect();
        let mut reply = Reply { status, fields, body: Vec::new(), end: End::Whole };
        if method == "HEAD" || matches!(status, 100..=199 | 204 | 304) {
            return Some(reply);
        }
        if reply.value("transfer-encoding").is_some_and(|v| v.eq_ignore_ascii_case("chunked")) {
            self.read_chunked(&mut reply);
        } else if let Some(length) = reply.value("content-length") {
            let length: usize = length.parse().expect("a length");
            while self.rest.len() < length {
                if self.more() == 0 {
                    reply.end = End::Cut;
                    break;
                }
            }
            let n = length.min(self.rest.len());
            reply.body = self.rest.drain(..n).collect();
        } else {
            while self.more() > 0 {}
            reply.body = std::mem::take(&mut self.rest);
        }
        Some(reply)
    }

    fn read_chunked(&mut self, reply: &mut Reply) {
        loop {
            let Some(line) = self.line() else { return reply.end = End::Cut };
            let size = usize::from_str_radix(line.trim(), 16).expect("a chunk size");
            if size == 0 {
                // The trailer section, to its empty line.
                loop {
                    match self.line() {
                        None => return reply.end = End::Cut,
                        Some(line) if line.is_empty() => return,
                        Some(_) => {}
                    }
                }
            }
            while self.rest.len() < size + 2 {
                if self.more() == 0 {
                    return reply.end = End::Cut;
                }
            }
            reply.body.extend(self.rest.drain(..size));
            self.rest.drain(..2);
        }
    }

    fn line(&mut self) -> Option<String> {
        loop {
            if let Some(at) = find(&self.rest, b"\r\n") {
                let line: Vec<u8> = self.rest.drain(..at + 2).collect();
                return Some(String::from_utf8_lossy(&line[..at]).into_owned());
            }
            if self.more() == 0 {
                return None;
            }
        }
    }

    /// Reads once; zero at the end, an orderly one or not.
    fn more(&mut self) -> usize {
        let mut space = [0u8; 64 * 1024];
        match self.stream.read(&mut space) {
            Ok(n) => {
                self.rest.extend_from_slice(&space[..n]);
                n
            }
            Err(e) => {
                let waited = matches!(
                    e.kind(),
                    std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
                );
                assert!(!waited, "nothing came for {PATIENCE:?}");
                0
            }
        }
    }

    /// Whether something comes within this time: bytes, or the end.
    pub(crate) fn has_reply(&mut self, within: Duration) -> bool {
        let tcp = match &self.stream {
            Channel::Plain(tcp) => tcp,
            Channel::Tls(tls) => &tls.sock,
        };
        tcp.set_read_timeout(Some(within)).expect("a timeout can be set");
        let came = match tcp.peek(&mut [0]) {
            Ok(_) => true,
            Err(e) => {
                !matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut)
            }
        };
        let _ = tcp.set_read_timeout(Some(PATIENCE));
        came || !self.rest.is_empty()
    }

    /// Reads up to this many bytes of what is not HTTP.
    pub(crate) fn read_raw(&mut self, count: usize) -> Vec<u8> {
        while self.rest.len() < count {
            if self.more() == 0 {
                break;
            }
        }
        let n = count.min(self.rest.len());
        self.rest.drain(..n).collect()
    }

    /// Waits for the connection to end; returns what came before, and whether it ended in a reset.
    pub(crate) fn until_reset(&mut self) -> (Vec<u8>, bool) {
        let mut space = [0u8; 64 * 1024];
        let reset = loop {
            match self.stream.read(&mut space) {
                Ok(0) => break false,
                Ok(n) => self.rest.extend_from_slice(&space[..n]),
                Err(e) => break e.kind() == std::io::ErrorKind::ConnectionReset,
            }
        };
        (std::mem::take(&mut self.rest), reset)
    }

    /// Waits for the connection to end; returns what came before.
    pub(crate) fn until_closed(&mut self) -> Vec<u8> {
        while self.more() > 0 {}
        std::mem::take(&mut self.rest)
    }
}

/// What is not HTTP.
impl Read for Wire {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        if self.rest.is_empty() {
            self.more();
        }
        let n = buf.len().min(self.rest.len());
        buf[..n].copy_from_slice(&self.rest[..n]);
        self.rest.drain(..n);
        Ok(n)
    }
}

/// A client that trusts only the root in this PEM file.
pub(crate) fn tls_config(root: &Path, alpn: &[&str]) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    let certificate = CertificateDer::from_pem_file(root).expect("the root is a PEM file");
    roots.add(certificate).expect("the root is an authority");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider has the default versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|p| p.as_bytes().to_vec()).collect();
    Arc::new(config)
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|w| w == needle)
}
