//! A process that this one starts and waits for: it answers over a socket, its standard input, when it
//! serves or why it cannot.
//!
//! ```text
//! this process                       the new one
//!   start it, wait                     bind, read certificates, serve
//!                          <- R        "requests are answered"
//!   note that (the pid file)
//!                          K ->        tell the process that is replaced to go
//!                          <- F        (instead of R: exit code and message)
//! ```

use std::ffi::OsStr;
use std::ffi::OsString;
use std::io;
use std::io::Read;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

use nix::sys::signal::Signal;
use nix::sys::signal::kill;
use nix::unistd::Pid;

use crate::app::FAILURE;
use crate::app::Failure;

/// What the new process says when it serves, when it cannot, and what it waits for then.
pub(crate) const SERVES: u8 = b'R';
pub(crate) const FAILED: u8 = b'F';
pub(crate) const KNOWN: u8 = b'K';
/// The longest message of one that fails.
const MESSAGE: u64 = 64 * 1024;

/// How long it may take to end after it has hung up, and how often that is looked at.
const LAST_MOMENT: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_millis(5);

/// Every process, and whose child it is, as far as that can be seen.
fn parents() -> Vec<(i32, i32)> {
    let Ok(all) = std::fs::read_dir("/proc") else { return Vec::new() };
    let numbered = all.flatten().filter_map(|one| one.file_name().to_str()?.parse().ok());
    let parent = |id: i32| {
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        // The name stands in parentheses and may hold anything; then come the state and the parent.
        let parent = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?;
        Some((id, parent))
    };
    numbered.filter_map(parent).collect()
}

/// The children of a process, theirs, and so on.
fn descendants(of: u32, parents: &[(i32, i32)]) -> Vec<Pid> {
    let mut found: Vec<i32> = i32::try_from(of).into_iter().collect();
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        let children = parents.iter().filter(|(id, of)| *of == parent && !found.contains(id));
        let children: Vec<i32> = children.map(|(id, _)| *id).collect();
        found.extend(children);
        next += 1;
    }
    found.into_iter().skip(1).map(Pid::from_raw).collect()
}

/// Whose watchdog the service manager means; the new process has another number.
const WATCHDOG_PID: &str = "WATCHDOG_PID";

/// A process on its way.
pub(crate) struct Starting {
    child: Child,
    socket: UnixStream,
}

/// Why it does not serve.
pub(crate) enum NotStarted {
    /// It said so itself.
    Said(Failure),
    /// It ended without a word: how, and with which exit code.
    Ended(String, u8),
    /// It was not heard of in time.
    Late,
}

impl Starting {
    /// Starts this program under the name `called`, with what it is (`roles`) before its arguments.
    ///
    /// # Errors
    /// The program cannot be run.
    pub(crate) fn begin(
        program: &Path,
        called: &OsStr,
        roles: &[&str],
        arguments: &[OsString],
        folder: Option<&Path>,
    ) -> io::Result<Self> {
        let (socket, theirs) = UnixStream::pair()?;
        let mut command = Command::new(program);
        command.arg0(called).args(roles).args(arguments).env_remove(WATCHDOG_PID);
        if let Some(folder) = folder {
            command.current_dir(folder);
        }
        command.stdin(Stdio::from(OwnedFd::from(theirs)));
        // The command holds the other end of the socket, and goes with this function: without it, the end
        // of the new process is seen here.
        Ok(Self { child: command.spawn()?, socket })
    }

    /// Its number.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it serves, for so long; `None`: as long as it lives.
    pub(crate) fn serves(&mut self, within: Option<Duration>) -> Result<(), NotStarted> {
        let ended = |one: &mut Self| one.ended();
        if self.socket.set_read_timeout(within).is_err() {
            return Err(ended(self));
        }
        let mut answer = [0u8; 1];
        match self.socket.read(&mut answer) {
            Ok(1) if answer[0] == SERVES => Ok(()),
            Ok(1) if answer[0] == FAILED => Err(match self.told() {
                Some(failure) => NotStarted::Said(failure),
                None => ended(self),
            }),
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                Err(NotStarted::Late)
            }
            _ => Err(ended(self)),
        }
    }

    /// Tells it that it is known to serve.
    pub(crate) fn known(&mut self) -> Result<(), NotStarted> {
        self.socket.write_all(&[KNOWN]).map_err(|_| self.ended())
    }

    /// Ends it, if it has not ended by itself, and all that it has started: a script that starts the program
    /// would leave that behind.
    pub(crate) fn give_up(mut self) {
        let below = descendants(self.child.id(), &parents());
        let _ = self.child.kill();
        let _ = self.child.wait();
        for one in below {
            let _ = kill(one, Signal::SIGKILL);
        }
    }

    fn told(&mut self) -> Option<Failure> {
        let mut code = [0u8; 1];
        self.socket.read_exact(&mut code).ok()?;
        let mut message = Vec::new();
        (&self.socket).take(MESSAGE).read_to_end(&mut message).ok()?;
        Some(Failure { code: code[0], message: String::from_utf8_lossy(&message).into_owned() })
    }

    /// It ended without a word, or is about to.
    fn ended(&mut self) -> NotStarted {
        // Whoever closed the socket is about to end, or is no program of ours.
        let told = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) && told.elapsed() < LAST_MOMENT {
            std::thread::sleep(LOOK);
        }
        let _ = self.child.kill();
        let status = self.child.wait();
        let code = status.as_ref().ok().and_then(|s| u8::try_from(s.code()?).ok());
        let how = status.map_or_else(
            |e| e.to_string(),
            |s| s.signal().map_or_else(|| s.to_string(), |n| format!("signal {n}")),
        );
        NotStarted::Ended(how, code.filter(|code| *code != 0).unwrap_or(FAILURE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_children_of_children_are_found_and_nobody_else() {
        let parents = [(1, 0), (5, 1), (7, 5), (8, 7), (9, 1), (6, 5), (10, 8)];
        let ids = |of| descendants(of, &parents).iter().map(|id| id.as_raw()).collect::<Vec<_>>();
        assert_eq!(ids(5), [7, 6, 8, 10]);
        assert!(ids(10).is_empty());
        assert!(ids(4_000_000).is_empty());
        // Numbers that lead in a circle, as when one was given anew meanwhile.
        assert_eq!(descendants(2, &[(3, 2), (2, 3)]), [Pid::from_raw(3)]);
    }

    #[test]
    fn who_is_whose_child_is_seen() {
        let parents = parents();
        let own = i32::try_from(std::process::id()).unwrap();
        let of = i32::try_from(std::os::unix::process::parent_id()).unwrap();
        assert!(parents.contains(&(own, of)));
    }
}
