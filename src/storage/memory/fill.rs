//! A response on its way into the tier.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http::StatusCode;

use crate::storage::memory::Memory;
use crate::storage::memory::body::Body;
use crate::storage::memory::body::Gather;
use crate::storage::memory::body::OWNER;
use crate::storage::memory::body::paid;
use crate::storage::memory::budget::Charge;
use crate::storage::memory::budget::allocated;
use crate::storage::memory::entry::ENTRY_OVERHEAD;
use crate::storage::memory::entry::Entry;
use crate::storage::memory::entry::PARTED_OVERHEAD;
use crate::storage::memory::entry::Usage;
use crate::storage::memory::head::Head;
use crate::storage::memory::live::About;
use crate::storage::memory::live::Live;
use crate::storage::memory::purge::Generation;
use crate::storage::memory::select::NoSelection;
use crate::storage::memory::select::Selection;
use crate::storage::memory::times::Times;
use crate::storage::memory::times::nanos_since_1970;

/// A response that may be stored.
#[derive(Debug, Clone, Copy)]
pub struct Arrival<'a> {
    /// The base key, its components framed; the variant is no part of it.
    pub key: &'a [u8],
    /// What it belongs to beside its key.
    pub belonging: Belonging<'a>,
    /// The fields of the request that fetched it, as lookups will be made with. `None`: unknown;
    /// then a response that varies cannot be stored.
    pub request: Option<&'a HeaderMap>,
    /// The status to store.
    pub status: StatusCode,
    /// The fields to store; hop-by-hop fields and whatever a policy strips are gone already.
    pub headers: &'a HeaderMap,
    /// Its times.
    pub times: Times,
    /// The length of the body in bytes, if it was announced.
    pub length: Option<u64>,
    /// The largest body to store, in bytes; the tier has a limit of its own.
    pub largest: u64,
    /// [`Memory::generation`] as it was before the origin was asked.
    pub asked: Generation,
}

/// What a response belongs to, beside its key: what purges name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Belonging<'a> {
    /// How many bytes at the front of the key name the resource: all that its URL says of it.
    pub resource: usize,
    /// The name of the route that stores it.
    pub route: Option<&'a Arc<str>>,
}

impl Default for Belonging<'_> {
    /// The key is its resource, and nothing is known of the route.
    fn default() -> Self {
        Self { resource: usize::MAX, route: None }
    }
}

impl Belonging<'_> {
    /// The resource, where it is less than the whole key.
    fn resource_in(self, key: &[u8]) -> Option<&[u8]> {
        key.get(..self.resource).filter(|front| front.len() < key.len())
    }
}

/// Why a response is not stored. The response to the client goes on regardless.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Abandoned {
    /// It is larger than the tier's largest object.
    TooLarge,
    /// The limit is reached and nothing can be evicted.
    NoRoom,
    /// The body ended before or after its announced length (RFC 9112 §8: incomplete).
    WrongLength,
    /// The body was cut: the fill was dropped before it was finished.
    Cut,
    /// `Vary: *` (RFC 9111 §4.1).
    VaryStar,
    /// It varies, and the fields of the request are not known.
    RequestUnknown,
    /// It has more fields than can be kept.
    TooManyFields,
    /// Its key was purged after the origin was asked.
    Purged,
    /// The entry that was to be refreshed is gone.
    Vanished,
}

impl From<NoSelection> for Abandoned {
    fn from(reason: NoSelection) -> Self {
        match reason {
            NoSelection::Star => Self::VaryStar,
            NoSelection::RequestUnknown => Self::RequestUnknown,
        }
    }
}

/// A response that is being stored. No lookup finds it before [`Fill::finish`]; dropped before that,
/// it was cut, and none ever will. Who waits for it may read along: [`Fill::live`].
#[derive(Debug)]
pub struct Fill {
    tier: Memory,
    draft: Result<Box<Draft>, Abandoned>,
    live: Arc<Live>,
    /// Bytes of body that were given to it.
    received: u64,
    /// The most that it may have.
    largest: u64,
}

/// How long a reader of a body that cannot be stored may hold it up without reading a byte.
const PATIENCE: Duration = Duration::from_secs(10);

/// An entry but for its body.
#[derive(Debug)]
pub(super) struct Draft {
    /// The key, then the lines of the head.
    text: Vec<u8>,
    key_end: u32,
    head_end: u32,
    resource: Option<NonZeroU64>,
    route: Option<Arc<str>>,
    selection: Selection,
    head: Head,
    times: Times,
    asked: Generation,
    /// Pays for all but the body.
    charge: Charge,
}

