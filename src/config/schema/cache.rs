//! The cache's sections, as written: the store, and what a route allows.

use std::collections::BTreeMap;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::Serialize;
use serde::Serializer;

use crate::cache as policy;
use crate::config::schema::value::OrOff;
use crate::units::ByteSize;
use crate::units::Period;

/// Where stored responses are kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Store {
    /// The most memory that stored responses take, bookkeeping included.
    pub memory: ByteSize,
}

impl Default for Store {
    fn default() -> Self {
        Self { memory: ByteSize(256 << 20) }
    }
}

/// What may be stored and served again. A key that a route leaves out is taken from `defaults.cache`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Cache {
    /// How long a response is fresh that says nothing about it; `off` leaves it to the heuristic.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl: Option<OrOff<Period>>,
    /// How long every response is fresh, whatever it says, except for no-store and private.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub override_ttl: Option<OrOff<Period>>,
    /// No response is fresh for longer than this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_ttl: Option<OrOff<Period>>,
    /// A response with Last-Modified that says nothing else is fresh for this part of its age, in
    /// percent (RFC 9111 §4.2.2); 0 to 100, 0 is never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heuristic_percent: Option<u8>,
    /// But no longer than this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heuristic_max: Option<Period>,
    /// For how long after it became stale a response that does not say so itself is served while the
    /// origin fails; `off` is never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stale_if_error: Option<OrOff<Period>>,
    /// The largest body that is stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_object: Option<ByteSize>,
    /// A cacheable response with Set-Cookie is not stored (`refuse`), stored and served without it
    /// (`strip`), or stored and served with it to everybody (`keep`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub set_cookie: Option<SetCookie>,
    /// What a client's Cache-Control may ask for: only-if-cached and no-store (`limited`),
    /// everything (`honour`), or nothing (`ignore`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_directives: Option<ClientDirectives>,
    /// What tells stored responses apart besides scheme, host and path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<Key>,
}

/// What is done with a cacheable response that carries Set-Cookie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SetCookie {
    /// It is not stored.
    Refuse,
    /// It is stored and served without the field.
    Strip,
    /// It is stored and served with the field, to everybody.
    Keep,
}

/// What a client's Cache-Control may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ClientDirectives {
    /// only-if-cached and no-store.
    Limited,
    /// Everything.
    Honour,
    /// Nothing.
    Ignore,
}

/// What tells stored responses apart besides scheme, host and path.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Key {
    /// Which query parameters count: `all`, `none`, `{only: [page]}` or `{except: [utm_source]}`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub query: Option<Query>,
    /// Whether parameters are sorted by name first, so that their order does not count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sort_query: Option<bool>,
    /// Request headers whose values count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub headers: Option<Vec<String>>,
    /// Cookies whose values count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cookies: Option<Vec<String>>,
}

/// Which query parameters count.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Query {
    /// All, as written.
    All,
    /// None.
    None,
    /// Only these.
    Only(Vec<String>),
    /// All but these.
    Except(Vec<String>),
}

/// As a section with one key: the usual form in YAML would be a tag.
impl Serialize for Query {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::All => serializer.serialize_str("all"),
            Self::None => serializer.serialize_str("none"),
            Self::Only(names) => BTreeMap::from([("only", names)]).serialize(serializer),
            Self::Except(names) => BTreeMap::from([("except", names)]).serialize(serializer),
        }
    }
}

impl Cache {
    /// Every key with the value that it has when nothing is written.
    #[must_use]
    pub fn built_in() -> Self {
        let built_in = policy::Policy::default();
        let time = |time: Option<Duration>| match time {
            None => OrOff::Off,
            Some(time) => OrOff::Is(Period(time)),
        };
        Self {
            ttl: Some(time(built_in.default_ttl)),
            override_ttl: Some(time(built_in.override_ttl)),
            max_ttl: Some(time(built_in.max_ttl)),
            heuristic_percent: Some(built_in.heuristic_percent),
            heuristic_max: Some(Period(built_in.heuristic_max)),
            stale_if_error: Some(OrOff::Off),
            max_object: Some(ByteSize(built_in.max_object)),
            set_cookie: Some(match built_in.set_cookie {
                policy::SetCookie::Refuse => SetCookie::Refuse,
                policy::SetCookie::Strip => SetCookie::Strip,
                policy::SetCookie::Keep => SetCookie::Keep,
            }),
            client_directives: Some(match built_in.client_directives {
                policy::ClientDirectives::Limited => ClientDirectives::Limited,
                policy::ClientDirectives::Honour => ClientDirectives::Honour,
                policy::ClientDirectives::Ignore => ClientDirectives::Ignore,
            }),
            key: Some(Key {
                query: Some(Query::All),
                sort_query: Some(built_in.key.sort_query),
                headers: Some(Vec::new()),
                cookies: Some(Vec::new()),
            }),
        }
    }

    /// These settings, completed from `outer`.
    #[must_use]
    pub fn or(&self, outer: &Self) -> Self {
        let own = self.clone();
        // A lifetime that is set nearer must not be void because of an override further out.
        let outer_override = match (own.ttl, outer.override_ttl) {
            (Some(_), Some(_)) => Some(OrOff::Off),
            (_, inherited) => inherited,
        };
        Self {
            ttl: own.ttl.or(outer.ttl),
            override_ttl: own.override_ttl.or(outer_override),
            max_ttl: own.max_ttl.or(outer.max_ttl),
            heuristic_percent: own.heuristic_percent.or(outer.heuristic_percent),
            heuristic_max: own.heuristic_max.or(outer.heuristic_max),
            stale_if_error: own.stale_if_error.or(outer.stale_if_error),
            max_object: own.max_object.or(outer.max_object),
            set_cookie: own.set_cookie.or(outer.set_cookie),
            client_directives: own.client_directives.or(outer.client_directives),
            key: match (own.key, &outer.key) {
                (Some(own), Some(outer)) => Some(own.or(outer)),
                (own, outer) => own.or_else(|| outer.clone()),
            },
        }
    }
}

impl Key {
    fn or(self, outer: &Self) -> Self {
        Self {
            query: self.query.or_else(|| outer.query.clone()),
            sort_query: self.sort_query.or(outer.sort_query),
            headers: self.headers.or_else(|| outer.headers.clone()),
            cookies: self.cookies.or_else(|| outer.cookies.clone()),
        }
    }
}
