//! Scenarios over real sockets: a minimal proxy, lifted, in front of an origin that follows a script.

mod company;
pub(super) mod harness;
mod health;
mod pool;
mod reload;
mod simulation;
mod turns;

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use pingora::upstreams::peer::HttpPeer;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;

use self::harness::Answer;
use self::harness::Edge;
use self::harness::Origin;
use self::harness::settings;
use crate::message::reply::ReplyLimits;
use crate::refusal::Refusal;
use crate::upstream::Backend;
use crate::upstream::Fault;
use crate::upstream::OriginTls;
use crate::upstream::Place;
use crate::upstream::Protocol;
use crate::upstream::lease::Lease;
use crate::upstream::mishap::Why;
use crate::upstream::peer::Upstream;
use crate::upstream::peer::Wish;
use crate::upstream::resolve;

/// The peer that a request would get.
fn lent(upstream: &Arc<Upstream>) -> Box<HttpPeer> {
    upstream.lend(&Wish::default()).expect("there is one").peer()
}

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

#[tokio::test]
async fn an_origin_connection_serves_one_request_after_the_other() {
    let origin = Origin::tcp([Answer::keep(OK), Answer::keep(OK)]).await;
    let edge = Edge::before(origin.settings()).await;
    for _ in 0..2 {
        assert!(edge.get("/").await.ends_with("\r\n\r\nhello"));
    }
    assert_eq!(origin.connections(), 1);
}

#[tokio::test]
async fn a_unix_socket_serves_one_request_after_the_other() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("origin.sock");
    let origin = Origin::unix(&path, [Answer::keep(OK), Answer::keep(OK)]);
    let edge = Edge::before(settings(Place::Unix(path))).await;
    for _ in 0..2 {
        assert!(edge.get("/").await.ends_with("\r\n\r\nhello"));
    }
    assert_eq!(origin.connections(), 1);
}

#[tokio::test]
async fn a_connection_closed_while_idle_costs_the_next_request_nothing() {
    let origin = Origin::tcp([Answer::close(OK), Answer::close(OK)]).await;
    let edge = Edge::before(origin.settings()).await;
    for _ in 0..2 {
        assert!(edge.get("/").await.ends_with("\r\n\r\nhello"));
    }
    assert_eq!(edge.refusals(), []);
}

#[tokio::test]
async fn an_answer_that_http_does_not_allow_is_malformed() {
    let answers: [&[u8]; 4] = [
        b"HELLO world\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
    ];
    for answer in answers {
        let origin = Origin::tcp([Answer::keep(answer)]).await;
        let edge = Edge::before(origin.settings()).await;
        let reply = edge.get("/").await;
        assert!(reply.starts_with("HTTP/1.1 502"), "{} => {reply}", answer.escape_ascii());
        assert_eq!(edge.refusals(), [Refusal::OriginMalformed]);
        assert_eq!(edge.faults(), 1);
    }
}

#[tokio::test]
async fn a_body_that_was_cut_never_looks_complete() {
    let answers: [&[u8]; 2] = [
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
    ];
    for answer in answers {
        let origin = Origin::tcp([Answer::close(answer)]).await;
        let edge = Edge::before(origin.settings()).await;
        let reply = edge.get("/").await;
        assert!(!reply.contains("\r\n0\r\n"), "{reply}");
        let declared = reply.contains("ontent-Length: 10") || reply.contains("chunked");
        assert!(declared || reply.starts_with("HTTP/1.1 502"), "{reply}");
        assert_eq!(edge.refusals(), [Refusal::OriginClosed]);
    }
}

#[tokio::test]
async fn a_fault_that_comes_late_cuts_the_answer() {
    let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";
    let origin = Origin::tcp([Answer::keep(head).then(b"\r\n\r\n")]).await;
    let edge = Edge::before(origin.settings()).await;
    let reply = edge.send(async |client| {
        client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        let mut got = Vec::new();
        while !got.ends_with(b"hello\r\n") {
            client.read_buf(&mut got).await.unwrap();
        }
        origin.go_on();
    });
    assert!(!reply.await.contains("0\r\n"), "the rest has no last chunk");
    assert_eq!(edge.refusals(), [Refusal::OriginMalformed]);
}

#[tokio::test]
async fn an_origin_that_says_nothing_and_closes_is_closed() {
    let origin = Origin::tcp([Answer::close(b"")]).await;
    let edge = Edge::before(origin.settings()).await;
    assert!(edge.get("/").await.starts_with("HTTP/1.1 502"));
    assert_eq!(edge.refusals(), [Refusal::OriginClosed]);
}

#[tokio::test]
async fn a_silent_origin_times_out() {
    let origin = Origin::tcp([Answer::keep(b"")]).await;
    let mut settings = origin.settings();
    settings.timeouts.read = Duration::from_millis(50);
    let edge = Edge::before(settings).await;
    edge.get("/").await;
    assert_eq!(edge.refusals(), [Refusal::OriginTimeout]);
}

