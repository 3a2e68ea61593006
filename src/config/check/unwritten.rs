//! What nobody wrote of an upstream and follows from what is written: in the plan as in what is shown, which loads again.
//!
//! Whether a value was written is not known of it. But two that contradict each other are refused where both are: of those that
//! were taken, the one that has the built-in value follows the other.

use std::time::Duration;

use crate::config::check::health;
use crate::config::check::uses::Uses;
use crate::config::schema::health::Ejection;
use crate::config::schema::upstream::Concurrency;
use crate::config::schema::upstream::Protocol;
use crate::config::schema::upstream::Retry;
use crate::config::schema::upstream::Timeouts;
use crate::config::schema::upstream::Upstream;
use crate::config::schema::value::Switch;
use crate::units::Period;

/// How long an origin may be silent that nobody said more of.
const SILENCE: Period = Period(Duration::from_secs(30));

/// Fills it in, of an upstream that its routes use so.
pub(in crate::config) fn fill(upstream: &mut Upstream, uses: Uses) {
    let total = upstream.timeouts.total;
    upstream.timeouts.connect = connect(upstream, uses);
    let silence = silence(&upstream.timeouts);
    upstream.timeouts.read.get_or_insert(silence);
    upstream.timeouts.write.get_or_insert(silence);
    upstream.pool.queue_timeout = upstream.pool.queue_timeout.min(total);
    upstream.pool.max_uploads = uploads(upstream);
    if let Switch::On(retry) = &mut upstream.retry {
        (retry.backoff, retry.max_backoff) = waits(retry, total);
    }
    if let Switch::On(ejection) = &mut upstream.ejection {
        (ejection.out_for, ejection.max_out_for) = rests(ejection);
    }
    if let Switch::On(limit) = &mut upstream.concurrency {
        (limit.min, limit.max) = bounds(limit);
    }
    if let Switch::On(checks) = &mut upstream.health {
        health::fill(checks);
    }
}

/// How long connecting may take: no longer than all of what it is a part of.
pub(super) fn connect(upstream: &Upstream, uses: Uses) -> Period {
    let Timeouts { connect, total, .. } = upstream.timeouts;
    let bounded = connect.min(total);
    longest_try(upstream, uses).map_or(bounded, |longest| bounded.min(longest))
}

/// How long an attempt at it may take at most, where that is bounded for all who ask it.
pub(super) fn longest_try(upstream: &Upstream, uses: Uses) -> Option<Period> {
    let own = upstream.retry.as_ref()?.per_try.get()?;
    let longest = own.0.max(uses.own_try);
    (longest < Duration::MAX).then_some(Period(longest))
}

/// How long an origin may be silent: nobody who says only how long all may take wants to wait longer than that for a body that
/// stalls.
pub(super) fn silence(timeouts: &Timeouts) -> Period {
    SILENCE.min(timeouts.total)
}

/// How many connections uploads may hold. Over HTTP/2 that depends on how many requests the origin allows on one.
pub(super) fn uploads(upstream: &Upstream) -> Option<u32> {
    let half = (upstream.pool.max_connections / 2).max(1);
    upstream.pool.max_uploads.or_else(|| (upstream.protocol == Protocol::Http1).then_some(half))
}

/// The first wait before another attempt, and the longest: none longer than all attempts may take, and none at all where the
/// first one is none.
pub(in crate::config) fn waits(retry: &Retry, total: Period) -> (Period, Period) {
    let built_in = Retry::default().max_backoff;
    let (first, longest) = in_order(retry.backoff, retry.max_backoff, built_in);
    if first.0.is_zero() { (first, first) } else { (first.min(total), longest.min(total)) }
}

/// For how long a backend is out the first time, and at most.
pub(super) fn rests(ejection: &Ejection) -> (Period, Period) {
    in_order(ejection.out_for, ejection.max_out_for, Ejection::default().max_out_for)
}

/// Between which bounds a limit of concurrency is found.
pub(super) fn bounds(limit: &Concurrency) -> (u32, u32) {
    in_order(limit.min, limit.max, Concurrency::default().max)
}

/// The least and the most, of which one follows the other where only that was written.
fn in_order<T: Ord + Copy>(least: T, most: T, built_in_most: T) -> (T, T) {
    if least <= most {
        (least, most)
    } else if most == built_in_most {
        (least, least)
    } else {
        (most, most)
    }
}
