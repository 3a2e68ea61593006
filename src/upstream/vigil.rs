//! How long one exchange with an origin may take, watched where its bytes pass.
//!
//! Pingora's deadlines start anew with every read: an origin that sends a byte now and then meets all
//! of them. Here the clock runs from the first byte to the last.

use std::future::Future;
use std::pin::Pin;
use std::task::Context;
use std::task::Poll;

use tokio::time::Instant;
use tokio::time::Sleep;

use crate::refusal::Refusal;
use crate::terms;
use crate::terms::Terms;
use crate::terms::pace::Pace;

/// What an exchange waits for while nothing comes from the origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Awaited {
    /// The rest of the client's body: all that came of it was passed on.
    Body,
    /// The origin.
    Origin,
}

/// Wakes a task at a moment that is mostly put off before it comes. It is set once for many exchanges:
/// it goes off at the earliest moment that it was set to, and is then set to the one that counts.
#[derive(Debug, Default)]
pub(super) struct Alarm(Option<Pin<Box<Sleep>>>);

impl Alarm {
    /// Ready from `at` on; until then the task is woken, then or before.
    fn poll_at(&mut self, cx: &mut Context<'_>, at: Instant) -> Poll<()> {
        let sleep = self.0.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
        if sleep.deadline() > at {
            sleep.as_mut().reset(at);
        }
        while sleep.as_mut().poll(cx).is_ready() {
            if sleep.deadline() >= at {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(at);
        }
        Poll::Pending
    }
}

/// Watches one exchange after the other on one connection.
#[derive(Debug, Default)]
pub(super) struct Vigil {
    terms: Option<Terms>,
    header_ends: Option<Instant>,
    /// A header has begun and is whole.
    answered: bool,
    upload: Pace,
    alarm: Alarm,
}

impl Vigil {
    /// Watches on a connection that has this alarm.
    pub(super) fn with(alarm: Alarm) -> Self {
        Self { alarm, ..Self::default() }
    }

    /// Watches the exchange that begins now, on the terms of the running request.
    pub(super) fn begin(&mut self) {
        let alarm = self.end();
        *self = Self { terms: terms::current(), alarm, ..Self::default() };
    }

    /// Gives the alarm back, for the next exchange.
    pub(super) fn end(&mut self) -> Alarm {
        std::mem::take(&mut self.alarm)
    }

    /// Bytes came from the origin; whether a header has begun with them, or is still not whole.
    pub(super) fn header_is(&mut self, under_way: bool) {
        self.answered = !under_way;
        self.header_ends = match (under_way, self.terms) {
            (true, Some(terms)) => self.header_ends.or_else(|| Some(Instant::now() + terms.header)),
            _ => None,
        };
    }

    /// So many bytes of the request were passed on.
    pub(super) fn client_sent(&mut self, bytes: usize) {
        self.upload.moved(bytes);
    }

    /// Whether the response should have been whole by now.
    pub(super) fn has_ended(&self) -> bool {
        let ends = self.terms.and_then(|terms| terms.ends);
        ends.is_some_and(|ends| Instant::now() >= ends)
    }

