//! The `upstreams` section, as written.

use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;
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
use serde::de::MapAccess;
use serde::de::Visitor;
use serde::de::value::MapAccessDeserializer;

use crate::config::schema::health::Ejection;
use crate::config::schema::health::Health;
use crate::config::schema::secret::Secret;
use crate::config::schema::value::OrOff;
use crate::config::schema::value::Switch;
use crate::units::Period;

/// A named group of origin addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Upstream {
    /// `false` switches it off: its routes answer 503.
    pub active: bool,
    /// Its backends: `host:port`, `http://host`, `https://host`, `srv:NAME` (what its SRV records name),
    /// `unix:/path/to.sock`, or `demo`, the origin built in for trying things out. At least one.
    pub addresses: Vec<Address>,
    /// How one of them is chosen for a request.
    pub balance: Balance,
    /// What requests have in common that come to the same backend, with `balance: hash`: `uri`,
    /// `client`, `header:NAME` or `cookie:NAME`.
    pub hash_by: String,
    /// The most requests at once that a backend is given, in percent of the mean, before its requests
    /// go to the next, with `balance: hash`; or `off`.
    pub hash_bound: OrOff<u32>,
    /// How a client comes to the backend again that served it before: `off`, `on`, or the settings.
    pub sticky: Switch<Sticky>,
    /// A limit of requests at once that is found out from the upstream's latency: `off`, `on`, or the
    /// settings. What is above it is answered 503, or with what is stale.
    pub concurrency: Switch<Concurrency>,
    /// Below this percentage of usable backends, health is not heeded; 0 always heeds it.
    pub panic_threshold: u32,
    /// How long a backend that came up takes until it gets its whole share, or `off`.
    pub slow_start: OrOff<Period>,
    /// When a backend that fails is given a rest: `off`, `on`, or the settings.
    pub breaker: Switch<Breaker>,
    /// When a failed attempt is followed by another: `off`, `on`, or the settings.
    pub retry: Switch<Retry>,
    /// How its backends are checked: `off`, `on` (whether each can be connected to), or the settings.
    pub health: Switch<Health>,
    /// When a backend that fails where others do not is left out: `off`, `on`, or the settings.
    pub ejection: Switch<Ejection>,
    /// How many connections each backend is given, and how they are kept.
    pub pool: Pool,
    /// TLS towards it: `off`, `on`, or its settings.
    pub tls: Switch<OriginTls>,
    /// The HTTP version spoken to it.
    pub protocol: Protocol,
    /// Whether each connection says by the PROXY protocol for whom it speaks: `off`, or the version.
    pub proxy_protocol: ProxyProtocol,
    /// The Host that it sees: `pass` hands the client's on, everything else is sent as it stands.
    pub host: String,
    /// Every deadline.
    pub timeouts: Timeouts,
    /// The DNS servers that its names are asked of, `10.0.0.2` or `127.0.0.1:8600`; none: the system's
    /// resolver is asked.
    pub resolvers: Vec<String>,
    /// The longest time until its names are resolved again.
    pub resolve_every: Period,
}

/// One backend of an upstream: `"10.0.0.1:8080"`, or with settings of its own
/// `{address: "10.0.0.1:8080", weight: 2}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// What it is called; without it, as its address.
    pub id: Option<String>,
    /// Where.
    pub address: String,
    /// Its share of requests relative to its siblings.
    pub weight: u32,
    /// Whether it gets requests.
    pub active: bool,
    /// It gets requests only while none of the others can be used.
    pub backup: bool,
    /// TLS towards it; without it, as the upstream says.
    pub tls: Option<Switch<OriginTls>>,
}

/// How connections to an upstream say for whom they speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ProxyProtocol {
    /// They do not.
    Off,
    /// By a line of text.
    V1,
    /// By a binary header.
    V2,
}

/// How a backend is chosen for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Balance {
    /// In turn, each by its weight.
    RoundRobin,
    /// By chance, each by its weight.
    Random,
    /// The one with the fewest requests for its weight.
    LeastConnections,
    /// The cheaper of two taken by chance: latency of late, peaks counting at once, for each request
    /// in flight.
    PeakEwma,
    /// The same one for requests that have in common what `hash_by` names, as long as it can be used.
    Hash,
}

/// How a client comes to the backend again that served it before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Sticky {
    /// The name of the cookie that says which one it was.
    pub cookie: String,
    /// How long the client keeps it, or `off`: until it closes.
    pub max_age: OrOff<Period>,
    /// A secret by which it says so: without it, whoever guesses the id or the address of a backend sees in the
    /// cookie that it is the one. The same on every node; with another one clients choose anew.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<Secret>,
    /// A file that holds the key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_file: Option<PathBuf>,
}

