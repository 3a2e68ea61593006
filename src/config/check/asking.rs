//! Checks how a route's upstream is asked.

use std::time::Duration;

use crate::config::check::DAY;
use crate::config::check::period;
use crate::config::check::within;
use crate::config::path::Path;
use crate::config::report::Report;
use crate::config::schema;
use crate::config::schema::value::Switch;
use crate::route::action::Action;
use crate::route::asking::Asking;
use crate::route::asking::Hedge;
use crate::route::standin::Standins;
use crate::upstream;
use crate::upstream::Place;
use crate::upstream::Protocol;

/// The shortest time that means anything.
const MOMENT: Duration = Duration::from_millis(1);

/// How the upstreams of a route are asked, where the route says so itself.
pub(super) fn asking(
    written: &schema::route::Route,
    action: &Action,
    standins: &Standins,
    upstreams: &[upstream::Settings],
    at: &Path,
    report: &mut Report<'_>,
) -> Asking {
    let Action::Upstream(first) = action else { return Asking::default() };
    let shares = standins.split.iter().map(|share| share.upstream);
    let own: Vec<usize> = if standins.split.is_empty() { vec![*first] } else { shares.collect() };
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
    Asking { hedge: hedge.map(|hedge| self::hedge(hedge, &hedge_at, report)) }
}

/// Whether requests to this upstream can be hedged.
fn may_hedge(upstream: &upstream::Settings, at: &Path, report: &mut Report<'_>) {
    let name = &upstream.name;
    match upstream.protocol {
        Protocol::Http1 => {}
        Protocol::Http2 => {
            report
                .error_in_key(at, format!("\"{name}\" speaks HTTP/2, where nothing is hedged"))
                .help(format!("remove `hedge`, or write `upstreams.{name}.protocol: http1`"));
        }
    }
    if upstream.sticky.is_some() {
        report
            .error_in_key(at, format!("\"{name}\" is sticky: its clients want one backend"))
            .help(format!("remove `hedge`, or `upstreams.{name}.sticky`"));
    }
    // A name may stand for several; others may come at run time.
    let alone = matches!(&upstream.backends[..], [one] if !is_name(&one.at));
    if alone {
        report
            .warning_about_key(at, format!("\"{name}\" has one backend: there is no other to ask"))
            .help("add one, or remove `hedge`");
    }
}

fn is_name(at: &Place) -> bool {
    match at {
        Place::Tcp { host, .. } => host.parse::<std::net::IpAddr>().is_err(),
        Place::Unix(_) | Place::Demo => false,
    }
}

fn hedge(written: &schema::asking::Hedge, at: &Path, report: &mut Report<'_>) -> Hedge {
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
