//! Why a request would be answered as it would, for people. It decides nothing: it asks the functions
//! that do, in the order in which a request meets them, and puts their reasons into words.

use std::time::Duration;
use std::time::SystemTime;

use http::HeaderMap;
use http::StatusCode;

use crate::cache::Exchange;
use crate::cache::Policy;
use crate::cache::Request;
use crate::cache::Response;
use crate::cache::freshness::Life;
use crate::cache::lookup::Bypass;
use crate::cache::lookup::Look;
use crate::cache::lookup::may_look;
use crate::cache::reuse::Origin;
use crate::cache::reuse::Reuse;
use crate::cache::reuse::Why;
use crate::cache::reuse::Window;
use crate::cache::reuse::may_serve;
use crate::cache::status::CacheStatus;
use crate::cache::status::Forward;
use crate::cache::status::Outcome;
use crate::cache::storable::Keep;
use crate::cache::storable::may_keep;
use crate::message::conditional;

/// What the store has for a request.
#[derive(Debug, Clone, Copy)]
pub enum Stored<'a> {
    /// Nothing under its key.
    Nothing,
    /// Variants, but none that it selects.
    OtherVariants,
    /// What it selects.
    Selected(&'a Life),
}

/// What is remembered of the last answers of the origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lately {
    /// The origin failed a moment ago.
    pub failed: bool,
    /// An answer was not stored.
    pub unstored: bool,
}

/// What a request would get now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// In one word; `None`: a refusal, since the client wants a stored response or none.
    pub outcome: Option<Outcome>,
    /// As Cache-Status begins.
    pub status: CacheStatus,
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

/// What this request would get, and why.
pub fn verdict(
    request: &Request<'_>,
    policy: &Policy,
    stored: Stored<'_>,
    lately: Lately,
    now: SystemTime,
) -> Verdict {
    let asked = match may_look(request, policy) {
        Look::Yes(asked) => asked,
        Look::No(bypass) => return passed(bypass),
    };
    if conditional::is_for_origin(request.headers) {
        return Verdict {
            outcome: Some(Outcome::Miss),
            status: CacheStatus::forwarded(Forward::Request).with_detail("precondition"),
            says: "asks the origin: If-Match and If-Unmodified-Since are its to judge",
            change: vec!["leave these fields out"],
        };
    }
    let life = match stored {
        Stored::Selected(life) => life,
        Stored::Nothing | Stored::OtherVariants if asked.only_if_cached => {
            return not_cached(CacheStatus::default());
        }
        Stored::Nothing => return missing(policy, lately),
        Stored::OtherVariants => {
            return Verdict {
                outcome: Some(Outcome::Miss),
                status: CacheStatus::forwarded(Forward::VaryMiss),
                says: "asks the origin: what is stored was the answer to other values of the \
                       fields that its Vary names",
                change: vec![
                    "the same values in those fields",
                    "an origin that varies by fewer fields",
                ],
            };
        }
    };
    let origin = if lately.failed { Origin::Failing } else { Origin::Reachable };
    let hit = CacheStatus::hit(life.remaining_seconds(now));
    match may_serve(life, &asked, now, origin) {
        Reuse::Fresh => Verdict {
            outcome: Some(Outcome::Hit),
            status: hit,
            says: "served from the store: it is fresh",
            change: vec!["a purge", "the end of its lifetime"],
        },
        Reuse::Stale(window) => Verdict {
            outcome: Some(Outcome::Stale),
            status: hit.with_detail(window.label()),
            says: match window {
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
            change: vec!["an answer of the origin", "the end of the window", "a hard purge"],
        },
        Reuse::Revalidate(Why::OnlyIfCached) | Reuse::MustNot(Why::OnlyIfCached) => {
            not_cached(hit.with_detail(Why::OnlyIfCached.label()))
        }
        Reuse::Revalidate(why) | Reuse::MustNot(why) => {
            let forward = if why.is_client_wish() { Forward::Request } else { Forward::Stale };
            Verdict {
                outcome: Some(Outcome::Expired),
                status: CacheStatus::forwarded(forward).with_detail(why.label()),
                says: "asks the origin, on the condition that what is stored has changed",
                change: remedies(why),
            }
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

fn passed(bypass: Bypass) -> Verdict {
    let (outcome, forward, says, change) = match bypass {
        Bypass::Disabled => (
            Outcome::Bypass,
            Forward::Bypass,
            "asks the origin: the route does not cache",
            "`cache: on` in the route, or in `defaults`",
        ),
        Bypass::Method => (
            Outcome::Miss,
            Forward::Method,
            "asks the origin: only GET and HEAD are answered from the store",
            "another method",
        ),
        Bypass::RequestBody => (
            Outcome::Miss,
            Forward::Bypass,
            "asks the origin: the request has a body, which no key sees",
            "a request without a body",
        ),
        Bypass::Upgrade => (
            Outcome::Miss,
            Forward::Bypass,
            "asks the origin: the request asks for another protocol",
            "a request without Upgrade",
        ),
        Bypass::Route => (
            Outcome::Bypass,
            Forward::Bypass,
            "asks the origin: a condition under `bypass` holds",
            "a request that none of the conditions in the route's `bypass` is about",
        ),
    };
    Verdict {
        outcome: Some(outcome),
        status: CacheStatus::forwarded(forward).with_detail(bypass.label()),
        says,
        change: vec![change],
    }
}

fn missing(policy: &Policy, lately: Lately) -> Verdict {
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
    change.push(if states {
        "one request for it, unless the answer forbids that it is stored"
    } else {
        "one request for it, if the answer says for how long it is fresh; otherwise a `ttl` in the \
         route's `cache`"
    });
    Verdict {
        outcome: Some(Outcome::Miss),
        status: CacheStatus::forwarded(Forward::UriMiss),
        says: "asks the origin: nothing is stored under this key",
        change,
    }
}

fn not_cached(status: CacheStatus) -> Verdict {
    Verdict {
        outcome: None,
        status,
        says: "answered 504: the client wants what is stored and usable (only-if-cached), and \
               nothing is",
        change: vec!["the same request without only-if-cached", "`client_directives: ignore`"],
    }
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
