//! Zones: what one of them holds is no matter of the others.

use std::collections::HashMap;

use http::HeaderMap;

use super::*;
use crate::cache::KeyRules;
use crate::cache::Policy as CachePolicy;
use crate::cache::key::Key;
use crate::cache::key::Target;
use crate::cache::key::in_zone;
use crate::cache::purge::Many;
use crate::storage::memory::Unwanted;
use crate::storage::memory::ZoneSettings;
use crate::storage::memory::largest;

/// Two with names, of 8 and 16 MiB, and 40 for the rest.
fn zoned() -> Memory {
    let zone = |name: &str, mib| ZoneSettings { name: name.into(), limit: mib * MIB };
    Memory::with_zones(Options::with_limit(64 * MIB), &[zone("a", 8), zone("b", 16)])
}

fn key(zone: &str, n: usize) -> Vec<u8> {
    let space = if zone.is_empty() { "up".to_owned() } else { in_zone(zone, "up") };
    let path = format!("/{n}");
    let target = Target {
        space: &space,
        scheme: "https",
        host: "a.example",
        port: None,
        path: &path,
        query: None,
    };
    let rules: KeyRules = CachePolicy::default().key;
    Key::new(&target, &HeaderMap::new(), &rules).into_bytes()
}

fn is_there(tier: &Memory, zone: &str, n: usize) -> bool {
    tier.peek(&key(zone, n), Some(&HeaderMap::new()), |_| true).is_some()
}

#[test]
fn what_fills_a_zone_empties_no_other_and_stays_below_its_limit() {
    let tier = zoned();
    for (zone, count) in [("", 20), ("b", 20)] {
        for n in 0..count {
            put(&tier, &key(zone, n), &[1; 100_000]).expect("there is room");
        }
    }
    for n in 0..500 {
        put(&tier, &key("a", n), &[2; 100_000]).expect("others make room");
        for zone in tier.zones() {
            assert!(zone.bytes <= zone.limit, "{zone:?}");
        }
    }
    let [rest, a, b] = &tier.zones()[..] else { panic!("three") };
    assert_eq!((rest.objects, b.objects), (20, 20));
    assert_eq!((rest.evictions, b.evictions), (0, 0));
    assert_eq!((rest.limit, a.limit, b.limit), (40 * MIB, 8 * MIB, 16 * MIB));
    assert!(a.evictions > 400 && a.objects > 40 && a.bytes > 6 * MIB, "{a:?}");
    let stats = tier.stats();
    assert_eq!(stats.bytes, rest.bytes + a.bytes + b.bytes);
    assert_eq!((stats.objects, stats.evictions), (40 + a.objects, a.evictions));
    assert_eq!(stats.limit, 64 * MIB);
    for zone in ["", "b"] {
        assert!((0..20).all(|n| is_there(&tier, zone, n)), "{zone}");
    }
}

#[test]
fn one_url_in_two_zones_is_stored_twice() {
    let tier = zoned();
    put(&tier, &key("a", 1), b"a").expect("there is room");
    assert!(!is_there(&tier, "b", 1) && !is_there(&tier, "", 1));
    put(&tier, &key("b", 1), b"b").expect("there is room");
    assert_eq!(tier.purge(&key("a", 1)), 1);
    assert!(is_there(&tier, "b", 1) && !is_there(&tier, "a", 1));
}

#[test]
fn no_body_is_larger_than_its_zone_may_take() {
    let tier = zoned();
    let fits = |zone: &str, length: u64| {
        let (request, headers) = (HeaderMap::new(), HeaderMap::new());
        let key = key(zone, 1);
        let arrival = Arrival { length: Some(length), ..arrival(&tier, &key, &request, &headers) };
        tier.begin_fill(&arrival).map(drop)
    };
    for (zone, mib) in [("a", 8), ("b", 16), ("", 40)] {
        let most = largest(mib * MIB).min(tier.options().max_object);
        assert_eq!(fits(zone, most), Ok(()), "{zone}");
        assert_eq!(fits(zone, most + 1), Err(Abandoned::TooLarge), "{zone}");
    }
}

#[test]
fn a_zone_is_purged_and_no_other() {
    let tier = zoned();
    let all = ["", "a", "b"];
    for purged in all {
        for zone in all {
            put(&tier, &key(zone, 1), b"x").expect("there is room");
        }
        tier.purge_many(&Many::Zone(purged.to_owned()), Kind::Hard);
        for zone in all {
            assert_eq!(is_there(&tier, zone, 1), zone != purged, "{purged}: {zone}");
        }
    }
}

#[test]
fn what_gives_way_to_the_process_is_of_all_zones_as_they_are_filled() {
    let tier = zoned();
    for (zone, count) in [("a", 60), ("b", 120), ("", 360)] {
        for n in 0..count {
            put(&tier, &key(zone, n), &[1; 100_000]).expect("there is room");
        }
    }
    let before = tier.zones();
    (0..20).for_each(|_| tier.relieve(100 * MIB, 84 * MIB));
    for (before, after) in before.iter().zip(tier.zones()) {
        assert!(after.bytes < before.bytes, "{after:?}");
        assert!(after.bytes >= before.limit / 5, "{after:?}");
    }
    (0..200).for_each(|_| tier.relieve(10 * MIB, 84 * MIB));
    assert_eq!(tier.stats().ceiling, 64 * MIB);
}

#[test]
fn what_is_taken_over_comes_into_its_zone_or_nowhere() {
    let from = zoned();
    for zone in ["", "a", "b"] {
        put(&from, &key(zone, 1), b"x").expect("there is room");
    }
    let zone = ZoneSettings { name: "b".into(), limit: 9 * MIB };
    let to = Memory::with_zones(Options::with_limit(32 * MIB), &[zone]);
    let mut names = HashMap::new();
    for hot in from.hottest(u64::MAX) {
        for carried in from.carried(&hot) {
            let gone = carried.record.key == key("a", 1);
            let taken = to.take_in(&carried.record, &mut names);
            match taken {
                Ok(mut carrying) => {
                    carrying.push(b"x").expect("there is room");
                    carrying.finish(&to).expect("it is whole");
                    assert!(!gone);
                }
                Err(unwanted) => assert_eq!((unwanted, gone), (Unwanted::NoRoom, true)),
            }
        }
    }
    assert!(is_there(&to, "", 1) && is_there(&to, "b", 1));
    let counts: Vec<_> = to.zones().iter().map(|zone| zone.objects).collect();
    assert_eq!(counts, [1, 1]);
}
