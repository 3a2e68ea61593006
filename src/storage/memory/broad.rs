//! Purges of many responses at once, in the same time however many they are.
//!
//! Such a purge touches no entry. It leaves a stamp for what was purged: a host, a route, an
//! upstream, a zone, a surrogate key, a group of an origin, a prefix, or everything. An entry asked for before the stamps that
//! concern it is gone, or stale, wherever it is met: by a lookup, by a fill that ends, by a sweep.
//! An entry remembers up to which purge it was compared, so a lookup costs one comparison of numbers
//! and, once after each purge, the look-up of a few stamps.
//!
//! The stamps are bounded. When there are too many, the older half becomes one coarser stamp: of
//! surrogate keys and groups one for all that has any, of hosts, routes, upstreams and zones one for everything, of
//! prefixes those of their hosts. So too much may be purged, but never too little. And what all
//! entries were compared with, which a full round of the sweep does, is forgotten.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::hash::Hash;
use std::hash::RandomState;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use parking_lot::RwLock;

use crate::cache::groups;
use crate::cache::key::Asked;
use crate::cache::purge::Group;
use crate::cache::purge::Many;
use crate::cache::purge::Prefix;
use crate::cache::purge::Subject;
use crate::cache::surrogate;
use crate::storage::memory::entry::Entry;
use crate::storage::memory::purge::Generation;
use crate::storage::memory::purge::Kind;
use crate::storage::memory::purge::Standing;
use crate::storage::memory::stamp::STAMP_COST;
use crate::storage::memory::stamp::Stamp;

/// How many stamps are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Bounds {
    keys: usize,
    places: usize,
    prefixes: usize,
}

/// What a prefix may take beside its stamp, in bytes: host and path.
const PREFIX_COST: u64 = 1400;
/// What a place in a table of stamps takes beside the stamp, its slack included.
const PLACE_COST: u64 = 64;

impl Bounds {
    /// In a tier of `limit` bytes.
    fn within(limit: u64) -> Self {
        let one_per = |bytes: u64, least: u64, most: u64| {
            usize::try_from((limit / bytes).clamp(least, most)).unwrap_or(usize::MAX)
        };
        Self {
            keys: one_per(32 << 10, 4, 4096),
            places: one_per(128 << 10, 2, 1024),
            prefixes: one_per(1 << 20, 1, 128),
        }
    }

    fn cost(self) -> u64 {
        (self.keys + self.places) as u64 * (STAMP_COST + PLACE_COST)
            + self.prefixes as u64 * (STAMP_COST + PREFIX_COST)
    }
}

/// What the stamps of a tier of `limit` bytes may take, in bytes.
pub(super) fn cost(limit: u64) -> u64 {
    Bounds::within(limit).cost()
}

/// The stamps of one tier.
pub(super) struct Broad {
    /// The last purge of many.
    newest: AtomicU64,
    stamps: RwLock<Stamps>,
    hasher: RandomState,
}

struct Stamps {
    bounds: Bounds,
    everything: Stamp,
    /// Of whatever has a surrogate key or a group: those that were merged.
    keyed: Stamp,
    /// The last purge of any surrogate key or group.
    any_key: Stamp,
    keys: HashMap<u64, Stamp>,
    /// Of hosts, routes, upstreams and zones.
    places: HashMap<u64, Stamp>,
    prefixes: Vec<(Prefix, Stamp)>,
    /// What was asked for before this may have been purged by a stamp that is forgotten.
    forgotten: Generation,
}

/// What a stamp of a place is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Place {
    Host,
    Route,
    Upstream,
    Zone,
}

/// What meets the stamps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Met {
    /// An entry that may be stored from now on.
    New,
    /// An entry that is stored.
    Stored,
}

impl Broad {
    /// No stamps yet, in a tier of `limit` bytes.
    pub(super) fn new(limit: u64) -> Self {
        Self {
            newest: AtomicU64::new(0),
            stamps: RwLock::new(Stamps {
                bounds: Bounds::within(limit),
                everything: Stamp::default(),
                keyed: Stamp::default(),
                any_key: Stamp::default(),
                keys: HashMap::new(),
                places: HashMap::new(),
                prefixes: Vec::new(),
                forgotten: Generation::default(),
            }),
            hasher: RandomState::new(),
        }
    }

