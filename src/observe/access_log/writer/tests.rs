use super::*;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use tempfile::TempDir;

const LONG: Duration = Duration::from_secs(30);

fn settings(to: Option<Sink>, queue: usize) -> AccessLog {
    AccessLog { to, format: Format::Text, fields: vec![Field::RequestId], queue }
}

fn to_file(queue: usize) -> (TempDir, PathBuf, AccessLogger) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("access.log");
    let logger = AccessLogger::new(&settings(Some(Sink::File(file.clone())), queue));
    (folder, file, logger)
}

fn line(id: &str) -> Record<'_> {
    Record { request_id: id, ..Record::default() }
}

#[test]
fn lines_taken_before_the_start_are_written_after_it() {
    let (_folder, file, logger) = to_file(10);
    logger.log(&line("a"));
    logger.start().unwrap();
    logger.log(&line("b"));
    assert_eq!(logger.flush(LONG), Flushed::All);
    assert_eq!(fs::read_to_string(file).unwrap(), "request_id=a\nrequest_id=b\n");
}

#[test]
fn lines_beyond_the_queue_are_dropped_and_counted() {
    let (_folder, file, logger) = to_file(2);
    for id in ["a", "b", "c", "d"] {
        logger.log(&line(id));
    }
    assert_eq!(logger.dropped(), 2);
    logger.start().unwrap();
    assert_eq!(logger.flush(LONG), Flushed::All);
    assert_eq!(fs::read_to_string(file).unwrap(), "request_id=a\nrequest_id=b\n");
}

#[test]
fn waiting_lines_are_bounded_in_bytes_too() {
    let (_folder, _file, logger) = to_file(1000);
    let long = "x".repeat(300 << 10);
    for _ in 0..4 {
        logger.log(&line(&long));
    }
    assert_eq!(logger.dropped(), 1);
}

#[test]
fn after_reopen_lines_go_to_a_new_file() {
    let (folder, file, logger) = to_file(10);
    logger.start().unwrap();
    logger.log(&line("old"));
    assert_eq!(logger.flush(LONG), Flushed::All);
    let rotated = folder.path().join("access.log.1");
    fs::rename(&file, &rotated).unwrap();
    logger.log(&line("still_old"));
    logger.reopen();
    assert_eq!(logger.flush(LONG), Flushed::All);
    logger.log(&line("new"));
    assert_eq!(logger.flush(LONG), Flushed::All);
    assert_eq!(fs::read_to_string(rotated).unwrap(), "request_id=old\nrequest_id=still_old\n");
    assert_eq!(fs::read_to_string(&file).unwrap(), "request_id=new\n");
    assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o137, 0);
}

#[test]
fn when_reopening_fails_the_old_file_is_written_on() {
    let (folder, file, logger) = to_file(10);
    logger.start().unwrap();
    let moved = folder.path().join("moved");
    fs::rename(&file, &moved).unwrap();
    fs::create_dir(&file).unwrap();
    logger.reopen();
    logger.log(&line("a"));
    assert_eq!(logger.flush(LONG), Flushed::All);
    assert_eq!(fs::read_to_string(moved).unwrap(), "request_id=a\n");
}

#[test]
fn a_file_that_cannot_be_opened_is_an_error_at_the_start() {
    let sink = Sink::File(PathBuf::from("/nowhere/access.log"));
    AccessLogger::new(&settings(Some(sink), 1)).start().unwrap_err();
}

#[test]
fn a_full_disk_costs_lines_and_nothing_else() {
    let sink = Sink::File(PathBuf::from("/dev/full"));
    let logger = AccessLogger::new(&settings(Some(sink), 10));
    logger.start().unwrap();
    for round in 1..=3 {
        logger.log(&line("a"));
        logger.log(&line("b"));
        assert_eq!(logger.flush(LONG), Flushed::All);
        assert_eq!(logger.dropped(), 2 * round);
    }
}

#[test]
fn shutdown_writes_what_waits_and_drops_what_comes_later() {
    let (_folder, file, logger) = to_file(10);
    logger.start().unwrap();
    logger.log(&line("a"));
    assert_eq!(logger.shutdown(LONG), Flushed::All);
    logger.log(&line("b"));
    assert_eq!(logger.dropped(), 1);
    assert_eq!(fs::read_to_string(file).unwrap(), "request_id=a\n");
}

#[test]
fn a_flush_of_what_nobody_writes_ends_at_its_bound() {
    let (_folder, _file, logger) = to_file(10);
    assert_eq!(logger.flush(Duration::ZERO), Flushed::All);
    logger.log(&line("a"));
    assert_eq!(logger.flush(Duration::ZERO), Flushed::NotInTime);
}

#[test]
fn a_log_that_is_off_takes_nothing() {
    let logger = AccessLogger::new(&settings(None, 1));
    logger.start().unwrap();
    logger.log(&line("a"));
    logger.log(&line("b"));
    assert!(!logger.is_on());
    assert_eq!((logger.dropped(), logger.flush(LONG)), (0, Flushed::All));
}

#[test]
fn lines_of_many_threads_stay_whole_and_none_is_lost() {
    let (_folder, file, logger) = to_file(100_000);
    logger.start().unwrap();
    thread::scope(|scope| {
        for thread in 0..4 {
            let logger = &logger;
            scope.spawn(move || {
                for number in 0..1000 {
                    logger.log(&line(&format!("{thread}.{number}")));
                }
            });
        }
    });
    assert_eq!(logger.flush(LONG), Flushed::All);
    let text = fs::read_to_string(file).unwrap();
    let mut last = [-1; 4];
    for line in text.lines() {
        let (thread, number) = line.strip_prefix("request_id=").unwrap().split_once('.').unwrap();
        let (thread, number): (usize, i32) = (thread.parse().unwrap(), number.parse().unwrap());
        assert_eq!(number, last[thread] + 1, "lines of one thread keep their order");
        last[thread] = number;
    }
    assert_eq!((last, logger.dropped()), ([999; 4], 0));
}

/// Takes `room` bytes at most, `step` at a time.
struct Narrow {
    taken: Vec<u8>,
    room: usize,
    step: usize,
}

impl Write for Narrow {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let left = self.room - self.taken.len();
        if left == 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let more = bytes.len().min(self.step).min(left);
        self.taken.extend_from_slice(&bytes[..more]);
        Ok(more)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_write_in_parts_is_finished() {
    let mut narrow = Narrow { taken: Vec::new(), room: 100, step: 3 };
    write_all(&mut narrow, b"hello world\n").unwrap();
    assert_eq!(narrow.taken, b"hello world\n");
}

#[test]
fn a_failed_write_says_how_far_it_came() {
    let mut narrow = Narrow { taken: Vec::new(), room: 8, step: 3 };
    assert_eq!(write_all(&mut narrow, b"one\ntwo\nthree\n").unwrap_err().written, 8);
}

#[test]
fn a_line_cut_off_does_not_swallow_the_next_one() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("log");
    fs::write(&file, "cut o").unwrap();
    let mut output = Output::open(Sink::File(file.clone())).unwrap();
    output.torn = true;
    assert_eq!(output.write(b"next\n"), 0);
    assert_eq!(fs::read_to_string(file).unwrap(), "cut o\nnext\n");
}
