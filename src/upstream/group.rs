//! The backends of one upstream at one moment, and the choice among them.
//!
//! A group never changes: what comes, goes or gets another weight makes a new one. Choosing takes no
//! lock and allocates nothing.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::balance;
use crate::balance::Algorithm;
use crate::balance::Ask;
use crate::balance::Balancer;
use crate::balance::READY;
use crate::balance::Seat;
use crate::refusal::Refusal;
use crate::upstream::backend::Backend;
use crate::upstream::backend::Heed;
use crate::upstream::backend::Wish;
use crate::upstream::prospect::Prospect;
use crate::upstream::prospect::millis;
use crate::upstream::prospect::readiness;
use crate::upstream::survey::News;
use crate::upstream::survey::Survey;

/// The backends of one moment.
#[derive(Debug)]
pub(super) struct Group {
    /// In order: each serves while none of those before it can.
    tiers: Vec<Tier>,
    /// Each with the place of its tier.
    by_key: HashMap<u64, (usize, Arc<Backend>)>,
    /// What is wished for first.
    best: Wish,
    /// What happens to them.
    news: Arc<News>,
}

/// Backends that stand for each other.
#[derive(Debug)]
struct Tier {
    backends: Vec<Arc<Backend>>,
    /// What is looked at of each of them.
    prospects: Vec<Prospect>,
    balancer: Balancer,
    survey: Survey,
}

/// What one request wants of a group.
#[derive(Debug)]
pub(super) struct Wanted<'a> {
    /// Where it was sent already.
    pub(super) tried: &'a [Arc<Backend>],
    /// What it has in common with others that come to the same backend.
    pub(super) hash: Option<u64>,
    /// The backend that it was served by before ([`Backend::key`]).
    pub(super) sticky: Option<u64>,
    /// A random number.
    pub(super) random: u64,
}

/// What holds for every choice at one moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Now {
    /// The time, since the upstream was started.
    pub(super) at: Duration,
    /// How long a backend takes up its share.
    pub(super) slow_start: Duration,
    /// Below this percentage of well ones, health is not heeded.
    pub(super) panic_threshold: u32,
}

/// Which of the candidates may be taken, as the balancer asks it.
struct Candidates<'a> {
    backends: &'a [Arc<Backend>],
    prospects: &'a [Prospect],
    tried: &'a [Arc<Backend>],
    wish: Wish,
    heed: Heed,
    now: &'a Now,
    /// How ready the readiest is.
    most: u32,
}

impl Group {
    /// The group of these backends, to which happens what is told there.
    pub(super) fn new(
        backends: Vec<Arc<Backend>>,
        algorithm: &Algorithm,
        news: &Arc<News>,
    ) -> Self {
        let mut tiers: BTreeMap<u32, Vec<Arc<Backend>>> = BTreeMap::new();
        for backend in backends {
            tiers.entry(backend.tier()).or_default().push(backend);
        }
        let tiers: Vec<Tier> = tiers.into_values().map(|tier| Tier::new(tier, algorithm)).collect();
        let of_tier = |(place, tier): (usize, &Tier)| {
            tier.backends.iter().map(move |one| (one.key(), (place, Arc::clone(one)))).collect()
        };
        let by_key = tiers.iter().enumerate().flat_map(|one| -> Vec<_> { of_tier(one) }).collect();
        // A session is at its backend, however busy that is.
        let best = match algorithm {
            Algorithm::ConsistentHash { bound: None } => Wish::Awake,
            _ => Wish::Rested,
        };
        Self { tiers, by_key, best, news: Arc::clone(news) }
    }

    /// All of them, the backups last.
    pub(super) fn backends(&self) -> impl Iterator<Item = &Arc<Backend>> {
        self.tiers.iter().flat_map(|tier| &tier.backends)
    }

    /// Whether others are meant to get requests beside `backend`, as they are or not.
    pub(super) fn has_company(&self, backend: &Backend) -> bool {
        self.backends().any(|other| !other.is_the_same_as(backend) && other.is_wanted())
    }

    /// Whether requests still have a choice beside `tried`.
    pub(super) fn has_other(&self, tried: &[Arc<Backend>], now: &Now) -> bool {
        self.tiers.iter().enumerate().any(|(place, tier)| {
            let heed = self.heed(place, now);
            tier.backends.iter().any(|backend| {
                backend.is_usable(heed, now.at) && backend.fits(Wish::Untried, tried, now.at)
            })
        })
    }

    /// What is looked at when one of this tier is chosen. Where so few are well that the checks may be what is wrong, all
    /// are tried; but not while enough of a tier behind them are well, for whom it was made.
    fn heed(&self, place: usize, now: &Now) -> Heed {
        if now.panic_threshold == 0 {
            return Heed::Health;
        }
        let news = self.news.number();
        let mut from_here = self.tiers.iter().skip(place);
        match from_here.any(|tier| tier.has_enough(news, now)) {
            true => Heed::Health,
            false => Heed::Panic,
        }
    }

