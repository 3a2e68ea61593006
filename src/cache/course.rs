//! How a request goes on, by what the store has for it: served, sent to the origin, or refused; and what is
//! told of that. Serving and explaining both ask here.

use std::time::SystemTime;

use crate::cache::Policy;
use crate::cache::Request;
use crate::cache::directives::RequestDirectives;
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
use crate::cache::storable::Forbids;
use crate::cache::storable::NotStorable;
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

/// How a request goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Course {
    /// Where to.
    pub way: Way,
    /// As Cache-Status begins.
    pub status: CacheStatus,
    /// In one word, unless the origin says otherwise.
    pub outcome: Outcome,
    /// Why.
    pub cause: Cause,
}

/// Where an answer comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From the store.
    Serve,
    /// From the store, while that is refreshed.
    ServeAndRefresh,
    /// From the origin, on the condition that what is stored has changed, if anything is.
    Ask,
    /// From nowhere: the client wants what is stored and usable, and nothing is.
    Refuse,
}

/// What a [`Course`] comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// Nothing is stored.
    Nothing,
    /// Other variants are.
    OtherVariants,
    /// What is stored was judged.
    Judged(Reuse),
    /// The store is not asked.
    Past(Bypass),
    /// The conditions of the request are the origin's to judge.
    Precondition,
    /// It is an object whose pieces could not be stored lately, and a range of it is wanted.
    Unsliced,
    /// It was not asked for often enough yet to be stored.
    Rare,
    /// The request keeps its answer out of the store.
    Forbidden(Forbids),
}

/// What a request asks of the store.
///
/// # Errors
/// How it goes on, where it does not ask the store.
pub fn start(request: &Request<'_>, policy: &Policy) -> Result<RequestDirectives, Course> {
    let course = match may_look(request, policy) {
        Look::Yes(asked) if !conditional::is_for_origin(request.headers) => return Ok(asked),
        Look::Yes(_) => precondition(),
        Look::No(bypass) => past(bypass),
    };
    let asked = RequestDirectives::of(request.headers, policy.client_directives);
    let way = if policy.enabled && asked.only_if_cached { Way::Refuse } else { course.way };
    Err(Course { way, ..course })
}

/// How a request goes on that may be answered from the store. `origin`: whether it failed a moment ago.
pub fn by_store(
    stored: Stored<'_>,
    asked: &RequestDirectives,
    now: SystemTime,
    origin: Origin,
) -> Course {
    let missed = |why, cause| Course {
        way: if asked.only_if_cached { Way::Refuse } else { Way::Ask },
        status: CacheStatus::forwarded(why),
        outcome: Outcome::Miss,
        cause,
    };
    let life = match stored {
        Stored::Nothing => return missed(Forward::UriMiss, Cause::Nothing),
        Stored::OtherVariants => return missed(Forward::VaryMiss, Cause::OtherVariants),
        Stored::Selected(life) => life,
    };
    let reuse = may_serve(life, asked, now, origin);
    let hit = CacheStatus::hit(life.remaining_seconds(now));
    let (way, status, outcome) = match reuse {
        Reuse::Fresh => (Way::Serve, hit, Outcome::Hit),
        Reuse::Stale(window) => {
            let way = match (window, origin) {
                (Window::WhileRevalidate, Origin::Reachable) => Way::ServeAndRefresh,
                (Window::WhileRevalidate, Origin::Failing)
                | (Window::MaxStale | Window::IfError, _) => Way::Serve,
            };
            (way, hit.with_detail(window.label()), Outcome::Stale)
        }
        Reuse::Revalidate(why) | Reuse::MustNot(why) => {
            let way = match why {
                Why::OnlyIfCached => Way::Refuse,
                Why::Stale
                | Why::MustRevalidate
                | Why::NoCache
                | Why::RequestNoCache
                | Why::RequestMaxAge
                | Why::RequestMinFresh => Way::Ask,
            };
            (way, expired(why), Outcome::Expired)
        }
    };
    Course { way, status, outcome, cause: Cause::Judged(reuse) }
}

/// What is told where what is stored has to be confirmed.
pub fn expired(why: Why) -> CacheStatus {
    let forward = if why.is_client_wish() { Forward::Request } else { Forward::Stale };
    CacheStatus::forwarded(forward).with_detail(why.label())
}

/// How a request goes on that goes past the store.
pub fn past(bypass: Bypass) -> Course {
    let (why, outcome) = match bypass {
        Bypass::Method => (Forward::Method, Outcome::Miss),
        Bypass::Disabled | Bypass::Route | Bypass::RequestBody | Bypass::Upgrade => {
            (Forward::Bypass, Outcome::Bypass)
        }
    };
    around(CacheStatus::forwarded(why).with_detail(bypass.label()), outcome, Cause::Past(bypass))
}

