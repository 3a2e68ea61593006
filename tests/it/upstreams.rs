//! Several backends behind one name: shares, and what a client notices when one of them fails.

mod balance;
mod breaker;
mod ejection;
mod fallback;
mod health;
mod hedge;
mod hedge_multiplexed;
mod killed;
mod mirror;
mod names;
mod pool;
mod retry;
mod runtime;
mod shed;
mod srv;
mod sticky;
mod trouble;

use std::collections::BTreeMap;

use crate::harness::Edge;
use crate::harness::Origin;

/// Everything passed to these origins; `more` are further keys of the upstream. Nothing is stored.
fn before(origins: &[&Origin], more: &str) -> Edge {
    let addresses: Vec<String> = (0..)
        .zip(origins)
        .map(|(n, one)| format!("{{id: b{n}, address: \"{}\"}}", one.address))
        .collect();
    with(&addresses.join(", "), more)
}

/// The same with addresses as written.
fn with(addresses: &str, more: &str) -> Edge {
    Edge::with(&format!(
        "listeners: [{{name: http, address: \"127.0.0.1:0\"}}]\n\
         upstreams:\n  app:\n    addresses: [{addresses}]\n{more}\
         routes: [{{upstream: app}}]\n"
    ))
}

/// An address that nobody listens on.
fn nobody() -> String {
    crate::harness::nobody().to_string()
}

/// Who answers so many requests, how often.
fn shares(edge: &Edge, requests: usize) -> BTreeMap<String, usize> {
    let mut shares = BTreeMap::new();
    let mut wire = edge.wire();
    for _ in 0..requests {
        let reply = wire.get("edge.test", "/", &[]);
        *shares.entry(reply.expect_status(200).text()).or_default() += 1;
    }
    shares
}

/// The same, as written.
fn of(shares: &[(&str, usize)]) -> BTreeMap<String, usize> {
    shares.iter().map(|(who, share)| ((*who).to_owned(), *share)).collect()
}
