use pingora::upstreams::peer::HttpPeer;
use proptest::prelude::*;

use super::*;
use crate::message::reply::ReplyLimits;
use crate::resilience::ejection;
use crate::resilience::ejection::Ejected;
use crate::resilience::ejection::Ward;
use crate::upstream;
use crate::upstream::Place;
use crate::upstream::backend::Reason;
use crate::upstream::peer::Upstream;
use crate::upstream::pool;
use crate::upstream::pool::Pool;
use crate::upstream::tests::harness::settings;

fn backend(number: u16, weight: u32, backup: bool, news: &Arc<News>) -> Arc<Backend> {
    let place = Place::Tcp { host: "192.0.2.1".to_owned(), port: number };
    let settings = upstream::Backend {
        weight,
        backup,
        ..upstream::Backend::new(&format!("b{number}"), place)
    };
    let peer = HttpPeer::new(("192.0.2.1", number), false, String::new());
    let pool = Pool::new(pool::Settings::default());
    Arc::new(Backend::new(&settings, peer, pool, true, None, news, Duration::ZERO))
}

fn now(millis: u64, slow_start: u64, panic_threshold: u32) -> Now {
    let at = Duration::from_millis(millis);
    Now { at, slow_start: Duration::from_secs(slow_start), panic_threshold }
}

/// How often each is chosen, of so many times.
fn counts<const N: usize>(
    group: &Group,
    backends: &[Arc<Backend>; N],
    times: u64,
    now: Now,
) -> [u32; N] {
    let mut counts = [0; N];
    for random in 0..times {
        let random = balance::hash::key(&random.to_be_bytes());
        let wanted = Wanted { tried: &[], hash: None, sticky: None, random };
        let picked = group.pick(&wanted, &now).expect("one is usable");
        let at = backends.iter().position(|one| Arc::ptr_eq(one, picked)).expect("it is there");
        counts[at] += 1;
    }
    counts
}

/// Whether health is heeded at a tier of these, by a look at each backend.
fn heed_by_all(tiers: &[&[Arc<Backend>]], threshold: u32, now: Now) -> Heed {
    let has_enough = |tier: &&[Arc<Backend>]| {
        let wanted = tier.iter().filter(|one| one.is_wanted());
        let well = wanted.clone().filter(|one| one.is_well(now.at)).count();
        let all = wanted.count();
        all > 0 && well * 100 >= all * threshold as usize
    };
    if tiers.iter().any(has_enough) { Heed::Health } else { Heed::Panic }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Whatever happens to the backends, and however much time passes: in each group that they are in.
    #[test]
    fn whether_health_is_heeded_is_what_a_look_at_each_backend_says(
        of in (1_usize..7, 0_usize..5),
        threshold in 1_u32..=100,
        happens in proptest::collection::vec((0_u8..9, 0_usize..12, 0_u64..1500), 1..60),
    ) {
        let (primary, backup) = of;
        let news = Arc::new(News::default());
        let all: Vec<Arc<Backend>> = (0..primary + backup)
            .map(|n| backend(n as u16 + 1, 1, n >= primary, &news))
            .collect();
        // As before and after a reload.
        let groups = [(), ()].map(|()| Group::new(all.clone(), &Algorithm::Random, &news));
        let tiers: Vec<&[Arc<Backend>]> =
            [&all[..primary], &all[primary..]].into_iter().filter(|tier| !tier.is_empty()).collect();
        let ward = Ward::new(ejection::Settings {
            base: Duration::from_millis(700),
            max_percent: 100,
            ..ejection::Settings::default()
        });
        let mut time = 0;
        for (what, whom, later) in happens {
            let at = whom % all.len();
            let one = &all[at];
            match what {
                0 => drop(one.set(Reason::Unhealthy, true)),
                1 => drop(one.set(Reason::Unhealthy, false)),
                2 => drop(one.set(Reason::Draining, true)),
                3 => drop(one.set(Reason::Draining, false)),
                4 => drop(one.set(Reason::Unknown, whom % 2 == 0)),
                5 => drop(one.set(Reason::Inactive, whom % 3 == 0)),
                6 => {
                    let records: Vec<&ejection::Record> = all.iter().map(|one| one.record()).collect();
                    let ejected = ward.eject(at, &records, Duration::from_millis(time));
                    if let Ejected::Until(until) = ejected {
                        one.ejected(until);
                    }
                }
                _ => time += later,
            }
            let now = now(time, 0, threshold);
            for group in &groups {
                for place in 0..tiers.len() {
                    let wanted = heed_by_all(&tiers[place..], threshold, now);
                    prop_assert_eq!(group.heed(place, &now), wanted);
                }
            }
        }
    }
}