/// How a request goes on whose conditions are the origin's to judge: answered from a stored response they
/// would need its validators before the body is chosen; the origin has them too.
fn precondition() -> Course {
    let status = CacheStatus::forwarded(Forward::Request).with_detail("precondition");
    around(status, Outcome::Miss, Cause::Precondition)
}

/// How a range goes on of an object that does not come in pieces that can be stored.
pub fn unsliced() -> Course {
    let status = CacheStatus::forwarded(Forward::Bypass).with_detail("unsliced");
    around(status, Outcome::Bypass, Cause::Unsliced)
}

/// How a range goes on of an object in pieces that was not asked for often enough yet.
pub fn rare() -> Course {
    let detail = NotStorable::TooFewUses.label();
    let status = CacheStatus::forwarded(Forward::UriMiss).with_detail(detail);
    around(status, Outcome::Miss, Cause::Rare)
}

/// How a range goes on of an object in pieces, of which none may be stored for this request.
pub fn forbidden(why: Forbids) -> Course {
    let detail = why.reason().label();
    let status = CacheStatus::forwarded(Forward::UriMiss).with_detail(detail);
    around(status, Outcome::Miss, Cause::Forbidden(why))
}

fn around(status: CacheStatus, outcome: Outcome, cause: Cause) -> Course {
    Course { way: Way::Ask, status, outcome, cause }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::cache::freshness::Change;
    use crate::cache::freshness::Staleness;
    use crate::cache::freshness::Validation;

    const NOW: SystemTime = SystemTime::UNIX_EPOCH;

    fn life(lifetime: u64) -> Life {
        let window = Duration::from_secs(30);
        Life {
            arrived: NOW,
            age_at_arrival: Duration::from_secs(60),
            lifetime: Duration::from_secs(lifetime),
            stale_while_revalidate: window,
            stale_if_error: window,
            staleness: Staleness::Open,
            validation: Validation::WhenStale,
            change: Change::Possible,
        }
    }

    fn way(life: &Life, asked: RequestDirectives, origin: Origin) -> Way {
        by_store(Stored::Selected(life), &asked, NOW, origin).way
    }

    #[test]
    fn what_is_stale_is_refreshed_unless_the_origin_failed_just_now() {
        let any = RequestDirectives::default();
        assert_eq!(way(&life(61), any, Origin::Reachable), Way::Serve);
        assert_eq!(way(&life(60), any, Origin::Reachable), Way::ServeAndRefresh);
        assert_eq!(way(&life(60), any, Origin::Failing), Way::Serve);
        assert_eq!(way(&life(10), any, Origin::Reachable), Way::Ask);
    }

    #[test]
    fn who_wants_what_is_stored_is_refused_where_that_cannot_serve() {
        let only = RequestDirectives { only_if_cached: true, ..RequestDirectives::default() };
        assert_eq!(way(&life(61), only, Origin::Reachable), Way::Serve);
        assert_eq!(way(&life(10), only, Origin::Reachable), Way::Refuse);
        for stored in [Stored::Nothing, Stored::OtherVariants] {
            assert_eq!(by_store(stored, &only, NOW, Origin::Reachable).way, Way::Refuse);
            let any = RequestDirectives::default();
            assert_eq!(by_store(stored, &any, NOW, Origin::Reachable).way, Way::Ask);
        }
    }

    #[test]
    fn who_wants_what_is_stored_is_refused_also_where_the_store_is_not_asked() {
        let policy = Policy::default();
        let headers = |only: bool| {
            let mut headers = http::HeaderMap::new();
            headers.insert(http::header::IF_MATCH, http::HeaderValue::from_static("\"a\""));
            if only {
                let value = http::HeaderValue::from_static("only-if-cached");
                headers.insert(http::header::CACHE_CONTROL, value);
            }
            headers
        };
        let way = |only, policy: &Policy| {
            let headers = headers(only);
            start(&Request::new(&http::Method::GET, &headers), policy).unwrap_err().way
        };
        assert_eq!(way(false, &policy), Way::Ask);
        assert_eq!(way(true, &policy), Way::Refuse);
        // Where nothing is ever stored nobody can mean it.
        assert_eq!(way(true, &Policy { enabled: false, ..policy }), Way::Ask);
    }

    #[test]
    fn what_goes_past_the_store_is_told_with_its_reason() {
        for bypass in Bypass::ALL {
            let course = past(bypass);
            assert!(course.status.to_string().ends_with(&format!("detail={}", bypass.label())));
        }
        assert_eq!(
            precondition().status.to_string(),
            "edgeproxy; fwd=request; detail=precondition"
        );
        assert_eq!(unsliced().status.to_string(), "edgeproxy; fwd=bypass; detail=unsliced");
    }
}
