//! From a plan, and what survives of the generation before, to the next generation.
//!
//! What a plan does not change is the same thing in both: upstreams with their connections and all that
//! is known of their backends, the store, the counters. What it changes is made anew here, and put to use
//! by [`Next::take_over`]: until then a reload can still fail, and has changed nothing.

use std::net::SocketAddr;
use std::sync::Arc;

use log::info;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::config::plan::Plan;
use crate::listen::insist::Insistence;
use crate::observe::access_log::AccessLogger;
use crate::observe::metrics::Gone;
use crate::observe::metrics::Metrics;
use crate::resilience::budget;
use crate::resilience::hedge;
use crate::route::Route;
use crate::route::asking;
use crate::runtime::Draining;
use crate::runtime::Runtime;
use crate::runtime::fellow::Fellows;
use crate::runtime::guarded::Guarded;
use crate::runtime::state::Keeper;
use crate::storage::flights::Flights;
use crate::storage::memory::Memory;
use crate::storage::ranges::AskedRanges;
use crate::storage::uses::Uses;
use crate::storage::variances::Variances;
use crate::tls::store::CertificateStore;
use crate::upstream::connect::Dials;
use crate::upstream::drift::Meant;
use crate::upstream::peer::Upstream;
use crate::upstream::race::Hedging;

/// What every generation of a process has.
pub struct Lasting {
    /// How HTTP/1 connections to origins are made.
    pub dials: Arc<Dials>,
    /// Where changes of backends are kept.
    pub keeper: Arc<Keeper>,
    /// Every metric.
    pub metrics: Arc<Metrics>,
    /// The memory tier.
    pub memory: &'static Memory,
    /// The fetches under way.
    pub flights: Arc<Flights>,
    /// How often what is not stored was asked for.
    pub uses: Arc<Uses>,
    /// The processes beside this one.
    pub fellows: Arc<Fellows>,
    /// Which ranges were asked for.
    pub ranges: Arc<AskedRanges>,
    /// What responses say of queries.
    pub variances: Arc<Variances>,
    /// Whether the process is on its way out.
    pub draining: Arc<Draining>,
}

/// A listener's row in the tables of a generation: its place is the number of its door.
#[derive(Debug, Clone)]
pub struct Row {
    /// The listener's name.
    pub name: Arc<str>,
    /// Its certificates; `None` is plain text.
    pub certificates: Option<Arc<CertificateStore>>,
    /// What it does so that clients come over TLS.
    pub insists: Insistence,
}

/// The upstreams of the next generation, before they are put to use.
pub struct Next {
    /// In the plan's order.
    upstreams: Vec<Arc<Upstream>>,
    /// Those that follow another one, and which.
    follow: Vec<(Arc<Upstream>, Arc<Upstream>)>,
    /// Those that nobody follows.
    gone: Vec<Arc<Upstream>>,
    /// Those that have just begun.
    new: Vec<Arc<Upstream>>,
}

/// A backend whose files cannot be used.
#[derive(Debug)]
pub struct Unusable {
    /// The name of its upstream.
    pub upstream: Arc<str>,
    /// Its id.
    pub backend: Arc<str>,
    /// What is wrong with them.
    pub why: String,
}

impl Next {
    /// The upstreams of the first generation, which begin with the backends that are `meant`.
    ///
    /// # Errors
    /// What is wrong with one of them.
    pub fn first(plan: &Plan, meant: Vec<Vec<Meant>>) -> Result<Self, String> {
        let mut upstreams = Vec::with_capacity(plan.upstreams.len());
        for (settings, meant) in plan.upstreams.iter().zip(meant) {
            let upstream = Upstream::build_as(settings.clone(), meant, Default::default())
                .map_err(|e| format!("upstream \"{}\": {e}", settings.name))?;
            upstreams.push(upstream);
        }
        let new = upstreams.clone();
        Ok(Self { upstreams, follow: Vec::new(), gone: Vec::new(), new })
    }

    /// The upstreams that the generation before had, and this one has not.
    #[must_use]
    pub fn gone(&self) -> &[Arc<Upstream>] {
        &self.gone
    }

