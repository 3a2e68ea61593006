//! Backends at run time: what is known of them, and what operators change.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use log::info;
use serde::Serialize;
use tokio::runtime::Handle;

use crate::balance::Algorithm;
use crate::config;
use crate::config::schema::upstream::Address;
use crate::config::suggest;
use crate::resilience::breaker::State;
use crate::runtime::Runtime;
use crate::runtime::patch::Patch;
use crate::runtime::purge::Asker;
use crate::runtime::state;
use crate::runtime::upstreams::is_barred;
use crate::upstream::Protocol;
use crate::upstream::WEIGHTS;
use crate::upstream::change::Refused;
use crate::upstream::change::Standing;
use crate::upstream::drift::Drift;
use crate::upstream::health::Checked;
use crate::upstream::health::Health;
use crate::upstream::health::NotChecked;
use crate::upstream::peer::Upstream;
use crate::upstream::pool;
use crate::upstream::report::Report;
use crate::upstream::resolve;

/// What is to be done with the backends of an upstream.
#[derive(Debug, Clone, PartialEq)]
pub enum Deed {
    /// Add this one.
    Add(Box<Address>),
    /// Change the one of this id.
    Change(String, Patch),
    /// Give it no more requests.
    Drain(String),
    /// Give it requests again.
    Undrain(String),
    /// Remove it.
    Remove(String),
    /// Close its breakers.
    ResetBreaker(String),
}

/// Why something is not done, or not whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// It makes no sense.
    Unclear(String),
    /// There is no such upstream or backend.
    Unknown(String),
    /// Not as things stand.
    Conflict(String),
    /// It is done, and could not be kept for the next start.
    Unkept {
        /// The id of the backend.
        id: String,
        /// Why not.
        why: String,
    },
}

/// All upstreams.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Listing {
    /// In the order of their names.
    pub upstreams: Vec<UpstreamView>,
}

/// An upstream at one moment.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct UpstreamView {
    /// Its name.
    pub name: String,
    /// Whether it is switched on.
    pub active: bool,
    /// How a backend is chosen.
    pub balance: &'static str,
    /// The HTTP version spoken to it.
    pub protocol: &'static str,
    /// Requests at once that it is given, found out from its latency, and those that it has; `None` has no such limit.
    pub concurrency: Option<ConcurrencyView>,
    /// What differs from the configuration; `None`: nothing.
    pub drift: Option<DriftView>,
    /// Its backends.
    pub backends: Vec<BackendView>,
    /// Those that were removed, or were elsewhere, and have something to finish.
    pub leaving: Vec<LeavingView>,
}

/// A limit that finds itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ConcurrencyView {
    /// How many requests it lets in at once.
    pub limit: u32,
    /// How many there are.
    pub in_flight: u32,
}

/// The ids of the backends that differ from the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DriftView {
    /// It does not have these, or has them elsewhere.
    pub added: Vec<String>,
    /// It has these otherwise.
    pub changed: Vec<String>,
    /// It has these, and they are not in use.
    pub removed: Vec<String>,
}

/// A backend at one moment.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BackendView {
    /// Its id.
    pub id: String,
    /// Where it is, as it was said.
    pub address: String,
    /// Whether TLS is spoken.
    pub tls: bool,
    /// Its share relative to its siblings.
    pub weight: u32,
    /// Whether it gets requests.
    pub active: bool,
    /// Whether it serves only while the others cannot.
    pub backup: bool,
    /// Whether it finishes what it has and gets nothing new.
    pub draining: bool,
    /// What it stands for: one address, or those of its name.
    pub addresses: Vec<AddressView>,
}

