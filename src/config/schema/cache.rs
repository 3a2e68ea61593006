//! The cache's sections, as written: the store, and what a route allows.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use schemars::JsonSchema;
use schemars::Schema;
use schemars::SchemaGenerator;
use schemars::json_schema;
use serde::Deserialize;
use serde::Deserializer;
use serde::Serialize;
use serde::Serializer;
use serde::de::Error;
use serde::de::Visitor;

use crate::cache as policy;
use crate::cache::deception::Guard;
use crate::cache::purge::DEFAULT_ZONE;
use crate::config::schema::route::Condition;
use crate::config::schema::value::OrAuto;
use crate::config::schema::value::OrOff;
use crate::units::ByteSize;
use crate::units::Period;

/// Where stored responses are kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Store {
    /// The most memory that stored responses take, bookkeeping included.
    pub memory: ByteSize,
    /// Parts of it with limits of their own, by their names: what is stored in one (`zone` of a route's `cache`)
    /// makes no room for what is stored elsewhere.
    pub zones: BTreeMap<String, Zone>,
    /// Which stored responses make room for others.
    pub eviction: Eviction,
    /// The most variants (`Vary`) of one key that are stored; the oldest makes room for a new one.
    pub variants: u32,
    /// How much of what is stored a process takes over that follows another, the hottest first. `auto`: as
    /// much as fits.
    pub handover_memory: OrAuto<ByteSize>,
    /// How long that may take, before the new process serves; 0s takes nothing over.
    pub handover_time: Period,
}

impl Default for Store {
    fn default() -> Self {
        Self {
            memory: ByteSize(256 << 20),
            zones: BTreeMap::new(),
            eviction: Eviction::S3Fifo,
            variants: 16,
            handover_memory: OrAuto::Auto,
            handover_time: Period(Duration::from_secs(10)),
        }
    }
}

/// A part of the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Zone {
    /// How much of `cache.memory` it has: a hard limit.
    pub memory: ByteSize,
}

/// Which stored responses make room for others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Eviction {
    /// Those that were asked for once only before those that were asked for again; large ones have to
    /// be asked for more often. One pass over many objects does not empty the store.
    #[serde(rename = "s3-fifo")]
    S3Fifo,
    /// The least recently used.
    Lru,
}

/// What may be stored and served again. A key that a route leaves out is taken from `defaults.cache`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Cache {
    /// The zone of the store (`cache.zones`); `default` is what these leave of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// The methods that are answered from the store and fill it: `[GET, HEAD]`, or `[GET]`, which leaves
    /// HEAD to the origin. `POST` beside them is never answered from the store: its answer is stored where
    /// it says that it is what a GET of the same URL gets, and for how long.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub methods: Option<Vec<String>>,
    /// Only responses with these statuses (`404`, `4xx`) are stored, among those that may be; empty is all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub statuses: Option<Vec<Statuses>>,
    /// How often something has to be asked for, within ten minutes, before it is stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_uses: Option<u32>,
    /// A request that meets any of these conditions goes to the origin past the cache.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bypass: Option<When>,
    /// The answer to a request that meets any of these is not stored; what is stored may answer it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub no_store: Option<When>,
    /// How long a response is fresh that says nothing about it; `off` leaves it to the heuristic.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl: Option<OrOff<Period>>,
    /// The same by status (`404`, `5xx`), in place of `ttl` and of the heuristic; `off` is not stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl_by_status: Option<BTreeMap<Statuses, OrOff<Period>>>,
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
    /// For how long after it became stale a response that does not say so itself is served at once, while
    /// it is refreshed in the background; `off` is never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stale_while_revalidate: Option<OrOff<Period>>,
    /// For how long after it became stale a response that does not say so itself is served while the
    /// origin fails; `off` is never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stale_if_error: Option<OrOff<Period>>,
    /// The largest body that is stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_object: Option<ByteSize>,
    /// Objects are fetched and stored in pieces of this size, so that a part of a large one does not pull
    /// the whole; `off` is whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slice: Option<OrOff<ByteSize>>,
    /// What is fetched where a range is asked for and nothing is stored: the `whole`, of which it is then a
    /// part, or the range `as-asked`, which is stored by itself and answers the ranges that lie in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ranges: Option<Ranges>,
    /// Responses whose Content-Type is not what the path's suffix promises (a page under `/a.css`) are
    /// stored (`off`), are not when they do not state a lifetime (`unstated`), or never are (`all`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suffix_guard: Option<SuffixGuard>,
    /// A cacheable response with Set-Cookie is not stored (`refuse`), stored and served without it
    /// (`strip`), or stored and served with it to everybody (`keep`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub set_cookie: Option<SetCookie>,
    /// What a client's Cache-Control may ask for: only-if-cached and no-store (`limited`),
    /// everything (`honour`), or nothing (`ignore`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_directives: Option<ClientDirectives>,
    /// How long a request waits while another asks the origin for the same, before it asks itself; 0s
    /// lets each ask for itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub collapse_wait: Option<Period>,
    /// Whether clients are told in Server-Timing what the cache did and how long the origin took.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_timing: Option<bool>,
    /// What of a request is put into one of few forms before it is looked up, stored or sent on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub normalise: Option<Normalise>,
    /// What tells stored responses apart besides scheme, host and path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<Key>,
}

