//! RFC 9111 and its relatives, as pure functions: may I look, keep, serve, and what must I forget?
//!
//! A request meets the files in this order: [`normalise`] says it in one of few ways, [`key`] names what
//! is asked for, [`lookup`] says whether
//! the store may be asked at all, [`vary`] finds the variant, [`reuse`] judges what was found,
//! [`course`] says how the request goes on for all this,
//! [`revalidate`] asks the origin about it and takes in a 304, [`storable`] judges a new response,
//! [`forget`] says what an unsafe method invalidates, [`purge`] what an operator wants gone,
//! [`status`] tells the client. [`directives`], [`dictionary`], [`freshness`], [`condition`], [`deception`],
//! [`mod@slice`], [`part`], [`search`], [`surrogate`], [`groups`], [`date`] and [`fields`] are what these are made of; [`explain`]
//! tells people what they decide.
//!
//! Nothing here reads a clock, does I/O or knows a server: facts come in as `http` types and
//! `SystemTime`, decisions go out as values that carry their reason.

pub mod condition;
pub mod course;
pub mod date;
pub mod deception;
pub mod dictionary;
pub mod directives;
pub mod explain;
pub mod fields;
pub mod forget;
pub mod freshness;
pub mod groups;
pub mod key;
pub mod lookup;
pub mod normalise;
pub mod part;
pub mod purge;
pub mod reuse;
pub mod revalidate;
pub mod search;
#[cfg(test)]
mod second_opinion;
pub mod slice;
pub mod status;
pub mod storable;
pub mod surrogate;
pub mod vary;

use std::sync::Arc;
use std::time::Duration;
use std::time::SystemTime;

use http::HeaderMap;
use http::HeaderName;
use http::Method;
use http::StatusCode;
use http::header;

use crate::cache::condition::Condition;
use crate::cache::deception::Guard;

/// What the cache needs to know of a request.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The method.
    pub method: &'a Method,
    /// The header section, as the origin would see it.
    pub headers: &'a HeaderMap,
    /// Whether content follows.
    pub payload: Payload,
    /// The path, as the origin would see it.
    pub path: &'a str,
    /// What follows the `?`.
    pub query: Option<&'a str>,
    /// How often it was asked for lately, this time included, as far as that is counted.
    pub uses: u32,
}

impl<'a> Request<'a> {
    /// A view whose payload is read off the framing fields: present when there is a
    /// Transfer-Encoding, or a Content-Length other than zero. HTTP/2 needs neither: there the caller
    /// says it with [`Request::with_payload`].
    pub fn new(method: &'a Method, headers: &'a HeaderMap) -> Self {
        let sized = headers.get_all(header::CONTENT_LENGTH).iter().any(|v| v.as_bytes() != b"0");
        let payload = if sized || headers.contains_key(header::TRANSFER_ENCODING) {
            Payload::Present
        } else {
            Payload::Absent
        };
        Self { method, headers, payload, path: "/", query: None, uses: u32::MAX }
    }

    /// The same view of a request for this path and query.
    #[must_use]
    pub fn with_target(self, path: &'a str, query: Option<&'a str>) -> Self {
        Self { path, query, ..self }
    }

    /// The same view of what was asked for so often.
    #[must_use]
    pub fn with_uses(self, uses: u32) -> Self {
        Self { uses, ..self }
    }

    /// The same view with the payload as the caller knows it.
    #[must_use]
    pub fn with_payload(self, payload: Payload) -> Self {
        Self { payload, ..self }
    }
}

/// Whether a request carries content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Payload {
    /// The header section is all.
    Absent,
    /// Content follows; the key does not see it, so neither may the cache (RFC 9110 §9.3.1).
    Present,
}

/// What the cache needs to know of a response.
#[derive(Debug, Clone, Copy)]
pub struct Response<'a> {
    /// The status code.
    pub status: StatusCode,
    /// The header section, as the origin sent it.
    pub headers: &'a HeaderMap,
}

/// When a request left for the origin and when its response's header section arrived: the
/// `request_time` and `response_time` of RFC 9111 §4.2.3.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exchange {
    /// The request was sent.
    pub requested: SystemTime,
    /// The header section had arrived.
    pub arrived: SystemTime,
}

