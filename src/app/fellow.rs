//! A line to the process beside this one: what it purges, and what it has stored.
//!
//! ```text
//! new process                        old process
//!   version, how much, how long ->
//!                                    <- version
//!                                    <- stored responses, the hottest first
//!                                    <- that was all
//!   a purge, when it was done   ->
//!                               <-   it is done here, too
//!                               <-   a purge, and so on
//!                               <-   farewell: this process ends, and told everything
//! ```
//!
//! Purges may come at any time, between the parts of a stored response as well. Whoever tells one waits until
//! the other has done it; if that takes too long the line is cut, and what was taken over is dropped: nobody
//! can know then whether it was purged.

use std::collections::HashMap;
use std::collections::HashSet;
use std::io;
use std::io::BufReader;
use std::io::BufWriter;
use std::io::Write;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use arc_swap::ArcSwap;
use log::warn;
use parking_lot::Condvar;
use parking_lot::Mutex;

use crate::app::frames;
use crate::runtime::Runtime;
use crate::runtime::fellow::Fellow;
use crate::runtime::fellow::Fellows;
use crate::runtime::fellow::Word;

/// What this process speaks. Whoever speaks something else is told nothing and believed nothing.
pub(super) const VERSION: u16 = 1;

/// The kinds of messages.
pub(super) const HELLO: u8 = b'h';
pub(super) const OBJECT: u8 = b'o';
pub(super) const BODY: u8 = b'b';
pub(super) const ALL: u8 = b'e';
const PURGE: u8 = b'p';
const DONE: u8 = b'd';
const FAREWELL: u8 = b'f';

/// How long the other process may take to do a purge.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long it may take to read what it is sent.
const SLOW: Duration = Duration::from_secs(3);
/// What is gathered before it is sent, and read at once, in bytes.
const BUFFER: usize = 256 << 10;

/// What the other process is to this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// It follows this one.
    Heir,
    /// This one follows it.
    Elder,
}

/// A line to another process.
pub(super) struct Line {
    role: Role,
    stream: UnixStream,
    out: Mutex<BufWriter<UnixStream>>,
    /// The purges that the other side has not done yet.
    waiting: Mutex<HashSet<u64>>,
    done: Condvar,
    last: AtomicU64,
    is_cut: AtomicBool,
}

/// How a line ended.
#[derive(Debug)]
pub(super) enum End {
    /// The other side told everything.
    Farewell,
    /// It did not: it died, or did not follow the rules.
    Cut(io::Error),
}

/// What hears what comes over a line beside purges.
pub(super) trait Hears {
    /// A message of this kind.
    fn heard(&mut self, kind: u8, text: &[u8]) -> io::Result<()>;
}

impl Line {
    pub(super) fn new(stream: UnixStream, role: Role) -> io::Result<Arc<Self>> {
        // It is silent for as long as nobody purges anything. A process that ends closes it.
        stream.set_read_timeout(None)?;
        stream.set_write_timeout(Some(SLOW))?;
        let out = BufWriter::with_capacity(BUFFER, stream.try_clone()?);
        Ok(Arc::new(Self {
            role,
            stream,
            out: Mutex::new(out),
            waiting: Mutex::default(),
            done: Condvar::new(),
            last: AtomicU64::new(0),
            is_cut: AtomicBool::new(false),
        }))
    }

    /// Sends a message, with others that follow it soon.
    pub(super) fn send(&self, kind: u8, parts: &[&[u8]]) -> io::Result<()> {
        frames::write(&mut *self.out.lock(), kind, parts)
    }

    /// Sends a message at once.
    pub(super) fn send_now(&self, kind: u8, parts: &[&[u8]]) -> io::Result<()> {
        let mut out = self.out.lock();
        frames::write(&mut *out, kind, parts)?;
        out.flush()
    }

    /// Hears what comes until the line ends, and does what the other side purges. Blocks.
    pub(super) fn listen(
        self: &Arc<Self>,
        runtime: &Arc<ArcSwap<Runtime>>,
        fellows: &Arc<Fellows>,
        hears: &mut impl Hears,
    ) -> End {
        let ended = self.until_end(runtime, fellows, hears);
        self.cut();
        match ended {
            Ok(()) => End::Farewell,
            Err(e) => End::Cut(e),
        }
    }

