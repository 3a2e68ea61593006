//! What the routes of a configuration make of an upstream.

use std::time::Duration;

use crate::config::schema;
use crate::config::schema::route::Route;
use crate::config::schema::value::Switch;

/// What the routes make of one upstream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::config) struct Uses {
    /// A route names it, for whatever.
    pub(in crate::config) any: bool,
    /// A route wants more attempts than one of it, whatever it says itself.
    pub(in crate::config) repeats: bool,
    /// A route goes on to another upstream from it. What that needs is asked of its `retry`, too.
    pub(in crate::config) falls_back: bool,
    /// How long an attempt at it may take by what routes say themselves, at most; nothing bounds that of a copy.
    pub(in crate::config) own_try: Duration,
}

/// What these routes make of the upstream called `name`.
pub(in crate::config) fn of(name: &str, config: &schema::Config) -> Uses {
    let mut uses = Uses::default();
    for route in &config.routes {
        let fallback = route.fallback.as_ref().and_then(|fallback| fallback.upstream.as_deref());
        let is_first = route.upstream.as_deref() == Some(name)
            || route.split.iter().any(|share| share.upstream == name);
        let is_asked = is_first || fallback == Some(name);
        let is_told = route.mirror.as_ref().is_some_and(|mirror| mirror.upstream == name);
        uses.any |= is_asked || is_told;
        uses.repeats |= is_asked && attempts(route).is_some_and(|attempts| attempts > 1);
        uses.falls_back |= is_first && fallback.is_some();
        let own_try =
            if is_told { Some(Duration::MAX) } else { per_try(route).filter(|_| is_asked) };
        uses.own_try = uses.own_try.max(own_try.unwrap_or_default());
    }
    uses
}

/// How long an attempt may take by what the route says itself.
fn per_try(route: &Route) -> Option<Duration> {
    match &route.retry {
        Some(Switch::On(retry)) => {
            retry.per_try.map(|time| time.get().map_or(Duration::MAX, |time| time.0))
        }
        Some(Switch::Off) | None => None,
    }
}

fn attempts(route: &Route) -> Option<u32> {
    match &route.retry {
        Some(Switch::On(retry)) => retry.attempts,
        Some(Switch::Off) | None => None,
    }
}
