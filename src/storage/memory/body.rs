//! Bodies as reference-counted segments: written once, handed out without copying.
//!
//! Every segment but the last is exactly [`SEGMENT`] bytes, so an offset finds its segment by
//! division, and a reader that stalls holds one segment in its socket queue and no more.

use std::sync::Arc;

use bytes::Bytes;

use crate::storage::memory::budget::Charge;
use crate::storage::memory::budget::allocated;

/// The size of every segment but the last, in bytes.
pub(super) const SEGMENT: usize = 64 * 1024;

/// What a segment costs beside its bytes: its place in the list and its shared owner.
pub(super) const SEGMENT_OVERHEAD: u64 = OWNER + 32;

/// What the shared owner of some bytes costs: their place, the charge, and two words to count with.
pub(super) const OWNER: u64 = 48;

/// The smallest buffer of a body whose length is unknown, in bytes.
const FIRST_GUESS: usize = 1024;

/// Bytes together with the charge that pays for them until the last reader lets go.
struct Paid {
    bytes: Box<[u8]>,
    _charge: Charge,
}

impl AsRef<[u8]> for Paid {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// `bytes` as a shared slice that stays on the bill of `charge` for as long as anyone holds it.
pub(super) fn paid(bytes: Box<[u8]>, charge: Charge) -> Bytes {
    Bytes::from_owner(Paid { bytes, _charge: charge })
}

/// A complete body. Cloning shares the segments.
#[derive(Debug, Clone)]
pub(super) enum Body {
    /// At most one segment, be it empty: the common case without a list.
    One(Bytes),
    Many {
        segments: Arc<[Bytes]>,
        len: u64,
    },
}

impl Body {
    /// The number of bytes.
    pub(super) fn len(&self) -> u64 {
        match self {
            Self::One(segment) => segment.len() as u64,
            Self::Many { len, .. } => *len,
        }
    }

    /// What starts at `at` and ends before `end`, at most to the end of that segment; `None` when
    /// nothing lies there.
    pub(super) fn slice(&self, at: u64, end: u64) -> Option<Bytes> {
        let (segment, start) = match self {
            Self::One(segment) => (segment, 0),
            Self::Many { segments, .. } => {
                let index = usize::try_from(at / SEGMENT as u64).ok()?;
                (segments.get(index)?, at - at % SEGMENT as u64)
            }
        };
        let from = usize::try_from(at.checked_sub(start)?).ok()?;
        let wanted = usize::try_from(end.checked_sub(start)?).unwrap_or(usize::MAX);
        let until = wanted.min(segment.len());
        (from < until).then(|| segment.slice(from..until))
    }
}

/// A body while it arrives: small chunks are gathered into segments.
#[derive(Debug)]
pub(super) struct Gather {
    sealed: Vec<Bytes>,
    open: Vec<u8>,
    /// Pays for `open`.
    charge: Charge,
    /// What `sealed` costs in bytes.
    cost: u64,
    len: u64,
    expected: Option<u64>,
}

/// The tier had no room for more of this body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NoRoom;

impl Gather {
    /// Nothing yet; `charge` must be empty, `expected` is the announced length in bytes.
    pub(super) fn new(charge: Charge, expected: Option<u64>) -> Self {
        Self { sealed: Vec::new(), open: Vec::new(), charge, cost: 0, len: 0, expected }
    }

    /// The bytes gathered so far.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// The announced length in bytes, if any.
    pub(super) fn expected(&self) -> Option<u64> {
        self.expected
    }

    /// Appends `data`, taking room with `reserve` (which may evict) as it grows. After [`NoRoom`]
    /// the body is incomplete and must be dropped.
    pub(super) fn push(
        &mut self,
        mut data: &[u8],
        mut reserve: impl FnMut(&mut Charge, u64) -> bool,
    ) -> Result<(), NoRoom> {
        while !data.is_empty() {
            if self.open.len() == SEGMENT {
                self.seal();
            }
            if self.open.len() == self.open.capacity() {
                let capacity = self.next_capacity(data.len());
                let cost = allocated(capacity).saturating_add(SEGMENT_OVERHEAD);
                let more = cost.saturating_sub(self.charge.bytes());
                if !reserve(&mut self.charge, more) {
                    return Err(NoRoom);
                }
                self.open.reserve_exact(capacity - self.open.len());
            }
            let fits = (self.open.capacity().min(SEGMENT) - self.open.len()).min(data.len());
            let (now, later) = data.split_at(fits);
            self.open.extend_from_slice(now);
            self.len += fits as u64;
            data = later;
        }
        Ok(())
    }

    /// The capacity that `open` should have to take `more` bytes: what the announced length leaves,
    /// or twice what it has.
    fn next_capacity(&self, more: usize) -> usize {
        let held = self.open.len();
        let needed = held.saturating_add(more).max(held + 1);
        let left = self.expected.map(|expected| {
            let sealed = self.len - held as u64;
            usize::try_from(expected.saturating_sub(sealed)).unwrap_or(SEGMENT)
        });
        let wanted = match left {
            Some(left) if left > held => left,
            Some(_) | None => needed.max(held.saturating_mul(2)).max(FIRST_GUESS),
        };
        wanted.clamp(held + 1, SEGMENT)
    }

