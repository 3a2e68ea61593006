//! The memory tier: whole responses, bounded in bytes, variants and purges right by construction.
//!
//! * **Bounded.** Keys, heads, bodies, bookkeeping and fills in flight are drawn from one account
//!   with a hard limit, and so is what a reader still holds of an entry that is gone already. Room
//!   is made by eviction; where none can be made, a fill is abandoned and its response goes on to
//!   the client unstored.
//! * **Variants.** One slot per base key holds several. Each is selected by the fields that its own
//!   response named and the values of the request that fetched it (RFC 9111 §4.1), inside the tier,
//!   so no caller can mistake one for another.
//! * **Zones** are parts with limits of their own (see [`ZoneSettings`]).
//! * **Purges** are stamps of one sequence: what was asked of an origin before a purge never shows
//!   after it.
//! * **Complete or nothing.** An entry is visible only once its body ended cleanly and had the
//!   announced length.
//!
//! A hit takes one shared lock for the time of a table look-up and copies nothing.

use std::hash::BuildHasher;
use std::hash::RandomState;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::SystemTime;

use http::HeaderMap;
use parking_lot::Mutex;
use parking_lot::RwLock;

use crate::storage::memory::body::Body;
use crate::storage::memory::broad::Broad;
use crate::storage::memory::broad::Met;
use crate::storage::memory::fill::Draft;
use crate::storage::memory::purge::Stamps;
use crate::storage::memory::purge::Standing;
use crate::storage::memory::room::Gauge;
use crate::storage::memory::select::Selection;
use crate::storage::memory::select::Selector;
use crate::storage::memory::shard::Gone;
use crate::storage::memory::shard::Shard;
use crate::storage::memory::times::nanos_since_1970;
use crate::storage::memory::zone::Zone;

mod body;
mod broad;
mod budget;
mod carry;
mod entry;
mod evict;
mod fill;
mod head;
mod live;
mod long_way;
mod purge;
mod purging;
mod record;
mod room;
mod select;
mod shard;
mod stamp;
mod times;
mod zone;

#[cfg(test)]
mod tests;

pub use carry::Carried;
pub use carry::Carrying;
pub use carry::Hot;
pub use carry::Unwanted;
pub use entry::BeyondEnd;
pub use entry::Entry;
pub use entry::Reader;
pub use evict::Policy;
pub use fill::Abandoned;
pub use fill::Arrival;
pub use fill::Belonging;
pub use fill::Fill;
pub use head::Line;
pub use head::Lines;
pub use live::Cut;
pub use live::Live;
pub use live::LiveReader;
pub use long_way::Belongs;
pub use long_way::End;
pub use long_way::Found;
pub use long_way::Largest;
pub use long_way::Observed;
pub use long_way::Observer;
pub use long_way::Selecting;
pub use long_way::Under;
pub use purge::Generation;
pub use purge::Kind;
pub use purging::Counted;
pub use record::Record;
pub use room::Held;
pub use room::Swept;
pub use times::Times;
pub use zone::MOST_ZONES;
pub use zone::ZoneSettings;
pub use zone::ZoneStats;

/// How the tier is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// The hard limit in bytes, over everything.
    pub limit: u64,
    /// Who goes first when there is no room.
    pub policy: Policy,
    /// The most variants of one key; the oldest makes room for a new one.
    pub variants: usize,
    /// The largest body that is stored, in bytes.
    pub max_object: u64,
    /// For how long an entry that is stale, may not serve stale any more, but can be validated, is
    /// spared by [`Memory::sweep`].
    pub keep_expired: Duration,
}

/// The largest body that a tier of `limit` bytes takes, in bytes.
#[must_use]
pub fn largest(limit: u64) -> u64 {
    limit / 2
}

impl Options {
    /// The usual layout under a limit of `limit` bytes: no body may be larger than [`largest`].
    pub fn with_limit(limit: u64) -> Self {
        Self {
            limit,
            policy: Policy::default(),
            variants: 16,
            max_object: largest(limit),
            keep_expired: Duration::from_secs(3600),
        }
    }
}

