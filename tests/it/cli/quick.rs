//! The one-line mode.

use std::net::SocketAddr;
use std::net::TcpListener;
use std::process::Command;
use std::sync::Arc;

use nix::sys::signal::Signal;
use tempfile::TempDir;

use super::folder;
use super::run;
use super::run_in;
use crate::harness::Edge;
use crate::harness::Origin;
use crate::harness::Reply;
use crate::harness::Wire;
use crate::harness::edge::binary;
use crate::harness::ok;
use crate::process::free_address;

fn free_port() -> u16 {
    free_address().port()
}

fn start(folder: &Arc<TempDir>, port: u16, origin: &Origin, more: &[&str]) -> Edge {
    let mut command = Command::new(binary());
    command.arg("--port").arg(port.to_string());
    command.arg("--origin").arg(format!("http://{}", origin.address)).args(more);
    command.env("XDG_STATE_HOME", folder.path());
    Edge::start(Arc::clone(folder), command)
}

fn get(port: u16, target: &str) -> Reply {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    Wire::plain(address).get("edge.test", target, &[])
}

fn origin() -> Origin {
    Origin::script()
        .on("/silent", ok("hello"))
        .on("/short", ok("hello").field("Cache-Control", "max-age=60"))
        .on("/never", ok("hello").field("Cache-Control", "no-store"))
        .start()
}

#[test]
fn with_a_lifetime_what_says_nothing_is_kept() {
    let (origin, port) = (origin(), free_port());
    let folder = Arc::new(folder());
    let _edge = start(&folder, port, &origin, &["--cache-ttl", "5m"]);
    get(port, "/silent").expect_status(200).expect_miss().expect_body("hello");
    let hit = get(port, "/silent");
    hit.expect_status(200).expect_hit().expect_body("hello");
    assert!(hit.value("age").is_some(), "{hit:?}");
    assert_eq!(origin.seen_at("/silent").len(), 1);

    // What says something is believed.
    for _ in 0..2 {
        let reply = get(port, "/never");
        assert_ne!(reply.value("x-cache"), Some("HIT"), "{reply:?}");
    }
    // The origin is asked by its own name.
    assert_eq!(origin.seen()[0].value("host"), Some(origin.address.to_string().as_str()));
}

#[test]
fn the_verb_that_is_the_default_may_be_said() {
    let (origin, port) = (origin(), free_port());
    let folder = Arc::new(folder());
    let mut command = Command::new(binary());
    command.args(["run", "--port", &port.to_string(), "--cache-ttl", "5m"]);
    command.arg("--origin").arg(format!("http://{}", origin.address));
    command.env("XDG_STATE_HOME", folder.path());
    let _edge = Edge::start(Arc::clone(&folder), command);
    get(port, "/silent").expect_miss();
    get(port, "/silent").expect_hit().expect_body("hello");

    let twice = run(&["--port", "3000", "run", "--port", "3001", "--origin", "http://a"]);
    assert_eq!(twice.code, Some(64), "{}", twice.err);
    let said = "--port stands before `run` and behind it";
    assert!(twice.err.contains(said), "{}", twice.err);
}

#[test]
fn without_a_lifetime_only_what_allows_it_is_kept() {
    let (origin, port) = (origin(), free_port());
    let folder = Arc::new(folder());
    let _edge = start(&folder, port, &origin, &[]);
    get(port, "/silent").expect_status(200);
    get(port, "/silent").expect_status(200);
    assert_eq!(origin.seen_at("/silent").len(), 2);
    get(port, "/short").expect_miss();
    get(port, "/short").expect_hit();
}

#[test]
fn the_printed_configuration_loads_and_means_the_same() {
    let folder = folder();
    for more in [&[][..], &["--cache-ttl", "90s"]] {
        let mut arguments = vec!["--port", "3000", "--origin", "https://example.org"];
        arguments.extend(more);
        let mut print = arguments.clone();
        print.push("--print-config");
        let printed = run_in(folder.path(), &print).succeeded();
        std::fs::write(folder.path().join("edge.yaml"), &printed).expect("it can be written");
        run_in(folder.path(), &["check", "-c", "edge.yaml"]).succeeded();
        let file = run_in(folder.path(), &["config", "show", "-c", "edge.yaml"]).succeeded();
        let mut show = arguments.clone();
        show.extend(["config", "show"]);
        assert_eq!(run_in(folder.path(), &show).succeeded(), file);
        assert!(file.contains("0.0.0.0:3000") && file.contains("example.org:443"), "{file}");
        assert_eq!(
            file.contains("ttl: 90s") || file.contains("ttl: 1m30s"),
            !more.is_empty(),
            "{file}"
        );
    }
}

