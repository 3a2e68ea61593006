//! The answer to a POST that is what a GET of its URL gets (RFC 9110 §9.3.3).

use crate::caching::minute;
use crate::caching::numbered;
use crate::caching::with_rules;
use crate::harness::Edge;
use crate::harness::Origin;
use crate::harness::Reply;
use crate::harness::Respond;
use crate::harness::ok;
use crate::harness::status;

const RULES: &str = "{methods: [GET, HEAD, POST], ttl: 1m}";

fn post(edge: &Edge, target: &str) -> Reply {
    edge.wire().request("POST", "edge.test", target, &[("Cookie", "a=b")], b"new")
}

#[test]
fn an_answer_to_a_post_answers_a_get_where_it_says_so() {
    let own = minute("").field("Content-Location", "/a?q=1");
    let origin = Origin::script().with("/a", numbered(own)).start();
    let edge = with_rules(&origin, RULES);
    let posted = post(&edge, "/a?q=1");
    posted.expect_status(200).expect_body("answer 0");
    assert_eq!(
        posted.value("cache-status"),
        Some("edgeproxy; fwd=method; fwd-status=200; stored; detail=method")
    );
    edge.get("/a?q=1").expect_hit().expect_body("answer 0");
    // A POST is the origin's to answer, and what it leaves behind is the latest.
    post(&edge, "/a?q=1").expect_body("answer 1");
    edge.get("/a?q=1").expect_hit().expect_body("answer 1");
    edge.wire().request("HEAD", "edge.test", "/a?q=1", &[], b"").expect_hit();
    edge.get("/a").expect_miss().expect_body("answer 2");
}

#[test]
fn any_other_answer_to_a_post_is_not_stored() {
    let here = |respond: Respond| respond.field("Content-Location", "/a");
    for (rules, respond) in [
        ("{methods: [GET, HEAD]}", here(minute(""))),
        (RULES, minute("")),
        (RULES, minute("").field("Content-Location", "/b")),
        (RULES, minute("").field("Content-Location", "http://other.test/a")),
        (RULES, here(minute("")).field("Content-Location", "/a")),
        // What a route says of answers that say nothing is not for these.
        (RULES, here(ok(""))),
        (RULES, here(ok("").field("Cache-Control", "no-store, max-age=60"))),
        (RULES, here(minute("").field("Set-Cookie", "a=b"))),
        (RULES, here(minute("").field("Vary", "*"))),
        (RULES, here(status(201).field("Cache-Control", "max-age=60"))),
    ] {
        let origin = Origin::script().with("/a", numbered(respond)).start();
        let edge = with_rules(&origin, rules);
        post(&edge, "/a").expect_body("answer 0");
        edge.get("/a").expect_miss().expect_body("answer 1");
    }
}

#[test]
fn an_answer_to_a_post_that_is_cut_is_not_stored() {
    let origin = Origin::script()
        .with("/a", |seen| match seen.method() {
            "POST" => Respond::raw(
                "HTTP/1.1 200 OK\r\nContent-Length: 100\r\nCache-Control: max-age=60\r\n\
                 Content-Location: /a\r\n\r\nthe begin",
            ),
            _ => minute("whole"),
        })
        .start();
    let edge = with_rules(&origin, RULES);
    let mut wire = edge.wire();
    wire.ask("POST", "edge.test", "/a", &[], b"new");
    wire.any_reply("POST");
    edge.get("/a").expect_miss().expect_body("whole");
}
