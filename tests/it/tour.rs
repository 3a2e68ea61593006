//! The README's tour, typed by a test: every command, and what it prints.
//!
//! Blocks with the info string `console tour` hold commands behind `$ ` and what they print; `…`
//! stands for what differs from run to run. What is replaced so that the tour finds the test's
//! processes and not the user's is listed in docs/testing.md, in the order of [`Stage::adapt`].

#[path = "../docs/markdown.rs"]
pub(crate) mod markdown;

use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::process::Stdio;
use std::sync::Arc;

use tempfile::TempDir;

use crate::harness::Edge;
use crate::harness::edge::binary;
use crate::harness::edge::write_config;

/// A command and the lines that it must print.
struct Step {
    line: usize,
    command: String,
    prints: Vec<String>,
}

#[test]
fn every_command_of_the_readmes_tour_prints_what_the_readme_says() {
    let curl = Command::new("curl").arg("--version").stdout(Stdio::null()).status();
    assert!(curl.is_ok_and(|status| status.success()), "the tour needs curl: install it");

    let readme = std::fs::read_to_string(repository().join("README.md")).expect("there is one");
    let steps = steps(&readme);
    assert!(steps.len() >= 15, "the tour has only {} commands", steps.len());

    let mut stage = Stage::set();
    for step in &steps {
        let command = stage.adapt(&step.command);
        if let Some(command) = command.strip_suffix(" &") {
            stage.start(command);
        } else if command == "kill %1" {
            stage.jobs.pop().expect("the tour started something before");
        } else {
            stage.run(step, &command);
        }
    }
}

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn steps(readme: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for block in markdown::blocks(readme) {
        if block.info != "console tour" {
            continue;
        }
        for (at, line) in block.text.lines().enumerate() {
            let line_number = block.line + at + 1;
            match (line.strip_prefix("$ "), steps.last_mut()) {
                (Some(command), _) => steps.push(Step {
                    line: line_number,
                    command: command.to_owned(),
                    prints: Vec::new(),
                }),
                (None, Some(step)) => step.prints.push(line.to_owned()),
                (None, None) => panic!("README.md:{line_number}: output before any command"),
            }
        }
    }
    steps
}

/// What the tour plays on: the showcase as `make run` starts it, but with a folder and ports of the
/// test's.
struct Stage {
    folder: Arc<TempDir>,
    showcase: Edge,
    quick_port: u16,
    /// What was started in the background, the last one last.
    jobs: Vec<Edge>,
}

impl Stage {
    fn set() -> Self {
        let folder = Arc::new(tempfile::tempdir().expect("a folder can be made"));
        let conf =
            std::fs::read_to_string(repository().join("conf/edge.yaml")).expect("it is ours");
        let conf = replaced(&conf, "0.0.0.0:8080", "127.0.0.1:0");
        let conf = replaced(&conf, "0.0.0.0:8443", "127.0.0.1:0");
        let conf = replaced(&conf, "address: \"127.0.0.1:9180\"", "socket: $DIR/admin.sock");
        let programs = folder.path().join("target/debug");
        std::fs::create_dir_all(&programs).expect("the folder can be written to");
        std::os::unix::fs::symlink(binary(), programs.join("edgeproxy")).expect("so can this one");
        let path = write_config(&folder, &conf);
        let mut command = Command::new(binary());
        command.arg("-c").arg(&path);
        let showcase = Edge::start(Arc::clone(&folder), command);
        Self { folder, showcase, quick_port: free_port(), jobs: Vec::new() }
    }

    /// The command as the test runs it. The table in docs/testing.md says the same.
    fn adapt(&self, command: &str) -> String {
        let here = self.folder.path().display().to_string();
        let http = self.showcase.address("http").port();
        let https = self.showcase.address("https").port();
        command
            .replace("$PWD/target/debug", &format!("{here}/target/debug"))
            .replace("conf/edge.yaml", &format!("{here}/edge.yaml"))
            .replace("~/.local/state/edgeproxy", &format!("{here}/state"))
            .replace("localhost:8080", &format!("localhost:{http}"))
            .replace("localhost:8443", &format!("localhost:{https}"))
            .replace(
                "curl -s http://127.0.0.1:9180",
                &format!("curl -s --unix-socket {here}/admin.sock http://localhost"),
            )
            .replace("--port 3000", &format!("--port {}", self.quick_port))
            .replace("localhost:3000", &format!("localhost:{}", self.quick_port))
    }

    fn shell(&self, command: &str) -> Command {
        let mut shell = Command::new("sh");
        let programs = self.folder.path().join("target/debug");
        let path = std::env::var("PATH").unwrap_or_default();
        shell.arg("-c").arg(command).current_dir(self.folder.path());
        shell.env("PATH", format!("{}:{path}", programs.display())).env("NO_COLOR", "1");
        shell.env("XDG_RUNTIME_DIR", self.folder.path()).env_remove("RUST_LOG");
        // A proxy of the surroundings must not stand between the test and its own process.
        for name in ["http_proxy", "https_proxy", "all_proxy", "HTTPS_PROXY", "ALL_PROXY"] {
            shell.env_remove(name);
        }
        shell
    }

    fn start(&mut self, command: &str) {
        let shell = self.shell(&format!("exec {command}"));
        self.jobs.push(Edge::start(Arc::clone(&self.folder), shell));
    }

    #[track_caller]
    fn run(&self, step: &Step, command: &str) {
        let done = self.shell(command).stdin(Stdio::null()).output().expect("sh runs");
        let text = String::from_utf8_lossy(&done.stdout).replace('\r', "");
        let lines: Vec<&str> = text.lines().collect();
        let same = lines.len() == step.prints.len()
            && lines.iter().zip(&step.prints).all(|(line, pattern)| matches(pattern, line));
        assert!(
            same && done.status.success(),
            "README.md:{}: $ {}\nrun as: {command}\nprinted:\n{text}{}instead of:\n{}",
            step.line,
            step.command,
            String::from_utf8_lossy(&done.stderr),
            step.prints.join("\n")
        );
    }
}

#[track_caller]
fn replaced(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "conf/edge.yaml no longer has {from}");
    text.replace(from, to)
}

/// A port below those that the system hands out, so that nobody is given it in between.
fn free_port() -> u16 {
    let start = u16::try_from(std::process::id() % 10_000).expect("it is less than 10,000");
    (0..10_000)
        .map(|n| 20_000 + (start + n) % 10_000)
        .find(|&port| TcpListener::bind(("0.0.0.0", port)).is_ok())
        .expect("one of ten thousand ports is free")
}

/// Whether a line is as the pattern says, where `…` stands for anything.
fn matches(pattern: &str, line: &str) -> bool {
    let mut pieces = pattern.split('…');
    let Some(mut rest) = line.strip_prefix(pieces.next().unwrap_or_default()) else {
        return false;
    };
    let Some(last) = pieces.next_back() else { return rest.is_empty() };
    for piece in pieces {
        let Some(at) = rest.find(piece) else { return false };
        rest = &rest[at + piece.len()..];
    }
    rest.len() >= last.len() && rest.ends_with(last)
}

#[test]
fn an_ellipsis_stands_for_anything_and_nothing_else_does() {
    assert!(matches("made …", "made 7"));
    assert!(matches("a … b … c", "a 1 b 2 c"));
    assert!(matches("plain", "plain"));
    assert!(!matches("plain", "plainer"));
    assert!(!matches("made …", "MADE 7"));
    assert!(!matches("a … b … c", "a 1 c"));
    assert!(!matches("ab…bc", "abc"));
}
