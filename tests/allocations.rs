//! What balancing, breakers, budgets, limits, passive checks and pools allocate for a request: nothing, but for the
//! exchange itself. Each thread counts its own allocations, so that these tests may run side by side.
//!
//! `benches/parts` asks how long a choice takes.

use std::hint::black_box;
use std::io::Read;
use std::io::Write;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use allocation_counter::measure;
use edgeproxy::balance::Algorithm;
use edgeproxy::balance::Ask;
use edgeproxy::balance::Balancer;
use edgeproxy::balance::PeakEwma;
use edgeproxy::balance::Peers;
use edgeproxy::balance::READY;
use edgeproxy::balance::Seat;
use edgeproxy::config;
use edgeproxy::message::reply::ReplyLimits;
use edgeproxy::refusal::Refusal;
use edgeproxy::resilience::breaker;
use edgeproxy::resilience::breaker::Breaker;
use edgeproxy::resilience::breaker::Verdict;
use edgeproxy::resilience::budget;
use edgeproxy::resilience::budget::Budget;
use edgeproxy::resilience::ejection;
use edgeproxy::resilience::ejection::Outcome;
use edgeproxy::resilience::ejection::Record;
use edgeproxy::resilience::hedge;
use edgeproxy::resilience::hedge::Hedge;
use edgeproxy::resilience::limit;
use edgeproxy::resilience::limit::Ended;
use edgeproxy::resilience::limit::Limit;
use edgeproxy::resilience::retry;
use edgeproxy::resilience::retry::Failed;
use edgeproxy::resilience::retry::Sent;
use edgeproxy::resilience::retry::What;
use edgeproxy::upstream::Fault;
use edgeproxy::upstream::connect::Kept;
use edgeproxy::upstream::exchange::Exchange;
use edgeproxy::upstream::exchange::Question;
use edgeproxy::upstream::lease::Body;
use edgeproxy::upstream::mishap::Why;
use edgeproxy::upstream::peer::Upstream;
use edgeproxy::upstream::peer::Wish;

const SOON: Duration = Duration::from_secs(30);
const ALGORITHMS: [Algorithm; 6] = [
    Algorithm::RoundRobin,
    Algorithm::Random,
    Algorithm::LeastConnections,
    Algorithm::PeakEwma,
    Algorithm::ConsistentHash { bound: None },
    Algorithm::ConsistentHash { bound: Some(125) },
];

/// How often `work` allocates.
fn allocations(work: impl FnOnce()) -> u64 {
    measure(work).count_total
}

#[test]
fn what_allocates_is_counted() {
    assert_eq!(allocations(|| drop(black_box(Box::new(1)))), 1);
    assert_eq!(allocations(|| assert_eq!(black_box(1), 1)), 0);
}

/// Peers as a running group has them.
struct Group {
    peers: Vec<Peer>,
    now: Duration,
}

struct Peer {
    breaker: Breaker,
    in_flight: AtomicU32,
    latency: PeakEwma,
}

impl Group {
    fn of(count: usize) -> Self {
        let now = Duration::from_secs(60);
        let peer = |n: u32| {
            let latency = PeakEwma::new(Duration::from_secs(10));
            latency.observe(Duration::from_micros(u64::from(1000 + n * 7 % 4000)), now);
            let breaker = Breaker::new(&breaker::Settings::default());
            Peer { breaker, in_flight: AtomicU32::new(n * 13 % 40), latency }
        };
        Self { peers: (0..).take(count).map(peer).collect(), now }
    }

    /// Of ten, nine are out.
    fn mostly_out(self) -> Self {
        for (n, peer) in self.peers.iter().enumerate() {
            while n % 10 > 0
                && let Some(pass) = peer.breaker.enter(self.now)
            {
                peer.breaker.leave(pass, Verdict::Failure, self.now);
            }
        }
        self
    }
}

impl Peers for Group {
    fn is_usable(&self, peer: usize) -> bool {
        self.peers[peer].breaker.admits(self.now)
    }

    fn in_flight(&self, peer: usize) -> u32 {
        self.peers[peer].in_flight.load(Ordering::Relaxed)
    }

    fn cost(&self, peer: usize) -> u64 {
        self.peers[peer].latency.cost(self.in_flight(peer), self.now)
    }

    fn readiness(&self, peer: usize) -> u32 {
        if peer.is_multiple_of(3) { READY / 2 } else { READY }
    }
}

