//! Purging: one resource by its entries, many by a stamp; and counting what that concerns.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use bytes::Bytes;

use crate::cache::key::Parts;
use crate::cache::key::Resource;
use crate::cache::purge::Many;
use crate::storage::memory::Abandoned;
use crate::storage::memory::Arrival;
use crate::storage::memory::Cell;
use crate::storage::memory::Memory;
use crate::storage::memory::body::Body;
use crate::storage::memory::broad::Met;
use crate::storage::memory::entry::Entry;
use crate::storage::memory::fill::Draft;
use crate::storage::memory::purge::Generation;
use crate::storage::memory::purge::Kind;
use crate::storage::memory::purge::Standing;
use crate::storage::memory::select::Selection;
use crate::storage::memory::shard::Shard;

/// How far a count of entries came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counted {
    shard: usize,
    node: u32,
    looked: u64,
    /// The entries that are concerned, as far as it came.
    pub found: u64,
    /// Whether it came to the end.
    pub ended: bool,
}

/// The places that a count looks at under one lock.
const COUNT_BATCH: usize = 256;

impl Memory {
    /// Removes all variants of `key` and says how many there were. What was asked of the origin
    /// before this call will not be stored.
    pub fn purge(&self, key: &[u8]) -> usize {
        self.purge_hash(self.hash(key))
    }

    /// Makes all variants of `key` stale from `now` on and says how many there are. What was asked
    /// of the origin before this call will be stored as stale.
    pub fn expire(&self, key: &[u8], now: SystemTime) -> usize {
        self.expire_hash(self.hash(key), now)
    }

    /// Purges all that is stored of a resource, under every key that begins with it where it has
    /// many, and says how many entries that concerned. What was asked of the origin before this call
    /// will not be stored, or stored as stale.
    ///
    /// One look-up where the resource is the key, one in each shard where it has many.
    pub fn purge_resource(&self, resource: &Resource, kind: Kind) -> usize {
        match (resource.parts, kind) {
            (Parts::One, Kind::Hard) => self.purge(&resource.bytes),
            (Parts::One, Kind::Soft(now)) => self.expire(&resource.bytes, now),
            (Parts::Many, kind) => self.purge_parted(self.resource_hash(&resource.bytes), kind),
        }
    }

    fn purge_parted(&self, resource: NonZeroU64, kind: Kind) -> usize {
        // Before what is there goes: who comes in after that has seen the stamp.
        let mut stamps = self.0.resources.write();
        stamps.note(resource.get(), self.next_generation(), kind);
        drop(stamps);
        let is_there = |entry: &&Arc<Entry>| self.is_there(entry);
        let purged = self.0.shards.iter().map(|cell| {
            let (count, _gone) = cell.change(|shard, gone| {
                let count = shard.parted(resource).filter(is_there).count();
                match kind {
                    Kind::Hard => shard.remove_parted(resource, gone),
                    Kind::Soft(now) => shard.parted(resource).for_each(|entry| entry.expire(now)),
                }
                count
            });
            count
        });
        purged.sum()
    }

    // A second key with the same hash, should there ever be one, is purged along.
    pub(super) fn purge_hash(&self, hash: u64) -> usize {
        let ((), gone) = self.cell(hash).change(|shard, gone| {
            shard.stamps.note(hash, self.next_generation(), Kind::Hard);
            shard.remove_hash(hash, gone);
        });
        gone.iter().filter(|entry| self.is_there(entry)).count()
    }

    pub(super) fn expire_hash(&self, hash: u64, now: SystemTime) -> usize {
        let (count, _gone) = self.cell(hash).change(|shard, _| {
            shard.stamps.note(hash, self.next_generation(), Kind::Soft(now));
            shard
                .under_hash(hash)
                .filter(|entry| self.is_there(entry))
                .map(|entry| entry.expire(now))
                .count()
        });
        count
    }

