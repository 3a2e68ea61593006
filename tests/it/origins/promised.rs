//! What an HTTP/2 origin says behind interim responses while it takes nothing of an upload: it reaches the client at
//! once, however many they were.

use std::future::poll_fn;
use std::io::Read;
use std::io::Write;
use std::net::TcpStream;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Instant;

use bytes::Bytes;
use http::Request;
use http::Response;

use super::at_once;
use super::early::NO_WINDOW;
use super::early::answer;
use super::early::in_front_of;
use crate::harness::Edge;
use crate::harness::Origin2;
use crate::harness::PATIENCE;
use crate::harness::frames::DATA;
use crate::harness::frames::END_HEADERS;
use crate::harness::frames::END_STREAM;
use crate::harness::frames::HEADERS;
use crate::harness::frames::RESET;
use crate::harness::frames::RawOrigin2;
use crate::harness::frames::block;
use crate::harness::frames::frame;
use crate::harness::http2;

/// Which version a client speaks.
const CLIENTS: [Client; 2] = [Client::Http1, Client::Http2];

#[derive(Debug, Clone, Copy)]
enum Client {
    Http1,
    Http2,
}

/// What a client of this version gets to an upload: the status, and how many interim responses ahead of it.
#[track_caller]
fn uploaded(edge: &Edge, client: Client, body: &Bytes) -> (u16, usize) {
    match client {
        Client::Http1 => {
            let mut wire = edge.wire();
            wire.ask("POST", "edge.test", "/a", &[], body);
            let mut hints = 0;
            loop {
                match wire.any_reply("POST").expect("an answer comes").status {
                    103 => hints += 1,
                    status => return (status, hints),
                }
            }
        }
        Client::Http2 => http2::run(async {
            let mut client = http2::plain(edge.address("http")).await;
            let request = Request::post("http://edge.test/a").body(()).expect("a request");
            let (mut response, mut sending) =
                client.send_request(request, false).expect("there is room for a stream");
            sending.send_data(body.clone(), true).expect("it is open yet");
            let mut hints = 0;
            while let Some(hint) = poll_fn(|cx| response.poll_informational(cx)).await {
                assert_eq!(hint.expect("a good one").status(), 103);
                hints += 1;
            }
            (response.await.expect("an answer comes").status().as_u16(), hints)
        }),
    }
}

/// So many interim responses to a stream.
fn hints(count: usize, stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &block(&[(":status", "103")])).repeat(count)
}

/// RST_STREAM with this code.
fn reset(stream: u32, code: u8) -> Vec<u8> {
    frame(RESET, 0, stream, &[0, 0, 0, code])
}

/// Each client gets this status at once to each of the bodies, behind so many interim responses.
#[track_caller]
fn each_is_told_at_once(edge: &Edge, count: usize, status: u16) {
    for client in CLIENTS {
        for body in bodies() {
            let told = format!("{count}, {client:?}, {}", body.len());
            let began = Instant::now();
            assert_eq!(uploaded(edge, client, &body).0, status, "{told}");
            at_once(began, &told);
        }
    }
}

/// Bodies that are kept as a whole for another attempt, and not.
fn bodies() -> [Bytes; 2] {
    [100, 100_000].map(|size| vec![b'x'; size].into())
}

#[test]
fn an_answer_behind_interim_responses_reaches_who_uploads_to_an_origin_that_takes_nothing() {
    for count in [1, 4, 5, 6, 16] {
        let origin = RawOrigin2::with(NO_WINDOW, move |to, stream| {
            to.write_all(&[hints(count, stream), answer(stream, "413", "no")].concat()).is_ok()
        });
        let edge = in_front_of(origin.address, "http2", "");
        for client in CLIENTS {
            for body in bodies() {
                let told = format!("{count}, {client:?}, {}", body.len());
                let began = Instant::now();
                assert_eq!(uploaded(&edge, client, &body), (413, count), "{told}");
                at_once(began, &told);
            }
        }
        assert_eq!(origin.asked(), 4, "nothing is said twice");
        assert_eq!(edge.metric("edgeproxy_upstream_errors_total"), 0.0);
    }
}

