//! Who leads, who follows, and for how long.

use http::HeaderMap;

use super::*;
use crate::storage::memory::Memory;
use crate::storage::memory::Options;

fn generation() -> Generation {
    Memory::new(Options::with_limit(1 << 20)).generation()
}

fn lead(joined: Joined) -> Lead {
    match joined {
        Joined::Lead(lead) => lead,
        Joined::Follow(_) => panic!("a fetch is under way"),
    }
}

#[test]
fn the_first_leads_and_the_others_follow_until_it_ends() {
    let flights = Arc::new(Flights::default());
    let none = HeaderMap::new();
    let first = lead(flights.join(b"k", &none, generation()));
    assert!(matches!(flights.join(b"k", &none, generation()), Joined::Follow(_)));
    let other = lead(flights.join(b"l", &none, generation()));
    assert_eq!(flights.under_way(), 2);
    drop((first, other));
    assert_eq!(flights.under_way(), 0);
    lead(flights.join(b"k", &none, generation()));
}

#[test]
fn nobody_joins_a_fetch_that_began_before_a_purge() {
    let flights = Arc::new(Flights::default());
    let none = HeaderMap::new();
    let tier = Memory::new(Options::with_limit(1 << 20));
    let before = lead(flights.join(b"k", &none, tier.generation()));
    tier.purge(b"another");
    let after = lead(flights.join(b"k", &none, tier.generation()));
    assert!(matches!(flights.join(b"k", &none, tier.generation()), Joined::Follow(_)));
    drop((before, after));
}

#[tokio::test]
async fn a_lead_that_is_dropped_has_failed_and_that_is_remembered_for_a_moment() {
    let flights = Arc::new(Flights::default());
    let first = lead(flights.join(b"k", &HeaderMap::new(), generation()));
    let flight = Arc::clone(first.flight());
    let now = Instant::now();
    assert!(!flights.is_failing(b"k", now));
    drop(first);
    assert!(matches!(flight.turned_out().await, Stage::Failed));
    assert!(flights.is_failing(b"k", now));
    assert!(!flights.is_failing(b"k", now + 2 * FAILING));
}

#[tokio::test]
async fn what_is_not_shared_is_remembered_until_it_is() {
    let flights = Arc::new(Flights::default());
    let first = lead(flights.join(b"k", &HeaderMap::new(), generation()));
    first.unshared();
    assert!(matches!(first.flight().turned_out().await, Stage::Unshared));
    assert_eq!(flights.under_way(), 0, "nobody joins it any more");
    let now = Instant::now();
    assert!(flights.is_unshared(b"k", now));
    assert!(!flights.is_unshared(b"l", now));
    flights.note_shared(b"k", true, now);
    assert!(!flights.is_unshared(b"k", now));
}

#[test]
fn only_so_many_fetches_go_on_for_nobody() {
    let flights = Arc::new(Flights::default());
    let none = HeaderMap::new();
    let lonely = lead(flights.join(b"k", &none, generation()));
    let orphans: Vec<_> = (0..ORPHANS).map(|_| flights.go_on(lonely.flight())).collect();
    assert!(orphans.iter().all(Option::is_some));
    assert!(flights.go_on(lonely.flight()).is_none());
    // One that another waits for does.
    let flight = Arc::clone(lonely.flight());
    let mut waiting = Box::pin(async move { flight.turned_out().await });
    let waker = std::task::Waker::noop();
    let mut context = std::task::Context::from_waker(waker);
    assert!(waiting.as_mut().poll(&mut context).is_pending());
    assert!(flights.go_on(lonely.flight()).is_some());
    drop(waiting);
    assert!(flights.go_on(lonely.flight()).is_none());
    drop(orphans);
    assert!(flights.go_on(lonely.flight()).is_some());
}

#[test]
fn one_refresh_runs_at_a_time_and_not_too_many_in_all() {
    let flights = Arc::new(Flights::default());
    let none = HeaderMap::new();
    let first = flights.refresh(b"k", &none, generation()).expect("none is under way");
    assert!(flights.refresh(b"k", &none, generation()).is_none());
    let many: Vec<_> = (0..REFRESHES)
        .filter_map(|n| flights.refresh(format!("k{n}").as_bytes(), &none, generation()))
        .collect();
    assert_eq!(many.len(), REFRESHES - 1);
    drop((first, many));
    assert!(flights.refresh(b"k", &none, generation()).is_some());
}
