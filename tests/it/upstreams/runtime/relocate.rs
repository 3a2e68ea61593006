//! A backend goes over to another address, or is spoken to with other TLS settings, while requests are served.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread;

use http::Response;
use serde_json::Value;
use serde_json::json;

use super::Load;
use super::act;
use super::add;
use super::app;
use super::json as read;
use super::slow;
use super::state::config;
use super::state::folder;
use crate::harness::Authority;
use crate::harness::Edge;
use crate::harness::Names;
use crate::harness::Origin;
use crate::harness::Origin2;
use crate::harness::PATIENCE;
use crate::harness::client::End;
use crate::harness::ok;
use crate::harness::origin2::Call;
use crate::harness::status;
use crate::process::daemon::eventually;
use crate::upstreams::before;
use crate::upstreams::of;
use crate::upstreams::shares;
use crate::upstreams::with;

/// Brings a backend to this origin; says how it is then.
#[track_caller]
fn bring(edge: &Edge, id: &str, origin: &Origin) -> Value {
    let body = format!("{{\"address\": \"{}\"}}", origin.address);
    read(act(edge, "PATCH", id, &body).expect_status(200))
}

/// The authorities of a test, each in a file of its own.
struct Files {
    folder: tempfile::TempDir,
}

impl Files {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a folder can be made") }
    }

    fn of(&self, authority: &Authority, name: &str) -> PathBuf {
        let folder = self.folder.path().join(name);
        std::fs::create_dir(&folder).expect("the folder can be written to");
        authority.write(&folder)
    }
}

#[test]
fn under_load_a_backend_goes_to_and_fro_and_no_request_fails() {
    let origins = ["a", "b"].map(|who| Origin::always(ok(who)));
    let edge = before(&[&origins[0]], "");
    let load = Load::on(&edge);
    let mut wire = edge.wire();
    for round in 1..=20 {
        let (to, who) = (&origins[round % 2], ["a", "b"][round % 2]);
        let view = bring(&edge, "b0", to);
        assert_eq!(view["address"], to.address.to_string());
        // From the answer on nobody is sent to the old one.
        for _ in 0..5 {
            wire.get("edge.test", "/", &[]).expect_status(200).expect_body(who);
        }
        to.wait_for(to.seen().len() + 3);
    }
    load.expect_all_served();
    assert_eq!(app(&edge)["drift"], Value::Null, "it is where it was");
}

#[test]
fn under_load_a_backend_of_http_2_goes_to_and_fro_and_no_request_fails() {
    let origins = ["a", "b"].map(|who| {
        Origin2::start(None, move |mut call: Call| async move {
            call.respond(Response::new(()), who);
        })
    });
    let at = |n: usize| origins[n].address.to_string();
    let edge = with(&format!("{{id: b0, address: \"{}\"}}", at(0)), "    protocol: http2\n");
    let load = Load::on(&edge);
    let mut wire = edge.wire();
    for round in 1..=20 {
        let body = format!("{{\"address\": \"{}\"}}", at(round % 2));
        act(&edge, "PATCH", "b0", &body).expect_status(200);
        for _ in 0..5 {
            let reply = wire.get("edge.test", "/", &[]);
            reply.expect_status(200).expect_body(["a", "b"][round % 2]);
        }
    }
    load.expect_all_served();
}

#[test]
fn a_socket_is_an_address_too() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let path = folder.path().join("origin.sock");
    let (plain, socket) = (
        Origin::always(ok("plain")),
        Origin::script().otherwise(|_| ok("socket")).start_unix(&path),
    );
    let edge = with(&format!("\"{}\"", plain.address), "");
    let id = plain.address.to_string();
    let body = json!({"address": format!("unix:{}", path.display())}).to_string();
    let view = read(act(&edge, "PATCH", &id, &body).expect_status(200));
    assert_eq!(
        (&view["id"], &view["address"]),
        (&id.as_str().into(), &format!("unix:{}", path.display()).into())
    );
    edge.get("/").expect_body("socket");
    bring(&edge, &id, &plain);
    edge.get("/").expect_body("plain");
    assert_eq!(socket.seen().len(), 1);
}

