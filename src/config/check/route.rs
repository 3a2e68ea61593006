//! Checks `routes` and `defaults`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::config::check::DAY;
use crate::config::check::action;
use crate::config::check::asking;
use crate::config::check::cache;
use crate::config::check::header;
use crate::config::check::matching;
use crate::config::check::period;
use crate::config::check::purge;
use crate::config::check::secret::Files;
use crate::config::check::size;
use crate::config::path::Path;
use crate::config::report::Report;
use crate::config::schema;
use crate::config::schema::route::Defaults;
use crate::config::schema::route::Scheme;
use crate::config::schema::value::OrOff;
use crate::config::schema::value::Switch;
use crate::message::certificate::Introduction;
use crate::route::Route;
use crate::route::action::Action;
use crate::route::purging::Rule;
use crate::route::rewrite::Rewrite;
use crate::route::table::Extent;
use crate::route::table::Table;
use crate::units::ByteSize;
use crate::units::Period;
use crate::upstream;

/// The routing table of the routes that are clear.
pub(super) fn routes(
    config: &schema::Config,
    upstreams: &[upstream::Settings],
    secrets: Files<'_>,
    root: &Path,
    report: &mut Report<'_>,
) -> Table {
    let at = root.key("routes");
    let inherited = defaults(&config.defaults, config, secrets, &root.key("defaults"), report);
    if config.routes.is_empty() && !report.is_broken(&at) {
        report
            .warning(&at, "there is no route: every request is answered 404")
            .help("write one: `routes: [{upstream: …}]`");
    }
    let mut names: HashMap<&str, usize> = HashMap::new();
    let mut positions = Vec::with_capacity(config.routes.len());
    let mut routes = Vec::with_capacity(config.routes.len());
    for (n, written) in config.routes.iter().enumerate() {
        let at = at.index(n);
        if let Some(name) = &written.name {
            if name.trim().is_empty() {
                report.error(&at.key("name"), "the name is empty").help("remove the key");
            } else if name.contains(char::is_control) {
                one_line(&at.key("name"), report);
            } else if let Some(m) = names.insert(name, n) {
                report
                    .error(&at.key("name"), format!("routes[{m}] has the name \"{name}\" already"))
                    .help("choose another name: names tell routes apart in logs and metrics");
            }
        }
        if let Some(mut route) = one(written, n, config, upstreams, secrets, &at, report) {
            let stores = route.cache.enabled && matches!(route.action, Action::Upstream(_));
            if written.purge.is_none() && stores {
                route.purge.clone_from(&inherited);
            }
            positions.push(n);
            routes.push(route);
        }
    }
    let table = Table::new(routes);
    schemes(config, &at, report);
    shadows(&table, &positions, &at, report);
    walls(&table, &positions, &at, report);
    table
}

/// Reports a name that could write lines of its own, or colours, where it is shown.
pub(super) fn one_line(at: &Path, report: &mut Report<'_>) {
    report
        .error(at, "the name has a control character in it")
        .help("write it in one line, without tabs: it stands in logs and metrics");
}

/// The name of a route in a plan.
pub(in crate::config) fn name(written: &schema::route::Route, position: usize) -> String {
    written.name.clone().unwrap_or_else(|| format!("route-{}", position + 1))
}