/// What is in the tier and what became of requests to it, since it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// The entries held; after a purge of everything, those not swept yet included.
    pub objects: u64,
    /// All bytes taken: entries, fills in flight, and what readers still hold of others.
    pub bytes: u64,
    /// The hard limit in bytes.
    pub limit: u64,
    /// What may be taken for the time being, in bytes: less than the limit while
    /// [`Memory::look`] makes up for what the allocator cannot reuse.
    pub ceiling: u64,
    /// Lookups that found an entry, fresh or not.
    pub hits: u64,
    /// Lookups that did not.
    pub misses: u64,
    /// Entries that had to go to make room.
    pub evictions: u64,
    /// Fills that became visible.
    pub fills: u64,
    /// Fills that did not: cut, of the wrong length, without room, or purged meanwhile.
    pub fills_aborted: u64,
}

/// The memory tier; clones are handles on the same one.
#[derive(Clone)]
pub struct Memory(Arc<Tier>);

struct Tier {
    options: Options,
    /// First the one without a name.
    zones: Box<[Zone]>,
    shards: Box<[Cell]>,
    /// Keyed anew in every process, so that no client can choose keys that collide.
    hasher: RandomState,
    /// The last purge of anything.
    sequence: AtomicU64,
    /// The purges of single resources that may have many keys, in any of the shards.
    resources: RwLock<Stamps>,
    /// The purges of many at once.
    broad: Broad,
    /// The last of them when the current round of the sweep began.
    round: AtomicU64,
    last_id: AtomicU64,
    /// Shard and node where the next sweep goes on.
    swept: Mutex<(usize, u32)>,
    fills: AtomicU64,
    fills_aborted: AtomicU64,
    gauge: OnceLock<Gauge>,
    /// What was taken, or refused, since the gauge was last looked at, in bytes.
    since_look: AtomicU64,
    /// Whether the process holds so much that nothing more may be taken until it is looked again.
    is_swollen: AtomicBool,
}

/// A shard, and what can be known of it without its lock.
struct Cell {
    shard: RwLock<Shard>,
    count: AtomicU64,
    bytes: AtomicU64,
    hits: AtomicU64,
    misses: AtomicU64,
}

impl std::fmt::Debug for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Memory").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

impl Cell {
    fn note_use(&self, entry: &Entry, now: SystemTime) {
        self.hits.fetch_add(1, Ordering::Relaxed);
        entry.usage.hits.fetch_add(1, Ordering::Relaxed);
        entry.usage.last.store(nanos_since_1970(now), Ordering::Relaxed);
    }

    /// Changes the shard, brings the counters up to date and returns who left; the lock is released
    /// by then, so dropping them holds up nobody.
    fn change<T>(&self, change: impl FnOnce(&mut Shard, &mut Gone) -> T) -> (T, Gone) {
        let mut gone = Gone::new();
        let mut shard = self.shard.write();
        let result = change(&mut shard, &mut gone);
        self.count.store(shard.count() as u64, Ordering::Relaxed);
        self.bytes.store(shard.bytes(), Ordering::Relaxed);
        drop(shard);
        (result, gone)
    }
}

impl Memory {
    /// An empty tier of one zone.
    pub fn new(options: Options) -> Self {
        Self::with_zones(options, &[])
    }

    /// An empty tier with these zones of the limit, and what they leave of it for all that name none.
    pub fn with_zones(options: Options, zones: &[ZoneSettings]) -> Self {
        let zones = Zone::all(options.limit, options.max_object, zones);
        let shards = zones
            .iter()
            .flat_map(Zone::shares)
            .map(|share| Cell {
                shard: RwLock::new(Shard::new(options.policy, share)),
                count: AtomicU64::new(0),
                bytes: AtomicU64::new(0),
                hits: AtomicU64::new(0),
                misses: AtomicU64::new(0),
            })
            .collect();
        Self(Arc::new(Tier {
            options,
            zones,
            shards,
            hasher: RandomState::new(),
            sequence: AtomicU64::new(0),
            resources: RwLock::new(Stamps::within(options.limit)),
            broad: Broad::new(options.limit),
            round: AtomicU64::new(0),
            last_id: AtomicU64::new(0),
            swept: Mutex::new((0, 0)),
            fills: AtomicU64::new(0),
            fills_aborted: AtomicU64::new(0),
            gauge: OnceLock::new(),
            since_look: AtomicU64::new(0),
            is_swollen: AtomicBool::new(false),
        }))
    }

