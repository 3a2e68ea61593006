//! Answers a range from parts of the object that are stored, each as the origin sent it, or has the part
//! fetched that is asked for: where a route does not want the whole for it.

use std::sync::Arc;
use std::time::Instant;

use http::StatusCode;
use http::header;
use pingora::Result;
use pingora::http::ResponseHeader;
use pingora_proxy::Session;

use crate::cache::Policy;
use crate::cache::course;
use crate::cache::course::Stored;
use crate::cache::key::Key;
use crate::cache::part;
use crate::cache::reuse::Origin;
use crate::cache::storable::Concerns;
use crate::cache::storable::NotStorable;
use crate::message::range;
use crate::proxy::context::RequestCtx;
use crate::proxy::lookup;
use crate::proxy::serve;
use crate::proxy::serve::Age;
use crate::proxy::store;
use crate::proxy::stored::Selection;
use crate::runtime::partial;
use crate::runtime::partial::Brought;
use crate::runtime::partial::Parts;

/// How a request goes on in which parts may play a role.
pub(super) enum Next {
    /// It is answered.
    Answered,
    /// It is about the whole.
    Whole,
    /// The range is fetched, and stored by itself.
    Part,
}

/// Answers from stored parts, if they bring what is asked for.
pub(super) async fn answer(
    session: &mut Session,
    ctx: &mut RequestCtx,
    policy: &Policy,
) -> Result<Next> {
    let runtime = Arc::clone(&ctx.runtime);
    let Some(base) = ctx.cache.key.clone() else { return Ok(Next::Whole) };
    let brought = {
        let Some(asking) = lookup::asking(session, ctx, policy, &base, ctx.wall) else {
            return Ok(Next::Whole);
        };
        partial::brought(&asking)
    };
    Ok(match brought {
        Brought::Parts(parts) => {
            send(session, ctx, policy, parts).await?;
            Next::Answered
        }
        Brought::Range(spec) => {
            runtime.ranges.note(base.as_bytes(), spec);
            ctx.cache.key = Some(base.range(spec));
            ctx.cache.range = Some(spec);
            Next::Part
        }
        Brought::Whole => Next::Whole,
    })
}

/// The request goes to the origin as it is: what it asked for is not stored.
pub(super) fn pass(ctx: &mut RequestCtx, base: &Key) {
    if ctx.cache.status.detail == Some(store::NOT_A_PIECE) {
        // The origin sends the whole for a range: so it is asked for the whole.
        ctx.runtime.flights.note_unsliced(base.as_bytes(), Concerns::All, Instant::now());
    }
    let rare = ctx
        .route()
        .is_some_and(|route| ctx.cache.uses.is_some_and(|uses| uses < route.cache.min_uses));
    let why = match ctx.cache.forbidden {
        Some(forbids) => forbids.reason().label(),
        None if rare => NotStorable::TooFewUses.label(),
        None => UNSHARED,
    };
    // Where the origin is asked again it has said itself why nothing is stored.
    ctx.cache.status.detail.get_or_insert(why);
    ctx.cache.key = None;
    ctx.cache.range = None;
}

/// Why a range goes to the origin as it is: what was answered to such a request was not stored lately, or
/// another's fetch takes too long.
const UNSHARED: &str = "unshared";

/// What was fetched for a range, as the client is to see it.
pub(super) fn restore(ctx: &RequestCtx, response: &mut ResponseHeader) -> Result<()> {
    if ctx.cache.range.is_some() && part::is_stored_part(response.status, &response.headers) {
        response.set_status(StatusCode::PARTIAL_CONTENT)?;
    }
    Ok(())
}

/// Sends shares of parts as one range, or as the whole.
async fn send(
    session: &mut Session,
    ctx: &mut RequestCtx,
    policy: &Policy,
    parts: Parts,
) -> Result<()> {
    let Parts { bytes, shares, length } = parts;
    let Some((entry, _)) = shares.first() else { return Err(serve::cut(ctx)) };
    let now = ctx.wall;
    let life = store::life_of(entry, policy);
    let stored = Stored::Selected(&life);
    ctx.cache.take(&course::by_store(stored, &ctx.cache.asked, now, Origin::Reachable));
    let mut used: Vec<u64> = Vec::new();
    for (entry, _) in &shares {
        if !used.contains(&entry.id()) {
            used.push(entry.id());
            ctx.runtime.memory.note_use(entry, now);
        }
    }
    let mut response = entry.response_header();
    response.insert_header(header::CONTENT_LENGTH, bytes.end - bytes.start)?;
    if session.req_header().headers.contains_key(header::RANGE) {
        response.set_status(StatusCode::PARTIAL_CONTENT)?;
        response.insert_header(header::CONTENT_RANGE, range::content_range(&bytes, length))?;
    } else {
        response.remove_header(&header::CONTENT_RANGE);
    }
    let age = (&entry.times(), Age::Always);
    serve::head(session, ctx, response, &Selection::Whole, age, now).await?;
    for (entry, share) in &shares {
        let mut reader = entry.reader();
        if reader.seek(share.bytes.start, Some(share.bytes.end)).is_err() {
            return Err(serve::cut(ctx));
        }
        for bytes in reader {
            serve::body(session, bytes).await?;
        }
    }
    serve::finish(session, ctx).await
}
