//! Certificates from a real ACME server: issued, renewed, refused, shared.

use std::fs;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use nix::sys::signal::Signal;
use rustls::pki_types::CertificateDer;
use tempfile::TempDir;

use crate::harness::AcmeServer;
use crate::harness::Edge;
use crate::harness::PATIENCE;
use crate::harness::Wire;
use crate::harness::acme::HTTP;
use crate::harness::acme::Nature;
use crate::harness::acme::TLS;
use crate::harness::acme::address;
use crate::harness::edge::write_config;

/// An edge at `here` for `hosts` that has its certificates by ACME.
fn config(here: Ipv4Addr, hosts: &str, section: &str) -> String {
    format!(
        "listeners:\n  - {{name: http, address: \"{here}:{HTTP}\"}}\n  \
         - {{name: https, address: \"{here}:{TLS}\", tls: auto}}\n{section}\
         routes:\n  - {{match: {{hosts: [{hosts}]}}, respond: {{status: 200, body: hello}}}}\n"
    )
}

fn folder() -> Arc<TempDir> {
    Arc::new(tempfile::tempdir().expect("a folder can be made"))
}

/// The certificate that is shown for `name`, if `root` issued it.
fn shown(edge: &Edge, name: &str, root: &Path) -> Option<CertificateDer<'static>> {
    let wire = Wire::tls(edge.address("https"), name, root, &["http/1.1"]).ok()?;
    let chain = wire.handshake()?.peer_certificates()?;
    chain.first().map(|leaf| leaf.clone().into_owned())
}

/// Waits until `look` finds something.
#[track_caller]
fn await_some<T>(edge: &Edge, what: &str, look: impl Fn() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(began.elapsed() < PATIENCE, "{what} never came:\n{}", edge.log().join("\n"));
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Where the files of the server are kept, below this folder of an edge's.
fn kept(storage: &Path) -> PathBuf {
    let mut inner = fs::read_dir(storage).expect("there is storage");
    inner.next().expect("there is a folder for the server").expect("readable").path()
}

fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let all = fs::read_dir(folder).expect("readable").map(|entry| entry.expect("readable").path());
    all.filter(|path| path.to_string_lossy().ends_with(ending)).collect()
}

const ISSUED: &str = "edgeproxy_acme_orders_total{hosts=\"edge.test\",result=\"issued\"}";

#[test]
fn a_word_is_enough_for_a_certificate() {
    let here = address();
    let server = AcmeServer::start(here);
    let section = server.section(&format!("port: {HTTP}"));
    let edge = Edge::with(&config(here, "edge.test, www.edge.test", &section));
    let root = server.root();

    for name in ["edge.test", "www.edge.test"] {
        await_some(&edge, name, || shown(&edge, name, &root));
    }
    let mut wire = Wire::tls(edge.address("https"), "edge.test", &root, &["http/1.1"]).unwrap();
    wire.get("edge.test", "/", &[]).expect_status(200).expect_body("hello");

    // What is kept is for the owner alone, and what was shown to the server is gone.
    let folder = kept(&edge.folder().path().join("state/acme"));
    let mode = |path: &Path| fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
    assert_eq!(mode(&folder), 0o700);
    assert_eq!(files(&folder, ".pem").len(), 2);
    for file in [".pem", ".json", ".lock"].iter().flat_map(|ending| files(&folder, ending)) {
        assert_eq!(mode(&file), 0o600, "{}", file.display());
    }
    assert!(files(&folder.join("challenges"), "").is_empty());

    // Operators see how it stands.
    edge.wait_for_metric(ISSUED, 1.0);
    assert!(edge.metric("edgeproxy_acme_expiry_timestamp_seconds{hosts=\"edge.test\"}") > 1e9);
    let said: serde_json::Value =
        serde_json::from_str(&edge.admin("GET", "/v1/certificates").text()).expect("JSON");
    let one = &said["certificates"][0];
    assert_eq!((&one["hosts"][0], &one["failures"]), (&"edge.test".into(), &0.into()), "{said}");
    await_some(&edge, "peace", || {
        edge.admin("GET", "/v1/certificates").text().contains("\"valid\"").then_some(())
    });
}

