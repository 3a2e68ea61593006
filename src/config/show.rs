//! The configuration as it takes effect, as YAML that loads again.

mod yaml;

use crate::config::check::route;
use crate::config::schema::Config;
use crate::config::schema::cache::Cache;
use crate::config::schema::value::Switch;

/// The effective configuration as YAML: every default and everything inherited filled in.
///
/// There are no secrets in it: keys and the like are named by their files.
#[must_use]
pub fn show(config: &Config) -> String {
    let value = serde_yaml::to_value(effective(config));
    yaml::write(&value.expect("text, numbers, lists and sections can always be a YAML value"))
}

/// The same configuration with everything written out that a route inherits.
#[must_use]
pub fn effective(config: &Config) -> Config {
    let mut whole = config.clone();
    if let Switch::On(cache) = &mut whole.defaults.cache {
        *cache = cache.or(&Cache::built_in());
    }
    for listener in &mut whole.listeners {
        listener.name.get_or_insert_with(|| listener.address.clone());
    }
    let defaults = whole.defaults.clone();
    for (position, route) in whole.routes.iter_mut().enumerate() {
        route.name = Some(route::name(route, position));
        route.timeout.get_or_insert(defaults.timeout);
        route.max_body.get_or_insert(defaults.max_body);
        route.max_header.get_or_insert(defaults.max_header);
        route.spool.get_or_insert(defaults.spool);
        let outer = defaults.cache.as_ref().map_or_else(Cache::built_in, Cache::clone);
        route.cache = Some(match &route.cache {
            None => defaults.cache.clone(),
            Some(Switch::Off) => Switch::Off,
            Some(Switch::On(own)) => Switch::On(own.or(&outer)),
        });
    }
    whole
}