/// One address of a backend at one moment.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AddressView {
    /// As logs and metrics call it.
    pub label: String,
    /// The address.
    pub address: String,
    /// Its share relative to its siblings: what its SRV record says, or the configuration.
    pub weight: u32,
    /// It serves only while others cannot: a backup, or behind others by its SRV record.
    pub backup: bool,
    /// `up`; the first reason why it gets no requests; `probing`, while its breaker waits for probes, or for what
    /// becomes of them; or `resting`, while it gets those only that no other one can have.
    pub state: &'static str,
    /// Every such reason.
    pub out: Vec<&'static str>,
    /// Its circuit breaker; `None` has none.
    pub breaker: Option<BreakerView>,
    /// Its health checks; `None` has none.
    pub health: Option<HealthView>,
    /// What went wrong with a request there last; `None`: nothing yet.
    pub last_error: Option<ErrorView>,
    /// For how long it is ejected yet, in milliseconds; `None`: it is not.
    pub ejected_for_ms: Option<u64>,
    /// How often it was ejected.
    pub ejected: u64,
    /// For how long it gets only those requests yet that no other one can have, in milliseconds: it could not be connected to,
    /// or asked for it (`Retry-After`). `None`: it is not so.
    pub rests_for_ms: Option<u64>,
    /// Requests that it has now.
    pub in_flight: u32,
    /// Attempts sent to it.
    pub requests: u64,
    /// Those that failed.
    pub failures: u64,
    /// Those that it answered.
    pub answers: u64,
    /// The part of what ended that did not fail; `None`: nothing ended yet.
    pub success_rate: Option<f64>,
    /// The mean time to a header, in milliseconds.
    pub mean_response_ms: Option<f64>,
    /// The same of late, peaks counting at once.
    pub latency_ms: f64,
    /// Its connections.
    pub pool: PoolView,
}

/// What went wrong with a request at one backend.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ErrorView {
    /// The word for it, as in the access log; `status`, or `unresolved`.
    pub label: &'static str,
    /// More of it.
    pub reason: String,
    /// How long ago that was, in milliseconds.
    pub ms_ago: u64,
}

/// A circuit breaker at one moment.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BreakerView {
    /// `closed`, `open` or `half_open`: what the last change that was counted has made of it.
    pub state: &'static str,
    /// How long it lets nothing through, in milliseconds; 0: the next request is the first probe.
    pub open_for_ms: Option<u64>,
    /// How often it has opened.
    pub opened: u64,
    /// How often it has let probes through after that.
    pub half_opened: u64,
    /// How often it has closed: by these, by a reset, or since it was switched off.
    pub closed: u64,
}

/// What health checks say at one moment.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct HealthView {
    /// `healthy`, `unhealthy` or `unknown`.
    pub state: &'static str,
    /// How many have failed since one passed.
    pub failed_in_a_row: u32,
    /// How many have passed.
    pub passed: u64,
    /// How many have failed.
    pub failed: u64,
    /// Why the last one failed that did.
    pub last_error: Option<String>,
    /// How long the last one took, in milliseconds.
    pub response_ms: Option<f64>,
    /// How long ago that was, in milliseconds.
    pub checked_ms_ago: Option<u64>,
}

/// What checks came to that were asked for.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Checks {
    /// Each of them.
    pub checked: Vec<CheckView>,
}

/// What one check came to.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CheckView {
    /// Of this address, as logs and metrics call it.
    pub backend: String,
    /// Why it failed; `None`: it passed.
    pub error: Option<String>,
    /// How long it took, in milliseconds.
    pub response_ms: f64,
    /// What the checks say of the backend now.
    pub state: &'static str,
}

/// The connections to one address at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PoolView {
    /// Those that exist.
    pub open: u32,
    /// Those that wait for a request.
    pub idle: u32,
    /// Requests that have one.
    pub in_use: u32,
    /// Requests that wait for one.
    pub queued: u32,
    /// How often one was used again.
    pub reused: u64,
    /// How many were made.
    pub created: u64,
    /// How many could not be made.
    pub failed: u64,
}

/// A backend that was removed, or an address that one had before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LeavingView {
    /// As logs and metrics called it.
    pub label: String,
    /// The address.
    pub address: String,
    /// Requests that it has yet.
    pub in_flight: u32,
}

impl Deed {
    /// As the audit log says it.
    fn label(&self) -> &'static str {
        match self {
            Self::Add(_) => "backend added",
            Self::Change(..) => "backend changed",
            Self::Drain(_) => "backend draining",
            Self::Undrain(_) => "backend no longer draining",
            Self::Remove(_) => "backend removed",
            Self::ResetBreaker(_) => "circuit breaker reset",
        }
    }

    /// Whether the next start is to know of it.
    fn is_lasting(&self) -> bool {
        match self {
            Self::Add(_)
            | Self::Change(..)
            | Self::Drain(_)
            | Self::Undrain(_)
            | Self::Remove(_) => true,
            Self::ResetBreaker(_) => false,
        }
    }
}

/// What was done.
#[derive(Debug, Clone, PartialEq)]
pub struct Done {
    /// The id of the backend to which.
    pub id: String,
    /// The backend as it was left; `None`: it was removed.
    pub backend: Option<BackendView>,
}

