//! Parts of the program by themselves: `cargo bench --bench parts [balance|lend|decisions|tier|evict]`.
//!
//! What a whole request costs is for `benches/compare` to say; this says which part it is in.

use std::hint::black_box;
use std::time::Duration;
use std::time::Instant;

mod balance;
mod decisions;
mod evict;
mod lend;
mod tier;

// As in the program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A part of the benchmark by its name.
type Part = (&'static str, fn());

const PARTS: [Part; 5] = [
    ("balance", balance::run),
    ("lend", lend::run),
    ("decisions", decisions::run),
    ("tier", tier::run),
    ("evict", evict::run),
];

fn main() {
    // Cargo adds flags of its own.
    let wanted: Vec<String> =
        std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    if let Some(unknown) = wanted.iter().find(|word| PARTS.iter().all(|(name, _)| name != word)) {
        eprintln!("there is no part {unknown:?}: balance, lend, decisions, tier and evict are all");
        std::process::exit(64);
    }
    for (name, run) in PARTS {
        if wanted.is_empty() || wanted.iter().any(|word| word == name) {
            println!("\n## {name}\n");
            run();
        }
    }
}

/// How long one round of a measurement lasts.
const ROUND: Duration = Duration::from_millis(50);
/// How many rounds there are; the best counts, since what disturbs a machine only adds.
const ROUNDS: usize = 28;

/// Nanoseconds for one call of `work`, which is given the number of the call.
fn nanoseconds<T>(mut work: impl FnMut(u64) -> T) -> f64 {
    let mut number = 0_u64;
    let mut best = f64::INFINITY;
    for _ in 0..ROUNDS {
        let began = Instant::now();
        let first = number;
        while began.elapsed() < ROUND {
            // Reading the clock costs as much as some of the work.
            for _ in 0..64 {
                black_box(work(number));
                number += 1;
            }
        }
        best = best.min(began.elapsed().as_nanos() as f64 / (number - first) as f64);
    }
    best
}

/// A source of numbers that look random and are the same in every run.
struct Random(u64);

impl Random {
    /// From 0 to 1, not 1 itself.
    fn unit(&mut self) -> f64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// A number below `most`.
    fn below(&mut self, most: u32) -> u32 {
        ((self.unit() * f64::from(most)) as u32).min(most - 1)
    }

    /// About Zipf: how often a rank comes falls like one over the rank.
    fn skewed(&mut self, ranks: u32) -> u32 {
        (f64::from(ranks).powf(self.unit()) as u32 - 1).min(ranks - 1)
    }
}
