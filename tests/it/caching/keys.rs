//! What tells stored responses apart.

use crate::caching::minute;
use crate::caching::numbered;
use crate::caching::with_rules;
use crate::harness::Edge;
use crate::harness::Origin;
use crate::harness::Wire;
use crate::harness::origin::Seen;

/// Answers everything with what was asked for.
fn echo(seen: &Seen) -> crate::harness::Respond {
    let fields = ["host", "x-forwarded-proto", "x-lang", "cookie"]
        .map(|name| format!("{name}={}", seen.values(name).join("+")));
    minute(&format!("{} {}", seen.target(), fields.join(" ")))
}

fn echoing(cache: &str) -> (Origin, Edge) {
    let origin = Origin::script().otherwise(echo).start();
    let edge = with_rules(&origin, cache);
    (origin, edge)
}

#[test]
fn hosts_do_not_share() {
    let (_origin, edge) = echoing("on");
    let mut wire = edge.wire();
    for host in ["a.test", "b.test", "b.test:8080", "a.test.b.test"] {
        let reply = wire.get(host, "/", &[]);
        reply.expect_miss();
        assert!(reply.text().contains(&format!("host={host} ")), "{reply:?}");
    }
    for host in ["a.test", "A.TEST", "a.test:80", "a.test."] {
        let reply = wire.get(host, "/", &[]);
        assert!(reply.expect_hit().text().contains("host=a.test "), "{reply:?}");
    }
}

#[test]
fn schemes_do_not_share() {
    let origin = Origin::script().otherwise(echo).start();
    let edge = Edge::with(&format!(
        "listeners:\n  - {{name: http, address: \"127.0.0.1:0\"}}\n  \
         - name: https\n    address: \"127.0.0.1:0\"\n    \
         tls: {{certificates: [{{hosts: [edge.test], internal: true}}]}}\n\
         upstreams:\n  origin:\n    addresses: [\"{}\"]\n\
         routes:\n  - {{upstream: origin}}\n",
        origin.address
    ));
    edge.get("/").expect_miss();
    let mut tls = Wire::tls(edge.address("https"), "edge.test", &edge.root(), &[])
        .expect("the handshake succeeds");
    let reply = tls.get("edge.test", "/", &[]);
    reply.expect_miss();
    assert!(reply.text().contains("x-forwarded-proto=https"), "{reply:?}");
    let reply = edge.get("/");
    assert!(reply.expect_hit().text().contains("x-forwarded-proto=http "), "{reply:?}");
}

#[test]
fn paths_and_queries_do_not_share() {
    let (origin, edge) = echoing("on");
    let targets =
        ["/", "/a", "/A", "/a/", "/a?", "/a?b", "/a?b=", "/a?b=1", "/a?b=1&c=2", "/a?c=2&b=1"];
    for target in targets {
        edge.get(target).expect_miss();
    }
    assert_eq!(origin.seen().len(), targets.len());
    for target in targets {
        let reply = edge.get(target);
        assert!(reply.expect_hit().text().starts_with(&format!("{target} ")), "{reply:?}");
    }
}

#[test]
fn a_query_may_count_for_nothing() {
    let (_origin, edge) = echoing("{key: {query: none}}");
    edge.get("/a?x=1").expect_miss();
    edge.get("/a?y=2").expect_hit();
    edge.get("/a").expect_hit();
    edge.get("/b").expect_miss();
}

#[test]
fn only_listed_parameters_count() {
    let (_origin, edge) = echoing("{key: {query: {only: [page]}}}");
    edge.get("/a?page=1&x=1").expect_miss();
    edge.get("/a?x=2&page=1").expect_hit();
    edge.get("/a?page=2").expect_miss();
    edge.get("/a?%70age=3").expect_miss();
    edge.get("/a?page=1&page=2").expect_miss();
}

#[test]
fn all_but_listed_parameters_count() {
    let (_origin, edge) = echoing("{key: {query: {except: [utm_source]}}}");
    edge.get("/a?page=1&utm_source=x").expect_miss();
    edge.get("/a?utm_source=y&page=1").expect_hit();
    edge.get("/a?page=1").expect_hit();
    edge.get("/a?page=1&utm_medium=x").expect_miss();
}

