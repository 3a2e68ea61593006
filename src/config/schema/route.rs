//! The `routes` and `defaults` sections, as written.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

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

use crate::config::schema::asking::Hedge;
use crate::config::schema::asking::Mirror;
use crate::config::schema::asking::RouteRetry;
use crate::config::schema::cache::Cache;
use crate::config::schema::secret::FieldText;
use crate::config::schema::secret::Secret;
use crate::config::schema::value::OrOff;
use crate::config::schema::value::Switch;
use crate::units::ByteSize;
use crate::units::Period;

/// What routes have that do not say otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Defaults {
    /// The longest time from a request's arrival to the end of its response, further attempts and
    /// upgraded connections included. `off` leaves it to the upstream's `read` timeout and to
    /// `limits.min_send_rate`.
    pub timeout: OrOff<Period>,
    /// The largest request body; `off` is no limit.
    pub max_body: OrOff<ByteSize>,
    /// The largest request header, counted as `limits.header_bytes` counts; `off` leaves it to that.
    pub max_header: OrOff<ByteSize>,
    /// How much of a request body is read before a connection to the origin is taken; 48KiB at most.
    pub spool: ByteSize,
    /// What may be stored and served again: `off`, `on`, or the settings.
    pub cache: Switch<Cache>,
    /// Who may purge with the method PURGE; `off` is nobody.
    pub purge: Switch<Purge>,
}

/// Which requests, and what is done with them: exactly one of `upstream`, `split`, `redirect`, `respond`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Route {
    /// The name in logs and metrics. Default: `route-1` for the first one, and so on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Which requests; without it, all.
    #[serde(rename = "match")]
    pub matches: Match,
    /// Pass them to this upstream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream: Option<String>,
    /// Pass them to several upstreams, each its share, in place of `upstream`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub split: Vec<Share>,
    /// Who answers when the upstream cannot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fallback: Option<Fallback>,
    /// What differs from the upstream's `retry`; `off` is one attempt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry: Option<Switch<RouteRetry>>,
    /// When a second backend is asked beside one that takes long: `off`, `on`, or the settings.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hedge: Option<Switch<Hedge>>,
    /// Who is sent a copy of what goes to the upstream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mirror: Option<Mirror>,
    /// Send the client elsewhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redirect: Option<Redirect>,
    /// Answer here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub respond: Option<Respond>,
    /// How path and host are changed on the way to the upstream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rewrite: Option<Rewrite>,
    /// Header changes in both directions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub headers: Option<Headers>,
    /// The longest time from a request's arrival to the end of its response, or `off`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<OrOff<Period>>,
    /// The largest request body, or `off`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_body: Option<OrOff<ByteSize>>,
    /// The largest request header, or `off`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_header: Option<OrOff<ByteSize>>,
    /// How much of a request body is read before a connection to the origin is taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spool: Option<ByteSize>,
    /// What may be stored and served again: `off`, `on`, or what differs from `defaults.cache`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache: Option<Switch<Cache>>,
    /// Who may purge with the method PURGE what this route stored, in place of `defaults.purge`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub purge: Option<Switch<Purge>>,
}

/// An upstream's share of a route's requests.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Share {
    /// The upstream.
    pub upstream: String,
    /// Its share relative to the others, 0 to 1000; 0 gets nothing.
    pub weight: u32,
}

/// Who answers when the upstream cannot: first the other upstream, then what is stored and stale, as far
/// as the cache rules allow it, then the fixed answer.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Fallback {
    /// Another upstream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream: Option<String>,
    /// A fixed answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub respond: Option<Respond>,
}

/// Who may purge with the method PURGE: at least one of the two, and where both are there, both hold.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Purge {
    /// Clients of these networks or addresses; without it, of all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<Vec<String>>,
    /// What has to be presented (`Authorization: Bearer …`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<Secret>,
    /// A file that holds the token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_file: Option<PathBuf>,
}

