//! How a route's upstream is asked, as written.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::Serialize;

use crate::units::ByteSize;
use crate::units::Period;

/// When another backend is asked as well since the first one takes long: for GET, HEAD and OPTIONS
/// without a body. Whoever answers first answers the client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Hedge {
    /// When it takes longer than so many percent of the route's answers of late, 50 to 99.
    pub percentile: u32,
    /// Never sooner.
    pub at_least: Period,
    /// Over how long answers are looked at.
    pub window: Period,
    /// How many answers there have to be in that time before anything is hedged.
    pub min_requests: u32,
    /// The most hedges, in percent of the requests of the last ten seconds.
    pub budget: u32,
}

/// Who is sent a copy of what goes to the route's upstream. Its answers are thrown away.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Mirror {
    /// The upstream that gets the copies.
    pub upstream: String,
    /// Of how many requests in a hundred, 1 to 100.
    pub percent: u32,
    /// Requests with a larger body are not copied; 1MiB at most.
    pub max_body: ByteSize,
    /// How many copies may be under way; more are not made.
    pub at_once: u32,
}

impl Default for Mirror {
    fn default() -> Self {
        Self { upstream: String::new(), percent: 100, max_body: ByteSize(64 << 10), at_once: 100 }
    }
}

impl Default for Hedge {
    fn default() -> Self {
        Self {
            percentile: 95,
            at_least: Period(Duration::from_millis(10)),
            window: Period(Duration::from_secs(30)),
            min_requests: 100,
            budget: 5,
        }
    }
}
