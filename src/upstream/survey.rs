//! What holds for all backends of a tier together, found out once and remembered as long as it holds.
//!
//! To look at each backend for each request would cost in a group of a thousand more than all else that a request does
//! there. So whatever happens to a backend that says something of all of them is told as [`News`], and an
//! answer stands until there are others, or until the time at which something ends by itself.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

/// In milliseconds, how long an answer stands at most. After so many changes as [`COUNT`] can tell apart, an old
/// answer would look like one of now: within this time nothing changes as often.
const LONGEST: u64 = 1000;

/// The bits of a time in milliseconds: 34 years.
const TIME: u32 = 40;

/// The bits of the number of the news beside a time and an answer.
const COUNT: u32 = u64::BITS - TIME - 1;

/// Counts what happens to the backends of an upstream, and of those that follow it. All that is read by requests
/// and nothing else lies in this line of memory.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(super) struct News(AtomicU64);

impl News {
    /// Something has happened: to be told after it can be seen.
    pub(super) fn tell(&self) {
        // Release: who reads this number sees what has happened.
        self.0.fetch_add(1, Ordering::Release);
    }

    /// How often something has happened.
    pub(super) fn number(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

/// What was found out about a tier last. Each answer is one word with all that it depends on, so that no thread waits
/// for another: two that look at the same time find the same.
#[derive(Debug, Default)]
pub(super) struct Survey {
    /// Until when it stands, of which news it is, and the answer.
    enough: AtomicU64,
    /// The answer and one more, and of which news it is; 0: none.
    oldest: AtomicU64,
}

impl Survey {
    /// Whether enough backends are well, after this number of news, at this time in milliseconds. Where that is not known,
    /// `look` finds it out, and until when it holds if there are no news.
    pub(super) fn enough(&self, news: u64, now: u64, look: impl FnOnce() -> (bool, u64)) -> bool {
        let news = news & ((1 << COUNT) - 1);
        let word = self.enough.load(Ordering::Relaxed);
        let (until, of) = (word >> (COUNT + 1), (word >> 1) & ((1 << COUNT) - 1));
        if of == news && now < until {
            return word & 1 == 1;
        }
        let (enough, until) = look();
        let until = until.min(now.saturating_add(LONGEST)).min((1 << TIME) - 1);
        let word = (until << (COUNT + 1)) | (news << 1) | u64::from(enough);
        self.enough.store(word, Ordering::Relaxed);
        enough
    }

    /// When in milliseconds the first of those came up that are well, after this number of news. Where that is not known,
    /// `look` finds it out.
    pub(super) fn oldest(&self, news: u64, look: impl FnOnce() -> u64) -> u64 {
        let news = news & ((1 << (COUNT + 1)) - 1);
        let word = self.oldest.load(Ordering::Relaxed);
        let (known, of) = (word >> (COUNT + 1), word & ((1 << (COUNT + 1)) - 1));
        if let Some(oldest) = known.checked_sub(1)
            && of == news
        {
            return oldest;
        }
        let oldest = look().min((1 << TIME) - 2);
        self.oldest.store(((oldest + 1) << (COUNT + 1)) | news, Ordering::Relaxed);
        oldest
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// Asks a survey, and says what it answers and whether that was found out anew.
    fn asks(survey: &Survey, news: u64, now: u64, is: (bool, u64)) -> (bool, bool) {
        let looked = Cell::new(false);
        let answer = survey.enough(news, now, || {
            looked.set(true);
            is
        });
        (answer, looked.get())
    }

    #[test]
    fn an_answer_stands_until_its_time_or_until_there_are_news() {
        let survey = Survey::default();
        assert_eq!(asks(&survey, 0, 0, (true, 500)), (true, true), "nothing is known at first");
        assert_eq!(asks(&survey, 0, 499, (false, 900)), (true, false));
        assert_eq!(asks(&survey, 0, 500, (false, 900)), (false, true));
        assert_eq!(asks(&survey, 1, 501, (true, 900)), (true, true));
        assert_eq!(asks(&survey, 1, 899, (false, 0)), (true, false));
    }

    #[test]
    fn no_answer_stands_longer_than_a_second() {
        let survey = Survey::default();
        assert_eq!(asks(&survey, 7, 10, (true, u64::MAX)), (true, true));
        assert_eq!(asks(&survey, 7, 1009, (false, 0)), (true, false));
        assert_eq!(asks(&survey, 7, 1010, (false, u64::MAX)), (false, true));
    }

    #[test]
    fn after_34_years_each_request_looks_for_itself() {
        let survey = Survey::default();
        for answer in [true, false, true] {
            assert_eq!(asks(&survey, 3, 1 << TIME, (answer, u64::MAX)), (answer, true));
        }
    }

    #[test]
    fn the_oldest_is_the_same_as_long_as_there_are_no_news() {
        let survey = Survey::default();
        assert_eq!(survey.oldest(0, || 0), 0);
        assert_eq!(survey.oldest(0, || 5), 0);
        assert_eq!(survey.oldest(1, || 5), 5);
        assert_eq!(survey.oldest(1 << 30, || 6), 6);
        assert_eq!(survey.oldest(1 << 30, || panic!("it is known")), 6);
        assert_eq!(survey.oldest(2, || u64::MAX), (1 << TIME) - 2);
    }
}
