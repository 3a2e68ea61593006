//! Making room: eviction when it is needed, sweeping before it is, and giving way when the process
//! as a whole holds too much.

use std::sync::atomic::Ordering;
use std::time::SystemTime;

use crate::storage::memory::Memory;
use crate::storage::memory::budget::Charge;
use crate::storage::memory::entry::Entry;
use crate::storage::memory::times::nanos;
use crate::storage::memory::times::nanos_since_1970;
use crate::storage::memory::zone::Zone;
use crate::storage::memory::zone::portion;

/// How often an eviction is tried again when others take what it freed.
const ROUNDS: usize = 8;
/// How much more than needed an eviction frees at most, in bytes, so that not every push evicts.
const MOST_SLACK: u64 = 128 << 10;
/// The steps a sweep takes under one lock.
const SWEEP_BATCH: usize = 64;
/// After which part of the limit is taken the process is looked at again.
const LOOK_SHARE: u64 = 64;
/// By which part of the limit it may hold more than allowed before nothing is taken any more.
const SWOLLEN_SHARE: u64 = 32;

/// What the process holds, and what it may, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// What the system has given it.
    pub resident: u64,
    /// Above this, the store gives way.
    pub allowed: u64,
}

/// Looks at what the process holds; `None` where the system does not tell.
pub(super) type Gauge = Box<dyn Fn() -> Option<Held> + Send + Sync>;

/// What one call of [`Memory::sweep`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Swept {
    /// The places looked at.
    pub looked: usize,
    /// The entries removed.
    pub removed: usize,
    /// Whether the last place was reached; the next call starts over.
    pub wrapped: bool,
}

impl Memory {
    /// Removes entries that can serve nobody any more, looking at `most` places at most, from where
    /// the last call stopped.
    pub fn sweep(&self, now: SystemTime, most: usize) -> Swept {
        let mut swept = Swept::default();
        let Some(mut position) = self.0.swept.try_lock() else { return swept };
        while swept.looked < most && !swept.wrapped {
            let (index, from) = *position;
            let Some(cell) = self.0.shards.get(index) else {
                *position = (0, 0);
                swept.wrapped = true;
                self.end_round();
                break;
            };
            let steps = SWEEP_BATCH.min(most - swept.looked);
            let (next, gone) = cell.change(|shard, gone| {
                shard.sweep(from, steps, |entry| self.is_of_use(entry, now), gone)
            });
            swept.looked += steps;
            swept.removed += gone.len();
            *position = next.map_or((index + 1, 0), |next| (index, next));
        }
        swept
    }

    /// Looks at the process by `gauge` from now on: whenever a part of the limit was filled, and with
    /// every [`Self::look`]. Only the first gauge counts.
    pub fn watch(&self, gauge: impl Fn() -> Option<Held> + Send + Sync + 'static) {
        let _ = self.0.gauge.set(Box::new(gauge));
    }

    /// Looks at what the process holds, and gives way where it is too much.
    pub fn look(&self) {
        self.0.since_look.store(0, Ordering::Relaxed);
        let Some(held) = self.0.gauge.get().and_then(|gauge| gauge()) else { return };
        self.relieve(held.resident, held.allowed);
        let bound = held.allowed.saturating_add(self.0.options.limit / SWOLLEN_SHARE);
        self.0.is_swollen.store(held.resident > bound, Ordering::Relaxed);
    }

    /// Notes that so much is asked for; `false` while nothing may be taken. Memory that was given back
    /// leaves the process some time after it could: who fills fast, has to wait for that.
    fn may_take(&self, bytes: u64) -> bool {
        let since = self.0.since_look.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        if since >= self.0.options.limit / LOOK_SHARE {
            self.look();
        }
        !self.0.is_swollen.load(Ordering::Relaxed)
    }