#[test]
fn health_is_heeded_again_in_the_millisecond_in_which_an_ejection_ends() {
    let news = Arc::new(News::default());
    let both = [1, 2].map(|number| backend(number, 1, false, &news));
    let group = Group::new(both.to_vec(), &Algorithm::Random, &news);
    let settings =
        ejection::Settings { base: Duration::from_millis(300), ..ejection::Settings::default() };
    let records = [both[0].record(), both[1].record()];
    let ejected = Ward::new(settings).eject(0, &records, Duration::from_millis(100));
    assert_eq!(ejected, Ejected::Until(Duration::from_millis(400)));
    both[0].ejected(Duration::from_millis(400));
    assert_eq!(
        [100, 399, 400].map(|at| group.heed(0, &now(at, 0, 51))),
        [Heed::Panic, Heed::Panic, Heed::Health]
    );
}

#[test]
fn what_happens_in_one_generation_of_an_upstream_is_heard_in_the_other() {
    let mut two = settings(Place::Tcp { host: "192.0.2.1".to_owned(), port: 80 });
    let second = Place::Tcp { host: "192.0.2.2".to_owned(), port: 80 };
    two.backends.push(upstream::Backend::new("two", second));
    two.panic_threshold = 50;
    let limits = ReplyLimits::default();
    let before = Upstream::build(two.clone(), limits).unwrap();
    let (after, _) = before.followed_by(two, limits).unwrap();
    for (tells, hears) in [(&before, &after), (&after, &before)] {
        let lend = || hears.lend(&upstream::peer::Wish::default()).map(drop);
        for one in tells.backends() {
            assert_eq!(lend(), Ok(()));
            one.set(Reason::Unhealthy, true);
        }
        assert_eq!(lend(), Ok(()), "none is well: all are tried");
        for one in tells.backends() {
            one.set(Reason::Unhealthy, false);
            one.set(Reason::Draining, true);
        }
        assert_eq!(lend(), Err(Refusal::NoPeer), "operators are always heeded");
        for one in tells.backends() {
            one.set(Reason::Draining, false);
        }
    }
}

#[test]
fn where_all_came_up_together_each_has_its_turn() {
    let news = Arc::new(News::default());
    let three =
        [(1, 1), (2, 2), (3, 3)].map(|(number, weight)| backend(number, weight, false, &news));
    let group = Group::new(three.to_vec(), &Algorithm::RoundRobin, &news);
    // At the first moment, when nobody would have more than a twentieth, and half way up.
    for at in [0, 1_800_000] {
        assert_eq!(counts(&group, &three, 60, now(at, 3600, 0)), [10, 20, 30]);
    }
}

#[test]
fn in_a_slow_start_a_share_is_that_of_the_readiest_of_those_that_get_requests() {
    let news = Arc::new(News::default());
    let three = [1, 2, 3].map(|number| backend(number, 1, false, &news));
    let group = Group::new(three.to_vec(), &Algorithm::Random, &news);
    // A whole hour up, half of one and a quarter.
    three[1].came_up(Duration::from_secs(1800));
    three[2].came_up(Duration::from_secs(2700));
    let now = now(3_600_000, 3600, 0);
    let near = |count: u32, wanted: u32| count.abs_diff(wanted) < 600;
    let [whole, half, quarter] = counts(&group, &three, 35_000, now);
    assert!(
        near(whole, 20_000) && near(half, 10_000) && near(quarter, 5000),
        "{whole} {half} {quarter}"
    );
    // Now the second is the readiest: it takes the turn of all that the third leaves.
    three[0].set(Reason::Draining, true);
    let [whole, half, quarter] = counts(&group, &three, 30_000, now);
    assert!(whole == 0 && near(half, 20_000) && near(quarter, 10_000), "{whole} {half} {quarter}");
    assert_eq!(group.tiers[0].readiest(Heed::Health, &news, &now), 500);
    three[0].set(Reason::Draining, false);
    assert_eq!(group.tiers[0].readiest(Heed::Health, &news, &now), 1000);
    assert_eq!(group.tiers[0].readiest(Heed::Panic, &news, &now), 1000);
}