#[test]
fn no_choice_of_a_peer_allocates() {
    for count in [1, 2, 10, 1000] {
        let ids: Vec<String> = (0..count).map(|n| format!("b{n}")).collect();
        let seats: Vec<Seat<'_>> =
            (1..).zip(&ids).map(|(n, id)| Seat { id, weight: 1 + n % 4 }).collect();
        for group in [Group::of(count), Group::of(count).mostly_out()] {
            for algorithm in ALGORITHMS {
                let balancer = Balancer::new(&algorithm, &seats);
                let made = allocations(|| {
                    for n in 0..1000_u64 {
                        let random = n.wrapping_mul(0x9E37_79B9_7F4A_7C15);
                        let hash = Some(random.rotate_left(17));
                        let ask = Ask { random, hash, is_again: false };
                        assert!(black_box(balancer.pick(&ask, &group)).is_some());
                    }
                });
                assert_eq!(made, 0, "{algorithm:?} of {count}");
            }
        }
    }
}

#[test]
fn no_question_to_a_breaker_and_no_answer_allocates() {
    let breaker = Breaker::new(&breaker::Settings::default());
    let mut opened = 0;
    let made = allocations(|| {
        for second in 0..1000 {
            let now = Duration::from_secs(second);
            for verdict in [Verdict::Success, Verdict::Neutral, Verdict::Failure] {
                let _ = black_box((breaker.admits(now), breaker.state()));
                // Every way of its life: closed, open, half-open.
                for _ in 0..5 {
                    let Some(pass) = breaker.enter(now) else { break };
                    opened += u32::from(breaker.leave(pass, verdict, now).is_some());
                }
            }
        }
    });
    assert!(opened > 0);
    assert_eq!(made, 0);
}

#[test]
fn no_draw_from_a_budget_allocates() {
    let budget = Budget::new(budget::Settings { percent: 20, minimum: 1 });
    let mut draws = [0, 0];
    let made = allocations(|| {
        for n in 0..10_000 {
            let now = Duration::from_millis(n * 7);
            budget.deposit(now);
            draws[usize::from(budget.withdraw(now))] += 1;
        }
    });
    assert!(draws.iter().all(|count| *count > 0), "granted and refused: {draws:?}");
    assert_eq!(made, 0);
}

#[test]
fn no_report_of_a_passive_check_allocates() {
    let settings = ejection::Settings::default();
    let record = Record::default();
    let latency = PeakEwma::new(Duration::from_secs(10));
    let made = allocations(|| {
        for n in 0..1000 {
            let now = Duration::from_millis(n * 7);
            let outcome = if n % 3 == 0 { Outcome::Success } else { Outcome::Error };
            let _ = black_box((record.note(outcome, &settings), record.is_out(now)));
            latency.observe(Duration::from_micros(n), now);
            let _ = black_box(latency.cost(3, now));
        }
    });
    assert_eq!(made, 0);
}

#[test]
fn no_decision_on_limits_hedges_and_retries_allocates() {
    let limit = Limit::new(limit::Settings::default());
    let hedge = Hedge::new(hedge::Settings::default());
    let retry = retry::Settings::default();
    let mut hedged = 0;
    let made = allocations(|| {
        for n in 0..10_000_u32 {
            let now = Duration::from_millis(u64::from(n) * 7);
            let latency = Duration::from_micros(u64::from(1000 + n % 100));
            assert!(limit.try_enter(|| now));
            limit.leave(if n % 100 == 0 { Ended::Dropped } else { Ended::Answered(latency) }, now);
            hedged += u32::from(hedge.begin(now).is_some() && hedge.may_hedge(now));
            hedge.observe(latency, now);
            let failed = Failed {
                what: [What::Connect, What::Broken, What::Status(503)][n as usize % 3],
                sent: Sent::Nothing,
                attempts: 1 + n % 3,
                uncounted: 0,
                idempotent: true,
                replayable: true,
                downstream_started: false,
                left: Some(SOON),
                retry_after: None,
            };
            let _ = black_box(retry::decide(&retry, &failed, u64::from(n)));
        }
    });
    assert!(hedged > 0);
    assert_eq!(made, 0);
}

/// An origin that answers every request on a connection, in a thread of its own.
fn origin() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback can be listened on");
    let address = listener.local_addr().expect("a bound socket has an address");
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || answer(stream));
        }
    });
    address
}

fn answer(mut stream: TcpStream) {
    let mut head = Vec::new();
    let mut byte = [0];
    while let Ok(1) = stream.read(&mut byte) {
        head.push(byte[0]);
        if head.ends_with(b"\r\n\r\n") {
            head.clear();
            let said = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
            if said.is_err() {
                return;
            }
        }
    }
}

