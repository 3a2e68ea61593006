//! What a request does at its upstream: it is lent a backend, says how it went, and gives the backend back. All of it
//! is the program's own: weights, health, breaker, ejection and budget are looked at as they are for a request.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use edgeproxy::config;
use edgeproxy::message::reply::ReplyLimits;
use edgeproxy::upstream::lease::Lease;
use edgeproxy::upstream::peer::Upstream;
use edgeproxy::upstream::peer::Wish;

use crate::Random;
use crate::nanoseconds;

/// The algorithms, as a configuration has them.
const ALGORITHMS: [(&str, &str); 6] = [
    ("round robin", "balance: round_robin"),
    ("random", "balance: random"),
    ("least connections", "balance: least_connections"),
    ("peak EWMA", "balance: peak_ewma"),
    ("hash", "balance: hash, hash_by: uri"),
    ("hash, bound of 125", "balance: hash, hash_by: uri, hash_bound: 125"),
];

/// Prints what it costs.
pub(crate) fn run() {
    let clock = nanoseconds(|_| Instant::now());
    println!(
        "The clock is read once to lend, and once more when it is said how it went: {clock:.0} ns each.\n"
    );
    println!("| algorithm | backends | lent and given back, ns | and said how it went |");
    println!("|---|---:|---:|---:|");
    for count in [10, 1000] {
        for (name, keys) in ALGORITHMS {
            row(name, count, &upstream(count, keys));
        }
    }
    for (name, keys) in ALGORITHMS {
        let upstream = upstream(1000, keys);
        // Which ones has no order.
        let mut random = Random(3);
        for number in 0..1000 {
            let is_drained = random.below(10) > 0;
            upstream.drain(&id(number), is_drained).expect("it is there");
        }
        row(&format!("{name}, nine of ten drained"), 1000, &upstream);
    }
    // In the last one, all of them have just come up.
    for keys in ["concurrency: {}", "ejection: {}", "panic_threshold: 50", "slow_start: 1h"] {
        row(&format!("round robin, `{keys}`"), 1000, &upstream(1000, keys));
    }
}

fn row(name: &str, count: usize, upstream: &Arc<Upstream>) {
    let busy = busy(upstream, count);
    let lent = nanoseconds(|n| {
        drop(lend(upstream, n));
    });
    let said = nanoseconds(|n| {
        let mut lease = lend(upstream, n);
        lease.answered(200, Duration::from_micros(1000 + n % 4096));
    });
    println!("| {name} | {count} | {lent:.0} | {said:.0} |");
    drop(busy);
}

fn lend(upstream: &Arc<Upstream>, n: u64) -> Lease {
    // Requests of nothing in common.
    let hash = n.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let wish = Wish { hash: Some(hash ^ (hash >> 32)), ..Wish::default() };
    upstream.lend(&wish).expect("one is usable")
}

/// Requests that are under way, some at each backend; all of them have answered others before.
fn busy(upstream: &Arc<Upstream>, count: usize) -> Vec<Lease> {
    let mut random = Random(2);
    for n in 0..20 * count as u64 {
        lend(upstream, n)
            .answered(200, Duration::from_micros(1000 + u64::from(random.below(4000))));
    }
    // As many as `concurrency` lets in at first have to have room.
    (0..count.min(10) as u64).map(|n| lend(upstream, n)).collect()
}

fn id(number: usize) -> String {
    format!("backend-{number}")
}

/// An upstream of so many backends, of weights from 1 to 4.
fn upstream(count: usize, keys: &str) -> Arc<Upstream> {
    let mut backends = String::new();
    for number in 0..count {
        let (id, weight) = (id(number), 1 + number % 4);
        let address = format!("10.1.{}.{}:8080", number / 250, number % 250 + 1);
        let _ = write!(backends, "{{id: {id}, address: \"{address}\", weight: {weight}}}, ");
    }
    let yaml = format!(
        "listeners: [{{address: \"127.0.0.1:0\"}}]\nupstreams:\n  app: {{addresses: [{backends}], {keys}}}\n\
         routes: [{{upstream: app}}]\n"
    );
    let loaded = config::from_text(&yaml, "bench").expect("it is one");
    let settings = loaded.plan.upstreams.into_iter().next().expect("one upstream");
    Upstream::build(settings, ReplyLimits::default()).expect("it can be built")
}
