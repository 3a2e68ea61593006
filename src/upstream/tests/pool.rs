//! The pools of an upstream's connections, before a real origin.

use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::sync::mpsc::channel;
use std::time::Duration;

use futures_util::FutureExt;
use pingora::upstreams::peer::HttpPeer;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::runtime::Handle;
use tokio::task::JoinSet;

use super::OK;
use super::harness::Answer;
use super::harness::Edge;
use super::harness::Origin;
use crate::message::reply::ReplyLimits;
use crate::upstream::Protocol;
use crate::upstream::connect::Dial;
use crate::upstream::connect::Kept;
use crate::upstream::http2::stream::Stream;
use crate::upstream::peer::Upstream;
use crate::upstream::pool::Pool;
use crate::upstream::pool::Refused;
use crate::upstream::pool::Settings;

const SOON: Duration = Duration::from_secs(30);

/// A way to `origin` with a pool that allows this.
fn dial(origin: &Origin, pool: Settings) -> (Arc<Dial>, HttpPeer) {
    let upstream = Upstream::build(origin.settings(), ReplyLimits::default()).unwrap();
    let peer = *super::lent(&upstream);
    (
        Arc::new(Dial::new(
            peer.group_key,
            Protocol::Http1,
            None,
            ReplyLimits::default(),
            SOON,
            pool,
        )),
        peer,
    )
}