/// The largest body that is kept beside its head, in bytes; those who only read it keep both.
const LARGEST_WITHIN: u64 = 16 << 10;

impl Draft {
    /// Reserves room for all but the body and copies it.
    pub(super) fn new(
        tier: &Memory,
        arrival: &Arrival<'_>,
        selection: Selection,
    ) -> Result<Self, Abandoned> {
        let len = arrival.key.len().saturating_add(Head::text_len(arrival.headers));
        let head_end = u32::try_from(len).map_err(|_| Abandoned::TooManyFields)?;
        let resource =
            arrival.belonging.resource_in(arrival.key).map(|front| tier.resource_hash(front));
        let cost = ENTRY_OVERHEAD
            .saturating_add(allocated(len).saturating_add(OWNER))
            .saturating_add(resource.map_or(0, |_| PARTED_OVERHEAD))
            .saturating_add(selection.cost());
        let mut charge = tier.charge(arrival.key);
        if !tier.reserve(&mut charge, cost) {
            return Err(Abandoned::NoRoom);
        }
        let mut text = Vec::with_capacity(len);
        text.extend_from_slice(arrival.key);
        let head = Head::write(arrival.status, arrival.headers, &mut text)
            .map_err(|_| Abandoned::TooManyFields)?;
        Ok(Self {
            text,
            key_end: head_end.min(u32::try_from(arrival.key.len()).unwrap_or(u32::MAX)),
            head_end,
            resource,
            route: arrival.belonging.route.map(Arc::clone),
            selection,
            head,
            times: arrival.times,
            asked: arrival.asked,
            charge,
        })
    }

    /// The same, of this resource.
    pub(super) fn of_resource(self, resource: Option<NonZeroU64>) -> Self {
        Self { resource, ..self }
    }

    /// The fields, in memory of their own.
    fn headers(&self) -> HeaderMap {
        let lines = self.text.get(self.key_end as usize..).unwrap_or_default();
        self.head.fields(&Bytes::copy_from_slice(lines), |_| true)
    }

    /// The base key.
    pub(super) fn key(&self) -> &[u8] {
        self.text.get(..self.key_end as usize).unwrap_or_default()
    }

    /// The entry with this body, as number `id` under this hash.
    ///
    /// # Errors
    /// The body is beside another head, and there is no room for a copy of it.
    pub(super) fn complete(
        mut self,
        tier: &Memory,
        hash: u64,
        id: u64,
        body: Body,
        body_cost: u64,
    ) -> Result<Entry, Abandoned> {
        let (body, body_cost) = self.take_in(tier, body, body_cost)?;
        let stored = nanos_since_1970(self.times.responded);
        let own_cost = u32::try_from(self.charge.bytes()).map_err(|_| Abandoned::TooManyFields)?;
        let record = paid(self.text.into_boxed_slice(), self.charge);
        let body = body.unwrap_or_else(|| Body::One(record.slice(self.head_end as usize..)));
        Ok(Entry {
            hash,
            record,
            key_end: self.key_end,
            head_end: self.head_end,
            resource: self.resource,
            route: self.route,
            id,
            asked: self.asked,
            head: self.head,
            selection: self.selection,
            times: self.times.into(),
            body,
            body_cost,
            own_cost,
            usage: Usage { last: AtomicU64::new(stored), ..Usage::default() },
            stale_since: AtomicU64::new(u64::MAX),
            compared: AtomicU64::new(0),
        })
    }

    /// Copies a small body behind the head where that is cheaper than to keep it by itself, and where
    /// it is beside another head (it costs nothing then). `None`: it is there now.
    fn take_in(
        &mut self,
        tier: &Memory,
        body: Body,
        body_cost: u64,
    ) -> Result<(Option<Body>, u64), Abandoned> {
        let Body::One(bytes) = &body else { return Ok((Some(body), body_cost)) };
        let is_within = body_cost == 0;
        let apart = allocated(self.text.len());
        let together = allocated(self.text.len().saturating_add(bytes.len()));
        let more = together.saturating_sub(apart);
        if !is_within && (body.len() > LARGEST_WITHIN || more > body_cost) {
            return Ok((Some(body), body_cost));
        }
        match tier.reserve(&mut self.charge, more) {
            true => {}
            false if is_within => return Err(Abandoned::NoRoom),
            false => return Ok((Some(body), body_cost)),
        }
        let mut text = Vec::with_capacity(self.text.len().saturating_add(bytes.len()));
        text.extend_from_slice(&self.text);
        text.extend_from_slice(bytes);
        self.text = text;
        Ok((None, 0))
    }
}

