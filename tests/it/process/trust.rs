//! What root does for the user that a daemon becomes, and what it does not.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::fs::chown;
use std::os::unix::fs::lchown;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use nix::sys::signal::Signal;
use nix::sys::signal::kill;
use nix::sys::stat::Mode;
use nix::unistd::Pid;
use nix::unistd::Uid;
use nix::unistd::User;
use nix::unistd::mkfifo;
use tempfile::TempDir;

use super::at;
use super::daemon::Daemon;
use super::daemon::until_gone;
use super::edgeproxy;
use super::free_address;
use super::outcome;
use super::upgrade::Follower;
use super::upgrade::upgrade;
use crate::harness::Authority;
use crate::harness::Origin;
use crate::harness::edge::write_config;
use crate::harness::ok;

/// A folder that a daemon of another user can get into.
struct Ground {
    folder: Arc<TempDir>,
    nobody: u32,
}

impl Ground {
    /// `None`: only root can become another user.
    fn found() -> Option<Self> {
        if !Uid::effective().is_root() {
            eprintln!("skipped: only root can become another user");
            return None;
        }
        let folder = Arc::new(tempfile::tempdir().expect("a folder can be made"));
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("it is ours");
        let nobody = User::from_name("nobody").expect("users can be looked up").expect("it exists");
        Some(Self { folder, nobody: nobody.uid.as_raw() })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What `-d` comes to, as nobody, with these keys of `process` and these sections.
    fn started(&self, process: &str, more: &str) -> (Option<i32>, String) {
        let origin = Origin::always(ok("hello"));
        let process = format!(", user: nobody{process}");
        write_config(&self.folder, &(at(free_address(), &origin, &process) + more));
        outcome(&self.folder, &["-c", "edge.yaml", "-d"])
    }

    /// The process that this pid file names; ended with what is returned.
    fn daemon(&self, pid_file: &str) -> Daemon {
        let pid = self.pid(pid_file);
        Daemon { folder: Arc::clone(&self.folder), address: free_address(), pid }
    }

    /// What this pid file says.
    fn pid(&self, pid_file: &str) -> Pid {
        let text = fs::read_to_string(self.path(pid_file)).expect("a pid file");
        Pid::from_raw(text.trim().parse().expect("a number"))
    }

    /// A folder that is root's alone, with a file in it.
    fn treasure(&self, file: &str) -> PathBuf {
        let treasure = self.path("treasure");
        fs::create_dir_all(&treasure).expect("it is ours");
        fs::set_permissions(&treasure, fs::Permissions::from_mode(0o700)).expect("it is ours");
        fs::write(treasure.join(file), "secret\n").expect("it is ours");
        treasure
    }

    /// The user puts a link to `to` in the place of a folder of its own.
    fn replaced(&self, folder: &str, to: &Path) {
        fs::rename(self.path(folder), self.path(&format!("{folder}.old"))).expect("it is there");
        symlink(to, self.path(folder)).expect("nothing is there");
        lchown(self.path(folder), Some(self.nobody), None).expect("we are root");
    }
}

/// What is in a folder: names, owners and contents.
fn contents(folder: &Path) -> Vec<(String, u32, String)> {
    let entries = fs::read_dir(folder).expect("it is there").map(|entry| {
        let path = entry.expect("readable").path();
        let name = path.file_name().expect("it has one").to_string_lossy().into_owned();
        let uid = fs::symlink_metadata(&path).expect("it is there").uid();
        (name, uid, fs::read_to_string(&path).unwrap_or_default())
    });
    let mut entries: Vec<_> = entries.collect();
    entries.sort();
    entries
}

#[test]
fn a_folder_that_the_user_replaced_by_a_link_gives_it_no_file_of_roots() {
    let logs = ", log_file: $DIR/state/logs/edgeproxy.log";
    let access = "access_log: {to: $DIR/state/logs/access.log}\n";
    for (process, more, folder, file) in [
        (logs, "", "state/logs", "edgeproxy.log"),
        ("", access, "state/logs", "access.log"),
        (", pid_file: $DIR/state/run/edge.pid", "", "state/run", "edge.pid"),
        ("", "admin: {socket: $DIR/state/adm/admin.sock}\n", "state/adm", "admin.sock"),
    ] {
        let Some(ground) = Ground::found() else { return };
        let (code, said) = ground.started(process, more);
        assert_eq!(code, Some(0), "{said}");
        let pid_file =
            if file == "edge.pid" { "state/run/edge.pid" } else { "state/edgeproxy.pid" };
        let daemon = ground.daemon(pid_file);
        daemon.signal(Signal::SIGTERM);
        until_gone(daemon.pid);

        // A file where one of that name is opened, and a number where a pid file is looked for.
        let treasure = ground.treasure(if file == "admin.sock" { "other" } else { file });
        if file == "edge.pid" {
            fs::write(treasure.join(file), "7\n").expect("it is ours");
        }
        let before = contents(&treasure);
        ground.replaced(folder, &treasure);
        let (code, said) = ground.started(process, more);
        assert_eq!(contents(&treasure), before, "{file}: {said}");
        assert_eq!(code, Some(1), "{file}: {said}");
        assert!(said.contains("Permission denied"), "{file}: {said}");
    }
}

#[test]
fn what_only_root_can_make_is_made_and_given_to_the_user() {
    let Some(ground) = Ground::found() else { return };
    let (code, said) = ground.started(
        ", log_file: $DIR/log/deep/edge.log, pid_file: $DIR/run/edge.pid",
        "access_log: {to: $DIR/access.log}\nadmin: {socket: $DIR/sockets/admin.sock}\n",
    );
    assert_eq!(code, Some(0), "{said}");
    let daemon = ground.daemon("run/edge.pid");
    for (name, is_users) in [
        ("log", true),
        ("log/deep/edge.log", true),
        ("access.log", true),
        ("sockets/admin.sock", true),
        ("", false),
    ] {
        let owner = fs::symlink_metadata(ground.path(name)).expect("it is there").uid();
        assert_eq!(owner == ground.nobody, is_users, "{name}");
    }
    drop(daemon);
}

#[test]
fn a_folder_below_the_state_folder_does_not_keep_it_roots() {
    let Some(ground) = Ground::found() else { return };
    let origin = Origin::always(ok("hello"));
    let process = ", user: nobody, pid_file: $DIR/state/run/edge.pid";
    let yaml = at(free_address(), &origin, process);
    let tls = "  - {name: tls, address: \"127.0.0.1:0\", tls: {certificates: \
               [{hosts: [localhost], internal: true}]}}\nupstreams:";
    write_config(&ground.folder, &yaml.replace("upstreams:", tls));
    // As an earlier start, or whoever installed it, left them.
    fs::create_dir_all(ground.path("state/run")).expect("it is ours");
    let (code, said) = outcome(&ground.folder, &["-c", "edge.yaml", "-d"]);
    assert_eq!(code, Some(0), "{said}");
    let daemon = ground.daemon("state/run/edge.pid");
    for name in ["state", "state/run", "state/ca/root.key"] {
        let owner = fs::symlink_metadata(ground.path(name)).expect("it is there").uid();
        assert_eq!(owner, ground.nobody, "{name}");
    }
    daemon.signal(Signal::SIGTERM);
    until_gone(daemon.pid);
    assert!(!ground.path("state/run/edge.pid").exists());
}

#[test]
fn an_upgrade_by_root_names_the_new_process_where_only_root_can() {
    let Some(ground) = Ground::found() else { return };
    // Its user may look for the pid file in one of them, and not even that in the other.
    for (folder, mode) in [("run", 0o755), ("shut", 0o700)] {
        let run = ground.path(folder);
        fs::create_dir(&run).expect("it is ours");
        fs::set_permissions(&run, fs::Permissions::from_mode(mode)).expect("it is ours");
        let pid_file = format!("{folder}/edge.pid");
        let (code, said) = ground.started(&format!(", pid_file: $DIR/{pid_file}"), "");
        assert_eq!(code, Some(0), "{said}");
        let mut daemon = ground.daemon(&pid_file);
        for _ in 0..2 {
            let new = Follower::of(upgrade(&ground.folder, &[]));
            assert_eq!(ground.pid(&pid_file), new.0);
            let about = fs::symlink_metadata(ground.path(&pid_file)).expect("it is there");
            assert_eq!((about.uid(), about.mode() & 0o022), (0, 0), "it is root's");
            until_gone(daemon.pid);
            daemon = ground.daemon(&pid_file);
            std::mem::forget(new);
        }
        // One that comes to nothing leaves it as it was.
        let program = ground.path("program");
        fs::write(&program, "#!/bin/sh\nprintf R >&0\nexec sleep 1000\n").expect("it is ours");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("it is ours");
        let (code, said) = upgrade(&ground.folder, &["--binary", "program"]);
        assert_eq!(code, Some(1), "{said}");
        assert_eq!(ground.pid(&pid_file), daemon.pid);
        kill(daemon.pid, None).expect("it goes on");
    }
    // Its user cannot have it name anything.
    let (code, said) = ground.started(", pid_file: $DIR/run/edge.pid", "");
    assert_eq!(code, Some(0), "{said}");
    let daemon = ground.daemon("run/edge.pid");
    let mut command = edgeproxy(&ground.folder, &["upgrade", "-c", "edge.yaml"]);
    let output = command.uid(ground.nobody).gid(ground.nobody).output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("only root can write the pid file") && said.contains("goes on"),
        "{said}"
    );
    assert_eq!(ground.pid("run/edge.pid"), daemon.pid);
}

