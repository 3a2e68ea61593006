//! How old a response is and how long it stays fresh (RFC 9111 §4.2).
//!
//! # Clocks that disagree
//!
//! Three clocks speak: the origin's (Date, Expires, Last-Modified), those of the caches between
//! (Age) and ours. A lifetime is always a difference of two readings of *one* clock: Expires minus
//! Date are both the origin's, so its skew cancels; only where Date is missing or unreadable does our
//! time of arrival take its place (RFC 9110 §6.6.1). Age, however, must compare clocks. A Date behind
//! ours makes the response look older than it is, which costs a validation and harms nobody; a Date
//! ahead of ours would make it younger than new-born, so the difference is never below zero and the
//! Age counted by the caches between stands as a lower bound. Should our own clock step back, the
//! time in store counts as none, never as negative.

use std::time::Duration;
use std::time::SystemTime;

use http::HeaderMap;
use http::HeaderName;
use http::header;

use crate::cache::Exchange;
use crate::cache::date;
use crate::cache::directives::LONGEST;
use crate::cache::directives::Reach;
use crate::cache::directives::ResponseDirectives;
use crate::cache::directives::Source;
use crate::cache::directives::delta_seconds;
use crate::cache::fields;

/// The times of a stored response and what staleness it bears: all that reuse asks about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Life {
    /// When its header section arrived, or the 304 that last freshened it.
    pub arrived: SystemTime,
    /// How old it was then: `corrected_initial_age` (§4.2.3).
    pub age_at_arrival: Duration,
    /// The age at which it ceases to be fresh.
    pub lifetime: Duration,
    /// For how long beyond it may be used while being refreshed; zero when closed.
    pub stale_while_revalidate: Duration,
    /// For how long beyond it may be used while the origin fails; zero when closed.
    pub stale_if_error: Duration,
    /// What else may use it stale.
    pub staleness: Staleness,
    /// When it must be validated.
    pub validation: Validation,
    /// Whether it changes while fresh.
    pub change: Change,
}

/// Which stale uses the origin has left open (§4.2.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Staleness {
    /// A client may ask for it (`max-stale`), and both windows count.
    Open,
    /// Only the windows that the origin named: `s-maxage` shuts out the client's wish.
    WindowsOnly,
    /// None: `must-revalidate`, `proxy-revalidate` or `no-cache`.
    Closed,
}

/// When a stored response must be validated before use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Validation {
    /// Once it is stale.
    WhenStale,
    /// Always: `no-cache` (§5.2.2.4).
    Always,
}

/// Whether a response changes while it is fresh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It may.
    Possible,
    /// It does not: `immutable` (RFC 8246).
    Never,
}

/// What a stored response says of its own reuse, its times and windows aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restraint {
    /// Whether it may be served stale where a client asks for that. Its own windows were closed when it
    /// was stored, if they had to be.
    pub staleness: Staleness,
    /// When it must be validated before use, unless the route sets its lifetime.
    pub validation: Validation,
    /// Whether it changes while it is fresh.
    pub change: Change,
}

impl Restraint {
    /// What these fields of a response say.
    #[must_use]
    pub fn of(response: &HeaderMap) -> Self {
        let (directives, _) = ResponseDirectives::governing(response);
        Self {
            staleness: if directives.must_revalidate || directives.proxy_revalidate {
                Staleness::Closed
            } else if directives.s_maxage.is_some() {
                Staleness::WindowsOnly
            } else {
                Staleness::Open
            },
            validation: if directives.no_cache == Reach::Whole {
                Validation::Always
            } else {
                Validation::WhenStale
            },
            change: if directives.immutable { Change::Never } else { Change::Possible },
        }
    }
}

impl Life {
    /// `current_age` (§4.2.3). It never falls as time passes, and stands still while our clock is
    /// behind the arrival.
    pub fn age(&self, now: SystemTime) -> Duration {
        let resident = now.duration_since(self.arrived).unwrap_or_default();
        self.age_at_arrival.saturating_add(resident)
    }

    /// The Age field's value: whole seconds, at most 2^31 (§5.1).
    pub fn age_seconds(&self, now: SystemTime) -> u64 {
        self.age(now).min(LONGEST).as_secs()
    }

    /// By how much it has outlived its lifetime; `None` while it is fresh, which is while its
    /// lifetime is greater than its age (§4.2).
    pub fn overdue(&self, now: SystemTime) -> Option<Duration> {
        self.age(now).checked_sub(self.lifetime)
    }

    /// The seconds of freshness left, negative once stale: the `ttl` of Cache-Status (RFC 9211 §2.5).
    pub fn remaining_seconds(&self, now: SystemTime) -> i64 {
        let age = self.age(now);
        let whole = |time: Duration| i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
        match self.lifetime.checked_sub(age) {
            Some(left) => whole(left),
            None => -whole(age.saturating_sub(self.lifetime)),
        }
    }

    /// Ends its freshness now and leaves its windows: a soft purge. What is stale already keeps the
    /// moment at which it became so.
    pub fn expire(&mut self, now: SystemTime) {
        self.lifetime = self.lifetime.min(self.age(now));
    }
}

