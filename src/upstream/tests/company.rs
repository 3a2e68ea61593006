//! What counts as a failure of a backend, by whether others can stand in for it.

use std::sync::Arc;
use std::time::Duration;

use pingora::protocols::l4::socket::SocketAddr as Address;

use super::harness::settings;
use crate::message::reply::ReplyLimits;
use crate::refusal::Refusal;
use crate::resilience::breaker;
use crate::resilience::breaker::State;
use crate::upstream::Breaker;
use crate::upstream::Fault;
use crate::upstream::Place;
use crate::upstream::Settings;
use crate::upstream::backend::Reason;
use crate::upstream::lease::Lease;
use crate::upstream::mishap::Why;
use crate::upstream::peer::Upstream;
use crate::upstream::peer::Wish;

/// How a request may end badly, and whether that is held against a backend that has nobody to stand in for it.
const ENDS: [(End, bool); 7] = [
    (End::Fault(Fault::Connect), true),
    (End::Fault(Fault::Timeout), true),
    (End::Fault(Fault::Closed), false),
    (End::Fault(Fault::Malformed), false),
    (End::Status(502), false),
    (End::Status(503), false),
    (End::Status(504), false),
];

#[derive(Debug, Clone, Copy)]
enum End {
    Fault(Fault),
    Status(u16),
}

/// A name that stands for these addresses, where one failure opens a breaker.
fn named(addresses: &[&str]) -> Arc<Upstream> {
    let name = Place::Tcp { host: "origin.invalid".to_owned(), port: 1 };
    let breaker = Breaker {
        settings: breaker::Settings { failures: 1, ..breaker::Settings::default() },
        counts: None,
        statuses: None,
    };
    let settings = Settings { breaker: Some(breaker), ..settings(name) };
    let upstream = Upstream::build(settings, ReplyLimits::default()).unwrap();
    let serial = upstream.unfollowed(None)[0].serial;
    let found = addresses.iter().map(|one| Address::Inet(one.parse().unwrap()).into());
    upstream.learn(serial, found.collect()).unwrap();
    upstream
}

/// Whether a request that ends so opens the breaker of the backend that it was sent to.
fn opens(upstream: &Arc<Upstream>, end: End) -> bool {
    opens_with(upstream.lend(&Wish::default()).unwrap(), upstream, end)
}

/// The same of one that was lent it before.
fn opens_with(mut lease: Lease, upstream: &Upstream, end: End) -> bool {
    match end {
        End::Fault(fault) => lease.failed(fault, Why::Refusal(Refusal::OriginClosed)),
        End::Status(status) => lease.answered(status, Duration::from_millis(1)),
    }
    let label = Arc::clone(lease.backend().label());
    let report = upstream.report();
    let used = report.iter().find(|one| one.label == label).unwrap();
    matches!(used.breaker, Some(State::Open { .. }))
}

#[tokio::test]
async fn a_name_that_stands_for_several_has_company_and_one_that_stands_for_one_has_none() {
    for (end, counts_alone) in ENDS {
        assert_eq!(opens(&named(&["192.0.2.1:1"]), end), counts_alone, "{end:?}");
        assert!(opens(&named(&["192.0.2.1:1", "192.0.2.2:1"]), end), "{end:?}");
    }
    for status in [200, 404, 500, 501, 505] {
        let both = named(&["192.0.2.1:1", "192.0.2.2:1"]);
        assert!(!opens(&both, End::Status(status)), "{status}");
    }
}

#[tokio::test]
async fn who_is_not_meant_to_get_requests_is_no_company_and_who_is_ill_is() {
    for (reason, is_company) in [
        (Reason::Draining, false),
        (Reason::Inactive, false),
        (Reason::Unhealthy, true),
        (Reason::Unknown, true),
    ] {
        let upstream = named(&["192.0.2.1:1", "192.0.2.2:1"]);
        upstream.backends()[0].set(reason, true);
        assert_eq!(opens(&upstream, End::Status(503)), is_company, "{reason:?}");
    }
}

#[tokio::test]
async fn requests_from_before_a_reload_are_judged_by_who_is_there_after_it() {
    let (one, both) = (["192.0.2.1:1"], ["192.0.2.1:1", "192.0.2.2:1"]);
    for (at_first, later) in [(&both[..], &one[..]), (&one[..], &both[..])] {
        let before = named(at_first);
        // The one that stays.
        let mut lent = (0..4).filter_map(|_| before.lend(&Wish::default()).ok());
        let lease = lent.find(|lease| lease.backend().address().to_string() == one[0]).unwrap();
        let limits = ReplyLimits::default();
        let mut after = Arc::clone(&before);
        for _ in 0..2 {
            let settings = after.settings().clone();
            let (next, _) = after.followed_by(settings, limits).unwrap();
            next.take_over(&after);
            after = next;
        }
        let serial = after.unfollowed(None)[0].serial;
        let found = later.iter().map(|one| Address::Inet(one.parse().unwrap()).into());
        after.learn(serial, found.collect()).unwrap();
        assert_eq!(opens_with(lease, &after, End::Status(503)), later.len() > 1, "{later:?}");
    }
}
