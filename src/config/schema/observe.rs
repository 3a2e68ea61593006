//! The `admin`, `access_log` and `log` sections, as written.

use std::path::PathBuf;

use schemars::JsonSchema;
use schemars::Schema;
use schemars::SchemaGenerator;
use schemars::json_schema;
use serde::Deserialize;
use serde::Deserializer;
use serde::Serialize;

use crate::config::schema::secret::Secret;
use crate::config::schema::value::OrOff;
use crate::config::schema::value::Switch;
use crate::observe::access_log::Field;

/// Where the admin listener is, a loopback address or a Unix socket, and what it asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Admin {
    /// An address and port; a loopback one where there is no token. Default without `socket`:
    /// 127.0.0.1:9180.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// A Unix socket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub socket: Option<PathBuf>,
    /// What has to be presented (`Authorization: Bearer …`) for everything but /healthz and /readyz.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<Secret>,
    /// A file that holds the token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_file: Option<PathBuf>,
    /// A file in which changes of backends at run time are kept, and from which they are laid over this
    /// configuration at the next start; or `off`: then they end with the process.
    pub state_file: OrOff<PathBuf>,
}

impl Default for Admin {
    fn default() -> Self {
        Self { address: None, socket: None, token: None, token_file: None, state_file: OrOff::Off }
    }
}

/// One line a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AccessLog {
    /// `stdout`, `off`, or a file, which is opened again on SIGUSR1.
    pub to: String,
    /// How a line looks.
    pub format: Format,
    /// What a line has, in this order.
    #[schemars(schema_with = "field_names")]
    pub fields: Vec<String>,
    /// How many lines may wait to be written; more are dropped and counted.
    pub queue: u32,
}

/// `off`, or the section.
pub(super) fn off_or_on<'de, D: Deserializer<'de>>(from: D) -> Result<AccessLog, D::Error> {
    Ok(match Switch::deserialize(from)? {
        Switch::Off => AccessLog { to: "off".to_owned(), ..AccessLog::default() },
        Switch::On(section) => section,
    })
}

/// How an access log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// One JSON object a line.
    Json,
    /// `key=value` pairs.
    Text,
}

/// Diagnostics of the process itself, on standard error or in `process.log_file`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// The least important level that is written. The variable RUST_LOG goes before it.
    pub level: Level,
}

/// A level of diagnostics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Nothing.
    Off,
    /// What must be acted upon.
    Error,
    /// And what may be acted upon.
    Warn,
    /// And what happens at large.
    Info,
    /// And why.
    Debug,
    /// And every step.
    Trace,
}

impl Default for AccessLog {
    fn default() -> Self {
        Self {
            to: "stdout".to_owned(),
            format: Format::Json,
            fields: Field::DEFAULT.iter().map(|field| field.name().to_owned()).collect(),
            queue: 8192,
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { level: Level::Info }
    }
}

fn field_names(_: &mut SchemaGenerator) -> Schema {
    let names: Vec<&str> = Field::names().collect();
    json_schema!({"type": "array", "items": {"type": "string", "enum": names}})
}
