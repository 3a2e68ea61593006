//! The `listeners`, `limits` and `paths` sections, as written.

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
use serde::de::Error;
use serde::de::MapAccess;
use serde::de::Unexpected;
use serde::de::Visitor;
use serde::de::value::MapAccessDeserializer;

use crate::config::schema::value::Switch;
use crate::units::ByteSize;
use crate::units::Period;

/// Where clients connect.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Listener {
    /// The name in logs and metrics. Default: the address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Address and port: `0.0.0.0:8080`, `[::]:8080`, `127.0.0.1:8080`. Required.
    pub address: String,
    /// Whether HTTP/2 by prior knowledge is spoken here (plain text only).
    pub h2c: bool,
    /// Whether proxies in front of this listener say by the PROXY protocol who a connection is from.
    pub proxy_protocol: Switch<ProxyProtocol>,
    /// TLS: `off`, `auto` (a certificate by ACME for every host that routes name), or its settings.
    #[serde(deserialize_with = "tls_or_auto")]
    #[schemars(schema_with = "tls_or_auto_schema")]
    pub tls: Switch<ListenerTls>,
    /// Whether requests by plain text are answered with a redirect to `https`: `off`, `on`, or to which port.
    pub to_https: Switch<ToHttps>,
    /// Whether browsers are told to come over TLS alone (Strict-Transport-Security): `off`, `on`, or for how
    /// long. TLS only.
    pub hsts: Switch<Hsts>,
}

/// Where requests by plain text are sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ToHttps {
    /// The port at which clients find TLS.
    pub port: u16,
}

/// What browsers are told (RFC 6797).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Hsts {
    /// For how long they come over TLS alone, from the last answer on; `0s` makes them forget it.
    pub max_age: Period,
    /// Whether it counts for all hosts below this one.
    pub subdomains: bool,
    /// Whether the makers of browsers may build it in. They hardly ever take it out again.
    pub preload: bool,
}

/// The PROXY protocol, versions 1 and 2, towards clients.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ProxyProtocol {
    /// The networks and addresses of the proxies: each connection from one of them must begin with a header.
    /// Required.
    pub from: Vec<String>,
    /// What becomes of connections from elsewhere: they are closed, or served as their own.
    pub others: ProxyProtocolOthers,
}

/// What becomes of connections that come from no proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ProxyProtocolOthers {
    /// They are closed.
    #[default]
    Refuse,
    /// They are served; a header is not expected.
    Serve,
}

/// TLS towards clients.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ListenerTls {
    /// The oldest TLS version accepted.
    pub min_version: TlsVersion,
    /// Whether HTTP/2 is offered.
    pub http2: bool,
    /// Whether every host that routes name, and no certificate below, gets one by ACME. Addresses and
    /// `localhost` get theirs from the internal CA.
    pub auto: bool,
    /// The certificates. The first one that names the host wins, exact names before wildcards.
    pub certificates: Vec<Certificate>,
    /// What a client is shown that names no host, or an unknown one: the first certificate, or none.
    pub default: DefaultCertificate,
    /// Whether clients are asked for a certificate: `off`, or the settings.
    pub client_auth: Switch<ClientAuth>,
    /// Whether sessions go on without a full handshake: `off`, `on`, or with whose keys.
    pub tickets: Switch<Tickets>,
}

/// With whose keys sessions go on.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Tickets {
    /// A file with keys that several nodes have, 64 hexadecimal digits a line; the first one seals, all of them
    /// open. Without it, the listener makes its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
}

/// Whose certificates clients show.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ClientAuth {
    /// Whether a client without a certificate is served: `optional`, or not: `required`. One that is not good
    /// ends the handshake either way.
    pub mode: ClientCertificate,
    /// A PEM file with the authorities of clients, and with nobody else's. Required.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// Files with the certificates that they revoked (CRL), PEM or DER: one list for each authority of a chain.
    pub crl: Vec<PathBuf>,
}

/// Whether a client must show a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ClientCertificate {
    /// It must.
    Required,
    /// It may.
    Optional,
}

/// A TLS version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TlsVersion {
    /// TLS 1.2.
    #[serde(rename = "1.2")]
    Tls12,
    /// TLS 1.3.
    #[serde(rename = "1.3")]
    Tls13,
}

/// What a client is shown that names no known host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DefaultCertificate {
    /// The first certificate.
    First,
    /// None: the handshake is refused.
    Refuse,
}

/// One certificate: `acme: true`, `internal: true`, or `certificate` and `key`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Certificate {
    /// The hosts it is for: names, `*.example.org`, addresses. Required.
    pub hosts: Vec<String>,
    /// Issued and renewed by the ACME server of `acme`; until it is, by the internal CA.
    pub acme: bool,
    /// Issued and renewed by the internal CA, whose root is kept in the state folder.
    pub internal: bool,
    /// A PEM file with the chain, the host's own certificate first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<PathBuf>,
    /// A PEM file with the private key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
    /// The oldest TLS version accepted for these hosts. Default: that of the listener.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_version: Option<TlsVersion>,
    /// Whether HTTP/2 is offered for these hosts. Default: as the listener says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http2: Option<bool>,
    /// Whether clients of these hosts are asked for a certificate. Default: as the listener says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_auth: Option<Switch<ClientAuth>>,
}

