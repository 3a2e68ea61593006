//! Checks how a route's upstream is asked.

use std::time::Duration;

use crate::config::check::DAY;
use crate::config::check::action;
use crate::config::check::matching;
use crate::config::check::period;
use crate::config::check::resilience;
use crate::config::check::size;
use crate::config::check::within;
use crate::config::path::Path;
use crate::config::report::Report;
use crate::config::schema;
use crate::config::schema::value::OrOff;
use crate::config::schema::value::Switch;
use crate::route::asking::Asking;
use crate::route::asking::Hedge;
use crate::route::asking::Mirror;
use crate::route::asking::Retry;
use crate::units::ByteSize;
use crate::units::Period;
use crate::upstream;

/// The shortest time that means anything.
const MOMENT: Duration = Duration::from_millis(1);

/// How the upstreams of a route, `own`, are asked, where the route says so itself.
pub(super) fn asking(
    written: &schema::route::Route,
    own: &[usize],
    config: &schema::Config,
    upstreams: &[upstream::Settings],
    at: &Path,
    report: &mut Report<'_>,
) -> Asking {
    let own_settings: Vec<_> = own.iter().filter_map(|&index| upstreams.get(index)).collect();
    let limits = limits(written, &own_settings, config);
    let hedge = match &written.hedge {
        Some(Switch::On(hedge)) => Some(hedge),
        Some(Switch::Off) | None => None,
    };
    let hedge_at = at.key("hedge");
    let taken = &written.matches.methods;
    if hedge.is_some() {
        if !taken.is_empty() && !meet(&["GET", "HEAD", "OPTIONS"], taken) {
            report
                .error_in_key(
                    &hedge_at,
                    "only GET, HEAD and OPTIONS are hedged: this route takes none of them",
                )
                .help("remove it, or write one of them in `match.methods`");
        }
        for upstream in &own_settings {
            may_hedge(upstream, &hedge_at, report);
        }
    }
    let retry_at = at.key("retry");
    let retry = match &written.retry {
        Some(Switch::On(retry)) => {
            let next = written.fallback.as_ref().and_then(|to| to.upstream.as_deref());
            let falls_back = next.is_some();
            let next = next.and_then(|name| upstreams.get(action::position(name, config)?));
            if let (Some(OrOff::Is(per_try)), Some(next)) = (retry.per_try, next) {
                time_of_next(per_try, next, &retry_at.key("per_try"), report);
            }
            if let Some(repeated) = retry.methods.as_deref()
                && !repeated.is_empty()
                && !taken.is_empty()
                && !meet(repeated, taken)
            {
                report
                    .error_in_key(
                        &retry_at.key("methods"),
                        "this route takes none of these methods",
                    )
                    .help("write one of those in `match.methods`, or remove it");
            }
            self::retry(retry, falls_back, &own_settings, &limits, &retry_at, report)
        }
        Some(Switch::Off) => Retry { attempts: Some(1), ..Retry::default() },
        None => Retry::default(),
    };
    let mirror_at = at.key("mirror");
    let mirror = written.mirror.as_ref();
    Asking {
        hedge: hedge.map(|hedge| self::hedge(hedge, &limits, &hedge_at, report)),
        mirror: mirror.and_then(|mirror| {
            let largest = written.max_body.unwrap_or(config.defaults.max_body);
            self::mirror(mirror, largest, own, config, &mirror_at, report)
        }),
        retry,
    }
}

/// Whether a request can have one of `these` methods where the route takes `those`: GET includes HEAD.
fn meet(these: &[impl AsRef<str>], those: &[String]) -> bool {
    let is_read = |method: &str| ["GET", "HEAD"].iter().any(|one| method.eq_ignore_ascii_case(one));
    these.iter().map(AsRef::as_ref).any(|this| {
        those.iter().any(|that| this.eq_ignore_ascii_case(that) || is_read(this) && is_read(that))
    })
}

/// How long attempts have.
struct Limits {
    /// All together, as each of the route's upstreams says.
    upstreams: Vec<Limit>,
    /// All together, as the route says.
    route: Option<Limit>,
    /// One alone.
    one: Option<Limit>,
}

