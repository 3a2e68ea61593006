//! Checks what an upstream does about failures: its breaker, its further attempts.

use std::time::Duration;

use crate::config::check::DAY;
use crate::config::check::moot;
use crate::config::check::period;
use crate::config::check::unwritten;
use crate::config::check::uses::Uses;
use crate::config::check::within;
use crate::config::path::Path;
use crate::config::report::Report;
use crate::config::schema;
use crate::resilience::breaker;
use crate::resilience::budget;
use crate::resilience::limit;
use crate::resilience::retry;
use crate::upstream::Breaker;
use crate::upstream::Fault;
use crate::upstream::Retry;

/// The shortest time that means anything.
const MOMENT: Duration = Duration::from_millis(1);

/// What belongs to the rate of failures.
pub(in crate::config) const ABOUT_RATE: [&str; 2] = ["min_requests", "window"];

/// When a backend is given a rest.
pub(super) fn breaker(
    written: &schema::upstream::Breaker,
    at: &Path,
    report: &mut Report<'_>,
) -> Breaker {
    within(report, &at.key("failures"), written.failures, 1, 1_000_000);
    within(report, &at.key("min_requests"), written.min_requests, 1, 1_000_000);
    within(report, &at.key("probes"), written.probes, 1, 1000);
    let rate = written.rate.get();
    match rate {
        Some(rate) => within(report, &at.key("rate"), rate, 1, 100),
        None => {
            moot(
                at,
                ABOUT_RATE,
                " without `rate: …`",
                "write it beside this, or remove it",
                report,
            );
        }
    }
    statuses(written.statuses.as_deref().unwrap_or_default(), &at.key("statuses"), report);
    let counts = written.counts.as_ref();
    // Statuses that are not written are some, and a word that was none of these was told.
    let names_none = |key: &str, is_empty: bool| is_empty && !report.is_broken(&at.key(key));
    if names_none("counts", counts.is_some_and(Vec::is_empty))
        && names_none("statuses", written.statuses.as_ref().is_some_and(Vec::is_empty))
    {
        report
            .error(at, "nothing counts as a failure")
            .help("name something in `counts` or `statuses`, or write `breaker: off`");
    }
    Breaker {
        settings: breaker::Settings {
            failures: written.failures,
            rate,
            min_requests: written.min_requests,
            window: period(report, &at.key("window"), written.window, Duration::from_secs(1), DAY),
            open_for: period(report, &at.key("open_for"), written.open_for, MOMENT, DAY),
            probes: written.probes,
        },
        counts: counts.map(|counts| counts.iter().copied().map(fault).collect()),
        statuses: written.statuses.clone(),
    }
}

fn fault(written: schema::upstream::Fault) -> Fault {
    match written {
        schema::upstream::Fault::Connect => Fault::Connect,
        schema::upstream::Fault::Timeout => Fault::Timeout,
        schema::upstream::Fault::Closed => Fault::Closed,
        schema::upstream::Fault::Malformed => Fault::Malformed,
    }
}

/// How many requests an upstream is given at once.
pub(super) fn concurrency(
    written: &schema::upstream::Concurrency,
    at: &Path,
    report: &mut Report<'_>,
) -> limit::Settings {
    within(report, &at.key("min"), written.min, 1, 1_000_000);
    within(report, &at.key("max"), written.max, 1, 1_000_000);
    within(report, &at.key("tolerance"), written.tolerance, 100, 1000);
    let max = at.key("max");
    if written.max < written.min && report.has_both(&at.key("min"), &max) {
        report.error(&max, "it is below `min`").help("make it larger, or `min` smaller");
    }
    let (min, max) = unwritten::bounds(written);
    let built_in = limit::Settings::default();
    limit::Settings {
        initial: built_in.initial.clamp(min, max),
        min,
        max,
        tolerance: written.tolerance,
        window: built_in.window,
    }
}