    /// Purges all that `many` concerns. `next` gives the next number of the sequence.
    pub(super) fn purge(&self, many: &Many, kind: Kind, next: impl FnOnce() -> Generation) {
        let mut stamps = self.stamps.write();
        let at = next();
        match many {
            Many::Everything => stamps.everything.note(at, kind),
            Many::Host(name) => self.purge_place(&mut stamps, Place::Host, name, at, kind),
            Many::Route(name) => self.purge_place(&mut stamps, Place::Route, name, at, kind),
            Many::Upstream(name) => self.purge_place(&mut stamps, Place::Upstream, name, at, kind),
            Many::Zone(name) => self.purge_place(&mut stamps, Place::Zone, name, at, kind),
            Many::SurrogateKey(key) => {
                purge_key(&mut stamps, self.key(key.as_bytes()), at, kind);
            }
            Many::Group(group) => {
                let Group { scheme, host, port, name } = group;
                let scheme = scheme.as_str().as_bytes();
                let group = self.group(scheme, host.as_bytes(), *port, name.as_bytes());
                purge_key(&mut stamps, group, at, kind);
            }
            Many::Prefix(prefix) => {
                let known = stamps.prefixes.iter_mut().find(|(known, _)| known == prefix);
                if let Some((_, stamp)) = known {
                    stamp.note(at, kind);
                } else {
                    self.make_room_for_prefix(&mut stamps);
                    let mut stamp = Stamp::default();
                    stamp.note(at, kind);
                    stamps.prefixes.push((prefix.clone(), stamp));
                }
            }
        }
        // Within the lock, so that whoever sees it finds the stamp.
        self.newest.store(at.0, Ordering::SeqCst);
    }

    fn purge_place(
        &self,
        stamps: &mut Stamps,
        place: Place,
        name: &str,
        at: Generation,
        kind: Kind,
    ) {
        let mut stamp = Stamp::default();
        stamp.note(at, kind);
        self.stamp_place(stamps, self.place(place, name.as_bytes()), &stamp);
    }

    fn stamp_place(&self, stamps: &mut Stamps, place: u64, stamp: &Stamp) {
        let most = stamps.bounds.places;
        if let Some(older) = make_room(&mut stamps.places, place, most) {
            stamps.everything.merge(&older);
        }
        stamps.places.entry(place).or_default().merge(stamp);
    }

    fn make_room_for_prefix(&self, stamps: &mut Stamps) {
        if stamps.prefixes.len() < stamps.bounds.prefixes {
            return;
        }
        stamps.prefixes.sort_unstable_by_key(|(_, stamp)| stamp.newest());
        let half = stamps.prefixes.len().div_ceil(2);
        for (prefix, stamp) in stamps.prefixes.drain(..half).collect::<Vec<_>>() {
            let host = self.place(Place::Host, prefix.authority.host().as_bytes());
            self.stamp_place(stamps, host, &stamp);
        }
    }

    /// Whether the entry is still there after all purges of many; makes it stale where one did.
    pub(super) fn spares(&self, entry: &Entry, met: Met) -> bool {
        let newest = self.newest.load(Ordering::SeqCst);
        if met == Met::Stored && entry.compared.load(Ordering::Acquire) >= newest {
            return true;
        }
        let stamps = self.stamps.read();
        // Nothing new comes while the lock is held.
        let newest = self.newest.load(Ordering::SeqCst);
        if met == Met::New && entry.asked < stamps.forgotten {
            return false;
        }
        match self.standing(&stamps, entry) {
            Standing::Purged => return false,
            Standing::StaleSince(since) => entry.expire(since),
            Standing::Current => {}
        }
        entry.compared.fetch_max(newest, Ordering::Release);
        true
    }

