//! Which part of an object answers a request, where a route stores objects in pieces or by range: looked up
//! for those who are served, and for those who only want to know.

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;
use std::time::SystemTime;

use http::HeaderMap;
use http::Method;
use http::StatusCode;
use http::header;

use crate::cache::Policy;
use crate::cache::directives::RequestDirectives;
use crate::cache::key::Key;
use crate::cache::part;
use crate::cache::part::Part;
use crate::cache::part::Share;
use crate::cache::reuse::Origin;
use crate::cache::reuse::Reuse;
use crate::cache::reuse::may_serve;
use crate::cache::slice::Piece;
use crate::message::conditional;
use crate::message::conditional::Outcome;
use crate::message::conditional::Validators;
use crate::message::range::Spec;
use crate::runtime::Runtime;
use crate::runtime::life::life_of;
use crate::storage::memory::Entry;

/// A request that may be answered from the store.
#[derive(Clone, Copy)]
pub struct Asking<'a> {
    /// What serves it.
    pub runtime: &'a Runtime,
    /// The rules of its route.
    pub policy: &'a Policy,
    /// Its method.
    pub method: &'a Method,
    /// Its fields, in their normal form.
    pub headers: &'a HeaderMap,
    /// What it asks of the cache.
    pub asked: &'a RequestDirectives,
    /// The key of the whole.
    pub base: &'a Key,
    /// When.
    pub now: SystemTime,
}

/// By what an answer begins where objects are stored in pieces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum First {
    /// This piece.
    Piece(Piece),
    /// The object, which does not come in pieces.
    Whole,
    /// What the origin says: its pieces may not be stored, and a range of it is wanted.
    Pass,
}

/// What answers where objects are stored by range.
pub enum Brought {
    /// Stored parts.
    Parts(Parts),
    /// This range, which is fetched and stored by itself.
    Range(Spec),
    /// The whole, or parts of it.
    Whole,
}

/// Stored parts that bring what is wanted.
pub struct Parts {
    /// What is wanted.
    pub bytes: Range<u64>,
    /// What of which part makes it up; the first one speaks for the answer.
    pub shares: Vec<(Arc<Entry>, Share)>,
    /// How long the object is.
    pub length: u64,
}

/// By what the answer begins, of an object in pieces of `size` bytes.
#[must_use]
pub fn first(asking: &Asking<'_>, size: u64) -> First {
    let unsliced =
        asking.runtime.flights.is_unsliced(asking.base.as_bytes(), asking.headers, Instant::now());
    let piece = Piece::first_for(asking.headers, size);
    if unsliced {
        // What is there serves all the same. Stale, a range of it is not worth the whole.
        let serves = |key: &Key| {
            let fresh = |entry: &Entry| is_fresh(asking, entry);
            asking.runtime.memory.peek(key.as_bytes(), Some(asking.headers), fresh).is_some()
        };
        return match (serves(asking.base), serves(&asking.base.piece(piece))) {
            (true, _) => First::Whole,
            (false, true) => First::Piece(piece),
            (false, false) => not_in_pieces(asking.headers),
        };
    }
    // Stored whole, since its origin does not know ranges.
    if is_whole_stored(asking) {
        return First::Whole;
    }
    First::Piece(piece)
}

/// How a request goes on for an object that does not come in pieces that may be stored: a range goes to
/// the origin as it is, lest it pulls the whole.
#[must_use]
pub fn not_in_pieces(headers: &HeaderMap) -> First {
    match headers.contains_key(header::RANGE) {
        true => First::Pass,
        false => First::Whole,
    }
}

/// What answers, of an object that is stored by range.
#[must_use]
pub fn brought(asking: &Asking<'_>) -> Brought {
    let runtime = asking.runtime;
    let ranged = asking.headers.contains_key(header::RANGE);
    let wanted = Spec::only(asking.headers);
    // What is stored whole answers everything.
    if asking.method != Method::GET || ranged != wanted.is_some() || is_whole_stored(asking) {
        return Brought::Whole;
    }
    let found = stored(asking);
    let parts: Vec<_> = found.iter().map(|(part, _)| part.clone()).collect();
    let bytes = |length| match wanted {
        Some(spec) => spec.within(length),
        None => (length > 0).then_some(0..length),
    };
    if let Some((bytes, shares)) = part::cover(&parts, bytes)
        && let Some(speaks) = shares.first().and_then(|share| found.get(share.part))
    {
        let length = speaks.0.length;
        let of_entry = |share: Share| Some((Arc::clone(&found.get(share.part)?.1), share));
        let shares = shares.into_iter().filter_map(of_entry).collect();
        return Brought::Parts(Parts { bytes, shares, length });
    }
    match wanted {
        // Conditions are about the whole, as long as it is not known what they would come to.
        Some(spec)
            if !conditional::has_conditions(asking.headers)
                && !runtime.flights.is_unsliced(
                    asking.base.as_bytes(),
                    asking.headers,
                    Instant::now(),
                ) =>
        {
            Brought::Range(spec)
        }
        Some(_) | None => Brought::Whole,
    }
}

fn is_whole_stored(asking: &Asking<'_>) -> bool {
    let memory = asking.runtime.memory;
    memory.peek(asking.base.as_bytes(), Some(asking.headers), |_| true).is_some()
}

fn is_fresh(asking: &Asking<'_>, entry: &Entry) -> bool {
    let life = life_of(entry, asking.policy);
    may_serve(&life, asking.asked, asking.now, Origin::Reachable) == Reuse::Fresh
}

/// The parts that are stored and fresh, the latest first.
fn stored(asking: &Asking<'_>) -> Vec<(Part, Arc<Entry>)> {
    let fresh = |entry: &Entry| is_fresh(asking, entry);
    let part = |spec| {
        let key = asking.base.range(spec);
        let memory = asking.runtime.memory;
        let entry = memory.peek(key.as_bytes(), Some(asking.headers), fresh)?;
        let headers = entry.headers();
        if !part::is_stored_part(entry.status(), &headers) {
            return None;
        }
        let of = Validators::of(&headers);
        let partial = StatusCode::PARTIAL_CONTENT;
        match conditional::evaluate(&Method::GET, asking.headers, &of, partial) {
            Outcome::Proceed => Some((Part::of(&headers, entry.body_len())?, entry)),
            Outcome::NotModified | Outcome::PreconditionFailed | Outcome::IgnoreRange => None,
        }
    };
    asking.runtime.ranges.of(asking.base.as_bytes()).into_iter().filter_map(part).collect()
}
