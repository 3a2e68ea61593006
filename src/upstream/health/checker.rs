//! Who asks a backend: what it takes to make a connection for a check, and what is said on it.

use std::fmt;
use std::net::Ipv6Addr;
use std::sync::Arc;
use std::time::Duration;

use pingora::upstreams::peer::HttpPeer;
use tokio::time::timeout;

use super::Probe;
use super::Settings;
use super::grpc;
use super::http;
use super::http2;
use crate::upstream;
use crate::upstream::OriginTls;
use crate::upstream::Place;
use crate::upstream::Protocol;
use crate::upstream::connect::Dial;
use crate::upstream::fault::one_line;
use crate::upstream::fault::reason_of;
use crate::upstream::fault::refusal_of;
use crate::upstream::line::Line;
use crate::upstream::line::Wire;

/// Checks the addresses of one backend.
#[derive(Debug)]
pub(in crate::upstream) struct Checker {
    settings: Settings,
    dial: Arc<Dial>,
    protocol: Protocol,
    secure: bool,
    /// The Host, where no other is set.
    authority: Arc<str>,
}

/// Why a check failed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// It took too long.
    Timeout(Duration),
    /// A connection could not be made, or broke, or what came is not HTTP: the label of what clients are
    /// told, and what is known beyond that.
    Broken(String),
    /// The answer has another status.
    Status(u16),
    /// The answer does not contain the text.
    Body,
    /// TLS agreed on no HTTP/2.
    NoHttp2,
    /// The gRPC call ended with this status.
    Grpc(u32),
    /// The service says that it is something else than serving.
    NotServing(&'static str),
    /// The answer is none of a gRPC health service.
    NotGrpc(&'static str),
}

impl Checker {
    /// Whether `other` asks the same in the same way; how often, and what follows from it, does not matter.
    pub(super) fn asks_as(&self, other: &Self) -> bool {
        let (mine, theirs) = (&self.settings, &other.settings);
        (&mine.probe, mine.timeout) == (&theirs.probe, theirs.timeout)
            && (self.protocol, self.secure) == (other.protocol, other.secure)
            && self.authority == other.authority
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Timeout(time) => write!(f, "no answer within {time:?}"),
            Self::Broken(what) => f.write_str(what),
            Self::Status(status) => write!(f, "status {status}"),
            Self::Body => f.write_str("the answer does not contain the text"),
            Self::NoHttp2 => f.write_str("no HTTP/2 over TLS"),
            Self::Grpc(status) => write!(f, "gRPC status {status}"),
            Self::NotServing(state) => f.write_str(state),
            Self::NotGrpc(what) => write!(f, "no gRPC health service: {what}"),
        }
    }
}

impl Failure {
    /// What Pingora or our own connector say.
    pub(super) fn of(error: &pingora::Error) -> Self {
        Self::broken(refusal_of(error).label(), &reason_of(error))
    }

    /// What the HTTP/2 library says.
    pub(super) fn of_http2(error: &h2::Error) -> Self {
        Self::broken("origin_closed", error)
    }

    /// One short line: part of it may be the backend's.
    pub(super) fn broken(label: &str, cause: &dyn fmt::Display) -> Self {
        Self::Broken(one_line(&format!("{label}: {cause}")))
    }
}

impl Checker {
    /// Who checks the backend `at` this place; its connections are made by `dial`.
    pub(in crate::upstream) fn new(
        settings: Settings,
        of: &upstream::Settings,
        at: &Place,
        tls: Option<&OriginTls>,
        dial: &Arc<Dial>,
    ) -> Self {
        let dial = Arc::clone(dial);
        let authority = match &of.host {
            Some(host) => Arc::clone(host),
            None => authority_of(at, tls.is_some()).into(),
        };
        Self { settings, dial, protocol: of.protocol, secure: tls.is_some(), authority }
    }

    pub(in crate::upstream) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Asks the backend that `peer` leads to.
    pub(super) async fn ask(&self, peer: &HttpPeer) -> Result<(), Failure> {
        let patience = self.settings.timeout;
        let asked = timeout(patience, self.ask_patiently(peer)).await;
        asked.unwrap_or(Err(Failure::Timeout(patience)))
    }