/// The upstream of these keys.
fn upstream(keys: &str) -> Arc<Upstream> {
    let yaml = format!(
        "listeners: [{{address: \"127.0.0.1:0\"}}]\nupstreams:\n  app: {{{keys}}}\n\
         routes: [{{upstream: app}}]\n"
    );
    let loaded = config::from_text(&yaml, "test").expect("it is one");
    let settings = loaded.plan.upstreams.into_iter().next().expect("one upstream");
    Upstream::build(settings, ReplyLimits::default()).expect("it can be built")
}

#[test]
fn no_lending_of_a_backend_and_no_place_in_its_pool_allocates() {
    let addresses: Vec<String> = (1..=50).map(|n| format!("10.0.0.{n}:80")).collect();
    let addresses = format!("addresses: {addresses:?}");
    let more = [
        "",
        "balance: random",
        "balance: least_connections",
        "balance: peak_ewma, slow_start: 1h",
        "balance: hash, hash_by: uri, hash_bound: 125",
        "concurrency: {}, ejection: {}, panic_threshold: 50",
        "sticky: on",
    ];
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime can be made");
    for more in more {
        let upstream = upstream(&format!("{addresses}, {more}"));
        let first = upstream.lend(&Wish::default()).expect("one is usable");
        let sticky = more.starts_with("sticky").then(|| first.backend().key());
        drop(first);
        let made = runtime.block_on(async {
            // What a thread does the first time may be another matter.
            one(&upstream, 0, sticky, Body::Here).await;
            let mut made = 0;
            for n in 1..100 {
                let body = if n % 2 == 0 { Body::Here } else { Body::Coming };
                let by_one = counted(one(&upstream, n, sticky, body)).await;
                // One that fails is remembered by its backend, as the last that did.
                made += by_one.saturating_sub(u64::from(n % 10 == 0));
            }
            made
        });
        assert_eq!(made, 0, "{more}");
    }

    /// A request as far as its connection, and what became of it.
    async fn one(upstream: &Arc<Upstream>, n: u64, sticky: Option<u64>, body: Body) {
        let wish = Wish { hash: Some(n), sticky, ..Wish::default() };
        let mut lease = upstream.lend(&wish).expect("one is usable");
        lease.connection(body, SOON).await.expect("there is room");
        upstream.budget().deposit(upstream.now());
        match n % 10 {
            0 => lease.failed(Fault::Closed, Why::Refusal(Refusal::OriginClosed)),
            _ => lease.answered(200, Duration::from_micros(n)),
        }
    }
}

#[test]
fn an_exchange_on_a_kept_connection_allocates_little() {
    let upstream = upstream(&format!("addresses: [\"{}\"], health: off", origin()));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime can be made");
    runtime.block_on(async {
        let mut lease = upstream.lend(&Wish::default()).expect("it is usable");
        lease.connection(Body::Here, SOON).await.expect("there is room");
        for _ in 0..3 {
            let exchange = lease.exchange(SOON, Kept::Welcome).await.expect("it connects");
            ask(exchange).await;
        }
        // The exchange itself, in a box. The connection, its room and its alarm are those of before.
        let mut taken = None;
        let made = counted(async {
            taken = lease.exchange(SOON, Kept::Welcome).await.ok();
        });
        assert_eq!(made.await, 1);
        let taken = taken.expect("one waits");
        assert!(taken.is_on_used_connection());
        // The question's text, and what the test makes of the body.
        let made = counted(ask(taken)).await;
        assert!((1..=2).contains(&made), "{made}");
        let stats = upstream.report()[0].pool;
        assert_eq!((stats.created, stats.reused), (1, 3));
    });

    async fn ask(mut exchange: Exchange) {
        let question = Question::Text(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec());
        exchange.send(&question, SOON).await.expect("it is taken");
        std::future::poll_fn(|cx| exchange.poll_head(cx)).await.expect("it answers");
        let one = exchange.with_text().expect("the origin speaks HTTP/1");
        let head = one.text().expect("a good head");
        assert_eq!(head.status, 200);
        let (length, framing) = (head.len, head.body);
        one.pass_head(length, framing);
        let mut body = Vec::with_capacity(8);
        assert_eq!(exchange.take_rest(&mut body, 8), Some(5));
        assert_eq!(body, b"hello");
    }
}

/// How often a future allocates, polled by this thread.
async fn counted(work: impl Future<Output = ()>) -> u64 {
    let mut work = std::pin::pin!(work);
    let mut made = 0;
    std::future::poll_fn(|cx| {
        let mut polled = std::task::Poll::Pending;
        made += allocations(|| polled = work.as_mut().poll(cx));
        polled
    })
    .await;
    made
}
