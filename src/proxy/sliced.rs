//! Answers from pieces: of a large object only those are fetched in which the wanted bytes lie, each by
//! a fetch that all who want it share, and the answer is put together while they arrive.
//!
//! All pieces of one answer are of one version, by a strong validator and the length of the whole. What
//! the first pieces that are not stored say is known before anything is sent; where the object changes
//! after that, the answer is cut.

use std::ops::Range;
use std::time::Instant;
use std::time::SystemTime;

use http::StatusCode;
use http::header;
use pingora::Result;
use pingora::http::ResponseHeader;
use pingora_proxy::Session;

use crate::cache::Policy;
use crate::cache::course;
use crate::cache::course::Course;
use crate::cache::key::Key;
use crate::cache::key::Parts;
use crate::cache::key::Resource;
use crate::cache::reuse::Origin;
use crate::cache::reuse::Reuse;
use crate::cache::reuse::may_serve;
use crate::cache::slice;
use crate::cache::slice::Piece;
use crate::cache::slice::Version;
use crate::cache::storable::Concerns;
use crate::proxy::answer;
use crate::proxy::context::RequestCtx;
use crate::proxy::deliver;
use crate::proxy::lookup;
use crate::proxy::piece;
use crate::proxy::piece::Arriving;
use crate::proxy::piece::Got;
use crate::proxy::piece::Turn;
use crate::proxy::serve;
use crate::proxy::serve::Age;
use crate::proxy::store;
use crate::proxy::stored::Plan;
use crate::proxy::stored::Step;
use crate::refusal::Refusal;
use crate::runtime::partial;
use crate::runtime::partial::First;
use crate::storage::memory::Entry;
use crate::storage::memory::Kind;

/// What became of a request that might be answered from pieces.
pub(crate) enum Sliced {
    /// It is answered.
    Answered,
    /// The object does not come in pieces: it is obtained whole.
    Whole,
    /// Its pieces may not be stored: the request goes to the origin as it is, like this.
    Pass(Course),
}

/// An object that is sent in pieces.
struct Object {
    base: Key,
    size: u64,
    version: Version,
    /// Pieces that are at hand already.
    held: Vec<(u64, Got)>,
}

/// How often an answer is begun anew since the object turned out to have changed.
const BEGINNINGS: u32 = 2;

/// Answers a request for an object that is stored in pieces of `size` bytes.
pub(crate) async fn answer(
    session: &mut Session,
    ctx: &mut RequestCtx,
    policy: &Policy,
    size: u64,
) -> Result<Sliced> {
    let Some(base) = ctx.cache.key.clone() else { return Ok(Sliced::Whole) };
    let first = lookup::asking(session, ctx, policy, &base, ctx.wall)
        .map_or(First::Whole, |asking| partial::first(&asking, size));
    let first = match first {
        First::Piece(first) => first,
        First::Whole => return Ok(Sliced::Whole),
        First::Pass => return Ok(Sliced::Pass(course::unsliced())),
    };
    for beginning in 1..=BEGINNINGS {
        let got = piece::take(session, ctx, policy, (&base, first), Turn::First).await?;
        let (response, times, age) = match &got {
            Got::Stored(entry) => (entry.response_header(), entry.times(), Age::Always),
            Got::Arriving(arriving) => {
                (serve::header_of(&arriving.live)?, arriving.live.times(), Age::IfAny)
            }
            Got::Handed(..)
            | Got::Failed(_)
            | Got::NotCached
            | Got::Rare
            | Got::Alone
            | Got::Unshared => {
                return without_pieces(session, ctx, &base, first, got).await;
            }
        };
        let Some(version) = Version::of(&response.headers) else {
            // Another answer than content, stored like any.
            whole(session, ctx, got).await?;
            return Ok(Sliced::Answered);
        };
        let held = vec![(first.index, got)];
        let mut object = Object { base: base.clone(), size, version, held };
        let mut response = object.header(response)?;
        // What is not stored is for the one for whom it was fetched.
        for (name, value) in ctx.origin.private() {
            response.append_header(name, value)?;
        }
        let selection = deliver::selection(session, &response);
        let method = &session.req_header().method;
        let plan = selection.plan(method, response.status, object.version.length);
        match object.look_ahead(session, ctx, policy, &plan).await? {
            Ahead::Good => {}
            Ahead::Changed if beginning < BEGINNINGS => {
                object.forget(ctx);
                continue;
            }
            Ahead::Changed => {
                // It is another one each time that it is asked for: its pieces never make up a whole.
                object.forget(ctx);
                ctx.runtime.flights.note_unsliced(base.as_bytes(), Concerns::All, Instant::now());
                return Ok(not_in_pieces(session, course::unsliced()));
            }
            Ahead::NotCached => {
                answer::refuse(session, ctx, Refusal::NotCached, &[]).await?;
                return Ok(Sliced::Answered);
            }
        }
        let now = SystemTime::now();
        let plan = serve::head(session, ctx, response, &selection, (&times, age), now).await?;
        object.send(session, ctx, policy, plan).await?;
        return Ok(Sliced::Answered);
    }
    Ok(Sliced::Whole)
}

