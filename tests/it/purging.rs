//! Purging: what goes, what stays, who may ask for it, and who is told.

mod admin;
mod groups;
mod method;
mod race;
mod scopes;
mod verbs;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use crate::harness::Edge;
use crate::harness::Origin;
use crate::harness::Reply;
use crate::harness::Respond;
use crate::harness::ok;
use crate::harness::origin::Seen;
use crate::harness::status;

/// An origin whose answers may be stored for a minute and are tagged with the query of their URL.
fn tagging() -> Origin {
    Origin::script()
        .otherwise(|seen: &Seen| {
            let tags = seen.target().split_once('?').map_or("", |(_, tags)| tags).replace('+', " ");
            ok("page").field("Cache-Control", "max-age=60").field("Surrogate-Key", &tags)
        })
        .start()
}

/// Everything to one origin, by two routes of one upstream and one of another.
fn three_routes(origin: &Origin) -> Edge {
    Edge::with(&format!(
        "listeners:\n  - {{name: http, address: \"127.0.0.1:0\"}}\n\
         upstreams:\n  one:\n    addresses: [\"{0}\"]\n  two:\n    addresses: [\"{0}\"]\n\
         routes:\n  - {{name: blog, match: {{path_prefix: /blog}}, upstream: one}}\n  \
         - {{name: shop, match: {{path_prefix: /shop}}, upstream: two}}\n  \
         - {{name: rest, upstream: one}}\n",
        origin.address
    ))
}

/// Stores all of these.
fn store(edge: &Edge, targets: &[&str]) {
    for target in targets {
        edge.get(target).expect_miss();
        edge.get(target).expect_hit();
    }
}

/// Which of these are still stored; asks for each.
fn left<'t>(edge: &Edge, targets: &[&'t str]) -> Vec<&'t str> {
    let is_hit = |target: &&&str| edge.get(target).value("x-cache") == Some("HIT");
    targets.iter().filter(is_hit).copied().collect()
}

/// Purges by the admin listener what a JSON object names.
fn purge(edge: &Edge, body: &str) -> Reply {
    edge.admin_post("/v1/purge", body)
}

/// An origin that fails while it is told to, and what tells it.
fn sometimes_failing(page: Respond) -> (Origin, Arc<AtomicBool>) {
    let fails = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&fails);
    let origin = Origin::script()
        .otherwise(move |seen: &Seen| match told.load(Ordering::SeqCst) {
            true => status(503),
            false if seen.value("if-none-match").is_some() => {
                status(304).field("ETag", "\"1\"").field("Cache-Control", "max-age=60")
            }
            false => page.clone().field("ETag", "\"1\""),
        })
        .start();
    (origin, fails)
}
