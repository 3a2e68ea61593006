//! What the upstream of a story is like.

use std::time::Duration;

use crate::balance::Algorithm;
use crate::resilience::breaker;
use crate::resilience::budget;
use crate::resilience::ejection;
use crate::resilience::health as judge;
use crate::resilience::limit;
use crate::resilience::retry;
use crate::upstream::Backend;
use crate::upstream::Balance;
use crate::upstream::Breaker;
use crate::upstream::Ejection;
use crate::upstream::Fault;
use crate::upstream::Place;
use crate::upstream::Retry;
use crate::upstream::Settings;
use crate::upstream::health;
use crate::upstream::tests::harness;

/// The algorithm of a story.
pub(super) fn algorithm(seed: u64) -> Algorithm {
    let all = [
        Algorithm::RoundRobin,
        Algorithm::Random,
        Algorithm::LeastConnections,
        Algorithm::PeakEwma,
        Algorithm::ConsistentHash { bound: None },
        Algorithm::ConsistentHash { bound: Some(125) },
    ];
    all[(seed % all.len() as u64) as usize]
}

/// Backends of these weights; every third round of the algorithms has a limit of concurrency.
pub(super) fn settings(seed: u64, weights: &[u32]) -> Settings {
    let backends = (1..).zip(weights).map(|(number, &weight)| {
        let at = Place::Tcp { host: format!("192.0.2.{number}"), port: 80 };
        Backend { weight, ..Backend::new(&format!("backend-{number}"), at) }
    });
    let health = health::Settings {
        probe: health::Probe::Tcp,
        interval: Duration::from_secs(1),
        jitter: 0,
        timeout: Duration::from_secs(1),
        judged: judge::Settings::default(),
    };
    Settings {
        backends: backends.collect(),
        balance: Balance { algorithm: algorithm(seed), by: None },
        slow_start: Duration::from_secs(4),
        concurrency: (seed / 6).is_multiple_of(3).then(limit_settings),
        breaker: Some(Breaker {
            settings: breaker_settings(),
            counts: Some(vec![Fault::Connect, Fault::Timeout, Fault::Closed, Fault::Malformed]),
            statuses: Some(vec![503]),
        }),
        ejection: Some(Ejection {
            settings: ejection_settings(),
            interval: Duration::from_secs(2),
            statuses: vec![503],
        }),
        health: Some(health),
        retry: Retry {
            settings: retry::Settings { statuses: vec![503], ..retry::Settings::default() },
            budget: budget_settings(),
            per_try: None,
        },
        ..harness::settings(Place::Demo)
    }
}

pub(super) fn breaker_settings() -> breaker::Settings {
    breaker::Settings {
        rate: Some(50),
        min_requests: 20,
        open_for: Duration::from_secs(3),
        probes: 2,
        ..breaker::Settings::default()
    }
}

pub(super) fn ejection_settings() -> ejection::Settings {
    ejection::Settings {
        // Before the breaker, now and then.
        consecutive: 4,
        min_requests: 20,
        base: Duration::from_secs(2),
        longest: Duration::from_secs(10),
        ..ejection::Settings::default()
    }
}

pub(super) fn budget_settings() -> budget::Settings {
    budget::Settings { percent: 4, minimum: 1 }
}

/// More than is ever under way in quiet times, and less than bursts.
pub(super) fn limit_settings() -> limit::Settings {
    limit::Settings { min: 8, max: 30, ..limit::Settings::default() }
}
