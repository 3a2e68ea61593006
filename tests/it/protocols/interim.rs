//! Interim responses: 100 Continue is ours, 103 Early Hints the origin's.

use std::future::poll_fn;
use std::io::Write;
use std::sync::Arc;
use std::sync::mpsc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http::Response;
use tokio::sync::Notify;

use crate::harness::Edge;
use crate::harness::Origin;
use crate::harness::Origin2;
use crate::harness::Respond;
use crate::harness::edge::simple;
use crate::harness::http2;
use crate::harness::ok;
use crate::harness::origin2::Call;

#[test]
fn an_expectation_is_met_once_the_request_is_admitted() {
    let origin = Origin::script().otherwise(|seen| ok(seen.body.clone())).start();
    let edge = Edge::to(&origin);
    let mut wire = edge.wire();

    wire.send(
        "POST / HTTP/1.1\r\nHost: edge.test\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n",
    );
    assert_eq!(wire.any_reply("POST").map(|interim| interim.status), Some(100));
    assert!(origin.seen().is_empty(), "the origin was asked before there was a body");
    wire.send("hello");

    wire.reply().expect_status(200).expect_body("hello");
    assert_eq!(origin.seen()[0].value("expect"), None);
}

#[test]
fn an_expectation_is_met_once_only() {
    let edge = Edge::to(&Origin::script().otherwise(|seen| ok(seen.body.clone())).start());
    let mut wire = edge.wire();

    wire.send(
        "POST / HTTP/1.1\r\nHost: edge.test\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n",
    );
    assert_eq!(wire.any_reply("POST").map(|interim| interim.status), Some(100));
    wire.send("hello");
    assert_eq!(wire.any_reply("POST").map(|reply| reply.status), Some(200));

    wire.get("edge.test", "/", &[]).expect_status(200);
}

#[test]
fn another_expectation_fails() {
    let origin = Origin::always(ok("x"));
    let edge = Edge::to(&origin);
    let mut wire = edge.wire();

    wire.send("POST / HTTP/1.1\r\nHost: edge.test\r\nContent-Length: 5\r\nExpect: magic\r\n\r\n");

    assert_eq!(wire.any_reply("POST").map(|reply| reply.status), Some(417));
    assert!(origin.seen().is_empty());
}

#[test]
fn a_refused_request_is_not_told_to_continue() {
    let origin = Origin::always(ok("x"));
    let edge = Edge::with(&format!(
        "listeners:\n  - {{name: http, address: \"127.0.0.1:0\"}}\n\
         upstreams:\n  origin: {{addresses: [\"{}\"]}}\n\
         routes:\n  - {{match: {{path_prefix: /api}}, upstream: origin, max_body: 1KiB}}\n",
        origin.address
    ));

    let expecting = |line: &str, length: u32| {
        let mut wire = edge.wire();
        wire.send(format!(
            "{line} HTTP/1.1\r\nHost: edge.test\r\nContent-Length: {length}\r\n\
             Expect: 100-continue\r\n\r\n"
        ));
        wire.any_reply("POST").map(|reply| reply.status)
    };
    assert_eq!(expecting("POST /nowhere", 5), Some(404));
    assert_eq!(expecting("POST /api", 1025), Some(413));
    assert_eq!(expecting("TRACE /api", 5), Some(405));
    assert!(origin.seen().is_empty());
}

#[test]
fn an_expectation_over_http_2_does_not_reach_the_origin() {
    let origin = Origin::script().otherwise(|seen| ok(seen.body.clone())).start();
    let edge = Edge::to(&origin);

    let reply = http2::run(async {
        let mut h2 = http2::plain(edge.address("http")).await;
        let request = Request::post("http://edge.test/").header("expect", "100-continue");
        let request = request.body(()).unwrap();
        http2::exchange(&mut h2, request, Bytes::from_static(b"hello")).await.unwrap()
    });

    assert_eq!((reply.status, &reply.body[..]), (200, &b"hello"[..]));
    assert_eq!(origin.seen()[0].value("expect"), None);
}

