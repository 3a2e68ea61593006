//! The state of a breaker in 64 bits, so that it changes as a whole.

use std::time::Duration;

/// The most that a count can be.
pub(super) const MOST: u32 = (1 << COUNT) - 1;

/// Bits of a count of probes.
const COUNT: u32 = 6;
/// Bits of the round.
const ROUND: u32 = 12;
/// Bits of the time in milliseconds: more than eight years.
const TIME: u32 = 38;

const CLOSED: u64 = 0;
const OPEN: u64 = 1;
const HALF_OPEN: u64 = 2;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Closed,
    Open,
    HalfOpen,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Word {
    pub(super) phase: Phase,
    /// Grows with every change of phase, and when probes are given up for lost. It starts over after
    /// 4096; nobody is that late.
    pub(super) round: u16,
    /// Open: until when. Half-open: when the last probe passed. In milliseconds.
    milliseconds: u64,
    /// How many probes are out.
    pub(super) taken: u32,
    /// How many probes have succeeded.
    pub(super) won: u32,
}

impl Word {
    pub(super) fn closed(round: u16) -> Self {
        Self { phase: Phase::Closed, round, milliseconds: 0, taken: 0, won: 0 }
    }

    pub(super) fn open(round: u16, until: Duration) -> Self {
        Self { phase: Phase::Open, round, milliseconds: milliseconds(until), taken: 0, won: 0 }
    }

    pub(super) fn half_open(round: u16, last: Duration, taken: u32, won: u32) -> Self {
        Self { phase: Phase::HalfOpen, round, milliseconds: milliseconds(last), taken, won }
    }

    pub(super) fn time(self) -> Duration {
        Duration::from_millis(self.milliseconds)
    }

    pub(super) fn next_round(self) -> u16 {
        (self.round + 1) & ((1 << ROUND) - 1)
    }

    pub(super) fn pack(self) -> u64 {
        let phase = match self.phase {
            Phase::Closed => CLOSED,
            Phase::Open => OPEN,
            Phase::HalfOpen => HALF_OPEN,
        };
        let fields = [
            (u64::from(self.taken), COUNT),
            (u64::from(self.won), COUNT),
            (u64::from(self.round), ROUND),
            (self.milliseconds, TIME),
        ];
        fields.iter().fold(phase, |word, (field, bits)| word << bits | field)
    }

    pub(super) fn unpack(word: u64) -> Self {
        let mut rest = word;
        let mut field = |bits: u32| {
            let field = rest & ((1 << bits) - 1);
            rest >>= bits;
            field
        };
        let milliseconds = field(TIME);
        let round = field(ROUND) as u16;
        let won = field(COUNT) as u32;
        let taken = field(COUNT) as u32;
        let phase = match rest {
            OPEN => Phase::Open,
            HALF_OPEN => Phase::HalfOpen,
            // The one that is left, since nothing but `pack` writes words.
            _ => Phase::Closed,
        };
        Self { phase, round, milliseconds, taken, won }
    }
}

/// Rounded up, so that nothing ends too early.
fn milliseconds(time: Duration) -> u64 {
    let milliseconds = time.as_nanos().div_ceil(1_000_000);
    u64::try_from(milliseconds).unwrap_or(u64::MAX).min((1 << TIME) - 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_packed_is_unpacked_again(
            phase in prop_oneof![Just(Phase::Closed), Just(Phase::Open), Just(Phase::HalfOpen)],
            round in 0_u16..1 << ROUND,
            milliseconds in 0_u64..1 << TIME,
            taken in 0..=MOST,
            won in 0..=MOST,
        ) {
            let word = Word { phase, round, milliseconds, taken, won };
            prop_assert_eq!(Word::unpack(word.pack()), word);
        }
    }

    #[test]
    fn times_are_rounded_up_and_the_longest_is_the_last_that_fits() {
        assert_eq!(Word::open(1, Duration::from_nanos(1)).time(), Duration::from_millis(1));
        assert_eq!(Word::open(1, Duration::from_millis(7)).time(), Duration::from_millis(7));
        let last = Word::open(1, Duration::MAX);
        assert_eq!(Word::unpack(last.pack()), last);
        assert!(last.time() > Duration::from_secs(8 * 365 * 86_400));
    }

    #[test]
    fn rounds_start_over() {
        assert_eq!(Word::closed((1 << ROUND) - 1).next_round(), 0);
    }
}
