//! The last thing that went wrong at a backend with a request: what operators ask first.
//!
//! Only a request that fails writes it, and it is replaced as a whole: what goes well pays nothing for it, and nobody
//! waits for anybody.

use std::borrow::Cow;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use pingora::Error;

use crate::refusal::Refusal;
use crate::upstream::fault::one_line;
use crate::upstream::fault::reason_of;
use crate::upstream::fault::refusal_of;

/// The same again is not noted anew before so long has passed: when all requests fail, few of them write.
const PAUSE: Duration = Duration::from_millis(100);

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mishap {
    /// The word for it: of a [`Refusal`], `status` or `unresolved`.
    pub label: &'static str,
    /// More of it, in one line that is not long.
    pub reason: Cow<'static, str>,
    /// When that was, by the time of the upstream.
    pub at: Duration,
}

/// Why something went wrong, as far as that is known where it is told.
#[derive(Debug, Clone, Copy)]
pub enum Why<'a> {
    /// This error ended it.
    Error(&'a Error),
    /// Nothing is left of it but what the client would be told.
    Refusal(Refusal),
    /// It answered with a status that is a failure.
    Status(u16),
    /// Its name could not be looked up.
    Unresolved(&'a io::Error),
}

impl Why<'_> {
    fn label(self) -> &'static str {
        match self {
            Self::Error(error) => refusal_of(error).label(),
            Self::Refusal(refusal) => refusal.label(),
            Self::Status(_) => "status",
            Self::Unresolved(_) => "unresolved",
        }
    }

    fn reason(self) -> Cow<'static, str> {
        match self {
            Self::Error(error) => one_line(&reason_of(error)).into(),
            Self::Refusal(refusal) => refusal.sentence().into(),
            Self::Status(status) => format!("status {status}").into(),
            Self::Unresolved(error) => one_line(&error.to_string()).into(),
        }
    }
}

/// The last mishap of a backend.
#[derive(Debug, Default)]
pub(super) struct Last(ArcSwapOption<Mishap>);

impl Last {
    /// Notes what went wrong.
    #[cold]
    pub(super) fn note(&self, why: Why<'_>, at: Duration) {
        let (label, reason) = (why.label(), why.reason());
        let is_known = self.0.load().as_ref().is_some_and(|last| {
            last.label == label && last.reason == reason && at < last.at.saturating_add(PAUSE)
        });
        if !is_known {
            self.0.store(Some(Arc::new(Mishap { label, reason, at })));
        }
    }

    /// What was noted last.
    pub(super) fn get(&self) -> Option<Arc<Mishap>> {
        self.0.load_full()
    }
}

#[cfg(test)]
mod tests {
    use pingora::ErrorType;

    use super::*;

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn the_last_mishap_stands_with_its_word_and_its_reason() {
        let last = Last::default();
        assert_eq!(last.get(), None);
        let cause = io::Error::other("certificate not valid\r\nfor this name");
        let error = Error::because(ErrorType::ConnectRefused, "connecting", cause);
        let name = io::Error::other("no such name");
        for (why, label, reason) in [
            (Why::Error(&error), "connect_failed", "certificate not validfor this name"),
            (Why::Status(503), "status", "status 503"),
            (Why::Status(502), "status", "status 502"),
            (Why::Unresolved(&name), "unresolved", "no such name"),
            (
                Why::Refusal(Refusal::OriginClosed),
                Refusal::OriginClosed.label(),
                Refusal::OriginClosed.sentence(),
            ),
        ] {
            last.note(why, at(5));
            let noted = last.get().expect("something went wrong");
            assert_eq!((noted.label, &*noted.reason, noted.at), (label, reason, at(5)));
        }
    }

    #[test]
    fn the_same_again_is_noted_anew_after_a_pause_only() {
        let last = Last::default();
        let noted = |when| {
            last.note(Why::Status(503), at(when));
            last.get().expect("something went wrong").at
        };
        assert_eq!([0, 99, 100, 150, 200].map(noted), [0, 0, 100, 100, 200].map(at));
    }

    #[test]
    fn what_an_origin_says_makes_no_long_reason() {
        let cause = io::Error::other("x".repeat(10_000));
        let error = Error::because(ErrorType::ConnectRefused, "connecting", cause);
        let last = Last::default();
        last.note(Why::Error(&error), at(0));
        assert_eq!(last.get().expect("something went wrong").reason.len(), 160);
    }
}
