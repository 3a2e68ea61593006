//! Where stored responses live, and the fetches that fill it: the memory tier, and who shares a fetch.

pub mod flights;
pub mod intern;
pub mod memory;
pub mod ranges;
pub mod uses;
pub mod variances;

/// The memory tier, as meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The hard limit in bytes: keys, headers, bodies and bookkeeping, fills in flight included.
    pub memory: u64,
    /// Who makes room for others.
    pub eviction: memory::Policy,
    /// The most variants of one key.
    pub variants: u32,
}
