//! The counters of upstreams.

use std::sync::Arc;
use std::time::Duration;

use prometheus::IntCounter;
use prometheus::IntCounterVec;

use super::Maker;
use super::UPSTREAM_CONNECTIONS;
use super::UPSTREAM_COPIES;
use super::UPSTREAM_DURATION;
use super::UPSTREAM_ERRORS;
use super::UPSTREAM_HEDGES;
use super::UPSTREAM_REQUESTS;
use super::UPSTREAM_RETRIES;
use super::each;
use super::labels::Copied;
use super::labels::Hedged;
use super::labels::Label;
use super::labels::Retried;
use super::labels::Reused;
use super::labels::StatusClass;
use super::labels::UpstreamError;
use super::times::Times;
use super::times::TimesVec;

/// The counters of all upstreams.
pub(super) struct Upstreams {
    requests: IntCounterVec,
    errors: IntCounterVec,
    duration: TimesVec,
    connections: IntCounterVec,
    retries: IntCounterVec,
    hedges: IntCounterVec,
    copies: IntCounterVec,
}

impl Upstreams {
    pub(super) fn new(new: &Maker<'_>) -> Self {
        Self {
            requests: new.counters(&UPSTREAM_REQUESTS),
            errors: new.counters(&UPSTREAM_ERRORS),
            duration: new.histograms(&UPSTREAM_DURATION),
            connections: new.counters(&UPSTREAM_CONNECTIONS),
            retries: new.counters(&UPSTREAM_RETRIES),
            hedges: new.counters(&UPSTREAM_HEDGES),
            copies: new.counters(&UPSTREAM_COPIES),
        }
    }

    /// Forgets those of the upstream of this name.
    pub(super) fn forget(&self, name: &str) {
        fn each<L: Label>(all: &IntCounterVec, name: &str) {
            for value in L::ALL {
                // What was never counted is not there, and that is as well.
                let _ = all.remove_label_values(&[name, value.label()]);
            }
        }
        let Self { requests, errors, duration, connections, retries, hedges, copies } = self;
        each::<StatusClass>(requests, name);
        each::<UpstreamError>(errors, name);
        each::<Reused>(connections, name);
        each::<Retried>(retries, name);
        each::<Hedged>(hedges, name);
        each::<Copied>(copies, name);
        duration.forget(&[name]);
    }

    /// Those of the upstream of this name.
    pub(super) fn of(&self, name: &str) -> UpstreamMetrics {
        let counters = |all: &IntCounterVec, value| all.with_label_values(&[name, value]);
        UpstreamMetrics {
            requests: each::<StatusClass, _>(|class| counters(&self.requests, class)),
            errors: each::<UpstreamError, _>(|reason| counters(&self.errors, reason)),
            duration: self.duration.of(&[name]),
            connections: each::<Reused, _>(|reused| counters(&self.connections, reused)),
            retries: each::<Retried, _>(|outcome| counters(&self.retries, outcome)),
            hedges: each::<Hedged, _>(|outcome| counters(&self.hedges, outcome)),
            copies: each::<Copied, _>(|outcome| counters(&self.copies, outcome)),
        }
    }
}

/// The counters of an upstream.
#[derive(Debug, Clone)]
pub struct UpstreamMetrics {
    requests: Box<[IntCounter]>,
    errors: Box<[IntCounter]>,
    duration: Arc<Times>,
    connections: Box<[IntCounter]>,
    retries: Box<[IntCounter]>,
    hedges: Box<[IntCounter]>,
    copies: Box<[IntCounter]>,
}

impl UpstreamMetrics {
    /// Counts a request that an origin answered, and the time to its header.
    pub fn answered(&self, status: u16, duration: Duration) {
        self.requests[StatusClass::of(Some(status)).index()].inc();
        self.duration.observe(duration);
    }

    /// Counts a request that an origin did not answer.
    pub fn failed(&self, error: UpstreamError) {
        self.requests[StatusClass::None.index()].inc();
        self.errors[error.index()].inc();
    }

    /// Counts a connection that a request was given.
    pub fn connected(&self, reused: Reused) {
        self.connections[reused.index()].inc();
    }

    /// Counts a second backend of a request.
    pub fn hedged(&self, outcome: Hedged) {
        self.hedges[outcome.index()].inc();
    }

    /// Counts a copy of a request.
    pub fn copied(&self, outcome: Copied) {
        self.copies[outcome.index()].inc();
    }

    /// Counts a further attempt.
    pub fn retried(&self, outcome: Retried) {
        self.retries[outcome.index()].inc();
    }
}