#[test]
fn the_server_is_shown_what_it_asks_for_where_others_are_sent_to_https() {
    let here = address();
    let server = AcmeServer::start(here);
    let section = server.section(&format!("port: {HTTP}"));
    let yaml = config(here, "edge.test", &section);
    let edge = Edge::with(&yaml.replace("{name: http,", "{name: http, to_https: on,"));
    edge.get("/").expect_status(308);
    let root = server.root();
    await_some(&edge, "the certificate", || shown(&edge, "edge.test", &root));
    edge.wait_for_metric(ISSUED, 1.0);
}

#[test]
fn other_requests_for_challenges_are_for_routes() {
    let here = address();
    let server = AcmeServer::start(here);
    let section = server.section(&format!("port: {HTTP}"));
    let edge = Edge::with(&config(here, "edge.test", &section));
    for token in ["unknown", "account.json", "a/b", ""] {
        let target = format!("/.well-known/acme-challenge/{token}");
        edge.get(&target).expect_status(200).expect_body("hello");
    }
}

#[test]
fn a_refusal_is_told_and_tried_again_while_the_internal_ca_stands_in() {
    let (here, nobody) = (address(), address());
    let server = AcmeServer::start(nobody);
    let section = server.section(&format!("port: {HTTP}"));
    let edge = Edge::with(&config(here, "edge.test", &section));

    let told = edge.wait_for_log("no certificate for edge.test");
    assert!(told.contains("connection refused") && told.contains("next attempt in"), "{told}");
    assert!(shown(&edge, "edge.test", &edge.root()).is_some(), "the internal CA does not serve");

    server.point_at(here);
    let root = server.root();
    await_some(&edge, "the certificate", || shown(&edge, "edge.test", &root));
    edge.wait_for_gauge("edgeproxy_acme_failures{hosts=\"edge.test\"}", 0.0);
    assert!(
        edge.metric("edgeproxy_acme_orders_total{hosts=\"edge.test\",result=\"failed\"}") >= 1.0
    );
}

#[test]
fn a_certificate_is_renewed_and_handshakes_never_miss_it() {
    let here = address();
    let nature = Nature { lifetime: Some(9), ..Nature::default() };
    let server = AcmeServer::with(here, &nature);
    let section = server.section(&format!("port: {HTTP}"));
    let edge = Edge::with(&config(here, "edge.test", &section));
    let root = server.root();

    let first = await_some(&edge, "the certificate", || shown(&edge, "edge.test", &root));
    let second = await_some(&edge, "another one", || {
        // One that a client trusts at every moment, also while it is replaced.
        let now = shown(&edge, "edge.test", &root).expect("there is always one that is valid");
        (now != first).then_some(now)
    });
    assert_ne!(first, second);
    edge.wait_for_log("two thirds of its life are over");
}

#[test]
fn a_certificate_is_renewed_when_its_server_asks_for_it() {
    let here = address();
    let server = AcmeServer::start(here);
    let long_ago = r#"{"start": "2020-01-01T00:00:00Z", "end": "2020-01-02T00:00:00Z"}"#;
    let (_front, section) = server.behind(long_ago, &format!("port: {HTTP}"));
    let edge = Edge::with(&config(here, "edge.test", &section));
    let root = server.root();
    let first = await_some(&edge, "the certificate", || shown(&edge, "edge.test", &root));
    await_some(&edge, "another one", || {
        shown(&edge, "edge.test", &root).filter(|now| *now != first)
    });
    // Years before two thirds of its life are over.
    edge.wait_for_log("the server asks for it");
}

#[test]
fn a_certificate_is_not_renewed_before_its_server_asks_for_it() {
    let here = address();
    let server = AcmeServer::start(here);
    let far_off = r#"{"start": "2100-01-01T00:00:00Z", "end": "2100-01-02T00:00:00Z"}"#;
    let (front, section) = server.behind(far_off, &format!("port: {HTTP}"));
    let edge = Edge::with(&config(here, "edge.test", &section));
    let root = server.root();
    let first = await_some(&edge, "the certificate", || shown(&edge, "edge.test", &root));
    let asked = || front.access_log().iter().any(|line| line.contains("/renewal/"));
    await_some(&edge, "the question", || asked().then_some(()));
    assert_eq!(shown(&edge, "edge.test", &root), Some(first));
    assert_eq!(edge.metric(ISSUED), 1.0);
}

