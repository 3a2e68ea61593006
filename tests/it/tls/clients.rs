//! Certificates of clients: who is let in, what routes, logs and origins are told, and what is served to nobody
//! else.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use crate::harness::Authority;
use crate::harness::Clients;
use crate::harness::Clock;
use crate::harness::Edge;
use crate::harness::Origin;
use crate::harness::Wire;
use crate::harness::clients::curl;
use crate::harness::clients::s_client;
use crate::harness::edge::binary;
use crate::harness::edge::write_config;
use crate::harness::http2;
use crate::harness::ok;

const RESULTS: &str = "edgeproxy_tls_client_certificates_total{listener=\"https\",result=";

/// `admin.test` is for clients of `clients` alone, `may.test` asks, `open.test` does not.
fn config(clients: &Clients, origin: &Origin, routes: &str) -> String {
    let (ca, crl) = (clients.ca(), clients.crl());
    let (ca, crl) = (ca.display(), crl.display());
    format!(
        "listeners:\n  - {{name: http, address: \"127.0.0.1:0\"}}\n  - name: https\n    address: \"127.0.0.1:0\"\n    \
         tls:\n      certificates:\n        \
         - {{hosts: [open.test], internal: true}}\n        \
         - {{hosts: [admin.test], internal: true, client_auth: {{ca: {ca}, crl: [{crl}]}}}}\n        \
         - {{hosts: [may.test], internal: true, client_auth: {{mode: optional, ca: {ca}}}}}\n\
         upstreams: {{origin: {{addresses: [\"{}\"]}}}}\n\
         access_log: {{to: stdout, format: text, fields: [host, uri, status, tls_client_verified, tls_client_subject, \
         tls_client_san, tls_client_fingerprint]}}\n\
         routes:\n{routes}",
        origin.address
    )
}

const ALL: &str = "  - {name: all, upstream: origin}\n";

fn text(path: &Path) -> String {
    path.display().to_string()
}

#[test]
fn a_host_may_be_for_clients_with_a_certificate_alone() {
    let (clients, origin) = (Clients::new(), Origin::always(ok("hello")));
    let edge = Edge::with(&config(&clients, &origin, ALL));
    let to = edge.address("https");
    let alice = clients.client("alice", 1);
    let (certificate, key) = (text(&alice.certificate), text(&alice.key));
    let shown = ["--cert", &*certificate, "--key", &*key];
    for version in ["--http1.1", "--http2"] {
        for tls in ["1.2", "1.3"] {
            let ask = |url: &str, more: &[&str]| {
                let said = [version, &format!("--tlsv{tls}"), "--tls-max", tls];
                curl(to, url, &edge.root(), &[&said[..], more].concat())
            };
            ask("https://admin.test/", &shown).expect("hello200 ");
            ask("https://may.test/", &shown).expect("hello200 ");
            ask("https://may.test/", &[]).expect("hello200 ");
            ask("https://open.test/", &[]).expect("hello200 ");
            assert!(!ask("https://admin.test/", &[]).well);
        }
    }
    let count = |result: &str| edge.metric(&format!("{RESULTS}\"{result}\"}}"));
    assert_eq!((count("verified"), count("none"), count("missing")), (8.0, 4.0, 4.0));
    assert_eq!(
        edge.metric("edgeproxy_tls_handshakes_total{listener=\"https\",result=\"failed\""),
        4.0
    );
}

#[test]
fn a_certificate_that_is_not_good_ends_the_handshake_and_is_counted_by_its_reason() {
    let (clients, origin) = (Clients::new(), Origin::always(ok("hello")));
    let edge = Edge::with(&config(&clients, &origin, ALL));
    clients.revoke(&[7]);
    edge.reload().expect_status(200);
    let others = Clients::new();
    for (client, result) in [
        (clients.client("mallory", 7), "revoked"),
        (clients.expired("bob", 2), "expired"),
        (others.client("eve", 3), "unknown_authority"),
    ] {
        for tls in ["1.2", "1.3"] {
            let (certificate, key) = (text(&client.certificate), text(&client.key));
            let said = ["--cert", &certificate, "--key", &key, "--tls-max", tls];
            let said = curl(edge.address("https"), "https://admin.test/", &edge.root(), &said);
            assert!(!said.well, "{said:?}");
        }
        edge.wait_for_metric(&format!("{RESULTS}\"{result}\"}}"), 2.0);
        // Where one is optional, it is not one that is bad; that host has no list of revoked ones.
        let (certificate, key) = (text(&client.certificate), text(&client.key));
        let said = ["--cert", &certificate, "--key", &key];
        let said = curl(edge.address("https"), "https://may.test/", &edge.root(), &said);
        assert_eq!(said.well, result == "revoked", "{said:?}");
    }
    assert_eq!(origin.seen().len(), 1);
}

