//! Backends come, change and go while requests are served, and no request is lost by it.

mod cli;
mod relocate;
mod state;

use std::io::Write;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

use serde_json::Value;

use super::before;
use super::nobody;
use super::with;
use crate::harness::Authority;
use crate::harness::Edge;
use crate::harness::Origin;
use crate::harness::PATIENCE;
use crate::harness::Reply;
use crate::harness::Wire;
use crate::harness::client::End;
use crate::harness::ok;
use crate::harness::status;
use crate::process::free_address;

/// What the admin listener says in JSON.
fn json(reply: &Reply) -> Value {
    serde_json::from_slice(&reply.body).unwrap_or_else(|e| panic!("{e}: {reply:?}"))
}

/// The upstream `app` as it is listed.
fn app(edge: &Edge) -> Value {
    json(edge.admin("GET", "/v1/upstreams/app").expect_status(200))
}

/// The ids of its backends.
fn ids(edge: &Edge) -> Vec<String> {
    let app = app(edge);
    let backends = app["backends"].as_array().expect("a list");
    backends.iter().map(|one| one["id"].as_str().expect("a text").to_owned()).collect()
}

fn add(edge: &Edge, body: &str) -> Reply {
    edge.admin_post("/v1/upstreams/app/backends", body)
}

/// Adds this origin under this id.
#[track_caller]
fn add_origin(edge: &Edge, id: &str, origin: &Origin) {
    let body = format!("{{\"id\": \"{id}\", \"address\": \"{}\"}}", origin.address);
    add(edge, &body).expect_status(201);
}

fn act(edge: &Edge, method: &str, id: &str, body: &str) -> Reply {
    edge.admin_says(method, &format!("/v1/upstreams/app/backends/{id}"), body)
}

/// Clients that ask again and again until they are told to stop; what was no 200 is kept.
struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<thread::JoinHandle<Vec<Reply>>>,
}

impl Load {
    fn on(edge: &Edge) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let address = edge.address("http");
        let clients = (0..3).map(|_| {
            let stop = Arc::clone(&stop);
            thread::spawn(move || {
                let mut wire = Wire::plain(address);
                let mut failed = Vec::new();
                while !stop.load(Ordering::SeqCst) {
                    let reply = wire.get("edge.test", "/", &[]);
                    if reply.status != 200 {
                        failed.push(reply);
                    } else if reply.value("connection") == Some("close") {
                        // After so many requests a connection is closed, on which a fast program comes soon.
                        wire = Wire::plain(address);
                    }
                }
                failed
            })
        });
        let clients = clients.collect();
        Self { stop, clients }
    }

    #[track_caller]
    fn expect_all_served(self) {
        self.stop.store(true, Ordering::SeqCst);
        for client in self.clients {
            let failed = client.join().expect("a client does not panic");
            assert!(failed.is_empty(), "{failed:?}");
        }
    }
}

/// An origin whose `/slow` sends a half, and the other one when it is told to; it says when it has begun.
fn slow() -> (Origin, mpsc::Sender<()>, mpsc::Receiver<()>) {
    let (go, wait) = mpsc::channel::<()>();
    let (began, begun) = mpsc::channel();
    let (wait, began) = (Mutex::new(wait), Mutex::new(began));
    let origin = Origin::script()
        .otherwise(|_| ok("slow"))
        .take_over("/slow", move |_, mut stream| {
            let half = "a".repeat(5000);
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n{half}").expect("sent");
            began.lock().expect("no panic").send(()).expect("the test waits");
            let _ = wait.lock().expect("no panic").recv();
            write!(stream, "{half}").expect("sent");
        })
        .start();
    (origin, go, begun)
}

#[test]
fn a_backend_that_is_added_under_load_gets_its_share_and_no_request_fails() {
    let (first, second) = (Origin::always(ok("first")), Origin::always(ok("second")));
    let edge = before(&[&first], "");
    let load = Load::on(&edge);
    first.wait_for(30);
    add_origin(&edge, "second", &second);
    second.wait_for(30);
    act(&edge, "DELETE", "b0", "").expect_status(200);
    let left = first.seen().len();
    second.wait_for(second.seen().len() + 60);
    // Those that had been lent before, one for each client.
    assert!(first.seen().len() <= left + 3, "{left} and then {}", first.seen().len());
    load.expect_all_served();
    assert_eq!(ids(&edge), ["second"]);
}