#[test]
fn what_is_under_way_ends_where_it_is_and_what_was_known_stays_there() {
    let (old, go, begun) = slow();
    let new = Origin::always(ok("new"));
    let edge = before(&[&old], "");
    let mut wire = edge.wire();
    wire.send("GET /slow HTTP/1.1\r\nHost: edge.test\r\n\r\n");
    begun.recv_timeout(PATIENCE).expect("the download begins");
    edge.get("/").expect_body("slow");

    let body = format!("{{\"address\": \"http://{}\", \"weight\": 3}}", new.address);
    let view = read(act(&edge, "PATCH", "b0", &body).expect_status(200));
    assert_eq!((&view["id"], &view["weight"]), (&"b0".into(), &3.into()));
    let at = &view["addresses"][0];
    assert_eq!((&at["label"], &at["address"]), (&"b0".into(), &new.address.to_string().into()));
    assert_eq!((&at["requests"], &at["in_flight"]), (&0.into(), &0.into()));
    let left = json!([{"label": "b0", "address": old.address.to_string(), "in_flight": 1}]);
    assert_eq!(app(&edge)["leaving"], left);
    let line = edge.wait_for_log("backend changed");
    let set = format!("set=address:http://{},weight:3", new.address);
    for part in ["edgeproxy::audit", "way=admin", "upstream=app", "backend=b0", &set] {
        assert!(line.contains(part), "no {part} in: {line}");
    }
    for _ in 0..5 {
        edge.get("/").expect_body("new");
    }
    go.send(()).expect("it waits");
    let reply = wire.reply();
    assert_eq!((reply.status, reply.body.len(), reply.end), (200, 10_000, End::Whole));
    eventually("it leaves", || (app(&edge)["leaving"] == json!([])).then_some(()));

    // Where it is already, nothing is other.
    let same = bring(&edge, "b0", &new);
    assert_eq!(same["addresses"][0]["requests"], 5);
}

#[test]
fn a_breaker_that_is_open_is_not_that_of_another_address() {
    let (old, new) = (Origin::always(status(503)), Origin::always(ok("new")));
    let edge = before(&[&old], "    breaker: {failures: 1, statuses: [503]}\n    retry: off\n");
    edge.get("/").expect_status(503);
    let view = read(act(&edge, "GET", "b0", "").expect_status(200));
    assert_eq!(view["addresses"][0]["breaker"]["state"], "open");
    let view = bring(&edge, "b0", &new);
    assert_eq!(view["addresses"][0]["breaker"]["state"], "closed");
    edge.get("/").expect_body("new");
}

/// An upstream over TLS whose certificate is not trusted any more, and then is again.
fn trust(good: &Authority, protocol: &str, address: &str, seen: impl Fn() -> usize) {
    let (other, files) = (Authority::new(), Files::new());
    let (good, other) = (files.of(good, "good"), files.of(&other, "other"));
    let edge = with(
        &format!("{{id: b0, address: \"{address}\"}}"),
        &format!(
            "    protocol: {protocol}\n    retry: off\n    health: off\n    \
             tls: {{server_name: in.test, ca: \"{}\"}}\n",
            good.display()
        ),
    );
    let set = |tls: &Value| {
        let body = json!({ "tls": tls }).to_string();
        read(act(&edge, "PATCH", "b0", &body).expect_status(200))
    };
    for wrong in [json!({"ca": other}), json!({"server_name": "out.test"})] {
        for _ in 0..3 {
            edge.get("/").expect_body("secure");
        }
        let asked = seen();
        let view = set(&wrong);
        assert_eq!(view["addresses"][0]["requests"], 0, "what was known is not of these settings");
        assert_eq!(view["addresses"][0]["pool"]["idle"], 0);
        for _ in 0..3 {
            let reply = edge.get_with("/", &[("Accept", "application/json")]);
            assert!(reply.expect_status(502).text().contains("origin_certificate"), "{reply:?}");
        }
        assert_eq!(seen(), asked, "it was asked nothing more, over no connection");
        assert_eq!(app(&edge)["drift"], json!({"added": ["b0"], "changed": [], "removed": ["b0"]}));
        assert_eq!(edge.metric("edgeproxy_upstream_drift{"), 1.0);
        set(&Value::Null);
        assert_eq!(app(&edge)["drift"], Value::Null);
    }
    edge.get("/").expect_body("secure");
}

