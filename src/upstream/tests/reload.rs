//! What a reload keeps of what is known of backends, and what it ends.

use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use super::harness;
use crate::message::reply::ReplyLimits;
use crate::refusal::Refusal;
use crate::resilience::breaker;
use crate::resilience::breaker::State;
use crate::resilience::ejection;
use crate::resilience::health as judge;
use crate::terms::clock::Turned;
use crate::upstream;
use crate::upstream::Breaker;
use crate::upstream::Ejection;
use crate::upstream::Fault;
use crate::upstream::Place;
use crate::upstream::Settings;
use crate::upstream::backend::Reason;
use crate::upstream::health;
use crate::upstream::lease::Lease;
use crate::upstream::mishap::Why;
use crate::upstream::peer::Upstream;
use crate::upstream::peer::Wish;
use crate::upstream::report::Report;

/// Two backends, of which one failure is enough.
fn settings(open_for: Option<u64>) -> Settings {
    let place = |last: u8| Place::Tcp { host: format!("192.0.2.{last}"), port: 80 };
    let mut settings = harness::settings(place(1));
    settings.backends.push(upstream::Backend::new("two", place(2)));
    settings.breaker = open_for.map(|seconds| Breaker {
        settings: breaker::Settings {
            failures: 1,
            open_for: Duration::from_secs(seconds),
            ..breaker::Settings::default()
        },
        counts: Some(vec![Fault::Closed]),
        statuses: Some(vec![503]),
    });
    settings
}

fn build(settings: Settings) -> Arc<Upstream> {
    Upstream::build(settings, ReplyLimits::default()).expect("it can be built")
}

/// A reload.
fn reload(before: &Arc<Upstream>, settings: Settings) -> Arc<Upstream> {
    let (after, _) = before.followed_by(settings, ReplyLimits::default()).expect("it can be");
    after.take_over(before);
    after
}

/// The first backend is lent.
fn lend(upstream: &Arc<Upstream>) -> Lease {
    let mut lent = (0..4).filter_map(|_| upstream.lend(&Wish::default()).ok());
    lent.find(|lease| &**lease.backend().id() == "one").expect("it can be used")
}

fn fail(mut lease: Lease) {
    lease.failed(Fault::Closed, Why::Refusal(Refusal::OriginClosed));
}

/// What is known of the first one.
fn report(upstream: &Upstream) -> Report {
    upstream.report().into_iter().find(|one| &*one.id == "one").expect("it is there")
}

#[tokio::test]
async fn a_request_from_before_is_held_against_the_breaker_that_goes_on() {
    let before = build(settings(Some(30)));
    let from_before = lend(&before);
    let after = reload(&before, settings(Some(600)));
    assert_eq!(report(&after).breaker, Some(State::Closed));
    fail(from_before);
    let is = report(&after);
    let Some(State::Open { until }) = is.breaker else { panic!("{:?}", is.breaker) };
    assert!(until >= Duration::from_secs(600), "{until:?}");
    assert_eq!((is.opened, is.last_error.map(|(_, last)| last.label)), (1, Some("origin_closed")));
}

#[tokio::test]
async fn an_open_breaker_stays_open_and_takes_its_new_time() {
    let began = Instant::now();
    let mut clock = Turned::to(began);
    let before = build(settings(Some(30)));
    fail(lend(&before));
    // Nothing happens before the new one takes over.
    let (next, _) =
        before.followed_by(settings(Some(600)), ReplyLimits::default()).expect("it can be");
    let until = |upstream: &Upstream| match report(upstream).breaker {
        Some(State::Open { until }) => until,
        other => panic!("{other:?}"),
    };
    let was = until(&before);
    assert_eq!(until(&next), was);
    next.take_over(&before);
    assert_eq!(until(&next), was + Duration::from_secs(570));
    // No time that is left at all: the next request is a probe, and closes it.
    let last = reload(&next, settings(Some(0)));
    assert_eq!(until(&last), was - Duration::from_secs(30));
    clock.on(began + Duration::from_secs(1));
    let mut probe = lend(&last);
    assert_eq!(report(&last).breaker, Some(State::HalfOpen));
    let last = reload(&last, settings(Some(30)));
    assert_eq!(report(&last).breaker, Some(State::HalfOpen));
    probe.answered(200, Duration::from_millis(1));
    let is = report(&last);
    assert_eq!(is.breaker, Some(State::Closed));
    assert_eq!((is.opened, is.half_opened, is.closed), (1, 1, 1));
}

