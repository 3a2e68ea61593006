//! What the connection layer saw, told to the metrics and the access log.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use log::error;

use crate::listen::census::Full;
use crate::listen::conn::Conn;
use crate::listen::watch::Away;
use crate::listen::watch::Handshake as Settled;
use crate::listen::watch::Watch;
use crate::listen::watch::Why;
use crate::message::list::is_token_byte;
use crate::observe::access_log::Record;
use crate::observe::access_log::mask;
use crate::observe::metrics::labels::CacheResult;
use crate::observe::metrics::labels::ClientCertificate;
use crate::observe::metrics::labels::ConnectionRefusal;
use crate::observe::metrics::labels::Handshake;
use crate::observe::metrics::labels::Method;
use crate::observe::metrics::labels::TlsVersion;
use crate::observe::metrics::requests::Finished;
use crate::proxy::arrive;
use crate::refusal::Refusal;
use crate::runtime::Runtime;
use crate::tls::Version;
use crate::tls::clients::Shown;

/// Tells the metrics and the access log.
pub struct Reporter {
    runtime: Arc<ArcSwap<Runtime>>,
}

impl Reporter {
    /// A reporter to the current generation.
    #[must_use]
    pub fn new(runtime: Arc<ArcSwap<Runtime>>) -> Self {
        Self { runtime }
    }
}

impl Watch for Reporter {
    fn opened(&self, listener: usize) -> Option<Box<dyn Any + Send>> {
        let runtime = self.runtime.load();
        let metrics = runtime.listener_metrics.get(listener)?;
        Some(Box::new(metrics.connected()))
    }

    fn turned_away(&self, listener: usize, why: Away) {
        if let Some(metrics) = self.runtime.load().listener_metrics.get(listener) {
            metrics.refused(match why {
                Away::Full(Full::Total) => ConnectionRefusal::Limit,
                Away::Full(Full::Client) => ConnectionRefusal::ClientLimit,
                Away::Stranger => ConnectionRefusal::NotAProxy,
                Away::Unproxied => ConnectionRefusal::NoProxyHeader,
            });
        }
    }

    fn handshake(&self, listener: usize, settled: Settled) {
        let (result, version, shown) = match settled {
            Settled::Done { version, resumed, shown } => {
                let result = if resumed { Handshake::Resumed } else { Handshake::Full };
                let version = match version {
                    Version::Tls12 => TlsVersion::Tls12,
                    Version::Tls13 => TlsVersion::Tls13,
                };
                (result, version, shown)
            }
            Settled::Failed(Why::Disagreed) => (Handshake::Failed, TlsVersion::None, None),
            Settled::Failed(Why::UnknownName) => (Handshake::UnknownName, TlsVersion::None, None),
            Settled::Failed(Why::Certificate(shown)) => {
                (Handshake::Failed, TlsVersion::None, Some(shown))
            }
            Settled::TimedOut => (Handshake::Timeout, TlsVersion::None, None),
        };
        if let Some(metrics) = self.runtime.load().listener_metrics.get(listener) {
            metrics.handshake(result, version);
            if let Some(shown) = shown {
                metrics.client_certificate(match shown {
                    Shown::Verified => ClientCertificate::Verified,
                    Shown::None => ClientCertificate::None,
                    Shown::Missing => ClientCertificate::Missing,
                    Shown::Expired => ClientCertificate::Expired,
                    Shown::Revoked => ClientCertificate::Revoked,
                    Shown::UnknownAuthority => ClientCertificate::UnknownAuthority,
                    Shown::Undetermined => ClientCertificate::Undetermined,
                    Shown::Bad => ClientCertificate::Bad,
                });
            }
        }
    }

    fn refused(&self, conn: &Conn, refusal: Refusal, took: Duration, received: &[u8]) -> String {
        let id = arrive::new_id(SystemTime::now());
        let line = first_line(received);
        let status = Some(refusal.status().as_u16());
        let sent = refusal.body(false).len() as u64;
        self.record(conn, &Refused { refusal, took, line, status, sent, id: &id });
        id
    }

    fn ended(&self, conn: &Conn, refusal: Refusal, status: Option<u16>) {
        let line = FirstLine { protocol: "HTTP/2", ..first_line(b"") };
        let took = Duration::ZERO;
        self.record(conn, &Refused { refusal, took, line, status, sent: 0, id: "" });
    }