#[test]
fn routes_that_choose_other_parameters_do_not_share() {
    let origin = Origin::script().otherwise(echo).start();
    let edge = Edge::with(&format!(
        "listeners:\n  - {{name: http, address: \"127.0.0.1:0\"}}\n\
         upstreams:\n  origin:\n    addresses: [\"{}\"]\n\
         routes:\n  - match: {{headers: {{x-lang: de}}}}\n    upstream: origin\n    \
         cache: {{key: {{query: {{only: [b]}}}}}}\n  \
         - {{upstream: origin, cache: {{key: {{query: {{except: [c]}}}}}}}}\n",
        origin.address
    ));
    // For the first route `a` does not count, for the second it does.
    edge.get_with("/x?b=1&a=2", &[("X-Lang", "de")]).expect_miss();
    edge.get_with("/x?b=1", &[("X-Lang", "de")]).expect_hit();
    let own = edge.get("/x?b=1");
    assert!(own.expect_miss().text().starts_with("/x?b=1 "), "{own:?}");
    edge.get("/x?c=3&b=1").expect_hit();
}

#[test]
fn sorted_parameters_share_whatever_their_order() {
    let (_origin, edge) = echoing("{key: {sort_query: true}}");
    edge.get("/a?b=1&a=2").expect_miss();
    edge.get("/a?a=2&b=1").expect_hit();
    // Among parameters of one name the order is the application's business.
    edge.get("/a?a=2&a=1").expect_miss();
    edge.get("/a?a=1&a=2").expect_miss();
}

#[test]
fn a_header_of_the_key_tells_apart() {
    let (_origin, edge) = echoing("{key: {headers: [x-lang]}}");
    edge.get_with("/", &[("X-Lang", "de")]).expect_miss();
    let other = edge.get_with("/", &[("X-Lang", "fr")]);
    assert!(other.expect_miss().text().contains("x-lang=fr"), "{other:?}");
    edge.get("/").expect_miss();
    edge.get_with("/", &[("X-Lang", "de")]).expect_hit();
    edge.get_with("/", &[("X-Lang", "de"), ("X-Lang", "fr")]).expect_miss();
}

#[test]
fn a_cookie_of_the_key_tells_apart_and_others_do_not() {
    let (_origin, edge) = echoing("{key: {cookies: [theme]}}");
    edge.get_with("/", &[("Cookie", "theme=dark; id=1")]).expect_miss();
    edge.get_with("/", &[("Cookie", "id=2; theme=dark")]).expect_hit();
    edge.get_with("/", &[("Cookie", "theme=light")]).expect_miss();
    edge.get("/").expect_miss();
}

#[test]
fn spellings_of_one_path_share_one_entry() {
    let (origin, edge) = echoing("on");
    edge.get("/a/b~c").expect_miss();
    for target in ["/a/./b~c", "/x/../a/b~c", "/a/b%7Ec", "/a/b%7ec", "//a//b~c"] {
        edge.get(target).expect_hit();
    }
    assert_eq!(origin.seen().len(), 1);
}

#[test]
fn reserved_characters_stay_apart_from_their_escapes() {
    let (_origin, edge) = echoing("on");
    edge.get("/a%3Bb").expect_miss();
    edge.get("/a;b").expect_miss();
    edge.get("/a%3bb").expect_hit();
    edge.get("/a?x=%26").expect_miss();
    edge.get("/a?x=&").expect_miss();
}

#[test]
fn upstreams_do_not_share_one_uri() {
    let one = Origin::always(minute("one"));
    let two = Origin::always(minute("two"));
    let edge = Edge::with(&format!(
        "listeners:\n  - {{name: http, address: \"127.0.0.1:0\"}}\n\
         upstreams:\n  one:\n    addresses: [\"{}\"]\n  two:\n    addresses: [\"{}\"]\n\
         routes:\n  - {{match: {{headers: {{x-two: present}}}}, upstream: two}}\n  \
         - {{upstream: one}}\n",
        one.address, two.address
    ));
    edge.get("/").expect_miss().expect_body("one");
    edge.get_with("/", &[("X-Two", "1")]).expect_miss().expect_body("two");
    edge.get("/").expect_hit().expect_body("one");
    edge.get_with("/", &[("X-Two", "1")]).expect_hit().expect_body("two");
}

