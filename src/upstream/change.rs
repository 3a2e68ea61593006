//! What operators change about the backends of a running upstream.
//!
//! Requests choose from a group that never changes, so each change makes a new one: a request that is
//! under way keeps the backend that it has, and no request ever sees half a change.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::Weak;
use std::time::Duration;

use crate::upstream;
use crate::upstream::Place;
use crate::upstream::backend::Backend;
use crate::upstream::backend::Reason;
use crate::upstream::connect::Dials;
use crate::upstream::drift::Adjustment;
use crate::upstream::drift::Drift;
use crate::upstream::drift::Meant;
use crate::upstream::drift::is_same;
use crate::upstream::lease;
use crate::upstream::peer::BuildError;
use crate::upstream::peer::Source;
use crate::upstream::peer::Upstream;
use crate::upstream::peer::Way;
use crate::upstream::peer::fixed;
use crate::upstream::report::Report;

/// Why a change is not made.
#[derive(Debug)]
#[non_exhaustive]
pub enum Refused {
    /// There is no backend of this id.
    Unknown,
    /// There is one of this id already.
    Taken,
    /// The backend of this id is the same one.
    SamePlace(Arc<str>),
    /// It is the only one.
    Last,
    /// It is a service, whose records say the weights.
    Weighed,
    /// Its upstream has no breakers.
    NoBreaker,
    /// This name has no address to go over to.
    Unresolved(String, io::Error),
    /// It did not pass its check, where the one in whose place it was to be is well.
    Unwell(Arc<str>),
    /// It cannot be set up.
    Unusable(BuildError),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("there is no backend of this id"),
            Self::Taken => f.write_str(
                "there is a backend of this id already: choose another id, or change that one",
            ),
            Self::SamePlace(id) => write!(
                f,
                "the backend \"{id}\" is the same one: for a larger share change its weight"
            ),
            Self::Last => f.write_str(
                "it is the only backend of its upstream: add another one first, or drain it",
            ),
            Self::Weighed => f.write_str("its SRV records say the weights"),
            Self::NoBreaker => {
                f.write_str("this upstream has no circuit breakers: `breaker` is off")
            }
            Self::Unresolved(name, e) => {
                write!(f, "\"{name}\" was not resolved, and nothing is changed: {e}")
            }
            Self::Unwell(why) => write!(
                f,
                "it did not pass its check, and nothing is changed, since it is well where it is: {why}"
            ),
            Self::Unusable(e) => write!(f, "it cannot be used: {e}"),
        }
    }
}

impl std::error::Error for Refused {}

/// A backend as it is meant, and what is known of each address that it stands for.
#[derive(Debug, Clone, PartialEq)]
pub struct Standing {
    /// As meant.
    pub meant: Meant,
    /// Its addresses; none as long as its name was not resolved.
    pub reports: Vec<Report>,
}

impl Upstream {
    /// Adds a backend. Its connections find their settings in `dials`.
    ///
    /// One that is a name gets requests after
    /// [`resolve::begin`](crate::upstream::resolve::begin). Reads the file of authorities, if there
    /// is one.
    ///
    /// # Errors
    /// There is one of this id or at this place, or it cannot be set up.
    pub fn add(&self, backend: upstream::Backend, dials: &Dials) -> Result<(), Refused> {
        let mut sources = self.sources.lock();
        if sources.iter().any(|source| source.settings.id == backend.id) {
            return Err(Refused::Taken);
        }
        if let Some(same) = sources.iter().find(|source| is_same(&source.settings, &backend)) {
            return Err(Refused::SamePlace(Arc::clone(&same.settings.id)));
        }
        let addresses = fixed(&backend.at).map_err(Refused::Unusable)?;
        let way = Way::new(self, &backend, &sources, &[]).map_err(Refused::Unusable)?;
        let mut source = Source::new(self, backend, way);
        // Before any request can need it.
        dials.set([&source.dial]);
        source.learn(addresses, self.settings(), self.now());
        sources.push(source);
        self.regroup(&sources);
        Ok(())
    }

    /// Changes a backend, which keeps all that is known of it.
    ///
    /// # Errors
    /// There is none of this id, or a service is to get another weight.
    pub fn adjust(&self, id: &str, adjustment: Adjustment) -> Result<(), Refused> {
        let now = self.now();
        let mut sources = self.sources.lock();
        let source = find(&mut sources, id)?;
        if adjustment.weight.is_some() && matches!(source.settings.at, Place::Service(_)) {
            return Err(Refused::Weighed);
        }
        adjustment.apply(&mut source.settings);
        source.settle(now);
        self.regroup(&sources);
        Ok(())
    }

