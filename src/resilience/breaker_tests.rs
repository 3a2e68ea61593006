use std::sync::atomic::AtomicI64;

use proptest::prelude::*;

use super::Verdict::Cut;
use super::Verdict::Failure;
use super::Verdict::Neutral;
use super::Verdict::Success;
use super::*;

const OPEN_FOR: Duration = Duration::from_secs(30);

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Passes and gives back at once.
fn ask(breaker: &Breaker, verdict: Verdict, now: Duration) -> Option<Transition> {
    let pass = breaker.enter(now).expect("the breaker lets it pass");
    breaker.leave(pass, verdict, now)
}

/// One that has just opened.
fn opened(settings: Settings, now: Duration) -> Breaker {
    let breaker = Breaker::new(&settings);
    let last = (0..settings.failures).map(|_| ask(&breaker, Failure, now)).last();
    assert_eq!(last, Some(Some(Transition::Opened(Cause::Failures))));
    breaker
}

#[test]
fn the_fifth_failure_in_a_row_opens_it() {
    let breaker = Breaker::new(&Settings::default());
    for _ in 0..4 {
        assert_eq!(ask(&breaker, Failure, at(1)), None);
    }
    assert_eq!(ask(&breaker, Success, at(1)), None);
    for _ in 0..4 {
        assert_eq!(ask(&breaker, Failure, at(2)), None);
    }
    assert_eq!(breaker.state(), State::Closed);
    assert_eq!(breaker.consecutive_failures(), 4);
    assert_eq!(ask(&breaker, Failure, at(3)), Some(Transition::Opened(Cause::Failures)));
    assert_eq!(breaker.state(), State::Open { until: at(33) });
    assert!(!breaker.admits(at(3)));
    assert!(breaker.enter(at(3)).is_none());
}

/// So many requests under way at once.
fn under_way(breaker: &Breaker, count: u32, now: Duration) -> Vec<Pass> {
    (0..count).map(|_| breaker.enter(now).expect("the breaker lets it pass")).collect()
}

#[test]
fn requests_that_are_cut_at_the_same_moment_are_one_failure() {
    let breaker = Breaker::new(&Settings::default());
    for moment in 1..=5 {
        let passes = under_way(&breaker, 24, at(moment));
        let came: Vec<_> =
            passes.into_iter().filter_map(|pass| breaker.leave(pass, Cut, at(moment))).collect();
        match moment {
            5 => assert_eq!(came, [Transition::Opened(Cause::Failures)]),
            before => {
                assert_eq!(came, []);
                assert_eq!(u64::from(breaker.consecutive_failures()), before);
            }
        }
    }
    // Each after the other is a failure of its own; so is one of another kind, whatever else was under way.
    let breaker = Breaker::new(&Settings { failures: 3, ..Settings::default() });
    assert_eq!(ask(&breaker, Cut, at(1)), None);
    let passes = under_way(&breaker, 2, at(1));
    assert_eq!(ask(&breaker, Failure, at(1)), None);
    let last = passes.into_iter().map(|pass| breaker.leave(pass, Failure, at(1))).next();
    assert_eq!(last, Some(Some(Transition::Opened(Cause::Failures))));
}

#[test]
fn a_peer_that_cuts_all_its_requests_is_found_out_however_they_overlap() {
    let breaker = Breaker::new(&Settings::default());
    let mut passes = std::collections::VecDeque::from(under_way(&breaker, 8, at(1)));
    let rounds = (0..8 * 6).take_while(|_| {
        let oldest = passes.pop_front().expect("eight are under way");
        let opened = breaker.leave(oldest, Cut, at(1)).is_some();
        passes.extend(breaker.enter(at(1)));
        !opened
    });
    assert!(rounds.count() < 8 * 5, "each generation counts once");
    assert_eq!(breaker.state(), State::Open { until: at(31) });
}

#[test]
fn those_that_are_cut_all_count_for_the_rate_and_a_probe_that_is_opens_it_again() {
    let settings = Settings { failures: 0, rate: Some(50), min_requests: 6, ..Settings::default() };
    let breaker = Breaker::new(&settings);
    let passes = under_way(&breaker, 6, at(1));
    let last = passes.into_iter().map(|pass| breaker.leave(pass, Cut, at(1))).last();
    assert_eq!(last, Some(Some(Transition::Opened(Cause::Rate))));
    assert_eq!(ask(&breaker, Cut, at(40)), Some(Transition::Opened(Cause::Probe)));
}

