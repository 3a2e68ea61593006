//! What origins are shown that want to know who asks, and which names theirs must have.

use std::fmt::Display;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use http::Response;
use rustls::SupportedProtocolVersion;
use rustls::version::TLS12;
use rustls::version::TLS13;

use crate::harness::Authority;
use crate::harness::Clients;
use crate::harness::Edge;
use crate::harness::Origin;
use crate::harness::Origin2;
use crate::harness::clients::Client;
use crate::harness::ok;
use crate::harness::origin2::Call;

const VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS12, &TLS13];

/// Everything is passed to `origin`; `tls` is said of it beside its authority's file.
fn config(origin: &Origin, ca: &Path, tls: &str) -> String {
    config_of(&origin.address, ca, tls)
}

fn config_of(address: &dyn Display, ca: &Path, tls: &str) -> String {
    format!(
        "listeners: [{{name: http, address: \"127.0.0.1:0\"}}]\n\
         upstreams:\n  app:\n    addresses: [{{id: only, address: \"{}\"}}]\n    \
         health: off\n    tls: {{ca: {}{tls}}}\n\
         access_log: {{to: stdout, format: text, fields: [uri, status, refusal]}}\n\
         routes: [{{upstream: app}}]\n",
        address,
        ca.display()
    )
}

fn shown(client: &Client) -> String {
    let (certificate, key) = (client.certificate.display(), client.key.display());
    format!(", server_name: app.test, certificate: {certificate}, key: {key}")
}

#[test]
fn an_origin_that_serves_its_clients_alone_is_shown_our_certificate() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let (authority, clients) = (Authority::new(), Clients::new());
    let ca = authority.write(folder.path());
    for version in VERSIONS {
        let server = authority.server_for(&clients.ca(), &["app.test"], &["http/1.1"], &[version]);
        let origin = Origin::script().otherwise(|_| ok("hello")).start_tls(server);
        let edge = Edge::with(&config(&origin, &ca, &shown(&clients.client("edge", 1))));
        // New connections and those that are kept.
        for _ in 0..2 {
            edge.get("/").expect_status(200).expect_body("hello");
        }
        assert_eq!(origin.connections(), 1);
    }
}

#[test]
fn an_origin_that_does_not_take_our_certificate_is_a_bad_gateway_of_its_own_name() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let (authority, clients, others) = (Authority::new(), Clients::new(), Clients::new());
    let ca = authority.write(folder.path());
    let unknown = shown(&others.client("edge", 1));
    let expired = shown(&clients.expired("edge", 2));
    for version in VERSIONS {
        for wrong in [", server_name: app.test", &unknown, &expired] {
            let server =
                authority.server_for(&clients.ca(), &["app.test"], &["http/1.1"], &[version]);
            let origin = Origin::script().otherwise(|_| ok("hello")).start_tls(server);
            let edge = Edge::with(&config(&origin, &ca, wrong));
            edge.get("/").expect_status(502);
            edge.wait_for_access("status=502 refusal=origin_denied");
            assert!(origin.seen().is_empty());
        }
    }
}

#[test]
fn checks_show_the_certificate_as_requests_do() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let (authority, clients) = (Authority::new(), Clients::new());
    let ca = authority.write(folder.path());
    let server = authority.server_for(&clients.ca(), &["app.test"], &["http/1.1"], &VERSIONS);
    let origin = Origin::script().otherwise(|_| ok("hello")).start_tls(server);
    let check = "health: {path: /health, interval: 200ms, rise: 1, fall: 1}";
    let with = |tls: &str| Edge::with(&config(&origin, &ca, tls).replace("health: off", check));
    let edge = with(&shown(&clients.client("edge", 1)));
    edge.wait_for_gauge("edgeproxy_backend_up{", 1.0);
    edge.get("/").expect_status(200);
    let edge = with(", server_name: app.test");
    let line = edge.wait_for_log("backend unhealthy");
    assert!(line.contains("origin_denied"), "{line}");
}

#[test]
fn a_pinned_name_counts_in_place_of_the_one_that_is_sent() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let authority = Authority::new();
    let ca = authority.write(folder.path());
    let hosts = ["inner.test", "*.app.test", "spiffe://test/app"];
    for (names, status, log) in [
        ("[inner.test]", 200, "status=200"),
        ("[x.test, one.app.test]", 200, "status=200"),
        ("[\"spiffe://test/app\"]", 200, "status=200"),
        ("[\"spiffe://test/other\", sent.test]", 502, "status=502 refusal=origin_certificate"),
        ("[]", 502, "status=502 refusal=origin_certificate"),
    ] {
        let origin = Origin::script()
            .otherwise(|_| ok("hello"))
            .start_tls(authority.server(&hosts, &["http/1.1"]));
        let tls = format!(", server_name: sent.test, names: {names}");
        let edge = Edge::with(&config(&origin, &ca, &tls));
        edge.get("/").expect_status(status);
        edge.wait_for_access(log);
        let sent = origin.seen().first().and_then(|seen| seen.server_name.clone());
        assert_eq!(sent.as_deref(), (status == 200).then_some("sent.test"), "{names}");
    }
    // Another authority's does not count for its name.
    let origin = Origin::script()
        .otherwise(|_| ok("hello"))
        .start_tls(Authority::new().server(&hosts, &["http/1.1"]));
    let edge = Edge::with(&config(&origin, &ca, ", names: [inner.test]"));
    edge.get("/").expect_status(502);
    edge.wait_for_access("status=502 refusal=origin_certificate");
}

