//! A client comes to the backend again that served it before.

use std::sync::Arc;

use super::before;
use super::with;
use crate::harness::Edge;
use crate::harness::Origin;
use crate::harness::ok;

/// What the client sends back of a cookie.
fn pair(set_cookie: &str) -> String {
    set_cookie.split(';').next().unwrap_or_default().to_owned()
}

#[test]
fn a_cookie_brings_a_client_to_its_backend() {
    let origins = ["a", "b", "c"].map(|name| Origin::always(ok(name)));
    let [a, b, c] = &origins;
    let edge = before(&[a, b, c], "    sticky: {cookie: home, max_age: 1h}\n");
    for _ in 0..3 {
        let first = edge.get("/");
        let told = first.value("set-cookie").expect("the client is told").to_owned();
        assert!(told.starts_with("home="), "{told}");
        assert!(told.ends_with("; Path=/; HttpOnly; SameSite=Lax; Max-Age=3600"), "{told}");
        for n in 0..5 {
            let again = edge.get_with(&format!("/{n}"), &[("Cookie", &pair(&told))]);
            assert_eq!(again.text(), first.text());
            assert_eq!(again.value("set-cookie"), None, "it knows");
        }
    }
    let used = origins.iter().filter(|origin| !origin.seen().is_empty()).count();
    assert_eq!(used, 3, "clients without a cookie go round");
}

#[test]
fn a_cookie_that_names_nobody_is_replaced() {
    let (a, b) = (Origin::always(ok("a")), Origin::always(ok("b")));
    let edge = before(&[&a, &b], "    sticky: on\n");
    for cookie in ["edgeproxy=0000000000000000", "edgeproxy=x", "edgeproxy=", "edgeproxy=-1"] {
        let reply = edge.get_with("/", &[("Cookie", cookie)]);
        reply.expect_status(200);
        assert!(reply.value("set-cookie").is_some_and(|told| told.starts_with("edgeproxy=")));
    }
}

#[test]
fn what_is_stored_sets_nobodys_cookie() {
    let origin = || Origin::always(ok("page").field("Cache-Control", "max-age=60"));
    let (a, b) = (origin(), origin());
    let edge = before(&[&a, &b], "    sticky: on\n");
    let first = edge.get("/");
    assert_eq!(first.expect_miss().values("set-cookie").len(), 1, "{first:?}");
    let second = edge.get("/");
    assert_eq!(second.expect_hit().value("set-cookie"), None, "{second:?}");
}

#[test]
fn what_a_route_does_to_cookies_is_done_to_those_of_the_origin() {
    let origin = |name: &str| {
        let page = ok(name).field("Cache-Control", "max-age=60");
        Origin::always(page.field("Set-Cookie", "theirs=1"))
    };
    let (a, b) = (origin("a"), origin("b"));
    let edge = Edge::with(&format!(
        "listeners: [{{name: http, address: \"127.0.0.1:0\"}}]\n\
         upstreams: {{app: {{addresses: [\"{}\", \"{}\"], sticky: on}}}}\n\
         routes:\n\
         \x20 - match: {{path: /set}}\n    upstream: app\n    cache: off\n    \
         headers: {{response: {{set: {{Set-Cookie: ours=1}}}}}}\n\
         \x20 - match: {{path: /passed}}\n    upstream: app\n    cache: off\n    \
         headers: {{response: {{remove: [Set-Cookie]}}}}\n\
         \x20 - match: {{path_prefix: /stored}}\n    upstream: app\n    cache: {{set_cookie: strip}}\n    \
         headers: {{response: {{remove: [Set-Cookie]}}}}\n",
        a.address, b.address
    ));
    for (path, besides) in [("/set", &["ours=1"][..]), ("/passed", &[]), ("/stored", &[])] {
        let first = edge.get(path);
        let told = first.expect_status(200).values("set-cookie");
        let (ours, others) = told.split_last().expect("the client is told");
        assert!(ours.starts_with("edgeproxy="), "{path}: {told:?}");
        assert_eq!(others, besides, "{path}");
        for n in 0..4 {
            // Of what is stored another page is asked for each time.
            let path = if path == "/stored" { format!("{path}/{n}") } else { path.to_owned() };
            let again = edge.get_with(&path, &[("Cookie", &pair(ours))]);
            assert_eq!(
                (again.text(), again.values("set-cookie").len()),
                (first.text(), besides.len())
            );
        }
    }
    assert!(edge.get("/stored").expect_hit().value("set-cookie").is_none(), "it is stored without");
}

