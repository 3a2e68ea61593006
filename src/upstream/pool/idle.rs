//! The connections that wait for a request, on a shelf for each thread.
//!
//! A thread puts back to and takes from its own shelf, whose lock nobody else wants then, and looks at those of
//! others only where its own has nothing. Before it is said that there is none, all are looked at at once:
//! one that comes back while they are looked at one after the other must not be missed, or there would be more
//! connections than there may be.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use parking_lot::Mutex;
use parking_lot::MutexGuard;

use crate::message::ends::Ends;
use crate::socket::Idle;
use crate::upstream::line::Line;
use crate::upstream::pool::Settings;
use crate::upstream::worker::own;

/// How many shelves there are. With more threads than that some share one.
const SHELVES: usize = 16;

/// The idle connections of a pool.
#[derive(Debug)]
pub(super) struct Waiters {
    shelves: [Shelf; SHELVES],
    /// How many there are in all: never fewer than really are.
    count: AtomicUsize,
}

/// What one thread put there. On a cache line of its own.
#[derive(Debug)]
#[repr(align(64))]
struct Shelf(Mutex<Kept>);

/// What stands on a shelf.
#[derive(Debug)]
struct Kept {
    /// The connections, the one that came back last at the end.
    lines: VecDeque<Waiting>,
    /// What the pool allows: here as well, so that whoever puts one back has one thing to look at.
    settings: Settings,
}

/// A connection that waits.
pub(super) struct Waiting {
    pub(super) line: Box<Line>,
    /// When it came back.
    pub(super) since: Instant,
    /// From then on it is not used any more.
    pub(super) until: Option<Instant>,
}

impl fmt::Debug for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waiting").field("until", &self.until).finish_non_exhaustive()
    }
}

impl Waiting {
    /// The connection, if it may still be used and nothing has happened on it.
    pub(super) fn still_good(mut self, now: Instant) -> Option<Box<Line>> {
        if self.until.is_some_and(|until| until <= now) {
            return None;
        }
        match self.line.look() {
            Idle::Quiet => Some(self.line),
            Idle::Closed | Idle::Spoke => None,
        }
    }
}

impl Waiters {
    pub(super) fn new(settings: Settings) -> Self {
        let shelf = |_| Shelf(Mutex::new(Kept { lines: VecDeque::new(), settings }));
        Self { shelves: std::array::from_fn(shelf), count: AtomicUsize::new(0) }
    }

