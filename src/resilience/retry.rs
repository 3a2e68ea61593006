//! Retries: whether a request that failed is tried again, and after how long.

use std::time::Duration;

/// The longest `Retry-After` that is waited for. A client is not kept waiting for longer than it would
/// wait before it asked again itself.
pub const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(3);

/// How many dead connections one request may meet without that being counted. Idle ones are looked at before
/// they are used: a second one that dies says that the origin closes when it sees this request.
pub const FREE_DEAD_CONNECTIONS: u32 = 1;

/// How often one request may come too late for a connection that its origin gives up, without that being counted.
/// Where an origin does so after every few requests, all that are on their way meet it together, and some of them
/// again on the next connection. One that takes nothing at all still comes to its end.
pub const FREE_LEFT: u32 = 8;

/// How many of these are made at once: those who came too late together are not to come together again and again.
const AT_ONCE: u32 = 2;

/// How often an origin may refuse one request, without having looked at it, before that is counted: one that has
/// too much to do is not to get more of the same.
pub const FREE_REFUSED: u32 = 1;

/// When and how often requests are tried again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// How often a request is sent at most, the first time included.
    pub attempts: u32,
    /// The longest wait before the second attempt; it doubles with each further one.
    pub backoff: Duration,
    /// The longest wait before any attempt.
    pub max_backoff: Duration,
    /// Statuses of responses that are taken for failures.
    pub statuses: Vec<u16>,
    /// Whether requests that are not idempotent are tried again even if the origin may have seen them.
    pub non_idempotent: bool,
}

impl Default for Settings {
    /// Three attempts, 100 ms doubling up to 2 s, no statuses, idempotent requests only.
    fn default() -> Self {
        Self {
            attempts: 3,
            backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(2),
            statuses: Vec::new(),
            non_idempotent: false,
        }
    }
}

/// How much of the request the origin may have seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// Nothing, for certain: no connection, or the peer said so (`REFUSED_STREAM`, a `GOAWAY` below it).
    Nothing,
    /// Some or all of it.
    Something,
}

/// How an attempt failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// No connection was made: refused, unreachable, no handshake, none in time, no name.
    Connect,
    /// A connection that had served requests before was closed without a byte of a response.
    DeadConnection,
    /// A new connection broke, or any one within a response.
    Broken,
    /// The time for this attempt was over.
    TimedOut,
    /// The connection was given up in good order, and the request came too late for it.
    Left,
    /// The peer would not take the request now.
    Refused,
    /// A response came, of this status.
    Status(u16),
}

/// A failed attempt and what is left to its request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failed {
    /// How it failed.
    pub what: What,
    /// What the origin may have seen in this attempt.
    pub sent: Sent,
    /// How many attempts there were, this one included; without those that were not counted.
    pub attempts: u32,
    /// How many attempts were not counted before this one.
    pub uncounted: u32,
    /// Whether the method is idempotent (RFC 9110 §9.2.2), or taken for it.
    pub idempotent: bool,
    /// Whether the request can be sent again as a whole: there is no body, or all of it is kept that
    /// was read.
    pub replayable: bool,
    /// Whether the client was sent a byte of a final response.
    pub downstream_started: bool,
    /// The time that is left for the request; `None` when it is not bounded.
    pub left: Option<Duration>,
    /// What the response asked for (RFC 9110 §10.2.3), where the same backend would be asked again.
    pub retry_after: Option<Duration>,
}

/// What is done about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// It is tried again.
    Again {
        /// How long to wait before.
        after: Duration,
        /// Whether the failed attempt is counted, and the next one needs the budget's leave.
        counted: Counted,
    },
    /// It failed, and the client is told so.
    GiveUp(Reason),
}

/// Whether an attempt is one of those that are limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counted {
    /// As any.
    Yes,
    /// The connection was dead before the request came to it, or the peer has not looked at the request.
    No,
}

/// Why a request is not tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The client has a part of the response.
    Started,
    /// The response has a status that is not for retries.
    Status,
    /// The origin may have acted on it, and acting twice may differ from once.
    NotIdempotent,
    /// A part of its body is gone.
    NotReplayable,
    /// It was tried as often as it may be.
    Attempts,
    /// `Retry-After` asks for more than there is, or than is waited for.
    RetryAfter,
    /// The time left is over before the next attempt would begin.
    NoTime,
    /// The budget of the group is spent. [`decide`] does not know it: for those who do.
    Budget,
}