/// Does it, and keeps it where that is wished. Blocks: files are read and written, and a name is looked up that a
/// backend goes over to. Answers the id of the backend.
///
/// # Panics
/// Outside of a thread of the runtime for what blocks.
///
/// # Errors
/// It was not done, or was done and not kept.
pub fn carry_out(
    current: &ArcSwap<Runtime>,
    upstream: &str,
    deed: &Deed,
    by: &Asker,
) -> Result<Done, Problem> {
    let keeper = Arc::clone(&current.load().keeper);
    // One after the other, so that what is kept last is what was done last. A reload takes its turn, too:
    // what was changed before it is known to the generation that follows.
    let turn = keeper.turn();
    if deed.is_lasting() && keeper.is_handed_on(&turn) {
        let why =
            "another process is taking over, and would not know of it: ask again when it serves";
        return Err(Problem::Conflict(why.to_owned()));
    }
    let runtime = current.load();
    let upstream = find(&runtime, upstream)?;
    let id = apply(&runtime, upstream, deed)?;
    tell(upstream, &id, deed, by);
    if deed.is_lasting()
        && let Err(why) = keeper.keep(&turn, &runtime.upstreams)
    {
        let why = format!("it is done, but the next start will not know of it: {why}");
        log::error!(target: "edgeproxy::state", "{why}");
        return Err(Problem::Unkept { id, why });
    }
    // Whoever comes next may remove it again.
    let backend = one_of(upstream, &id);
    drop(turn);
    Ok(Done { id, backend })
}

fn apply(runtime: &Runtime, upstream: &Arc<Upstream>, deed: &Deed) -> Result<String, Problem> {
    let settings = upstream.settings();
    let (id, done) = match deed {
        Deed::Add(written) => {
            if written.address.is_empty() {
                let what = "write where it is, such as {\"address\": \"10.0.0.3:8080\"}";
                return Err(Problem::Unclear(what.to_owned()));
            }
            let backend = config::backend(written, settings.tls.as_ref());
            let backend = backend.and_then(state::usable).map_err(Problem::Unclear)?;
            (backend.id.to_string(), upstream.add(backend, &runtime.dials))
        }
        Deed::Change(id, patch) => {
            if patch.is_empty() {
                let what = "nothing is to change: write \"address\", \"tls\", \"weight\", \"active\" or \"backup\"";
                return Err(Problem::Unclear(what.to_owned()));
            }
            if let Some(weight) = patch.weight.filter(|weight| !WEIGHTS.contains(weight)) {
                let (least, most) = (WEIGHTS.start(), WEIGHTS.end());
                return Err(Problem::Unclear(format!(
                    "weight: {weight} is out of range; from {least} to {most}"
                )));
            }
            (id.clone(), change(runtime, upstream, id, patch)?)
        }
        Deed::Drain(id) => (id.clone(), upstream.drain(id, true)),
        Deed::Undrain(id) => (id.clone(), upstream.drain(id, false)),
        Deed::Remove(id) => (id.clone(), upstream.remove(id)),
        Deed::ResetBreaker(id) => (id.clone(), upstream.reset_breaker(id)),
    };
    match done {
        Ok(()) => Ok(id),
        Err(Refused::Unknown) => Err(unknown(upstream, &id)),
        Err(refused @ (Refused::Unusable(_) | Refused::Unresolved(..))) => {
            Err(Problem::Unclear(refused.to_string()))
        }
        Err(refused) => Err(Problem::Conflict(refused.to_string())),
    }
}

/// Changes the backend of this id. What makes no sense is a problem; what does not go as things stand is refused.
fn change(
    runtime: &Runtime,
    upstream: &Arc<Upstream>,
    id: &str,
    patch: &Patch,
) -> Result<Result<(), Refused>, Problem> {
    if !patch.relocates() {
        return Ok(upstream.adjust(id, patch.adjustment()));
    }
    let standings = upstream.standings();
    let Some(standing) = standings.iter().find(|standing| *standing.meant.backend.id == *id) else {
        return Ok(Err(Refused::Unknown));
    };
    let meant = patch.over(&standing.meant.backend, upstream.settings());
    let meant = meant.and_then(state::usable).map_err(Problem::Unclear)?;
    Ok(Handle::current().block_on(upstream.relocate(meant, &runtime.dials)))
}

/// Looks the name of a backend up that was added or changed, if it is one, and waits a moment for the first answer.
pub async fn follow(runtime: &Runtime, upstream: &str, id: &str) {
    if let Ok(upstream) = find(runtime, upstream) {
        resolve::begin(upstream, id).await;
    }
}

