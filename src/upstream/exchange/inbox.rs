//! What came of an answer and was not taken yet.

use std::io;
use std::pin::Pin;
use std::task::Context;
use std::task::Poll;
use std::task::ready;

use bytes::Buf;
use bytes::BytesMut;
use tokio::io::AsyncRead;
use tokio::io::ReadBuf;
use tokio_util::io::poll_read_buf;

use crate::message::spare;

/// What was read and not taken.
///
/// Most answers come as a whole with the first read. That goes to memory which was filled before, so that the kernel
/// may write there at once, and is looked at where it stands. What more is to come of goes to a buffer that gives parts
/// of it away.
pub(super) struct Inbox {
    /// Where the first read goes; empty from then on that the buffer is used.
    front: Vec<u8>,
    /// What of it has been taken, and how far it holds something.
    taken: usize,
    filled: usize,
    buffer: BytesMut,
}

impl Inbox {
    /// An empty one.
    pub(super) fn new() -> Self {
        Self { front: spare::room(), taken: 0, filled: 0, buffer: BytesMut::new() }
    }

    /// What is there.
    pub(super) fn bytes(&self) -> &[u8] {
        if self.front.is_empty() {
            &self.buffer
        } else {
            self.front.get(self.taken..self.filled).unwrap_or_default()
        }
    }

    /// Takes so many bytes, as far as there are some.
    pub(super) fn skip(&mut self, bytes: usize) {
        let bytes = bytes.min(self.bytes().len());
        if self.front.is_empty() {
            self.buffer.advance(bytes);
        } else {
            self.taken += bytes;
        }
    }

    /// What is there, to take parts of it.
    pub(super) fn buffer(&mut self) -> &mut BytesMut {
        if !self.front.is_empty() {
            let mut buffer = spare::buffer();
            buffer.extend_from_slice(self.bytes());
            self.buffer = buffer;
            spare::leave_room(std::mem::take(&mut self.front));
        }
        &mut self.buffer
    }

    /// Reads once behind what is there, where there is to be room for so many bytes.
    pub(super) fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        mut from: impl AsyncRead + Unpin,
        room: usize,
    ) -> Poll<io::Result<usize>> {
        if self.filled == 0 && !self.front.is_empty() {
            let mut front = ReadBuf::new(&mut self.front);
            ready!(Pin::new(&mut from).poll_read(cx, &mut front))?;
            self.filled = front.filled().len();
            return Poll::Ready(Ok(self.filled));
        }
        let buffer = self.buffer();
        if buffer.capacity() - buffer.len() < room / 2 {
            buffer.reserve(room);
        }
        poll_read_buf(Pin::new(&mut from), cx, buffer)
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        if self.front.is_empty() {
            spare::leave_buffer(std::mem::take(&mut self.buffer));
        } else {
            spare::leave_room(std::mem::take(&mut self.front));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use tokio::io::AsyncReadExt;

    use super::*;

    fn fill(inbox: &mut Inbox, from: impl AsyncRead + Unpin, room: usize) -> usize {
        let mut cx = Context::from_waker(Waker::noop());
        let Poll::Ready(read) = inbox.poll_fill(&mut cx, from, room) else { panic!("it is there") };
        read.expect("nothing breaks")
    }

    #[test]
    fn what_came_is_there_until_it_is_taken_wherever_it_stands() {
        let text: Vec<u8> = (0..20_000_u32).map(|n| (n % 251) as u8).collect();
        for first in [0, 1, 100, 4095, 4096, 5000] {
            for skipped in [0, 1, 100] {
                let mut from = AsyncReadExt::chain(&text[..first], &text[first..]);
                let mut inbox = Inbox::new();
                let read = fill(&mut inbox, &mut from, 4096);
                assert_eq!(inbox.bytes(), &text[..read]);
                inbox.skip(skipped);
                let skipped = skipped.min(read);
                assert_eq!(inbox.bytes(), &text[skipped..read]);
                let mut so_far = read;
                while so_far < text.len() {
                    so_far += fill(&mut inbox, &mut from, 8192);
                    assert_eq!(inbox.bytes(), &text[skipped..so_far]);
                }
                assert_eq!(inbox.buffer().split_to(7), &text[skipped..skipped + 7]);
                inbox.skip(usize::MAX);
                assert_eq!(inbox.bytes(), b"");
                assert_eq!(fill(&mut inbox, &mut from, 8192), 0, "it is at its end");
            }
        }
    }

    #[test]
    fn nothing_of_the_last_answer_is_left() {
        let mut last = Inbox::new();
        fill(&mut last, &b"what was said to another"[..], 4096);
        drop(last);
        let mut next = Inbox::new();
        assert_eq!(next.bytes(), b"");
        fill(&mut next, &b"short"[..], 4096);
        assert_eq!(next.bytes(), b"short");
        assert_eq!(&next.buffer()[..], b"short");
    }
}