fn one(
    written: &schema::route::Route,
    position: usize,
    config: &schema::Config,
    upstreams: &[upstream::Settings],
    secrets: Files<'_>,
    at: &Path,
    report: &mut Report<'_>,
) -> Option<Route> {
    let found = matching::matching(&written.matches, &at.key("match"), report);
    let captures = match &found {
        Some(found) => found.path.captures(),
        None => action::any_captures(written),
    };
    let action = action::action(written, config, &captures, at, report);
    let standins = action::standins(written, config, at, report);
    let rewrite = match &written.rewrite {
        Some(rewrite) => action::rewrite(rewrite, &captures, &at.key("rewrite"), report),
        None => Rewrite::default(),
    };
    let headers = match &written.headers {
        Some(headers) => header::rules(headers, &at.key("headers"), secrets, report),
        None => crate::route::HeaderRules::default(),
    };
    let total_timeout = written.timeout.unwrap_or(config.defaults.timeout);
    if written.timeout.is_some() {
        timeout(total_timeout, &at.key("timeout"), report);
    }
    let max_body = written.max_body.unwrap_or(config.defaults.max_body);
    if written.max_body.is_some() {
        body(max_body, &at.key("max_body"), report);
    }
    let max_header = written.max_header.unwrap_or(config.defaults.max_header);
    if written.max_header.is_some() {
        head(max_header, config, &at.key("max_header"), report);
    }
    let spool = written.spool.unwrap_or(config.defaults.spool);
    if written.spool.is_some() {
        self::spool(spool, &at.key("spool"), report);
    }
    let cache_at = at.key("cache");
    if let Some(Switch::On(section)) = &written.cache {
        cache::section(section, config.defaults.cache.as_ref(), &cache_at, report);
    }
    let mut policy = cache::policy(written.cache.as_ref(), &config.defaults.cache);
    if headers.client != Introduction::Nothing {
        if matches!(written.cache, Some(Switch::On(_))) {
            report
                .warning_about_key(&cache_at, "`cache` has no effect: this route tells the origin whose certificate it is")
                .help("remove it, or `headers.client_cert`: what is answered to one client is no other's");
        }
        // What the origin says may be for this client alone, whatever it says of it.
        policy.enabled = false;
    }
    let purge_at = at.key("purge");
    let purge =
        written.purge.as_ref().and_then(|rule| purge::rule(rule, secrets, &purge_at, report));
    let own = action::own(written, &standins, config);
    let asks = written.upstream.is_some() || !written.split.is_empty();
    if purge.is_some() && !policy.enabled && asks {
        report
            .warning_about_key(&purge_at, "`purge` has no effect: this route stores nothing")
            .help("remove it, or switch the route's `cache` on");
    }
    if asks {
        if let Some(total) = total_timeout.get() {
            let own_try =
                matches!(&written.retry, Some(Switch::On(retry)) if retry.per_try.is_some());
            let at = match written.timeout {
                Some(_) => at.key("timeout"),
                None => Path::root().key("defaults").key("timeout"),
            };
            for upstream in own.iter().filter_map(|index| upstreams.get(*index)) {
                patience(total, upstream, own_try, &at, report);
            }
        }
    } else if written.redirect.is_some() {
        idle_keys(written, "a redirect", at, report);
    } else if written.respond.is_some() {
        idle_keys(written, "a fixed response", at, report);
    }
    let asking = asking::asking(written, &own, config, upstreams, at, report);
    let (action, found) = (action?, found?);
    Some(Route {
        name: name(written, position).into(),
        hosts: found.hosts,
        path: found.path,
        when: found.when,
        action,
        standins,
        asking,
        rewrite,
        headers,
        total_timeout: total_timeout.get().map(|period| period.0),
        max_body: max_body.get().map_or(u64::MAX, |size| size.0),
        max_header: max_header.get().map_or(u64::MAX, |size| size.0),
        spool: spool.0,
        cache: Arc::new(policy),
        purge,
    })
}

/// Checks the defaults, and says who may purge where a route does not.
fn defaults(
    written: &Defaults,
    config: &schema::Config,
    secrets: Files<'_>,
    at: &Path,
    report: &mut Report<'_>,
) -> Option<Rule> {
    timeout(written.timeout, &at.key("timeout"), report);
    body(written.max_body, &at.key("max_body"), report);
    head(written.max_header, config, &at.key("max_header"), report);
    spool(written.spool, &at.key("spool"), report);
    if let Switch::On(section) = &written.cache {
        cache::section(section, None, &at.key("cache"), report);
    }
    purge::rule(&written.purge, secrets, &at.key("purge"), report)
}

fn timeout(written: OrOff<Period>, at: &Path, report: &mut Report<'_>) {
    if let OrOff::Is(time) = written {
        period(report, at, time, Duration::from_millis(1), DAY);
    }
}

fn body(written: OrOff<ByteSize>, at: &Path, report: &mut Report<'_>) {
    if let OrOff::Is(largest) = written {
        size(report, at, largest, 0, 1 << 50);
    }
}

/// A larger one than all requests may have would never be reached.
fn head(written: OrOff<ByteSize>, config: &schema::Config, at: &Path, report: &mut Report<'_>) {
    if let OrOff::Is(largest) = written {
        size(report, at, largest, 128, 1 << 20);
        let all = config.limits.header_bytes;
        if largest.0 > all.0 {
            report
                .error(at, format!("no request has a header of {largest}"))
                .help(format!("limits.header_bytes is {all}, for every route: raise that too"));
        }
    }
}

fn spool(written: ByteSize, at: &Path, report: &mut Report<'_>) {
    // What is replayed to an origin is 64 KiB at most, and one read adds up to 16 KiB.
    size(report, at, written, 0, 48 << 10);
}

/// A total time that is over before a connection may have been made, or an attempt may have failed: what is said for
/// all routes of an upstream may be too long for this one, and is bounded by it.
fn patience(
    total: Period,
    upstream: &upstream::Settings,
    own_try: bool,
    at: &Path,
    report: &mut Report<'_>,
) {
    let name = &upstream.name;
    let connect = upstream.timeouts.connect;
    let settings = Path::root().key("upstreams").key(&**name);
    // What nobody wrote is bounded by any time.
    if total.0 < connect && report.has(&settings.key("timeouts").key("connect")) {
        report
            .warning(
                at,
                format!("the total time ({total}) is shorter than that to connect to \"{name}\""),
            )
            .help(format!("upstreams.{name}.timeouts.connect is {}", Period(connect)));
    }
    if let Some(per_try) = upstream.retry.per_try.filter(|time| *time > total.0 && !own_try) {
        report
            .warning(
                at,
                format!("the total time ({total}) is shorter than that of one attempt at \"{name}\""),
            )
            .help(format!(
                "upstreams.{name}.retry.per_try is {}: nothing is asked again on this route; write `retry: {{per_try: …}}` with less here",
                Period(per_try)
            ));
    }
}