/// Conditions on a request, of which any one suffices: `present`, `absent`, the exact value,
/// `{exact: …}` or `{prefix: …}`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct When {
    /// On request headers.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, Condition>,
    /// On query parameters.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub query: BTreeMap<String, Condition>,
    /// On cookies; a name that ends with `*` is every cookie whose name begins so.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub cookies: BTreeMap<String, Condition>,
}

/// Whose Content-Type has to be what the path's suffix promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SuffixGuard {
    /// Nobody's.
    Off,
    /// That of responses that do not state a lifetime.
    Unstated,
    /// Everybody's.
    All,
}

/// A status (`404`), or all that begin with a digit (`5xx`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Statuses(pub String);

impl<'de> Deserialize<'de> for Statuses {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reads;

        impl Visitor<'_> for Reads {
            type Value = Statuses;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a status like 404, or 5xx")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Statuses, E> {
                Ok(Statuses(text.to_owned()))
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<Statuses, E> {
                Ok(Statuses(number.to_string()))
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<Statuses, E> {
                Ok(Statuses(number.to_string()))
            }
        }

        deserializer.deserialize_any(Reads)
    }
}

impl JsonSchema for Statuses {
    fn schema_name() -> Cow<'static, str> {
        "Statuses".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": "^[2-5]([0-9][0-9]|xx)$",
            "description": "A status (`404`), or all that begin with a digit (`5xx`)."
        })
    }
}

/// What is fetched where a range is asked for and nothing is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Ranges {
    /// The whole, of which it is then a part.
    Whole,
    /// The range, which is stored by itself.
    AsAsked,
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

/// What of a request is put into one of few forms before it is looked up, stored or sent on.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Normalise {
    /// The content codings that the origin has, the most wanted first: Accept-Encoding becomes the one
    /// of them that the client likes best, or `identity`. Empty leaves it as it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accept_encoding: Option<Vec<String>>,
    /// The languages that the origin has, the most wanted first: Accept-Language becomes the one of
    /// them that the client likes best, or the first. Empty leaves it as it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accept_language: Option<Vec<String>>,
    /// Other request headers, and the values that mean something in them; any other is removed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub headers: Option<BTreeMap<String, Vec<String>>>,
}

