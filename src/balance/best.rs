//! The least loaded of the peers that were looked at.

use crate::balance::chance::Chance;

/// The peer whose load is the smallest for its capacity, of those that were offered.
#[derive(Debug)]
pub(super) struct Best {
    peer: Option<usize>,
    load: u64,
    capacity: u64,
    /// The weight of all that were as good as the best.
    tied: u64,
}

impl Best {
    /// Nobody was offered yet.
    pub(super) fn none() -> Self {
        Self { peer: None, load: 0, capacity: 0, tied: 0 }
    }

    /// The best one; `None` if none was offered.
    pub(super) fn peer(&self) -> Option<usize> {
        self.peer
    }

    /// Takes `peer` if it is better than all before it. `capacity` is never 0.
    pub(super) fn offer(&mut self, peer: usize, load: u64, capacity: u64) {
        if self.peer.is_none() || less(load, capacity, self.load, self.capacity) {
            (self.peer, self.load, self.capacity) = (Some(peer), load, capacity);
        }
    }

    /// As [`Best::offer`]; among equals chance decides, by `weight`.
    pub(super) fn offer_fairly(
        &mut self,
        peer: usize,
        load: u64,
        capacity: u64,
        weight: u64,
        chance: &mut Chance,
    ) {
        if self.peer.is_none() || less(load, capacity, self.load, self.capacity) {
            (self.peer, self.load, self.capacity) = (Some(peer), load, capacity);
            self.tied = weight;
        } else if !less(self.load, self.capacity, load, capacity) {
            self.tied += weight;
            if chance.below(self.tied) < weight {
                (self.peer, self.load, self.capacity) = (Some(peer), load, capacity);
            }
        }
    }
}

/// Whether one load is less than the other, each for its capacity.
fn less(load: u64, capacity: u64, other: u64, others: u64) -> bool {
    u128::from(load) * u128::from(others) < u128::from(other) * u128::from(capacity)
}
