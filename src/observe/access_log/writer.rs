//! From many requests to one file: a bounded batch in memory and one thread that writes it.
//!
//! A request formats its line in a buffer of its thread and appends it to the batch under a short
//! lock: no allocation, no system call but one wake for a batch. The writer waits a moment for more
//! lines to come, takes the whole batch in exchange for the one it wrote before, and writes it at
//! once. When lines come faster than they can be written they are dropped and counted; a full disk or
//! a reader that went away costs lines, never requests.

use std::cell::RefCell;
use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::io::Write;
use std::mem;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use parking_lot::Condvar;
use parking_lot::Mutex;

use super::Field;
use super::Record;
use super::write_line;
use crate::observe::AccessLog;
use crate::observe::Format;
use crate::observe::Sink;

/// How long a line may wait for others before it is written.
const GATHER: Duration = Duration::from_millis(50);

/// A batch is written at once when it has this many bytes.
const BATCH_BYTES: usize = 64 << 10;

/// Memory for waiting lines, for each line that may wait.
const BYTES_PER_LINE: usize = 1024;

/// Buffers that one burst made larger than this give their memory back.
const KEEP_BYTES: usize = 1 << 20;

/// How long a sink that cannot take more now (a non-blocking pipe) is tried before lines are lost.
const BUSY_PATIENCE: Duration = Duration::from_secs(1);

/// No flush waits longer, whatever is asked for.
const PATIENCE_MAX: Duration = Duration::from_secs(3600);

/// How often a sink that fails is complained about.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);

/// Writes the access log.
#[derive(Debug)]
pub struct AccessLogger {
    format: Format,
    fields: Box<[Field]>,
    sink: Option<Sink>,
    queue: usize,
    writer: Arc<Writer>,
}

/// The writer of one sink, for every logger that writes there. Its thread ends with the last of them.
#[derive(Debug)]
struct Writer(Arc<Shared>);

/// What requests and the writer share.
#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// The writer waits here for lines and orders.
    work: Condvar,
    /// Whoever flushes waits here for the writer.
    done: Condvar,
    dropped: Arc<AtomicU64>,
}

#[derive(Debug, Default)]
struct State {
    batch: Vec<u8>,
    /// How many lines may wait, and how many bytes.
    lines_max: u64,
    bytes_max: usize,
    /// Lines ever accepted.
    accepted: u64,
    /// Lines of these that were written or lost.
    settled: u64,
    /// Somebody waits: write without gathering.
    urgent: bool,
    /// Open the sink again after this batch.
    reopen: bool,
    stage: Stage,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Lines are kept, no thread writes them yet.
    #[default]
    Waiting,
    /// The thread runs.
    Running,
    /// No more lines are taken; the thread ends when the batch is written.
    Closing,
}

impl AccessLogger {
    /// A logger that takes lines, and writes none before [`Self::start`].
    #[must_use]
    pub fn new(settings: &AccessLog) -> Self {
        Self::counting(settings, Arc::default())
    }

    /// The same; lines that it drops are counted here.
    fn counting(settings: &AccessLog, dropped: Arc<AtomicU64>) -> Self {
        let shared =
            Shared { state: Mutex::default(), work: Condvar::new(), done: Condvar::new(), dropped };
        shared.state.lock().bound(settings.queue);
        Self::to(settings, Arc::new(Writer(Arc::new(shared))))
    }

    fn to(settings: &AccessLog, writer: Arc<Writer>) -> Self {
        Self {
            format: settings.format,
            fields: settings.fields.clone().into(),
            sink: settings.to.clone(),
            queue: settings.queue,
            writer,
        }
    }