#[test]
fn origins_of_http_2_are_held_to_the_same_and_shown_the_same() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let (authority, clients, others) = (Authority::new(), Clients::new(), Clients::new());
    let ca = authority.write(folder.path());
    let good = shown(&clients.client("edge", 1));
    let unknown = shown(&others.client("edge", 1));
    let pinned = |name: &str| good.replace("server_name: app.test", &format!("names: [{name}]"));
    for version in VERSIONS {
        let server = authority.server_for(&clients.ca(), &["app.test"], &["h2"], &[version]);
        let origin = Origin2::start(Some(server), |mut call: Call| async move {
            call.respond(Response::new(()), "hello");
        });
        for (tls, log) in [
            (&*good, "status=200"),
            (&pinned("app.test"), "status=200"),
            (&pinned("other.test"), "status=502 refusal=origin_certificate"),
            (", server_name: app.test", "status=502 refusal=origin_denied"),
            (&unknown, "status=502 refusal=origin_denied"),
        ] {
            let config = config_of(&origin.address, &ca, tls);
            let edge = Edge::with(&config.replace("health: off", "protocol: http2"));
            edge.get("/");
            edge.wait_for_access(log);
        }
        assert_eq!(origin.seen().len(), 2);
    }
}

/// Puts bytes in the place of a file at once, as certificate programs do.
fn put(file: &Path, bytes: Vec<u8>) {
    let draft = file.with_extension("draft");
    fs::write(&draft, bytes).expect("the folder can be written to");
    fs::set_permissions(&draft, fs::Permissions::from_mode(0o600)).expect("it is ours");
    fs::rename(&draft, file).expect("the folder can be written to");
}

#[test]
fn another_certificate_is_shown_when_its_files_change_and_a_broken_one_never() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let (authority, clients, others) = (Authority::new(), Clients::new(), Clients::new());
    let ca = authority.write(folder.path());
    let server = authority.server_for(&clients.ca(), &["app.test"], &["http/1.1"], &VERSIONS);
    let origin = Origin::script().otherwise(|_| ok("hello")).start_tls(server);
    let client = others.client("edge", 1);
    let edge = Edge::with(&config(&origin, &ca, &shown(&client)));
    edge.get("/").expect_status(502);
    let good = clients.client("edge", 2);
    put(&client.certificate, fs::read(&good.certificate).expect("it is there"));
    edge.wait_for_log("files of upstream \"app\" cannot be read again");
    edge.get("/").expect_status(502);
    put(&client.key, fs::read(&good.key).expect("it is there"));
    edge.wait_for_log("files of upstream \"app\" are read again");
    edge.wait_for_metric(
        "edgeproxy_upstream_files_read_total{result=\"replaced\",upstream=\"app\"}",
        1.0,
    );
    edge.get("/").expect_status(200).expect_body("hello");
    // What is taken away stays in use; connections that exist are used on.
    put(&client.key, b"nothing".to_vec());
    edge.wait_for_log("contains no private key");
    edge.get("/").expect_status(200).expect_body("hello");
    assert_eq!(edge.metric("edgeproxy_config_reloads_total"), 0.0);
}

#[test]
fn what_is_broken_elsewhere_keeps_no_upstream_from_its_files() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let (authority, clients, others) = (Authority::new(), Clients::new(), Clients::new());
    let ca = authority.write(folder.path());
    let server = authority.server_for(&clients.ca(), &["app.test"], &["http/1.1"], &VERSIONS);
    let origin = Origin::script().otherwise(|_| ok("hello")).start_tls(server);
    let (client, broken) = (others.client("edge", 1), others.client("edge", 3));
    let (certificate, key) = authority.write_leaf(folder.path(), "a", &["a.test"]);
    let listener = format!(
        ", {{name: https, address: \"127.0.0.1:0\", tls: {{certificates: [{{hosts: [a.test], \
         certificate: {}, key: {}}}]}}}}]\nupstreams:\n  other:\n    addresses: [\"{}\"]\n    \
         health: off\n    tls: {{ca: {}{}}}\n",
        certificate.display(),
        key.display(),
        origin.address,
        ca.display(),
        shown(&broken),
    );
    let yaml = config(&origin, &ca, &shown(&client));
    let yaml = yaml
        .replace("]\nupstreams:\n", &listener)
        .replace("routes: [", "routes: [{name: other, match: {path: /other}, upstream: other}, ");
    let edge = Edge::with(&yaml);
    edge.get("/").expect_status(502);
    put(&certificate, b"nothing".to_vec());
    edge.wait_for_log("certificates of listener \"https\" cannot be read again");
    put(&broken.key, b"nothing".to_vec());
    edge.wait_for_log("files of upstream \"other\" cannot be read again");
    let good = clients.client("edge", 2);
    put(&client.certificate, fs::read(&good.certificate).expect("it is there"));
    put(&client.key, fs::read(&good.key).expect("it is there"));
    edge.wait_for_log("files of upstream \"app\" are read again");
    edge.get("/").expect_status(200).expect_body("hello");
}

