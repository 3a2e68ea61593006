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
use std::path::Path;
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
    /// Whether who asks writes the pid file where the running process may not. One from before does not.
    #[serde(default)]
    pub(crate) notes: bool,
}

/// What the running process says to an operator.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum Said {
    /// The pid file is to name this process; a [`Noted`] is waited for.
    Note { note: u32 },
    /// How it went.
    Ended(Outcome),
}

/// What came of writing the pid file.
#[derive(Debug, Serialize, Deserialize)]
struct Noted {
    /// Why it is not written.
    error: Option<String>,
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
            Some(_) => self.grant(&wish, &mut stream),
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
        write(&mut stream, &Said::Ended(outcome))
    }

    fn grant(&self, wish: &Wish, operator: &mut UnixStream) -> Result<u32, Failure> {
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
        let mut pid_file = Note { path: self.pid_file.as_deref(), notes: wish.notes, operator };
        pid_file.is_possible()?;
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
        match self.accompany(&mut starting, within, &mut pid_file) {
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
        pid_file: &mut Note<'_>,
    ) -> Result<(), Stopped> {
        starting.serves(Some(within)).map_err(Stopped::By)?;
        if self.life.draining.has_begun() {
            return Err(Stopped::Because(Failure::other(
                "the running process was told to end meanwhile",
            )));
        }
        pid_file.names(starting.id()).map_err(Stopped::Because)?;
        let followed = starting.known().map_err(Stopped::By).and_then(|()| self.followed());
        match &followed {
            // The manager hears it of the process that it looks after until now.
            Ok(()) => notify::tell_and_wait(&News::Successor(starting.id())),
            Err(_) => {
                if let Err(Failure { message, .. }) = pid_file.names(std::process::id()) {
                    error!(target: "edgeproxy::app", "{message}");
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

/// The pid file, and who writes it where this process may not: a file of root's in a folder of root's is trusted
/// because nobody else can have written it, so a daemon that became another user leaves it to the operator.
struct Note<'a> {
    /// `None`: nobody looks for one.
    path: Option<&'a Path>,
    /// Whether the operator writes it.
    notes: bool,
    operator: &'a mut UnixStream,
}

impl Note<'_> {
    /// Whether it can be written, as far as that can be seen before anything is done.
    fn is_possible(&self) -> Result<(), Failure> {
        let Some(path) = self.path else { return Ok(()) };
        let folder = path.parent().map_or(Ok(()), make_folder);
        let possible = folder.and_then(|()| pid_file::read(path).map(drop));
        match possible {
            Err(e) if !self.is_for_operator(&e) => Err(unwritable(path, &e)),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn is_for_operator(&self, e: &io::Error) -> bool {
        self.notes && e.kind() == io::ErrorKind::PermissionDenied
    }

    /// Has it name this process.
    fn names(&mut self, pid: u32) -> Result<(), Failure> {
        let Some(path) = self.path else { return Ok(()) };
        let Err(e) = write_pid(path, pid) else { return Ok(()) };
        if !self.is_for_operator(&e) {
            return Err(unwritable(path, &e));
        }
        let asked = write(self.operator, &Said::Note { note: pid });
        let answer: Noted =
            asked.and_then(|()| read(self.operator)).map_err(|e| unwritable(path, &e))?;
        match answer.error {
            None => Ok(()),
            Some(why) => Err(Failure::other(format!("{why}; nothing was changed"))),
        }
    }
}

fn unwritable(path: &Path, e: &io::Error) -> Failure {
    Failure::other(format!("{}; nothing was changed", PidFile::problem(path, e)))
}

/// Why an upgrade came to nothing.
enum Stopped {
    By(NotStarted),
    Because(Failure),
}

/// Asks the process at the other end to start its successor, and waits for the outcome. `note` has the pid file name
/// a process, where that is for who asks.
pub(crate) fn ask(
    mut stream: UnixStream,
    wish: &Wish,
    patience: Duration,
    note: impl Fn(u32) -> Result<(), String>,
) -> io::Result<Outcome> {
    stream.set_read_timeout(Some(patience))?;
    write(&mut stream, wish)?;
    loop {
        match read(&mut stream)? {
            Said::Note { note: pid } => write(&mut stream, &Noted { error: note(pid).err() })?,
            Said::Ended(outcome) => return Ok(outcome),
        }
    }
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
        let program = PathBuf::from("/usr/bin/edgeproxy");
        let wish = Wish { program, within: 60_000, notes: true };
        let outcome = Outcome { code: 78, message: "error".to_owned(), old: 1, new: None };
        let (expected, answer) = (wish.clone(), outcome.clone());
        let running = std::thread::spawn(move || {
            assert_eq!(read::<Wish>(&mut theirs).unwrap(), expected);
            for pid in [7, 8] {
                write(&mut theirs, &Said::Note { note: pid }).unwrap();
                let noted: Noted = read(&mut theirs).unwrap();
                assert_eq!(noted.error.as_deref(), (pid == 8).then_some("no"));
            }
            // As one says it that knows of nothing else.
            write(&mut theirs, &answer).unwrap();
        });
        let note = |pid| if pid == 7 { Ok(()) } else { Err("no".to_owned()) };
        assert_eq!(ask(ours, &wish, Duration::from_secs(10), note).unwrap(), outcome);
        running.join().unwrap();
    }

    #[test]
    fn who_asks_and_is_older_writes_no_pid_file() {
        let wish: Wish = serde_json::from_str("{\"program\": \"/x\", \"within\": 1}").unwrap();
        assert!(!wish.notes);
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
