//! A connection that speaks HTTP/2: what it is watched for, and when its bytes leave.
//!
//! The library flushes after each frame with a body and whenever it is asked for the next request. When
//! sixteen answers are ready at once, that would be thirty-two TLS records, each with a system call of
//! its own. So the connection is corked while there may be more to say, and what was written leaves in
//! one piece when there is not.

use std::io;
use std::io::IoSlice;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::task::Context;
use std::task::Poll;

use bytes::Buf;
use tokio::io::AsyncWrite;
use tokio::time::Instant;

use crate::listen::conn::Conn;
use crate::listen::ends::Ends;
use crate::listen::frames::Frames;
use crate::listen::io::EdgeIo;
use crate::listen::watch::Watch;
use crate::refusal::Refusal;
use crate::terms::room::Room;

/// Frames are gathered up to here: two TLS records.
const GATHER: usize = 32 * 1024;
/// What is as large as this is not copied to be gathered, but leaves at once, behind what was.
const LARGE: usize = 8 * 1024;

/// Holds back what is written while more may follow at once.
#[derive(Debug, Default)]
pub(crate) struct Cork {
    closed: AtomicBool,
    holds: AtomicBool,
}

impl Cork {
    /// From here on a flush is put off.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
    }

    /// From here on a flush is one again. Says whether something waits for it.
    pub(crate) fn open(&self) -> bool {
        self.closed.store(false, Ordering::Relaxed);
        self.holds.load(Ordering::Relaxed)
    }
}

/// The watch over one HTTP/2 connection.
pub(super) struct Multiplexed {
    frames: Frames,
    ends: Ends,
    watch: Arc<dyn Watch>,
    cork: Arc<Cork>,
    room: Arc<Room>,
}

impl Multiplexed {
    /// At the start of a connection, before its preface.
    pub(super) fn new(watch: Arc<dyn Watch>, cork: Arc<Cork>, room: Arc<Room>) -> Self {
        Self { frames: Frames::new(), ends: Ends::new(), watch, cork, room }
    }

    /// Whether a flush is put off.
    pub(super) fn is_corked(&self) -> bool {
        self.cork.closed.load(Ordering::Relaxed)
    }

    /// Says whether something waits to leave.
    pub(super) fn holds(&self, something: bool) {
        self.cork.holds.store(something, Ordering::Relaxed);
    }

    /// These bytes come from the client. An error: it floods the connection.
    pub(super) fn came(&mut self, conn: &Conn, bytes: &[u8]) -> io::Result<()> {
        let ends = &mut self.ends;
        let is_fine = self.frames.came(bytes, Instant::now(), |stream| ends.given_up(stream));
        if let data @ 1.. = self.frames.take_data() {
            self.room.came(data);
        }
        if is_fine {
            return Ok(());
        }
        self.watch.ended(conn, Refusal::Flood, None);
        Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the client floods the connection with frames that ask for nothing",
        ))
    }

    /// These bytes went to the client.
    pub(super) fn went(&mut self, conn: &Conn, bytes: &[u8]) {
        self.frames.sent(bytes.len());
        let watch = &self.watch;
        self.ends.went(bytes, |end| watch.ended(conn, end.refusal, end.status));
        if let room @ 1.. = self.ends.take_room() {
            self.room.gave(room);
        }
    }
}

impl EdgeIo {
    /// Takes bytes of frames: gathers them, or sends them behind those that were.
    pub(super) fn poll_multiplex(
        &mut self,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let taken = if buf.len() < LARGE && self.gathered.len() + buf.len() <= GATHER {
            self.gathered.extend_from_slice(buf);
            buf.len()
        } else {
            match self.poll_send_behind(cx, buf) {
                Poll::Ready(Ok(taken)) => taken,
                Poll::Ready(Err(e)) => return Poll::Ready(Err(e)),
                Poll::Pending => return self.poll_blocked(cx),
            }
        };
        if let Some(http2) = &mut self.http2 {
            http2.holds(!self.gathered.is_empty());
            http2.went(&self.conn, buf.get(..taken).unwrap_or(buf));
        }
        Poll::Ready(Ok(taken))
    }

