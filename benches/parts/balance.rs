//! Which peer of a group: each algorithm, in a small group and in a large one.

use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;
use std::time::Duration;

use edgeproxy::balance::Algorithm;
use edgeproxy::balance::Ask;
use edgeproxy::balance::Balancer;
use edgeproxy::balance::PeakEwma;
use edgeproxy::balance::Peers;
use edgeproxy::balance::READY;
use edgeproxy::balance::Seat;
use edgeproxy::resilience::breaker;
use edgeproxy::resilience::breaker::Breaker;
use edgeproxy::resilience::breaker::Verdict;

use crate::Random;
use crate::nanoseconds;

/// How many choices are prepared; a power of two.
const ASKS: usize = 1 << 12;

/// Peers as a running group has them: a breaker each, a count, a latency.
struct Group {
    peers: Vec<Peer>,
    now: Duration,
}

struct Peer {
    breaker: Breaker,
    in_flight: AtomicU32,
    latency: PeakEwma,
}

impl Peers for Group {
    fn is_usable(&self, peer: usize) -> bool {
        self.peers[peer].breaker.admits(self.now)
    }

    fn in_flight(&self, peer: usize) -> u32 {
        self.peers[peer].in_flight.load(Ordering::Relaxed)
    }

    fn cost(&self, peer: usize) -> u64 {
        self.peers[peer].latency.cost(self.in_flight(peer), self.now)
    }

    fn readiness(&self, _: usize) -> u32 {
        READY
    }
}

/// Prints what one choice costs.
pub(crate) fn run() {
    println!("| algorithm | peers | ns |");
    println!("|---|---:|---:|");
    let algorithms = [
        ("round robin", Algorithm::RoundRobin),
        ("random", Algorithm::Random),
        ("least connections", Algorithm::LeastConnections),
        ("peak EWMA", Algorithm::PeakEwma),
        ("hash", Algorithm::ConsistentHash { bound: None }),
        ("hash, bound of 125", Algorithm::ConsistentHash { bound: Some(125) }),
    ];
    for count in [10, 1000] {
        let mut random = Random(1);
        let group = group(count, &mut random);
        let ids: Vec<String> =
            (0..count).map(|peer| format!("10.1.{}.{}:8080", peer / 250, peer % 250)).collect();
        let seats: Vec<Seat<'_>> =
            (1..).zip(&ids).map(|(turn, id)| Seat { id, weight: 1 + turn % 4 }).collect();
        let asks: Vec<Ask> = (0..ASKS)
            .map(|_| Ask {
                random: bits(&mut random),
                hash: Some(bits(&mut random)),
                is_again: false,
            })
            .collect();
        for (name, algorithm) in algorithms {
            let balancer = Balancer::new(&algorithm, &seats);
            let cost = nanoseconds(|n| balancer.pick(&asks[n as usize % ASKS], &group));
            println!("| {name} | {count} | {cost:.0} |");
        }
        if count < 1000 {
            continue;
        }
        // Of ten, nine have an open breaker: which ones has no order.
        for peer in &group.peers {
            if random.below(10) > 0 {
                open(&peer.breaker, group.now);
            }
        }
        for (name, algorithm) in algorithms {
            let balancer = Balancer::new(&algorithm, &seats);
            let cost = nanoseconds(|n| balancer.pick(&asks[n as usize % ASKS], &group));
            println!("| {name}, nine of ten out | {count} | {cost:.0} |");
        }
    }
}

/// Makes it fail until it is open.
fn open(breaker: &Breaker, now: Duration) {
    while let Some(pass) = breaker.enter(now) {
        breaker.leave(pass, Verdict::Failure, now);
    }
}

/// Each peer has about as much in flight for its weight, as it is in a group that balances.
fn group(count: usize, random: &mut Random) -> Group {
    let now = Duration::from_secs(60);
    let peer = |turn: u32| {
        let latency = PeakEwma::new(Duration::from_secs(10));
        latency.observe(Duration::from_micros(u64::from(1000 + random.below(4000))), now);
        Peer {
            breaker: Breaker::new(&breaker::Settings::default()),
            in_flight: AtomicU32::new((1 + turn % 4) * 10 + random.below(3)),
            latency,
        }
    };
    Group { peers: (1..).take(count).map(peer).collect(), now }
}

/// All 64 bits of a number.
fn bits(random: &mut Random) -> u64 {
    let upper = u64::from(random.below(u32::MAX));
    upper << 32 | u64::from(random.below(u32::MAX))
}