    /// What has arrived from `at` on and ends before `end`, at most to the end of that segment;
    /// `None` when nothing there has. What is not in a whole segment yet is copied.
    pub(super) fn slice(&self, at: u64, end: u64) -> Option<Bytes> {
        let index = usize::try_from(at / SEGMENT as u64).ok()?;
        let start = at - at % SEGMENT as u64;
        let from = usize::try_from(at - start).ok()?;
        let wanted = usize::try_from(end.checked_sub(start)?).unwrap_or(usize::MAX);
        if let Some(segment) = self.sealed.get(index) {
            let until = wanted.min(segment.len());
            return (from < until).then(|| segment.slice(from..until));
        }
        if index > self.sealed.len() {
            return None;
        }
        let until = wanted.min(self.open.len());
        (from < until).then(|| Bytes::copy_from_slice(&self.open[from..until]))
    }

    fn seal(&mut self) {
        let bytes = std::mem::take(&mut self.open);
        if bytes.is_empty() {
            return;
        }
        let slack = bytes.capacity() - bytes.len();
        let bytes = if slack > bytes.len() / 8 {
            // An allocator may leave what shrinks where it is, in a place as large as before.
            self.charge.shrink_to(allocated(bytes.len()).saturating_add(SEGMENT_OVERHEAD));
            Box::from(bytes.as_slice())
        } else {
            bytes.into_boxed_slice()
        };
        let charge = self.charge.split(self.charge.bytes());
        self.cost = self.cost.saturating_add(charge.bytes());
        self.sealed.push(paid(bytes, charge));
    }

    /// The body, and what it costs in bytes.
    pub(super) fn finish(mut self) -> (Body, u64) {
        self.seal();
        let cost = self.cost;
        let body = match self.sealed.len() {
            0 | 1 => Body::One(self.sealed.pop().unwrap_or_default()),
            _ => Body::Many { segments: self.sealed.into(), len: self.len },
        };
        (body, cost)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::storage::memory::budget::Budget;

    fn gather(chunks: &[Vec<u8>], expected: Option<u64>, budget: &Arc<Budget>) -> Option<Body> {
        let mut gather = Gather::new(Charge::nothing(budget), expected);
        for chunk in chunks {
            gather.push(chunk, Charge::try_grow).ok()?;
        }
        Some(gather.finish().0)
    }

    fn read(body: &Body, mut at: u64, end: u64) -> Vec<u8> {
        let mut all = Vec::new();
        while let Some(part) = body.slice(at, end) {
            assert!(!part.is_empty() && part.len() <= SEGMENT);
            at += part.len() as u64;
            all.extend_from_slice(&part);
        }
        all
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn any_chunking_reads_back_whole_and_in_part(
            sizes in prop::collection::vec(0_usize..90_000, 0..8),
            known in any::<bool>(),
            from in 0_u64..300_000,
            span in 0_u64..300_000,
        ) {
            let mut next = 0_u8;
            let chunks: Vec<Vec<u8>> = sizes.iter().map(|size| (0..*size).map(|_| {
                next = next.wrapping_mul(31).wrapping_add(7);
                next
            }).collect()).collect();
            let whole = chunks.concat();
            let budget = Budget::new(u64::MAX);
            let body = gather(&chunks, known.then_some(whole.len() as u64), &budget)
                .expect("the budget is unlimited");
            prop_assert_eq!(body.len(), whole.len() as u64);
            prop_assert_eq!(read(&body, 0, body.len()), whole.clone());
            let end = (from + span).min(whole.len() as u64);
            let expected = if from < end { &whole[from as usize..end as usize] } else { &[] };
            prop_assert_eq!(read(&body, from, end), expected);
            prop_assert!(budget.used() >= whole.len() as u64);
            drop(body);
            prop_assert_eq!(budget.used(), 0);
        }
    }

    #[test]
    fn an_announced_length_is_allocated_exactly() {
        let budget = Budget::new(1 << 20);
        let body = gather(&[vec![1; 600], vec![2; 424]], Some(1024), &budget).expect("it fits");
        assert_eq!(budget.used(), 1024 + SEGMENT_OVERHEAD);
        assert_eq!(body.len(), 1024);
    }

    #[test]
    fn a_segment_held_by_a_reader_stays_on_the_bill_when_the_body_is_gone() {
        let budget = Budget::new(1 << 20);
        let body = gather(&[vec![1; 3 * SEGMENT]], None, &budget).expect("it fits");
        let held = body.slice(0, u64::MAX).expect("the body is not empty");
        drop(body);
        assert_eq!(budget.used(), SEGMENT as u64 + SEGMENT_OVERHEAD);
        drop(held);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn a_body_beyond_the_limit_is_refused_and_everything_given_back() {
        let budget = Budget::new(100_000);
        assert!(gather(&[vec![1; 100_000]], None, &budget).is_none());
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn more_than_announced_is_still_gathered_for_the_caller_to_judge() {
        let budget = Budget::new(1 << 20);
        let body = gather(&[vec![1; 10], vec![2; 10]], Some(10), &budget).expect("it fits");
        assert_eq!(body.len(), 20);
    }
}
