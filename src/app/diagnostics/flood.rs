//! How often one thing is said.
//!
//! Libraries warn of what clients and origins send: a line for each response, if somebody wants that. What
//! is said at one place of their code is told a few times a minute, and then counted.

use std::collections::HashMap;
use std::time::Duration;
use std::time::Instant;

/// For so long it is counted what is said.
const WINDOW: Duration = Duration::from_secs(60);
/// So often in that time one thing is told.
const MOST: u32 = 5;
/// The most places that are told apart; what is said at others is one thing.
const PLACES: usize = 256;

/// Where in the code something is said.
pub(super) type Place = (String, u32);

/// What becomes of what is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is told. So much more was said before, and not told.
    Tell {
        /// In the window before this one.
        untold: u64,
    },
    /// It is told, and that more of it will not be.
    TellLast,
    /// It is counted.
    Count,
}

/// What was said lately.
#[derive(Debug, Default)]
pub(super) struct Flood {
    said: HashMap<Place, Said>,
}

#[derive(Debug)]
struct Said {
    since: Instant,
    times: u32,
    untold: u64,
}

impl Flood {
    /// Something is said at this place.
    pub(super) fn say(&mut self, place: Place, now: Instant) -> Verdict {
        let known = self.said.contains_key(&place) || self.said.len() < PLACES;
        let place = if known { place } else { Place::default() };
        let said = self.said.entry(place).or_insert(Said { since: now, times: 0, untold: 0 });
        let untold = if now.saturating_duration_since(said.since) >= WINDOW {
            (said.since, said.times) = (now, 0);
            std::mem::take(&mut said.untold)
        } else {
            0
        };
        said.times = said.times.saturating_add(1);
        match said.times {
            times if times < MOST => Verdict::Tell { untold },
            MOST => Verdict::TellLast,
            _ => {
                said.untold += 1;
                Verdict::Count
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(line: u32) -> Place {
        ("library".to_owned(), line)
    }

    #[test]
    fn what_is_said_often_is_told_a_few_times_and_then_counted() {
        let (mut flood, now) = (Flood::default(), Instant::now());
        for _ in 1..MOST {
            assert_eq!(flood.say(at(1), now), Verdict::Tell { untold: 0 });
        }
        assert_eq!(flood.say(at(1), now), Verdict::TellLast);
        for _ in 0..7 {
            assert_eq!(flood.say(at(1), now), Verdict::Count);
        }
        assert_eq!(flood.say(at(2), now), Verdict::Tell { untold: 0 }, "another place");
        let almost = now + WINDOW - Duration::from_nanos(1);
        assert_eq!(flood.say(at(1), almost), Verdict::Count);
        assert_eq!(flood.say(at(1), now + WINDOW), Verdict::Tell { untold: 8 });
        assert_eq!(flood.say(at(1), now + WINDOW), Verdict::Tell { untold: 0 });
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (mut flood, now) = (Flood::default(), Instant::now());
        for line in 0..10 * u32::try_from(PLACES).unwrap() {
            flood.say(at(line), now);
        }
        assert_eq!(flood.said.len(), PLACES + 1);
        assert_eq!(flood.say(at(u32::MAX), now), Verdict::Count);
    }
}
