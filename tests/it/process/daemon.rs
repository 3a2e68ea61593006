//! In the background.

use std::fs;
use std::io::ErrorKind;
use std::io::Write;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::net::TcpStream;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::sys::signal::kill;
use nix::sys::stat::Mode;
use nix::unistd::Pid;
use nix::unistd::Uid;
use nix::unistd::User;
use tempfile::TempDir;

use super::at;
use super::edgeproxy;
use super::free_address;
use super::outcome;
use crate::harness::Origin;
use crate::harness::PATIENCE;
use crate::harness::Reply;
use crate::harness::Wire;
use crate::harness::edge::admin_at;
use crate::harness::edge::write_config;
use crate::harness::ok;

/// A daemon in a folder of the test's; it ends with the test.
pub(super) struct Daemon {
    pub(super) folder: Arc<TempDir>,
    pub(super) address: SocketAddr,
    pub(super) pid: Pid,
}

impl Daemon {
    /// Writes the configuration and starts it with `-d`.
    pub(super) fn start(yaml: impl Fn(SocketAddr) -> String) -> Self {
        let folder = Arc::new(tempfile::tempdir().expect("a folder can be made"));
        // A user that the daemon becomes must be able to get there.
        let open = fs::Permissions::from_mode(0o755);
        fs::set_permissions(folder.path(), open).expect("the folder is ours");
        let address = free_address();
        write_config(&folder, &yaml(address));
        let (code, said) = outcome(&folder, &["-c", "edge.yaml", "-d"]);
        assert_eq!(code, Some(0), "{said}");
        let pid = pid_in(&folder);
        Self { folder, address, pid }
    }

    pub(super) fn get(&self, target: &str) -> Reply {
        Wire::plain(self.address).get("edge.test", target, &[])
    }

    pub(super) fn state(&self, name: &str) -> PathBuf {
        self.folder.path().join("state").join(name)
    }

    pub(super) fn signal(&self, signal: Signal) {
        kill(self.pid, signal).expect("the process is there");
    }

    /// Waits until the log contains this.
    pub(super) fn wait_for_log(&self, part: &str) -> String {
        let log = self.state("edgeproxy.log");
        eventually(part, || fs::read_to_string(&log).ok().filter(|text| text.contains(part)))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = kill(self.pid, Signal::SIGKILL);
        if thread::panicking() {
            let log = fs::read_to_string(self.state("edgeproxy.log")).unwrap_or_default();
            eprintln!("--- log of the daemon ---\n{log}");
        }
    }
}

/// The process that the pid file names.
pub(super) fn pid_in(folder: &TempDir) -> Pid {
    let text = fs::read_to_string(folder.path().join("state/edgeproxy.pid")).expect("a pid file");
    Pid::from_raw(text.trim().parse().expect("a number"))
}

/// Asks again and again until there is an answer; for what no event tells.
#[track_caller]
pub(crate) fn eventually<T>(what: &str, ask: impl Fn() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(start.elapsed() < PATIENCE, "this does not happen: {what}");
        thread::sleep(std::time::Duration::from_millis(5));
    }
}

/// Waits until a process is gone that is not our child.
pub(super) fn until_gone(pid: Pid) {
    eventually("the process ends", || {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // Nobody may be there to collect it.
        let zombie = stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('Z'));
        (kill(pid, None) == Err(Errno::ESRCH) || zombie).then_some(())
    });
}

fn daemon(more: &str) -> Daemon {
    let origin = Origin::always(ok("hello"));
    Daemon::start(|address| at(address, &origin, more))
}