/// How many requests an upstream is given at once: between two bounds, as its latency shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Concurrency {
    /// The least.
    pub min: u32,
    /// The most.
    pub max: u32,
    /// The latency at which the limit shrinks, in percent of that without a queue.
    pub tolerance: u32,
}

/// When a backend that fails is given a rest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Breaker {
    /// So many failures in a row open it.
    pub failures: u32,
    /// So many percent of failures open it, or `off`.
    pub rate: OrOff<u32>,
    /// How many requests there have to be within `window` before the rate counts.
    pub min_requests: u32,
    /// The time over which the rate is taken.
    pub window: Period,
    /// How long the backend gets no requests.
    pub open_for: Period,
    /// How many requests then try it, at once and in all, before it is closed again.
    pub probes: u32,
    /// What is a failure, beside statuses. Default: all of them; while no other backend is meant to get
    /// requests `connect` and `timeout`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub counts: Option<Vec<Fault>>,
    /// The statuses that are failures. Default: 502, 503 and 504; while no other backend is meant to get
    /// requests none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub statuses: Option<Vec<u16>>,
}

/// In which way a backend failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Fault {
    /// No connection: its name, its address, its TLS handshake.
    Connect,
    /// It did not answer in time.
    Timeout,
    /// It closed or reset the connection before it had answered.
    Closed,
    /// What it answered is not HTTP.
    Malformed,
}

/// When a failed attempt is followed by another, at another backend where there is one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Retry {
    /// The most attempts, the first one included.
    pub attempts: u32,
    /// The longest wait before the second one, a random part of which is waited; it doubles.
    pub backoff: Period,
    /// What it does not exceed.
    pub max_backoff: Period,
    /// How long one attempt may take to the header of its answer, or `off`.
    pub per_try: OrOff<Period>,
    /// Answers with these statuses are failures too.
    pub statuses: Vec<u16>,
    /// Also requests that may change something when they are said twice.
    pub non_idempotent: bool,
    /// How many there may be for all requests.
    pub budget: RetryBudget,
}

/// How many connections a backend is given, and how they are kept. How long they may be idle is
/// `timeouts.idle`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Pool {
    /// The most connections at once to one backend; over HTTP/2 each carries 100 requests.
    pub max_connections: u32,
    /// How many of them uploads may hold that are still coming in, past what is spooled. Default: half
    /// of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_uploads: Option<u32>,
    /// How many requests may wait for one; more are answered 503.
    pub queue: u32,
    /// How long they wait.
    pub queue_timeout: Period,
    /// How old a connection may become, or `off`.
    pub max_age: OrOff<Period>,
    /// How many requests one connection may carry, or `off`.
    pub max_requests: OrOff<u32>,
    /// How many connections are kept ready although nobody asked for them.
    pub warm: u32,
}

/// How many further attempts there may be for all requests of an upstream together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RetryBudget {
    /// In percent of the requests of the last ten seconds.
    pub percent: u32,
    /// So many a second in any case.
    pub min_per_second: u32,
}

/// The HTTP version spoken to an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2: by ALPN over TLS, by prior knowledge over plain text.
    Http2,
}

/// TLS towards an upstream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct OriginTls {
    /// The name that it is told, and that its certificate must have where `names` names no others. Default:
    /// the host of the address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
    /// A PEM file with the authorities to trust instead of the system's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// Whether its certificate is checked. Leave it on.
    pub verify: bool,
    /// Pinned names: hosts, addresses or URIs of which its certificate must have one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
    /// The certificate that it is shown when it asks for one: a PEM file, with those that lead to an authority
    /// behind it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<PathBuf>,
    /// The key of that certificate, a PEM file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
}

/// Every deadline towards an upstream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Timeouts {
    /// To establish a connection, TLS included.
    pub connect: Period,
    /// Between two reads of a response; the first one is the time to its first byte. Without it 30 seconds, or `total`
    /// where that is shorter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read: Option<Period>,
    /// For one write of a request; without it as `read`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub write: Option<Period>,
    /// How long an unused connection is kept.
    pub idle: Period,
    /// From when a request is whole to the header of its answer, all attempts together.
    pub total: Period,
}