/// Which requests: every condition that is written must hold. At most one of the four `path` keys.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Match {
    /// Only requests over plain text (`http`) or over TLS (`https`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheme: Option<Scheme>,
    /// One of these hosts: names or `*.example.org`. Empty is every host.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
    /// Exactly this path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// This path and everything below it: `/api` takes `/api` and `/api/x`, not `/apis`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path_prefix: Option<String>,
    /// Segments with captures: `/users/{id}/files/{*rest}`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path_pattern: Option<String>,
    /// A regular expression over the whole path; named groups are captures.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path_regex: Option<String>,
    /// One of these methods; GET includes HEAD. Empty is every method.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<String>,
    /// Conditions on request headers.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, Condition>,
    /// Conditions on query parameters.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub query: BTreeMap<String, Condition>,
    /// Conditions on cookies.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub cookies: BTreeMap<String, Condition>,
    /// Conditions on the certificate that the client showed (`client_auth` of listeners).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_cert: Option<ClientMatch>,
}

/// Which clients, by the certificate that they showed: every condition that is written must hold.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ClientMatch {
    /// Whether there is one. What is shown is verified, or there is no request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verified: Option<bool>,
    /// A condition on whose it is, as RFC 4514 writes it: `CN=alice,O=Example`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<Condition>,
    /// A condition on its alternative names: `DNS:a.example`, `IP:192.0.2.1`, `email:a@example.org`, `URI:…`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub san: Option<Condition>,
    /// It is one of these: SHA-256 of the certificate, in hexadecimal, with or without colons.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fingerprints: Vec<String>,
}

/// How a request came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Scheme {
    /// Over plain text.
    Http,
    /// Over TLS.
    Https,
}

/// A condition on a value: `present`, `absent`, the exact value, `{exact: …}`, `{prefix: …}` or
/// `{regex: …}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// There is one.
    Present,
    /// There is none.
    Absent,
    /// One is exactly this.
    Exact(String),
    /// One starts with this.
    Prefix(String),
    /// One matches this as a whole.
    Regex(String),
}

/// Sends the client elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Redirect {
    /// The new location; `{scheme}`, `{host}`, `{path}`, `{query}` and captures of the path are
    /// filled in. Required.
    pub to: String,
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
}

/// Answers here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Respond {
    /// The status, 200 to 599.
    pub status: u16,
    /// The body.
    pub body: String,
    /// The body's Content-Type. Default: `text/plain; charset=utf-8`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// Further headers.
    pub headers: BTreeMap<String, String>,
}

/// Changes to path and host on the way to an upstream, applied in this order.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Rewrite {
    /// Removed from the path's front: `/api` makes `/x` of `/api/x`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strip_prefix: Option<String>,
    /// Replaced in the path by a regular expression.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub regex: Option<Replace>,
    /// Put before the path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub add_prefix: Option<String>,
    /// The Host that the origin sees; may hold `{host}` and captures of the path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
}

/// A regular expression and what takes the place of what it matches.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Replace {
    /// The expression. Required.
    pub pattern: String,
    /// The replacement; `$1` and `$name` are groups of the expression or captures of the path.
    /// (`${name}` is an environment variable here; `$${name}` is the group.)
    pub replacement: String,
}

/// Header changes in both directions.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Headers {
    /// To the request that the origin sees.
    pub request: HeaderChanges,
    /// To the response that the client sees.
    pub response: HeaderChanges,
    /// What becomes of a request's fields with an underscore in their names.
    pub underscores: Underscores,
    /// What the origin is told of the certificate that the client showed, in fields that begin with
    /// `Client-Cert`. Copies of them that clients send never pass. Nothing that is answered then is stored.
    pub client_cert: Introduction,
}

/// What an origin is told of a client's certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Introduction {
    /// Nothing.
    #[default]
    Off,
    /// Whether there is one, its fingerprint, its subject and its alternative names.
    Identity,
    /// The same, and the certificate and its chain (RFC 9440).
    Whole,
}