#[test]
fn an_origin_is_told_whose_certificate_it_is_when_asked_for_and_forged_copies_never_pass() {
    let (clients, origin) =
        (Clients::new(), Origin::script().otherwise(|s| ok(s.target())).start());
    let routes = "  - {match: {path_prefix: /whole}, upstream: origin, headers: {client_cert: whole}}\n  \
                  - {match: {path_prefix: /identity}, upstream: origin, headers: {client_cert: identity, underscores: pass}}\n  \
                  - {upstream: origin}\n";
    let yaml = config(&clients, &origin, routes) + "trusted_proxies: [127.0.0.1]\n";
    let edge = Edge::with(&yaml);
    let alice = clients.client("alice", 1);
    let forged = [
        ("Client-Cert", ":Zm9v:"),
        ("Client-Cert-Chain", ":Zm9v:"),
        ("Client-Cert-Verified", "true"),
        ("Client-Cert-Subject", "CN=root"),
        ("Client-Cert-San", "\"DNS:root\""),
        ("Client-Cert-Fingerprint", "00"),
        ("Client_Cert_Verified", "true"),
        ("Client-Cert-Later", "x"),
    ];
    let claims = |path: &str| -> Vec<(String, String)> {
        let seen = origin.seen_at(path).pop().expect("it was asked");
        let claims =
            seen.fields.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.clone()));
        claims.filter(|(name, _)| name.replace('_', "-").starts_with("client-cert")).collect()
    };
    let mut known = Wire::tls_with(
        edge.address("https"),
        "admin.test",
        alice.config(&edge.root(), &["http/1.1"]),
    )
    .unwrap();
    let mut unknown =
        Wire::tls(edge.address("https"), "may.test", &edge.root(), &["http/1.1"]).unwrap();
    let fingerprint = clients_fingerprint(&alice.certificate);
    let identity = [
        ("client-cert-verified", "true"),
        ("client-cert-fingerprint", &*fingerprint),
        ("client-cert-subject", "CN=alice,O=Test"),
        ("client-cert-san", "\"DNS:alice.test\", \"URI:spiffe://test/alice\""),
    ];
    for method in ["GET", "POST"] {
        let ask = |wire: &mut Wire, host: &str, path: &str| {
            wire.request(method, host, path, &forged, b"").expect_status(200);
            let mut told = claims(path);
            told.sort();
            told
        };
        let sorted = |told: &[(&str, &str)]| {
            let mut told: Vec<_> =
                told.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
            told.sort();
            told
        };
        assert_eq!(ask(&mut known, "admin.test", &format!("/plain-{method}")), []);
        let told = ask(&mut known, "admin.test", &format!("/identity/{method}"));
        assert_eq!(told, sorted(&identity));
        let told = ask(&mut known, "admin.test", &format!("/whole/{method}"));
        let der = format!(":{}:", openssl_base64(&alice.certificate));
        let whole = [&identity[..], &[("client-cert", &*der)]].concat();
        assert_eq!(told, sorted(&whole));
        for path in ["/whole/nobody", "/identity/nobody"] {
            let told = ask(&mut unknown, "may.test", &format!("{path}-{method}"));
            assert_eq!(told, sorted(&[("client-cert-verified", "false")]));
        }
    }
    // Over HTTP/2, and to who asks in plain text.
    http2::run(async {
        let mut h2 = http2::tls(edge.address("https"), "may.test", &edge.root()).await;
        let fields = [("client-cert-verified", "true"), ("client-cert", ":Zm9v:")];
        http2::get(&mut h2, "https://may.test/whole/h2", &fields).await.unwrap();
    });
    assert_eq!(claims("/whole/h2"), [("client-cert-verified".to_owned(), "false".to_owned())]);
    edge.wire().get("open.test", "/whole/plain", &forged).expect_status(200);
    assert_eq!(claims("/whole/plain"), [("client-cert-verified".to_owned(), "false".to_owned())]);
}

