//! Files that are looked at while the process runs, and sessions that go on at other processes.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::harness::Authority;
use crate::harness::Clients;
use crate::harness::Edge;
use crate::harness::Wire;
use crate::harness::clients::curl;
use crate::harness::clients::s_client;

const READ: &str = "edgeproxy_tls_files_read_total{listener=\"https\",result=";

fn config(tls: &str) -> String {
    format!(
        "listeners: [{{name: https, address: \"127.0.0.1:0\", tls: {{{tls}}}}}]\nroutes: [{{respond: {{body: hello}}}}]\n"
    )
}

/// Puts a file in its place as a whole.
fn put(file: &Path, bytes: impl AsRef<[u8]>) {
    let draft = file.with_extension("draft");
    fs::write(&draft, bytes).expect("the folder can be written to");
    fs::set_permissions(&draft, fs::Permissions::from_mode(0o600)).expect("it is ours");
    fs::rename(&draft, file).expect("the folder can be written to");
}

#[test]
fn a_new_certificate_is_shown_without_a_reload_and_a_broken_one_never() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let (old, new) = (Authority::new(), Authority::new());
    let (certificate, key) = old.write_leaf(folder.path(), "a", &["a.test"]);
    let old_root = old.write(folder.path());
    let other = tempfile::tempdir().expect("a folder can be made");
    let (new_certificate, new_key) = new.write_leaf(other.path(), "a", &["a.test"]);
    let new_root = new.write(other.path());
    let edge = Edge::with(&config(&format!(
        "certificates: [{{hosts: [a.test], certificate: {}, key: {}}}]",
        certificate.display(),
        key.display()
    )));
    let to = edge.address("https");
    let visit = |root: &Path| Wire::tls(to, "a.test", root, &[]);
    let mut before = visit(&old_root).expect("it is shown");

    // The certificate alone does not fit its key.
    put(&certificate, fs::read(&new_certificate).expect("it is there"));
    edge.wait_for_log(
        "ERROR edgeproxy::app] certificates of listener \"https\" cannot be read again",
    );
    edge.wait_for_metric(&format!("{READ}\"refused\"}}"), 1.0);
    visit(&old_root).expect("the one in use stays").get("a.test", "/", &[]).expect_body("hello");

    put(&key, fs::read(&new_key).expect("it is there"));
    edge.wait_for_metric(&format!("{READ}\"replaced\"}}"), 1.0);
    visit(&new_root).expect("the new one is shown").get("a.test", "/", &[]).expect_body("hello");
    assert!(visit(&old_root).is_err());
    before.get("a.test", "/", &[]).expect_body("hello");
    assert_eq!(edge.metric("edgeproxy_config_reloads_total"), 0.0);
}

#[test]
fn a_file_that_is_broken_keeps_no_other_from_being_read() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let (old, new, clients) = (Authority::new(), Authority::new(), Clients::new());
    let (certificate, key) = old.write_leaf(folder.path(), "a", &["a.test"]);
    let (other, other_key) = old.write_leaf(folder.path(), "b", &["b.test"]);
    let old_root = old.write(folder.path());
    let further = tempfile::tempdir().expect("a folder can be made");
    let (new_certificate, new_key) = new.write_leaf(further.path(), "a", &["a.test"]);
    let new_root = new.write(further.path());
    let keys = folder.path().join("tickets");
    put(&keys, format!("{}\n", "01".repeat(32)));
    let edge = Edge::with(&config(&format!(
        "tickets: {{file: {}}}, certificates: [{{hosts: [b.test], certificate: {}, key: {}}}, \
         {{hosts: [a.test], certificate: {}, key: {}, client_auth: {{ca: {}, crl: [{}]}}}}]",
        keys.display(),
        other.display(),
        other_key.display(),
        certificate.display(),
        key.display(),
        clients.ca().display(),
        clients.crl().display(),
    )));
    let to = edge.address("https");
    let alice = clients.client("alice", 1);
    let visit = |root: &Path| Wire::tls_with(to, "a.test", alice.config(root, &["http/1.1"]));
    let mut before = visit(&old_root).expect("she is let in");
    before.get("a.test", "/", &[]).expect_status(200);

    // Half a file, as of a program that was ended while it wrote, and keys that others can read.
    let half = fs::read(&other).expect("it is there");
    put(&other, &half[..half.len() / 2]);
    fs::set_permissions(&keys, fs::Permissions::from_mode(0o644)).expect("it is ours");
    edge.wait_for_log("mode 0644");
    let said = edge.wait_for_log("b.pem: a PEM block is malformed");
    assert!(said.contains("was the file written whole?"), "{said}");
    put(&certificate, fs::read(&new_certificate).expect("it is there"));
    put(&key, fs::read(&new_key).expect("it is there"));
    edge.wait_for_metric(&format!("{READ}\"replaced\"}}"), 1.0);
    visit(&new_root).expect("the new one is shown").get("a.test", "/", &[]).expect_body("hello");
    assert!(Wire::tls(to, "b.test", &old_root, &[]).is_ok(), "the one in use stays");
    clients.revoke(&[1]);
    edge.wait_for_metric(&format!("{READ}\"replaced\"}}"), 2.0);
    before.get("a.test", "/", &[]).expect_status(421);

    // A reload, which changes all or nothing, is refused until it is mended.
    edge.reload().expect_status(422);
    put(&other, half);
    fs::set_permissions(&keys, fs::Permissions::from_mode(0o600)).expect("it is ours");
    edge.reload().expect_status(200);
}

