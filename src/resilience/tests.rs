//! A simulated group: peers that die, come back, slow down and flap, thousands of requests, on a clock
//! that is turned. Everything of this module and a balancer decide together, as in the program.
//!
//! Each story follows from its seed: `SEED=7 cargo test --lib resilience::tests` tells one again.

mod group;
mod oracle;
mod story;

use std::env;

use crate::balance::Algorithm;
use crate::resilience::tests::story::Story;
use crate::resilience::tests::story::Told;

/// How many stories are told.
const STORIES: u64 = 200;

/// The algorithm of a story.
fn algorithm(seed: u64) -> Algorithm {
    let all = [
        Algorithm::RoundRobin,
        Algorithm::Random,
        Algorithm::LeastConnections,
        Algorithm::PeakEwma,
        Algorithm::ConsistentHash { bound: None },
        Algorithm::ConsistentHash { bound: Some(125) },
    ];
    all[(seed % all.len() as u64) as usize]
}

#[test]
fn groups_survive_their_stories() {
    let seeds = match env::var("SEED") {
        Ok(seed) => {
            let seed = seed.parse().expect("SEED is a number");
            seed..seed + 1
        }
        Err(_) => 0..STORIES,
    };
    let mut all = Told::default();
    for seed in seeds.clone() {
        let told = Story::new(seed, algorithm(seed)).tell();
        println!("seed {seed}: {told:?}");
        all.add(&told);
    }
    println!("all: {all:?}");
    if seeds.end - seeds.start < STORIES {
        return;
    }
    // That all of it came about; otherwise the stories would show nothing.
    assert!(all.requests > 100 * STORIES && all.retries > STORIES && all.dead > STORIES, "{all:?}");
    assert!(all.opened > STORIES && all.closed > STORIES && all.ejected > STORIES, "{all:?}");
    assert!(all.refused_by_budget > 0 && all.nobody > 0 && all.drains > STORIES, "{all:?}");
    // Origins were dead, slow or flapping for a good part of the time; clients hardly noticed.
    assert!(all.failed_idempotent * 100 <= all.requests * 3, "{all:?}");
}
