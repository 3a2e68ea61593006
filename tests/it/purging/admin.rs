//! `POST /v1/purge` on the admin listener: who may, what is refused, who is told.

use std::net::SocketAddr;
use std::process::Command;
use std::process::Stdio;

use crate::harness::Edge;
use crate::harness::Origin;
use crate::harness::Wire;
use crate::harness::edge::binary;
use crate::harness::edge::simple;
use crate::harness::edge::write_config;
use crate::process::free_address;
use crate::purging::purge;
use crate::purging::store;
use crate::purging::tagging;

/// With a token at a TCP address.
fn guarded(origin: &Origin) -> (Edge, SocketAddr) {
    let address = free_address();
    let edge = Edge::with(&simple(
        origin,
        &format!("admin: {{address: \"{address}\", token: \"let me in\"}}"),
    ));
    (edge, address)
}

fn ask(
    address: SocketAddr,
    method: &str,
    path: &str,
    token: Option<&str>,
) -> crate::harness::Reply {
    let value = token.map(|token| format!("Bearer {token}"));
    let fields: Vec<(&str, &str)> =
        value.iter().map(|value| ("Authorization", value.as_str())).collect();
    let body: &[u8] = if method == "POST" { b"{\"everything\": true}" } else { b"" };
    Wire::plain(address).request(method, "localhost", path, &fields, body)
}

#[test]
fn what_cannot_be_read_is_told_and_purges_nothing() {
    let origin = tagging();
    let edge = Edge::to(&origin);
    store(&edge, &["/?t"]);
    for (body, says) in [
        ("", "a JSON object is expected"),
        ("[]", "a JSON object is expected"),
        ("{}", "nothing is named"),
        (r#"{"tag": []}"#, "nothing is named"),
        (r#"{"tga": "t"}"#, "unknown field `tga`"),
        (r#"{"tag": 1}"#, "a text, or a list of texts"),
        (r#"{"tag": "t", "url": "/"}"#, "names no host"),
        (r#"{"tag": "t", "route": "al"}"#, r#"there is no route \"al\"; did you mean \"all\"?"#),
        (r#"{"tag": "t", "upstream": "x"}"#, r#"there is no upstream \"x\""#),
        (r#"{"tag": "t", "prefix": "edge.test/?a"}"#, "a prefix ends before the query"),
    ] {
        let reply = purge(&edge, body);
        reply.expect_status(400);
        assert_eq!(reply.value("content-type"), Some("application/json"));
        assert!(reply.text().contains(says), "{body}: {reply:?}");
    }
    let large = format!("{{\"tag\": \"{}\"}}", "a".repeat(300 << 10));
    purge(&edge, &large).expect_status(413);
    edge.get("/?t").expect_hit();
}

#[test]
fn only_post_purges() {
    let edge = Edge::to(&tagging());
    for method in ["GET", "PUT", "DELETE"] {
        let reply = edge.admin(method, "/v1/purge");
        assert_eq!(reply.expect_status(405).value("allow"), Some("POST"), "{method}");
    }
}

#[test]
fn with_a_token_only_who_has_it_may_ask() {
    let origin = tagging();
    let (edge, address) = guarded(&origin);
    store(&edge, &["/"]);
    for path in ["/v1/purge", "/cache/clear"] {
        for token in [None, Some(""), Some("let me"), Some("let me inn"), Some("LET ME IN")] {
            let reply = ask(address, "POST", path, token);
            reply.expect_status(401);
            assert_eq!(reply.value("www-authenticate"), Some("Bearer realm=\"edgeproxy\""));
        }
    }
    ask(address, "GET", "/metrics", None).expect_status(401);
    edge.get("/").expect_hit();
    // What watches over processes needs none.
    ask(address, "GET", "/healthz", None).expect_status(200);
    ask(address, "GET", "/readyz", None).expect_status(200);
    ask(address, "GET", "/metrics", Some("let me in")).expect_status(200);
    ask(address, "POST", "/v1/purge", Some("let me in")).expect_status(200);
    edge.get("/").expect_miss();
    ask(address, "POST", "/cache/clear", Some("let me in")).expect_body("1 object\n");
}

#[test]
fn a_web_page_may_not_ask_even_with_the_token() {
    let origin = tagging();
    let (_edge, address) = guarded(&origin);
    let fields = [("Authorization", "Bearer let me in"), ("Origin", "http://evil.example")];
    let body = b"{\"everything\": true}";
    Wire::plain(address)
        .request("POST", "localhost", "/v1/purge", &fields, body)
        .expect_status(403);
}

#[test]
fn outside_of_loopback_it_needs_a_token() {
    let check = |admin: &str| {
        let folder = tempfile::tempdir().expect("a folder can be made");
        std::fs::write(folder.path().join("token"), "let me in\n").expect("it can be written to");
        let path = write_config(&folder, &simple(&tagging(), &format!("admin: {admin}")));
        let mut command = Command::new(binary());
        command.arg("-t").arg("-c").arg(path).env("NO_COLOR", "1").stdin(Stdio::null());
        let output = command.output().expect("the binary runs");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, said) = check("{address: \"0.0.0.0:9180\"}");
    assert_eq!(code, Some(78), "{said}");
    assert!(
        said.contains("could be reached from outside") && said.contains("token_file"),
        "{said}"
    );
    let (code, said) = check("{address: \"0.0.0.0:9180\", token_file: token}");
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("crosses the network in plain text"), "{said}");
    let (code, said) = check("{address: \"127.0.0.1:9180\", token: \"a\", token_file: token}");
    assert_eq!(code, Some(78), "{said}");
    let (code, said) = check("{token_file: nowhere}");
    assert_eq!(code, Some(78), "{said}");
}

#[test]
fn every_purge_is_logged_and_counted() {
    let origin = tagging();
    let edge = Edge::to(&origin);
    store(&edge, &["/?t"]);
    purge(&edge, r#"{"tag": "t", "soft": true}"#).expect_status(200);
    let line = edge.wait_for_log("edgeproxy::audit");
    for part in
        ["purged", "way=admin", "from=unix", "what=tag", "which=t", "manner=soft", "objects=1"]
    {
        assert!(line.contains(part), "no {part} in: {line}");
    }
    assert_eq!(edge.metric("edgeproxy_cache_purges_total{manner=\"soft\",what=\"tag\"}"), 1.0);
    edge.admin("POST", "/cache/clear").expect_body("1 object\n");
    let line = edge.wait_for_log("what=everything");
    assert!(line.contains("edgeproxy::audit") && line.contains("manner=hard"), "{line}");
}
