//! Every metric, in one place: name, help, labels.
//!
//! Handles are resolved when a configuration is loaded ([`Metrics::routes`], [`Metrics::listener`],
//! [`Metrics::upstream`]); what a request does with them is a few atomic additions. The registry is a
//! value, so tests and several generations do not share one by accident.

mod backends;
mod ends;
pub mod labels;
mod lanes;
mod orders;
pub mod process;
mod reasons;
pub mod requests;
mod sampled;
mod times;
mod upstream;

pub use upstream::UpstreamMetrics;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use prometheus::IntCounter;
use prometheus::IntCounterVec;
use prometheus::IntGauge;
use prometheus::IntGaugeVec;
use prometheus::Opts;
use prometheus::Registry;
use prometheus::TextEncoder;
use prometheus::core::Collector;
use prometheus::core::Desc;
use prometheus::proto;
use prometheus::proto::MetricFamily;
use prometheus::proto::MetricType;

use crate::cache::purge::Manner;
use crate::refusal::Refusal;
pub use backends::BackendSample;
use backends::Backends;
use backends::BackendsCollector;
pub use backends::HealthSample;
pub use backends::PoolSample;
pub use backends::UpstreamSample;
pub use ends::EndSample;
use ends::Ends;
use ends::EndsCollector;
use labels::ClientCertificate;
use labels::ConnectionRefusal;
use labels::FilesRead;
use labels::Handshake;
use labels::Label;
use labels::Reloaded;
use labels::TlsVersion;
pub use orders::OrderSample;
use orders::Orders;
use orders::OrdersCollector;
use reasons::Reasons;
use requests::Requests;
use requests::RequestsCollector;
use requests::RouteMetrics;
use requests::RouteTable;
use sampled::Sampled;
use sampled::SampledCollector;
use times::TimesVec;
use upstream::Upstreams;

/// The kind of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It only grows, until the process ends.
    Counter,
    /// It goes up and down.
    Gauge,
    /// Times in buckets.
    Histogram,
}

/// What there is to know about a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Definition {
    /// Its name: base unit and, for counters, `_total` at the end.
    pub name: &'static str,
    /// Its kind.
    pub kind: Kind,
    /// What it says, in one sentence.
    pub help: &'static str,
    /// The names of its labels, in the order of the values.
    pub labels: &'static [&'static str],
}

macro_rules! definitions {
    ($($constant:ident: $kind:ident $name:literal [$($label:literal),*] $help:literal;)+) => {
        $(
            const $constant: Definition = Definition {
                name: $name,
                kind: Kind::$kind,
                help: $help,
                labels: &[$($label),*],
            };
        )+

        /// Every metric that there is.
        pub const DEFINITIONS: &[Definition] = &[$($constant,)+];
    };
}

