//! What is passed through for a client of HTTP/2, which has to be shown the same as on the long way.

use std::io::Read;
use std::io::Write;
use std::sync::Mutex;
use std::sync::mpsc;
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use http::HeaderMap;
use http::Request;

use super::through::OF_ONE_ANSWER;
use super::through::THE_LONG_WAY;
use super::through::bad_answers;
use super::through::good_answers;
use super::through::heard;
use super::through::uncached;
use super::through::uncached_with;
use crate::harness::Edge;
use crate::harness::Origin;
use crate::harness::Respond;
use crate::harness::http2;
use crate::harness::http2::Reply2;
use crate::harness::ok;

pub(super) async fn connect(edge: &Edge) -> SendRequest<Bytes> {
    http2::plain(edge.address("http")).await
}

/// Fields of a head.
type Fields = Vec<(String, String)>;

/// What a client sees of a reply.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Shown {
    interim: Vec<(u16, Fields)>,
    status: u16,
    fields: Fields,
    body: Vec<u8>,
    trailers: Option<Fields>,
}

impl Shown {
    /// The same without what came ahead of it.
    pub(super) fn without_hints(self) -> Self {
        Self { interim: Vec::new(), ..self }
    }
}

fn fields(of: &HeaderMap) -> Fields {
    let mut fields: Vec<_> = of
        .iter()
        .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into()))
        .filter(|(name, _): &(String, String)| !OF_ONE_ANSWER.contains(&name.as_str()))
        .collect();
    fields.sort();
    fields
}

/// What a client sees of a reply; `None`: the stream was reset.
pub(super) fn shown(reply: &Result<Reply2, h2::Error>) -> Option<Shown> {
    let reply = reply.as_ref().ok()?;
    Some(Shown {
        interim: reply.interim.iter().map(|(status, head)| (*status, fields(head))).collect(),
        status: reply.status,
        fields: fields(&reply.headers),
        body: reply.body.clone(),
        trailers: reply.trailers.as_ref().map(fields),
    })
}

pub(super) async fn both_ways(
    edge: &Edge,
    fields: &[(&str, &str)],
) -> [Result<Reply2, h2::Error>; 2] {
    let mut client = connect(edge).await;
    let through = http2::get(&mut client, "http://edge.test/a?b=c", fields).await;
    let with = [fields, &[THE_LONG_WAY]].concat();
    [through, http2::get(&mut client, "http://edge.test/a?b=c", &with).await]
}

#[test]
fn good_answers_are_the_same_both_ways() {
    http2::run(async {
        for answer in good_answers() {
            let told = answer.chars().take(300).collect::<String>();
            let origin = Origin::always(Respond::raw(answer));
            let [through, long] = both_ways(&uncached(&origin), &[]).await;
            assert!(through.is_ok(), "{told}: {through:?}");
            assert_eq!(shown(&through), shown(&long), "{told}");
        }
    });
}

#[test]
fn bad_answers_are_refused_or_reset() {
    http2::run(async {
        for answer in bad_answers() {
            let told = answer.chars().take(300).collect::<String>();
            let origin = Origin::always(Respond::raw(answer));
            let [through, long] = both_ways(&uncached(&origin), &[]).await;
            for reply in [&through, &long] {
                assert!(
                    reply.as_ref().map_or(true, |reply| reply.status == 502),
                    "{told}: {reply:?}"
                );
            }
            if through.is_ok() && long.is_ok() {
                assert_eq!(shown(&through), shown(&long), "{told}");
            }
        }
    });
}

#[test]
fn the_origin_sees_the_same_both_ways() {
    http2::run(async {
        let origin = Origin::always(ok("x"));
        let edge = uncached(&origin);
        let cases: &[&[(&str, &str)]] = &[
            &[],
            &[("user-agent", "test"), ("x-custom", "a"), ("x-custom", "b"), ("te", "trailers")],
            &[("cookie", "a=1"), ("cookie", "b=2"), ("accept-encoding", "gzip, br;q=0.5")],
            &[("x-forwarded-for", "192.0.2.1"), ("forwarded", "for=192.0.2.1"), ("via", "1.1 o")],
            &[("authorization", "Basic eDp5"), ("cache-control", "no-cache"), ("x-empty", "")],
        ];
        for fields in cases {
            let [through, long] = both_ways(&edge, fields).await;
            assert_eq!(shown(&through), shown(&long), "{fields:?}");
            let seen = origin.seen();
            let [.., through, long] = &seen[..] else { panic!("two requests were made") };
            assert_eq!(heard(through), heard(long), "{fields:?}");
        }
    });
}

