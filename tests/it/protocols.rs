//! Versions and protocols from end to end: what clients speak, what origins speak, and what is told
//! to either of the other.

mod echo;
mod fields;
mod grpc;
mod http1;
mod http2;
mod interim;
mod origins;
mod proxied;
mod tls;
mod upgrade;

use crate::harness::Edge;
use crate::harness::Origin;

/// Plain text with HTTP/2 by prior knowledge, in front of an upstream described here.
pub(crate) fn edge_to(upstream: &str) -> Edge {
    Edge::with(&format!(
        "listeners:\n  - {{name: http, address: \"127.0.0.1:0\", h2c: true}}\n\
         upstreams:\n  origin: {{health: off, {upstream}}}\n\
         routes:\n  - {{name: all, upstream: origin}}\n"
    ))
}

/// A TLS listener with this description behind `tls`.
fn secure(origin: &Origin, tls: &str) -> String {
    format!(
        "listeners:\n  - {{name: https, address: \"127.0.0.1:0\", tls: {tls}}}\n\
         upstreams:\n  origin:\n    addresses: [\"{}\"]\n\
         routes:\n  - {{name: all, upstream: origin}}\n",
        origin.address
    )
}
