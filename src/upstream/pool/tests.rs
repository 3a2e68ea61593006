use std::sync::atomic::AtomicUsize;

use parking_lot::Mutex;
use pingora::protocols::l4::socket::SocketAddr;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::ServerName;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::TlsConnector;

use super::*;
use crate::socket::Socket;

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn settings() -> Settings {
    Settings { max_connections: 4, queue: 2, queue_timeout: secs(60), ..Settings::default() }
}

/// A connection of the pool's, and its other end.
fn line(pool: &Pool) -> (Box<Line>, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let peer = SocketAddr::Inet(([127, 0, 0, 1], 1).into());
    let mut line = Line::plain(Socket::Unix(ours), &peer, Duration::ZERO);
    pool.count(&mut line);
    (Box::new(line), theirs)
}

// ── idle connections ──

#[tokio::test]
async fn what_came_back_last_goes_out_first() {
    let pool = Pool::new(settings());
    let now = Instant::now();
    let mut others = Vec::new();
    let mut ids = Vec::new();
    for n in 1..=3 {
        let (mut line, other) = line(&pool);
        line.carried = n;
        ids.push(n);
        others.push(other);
        pool.park(line, None, now);
    }
    assert_eq!(pool.stats(), Stats { open: 3, idle: 3, created: 3, ..Stats::default() });
    let taken = std::iter::from_fn(|| pool.take(now, None)).map(|line| line.carried);
    assert_eq!(taken.collect::<Vec<_>>(), [3, 2, 1]);
    assert_eq!(pool.stats(), Stats { created: 3, reused: 3, ..Stats::default() });
}

#[tokio::test]
async fn a_connection_that_was_closed_while_idle_is_never_taken() {
    let pool = Pool::new(settings());
    let (first, _listening) = line(&pool);
    let (second, closed) = line(&pool);
    pool.park(first, None, Instant::now());
    pool.park(second, None, Instant::now());
    drop(closed);
    assert!(pool.take(Instant::now(), None).is_some(), "the other one");
    assert!(pool.take(Instant::now(), None).is_none());
}

/// The answer to the next request is what comes first, and a runtime that has much to do is told late of what came.
#[tokio::test]
async fn what_came_is_nobodys_answer_before_the_runtime_was_told_of_it() {
    let pool = Pool::new(settings());
    let (line, mut other) = line(&pool);
    other.write_all(b"HTTP/1.1 200 OK\r\n").await.unwrap();
    let Socket::Unix(ours) = line.socket() else { panic!("it was made of a Unix socket") };
    let told = ours.try_io(Interest::READABLE, || Ok(()));
    assert!(told.is_err(), "nothing was waited for");
    pool.park(line, None, Instant::now());
    assert!(pool.take(Instant::now(), None).is_none());
}

/// What TLS read together with the end of an answer is no news to the kernel.
#[tokio::test]
async fn what_tls_has_read_and_nobody_took_is_not_nothing() {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["a.test".to_owned()]).unwrap();
    let certificate = certificate.self_signed(&key).unwrap().der().clone();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    let server = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], PrivateKeyDer::try_from(key.serialize_der()).unwrap());
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();

    let (near, far) = UnixStream::pair().unwrap();
    let name = ServerName::try_from("a.test").unwrap();
    let (ours, theirs) = tokio::join!(
        TlsConnector::from(Arc::new(client)).connect(name, Socket::Unix(near)),
        TlsAcceptor::from(Arc::new(server.unwrap())).accept(far),
    );
    let (pool, mut theirs) = (Pool::new(settings()), theirs.unwrap());
    let peer = SocketAddr::Inet(([127, 0, 0, 1], 1).into());
    let mut line = Box::new(Line::tls(ours.unwrap(), &peer, Duration::ZERO));
    pool.count(&mut line);
    for said in ["an answer", "an answer, and one that nobody asked for"] {
        theirs.write_all(said.as_bytes()).await.unwrap();
        theirs.flush().await.unwrap();
        let mut answer = [0; 9];
        line.wire.as_pin().read_exact(&mut answer).await.unwrap();
        assert_eq!(answer, *b"an answer");
        pool.park(line, None, Instant::now());
        let Some(taken) = pool.take(Instant::now(), None) else {
            assert_ne!(said, "an answer");
            return;
        };
        assert_eq!(said, "an answer");
        line = taken;
    }
}

