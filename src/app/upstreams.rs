//! `upstreams`: the backends of the running process.

use std::time::Duration;

use serde::Deserialize;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use crate::app::Failure;
use crate::app::ask::Form;
use crate::app::ask::Unheard;
use crate::app::cli::Cli;
use crate::app::cli::TlsFlag;
use crate::app::cli::TlsFlags;
use crate::app::cli::UpstreamsVerb;
use crate::app::cli::Which;
use crate::app::cli::Whom;
use crate::app::purge::refused;
use crate::app::purge::running;
use crate::message::segment::encode;
use crate::runtime::patch::Patch;
use crate::units::Period;

/// An error that is older says nothing of a backend that is up.
const OF_LATE: Duration = Duration::from_secs(10 * 60);

/// As much of an answer as is told again.
#[derive(Deserialize)]
struct Listing {
    upstreams: Vec<Upstream>,
}

#[derive(Deserialize)]
struct Upstream {
    name: String,
    drift: Option<Drift>,
    backends: Vec<Backend>,
    leaving: Vec<Leaving>,
}

#[derive(Deserialize)]
struct Drift {
    added: Vec<String>,
    changed: Vec<String>,
    removed: Vec<String>,
}

#[derive(Deserialize)]
struct Backend {
    id: String,
    address: String,
    weight: u32,
    backup: bool,
    draining: bool,
    active: bool,
    addresses: Vec<Address>,
}

#[derive(Deserialize)]
struct Address {
    label: String,
    address: String,
    weight: u32,
    backup: bool,
    state: String,
    in_flight: u32,
    requests: u64,
    failures: u64,
    mean_response_ms: Option<f64>,
    /// One that is older than this program says none.
    last_error: Option<LastError>,
    health: Option<Health>,
}

#[derive(Deserialize)]
struct LastError {
    label: String,
    reason: String,
    ms_ago: u64,
}

#[derive(Deserialize)]
struct Health {
    state: String,
    last_error: Option<String>,
}

#[derive(Deserialize)]
struct Leaving {
    label: String,
    address: String,
    in_flight: u32,
}

#[derive(Deserialize)]
struct Removed {
    in_flight: u32,
}

#[derive(Deserialize)]
struct Checks {
    checked: Vec<Check>,
}

#[derive(Deserialize)]
struct Check {
    backend: String,
    error: Option<String>,
    response_ms: f64,
    state: String,
}

/// Asks the running process, or changes it; returns what to say about it.
pub(crate) fn upstreams(cli: &Cli, what: &UpstreamsVerb) -> Result<String, Failure> {
    match what {
        UpstreamsVerb::List { upstream, json, whom } => list(cli, upstream.as_deref(), *json, whom),
        UpstreamsVerb::Add { upstream, address, id, weight, backup, inactive, tls, whom } => {
            let mut body = json!({"address": address, "backup": backup, "active": !inactive});
            if let Some(id) = id {
                body["id"] = json!(id);
            }
            if let Some(weight) = weight {
                body["weight"] = json!(weight);
            }
            if let Some(tls) = said_of(tls)?.filter(|tls| !tls.is_null()) {
                body["tls"] = tls;
            }
            let path = format!("/v1/upstreams/{}/backends", encode(upstream));
            let answer = say(cli, whom, "POST", &path, &body.to_string())?;
            let added: Backend = read(&answer)?;
            Ok(format!("added: {upstream} {}: {}\n", added.id, standing(&added)))
        }
        UpstreamsVerb::Set { which, address, tls, weight, active, backup } => {
            let (address, tls) = (address.clone(), said_of(tls)?);
            let patch = Patch { address, tls, weight: *weight, active: *active, backup: *backup };
            let body = serde_json::to_string(&patch).map_err(Failure::other)?;
            let answer = say(cli, &which.whom, "PATCH", &path(which, ""), &body)?;
            told("changed", which, &answer)
        }
        UpstreamsVerb::Drain(which) => {
            let answer = say(cli, &which.whom, "POST", &path(which, "/drain"), "")?;
            told("draining", which, &answer)
        }
        UpstreamsVerb::Undrain(which) => {
            let answer = say(cli, &which.whom, "POST", &path(which, "/undrain"), "")?;
            told("no longer draining", which, &answer)
        }
        UpstreamsVerb::Reset(which) => {
            let answer = say(cli, &which.whom, "POST", &path(which, "/breaker/reset"), "")?;
            told("circuit breaker reset", which, &answer)
        }
        UpstreamsVerb::Check { upstream, id, whom } => {
            let backend = id.as_ref().map(|id| format!("/backends/{}", encode(id)));
            let backend = backend.unwrap_or_default();
            let path = format!("/v1/upstreams/{}{backend}/check", encode(upstream));
            let answer = say(cli, whom, "POST", &path, "")?;
            let Checks { checked } = read(&answer)?;
            let line = |Check { backend, error, response_ms, state }: &Check| match error {
                None => format!("{upstream} {backend}: passed in {response_ms:.1} ms: {state}\n"),
                Some(error) => format!("{upstream} {backend}: failed: {error}: {state}\n"),
            };
            Ok(checked.iter().map(line).collect())
        }
        UpstreamsVerb::Remove(which) => {
            let answer = say(cli, &which.whom, "DELETE", &path(which, ""), "")?;
            let Removed { in_flight } = read(&answer)?;
            let rest = match in_flight {
                0 => String::new(),
                1 => ": it finishes 1 request".to_owned(),
                many => format!(": it finishes {many} requests"),
            };
            Ok(format!("removed: {} {}{rest}\n", which.upstream, which.id))
        }
    }
}

