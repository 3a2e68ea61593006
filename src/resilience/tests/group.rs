//! The group under test: for each peer what the program would keep of it, put together as the
//! program does.

use std::cell::Cell;
use std::time::Duration;

use crate::balance::Algorithm;
use crate::balance::Ask;
use crate::balance::Balancer;
use crate::balance::PeakEwma;
use crate::balance::Peers;
use crate::balance::READY;
use crate::balance::Seat;
use crate::resilience::breaker;
use crate::resilience::breaker::Breaker;
use crate::resilience::budget;
use crate::resilience::budget::Budget;
use crate::resilience::ejection;
use crate::resilience::ejection::Record;
use crate::resilience::ejection::Ward;
use crate::resilience::health;
use crate::resilience::health::Checkup;
use crate::resilience::health::State;

/// How long a peer takes after a check has found it well again until it has its whole share.
const SLOW_START: Duration = Duration::from_secs(4);

pub(super) struct Member {
    pub(super) weight: u32,
    pub(super) drained: bool,
    pub(super) breaker: Breaker,
    pub(super) checkup: Checkup,
    pub(super) record: Record,
    pub(super) latency: PeakEwma,
    pub(super) in_flight: Cell<u32>,
    /// When checks found it well again.
    pub(super) risen: Option<Duration>,
}

pub(super) struct Group {
    pub(super) members: Vec<Member>,
    pub(super) balancer: Balancer,
    pub(super) ward: Ward,
    pub(super) budget: Budget,
}

impl Group {
    pub(super) fn new(algorithm: Algorithm, weights: &[u32]) -> Self {
        let ids: Vec<String> = (0..weights.len()).map(|peer| format!("peer-{peer}")).collect();
        let seats: Vec<Seat<'_>> =
            ids.iter().zip(weights).map(|(id, &weight)| Seat { id, weight }).collect();
        let balancer = Balancer::new(&algorithm, &seats);
        let member = |&weight: &u32| Member {
            weight,
            drained: false,
            breaker: Breaker::new(breaker_settings()),
            checkup: Checkup::new(health::Settings::default()),
            record: Record::default(),
            latency: PeakEwma::new(Duration::from_secs(10)),
            in_flight: Cell::new(0),
            risen: None,
        };
        Self {
            members: weights.iter().map(member).collect(),
            balancer,
            ward: Ward::new(ejection_settings()),
            budget: Budget::new(budget_settings()),
        }
    }

    /// The peer for a request that was at these peers already. They come again only when there is no
    /// other.
    pub(super) fn choose(&self, ask: &Ask, tried: &[usize], now: Duration) -> Option<usize> {
        let fresh = View { members: &self.members, tried, now };
        let any = View { tried: &[], ..fresh };
        self.balancer.pick(ask, &fresh).or_else(|| self.balancer.pick(ask, &any))
    }

    pub(super) fn records(&self) -> Vec<&Record> {
        self.members.iter().map(|member| &member.record).collect()
    }

    pub(super) fn is_usable(&self, peer: usize, now: Duration) -> bool {
        View { members: &self.members, tried: &[], now }.is_usable(peer)
    }
}

#[derive(Clone, Copy)]
struct View<'a> {
    members: &'a [Member],
    tried: &'a [usize],
    now: Duration,
}

impl Peers for View<'_> {
    fn is_usable(&self, peer: usize) -> bool {
        let member = &self.members[peer];
        !member.drained
            && !self.tried.contains(&peer)
            && member.checkup.state() == State::Healthy
            && !member.record.is_out(self.now)
            && member.breaker.admits(self.now)
    }

    fn in_flight(&self, peer: usize) -> u32 {
        self.members[peer].in_flight.get()
    }

    fn cost(&self, peer: usize) -> u64 {
        self.members[peer].latency.cost(self.in_flight(peer), self.now)
    }

    fn readiness(&self, peer: usize) -> u32 {
        let Some(risen) = self.members[peer].risen else {
            return READY;
        };
        let since = self.now.saturating_sub(risen).as_millis() * u128::from(READY);
        u32::try_from(since / SLOW_START.as_millis()).unwrap_or(READY).min(READY)
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
