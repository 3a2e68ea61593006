//! What an origin says while it takes nothing.
//!
//! Pingora does not read from an origin while it writes to it. An origin that does the same, as one that echoes what it
//! gets, would then wait for us as we wait for it, though the client takes all that comes. So whoever writes reads on
//! while nothing is taken, as far as there is room.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::pin::pin;
use std::task::Context;
use std::task::Poll;

use bytes::Buf;
use bytes::BufMut;
use bytes::BytesMut;
use tokio::io::AsyncReadExt;
use tokio::io::ReadBuf;

use crate::upstream::line::Duplex;

/// How much is read ahead at most, in bytes. While there is anything, no more is read from a client of HTTP/1, and what
/// Pingora has of its body by then is a third of this: an origin that says no more than it is told never comes to it.
const MOST: usize = 1024 * 1024;
/// How much is read at once.
const ROOM: usize = 16 * 1024;

/// Bytes that came, and whether no more will.
#[derive(Default)]
pub(super) struct Ahead {
    bytes: BytesMut,
    /// How the origin's side ended.
    end: Option<io::Result<()>>,
}

impl fmt::Debug for Ahead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { bytes, end } = self;
        f.debug_struct("Ahead").field("bytes", &bytes.len()).field("end", end).finish()
    }
}

impl Ahead {
    /// Reads what there is. Unless there is no room for it, the task is woken when more comes.
    pub(super) fn fill(&mut self, cx: &mut Context<'_>, mut wire: Pin<&mut dyn Duplex>) {
        while self.end.is_none() && self.bytes.len() < MOST {
            let room = (MOST - self.bytes.len()).min(ROOM);
            let mut space = (&mut self.bytes).limit(room);
            let Poll::Ready(read) = pin!(wire.read_buf(&mut space)).poll(cx) else { return };
            match read {
                Ok(0) => self.end = Some(Ok(())),
                Ok(_) => {}
                Err(e) => self.end = Some(Err(e)),
            }
        }
    }

    /// Gives out the next of it, once; `None` when that was all.
    pub(super) fn give(&mut self, buf: &mut ReadBuf<'_>) -> Option<io::Result<()>> {
        if self.bytes.is_empty() {
            return self.end.take();
        }
        let length = self.bytes.len().min(buf.remaining());
        buf.put_slice(&self.bytes[..length]);
        self.bytes.advance(length);
        Some(Ok(()))
    }

    /// Whether all of it was given out.
    pub(super) fn is_spent(&self) -> bool {
        self.bytes.is_empty() && self.end.is_none()
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use tokio::io::AsyncWriteExt;
    use tokio::net::UnixStream;

    use super::*;

    /// The next that is given out; `None` when that was all.
    fn next(ahead: &mut Ahead, room: usize) -> Option<Vec<u8>> {
        let mut space = vec![0; room];
        let mut buf = ReadBuf::new(&mut space);
        ahead.give(&mut buf)?.expect("it is no error");
        Some(buf.filled().to_vec())
    }

    #[tokio::test]
    async fn what_came_is_given_out_in_order_and_then_the_end() {
        let (mut ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(b"an answer").await.unwrap();
        drop(theirs);
        ours.readable().await.unwrap();
        let mut ahead = Ahead::default();
        assert!(ahead.is_spent());
        ahead.fill(&mut Context::from_waker(Waker::noop()), Pin::new(&mut ours));
        assert_eq!(next(&mut ahead, 3), Some(b"an ".to_vec()));
        assert_eq!(next(&mut ahead, 100), Some(b"answer".to_vec()));
        assert!(!ahead.is_spent(), "there is the end");
        assert_eq!(next(&mut ahead, 100), Some(Vec::new()), "the end");
        assert!(ahead.is_spent());
        assert_eq!(next(&mut ahead, 100), None);
    }

    #[tokio::test]
    async fn no_more_is_read_than_there_is_room_for() {
        let (mut ours, mut theirs) = UnixStream::pair().unwrap();
        let sent = tokio::spawn(async move { theirs.write_all(&vec![7; 3 * MOST]).await });
        let mut ahead = Ahead::default();
        while ahead.bytes.len() < MOST {
            ours.readable().await.unwrap();
            ahead.fill(&mut Context::from_waker(Waker::noop()), Pin::new(&mut ours));
        }
        assert_eq!(ahead.bytes.len(), MOST);
        assert!(!sent.is_finished(), "the rest is still to come");
    }
}