#[test]
fn shares_follow_the_weight_and_what_is_known_stays() {
    let (a, b) = (Origin::always(ok("a")), Origin::always(ok("b")));
    let edge = before(&[&a, &b], "");
    for _ in 0..4 {
        edge.get("/").expect_status(200);
    }
    assert_eq!([a.seen().len(), b.seen().len()], [2, 2]);
    let changed = act(&edge, "PATCH", "b1", "{\"weight\": 3}");
    let view = json(changed.expect_status(200));
    assert_eq!((&view["weight"], &view["addresses"][0]["requests"]), (&3.into(), &2.into()));
    for _ in 0..8 {
        edge.get("/").expect_status(200);
    }
    assert_eq!([a.seen().len(), b.seen().len()], [4, 8]);

    act(&edge, "PATCH", "b1", "{\"active\": false}").expect_status(200);
    edge.get("/").expect_body("a");
    edge.get("/").expect_body("a");
    act(&edge, "PATCH", "b1", "{\"active\": true}").expect_status(200);
    act(&edge, "PATCH", "b0", "{\"backup\": true}").expect_status(200);
    edge.get("/").expect_body("b");
    edge.get("/").expect_body("b");
    let line = edge.wait_for_log("backend changed");
    for part in
        ["edgeproxy::audit", "way=admin", "from=unix", "upstream=app", "backend=b1", "set=weight:3"]
    {
        assert!(line.contains(part), "no {part} in: {line}");
    }
}

#[test]
fn a_drained_backend_ends_its_download_and_gets_nothing_new() {
    let (slow, go, begun) = slow();
    let other = Origin::always(ok("other"));
    let edge = with(
        &format!(
            "{{id: slow, address: \"{}\"}}, {{id: other, address: \"{}\", backup: true}}",
            slow.address, other.address
        ),
        "",
    );
    let mut wire = edge.wire();
    wire.send("GET /slow HTTP/1.1\r\nHost: edge.test\r\n\r\n");
    begun.recv_timeout(PATIENCE).expect("the download begins");

    let drained = json(act(&edge, "POST", "slow/drain", "").expect_status(200));
    assert_eq!(drained["draining"], true);
    let address = &drained["addresses"][0];
    assert_eq!((&address["state"], &address["in_flight"]), (&"draining".into(), &1.into()));
    for _ in 0..5 {
        edge.get("/").expect_body("other");
    }
    go.send(()).expect("it waits");
    let reply = wire.reply();
    assert_eq!((reply.status, reply.body.len(), reply.end), (200, 10_000, End::Whole));
    assert_eq!(slow.seen().len(), 1);

    act(&edge, "POST", "slow/undrain", "").expect_status(200);
    edge.get("/").expect_body("slow");
}

#[test]
fn a_removed_backend_ends_its_download_and_is_listed_until_then() {
    let (slow, go, begun) = slow();
    let other = Origin::always(ok("other"));
    let edge = before(&[&slow], "");
    let mut wire = edge.wire();
    wire.send("GET /slow HTTP/1.1\r\nHost: edge.test\r\n\r\n");
    begun.recv_timeout(PATIENCE).expect("the download begins");

    let last = act(&edge, "DELETE", "b0", "");
    assert!(last.expect_status(409).text().contains("the only backend"), "{last:?}");
    add_origin(&edge, "other", &other);
    let removed = json(act(&edge, "DELETE", "b0", "").expect_status(200));
    assert_eq!(removed, serde_json::json!({"removed": "b0", "in_flight": 1}));
    let left =
        serde_json::json!([{"label": "b0", "address": slow.address.to_string(), "in_flight": 1}]);
    assert_eq!(app(&edge)["leaving"], left);
    for _ in 0..5 {
        edge.get("/").expect_body("other");
    }
    go.send(()).expect("it waits");
    let reply = wire.reply();
    assert_eq!((reply.status, reply.body.len(), reply.end), (200, 10_000, End::Whole));
    let since = Instant::now();
    while app(&edge)["leaving"] != serde_json::json!([]) {
        assert!(since.elapsed() < PATIENCE, "it leaves in the end");
    }
    act(&edge, "GET", "b0", "").expect_status(404);
    let up = edge.metrics("edgeproxy_backend_up{");
    assert!(up.len() == 1 && up[0].contains("backend=\"other\""), "{up:?}");
}