definitions! {
    REQUESTS: Counter "edgeproxy_requests_total" ["listener", "route", "method", "status", "cache"]
        "Requests answered, by listener, route (empty: none matched), method, status and cache result.";
    DURATION: Histogram "edgeproxy_request_duration_seconds" ["route", "cache"]
        "Time from the arrival of a request to the end of its response.";
    FIRST_BYTE: Histogram "edgeproxy_time_to_first_byte_seconds" ["route", "cache"]
        "Time from the arrival of a request to the first byte of its response.";
    RECEIVED: Counter "edgeproxy_bytes_received_total" ["listener"]
        "Bytes of request bodies received from clients.";
    SENT: Counter "edgeproxy_bytes_sent_total" ["listener"]
        "Bytes of response bodies sent to clients.";
    CONNECTIONS: Gauge "edgeproxy_connections" ["listener"]
        "Connections of clients that are open.";
    CONNECTIONS_MADE: Counter "edgeproxy_connections_total" ["listener"]
        "Connections of clients that were accepted.";
    CONNECTIONS_REFUSED: Counter "edgeproxy_connections_refused_total" ["listener", "reason"]
        "Connections of clients that were closed right after they were accepted.";
    REFUSALS: Counter "edgeproxy_refusals_total" ["reason"]
        "Requests that edgeproxy answered itself because something was wrong.";
    HANDSHAKES: Counter "edgeproxy_tls_handshakes_total" ["listener", "result", "version"]
        "TLS handshakes with clients.";
    CLIENT_CERTIFICATES: Counter "edgeproxy_tls_client_certificates_total" ["listener", "result"]
        "Clients that were asked for a certificate, by what became of it; all but verified and none failed their handshake.";
    TLS_FILES_READ: Counter "edgeproxy_tls_files_read_total" ["listener", "result"]
        "Times that certificates, authorities of clients and keys of tickets were read again: replaced, same, or refused.";
    TLS_EXPIRY: Gauge "edgeproxy_tls_expiry_timestamp_seconds" ["listener", "what"]
        "When the first of a listener's certificates, or of its lists of revoked clients, ends.";
    UPSTREAM_FILES_READ: Counter "edgeproxy_upstream_files_read_total" ["upstream", "result"]
        "Times that files with which an upstream is spoken to over TLS had changed and were read again: replaced, or refused.";
    CACHE_REQUESTS: Counter "edgeproxy_cache_requests_total" ["route", "result"]
        "Requests for which the cache was asked, by what it did.";
    CACHE_REASONS: Counter "edgeproxy_cache_reasons_total" ["reason"]
        "Requests whose Cache-Status has a detail, by that word: why they went to the origin, or were not stored.";
    CACHE_BYTES: Gauge "edgeproxy_cache_bytes" ["tier", "zone"]
        "Bytes that the store uses, bookkeeping included.";
    CACHE_LIMIT: Gauge "edgeproxy_cache_limit_bytes" ["tier", "zone"]
        "Bytes that the store may use.";
    CACHE_OBJECTS: Gauge "edgeproxy_cache_objects" ["tier", "zone"]
        "Responses in the store.";
    CACHE_EVICTIONS: Counter "edgeproxy_cache_evictions_total" ["tier", "zone"]
        "Responses that made room for others.";
    CACHE_FETCHES: Gauge "edgeproxy_cache_fetches" []
        "Requests to origins that wait for what may be shared, background refreshes included.";
    CACHE_PURGES: Counter "edgeproxy_cache_purges_total" ["what", "manner"]
        "Purges that operators asked for, by what they named and whether it is stale or gone.";
    CACHE_INVALIDATED: Counter "edgeproxy_cache_invalidated_total" []
        "Responses that were dropped since a request may have changed what they show.";
    CACHE_GROUPS: Counter "edgeproxy_cache_groups_invalidated_total" []
        "Groups of responses that a request made invalid, by Cache-Group-Invalidation.";
    UPSTREAM_REQUESTS: Counter "edgeproxy_upstream_requests_total" ["upstream", "status_class"]
        "Requests sent to origins, by the class of the answer (none: no answer).";
    UPSTREAM_ERRORS: Counter "edgeproxy_upstream_errors_total" ["upstream", "reason"]
        "Requests that an origin did not answer, by what happened.";
    UPSTREAM_DURATION: Histogram "edgeproxy_upstream_duration_seconds" ["upstream"]
        "Time from asking an origin to the header of its response.";
    UPSTREAM_CONNECTIONS: Counter "edgeproxy_upstream_connections_total" ["upstream", "reused"]
        "Connections to origins taken for a request, kept ones and new ones.";
    UPSTREAM_RETRIES: Counter "edgeproxy_upstream_retries_total" ["upstream", "outcome"]
        "Further attempts after one that failed: sent, or over the budget and not sent.";
    UPSTREAM_HEDGES: Counter "edgeproxy_upstream_hedges_total" ["upstream", "outcome"]
        "Second backends of requests whose first one took long, by what became of them.";
    UPSTREAM_COPIES: Counter "edgeproxy_upstream_copies_total" ["upstream", "outcome"]
        "Copies of requests for this upstream (mirror), by what became of them.";
    BACKEND_UP: Gauge "edgeproxy_backend_up" ["upstream", "backend"]
        "Whether the backend gets requests: 1 or 0.";
    BACKEND_REQUESTS: Counter "edgeproxy_backend_requests_total" ["upstream", "backend"]
        "Attempts sent to the backend.";
    BACKEND_FAILURES: Counter "edgeproxy_backend_failures_total" ["upstream", "backend"]
        "Attempts sent to the backend that failed.";
    BACKEND_ANSWERS: Counter "edgeproxy_backend_answers_total" ["upstream", "backend"]
        "Attempts that the backend answered, with whatever status.";
    BACKEND_SECONDS: Counter "edgeproxy_backend_response_seconds_total" ["upstream", "backend"]
        "Time to the headers of all answers together; divided by the answers it is their mean.";
    BACKEND_IN_FLIGHT: Gauge "edgeproxy_backend_requests_in_flight" ["upstream", "backend"]
        "Requests that the backend has now.";
    BACKEND_BREAKER: Gauge "edgeproxy_backend_breaker_state" ["upstream", "backend"]
        "The circuit breaker: 0 closed, 1 half-open, 2 open, until the first probe passes.";
    BACKEND_OPENED: Counter "edgeproxy_backend_breaker_opened_total" ["upstream", "backend"]
        "How often the circuit breaker has opened.";
    BACKEND_HALF_OPENED: Counter "edgeproxy_backend_breaker_half_opened_total" ["upstream", "backend"]
        "How often the circuit breaker has let probes through after that.";
    BACKEND_CLOSED: Counter "edgeproxy_backend_breaker_closed_total" ["upstream", "backend"]
        "How often the circuit breaker has closed: by its probes, by a reset, or because it was switched off.";
    POOL_OPEN: Gauge "edgeproxy_backend_pool_open" ["upstream", "backend"]
        "Connections to the backend that exist.";
    POOL_IDLE: Gauge "edgeproxy_backend_pool_idle" ["upstream", "backend"]
        "Connections to the backend that wait for a request.";
    POOL_IN_USE: Gauge "edgeproxy_backend_pool_in_use" ["upstream", "backend"]
        "Requests that have a connection to the backend, or a stream of one.";
    POOL_QUEUED: Gauge "edgeproxy_backend_pool_queued" ["upstream", "backend"]
        "Requests that wait for a connection to the backend.";
    POOL_REUSED: Counter "edgeproxy_backend_pool_reused_total" ["upstream", "backend"]
        "How often a connection to the backend was used once more.";
    POOL_CREATED: Counter "edgeproxy_backend_pool_created_total" ["upstream", "backend"]
        "Connections to the backend that were made.";
    POOL_FAILED: Counter "edgeproxy_backend_pool_failed_total" ["upstream", "backend"]
        "Connections to the backend that could not be made.";
    UPSTREAM_DRIFT: Gauge "edgeproxy_upstream_drift" ["upstream"]
        "Backends that differ from the configuration, changed at run time.";
    UPSTREAM_LIMIT: Gauge "edgeproxy_upstream_concurrency_limit" ["upstream"]
        "Requests that may wait for an answer of the upstream at once, found out from its latency (concurrency).";
    UPSTREAM_IN_FLIGHT: Gauge "edgeproxy_upstream_concurrency" ["upstream"]
        "Requests that wait for an answer of the upstream now, where they are limited so.";
    BACKEND_HEALTH: Gauge "edgeproxy_backend_health_state" ["upstream", "backend"]
        "What health checks say of the backend: 0 healthy, 1 unknown, 2 unhealthy.";
    BACKEND_CHECKS: Counter "edgeproxy_backend_health_checks_total" ["upstream", "backend", "result"]
        "Health checks of the backend: passed or failed.";
    BACKEND_EJECTED: Counter "edgeproxy_backend_ejections_total" ["upstream", "backend"]
        "How often the backend was ejected since it failed where others did not.";
    ACME_ORDERS: Counter "edgeproxy_acme_orders_total" ["hosts", "result"]
        "Orders of this process at the ACME server: issued or failed.";
    ACME_FAILURES: Gauge "edgeproxy_acme_failures" ["hosts"]
        "How many orders for the certificate failed in a row.";
    ACME_SUCCESS: Gauge "edgeproxy_acme_last_success_timestamp_seconds" ["hosts"]
        "When the certificate was last issued.";
    ACME_EXPIRY: Gauge "edgeproxy_acme_expiry_timestamp_seconds" ["hosts"]
        "When the certificate that was issued expires.";
    LOG_DROPPED: Counter "edgeproxy_access_log_dropped_total" []
        "Lines of the access log that were dropped.";
    PANICS: Counter "edgeproxy_panics_total" []
        "Panics, each of which ended one request or task.";
    BUILD_INFO: Gauge "edgeproxy_build_info" ["version"]
        "The version of edgeproxy; always 1.";
    RELOAD_SUCCESSFUL: Gauge "edgeproxy_config_last_reload_successful" []
        "Whether the last reading of the configuration succeeded: 1 or 0.";
    RELOAD_TIME: Gauge "edgeproxy_config_last_reload_success_timestamp_seconds" []
        "When the configuration in use was read, in seconds since the epoch.";
    RELOADS: Counter "edgeproxy_config_reloads_total" ["result"]
        "Readings of the configuration while the process runs: reloaded, unchanged or refused.";
    RELOAD_CHANGES: Counter "edgeproxy_config_changes_total" ["what", "change"]
        "What reloads have changed: listeners, certificates, upstreams, routes and other settings.";
    TASKS: Gauge "edgeproxy_tasks" []
        "Tasks that are under way: connections, streams, checks, look-ups.";
    PROCESS_CPU: Counter "process_cpu_seconds_total" []
        "CPU time used, in user and system mode.";
    PROCESS_RESIDENT: Gauge "process_resident_memory_bytes" []
        "Resident memory.";
    PROCESS_VIRTUAL: Gauge "process_virtual_memory_bytes" []
        "Virtual memory.";
    PROCESS_THREADS: Gauge "process_threads" []
        "Threads.";
    PROCESS_FDS: Gauge "process_open_fds" []
        "Open file descriptors.";
    PROCESS_MAX_FDS: Gauge "process_max_fds" []
        "The most file descriptors that may be open.";
    PROCESS_START: Gauge "process_start_time_seconds" []
        "When the process began, in seconds since the epoch.";
}

