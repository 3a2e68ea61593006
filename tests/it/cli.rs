//! Every verb and flag of the command line.

mod paths;
mod quick;
mod streams;

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Command;
use std::process::Stdio;

use tempfile::TempDir;

use crate::harness::Authority;
use crate::harness::Edge;
use crate::harness::Origin;
use crate::harness::edge::binary;
use crate::harness::edge::simple;
use crate::harness::edge::write_config;
use crate::harness::ok;

/// What a run came to.
struct Outcome {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Outcome {
    #[track_caller]
    fn succeeded(self) -> String {
        assert_eq!(self.code, Some(0), "{}{}", self.out, self.err);
        self.out
    }

    /// It ended with this code and one message that contains these.
    #[track_caller]
    fn failed(&self, code: i32, parts: &[&str]) {
        assert_eq!(self.code, Some(code), "{}{}", self.out, self.err);
        for part in parts {
            assert!(self.err.contains(part), "no {part:?} in: {}", self.err);
        }
    }
}

fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder can be made")
}

fn run_in(folder: &Path, arguments: &[&str]) -> Outcome {
    let mut command = Command::new(binary());
    command.args(arguments).current_dir(folder).env("NO_COLOR", "1").env_remove("RUST_LOG");
    command.env("XDG_RUNTIME_DIR", folder).env("XDG_STATE_HOME", folder).stdin(Stdio::null());
    let output = command.output().expect("the binary runs");
    Outcome {
        code: output.status.code(),
        out: String::from_utf8(output.stdout).expect("text"),
        err: String::from_utf8(output.stderr).expect("text"),
    }
}

/// Where nothing is written and nothing is read.
fn run(arguments: &[&str]) -> Outcome {
    run_in(folder().path(), arguments)
}

/// A configuration that is right.
fn sound() -> TempDir {
    let folder = folder();
    write_config(&folder, &simple(&Origin::always(ok("hello")), ""));
    folder
}

#[test]
fn help_shows_examples_exit_codes_and_signals() {
    let help = run(&["--help"]).succeeded();
    for part in [
        "edgeproxy --port 3000 --origin http://localhost:8000 --cache-ttl 5m",
        "edgeproxy -c conf/edge.yaml -d",
        "64 wrong usage",
        "78 wrong configuration",
        "USR1",
        "completions",
    ] {
        assert!(help.contains(part), "no {part:?} in:\n{help}");
    }
    // What is for the program itself is not shown.
    assert!(!help.contains("--detached"), "{help}");
}

#[test]
fn every_verb_has_help_of_its_own() {
    for verb in ["run", "check", "config", "upstreams", "schema", "init", "completions", "man"] {
        let help = run(&[verb, "--help"]).succeeded();
        assert!(help.contains("Usage:"), "{verb}: {help}");
        let takes_one = ["run", "check", "config", "upstreams"].contains(&verb);
        assert_eq!(help.contains("--conf"), takes_one, "{verb}: {help}");
    }
}

