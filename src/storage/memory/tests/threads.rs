//! Many threads at once: nothing torn, nothing purged shown, nothing above the limit.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use http::HeaderMap;

use super::*;

const KEYS: usize = 24;

/// What an origin says of a key: how often it changed.
struct Origin {
    version: AtomicU64,
    /// Nothing older may show any more.
    purged: AtomicU64,
}

fn work(tier: &Memory, origins: &[Origin], seed: u64) {
    let none = HeaderMap::new();
    let mut random = seed;
    for _ in 0..2000 {
        random =
            random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let at_random = (random >> 33) as usize;
        let key = at_random % KEYS;
        let origin = &origins[key];
        let name = [key as u8];
        match at_random / KEYS % 8 {
            0..=1 => {
                let asked = tier.generation();
                let version = origin.version.load(Ordering::SeqCst).to_string();
                let headers = fields(&[("x-version", &version)]);
                let arrival = Arrival { asked, ..arrival(tier, &name, &none, &headers) };
                let Ok(mut fill) = tier.begin_fill(&arrival) else { continue };
                let body = vec![version.len() as u8 ^ name[0]; at_random % 20_000];
                let _ = body.chunks(3000).try_for_each(|part| fill.push(part));
                let _ = fill.finish();
            }
            2 if at_random.is_multiple_of(5) => {
                let version = origin.version.fetch_add(1, Ordering::SeqCst) + 1;
                tier.purge(&name);
                origin.purged.fetch_max(version, Ordering::SeqCst);
            }
            _ => {
                let floor = origin.purged.load(Ordering::SeqCst);
                let Some(entry) = tier.lookup(&name, Some(&none), at(1001)) else { continue };
                let headers = entry.headers();
                let text = headers["x-version"].to_str().expect("digits");
                let version: u64 = text.parse().expect("digits");
                assert!(version >= floor, "version {version} was purged by {floor}");
                let body = body_of(&entry);
                assert_eq!(body.len() as u64, entry.body_len());
                assert!(body.iter().all(|byte| *byte == text.len() as u8 ^ name[0]));
            }
        }
        let stats = tier.stats();
        assert!(stats.bytes <= stats.limit);
    }
}

#[test]
fn threads_that_fill_read_and_purge_never_see_what_was_purged_or_torn() {
    for policy in [Policy::Lru, Policy::S3Fifo] {
        let tier = Memory::new(Options { policy, ..Options::with_limit(MIB / 8) });
        let empty = tier.stats().bytes;
        let origin = || Origin { version: AtomicU64::new(0), purged: AtomicU64::new(0) };
        let origins: Vec<Origin> = (0..KEYS).map(|_| origin()).collect();
        std::thread::scope(|scope| {
            for seed in 0..4 {
                let (tier, origins) = (&tier, &origins);
                scope.spawn(move || work(tier, origins, seed));
            }
        });
        let stats = tier.stats();
        assert!(stats.evictions > 0 && stats.hits > 0 && stats.fills > 0, "{stats:?}");
        tier.purge_all();
        sweep_all(&tier, at(1000));
        assert_eq!(tier.stats().bytes, empty);
    }
}
