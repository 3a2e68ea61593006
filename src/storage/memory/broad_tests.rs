use std::time::Duration;
use std::time::SystemTime;

use super::*;

const LIMIT: u64 = 1 << 20;

struct Purges {
    broad: Broad,
    next: u64,
}

impl Purges {
    fn new() -> Self {
        Self { broad: Broad::new(LIMIT), next: 0 }
    }

    fn purge(&mut self, many: &Many, kind: Kind) {
        self.next += 1;
        self.broad.purge(many, kind, || Generation(self.next));
    }

    fn sizes(&self) -> (usize, usize, usize) {
        let stamps = self.broad.stamps.read();
        (stamps.keys.len(), stamps.places.len(), stamps.prefixes.len())
    }
}

fn key(n: usize) -> Many {
    Many::SurrogateKey(format!("key-{n}"))
}

fn prefix(n: usize) -> Many {
    let how = crate::message::target::Normalisation::default();
    Many::Prefix(Prefix::parse(&format!("a.org/{n}"), &how).expect("a prefix"))
}

#[test]
fn stamps_without_number_take_no_more_memory() {
    let mut purges = Purges::new();
    let bounds = Bounds::within(LIMIT);
    for n in 0..10_000 {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(n as u64);
        let kind = if n % 2 == 0 { Kind::Hard } else { Kind::Soft(now) };
        purges.purge(&key(n), kind);
        purges.purge(&Many::Host(format!("h{n}.org")), kind);
        purges.purge(&Many::Route(format!("r{n}")), kind);
        purges.purge(&prefix(n), kind);
        let (keys, places, prefixes) = purges.sizes();
        assert!(keys <= bounds.keys && places <= bounds.places && prefixes <= bounds.prefixes);
    }
}

#[test]
fn one_name_purged_again_and_again_takes_one_stamp() {
    let mut purges = Purges::new();
    for n in 0..1000 {
        purges.purge(&key(0), Kind::Hard);
        purges.purge(&prefix(0), Kind::Soft(SystemTime::UNIX_EPOCH + Duration::from_secs(n)));
        purges.purge(&Many::Upstream("u".to_owned()), Kind::Hard);
    }
    assert_eq!(purges.sizes(), (1, 1, 1));
}

#[test]
fn a_full_table_keeps_the_newer_half() {
    let mut purges = Purges::new();
    let most = Bounds::within(LIMIT).keys;
    (0..=most).for_each(|n| purges.purge(&key(n), Kind::Hard));
    let stamps = purges.broad.stamps.read();
    assert_eq!(stamps.keys.len(), most / 2 + 1);
    assert_eq!(stamps.keyed.newest(), Generation(most as u64 / 2));
    assert_eq!(stamps.everything.newest(), Generation(0), "what has no key is not concerned");
}

#[test]
fn stamps_are_forgotten_when_all_was_compared_and_only_where_there_are_many() {
    let mut purges = Purges::new();
    let most = Bounds::within(LIMIT).keys;
    (0..most / 2).for_each(|n| purges.purge(&key(n), Kind::Hard));
    purges.broad.forget(Generation(u64::MAX));
    assert_eq!(purges.sizes().0, most / 2);
    purges.purge(&key(most), Kind::Hard);
    purges.broad.forget(Generation(purges.next - 1));
    assert_eq!(purges.sizes().0, 1);
    assert_eq!(purges.broad.stamps.read().forgotten, Generation(most as u64 / 2));
}

#[test]
fn the_cost_covers_full_tables() {
    let bounds = Bounds::within(u64::MAX);
    let table = |most: usize| {
        let map: HashMap<u64, Stamp> = HashMap::with_capacity(most);
        // Rounded up to a power of two of places of which seven eighths are used.
        let places = (map.capacity() * 8 / 7).next_power_of_two();
        (places * (size_of::<(u64, Stamp)>() + 1)) as u64
            + most as u64 * (STAMP_COST - size_of::<Stamp>() as u64)
    };
    let prefixes = bounds.prefixes * (size_of::<(Prefix, Stamp)>() + 1024 + 255);
    assert!(cost(u64::MAX) >= table(bounds.keys) + table(bounds.places) + prefixes as u64);
    assert!(cost(256 << 20) < (256 << 20) / 200, "half a percent");
    assert!(cost(0) < 3 << 10);
}