/// What OpenSSL makes of a certificate.
fn openssl(certificate: &Path, arguments: &[&str]) -> Vec<u8> {
    let mut command = Command::new("openssl");
    command.arg("x509").args(arguments).arg("-in").arg(certificate);
    command.output().expect("openssl is installed: make setup").stdout
}

fn clients_fingerprint(certificate: &Path) -> String {
    let said = openssl(certificate, &["-noout", "-fingerprint", "-sha256"]);
    let said = String::from_utf8(said).expect("text");
    said.trim().rsplit('=').next().unwrap_or_default().replace(':', "").to_ascii_lowercase()
}

fn openssl_base64(certificate: &Path) -> String {
    let pem = String::from_utf8(openssl(certificate, &[])).expect("text");
    pem.lines().filter(|line| !line.starts_with("-----")).collect()
}

#[test]
fn routes_and_the_access_log_know_whose_certificate_it_is() {
    let (clients, origin) = (Clients::new(), Origin::always(ok("x")));
    let alice = clients.client("alice", 1);
    let bob = clients.client("bob", 2);
    let carol = clients.client("carol", 3);
    let fingerprint = clients_fingerprint(&carol.certificate).to_uppercase();
    let routes = format!(
        "  - {{match: {{client_cert: {{subject: \"CN=alice,O=Test\"}}}}, respond: {{body: alice}}}}\n  \
         - {{match: {{client_cert: {{san: {{prefix: \"URI:spiffe://test/b\"}}}}}}, respond: {{body: bob}}}}\n  \
         - {{match: {{client_cert: {{fingerprints: [\"{fingerprint}\"]}}}}, respond: {{body: carol}}}}\n  \
         - {{match: {{client_cert: {{verified: true}}}}, respond: {{body: somebody}}}}\n  \
         - {{respond: {{body: nobody}}}}\n"
    );
    let edge = Edge::with(&config(&clients, &origin, &routes));
    let to = edge.address("https");
    let dave = clients.client("dave", 4);
    for (client, name) in [(&alice, "alice"), (&bob, "bob"), (&carol, "carol"), (&dave, "somebody")]
    {
        let mut wire =
            Wire::tls_with(to, "may.test", client.config(&edge.root(), &["http/1.1"])).unwrap();
        wire.get("may.test", &format!("/{name}"), &[]).expect_status(200).expect_body(name);
    }
    let mut wire = Wire::tls(to, "may.test", &edge.root(), &["http/1.1"]).unwrap();
    wire.get("may.test", "/nobody", &[]).expect_body("nobody");
    edge.wire()
        .get("open.test", "/plain", &[("Client-Cert-Subject", "CN=alice,O=Test")])
        .expect_body("nobody");

    let line = edge.wait_for_access("uri=/alice");
    for part in [
        "tls_client_verified=yes",
        "tls_client_subject=\"CN=alice,O=Test\"",
        "tls_client_san=\"DNS:alice.test, URI:spiffe://test/alice\"",
        &format!("tls_client_fingerprint={}", clients_fingerprint(&alice.certificate)),
    ] {
        assert!(line.contains(part), "{part} is not in {line}");
    }
    let line = edge.wait_for_access("uri=/nobody");
    assert!(line.contains("tls_client_verified=no tls_client_subject=-"), "{line}");
}

