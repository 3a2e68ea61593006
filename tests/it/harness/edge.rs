//! A real edgeproxy process with a configuration of the test's.

use std::collections::HashMap;
use std::io::BufRead;
use std::io::BufReader;
use std::net::SocketAddr;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::ExitStatus;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::Condvar;
use std::sync::LazyLock;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::Instant;

use tempfile::TempDir;

use super::Origin;
use super::PATIENCE;
use super::Reply;
use super::Wire;

/// The binary under test: what cargo built, or another one that the environment names.
pub(crate) fn binary() -> &'static Path {
    static BINARY: LazyLock<PathBuf> = LazyLock::new(|| {
        let other = std::env::var_os("EDGEPROXY_BINARY");
        other.map_or_else(|| env!("CARGO_BIN_EXE_edgeproxy").into(), PathBuf::from)
    });
    &BINARY
}

#[derive(Default)]
struct Output {
    lines: Mutex<(Vec<String>, bool)>,
    changed: Condvar,
}

/// A running edgeproxy.
pub(crate) struct Edge {
    child: Child,
    folder: Arc<TempDir>,
    stderr: Arc<Output>,
    stdout: Arc<Output>,
    /// The process was seen to have ended.
    over: bool,
    listeners: HashMap<String, SocketAddr>,
}

impl Edge {
    /// Everything passed to one origin, on plain text with HTTP/2 by prior knowledge.
    pub(crate) fn to(origin: &Origin) -> Self {
        Self::with(&simple(origin, ""))
    }

    /// With this configuration. `$DIR` is a folder of the test's; state and sockets go there.
    pub(crate) fn with(yaml: &str) -> Self {
        let folder = Arc::new(tempfile::tempdir().expect("a folder can be made"));
        Self::in_folder(folder, yaml, &[])
    }

    /// With this configuration and these further arguments, in a folder that may have been used
    /// before.
    pub(crate) fn in_folder(folder: Arc<TempDir>, yaml: &str, arguments: &[&str]) -> Self {
        let path = write_config(&folder, yaml);
        let mut command = Command::new(binary());
        command.arg("-c").arg(&path).args(arguments);
        Self::start(folder, command)
    }

    /// Runs this command, which must become ready.
    pub(crate) fn start(folder: Arc<TempDir>, mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.current_dir(folder.path()).env("NO_COLOR", "1").env_remove("RUST_LOG");
        command.env("XDG_RUNTIME_DIR", folder.path());
        let mut child = command.spawn().expect("the binary runs");
        let stderr = collect(child.stderr.take().expect("stderr is piped"));
        let stdout = collect(child.stdout.take().expect("stdout is piped"));
        let mut edge =
            Self { child, folder, stderr, stdout, over: false, listeners: HashMap::new() };
        edge.wait_for_log("] ready");
        for line in edge.log() {
            // "... listening on http://127.0.0.1:1234 (name)"
            let Some((_, rest)) = line.split_once("listening on ") else { continue };
            let Some((url, name)) = rest.split_once(" (") else { continue };
            let address = url.rsplit('/').next().and_then(|a| a.parse().ok());
            let name = name.trim_end_matches(')').to_owned();
            edge.listeners.insert(name, address.expect("an address is logged"));
        }
        edge
    }

    /// The address of a listener.
    #[track_caller]
    pub(crate) fn address(&self, listener: &str) -> SocketAddr {
        *self.listeners.get(listener).unwrap_or_else(|| panic!("no listener {listener}"))
    }

    /// A new connection to the listener `http`.
    pub(crate) fn wire(&self) -> Wire {
        Wire::plain(self.address("http"))
    }

    /// A GET on a connection of its own.
    pub(crate) fn get(&self, target: &str) -> Reply {
        self.get_with(target, &[])
    }

    /// A GET with fields, on a connection of its own.
    pub(crate) fn get_with(&self, target: &str, fields: &[(&str, &str)]) -> Reply {
        self.wire().get("edge.test", target, fields)
    }

    /// The root of the internal CA.
    pub(crate) fn root(&self) -> PathBuf {
        self.folder.path().join("state/ca/root.pem")
    }

    /// The test's folder.
    pub(crate) fn folder(&self) -> &Arc<TempDir> {
        &self.folder
    }

