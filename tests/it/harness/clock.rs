//! A clock for one process that stands still until a test turns it.

use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

/// Where it begins: after every date that a test could have written down. Certificates and caches of
/// the real time are no part of it.
const BEGIN: u64 = 2_000_000_000;

/// The time of day as a process sees it, by libfaketime. Its timers are real.
pub(crate) struct Clock {
    file: PathBuf,
    now: AtomicU64,
}

impl Clock {
    /// A clock that keeps its time in this folder.
    pub(crate) fn new(folder: &Path) -> Self {
        let clock = Self { file: folder.join("clock"), now: AtomicU64::new(BEGIN) };
        clock.write();
        clock
    }

    /// Gives this clock to a process that is not started yet.
    pub(crate) fn give_to(&self, command: &mut Command) {
        command.env("LD_PRELOAD", library()).env("TZ", "UTC");
        // That of httpdate.
        command.env("FAKETIME_FMT", "%a, %d %b %Y %H:%M:%S GMT");
        command.env("FAKETIME_TIMESTAMP_FILE", &self.file).env("FAKETIME_NO_CACHE", "1");
        command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1").env("DONT_FAKE_MONOTONIC", "1");
    }

    /// Seconds since 1970.
    pub(crate) fn now(&self) -> u64 {
        self.now.load(Ordering::SeqCst)
    }

    /// Lets this many seconds pass.
    pub(crate) fn turn(&self, seconds: u64) {
        self.now.fetch_add(seconds, Ordering::SeqCst);
        self.write();
    }

    /// In one step, since the process reads it at any moment.
    fn write(&self) {
        let text = httpdate::fmt_http_date(at(self.now()));
        let new = self.file.with_extension("new");
        std::fs::write(&new, text).expect("the folder can be written to");
        std::fs::rename(&new, &self.file).expect("the folder can be written to");
    }
}

/// The instant this many seconds after 1970.
pub(crate) fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

fn library() -> PathBuf {
    let folders = std::fs::read_dir("/usr/lib").expect("/usr/lib can be read").flatten();
    folders
        .map(|folder| folder.path().join("faketime/libfaketimeMT.so.1"))
        .find(|path| path.exists())
        .expect("libfaketime is missing: `scripts/setup test` installs it")
}