impl Exchange {
    /// An exchange that took no time.
    pub fn at(now: SystemTime) -> Self {
        Self { requested: now, arrived: now }
    }
}

/// What a route allows the cache to do, as meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Off: nothing is looked up or stored.
    pub enabled: bool,
    /// The zone of the store; empty is the one without a name.
    pub zone: Arc<str>,
    /// Which methods are answered from the store.
    pub methods: Methods,
    /// What is done with the answer to a POST.
    pub posts: Posts,
    /// Only responses with these are stored; empty: with any that may be.
    pub statuses: Vec<Statuses>,
    /// How often something has to be asked for, within a while, before it is stored.
    pub min_uses: u32,
    /// A request that meets any of these goes past the cache.
    pub bypass: Vec<Condition>,
    /// The answer to a request that meets any of these is not stored; what is stored may answer it.
    pub no_store: Vec<Condition>,
    /// The freshness lifetime of a response that says nothing about it; `None`: such a response is
    /// stored only when the heuristic of RFC 9111 §4.2.2 applies.
    pub default_ttl: Option<Duration>,
    /// The same for responses with certain statuses, in place of the default and of the heuristic.
    pub status_ttl: Vec<(Statuses, StatusTtl)>,
    /// The lifetime of every storable response, whatever it says (but for `no-store` and `private`).
    pub override_ttl: Option<Duration>,
    /// Explicit and default lifetimes are cut to this.
    pub max_ttl: Option<Duration>,
    /// Lifetime from Last-Modified when the response says nothing: a fraction of its age in percent,
    /// zero turns heuristics off.
    pub heuristic_percent: u8,
    /// No heuristic lifetime exceeds this.
    pub heuristic_max: Duration,
    /// For how long beyond its lifetime a response that names no window may serve while it is
    /// refreshed in the background (RFC 5861 §3).
    pub stale_while_revalidate: Duration,
    /// For how long beyond its lifetime a response that names no window may serve while the origin
    /// fails (RFC 9111 §4.2.4).
    pub stale_if_error: Duration,
    /// The largest body, in bytes, that is stored.
    pub max_object: u64,
    /// Whose Content-Type is held against the name that was asked for.
    pub guard: Guard,
    /// What is done with a response that carries Set-Cookie.
    pub set_cookie: SetCookie,
    /// What `Cache-Control` of the request may ask for.
    pub client_directives: ClientDirectives,
    /// How long a request waits for the answer to another that asks for the same, before it asks the
    /// origin itself; zero: each asks for itself.
    pub collapse_wait: Duration,
    /// What of a request is put into a normal form before all else.
    pub normalise: normalise::Rules,
    /// Whether clients are told in Server-Timing what the cache did and how long the origin took.
    pub timing: Timing,
    /// What goes into the key besides scheme, host and path.
    pub key: KeyRules,
}

/// Which methods are answered from the store, and fill it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Methods {
    /// GET and HEAD.
    GetAndHead,
    /// GET alone: a HEAD is the origin's to answer.
    Get,
}

/// Some statuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Statuses {
    /// This one.
    One(StatusCode),
    /// All that begin with this digit.
    Class(u16),
}

/// What a route says of responses with certain statuses that state no lifetime.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatusTtl {
    /// They are not stored.
    Off,
    /// They are fresh for this long.
    Is(Duration),
}

impl Statuses {
    /// Whether this status is one of them.
    pub fn contain(self, status: StatusCode) -> bool {
        match self {
            Self::One(one) => one == status,
            Self::Class(class) => class == status.as_u16() / 100,
        }
    }
}

impl Policy {
    /// The fields of a request in their normal form, where it has one.
    pub fn normal_form(&self, headers: &HeaderMap) -> Option<HeaderMap> {
        if !self.enabled {
            return None;
        }
        self.normalise.normal_form(headers)
    }

    /// Whether the route's word goes over what a response with this status says of its own life. That of an
    /// error is never lengthened: what it says stands.
    pub fn overrides(&self, status: StatusCode) -> bool {
        self.override_ttl.is_some() && status.as_u16() < 400
    }

