//! Which entry goes first when there is no room.

use crate::storage::memory::entry::Usage;

pub(super) mod lru;
pub(super) mod s3fifo;

/// An eviction policy by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Policy {
    /// Exactly the least recently used. One scan over many objects empties it of all others.
    Lru,
    /// S3-FIFO: newcomers queue apart in a tenth of the space and join the rest only when they are
    /// used again, so that a scan passes by; sizes count, so that a large object must earn more.
    #[default]
    S3Fifo,
}

impl Policy {
    /// The state of this policy for one shard.
    pub(super) fn build(self) -> Box<dyn Eviction> {
        match self {
            Self::Lru => Box::new(lru::Lru::default()),
            Self::S3Fifo => Box::new(s3fifo::S3Fifo::default()),
        }
    }
}

/// What a policy may know of an entry.
#[derive(Debug, Clone, Copy)]
pub(super) struct Facts<'a> {
    /// The hash of its key.
    pub(super) hash: u64,
    /// What it costs in bytes.
    pub(super) size: u64,
    /// Its counters; the mark is the policy's to use.
    pub(super) usage: &'a Usage,
}

/// Makes room for one more in a list with a place for each node. Lists that double hold up to half
/// their memory for nothing, and there are as many places as objects.
pub(super) fn make_room<T>(list: &mut Vec<T>) {
    if list.len() == list.capacity() {
        list.reserve_exact(list.len() / 8 + 16);
    }
}

/// The entries of a shard, by node.
pub(super) trait Residents {
    /// `None`: the node is free.
    fn facts(&self, node: u32) -> Option<Facts<'_>>;
}

/// The order in which the entries of one shard are evicted. Entries are named by the number of
/// their node, which is reused once the entry is gone.
pub(super) trait Eviction: Send + Sync {
    /// The entry was served. Called under a shared lock, by many at once.
    fn touched(&self, usage: &Usage);

    /// An entry came in.
    fn inserted(&mut self, node: u32, facts: Facts<'_>);

    /// The entry in this node was replaced by one of another size.
    fn resized(&mut self, node: u32, old: u64, new: u64);

    /// The entry is gone for other reasons than this policy's choice.
    fn removed(&mut self, node: u32, size: u64);

    /// Chooses the next victim and forgets it; `None` when there is no entry at all.
    fn victim(&mut self, residents: &dyn Residents) -> Option<u32>;

    /// Takes back a victim that cannot go now, as if it had just been used.
    fn spared(&mut self, node: u32, facts: Facts<'_>);
}
