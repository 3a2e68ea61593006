//! `edgeproxy purge` and what it says.

use std::path::Path;
use std::process::Command;
use std::process::Stdio;

use crate::harness::Edge;
use crate::harness::edge::binary;
use crate::harness::edge::simple;
use crate::process::free_address;
use crate::purging::left;
use crate::purging::store;
use crate::purging::tagging;
use crate::purging::three_routes;

struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

/// What `edgeproxy purge` with these arguments comes to, for the configuration in this folder.
fn run(folder: &Path, arguments: &[&str]) -> Said {
    let mut command = Command::new(binary());
    command.arg("purge").args(arguments).current_dir(folder).env("NO_COLOR", "1");
    command.env("XDG_RUNTIME_DIR", folder).stdin(Stdio::null());
    let output = command.output().expect("the binary runs");
    Said {
        code: output.status.code(),
        out: String::from_utf8(output.stdout).expect("text"),
        err: String::from_utf8(output.stderr).expect("text"),
    }
}

#[track_caller]
fn says(edge: &Edge, arguments: &[&str], expected: &str) {
    let all = [&["-c", "edge.yaml"], arguments].concat();
    let said = run(edge.folder().path(), &all);
    assert_eq!((said.code, said.out.as_str()), (Some(0), expected), "{}", said.err);
}

#[test]
fn every_flag_purges_what_it_names() {
    let origin = tagging();
    let edge = three_routes(&origin);
    let pages = ["/blog/a?x", "/blog/b", "/shop/c?x", "/d"];
    store(&edge, &pages);
    says(&edge, &["--dry-run", "--all"], "would be purged: everything: 4 objects\n");
    says(&edge, &["edge.test/d"], "purged: url //edge.test/d: 1 object\n");
    assert_eq!(left(&edge, &pages), &pages[..3]);
    says(
        &edge,
        &["--tag", "x", "--prefix", "http://edge.test/blog/b"],
        "purged: prefix http://edge.test/blog/b: 1 object\npurged: tag x: 2 objects\n",
    );
    assert_eq!(left(&edge, &pages), ["/d"]);
    says(&edge, &["--upstream", "two", "--count"], "purged: upstream two: 1 object\n");
    says(&edge, &["--host", "edge.test"], "purged: host edge.test: 3 objects\n");
    says(&edge, &["--all"], "purged: everything: 0 objects\n");
    // Last, since what is stale may be swept at any time.
    store(&edge, &["/d"]);
    says(&edge, &["--soft", "--route", "rest"], "stale: route rest: 1 object\n");
}

#[test]
fn json_is_what_the_process_answers() {
    let origin = tagging();
    let edge = three_routes(&origin);
    store(&edge, &["/d?t"]);
    says(
        &edge,
        &["--json", "--tag", "t"],
        "{\"purged\":[{\"what\":\"tag\",\"which\":\"t\",\"objects\":1,\"exact\":true}],\
         \"objects\":1,\"exact\":true,\"soft\":false,\"dry_run\":false}\n",
    );
}

#[test]
fn it_presents_the_token_that_the_configuration_names() {
    let origin = tagging();
    let address = free_address();
    let folder = tempfile::tempdir().expect("a folder can be made");
    std::fs::write(folder.path().join("token"), "let me in\n").expect("it can be written to");
    let admin = format!("admin: {{address: \"{address}\", token_file: token}}");
    let edge = Edge::in_folder(folder.into(), &simple(&origin, &admin), &[]);
    store(&edge, &["/"]);
    says(&edge, &["--all"], "purged: everything: 1 object\n");
    // The process has read it already.
    std::fs::write(edge.folder().path().join("token"), "another\n").expect("it can be written to");
    let said = run(edge.folder().path(), &["-c", "edge.yaml", "--all"]);
    assert_eq!(said.code, Some(1), "{}", said.out);
    assert!(said.err.contains("wants another token"), "{}", said.err);
}

#[test]
fn what_makes_no_sense_is_wrong_usage() {
    let origin = tagging();
    let edge = three_routes(&origin);
    for (arguments, part) in [
        (&["--all"][..], "which process is meant"),
        (&["-c", "edge.yaml"], "nothing is named"),
        (&["-c", "edge.yaml", "--route", "bolg"], "did you mean \"blog\"?"),
        (&["-c", "edge.yaml", "https://"], "names no host"),
        (&["-c", "edge.yaml", "--port", "3000", "--all"], "cannot be used with"),
        (&["-c", "edge.yaml", "--tga", "x"], "--tga"),
    ] {
        let said = run(edge.folder().path(), arguments);
        assert_eq!(said.code, Some(64), "{arguments:?}: {}{}", said.out, said.err);
        assert!(said.err.contains(part), "no {part:?} in: {}", said.err);
    }
}

#[test]
fn without_a_running_process_it_says_so() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let said = run(folder.path(), &["--port", "3999", "--all"]);
    assert_eq!(said.code, Some(1), "{}", said.out);
    assert!(said.err.contains("no running process answers"), "{}", said.err);
}
