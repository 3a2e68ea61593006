//! Zones: parts of the tier with hard limits of their own. What is in one makes room for others of the
//! same zone alone, so that what fills one empties no other. The limits of all add up to that of the tier.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use crate::cache::key;
use crate::storage::memory::Cell;
use crate::storage::memory::Memory;
use crate::storage::memory::broad;
use crate::storage::memory::budget::Budget;
use crate::storage::memory::budget::Charge;
use crate::storage::memory::largest;
use crate::storage::memory::purge;

/// What an empty shard takes beside its stamps, in bytes.
const SHARD_COST: u64 = 1024;
/// One shard for so many bytes of the limit.
const BYTES_PER_SHARD: u64 = 8 << 20;
/// The most shards of a zone.
const MOST_SHARDS: u64 = 64;
/// Where in a hash its zone stands: between what chooses the shard and what the table in it uses.
const PLACE_IN_HASH: u32 = 24;

/// The most zones that have a name.
pub const MOST_ZONES: usize = 200;

/// A zone, as meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ZoneSettings {
    /// Its name; unique, and not empty.
    pub name: Arc<str>,
    /// Its hard limit in bytes.
    pub limit: u64,
}

/// What is in a zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ZoneStats {
    /// Its name; empty for what is left when all with names have their part.
    pub name: Arc<str>,
    /// The entries held; after a purge of many, those not swept yet included.
    pub objects: u64,
    /// All bytes taken, as in [`super::Stats`].
    pub bytes: u64,
    /// The hard limit in bytes.
    pub limit: u64,
    /// Entries that had to go to make room.
    pub evictions: u64,
}

/// A zone of a tier.
pub(super) struct Zone {
    name: Arc<str>,
    pub(super) budget: Arc<Budget>,
    /// What it takes while it is empty, in bytes.
    own_cost: u64,
    largest: u64,
    /// Which of the tier's shards are its own.
    shards: Range<usize>,
    /// Where the next eviction looks.
    turn: AtomicUsize,
    evictions: AtomicU64,
}

impl Zone {
    /// The zones of a tier of `limit` bytes: what is left for all that name none, and these. The largest
    /// body in any of them is `largest` at most, in bytes.
    pub(super) fn all(limit: u64, largest_body: u64, settings: &[ZoneSettings]) -> Box<[Self]> {
        let named: u64 = settings.iter().map(|zone| zone.limit).sum();
        let left = ZoneSettings { name: Arc::from(""), limit: limit.saturating_sub(named) };
        // The stamps of all are paid for by each according to its size.
        let stamps = purge::cost(limit) + broad::cost(limit);
        let mut first = 0;
        let zones = std::iter::once(&left).chain(settings).enumerate().map(|(index, zone)| {
            let count = (zone.limit / BYTES_PER_SHARD).clamp(1, MOST_SHARDS).next_power_of_two();
            let of_shard = SHARD_COST + purge::cost(zone.limit / count);
            let own_cost = count * of_shard + portion(stamps, zone.limit, limit);
            let shards = first..first + usize::try_from(count).unwrap_or(1);
            first = shards.end;
            Self {
                name: Arc::clone(&zone.name),
                budget: Budget::of_zone(index, zone.limit.saturating_sub(own_cost)),
                own_cost,
                largest: match settings {
                    [] => largest_body,
                    _ => largest_body.min(largest(zone.limit)),
                },
                shards,
                turn: AtomicUsize::new(0),
                evictions: AtomicU64::new(0),
            }
        });
        zones.collect()
    }

    /// Its shards among all.
    pub(super) fn cells<'a>(&self, all: &'a [Cell]) -> &'a [Cell] {
        all.get(self.shards.clone()).unwrap_or_default()
    }

    /// How many bytes each of its shards has of its limit.
    pub(super) fn shares(&self) -> impl Iterator<Item = u64> + use<> {
        let limit = self.budget.limit().saturating_add(self.own_cost);
        let share = limit / self.shards.len().max(1) as u64;
        self.shards.clone().map(move |_| share)
    }

    /// The next shard that an eviction looks at first.
    pub(super) fn next_turn(&self) -> usize {
        self.turn.fetch_add(1, Ordering::Relaxed)
    }

    /// Counts evictions.
    pub(super) fn count_evicted(&self, entries: usize) {
        self.evictions.fetch_add(entries as u64, Ordering::Relaxed);
    }

    fn stats(&self, all: &[Cell]) -> ZoneStats {
        ZoneStats {
            name: Arc::clone(&self.name),
            objects: self.cells(all).iter().map(|cell| cell.count.load(Ordering::Relaxed)).sum(),
            bytes: self.budget.used().saturating_add(self.own_cost),
            limit: self.budget.limit().saturating_add(self.own_cost),
            evictions: self.evictions.load(Ordering::Relaxed),
        }
    }
}

impl Memory {
    /// What is in each zone: first in the one without a name.
    pub fn zones(&self) -> Vec<ZoneStats> {
        self.0.zones.iter().map(|zone| zone.stats(&self.0.shards)).collect()
    }

    /// What all zones take that are not turned into entries, in bytes.
    pub(super) fn own_cost(&self) -> u64 {
        self.0.zones.iter().map(|zone| zone.own_cost).sum()
    }

    /// The largest body that is stored under this key, in bytes.
    pub(super) fn largest(&self, key: &[u8]) -> u64 {
        self.zone(key).largest
    }

    /// A charge of nothing yet, on the account of the zone of this key.
    pub(super) fn charge(&self, key: &[u8]) -> Charge {
        Charge::nothing(&self.zone(key).budget)
    }

    /// The zone that a key belongs into.
    pub(super) fn zone(&self, key: &[u8]) -> &Zone {
        &self.0.zones[self.zone_index(key).unwrap_or(0)]
    }

    /// Whether the zone that a key names is one of this tier.
    pub(super) fn has_zone_of(&self, key: &[u8]) -> bool {
        self.zone_index(key).is_some()
    }

    fn zone_index(&self, key: &[u8]) -> Option<usize> {
        let name = key::zone(key);
        self.0.zones.iter().position(|zone| zone.name.as_bytes() == name)
    }

    pub(super) fn hash(&self, key: &[u8]) -> u64 {
        let hash = self.raw_hash(key);
        if self.0.zones.len() == 1 {
            return hash;
        }
        let index = self.zone_index(key).unwrap_or(0) as u64;
        hash & !(0xff << PLACE_IN_HASH) | (index & 0xff) << PLACE_IN_HASH
    }

    /// The shard of a hash. The table inside it uses the lowest and the highest bits.
    pub(super) fn cell(&self, hash: u64) -> &Cell {
        let zones = &self.0.zones;
        let zone = match zones.len() {
            1 => &zones[0],
            count => &zones[(hash >> PLACE_IN_HASH) as usize % 256 % count],
        };
        let shards = &zone.shards;
        &self.0.shards[shards.start + (hash >> 32) as usize % shards.len()]
    }
}

/// The part of `bytes` that is to all of them what `part` is to `whole`; all of them where there is no whole.
pub(super) fn portion(bytes: u64, part: u64, whole: u64) -> u64 {
    if whole == 0 {
        return bytes;
    }
    let portion = u128::from(bytes) * u128::from(part) / u128::from(whole);
    u64::try_from(portion).unwrap_or(u64::MAX)
}
