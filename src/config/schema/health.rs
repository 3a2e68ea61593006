//! What keeps requests away from backends that are not well, as written: health checks, ejection.

use std::collections::BTreeMap;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::Serialize;

use crate::config::schema::cache::Statuses;
use crate::config::schema::secret::FieldText;
use crate::config::schema::value::OrOff;
use crate::units::Period;

/// How backends are checked. Without any key: whether each can be connected to, every ten seconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Health {
    /// What is asked. Default: `http` where there is a `path`, else `tcp`.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<HealthType>,
    /// The path, and query, of HTTP checks. Default: `/health`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The method of HTTP checks: GET, HEAD or OPTIONS.
    pub method: String,
    /// The Host of HTTP and gRPC checks. Default: the `host` of the upstream; where that is `pass`, the
    /// backend's address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Further header fields of HTTP checks, or metadata of gRPC checks.
    pub headers: BTreeMap<String, FieldText>,
    /// The statuses of a backend that is well (`200`, `2xx`).
    pub statuses: Vec<Statuses>,
    /// What the first 64 KiB of the answer to an HTTP check must contain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// The service that gRPC checks ask for. Default: the server as a whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// The time from the end of one check of a backend to its next.
    pub interval: Period,
    /// By how many percent that is longer or shorter, by chance, so that many do not check in step.
    pub jitter: u32,
    /// How long a check may take, connecting included. Default: 2s, or `interval` if that is shorter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Period>,
    /// How many passed checks in a row make an unhealthy backend healthy.
    pub rise: u32,
    /// How many failed checks in a row make a healthy backend unhealthy.
    pub fall: u32,
    /// What a backend is taken for before its first check.
    pub initial: Initial,
}

/// What backends are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum HealthType {
    /// Whether a connection can be made, TLS included.
    Tcp,
    /// Whether a request is answered as it should.
    Http,
    /// What `grpc.health.v1.Health` says.
    Grpc,
}

/// What a backend is taken for before its first check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Initial {
    /// It gets requests; the first check comes after one interval.
    Healthy,
    /// It gets no requests until it has passed its first check, which comes at once.
    Unknown,
}

/// When a backend that fails where others do not gets no requests for a while.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Ejection {
    /// So many errors in a row eject a backend at once, or `off`.
    pub consecutive: OrOff<u32>,
    /// A rate of success so far below the mean of all ejects a backend, in hundredths of the standard
    /// deviation, or `off`.
    pub deviations: OrOff<u32>,
    /// How many requests a backend needs within `interval` before its rate counts.
    pub min_requests: u32,
    /// How many backends with so many requests there have to be for a comparison.
    pub min_backends: u32,
    /// How often the rates are compared.
    pub interval: Period,
    /// For how long a backend is out the first time; the second time for twice as long, and so on.
    pub out_for: Period,
    /// What that does not exceed.
    pub max_out_for: Period,
    /// The most backends that are out at once, in percent; one always may be, the last one never.
    pub max_percent: u32,
    /// The statuses that are errors. No answer, or none that is one, always is.
    pub statuses: Vec<u16>,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            kind: None,
            path: None,
            method: "GET".to_owned(),
            host: None,
            headers: BTreeMap::new(),
            statuses: vec![Statuses("2xx".to_owned()), Statuses("3xx".to_owned())],
            body: None,
            service: None,
            interval: Period(Duration::from_secs(10)),
            jitter: 10,
            timeout: None,
            rise: 2,
            fall: 3,
            initial: Initial::Healthy,
        }
    }
}

impl Default for Ejection {
    fn default() -> Self {
        Self {
            consecutive: OrOff::Is(5),
            deviations: OrOff::Is(190),
            min_requests: 100,
            min_backends: 5,
            interval: Period(Duration::from_secs(10)),
            out_for: Period(Duration::from_secs(30)),
            max_out_for: Period(Duration::from_secs(300)),
            max_percent: 33,
            statuses: vec![502, 503, 504],
        }
    }
}
