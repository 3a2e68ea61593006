//! What an unsafe method makes invalid (RFC 9111 §4.4).

use std::io::Write;
use std::sync::Mutex;
use std::sync::mpsc;

use crate::caching::minute;
use crate::caching::numbered;
use crate::caching::with_rules;
use crate::harness::Edge;
use crate::harness::Origin;
use crate::harness::Respond;
use crate::harness::ok;
use crate::harness::origin::Seen;
use crate::harness::origin::status;

/// Answers GET with what may be stored, and everything else with this.
fn changing(answer: Respond) -> impl Fn(&Seen) -> Respond + Send + Sync + 'static {
    let gets = numbered(minute(""));
    move |seen| if seen.method() == "GET" { gets(seen) } else { answer.clone() }
}

fn origin(answer: Respond) -> Origin {
    Origin::script().otherwise(changing(answer)).start()
}

fn change(edge: &Edge, method: &str, target: &str) {
    edge.wire().request(method, "edge.test", target, &[], b"new");
}

#[test]
fn an_unsafe_method_invalidates_what_is_stored_for_its_uri() {
    let origin = origin(ok("changed"));
    let edge = Edge::to(&origin);
    for method in ["POST", "PUT", "DELETE", "PATCH", "FROBNICATE"] {
        edge.get("/a").expect_miss();
        edge.get("/a").expect_hit();
        edge.get("/a?q=1").expect_miss();
        change(&edge, method, "/a");
        edge.get("/a?q=1").expect_hit();
        edge.get("/a").expect_miss();
        change(&edge, method, "/a?q=1");
        change(&edge, method, "/a");
    }
}

#[test]
fn an_error_and_a_safe_method_invalidate_nothing() {
    for (answer, method) in [
        (status(404), "DELETE"),
        (status(500), "POST"),
        (ok("x"), "OPTIONS"),
        // Its answer may be stored nowhere, since nobody asks for it by its URI alone.
        (minute("x"), "QUERY"),
    ] {
        let origin = origin(answer);
        let edge = Edge::to(&origin);
        edge.get("/a").expect_miss();
        change(&edge, method, "/a");
        edge.get("/a").expect_hit();
    }
}

#[test]
fn what_a_redirection_points_to_is_invalidated_and_other_origins_are_not() {
    let answer = status(303)
        .field("Location", "/list?page=1")
        .field("Content-Location", "http://EDGE.test/x/../item");
    let origin = origin(answer);
    let edge = Edge::to(&origin);
    for target in ["/list?page=1", "/list", "/item"] {
        edge.get(target).expect_miss();
    }
    edge.wire().get("other.test", "/item", &[]).expect_miss();
    change(&edge, "POST", "/form");
    edge.get("/list?page=1").expect_miss();
    edge.get("/item").expect_miss();
    edge.get("/list").expect_hit();
    edge.wire().get("other.test", "/item", &[]).expect_hit();
}

#[test]
fn all_variants_and_all_keys_of_the_uri_go() {
    let gets = numbered(minute("").field("Vary", "X-Lang"));
    let origin = Origin::script()
        .otherwise(move |seen| if seen.method() == "GET" { gets(seen) } else { ok("") })
        .start();
    let rules = "{key: {headers: [x-tenant], query: {except: [utm]}}}";
    let edge = with_rules(&origin, rules);
    let all = [("a", "de"), ("a", "fr"), ("b", "de"), ("b", "fr")];
    let ask = |tenant: &str, lang: &str| {
        edge.get_with("/a?utm=1&q=1", &[("X-Tenant", tenant), ("X-Lang", lang)])
    };
    for (tenant, lang) in all {
        ask(tenant, lang).expect_miss();
        ask(tenant, lang).expect_hit();
    }
    edge.get("/b").expect_miss();
    // A tenant of whom nothing is stored.
    edge.wire().request("PUT", "edge.test", "/a?q=1&utm=2", &[("X-Tenant", "c")], b"");
    for (tenant, lang) in all {
        ask(tenant, lang).expect_miss();
    }
    edge.get("/b").expect_hit();
}

#[test]
fn a_route_that_only_writes_invalidates_what_another_stores() {
    let origin = origin(status(204));
    let edge = Edge::with(&format!(
        "listeners:\n  - {{name: http, address: \"127.0.0.1:0\"}}\n\
         upstreams:\n  origin:\n    addresses: [\"{0}\"]\n  writer:\n    addresses: [\"{0}\"]\n\
         routes:\n  - {{match: {{methods: [GET]}}, upstream: origin, \
         headers: {{request: {{set: {{x-a: \"1\"}}}}}}}}\n  \
         - {{upstream: writer, cache: off}}\n",
        origin.address
    ));
    edge.get("/a").expect_miss();
    edge.get("/a").expect_hit();
    change(&edge, "DELETE", "/a");
    edge.get("/a").expect_miss();
}

#[test]
fn a_response_under_way_when_the_resource_changed_is_not_shown_afterwards() {
    let (let_go, held) = mpsc::channel::<()>();
    let held = Mutex::new(Some(held));
    let origin = Origin::script()
        .take_over("/a", move |seen, mut stream| {
            // The change may overtake the first request on its way to here.
            let first = (seen.method() == "GET")
                .then(|| held.lock().expect("nobody panics while holding it").take())
                .flatten();
            let body: &[u8] = if first.is_some() { b"old!" } else { b"new!" };
            let body = if seen.method() == "PUT" { b"done" } else { body };
            let head = "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 4\r\n";
            let _ = stream.write_all(format!("{head}Connection: close\r\n\r\n").as_bytes());
            let _ = stream.write_all(&body[..2]);
            if let Some(held) = first {
                held.recv().expect("the test lets it go");
            }
            let _ = stream.write_all(&body[2..]);
        })
        .start();
    let edge = Edge::to(&origin);
    let mut first = edge.wire();
    first.send("GET /a HTTP/1.1\r\nHost: edge.test\r\n\r\n");
    origin.wait_for(1);
    change(&edge, "PUT", "/a");
    let_go.send(()).expect("the origin waits");
    first.reply().expect_status(200).expect_body("old!");
    edge.get("/a").expect_miss().expect_body("new!");
    edge.get("/a").expect_hit().expect_body("new!");
}
