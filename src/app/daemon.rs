//! Running in the background.
//!
//! Who types `-d` starts a second process and waits for it: it answers over a socket, its standard
//! input, when it serves or why it cannot. So `-d` returns when requests are answered, its exit code
//! is true, and an error is seen by who typed the command. The daemon is a fresh process and not a
//! fork of a running one, so that no thread, lock or timer can be lost on the way.
//!
//! What the two say to each other is in `starting.rs`.

use std::ffi::OsString;
use std::io;
use std::io::Read;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::fd::RawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd;
use nix::unistd::Pid;

use crate::app::FAILURE;
use crate::app::Failure;
use crate::app::identity::Give;
use crate::app::identity::Identity;
use crate::app::identity::make_folder;
use crate::app::starting::FAILED;
use crate::app::starting::NotStarted;
use crate::app::starting::SERVES;
use crate::app::starting::Starting;
use crate::config::pid_file;
use crate::config::plan::Process;

/// The first argument of a daemon. It is no flag, and so in no help, completion or manual.
pub(crate) const MARK: &str = "--detached";

/// Starts a daemon with these arguments, the program's name first, and waits until it serves.
pub(crate) fn launch(
    process: &Process,
    arguments: &[OsString],
    upgrade: bool,
) -> Result<(), Failure> {
    let Some((called, arguments)) = arguments.split_first() else {
        return Err(Failure::usage("a program that is called by no name cannot start a daemon"));
    };
    let pid_file = &process.pid_file;
    let unwritable = |e| Failure::other(PidFile::problem(pid_file, &e));
    let identity = Identity::of(process).map_err(Failure::other)?;
    if identity.is_none() {
        pid_file.parent().map_or(Ok(()), make_folder).map_err(unwritable)?;
    }
    let named = pid_file::read(pid_file).map_err(unwritable)?;
    if let (false, Some(pid)) = (upgrade, named.and_then(running)) {
        return Err(Failure::other(format!(
            "edgeproxy runs already, as process {pid} ({}); stop it, or take over from it with -u",
            process.pid_file.display()
        )));
    }
    let starting = Starting::begin(&this_program(), called, &[MARK], arguments, None);
    let mut starting = starting.map_err(Failure::other)?;
    let failed = |why| match why {
        NotStarted::Said(failure) => failure,
        NotStarted::Ended(how, code) => ended(&how, code, process),
        NotStarted::Late => ended("nothing was heard of it", FAILURE, process),
    };
    starting.serves(None).map_err(failed)?;
    // On failure the socket closes without a word, and the daemon ends.
    let pid = starting.id();
    let written = match identity {
        // Root's, where only root can make it: who reads it trusts it.
        Some(identity) => identity.make(pid_file, Give::Nothing, |path| write_pid(path, pid)),
        None => write_pid(pid_file, pid),
    };
    written.map_err(unwritable)?;
    starting.known().map_err(failed)
}

/// Has the pid file name a process, for a daemon that became another user and may not write there.
///
/// # Errors
/// A sentence: it is not for this one either, or the process is another user's.
pub(crate) fn note(process: &Process, pid: u32) -> Result<(), String> {
    let pid_file = &process.pid_file;
    let Ok(Some(identity)) = Identity::of(process) else {
        let path = pid_file.display();
        return Err(format!("only root can write the pid file {path}: ask for this as root"));
    };
    // Who reads the file may be root and end what it names: nothing but what that user could end as well.
    if user_of(pid) != Some(identity.user()) {
        return Err(format!("process {pid}, which the pid file was to name, is another user's"));
    }
    identity
        .make(pid_file, Give::Nothing, |path| write_pid(path, pid))
        .map_err(|e| PidFile::problem(pid_file, &e))
}

/// Who a process runs as.
fn user_of(pid: u32) -> Option<u32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// The program that runs now: by its path, after which the process is named, but if its file was
/// removed a moment ago, by what the kernel still has of it.
fn this_program() -> PathBuf {
    std::env::current_exe()
        .ok()
        .filter(|path| path.exists())
        .unwrap_or_else(|| PathBuf::from("/proc/self/exe"))
}

/// The daemon ended without a word.
fn ended(how: &str, code: u8, process: &Process) -> Failure {
    let message = format!(
        "error: the daemon ended before it served ({how}); see {}",
        process.log_file.display()
    );
    Failure { code, message }
}

/// The process of this number, if one like us runs by it.
fn running(pid: u32) -> Option<i32> {
    let other = pid > 0 && pid != std::process::id();
    let pid = i32::try_from(pid).ok()?;
    let alive = other && matches!(kill(Pid::from_raw(pid), None), Ok(()) | Err(Errno::EPERM));
    // The number may be another program's by now, or one that ended and that nobody collected.
    let name = |of: &str| std::fs::read(format!("/proc/{of}/comm")).ok();
    let (of, ended) = (pid.to_string(), |line: &str| line.starts_with("State:\tZ"));
    let status = std::fs::read_to_string(format!("/proc/{of}/status")).unwrap_or_default();
    (alive && name(&of) == name("self") && !status.lines().any(ended)).then_some(pid)
}

