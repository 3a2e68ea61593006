//! Every configuration that is shipped: checked, started and asked a few things.

use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use tempfile::TempDir;

use crate::harness::Edge;
use crate::harness::Origin;
use crate::harness::Wire;
use crate::harness::edge::binary;
use crate::harness::http2;
use crate::harness::ok;

fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("conf").join(name)
}

/// The file with listeners on ports of their own, and with state and sockets in the test's folder.
fn adapted(name: &str, folder: &TempDir) -> PathBuf {
    let text = std::fs::read_to_string(shipped(name)).expect("the file is shipped");
    let here = folder.path().display();
    let mut lines = Vec::new();
    let mut section = String::new();
    for line in text.lines() {
        if !line.starts_with([' ', '#', '-']) && line.contains(':') {
            section = line.split(':').next().unwrap_or_default().to_owned();
        }
        // The console's sections are replaced whole below.
        if matches!(section.as_str(), "process" | "admin") {
            continue;
        }
        let key = line.trim_start().trim_start_matches("- ");
        let line = match key.starts_with("address:") && section == "listeners" {
            true => format!("{}address: \"127.0.0.1:0\"", &line[..line.len() - key.len()]),
            false => line.to_owned(),
        };
        lines.push(line);
    }
    lines.push(format!(
        "process: {{threads: 2, state_dir: {here}/state, upgrade_socket: {here}/upgrade.sock}}"
    ));
    lines.push(format!("admin: {{socket: {here}/admin.sock}}"));
    let path = folder.path().join("edge.yaml");
    std::fs::write(&path, lines.join("\n")).expect("the folder can be written to");
    path
}

/// Runs a shipped file in this environment.
fn start(name: &str, environment: &[(&str, &str)]) -> Edge {
    let folder = Arc::new(tempfile::tempdir().expect("a folder can be made"));
    let path = adapted(name, &folder);
    let mut command = Command::new(binary());
    command.arg("-c").arg(path).envs(environment.iter().copied());
    Edge::start(folder, command)
}

fn tls(edge: &Edge, name: &str) -> Wire {
    Wire::tls(edge.address("https"), name, &edge.root(), &["http/1.1"])
        .expect("the handshake succeeds")
}

#[test]
fn every_shipped_file_is_sound() {
    let files = std::fs::read_dir(shipped("")).expect("conf is there");
    let mut count = 0;
    for file in files {
        let path = file.expect("an entry").path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        let checked =
            Command::new(binary()).args(["-t", "-c"]).arg(&path).output().expect("the binary runs");
        let told = String::from_utf8_lossy(&checked.stderr).into_owned();
        assert!(checked.status.success(), "{}: {told}", path.display());
        assert!(!told.contains("warning"), "{}: {told}", path.display());
        count += 1;
    }
    assert!(count >= 5, "{count}");
}

#[test]
fn the_showcase_serves_its_demo_over_https_from_the_cache() {
    let edge = start("edge.yaml", &[]);
    let mut wire = tls(&edge, "localhost");
    let first = wire.get("localhost", "/", &[]);
    first.expect_status(200).expect_miss();
    assert!(first.text().contains("It works"), "{first:?}");
    let second = wire.get("localhost", "/", &[]);
    second.expect_status(200).expect_hit().expect_body(&first.text());
}

