//! The time, read once in each turn of a task.
//!
//! A request wants to know the time a dozen times, mostly within one turn of its task, which takes microseconds.
//! To ask the system each time costs as much as reading an origin's head. For what runs `by_turns`, what
//! [`now`] answers is the moment of the first question in the turn; everywhere else, and `exactly`, it is this one.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;
use std::time::Instant;

/// What this thread knows of the time.
#[derive(Debug, Clone, Copy)]
enum Turn {
    /// Whoever asks is answered by the system.
    Outside,
    /// In a turn in which nobody has asked.
    Unread,
    /// In a turn in which it was this when somebody asked.
    Read(Instant),
}

thread_local! {
    static TURN: Cell<Turn> = const { Cell::new(Turn::Outside) };
}

/// The time: of this moment, or of one before it in the same turn of the running task.
// Not where it is called, a dozen times for a request: code that ran just before costs less than more of it.
#[must_use]
#[inline(never)]
pub fn now() -> Instant {
    match TURN.get() {
        Turn::Read(at) => at,
        turn => read(turn),
    }
}

/// Asks the system.
#[cold]
fn read(turn: Turn) -> Instant {
    let at = Instant::now();
    if let Turn::Unread = turn {
        TURN.set(Turn::Read(at));
    }
    at
}

/// How long ago `at` was, by [`now`]; nothing where that was before it.
#[must_use]
#[inline(never)]
pub fn since(at: Instant) -> Duration {
    now().saturating_duration_since(at)
}

/// Runs `work`, whose turns are short: within each the time stands still.
pub(crate) fn by_turns<F: Future + Unpin>(work: F) -> impl Future<Output = F::Output> {
    Turns { work, begins: Turn::Unread }
}

/// Runs `work`, for which the time goes on within a turn.
pub(crate) fn exactly<F: Future + Unpin>(work: F) -> impl Future<Output = F::Output> {
    Turns { work, begins: Turn::Outside }
}

/// The clock of this thread, turned by hand until this is dropped.
#[cfg(test)]
pub(crate) struct Turned {
    _before: PutBack,
}

#[cfg(test)]
impl Turned {
    /// A clock that stands at `at`.
    pub(crate) fn to(at: Instant) -> Self {
        Self { _before: PutBack(TURN.replace(Turn::Read(at))) }
    }

    /// Turns it on to `at`.
    pub(crate) fn on(&mut self, at: Instant) {
        TURN.set(Turn::Read(at));
    }
}

struct Turns<F> {
    work: F,
    begins: Turn,
}

/// Puts back what was known before; when the work panics, too.
struct PutBack(Turn);

impl Drop for PutBack {
    fn drop(&mut self) {
        TURN.set(self.0);
    }
}

impl<F: Future + Unpin> Future for Turns<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let _before = PutBack(TURN.replace(self.begins));
        Pin::new(&mut self.work).poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Long enough for any clock to go on.
    fn wait() {
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_micros(10) {
            std::hint::spin_loop();
        }
    }

    fn two_readings() -> (Instant, Instant) {
        let first = now();
        wait();
        (first, now())
    }

    #[tokio::test]
    async fn time_stands_still_within_a_turn_and_goes_on_with_the_next() {
        let work = Box::pin(async {
            let (first, again) = two_readings();
            assert_eq!(first, again);
            assert_eq!(since(first), Duration::ZERO);
            tokio::task::yield_now().await;
            wait();
            assert!(now() > first, "another turn");
            exactly(Box::pin(async {
                let (first, again) = two_readings();
                assert!(again > first);
            }))
            .await;
            let (first, again) = two_readings();
            assert_eq!(first, again, "still in the turn");
        });
        by_turns(work).await;
        let (first, again) = two_readings();
        assert!(again > first, "outside");
    }

    #[test]
    fn a_panic_leaves_no_time_behind() {
        let mut work = by_turns(Box::pin(async {
            let _ = now();
            panic!("on purpose");
        }));
        let polled = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _: Poll<()> =
                Pin::new(&mut work).poll(&mut Context::from_waker(std::task::Waker::noop()));
        }));
        assert!(polled.is_err());
        let (first, again) = two_readings();
        assert!(again > first);
    }
}
