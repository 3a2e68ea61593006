//! A response that is still arriving, read by those who did not want to wait for its end.
//!
//! Readers start at the first byte and go at their own pace: what has arrived stays until the body
//! is whole, so a slow reader or one that leaves harms nobody. When the tier has no room for the
//! rest, the body is not stored, but it still reaches those who read it: what all of them have read
//! is let go of, and the origin is not read further ahead of the slowest than [`AHEAD`].

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http::StatusCode;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::storage::memory::Generation;
use crate::storage::memory::Times;
use crate::storage::memory::body::Body;
use crate::storage::memory::body::Gather;
use crate::storage::memory::select::Selection;
use crate::storage::memory::select::Selector;

/// How far an origin is read ahead of the slowest reader of a body that is not stored, in bytes.
const AHEAD: u64 = 256 * 1024;

/// A response that is arriving, or has arrived.
#[derive(Debug)]
pub struct Live {
    status: StatusCode,
    headers: HeaderMap,
    times: Times,
    length: Option<u64>,
    asked: Generation,
    selection: Selection,
    state: Mutex<State>,
    /// Bytes arrived, or the end did; or readers went on.
    changed: Notify,
}

#[derive(Debug)]
struct State {
    body: Arriving,
    /// Where each reader stands.
    readers: Vec<(u64, u64)>,
    last_reader: u64,
}

#[derive(Debug)]
enum Arriving {
    /// It is being stored.
    Growing(Gather),
    /// It is whole.
    Whole(Body),
    /// It is not stored, but read.
    Passing(Passing),
    /// It was cut.
    Cut,
}

/// What is left of a body for which there is no room.
#[derive(Debug, Default)]
struct Passing {
    /// Where the first part begins.
    start: u64,
    parts: VecDeque<Bytes>,
    len: u64,
    ended: bool,
}

/// The response was cut before its end, or its reader was too slow for what is not stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut;

/// What is known of a response beside its body.
pub(super) struct About {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) times: Times,
    pub(super) length: Option<u64>,
    pub(super) asked: Generation,
    pub(super) selection: Selection,
}

impl Live {
    pub(super) fn new(about: About, body: Gather) -> Arc<Self> {
        let About { status, headers, times, length, asked, selection } = about;
        let state = State { body: Arriving::Growing(body), readers: Vec::new(), last_reader: 0 };
        Arc::new(Self {
            status,
            headers,
            times,
            length,
            asked,
            selection,
            state: Mutex::new(state),
            changed: Notify::new(),
        })
    }

    /// The status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The fields as they are stored.
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// Its times.
    pub fn times(&self) -> Times {
        self.times
    }

    /// The length of the body in bytes, where it was announced or is known by now.
    pub fn length(&self) -> Option<u64> {
        match &self.state.lock().body {
            Arriving::Whole(body) => Some(body.len()),
            Arriving::Growing(_) | Arriving::Passing(_) | Arriving::Cut => self.length,
        }
    }

    /// Where the sequence of purges stood when the origin was asked.
    pub fn asked(&self) -> Generation {
        self.asked
    }

    /// Whether a request with these fields selects it (RFC 9111 §4.1).
    pub fn selects(&self, request: &HeaderMap) -> bool {
        Selector::new(Some(request)).selects(&self.selection)
    }

    /// Whether it is being stored, and is as long as was announced.
    pub(super) fn is_complete(&self) -> bool {
        match &self.state.lock().body {
            Arriving::Growing(gather) => gather.expected() == Some(gather.len()),
            Arriving::Whole(_) | Arriving::Passing(_) | Arriving::Cut => false,
        }
    }

    /// Whether anybody reads it.
    pub fn is_read(&self) -> bool {
        !self.state.lock().readers.is_empty()
    }

    /// Whether what comes from now on is for nobody: it is not stored, and nobody reads it.
    #[must_use]
    pub fn is_for_nobody(&self) -> bool {
        let state = self.state.lock();
        match &state.body {
            Arriving::Growing(_) | Arriving::Whole(_) => false,
            Arriving::Passing(_) | Arriving::Cut => state.readers.is_empty(),
        }
    }

    /// Whether it is still arriving, and being stored.
    pub fn is_growing(&self) -> bool {
        self.growing_len().is_some()
    }

