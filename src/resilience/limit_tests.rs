use std::cmp::Reverse;
use std::collections::BinaryHeap;

use proptest::prelude::*;

use super::*;

/// How long the requests of a server take, of which the mean is known.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Times {
    /// All as long.
    Even,
    /// By an exponential distribution.
    Exponential,
    /// Nine of ten a fifth of the mean, and the others eight times it.
    Twofold,
}

/// A server that works at `workers` requests at once, each for `work` microseconds on average, while the others queue.
struct Server {
    work: u64,
    times: Times,
    chance: Chance,
    /// When each worker is free, in microseconds.
    free: BinaryHeap<Reverse<u64>>,
}

/// Numbers by chance, the same ones each time.
struct Chance(u64);

impl Chance {
    /// Between 0 and 1, of which only 1 may come.
    fn uniform(&mut self) -> f64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 11) as f64 + 1.0) / (1_u64 << 53) as f64
    }

    /// By an exponential distribution, of which the mean is 1.
    fn exponential(&mut self) -> f64 {
        -self.uniform().ln()
    }
}

impl Server {
    fn new(workers: usize, work: u64) -> Self {
        Self::uneven(workers, work, Times::Even)
    }

    /// One whose requests take different times.
    fn uneven(workers: usize, work: u64, times: Times) -> Self {
        let free = (0..workers).map(|_| Reverse(0)).collect();
        Self { work, times, chance: Chance(1), free }
    }

    /// How long the next one takes.
    fn takes(&mut self) -> u64 {
        let times = match self.times {
            Times::Even => 1.0,
            Times::Exponential => self.chance.exponential(),
            Times::Twofold if self.chance.uniform() < 0.9 => 0.2,
            Times::Twofold => 8.2,
        };
        (self.work as f64 * times) as u64
    }

    /// When a request that comes now is answered.
    fn answers(&mut self, now: u64) -> u64 {
        let Reverse(free) = self.free.pop().expect("there are workers");
        let done = free.max(now) + self.takes();
        self.free.push(Reverse(done));
        done
    }
}

/// Asks `rate` times a second by chance, whatever becomes of it, for `seconds`, and says what part was shed.
fn ask(
    limit: &Limit,
    server: &mut Server,
    rate: u64,
    seconds: u64,
    clock: &mut u64,
    seed: u64,
) -> f64 {
    let answers = |now, _: &mut Chance| (server.answers(now) - now, End::Answer);
    ask_for(limit, (rate, seconds), 0.0, clock, seed, answers)
}

/// How a request ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    Answer,
    Leave,
    Refusal,
    Error,
}

/// The same, of requests that take so many microseconds and end so; a part are uploads that were let in before.
fn ask_for(
    limit: &Limit,
    (rate, seconds): (u64, u64),
    uploads: f64,
    clock: &mut u64,
    seed: u64,
    mut ends: impl FnMut(u64, &mut Chance) -> (u64, End),
) -> f64 {
    let mut chance = Chance(seed);
    let end = *clock + seconds * 1_000_000;
    let at = Duration::from_micros;
    let mut running: BinaryHeap<Reverse<(u64, u64, End)>> = BinaryHeap::new();
    let (mut asked, mut shed) = (0.0, 0.0);
    while *clock < end {
        *clock += (chance.exponential() * 1e6 / rate as f64) as u64;
        while let Some(&Reverse((done, from, how))) =
            running.peek().filter(|Reverse((done, ..))| *done <= *clock)
        {
            running.pop();
            let took = at(done - from);
            let ended = match how {
                End::Answer => Ended::Answered(took),
                End::Leave => Ended::Gone(took),
                End::Refusal => Ended::Dropped,
                End::Error => Ended::Failed,
            };
            limit.leave(ended, at(done));
        }
        let is_upload = chance.uniform() <= uploads;
        if is_upload {
            limit.enter_again(at(*clock));
        } else {
            asked += 1.0;
        }
        if is_upload || limit.try_enter(|| at(*clock)) {
            let (takes, how) = ends(*clock, &mut chance);
            running.push(Reverse((*clock + takes, *clock, how)));
        } else {
            shed += 1.0;
        }
    }
    for Reverse((done, ..)) in running {
        limit.leave(Ended::Gone(Duration::ZERO), at(done));
    }
    shed / asked
}

