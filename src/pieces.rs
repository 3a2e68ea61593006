//! Memory that a thread keeps for the next who needs some of its kind.

use std::cell::RefCell;
use std::mem::ManuallyDrop;

/// How many pieces of a kind a thread keeps.
const MOST: usize = 8;

/// Pieces of one kind, for a thread-local variable.
///
/// What is kept is not given back when the thread ends: threads that serve requests live as long as the process, and a
/// variable without anything to do then needs no code for that wherever it is used.
#[derive(Debug)]
pub struct Pieces<T>(ManuallyDrop<RefCell<Vec<T>>>);

impl<T> Pieces<T> {
    /// None yet.
    #[must_use]
    pub const fn new() -> Self {
        Self(ManuallyDrop::new(RefCell::new(Vec::new())))
    }

    /// The one that was left last; `None` where there is none.
    #[must_use]
    pub fn take(&self) -> Option<T> {
        self.0.borrow_mut().pop()
    }

    /// Keeps `piece`, unless there are as many as are kept.
    pub fn leave(&self, piece: T) {
        let mut kept = self.0.borrow_mut();
        if kept.len() < MOST {
            kept.push(piece);
        }
    }
}

impl<T> Default for Pieces<T> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_one_comes_first_and_only_some_are_kept() {
        let pieces = Pieces::default();
        assert_eq!(pieces.take(), None);
        for n in 1..=2 * MOST {
            pieces.leave(n);
        }
        let taken: Vec<_> = std::iter::from_fn(|| pieces.take()).collect();
        assert_eq!(taken, (1..=MOST).rev().collect::<Vec<_>>());
    }
}
