//! The steps of docs/operations.md and docs/tls.md, taken by a test as they are written.
//!
//! Blocks with the info string `sh` hold commands, each on a line, with what it is for behind two spaces. What the
//! last one printed stands in a block `text printed`, what the process logged since in one `text logged`; numbers and times
//! are others each time. What is replaced so that the commands find the test's process is listed in docs/testing.md.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;
use std::sync::Arc;

use nix::sys::signal::Signal;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::harness::Edge;
use crate::harness::Origin;
use crate::harness::edge::binary;
use crate::harness::edge::write_config;
use crate::harness::ok;
use crate::process::daemon::eventually;
use crate::process::free_address;
use crate::tour::markdown;

/// What a daemon needs so that every step makes sense; `shop` is there from the first reload on.
const CONFIG: &str = "\
listeners:
  - {name: http, address: \"HTTP\"}
  - {name: https, address: \"HTTPS\", tls: {tickets: TICKETS, certificates: [{hosts: [www.example.org], internal: true}]}}
upstreams: {app: {addresses: [\"ORIGIN\"], timeouts: {read: 15s}}}
defaults: {purge: {from: [127.0.0.0/8]}}
cache: {zones: {images: {memory: 16MiB}}}
routes:
  - {name: blog, match: {path_prefix: /blog}, upstream: app, cache: {zone: images}}
  - {name: pages, upstream: app}
process: {state_dir: $DIR/state}
";

/// A folder in which commands find the program, its configuration and, once it was started, the daemon.
struct Place {
    folder: Arc<TempDir>,
    addresses: [SocketAddr; 2],
    origin: Origin,
    /// What of the log was looked at.
    logged: usize,
    printed: String,
}

impl Place {
    fn made() -> Self {
        let folder = Arc::new(tempfile::tempdir().expect("a folder can be made"));
        let page = ok("page").field("Cache-Control", "max-age=60");
        let origin = Origin::always(page.field("Surrogate-Key", "article-12 home"));
        let addresses = [free_address(), free_address()];
        let programs = folder.path().join("bin");
        fs::create_dir(&programs).expect("the folder can be written to");
        symlink(binary(), programs.join("edgeproxy")).expect("so can this one");
        // Names lead to the test's process, and who is at their other end is known.
        let curl = format!(
            "#!/bin/sh\nPATH=${{PATH#*:}} exec curl -fsS --connect-to ::{} --cacert {}/state/ca/root.pem \"$@\"\n",
            addresses[1],
            folder.path().display(),
        );
        fs::write(programs.join("curl"), curl).expect("so can this one");
        let all = fs::Permissions::from_mode(0o755);
        fs::set_permissions(programs.join("curl"), all).expect("it is ours");
        let place = Self { folder, addresses, origin, logged: 0, printed: String::new() };
        place.configure(CONFIG);
        place
    }

    fn configure(&self, yaml: &str) {
        let [http, https] = self.addresses.map(|address| address.to_string());
        let yaml = yaml.replace("\"HTTP\"", &format!("\"{http}\"")).replace("HTTPS", &https);
        let tickets = self.folder.path().join("tickets.keys");
        let tickets = if tickets.exists() { "{file: $DIR/tickets.keys}" } else { "on" };
        let yaml = yaml.replace("TICKETS", tickets);
        write_config(&self.folder, &yaml.replace("ORIGIN", &self.origin.address.to_string()));
    }

    /// The command as the test runs it. The table in docs/testing.md says the same.
    fn adapted(&self, command: &str) -> String {
        let here = self.folder.path().display().to_string();
        command
            .replace("/etc/edgeproxy/", &format!("{here}/"))
            .replace("/var/lib/edgeproxy/", &format!("{here}/state/"))
            .replace("-c FILE", &format!("-c {here}/edge.yaml"))
    }

    fn shell(&self, command: &str) -> Command {
        let mut shell = Command::new("sh");
        let path = std::env::var("PATH").unwrap_or_default();
        let programs = self.folder.path().join("bin");
        shell.arg("-c").arg(command).current_dir(self.folder.path()).stdin(Stdio::null());
        shell.env("PATH", format!("{}:{path}", programs.display())).env("NO_COLOR", "1");
        shell.env_remove("RUST_LOG");
        for name in ["http_proxy", "https_proxy", "all_proxy", "HTTPS_PROXY", "ALL_PROXY"] {
            shell.env_remove(name);
        }
        shell
    }

    fn run(&mut self, at: &str, written: &str) {
        let command = self.adapted(written);
        if written == "edgeproxy -c /etc/edgeproxy/edge.yaml" {
            // It stays in the foreground until it is told to go.
            let shell = self.shell(&format!("exec {command}"));
            let mut edge = Edge::start(Arc::clone(&self.folder), shell);
            edge.signal(Signal::SIGTERM);
            assert_eq!(edge.wait().code(), Some(0), "{at}");
            return;
        }
        self.prepare(written);
        let done = self.shell(&command).output().expect("sh runs");
        self.printed = String::from_utf8_lossy(&done.stdout).into_owned();
        let wrong = String::from_utf8_lossy(&done.stderr);
        assert!(
            done.status.success(),
            "{at}: {written}\nrun as: {command}\n{}{wrong}",
            self.printed
        );
    }

    /// What an operator would have done before.
    fn prepare(&self, command: &str) {
        let shop = "routes:\n  - {name: shop, match: {path_prefix: /shop}, upstream: app}";
        if command.starts_with("edgeproxy reload") {
            self.configure(&CONFIG.replace("routes:", shop).replace("read: 15s", "read: 20s"));
        }
        if command.starts_with("edgeproxy explain") || command.contains("--tag") {
            for _ in 0..3 {
                let ask = "curl -o /dev/null -H 'Accept-Language: de' https://www.example.org/a";
                let done = self.shell(ask).output().expect("sh runs");
                assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
            }
        }
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("state/edgeproxy.log")
    }

    /// This was logged since the last time.
    #[track_caller]
    fn has_logged(&mut self, at: &str, line: &str) {
        let (wanted, log, seen) = (alike(line), self.log(), self.logged);
        self.logged = eventually(&format!("{at}: it logs {line}"), || {
            let text = fs::read_to_string(&log).ok()?;
            let found = text.get(seen..)?.lines().find(|one| alike(one).contains(&wanted))?;
            Some(text.find(found)? + found.len())
        });
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let pid = fs::read_to_string(self.folder.path().join("state/edgeproxy.pid"));
        if let Ok(Ok(pid)) = pid.map(|text| text.trim().parse()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        if std::thread::panicking() {
            eprintln!("--- log ---\n{}", fs::read_to_string(self.log()).unwrap_or_default());
        }
    }
}

/// A text without what is another one each time: numbers, and the units of times.
fn alike(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text.trim();
    while let Some(at) = rest.find(|c: char| c.is_ascii_digit()) {
        plain.push_str(&rest[..at]);
        plain.push('#');
        rest = rest[at..].trim_start_matches(|c: char| c.is_ascii_digit());
        rest = rest.strip_prefix('.').map_or(rest, |fraction| {
            let more = fraction.trim_start_matches(|c: char| c.is_ascii_digit());
            if more.len() < fraction.len() { more } else { rest }
        });
        for unit in ["ms", "µs", "ns", "s"] {
            let end = rest.strip_prefix(unit);
            if let Some(end) = end.filter(|end| !end.starts_with(char::is_alphanumeric)) {
                plain.push('s');
                rest = end;
                break;
            }
        }
    }
    plain.push_str(rest);
    plain.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The commands of a block, each with the number of its line.
fn commands(block: &markdown::Block) -> Vec<(usize, String)> {
    let mut found: Vec<(usize, String)> = Vec::new();
    let mut goes_on = false;
    for (at, line) in block.text.lines().enumerate() {
        let (line, more) = line.strip_suffix('\\').map_or((line, false), |line| (line, true));
        let command = line.trim().split("  ").next().unwrap_or_default();
        match found.last_mut() {
            Some((_, before)) if goes_on => *before = format!("{} {command}", before.trim_end()),
            _ => found.push((block.line + at + 1, command.to_owned())),
        }
        goes_on = more;
    }
    found
}

#[test]
fn every_step_of_the_documents_works_as_it_is_written() {
    let mut place = Place::made();
    let mut taken = 0;
    for document in ["docs/operations.md", "docs/tls.md"] {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(document);
        let text = fs::read_to_string(path).expect("it is there");
        for block in markdown::blocks(&text) {
            let at = format!("{document}:{}", block.line);
            match block.info.as_str() {
                "sh" => {
                    for (line, command) in commands(&block) {
                        place.run(&format!("{document}:{line}"), &command);
                        taken += 1;
                    }
                }
                "text printed" => {
                    let printed = alike(&place.printed);
                    assert_eq!(alike(&block.text), printed, "{at}: it printed\n{}", place.printed);
                }
                "text logged" => place.has_logged(&at, &block.text),
                _ => {}
            }
        }
    }
    assert!(taken >= 20, "{taken} steps");
}

#[test]
fn numbers_and_times_are_others_each_time() {
    assert_eq!(alike("took 5 in 1.2s; 0 left"), alike("took 17 in 826.116µs;  3 left"));
    assert_eq!(alike("age 12 s."), "age # s.");
    assert_ne!(alike("5 hits"), alike("5 hit"));
    assert_eq!(alike("1.x"), "#.x");
}
