//! How long one exchange with an origin may take, watched where its bytes pass.
//!
//! Pingora's deadlines start anew with every read: an origin that sends a byte now and then meets all
//! of them. Here the clock runs from the first byte to the last.

use std::future::Future;
use std::pin::Pin;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;

use tokio::time::Instant;
use tokio::time::Sleep;

use crate::refusal::Refusal;
use crate::terms;
use crate::terms::AnswerTime;
use crate::terms::Terms;
use crate::terms::Upload;
use crate::terms::pace::Pace;
use crate::terms::pace::Since;

/// What an exchange waits for while nothing comes from the origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Awaited {
    /// The rest of the client's body: all that came of it was passed on.
    Body,
    /// The origin, to take what came of a body that is not whole.
    Room,
    /// The origin.
    Origin,
}

/// What was said of an answer with the last bytes that came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heard {
    /// A part of a header.
    Part,
    /// A whole one, of an interim response: the answer is still to come.
    Interim,
    /// The header of the answer, or what follows it.
    Answer,
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
    /// The header of the answer is whole.
    answered: bool,
    upload: Pace,
    /// When the request was begun that has a body.
    began: Option<Instant>,
    /// When all of its body had been passed on.
    whole: Option<Instant>,
    /// Since when nothing has happened, and what was waited for.
    silent: Option<(Awaited, Since)>,
    alarm: Alarm,
}

impl Vigil {
    /// Watches the exchange that begins now, on the terms of the running request.
    pub(super) fn begin(&mut self) {
        let alarm = std::mem::take(&mut self.alarm);
        let terms = terms::current();
        let began = terms.and_then(|terms| terms.upload).map(|_| Instant::now());
        let upload = Pace::within(began.and_then(|_| terms::room()));
        *self = Self { terms, began, alarm, upload, ..Self::default() };
    }

    /// Bytes came from the origin.
    pub(super) fn heard(&mut self, what: Heard) {
        self.silent = None;
        self.answered |= what == Heard::Answer;
        self.header_ends = match (what, self.terms) {
            (Heard::Part, Some(terms)) => {
                self.header_ends.or_else(|| Some(Instant::now() + terms.header))
            }
            (Heard::Part | Heard::Interim | Heard::Answer, _) => None,
        };
    }

    /// So many bytes of the request are there to be passed on. For an origin that takes nothing they change nothing.
    pub(super) fn client_sent(&mut self, bytes: usize) {
        if !matches!(self.silent, Some((Awaited::Room, _))) {
            self.silent = None;
        }
        self.upload.moved(bytes);
    }

    /// The origin took something.
    pub(super) fn took(&mut self) {
        self.silent = None;
    }

    /// The origin does not take what is there for it, from now on.
    pub(super) fn takes_nothing(&mut self) {
        if self.terms.is_some_and(|terms| terms.upload.is_some()) {
            self.silent_since(Awaited::Room);
        }
    }

    fn silent_since(&mut self, awaited: Awaited) -> Since {
        match self.silent {
            Some((before, since)) if before == awaited => since,
            Some(_) | None => self.silent.insert((awaited, self.upload.since_now())).1,
        }
    }

    /// Why the response should have been whole by now, if it should.
    pub(super) fn has_ended(&self, awaited: Awaited) -> Option<Refusal> {
        let terms = self.terms?;
        let over = terms.ends.is_some_and(|ends| Instant::now() >= ends);
        over.then(|| late(&terms, awaited, Refusal::TotalTimeout))
    }

    /// Ready with the reason when all time is over; until then the task is woken when it is.
    pub(super) fn poll_end(&mut self, cx: &mut Context<'_>, awaited: Awaited) -> Poll<Refusal> {
        let Some((terms, ends)) = self.terms.and_then(|terms| Some((terms, terms.ends?))) else {
            return Poll::Pending;
        };
        self.alarm.poll_at(cx, ends).map(|()| late(&terms, awaited, Refusal::TotalTimeout))
    }

    /// How long the origin may take nothing, where a body is sent to it.
    pub(super) fn for_room(&self) -> Option<Duration> {
        Some(self.terms?.upload?.refusal)
    }

