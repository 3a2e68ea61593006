//! Stores that live as long as the process.
//!
//! Pingora's cache machinery wants its storage `&'static`. A process makes one store per identity and
//! keeps it over every reload, so leaking it once is what it would do anyway.

use crate::storage::Settings;
use crate::storage::memory::Memory;
use crate::storage::memory::Options;

/// The memory tier of this process. To be called once.
#[must_use]
pub fn memory(settings: &Settings) -> &'static Memory {
    let options = Options {
        policy: settings.eviction,
        variants: usize::try_from(settings.variants).unwrap_or(usize::MAX),
        ..Options::with_limit(settings.memory)
    };
    Box::leak(Box::new(Memory::with_zones(options, &settings.zones)))
}