    /// The upstreams of the generation that follows `before`. Reads the files that they name.
    ///
    /// # Errors
    /// What is wrong with one of them.
    pub fn after(before: &Runtime, plan: &Plan) -> Result<Self, String> {
        let mut next = Self {
            upstreams: Vec::with_capacity(plan.upstreams.len()),
            follow: Vec::new(),
            gone: Vec::new(),
            new: Vec::new(),
        };
        for settings in &plan.upstreams {
            let wrong = |e| format!("upstream \"{}\": {e}", settings.name);
            let of_name = |one: &&Arc<Upstream>| one.settings().name == settings.name;
            let upstream = match before.upstreams.iter().find(of_name) {
                Some(same) if same.is_as(settings) => Arc::clone(same),
                Some(old) => {
                    let (new, moot) =
                        old.followed_by(settings.clone(), Default::default()).map_err(wrong)?;
                    for (backend, moot) in moot {
                        info!(target: "edgeproxy::state", upstream = &*settings.name,
                            backend = &*backend, reason = moot.reason();
                            "a change at run time is obsolete");
                    }
                    next.follow.push((Arc::clone(&new), Arc::clone(old)));
                    next.new.push(Arc::clone(&new));
                    new
                }
                None => {
                    let new = Upstream::build(settings.clone(), Default::default());
                    let new = new.map_err(wrong)?;
                    next.new.push(Arc::clone(&new));
                    new
                }
            };
            next.upstreams.push(upstream);
        }
        let stays = |name: &Arc<str>| plan.upstreams.iter().any(|settings| settings.name == *name);
        let gone = before.upstreams.iter().filter(|old| !stays(&old.settings().name));
        next.gone = gone.cloned().collect();
        Ok(next)
    }

    /// The upstreams of `before`, those among them made anew whose files hold something else now. A backend whose
    /// files cannot be used goes on as it is.
    #[must_use]
    pub fn renewed(before: &Runtime) -> (Self, Vec<Unusable>) {
        let (gone, new) = (Vec::new(), Vec::new());
        let mut next = Self { upstreams: Vec::new(), follow: Vec::new(), gone, new };
        let mut unusable = Vec::new();
        for old in &before.upstreams {
            let settings = old.settings();
            if old.is_as(settings) {
                next.upstreams.push(Arc::clone(old));
                continue;
            }
            let renewed = old.renewed(Default::default());
            let name = &settings.name;
            unusable.extend(renewed.refused.into_iter().map(|(backend, e)| Unusable {
                upstream: Arc::clone(name),
                backend,
                why: e.to_string(),
            }));
            match renewed.next {
                Some(new) => {
                    next.follow.push((Arc::clone(&new), Arc::clone(old)));
                    next.new.push(Arc::clone(&new));
                    next.upstreams.push(new);
                }
                None => next.upstreams.push(Arc::clone(old)),
            }
        }
        (next, unusable)
    }

    /// The names of those that go on otherwise than before.
    pub fn changed(&self) -> impl Iterator<Item = &str> {
        self.follow.iter().map(|(new, _)| &*new.settings().name)
    }

    /// Begins all that goes on beside the requests of those that are new; returns when enough is known of
    /// them to serve, after a few seconds at the latest. `demo` is where the demo origin is.
    pub async fn start(&self, dials: &Dials, demo: Option<SocketAddr>) {
        let mut starting = JoinSet::new();
        for upstream in self.new.iter().map(Arc::clone) {
            if let Some(address) = demo {
                upstream.set_demo(address);
            }
            dials.set(&upstream.dials());
            starting.spawn(async move { upstream.start().await });
        }
        starting.join_all().await;
    }

    /// From now on these upstreams are in use, and those before finish what they have.
    pub fn take_over(&self) {
        for (new, old) in &self.follow {
            new.take_over(old);
        }
        for old in &self.gone {
            old.retire();
        }
    }
}

