//! How long a connection waits for its next request.
//!
//! One timer and one ear for the end of the process serve all requests of a connection: to arm them
//! anew for each would cost as much as the rest of a short answer.

use std::future::Future;
use std::future::poll_fn;
use std::pin::Pin;
use std::pin::pin;
use std::task::Context;
use std::task::Poll;
use std::task::Waker;
use std::task::ready;
use std::time::Duration;

use pingora::server::ShutdownWatch;
use tokio::task::unconstrained;
use tokio::time::Instant;
use tokio::time::Sleep;

use crate::listen::io::EdgeIo;
use crate::terms::clock;

/// Waits for a client.
pub(crate) struct Patience {
    /// Never later than what is waited for; set anew when it went off too early.
    timer: Pin<Box<Sleep>>,
    /// Whom it wakes when it goes off, which it has not done since.
    armed: Option<Waker>,
    /// Resolves when the process is ending.
    ending: Pin<Box<dyn Future<Output = ()> + Send>>,
    /// Says without a lock whether `ending` has something new.
    shutdown: ShutdownWatch,
    /// Whom `ending` wakes.
    woken: Option<Waker>,
    ended: bool,
}

impl Patience {
    /// For a connection that waits for its first request for so long.
    pub(crate) fn new(wait: Duration, shutdown: &ShutdownWatch) -> Self {
        let mut until_ending = shutdown.clone();
        Self {
            timer: Box::pin(tokio::time::sleep(wait)),
            armed: None,
            ending: Box::pin(async move {
                // A sender that is gone means the end as well.
                let _ = until_ending.wait_for(|down| *down).await;
            }),
            shutdown: shutdown.clone(),
            woken: None,
            ended: *shutdown.borrow(),
        }
    }

    /// Reads until there is something, for so long; when the process is ending, for `grace` more at
    /// most. Whether something came.
    pub(crate) async fn first_byte(
        &mut self,
        io: &mut EdgeIo,
        wait: Duration,
        grace: impl Fn() -> Duration,
    ) -> Came {
        let mut until = Instant::from_std(clock::now()) + wait;
        let mut hurried = false;
        poll_fn(|cx| {
            if let Poll::Ready(read) = io.poll_receive(cx) {
                let some = read.is_ok_and(|bytes| bytes > 0);
                return Poll::Ready(if some { Came::Something } else { Came::Nothing });
            }
            if !hurried && self.poll_ending(cx).is_ready() {
                hurried = true;
                until = until.min(Instant::now() + grace());
            }
            self.poll_until(cx, until).map(|()| Came::Nothing)
        })
        .await
    }

    /// Whether the process is ending, or that may be.
    pub(crate) fn may_be_ending(&self) -> bool {
        self.ended || self.has_news()
    }

    /// Whether the process may be ending, and that was not asked yet.
    fn has_news(&self) -> bool {
        !matches!(self.shutdown.has_changed(), Ok(false))
    }

    /// Ready once the process is ending.
    pub(crate) fn poll_ending(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.ended {
            return Poll::Ready(());
        }
        let known = self.woken.as_ref().is_some_and(|waker| waker.will_wake(cx.waker()));
        if known && !self.has_news() {
            return Poll::Pending;
        }
        // As below: without a budget, so that it is remembered who is to be woken.
        let ended = pin!(unconstrained(self.ending.as_mut())).poll(cx);
        self.woken = Some(cx.waker().clone());
        ready!(ended);
        self.ended = true;
        Poll::Ready(())
    }

    /// Ready from this moment on.
    pub(crate) fn poll_until(&mut self, cx: &mut Context<'_>, until: Instant) -> Poll<()> {
        loop {
            if self.timer.deadline() > until {
                self.timer.as_mut().reset(until);
                self.armed = None;
            }
            let wakes = self.armed.as_ref().is_some_and(|waker| waker.will_wake(cx.waker()));
            if wakes && !self.timer.is_elapsed() {
                // To ask it once more would not change that, and costs as much as a look at the socket.
                return Poll::Pending;
            }
            // With a budget, a task that has used its own up would not be told of the end, but only asked to come again.
            let rung = pin!(unconstrained(self.timer.as_mut())).poll(cx);
            self.armed = Some(cx.waker().clone());
            ready!(rung);
            self.armed = None;
            if Instant::now() >= until {
                return Poll::Ready(());
            }
            self.timer.as_mut().reset(until);
        }
    }
}

/// Whether a client said something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Came {
    /// It did.
    Something,
    /// It did not in time, went away, or the process is ending.
    Nothing,
}

#[cfg(test)]
mod tests {
    use tokio::sync::watch;

    use super::*;

    /// A task that has used up what it may do at once is asked to come again, and then nothing may be missing.
    #[tokio::test(start_paused = true)]
    async fn it_ends_in_time_for_a_task_that_has_done_much_at_once() {
        for ends in [true, false] {
            let (running, shutdown) = watch::channel(false);
            let mut patience = Patience::new(Duration::from_secs(10), &shutdown);
            let begins = Instant::now();
            let waiting = tokio::spawn(async move {
                let mut much = Box::pin(async {
                    loop {
                        tokio::task::consume_budget().await;
                    }
                });
                let mut tired = true;
                poll_fn(|cx| {
                    if std::mem::take(&mut tired) {
                        assert!(much.as_mut().poll(cx).is_pending());
                    }
                    if patience.poll_ending(cx).is_ready() {
                        return Poll::Ready(());
                    }
                    patience.poll_until(cx, begins + Duration::from_secs(10))
                })
                .await;
                begins.elapsed().as_secs()
            });
            tokio::time::sleep(Duration::from_secs(5)).await;
            running.send_replace(ends);
            let waited = tokio::time::timeout(Duration::from_secs(60), waiting).await;
            let expected = if ends { 5 } else { 10 };
            assert_eq!(waited.expect("it was told").expect("no panic"), expected);
        }
    }

    /// However often the task is woken by others meanwhile, and wherever the moment is put.
    #[tokio::test(start_paused = true)]
    async fn it_ends_when_it_should() {
        let (_running, shutdown) = watch::channel(false);
        let mut patience = Patience::new(Duration::from_secs(10), &shutdown);
        let begins = Instant::now();
        for (after, until) in [(0, 7), (7, 20), (20, 21), (21, 21), (21, 60)] {
            assert_eq!(begins.elapsed().as_secs(), after);
            let mut others = tokio::time::interval(Duration::from_millis(300));
            let until = begins + Duration::from_secs(until);
            poll_fn(|cx| {
                while others.poll_tick(cx).is_ready() {}
                patience.poll_until(cx, until)
            })
            .await;
            assert!(Instant::now() >= until);
        }
        assert_eq!(begins.elapsed().as_secs(), 60);
        // Nearer than it was put before.
        poll_fn(|cx| {
            assert!(patience.poll_until(cx, begins + Duration::from_secs(90)).is_pending());
            Poll::Ready(())
        })
        .await;
        poll_fn(|cx| patience.poll_until(cx, begins + Duration::from_secs(70))).await;
        assert_eq!(begins.elapsed().as_secs(), 70);
    }
}