    /// Gives a backend no more requests, or gives them again; what it has it finishes.
    ///
    /// # Errors
    /// There is none of this id.
    pub fn drain(&self, id: &str, draining: bool) -> Result<(), Refused> {
        let now = self.now();
        let mut sources = self.sources.lock();
        let source = find(&mut sources, id)?;
        source.draining = draining;
        for backend in &source.backends {
            if backend.set(Reason::Draining, draining) && !draining {
                backend.came_up(now);
            }
        }
        drop(sources);
        Ok(())
    }

    /// Removes a backend; what it has it finishes.
    ///
    /// # Errors
    /// There is none of this id, or no other.
    pub fn remove(&self, id: &str) -> Result<(), Refused> {
        let mut sources = self.sources.lock();
        find(&mut sources, id)?;
        if sources.len() == 1 {
            return Err(Refused::Last);
        }
        let (gone, stays): (Vec<_>, Vec<_>) =
            sources.drain(..).partition(|source| &*source.settings.id == id);
        *sources = stays;
        self.regroup(&sources);
        self.dismiss(gone, &sources);
        drop(sources);
        Ok(())
    }

    /// No request is lent the backends of these any more, which `stays` are left of; what they have they finish.
    pub(super) fn dismiss(&self, gone: Vec<Source>, stays: &[Source]) {
        let mut leaving = self.leaving.lock();
        leaving.retain(|backend| backend.strong_count() > 0);
        for backend in gone.into_iter().flat_map(|source| source.backends) {
            let mut others = stays.iter().flat_map(|source| &source.backends);
            // Another name may stand for the same address.
            if let Some(dial) = backend.dial()
                && !others.any(|other| Arc::ptr_eq(&other.pool, &backend.pool))
            {
                dial.forget(backend.address());
            }
            leaving.push(Arc::downgrade(&backend));
        }
    }

    /// Closes the breakers of a backend.
    ///
    /// # Errors
    /// There is none of this id, or there are no breakers.
    pub fn reset_breaker(&self, id: &str) -> Result<(), Refused> {
        let mut sources = self.sources.lock();
        let source = find(&mut sources, id)?;
        if self.settings().breaker.is_none() {
            return Err(Refused::NoBreaker);
        }
        for backend in &source.backends {
            lease::reset(self, backend);
        }
        drop(sources);
        Ok(())
    }

    /// What is known of each backend, those without an address among them.
    #[must_use]
    pub fn standings(&self) -> Vec<Standing> {
        let now = self.now();
        let sources = self.sources.lock();
        let of = |source: &Source| Standing {
            meant: source.meant(),
            reports: source.backends.iter().map(|backend| backend.report(now)).collect(),
        };
        sources.iter().map(of).collect()
    }

    /// The backends that were removed, or were where one is no longer, and have something to finish yet.
    #[must_use]
    pub fn leaving(&self) -> Vec<Report> {
        let now = self.now();
        let leaving = self.leaving.lock();
        let busy = leaving.iter().filter_map(Weak::upgrade).filter(|one| one.in_flight() > 0);
        busy.map(|backend: Arc<Backend>| backend.report(now)).collect()
    }

    /// How its backends differ from those of the configuration.
    #[must_use]
    pub fn drift(&self) -> Drift {
        let meant: Vec<Meant> = self.sources.lock().iter().map(Source::meant).collect();
        Drift::between(&self.settings().backends, &meant)
    }
}

impl Source {
    /// Has its backends get requests as they are meant to by now; the group has to be made anew.
    pub(super) fn settle(&self, now: Duration) {
        let settings = &self.settings;
        for backend in &self.backends {
            backend.rank(settings.weight, settings.backup);
            if backend.set(Reason::Inactive, !settings.active) && settings.active {
                backend.came_up(now);
            }
        }
    }
}

/// The source of this id.
pub(super) fn find<'a>(sources: &'a mut [Source], id: &str) -> Result<&'a mut Source, Refused> {
    sources.iter_mut().find(|source| &*source.settings.id == id).ok_or(Refused::Unknown)
}