#[test]
fn it_serves_when_the_command_returns_and_tidies_up_when_it_ends() {
    let daemon = daemon("");
    daemon.get("/").expect_status(200).expect_body("hello");
    daemon.wait_for_log("ready");
    let stdin = fs::read_link(format!("/proc/{}/fd/0", daemon.pid)).expect("it is ours");
    assert_eq!(stdin, PathBuf::from("/dev/null"));
    let cwd = fs::read_link(format!("/proc/{}/cwd", daemon.pid)).expect("it is ours");
    assert_eq!(cwd, PathBuf::from("/"));
    let session = nix::unistd::getsid(Some(daemon.pid)).expect("it is there");
    assert_eq!(session, daemon.pid);
    let name = fs::read_to_string(format!("/proc/{}/comm", daemon.pid)).expect("it is there");
    assert_eq!(name.trim(), "edgeproxy");

    daemon.signal(Signal::SIGTERM);
    until_gone(daemon.pid);
    assert!(!daemon.state("edgeproxy.pid").exists());
    assert!(!daemon.state("upgrade.sock").exists());
    let refused = TcpStream::connect(daemon.address).expect_err("nobody listens");
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn its_working_folder_and_files_are_as_configured() {
    let daemon = daemon(
        ", pid_file: $DIR/state/edgeproxy.pid, log_file: $DIR/logs/deep/edge.log, \
         working_directory: $DIR",
    );
    let cwd = fs::read_link(format!("/proc/{}/cwd", daemon.pid)).expect("it is ours");
    assert_eq!(cwd, daemon.folder.path().canonicalize().expect("it exists"));
    let log = daemon.folder.path().join("logs/deep/edge.log");
    assert!(fs::read_to_string(log).expect("a log").contains("listening on"));
}

#[test]
fn a_second_one_is_refused_while_the_first_one_runs() {
    let daemon = daemon("");
    let (code, said) = outcome(&daemon.folder, &["-c", "edge.yaml", "-d"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains(&format!("runs already, as process {}", daemon.pid)), "{said}");
    assert_eq!(pid_in(&daemon.folder), daemon.pid);
    daemon.get("/").expect_status(200);
}

#[test]
fn a_pid_file_that_was_left_behind_is_replaced() {
    let daemon = daemon("");
    daemon.signal(Signal::SIGKILL);
    until_gone(daemon.pid);
    // Its threads may close its sockets a moment later.
    eventually("nobody listens", || TcpListener::bind(daemon.address).ok());
    assert_eq!(pid_in(&daemon.folder), daemon.pid);

    let (code, said) = outcome(&daemon.folder, &["-c", "edge.yaml", "-d"]);
    assert_eq!(code, Some(0), "{said}");
    let again = Daemon {
        folder: Arc::clone(&daemon.folder),
        address: daemon.address,
        pid: pid_in(&daemon.folder),
    };
    assert_ne!(again.pid, daemon.pid);
    again.get("/").expect_status(200);
}

#[test]
fn a_wrong_configuration_is_said_at_once() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    write_config(&folder, "listeners: []\nroutes: []\n");
    let (code, said) = outcome(&folder, &["-c", "edge.yaml", "-d"]);
    assert_eq!(code, Some(78), "{said}");
    assert!(said.contains("edge.yaml"), "{said}");
}

#[test]
fn a_pid_file_that_cannot_be_written_ends_the_start() {
    let origin = Origin::always(ok("hello"));
    let folder = tempfile::tempdir().expect("a folder can be made");
    let address = free_address();
    // Nobody makes a file there, root neither; which is seen only when it is tried.
    write_config(&folder, &at(address, &origin, ", pid_file: /proc/edgeproxy.pid"));
    let (code, said) = outcome(&folder, &["-c", "edge.yaml", "-d"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("the pid file") && said.contains("process.pid_file"), "{said}");
    // The daemon did serve by then; nobody wants it any more.
    eventually("the daemon ends", || TcpStream::connect(address).err());
}

#[test]
fn logs_are_opened_again_on_a_signal() {
    let origin = Origin::always(ok("hello"));
    let daemon = Daemon::start(|address| {
        at(address, &origin, "") + "access_log: {to: $DIR/state/access.log, format: text}\n"
    });
    daemon.wait_for_log("ready");
    for name in ["edgeproxy.log", "access.log"] {
        fs::rename(daemon.state(name), daemon.state(&format!("{name}.1"))).expect("moved");
    }
    daemon.signal(Signal::SIGUSR1);
    daemon.wait_for_log("log files are opened again");
    daemon.get("/after").expect_status(200);
    eventually("the line is in the new file", || {
        let text = fs::read_to_string(daemon.state("access.log")).ok()?;
        text.contains("/after").then_some(())
    });
    let old = fs::read_to_string(daemon.state("edgeproxy.log.1")).expect("it was renamed");
    assert!(old.contains("listening on") && !old.contains("opened again"), "{old}");
}

#[test]
fn what_goes_to_standard_output_goes_to_the_log() {
    let origin = Origin::always(ok("hello"));
    let daemon = Daemon::start(|address| at(address, &origin, "") + "access_log: {to: stdout}\n");
    daemon.get("/seen").expect_status(200);
    daemon.wait_for_log("/seen");
}

#[test]
fn started_by_root_it_becomes_the_configured_user_and_can_work_with_its_files() {
    if !Uid::effective().is_root() {
        eprintln!("skipped: only root can become another user");
        return;
    }
    let nobody = User::from_name("nobody").expect("users can be looked up").expect("it exists");
    let origin = Origin::always(ok("hello"));
    let daemon = Daemon::start(|address| {
        let yaml = at(address, &origin, ", user: nobody");
        let tls = "  - {name: tls, address: \"127.0.0.1:0\", tls: {certificates: \
                   [{hosts: [localhost], internal: true}]}}\nupstreams:";
        yaml.replace("upstreams:", tls) + "access_log: {to: $DIR/state/access.log}\n"
    });
    daemon.get("/").expect_status(200);

    let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid)).expect("it is there");
    let ids = |name: &str| -> Vec<u32> {
        let line = status.lines().find(|l| l.starts_with(name)).expect("Linux tells");
        line.split_whitespace().skip(1).filter_map(|id| id.parse().ok()).collect()
    };
    assert_eq!(ids("Uid:"), [nobody.uid.as_raw(); 4]);
    assert_eq!(ids("Gid:"), [nobody.gid.as_raw(); 4]);
    assert!(!ids("Groups:").contains(&0), "{status}");
    assert!(status.contains("CapEff:\t0000000000000000"), "{status}");

    for name in ["", "edgeproxy.log", "access.log", "upgrade.sock", "ca/root.key", "../admin.sock"]
    {
        let about = fs::symlink_metadata(daemon.state(name)).expect("it exists");
        assert_eq!(about.uid(), nobody.uid.as_raw(), "{name}");
    }
    // It reads what it made, writes where it should, and removes its traces.
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_log("configuration reloaded");
    fs::rename(daemon.state("access.log"), daemon.state("access.log.1")).expect("moved");
    daemon.signal(Signal::SIGUSR1);
    eventually("the access log is made again", || {
        daemon.state("access.log").exists().then_some(())
    });
    let (code, said) = outcome(&daemon.folder, &["-c", "edge.yaml", "-d", "-u"]);
    assert_eq!(code, Some(0), "{said}");
    until_gone(daemon.pid);
    let next = Daemon { pid: pid_in(&daemon.folder), folder: Arc::clone(&daemon.folder), ..daemon };
    next.get("/").expect_status(200);
    let admin = next.folder.path().join("admin.sock");
    admin_at(&admin, "GET", "/readyz").expect("it answers").expect_status(200);
    next.signal(Signal::SIGTERM);
    until_gone(next.pid);
    assert!(!next.state("upgrade.sock").exists());
    assert!(!next.state("edgeproxy.pid").exists());
}