/// Checks the backends of an upstream now, or the one of this id.
///
/// # Errors
/// There is no such upstream or backend, or there are no checks.
pub async fn check(
    runtime: &Runtime,
    upstream: &str,
    id: Option<&str>,
    by: &Asker,
) -> Result<Checks, Problem> {
    let upstream = find(runtime, upstream)?;
    let is_known = |id: &str| upstream.standings().iter().any(|one| *one.meant.backend.id == *id);
    if let Some(id) = id.filter(|id| !is_known(id)) {
        return Err(unknown(upstream, id));
    }
    let checked = upstream.check_now(id).await.map_err(|refused| {
        Problem::Conflict(match refused {
            NotChecked::Off => "this upstream has no health checks: `health` is off".to_owned(),
            NotChecked::NoBackend => "its name has no address yet: nothing to check".to_owned(),
        })
    })?;
    let (name, id) = (&*upstream.settings().name, id.unwrap_or("all"));
    let (way, from) = (by.way.label(), by.from.as_str());
    info!(target: "edgeproxy::audit", way, from, upstream = name, backend = id;
        "health checked by hand");
    let view = |checked: Checked| CheckView {
        backend: checked.backend.to_string(),
        error: checked.error.map(|error| error.to_string()),
        response_ms: milliseconds(checked.took),
        state: checked.state.label(),
    };
    Ok(Checks { checked: checked.into_iter().map(view).collect() })
}

/// All upstreams.
#[must_use]
pub fn list(runtime: &Runtime) -> Listing {
    Listing { upstreams: runtime.upstreams.iter().map(|one| view(one)).collect() }
}

/// One upstream.
///
/// # Errors
/// There is none of this name.
pub fn one(runtime: &Runtime, name: &str) -> Result<UpstreamView, Problem> {
    find(runtime, name).map(|upstream| view(upstream))
}

/// One backend.
///
/// # Errors
/// There is no such upstream, or it has no backend of this id.
pub fn backend(runtime: &Runtime, upstream: &str, id: &str) -> Result<BackendView, Problem> {
    let upstream = find(runtime, upstream)?;
    one_of(upstream, id).ok_or_else(|| unknown(upstream, id))
}

fn one_of(upstream: &Upstream, id: &str) -> Option<BackendView> {
    let standings = upstream.standings();
    let found = standings.into_iter().find(|standing| &*standing.meant.backend.id == id)?;
    Some(of_backend(found, upstream.now()))
}

fn find<'a>(runtime: &'a Runtime, name: &str) -> Result<&'a Arc<Upstream>, Problem> {
    let upstreams = &runtime.upstreams;
    upstreams.iter().find(|upstream| &*upstream.settings().name == name).ok_or_else(|| {
        let known: Vec<&str> =
            upstreams.iter().map(|upstream| &*upstream.settings().name).collect();
        let help = suggest::help(name, &known, "there are these upstreams");
        Problem::Unknown(format!("there is no upstream \"{name}\"; {help}"))
    })
}

fn unknown(upstream: &Upstream, id: &str) -> Problem {
    let standings = upstream.standings();
    let known: Vec<&str> = standings.iter().map(|one| &*one.meant.backend.id).collect();
    let help = suggest::help(id, &known, "there are these backends");
    Problem::Unknown(format!(
        "the upstream \"{}\" has no backend \"{id}\"; {help}",
        upstream.settings().name
    ))
}

/// Tells the operator who did what.
fn tell(upstream: &Upstream, id: &str, deed: &Deed, by: &Asker) {
    let (name, what) = (&*upstream.settings().name, deed.label());
    let (way, from) = (by.way.label(), by.from.as_str());
    match deed {
        Deed::Add(written) => {
            let Address { address, weight, active, backup, .. } = &**written;
            let address = address.as_str();
            info!(target: "edgeproxy::audit", way, from, upstream = name, backend = id, address,
                weight, active, backup; "{what}");
        }
        Deed::Change(_, patch) => {
            let set = patch.told();
            let set = set.as_str();
            info!(target: "edgeproxy::audit", way, from, upstream = name, backend = id, set;
                "{what}");
        }
        Deed::Drain(_) | Deed::Undrain(_) | Deed::Remove(_) | Deed::ResetBreaker(_) => {
            info!(target: "edgeproxy::audit", way, from, upstream = name, backend = id; "{what}");
        }
    }
}

