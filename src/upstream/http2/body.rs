//! The body of a request on its way into a stream.
//!
//! Pingora writes it while it reads the answer, so both sides share this. Written is as much as the origin takes; an
//! origin that has answered wholly, or has reset the stream, takes nothing.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::task::ready;
use std::time::Duration;

use bytes::Buf;
use bytes::Bytes;
use h2::Reason;
use h2::SendStream;
use parking_lot::Mutex;
use pingora::Error;
use pingora::ErrorType;
use pingora::Result;
use tokio::time::timeout;

use super::fault;

/// A body that is being sent.
pub struct Sending {
    /// `None`: there is none, or all of it was sent.
    stream: Mutex<Option<SendStream<Bytes>>>,
    passed: AtomicU64,
    /// A part of it waits for the origin.
    waits: AtomicBool,
}

impl Sending {
    /// No body.
    pub(super) fn none() -> Arc<Self> {
        Self::with(None)
    }

    /// The one of this stream.
    pub(super) fn of(stream: SendStream<Bytes>) -> Arc<Self> {
        Self::with(Some(stream))
    }

    fn with(stream: Option<SendStream<Bytes>>) -> Arc<Self> {
        let (passed, waits) = (AtomicU64::new(0), AtomicBool::new(false));
        Arc::new(Self { stream: Mutex::new(stream), passed, waits })
    }

    /// How many bytes were passed on.
    pub(super) fn passed(&self) -> u64 {
        self.passed.load(Ordering::Relaxed)
    }

    /// Whether more of it is to come, and all that came was passed on.
    pub(super) fn awaits_client(&self) -> bool {
        !self.waits.load(Ordering::Relaxed) && self.stream.lock().is_some()
    }

    /// Sends the next part, each piece of it within `patience`.
    ///
    /// # Errors
    /// The origin takes no more, or not in time.
    pub async fn write(&self, data: &mut Bytes, patience: Option<Duration>) -> Result<()> {
        while data.has_remaining() {
            self.waits.store(true, Ordering::Relaxed);
            let room = self.room(data.remaining());
            let room = match patience {
                Some(patience) => timeout(patience, room).await.unwrap_or_else(|_| {
                    let what = "writing the request's body";
                    Err(Error::explain(ErrorType::WriteTimedout, what).into_up())
                }),
                None => room.await,
            };
            self.waits.store(false, Ordering::Relaxed);
            let part = data.split_to(room?.min(data.remaining()));
            self.passed.fetch_add(part.len() as u64, Ordering::Relaxed);
            self.put(part, false)?;
        }
        Ok(())
    }

    /// All of it was sent.
    ///
    /// # Errors
    /// The origin takes no more, or its end was sent before.
    pub fn finish(&self) -> Result<()> {
        let put = self.put(Bytes::new(), true);
        *self.stream.lock() = None;
        put
    }

    /// The stream is of no use any more: what is left of it is not sent.
    pub(super) fn cancel(&self) {
        if let Some(stream) = self.stream.lock().as_mut() {
            stream.send_reset(Reason::CANCEL);
        }
    }

    /// Waits until the origin takes more, at most `wanted` bytes.
    async fn room(&self, wanted: usize) -> Result<usize> {
        poll_fn(|cx| {
            let mut stream = self.stream.lock();
            let Some(stream) = stream.as_mut() else {
                return Poll::Ready(Err(over()));
            };
            stream.reserve_capacity(wanted);
            loop {
                match ready!(stream.poll_capacity(cx)) {
                    Some(Ok(0)) => {}
                    Some(Ok(room)) => return Poll::Ready(Ok(room)),
                    Some(Err(e)) => return Poll::Ready(Err(fault::not_taken(e))),
                    None => return Poll::Ready(Err(over())),
                }
            }
        })
        .await
    }

    fn put(&self, part: Bytes, end: bool) -> Result<()> {
        match self.stream.lock().as_mut() {
            Some(stream) => stream.send_data(part, end).map_err(fault::not_taken),
            // What has trailers ends again and again for Pingora, until it is told.
            None => Err(over()),
        }
    }
}

fn over() -> Box<Error> {
    Error::explain(ErrorType::WriteError, "the origin takes no more").into_up()
}
