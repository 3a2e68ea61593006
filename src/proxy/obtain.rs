//! Obtains the answer to a request that may be answered from the store: from there, or by a fetch
//! that all who ask for the same share.

use std::sync::Arc;
use std::time::Instant;
use std::time::SystemTime;

use http::StatusCode;
use pingora::ErrorSource;
use pingora::Result;
use pingora_proxy::Session;
use tokio::sync::mpsc::Receiver;

use crate::cache::Policy;
use crate::cache::Ranges;
use crate::cache::course;
use crate::cache::course::Stored;
use crate::cache::course::Way;
use crate::cache::freshness::Life;
use crate::cache::freshness::Restraint;
use crate::cache::reuse::Origin;
use crate::cache::reuse::Reuse;
use crate::cache::reuse::may_serve;
use crate::cache::status::Outcome;
use crate::proxy::answer;
use crate::proxy::context::RequestCtx;
use crate::proxy::errand;
use crate::proxy::errand::Handed;
use crate::proxy::lookup;
use crate::proxy::parts;
use crate::proxy::parts::Next;
use crate::proxy::serve;
use crate::proxy::sliced;
use crate::proxy::sliced::Sliced;
use crate::proxy::store;
use crate::refusal::Refusal;
use crate::storage::flights::Flight;
use crate::storage::flights::Joined;
use crate::storage::flights::Lead;
use crate::storage::flights::Stage;
use crate::storage::memory::Entry;
use crate::storage::memory::Live;

/// How often a request joins another's fetch that turns out not to answer it, before it asks for
/// itself.
const JOINS: u32 = 3;

/// What the store has.
pub(super) enum Known {
    /// An answer.
    Answer(Arc<Entry>),
    /// An answer, which is to be refreshed meanwhile.
    Outdated(Arc<Entry>),
    /// What has to be confirmed first, or nothing.
    Ask(Option<Arc<Entry>>),
    /// Nothing, and the client wants nothing else.
    NotCached,
}

/// Answers from the store or by a shared fetch. `false`: the request has to ask for itself.
pub(crate) async fn answer(session: &mut Session, ctx: &mut RequestCtx) -> Result<bool> {
    let Some(policy) = ctx.route().map(|route| Arc::clone(&route.cache)) else { return Ok(false) };
    if let Some(size) = policy.key.slice {
        match sliced::answer(session, ctx, &policy, size).await? {
            Sliced::Answered => return Ok(true),
            Sliced::Whole => {}
            Sliced::Pass(course) => {
                sliced::pass(ctx, &course);
                return Ok(false);
            }
        }
    }
    if policy.key.ranges == Ranges::AsAsked
        && let Some(base) = ctx.cache.key.clone()
    {
        match parts::answer(session, ctx, &policy).await? {
            Next::Answered => return Ok(true),
            Next::Whole => {}
            Next::Part => {
                let answered = share(session, ctx, &policy).await?;
                if !answered || ctx.cache.status.detail == Some(store::NOT_A_PIECE) {
                    parts::pass(ctx, &base);
                }
                return Ok(answered);
            }
        }
    }
    share(session, ctx, &policy).await
}