#[test]
fn what_is_for_clients_with_a_certificate_is_served_on_no_connection_without() {
    let (clients, origin) = (Clients::new(), Origin::always(ok("treasure")));
    let routes = "  - {match: {scheme: http, path_prefix: /to}, redirect: {to: \"https://{host}{path}\"}}\n  \
                  - {match: {path: /fixed}, respond: {body: treasure}}\n  - {upstream: origin}\n";
    let edge = Edge::with(&config(&clients, &origin, routes));
    let (to, root) = (edge.address("https"), edge.root());
    let alice = clients.client("alice", 1);

    for sni in ["open.test", "may.test"] {
        let mut wire = Wire::tls(to, sni, &root, &["http/1.1"]).unwrap();
        wire.get("admin.test", "/", &[]).expect_status(421);
        let mut wire = Wire::tls(to, sni, &root, &["http/1.1"]).unwrap();
        wire.get("admin.test:443", "/fixed", &[]).expect_status(421);
        http2::run(async {
            let mut h2 = http2::tls(to, sni, &root).await;
            let reply = http2::get(&mut h2, "https://admin.test/", &[]).await.unwrap();
            assert_eq!(reply.status, 421);
            let own = http2::get(&mut h2, &format!("https://{sni}/"), &[]).await.unwrap();
            assert_eq!(own.status, 200, "the connection goes on for its own host");
        });
    }
    // Who showed a certificate for one host is nobody at the other.
    let mut wire = Wire::tls_with(to, "may.test", alice.config(&root, &["http/1.1"])).unwrap();
    wire.get("admin.test", "/", &[]).expect_status(421);
    let mut wire = Wire::tls_with(to, "admin.test", alice.config(&root, &["http/1.1"])).unwrap();
    wire.get("admin.test", "/", &[]).expect_status(200);
    wire.get("open.test", "/", &[]).expect_status(421);

    // The same with programs that everybody has.
    let (certificate, key) = (text(&alice.certificate), text(&alice.key));
    let ask = "GET / HTTP/1.1\r\nHost: admin.test\r\nConnection: close\r\n\r\n";
    let said = s_client(to, &root, &["-quiet", "-servername", "open.test"], ask);
    said.expect("HTTP/1.1 421 ").expect_no("treasure");
    let said = s_client(to, &root, &["-quiet", "-noservername"], ask);
    said.expect("HTTP/1.1 421 ").expect_no("treasure");
    let shown = ["-quiet", "-servername", "admin.test", "-cert", &certificate, "-key", &key];
    s_client(to, &root, &shown, ask).expect("HTTP/1.1 200 ").expect("treasure");
    for version in ["--http1.1", "--http2"] {
        let said = curl(to, "https://open.test/", &root, &[version, "-H", "Host: admin.test"]);
        said.expect("421 ").expect_no("treasure");
    }

    // A listener that cannot ask leads to one that can, and serves nothing.
    edge.get("/fixed").expect_status(200);
    edge.wire().get("admin.test", "/", &[]).expect_status(421);
    edge.wire().get("admin.test", "/fixed", &[]).expect_status(421);
    let reply = edge.wire().get("admin.test", "/to/x", &[]);
    assert_eq!((reply.status, reply.value("location")), (308, Some("https://admin.test/to/x")));
    edge.wire().get("may.test", "/", &[]).expect_status(200);
    assert!(origin.seen().iter().all(|seen| seen.value("host") != Some("admin.test")
        || seen.value("x-forwarded-proto") == Some("https")));
}

#[test]
fn what_an_origin_answers_to_one_client_is_stored_for_nobody() {
    let (clients, origin) = (
        Clients::new(),
        Origin::script()
            .otherwise(|seen| {
                let whose = seen.value("client-cert-subject").unwrap_or("nobody").to_owned();
                ok(whose).field("Cache-Control", "public, max-age=600")
            })
            .start(),
    );
    let routes = "  - {match: {path: /shared}, upstream: origin}\n  \
                  - {upstream: origin, headers: {client_cert: identity}}\n";
    let edge = Edge::with(&config(&clients, &origin, routes));
    let ask = |name: &str, path: &str| {
        let client = clients.client(name, 1).config(&edge.root(), &["http/1.1"]);
        Wire::tls_with(edge.address("https"), "admin.test", client).unwrap().get(
            "admin.test",
            path,
            &[],
        )
    };
    ask("alice", "/").expect_body("CN=alice,O=Test");
    ask("bob", "/").expect_body("CN=bob,O=Test");
    ask("alice", "/").expect_body("CN=alice,O=Test");
    // An origin that is told nothing cannot tell clients apart.
    ask("alice", "/shared").expect_body("nobody").expect_miss();
    ask("bob", "/shared").expect_body("nobody").expect_hit();
    // And on other connections what is stored is as far away as the origin is.
    edge.wire().get("admin.test", "/shared", &[]).expect_status(421);
}