impl Fill {
    pub(super) fn new(tier: &Memory, arrival: &Arrival<'_>) -> Result<Self, Abandoned> {
        let largest = tier.largest(arrival.key).min(arrival.largest);
        if arrival.length.is_some_and(|length| length > largest) {
            return Err(Abandoned::TooLarge);
        }
        let selection = Selection::new(arrival.headers, arrival.request)?;
        Self::selected(tier, arrival, selection)
    }

    /// The same, selected so.
    pub(super) fn selected(
        tier: &Memory,
        arrival: &Arrival<'_>,
        selection: Selection,
    ) -> Result<Self, Abandoned> {
        let largest = tier.largest(arrival.key).min(arrival.largest);
        let draft = Draft::new(tier, arrival, selection)?;
        let about = About {
            status: arrival.status,
            headers: draft.headers(),
            times: arrival.times,
            length: arrival.length,
            asked: arrival.asked,
            selection: draft.selection.clone(),
        };
        let live = Live::new(about, Gather::new(tier.charge(arrival.key), arrival.length));
        Ok(Self { tier: tier.clone(), draft: Ok(Box::new(draft)), live, received: 0, largest })
    }

    /// The response as it arrives, for those who do not want to wait for its end.
    pub fn live(&self) -> &Arc<Live> {
        &self.live
    }

    /// The bytes of body taken so far; zero once abandoned.
    pub fn len(&self) -> u64 {
        self.live.growing_len().unwrap_or(0)
    }

    /// Whether no body was taken yet, or the fill is abandoned.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the body is as long as was announced.
    pub fn is_complete(&self) -> bool {
        self.live.is_complete()
    }

    /// Copies the next bytes of the body, evicting others for them where it must.
    ///
    /// # Errors
    /// Why the fill is abandoned, now or earlier. What it held is released already, but for what
    /// is still being read; [`Fill::pass`] goes on for those who read along.
    pub fn push(&mut self, data: &[u8]) -> Result<(), Abandoned> {
        if let Err(reason) = &self.draft {
            return Err(*reason);
        }
        let (tier, largest) = (&self.tier, self.largest);
        let pushed = self.live.push(|body| push(body, tier, largest, data));
        if pushed.is_ok() {
            self.received += data.len() as u64;
        }
        pushed.map_err(|reason| {
            // What arrived so far is whole, and is passed on; a wrong length is nobody's to read.
            match reason {
                Abandoned::WrongLength => self.live.cut(),
                _ => self.live.give_up_storing(),
            }
            self.abandon(reason)
        })
    }

    /// The next bytes of a body that is not stored any more: for those who read along, at the pace of
    /// the slowest of them. The first are those that [`Fill::push`] failed to take.
    pub async fn pass(&mut self, data: Bytes) {
        let at = self.received;
        self.received += data.len() as u64;
        self.live.pass(at, data);
        self.live.read_up(PATIENCE).await;
    }

    /// The body ended as its framing says: makes the entry visible and returns it.
    ///
    /// # Errors
    /// Why it is not: abandoned earlier, not of the announced length, or purged meanwhile.
    pub fn finish(mut self) -> Result<Arc<Entry>, Abandoned> {
        let sealed = self.live.seal();
        let draft = *std::mem::replace(&mut self.draft, Err(Abandoned::Cut))?;
        let outcome = match sealed {
            Some((body, cost)) => self.tier.admit(draft, body, cost),
            None => Err(Abandoned::WrongLength),
        };
        if outcome.is_err() {
            self.tier.count_aborted();
        }
        outcome
    }

    fn abandon(&mut self, reason: Abandoned) -> Abandoned {
        if self.draft.is_ok() {
            self.tier.count_aborted();
        }
        self.draft = Err(reason);
        reason
    }
}

impl Drop for Fill {
    fn drop(&mut self) {
        // Without effect on what was finished.
        self.live.cut();
        self.abandon(Abandoned::Cut);
    }
}

fn push(body: &mut Gather, tier: &Memory, largest: u64, data: &[u8]) -> Result<(), Abandoned> {
    let after = body.len().saturating_add(data.len() as u64);
    if body.expected().is_some_and(|expected| after > expected) {
        return Err(Abandoned::WrongLength);
    }
    if after > largest {
        return Err(Abandoned::TooLarge);
    }
    body.push(data, |charge, bytes| tier.reserve(charge, bytes)).map_err(|_| Abandoned::NoRoom)
}

/// Carries the use counts of an entry over to the one that replaces it.
pub(super) fn inherit(new: &Usage, old: &Usage) {
    for (new, old) in [(&new.hits, &old.hits), (&new.last, &old.last), (&new.mark, &old.mark)] {
        new.store(old.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}
