//! The default policy has to earn it: hit ratios of made-up traces.

use http::HeaderMap;

use super::*;

struct Random(u64);

impl Random {
    fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// About Zipf: the popularity of rank r falls like 1/r.
    fn skewed(&mut self, objects: u32) -> u32 {
        (f64::from(objects).powf(self.unit()) as u32).min(objects - 1)
    }
}

/// The share of requests that hit, when every miss is stored; in thousandths.
fn hits(policy: Policy, trace: impl Iterator<Item = (u32, usize)>) -> u32 {
    let tier = Memory::new(Options { policy, ..Options::with_limit(2 * MIB) });
    let none = HeaderMap::new();
    let (mut all, mut hit) = (0_u32, 0_u32);
    for (object, size) in trace {
        let key = object.to_be_bytes();
        all += 1;
        match look(&tier, &key, &none) {
            Some(_) => hit += 1,
            None => drop(put(&tier, &key, &vec![0; size]).expect("room is made")),
        }
    }
    hit * 1000 / all
}

fn skewed() -> impl Iterator<Item = (u32, usize)> {
    let mut random = Random(1);
    (0..40_000).map(move |_| (random.skewed(20_000), 1000))
}

/// Every fourth request walks through objects that are never asked for again.
fn scanned() -> impl Iterator<Item = (u32, usize)> {
    let mut random = Random(2);
    (0..40_000).map(move |n| match n % 4 {
        0 => (1_000_000 + n, 1000),
        _ => (random.skewed(20_000), 1000),
    })
}

/// One object in twenty is a hundred times as large.
fn mixed() -> impl Iterator<Item = (u32, usize)> {
    let mut random = Random(3);
    (0..40_000).map(move |_| {
        let object = random.skewed(5000);
        (object, if object % 20 == 7 { 100_000 } else { 1000 })
    })
}

#[test]
fn the_default_policy_beats_lru_on_skewed_scanned_and_mixed_traces() {
    let both = |trace: fn() -> Box<dyn Iterator<Item = (u32, usize)>>| {
        (hits(Policy::S3Fifo, trace()), hits(Policy::Lru, trace()))
    };
    let skewed = both(|| Box::new(skewed()));
    let scanned = both(|| Box::new(scanned()));
    let mixed = both(|| Box::new(mixed()));
    println!("skewed {skewed:?} scanned {scanned:?} mixed {mixed:?}");
    assert_eq!(Policy::default(), Policy::S3Fifo);
    for (name, (ours, lru)) in [("skewed", skewed), ("scanned", scanned), ("mixed", mixed)] {
        assert!(ours > lru, "{name}: {ours} against {lru}");
    }
}

#[test]
fn a_scan_of_everything_leaves_what_is_used_in_place() {
    let tier = tier(2 * MIB);
    let none = HeaderMap::new();
    for round in 0..3 {
        for n in 0..100_u32 {
            if round == 0 {
                put(&tier, &n.to_be_bytes(), &[0; 1000]).expect("there is room");
            }
            look(&tier, &n.to_be_bytes(), &none);
        }
    }
    for n in 1000..9000_u32 {
        put(&tier, &n.to_be_bytes(), &[0; 1000]).expect("room is made");
    }
    let left = (0..100_u32).filter(|n| has(&tier, &n.to_be_bytes())).count();
    assert_eq!(left, 100);
}

#[test]
fn lru_evicts_exactly_the_least_recently_used() {
    let tier = Memory::new(Options { policy: Policy::Lru, ..Options::with_limit(MIB) });
    let none = HeaderMap::new();
    let mut stored = 0_u32;
    while tier.stats().evictions == 0 {
        // The first ten are used again and again, so others go before them.
        (0..stored.min(10)).for_each(|n| drop(look(&tier, &n.to_be_bytes(), &none)));
        put(&tier, &stored.to_be_bytes(), &[0; 1000]).expect("room is made");
        stored += 1;
    }
    let gone = tier.stats().evictions as u32;
    let expected: Vec<u32> = (10..10 + gone).collect();
    let missing: Vec<u32> =
        (0..stored).filter(|n| tier.variants(&n.to_be_bytes()).is_empty()).collect();
    assert_eq!(missing, expected);
}
