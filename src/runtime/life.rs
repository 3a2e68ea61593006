//! The life of a stored response as reuse is judged by it: its times from the store, the rest from its own
//! header and from what the route says now.

use http::StatusCode;

use crate::cache::Policy;
use crate::cache::freshness::Life;
use crate::cache::freshness::Restraint;
use crate::cache::freshness::Validation;
use crate::storage::memory::Entry;
use crate::storage::memory::Times;

/// What the policy needs to know of a stored response: its times from the store, the rest from its
/// own header.
#[must_use]
pub fn life_of(entry: &Entry, policy: &Policy) -> Life {
    let mut life = life(entry.status(), entry.restraint(), &entry.times(), policy);
    if let Some(purged) = entry.stale_since() {
        life.expire(purged);
    }
    life
}

/// The same of a response that is still being stored.
#[must_use]
pub fn life(status: StatusCode, restraint: Restraint, times: &Times, policy: &Policy) -> Life {
    Life {
        arrived: times.responded,
        age_at_arrival: times.age,
        lifetime: times.lifetime,
        stale_while_revalidate: times.while_revalidate,
        stale_if_error: times.if_error,
        staleness: restraint.staleness,
        // A lifetime that the route sets counts whatever the response says.
        validation: match policy.overrides(status) {
            true => Validation::WhenStale,
            false => restraint.validation,
        },
        change: restraint.change,
    }
}
