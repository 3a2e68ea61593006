//! The connection while a request is answered past Pingora: nothing is gathered, nothing copied.

use std::io;
use std::io::IoSlice;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::task::Context;
use std::task::Poll;
use std::task::ready;

use bytes::Buf;
use bytes::Bytes;
use bytes::BytesMut;
use http::Version;
use tokio::io::AsyncWrite;

use crate::listen::io::EdgeIo;
use crate::message::chunked::BodyFraming;
use crate::message::chunked::BodyScanner;
use crate::message::head::RequestHead;

impl EdgeIo {
    /// Lets a request without a body be answered past Pingora, and gives out what was received, its
    /// head first. Followed by [`Self::put_back`], whatever becomes of it.
    pub(crate) fn offer(&mut self, head: &RequestHead) -> Bytes {
        self.head = Bytes::new();
        self.body = BodyScanner::new(BodyFraming::None);
        self.may_tunnel = false;
        self.old = head.version == Version::HTTP_10;
        // A response that is cut here was begun.
        self.fresh = false;
        self.conn.whole.store(false, Ordering::Relaxed);
        std::mem::take(&mut self.received).freeze()
    }

    /// Takes back what was received, without the bytes of what was `answered`.
    pub(crate) fn put_back(&mut self, mut received: Bytes, answered: usize) {
        received.advance(answered.min(received.len()));
        if !received.is_empty() {
            self.received = BytesMut::from(received);
        }
    }

    /// Lends the connection for a request that was taken off: of its answer nothing is written yet.
    pub(crate) fn lend(&mut self) {
        self.fresh = true;
        self.reading.rest();
        self.writing.rest();
    }

    /// While an answer is waited for: ready when the client goes away. What it sends early is kept.
    pub(crate) fn poll_client_gone(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_left(cx)
    }

    /// Sends what the connection takes of these parts, at a decent pace.
    pub(crate) fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.may_write()?;
        ready!(self.poll_drain_gathered(cx))?;
        self.fresh = false;
        let transport = Pin::new(self.transport()?);
        // One part goes the kernel's shorter way.
        let written = match parts {
            [part, others @ ..] if others.iter().all(|other| other.is_empty()) => {
                transport.poll_write(cx, part)
            }
            parts => transport.poll_write_vectored(cx, parts),
        };
        match written {
            Poll::Ready(Ok(0)) => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            Poll::Ready(Ok(sent)) => {
                self.writing.moved(sent);
                self.conn.count_out(sent);
                Poll::Ready(Ok(sent))
            }
            Poll::Ready(Err(e)) => Poll::Ready(Err(e)),
            Poll::Pending => self.poll_blocked(cx),
        }
    }
}
