//! Active health checks: what the results of one peer add up to.

/// How many results in a row change what is thought of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// How many passed checks in a row make an unhealthy peer healthy; at least 1.
    pub rise: u32,
    /// How many failed checks in a row make a healthy peer unhealthy; at least 1.
    pub fall: u32,
    /// What a new peer is taken for.
    pub initial: Assumed,
}

impl Default for Settings {
    /// Up after 2, down after 3, healthy at first.
    fn default() -> Self {
        Self { rise: 2, fall: 3, initial: Assumed::Healthy }
    }
}

/// What a peer is taken for before its first check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Assumed {
    /// It gets requests until checks say otherwise.
    Healthy,
    /// It waits for its first check, which decides alone.
    Unknown,
}

/// What is thought of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// It may be asked.
    Healthy,
    /// It may not.
    Unhealthy,
    /// It was not checked yet.
    Unknown,
}

impl State {
    /// The word for it in logs and metrics.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
            Self::Unknown => "unknown",
        }
    }
}

/// How a check went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// As it should.
    Passed,
    /// Otherwise.
    Failed,
}

/// What a result changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// What was thought of the peer.
    pub from: State,
    /// What is thought of it now.
    pub to: State,
}

/// The checks of one peer so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checkup {
    settings: Settings,
    state: State,
    passed: u32,
    failed: u32,
}

impl Checkup {
    /// A peer that was not checked yet.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let state = match settings.initial {
            Assumed::Healthy => State::Healthy,
            Assumed::Unknown => State::Unknown,
        };
        Self { settings, state, passed: 0, failed: 0 }
    }

    /// Takes in a result and says what it changed, if anything.
    pub fn note(&mut self, outcome: Outcome) -> Option<Change> {
        match outcome {
            Outcome::Passed => {
                self.passed = self.passed.saturating_add(1);
                self.failed = 0;
            }
            Outcome::Failed => {
                self.failed = self.failed.saturating_add(1);
                self.passed = 0;
            }
        }
        let from = self.state;
        self.state = match (from, outcome) {
            (State::Unknown, Outcome::Passed) => State::Healthy,
            (State::Unknown, Outcome::Failed) => State::Unhealthy,
            (State::Unhealthy, Outcome::Passed) if self.passed >= self.settings.rise => {
                State::Healthy
            }
            (State::Healthy, Outcome::Failed) if self.failed >= self.settings.fall => {
                State::Unhealthy
            }
            (State::Healthy | State::Unhealthy, Outcome::Passed | Outcome::Failed) => from,
        };
        (self.state != from).then_some(Change { from, to: self.state })
    }

    /// Judges by other settings from now on. What is thought of the peer stays.
    pub fn set(&mut self, settings: Settings) {
        self.settings = settings;
    }

    /// What is thought of the peer.
    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    /// How many checks in a row passed, up to the last one.
    #[must_use]
    pub fn consecutive_successes(&self) -> u32 {
        self.passed
    }

    /// How many checks in a row failed, up to the last one.
    #[must_use]
    pub fn consecutive_failures(&self) -> u32 {
        self.failed
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Outcome::Failed;
    use super::Outcome::Passed;
    use super::*;

    fn checkup(rise: u32, fall: u32, initial: Assumed) -> Checkup {
        Checkup::new(Settings { rise, fall, initial })
    }

    #[test]
    fn a_healthy_peer_falls_at_the_last_of_its_failures_in_a_row() {
        let mut checkup = checkup(2, 3, Assumed::Healthy);
        assert_eq!(checkup.note(Failed), None);
        assert_eq!(checkup.note(Failed), None);
        assert_eq!(checkup.state(), State::Healthy);
        let change = Change { from: State::Healthy, to: State::Unhealthy };
        assert_eq!(checkup.note(Failed), Some(change));
        assert_eq!(checkup.note(Failed), None);
        assert_eq!(checkup.consecutive_failures(), 4);
    }

    #[test]
    fn one_success_between_failures_starts_the_count_over() {
        let mut checkup = checkup(1, 2, Assumed::Healthy);
        for outcome in [Failed, Passed, Failed, Passed, Failed] {
            assert_eq!(checkup.note(outcome), None);
        }
        assert_eq!(checkup.state(), State::Healthy);
    }

    #[test]
    fn an_unhealthy_peer_rises_at_the_last_of_its_successes_in_a_row() {
        let mut checkup = checkup(2, 1, Assumed::Healthy);
        assert!(checkup.note(Failed).is_some());
        assert_eq!(checkup.note(Passed), None);
        assert_eq!(checkup.consecutive_successes(), 1);
        let change = Change { from: State::Unhealthy, to: State::Healthy };
        assert_eq!(checkup.note(Passed), Some(change));
    }

    #[test]
    fn the_first_result_of_an_unknown_peer_decides_alone() {
        for (outcome, to) in [(Passed, State::Healthy), (Failed, State::Unhealthy)] {
            let mut checkup = checkup(5, 5, Assumed::Unknown);
            assert_eq!(checkup.state(), State::Unknown);
            assert_eq!(checkup.note(outcome), Some(Change { from: State::Unknown, to }));
        }
    }

    #[test]
    fn other_settings_leave_what_is_known() {
        let mut checkup = checkup(1, 1, Assumed::Healthy);
        assert!(checkup.note(Failed).is_some());
        checkup.set(Settings { rise: 2, fall: 1, initial: Assumed::Unknown });
        assert_eq!(checkup.state(), State::Unhealthy);
        assert_eq!(checkup.note(Passed), None);
        assert!(checkup.note(Passed).is_some());
    }

    proptest! {
        #[test]
        fn a_change_always_follows_enough_results_in_a_row_and_nothing_less(
            rise in 1_u32..5,
            fall in 1_u32..5,
            passed in proptest::collection::vec(any::<bool>(), 1..80),
        ) {
            let mut checkup = checkup(rise, fall, Assumed::Healthy);
            for at in 0..passed.len() {
                let before = checkup.state();
                let change = checkup.note(if passed[at] { Passed } else { Failed });
                let same = passed[..=at].iter().rev().take_while(|was| **was == passed[at]).count();
                let due = match before {
                    State::Healthy => !passed[at] && same >= fall as usize,
                    State::Unhealthy => passed[at] && same >= rise as usize,
                    State::Unknown => unreachable!("it was healthy at first"),
                };
                prop_assert_eq!(change.is_some(), due);
            }
        }
    }
}