#[tokio::test]
async fn a_connection_that_spoke_while_idle_is_closed() {
    let pool = Pool::new(settings());
    let (line, mut other) = line(&pool);
    pool.park(line, None, Instant::now());
    other.write_all(b"HTTP/1.1 200 OK\r\n").await.unwrap();
    assert!(pool.take(Instant::now(), None).is_none());
    assert_eq!(pool.stats().open, 0);
}

#[tokio::test]
async fn a_connection_is_idle_for_as_long_as_it_may_and_no_longer() {
    let pool = Pool::new(Settings { idle: secs(90), ..settings() });
    let now = Instant::now();
    for (after, found) in [(secs(90) - Duration::from_nanos(1), true), (secs(90), false)] {
        let (line, _other) = line(&pool);
        pool.park(line, None, now);
        assert_eq!(pool.take(now + after, None).is_some(), found, "{after:?}");
    }
}

#[tokio::test]
async fn an_origin_that_says_how_long_it_waits_is_asked_a_second_before() {
    let pool = Pool::new(settings());
    let now = Instant::now();
    for (patience, after, found) in [
        (secs(5), Duration::from_millis(3999), true),
        (secs(5), secs(4), false),
        (secs(1), Duration::from_millis(499), true),
        (secs(1), Duration::from_millis(500), false),
        (secs(600), secs(89), true),
        (secs(600), secs(90), false),
        (secs(0), secs(0), false),
    ] {
        let (line, _other) = line(&pool);
        pool.park(line, Some(patience), now);
        assert_eq!(pool.take(now + after, None).is_some(), found, "{patience:?} {after:?}");
    }
}

#[tokio::test]
async fn an_old_connection_is_not_used_again() {
    let pool = Pool::new(Settings { max_age: Some(secs(10)), ..settings() });
    for (age, found) in [(secs(10) - Duration::from_nanos(1), true), (secs(10), false)] {
        let (line, _other) = line(&pool);
        let born = line.born;
        pool.park(line, None, born + secs(1));
        assert_eq!(pool.take(born + age, None).is_some(), found, "{age:?}");
    }
}

#[tokio::test]
async fn a_connection_carries_no_more_requests_than_it_may() {
    let pool = Pool::new(Settings { max_requests: Some(2), ..settings() });
    for (carried, found) in [(1, true), (2, false)] {
        let (mut line, _other) = line(&pool);
        line.carried = carried;
        pool.park(line, None, Instant::now());
        assert_eq!(pool.take(Instant::now(), None).is_some(), found, "{carried}");
    }
}

#[tokio::test]
async fn no_more_are_kept_than_there_may_be() {
    let pool = Pool::new(settings());
    let mut others = Vec::new();
    for _ in 0..6 {
        let (line, other) = line(&pool);
        others.push(other);
        pool.park(line, None, Instant::now());
    }
    assert_eq!(pool.stats().open, 4);
    for (n, other) in others.iter_mut().enumerate() {
        let mut byte = [0; 1];
        let closed = matches!(other.try_read(&mut byte), Ok(0));
        let closed = closed || (n < 2 && other.read(&mut byte).await.unwrap() == 0);
        assert_eq!(closed, n < 2, "the oldest are closed");
    }
}

#[tokio::test]
async fn tidying_closes_what_is_old_or_was_closed_and_keeps_the_order_of_the_others() {
    let pool = Pool::new(Settings { min_idle: 3, ..settings() });
    let now = Instant::now();
    let mut others = Vec::new();
    for (carried, patience) in [(1, None), (2, Some(secs(4))), (3, None), (4, None)] {
        let (mut line, other) = line(&pool);
        line.carried = carried;
        others.push(other);
        pool.park(line, patience, now);
    }
    drop(others.remove(2));
    assert_eq!(pool.tidy(now + secs(10)), 1, "one is missing to three");
    let taken = std::iter::from_fn(|| pool.take(now, None)).map(|line| line.carried);
    assert_eq!(taken.collect::<Vec<_>>(), [4, 1]);
}

#[tokio::test]
async fn connections_that_are_out_count_against_those_kept_ready() {
    let pool = Pool::new(Settings { min_idle: 3, ..settings() });
    assert_eq!(pool.tidy(Instant::now()), 3);
    let out: Vec<_> = (0..2).map(|_| line(&pool)).collect();
    assert_eq!(pool.tidy(Instant::now()), 2, "four may be open");
    drop(out);
    assert_eq!(pool.tidy(Instant::now()), 3);
}

