use std::cmp::Reverse;
use std::collections::BinaryHeap;

use proptest::prelude::*;

use super::*;

/// A server that works at `workers` requests at once, each for `work`, while the others queue; and
/// clients that want `demand` requests in flight, and get as many as the limit lets in.
struct Server {
    /// How long a request takes, on average.
    work: u64,
    /// With chance: by an exponential distribution.
    chance: Option<u64>,
    /// When each worker is free, in microseconds.
    free: BinaryHeap<Reverse<u64>>,
}

impl Server {
    fn new(workers: usize, work: u64) -> Self {
        Self { work, chance: None, free: (0..workers).map(|_| Reverse(0)).collect() }
    }

    /// One whose requests take very different times.
    fn uneven(workers: usize, work: u64) -> Self {
        Self { chance: Some(1), ..Self::new(workers, work) }
    }

    /// How long the next one takes.
    fn takes(&mut self) -> u64 {
        let Some(chance) = &mut self.chance else { return self.work };
        *chance =
            chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let uniform = ((*chance >> 11) as f64 + 1.0) / (1_u64 << 53) as f64;
        (-uniform.ln() * self.work as f64) as u64
    }

    /// When a request that comes now is answered.
    fn answers(&mut self, now: u64) -> u64 {
        let Reverse(free) = self.free.pop().expect("there are workers");
        let done = free.max(now) + self.takes();
        self.free.push(Reverse(done));
        done
    }
}

/// Lets `demand` clients ask for `seconds`, and says what the limit was on average in the last half.
fn settle(limit: &Limit, server: &mut Server, demand: usize, seconds: u64, clock: &mut u64) -> f64 {
    let end = *clock + seconds * 1_000_000;
    let half = *clock + seconds * 500_000;
    let mut running = BinaryHeap::new();
    let (mut sum, mut count) = (0.0, 0.0);
    while *clock < end {
        while running.len() < demand && limit.try_enter() {
            running.push(Reverse((server.answers(*clock), *clock)));
        }
        let Some(Reverse((done, from))) = running.pop() else {
            *clock += 1000;
            continue;
        };
        *clock = done;
        let latency = Duration::from_micros(done - from);
        limit.leave(Ended::Answered(latency), Duration::from_micros(*clock));
        if *clock > half {
            sum += f64::from(limit.limit());
            count += 1.0;
        }
    }
    for Reverse((done, _)) in running {
        limit.leave(Ended::Neutral, Duration::from_micros(done));
    }
    sum / count
}

#[test]
fn it_comes_down_to_what_the_server_works_at() {
    for workers in [10, 40, 150] {
        let limit = Limit::new(Settings { initial: 500, ..Settings::default() });
        let mut server = Server::new(workers, 20_000);
        let found = settle(&limit, &mut server, 600, 60, &mut 0);
        let workers = workers as f64;
        // The tolerated half of a queue, and the root.
        let most = workers * 1.5 + 2.5 * workers.sqrt() + 4.0;
        assert!((workers * 0.8..most).contains(&found), "{found:.1} for {workers} workers");
    }
}

#[test]
fn it_does_not_follow_the_queue_that_it_lets_in() {
    for (workers, work, tolerance) in [
        (5, 50_000, 120),
        (5, 50_000, 200),
        (5, 50_000, 300),
        (50, 50_000, 300),
        (20, 500_000, 150),
    ] {
        for uneven in [false, true] {
            let settings = Settings { min: 2, tolerance, ..Settings::default() };
            let limit = Limit::new(settings);
            let server = || match uneven {
                false => Server::new(workers, work),
                true => Server::uneven(workers, work),
            };
            let mut clock = 0;
            settle(&limit, &mut server(), 3, 3, &mut clock);
            let found = settle(&limit, &mut server(), workers * 12, 120, &mut clock);
            let tolerated = workers as f64 * f64::from(tolerance) / 100.0;
            // What is added to find out whether there is more, and what chance adds.
            let most = (tolerated + 2.0 * tolerated.sqrt()) * if uneven { 1.5 } else { 1.2 };
            let least = workers as f64 * 0.8;
            let case = (workers, work, tolerance, uneven);
            assert!((least..most).contains(&found), "{found:.1} is not below {most:.1}: {case:?}");
        }
    }
}

#[test]
fn who_is_not_slow_is_not_looked_at() {
    // There are more workers than may be used at once.
    let limit = Limit::new(Settings { max: 100, ..Settings::default() });
    let mut server = Server::uneven(1000, 20_000);
    let mut clock = 0;
    settle(&limit, &mut server, 80, 10, &mut clock);
    let found = settle(&limit, &mut server, 80, 60, &mut clock);
    assert_eq!(found, 100.0);
}

#[test]
fn it_goes_up_when_there_is_room_and_somebody_wants_it() {
    let limit = Limit::new(Settings { initial: 10, max: 300, ..Settings::default() });
    let mut server = Server::new(1000, 20_000);
    let found = settle(&limit, &mut server, 500, 40, &mut 0);
    assert!(found > 270.0, "{found:.1}");
}

#[test]
fn it_stays_where_it_is_when_nobody_wants_more() {
    let limit = Limit::new(Settings::default());
    let mut server = Server::new(1000, 20_000);
    let found = settle(&limit, &mut server, 5, 20, &mut 0);
    assert_eq!(found, 20.0);
}