#[test]
fn what_is_valid_is_not_replaced_by_what_has_expired() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let authority = Authority::new();
    let (certificate, key) = authority.write_leaf(folder.path(), "a", &["a.test"]);
    let root = authority.write(folder.path());
    let yaml = config(&format!(
        "certificates: [{{hosts: [a.test], certificate: {}, key: {}}}]",
        certificate.display(),
        key.display()
    ));
    let edge = Edge::with(&yaml);
    let clients = Clients::new();
    let old = clients.expired("a", 1);
    put(&key, fs::read(&old.key).expect("it is there"));
    put(&certificate, fs::read(&old.certificate).expect("it is there"));
    let said = edge.wait_for_log("has expired or is not valid yet");
    assert!(said.contains("those in use stay"), "{said}");
    let visit = || Wire::tls(edge.address("https"), "a.test", &root, &[]);
    visit().expect("the one in use stays").get("a.test", "/", &[]).expect_body("hello");
    edge.reload().expect_status(409);
    visit().expect("the one in use stays");
    // Where nothing better is in use, it is shown.
    drop(edge);
    let edge = Edge::with(&yaml);
    edge.wait_for_log("the certificate expired 1 days ago");
}

#[test]
fn a_client_that_is_revoked_is_refused_without_a_reload() {
    let clients = Clients::new();
    let edge = Edge::with(&config(&format!(
        "client_auth: {{ca: {}, crl: [{}]}}, certificates: [{{hosts: [a.test], internal: true}}]",
        clients.ca().display(),
        clients.crl().display()
    )));
    let client = clients.client("alice", 1);
    let alice = client.config(&edge.root(), &["http/1.1"]);
    let mut before = Wire::tls_with(edge.address("https"), "a.test", alice).expect("she is let in");
    before.get("a.test", "/", &[]).expect_status(200);
    clients.revoke(&[1]);
    edge.wait_for_metric(&format!("{READ}\"replaced\"}}"), 1.0);
    before.get("a.test", "/", &[]).expect_status(421);
    let (certificate, key) = (client.certificate.display(), client.key.display());
    let said = ["--cert", &certificate.to_string(), "--key", &key.to_string()];
    assert!(!curl(edge.address("https"), "https://a.test/", &edge.root(), &said).well);
    edge.wait_for_metric(
        "edgeproxy_tls_client_certificates_total{listener=\"https\",result=\"revoked\"}",
        1.0,
    );
}

#[test]
fn sessions_go_on_at_another_process_with_the_same_keys() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let authority = Authority::new();
    let (certificate, key) = authority.write_leaf(folder.path(), "a", &["a.test"]);
    let root = authority.write(folder.path());
    let (one, two) = ("01".repeat(32), "02".repeat(32));
    let keys = folder.path().join("tickets");
    put(&keys, format!("{one}\n"));
    let yaml = config(&format!(
        "tickets: {{file: {}}}, certificates: [{{hosts: [a.test], certificate: {}, key: {}}}]",
        keys.display(),
        certificate.display(),
        key.display()
    ));
    let alone = Edge::with(&yaml.replace(&format!("{{file: {}}}", keys.display()), "on"));
    let (first, second) = (Edge::with(&yaml), Edge::with(&yaml));
    let ask = "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n";
    for version in ["-tls1_2", "-tls1_3"] {
        let session = folder.path().join("session").display().to_string();
        let visit = |edge: &Edge, more: &[&str]| {
            let said = [&[version, "-servername", "a.test"][..], more].concat();
            s_client(edge.address("https"), &root, &said, ask)
        };
        let (kept, again) = (["-sess_out", &*session], ["-sess_in", &*session]);
        visit(&first, &kept).expect("New, TLSv1").expect("HTTP/1.1 200");
        visit(&second, &again).expect("Reused, TLSv1").expect("HTTP/1.1 200");
        visit(&alone, &again).expect("New, TLSv1").expect("HTTP/1.1 200");
        // Its own keys stay when it is reloaded, and so do these.
        visit(&alone, &kept).expect("New, TLSv1");
        alone.reload().expect_status(200);
        visit(&alone, &again).expect("Reused, TLSv1").expect("HTTP/1.1 200");
        visit(&first, &kept).expect("New, TLSv1");
        first.reload().expect_status(200);
        visit(&first, &again).expect("Reused, TLSv1");
    }
    // A new key seals and the old one still opens; then it is gone.
    let session = folder.path().join("session").display().to_string();
    let visit = |edge: &Edge, more: &[&str]| {
        let said = [&["-servername", "a.test"][..], more].concat();
        s_client(edge.address("https"), &root, &said, ask)
    };
    visit(&first, &["-sess_out", &session]).expect("New, TLSv1");
    put(&keys, format!("{two}\n{one}\n"));
    first.reload().expect_status(200);
    visit(&first, &["-sess_in", &session]).expect("Reused, TLSv1");
    put(&keys, format!("{two}\n"));
    first.reload().expect_status(200);
    visit(&first, &["-sess_in", &session]).expect("New, TLSv1");
    // What others can read is not used.
    fs::set_permissions(&keys, fs::Permissions::from_mode(0o644)).expect("it is ours");
    let refused = first.reload();
    assert!(refused.status >= 400 && refused.text().contains("mode 0644"), "{}", refused.text());
    visit(&first, &[]).expect("HTTP/1.1 200");
}