#[test]
fn the_printed_configuration_runs() {
    let (origin, port) = (origin(), free_port());
    let folder = Arc::new(folder());
    let (port_text, url) = (port.to_string(), format!("http://{}", origin.address));
    let arguments = ["--port", &port_text, "--origin", &url, "--cache-ttl", "5m", "--print-config"];
    let printed = run_in(folder.path(), &arguments).succeeded();
    let edge = Edge::in_folder(Arc::clone(&folder), &printed, &[]);
    get(port, "/silent").expect_miss();
    get(port, "/silent").expect_hit();
    drop(edge);
}

#[test]
fn what_makes_no_sense_is_explained() {
    let wrong = |arguments: &[&str], parts: &[&str]| run(arguments).failed(64, parts);
    let origin = "http://localhost:8000";
    wrong(&["--port", "3000"], &["--port needs --origin too", "--origin http://localhost:8000"]);
    wrong(&["--origin", origin], &["--origin needs --port too"]);
    wrong(&["--port", "0", "--origin", origin], &["--port 0", "from 1 to 65535"]);
    wrong(&["--port", "65536", "--origin", origin], &["65536"]);
    wrong(&["--port", "http", "--origin", origin], &["http"]);
    for (origin, part) in [
        ("localhost:8000", "neither http:// nor https://"),
        ("ftp://localhost", "neither http:// nor https://"),
        ("http://", "the host or the port is not valid"),
        ("http://a b", "the host or the port is not valid"),
        ("http://user:hunter2@host", "--origin http://***@host: a user and a password"),
        ("http://localhost:0", "the host or the port is not valid"),
        ("http://localhost:99999", "the host or the port is not valid"),
        ("http://localhost/path", "a path is not part of an origin"),
    ] {
        let arguments = ["--port", "3000", "--origin", origin];
        wrong(&arguments, &["--origin", part]);
    }
    let ttl = |ttl: &'static str| ["--port", "3000", "--origin", origin, "--cache-ttl", ttl];
    wrong(&ttl("0s"), &["--cache-ttl 0s", "leave it out"]);
    wrong(&ttl("5"), &["--cache-ttl", "5"]);
    wrong(&ttl("soon"), &["--cache-ttl", "soon"]);
    wrong(&ttl("-1s"), &["-1"]);
}

#[test]
fn a_port_in_use_is_said() {
    let taken = TcpListener::bind("0.0.0.0:0").expect("it can be listened on");
    let port = taken.local_addr().expect("a bound socket has an address").port().to_string();
    let outcome = run(&["--port", &port, "--origin", "http://localhost:8000"]);
    outcome.failed(1, &[&format!("cannot listen on 0.0.0.0:{port}"), "in use"]);
}

#[test]
fn two_run_side_by_side_and_each_has_a_cache_of_its_own() {
    let origin = origin();
    let folder = Arc::new(folder());
    let (one, two) = (free_port(), free_port());
    let first = start(&folder, one, &origin, &["--cache-ttl", "5m"]);
    let second = start(&folder, two, &origin, &["--cache-ttl", "5m"]);
    for port in [one, two] {
        get(port, "/silent").expect_miss();
        get(port, "/silent").expect_hit();
    }
    let said = run_in(folder.path(), &["--clear-cache", "--port", &one.to_string()]).succeeded();
    assert_eq!(said, "The cache is cleared: 1 object\n");
    get(one, "/silent").expect_miss();
    get(two, "/silent").expect_hit();
    // Neither stands in the other's way for an upgrade.
    for edge in [&first, &second] {
        assert!(!edge.log().iter().any(|line| line.contains("upgrades")), "{:?}", edge.log());
    }
}

#[test]
fn it_hands_over_as_any_other() {
    let (origin, port) = (origin(), free_port());
    let folder = Arc::new(folder());
    let mut old = start(&folder, port, &origin, &[]);
    let mut new = start(&folder, port, &origin, &["-u"]);
    assert_eq!(old.wait().code(), Some(0));
    get(port, "/short").expect_status(200);
    new.signal(Signal::SIGTERM);
    assert_eq!(new.wait().code(), Some(0));
}