fn with_hints(cache_control: &str) -> Origin {
    Origin::always(Respond::raw(format!(
        "HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n\
         HTTP/1.1 200 OK\r\nCache-Control: {cache_control}\r\nContent-Length: 5\r\n\r\nhello"
    )))
}

#[test]
fn early_hints_pass_when_nothing_may_be_stored() {
    let edge = Edge::with(&simple(&with_hints("no-store"), "defaults: {cache: off}"));
    let mut wire = edge.wire();

    wire.send("GET / HTTP/1.1\r\nHost: edge.test\r\n\r\n");

    let hints = wire.any_reply("GET").unwrap();
    assert_eq!(hints.status, 103, "{hints:?}");
    assert_eq!(hints.value("link"), Some("</style.css>; rel=preload"));
    wire.reply().expect_status(200).expect_body("hello");
}

#[test]
fn early_hints_pass_and_what_follows_them_is_stored() {
    let apart = Origin::script().take_over("/", |_, mut stream| {
        let _ = stream.write_all(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n");
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\n");
        let _ = stream.write_all(b"Content-Length: 5\r\nConnection: close\r\n\r\nhello");
    });
    for origin in [with_hints("max-age=60"), apart.start()] {
        let edge = Edge::to(&origin);
        let mut wire = edge.wire();

        wire.send("GET / HTTP/1.1\r\nHost: edge.test\r\n\r\n");

        let hints = wire.any_reply("GET").unwrap();
        assert_eq!(hints.status, 103, "{hints:?}");
        wire.reply().expect_status(200).expect_miss().expect_body("hello");
        let hit = edge.get("/");
        hit.expect_status(200).expect_hit().expect_body("hello");
        assert_eq!(hit.value("link"), None, "{hit:?}");
        assert_eq!(origin.seen().len(), 1);
    }
}

#[test]
fn early_hints_reach_http_2_in_their_order() {
    let hint = |link: &str| format!("HTTP/1.1 103 Early Hints\r\nLink: <{link}>\r\n\r\n");
    let reply = |kept: &str| {
        format!(
            "{}{}HTTP/1.1 200 OK\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
             Cache-Control: {kept}\r\nContent-Length: 5\r\n\r\nhello",
            hint("/a"),
            hint("/b")
        )
    };
    for (kept, cache) in [("no-store", "off"), ("no-store", "on"), ("max-age=60", "on")] {
        let origin = Origin::always(Respond::raw(reply(kept)));
        let edge = Edge::with(&simple(&origin, &format!("defaults: {{cache: {cache}}}")));

        let reply = http2::run(async {
            let mut h2 = http2::plain(edge.address("http")).await;
            http2::get(&mut h2, "http://edge.test/", &[]).await.unwrap()
        });

        let told = format!("{kept}, {cache}: {reply:?}");
        assert_eq!((reply.status, &reply.body[..]), (200, &b"hello"[..]), "{told}");
        let links: Vec<_> = reply
            .interim
            .iter()
            .map(|(status, fields)| (*status, fields["link"].to_str().unwrap()))
            .collect();
        assert_eq!(links, [(103, "</a>"), (103, "</b>")], "{told}");
        assert_eq!(reply.value("link"), None, "{told}");
        // Nor is the origin's date written over (RFC 9110 §6.6.1).
        assert_eq!(reply.value("date"), Some("Sun, 06 Nov 1994 08:49:37 GMT"), "{told}");
    }
}

#[test]
fn hints_without_end_are_a_fault_of_the_origin() {
    let hint = "HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\n\r\n";
    let mut all = hint.repeat(100);
    all.push_str("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
    let edge = Edge::to(&Origin::always(Respond::raw(all)));

    edge.get("/").expect_status(502);
}

#[test]
fn early_hints_do_not_reach_http_1_0() {
    let origin = with_hints("no-store");
    for more in ["", ", cache: off"] {
        let yaml =
            simple(&origin, "").replace("upstream: origin}", &format!("upstream: origin{more}}}"));
        for request in ["GET /a HTTP/1.0\r\n", "POST /a HTTP/1.0\r\nContent-Length: 0\r\n"] {
            // The origin closes each connection, and says nothing of it: a POST may not meet that.
            let edge = Edge::with(&yaml);
            let mut wire = edge.wire();
            wire.send(format!("{request}Host: edge.test\r\n\r\n"));
            assert_eq!(wire.any_reply("GET").map(|reply| reply.status), Some(200), "{request}");
        }
    }
}

/// A head of HTTP/2 with one field.
fn head(status: u16, name: &str, value: &str) -> Response<()> {
    Response::builder().status(status).header(name, value).body(()).expect("tests write good heads")
}

/// An edge before an origin of HTTP/2.
fn before(origin: &Origin2, route: &str) -> Edge {
    Edge::with(&format!(
        "listeners: [{{name: http, address: \"127.0.0.1:0\", h2c: true}}]\n\
         upstreams:\n  origin: {{addresses: [\"{}\"], protocol: http2, health: off}}\n\
         routes: [{{upstream: origin{route}}}]\n",
        origin.address
    ))
}

/// Which hints come, and what follows them.
async fn hint(call: &mut Call, links: &[&str], kept: &str) {
    for link in links {
        call.answer.send_informational(head(103, "link", link)).expect("the stream is open");
    }
    call.respond(head(200, "cache-control", kept), "hello");
}

#[test]
fn early_hints_of_http_2_origins_pass_to_clients_of_both_versions() {
    for (kept, route) in [("no-store", ", cache: off"), ("no-store", ""), ("max-age=60", "")] {
        let origin = Origin2::start(None, move |mut call| async move {
            hint(&mut call, &["</a>", "</b>"], kept).await;
        });
        let edge = before(&origin, route);
        let told = format!("{kept}{route}");

        for method in ["GET", "POST"] {
            let mut wire = edge.wire();
            wire.send(format!(
                "{method} /1 HTTP/1.1\r\nHost: edge.test\r\nContent-Length: 0\r\n\r\n"
            ));
            for link in ["</a>", "</b>"] {
                let hints = wire.any_reply(method).expect("hints");
                assert_eq!((hints.status, hints.value("link")), (103, Some(link)), "{told}");
            }
            let reply = wire.reply();
            reply.expect_status(200).expect_body("hello");
            assert_eq!(reply.value("link"), None, "{told}: {reply:?}");
        }

        let reply = http2::run(async {
            let mut h2 = http2::plain(edge.address("http")).await;
            http2::get(&mut h2, "http://edge.test/2", &[]).await.expect("a reply")
        });
        assert_eq!((reply.status, &reply.body[..]), (200, &b"hello"[..]), "{told}: {reply:?}");
        let links: Vec<_> = reply
            .interim
            .iter()
            .map(|(status, fields)| (*status, fields["link"].to_str().expect("text")))
            .collect();
        assert_eq!(links, [(103, "</a>"), (103, "</b>")], "{told}");

        let asked = origin.seen().len();
        let again = edge.get("/2");
        again.expect_status(200).expect_body("hello");
        let stored = usize::from(kept != "no-store");
        assert_eq!(origin.seen().len(), asked + 1 - stored, "{told}");
    }
}

#[test]
fn hints_do_not_wait_for_what_follows_them() {
    let seen = Arc::new(Notify::new());
    let origin = Origin2::start(None, {
        let seen = Arc::clone(&seen);
        move |mut call| {
            let seen = Arc::clone(&seen);
            async move {
                let hints = head(103, "link", "</a>");
                call.answer.send_informational(hints).expect("the stream is open");
                seen.notified().await;
                call.respond(head(200, "x", "y"), "hello");
            }
        }
    });
    for route in [", cache: off", ""] {
        let edge = before(&origin, route);
        for method in ["GET", "POST"] {
            let mut wire = edge.wire();
            wire.send(format!(
                "{method} / HTTP/1.1\r\nHost: edge.test\r\nContent-Length: 0\r\n\r\n"
            ));
            assert_eq!(wire.any_reply(method).map(|hints| hints.status), Some(103), "{method}");
            seen.notify_one();
            wire.reply().expect_status(200).expect_body("hello");
        }
    }
}

#[test]
fn early_hints_of_http_2_origins_do_not_reach_http_1_0() {
    let origin = Origin2::start(None, |mut call| async move {
        hint(&mut call, &["</a>"], "no-store").await;
    });
    for route in ["", ", cache: off"] {
        let edge = before(&origin, route);
        for request in ["GET /a HTTP/1.0\r\n", "POST /a HTTP/1.0\r\nContent-Length: 0\r\n"] {
            let mut wire = edge.wire();
            wire.send(format!("{request}Host: edge.test\r\n\r\n"));
            assert_eq!(wire.any_reply("GET").map(|reply| reply.status), Some(200), "{request}");
        }
    }
}

#[test]
fn as_many_hints_pass_over_http_2_as_over_http_1() {
    let asked_for =
        |seen: &str| seen.trim_start_matches('/').parse().expect("tests ask for so many");
    let http1 = Origin::script()
        .otherwise(move |seen| {
            let hints = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
            let last = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
            Respond::raw(format!("{}{last}", hints.repeat(asked_for(seen.target()))))
        })
        .start();
    let http2 = Origin2::start(None, move |mut call| async move {
        let links = vec!["</a>"; asked_for(call.head.uri.path())];
        hint(&mut call, &links, "no-store").await;
    });
    for route in ["", ", cache: off"] {
        let over_http1 = Edge::with(
            &simple(&http1, "").replace("upstream: origin}", &format!("upstream: origin{route}}}")),
        );
        for edge in [over_http1, before(&http2, route)] {
            for method in ["GET", "POST"] {
                for (hints, status) in [(16, 200), (17, 502)] {
                    let request = format!(
                        "{method} /{hints} HTTP/1.1\r\nHost: edge.test\r\nContent-Length: 0\r\n\r\n"
                    );
                    let mut wire = edge.wire();
                    wire.send(request);
                    let mut came = 0;
                    let last = loop {
                        match wire.any_reply(method).expect("a reply") {
                            reply if reply.status == 103 => came += 1,
                            reply => break reply,
                        }
                    };
                    assert_eq!(last.status, status, "{route} {method} {hints}");
                    // A fetch for the cache hands them on as they are taken.
                    let all = status == 200 && (route.contains("off") || method == "POST");
                    assert!(!all || came == 16, "{route} {method} {hints}: {came}");
                }
            }
        }
    }
}

#[test]
fn hints_without_end_are_held_for_nobody_who_does_not_read_them() {
    let (tell, ended) = mpsc::channel();
    let origin = Origin2::start(None, move |mut call| {
        let tell = tell.clone();
        async move {
            // The library has no room of its own for these: whatever leaves here was taken.
            let hints = "x".repeat(30_000);
            let reason = loop {
                let sent = call.answer.send_informational(head(103, "link", &hints));
                let reset = poll_fn(|cx| Poll::Ready(call.answer.poll_reset(cx))).await;
                match reset {
                    Poll::Ready(reason) => break reason.ok(),
                    Poll::Pending if sent.is_err() => break None,
                    Poll::Pending => tokio::time::sleep(Duration::from_millis(1)).await,
                }
            };
            let _ = tell.send(reason);
        }
    });
    for route in ["", ", cache: off"] {
        let edge = before(&origin, route);
        for method in ["GET", "POST"] {
            let mut wire = edge.wire();
            // More is to come of a body than is spooled.
            let (length, sent) = if method == "POST" { (1_000_000, 100_000) } else { (0, 0) };
            wire.send(format!(
                "{method} / HTTP/1.1\r\nHost: edge.test\r\nContent-Length: {length}\r\n\r\n"
            ));
            wire.send(vec![b'x'; sent]);
            let reason = ended.recv_timeout(Duration::from_secs(20));
            assert_eq!(reason, Ok(Some(h2::Reason::CANCEL)), "{route} {method}");
        }
    }
}
