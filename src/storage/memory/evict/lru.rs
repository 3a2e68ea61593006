//! Least recently used, exactly, without a write on the hit path.
//!
//! A hit only stores the current tick in the entry. The queue is ordered by the ticks it has seen;
//! as those can only be too early, the first whose tick is still true is the oldest of all.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use crate::storage::memory::entry::Usage;
use crate::storage::memory::evict::Eviction;
use crate::storage::memory::evict::Facts;
use crate::storage::memory::evict::Residents;
use crate::storage::memory::evict::make_room;

#[derive(Debug, Default)]
pub(super) struct Lru {
    clock: AtomicU64,
    queue: BTreeMap<u64, u32>,
    /// The key in `queue` of each node.
    queued: Vec<u64>,
}

impl Lru {
    fn tick(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::Relaxed)
    }

    fn enqueue(&mut self, node: u32, tick: u64) {
        let index = node as usize;
        if self.queued.len() <= index {
            make_room(&mut self.queued);
            self.queued.resize(index + 1, 0);
        }
        self.queued[index] = tick;
        self.queue.insert(tick, node);
    }
}

impl Eviction for Lru {
    fn touched(&self, usage: &Usage) {
        usage.mark.store(self.tick(), Ordering::Relaxed);
    }

    fn inserted(&mut self, node: u32, facts: Facts<'_>) {
        let tick = self.tick();
        facts.usage.mark.store(tick, Ordering::Relaxed);
        self.enqueue(node, tick);
    }

    fn resized(&mut self, _node: u32, _old: u64, _new: u64) {}

    fn removed(&mut self, node: u32, _size: u64) {
        if let Some(tick) = self.queued.get(node as usize)
            && self.queue.get(tick) == Some(&node)
        {
            self.queue.remove(tick);
        }
    }

    fn victim(&mut self, residents: &dyn Residents) -> Option<u32> {
        loop {
            let (tick, node) = self.queue.pop_first()?;
            let used = residents.facts(node)?.usage.mark.load(Ordering::Relaxed);
            if used <= tick {
                return Some(node);
            }
            self.enqueue(node, used);
        }
    }

    fn spared(&mut self, node: u32, facts: Facts<'_>) {
        self.inserted(node, facts);
    }
}