/// What is said of TLS, as the running process is told it; `null` is what the upstream has.
fn said_of(TlsFlags { tls, server_name, ca }: &TlsFlags) -> Result<Option<Value>, Failure> {
    let mut keys = Map::new();
    if let Some(name) = server_name {
        keys.insert("server_name".to_owned(), json!(name));
    }
    if let Some(file) = ca {
        // The running process has another folder.
        let file = std::path::absolute(file).map_err(Failure::other)?;
        keys.insert("ca".to_owned(), json!(file));
    }
    Ok(match tls {
        Some(TlsFlag::On) => Some(json!("on")),
        Some(TlsFlag::Off) => Some(json!("off")),
        Some(TlsFlag::Upstream) => Some(Value::Null),
        None => (!keys.is_empty()).then_some(Value::Object(keys)),
    })
}

fn list(cli: &Cli, name: Option<&str>, json: bool, whom: &Whom) -> Result<String, Failure> {
    let path = match name {
        Some(name) => format!("/v1/upstreams/{}", encode(name)),
        None => "/v1/upstreams".to_owned(),
    };
    let answer = say(cli, whom, "GET", &path, "")?;
    if json {
        return Ok(answer);
    }
    let upstreams = match name {
        Some(_) => vec![read(&answer)?],
        None => read::<Listing>(&answer)?.upstreams,
    };
    Ok(table(&upstreams))
}

