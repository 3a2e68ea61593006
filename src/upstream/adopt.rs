//! A reload: an upstream that goes on where another one was.
//!
//! A request keeps the upstream that it began with, so a reload never changes one: it makes another. What is
//! known of a backend that stays (the same id, the same place, spoken to alike) is shared by both: its
//! requests in flight, its latency, its health, its breaker, its connections. Nothing is touched before
//! [`take_over`](Upstream::take_over), so that a reload that fails in between has changed nothing.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Weak;
use std::time::Duration;

use crate::message::reply::ReplyLimits;
use crate::resilience::budget::Budget;
use crate::resilience::ejection::Ward;
use crate::resilience::limit::Limit;
use crate::upstream::OriginTls;
use crate::upstream::Settings;
use crate::upstream::backend::Backend;
use crate::upstream::backend::Reason;
use crate::upstream::connect::Dial;
use crate::upstream::drift::Drift;
use crate::upstream::drift::Meant;
use crate::upstream::drift::Overtaken;
use crate::upstream::drift::is_same;
use crate::upstream::eject;
use crate::upstream::health;
use crate::upstream::lease;
use crate::upstream::pattern;
use crate::upstream::peer::BuildError;
use crate::upstream::peer::Source;
use crate::upstream::peer::Upstream;
use crate::upstream::peer::Way;

/// What an upstream takes over from the one before: whatever is meant as it was there.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) budget: Option<Arc<Budget>>,
    pub(super) limit: Option<Arc<Limit>>,
    pub(super) ward: Option<Arc<Ward>>,
}

/// What comes of reading the files of an upstream again.
#[derive(Debug)]
pub struct Renewed {
    /// What follows it; `None`: nothing that can be used has changed.
    pub next: Option<Arc<Upstream>>,
    /// The backends whose files cannot be used, and why.
    pub refused: Vec<(Arc<str>, BuildError)>,
}

impl Kept {
    pub(super) fn of(before: Option<&Upstream>, settings: &Settings) -> Self {
        let Some(before) = before else {
            return Self { budget: None, limit: None, ward: None };
        };
        let was = &before.settings;
        let same = was.retry.budget == settings.retry.budget;
        let budget = same.then(|| Arc::clone(&before.budget));
        let limit = before.limit.as_ref().filter(|_| was.concurrency == settings.concurrency);
        let rule = |settings: &Settings| settings.ejection.as_ref().map(|one| one.settings.clone());
        let ward = before.ward.as_ref().zip(rule(settings)).map(|(ward, settings)| {
            match *ward.settings() == settings {
                true => Arc::clone(ward),
                false => Arc::new(ward.followed_by(settings)),
            }
        });
        Self { budget, limit: limit.cloned(), ward }
    }
}

impl Upstream {
    /// The upstream of `settings`, as one that goes on where this one is: with what operators changed about
    /// its backends, as far as the configuration has not overtaken it. Says what it has overtaken. For
    /// this one nothing changes yet.
    ///
    /// Reads the files of authorities that it names.
    ///
    /// # Errors
    /// As [`build`](Self::build).
    pub fn followed_by(
        &self,
        settings: Settings,
        limits: ReplyLimits,
    ) -> Result<(Arc<Self>, Overtaken), BuildError> {
        let meant: Vec<Meant> = self.sources.lock().iter().map(Source::meant).collect();
        let drift = Drift::between(&self.settings.backends, &meant);
        let (meant, moot) = drift.over(&settings.backends);
        let next = Self::build_from(settings, meant, limits, Some(self), |_, error| Err(error))?;
        Ok((next, moot))
    }

    /// The same upstream, as one that goes on where this one is, with what the files that it names for TLS hold now. A
    /// backend whose files cannot be used is spoken to as before. For this one nothing changes yet.
    #[must_use]
    pub fn renewed(&self, limits: ReplyLimits) -> Renewed {
        let meant: Vec<Meant> = self.sources.lock().iter().map(Source::meant).collect();
        let mut refused = Vec::new();
        let settings = self.settings.clone();
        let next = Self::build_from(settings, meant, limits, Some(self), |one, error| {
            let Some(way) = self.way_to(&one.id) else { return Err(error) };
            refused.push((Arc::clone(&one.id), error));
            Ok(way)
        });
        // Without a change that can be used there is nothing to go over to.
        let next = match next {
            Ok(next) if next.speaks_as(self) => None,
            Ok(next) => Some(next),
            Err(error) => {
                refused.push((Arc::clone(&self.settings.name), error));
                None
            }
        };
        Renewed { next, refused }
    }

    /// Whether `settings` would make the same upstream: nothing of them is different, and the files that
    /// they name for TLS hold what they held.
    #[must_use]
    pub fn is_as(&self, settings: &Settings) -> bool {
        if self.settings != *settings {
            return false;
        }
        self.sources.lock().iter().all(|source| {
            let tls = source.settings.tls.as_ref();
            let reads = tls.is_some_and(|tls| tls.files().next().is_some());
            !reads || pattern::group_key(settings, tls, &source.settings.at) == source.key()
        })
    }

