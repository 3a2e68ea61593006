//! One shard: a table from key to variants, and the order in which they are evicted.
//!
//! The variants of a key are a chain of nodes, newest first. Two keys that share a 64-bit hash (one
//! pair in billions; the hash is randomly keyed, so nobody can arrange one) displace each other:
//! the full key is compared on every use.

use std::collections::BTreeSet;
use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::hash::Hasher;
use std::num::NonZeroU64;
use std::sync::Arc;

use crate::storage::memory::entry::Entry;
use crate::storage::memory::evict;
use crate::storage::memory::evict::Eviction;
use crate::storage::memory::evict::Facts;
use crate::storage::memory::evict::Policy;
use crate::storage::memory::evict::Residents;
use crate::storage::memory::purge::Stamps;
use crate::storage::memory::select::Selector;

const NONE: u32 = u32::MAX;

/// Entries that left a shard, to be dropped once its lock is released.
pub(super) type Gone = Vec<Arc<Entry>>;

#[derive(Debug)]
struct Node {
    entry: Option<Arc<Entry>>,
    /// The next older variant, or the next free node.
    next: u32,
}

#[derive(Debug, Default)]
struct Nodes(Vec<Node>);

impl Nodes {
    fn entry(&self, node: u32) -> Option<&Arc<Entry>> {
        self.0.get(node as usize)?.entry.as_ref()
    }

    fn next(&self, node: u32) -> u32 {
        self.0.get(node as usize).map_or(NONE, |node| node.next)
    }

    /// The chain that starts at `first`.
    fn chain(&self, first: u32) -> impl Iterator<Item = (u32, &Arc<Entry>)> {
        std::iter::successors(Some(first), |node| Some(self.next(*node)))
            .take_while(|node| *node != NONE)
            .filter_map(|node| Some((node, self.entry(node)?)))
    }
}

impl Residents for Nodes {
    fn facts(&self, node: u32) -> Option<Facts<'_>> {
        self.entry(node).map(|entry| facts(entry))
    }
}

fn facts(entry: &Entry) -> Facts<'_> {
    Facts { hash: entry.hash, size: entry.size(), usage: &entry.usage }
}

/// The hash is computed before the shard is chosen, so the table takes it as it is.
#[derive(Default)]
struct AsIs(u64);

impl Hasher for AsIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

/// The state behind one lock.
pub(super) struct Shard {
    first: HashMap<u64, u32, BuildHasherDefault<AsIs>>,
    /// The nodes of entries whose keys are more than their resource, by the hash of that.
    parted: BTreeSet<(NonZeroU64, u32)>,
    nodes: Nodes,
    free: u32,
    count: usize,
    bytes: u64,
    order: Box<dyn Eviction>,
    /// The purges of its keys.
    pub(super) stamps: Stamps,
}

impl Shard {
    /// An empty shard, of so many bytes of the limit.
    pub(super) fn new(policy: Policy, bytes: u64) -> Self {
        Self {
            first: HashMap::default(),
            parted: BTreeSet::new(),
            nodes: Nodes::default(),
            free: NONE,
            count: 0,
            bytes: 0,
            order: policy.build(),
            stamps: Stamps::within(bytes),
        }
    }