#[test]
fn while_its_backend_is_away_a_client_gets_another_and_stays_there() {
    let (a, b) = (Origin::always(ok("a")), Origin::always(ok("b")));
    let edge = before(&[&a, &b], "    sticky: on\n");
    let first = edge.get("/");
    let told = pair(first.value("set-cookie").expect("the client is told"));
    let (home, other) = match &*first.text() {
        "a" => ("b0", "b"),
        _ => ("b1", "a"),
    };
    let switch = |active: bool| {
        let path = format!("/v1/upstreams/app/backends/{home}");
        edge.admin_says("PATCH", &path, &format!("{{\"active\": {active}}}")).expect_status(200);
    };
    switch(false);
    let moved = edge.get_with("/", &[("Cookie", &told)]);
    let told = pair(moved.expect_body(other).value("set-cookie").expect("the client is told"));
    switch(true);
    for _ in 0..4 {
        let again = edge.get_with("/", &[("Cookie", &told)]);
        assert_eq!(again.expect_body(other).value("set-cookie"), None, "it knows");
    }
}

/// The cookie that a client is told.
fn told(edge: &Edge) -> String {
    pair(edge.get("/").value("set-cookie").expect("the client is told"))
}

#[test]
fn with_a_key_a_cookie_means_the_same_on_every_node_and_tells_nothing_of_an_address() {
    let origin = Origin::always(ok("a"));
    let at = format!("\"{}\"", origin.address);
    let edge = |sticky: &str| with(&at, &format!("    sticky: {sticky}\n"));
    let key = "{key: a key that nobody guesses}";
    let (one, two) = (edge(key), edge(key));
    let cookie = told(&one);
    assert_eq!(told(&two), cookie);
    assert_eq!(two.get_with("/", &[("Cookie", &cookie)]).value("set-cookie"), None, "it knows");
    // Who has no key, or another one, comes to another number.
    let (plain, other) = (edge("on"), edge("{key: another one of the same}"));
    assert_ne!(told(&plain), cookie);
    assert_ne!(told(&other), cookie);
    assert_ne!(told(&other), told(&plain));
}

#[test]
fn with_another_key_clients_are_told_anew() {
    let (a, b) = (Origin::always(ok("a")), Origin::always(ok("b")));
    let folder = Arc::new(tempfile::tempdir().expect("a folder can be made"));
    let write = |key: &str| std::fs::write(folder.path().join("sticky.key"), key).expect("written");
    write("a key that nobody guesses\n");
    let yaml = format!(
        "listeners: [{{name: http, address: \"127.0.0.1:0\"}}]\n\
         upstreams: {{app: {{addresses: [\"{}\", \"{}\"], sticky: {{key_file: sticky.key}}}}}}\n\
         routes: [{{upstream: app}}]\n",
        a.address, b.address
    );
    let edge = Edge::in_folder(Arc::clone(&folder), &yaml, &[]);
    let cookie = told(&edge);
    write("another one of the same\n");
    edge.reload().expect_status(200);
    let again = edge.get_with("/", &[("Cookie", &cookie)]);
    let anew = pair(again.expect_status(200).value("set-cookie").expect("it is told anew"));
    assert_ne!(anew, cookie);
    let home = again.text();
    for _ in 0..4 {
        let kept = edge.get_with("/", &[("Cookie", &anew)]);
        assert_eq!((kept.text(), kept.value("set-cookie")), (home.clone(), None));
    }
}