#[test]
fn what_says_nothing_counts_for_nothing() {
    let breaker = Breaker::new(&Settings { failures: 2, ..Settings::default() });
    assert_eq!(ask(&breaker, Failure, at(1)), None);
    assert_eq!(ask(&breaker, Neutral, at(1)), None);
    assert_eq!(ask(&breaker, Failure, at(1)), Some(Transition::Opened(Cause::Failures)));
}

#[test]
fn when_its_time_is_over_one_probe_passes_and_closes_it() {
    let breaker = opened(Settings::default(), at(0));
    assert!(!breaker.admits(OPEN_FOR - Duration::from_millis(1)));
    assert!(breaker.admits(OPEN_FOR));
    assert_eq!(breaker.state(), State::Open { until: OPEN_FOR }, "nobody has come yet");
    let probe = breaker.enter(OPEN_FOR).expect("the first probe");
    assert_eq!(breaker.state(), State::HalfOpen);
    assert_eq!(probe.kind(), Kind::Probe);
    assert_eq!(probe.transition(), Some(Transition::HalfOpened));
    assert!(breaker.enter(OPEN_FOR).is_none(), "only one probe passes");
    assert_eq!(breaker.leave(probe, Success, at(31)), Some(Transition::Closed(Closing::Probes)));
    assert_eq!(breaker.state(), State::Closed);
    assert_eq!(breaker.consecutive_failures(), 0);
}

#[test]
fn a_probe_that_fails_opens_it_for_the_whole_time_again() {
    let breaker = opened(Settings::default(), at(0));
    let probe = breaker.enter(at(40)).expect("the first probe");
    assert_eq!(breaker.leave(probe, Failure, at(45)), Some(Transition::Opened(Cause::Probe)));
    assert_eq!(breaker.state(), State::Open { until: at(75) });
}

#[test]
fn as_many_probes_pass_as_have_to_succeed() {
    let breaker = opened(Settings { probes: 3, ..Settings::default() }, at(0));
    let mut probes: Vec<Pass> = (0..3).filter_map(|_| breaker.enter(at(30))).collect();
    assert_eq!(probes.iter().filter(|probe| probe.transition().is_some()).count(), 1);
    assert!(!breaker.admits(at(30)));
    let mut leave = |verdict| breaker.leave(probes.pop().expect("a probe"), verdict, at(31));
    assert_eq!(leave(Success), None);
    assert!(!breaker.admits(at(31)), "a success frees no place");
    assert_eq!(leave(Neutral), None);
    assert!(breaker.admits(at(31)), "what says nothing frees its place");
    assert_eq!(leave(Success), None);
    assert_eq!(ask(&breaker, Success, at(32)), Some(Transition::Closed(Closing::Probes)));
}

#[test]
fn a_probe_that_is_lost_does_not_block_for_ever() {
    let breaker = opened(Settings::default(), at(0));
    let lost = breaker.enter(at(30)).expect("the first probe");
    assert!(!breaker.admits(at(59)));
    assert!(breaker.admits(at(60)));
    let second = breaker.enter(at(60)).expect("the place of the lost one");
    assert_eq!(second.transition(), None);
    // It comes back after all, too late to decide.
    assert_eq!(breaker.leave(lost, Success, at(61)), None);
    assert_eq!(breaker.state(), State::HalfOpen);
    assert_eq!(breaker.leave(second, Success, at(62)), Some(Transition::Closed(Closing::Probes)));
}

#[test]
fn requests_from_before_do_not_count_after() {
    let breaker = Breaker::new(&Settings { failures: 1, ..Settings::default() });
    let old: Vec<Pass> = (0..4).filter_map(|_| breaker.enter(at(0))).collect();
    let mut old = old.into_iter();
    let mut leave = |verdict, now| breaker.leave(old.next().expect("a pass"), verdict, now);
    assert_eq!(leave(Failure, at(1)), Some(Transition::Opened(Cause::Failures)));
    assert_eq!(leave(Success, at(2)), None);
    assert_eq!(breaker.state(), State::Open { until: at(31) });
    let probe = breaker.enter(at(31)).expect("the first probe");
    assert_eq!(leave(Failure, at(32)), None);
    assert_eq!(breaker.leave(probe, Success, at(33)), Some(Transition::Closed(Closing::Probes)));
    assert_eq!(leave(Failure, at(34)), None);
    assert_eq!(breaker.state(), State::Closed);
}