/// What says how, of further attempts of an upstream that its routes use so, and means nothing where there are
/// none. That an HTTP/2 origin gives up its connections is followed by attempts that are not counted, which wait, too; and a
/// request that goes on to another upstream is one that is said again.
pub(in crate::config) fn about_further_attempts(
    upstream: &schema::upstream::Upstream,
    uses: Uses,
) -> impl Iterator<Item = &'static str> {
    let waits = upstream.protocol == schema::upstream::Protocol::Http2;
    let retry = upstream.retry.as_ref().filter(|retry| retry.attempts == 1 && !uses.repeats);
    let parts = retry.map(|retry| {
        [
            ("backoff", !waits),
            ("max_backoff", true),
            ("statuses", !uses.falls_back && !retry.statuses.is_empty()),
            ("non_idempotent", !uses.falls_back && retry.non_idempotent),
            ("budget", true),
        ]
    });
    parts.into_iter().flatten().filter(|(_, is_moot)| *is_moot).map(|(key, _)| key)
}

/// When a failed attempt is followed by another, of an upstream that its routes use so.
pub(super) fn retry(
    upstream: &schema::upstream::Upstream,
    uses: Uses,
    at: &Path,
    report: &mut Report<'_>,
) -> Retry {
    let keys = about_further_attempts(upstream, uses);
    moot(
        at,
        keys,
        ": there is one attempt only",
        "write `attempts` with more, or remove it",
        report,
    );
    let timeouts = &upstream.timeouts;
    let built_in = schema::upstream::Retry { attempts: 1, ..Default::default() };
    let written = upstream.retry.as_ref().unwrap_or(&built_in);
    within(report, &at.key("attempts"), written.attempts, 1, 10);
    within(report, &at.key("budget").key("percent"), written.budget.percent, 0, 1000);
    within(
        report,
        &at.key("budget").key("min_per_second"),
        written.budget.min_per_second,
        0,
        100_000,
    );
    let is_used = written.attempts > 1 || uses.repeats;
    if is_used && written.budget.percent == 0 && written.budget.min_per_second == 0 {
        report
            .error(&at.key("budget"), "it allows no further attempt")
            .help("allow some, or write `retry: off`");
    }
    statuses(&written.statuses, &at.key("statuses"), report);
    let (backoff, max_backoff) = (at.key("backoff"), at.key("max_backoff"));
    if written.max_backoff < written.backoff && report.has_both(&backoff, &max_backoff) {
        report
            .error(&max_backoff, "it is shorter than `backoff`")
            .help("the first wait already exceeds it; make it longer, or `backoff` shorter");
    }
    // Where there is one attempt only, that is said.
    if is_used && written.backoff.0.is_zero() && !written.max_backoff.0.is_zero() {
        let help = "write a longer `backoff`, or remove it: nobody waits";
        moot(at, ["max_backoff"], " with `backoff: 0`", help, report);
    }
    if let Some(per_try) = written.per_try.get()
        && per_try > timeouts.total
    {
        report
            .error(&at.key("per_try"), "it is longer than `timeouts.total`")
            .help("one attempt cannot take longer than all of them together");
    }
    for (at, wait) in [(&backoff, written.backoff), (&max_backoff, written.max_backoff)] {
        if wait > timeouts.total && report.has(at) {
            report
                .error(at, "it is longer than `timeouts.total`")
                .help("nobody waits longer than all attempts together may take; make it shorter");
        }
        period(report, at, wait, Duration::ZERO, DAY);
    }
    let (backoff, max_backoff) = unwritten::waits(written, timeouts.total);
    Retry {
        settings: retry::Settings {
            attempts: written.attempts,
            backoff: backoff.0,
            max_backoff: max_backoff.0,
            statuses: written.statuses.clone(),
            non_idempotent: written.non_idempotent,
        },
        budget: budget::Settings {
            percent: written.budget.percent,
            minimum: written.budget.min_per_second,
        },
        per_try: written
            .per_try
            .get()
            .map(|time| period(report, &at.key("per_try"), time, MOMENT, DAY)),
    }
}

/// Statuses that are failures.
pub(super) fn statuses(written: &[u16], at: &Path, report: &mut Report<'_>) {
    for (n, status) in written.iter().enumerate() {
        if !(400..=599).contains(status) {
            report
                .error(&at.index(n), format!("{status} is no failure"))
                .help("statuses of failures are 400 to 599");
        }
    }
}