fn view(upstream: &Upstream) -> UpstreamView {
    let settings = upstream.settings();
    let now = upstream.now();
    let drift = upstream.drift();
    let leaving = |report: Report| LeavingView {
        label: report.label.to_string(),
        address: report.address,
        in_flight: report.in_flight,
    };
    UpstreamView {
        name: settings.name.to_string(),
        active: settings.active,
        balance: match settings.balance.algorithm {
            Algorithm::RoundRobin => "round_robin",
            Algorithm::Random => "random",
            Algorithm::LeastConnections => "least_connections",
            Algorithm::PeakEwma => "peak_ewma",
            Algorithm::ConsistentHash { .. } => "hash",
        },
        protocol: match settings.protocol {
            Protocol::Http1 => "http1",
            Protocol::Http2 => "http2",
        },
        concurrency: upstream
            .concurrency()
            .map(|(limit, in_flight)| ConcurrencyView { limit, in_flight }),
        drift: (!drift.is_empty()).then(|| of_drift(&drift)),
        backends: upstream.standings().into_iter().map(|one| of_backend(one, now)).collect(),
        leaving: upstream.leaving().into_iter().map(leaving).collect(),
    }
}

fn of_drift(drift: &Drift) -> DriftView {
    DriftView {
        added: drift.added.iter().map(|meant| meant.backend.id.to_string()).collect(),
        changed: drift.changed.iter().map(|changed| changed.id.to_string()).collect(),
        removed: drift.removed.iter().map(ToString::to_string).collect(),
    }
}

fn of_backend(standing: Standing, now: Duration) -> BackendView {
    let meant = standing.meant;
    BackendView {
        id: meant.backend.id.to_string(),
        address: meant.backend.at.to_string(),
        tls: meant.backend.tls.is_some(),
        weight: meant.backend.weight,
        active: meant.backend.active,
        backup: meant.backend.backup,
        draining: meant.draining,
        addresses: standing.reports.into_iter().map(|report| of_address(report, now)).collect(),
    }
}

fn of_address(report: Report, now: Duration) -> AddressView {
    let mut out = report.out;
    if is_barred(report.breaker, now) {
        out.push("breaker_open");
    }
    let otherwise = match report.breaker {
        None | Some(State::Closed) if report.rests_for.is_some() => "resting",
        None | Some(State::Closed) => "up",
        Some(State::Open { .. } | State::HalfOpen) => "probing",
    };
    let breaker = report.breaker.map(|state| BreakerView {
        state: state.label(),
        open_for_ms: match state {
            State::Open { until } => Some(whole_milliseconds(until.saturating_sub(now))),
            State::Closed | State::HalfOpen => None,
        },
        opened: report.opened,
        half_opened: report.half_opened,
        closed: report.closed,
    });
    let pool::Stats { open, idle, in_use, queued, reused, created, failed } = report.pool;
    let ended = report.requests.saturating_sub(u64::from(report.in_flight));
    AddressView {
        label: report.label.to_string(),
        address: report.address,
        weight: report.weight,
        backup: report.backup,
        state: out.first().copied().unwrap_or(otherwise),
        out,
        breaker,
        in_flight: report.in_flight,
        requests: report.requests,
        failures: report.failures,
        answers: report.answers,
        success_rate: part(ended.saturating_sub(report.failures) as f64, ended),
        mean_response_ms: part(report.answering.as_secs_f64() * 1000.0, report.answers),
        latency_ms: milliseconds(report.latency),
        health: report.health.map(of_health),
        last_error: report.last_error.map(|(ago, last)| ErrorView {
            label: last.label,
            reason: last.reason.to_string(),
            ms_ago: whole_milliseconds(ago),
        }),
        ejected_for_ms: report.ejected_for.map(whole_milliseconds),
        rests_for_ms: report.rests_for.map(whole_milliseconds),
        ejected: report.ejected,
        pool: PoolView { open, idle, in_use, queued, reused, created, failed },
    }
}

fn of_health(health: Health) -> HealthView {
    HealthView {
        state: health.state.label(),
        failed_in_a_row: health.failed_in_a_row,
        passed: health.passed,
        failed: health.failed,
        last_error: health.last_error.map(|error| error.to_string()),
        response_ms: health.took.map(milliseconds),
        checked_ms_ago: health.ago.map(whole_milliseconds),
    }
}

fn whole_milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// In milliseconds, with what of their parts anybody reads.
fn milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 10_000_000.0).round() / 10_000.0
}

/// One of `count` parts, rounded to what anybody reads.
fn part(whole: f64, count: u64) -> Option<f64> {
    (count > 0).then(|| (whole / count as f64 * 10_000.0).round() / 10_000.0)
}
