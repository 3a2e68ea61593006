//! What was seen of a head that came in one piece, so that nobody has to read it again.

use super::OriginFault;
use super::ReplyLimits;
use super::head::ReplyHead;
use super::head::ReplyScan;
use super::head::ReplyScanner;
use crate::message::head::fields::Span;
use crate::message::spare;
use crate::message::spare::Places;

/// Room for the fields of most heads.
const USUAL: usize = 16;

/// The fields of a head by their places in it, and what was understood of it.
#[derive(Debug, Default)]
pub struct Seen {
    spans: Places,
    /// How long their names are, a bit each; from 63 on one for all.
    lengths: u64,
    whole: Option<(usize, ReplyHead)>,
}

impl Seen {
    /// Reads the head at the front of `buf`; `None` while it is not whole.
    ///
    /// # Errors
    /// What a [`ReplyGuard`](super::ReplyGuard) does not let pass either.
    pub fn read(buf: &[u8], limits: &ReplyLimits) -> Result<Option<Self>, OriginFault> {
        let mut seen = Self::default();
        let scan =
            ReplyScanner::default().scan(buf, limits, |name, value| seen.note(name, value))?;
        let ReplyScan::Head { end, reply } = scan else { return Ok(None) };
        seen.ends(end, reply);
        Ok(Some(seen))
    }

    /// A field was found, by its name and its value.
    pub(super) fn note(&mut self, name: Span, value: Span) {
        if self.spans.capacity() == 0 {
            self.spans = spare::places();
            self.spans.reserve(USUAL);
        }
        self.lengths |= Self::length_of(name.len());
        self.spans.push((name, value));
    }

    /// The bit of names that are so long.
    fn length_of(name: usize) -> u64 {
        1 << name.min(63)
    }

    /// The head ends there, and means this.
    pub(super) fn ends(&mut self, end: usize, head: ReplyHead) {
        self.whole = Some((end, head));
    }

    /// Whether the whole head is known.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.whole.is_some()
    }

    /// The names and values of the fields, by their places.
    pub(super) fn spans(&self) -> &[(Span, Span)] {
        &self.spans
    }

    /// The same of those fields among which one can be whose name is so long: all, or none.
    pub(super) fn spans_for(&self, name: usize) -> &[(Span, Span)] {
        if self.lengths & Self::length_of(name) == 0 { &[] } else { &self.spans }
    }

    /// Where the head ends and what it means, once it is whole.
    pub(super) fn whole(&self) -> Option<(usize, ReplyHead)> {
        self.whole
    }
}

impl Drop for Seen {
    fn drop(&mut self) {
        spare::leave_places(std::mem::take(&mut self.spans));
    }
}