/// From a hit in memory to the slowest answer that anybody waits for, in seconds.
const BUCKETS: &[f64] = &[
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0, 30.0, 60.0,
];

const DEFINED: &str = "every metric is defined once, with valid names";

/// All metrics of the process.
pub struct Metrics {
    registry: Registry,
    requests: Arc<Requests>,
    sampled: Arc<Sampled>,
    received: IntCounterVec,
    sent: IntCounterVec,
    connections: IntGaugeVec,
    connections_made: IntCounterVec,
    connections_refused: IntCounterVec,
    handshakes: IntCounterVec,
    client_certificates: IntCounterVec,
    tls_files_read: IntCounterVec,
    upstream_files_read: IntCounterVec,
    refusals: Box<[IntCounter]>,
    cache_reasons: Reasons,
    purges: IntCounterVec,
    invalidated: IntCounter,
    groups_invalidated: IntCounter,
    upstreams: Upstreams,
    backends: Arc<Backends>,
    ends: Arc<Ends>,
    orders: Arc<Orders>,
    panics: IntCounter,
    reload_successful: IntGauge,
    reload_time: IntGauge,
    reloads: IntCounterVec,
    reload_changes: IntCounterVec,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    /// Metrics that start at zero. `now` stands for the start of the process where the system does
    /// not tell it.
    #[must_use]
    pub fn new(version: &str, now: SystemTime) -> Self {
        let registry = Registry::new();
        let new = Maker { registry: &registry };
        let requests =
            Arc::new(Requests::new(new.histograms(&DURATION), new.histograms(&FIRST_BYTE)));
        new.register(RequestsCollector(Arc::clone(&requests)));
        let sampled = Arc::new(Sampled::new(process::started(now)));
        new.register(SampledCollector(Arc::clone(&sampled)));
        let backends = Arc::new(Backends::new());
        new.register(BackendsCollector(Arc::clone(&backends)));
        let ends = Arc::new(Ends::new());
        new.register(EndsCollector(Arc::clone(&ends)));
        let orders = Arc::new(Orders::new());
        new.register(OrdersCollector(Arc::clone(&orders)));
        let refusals = new.counters(&REFUSALS);
        new.gauges(&BUILD_INFO).with_label_values(&[version]).set(1);
        Self {
            requests,
            sampled,
            received: new.counters(&RECEIVED),
            sent: new.counters(&SENT),
            connections: new.gauges(&CONNECTIONS),
            connections_made: new.counters(&CONNECTIONS_MADE),
            connections_refused: new.counters(&CONNECTIONS_REFUSED),
            handshakes: new.counters(&HANDSHAKES),
            client_certificates: new.counters(&CLIENT_CERTIFICATES),
            tls_files_read: new.counters(&TLS_FILES_READ),
            upstream_files_read: new.counters(&UPSTREAM_FILES_READ),
            refusals: Refusal::ALL
                .iter()
                .map(|refusal| refusals.with_label_values(&[refusal.label()]))
                .collect(),
            purges: new.counters(&CACHE_PURGES),
            invalidated: new.counters(&CACHE_INVALIDATED).with_label_values::<&str>(&[]),
            cache_reasons: Reasons::new(new.counters(&CACHE_REASONS)),
            groups_invalidated: new.counters(&CACHE_GROUPS).with_label_values::<&str>(&[]),
            upstreams: Upstreams::new(&new),
            backends,
            ends,
            orders,
            panics: new.counters(&PANICS).with_label_values::<&str>(&[]),
            reload_successful: new.gauges(&RELOAD_SUCCESSFUL).with_label_values::<&str>(&[]),
            reload_time: new.gauges(&RELOAD_TIME).with_label_values::<&str>(&[]),
            reloads: new.counters(&RELOADS),
            reload_changes: new.counters(&RELOAD_CHANGES),
            registry,
        }
    }