#[test]
fn an_origin_that_is_not_trusted_any_more_is_asked_nothing_more() {
    let authority = Authority::new();
    let tls = authority.server(&["in.test"], &["http/1.1"]);
    let origin = Origin::script().otherwise(|_| ok("secure")).start_tls(tls);
    trust(&authority, "http1", &origin.address.to_string(), || origin.seen().len());
}

#[test]
fn an_http_2_origin_that_is_not_trusted_any_more_is_asked_nothing_more() {
    let authority = Authority::new();
    let tls = authority.server(&["in.test"], &["h2"]);
    let origin = Origin2::start(Some(tls), |mut call: Call| async move {
        call.respond(Response::new(()), "secure");
    });
    trust(&authority, "http2", &origin.address.to_string(), || origin.seen().len());
}

#[test]
fn from_plain_text_to_tls_and_back() {
    let (authority, files) = (Authority::new(), Files::new());
    let plain = Origin::always(ok("plain"));
    let secure = Origin::script()
        .otherwise(|_| ok("secure"))
        .start_tls(authority.server(&["localhost"], &[]));
    let edge = before(&[&plain], "");
    let load = Load::on(&edge);
    let ca = files.of(&authority, "good");
    let there = json!({
        "address": format!("https://localhost:{}", secure.address.port()),
        "tls": {"ca": ca},
    });
    for _ in 0..3 {
        let view = read(act(&edge, "PATCH", "b0", &there.to_string()).expect_status(200));
        assert_eq!(view["tls"], true);
        edge.get("/").expect_body("secure");
        let back = format!("{{\"address\": \"http://{}\"}}", plain.address);
        let view = read(act(&edge, "PATCH", "b0", &back).expect_status(200));
        assert_eq!(view["tls"], false);
        edge.get("/").expect_body("plain");
    }
    load.expect_all_served();
}

#[test]
fn a_drained_backend_is_drained_elsewhere_too() {
    let [a, b, c] = ["a", "b", "c"].map(|who| Origin::always(ok(who)));
    let edge = before(&[&a, &b], "");
    act(&edge, "POST", "b0/drain", "").expect_status(200);
    act(&edge, "PATCH", "b1", "{\"weight\": 2, \"backup\": true}").expect_status(200);
    let view = bring(&edge, "b0", &c);
    assert_eq!(
        (&view["draining"], &view["addresses"][0]["state"]),
        (&true.into(), &"draining".into())
    );
    assert_eq!(shares(&edge, 4), of(&[("b", 4)]));
    let view = bring(&edge, "b1", &a);
    assert_eq!((&view["weight"], &view["backup"]), (&2.into(), &true.into()));
    act(&edge, "POST", "b0/undrain", "").expect_status(200);
    assert_eq!(shares(&edge, 4), of(&[("c", 4)]));
    let off = format!("{{\"address\": \"{}\", \"active\": false}}", b.address);
    let view = read(act(&edge, "PATCH", "b0", &off).expect_status(200));
    assert_eq!(view["addresses"][0]["state"], "inactive");
    assert_eq!(shares(&edge, 4), of(&[("a", 4)]));
    act(&edge, "PATCH", "b0", "{\"active\": true}").expect_status(200);
    assert_eq!(shares(&edge, 4), of(&[("b", 4)]));
}

#[test]
fn checks_and_connections_that_are_kept_ready_follow_and_leave_nothing_behind() {
    let [old, new] = ["old", "new"]
        .map(|who| Origin::script().on("/health", ok("")).otherwise(move |_| ok(who)).start());
    let edge = before(
        &[&old],
        "    health: {path: /health, interval: 1s, jitter: 0, timeout: 1s, fall: 10}\n    \
         pool: {warm: 2}\n",
    );
    eventually("it is checked", || (old.seen_at("/health").len() >= 2).then_some(()));
    eventually("its connections are made", || (pool(&edge, "idle") == 2).then_some(()));
    bring(&edge, "b0", &new);
    // The check that was under way may be seen after that.
    let left = old.seen_at("/health").len() + 1;
    eventually("the new one is checked", || (new.seen_at("/health").len() >= 3).then_some(()));
    assert!(old.seen_at("/health").len() <= left, "nobody checks the old one");
    eventually("connections to the new one are made", || (pool(&edge, "idle") == 2).then_some(()));
    assert_eq!(new.seen_at("/").len(), 0);
    edge.get("/").expect_body("new");
}