#[test]
fn the_showcase_shows_what_its_pages_promise() {
    let edge = start("edge.yaml", &[]);
    let mut wire = edge.wire();
    let mut get = |target: &str, fields: &[(&str, &str)]| wire.get("localhost", target, fields);

    get("/robots.txt", &[]).expect_status(200);
    let moved = get("/old/etag", &[]);
    assert_eq!(moved.expect_status(301).value("location"), Some("/etag"), "{moved:?}");

    get("/static/style.css?v=1", &[]).expect_miss();
    let style = get("/static/style.css?v=2", &[]);
    assert_eq!(style.expect_hit().value("x-content-type-options"), Some("nosniff"), "{style:?}");

    get("/api/time?b=1&a=2", &[]).expect_miss();
    get("/api/time?a=2&b=1", &[]).expect_hit();

    let german = [("Accept-Language", "de")];
    get("/vary", &[]).expect_miss();
    assert!(get("/vary", &german).expect_miss().text().starts_with("Guten Tag"));
    assert!(get("/vary", &german).expect_hit().text().starts_with("Guten Tag"));
    assert!(get("/vary", &[]).expect_hit().text().starts_with("Good day"));

    get("/etag", &[]).expect_miss();
    get("/etag", &[]).expect_status(200).expect_cache("REVALIDATED");

    for path in ["/private", "/no-store"] {
        let (first, second) = (get(path, &[]), get(path, &[]));
        assert_ne!(first.text(), second.text(), "{path}");
    }

    get("/slow?ms=50", &[]).expect_miss();
    get("/slow?ms=50", &[]).expect_hit();
    get("/unknown", &[]).expect_status(404);

    let large = get("/large?mib=2", &[]);
    assert_eq!(large.expect_miss().body.len(), 2 << 20);
    assert!(get("/large?mib=2", &[]).expect_hit().body == large.body);
    let part = get("/large?mib=2", &[("Range", "bytes=1000000-1000009")]);
    assert!(part.expect_status(206).body == large.body[1_000_000..1_000_010]);

    edge.wait_for_access("\"/vary\"");
}

#[test]
fn the_showcase_speaks_http_2_on_both_ports() {
    let edge = start("edge.yaml", &[]);
    http2::run(async {
        let mut plain = http2::plain(edge.address("http")).await;
        let reply = http2::get(&mut plain, "http://localhost/etag", &[]).await.expect("a reply");
        assert_eq!(reply.status, 200);
        let mut tls = http2::tls(edge.address("https"), "localhost", &edge.root()).await;
        for x_cache in ["MISS", "HIT"] {
            let reply = http2::get(&mut tls, "https://localhost/", &[]).await.expect("a reply");
            assert_eq!((reply.status, reply.value("x-cache")), (200, Some(x_cache)));
        }
    });
}

#[test]
fn the_gateway_shares_what_is_read_and_passes_what_is_written() {
    let users = Origin::script()
        .otherwise(|seen| ok(format!("users {} {}", seen.method(), seen.target())))
        .start();
    let orders = Origin::script()
        .otherwise(|seen| {
            let told = [seen.value("x-gateway"), seen.value("x-internal-user")];
            ok(format!("orders {} {told:?}", seen.target()))
        })
        .start();
    let edge = start(
        "api-gateway.yaml",
        &[("USERS", &users.address.to_string()), ("ORDERS", &orders.address.to_string())],
    );
    let mut wire = edge.wire();
    wire.get("api.test", "/health", &[]).expect_status(200).expect_body("{\"status\":\"ok\"}\n");
    wire.get("api.test", "/users?b=1&a=1", &[])
        .expect_miss()
        .expect_body("users GET /users?b=1&a=1");
    wire.get("api.test", "/users?a=1&b=1", &[]).expect_hit();
    let french = [("Accept-Language", "fr")];
    wire.get("api.test", "/users?a=1&b=1", &french).expect_miss();
    let posted = wire.request("POST", "api.test", "/users", &[], b"{}");
    posted.expect_body("users POST /users").expect_cache("BYPASS");
    let order = wire.get("api.test", "/v1/orders/7", &[("X-Internal-User", "root")]);
    order.expect_cache("BYPASS").expect_body("orders /orders/7 [Some(\"edgeproxy\"), None]");
    wire.get("api.test", "/v0/orders", &[]).expect_status(410);
    wire.get("api.test", "/nothing", &[]).expect_status(404);
    edge.get("/users%2fx").expect_status(400);
}

#[test]
fn the_group_of_backends_serves_while_one_of_them_does() {
    let [a, b, spare] = ["a", "b", "spare"].map(|name| Origin::always(ok(name)));
    let nobody = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback is there");
        listener.local_addr().expect("a bound socket has an address").to_string()
    };
    let (a_at, b_at, spare_at) =
        (a.address.to_string(), b.address.to_string(), spare.address.to_string());
    let environment = [("A", &*a_at), ("B", &b_at), ("C", &nobody), ("SPARE", &spare_at)];
    let edge = start("upstreams.yaml", &environment);
    for n in 0..12 {
        edge.get(&format!("/{n}")).expect_status(200);
    }
    let served = |origin: &Origin| origin.seen().len() - origin.seen_at("/health").len();
    assert_eq!((served(&a) + served(&b), served(&spare)), (12, 0));

    let environment = [("A", &*nobody), ("B", &nobody), ("C", &nobody), ("SPARE", &spare_at)];
    let edge = start("upstreams.yaml", &environment);
    edge.get("/").expect_status(200).expect_body("spare");
}