    /// Ready with the reason when this takes too long; until then the task is woken when it does.
    pub(super) fn poll_overdue(&mut self, cx: &mut Context<'_>, awaited: Awaited) -> Poll<Refusal> {
        let Some(terms) = self.terms else { return Poll::Pending };
        if awaited == Awaited::Body
            && let Some(rate) = terms.upload
            && self.upload.poll_too_slow(cx, rate).is_ready()
        {
            return Poll::Ready(Refusal::BodyTimeout);
        }
        let answer_by = if self.answered { None } else { terms.answer_by };
        let header_ends = [self.header_ends, answer_by].into_iter().flatten().min();
        let (at, refusal) = match (terms.ends, header_ends) {
            (Some(ends), Some(header)) if header < ends => (header, Refusal::OriginTimeout),
            (Some(ends), _) => (ends, Refusal::TotalTimeout),
            (None, Some(header)) => (header, Refusal::OriginTimeout),
            (None, None) => return Poll::Pending,
        };
        self.alarm.poll_at(cx, at).map(|()| refusal)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use super::*;
    use crate::terms::pace::MinRate;

    fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    fn vigil(ends: Option<Duration>, upload: Option<MinRate>) -> Vigil {
        let ends = ends.map(|after| Instant::now() + after);
        let terms = Terms { ends, answer_by: None, header: secs(10), upload };
        Vigil { terms: Some(terms), ..Vigil::default() }
    }

    /// What it comes to, and after how many seconds; `None` after an hour.
    async fn outcome(vigil: &mut Vigil, awaited: Awaited) -> Option<(Refusal, u64)> {
        let start = Instant::now();
        let overdue = poll_fn(|cx| vigil.poll_overdue(cx, awaited));
        let refusal = tokio::time::timeout(secs(3600), overdue).await.ok()?;
        Some((refusal, start.elapsed().as_secs()))
    }

    #[tokio::test(start_paused = true)]
    async fn an_alarm_goes_off_when_it_was_set_to_last_however_often_it_was_put_off() {
        let mut alarm = Alarm::default();
        let start = Instant::now();
        for (at, waits, goes_off) in
            [(10, 4, None), (20, 12, None), (18, 9, Some(18)), (40, 99, Some(40))]
        {
            let set_to = start + secs(at);
            let waiting =
                tokio::time::timeout(secs(waits), poll_fn(|cx| alarm.poll_at(cx, set_to)));
            let went_off = waiting.await.is_ok().then(|| start.elapsed().as_secs());
            assert_eq!(went_off, goes_off, "set to {at}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn without_terms_nothing_is_ever_overdue() {
        let mut vigil = Vigil::default();
        vigil.header_is(true);
        assert_eq!(outcome(&mut vigil, Awaited::Origin).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_of_a_header_do_not_move_its_deadline() {
        let mut vigil = vigil(None, None);
        vigil.header_is(true);
        tokio::time::advance(secs(6)).await;
        vigil.header_is(true);
        let expected = Some((Refusal::OriginTimeout, 4));
        assert_eq!(outcome(&mut vigil, Awaited::Origin).await, expected);
    }

    #[tokio::test(start_paused = true)]
    async fn a_header_that_is_whole_has_no_deadline_any_more() {
        let mut vigil = vigil(None, None);
        vigil.header_is(true);
        vigil.header_is(false);
        assert_eq!(outcome(&mut vigil, Awaited::Origin).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn the_earlier_of_two_deadlines_counts() {
        for (ends, expected) in [
            (9, (Refusal::TotalTimeout, 9)),
            (10, (Refusal::TotalTimeout, 10)),
            (11, (Refusal::OriginTimeout, 10)),
        ] {
            let mut vigil = vigil(Some(secs(ends)), None);
            vigil.header_is(true);
            assert_eq!(outcome(&mut vigil, Awaited::Origin).await, Some(expected));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn only_a_body_that_is_waited_for_can_be_too_slow() {
        let rate = MinRate { bytes_per_second: 10, window: secs(5) };
        let mut waiting = vigil(None, Some(rate));
        waiting.client_sent(49);
        let expected = Some((Refusal::BodyTimeout, 5));
        assert_eq!(outcome(&mut waiting, Awaited::Body).await, expected);
        let mut other = vigil(None, Some(rate));
        assert_eq!(outcome(&mut other, Awaited::Origin).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_is_the_first_moment_that_is_too_late() {
        let vigil = vigil(Some(secs(5)), None);
        tokio::time::advance(secs(5) - Duration::from_nanos(1)).await;
        assert!(!vigil.has_ended());
        tokio::time::advance(Duration::from_nanos(1)).await;
        assert!(vigil.has_ended());
    }
}
