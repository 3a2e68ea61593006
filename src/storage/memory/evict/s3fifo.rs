//! S3-FIFO: two queues and a memory of the recently evicted.
//!
//! Newcomers enter a small queue (a tenth of the bytes). What was used again by the time it reaches
//! the front moves to the main queue, the rest leaves and is remembered for a while by its hash;
//! what comes back while it is remembered enters the main queue at once. The main queue gives each
//! entry another round per recent use. A hit only counts up to three.
//!
//! Sizes enter twice: the small queue is measured in bytes, and the larger an object is, the more
//! uses it takes to be promoted, since what it displaces is many others.

use std::collections::HashSet;
use std::collections::VecDeque;
use std::sync::atomic::Ordering;

use crate::storage::memory::entry::Usage;
use crate::storage::memory::evict::Eviction;
use crate::storage::memory::evict::Facts;
use crate::storage::memory::evict::Residents;
use crate::storage::memory::evict::make_room;

/// The share of the bytes that newcomers may hold: one in so many.
const SMALL_SHARE: u64 = 10;
/// Uses beyond this many are not counted.
const MOST_USES: u64 = 3;
/// From this size on, in bytes, promotion takes two uses, and from the second on three.
const LARGE: [u64; 2] = [64 << 10, 1 << 20];
/// The fewest evicted entries that are remembered.
const FEWEST_REMEMBERED: usize = 32;
/// Steps after which the front is taken whatever its uses: bounds the time a lock is held.
const MOST_STEPS: usize = 512;

const NONE: u32 = u32::MAX;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Home {
    Nowhere,
    Small,
    Main,
}

#[derive(Debug, Clone, Copy)]
struct Link {
    before: u32,
    after: u32,
    home: Home,
}

const UNLINKED: Link = Link { before: NONE, after: NONE, home: Home::Nowhere };

#[derive(Debug)]
struct Queue {
    front: u32,
    back: u32,
    bytes: u64,
}

impl Default for Queue {
    fn default() -> Self {
        Self { front: NONE, back: NONE, bytes: 0 }
    }
}

#[derive(Debug, Default)]
pub(super) struct S3Fifo {
    links: Vec<Link>,
    small: Queue,
    main: Queue,
    count: usize,
    evicted: Evicted,
}

impl S3Fifo {
    fn queue(&mut self, home: Home) -> Option<&mut Queue> {
        match home {
            Home::Nowhere => None,
            Home::Small => Some(&mut self.small),
            Home::Main => Some(&mut self.main),
        }
    }

    fn push_back(&mut self, home: Home, node: u32, size: u64) {
        let index = node as usize;
        if self.links.len() <= index {
            make_room(&mut self.links);
            self.links.resize(index + 1, UNLINKED);
        }
        let Some(queue) = self.queue(home) else { return };
        let before = queue.back;
        queue.back = node;
        queue.bytes = queue.bytes.saturating_add(size);
        if before == NONE {
            queue.front = node;
        } else {
            self.links[before as usize].after = node;
        }
        self.links[index] = Link { before, after: NONE, home };
        self.count += 1;
    }

    fn unlink(&mut self, node: u32, size: u64) {
        let Some(link) = self.links.get(node as usize).copied() else { return };
        let Some(queue) = self.queue(link.home) else { return };
        queue.bytes = queue.bytes.saturating_sub(size);
        if queue.front == node {
            queue.front = link.after;
        }
        if queue.back == node {
            queue.back = link.before;
        }
        if link.before != NONE {
            self.links[link.before as usize].after = link.after;
        }
        if link.after != NONE {
            self.links[link.after as usize].before = link.before;
        }
        self.links[node as usize] = UNLINKED;
        self.count -= 1;
    }

    fn is_small_over_its_share(&self) -> bool {
        let total = self.small.bytes.saturating_add(self.main.bytes);
        self.small.bytes > total / SMALL_SHARE
    }
}

/// The uses that carry an entry of this size from the small queue to the main one.
fn uses_to_promote(size: u64) -> u64 {
    1 + LARGE.iter().filter(|large| size >= **large).count() as u64
}