async fn until(holds: impl Fn() -> bool) {
    let waits = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(SOON, waits).await.expect("it comes true");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_clients_share_four_connections() {
    let origin = Origin::tcp((0..1000).map(|_| Answer::keep(OK))).await;
    let settings = Settings { max_connections: 4, queue: 96, ..Settings::default() };
    let (dial, peer) = dial(&origin, settings);
    let pool = dial.pool(&peer);
    let mut clients = JoinSet::new();
    for _ in 0..100 {
        let (dial, pool, peer) = (dial.clone(), pool.clone(), peer.clone());
        clients.spawn(async move {
            for _ in 0..10 {
                let slot = pool.acquire(SOON).await.unwrap();
                assert!(pool.stats().open <= 4);
                let mut io = dial.connect(&peer, Kept::Welcome, None).await.unwrap();
                io.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
                io.flush().await.unwrap();
                io.read_exact(&mut vec![0; OK.len()]).await.unwrap();
                drop(io);
                drop(slot);
            }
        });
    }
    while let Some(client) = clients.join_next().await {
        client.unwrap();
    }
    assert_eq!(origin.connections(), 4);
    let stats = pool.stats();
    assert_eq!((stats.created, stats.reused, stats.in_use, stats.queued), (4, 996, 0, 0));
}

#[tokio::test]
async fn a_full_queue_refuses_at_once() {
    let origin = Origin::tcp([]).await;
    let settings = Settings { max_connections: 1, queue: 0, ..Settings::default() };
    let (dial, peer) = dial(&origin, settings);
    let pool = dial.pool(&peer);
    let _slot = pool.acquire(SOON).await.unwrap();
    assert_eq!(pool.acquire(SOON).await.unwrap_err(), Refused::QueueFull);
}

#[tokio::test]
async fn connections_are_kept_ready_before_anybody_asks_and_made_anew_when_they_go() {
    let origin = Origin::tcp([Answer::close(OK), Answer::keep(OK)]).await;
    let (dial, peer) = dial(&origin, Settings { min_idle: 2, ..Settings::default() });
    let pool = dial.pool(&peer);
    dial.tend();
    until(|| pool.stats().idle == 2 && origin.connections() == 2).await;

    // The first answer closes its connection.
    let mut io = dial.connect(&peer, Kept::Welcome, None).await.unwrap();
    assert_eq!(pool.stats().idle, 1);
    io.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    io.flush().await.unwrap();
    io.read_exact(&mut vec![0; OK.len()]).await.unwrap();
    drop(io);
    until(|| pool.stats().idle == 2 && origin.connections() == 3).await;
}

#[tokio::test]
async fn who_wants_none_of_those_that_wait_has_one_of_them_closed_where_there_may_be_no_more() {
    let origin = Origin::tcp((0..2).map(|_| Answer::keep(OK))).await;
    let settings = Settings { max_connections: 1, ..Settings::default() };
    let (dial, peer) = dial(&origin, settings);
    let pool = dial.pool(&peer);
    for kept in [Kept::Welcome, Kept::Unwanted] {
        let _slot = pool.acquire(SOON).await.unwrap();
        let mut io = dial.connect(&peer, kept, None).await.unwrap();
        assert_eq!((pool.stats().open, pool.stats().idle), (1, 0));
        io.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        io.flush().await.unwrap();
        io.read_exact(&mut vec![0; OK.len()]).await.unwrap();
    }
    assert_eq!(origin.connections(), 2);
}

#[tokio::test]
async fn a_connection_that_cannot_be_made_is_counted() {
    let origin = Origin::tcp([]).await;
    let (dial, mut peer) = dial(&origin, Settings::default());
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    peer._address = gone.local_addr().unwrap().into();
    drop(gone);
    assert!(dial.connect(&peer, Kept::Welcome, None).await.is_err());
    let stats = dial.pool(&peer).stats();
    assert_eq!((stats.failed, stats.created, stats.open), (1, 0, 0));
}

#[tokio::test]
async fn an_idle_connection_survives_the_generation_that_made_it() {
    let origin = Origin::tcp([Answer::keep(OK), Answer::keep(OK)]).await;
    let edge = Edge::before(origin.settings()).await;
    assert!(edge.get("/").await.ends_with("hello"));
    let next = Upstream::build(origin.settings(), ReplyLimits::default()).unwrap();
    edge.dials().set(&next.dials());
    assert!(edge.get("/").await.ends_with("hello"));
    assert_eq!(origin.connections(), 1);
}

#[tokio::test]
async fn a_pool_is_one_for_each_address_and_its_task_ends_with_the_dial() {
    let origin = Origin::tcp([]).await;
    let (dial, peer) = dial(&origin, Settings::default());
    assert!(Arc::ptr_eq(&dial.pool(&peer), &dial.pool(&peer)));
    let mut other = peer.clone();
    other._address = std::net::SocketAddr::from(([192, 0, 2, 1], 80)).into();
    assert!(!Arc::ptr_eq(&dial.pool(&peer), &dial.pool(&other)));
    dial.tend();
    let gone = Arc::downgrade(&dial);
    drop(dial);
    until(|| gone.strong_count() == 0).await;
}

#[tokio::test]
async fn nothing_is_kept_ready_for_a_backend_that_went() {
    let (origin, gone) = (Origin::tcp([]).await, Origin::tcp([]).await);
    let (_, other) = dial(&gone, Settings::default());
    let (dial, peer) = dial(&origin, Settings { min_idle: 1, ..Settings::default() });
    // A request came late; nobody holds it any more.
    drop(dial.pool(&other));
    let pool = dial.pool(&peer);
    dial.tend();
    until(|| pool.stats().idle == 1).await;
    assert_eq!((origin.connections(), gone.connections()), (1, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thread_takes_streams_where_it_has_some_and_gets_a_connection_of_its_own_from_busy_ones()
{
    let origin = Origin::http2(None).await;
    let settings = crate::upstream::Settings { protocol: Protocol::Http2, ..origin.settings() };
    let upstream = Upstream::build(settings, ReplyLimits::default()).unwrap();
    let peer = super::lent(&upstream);
    let pool = upstream.dials()[0].pool(&peer);
    let other = Worker::new();
    let stream = || pool.stream(SOON, Kept::Welcome);
    // While a connection is hardly used everybody shares it.
    let mut streams = vec![stream().await.unwrap()];
    let first = streams[0].descriptor();
    for _ in 0..7 {
        streams.push(other.stream(&pool));
        assert_eq!(streams.last().map(Stream::descriptor), Some(first));
    }
    assert_eq!(pool.stats().created, 1);
    // Now it is busy: the thread whose it is stays, the other one is served and gets its own.
    streams.push(stream().await.unwrap());
    streams.push(other.stream(&pool));
    assert!(streams.iter().all(|stream| stream.descriptor() == first));
    until(|| pool.stats().created == 2).await;
    let own = other.stream(&pool);
    let second = own.descriptor();
    assert_ne!(second, first);
    for _ in 0..20 {
        streams.push(stream().await.unwrap());
        assert_eq!(streams.last().map(Stream::descriptor), Some(first));
        streams.push(other.stream(&pool));
        assert_eq!(streams.last().map(Stream::descriptor), Some(second));
    }
    assert_eq!(pool.stats().created, 2);
    // What is nobody's any more is anybody's.
    drop(streams);
    drop(own);
    assert_eq!(stream().await.unwrap().descriptor(), second);
    assert_eq!((pool.stats().open, pool.stats().created), (2, 2));
}

#[tokio::test]
async fn who_waits_for_a_stream_has_it_in_turn_and_no_newcomer_goes_first() {
    let origin = Origin::http2(None).await;
    let (_upstream, pool, mut streams) = full_connection_of_http_2(&origin).await;
    let stream = || Box::pin(pool.stream(SOON, Kept::Welcome));
    // Each looks when it is asked to: the others are not told here.
    let [mut one, mut two, mut three, mut four] = [stream(), stream(), stream(), stream()];
    for waiting in [&mut one, &mut two, &mut three, &mut four] {
        assert!(waiting.now_or_never().is_none());
    }
    drop(streams.pop());
    assert!(stream().now_or_never().is_none(), "a newcomer went first");
    for waiting in [&mut four, &mut three, &mut two] {
        assert!(waiting.now_or_never().is_none(), "it is the first one's turn");
    }
    streams.push(one.now_or_never().expect("it is its turn").unwrap());
    // Two places are for two, whoever of them comes first; and who gave up is passed over.
    drop(two);
    streams.truncate(98);
    assert!(stream().now_or_never().is_none(), "a newcomer went first");
    streams.push(four.now_or_never().expect("there is room for both").unwrap());
    assert!(stream().now_or_never().is_none(), "a newcomer took the other's place");
    streams.push(three.now_or_never().expect("there is room for both").unwrap());
    // Nobody waits any more.
    drop(streams.pop());
    assert!(stream().now_or_never().is_some());
}

#[tokio::test]
async fn those_behind_who_gives_up_are_told_that_it_is_their_turn() {
    let origin = Origin::http2(None).await;
    let (_upstream, pool, mut streams) = full_connection_of_http_2(&origin).await;
    let stream = || Box::pin(pool.stream(SOON, Kept::Welcome));
    let [mut one, mut two] = [stream(), stream()];
    assert!((&mut one).now_or_never().is_none());
    assert!((&mut two).now_or_never().is_none());
    drop(streams.pop());
    // It has looked, and the place is the other one's.
    assert!((&mut two).now_or_never().is_none());
    drop(one);
    assert!(two.now_or_never().is_some(), "it was not told");
}

/// A pool that has one connection to `origin` at most, and all the streams of that.
async fn full_connection_of_http_2(origin: &Origin) -> (Arc<Upstream>, Arc<Pool>, Vec<Stream>) {
    let mut settings = origin.settings();
    settings.protocol = Protocol::Http2;
    settings.pool.max_connections = 1;
    let upstream = Upstream::build(settings, ReplyLimits::default()).unwrap();
    let pool = upstream.dials()[0].pool(&super::lent(&upstream));
    let mut streams = Vec::new();
    for _ in 0..100 {
        streams.push(pool.stream(SOON, Kept::Welcome).await.unwrap());
    }
    (upstream, pool, streams)
}

/// Another thread, which does what it is asked for until nobody asks any more.
struct Worker(Sender<(Arc<Pool>, Sender<Stream>)>);

impl Worker {
    fn new() -> Self {
        let (ask, asked) = channel::<(Arc<Pool>, Sender<Stream>)>();
        let runtime = Handle::current();
        std::thread::spawn(move || {
            for (pool, answer) in asked {
                let stream = runtime.block_on(pool.stream(SOON, Kept::Welcome)).unwrap();
                answer.send(stream).unwrap();
            }
        });
        Self(ask)
    }

    fn stream(&self, pool: &Arc<Pool>) -> Stream {
        let (answer, answered) = channel();
        self.0.send((Arc::clone(pool), answer)).unwrap();
        answered.recv_timeout(SOON).unwrap()
    }
}
