//! How a route's upstream is asked, as written.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::Serialize;

use crate::config::schema::value::OrOff;
use crate::units::ByteSize;
use crate::units::Period;

/// When a failed attempt is followed by another, for one route; what is not written is as the upstream says.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RouteRetry {
    /// The most attempts, the first one included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempts: Option<u32>,
    /// How long one attempt may take to the header of its answer, or `off`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_try: Option<OrOff<Period>>,
    /// Answers with these statuses are failures too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub statuses: Option<Vec<u16>>,
    /// The methods that are said again although the origin may have seen the request, POST as well if it is
    /// named. GET includes HEAD. Default: those that are idempotent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub methods: Option<Vec<String>>,
}

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
