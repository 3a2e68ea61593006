//! Fetches under way, so that one is enough however many wait for it (request collapsing).
//!
//! A flight is one request to an origin on behalf of all who ask for the same key meanwhile. Who
//! comes later follows it: as soon as the response turns out storable, all read it as it arrives;
//! what may not be shared is given to the one who began the flight alone, and the others go on for
//! themselves.
//!
//! Nobody joins a flight that began before a purge of anything: what it brings may be what was purged.

mod flight;
mod marks;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::hash::RandomState;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use http::HeaderMap;
use parking_lot::Mutex;

use crate::cache::reuse::Reuse;
use crate::cache::storable::Concerns;
pub use crate::storage::flights::flight::Flight;
pub use crate::storage::flights::flight::Origin;
pub use crate::storage::flights::flight::Stage;
pub use crate::storage::flights::flight::Told;
use crate::storage::flights::flight::Whose;
use crate::storage::flights::marks::Marks;
use crate::storage::memory::Generation;

/// For how long it is remembered that the responses of a key are not shared.
const UNSHARED: Duration = Duration::from_secs(60);
/// For how long a failed fetch speaks for the next one, where something stale can be served instead.
const FAILING: Duration = Duration::from_secs(1);
/// The most refreshes that run in the background at the same time.
const REFRESHES: usize = 256;
/// The most fetches that go on although nobody waits for them any more.
const ORPHANS: usize = 64;
/// Tables, so that lookups of different keys seldom meet.
const SHARDS: usize = 16;

type Table = Mutex<HashMap<Arc<[u8]>, Vec<Arc<Flight>>>>;

/// The fetches under way.
#[derive(Debug)]
pub struct Flights {
    shards: Box<[Table]>,
    /// Keyed anew in every process, so that no client can choose keys that collide.
    hasher: RandomState,
    unshared: Marks,
    each: Marks,
    unsliced: Marks,
    failing: Marks,
    refreshes: AtomicUsize,
    orphans: AtomicUsize,
}

/// A fetch that goes on although whoever began it is gone.
#[derive(Debug)]
pub struct Orphan(Arc<Flights>);

impl Drop for Orphan {
    fn drop(&mut self) {
        self.0.orphans.fetch_sub(1, Ordering::AcqRel);
    }
}

/// How a request takes part.
#[derive(Debug)]
pub enum Joined {
    /// It is the first: it has to see to the fetch.
    Lead(Lead),
    /// Another request asks already.
    Follow(Arc<Flight>),
}

/// The duty to fetch. Dropped without an outcome, the fetch has failed.
#[derive(Debug)]
pub struct Lead {
    flights: Arc<Flights>,
    key: Arc<[u8]>,
    flight: Arc<Flight>,
}

impl Default for Flights {
    fn default() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Table::default()).collect(),
            hasher: RandomState::new(),
            unshared: Marks::default(),
            each: Marks::default(),
            unsliced: Marks::default(),
            failing: Marks::default(),
            refreshes: AtomicUsize::new(0),
            orphans: AtomicUsize::new(0),
        }
    }
}

impl Flights {
    /// Takes part in the fetch of `key` that a request with these fields could be answered by, or
    /// begins one. `now` is where the sequence of purges stands.
    pub fn join(self: &Arc<Self>, key: &[u8], request: &HeaderMap, now: Generation) -> Joined {
        self.take_part(key, request, now, Whose::ARequests)
    }

    fn take_part(
        self: &Arc<Self>,
        key: &[u8],
        request: &HeaderMap,
        now: Generation,
        whose: Whose,
    ) -> Joined {
        let mut table = self.table(key).lock();
        if let Some(flights) = table.get(key) {
            let fit =
                flights.iter().find(|flight| flight.began() == now && flight.may_suit(request));
            if let Some(flight) = fit {
                return Joined::Follow(Arc::clone(flight));
            }
        }
        let key: Arc<[u8]> = key.into();
        let flight = Arc::new(Flight::new(now, whose));
        table.entry(Arc::clone(&key)).or_default().push(Arc::clone(&flight));
        drop(table);
        Joined::Lead(Lead { flights: Arc::clone(self), key, flight })
    }

    /// Begins a fetch of `key` that nobody else takes part in.
    pub fn alone(self: &Arc<Self>, key: &[u8], now: Generation) -> Lead {
        let flight = Arc::new(Flight::new(now, Whose::ARequests));
        Lead { flights: Arc::clone(self), key: key.into(), flight }
    }

    /// Begins a fetch of `key` in the background, for nobody in particular: `None` when one is under
    /// way, or there are too many.
    pub fn refresh(
        self: &Arc<Self>,
        key: &[u8],
        request: &HeaderMap,
        now: Generation,
    ) -> Option<Lead> {
        if self.refreshes.fetch_add(1, Ordering::AcqRel) < REFRESHES
            && let Joined::Lead(lead) = self.take_part(key, request, now, Whose::Nobodys)
        {
            return Some(lead);
        }
        self.refreshes.fetch_sub(1, Ordering::AcqRel);
        None
    }