    /// What goes for what is put back from now on.
    pub(super) fn hold_to(&self, settings: Settings) {
        for shelf in &self.shelves {
            shelf.0.lock().settings = settings;
        }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    /// Puts one back, which its origin keeps for `patience`, as far as the pool's settings allow. Answers what is to be
    /// closed: this one, or an old one where there are too many.
    pub(super) fn put(
        &self,
        line: Box<Line>,
        patience: Option<Duration>,
        now: Instant,
    ) -> Option<Box<Line>> {
        self.put_to(own(), line, patience, now)
    }

    /// The same, to the shelf of this number.
    pub(super) fn put_to(
        &self,
        shelf: usize,
        line: Box<Line>,
        patience: Option<Duration>,
        now: Instant,
    ) -> Option<Box<Line>> {
        let mut shelf = self.shelves[shelf % SHELVES].0.lock();
        // Asked while the shelf is held: whoever forbids it empties the shelves afterwards.
        let Some(until) = allowed(&shelf.settings, &line, patience, now) else {
            drop(shelf);
            return Some(line);
        };
        let most = usize::try_from(shelf.settings.max_connections.max(1)).unwrap_or(usize::MAX);
        // Counted first, so that nobody who looks for it believes that there is none.
        let before = self.count.fetch_add(1, Ordering::AcqRel);
        shelf.lines.push_back(Waiting { line, since: now, until });
        let too_many = if before >= most { shelf.lines.pop_front() } else { None };
        if too_many.is_some() {
            self.taken(1);
        }
        too_many.map(|waiting| waiting.line)
    }

    /// Takes one that speaks for this client: the last that this thread put back, else one of another thread's.
    pub(super) fn take(&self, client: Option<Ends>) -> Option<Waiting> {
        self.take_from(own(), client)
    }

    /// The same, from the shelf of this number first.
    pub(super) fn take_from(&self, shelf: usize, client: Option<Ends>) -> Option<Waiting> {
        if self.len() == 0 {
            return None;
        }
        let one = one_after_the_other(shelf % SHELVES).find_map(|at| {
            let mut shelf = self.shelves[at].0.lock();
            of(&mut shelf.lines, client)
        });
        let one = one.or_else(|| {
            if self.len() == 0 {
                return None;
            }
            self.all().iter_mut().find_map(|shelf| of(&mut shelf.lines, client))
        });
        one.inspect(|_| self.taken(1))
    }

    /// Takes the one that came back first of all.
    pub(super) fn take_oldest(&self) -> Option<Waiting> {
        let mut all = self.all();
        let shelves = all.iter_mut().map(|shelf| &mut shelf.lines);
        let oldest = shelves.filter(|lines| !lines.is_empty());
        let oldest = oldest.min_by_key(|lines| lines.front().map(|waiting| waiting.since))?;
        oldest.pop_front().inspect(|_| self.taken(1))
    }

    /// Takes all of them.
    pub(super) fn take_all(&self) -> Vec<VecDeque<Waiting>> {
        let take = |shelf: &Shelf| std::mem::take(&mut shelf.0.lock().lines);
        let all: Vec<_> = self.shelves.iter().map(take).collect();
        self.taken(all.iter().map(VecDeque::len).sum());
        all
    }

    /// Takes in what was taken of others, as the newest ones.
    pub(super) fn add_all(&self, others: Vec<VecDeque<Waiting>>) {
        for (shelf, mut others) in self.shelves.iter().zip(others) {
            self.count.fetch_add(others.len(), Ordering::AcqRel);
            shelf.0.lock().lines.append(&mut others);
        }
    }

    /// Closes those that may not be used any more. They are taken one at a time, so that whoever needs one finds
    /// the others.
    pub(super) fn tidy(&self, now: Instant) {
        for shelf in &self.shelves {
            let mut at = 0;
            loop {
                let Some(waiting) = shelf.0.lock().lines.remove(at) else { break };
                let (since, until) = (waiting.since, waiting.until);
                let Some(line) = waiting.still_good(now) else {
                    self.taken(1);
                    continue;
                };
                let lines = &mut shelf.0.lock().lines;
                let back = at.min(lines.len());
                lines.insert(back, Waiting { line, since, until });
                at = back + 1;
            }
        }
    }

    /// All shelves, held in their order, so that no two who do this wait for each other.
    fn all(&self) -> Vec<MutexGuard<'_, Kept>> {
        self.shelves.iter().map(|shelf| shelf.0.lock()).collect()
    }

    fn taken(&self, count: usize) {
        self.count.fetch_sub(count, Ordering::AcqRel);
    }
}

/// Until when the connection may be used once it is put back, if it may at all.
fn allowed(
    settings: &Settings,
    line: &Line,
    patience: Option<Duration>,
    now: Instant,
) -> Option<Option<Instant>> {
    if settings.max_requests.is_some_and(|most| line.carried >= most) {
        return None;
    }
    let until = settings.until(line.born, patience, now);
    until.is_none_or(|until| until > now).then_some(until)
}

/// The last one of a shelf that speaks for this client.
fn of(lines: &mut VecDeque<Waiting>, client: Option<Ends>) -> Option<Waiting> {
    let at = lines.iter().rposition(|waiting| waiting.line.client == client)?;
    lines.remove(at)
}

/// All shelves, this one first.
fn one_after_the_other(first: usize) -> impl Iterator<Item = usize> {
    (first..SHELVES).chain(0..first)
}
