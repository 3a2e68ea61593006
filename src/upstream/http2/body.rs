//! The body of a request on its way into a stream.
//!
//! Pingora writes it while it reads the answer, so both sides share this. Written is as much as the origin takes; an
//! origin that has answered wholly, or has reset the stream, takes nothing. What that means is told by whoever reads: the
//! answer itself, or why there will be none. Pingora hears little of an answer while it writes, and of many interim
//! responses not even the end: where one has begun, what the origin does not take yet is kept here, and no more is read
//! from the client until it was sent; where there will be none, no more is read for this exchange.

use std::collections::VecDeque;
use std::future::Future;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::Weak;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::task::Context;
use std::task::Poll;
use std::task::Waker;
use std::task::ready;
use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use h2::SendStream;
use parking_lot::Mutex;
use pingora::Error;
use pingora::ErrorType;
use pingora::Result;
use tokio::time::Sleep;
use tokio::time::sleep;
use tokio::time::timeout;

use super::fault;
use crate::terms;
use crate::terms::Gate;
use crate::upstream::vigil::Awaited;

/// How much of a body is kept at most, in bytes: of what was read of it before it was held back. What more there is
/// waits.
const MOST: usize = 256 * 1024;

/// A body that is being sent.
pub struct Sending {
    body: Mutex<Body>,
    passed: AtomicU64,
    /// A part of it waits for the origin.
    waits: AtomicBool,
    /// No more of it is sent.
    given_up: AtomicBool,
    /// Since the origin did not take what was kept within its time.
    overdue: AtomicBool,
}

/// What is known of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Prospect {
    /// It may come.
    Open,
    /// Its head came.
    Answered,
    /// There will be none.
    Failed,
}

