use proptest::prelude::*;

use super::*;

const NOBODY: [usize; 0] = [];

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn group(count: usize) -> Vec<Record> {
    (0..count).map(|_| Record::default()).collect()
}

fn note(record: &Record, outcome: Outcome, times: u32) {
    for _ in 0..times {
        let _ = record.note(outcome, &Settings::default());
    }
}

fn samples(errors: &[u32]) -> Vec<Sample> {
    errors.iter().map(|&errors| Sample { requests: 1000, errors }).collect()
}

#[test]
fn the_fifth_error_in_a_row_makes_a_peer_suspicious() {
    let settings = Settings::default();
    let record = Record::default();
    note(&record, Outcome::Error, 4);
    assert_eq!(record.note(Outcome::Success, &settings), Suspicion::None);
    note(&record, Outcome::Error, 3);
    assert_eq!(record.note(Outcome::Error, &settings), Suspicion::None);
    assert_eq!(record.note(Outcome::Error, &settings), Suspicion::Streak);
    let never = Settings { consecutive: 0, ..settings };
    assert_eq!(record.note(Outcome::Error, &never), Suspicion::None);
}

#[test]
fn an_ejected_peer_is_out_for_its_time_and_begins_anew() {
    let group = group(3);
    let ward = Ward::new(Settings::default());
    note(&group[1], Outcome::Error, 5);
    assert_eq!(ward.eject(1, &group, at(10)), Ejected::Until(at(40)));
    assert_eq!(ward.eject(1, &group, at(11)), Ejected::Already);
    assert!(group[1].is_out(at(39)) && !group[1].is_out(at(40)));
    assert_eq!(group[1].streak(), 0);
}

#[test]
fn times_grow_up_to_the_longest_and_shrink_when_all_is_well() {
    let group = group(2);
    let ward = Ward::new(Settings { longest: at(100), ..Settings::default() });
    let mut now = 0;
    for length in [30, 60, 90, 100, 100] {
        assert_eq!(ward.eject(0, &group, at(now)), Ejected::Until(at(now + length)));
        // It does not get better by being out.
        assert!(ward.sweep(&group, at(now + 1)).is_empty());
        now += length;
    }
    // It has only just come back.
    assert!(ward.sweep(&group, at(now)).is_empty());
    assert_eq!(group[0].times(), 5);
    for times in [4, 3, 2, 1] {
        now += 10;
        assert!(ward.sweep(&group, at(now)).is_empty());
        assert_eq!(group[0].times(), times);
    }
    assert_eq!(ward.eject(0, &group, at(now)), Ejected::Until(at(now + 60)));
    group[0].forgive();
    assert!(!group[0].is_out(at(now)));
    assert_eq!(ward.eject(0, &group, at(now)), Ejected::Until(at(now + 30)));
}

#[test]
fn one_may_always_be_out_and_the_last_one_never() {
    assert_eq!([0, 1, 2, 3, 10, 100].map(|peers| most_out(peers, 33)), [0, 0, 1, 1, 3, 33]);
    assert_eq!([1, 2, 10].map(|peers| most_out(peers, 100)), [0, 1, 9]);
    assert_eq!([1, 2, 10].map(|peers| most_out(peers, 0)), [0, 1, 1]);
    let group = group(4);
    let ward = Ward::new(Settings { max_percent: 50, ..Settings::default() });
    assert_eq!(ward.eject(0, &group, at(0)), Ejected::Until(at(30)));
    assert_eq!(ward.eject(1, &group, at(20)), Ejected::Until(at(50)));
    assert_eq!(ward.eject(2, &group, at(20)), Ejected::Full);
    // One is back.
    assert_eq!(ward.eject(2, &group, at(30)), Ejected::Until(at(60)));
}

