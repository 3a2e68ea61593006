//! Why a request would be answered as it would, for people. It decides nothing: it puts the course that
//! serving takes into words.

use std::time::Duration;
use std::time::SystemTime;

use http::HeaderMap;
use http::StatusCode;

use crate::cache::Exchange;
use crate::cache::Policy;
use crate::cache::Request;
use crate::cache::Response;
use crate::cache::course::Cause;
use crate::cache::course::Course;
use crate::cache::course::Way;
use crate::cache::freshness::Life;
use crate::cache::lookup::Bypass;
use crate::cache::reuse::Reuse;
use crate::cache::reuse::Why;
use crate::cache::reuse::Window;
use crate::cache::status::CacheStatus;
use crate::cache::status::Outcome;
use crate::cache::storable::Forbids;
use crate::cache::storable::Keep;
use crate::cache::storable::may_keep;

/// What is remembered of the last answers of the origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lately {
    /// The origin failed a moment ago.
    pub failed: bool,
    /// An answer was not stored.
    pub unstored: bool,
    /// How often it was asked for, where that counts (`min_uses`).
    pub uses: u32,
}

/// What a request would get now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// In one word; `None`: a refusal, since the client wants a stored response or none.
    pub outcome: Option<Outcome>,
    /// As Cache-Status begins; `None`: a refusal, which says nothing of the cache.
    pub status: Option<CacheStatus>,
    /// In a sentence.
    pub says: &'static str,
    /// What would change it.
    pub change: Vec<&'static str>,
}

/// Where the freshness of a stored response comes from (RFC 9111 §4.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sum {
    /// The lifetime as it was reckoned when the response came.
    pub lifetime: Duration,
    /// What says so; `None`: rules that have changed since.
    pub by: Option<&'static str>,
    /// How old it was when it came.
    pub age_at_arrival: Duration,
    /// For how long it has been here, or since it was last confirmed.
    pub here: Duration,
    /// What is left of the lifetime in seconds; negative once it is stale.
    pub remaining: i64,
}

/// What a request would get that goes on like this, and why.
pub fn verdict(course: &Course, policy: &Policy, lately: Lately) -> Verdict {
    let (says, change) = match (course.way, course.cause) {
        (Way::Refuse, _) => (
            "answered 504: the client wants what is stored and usable (only-if-cached), and \
             nothing is",
            vec!["the same request without only-if-cached", "`client_directives: ignore`"],
        ),
        (_, Cause::Past(bypass)) => passed(bypass),
        (_, Cause::Precondition) => (
            "asks the origin: If-Match and If-Unmodified-Since are its to judge",
            vec!["leave these fields out"],
        ),
        (_, Cause::Unsliced) => (
            "asks the origin for the range as it is: pieces of this object could not be stored in the \
             last minute",
            vec!["an origin that answers ranges with 206, a length and a strong validator"],
        ),
        (_, Cause::Rare) => (
            "asks the origin for the range as it is: the object was not asked for often enough yet \
             to be stored (`min_uses`)",
            vec![OFTEN],
        ),
        (_, Cause::Forbidden(why)) => forbidden(why),
        (_, Cause::Nothing) => missing(policy, lately),
        (_, Cause::OtherVariants) => (
            "asks the origin: what is stored was the answer to other values of the fields that \
             its Vary names",
            vec!["the same values in those fields", "an origin that varies by fewer fields"],
        ),
        (_, Cause::Judged(reuse)) => judged(reuse),
    };
    let is_answer = course.way != Way::Refuse;
    Verdict {
        outcome: is_answer.then_some(course.outcome),
        status: is_answer.then_some(course.status),
        says,
        change,
    }
}

/// What makes something worth storing where that takes more than one request.
const OFTEN: &str = "as many requests for it within ten minutes as the route's `min_uses` says";

/// What is said, and what would change it.
type Words = (&'static str, Vec<&'static str>);

