//! Where in the store the answer to a request is: under its own URL, or under that of others which a stored
//! response says are as good (`No-Vary-Search`).

use std::sync::Arc;
use std::time::Instant;

use http::HeaderMap;

use crate::cache::key;
use crate::cache::key::Key;
use crate::cache::key::Resource;
use crate::cache::key::Target;
use crate::cache::search::Variance;
use crate::route::Route;
use crate::runtime::Runtime;
use crate::runtime::purge;
use crate::storage::memory::Generation;
use crate::storage::memory::Memory;
use crate::storage::variances::Rule;

/// A place in the store.
#[derive(Debug, Clone)]
pub struct Place {
    /// Its key.
    pub key: Key,
    /// The rule under which what is there answers more URLs than one.
    pub rule: Option<Arc<Rule>>,
}

/// The key of a request for this URL (its space does not matter) on this route; `None` where no upstream
/// answers it.
#[must_use]
pub fn own(
    runtime: &Runtime,
    route: &Route,
    target: &Target<'_>,
    headers: &HeaderMap,
) -> Option<Key> {
    let space = purge::space(&runtime.plan, route)?;
    Some(Key::new(&Target { space: &space, ..*target }, headers, &route.cache.key))
}

/// Where such a request is to look: where the newest response is that it selects, or its own place.
#[must_use]
pub fn of(
    runtime: &Runtime,
    route: &Route,
    target: &Target<'_>,
    headers: &HeaderMap,
) -> Option<Place> {
    let place = find(runtime, route, target, headers)?;
    if let Some(rule) = &place.rule {
        runtime.variances.note_use(rule, Instant::now());
    }
    Some(place)
}

/// The same without counting as a use of what is remembered.
#[must_use]
pub fn find(
    runtime: &Runtime,
    route: &Route,
    target: &Target<'_>,
    headers: &HeaderMap,
) -> Option<Place> {
    let own = Place { key: own(runtime, route, target, headers)?, rule: None };
    let mut best = (own, None);
    for place in others(runtime, route, target, headers) {
        // Only where there are any: the newest counts (RFC 9111 §4).
        let known = best.1.or_else(|| newest(runtime.memory, &best.0.key, headers));
        let here = newest(runtime.memory, &place.key, headers);
        best = if here > known { (place, here) } else { (best.0, known) };
    }
    Some(best.0)
}

/// Whether anything is stored that would answer other requests for this URL.
#[must_use]
pub fn has_variants(
    runtime: &Runtime,
    route: &Route,
    target: &Target<'_>,
    headers: &HeaderMap,
) -> bool {
    let own = own(runtime, route, target, headers);
    let others = others(runtime, route, target, headers).into_iter().map(|place| place.key);
    own.into_iter().chain(others).any(|key| !runtime.memory.variants(key.as_bytes()).is_empty())
}

/// The places that responses of the same origin say there are for this URL beside its own.
fn others(
    runtime: &Runtime,
    route: &Route,
    target: &Target<'_>,
    headers: &HeaderMap,
) -> Vec<Place> {
    let rules = &route.cache.key;
    if runtime.variances.is_empty() || !rules.heed_search() {
        return Vec::new();
    }
    let Some(space) = purge::space(&runtime.plan, route) else { return Vec::new() };
    let target = Target { space: &space, ..*target };
    let place = |rule: Arc<Rule>| {
        let resource = Resource::equivalents(&target, rules, (&rule.variance, rule.number));
        Place { key: Key::of(resource, headers, rules), rule: Some(rule) }
    };
    runtime.variances.of(&key::origin(&target, rules)).into_iter().map(place).collect()
}

/// Where a response is to be stored that was asked for when the sequence of purges stood at `asked`; `None`
/// under its own URL.
#[must_use]
pub fn for_response(
    runtime: &Runtime,
    route: &Route,
    (target, headers): (&Target<'_>, &HeaderMap),
    response: &HeaderMap,
    asked: Generation,
) -> Option<Key> {
    let rules = &route.cache.key;
    let variance = Variance::of(response).filter(|_| rules.heed_search())?;
    let space = purge::space(&runtime.plan, route)?;
    let target = Target { space: &space, ..*target };
    let origin = key::origin(&target, rules);
    let stands = || runtime.memory.generation();
    let rule = runtime.variances.learn(&origin, variance, asked, stands, Instant::now())?;
    let resource = Resource::equivalents(&target, rules, (&rule.variance, rule.number));
    Some(Key::of(resource, headers, rules))
}

/// Whether a response may be stored under the key under which it was looked for: it says of queries what that
/// key stands for.
#[must_use]
pub fn stays(rule: Option<&Rule>, response: &HeaderMap) -> bool {
    rule.is_none_or(|rule| Variance::of(response).as_ref() == Some(&rule.variance))
}

/// Which entry such a request selects under a key, without counting as a use. A later one has a larger
/// number.
fn newest(memory: &Memory, key: &Key, headers: &HeaderMap) -> Option<u64> {
    memory.peek(key.as_bytes(), Some(headers), |_| true).map(|entry| entry.id())
}
