//! What counts among the requests that an upstream has at once.

use std::sync::Arc;
use std::time::Duration;

use super::harness::settings;
use crate::message::reply::ReplyLimits;
use crate::refusal::Refusal;
use crate::resilience::limit;
use crate::resilience::limit::Ended;
use crate::upstream::Fault;
use crate::upstream::Place;
use crate::upstream::Settings;
use crate::upstream::lease;
use crate::upstream::lease::Body;
use crate::upstream::lease::Lease;
use crate::upstream::mishap::Why;
use crate::upstream::peer::Upstream;
use crate::upstream::peer::Wish;

/// One that is never asked, and lets in so many at first.
fn of(initial: u32) -> Arc<Upstream> {
    let place = Place::Tcp { host: "192.0.2.1".to_owned(), port: 1 };
    let concurrency = limit::Settings { initial, min: 1, ..limit::Settings::default() };
    let settings = Settings { concurrency: Some(concurrency), ..settings(place) };
    Upstream::build(settings, ReplyLimits::default()).unwrap()
}

fn lend(upstream: &Arc<Upstream>) -> Result<Lease, Refusal> {
    upstream.lend(&Wish::default())
}

/// The limit, and what there is of it.
fn counts(upstream: &Upstream) -> (u32, u32) {
    upstream.concurrency().unwrap()
}

#[tokio::test]
async fn an_upload_counts_from_when_it_is_whole() {
    let upstream = of(1);
    let mut lease = lend(&upstream).unwrap();
    assert!(lease.try_connection(Body::Coming));
    assert_eq!(counts(&upstream), (1, 1));
    assert_eq!(lend(&upstream).unwrap_err(), Refusal::Shed);
    lease.connected();
    assert_eq!(counts(&upstream), (1, 0));
    lease.body_is_sent();
    assert_eq!(counts(&upstream), (1, 1));
    lease.answered(200, Duration::ZERO);
    assert_eq!(counts(&upstream), (1, 0));
}

#[tokio::test]
async fn who_was_let_in_is_let_in_again_where_there_is_no_room() {
    let upstream = of(1);
    let mut first = lend(&upstream).unwrap();
    first.failed(Fault::Closed, Why::Refusal(Refusal::OriginClosed));
    let _second = lend(&upstream).unwrap();
    assert_eq!(lend(&upstream).unwrap_err(), Refusal::Shed);
    let _again = upstream.lend(&Wish { is_let_in: true, ..Wish::default() }).unwrap();
    assert_eq!(counts(&upstream), (1, 2));
}

#[tokio::test]
async fn what_is_refused_or_not_taken_before_it_is_whole_counts_as_too_much() {
    let ends: [fn(&mut Lease); 2] = [
        |lease| lease.answered(503, Duration::ZERO),
        |lease| lease.failed(Fault::Timeout, Why::Refusal(Refusal::OriginTimeout)),
    ];
    for end in ends {
        let upstream = of(100);
        for _ in 0..10 {
            let mut lease = lend(&upstream).unwrap();
            assert!(lease.try_connection(Body::Coming));
            lease.connected();
            end(&mut lease);
        }
        let (limit, in_flight) = counts(&upstream);
        assert!(limit < 100 && in_flight == 0, "{limit} and {in_flight}");
    }
}

#[test]
fn errors_say_nothing_about_how_long_answers_take() {
    let waited = Duration::from_secs(1);
    for (status, ended) in [
        (200, Ended::Answered(waited)),
        (404, Ended::Answered(waited)),
        (429, Ended::Failed),
        (500, Ended::Failed),
        (503, Ended::Dropped),
        (504, Ended::Failed),
    ] {
        assert_eq!(lease::ended(status, waited), ended, "{status}");
    }
}