/// Answers from what is stored under the request's key, or by a fetch for all who ask for it.
async fn share(session: &mut Session, ctx: &mut RequestCtx, policy: &Policy) -> Result<bool> {
    let runtime = Arc::clone(&ctx.runtime);
    for _ in 0..JOINS {
        let now = SystemTime::now();
        lookup::settle(ctx);
        let (Some(key), Some(fields)) = (ctx.cache.key.clone(), ctx.cache.fields.clone()) else {
            return Ok(false);
        };
        // Before the store is looked into: what is purged from here on is not what is joined.
        let generation = runtime.memory.generation();
        let found = match look(ctx, policy, now) {
            Known::Answer(entry) => {
                serve::entry(session, ctx, &entry, now).await?;
                return Ok(true);
            }
            Known::Outdated(entry) => {
                if let Some(lead) = runtime.flights.refresh(key.as_bytes(), &fields, generation) {
                    // Dropped, it goes on by itself.
                    drop(errand::begin(session, ctx, lead));
                }
                serve::entry(session, ctx, &entry, now).await?;
                return Ok(true);
            }
            Known::NotCached => {
                answer::refuse(session, ctx, Refusal::NotCached, &[]).await?;
                return Ok(true);
            }
            Known::Ask(found) => found,
        };
        let wait = policy.collapse_wait;
        // What is asked for too seldom is not stored, so that there is nothing to share.
        if ctx.cache.uses.is_some_and(|uses| uses < policy.min_uses) {
            return Ok(false);
        }
        // Nobody else has anything of an answer that the request keeps out of the store.
        if ctx.cache.forbidden.is_some() {
            return Ok(false);
        }
        let unshared = runtime.flights.is_unshared(key.as_bytes(), &fields, Instant::now());
        if wait.is_zero() || unshared {
            return Ok(false);
        }
        let alone = || runtime.flights.alone(key.as_bytes(), generation);
        let joined = match runtime.flights.is_each_ones(key.as_bytes(), Instant::now()) {
            true => Joined::Lead(alone()),
            false => runtime.flights.join(key.as_bytes(), &fields, generation),
        };
        match joined {
            Joined::Lead(lead) => return lead_off(session, ctx, lead, found, policy).await,
            Joined::Follow(flight) => {
                if let Stage::Filling(live) = flight.stage() {
                    // It was asked for before this request came: it has to be as good as stored.
                    let life = life_of(&live, policy);
                    let verdict = may_serve(&life, &ctx.cache.asked, now, Origin::Reachable);
                    if verdict != Reuse::Fresh {
                        return lead_off(session, ctx, alone(), found, policy).await;
                    }
                }
                let turned_out = tokio::time::timeout(wait, flight.turned_out());
                let Ok(stage) = serve::unless_gone(session, turned_out).await? else {
                    // Whoever it is that asks may be slow for a reason of his own.
                    return Ok(false);
                };
                match followed(session, ctx, &flight, stage, found.clone(), policy).await? {
                    Followed::Answered => return Ok(true),
                    Followed::Alone => {
                        return lead_off(session, ctx, alone(), found, policy).await;
                    }
                    Followed::Again => {}
                }
            }
        }
    }
    Ok(false)
}

/// Begins a fetch for this request, and serves what it brings.
async fn lead_off(
    session: &mut Session,
    ctx: &mut RequestCtx,
    lead: Lead,
    found: Option<Arc<Entry>>,
    policy: &Policy,
) -> Result<bool> {
    let flight = Arc::clone(lead.flight());
    let (mut fetch, handed) = errand::begin(session, ctx, lead);
    fetch.beside(lead_on(session, ctx, &flight, handed, found, policy)).await
}

/// The fetch is begun for this request: serves what it hands on, or what it made of the store.
async fn lead_on(
    session: &mut Session,
    ctx: &mut RequestCtx,
    flight: &Flight,
    mut handed: Receiver<Handed>,
    found: Option<Arc<Entry>>,
    policy: &Policy,
) -> Result<bool> {
    loop {
        match serve::unless_gone(session, handed_on(flight, &mut handed)).await? {
            Some(Handed::Interim(response)) => serve::interim(session, response).await?,
            Some(Handed::Response(mut response, rest)) => {
                learn(ctx, flight);
                parts::restore(ctx, &mut response)?;
                let served = serve::handed(session, ctx, response, rest).await;
                return ended(ctx, flight, served).await;
            }
            None => break,
        }
    }
    learn(ctx, flight);
    led(session, ctx, flight, found, policy).await
}

/// What the fetch hands on next; `None` once it is known that its response is not handed on.
pub(super) async fn handed_on(flight: &Flight, handed: &mut Receiver<Handed>) -> Option<Handed> {
    tokio::select! {
        biased;
        handed = handed.recv() => handed,
        stage = flight.turned_out() => match stage {
            Stage::Unshared => handed.recv().await,
            Stage::Asking | Stage::Filling(_) | Stage::Confirmed(_) | Stage::Failed => None,
        },
    }
}

