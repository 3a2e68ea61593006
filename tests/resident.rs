//! What a full store makes of the process's memory: with the program's allocator, in a process of its
//! own.
//!
//! The tier's account is one thing, and what the system sees another: allocators round up, and what
//! one size leaves behind does not fit the next. `benches/memory/fill.py` asks the same of the whole
//! program, with the usual limit.

use std::time::Duration;
use std::time::SystemTime;

use edgeproxy::cache::Policy;
use edgeproxy::cache::key::Key;
use edgeproxy::cache::key::Target;
use edgeproxy::observe::metrics::process;
use edgeproxy::storage::memory::Arrival;
use edgeproxy::storage::memory::Belonging;
use edgeproxy::storage::memory::Held;
use edgeproxy::storage::memory::Memory;
use edgeproxy::storage::memory::Options;
use edgeproxy::storage::memory::Times;
use http::HeaderMap;
use http::HeaderValue;
use http::StatusCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const MIB: u64 = 1 << 20;
const LIMIT: u64 = 32 * MIB;
/// A quarter beyond the limit, and what an allocator holds for each of its kinds of pages.
const ALLOWED: u64 = LIMIT / 4 * 5 + 8 * MIB;

/// The other test holds a few MiB at most, whenever it runs.
#[test]
fn the_process_stays_close_to_the_limit_whatever_the_store_is_full_of() {
    let tier = Memory::new(Options::with_limit(LIMIT));
    let before = resident();
    let allowed = before + LIMIT / 10 * 11 + 4 * MIB;
    tier.watch(move || Some(Held { resident: resident(), allowed }));
    let mut number = 0;
    let small_and_large = [
        ("4 MiB", &[4_usize << 20][..]),
        ("60 KB", &[60_000]),
        ("mixed", &[1, 1 << 10, 300, 8 << 10, 1, 60_000, 2 << 10, 300_000]),
        ("1 KiB", &[1 << 10]),
        ("tiny", &[1]),
    ];
    // Down and up again: what small objects leave behind is of no use to large ones.
    for (name, sizes) in small_and_large.into_iter().chain(small_and_large.into_iter().rev()) {
        let mean = sizes.iter().sum::<usize>() as u64 / sizes.len() as u64 + 600;
        // Three times over, what comes first goes; and on until it is full, since while the process holds
        // too much nothing is taken.
        let (mut n, mut highest) = (0, 0);
        while n < 3 * LIMIT / mean
            || (tier.stats().bytes < LIMIT / 4 * 3 && n < 3000 * LIMIT / mean)
        {
            number += 1;
            set(&tier, number, sizes[n as usize % sizes.len()]);
            n += 1;
            if n % (1 + LIMIT / 64 / mean) == 0 {
                // What others on the machine need may have taken pages away since.
                highest = highest.max(resident().saturating_sub(before));
            }
        }
        let stats = tier.stats();
        assert!(stats.bytes > LIMIT / 4 * 3, "{name}: the store is not full: {stats:?}");
        assert!(highest < ALLOWED, "{name}: {} MiB more than before: {stats:?}", highest / MIB);
    }
}

/// By the account, which the other test holds to what is resident; what frames the parts of a key is
/// bookkeeping too.
#[test]
fn an_object_costs_at_most_half_a_kibibyte_beside_its_key_head_and_body() {
    let tier = Memory::new(Options::with_limit(LIMIT));
    const OBJECTS: u64 = 1000;
    for size in [1, 1 << 10] {
        let before = tier.stats().bytes;
        assert!((0..OBJECTS).all(|n| set(&tier, size as u64 * OBJECTS + n, size)));
        let each = (tier.stats().bytes - before) / OBJECTS;
        let own = url_len(size as u64 * OBJECTS) + size;
        let headers = headers();
        let lines = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4);
        let bookkeeping = each - own as u64 - lines.sum::<usize>() as u64;
        assert!(bookkeeping <= 512, "{size}: {bookkeeping} of {each}");
    }
}

fn resident() -> u64 {
    process::resident().expect("the system tells")
}

fn path(number: u64) -> String {
    format!("/articles/2027/{number}")
}

/// The key, with all that frames its parts.
fn key(number: u64) -> Vec<u8> {
    let target = Target {
        space: "app",
        scheme: "https",
        host: "www.example.com",
        port: None,
        path: &path(number),
        query: None,
    };
    Key::new(&target, &HeaderMap::new(), &Policy::default().key).into_bytes()
}

/// What a key says of a URL, in bytes.
fn url_len(number: u64) -> usize {
    "https://www.example.com".len() + path(number).len()
}

fn headers() -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("server", "nginx/1.22.1"),
        ("date", "Fri, 15 Jan 2027 08:00:00 GMT"),
        ("content-type", "text/html; charset=utf-8"),
        ("last-modified", "Thu, 14 Jan 2027 08:00:00 GMT"),
        ("etag", "\"65a4f3c0-400\""),
        ("cache-control", "public, max-age=3600"),
    ] {
        headers.append(name, HeaderValue::from_static(value));
    }
    headers
}

/// Whether it was taken.
fn set(tier: &Memory, number: u64, size: usize) -> bool {
    let key = key(number);
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let times = Times {
        created: now,
        responded: now,
        lifetime: Duration::from_secs(3600),
        age: Duration::ZERO,
        while_revalidate: Duration::ZERO,
        if_error: Duration::ZERO,
    };
    let headers = headers();
    let request = HeaderMap::new();
    let arrival = Arrival {
        key: &key,
        belonging: Belonging::default(),
        request: Some(&request),
        status: StatusCode::OK,
        headers: &headers,
        times,
        length: Some(size as u64),
        largest: u64::MAX,
        asked: tier.generation(),
    };
    let fill = tier.begin_fill(&arrival).and_then(|mut fill| {
        // As it comes from a connection.
        vec![b'x'; size].chunks(16 << 10).try_for_each(|part| fill.push(part))?;
        fill.finish()
    });
    // Refused at times, as long as the process holds too much.
    fill.is_ok()
}
