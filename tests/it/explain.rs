//! `edgeproxy explain` and `POST /v1/explain`: what they say is what a request then gets.

use std::process::Command;
use std::process::Stdio;

use crate::harness::Edge;
use crate::harness::Origin;
use crate::harness::edge::binary;
use crate::harness::ok;
use crate::harness::origin::Seen;

/// Pages that are fresh for a minute and vary by language where their path says so.
fn pages() -> Origin {
    Origin::script()
        .otherwise(|seen: &Seen| {
            let page = ok("page").field("Surrogate-Key", "x y");
            match seen.target() {
                "/stale" => page.field("Cache-Control", "max-age=0, stale-while-revalidate=60"),
                "/old" => page.field("Cache-Control", "max-age=0").field("ETag", "\"1\""),
                "/secret" => page.field("Cache-Control", "no-store"),
                target if target.starts_with("/vary") => {
                    page.field("Cache-Control", "max-age=60").field("Vary", "Accept-Language")
                }
                _ => page.field("Cache-Control", "s-maxage=60"),
            }
        })
        .start()
}

fn edge(origin: &Origin) -> Edge {
    Edge::with(&format!(
        "listeners:\n  - {{name: http, address: \"127.0.0.1:0\"}}\n\
         upstreams:\n  origin:\n    addresses: [\"{}\"]\n\
         routes:\n  - {{name: off, match: {{path_prefix: /off}}, upstream: origin, cache: off}}\n  \
         - {{name: here, match: {{path: /here}}, respond: {{body: here}}}}\n  \
         - {{name: get, match: {{path: /get, methods: [GET]}}, upstream: origin}}\n  \
         - name: all\n    match: {{methods: [GET, POST]}}\n    upstream: origin\n    \
         cache: {{key: {{query: {{except: [utm]}}, sort_query: true, headers: [x-tenant]}}}}\n",
        origin.address
    ))
}

/// What it says, as JSON.
fn ask(edge: &Edge, target: &str, fields: &[(&str, &str)]) -> serde_json::Value {
    let question = serde_json::json!({
        "url": format!("http://edge.test{target}"),
        "headers": fields,
    });
    let reply = edge.admin_post("/v1/explain", &question.to_string());
    reply.expect_status(200);
    serde_json::from_str(&reply.text()).expect("JSON")
}

/// Asks before a request and sends it: both say the same.
#[track_caller]
fn agrees(edge: &Edge, target: &str, fields: &[(&str, &str)], status: &str) {
    let told = ask(edge, target, fields);
    assert_eq!(told["cache_status"], status, "{told:#}");
    let got = edge.get_with(target, fields);
    let got = got.value("cache-status").unwrap_or_default();
    // What the origin answers then nobody knows before.
    let got = got.replace("; fwd-status=200", "").replace("; stored", "");
    assert_eq!(got, status, "{target}");
}

