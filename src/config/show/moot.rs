//! Leaves out what has a value and means nothing, beside what else is said: written out, it would be an error.

use serde_yaml::Value;

use crate::config::check::health;
use crate::config::check::resilience;
use crate::config::check::unwritten;
use crate::config::check::uses;
use crate::config::schema::Config;
use crate::config::schema::upstream::Balance;
use crate::config::schema::upstream::Upstream;

/// Leaves it out of `shown`, which `config` became.
pub(super) fn leave_out(config: &Config, shown: &mut Value) {
    let Some(upstreams) = shown.get_mut("upstreams") else { return };
    for (name, upstream) in &config.upstreams {
        let Some(shown) = upstreams.get_mut(name.as_str()) else { continue };
        for (section, key) in moot(name, upstream, config) {
            let within = match section {
                None => Some(&mut *shown),
                Some(section) => shown.get_mut(section),
            };
            if let Some(section) = within.and_then(Value::as_mapping_mut) {
                section.shift_remove(key);
            }
        }
    }
}

/// The keys of an upstream that mean nothing, with their sections.
fn moot(
    name: &str,
    upstream: &Upstream,
    config: &Config,
) -> Vec<(Option<&'static str>, &'static str)> {
    let mut moot = Vec::new();
    if upstream.balance != Balance::Hash {
        moot.push((None, "hash_by"));
    }
    if upstream.pool.queue == 0 {
        moot.push((Some("pool"), "queue_timeout"));
    }
    if upstream.breaker.as_ref().is_some_and(|breaker| breaker.rate.get().is_none()) {
        moot.extend(resilience::ABOUT_RATE.map(|key| (Some("breaker"), key)));
    }
    if let Some(checks) = upstream.health.as_ref() {
        moot.extend(health::about_other_checks(checks).map(|key| (Some("health"), key)));
    }
    if upstream.ejection.as_ref().is_some_and(|ejection| ejection.deviations.get().is_none()) {
        moot.extend(health::ABOUT_DEVIATIONS.map(|key| (Some("ejection"), key)));
    }
    if let Some(retry) = upstream.retry.as_ref()
        && unwritten::waits(retry, upstream.timeouts.total).0.0.is_zero()
    {
        moot.push((Some("retry"), "max_backoff"));
    }
    let attempts = resilience::about_further_attempts(upstream, uses::of(name, config));
    moot.extend(attempts.map(|key| (Some("retry"), key)));
    moot
}