    fn last_word(&self) -> Duration {
        self.runtime.load().draining.last_word()
    }

    fn panicked(&self, conn: &Conn) {
        self.runtime.load().metrics.panicked();
        error!(target: "edgeproxy::proxy", peer:% = conn.peer; "a request panicked; only it is lost");
    }
}

/// What was refused before it became a request.
struct Refused<'a> {
    refusal: Refusal,
    /// From its first byte.
    took: Duration,
    line: FirstLine<'a>,
    /// What was answered, if anything.
    status: Option<u16>,
    /// Bytes of the answer's body.
    sent: u64,
    /// What it is known by; empty for nothing.
    id: &'a str,
}

impl Reporter {
    fn record(&self, conn: &Conn, refused: &Refused<'_>) {
        let Refused { refusal, took, line, status, sent, id } = *refused;
        let FirstLine { method, path, query, protocol } = line;
        let runtime = self.runtime.load();
        runtime.metrics.refused(refusal);
        if let Some(route) = runtime.routes.of(conn.listener, None) {
            route.record(&Finished {
                method: Method::from_bytes(method),
                status,
                cache: CacheResult::None,
                duration: took,
                time_to_first_byte: status.map(|_| took),
            });
        }
        runtime.access_log.log(&Record {
            time: SystemTime::now().checked_sub(took).unwrap_or(SystemTime::UNIX_EPOCH),
            client: Some(conn.peer.ip()),
            peer: Some(conn.peer),
            listener: &conn.listener_name,
            protocol,
            tls_version: conn.tls.as_ref().map(|tls| tls.version.name()),
            tls_sni: conn.tls.as_ref().and_then(|tls| tls.server_name.as_deref()),
            tls_client: conn.client(),
            method,
            scheme: if conn.is_secure() { "https" } else { "http" },
            path,
            query,
            status,
            bytes_sent: sent,
            duration: took,
            refusal: Some(refusal),
            request_id: id,
            ..Record::default()
        });
    }
}

/// A request line as far as it can be made out, for the log only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FirstLine<'a> {
    method: &'a [u8],
    path: &'a [u8],
    query: Option<&'a [u8]>,
    protocol: &'static str,
}

/// How much of a method and of a target is shown.
const METHOD_MAX: usize = 16;
const TARGET_MAX: usize = 256;

fn first_line(received: &[u8]) -> FirstLine<'_> {
    let line = received.split(|byte| matches!(byte, b'\r' | b'\n')).find(|line| !line.is_empty());
    let line = line.unwrap_or_default();
    let mut words = line.split(|byte| *byte == b' ');
    let method = words.next().unwrap_or_default();
    // What is no method can be anything, a target with a secret too.
    let named = method.iter().position(|&byte| !is_token_byte(byte)).unwrap_or(method.len());
    let word = words.next().unwrap_or_default();
    let version = words.next().filter(|word| word.starts_with(b"HTTP/"));
    let shown = &word[..word.len().min(TARGET_MAX)];
    // A blank may be part of a password: then another word follows.
    let is_whole = version.is_some() && words.next().is_none() && shown.len() == word.len();
    let target = &shown[..certain(shown, is_whole)];
    let (path, query) = match target.iter().position(|&byte| byte == b'?') {
        Some(at) => (&target[..at], Some(&target[at + 1..])),
        None => (target, None),
    };
    FirstLine {
        method: &method[..named.min(METHOD_MAX)],
        path,
        query,
        protocol: if version == Some(b"HTTP/1.0") { "HTTP/1.0" } else { "HTTP/1.1" },
    }
}

/// How much can be shown of a target that was refused, of which `is_whole` says that no more came. Of a path
/// that is all of it, its secrets are masked. Of a URL it is what can be no user and no password: where none
/// can be in what came, all; else the scheme, and the host if one stands there.
fn certain(target: &[u8], is_whole: bool) -> usize {
    if target.starts_with(b"/") {
        return target.len();
    }
    let place = target.windows(3).position(|three| three == b"://").map_or(0, |at| at + 3);
    let authority = &target[place..];
    let end = authority.iter().position(|byte| matches!(byte, b'/' | b'?' | b'#'));
    let authority = &authority[..end.unwrap_or(authority.len())];
    let has_user = target.contains(&b'@');
    // The user is masked where it is written.
    if is_whole && (has_user || (mask::is_host_and_port(authority) && !authority.ends_with(b":"))) {
        return target.len();
    }
    let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._".contains(byte);
    let name = authority.iter().take_while(|byte| is_name(byte)).count();
    let is_host = end.is_some() && !has_user && place > 0 && name == authority.len();
    if is_host { place + name } else { place }
}

