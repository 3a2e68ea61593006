//! How fast a peer is while we wait for it.
//!
//! Only the time spent waiting counts: a client is not slow because an origin is.

use std::future::Future;
use std::pin::Pin;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;

use tokio::time::Instant;
use tokio::time::Sleep;

/// The slowest that a peer may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MinRate {
    /// Bytes per second.
    pub bytes_per_second: u64,
    /// The waiting time over which it is measured.
    pub window: Duration,
}

impl MinRate {
    fn due(&self) -> u64 {
        let bytes = u128::from(self.bytes_per_second) * self.window.as_millis() / 1000;
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }
}

/// Measures one direction of one connection.
#[derive(Debug, Default)]
pub struct Pace {
    since: Option<Instant>,
    waited: Duration,
    moved: u64,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Pace {
    /// Bytes went through.
    pub fn moved(&mut self, bytes: usize) {
        if let Some(since) = self.since.take() {
            self.waited = self.waited.saturating_add(since.elapsed());
        }
        self.moved = self.moved.saturating_add(bytes as u64);
    }

    /// We wait for the peer. Ready when it was slower than `rate` over a whole window; until then the
    /// task is woken when the window ends.
    pub fn poll_too_slow(&mut self, cx: &mut Context<'_>, rate: MinRate) -> Poll<()> {
        loop {
            let now = Instant::now();
            let since = *self.since.get_or_insert(now);
            let waited = self.waited.saturating_add(now.saturating_duration_since(since));
            if waited >= rate.window {
                if self.moved < rate.due().max(1) {
                    return Poll::Ready(());
                }
                self.waited = Duration::ZERO;
                self.moved = 0;
                self.since = Some(now);
                continue;
            }
            let at = now + (rate.window - waited);
            let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
            if timer.deadline() != at {
                timer.as_mut().reset(at);
            }
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }

    /// Forgets everything, timer included: nothing is waited for any more.
    pub fn rest(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;

    const RATE: MinRate = MinRate { bytes_per_second: 10, window: Duration::from_secs(10) };

    #[tokio::test(start_paused = true)]
    async fn silence_for_a_window_is_too_slow() {
        let mut pace = Pace::default();
        let start = Instant::now();
        poll_fn(|cx| pace.poll_too_slow(cx, RATE)).await;
        assert_eq!(start.elapsed().as_secs(), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn a_drip_below_the_rate_is_too_slow() {
        let mut pace = Pace::default();
        let start = Instant::now();
        loop {
            let slow = tokio::time::timeout(
                Duration::from_secs(1),
                poll_fn(|cx| pace.poll_too_slow(cx, RATE)),
            );
            if slow.await.is_ok() {
                break;
            }
            pace.moved(9);
        }
        assert!((10..=11).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_above_the_rate_goes_on() {
        let mut pace = Pace::default();
        for _ in 0..100 {
            let slow = tokio::time::timeout(
                Duration::from_secs(1),
                poll_fn(|cx| pace.poll_too_slow(cx, RATE)),
            );
            assert!(slow.await.is_err());
            pace.moved(12);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn time_in_which_we_do_not_wait_does_not_count() {
        let mut pace = Pace::default();
        pace.moved(1);
        tokio::time::sleep(Duration::from_secs(3600)).await;
        let slow = tokio::time::timeout(
            Duration::from_secs(9),
            poll_fn(|cx| pace.poll_too_slow(cx, RATE)),
        );
        assert!(slow.await.is_err());
    }
}
