//! Where stored responses live, and the fetches that fill it: the memory tier, and who shares a fetch.

pub mod flights;
pub mod intern;
pub mod memory;
pub mod ranges;
pub mod uses;
pub mod variances;

use std::time::Duration;

/// The memory tier, as meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The hard limit in bytes: keys, headers, bodies and bookkeeping, fills in flight included.
    pub memory: u64,
    /// The parts of it with limits of their own.
    pub zones: Vec<memory::ZoneSettings>,
    /// Who makes room for others.
    pub eviction: memory::Policy,
    /// The most variants of one key.
    pub variants: u32,
    /// What is taken over from a process that is followed.
    pub handover: Handover,
}

/// What is taken over from a process that is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Handover {
    /// In bytes, at most.
    pub most: u64,
    /// How long that may take.
    pub within: Duration,
}
