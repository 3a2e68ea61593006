//! The tier as Pingora's cache machinery sees it.
//!
//! Two of Pingora's habits are answered here. It names entries by a hash when it purges, so the
//! hash has to be ours ([`Memory::cache_key`]). And an error from a store ends the response to the
//! client, so writing never fails: a fill without room goes on as one that discards.

use std::any::Any;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::Duration;
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;
use http::HeaderMap;
use http::header::CONTENT_LENGTH;
use pingora::Error;
use pingora::ErrorType::InternalError;
use pingora::Result;
use pingora_cache::CacheEntryKey;
use pingora_cache::CacheKey;
use pingora_cache::CacheMeta;
use pingora_cache::key::CacheHashKey;
use pingora_cache::key::HashBinary;
use pingora_cache::storage::HandleHit;
use pingora_cache::storage::HandleMiss;
use pingora_cache::storage::HitHandler;
use pingora_cache::storage::MissFinishType;
use pingora_cache::storage::MissHandler;
use pingora_cache::storage::PurgeOutcome;
use pingora_cache::storage::PurgeTarget;
use pingora_cache::storage::PurgeType;
use pingora_cache::storage::Storage;
use pingora_cache::trace::SpanHandle;

use crate::storage::memory::Abandoned;
use crate::storage::memory::Arrival;
use crate::storage::memory::Belonging;
use crate::storage::memory::Entry;
use crate::storage::memory::Fill;
use crate::storage::memory::Generation;
use crate::storage::memory::Live;
use crate::storage::memory::Memory;
use crate::storage::memory::Reader;
use crate::storage::memory::Times;

/// In the extensions of a [`CacheKey`]: the fields of the request, by which variants are selected.
/// Without it only responses that do not vary are found or stored.
#[derive(Debug, Clone)]
pub struct Selecting(pub Arc<HeaderMap>);

/// In the extensions of a [`CacheKey`]: what the response belongs to beside the key. Without it the
/// whole key is the resource, and the route is unknown.
#[derive(Debug, Clone)]
pub struct Belongs {
    /// See [`Belonging::resource`].
    pub resource: usize,
    /// The name of the route that stores it.
    pub route: Arc<str>,
}

impl Belongs {
    fn view(&self) -> Belonging<'_> {
        Belonging { resource: self.resource, route: Some(&self.route) }
    }
}

/// In the extensions of a [`CacheMeta`]: the key to store the response under, and how much of it is the
/// resource, where that is not the [`CacheKey`].
#[derive(Debug, Clone)]
pub struct Under {
    /// The base key.
    pub key: Vec<u8>,
    /// See [`Belonging::resource`].
    pub resource: usize,
}

/// In the extensions of a [`CacheMeta`]: what shows that a body of an announced length has ended. Without it,
/// the length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Its last byte: what may follow is another message (RFC 9112 §6.3).
    Length,
    /// The end of its stream, before which more may come than was announced (RFC 9113 §8.1.1).
    Stream,
}

/// In the extensions of a [`CacheMeta`] that a lookup returned: the entry itself, with its exact
/// times. It must stay there for a validation to find its entry again.
#[derive(Debug, Clone)]
pub struct Found(pub Arc<Entry>);

/// In the extensions of a [`CacheKey`]: the largest body to store under it, in bytes.
#[derive(Debug, Clone, Copy)]
pub struct Largest(pub u64);

/// Who wants to know what becomes of the response that is fetched under a [`CacheKey`].
pub trait Observer: Send + Sync {
    /// It is being stored, and can be read along.
    fn filling(&self, live: &Arc<Live>);
    /// A 304 confirmed what was stored; this is what is stored now.
    fn confirmed(&self, entry: &Arc<Entry>);
}

/// In the extensions of a [`CacheKey`]: who is told.
#[derive(Clone)]
pub struct Observed(pub Arc<dyn Observer>);

impl Memory {
    /// A key for the long way: base key bytes, the fields of the request, and where the sequence of
    /// purges stands now. To be made before the origin is asked. [`Belongs`] may be added to its
    /// extensions.
    pub fn cache_key(
        &self,
        base: impl Into<Vec<u8>>,
        user_tag: &str,
        request: Arc<HeaderMap>,
    ) -> CacheKey {
        let mut key = CacheKey::new(base, user_tag);
        key.set_primary_bin_override(self.signed(self.hash(key.primary_key())));
        key.extensions.insert(Selecting(request));
        key.extensions.insert(self.generation());
        key
    }

