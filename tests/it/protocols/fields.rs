//! What origins and clients are told in fields: who the client is, ids, traces, and what ends here.

use crate::harness::Edge;
use crate::harness::Origin;
use crate::harness::Wire;
use crate::harness::edge::simple;
use crate::harness::http2;
use crate::harness::ok;
use crate::protocols::secure;

const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

fn trusting(origin: &Origin) -> Edge {
    Edge::with(&simple(origin, "trusted_proxies: [\"127.0.0.0/8\"]"))
}

#[test]
fn the_origin_is_told_who_asks_and_how() {
    let origin = Origin::always(ok("x"));
    let edge = Edge::to(&origin);

    edge.get("/");

    let seen = &origin.seen()[0];
    assert_eq!(seen.values("x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(seen.values("x-forwarded-proto"), ["http"]);
    assert_eq!(seen.values("x-forwarded-host"), ["edge.test"]);
    assert_eq!(seen.values("x-real-ip"), ["127.0.0.1"]);
    assert_eq!(seen.values("forwarded"), ["for=127.0.0.1;host=edge.test;proto=http"]);
    assert_eq!(seen.values("via"), ["1.1 edgeproxy"]);
}

#[test]
fn what_strangers_claim_is_replaced() {
    let origin = Origin::always(ok("x"));
    let edge = Edge::to(&origin);

    edge.get_with(
        "/",
        &[
            ("X-Forwarded-For", "10.9.9.9"),
            ("X-Forwarded-For", "10.8.8.8"),
            ("X-Forwarded-Proto", "https"),
            ("X-Forwarded-Host", "evil.test"),
            ("X-Forwarded-Port", "443"),
            ("X-Real-IP", "10.9.9.9"),
            ("Forwarded", "for=10.9.9.9;proto=https"),
            ("True-Client-IP", "10.9.9.9"),
            ("CF-Connecting-IP", "10.9.9.9"),
            ("X_Forwarded_For", "10.9.9.9"),
        ],
    );

    let seen = &origin.seen()[0];
    assert_eq!(seen.values("x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(seen.values("x-forwarded-proto"), ["http"]);
    assert_eq!(seen.values("x-forwarded-host"), ["edge.test"]);
    assert_eq!(seen.values("x-real-ip"), ["127.0.0.1"]);
    assert_eq!(seen.values("forwarded"), ["for=127.0.0.1;host=edge.test;proto=http"]);
    for claim in ["true-client-ip", "cf-connecting-ip", "x_forwarded_for"] {
        assert_eq!(seen.value(claim), None, "{seen:?}");
    }
}

#[test]
fn trusted_proxies_are_believed() {
    let origin = Origin::always(ok("x"));
    let edge = trusting(&origin);

    edge.get_with(
        "/",
        &[("X-Forwarded-For", "1.1.1.1, 203.0.113.7, 127.0.0.9"), ("X-Forwarded-Proto", "https")],
    );

    let seen = &origin.seen()[0];
    // What stands beyond the first address that is no proxy of ours is that address's own claim.
    assert_eq!(seen.values("x-forwarded-for"), ["203.0.113.7, 127.0.0.9, 127.0.0.1"]);
    assert_eq!(seen.values("x-real-ip"), ["203.0.113.7"]);
    assert_eq!(seen.values("x-forwarded-proto"), ["https"]);
    let line = edge.wait_for_access("203.0.113.7");
    assert!(line.contains("\"client\":\"203.0.113.7\""), "{line}");
}

#[test]
fn via_grows_in_both_directions() {
    let origin = Origin::always(ok("x").field("Via", "1.1 cdn"));
    let edge = Edge::to(&origin);

    let reply = edge.get_with("/", &[("Via", "1.0 office")]);

    assert_eq!(origin.seen()[0].values("via"), ["1.0 office, 1.1 edgeproxy"]);
    assert_eq!(reply.values("via"), ["1.1 cdn, 1.1 edgeproxy"]);
}

#[test]
fn a_request_in_circles_ends() {
    let origin = Origin::always(ok("x"));
    let edge = Edge::to(&origin);
    let passes = |n: usize| vec!["1.1 edgeproxy"; n].join(", ");

    edge.get_with("/", &[("Via", &passes(8))]).expect_status(200);
    edge.get_with("/", &[("Via", &passes(9))]).expect_status(508);

    assert_eq!(origin.seen().len(), 1);
}

#[test]
fn a_request_gets_an_id_that_origin_client_and_log_share() {
    let origin = Origin::always(ok("x"));
    let edge = Edge::to(&origin);

    let reply = edge.get("/");

    let id = reply.value("x-request-id").expect("there is an id").to_owned();
    assert_eq!(origin.seen()[0].values("x-request-id"), [id.as_str()]);
    edge.wait_for_access(&id);
    let other = edge.get("/");
    assert_ne!(other.value("x-request-id"), Some(id.as_str()));
}

#[test]
fn an_acceptable_id_is_taken() {
    let origin = Origin::always(ok("x"));
    let edge = Edge::to(&origin);

    let reply = edge.get_with("/", &[("X-Request-ID", "abc-123_X.9")]);

    assert_eq!(reply.values("x-request-id"), ["abc-123_X.9"]);
    assert_eq!(origin.seen()[0].values("x-request-id"), ["abc-123_X.9"]);
}

#[test]
fn an_id_that_could_do_harm_is_replaced() {
    let origin = Origin::always(ok("x"));
    let edge = Edge::to(&origin);
    let long = "a".repeat(129);

    for bad in ["a b", "a\"b", "", "<x>", &long] {
        let reply = edge.get_with("/", &[("X-Request-ID", bad)]);
        let id = reply.value("x-request-id").expect("there is an id").to_owned();
        assert_ne!(id, bad);
        let seen = origin.seen();
        assert_eq!(seen.last().map(|seen| seen.values("x-request-id")), Some(vec![id.as_str()]));
    }
}

#[test]
fn an_origin_cannot_change_the_id() {
    let origin = Origin::always(ok("x").field("X-Request-ID", "mine"));
    let edge = Edge::to(&origin);

    let reply = edge.get_with("/", &[("X-Request-ID", "yours")]);

    assert_eq!(reply.values("x-request-id"), ["yours"]);
}

#[test]
fn a_hit_has_the_id_of_its_own_request() {
    let edge = Edge::to(&Origin::always(ok("x").field("Cache-Control", "max-age=60")));
    edge.get_with("/", &[("X-Request-ID", "first")]).expect_miss();

    let hit = edge.get_with("/", &[("X-Request-ID", "second")]);

    hit.expect_hit();
    assert_eq!(hit.values("x-request-id"), ["second"]);
    assert_eq!(hit.values("via"), ["1.1 edgeproxy"]);
}

#[test]
fn a_valid_trace_is_passed_on() {
    let origin = Origin::always(ok("x"));
    let edge = Edge::to(&origin);

    edge.get_with("/", &[("traceparent", TRACE), ("tracestate", "vendor=1")]);

    let seen = &origin.seen()[0];
    assert_eq!(seen.values("traceparent"), [TRACE]);
    assert_eq!(seen.values("tracestate"), ["vendor=1"]);
}

#[test]
fn a_malformed_trace_is_dropped() {
    let origin = Origin::always(ok("x"));
    let edge = Edge::to(&origin);
    let zero = "00-00000000000000000000000000000000-00f067aa0ba902b7-01";

    for bad in ["nonsense", zero, &TRACE.to_uppercase()] {
        edge.get_with("/", &[("traceparent", bad), ("tracestate", "vendor=1")]).expect_status(200);
    }
    edge.get_with("/", &[("traceparent", TRACE), ("traceparent", TRACE)]).expect_status(200);
    edge.get_with("/", &[("tracestate", "vendor=1")]).expect_status(200);

    for seen in origin.seen() {
        assert_eq!((seen.value("traceparent"), seen.value("tracestate")), (None, None));
    }
}

#[test]
fn header_rules_change_both_directions() {
    let origin = Origin::always(ok("x").field("Server", "origin/1").field("X-Old", "1"));
    let edge = Edge::with(&format!(
        "listeners:\n  - {{name: http, address: \"127.0.0.1:0\"}}\n\
         upstreams:\n  origin: {{addresses: [\"{}\"]}}\n\
         routes:\n  - upstream: origin\n    headers:\n\
         \x20     request: {{set: {{X-Set: new}}, add: {{X-Add: two}}, remove: [X-Gone]}}\n\
         \x20     response: {{set: {{X-Old: \"2\"}}, add: {{Vary: Accept}}, remove: [Server]}}\n",
        origin.address
    ));

    let reply =
        edge.get_with("/", &[("X-Set", "old"), ("X-Add", "one"), ("X-Gone", "1"), ("X-Kept", "1")]);

    let seen = &origin.seen()[0];
    assert_eq!(seen.values("x-set"), ["new"]);
    assert_eq!(seen.values("x-add"), ["one", "two"]);
    assert_eq!(seen.values("x-gone"), Vec::<&str>::new());
    assert_eq!(seen.values("x-kept"), ["1"]);
    assert_eq!(reply.values("x-old"), ["2"]);
    assert_eq!(reply.values("vary"), ["Accept"]);
    assert_eq!(reply.values("server"), Vec::<&str>::new());
}

#[test]
fn fields_for_one_hop_end_here() {
    let origin = Origin::always(
        ok("x")
            .field("Connection", "X-Hop")
            .field("X-Hop", "1")
            .field("Keep-Alive", "timeout=5")
            .field("Proxy-Authenticate", "Basic")
            .field("X-Kept", "1"),
    );
    let edge = Edge::to(&origin);

    let reply = edge.get_with(
        "/",
        &[
            ("Connection", "X-Mine, keep-alive"),
            ("X-Mine", "1"),
            ("Keep-Alive", "timeout=5"),
            ("TE", "trailers"),
            ("Proxy-Authorization", "Basic eA=="),
            ("Upgrade", "h2c"),
            ("X-Kept", "1"),
        ],
    );

    let seen = &origin.seen()[0];
    for name in ["x-mine", "keep-alive", "te", "proxy-authorization", "upgrade"] {
        assert_eq!(seen.value(name), None, "{seen:?}");
    }
    assert_eq!(seen.value("x-kept"), Some("1"));
    for name in ["x-hop", "keep-alive", "proxy-authenticate"] {
        assert_eq!(reply.value(name), None, "{reply:?}");
    }
    assert_eq!(reply.value("x-kept"), Some("1"));
}

#[test]
fn fields_for_one_hop_are_not_stored() {
    let origin = Origin::always(
        ok("x")
            .field("Cache-Control", "max-age=60")
            .field("Connection", "X-Hop")
            .field("X-Hop", "1")
            .field("Keep-Alive", "timeout=5")
            .field("Proxy-Authenticate", "Basic"),
    );
    let edge = Edge::to(&origin);
    edge.get("/").expect_miss();

    let hit = edge.get("/");

    hit.expect_hit();
    for name in ["x-hop", "keep-alive", "proxy-authenticate"] {
        assert_eq!(hit.value(name), None, "{hit:?}");
    }
}

#[test]
fn a_request_that_wants_essential_fields_removed_is_refused() {
    let origin = Origin::always(ok("x"));
    let edge = Edge::to(&origin);

    edge.get_with("/", &[("Connection", "Authorization")]).expect_status(400);

    assert!(origin.seen().is_empty());
}

#[test]
fn via_of_a_hit_has_the_version_of_the_origin_and_not_the_clients() {
    let origin = Origin::always(ok("x").field("Cache-Control", "max-age=60"));
    let tls = "{certificates: [{hosts: [edge.test], internal: true}]}";
    let edge = Edge::with(&secure(&origin, tls));

    let replies = http2::run(async {
        let mut h2 = http2::tls(edge.address("https"), "edge.test", &edge.root()).await;
        let first = http2::get(&mut h2, "https://edge.test/", &[]).await.unwrap();
        [first, http2::get(&mut h2, "https://edge.test/", &[]).await.unwrap()]
    });

    for (reply, outcome) in replies.iter().zip(["MISS", "HIT"]) {
        assert_eq!(reply.value("x-cache"), Some(outcome));
        assert_eq!(reply.value("via"), Some("1.1 edgeproxy"));
    }
}

#[test]
fn http_2_is_told_of_like_http_1() {
    let origin = Origin::always(ok("x"));
    let tls = "{certificates: [{hosts: [edge.test], internal: true}]}";
    let edge = Edge::with(&secure(&origin, tls));

    let reply = http2::run(async {
        let mut h2 = http2::tls(edge.address("https"), "edge.test", &edge.root()).await;
        let fields = [("x-forwarded-for", "10.9.9.9"), ("te", "trailers")];
        http2::get(&mut h2, "https://edge.test/", &fields).await.unwrap()
    });

    let seen = &origin.seen()[0];
    assert_eq!(seen.values("x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(seen.values("x-forwarded-proto"), ["https"]);
    assert_eq!(seen.values("x-forwarded-host"), ["edge.test"]);
    assert_eq!(seen.values("forwarded"), ["for=127.0.0.1;host=edge.test;proto=https"]);
    assert_eq!(seen.values("via"), ["2 edgeproxy"]);
    assert_eq!(seen.values("te"), Vec::<&str>::new());
    assert_eq!(seen.value("x-request-id"), reply.value("x-request-id"));
    assert!(reply.value("x-request-id").is_some());
}

#[test]
fn the_host_that_was_asked_for_is_told_when_another_is_sent() {
    let origin = Origin::always(ok("x"));
    let edge = super::edge_to(&format!("addresses: [\"{}\"], host: inside.test", origin.address));

    Wire::plain(edge.address("http")).get("Edge.Test:80", "/", &[]).expect_status(200);

    let seen = &origin.seen()[0];
    assert_eq!(seen.values("host"), ["inside.test"]);
    assert_eq!(seen.values("x-forwarded-host"), ["edge.test"]);
}

/// A request whose fields some origins cannot tell from others.
const TWINS: [(&str, &str); 3] = [("X_Tenant", "evil"), ("X_Gateway", "evil"), ("x_odd", "1")];

#[test]
fn fields_with_underscores_do_not_stand_in_for_what_the_route_checks() {
    let origin = Origin::always(ok("x"));
    let yaml = simple(&origin, "").replace(
        "upstream: origin}",
        "upstream: origin, cache: {ttl: 1m, key: {headers: [x-tenant]}}, \
         headers: {request: {set: {x-gateway: ours}}}}",
    );
    let edge = Edge::with(&yaml);
    edge.get_with("/", &TWINS).expect_status(200);
    let seen = &origin.seen()[0];
    for (name, _) in TWINS {
        assert_eq!(seen.value(name), None, "{name}");
    }
    assert_eq!(seen.value("x-gateway"), Some("ours"));
}

#[test]
fn fields_with_underscores_pass_where_the_route_says_so() {
    let origin = Origin::always(ok("x"));
    let yaml = simple(&origin, "")
        .replace("upstream: origin}", "upstream: origin, headers: {underscores: pass}}");
    let edge = Edge::with(&yaml);
    edge.get_with("/", &[("x_odd", "1"), ("X_Forwarded_For", "192.0.2.1")]).expect_status(200);
    let seen = &origin.seen()[0];
    assert_eq!(seen.value("x_odd"), Some("1"));
    // That one stands in for what we write.
    assert_eq!(seen.value("x_forwarded_for"), None);
}

#[test]
fn max_forwards_counts_down_and_ends_here() {
    let origin = Origin::always(ok("the origin's"));
    let edge = Edge::to(&origin);
    for (field, status, asked) in [("5", 200, 1), ("0", 204, 1), ("many", 200, 2)] {
        let mut wire = edge.wire();
        wire.send(format!(
            "OPTIONS /a HTTP/1.1\r\nHost: edge.test\r\nMax-Forwards: {field}\r\n\r\n"
        ));
        let reply = wire.any_reply("OPTIONS").expect("a reply");
        assert_eq!((reply.status, origin.seen().len()), (status, asked), "{field}");
        assert_eq!(reply.value("allow").is_some(), status == 204, "{field}");
    }
    assert_eq!(origin.seen()[0].value("max-forwards"), Some("4"));
}