    fn standing(&self, stamps: &Stamps, entry: &Entry) -> Standing {
        let asked = entry.asked;
        let mut standing = stamps.everything.standing(asked);
        let Some(subject) = entry.subject().filter(|_| standing != Standing::Purged) else {
            return standing;
        };
        let mut meet = |stamp: Option<&Stamp>| {
            standing = standing.and(stamp.map_or(Standing::Current, |s| s.standing(asked)));
        };
        if !stamps.places.is_empty() {
            let place = |place, name| stamps.places.get(&self.place(place, name));
            meet(place(Place::Host, subject.asked.host));
            meet(place(Place::Upstream, subject.asked.upstream()));
            meet(place(Place::Zone, subject.asked.zone()));
            meet(subject.route.and_then(|route| place(Place::Route, route.as_bytes())));
        }
        for (prefix, stamp) in &stamps.prefixes {
            meet(Some(stamp).filter(|_| prefix.covers(&subject.asked)));
        }
        if stamps.any_key.newest() > asked {
            self.meet_keys(stamps, &subject, &mut meet);
        }
        standing
    }

    fn meet_keys<'s>(
        &self,
        stamps: &'s Stamps,
        subject: &Subject<'_>,
        meet: &mut impl FnMut(Option<&'s Stamp>),
    ) {
        let Asked { scheme, host, port, .. } = subject.asked;
        let groups = groups::groups(&subject.headers);
        let keys = surrogate::keys(&subject.headers).map(|key| self.key(key));
        let names = groups.iter().map(|name| self.group(scheme, host, port, name.as_bytes()));
        for (count, key) in keys.chain(names).enumerate() {
            if count == 0 {
                meet(Some(&stamps.keyed));
            }
            if count == surrogate::MOST {
                return meet(Some(&stamps.any_key));
            }
            meet(stamps.keys.get(&key));
        }
    }

    /// The last purge that a round of the sweep which begins now will compare all entries with.
    pub(super) fn newest(&self) -> Generation {
        Generation(self.newest.load(Ordering::SeqCst))
    }

    /// Every entry was compared with all stamps up to `compared`: those that are no newer concern
    /// nothing any more but what was asked for before them and is still on its way, which is
    /// refused. So stamps are forgotten only where there are many.
    pub(super) fn forget(&self, compared: Generation) {
        let mut stamps = self.stamps.write();
        let Stamps { bounds, keys, places, prefixes, forgotten, .. } = &mut *stamps;
        let mut is_known = |stamp: &Stamp| {
            let newest = stamp.newest();
            let known = newest > compared;
            if !known {
                *forgotten = newest.max(*forgotten);
            }
            known
        };
        if keys.len() > bounds.keys / 2 {
            keys.retain(|_, stamp| is_known(stamp));
        }
        if places.len() > bounds.places / 2 {
            places.retain(|_, stamp| is_known(stamp));
        }
        if prefixes.len() > bounds.prefixes / 2 {
            prefixes.retain(|(_, stamp)| is_known(stamp));
        }
    }

    /// Keeps everybody from reading the stamps.
    #[cfg(test)]
    pub(super) fn locked(&self) -> impl Drop {
        self.stamps.write()
    }

    fn key(&self, key: &[u8]) -> u64 {
        self.hasher.hash_one(key)
    }

    fn group(&self, scheme: &[u8], host: &[u8], port: Option<u16>, name: &[u8]) -> u64 {
        self.hasher.hash_one((scheme, host, port, name))
    }

    fn place(&self, place: Place, name: &[u8]) -> u64 {
        self.hasher.hash_one((place, name))
    }
}

/// Stamps a surrogate key or a group, which are the same to the table.
fn purge_key(stamps: &mut Stamps, key: u64, at: Generation, kind: Kind) {
    stamps.any_key.note(at, kind);
    let most = stamps.bounds.keys;
    if let Some(older) = make_room(&mut stamps.keys, key, most) {
        stamps.keyed.merge(&older);
    }
    stamps.keys.entry(key).or_default().note(at, kind);
}

/// Takes the older half out of a table that has no room for this one, as one stamp.
fn make_room(stamps: &mut HashMap<u64, Stamp>, one: u64, most: usize) -> Option<Stamp> {
    if stamps.len() < most || stamps.contains_key(&one) {
        return None;
    }
    let mut ages: Vec<(Generation, u64)> =
        stamps.iter().map(|(of, stamp)| (stamp.newest(), *of)).collect();
    ages.sort_unstable();
    let mut merged = Stamp::default();
    for (_, of) in ages.iter().take(ages.len().div_ceil(2)) {
        if let Some(stamp) = stamps.remove(of) {
            merged.merge(&stamp);
        }
    }
    Some(merged)
}

#[cfg(test)]
#[path = "broad_tests.rs"]
mod tests;