    async fn ask_patiently(&self, peer: &HttpPeer) -> Result<(), Failure> {
        let line = self.dial.apart(peer, self.settings.timeout).await;
        let line = line.map_err(|error| Failure::of(&error))?;
        match (&self.settings.probe, self.protocol) {
            (Probe::Tcp, Protocol::Http1 | Protocol::Http2) => Ok(()),
            (Probe::Http(request), Protocol::Http1) => {
                let host = request.host.as_ref().unwrap_or(&self.authority);
                http::ask(line, self.dial.limits, request, host).await
            }
            (Probe::Http(request), Protocol::Http2) => {
                let host = request.host.as_ref().unwrap_or(&self.authority);
                match http2_wire(line)? {
                    Wire::Plain(socket) => http2::ask(socket, request, host, self.secure).await,
                    Wire::Tls(stream) => http2::ask(stream, request, host, self.secure).await,
                }
            }
            // Over HTTP/2, whatever requests use; the configuration wants them to be the same.
            (Probe::Grpc { service, host, headers }, Protocol::Http1 | Protocol::Http2) => {
                let call = grpc::Call {
                    service,
                    headers,
                    host: host.as_ref().unwrap_or(&self.authority),
                    secure: self.secure,
                    patience: self.settings.timeout,
                };
                match http2_wire(line)? {
                    Wire::Plain(socket) => grpc::ask(socket, &call).await,
                    Wire::Tls(stream) => grpc::ask(stream, &call).await,
                }
            }
        }
    }
}

/// What HTTP/2 can be spoken on.
fn http2_wire(line: Line) -> Result<Wire, Failure> {
    if let Wire::Tls(stream) = &line.wire
        && stream.get_ref().1.alpn_protocol() != Some(b"h2")
    {
        return Err(Failure::NoHttp2);
    }
    Ok(line.wire)
}

/// The Host of a backend that has no other; ports that go without saying are left out.
fn authority_of(at: &Place, secure: bool) -> String {
    match at {
        Place::Tcp { host, port } => {
            let host = host.strip_suffix('.').unwrap_or(host);
            let is_ipv6 = host.parse::<Ipv6Addr>().is_ok();
            let host = if is_ipv6 { format!("[{host}]") } else { host.to_owned() };
            let own = if secure { 443 } else { 80 };
            if *port == own { host } else { format!("{host}:{port}") }
        }
        // `_http._tcp.app.test` is a service of `app.test`.
        Place::Service(name) => name
            .split('.')
            .skip_while(|label| label.starts_with('_'))
            .filter(|label| !label.is_empty())
            .collect::<Vec<_>>()
            .join("."),
        Place::Unix(_) | Place::Demo => "localhost".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_is_the_backends_with_its_port_where_that_says_something() {
        let at = |host: &str, port| Place::Tcp { host: host.to_owned(), port };
        assert_eq!(authority_of(&at("a.test", 80), false), "a.test");
        assert_eq!(authority_of(&at("a.test.", 443), true), "a.test");
        assert_eq!(authority_of(&at("a.test", 443), false), "a.test:443");
        assert_eq!(authority_of(&at("192.0.2.1", 8080), false), "192.0.2.1:8080");
        assert_eq!(authority_of(&at("2001:db8::1", 80), false), "[2001:db8::1]");
        let service = Place::Service("_http._tcp.app.test.".to_owned());
        assert_eq!(authority_of(&service, false), "app.test");
        assert_eq!(authority_of(&Place::Unix("/run/a.sock".into()), false), "localhost");
    }

    #[test]
    fn what_a_backend_makes_us_say_is_one_short_line() {
        let said = Failure::broken("origin_malformed", &format!("a\r\nb{}", "x".repeat(1000)));
        let Failure::Broken(text) = said else { panic!("{said:?}") };
        assert!(text.starts_with("origin_malformed: abxxx"), "{text}");
        assert_eq!(text.len(), 160);
    }

    #[test]
    fn the_cause_at_the_root_is_told() {
        use pingora::ErrorType::ConnectRefused;
        let cause = std::io::Error::other("nobody listens");
        let error = pingora::Error::because(ConnectRefused, "connecting", cause);
        assert_eq!(Failure::of(&error).to_string(), "connect_failed: nobody listens");
        let bare = pingora::Error::explain(ConnectRefused, "connecting");
        assert_eq!(Failure::of(&bare).to_string(), "connect_failed: ConnectRefused");
    }
}
