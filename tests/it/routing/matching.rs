//! Hosts, paths, methods and conditions, and which of several routes wins.

use crate::harness::Edge;
use crate::harness::Origin;
use crate::harness::Wire;
use crate::harness::http2;
use crate::harness::ok;
use crate::routing::answer;
use crate::routing::with_routes;

fn edge_of(routes: &[(&str, &str)]) -> Edge {
    let origin = Origin::always(ok(""));
    let routes: String = routes.iter().map(|(name, matches)| answer(name, matches)).collect();
    with_routes(&origin, &routes)
}

/// Who answers; the status where it is none of the routes.
fn who(wire: &mut Wire, host: &str, target: &str, fields: &[(&str, &str)]) -> String {
    let reply = wire.get(host, target, fields);
    if reply.status == 200 { reply.text() } else { reply.status.to_string() }
}

#[test]
fn an_exact_host_before_the_longest_wildcard_before_every_host() {
    let edge = edge_of(&[
        ("any", "{}"),
        ("below", "{hosts: [\"*.a.test\"]}"),
        ("deep", "{hosts: [\"*.b.a.test\"]}"),
        ("exact", "{hosts: [www.a.test, a.test]}"),
    ]);
    let mut wire = edge.wire();
    for (host, name) in [
        ("www.a.test", "exact"),
        ("a.test", "exact"),
        ("x.a.test", "below"),
        ("b.a.test", "below"),
        ("x.b.a.test", "deep"),
        ("x.y.b.a.test", "deep"),
        ("xa.test", "any"),
        ("other.test", "any"),
        ("127.0.0.1", "any"),
        ("[::1]", "any"),
    ] {
        assert_eq!(who(&mut wire, host, "/", &[]), name, "{host}");
    }
}

#[test]
fn hosts_match_in_any_case_with_any_port_and_a_final_dot() {
    let edge = edge_of(&[("exact", "{hosts: [Www.A.test]}"), ("below", "{hosts: [\"*.B.test\"]}")]);
    let mut wire = edge.wire();
    for host in ["www.a.test", "WWW.A.TEST", "www.a.test.", "www.a.test:80", "www.a.test:8443"] {
        assert_eq!(who(&mut wire, host, "/", &[]), "exact", "{host}");
    }
    assert_eq!(who(&mut wire, "X.b.TEST.", "/", &[]), "below");
    assert_eq!(who(&mut wire, "b.test", "/", &[]), "404");
}

#[test]
fn the_host_is_no_wall() {
    let edge = edge_of(&[("here", "{hosts: [a.test], path: /here}"), ("any", "{path_prefix: /x}")]);
    let mut wire = edge.wire();
    assert_eq!(who(&mut wire, "a.test", "/here", &[]), "here");
    assert_eq!(who(&mut wire, "a.test", "/x", &[]), "any");
    assert_eq!(who(&mut wire, "a.test", "/y", &[]), "404");
}

#[test]
fn exact_before_pattern_before_longest_prefix_before_regex_before_any() {
    let edge = edge_of(&[
        ("any", "{}"),
        ("regex", "{path_regex: \"/.*[0-9]\"}"),
        ("short", "{path_prefix: /a}"),
        ("long", "{path_prefix: /a/b}"),
        ("pattern", "{path_pattern: \"/a/b/{id}\"}"),
        ("exact", "{path: /a/b/7}"),
    ]);
    let mut wire = edge.wire();
    for (path, name) in [
        ("/a/b/7", "exact"),
        ("/a/b/8", "pattern"),
        ("/a/b/8/9", "long"),
        ("/a/b", "long"),
        ("/a/bc", "short"),
        ("/a/bc7", "short"),
        ("/a", "short"),
        ("/ab", "any"),
        ("/ab7", "regex"),
        ("/", "any"),
    ] {
        assert_eq!(who(&mut wire, "edge.test", path, &[]), name, "{path}");
    }
}