    fn until_end(
        self: &Arc<Self>,
        runtime: &Arc<ArcSwap<Runtime>>,
        fellows: &Arc<Fellows>,
        hears: &mut impl Hears,
    ) -> io::Result<()> {
        let mut from = BufReader::with_capacity(BUFFER, self.stream.try_clone()?);
        let mut text = Vec::new();
        let hung_up = || io::Error::other("the other process ended without a farewell");
        loop {
            match frames::read(&mut from, &mut text)?.ok_or_else(hung_up)? {
                FAREWELL => return Ok(()),
                DONE => {
                    self.waiting.lock().remove(&number(&text)?);
                    self.done.notify_all();
                }
                PURGE => {
                    let number = number(&text)?;
                    let word = text.get(size_of::<u64>()..).unwrap_or_default();
                    let word: Word = serde_json::from_slice(word)?;
                    self.follow(number, word, runtime, fellows)?;
                }
                kind => hears.heard(kind, &text)?,
            }
        }
    }

    /// Does what the other side purged, says so, and tells others.
    fn follow(
        self: &Arc<Self>,
        number: u64,
        word: Word,
        runtime: &Arc<ArcSwap<Runtime>>,
        fellows: &Arc<Fellows>,
    ) -> io::Result<()> {
        word.carry_out(&runtime.load());
        let this: Arc<dyn Fellow> = Arc::clone(self) as Arc<dyn Fellow>;
        if !fellows.has_others(&this) {
            return self.send_now(DONE, &[&number.to_be_bytes()]);
        }
        // What others say to it is heard meanwhile, so that no two wait for each other.
        let (line, fellows) = (Arc::clone(self), Arc::clone(fellows));
        std::thread::Builder::new().name("fellow".to_owned()).spawn(move || {
            fellows.tell(|| word, Some(&this));
            if line.send_now(DONE, &[&number.to_be_bytes()]).is_err() {
                line.cut();
            }
        })?;
        Ok(())
    }

    /// Ends it without a farewell.
    pub(super) fn cut(&self) {
        self.is_cut.store(true, Ordering::Release);
        let _ = self.stream.shutdown(Shutdown::Both);
        // Nobody waits for what cannot come.
        self.waiting.lock().clear();
        self.done.notify_all();
    }

    fn ask(&self, word: &Word) -> io::Result<()> {
        let text = serde_json::to_vec(word)?;
        let number = self.last.fetch_add(1, Ordering::Relaxed);
        self.waiting.lock().insert(number);
        self.send_now(PURGE, &[&number.to_be_bytes(), &text])?;
        let until = Instant::now() + PATIENCE;
        let mut waiting = self.waiting.lock();
        while waiting.contains(&number) && !self.is_cut.load(Ordering::Acquire) {
            if self.done.wait_until(&mut waiting, until).timed_out() {
                return Err(io::Error::other("the other process does not do it"));
            }
        }
        Ok(())
    }
}

impl Fellow for Line {
    fn tell(&self, word: &Word) {
        if self.is_cut.load(Ordering::Acquire) {
            return;
        }
        if let Err(e) = self.ask(word) {
            warn!(target: "edgeproxy::app", "a purge cannot be told to the process beside this one: {e}");
            self.cut();
        }
    }

    fn is_heir(&self) -> bool {
        self.role == Role::Heir && !self.is_cut.load(Ordering::Acquire)
    }

    fn farewell(&self) {
        if self.send_now(FAREWELL, &[]).is_ok() {
            let _ = self.stream.shutdown(Shutdown::Write);
        }
    }
}

fn number(text: &[u8]) -> io::Result<u64> {
    let number = text.first_chunk().copied().map(u64::from_be_bytes);
    number.ok_or_else(|| io::Error::other("a message without its number"))
}

/// The names of routes, once each.
pub(super) type Names = HashMap<String, Arc<str>>;
