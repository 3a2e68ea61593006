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

use crate::config::schema::value::Switch;
use crate::units::Period;

/// A named group of origin addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Upstream {
    /// `false` switches it off: its routes answer 503.
    pub active: bool,
    /// Where it is: `host:port`, `unix:/path/to.sock`, or `demo`, the origin built in for trying
    /// things out. At least one; requests are spread by weight.
    pub addresses: Vec<Address>,
    /// TLS towards it: `off`, `on`, or its settings.
    pub tls: Switch<OriginTls>,
    /// The HTTP version spoken to it.
    pub protocol: Protocol,
    /// The Host that it sees: `pass` hands the client's on, everything else is sent as it stands.
    pub host: String,
    /// Every deadline.
    pub timeouts: Timeouts,
    /// How often its names are resolved again.
    pub resolve_every: Period,
}

/// One address of an upstream: `"10.0.0.1:8080"`, or with a weight
/// `{address: "10.0.0.1:8080", weight: 2}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// Where.
    pub address: String,
    /// Its share of requests relative to its siblings.
    pub weight: u32,
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
    /// The name that its certificate must have. Default: the host of the address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
    /// A PEM file with the authorities to trust instead of the system's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// Whether its certificate is checked. Leave it on.
    pub verify: bool,
}

/// Every deadline towards an upstream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Timeouts {
    /// To establish a connection, TLS included.
    pub connect: Period,
    /// Between two reads of a response; the first one is the time to its first byte.
    pub read: Period,
    /// For one write of a request.
    pub write: Period,
    /// How long an unused connection is kept.
    pub idle: Period,
}

impl Default for Upstream {
    fn default() -> Self {
        Self {
            active: true,
            addresses: Vec::new(),
            tls: Switch::Off,
            protocol: Protocol::Http1,
            host: "pass".to_owned(),
            timeouts: Timeouts::default(),
            resolve_every: Period(Duration::from_secs(30)),
        }
    }
}

impl Default for OriginTls {
    fn default() -> Self {
        Self { server_name: None, ca: None, verify: true }
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Period(Duration::from_secs(10)),
            read: Period(Duration::from_secs(30)),
            write: Period(Duration::from_secs(30)),
            idle: Period(Duration::from_secs(90)),
        }
    }
}

impl Address {
    /// An address of weight 1.
    #[must_use]
    pub fn new(address: impl Into<String>) -> Self {
        Self { address: address.into(), weight: 1 }
    }
}

/// The long form of an address.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Weighted {
    /// `host:port`, `unix:/path/to.sock` or `demo`.
    address: String,
    /// Its share of requests relative to its siblings, 1 to 1000.
    weight: u32,
}

impl Default for Weighted {
    fn default() -> Self {
        Self { address: String::new(), weight: 1 }
    }
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.weight == 1 {
            return serializer.serialize_str(&self.address);
        }
        Weighted { address: self.address.clone(), weight: self.weight }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reads;

        impl<'de> Visitor<'de> for Reads {
            type Value = Address;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an address, or a section with address and weight")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Address, E> {
                Ok(Address::new(text))
            }

            // An element that was reported as wrong before is empty when it is read again.
            fn visit_unit<E: Error>(self) -> Result<Address, E> {
                Ok(Address::new(""))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Address, A::Error> {
                let Weighted { address, weight } =
                    Weighted::deserialize(MapAccessDeserializer::new(map))?;
                Ok(Address { address, weight })
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
        let weighted = generator.subschema_for::<Weighted>();
        json_schema!({
            "description": "`host:port`, `unix:/path/to.sock` or `demo`; or the same with a weight.",
            "anyOf": [{"type": "string"}, weighted]
        })
    }
}
