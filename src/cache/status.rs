//! What the client and the log are told: Cache-Status (RFC 9211), X-Cache and labels.

use std::fmt;

use http::HeaderValue;
use http::StatusCode;

use crate::message::digits::Digits;

/// The name under which this cache speaks in Cache-Status.
pub const CACHE_NAME: &str = "edgeproxy";

/// What became of a request at the cache, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Answered from the store, fresh.
    Hit,
    /// Nothing usable was stored.
    Miss,
    /// Answered from the store, stale, within a window.
    Stale,
    /// What was stored was stale; the origin sent a new response.
    Expired,
    /// What was stored was stale, or had to be validated; the origin confirmed it.
    Revalidated,
    /// The request went past the cache.
    Bypass,
}

impl Outcome {
    /// Every outcome.
    pub const ALL: [Self; 6] =
        [Self::Hit, Self::Miss, Self::Stale, Self::Expired, Self::Revalidated, Self::Bypass];

    /// The value of X-Cache.
    pub fn x_cache(self) -> &'static str {
        match self {
            Self::Hit => "HIT",
            Self::Miss => "MISS",
            Self::Stale => "STALE",
            Self::Expired => "EXPIRED",
            Self::Revalidated => "REVALIDATED",
            Self::Bypass => "BYPASS",
        }
    }

    /// The label of metrics and the access log.
    pub fn label(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Miss => "miss",
            Self::Stale => "stale",
            Self::Expired => "expired",
            Self::Revalidated => "revalidated",
            Self::Bypass => "bypass",
        }
    }
}

/// Why a request went to the origin (RFC 9211 §2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Forward {
    /// The cache was configured, or forced, not to handle it.
    Bypass,
    /// The method's semantics require it.
    Method,
    /// Nothing is stored under the URI.
    UriMiss,
    /// Something is stored under the URI, but no variant that the request selects.
    VaryMiss,
    /// Nothing that could be used is stored; which of the two above is not known.
    Miss,
    /// The request's own directives asked for it.
    Request,
    /// What is stored is stale.
    Stale,
    /// What is stored is a part that does not suffice.
    Partial,
}

impl Forward {
    /// Every reason.
    pub const ALL: [Self; 8] = [
        Self::Bypass,
        Self::Method,
        Self::UriMiss,
        Self::VaryMiss,
        Self::Miss,
        Self::Request,
        Self::Stale,
        Self::Partial,
    ];

    /// The token of RFC 9211 §2.2, also the label of metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Bypass => "bypass",
            Self::Method => "method",
            Self::UriMiss => "uri-miss",
            Self::VaryMiss => "vary-miss",
            Self::Miss => "miss",
            Self::Request => "request",
            Self::Stale => "stale",
            Self::Partial => "partial",
        }
    }
}

/// Room for most members.
const USUAL: usize = 64;

/// One member of Cache-Status: what this cache did with a request (RFC 9211 §2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CacheStatus {
    /// Where the answer came from; `None` says nothing of it, as for an answer made here.
    pub source: Option<Source>,
    /// The seconds of freshness left, negative when stale.
    pub ttl: Option<i64>,
    /// Whether the response was stored.
    pub stored: bool,
    /// Whether the request waited for another's answer.
    pub collapsed: bool,
    /// Why, in one of our labels.
    pub detail: Option<&'static str>,
}

/// Where an answer came from: RFC 9211 forbids saying both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// From the store.
    Hit,
    /// From the origin.
    Forwarded {
        /// Why it was asked.
        why: Forward,
        /// What it answered, if it did.
        status: Option<StatusCode>,
    },
}

impl CacheStatus {
    /// An answer from the store with this many seconds of freshness left.
    pub fn hit(ttl: i64) -> Self {
        Self { source: Some(Source::Hit), ttl: Some(ttl), ..Self::default() }
    }