/// Lets clients that want `demand` requests in flight, and get as many as the limit lets in, ask for `seconds`, and says what the limit was on average in the last half.
fn settle(limit: &Limit, server: &mut Server, demand: usize, seconds: u64, clock: &mut u64) -> f64 {
    let end = *clock + seconds * 1_000_000;
    let half = *clock + seconds * 500_000;
    let mut running = BinaryHeap::new();
    let (mut sum, mut count) = (0.0, 0.0);
    while *clock < end {
        while running.len() < demand && limit.try_enter(|| Duration::from_micros(*clock)) {
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
        limit.leave(Ended::Gone(Duration::ZERO), Duration::from_micros(done));
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
                true => Server::uneven(workers, work, Times::Exponential),
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
    let mut server = Server::uneven(1000, 20_000, Times::Exponential);
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
fn a_server_that_has_become_much_slower_without_a_queue_is_shed_for_some_seconds_only() {
    for (rate, times) in [(60, Times::Even), (60, Times::Exponential), (600, Times::Even)] {
        let limit = Limit::new(Settings::default());
        let mut clock = 0;
        ask(&limit, &mut Server::uneven(10_000, 50_000, times), rate, 20, &mut clock, 1);
        let mut slower = Server::uneven(10_000, 500_000, times);
        ask(&limit, &mut slower, rate, 25, &mut clock, 2);
        let shed = ask(&limit, &mut slower, rate, 60, &mut clock, 3);
        assert!(shed < 0.02, "{shed:.3} of {rate} a second, {times:?}");
    }
}

#[test]
fn it_finds_less_with_a_server_that_has_become_faster_while_it_was_full() {
    for times in [Times::Even, Times::Exponential] {
        let limit = Limit::new(Settings::default());
        let mut clock = 0;
        let server = |work| Server::uneven(20, work, times);
        settle(&limit, &mut server(200_000), 3, 3, &mut clock);
        settle(&limit, &mut server(200_000), 60, 15, &mut clock);
        let found = settle(&limit, &mut server(50_000), 60, 60, &mut clock);
        // A queue of half of those that are worked at is tolerated, and chance adds to it.
        let most = if times == Times::Even { 45.0 } else { 55.0 };
        assert!((18.0..most).contains(&found), "{found:.1} for 20 workers, {times:?}");
    }
}

#[test]
fn who_takes_very_different_times_without_a_queue_is_hardly_shed() {
    for (times, rate, work) in [
        (Times::Exponential, 15, 200_000),
        (Times::Exponential, 75, 200_000),
        (Times::Exponential, 1000, 50_000),
        (Times::Twofold, 30, 200_000),
        (Times::Twofold, 75, 200_000),
        (Times::Twofold, 1000, 50_000),
    ] {
        let limit = Limit::new(Settings::default());
        let mut server = Server::uneven(10_000, work, times);
        let mut clock = 0;
        // At first it has to grow.
        ask(&limit, &mut server, rate, 10, &mut clock, 1);
        let shed = ask(&limit, &mut server, rate, 300, &mut clock, 2);
        assert!(shed < 0.02, "{shed:.3} of {rate} a second, {times:?}");
    }
}

#[test]
fn it_comes_down_with_a_server_that_takes_very_different_times_and_has_too_much() {
    let limit = Limit::new(Settings::default());
    let mut clock = 0;
    let mut server = Server::uneven(20, 50_000, Times::Exponential);
    ask(&limit, &mut server, 100, 5, &mut clock, 1);
    ask(&limit, &mut server, 600, 60, &mut clock, 2);
    assert!((20..65).contains(&limit.limit()), "{}", limit.limit());
    let shed = ask(&limit, &mut server, 600, 30, &mut clock, 3);
    // It answers 400 a second.
    assert!((0.28..0.45).contains(&shed), "{shed:.2}");
}

#[test]
fn what_is_dropped_takes_it_down_to_its_least() {
    let limit = Limit::new(Settings { initial: 100, min: 7, ..Settings::default() });
    for turn in 0..40 {
        let at = |turn: u64| Duration::from_millis(turn * 100);
        assert!(limit.try_enter(|| at(turn)));
        limit.leave(Ended::Dropped, at(turn + 1));
    }
    assert_eq!(limit.limit(), 7);
    assert_eq!(limit.in_flight(), 0);
}

#[test]
fn from_its_least_it_comes_back() {
    for min in [1, 2, 4] {
        let limit = Limit::new(Settings { min, ..Settings::default() });
        let mut clock = 0;
        settle(&limit, &mut Server::new(1000, 50_000), 10, 10, &mut clock);
        for _ in 0..100 {
            let at = Duration::from_micros;
            assert!(limit.try_enter(|| at(clock)));
            clock += 100_000;
            limit.leave(Ended::Dropped, at(clock));
        }
        assert_eq!(limit.limit(), min);
        let found = settle(&limit, &mut Server::new(1000, 50_000), 10, 20, &mut clock);
        assert!(found >= 10.0, "{found:.1} from {min}");
    }
}

#[test]
fn few_that_are_dropped_or_leave_cost_little() {
    for ended in [Ended::Dropped, Ended::Gone(Duration::from_secs(1))] {
        let limit = Limit::new(Settings { initial: 100, ..Settings::default() });
        for n in 0..60_000_u64 {
            let now = Duration::from_millis(n);
            // As with 50 ms each.
            while limit.in_flight() < 50 {
                assert!(limit.try_enter(|| now), "{} at {n}", limit.limit());
            }
            let answered = Ended::Answered(Duration::from_millis(50));
            limit.leave(if n % 50 == 0 { ended } else { answered }, now);
        }
    }
}

#[test]
fn a_look_comes_to_its_end_although_some_leave_or_are_refused_meanwhile() {
    for (how, part) in [(End::Leave, 0.1), (End::Refusal, 0.02)] {
        let limit = Limit::new(Settings::default());
        let mut clock = 0;
        ask_for(&limit, (20, 200), 0.0, &mut clock, 1, |_, _| (5_000_000, End::Answer));
        let slower = |_, chance: &mut Chance| {
            (9_000_000, if chance.uniform() < part { how } else { End::Answer })
        };
        ask_for(&limit, (20, 100), 0.0, &mut clock, 2, slower);
        let shed = ask_for(&limit, (20, 300), 0.0, &mut clock, 3, slower);
        assert!(shed < 0.1, "{shed:.2}, {how:?}");
    }
}

#[test]
fn uploads_that_become_whole_during_a_look_do_not_keep_it_from_its_end() {
    let limit = Limit::new(Settings::default());
    let mut clock = 0;
    let mut ask = |takes, seconds| {
        ask_for(&limit, (350, seconds), 0.4, &mut clock, seconds, |_, _| (takes, End::Answer))
    };
    ask(50_000, 30);
    ask(150_000, 10);
    let shed = ask(150_000, 60);
    assert!(shed < 0.05, "{shed:.2}");
}

#[test]
fn after_errors_that_came_at_once_it_finds_out_how_long_answers_take() {
    for (rate, takes) in [(40, 1_500_000), (40, 3_000_000), (20, 5_000_000)] {
        let limit = Limit::new(Settings::default());
        let mut clock = 0;
        ask_for(&limit, (rate, 60), 0.0, &mut clock, 1, |_, _| (2_000, End::Answer));
        ask_for(&limit, (rate, 300), 0.0, &mut clock, 2, |_, _| (takes, End::Answer));
        let shed = ask_for(&limit, (rate, 60), 0.0, &mut clock, 3, |_, _| (takes, End::Answer));
        // At first it has to grow again.
        assert!(shed < 0.1, "{shed:.2} of those that take {takes}");
    }
}

#[test]
fn errors_that_take_as_long_as_answers_leave_it_as_it_is() {
    let limit = Limit::new(Settings::default());
    let mut clock = 0;
    let takes = |chance: &mut Chance| 180_000 + (chance.uniform() * 40_000.0) as u64;
    let answers = |_, chance: &mut Chance| (takes(chance), End::Answer);
    ask_for(&limit, (120, 20), 0.0, &mut clock, 1, answers);
    let before = limit.limit();
    for part in [0.93, 1.0] {
        let fails = |_, chance: &mut Chance| {
            let is_error = chance.uniform() <= part;
            (takes(chance), if is_error { End::Error } else { End::Answer })
        };
        let shed = ask_for(&limit, (120, 60), 0.0, &mut clock, 2, fails);
        assert!(limit.limit() >= before && shed < 0.01, "{} of {before}: {shed}", limit.limit());
    }
}

#[test]
fn where_nobody_was_ever_answered_and_all_leave_it_comes_down() {
    let limit = Limit::new(Settings::default());
    ask_for(&limit, (100, 30), 0.0, &mut 0, 1, |_, _| (2_000_000, End::Leave));
    assert_eq!(limit.limit(), Settings::default().min);
}

#[test]
fn it_hardly_grows_while_a_server_stands_still_for_half_a_minute() {
    let limit = Limit::new(Settings::default());
    let mut clock = 0;
    ask(&limit, &mut Server::new(20, 40_000), 300, 30, &mut clock, 1);
    let before = limit.limit();
    for _ in 0..30_000 {
        clock += 1_000;
        let _ = limit.try_enter(|| Duration::from_micros(clock));
    }
    assert!(limit.limit() < before * 2, "{} of {before}", limit.limit());
}

#[test]
fn uploads_beyond_it_that_a_server_does_not_answer_do_not_become_the_limit() {
    let limit = Limit::new(Settings::default());
    let mut clock = 0;
    ask(&limit, &mut Server::new(1000, 50_000), 100, 20, &mut clock, 1);
    let before = limit.limit();
    let now = Duration::from_micros(clock);
    (0..300).for_each(|_| limit.enter_again(now));
    let later = now + Duration::from_millis(2500);
    assert!(!limit.try_enter(|| later), "there are 300");
    assert!(limit.limit() < before * 3, "{} of {before}", limit.limit());
}

#[test]
fn time_in_which_there_was_nothing_to_do_is_no_reason_to_let_in_more() {
    let limit = Limit::new(Settings { initial: 20, ..Settings::default() });
    let mut now = Duration::from_secs(100);
    for burst in 0..5 {
        let mut inside = 0;
        while limit.try_enter(|| now) {
            inside += 1;
        }
        assert_eq!(inside, 20, "at burst {burst}");
        let takes = Duration::from_millis(50);
        now += takes;
        (0..inside).for_each(|_| limit.leave(Ended::Answered(takes), now));
        now += Duration::from_secs(60);
    }
}

#[test]
fn one_refusal_after_a_pause_counts_as_one() {
    let limit = Limit::new(Settings { initial: 100, ..Settings::default() });
    for turn in 1..=10 {
        assert_eq!(limit.limit(), 100);
        let now = Duration::from_secs(turn * 30);
        assert!(limit.try_enter(|| now));
        limit.leave(Ended::Dropped, now);
    }
    assert_eq!(limit.limit(), 90);
}

#[test]
fn who_is_refused_while_the_client_still_sends_counts_as_others_do() {
    let limit = Limit::new(Settings { initial: 100, ..Settings::default() });
    for _ in 0..10 {
        let now = Duration::from_millis(50);
        assert!(limit.try_enter(|| now));
        limit.leave_for_now(now);
        limit.dropped_meanwhile(now);
    }
    assert_eq!((limit.limit(), limit.in_flight()), (90, 0));
}

#[test]
fn of_very_many_long_latencies_it_knows_how_they_vary() {
    let limit = Limit::new(Settings::default());
    for n in 0..1_000_000 {
        limit.observe(if n % 2 == 0 { 30_000_000 } else { LONGEST_LATENCY }, 1);
    }
    let noise = limit.seen(&limit.sums.read(), 0.0, Duration::ZERO).noise;
    assert!((0.11..0.112).contains(&noise), "{noise}");
}

#[test]
fn it_comes_down_where_nobody_waits_for_the_answers_any_longer() {
    // What was asked for is worked at, although nobody waits for it: at once there may be no more than 20 a second.
    let limit = Limit::new(Settings { min: 1, ..Settings::default() });
    let (work, patience) = (50_000, 1_000_000);
    let mut chance = Chance(1);
    let (mut clock, mut free, mut answered) = (0_u64, 0_u64, 0);
    let mut running = BinaryHeap::new();
    while clock < 120_000_000 {
        clock += (chance.exponential() * 25_000.0) as u64;
        while let Some(&Reverse((end, from, done))) = running.peek()
            && end <= clock
        {
            running.pop();
            let now = Duration::from_micros(end);
            if done == end {
                answered += u32::from(clock > 60_000_000);
                limit.leave(Ended::Answered(Duration::from_micros(done - from)), now);
            } else {
                limit.leave(Ended::Gone(Duration::from_micros(patience)), now);
            }
        }
        if limit.try_enter(|| Duration::from_micros(clock)) {
            free = free.max(clock) + work;
            running.push(Reverse((free.min(clock + patience), clock, free)));
        }
    }
    // It can answer 1200 in that minute.
    assert!(answered > 900, "{answered} were answered");
}

#[test]
fn answers_that_take_many_seconds_are_told_from_a_queue_as_well() {
    let limit = Limit::new(Settings::default());
    let mut clock = 0;
    settle(&limit, &mut Server::new(1000, 4_000_000), 20, 120, &mut clock);
    settle(&limit, &mut Server::new(1000, 16_000_000), 20, 400, &mut clock);
    let found = settle(&limit, &mut Server::new(1000, 16_000_000), 20, 400, &mut clock);
    assert!(found >= 20.0, "{found:.1}");
}

#[test]
fn who_stays_for_long_does_not_keep_others_out_for_as_long() {
    let limit = Limit::new(Settings { initial: 30, ..Settings::default() });
    let mut clock = 0;
    let at = |clock: u64| Duration::from_micros(clock);
    // They wait for news.
    for _ in 0..10 {
        assert!(limit.try_enter(|| at(clock)));
    }
    settle(&limit, &mut Server::new(1000, 20_000), 5, 10, &mut clock);
    for _ in 0..100 {
        clock += 100_000;
        while !limit.try_enter(|| at(clock)) {
            clock += 10_000;
        }
        limit.leave(Ended::Dropped, at(clock));
    }
    let began = clock;
    while !limit.try_enter(|| at(clock)) {
        clock += 10_000;
        assert!(clock < began + 5_000_000, "nobody was let in for five seconds");
    }
}

#[test]
fn of_few_requests_it_learns_as_well_and_they_need_no_more() {
    let limit = Limit::new(Settings::default());
    let mut clock = 0;
    for _ in 0..10 {
        assert!(limit.try_enter(|| Duration::ZERO));
    }
    ask(&limit, &mut Server::new(1000, 50_000), 2, 300, &mut clock, 1);
    // There is room for twice what is in flight.
    assert!((20..30).contains(&limit.limit()), "{}", limit.limit());
    let baseline = limit.control.lock().expect("nobody panics with it").state.baseline;
    assert!((0.049..0.051).contains(&baseline), "{baseline}");
}

#[test]
fn within_a_window_it_is_taken_down_once() {
    let limit = Limit::new(Settings { initial: 100, ..Settings::default() });
    for _ in 0..20 {
        assert!(limit.try_enter(|| Duration::from_millis(50)));
        limit.leave(Ended::Dropped, Duration::from_millis(50));
    }
    assert_eq!(limit.limit(), 90);
}

#[test]
fn no_more_enter_than_the_limit_says() {
    let limit = Limit::new(Settings { initial: 3, min: 1, ..Settings::default() });
    let may = || limit.try_enter(|| Duration::ZERO);
    assert!(may() && may() && may());
    assert!(!may());
    limit.leave(Ended::Gone(Duration::ZERO), Duration::ZERO);
    assert!(may());
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
                    while entered < 3 && limit.try_enter(|| Duration::from_micros(turn * 50)) {
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
        windows in proptest::collection::vec(
            (0_u32..5000, 0_u32..200, 0.0..9.0, 0_u32..400, (0_u32..3, 0_u32..9)),
            1..300,
        ),
    ) {
        let settings = Settings { initial, min, max: min + room, tolerance, ..Settings::default() };
        let bounds = min.max(1)..=(min + room).max(1);
        let limit = Limit::new(settings.clone());
        prop_assert!(bounds.contains(&limit.limit()));
        let mut state = State::new(f64::from(limit.limit()));
        let mut now = 0.0;
        for (latency, samples, noise, highest, (dropped, gone)) in windows {
            let span = f64::from(samples) / 50.0;
            now += span;
            let seen = Seen {
                now,
                span,
                samples: f64::from(samples),
                latency: f64::from(latency) / 1e3,
                noise,
                highest,
                dropped: f64::from(dropped),
                gone: f64::from(gone),
                silent: f64::from(gone % 4),
                in_flight: highest,
            };
            if state.may_close(&settings, &seen) && state.is_told(&settings, &seen) {
                state = state.after(&settings, &seen);
            }
            prop_assert!(state.limit.is_finite() && state.baseline.is_finite());
            prop_assert!(bounds.contains(&state.admitted(&settings)));
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
