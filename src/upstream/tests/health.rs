//! Health checks: who is checked, when, and by whom else.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use pingora::protocols::l4::socket::SocketAddr as Address;
use tokio::net::TcpListener;
use tokio::sync::Notify;

use super::harness::settings;
use crate::message::reply::ReplyLimits;
use crate::resilience::health as judge;
use crate::resilience::health::Assumed;
use crate::resilience::health::State;
use crate::upstream;
use crate::upstream::Backend;
use crate::upstream::Place;
use crate::upstream::backend::Reason;
use crate::upstream::health;
use crate::upstream::health::NotChecked;
use crate::upstream::health::Probe;
use crate::upstream::peer::Upstream;

fn checked(initial: Assumed, interval: Duration) -> health::Settings {
    health::Settings {
        probe: Probe::Tcp,
        interval,
        jitter: 0,
        timeout: Duration::from_secs(5),
        judged: judge::Settings { rise: 1, fall: 1, initial },
    }
}

/// An upstream of these places, the first called a, the second b.
fn upstream(places: Vec<Place>, health: Option<health::Settings>) -> Arc<Upstream> {
    let backends =
        ["a", "b"].into_iter().zip(places).map(|(id, at)| Backend::new(id, at)).collect();
    let settings = upstream::Settings { backends, health, ..settings(Place::Demo) };
    Upstream::build(settings, ReplyLimits::default()).unwrap()
}

fn at(address: SocketAddr) -> Place {
    Place::Tcp { host: address.ip().to_string(), port: address.port() }
}

/// Somebody who accepts connections and counts them.
struct Door {
    address: SocketAddr,
    count: Arc<AtomicUsize>,
    came: Arc<Notify>,
}

impl Door {
    async fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (count, came) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
        let (counter, tell) = (Arc::clone(&count), Arc::clone(&came));
        tokio::spawn(async move {
            while listener.accept().await.is_ok() {
                counter.fetch_add(1, Ordering::SeqCst);
                tell.notify_one();
            }
        });
        Self { address, count, came }
    }

    fn count(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }

    async fn wait_for(&self, count: usize) {
        while self.count() < count {
            self.came.notified().await;
        }
    }
}

/// An address that nobody listens on.
async fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

#[tokio::test]
async fn a_check_by_hand_says_how_it_went_and_counts() {
    let door = Door::open().await;
    let hour = Duration::from_secs(3600);
    let places = vec![at(door.address), at(nobody().await)];
    let upstream = upstream(places, Some(checked(Assumed::Healthy, hour)));

    let all = upstream.check_now(None).await.unwrap();
    let states: Vec<_> = all.iter().map(|one| (&*one.backend, one.state)).collect();
    assert_eq!(states, [("a", State::Healthy), ("b", State::Unhealthy)]);
    assert_eq!(all[0].error, None);
    assert!(all[1].error.as_ref().unwrap().contains("connect_failed"), "{all:?}");

    let one = upstream.check_now(Some("b")).await.unwrap();
    assert_eq!(one.len(), 1);
    let report = &upstream.report()[1];
    assert_eq!(report.out, ["unhealthy"]);
    let health = report.health.as_ref().unwrap();
    assert_eq!((health.state, health.failed_in_a_row, health.failed), (State::Unhealthy, 2, 2));
    assert_eq!(health.last_error, one[0].error);
    assert!(health.took.is_some() && health.ago.is_some());
    assert_eq!(upstream.check_now(Some("c")).await, Err(NotChecked::NoBackend));
}

#[tokio::test]
async fn nobody_is_checked_where_checks_are_off() {
    let upstream = upstream(vec![at(nobody().await)], None);
    assert_eq!(upstream.check_now(None).await, Err(NotChecked::Off));
    assert_eq!(upstream.report()[0].health, None);
    assert!(!upstream.backends()[0].is(Reason::Unknown));
}

#[tokio::test]
async fn checks_by_hand_at_the_same_time_are_not_made_one_by_one() {
    let door = Door::open().await;
    let hour = Duration::from_secs(3600);
    let upstream = upstream(vec![at(door.address)], Some(checked(Assumed::Healthy, hour)));
    let ask = || upstream.check_now(Some("a"));
    let all = tokio::join!(ask(), ask(), ask(), ask(), ask(), ask());
    let all = [all.0, all.1, all.2, all.3, all.4, all.5];
    assert!(all.iter().all(|one| one.as_ref().is_ok_and(|one| one[0].error.is_none())), "{all:?}");
    let checks = upstream.report()[0].health.as_ref().unwrap().passed;
    assert!(checks <= 2, "{checks} checks: the first, and one for those who came while it ran");
}

#[tokio::test]
async fn backends_that_come_are_checked_and_those_that_went_are_not() {
    let (first, second) = (Door::open().await, Door::open().await);
    let name = Place::Tcp { host: "origin.invalid".to_owned(), port: 1 };
    let short = Duration::from_millis(10);
    let upstream = upstream(vec![name], Some(checked(Assumed::Unknown, short)));
    health::start(&upstream).await;
    let serial = upstream.unfollowed(None)[0].serial;
    let learn = |door: &Door| {
        upstream.learn(serial, vec![Address::Inet(door.address).into()]).unwrap();
    };
    learn(&first);
    assert!(upstream.backends()[0].is(Reason::Unknown), "it has to pass a check");
    first.wait_for(3).await;
    assert!(!upstream.backends()[0].is(Reason::Unknown));

    learn(&second);
    second.wait_for(1).await;
    let seen = first.count();
    second.wait_for(6).await;
    assert!(first.count() <= seen + 1, "one may have been under way");
}

#[tokio::test]
async fn checks_end_with_their_upstream() {
    let door = Door::open().await;
    let short = Duration::from_millis(10);
    let upstream = upstream(vec![at(door.address)], Some(checked(Assumed::Healthy, short)));
    health::start(&upstream).await;
    door.wait_for(2).await;
    let backend = Arc::downgrade(&upstream.backends()[0]);
    drop(upstream);
    // A check that was under way may hold it for a moment.
    while backend.upgrade().is_some() {
        tokio::task::yield_now().await;
    }
}