#[tokio::test]
async fn a_closed_port_is_a_failed_connection() {
    let free = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let place = Place::Tcp { host: "127.0.0.1".to_owned(), port };
    let edge = Edge::before(settings(place)).await;
    edge.get("/").await;
    assert_eq!(edge.refusals(), [Refusal::ConnectFailed]);
}

#[tokio::test]
async fn an_origin_that_does_not_accept_is_a_connect_timeout() {
    // A queue of one, filled: the kernel drops what comes next.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&std::net::SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
    socket.listen(0).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    let _queued = std::net::TcpStream::connect(address).unwrap();

    let place = Place::Tcp { host: address.ip().to_string(), port: address.port() };
    let mut settings = settings(place);
    settings.timeouts.connect = Duration::from_millis(50);
    let edge = Edge::before(settings).await;
    edge.get("/").await;
    assert_eq!(edge.refusals(), [Refusal::ConnectTimeout]);
}

#[tokio::test]
async fn a_tls_origin_is_verified_by_its_own_authority_and_kept() {
    let tls = harness::Tls::of("origin.test");
    let origin = Origin::tls(&tls, [Answer::keep(OK), Answer::keep(OK)]).await;
    let mut settings = origin.settings();
    settings.backends[0].tls = Some(tls.trusted_as("origin.test"));
    let edge = Edge::before(settings).await;
    for _ in 0..2 {
        assert!(edge.get("/").await.ends_with("\r\n\r\nhello"));
    }
    assert_eq!(origin.connections(), 1);
}

#[tokio::test]
async fn a_certificate_of_another_name_is_refused() {
    let tls = harness::Tls::of("origin.test");
    let origin = Origin::tls(&tls, [Answer::keep(OK)]).await;
    let mut settings = origin.settings();
    settings.backends[0].tls = Some(tls.trusted_as("other.test"));
    let edge = Edge::before(settings).await;
    assert!(edge.get("/").await.starts_with("HTTP/1.1 502"));
    assert_eq!(edge.refusals(), [Refusal::OriginCertificate]);
}

#[tokio::test]
async fn only_verify_off_accepts_a_certificate_of_nobody() {
    let tls = harness::Tls::of("origin.test");
    let stranger = harness::Tls::of("origin.test");
    for (verify, reply) in [(true, "HTTP/1.1 502"), (false, "HTTP/1.1 200")] {
        let origin = Origin::tls(&tls, [Answer::keep(OK)]).await;
        let mut settings = origin.settings();
        settings.backends[0].tls = Some(OriginTls { verify, ..stranger.trusted_as("origin.test") });
        let edge = Edge::before(settings).await;
        assert!(edge.get("/").await.starts_with(reply), "verify: {verify}");
    }
}

#[tokio::test]
async fn a_handshake_that_stalls_is_a_connect_timeout() {
    let origin = Origin::tcp([Answer::keep(b"")]).await;
    let mut settings = origin.settings();
    let tls = harness::Tls::of("origin.test");
    settings.backends[0].tls = Some(tls.trusted_as("origin.test"));
    settings.timeouts.connect = Duration::from_millis(50);
    let edge = Edge::before(settings).await;
    edge.get("/").await;
    assert_eq!(edge.refusals(), [Refusal::ConnectTimeout]);
}

#[tokio::test]
async fn http2_by_prior_knowledge_and_over_tls() {
    let tls = harness::Tls::of("origin.test");
    for trusted in [None, Some(tls.trusted_as("origin.test"))] {
        let origin = Origin::http2(trusted.is_some().then_some(&tls)).await;
        let mut settings = origin.settings();
        settings.protocol = Protocol::Http2;
        settings.backends[0].tls = trusted;
        let edge = Edge::before(settings).await;
        for _ in 0..2 {
            assert!(edge.get("/").await.contains("hello"));
        }
        assert_eq!(origin.connections(), 1);
    }
}

#[tokio::test]
async fn http2_over_tls_checks_the_name_unless_told_not_to() {
    let tls = harness::Tls::of("origin.test");
    for (verify, refusals) in [(true, vec![Refusal::OriginCertificate]), (false, vec![])] {
        let origin = Origin::http2(Some(&tls)).await;
        let mut settings = origin.settings();
        settings.protocol = Protocol::Http2;
        settings.backends[0].tls = Some(OriginTls { verify, ..tls.trusted_as("other.test") });
        let edge = Edge::before(settings).await;
        edge.get("/").await;
        assert_eq!(edge.refusals(), refusals, "verify: {verify}");
    }
}

#[tokio::test]
async fn an_upstream_replaced_by_a_reload_is_still_dialled_by_requests_that_hold_it() {
    let origin = Origin::tcp([Answer::close(OK), Answer::close(OK)]).await;
    let edge = Edge::before(origin.settings()).await;
    edge.dials().set([]);
    assert!(edge.get("/").await.ends_with("hello"));
}