/// A number of the pool of `b0`.
fn pool(edge: &Edge, what: &str) -> u64 {
    let view = read(act(edge, "GET", "b0", "").expect_status(200));
    view["addresses"][0]["pool"][what].as_u64().expect("a number")
}

#[test]
fn where_backends_come_unknown_the_new_address_is_checked_before_it_is_gone_over_to() {
    let [old, new] = ["old", "new"]
        .map(|who| Origin::script().on("/health", ok("")).otherwise(move |_| ok(who)).start());
    let edge = before(
        &[&old],
        "    health: {path: /health, interval: 10m, timeout: 5s, rise: 1, fall: 1, initial: unknown}\n",
    );
    let load = Load::on(&edge);
    for round in 0..6 {
        let to = if round % 2 == 0 { &new } else { &old };
        let checks = to.seen_at("/health").len();
        let view = bring(&edge, "b0", to);
        assert_eq!(view["addresses"][0]["state"], "up");
        assert!(to.seen_at("/health").len() > checks);
    }
    load.expect_all_served();
}

#[test]
fn an_address_that_fails_its_check_is_not_gone_over_to_while_the_old_one_serves() {
    let well = Arc::new(AtomicBool::new(true));
    let is_well = Arc::clone(&well);
    let old = Origin::script()
        .with("/health", move |_| match is_well.load(Ordering::SeqCst) {
            true => ok(""),
            false => status(500),
        })
        .otherwise(|_| ok("old"))
        .start();
    let new = Origin::script().on("/health", status(500)).otherwise(|_| ok("new")).start();
    let edge = before(
        &[&old],
        "    health: {path: /health, interval: 10m, timeout: 5s, rise: 1, fall: 1, initial: unknown}\n",
    );
    let body = format!("{{\"address\": \"{}\"}}", new.address);
    let refused = act(&edge, "PATCH", "b0", &body);
    let said = refused.expect_status(409).text();
    assert!(said.contains("did not pass its check") && said.contains("500"), "{said}");
    edge.get("/").expect_status(200).expect_body("old");
    assert!(!edge.log().iter().any(|line| line.contains("unhealthy")), "{:?}", edge.log());

    // There is nothing to lose any more.
    well.store(false, Ordering::SeqCst);
    edge.admin_post("/v1/upstreams/app/backends/b0/check", "").expect_status(200);
    edge.get("/").expect_status(503);
    let view = bring(&edge, "b0", &new);
    assert_eq!(view["address"], new.address.to_string());
}

#[test]
fn a_name_has_its_addresses_when_it_is_gone_over_to_and_is_followed() {
    let a = Origin::always(ok("a"));
    // Both at one port, which nobody else comes by here.
    let at = |last: u8, port: u16, who: &'static str| {
        Origin::script().otherwise(move |_| ok(who)).start_at(([127, 0, 0, last], port).into())
    };
    let b = at(2, 0, "b");
    let port = b.address.port();
    let c = at(3, port, "c");
    let names = Names::none();
    names.host("two.test", &["127.0.0.2"]);
    let edge = names.edge(&format!(
        "listeners: [{{name: http, address: \"127.0.0.1:0\"}}]\nupstreams:\n  app:\n    \
         addresses: [{{id: b0, address: \"{}\"}}]\n    resolve_every: 1s\nroutes: [{{upstream: app}}]\n",
        a.address
    ));
    let load = Load::on(&edge);
    // One that is not known is not gone over to, and the rest is not done either.
    let nobody = format!("{{\"address\": \"one.test:{port}\", \"weight\": 9}}");
    let reply = act(&edge, "PATCH", "b0", &nobody);
    let said = reply.expect_status(400).text();
    assert!(said.contains("one.test") && said.contains("was not resolved"), "{said}");
    assert_eq!(read(&act(&edge, "GET", "b0", ""))["weight"], 1);

    let two = format!("{{\"address\": \"two.test:{port}\"}}");
    let view = read(act(&edge, "PATCH", "b0", &two).expect_status(200));
    assert_eq!(view["addresses"][0]["label"], format!("b0/127.0.0.2:{port}"));
    assert_eq!(shares(&edge, 4), of(&[("b", 4)]));
    names.host("two.test", &["127.0.0.2", "127.0.0.3"]);
    let addresses = || read(&act(&edge, "GET", "b0", ""))["addresses"].as_array().map(Vec::len);
    eventually("the name is followed", || (addresses() == Some(2)).then_some(()));
    c.wait_for(1);
    bring(&edge, "b0", &a);
    assert_eq!(shares(&edge, 4), of(&[("a", 4)]));
    load.expect_all_served();
}

