//! `edgeproxy explain` and `POST /v1/explain`: what they say is what a request then gets.

use std::collections::BTreeSet;
use std::process::Command;
use std::process::Stdio;

use crate::harness::Edge;
use crate::harness::Origin;
use crate::harness::edge::binary;
use crate::harness::ok;
use crate::harness::origin::Seen;
use crate::harness::status;

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

/// An object of 40 KiB, of which ranges can be had; other answers by the path.
fn of_all_kinds() -> Origin {
    Origin::script()
        .otherwise(|seen: &Seen| {
            let path = seen.target().split('?').next().unwrap_or_default();
            let page = ok(vec![b'x'; 40 << 10]).field("ETag", "\"1\"");
            let page = page.field(
                "Cache-Control",
                match path {
                    _ if path.ends_with("/stale") => "max-age=0",
                    _ if path.ends_with("/swr") => "max-age=0, stale-while-revalidate=60",
                    _ if path.ends_with("/no-cache") => "no-cache",
                    _ if path.ends_with("/secret") => "no-store",
                    _ => "max-age=60",
                },
            );
            let range = seen.value("range").and_then(|range| {
                let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
                Some((
                    first.parse::<usize>().ok()?,
                    last.parse::<usize>().ok()?.min((40 << 10) - 1),
                ))
            });
            match (path, range, seen.value("if-none-match")) {
                (_, _, Some("\"1\"")) => {
                    status(304).field("ETag", "\"1\"").field("Cache-Control", "max-age=60")
                }
                ("/whole/search", ..) => page.field("No-Vary-Search", "params=(\"utm\")"),
                ("/whole/vary", ..) => page.field("Vary", "X-A"),
                ("/whole/both", ..) => {
                    page.field("Vary", "X-A").field("No-Vary-Search", "params=(\"utm\")")
                }
                // It knows no ranges.
                ("/sliced/whole" | "/ranged/whole", ..) | (_, None, _) => page,
                (_, Some((first, last)), _) => status(206)
                    .body(vec![b'x'; last - first + 1])
                    .field("Content-Range", &format!("bytes {first}-{last}/40960"))
                    .field("Cache-Control", "max-age=60")
                    .field("ETag", if path == "/sliced/weak" { "W/\"1\"" } else { "\"1\"" }),
            }
        })
        .start()
}