    /// The counters of every route on every listener of a configuration. The same names give the same
    /// counters again, so they outlive a reload.
    #[must_use]
    pub fn routes(&self, listeners: &[&str], routes: &[&str]) -> RouteTable {
        RouteTable::new(&self.requests, listeners, routes)
    }

    /// The counters of one route on one listener; an empty route is for requests that matched none.
    #[must_use]
    pub fn route(&self, listener: &str, route: &str) -> Arc<RouteMetrics> {
        self.requests.route(listener, route)
    }

    /// The counters of a listener.
    #[must_use]
    pub fn listener(&self, name: &str) -> ListenerMetrics {
        ListenerMetrics {
            received: self.received.with_label_values(&[name]),
            sent: self.sent.with_label_values(&[name]),
            open: self.connections.with_label_values(&[name]),
            made: self.connections_made.with_label_values(&[name]),
            refused: each::<ConnectionRefusal, _>(|reason| {
                self.connections_refused.with_label_values(&[name, reason])
            }),
            handshakes: each::<Handshake, _>(|result| {
                each::<TlsVersion, _>(|version| {
                    self.handshakes.with_label_values(&[name, result, version])
                })
            }),
            client_certificates: each::<ClientCertificate, _>(|result| {
                self.client_certificates.with_label_values(&[name, result])
            }),
        }
    }