fn not_in_pieces(session: &Session, course: Course) -> Sliced {
    match partial::not_in_pieces(&session.req_header().headers) {
        First::Pass => Sliced::Pass(course),
        First::Whole | First::Piece(_) => Sliced::Whole,
    }
}

/// The first piece is none, or not to be had.
async fn without_pieces(
    session: &mut Session,
    ctx: &mut RequestCtx,
    base: &Key,
    first: Piece,
    got: Got,
) -> Result<Sliced> {
    match got {
        Got::Handed(response, rest, mut fetch) => {
            let of_a_piece = response.status == StatusCode::PARTIAL_CONTENT
                || response.headers.contains_key(header::CONTENT_RANGE)
                    && response.status == StatusCode::OK;
            if of_a_piece {
                // It may not be stored, or not be put together with others.
                let concerns = ctx.cache.concerns;
                ctx.runtime.flights.note_unsliced(base.as_bytes(), concerns, Instant::now());
                return Ok(not_in_pieces(session, course::unsliced()));
            }
            if response.status == StatusCode::RANGE_NOT_SATISFIABLE && first.index == 0 {
                // An empty object has no first piece.
                return Ok(Sliced::Whole);
            }
            fetch.beside(serve::handed(session, ctx, response, rest)).await?;
            Ok(Sliced::Answered)
        }
        Got::Failed(refusal) => {
            answer::refuse(session, ctx, refusal, &[]).await?;
            Ok(Sliced::Answered)
        }
        Got::NotCached => {
            answer::refuse(session, ctx, Refusal::NotCached, &[]).await?;
            Ok(Sliced::Answered)
        }
        // As an origin's answers are that does not know ranges.
        Got::Unshared => Ok(Sliced::Whole),
        Got::Rare => Ok(not_in_pieces(session, course::rare())),
        Got::Alone | Got::Stored(_) | Got::Arriving(_) => {
            let course = ctx.cache.forbidden.map_or_else(course::unsliced, course::forbidden);
            Ok(not_in_pieces(session, course))
        }
    }
}

/// Answers with what was got as it is: no piece, but an answer of another kind.
async fn whole(session: &mut Session, ctx: &mut RequestCtx, got: Got) -> Result<()> {
    let now = SystemTime::now();
    match got {
        Got::Stored(entry) => serve::entry(session, ctx, &entry, now).await,
        Got::Arriving(Arriving { live, reader, fetch }) => {
            let served = serve::live(session, ctx, &live, reader, now);
            match fetch {
                Some((mut fetch, _)) => fetch.beside(served).await,
                None => served.await,
            }
        }
        Got::Handed(..)
        | Got::Failed(_)
        | Got::NotCached
        | Got::Rare
        | Got::Alone
        | Got::Unshared => Ok(()),
    }
}

/// What the pieces that follow the first are like.
enum Ahead {
    /// They are of the same version, as far as can be known before they are asked for.
    Good,
    /// The object has changed.
    Changed,
    /// Not all are stored, and the client wants nothing else.
    NotCached,
}

impl Object {
    /// The header of the whole, from that of a piece.
    fn header(&self, mut piece: ResponseHeader) -> Result<ResponseHeader> {
        piece.remove_header(&header::CONTENT_RANGE);
        piece.insert_header(header::CONTENT_LENGTH, self.version.length)?;
        Ok(piece)
    }

    /// Asks for the first wanted piece that is not stored: its version is compared before anything is
    /// sent.
    async fn look_ahead(
        &mut self,
        session: &mut Session,
        ctx: &mut RequestCtx,
        policy: &Policy,
        plan: &Plan,
    ) -> Result<Ahead> {
        // The store is looked into no further than a look takes no time, unless all has to be there.
        let most = if ctx.cache.asked.only_if_cached { usize::MAX } else { AHEAD };
        let size = self.size;
        let wanted = plan.stretches().flat_map(|stretch| slice::pieces(stretch, size));
        for piece in wanted.take(most) {
            if self.held.iter().any(|(index, _)| *index == piece.index) {
                continue;
            }
            if let Some(version) = self.stored_version(ctx, piece) {
                if version == self.version {
                    continue;
                }
                return Ok(Ahead::Changed);
            }
            let got = piece::take(session, ctx, policy, (&self.base, piece), Turn::Later).await?;
            let version = got.version();
            let stored = matches!(got, Got::Stored(_));
            if matches!(got, Got::NotCached) {
                return Ok(Ahead::NotCached);
            }
            self.held.push((piece.index, got));
            match version {
                Some(version) if version == self.version => {}
                Some(_) => return Ok(Ahead::Changed),
                // Found out while it is sent: the origin fails.
                None => return Ok(Ahead::Good),
            }
            if !stored {
                return Ok(Ahead::Good);
            }
        }
        Ok(Ahead::Good)
    }

