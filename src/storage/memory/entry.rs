//! A stored response: immutable but for a few counters.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use bytes::Bytes;
use http::HeaderMap;
use http::HeaderName;
use http::StatusCode;
use http::header::CONTENT_LENGTH;
use pingora::http::ResponseHeader;

use crate::cache::freshness::Restraint;
use crate::cache::groups;
use crate::cache::key::Asked;
use crate::cache::purge::Subject;
use crate::cache::surrogate;
use crate::storage::memory::body::Body;
use crate::storage::memory::head::Head;
use crate::storage::memory::head::Length;
use crate::storage::memory::head::Lines;
use crate::storage::memory::head::Validator;
use crate::storage::memory::purge::Generation;
use crate::storage::memory::select::Selection;
use crate::storage::memory::select::Selector;
use crate::storage::memory::times::Packed;
use crate::storage::memory::times::Times;
use crate::storage::memory::times::instant;
use crate::storage::memory::times::nanos_since_1970;

/// What the tier spends on an entry beside its key, head and body: the entry itself and, with the
/// slack that growing tables carry, its places in a shard's table, node list, eviction queue and
/// memory of the evicted.
pub(super) const ENTRY_OVERHEAD: u64 = size_of::<Entry>() as u64 + 16 + 96;

/// What it spends beyond that on an entry whose key is more than its resource: a place in the
/// shard's list of those.
pub(super) const PARTED_OVERHEAD: u64 = 32;

/// A stored response. It never changes; validation replaces it by another that shares its body.
#[derive(Debug)]
pub struct Entry {
    pub(super) hash: u64,
    /// The key, the lines of the head, and a small body: one allocation, and what pays for it and for
    /// the entry.
    pub(super) record: Bytes,
    /// Where the key ends in it, and where the lines do.
    pub(super) key_end: u32,
    pub(super) head_end: u32,
    /// The hash of the resource, where that is only the front of the key.
    pub(super) resource: Option<NonZeroU64>,
    /// The route that stored it.
    pub(super) route: Option<Arc<str>>,
    pub(super) id: u64,
    pub(super) asked: Generation,
    pub(super) head: Head,
    pub(super) selection: Selection,
    pub(super) times: Packed,
    pub(super) body: Body,
    /// What the body costs in bytes beside the record; its segments pay for themselves.
    pub(super) body_cost: u64,
    /// What everything else costs in bytes.
    pub(super) own_cost: u32,
    pub(super) usage: Usage,
    /// Nanoseconds since 1970 from which a soft purge made it stale; `u64::MAX`: none did.
    pub(super) stale_since: AtomicU64,
    /// The last purge of many with which it was compared.
    pub(super) compared: AtomicU64,
}

/// How an entry was used.
#[derive(Debug, Default)]
pub(super) struct Usage {
    pub(super) hits: AtomicU64,
    /// Nanoseconds since 1970.
    pub(super) last: AtomicU64,
    /// The eviction policy's own note.
    pub(super) mark: AtomicU64,
}

impl Entry {
    /// The status.
    pub fn status(&self) -> StatusCode {
        self.head.status
    }