    /// An answer from the origin, asked for this reason.
    pub fn forwarded(why: Forward) -> Self {
        Self { source: Some(Source::Forwarded { why, status: None }), ..Self::default() }
    }

    /// The same with what the origin answered; nothing changes on a hit.
    #[must_use]
    pub fn with_status(mut self, answered: StatusCode) -> Self {
        if let Some(Source::Forwarded { status, .. }) = &mut self.source {
            *status = Some(answered);
        }
        self
    }

    /// The same with the seconds of freshness left.
    #[must_use]
    pub fn with_ttl(self, ttl: i64) -> Self {
        Self { ttl: Some(ttl), ..self }
    }

    /// The same, stored.
    #[must_use]
    pub fn stored(self) -> Self {
        Self { stored: true, ..self }
    }

    /// The same, after waiting for another's answer.
    #[must_use]
    pub fn collapsed(self) -> Self {
        Self { collapsed: true, ..self }
    }

    /// The same with a reason: the label of one of our enums.
    #[must_use]
    pub fn with_detail(self, detail: &'static str) -> Self {
        Self { detail: Some(detail), ..self }
    }

    /// The field value. Where an upstream cache sent a Cache-Status, append this line after it: the
    /// list runs from the origin to the client (RFC 9211 §2).
    pub fn to_value(&self) -> HeaderValue {
        let mut text = String::with_capacity(USUAL);
        self.write_to(&mut text).expect("a string takes everything");
        HeaderValue::try_from(text).expect("a name, tokens and numbers are visible ASCII")
    }
}

/// The member as Structured Field text: `edgeproxy; hit; ttl=30`.
impl fmt::Display for CacheStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_to(f)
    }
}

impl CacheStatus {
    /// Writes the member as Structured Field text.
    ///
    /// # Errors
    /// Those of `to`.
    pub fn write_to(&self, to: &mut impl fmt::Write) -> fmt::Result {
        to.write_str(CACHE_NAME)?;
        match self.source {
            None => {}
            Some(Source::Hit) => to.write_str("; hit")?,
            Some(Source::Forwarded { why, status }) => {
                to.write_str("; fwd=")?;
                to.write_str(why.label())?;
                if let Some(status) = status {
                    to.write_str("; fwd-status=")?;
                    to.write_str(status.as_str())?;
                }
            }
        }
        if let Some(ttl) = self.ttl {
            // An SF integer has at most 15 digits (RFC 9651 §3.3.1).
            to.write_str("; ttl=")?;
            write_integer(to, ttl.clamp(-999_999_999_999_999, 999_999_999_999_999))?;
        }
        if self.stored {
            to.write_str("; stored")?;
        }
        if self.collapsed {
            to.write_str("; collapsed")?;
        }
        if let Some(detail) = self.detail {
            to.write_str("; detail=")?;
            write_detail(to, detail)?;
        }
        Ok(())
    }
}

/// Writes a number.
fn write_integer(to: &mut impl fmt::Write, number: i64) -> fmt::Result {
    if number < 0 {
        to.write_char('-')?;
    }
    to.write_str(Digits::of(number.unsigned_abs()).as_str())
}

