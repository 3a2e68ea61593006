//! What one client must never get of another, and what a stranger must not plant.

use crate::caching::minute;
use crate::caching::numbered;
use crate::harness::Edge;
use crate::harness::Origin;
use crate::harness::Respond;
use crate::harness::ok;
use crate::harness::origin::Seen;

const ALICE: [(&str, &str); 1] = [("Authorization", "Basic YWxpY2U6MQ==")];
const BOB: [(&str, &str); 1] = [("Authorization", "Basic Ym9iOjE=")];

/// An origin that answers with what it was told in these fields.
fn echoing(directives: &'static str) -> (Origin, Edge) {
    let origin = Origin::script()
        .otherwise(move |seen| {
            let told = ["authorization", "x-forwarded-host", "x-original-url", "x-rewrite-url"]
                .map(|name| seen.values(name).join("+"));
            ok(format!(
                "{} {} {}",
                seen.target(),
                told.join(" "),
                String::from_utf8_lossy(&seen.body)
            ))
            .field("Cache-Control", directives)
        })
        .start();
    let edge = Edge::to(&origin);
    (origin, edge)
}

#[test]
fn an_answer_to_an_authorization_reaches_nobody_else() {
    let (_origin, edge) = echoing("max-age=60");
    let alice = edge.get_with("/", &ALICE);
    alice.expect_miss();
    edge.get_with("/", &ALICE).expect_miss();
    for reply in [edge.get_with("/", &BOB), edge.get("/")] {
        assert!(!reply.expect_miss().text().contains("YWxpY2"), "{reply:?}");
    }
}

#[test]
fn what_answers_nobody_in_particular_may_answer_an_authorization() {
    let (_origin, edge) = echoing("max-age=60");
    edge.get("/").expect_miss();
    edge.get_with("/", &ALICE).expect_hit();
}

#[test]
fn an_origin_may_share_what_answers_an_authorization() {
    for directives in ["max-age=60, public", "s-maxage=60", "max-age=60, must-revalidate"] {
        let origin =
            Origin::script().with("/", numbered(ok("").field("Cache-Control", directives))).start();
        let edge = Edge::to(&origin);
        edge.get_with("/", &ALICE).expect_miss();
        edge.get_with("/", &BOB).expect_hit().expect_body("answer 0");
    }
}

#[test]
fn a_guessed_lifetime_is_not_given_to_what_answers_a_cookie() {
    let modified = crate::caching::date(-86400);
    let origin =
        Origin::script().with("/", numbered(ok("").field("Last-Modified", &modified))).start();
    let edge = Edge::to(&origin);
    edge.get_with("/", &[("Cookie", "id=1")]).expect_miss();
    edge.get("/").expect_miss().expect_body("answer 1");
    edge.get("/").expect_hit();
}

#[test]
fn what_a_client_claims_about_itself_does_not_reach_the_stored_page() {
    for claim in ["X-Forwarded-Host", "X-Original-URL", "X-Rewrite-URL"] {
        let (origin, edge) = echoing("max-age=60");
        let planted = edge.get_with("/", &[(claim, "evil.test")]);
        assert!(!planted.expect_miss().text().contains("evil"), "{claim}: {planted:?}");
        let seen: Vec<Seen> = origin.seen();
        assert!(!format!("{:?}", seen[0].fields).contains("evil"), "{seen:?}");
        let victim = edge.get("/");
        assert!(!victim.expect_hit().text().contains("evil"), "{claim}: {victim:?}");
    }
}