#[test]
fn what_was_added_is_told_although_another_admin_removes_it_at_once() {
    let origin = Origin::always(ok("a"));
    let edge = before(&[&origin], "");
    let over = AtomicBool::new(false);
    let mut removed = 0;
    thread::scope(|scope| {
        let removing = scope.spawn(|| {
            let mut removed = 0;
            while !over.load(Ordering::SeqCst) {
                let reply = edge.admin("DELETE", "/v1/upstreams/app/backends/x");
                assert!([200, 404].contains(&reply.status), "{reply:?}");
                removed += usize::from(reply.status == 200);
            }
            removed
        });
        for n in 0..100 {
            // As a name it is looked up before this is answered.
            let address = [nobody().to_string(), "localhost:1".to_owned()][n % 2].clone();
            let backend = format!("{{\"id\": \"x\", \"address\": \"{address}\"}}");
            let reply = edge.admin_post("/v1/upstreams/app/backends", &backend);
            match reply.status {
                // The last one is still there.
                409 => {}
                _ => assert_eq!(json(reply.expect_status(201))["address"], address),
            }
        }
        over.store(true, Ordering::SeqCst);
        removed = removing.join().expect("every removal is answered");
    });
    assert!(removed > 0, "they met");
}

#[test]
fn a_backend_that_comes_again_is_a_new_one() {
    let (a, b) = (Origin::always(ok("a")), Origin::always(ok("b")));
    let edge = before(&[&a, &b], "");
    edge.get("/").expect_status(200);
    edge.get("/").expect_status(200);
    act(&edge, "DELETE", "b0", "").expect_status(200);
    add_origin(&edge, "b0", &a);
    let view = json(act(&edge, "GET", "b0", "").expect_status(200));
    assert_eq!(view["addresses"][0]["requests"], 0);
    edge.get("/").expect_status(200);
    edge.get("/").expect_status(200);
    assert_eq!(a.seen().len(), 2);
    assert_eq!(a.connections(), 2, "its idle connection went with it");
}

#[test]
fn the_listing_has_all_that_is_known() {
    let origin = Origin::always(ok("here"));
    let addresses = format!(
        "{{id: here, address: \"{}\"}}, {{id: gone, address: \"{}\", backup: true, weight: 2}}",
        origin.address,
        nobody()
    );
    let edge = with(&addresses, "    breaker: {failures: 1}\n");
    edge.get("/").expect_status(200);
    edge.get("/").expect_status(200);
    act(&edge, "PATCH", "here", "{\"active\": false}").expect_status(200);
    edge.get("/").expect_status(502);
    act(&edge, "PATCH", "here", "{\"active\": true}").expect_status(200);

    let all = json(edge.admin("GET", "/v1/upstreams").expect_status(200));
    let app = &all["upstreams"][0];
    assert_eq!(app["name"], "app");
    assert_eq!((&app["balance"], &app["protocol"]), (&"round_robin".into(), &"http1".into()));
    assert_eq!(app["drift"], Value::Null);
    let here = &app["backends"][0];
    assert_eq!(here["address"], origin.address.to_string());
    let at = &here["addresses"][0];
    assert_eq!((&at["label"], &at["state"]), (&"here".into(), &"up".into()));
    assert_eq!(at["requests"], 2);
    assert_eq!(at["answers"], 2);
    assert_eq!(at["success_rate"], 1.0);
    assert!(at["mean_response_ms"].as_f64().is_some_and(|ms| ms > 0.0), "{at}");
    assert_eq!(at["breaker"]["state"], "closed");
    let pool = &at["pool"];
    assert_eq!(
        (&pool["created"], &pool["reused"], &pool["idle"]),
        (&1.into(), &1.into(), &1.into())
    );
    let gone = &app["backends"][1];
    assert_eq!((&gone["weight"], &gone["backup"]), (&2.into(), &true.into()));
    let at = &gone["addresses"][0];
    assert_eq!(at["state"], "breaker_open");
    assert_eq!((&at["failures"], &at["success_rate"]), (&1.into(), &0.0.into()));
    assert_eq!((&at["breaker"]["state"], &at["breaker"]["opened"]), (&"open".into(), &1.into()));
    assert!(at["breaker"]["open_for_ms"].as_u64().is_some_and(|ms| ms > 0), "{at}");
    assert_eq!(
        edge.metric("edgeproxy_backend_pool_created_total{upstream=\"app\",backend=\"here\""),
        1.0
    );
    assert_eq!(
        edge.metric("edgeproxy_backend_pool_failed_total{upstream=\"app\",backend=\"gone\""),
        1.0
    );

    let reset = json(act(&edge, "POST", "gone/breaker/reset", "").expect_status(200));
    assert_eq!(reset["addresses"][0]["breaker"]["state"], "closed");
    edge.wait_for_log("circuit breaker reset");
}

