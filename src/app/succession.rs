//! A running process starts the one that follows it: as it was started itself, from another program.
//!
//! An operator asks for it at the place where sockets are offered. The new process is this one's child, so
//! that it has its environment, its rights and its place under a service manager. It takes over as with
//! `-u`, and only when it serves is this one told to go. Whatever keeps it from serving, this process goes
//! on, and the operator hears why.

use std::ffi::OsString;
use std::io;
use std::io::Read;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use log::error;
use log::info;
use log::warn;
use serde::Deserialize;
use serde::Serialize;

use crate::app::FAILURE;
use crate::app::Failure;
use crate::app::daemon;
use crate::app::daemon::PidFile;
use crate::app::daemon::write_pid;
use crate::app::identity::make_folder;
use crate::app::life::Life;
use crate::app::notify;
use crate::app::notify::News;
use crate::app::starting::NotStarted;
use crate::app::starting::Starting;
use crate::config::pid_file;

/// What a process is whose predecessor starts it; like [`daemon::MARK`] no flag.
pub(crate) const MARK: &str = "--successor";

/// The largest message of either side, in bytes.
const MESSAGE: u32 = 128 * 1024;
/// How long the new process may take from knowing that it is known to taking over.
const LAST_STEP: Duration = Duration::from_secs(10);
/// When it is said that this is waited for.
const SOON: Duration = Duration::from_secs(1);

/// How this process was started.
#[derive(Debug, Clone)]
pub(crate) struct Invocation {
    /// The name of the program, and what it was given.
    pub(crate) arguments: Vec<OsString>,
    /// The folder in which they were meant.
    pub(crate) folder: PathBuf,
}

/// What an operator wants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Wish {
    /// The program to start.
    pub(crate) program: PathBuf,
    /// How long it may take until it serves, in milliseconds.
    pub(crate) within: u64,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// The exit code for the operator; 0 is success.
    pub(crate) code: u8,
    /// Why it was not, as it is to be said.
    pub(crate) message: String,
    /// The process that goes.
    pub(crate) old: u32,
    /// The process that serves.
    pub(crate) new: Option<u32>,
}

/// What this process needs to start its successor.
pub(crate) struct Succession {
    pub(crate) invocation: Invocation,
    /// As a daemon: where its number stands.
    pub(crate) pid_file: Option<PathBuf>,
    pub(crate) life: Arc<Life>,
}

impl Succession {
    /// Hears an operator's wish, grants it if that is possible, and answers. Blocks.
    pub(crate) fn answer(&self, mut stream: UnixStream) -> io::Result<()> {
        let wish: Wish = read(&mut stream)?;
        // Whoever ends this process waits for the answer.
        let turn = self.life.succession.try_lock();
        let ended = match &turn {
            Some(_) => self.grant(&wish),
            None => Err(Failure::other("another upgrade is under way")),
        };
        let old = std::process::id();
        let outcome = match ended {
            Ok(new) => Outcome { code: 0, message: String::new(), old, new: Some(new) },
            Err(Failure { code, message }) => {
                error!(target: "edgeproxy::app",
                    "the upgrade to {} came to nothing, this process goes on: {}",
                    wish.program.display(), message.trim_end());
                Outcome { code, message, old, new: None }
            }
        };
        write(&mut stream, &outcome)
    }

    fn grant(&self, wish: &Wish) -> Result<u32, Failure> {
        let program = wish.program.display();
        if self.life.draining.has_begun() {
            return Err(Failure::other("the running process is ending"));
        }
        if std::process::id() == 1 {
            return Err(Failure::other(
                "the running process is the first of its container, which ends with it: replace the \
                 container instead",
            ));
        }
        let Some((called, arguments)) = self.invocation.arguments.split_first() else {
            return Err(Failure::other("the running process was called by no name"));
        };
        let unwritable = |path: &PathBuf, e: io::Error| {
            let why = PidFile::problem(path, &e);
            Failure::other(format!("{why}; nothing was changed"))
        };
        if let Some(path) = &self.pid_file {
            path.parent().map_or(Ok(()), make_folder).map_err(|e| unwritable(path, e))?;
            pid_file::read(path).map_err(|e| unwritable(path, e))?;
        }
        let roles: &[&str] = match &self.pid_file {
            Some(_) => &[daemon::MARK, MARK],
            None => &[MARK],
        };
        info!(target: "edgeproxy::app", "an upgrade: {program} is started");
        let folder = Some(self.invocation.folder.as_path());
        let mut starting = Starting::begin(&wish.program, called, roles, arguments, folder)
            .map_err(|e| Failure::other(format!("{program} cannot be started: {e}")))?;
        let new = starting.id();
        let within = Duration::from_millis(wish.within.max(1));
        match self.accompany(&mut starting, within, unwritable) {
            Ok(()) => Ok(new),
            Err(Stopped::By(NotStarted::Said(failure))) => {
                starting.give_up();
                Err(failure)
            }
            Err(Stopped::By(NotStarted::Ended(how, code))) => Err(Failure {
                code,
                message: format!("error: {program} ended before it served ({how})"),
            }),
            Err(Stopped::By(NotStarted::Late)) => {
                starting.give_up();
                Err(Failure::other(format!(
                    "{program} did not serve within {within:?} and was ended; give it more time with \
                     --timeout"
                )))
            }
            Err(Stopped::Because(failure)) => {
                starting.give_up();
                Err(failure)
            }
        }
    }

