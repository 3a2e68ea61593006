//! Checks the zones of the store, and who names them.

use std::sync::Arc;

use crate::cache::purge::DEFAULT_ZONE;
use crate::config::check::cache;
use crate::config::check::size;
use crate::config::path::Path;
use crate::config::report::Report;
use crate::config::schema;
use crate::config::schema::cache::Cache;
use crate::config::suggest;
use crate::storage::memory::MOST_ZONES;
use crate::storage::memory::ZoneSettings;

/// What zones have to leave of the store, in bytes.
const LEAST_LEFT: u64 = 1 << 20;

/// The parts of the store with limits of their own.
pub(super) fn zones(
    config: &schema::Config,
    memory: u64,
    root: &Path,
    report: &mut Report<'_>,
) -> Vec<ZoneSettings> {
    let at = root.key("cache").key("zones");
    if config.cache.zones.len() > MOST_ZONES {
        report
            .error(&at, format!("there are {} zones", config.cache.zones.len()))
            .help(format!("{MOST_ZONES} are the most: put what may share its room into one"));
    }
    let mut zones = Vec::new();
    let mut left = memory;
    for (name, zone) in &config.cache.zones {
        let at = at.key(name.as_str());
        if name.is_empty() || name.contains(|c: char| c.is_whitespace() || c.is_control()) {
            report
                .error_in_key(&at, format!("\"{name}\" is no name for a zone"))
                .help("write it without spaces: it stands in metrics");
        }
        if name == DEFAULT_ZONE {
            report
                .error_in_key(&at, "this is the name of what all zones leave of the store")
                .help("call it something else; `cache.memory` says how much there is in all");
        }
        let is_used = |(_, section): (Path, &Cache)| section.zone.as_ref() == Some(name);
        if !cache::sections(config, root).any(is_used) && !report.is_broken(&root.key("routes")) {
            report
                .warning_about_key(&at, format!("no route stores in the zone \"{name}\""))
                .help(format!("say `zone: {name}` in the `cache` of one, or remove it"));
        }
        let limit = size(report, &at.key("memory"), zone.memory, 1 << 20, 1 << 50);
        left = left.saturating_sub(limit);
        zones.push(ZoneSettings { name: Arc::from(name.as_str()), limit });
    }
    if !zones.is_empty() && left < LEAST_LEFT {
        report.error(&at, "the zones leave nothing for what names none").help(format!(
            "cache.memory is {} in all: 1MiB at least has to be left",
            config.cache.memory
        ));
    }
    zones
}

/// The zone that a section names is one that there is.
pub(super) fn known(section: &Cache, config: &schema::Config, at: &Path, report: &mut Report<'_>) {
    let Some(name) = &section.zone else { return };
    if name == DEFAULT_ZONE || config.cache.zones.contains_key(name) {
        return;
    }
    if report.is_broken(&Path::root().key("cache").key("zones").key(name.as_str())) {
        return;
    }
    let names = config.cache.zones.keys().map(String::as_str);
    let known: Vec<&str> = names.chain([DEFAULT_ZONE]).collect();
    report
        .error(&at.key("zone"), format!("unknown zone \"{name}\""))
        .help(suggest::help(name, &known, "zones"));
}

/// How much there is for what is stored as a section says, in bytes, where the store has `memory`.
pub(super) fn room(section: &Cache, memory: u64, zones: &[ZoneSettings]) -> u64 {
    let of_zone = zones.iter().find(|zone| section.zone.as_deref() == Some(&*zone.name));
    let others: u64 = zones.iter().map(|zone| zone.limit).sum();
    of_zone.map_or(memory.saturating_sub(others), |zone| zone.limit)
}

/// What says how much that is.
pub(super) fn key_of(section: &Cache) -> String {
    match section.zone.as_deref().filter(|name| *name != DEFAULT_ZONE) {
        Some(name) => format!("cache.zones.{name}.memory"),
        None => "cache.memory".to_owned(),
    }
}
