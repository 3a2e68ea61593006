//! The configuration as written: the keys of the YAML file, with their defaults.
//!
//! The comments on keys are for operators: editors show them, by the JSON Schema. Where a key offers
//! a choice, exactly one of several keys is written (`upstream`, `redirect` or `respond`) rather than
//! a `type:` beside them, so that every mistake has a place.

pub mod acme;
pub mod asking;
pub mod cache;
pub mod health;
pub mod listen;
pub mod observe;
pub mod process;
pub mod route;
pub mod secret;
pub mod upstream;
pub mod value;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::Serialize;

use crate::config::schema::acme::Acme;
use crate::config::schema::cache::Store;
use crate::config::schema::listen::Limits;
use crate::config::schema::listen::Listener;
use crate::config::schema::listen::Paths;
use crate::config::schema::observe::AccessLog;
use crate::config::schema::observe::Admin;
use crate::config::schema::observe::Log;
use crate::config::schema::process::Process;
use crate::config::schema::route::Defaults;
use crate::config::schema::route::Route;
use crate::config::schema::upstream::Upstream;
use crate::config::schema::value::Switch;

/// The configuration of edgeproxy.
///
/// Relative paths are relative to the folder of this file. In values, `${VAR}` and
/// `${VAR:-default}` are replaced from the environment; `$${` is a literal `${`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The process: threads, files, user.
    pub process: Process,
    /// Where clients connect. At least one.
    pub listeners: Vec<Listener>,
    /// From whom listeners with `tls: auto` have their certificates.
    pub acme: Acme,
    /// What guards every client connection.
    pub limits: Limits,
    /// Networks and addresses of the proxies in front of this one, whose X-Forwarded-For and
    /// Forwarded are believed: `10.0.0.0/8`, `192.0.2.7`.
    pub trusted_proxies: Vec<String>,
    /// The normal form of paths.
    pub paths: Paths,
    /// Named groups of origin addresses.
    pub upstreams: BTreeMap<String, Upstream>,
    /// What routes have that do not say otherwise.
    pub defaults: Defaults,
    /// Which request goes where. The most specific host and path win; among equals the first one.
    pub routes: Vec<Route>,
    /// Where stored responses are kept.
    pub cache: Store,
    /// The admin listener with health, readiness and metrics: `off`, `on` (127.0.0.1:9180), or where.
    pub admin: Switch<Admin>,
    /// One line a request: `off`, or where and how.
    #[serde(deserialize_with = "observe::off_or_on")]
    #[schemars(with = "Switch<AccessLog>")]
    pub access_log: AccessLog,
    /// Diagnostics of the process itself.
    pub log: Log,
}