#[test]
fn an_upload_that_fails_behind_interim_responses_fails_at_once_and_is_said_once() {
    const INTERNAL_ERROR: u8 = 2;
    for count in [1, 6, 16, 17, 40] {
        let origin = RawOrigin2::with(NO_WINDOW, move |to, stream| {
            let mut said = hints(count, stream);
            if count <= 16 {
                said.extend(reset(stream, INTERNAL_ERROR));
            }
            to.write_all(&said).is_ok()
        });
        let edge = in_front_of(origin.address, "http2", "");
        each_is_told_at_once(&edge, count, 502);
        assert_eq!(origin.asked(), 4, "it may have been looked at");
    }
}

#[test]
fn an_upload_that_is_refused_behind_interim_responses_is_said_again_at_once() {
    const REFUSED_STREAM: u8 = 7;
    for count in [1, 6, 16] {
        let asked = AtomicUsize::new(0);
        let origin = RawOrigin2::with(NO_WINDOW, move |to, stream| {
            let is_first = asked.fetch_add(1, Ordering::SeqCst).is_multiple_of(2);
            let said = match is_first {
                true => [hints(count, stream), reset(stream, REFUSED_STREAM)].concat(),
                false => answer(stream, "200", "well"),
            };
            to.write_all(&said).is_ok()
        });
        let edge = in_front_of(origin.address, "http2", "");
        // No more was read of it than what is kept.
        each_is_told_at_once(&edge, count, 200);
        assert_eq!(origin.asked(), 8);
    }
}

#[test]
fn an_upload_that_is_refused_behind_interim_responses_is_whole_when_it_is_said_again() {
    const REFUSED_STREAM: u8 = 7;
    let body: Bytes = (0..1_000_000_u32).flat_map(u32::to_be_bytes).collect();
    let wanted = body.clone();
    let refuses = RawOrigin2::with(NO_WINDOW, |to, stream| {
        to.write_all(&[hints(6, stream), reset(stream, REFUSED_STREAM)].concat()).is_ok()
    });
    let takes = Origin2::start(None, move |mut call| {
        let wanted = wanted.clone();
        async move {
            let (came, _) = call.whole().await;
            let status = if came == wanted { 200 } else { 400 };
            call.respond(Response::builder().status(status).body(()).expect("a good head"), "");
        }
    });
    let both = format!("{}\", \"{}", refuses.address, takes.address);
    let edge = in_front_of(both, "http2", "");
    for client in CLIENTS {
        for _ in 0..4 {
            assert_eq!(uploaded(&edge, client, &body).0, 200, "{client:?}");
        }
    }
    assert!(refuses.asked() > 0, "it was never asked");
}

/// What comes of a stream's body after its head: how it ends.
fn end_of(from: &mut TcpStream, stream: u32) -> std::io::Result<&'static str> {
    loop {
        let mut head = [0; 9];
        from.read_exact(&mut head)?;
        let [_, a, b, kind, flags, number @ ..] = head;
        let mut payload = vec![0; usize::from(u16::from_be_bytes([a, b]))];
        from.read_exact(&mut payload)?;
        match kind {
            DATA if u32::from_be_bytes(number) == stream && flags & END_STREAM != 0 => {
                return Ok("whole");
            }
            RESET if u32::from_be_bytes(number) == stream => return Ok("reset"),
            _ => {}
        }
    }
}

#[test]
fn an_upload_of_which_a_part_was_not_taken_is_not_ended_as_if_it_were_whole() {
    // The last part is read from the client when there is no time any more for the one before it.
    let body = Bytes::from(vec![b'x'; 75_000]);
    for count in [0, 6] {
        let (tell, told) = std::sync::mpsc::channel();
        let origin = RawOrigin2::start(move |to, stream| {
            let head = frame(HEADERS, END_HEADERS, stream, &block(&[(":status", "200")]));
            let part = frame(DATA, 0, stream, b"part");
            to.write_all(&[hints(count, stream), head, part].concat()).expect("it is there");
            tell.send(end_of(to, stream).expect("it ends")).expect("it is awaited");
            false
        });
        let edge = Edge::with(&format!(
            "listeners: [{{name: http, address: \"127.0.0.1:0\", h2c: true}}]\n\
             upstreams: {{app: {{addresses: [\"{}\"], protocol: http2, timeouts: {{write: 300ms}}, pool: {{max_requests: 1}}}}}}\n\
             routes: [{{upstream: app, cache: off}}]\n",
            origin.address
        ));
        for turn in 0..8 {
            let mut wire = edge.wire();
            wire.ask("POST", "edge.test", "/a", &[], &body);
            let end = told.recv_timeout(PATIENCE).expect("the origin hears of it");
            assert_eq!(end, "reset", "{count} interim responses, {turn}");
        }
    }
}
