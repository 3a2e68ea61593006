//! Standard output and standard error that cannot be written: a full disk, a reader that left.

use std::fs;
use std::fs::OpenOptions;
use std::io;
use std::path::Path;
use std::process::Command;
use std::process::Stdio;

use super::folder;
use crate::harness::edge::binary;

/// Where nothing fits.
fn full() -> Stdio {
    Stdio::from(OpenOptions::new().write(true).open("/dev/full").expect("Linux has it"))
}

/// What nobody reads any more.
fn left() -> Stdio {
    let (reader, writer) = io::pipe().expect("a pipe");
    drop(reader);
    Stdio::from(writer)
}

/// The program with these arguments, in this folder.
fn program(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.args(arguments).current_dir(folder).env("XDG_STATE_HOME", folder).stdin(Stdio::null());
    command
}

#[test]
fn the_exit_code_is_the_same_where_nobody_can_be_told_why() {
    let folder = folder();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text);
    write("bad.yaml", "routes: 7\n").expect("the folder is ours");
    // A route behind one that takes everything: valid, with a warning.
    let shadowed = "listeners: [{address: \"127.0.0.1:0\"}]\n\
                    routes: [{respond: {status: 204}}, {match: {path_prefix: /a}, respond: {status: 204}}]\n";
    write("warned.yaml", shadowed).expect("the folder is ours");
    for (arguments, code) in [
        (&["check", "-c", "bad.yaml"][..], 78),
        (&["check", "-c", "warned.yaml"], 0),
        (&["-c", "bad.yaml", "-t"], 78),
        (&["-c", "bad.yaml"], 78),
        (&["-c", "bad.yaml", "-d"], 78),
        (&["-c", "not-there.yaml"], 78),
        (&["--port", "3000"], 64),
        (&["--no-such-flag"], 64),
        (&["init", "bad.yaml"], 1),
        (&["reload", "-c", "warned.yaml"], 1),
    ] {
        for stderr in [full(), left()] {
            let status = program(folder.path(), arguments).stderr(stderr).status();
            assert_eq!(status.expect("it runs").code(), Some(code), "{arguments:?}");
        }
    }
}

#[test]
fn output_that_does_not_fit_is_a_failure_that_is_told() {
    let folder = folder();
    for arguments in
        [&["schema"][..], &["man"], &["--help"], &["--version"], &["completions", "bash"]]
    {
        let output = program(folder.path(), arguments).stdout(full()).output().expect("it runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
        assert!(said.contains("cannot write to standard output: "), "{arguments:?}: {said}");
        let reads = Stdio::from(fs::File::open("/dev/null").expect("Linux has it"));
        let output = program(folder.path(), arguments).stdout(reads).output().expect("it runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
        assert!(said.contains("cannot write to standard output: "), "{arguments:?}: {said}");
        // Who reads only the beginning has what was asked for.
        let status = program(folder.path(), arguments).stdout(left()).status().expect("it runs");
        assert_eq!(status.code(), Some(0), "{arguments:?}");
    }
}
