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

use crate::listen::conn;
use crate::listen::conn::Terms;
use crate::listen::pace::Pace;
use crate::refusal::Refusal;

/// What an exchange waits for while nothing comes from the origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Awaited {
    /// The rest of the client's body: all that came of it was passed on.
    Body,
    /// The origin.
    Origin,
}

/// Watches one exchange.
#[derive(Debug, Default)]
pub(super) struct Vigil {
    terms: Option<Terms>,
    header_ends: Option<Instant>,
    upload: Pace,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Vigil {
    /// Watches the exchange that begins now, on the terms of the running request.
    pub(super) fn begin() -> Self {
        Self { terms: conn::terms(), ..Self::default() }
    }

    /// Bytes came from the origin; whether a header has begun with them, or is still not whole.
    pub(super) fn header_is(&mut self, under_way: bool) {
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
        let (at, refusal) = match (terms.ends, self.header_ends) {
            (Some(ends), Some(header)) if header < ends => (header, Refusal::OriginTimeout),
            (Some(ends), _) => (ends, Refusal::TotalTimeout),
            (None, Some(header)) => (header, Refusal::OriginTimeout),
            (None, None) => return Poll::Pending,
        };
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
        if timer.deadline() != at {
            timer.as_mut().reset(at);
        }
        timer.as_mut().poll(cx).map(|()| refusal)
    }
}
