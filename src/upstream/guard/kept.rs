//! What an origin does not take although it answers: it is kept, so that the answer passes at once, and handed on as far
//! as the origin takes it; also behind the end of the exchange.

use std::future::Future;
use std::future::poll_fn;
use std::io;
use std::task::Context;
use std::task::Poll;

use tokio::runtime::Handle;
use tokio::time::sleep;
use tokio::time::timeout;

use super::Origin;
use super::OriginIo;
use super::Taking;
use crate::refusal::Refusal;
use crate::terms;
use crate::upstream::fault::overdue;
use crate::upstream::line::Line;
use crate::upstream::vigil::Awaited;

/// How much of a request is kept at most that the origin does not take although it answers already, in bytes. Pingora
/// reads no further ahead than that, where the client is held.
const KEPT: usize = 512 * 1024;

impl OriginIo {
    /// The origin takes nothing now. Where it answers nevertheless, that goes first, which Pingora does not come to before
    /// this is ready, though it may have read some of it: `data` is kept until the origin takes it. Else ready when all
    /// time is over.
    pub(super) fn poll_keep(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<()>> {
        if let Poll::Ready(over) = self.is_not_taken(cx) {
            return Poll::Ready(Err(over));
        }
        let speaks = self.ahead.as_ref().is_some_and(|ahead| !ahead.is_spent());
        let guard = &self.line.guard;
        let answers =
            (speaks || !guard.awaits_head()) && !guard.is_tunnel() && !guard.offers_tunnel();
        let fits = self.waiting() + data.len() <= KEPT;
        if !answers || !fits || terms::is_answer_passed() {
            return Poll::Pending;
        }
        self.line.pending.drain(..self.sent);
        self.sent = 0;
        self.line.pending.extend_from_slice(data);
        if self.kept.is_none() {
            let patience = self.line.watch.for_room().unwrap_or(self.patience);
            self.kept = Some(Box::pin(sleep(patience)));
        }
        self.hold();
        Poll::Ready(Ok(()))
    }

    /// Sends what the origin is owed yet, in a task of its own.
    pub(super) fn send_the_rest(&mut self) {
        if self.is_owed_the_rest()
            && let Ok(runtime) = Handle::try_current()
            && let Some(line) = self.line.take()
        {
            let patience = line.watch.for_room().unwrap_or_default();
            let sent = self.sent;
            runtime.spawn(async move { timeout(patience, send_the_rest(line, sent)).await });
        }
    }

    /// Whether the origin has answered wholly, and is there for the end of the request, which it did not take yet.
    fn is_owed_the_rest(&self) -> bool {
        let guard = &self.line.guard;
        let is_whole = guard.fault().is_none() && !guard.awaits_body() && !guard.awaits_reply();
        self.kept.is_some() && is_whole && self.origin == Origin::Listening && self.waiting() > 0
    }

    /// Hands on what was kept, as far as the origin takes it. Ready when it did not within its time, whatever it says.
    pub(super) fn go_on(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let waiting = self.waiting();
        match self.poll_drain(cx) {
            Poll::Pending if self.waiting() < waiting => self.line.watch.took(),
            Poll::Pending => {}
            Poll::Ready(Ok(())) => {
                if self.line.wire.as_pin().poll_flush(cx).is_ready() {
                    self.kept = None;
                    self.is_taken();
                    self.hold();
                }
            }
            // It takes no more. What it says is still read.
            Poll::Ready(Err(_)) => {
                self.origin = Origin::Gone;
                self.kept = None;
                self.drained();
                self.hold();
            }
        }
        let Some(kept) = &mut self.kept else { return Poll::Pending };
        kept.as_mut().poll(cx).map(|()| overdue(Refusal::OriginTimeout))
    }

    /// The origin takes nothing now: ready when all time is over.
    pub(super) fn is_not_taken(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        self.taking = Taking::Slowly;
        self.line.watch.takes_nothing();
        self.read_ahead(cx);
        self.line.watch.poll_end(cx, Awaited::Room).map(overdue)
    }

    /// While the origin takes nothing: reads what it says, for which it may wait to be heard.
    fn read_ahead(&mut self, cx: &mut Context<'_>) {
        // Behind a whole answer nobody reads any more, and nobody is to wait for that.
        if self.origin != Origin::Gone && self.line.guard.awaits_reply() {
            let ahead = self.ahead.get_or_insert_default();
            ahead.fill(cx, self.line.wire.as_pin());
            self.hold();
        }
    }

    /// What came goes first, and what was kept: the more is written, the more would come. Of what comes behind a whole
    /// answer nothing is passed on to anybody: the rest of the body does not wait for it.
    pub(super) fn hold(&self) {
        let speaks = self.ahead.as_ref().is_some_and(|ahead| !ahead.is_spent());
        terms::hold_client((speaks || self.kept.is_some()) && self.line.guard.awaits_reply());
    }

    pub(super) fn forget_ahead(&mut self) {
        if self.ahead.take().is_some() {
            self.hold();
        }
    }
}

/// Sends what is left of a request. Then the connection is closed.
async fn send_the_rest(mut line: Box<Line>, mut sent: usize) {
    let Line { wire, pending, .. } = &mut *line;
    while let Some(rest @ [_, ..]) = pending.get(sent..) {
        match poll_fn(|cx| wire.as_pin().poll_write(cx, rest)).await {
            Ok(wrote @ 1..) => sent += wrote,
            Ok(0) | Err(_) => return,
        }
    }
    let _ = poll_fn(|cx| wire.as_pin().poll_flush(cx)).await;
}