    /// The version that a piece is stored in; `None` where it is not, or not fresh.
    fn stored_version(&self, ctx: &RequestCtx, piece: Piece) -> Option<Version> {
        let key = self.base.piece(piece);
        let fields = ctx.cache.fields.as_deref();
        let route = ctx.route()?;
        let now = SystemTime::now();
        let fresh = |entry: &Entry| {
            let life = store::life_of(entry, &route.cache);
            may_serve(&life, &ctx.cache.asked, now, Origin::Reachable) == Reuse::Fresh
        };
        let entry = ctx.runtime.memory.lookup_if(key.as_bytes(), fields, now, fresh)?;
        Version::of(&entry.headers())
    }

    /// Sends what follows the header.
    async fn send(
        &mut self,
        session: &mut Session,
        ctx: &mut RequestCtx,
        policy: &Policy,
        plan: Plan,
    ) -> Result<()> {
        if plan.is_empty() {
            self.let_end(session).await?;
            return serve::whole(ctx);
        }
        for step in plan {
            match step {
                Step::Text(text) => serve::body(session, text).await?,
                Step::Of(stretch) => {
                    for piece in slice::pieces(&stretch, self.size) {
                        let part = piece.part_of(&stretch);
                        let got = self.next(session, ctx, policy, piece).await?;
                        self.let_go();
                        write(session, ctx, got, part).await?;
                    }
                }
            }
        }
        serve::finish(session, ctx).await
    }

    /// What is fetched for later goes on by itself: here nobody looks after it while another piece is
    /// sent.
    fn let_go(&mut self) {
        for (_, got) in &mut self.held {
            if let Got::Arriving(arriving) = got {
                arriving.fetch = None;
            }
        }
    }

    /// Nothing of the pieces is sent: they are stored all the same.
    async fn let_end(&mut self, session: &mut Session) -> Result<()> {
        for (_, got) in self.held.drain(..) {
            if let Got::Arriving(Arriving { fetch: Some((mut fetch, flight)), reader, .. }) = got {
                drop(reader);
                serve::unless_gone(session, fetch.beside(flight.over())).await?;
            }
        }
        Ok(())
    }

    /// A piece of the same version.
    async fn next(
        &mut self,
        session: &mut Session,
        ctx: &mut RequestCtx,
        policy: &Policy,
        piece: Piece,
    ) -> Result<Got> {
        for _ in 0..2 {
            let held = self.held.iter().position(|(index, _)| *index == piece.index);
            let got = match held {
                Some(at) => self.held.swap_remove(at).1,
                None => piece::take(session, ctx, policy, (&self.base, piece), Turn::Later).await?,
            };
            match got.version() {
                Some(version) if version == self.version => return Ok(got),
                Some(_) | None => {}
            }
            match got {
                // Which of the two is the older one only the origin knows.
                Got::Stored(entry) => {
                    ctx.runtime.memory.remove(&entry);
                }
                Got::Arriving(_) => {
                    self.forget(ctx);
                    break;
                }
                Got::Handed(..)
                | Got::Failed(_)
                | Got::NotCached
                | Got::Rare
                | Got::Alone
                | Got::Unshared => {
                    break;
                }
            }
        }
        Err(serve::cut(ctx))
    }

    /// Lets go of all pieces: those of two versions would be met again and again.
    fn forget(&self, ctx: &RequestCtx) {
        let bytes = self.base.as_bytes()[..self.base.resource_len()].to_vec();
        ctx.runtime.memory.purge_resource(&Resource { bytes, parts: Parts::Many }, Kind::Hard);
    }
}

/// How many pieces are looked for in the store before the header is sent.
const AHEAD: usize = 16;

/// Sends a part of a piece.
async fn write(
    session: &mut Session,
    ctx: &mut RequestCtx,
    got: Got,
    part: Range<u64>,
) -> Result<()> {
    match got {
        Got::Stored(entry) => {
            let mut reader = entry.reader();
            if entry.body_len() < part.end || reader.seek(part.start, Some(part.end)).is_err() {
                return Err(serve::cut(ctx));
            }
            for bytes in reader {
                serve::body(session, bytes).await?;
            }
            Ok(())
        }
        Got::Arriving(Arriving { mut reader, fetch: None, .. }) => {
            serve::stretch(session, ctx, &mut reader, part).await
        }
        Got::Arriving(Arriving { mut reader, fetch: Some((mut fetch, flight)), .. }) => {
            fetch.beside(serve::stretch(session, ctx, &mut reader, part)).await?;
            // Its connection is free again for the next piece.
            serve::unless_gone(session, fetch.beside(flight.over())).await
        }
        Got::Handed(_, mut rest, mut fetch) => {
            fetch.beside(serve::handed_stretch(session, ctx, &mut rest, part)).await
        }
        Got::Failed(_) | Got::NotCached | Got::Rare | Got::Alone | Got::Unshared => {
            Err(serve::cut(ctx))
        }
    }
}

/// A request whose pieces may not be stored goes to the origin as it is.
pub(crate) fn pass(ctx: &mut RequestCtx, course: &Course) {
    ctx.cache.key = None;
    ctx.cache.take(course);
}
