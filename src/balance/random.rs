//! Random: each peer with the chance that its weight gives it, whatever came before.

use crate::balance::Ask;
use crate::balance::Peers;
use crate::balance::Seat;
use crate::balance::TRIES;
use crate::balance::chance::Chance;
use crate::balance::chance::among_usable;
use crate::balance::chance::draw;

/// Chooses by weight and chance alone.
#[derive(Debug)]
pub(super) struct Random {
    weights: Vec<u32>,
    table: AliasTable,
}

impl Random {
    pub(super) fn new(seats: &[Seat<'_>]) -> Self {
        let weights: Vec<u32> = seats.iter().map(|seat| seat.weight).collect();
        let table = AliasTable::new(&weights);
        Self { weights, table }
    }

    pub(super) fn pick(&self, ask: &Ask, peers: &impl Peers) -> Option<usize> {
        if self.table.is_empty() {
            return None;
        }
        let mut chance = Chance::new(ask.random);
        draw(TRIES, peers, &mut chance, |chance| self.table.draw(chance)).or_else(|| {
            among_usable(self.weights.iter().map(|&weight| weight.into()), peers, chance.next())
        })
    }
}

/// Draws numbers by weight in constant time (Walker's method, built as Vose does).
///
/// There are as many cells as peers, each of the mean weight. A cell holds one peer and, where that
/// is lighter than the mean, fills up with a part of a heavier one.
#[derive(Debug)]
pub(super) struct AliasTable {
    cells: Vec<Cell>,
}

#[derive(Debug, Clone, Copy)]
struct Cell {
    /// How much of the cell is its own peer's, of 2^32.
    own: u64,
    /// Whose the rest is.
    other: u32,
}

/// The whole of a cell.
const WHOLE: u64 = 1 << 32;

impl AliasTable {
    /// The table of these weights, exact up to one part in 2^32. A weight of 0 is never drawn.
    pub(super) fn new(weights: &[u32]) -> Self {
        let sum: u128 = weights.iter().map(|&weight| u128::from(weight)).sum();
        if sum == 0 {
            return Self { cells: Vec::new() };
        }
        let count = weights.len() as u128;
        // In units in which the mean weight is `sum`, so that all stays in whole numbers.
        let mut left: Vec<u128> = weights.iter().map(|&w| u128::from(w) * count).collect();
        let mut cells: Vec<Cell> =
            (0_u32..).zip(weights).map(|(peer, _)| Cell { own: WHOLE, other: peer }).collect();
        let (mut light, mut heavy): (Vec<usize>, Vec<usize>) =
            (0..weights.len()).partition(|&peer| left[peer] < sum);
        while let (Some(small), Some(&large)) = (light.pop(), heavy.last()) {
            let own = u64::try_from((left[small] << 32) / sum).unwrap_or(WHOLE);
            cells[small] = Cell { own, other: u32::try_from(large).unwrap_or(u32::MAX) };
            left[large] -= sum - left[small];
            if left[large] < sum {
                heavy.pop();
                light.push(large);
            }
        }
        Self { cells }
    }

    /// Whether there is nobody to draw.
    pub(super) fn is_empty(&self) -> bool {
        self.cells.is_empty()
    }

    /// A peer by weight. The table must not be empty.
    pub(super) fn draw(&self, chance: &mut Chance) -> usize {
        let number = chance.next();
        // The upper half of the number chooses the cell, the lower one says where in it.
        let at = (((number >> 32) * self.cells.len() as u64) >> 32) as usize;
        let cell = self.cells[at];
        if (number & (WHOLE - 1)) < cell.own { at } else { cell.other as usize }
    }
}
