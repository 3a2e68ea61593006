//! What the running request is held to, wherever bytes pass on its behalf: its deadlines, and the
//! slowest that a peer may be.
//!
//! The terms belong to the task that serves the request. Connections to clients and to origins both
//! look here, and so need not know each other.

pub mod clock;
pub mod pace;
pub mod room;

use std::any::Any;
use std::cell::Cell;
use std::cell::RefCell;
use std::sync::Arc;
use std::sync::Weak;
use std::task::Context;
use std::task::Poll;
use std::task::Waker;
use std::time::Duration;

use tokio::time::Instant;

use crate::terms::pace::MinRate;
use crate::terms::room::Room;

/// What the request in progress is held to by whoever waits on its behalf.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// When its response has to be whole; `None` is no limit.
    pub ends: Option<Instant>,
    /// When the header of the response has to be whole, if the request is whole by now; `None` is no limit.
    pub answer_by: Option<Instant>,
    /// How long an origin may take from the first byte of its header to the last.
    pub header: Duration,
    /// What goes for a body that the client is still sending; `None`: there is none.
    pub upload: Option<Upload>,
}

/// What goes while a client sends its body: its time is not the origin's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Upload {
    /// The slowest that it may come, where the client's connection does not see to that.
    pub rate: Option<MinRate>,
    /// How long nothing may come, neither from the client nor from the origin.
    pub silence: Duration,
    /// How long the origin may take nothing of what came.
    pub refusal: Duration,
    /// What the time for the answer begins with.
    pub answer: AnswerTime,
}

/// When the time for an answer begins to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnswerTime {
    /// When all of the request's body was passed on.
    BehindBody,
    /// At once: both sides talk at the same time.
    AtOnce,
}

/// The running request.
#[derive(Debug)]
struct Running {
    /// What it came on.
    source: Arc<dyn Any + Send + Sync>,
    /// What its client may send, where that is bounded.
    room: Option<Arc<Room>>,
    terms: Cell<Option<Terms>>,
    /// The rest of its body is not passed on.
    body_refused: Cell<bool>,
    /// Who is told of that.
    exchange: RefCell<Option<Waker>>,
    /// No more of its body is read for now.
    held: Cell<bool>,
    /// Who is told when that ends.
    reader: RefCell<Option<Waker>>,
    /// What has to be sent before more of it is read.
    gate: RefCell<Option<Weak<dyn Gate>>>,
    /// All of its answer was passed on.
    answered: Cell<bool>,
    /// What was brought for whoever comes next on its way.
    brought: RefCell<Option<Arc<dyn Any + Send + Sync>>>,
}

