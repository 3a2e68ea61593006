//! Whether a client can send more of its bodies, by the room that it was given.
//!
//! Over HTTP/2 all bodies of a connection share one window (RFC 9113 §5.2). What came on some streams, and is not taken
//! yet, may fill it: then the client can send nothing on the others either, and is not slow.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// While there is no room, time is looked at no more often than this.
const PAUSE: Duration = Duration::from_secs(1);

/// The window of one connection.
#[derive(Debug)]
pub struct Room {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// How many bytes may come yet.
    left: i64,
    /// Since when that is none.
    shut: Option<Instant>,
    /// For how long it was none before.
    before: Duration,
}

impl Room {
    /// Room for so many bytes.
    #[must_use]
    pub fn new(bytes: u32) -> Self {
        let state = State { left: bytes.into(), shut: None, before: Duration::ZERO };
        Self { state: Mutex::new(state) }
    }

    /// So many bytes came.
    pub fn came(&self, bytes: u64) {
        self.change(-i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// The client was told that it may send so many bytes more.
    pub fn gave(&self, bytes: u64) {
        self.change(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    fn change(&self, bytes: i64) {
        let mut state = self.state.lock();
        state.left = state.left.saturating_add(bytes);
        match (state.left > 0, state.shut) {
            (true, Some(shut)) => {
                state.before = state.before.saturating_add(shut.elapsed());
                state.shut = None;
            }
            (false, None) => state.shut = Some(Instant::now()),
            (true, None) | (false, Some(_)) => {}
        }
    }

    /// For how long there has been none, in all.
    #[must_use]
    pub fn shut_for(&self) -> Duration {
        let state = self.state.lock();
        state.before.saturating_add(state.shut.map_or(Duration::ZERO, |shut| shut.elapsed()))
    }

    /// When to look again at a time that would be over at `at`: while there is no room, it stands still.
    #[must_use]
    pub fn look_at(&self, at: Instant) -> Instant {
        match self.state.lock().shut {
            Some(_) => at.max(Instant::now() + PAUSE),
            None => at,
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_the_time_counts_in_which_nothing_may_come() {
        let secs = Duration::from_secs;
        let room = Room::new(10);
        let now = Instant::now();
        room.came(9);
        advance(secs(1)).await;
        assert_eq!((room.shut_for(), room.look_at(now)), (Duration::ZERO, now));
        room.came(1);
        advance(secs(2)).await;
        // What comes although there is no room for it.
        room.came(3);
        room.gave(3);
        advance(secs(4)).await;
        assert_eq!(room.shut_for(), secs(6));
        assert_eq!(room.look_at(now), Instant::now() + PAUSE);
        room.gave(1);
        advance(secs(8)).await;
        room.came(1);
        advance(secs(16)).await;
        assert_eq!(room.shut_for(), secs(22));
    }
}