#[test]
fn a_prefix_ends_where_a_segment_ends() {
    let edge = edge_of(&[("open", "{path_prefix: /api}"), ("below", "{path_prefix: /only/}")]);
    let mut wire = edge.wire();
    for (path, name) in [
        ("/api", "open"),
        ("/api/", "open"),
        ("/api/x", "open"),
        ("/api?x", "open"),
        ("/apix", "404"),
        ("/api;x", "404"),
        ("/only/", "below"),
        ("/only", "404"),
    ] {
        assert_eq!(who(&mut wire, "edge.test", path, &[]), name, "{path}");
    }
}

#[test]
fn a_pattern_takes_whole_segments() {
    let edge = edge_of(&[
        ("one", "{path_pattern: \"/u/{id}\"}"),
        ("rest", "{path_pattern: \"/f/{*rest}\"}"),
    ]);
    let mut wire = edge.wire();
    for (path, name) in [
        ("/u/1", "one"),
        ("/u/", "404"),
        ("/u/1/2", "404"),
        ("/f/", "rest"),
        ("/f/a/b", "rest"),
        ("/f", "404"),
    ] {
        assert_eq!(who(&mut wire, "edge.test", path, &[]), name, "{path}");
    }
}

#[test]
fn a_regular_expression_takes_the_whole_path() {
    let edge = edge_of(&[("regex", "{path_regex: \"/[a-z]+\"}")]);
    let mut wire = edge.wire();
    assert_eq!(who(&mut wire, "edge.test", "/abc", &[]), "regex");
    assert_eq!(who(&mut wire, "edge.test", "/abc1", &[]), "404");
    assert_eq!(who(&mut wire, "edge.test", "/x/abc", &[]), "404");
}

#[test]
fn a_method_that_no_route_takes_is_405_with_those_that_are() {
    let edge = edge_of(&[
        ("reads", "{path: /a, methods: [GET]}"),
        ("writes", "{path: /a, methods: [POST, PUT]}"),
    ]);
    let mut wire = edge.wire();
    assert_eq!(who(&mut wire, "edge.test", "/a", &[]), "reads");
    wire.request("HEAD", "edge.test", "/a", &[], b"").expect_status(200);
    let refused = wire.request("DELETE", "edge.test", "/a", &[], b"");
    refused.expect_status(405);
    let mut allow: Vec<&str> = refused.value("allow").unwrap_or_default().split(", ").collect();
    allow.sort_unstable();
    assert_eq!(allow, ["GET", "HEAD", "POST", "PUT"]);
    wire.request("DELETE", "edge.test", "/b", &[], b"").expect_status(404);
}

#[test]
fn conditions_on_headers_queries_and_cookies() {
    let edge = edge_of(&[
        ("header", "{path: /h, headers: {x-a: {prefix: beta}}}"),
        ("absent", "{path: /n, headers: {x-a: absent}}"),
        ("query", "{path: /q, query: {v: \"2\"}}"),
        ("cookie", "{path: /c, cookies: {user: {regex: \"[0-9]+\"}}}"),
    ]);
    let mut wire = edge.wire();
    let h = |value| [("X-A", value)];
    assert_eq!(who(&mut wire, "edge.test", "/h", &h("beta-1")), "header");
    assert_eq!(who(&mut wire, "edge.test", "/h", &h("alpha")), "404");
    assert_eq!(who(&mut wire, "edge.test", "/h", &[("X-A", "b"), ("X-A", "beta")]), "header");
    assert_eq!(who(&mut wire, "edge.test", "/h", &[]), "404");
    assert_eq!(who(&mut wire, "edge.test", "/n", &[]), "absent");
    assert_eq!(who(&mut wire, "edge.test", "/n", &h("")), "404");
    assert_eq!(who(&mut wire, "edge.test", "/q?v=2", &[]), "query");
    assert_eq!(who(&mut wire, "edge.test", "/q?x=1&v=%32", &[]), "query");
    assert_eq!(who(&mut wire, "edge.test", "/q?v=21", &[]), "404");
    assert_eq!(who(&mut wire, "edge.test", "/c", &[("Cookie", "a=b; user=42")]), "cookie");
    assert_eq!(who(&mut wire, "edge.test", "/c", &[("Cookie", "user=42x")]), "404");
    assert_eq!(who(&mut wire, "edge.test", "/c", &[("Cookie", "xuser=42")]), "404");
}