    /// Writes another configuration in the place of the one that it was started with.
    pub(crate) fn write(&self, yaml: &str) -> &Self {
        write_config(&self.folder, yaml);
        self
    }

    /// Lets it read its configuration again.
    pub(crate) fn reload(&self) -> Reply {
        self.admin_post("/v1/reload", "")
    }

    /// Asks the admin listener.
    pub(crate) fn admin(&self, method: &str, path: &str) -> Reply {
        let socket = self.folder.path().join("admin.sock");
        admin_at(&socket, method, path).expect("the admin listener answers")
    }

    /// Posts a body to the admin listener.
    pub(crate) fn admin_post(&self, path: &str, body: &str) -> Reply {
        self.admin_says("POST", path, body)
    }

    /// Says this to the admin listener.
    pub(crate) fn admin_says(&self, method: &str, path: &str, body: &str) -> Reply {
        let socket = self.folder.path().join("admin.sock");
        let head = format!("{method} {path} HTTP/1.1\r\nContent-Length: {}", body.len());
        admin_says(&socket, &head, body).expect("the admin listener answers")
    }

    /// The value of a metric's line that starts so, or 0.
    pub(crate) fn metric(&self, start: &str) -> f64 {
        let text = self.admin("GET", "/metrics").text();
        text.lines()
            .filter(|line| line.starts_with(start))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }

    /// Waits until the metric's lines that start so come to this; they are counted when a request
    /// has ended, and its client may know that first.
    #[track_caller]
    pub(crate) fn wait_for_metric(&self, start: &str, value: f64) {
        let began = Instant::now();
        while self.metric(start) < value {
            let lines = self.metrics(start.split('{').next().unwrap_or(start));
            assert!(began.elapsed() < PATIENCE, "{start} is below {value}: {lines:#?}");
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(self.metric(start) <= value, "{start} is above {value}");
    }

    /// Waits until a gauge's lines that start so come to this, from above or below.
    #[track_caller]
    pub(crate) fn wait_for_gauge(&self, start: &str, value: f64) {
        let began = Instant::now();
        while (self.metric(start) - value).abs() > 0.5 {
            assert!(began.elapsed() < PATIENCE, "not {value}: {:#?}", self.metrics(start));
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// The metrics' lines that start so.
    pub(crate) fn metrics(&self, start: &str) -> Vec<String> {
        let text = self.admin("GET", "/metrics").text();
        text.lines().filter(|line| line.starts_with(start)).map(str::to_owned).collect()
    }

    /// The process.
    pub(crate) fn pid(&self) -> nix::unistd::Pid {
        nix::unistd::Pid::from_raw(self.child.id().try_into().expect("pids fit"))
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: nix::sys::signal::Signal) {
        nix::sys::signal::kill(self.pid(), signal).expect("the process is there");
    }

    /// Diagnostics so far.
    pub(crate) fn log(&self) -> Vec<String> {
        self.stderr.lines.lock().unwrap_or_else(PoisonError::into_inner).0.clone()
    }

    /// The access log so far; all of it once the process has ended.
    pub(crate) fn access_log(&self) -> Vec<String> {
        let Output { lines, changed } = &*self.stdout;
        let lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
        // What it wrote last is still on its way then.
        let (lines, _) = changed
            .wait_timeout_while(lines, PATIENCE, |(_, ended)| self.over && !*ended)
            .unwrap_or_else(PoisonError::into_inner);
        lines.0.clone()
    }

    /// Waits for a line of diagnostics that contains this.
    #[track_caller]
    pub(crate) fn wait_for_log(&self, part: &str) -> String {
        wait_for(&self.stderr, part)
    }

    /// Waits for an access log line that contains this.
    #[track_caller]
    pub(crate) fn wait_for_access(&self, part: &str) -> String {
        wait_for(&self.stdout, part)
    }

    /// Waits for the process to end.
    #[track_caller]
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("a child can be waited for") {
                self.over = true;
                return status;
            }
            assert!(start.elapsed() < PATIENCE, "the process does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Resident memory, in bytes.
    pub(crate) fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))
            .expect("the process is there");
        let line = status.lines().find(|l| l.starts_with("VmRSS:")).expect("Linux tells");
        let kib: u64 = line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("kB");
        kib * 1024
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- diagnostics of edgeproxy ---\n{}", self.log().join("\n"));
        }
    }
}

