//! What one request knows, grouped by the phase that learned it.

use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;
use std::time::SystemTime;

use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use http::StatusCode;
use http::Version;
use smallvec::SmallVec;

use crate::cache::course::Course;
use crate::cache::directives::RequestDirectives;
use crate::cache::key::Key;
use crate::cache::reuse::Why;
use crate::cache::slice::Piece;
use crate::cache::status::CacheStatus;
use crate::cache::status::Forward;
use crate::cache::status::Outcome;
use crate::cache::status::Source;
use crate::cache::storable::Concerns;
use crate::cache::storable::Forbids;
use crate::listen::conn::Conn;
use crate::message::admit::Admitted;
use crate::message::ends::Ends;
use crate::message::forwarded::Client;
use crate::message::range::Spec;
use crate::message::target::Scheme;
use crate::proxy::finish;
use crate::proxy::mirror::Copying;
use crate::refusal::Refusal;
use crate::route::Route;
use crate::route::action::Action;
use crate::route::captures::Captures;
use crate::runtime::Runtime;
use crate::storage::flights::Flight;
use crate::storage::flights::Origin;
use crate::storage::flights::Told;
use crate::storage::memory::Fill;
use crate::storage::memory::Generation;
use crate::storage::variances::Rule;
use crate::terms::clock;
use crate::upstream::backend::Backend;
use crate::upstream::connect::Kept;
use crate::upstream::lease::Lease;
use crate::upstream::race::Race;

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// A client.
    Client,
    /// We ourselves, to freshen what is stored. Counts as nobody's request.
    Refresh,
}

/// What one request knows. What few have to know is in a box: all of it is moved for each.
pub struct RequestCtx {
    /// The generation that serves it, to its end.
    pub runtime: Arc<Runtime>,
    /// Who asks.
    pub arrival: Arrival,
    /// When it arrived, for durations.
    pub started: Instant,
    /// How long the front of its body took to come, for which no origin was asked yet.
    pub spooling: Duration,
    /// When it arrived, for the log and for ages.
    pub wall: SystemTime,
    /// The version of HTTP that the client speaks.
    pub version: Version,
    /// The fetch that it is, when it is no client's.
    pub flight: Option<Arc<Flight>>,
    /// The connection it came on.
    pub conn: Option<Arc<Conn>>,
    /// Its id, the client's or ours.
    pub id: String,
    /// What was admitted.
    pub admitted: Option<Admitted>,
    /// The client, as far as it is believed.
    pub client: Option<Client>,
    /// The route: an index into the plan's table.
    pub route: Option<usize>,
    /// What the route's path captured.
    pub captures: Captures,
    /// Bytes of the request body that were read.
    pub body_read: u64,
    /// What the cache has to do with it.
    pub cache: CacheSide,
    /// What the origin has to do with it.
    pub origin: OriginSide,
    /// A copy of it, for somebody else.
    pub(crate) copy: Copying,
    /// Why we answered it ourselves.
    pub refusal: Option<Refusal>,
    /// The response ends with its header for the client, whatever the origin or the store has more.
    pub bodiless: bool,
    /// When the first byte of the response was ready.
    pub first_byte: Option<Duration>,
    /// Its log line was written.
    pub(crate) logged: bool,
}

/// The answer to a POST, on its way into the store.
#[derive(Debug, Default)]
pub enum Posted {
    /// It is not stored.
    #[default]
    Not,
    /// It may be. Where the sequence of purges stood before the origin was asked.
    Asked(Generation),
    /// It is being stored.
    Filling(Box<Fill>),
}

/// What the cache has to do with a request.
#[derive(Default)]
pub struct CacheSide {
    /// What the client's Cache-Control asks for, as far as the route lets it.
    pub asked: RequestDirectives,
    /// The key, when the cache may be asked.
    pub key: Option<Key>,
    /// The rule by which what is stored under the key answers more URLs than one.
    pub rule: Option<Arc<Rule>>,
    /// The request's fields, by which variants are selected.
    pub fields: Option<Arc<HeaderMap>>,
    /// The piece that is asked for, where the object is stored in pieces.
    pub piece: Option<Piece>,
    /// The range that is asked for, where it is stored by itself.
    pub range: Option<Spec>,
    /// The answer to a POST that may be stored.
    pub posted: Posted,
    /// How often it was asked for lately, where nothing is stored and that counts.
    pub uses: Option<u32>,
    /// Its answer is not stored, whatever it is: the request says so.
    pub forbidden: Option<Forbids>,
    /// Of whose requests it says something that the answer is not stored, if it is not.
    pub concerns: Concerns,
    /// What is told of it in Cache-Status.
    pub status: CacheStatus,
    /// What became of it, in one word; `None` until something has.
    pub outcome: Option<Outcome>,
    /// Why what is stored may not serve although the origin failed.
    pub unvalidated: Option<Why>,
}

