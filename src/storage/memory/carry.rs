//! What another process is given of the tier, and what this one takes in from another.
//!
//! Whoever sends looks at an entry in the moment in which it is sent, after all purges so far. Whoever takes
//! it in treats it as asked for before everything that was ever purged here: a purge that is known, whenever
//! it came, keeps out what it concerns. So the order in which entries and purges arrive does not matter, as
//! long as all purges do that the sender did not know when it looked.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use http::StatusCode;

use crate::cache::key::Extent;
use crate::cache::key::extent;
use crate::storage::memory::Abandoned;
use crate::storage::memory::Arrival;
use crate::storage::memory::Belonging;
use crate::storage::memory::Fill;
use crate::storage::memory::Generation;
use crate::storage::memory::Memory;
use crate::storage::memory::Reader;
use crate::storage::memory::Times;
use crate::storage::memory::entry::Entry;
use crate::storage::memory::record::Record;
use crate::storage::memory::select::Selection;
use crate::storage::memory::times::Packed;
use crate::storage::memory::times::instant;

/// How much of the limit may be taken by what comes in, in parts of 64: the rest is for what comes next.
const MOST_TAKEN: u64 = 62;

/// The variants of a key, and how hot they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hot {
    /// Used since it was stored, or not; and when for the last time, in nanoseconds since 1970.
    heat: (bool, u64),
    shard: u32,
    hash: u64,
    bytes: u64,
}

/// An entry on its way to another process.
#[derive(Debug)]
pub struct Carried {
    /// All but its body.
    pub record: Record,
    /// Its body.
    pub body: Reader,
}

/// Why something is not taken in. The rest may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unwanted {
    /// It is no response that could have been stored.
    Broken,
    /// There is no room for it.
    NoRoom,
    /// It was purged, or its body was not as announced.
    Abandoned(Abandoned),
}

/// An entry that is being taken in.
#[derive(Debug)]
pub struct Carrying {
    fill: Fill,
    hits: u64,
    last: u64,
    stale_since: u64,
}

impl Memory {
    /// What is stored, hottest first, as much as `limit` bytes hold: what was used again before what was
    /// not, and in either the latest use first.
    pub fn hottest(&self, limit: u64) -> Vec<Hot> {
        let mut all = Vec::new();
        for (shard, cell) in (0..).zip(&self.0.shards) {
            cell.shard.read().each(|hash, entries| {
                let cold = Hot { heat: (false, 0), shard, hash, bytes: 0 };
                let hot = entries.fold(cold, |hot, entry| {
                    let heat = (entry.hits() > 0, entry.usage.last.load(Ordering::Relaxed));
                    let bytes = hot.bytes.saturating_add(entry.size());
                    Hot { heat: hot.heat.max(heat), bytes, ..hot }
                });
                all.push(hot);
            });
        }
        all.sort_unstable_by_key(|hot| Reverse(hot.heat));
        let mut bytes = 0_u64;
        // What is too large does not keep out what is smaller.
        all.retain(|hot| {
            let with = bytes.saturating_add(hot.bytes);
            let fits = with <= limit;
            if fits {
                bytes = with;
            }
            fits
        });
        all
    }

    /// What is stored there now, the oldest variant first, so that the newest one is that also where it
    /// arrives.
    pub fn carried(&self, hot: &Hot) -> Vec<Carried> {
        let Some(cell) = self.0.shards.get(hot.shard as usize) else { return Vec::new() };
        let shard = cell.shard.read();
        let there = shard.under_hash(hot.hash).filter(|entry| self.is_there(entry));
        let mut entries: Vec<Arc<Entry>> = there.map(Arc::clone).collect();
        drop(shard);
        entries.reverse();
        let carried = |entry: Arc<Entry>| {
            let record = self.record(&entry)?;
            Some(Carried { record, body: entry.reader() })
        };
        entries.into_iter().filter_map(carried).collect()
    }

    /// `None`: it means something in this process alone.
    fn record(&self, entry: &Entry) -> Option<Record> {
        let resource = match (extent(entry.key()), entry.resource) {
            (Extent::Numbered, _) => return None,
            (Extent::Bytes(_) | Extent::Unknown, None) => None,
            (Extent::Unknown, Some(_)) => return None,
            (Extent::Bytes(end), Some(hash)) => {
                let is_it = self.resource_hash(entry.key().get(..end)?) == hash;
                Some(u32::try_from(end).ok().filter(|_| is_it)?)
            }
        };
        let usage = &entry.usage;
        Some(Record {
            key: entry.key().to_vec(),
            resource,
            route: entry.route.as_deref().map(str::to_owned),
            status: entry.status().as_u16(),
            lines: entry.lines().flat_map(|line| line.whole).copied().collect(),
            sensitive: entry.head.sensitive(),
            values: entry.selection.values().map(<[u8]>::to_vec),
            times: entry.times.numbers(),
            stale_since: entry.stale_since.load(Ordering::Acquire),
            hits: usage.hits.load(Ordering::Relaxed),
            last: usage.last.load(Ordering::Relaxed),
            body: entry.body_len(),
        })
    }