#[test]
fn a_get_with_content_neither_reads_nor_fills() {
    let (origin, edge) = echoing("max-age=60");
    let mut wire = edge.wire();
    let fat = wire.request("GET", "edge.test", "/", &[], b"evil");
    assert_ne!(fat.value("x-cache"), Some("HIT"), "{fat:?}");
    let victim = wire.get("edge.test", "/", &[]);
    assert!(!victim.expect_miss().text().contains("evil"), "{victim:?}");
    let fat = wire.request("GET", "edge.test", "/", &[], b"other");
    assert_ne!(fat.value("x-cache"), Some("HIT"), "{fat:?}");
    let chunked = wire.request(
        "GET",
        "edge.test",
        "/",
        &[("Transfer-Encoding", "chunked")],
        b"4\r\nevil\r\n0\r\n\r\n",
    );
    assert_ne!(chunked.value("x-cache"), Some("HIT"), "{chunked:?}");
    let victim = wire.get("edge.test", "/", &[]);
    assert!(!victim.expect_hit().text().contains("evil"), "{victim:?}");
    assert_eq!(origin.seen().len(), 4);
}

#[test]
fn a_method_override_does_not_reach_the_origin_of_a_stored_page() {
    let origin = Origin::script()
        .otherwise(|seen| {
            let method = seen.value("x-http-method-override").or(seen.value("x-method-override"));
            minute(method.or(seen.value("x-http-method")).unwrap_or(seen.method()))
        })
        .start();
    let edge = Edge::to(&origin);
    for (at, name) in
        ["X-HTTP-Method-Override", "X-Method-Override", "X-HTTP-Method"].iter().enumerate()
    {
        let target = format!("/{at}");
        edge.get_with(&target, &[(name, "DELETE")]);
        edge.get(&target).expect_body("GET");
    }
}

#[test]
fn a_response_with_fields_for_one_only_is_stored_without_them() {
    let origin = Origin::always(
        ok("page")
            .field("Cache-Control", "max-age=60, private=\"X-Account\"")
            .field("X-Account", "1"),
    );
    let edge = Edge::to(&origin);
    assert_eq!(edge.get("/").expect_miss().value("x-account"), Some("1"));
    assert_eq!(edge.get("/").expect_hit().value("x-account"), None);
}

#[test]
fn a_response_may_name_its_cookie_private_and_be_stored_without_it() {
    let origin = Origin::always(
        ok("page")
            .field("Cache-Control", "max-age=60, private=\"Set-Cookie\"")
            .field("Set-Cookie", "id=1"),
    );
    let edge = Edge::to(&origin);
    assert_eq!(edge.get("/").expect_miss().value("set-cookie"), Some("id=1"));
    assert_eq!(edge.get("/").expect_hit().value("set-cookie"), None);
}

#[test]
fn what_a_trailer_says_changes_nothing_of_its_response() {
    let raw = |trailer: &str| {
        let head =
            "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nTransfer-Encoding: chunked\r\n\r\n";
        Respond::raw(format!("{head}5\r\nhello\r\n0\r\n{trailer}\r\n\r\n"))
    };
    for trailer in ["Cache-Control: no-store", "Set-Cookie: a=b", "Age: 100", "Vary: *"] {
        let edge = Edge::to(&Origin::always(raw(trailer)));
        let (first, second) = (edge.get("/"), edge.get("/"));
        for reply in [first.expect_miss(), second.expect_hit()] {
            reply.expect_status(200).expect_body("hello");
            let fields = ["cache-control", "set-cookie", "vary"].map(|name| reply.value(name));
            assert_eq!(fields, [Some("max-age=60"), None, None], "{trailer}");
        }
    }
}

#[test]
fn what_a_quoted_string_without_an_end_may_have_swallowed_counts() {
    for directives in [
        "max-age=600, x=\"\\\", private",
        "max-age=600, x=\"y, no-store",
        "max-age=600, x=\"\\\", private, z=\"\"",
    ] {
        let (origin, edge) = echoing(directives);
        edge.get("/").expect_miss();
        edge.get("/").expect_miss();
        assert_eq!(origin.seen().len(), 2, "{directives}");
    }
    let (_origin, edge) = echoing("max-age=600, x=\"y, no-store\"");
    edge.get("/").expect_miss();
    edge.get("/").expect_hit();
}
