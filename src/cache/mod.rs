//! RFC 9111 and its relatives, as pure functions: may I look, keep, serve, and what must I forget?

pub mod directives;
pub mod forget;
pub mod freshness;
pub mod key;
pub mod lookup;
pub mod reuse;
pub mod revalidate;
pub mod status;
pub mod storable;
pub mod vary;

use std::time::Duration;

use http::HeaderName;

/// What a route allows the cache to do, as meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Off: nothing is looked up or stored.
    pub enabled: bool,
    /// The freshness lifetime of a response that says nothing about it; `None`: such a response is
    /// stored only when the heuristic of RFC 9111 §4.2.2 applies.
    pub default_ttl: Option<Duration>,
    /// The lifetime of every storable response, whatever it says (but for `no-store` and `private`).
    pub override_ttl: Option<Duration>,
    /// Explicit and default lifetimes are cut to this.
    pub max_ttl: Option<Duration>,
    /// Lifetime from Last-Modified when the response says nothing: a fraction of its age in percent,
    /// zero turns heuristics off.
    pub heuristic_percent: u8,
    /// No heuristic lifetime exceeds this.
    pub heuristic_max: Duration,
    /// The largest body, in bytes, that is stored.
    pub max_object: u64,
    /// What is done with a response that carries Set-Cookie.
    pub set_cookie: SetCookie,
    /// What `Cache-Control` of the request may ask for.
    pub client_directives: ClientDirectives,
    /// What goes into the key besides scheme, host and path.
    pub key: KeyRules,
}

/// What is done with a cacheable response that carries Set-Cookie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetCookie {
    /// It is not stored.
    Refuse,
    /// It is stored and served without the field.
    Strip,
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
    /// Which query parameters count.
    pub query: QueryRule,
    /// Whether parameters are sorted by name first.
    pub sort_query: bool,
    /// Request fields whose values count.
    pub headers: Vec<HeaderName>,
    /// Cookies whose values count.
    pub cookies: Vec<String>,
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
            default_ttl: None,
            override_ttl: None,
            max_ttl: None,
            heuristic_percent: 10,
            heuristic_max: Duration::from_secs(24 * 3600),
            max_object: 64 << 20,
            set_cookie: SetCookie::Refuse,
            client_directives: ClientDirectives::Limited,
            key: KeyRules {
                query: QueryRule::All,
                sort_query: false,
                headers: Vec::new(),
                cookies: Vec::new(),
            },
        }
    }
}
