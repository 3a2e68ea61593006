//! Who leads, who follows, and for how long.

use http::HeaderMap;

use super::*;
use crate::cache::reuse::Why;
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
    let none = HeaderMap::new();
    assert!(flights.is_unshared(b"k", &none, now));
    assert!(!flights.is_unshared(b"l", &none, now));
    flights.note_shared(b"k", &none, Reuse::Fresh, now);
    assert!(!flights.is_unshared(b"k", &none, now));
}

#[test]
fn what_each_has_to_have_confirmed_is_remembered_until_it_is_not() {
    let flights = Arc::new(Flights::default());
    let (now, none) = (Instant::now(), HeaderMap::new());
    flights.note_shared(b"k", &none, Reuse::Revalidate(Why::NoCache), now);
    assert!(flights.is_each_ones(b"k", now) && !flights.is_unshared(b"k", &none, now));
    let own = flights.alone(b"k", generation());
    let first = lead(flights.join(b"k", &none, generation()));
    assert_eq!(flights.under_way(), 1, "nobody takes part in the one that is its own");
    drop(own);
    assert_eq!(flights.under_way(), 1);
    drop(first);
    flights.note_shared(b"k", &none, Reuse::Fresh, now);
    assert!(!flights.is_each_ones(b"k", now));
}

#[test]
fn what_a_request_brought_itself_is_not_held_against_others() {
    let flights = Flights::default();
    let now = Instant::now();
    let none = HeaderMap::new();
    let with = |name, value| HeaderMap::from_iter([(name, http::HeaderValue::from_static(value))]);
    let known = with(http::header::AUTHORIZATION, "who");
    let returning = with(http::header::COOKIE, "a=1");

    flights.note_unshared(b"k", Concerns::Itself, now);
    flights.note_unsliced(b"k", Concerns::Itself, now);
    for request in [&none, &known, &returning] {
        assert!(!flights.is_unshared(b"k", request, now));
        assert!(!flights.is_unsliced(b"k", request, now));
    }
    flights.note_unshared(b"k", Concerns::Credentials, now);
    flights.note_unsliced(b"k", Concerns::Cookies, now);
    for (request, unshared, unsliced) in
        [(&none, false, false), (&known, true, false), (&returning, false, true)]
    {
        assert_eq!(flights.is_unshared(b"k", request, now), unshared);
        assert_eq!(flights.is_unsliced(b"k", request, now), unsliced);
    }
    // What is shared with everybody says nothing of them.
    flights.note_shared(b"k", &none, Reuse::Fresh, now);
    assert!(flights.is_unshared(b"k", &known, now));
    flights.note_shared(b"k", &known, Reuse::Fresh, now);
    assert!(!flights.is_unshared(b"k", &known, now));
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