#[test]
fn the_version_is_the_packages() {
    let version = format!("edgeproxy {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(run(&["--version"]).succeeded(), version);
    assert_eq!(run(&["-V"]).succeeded(), version);
}

#[test]
fn wrong_usage_is_64() {
    run(&[]).failed(64, &["nothing to run or to look at", "-c FILE", "--help"]);
    run(&["--no-such-flag"]).failed(64, &["--no-such-flag"]);
    run(&["chek"]).failed(64, &["chek", "check"]);
    run(&["completions", "dosh"]).failed(64, &["dosh"]);
    let file = ["-c", "x.yaml", "--print-config"];
    run(&file).failed(64, &["--print-config belongs to", "config show -c FILE"]);
    let url = "http://a/";
    run(&["check", "-c", "x.yaml", "--json", "--route", "GET", url]).failed(64, &["--json"]);
    run(&["--cache-ttl", "5m"]).failed(64, &["--cache-ttl belongs to --port and --origin"]);
    run(&["-c", "x.yaml", "--port", "1", "--origin", "http://a"]).failed(64, &["leave -c out"]);
    run(&["--clear-cache", "-c", "x.yaml", "--port", "1"]).failed(64, &["leave -c out"]);
}

#[test]
fn a_flag_that_a_verb_has_no_use_for_is_wrong_usage() {
    let folder = folder();
    for (arguments, flag) in [
        (&["init", "-c", "x.yaml"][..], "-c"),
        (&["-c", "x.yaml", "schema"], "-c"),
        (&["man", "--conf", "x.yaml"], "-c"),
        (&["-d", "completions", "bash"], "-d"),
        (&["-d", "check", "-c", "x.yaml"], "-d"),
        (&["--port", "3000", "init"], "--port"),
        (&["--clear-cache", "-u", "-c", "x.yaml"], "-u"),
    ] {
        let outcome = run_in(folder.path(), arguments);
        outcome.failed(64, &[&format!("error: {flag} means nothing to ")]);
        assert_eq!(outcome.out, "", "{arguments:?}");
    }
    assert_eq!(fs::read_dir(folder.path()).expect("it is there").count(), 0);
}

#[test]
fn a_wrong_configuration_is_78_with_its_place_and_what_to_do() {
    let folder = folder();
    let origin = Origin::always(ok("hello"));
    let yaml = simple(&origin, "").replace("upstream: origin", "upstream: orgin");
    write_config(&folder, &yaml);
    for arguments in [
        &["-c", "edge.yaml"][..],
        &["-c", "edge.yaml", "-t"],
        &["check", "-c", "edge.yaml"],
        &["run", "-c", "edge.yaml"],
        &["config", "show", "-c", "edge.yaml"],
    ] {
        let outcome = run_in(folder.path(), arguments);
        outcome.failed(78, &["edge.yaml:8", "orgin", "did you mean \"origin\""]);
    }
}

#[test]
fn a_file_that_is_not_there_is_named() {
    run(&["-c", "nowhere.yaml"]).failed(78, &["nowhere.yaml"]);
}

#[test]
fn checking_says_what_there_is_and_starts_nothing() {
    let folder = sound();
    for arguments in [
        &["-c", "edge.yaml", "-t"][..],
        &["run", "-t", "-c", "edge.yaml"],
        &["-t", "run", "-c", "edge.yaml"],
        &["check", "-c", "edge.yaml"],
        &["-c", "edge.yaml", "check"],
    ] {
        let said = run_in(folder.path(), arguments).succeeded();
        assert_eq!(said, "The configuration is valid: 1 listener, 1 route, 1 upstream.\n");
    }
    assert!(!folder.path().join("state").exists());
}

#[test]
fn certificate_files_are_part_of_the_check() {
    let folder = folder();
    let authority = Authority::new();
    authority.write_leaf(folder.path(), "one", &["a.test"]);
    authority.write_leaf(folder.path(), "two", &["a.test"]);
    let check = |certificate: &str, key: &str| {
        let tls = format!(
            "  - {{name: tls, address: \"127.0.0.1:0\", tls: {{certificates: \
             [{{hosts: [a.test], certificate: {certificate}, key: {key}}}]}}}}\nupstreams:"
        );
        let yaml = simple(&Origin::always(ok("hello")), "").replace("upstreams:", &tls);
        write_config(&folder, &yaml);
        run_in(folder.path(), &["check", "-c", "edge.yaml"])
    };
    check("one.pem", "one.key").succeeded();
    check("one.pem", "none.key").failed(78, &["none.key", "certificates[0].key"]);
    check("one.pem", "two.key").failed(78, &["two.key", "edge.yaml:3:", "certificates[0].key"]);
    let swapped = check("one.key", "one.pem");
    swapped.failed(78, &["one.key", "swapped", "certificates[0].certificate", "2 errors"]);
}

#[test]
fn certificate_files_are_part_of_the_check_as_json_too() {
    let folder = folder();
    let origin = Origin::always(ok("hello"));
    let tls = "  - {name: tls, address: \"127.0.0.1:0\", tls: {certificates: [{hosts: [a.test], \
               certificate: empty.pem, key: empty.key}]}}\nupstreams:";
    write_config(&folder, &simple(&origin, "").replace("upstreams:", tls));
    for file in ["empty.pem", "empty.key"] {
        fs::write(folder.path().join(file), "").unwrap();
    }
    let outcome = run_in(folder.path(), &["check", "--json", "-c", "edge.yaml"]);
    assert_eq!(outcome.code, Some(78), "{}", outcome.out);
    let problems: serde_json::Value = serde_json::from_str(&outcome.out).expect("JSON");
    for (n, part) in ["certificate", "key"].into_iter().enumerate() {
        assert_eq!(problems[n]["severity"], "error", "{problems}");
        assert_eq!(problems[n]["line"], 3, "{problems}");
        let path = format!("listeners[1].tls.certificates[0].{part}");
        assert_eq!(problems[n]["path"], path, "{problems}");
    }
}

#[test]
fn problems_come_as_json_too() {
    let folder = folder();
    write_config(&folder, "listeners: []\nrouts: []\n");
    let outcome = run_in(folder.path(), &["check", "--json", "-c", "edge.yaml"]);
    assert_eq!(outcome.code, Some(78));
    let problems: serde_json::Value = serde_json::from_str(&outcome.out).expect("JSON");
    let list = problems.as_array().or_else(|| problems["diagnostics"].as_array());
    let list = list.expect("a list of problems");
    assert!(list.len() >= 2, "{problems}");
    assert!(outcome.out.contains("routs"), "{problems}");

    let sound = sound();
    let outcome = run_in(sound.path(), &["check", "--json", "-c", "edge.yaml"]);
    let _: serde_json::Value = serde_json::from_str(&outcome.succeeded()).expect("JSON");
}

#[test]
fn a_route_is_explained() {
    let folder = folder();
    let yaml = "listeners: [{name: http, address: \"127.0.0.1:0\"}]\n\
                routes:\n\
                \x20 - {name: any, respond: {status: 204}}\n\
                \x20 - {name: api, match: {path_prefix: /api}, respond: {status: 204}}\n\
                \x20 - {name: user, match: {path_pattern: \"/api/{user}\"}, respond: {status: 204}}\n\
                \x20 - {name: writes, match: {path_prefix: /api, methods: [POST]}, respond: {status: 204}}\n\
                \x20 - {name: me, match: {hosts: [a.test], path: /api/me}, respond: {status: 204}}\n";
    write_config(&folder, yaml);
    let ask = |method: &str, url: &str| {
        let arguments = ["check", "-c", "edge.yaml", "--route", method, url];
        run_in(folder.path(), &arguments).succeeded()
    };
    let wins = |answer: &str, name: &str| {
        let first = answer.lines().next().unwrap_or_default();
        assert!(first.contains(name), "{name} does not win: {answer}");
    };
    wins(&ask("GET", "http://b.test/"), "any");
    wins(&ask("GET", "http://b.test/api/x/y"), "api");
    wins(&ask("GET", "http://a.test/api/me"), "me");
    wins(&ask("GET", "http://A.TEST:80/x/../api//m%65?q=1"), "me");
    let answer = ask("POST", "http://b.test/api/x/y");
    wins(&answer, "writes");
    // Why: what else was looked at.
    assert!(answer.lines().count() > 1 && answer.contains("api"), "{answer}");
}

#[test]
fn a_route_that_cannot_be_asked_for_is_explained() {
    let folder = sound();
    let ask = |method: &str, url: &str| {
        run_in(folder.path(), &["check", "-c", "edge.yaml", "--route", method, url])
    };
    assert!(ask("TRACE", "http://b.test/").succeeded().contains("405"));
    ask("GET", "www.example.org/")
        .failed(64, &["neither http:// nor https://", "--route GET https"]);
    ask("GET", "ftp://a.test/").failed(64, &["only http and https"]);
    ask("GET", "http://a.test/\u{7}").failed(64, &["cannot be sent as one line"]);
    run_in(folder.path(), &["check", "-c", "edge.yaml", "--route", "GET"])
        .failed(64, &["2 values"]);
}

#[test]
fn what_check_says_of_a_request_is_what_becomes_of_it() {
    let origin = Origin::always(ok("hello"));
    let edge = Edge::with(
        &simple(&origin, "").replace(
            "routes:\n",
            "routes:\n  - {name: picky, match: {path: /picky, methods: [GET, POST]}, upstream: origin}\n\
             \x20 - {name: purges, match: {path_prefix: /purges}, upstream: origin, \
             purge: {from: [192.0.2.0/24]}}\n\
             \x20 - {name: guarded, match: {path_prefix: /guarded}, upstream: origin, \
             purge: {token: a-token-of-some-length}}\n\
             \x20 - {name: passes, match: {path: /passes, methods: [PURGE]}, upstream: origin}\n\
             \x20 - {name: fixed, match: {path: /fixed}, respond: {status: 204}}\n",
        ),
    );
    for (method, target, status, part) in [
        ("GET", "/", 200, "route: all"),
        ("HEAD", "/x/../picky", 200, "route: picky"),
        ("DELETE", "/picky", 200, "route: all"),
        ("PURGE", "/", 405, "no route: 405, all passes on no PURGE"),
        ("PURGE", "/picky", 405, "no route: 405, all passes on no PURGE"),
        ("PURGE", "/purges", 403, "403 unless it comes from 192.0.2.0/24"),
        ("PURGE", "/guarded", 401, "401 without the token"),
        ("PURGE", "/passes", 200, "route: passes"),
        ("PURGE", "/fixed", 204, "route: fixed"),
        ("TRACE", "/", 405, "no route: 405"),
        ("CONNECT", "/", 405, "no route: 405"),
        ("BREW", "/", 200, "route: all"),
        ("get", "/", 200, "route: all"),
        ("G(T", "/", 400, "no route: 400"),
        ("AMETHODOFMORETHANTHIRTYTWOLETTERS", "/", 400, "no route: 400"),
        ("GET", "/%", 400, "no route: 400"),
        ("GET", "/%00", 400, "no route: 400"),
        ("GET", "/../../x", 400, "no route: 400"),
        ("GET", "/a b", 400, "no route: 400"),
        ("GET", "/ü", 400, "no route: 400"),
    ] {
        let file = edge.folder().path().join("edge.yaml");
        let url = format!("http://edge.test{target}");
        let file = file.to_str().expect("a path of ours");
        let said = run(&["check", "-c", file, "--route", method, &url]).succeeded();
        assert!(said.contains(part), "{method} {target}: {said}");
        let request =
            format!("{method} {target} HTTP/1.1\r\nHost: edge.test\r\nConnection: close\r\n\r\n");
        let reply = edge.wire().send(&request).reply_to(method);
        assert_eq!(reply.status, status, "{method} {target}");
    }
    let file = edge.folder().path().join("edge.yaml");
    for (host, status) in [("a b", 400), ("a:x", 400), ("", 400), ("u@a.test", 400)] {
        let url = format!("http://{host}/");
        let file = file.to_str().expect("a path of ours");
        let said = run(&["check", "-c", file, "--route", "GET", &url]).succeeded();
        assert!(said.contains("no route: 400"), "{host}: {said}");
        let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        assert_eq!(edge.wire().send(&request).reply().status, status, "{host}");
    }
}

#[test]
fn what_is_shown_loads_again_with_every_default_filled_in() {
    let folder = sound();
    let shown = run_in(folder.path(), &["config", "show", "-c", "edge.yaml"]).succeeded();
    for key in ["drain_timeout:", "idle_timeout:", "heuristic_percent:", "queue:", "memory:"] {
        assert!(shown.contains(key), "no {key} in:\n{shown}");
    }
    fs::write(folder.path().join("shown.yaml"), &shown).expect("the folder can be written to");
    let again = run_in(folder.path(), &["config", "show", "-c", "shown.yaml"]).succeeded();
    assert_eq!(shown, again);
}

#[test]
fn a_variable_that_is_no_text_is_not_called_unset() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let file = folder.path().join("edge.yaml");
    fs::write(&file, "listeners: [{address: \"${BYTES}\"}]\n")
        .expect("the folder can be written to");
    let said = Command::new(binary())
        .args(["check", "-c"])
        .arg(&file)
        .env("BYTES", OsStr::from_bytes(b"127.0.0.1:\xff"))
        .output()
        .expect("it can be started");
    assert_eq!(said.status.code(), Some(78));
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(said.contains("the environment variable BYTES is not text in UTF-8"), "{said}");
}

