//! Carrying out a purge: in the store, in the metrics, and in the log of who did what.

use std::borrow::Cow;
use std::time::SystemTime;

use log::info;
use serde::Serialize;

use crate::cache::key;
use crate::cache::key::Resource;
use crate::cache::purge::Count;
use crate::cache::purge::DEFAULT_ZONE;
use crate::cache::purge::Effect;
use crate::cache::purge::Group;
use crate::cache::purge::Manner;
use crate::cache::purge::Many;
use crate::cache::purge::Order;
use crate::cache::purge::Scope;
use crate::cache::purge::Unclear;
use crate::cache::purge::Url;
use crate::config::plan::Plan;
use crate::config::suggest;
use crate::observe::access_log::mask;
use crate::route::Route;
use crate::route::action::Action;
use crate::runtime::Runtime;
use crate::runtime::fellow::Word;
use crate::storage::memory::Counted;
use crate::storage::memory::Kind;

/// How many places of the store one look takes in, all scopes of an order together.
const GLANCE: usize = 4096;
/// How many places are looked at before others have a turn.
const STEP: usize = 4096;

/// Who wants a purge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asker {
    /// The way it was asked for.
    pub way: Way,
    /// The address, or `unix` for whoever may open the socket.
    pub from: String,
}

/// How a purge can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// At the admin listener.
    Admin,
    /// With the method PURGE, where clients connect.
    Method,
}

/// What a purge came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// What was purged.
    pub purged: Vec<Purged>,
    /// How many stored responses that concerned. What stays there, since it is only stale or counted,
    /// counts for each scope that concerns it.
    pub objects: u64,
    /// Whether all were looked at; otherwise there may be more.
    pub exact: bool,
    /// Whether they are stale now and not gone.
    pub soft: bool,
    /// Whether nothing was changed.
    pub dry_run: bool,
}

/// What one scope came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Purged {
    /// The kind of scope.
    pub what: &'static str,
    /// Which one.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub which: String,
    /// How many stored responses it concerned.
    pub objects: u64,
    /// Whether all were looked at.
    pub exact: bool,
}

impl Way {
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Method => "method",
        }
    }
}

impl Report {
    /// How many, in words.
    #[must_use]
    pub fn count(&self) -> String {
        let plural = if self.objects == 1 { "" } else { "s" };
        let more = if self.exact { "" } else { " or more" };
        format!("{} object{plural}{more}", self.objects)
    }
}

/// Does what an order says. Scopes that name one URL are counted whole; others as far as the order
/// says, before they are purged. Whatever is counted, the purge itself takes the same time for any
/// number of stored responses.
///
/// # Errors
/// It names a route or an upstream that there is none of. Then nothing was purged.
pub async fn purge(runtime: &Runtime, order: &Order, by: &Asker) -> Result<Report, Unclear> {
    for scope in &order.scopes {
        is_there(&runtime.plan, scope)?;
    }
    let mut purged = Vec::with_capacity(order.scopes.len());
    for scope in &order.scopes {
        let (objects, exact) = match scope {
            Scope::Url(url) => (purge_url(runtime, url, order, None), true),
            Scope::Many(many) => {
                let counted = count(runtime, many, order).await;
                if order.effect == Effect::Purge {
                    let kind = kind(order.manner);
                    runtime.memory.purge_many(many, kind);
                    runtime.fellows.tell(|| Word::many(many, kind), None);
                }
                (counted.found, counted.ended)
            }
        };
        purged.push(Purged { what: scope.label(), which: scope.value(), objects, exact });
    }
    for scope in &purged {
        tell(runtime, scope, order, by);
    }
    Ok(report(purged, order))
}

fn report(purged: Vec<Purged>, order: &Order) -> Report {
    Report {
        objects: purged.iter().map(|scope| scope.objects).sum(),
        exact: purged.iter().all(|scope| scope.exact),
        soft: order.manner == Manner::Soft,
        dry_run: order.effect == Effect::DryRun,
        purged,
    }
}

