//! Whose turn it is where there are more requests than streams: first come, first served.
//!
//! Nobody is handed a place. Each looks whether there are more places than requests ahead of it, so that as many as there
//! is room for go on at once, and who gives up is passed over.

use std::collections::VecDeque;

/// Those who wait for a stream.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// The numbers that they drew, in order.
    line: VecDeque<u64>,
    last: u64,
}

impl Turns {
    /// Puts somebody at the end of the line; the number says who it is.
    pub(super) fn join(&mut self) -> u64 {
        self.last += 1;
        self.line.push_back(self.last);
        self.last
    }

    /// How many go before this one.
    pub(super) fn ahead_of(&self, number: u64) -> usize {
        self.line.partition_point(|one| *one < number)
    }

    /// This one waits no more.
    pub(super) fn leave(&mut self, number: u64) {
        if let Ok(at) = self.line.binary_search(&number) {
            self.line.remove(at);
        }
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.line.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_came_first_goes_first_and_who_leaves_is_passed_over() {
        let mut turns = Turns::default();
        let [one, two, three] = [(); 3].map(|()| turns.join());
        assert_eq!([one, two, three].map(|number| turns.ahead_of(number)), [0, 1, 2]);
        turns.leave(two);
        assert_eq!([one, three].map(|number| turns.ahead_of(number)), [0, 1]);
        turns.leave(one);
        turns.leave(one);
        let four = turns.join();
        assert_eq!([three, four].map(|number| turns.ahead_of(number)), [0, 1]);
        assert_eq!(turns.len(), 2);
    }
}