impl Reason {
    /// The word for it in logs and metrics.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Status => "status",
            Self::NotIdempotent => "not_idempotent",
            Self::NotReplayable => "not_replayable",
            Self::Attempts => "attempts",
            Self::RetryAfter => "retry_after",
            Self::NoTime => "no_time",
            Self::Budget => "budget",
        }
    }
}

/// Whether a request is tried again after this failure. `random` is any number.
///
/// A dead connection, and a peer that has not looked at the request, are followed by another attempt without being
/// counted, as often as that is free: at once, or after the first two by a short wait; the others by a wait of any length
/// up to a limit that doubles each time ("full jitter": those who failed together do not come back together).
#[must_use]
pub fn decide(settings: &Settings, failed: &Failed, random: u64) -> Decision {
    if let Some(reason) = forbidden(settings, failed) {
        return Decision::GiveUp(reason);
    }
    if failed.uncounted < free(failed.what) {
        let after = match failed.uncounted {
            0..AT_ONCE => Duration::ZERO,
            AT_ONCE.. => jitter(settings.backoff, random),
        };
        return match failed.left {
            Some(left) if after >= left => Decision::GiveUp(Reason::NoTime),
            Some(_) | None => Decision::Again { after, counted: Counted::No },
        };
    }
    if failed.attempts >= settings.attempts {
        return Decision::GiveUp(Reason::Attempts);
    }
    let mut after = jitter(longest_wait(settings, failed.attempts), random);
    if let Some(asked) = failed.retry_after {
        after = after.saturating_add(asked);
        if asked > LONGEST_RETRY_AFTER || failed.left.is_some_and(|left| asked >= left) {
            return Decision::GiveUp(Reason::RetryAfter);
        }
    }
    match failed.left {
        Some(left) if after >= left => Decision::GiveUp(Reason::NoTime),
        Some(_) | None => Decision::Again { after, counted: Counted::Yes },
    }
}

/// Whether a failure is held against the peer: of a request that is tried `again` or not, and for which so many attempts
/// were not counted by now.
#[must_use]
pub fn is_blamed(what: What, again: Option<Counted>, uncounted: u32) -> bool {
    let is_free = again == Some(Counted::No);
    match what {
        What::DeadConnection => !is_free,
        // Nobody's fault, whether it can be said again or not, unless it is so every time.
        What::Left => !is_free && uncounted >= FREE_LEFT,
        // Who would not have it is charged with that, although it is said again.
        What::Refused | What::Connect | What::Broken | What::TimedOut | What::Status(_) => true,
    }
}

/// How many attempts are not counted, where one has failed so.
fn free(what: What) -> u32 {
    match what {
        What::DeadConnection => FREE_DEAD_CONNECTIONS,
        What::Left => FREE_LEFT,
        What::Refused => FREE_REFUSED,
        What::Connect | What::Broken | What::TimedOut | What::Status(_) => 0,
    }
}

/// Why it must not be tried again, whatever the counts and the time.
fn forbidden(settings: &Settings, failed: &Failed) -> Option<Reason> {
    if failed.downstream_started {
        return Some(Reason::Started);
    }
    if let What::Status(status) = failed.what
        && !settings.statuses.contains(&status)
    {
        return Some(Reason::Status);
    }
    // A client does not repeat a request that is not idempotent unless it knows that the first one
    // was not acted upon (RFC 9110 §9.2.2).
    let harmless = failed.idempotent || failed.sent == Sent::Nothing || settings.non_idempotent;
    if !harmless {
        return Some(Reason::NotIdempotent);
    }
    (!failed.replayable).then_some(Reason::NotReplayable)
}

/// The longest wait after so many attempts.
fn longest_wait(settings: &Settings, attempts: u32) -> Duration {
    let doublings = attempts.saturating_sub(1).min(31);
    settings.backoff.saturating_mul(1 << doublings).min(settings.max_backoff)
}

/// A part of `longest`, by chance.
fn jitter(longest: Duration, random: u64) -> Duration {
    let nanoseconds = u64::try_from(longest.as_nanos()).unwrap_or(u64::MAX);
    Duration::from_nanos(((u128::from(random) * u128::from(nanoseconds)) >> 64) as u64)
}

#[cfg(test)]
#[path = "retry_tests.rs"]
mod tests;
