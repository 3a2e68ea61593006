//! A simulated life of one upstream: backends that die, come back, restart, slow down and flap, thousands of
//! requests, on a clock that is turned. The upstream is the program's own, and its requests are lent backends and
//! say how it went as those of the proxy do; what is not there is the network between.
//!
//! Each story follows from its seed: `SEED=7 cargo test --lib simulation` tells one again.

mod oracle;
mod setting;
mod story;

use std::env;

use self::story::Story;
use self::story::Told;

/// How many stories are told.
const STORIES: u64 = 200;

#[test]
fn upstreams_survive_their_stories() {
    let seeds = match env::var("SEED") {
        Ok(seed) => {
            let seed = seed.parse().expect("SEED is a number");
            seed..seed + 1
        }
        Err(_) => 0..STORIES,
    };
    let mut all = Told::default();
    for seed in seeds.clone() {
        let told = Story::new(seed).tell();
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
    assert!(all.resets > 0, "{all:?}");
    assert!(all.cut_together > STORIES && all.outlived > STORIES && all.shed > 0, "{all:?}");
    // Origins were dead, slow or flapping for a good part of the time; clients hardly noticed.
    assert!(all.failed_idempotent * 100 <= all.requests * 3, "{all:?}");
}

#[test]
fn a_story_follows_from_its_seed() {
    assert_eq!(Story::new(7).tell(), Story::new(7).tell());
}
