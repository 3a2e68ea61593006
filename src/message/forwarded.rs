//! Who the client is, and what the origin is told of it (Forwarded, RFC 7239; X-Forwarded-*).
//!
//! Anyone can write these fields. They are believed as far as an unbroken chain of trusted proxies
//! vouches for them, read from the nearest hop outwards: the first address that is not a trusted
//! proxy is the client, and what stands beyond it is its own claim and dropped.

use std::net::IpAddr;
use std::net::Ipv6Addr;
use std::ops::Range;

use http::HeaderMap;
use http::HeaderName;
use http::header;
use ipnet::IpNet;

use crate::message::list;
use crate::message::target::Authority;
use crate::message::target::Scheme;

/// `x-forwarded-for`
pub const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// `x-forwarded-proto`
pub const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// `x-forwarded-host`
pub const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
/// `x-real-ip`
pub const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// Other fields in which services in front of us name the client. They are removed unless the peer
/// is [`Trust::Trusted`], so that no origin believes a stranger.
pub const ADDRESS_CLAIMS: &[&str] = &[
    "cf-connecting-ip",
    "cf-connecting-ipv6",
    "client-ip",
    "fastly-client-ip",
    "forwarded-for",
    "true-client-ip",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-envoy-external-address",
    "x-forwarded",
    "x-originating-ip",
    "x-remote-addr",
    "x-remote-ip",
];

/// Whether this is one of [`ADDRESS_CLAIMS`].
#[must_use]
pub fn is_address_claim(name: &HeaderName) -> bool {
    ADDRESS_CLAIMS.contains(&name.as_str())
}

/// The most hops that are followed. A longer chain ends at this distance.
const MOST_HOPS: usize = 32;

/// Whether the peer's word counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// The peer is a trusted proxy.
    Trusted,
    /// It is anybody.
    Untrusted,
}

/// The client, as far as it can be believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    /// The client's address; `None` if the peer is on a Unix socket.
    pub address: Option<IpAddr>,
    /// The scheme that the client used.
    pub scheme: Scheme,
    /// Whether the peer is a trusted proxy.
    pub peer: Trust,
    /// The scheme of the connection to us.
    connection: Scheme,
    /// The trusted proxies between the client and us, outermost first; the last is the peer.
    hops: Vec<IpAddr>,
}

/// The values of the fields that tell the origin who the client is, as parts of the text that they were
/// written to. They replace whatever the request had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// X-Forwarded-For: the client and the trusted proxies; `None` without an address.
    pub x_forwarded_for: Option<Range<usize>>,
    /// X-Real-IP: the client alone; `None` without an address.
    pub x_real_ip: Option<Range<usize>>,
    /// X-Forwarded-Proto: `http` or `https`.
    pub x_forwarded_proto: &'static str,
    /// Forwarded: the same, and the host that the client asked for, in one field.
    pub forwarded: Range<usize>,
}

/// Finds the client of a request. `peer` is the other end of the connection, `None` on a Unix
/// socket, which is never a trusted proxy.
///
/// X-Forwarded-For is read if it is there, Forwarded otherwise. Where both are, a proxy that writes
/// only one passes the other on as it came, and nearly every proxy writes the former.
#[must_use]
pub fn client(
    peer: Option<IpAddr>,
    connection: Scheme,
    trusted: &[IpNet],
    headers: &HeaderMap,
) -> Client {
    let is_trusted = |address: IpAddr| trusted.iter().any(|network| network.contains(&address));
    let mut client = Client {
        address: peer.map(|address| address.to_canonical()),
        scheme: connection,
        peer: Trust::Untrusted,
        connection,
        hops: Vec::new(),
    };
    let Some(mut address) = client.address.filter(|&address| is_trusted(address)) else {
        return client;
    };
    client.peer = Trust::Trusted;

    let by_x_fields =
        headers.contains_key(X_FORWARDED_FOR) || !headers.contains_key(header::FORWARDED);
    let claims: Vec<Claim> = match by_x_fields {
        true => list::elements(headers, &X_FORWARDED_FOR).map(Claim::of_x_forwarded_for).collect(),
        false => list::elements(headers, &header::FORWARDED).map(Claim::of_forwarded).collect(),
    };
    let mut believed = None;
    for (at, claim) in claims.iter().enumerate().rev().take(MOST_HOPS) {
        // What is malformed or hidden names nobody: the chain ends with who wrote it.
        let Some(next) = claim.address.filter(|_| is_trusted(address)) else {
            break;
        };
        client.hops.push(address);
        address = next;
        believed = Some(at);
    }
    client.hops.reverse();
    client.address = Some(address);
    let scheme = match by_x_fields {
        true => forwarded_proto(headers, claims.len(), believed),
        false => believed.and_then(|at| claims[at].scheme),
    };
    client.scheme = scheme.unwrap_or(connection);
    client
}