impl Eviction for S3Fifo {
    fn touched(&self, usage: &Usage) {
        // Lost updates are harmless, and a hot entry costs no write at all.
        let uses = usage.mark.load(Ordering::Relaxed);
        if uses < MOST_USES {
            usage.mark.store(uses + 1, Ordering::Relaxed);
        }
    }

    fn inserted(&mut self, node: u32, facts: Facts<'_>) {
        facts.usage.mark.store(0, Ordering::Relaxed);
        let home = if self.evicted.recall(facts.hash) { Home::Main } else { Home::Small };
        self.push_back(home, node, facts.size);
    }

    fn resized(&mut self, node: u32, old: u64, new: u64) {
        let home = self.links.get(node as usize).map_or(Home::Nowhere, |link| link.home);
        if let Some(queue) = self.queue(home) {
            queue.bytes = queue.bytes.saturating_sub(old).saturating_add(new);
        }
    }

    fn removed(&mut self, node: u32, size: u64) {
        self.unlink(node, size);
    }

    fn victim(&mut self, residents: &dyn Residents) -> Option<u32> {
        let mut steps = 0;
        loop {
            let from_small = self.small.front != NONE
                && (self.main.front == NONE || self.is_small_over_its_share());
            let node = if from_small { self.small.front } else { self.main.front };
            if node == NONE {
                return None;
            }
            let facts = residents.facts(node)?;
            let uses = facts.usage.mark.load(Ordering::Relaxed);
            steps += 1;
            self.unlink(node, facts.size);
            let enough = if from_small { uses_to_promote(facts.size) } else { 1 };
            if uses < enough || steps > MOST_STEPS {
                if from_small {
                    self.evicted.remember(facts.hash, self.count.max(FEWEST_REMEMBERED));
                }
                return Some(node);
            }
            let left = if from_small { 0 } else { uses - 1 };
            facts.usage.mark.store(left, Ordering::Relaxed);
            self.push_back(Home::Main, node, facts.size);
        }
    }

    fn spared(&mut self, node: u32, facts: Facts<'_>) {
        facts.usage.mark.store(1, Ordering::Relaxed);
        self.push_back(Home::Main, node, facts.size);
    }
}

/// Hashes of what recently left the small queue, oldest first. Half of each hash is kept: to take a
/// stranger for one that comes back does no harm.
#[derive(Debug, Default)]
struct Evicted {
    order: VecDeque<u32>,
    known: HashSet<u32>,
}

impl Evicted {
    fn remember(&mut self, hash: u64, most: usize) {
        if self.known.insert(hash as u32) {
            self.order.push_back(hash as u32);
        }
        while self.order.len() > most {
            if let Some(oldest) = self.order.pop_front() {
                self.known.remove(&oldest);
            }
        }
        if self.order.capacity() / 4 > most {
            self.order.shrink_to(most * 2);
            self.known.shrink_to(most * 2);
        }
    }

    fn recall(&mut self, hash: u64) -> bool {
        // Its place in the order stays until it comes to the front.
        self.known.remove(&(hash as u32))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_recalled_is_forgotten() {
        let mut evicted = Evicted::default();
        evicted.remember(5, 10);
        assert!(evicted.recall(5));
        assert!(!evicted.recall(5));
    }

    #[test]
    fn no_more_are_remembered_than_allowed() {
        let mut evicted = Evicted::default();
        for hash in 0..100 {
            evicted.remember(hash, 10);
        }
        assert_eq!(evicted.order.len(), 10);
        assert!(evicted.recall(99));
        assert!(!evicted.recall(89));
        assert_eq!(evicted.known.len(), 9);
    }

    #[test]
    fn the_larger_an_object_the_more_uses_it_must_show() {
        assert_eq!(uses_to_promote((64 << 10) - 1), 1);
        assert_eq!(uses_to_promote(64 << 10), 2);
        assert_eq!(uses_to_promote(1 << 20), 3);
    }
}