    /// Its layout.
    pub fn options(&self) -> &Options {
        &self.0.options
    }

    /// The newest variant of `key` that a request with these fields selects, fresh or not. `None`
    /// for `request`: its fields are unknown, and only a response that does not vary is found.
    pub fn lookup(
        &self,
        key: &[u8],
        request: Option<&HeaderMap>,
        now: SystemTime,
    ) -> Option<Arc<Entry>> {
        let found = self.lookup_if(key, request, now, |_| true);
        if found.is_none() {
            self.cell(self.hash(key)).misses.fetch_add(1, Ordering::Relaxed);
        }
        found
    }

    /// What [`Self::lookup`] finds, if it is `wanted`; otherwise the look counts as none.
    pub fn lookup_if(
        &self,
        key: &[u8],
        request: Option<&HeaderMap>,
        now: SystemTime,
        wanted: impl FnOnce(&Entry) -> bool,
    ) -> Option<Arc<Entry>> {
        let hash = self.hash(key);
        let cell = self.cell(hash);
        let mut selector = Selector::new(request);
        let shard = cell.shard.read();
        let entry = shard.find(hash, key, &mut selector, |entry| self.is_there(entry))?;
        if !wanted(entry) {
            return None;
        }
        let entry = Arc::clone(entry);
        shard.touch(&entry);
        drop(shard);
        cell.note_use(&entry, now);
        Some(entry)
    }

    /// The same without counting as a use.
    pub fn peek(
        &self,
        key: &[u8],
        request: Option<&HeaderMap>,
        wanted: impl FnOnce(&Entry) -> bool,
    ) -> Option<Arc<Entry>> {
        let hash = self.hash(key);
        let mut selector = Selector::new(request);
        let shard = self.cell(hash).shard.read();
        let entry = shard.find(hash, key, &mut selector, |entry| self.is_there(entry))?;
        wanted(entry).then(|| Arc::clone(entry))
    }

    /// Counts as a use of an entry that was found without.
    pub fn note_use(&self, entry: &Entry, now: SystemTime) {
        let cell = self.cell(entry.hash);
        cell.shard.read().touch(entry);
        cell.note_use(entry, now);
    }

    /// The variants of `key`, newest first, without counting as a use.
    pub fn variants(&self, key: &[u8]) -> Vec<Arc<Entry>> {
        let hash = self.hash(key);
        let shard = self.cell(hash).shard.read();
        shard.variants(hash, key).filter(|entry| self.is_there(entry)).map(Arc::clone).collect()
    }

    /// Where the sequence of purges stands: to be noted before an origin is asked.
    pub fn generation(&self) -> Generation {
        Generation(self.0.sequence.load(Ordering::SeqCst))
    }

    /// Begins to store a response.
    ///
    /// # Errors
    /// Why it cannot be stored.
    pub fn begin_fill(&self, arrival: &Arrival<'_>) -> Result<Fill, Abandoned> {
        Fill::new(self, arrival).inspect_err(|_| self.count_aborted())
    }

