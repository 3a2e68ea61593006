//! What the system's resolver knows, for one process alone: the real resolver, in a mount namespace where `/etc` is
//! the test's.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::Mutex;

use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use nix::unistd::geteuid;
use nix::unistd::mkfifo;
use tempfile::TempDir;

use super::Edge;
use super::edge::binary;
use super::edge::write_config;

/// The names of one process.
pub(crate) struct Names {
    folder: TempDir,
    /// The lines of its file.
    hosts: Mutex<BTreeMap<String, Vec<String>>>,
}

impl Names {
    /// None is known yet.
    pub(crate) fn none() -> Self {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let file = |name: &str, text: &str| fs::write(folder.path().join(name), text);
        file("nsswitch.conf", "hosts: files\n").expect("the folder can be written to");
        // More than one line for a name.
        file("host.conf", "multi on\n").expect("the folder can be written to");
        let names = Self { folder, hosts: Mutex::default() };
        names.write();
        names
    }

    /// From now on this host has these addresses; without any, it is not known.
    pub(crate) fn host(&self, name: &str, addresses: &[&str]) {
        let addresses = addresses.iter().map(|&one| one.to_owned()).collect();
        self.hosts.lock().expect("no panic").insert(name.to_owned(), addresses);
        self.write();
    }

    /// From now on none is known.
    pub(crate) fn forget(&self) {
        self.hosts.lock().expect("no panic").clear();
        self.write();
    }

    /// From now on who asks waits, until something is said or forgotten: whoever opens a pipe to read waits
    /// for somebody who writes.
    pub(crate) fn fall_silent(&self) {
        let pipe = self.folder.path().join("pipe");
        mkfifo(&pipe, Mode::S_IRUSR | Mode::S_IWUSR).expect("the folder can be written to");
        fs::rename(&pipe, self.file()).expect("the folder can be written to");
    }

    /// While silent: whether somebody waits for an answer. Who does gets none, and may ask again.
    pub(crate) fn somebody_waits(&self) -> bool {
        // Without a reader it cannot be opened.
        let mut options = OpenOptions::new();
        options.write(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(self.file()).is_ok()
    }

    /// An edge that knows these names, and no others.
    pub(crate) fn edge(&self, yaml: &str) -> Edge {
        let folder = Arc::new(tempfile::tempdir().expect("a folder can be made"));
        let config = write_config(&folder, yaml);
        let mut inside = Command::new("unshare");
        if !geteuid().is_root() {
            inside.arg("--map-root-user");
        }
        inside.args([
            "--mount",
            "sh",
            "-c",
            "mount --bind \"$1\" /etc && shift && exec \"$@\"",
            "sh",
        ]);
        inside.arg(self.folder.path()).arg(binary()).arg("-c").arg(&config);
        Edge::start(folder, inside)
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("hosts")
    }

    /// In one step, since the process reads it at any moment.
    fn write(&self) {
        let mut text = String::new();
        for (name, addresses) in &*self.hosts.lock().expect("no panic") {
            for address in addresses {
                writeln!(text, "{address} {name}").expect("a text takes anything");
            }
        }
        let (new, old) = (self.folder.path().join("new"), self.folder.path().join("old"));
        fs::write(&new, text).expect("the folder can be written to");
        // A second name, by which who waits for the pipe is let go.
        let _ = fs::remove_file(&old);
        let _ = fs::hard_link(self.file(), &old);
        fs::rename(&new, self.file()).expect("the folder can be written to");
        let _ = OpenOptions::new().read(true).write(true).open(&old);
    }
}