    /// When the header of the answer has to be whole.
    fn answer_by(&mut self, terms: &Terms, awaited: Awaited) -> Option<Instant> {
        let by = terms.answer_by.filter(|_| !self.answered)?;
        let behind = terms.upload.map(|upload| upload.answer) == Some(AnswerTime::BehindBody);
        let (Some(began), true) = (self.began, behind) else { return Some(by) };
        match awaited {
            Awaited::Body | Awaited::Room => None,
            Awaited::Origin => {
                let whole = *self.whole.get_or_insert_with(Instant::now);
                Some(by + whole.saturating_duration_since(began))
            }
        }
    }

    /// When something has to happen.
    fn stir_by(&mut self, upload: &Upload, awaited: Awaited) -> Instant {
        let since = self.silent_since(awaited);
        match awaited {
            // Which has no room to come in, where that is taken up by what waits for other origins.
            Awaited::Body => self.upload.after(since, upload.silence),
            Awaited::Room => since.at() + upload.refusal,
            Awaited::Origin => since.at() + upload.silence,
        }
    }

    /// Ready with the reason when this takes too long; until then the task is woken when it does.
    pub(super) fn poll_overdue(&mut self, cx: &mut Context<'_>, awaited: Awaited) -> Poll<Refusal> {
        let Some(terms) = self.terms else { return Poll::Pending };
        if awaited == Awaited::Body
            && let Some(rate) = terms.upload.and_then(|upload| upload.rate)
            && self.upload.poll_too_slow(cx, rate).is_ready()
        {
            return Poll::Ready(Refusal::BodyTimeout);
        }
        let answer_by = self.answer_by(&terms, awaited);
        let stir_by = terms.upload.map(|upload| self.stir_by(&upload, awaited));
        let header_ends = [self.header_ends, answer_by, stir_by].into_iter().flatten().min();
        let (at, refusal) = match (terms.ends, header_ends) {
            (Some(ends), Some(header)) if header < ends => (header, Refusal::OriginTimeout),
            (Some(ends), _) => (ends, Refusal::TotalTimeout),
            (None, Some(header)) => (header, Refusal::OriginTimeout),
            (None, None) => return Poll::Pending,
        };
        let refusal = late(&terms, awaited, refusal);
        self.alarm.poll_at(cx, at).map(|()| refusal)
    }
}