#[test]
fn the_schema_is_the_shipped_one() {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/edgeproxy.schema.json");
    let shipped = fs::read_to_string(shipped).expect("it is shipped");
    assert_eq!(run(&["schema"]).succeeded(), shipped);
}

#[test]
fn a_starter_file_is_written_once_and_is_sound() {
    let folder = folder();
    let said = run_in(folder.path(), &["init"]).succeeded();
    assert!(said.contains("edgeproxy check -c edge.yaml"), "{said}");
    run_in(folder.path(), &["check", "-c", "edge.yaml"]).succeeded();
    // Its first line names the schema, and that is beside it.
    let starter = fs::read_to_string(folder.path().join("edge.yaml")).expect("it is written");
    let schema = starter.lines().next().and_then(|line| line.split_once("$schema="));
    let (comment, schema) = schema.expect("the first line names the schema");
    assert_eq!(comment, "# yaml-language-server: ");
    let schema = folder.path().join(schema);
    let text = fs::read_to_string(&schema).expect("it is beside the file");
    assert_eq!(text, run(&["schema"]).succeeded());
    assert!(!starter.contains("conf/"), "it names a file that is not there: {starter}");
    fs::write(&schema, "mine").expect("the folder can be written to");

    fs::write(folder.path().join("edge.yaml"), "mine").expect("the folder can be written to");
    run_in(folder.path(), &["init"]).failed(1, &["edge.yaml", "exists"]);
    assert_eq!(fs::read_to_string(folder.path().join("edge.yaml")).expect("it is there"), "mine");
    let said = run_in(folder.path(), &["init", "other.yaml"]).succeeded();
    assert!(said.contains("edgeproxy.schema.json was there and stays as it is"), "{said}");
    assert_eq!(fs::read_to_string(&schema).expect("it is there"), "mine");
    run_in(folder.path(), &["init", "no/such/folder.yaml"]).failed(1, &["no/such/folder.yaml"]);
}

