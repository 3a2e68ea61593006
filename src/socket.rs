//! A connected socket, towards a client or towards an origin: TCP or Unix.
//!
//! Tokio says when there is something to do; the kernel is then asked without the C library, whose calls are
//! points at which a thread may be cancelled: that costs two atomic instructions each, in a process that never
//! cancels a thread.

use std::cell::RefCell;
use std::io;
use std::io::IoSlice;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::os::fd::BorrowedFd;
use std::os::fd::RawFd;
use std::pin::Pin;
use std::task::Context;
use std::task::Poll;
use std::task::ready;

use rustix::io::Errno;
use rustix::net::RecvFlags;
use rustix::net::SendFlags;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::io::Interest;
use tokio::io::ReadBuf;
use tokio::net::TcpStream;
use tokio::net::UnixStream;

/// Reads into room that holds nothing yet go by way of a buffer of the thread's, up to so many bytes: to copy what
/// came, which is mostly short, costs less than to fill the room with zeros.
const SCRATCH: usize = 8 * 1024;

thread_local! {
    static READ: RefCell<[u8; SCRATCH]> = const { RefCell::new([0; SCRATCH]) };
}

/// A connected socket.
#[derive(Debug)]
pub enum Socket {
    /// Over TCP.
    Tcp(TcpStream),
    /// Over a Unix socket.
    Unix(UnixStream),
}

/// What has come of a socket that nothing was asked of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Idle {
    /// Nothing.
    Quiet,
    /// The other side closed it, or it broke.
    Closed,
    /// The other side said something.
    Spoke,
}

impl Socket {
    /// The socket, if it is one of TCP.
    #[must_use]
    pub fn tcp(&self) -> Option<&TcpStream> {
        match self {
            Self::Tcp(stream) => Some(stream),
            Self::Unix(_) => None,
        }
    }

    /// What has come of it, asked of the kernel: what the runtime knows may be older.
    #[must_use]
    pub fn look(&self) -> Idle {
        let mut byte = [0];
        match rustix::net::recv(self, &mut byte, RecvFlags::PEEK | RecvFlags::DONTWAIT) {
            Ok((_, 0)) => Idle::Closed,
            Ok(_) => Idle::Spoke,
            Err(Errno::AGAIN) => Idle::Quiet,
            Err(_) => Idle::Closed,
        }
    }

    fn poll_ready(&self, cx: &mut Context<'_>, interest: Interest) -> Poll<io::Result<()>> {
        match (self, interest.is_readable()) {
            (Self::Tcp(stream), true) => stream.poll_read_ready(cx),
            (Self::Tcp(stream), false) => stream.poll_write_ready(cx),
            (Self::Unix(stream), true) => stream.poll_read_ready(cx),
            (Self::Unix(stream), false) => stream.poll_write_ready(cx),
        }
    }

    fn try_io(&self, interest: Interest, io: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.try_io(interest, io),
            Self::Unix(stream) => stream.try_io(interest, io),
        }
    }

    /// Has the kernel move bytes, of which there may be `most`, as soon as it can: how many it moved. Fewer than that
    /// mean that no more can be moved at present, which the runtime learns without another call.
    fn poll_move(
        &self,
        cx: &mut Context<'_>,
        interest: Interest,
        most: usize,
        mut call: impl FnMut() -> rustix::io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.poll_ready(cx, interest))?;
            let mut moved = None;
            let tried = self.try_io(interest, || {
                let bytes = call()?;
                moved = Some(bytes);
                // What came is asked for after the runtime's note of it was read: nothing new is forgotten.
                if 0 < bytes && bytes < most {
                    return Err(io::ErrorKind::WouldBlock.into());
                }
                Ok(())
            });
            match (moved, tried) {
                (Some(bytes), _) => return Poll::Ready(Ok(bytes)),
                (None, Err(e)) if e.kind() != io::ErrorKind::WouldBlock => {
                    return Poll::Ready(Err(e));
                }
                (None, _) => {}
            }
        }
    }

    fn poll_receive(&self, cx: &mut Context<'_>, room: &mut [u8]) -> Poll<io::Result<usize>> {
        self.poll_move(cx, Interest::READABLE, room.len(), || {
            rustix::net::recv(self, &mut *room, RecvFlags::empty()).map(|(_, bytes)| bytes)
        })
    }
}

impl From<TcpStream> for Socket {
    fn from(stream: TcpStream) -> Self {
        Self::Tcp(stream)
    }
}

