//! What is stored, for whom, for how long, and what of it a client sees (RFC 9111).

mod bounds;
mod collapse;
mod conditions;
mod freshness;
mod invalidation;
mod keys;
mod multiplexed;
mod origins2;
mod parts;
mod posts;
mod rules;
mod safety;
mod search;
mod short_way;
mod slices;
mod stale;
mod status;
mod storing;
mod validation;
mod variants;

use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;
use std::time::SystemTime;

use crate::harness::Edge;
use crate::harness::Origin;
use crate::harness::PATIENCE;
use crate::harness::Reply;
use crate::harness::Respond;
use crate::harness::ok;
use crate::harness::origin::Seen;

/// A 200 that may be stored for a minute.
fn minute(body: &str) -> Respond {
    ok(body).field("Cache-Control", "max-age=60")
}

/// The answers in their order; the last one again and again.
fn in_turn(answers: Vec<Respond>) -> impl Fn(&Seen) -> Respond + Send + Sync + 'static {
    let next = AtomicUsize::new(0);
    move |_| {
        let at = next.fetch_add(1, Ordering::SeqCst).min(answers.len() - 1);
        answers[at].clone()
    }
}

/// An answer whose body says how many came before it.
fn numbered(respond: Respond) -> impl Fn(&Seen) -> Respond + Send + Sync + 'static {
    let next = AtomicUsize::new(0);
    move |_| {
        let number = next.fetch_add(1, Ordering::SeqCst);
        respond.clone().body(format!("answer {number}"))
    }
}

/// Everything passed to one origin by a route with these cache rules.
fn with_rules(origin: &Origin, cache: &str) -> Edge {
    Edge::with(&format!(
        "listeners:\n  - {{name: http, address: \"127.0.0.1:0\", h2c: true}}\n\
         upstreams:\n  origin:\n    addresses: [\"{}\"]\n\
         routes:\n  - {{name: all, upstream: origin, cache: {cache}}}\n",
        origin.address
    ))
}

/// Asks until the answer is not a hit.
#[track_caller]
fn until_expired(edge: &Edge, target: &str) -> Reply {
    let start = Instant::now();
    loop {
        let reply = edge.get(target);
        if reply.value("x-cache") != Some("HIT") {
            return reply;
        }
        assert!(start.elapsed() < PATIENCE, "it never expires: {reply:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A date this many seconds from now.
fn date(seconds: i64) -> String {
    let now = SystemTime::now();
    let by = Duration::from_secs(seconds.unsigned_abs());
    httpdate::fmt_http_date(if seconds < 0 { now - by } else { now + by })
}

/// The number in a reply's field.
#[track_caller]
fn number(reply: &Reply, name: &str) -> u64 {
    let value = reply.value(name).unwrap_or_else(|| panic!("no {name} in {reply:?}"));
    value.parse().unwrap_or_else(|_| panic!("{name} is no number in {reply:?}"))
}
