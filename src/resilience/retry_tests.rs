use proptest::prelude::*;

use super::*;

/// A GET that could not be connected.
const FAILED: Failed = Failed {
    what: What::Connect,
    sent: Sent::Nothing,
    attempts: 1,
    uncounted: 0,
    idempotent: true,
    replayable: true,
    downstream_started: false,
    left: None,
    retry_after: None,
};

fn settings() -> Settings {
    Settings { statuses: vec![502, 503], ..Settings::default() }
}

/// The longest wait, as far as chance goes.
fn longest(failed: &Failed) -> Decision {
    decide(&settings(), failed, u64::MAX)
}

fn gives_up(failed: &Failed) -> Option<Reason> {
    match longest(failed) {
        Decision::GiveUp(reason) => Some(reason),
        Decision::Again { .. } => None,
    }
}

#[track_caller]
fn assert_waits_about(failed: &Failed, milliseconds: u64) {
    let Decision::Again { after, counted: Counted::Yes } = longest(failed) else {
        panic!("{failed:?} is not tried again: {:?}", longest(failed));
    };
    let wanted = Duration::from_millis(milliseconds);
    assert!(wanted.abs_diff(after) < Duration::from_micros(1), "{after:?}, not {wanted:?}");
}

#[test]
fn waits_double_up_to_their_limit() {
    let settings = Settings { attempts: 100, ..settings() };
    let wait = |attempts| match decide(&settings, &Failed { attempts, ..FAILED }, u64::MAX) {
        Decision::Again { after, .. } => after.as_millis() + 1,
        Decision::GiveUp(reason) => panic!("{reason:?}"),
    };
    assert_eq!([1, 2, 3, 5, 6, 7, 99].map(wait), [100, 200, 400, 1600, 2000, 2000, 2000]);
}

#[test]
fn a_wait_may_be_as_short_as_nothing() {
    let decision = decide(&settings(), &FAILED, 0);
    assert_eq!(decision, Decision::Again { after: Duration::ZERO, counted: Counted::Yes });
}

#[test]
fn the_last_attempt_is_the_last() {
    assert_eq!(gives_up(&Failed { attempts: 2, ..FAILED }), None);
    assert_eq!(gives_up(&Failed { attempts: 3, ..FAILED }), Some(Reason::Attempts));
}

#[test]
fn what_a_client_has_begun_to_read_is_not_begun_again() {
    let failed = Failed { downstream_started: true, ..FAILED };
    assert_eq!(gives_up(&failed), Some(Reason::Started));
}

#[test]
fn a_post_is_tried_again_only_when_nobody_can_have_seen_it() {
    let post = Failed { idempotent: false, ..FAILED };
    assert_eq!(gives_up(&post), None);
    for what in [What::Broken, What::TimedOut, What::DeadConnection, What::Status(503)] {
        let seen = Failed { what, sent: Sent::Something, ..post };
        assert_eq!(gives_up(&seen), Some(Reason::NotIdempotent), "{what:?}");
        let allowed = Settings { non_idempotent: true, ..settings() };
        assert!(matches!(decide(&allowed, &seen, 1), Decision::Again { .. }), "{what:?}");
    }
    let dead = Failed { what: What::DeadConnection, ..post };
    let again = Decision::Again { after: Duration::ZERO, counted: Counted::No };
    assert_eq!(longest(&dead), again);
}

#[test]
fn what_cannot_be_sent_again_is_not() {
    let failed = Failed { replayable: false, ..FAILED };
    assert_eq!(gives_up(&failed), Some(Reason::NotReplayable));
}

#[test]
fn only_chosen_statuses_are_failures() {
    let answered = |status| Failed { what: What::Status(status), sent: Sent::Something, ..FAILED };
    assert_eq!(gives_up(&answered(503)), None);
    assert_eq!(gives_up(&answered(500)), Some(Reason::Status));
    assert_eq!(gives_up(&answered(200)), Some(Reason::Status));
}

#[test]
fn a_dead_connection_is_followed_at_once_and_not_counted() {
    let dead = Failed { what: What::DeadConnection, sent: Sent::Something, ..FAILED };
    let again = Decision::Again { after: Duration::ZERO, counted: Counted::No };
    assert_eq!(longest(&dead), again);
    // Even after the last attempt.
    assert_eq!(longest(&Failed { attempts: 3, ..dead }), again);
}

#[test]
fn too_many_dead_connections_are_counted() {
    let dead = Failed { what: What::DeadConnection, sent: Sent::Something, ..FAILED };
    let last_free = Failed { uncounted: FREE_DEAD_CONNECTIONS - 1, ..dead };
    assert!(matches!(longest(&last_free), Decision::Again { counted: Counted::No, .. }));
    let first_counted = Failed { uncounted: FREE_DEAD_CONNECTIONS, ..dead };
    assert_waits_about(&first_counted, 100);
    let no_more = Failed { attempts: 3, ..first_counted };
    assert_eq!(gives_up(&no_more), Some(Reason::Attempts));
}

