//! How fast a peer is while we wait for it.
//!
//! Only the time spent waiting counts: a client is not slow because an origin is, nor while it has no room to send in.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;

use tokio::time::Instant;
use tokio::time::Sleep;

use crate::terms::room::Room;

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
    since: Option<Since>,
    waited: Duration,
    moved: u64,
    timer: Option<Pin<Box<Sleep>>>,
    /// What the peer may send in.
    room: Option<Arc<Room>>,
}

/// A moment, and for how long the peer had had no room until then.
#[derive(Debug, Clone, Copy)]
pub struct Since {
    at: Instant,
    shut: Duration,
}

impl Since {
    /// When that was.
    #[must_use]
    pub fn at(self) -> Instant {
        self.at
    }
}

impl Pace {
    /// Measures a peer that may send no more than there is `room` for.
    #[must_use]
    pub fn within(room: Option<Arc<Room>>) -> Self {
        Self { room, ..Self::default() }
    }

    /// From now on.
    #[must_use]
    pub fn since_now(&self) -> Since {
        Since { at: Instant::now(), shut: self.shut_for() }
    }

    /// When a peer that had room all the time from now on would have had it for `time` since then.
    #[must_use]
    pub fn after(&self, since: Since, time: Duration) -> Instant {
        let at = since.at + time + self.shut_for().saturating_sub(since.shut);
        self.room.as_ref().map_or(at, |room| room.look_at(at))
    }

    fn shut_for(&self) -> Duration {
        self.room.as_ref().map_or(Duration::ZERO, |room| room.shut_for())
    }

    fn elapsed(&self, since: Since, now: Instant) -> Duration {
        let shut = self.shut_for().saturating_sub(since.shut);
        now.saturating_duration_since(since.at).saturating_sub(shut)
    }

    /// Bytes went through.
    pub fn moved(&mut self, bytes: usize) {
        if let Some(since) = self.since.take() {
            self.waited = self.waited.saturating_add(self.elapsed(since, Instant::now()));
        }
        self.moved = self.moved.saturating_add(bytes as u64);
    }

    /// We wait for the peer. Ready when it was slower than `rate` over a whole window; until then the
    /// task is woken when the window ends.
    pub fn poll_too_slow(&mut self, cx: &mut Context<'_>, rate: MinRate) -> Poll<()> {
        loop {
            let now = Instant::now();
            let since = self.since.unwrap_or_else(|| self.since_now());
            self.since = Some(since);
            let waited = self.waited.saturating_add(self.elapsed(since, now));
            if waited >= rate.window {
                if self.moved < rate.due().max(1) {
                    return Poll::Ready(());
                }
                self.waited = Duration::ZERO;
                self.moved = 0;
                self.since = None;
                continue;
            }
            let at = now + (rate.window - waited);
            let at = self.room.as_ref().map_or(at, |room| room.look_at(at));
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
        *self = Self::within(self.room.take());
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
    async fn time_in_which_there_is_no_room_does_not_count() {
        for trickles in [false, true] {
            let room = Arc::new(Room::new(10));
            let mut pace = Pace::within(Some(Arc::clone(&room)));
            let start = Instant::now();
            let slow = async |pace: &mut Pace, seconds: u64| {
                let slow = poll_fn(|cx| pace.poll_too_slow(cx, RATE));
                tokio::time::timeout(Duration::from_secs(seconds), slow).await.is_ok()
            };
            assert!(!slow(&mut pace, 4).await);
            room.came(10);
            assert!(!slow(&mut pace, 3600).await);
            room.gave(10);
            if trickles {
                pace.moved(1);
            }
            assert!(slow(&mut pace, 3600).await);
            assert_eq!(start.elapsed().as_secs(), 3610, "{trickles}");
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