    /// Sends all that was gathered and some of `buf`.
    fn poll_send_behind(&mut self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let transport = self.transport.as_mut().ok_or(io::ErrorKind::NotConnected)?;
            let parts = [IoSlice::new(&self.gathered), IoSlice::new(buf)];
            let written = match Pin::new(transport).poll_write_vectored(cx, &parts) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(written)) => written,
                Poll::Ready(Err(e)) => return Poll::Ready(Err(e)),
                Poll::Pending => return Poll::Pending,
            };
            self.writing.moved(written);
            self.conn.count_out(written);
            let gathered = written.min(self.gathered.len());
            self.gathered.advance(gathered);
            if written > gathered {
                return Poll::Ready(Ok(written - gathered));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::any::Any;
    use std::net::Ipv4Addr;
    use std::sync::OnceLock;
    use std::sync::atomic::AtomicU64;
    use std::time::Duration;

    use tokio::io::AsyncReadExt;
    use tokio::io::AsyncWriteExt;
    use tokio::net::UnixStream;

    use super::*;
    use crate::listen::transport::Transport;
    use crate::listen::watch::Away;
    use crate::listen::watch::Handshake;
    use crate::terms::pace::MinRate;

    struct Nobody;

    impl Watch for Nobody {
        fn opened(&self, _: usize) -> Option<Box<dyn Any + Send>> {
            None
        }

        fn turned_away(&self, _: usize, _: Away) {}

        fn handshake(&self, _: usize, _: Handshake) {}

        fn refused(&self, _: &Conn, _: Refusal, _: Duration, _: &[u8]) -> String {
            String::new()
        }

        fn ended(&self, _: &Conn, _: Refusal, _: Option<u16>) {}

        fn last_word(&self) -> Duration {
            Duration::ZERO
        }

        fn panicked(&self, _: &Conn) {}
    }

    fn connection() -> (EdgeIo, UnixStream, Arc<Cork>) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let conn = Arc::new(Conn {
            listener: 0,
            listener_name: "test".into(),
            peer: (Ipv4Addr::LOCALHOST, 1).into(),
            local: (Ipv4Addr::LOCALHOST, 2).into(),
            tls: None,
            requests: AtomicU64::new(0),
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
            whole: AtomicBool::new(false),
            room: OnceLock::new(),
        });
        let rate = MinRate { bytes_per_second: 1, window: Duration::from_secs(60) };
        let mut io = EdgeIo::new(Transport::Plain(ours.into()), conn, rate, rate);
        let cork = Arc::new(Cork::default());
        io.become_http2(Arc::new(Nobody), Arc::clone(&cork));
        (io, theirs, cork)
    }

    fn arrived(theirs: &UnixStream) -> usize {
        theirs.try_read(&mut [0; 64 * 1024]).unwrap_or(0)
    }

    #[tokio::test]
    async fn what_is_written_while_corked_leaves_in_one_piece_when_it_is_not() {
        let (mut io, theirs, cork) = connection();
        cork.close();
        for _ in 0..16 {
            io.write_all(&[0; 100]).await.unwrap();
            io.flush().await.unwrap();
        }
        assert_eq!(arrived(&theirs), 0);
        assert!(cork.open(), "something waits");
        io.flush().await.unwrap();
        theirs.readable().await.unwrap();
        assert_eq!(arrived(&theirs), 1600);
        assert!(!cork.open(), "nothing does");
    }

    #[tokio::test]
    async fn what_is_large_leaves_at_once_behind_what_was_gathered() {
        let (mut io, mut theirs, cork) = connection();
        cork.close();
        io.write_all(&[1; 100]).await.unwrap();
        io.write_all(&[2; LARGE]).await.unwrap();
        let mut got = vec![0; 100 + LARGE];
        theirs.read_exact(&mut got).await.unwrap();
        assert_eq!((got[99], got[100]), (1, 2));
        assert!(!cork.open());
    }

    #[tokio::test]
    async fn no_more_is_gathered_than_two_records_have() {
        let (mut io, mut theirs, cork) = connection();
        cork.close();
        for _ in 0..=GATHER / 1024 {
            io.write_all(&[0; 1024]).await.unwrap();
        }
        let mut got = vec![0; GATHER];
        theirs.read_exact(&mut got).await.unwrap();
        assert!(io.gathered.len() <= 1024);
    }

    #[tokio::test]
    async fn an_orderly_close_takes_along_what_was_held_back() {
        let (mut io, mut theirs, cork) = connection();
        cork.close();
        io.write_all(b"the end").await.unwrap();
        io.shutdown().await.unwrap();
        let mut got = Vec::new();
        theirs.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, b"the end");
    }
}