    /// The files that it was built from.
    #[must_use]
    pub fn files(&self) -> Vec<PathBuf> {
        let sources = self.sources.lock();
        let spoken = sources.iter().filter_map(|source| source.settings.tls.as_ref());
        spoken.flat_map(OriginTls::files).cloned().collect()
    }

    /// From now on requests are lent the backends of this upstream, and not those of `before`, which it
    /// follows: what those have they finish.
    pub fn take_over(self: &Arc<Self>, before: &Self) {
        before.rest();
        self.is_newest();
        let now = self.now();
        let (read, pool) = (self.settings.timeouts.read, self.settings.pool);
        let breaker = self.settings.breaker.as_ref().map(|breaker| &breaker.settings);
        let dials = self.dials();
        for dial in &dials {
            dial.adjust(read, pool);
        }
        let sources = self.sources.lock();
        let mut stays: Vec<Arc<Backend>> = Vec::new();
        for source in sources.iter() {
            for backend in &source.backends {
                backend.takes_over(pool, breaker);
                if backend.set(Reason::Inactive, !source.settings.active) && source.settings.active
                {
                    backend.came_up(now);
                }
                backend.set(Reason::Draining, source.draining);
                stays.push(Arc::clone(backend));
            }
        }
        drop(sources);
        // What is found out yet is as good as what would be asked again.
        before.keeps_beginning(|one| {
            stays.iter().any(|same| same.is_the_same_as(one) && same.is_checked_as(one))
        });
        self.beginning.lock().append(&mut before.beginning.lock());
        let mut leaving: Vec<Weak<Backend>> = std::mem::take(&mut before.leaving.lock());
        if self.ward.is_none()
            && let Some(ward) = &before.ward
        {
            ward.retire();
        }
        for gone in before.all_backends() {
            if let Some(same) = stays.iter().find(|one| one.is_the_same_as(&gone)) {
                self.lets_go(same, &gone, now);
                continue;
            }
            if let Some(dial) = gone.dial()
                && !stays.iter().any(|one| Arc::ptr_eq(&one.pool, &gone.pool))
            {
                dial.forget(gone.address());
            }
            leaving.push(Arc::downgrade(&gone));
        }
        leaving.retain(|backend| backend.strong_count() > 0);
        self.leaving.lock().append(&mut leaving);
        for dial in before.dials() {
            if !dials.iter().any(|stays| Arc::ptr_eq(stays, &dial)) {
                dial.retire();
            }
        }
    }

    /// What kept requests from `gone`, and `stays`, which follows it, does not have any more, does so no longer.
    fn lets_go(&self, stays: &Backend, gone: &Backend, now: Duration) {
        if stays.breaker().is_none() {
            lease::switched_off(self, gone);
        }
        if self.ward.is_none() {
            eject::forgive(self, stays, now);
        }
        if stays.checks.is_none() {
            health::switched_off(self, stays, now);
        }
    }

    /// No request is lent its backends any more, and nothing follows it.
    pub fn retire(&self) {
        self.rest();
        self.keeps_beginning(|_| false);
        self.dials().iter().for_each(|dial| Dial::retire(dial));
    }

    /// The backends that `source` goes on from: those of the one of the same id, at the same place, spoken
    /// to alike.
    pub(super) fn backends_of(&self, source: &Source) -> Vec<Arc<Backend>> {
        let sources = self.sources.lock();
        let is = |one: &&Source| {
            one.settings.id == source.settings.id
                && is_same(&one.settings, &source.settings)
                && one.key() == source.key()
        };
        sources.iter().find(is).map(|one| one.backends.clone()).unwrap_or_default()
    }

    /// How the backend of this id is spoken to.
    fn way_to(&self, id: &str) -> Option<Way> {
        let sources = self.sources.lock();
        let source = sources.iter().find(|source| *source.settings.id == *id)?;
        Some(Way { pattern: source.pattern.clone(), dial: Arc::clone(&source.dial) })
    }

    /// Whether each backend is spoken to as it is by `other`, which has the same ones.
    fn speaks_as(&self, other: &Self) -> bool {
        let keys = |of: &Self| -> Vec<u64> { of.sources.lock().iter().map(Source::key).collect() };
        keys(self) == keys(other)
    }

    /// The backends of all sources, those that share an address with another among them.
    fn all_backends(&self) -> Vec<Arc<Backend>> {
        self.sources.lock().iter().flat_map(|source| source.backends.iter().cloned()).collect()
    }
}

impl Source {
    /// What tells connections apart that cannot stand for each other.
    pub(super) fn key(&self) -> u64 {
        self.pattern.group_key
    }
}
