use std::future::poll_fn;
use std::os::fd::AsRawFd;
use std::time::Instant;

use futures_util::FutureExt;
use pingora::protocols::GetSocketDigest;
use pingora::protocols::GetTimingDigest;
use pingora::protocols::IO;
use pingora::protocols::Shutdown;
use pingora::protocols::UniqueID;
use pingora::protocols::l4::socket::SocketAddr;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::*;
use crate::message::reply::ReplyLimits;
use crate::socket::Socket;
use crate::upstream::pool::Settings;

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

fn post(length: usize) -> Vec<u8> {
    format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n").into_bytes()
}

fn guarded() -> (OriginIo, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let peer = SocketAddr::Inet(([127, 0, 0, 1], 1).into());
    let line = Line::plain(Socket::Unix(ours), &peer, Duration::ZERO);
    (OriginIo::fresh(line, None, ReplyLimits::default()), theirs)
}

async fn send(io: &mut OriginIo, bytes: &[u8]) {
    io.write_all(bytes).await.unwrap();
    io.flush().await.unwrap();
}

fn carries_a_fault(e: &io::Error) -> bool {
    e.get_ref().is_some_and(|inner| inner.is::<OriginFault>())
}

#[tokio::test]
async fn what_belongs_together_leaves_in_one_write_at_the_flush() {
    let (mut io, mut origin) = guarded();
    let head = post(4);
    io.write_all(&head).await.unwrap();
    io.write_all(b"body").await.unwrap();
    let mut seen = [0; 256];
    let early = timeout(Duration::ZERO, origin.read(&mut seen)).await;
    assert!(early.is_err(), "nothing leaves before the flush");
    io.flush().await.unwrap();
    assert_eq!(origin.read(&mut seen).await.unwrap(), head.len() + 4);
}

#[tokio::test]
async fn a_large_write_takes_what_was_gathered_along_and_keeps_the_order() {
    let (mut io, mut origin) = guarded();
    let body = vec![b'x'; 5 * GATHER];
    let head = post(body.len() + 2);
    let reader = tokio::spawn(async move {
        let mut all = Vec::new();
        origin.read_to_end(&mut all).await.unwrap();
        all
    });
    io.write_all(&head).await.unwrap();
    io.write_all(&body).await.unwrap();
    let slices = [IoSlice::new(b"1"), IoSlice::new(b""), IoSlice::new(b"2")];
    assert_eq!(io.write_vectored(&slices).await.unwrap(), 2);
    io.flush().await.unwrap();
    assert!(io.line.pending.capacity() <= KEEP, "an idle connection keeps no large buffer");
    drop(io);
    assert_eq!(reader.await.unwrap(), [&head[..], &body, b"12"].concat());
}

#[tokio::test]
async fn an_end_before_any_answer_is_a_plain_close_that_may_be_retried() {
    let (mut io, mut origin) = guarded();
    send(&mut io, REQUEST).await;
    origin.read_exact(&mut vec![0; REQUEST.len()]).await.unwrap();
    drop(origin);
    assert_eq!(io.read(&mut [0; 16]).await.unwrap(), 0);
}

#[tokio::test]
async fn a_write_to_a_closed_connection_leaves_the_verdict_to_the_read() {
    let (mut io, origin) = guarded();
    drop(origin);
    send(&mut io, &post(2 * GATHER)).await;
    io.write_all(&vec![b'x'; 2 * GATHER]).await.unwrap();
    assert_eq!(io.read(&mut [0; 16]).await.unwrap(), 0);
}

#[tokio::test]
async fn an_early_answer_is_read_although_the_rest_of_the_request_cannot_be_written() {
    let (mut io, mut origin) = guarded();
    send(&mut io, &post(40_000)).await;
    assert!(origin.read(&mut [0; 256]).await.unwrap() > 0);
    origin.write_all(b"HTTP/1.1 413 No\r\nContent-Length: 0\r\n\r\n").await.unwrap();
    drop(origin);
    io.write_all(&vec![b'x'; 40_000]).await.unwrap();
    io.flush().await.unwrap();
    let mut answer = [0; 256];
    assert!(io.read(&mut answer).await.unwrap() > 0);
    assert!(io.read(&mut answer).await.is_err(), "it is never used again");
}

#[tokio::test]
async fn an_end_within_an_answer_is_a_fault() {
    let (mut io, mut origin) = guarded();
    send(&mut io, REQUEST).await;
    origin.read_exact(&mut vec![0; REQUEST.len()]).await.unwrap();
    origin.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n1").await.unwrap();
    drop(origin);
    let mut buf = [0; 256];
    assert!(io.read(&mut buf).await.unwrap() > 0);
    let e = io.read(&mut buf).await.unwrap_err();
    assert_eq!(e.kind(), io::ErrorKind::UnexpectedEof);
    assert!(carries_a_fault(&e));
}