#[test]
fn a_reload_orders_for_new_hosts_and_leaves_the_others_alone() {
    let here = address();
    let server = AcmeServer::start(here);
    let section = server.section(&format!("port: {HTTP}"));
    let edge = Edge::with(&config(here, "edge.test", &section));
    let root = server.root();
    let first = await_some(&edge, "the certificate", || shown(&edge, "edge.test", &root));

    write_config(edge.folder(), &config(here, "edge.test, new.test", &section));
    edge.signal(Signal::SIGHUP);
    await_some(&edge, "the other one", || shown(&edge, "new.test", &root));
    assert_eq!(shown(&edge, "edge.test", &root), Some(first));
}

#[test]
fn a_certificate_that_is_due_at_once_is_not_ordered_without_end() {
    let here = address();
    let nature = Nature { lifetime: Some(1), ..Nature::default() };
    let server = AcmeServer::with(here, &nature);
    let section = server.section(&format!("port: {HTTP}")).replace("retry: 1s", "retry: 1h");
    let edge = Edge::with(&config(here, "edge.test", &section));
    edge.wait_for_log("is due already");
    await_some(&edge, "a rest", || {
        edge.admin("GET", "/v1/certificates").text().contains("\"waiting\"").then_some(())
    });
    assert!(edge.metric("edgeproxy_acme_orders_total") < 1.5);
}

#[test]
fn a_failed_renewal_keeps_the_old_certificate_and_says_so() {
    let (here, nobody) = (address(), address());
    let nature = Nature { lifetime: Some(9), ..Nature::default() };
    let server = AcmeServer::with(here, &nature);
    let section = server.section(&format!("port: {HTTP}"));
    let edge = Edge::with(&config(here, "edge.test", &section));
    let root = server.root();
    let first = await_some(&edge, "the certificate", || shown(&edge, "edge.test", &root));
    server.point_at(nobody);

    let told = edge.wait_for_log("the certificate for edge.test is not renewed");
    assert!(told.contains("the old one is valid for"), "{told}");
    if let Some(still) = shown(&edge, "edge.test", &root) {
        assert_eq!(still, first);
    }
    // It has expired by now or will; the internal CA does not take its place.
    assert!(shown(&edge, "edge.test", &edge.root()).is_none());
    server.point_at(here);
    await_some(&edge, "another one", || {
        shown(&edge, "edge.test", &root).filter(|now| *now != first)
    });
}

#[test]
fn a_process_that_dies_in_the_middle_leaves_nothing_in_the_way() {
    let (here, silent) = (address(), address());
    let listens = TcpListener::bind(SocketAddr::from((silent, HTTP))).expect("an address of ours");
    let server = AcmeServer::start(silent);
    let section = server.section(&format!("port: {HTTP}"));
    let (folder, yaml) = (folder(), config(here, "edge.test", &section));

    let mut edge = Edge::in_folder(Arc::clone(&folder), &yaml, &[]);
    let (_looks, _) = listens.accept().expect("the server looks");
    edge.signal(Signal::SIGKILL);
    edge.wait();
    let account = |folder: &TempDir| {
        let place = kept(&folder.path().join("state/acme")).join("account.json");
        fs::read_to_string(place).expect("there is an account")
    };
    let before = account(&folder);

    server.point_at(here);
    let edge = Edge::in_folder(Arc::clone(&folder), &yaml, &[]);
    let root = server.root();
    await_some(&edge, "the certificate", || shown(&edge, "edge.test", &root));
    assert_eq!(account(&folder), before);
    drop(edge);

    // And what was issued outlives a process: the next one orders nothing.
    let edge = Edge::in_folder(folder, &yaml, &[]);
    assert!(shown(&edge, "edge.test", &root).is_some(), "it is there from the start");
    await_some(&edge, "peace", || {
        edge.admin("GET", "/v1/certificates").text().contains("\"valid\"").then_some(())
    });
    assert!(edge.metric(ISSUED) < 0.5);
}