#[tokio::test]
async fn a_new_pool_takes_over_what_is_idle() {
    let (old, new) = (Pool::new(settings()), Pool::new(settings()));
    let (line, _other) = line(&old);
    old.park(line, None, Instant::now());
    new.absorb(&old);
    assert_eq!((old.stats().open, new.stats().open), (0, 1));
    assert!(new.take(Instant::now(), None).is_some());
    assert_eq!(new.stats().open, 0);
}

/// Runs this on a thread of its own, whose shelf is another one.
fn elsewhere<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    let runtime = tokio::runtime::Handle::current();
    let work = || {
        let _inside = runtime.enter();
        work()
    };
    std::thread::scope(|scope| scope.spawn(work).join().unwrap())
}

#[tokio::test]
async fn what_one_thread_put_back_another_one_takes() {
    let pool = Pool::new(settings());
    let now = Instant::now();
    let (mine, _mine) = line(&pool);
    let (mut theirs, _theirs) = line(&pool);
    theirs.carried = 7;
    pool.park(mine, None, now);
    elsewhere(|| pool.park(theirs, None, now));
    assert_eq!(pool.stats().idle, 2);
    assert_eq!(pool.take(now, None).map(|line| line.carried), Some(0), "one's own goes first");
    assert_eq!(pool.take(now, None).map(|line| line.carried), Some(7));
    assert!(pool.take(now, None).is_none());
}

#[tokio::test]
async fn what_all_threads_put_back_is_tidied_taken_over_and_closed() {
    let now = Instant::now();
    let parked = || {
        let pool = Pool::new(Settings { max_connections: 10, ..settings() });
        let mut others = Vec::new();
        for patience in [None, Some(secs(4)), None] {
            let (line, other) = line(&pool);
            others.push(other);
            elsewhere(|| pool.park(line, patience, now));
        }
        (pool, others)
    };
    let (pool, _others) = parked();
    pool.tidy(now + secs(10));
    assert_eq!((pool.stats().idle, pool.stats().open), (2, 2));
    let next = Pool::new(settings());
    next.absorb(&pool);
    assert_eq!((pool.stats().idle, next.stats().idle), (0, 2));
    assert!(next.take(now, None).is_some() && next.take(now, None).is_some());
    let (pool, _others) = parked();
    pool.retire();
    assert_eq!((pool.stats().idle, pool.stats().open), (0, 0));
    let (line, _other) = line(&pool);
    pool.park(line, None, now);
    assert_eq!(pool.stats().open, 0, "none is kept from then on");
}

#[tokio::test]
async fn room_is_made_by_closing_what_came_back_first_of_all_threads() {
    let pool = Pool::new(Settings { max_connections: 3, ..settings() });
    let now = Instant::now();
    let mut others = Vec::new();
    for (carried, after) in [(1, 2), (2, 1), (3, 3)] {
        let (mut line, other) = line(&pool);
        line.carried = carried;
        others.push(other);
        elsewhere(|| pool.park(line, None, now + secs(after)));
    }
    pool.make_room();
    let left = std::iter::from_fn(|| pool.take(now, None)).map(|line| line.carried);
    let mut left: Vec<_> = left.collect();
    left.sort_unstable();
    assert_eq!(left, [1, 3]);
}

#[tokio::test]
async fn threads_that_share_connections_never_miss_one_that_waits() {
    let pool = Pool::new(Settings { max_connections: 2, ..settings() });
    let mut others = Vec::new();
    for _ in 0..2 {
        let (line, other) = line(&pool);
        others.push(other);
        pool.park(line, None, Instant::now());
    }
    let now = Instant::now();
    std::thread::scope(|scope| {
        let pool = &pool;
        for thread in 0..3 {
            scope.spawn(move || {
                let mut random = thread + 1;
                let mut taken = 0;
                while taken < 50_000 {
                    // As many places as connections: who has a place finds one.
                    let Some(slot) = pool.spare() else { continue };
                    // On one shelf now and on another one then, as tasks are on threads.
                    random = (random * 75 + 74) % 65_537;
                    let waiting = pool.idle.take_from(random, None).expect("one waits");
                    let too_many = pool.idle.put_to(random / 16, waiting.line, None, now);
                    assert!(too_many.is_none());
                    drop(slot);
                    taken += 1;
                }
            });
        }
    });
    assert_eq!((pool.stats().idle, pool.stats().open, pool.stats().in_use), (2, 2, 0));
}

// ── places ──

