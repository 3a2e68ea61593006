//! How many TLS handshakes are under way at once. One costs a signature and some memory, before anything is known
//! of the client but its address.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use tokio::sync::Notify;

/// Those that are under way.
#[derive(Debug, Default)]
pub(super) struct Hands {
    shaken: AtomicU64,
    freed: Notify,
}

/// One of them, as long as it is held.
#[derive(Debug)]
pub(super) struct Hand<'a>(&'a Hands);

impl Hands {
    /// Waits until fewer than `most` are under way. Whoever goes away meanwhile takes nobody's turn.
    pub(super) async fn take(&self, most: u64) -> Hand<'_> {
        loop {
            // One that is given back after the look is not missed: it is remembered.
            let freed = self.freed.notified();
            let one_more = |shaken: u64| (shaken < most).then(|| shaken + 1);
            let (set, fetch) = (Ordering::AcqRel, Ordering::Acquire);
            if self.shaken.fetch_update(set, fetch, one_more).is_ok() {
                return Hand(self);
            }
            freed.await;
        }
    }
}

impl Drop for Hand<'_> {
    fn drop(&mut self) {
        self.0.shaken.fetch_sub(1, Ordering::AcqRel);
        self.0.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn who_comes_when_all_are_taken_waits_for_the_next() {
        let hands = Hands::default();
        let one = hands.take(2).await;
        let _two = hands.take(2).await;
        let mut third = Box::pin(hands.take(2));
        assert!(third.as_mut().now_or_never().is_none());
        drop(one);
        let third = third.now_or_never().expect("there is room");
        assert!(hands.take(2).now_or_never().is_none());
        drop(third);
        assert!(hands.take(2).now_or_never().is_some());
    }

    #[tokio::test]
    async fn who_gives_up_takes_nobodys_turn() {
        let hands = Hands::default();
        let held = hands.take(1).await;
        let mut first = Box::pin(hands.take(1));
        let mut second = Box::pin(hands.take(1));
        assert!(first.as_mut().now_or_never().is_none());
        assert!(second.as_mut().now_or_never().is_none());
        drop(held);
        // It was its turn.
        drop(first);
        assert!(second.now_or_never().is_some());
    }

    #[tokio::test]
    async fn a_limit_may_change_under_those_that_are_under_way() {
        let hands = Hands::default();
        let _two = (hands.take(2).await, hands.take(2).await);
        assert!(hands.take(1).now_or_never().is_none());
        assert!(hands.take(3).now_or_never().is_some());
    }
}
