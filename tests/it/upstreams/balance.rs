//! Which backend a request goes to.

use std::net::IpAddr;
use std::time::Duration;
use std::time::Instant;

use super::before;
use super::nobody;
use super::with;
use crate::harness::Origin;
use crate::harness::PATIENCE;
use crate::harness::Wire;
use crate::harness::ok;

fn three() -> [Origin; 3] {
    ["a", "b", "c"].map(|name| Origin::always(ok(name)))
}

#[test]
fn requests_go_round_and_weights_count() {
    let [a, b, c] = three();
    let addresses = format!(
        "\"{}\", {{address: \"http://{}\", weight: 2}}, {{address: \"{}\", active: false}}",
        a.address, b.address, c.address
    );
    let edge = with(&addresses, "");
    for _ in 0..9 {
        edge.get("/").expect_status(200);
    }
    assert_eq!([a.seen().len(), b.seen().len(), c.seen().len()], [3, 6, 0]);
}

#[test]
fn a_hash_brings_what_belongs_together_to_the_same_backend() {
    let origins = three();
    let [a, b, c] = &origins;
    let edge = before(&[a, b, c], "    balance: hash\n    hash_by: \"header:x-user\"\n");
    for user in 0..20 {
        let name = format!("user-{user}");
        let first = edge.get_with("/", &[("X-User", &name)]).text();
        for _ in 0..3 {
            assert_eq!(edge.get_with("/other", &[("X-User", &name)]).text(), first);
        }
    }
    let used = origins.iter().filter(|origin| !origin.seen().is_empty()).count();
    assert!(used > 1, "twenty users come to more than one of three backends");
}

#[test]
fn every_algorithm_serves_and_passes_over_who_is_not_there() {
    for balance in ["round_robin", "random", "least_connections", "peak_ewma", "hash"] {
        let origin = Origin::always(ok("here"));
        let addresses = format!("\"{}\", \"{}\"", nobody(), origin.address);
        let edge = with(&addresses, &format!("    balance: {balance}\n"));
        for n in 0..8 {
            edge.get(&format!("/{n}")).expect_status(200);
        }
        assert_eq!(origin.seen().len(), 8, "{balance}");
    }
}

#[test]
fn backups_serve_only_while_no_other_can() {
    let (main, spare) = (Origin::always(ok("main")), Origin::always(ok("spare")));
    let addresses = format!(
        "{{id: main, address: \"{}\"}}, {{id: spare, address: \"{}\", backup: true}}",
        main.address, spare.address
    );
    let edge = with(&addresses, "");
    for _ in 0..5 {
        edge.get("/").expect_body("main");
    }
    assert_eq!(spare.seen().len(), 0);

    let addresses = format!(
        "{{id: main, address: \"{}\"}}, {{id: spare, address: \"{}\", backup: true}}",
        nobody(),
        spare.address
    );
    let edge = with(&addresses, "");
    for _ in 0..5 {
        edge.get("/").expect_body("spare");
    }
}

#[test]
fn what_belongs_together_is_the_uri_a_cookie_or_the_client() {
    for by in ["uri", "\"cookie:user\"", "client"] {
        let origins = three();
        let [a, b, c] = &origins;
        let edge = before(&[a, b, c], &format!("    balance: hash\n    hash_by: {by}\n"));
        // The same key with all else different, and keys that differ.
        let ask = |key: u8, n: u8| {
            let (path, user, from) = match by {
                "uri" => (key, n, n),
                "client" => (n, n, key),
                _ => (n, key, n),
            };
            let from = IpAddr::from([127, 0, 1, from + 1]);
            let cookie = format!("n={n}; user={user}");
            let mut wire = Wire::plain_from(from, edge.address("http"));
            let reply = wire.get("edge.test", &format!("/{path}?a=b"), &[("Cookie", &cookie)]);
            reply.expect_status(200).text()
        };
        for key in 0..20 {
            let first = ask(key, 0);
            for n in 1..4 {
                assert_eq!(ask(key, n), first, "{by} {key}");
            }
        }
        let used = origins.iter().filter(|origin| !origin.seen().is_empty()).count();
        assert!(used > 1, "{by}: twenty keys come to more than one of three backends");
    }
}

#[test]
fn a_backend_that_comes_takes_up_its_share_by_and_by() {
    const SLOW_START: Duration = Duration::from_secs(2);
    let (old, new) = (Origin::always(ok("old")), Origin::always(ok("new")));
    let edge = before(&[&old], "    slow_start: 2s\n");
    // The first one comes up, too.
    let began = Instant::now();
    while began.elapsed() < SLOW_START {
        edge.get("/").expect_body("old");
    }
    let came = Instant::now();
    let body = format!("{{\"id\": \"new\", \"address\": \"{}\"}}", new.address);
    edge.admin_post("/v1/upstreams/app/backends", &body).expect_status(201);
    let mut wire = edge.wire();
    for _ in 0..60 {
        wire.get("edge.test", "/", &[]).expect_status(200);
    }
    // As ready as it was at the end of this it was at no time before, however long this took.
    let ready = (came.elapsed().as_secs_f64() / SLOW_START.as_secs_f64()).clamp(0.05, 1.0);
    let (seen, share) = (new.seen().len(), 60.0 * ready / (1.0 + ready));
    assert!((seen as f64) < share + 12.0, "{seen} where {share} are its share");
    loop {
        let (before, mut wire) = (new.seen().len(), edge.wire());
        for _ in 0..20 {
            wire.get("edge.test", "/", &[]).expect_status(200);
        }
        if new.seen().len() == before + 10 && came.elapsed() > SLOW_START {
            break;
        }
        assert!(came.elapsed() < PATIENCE, "it comes to its whole share");
    }
}

#[test]
fn an_upstream_that_is_switched_off_says_so() {
    let origin = Origin::always(ok("here"));
    let edge = before(&[&origin], "    active: false\n");
    let reply = edge.get_with("/", &[("Accept", "application/json")]);
    assert!(reply.expect_status(503).text().contains("upstream_off"), "{reply:?}");
    assert!(origin.seen().is_empty());
}