impl CacheSide {
    /// The request goes to the origin, for this reason.
    pub fn forwarded(&mut self, why: Forward, detail: Option<&'static str>, outcome: Outcome) {
        self.status = CacheStatus { detail, ..CacheStatus::forwarded(why) };
        self.outcome = Some(outcome);
    }

    /// It goes on like this.
    pub fn take(&mut self, course: &Course) {
        self.status = course.status;
        self.outcome = Some(course.outcome);
    }

    /// It is answered from the store.
    pub fn hit(&mut self, ttl: i64) {
        self.status = CacheStatus::hit(ttl);
        self.outcome = Some(Outcome::Hit);
    }

    /// It is answered from the store although that is stale, without asking the origin.
    pub fn stale(&mut self, detail: Option<&'static str>) {
        self.status = CacheStatus { source: Some(Source::Hit), detail, ..self.status };
        self.outcome = Some(Outcome::Stale);
    }

    /// It is answered from the store although that is stale, since the origin was asked and failed: what went
    /// forward is no hit (RFC 9211 §2.1).
    pub fn stale_after(&mut self, failed: Option<StatusCode>, detail: Option<&'static str>) {
        let status = CacheStatus { detail, ..self.status };
        self.status = failed.map_or(status, |failed| status.with_status(failed));
        self.outcome = Some(Outcome::Stale);
    }
}

/// What the origin has to do with a request.
#[derive(Default)]
pub struct OriginSide {
    /// The upstream that serves the request, once one was chosen: an index into the plan's list.
    pub upstream: Option<usize>,
    /// The upstream that has let it in.
    pub let_in_by: Option<usize>,
    /// The backends that were tried, the current one last.
    pub tried: SmallVec<[Arc<Backend>; 2]>,
    /// The backend that it is at now.
    pub lease: Option<Lease>,
    /// The attempt that it makes now, where it may be hedged.
    pub race: Option<Arc<Race>>,
    /// What became of a second backend that was asked as well.
    pub hedge: Option<&'static str>,
    /// The cookie by which the client comes to its backend again, where it has to be told.
    pub stick: Option<HeaderValue>,
    /// When the request went on to the route's other upstream, and what the first one's total time is.
    pub fell_back: Option<(Instant, Duration)>,
    /// What is waited before the next attempt.
    pub wait: Option<Duration>,
    /// Why the last attempt failed.
    pub failed: Option<Refusal>,
    /// How many attempts are not counted: the connection was dead before, or the origin has not looked at the request.
    pub uncounted: u32,
    /// Whether the connection for the next attempt may be one that waited.
    pub kept: Kept,
    /// How often an origin was asked.
    pub attempts: u32,
    /// The address that answered, or was asked last, where that is not the last of those that were tried.
    address: Option<Arc<str>>,
    /// When the current attempt began.
    pub began: Option<Instant>,
    /// How long it took to the header.
    pub took: Option<Duration>,
    /// The status it answered.
    pub status: Option<u16>,
    /// Whether the connection was used before.
    pub reused: bool,
    /// The header of a 304 that it answered.
    pub not_modified: Option<Box<HeaderMap>>,
    /// Whether it was asked on a condition, so that it may answer 304.
    pub conditions: Asked,
    /// Interim responses seen.
    pub interim: u32,
    /// The request asked for an upgrade and the origin agreed.
    pub upgraded: bool,
    /// The fields of its response that are not stored.
    pub private: Option<Box<HeaderMap>>,
    /// All this was learned from a fetch that counted it.
    pub by_errand: bool,
}

/// Whether an origin is asked on conditions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Asked {
    /// It is not.
    #[default]
    Plainly,
    /// It is: 304 may be the answer.
    OnCondition,
    /// It was, and its answer spoke of something else: it is asked again, without.
    Again,
}

