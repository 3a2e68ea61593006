//! What a route says of storing beside lifetimes: by status, by name, by request.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use crate::caching::in_turn;
use crate::caching::minute;
use crate::caching::numbered;
use crate::caching::with_rules;
use crate::harness::Origin;
use crate::harness::Respond;
use crate::harness::ok;
use crate::harness::status;

#[test]
fn a_status_is_kept_for_as_long_as_the_route_says() {
    let origin = Origin::script()
        .on("/missing", status(404).body("none"))
        .on("/gone", status(410).body("gone"))
        .on("/broken", status(502).body("broken"))
        .start();
    let edge = with_rules(&origin, "{ttl_by_status: {404: 1m, 5xx: 30s}}");
    for path in ["/missing", "/broken"] {
        edge.get(path).expect_miss();
        edge.get(path).expect_hit();
    }
    edge.get("/gone").expect_miss();
    edge.get("/gone").expect_miss();
}

#[test]
fn an_error_is_kept_for_a_moment_and_costs_nothing_that_is_stored() {
    let broken = Arc::new(AtomicBool::new(false));
    let origin = Origin::script()
        .with("/", {
            let broken = Arc::clone(&broken);
            move |request| {
                if broken.load(Ordering::SeqCst) {
                    return status(503).body("broken");
                }
                // Stale as soon as it comes, and confirmed whenever it is asked about.
                let page = match request.value("if-none-match") {
                    Some(_) => status(304),
                    None => ok("page"),
                };
                page.field("Cache-Control", "max-age=60").field("Age", "60").field("ETag", "\"1\"")
            }
        })
        .start();
    let edge = with_rules(&origin, "{ttl_by_status: {5xx: 1m}}");
    edge.get("/").expect_miss().expect_body("page");
    broken.store(true, Ordering::SeqCst);
    let reply = edge.get("/");
    reply.expect_status(503);
    let told = reply.value("cache-status").unwrap_or_default();
    assert!(told.contains("would-replace") && !told.contains("stored"), "{reply:?}");
    broken.store(false, Ordering::SeqCst);
    edge.get("/").expect_status(200).expect_cache("REVALIDATED").expect_body("page");
}

#[test]
fn a_personal_page_is_not_kept_under_the_name_of_a_file() {
    let page = || ok("<p>Alice").field("Content-Type", "text/html; charset=utf-8");
    let sheet = ok("p {}").field("Content-Type", "text/css");
    let origin = Origin::script()
        .on("/account/a.css", page())
        .on("/account/stated.css", page().field("Cache-Control", "max-age=60"))
        .on("/site.css", sheet)
        .start();
    let edge = with_rules(&origin, "{ttl: 1m}");
    for _ in 0..2 {
        let reply = edge.get("/account/a.css");
        reply.expect_miss();
        let told = reply.value("cache-status").unwrap_or_default();
        assert!(told.contains("detail=content-type"), "{reply:?}");
    }
    edge.get("/account/stated.css").expect_miss();
    edge.get("/account/stated.css").expect_hit();
    edge.get("/site.css").expect_miss();
    edge.get("/site.css").expect_hit();

    let strict = with_rules(&origin, "{ttl: 1m, suffix_guard: all}");
    strict.get("/account/stated.css").expect_miss();
    strict.get("/account/stated.css").expect_miss();
}

#[test]
fn requests_that_the_route_names_go_past_the_cache() {
    let origin = Origin::script().with("/", numbered(minute(""))).start();
    let edge = with_rules(
        &origin,
        "{bypass: {headers: {x-preview: present}, cookies: {session: present}, query: {fresh: \"1\"}}}",
    );
    edge.get("/").expect_miss().expect_body("answer 0");
    edge.get("/").expect_hit().expect_body("answer 0");
    let asked: [(&str, &[(&str, &str)]); 3] =
        [("/", &[("X-Preview", "")]), ("/", &[("Cookie", "a=b; session=1")]), ("/?fresh=1", &[])];
    for (at, (target, fields)) in asked.into_iter().enumerate() {
        let reply = edge.get_with(target, fields);
        reply.expect_cache("BYPASS").expect_body(&format!("answer {}", at + 1));
        let told = reply.value("cache-status").unwrap_or_default();
        assert!(told.contains("fwd=bypass") && told.contains("route-bypass"), "{reply:?}");
    }
    edge.get_with("/", &[("Cookie", "sessions=1")]).expect_hit().expect_body("answer 0");
    edge.get("/?fresh=0").expect_miss();
}

#[test]
fn cookies_whose_names_begin_so_go_past_the_cache() {
    let origin = Origin::script().with("/", numbered(minute(""))).start();
    let edge = with_rules(&origin, "{bypass: {cookies: {wordpress_logged_in_*: present}}}");
    edge.get("/").expect_miss();
    for (cookies, x_cache) in [
        ("wordpress_test_cookie=1", "HIT"),
        ("a=1; wordpress_logged_in_0123abcd=ann", "BYPASS"),
        ("wordpress_logged_in_=", "BYPASS"),
        ("x_wordpress_logged_in_1=1", "HIT"),
    ] {
        edge.get_with("/", &[("Cookie", cookies)]).expect_cache(x_cache);
    }
}