/// Whether a route redirects or has a fixed response, and asks no origin.
pub(in crate::config) fn answers_itself(written: &schema::route::Route) -> bool {
    let asks = written.upstream.is_some() || !written.split.is_empty();
    !asks && (written.redirect.is_some() || written.respond.is_some())
}

/// Keys that mean nothing for a route that asks no origin.
fn idle_keys(written: &schema::route::Route, what: &str, at: &Path, report: &mut Report<'_>) {
    let cache = matches!(written.cache, Some(Switch::On(_)));
    for (key, is_there) in [
        ("rewrite", written.rewrite.is_some()),
        ("retry", written.retry.is_some()),
        ("hedge", matches!(written.hedge, Some(Switch::On(_)))),
        ("mirror", written.mirror.is_some()),
        ("timeout", written.timeout.is_some()),
        ("spool", written.spool.is_some()),
        ("cache", cache),
        ("purge", matches!(written.purge, Some(Switch::On(_)))),
    ] {
        if is_there {
            report
                .warning_about_key(&at.key(key), format!("`{key}` has no effect on {what}"))
                .help("remove it, or give the route an `upstream`");
        }
    }
}

/// Routes for a scheme that no listener speaks, and redirects to HTTPS that HTTPS takes too.
fn schemes(config: &schema::Config, at: &Path, report: &mut Report<'_>) {
    let has = |tls: bool| config.listeners.iter().any(|l| l.tls.as_ref().is_some() == tls);
    for (n, route) in config.routes.iter().enumerate() {
        let at = at.index(n);
        let missing = match route.matches.scheme {
            Some(Scheme::Http) if !has(false) => Some("plain text"),
            Some(Scheme::Https) if !has(true) => Some("TLS"),
            _ => None,
        };
        if let Some(missing) = missing.filter(|_| !config.listeners.is_empty()) {
            report
                .warning(
                    &at.key("match").key("scheme"),
                    format!("no listener speaks {missing}: no request ever takes this route"),
                )
                .help("add a listener, or remove the route");
        }
        if let Some(redirect) = &route.redirect
            && route.matches.scheme.is_none()
            && redirect.to.starts_with("https://{host}")
            && redirect.to.contains("{path}")
            && has(true)
        {
            report
                .warning(
                    &at.key("redirect").key("to"),
                    "this redirect leads to itself: it takes requests over TLS too",
                )
                .help("add `scheme: http` to `match`");
        }
    }
}

/// Routes that can never win.
fn shadows(table: &Table, positions: &[usize], at: &Path, report: &mut Report<'_>) {
    for shadowed in table.shadowed() {
        let Some(position) = positions.get(shadowed.index) else { continue };
        let first: Vec<String> = shadowed
            .by
            .iter()
            .map(|(host, name)| match host.to_string().as_str() {
                "*" => format!("\"{name}\""),
                host => format!("\"{name}\" on {host}"),
            })
            .collect();
        let message = match shadowed.extent {
            Extent::Whole => "no request ever takes this route",
            Extent::Part => "on some of its hosts no request ever takes this route",
        };
        report
            .warning(&at.index(*position), format!("{message}: {} comes first", first.join(", ")))
            .help("remove it, add a condition, or move it before the other one");
    }
}

/// Routes for every host that a host's own route for every path takes everything from. Where there is also
/// a route for every host and every path, these belong together, and are for the other hosts.
fn walls(table: &Table, positions: &[usize], at: &Path, report: &mut Report<'_>) {
    let is_everywhere = |route: &Route| {
        route.hosts.is_empty() || route.hosts.iter().any(|host| host.to_string() == "*")
    };
    let takes_all = |route: &Route| route.path.is_any() && route.when.conditions() == 0;
    let routes = table.routes();
    if routes.iter().any(|route| is_everywhere(route) && takes_all(route)) {
        return;
    }
    let walls: Vec<&Route> =
        routes.iter().filter(|route| !is_everywhere(route) && takes_all(route)).collect();
    let Some(first) = walls.first() else { return };
    let hosts: Vec<String> =
        walls.iter().flat_map(|wall| &wall.hosts).map(ToString::to_string).collect();
    for (route, position) in routes.iter().zip(positions) {
        if is_everywhere(route) {
            report
                .warning(
                    &at.index(*position),
                    format!(
                        "on {} no request takes this route: \"{}\" takes them all",
                        hosts.join(", "),
                        first.name
                    ),
                )
                .help("where it is meant for these hosts, too, name them in its `match`");
        }
    }
}
