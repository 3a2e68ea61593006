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
    if hedge.is_some() {
        for upstream in &own_settings {
            may_hedge(upstream, &hedge_at, report);
        }
    }
    let retry_at = at.key("retry");
    let retry = match &written.retry {
        Some(Switch::On(retry)) => {
            let falls_back = written.fallback.as_ref().is_some_and(|to| to.upstream.is_some());
            self::retry(retry, falls_back, &own_settings, &limits, &retry_at, report)
        }
        Some(Switch::Off) => Retry { attempts: Some(1), ..Retry::default() },
        None => Retry::default(),
    };
    let mirror_at = at.key("mirror");
    let mirror = written.mirror.as_ref();
    Asking {
        hedge: hedge.map(|hedge| self::hedge(hedge, &limits, &hedge_at, report)),
        mirror: mirror.and_then(|mirror| self::mirror(mirror, own, config, &mirror_at, report)),
        retry,
    }
}

/// How long all attempts together have.
struct Limits {
    /// As each of the route's upstreams says.
    upstreams: Vec<Limit>,
    /// As the route says.
    route: Option<Limit>,
}

/// How long all attempts together have, and what says so.
struct Limit {
    time: Duration,
    whose: String,
}

impl Limit {
    /// Says of the time at `at` that it is over when all of this is.
    fn is_less(&self, at: &Path, report: &mut Report<'_>) {
        report
            .error(at, format!("all attempts together have {}", Period(self.time)))
            .help(format!("{} says so: make that longer, or this shorter", self.whose));
    }
}

/// How long the attempts of a route have.
fn limits(
    written: &schema::route::Route,
    own: &[&upstream::Settings],
    config: &schema::Config,
) -> Limits {
    let limit = |upstream: &&upstream::Settings| Limit {
        time: upstream.timeouts.total,
        whose: format!("upstreams.{}.timeouts.total", upstream.name),
    };
    let (time, whose) = match written.timeout {
        Some(time) => (time, "the `timeout` of this route"),
        None => (config.defaults.timeout, "defaults.timeout"),
    };
    let route = time.get().map(|time| Limit { time: time.0, whose: whose.to_owned() });
    Limits { upstreams: own.iter().map(limit).collect(), route }
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

/// Who is sent copies, and of what.
fn mirror(
    written: &schema::asking::Mirror,
    own: &[usize],
    config: &schema::Config,
    at: &Path,
    report: &mut Report<'_>,
) -> Option<Mirror> {
    within(report, &at.key("percent"), written.percent, 1, 100);
    within(report, &at.key("at_once"), written.at_once, 1, 10_000);
    size(report, &at.key("max_body"), written.max_body, 0, 1 << 20);
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
    Some(Mirror {
        upstream,
        percent: written.percent,
        max_body: usize::try_from(written.max_body.0).unwrap_or(usize::MAX),
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
    let all = longest.into_iter().chain(&limits.route);
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