#[test]
fn who_stands_out_is_ejected_and_who_fails_with_all_is_not() {
    let settings = Settings::default();
    assert_eq!(outliers(&samples(&[10, 12, 300, 8, 11, 9]), &settings), [2]);
    assert_eq!(outliers(&samples(&[900; 6]), &settings), NOBODY);
    assert_eq!(outliers(&samples(&[0; 6]), &settings), NOBODY);
    // Two of ten; the worse one first.
    let errors = [0, 0, 0, 500, 0, 0, 0, 0, 600, 0];
    assert_eq!(outliers(&samples(&errors), &settings), [8]);
    let strict = Settings { deviations: 1500, ..settings };
    assert_eq!(outliers(&samples(&errors), &strict), [8, 3]);
}

#[test]
fn a_single_error_is_no_reason_where_all_others_have_none() {
    let settings = Settings::default();
    assert_eq!(outliers(&samples(&[0, 0, 0, 0, 1]), &settings), NOBODY);
    // The mean is 1 below the best then: 62 of 1000 is 5.0 below it, 63 more.
    assert_eq!(outliers(&samples(&[0, 0, 0, 0, 62]), &settings), NOBODY);
    assert_eq!(outliers(&samples(&[0, 0, 0, 0, 63]), &settings), [4]);
}

#[test]
fn few_requests_and_few_peers_say_nothing() {
    let settings = Settings::default();
    assert_eq!(outliers(&samples(&[0, 0, 0, 900]), &settings), NOBODY);
    let mut few = samples(&[0, 0, 0, 0, 0, 0]);
    few[3] = Sample { requests: 99, errors: 99 };
    assert_eq!(outliers(&few, &settings), NOBODY);
    few[3] = Sample { requests: 100, errors: 100 };
    assert_eq!(outliers(&few, &settings), [3]);
    let none = Settings { deviations: 0, ..settings };
    assert_eq!(outliers(&few, &none), NOBODY);
}

#[test]
fn a_sweep_looks_at_what_came_since_the_last_one() {
    let group = group(6);
    let ward = Ward::new(Settings { consecutive: 0, ..Settings::default() });
    for record in &group {
        note(record, Outcome::Success, 200);
    }
    note(&group[4], Outcome::Error, 100);
    assert_eq!(ward.sweep(&group, at(10)), [(4, at(40))]);
    // It is back, and nothing came since: no requests, no opinion.
    assert!(ward.sweep(&group, at(50)).is_empty());
}

#[test]
fn threads_together_never_leave_out_more_than_may_be() {
    let group = group(10);
    let ward = Ward::new(Settings { max_percent: 30, ..Settings::default() });
    for second in 0..200 {
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let (group, ward) = (&group, &ward);
                scope.spawn(move || {
                    for turn in 0..50 {
                        let _ = ward.eject((turn * 7 + thread) % 10, group, at(second));
                        let out = group.iter().filter(|record| record.is_out(at(second))).count();
                        assert!(out <= 3, "{out} are out");
                    }
                });
            }
        });
    }
    assert!(group.iter().any(|record| record.times() > 1), "somebody was ejected again");
}

proptest! {
    #[test]
    fn whoever_is_ejected_is_below_the_mean_and_has_enough_requests(
        pairs in proptest::collection::vec((0_u32..400, 0_u32..400), 0..30),
        deviations in 500_u32..3000,
    ) {
        let settings = Settings { deviations, ..Settings::default() };
        let samples: Vec<Sample> = pairs
            .iter()
            .map(|&(fine, errors)| Sample { requests: fine + errors, errors })
            .collect();
        let rate = |sample: &Sample| f64::from(sample.errors) / f64::from(sample.requests);
        let counted: Vec<&Sample> = samples.iter().filter(|sample| sample.requests >= 100).collect();
        let mean = counted.iter().map(|sample| rate(sample)).sum::<f64>() / counted.len() as f64;
        let out = outliers(&samples, &settings);
        prop_assert!(out.len() < counted.len().max(1));
        for peer in out {
            prop_assert!(samples[peer].requests >= 100);
            prop_assert!(rate(&samples[peer]) > mean + 0.049);
        }
    }
}