    /// The counters of an upstream.
    #[must_use]
    pub fn upstream(&self, name: &str) -> UpstreamMetrics {
        self.upstreams.of(name)
    }

    /// Has the backends sampled when somebody looks.
    pub fn watch_backends(&self, samples: impl Fn() -> Vec<BackendSample> + Send + Sync + 'static) {
        self.backends.watch(Box::new(samples));
    }

    /// Has the upstreams sampled when somebody looks.
    pub fn watch_upstreams(
        &self,
        samples: impl Fn() -> Vec<UpstreamSample> + Send + Sync + 'static,
    ) {
        self.backends.watch_upstreams(Box::new(samples));
    }

    /// Has it asked for when somebody looks when certificates end.
    pub fn watch_ends(&self, samples: impl Fn() -> Vec<EndSample> + Send + Sync + 'static) {
        self.ends.watch(Box::new(samples));
    }

    /// Has the certificates sampled when somebody looks that an ACME server issues.
    pub fn watch_orders(&self, samples: impl Fn() -> Vec<OrderSample> + Send + Sync + 'static) {
        self.orders.watch(Box::new(samples));
    }

    /// Counts a request that was answered here because something was wrong.
    pub fn refused(&self, refusal: Refusal) {
        if let Some(counter) = self.refusals.get(refusal as usize) {
            counter.inc();
        }
    }

