//! Which eviction policy keeps what is asked for again: the same requests replayed with each.
//!
//! Every miss is stored, as in a cache without rules for admission. The traces are made up, of what
//! caches meet: popularity that falls like one over the rank, passes over everything, objects of very
//! different sizes, and what is popular changing.

use edgeproxy::storage::memory::Memory;
use edgeproxy::storage::memory::Options;
use edgeproxy::storage::memory::Policy;
use http::HeaderMap;

use crate::Random;
use crate::tier;

const REQUESTS: u32 = 400_000;
const OBJECTS: u32 = 200_000;
const KIB: usize = 1024;
/// Limits of the tier; in the smallest a hundredth of what is asked for finds room.
const LIMITS: [u64; 3] = [2 << 20, 16 << 20, 64 << 20];
const POLICIES: [(&str, Policy); 2] = [("LRU", Policy::Lru), ("S3-FIFO", Policy::S3Fifo)];

/// One request of a trace: for which object, and how large that is.
type Asked = (u32, usize);
type Trace = Box<dyn Iterator<Item = Asked>>;

/// A trace by its name.
type Named = (&'static str, fn() -> Trace);

const TRACES: [Named; 5] = [
    ("skewed", skewed),
    ("skewed, every fourth request of a scan", scanned),
    ("skewed, with whole passes over 20,000 others", passes),
    ("sizes of 1 to 100 KiB", mixed),
    ("what is popular changes", drifting),
];

/// Prints the share of requests that hit, of each trace, with each policy.
pub(crate) fn run() {
    println!("| trace | limit | LRU | S3-FIFO | default |");
    println!("|---|---:|---:|---:|---|");
    for (name, trace) in TRACES {
        for limit in LIMITS {
            let shares = POLICIES.map(|(_, policy)| share_of_hits(policy, limit, trace()));
            let best = if shares[1] >= shares[0] { 1 } else { 0 };
            let verdict = match POLICIES[best].1 == Policy::default() {
                true => "better",
                false => "worse",
            };
            println!(
                "| {name} | {} MiB | {:.1} % | {:.1} % | {verdict} |",
                limit >> 20,
                100.0 * shares[0],
                100.0 * shares[1]
            );
        }
    }
}

fn share_of_hits(policy: Policy, limit: u64, trace: Trace) -> f64 {
    let memory = Memory::new(Options { policy, ..Options::with_limit(limit) });
    let (headers, request, body) = (tier::headers(), HeaderMap::new(), vec![b'x'; 100 * KIB]);
    let (mut all, mut hits) = (0_u32, 0_u32);
    for (object, size) in trace {
        let key = tier::key(object);
        all += 1;
        match memory.lookup(&key, Some(&request), tier::now()) {
            Some(_) => hits += 1,
            None => tier::set(&memory, &key, &request, &headers, &body[..size]),
        }
    }
    f64::from(hits) / f64::from(all)
}

fn skewed() -> Trace {
    let mut random = Random(1);
    Box::new((0..REQUESTS).map(move |_| (random.skewed(OBJECTS), KIB)))
}

fn scanned() -> Trace {
    let mut random = Random(2);
    Box::new((0..REQUESTS).map(move |n| match n % 4 {
        0 => (10_000_000 + n, KIB),
        _ => (random.skewed(OBJECTS), KIB),
    }))
}

fn passes() -> Trace {
    let mut random = Random(3);
    Box::new((0..REQUESTS).map(move |n| match n % 100_000 {
        place @ 0..20_000 => (10_000_000 + place, KIB),
        _ => (random.skewed(OBJECTS), KIB),
    }))
}

fn mixed() -> Trace {
    let mut random = Random(4);
    Box::new((0..REQUESTS).map(move |_| {
        let object = random.skewed(OBJECTS);
        // Of an object's number, so that it has one size.
        let size = match object.wrapping_mul(2_654_435_761) >> 24 {
            0..13 => 100 * KIB,
            13..64 => 10 * KIB,
            _ => KIB,
        };
        (object, size)
    }))
}

fn drifting() -> Trace {
    let mut random = Random(5);
    Box::new((0..REQUESTS).map(move |n| (random.skewed(OBJECTS) + n / 20, KIB)))
}
