use proptest::prelude::*;

use super::LONGEST_CYCLE;
use super::WeightedRoundRobin;

/// One whole cycle with every peer usable.
fn cycle(balance: &WeightedRoundRobin) -> Vec<usize> {
    (0..balance.cycle_len()).map(|_| balance.pick(|_| true).expect("a usable peer")).collect()
}

fn count(picks: &[usize], peer: usize) -> usize {
    picks.iter().filter(|&&pick| pick == peer).count()
}

#[test]
fn equal_weights_take_turns() {
    let balance = WeightedRoundRobin::new(&[7, 7, 7]);
    assert_eq!(balance.cycle_len(), 3);
    assert_eq!(cycle(&balance), [0, 1, 2]);
    assert_eq!(cycle(&balance), [0, 1, 2]);
}

#[test]
fn a_heavy_peer_is_interleaved_with_light_ones() {
    let balance = WeightedRoundRobin::new(&[5, 1, 1]);
    assert_eq!(cycle(&balance), [0, 0, 0, 1, 0, 0, 2]);
}

#[test]
fn no_weights_choose_nobody() {
    assert_eq!(WeightedRoundRobin::new(&[]).pick(|_| true), None);
    assert_eq!(WeightedRoundRobin::new(&[0, 0]).pick(|_| true), None);
}

#[test]
fn a_weight_of_zero_is_never_chosen_not_even_as_the_last_resort() {
    let balance = WeightedRoundRobin::new(&[0, 1]);
    assert_eq!(cycle(&balance), [1]);
    assert_eq!(balance.pick(|peer| peer == 0), None);
}

#[test]
fn nobody_usable_chooses_nobody() {
    let balance = WeightedRoundRobin::new(&[3, 1, 900]);
    assert_eq!(balance.pick(|_| false), None);
}

#[test]
fn a_share_of_an_unusable_peer_is_spread_and_not_given_to_its_neighbour() {
    let balance = WeightedRoundRobin::new(&[1, 1, 1]);
    let picks: Vec<usize> = (0..600).filter_map(|_| balance.pick(|peer| peer != 0)).collect();
    assert_eq!((count(&picks, 1), count(&picks, 2)), (300, 300));
}

#[test]
fn the_one_usable_peer_is_found_however_light_it_is() {
    let balance = WeightedRoundRobin::new(&[4000, 1, 95]);
    for _ in 0..5000 {
        assert_eq!(balance.pick(|peer| peer == 1), Some(1));
    }
}

#[test]
fn few_usable_peers_still_share_by_weight() {
    let balance = WeightedRoundRobin::new(&[4000, 1, 3]);
    let picks: Vec<usize> = (0..4000).filter_map(|_| balance.pick(|peer| peer != 0)).collect();
    assert_eq!(picks.len(), 4000);
    let light = count(&picks, 1);
    assert!((900..=1100).contains(&light), "{light} of 4000 instead of about 1000");
}

#[test]
fn the_longest_exact_cycle_is_kept_and_a_longer_one_is_rounded() {
    let exact = WeightedRoundRobin::new(&[LONGEST_CYCLE as u32 - 1, 1]);
    assert_eq!(exact.cycle_len(), LONGEST_CYCLE);
    let rounded = WeightedRoundRobin::new(&[LONGEST_CYCLE as u32, 1]);
    let picks = cycle(&rounded);
    assert!(picks.len() <= LONGEST_CYCLE + 1);
    assert_eq!(count(&picks, 1), 1);
}

#[test]
fn the_largest_weights_keep_their_proportion() {
    let balance = WeightedRoundRobin::new(&[u32::MAX, u32::MAX / 3, 1]);
    let picks = cycle(&balance);
    assert!(picks.len() <= LONGEST_CYCLE + 3);
    assert_eq!(count(&picks, 0), 3072);
    assert_eq!(count(&picks, 1), 1024);
    assert_eq!(count(&picks, 2), 1);
}

#[test]
fn more_peers_than_slots_each_keep_one() {
    let mut weights = vec![1; LONGEST_CYCLE + 10];
    weights[0] = 2;
    let balance = WeightedRoundRobin::new(&weights);
    let picks = cycle(&balance);
    assert!((0..weights.len()).all(|peer| count(&picks, peer) >= 1));
}

#[test]
fn threads_that_choose_together_share_one_exact_cycle() {
    let balance = WeightedRoundRobin::new(&[3, 2, 1]);
    let mut picks = Vec::new();
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| (0..600).filter_map(|_| balance.pick(|_| true)).collect()))
            .collect();
        for worker in workers {
            let more: Vec<usize> = worker.join().expect("the worker finishes");
            picks.extend(more);
        }
    });
    assert_eq!([count(&picks, 0), count(&picks, 1), count(&picks, 2)], [1200, 800, 400]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn a_whole_cycle_gives_each_exactly_its_weight(
        weights in proptest::collection::vec(0_u32..60, 1..12),
        scale in 1_u32..1000,
    ) {
        let scaled: Vec<u32> = weights.iter().map(|weight| weight * scale).collect();
        let balance = WeightedRoundRobin::new(&scaled);
        let picks = cycle(&balance);
        let total: usize = weights.iter().map(|&weight| weight as usize).sum();
        for (peer, &weight) in weights.iter().enumerate() {
            prop_assert_eq!(count(&picks, peer) * total, weight as usize * picks.len());
        }
    }

    #[test]
    fn nobody_is_ever_a_whole_turn_away_from_its_share(
        weights in proptest::collection::vec(0_u32..60, 1..12),
    ) {
        let balance = WeightedRoundRobin::new(&weights);
        let total: i64 = weights.iter().map(|&weight| i64::from(weight)).sum();
        let mut taken = vec![0_i64; weights.len()];
        for turn in 1..=balance.cycle_len() as i64 {
            taken[balance.pick(|_| true).expect("a usable peer")] += 1;
            for (peer, &weight) in weights.iter().enumerate() {
                let off = taken[peer] * total - turn * i64::from(weight);
                prop_assert!(off.abs() < total, "peer {peer} after {turn} turns");
            }
        }
    }

    #[test]
    fn only_usable_peers_are_chosen_and_one_is_whenever_there_is_one(
        peers in proptest::collection::vec((0_u32..100, any::<bool>()), 1..20),
    ) {
        let weights: Vec<u32> = peers.iter().map(|&(weight, _)| weight).collect();
        let balance = WeightedRoundRobin::new(&weights);
        let possible = peers.iter().any(|&(weight, usable)| weight > 0 && usable);
        for _ in 0..50 {
            let pick = balance.pick(|peer| peers[peer].1);
            prop_assert_eq!(pick.is_some(), possible);
            if let Some(peer) = pick {
                prop_assert!(peers[peer].1 && weights[peer] > 0);
            }
        }
    }

    #[test]
    fn without_one_peer_the_others_keep_their_proportion(
        weights in proptest::collection::vec(1_u32..8, 3..6),
    ) {
        let balance = WeightedRoundRobin::new(&weights);
        let rest: usize = weights[1..].iter().map(|&weight| weight as usize).sum();
        let picks: Vec<usize> =
            (0..rest * 100).filter_map(|_| balance.pick(|peer| peer != 0)).collect();
        for (peer, &weight) in weights.iter().enumerate().skip(1) {
            let wanted = weight as usize * 100;
            prop_assert!(count(&picks, peer).abs_diff(wanted) <= weight as usize);
        }
    }
}