    /// Counts a request of whose handling by the cache this word says more.
    pub fn cache_reason(&self, reason: &'static str) {
        self.cache_reasons.count(reason);
    }

    /// Counts a purge of this kind of scope.
    pub fn purged(&self, what: &'static str, manner: Manner) {
        self.purges.with_label_values(&[what, manner.label()]).inc();
    }

    /// Counts a group of responses that a request made invalid.
    pub fn group_invalidated(&self) {
        self.groups_invalidated.inc();
    }

    /// Counts responses that a request made invalid.
    pub fn invalidated(&self, responses: u64) {
        self.invalidated.inc_by(responses);
    }

    /// Counts a panic.
    pub fn panicked(&self) {
        self.panics.inc();
    }

    /// Forgets what was counted of these: the configuration does not have them any more. Who still holds
    /// their counters counts for nobody.
    pub fn forget(&self, gone: &Gone<'_>) {
        let Gone { listeners, upstreams, routes } = *gone;
        listeners.iter().for_each(|name| self.forget_listener(name));
        upstreams.iter().for_each(|name| self.upstreams.forget(name));
        for name in upstreams {
            for result in FilesRead::ALL {
                let _ = self.upstream_files_read.remove_label_values(&[name, result.label()]);
            }
        }
        self.requests.forget(listeners, routes);
    }

    fn forget_listener(&self, name: &str) {
        // What was never counted is not there, and that is as well.
        let _ = self.received.remove_label_values(&[name]);
        let _ = self.sent.remove_label_values(&[name]);
        let _ = self.connections.remove_label_values(&[name]);
        let _ = self.connections_made.remove_label_values(&[name]);
        for reason in ConnectionRefusal::ALL {
            let _ = self.connections_refused.remove_label_values(&[name, reason.label()]);
        }
        for result in Handshake::ALL {
            for version in TlsVersion::ALL {
                let labels = [name, result.label(), version.label()];
                let _ = self.handshakes.remove_label_values(&labels);
            }
        }
        for result in FilesRead::ALL {
            let _ = self.tls_files_read.remove_label_values(&[name, result.label()]);
        }
        for result in ClientCertificate::ALL {
            let _ = self.client_certificates.remove_label_values(&[name, result.label()]);
        }
    }