#[tokio::test]
async fn whoever_reads_between_two_requests_is_told_that_it_is_over() {
    let (mut io, mut origin) = guarded();
    origin.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
    assert_eq!(io.read(&mut [0; 64]).await.unwrap(), 0);
}

#[tokio::test]
async fn bytes_that_nobody_asked_for_make_the_connection_unusable() {
    let (mut io, mut origin, pool) = pooled();
    send(&mut io, REQUEST).await;
    origin.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nHTTP/1.1").await.unwrap();
    let mut buf = [0; 64];
    for _ in 0..2 {
        let e = io.read(&mut buf).await.unwrap_err();
        assert_eq!(e.kind(), io::ErrorKind::InvalidData);
        assert!(carries_a_fault(&e));
    }
    drop(io);
    assert_eq!(pool.stats().open, 0);
}

#[tokio::test]
async fn a_request_that_is_not_one_never_leaves() {
    let (mut io, mut origin) = guarded();
    let e = io.write_all(b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap_err();
    assert!(carries_a_fault(&e));
    drop(io);
    assert_eq!(origin.read(&mut [0; 16]).await.unwrap(), 0);
}

#[tokio::test]
async fn the_digest_names_the_peer_and_the_id_is_the_descriptor() {
    let (io, _origin) = guarded();
    let peer = io.get_socket_digest().unwrap().peer_addr().cloned();
    assert_eq!(peer, Some(SocketAddr::Inet(([127, 0, 0, 1], 1).into())));
    assert_eq!(io.id(), io.line.socket().as_raw_fd());
    let stream: Box<dyn IO> = Box::new(io);
    assert!(stream.as_any().is::<OriginIo>());
}

const OFFER: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
const AGREED: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\n\
    Upgrade: websocket\r\n\r\n";

#[tokio::test]
async fn an_agreement_waits_for_the_end_of_the_request() {
    let (mut io, mut origin) = guarded();
    send(&mut io, OFFER).await;
    origin.write_all(AGREED).await.unwrap();
    let mut seen = [0; 256];
    let early = timeout(Duration::from_millis(20), io.read(&mut seen)).await;
    assert!(early.is_err(), "the request has not been ended");
    io.flush().await.unwrap();
    assert_eq!(io.read(&mut seen).await.unwrap(), AGREED.len());
}

#[tokio::test(start_paused = true)]
async fn silence_after_an_offer_ends_it() {
    let (io, _origin) = guarded();
    let mut io = io.with_patience(Duration::from_secs(30));
    send(&mut io, OFFER).await;
    io.flush().await.unwrap();
    let silent = io.read(&mut [0; 1]).await.unwrap_err();
    assert_eq!(silent.kind(), io::ErrorKind::TimedOut);
}

/// One who only writes while there is something to write, as Pingora does, and an origin that does the same.
#[tokio::test]
async fn an_origin_that_echoes_does_not_wait_for_us_as_we_wait_for_it() {
    const IN_ALL: usize = 8 * 1024 * 1024;
    let (mut io, mut origin) = guarded();
    send(&mut io, OFFER).await;
    io.flush().await.unwrap();
    let echo = tokio::spawn(async move {
        let mut space = vec![0; 64 * 1024];
        let mut head = vec![0; OFFER.len()];
        origin.read_exact(&mut head).await.unwrap();
        origin.write_all(AGREED).await.unwrap();
        loop {
            match origin.read(&mut space).await.unwrap() {
                0 => return,
                got => origin.write_all(&space[..got]).await.unwrap(),
            }
        }
    });
    let mut agreed = vec![0; AGREED.len()];
    io.read_exact(&mut agreed).await.unwrap();
    assert_eq!(agreed, AGREED);

    let sent: Vec<u8> = (0..IN_ALL).map(|n| u8::try_from(n % 251).unwrap()).collect();
    let mut came = Vec::new();
    let talk = async {
        for part in sent.chunks(64 * 1024) {
            send(&mut io, part).await;
            // As much as one look takes.
            let here = came.len();
            came.resize(here + 64 * 1024, 0);
            let read = io.read(&mut came[here..]).await.unwrap();
            came.truncate(here + read);
        }
        while came.len() < IN_ALL {
            assert!(io.read_buf(&mut came).await.unwrap() > 0);
        }
    };
    timeout(Duration::from_secs(60), talk).await.expect("nobody waits for nothing");
    assert!(came == sent, "what came back is something else");
    drop(io);
    echo.await.unwrap();
}

/// The guard with which an early answer and the origin's end were read while nothing was taken.
async fn answered_while_nothing_was_taken(io: &mut OriginIo, origin: &mut UnixStream) {
    const ANSWER: &[u8] = b"HTTP/1.1 413 No\r\nContent-Length: 0\r\n\r\n";
    send(io, &post(8 * 1024 * 1024)).await;
    origin.write_all(ANSWER).await.unwrap();
    AsyncWriteExt::shutdown(origin).await.unwrap();
    let body = vec![b'x'; 4 * 1024 * 1024];
    let sent = timeout(Duration::from_millis(50), io.write_all(&body)).await;
    assert!(sent.is_err(), "the origin reads nothing");
}

#[tokio::test]
async fn nobody_waits_for_what_is_behind_an_early_answer() {
    let is_held = async || poll_fn(|cx| Poll::Ready(terms::is_client_held(cx))).await;
    terms::scope(Arc::new(()), None, async {
        let (mut io, mut origin) = guarded();
        answered_while_nothing_was_taken(&mut io, &mut origin).await;
        assert!(is_held().await, "the answer goes first");
        assert!(io.read(&mut [0; 256]).await.unwrap() > 0);
        assert!(!is_held().await, "the end is read by nobody");
        let rest = vec![b'x'; 1024 * 1024];
        let sent = timeout(Duration::from_millis(50), io.write_all(&rest)).await;
        assert!(sent.is_err(), "the origin reads nothing");
        assert!(!is_held().await, "nor is it later");
        assert!(io.may_go_on().is_none());
    })
    .await;
}

#[tokio::test]
async fn the_client_is_let_go_by_whoever_finds_that_what_was_kept_was_taken() {
    let is_held = async || poll_fn(|cx| Poll::Ready(terms::is_client_held(cx))).await;
    for reads_first in [true, false] {
        terms::scope(Arc::new(()), None, async {
            let (mut io, mut origin) = guarded();
            send(&mut io, &post(8 * 1024 * 1024)).await;
            origin.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nwe").await.unwrap();
            while !is_held().await {
                io.write_all(&[b'x'; 64 * 1024]).await.unwrap();
            }
            assert!(io.kept.is_some(), "the origin reads nothing");
            assert!(io.read(&mut [0; 256]).await.unwrap() > 0);
            assert!(is_held().await, "what was kept is still there");
            while io.waiting() > 0 {
                // Nothing may be there before the next look at what waits.
                let mut taken = [0; 64 * 1024];
                let _ = timeout(Duration::from_millis(5), origin.read(&mut taken)).await;
                if reads_first {
                    assert!(io.read(&mut [0; 256]).now_or_never().is_none(), "it is silent");
                } else {
                    // What Pingora had read of it before.
                    send(&mut io, b"x").await;
                }
            }
            send(&mut io, b"x").await;
            assert!(io.kept.is_none() && !is_held().await, "reads first: {reads_first}");
        })
        .await;
    }
}

#[tokio::test]
async fn what_is_kept_has_its_time_although_the_origin_says_something_now_and_then() {
    terms::scope(Arc::new(()), None, async {
        let (io, mut origin) = guarded();
        let mut io = io.with_patience(Duration::from_millis(100));
        send(&mut io, &post(8 * 1024 * 1024)).await;
        origin.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\nwe").await.unwrap();
        while io.kept.is_none() {
            io.write_all(&[b'x'; 64 * 1024]).await.unwrap();
        }
        let trickles = async {
            loop {
                origin.write_all(b"x").await.unwrap();
                // It takes a little of it, too.
                origin.read_exact(&mut [0; 64]).await.unwrap();
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let ends = async {
            loop {
                match io.read(&mut [0; 256]).await {
                    Ok(read) => assert!(read > 0, "it goes on answering"),
                    Err(over) => return over,
                }
            }
        };
        let over = timeout(Duration::from_secs(60), async {
            tokio::select! { over = ends => over, () = trickles => unreachable!("it never ends") }
        });
        let over = over.await.expect("it ends by itself");
        assert_eq!(over.kind(), io::ErrorKind::TimedOut);
    })
    .await;
}

#[tokio::test]
async fn silence_in_a_tunnel_does_not_end_it() {
    let (io, mut origin) = guarded();
    let mut io = io.with_patience(Duration::from_millis(20));
    send(&mut io, OFFER).await;
    origin.write_all(AGREED).await.unwrap();
    io.flush().await.unwrap();
    let mut seen = [0; 256];
    assert_eq!(io.read(&mut seen).await.unwrap(), AGREED.len());
    let silence = timeout(Duration::from_millis(100), io.read(&mut seen)).await;
    assert!(silence.is_err(), "it goes on");
}

#[tokio::test(start_paused = true)]
async fn silence_after_an_ordinary_request_is_the_proxys_affair() {
    let (io, _origin) = guarded();
    let mut io = io.with_patience(Duration::from_secs(30));
    send(&mut io, REQUEST).await;
    let hour = Duration::from_secs(3600);
    assert!(timeout(hour, io.read(&mut [0; 1])).await.is_err());
}

// ── back to the pool ──

fn pooled() -> (OriginIo, UnixStream, Arc<Pool>) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let peer = SocketAddr::Inet(([127, 0, 0, 1], 1).into());
    let pool = Pool::new(Settings::default());
    let mut line = Line::plain(Socket::Unix(ours), &peer, Duration::ZERO);
    pool.count(&mut line);
    (OriginIo::fresh(line, Some(pool.clone()), ReplyLimits::default()), theirs, pool)
}

/// How many connections wait in the pool after this exchange.
async fn kept(request: &[u8], answer: &[u8]) -> u32 {
    let (mut io, mut origin, pool) = pooled();
    send(&mut io, request).await;
    origin.write_all(answer).await.unwrap();
    let mut got = 0;
    while got < answer.len() {
        match io.read(&mut [0; 1024]).await {
            Ok(0) | Err(_) => break,
            Ok(more) => got += more,
        }
    }
    drop(io);
    assert_eq!(pool.stats().open, pool.stats().idle, "what is not kept is closed");
    pool.stats().idle
}

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[tokio::test]
async fn a_connection_goes_back_after_a_whole_exchange() {
    assert_eq!(kept(REQUEST, ANSWER).await, 1);
    let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
    assert_eq!(kept(REQUEST, chunked).await, 1);
    let body = [&post(2)[..], b"hi"].concat();
    assert_eq!(kept(&body, ANSWER).await, 1);
    assert_eq!(kept(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n", &ANSWER[..ANSWER.len() - 2]).await, 1);
    assert_eq!(kept(b"", b"").await, 1, "it was not used at all");
}

#[tokio::test]
async fn a_connection_does_not_go_back_after_anything_else() {
    let cut = &ANSWER[..ANSWER.len() - 1];
    assert_eq!(kept(REQUEST, cut).await, 0, "the answer is not whole");
    assert_eq!(kept(REQUEST, b"").await, 0, "there is no answer");
    assert_eq!(kept(&REQUEST[..10], b"").await, 0, "the request is not whole");
    assert_eq!(kept(&post(5), ANSWER).await, 0, "the answer came before the body was sent");
    let interim = b"HTTP/1.1 103 Early Hints\r\n\r\n";
    assert_eq!(kept(REQUEST, interim).await, 0, "the final answer is due");
    let closes = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(kept(REQUEST, closes).await, 0, "the origin closes");
    let old = b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(kept(REQUEST, old).await, 0, "HTTP/1.0 closes");
    let overrun = [ANSWER, b"more"].concat();
    assert_eq!(kept(REQUEST, &overrun).await, 0, "it said more than it announced");
    assert_eq!(kept(REQUEST, b"garbage\r\n\r\n").await, 0, "that is no answer");
}

#[tokio::test]
async fn a_connection_that_was_shut_down_does_not_go_back() {
    let (mut io, _origin, pool) = pooled();
    Shutdown::shutdown(&mut io).await;
    drop(io);
    assert_eq!(pool.stats().open, 0);
}

#[tokio::test]
async fn a_request_of_which_some_has_not_left_does_not_leave_its_connection_to_another() {
    let (mut io, mut origin, pool) = pooled();
    // The head is out, the body waits for a flush when the answer is whole.
    send(&mut io, &post(2)).await;
    origin.write_all(ANSWER).await.unwrap();
    io.write_all(b"hi").await.unwrap();
    assert!(io.read(&mut [0; 256]).await.unwrap() > 0);
    assert!(io.line.guard.is_idle(), "as far as the guard has seen");
    drop(io);
    assert_eq!(pool.stats().open, 0);
}

#[tokio::test]
async fn a_connection_says_whether_it_was_used_before_and_is_new_to_the_guard() {
    let (mut io, mut origin, pool) = pooled();
    for used in [false, true] {
        let digest = io.get_timing_digest();
        let took = digest[0].as_ref().and_then(|timing| timing.establishment_duration);
        assert_eq!(took.is_none(), used);
        send(&mut io, REQUEST).await;
        origin.write_all(ANSWER).await.unwrap();
        assert!(io.read(&mut [0; 256]).await.unwrap() > 0);
        drop(io);
        let line = pool.take(Instant::now(), None).unwrap();
        io = OriginIo::again(line, pool.clone(), ReplyLimits::default(), Duration::MAX);
    }
}