/// Who waits for a client in vain says so, whichever time was over.
fn late(terms: &Terms, awaited: Awaited, refusal: Refusal) -> Refusal {
    match awaited {
        Awaited::Body if terms.upload.is_some() => Refusal::BodyTimeout,
        Awaited::Body | Awaited::Room | Awaited::Origin => refusal,
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::Arc;

    use super::*;
    use crate::terms::pace::MinRate;
    use crate::terms::room::Room;

    fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    const UPLOAD: Upload = Upload {
        rate: None,
        silence: Duration::from_secs(30),
        refusal: Duration::from_secs(20),
        answer: AnswerTime::BehindBody,
    };

    fn vigil(ends: Option<Duration>, upload: Option<Upload>) -> Vigil {
        let began = Instant::now();
        let ends = ends.map(|after| began + after);
        let terms = Terms { ends, answer_by: None, header: secs(10), upload };
        Vigil { terms: Some(terms), began: Some(began), ..Vigil::default() }
    }

    /// One whose answer has to be there within 10 seconds, to a body that is being sent.
    fn vigil_of_upload(answer: AnswerTime) -> Vigil {
        let mut vigil = vigil(None, Some(Upload { answer, ..UPLOAD }));
        if let Some(terms) = &mut vigil.terms {
            terms.answer_by = Some(Instant::now() + secs(10));
        }
        vigil
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
        vigil.heard(Heard::Part);
        assert_eq!(outcome(&mut vigil, Awaited::Origin).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_of_a_header_do_not_move_its_deadline() {
        let mut vigil = vigil(None, None);
        vigil.heard(Heard::Part);
        tokio::time::advance(secs(6)).await;
        vigil.heard(Heard::Part);
        let expected = Some((Refusal::OriginTimeout, 4));
        assert_eq!(outcome(&mut vigil, Awaited::Origin).await, expected);
    }

    #[tokio::test(start_paused = true)]
    async fn a_header_that_is_whole_has_no_deadline_any_more() {
        let mut vigil = vigil(None, None);
        vigil.heard(Heard::Part);
        vigil.heard(Heard::Answer);
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
            vigil.heard(Heard::Part);
            assert_eq!(outcome(&mut vigil, Awaited::Origin).await, Some(expected));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn only_a_body_that_is_waited_for_can_be_too_slow() {
        let rate = MinRate { bytes_per_second: 10, window: secs(5) };
        let paced = Upload { rate: Some(rate), ..UPLOAD };
        let mut waiting = vigil(None, Some(paced));
        waiting.client_sent(49);
        let expected = Some((Refusal::BodyTimeout, 5));
        assert_eq!(outcome(&mut waiting, Awaited::Body).await, expected);
        let mut other = vigil(None, Some(paced));
        let expected = Some((Refusal::OriginTimeout, 30));
        assert_eq!(outcome(&mut other, Awaited::Origin).await, expected);
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_is_the_first_moment_that_is_too_late() {
        let vigil = vigil(Some(secs(5)), None);
        tokio::time::advance(secs(5) - Duration::from_nanos(1)).await;
        assert_eq!(vigil.has_ended(Awaited::Origin), None);
        tokio::time::advance(Duration::from_nanos(1)).await;
        assert_eq!(vigil.has_ended(Awaited::Origin), Some(Refusal::TotalTimeout));
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_for_an_answer_begins_behind_the_body() {
        let mut vigil = vigil_of_upload(AnswerTime::BehindBody);
        for _ in 0..10 {
            // Somebody sends, or takes, something in good time.
            for awaited in [Awaited::Body, Awaited::Room] {
                let waiting = poll_fn(|cx| vigil.poll_overdue(cx, awaited));
                assert!(tokio::time::timeout(secs(19), waiting).await.is_err());
                vigil.client_sent(1);
            }
        }
        let expected = Some((Refusal::OriginTimeout, 10));
        assert_eq!(outcome(&mut vigil, Awaited::Origin).await, expected);
    }

    #[tokio::test(start_paused = true)]
    async fn who_talks_at_the_same_time_has_the_same_time() {
        for (awaited, refusal) in [
            (Awaited::Body, Refusal::BodyTimeout),
            (Awaited::Room, Refusal::OriginTimeout),
            (Awaited::Origin, Refusal::OriginTimeout),
        ] {
            let mut vigil = vigil_of_upload(AnswerTime::AtOnce);
            assert_eq!(outcome(&mut vigil, awaited).await, Some((refusal, 10)), "{awaited:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn where_nothing_stirs_it_is_the_one_who_was_waited_for() {
        for (awaited, expected) in [
            (Awaited::Body, (Refusal::BodyTimeout, 30)),
            (Awaited::Room, (Refusal::OriginTimeout, 20)),
            (Awaited::Origin, (Refusal::OriginTimeout, 30)),
        ] {
            let mut vigil = vigil(None, Some(UPLOAD));
            assert_eq!(outcome(&mut vigil, awaited).await, Some(expected), "{awaited:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_has_no_room_to_come_in_is_not_silent() {
        let room = Arc::new(Room::new(1));
        let mut vigil = vigil(None, Some(UPLOAD));
        vigil.upload = Pace::within(Some(Arc::clone(&room)));
        room.came(1);
        let opens = async {
            tokio::time::sleep(secs(100)).await;
            room.gave(1);
        };
        let (outcome, ()) = tokio::join!(outcome(&mut vigil, Awaited::Body), opens);
        assert_eq!(outcome, Some((Refusal::BodyTimeout, 130)));
    }

    #[tokio::test(start_paused = true)]
    async fn when_all_time_is_over_it_is_the_one_who_was_waited_for() {
        let mut vigil = vigil(Some(secs(5)), Some(UPLOAD));
        let expected = Some((Refusal::BodyTimeout, 5));
        assert_eq!(outcome(&mut vigil, Awaited::Body).await, expected);
        assert_eq!(vigil.has_ended(Awaited::Body), Some(Refusal::BodyTimeout));
        assert_eq!(vigil.has_ended(Awaited::Room), Some(Refusal::TotalTimeout));
    }

    #[tokio::test(start_paused = true)]
    async fn an_interim_response_is_no_answer() {
        let mut vigil = vigil_of_upload(AnswerTime::AtOnce);
        for _ in 0..9 {
            tokio::time::advance(secs(1)).await;
            vigil.heard(Heard::Part);
            vigil.heard(Heard::Interim);
        }
        let expected = Some((Refusal::OriginTimeout, 1));
        assert_eq!(outcome(&mut vigil, Awaited::Origin).await, expected);
        vigil.heard(Heard::Answer);
        let expected = Some((Refusal::OriginTimeout, 30));
        assert_eq!(outcome(&mut vigil, Awaited::Origin).await, expected);
    }
}