#[test]
fn health_is_checked_by_hand_and_listed() {
    let well = Arc::new(AtomicBool::new(true));
    let is_well = Arc::clone(&well);
    let origin = Origin::script()
        .with("/health", move |_| status(if is_well.load(Ordering::SeqCst) { 200 } else { 500 }))
        .otherwise(|_| ok("here"))
        .start();
    let spare = Origin::script().on("/health", ok("")).otherwise(|_| ok("spare")).start();
    let edge = before(
        &[&origin, &spare],
        "    health: {path: /health, interval: 10m, timeout: 5s, rise: 1, fall: 1}\n",
    );
    let all = json(edge.admin_post("/v1/upstreams/app/check", "").expect_status(200));
    let checked = all["checked"].as_array().expect("a list");
    assert_eq!(checked.len(), 2, "{all}");
    assert_eq!((&checked[0]["backend"], &checked[0]["error"]), (&"b0".into(), &Value::Null));
    assert_eq!(checked[0]["state"], "healthy");
    well.store(false, Ordering::SeqCst);
    let one = json(act(&edge, "POST", "b0/check", "").expect_status(200));
    assert_eq!(one["checked"].as_array().map(Vec::len), Some(1));
    assert_eq!(one["checked"][0]["state"], "unhealthy");
    let view = json(act(&edge, "GET", "b0", "").expect_status(200));
    let at = &view["addresses"][0];
    assert_eq!(at["state"], "unhealthy");
    let health = &at["health"];
    assert_eq!((&health["passed"], &health["failed"]), (&1.into(), &1.into()));
    assert_eq!(health["failed_in_a_row"], 1);
    assert!(health["last_error"].as_str().is_some_and(|why| why.contains("500")), "{health}");
    assert!(health["response_ms"].as_f64().is_some_and(|ms| ms > 0.0), "{health}");
    edge.get("/").expect_body("spare");
    edge.get("/").expect_body("spare");
    act(&edge, "POST", "b9/check", "").expect_status(404);
    edge.wait_for_log("health checked by hand");

    // One that was added is checked like the others.
    let late = Origin::always(status(503));
    add_origin(&edge, "late", &late);
    act(&edge, "POST", "late/check", "").expect_status(200);
    let view = json(act(&edge, "GET", "late", "").expect_status(200));
    assert_eq!(view["addresses"][0]["state"], "unhealthy");
}

#[test]
fn where_backends_come_unknown_one_that_is_added_has_to_pass_first() {
    let well = Arc::new(AtomicBool::new(false));
    let is_well = Arc::clone(&well);
    let old = Origin::script().on("/health", ok("")).otherwise(|_| ok("old")).start();
    let new = Origin::script()
        .with("/health", move |_| status(if is_well.load(Ordering::SeqCst) { 200 } else { 500 }))
        .otherwise(|_| ok("new"))
        .start();
    let edge = before(
        &[&old],
        "    health: {path: /health, interval: 10m, timeout: 5s, rise: 1, fall: 1, initial: unknown}\n",
    );
    edge.wait_for_log("backend healthy");
    add_origin(&edge, "new", &new);
    edge.wait_for_log("backend unhealthy");
    for _ in 0..4 {
        edge.get("/").expect_body("old");
    }
    well.store(true, Ordering::SeqCst);
    act(&edge, "POST", "new/check", "").expect_status(200);
    let mut bodies = [edge.get("/").text(), edge.get("/").text()];
    bodies.sort();
    assert_eq!(bodies, ["new", "old"]);
}

#[test]
fn without_health_checks_none_can_be_asked_for() {
    let origin = Origin::always(ok("here"));
    let edge = before(&[&origin], "    health: off\n");
    let reply = edge.admin_post("/v1/upstreams/app/check", "");
    assert!(reply.expect_status(409).text().contains("`health` is off"), "{reply:?}");
    edge.admin("GET", "/v1/upstreams/app/check").expect_status(405);
}