/// What becomes of a request's fields with an underscore in their names. Origins that hand fields on as
/// variables, as CGI, WSGI and PHP do, cannot tell them from those with a hyphen, which may have been
/// checked, changed or made part of a cache key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Underscores {
    /// The origin does not see them.
    #[default]
    Drop,
    /// It sees those that stand in for none that edgeproxy writes or checks by itself.
    Pass,
}

/// Header changes, applied in the order remove, set, add.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HeaderChanges {
    /// Replaced by one value: the text, or `{value_file: /run/secrets/token}`, a file that holds it.
    pub set: BTreeMap<String, FieldText>,
    /// Given one more value, written as in `set`.
    pub add: BTreeMap<String, FieldText>,
    /// Removed with all values.
    pub remove: Vec<String>,
}

impl Default for Defaults {
    fn default() -> Self {
        Self {
            timeout: OrOff::Off,
            max_body: OrOff::Is(ByteSize(64 << 20)),
            max_header: OrOff::Off,
            spool: ByteSize(48 << 10),
            cache: Switch::On(Cache::built_in()),
            purge: Switch::Off,
        }
    }
}

impl Default for Redirect {
    fn default() -> Self {
        Self { to: String::new(), status: 308 }
    }
}

impl Default for Respond {
    fn default() -> Self {
        Self { status: 200, body: String::new(), content_type: None, headers: BTreeMap::new() }
    }
}

impl Serialize for Condition {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let long = match self {
            Self::Present => return serializer.serialize_str("present"),
            Self::Absent => return serializer.serialize_str("absent"),
            Self::Exact(text) if text != "present" && text != "absent" => {
                return serializer.serialize_str(text);
            }
            Self::Exact(text) => BTreeMap::from([("exact", text)]),
            Self::Prefix(text) => BTreeMap::from([("prefix", text)]),
            Self::Regex(text) => BTreeMap::from([("regex", text)]),
        };
        long.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Condition {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reads;

        impl<'de> Visitor<'de> for Reads {
            type Value = Condition;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("present, absent, a value, or one of the keys exact, prefix, regex")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Condition, E> {
                Ok(match text {
                    "present" => Condition::Present,
                    "absent" => Condition::Absent,
                    text => Condition::Exact(text.to_owned()),
                })
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Condition, A::Error> {
                let Some(key) = map.next_key::<Kind>()? else {
                    return Err(A::Error::custom(
                        "no key says how the value is compared; write one of exact, prefix, regex",
                    ));
                };
                let text: String = map.next_value()?;
                if map.next_key::<Kind>()?.is_some() {
                    return Err(A::Error::custom(
                        "a value is compared in one way; keep one of exact, prefix, regex",
                    ));
                }
                Ok(match key {
                    Kind::Exact => Condition::Exact(text),
                    Kind::Prefix => Condition::Prefix(text),
                    Kind::Regex => Condition::Regex(text),
                })
            }
        }

        /// The keys of the long form.
        #[derive(Deserialize)]
        #[serde(field_identifier, rename_all = "lowercase")]
        enum Kind {
            Exact,
            Prefix,
            Regex,
        }

        deserializer.deserialize_any(Reads)
    }
}

impl JsonSchema for Condition {
    fn schema_name() -> Cow<'static, str> {
        "Condition".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "`present`, `absent`, the exact value, or one of the keys.",
            "anyOf": [
                {"type": "string"},
                {
                    "type": "object",
                    "properties": {
                        "exact": {"type": "string", "description": "One is exactly this."},
                        "prefix": {"type": "string", "description": "One starts with this."},
                        "regex": {"type": "string", "description": "One matches as a whole."}
                    },
                    "additionalProperties": false,
                    "minProperties": 1,
                    "maxProperties": 1
                }
            ]
        })
    }
}
