//! Clients are made to come over TLS: `to_https` and `hsts`.

use crate::harness::Edge;
use crate::harness::Origin;
use crate::harness::Wire;
use crate::harness::http2;
use crate::harness::ok;

const HSTS: &str = "strict-transport-security";
const YEAR: &str = "max-age=31536000";

const ROUTES: &str = "
  - {match: {path_prefix: /cached}, upstream: origin, cache: {ttl: 60s}}
  - {match: {path_prefix: /fixed}, respond: {body: hello}}
  - {match: {path_prefix: /own}, respond: {body: hello, headers: {strict-transport-security: max-age=5}}}
  - {match: {path_prefix: /moved}, redirect: {to: /fixed}}
  - {match: {path_prefix: /route}, upstream: origin, headers: {response: {set: {strict-transport-security: max-age=7}}}}
  - {match: {path_prefix: /without}, upstream: origin, cache: {ttl: 60s}, headers: {response: {remove: [strict-transport-security]}}}
  - {match: {path_prefix: /down}, upstream: nobody}
  - {match: {path_prefix: /passed}, upstream: origin, cache: off}
  - {match: {path_prefix: /unreachable}, upstream: nobody, cache: off}
";

/// An address that nobody listens on.
fn nobody() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback can be listened on");
    listener.local_addr().expect("a bound socket has an address").to_string()
}

fn config(origin: &Origin, http: &str, https: &str) -> String {
    format!(
        "listeners:\n  - {{name: http, address: \"127.0.0.1:0\", h2c: true{http}}}\n  \
         - {{name: https, address: \"127.0.0.1:0\"{https}, tls: {{certificates: [{{hosts: [edge.test], internal: true}}]}}}}\n\
         upstreams: {{origin: {{addresses: [\"{}\"]}}, nobody: {{addresses: [\"{}\"], breaker: off}}}}\n\
         routes:{ROUTES}",
        origin.address,
        nobody()
    )
}

/// What an origin says of it itself, which does not count.
fn origin() -> Origin {
    Origin::always(ok("hello").field("Strict-Transport-Security", "max-age=1; preload"))
}

/// A target, and the status and the field of the answer.
const ANSWERS: [(&str, u16, Option<&str>); 12] = [
    ("/cached", 200, Some(YEAR)),
    // From the store, by the short way.
    ("/cached", 200, Some(YEAR)),
    ("/passed", 200, Some(YEAR)),
    ("/fixed", 200, Some(YEAR)),
    ("/own", 200, Some("max-age=5")),
    ("/moved", 308, Some(YEAR)),
    ("/route", 200, Some("max-age=7")),
    ("/without", 200, None),
    ("/without", 200, None),
    ("/down", 502, Some(YEAR)),
    ("/unreachable", 502, Some(YEAR)),
    ("/nothing", 404, Some(YEAR)),
];

#[test]
fn every_answer_over_tls_tells_browsers_to_come_by_nothing_else() {
    let origin = origin();
    let edge = Edge::with(&config(&origin, "", ", hsts: on"));
    let to = edge.address("https");
    for (target, status, told) in ANSWERS {
        let mut wire =
            Wire::tls(to, "edge.test", &edge.root(), &["http/1.1"]).expect("it is shown");
        let reply = wire.get("edge.test", target, &[]);
        reply.expect_status(status);
        assert_eq!(reply.values(HSTS), told.into_iter().collect::<Vec<_>>(), "{target}: {reply:?}");
    }
    let mut wire = Wire::tls(to, "edge.test", &edge.root(), &["http/1.1"]).expect("it is shown");
    let part = wire.get("edge.test", "/cached", &[("Range", "bytes=0-1")]);
    assert_eq!(part.expect_status(206).expect_hit().value(HSTS), Some(YEAR));
    let twice = wire.get("edge.test", "/cached", &[]);
    assert_eq!(twice.expect_hit().values(HSTS), [YEAR]);

    http2::run(async {
        let mut h2 = http2::tls(to, "edge.test", &edge.root()).await;
        for (target, status, told) in ANSWERS {
            let uri = format!("https://edge.test{}", target.replace("/cached", "/cached/2"));
            let reply = http2::get(&mut h2, &uri, &[]).await.unwrap();
            let values = reply.headers.get_all(HSTS).iter();
            let values: Vec<_> =
                values.map(|value| value.to_str().expect("visible text")).collect();
            assert_eq!((reply.status, values), (status, told.into_iter().collect()), "{target}");
        }
        let twice = http2::get(&mut h2, "https://edge.test/cached/2", &[]).await.unwrap();
        assert_eq!((twice.value("x-cache"), twice.value(HSTS)), (Some("HIT"), Some(YEAR)));
    });
}