#[test]
fn it_follows_a_server_that_loses_workers_and_gets_them_back() {
    let limit = Limit::new(Settings::default());
    let mut clock = 0;
    let all = settle(&limit, &mut Server::new(60, 10_000), 300, 40, &mut clock);
    let few = settle(&limit, &mut Server::new(12, 10_000), 300, 40, &mut clock);
    let again = settle(&limit, &mut Server::new(60, 10_000), 300, 40, &mut clock);
    assert!((48.0..115.0).contains(&all), "{all:.1} of 60");
    assert!((9.0..31.0).contains(&few), "{few:.1} of 12");
    assert!((48.0..115.0).contains(&again), "{again:.1} of 60 again");
}

#[test]
fn a_server_that_has_become_slower_without_a_queue_keeps_its_limit() {
    let limit = Limit::new(Settings { initial: 30, ..Settings::default() });
    let mut clock = 0;
    settle(&limit, &mut Server::new(1000, 10_000), 25, 10, &mut clock);
    let slower = settle(&limit, &mut Server::new(1000, 50_000), 25, 120, &mut clock);
    assert!(slower >= 20.0, "{slower:.1}");
}

#[test]
fn a_server_that_has_become_slower_while_it_is_full_is_not_taken_for_a_queue() {
    let limit = Limit::new(Settings::default());
    let mut clock = 0;
    let before = settle(&limit, &mut Server::new(100, 10_000), 400, 40, &mut clock);
    let after = settle(&limit, &mut Server::new(100, 30_000), 400, 60, &mut clock);
    assert!(before > 80.0, "{before:.1} of 100");
    assert!(after > 80.0, "{after:.1} of 100, each three times as slow");
}

#[test]
fn what_is_dropped_takes_it_down_to_its_least() {
    let limit = Limit::new(Settings { initial: 100, min: 7, ..Settings::default() });
    for turn in 0..40 {
        assert!(limit.try_enter());
        limit.leave(Ended::Dropped, Duration::from_millis(turn * 100));
    }
    assert_eq!(limit.limit(), 7);
    assert_eq!(limit.in_flight(), 0);
}

#[test]
fn within_a_window_it_is_taken_down_once() {
    let limit = Limit::new(Settings { initial: 100, ..Settings::default() });
    for _ in 0..20 {
        assert!(limit.try_enter());
        limit.leave(Ended::Dropped, Duration::from_millis(50));
    }
    assert_eq!(limit.limit(), 90);
}

#[test]
fn no_more_enter_than_the_limit_says() {
    let limit = Limit::new(Settings { initial: 3, min: 1, ..Settings::default() });
    assert!(limit.try_enter() && limit.try_enter() && limit.try_enter());
    assert!(!limit.try_enter());
    limit.leave(Ended::Neutral, Duration::ZERO);
    assert!(limit.try_enter());
}

#[test]
fn threads_that_enter_together_keep_to_it_and_all_leave() {
    let limit = Limit::new(Settings { initial: 8, min: 8, max: 8, ..Settings::default() });
    let inside = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for thread in 0..4_u64 {
            let (limit, inside) = (&limit, &inside);
            scope.spawn(move || {
                for turn in 0..20_000_u64 {
                    let mut entered = 0;
                    while entered < 3 && limit.try_enter() {
                        entered += 1;
                    }
                    let count = inside.fetch_add(entered, Ordering::SeqCst) + entered;
                    assert!(count <= 8, "{count} are inside");
                    inside.fetch_sub(entered, Ordering::SeqCst);
                    for _ in 0..entered {
                        let latency = Duration::from_micros(100 * (thread + 1));
                        limit.leave(Ended::Answered(latency), Duration::from_micros(turn * 50));
                    }
                }
            });
        }
    });
    assert_eq!((limit.in_flight(), limit.limit()), (0, 8));
}

proptest! {
    #[test]
    fn it_never_leaves_its_bounds(
        min in 0_u32..20,
        room in 0_u32..200,
        initial in 0_u32..400,
        tolerance in 0_u32..300,
        windows in proptest::collection::vec((0_u64..1_000_000, 0_u32..400, any::<bool>()), 1..300),
    ) {
        let settings = Settings { initial, min, max: min + room, tolerance, ..Settings::default() };
        let bounds = min.max(1)..=(min + room).max(1);
        let limit = Limit::new(settings.clone());
        prop_assert!(bounds.contains(&limit.limit()));
        let mut state = limit.control.load();
        for (latency, highest, dropped) in windows {
            let seen = Seen { latency: latency as f64, highest, dropped };
            state = next_state(&settings, state, seen);
            prop_assert!(state.limit.is_finite() && state.baseline.is_finite());
            prop_assert!(bounds.contains(&admitted(&settings, state)));
        }
    }
}

proptest! {
    // Each case is some hundred thousand requests.
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn it_comes_down_with_any_server_that_is_slower_the_more_it_has(
        workers in 8_usize..80,
        work in 10_000_u64..60_000,
        seed in 0_u32..800,
    ) {
        let limit = Limit::new(Settings { initial: seed, ..Settings::default() });
        let found = settle(&limit, &mut Server::new(workers, work), 900, 40, &mut 0);
        let workers = workers as f64;
        let most = workers * 1.6 + 2.5 * workers.sqrt() + 6.0;
        prop_assert!((workers * 0.7..most).contains(&found), "{found:.1} for {workers} workers");
    }
}