#[test]
fn an_unknown_user_is_said_at_once() {
    let origin = Origin::always(ok("hello"));
    let folder = tempfile::tempdir().expect("a folder can be made");
    write_config(&folder, &at(free_address(), &origin, ", user: no-such-user-here"));
    for arguments in [&["-c", "edge.yaml", "-d"][..], &["-c", "edge.yaml", "-t"]] {
        let (code, said) = outcome(&folder, arguments);
        assert_eq!(code, Some(78), "{said}");
        let told = said.matches("there is no user \"no-such-user-here\"").count();
        assert_eq!(told, 1, "{said}");
        assert!(said.contains("  process.user\n"), "{said}");
    }
}

#[test]
fn what_keeps_it_from_its_log_is_said_once() {
    let origin = Origin::always(ok("hello"));
    let folder = tempfile::tempdir().expect("a folder can be made");
    write_config(&folder, &at(free_address(), &origin, ", log_file: /proc/edgeproxy.log"));
    let (code, said) = outcome(&folder, &["-c", "edge.yaml", "-d"]);
    assert_eq!(code, Some(1), "{said}");
    assert_eq!(said.matches("/proc/edgeproxy.log cannot be used").count(), 1, "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
}

#[test]
fn the_inner_flag_is_no_way_to_start_it() {
    let origin = Origin::always(ok("hello"));
    let folder = tempfile::tempdir().expect("a folder can be made");
    write_config(&folder, &at(free_address(), &origin, ""));
    let (code, said) = outcome(&folder, &["--detached", "-c", "edge.yaml"]);
    assert_eq!(code, Some(64), "{said}");
    assert!(said.contains("use -d"), "{said}");
}

/// How many threads a process has.
fn threads(pid: Pid) -> usize {
    fs::read_dir(format!("/proc/{pid}/task")).expect("it is there").count()
}

#[test]
fn no_thread_is_started_before_the_daemon_is_a_process_of_its_own() {
    let origin = Origin::always(ok("hello"));
    let folder = Arc::new(tempfile::tempdir().expect("a folder can be made"));
    let address = free_address();
    let path = write_config(&folder, &at(address, &origin, ""));
    // The starter and then the daemon read it as it is written, and so wait where they are looked at.
    let yaml = fs::read(&path).expect("it was written");
    fs::remove_file(&path).expect("it is ours");
    nix::unistd::mkfifo(&path, Mode::S_IRWXU).expect("the folder is ours");
    let reader = || fs::OpenOptions::new().write(true).open(&path).expect("somebody reads it");

    let mut starter = edgeproxy(&folder, &["-c", "edge.yaml", "-d"]).spawn().expect("it runs");
    let starting = Pid::from_raw(starter.id().try_into().expect("a number of a process"));
    reader().write_all(&yaml).expect("it is read");
    let daemon = eventually("there is a daemon", || {
        let children = format!("/proc/{starting}/task/{starting}/children");
        let children = fs::read_to_string(children).expect("the system tells");
        children.split_whitespace().next()?.parse().ok().map(Pid::from_raw)
    });
    let mut waiting = reader();
    assert_eq!((threads(starting), threads(daemon)), (1, 1));
    waiting.write_all(&yaml).expect("it is read");
    drop(waiting);
    assert!(starter.wait().expect("it was started").success());
    let daemon = Daemon { pid: pid_in(&folder), folder, address };
    daemon.get("/").expect_status(200);
    assert!(threads(daemon.pid) > 1, "otherwise nothing was shown above");
}

#[test]
fn what_its_starter_had_open_is_closed() {
    let origin = Origin::always(ok("hello"));
    let folder = Arc::new(tempfile::tempdir().expect("a folder can be made"));
    let address = free_address();
    write_config(&folder, &at(address, &origin, ""));
    let lock = folder.path().join("lock");
    let mut shell = std::process::Command::new("sh");
    shell
        .current_dir(folder.path())
        .args(["-c", "exec 7>lock; exec 9<lock; exec \"$0\" -c edge.yaml -d"]);
    let started = shell.arg(crate::harness::edge::binary()).status().expect("there is a shell");
    assert!(started.success());
    let daemon = Daemon { pid: pid_in(&folder), folder, address };
    daemon.get("/").expect_status(200);
    let open = fs::read_dir(format!("/proc/{}/fd", daemon.pid)).expect("it runs");
    let open: Vec<PathBuf> = open.filter_map(|one| fs::read_link(one.ok()?.path()).ok()).collect();
    assert!(!open.is_empty() && !open.contains(&lock), "{open:?}");
}
