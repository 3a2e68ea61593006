//! Many numbers out of one, and what chance a peer has that is not wholly ready.

use crate::balance::Peers;
use crate::balance::READY;

/// 2^64 divided by the golden ratio: steps of it fill the numbers evenly.
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// A stream of numbers that are as good as random if its seed is (splitmix64).
#[derive(Debug, Clone)]
pub(super) struct Chance(u64);

impl Chance {
    /// The stream of this seed.
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number, of all 64 bits.
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GOLDEN);
        mix(self.0)
    }

    /// The next number below `whole`; 0 if that is 0.
    pub(super) fn below(&mut self, whole: u64) -> u64 {
        part(self.next(), whole)
    }

    /// Whether a peer of this readiness is taken. Asks for a number only when that is open.
    pub(super) fn admits(&mut self, readiness: u32) -> bool {
        readiness >= READY || admits(readiness, self.next())
    }
}

/// The `step`-th point of Weyl's sequence, whose points fill the numbers evenly for every count.
pub(super) fn evenly(step: u64) -> u64 {
    step.wrapping_mul(GOLDEN)
}

/// A number in which every bit depends on every bit of the given one.
pub(super) fn mix(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    number ^ (number >> 31)
}

/// As far into `whole` as `fraction` is into all numbers; below `whole` unless that is 0.
pub(super) fn part(fraction: u64, whole: u64) -> u64 {
    ((u128::from(fraction) * u128::from(whole)) >> 64) as u64
}

/// Whether a peer of this readiness is taken where chance says `number`.
pub(super) fn admits(readiness: u32, number: u64) -> bool {
    part(number, u64::from(READY)) < u64::from(readiness)
}

/// The first usable peer of at most `tries` draws that has the chance which its readiness gives it.
///
/// When all that were usable missed their chance, one of them in proportion to their readiness.
/// `None` says that no draw was usable, not that nobody is.
pub(super) fn draw(
    tries: usize,
    peers: &impl Peers,
    chance: &mut Chance,
    mut drawn: impl FnMut(&mut Chance) -> usize,
) -> Option<usize> {
    let mut held = None;
    let mut held_for = 0_u64;
    for _ in 0..tries {
        let peer = drawn(chance);
        if !peers.is_usable(peer) {
            continue;
        }
        let readiness = peers.readiness(peer);
        if chance.admits(readiness) {
            return Some(peer);
        }
        let share = u64::from(readiness.max(1));
        held_for += share;
        if chance.below(held_for) < share {
            held = Some(peer);
        }
    }
    held
}

/// The usable peer that stands at `fraction` of all usable ones, laid side by side, each as long as
/// its weight and readiness. Asks every peer, so it is for when few are usable.
pub(super) fn among_usable(
    weights: impl Iterator<Item = u64> + Clone,
    peers: &impl Peers,
    fraction: u64,
) -> Option<usize> {
    let share = |(peer, weight): (usize, u64)| {
        if weight > 0 && peers.is_usable(peer) {
            let readiness = u64::from(peers.readiness(peer).max(1));
            (peer, weight.saturating_mul(readiness))
        } else {
            (peer, 0)
        }
    };
    let shares = || weights.clone().enumerate().map(share);
    let total = shares().fold(0_u64, |sum, (_, share)| sum.saturating_add(share));
    let mut at = part(fraction, total);
    let mut last = None;
    for (peer, share) in shares().filter(|&(_, share)| share > 0) {
        if at < share {
            return Some(peer);
        }
        at -= share;
        // For when peers ceased to be usable since the sum was made.
        last = Some(peer);
    }
    last
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::Algorithm;
    use crate::balance::Ask;
    use crate::balance::Balancer;
    use crate::balance::Seat;

    struct Odd;

    impl Peers for Odd {
        fn is_usable(&self, peer: usize) -> bool {
            peer % 2 == 1
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

    #[test]
    fn where_one_peer_ends_the_next_usable_one_begins() {
        let at = |fraction| among_usable([9, 1, 9, 3].into_iter(), &Odd, fraction);
        assert_eq!(at(0), Some(1));
        assert_eq!(at((1 << 62) - 1), Some(1));
        assert_eq!(at(1 << 62), Some(3));
        assert_eq!(at(u64::MAX), Some(3));
    }

    #[test]
    fn of_a_group_without_a_usable_peer_nobody_is_taken() {
        let seats = [Seat { id: "even", weight: 1 }];
        let ask = Ask { random: 1, ..Ask::default() };
        assert_eq!(Balancer::new(&Algorithm::Random, &seats).pick(&ask, &Odd), None);
        assert_eq!(among_usable([1].into_iter(), &Odd, 5), None);
    }
}