#[test]
fn a_key_that_the_user_may_not_read_is_told_before_it_is_renewed() {
    let Some(ground) = Ground::found() else { return };
    let authority = Authority::new();
    let (_, key) = authority.write_leaf(ground.folder.path(), "a", &["a.test"]);
    let listener = "  - {name: tls, address: \"127.0.0.1:0\", tls: {certificates: \
                    [{hosts: [a.test], certificate: a.pem, key: a.key}]}}\nupstreams:";
    let origin = Origin::always(ok("hello"));
    let yaml = at(free_address(), &origin, ", user: nobody").replace("upstreams:", listener);
    write_config(&ground.folder, &yaml);
    let told = "a.key: process.user may not read this file";
    for (mode, is_told) in [(0o600, true), (0o604, false)] {
        fs::set_permissions(&key, fs::Permissions::from_mode(mode)).expect("it is ours");
        let (code, said) = outcome(&ground.folder, &["-c", "edge.yaml", "-t"]);
        assert_eq!((code, said.contains(told)), (Some(0), is_told), "{said}");
        let (code, said) = outcome(&ground.folder, &["-c", "edge.yaml", "-d"]);
        assert_eq!((code, said.contains(told)), (Some(0), is_told), "{said}");
        let daemon = ground.daemon("state/edgeproxy.pid");
        daemon.signal(Signal::SIGTERM);
        until_gone(daemon.pid);
    }
}