    /// The fields as stored, one line each.
    pub fn lines(&self) -> Lines<'_> {
        Lines::of(
            self.record.get(self.key_end as usize..self.head_end as usize).unwrap_or_default(),
        )
    }

    /// The fields as stored, as a map that is made for the occasion; its values share the entry's
    /// memory.
    pub fn headers(&self) -> HeaderMap {
        self.fields(|_| true)
    }

    /// Those of the fields whose names, in any case, are wanted.
    fn fields(&self, wanted: impl Fn(&str) -> bool) -> HeaderMap {
        self.head.fields(&self.record.slice(self.key_end as usize..self.head_end as usize), wanted)
    }

    /// Whether the fields have something to validate it by.
    pub(super) fn can_be_validated(&self) -> bool {
        self.head.validator == Validator::Some
    }

    /// What the fields say of reuse.
    pub fn restraint(&self) -> Restraint {
        self.head.restraint
    }

    /// A response head to send. Values are shared, not copied. What came
    /// in chunks has a length by now, and says so.
    pub fn response_header(&self) -> ResponseHeader {
        let mut response = http::Response::new(());
        *response.status_mut() = self.head.status;
        *response.headers_mut() = self.headers();
        if let Some(length) = self.unsaid_length() {
            response.headers_mut().insert(CONTENT_LENGTH, length.into());
        }
        response.into_parts().0.into()
    }

    /// The length of the body in bytes, where the fields do not say it but may.
    pub fn unsaid_length(&self) -> Option<u64> {
        let may = self.head.status != StatusCode::NO_CONTENT;
        (may && self.head.length == Length::Unsaid).then(|| self.body_len())
    }

    /// The base key it is stored under.
    pub fn key(&self) -> &[u8] {
        self.record.get(..self.key_end as usize).unwrap_or_default()
    }

    /// What purges tell it apart by; `None` when its key says nothing.
    pub fn subject(&self) -> Option<Subject<'_>> {
        Some(Subject {
            asked: Asked::of(self.key())?,
            route: self.route.as_deref(),
            headers: self.fields(|name| {
                let is = |field: &HeaderName| name.eq_ignore_ascii_case(field.as_str());
                surrogate::FIELDS.iter().any(is) || is(&groups::GROUPS)
            }),
        })
    }

    /// Its times as stored; [`Self::fresh_until`] knows of soft purges too.
    pub fn times(&self) -> Times {
        self.times.into()
    }

    /// The instant from which it is stale: by its times, or by the soft purge that came first.
    pub fn fresh_until(&self) -> SystemTime {
        let purged = self.stale_since.load(Ordering::Acquire);
        instant(self.times.fresh_until_nanos().min(purged))
    }

    /// Whether a request with these fields selects it (RFC 9111 §4.1).
    pub fn selects(&self, request: &HeaderMap) -> bool {
        Selector::new(Some(request)).selects(&self.selection)
    }

    /// When a soft purge made it stale, if one did.
    pub fn stale_since(&self) -> Option<SystemTime> {
        match self.stale_since.load(Ordering::Acquire) {
            u64::MAX => None,
            since => Some(instant(since)),
        }
    }

    /// Makes it stale from `since` on, unless it was already before.
    pub(super) fn expire(&self, since: SystemTime) {
        self.stale_since.fetch_min(nanos_since_1970(since), Ordering::AcqRel);
    }

    /// The length of the body in bytes.
    pub fn body_len(&self) -> u64 {
        self.body.len()
    }

    /// All it costs in bytes: key, head, body and bookkeeping.
    pub fn size(&self) -> u64 {
        self.body_cost.saturating_add(self.own_cost.into())
    }

    /// How often it was looked up.
    pub fn hits(&self) -> u64 {
        self.usage.hits.load(Ordering::Relaxed)
    }

    /// When it was last looked up; the time it was stored before that.
    pub fn last_use(&self) -> SystemTime {
        instant(self.usage.last.load(Ordering::Relaxed))
    }

    /// Names this very entry among all that were ever stored under its key; a validated one is
    /// another.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Reads the body from its start.
    pub fn reader(self: &Arc<Self>) -> Reader {
        Reader { entry: Arc::clone(self), at: 0, end: self.body_len() }
    }
}

/// Reads the body of an entry, at most one segment (64 KiB) at a time and without copying. It keeps
/// the entry alive when that is evicted or purged meanwhile.
#[derive(Debug)]
pub struct Reader {
    entry: Arc<Entry>,
    at: u64,
    end: u64,
}

/// The body does not reach as far as was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BeyondEnd;

impl Reader {
    /// The entry it reads.
    pub fn entry(&self) -> &Arc<Entry> {
        &self.entry
    }

    /// The bytes still to come.
    pub fn remaining(&self) -> u64 {
        self.end.saturating_sub(self.at)
    }

    /// Goes on at byte `start` and stops before `end` (or where the body ends, if that is sooner).
    ///
    /// # Errors
    /// `start` lies beyond the end of the body.
    pub fn seek(&mut self, start: u64, end: Option<u64>) -> Result<(), BeyondEnd> {
        let len = self.entry.body_len();
        if start > len {
            return Err(BeyondEnd);
        }
        self.at = start;
        self.end = end.unwrap_or(len).min(len);
        Ok(())
    }
}

impl Iterator for Reader {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        let part = self.entry.body.slice(self.at, self.end)?;
        self.at += part.len() as u64;
        Some(part)
    }
}