/// The fetch was begun for this request, and nothing was handed on.
async fn led(
    session: &mut Session,
    ctx: &mut RequestCtx,
    flight: &Flight,
    found: Option<Arc<Entry>>,
    policy: &Policy,
) -> Result<bool> {
    let reading = match flight.stage() {
        Stage::Filling(live) => flight.first_reader().map(|reader| (live, reader)),
        Stage::Confirmed(entry) => {
            let served = serve::entry(session, ctx, &entry, SystemTime::now()).await;
            return ended(ctx, flight, served).await;
        }
        Stage::Asking | Stage::Unshared | Stage::Failed => None,
    };
    let Some((live, reader)) = reading else {
        // Also what was cut before anything of it was sent.
        flight.over().await;
        failed(session, ctx, flight, found, policy).await?;
        return Ok(true);
    };
    let served = serve::live(session, ctx, &live, reader, SystemTime::now()).await;
    ended(ctx, flight, served).await
}

/// After its response: the fetch is waited for, so that the connection to the origin is free for what
/// the client asks next, and so that what went wrong is known.
async fn ended(ctx: &mut RequestCtx, flight: &Flight, served: Result<()>) -> Result<bool> {
    match served {
        Ok(()) => {
            flight.over().await;
            Ok(true)
        }
        Err(error) if error.esource() == &ErrorSource::Upstream => {
            flight.over().await;
            ctx.refusal = flight.told().refusal.or(ctx.refusal);
            Err(error)
        }
        Err(error) => Err(error),
    }
}

/// What another's fetch came to for a request that waited for it.
enum Followed {
    /// It is answered.
    Answered,
    /// It was for others: the next fetch may be for it.
    Again,
    /// No fetch of another's answers it: each has to be confirmed for itself.
    Alone,
}

/// Another's fetch turned out thus.
async fn followed(
    session: &mut Session,
    ctx: &mut RequestCtx,
    flight: &Flight,
    stage: Stage,
    found: Option<Arc<Entry>>,
    policy: &Policy,
) -> Result<Followed> {
    let Some(fields) = ctx.cache.fields.clone() else { return Ok(Followed::Again) };
    let now = SystemTime::now();
    // RFC 9111 §4: what may not be reused without being confirmed is not for those who wait either.
    let may_have = |ctx: &RequestCtx, life: &Life| match may_serve(
        life,
        &ctx.cache.asked,
        now,
        Origin::Reachable,
    ) {
        Reuse::Fresh | Reuse::Stale(_) => true,
        Reuse::Revalidate(_) | Reuse::MustNot(_) => false,
    };
    let collapsed = |ctx: &mut RequestCtx| ctx.cache.status = ctx.cache.status.collapsed();
    match stage {
        Stage::Filling(live) if live.selects(&fields) => {
            if !may_have(ctx, &life_of(&live, policy)) {
                return Ok(Followed::Alone);
            }
            let Some(reader) = live.reader() else { return Ok(Followed::Again) };
            answered(ctx, flight);
            collapsed(ctx);
            let served = serve::live(session, ctx, &live, reader, now).await;
            ended(ctx, flight, served).await?;
            Ok(Followed::Answered)
        }
        Stage::Confirmed(entry) if entry.selects(&fields) => {
            if !may_have(ctx, &store::life_of(&entry, policy)) {
                return Ok(Followed::Alone);
            }
            ctx.cache.outcome = Some(Outcome::Revalidated);
            answered(ctx, flight);
            collapsed(ctx);
            serve::entry(session, ctx, &entry, now).await?;
            Ok(Followed::Answered)
        }
        Stage::Failed => {
            ctx.refusal = flight.told().refusal;
            collapsed(ctx);
            failed(session, ctx, flight, found, policy).await?;
            Ok(Followed::Answered)
        }
        Stage::Filling(_) | Stage::Confirmed(_) | Stage::Unshared | Stage::Asking => {
            Ok(Followed::Again)
        }
    }
}

/// The life of what is being stored.
pub(super) fn life_of(live: &Live, policy: &Policy) -> Life {
    store::life(live.status(), Restraint::of(live.headers()), &live.times(), policy)
}