#[test]
fn what_cannot_be_is_told_and_nothing_of_it_is_done() {
    let [a, b] = ["a", "b"].map(|who| Origin::always(ok(who)));
    let edge = before(&[&a, &b], "");
    let folder = edge.folder().path().to_path_buf();
    std::fs::write(folder.join("no.pem"), "nothing").expect("it can be written");
    let there = b.address.to_string();
    let file = |name: &str| folder.join(name).display().to_string();
    for (patch, status, says) in [
        (json!({"address": there}), 409, "\"b1\" is the same one"),
        (json!({"address": format!("http://{there}")}), 409, "\"b1\" is the same one"),
        (json!({"address": "nowhere"}), 400, "add the port"),
        (json!({"address": "http://a/b"}), 400, "an address has no path"),
        (json!({"address": "ftp://a"}), 400, "is not spoken to origins"),
        (json!({"address": "unix:a"}), 400, "begin it with a slash"),
        (json!({"address": "demo"}), 400, "in the configuration only"),
        (json!({"address": null}), 400, "a JSON object is expected"),
        (json!({"address": 80}), 400, "a JSON object is expected"),
        (json!({"address": "http://127.0.0.1:1", "tls": {}}), 400, "the address says http"),
        (json!({"address": "https://127.0.0.1", "tls": "off"}), 400, "the address says https"),
        (json!({"tls": {"ca": file("none.pem")}}), 400, "none.pem"),
        (json!({"tls": {"ca": file("no.pem")}}), 400, "no.pem"),
        (json!({"tls": {"ca": "no.pem"}}), 400, "begin it with a slash"),
        (json!({"tls": {"server_name": "http://a"}}), 400, "is not the name of a host"),
        (json!({"tls": {"key": file("no.pem")}}), 400, "its certificate is missing"),
        (json!({"tls": {"sni": "a"}}), 400, "unknown field `sni`"),
        (json!({"tls": true}), 400, "tls: invalid type"),
        (json!({"address": "127.0.0.1:1", "weight": 0}), 400, "weight: 0 is out of range"),
    ] {
        let mut patch = patch;
        if patch.get("weight").is_none() {
            patch["weight"] = 7.into();
        }
        patch["backup"] = true.into();
        let reply = act(&edge, "PATCH", "b0", &patch.to_string());
        assert_eq!(reply.status, status, "{patch}: {reply:?}");
        let said = read(&reply)["error"].as_str().unwrap_or_default().to_owned();
        assert!(said.contains(says), "{patch}: {said}");
    }
    let reply = act(&edge, "PATCH", "b9", "{\"address\": \"127.0.0.1:1\"}");
    assert!(reply.expect_status(404).text().contains("no backend"), "{reply:?}");
    let app = app(&edge);
    assert_eq!(app["drift"], Value::Null);
    assert_eq!((&app["leaving"], &app["backends"][0]["weight"]), (&json!([]), &1.into()));
    assert_eq!(shares(&edge, 4), of(&[("a", 2), ("b", 2)]));
    assert!(!edge.log().iter().any(|line| line.contains("backend changed")), "{:?}", edge.log());
    let drained = json!({"address": "127.0.0.1:1", "tls": null}).to_string();
    act(&edge, "PATCH", "b0", &drained).expect_status(200);
    // The place that it left is free.
    add(&edge, &format!("{{\"address\": \"{}\"}}", a.address)).expect_status(201);
}