    /// The logger of other settings, which goes on counting. Where lines go to the same sink, one thread
    /// writes those of both; otherwise the new sink is opened, and this one is closed when its last holder
    /// goes. [`Self::take_over`] puts it in the place of this one.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn followed_by(&self, settings: &AccessLog) -> io::Result<Self> {
        if self.sink == settings.to {
            return Ok(Self::to(settings, Arc::clone(&self.writer)));
        }
        let next = Self::counting(settings, self.dropped_counter());
        next.start()?;
        Ok(next)
    }

    /// From now on its own bounds count.
    pub fn take_over(&self) {
        self.shared().state.lock().bound(self.queue);
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.writer.0
    }

    /// Opens the sink and starts the thread `access-log`. A thread does not survive a fork: this is
    /// called when the process is a daemon already. Calling it again does nothing.
    ///
    /// # Errors
    /// The file cannot be opened or the thread not be made; lines go on waiting then.
    pub fn start(&self) -> io::Result<()> {
        let Some(sink) = &self.sink else { return Ok(()) };
        let mut state = self.shared().state.lock();
        if state.stage != Stage::Waiting {
            return Ok(());
        }
        let output = Output::open(sink.clone())?;
        let shared = Arc::clone(self.shared());
        // A thread of its own and not a task: writes to files block, and the runtime's blocking pool
        // may be busy with what this log is to report.
        thread::Builder::new().name("access-log".to_owned()).spawn(move || shared.run(output))?;
        state.stage = Stage::Running;
        Ok(())
    }

    /// Whether lines go anywhere; if not, a record need not even be gathered.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.sink.is_some()
    }

    /// Takes one line. Never blocks on the sink; drops and counts the line when too many wait.
    pub fn log(&self, record: &Record<'_>) {
        thread_local! {
            static LINE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
        }
        if self.sink.is_none() {
            return;
        }
        LINE.with_borrow_mut(|line| {
            line.clear();
            write_line(record, self.format, &self.fields, line);
            self.shared().push(line);
            line.shrink_to(BATCH_BYTES);
        });
    }

    /// Asks the writer to open its file again, after the lines that wait now: called on a signal,
    /// when the file was renamed. When that fails the old file goes on being written.
    pub fn reopen(&self) {
        let mut state = self.shared().state.lock();
        if state.stage != Stage::Closing {
            state.reopen = true;
            self.shared().work.notify_one();
        }
    }

    /// Waits until the lines taken so far are written or lost and a `reopen` is done, but not longer
    /// than `bound`. Blocks; says whether it came so far.
    #[must_use]
    pub fn flush(&self, bound: Duration) -> Flushed {
        let until = Instant::now() + bound.min(PATIENCE_MAX);
        let mut state = self.shared().state.lock();
        if state.stage == Stage::Waiting {
            return if state.batch.is_empty() { Flushed::All } else { Flushed::NotInTime };
        }
        let target = state.accepted;
        while state.settled < target || state.reopen {
            state.urgent = true;
            self.shared().work.notify_one();
            if self.shared().done.wait_until(&mut state, until).timed_out() {
                let all = state.settled >= target && !state.reopen;
                return if all { Flushed::All } else { Flushed::NotInTime };
            }
        }
        Flushed::All
    }

    /// Takes no more lines (they count as dropped) and waits as [`Self::flush`] does; then the thread
    /// ends.
    pub fn shutdown(&self, bound: Duration) -> Flushed {
        self.shared().close();
        self.flush(bound)
    }

    /// Lines dropped since the start, because too many waited or the sink failed.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.shared().dropped.load(Ordering::Relaxed)
    }

    /// The counter behind [`Self::dropped`], for metrics.
    #[must_use]
    pub fn dropped_counter(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.shared().dropped)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// How far a flush came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flushed {
    /// Nothing is left.
    All,
    /// The bound was reached before.
    NotInTime,
}

impl Shared {
    fn push(&self, line: &[u8]) {
        let mut state = self.state.lock();
        let waiting = state.accepted - state.settled;
        let room = state.bytes_max.saturating_sub(state.batch.len());
        if state.stage == Stage::Closing || waiting >= state.lines_max || line.len() > room {
            drop(state);
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let was = state.batch.len();
        state.batch.extend_from_slice(line);
        state.accepted += 1;
        let is = state.batch.len();
        drop(state);
        // One wake when a batch begins, one when it is full; the writer sleeps through the rest.
        if was == 0 || (was < BATCH_BYTES && is >= BATCH_BYTES) {
            self.work.notify_one();
        }
    }

    fn close(&self) {
        let mut state = self.state.lock();
        // A logger that never started has nobody to close for it.
        if state.stage == Stage::Waiting {
            return;
        }
        state.stage = Stage::Closing;
        drop(state);
        self.work.notify_one();
    }

    /// The life of the writer.
    fn run(&self, mut output: Output) {
        let mut spare = Vec::new();
        loop {
            let order = self.take(&mut spare);
            let lost = output.write(&spare);
            if lost > 0 {
                self.dropped.fetch_add(lost, Ordering::Relaxed);
            }
            if order.reopen {
                output.reopen();
            }
            spare.clear();
            spare.shrink_to(KEEP_BYTES);
            let mut state = self.state.lock();
            state.settled = order.upto;
            state.reopen = state.reopen && !order.reopen;
            let over = state.stage == Stage::Closing && state.batch.is_empty() && !state.reopen;
            drop(state);
            self.done.notify_all();
            if over {
                return;
            }
        }
    }

    /// Waits for lines or orders and takes the batch, leaving `spare` for the next one.
    fn take(&self, spare: &mut Vec<u8>) -> Order {
        let mut state = self.state.lock();
        while !state.has_work() {
            self.work.wait(&mut state);
        }
        let until = Instant::now() + GATHER;
        while !state.is_ripe() {
            if self.work.wait_until(&mut state, until).timed_out() {
                break;
            }
        }
        mem::swap(&mut state.batch, spare);
        state.urgent = false;
        Order { upto: state.accepted, reopen: state.reopen }
    }
}

/// What the writer has to do besides writing.
struct Order {
    /// The lines that are settled when the batch is written.
    upto: u64,
    reopen: bool,
}

impl State {
    fn bound(&mut self, lines: usize) {
        let lines = lines.max(1);
        self.lines_max = u64::try_from(lines).unwrap_or(u64::MAX);
        // A short queue still holds some of the longest lines.
        self.bytes_max = lines.saturating_mul(BYTES_PER_LINE).max(KEEP_BYTES);
    }