    /// Counts that the files of a listener were read again.
    pub fn tls_files_read(&self, listener: &str, result: FilesRead) {
        self.tls_files_read.with_label_values(&[listener, result.label()]).inc();
    }

    /// Counts that the files of an upstream were read again.
    pub fn upstream_files_read(&self, upstream: &str, result: FilesRead) {
        self.upstream_files_read.with_label_values(&[upstream, result.label()]).inc();
    }

    /// Counts a reload by what came of it.
    pub fn reload_ended(&self, result: Reloaded) {
        self.reloads.with_label_values(&[result.label()]).inc();
    }

    /// Counts what a reload changed.
    pub fn reload_changed(&self, what: &str, change: &str, count: usize) {
        self.reload_changes.with_label_values(&[what, change]).inc_by(count as u64);
    }

    /// Notes how reading the configuration went.
    pub fn reloaded(&self, reload: Reload, now: SystemTime) {
        match reload {
            Reload::InUse => {
                let since = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
                self.reload_time.set(i64::try_from(since).unwrap_or(i64::MAX));
                self.reload_successful.set(1);
            }
            Reload::Refused => self.reload_successful.set(0),
        }
    }

    /// Asks `usage` for the numbers of a store, one for each of its zones, whenever somebody looks. A tier of
    /// the same name is replaced.
    pub fn watch_cache(
        &self,
        tier: &str,
        usage: impl Fn() -> Vec<CacheUsage> + Send + Sync + 'static,
    ) {
        self.sampled.watch_cache(tier, Box::new(usage));
    }

    /// Asks `running` for the number of fetches whenever somebody looks.
    pub fn watch_fetches(&self, running: impl Fn() -> u64 + Send + Sync + 'static) {
        self.sampled.watch_fetches(Box::new(running));
    }

    /// Asks `dropped` for the dropped lines of the access log whenever somebody looks.
    pub fn watch_access_log(&self, dropped: impl Fn() -> u64 + Send + Sync + 'static) {
        self.sampled.watch_access_log(Box::new(dropped));
    }

    /// Asks `running` for the number of tasks whenever somebody looks.
    pub fn watch_tasks(&self, running: impl Fn() -> u64 + Send + Sync + 'static) {
        self.sampled.watch_tasks(Box::new(running));
    }

    /// Everything in the text format of Prometheus, version 0.0.4.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = String::new();
        if let Err(error) = TextEncoder::new().encode_utf8(&self.registry.gather(), &mut text) {
            log::error!(target: "edgeproxy::metrics", error:%; "the metrics cannot be written");
        }
        text
    }
}

/// The media type of [`Metrics::render`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// How reading the configuration went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reload {
    /// It is in use now.
    InUse,
    /// It has errors; the one before stays in use.
    Refused,
}

/// What the configuration does not have any more.
#[derive(Debug, Clone, Copy, Default)]
pub struct Gone<'a> {
    /// Names of listeners.
    pub listeners: &'a [&'a str],
    /// Names of upstreams.
    pub upstreams: &'a [&'a str],
    /// Names of routes.
    pub routes: &'a [&'a str],
}

/// What a zone of a store uses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CacheUsage {
    /// The zone's name.
    pub zone: String,
    /// Bytes in use, bookkeeping included.
    pub bytes: u64,
    /// Bytes that may be used.
    pub limit: u64,
    /// Responses stored.
    pub objects: u64,
    /// Responses that made room for others, ever.
    pub evictions: u64,
}

/// The counters of a listener.
#[derive(Debug, Clone)]
pub struct ListenerMetrics {
    received: IntCounter,
    sent: IntCounter,
    open: IntGauge,
    made: IntCounter,
    refused: Box<[IntCounter]>,
    handshakes: Box<[Box<[IntCounter]>]>,
    client_certificates: Box<[IntCounter]>,
}