#[test]
fn the_routes_of_the_group_say_again_once_and_in_copy() {
    let hangs_up = Origin::script()
        .on("/health", ok("well"))
        .take_over("/search", |_, stream| drop(stream))
        .take_over("/pay", |_, stream| drop(stream))
        .otherwise(|_| ok("first"))
        .start();
    let [b, c, next] = ["b", "c", "next"].map(|name| Origin::always(ok(name)));
    let addresses = [&hangs_up, &b, &c, &next].map(|origin| origin.address.to_string());
    let names = ["A", "B", "C", "NEXT"];
    let environment: Vec<(&str, &str)> =
        names.into_iter().zip(addresses.iter().map(String::as_str)).collect();
    let edge = start("upstreams.yaml", &environment);
    let post = |path: &str| edge.wire().request("POST", "app.test", path, &[], b"q").status;
    // The first one takes half of them; it is asked in the end, and another one answers.
    let mut asked = 0;
    while hangs_up.seen_at("/search").is_empty() {
        assert_eq!(post("/search"), 200);
        asked += 1;
        assert!(asked < 100, "it gets its share");
    }
    let said: usize = [&hangs_up, &b, &c].map(|one| one.seen_at("/search").len()).iter().sum();
    assert!(said > asked, "{said} of {asked}");
    let mut paid = 0;
    while hangs_up.seen_at("/pay").is_empty() {
        post("/pay");
        paid += 1;
        assert!(paid < 100, "it gets its share");
    }
    let said: usize = [&hangs_up, &b, &c].map(|one| one.seen_at("/pay").len()).iter().sum();
    assert_eq!(said, paid, "each payment is said once");
    let mut wire = edge.wire();
    let mut copied = 0;
    while next.seen().is_empty() {
        wire.get("app.test", "/api/x", &[]).expect_status(200);
        copied += 1;
        assert!(copied < 1000, "one of ten is copied");
    }
    assert_eq!(next.seen()[0].target(), "/api/x");
}

#[test]
fn the_site_leads_to_https_and_keeps_its_files() {
    let origin =
        Origin::script().otherwise(|seen| ok(seen.target()).field("Set-Cookie", "a=1")).start();
    let address = origin.address.to_string();
    let environment = [("ORIGIN", &*address), ("SITE", "www.site.test"), ("PUBLIC_PORT", ":8443")];
    let edge = start("static-site.yaml", &environment);
    let moved = edge.wire().get("www.site.test", "/a?b=1", &[]);
    let location = moved.expect_status(308).value("location");
    assert_eq!(location, Some("https://www.site.test:8443/a?b=1"), "{moved:?}");
    assert!(Wire::tls(edge.address("https"), "other.test", &edge.root(), &[]).is_err());

    let mut wire = tls(&edge, "www.site.test");
    let mut get = |target: &str| wire.get("www.site.test", target, &[]);
    get("/css/site.css?v=1").expect_miss();
    let style = get("/css/site.css?v=2");
    style.expect_hit().expect_body("/css/site.css?v=1");
    assert_eq!(style.value("set-cookie"), None, "{style:?}");
    // A page that sets a cookie is somebody's own.
    let page = get("/page");
    assert!(page.value("strict-transport-security").is_some(), "{page:?}");
    get("/page").expect_miss();
}

#[test]
fn the_sidecar_caches_in_front_of_its_application() {
    let origin = Origin::script()
        .otherwise(|seen| ok(seen.target()).field("Cache-Control", "max-age=60"))
        .start();
    let address = origin.address.to_string();
    let edge = start("sidecar.yaml", &[("ORIGIN", &address)]);
    let listening = edge.wait_for_log("listening on ");
    let to = listening
        .split("http://")
        .nth(1)
        .and_then(|rest| rest.split(' ').next())
        .and_then(|address| address.parse().ok())
        .expect("an address is logged");
    let mut wire = Wire::plain(to);
    wire.get("app.test", "/a", &[]).expect_miss().expect_body("/a");
    wire.get("app.test", "/a", &[]).expect_hit();
}
