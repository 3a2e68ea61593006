//! Balancing: which peer of a group a request goes to.
//!
//! A [`Balancer`] is built from the seats of a group, their ids and weights, and asked for each
//! request. What changes from one moment to the next (who is usable, how much is in flight) is the
//! caller's knowledge, asked through [`Peers`]; chance is an argument, too. Choosing takes no lock and
//! allocates nothing, and it always ends with a usable peer of positive weight if there is one.
//!
//! | file | chooses |
//! |---|---|
//! | [`weighted`] | by turns, in exact shares |
//! | `random` | by chance |
//! | `least` | the fewest requests in flight |
//! | `two_choices`, [`ewma`] | the better of two by latency and requests in flight |
//! | [`mod@hash`] | by a key |
//!
//! Three rules hold for all. The share of an unusable peer falls to the others in proportion to
//! their weights. A peer of weight 0 is never chosen. And a peer whose [readiness](Peers::readiness) is
//! below [`READY`] is passed over with the chance that it lacks, unless all usable ones are.

mod best;
mod chance;
pub mod ewma;
pub mod hash;
mod least;
mod random;
#[cfg(test)]
mod tests;
mod two_choices;
pub mod weighted;

use crate::balance::hash::ConsistentHash;
use crate::balance::least::LeastConnections;
use crate::balance::random::Random;
use crate::balance::two_choices::TwoChoices;

pub use crate::balance::ewma::PeakEwma;
pub use crate::balance::weighted::LONGEST_CYCLE;
pub use crate::balance::weighted::WeightedRoundRobin;

/// The readiness of a peer that takes its whole share.
pub const READY: u32 = 1000;

/// How many draws may miss the usable peers before all peers are asked instead, which in a large group takes
/// as long as some hundred draws. When a tenth of all are usable, one choice of a thousand comes to that.
const TRIES: usize = 64;

/// How a peer is chosen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Algorithm {
    /// By turns, spread evenly, in exact shares by weight.
    #[default]
    RoundRobin,
    /// By chance, by weight.
    Random,
    /// The fewest requests in flight for the weight: of all in a small group, of some in a large one.
    LeastConnections,
    /// Of two, the one where a request costs less by latency and requests in flight.
    PeakEwma,
    /// By the key of the request: [`Ask::hash`].
    ConsistentHash {
        /// The most that a peer may have in flight, in percent of its share of all that is in flight
        /// in the group; at least 100. `None`: as much as comes.
        bound: Option<u32>,
    },
}

/// A place in a group; a peer is known by its position among the seats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seat<'a> {
    /// What makes it the same peer in another group, or in this one after a change.
    pub id: &'a str,
    /// Its share. 0: none.
    pub weight: u32,
}

/// What is known of the peers at this moment, by their position.
pub trait Peers {
    /// Whether a request may go there.
    fn is_usable(&self, peer: usize) -> bool;

    /// How many requests are there now.
    fn in_flight(&self, peer: usize) -> u32;

    /// What a request costs there by itself, in any unit: [`PeakEwma::cost`].
    fn cost(&self, peer: usize) -> u64;

    /// Of how much of its share it is capable, in thousandths: below [`READY`] in its slow start. What counts is how much
    /// that is beside the others'; where nobody has as much as [`READY`], draws are in vain.
    fn readiness(&self, peer: usize) -> u32;
}

/// What a choice is made by, besides the peers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ask {
    /// Any number, another one for each choice.
    pub random: u64,
    /// The key of the request, for [`Algorithm::ConsistentHash`]: see [`hash::key`].
    pub hash: Option<u64>,
    /// It is another choice for the same request, and nobody's turn.
    pub is_again: bool,
}

/// An algorithm over the seats of a group.
#[derive(Debug)]
pub struct Balancer {
    way: Way,
}

#[derive(Debug)]
enum Way {
    RoundRobin(WeightedRoundRobin),
    Random(Random),
    LeastConnections(LeastConnections),
    TwoChoices(TwoChoices),
    Hash(ConsistentHash),
}

impl Balancer {
    /// Prepares for these seats. A table of the consistent hash takes some milliseconds, the others
    /// far less.
    #[must_use]
    pub fn new(algorithm: &Algorithm, seats: &[Seat<'_>]) -> Self {
        let way = match *algorithm {
            Algorithm::RoundRobin => {
                let weights: Vec<u32> = seats.iter().map(|seat| seat.weight).collect();
                Way::RoundRobin(WeightedRoundRobin::new(&weights))
            }
            Algorithm::Random => Way::Random(Random::new(seats)),
            Algorithm::LeastConnections => Way::LeastConnections(LeastConnections::new(seats)),
            Algorithm::PeakEwma => Way::TwoChoices(TwoChoices::new(seats)),
            Algorithm::ConsistentHash { bound } => Way::Hash(ConsistentHash::new(seats, bound)),
        };
        Self { way }
    }

    /// The peer for a request; `None` when none of positive weight is usable.
    ///
    /// `peers` must know the positions of all seats.
    pub fn pick(&self, ask: &Ask, peers: &impl Peers) -> Option<usize> {
        match &self.way {
            Way::RoundRobin(way) => way.choose(ask, peers),
            Way::Random(way) => way.pick(ask, peers),
            Way::LeastConnections(way) => way.pick(ask, peers),
            Way::TwoChoices(way) => way.pick(ask, peers),
            Way::Hash(way) => way.pick(ask, peers),
        }
    }
}