/// Drops what these routes stored for a URL.
pub fn purge_routes(runtime: &Runtime, url: Url, routes: &[&Route], by: &Asker) -> Report {
    let (manner, effect) = (Manner::Hard, Effect::Purge);
    let order = Order { scopes: Vec::new(), manner, effect, count: Count::All };
    let names: Vec<String> = routes.iter().map(|route| route.name.to_string()).collect();
    let objects = purge_url(runtime, &url, &order, Some(&names));
    let scope = Scope::Url(url);
    let purged = Purged { what: scope.label(), which: scope.value(), objects, exact: true };
    tell(runtime, &purged, &order, by);
    report(vec![purged], &order)
}

/// Drops all that is stored for a URL since a request may have changed it (RFC 9111 §4.4). Says by how many
/// purges.
pub fn invalidate(runtime: &Runtime, url: &key::Target<'_>) -> u64 {
    let done = each_resource(runtime, url, None, |resource| {
        let dropped = runtime.memory.purge_resource(resource, Kind::Hard);
        runtime.metrics.invalidated(dropped as u64);
    });
    if !done.is_empty() {
        runtime.fellows.tell(|| Word::url(url, None, &done, Kind::Hard), None);
    }
    done.len() as u64
}

/// Drops what is stored for a URL, by these routes or all, since the process beside this one did.
pub(super) fn follow(
    runtime: &Runtime,
    url: &key::Target<'_>,
    routes: Option<&[String]>,
    kind: Kind,
) {
    each_resource(runtime, url, routes, |resource| {
        runtime.memory.purge_resource(resource, kind);
    });
}

/// Drops all that belongs to a group since a request may have changed it (RFC 9875 §3).
pub fn invalidate_group(runtime: &Runtime, group: Group) {
    let many = Many::Group(group);
    runtime.memory.purge_many(&many, Kind::Hard);
    runtime.metrics.group_invalidated();
    runtime.fellows.tell(|| Word::many(&many, Kind::Hard), None);
}

/// What keeps the stored responses of a route from those of others; `None` where it asks no upstream.
#[must_use]
pub fn space<'a>(plan: &'a Plan, route: &Route) -> Option<Cow<'a, str>> {
    let Action::Upstream(upstream) = &route.action else { return None };
    let upstream = &*plan.upstreams[*upstream].name;
    // Two routes that send the same URI to the same upstream share what is stored, unless one of
    // them changes what the origin is asked.
    let space = if route.changes_request() {
        Cow::Owned(format!("{upstream}\n{}", route.name))
    } else {
        Cow::Borrowed(upstream)
    };
    Some(match &*route.cache.zone {
        "" => space,
        zone => Cow::Owned(key::in_zone(zone, &space)),
    })
}

/// Does something to all names under which the store may have responses of this URL: one for every way in
/// which one of these routes (`None`: any) that serves it asks its origin and makes its keys, and one for
/// every rule by which a response to another URL may answer it. Returns them.
fn each_resource(
    runtime: &Runtime,
    url: &key::Target<'_>,
    routes: Option<&[String]>,
    mut act: impl FnMut(&Resource),
) -> Vec<Resource> {
    let is_meant =
        |route: &Route| routes.is_none_or(|names| names.iter().any(|name| **name == *route.name));
    let mut done = Vec::new();
    let mut once = |resource: Resource| {
        if !done.contains(&resource) {
            act(&resource);
            done.push(resource);
        }
    };
    for route in runtime.plan.routes.serving(url.host, url.path) {
        if !route.cache.enabled || !is_meant(route) {
            continue;
        }
        let Some(space) = space(&runtime.plan, route) else { continue };
        let target = key::Target { space: &space, ..*url };
        let keys = &route.cache.key;
        // First: a purge moves the sequence before it looks for rules (see `Variances::learn`).
        once(Resource::new(&target, keys));
        if keys.heed_search() {
            for rule in runtime.variances.of(&key::origin(&target, keys)) {
                once(Resource::equivalents(&target, keys, (&rule.variance, rule.number)));
            }
        }
    }
    done
}