    /// Our hash of a key, followed by one that only we can compute of it.
    fn signed(&self, hash: u64) -> HashBinary {
        let mut signed = HashBinary::default();
        let (left, right) = signed.split_at_mut(8);
        left.copy_from_slice(&hash.to_be_bytes());
        right.copy_from_slice(&self.0.hasher.hash_one(("signed", hash)).to_be_bytes());
        signed
    }

    fn hash_in(&self, target: PurgeTarget<'_>) -> Result<u64> {
        let signed = target.key().primary_bin();
        let hash = signed.iter().take(8).fold(0, |hash, byte| (hash << 8) | u64::from(*byte));
        if self.signed(hash) != signed {
            // An answer of `NotFound` would leave an entry in place that was to be purged.
            return Error::e_explain(InternalError, "purge by a key that the tier did not make");
        }
        Ok(hash)
    }

    /// The times that go with `meta`: as the policy attached them, or else as far as it tells.
    fn times_of(meta: &CacheMeta) -> Times {
        if let Some(times) = meta.extensions().get::<Times>() {
            return *times;
        }
        let since = |later: SystemTime, earlier| later.duration_since(earlier).unwrap_or_default();
        Times {
            created: meta.created(),
            responded: meta.updated(),
            lifetime: since(meta.fresh_until(), meta.epoch()),
            age: since(meta.updated(), meta.epoch()),
            while_revalidate: Duration::from_secs(meta.stale_while_revalidate_sec().into()),
            if_error: Duration::from_secs(meta.stale_if_error_sec().into()),
        }
    }

    fn arrival<'a>(&self, key: &'a CacheKey, meta: &'a CacheMeta) -> Arrival<'a> {
        let header = meta.response_header();
        let mut belonging = key.extensions.get::<Belongs>().map(Belongs::view).unwrap_or_default();
        let under = meta.extensions().get::<Under>();
        if let Some(under) = under {
            belonging.resource = under.resource;
        }
        Arrival {
            key: under.map_or_else(|| key.primary_key(), |under| &under.key),
            belonging,
            request: selecting(key),
            status: header.status,
            headers: &header.headers,
            times: Self::times_of(meta),
            length: announced_length(&header.headers),
            largest: key.extensions.get::<Largest>().map_or(u64::MAX, |Largest(bytes)| *bytes),
            asked: key.extensions.get::<Generation>().copied().unwrap_or_else(|| self.generation()),
        }
    }
}

fn selecting(key: &CacheKey) -> Option<&HeaderMap> {
    key.extensions.get::<Selecting>().map(|Selecting(headers)| headers.as_ref())
}

/// The length that the one Content-Length announces. The message layer has judged the field
/// already; what cannot be read announces nothing.
fn announced_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// What Pingora knows of an entry. Its windows have whole seconds, so they are rounded down. That for
/// errors is never closed here: Pingora then asks us whether to serve, who know the request as well.
fn meta_of(entry: &Arc<Entry>) -> CacheMeta {
    let times = entry.times();
    let seconds = |window: Duration| u32::try_from(window.as_secs()).unwrap_or(u32::MAX);
    let mut meta = CacheMeta::new(
        entry.fresh_until(),
        times.created,
        seconds(times.while_revalidate),
        u32::MAX,
        entry.response_header(),
    );
    meta.set_epoch_override(times.epoch());
    meta.extensions_mut().insert(Found(Arc::clone(entry)));
    meta
}

#[async_trait]
impl Storage for Memory {
    async fn lookup(
        &'static self,
        key: &CacheKey,
        _trace: &SpanHandle,
    ) -> Result<Option<(CacheMeta, HitHandler)>> {
        let found = Self::lookup(self, key.primary_key(), selecting(key), SystemTime::now());
        Ok(found.map(|entry| {
            let hit: HitHandler = Box::new(Hit(entry.reader()));
            (meta_of(&entry), hit)
        }))
    }

    async fn get_miss_handler(
        &'static self,
        key: &CacheKey,
        meta: &CacheMeta,
        _trace: &SpanHandle,
    ) -> Result<MissHandler> {
        let fill = self.begin_fill(&self.arrival(key, meta));
        if let Err(reason) = &fill {
            log::debug!(target: "edgeproxy::storage", "a response is not stored: {reason:?}");
        }
        if let (Ok(fill), Some(Observed(observer))) = (&fill, key.extensions.get::<Observed>()) {
            observer.filling(fill.live());
        }
        let end = meta.extensions().get::<End>().copied().unwrap_or(End::Length);
        Ok(Box::new(Miss { fill: fill.ok(), passing: false, taken: 0, end }))
    }