    /// The number of entries.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// What the entries cost in bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    fn first(&self, hash: u64, key: &[u8]) -> u32 {
        let Some(&first) = self.first.get(&hash) else { return NONE };
        match self.nodes.entry(first) {
            Some(entry) if *entry.key() == *key => first,
            Some(_) | None => NONE,
        }
    }

    /// The newest variant that the request selects and that is `there`.
    pub(super) fn find(
        &self,
        hash: u64,
        key: &[u8],
        selector: &mut Selector<'_>,
        is_there: impl Fn(&Entry) -> bool,
    ) -> Option<&Arc<Entry>> {
        self.nodes
            .chain(self.first(hash, key))
            .map(|(_, entry)| entry)
            .find(|entry| selector.selects(&entry.selection) && is_there(entry))
    }

    /// Tells the eviction policy that the entry was served.
    pub(super) fn touch(&self, entry: &Entry) {
        self.order.touched(&entry.usage);
    }

    /// All variants of a key.
    pub(super) fn variants(&self, hash: u64, key: &[u8]) -> impl Iterator<Item = &Arc<Entry>> {
        self.nodes.chain(self.first(hash, key)).map(|(_, entry)| entry)
    }

    /// Shows each hash, and the entries under it.
    pub(super) fn each(&self, mut look: impl FnMut(u64, &mut dyn Iterator<Item = &Arc<Entry>>)) {
        for (hash, first) in &self.first {
            look(*hash, &mut self.nodes.chain(*first).map(|(_, entry)| entry));
        }
    }

    /// Whatever is stored under a hash.
    pub(super) fn under_hash(&self, hash: u64) -> impl Iterator<Item = &Arc<Entry>> {
        self.nodes.chain(self.first.get(&hash).copied().unwrap_or(NONE)).map(|(_, entry)| entry)
    }

    /// Makes `entry` the newest variant of its key. What it supersedes goes: the variant selected by
    /// the same values of the same fields, all of them when it does not vary, and the oldest when
    /// there would be more than `most`.
    pub(super) fn insert(&mut self, entry: Arc<Entry>, most: usize, gone: &mut Gone) {
        let hash = entry.hash;
        if self.first(hash, entry.key()) == NONE {
            // Nothing, or another key with the same hash.
            self.remove_hash(hash, gone);
        }
        let mut kept = 0;
        let mut superseded = Vec::new();
        for (node, old) in self.nodes.chain(self.first(hash, entry.key())) {
            let same = entry.selection.is_unvaried() || old.selection == entry.selection;
            if same || kept + 1 >= most.max(1) {
                superseded.push(node);
            } else {
                kept += 1;
            }
        }
        for node in superseded {
            self.remove(node, gone);
        }
        let next = self.first.get(&hash).copied().unwrap_or(NONE);
        let size = entry.size();
        let node = self.place(Arc::clone(&entry), next);
        if node == NONE {
            gone.push(entry);
            return;
        }
        self.first.insert(hash, node);
        if let Some(resource) = entry.resource {
            self.parted.insert((resource, node));
        }
        self.order.inserted(node, facts(&entry));
        self.count += 1;
        self.bytes = self.bytes.saturating_add(size);
    }

    /// Puts an entry in a free node; `NONE` when there are no more numbers.
    fn place(&mut self, entry: Arc<Entry>, next: u32) -> u32 {
        if let Some(free) = self.nodes.0.get_mut(self.free as usize) {
            let node = self.free;
            self.free = free.next;
            *free = Node { entry: Some(entry), next };
            return node;
        }
        match u32::try_from(self.nodes.0.len()) {
            Ok(node) if node != NONE => {
                evict::make_room(&mut self.nodes.0);
                self.nodes.0.push(Node { entry: Some(entry), next });
                node
            }
            Ok(_) | Err(_) => NONE,
        }
    }

    /// Puts `new` in the place of the very entry `old` and makes it the newest variant; `false`
    /// (and nothing changed) when `old` is not there any more.
    pub(super) fn replace(&mut self, old: &Arc<Entry>, new: Arc<Entry>, gone: &mut Gone) -> bool {
        let first = self.first(old.hash, old.key());
        let Some((node, _)) = self.nodes.chain(first).find(|(_, entry)| Arc::ptr_eq(entry, old))
        else {
            return false;
        };
        let twins: Vec<u32> = self
            .nodes
            .chain(first)
            .filter(|(other, entry)| *other != node && entry.selection == new.selection)
            .map(|(other, _)| other)
            .collect();
        for twin in twins {
            self.remove(twin, gone);
        }
        let (before, after) = (old.size(), new.size());
        self.unchain(old.hash, node);
        let next = self.first.get(&old.hash).copied().unwrap_or(NONE);
        self.first.insert(old.hash, node);
        if let Some(place) = self.nodes.0.get_mut(node as usize) {
            place.next = next;
            gone.extend(place.entry.replace(new));
        }
        self.order.resized(node, before, after);
        self.bytes = self.bytes.saturating_sub(before).saturating_add(after);
        true
    }

    /// Removes whatever is stored under a hash.
    pub(super) fn remove_hash(&mut self, hash: u64, gone: &mut Gone) {
        while let Some(&first) = self.first.get(&hash) {
            self.remove(first, gone);
        }
    }

    /// What is stored of a resource under keys that say more.
    pub(super) fn parted(&self, resource: NonZeroU64) -> impl Iterator<Item = &Arc<Entry>> {
        self.parted
            .range((resource, 0)..=(resource, NONE))
            .filter_map(|(_, node)| self.nodes.entry(*node))
    }

    /// Removes what is stored of a resource under keys that say more.
    pub(super) fn remove_parted(&mut self, resource: NonZeroU64, gone: &mut Gone) {
        let nodes = self.parted.range((resource, 0)..=(resource, NONE));
        for node in nodes.map(|(_, node)| *node).collect::<Vec<_>>() {
            self.remove(node, gone);
        }
    }

    /// Removes this very entry, if it is still there.
    pub(super) fn remove_entry(&mut self, entry: &Arc<Entry>, gone: &mut Gone) {
        let found = self
            .nodes
            .chain(self.first(entry.hash, entry.key()))
            .find(|(_, other)| Arc::ptr_eq(other, entry));
        if let Some((node, _)) = found {
            self.remove(node, gone);
        }
    }

    fn remove(&mut self, node: u32, gone: &mut Gone) {
        let Some(size) = self.nodes.entry(node).map(|entry| entry.size()) else { return };
        self.order.removed(node, size);
        self.take(node, gone);
    }

    /// Takes an entry that the eviction order has already forgotten out of its chain and node.
    fn take(&mut self, node: u32, gone: &mut Gone) {
        let Some(hash) = self.nodes.entry(node).map(|entry| entry.hash) else { return };
        self.unchain(hash, node);
        let Some(place) = self.nodes.0.get_mut(node as usize) else { return };
        if let Some(entry) = place.entry.take() {
            if let Some(resource) = entry.resource {
                self.parted.remove(&(resource, node));
            }
            self.count -= 1;
            self.bytes = self.bytes.saturating_sub(entry.size());
            gone.push(entry);
        }
        place.next = self.free;
        self.free = node;
        if self.first.capacity() > 1024 && self.first.len() < self.first.capacity() / 8 {
            self.first.shrink_to(self.first.len() * 2);
        }
    }

    fn unchain(&mut self, hash: u64, node: u32) {
        let next = self.nodes.next(node);
        let first = self.first.get(&hash).copied().unwrap_or(NONE);
        if first == node {
            if next == NONE {
                self.first.remove(&hash);
            } else {
                self.first.insert(hash, next);
            }
            return;
        }
        let before = self
            .nodes
            .chain(first)
            .map(|(other, _)| other)
            .find(|other| self.nodes.next(*other) == node);
        if let Some(before) = before.and_then(|before| self.nodes.0.get_mut(before as usize)) {
            before.next = next;
        }
    }

    /// Evicts until `need` bytes are freed, or everything that can go is gone. An entry that is
    /// being read frees nothing by going, so it stays.
    pub(super) fn evict(&mut self, need: u64, gone: &mut Gone) {
        let mut freed = 0_u64;
        let mut spared = Vec::new();
        while freed < need && spared.len() <= MOST_SPARED {
            let Some(node) = self.order.victim(&self.nodes) else { break };
            let Some(entry) = self.nodes.entry(node) else { continue };
            if Arc::strong_count(entry) > 1 {
                spared.push(node);
                continue;
            }
            freed = freed.saturating_add(entry.size());
            self.take(node, gone);
        }
        for node in spared {
            if let Some(entry) = self.nodes.entry(node) {
                self.order.spared(node, facts(entry));
            }
        }
    }

    /// Shows the entries in `steps` nodes from `from` on. Returns how many nodes that were, and where
    /// to go on; `None` at the end.
    pub(super) fn walk(
        &self,
        from: u32,
        steps: usize,
        mut look: impl FnMut(&Entry),
    ) -> (usize, Option<u32>) {
        let end = (from as usize).saturating_add(steps).min(self.nodes.0.len());
        let nodes = self.nodes.0.get(from as usize..end).unwrap_or_default();
        nodes.iter().filter_map(|node| node.entry.as_ref()).for_each(|entry| look(entry));
        (nodes.len(), (end < self.nodes.0.len()).then(|| u32::try_from(end).ok()).flatten())
    }

    /// Looks at `steps` nodes from `from` on, and removes those whose entry is not `wanted` any
    /// more. Returns where to go on; `None` at the end.
    pub(super) fn sweep(
        &mut self,
        from: u32,
        steps: usize,
        wanted: impl Fn(&Entry) -> bool,
        gone: &mut Gone,
    ) -> Option<u32> {
        let end = (from as usize).saturating_add(steps);
        let unwanted: Vec<u32> = (from as usize..end.min(self.nodes.0.len()))
            .filter_map(|index| u32::try_from(index).ok())
            .filter(|node| self.nodes.entry(*node).is_some_and(|entry| !wanted(entry)))
            .collect();
        for node in unwanted {
            self.remove(node, gone);
        }
        (end < self.nodes.0.len()).then(|| u32::try_from(end).ok()).flatten()
    }
}

/// How many entries that are being read one eviction passes over before it gives up.
const MOST_SPARED: usize = 256;