    /// Whether a fetch goes on whose client is gone: if others wait for it or it is a refresh, or as long
    /// as there are not too many. Otherwise whoever asks and leaves, again and again, would keep the
    /// origin at work for nobody.
    pub fn go_on(self: &Arc<Self>, flight: &Flight) -> Option<Orphan> {
        let before = self.orphans.fetch_add(1, Ordering::AcqRel);
        // Uncounted again when it is dropped.
        let orphan = Orphan(Arc::clone(self));
        let wanted = flight.whose() == Whose::Nobodys || flight.has_company();
        (wanted || before < ORPHANS).then_some(orphan)
    }

    /// Whether responses to such a request for this key were lately not shared, so that it should not wait
    /// for one, nor anybody for its own.
    pub fn is_unshared(&self, key: &[u8], request: &HeaderMap, now: Instant) -> bool {
        self.hashes(key, request).any(|hash| self.unshared.stands(hash, now))
    }

    /// Notes that a response to this key was not shared.
    pub fn note_unshared(&self, key: &[u8], concerns: Concerns, now: Instant) {
        if let Some(hash) = self.hash(key, concerns) {
            self.unshared.set(hash, now + UNSHARED);
        }
    }

    /// Notes that the response to such a request for this key is shared: as it is, or when each who asks has
    /// it confirmed.
    pub fn note_shared(&self, key: &[u8], request: &HeaderMap, reuse: Reuse, now: Instant) {
        self.hashes(key, request).for_each(|hash| self.unshared.clear(hash));
        let hash = self.hasher.hash_one(key);
        match reuse {
            Reuse::Fresh | Reuse::Stale(_) => self.each.clear(hash),
            Reuse::Revalidate(_) | Reuse::MustNot(_) => self.each.set(hash, now + UNSHARED),
        }
    }

    /// Whether each who asks had to have the response to this key confirmed lately: then nobody has anything
    /// of waiting for another's.
    pub fn is_each_ones(&self, key: &[u8], now: Instant) -> bool {
        self.each.stands(self.hasher.hash_one(key), now)
    }

    /// Whether what this is the key of turned out lately not to come in pieces that can be stored, for such
    /// a request.
    pub fn is_unsliced(&self, key: &[u8], request: &HeaderMap, now: Instant) -> bool {
        self.hashes(key, request).any(|hash| self.unsliced.stands(hash, now))
    }

    /// Notes that it does not.
    pub fn note_unsliced(&self, key: &[u8], concerns: Concerns, now: Instant) {
        if let Some(hash) = self.hash(key, concerns) {
            self.unsliced.set(hash, now + UNSHARED);
        }
    }

    /// Where it is marked what concerns such a request for this key.
    fn hashes(&self, key: &[u8], request: &HeaderMap) -> impl Iterator<Item = u64> {
        let about = Concerns::ALL.into_iter().filter(|concerns| concerns.is_about(request));
        about.filter_map(|concerns| self.hash(key, concerns))
    }

    /// Where it is marked that something concerns these requests for this key.
    fn hash(&self, key: &[u8], concerns: Concerns) -> Option<u64> {
        match concerns {
            Concerns::All => Some(self.hasher.hash_one(key)),
            Concerns::Credentials | Concerns::Cookies => {
                Some(self.hasher.hash_one((concerns, key)))
            }
            Concerns::Itself => None,
        }
    }

    /// Whether a fetch of this key failed a moment ago.
    pub fn is_failing(&self, key: &[u8], now: Instant) -> bool {
        self.failing.stands(self.hasher.hash_one(key), now)
    }

    /// How many fetches are under way.
    pub fn under_way(&self) -> usize {
        self.shards.iter().map(|table| table.lock().values().map(Vec::len).sum::<usize>()).sum()
    }

    fn table(&self, key: &[u8]) -> &Table {
        let hash = usize::try_from(self.hasher.hash_one(key) >> 32).unwrap_or(0);
        &self.shards[hash % SHARDS]
    }
}

impl Lead {
    /// What it is about.
    pub fn flight(&self) -> &Arc<Flight> {
        &self.flight
    }

    /// The response is for the one who began this alone. Those who wait go on for themselves, and
    /// for a while nobody whom it concerns waits for this key.
    pub fn unshared(&self) {
        if matches!(self.flight.stage(), Stage::Asking) {
            // Before they go on: of those whom it does not concern, one begins another fetch for all.
            self.flights.note_unshared(&self.key, self.flight.told().concerns, Instant::now());
        }
        if self.flight.turn_out(Stage::Unshared) {
            self.leave();
        }
    }

    fn leave(&self) {
        let mut table = self.flights.table(&self.key).lock();
        if let Some(flights) = table.get_mut(&self.key) {
            flights.retain(|flight| !Arc::ptr_eq(flight, &self.flight));
            if flights.is_empty() {
                table.remove(&self.key);
            }
        }
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        self.flight.end();
        self.leave();
        match self.flight.stage() {
            Stage::Failed => {
                let hash = self.flights.hasher.hash_one(&*self.key);
                self.flights.failing.set(hash, Instant::now() + FAILING);
            }
            // Where they were stored it was noted that they are shared.
            Stage::Asking | Stage::Filling(_) | Stage::Confirmed(_) | Stage::Unshared => {}
        }
        if self.flight.whose() == Whose::Nobodys {
            self.flights.refreshes.fetch_sub(1, Ordering::AcqRel);
        }
    }
}