/// Purges, or only counts, what is stored for a URL.
fn purge_url(runtime: &Runtime, url: &Url, order: &Order, routes: Option<&[String]>) -> u64 {
    let kind = kind(order.manner);
    let mut objects = 0;
    for scheme in url.schemes() {
        let target = key::Target {
            space: "",
            scheme: scheme.as_str(),
            host: url.authority.host(),
            port: url.authority.port(),
            path: url.target.path(),
            query: url.target.query(),
        };
        let done = each_resource(runtime, &target, routes, |resource| {
            objects += match order.effect {
                Effect::Purge => runtime.memory.purge_resource(resource, kind),
                Effect::DryRun => runtime.memory.count_resource(resource),
            };
        });
        if order.effect == Effect::Purge {
            let word = || Word::url(&target, routes.map(<[String]>::to_vec), &done, kind);
            runtime.fellows.tell(word, None);
        }
    }
    objects as u64
}

async fn count(runtime: &Runtime, many: &Many, order: &Order) -> Counted {
    let mut counted = Counted::default();
    match order.count {
        Count::Glance => {
            runtime.memory.count_many(many, &mut counted, GLANCE / order.scopes.len().max(1));
        }
        Count::All => {
            while !counted.ended {
                runtime.memory.count_many(many, &mut counted, STEP);
                tokio::task::yield_now().await;
            }
        }
    }
    counted
}

fn kind(manner: Manner) -> Kind {
    match manner {
        Manner::Hard => Kind::Hard,
        Manner::Soft => Kind::Soft(SystemTime::now()),
    }
}

fn is_there(plan: &Plan, scope: &Scope) -> Result<(), Unclear> {
    let unknown = |what: &str, name: &str, known: &[&str]| {
        let list = format!("there are these {what}s");
        Unclear(format!("there is no {what} \"{name}\"; {}", suggest::help(name, known, &list)))
    };
    match scope {
        Scope::Many(Many::Route(name)) => {
            let known: Vec<&str> = plan.routes.routes().iter().map(|route| &*route.name).collect();
            if known.contains(&name.as_str()) {
                Ok(())
            } else {
                Err(unknown("route", name, &known))
            }
        }
        Scope::Many(Many::Upstream(name)) => {
            let known: Vec<&str> = plan.upstreams.iter().map(|upstream| &*upstream.name).collect();
            if known.contains(&name.as_str()) {
                Ok(())
            } else {
                Err(unknown("upstream", name, &known))
            }
        }
        Scope::Many(Many::Zone(name)) => {
            let zones = plan.storage.zones.iter().map(|zone| &*zone.name);
            let known: Vec<&str> = zones.chain([DEFAULT_ZONE]).collect();
            if name.is_empty() || known.contains(&name.as_str()) {
                Ok(())
            } else {
                Err(unknown("zone", name, &known))
            }
        }
        Scope::Url(_)
        | Scope::Many(
            Many::Prefix(_)
            | Many::Host(_)
            | Many::SurrogateKey(_)
            | Many::Group(_)
            | Many::Everything,
        ) => Ok(()),
    }
}

/// Who wants what gone is remembered.
fn tell(runtime: &Runtime, purged: &Purged, order: &Order, by: &Asker) {
    let done = match order.effect {
        Effect::Purge => {
            runtime.metrics.purged(purged.what, order.manner);
            "purged"
        }
        Effect::DryRun => "would be purged",
    };
    let Purged { what, which, objects, exact } = purged;
    // A URL may have a secret in its query, as in the access log.
    let which = match *what {
        "url" | "prefix" => mask::shown(which),
        _ => which.clone(),
    };
    info!(
        target: "edgeproxy::audit",
        way = by.way.label(), from = by.from.as_str(), what = *what, which = which.as_str(),
        manner = order.manner.label(), objects = *objects, exact = *exact;
        "{done}"
    );
}