#[test]
fn a_name_is_looked_up_and_a_url_brings_its_own_tls() {
    let authority = Authority::new();
    let secure = Origin::script()
        .otherwise(|_| ok("secure"))
        .start_tls(authority.server(&["localhost"], &[]));
    let plain = Origin::always(ok("plain"));
    let edge = before(&[&plain], "");
    let folder = edge.folder().path();
    let body = format!(
        "{{\"id\": \"secure\", \"address\": \"https://localhost:{}\", \"tls\": {{\"ca\": \"{}\"}}}}",
        secure.address.port(),
        authority.write(folder).display()
    );
    let added = json(add(&edge, &body).expect_status(201));
    assert_eq!(added["tls"], true);
    assert!(!added["addresses"].as_array().expect("a list").is_empty(), "{added}");
    act(&edge, "DELETE", "b0", "").expect_status(200);
    edge.get("/").expect_body("secure");
    let name = format!("{{\"address\": \"localhost:{}\"}}", plain.address.port());
    let added = json(add(&edge, &name).expect_status(201));
    assert_eq!(added["id"], format!("localhost:{}", plain.address.port()));
    act(&edge, "DELETE", "secure", "").expect_status(200);
    edge.get("/").expect_body("plain");
}

#[test]
fn an_id_may_be_a_url() {
    let (a, b) = (Origin::always(ok("a")), Origin::always(ok("b")));
    let edge = with(&format!("\"http://{}\", \"{}\"", a.address, b.address), "");
    let id = format!("http:%2F%2F{}", a.address);
    act(&edge, "POST", &format!("{id}/drain"), "").expect_status(200);
    edge.get("/").expect_body("b");
    edge.get("/").expect_body("b");
}

#[test]
fn what_makes_no_sense_is_told_and_changes_nothing() {
    let (a, b) = (Origin::always(ok("a")), Origin::always(ok("b")));
    let edge = before(&[&a, &b], "    breaker: off\n");
    let here = a.address.to_string();
    let same = format!("{{\"id\": \"c\", \"address\": \"{here}\"}}");
    let backends = "/v1/upstreams/app/backends";
    let b0 = "/v1/upstreams/app/backends/b0";
    for (method, path, body, status, says) in [
        ("POST", backends, "", 400, "a JSON object is expected"),
        ("POST", backends, "\"10.0.0.1:80\"", 400, "a JSON object is expected"),
        ("POST", backends, "{}", 400, "write where it is"),
        ("POST", backends, "{\"adress\": \"a:1\"}", 400, "unknown field `adress`"),
        ("POST", backends, "{\"address\": \"a\"}", 400, "add the port"),
        ("POST", backends, "{\"address\": \"http://a/b\"}", 400, "an address has no path"),
        (
            "POST",
            backends,
            "{\"address\": \"a:1\", \"weight\": 0}",
            400,
            "weight: 0 is out of range; from 1 to 1000",
        ),
        (
            "POST",
            backends,
            "{\"address\": \"a:1\", \"weight\": \"x\"}",
            400,
            "a JSON object is expected",
        ),
        (
            "POST",
            backends,
            "{\"address\": \"a:1\", \"id\": \"a/b\"}",
            400,
            "is no id for a backend",
        ),
        (
            "POST",
            backends,
            "{\"address\": \"unix:a\", \"id\": \"a\"}",
            400,
            "begin it with a slash",
        ),
        ("POST", backends, "{\"address\": \"unix:/a\"}", 400, "a socket needs an `id`"),
        ("POST", backends, "{\"address\": \"demo\"}", 400, "in the configuration only"),
        (
            "POST",
            backends,
            "{\"address\": \"a:1\", \"tls\": {\"ca\": \"/nowhere\"}}",
            400,
            "/nowhere",
        ),
        (
            "POST",
            backends,
            "{\"address\": \"a:1\", \"id\": \"b0\"}",
            409,
            "a backend of this id already",
        ),
        ("POST", backends, &same, 409, "\\\"b0\\\" is the same one"),
        (
            "POST",
            "/v1/upstreams/ap/backends",
            "{\"address\": \"a:1\"}",
            404,
            "did you mean \\\"app\\\"?",
        ),
        ("PATCH", b0, "{}", 400, "nothing is to change"),
        ("PATCH", b0, "{\"weight\": 1001}", 400, "weight: 1001 is out of range"),
        ("PATCH", b0, "{\"weight\": -1}", 400, "a JSON object is expected"),
        ("PATCH", b0, "{\"adress\": \"a:1\"}", 400, "unknown field `adress`"),
        ("PATCH", b0, "{\"weight\": null}", 400, "a JSON object is expected"),
        (
            "PATCH",
            "/v1/upstreams/app/backends/b9",
            "{\"weight\": 2}",
            404,
            "there are these backends: b0, b1",
        ),
        ("DELETE", "/v1/upstreams/app/backends/b9", "", 404, "no backend \\\"b9\\\""),
        ("POST", "/v1/upstreams/app/backends/b9/drain", "", 404, "no backend"),
        ("POST", "/v1/upstreams/app/backends/b0/breaker/reset", "", 409, "`breaker` is off"),
        ("GET", "/v1/upstreams/nobody", "", 404, "no upstream"),
        ("GET", "/v1/upstreams/app/backend", "", 404, "There is"),
        ("PUT", "/v1/upstreams", "", 405, "Use GET"),
        ("PUT", b0, "", 405, "Use GET, HEAD, PATCH, DELETE"),
        ("GET", "/v1/upstreams/app/backends/b0/drain", "", 405, "Use POST"),
        ("DELETE", backends, "", 405, "Use GET, HEAD, POST"),
    ] {
        let reply = edge.admin_says(method, path, body);
        assert_eq!(reply.status, status, "{method} {path} {body}: {reply:?}");
        assert!(reply.text().contains(says), "{method} {path} {body}: {reply:?}");
    }
    let large = format!("{{\"address\": \"{}\"}}", "a".repeat(300 << 10));
    add(&edge, &large).expect_status(413);
    assert_eq!(ids(&edge), ["b0", "b1"]);
    assert_eq!(app(&edge)["drift"], Value::Null);
}