#[tokio::test]
async fn a_breaker_that_is_switched_off_has_closed_and_stays_so() {
    let before = build(settings(Some(600)));
    let (from_before, another) = (lend(&before), lend(&before));
    fail(from_before);
    let after = reload(&before, settings(None));
    let counted = |upstream: &Upstream| {
        let is = report(upstream);
        (is.breaker, is.opened, is.closed)
    };
    assert_eq!(counted(&after), (None, 1, 1));
    drop(lend(&after));
    // Neither what is under way from before opens it, nor what is asked there again.
    fail(another);
    fail(lend(&before));
    assert_eq!(counted(&after), (None, 1, 1));
    let again = reload(&after, settings(Some(600)));
    assert_eq!(counted(&again), (Some(State::Closed), 1, 1));
}

#[tokio::test]
async fn who_is_ejected_is_in_again_when_nobody_is_ejected_any_more() {
    let ejecting = |base| Settings {
        ejection: Some(Ejection {
            settings: ejection::Settings {
                consecutive: 1,
                base: Duration::from_secs(base),
                ..ejection::Settings::default()
            },
            interval: Duration::from_secs(10),
            statuses: vec![503],
        }),
        ..settings(None)
    };
    let before = build(ejecting(60));
    let another = lend(&before);
    fail(lend(&before));
    let out_for = |upstream: &Upstream| report(upstream).ejected_for.map(|left| left.as_secs());
    let is_about =
        |left: Option<u64>, wanted| left.is_some_and(|left| (wanted - 30..=wanted).contains(&left));
    // Other settings go for whoever is ejected next.
    let after = reload(&before, ejecting(600));
    assert!(is_about(out_for(&after), 60), "{:?}", out_for(&after));
    let after = reload(&after, settings(None));
    assert_eq!(out_for(&after), None);
    fail(another);
    fail(lend(&after));
    assert_eq!((out_for(&after), report(&after).ejected), (None, 1));
    let again = reload(&after, ejecting(600));
    fail(lend(&again));
    assert!(is_about(out_for(&again), 600), "as for the first time: {:?}", out_for(&again));
}

#[tokio::test]
async fn what_checks_find_out_before_a_reload_takes_over_is_known_after_it() {
    let checked = |fall| Settings {
        health: Some(health::Settings {
            probe: health::Probe::Tcp,
            interval: Duration::from_secs(10),
            jitter: 0,
            timeout: Duration::from_secs(1),
            judged: judge::Settings { rise: 1, fall, initial: judge::Assumed::Healthy },
        }),
        ..settings(None)
    };
    let check = |upstream: &Upstream, passes: bool| {
        let one = upstream.backends().into_iter().find(|one| &**one.id() == "one");
        let one = one.expect("it is there");
        let checks = one.checks.as_ref().expect("it is checked");
        let error = (!passes).then(|| "nobody is there".into());
        health::conclude(upstream, &one, checks, error, upstream.now());
        (report(upstream).health.map(|health| health.state), one.is(Reason::Unhealthy))
    };
    let (healthy, unhealthy) = (Some(judge::State::Healthy), Some(judge::State::Unhealthy));
    let before = build(checked(2));
    let (after, _) =
        before.followed_by(checked(3), ReplyLimits::default()).expect("it can be built");
    assert_eq!(check(&before, false), (healthy, false));
    assert_eq!(check(&before, false), (unhealthy, true), "by the settings of before");
    after.take_over(&before);
    assert_eq!(report(&after).health.map(|health| health.failed_in_a_row), Some(2));
    assert_eq!(check(&after, true), (healthy, false));
    assert_eq!(check(&after, false), (healthy, false));
    assert_eq!(check(&after, false), (healthy, false));
    assert_eq!(check(&after, false), (unhealthy, true), "by the new ones");
}
