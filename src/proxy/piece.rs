//! One piece of a large object: from the store, or by a fetch that all who want it share.

use std::sync::Arc;
use std::time::Instant;
use std::time::SystemTime;

use http::StatusCode;
use pingora::Result;
use pingora::http::ResponseHeader;
use pingora_proxy::Session;
use tokio::sync::mpsc::Receiver;

use crate::cache::Policy;
use crate::cache::key::Key;
use crate::cache::reuse::Origin;
use crate::cache::reuse::Reuse;
use crate::cache::reuse::may_serve;
use crate::cache::slice::Piece;
use crate::cache::slice::Version;
use crate::cache::status::Outcome;
use crate::proxy::context::RequestCtx;
use crate::proxy::errand;
use crate::proxy::errand::Fetch;
use crate::proxy::errand::Handed;
use crate::proxy::errand::Rest;
use crate::proxy::obtain;
use crate::proxy::obtain::Known;
use crate::proxy::serve;
use crate::refusal::Refusal;
use crate::storage::flights::Flight;
use crate::storage::flights::Joined;
use crate::storage::flights::Stage;
use crate::storage::memory::Entry;
use crate::storage::memory::Live;
use crate::storage::memory::LiveReader;

/// How often a fetch of another is joined that turns out not to bring the piece.
const JOINS: u32 = 3;
/// The same behind a header that was sent: to give up cuts the answer.
const LATER_JOINS: u32 = 64;

/// How a piece was come by.
pub(super) enum Got {
    /// From the store, or confirmed by the origin.
    Stored(Arc<Entry>),
    /// It is arriving.
    Arriving(Arriving),
    /// An answer that is not stored, for this request alone.
    Handed(Box<ResponseHeader>, Rest, Fetch),
    /// The fetch failed, and nothing stale may serve.
    Failed(Refusal),
    /// It is not stored, and the client wants nothing else.
    NotCached,
    /// It was not asked for often enough yet to be stored.
    Rare,
    /// It is not to be stored, or another's fetch takes too long.
    Alone,
    /// What was answered to the request for it was not stored lately.
    Unshared,
}

/// A piece that is being stored.
pub(super) struct Arriving {
    pub(super) live: Arc<Live>,
    pub(super) reader: LiveReader,
    /// The fetch, where this request began it.
    pub(super) fetch: Option<(Fetch, Arc<Flight>)>,
}

/// Which piece of an answer is asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// The one that says what the object is; what is learned of it is told of the request.
    First,
    /// Any other.
    Later,
}

impl Got {
    /// The version of the object that the piece is of.
    pub(super) fn version(&self) -> Option<Version> {
        match self {
            Self::Stored(entry) => Version::of(&entry.headers()),
            Self::Arriving(arriving) => Version::of(arriving.live.headers()),
            // It is not stored, and this request's alone. Only a piece has a Content-Range (see `receive`).
            Self::Handed(response, ..) if is_a_piece(response.status) => {
                Version::of(&response.headers)
            }
            Self::Handed(..)
            | Self::Failed(_)
            | Self::NotCached
            | Self::Rare
            | Self::Alone
            | Self::Unshared => None,
        }
    }
}

/// Whether a response with this status may be a piece: 200 is how the store knows it.
fn is_a_piece(status: StatusCode) -> bool {
    matches!(status, StatusCode::OK | StatusCode::PARTIAL_CONTENT)
}

/// Takes a piece from the store, or takes part in its fetch.
pub(super) async fn take(
    session: &mut Session,
    ctx: &mut RequestCtx,
    policy: &Policy,
    (base, piece): (&Key, Piece),
    turn: Turn,
) -> Result<Got> {
    let told = (ctx.cache.status, ctx.cache.outcome, ctx.refusal);
    ctx.cache.key = Some(base.piece(piece));
    ctx.cache.piece = Some(piece);
    if turn == Turn::Later {
        // What its beginning was asked for often enough for is stored whole.
        ctx.cache.uses = Some(u32::MAX);
    }
    let got = fetched(session, ctx, policy, turn).await;
    ctx.cache.key = Some(base.clone());
    ctx.cache.piece = None;
    if turn == Turn::Later {
        (ctx.cache.status, ctx.cache.outcome, ctx.refusal) = told;
    }
    got
}

