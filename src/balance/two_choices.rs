//! The better of two: two peers drawn by weight, and of these the one of the lower cost.
//!
//! Two are enough to keep away from a slow peer, and few enough that not everybody goes to the same
//! fast one at once.

use crate::balance::Ask;
use crate::balance::Peers;
use crate::balance::Seat;
use crate::balance::TRIES;
use crate::balance::best::Best;
use crate::balance::chance::Chance;
use crate::balance::chance::among_usable;
use crate::balance::chance::draw;
use crate::balance::least::capacity;
use crate::balance::random::AliasTable;

/// How many draws a second peer may take that is not the first again.
const SECOND_TRIES: usize = 8;

/// Chooses the lower [`cost`](Peers::cost) for the weight of two peers.
#[derive(Debug)]
pub(super) struct TwoChoices {
    weights: Vec<u32>,
    table: AliasTable,
}

impl TwoChoices {
    pub(super) fn new(seats: &[Seat<'_>]) -> Self {
        let weights: Vec<u32> = seats.iter().map(|seat| seat.weight).collect();
        let table = AliasTable::new(&weights);
        Self { weights, table }
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
        let mut best = Best::none();
        for peer in [first, second] {
            let weight = u64::from(self.weights[peer]);
            best.offer(peer, peers.cost(peer), capacity(weight, peers.readiness(peer)));
        }
        best.peer()
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
