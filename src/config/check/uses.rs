//! What the routes of a configuration make of an upstream.

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
    }
    uses
}

fn attempts(route: &Route) -> Option<u32> {
    match &route.retry {
        Some(Switch::On(retry)) => retry.attempts,
        Some(Switch::Off) | None => None,
    }
}
