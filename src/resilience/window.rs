//! Two counts over the last while: how much happened, and how much of it was of note.

use std::array;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// In how many parts the while is cut. The oldest one is dropped as a whole, so what is summed up is
/// up to a tenth of the while shorter than it.
const PARTS: u64 = 10;

/// Bits of each count in a part; the rest of the word is the stamp.
const BITS: u32 = 24;

/// The most that a part counts, with room for threads that count at the same time.
const MOST: u64 = (1 << BITS) - (1 << 10);

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Count {
    /// Something happened.
    One,
    /// Something of note happened. It is not one of the others by itself.
    Noted,
}

impl Count {
    fn unit(self) -> u64 {
        match self {
            Self::One => 1,
            Self::Noted => 1 << BITS,
        }
    }
}

/// What was counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// How much happened.
    pub all: u64,
    /// How much of note happened.
    pub noted: u64,
}

/// Counts of the last while. Counting is one or two atomic operations on one word.
///
/// A part of the while counts up to about 16 million; what is more is not counted.
#[derive(Debug)]
pub struct Window {
    /// The length of a part in nanoseconds.
    part: AtomicU64,
    /// A stamp of 16 bits, then [`Count::Noted`], then [`Count::One`].
    parts: [AtomicU64; PARTS as usize],
}

impl Window {
    /// Nothing was counted yet.
    #[must_use]
    pub fn new(length: Duration) -> Self {
        let part = AtomicU64::new(part_of(length));
        Self { part, parts: array::from_fn(|_| AtomicU64::new(0)) }
    }

    /// The while is so long from now on. What was counted stays where it was so long before, and is forgotten else:
    /// it says nothing of other parts. What is counted at this moment may be forgotten, or be counted in a part of
    /// before.
    pub fn adjust(&self, length: Duration) {
        let part = part_of(length);
        if self.part.swap(part, Ordering::Relaxed) != part {
            self.clear();
        }
    }

    /// Counts.
    pub fn add(&self, count: Count, now: Duration) {
        let (word, stamp) = self.place(now);
        // Relaxed throughout: a word says all that there is to say about its part.
        let mut seen = word.load(Ordering::Relaxed);
        loop {
            if stamp_of(seen) == stamp {
                if is_full(seen) {
                    return;
                }
                // Should the part end at this moment, the next one has one more.
                word.fetch_add(count.unit(), Ordering::Relaxed);
                return;
            }
            let first = stamp << (2 * BITS) | count.unit();
            match word.compare_exchange_weak(seen, first, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return,
                Err(changed) => seen = changed,
            }
        }
    }

    /// Takes back what was counted at `now`, unless it is forgotten already.
    pub fn take_back(&self, count: Count, now: Duration) {
        let (word, stamp) = self.place(now);
        let less = |seen: u64| {
            let counts = counts_of(seen);
            let left = match count {
                Count::One => counts.all,
                Count::Noted => counts.noted,
            };
            (stamp_of(seen) == stamp && left > 0).then(|| seen - count.unit())
        };
        // An error says that it is forgotten.
        let _ = word.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }

    /// What was counted within the last while.
    #[must_use]
    pub fn sum(&self, now: Duration) -> Counts {
        let number = self.number(now);
        let mut sum = Counts::default();
        for back in 0..PARTS.min(number) {
            let number = number - back;
            let word = self.parts[(number % PARTS) as usize].load(Ordering::Relaxed);
            if stamp_of(word) == stamp(number) {
                let counts = counts_of(word);
                sum.all += counts.all;
                sum.noted += counts.noted;
            }
        }
        sum
    }

    /// Forgets everything.
    pub fn clear(&self) {
        for word in &self.parts {
            word.store(0, Ordering::Relaxed);
        }
    }

    /// The number of the part; the first one has the number 1, so that no stamp is there from the start.
    fn number(&self, now: Duration) -> u64 {
        let nanoseconds = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        (nanoseconds / self.part.load(Ordering::Relaxed)).saturating_add(1)
    }

    fn place(&self, now: Duration) -> (&AtomicU64, u64) {
        let number = self.number(now);
        (&self.parts[(number % PARTS) as usize], stamp(number))
    }
}

/// The length in nanoseconds of a part of so long a while.
fn part_of(length: Duration) -> u64 {
    u64::try_from(length.as_nanos() / u128::from(PARTS)).unwrap_or(u64::MAX).max(1)
}