/// How long attempts have, and what says so.
struct Limit {
    who: &'static str,
    time: Duration,
    whose: String,
}

impl Limit {
    fn of_all(time: Duration, whose: impl Into<String>) -> Self {
        Self { who: "all attempts together have", time, whose: whose.into() }
    }

    fn of_one(time: Duration, whose: impl Into<String>) -> Self {
        Self { who: "an attempt has", time, whose: whose.into() }
    }

    /// Says of the time at `at` that it is over when all of this is.
    fn is_less(&self, at: &Path, report: &mut Report<'_>) {
        report
            .error(at, format!("{} {}", self.who, Period(self.time)))
            .help(format!("{} says so: make that longer, or this shorter", self.whose));
    }
}

/// How long the attempts of a route have.
fn limits(
    written: &schema::route::Route,
    own: &[&upstream::Settings],
    config: &schema::Config,
) -> Limits {
    let limit = |upstream: &&upstream::Settings| {
        let whose = format!("upstreams.{}.timeouts.total", upstream.name);
        Limit::of_all(upstream.timeouts.total, whose)
    };
    let (time, whose) = match written.timeout {
        Some(time) => (time, "the `timeout` of this route"),
        None => (config.defaults.timeout, "defaults.timeout"),
    };
    let route = time.get().map(|time| Limit::of_all(time.0, whose));
    Limits { upstreams: own.iter().map(limit).collect(), route, one: longest_try(written, own) }
}

/// How long one attempt of a route has, where that is bounded. Of several upstreams, one that has the time is enough.
fn longest_try(written: &schema::route::Route, own: &[&upstream::Settings]) -> Option<Limit> {
    if let Some(Switch::On(retry)) = &written.retry
        && let Some(per_try) = retry.per_try
    {
        return per_try.get().map(|time| Limit::of_one(time.0, "`retry.per_try` of this route"));
    }
    let tries: Option<Vec<Limit>> = own
        .iter()
        .map(|upstream| {
            let whose = format!("upstreams.{}.retry.per_try", upstream.name);
            Some(Limit::of_one(upstream.retry.per_try?, whose))
        })
        .collect();
    tries?.into_iter().max_by_key(|limit| limit.time)
}

/// Says of the time of an attempt that the upstream to which the route goes on has less for all of them.
fn time_of_next(per_try: Period, next: &upstream::Settings, at: &Path, report: &mut Report<'_>) {
    let (name, total) = (&next.name, next.timeouts.total);
    if per_try.0 > total {
        report
            .warning(
                at,
                format!("the `fallback`, \"{name}\", has {} for all attempts", Period(total)),
            )
            .help(format!(
                "upstreams.{name}.timeouts.total says so: make that longer, or this shorter"
            ));
    }
}

/// What differs from what these upstreams say of further attempts.
fn retry(
    written: &schema::asking::RouteRetry,
    falls_back: bool,
    own: &[&upstream::Settings],
    limits: &Limits,
    at: &Path,
    report: &mut Report<'_>,
) -> Retry {
    if let Some(attempts) = written.attempts {
        within(report, &at.key("attempts"), attempts, 1, 10);
    }
    resilience::statuses(
        written.statuses.as_deref().unwrap_or_default(),
        &at.key("statuses"),
        report,
    );
    let per_try_at = at.key("per_try");
    let per_try = written
        .per_try
        .map(|per_try| per_try.get().map(|time| period(report, &per_try_at, time, MOMENT, DAY)));
    if let Some(OrOff::Is(per_try)) = written.per_try {
        let all = limits.upstreams.iter().chain(&limits.route);
        for limit in all.filter(|limit| per_try.0 > limit.time) {
            limit.is_less(&per_try_at, report);
        }
    }
    let attempts = |upstream: &upstream::Settings| {
        written.attempts.unwrap_or(upstream.retry.settings.attempts)
    };
    // Who goes on to another upstream says the request again, too.
    if !falls_back && !own.is_empty() && own.iter().all(|upstream| attempts(upstream) <= 1) {
        for key in ["statuses", "methods"] {
            let key_at = at.key(key);
            if report.has(&key_at) {
                report
                    .error_in_key(&key_at, "there is one attempt only")
                    .help("write `attempts` with more beside it, or remove it");
            }
        }
    }
    let methods = written.methods.as_ref();
    let methods = methods.map(|all| matching::methods(all, &at.key("methods"), report));
    Retry { attempts: written.attempts, per_try, statuses: written.statuses.clone(), methods }
}

