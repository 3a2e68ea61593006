//! How a route's upstream is asked, where the route says so itself.

use std::time::Duration;

/// How a route's upstream is asked, where the route says so itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Asking {
    /// When a second backend is asked beside the first one; `None` never.
    pub hedge: Option<Hedge>,
}

/// When a second backend is asked beside the first one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hedge {
    /// When the first one has taken longer than so many percent of all answers.
    pub percentile: u32,
    /// And so long at least.
    pub at_least: Duration,
    /// Over how long answers are looked at.
    pub window: Duration,
    /// How many there have to be in that time.
    pub min_requests: u32,
    /// The most second requests, in percent of the requests.
    pub budget: u32,
}
