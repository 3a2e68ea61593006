//! Consistent hash: the same key goes to the same peer, and few keys move when peers come and go.
//!
//! The table is Maglev's (Eisenbud and others, 2016): each peer has its own order of all slots, made
//! from its id, and the peers claim slots by turns until none is left. A look-up is one read.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use crate::balance::Ask;
use crate::balance::Peers;
use crate::balance::Seat;
use crate::balance::TRIES;
use crate::balance::chance::Chance;
use crate::balance::chance::admits;
use crate::balance::chance::mix;
use crate::balance::chance::part;
use crate::balance::least::LeastConnections;

/// Slots of a table; a prime, so that every step of an order passes every slot. Always the same, since
/// with their number nearly every key would move.
const SLOTS: usize = 65_537;

/// Slots of a table for more than [`MANY`] peers.
const MANY_SLOTS: usize = 655_373;

/// Up to how many peers [`SLOTS`] are enough: ten for each.
const MANY: usize = SLOTS / 10;

/// Up to how many peers their load is summed up at each choice.
const SUMMED: usize = 64;

/// In a larger group, the sum is made again after as many choices as a part of its peers; an eighth
/// changes the mean by less than an eighth of a request.
const AGAIN: u64 = 8;

/// A number for a key: equal for equal bytes, in every process and on every machine.
///
/// Not for secrets, nor for tables in which an attacker's collisions would cost: whoever chooses keys
/// can choose them so that all go to one peer, as one key alone would. A bound helps against both.
#[must_use]
pub fn key(bytes: &[u8]) -> u64 {
    let mut number = 0xCBF2_9CE4_8422_2325_u64;
    for &byte in bytes {
        // FNV-1a, whose upper bits lag behind; `mix` makes up for that.
        number = (number ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3);
    }
    mix(number)
}

/// Chooses by key.
#[derive(Debug)]
pub(super) struct ConsistentHash {
    table: Vec<u32>,
    weights: Vec<u32>,
    bound: Option<Bound>,
    least: LeastConnections,
}

impl ConsistentHash {
    pub(super) fn new(seats: &[Seat<'_>], percent: Option<u32>) -> Self {
        Self {
            table: table(seats),
            weights: seats.iter().map(|seat| seat.weight).collect(),
            bound: percent.map(|percent| Bound::new(percent, seats.len())),
            least: LeastConnections::new(seats),
        }
    }

    /// The peer of the key; without a key, one by weight.
    ///
    /// A key whose peer is not usable, or full, goes on to the next of a row of slots that is the
    /// same for this key each time; so the keys of one peer are spread over all others. While a peer
    /// gets ready, the keys come back to it one by one and stay.
    pub(super) fn pick(&self, ask: &Ask, peers: &impl Peers) -> Option<usize> {
        if self.table.is_empty() {
            return None;
        }
        let mut chance = Chance::new(ask.hash.unwrap_or(ask.random));
        let mean = self.bound.as_ref().map(|bound| bound.mean(&self.weights, peers));
        let mut unready = None;
        for _ in 0..TRIES {
            let number = chance.next();
            let peer = self.table[part(number, self.table.len() as u64) as usize] as usize;
            let is_full = |mean: &Mean| mean.is_full(peers.in_flight(peer), self.weights[peer]);
            if !peers.is_usable(peer) || mean.as_ref().is_some_and(is_full) {
                continue;
            }
            if admits(peers.readiness(peer), mix(number)) {
                return Some(peer);
            }
            unready = unready.or(Some(peer));
        }
        // Of all usable peers the least loaded one is never full.
        unready.or_else(|| self.least.best_of_all(peers, &mut chance))
    }

    /// How many slots each peer has.
    #[cfg(test)]
    pub(super) fn slots_of_each(&self) -> Vec<u32> {
        let mut counts = vec![0; self.weights.len()];
        for &peer in &self.table {
            counts[peer as usize] += 1;
        }
        counts
    }
}

/// How much more than the mean a peer may have in flight (Mirrokni and others, 2018).
#[derive(Debug)]
struct Bound {
    percent: u32,
    /// After how many choices the sum is made again.
    period: u64,
    choices: AtomicU64,
    in_flight: AtomicU64,
    weight: AtomicU64,
}

/// The load of all usable peers.
struct Mean {
    percent: u32,
    in_flight: u64,
    weight: u64,
}

impl Bound {
    fn new(percent: u32, peers: usize) -> Self {
        Self {
            // Below the mean there would be no room for what there is.
            percent: percent.max(100),
            period: if peers <= SUMMED { 1 } else { peers as u64 / AGAIN },
            choices: AtomicU64::new(0),
            in_flight: AtomicU64::new(0),
            weight: AtomicU64::new(0),
        }
    }

