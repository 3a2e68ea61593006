//! Diagnostics on their way to standard error, which may be a pipe that nobody empties: a service manager
//! that hangs must not stop the requests whose trouble it was to be told of.
//!
//! Until the process serves, they are written at once: whoever starts it waits for them. From then on they wait in
//! a bounded queue for a thread of their own; what finds no room is counted, and told when there is room again.

use std::io;
use std::io::Write;
use std::sync::Arc;
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use parking_lot::Condvar;
use parking_lot::Mutex;

/// Bytes that may wait.
const MOST: usize = 1 << 20;

static QUEUE: OnceLock<Arc<Queue<Error>>> = OnceLock::new();

/// Standard error, whatever that is at the moment.
struct Error;

impl Write for Error {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        io::stderr().lock().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().lock().flush()
    }
}

/// Where diagnostics go: to the queue, once there is one.
pub(super) struct Way;

impl Write for Way {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match QUEUE.get() {
            Some(queue) => queue.add(bytes),
            // Where it cannot be written nobody is left who could be told.
            None => drop(Error.write_all(bytes)),
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// From now on nobody who has something to tell waits for who reads it.
///
/// # Errors
/// The system starts no thread.
pub(in crate::app) fn begin() -> io::Result<()> {
    let queue = Arc::new(Queue::new(Error));
    let writer = Arc::clone(&queue);
    thread::Builder::new().name("diagnostics".to_owned()).spawn(move || writer.run())?;
    // A second one is never asked for: a process begins to serve once.
    let _ = QUEUE.set(queue);
    Ok(())
}

/// Waits until all that was told is written, but no longer than `patience`. Whether it was.
pub(in crate::app) fn flush(patience: Duration) -> bool {
    QUEUE.get().is_none_or(|queue| queue.flush(patience))
}

struct Queue<W> {
    state: Mutex<State>,
    /// The writer waits here for something to do.
    work: Condvar,
    /// Whoever flushes waits here.
    done: Condvar,
    out: Mutex<W>,
}

#[derive(Default)]
struct State {
    waiting: Vec<u8>,
    /// Records that found no room.
    lost: u64,
    is_writing: bool,
}

impl<W: Write> Queue<W> {
    fn new(out: W) -> Self {
        Self {
            state: Mutex::default(),
            work: Condvar::new(),
            done: Condvar::new(),
            out: Mutex::new(out),
        }
    }

    fn add(&self, record: &[u8]) {
        let mut state = self.state.lock();
        if state.waiting.len().saturating_add(record.len()) > MOST {
            state.lost += 1;
        } else {
            state.waiting.extend_from_slice(record);
        }
        drop(state);
        self.work.notify_one();
    }

    fn run(&self) {
        loop {
            self.turn();
        }
    }

    /// Waits for what there is to write, and writes it.
    fn turn(&self) {
        let mut state = self.state.lock();
        while state.waiting.is_empty() && state.lost == 0 {
            self.work.wait(&mut state);
        }
        let mut text = std::mem::take(&mut state.waiting);
        let lost = std::mem::take(&mut state.lost);
        state.is_writing = true;
        drop(state);
        if lost > 0 {
            let said =
                format!("{lost} more lines were lost here: nobody read the log fast enough\n");
            text.extend_from_slice(said.as_bytes());
        }
        let _ = self.out.lock().write_all(&text);
        self.state.lock().is_writing = false;
        self.done.notify_all();
    }

    fn flush(&self, patience: Duration) -> bool {
        let mut state = self.state.lock();
        let is_busy = |state: &mut State| state.is_writing || !state.waiting.is_empty();
        !self.done.wait_while_for(&mut state, is_busy, patience).timed_out()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What was written, in pieces as it came.
    type Pieces = Arc<Mutex<Vec<Vec<u8>>>>;

    struct Out(Pieces);

    impl Write for Out {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().push(bytes.to_vec());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_finds_no_room_is_counted_and_told_behind_what_did() {
        let written = Pieces::default();
        let queue = Queue::new(Out(Arc::clone(&written)));
        let line = [b'a'; 1 << 16];
        (0..20).for_each(|_| queue.add(&line));
        queue.turn();
        queue.add(b"after\n");
        queue.turn();
        let pieces = written.lock().clone();
        assert_eq!(pieces.len(), 2);
        assert_eq!(&pieces[0][..MOST], vec![b'a'; MOST]);
        let told = String::from_utf8_lossy(&pieces[0][MOST..]).into_owned();
        assert_eq!(told, "4 more lines were lost here: nobody read the log fast enough\n");
        assert_eq!(pieces[1], b"after\n");
    }

    #[test]
    fn a_flush_ends_with_the_writing_or_with_its_patience() {
        let written = Pieces::default();
        let queue = Arc::new(Queue::new(Out(Arc::clone(&written))));
        assert!(queue.flush(Duration::MAX));
        queue.add(b"one\n");
        assert!(!queue.flush(Duration::ZERO));
        assert!(written.lock().is_empty(), "nobody writes");
        let writer = Arc::clone(&queue);
        let writing = thread::spawn(move || writer.turn());
        assert!(queue.flush(Duration::MAX));
        assert_eq!(written.lock().concat(), b"one\n");
        writing.join().expect("it does not panic");
    }
}