#[test]
fn a_percentage_opens_it_once_there_were_enough_requests() {
    let settings =
        Settings { failures: 0, rate: Some(50), min_requests: 10, ..Settings::default() };
    let breaker = Breaker::new(&settings);
    for _ in 0..4 {
        assert_eq!(ask(&breaker, Failure, at(1)), None);
        assert_eq!(ask(&breaker, Success, at(1)), None);
    }
    assert_eq!(ask(&breaker, Failure, at(2)), None, "nine requests are too few");
    assert_eq!(ask(&breaker, Failure, at(2)), Some(Transition::Opened(Cause::Rate)));
}

#[test]
fn a_percentage_is_of_the_window_only() {
    let settings = Settings { failures: 0, rate: Some(50), min_requests: 4, ..Settings::default() };
    let breaker = Breaker::new(&settings);
    for _ in 0..3 {
        assert_eq!(ask(&breaker, Failure, at(1)), None);
    }
    for _ in 0..3 {
        assert_eq!(ask(&breaker, Success, at(15)), None);
    }
    assert_eq!(ask(&breaker, Failure, at(15)), None);
}

#[test]
fn a_reset_closes_it_and_forgets() {
    let breaker = opened(Settings { failures: 2, ..Settings::default() }, at(0));
    assert_eq!(breaker.reset(), Some(Transition::Closed(Closing::Reset)));
    assert_eq!(breaker.state(), State::Closed);
    assert_eq!(breaker.reset(), None, "it was closed");
    assert_eq!(ask(&breaker, Failure, at(0)), None);
    assert_eq!(ask(&breaker, Failure, at(0)), Some(Transition::Opened(Cause::Failures)));
    let probe = breaker.enter(at(30)).expect("the first probe");
    assert_eq!(breaker.reset(), Some(Transition::Closed(Closing::Reset)), "it was half-open");
    assert_eq!(breaker.leave(probe, Failure, at(31)), None);
    assert_eq!(breaker.state(), State::Closed);
}

#[test]
fn one_that_is_switched_off_closes_and_never_opens_again() {
    let settings = Settings { failures: 2, rate: Some(50), min_requests: 2, ..Settings::default() };
    let breaker = opened(settings, at(0));
    assert_eq!(breaker.switch_off(), Some(Transition::Closed(Closing::SwitchedOff)));
    assert_eq!(breaker.switch_off(), None);
    for _ in 0..20 {
        assert_eq!(ask(&breaker, Failure, at(1)), None);
    }
    assert_eq!(breaker.state(), State::Closed);
}

// ── Other settings ──────────────────────────────────────────────────────────────────────────────

#[test]
fn an_open_one_stays_open_for_the_new_time_from_when_it_opened() {
    let breaker = opened(Settings::default(), at(10));
    let seconds = |open_for| Settings { open_for: at(open_for), ..Settings::default() };
    for open_for in [30, 600, 50] {
        breaker.adjust(&seconds(open_for));
        assert_eq!(breaker.state(), State::Open { until: at(10 + open_for) });
    }
    assert!(!breaker.admits(at(59)));
    // Over already: the next request is the first probe, and that is told as ever.
    breaker.adjust(&seconds(5));
    assert_eq!(breaker.state(), State::Open { until: at(15) });
    let probe = breaker.enter(at(40)).expect("the first probe");
    assert_eq!(probe.transition(), Some(Transition::HalfOpened));
    assert_eq!(breaker.leave(probe, Failure, at(41)), Some(Transition::Opened(Cause::Probe)));
    assert_eq!(breaker.state(), State::Open { until: at(46) });
}

#[test]
fn a_half_open_one_stays_so_and_its_probes_decide() {
    let probes = |probes| Settings { probes, ..Settings::default() };
    let breaker = opened(probes(3), at(0));
    let out = breaker.enter(at(30)).expect("the first probe");
    assert_eq!(ask(&breaker, Success, at(31)), None);
    breaker.adjust(&probes(2));
    assert_eq!(breaker.state(), State::HalfOpen);
    assert!(!breaker.admits(at(32)), "one succeeded and one is out");
    assert_eq!(breaker.leave(out, Success, at(33)), Some(Transition::Closed(Closing::Probes)));

    // As many have succeeded as have to now: that alone closes nothing, and nobody waits for those of before.
    let breaker = opened(probes(3), at(0));
    assert_eq!(ask(&breaker, Success, at(30)), None);
    assert_eq!(ask(&breaker, Success, at(31)), None);
    breaker.adjust(&probes(1));
    assert_eq!(breaker.state(), State::HalfOpen);
    assert_eq!(ask(&breaker, Success, at(32)), Some(Transition::Closed(Closing::Probes)));
}