#[test]
fn a_session_is_good_for_what_it_was_made_for_only() {
    let (clients, origin) = (Clients::new(), Origin::always(ok("treasure")));
    let yaml = config(&clients, &origin, ALL);
    let open = yaml.replace("client_auth: {ca:", "client_auth: {mode: optional, ca:");
    let edge = Edge::with(&open);
    let (to, root) = (edge.address("https"), edge.root());
    let folder = tempfile::tempdir().expect("a folder can be made");
    let alice = clients.client("alice", 1);
    let (certificate, key) = (text(&alice.certificate), text(&alice.key));
    let shown = ["-cert", &*certificate, "-key", &*key];
    for tls in ["-tls1_2", "-tls1_3"] {
        edge.write(&open).reload().expect_status(200);
        let session = text(&folder.path().join(format!("session{tls}")));
        let visit = |name: &str, more: &[&str]| {
            let ask = format!("GET / HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n");
            s_client(to, &root, &[&[tls, "-servername", name][..], more].concat(), &ask)
        };
        let (kept, again) = (["-sess_out", &*session], ["-sess_in", &*session]);
        visit("admin.test", &kept).expect("New, TLSv1").expect("HTTP/1.1 200");
        visit("admin.test", &again).expect("Reused, TLSv1").expect("HTTP/1.1 200");
        // Not for another host.
        visit("open.test", &again).expect("New, TLSv1");
        // Not when its host asks for more now.
        edge.write(&yaml).reload().expect_status(200);
        visit("admin.test", &again).expect_no("Reused").expect_no("treasure");
        // With a certificate it goes on, and stands for who showed it.
        visit("admin.test", &[&shown[..], &kept].concat()).expect("HTTP/1.1 200");
        visit("admin.test", &again).expect("Reused, TLSv1").expect("HTTP/1.1 200");
        edge.wait_for_access("tls_client_subject=\"CN=alice,O=Test\"");
        // Not when that was taken back.
        clients.revoke(&[1]);
        edge.reload().expect_status(200);
        visit("admin.test", &[&shown[..], &again].concat())
            .expect_no("Reused")
            .expect_no("treasure");
        clients.revoke(&[]);
    }
}

#[test]
fn a_connection_from_before_a_change_is_held_to_it() {
    let (clients, origin) = (Clients::new(), Origin::always(ok("hello")));
    let edge = Edge::with(&config(&clients, &origin, ALL));
    let (to, root) = (edge.address("https"), edge.root());
    let alice = clients.client("alice", 1).config(&root, &["http/1.1"]);
    let mut wire = Wire::tls_with(to, "admin.test", alice).unwrap();
    let mut open = Wire::tls(to, "open.test", &root, &["http/1.1"]).unwrap();
    wire.get("admin.test", "/", &[]).expect_status(200);
    open.get("open.test", "/", &[]).expect_status(200);
    // What did not change is no reason.
    edge.reload().expect_status(200);
    wire.get("admin.test", "/", &[]).expect_status(200);
    clients.revoke(&[1]);
    edge.reload().expect_status(200);
    wire.get("admin.test", "/", &[]).expect_status(421);
    open.get("open.test", "/", &[]).expect_status(200);
}

