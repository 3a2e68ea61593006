//! What is known of one backend by its checks.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::MutexGuard;

use super::Checker;
use crate::resilience::health::Assumed;
use crate::resilience::health::Change;
use crate::resilience::health::Checkup;
use crate::resilience::health::Outcome;
use crate::resilience::health::Settings;
use crate::resilience::health::State;

/// The checks of one backend.
#[derive(Debug)]
pub(in crate::upstream) struct Checks {
    checker: Arc<Checker>,
    /// Whoever has it checks; the others wait. After a reload the same, where that changes nothing of what is asked.
    turn: Arc<tokio::sync::Mutex<()>>,
    /// After a reload the same, whoever found it out.
    known: Arc<Mutex<Known>>,
}

#[derive(Debug)]
struct Known {
    checkup: Checkup,
    passed: u64,
    failed: u64,
    last: Option<Last>,
    error: Option<Arc<str>>,
}

/// The last check, by the time of the upstream.
#[derive(Debug, Clone)]
struct Last {
    began: Duration,
    ended: Duration,
    error: Option<Arc<str>>,
}

/// How a check went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// The backend, by the name that it has in logs.
    pub backend: Arc<str>,
    /// Why it failed; `None`: it passed.
    pub error: Option<Arc<str>>,
    /// How long it took.
    pub took: Duration,
    /// What is thought of the backend since.
    pub state: State,
}

/// What the checks of a backend say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// What is thought of it.
    pub state: State,
    /// How many checks in a row passed, up to the last one.
    pub passed_in_a_row: u32,
    /// How many checks in a row failed, up to the last one.
    pub failed_in_a_row: u32,
    /// How many passed in all.
    pub passed: u64,
    /// How many failed in all.
    pub failed: u64,
    /// Why the last one failed that did.
    pub last_error: Option<Arc<str>>,
    /// How long the last one took; `None`: there was none.
    pub took: Option<Duration>,
    /// How long ago it ended.
    pub ago: Option<Duration>,
}

impl Checks {
    pub(in crate::upstream) fn new(checker: Arc<Checker>) -> Self {
        let checkup = Checkup::new(checker.settings().judged);
        let known = Known { checkup, passed: 0, failed: 0, last: None, error: None };
        Self { checker, turn: Arc::default(), known: Arc::new(Mutex::new(known)) }
    }

    /// By `checker`, those of a backend that was known before a reload: what was found out stays, also what is
    /// found out yet by those of before. One that was not checked served until now, so it does until a check says
    /// otherwise.
    pub(in crate::upstream) fn following(checker: Arc<Checker>, before: Option<&Self>) -> Self {
        let judged = checker.settings().judged;
        // What is asked otherwise is not waited for.
        let alike = before.filter(|before| before.checker.asks_as(&checker));
        let turn = alike.map(|before| Arc::clone(&before.turn)).unwrap_or_default();
        let known = match before {
            Some(before) => Arc::clone(&before.known),
            None => {
                let checkup = Checkup::new(Settings { initial: Assumed::Healthy, ..judged });
                let known = Known { checkup, passed: 0, failed: 0, last: None, error: None };
                Arc::new(Mutex::new(known))
            }
        };
        Self { checker, turn, known }
    }

    /// What was found out is judged by its settings from now on.
    pub(in crate::upstream) fn takes_over(&self) {
        self.known.lock().checkup.set(self.checker.settings().judged);
    }

    /// Whether a check of `other` is as good as one of these.
    pub(in crate::upstream) fn ask_as(&self, other: &Self) -> bool {
        self.checker.asks_as(&other.checker)
    }

    /// Who asks, to be kept.
    pub(in crate::upstream) fn checker_arc(&self) -> &Arc<Checker> {
        &self.checker
    }

    /// Who asks.
    pub(super) fn checker(&self) -> &Checker {
        &self.checker
    }

    /// The right to check.
    pub(super) async fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().await
    }

    /// The last check, if it began at `moment` or later.
    pub(super) fn since(&self, moment: Duration, backend: &Arc<str>) -> Option<Checked> {
        let known = self.known.lock();
        let last = known.last.as_ref().filter(|last| last.began >= moment)?;
        Some(Checked {
            backend: Arc::clone(backend),
            error: last.error.clone(),
            took: last.ended.saturating_sub(last.began),
            state: known.checkup.state(),
        })
    }

    /// Notes how a check went; `error` says why it failed.
    pub(super) fn note(
        &self,
        error: Option<Arc<str>>,
        began: Duration,
        ended: Duration,
        backend: &Arc<str>,
    ) -> (Checked, Option<Change>) {
        let mut known = self.known.lock();
        let outcome = if error.is_some() { Outcome::Failed } else { Outcome::Passed };
        match outcome {
            Outcome::Passed => known.passed += 1,
            Outcome::Failed => known.failed += 1,
        }
        let change = known.checkup.note(outcome);
        if error.is_some() {
            known.error.clone_from(&error);
        }
        known.last = Some(Last { began, ended, error: error.clone() });
        let checked = Checked {
            backend: Arc::clone(backend),
            error,
            took: ended.saturating_sub(began),
            state: known.checkup.state(),
        };
        (checked, change)
    }

    /// What they say.
    pub(in crate::upstream) fn report(&self, now: Duration) -> Health {
        let known = self.known.lock();
        let last = known.last.as_ref();
        Health {
            state: known.checkup.state(),
            passed_in_a_row: known.checkup.consecutive_successes(),
            failed_in_a_row: known.checkup.consecutive_failures(),
            passed: known.passed,
            failed: known.failed,
            last_error: known.error.clone(),
            took: last.map(|last| last.ended.saturating_sub(last.began)),
            ago: last.map(|last| now.saturating_sub(last.ended)),
        }
    }
}