/// There is no response: what is stored is served if its windows allow, or else the failure is.
async fn failed(
    session: &mut Session,
    ctx: &mut RequestCtx,
    flight: &Flight,
    found: Option<Arc<Entry>>,
    policy: &Policy,
) -> Result<()> {
    if let Some(entry) = found
        && let Some(detail) = serves_stale(ctx, &entry, policy)
    {
        ctx.refusal = None;
        ctx.cache.stale_after(answered_by(flight), detail);
        return serve::entry(session, ctx, &entry, SystemTime::now()).await;
    }
    let refusal = flight.told().refusal.unwrap_or(Refusal::OriginClosed);
    answer::refuse(session, ctx, refusal, &[]).await
}

/// Whether what is stored may serve although the origin failed, and by which window.
pub(super) fn serves_stale(
    ctx: &RequestCtx,
    entry: &Entry,
    policy: &Policy,
) -> Option<Option<&'static str>> {
    let life = store::life_of(entry, policy);
    match may_serve(&life, &ctx.cache.asked, SystemTime::now(), Origin::Failing) {
        Reuse::Fresh => Some(None),
        Reuse::Stale(window) => Some(Some(window.label())),
        Reuse::Revalidate(_) | Reuse::MustNot(_) => None,
    }
}

/// Looks into the store and judges what is there.
pub(super) fn look(ctx: &mut RequestCtx, policy: &Policy, now: SystemTime) -> Known {
    let runtime = Arc::clone(&ctx.runtime);
    let (Some(key), Some(fields)) = (&ctx.cache.key, &ctx.cache.fields) else {
        return Known::Ask(None);
    };
    let failing = runtime.flights.is_failing(key.as_bytes(), Instant::now());
    let origin = if failing { Origin::Failing } else { Origin::Reachable };
    let entry = runtime.memory.lookup(key.as_bytes(), Some(fields), now);
    let life = entry.as_ref().map(|entry| store::life_of(entry, policy));
    let stored = match &life {
        Some(life) => Stored::Selected(life),
        None if lookup::has_variants(ctx) => Stored::OtherVariants,
        None => Stored::Nothing,
    };
    let course = course::by_store(stored, &ctx.cache.asked, now, origin);
    if entry.is_none() && policy.min_uses > 1 && ctx.cache.uses.is_none() {
        ctx.cache.uses = Some(runtime.uses.count(key.as_bytes(), Instant::now()));
    }
    ctx.cache.take(&course);
    match (course.way, entry) {
        (Way::Serve, Some(entry)) => Known::Answer(entry),
        (Way::ServeAndRefresh, Some(entry)) => Known::Outdated(entry),
        (Way::Refuse, _) => Known::NotCached,
        (Way::Serve | Way::ServeAndRefresh | Way::Ask, entry) => Known::Ask(entry),
    }
}

/// The fetch that was begun for this request is the request's own.
pub(super) fn learn(ctx: &mut RequestCtx, flight: &Flight) {
    let told = flight.told();
    ctx.cache.status = told.status;
    ctx.cache.outcome = told.outcome.or(ctx.cache.outcome);
    ctx.cache.concerns = told.concerns;
    ctx.refusal = told.refusal;
    ctx.origin.upstream = told.origin.upstream;
    ctx.origin.attempts = told.origin.attempts;
    ctx.origin.was_tried_at(told.origin.address);
    ctx.origin.took = told.origin.took;
    ctx.origin.hedge = told.origin.hedge;
    ctx.origin.status = told.origin.status;
    ctx.origin.private = Some(told.private).filter(|fields| !fields.is_empty()).map(Box::new);
    ctx.origin.stick = told.stick;
    ctx.origin.by_errand = true;
}

/// What the origin answered to another counts for this request as well.
pub(super) fn answered(ctx: &mut RequestCtx, flight: &Flight) {
    if let Some(status) = answered_by(flight) {
        ctx.cache.status = ctx.cache.status.with_status(status);
    }
}

/// What the origin answered to a fetch, if it did.
pub(super) fn answered_by(flight: &Flight) -> Option<StatusCode> {
    flight.told().origin.status.and_then(|status| StatusCode::from_u16(status).ok())
}