#[tokio::test]
async fn an_upstream_switched_off_and_one_not_yet_resolved_say_so() {
    let mut off = settings(Place::Demo);
    off.active = false;
    let off = Upstream::build(off, ReplyLimits::default()).unwrap();
    assert_eq!(off.lend(&Wish::default()).unwrap_err(), Refusal::UpstreamOff);

    let demo = Upstream::build(settings(Place::Demo), ReplyLimits::default()).unwrap();
    assert_eq!(demo.lend(&Wish::default()).unwrap_err(), Refusal::NoPeer);
    demo.set_demo(([127, 0, 0, 1], 8000).into());
    assert_eq!(lent(&demo)._address.to_string(), "127.0.0.1:8000");
}

#[tokio::test]
async fn a_name_is_resolved_at_the_start_and_its_task_ends_with_the_upstream() {
    let place = Place::Tcp { host: "localhost".to_owned(), port: 8000 };
    let upstream = Upstream::build(settings(place), ReplyLimits::default()).unwrap();
    resolve::start(&upstream).await;
    let peer = lent(&upstream);
    assert!(peer._address.as_inet().unwrap().ip().is_loopback());

    let gone = Arc::downgrade(&upstream);
    drop(upstream);
    assert_eq!(gone.strong_count(), 0, "the task does not hold it");
}

#[tokio::test]
async fn weights_share_out_requests_and_an_unreachable_address_stands_back() {
    let mut two = settings(Place::Tcp { host: "192.0.2.1".to_owned(), port: 80 });
    let second = Place::Tcp { host: "192.0.2.2".to_owned(), port: 80 };
    two.backends.push(Backend { weight: 3, ..Backend::new("two", second) });
    let upstream = Upstream::build(two, ReplyLimits::default()).unwrap();
    let next = || upstream.lend(&Wish::default()).unwrap();
    let is_first = |lease: &Lease| &**lease.backend().id() == "one";
    let first = |n: usize| (0..n).map(|_| next()).filter(is_first).count();
    assert_eq!(first(8), 2);
    let mut other = (0..4).map(|_| next()).find(|lease| !is_first(lease)).unwrap();
    other.failed(Fault::Connect, Why::Refusal(Refusal::ConnectFailed));
    assert_eq!(first(8), 8);
    let tried = [Arc::clone(next().backend())];
    let lease = upstream.lend(&Wish { tried: &tried, ..Wish::default() }).unwrap();
    assert!(!is_first(&lease), "better than one tried");
}

#[test]
fn peers_of_different_handshakes_never_share_a_connection() {
    let tls = harness::Tls::of("origin.test");
    let place = Place::Tcp { host: "192.0.2.1".to_owned(), port: 443 };
    let plain = settings(place);
    let mut verified = plain.clone();
    verified.backends[0].tls = Some(tls.trusted_as("origin.test"));
    let other = harness::Tls::of("origin.test");
    let mut trusting = verified.clone();
    trusting.backends[0].tls = Some(other.trusted_as("origin.test"));
    let mut unverified = verified.clone();
    unverified.backends[0].tls = Some(OriginTls { verify: false, ..tls.trusted_as("origin.test") });
    let mut http2 = verified.clone();
    http2.protocol = Protocol::Http2;
    let mut renamed = plain.clone();
    renamed.name = "other".into();
    let mut keys: Vec<u64> = [&plain, &verified, &trusting, &unverified, &http2, &renamed]
        .map(|settings| {
            let upstream = Upstream::build(settings.clone(), ReplyLimits::default()).unwrap();
            lent(&upstream).group_key
        })
        .to_vec();
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), 6);
}

#[test]
fn what_cannot_work_is_refused_when_it_is_built() {
    let build = |settings| Upstream::build(settings, ReplyLimits::default());
    let mut nameless = settings(Place::Unix("/run/origin.sock".into()));
    let tls = harness::Tls::of("a.test");
    let verified = OriginTls { ca: tls.ca(), ..OriginTls::default() };
    nameless.backends[0].tls = Some(verified.clone());
    assert!(build(nameless).unwrap_err().to_string().contains("no server name"));

    let mut missing = settings(Place::Demo);
    missing.backends[0].tls = Some(OriginTls { ca: Some("/nowhere/ca.pem".into()), ..verified });
    assert!(build(missing).unwrap_err().to_string().contains("/nowhere/ca.pem"));

    let long = settings(Place::Unix("x".repeat(200).into()));
    assert!(build(long).unwrap_err().to_string().contains("no socket path"));
}

#[tokio::test]
async fn a_request_body_reaches_the_origin_whole() {
    let origin = Origin::tcp([Answer::keep(OK)]).await;
    let edge = Edge::before(origin.settings()).await;
    let body = "b".repeat(100_000);
    let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len());
    let reply = edge.send(async |client| {
        client.write_all(head.as_bytes()).await.unwrap();
        client.write_all(body.as_bytes()).await.unwrap();
    });
    assert!(reply.await.ends_with("hello"));
    assert!(origin.last_request().ends_with(&body));
}
