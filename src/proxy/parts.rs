//! Answers a range from parts of the object that are stored, each as the origin sent it, or has the part
//! fetched that is asked for: where a route does not want the whole for it.

use std::sync::Arc;
use std::time::Instant;

use http::HeaderMap;
use http::Method;
use http::StatusCode;
use http::header;
use pingora::Result;
use pingora::http::ResponseHeader;
use pingora_proxy::Session;

use crate::cache::Policy;
use crate::cache::key::Key;
use crate::cache::part;
use crate::cache::part::Part;
use crate::cache::part::Share;
use crate::cache::reuse::Origin;
use crate::cache::reuse::Reuse;
use crate::cache::reuse::may_serve;
use crate::message::conditional;
use crate::message::conditional::Outcome;
use crate::message::conditional::Validators;
use crate::message::range;
use crate::message::range::Spec;
use crate::proxy::context::RequestCtx;
use crate::proxy::serve;
use crate::proxy::serve::Age;
use crate::proxy::store;
use crate::proxy::stored::Selection;
use crate::storage::memory::Entry;

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
    let (Some(base), Some(fields)) = (ctx.cache.key.clone(), ctx.cache.fields.clone()) else {
        return Ok(Next::Whole);
    };
    let request = &session.req_header().headers;
    let ranged = request.contains_key(header::RANGE);
    let wanted = Spec::only(request);
    // What is stored whole answers everything.
    if session.req_header().method != Method::GET
        || ranged != wanted.is_some()
        || runtime.memory.lookup_if(base.as_bytes(), Some(&fields), ctx.wall, |_| true).is_some()
    {
        return Ok(Next::Whole);
    }
    let found = find(ctx, policy, &base, request);
    let parts: Vec<_> = found.iter().map(|(part, _)| part.clone()).collect();
    let bytes = |length| match wanted {
        Some(spec) => spec.within(length),
        None => (length > 0).then_some(0..length),
    };
    if let Some((range, shares)) = part::cover(&parts, bytes) {
        send(session, ctx, &found, (range, shares), ranged).await?;
        return Ok(Next::Answered);
    }
    Ok(match wanted {
        // Conditions are about the whole, as long as it is not known what they would come to.
        Some(spec)
            if !conditional::has_conditions(&session.req_header().headers)
                && !runtime.flights.is_unsliced(base.as_bytes(), Instant::now()) =>
        {
            runtime.ranges.note(base.as_bytes(), spec);
            ctx.cache.key = Some(base.range(spec));
            ctx.cache.range = Some(spec);
            Next::Part
        }
        Some(_) | None => Next::Whole,
    })
}

/// The request goes to the origin as it is: what it asked for is not stored.
pub(super) fn pass(ctx: &mut RequestCtx, base: &Key) {
    if ctx.cache.status.detail == Some(store::NOT_A_PIECE) {
        // The origin sends the whole for a range: so it is asked for the whole.
        ctx.runtime.flights.note_unsliced(base.as_bytes(), Instant::now());
    }
    ctx.cache.key = None;
    ctx.cache.range = None;
}

/// The parts that are stored and fresh, the latest first.
fn find(
    ctx: &RequestCtx,
    policy: &Policy,
    base: &Key,
    request: &HeaderMap,
) -> Vec<(Part, Arc<Entry>)> {
    let fields = ctx.cache.fields.as_deref();
    let fresh = |entry: &Entry| {
        let life = store::life_of(entry, policy);
        may_serve(&life, &ctx.cache.asked, ctx.wall, Origin::Reachable) == Reuse::Fresh
    };
    let part = |spec| {
        let key = base.range(spec);
        let entry = ctx.runtime.memory.lookup_if(key.as_bytes(), fields, ctx.wall, fresh)?;
        let headers = entry.headers();
        if !is_part(entry.status(), &headers) {
            return None;
        }
        let of = Validators::of(&headers);
        match conditional::evaluate(&Method::GET, request, &of, StatusCode::PARTIAL_CONTENT) {
            Outcome::Proceed => Some((Part::of(&headers, entry.body_len())?, entry)),
            Outcome::NotModified | Outcome::PreconditionFailed | Outcome::IgnoreRange => None,
        }
    };
    ctx.runtime.ranges.of(base.as_bytes()).into_iter().filter_map(part).collect()
}

/// Whether what is stored under the key of a range is a part, and not another answer. Within the store a
/// part is a 200, told from others by its Content-Range (see `receive`).
pub(super) fn is_part(status: StatusCode, headers: &HeaderMap) -> bool {
    status == StatusCode::OK && headers.contains_key(header::CONTENT_RANGE)
}

/// What was fetched for a range, as the client is to see it.
pub(super) fn restore(ctx: &RequestCtx, response: &mut ResponseHeader) -> Result<()> {
    if ctx.cache.range.is_some() && is_part(response.status, &response.headers) {
        response.set_status(StatusCode::PARTIAL_CONTENT)?;
    }
    Ok(())
}

/// Sends shares of parts as one range, or as the whole.
async fn send(
    session: &mut Session,
    ctx: &mut RequestCtx,
    found: &[(Part, Arc<Entry>)],
    (bytes, shares): (std::ops::Range<u64>, Vec<Share>),
    ranged: bool,
) -> Result<()> {
    let Some((part, entry)) = shares.first().and_then(|share| found.get(share.part)) else {
        return Err(serve::cut(ctx));
    };
    let policy = ctx.route().map(|route| Arc::clone(&route.cache));
    let ttl = policy.map_or(0, |policy| store::life_of(entry, &policy).remaining_seconds(ctx.wall));
    ctx.cache.hit(ttl);
    let mut response = entry.response_header();
    response.insert_header(header::CONTENT_LENGTH, bytes.end - bytes.start)?;
    if ranged {
        response.set_status(StatusCode::PARTIAL_CONTENT)?;
        response.insert_header(header::CONTENT_RANGE, range::content_range(&bytes, part.length))?;
    } else {
        response.remove_header(&header::CONTENT_RANGE);
    }
    let age = (&entry.times(), Age::Always);
    let now = ctx.wall;
    serve::head(session, ctx, response, &Selection::Whole, age, now).await?;
    for share in shares {
        let Some((_, entry)) = found.get(share.part) else { return Err(serve::cut(ctx)) };
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
