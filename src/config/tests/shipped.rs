//! The files in `conf/` are right, and mean what they say.

use std::path::PathBuf;

use crate::config::Loaded;
use crate::config::Machine;
use crate::config::plan::AdminAddress;
use crate::config::plan::Plan;
use crate::config::schema::Config;
use crate::config::show;
use crate::config::through;
use crate::route::action::Action;

/// What a shipped file holds.
pub(super) fn text(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("conf").join(name);
    std::fs::read_to_string(path).expect("it is there")
}

fn shipped(name: &str) -> Loaded {
    let text = text(name);
    let first = text.lines().next().unwrap_or_default();
    assert_eq!(first, "# yaml-language-server: $schema=edgeproxy.schema.json", "{name}");
    through(&text, name, &super::somewhere(), &|_| None, Machine::Leave)
        .unwrap_or_else(|found| panic!("{found}"))
}

pub(super) const ALL: [&str; 6] = [
    "edge.yaml",
    "api-gateway.yaml",
    "static-site.yaml",
    "sidecar.yaml",
    "upstreams.yaml",
    "reference.yaml",
];

#[test]
fn every_shipped_file_loads_without_a_warning() {
    for name in ALL {
        let loaded = shipped(name);
        assert!(loaded.warnings.is_empty(), "{}", loaded.warnings);
    }
}

#[test]
fn every_shipped_file_means_the_same_when_shown_and_loaded_again() {
    for name in ALL {
        let first = shipped(name);
        let yaml = show(&first.config);
        let again = super::load_text(&yaml, name).unwrap_or_else(|found| panic!("{found}\n{yaml}"));
        assert_eq!(words(&first.plan), words(&again.plan), "{name}");
    }
}

#[test]
fn what_auto_stands_for_is_shown_and_means_the_same() {
    let ordered = "listeners: [{address: \"127.0.0.1:80\"}, {address: \"127.0.0.1:443\", tls: auto}]\n\
                   routes: [{match: {hosts: [www.a.test]}, respond: {status: 204}}]\n";
    let staging = format!("{ordered}acme: {{staging: true}}\nprocess: {{pid_file: run/pid}}\n");
    let server = "https://acme-v02.api.letsencrypt.org/directory";
    let staged = "https://acme-staging-v02.api.letsencrypt.org/directory";
    let usual = [
        "  threads: 4\n",
        "  state_dir: /var/lib/edge\n",
        "  log_file: /var/lib/edge/edgeproxy.log\n",
        "  upgrade_socket: /var/lib/edge/upgrade.sock\n",
        "  handover_memory: ",
    ];
    let pid = "  pid_file: /var/lib/edge/edgeproxy.pid\n";
    for (written, more) in [
        (text("reference.yaml"), &[pid][..]),
        (ordered.to_owned(), &[pid, "  storage: /var/lib/edge/acme\n", server]),
        (staging, &["  pid_file: run/pid\n", "  storage: /var/lib/edge/acme\n", staged]),
    ] {
        let first = super::load_text(&written, "first").unwrap_or_else(|found| panic!("{found}"));
        let yaml = crate::config::shown(&first);
        for part in usual.iter().chain(more) {
            assert!(yaml.contains(part), "no {part:?} in {yaml}");
        }
        let is_ordered = first.plan.acme.is_some();
        assert_eq!(yaml.matches(": auto\n").count(), if is_ordered { 0 } else { 2 }, "{yaml}");
        let again =
            super::load_text(&yaml, "again").unwrap_or_else(|found| panic!("{found}\n{yaml}"));
        assert_eq!(words(&first.plan), words(&again.plan));
    }
}

/// The folder of the documents that the package installs.
const DOCUMENTS: &str = "/usr/share/doc/edgeproxy";

#[test]
fn the_packages_configuration_names_the_schema_that_the_package_brings() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(root.join("packaging/edge.yaml")).expect("it is there");
    let first = text.lines().next().unwrap_or_default();
    let schema = format!("{DOCUMENTS}/edgeproxy.schema.json");
    assert_eq!(first, format!("# yaml-language-server: $schema={schema}"));
    let package = std::fs::read_to_string(root.join("Cargo.toml")).expect("it is there");
    let asset = format!("[\"conf/edgeproxy.schema.json\", \"{}\", \"644\"]", &schema[1..]);
    assert!(package.contains(&asset), "no {asset}");
    // The reference beside it names it without a folder.
    assert!(package.contains(&format!("\"{}/reference.yaml\"", &DOCUMENTS[1..])));
}

/// A plan in words; the routing table by its routes, since its indices have no order.
fn words(plan: &Plan) -> String {
    let Plan {
        process,
        listeners,
        acme,
        limits,
        normalisation,
        upstreams,
        routes,
        storage,
        admin,
        admin_token,
        state_file,
        access_log,
        log_level,
    } = plan;
    let routes = routes.routes();
    format!(
        "{process:?}\n{listeners:?}\n{acme:?}\n{limits:?}\n{normalisation:?}\n{upstreams:?}\n{routes:?}\n\
         {storage:?}\n{admin:?}\n{admin_token:?}\n{state_file:?}\n{access_log:?}\n{log_level:?}"
    )
}

#[test]
fn the_showcase_has_both_listeners_the_demo_and_the_admin_listener() {
    let plan = shipped("edge.yaml").plan;
    assert!(plan.listeners[0].tls.is_none() && plan.listeners[0].h2c);
    let tls = plan.listeners[1].tls.as_ref().expect("the second one speaks TLS");
    assert!(tls.manner.http2);
    assert_eq!(tls.certificates[0].hosts, ["localhost", "127.0.0.1", "edge.localhost"]);
    assert_eq!(plan.upstreams[0].backends[0].at, crate::upstream::Place::Demo);
    assert_eq!(plan.admin, Some(AdminAddress::Tcp(([127, 0, 0, 1], 9180).into())));
    let by_name = |name: &str| {
        let found = plan.routes.routes().iter().find(|route| &*route.name == name);
        found.expect("the route is there")
    };
    assert!(!by_name("private").cache.enabled);
    assert!(by_name("static").cache.default_ttl > by_name("api").cache.default_ttl);
    assert!(matches!(by_name("old").action, Action::Redirect { .. }));
    assert!(matches!(by_name("robots").action, Action::Respond { .. }));
}

#[test]
fn backends_of_the_example_can_be_changed_while_it_runs() {
    let plan = shipped("upstreams.yaml").plan;
    assert_eq!(plan.admin, Some(AdminAddress::Tcp(([127, 0, 0, 1], 9180).into())));
}

#[test]
fn the_sidecar_is_on_loopback_only() {
    let plan = shipped("sidecar.yaml").plan;
    assert!(plan.listeners.iter().all(|listener| listener.address.ip().is_loopback()));
    assert_eq!(plan.admin, None);
}

#[test]
fn a_configuration_needs_no_more_than_these_lines() {
    let short = "listeners: [{address: \"127.0.0.1:80\"}]\nupstreams: {a: {addresses: [\"a:1\"]}}\n\
                 routes: [{upstream: a}]\n";
    let loaded = super::load_text(short, "short").expect("it is enough");
    assert!(loaded.warnings.is_empty());
    assert_ne!(loaded.config, Config::default());
}