#[test]
fn routes_that_ask_differently_do_not_share_one_uri() {
    let origin =
        Origin::script().otherwise(|seen| minute(&format!("{:?}", seen.value("x-beta")))).start();
    let edge = Edge::with(&format!(
        "listeners:\n  - {{name: http, address: \"127.0.0.1:0\"}}\n\
         upstreams:\n  origin:\n    addresses: [\"{}\"]\n\
         routes:\n  - {{match: {{cookies: {{beta: present}}}}, upstream: origin, \
         headers: {{request: {{set: {{x-beta: \"1\"}}}}}}}}\n  \
         - {{upstream: origin}}\n",
        origin.address
    ));
    edge.get("/").expect_miss().expect_body("None");
    let beta = edge.get_with("/", &[("Cookie", "beta=1")]);
    beta.expect_miss().expect_body("Some(\"1\")");
    edge.get("/").expect_hit().expect_body("None");
}

#[test]
fn head_and_get_share_one_entry() {
    let (origin, edge) = echoing("on");
    let mut wire = edge.wire();
    wire.get("edge.test", "/", &[]).expect_miss();
    let head = wire.request("HEAD", "edge.test", "/", &[], b"");
    head.expect_status(200).expect_hit();
    assert_ne!(head.value("content-length"), Some("0"), "{head:?}");
    // Whatever it says of the length, nothing follows.
    wire.get("edge.test", "/", &[]).expect_hit();
    assert_eq!(origin.seen().len(), 1);
}

#[test]
fn a_head_that_misses_fills_the_entry_for_a_get() {
    let (origin, edge) = echoing("on");
    let mut wire = edge.wire();
    wire.request("HEAD", "edge.test", "/", &[], b"").expect_status(200).expect_miss();
    let get = wire.get("edge.test", "/", &[]);
    get.expect_hit();
    assert!(get.text().starts_with("/ host=edge.test"), "{get:?}");
    assert_eq!(origin.seen().len(), 1);
}

#[test]
fn other_methods_neither_read_nor_fill() {
    let origin = Origin::script().with("/", numbered(minute(""))).start();
    let edge = Edge::to(&origin);
    let mut wire = edge.wire();
    wire.request("POST", "edge.test", "/", &[], b"a").expect_body("answer 0");
    wire.get("edge.test", "/", &[]).expect_miss().expect_body("answer 1");
    let other = wire.request("OPTIONS", "edge.test", "/", &[], b"");
    other.expect_body("answer 2");
    let status = other.value("cache-status").unwrap_or_default();
    assert!(status.contains("fwd=method"), "{other:?}");
}

#[test]
fn each_class_of_devices_has_its_own_answer() {
    let origin = Origin::script().with("/", numbered(minute(""))).start();
    let edge = with_rules(&origin, "{key: {device: true}}");
    let phone = ("User-Agent", "Mozilla/5.0 (iPhone) Mobile/15E148");
    let desktop = ("User-Agent", "Mozilla/5.0 (X11; Linux x86_64)");
    edge.get_with("/", &[phone]).expect_miss().expect_body("answer 0");
    // What a client says of its class counts for nothing.
    edge.get_with("/", &[desktop, ("X-Device-Class", "mobile")]).expect_body("answer 1");
    edge.get_with("/", &[phone]).expect_hit().expect_body("answer 0");
    edge.get_with("/", &[desktop]).expect_hit().expect_body("answer 1");
    let told: Vec<_> =
        origin.seen().iter().map(|seen| seen.values("x-device-class").join(",")).collect();
    assert_eq!(told, ["mobile", "desktop"]);
}

#[test]
fn all_hosts_of_a_route_may_stand_for_one() {
    let origin =
        Origin::script().otherwise(|seen| minute(seen.value("host").unwrap_or_default())).start();
    let edge = with_rules(&origin, "{key: {host: www.example.org}}");
    let mut wire = edge.wire();
    wire.get("example.org", "/", &[]).expect_miss().expect_body("www.example.org");
    wire.get("www.example.org", "/", &[]).expect_hit().expect_body("www.example.org");
    wire.get("evil.test", "/", &[]).expect_hit().expect_body("www.example.org");
    // Another port may be another site.
    wire.get("example.org:81", "/", &[]).expect_miss().expect_body("www.example.org:81");
    let seen = &origin.seen()[0];
    assert_eq!(seen.value("x-forwarded-host"), Some("www.example.org"));
    assert!(!seen.values("forwarded").join("").contains("host=example.org"), "{seen:?}");
    // What changes it by one name changes it for all.
    wire.request("POST", "other.test", "/", &[], b"").expect_status(200);
    wire.get("example.org", "/", &[]).expect_miss();
}
