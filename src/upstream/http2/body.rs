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
use crate::upstream::vigil::Awaited;

/// A body that is being sent.
pub struct Sending {
    /// `None`: there is none, or all of it was sent.
    stream: Mutex<Option<SendStream<Bytes>>>,
    passed: AtomicU64,
    /// A part of it waits for the origin.
    waits: AtomicBool,
    /// No more of it is sent.
    given_up: AtomicBool,
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
        Arc::new(Self {
            stream: Mutex::new(stream),
            passed: AtomicU64::new(0),
            waits: AtomicBool::new(false),
            given_up: AtomicBool::new(false),
        })
    }

    /// How many bytes were passed on.
    pub(super) fn passed(&self) -> u64 {
        self.passed.load(Ordering::Relaxed)
    }

    /// What its exchange waits for.
    pub(super) fn awaited(&self) -> Awaited {
        if self.given_up.load(Ordering::Relaxed) || self.stream.lock().is_none() {
            Awaited::Origin
        } else if self.waits.load(Ordering::Relaxed) {
            Awaited::Room
        } else {
            Awaited::Body
        }
    }

    /// Sends the next part, within `patience`.
    ///
    /// # Errors
    /// The origin takes no more, or not in time.
    pub async fn write(&self, data: &mut Bytes, patience: Option<Duration>) -> Result<()> {
        let sent = match patience {
            Some(patience) => timeout(patience, self.pass(data)).await.unwrap_or_else(|_| {
                let what = "writing the request's body";
                Err(Error::explain(ErrorType::WriteTimedout, what).into_up())
            }),
            None => self.pass(data).await,
        };
        self.waits.store(false, Ordering::Relaxed);
        if sent.is_err() {
            // What is to be waited for is the answer, if there is one.
            self.given_up.store(true, Ordering::Relaxed);
        }
        sent
    }

    async fn pass(&self, data: &mut Bytes) -> Result<()> {
        while data.has_remaining() {
            self.waits.store(true, Ordering::Relaxed);
            let room = self.room(data.remaining()).await?;
            let part = data.split_to(room.min(data.remaining()));
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