/// One origin behind plain text, with further top-level sections. It is not checked, so that it sees the
/// connections of the test's requests alone, however long these take.
pub(crate) fn simple(origin: &Origin, more: &str) -> String {
    format!(
        "listeners:\n  - {{name: http, address: \"127.0.0.1:0\", h2c: true}}\n\
         upstreams:\n  origin:\n    health: off\n    addresses: [\"{}\"]\n\
         routes:\n  - {{name: all, upstream: origin}}\n{more}\n",
        origin.address
    )
}

/// How soon a deadline is that a test is about.
pub(crate) const NEAR: Duration = Duration::from_millis(500);

/// The deadlines of an upstream: a minute each, far longer than any test waits, but for `near`, which is [`NEAR`]. No
/// connection may take longer than all of it: with `total` near, `connect` is as well.
pub(crate) fn timeouts(near: Option<&str>) -> String {
    let of = |one: &str| match near {
        Some(near) if near == one || (near, one) == ("total", "connect") => {
            format!("{one}: {}ms", NEAR.as_millis())
        }
        Some(_) | None => format!("{one}: 1m"),
    };
    format!("timeouts: {{{}}}", ["connect", "read", "write", "total"].map(of).join(", "))
}

/// Writes a configuration into a test's folder; where it says nothing, state and sockets stay there.
pub(crate) fn write_config(folder: &TempDir, yaml: &str) -> PathBuf {
    let here = folder.path().display().to_string();
    let mut yaml = yaml.replace("$DIR", &here);
    if !yaml.contains("\nprocess:") && !yaml.starts_with("process:") {
        yaml.push_str(&format!(
            "\nprocess:\n  threads: 2\n  state_dir: {here}/state\n  upgrade_socket: {here}/upgrade.sock\n"
        ));
    }
    if !yaml.contains("\nadmin:") {
        yaml.push_str(&format!("\nadmin:\n  socket: {here}/admin.sock\n"));
    }
    let path = folder.path().join("edge.yaml");
    std::fs::write(&path, yaml).expect("the folder can be written to");
    path
}

/// Asks the admin listener at this socket.
pub(crate) fn admin_at(socket: &Path, method: &str, path: &str) -> std::io::Result<Reply> {
    admin_says(socket, &format!("{method} {path} HTTP/1.1"), "")
}

/// What it answers to a head, which needs no end, and a body.
pub(crate) fn admin_says(socket: &Path, head: &str, body: &str) -> std::io::Result<Reply> {
    use std::io::Read;
    use std::io::Write;
    let mut stream = std::os::unix::net::UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "{head}\r\nHost: localhost\r\nConnection: close\r\n\r\n{body}")?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
    let fields = head
        .lines()
        .skip(1)
        .filter_map(|l| l.split_once(':'))
        .map(|(n, v)| (n.to_owned(), v.trim().to_owned()))
        .collect();
    let end = super::client::End::Whole;
    Ok(Reply { status, fields, body: body.as_bytes().to_vec(), end })
}

fn collect(from: impl std::io::Read + Send + 'static) -> Arc<Output> {
    let output = Arc::new(Output::default());
    let into = Arc::clone(&output);
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            into.lines.lock().unwrap_or_else(PoisonError::into_inner).0.push(line);
            into.changed.notify_all();
        }
        into.lines.lock().unwrap_or_else(PoisonError::into_inner).1 = true;
        into.changed.notify_all();
    });
    output
}

#[track_caller]
fn wait_for(output: &Output, part: &str) -> String {
    let has = |lines: &[String]| lines.iter().find(|line| line.contains(part)).cloned();
    let lines = output.lines.lock().unwrap_or_else(PoisonError::into_inner);
    let (lines, _) = output
        .changed
        .wait_timeout_while(lines, PATIENCE, |(lines, ended)| has(lines).is_none() && !*ended)
        .unwrap_or_else(PoisonError::into_inner);
    let found = has(&lines.0);
    let all = lines.0.join("\n");
    drop(lines);
    found.unwrap_or_else(|| panic!("no line with {part:?} in:\n{all}"))
}
