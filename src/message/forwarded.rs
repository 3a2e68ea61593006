//! Who the client is, and what the origin is told of it (Forwarded, RFC 7239; X-Forwarded-*).
//!
//! Anyone can write these fields. They are believed as far as an unbroken chain of trusted proxies
//! vouches for them, read from the nearest hop outwards: the first address that is not a trusted
//! proxy is the client, and what stands beyond it is its own claim and dropped.

use std::io::Write;
use std::net::IpAddr;
use std::net::Ipv6Addr;

use http::HeaderMap;
use http::HeaderName;
use http::header;
use ipnet::IpNet;

use crate::message::append::append;
use crate::message::append::append_few;
use crate::message::list;
use crate::message::names::NameList;
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

static CLAIMS: NameList = NameList::of(ADDRESS_CLAIMS);

/// Whether this is one of [`ADDRESS_CLAIMS`].
#[must_use]
pub fn is_address_claim(name: &str) -> bool {
    CLAIMS.contains(name)
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

/// What the origin is told of a client: the values of fields that replace whatever the request had. Each is
/// visible ASCII and spaces.
#[derive(Debug, Clone)]
pub struct Said<'a> {
    client: &'a Client,
    /// What the client asked for.
    host: &'a Authority,
    /// Of the client; three of the fields name it.
    address: Option<Address>,
}

/// An address as it is written.
#[derive(Debug, Clone, Copy)]
struct Address {
    text: [u8; LONGEST_ADDRESS],
    length: usize,
    is_v6: bool,
}

/// The longest address, in bytes: that of an IPv6 one that ends in an IPv4 one.
const LONGEST_ADDRESS: usize = 45;

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
    /// What the origin is told of it. `host` is what the client asked for.
    #[must_use]
    pub fn say<'a>(&'a self, host: &'a Authority) -> Said<'a> {
        Said { client: self, host, address: self.address.map(Address::of) }
    }
}

impl<'a> Said<'a> {
    /// Whether the client has an address. Without one there is neither X-Forwarded-For nor X-Real-IP.
    #[must_use]
    pub fn has_address(&self) -> bool {
        self.address.is_some()
    }

    /// X-Forwarded-Proto: `http` or `https`.
    #[must_use]
    pub fn proto(&self) -> &'static str {
        self.client.scheme.as_str()
    }

    /// X-Forwarded-Host: what the client asked for.
    #[must_use]
    pub fn host(&self) -> &'a str {
        self.host.as_str()
    }

    /// Whether the peer's word about the client counts.
    #[must_use]
    pub fn peer(&self) -> Trust {
        self.client.peer
    }

    /// Writes X-Real-IP: the client's address alone.
    pub fn write_address(&self, out: &mut Vec<u8>) {
        append(out, self.address.as_ref().map_or(b"", Address::text));
    }

    /// Writes X-Forwarded-For: the client and the trusted proxies.
    pub fn write_chain(&self, out: &mut Vec<u8>) {
        self.write_address(out);
        for hop in &self.client.hops {
            append_few(out, *b", ");
            append(out, Address::of(*hop).text());
        }
    }

    /// Writes Forwarded: the same, and the host that the client asked for, in one field. There is one element for
    /// each hop. The first says how the client asked, which is what origins look at; the last how the
    /// request came to us.
    pub fn write_forwarded(&self, out: &mut Vec<u8>) {
        let Client { hops, scheme, connection, .. } = self.client;
        write_node(out, self.address.as_ref());
        self.write_request(out, *scheme);
        for (at, hop) in hops.iter().enumerate() {
            append_few(out, *b", ");
            write_node(out, Some(&Address::of(*hop)));
            if at + 1 == hops.len() {
                self.write_request(out, *connection);
            }
        }
    }

    fn write_request(&self, out: &mut Vec<u8>, scheme: Scheme) {
        // An Authority has nothing in it that needs escaping within quotes, and colons and brackets, which are no
        // token bytes, only around a port or an IPv6 address.
        let host = self.host.as_str().as_bytes();
        let is_token = self.host.port().is_none() && !host.starts_with(b"[");
        if is_token {
            append(out, b";host=");
            append(out, host);
            append(out, b";proto=");
        } else {
            append(out, b";host=\"");
            append(out, host);
            append(out, b"\";proto=");
        }
        append(out, scheme.as_str().as_bytes());
    }
}

fn write_node(out: &mut Vec<u8>, node: Option<&Address>) {
    match node {
        Some(address) if address.is_v6 => {
            // Brackets and colons are no token bytes, hence the quotes (RFC 7239 §6).
            append(out, b"for=\"[");
            append(out, address.text());
            append_few(out, *b"]\"");
        }
        Some(address) => {
            append_few(out, *b"for=");
            append(out, address.text());
        }
        None => append(out, b"for=unknown"),
    }
}

impl Address {
    /// As its `Display` does, which takes ten times as long for IPv4.
    fn of(address: IpAddr) -> Self {
        let mut text = [0; LONGEST_ADDRESS];
        let length = match address {
            IpAddr::V4(address) => {
                let mut at = 0;
                for byte in address.octets() {
                    if byte >= 100 {
                        text[at] = b'0' + byte / 100;
                        at += 1;
                    }
                    if byte >= 10 {
                        text[at] = b'0' + byte / 10 % 10;
                        at += 1;
                    }
                    text[at] = b'0' + byte % 10;
                    text[at + 1] = b'.';
                    at += 2;
                }
                at - 1
            }
            IpAddr::V6(address) => {
                let mut rest = &mut text[..];
                write!(rest, "{address}").expect("none is longer");
                LONGEST_ADDRESS - rest.len()
            }
        };
        Self { text, length, is_v6: address.is_ipv6() }
    }

    fn text(&self) -> &[u8] {
        &self.text[..self.length]
    }
}

#[cfg(test)]
mod tests;
