//! The two ends of a connection.

use std::net::SocketAddr;

/// Who a connection is from, and what it is to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ends {
    /// The client.
    pub source: SocketAddr,
    /// What the client connected to.
    pub destination: SocketAddr,
}