#[test]
fn completions_are_there_for_every_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = run(&["completions", shell]).succeeded();
        assert!(script.contains("edgeproxy") && script.contains("cache-ttl"), "{shell}: {script}");
        assert!(!script.contains("detached"), "{shell}");
    }
}

#[test]
fn bash_understands_its_completions() {
    let script = run(&["completions", "bash"]).succeeded();
    let bash = Command::new("bash").arg("-n").stdin(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let Ok(mut bash) = bash else {
        eprintln!("skipped: no bash here");
        return;
    };
    let mut stdin = bash.stdin.take().expect("stdin is piped");
    stdin.write_all(script.as_bytes()).expect("bash reads");
    drop(stdin);
    let output = bash.wait_with_output().expect("bash ends");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_manual_is_a_page_of_the_first_section() {
    let page = run(&["man"]).succeeded();
    assert!(page.contains(".TH edgeproxy 1"), "{page}");
    for section in [".SH NAME", ".SH SYNOPSIS", ".SH OPTIONS"] {
        assert!(page.contains(section), "no {section}");
    }
    // What is in columns stays so, and the page points at no other page.
    let examples = page.split_once(".SH \"EXAMPLES\"\n.EX\n").expect("the examples").1;
    let (examples, _) = examples.split_once("\n.EE").expect("their end");
    assert!(examples.contains("\n  edgeproxy \\-c conf/edge.yaml \\-d         run as"), "{page}");
    assert!(!page.contains("(1)"), "{page}");
}

#[test]
fn a_reader_that_leaves_early_is_no_failure() {
    let mut child = Command::new(binary())
        .arg("schema")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

#[test]
fn the_running_process_can_be_told_to_clear_its_cache() {
    let origin = Origin::always(ok("hello").field("Cache-Control", "max-age=60"));
    let edge = Edge::to(&origin);
    edge.get("/a").expect_miss();
    edge.get("/b").expect_miss();
    edge.get("/a").expect_hit();

    let said = run_in(edge.folder().path(), &["--clear-cache", "-c", "edge.yaml"]).succeeded();
    assert_eq!(said, "The cache is cleared: 2 objects\n");
    edge.get("/a").expect_miss();
}

#[test]
fn clearing_the_cache_of_nobody_says_so() {
    let folder = sound();
    let said = run_in(folder.path(), &["--clear-cache", "-c", "edge.yaml"]).succeeded();
    assert!(said.contains("No running process answers") && said.contains("no cache"), "{said}");
    let said = run_in(folder.path(), &["--clear-cache", "--port", "39999"]).succeeded();
    assert!(said.contains("No running process answers"), "{said}");
    run_in(folder.path(), &["--clear-cache"])
        .failed(64, &["which process", "--port 3000", "-c FILE"]);
}
