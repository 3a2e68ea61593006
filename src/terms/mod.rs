//! What the running request is held to, wherever bytes pass on its behalf: its deadlines, and the
//! slowest that a peer may be.
//!
//! The terms belong to the task that serves the request. Connections to clients and to origins both
//! look here, and so need not know each other.

pub mod pace;

use std::any::Any;
use std::cell::Cell;
use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::Pin;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::time::Instant;
use tokio::time::Sleep;
use tokio::time::sleep_until;

use crate::terms::pace::MinRate;

/// What the request in progress is held to by whoever waits on its behalf.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// When its response has to be whole; `None` is no limit.
    pub ends: Option<Instant>,
    /// When all that is still done for it is given up, where nobody on the way looks at `ends` while the
    /// origin is silent; `None` where somebody does.
    pub given_up: Option<Instant>,
    /// When the header of the response has to be whole; `None` is no limit.
    pub answer_by: Option<Instant>,
    /// How long an origin may take from the first byte of its header to the last.
    pub header: Duration,
    /// The slowest that the client may send its body, where its connection does not see to that.
    pub upload: Option<MinRate>,
}

tokio::task_local! {
    static CURRENT: Cell<Option<Terms>>;
    /// What was brought for whoever comes next on the way of the request.
    static BROUGHT: RefCell<Option<Arc<dyn Any + Send + Sync>>>;
}

/// Runs `work`, one request, whose terms are still to be settled. `None`: it was given up, as they say.
pub(crate) async fn scope<F: Future>(work: F) -> Option<F::Output> {
    let work = BROUGHT.scope(RefCell::new(None), until_given_up(work));
    CURRENT.scope(Cell::new(None), work).await
}

async fn until_given_up<F: Future>(work: F) -> Option<F::Output> {
    let mut work = pin!(work);
    // Few requests have a deadline of this kind: the others are not to be larger for it.
    let mut deadline: Option<Pin<Box<Sleep>>> = None;
    poll_fn(|cx| {
        if let Poll::Ready(output) = work.as_mut().poll(cx) {
            return Poll::Ready(Some(output));
        }
        if deadline.is_none() {
            let given_up = current().and_then(|terms| terms.given_up);
            deadline = given_up.map(|at| Box::pin(sleep_until(at)));
        }
        deadline.as_mut().map_or(Poll::Pending, |at| at.as_mut().poll(cx).map(|()| None))
    })
    .await
}

/// Settles the terms of the running request; a further attempt has terms of its own. Without effect
/// where no client asked.
pub fn agree(terms: Terms) {
    let _ = CURRENT.try_with(|current| current.set(Some(terms)));
}

/// The terms of the running request, once they are settled.
#[must_use]
pub fn current() -> Option<Terms> {
    CURRENT.try_with(Cell::get).ok().flatten()
}

/// Leaves `what` for whoever comes next on the way of the running request, where Pingora lies in between
/// and passes nothing on. It replaces what was left before; without effect where no client asked.
pub fn bring(what: Arc<dyn Any + Send + Sync>) {
    let _ = BROUGHT.try_with(|brought| brought.replace(Some(what)));
}

/// Takes what was left; `None` if nothing was, or something else.
#[must_use]
pub fn brought<T: Any + Send + Sync>() -> Option<Arc<T>> {
    let what = BROUGHT.try_with(RefCell::take).ok().flatten()?;
    what.downcast().ok()
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    fn terms(given_up: Option<Instant>) -> Terms {
        Terms { ends: None, given_up, answer_by: None, header: Duration::ZERO, upload: None }
    }

    #[tokio::test(start_paused = true)]
    async fn work_is_given_up_when_its_terms_say_so_and_not_before() {
        let start = Instant::now();
        let late = start + Duration::from_secs(9);
        let given_up = scope(async {
            agree(terms(Some(late)));
            pending::<()>().await;
        });
        assert_eq!(given_up.await, None);
        assert_eq!(Instant::now(), late);

        let in_time = scope(async {
            agree(terms(Some(late + Duration::from_secs(9))));
            tokio::time::sleep(Duration::from_secs(8)).await;
            "done"
        });
        assert_eq!(in_time.await, Some("done"));

        let without = scope(async {
            agree(terms(None));
            tokio::time::sleep(Duration::from_secs(1_000_000)).await;
            "done"
        });
        assert_eq!(without.await, Some("done"));
    }

    #[tokio::test]
    async fn what_is_brought_is_taken_once_and_within_its_request() {
        bring(Arc::new(1_u32));
        assert_eq!(brought::<u32>(), None, "there is no request");
        scope(async {
            bring(Arc::new(1_u32));
            bring(Arc::new(2_u32));
            assert_eq!(scope(async { brought::<u32>() }).await, Some(None), "another request");
            assert_eq!(brought(), Some(Arc::new(2_u32)));
            assert_eq!(brought::<u32>(), None);
            bring(Arc::new("a word"));
            assert_eq!(brought::<u32>(), None);
        })
        .await;
    }
}
