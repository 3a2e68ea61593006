//! Whether somebody is still there at the other end of a connection.
//!
//! An origin that is asked and says nothing may be at work, or gone without a word: the kernel finds that out only
//! after minutes. So it is asked for a sign of life (PING, RFC 9113 §6.7), though rarely: servers take a client
//! that asks often for an attack.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::OnceLock;
use std::time::Duration;

use h2::Ping;
use h2::PingPong;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio::time::sleep;
use tokio::time::timeout;

use crate::refusal::Refusal;

/// How long an origin is silent that is asked for a sign of life.
const SILENCE: Duration = Duration::from_secs(10);

/// How long it has for that.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long it is left in peace after it gave one, while it is asked nothing new. A server of gRPC allows no less.
const PEACE: Duration = Duration::from_secs(300);

/// The time between two looks while requests are under way.
const LOOK: Duration = Duration::from_secs(5);

/// What is known of the other end's life.
#[derive(Debug)]
pub(super) struct Pulse {
    known: Mutex<Known>,
    /// Told when a stream begins where there was none.
    busy: Notify,
    /// Why the connection ends, where its streams are not told.
    failed: OnceLock<Refusal>,
}

#[derive(Debug, Clone, Copy)]
struct Known {
    /// When a byte came last.
    heard: Instant,
    /// When a stream was begun last.
    asked: Instant,
    /// When a sign of life was asked for last.
    prodded: Option<Instant>,
    streams: u32,
}

impl Known {
    /// Whether a sign of life is wanted.
    fn wants_sign(&self, now: Instant) -> bool {
        let silent = now.saturating_duration_since(self.heard.max(self.asked));
        let in_peace = self.prodded.is_some_and(|prodded| {
            prodded >= self.asked && now.saturating_duration_since(prodded) < PEACE
        });
        self.streams > 0 && silent >= SILENCE && !in_peace
    }
}

impl Pulse {
    pub(super) fn new() -> Arc<Self> {
        let now = Instant::now();
        let known = Known { heard: now, asked: now, prodded: None, streams: 0 };
        Arc::new(Self { known: Mutex::new(known), busy: Notify::new(), failed: OnceLock::new() })
    }

    /// The connection ends so: by what was wrong with TLS, or since nobody is there any more.
    pub(super) fn fail(&self, refusal: Refusal) {
        let _ = self.failed.set(refusal);
    }

    /// How it ends, if it does so.
    pub(super) fn failed(&self) -> Option<Refusal> {
        self.failed.get().copied()
    }

    /// Bytes came.
    pub(super) fn hear(&self) {
        self.known.lock().heard = Instant::now();
    }

    /// Whether bytes came since then.
    pub(super) fn was_heard_since(&self, since: Instant) -> bool {
        self.known.lock().heard > since
    }

    /// A stream begins.
    pub(super) fn begin(&self) {
        let mut known = self.known.lock();
        known.asked = Instant::now();
        known.streams += 1;
        if known.streams == 1 {
            self.busy.notify_one();
        }
    }

    /// A stream is over.
    pub(super) fn end(&self) {
        let mut known = self.known.lock();
        known.streams = known.streams.saturating_sub(1);
    }

    /// Ends when a sign of life was asked for in vain.
    pub(super) async fn stops(&self, mut signs: PingPong) {
        loop {
            if self.known.lock().streams == 0 {
                self.busy.notified().await;
            }
            sleep(LOOK).await;
            let now = Instant::now();
            let is_due = {
                let mut known = self.known.lock();
                let is_due = known.wants_sign(now);
                if is_due {
                    known.prodded = Some(now);
                }
                is_due
            };
            if !is_due {
                continue;
            }
            if signs.send_ping(Ping::opaque()).is_err() {
                return;
            }
            // Whatever comes is a sign of life; an origin that answers requests and no PING is left alone.
            match timeout(PATIENCE, poll_fn(|cx| signs.poll_pong(cx))).await {
                Ok(Ok(_)) => {}
                Ok(Err(_)) => return,
                Err(_) if self.was_heard_since(now) => {
                    // The answer to this one is still due, and no other can be sent before it came.
                    if poll_fn(|cx| signs.poll_pong(cx)).await.is_err() {
                        return;
                    }
                }
                Err(_) => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[tokio::test(start_paused = true)]
    async fn a_sign_of_life_is_wanted_of_who_is_asked_and_silent() {
        let start = Instant::now();
        let known = Known { heard: start, asked: start, prodded: None, streams: 1 };
        assert!(!known.wants_sign(start + SILENCE - Duration::from_nanos(1)));
        assert!(known.wants_sign(start + SILENCE));
        let idle = Known { streams: 0, ..known };
        assert!(!idle.wants_sign(start + secs(3600)));
        let heard = Known { heard: start + secs(5), ..known };
        assert!(!heard.wants_sign(start + SILENCE));
        assert!(heard.wants_sign(start + secs(5) + SILENCE));
        // Asked something just now after a long sleep: it has time for that.
        let woken = Known { asked: start + secs(60), ..known };
        assert!(!woken.wants_sign(start + secs(69)));
        assert!(woken.wants_sign(start + secs(70)));
    }

    /// How long a connection lasts to an origin that was asked something, and answers PINGs or not.
    async fn lasts(answers: bool) -> Option<Duration> {
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let (_send, mut connection) = h2::client::handshake(ours).await.unwrap();
        let signs = connection.ping_pong().unwrap();
        tokio::spawn(connection);
        let origin = tokio::spawn(async move {
            let mut origin = h2::server::handshake(theirs).await.unwrap();
            if answers {
                while origin.accept().await.is_some() {}
            }
            std::future::pending::<()>().await;
        });
        let pulse = Pulse::new();
        pulse.begin();
        let began = Instant::now();
        let stops = timeout(secs(3600), pulse.stops(signs)).await;
        origin.abort();
        stops.is_ok().then(|| began.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_ends_when_nobody_is_there_and_not_before() {
        assert_eq!(lasts(false).await, Some(SILENCE + PATIENCE));
        assert_eq!(lasts(true).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn who_gave_one_is_left_in_peace_until_it_is_asked_something_new() {
        let start = Instant::now();
        let prodded = start + SILENCE;
        let known = Known { heard: prodded, asked: start, prodded: Some(prodded), streams: 1 };
        assert!(!known.wants_sign(prodded + PEACE - Duration::from_nanos(1)));
        assert!(known.wants_sign(prodded + PEACE));
        let anew = Known { asked: prodded + secs(1), ..known };
        assert!(anew.wants_sign(prodded + secs(1) + SILENCE));
    }
}