    /// The backend for a request.
    ///
    /// # Errors
    /// [`Refusal::BreakerOpen`] when open breakers alone are in the way, else [`Refusal::NoPeer`].
    pub(super) fn pick(&self, wanted: &Wanted<'_>, now: &Now) -> Result<&Arc<Backend>, Refusal> {
        if let Some(backend) = self.served_before(wanted, now) {
            return Ok(backend);
        }
        for wish in [self.best, Wish::Untried, Wish::Any] {
            for (place, tier) in self.tiers.iter().enumerate() {
                let heed = self.heed(place, now);
                if let Some(backend) = tier.pick(wanted, wish, heed, &self.news, now) {
                    return Ok(backend);
                }
            }
        }
        let barred = self.backends().any(|backend| backend.is_well(now.at));
        Err(if barred { Refusal::BreakerOpen } else { Refusal::NoPeer })
    }

    /// The backend that the request was served by before, if it can serve it again.
    fn served_before(&self, wanted: &Wanted<'_>, now: &Now) -> Option<&Arc<Backend>> {
        let (place, backend) = self.by_key.get(&wanted.sticky?)?;
        let serves = backend.is_usable(self.heed(*place, now), now.at)
            && backend.fits(Wish::Awake, wanted.tried, now.at);
        serves.then_some(backend)
    }
}

impl Tier {
    fn new(backends: Vec<Arc<Backend>>, algorithm: &Algorithm) -> Self {
        let seats: Vec<Seat<'_>> = backends
            .iter()
            .map(|backend| Seat { id: backend.label(), weight: backend.weight() })
            .collect();
        let balancer = Balancer::new(algorithm, &seats);
        let prospects = backends.iter().map(|backend| backend.prospect().clone()).collect();
        Self { backends, prospects, balancer, survey: Survey::default() }
    }

    fn pick(
        &self,
        wanted: &Wanted<'_>,
        wish: Wish,
        heed: Heed,
        news: &News,
        now: &Now,
    ) -> Option<&Arc<Backend>> {
        let most = self.readiest(heed, news, now);
        let (backends, prospects) = (&*self.backends, &*self.prospects);
        let tried = wanted.tried;
        let candidates = Candidates { backends, prospects, tried, wish, heed, now, most };
        let is_again = !wanted.tried.is_empty();
        let ask = Ask { random: wanted.random, hash: wanted.hash, is_again };
        self.balancer.pick(&ask, &candidates).and_then(|index| self.backends.get(index))
    }

    /// Whether there are any that are wanted, and so many of them are well that they are believed.
    fn has_enough(&self, news: u64, now: &Now) -> bool {
        self.survey.enough(news, millis(now.at), || self.count(now))
    }

    /// The same, from each of them; and until when in milliseconds it holds if nothing happens.
    #[cold]
    fn count(&self, now: &Now) -> (bool, u64) {
        let (mut all, mut well, mut until) = (0_u64, 0_u64, u64::MAX);
        for backend in self.backends.iter().filter(|backend| backend.is_wanted()) {
            all += 1;
            match backend.record().out_until(now.at) {
                Some(back) => until = until.min(millis(back)),
                None => well += u64::from(backend.is_free()),
            }
        }
        (all > 0 && well * 100 >= all * u64::from(now.panic_threshold), until)
    }

    /// How ready the readiest of those is that health lets have requests: what the others are is a share of that. Where
    /// all came up together none is passed over, and each choice is one.
    fn readiest(&self, heed: Heed, news: &News, now: &Now) -> u32 {
        if heed == Heed::Panic || now.slow_start.is_zero() {
            return READY;
        }
        let oldest = self.survey.oldest(news.number(), || self.first_up());
        readiness(oldest, now.slow_start, now.at)
    }

    /// When in milliseconds the first of those came up that get requests, apart from what passes with time.
    #[cold]
    fn first_up(&self) -> u64 {
        let gets = |backend: &&Arc<Backend>| backend.is_free() && backend.weight() > 0;
        let since = self.backends.iter().filter(gets).map(|backend| backend.up_since());
        since.min().unwrap_or_default()
    }
}

impl balance::Peers for Candidates<'_> {
    fn is_usable(&self, index: usize) -> bool {
        let Some(prospect) = self.prospects.get(index) else { return false };
        if !prospect.is_usable(self.heed, self.now.at) {
            return false;
        }
        // Nearly always nothing was tried, and the backend itself is not looked at.
        match self.wish {
            Wish::Rested if self.tried.is_empty() => prospect.is_rested(self.now.at),
            Wish::Awake if self.tried.is_empty() => prospect.is_awake(self.now.at),
            wish @ (Wish::Rested | Wish::Awake | Wish::Untried | Wish::Any) => {
                let fits = |one: &Arc<Backend>| one.fits(wish, self.tried, self.now.at);
                self.backends.get(index).is_some_and(fits)
            }
        }
    }

    fn in_flight(&self, index: usize) -> u32 {
        self.prospects.get(index).map_or(u32::MAX, Prospect::in_flight)
    }

    fn cost(&self, index: usize) -> u64 {
        self.prospects.get(index).map_or(u64::MAX, |prospect| prospect.cost(self.now.at))
    }

    fn readiness(&self, index: usize) -> u32 {
        let Some(prospect) = self.prospects.get(index) else { return 0 };
        let readiness = prospect.readiness(self.now.slow_start, self.now.at);
        if self.most >= READY {
            return readiness;
        }
        // Who came up since is told of by news that this request may have come before.
        (readiness * READY / self.most.max(1)).min(READY)
    }
}

#[cfg(test)]
#[path = "group_tests.rs"]
mod tests;