#[test]
fn nodes_that_share_a_folder_order_once_and_answer_for_each_other() {
    let nodes = [address(), address()];
    // The server looks at one node only, whichever orders.
    let server = AcmeServer::start(nodes[1]);
    let storage = tempfile::tempdir().expect("a folder can be made");
    let more = format!("port: {HTTP}, storage: {}", storage.path().display());
    let section = server.section(&more);
    let edges = nodes.map(|here| Edge::with(&config(here, "edge.test", &section)));
    let root = server.root();

    let found = [0, 1].map(|node| {
        await_some(&edges[node], "the certificate", || shown(&edges[node], "edge.test", &root))
    });
    assert_eq!(found[0], found[1]);
    // An order may have failed as long as the second node was not there.
    let issued = |edge: &Edge| edge.metric(ISSUED);
    edges[0].wait_for_log("certificates of listener");
    assert!(issued(&edges[0]) + issued(&edges[1]) < 1.5, "it was ordered twice");
    edges[1].wait_for_log("is shown what was agreed on");
}

#[test]
fn a_certificate_may_show_whose_the_host_is() {
    let here = address();
    let server = AcmeServer::start(here);
    let section = server.section(&format!("challenge: tls-alpn-01, port: {TLS}"));
    let yaml = config(here, "edge.test", &section);
    let plain = format!("  - {{name: http, address: \"{here}:{HTTP}\"}}\n");
    let edge = Edge::with(&yaml.replace(&plain, ""));
    let root = server.root();

    await_some(&edge, "the certificate", || shown(&edge, "edge.test", &root));
    // Nobody is shown anything else by that protocol, and others are served as before.
    assert!(Wire::tls(edge.address("https"), "edge.test", &root, &["acme-tls/1"]).is_err());
    let mut wire =
        Wire::tls(edge.address("https"), "edge.test", &root, &["acme-tls/1", "http/1.1"]).unwrap();
    assert_eq!(wire.alpn().as_deref(), Some(&b"http/1.1"[..]));
    wire.get("edge.test", "/", &[]).expect_status(200);
}

#[test]
fn a_program_sets_dns_records_for_a_wildcard() {
    let (here, nobody) = (address(), address());
    let server = AcmeServer::start(nobody);
    let folder = folder();
    let program = folder.path().join("records");
    let script = format!(
        "#!/bin/sh\nset -e\ncase $ACME_ACTION in set) path=set-txt ;; remove) path=clear-txt ;; esac\n\
         curl -sf -d \"{{\\\"host\\\": \\\"$ACME_NAME.\\\", \\\"value\\\": \\\"$ACME_VALUE\\\"}}\" {}/$path\n\
         echo $ACME_ACTION $ACME_DOMAIN >> {}/said\n",
        server.records(),
        folder.path().display()
    );
    fs::write(&program, script).expect("the folder can be written to");
    let section = server
        .section(&format!("challenge: dns-01, dns: {{command: [sh, {}]}}", program.display()));
    let yaml = config(here, "\"*.edge.test\"", &section);
    let edge = Edge::in_folder(Arc::clone(&folder), &yaml, &[]);
    let root = server.root();

    await_some(&edge, "the certificate", || shown(&edge, "any.edge.test", &root));
    let said = fs::read_to_string(folder.path().join("said")).expect("it was run");
    assert_eq!(said, "set edge.test\nremove edge.test\n");
}

#[test]
fn an_account_can_be_bound_to_another() {
    const KEY: &str = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W";
    let here = address();
    let nature = Nature { external: Some(("kid-1", KEY)), ..Nature::default() };
    let server = AcmeServer::with(here, &nature);
    let root = server.root();
    let run = |more: &str| {
        let section = server.section(&format!("port: {HTTP}{more}"));
        let folder = folder();
        fs::write(folder.path().join("hmac"), format!("{KEY}\n")).expect("writable");
        Edge::in_folder(folder, &config(here, "edge.test", &section), &[])
    };

    let edge = run("");
    edge.wait_for_log("no certificate for edge.test");
    drop(edge);
    let edge = run(", external_account: {key_id: kid-1, hmac_key_file: hmac}");
    await_some(&edge, "the certificate", || shown(&edge, "edge.test", &root));
}