fn judged(reuse: Reuse) -> Words {
    match reuse {
        Reuse::Fresh => {
            ("served from the store: it is fresh", vec!["a purge", "the end of its lifetime"])
        }
        Reuse::Stale(window) => (
            match window {
                Window::WhileRevalidate => {
                    "served from the store although it is stale, while it is refreshed in the \
                     background"
                }
                Window::IfError => {
                    "served from the store although it is stale, since the origin failed a moment \
                     ago"
                }
                Window::MaxStale => {
                    "served from the store although it is stale, since the client takes that"
                }
            },
            vec!["an answer of the origin", "the end of the window", "a hard purge"],
        ),
        Reuse::Revalidate(why) | Reuse::MustNot(why) => {
            ("asks the origin, on the condition that what is stored has changed", remedies(why))
        }
    }
}

/// The freshness of what is stored, in parts. `headers` are its fields as stored.
pub fn sum(
    request: &Request<'_>,
    (status, headers): (StatusCode, &HeaderMap),
    life: &Life,
    policy: &Policy,
    now: SystemTime,
) -> Sum {
    let response = Response { status, headers };
    let by = match may_keep(request, &response, policy, Exchange::at(life.arrived)) {
        Keep::Yes(kept) if kept.life.lifetime == life.lifetime => {
            Some(kept.lifetime_source.label())
        }
        Keep::Yes(_) | Keep::No(_) => None,
    };
    Sum {
        lifetime: life.lifetime,
        by,
        age_at_arrival: life.age_at_arrival,
        here: life.age(now).saturating_sub(life.age_at_arrival),
        remaining: life.remaining_seconds(now),
    }
}

fn passed(bypass: Bypass) -> Words {
    let (says, change) = match bypass {
        Bypass::Disabled => (
            "asks the origin: the route does not cache",
            "`cache: on` in the route, or in `defaults`",
        ),
        Bypass::Method => {
            ("asks the origin: only GET and HEAD are answered from the store", "another method")
        }
        Bypass::RequestBody => (
            "asks the origin: the request has a body, which no key sees",
            "a request without a body",
        ),
        Bypass::Upgrade => {
            ("asks the origin: the request asks for another protocol", "a request without Upgrade")
        }
        Bypass::Route => (
            "asks the origin: a condition under `bypass` holds",
            "a request that none of the conditions in the route's `bypass` is about",
        ),
    };
    (says, vec![change])
}

fn missing(policy: &Policy, lately: Lately) -> Words {
    let mut change = Vec::new();
    if lately.unstored {
        change.push(
            "an answer was not stored in the last minute: its Cache-Status, or `cache_reason` of \
             the access log, says why",
        );
    }
    if lately.failed {
        change.push("the origin failed a moment ago");
    }
    let states = policy.default_ttl.or(policy.override_ttl).is_some();
    // The next request counts as well.
    let often = lately.uses.saturating_add(1) >= policy.min_uses;
    change.push(if !often {
        OFTEN
    } else if states {
        "one request for it, unless the answer forbids that it is stored"
    } else {
        "one request for it, if the answer says for how long it is fresh; otherwise a `ttl` in the \
         route's `cache`"
    });
    ("asks the origin: nothing is stored under this key", change)
}

fn forbidden(why: Forbids) -> Words {
    let change = match why {
        Forbids::Client => "a request without `no-store`",
        Forbids::Route => {
            "a request that none of the conditions in the route's `no_store` is about"
        }
    };
    let says =
        "asks the origin for the range as it is: the request keeps its answer out of the store";
    (says, vec![change])
}

fn remedies(why: Why) -> Vec<&'static str> {
    match why {
        Why::Stale => vec![
            "a longer lifetime: s-maxage or max-age of the response, or the route's `ttl` or \
             `override_ttl`",
            "a window: stale-while-revalidate of the response",
        ],
        Why::MustRevalidate => vec![
            "a response without must-revalidate and proxy-revalidate",
            "a longer lifetime: s-maxage, or the route's `override_ttl`",
        ],
        Why::NoCache => vec!["a response without no-cache", "`override_ttl`, which goes over it"],
        Why::RequestNoCache | Why::RequestMaxAge | Why::RequestMinFresh => {
            vec!["a request without that directive", "`client_directives: limited` in the route"]
        }
        Why::OnlyIfCached => vec!["the same request without only-if-cached"],
    }
}

#[cfg(test)]
#[path = "explain_tests.rs"]
mod tests;