#[test]
fn what_was_not_looked_at_is_said_again_so_often_without_being_counted_and_soon_apart() {
    for (what, free) in [(What::Left, FREE_LEFT), (What::Refused, FREE_REFUSED)] {
        // Whatever it is, and though it may be sent once only.
        let failed = Failed { what, idempotent: false, attempts: 3, ..FAILED };
        for uncounted in 0..free {
            let failed = Failed { uncounted, ..failed };
            let after = |decision| match decision {
                Decision::Again { after, counted: Counted::No } => after,
                decision => panic!("{what:?}: {decision:?}"),
            };
            let longest = after(longest(&failed));
            // Those who came too late together do not all come together again.
            assert_eq!(longest.is_zero(), uncounted < 2, "{what:?}");
            assert!(longest <= settings().backoff);
        }
        let no_more = Failed { uncounted: free, ..failed };
        assert_eq!(gives_up(&no_more), Some(Reason::Attempts), "{what:?}");
        assert_waits_about(&Failed { attempts: 1, ..no_more }, 100);
        // Unless a part of it is gone.
        let gone = Failed { replayable: false, ..failed };
        assert_eq!(gives_up(&gone), Some(Reason::NotReplayable), "{what:?}");
    }
}

#[test]
fn a_peer_is_blamed_for_what_it_did() {
    let (free, counted) = (Some(Counted::No), Some(Counted::Yes));
    for what in [What::Refused, What::Connect, What::Broken, What::TimedOut, What::Status(503)] {
        assert!([free, counted, None].iter().all(|again| is_blamed(what, *again, 0)), "{what:?}");
    }
    let blamed =
        |what, uncounted| [free, counted, None].map(|again| is_blamed(what, again, uncounted));
    assert_eq!(blamed(What::DeadConnection, 0), [false, true, true]);
    // A body that cannot be said again came as late as any.
    assert_eq!(blamed(What::Left, FREE_LEFT - 1), [false; 3]);
    assert_eq!(blamed(What::Left, FREE_LEFT), [false, true, true]);
}

#[test]
fn retry_after_is_waited_for_when_it_fits() {
    let asked = |after| Failed {
        what: What::Status(503),
        sent: Sent::Something,
        retry_after: Some(Duration::from_secs(after)),
        left: Some(Duration::from_secs(10)),
        ..FAILED
    };
    assert_waits_about(&asked(0), 100);
    assert_waits_about(&asked(3), 3100);
    assert_eq!(gives_up(&asked(4)), Some(Reason::RetryAfter));
    let short = Failed { left: Some(Duration::from_secs(2)), ..asked(2) };
    assert_eq!(gives_up(&short), Some(Reason::RetryAfter));
}

#[test]
fn nobody_waits_for_longer_than_there_is_time() {
    let left = |milliseconds| Failed { left: Some(Duration::from_millis(milliseconds)), ..FAILED };
    assert_eq!(gives_up(&left(101)), None);
    assert_eq!(gives_up(&left(99)), Some(Reason::NoTime));
    let dead = Failed { what: What::DeadConnection, ..left(0) };
    assert_eq!(gives_up(&dead), Some(Reason::NoTime));
}

proptest! {
    #[test]
    fn a_wait_fits_into_the_time_left_and_the_attempts_end(
        what in prop_oneof![
            Just(What::Connect), Just(What::DeadConnection), Just(What::Broken),
            Just(What::TimedOut), Just(What::Left), Just(What::Refused), Just(What::Status(503)),
        ],
        attempts in 1_u32..6,
        backoff in 0_u64..5000,
        left in proptest::option::of(0_u64..5000),
        retry_after in proptest::option::of(0_u64..5000),
        numbers in proptest::collection::vec(any::<u64>(), 40),
    ) {
        let settings = Settings {
            attempts, backoff: Duration::from_millis(backoff), ..settings()
        };
        let mut failed = Failed {
            what,
            left: left.map(Duration::from_millis),
            retry_after: retry_after.map(Duration::from_millis),
            ..FAILED
        };
        let mut ended = false;
        for random in numbers {
            let Decision::Again { after, counted } = decide(&settings, &failed, random) else {
                ended = true;
                break;
            };
            if let Some(left) = &mut failed.left {
                prop_assert!(after < *left);
                *left -= after;
            }
            if let (Some(asked), Counted::Yes) = (failed.retry_after, counted) {
                prop_assert!(after >= asked);
            }
            match counted {
                Counted::Yes => failed.attempts += 1,
                Counted::No => failed.uncounted += 1,
            }
        }
        prop_assert!(ended);
        prop_assert!(failed.attempts <= attempts);
    }

    #[test]
    fn what_may_have_been_acted_upon_is_never_repeated(
        random in any::<u64>(),
        attempts in 0_u32..5,
        status in any::<u16>(),
    ) {
        for what in [What::Broken, What::TimedOut, What::DeadConnection, What::Status(status)] {
            let failed =
                Failed { what, sent: Sent::Something, idempotent: false, attempts, ..FAILED };
            let decision = decide(&settings(), &failed, random);
            prop_assert!(matches!(decision, Decision::GiveUp(_)));
        }
    }
}