/// A token where the text is one, else a string without what a string may not hold.
fn write_detail(f: &mut impl fmt::Write, detail: &str) -> fmt::Result {
    let token = detail.starts_with(|c: char| c.is_ascii_alphabetic())
        && detail.bytes().all(super::fields::is_token_byte);
    if token {
        return f.write_str(detail);
    }
    f.write_char('"')?;
    for c in detail.chars().filter(|c| matches!(c, ' '..='~')) {
        if matches!(c, '"' | '\\') {
            f.write_char('\\')?;
        }
        f.write_char(c)?;
    }
    f.write_char('"')
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;
    use crate::cache::dictionary;
    use crate::cache::lookup::Bypass;
    use crate::cache::storable::NotStorable;

    #[test]
    fn a_hit_says_how_long_it_is_fresh() {
        assert_eq!(CacheStatus::hit(376).to_value(), "edgeproxy; hit; ttl=376");
    }

    #[test]
    fn numbers_are_written_with_all_their_digits() {
        for number in [0, 7, 10, -1, 376, 999_999_999_999_999, i64::MIN, i64::MAX] {
            let mut text = String::new();
            write_integer(&mut text, number).expect("a string takes everything");
            assert_eq!(text, number.to_string());
        }
    }

    #[test]
    fn a_stale_hit_has_a_negative_ttl() {
        let stale = CacheStatus::hit(-412).with_detail("stale-while-revalidate");
        assert_eq!(stale.to_value(), "edgeproxy; hit; ttl=-412; detail=stale-while-revalidate");
    }

    #[test]
    fn a_miss_says_what_became_of_it() {
        let miss = CacheStatus::forwarded(Forward::UriMiss).with_status(StatusCode::OK).stored();
        assert_eq!(miss.to_value(), "edgeproxy; fwd=uri-miss; fwd-status=200; stored");
    }

    #[test]
    fn a_miss_that_is_not_stored_says_why() {
        let miss =
            CacheStatus::forwarded(Forward::VaryMiss).with_detail(NotStorable::Private.label());
        assert_eq!(miss.to_value(), "edgeproxy; fwd=vary-miss; detail=private");
    }

    #[test]
    fn a_collapsed_request_says_so() {
        let waited = CacheStatus::forwarded(Forward::Miss).collapsed().with_ttl(60);
        assert_eq!(waited.to_value(), "edgeproxy; fwd=miss; ttl=60; collapsed");
    }

    #[test]
    fn a_hit_has_no_origin_status() {
        assert_eq!(CacheStatus::hit(1).with_status(StatusCode::OK), CacheStatus::hit(1));
    }

    #[test]
    fn an_answer_made_here_says_neither() {
        let made = CacheStatus::default().with_detail("only-if-cached");
        assert_eq!(made.to_value(), "edgeproxy; detail=only-if-cached");
    }

    #[test]
    fn forwards_are_the_tokens_of_the_rfc() {
        assert_eq!(
            Forward::ALL.map(Forward::label),
            ["bypass", "method", "uri-miss", "vary-miss", "miss", "request", "stale", "partial"]
        );
    }

    #[test]
    fn x_cache_is_the_label_in_capitals() {
        for outcome in Outcome::ALL {
            assert_eq!(outcome.x_cache(), outcome.label().to_uppercase());
        }
    }

    #[test]
    fn labels_are_tokens_and_differ() {
        fn check(labels: &[&str]) {
            let different: HashSet<_> = labels.iter().collect();
            assert_eq!(different.len(), labels.len());
            for label in labels {
                assert!(label.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'), "{label}");
            }
        }
        check(&NotStorable::ALL.map(NotStorable::label));
        check(&Bypass::ALL.map(Bypass::label));
        check(&Forward::ALL.map(Forward::label));
        check(&Outcome::ALL.map(Outcome::label));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn every_status_is_a_structured_field(
            why in proptest::sample::select(&Forward::ALL[..]),
            status in proptest::option::of(100_u16..1000),
            ttl in proptest::option::of(any::<i64>()),
            flags in any::<[bool; 3]>(),
        ) {
            let base = if flags[0] { CacheStatus::hit(0) } else { CacheStatus::forwarded(why) };
            let base = match status.and_then(|code| StatusCode::from_u16(code).ok()) {
                Some(code) => base.with_status(code),
                None => base,
            };
            let written = CacheStatus {
                ttl,
                stored: flags[1],
                collapsed: flags[2],
                detail: Some("a \"b\" \\ \u{e9}"),
                ..base
            };
            let text = written.to_value();
            // A list member with parameters reads like the value of a dictionary member.
            let entry = [&b"x="[..], text.as_bytes()].concat();
            prop_assert!(dictionary::parse(&entry).is_some(), "{text:?}");
        }
    }
}