/// What `edgeproxy explain` with these arguments prints.
fn run(edge: &Edge, arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(binary());
    command.args(["explain", "-c", "edge.yaml"]).args(arguments);
    command.current_dir(edge.folder().path()).env("NO_COLOR", "1").stdin(Stdio::null());
    let output = command.output().expect("the binary runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn it_says_what_the_request_then_gets() {
    let origin = pages();
    let edge = edge(&origin);
    agrees(&edge, "/a", &[], "edgeproxy; fwd=uri-miss");
    edge.get("/a").expect_hit();
    assert_eq!(ask(&edge, "/a", &[])["outcome"], "hit");
    agrees(&edge, "/stale", &[], "edgeproxy; fwd=uri-miss");
    assert_eq!(ask(&edge, "/stale", &[])["outcome"], "stale");
    agrees(&edge, "/old", &[], "edgeproxy; fwd=uri-miss");
    agrees(&edge, "/old", &[], "edgeproxy; fwd=stale; detail=stale");
    agrees(&edge, "/off", &[], "edgeproxy; fwd=bypass; detail=disabled");
    agrees(&edge, "/a", &[("If-Match", "*")], "edgeproxy; fwd=request; detail=precondition");
    agrees(&edge, "/vary", &[("Accept-Language", "de")], "edgeproxy; fwd=uri-miss");
    agrees(&edge, "/vary", &[("Accept-Language", "fr")], "edgeproxy; fwd=vary-miss");
    assert_eq!(ask(&edge, "/vary", &[("Accept-Language", "de")])["outcome"], "hit");
    assert_eq!(ask(&edge, "/vary", &[])["cache_status"], "edgeproxy; fwd=vary-miss");
}

#[test]
fn it_shows_the_key_the_variants_and_the_sum() {
    let origin = pages();
    let edge = edge(&origin);
    let tenant = ("X-Tenant", "t");
    for language in ["de", "fr"] {
        edge.get_with("/vary?b=1&a=2&utm=3", &[tenant, ("Accept-Language", language)])
            .expect_miss();
    }
    let told = ask(&edge, "/vary?a=2&b=1", &[tenant, ("Accept-Language", "de")]);
    assert_eq!(told["route"], "all");
    assert_eq!(told["key"]["upstream"], "origin");
    assert_eq!(told["key"]["query"], serde_json::json!(["a=2", "b=1"]));
    assert_eq!(told["key"]["headers"]["x-tenant"], serde_json::json!(["t"]));
    let variants = told["variants"].as_array().expect("a list");
    let selected: Vec<bool> = variants.iter().map(|variant| variant["selected"] == true).collect();
    assert_eq!(selected, [false, true], "the newest first: {told:#}");
    assert_eq!(variants[0]["vary"], serde_json::json!(["accept-language"]));
    assert_eq!(variants[0]["tags"], serde_json::json!(["x", "y"]));
    let freshness = &told["freshness"];
    assert_eq!((&freshness["lifetime"], &freshness["by"]), (&60.into(), &"max-age".into()));
    let number = |name: &str| freshness[name].as_i64().expect("a number");
    let left = 60 - number("age_at_arrival") - number("here");
    // Each part is cut to whole seconds by itself.
    assert!((left - number("remaining")).abs() <= 1, "{freshness}");
    edge.admin_post("/v1/purge", r#"{"tag": "x", "soft": true}"#).expect_status(200);
    let told = ask(&edge, "/vary?a=2&b=1", &[tenant, ("Accept-Language", "de")]);
    assert_eq!(told["freshness"]["by"], "a soft purge");
    assert_eq!(told["variants"][1]["softly_purged"], true);
}

#[test]
fn asking_changes_nothing() {
    let origin = pages();
    let edge = edge(&origin);
    edge.get("/a").expect_miss();
    edge.get("/a").expect_hit();
    edge.get("/stale").expect_miss();
    for _ in 0..3 {
        let told = ask(&edge, "/a", &[]);
        assert_eq!(told["variants"][0]["hits"], 1, "{told:#}");
        ask(&edge, "/stale", &[]);
        ask(&edge, "/b", &[]);
    }
    assert_eq!(origin.seen().len(), 2);
    edge.get("/b").expect_miss();
}

#[test]
fn what_is_not_stored_is_remembered_for_a_while() {
    let origin = pages();
    let edge = edge(&origin);
    assert_eq!(ask(&edge, "/secret", &[])["unstored_lately"], false);
    edge.get("/secret").expect_miss();
    let told = ask(&edge, "/secret", &[]);
    assert_eq!(told["unstored_lately"], true, "{told:#}");
    let change = told["change"].as_array().expect("a list");
    assert!(change[0].as_str().expect("text").contains("was not stored in the last minute"));
}

#[test]
fn what_needs_no_cache_says_so() {
    let edge = edge(&pages());
    let told = ask(&edge, "/here", &[]);
    assert_eq!(
        (&told["says"], &told["outcome"]),
        (&"answered 200 OK by the route".into(), &().into())
    );
    let question = r#"{"url": "http://edge.test/get", "method": "DELETE"}"#;
    let reply = edge.admin_post("/v1/explain", question);
    assert!(reply.text().contains("answered 405"), "{reply:?}");
    let only = [("Cache-Control", "only-if-cached")];
    let told = ask(&edge, "/a", &only);
    assert!(told["says"].as_str().expect("text").starts_with("answered 504"), "{told:#}");
    edge.get_with("/a", &only).expect_status(504);
}

#[test]
fn what_is_no_request_is_told() {
    let edge = edge(&pages());
    for (body, says) in [
        ("", "a JSON object is expected"),
        (r#"{"url": "edge.test/a"}"#, "write the scheme"),
        (r#"{"url": "http://edge.test/a", "method": "TRACE"}"#, "no request has the method"),
        (r#"{"url": "http://edge.test/a", "headers": [["Host", "x"]]}"#, "the URL says the host"),
        (r#"{"url": "http://edge.test/a", "headers": [["a b", "x"]]}"#, "is no field"),
        (r#"{"ulr": "http://edge.test/a"}"#, "unknown field `ulr`"),
    ] {
        let reply = edge.admin_post("/v1/explain", body);
        assert!(reply.expect_status(400).text().contains(says), "{body}: {reply:?}");
    }
    assert_eq!(edge.admin("GET", "/v1/explain").expect_status(405).value("allow"), Some("POST"));
}

#[test]
fn the_command_line_says_it_to_people_and_programs() {
    let edge = edge(&pages());
    edge.get("/a").expect_miss();
    let (code, said, err) = run(&edge, &["-H", "Accept-Language: de", "http://edge.test/./a"]);
    assert_eq!(code, Some(0), "{err}");
    for part in [
        "request    GET http://edge.test/a\n",
        "route      route: all\n",
        "key        http://edge.test/a, upstream origin, x-tenant: \n",
        "stored     * 200, 4 bytes, age ",
        "freshness  60 s (s-maxage) - ",
        "now        hit: served from the store: it is fresh\n           Cache-Status: edgeproxy; hit; ttl=",
        "change by  a purge\n",
    ] {
        assert!(said.contains(part), "no {part:?} in:\n{said}");
    }
    let (code, said, err) = run(&edge, &["--json", "--method", "POST", "http://edge.test/a"]);
    assert_eq!(code, Some(0), "{err}");
    let told: serde_json::Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!(told["cache_status"], "edgeproxy; fwd=method; detail=method");
    let (code, _, err) = run(&edge, &["edge.test/a"]);
    assert_eq!(code, Some(64), "{err}");
    assert!(err.contains("write the scheme"), "{err}");
    let (code, _, err) = run(&edge, &["-H", "nonsense", "http://edge.test/a"]);
    assert_eq!(code, Some(64), "{err}");
    assert!(err.contains("is no field"), "{err}");
}
