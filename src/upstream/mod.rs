//! A named group of origin addresses, and how edgeproxy talks to them.
//!
//! [`Upstream`](peer::Upstream) chooses an address and answers with Pingora's `HttpPeer` for it;
//! [`resolve`] keeps the addresses current. HTTP/1 connections are ours: [`connect`] dials them and
//! [`guard`] checks every byte that an origin sends; those that are idle wait in a [`pool`]. HTTP/2
//! connections are Pingora's. [`lift`] makes the proxy that uses both, and [`fault`] says what an
//! error on the origin's side means.

pub mod connect;
pub mod endpoint;
pub mod fault;
pub mod guard;
pub mod lift;
mod line;
pub mod peer;
pub mod pool;
pub mod resolve;
mod socket;
pub mod tls;
mod unverified;
mod vigil;

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// An upstream, as meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The name in the configuration, logs and metrics; unique.
    pub name: Arc<str>,
    /// Switched off: every request is answered 503.
    pub active: bool,
    /// Where it is; never empty.
    pub addresses: Vec<Address>,
    /// TLS towards it; `None` is plain text.
    pub tls: Option<OriginTls>,
    /// The HTTP version spoken to it.
    pub protocol: Protocol,
    /// The Host that it sees; `None` passes the client's on.
    pub host: Option<Arc<str>>,
    /// Every deadline.
    pub timeouts: Timeouts,
    /// How often names are resolved again.
    pub resolve_every: Duration,
}

/// One address of an upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// Where.
    pub at: Place,
    /// Its share of requests relative to its siblings; at least 1.
    pub weight: u32,
}

/// Where an origin listens.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Place {
    /// A host name or address, and a port.
    Tcp {
        /// A DNS name, or an IP address without brackets.
        host: String,
        /// The port.
        port: u16,
    },
    /// A Unix socket.
    Unix(PathBuf),
    /// The demo origin that this process serves on loopback.
    Demo,
}

/// The HTTP version spoken to an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2: by ALPN over TLS, by prior knowledge over plain text.
    Http2,
}

/// TLS towards an upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OriginTls {
    /// The name sent as SNI and checked in the certificate; `None` takes the address's host name.
    pub server_name: Option<String>,
    /// A PEM file of the authorities to trust instead of the system's.
    pub ca: Option<PathBuf>,
    /// Whether the certificate is checked. Off only by an explicit setting.
    pub verify: bool,
}

/// Every deadline towards an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// To establish a connection, TLS included.
    pub connect: Duration,
    /// Between two reads of the response; the first one is the time to first byte.
    pub read: Duration,
    /// For one write of the request.
    pub write: Duration,
    /// How long an unused connection is kept.
    pub idle: Duration,
}
