//! Resources that are stored under many keys.

use http::HeaderMap;

use super::*;
use crate::cache::key::Parts;
use crate::cache::key::Resource;
use crate::storage::memory::Kind;

fn many(name: &[u8]) -> Resource {
    Resource { bytes: name.to_vec(), parts: Parts::Many }
}

/// Stores under `key`, whose first byte is its resource.
fn put_parted(tier: &Memory, key: &[u8]) -> Result<Arc<Entry>, Abandoned> {
    let none = HeaderMap::new();
    let belonging = Belonging { resource: 1, ..Belonging::default() };
    let mut fill = tier.begin_fill(&Arrival { belonging, ..arrival(tier, key, &none, &none) })?;
    fill.push(b"1")?;
    fill.finish()
}

#[test]
fn a_resource_with_many_keys_is_purged_under_all_of_them() {
    // Several shards.
    let tier = tier(64 * MIB);
    let empty = tier.stats().bytes;
    for n in 0..50 {
        put_parted(&tier, &[b'a', n]).expect("there is room");
        put_parted(&tier, &[b'b', n]).expect("there is room");
    }
    assert_eq!(tier.purge_resource(&many(b"a"), Kind::Soft(at(1001))), 50);
    let stale = look(&tier, &[b'a', 7], &HeaderMap::new()).expect("it is stale and not gone");
    assert_eq!(stale.stale_since(), Some(at(1001)));
    drop(stale);
    assert_eq!(tier.purge_resource(&many(b"a"), Kind::Hard), 50);
    assert_eq!(tier.purge_resource(&many(b"a"), Kind::Hard), 0);
    assert!((0..50).all(|n| !has(&tier, &[b'a', n]) && has(&tier, &[b'b', n])));
    assert_eq!(tier.purge_resource(&many(b"b"), Kind::Hard), 50);
    assert_eq!(tier.stats().bytes, empty);
}

#[test]
fn what_was_asked_before_its_resource_was_purged_never_shows_after_it() {
    let tier = tier(64 * MIB);
    let none = HeaderMap::new();
    let belonging = Belonging { resource: 1, ..Belonging::default() };
    let key = b"a1";
    let before = Arrival { belonging, ..arrival(&tier, key, &none, &none) };
    let begun = tier.begin_fill(&before).expect("there is room");
    tier.purge_resource(&many(b"a"), Kind::Hard);
    assert_eq!(begun.finish().err(), Some(Abandoned::Purged));
    let old = put_parted(&tier, key).expect("it was asked for after the purge");
    let asked = arrival(&tier, key, &none, &none);
    tier.purge_resource(&many(b"a"), Kind::Hard);
    assert_eq!(tier.refresh(&old, &asked).err(), Some(Abandoned::Purged));
    let old = put_parted(&tier, key).expect("it was asked for after the purge");
    let new = tier.refresh(&old, &arrival(&tier, key, &none, &none)).expect("it is there");
    drop((old, new));
    assert_eq!(tier.purge_resource(&many(b"a"), Kind::Hard), 1, "a validated one too");
}

#[test]
fn an_evicted_or_replaced_entry_leaves_the_list_of_its_resource() {
    let tier = tier(MIB / 8);
    let empty = tier.stats().bytes;
    for n in 0..2000_u32 {
        let key = [&b"a"[..], &n.to_be_bytes()].concat();
        put_parted(&tier, &key).expect("there is room");
        put_parted(&tier, &key).expect("there is room");
    }
    let stats = tier.stats();
    assert!(stats.evictions > 0, "{stats:?}");
    assert_eq!(tier.purge_resource(&many(b"a"), Kind::Hard) as u64, stats.objects);
    assert_eq!((tier.stats().objects, tier.stats().bytes), (0, empty));
}