/// What tells stored responses apart besides scheme, host and path.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Key {
    /// The host that all hosts of the route stand for: one key, and one Host towards the origin; `off`
    /// is each for itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<OrOff<String>>,
    /// Whether the class of the client's device (mobile, tablet, desktop) counts, and is told to the
    /// origin in X-Device-Class.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<bool>,
    /// Which query parameters count: `all`, `none`, `{only: [page]}` or `{except: [utm_source]}`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub query: Option<Query>,
    /// Whether parameters are sorted by name first, so that their order does not count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sort_query: Option<bool>,
    /// Whether a response's No-Vary-Search counts: the parameters that it names, or their order, do not tell
    /// apart the URLs that it may answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub no_vary_search: Option<bool>,
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
            zone: Some(DEFAULT_ZONE.to_owned()),
            methods: Some(vec!["GET".to_owned(), "HEAD".to_owned()]),
            statuses: Some(Vec::new()),
            min_uses: Some(built_in.min_uses),
            bypass: Some(When::default()),
            no_store: Some(When::default()),
            ttl: Some(time(built_in.default_ttl)),
            ttl_by_status: Some(BTreeMap::new()),
            override_ttl: Some(time(built_in.override_ttl)),
            max_ttl: Some(time(built_in.max_ttl)),
            heuristic_percent: Some(built_in.heuristic_percent),
            heuristic_max: Some(Period(built_in.heuristic_max)),
            stale_while_revalidate: Some(OrOff::Off),
            stale_if_error: Some(OrOff::Off),
            max_object: Some(ByteSize(built_in.max_object)),
            slice: Some(OrOff::Off),
            ranges: Some(match built_in.key.ranges {
                policy::Ranges::Whole => Ranges::Whole,
                policy::Ranges::AsAsked => Ranges::AsAsked,
            }),
            suffix_guard: Some(match built_in.guard {
                Guard::Off => SuffixGuard::Off,
                Guard::Unstated => SuffixGuard::Unstated,
                Guard::All => SuffixGuard::All,
            }),
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
            collapse_wait: Some(Period(built_in.collapse_wait)),
            server_timing: Some(built_in.timing == policy::Timing::Told),
            normalise: Some(Normalise {
                accept_encoding: Some(Vec::new()),
                accept_language: Some(Vec::new()),
                headers: Some(BTreeMap::new()),
            }),
            key: Some(Key {
                host: Some(OrOff::Off),
                device: Some(false),
                query: Some(Query::All),
                sort_query: Some(built_in.key.sort_query),
                no_vary_search: Some(built_in.key.search == policy::Search::Heeded),
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
            zone: own.zone.or_else(|| outer.zone.clone()),
            methods: own.methods.or_else(|| outer.methods.clone()),
            statuses: own.statuses.or_else(|| outer.statuses.clone()),
            min_uses: own.min_uses.or(outer.min_uses),
            bypass: own.bypass.or_else(|| outer.bypass.clone()),
            no_store: own.no_store.or_else(|| outer.no_store.clone()),
            ttl: own.ttl.or(outer.ttl),
            ttl_by_status: own.ttl_by_status.or_else(|| outer.ttl_by_status.clone()),
            override_ttl: own.override_ttl.or(outer_override),
            max_ttl: own.max_ttl.or(outer.max_ttl),
            heuristic_percent: own.heuristic_percent.or(outer.heuristic_percent),
            heuristic_max: own.heuristic_max.or(outer.heuristic_max),
            stale_while_revalidate: own.stale_while_revalidate.or(outer.stale_while_revalidate),
            stale_if_error: own.stale_if_error.or(outer.stale_if_error),
            max_object: own.max_object.or(outer.max_object),
            slice: own.slice.or(outer.slice),
            ranges: own.ranges.or(outer.ranges),
            suffix_guard: own.suffix_guard.or(outer.suffix_guard),
            set_cookie: own.set_cookie.or(outer.set_cookie),
            client_directives: own.client_directives.or(outer.client_directives),
            collapse_wait: own.collapse_wait.or(outer.collapse_wait),
            server_timing: own.server_timing.or(outer.server_timing),
            normalise: match (own.normalise, &outer.normalise) {
                (Some(own), Some(outer)) => Some(own.or(outer)),
                (own, outer) => own.or_else(|| outer.clone()),
            },
            key: match (own.key, &outer.key) {
                (Some(own), Some(outer)) => Some(own.or(outer)),
                (own, outer) => own.or_else(|| outer.clone()),
            },
        }
    }
}

impl Normalise {
    fn or(self, outer: &Self) -> Self {
        Self {
            accept_encoding: self.accept_encoding.or_else(|| outer.accept_encoding.clone()),
            accept_language: self.accept_language.or_else(|| outer.accept_language.clone()),
            headers: self.headers.or_else(|| outer.headers.clone()),
        }
    }
}

impl Key {
    fn or(self, outer: &Self) -> Self {
        Self {
            host: self.host.or_else(|| outer.host.clone()),
            device: self.device.or(outer.device),
            query: self.query.or_else(|| outer.query.clone()),
            sort_query: self.sort_query.or(outer.sort_query),
            no_vary_search: self.no_vary_search.or(outer.no_vary_search),
            headers: self.headers.or_else(|| outer.headers.clone()),
            cookies: self.cookies.or_else(|| outer.cookies.clone()),
        }
    }
}