impl ListenerMetrics {
    /// Counts bytes of a request body and of its response's body.
    pub fn transferred(&self, received: u64, sent: u64) {
        // Most requests have no body.
        if received > 0 {
            self.received.inc_by(received);
        }
        self.sent.inc_by(sent);
    }

    /// Counts a connection, as open for as long as the value lives.
    #[must_use]
    pub fn connected(&self) -> Connected {
        self.made.inc();
        self.open.inc();
        Connected { open: self.open.clone() }
    }

    /// Counts a connection that was closed at once.
    pub fn refused(&self, reason: ConnectionRefusal) {
        self.refused[reason.index()].inc();
    }

    /// Counts a TLS handshake.
    pub fn handshake(&self, result: Handshake, version: TlsVersion) {
        self.handshakes[result.index()][version.index()].inc();
    }

    /// Counts a client that was asked for a certificate.
    pub fn client_certificate(&self, result: ClientCertificate) {
        self.client_certificates[result.index()].inc();
    }
}

/// A connection that is counted as open.
#[derive(Debug)]
pub struct Connected {
    open: IntGauge,
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.open.dec();
    }
}

/// One handle for each value of a label.
fn each<L: Label, T>(make: impl Fn(&'static str) -> T) -> Box<[T]> {
    L::ALL.iter().map(|value| make(value.label())).collect()
}

/// Makes metrics and registers them.
struct Maker<'a> {
    registry: &'a Registry,
}

impl Maker<'_> {
    fn register(&self, collector: impl Collector + 'static) {
        self.registry.register(Box::new(collector)).expect(DEFINED);
    }

    fn counters(&self, definition: &Definition) -> IntCounterVec {
        let made = IntCounterVec::new(definition.opts(), definition.labels).expect(DEFINED);
        self.register(made.clone());
        made
    }

    fn gauges(&self, definition: &Definition) -> IntGaugeVec {
        let made = IntGaugeVec::new(definition.opts(), definition.labels).expect(DEFINED);
        self.register(made.clone());
        made
    }

    fn histograms(&self, definition: &'static Definition) -> TimesVec {
        let made = TimesVec::new(definition);
        self.register(made.clone());
        made
    }
}

impl Definition {
    fn opts(&self) -> Opts {
        Opts::new(self.name, self.help)
    }

    fn description(&self) -> Desc {
        let labels = self.labels.iter().map(|&label| label.to_owned()).collect();
        Desc::new(self.name.to_owned(), self.help.to_owned(), labels, HashMap::new())
            .expect(DEFINED)
    }
}

fn family(definition: &Definition, metrics: Vec<proto::Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(definition.name.to_owned());
    family.set_help(definition.help.to_owned());
    family.set_field_type(match definition.kind {
        Kind::Counter => MetricType::COUNTER,
        Kind::Gauge => MetricType::GAUGE,
        Kind::Histogram => MetricType::HISTOGRAM,
    });
    family.set_metric(metrics);
    family
}

fn counter(definition: &Definition, labels: &[&str], count: u64) -> proto::Metric {
    sample(definition, labels, count as f64)
}

/// A metric that has these values of its labels, and none of its own yet.
fn labelled(definition: &Definition, labels: &[&str]) -> proto::Metric {
    let pairs = definition.labels.iter().zip(labels).map(|(&name, &value)| {
        let mut pair = proto::LabelPair::default();
        pair.set_name(name.to_owned());
        pair.set_value(value.to_owned());
        pair
    });
    proto::Metric::from_label(pairs.collect())
}

/// One sample of a counter or gauge.
fn sample(definition: &Definition, labels: &[&str], value: f64) -> proto::Metric {
    let mut metric = labelled(definition, labels);
    let mut counter = proto::Counter::default();
    counter.set_value(value);
    metric.set_counter(counter);
    let mut gauge = proto::Gauge::default();
    gauge.set_value(value);
    metric.set_gauge(gauge);
    metric
}

#[cfg(test)]
mod tests;