impl From<UnixStream> for Socket {
    fn from(stream: UnixStream) -> Self {
        Self::Unix(stream)
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        }
    }
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        match self {
            Self::Tcp(stream) => stream.as_raw_fd(),
            Self::Unix(stream) => stream.as_raw_fd(),
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if buf.initialized().len() == buf.capacity() {
            let bytes = ready!(this.poll_receive(cx, buf.initialize_unfilled()))?;
            buf.advance(bytes);
            return Poll::Ready(Ok(()));
        }
        if buf.remaining() <= SCRATCH {
            return READ.with_borrow_mut(|scratch| {
                let room = &mut scratch[..buf.remaining()];
                let bytes = ready!(this.poll_receive(cx, room))?;
                buf.put_slice(&room[..bytes]);
                Poll::Ready(Ok(()))
            });
        }
        match this {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_move(cx, Interest::WRITABLE, buf.len(), || {
            rustix::net::send(&*self, buf, SendFlags::NOSIGNAL)
        })
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // What was written is the kernel's.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::mem::MaybeUninit;
    use std::task::Waker;

    use tokio::io::AsyncReadExt;
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;

    /// Both ends of a connection over TCP, and of one over a Unix socket.
    async fn pairs() -> [(Socket, Socket); 2] {
        let door = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let near = TcpStream::connect(door.local_addr().expect("bound")).await.expect("it listens");
        let (far, _) = door.accept().await.expect("somebody connected");
        let (one, other) = UnixStream::pair().expect("two ends");
        [(near.into(), far.into()), (one.into(), other.into())]
    }

    /// Reads once, into room that holds nothing, or into room that held something.
    async fn read(socket: &mut Socket, room: usize, uninit: bool) -> Vec<u8> {
        let mut empty = vec![MaybeUninit::uninit(); room];
        let mut full = vec![0; room];
        let mut buf = if uninit { ReadBuf::uninit(&mut empty) } else { ReadBuf::new(&mut full) };
        poll_fn(|cx| Pin::new(&mut *socket).poll_read(cx, &mut buf)).await.expect("it is whole");
        buf.filled().to_vec()
    }

    #[tokio::test]
    async fn what_is_written_is_read_whatever_the_room() {
        for (mut near, mut far) in pairs().await {
            for uninit in [true, false] {
                // Short, as long as the thread's buffer, and longer than it.
                for room in [3, SCRATCH, SCRATCH + 1] {
                    let text: Vec<u8> = (0..room + 2).map(|at| at.to_le_bytes()[0]).collect();
                    near.write_all(&text).await.expect("there is room");
                    let mut came = Vec::new();
                    while came.len() < text.len() {
                        let part = read(&mut far, room, uninit).await;
                        assert!((1..=room).contains(&part.len()), "{room}");
                        came.extend_from_slice(&part);
                    }
                    assert_eq!(came, text, "{room} {uninit}");
                }
            }
            near.shutdown().await.expect("it is open");
            assert_eq!(read(&mut far, 3, true).await, b"");
            assert_eq!(read(&mut far, SCRATCH + 1, true).await, b"");
        }
    }

    #[tokio::test]
    async fn bytes_that_come_one_after_the_other_wake_the_reader_each_time() {
        for (mut near, mut far) in pairs().await {
            let reader = tokio::spawn(async move {
                let mut came = Vec::new();
                while came.len() < 100 {
                    came.extend_from_slice(&read(&mut far, 64, true).await);
                    near_is_heard(&mut far).await;
                }
                came
            });
            let mut word = [0];
            for byte in 0..100 {
                near.write_all(&[byte]).await.expect("there is room");
                near.read_exact(&mut word).await.expect("it was heard");
            }
            assert_eq!(reader.await.expect("no panic"), (0..100).collect::<Vec<_>>());
        }
    }

    /// Says that something was read.
    async fn near_is_heard(far: &mut Socket) {
        far.write_all(b"!").await.expect("there is room");
    }

    #[tokio::test]
    async fn a_writer_waits_until_there_is_room_and_goes_on() {
        for (mut near, mut far) in pairs().await {
            let text: Vec<u8> = (0..8_000_000_u32).map(|at| at.to_le_bytes()[1]).collect();
            let all = text.clone();
            let writer = tokio::spawn(async move {
                near.write_all(&all).await.expect("somebody reads");
                near
            });
            let mut came = vec![0; text.len()];
            far.read_exact(&mut came).await.expect("all of it");
            assert!(came == text);
            drop(writer.await.expect("no panic"));
            assert_eq!(far.read(&mut came).await.expect("an end"), 0);
        }
    }

    #[tokio::test]
    async fn whoever_writes_to_nobody_is_told() {
        for (mut near, far) in pairs().await {
            drop(far);
            let error = loop {
                if let Err(error) = near.write(b"x").await {
                    break error;
                }
            };
            let kinds = [io::ErrorKind::BrokenPipe, io::ErrorKind::ConnectionReset];
            assert!(kinds.contains(&error.kind()), "{error}");
        }
    }

    #[tokio::test]
    async fn what_nobody_asked_for_is_seen_and_stays() {
        for (mut near, mut far) in pairs().await {
            assert_eq!(far.look(), Idle::Quiet);
            near.write_all(b"ab").await.expect("there is room");
            poll_fn(|cx| far.poll_ready(cx, Interest::READABLE)).await.expect("it is open");
            assert_eq!((far.look(), far.look()), (Idle::Spoke, Idle::Spoke));
            assert_eq!(read(&mut far, 8, true).await, b"ab");
            assert_eq!(far.look(), Idle::Quiet);
            let mut cx = Context::from_waker(Waker::noop());
            assert!(far.poll_ready(&mut cx, Interest::READABLE).is_pending());
            drop(near);
            poll_fn(|cx| far.poll_ready(cx, Interest::READABLE)).await.expect("it is readable");
            assert_eq!(far.look(), Idle::Closed);
        }
    }
}