/// Tells nobody.
pub struct Unwatched;

impl Watch for Unwatched {
    fn opened(&self, _listener: usize) -> Option<Box<dyn Any + Send>> {
        None
    }
    fn turned_away(&self, _listener: usize, _why: Away) {}
    fn handshake(&self, _listener: usize, _settled: Settled) {}
    fn refused(&self, _: &Conn, _: Refusal, _: Duration, _: &[u8]) -> String {
        String::new()
    }
    fn ended(&self, _conn: &Conn, _refusal: Refusal, _status: Option<u16>) {}
    fn last_word(&self) -> Duration {
        Duration::ZERO
    }
    fn panicked(&self, _conn: &Conn) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_is_shown_as_far_as_it_can_be_made_out() {
        for (received, method, path, protocol) in [
            (&b"GET /a HTTP/1.1\r\n"[..], &b"GET"[..], &b"/a"[..], "HTTP/1.1"),
            (b"GET /a HTTP/1.0\r\nA", b"GET", b"/a", "HTTP/1.0"),
            (b"\r\nGET /a", b"GET", b"/a", "HTTP/1.1"),
            (b"CONNECT a.test:443 HTTP/1.1\r\n", b"CONNECT", b"a.test:443", "HTTP/1.1"),
            (b"nonsense", b"nonsense", b"", "HTTP/1.1"),
            (b"", b"", b"", "HTTP/1.1"),
        ] {
            assert_eq!(first_line(received), FirstLine { method, path, query: None, protocol });
        }
        let line = first_line(b"GET /a?b=c?d HTTP/1.1\r\n");
        assert_eq!((line.path, line.query), (&b"/a"[..], Some(&b"b=c?d"[..])));
    }

    #[test]
    fn what_is_no_method_is_not_shown_as_one() {
        for (received, method) in [
            (&b"/reset?token=x HTTP/1.1\r\n"[..], &b""[..]),
            (b"token=x", b"token"),
            (b"GET\t/reset?token=x HTTP/1.1\r\n", b"GET"),
        ] {
            assert_eq!(first_line(received).method, method);
        }
    }

    #[test]
    fn an_authority_that_came_in_part_is_not_shown() {
        for (received, path) in [
            (&b"GET http://me:p"[..], &b"http://"[..]),
            (b"GET http://me:p\r\n", b"http://"),
            (b"CONNECT me:p", b""),
            (b"GET http://a.test/x", b"http://a.test"),
            (b"GET http://a.test:80/x", b"http://"),
            (b"GET http://me:p ", b"http://"),
            (b"GET http://me:p/w", b"http://"),
            (b"GET http://me:p?w", b"http://"),
            (b"GET http://me:p#w HTTP/1.1\r\n", b"http://"),
            (b"GET http://me:p w@host/ HTTP/1.1\r\n", b"http://"),
            (b"GET me:p HTTP/1.1\r\n", b""),
            (b"GET http:/me:p HTTP/1.1\r\n", b""),
            (b"GET http://a.test:80/x HTTP/1.1\r\n", b"http://a.test:80/x"),
        ] {
            assert_eq!(first_line(received).path, path);
        }
        let long = format!("GET http://me:p/{}@host/ HTTP/1.1\r\n", "p".repeat(TARGET_MAX));
        assert_eq!(first_line(long.as_bytes()).path, b"http://");
        let long = format!("GET http://{} HTTP/1.1\r\n", "p".repeat(TARGET_MAX));
        assert_eq!(first_line(long.as_bytes()).path, b"http://");
        let long = format!("GET /{} HTTP/1.1\r\n", "p".repeat(TARGET_MAX));
        assert_eq!(first_line(long.as_bytes()).path.len(), TARGET_MAX);
    }
}