    /// Begins to take in what another process had stored. The names of routes are kept once each, in
    /// `names`.
    ///
    /// # Errors
    /// It is left out.
    pub fn take_in(
        &self,
        record: &Record,
        names: &mut HashMap<String, Arc<str>>,
    ) -> Result<Carrying, Unwanted> {
        let headers = fields(record).ok_or(Unwanted::Broken)?;
        let status = StatusCode::from_u16(record.status).map_err(|_| Unwanted::Broken)?;
        let resource = match record.resource {
            None => usize::MAX,
            Some(end) => usize::try_from(end).map_err(|_| Unwanted::Broken)?,
        };
        if record.resource.is_some() && resource >= record.key.len() {
            return Err(Unwanted::Broken);
        }
        // It may be of a zone that is no more.
        if !self.has_zone_of(&record.key) {
            return Err(Unwanted::NoRoom);
        }
        let budget = &self.zone(&record.key).budget;
        let needed = budget.used().saturating_add(record.body);
        if needed > budget.ceiling() / 64 * MOST_TAKEN {
            return Err(Unwanted::NoRoom);
        }
        let selection = Selection::carried(&headers, record.values.clone())
            .map_err(|reason| Unwanted::Abandoned(reason.into()))?;
        let route = record.route.as_ref().map(|name| {
            let known = names.entry(name.clone()).or_insert_with(|| name.as_str().into());
            Arc::clone(known)
        });
        let arrival = Arrival {
            key: &record.key,
            belonging: Belonging { resource, route: route.as_ref() },
            request: None,
            status,
            headers: &headers,
            times: Times::from(Packed::of_numbers(record.times)),
            length: Some(record.body),
            largest: self.largest(&record.key),
            // Before everything that was ever purged here.
            asked: Generation::default(),
        };
        if record.body > arrival.largest {
            return Err(Unwanted::NoRoom);
        }
        let fill = Fill::selected(self, &arrival, selection).map_err(Unwanted::Abandoned)?;
        let Record { hits, last, stale_since, .. } = *record;
        Ok(Carrying { fill, hits, last, stale_since })
    }
}

impl Carrying {
    /// The next bytes of its body.
    ///
    /// # Errors
    /// It is left out.
    pub fn push(&mut self, data: &[u8]) -> Result<(), Unwanted> {
        self.fill.push(data).map_err(Unwanted::Abandoned)
    }

    /// Whether the body is whole.
    pub fn is_complete(&self) -> bool {
        self.fill.is_complete()
    }

    /// Makes it visible, with the uses that it had.
    ///
    /// # Errors
    /// It is left out.
    pub fn finish(self, memory: &Memory) -> Result<(), Unwanted> {
        let Self { fill, hits, last, stale_since } = self;
        let entry = fill.finish().map_err(Unwanted::Abandoned)?;
        if stale_since != u64::MAX {
            entry.expire(instant(stale_since));
        }
        entry.usage.hits.store(hits, Ordering::Relaxed);
        entry.usage.last.store(last, Ordering::Relaxed);
        if hits > 0 {
            memory.cell(entry.hash).shard.read().touch(&entry);
        }
        Ok(())
    }
}

/// The fields of a record; `None` where they are none.
fn fields(record: &Record) -> Option<HeaderMap> {
    let plain = record.lines.len().checked_sub(usize::try_from(record.sensitive).ok()?)?;
    let mut headers = HeaderMap::new();
    let mut rest = record.lines.as_slice();
    while !rest.is_empty() {
        let at = record.lines.len() - rest.len();
        let end = memchr::memchr(b'\n', rest)?;
        let line = rest.get(..end)?.strip_suffix(b"\r")?;
        let colon = memchr::memchr(b':', line)?;
        let name = HeaderName::from_bytes(line.get(..colon)?).ok()?;
        let value = line.get(colon..)?.strip_prefix(b": ")?;
        let mut value = HeaderValue::from_bytes(value).ok()?;
        value.set_sensitive(at >= plain);
        headers.try_append(name, value).ok()?;
        rest = rest.get(end + 1..)?;
    }
    Some(headers)
}