/// How all backends of a group are.
#[derive(Debug, Clone, Copy)]
enum All {
    Free,
    /// All their connections are in use.
    Full,
    /// Nobody could connect to them a moment ago.
    Resting,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Whether or not there is anybody better, and however many of the requests are tried again or hedged meanwhile.
    #[test]
    fn turns_are_exact_shares_of_first_attempts_however_all_are(
        weights in proptest::collection::vec(1_u32..6, 1..7),
        all in prop::sample::select(&[All::Free, All::Full, All::Resting][..]),
        fails in proptest::collection::vec(0_usize..3, 16),
    ) {
        let news = Arc::new(News::default());
        let backends: Vec<Arc<Backend>> =
            (1_u16..).zip(&weights).map(|(number, &weight)| backend(number, weight, false, &news)).collect();
        let group = Group::new(backends.clone(), &Algorithm::RoundRobin, &news);
        for one in &backends {
            match all {
                All::Free => {}
                All::Full => (0..pool::Settings::default().max_connections).for_each(|_| one.begin()),
                All::Resting => one.rest(Duration::ZERO),
            }
        }
        let now = now(1, 0, 0);
        let cycles = 12;
        let mut chance = fails.iter().cycle();
        let mut counts = vec![0_u32; backends.len()];
        for random in 0..u64::from(weights.iter().sum::<u32>()) * cycles {
            let random = balance::hash::key(&random.to_be_bytes());
            let mut tried = Vec::new();
            for _ in 0..=*chance.next().unwrap() {
                let wanted = Wanted { tried: &tried, hash: None, sticky: None, random };
                let picked = Arc::clone(group.pick(&wanted, &now).unwrap());
                if tried.is_empty() {
                    counts[backends.iter().position(|one| Arc::ptr_eq(one, &picked)).unwrap()] += 1;
                }
                tried.push(picked);
            }
        }
        let shares: Vec<u32> = weights.iter().map(|weight| weight * cycles as u32).collect();
        prop_assert_eq!(counts, shares);
    }

    /// A session waits for its backend, and who has none is spread.
    #[test]
    fn who_belongs_to_a_backend_stays_there_when_it_is_full(
        number in 2_u16..9,
        keys in proptest::collection::vec(any::<u64>(), 20),
    ) {
        let news = Arc::new(News::default());
        let backends: Vec<Arc<Backend>> =
            (1..=number).map(|number| backend(number, 1, false, &news)).collect();
        let (by_hash, by_turns) = (
            Group::new(backends.clone(), &Algorithm::ConsistentHash { bound: None }, &news),
            Group::new(backends.clone(), &Algorithm::RoundRobin, &news),
        );
        let now = now(1, 0, 0);
        let pick = |group: &Group, hash, sticky, random| {
            let wanted = Wanted { tried: &[], hash, sticky, random };
            group.pick(&wanted, &now).unwrap().key()
        };
        for key in keys {
            let own = pick(&by_hash, Some(key), None, 0);
            let full = backends.iter().find(|one| one.key() == own).unwrap();
            (0..pool::Settings::default().max_connections).for_each(|_| full.begin());
            for random in 0..9 {
                prop_assert_eq!(pick(&by_hash, Some(key), None, random), own);
                prop_assert_eq!(pick(&by_turns, None, Some(own), random), own);
            }
            (0..pool::Settings::default().max_connections).for_each(|_| full.end());
        }
        let spread: std::collections::HashSet<u64> =
            (0..400).map(|random| pick(&by_hash, None, None, random)).collect();
        prop_assert_eq!(spread.len(), usize::from(number));
    }
}

#[test]
fn another_attempt_goes_to_the_others_by_their_weights() {
    let news = Arc::new(News::default());
    let backends =
        [(1, 5), (2, 1), (3, 3)].map(|(number, weight)| backend(number, weight, false, &news));
    let group = Group::new(backends.to_vec(), &Algorithm::RoundRobin, &news);
    let tried = [Arc::clone(&backends[0])];
    let mut counts = [0; 3];
    for random in 0..4000_u64 {
        let wanted = Wanted { tried: &tried, hash: None, sticky: None, random };
        let picked = group.pick(&wanted, &now(1, 0, 0)).unwrap();
        counts[backends.iter().position(|one| Arc::ptr_eq(one, picked)).unwrap()] += 1;
    }
    let [first, second, third] = counts;
    // One of four, and three of four.
    assert!(first == 0 && (900..1100).contains(&second), "{counts:?}");
    assert_eq!(second + third, 4000);
}