    /// Keeps the whole process below `allowed` bytes, given that it holds `resident` now.
    ///
    /// The account says what is used; what an allocator holds besides, it does not know. When many
    /// small objects give way to few large ones, the places of the small ones stay scattered over
    /// pages that nothing else fits into, until their neighbours go too. So while too much is held,
    /// the ceiling sinks, the oldest go, and with them those pages; when the excess is gone it rises
    /// again. Evicts 16 MiB at most each time.
    ///
    /// Each zone gives way by how much of what is taken is in it.
    pub(super) fn relieve(&self, resident: u64, allowed: u64) {
        const LOWEST_SHARE: u64 = 4;
        const STEP: u64 = 16 << 20;
        let taken: u64 = self.0.zones.iter().map(|zone| zone.budget.used()).sum();
        let limits: u64 = self.0.zones.iter().map(|zone| zone.budget.limit()).sum();
        for zone in &self.0.zones {
            let budget = &zone.budget;
            let ceiling = budget.ceiling();
            let next = match resident.checked_sub(allowed) {
                Some(excess) => {
                    let own = portion(excess.min(STEP), budget.used(), taken);
                    ceiling.saturating_sub(own).max(budget.limit() / LOWEST_SHARE)
                }
                None => {
                    let room = ((allowed - resident) / 4).min(STEP);
                    ceiling.saturating_add(portion(room, budget.limit(), limits))
                }
            };
            budget.set_ceiling(next);
            let excess = budget.used().saturating_sub(budget.ceiling());
            if excess > 0 {
                self.evict(zone, excess.min(STEP));
            }
        }
    }

    /// Adds `bytes` to `charge`, evicting others where it must. `false`: there is no room.
    pub(super) fn reserve(&self, charge: &mut Charge, bytes: u64) -> bool {
        let zone = &self.0.zones[charge.budget().zone()];
        let budget = &zone.budget;
        if bytes > budget.ceiling() || !self.may_take(bytes) {
            return false;
        }
        for _ in 0..ROUNDS {
            if charge.try_grow(bytes) {
                return true;
            }
            let short = budget.used().saturating_add(bytes).saturating_sub(budget.ceiling());
            let slack = MOST_SLACK.min(budget.limit() / 128);
            if !self.evict(zone, short.saturating_add(slack)) {
                break;
            }
        }
        charge.try_grow(bytes)
    }

    /// Frees `need` bytes of a zone if it can; `false` when nothing could go. Twice around its shards at
    /// most: first the fuller of two at a time, then each in turn.
    fn evict(&self, zone: &Zone, need: u64) -> bool {
        let shards = zone.cells(&self.0.shards);
        let count = shards.len();
        let turn = zone.next_turn();
        let mut freed = 0_u64;
        let mut evicted = 0_usize;
        for step in 0..count * 2 {
            if freed >= need {
                break;
            }
            let one = &shards[turn.wrapping_add(step) % count];
            let other = &shards[turn.wrapping_add(step).wrapping_add(count / 2) % count];
            let is_fuller = other.bytes.load(Ordering::Relaxed) > one.bytes.load(Ordering::Relaxed);
            let cell = if step < count && is_fuller { other } else { one };
            if cell.count.load(Ordering::Relaxed) == 0 {
                continue;
            }
            let ((), gone) = cell.change(|shard, gone| shard.evict(need - freed, gone));
            evicted += gone.len();
            freed = gone.iter().map(|entry| entry.size()).fold(freed, u64::saturating_add);
        }
        zone.count_evicted(evicted);
        evicted > 0
    }

    /// Whether the entry can serve still, be it stale or for validation.
    fn is_of_use(&self, entry: &Entry, now: SystemTime) -> bool {
        if !self.is_there(entry) {
            return false;
        }
        let grace = if entry.can_be_validated() { nanos(self.options().keep_expired) } else { 0 };
        let keep = grace.max(entry.times.longest_window_nanos());
        nanos_since_1970(now) < nanos_since_1970(entry.fresh_until()).saturating_add(keep)
    }
}