/// The largest body that is copied, of requests with bodies no larger than this.
pub(in crate::config) fn copied(
    written: &schema::asking::Mirror,
    largest: OrOff<ByteSize>,
) -> ByteSize {
    largest.get().map_or(written.max_body, |largest| written.max_body.min(largest))
}

/// Who is sent copies, and of what, of requests with bodies no larger than this.
fn mirror(
    written: &schema::asking::Mirror,
    largest: OrOff<ByteSize>,
    own: &[usize],
    config: &schema::Config,
    at: &Path,
    report: &mut Report<'_>,
) -> Option<Mirror> {
    within(report, &at.key("percent"), written.percent, 1, 100);
    within(report, &at.key("at_once"), written.at_once, 1, 10_000);
    let max_body = at.key("max_body");
    size(report, &max_body, written.max_body, 0, 1 << 20);
    if let Some(largest) = largest.get().filter(|largest| written.max_body > *largest)
        && report.has(&max_body)
    {
        report.error(&max_body, format!("no request has a body of more than {largest}")).help(
            "`max_body` of this route or of `defaults` says so: make that larger, or this smaller",
        );
    }
    let upstream_at = at.key("upstream");
    if written.upstream.is_empty() {
        if !report.has_lost(at, &["upstream"]) {
            report.error(at, "it names nobody who gets the copies").help("write `upstream: …`");
        }
        return None;
    }
    let upstream = action::known(&written.upstream, config, &upstream_at, report)?;
    if own.contains(&upstream) {
        report
            .error(&upstream_at, format!("\"{}\" gets these requests already", written.upstream))
            .help("name another one");
    }
    action::switched_off(&written.upstream, "every copy fails", config, &upstream_at, report);
    Some(Mirror {
        upstream,
        percent: written.percent,
        max_body: usize::try_from(copied(written, largest).0).unwrap_or(usize::MAX),
        at_once: written.at_once,
    })
}

/// Whether requests to this upstream can be hedged.
fn may_hedge(upstream: &upstream::Settings, at: &Path, report: &mut Report<'_>) {
    let name = &upstream.name;
    if upstream.sticky.is_some() {
        report
            .error_in_key(at, format!("\"{name}\" is sticky: its clients want one backend"))
            .help(format!("remove `hedge`, or `upstreams.{name}.sticky`"));
    }
    // A name may stand for several; others may come at run time.
    let alone = matches!(&upstream.backends[..], [one] if !one.at.is_name());
    if alone {
        report
            .warning_about_key(at, format!("\"{name}\" has one backend: there is no other to ask"))
            .help("add one, or remove `hedge`");
    }
}

/// When a second backend is asked.
fn hedge(
    written: &schema::asking::Hedge,
    limits: &Limits,
    at: &Path,
    report: &mut Report<'_>,
) -> Hedge {
    // Of several upstreams, one that has the time is enough.
    let longest = limits.upstreams.iter().max_by_key(|limit| limit.time);
    let all = longest.into_iter().chain(&limits.route).chain(&limits.one);
    for limit in all.filter(|limit| written.at_least.0 >= limit.time) {
        limit.is_less(&at.key("at_least"), report);
    }
    within(report, &at.key("percentile"), written.percentile, 50, 99);
    within(report, &at.key("min_requests"), written.min_requests, 1, 1_000_000);
    within(report, &at.key("budget"), written.budget, 1, 50);
    let second = Duration::from_secs(1);
    Hedge {
        percentile: written.percentile,
        at_least: period(report, &at.key("at_least"), written.at_least, MOMENT, DAY),
        window: period(report, &at.key("window"), written.window, second, DAY),
        min_requests: written.min_requests,
        budget: written.budget,
    }
}