    fn mean(&self, weights: &[u32], peers: &impl Peers) -> Mean {
        let percent = self.percent;
        if self.period == 1 {
            let (in_flight, weight) = sum(weights, peers);
            return Mean { percent, in_flight, weight };
        }
        // Relaxed: a sum that is a little older does as well.
        if self.choices.fetch_add(1, Ordering::Relaxed).is_multiple_of(self.period) {
            let (in_flight, weight) = sum(weights, peers);
            self.in_flight.store(in_flight, Ordering::Relaxed);
            self.weight.store(weight, Ordering::Relaxed);
        }
        Mean {
            percent,
            in_flight: self.in_flight.load(Ordering::Relaxed),
            weight: self.weight.load(Ordering::Relaxed),
        }
    }
}

impl Mean {
    /// Whether one request more would be more than its share of all with this one, times the bound,
    /// rounded up.
    fn is_full(&self, in_flight: u32, weight: u32) -> bool {
        let share = u128::from(self.percent) * u128::from(weight) * u128::from(self.in_flight + 1);
        u128::from(in_flight) * u128::from(self.weight) * 100 >= share
    }
}

fn sum(weights: &[u32], peers: &impl Peers) -> (u64, u64) {
    let mut sums = (0_u64, 0_u64);
    for (peer, &weight) in weights.iter().enumerate() {
        if weight > 0 && peers.is_usable(peer) {
            sums.0 += u64::from(peers.in_flight(peer));
            sums.1 += u64::from(weight);
        }
    }
    sums
}

/// A peer that claims slots.
struct Claim {
    peer: u32,
    hash: u64,
    at: usize,
    step: usize,
    weight: u64,
    /// What is left of its weight from the turns before.
    saved: u64,
}

/// Whose each slot is; empty if there is no positive weight.
///
/// The turns go by the ids' hashes, not by the order of the seats. The heaviest peer claims a slot
/// at each turn, the others as often as their weight allows; a peer that is lighter than the
/// heaviest by more than the number of slots may get none.
fn table(seats: &[Seat<'_>]) -> Vec<u32> {
    let slots = if seats.len() <= MANY { SLOTS } else { MANY_SLOTS };
    let mut claims: Vec<Claim> = (0_u32..)
        .zip(seats)
        .filter(|(_, seat)| seat.weight > 0)
        .map(|(peer, seat)| {
            let hash = key(seat.id.as_bytes());
            let at = part(hash, slots as u64) as usize;
            let step = 1 + part(mix(hash), slots as u64 - 1) as usize;
            Claim { peer, hash, at, step, weight: u64::from(seat.weight), saved: 0 }
        })
        .collect();
    claims.sort_by_key(|claim| (claim.hash, claim.peer));
    let Some(heaviest) = claims.iter().map(|claim| claim.weight).max() else {
        return Vec::new();
    };
    let mut table = vec![None; slots];
    let mut left = slots;
    while left > 0 {
        for claim in &mut claims {
            claim.saved += claim.weight;
            if claim.saved < heaviest {
                continue;
            }
            claim.saved -= heaviest;
            while table[claim.at].is_some() {
                claim.at = (claim.at + claim.step) % slots;
            }
            table[claim.at] = Some(claim.peer);
            left -= 1;
            if left == 0 {
                break;
            }
        }
    }
    table.into_iter().flatten().collect()
}