/// A request: a method, a target, fields.
type Case = (&'static str, &'static str, &'static [(&'static str, &'static str)]);

/// A GET that turns out to be what nobody could know before.
const UNKNOWN: &str = "unknown";

/// In this order: what one of them leaves in the store the next ones find.
const CASES: &[Case] = &[
    ("GET", "/whole/a", &[]),
    ("GET", "/whole/a", &[]),
    ("HEAD", "/whole/a", &[]),
    ("GET", "/whole/a", &[("Range", "bytes=5-9")]),
    ("GET", "/whole/a", &[("If-None-Match", "\"1\"")]),
    ("GET", "/whole/a", &[("If-Match", "\"1\"")]),
    ("GET", "/whole/a", &[("Cache-Control", "no-cache")]),
    ("GET", "/whole/a", &[("Cache-Control", "max-age=0")]),
    ("GET", "/whole/a", &[("Cache-Control", "only-if-cached")]),
    ("GET", "/whole/none", &[("Cache-Control", "only-if-cached")]),
    ("POST", "/whole/a", &[]),
    ("GET", "/whole/a", &[]),
    ("GET", "/whole/stale", &[]),
    ("GET", "/whole/stale", &[("Cache-Control", "only-if-cached")]),
    ("GET", "/whole/stale", &[("Cache-Control", "max-stale=60")]),
    ("GET", "/whole/stale", &[]),
    ("GET", "/whole/stale", &[]),
    ("GET", "/whole/no-cache", &[]),
    ("GET", "/whole/no-cache", &[]),
    ("GET", "/whole/swr", &[]),
    ("GET", "/whole/swr", &[]),
    ("GET", "/whole/secret", &[]),
    ("GET", "/whole/secret", &[]),
    ("GET", "/whole/vary", &[("X-A", "1")]),
    ("GET", "/whole/vary", &[("X-A", "2")]),
    ("GET", "/whole/vary", &[("X-A", "1")]),
    ("GET", "/whole/search?id=1&utm=1", &[]),
    ("GET", "/whole/search?id=1&utm=2", &[]),
    ("GET", "/whole/search?id=2&utm=2", &[]),
    ("GET", "/whole/both?utm=1", &[("X-A", "1")]),
    ("GET", "/whole/both?utm=2", &[("X-A", "2")]),
    ("GET", "/whole/both?utm=3", &[("X-A", "1")]),
    ("GET", "/whole/by?preview=1", &[]),
    ("GET", "/off/a", &[]),
    ("GET", "/named/a", &[]),
    ("GET", "/named/a", &[]),
    ("GET", "/sliced/a", &[("Range", "bytes=17000-17009")]),
    ("GET", "/sliced/a", &[("Range", "bytes=20000-20009")]),
    ("GET", "/sliced/a", &[("Range", "bytes=0-9")]),
    ("GET", "/sliced/a", &[("Range", "bytes=-5")]),
    ("GET", "/sliced/a", &[]),
    ("GET", "/sliced/a", &[]),
    ("HEAD", "/sliced/a", &[]),
    ("GET", "/sliced/whole", &[("Range", "bytes=0-9")]),
    ("GET", "/sliced/whole", &[("Range", "bytes=0-9")]),
    ("GET", "/sliced/whole", &[]),
    ("GET", "/sliced/whole", &[("Range", "bytes=0-9")]),
    (UNKNOWN, "/sliced/weak", &[("Range", "bytes=0-9")]),
    ("GET", "/sliced/weak", &[("Range", "bytes=0-9")]),
    ("GET", "/sliced/weak", &[]),
    ("GET", "/ranged/a", &[("Range", "bytes=0-99")]),
    ("GET", "/ranged/a", &[("Range", "bytes=10-19")]),
    ("GET", "/ranged/a", &[("Range", "bytes=100-199")]),
    ("GET", "/ranged/a", &[("Range", "bytes=50-149")]),
    ("GET", "/ranged/a", &[("Range", "bytes=50-249")]),
    ("GET", "/ranged/a", &[("Range", "bytes=50-249"), ("If-None-Match", "\"1\"")]),
    ("HEAD", "/ranged/a", &[]),
    ("GET", "/ranged/a", &[("Range", "bytes=900-999")]),
    ("GET", "/ranged/whole", &[("Range", "bytes=0-9")]),
    ("GET", "/ranged/whole", &[("Range", "bytes=0-9")]),
    ("GET", "/ranged/whole", &[("Range", "bytes=0-9")]),
];

/// What is known before the origin has answered: lifetimes aside, which run on.
fn known_before(status: &str) -> String {
    let mut parts =
        status.split("; ").map(|part| if part.starts_with("ttl=") { "ttl" } else { part });
    let name = parts.next().unwrap_or_default().to_owned();
    // Why the answer is not stored, which takes the place of why it was asked for.
    let of_the_answer = |part: &&str| {
        part.starts_with("fwd-status=")
            || ["stored", "collapsed", "detail=no-store", "detail=not-a-piece"].contains(part)
    };
    parts.filter(|part| !of_the_answer(part)).fold(name, |all, part| format!("{all}; {part}"))
}

#[test]
fn it_says_of_every_kind_of_request_what_that_then_gets() {
    let origin = of_all_kinds();
    let edge = Edge::with(&format!(
        "listeners:\n  - {{name: http, address: \"127.0.0.1:0\"}}\n\
         upstreams:\n  origin:\n    addresses: [\"{}\"]\n\
         routes:\n  - {{match: {{path_prefix: /off}}, upstream: origin, cache: off}}\n  \
         - {{match: {{path_prefix: /sliced}}, upstream: origin, cache: {{slice: 16KiB}}}}\n  \
         - {{match: {{path_prefix: /ranged}}, upstream: origin, cache: {{ranges: as-asked}}}}\n  \
         - {{match: {{path_prefix: /named}}, upstream: origin, \
         cache: {{key: {{host: www.test}}, normalise: {{headers: {{x-a: [\"1\"]}}}}}}}}\n  \
         - name: all\n    upstream: origin\n    cache:\n      client_directives: honour\n      \
         bypass: {{query: {{preview: present}}}}\n",
        origin.address
    ));
    let mut words = BTreeSet::new();
    for case @ (method, target, fields) in CASES {
        if *method == UNKNOWN {
            edge.get_with(target, fields).expect_status(206);
            continue;
        }
        let question = serde_json::json!({
            "url": format!("http://edge.test{target}"),
            "method": method,
            "headers": fields,
        });
        let told = edge.admin_post("/v1/explain", &question.to_string());
        let told: serde_json::Value = serde_json::from_str(&told.text()).expect("JSON");
        let got = edge.wire().request(method, "edge.test", target, fields, b"");
        // What is refreshed in the background, or read on behind a client, is done before the next one.
        edge.wait_for_gauge("edgeproxy_cache_fetches", 0.0);
        let said = told["cache_status"].as_str().map(known_before);
        let got_status = got.value("cache-status").map(known_before);
        assert_eq!(said, got_status, "{case:?}: {told:#} {:?}", got.fields);
        let outcome =
            told["outcome"].as_str().map(|outcome| match (outcome, got.value("x-cache")) {
                // Whether the origin confirms it nobody knows before.
                ("expired", Some("REVALIDATED")) => "REVALIDATED".to_owned(),
                (outcome, _) => outcome.to_ascii_uppercase(),
            });
        assert_eq!(outcome.as_deref(), got.value("x-cache"), "{case:?}");
        words.extend(said);
    }
    for word in [
        "hit; ttl",
        "fwd=uri-miss",
        "fwd=vary-miss",
        "fwd=stale; detail=stale",
        "fwd=stale; detail=no-cache",
        "fwd=request; detail=request-no-cache",
        "fwd=request; detail=request-max-age",
        "fwd=request; detail=precondition",
        "fwd=method; detail=method",
        "fwd=bypass; detail=disabled",
        "fwd=bypass; detail=route-bypass",
        "fwd=bypass; detail=unsliced",
        "hit; ttl; detail=stale-while-revalidate",
        "hit; ttl; detail=max-stale",
    ] {
        let word = format!("edgeproxy; {word}");
        assert!(words.contains(&word), "{word} was not tried: {words:?}");
    }
}

#[test]
fn it_shows_which_part_of_an_object_and_by_which_rule() {
    let origin = of_all_kinds();
    let edge = Edge::with(&format!(
        "listeners:\n  - {{name: http, address: \"127.0.0.1:0\"}}\n\
         upstreams:\n  origin:\n    addresses: [\"{}\"]\n\
         routes:\n  \
         - {{match: {{path_prefix: /sliced}}, upstream: origin, cache: {{slice: 16KiB}}}}\n  \
         - {{match: {{path_prefix: /ranged}}, upstream: origin, cache: {{ranges: as-asked}}}}\n  \
         - {{match: {{path_prefix: /named}}, upstream: origin, cache: {{key: {{host: www.test}}}}}}\n  \
         - {{name: all, upstream: origin}}\n",
        origin.address
    ));
    let range = ("Range", "bytes=17000-17009");
    edge.get_with("/sliced/a", &[range]).expect_miss();
    let told = ask(&edge, "/sliced/a", &[range]);
    assert_eq!((&told["key"]["piece"], &told["outcome"]), (&1.into(), &"hit".into()), "{told:#}");
    assert_eq!(told["variants"][0]["body"], 16 << 10);
    for part in ["bytes=0-99", "bytes=100-199"] {
        edge.get_with("/ranged/a", &[("Range", part)]).expect_miss();
    }
    let told = ask(&edge, "/ranged/a", &[("Range", "bytes=50-149")]);
    assert_eq!(told["key"]["range"], "50-149", "{told:#}");
    assert_eq!(told["variants"].as_array().map(Vec::len), Some(2), "both bring it: {told:#}");
    edge.get("/named/a").expect_miss();
    assert_eq!(ask(&edge, "/named/a", &[])["key"]["host"], "www.test");
    edge.get("/whole/search?id=1&utm=1").expect_miss();
    let told = ask(&edge, "/whole/search?utm=2&id=1", &[]);
    assert_eq!(told["key"]["no_vary_search"], "params=(\"utm\")", "{told:#}");
    assert_eq!(told["key"]["query"], serde_json::json!(["id=1"]));
    let (_, said, err) = run(&edge, &["http://edge.test/whole/search?id=1"]);
    assert!(
        said.contains("?id=1, upstream origin, by No-Vary-Search: params=(\"utm\")"),
        "{said}{err}"
    );
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
fn how_seldom_something_is_asked_for_is_told() {
    let origin = pages();
    let edge = Edge::with(&format!(
        "listeners:\n  - {{name: http, address: \"127.0.0.1:0\"}}\n\
         upstreams:\n  origin: {{addresses: [\"{}\"]}}\n\
         routes:\n  - upstream: origin\n    cache: {{min_uses: 3, slice: 16KiB}}\n",
        origin.address
    ));
    let change = |fields: &[(&str, &str)]| {
        let told = ask(&edge, "/a", fields);
        (told["cache_status"].clone(), told["change"][0].as_str().expect("text").to_owned())
    };
    let range = [("Range", "bytes=0-1")];
    for _ in 0..2 {
        let (status, more) = change(&range);
        assert_eq!(status, "edgeproxy; fwd=uri-miss; detail=min-uses");
        assert!(more.contains("`min_uses`"), "{more}");
        let (status, more) = change(&[]);
        assert_eq!(status, "edgeproxy; fwd=uri-miss");
        assert!(more.contains("`min_uses`"), "{more}");
        let got = edge.get_with("/a", &range);
        assert!(got.value("cache-status").unwrap().ends_with("detail=min-uses"), "{got:?}");
    }
    for fields in [&range[..], &[]] {
        let (status, more) = change(fields);
        assert_eq!(status, "edgeproxy; fwd=uri-miss");
        assert!(more.contains("one request for it"), "{more}");
    }
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