impl Runtime {
    /// The generation of `plan`, the first one or the one after `before`.
    #[must_use]
    pub fn new(
        plan: Plan,
        before: Option<&Self>,
        next: &Next,
        rows: &[Row],
        access_log: Arc<AccessLogger>,
        lasting: &Lasting,
    ) -> Self {
        let metrics = &lasting.metrics;
        let listeners: Vec<&str> = rows.iter().map(|row| &*row.name).collect();
        let routes: Vec<&str> = plan.routes.routes().iter().map(|route| &*route.name).collect();
        Self {
            upstreams: next.upstreams.clone(),
            hedging: hedging(plan.routes.routes(), before),
            mirrors: mirrors(plan.routes.routes(), before),
            dials: Arc::clone(&lasting.dials),
            keeper: Arc::clone(&lasting.keeper),
            routes: metrics.routes(&listeners, &routes),
            listener_metrics: listeners.iter().map(|name| metrics.listener(name)).collect(),
            upstream_metrics: plan.upstreams.iter().map(|u| metrics.upstream(&u.name)).collect(),
            metrics: Arc::clone(metrics),
            memory: lasting.memory,
            flights: Arc::clone(&lasting.flights),
            uses: Arc::clone(&lasting.uses),
            fellows: Arc::clone(&lasting.fellows),
            ranges: Arc::clone(&lasting.ranges),
            variances: Arc::clone(&lasting.variances),
            certificates: rows.iter().map(|row| row.certificates.clone()).collect(),
            listener_names: rows.iter().map(|row| Arc::clone(&row.name)).collect(),
            insists: rows.iter().map(|row| row.insists.clone()).collect(),
            guarded: Guarded::of(&plan),
            access_log,
            draining: Arc::clone(&lasting.draining),
            plan,
        }
    }

    /// Forgets the counters of what `before` had and this generation does not; listeners whose connections
    /// have not all ended are among its rows.
    pub fn forget(&self, before: &Self, rows: (&[Row], &[Row])) {
        fn gone<'a>(
            old: impl Iterator<Item = &'a str>,
            new: impl Iterator<Item = &'a str>,
        ) -> Vec<&'a str> {
            let new: std::collections::HashSet<&str> = new.collect();
            old.filter(|name| !new.contains(name)).collect()
        }
        fn upstreams(plan: &Plan) -> impl Iterator<Item = &str> {
            plan.upstreams.iter().map(|one| &*one.name)
        }
        fn routes(plan: &Plan) -> impl Iterator<Item = &str> {
            plan.routes.routes().iter().map(|one| &*one.name)
        }
        let (old, new) = rows;
        self.metrics.forget(&Gone {
            listeners: &gone(old.iter().map(|r| &*r.name), new.iter().map(|r| &*r.name)),
            upstreams: &gone(upstreams(&before.plan), upstreams(&self.plan)),
            routes: &gone(routes(&before.plan), routes(&self.plan)),
        });
    }
}

/// The hedging of each of these routes. One that is meant as in the generation `before` goes on with what it
/// knows.
fn hedging(routes: &[Route], before: Option<&Runtime>) -> Vec<Option<Arc<Hedging>>> {
    let one = |route: &Route| {
        let hedge = route.asking.hedge?;
        let known = before_it(route, before).filter(|(old, _)| old.asking.hedge == Some(hedge));
        if let Some((at, before)) = known.map(|(_, place)| place) {
            return before.hedging[at].clone();
        }
        let asking::Hedge { percentile, at_least, window, min_requests, budget } = hedge;
        Some(Hedging::new(hedge::Settings {
            quantile: percentile * 10,
            at_least,
            window,
            samples: min_requests,
            budget: budget::Settings { percent: budget, minimum: 0 },
        }))
    };
    routes.iter().map(one).collect()
}

/// The places for copies of the requests of each of these routes: those of the generation `before`, where
/// there are as many.
fn mirrors(routes: &[Route], before: Option<&Runtime>) -> Vec<Option<Arc<Semaphore>>> {
    let one = |route: &Route| {
        let places = route.asking.mirror?.at_once;
        let as_many = |old: &Route| old.asking.mirror.is_some_and(|old| old.at_once == places);
        let known = before_it(route, before).filter(|(old, _)| as_many(old));
        if let Some((at, before)) = known.map(|(_, place)| place) {
            return before.mirrors[at].clone();
        }
        Some(Arc::new(Semaphore::new(usize::try_from(places).unwrap_or(usize::MAX))))
    };
    routes.iter().map(one).collect()
}

/// The route of the same name in the generation before, and its place there.
fn before_it<'a>(
    route: &Route,
    before: Option<&'a Runtime>,
) -> Option<(&'a Route, (usize, &'a Runtime))> {
    let before = before?;
    let mut routes = before.plan.routes.routes().iter().enumerate();
    let (at, old) = routes.find(|(_, old)| old.name == route.name)?;
    Some((old, (at, before)))
}
