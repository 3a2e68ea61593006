//! Scripted origins over real sockets.

use std::collections::HashMap;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Write;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::net::TcpStream;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use rustls::ServerConfig;

use super::PATIENCE;
use super::line::Line;

/// A request as the origin saw it.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) line: String,
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// The name that the connection's handshake asked for.
    pub(crate) server_name: Option<String>,
}

impl Seen {
    pub(crate) fn method(&self) -> &str {
        self.line.split(' ').next().unwrap_or_default()
    }

    pub(crate) fn target(&self) -> &str {
        self.line.split(' ').nth(1).unwrap_or_default()
    }

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
}

/// A response to give.
#[derive(Debug, Clone)]
pub(crate) struct Respond {
    status: u16,
    fields: Vec<(String, String)>,
    body: Vec<u8>,
    raw: Option<Vec<u8>>,
    close: bool,
}

/// A 200 with this body.
pub(crate) fn ok(body: impl Into<Vec<u8>>) -> Respond {
    status(200).body(body)
}

/// A response with this status and no body.
pub(crate) fn status(status: u16) -> Respond {
    Respond { status, fields: Vec::new(), body: Vec::new(), raw: None, close: false }
}

impl Respond {
    /// Exactly these bytes; then the connection is closed.
    pub(crate) fn raw(bytes: impl Into<Vec<u8>>) -> Self {
        let mut respond = status(0);
        respond.raw = Some(bytes.into());
        respond.close = true;
        respond
    }

    /// Adds a field.
    pub(crate) fn field(mut self, name: &str, value: &str) -> Self {
        self.fields.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Sets the body.
    pub(crate) fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    fn write(&self, head: bool, to: &mut impl Write) -> std::io::Result<()> {
        if let Some(raw) = &self.raw {
            return to.write_all(raw);
        }
        let mut out = format!("HTTP/1.1 {} Status\r\n", self.status).into_bytes();
        for (name, value) in &self.fields {
            out.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        let framed = self.fields.iter().any(|(n, _)| {
            n.eq_ignore_ascii_case("content-length") || n.eq_ignore_ascii_case("transfer-encoding")
        });
        let bodiless = matches!(self.status, 100..=199 | 204 | 304);
        if !framed && !bodiless {
            out.extend_from_slice(format!("Content-Length: {}\r\n", self.body.len()).as_bytes());
        }
        out.extend_from_slice(b"\r\n");
        if !head && !bodiless {
            out.extend_from_slice(&self.body);
        }
        to.write_all(&out)
    }
}

type Handler = Arc<dyn Fn(&Seen) -> Respond + Send + Sync>;
type Takeover = Arc<dyn Fn(Seen, TcpStream) + Send + Sync>;

#[derive(Default)]
struct Log {
    seen: Mutex<Vec<Seen>>,
    changed: Condvar,
    connections: AtomicUsize,
}

/// An origin that answers as told and remembers what it saw.
pub(crate) struct Origin {
    pub(crate) address: SocketAddr,
    log: Arc<Log>,
}

/// An origin being described.
#[derive(Default)]
pub(crate) struct Script {
    paths: HashMap<String, Handler>,
    takeovers: HashMap<String, Takeover>,
    otherwise: Option<Handler>,
}

impl Origin {
    /// Begins the description of an origin.
    pub(crate) fn script() -> Script {
        Script::default()
    }

    /// An origin that gives this answer to everything.
    pub(crate) fn always(respond: Respond) -> Self {
        Self::script().otherwise(move |_| respond.clone()).start()
    }

    /// What was seen so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.log.seen.lock().expect("no test panics while it holds this").clone()
    }

    /// The requests for a path (its query aside).
    pub(crate) fn seen_at(&self, path: &str) -> Vec<Seen> {
        let at = |seen: &Seen| seen.target().split('?').next() == Some(path);
        self.seen().into_iter().filter(at).collect()
    }

    /// Waits until so many requests were seen.
    pub(crate) fn wait_for(&self, count: usize) -> Vec<Seen> {
        let seen = self.log.seen.lock().expect("no test panics while it holds this");
        let (seen, timeout) = self
            .log
            .changed
            .wait_timeout_while(seen, PATIENCE, |seen| seen.len() < count)
            .expect("no test panics while it holds this");
        assert!(!timeout.timed_out(), "the origin saw only {} of {count} requests", seen.len());
        seen.clone()
    }

    /// How many connections were made to it.
    pub(crate) fn connections(&self) -> usize {
        self.log.connections.load(Ordering::SeqCst)
    }
}

impl Script {
    /// The answer at a path.
    pub(crate) fn on(self, path: &str, respond: Respond) -> Self {
        self.with(path, move |_| respond.clone())
    }

    /// The answer at a path, made from the request.
    pub(crate) fn with(
        mut self,
        path: &str,
        answer: impl Fn(&Seen) -> Respond + Send + Sync + 'static,
    ) -> Self {
        self.paths.insert(path.to_owned(), Arc::new(answer));
        self
    }

    /// The answer everywhere else.
    pub(crate) fn otherwise(
        mut self,
        answer: impl Fn(&Seen) -> Respond + Send + Sync + 'static,
    ) -> Self {
        self.otherwise = Some(Arc::new(answer));
        self
    }