#[test]
fn a_connection_is_served_as_long_as_the_certificate_of_its_client_is_valid() {
    let folder = Arc::new(tempfile::tempdir().expect("a folder can be made"));
    let (authority, clients) = (Authority::new(), Clients::new());
    authority.write_leaf(folder.path(), "a", &["a.test"]);
    let root = authority.write(folder.path());
    let clock = Clock::new(folder.path());
    let yaml = format!(
        "listeners: [{{name: https, address: \"127.0.0.1:0\", tls: {{client_auth: {{mode: optional, ca: {}}}, \
         certificates: [{{hosts: [a.test], certificate: a.pem, key: a.key}}]}}}}]\n\
         routes: [{{respond: {{body: hello}}}}]\n",
        text(&clients.ca())
    );
    let mut command = Command::new(binary());
    command.arg("-c").arg(write_config(&folder, &yaml));
    clock.give_to(&mut command);
    let edge = Edge::start(Arc::clone(&folder), command);
    let to = edge.address("https");
    let alice = clients.until("alice", 1, Duration::from_secs(clock.now() + 100));
    let connect = || Wire::tls_with(to, "a.test", alice.config(&root, &["http/1.1"]));
    let mut wire = connect().expect("she is let in");
    let mut nobody = Wire::tls(to, "a.test", &root, &["http/1.1"]).expect("nobody has to be known");
    wire.get("a.test", "/", &[]).expect_status(200);
    clock.turn(100);
    wire.get("a.test", "/", &[]).expect_status(200);
    clock.turn(1);
    wire.get("a.test", "/", &[]).expect_status(421);
    nobody.get("a.test", "/", &[]).expect_status(200);
    // Neither a new connection nor a session that goes on is let in.
    let _refused = connect();
    edge.wait_for_metric(&format!("{RESULTS}\"expired\"}}"), 1.0);
}

#[test]
fn a_client_that_is_refused_gets_to_read_why() {
    let (clients, origin) = (Clients::new(), Origin::always(ok("hello")));
    let edge = Edge::with(&config(&clients, &origin, ALL));
    // By then it has sent its request; which comes first is up to the kernel.
    for _ in 0..20 {
        let said = curl(edge.address("https"), "https://admin.test/", &edge.root(), &[]);
        assert!(!said.well);
        said.expect("certificate required");
    }
}

#[test]
fn operators_see_when_the_first_of_what_is_in_use_ends() {
    let (clients, origin) = (Clients::new(), Origin::always(ok("hello")));
    let edge = Edge::with(&config(&clients, &origin, ALL));
    let end = |what: &str| {
        let name = "edgeproxy_tls_expiry_timestamp_seconds";
        edge.metric(&format!("{name}{{listener=\"https\",what=\"{what}\"}}"))
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is later than 1970");
    let in_days = |moment: f64| (moment - now.as_secs_f64()) / 86_400.0;
    // What the internal CA issues is valid for 90 days, and the list for one.
    assert!((89.0..=90.1).contains(&in_days(end("certificate"))), "{}", end("certificate"));
    assert!((0.9..=1.1).contains(&in_days(end("revocations"))), "{}", end("revocations"));
}

#[test]
fn a_mistake_about_clients_is_told_with_its_place() {
    let clients = Clients::new();
    let ca = text(&clients.ca());
    let alice = clients.client("alice", 1);
    for (section, told) in [
        ("{}", "it is not said whose certificates are believed"),
        ("{ca: nowhere.pem}", "cannot read nowhere.pem"),
        (&*format!("{{ca: {}}}", alice.key.display()), "contains a private key and no certificate"),
        (&*format!("{{ca: {ca}, crl: [{ca}]}}"), "it holds no list of revoked certificates"),
        (&*format!("{{ca: {ca}, crl: [nowhere.crl]}}"), "cannot read nowhere.crl"),
        (&*format!("{{ca: {ca}, mode: maybe}}"), "required"),
    ] {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let yaml = format!(
            "listeners: [{{address: \"127.0.0.1:0\", tls: {{client_auth: {section}, certificates: \
             [{{hosts: [a.test], internal: true}}]}}}}]\nroutes: [{{respond: {{status: 204}}}}]\n"
        );
        let path = folder.path().join("edge.yaml");
        std::fs::write(&path, yaml).expect("the folder can be written to");
        let mut command = Command::new(binary());
        let said = command.arg("check").arg("-c").arg(&path).output().expect("the binary runs");
        let said = String::from_utf8_lossy(&said.stderr).into_owned()
            + &String::from_utf8_lossy(&said.stdout);
        assert!(said.contains(told), "{told:?} is not in {said}");
    }
}