#[test]
fn a_closed_one_counts_on() {
    let breaker = Breaker::new(&Settings::default());
    let from_before = breaker.enter(at(1)).expect("it is closed");
    for _ in 0..3 {
        assert_eq!(ask(&breaker, Failure, at(1)), None);
    }
    breaker.adjust(&Settings { failures: 2, ..Settings::default() });
    assert_eq!(breaker.state(), State::Closed, "settings alone open nothing");
    let opened = breaker.leave(from_before, Failure, at(2));
    assert_eq!(opened, Some(Transition::Opened(Cause::Failures)), "one from before counts");
}

#[test]
fn what_a_percentage_is_of_stays_where_the_window_does() {
    let rate = |rate, window| {
        let window = Duration::from_secs(window);
        Settings { failures: 0, rate: Some(rate), min_requests: 4, window, ..Settings::default() }
    };
    let breaker = Breaker::new(&rate(90, 10));
    let three = |breaker: &Breaker| {
        for verdict in [Success, Failure, Failure] {
            assert_eq!(ask(breaker, verdict, at(1)), None);
        }
    };
    three(&breaker);
    breaker.adjust(&rate(50, 10));
    assert_eq!(ask(&breaker, Failure, at(2)), Some(Transition::Opened(Cause::Rate)));
    let breaker = Breaker::new(&rate(90, 10));
    three(&breaker);
    breaker.adjust(&rate(50, 20));
    assert_eq!(ask(&breaker, Failure, at(2)), None, "it begins anew");
}

// ── Against a model ─────────────────────────────────────────────────────────────────────────────

/// The breaker as one would write it for one thread, with a list of everything.
struct Model {
    settings: Settings,
    phase: Modelled,
    /// Grows with every change, as the breaker's rounds do.
    round: u32,
    failures: u32,
    /// How many failures counted in a row ever, and how many had when each pass was given.
    counted: u32,
    given: std::collections::HashMap<u32, u32>,
    /// When what ended in this closed phase ended, and whether it failed.
    ended: Vec<(u64, bool)>,
}

#[derive(Debug, Clone, PartialEq)]
enum Modelled {
    Closed,
    Open { until: u64 },
    HalfOpen { out: Vec<u32>, won: u32, last: u64 },
}

impl Model {
    fn enter(&mut self, id: u32, now: u64) -> Option<(Kind, u32)> {
        self.given.insert(id, self.counted);
        let (probes, open_for) = (self.settings.probes as usize, self.open_for());
        match &mut self.phase {
            Modelled::Closed => return Some((Kind::Normal, self.round)),
            Modelled::Open { until } if now < *until => return None,
            Modelled::Open { .. } => {
                self.phase = Modelled::HalfOpen { out: vec![id], won: 0, last: now };
            }
            Modelled::HalfOpen { out, won, last } => {
                if out.len() + *won as usize >= probes {
                    if now < *last + open_for {
                        return None;
                    }
                    out.clear();
                }
                out.push(id);
                *last = now;
            }
        }
        Some((Kind::Probe, self.round))
    }

    fn leave(
        &mut self,
        id: u32,
        kind: Kind,
        round: u32,
        verdict: Verdict,
        now: u64,
    ) -> Option<Transition> {
        let open = Modelled::Open { until: now + self.open_for() };
        let mut in_row = false;
        match (&mut self.phase, kind) {
            (Modelled::Closed, Kind::Normal) if round == self.round => {
                match verdict {
                    Neutral => return None,
                    Success => self.failures = 0,
                    // What was cut together with another says nothing new.
                    Cut if self.given[&id] != self.counted => {}
                    Failure | Cut => {
                        self.failures += 1;
                        self.counted += 1;
                        in_row = true;
                    }
                }
                // Nothing is noted for a rate that nobody asks for.
                if self.settings.rate.is_some() {
                    self.ended.push((now, verdict != Success));
                }
                if verdict == Success {
                    return None;
                }
                let part = self.settings.window.as_millis() as u64 / 10;
                let recent =
                    self.ended.iter().filter(|(at, _)| at / part + 10 > now / part).copied();
                let (failed, fine): (Vec<_>, Vec<_>) =
                    recent.partition(|(_, failed): &(u64, bool)| *failed);
                let all = failed.len() + fine.len();
                let rate = self.settings.rate.is_some_and(|rate| {
                    let enough = all >= self.settings.min_requests as usize;
                    enough && failed.len() * 100 >= all * rate as usize
                });
                let too_many =
                    self.settings.failures > 0 && self.failures >= self.settings.failures;
                let cause = if in_row && too_many {
                    Cause::Failures
                } else if rate {
                    Cause::Rate
                } else {
                    return None;
                };
                self.change(open);
                Some(Transition::Opened(cause))
            }
            (Modelled::HalfOpen { out, won, .. }, Kind::Probe) if out.contains(&id) => {
                out.retain(|other| *other != id);
                match verdict {
                    Neutral => None,
                    Success if *won + 1 < self.settings.probes => {
                        *won += 1;
                        None
                    }
                    Success => {
                        self.change(Modelled::Closed);
                        Some(Transition::Closed(Closing::Probes))
                    }
                    Failure | Cut => {
                        self.change(open);
                        Some(Transition::Opened(Cause::Probe))
                    }
                }
            }
            _ => None,
        }
    }