    /// What is said of responses with this status; of a status by itself before its class.
    pub fn status_ttl(&self, status: StatusCode) -> Option<StatusTtl> {
        let said = |wanted: Statuses| {
            self.status_ttl.iter().find(|(of, _)| *of == wanted).map(|(_, ttl)| *ttl)
        };
        said(Statuses::One(status)).or_else(|| said(Statuses::Class(status.as_u16() / 100)))
    }
}

/// What is done with a cacheable response that carries Set-Cookie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetCookie {
    /// It is not stored.
    Refuse,
    /// It is stored and served without the field.
    Strip,
    /// It is stored and served with it, to everybody: what the response itself allows (RFC 9111 §7.3).
    Keep,
}

/// What a client's `Cache-Control` may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientDirectives {
    /// `only-if-cached` and `no-store` only: a stranger must not force misses.
    Limited,
    /// All of RFC 9111 §5.2.1.
    Honour,
    /// None.
    Ignore,
}

/// What goes into the key besides scheme, host and path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRules {
    /// The host that all of a route's hosts stand for.
    pub host: Option<String>,
    /// Which query parameters count.
    pub query: QueryRule,
    /// Whether parameters are sorted by name first.
    pub sort_query: bool,
    /// Request fields whose values count.
    pub headers: Vec<HeaderName>,
    /// Cookies whose values count.
    pub cookies: Vec<String>,
    /// Objects are stored in pieces of this many bytes, each under a key of its own.
    pub slice: Option<u64>,
    /// What is fetched where a range is asked for, and nothing is stored.
    pub ranges: Ranges,
    /// Whether a response may say which parameters of the query do not matter.
    pub search: Search,
}

impl KeyRules {
    /// Whether what a response says of the query has any effect: what is stored in pieces or by range is found
    /// by its own URL alone.
    pub fn heed_search(&self) -> bool {
        self.search == Search::Heeded
            && self.query != QueryRule::None
            && self.slice.is_none()
            && self.ranges == Ranges::Whole
    }
}

/// What is made of a response's `No-Vary-Search`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Search {
    /// It says for which URLs the response is good.
    Heeded,
    /// Nothing: it is good for its own.
    Ignored,
}

/// What is fetched where a range is asked for, and nothing is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ranges {
    /// The whole, of which the range is then a part.
    Whole,
    /// The range, which is stored under a key of its own.
    AsAsked,
}

/// Whether clients are told what the cache did, and how long the origin took, in Server-Timing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timing {
    /// They are not.
    Untold,
    /// They are.
    Told,
}

/// What is done with the answer to a POST that says for how long it answers a GET (RFC 9110 §9.3.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Posts {
    /// It is not stored.
    NotStored,
    /// It is.
    Stored,
}

/// Which query parameters are part of the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QueryRule {
    /// All, as written.
    All,
    /// None.
    None,
    /// Only these.
    Only(Vec<String>),
    /// All but these.
    Except(Vec<String>),
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            enabled: true,
            zone: Arc::from(""),
            methods: Methods::GetAndHead,
            posts: Posts::NotStored,
            statuses: Vec::new(),
            min_uses: 1,
            bypass: Vec::new(),
            no_store: Vec::new(),
            default_ttl: None,
            status_ttl: Vec::new(),
            override_ttl: None,
            max_ttl: None,
            heuristic_percent: 10,
            heuristic_max: Duration::from_secs(24 * 3600),
            stale_while_revalidate: Duration::ZERO,
            stale_if_error: Duration::ZERO,
            max_object: 64 << 20,
            guard: Guard::Unstated,
            set_cookie: SetCookie::Refuse,
            client_directives: ClientDirectives::Limited,
            collapse_wait: Duration::from_secs(5),
            normalise: normalise::Rules::default(),
            timing: Timing::Untold,
            key: KeyRules {
                host: None,
                query: QueryRule::All,
                sort_query: false,
                headers: Vec::new(),
                cookies: Vec::new(),
                slice: None,
                ranges: Ranges::Whole,
                search: Search::Heeded,
            },
        }
    }
}