#[test]
fn what_comes_is_passed_on_before_the_rest_is_there() {
    let (go, gate) = mpsc::channel();
    let gate = Mutex::new(gate);
    let origin = Origin::script()
        .take_over("/", move |_, mut stream| {
            for part in ["HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n", "half", "rest"] {
                stream.write_all(part.as_bytes()).expect("edgeproxy listens");
                if part != "rest" {
                    gate.lock().expect("nobody panics here").recv().expect("the test goes on");
                }
            }
        })
        .start();
    let edge = uncached(&origin);
    http2::run(async {
        let mut client = connect(&edge).await.ready().await.expect("a connection");
        let request = Request::get("http://edge.test/").body(()).expect("a request");
        let (response, _) = client.send_request(request, true).expect("it is sent");
        let mut body = response.await.expect("a header before any body").into_body();
        go.send(()).expect("the origin waits");
        let first = body.data().await.expect("a part").expect("it is whole");
        assert_eq!(first, "half");
        go.send(()).expect("the origin waits");
        assert_eq!(body.data().await.expect("a part").expect("it is whole"), "rest");
        assert!(body.is_end_stream() || body.data().await.is_none());
    });
}

#[test]
fn a_client_that_gives_its_stream_up_takes_its_request_with_it() {
    let (gone, is_gone) = mpsc::channel();
    let (asked, was_asked) = mpsc::channel();
    let (gone, asked) = (Mutex::new(gone), Mutex::new(asked));
    let origin = Origin::script()
        .take_over("/stay", move |_, mut stream| {
            asked.lock().expect("nobody panics here").send(()).expect("the test waits");
            let end = stream.read(&mut [0; 16]);
            gone.lock().expect("nobody panics here").send(end.is_ok()).expect("the test waits");
        })
        .otherwise(|_| ok("well"))
        .start();
    let edge = uncached(&origin);
    http2::run(async {
        let mut client = connect(&edge).await.ready().await.expect("a connection");
        let request = Request::get("http://edge.test/stay").body(()).expect("a request");
        let (response, mut stream) = client.send_request(request, true).expect("it is sent");
        was_asked.recv().expect("the origin is asked");
        stream.send_reset(h2::Reason::CANCEL);
        drop(response);
        is_gone.recv_timeout(Duration::from_secs(10)).expect("the origin is left");
        // The others of its connection go on.
        let other = http2::get(&mut client, "http://edge.test/", &[]).await.expect("a reply");
        assert_eq!(other.body, b"well");
    });
    edge.wait_for_access("\"uri\":\"/stay\"");
}

#[test]
fn deadlines_hold() {
    for (said, status) in
        [("", Some(504)), ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nsome", None)]
    {
        let origin = Origin::script()
            .take_over("/", move |_, mut stream| {
                let _ = stream.write_all(said.as_bytes());
                let _ = stream.read_to_end(&mut Vec::new());
            })
            .start();
        let edge = uncached_with(&origin, "    timeouts: {read: 300ms}\n");
        http2::run(async {
            let mut client = connect(&edge).await;
            let reply = http2::get(&mut client, "http://edge.test/", &[]).await;
            assert_eq!(reply.ok().map(|reply| reply.status), status, "{said:?}");
        });
    }
}

#[test]
fn large_bodies_arrive_as_they_were_sent_on_many_streams() {
    let body: Vec<u8> = (0..1_000_000_u32).map(|n| (n % 251) as u8).collect();
    let sent = body.clone();
    let origin = Origin::always(ok(sent));
    let edge = uncached(&origin);
    http2::run(async {
        let client = connect(&edge).await;
        let all = (0..16).map(|n| {
            let mut client = client.clone();
            async move { http2::get(&mut client, &format!("http://edge.test/{n}"), &[]).await }
        });
        for reply in futures_util::future::join_all(all).await {
            let reply = reply.expect("it is whole");
            assert!(reply.status == 200 && reply.body == body);
        }
    });
}