#[test]
fn more_conditions_before_fewer_and_then_the_order_written() {
    let edge = edge_of(&[
        ("none", "{path: /a}"),
        ("one", "{path: /a, headers: {x-a: present}}"),
        ("two", "{path: /a, headers: {x-a: present, x-b: present}}"),
        ("later", "{path: /a, headers: {x-b: present}}"),
    ]);
    let mut wire = edge.wire();
    let a = ("X-A", "1");
    let b = ("X-B", "1");
    assert_eq!(who(&mut wire, "edge.test", "/a", &[]), "none");
    assert_eq!(who(&mut wire, "edge.test", "/a", &[a]), "one");
    assert_eq!(who(&mut wire, "edge.test", "/a", &[b]), "later");
    assert_eq!(who(&mut wire, "edge.test", "/a", &[a, b]), "two");
    let edge = edge_of(&[("first", "{path_regex: \"/a.*\"}"), ("second", "{path_regex: \"/.*\"}")]);
    assert_eq!(who(&mut edge.wire(), "edge.test", "/ab", &[]), "first");
}

#[test]
fn a_scheme_is_a_condition() {
    let edge = Edge::with(
        "listeners:\n  - {name: http, address: \"127.0.0.1:0\"}\n  \
         - name: https\n    address: \"127.0.0.1:0\"\n    \
         tls: {certificates: [{hosts: [edge.test], internal: true}]}\n\
         routes:\n  - {match: {scheme: http}, respond: {body: plain}}\n  \
         - {match: {scheme: https}, respond: {body: secret}}\n",
    );
    edge.get("/").expect_body("plain");
    // Nobody but a trusted proxy says what the scheme was.
    edge.get_with("/", &[("X-Forwarded-Proto", "https")]).expect_body("plain");
    let mut tls = Wire::tls(edge.address("https"), "edge.test", &edge.root(), &[])
        .expect("the handshake succeeds");
    tls.get("edge.test", "/", &[]).expect_body("secret");
}

#[test]
fn http_2_takes_the_same_routes() {
    let edge = edge_of(&[
        ("host", "{hosts: [a.test]}"),
        ("method", "{path: /m, methods: [POST]}"),
        ("any", "{path_prefix: /x}"),
    ]);
    http2::run(async {
        let mut send = http2::plain(edge.address("http")).await;
        for (uri, status, body) in [
            ("http://A.test/", 200, "host"),
            ("http://a.test:8080/", 200, "host"),
            ("http://b.test/x/y", 200, "any"),
            ("http://b.test/y/../x", 200, "any"),
        ] {
            let reply = http2::get(&mut send, uri, &[]).await.expect("a reply");
            assert_eq!((reply.status, &*reply.body), (status, body.as_bytes()), "{uri}");
        }
        let refused = http2::get(&mut send, "http://b.test/m", &[]).await.expect("a reply");
        assert_eq!((refused.status, refused.value("allow")), (405, Some("POST")));
    });
}

#[test]
fn no_route_is_404_in_the_form_that_the_client_accepts() {
    let edge = edge_of(&[("some", "{path: /some}")]);
    let mut wire = edge.wire();
    let plain = wire.get("edge.test", "/none", &[]);
    plain.expect_status(404);
    assert!(plain.value("content-type").is_some_and(|t| t.starts_with("text/plain")), "{plain:?}");
    let json = wire.get("edge.test", "/none", &[("Accept", "application/json")]);
    json.expect_status(404);
    assert!(json.value("content-type").is_some_and(|t| t.contains("json")), "{json:?}");
    assert!(json.text().starts_with('{') && json.text().contains("404"), "{json:?}");
    // The connection is as good as before.
    assert_eq!(who(&mut wire, "edge.test", "/some", &[]), "some");
}