    /// A 304 validated `old`: replaces its head and times by those of `arrival` and keeps its body,
    /// time of creation and use counts (RFC 9111 §4.3.4). The new entry is the newest variant; if
    /// the fields that select it changed, those of the request in `arrival` select it from now on.
    /// The arrival's key and length are not looked at.
    ///
    /// # Errors
    /// Why it is left as it was: purged, evicted or replaced meanwhile, or no room for the new head.
    pub fn refresh(
        &self,
        old: &Arc<Entry>,
        arrival: &Arrival<'_>,
    ) -> Result<Arc<Entry>, Abandoned> {
        let selection = match old.selection.kept_by(arrival.headers) {
            Some(selection) => selection,
            None => Selection::new(arrival.headers, arrival.request)?,
        };
        let times = Times { created: old.times().created, ..arrival.times };
        let arrival = Arrival { key: old.key(), times, ..*arrival };
        let draft = Draft::new(self, &arrival, selection)?.of_resource(old.resource);
        let new =
            draft.complete(self, old.hash, self.next_id(), old.body.clone(), old.body_cost)?;
        fill::inherit(&new.usage, &old.usage);
        let new = Arc::new(new);
        let (replaced, _gone) = self.cell(old.hash).change(|shard, gone| {
            match self.standing(shard, &new) {
                Standing::Current => {}
                Standing::StaleSince(at) => new.expire(at),
                Standing::Purged => return Err(Abandoned::Purged),
            }
            if !self.is_there(old) || !self.0.broad.spares(&new, Met::New) {
                return Err(Abandoned::Purged);
            }
            match shard.replace(old, Arc::clone(&new), gone) {
                true => Ok(()),
                false => Err(Abandoned::Vanished),
            }
        });
        replaced.map(|()| new)
    }

    /// The counts.
    pub fn stats(&self) -> Stats {
        let sum = |count: fn(&Cell) -> &AtomicU64| {
            self.0.shards.iter().map(|cell| count(cell).load(Ordering::Relaxed)).sum()
        };
        let zones = self.zones();
        let ceilings: u64 = self.0.zones.iter().map(|zone| zone.budget.ceiling()).sum();
        Stats {
            objects: sum(|cell| &cell.count),
            bytes: zones.iter().map(|zone| zone.bytes).sum(),
            limit: self.0.options.limit,
            ceiling: ceilings.saturating_add(self.own_cost()),
            hits: sum(|cell| &cell.hits),
            misses: sum(|cell| &cell.misses),
            evictions: zones.iter().map(|zone| zone.evictions).sum(),
            fills: self.0.fills.load(Ordering::Relaxed),
            fills_aborted: self.0.fills_aborted.load(Ordering::Relaxed),
        }
    }

    /// Makes a complete response visible, unless a purge since it was asked for forbids it.
    fn admit(&self, draft: Draft, body: Body, body_cost: u64) -> Result<Arc<Entry>, Abandoned> {
        let hash = self.hash(draft.key());
        let entry = Arc::new(draft.complete(self, hash, self.next_id(), body, body_cost)?);
        let most = self.options().variants;
        let (standing, _gone) = self.cell(hash).change(|shard, gone| {
            let standing = match self.0.broad.spares(&entry, Met::New) {
                true => self.standing(shard, &entry),
                false => Standing::Purged,
            };
            if let Standing::StaleSince(at) = standing {
                entry.expire(at);
            }
            if standing != Standing::Purged {
                shard.insert(Arc::clone(&entry), most, gone);
            }
            standing
        });
        match standing {
            Standing::Purged => Err(Abandoned::Purged),
            Standing::Current | Standing::StaleSince(_) => {
                self.0.fills.fetch_add(1, Ordering::Relaxed);
                Ok(entry)
            }
        }
    }

    fn raw_hash(&self, key: &[u8]) -> u64 {
        self.0.hasher.hash_one(key)
    }

    fn resource_hash(&self, resource: &[u8]) -> NonZeroU64 {
        NonZeroU64::new(self.hash(resource)).unwrap_or(NonZeroU64::MIN)
    }

    fn next_generation(&self) -> Generation {
        Generation(self.0.sequence.fetch_add(1, Ordering::SeqCst) + 1)
    }

    fn next_id(&self) -> u64 {
        self.0.last_id.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn count_aborted(&self) {
        self.0.fills_aborted.fetch_add(1, Ordering::Relaxed);
    }
}