    /// Whether no purge so far concerns a response that was asked for when `arrival` says.
    pub fn is_current(&self, arrival: &Arrival<'_>) -> bool {
        let hash = self.hash(arrival.key);
        let entry = Selection::new(arrival.headers, arrival.request)
            .map_err(Abandoned::from)
            .and_then(|selection| Draft::new(self, arrival, selection))
            .and_then(|draft| {
                draft.complete(self, hash, self.next_id(), Body::One(Bytes::new()), 0)
            });
        let Ok(entry) = entry else { return false };
        let shard = self.cell(hash).shard.read();
        self.0.broad.spares(&entry, Met::New) && self.standing(&shard, &entry) == Standing::Current
    }

    /// What the purges of its key and of its resource leave of an entry that may come into this shard.
    pub(super) fn standing(&self, shard: &Shard, entry: &Entry) -> Standing {
        let of_key = shard.stamps.standing(entry.hash, entry.asked);
        let Some(resource) = entry.resource else { return of_key };
        of_key.and(self.0.resources.read().standing(resource.get(), entry.asked))
    }

    /// Removes this very entry, if it is still there.
    pub fn remove(&self, entry: &Arc<Entry>) -> bool {
        let ((), gone) =
            self.cell(entry.hash).change(|shard, gone| shard.remove_entry(entry, gone));
        !gone.is_empty()
    }

    /// Forgets everything, in the same time however much there is; [`Self::sweep`] and eviction
    /// return the memory. What was asked of any origin before this call will not be stored. Says
    /// how many entries were held.
    pub fn purge_all(&self) -> u64 {
        let held = self.stats().objects;
        self.purge_many(&Many::Everything, Kind::Hard);
        held
    }

    /// Purges all that `many` concerns, in the same time however much that is; [`Self::sweep`] and
    /// eviction return the memory. What was asked of any origin before this call, and is concerned,
    /// will not be stored, or stored as stale.
    pub fn purge_many(&self, many: &Many, kind: Kind) {
        self.0.broad.purge(many, kind, || self.next_generation());
    }

    /// How many entries there are of a resource.
    pub fn count_resource(&self, resource: &Resource) -> usize {
        match resource.parts {
            Parts::One => self.variants(&resource.bytes).len(),
            Parts::Many => {
                let hash = self.resource_hash(&resource.bytes);
                let count = |cell: &Cell| {
                    let shard = cell.shard.read();
                    shard.parted(hash).filter(|entry| self.is_there(entry)).count()
                };
                self.0.shards.iter().map(count).sum()
            }
        }
    }

    /// Counts the entries that `many` concerns in `steps` places from `from` on, without counting as
    /// a use. Adds to `from` what it found.
    pub fn count_many(&self, many: &Many, from: &mut Counted, steps: usize) {
        let end = from.looked.saturating_add(steps as u64);
        while from.looked < end
            && let Some(cell) = self.0.shards.get(from.shard)
        {
            let left = usize::try_from(end - from.looked).unwrap_or(usize::MAX);
            let batch = left.min(COUNT_BATCH);
            let (looked, next) = cell.shard.read().walk(from.node, batch, |entry| {
                let concerned = match many {
                    Many::Everything => true,
                    many => entry.subject().is_some_and(|subject| many.concerns(&subject)),
                };
                from.found += u64::from(concerned && self.is_there(entry));
            });
            // An empty shard is a place too: looking at it takes its lock.
            from.looked += looked.max(1) as u64;
            match next {
                Some(node) => from.node = node,
                None => (from.shard, from.node) = (from.shard + 1, 0),
            }
        }
        from.ended = from.shard >= self.0.shards.len();
    }

    /// Whether no purge of many took the entry.
    pub(super) fn is_there(&self, entry: &Entry) -> bool {
        self.0.broad.spares(entry, Met::Stored)
    }

    /// A round of the sweep ended: every entry was compared with what was purged before it began.
    pub(super) fn end_round(&self) {
        let next = self.0.broad.newest();
        let compared = self.0.round.swap(next.0, Ordering::Relaxed);
        self.0.broad.forget(Generation(compared));
    }
}