#[test]
fn answers_to_requests_that_the_route_names_are_not_stored() {
    let origin = Origin::script().with("/", numbered(minute(""))).start();
    let edge = with_rules(&origin, "{no_store: {cookies: {draft: {prefix: on}}}}");
    let draft = [("Cookie", "draft=only")];
    for _ in 0..2 {
        let reply = edge.get_with("/", &draft);
        reply.expect_miss();
        let told = reply.value("cache-status").unwrap_or_default();
        assert!(told.contains("detail=route-no-store"), "{reply:?}");
    }
    edge.get("/").expect_miss().expect_body("answer 2");
    // What is stored may answer it all the same.
    edge.get_with("/", &draft).expect_hit().expect_body("answer 2");
}

#[test]
fn a_route_may_leave_heads_to_the_origin() {
    let origin = Origin::always(minute("page"));
    let edge = with_rules(&origin, "{methods: [GET]}");
    edge.get("/").expect_miss();
    for asked in 2..4 {
        let head = edge.wire().request("HEAD", "edge.test", "/", &[], b"");
        assert!(head.value("cache-status").unwrap_or_default().contains("fwd=method"), "{head:?}");
        let seen = origin.seen();
        assert_eq!((seen.len(), seen[asked - 1].method()), (asked, "HEAD"));
    }
    edge.get("/").expect_hit();
}

#[test]
fn only_statuses_that_the_route_names_are_stored() {
    let origin = Origin::script()
        .on("/page", minute("page"))
        .on("/missing", status(404).field("Cache-Control", "max-age=60").body("none"))
        .on("/gone", status(410).field("Cache-Control", "max-age=60").body("gone"))
        .start();
    let edge = with_rules(&origin, "{statuses: [2xx, 410]}");
    for path in ["/page", "/gone"] {
        edge.get(path).expect_miss();
        edge.get(path).expect_hit();
    }
    for _ in 0..2 {
        let reply = edge.get("/missing");
        reply.expect_status(404).expect_miss();
        let told = reply.value("cache-status").unwrap_or_default();
        assert!(told.contains("detail=route-status"), "{reply:?}");
    }
}

#[test]
fn what_is_seldom_asked_for_is_not_stored() {
    let origin = Origin::always(minute("page"));
    let edge = with_rules(&origin, "{min_uses: 3}");
    for _ in 0..2 {
        let reply = edge.get("/");
        reply.expect_miss();
        let told = reply.value("cache-status").unwrap_or_default();
        assert!(told.contains("detail=min-uses") && !told.contains("stored"), "{reply:?}");
    }
    edge.get("/").expect_miss();
    edge.get("/").expect_hit();
    assert_eq!(origin.seen().len(), 3);
    edge.get("/other").expect_miss();
    edge.get("/other").expect_miss();
}

#[test]
fn a_route_lets_stale_responses_serve_while_they_are_refreshed() {
    let origin = Origin::script()
        .with(
            "/",
            in_turn(vec![
                ok("old").field("Cache-Control", "max-age=60").field("Age", "60"),
                minute("new"),
            ]),
        )
        .start();
    let edge = with_rules(&origin, "{stale_while_revalidate: 10m}");
    edge.get("/").expect_miss().expect_body("old");
    edge.get("/").expect_cache("STALE").expect_body("old");
    let fresh = std::iter::repeat_with(|| edge.get("/")).find(|reply| reply.text() == "new");
    fresh.expect("it is refreshed").expect_hit();
    assert_eq!(origin.seen().len(), 2);
}

#[test]
fn the_origin_reads_what_the_variant_is_selected_by() {
    let page = minute("").field("Vary", "Accept-Encoding, Accept-Language, X-Plan");
    let origin = Origin::script().with("/", numbered(page)).start();
    let edge = with_rules(
        &origin,
        "{normalise: {accept_encoding: [br, gzip], accept_language: [de, en], \
         headers: {x-plan: [free, paid]}}}",
    );
    let asked = [
        ("Accept-Encoding", "gzip;q=0.8, deflate, br"),
        ("Accept-Language", "da, en-GB;q=0.5"),
        ("X-Plan", "gold"),
    ];
    edge.get_with("/", &asked).expect_miss().expect_body("answer 0");
    let seen = &origin.seen()[0];
    let read = ["accept-encoding", "accept-language", "x-plan"].map(|name| seen.value(name));
    assert_eq!(read, [Some("br"), Some("en"), None]);
    for other in [
        &[("Accept-Encoding", "br"), ("Accept-Language", "EN")][..],
        &[("Accept-Encoding", "zstd, br"), ("Accept-Language", "en-US, de;q=0.1"), ("X-Plan", "")],
    ] {
        edge.get_with("/", other).expect_hit().expect_body("answer 0");
    }
    edge.get("/").expect_miss().expect_body("answer 1");
    edge.get_with("/", &[("X-Plan", "paid")]).expect_miss().expect_body("answer 2");
}

#[test]
fn an_override_leaves_errors_that_have_to_be_confirmed_to_be_confirmed() {
    let answer = |status: u16| {
        Respond::raw(format!(
            "HTTP/1.1 {status} Status\r\nCache-Control: max-age=60, no-cache\r\nETag: \"1\"\r\n\
             Content-Length: 4\r\n\r\nbody"
        ))
    };
    let origin = Origin::script().on("/page", answer(200)).on("/error", answer(404)).start();
    let edge = with_rules(&origin, "{override_ttl: 30s}");
    for target in ["/page", "/error"] {
        edge.get(target).expect_miss();
    }
    edge.get("/page").expect_hit();
    edge.get("/error").expect_cache("EXPIRED");
}
