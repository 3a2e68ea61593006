//! The better of two: two peers drawn by weight, and of these the one where a request costs less.
//!
//! A request costs its latency, once for itself and once for each that is there already, as far as
//! the peer's weight does not make up for these. Latencies that hardly differ count as equal: then what
//! is in flight decides, and where that is the same, the draw, which followed the weights.
//!
//! Two are enough to keep away from a slow peer, and few enough that not everybody goes to the same
//! fast one at once.

use crate::balance::Ask;
use crate::balance::Peers;
use crate::balance::READY;
use crate::balance::Seat;
use crate::balance::TRIES;
use crate::balance::chance::Chance;
use crate::balance::chance::among_usable;
use crate::balance::chance::draw;
use crate::balance::least::capacity;
use crate::balance::random::AliasTable;

/// How many draws a second peer may take that is not the first again.
const SECOND_TRIES: usize = 8;

/// How much more the one latency has to be than the other, in percent of it, to count.
const EQUAL: u64 = 125;

/// Chooses where a request costs less, of two peers.
#[derive(Debug)]
pub(super) struct TwoChoices {
    weights: Vec<u32>,
    /// The mean weight, rounded down; at least 1.
    mean: u64,
    table: AliasTable,
}

impl TwoChoices {
    pub(super) fn new(seats: &[Seat<'_>]) -> Self {
        let weights: Vec<u32> = seats.iter().map(|seat| seat.weight).collect();
        let table = AliasTable::new(&weights);
        let sum: u64 = weights.iter().map(|&weight| u64::from(weight)).sum();
        let mean = (sum / weights.len().max(1) as u64).max(1);
        Self { weights, mean, table }
    }

    pub(super) fn pick(&self, ask: &Ask, peers: &impl Peers) -> Option<usize> {
        if self.table.is_empty() {
            return None;
        }
        let mut chance = Chance::new(ask.random);
        let Some(first) = draw(TRIES, peers, &mut chance, |chance| self.table.draw(chance)) else {
            return among_usable(
                self.weights.iter().map(|&weight| weight.into()),
                peers,
                chance.next(),
            );
        };
        let Some(second) = self.second(first, peers, &mut chance) else {
            return Some(first);
        };
        Some(if self.is_better(second, first, peers) { second } else { first })
    }

    /// Whether a request costs less at `one` than at `other`.
    fn is_better(&self, one: usize, other: usize, peers: &impl Peers) -> bool {
        let (mut cost, mut others) = (peers.cost(one), peers.cost(other));
        let (low, high) = (cost.min(others), cost.max(others));
        if high.saturating_mul(100) <= low.saturating_mul(EQUAL) {
            (cost, others) = (1, 1);
        }
        let load = |peer: usize, cost: u64| {
            let capacity = capacity(u64::from(self.weights[peer]), peers.readiness(peer));
            let others = u64::from(peers.in_flight(peer)) * self.mean;
            let load = u128::from(capacity) + u128::from(others) * u128::from(READY);
            // Costs are latencies; of more than some hours, the rest is nobody's concern.
            (load * u128::from(cost.min(1 << 44)), u128::from(capacity))
        };
        let (ours, theirs) = (load(one, cost), load(other, others));
        // Saturated only by weights and counts that nobody has.
        ours.0.saturating_mul(theirs.1) < theirs.0.saturating_mul(ours.1)
    }

    /// Another usable peer, if a few draws find one.
    fn second(&self, first: usize, peers: &impl Peers, chance: &mut Chance) -> Option<usize> {
        (0..SECOND_TRIES).find_map(|_| {
            let peer = self.table.draw(chance);
            let another = peer != first && peers.is_usable(peer);
            (another && chance.admits(peers.readiness(peer))).then_some(peer)
        })
    }
}
