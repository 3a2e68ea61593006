//! Checks the cookies of sticky upstreams by who comes to them: whether one undoes another's, and whether browsers take them.

use std::collections::BTreeMap;
use std::collections::HashSet;

use crate::config::path::Path;
use crate::config::report::Report;
use crate::config::schema;
use crate::message::target::Scheme;
use crate::route::Route;
use crate::route::action::Action;
use crate::route::table::Table;
use crate::upstream::Settings;

/// Checks them; `upstreams` are those of `config`, in the same order.
pub(super) fn cookies(
    config: &schema::Config,
    upstreams: &[Settings],
    table: &Table,
    root: &Path,
    report: &mut Report<'_>,
) {
    let at = root.key("upstreams");
    let place = |upstream: &Settings| at.key(&*upstream.name).key("sticky");
    for (second, first) in clashes(config, upstreams, table) {
        let (first, second) = (&upstreams[first], &upstreams[second]);
        report
            .warning(
                &place(second),
                format!(
                    "\"{}\" and \"{}\" set one cookie: a client that goes from one to the other loses its backend",
                    second.name, first.name
                ),
            )
            .help("give one of them a name of its own: `sticky: {cookie: …}`");
    }
    let Some(plain) = plain_listener(config, root, report) else { return };
    for (index, upstream) in upstreams.iter().enumerate() {
        let Some(prefix) = upstream.sticky.as_ref().and_then(|sticky| prefix(&sticky.cookie))
        else {
            continue;
        };
        let by_plain_text = |route: &Route| {
            route.when.scheme != Some(Scheme::Https) && answering(route).any(|one| one == index)
        };
        if table.routes().iter().any(by_plain_text) {
            report
                .warning(
                    &place(upstream).key("cookie"),
                    "browsers drop a cookie of this name over plain text, where it is not `Secure`",
                )
                .help(format!(
                    "write `to_https: on` at listeners[{plain}], or a name without `{prefix}`"
                ));
        }
    }
}

/// Each upstream whose cookie one before it sets as well, to a client of both, with that one.
fn clashes(
    config: &schema::Config,
    upstreams: &[Settings],
    table: &Table,
) -> BTreeMap<usize, usize> {
    let mut clashes: BTreeMap<usize, usize> = BTreeMap::new();
    let tells =
        |index: &usize| upstreams.get(*index).is_some_and(|one| one.active && one.sticky.is_some());
    if (0..upstreams.len()).filter(tells).count() < 2 {
        return clashes;
    }
    for met in table.together() {
        let routes = met.into_iter().filter_map(|index| table.routes().get(index));
        let mut telling: Vec<usize> = routes.flat_map(answering).filter(tells).collect();
        telling.sort_unstable();
        telling.dedup();
        for (n, &second) in telling.iter().enumerate() {
            let undoes = |first: &&usize| undo(&upstreams[**first], &upstreams[second], config);
            if let Some(&first) = telling[..n].iter().find(undoes) {
                clashes
                    .entry(second)
                    .and_modify(|known| *known = first.min(*known))
                    .or_insert(first);
            }
        }
    }
    clashes
}

/// Who answers requests of a route, in whatever case.
fn answering(route: &Route) -> impl Iterator<Item = usize> {
    let split = &route.standins.split;
    let own = match route.action {
        Action::Upstream(index) if split.is_empty() => Some(index),
        Action::Upstream(_) | Action::Redirect { .. } | Action::Respond { .. } => None,
    };
    let shares = split.iter().filter(|share| share.weight > 0).map(|share| share.upstream);
    own.into_iter().chain(shares).chain(route.standins.fallback)
}

/// Whether two upstreams say different things by one cookie. With the same backends and the same key they do not.
fn undo(one: &Settings, other: &Settings, config: &schema::Config) -> bool {
    let cookie = |upstream: &Settings| upstream.sticky.as_ref().map(|sticky| sticky.cookie.clone());
    cookie(one) == cookie(other)
        && (key(one, config) != key(other, config) || numbered(one) != numbered(other))
}

/// By what backends are numbered, as written: what a file holds may not be known.
fn key<'c>(upstream: &Settings, config: &'c schema::Config) -> impl PartialEq + use<'c> {
    let written = config.upstreams.get(&*upstream.name);
    let sticky = written.and_then(|written| written.sticky.as_ref());
    sticky.map(|sticky| (&sticky.key, &sticky.key_file))
}

/// What the numbers of backends are made of: their ids, and what becomes of names.
fn numbered(upstream: &Settings) -> impl PartialEq {
    let one = |backend: &crate::upstream::Backend| {
        (backend.id.clone(), backend.at.is_name().then(|| backend.at.clone()))
    };
    upstream.backends.iter().map(one).collect::<HashSet<_>>()
}

/// What a name begins with that browsers take with `Secure` only (RFC 6265bis §4.1.3).
fn prefix(name: &str) -> Option<&str> {
    ["__Host-", "__Secure-"].iter().find_map(|prefix| {
        name.get(..prefix.len()).filter(|start| start.eq_ignore_ascii_case(prefix))
    })
}

/// A listener that serves who comes without TLS. Who comes through a proxy that is believed may have come with it.
fn plain_listener(config: &schema::Config, root: &Path, report: &Report<'_>) -> Option<usize> {
    let (at, trusted) = (root.key("listeners"), root.key("trusted_proxies"));
    if !config.trusted_proxies.is_empty() || report.is_broken(&trusted) {
        return None;
    }
    config.listeners.iter().enumerate().position(|(n, listener)| {
        listener.tls.as_ref().is_none()
            && listener.to_https.as_ref().is_none()
            && !report.has_lost(&at.index(n), &["tls", "to_https"])
    })
}