    fn change(&mut self, to: Modelled) {
        if to == Modelled::Closed {
            self.failures = 0;
            self.ended.clear();
        }
        self.phase = to;
        self.round += 1;
    }

    fn open_for(&self) -> u64 {
        self.settings.open_for.as_millis() as u64
    }

    /// Goes by other settings from now on.
    fn adjust(&mut self, settings: Settings) {
        let before = self.open_for();
        if settings.window != self.settings.window {
            self.ended.clear();
        }
        self.settings = settings;
        let (after, probes) = (self.open_for(), self.settings.probes);
        match &mut self.phase {
            Modelled::Closed => {}
            Modelled::Open { until } => *until = *until - before + after,
            Modelled::HalfOpen { won, .. } => *won = (*won).min(probes - 1),
        }
    }

    fn state(&self) -> State {
        match &self.phase {
            Modelled::Closed => State::Closed,
            Modelled::Open { until } => State::Open { until: Duration::from_millis(*until) },
            Modelled::HalfOpen { .. } => State::HalfOpen,
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    Wait(u64),
    Enter,
    /// One of those that are out.
    Leave(usize, Verdict),
    /// One of those that are out never comes back.
    Lose(usize),
    Reset,
    /// Other settings, by way of a reload.
    Adjust(Settings),
}

fn any_settings() -> impl Strategy<Value = Settings> {
    let rate = proptest::option::of(20_u32..=100);
    (0_u32..6, rate, 1_u32..10, 1_u32..5, 9_u64..11, 1_u64..9).prop_map(
        |(failures, rate, min_requests, probes, window, open_for)| Settings {
            failures,
            rate,
            min_requests,
            window: Duration::from_secs(window),
            open_for: Duration::from_secs(open_for),
            probes,
        },
    )
}

fn step() -> impl Strategy<Value = Step> {
    let verdict = prop_oneof![
        3 => Just(Success), 3 => Just(Failure), 3 => Just(Cut), 1 => Just(Neutral),
    ];
    prop_oneof![
        3 => (0_u64..4000).prop_map(Step::Wait),
        12 => Just(Step::Enter),
        10 => (any::<usize>(), verdict).prop_map(|(which, verdict)| Step::Leave(which, verdict)),
        1 => any::<usize>().prop_map(Step::Lose),
        1 => Just(Step::Reset),
        1 => any_settings().prop_map(Step::Adjust),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn it_lives_as_the_model_does(
        settings in any_settings(),
        steps in proptest::collection::vec(step(), 1..300),
    ) {
        let breaker = Breaker::new(&settings);
        let mut model = Model {
            settings,
            phase: Modelled::Closed,
            round: 0,
            failures: 0,
            counted: 0,
            given: std::collections::HashMap::new(),
            ended: Vec::new(),
        };
        let mut out: Vec<(u32, Pass, Kind, u32)> = Vec::new();
        let mut now = 0;
        for (id, step) in (0..).zip(steps) {
            let time = Duration::from_millis(now);
            match step {
                Step::Wait(milliseconds) => now += milliseconds,
                Step::Enter => {
                    let looked = breaker.admits(time);
                    let state = breaker.state();
                    let was_open = matches!(model.phase, Modelled::Open { .. });
                    let pass = breaker.enter(time);
                    let wanted = model.enter(id, now);
                    prop_assert_eq!(looked, pass.is_some(), "a look says what happens");
                    prop_assert_eq!(pass.as_ref().map(Pass::kind), wanted.map(|(kind, _)| kind));
                    if let (Some(pass), Some((kind, round))) = (pass, wanted) {
                        prop_assert_eq!(pass.transition().is_some(), was_open);
                        let barred = matches!(state, State::Open { until } if time < until);
                        prop_assert!(!barred, "it was open");
                        out.push((id, pass, kind, round));
                    }
                }
                Step::Leave(which, verdict) if !out.is_empty() => {
                    let (id, pass, kind, round) = out.swap_remove(which % out.len());
                    let wanted = model.leave(id, kind, round, verdict, now);
                    prop_assert_eq!(breaker.leave(pass, verdict, time), wanted);
                }
                Step::Lose(which) if !out.is_empty() => {
                    drop(out.swap_remove(which % out.len()));
                }
                Step::Leave(..) | Step::Lose(_) => {}
                Step::Adjust(settings) => {
                    breaker.adjust(&settings);
                    model.adjust(settings);
                }
                Step::Reset => {
                    let was_closed = model.phase == Modelled::Closed;
                    let closed = Some(Transition::Closed(Closing::Reset));
                    prop_assert_eq!(breaker.reset(), closed.filter(|_| !was_closed));
                    model.change(Modelled::Closed);
                }
            }
            prop_assert_eq!(breaker.state(), model.state());
        }
    }
}

// ── With many threads ───────────────────────────────────────────────────────────────────────────

/// A peer that fails now and then, on a clock that all threads turn: whatever the order, never more
/// probes are out than there are, the changes of state alternate, and it is never stuck.
#[test]
fn many_threads_keep_to_its_life() {
    const PROBES: i64 = 3;
    let settings = Settings {
        failures: 3,
        probes: PROBES as u32,
        // Probes are not lost here; with a long time none is taken for lost while its thread waits.
        open_for: Duration::from_secs(1000),
        ..Settings::default()
    };
    let breaker = Breaker::new(&settings);
    let clock = AtomicU64::new(0);
    let out: Vec<AtomicI64> = (0..4096).map(|_| AtomicI64::new(0)).collect();
    let opened = AtomicI64::new(0);
    let half_opened = AtomicI64::new(0);
    let closed = AtomicI64::new(0);
    let count = |transition: Option<Transition>| match transition {
        Some(Transition::Opened(_)) => {
            opened.fetch_add(1, Ordering::SeqCst);
        }
        Some(Transition::HalfOpened) => {
            half_opened.fetch_add(1, Ordering::SeqCst);
        }
        Some(Transition::Closed(_)) => {
            closed.fetch_add(1, Ordering::SeqCst);
        }
        None => {}
    };
    std::thread::scope(|scope| {
        for thread in 0..4_u64 {
            let (breaker, clock, out, count) = (&breaker, &clock, &out, &count);
            scope.spawn(move || {
                let mut number = thread + 1;
                for _ in 0..50_000 {
                    number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    // The clock jumps when the breaker is open, as long as it is.
                    let now = Duration::from_secs(clock.load(Ordering::SeqCst));
                    let Some(pass) = breaker.enter(now) else {
                        if let State::Open { until } = breaker.state() {
                            clock.fetch_max(until.as_secs(), Ordering::SeqCst);
                        }
                        std::thread::yield_now();
                        continue;
                    };
                    count(pass.transition());
                    // Of this round: those of rounds before may still be out.
                    let out = (pass.kind() == Kind::Probe).then(|| &out[usize::from(pass.round)]);
                    if let Some(out) = out {
                        let probes = out.fetch_add(1, Ordering::SeqCst) + 1;
                        assert!(probes <= PROBES, "{probes} probes are out");
                    }
                    let verdict = match number >> 61 {
                        0..=4 => Success,
                        5 | 6 => Failure,
                        _ => Neutral,
                    };
                    if let Some(out) = out {
                        out.fetch_sub(1, Ordering::SeqCst);
                    }
                    count(breaker.leave(pass, verdict, now));
                }
            });
        }
    });
    let (opened, half_opened) = (opened.into_inner(), half_opened.into_inner());
    let closed = closed.into_inner();
    assert!(closed > 10, "it opened {opened} times and closed {closed} times");
    // Every life is: opened, half-opened, then opened again or closed.
    assert!(half_opened <= opened && opened <= half_opened + closed + 1);
    // Nobody is out: within its time it is closed or lets a probe pass.
    let late = Duration::from_secs(clock.into_inner() + 2000);
    assert!(breaker.admits(late));
}