/// What there is of it.
struct Body {
    /// `None`: there is none, or all of it was sent.
    stream: Option<SendStream<Bytes>>,
    /// What was written, and not sent.
    kept: VecDeque<Bytes>,
    /// When all of that has to be taken.
    limit: Option<Pin<Box<Sleep>>>,
    /// All of it was written.
    whole: bool,
    prospect: Prospect,
    /// Who waits to write.
    writer: Option<Waker>,
    /// The writer went on once although no more is sent.
    excused: bool,
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
        let whole = stream.is_none();
        Arc::new(Self {
            body: Mutex::new(Body {
                stream,
                kept: VecDeque::new(),
                limit: None,
                whole,
                prospect: Prospect::Open,
                writer: None,
                excused: false,
            }),
            passed: AtomicU64::new(0),
            waits: AtomicBool::new(false),
            given_up: AtomicBool::new(false),
            overdue: AtomicBool::new(false),
        })
    }

    /// How many bytes were passed on.
    pub(super) fn passed(&self) -> u64 {
        self.passed.load(Ordering::Relaxed)
    }

    /// What its exchange waits for.
    pub(super) fn awaited(&self) -> Awaited {
        if self.overdue.load(Ordering::Relaxed) {
            // It has no further time for an answer.
            Awaited::Room
        } else if self.given_up.load(Ordering::Relaxed) || self.body.lock().stream.is_none() {
            Awaited::Origin
        } else if self.waits.load(Ordering::Relaxed) {
            Awaited::Room
        } else {
            Awaited::Body
        }
    }

    /// Writes the next part, within `patience`. Of an origin that takes no more the reader tells, by its answer or by why
    /// there will be none.
    ///
    /// # Errors
    /// The origin takes nothing in time; or it took no more before, and has answered: no more is to be read from the client.
    pub async fn write(
        self: &Arc<Self>,
        data: &mut Bytes,
        patience: Option<Duration>,
    ) -> Result<()> {
        let passing = poll_fn(|cx| self.poll_write(cx, data, patience));
        let Some(patience) = patience else { return passing.await };
        match timeout(patience, passing).await {
            Ok(written) => written,
            Err(_) => {
                // What is to be waited for is the answer, if there is one.
                self.give_up(&mut self.body.lock());
                let what = "writing the request's body";
                Err(Error::explain(ErrorType::WriteTimedout, what).into_up())
            }
        }
    }

    fn poll_write(
        self: &Arc<Self>,
        cx: &mut Context<'_>,
        data: &mut Bytes,
        patience: Option<Duration>,
    ) -> Poll<Result<()>> {
        let mut body = self.body.lock();
        if !self.given_up.load(Ordering::Relaxed) {
            let sent = match self.poll_kept(&mut body, cx) {
                Poll::Ready(Ok(())) => self.poll_pass(&mut body, cx, data),
                other => other,
            };
            match sent {
                Poll::Ready(Ok(())) => return Poll::Ready(Ok(())),
                Poll::Ready(Err(_)) => self.give_up(&mut body),
                Poll::Pending => {
                    let kept: usize = body.kept.iter().map(Bytes::len).sum();
                    let fits = kept.saturating_add(data.len()) <= MOST;
                    if !fits || body.prospect == Prospect::Open {
                        return body.wait(cx);
                    }
                    body.kept.push_back(std::mem::take(data));
                    body.limit = patience.map(|patience| Box::pin(sleep(patience)));
                    drop(body);
                    // No more is read of it until this was sent.
                    let gate: Weak<Self> = Arc::downgrade(self);
                    terms::gate_client(gate);
                    return Poll::Ready(Ok(()));
                }
            }
        }
        if body.prospect == Prospect::Open {
            return body.wait(cx);
        }
        data.clear();
        if body.prospect == Prospect::Failed {
            // Nothing more is read from the client until the reader has told: what is to be said again must be whole.
            terms::hold_client(true);
        }
        // The first time it may be what was read ahead of the answer; an error would go before that.
        match std::mem::replace(&mut body.excused, true) {
            false => Poll::Ready(Ok(())),
            true => Poll::Ready(Err(over())),
        }
    }

    /// All of it was written.
    ///
    /// # Errors
    /// This was said before: what has trailers ends again and again for Pingora, until it is told.
    pub fn finish(&self) -> Result<()> {
        let mut body = self.body.lock();
        if std::mem::replace(&mut body.whole, true) {
            return Err(over());
        }
        // Of what was given up a part was not sent: without its end it is not taken for whole.
        let is_sent = body.kept.is_empty() && !self.given_up.load(Ordering::Relaxed);
        if is_sent && body.end().is_err() {
            self.give_up(&mut body);
        }
        Ok(())
    }

    /// Waits until what is kept was sent, or the origin takes no more of it.
    pub(super) async fn settled(&self) {
        poll_fn(|cx| self.poll_open(cx)).await;
    }

    /// The head of the answer came: who waits to write is to let it be read.
    pub(super) fn is_answered(&self) {
        self.learn(Prospect::Answered);
    }

    /// There will be no answer: who waits to write is to let it be read why.
    pub(super) fn has_failed(&self) {
        self.learn(Prospect::Failed);
    }

    fn learn(&self, prospect: Prospect) {
        let mut body = self.body.lock();
        body.prospect = prospect;
        if prospect == Prospect::Failed {
            self.give_up(&mut body);
        }
        let writer = body.writer.take();
        drop(body);
        if let Some(writer) = writer {
            writer.wake();
        }
    }

    /// The stream is of no use any more: what is left of it is not sent.
    pub(super) fn cancel(&self) {
        if let Some(stream) = self.body.lock().stream.as_mut() {
            stream.send_reset(Reason::CANCEL);
        }
    }

    fn poll_kept(&self, body: &mut Body, cx: &mut Context<'_>) -> Poll<Result<()>> {
        while let Some(mut part) = body.kept.pop_front() {
            let sent = self.poll_pass(body, cx, &mut part);
            if sent.is_pending() {
                body.kept.push_front(part);
            }
            ready!(sent)?;
            if body.kept.is_empty() && body.whole {
                body.end()?;
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_pass(
        &self,
        body: &mut Body,
        cx: &mut Context<'_>,
        data: &mut Bytes,
    ) -> Poll<Result<()>> {
        while !data.is_empty() {
            let Some(stream) = &mut body.stream else { return Poll::Ready(Err(over())) };
            stream.reserve_capacity(data.len());
            let room = match stream.poll_capacity(cx) {
                Poll::Ready(Some(Ok(0))) => continue,
                Poll::Ready(Some(Ok(room))) => room,
                Poll::Ready(Some(Err(e))) => return Poll::Ready(Err(fault::not_taken(e))),
                Poll::Ready(None) => return Poll::Ready(Err(over())),
                Poll::Pending => {
                    self.waits.store(true, Ordering::Relaxed);
                    return Poll::Pending;
                }
            };
            let part = data.split_to(room.min(data.len()));
            self.passed.fetch_add(part.len() as u64, Ordering::Relaxed);
            stream.send_data(part, false).map_err(fault::not_taken)?;
        }
        self.waits.store(false, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }

    /// The origin takes no more. Why, whoever reads hears.
    fn give_up(&self, body: &mut Body) {
        body.kept.clear();
        self.waits.store(false, Ordering::Relaxed);
        self.given_up.store(true, Ordering::Relaxed);
    }
}

/// Whoever reads from the client sends what is kept, and so does whoever reads the answer, as far as the origin takes it.
impl Gate for Sending {
    fn poll_open(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut body = self.body.lock();
        if body.kept.is_empty() {
            return Poll::Ready(());
        }
        match self.poll_kept(&mut body, cx) {
            Poll::Ready(Ok(())) => return Poll::Ready(()),
            Poll::Ready(Err(_)) => {
                self.give_up(&mut body);
                return Poll::Ready(());
            }
            Poll::Pending => {}
        }
        if let Some(limit) = &mut body.limit {
            ready!(limit.as_mut().poll(cx));
            self.overdue.store(true, Ordering::Relaxed);
            self.give_up(&mut body);
            return Poll::Ready(());
        }
        Poll::Pending
    }
}

impl Body {
    /// Until something is known of the answer, or the origin takes more.
    fn wait<T>(&mut self, cx: &Context<'_>) -> Poll<T> {
        self.writer = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Sends its end.
    fn end(&mut self) -> Result<()> {
        let mut stream = self.stream.take().ok_or_else(over)?;
        stream.send_data(Bytes::new(), true).map_err(fault::not_taken)
    }
}

fn over() -> Box<Error> {
    Error::explain(ErrorType::WriteError, "the origin takes no more").into_up()
}