/// How often the parts have been gone through. It starts over after 65,535 times; should a part be
/// met exactly then for the first time again, its old counts count for a while.
fn stamp(number: u64) -> u64 {
    (number / PARTS) % 0xFFFF + 1
}

fn stamp_of(word: u64) -> u64 {
    word >> (2 * BITS)
}

fn counts_of(word: u64) -> Counts {
    let mask = (1 << BITS) - 1;
    Counts { all: word & mask, noted: (word >> BITS) & mask }
}

fn is_full(word: u64) -> bool {
    let counts = counts_of(word);
    counts.all >= MOST || counts.noted >= MOST
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    const LENGTH: Duration = Duration::from_secs(10);

    fn seconds(value: u64) -> Duration {
        Duration::from_secs(value)
    }

    #[test]
    fn what_is_older_than_the_while_is_forgotten() {
        let window = Window::new(LENGTH);
        window.add(Count::One, seconds(0));
        window.add(Count::Noted, seconds(1));
        assert_eq!(window.sum(seconds(9)), Counts { all: 1, noted: 1 });
        assert_eq!(window.sum(seconds(10)), Counts { all: 0, noted: 1 });
        assert_eq!(window.sum(seconds(11)), Counts::default());
    }

    #[test]
    fn a_part_that_comes_round_again_begins_anew() {
        let window = Window::new(LENGTH);
        for _ in 0..5 {
            window.add(Count::One, seconds(3));
        }
        window.add(Count::One, seconds(13));
        assert_eq!(window.sum(seconds(13)).all, 1);
    }

    #[test]
    fn another_length_forgets_what_was_counted_and_the_same_one_does_not() {
        let window = Window::new(LENGTH);
        window.add(Count::One, seconds(3));
        window.adjust(LENGTH);
        assert_eq!(window.sum(seconds(3)).all, 1);
        window.adjust(seconds(100));
        assert_eq!(window.sum(seconds(3)), Counts::default());
        window.add(Count::One, seconds(4));
        assert_eq!(window.sum(seconds(99)).all, 1, "by the new length");
        assert_eq!(window.sum(seconds(100)).all, 0);
    }

    #[test]
    fn what_is_taken_back_was_never_there() {
        let window = Window::new(LENGTH);
        window.add(Count::Noted, seconds(4));
        window.take_back(Count::Noted, seconds(4));
        window.take_back(Count::Noted, seconds(4));
        assert_eq!(window.sum(seconds(4)), Counts::default());
    }

    #[test]
    fn a_full_part_does_not_run_over_into_its_neighbours() {
        let window = Window::new(LENGTH);
        window.add(Count::One, seconds(2));
        let (word, _) = window.place(seconds(2));
        word.fetch_add(MOST, Ordering::Relaxed);
        let before = word.load(Ordering::Relaxed);
        window.add(Count::One, seconds(2));
        window.add(Count::Noted, seconds(2));
        assert_eq!(word.load(Ordering::Relaxed), before);
    }

    #[test]
    fn threads_that_count_together_lose_nothing() {
        let window = Window::new(LENGTH);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for step in 0..10_000 {
                        let count = if step % 2 == 0 { Count::One } else { Count::Noted };
                        window.add(count, Duration::from_micros(step * 900));
                    }
                });
            }
        });
        assert_eq!(window.sum(seconds(9)), Counts { all: 20_000, noted: 20_000 });
    }

    proptest! {
        #[test]
        fn it_counts_what_a_list_of_everything_counts(
            steps in proptest::collection::vec((0_u64..4000, any::<bool>()), 1..200),
        ) {
            let window = Window::new(LENGTH);
            let mut happened = VecDeque::new();
            let mut now = 0;
            for (step, noted) in steps {
                now += step;
                let count = if noted { Count::Noted } else { Count::One };
                window.add(count, Duration::from_millis(now));
                happened.push_back((now / 1000, noted));
                let recent = happened.iter().filter(|(part, _)| part + 10 > now / 1000).copied();
                let (all, noted): (Vec<_>, Vec<_>) = recent.partition(|(_, noted): &(u64, bool)| !noted);
                let wanted = Counts { all: all.len() as u64, noted: noted.len() as u64 };
                prop_assert_eq!(window.sum(Duration::from_millis(now)), wanted);
            }
        }
    }
}