    /// Reads the body from its start; `None` when its start is gone, or it was cut.
    pub fn reader(self: &Arc<Self>) -> Option<LiveReader> {
        let mut state = self.state.lock();
        match &state.body {
            Arriving::Growing(_) | Arriving::Whole(_) => {}
            Arriving::Passing(passing) if passing.start == 0 => {}
            Arriving::Passing(_) | Arriving::Cut => return None,
        }
        state.last_reader += 1;
        let id = state.last_reader;
        state.readers.push((id, 0));
        Some(LiveReader { live: Arc::clone(self), id, at: 0, end: u64::MAX })
    }

    /// Appends to what is being stored.
    pub(super) fn push<E>(&self, grow: impl FnOnce(&mut Gather) -> Result<(), E>) -> Result<(), E> {
        let mut state = self.state.lock();
        let pushed = match &mut state.body {
            Arriving::Growing(gather) => grow(gather),
            Arriving::Whole(_) | Arriving::Passing(_) | Arriving::Cut => Ok(()),
        };
        drop(state);
        self.changed.notify_waiters();
        pushed
    }

    /// How much has arrived of what is being stored; `None` once nothing is.
    pub(super) fn growing_len(&self) -> Option<u64> {
        match &self.state.lock().body {
            Arriving::Growing(gather) => Some(gather.len()),
            Arriving::Whole(_) | Arriving::Passing(_) | Arriving::Cut => None,
        }
    }

    /// The body ended as its framing says: takes it out, leaving a share to the readers. `None` when
    /// it is not of the announced length, or is not being stored.
    pub(super) fn seal(&self) -> Option<(Body, u64)> {
        let mut state = self.state.lock();
        let sealed = match std::mem::replace(&mut state.body, Arriving::Cut) {
            Arriving::Growing(gather)
                if gather.expected().is_none_or(|expected| expected == gather.len()) =>
            {
                let (body, cost) = gather.finish();
                state.body = Arriving::Whole(body.clone());
                Some((body, cost))
            }
            Arriving::Passing(mut passing) => {
                passing.ended = true;
                state.body = Arriving::Passing(passing);
                None
            }
            Arriving::Growing(_) | Arriving::Whole(_) | Arriving::Cut => None,
        };
        drop(state);
        self.changed.notify_waiters();
        sealed
    }

    /// There is no room for more: what has arrived is passed on to its readers and not stored.
    pub(super) fn give_up_storing(&self) {
        let mut state = self.state.lock();
        state.body = match std::mem::replace(&mut state.body, Arriving::Cut) {
            Arriving::Growing(gather) => Arriving::Passing(Passing::of(gather)),
            other @ (Arriving::Whole(_) | Arriving::Passing(_) | Arriving::Cut) => other,
        };
        state.let_go();
        drop(state);
        self.changed.notify_waiters();
    }

    /// More of a body that is not stored: what begins at byte `at`. A part of it may have been taken
    /// before room ran out.
    pub(super) fn pass(&self, at: u64, mut data: Bytes) {
        let mut state = self.state.lock();
        if let Arriving::Passing(passing) = &mut state.body {
            let taken = usize::try_from(passing.len.saturating_sub(at)).unwrap_or(usize::MAX);
            let rest = data.split_off(taken.min(data.len()));
            if !rest.is_empty() {
                passing.len += rest.len() as u64;
                passing.parts.push_back(rest);
            }
        }
        state.let_go();
        drop(state);
        self.changed.notify_waiters();
    }

    /// Waits until the readers of a body that is not stored have read most of it; who reads nothing
    /// at all for `patience` loses his place.
    pub(super) async fn read_up(&self, patience: Duration) {
        let mut seen = None;
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let slowest = {
                let state = self.state.lock();
                let Arriving::Passing(passing) = &state.body else { return };
                let slowest = state.readers.iter().min_by_key(|(_, at)| *at).copied();
                match slowest {
                    Some((_, at)) if passing.len - at > AHEAD => slowest,
                    Some(_) | None => return,
                }
            };
            if tokio::time::timeout(patience, changed).await.is_err() && seen == slowest {
                let mut state = self.state.lock();
                state.readers.retain(|reader| Some(*reader) != slowest);
                state.let_go();
            }
            seen = slowest;
        }
    }

    /// The body was cut.
    pub(super) fn cut(&self) {
        let mut state = self.state.lock();
        match &state.body {
            Arriving::Whole(_) => return,
            Arriving::Passing(passing) if passing.ended => return,
            Arriving::Growing(_) | Arriving::Passing(_) | Arriving::Cut => {}
        }
        state.body = Arriving::Cut;
        drop(state);
        self.changed.notify_waiters();
    }
}

