//! Which route a request takes, and what is done with it there.

mod actions;
mod changes;
mod matching;
mod normal_form;
mod shares;

use crate::harness::Edge;
use crate::harness::Origin;
use crate::harness::ok;

/// An origin that answers with the target, the host and the fields that it was sent.
fn telling() -> Origin {
    Origin::script()
        .otherwise(|seen| {
            ok(format!("{} {}", seen.method(), seen.target()))
                .field("X-Host", seen.value("host").unwrap_or_default())
        })
        .start()
}

/// An edge with these routes, written as YAML list items, and `upstreams: {origin: …}`.
fn with_routes(origin: &Origin, routes: &str) -> Edge {
    with_more(origin, routes, "")
}

/// The same with further top-level sections.
fn with_more(origin: &Origin, routes: &str, more: &str) -> Edge {
    Edge::with(&format!(
        "listeners:\n  - {{name: http, address: \"127.0.0.1:0\", h2c: true}}\n\
         upstreams:\n  origin:\n    addresses: [\"{}\"]\n\
         routes:\n{routes}\n{more}\n",
        origin.address
    ))
}

/// A route that answers with its own name, to what this `match` takes.
fn answer(name: &str, matches: &str) -> String {
    format!("  - {{name: {name}, match: {matches}, respond: {{body: {name}}}}}\n")
}
