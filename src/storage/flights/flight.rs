//! One fetch under way, as those see it who wait for it.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use http::HeaderValue;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::cache::status::CacheStatus;
use crate::cache::status::Outcome;
use crate::cache::storable::Concerns;
use crate::refusal::Refusal;
use crate::storage::memory::Entry;
use crate::storage::memory::Generation;
use crate::storage::memory::Live;
use crate::storage::memory::LiveReader;
use crate::storage::memory::Observer;

/// One fetch under way.
#[derive(Debug)]
pub struct Flight {
    began: Generation,
    stage: watch::Sender<Stage>,
    over: watch::Sender<bool>,
    /// For whom it was begun.
    whose: Whose,
    /// The place of the one who began it among the readers: from the first byte on.
    first: Mutex<Option<LiveReader>>,
    told: Mutex<Told>,
}

/// For whom a fetch is begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whose {
    /// A request that waits for it.
    ARequests,
    /// Nobody: what is stored is refreshed in the background.
    Nobodys,
}

/// What has become of a fetch.
#[derive(Debug, Clone)]
pub enum Stage {
    /// The origin has not answered.
    Asking,
    /// Its response is being stored, and can be read along.
    Filling(Arc<Live>),
    /// What was stored is confirmed.
    Confirmed(Arc<Entry>),
    /// The response is not shared.
    Unshared,
    /// There is none.
    Failed,
}

/// What the one who asked learned, for those who wait.
#[derive(Debug, Clone, Default)]
pub struct Told {
    /// What the cache did, for Cache-Status and the log.
    pub status: CacheStatus,
    /// The same in one word.
    pub outcome: Option<Outcome>,
    /// Of whose requests it says something that the response is not stored, if it is not.
    pub concerns: Concerns,
    /// Why there is no response.
    pub refusal: Option<Refusal>,
    /// What the origin did.
    pub origin: Origin,
    /// The fields of its response that are not stored: for the one who began the fetch alone.
    pub private: HeaderMap,
    /// The cookie by which that one's client comes to its backend again.
    pub stick: Option<HeaderValue>,
}

/// What the origin did in a fetch, for the log.
#[derive(Debug, Clone, Default)]
pub struct Origin {
    /// The upstream that served it, where it is not simply the route's.
    pub upstream: Option<usize>,
    /// How often it was asked.
    pub attempts: u32,
    /// The address that answered, or was asked last.
    pub address: Option<Arc<str>>,
    /// How long it took to its header.
    pub took: Option<Duration>,
    /// The status it answered.
    pub status: Option<u16>,
    /// What became of a second backend that was asked as well.
    pub hedge: Option<&'static str>,
}

impl Flight {
    pub(super) fn new(began: Generation, whose: Whose) -> Self {
        Self {
            began,
            stage: watch::Sender::new(Stage::Asking),
            over: watch::Sender::new(false),
            whose,
            first: Mutex::default(),
            told: Mutex::default(),
        }
    }

    pub(super) fn whose(&self) -> Whose {
        self.whose
    }

    /// Where the sequence of purges stood when it began.
    pub fn began(&self) -> Generation {
        self.began
    }

    /// What has become of it.
    pub fn stage(&self) -> Stage {
        self.stage.borrow().clone()
    }

    /// Waits until more is known than that the origin was asked.
    pub async fn turned_out(&self) -> Stage {
        let mut stage = self.stage.subscribe();
        let known = stage.wait_for(|stage| !matches!(stage, Stage::Asking)).await;
        // The sender lives as long as `self`.
        known.map_or(Stage::Failed, |stage| stage.clone())
    }

    /// Waits until it is over: the origin's connection is free again, and all is told.
    pub async fn over(&self) {
        // The sender lives as long as `self`.
        let _ = self.over.subscribe().wait_for(|over| *over).await;
    }

    pub(super) fn end(&self) {
        self.turn_out(Stage::Failed);
        self.over.send_replace(true);
    }

    /// Whether what comes from now on is for nobody: it is too much to be stored, and all who read it are gone.
    #[must_use]
    pub fn is_for_nobody(&self) -> bool {
        match &*self.stage.borrow() {
            Stage::Filling(live) => live.is_for_nobody(),
            Stage::Asking | Stage::Confirmed(_) | Stage::Unshared | Stage::Failed => false,
        }
    }

    /// Whether anybody but the one who began it waits for it or reads along.
    pub(super) fn has_company(&self) -> bool {
        drop(self.first_reader());
        let reading = match &*self.stage.borrow() {
            Stage::Filling(live) => live.is_read(),
            Stage::Asking | Stage::Confirmed(_) | Stage::Unshared | Stage::Failed => false,
        };
        reading || self.stage.receiver_count() > 0
    }

    /// The reader of the one who began it, once.
    pub fn first_reader(&self) -> Option<LiveReader> {
        self.first.lock().take()
    }

    /// What the one who asked learned so far.
    pub fn told(&self) -> Told {
        self.told.lock().clone()
    }

    /// Tells those who wait.
    pub fn tell(&self, told: Told) {
        *self.told.lock() = told;
    }

    /// Whether a request with these fields may be answered by it.
    pub(super) fn may_suit(&self, request: &HeaderMap) -> bool {
        match &*self.stage.borrow() {
            Stage::Asking => true,
            Stage::Filling(live) => live.is_growing() && live.selects(request),
            Stage::Confirmed(_) | Stage::Unshared | Stage::Failed => false,
        }
    }

    /// The first that is known of the outcome stands; says whether this is it.
    pub fn turn_out(&self, new: Stage) -> bool {
        self.stage.send_if_modified(|stage| {
            let first = matches!(stage, Stage::Asking);
            if first {
                *stage = new;
            }
            first
        })
    }
}

impl Observer for Flight {
    fn filling(&self, live: &Arc<Live>) {
        if self.whose == Whose::ARequests {
            // From now on, lest its beginning is let go of when there is no room to store it.
            *self.first.lock() = live.reader();
        }
        self.turn_out(Stage::Filling(Arc::clone(live)));
    }

    fn confirmed(&self, entry: &Arc<Entry>) {
        self.turn_out(Stage::Confirmed(Arc::clone(entry)));
    }
}