impl Passing {
    fn of(gather: Gather) -> Self {
        let len = gather.len();
        let (body, _) = gather.finish();
        let mut parts = VecDeque::new();
        let mut at = 0;
        while let Some(part) = body.slice(at, len) {
            at += part.len() as u64;
            parts.push_back(part);
        }
        Self { start: 0, parts, len, ended: false }
    }

    fn slice(&self, at: u64, end: u64) -> Option<Bytes> {
        let mut start = self.start;
        for part in &self.parts {
            let behind = start + part.len() as u64;
            if at < behind && at < end {
                let from = usize::try_from(at.checked_sub(start)?).ok()?;
                let most = usize::try_from(end - start).unwrap_or(usize::MAX);
                return Some(part.slice(from..most.min(part.len())));
            }
            start = behind;
        }
        None
    }
}

impl State {
    /// Frees what every reader has read of a body that is not stored.
    fn let_go(&mut self) {
        let Arriving::Passing(passing) = &mut self.body else { return };
        let slowest = self.readers.iter().map(|(_, at)| *at).min().unwrap_or(passing.len);
        while let Some(first) = passing.parts.front()
            && passing.start + first.len() as u64 <= slowest
        {
            passing.start += first.len() as u64;
            passing.parts.pop_front();
        }
    }
}

/// Reads a response that is arriving, from its first byte, at its own pace.
#[derive(Debug)]
pub struct LiveReader {
    live: Arc<Live>,
    id: u64,
    at: u64,
    end: u64,
}

impl LiveReader {
    /// Starts at byte `start` instead and stops before `end`. What lies before is waited for, too.
    pub fn seek(&mut self, start: u64, end: u64) {
        (self.at, self.end) = (start, end);
    }

    /// The next bytes, at most one segment of them; `None` at the end. They are waited for.
    ///
    /// # Errors
    /// The response was cut, or this reader was too slow for what is not stored.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Cut> {
        loop {
            if self.at >= self.end {
                return Ok(None);
            }
            let live = Arc::clone(&self.live);
            let changed = live.changed.notified();
            tokio::pin!(changed);
            // Before looking, so that nothing that changes from here on is missed.
            changed.as_mut().enable();
            if let Some(found) = self.look() {
                return found;
            }
            changed.await;
        }
    }

    /// What there is; `None`: nothing yet.
    fn look(&mut self) -> Option<Result<Option<Bytes>, Cut>> {
        let mut state = self.live.state.lock();
        let (part, over) = match &state.body {
            Arriving::Growing(gather) => (gather.slice(self.at, self.end), false),
            Arriving::Whole(body) => (body.slice(self.at, self.end), true),
            Arriving::Passing(passing) => {
                if !state.readers.iter().any(|(id, _)| *id == self.id) {
                    return Some(Err(Cut));
                }
                (passing.slice(self.at, self.end), passing.ended)
            }
            Arriving::Cut => return Some(Err(Cut)),
        };
        let Some(part) = part else { return over.then_some(Ok(None)) };
        self.at += part.len() as u64;
        let (id, at) = (self.id, self.at);
        if let Some(place) = state.readers.iter_mut().find(|(reader, _)| *reader == id) {
            place.1 = at;
        }
        let passing = matches!(state.body, Arriving::Passing(_));
        if passing {
            state.let_go();
        }
        drop(state);
        if passing {
            self.live.changed.notify_waiters();
        }
        Some(Ok(Some(part)))
    }
}

impl Drop for LiveReader {
    fn drop(&mut self) {
        let mut state = self.live.state.lock();
        let id = self.id;
        state.readers.retain(|(reader, _)| *reader != id);
        state.let_go();
        drop(state);
        self.live.changed.notify_waiters();
    }
}
