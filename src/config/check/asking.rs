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
    let hedge = match &written.hedge {
        Some(Switch::On(hedge)) => Some(hedge),
        Some(Switch::Off) | None => None,
    };
    let hedge_at = at.key("hedge");
    if hedge.is_some() {
        for upstream in own.iter().filter_map(|&index| upstreams.get(index)) {
            may_hedge(upstream, &hedge_at, report);
        }
    }
    let retry_at = at.key("retry");
    let retry = match &written.retry {
        Some(Switch::On(written)) => {
            let own: Vec<_> = own.iter().filter_map(|&index| upstreams.get(index)).collect();
            retry(written, &own, &retry_at, report)
        }
        Some(Switch::Off) => Retry { attempts: Some(1), ..Retry::default() },
        None => Retry::default(),
    };
    let mirror_at = at.key("mirror");
    let mirror = written.mirror.as_ref();
    Asking {
        hedge: hedge.map(|hedge| {
            let own = own.iter().filter_map(|&index| upstreams.get(index));
            let total = own.map(|upstream| upstream.timeouts.total).max();
            self::hedge(hedge, total, &hedge_at, report)
        }),
        mirror: mirror.and_then(|mirror| self::mirror(mirror, own, config, &mirror_at, report)),
        retry,
    }
}

/// What differs from what these upstreams say of further attempts.
fn retry(
    written: &schema::asking::RouteRetry,
    own: &[&upstream::Settings],
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
    for upstream in own {
        if let Some(Some(per_try)) = per_try
            && per_try > upstream.timeouts.total
        {
            let total = Period(upstream.timeouts.total);
            report
                .error(&per_try_at, format!("all attempts together have {total}"))
                .help(format!("upstreams.{}.timeouts.total says so", upstream.name));
        }
    }
    let attempts = |upstream: &upstream::Settings| {
        written.attempts.unwrap_or(upstream.retry.settings.attempts)
    };
    if !own.is_empty() && own.iter().all(|upstream| attempts(upstream) <= 1) {
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

/// When a second backend is asked, where there has to be an answer after `total`.
fn hedge(
    written: &schema::asking::Hedge,
    total: Option<Duration>,
    at: &Path,
    report: &mut Report<'_>,
) -> Hedge {
    if let Some(total) = total
        && written.at_least.0 >= total
    {
        report
            .error(&at.key("at_least"), format!("all attempts together have {}", Period(total)))
            .help("nobody is asked so late; make it shorter, or the upstream's `timeouts.total` longer");
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