    async fn purge(
        &'static self,
        target: PurgeTarget<'_>,
        _kind: PurgeType,
        _trace: &SpanHandle,
    ) -> Result<PurgeOutcome> {
        let hash = self.hash_in(target)?;
        if is_exact(target) {
            return Ok(PurgeOutcome::NotFound);
        }
        Ok(match self.purge_hash(hash) {
            0 => PurgeOutcome::NotFound,
            _ => PurgeOutcome::Purged(None),
        })
    }

    async fn expire(
        &'static self,
        target: PurgeTarget<'_>,
        _trace: &SpanHandle,
    ) -> Result<PurgeOutcome> {
        let hash = self.hash_in(target)?;
        if is_exact(target) {
            return Ok(PurgeOutcome::NotFound);
        }
        Ok(match self.expire_hash(hash, SystemTime::now()) {
            0 => PurgeOutcome::NotFound,
            _ => PurgeOutcome::Expired,
        })
    }

    async fn update_meta(
        &'static self,
        key: &CacheKey,
        meta: &CacheMeta,
        _trace: &SpanHandle,
    ) -> Result<bool> {
        let Some(Found(old)) = meta.extensions().get::<Found>() else {
            // Which variant was validated cannot be told; to guess could mix up two.
            return Ok(false);
        };
        match self.refresh(old, &self.arrival(key, meta)) {
            Ok(entry) => {
                if let Some(Observed(observer)) = key.extensions.get::<Observed>() {
                    observer.confirmed(&entry);
                }
                Ok(true)
            }
            Err(Abandoned::VaryStar) => {
                self.remove(old);
                Ok(false)
            }
            Err(reason) => {
                log::debug!(target: "edgeproxy::storage", "a validation is not kept: {reason:?}");
                Ok(false)
            }
        }
    }

    fn as_any(&self) -> &(dyn Any + Send + Sync + 'static) {
        self
    }
}

/// Entries have no numbers towards Pingora, so nothing is stored under one.
fn is_exact(target: PurgeTarget<'_>) -> bool {
    matches!(target, PurgeTarget::Exact(CacheEntryKey::Identified { .. }))
}

/// A body on its way to a client.
struct Hit(Reader);

#[async_trait]
impl HandleHit for Hit {
    async fn read_body(&mut self) -> Result<Option<Bytes>> {
        Ok(self.0.next())
    }

    async fn finish(
        self: Box<Self>,
        _storage: &'static (dyn Storage + Sync),
        _key: &CacheKey,
        _trace: &SpanHandle,
    ) -> Result<()> {
        Ok(())
    }

    fn can_seek(&self) -> bool {
        true
    }

    fn seek(&mut self, start: usize, end: Option<usize>) -> Result<()> {
        self.0
            .seek(start as u64, end.map(|end| end as u64))
            .or_else(|_| Error::e_explain(InternalError, "a range begins beyond the body"))
    }

    fn get_eviction_weight(&self) -> usize {
        usize::try_from(self.0.entry().size()).unwrap_or(usize::MAX)
    }

    fn as_any(&self) -> &(dyn Any + Send + Sync) {
        self
    }

    fn as_any_mut(&mut self) -> &mut (dyn Any + Send + Sync) {
        self
    }
}

/// A body on its way into the tier, or past it.
struct Miss {
    fill: Option<Fill>,
    /// There is no room for it: only those who read along get the rest.
    passing: bool,
    /// Bytes of body; once it is stored, what that costs.
    taken: usize,
    end: End,
}

#[async_trait]
impl HandleMiss for Miss {
    async fn write_body(&mut self, data: Bytes, eof: bool) -> Result<()> {
        self.taken = self.taken.saturating_add(data.len());
        let Some(fill) = &mut self.fill else { return Ok(()) };
        if !self.passing
            && let Err(reason) = fill.push(&data)
        {
            log::debug!(target: "edgeproxy::storage", "a response is not stored: {reason:?}");
            self.passing = true;
        }
        if self.passing {
            fill.pass(data).await;
        }
        // Pingora says that it ended only after the client has got all of it, and may ask again.
        let has_ended = eof || self.end == End::Length;
        if let Some(fill) = self.fill.take_if(|fill| has_ended && fill.is_complete())
            && let Ok(entry) = fill.finish()
        {
            self.taken = usize::try_from(entry.size()).unwrap_or(usize::MAX);
        }
        Ok(())
    }

    async fn finish(self: Box<Self>) -> Result<MissFinishType> {
        let size = match self.fill.map(Fill::finish) {
            Some(Ok(entry)) => usize::try_from(entry.size()).unwrap_or(usize::MAX),
            Some(Err(_)) | None => self.taken,
        };
        Ok(MissFinishType::Created(size))
    }
}