impl Default for Upstream {
    fn default() -> Self {
        Self {
            active: true,
            addresses: Vec::new(),
            balance: Balance::RoundRobin,
            hash_by: "uri".to_owned(),
            hash_bound: OrOff::Off,
            sticky: Switch::Off,
            concurrency: Switch::Off,
            panic_threshold: 0,
            slow_start: OrOff::Off,
            breaker: Switch::On(Breaker::default()),
            retry: Switch::On(Retry::default()),
            health: Switch::On(Health::default()),
            ejection: Switch::Off,
            pool: Pool::default(),
            tls: Switch::Off,
            protocol: Protocol::Http1,
            proxy_protocol: ProxyProtocol::Off,
            host: "pass".to_owned(),
            timeouts: Timeouts::default(),
            resolvers: Vec::new(),
            resolve_every: Period(Duration::from_secs(30)),
        }
    }
}

impl Default for OriginTls {
    fn default() -> Self {
        Self {
            server_name: None,
            ca: None,
            verify: true,
            names: Vec::new(),
            certificate: None,
            key: None,
        }
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Period(Duration::from_secs(10)),
            read: None,
            write: None,
            idle: Period(Duration::from_secs(90)),
            total: Period(Duration::from_secs(30)),
        }
    }
}

impl Default for Sticky {
    fn default() -> Self {
        let cookie = "edgeproxy".to_owned();
        Self { cookie, max_age: OrOff::Off, key: None, key_file: None }
    }
}

impl Default for Concurrency {
    fn default() -> Self {
        Self { min: 4, max: 1000, tolerance: 150 }
    }
}

impl Default for Breaker {
    fn default() -> Self {
        Self {
            failures: 5,
            rate: OrOff::Off,
            min_requests: 20,
            window: Period(Duration::from_secs(10)),
            open_for: Period(Duration::from_secs(30)),
            probes: 1,
            counts: None,
            statuses: None,
        }
    }
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            attempts: 3,
            backoff: Period(Duration::from_millis(100)),
            max_backoff: Period(Duration::from_secs(2)),
            per_try: OrOff::Off,
            statuses: Vec::new(),
            non_idempotent: false,
            budget: RetryBudget::default(),
        }
    }
}

impl Default for Pool {
    fn default() -> Self {
        Self {
            max_connections: 100,
            max_uploads: None,
            queue: 1000,
            queue_timeout: Period(Duration::from_secs(5)),
            max_age: OrOff::Off,
            max_requests: OrOff::Off,
            warm: 0,
        }
    }
}

impl Default for RetryBudget {
    fn default() -> Self {
        Self { percent: 20, min_per_second: 10 }
    }
}

impl Address {
    /// An address with nothing else said.
    #[must_use]
    pub fn new(address: impl Into<String>) -> Self {
        Self {
            id: None,
            address: address.into(),
            weight: 1,
            active: true,
            backup: false,
            tls: None,
        }
    }
}

/// The long form of an address.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Long {
    /// What it is called in logs, metrics and on the admin listener. Default: as its address.
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    /// `host:port`, `http://host`, `https://host`, `srv:NAME`, `unix:/path/to.sock` or `demo`.
    address: String,
    /// Its share of requests relative to its siblings, 1 to 1000.
    weight: u32,
    /// `false` gives it no requests.
    active: bool,
    /// It gets requests only while none of the others can be used.
    backup: bool,
    /// TLS towards it. Default: as the upstream says.
    #[serde(skip_serializing_if = "Option::is_none")]
    tls: Option<Switch<OriginTls>>,
}

impl Default for Long {
    fn default() -> Self {
        let Address { id, address, weight, active, backup, tls } = Address::new("");
        Self { id, address, weight, active, backup, tls }
    }
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if *self == Self::new(self.address.as_str()) {
            return serializer.serialize_str(&self.address);
        }
        let Self { id, address, weight, active, backup, tls } = self.clone();
        Long { id, address, weight, active, backup, tls }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reads;

        impl<'de> Visitor<'de> for Reads {
            type Value = Address;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an address, or a section with an address")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Address, E> {
                Ok(Address::new(text))
            }

            // An element that was reported as wrong before is empty when it is read again.
            fn visit_unit<E: Error>(self) -> Result<Address, E> {
                Ok(Address::new(""))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Address, A::Error> {
                let Long { id, address, weight, active, backup, tls } =
                    Long::deserialize(MapAccessDeserializer::new(map))?;
                Ok(Address { id, address, weight, active, backup, tls })
            }
        }

        deserializer.deserialize_any(Reads)
    }
}

impl JsonSchema for Address {
    fn schema_name() -> Cow<'static, str> {
        "Address".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let long = generator.subschema_for::<Long>();
        json_schema!({
            "description":
                "`host:port`, `http://host`, `https://host`, `srv:NAME`, `unix:/path/to.sock` or \
                 `demo`; or the same with settings of its own.",
            "anyOf": [{"type": "string"}, long]
        })
    }
}