/// One line for each address, and one for each upstream that differs from its configuration.
fn table(upstreams: &[Upstream]) -> String {
    let head =
        ["UPSTREAM", "BACKEND", "ADDRESS", "STATE", "WEIGHT", "NOW", "REQUESTS", "FAILED", "MEAN"];
    let mut rows = vec![head.map(str::to_owned)];
    for upstream in upstreams {
        for backend in &upstream.backends {
            let share = |weight: u32, backup| match backup {
                true => format!("{weight} backup"),
                false => weight.to_string(),
            };
            for one in &backend.addresses {
                rows.push([
                    upstream.name.clone(),
                    one.label.clone(),
                    one.address.clone(),
                    one.state.clone(),
                    share(one.weight, one.backup),
                    one.in_flight.to_string(),
                    one.requests.to_string(),
                    one.failures.to_string(),
                    one.mean_response_ms.map_or_else(|| "-".to_owned(), |ms| format!("{ms:.1} ms")),
                ]);
            }
            if backend.addresses.is_empty() {
                let dash = || "-".to_owned();
                rows.push([
                    upstream.name.clone(),
                    backend.id.clone(),
                    backend.address.clone(),
                    standing(backend).to_owned(),
                    share(backend.weight, backend.backup),
                    dash(),
                    dash(),
                    dash(),
                    dash(),
                ]);
            }
        }
        for one in &upstream.leaving {
            let mut row = [const { String::new() }; 9].map(|_| "-".to_owned());
            row[0].clone_from(&upstream.name);
            row[1].clone_from(&one.label);
            row[2].clone_from(&one.address);
            "leaving".clone_into(&mut row[3]);
            row[5] = one.in_flight.to_string();
            rows.push(row);
        }
    }
    let widths: Vec<usize> = (0..head.len())
        .map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0))
        .collect();
    let mut text = String::new();
    for row in &rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        let line = cells.collect::<Vec<_>>().join("  ");
        text.push_str(line.trim_end());
        text.push('\n');
    }
    for upstream in upstreams {
        for one in upstream.backends.iter().flat_map(|backend| &backend.addresses) {
            text.push_str(&troubles(&upstream.name, one));
        }
    }
    for upstream in upstreams {
        if let Some(Drift { added, changed, removed }) = &upstream.drift {
            let parts = [("added", added), ("changed", changed), ("removed", removed)];
            let parts: Vec<String> = parts
                .iter()
                .filter(|(_, ids)| !ids.is_empty())
                .map(|(what, ids)| format!("{what} {}", ids.join(", ")))
                .collect();
            let parts = parts.join("; ");
            text.push_str(&format!("{} differs from the configuration: {parts}\n", upstream.name));
        }
    }
    text
}

/// Why a backend is not well, or was not of late: a line for what requests met, and one for its checks.
fn troubles(upstream: &str, one: &Address) -> String {
    let mut text = String::new();
    let Address { label, state, .. } = one;
    if let Some(LastError { label: word, reason, ms_ago }) = &one.last_error {
        let ago = Duration::from_secs(ms_ago / 1000);
        if state != "up" || ago < OF_LATE {
            let ago = Period(ago);
            text.push_str(&format!(
                "{upstream} {label}: last failed {ago} ago: {word}: {reason}\n"
            ));
        }
    }
    if let Some(Health { state, last_error: Some(error) }) = &one.health
        && state != "healthy"
    {
        text.push_str(&format!("{upstream} {label}: {state} by its checks: {error}\n"));
    }
    text
}

/// How a backend stands, in a word.
fn standing(backend: &Backend) -> &str {
    match backend.addresses.first() {
        Some(address) => &address.state,
        None if backend.draining => "draining",
        None if !backend.active => "inactive",
        None => "unresolved",
    }
}

fn told(what: &str, which: &Which, answer: &str) -> Result<String, Failure> {
    let backend: Backend = read(answer)?;
    let in_flight: u32 = backend.addresses.iter().map(|one| one.in_flight).sum();
    let Which { upstream, id, .. } = which;
    let (state, weight) = (standing(&backend), backend.weight);
    Ok(format!("{what}: {upstream} {id}: {state}, weight {weight}, {in_flight} in flight\n"))
}

fn path(Which { upstream, id, .. }: &Which, rest: &str) -> String {
    format!("/v1/upstreams/{}/backends/{}{rest}", encode(upstream), encode(id))
}

fn read<'a, T: Deserialize<'a>>(answer: &'a str) -> Result<T, Failure> {
    serde_json::from_str(answer)
        .map_err(|e| Failure::other(format!("the running process answers strangely: {e}")))
}

fn say(cli: &Cli, whom: &Whom, method: &str, path: &str, body: &str) -> Result<String, Failure> {
    let port = whom.port.or(cli.quick.port);
    let running = running(cli, port, "edgeproxy upstreams list")?;
    match running.ask(method, path, body, Form::Json) {
        Ok(answer) if matches!(answer.status, 200 | 201) => Ok(answer.body),
        Ok(answer) => Err(refused(&answer)),
        Err(Unheard::Nobody) => {
            Err(Failure::other("no running process answers: there is nothing to see or to change"))
        }
        Err(Unheard::Failed(failure)) => Err(failure),
    }
}