impl OriginSide {
    /// The address that answered, or was asked last.
    pub(crate) fn address(&self) -> Option<&Arc<str>> {
        let last = || self.tried.last().map(|backend| backend.shown());
        self.address.as_ref().or_else(last)
    }

    /// `backend` is tried.
    pub(crate) fn tries(&mut self, backend: Arc<Backend>) {
        self.tried.push(backend);
        self.address = None;
    }

    /// Another has tried for it, at this address.
    pub(crate) fn was_tried_at(&mut self, address: Option<Arc<str>>) {
        self.address = address;
    }

    /// The last one that was tried may be tried as if it had not been.
    pub(crate) fn forget_last(&mut self) {
        self.address = self.address().cloned();
        self.tried.pop();
    }

    /// The same of all of them.
    pub(crate) fn forget_tried(&mut self) {
        self.address = self.address().cloned();
        self.tried.clear();
    }

    /// The fields of its response that are not stored.
    pub(crate) fn private(&self) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
        self.private.iter().flat_map(|fields| fields.iter())
    }
}

impl RequestCtx {
    /// The ends of the connection that it came on.
    #[must_use]
    pub fn ends(&self) -> Option<Ends> {
        let conn = self.conn.as_deref()?;
        Some(Ends { source: conn.peer, destination: conn.local })
    }

    pub(crate) fn new(runtime: Arc<Runtime>) -> Self {
        Self::since(Instant::now(), SystemTime::now(), runtime)
    }

    /// What is known of a request that arrived at this moment.
    #[inline(always)]
    pub(crate) fn since(started: Instant, wall: SystemTime, runtime: Arc<Runtime>) -> Self {
        Self {
            runtime,
            arrival: Arrival::Client,
            started,
            spooling: Duration::ZERO,
            wall,
            version: Version::HTTP_11,
            flight: None,
            conn: None,
            id: String::new(),
            admitted: None,
            client: None,
            route: None,
            captures: Captures::default(),
            body_read: 0,
            cache: CacheSide::default(),
            origin: OriginSide::default(),
            copy: Copying::default(),
            refusal: None,
            bodiless: false,
            first_byte: None,
            logged: false,
        }
    }

    /// Tells those who wait for this fetch what it has learned, if it is one.
    pub(crate) fn tell(&self) {
        let Some(flight) = &self.flight else { return };
        flight.tell(Told {
            status: self.cache.status,
            outcome: self.cache.outcome,
            concerns: self.cache.concerns,
            refusal: self.refusal,
            private: self.origin.private.as_deref().cloned().unwrap_or_default(),
            stick: self.origin.stick.clone(),
            origin: Origin {
                upstream: self.origin.upstream,
                attempts: self.origin.attempts,
                address: self.origin.address().cloned(),
                took: self.origin.took,
                status: self.origin.status,
                hedge: self.origin.hedge,
            },
        });
    }

    /// The scheme that the client used, as far as that is believed.
    #[must_use]
    pub fn scheme(&self) -> Scheme {
        self.client.as_ref().map_or(Scheme::Http, |client| client.scheme)
    }

    /// The route that the request takes, once it is known.
    #[must_use]
    pub fn route(&self) -> Option<&Route> {
        self.route.map(|index| &self.runtime.plan.routes.routes()[index])
    }

    /// The upstream that serves the request: the one that was chosen, else the route's.
    #[must_use]
    pub fn upstream(&self) -> Option<usize> {
        self.origin.upstream.or_else(|| match self.route()?.action {
            Action::Upstream(index) => Some(index),
            Action::Redirect { .. } | Action::Respond { .. } => None,
        })
    }

    /// How long the route gives the origin from now to the end of its header; `None` is no limit.
    #[must_use]
    pub fn time_left(&self) -> Option<Duration> {
        let total = self.route()?.total_timeout?;
        Some(total.saturating_sub(clock::since(self.started)))
    }
}

impl Drop for RequestCtx {
    fn drop(&mut self) {
        if !self.logged {
            finish::record_abandoned(self);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_of_a_request_fits_into_a_kibibyte() {
        // What is larger costs the allocator several times as much.
        assert!(size_of::<RequestCtx>() <= 1024, "{}", size_of::<RequestCtx>());
    }
}