/// Puts a pid file in place as a whole, its folder made where needed; nobody reads half of one. What is there
/// and is no pid file stays.
pub(crate) fn write_pid(path: &Path, pid: u32) -> io::Result<()> {
    path.parent().map_or(Ok(()), make_folder)?;
    pid_file::read(path)?;
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{pid}"));
    let beside = PathBuf::from(beside);
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).open(&beside)?;
    let written = writeln!(file, "{pid}").and_then(|()| std::fs::rename(&beside, path));
    if written.is_err() {
        let _ = std::fs::remove_file(&beside);
    }
    written
}

/// The pid file of this process, from the daemon's side.
pub(crate) struct PidFile;

impl PidFile {
    pub(crate) fn problem(path: &Path, e: &io::Error) -> String {
        format!("the pid file {} cannot be written: {e}; see process.pid_file", path.display())
    }

    /// Removes it, unless another process has written its own by now.
    pub(crate) fn remove(path: &Path) {
        if matches!(pid_file::read(path), Ok(Some(pid)) if pid == std::process::id()) {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Closes what whoever started us left open: a lock, a pipe, a terminal that would be held for as long as
/// the daemon lives. Only at the very start, when nothing above standard error is ours.
fn close_inherited() {
    let Ok(open) = std::fs::read_dir("/proc/self/fd") else { return };
    let numbers = open.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<RawFd>().ok());
    // The folder is one of them, and closed by the time that its number comes.
    for number in numbers.collect::<Vec<_>>().into_iter().filter(|number| *number > 2) {
        let _ = unistd::close(number);
    }
}

/// Who waits for this process to serve.
#[derive(Debug, Clone)]
pub(crate) struct Starter(Arc<Waiting>);

#[derive(Debug)]
struct Waiting {
    socket: UnixStream,
    /// Standard error is the daemon's own log, and no longer the terminal of who waits.
    has_log: AtomicBool,
}

impl Starter {
    /// Leaves the session of who started this process, and finds the socket to answer on.
    ///
    /// # Errors
    /// Nobody waits: standard input is no such socket.
    pub(crate) fn detach() -> io::Result<Self> {
        close_inherited();
        let (socket, nothing) = Self::found()?;
        unistd::setsid()?;
        unistd::dup2_stdout(&nothing)?;
        Ok(Self(Arc::new(Waiting { socket, has_log: AtomicBool::new(false) })))
    }

    /// Finds the socket to answer on, and stays where it is: in the foreground, as the process is that
    /// started this one.
    ///
    /// # Errors
    /// Nobody waits: standard input is no such socket.
    pub(crate) fn beside() -> io::Result<Self> {
        let (socket, _) = Self::found()?;
        // Standard error is where whoever runs it looks, so that is told there as well.
        Ok(Self(Arc::new(Waiting { socket, has_log: AtomicBool::new(true) })))
    }

    /// The socket that is standard input, which nobody reads from then on.
    fn found() -> io::Result<(UnixStream, std::fs::File)> {
        let socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
        socket.peer_addr()?;
        let nothing = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null")?;
        unistd::dup2_stdin(&nothing)?;
        Ok((socket, nothing))
    }

    /// Requests are answered. Returns when that is known and the pid file is written. Blocks.
    ///
    /// # Errors
    /// Nobody waits any more: this start was given up.
    pub(crate) fn serves(&self) -> io::Result<()> {
        let mut socket = &self.0.socket;
        let given_up =
            |_| io::Error::other("who started this process does not wait for it any more");
        socket.write_all(&[SERVES]).map_err(given_up)?;
        let mut answer = [0u8; 1];
        socket.read_exact(&mut answer).map_err(given_up)
    }

    /// It came to nothing. Returns what is still to be said in the log: nobody is told twice.
    pub(crate) fn failed(&self, failure: Failure) -> Failure {
        let mut told = vec![FAILED, failure.code];
        told.extend_from_slice(failure.message.as_bytes());
        let heard = (&self.0.socket).write_all(&told).is_ok();
        let is_told = heard && !self.0.has_log.load(Ordering::Relaxed);
        Failure { message: if is_told { String::new() } else { failure.message }, ..failure }
    }

    /// Sends diagnostics, and what is written to standard output, to `file` from now on.
    pub(crate) fn redirect(&self, file: impl AsFd) -> io::Result<()> {
        redirect(file)?;
        self.0.has_log.store(true, Ordering::Relaxed);
        Ok(())
    }
}

/// Sends diagnostics, and what is written to standard output, to `file` from now on.
pub(crate) fn redirect(file: impl AsFd) -> io::Result<()> {
    unistd::dup2_stderr(&file)?;
    Ok(unistd::dup2_stdout(&file)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pid_file_is_replaced_and_removed_only_by_its_own_process() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pid");
        std::fs::write(&path, "4294967295\n").unwrap();
        write_pid(&path, 1).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "1\n");
        PidFile::remove(&path);
        assert!(path.exists());
        write_pid(&path, std::process::id()).unwrap();
        PidFile::remove(&path);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_is_no_pid_file_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pid");
        std::fs::write(&path, "listeners: []").unwrap();
        assert!(write_pid(&path, 1).is_err());
        PidFile::remove(&path);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "listeners: []");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn the_user_of_a_process_is_seen() {
        assert_eq!(user_of(std::process::id()), Some(unistd::getuid().as_raw()));
        assert_eq!(user_of(999_999_999), None);
    }

    #[test]
    fn a_stale_number_stands_for_nobody() {
        // In a container the number of the last run can be this run's own.
        for stale in [0, 1, 999_999_999, u32::MAX, std::process::id()] {
            assert_eq!(running(stale), None, "{stale}");
        }
    }
}