    /// Hands the connection over once the head of a request for this path was read.
    pub(crate) fn take_over(
        mut self,
        path: &str,
        with: impl Fn(Seen, TcpStream) + Send + Sync + 'static,
    ) -> Self {
        self.takeovers.insert(path.to_owned(), Arc::new(with));
        self
    }

    /// Starts it on a port of its own.
    pub(crate) fn start(self) -> Origin {
        self.listen(own_port(), |tcp| Some(Line::Tcp(tcp)))
    }

    /// Starts it at this address, which is free.
    pub(crate) fn start_at(self, address: SocketAddr) -> Origin {
        self.listen(address, |tcp| Some(Line::Tcp(tcp)))
    }

    /// Starts it on a port of its own, over TLS.
    pub(crate) fn start_tls(self, config: Arc<ServerConfig>) -> Origin {
        self.listen(own_port(), move |tcp| Line::secure(tcp, &config))
    }

    /// Starts it on a Unix socket; its `address` means nothing.
    pub(crate) fn start_unix(self, path: &Path) -> Origin {
        let listener = UnixListener::bind(path).expect("the folder can be written to");
        let (script, log) = (Arc::new(self), Arc::new(Log::default()));
        let origin = Origin { address: ([0, 0, 0, 0], 0).into(), log: Arc::clone(&log) };
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                log.connections.fetch_add(1, Ordering::SeqCst);
                let (script, log) = (Arc::clone(&script), Arc::clone(&log));
                std::thread::spawn(move || serve(&script, &log, Line::Unix(stream)));
            }
        });
        origin
    }

    fn listen(
        self,
        at: SocketAddr,
        greet: impl Fn(TcpStream) -> Option<Line> + Send + Sync + 'static,
    ) -> Origin {
        let listener = TcpListener::bind(at).expect("loopback can be listened on");
        let address = listener.local_addr().expect("a bound socket has an address");
        let (script, log, greet) = (Arc::new(self), Arc::new(Log::default()), Arc::new(greet));
        let origin = Origin { address, log: Arc::clone(&log) };
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                log.connections.fetch_add(1, Ordering::SeqCst);
                let (script, log, greet) =
                    (Arc::clone(&script), Arc::clone(&log), Arc::clone(&greet));
                std::thread::spawn(move || {
                    if let Some(line) = greet(stream) {
                        serve(&script, &log, line);
                    }
                });
            }
        });
        origin
    }
}

/// Loopback, with a port of the system's choice.
fn own_port() -> SocketAddr {
    ([127, 0, 0, 1], 0).into()
}

/// An address at which connections are refused. Its port is held until all tests are over: no other one comes by it.
pub(crate) fn nobody() -> SocketAddr {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)
        .expect("a socket can be made");
    socket.bind(&own_port().into()).expect("loopback can be bound");
    let address = socket.local_addr().expect("a bound socket has an address");
    // Nobody listens.
    std::mem::forget(socket);
    address.as_socket().expect("it is of IP")
}

fn serve(script: &Script, log: &Log, line: Line) {
    let server_name = line.server_name();
    let mut write = line.again();
    // Byte by byte: what follows a head belongs to whoever takes the connection over.
    let mut read = BufReader::with_capacity(1, line);
    while let Some(mut seen) = read_head(&mut read) {
        seen.server_name.clone_from(&server_name);
        let path = seen.target().split('?').next().unwrap_or_default().to_owned();
        if let Some(takeover) = script.takeovers.get(&path) {
            note(log, seen.clone());
            takeover(seen, write.into_tcp().expect("only plain connections are handed over"));
            return;
        }
        if read_body(&mut read, &mut seen).is_none() {
            return;
        }
        note(log, seen.clone());
        let handler = script.paths.get(&path).or(script.otherwise.as_ref());
        let respond = handler.map_or_else(|| status(404), |handler| handler(&seen));
        if respond.write(seen.method() == "HEAD", &mut write).is_err() || respond.close {
            write.close();
            return;
        }
    }
}

fn note(log: &Log, seen: Seen) {
    log.seen.lock().expect("no test panics while it holds this").push(seen);
    log.changed.notify_all();
}

fn read_head(read: &mut impl BufRead) -> Option<Seen> {
    let mut line = String::new();
    if read.read_line(&mut line).ok()? == 0 {
        return None;
    }
    let mut fields = Vec::new();
    loop {
        let mut field = String::new();
        read.read_line(&mut field).ok()?;
        let field = field.trim_end();
        if field.is_empty() {
            break;
        }
        let (name, value) = field.split_once(':')?;
        fields.push((name.to_owned(), value.trim().to_owned()));
    }
    let line = line.trim_end().to_owned();
    Some(Seen { line, fields, body: Vec::new(), server_name: None })
}

fn read_body(read: &mut impl BufRead, seen: &mut Seen) -> Option<()> {
    if let Some(length) = seen.value("content-length") {
        let mut body = vec![0; length.parse().ok()?];
        read.read_exact(&mut body).ok()?;
        seen.body = body;
    } else if seen.value("transfer-encoding").is_some() {
        loop {
            let mut size = String::new();
            read.read_line(&mut size).ok()?;
            let size = usize::from_str_radix(size.trim_end(), 16).ok()?;
            let mut chunk = vec![0; size + 2];
            read.read_exact(&mut chunk).ok()?;
            if size == 0 {
                break;
            }
            seen.body.extend_from_slice(&chunk[..size]);
        }
    }
    Some(())
}