    fn has_work(&self) -> bool {
        !self.batch.is_empty() || self.reopen || self.stage == Stage::Closing
    }

    /// Is there a reason not to wait for more lines?
    fn is_ripe(&self) -> bool {
        self.batch.len() >= BATCH_BYTES
            || self.urgent
            || self.reopen
            || self.stage == Stage::Closing
    }
}

/// The open sink.
struct Output {
    sink: Sink,
    file: File,
    /// The last write ended within a line.
    torn: bool,
    complained: Option<Instant>,
}

impl Output {
    fn open(sink: Sink) -> io::Result<Self> {
        let file = open(&sink)?;
        Ok(Self { sink, file, torn: false, complained: None })
    }

    fn reopen(&mut self) {
        match open(&self.sink) {
            Ok(file) => {
                self.file = file;
                self.torn = false;
            }
            Err(error) => log::error!(
                target: "edgeproxy::access_log",
                error:%;
                "the access log cannot be opened again; the old file goes on being written"
            ),
        }
    }

    /// Writes whole lines; says how many were lost.
    fn write(&mut self, lines: &[u8]) -> u64 {
        if lines.is_empty() {
            return 0;
        }
        if self.torn {
            // What was cut off must not swallow the next line.
            match write_all(&mut self.file, b"\n") {
                Ok(()) => self.torn = false,
                Err(failure) => return self.lost(lines, &failure.error),
            }
        }
        match write_all(&mut self.file, lines) {
            Ok(()) => 0,
            Err(Failure { written, error }) => {
                self.torn = written > 0 && lines[written - 1] != b'\n';
                self.lost(&lines[written..], &error)
            }
        }
    }

    fn lost(&mut self, rest: &[u8], error: &io::Error) -> u64 {
        let now = Instant::now();
        if self.complained.is_none_or(|last| now.duration_since(last) >= COMPLAIN_EVERY) {
            self.complained = Some(now);
            log::error!(
                target: "edgeproxy::access_log",
                error:%;
                "the access log cannot be written; lines are dropped and counted"
            );
        }
        rest.iter().map(|&byte| u64::from(byte == b'\n')).sum()
    }
}

fn open(sink: &Sink) -> io::Result<File> {
    match sink {
        // Unbuffered: a batch is one write.
        Sink::Stdout => Ok(File::from(io::stdout().as_fd().try_clone_to_owned()?)),
        Sink::File(path) => open_file(path),
    }
}

fn open_file(path: &Path) -> io::Result<File> {
    // A pipe without a reader would be waited for without end.
    let now = OFlag::O_NONBLOCK.bits();
    let mut options = OpenOptions::new();
    let opened = options.append(true).create(true).mode(0o640).custom_flags(now).open(path);
    opened.map_err(|e| match e.raw_os_error() {
        Some(number) if number == Errno::ENXIO as i32 => {
            io::Error::other("it is a pipe that nobody reads from")
        }
        _ => e,
    })
}

/// A write that failed.
#[derive(Debug)]
struct Failure {
    /// The bytes that were written nevertheless.
    written: usize,
    error: io::Error,
}

fn write_all(to: &mut impl Write, bytes: &[u8]) -> Result<(), Failure> {
    let mut written = 0;
    let mut busy_since = None;
    while written < bytes.len() {
        match to.write(&bytes[written..]) {
            Ok(0) => return Err(Failure { written, error: io::ErrorKind::WriteZero.into() }),
            Ok(more) => {
                written += more;
                busy_since = None;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let since = *busy_since.get_or_insert_with(Instant::now);
                if since.elapsed() >= BUSY_PATIENCE {
                    return Err(Failure { written, error });
                }
                thread::sleep(Duration::from_millis(10));
            }
            Err(error) => return Err(Failure { written, error }),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