    /// From the first moment of the new process to the last of this one's reign.
    fn accompany(
        &self,
        starting: &mut Starting,
        within: Duration,
        unwritable: impl Fn(&PathBuf, io::Error) -> Failure,
    ) -> Result<(), Stopped> {
        starting.serves(Some(within)).map_err(Stopped::By)?;
        if self.life.draining.has_begun() {
            return Err(Stopped::Because(Failure::other(
                "the running process was told to end meanwhile",
            )));
        }
        if let Some(path) = &self.pid_file {
            write_pid(path, starting.id()).map_err(|e| Stopped::Because(unwritable(path, e)))?;
        }
        let followed = starting.known().map_err(Stopped::By).and_then(|()| self.followed());
        match &followed {
            // The manager hears it of the process that it looks after until now.
            Ok(()) => notify::tell_and_wait(&News::Successor(starting.id())),
            Err(_) => {
                if let Some(path) = &self.pid_file
                    && let Err(e) = write_pid(path, std::process::id())
                {
                    error!(target: "edgeproxy::app", "{}", PidFile::problem(path, &e));
                }
            }
        }
        followed
    }

    /// Waits until the new process has taken over.
    fn followed(&self) -> Result<(), Stopped> {
        if self.life.is_replaced_within(SOON) {
            return Ok(());
        }
        let rest = LAST_STEP.saturating_sub(SOON);
        warn!(target: "edgeproxy::app",
            "the new process says that it serves, and has not taken over yet: it is given {rest:?} more");
        if self.life.is_replaced_within(rest) {
            return Ok(());
        }
        let why = "the new process served and did not take over; it was ended";
        Err(Stopped::Because(Failure::other(why)))
    }
}

/// Why an upgrade came to nothing.
enum Stopped {
    By(NotStarted),
    Because(Failure),
}

/// Asks the process at the other end to start its successor, and waits for the outcome.
pub(crate) fn ask(mut stream: UnixStream, wish: &Wish, patience: Duration) -> io::Result<Outcome> {
    stream.set_read_timeout(Some(patience))?;
    write(&mut stream, wish)?;
    read(&mut stream)
}

fn write(stream: &mut UnixStream, what: &impl Serialize) -> io::Result<()> {
    let text = serde_json::to_vec(what)?;
    let length = u32::try_from(text.len()).map_err(io::Error::other)?;
    let mut bytes = length.to_be_bytes().to_vec();
    bytes.extend_from_slice(&text);
    stream.write_all(&bytes)
}

fn read<T: for<'a> Deserialize<'a>>(stream: &mut UnixStream) -> io::Result<T> {
    let mut length = [0u8; 4];
    stream.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length);
    if length > MESSAGE {
        return Err(io::Error::other("a message that is too long"));
    }
    let mut text = vec![0; usize::try_from(length).map_err(io::Error::other)?];
    stream.read_exact(&mut text)?;
    Ok(serde_json::from_slice(&text)?)
}

/// The exit code of an operator who heard nothing of use.
pub(crate) fn silent(e: &io::Error) -> Failure {
    let code = FAILURE;
    let message = match e.kind() {
        io::ErrorKind::UnexpectedEof => {
            "error: the running process does not know `upgrade`; start the new one with -d -u"
                .to_owned()
        }
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            "error: the running process does not answer; see its log".to_owned()
        }
        _ => format!("error: the running process cannot be asked: {e}"),
    };
    Failure { code, message }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wish_and_its_outcome_arrive_as_they_are() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let wish = Wish { program: PathBuf::from("/usr/bin/edgeproxy"), within: 60_000 };
        let outcome = Outcome { code: 78, message: "error".to_owned(), old: 1, new: None };
        let (expected, answer) = (wish.clone(), outcome.clone());
        let running = std::thread::spawn(move || {
            assert_eq!(read::<Wish>(&mut theirs).unwrap(), expected);
            write(&mut theirs, &answer).unwrap();
        });
        assert_eq!(ask(ours, &wish, Duration::from_secs(10)).unwrap(), outcome);
        running.join().unwrap();
    }

    #[test]
    fn a_message_without_measure_is_not_read() {
        let (mut ours, mut theirs) = UnixStream::pair().unwrap();
        ours.write_all(&u32::MAX.to_be_bytes()).unwrap();
        assert!(read::<Wish>(&mut theirs).unwrap_err().to_string().contains("too long"));
        ours.write_all(&[0, 0, 0, 2, b'{', b'{']).unwrap();
        assert!(read::<Wish>(&mut theirs).is_err());
    }
}
