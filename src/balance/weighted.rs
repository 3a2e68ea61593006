//! Weighted round robin: which peer comes next.
//!
//! The order of one whole cycle is worked out once; choosing is one atomic addition and a few reads,
//! without a lock. Which peers are usable is the caller's knowledge and is asked at every choice.

use std::cell::Cell;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use crate::balance::Ask;
use crate::balance::Peers;
use crate::balance::READY;
use crate::balance::chance::Chance;
use crate::balance::chance::among_usable;
use crate::balance::chance::draw;
use crate::balance::chance::evenly;

/// The longest cycle that is worked out. Weights that need a longer one are scaled down; see
/// [`WeightedRoundRobin::new`].
pub const LONGEST_CYCLE: usize = 4096;

/// How many slots of the cycle are tried before the usable peers are counted instead.
const TRIES: usize = 64;

/// Chooses among numbered peers in proportion to their weights, evenly spread over time.
///
/// After any number *t* of choices, a peer of weight *w* out of *W* was chosen neither less nor more
/// than one time off its share *t·w/W*; after a whole cycle the shares are exact.
#[derive(Debug)]
pub struct WeightedRoundRobin {
    weights: Vec<u64>,
    cycle: Vec<u32>,
    next: AtomicUsize,
}

impl WeightedRoundRobin {
    /// Prepares the order for these weights; a peer is known by its position in the slice, and one
    /// of weight zero is never chosen.
    ///
    /// The weights are divided by their greatest common divisor. Should the cycle still be longer
    /// than [`LONGEST_CYCLE`], they are scaled down to about that sum, rounded to the nearest whole
    /// number and never below one; a share is then off by less than one slot of the cycle, except
    /// that a tiny one is raised to one slot.
    #[must_use]
    pub fn new(weights: &[u32]) -> Self {
        let weights = reduced(weights);
        let cycle = evenly_spread(&weights);
        Self { weights, cycle, next: AtomicUsize::new(0) }
    }

    /// The next peer for which `usable` holds; `None` when there is none of a positive weight.
    ///
    /// Slots of unusable peers are passed over, so that their share falls to the others in
    /// proportion to the others' weights, not to a neighbour alone. Where nearly all slots are
    /// unusable, all peers are asked instead.
    pub fn pick(&self, usable: impl Fn(usize) -> bool) -> Option<usize> {
        self.choose(&Ask::default(), &AllReady(usable))
    }

    /// The next peer that is usable and, as far as it is not ready, has the chance. Where there is none, and for who
    /// asks again, the turns stay as they are.
    pub(super) fn choose(&self, ask: &Ask, peers: &impl Peers) -> Option<usize> {
        if self.cycle.is_empty() {
            return None;
        }
        let tries = TRIES.min(self.cycle.len());
        let mut chance = Chance::new(ask.random);
        let weights = self.weights.iter().copied();
        if ask.is_again {
            let drawn = |chance: &mut Chance| {
                self.cycle[chance.below(self.cycle.len() as u64) as usize] as usize
            };
            return draw(tries, peers, &mut chance, drawn)
                .or_else(|| among_usable(weights, peers, chance.next()));
        }
        let steps = Cell::new(0);
        let step = || {
            steps.set(steps.get() + 1);
            self.step()
        };
        let next = |_: &mut Chance| match *self.cycle {
            // All threads count, each waiting for the others, and of one there is nothing to count.
            [only] => only as usize,
            ref cycle => cycle[step() % cycle.len()] as usize,
        };
        // Most slots may be unusable, or other threads took the usable ones. A step in the weights
        // of the usable peers, spread evenly, holds their shares then, too.
        let chosen = draw(tries, peers, &mut chance, next)
            .or_else(|| among_usable(weights, peers, evenly(step() as u64)));
        if chosen.is_none() {
            // Who is less particular asks next, for the same request.
            self.next.fetch_sub(steps.get(), Ordering::Relaxed);
        }
        chosen
    }

    /// How many choices make one whole cycle.
    #[must_use]
    pub fn cycle_len(&self) -> usize {
        self.cycle.len()
    }

    /// The next step, starting over where the counter wraps (after 2^64 choices on 64-bit machines).
    fn step(&self) -> usize {
        // Relaxed: the count orders nothing but itself.
        self.next.fetch_add(1, Ordering::Relaxed)
    }
}

/// Peers of which only is known whether they are usable.
struct AllReady<F>(F);

impl<F: Fn(usize) -> bool> Peers for AllReady<F> {
    fn is_usable(&self, peer: usize) -> bool {
        self.0(peer)
    }

    fn in_flight(&self, _: usize) -> u32 {
        0
    }

    fn cost(&self, _: usize) -> u64 {
        0
    }

    fn readiness(&self, _: usize) -> u32 {
        READY
    }
}

/// The weights in lowest terms, with a sum of at most [`LONGEST_CYCLE`] as far as one slot for each
/// peer allows.
fn reduced(weights: &[u32]) -> Vec<u64> {
    let divisor = weights.iter().fold(0, |so_far, &weight| gcd(so_far, u64::from(weight))).max(1);
    let mut weights: Vec<u64> = weights.iter().map(|&w| u64::from(w) / divisor).collect();
    let sum = weights.iter().fold(0_u64, |sum, &w| sum.saturating_add(w));
    let longest = LONGEST_CYCLE as u64;
    if sum > longest {
        for weight in weights.iter_mut().filter(|weight| **weight > 0) {
            let scaled = (u128::from(*weight) * u128::from(longest) * 2 + u128::from(sum))
                / (u128::from(sum) * 2);
            *weight = u64::try_from(scaled).unwrap_or(longest).max(1);
        }
        let divisor = weights.iter().fold(0, |so_far, &weight| gcd(so_far, weight)).max(1);
        weights.iter_mut().for_each(|weight| *weight /= divisor);
    }
    weights
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// One cycle in which every peer keeps within one slot of its share at every point.
///
/// The *j*-th turn (from 0) of weight *w* out of *W* may come from slot ⌊jW/w⌋ and has to come before
/// slot ⌈(j+1)W/w⌉. Taking, of the turns that may come, the one that is due first meets every one of
/// these bounds: an even schedule in fractions exists, and for jobs of length one on one machine
/// "earliest deadline first" finds a schedule where there is any.
fn evenly_spread(weights: &[u64]) -> Vec<u32> {
    let sum: u64 = weights.iter().sum();
    let mut waiting = BinaryHeap::new();
    let mut ready = BinaryHeap::new();
    for (peer, &weight) in (0_u32..).zip(weights) {
        if weight > 0 {
            waiting.push(Reverse((0_u64, peer, 0_u64)));
        }
    }
    let mut cycle = Vec::with_capacity(usize::try_from(sum).unwrap_or(0));
    for slot in 0..sum {
        while let Some(&Reverse((from, peer, turn))) = waiting.peek() {
            if from > slot {
                break;
            }
            waiting.pop();
            let due = ((turn + 1) * sum).div_ceil(weights[peer as usize]);
            ready.push(Reverse((due, peer, turn)));
        }
        let Some(Reverse((_, peer, turn))) = ready.pop() else {
            continue;
        };
        cycle.push(peer);
        let weight = weights[peer as usize];
        if turn + 1 < weight {
            waiting.push(Reverse(((turn + 1) * sum / weight, peer, turn + 1)));
        }
    }
    cycle
}

#[cfg(test)]
#[path = "weighted_tests.rs"]
mod tests;
