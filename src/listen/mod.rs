//! The connection before HTTP: accepting, guarding, TLS, and the keep-alive loop.

pub mod accept;
pub mod census;
pub mod conn;
mod ends;
mod frames;
mod hands;
mod handshake;
mod http2;
pub mod insist;
pub mod io;
pub mod local;
mod patience;
pub mod proxied;
mod refuse;
pub mod room;
pub mod serve;
mod session;
pub mod shortcut;
pub mod stream;
mod transport;
pub mod watch;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use crate::listen::insist::Insistence;
use crate::terms::pace::MinRate;
use crate::tls;

/// How many times the bytes that a header may have the HTTP/2 library lets through.
const H2_HEADERS: usize = 4;
/// What RFC 9113 §6.5.2 counts for each field beside its bytes.
const H2_FIELD: usize = 32;

/// A listener, as meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The name in logs and metrics; unique.
    pub name: Arc<str>,
    /// Where it listens.
    pub address: SocketAddr,
    /// Whether proxies in front say who a connection is from; `None`: nobody is believed.
    pub proxied: Option<proxied::Settings>,
    /// TLS; `None` is plain text.
    pub tls: Option<tls::Settings>,
    /// Whether HTTP/2 by prior knowledge is spoken on plain text.
    pub h2c: bool,
    /// What it does so that clients come over TLS.
    pub insists: Insistence,
}

/// The limits that guard every connection, as meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Connections in all.
    pub connections: u64,
    /// Connections from one client address.
    pub connections_per_client: u64,
    /// From the first byte of a header to its end; also from the connection's start to its first byte.
    pub header_timeout: Duration,
    /// For the TLS handshake, and for the header of the PROXY protocol.
    pub handshake_timeout: Duration,
    /// TLS handshakes under way at once; more of them wait.
    pub handshakes: u64,
    /// Between two requests of a connection.
    pub idle_timeout: Duration,
    /// Bytes per second below which a request body is cut off, measured over `rate_window`.
    pub min_body_rate: u64,
    /// Bytes per second below which a client that reads its response is cut off.
    pub min_send_rate: u64,
    /// The time that a slow client is given before the minimum rates apply.
    pub rate_window: Duration,
    /// Requests on one connection; then it is closed.
    pub requests_per_connection: u32,
    /// The largest header section, in bytes.
    pub header_bytes: usize,
    /// The most header fields.
    pub header_fields: usize,
    /// The longest target, in bytes.
    pub target_bytes: usize,
    /// Streams at a time on one HTTP/2 connection.
    pub h2_streams: u32,
    /// HTTP/2 requests under way in all, of those that wait for something.
    pub h2_streams_in_all: u64,
    /// The same from one client address.
    pub h2_streams_per_client: u64,
    /// From whom forwarding fields are believed.
    pub trusted_proxies: Vec<IpNet>,
}

impl Limits {
    /// The slowest that a client may take a response.
    fn least_send_rate(&self) -> MinRate {
        MinRate { bytes_per_second: self.min_send_rate, window: self.rate_window }
    }

    /// The largest header list that the HTTP/2 library hands over, counted as RFC 9113 §6.5.2 does.
    ///
    /// What is larger it answers by itself, with nothing but a status. Requests have to be refused in
    /// our own words, so it lets through several times what they may have.
    fn h2_header_list(&self) -> u32 {
        let fields = self.header_fields.saturating_mul(H2_FIELD);
        let most = H2_HEADERS
            .saturating_mul(self.header_bytes)
            .saturating_add(self.target_bytes)
            .saturating_add(fields);
        u32::try_from(most).unwrap_or(u32::MAX)
    }
}