async fn fetched(
    session: &mut Session,
    ctx: &mut RequestCtx,
    policy: &Policy,
    turn: Turn,
) -> Result<Got> {
    let runtime = Arc::clone(&ctx.runtime);
    let joins = match turn {
        Turn::First => JOINS,
        Turn::Later => LATER_JOINS,
    };
    for _ in 0..joins {
        let (Some(key), Some(fields)) = (ctx.cache.key.clone(), ctx.cache.fields.clone()) else {
            return Ok(Got::Alone);
        };
        let now = SystemTime::now();
        // Before the store is looked into: what is purged from here on is not what is joined.
        let generation = runtime.memory.generation();
        let found = match obtain::look(ctx, policy, now) {
            Known::Answer(entry) => return Ok(Got::Stored(entry)),
            Known::Outdated(entry) => {
                if let Some(lead) = runtime.flights.refresh(key.as_bytes(), &fields, generation) {
                    // Dropped, it goes on by itself.
                    drop(errand::begin(session, ctx, lead));
                }
                return Ok(Got::Stored(entry));
            }
            Known::NotCached => return Ok(Got::NotCached),
            Known::Ask(found) => found,
        };
        // What follows a header that was sent has to come, stored or not.
        if turn == Turn::First {
            if ctx.cache.uses.is_some_and(|uses| uses < policy.min_uses) {
                return Ok(Got::Rare);
            }
            if ctx.cache.forbidden.is_some() {
                return Ok(Got::Alone);
            }
            if runtime.flights.is_unshared(key.as_bytes(), &fields, Instant::now()) {
                return Ok(Got::Unshared);
            }
        }
        match runtime.flights.join(key.as_bytes(), &fields, generation) {
            Joined::Lead(lead) => {
                let flight = Arc::clone(lead.flight());
                let (mut fetch, mut handed) = errand::begin(session, ctx, lead);
                let alone = fetch.beside(turned_out(session, &flight, &mut handed, turn)).await?;
                if turn == Turn::First {
                    obtain::learn(ctx, &flight);
                }
                if let Some((response, rest)) = alone {
                    return Ok(Got::Handed(response, rest, fetch));
                }
                return Ok(led(ctx, flight, fetch, found, policy));
            }
            Joined::Follow(flight) => {
                let patience = policy.collapse_wait;
                let waited = tokio::time::timeout(patience, flight.turned_out());
                let waited = match serve::unless_gone(session, waited).await? {
                    Ok(stage) => {
                        let is_filling = matches!(stage, Stage::Filling(_));
                        if let Some(got) = followed(ctx, &flight, stage, found, policy, turn) {
                            return Ok(got);
                        }
                        if !is_filling {
                            continue;
                        }
                        // It may not be read along with, but be confirmed when it is stored: until then, who asks
                        // again would meet it again.
                        let over = tokio::time::timeout(patience, flight.over());
                        serve::unless_gone(session, over).await?
                    }
                    Err(late) => Err(late),
                };
                match (waited, turn) {
                    (Err(_), Turn::First) => return Ok(Got::Alone),
                    (Err(_), Turn::Later) | (Ok(()), Turn::First | Turn::Later) => {}
                }
            }
        }
    }
    Ok(Got::Alone)
}

/// Waits until more is known of a fetch than that the origin was asked; what is not stored is handed on.
async fn turned_out(
    session: &mut Session,
    flight: &Flight,
    handed: &mut Receiver<Handed>,
    turn: Turn,
) -> Result<Option<(Box<ResponseHeader>, Rest)>> {
    loop {
        match serve::unless_gone(session, obtain::handed_on(flight, handed)).await? {
            // Nothing interim follows a header that was sent.
            Some(Handed::Interim(_)) if turn == Turn::Later => {}
            Some(Handed::Interim(response)) => serve::interim(session, response).await?,
            Some(Handed::Response(response, rest)) => return Ok(Some((response, rest))),
            None => return Ok(None),
        }
    }
}

/// What the fetch made of the store that was begun for this request.
fn led(
    ctx: &mut RequestCtx,
    flight: Arc<Flight>,
    fetch: Fetch,
    found: Option<Arc<Entry>>,
    policy: &Policy,
) -> Got {
    match flight.stage() {
        Stage::Filling(live) => match flight.first_reader().or_else(|| live.reader()) {
            Some(reader) => Got::Arriving(Arriving { live, reader, fetch: Some((fetch, flight)) }),
            None => failed(ctx, &flight, found, policy),
        },
        Stage::Confirmed(entry) => Got::Stored(entry),
        Stage::Failed | Stage::Asking | Stage::Unshared => failed(ctx, &flight, found, policy),
    }
}

/// What another's fetch brings this request; `None`: nothing.
fn followed(
    ctx: &mut RequestCtx,
    flight: &Arc<Flight>,
    stage: Stage,
    found: Option<Arc<Entry>>,
    policy: &Policy,
    turn: Turn,
) -> Option<Got> {
    let fields = ctx.cache.fields.clone()?;
    let got = match stage {
        Stage::Filling(live) if live.selects(&fields) => {
            // It may have been asked for before this request came: it has to be as good as stored.
            let life = obtain::life_of(&live, policy);
            let verdict = may_serve(&life, &ctx.cache.asked, SystemTime::now(), Origin::Reachable);
            let reader = live.reader().filter(|_| verdict == Reuse::Fresh)?;
            Got::Arriving(Arriving { live, reader, fetch: None })
        }
        Stage::Confirmed(entry) if entry.selects(&fields) => {
            ctx.cache.outcome = Some(Outcome::Revalidated);
            Got::Stored(entry)
        }
        Stage::Failed => failed(ctx, flight, found, policy),
        Stage::Filling(_) | Stage::Confirmed(_) | Stage::Unshared | Stage::Asking => return None,
    };
    if turn == Turn::First {
        obtain::answered(ctx, flight);
        ctx.cache.status = ctx.cache.status.collapsed();
    }
    Some(got)
}

/// What may serve although the fetch failed.
fn failed(
    ctx: &mut RequestCtx,
    flight: &Flight,
    found: Option<Arc<Entry>>,
    policy: &Policy,
) -> Got {
    let stale = found.and_then(|entry| {
        let detail = obtain::serves_stale(ctx, &entry, policy)?;
        Some((entry, detail))
    });
    match stale {
        Some((entry, detail)) => {
            ctx.refusal = None;
            ctx.cache.stale_after(obtain::answered_by(flight), detail);
            Got::Stored(entry)
        }
        None => Got::Failed(flight.told().refusal.unwrap_or(Refusal::OriginClosed)),
    }
}