#[tokio::test]
async fn there_are_as_many_places_as_connections_and_streams_on_them() {
    for (streams, places) in [(1, 4), (100, 400)] {
        let pool = Pool::new(Settings { queue: 0, ..settings() });
        pool.allow_streams(streams);
        let mut slots = Vec::new();
        while let Ok(slot) = pool.acquire(secs(1)).await {
            slots.push(slot);
        }
        assert_eq!(slots.len(), places);
        assert_eq!(pool.stats().in_use, u32::try_from(places).unwrap());
        drop(slots);
        assert_eq!(pool.stats().in_use, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn who_waits_longest_is_served_first_and_those_who_give_up_are_passed_over() {
    let pool = Pool::new(Settings { max_connections: 1, queue: 3, ..settings() });
    let first = pool.acquire(secs(1)).await.unwrap();
    let order = Arc::new(Mutex::new(Vec::new()));
    let mut waiting = JoinSet::new();
    for (n, patience) in [(1, 1), (2, 30), (3, 30)] {
        let (asks, order) = (pool.clone(), order.clone());
        waiting.spawn(async move {
            let slot = asks.acquire(secs(patience)).await;
            order.lock().push((n, slot.as_ref().err().copied()));
            tokio::task::yield_now().await;
        });
        while pool.stats().queued < n {
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(pool.acquire(secs(30)).await.unwrap_err(), Refused::QueueFull);
    tokio::time::advance(secs(2)).await;
    while pool.stats().queued > 2 {
        tokio::task::yield_now().await;
    }
    drop(first);
    waiting.join_all().await;
    let timed_out = Some(Refused::QueueTimeout);
    assert_eq!(*order.lock(), [(1, timed_out), (2, None), (3, None)]);
    assert_eq!((pool.stats().in_use, pool.stats().queued), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_longer_than_the_pool_allows() {
    let pool = Pool::new(Settings { max_connections: 1, queue_timeout: secs(3), ..settings() });
    let _slot = pool.acquire(secs(1)).await.unwrap();
    let start = tokio::time::Instant::now();
    assert_eq!(pool.acquire(secs(60)).await.unwrap_err(), Refused::QueueTimeout);
    assert_eq!(start.elapsed().as_secs(), 3);
}

#[tokio::test]
async fn a_request_that_is_dropped_while_it_waits_loses_no_place() {
    let pool = Pool::new(Settings { max_connections: 1, ..settings() });
    let slot = pool.acquire(secs(1)).await.unwrap();
    let mut waits = Box::pin(pool.acquire(secs(30)));
    assert!(futures_util::poll!(waits.as_mut()).is_pending());
    let mut waits_too = Box::pin(pool.acquire(secs(30)));
    assert!(futures_util::poll!(waits_too.as_mut()).is_pending());
    // The place is on its way to the first when that goes.
    drop(slot);
    drop(waits);
    assert!(waits_too.await.is_ok());
    assert_eq!((pool.stats().in_use, pool.stats().queued), (0, 0));
}

#[tokio::test]
async fn more_places_serve_those_who_wait_at_once_and_fewer_hold_as_they_come_back() {
    let pool = Pool::new(Settings { max_connections: 1, ..settings() });
    let one = pool.acquire(secs(1)).await.unwrap();
    let mut waits = Box::pin(pool.acquire(secs(30)));
    assert!(futures_util::poll!(waits.as_mut()).is_pending());
    pool.adjust(Settings { max_connections: 2, ..settings() });
    let two = waits.await.unwrap();
    pool.adjust(Settings { max_connections: 1, queue: 0, ..settings() });
    drop(one);
    assert_eq!(pool.acquire(secs(1)).await.unwrap_err(), Refused::QueueFull);
    drop(two);
    assert!(pool.acquire(secs(1)).await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_at_once_never_have_more_places_than_there_are() {
    let pool = Pool::new(Settings { queue: 100, ..settings() });
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let mut all = JoinSet::new();
    for n in 0..100 {
        let (pool, now, most) = (pool.clone(), now.clone(), most.clone());
        all.spawn(async move {
            for round in 0..50 {
                // Some give up at once.
                let patience = if (n + round) % 7 == 0 { Duration::ZERO } else { secs(60) };
                let Ok(_slot) = pool.acquire(patience).await else { continue };
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                tokio::task::yield_now().await;
                now.fetch_sub(1, Ordering::SeqCst);
            }
        });
    }
    all.join_all().await;
    assert_eq!(most.load(Ordering::SeqCst), 4);
    assert_eq!((pool.stats().in_use, pool.stats().queued), (0, 0));
}