#[test]
fn a_file_of_another_user_stays_that_users() {
    let Some(ground) = Ground::found() else { return };
    let log = ground.path("access.log");
    fs::write(&log, "").expect("it is ours");
    chown(&log, Some(1), None).expect("we are root");
    fs::set_permissions(&log, fs::Permissions::from_mode(0o600)).expect("it is ours");
    let (_, said) = ground.started("", "access_log: {to: $DIR/access.log}\n");
    assert_eq!(fs::metadata(&log).expect("it is there").uid(), 1, "{said}");
    if let Ok(text) = fs::read_to_string(ground.path("state/edgeproxy.pid")) {
        let _ = kill(Pid::from_raw(text.trim().parse().expect("a number")), Signal::SIGKILL);
    }
}

#[test]
fn a_pipe_without_a_reader_ends_the_start() {
    let origin = Origin::always(ok("hello"));
    for (process, more) in [(", log_file: $DIR/pipe", ""), ("", "access_log: {to: $DIR/pipe}\n")] {
        let folder = tempfile::tempdir().expect("a folder can be made");
        mkfifo(&folder.path().join("pipe"), Mode::S_IRUSR | Mode::S_IWUSR).expect("it is ours");
        write_config(&folder, &(at(free_address(), &origin, process) + more));
        let (code, said) = outcome(&folder, &["-c", "edge.yaml", "-t"]);
        assert_eq!(code, Some(0), "{said}");
        assert!(said.contains("pipe is a pipe"), "{said}");
        let (code, said) = outcome(&folder, &["-c", "edge.yaml", "-d"]);
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("cannot be used: it is a pipe that nobody reads from"), "{said}");
        assert!(!folder.path().join("state/edgeproxy.pid").exists());
    }
}

#[test]
fn what_is_no_pid_file_is_not_replaced_by_one() {
    let origin = Origin::always(ok("hello"));
    let folder = tempfile::tempdir().expect("a folder can be made");
    mkfifo(&folder.path().join("pipe"), Mode::S_IRUSR | Mode::S_IWUSR).expect("it is ours");
    fs::write(folder.path().join("notes"), "dear diary\n").expect("it is ours");
    symlink("notes", folder.path().join("link")).expect("nothing is there");
    for (pid_file, part) in [
        ("$DIR/edge.yaml", "is this configuration"),
        ("$DIR/pipe", "is there, and is no pid file"),
        ("$DIR/notes", "is there, and is no pid file"),
        ("$DIR/link", "is there, and is no pid file"),
    ] {
        write_config(&folder, &at(free_address(), &origin, &format!(", pid_file: {pid_file}")));
        let yaml = fs::read_to_string(folder.path().join("edge.yaml")).expect("it is there");
        for how in ["-t", "-d"] {
            let (code, said) = outcome(&folder, &["-c", "edge.yaml", how]);
            assert_eq!(code, Some(78), "{pid_file}: {said}");
            assert!(said.contains(part) && said.contains("process.pid_file"), "{said}");
        }
        let left = fs::read_to_string(folder.path().join("edge.yaml")).expect("it is there");
        assert_eq!(left, yaml);
    }
    // Only looked at: what would be replaced is the machine's.
    write_config(&folder, &at(free_address(), &origin, ", pid_file: /dev/null"));
    let (code, said) = outcome(&folder, &["-c", "edge.yaml", "-t"]);
    assert_eq!(code, Some(78), "{said}");
}
