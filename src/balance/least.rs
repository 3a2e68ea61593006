//! Least connections: whoever has the fewest requests in flight for its weight.

use crate::balance::Ask;
use crate::balance::Peers;
use crate::balance::READY;
use crate::balance::Seat;
use crate::balance::TRIES;
use crate::balance::best::Best;
use crate::balance::chance::Chance;
use crate::balance::random::AliasTable;

/// Up to how many peers each one is looked at.
///
/// Looking at all of them finds the least loaded one, but costs time with each peer, and in a large group
/// every worker finds the same one at the same time and all run there together.
pub(super) const SMALL: usize = 16;

/// How many usable peers of a larger group are looked at. The most loaded peer is then hardly ever
/// more than two requests above the mean: the step from one to two samples does most of it.
const SAMPLES: usize = 4;

/// After so many draws what was found is enough: where most are not usable, looking for more of them takes longer
/// than it is worth. When a tenth is, that is one or the better of two.
const PATIENCE: usize = 12;

/// Chooses the smallest number of requests in flight for the weight.
///
/// In a group of at most [`SMALL`] peers of positive weight that is the smallest of all, and
/// chance decides among equals by their weights. In a larger one it is the best of [`SAMPLES`]
/// peers drawn by weight.
#[derive(Debug)]
pub(super) struct LeastConnections {
    weights: Vec<u32>,
    /// The peers of positive weight.
    seated: Vec<usize>,
    table: AliasTable,
}

impl LeastConnections {
    pub(super) fn new(seats: &[Seat<'_>]) -> Self {
        let weights: Vec<u32> = seats.iter().map(|seat| seat.weight).collect();
        let seated = (0..weights.len()).filter(|&peer| weights[peer] > 0).collect();
        let table = AliasTable::new(&weights);
        Self { weights, seated, table }
    }

    pub(super) fn pick(&self, ask: &Ask, peers: &impl Peers) -> Option<usize> {
        let mut chance = Chance::new(ask.random);
        if self.seated.len() > SMALL
            && let Some(peer) = self.best_of_samples(peers, &mut chance)
        {
            return Some(peer);
        }
        self.best_of_all(peers, &mut chance)
    }

    /// The least loaded usable peer.
    pub(super) fn best_of_all(&self, peers: &impl Peers, chance: &mut Chance) -> Option<usize> {
        let mut ready = Best::none();
        let mut others = Best::none();
        for &peer in self.seated.iter().filter(|&&peer| peers.is_usable(peer)) {
            let readiness = peers.readiness(peer);
            let best = if chance.admits(readiness) { &mut ready } else { &mut others };
            let load = u64::from(peers.in_flight(peer));
            let weight = u64::from(self.weights[peer]);
            best.offer_fairly(peer, load, capacity(weight, readiness), weight, chance);
        }
        ready.peer().or(others.peer())
    }

    /// The least loaded of some usable peers; `None` if no draw was usable.
    fn best_of_samples(&self, peers: &impl Peers, chance: &mut Chance) -> Option<usize> {
        let mut ready = Best::none();
        let mut others = Best::none();
        let mut found = 0;
        for tries in 1..=TRIES {
            if tries > PATIENCE && found > 0 {
                break;
            }
            let peer = self.table.draw(chance);
            if !peers.is_usable(peer) {
                continue;
            }
            let readiness = peers.readiness(peer);
            let load = u64::from(peers.in_flight(peer));
            let capacity = capacity(u64::from(self.weights[peer]), readiness);
            if !chance.admits(readiness) {
                others.offer(peer, load, capacity);
                continue;
            }
            ready.offer(peer, load, capacity);
            found += 1;
            if found == SAMPLES {
                break;
            }
        }
        ready.peer().or(others.peer())
    }
}

/// What load is measured by: a peer that is half ready has twice the load of its requests.
pub(super) fn capacity(weight: u64, readiness: u32) -> u64 {
    weight * u64::from(readiness.clamp(1, READY))
}