/// What has to be sent of a request's body before more of it is read from the client.
pub trait Gate: Send + Sync {
    /// Sends it, as far as that goes now: ready when no more of it is left.
    fn poll_open(&self, cx: &mut Context<'_>) -> Poll<()>;
}

tokio::task_local! {
    static CURRENT: Running;
}

/// Runs `work`, one request that came on `source`, where there may be only so much `room`; its terms are still to be
/// settled.
pub(crate) fn scope<F: Future>(
    source: Arc<dyn Any + Send + Sync>,
    room: Option<Arc<Room>>,
    work: F,
) -> impl Future<Output = F::Output> {
    let running = Running {
        source,
        room,
        terms: Cell::new(None),
        body_refused: Cell::new(false),
        exchange: RefCell::new(None),
        held: Cell::new(false),
        reader: RefCell::new(None),
        gate: RefCell::new(None),
        answered: Cell::new(false),
        brought: RefCell::new(None),
    };
    CURRENT.scope(running, work)
}

/// What the running request came on; `None` where no client asked, or if it is something else.
#[must_use]
pub fn source<T: Any + Send + Sync>() -> Option<Arc<T>> {
    CURRENT.try_with(|current| Arc::clone(&current.source)).ok()?.downcast().ok()
}

/// The room that the client of the running request has for what it sends; `None` where nothing bounds that.
#[must_use]
pub fn room() -> Option<Arc<Room>> {
    CURRENT.try_with(|current| current.room.clone()).ok().flatten()
}

/// Settles the terms of the running request; a further attempt has terms of its own. Without effect
/// where no client asked.
pub fn agree(terms: Terms) {
    let _ = CURRENT.try_with(|current| current.terms.set(Some(terms)));
}

/// The terms of the running request, once they are settled.
#[must_use]
pub fn current() -> Option<Terms> {
    CURRENT.try_with(|current| current.terms.get()).ok().flatten()
}

/// The rest of the running request's body is not passed on: whoever waits for an answer to it need not.
pub fn refuse_body() {
    let _ = CURRENT.try_with(|current| {
        current.body_refused.set(true);
        if let Some(exchange) = current.exchange.take() {
            exchange.wake();
        }
    });
}

/// Whether the rest of the running request's body is not passed on. Where it is, the task is woken when that changes.
#[must_use]
pub fn is_body_refused(cx: &Context<'_>) -> bool {
    let refused = CURRENT.try_with(|current| {
        current.exchange.replace(Some(cx.waker().clone()));
        current.body_refused.get()
    });
    refused.unwrap_or(false)
}

/// Whether whoever reads the running request's body from the client waits, since what the origin said is to be passed
/// on first.
pub fn hold_client(held: bool) {
    let _ = CURRENT.try_with(|current| {
        current.held.set(held);
        if !held && let Some(reader) = current.reader.take() {
            reader.wake();
        }
    });
}

/// Whoever reads the running request's body from the client waits at this gate from now on, in place of any other.
pub fn gate_client(gate: Weak<dyn Gate>) {
    let _ = CURRENT.try_with(|current| current.gate.replace(Some(gate)));
}

/// Whether no more of the running request's body is to be read for now; the task is woken when that changes.
#[must_use]
pub fn is_client_held(cx: &mut Context<'_>) -> bool {
    let held = CURRENT.try_with(|current| {
        let held = current.held.get();
        if held {
            current.reader.replace(Some(cx.waker().clone()));
        }
        held || {
            let gate = current.gate.borrow().as_ref().and_then(Weak::upgrade);
            let shut = gate.is_some_and(|gate| gate.poll_open(cx).is_pending());
            if !shut {
                current.gate.take();
            }
            shut
        }
    });
    held.unwrap_or(false)
}

/// All of the running request's answer is on its way to the client: whoever still passes its body on holds nothing up.
pub fn pass_answer() {
    let _ = CURRENT.try_with(|current| current.answered.set(true));
    hold_client(false);
}

/// Whether all of the running request's answer is on its way to the client.
#[must_use]
pub fn is_answer_passed() -> bool {
    CURRENT.try_with(|current| current.answered.get()).unwrap_or(false)
}

/// Leaves `what` for whoever comes next on the way of the running request, where Pingora lies in between
/// and passes nothing on. It replaces what was left before; without effect where no client asked.
pub fn bring(what: Arc<dyn Any + Send + Sync>) {
    let _ = CURRENT.try_with(|current| current.brought.replace(Some(what)));
}

/// Takes what was left; `None` if nothing was, or something else.
#[must_use]
pub fn brought<T: Any + Send + Sync>() -> Option<Arc<T>> {
    let what = CURRENT.try_with(|current| current.brought.take()).ok().flatten()?;
    what.downcast().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_brought_is_taken_once_and_within_its_request() {
        bring(Arc::new(1_u32));
        assert_eq!(brought::<u32>(), None, "there is no request");
        assert_eq!(source::<u8>(), None);
        scope(Arc::new(7_u8), None, async {
            assert_eq!((source(), source::<u32>()), (Some(Arc::new(7_u8)), None));
            bring(Arc::new(1_u32));
            bring(Arc::new(2_u32));
            let other = scope(Arc::new(()), None, async { brought::<u32>() });
            assert_eq!(other.await, None, "another request");
            assert_eq!(brought(), Some(Arc::new(2_u32)));
            assert_eq!(brought::<u32>(), None);
            bring(Arc::new("a word"));
            assert_eq!(brought::<u32>(), None);
        })
        .await;
    }
}