/// What one entry of a chain says of the hop before it.
struct Claim {
    address: Option<IpAddr>,
    scheme: Option<Scheme>,
}

impl Claim {
    fn of_x_forwarded_for(element: &[u8]) -> Self {
        Self { address: parse_address(element), scheme: None }
    }

    /// A forwarded-element (RFC 7239 §4): each parameter once.
    fn of_forwarded(element: &[u8]) -> Self {
        let nothing = Self { address: None, scheme: None };
        let mut claim = Self { address: None, scheme: None };
        let mut seen = [false; 2];
        for parameter in list::bare_parameters(element) {
            let Ok(list::Parameter { name, value: Some(value) }) = parameter else {
                return nothing;
            };
            let which = if name.eq_ignore_ascii_case(b"for") {
                claim.address = parse_address(&value);
                0
            } else if name.eq_ignore_ascii_case(b"proto") {
                claim.scheme = Scheme::parse(&value);
                1
            } else {
                continue;
            };
            if std::mem::replace(&mut seen[which], true) {
                return nothing;
            }
        }
        claim
    }
}

/// The scheme in X-Forwarded-Proto: the entry beside the believed client where there is one for
/// each, otherwise the nearest proxy's.
fn forwarded_proto(headers: &HeaderMap, claims: usize, believed: Option<usize>) -> Option<Scheme> {
    let schemes: Vec<&[u8]> = list::elements(headers, &X_FORWARDED_PROTO).collect();
    let entry = match believed {
        Some(at) if schemes.len() == claims => schemes.get(at),
        _ => schemes.last(),
    };
    Scheme::parse(entry?)
}

/// An address with or without a port: `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]`,
/// `[2001:db8::1]:80`.
fn parse_address(bytes: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(bytes).ok()?;
    let address: IpAddr = match text.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']')?;
            let valid = port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
            valid.then(|| address.parse::<Ipv6Addr>().ok()).flatten()?.into()
        }
        None => match text.split_once(':') {
            Some((address, port)) if is_port(port) && address.contains('.') => {
                IpAddr::V4(address.parse().ok()?)
            }
            _ => text.parse().ok()?,
        },
    };
    Some(address.to_canonical())
}

fn is_port(text: &str) -> bool {
    (1..=5).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
}

impl Client {
    /// Writes what the origin is told of it behind what `text` has: visible ASCII and spaces. `host` is what
    /// the client asked for.
    pub fn say(&self, host: &Authority, text: &mut String) -> Said {
        let begins = text.len();
        let real = self.address.map(|address| {
            push_address(text, address);
            begins..text.len()
        });
        let chain = real.is_some().then(|| {
            for hop in &self.hops {
                text.push_str(", ");
                push_address(text, *hop);
            }
            begins..text.len()
        });
        Said {
            x_forwarded_for: chain,
            x_real_ip: real,
            x_forwarded_proto: self.scheme.as_str(),
            forwarded: self.say_forwarded(host.as_str(), text),
        }
    }

    /// The Forwarded field: one element for each hop. The first says how the client asked, which
    /// is what origins look at; the last how the request came to us.
    fn say_forwarded(&self, host: &str, text: &mut String) -> Range<usize> {
        let begins = text.len();
        push_element(text, self.address, Some((host, self.scheme)));
        for (at, hop) in self.hops.iter().enumerate() {
            text.push_str(", ");
            let last = at + 1 == self.hops.len();
            push_element(text, Some(*hop), last.then_some((host, self.connection)));
        }
        begins..text.len()
    }
}

fn push_element(text: &mut String, node: Option<IpAddr>, request: Option<(&str, Scheme)>) {
    text.push_str("for=");
    match node {
        Some(address @ IpAddr::V4(_)) => push_address(text, address),
        // Brackets and colons are no token bytes, hence the quotes (RFC 7239 §6).
        Some(IpAddr::V6(address)) => text.push_str(&format!("\"[{address}]\"")),
        None => text.push_str("unknown"),
    }
    let Some((host, scheme)) = request else {
        return;
    };
    text.push_str(";host=");
    // The host is an Authority: nothing in it needs escaping within quotes.
    match list::is_token(host.as_bytes()) {
        true => text.push_str(host),
        false => {
            text.push('"');
            text.push_str(host);
            text.push('"');
        }
    }
    text.push_str(";proto=");
    text.push_str(scheme.as_str());
}

/// Writes an address as its `Display` does, which takes ten times as long for IPv4.
fn push_address(text: &mut String, address: IpAddr) {
    let IpAddr::V4(address) = address else { return text.push_str(&address.to_string()) };
    for (at, byte) in address.octets().into_iter().enumerate() {
        if at > 0 {
            text.push('.');
        }
        let digits = [byte / 100, byte / 10 % 10, byte % 10];
        let zeros = usize::from(byte < 100) + usize::from(byte < 10);
        text.extend(digits[zeros..].iter().map(|digit| char::from(b'0' + digit)));
    }
}

#[cfg(test)]
mod tests;
