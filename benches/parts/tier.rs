//! The memory tier: set, get, and both at once from several threads.

use std::sync::Arc;
use std::sync::Barrier;
use std::time::Duration;
use std::time::Instant;
use std::time::SystemTime;

use edgeproxy::storage::memory::Arrival;
use edgeproxy::storage::memory::Belonging;
use edgeproxy::storage::memory::Memory;
use edgeproxy::storage::memory::Options;
use edgeproxy::storage::memory::Policy;
use edgeproxy::storage::memory::Times;
use http::HeaderMap;
use http::HeaderValue;
use http::StatusCode;

use crate::Random;
use crate::nanoseconds;

const LIMIT: u64 = 64 << 20;
const OBJECTS: u32 = 20_000;
/// How long the threads of a mixed load run.
const MIXED: Duration = Duration::from_secs(1);

/// Prints what each operation costs.
pub(crate) fn run() {
    println!("| operation | body | ns |");
    println!("|---|---:|---:|");
    let headers = headers();
    let request = HeaderMap::new();
    let now = now();
    for size in [0_usize, 1024, 100 << 10] {
        let tier = full(Policy::default(), size);
        let body = vec![b'x'; size];
        let mut random = Random(1);
        print(
            "get, there",
            size,
            nanoseconds(|_| {
                let key = key(random.below(100));
                tier.lookup(&key, Some(&request), now)
            }),
        );
        print(
            "get, not there",
            size,
            nanoseconds(|n| tier.lookup(&key(u32::MAX - n as u32 % 1000), Some(&request), now)),
        );
        print(
            "get and read all",
            size,
            nanoseconds(|_| {
                let found = tier.lookup(&key(random.below(100)), Some(&request), now);
                found.map(|entry| entry.reader().map(|part| part.len()).sum::<usize>())
            }),
        );
        let mut next = 1_000_000;
        print(
            "set, another goes",
            size,
            nanoseconds(|_| {
                next += 1;
                set(&tier, &key(next), &request, &headers, &body);
            }),
        );
    }
    println!("\n| nine gets for each set, 1 KiB | operations/s |");
    println!("|---|---:|");
    for threads in [1, 2, 4] {
        println!("| {threads} threads | {:.0} |", mixed(threads));
    }
}

fn print(name: &str, size: usize, nanoseconds: f64) {
    println!("| {name} | {size} | {nanoseconds:.0} |");
}

/// Operations in a second that so many threads get done together.
fn mixed(threads: u32) -> f64 {
    let tier = full(Policy::default(), 1024);
    let start = Arc::new(Barrier::new(threads as usize));
    let workers: Vec<_> = (0..threads)
        .map(|number| {
            let (tier, start) = (tier.clone(), Arc::clone(&start));
            std::thread::spawn(move || {
                let (headers, request, body) = (headers(), HeaderMap::new(), vec![b'x'; 1024]);
                let mut random = Random(u64::from(number));
                start.wait();
                let began = Instant::now();
                let mut done = 0_u64;
                while began.elapsed() < MIXED {
                    for _ in 0..64 {
                        let key = key(random.skewed(4 * OBJECTS));
                        match random.below(10) {
                            0 => set(&tier, &key, &request, &headers, &body),
                            _ => drop(tier.lookup(&key, Some(&request), now())),
                        }
                        done += 1;
                    }
                }
                done as f64 / began.elapsed().as_secs_f64()
            })
        })
        .collect();
    workers.into_iter().map(|worker| worker.join().expect("a worker does not panic")).sum()
}

/// A tier with a number of objects, or as many as fit.
fn full(policy: Policy, size: usize) -> Memory {
    let tier = Memory::new(Options { policy, ..Options::with_limit(LIMIT) });
    let (headers, request, body) = (headers(), HeaderMap::new(), vec![b'x'; size]);
    for n in (0..OBJECTS).rev() {
        set(&tier, &key(n), &request, &headers, &body);
        // What is asked for again stays.
        if n < 100 {
            (0..3).for_each(|_| drop(tier.lookup(&key(n), Some(&request), now())));
        }
    }
    tier
}

pub(crate) fn key(number: u32) -> [u8; 45] {
    let mut key = *b"\0\0\0\0/articles/2027/01/a-title-of-usual-length";
    key[..4].copy_from_slice(&number.to_be_bytes());
    key
}

pub(crate) fn set(
    tier: &Memory,
    key: &[u8],
    request: &HeaderMap,
    headers: &HeaderMap,
    body: &[u8],
) {
    let times = Times {
        created: now(),
        responded: now(),
        lifetime: Duration::from_secs(3600),
        age: Duration::ZERO,
        while_revalidate: Duration::ZERO,
        if_error: Duration::ZERO,
    };
    let arrival = Arrival {
        key,
        belonging: Belonging::default(),
        request: Some(request),
        status: StatusCode::OK,
        headers,
        times,
        length: Some(body.len() as u64),
        largest: u64::MAX,
        asked: tier.generation(),
    };
    let fill = tier.begin_fill(&arrival).and_then(|mut fill| {
        fill.push(body)?;
        fill.finish()
    });
    fill.expect("room is made");
}

pub(crate) fn headers() -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("server", "nginx/1.22.1"),
        ("date", "Fri, 15 Jan 2027 08:00:00 GMT"),
        ("content-type", "text/html; charset=utf-8"),
        ("last-modified", "Thu, 14 Jan 2027 08:00:00 GMT"),
        ("etag", "\"65a4f3c0-400\""),
        ("accept-ranges", "bytes"),
        ("cache-control", "public, max-age=3600"),
    ] {
        headers.append(name, HeaderValue::from_static(value));
    }
    headers
}

/// Some time; what this measures does not read a clock.
pub(crate) fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}