/// What guards every client connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Connections in all.
    pub connections: u64,
    /// Connections from one client address.
    pub connections_per_client: u64,
    /// For a whole request header, from the first byte to the last.
    pub header_timeout: Period,
    /// For the TLS handshake, and for the header of the PROXY protocol.
    pub handshake_timeout: Period,
    /// TLS handshakes under way at once, from the client's first message on; more of them wait.
    pub handshakes: u64,
    /// Between two requests of a connection.
    pub idle_timeout: Period,
    /// Bytes per second below which a client that sends a body is cut off; 0 never does.
    pub min_body_rate: ByteSize,
    /// Bytes per second below which a client that reads a response is cut off; 0 never does.
    pub min_send_rate: ByteSize,
    /// The time over which these rates are measured.
    pub rate_window: Period,
    /// Requests on one connection; then it is closed.
    pub requests_per_connection: u32,
    /// The largest request header.
    pub header_bytes: ByteSize,
    /// The most header fields of a request.
    pub header_fields: u32,
    /// The longest request target.
    pub target_bytes: ByteSize,
    /// Streams at a time on one HTTP/2 connection.
    pub h2_streams: u32,
    /// HTTP/2 requests under way in all, beside those that are answered at once; more of them are refused.
    pub h2_streams_in_all: u64,
    /// HTTP/2 requests under way from one client address, beside those that are answered at once; more of them are
    /// refused.
    pub h2_streams_per_client: u64,
}

/// The normal form of paths, which routes, the cache and origins see.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Paths {
    /// Whether `//` becomes `/`; at the front of a path it always does.
    pub merge_slashes: bool,
    /// What is done with `%2F` and `%5C`: they stay encoded, or the request is refused.
    pub encoded_slash: EncodedSlash,
}

/// What is done with an encoded slash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum EncodedSlash {
    /// It stays encoded.
    Keep,
    /// The request is refused.
    Refuse,
}

/// A switch that can also be set to `auto`.
fn tls_or_auto<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Switch<ListenerTls>, D::Error> {
    struct Reads;

    impl<'de> Visitor<'de> for Reads {
        type Value = Switch<ListenerTls>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("auto, off or a section of keys and values")
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
            match text {
                "auto" => Ok(Switch::On(ListenerTls { auto: true, ..ListenerTls::default() })),
                "on" => Ok(Switch::On(ListenerTls::default())),
                "off" => Ok(Switch::Off),
                other => Err(E::invalid_value(Unexpected::Str(other), &self)),
            }
        }

        // Nothing at all could mean either; the reader must not have to guess.
        fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
            Err(E::invalid_type(Unexpected::Unit, &self))
        }

        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
            ListenerTls::deserialize(MapAccessDeserializer::new(map)).map(Switch::On)
        }
    }

    deserializer.deserialize_any(Reads)
}

fn tls_or_auto_schema(generator: &mut SchemaGenerator) -> Schema {
    let section = generator.subschema_for::<ListenerTls>();
    json_schema!({"anyOf": [{"type": "string", "enum": ["auto", "on", "off"]}, section]})
}

impl Default for ToHttps {
    fn default() -> Self {
        Self { port: 443 }
    }
}

impl Default for Hsts {
    fn default() -> Self {
        let year = Period(Duration::from_secs(365 * 86_400));
        Self { max_age: year, subdomains: false, preload: false }
    }
}

impl Default for ListenerTls {
    fn default() -> Self {
        Self {
            min_version: TlsVersion::Tls12,
            http2: true,
            auto: false,
            certificates: Vec::new(),
            default: DefaultCertificate::First,
            client_auth: Switch::Off,
            tickets: Switch::On(Tickets::default()),
        }
    }
}

impl Default for ClientAuth {
    fn default() -> Self {
        Self { mode: ClientCertificate::Required, ca: None, crl: Vec::new() }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 32_768,
            connections_per_client: 1024,
            header_timeout: Period(Duration::from_secs(10)),
            handshake_timeout: Period(Duration::from_secs(10)),
            handshakes: 2048,
            idle_timeout: Period(Duration::from_secs(60)),
            min_body_rate: ByteSize(1 << 10),
            min_send_rate: ByteSize(1 << 10),
            rate_window: Period(Duration::from_secs(10)),
            requests_per_connection: 1000,
            header_bytes: ByteSize(32 << 10),
            header_fields: 100,
            target_bytes: ByteSize(8 << 10),
            h2_streams: 100,
            h2_streams_in_all: 65_536,
            h2_streams_per_client: 4096,
        }
    }
}

impl Default for Paths {
    fn default() -> Self {
        Self { merge_slashes: true, encoded_slash: EncodedSlash::Keep }
    }
}