#[test]
fn changes_at_once_of_place_and_weight_are_all_made() {
    let origins: Arc<[Origin]> = ["a", "b", "c", "d"].map(|who| Origin::always(ok(who))).into();
    let edge = before(&[&origins[0], &origins[1]], "");
    let load = Load::on(&edge);
    thread::scope(|scope| {
        // Each backend has two places of its own.
        for (id, here, there) in [("b0", 0, 2), ("b1", 1, 3)] {
            let (edge, origins) = (&edge, &origins);
            scope.spawn(move || {
                for round in 0..10 {
                    bring(edge, id, &origins[if round % 2 == 0 { there } else { here }]);
                }
                bring(edge, id, &origins[there]);
            });
            scope.spawn(move || {
                for weight in 1..=10 {
                    let body = format!("{{\"weight\": {weight}}}");
                    act(edge, "PATCH", id, &body).expect_status(200);
                }
            });
            scope.spawn(move || {
                for _ in 0..5 {
                    act(edge, "PATCH", id, "{\"tls\": \"off\"}").expect_status(200);
                    edge.admin("GET", "/v1/upstreams").expect_status(200);
                }
            });
        }
    });
    load.expect_all_served();
    for (id, origin) in [("b0", &origins[2]), ("b1", &origins[3])] {
        let view = read(act(&edge, "GET", id, "").expect_status(200));
        assert_eq!(
            (&view["address"], &view["weight"]),
            (&origin.address.to_string().into(), &10.into())
        );
    }
    assert_eq!(shares(&edge, 8), of(&[("c", 4), ("d", 4)]));
    assert_eq!(edge.metric("edgeproxy_upstream_drift{"), 2.0);
}

#[test]
fn the_next_start_and_a_reload_know_where_a_backend_is() {
    let [a, b, c] = ["a", "b", "c"].map(|who| Origin::always(ok(who)));
    let (authority, folder) = (Authority::new(), folder());
    let secure =
        Origin::script().otherwise(|_| ok("secure")).start_tls(authority.server(&["in.test"], &[]));
    // The first one goes by its address.
    let yaml = config(&[&a, &b]).replace("{id: b0, address: ", "{address: http://");
    let yaml = yaml.replace("http://\"", "\"http://");
    let url = format!("http:%2F%2F{}", a.address);
    let edge = Edge::in_folder(Arc::clone(&folder), &yaml, &[]);
    bring(&edge, &url, &c);
    let body = json!({
        "address": secure.address.to_string(),
        "tls": {"ca": authority.write(folder.path()), "server_name": "in.test"},
        "backup": true,
    });
    act(&edge, "PATCH", "b1", &body.to_string()).expect_status(200);
    let drift = app(&edge)["drift"].clone();
    let ids = json!([format!("http://{}", a.address), "b1"]);
    assert_eq!(drift, json!({"added": ids, "changed": [], "removed": ids}));
    assert_eq!(edge.metric("edgeproxy_upstream_drift{"), 2.0);
    let is_there = |edge: &Edge| {
        assert_eq!(shares(edge, 3), of(&[("c", 3)]));
        act(edge, "POST", &format!("{url}/drain"), "").expect_status(200);
        assert_eq!(shares(edge, 3), of(&[("secure", 3)]));
        act(edge, "POST", &format!("{url}/undrain"), "").expect_status(200);
        assert_eq!(app(edge)["drift"], drift);
    };
    is_there(&edge);
    edge.write(&yaml.replace("]}}\nroutes", "], timeouts: {read: 20s}}}\nroutes"));
    edge.reload().expect_status(200);
    is_there(&edge);
    drop(edge);

    let edge = Edge::in_folder(Arc::clone(&folder), &yaml, &[]);
    is_there(&edge);
    // What the configuration says, too, is no difference any more.
    let old = format!("\"http://{}\"", a.address);
    let caught_up = yaml.replace(&old, &format!("\"{}\", id: \"x\"", c.address));
    let caught_up = caught_up.replace(
        &format!("\"{}\"", b.address),
        &format!("\"{}\", backup: true, tls: {{ca: ca.pem, server_name: in.test}}", secure.address),
    );
    edge.write(&caught_up).reload().expect_status(200);
    assert_eq!(app(&edge)["drift"], Value::Null);
    assert_eq!(shares(&edge, 3), of(&[("c", 3)]));
}