#[test]
fn plain_text_tells_nothing_and_shares_what_is_stored() {
    let origin = Origin::always(ok("hello"));
    let edge = Edge::with(&config(
        &origin,
        "",
        ", hsts: {max_age: 365d, subdomains: true, preload: true}",
    ));
    let mut wire =
        Wire::tls(edge.address("https"), "edge.test", &edge.root(), &[]).expect("it is shown");
    let long = "max-age=31536000; includeSubDomains; preload";
    assert_eq!(wire.get("edge.test", "/cached", &[]).value(HSTS), Some(long));
    for target in ["/cached", "/cached", "/fixed", "/down", "/passed", "/nothing"] {
        let reply = edge.get(target);
        assert_eq!(reply.value(HSTS), None, "{target}: {reply:?}");
    }
}

#[test]
fn every_request_by_plain_text_is_sent_to_https() {
    let origin = origin();
    let edge = Edge::with(&config(&origin, ", to_https: on", ""));
    let mut wire = edge.wire();
    for (method, target, to) in [
        ("GET", "/cached?a=b&c", "https://edge.test/cached?a=b&c"),
        ("HEAD", "/passed", "https://edge.test/passed"),
        ("POST", "/nothing", "https://edge.test/nothing"),
        ("PURGE", "/cached", "https://edge.test/cached"),
        ("OPTIONS", "*", "https://edge.test/"),
        (
            "GET",
            "/.well-known/acme-challenge/unknown",
            "https://edge.test/.well-known/acme-challenge/unknown",
        ),
    ] {
        let reply = wire.request(method, "edge.test:8080", target, &[], b"");
        assert_eq!(reply.expect_status(308).value("location"), Some(to), "{method}: {reply:?}");
        assert_eq!(reply.value(HSTS), None);
    }
    http2::run(async {
        let mut h2 = http2::plain(edge.address("http")).await;
        let reply = http2::get(&mut h2, "http://edge.test/cached?a", &[]).await.unwrap();
        assert_eq!(
            (reply.status, reply.value("location")),
            (308, Some("https://edge.test/cached?a"))
        );
    });
    assert!(origin.seen().is_empty(), "nothing of it reached the origin");
    wire.send("GET /a b HTTP/1.1\r\nHost: edge.test\r\n\r\n").reply().expect_status(400);
    Wire::tls(edge.address("https"), "edge.test", &edge.root(), &[])
        .expect("it is shown")
        .get("edge.test", "/cached", &[])
        .expect_status(200);
}

#[test]
fn what_is_stored_is_not_served_by_plain_text_and_a_reload_counts_at_once() {
    let origin = origin();
    let plain = config(&origin, "", "");
    let edge = Edge::with(&plain);
    let mut wire = edge.wire();
    wire.get("edge.test", "/cached", &[]).expect_miss();
    wire.get("edge.test", "/cached", &[]).expect_hit();
    edge.write(&config(&origin, ", to_https: {port: 8443}", ", hsts: on"))
        .reload()
        .expect_status(200);
    let moved = wire.get("edge.test", "/cached", &[]);
    let to = moved.expect_status(308).value("location");
    assert_eq!(to, Some("https://edge.test:8443/cached"), "{moved:?}");
    edge.write(&plain).reload().expect_status(200);
    wire.get("edge.test", "/cached", &[]).expect_hit();
}

#[test]
fn who_came_over_tls_to_a_trusted_proxy_is_not_sent_in_circles() {
    let origin = origin();
    let yaml = config(&origin, ", to_https: on", "") + "trusted_proxies: [127.0.0.1]\n";
    let edge = Edge::with(&yaml);
    let secure = [("X-Forwarded-For", "192.0.2.1"), ("X-Forwarded-Proto", "https")];
    edge.get_with("/fixed", &secure).expect_status(200);
    let plain = [("X-Forwarded-For", "192.0.2.1"), ("X-Forwarded-Proto", "http")];
    edge.get_with("/fixed", &plain).expect_status(308);
    edge.get("/fixed").expect_status(308);
}