#[test]
fn changes_at_once_from_many_sides_are_all_made() {
    let (a, b) = (Origin::always(ok("a")), Origin::always(ok("b")));
    let edge = before(&[&a, &b], "");
    let load = Load::on(&edge);
    thread::scope(|scope| {
        for n in 0..6 {
            let edge = &edge;
            scope.spawn(move || {
                for round in 0..5 {
                    // Addresses of their own, and nobody there: all of it goes to the others.
                    let id = format!("t{n}-{round}");
                    let body = format!(
                        "{{\"id\": \"{id}\", \"address\": \"127.0.0.1:{}\", \"active\": false}}",
                        2000 + n * 10 + round
                    );
                    add(edge, &body).expect_status(201);
                    let weight = format!("{{\"weight\": {}}}", n + 2);
                    act(edge, "PATCH", &id, &weight).expect_status(200);
                    act(edge, "POST", &format!("{id}/drain"), "").expect_status(200);
                    if round < 4 {
                        act(edge, "DELETE", &id, "").expect_status(200);
                    }
                }
            });
        }
    });
    load.expect_all_served();
    let mut left = ids(&edge);
    left.sort();
    assert_eq!(left, ["b0", "b1", "t0-4", "t1-4", "t2-4", "t3-4", "t4-4", "t5-4"]);
    for n in 0..6 {
        let view = json(act(&edge, "GET", &format!("t{n}-4"), "").expect_status(200));
        assert_eq!((&view["weight"], &view["draining"]), (&(n + 2).into(), &true.into()));
    }
    assert_eq!(edge.metric("edgeproxy_upstream_drift{"), 6.0);
}

#[test]
fn with_a_token_only_who_has_it_may_see_or_change() {
    let origin = Origin::always(ok("a"));
    let at = free_address();
    let admin = format!("admin: {{address: \"{at}\", token: \"let me in\"}}\n");
    let yaml = crate::harness::edge::simple(&origin, &admin);
    let _edge = Edge::with(&yaml);
    let ask = |method: &str, path: &str, token: Option<&str>| {
        let value = token.map(|token| format!("Bearer {token}"));
        let fields: Vec<(&str, &str)> =
            value.iter().map(|value| ("Authorization", value.as_str())).collect();
        Wire::plain(at).request(method, "localhost", path, &fields, b"")
    };
    let drain = format!("/v1/upstreams/origin/backends/{}/drain", origin.address);
    for token in [None, Some("let me"), Some("LET ME IN")] {
        ask("GET", "/v1/upstreams", token).expect_status(401);
        ask("POST", &drain, token).expect_status(401);
    }
    ask("GET", "/v1/upstreams", Some("let me in")).expect_status(200);
    ask("POST", &drain, Some("let me in")).expect_status(200);
    let fields = [("Authorization", "Bearer let me in"), ("Origin", "http://evil.example")];
    Wire::plain(at).request("POST", "localhost", &drain, &fields, b"").expect_status(403);
}