#[test]
fn what_is_broken_of_one_backend_keeps_no_other_one_of_its_upstream_from_its_files() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let (authority, clients, others) = (Authority::new(), Clients::new(), Clients::new());
    let ca = authority.write(folder.path());
    let origin = || {
        let server = authority.server_for(&clients.ca(), &["app.test"], &["http/1.1"], &VERSIONS);
        Origin::script().otherwise(|_| ok("hello")).start_tls(server)
    };
    let (first, second) = (origin(), origin());
    // The first one does not know who asks yet.
    let (wrong, well) = (others.client("edge", 1), clients.client("edge", 2));
    let backend = |id: &str, origin: &Origin, client: &Client| {
        let (address, ca) = (origin.address, ca.display());
        format!("{{id: {id}, address: \"{address}\", tls: {{ca: {ca}{}}}}}", shown(client))
    };
    let edge = Edge::with(&format!(
        "listeners: [{{name: http, address: \"127.0.0.1:0\"}}]\n\
         upstreams:\n  app:\n    addresses:\n      - {}\n      - {}\n    health: off\n    \
         breaker: off\nroutes: [{{upstream: app}}]\n",
        backend("first", &first, &wrong),
        backend("second", &second, &well),
    ));
    let ask = |times: usize| {
        for _ in 0..times {
            edge.get("/").expect_status(200);
        }
    };
    ask(4);
    assert_eq!((first.seen().len(), second.seen().len()), (0, 4));
    let refused = "edgeproxy_upstream_files_read_total{result=\"refused\",upstream=\"app\"}";
    let replaced = "edgeproxy_upstream_files_read_total{result=\"replaced\",upstream=\"app\"}";

    let key = fs::read(&well.key).expect("it is there");
    put(&well.key, b"nothing".to_vec());
    edge.wait_for_log("files of upstream \"app\" cannot be read again: backend \"second\": ");
    edge.wait_for_metric(refused, 1.0);
    // Nothing came of that, and what goes on there goes on.
    ask(2);
    assert_eq!((edge.metric(replaced), second.seen().len()), (0.0, 6));

    let good = clients.client("edge", 3);
    put(&wrong.certificate, fs::read(&good.certificate).expect("it is there"));
    put(&wrong.key, fs::read(&good.key).expect("it is there"));
    edge.wait_for_log("files of upstream \"app\" are read again");
    ask(10);
    assert_eq!((first.seen().len(), second.seen().len()), (5, 11));
    let counted = "edgeproxy_backend_requests_total{upstream=\"app\",backend=\"second\"}";
    edge.wait_for_metric(counted, 11.0);

    // Mended, with what it had.
    put(&well.key, key);
    ask(2);
    assert_eq!((first.seen().len(), second.seen().len()), (6, 12));
}

#[test]
fn files_of_a_backend_that_was_added_are_looked_at_like_those_of_the_others() {
    for process in ["", "process: {watch: true, state_dir: $DIR/state}\n"] {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let (authority, clients, others) = (Authority::new(), Clients::new(), Clients::new());
        let ca = authority.write(folder.path());
        let server = authority.server_for(&clients.ca(), &["app.test"], &["http/1.1"], &VERSIONS);
        let origin = Origin::script().otherwise(|_| ok("hello")).start_tls(server);
        let (client, good) = (others.client("edge", 1), clients.client("edge", 2));
        let edge = Edge::with(&(config(&origin, &ca, "").replace("only", "first") + process));
        let added = serde_json::json!({
            "id": "added", "address": origin.address.to_string().replace("127.0.0.1", "localhost"),
            "tls": {
                "server_name": "app.test", "ca": ca, "certificate": client.certificate, "key": client.key
            }
        });
        edge.admin_post("/v1/upstreams/app/backends", &added.to_string()).expect_status(201);
        let first = "/v1/upstreams/app/backends/first";
        edge.admin_says("PATCH", first, "{\"active\": false}").expect_status(200);
        edge.get("/").expect_status(502);
        // At once, before anybody has looked at them for the first time.
        put(&client.certificate, fs::read(&good.certificate).expect("it is there"));
        put(&client.key, fs::read(&good.key).expect("it is there"));
        edge.wait_for_log("files of upstream \"app\" are read again");
        edge.get("/").expect_status(200).expect_body("hello");
        // And later.
        let other = others.client("edge", 3);
        put(&client.certificate, fs::read(&other.certificate).expect("it is there"));
        put(&client.key, fs::read(&other.key).expect("it is there"));
        edge.wait_for_metric(
            "edgeproxy_upstream_files_read_total{result=\"replaced\",upstream=\"app\"}",
            2.0,
        );
        edge.get("/").expect_status(502);
        assert_eq!(edge.metric("edgeproxy_config_reloads_total"), 0.0);
    }
}