/// Where a freshness lifetime came from, in order of precedence (§4.2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LifetimeSource {
    /// The route's `override_ttl`.
    Override,
    /// `s-maxage`.
    SMaxage,
    /// `max-age`.
    MaxAge,
    /// Expires against Date.
    Expires,
    /// What the route says of the status.
    Status,
    /// The route's `default_ttl`.
    Default,
    /// A fraction of the time since Last-Modified (§4.2.2).
    Heuristic,
    /// Nothing says how long; `no-cache` asks for validation every time.
    NoCache,
}

impl LifetimeSource {
    /// Whether the response itself says how long it is fresh.
    pub fn is_stated(self) -> bool {
        match self {
            Self::SMaxage | Self::MaxAge | Self::Expires => true,
            Self::Override | Self::Status | Self::Default | Self::Heuristic | Self::NoCache => {
                false
            }
        }
    }

    /// The name in logs, metrics and explanations.
    pub fn label(self) -> &'static str {
        match self {
            Self::Override => "override-ttl",
            Self::SMaxage => "s-maxage",
            Self::MaxAge => "max-age",
            Self::Expires => "expires",
            Self::Status => "status-ttl",
            Self::Default => "default-ttl",
            Self::Heuristic => "heuristic",
            Self::NoCache => "no-cache",
        }
    }
}

/// `corrected_initial_age` (§4.2.3).
pub fn initial_age(headers: &HeaderMap, exchange: Exchange) -> Duration {
    let delay = exchange.arrived.duration_since(exchange.requested).unwrap_or_default();
    let corrected = age_value(headers).saturating_add(delay);
    apparent_age(headers, exchange.arrived).max(corrected).min(LONGEST)
}

// Date has no fractions of a second: compared with our fine clock, half of all new responses would
// look nearly a second old. So both are taken in whole seconds.
fn apparent_age(headers: &HeaderMap, arrived: SystemTime) -> Duration {
    let Some(sent) = date_value(headers, arrived) else {
        return Duration::ZERO;
    };
    let seconds = date::seconds(arrived).saturating_sub(date::seconds(sent));
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

/// The age that the caches between have counted: the first member of the first Age line; what is not
/// a number of seconds is ignored (§5.1).
pub fn age_value(headers: &HeaderMap) -> Duration {
    headers.get(header::AGE).map(|line| age_of(line.as_bytes())).unwrap_or_default()
}

/// The same of the first Age line.
pub fn age_of(line: &[u8]) -> Duration {
    fields::members(line).next().and_then(delta_seconds).unwrap_or_default()
}

/// When the origin says that it made the response; `None` when it does not say so, says it twice
/// differently or unreadably: then the time of arrival stands for it.
pub fn date_value(headers: &HeaderMap, now: SystemTime) -> Option<SystemTime> {
    single(headers, &header::DATE).and_then(|text| date::parse(text, now))
}

/// When the origin says that the content last changed.
pub fn last_modified(headers: &HeaderMap, now: SystemTime) -> Option<SystemTime> {
    single(headers, &header::LAST_MODIFIED).and_then(|text| date::parse(text, now))
}

/// The value of a field that has one: `None` when there is none, or lines that differ.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a [u8]> {
    let mut lines = headers.get_all(name).iter();
    let line = lines.next()?;
    lines.all(|other| other == line).then_some(line.as_bytes())
}

/// The lifetime that the response itself states (§4.2.1), and where. An Expires that is no date, or
/// that stands there twice differently, states that it has expired (§5.3).
pub fn explicit_lifetime(
    headers: &HeaderMap,
    directives: &ResponseDirectives,
    source: Source,
    arrived: SystemTime,
) -> Option<(Duration, LifetimeSource)> {
    if let Some(lifetime) = directives.s_maxage {
        return Some((lifetime, LifetimeSource::SMaxage));
    }
    if let Some(lifetime) = directives.max_age {
        return Some((lifetime, LifetimeSource::MaxAge));
    }
    if source == Source::Targeted || !headers.contains_key(header::EXPIRES) {
        return None;
    }
    let expires = single(headers, &header::EXPIRES).and_then(|text| date::parse(text, arrived));
    let made = date_value(headers, arrived).unwrap_or(arrived);
    let lifetime = expires.and_then(|expires| expires.duration_since(made).ok());
    Some((lifetime.unwrap_or_default().min(LONGEST), LifetimeSource::Expires))
}

/// A fraction, in percent, of the time that the content had been unchanged when the response was made
/// (§4.2.2); `None` when Last-Modified does not say, or when nothing remains of it.
pub fn heuristic_lifetime(
    headers: &HeaderMap,
    percent: u8,
    longest: Duration,
    arrived: SystemTime,
) -> Option<Duration> {
    let made = date_value(headers, arrived).unwrap_or(arrived);
    let unchanged = made.duration_since(last_modified(headers, arrived)?).ok()?.min(LONGEST);
    let lifetime = (unchanged / 100).saturating_mul(u32::from(percent)).min(longest);
    (!lifetime.is_zero()).then_some(lifetime)
}

#[cfg(test)]
#[path = "freshness_tests.rs"]
mod tests;
