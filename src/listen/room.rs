//! Where the future stands that answers a request past Pingora.
//!
//! It is large, and each request has one. The memory of the last one is the next one's: it is near, where what an
//! allocator gives out is the memory that was used longest ago.

use std::future::Future;
use std::task::Context;
use std::task::Poll;

use tokio_util::sync::ReusableBoxFuture;

use crate::listen::io::EdgeIo;
use crate::pieces::Pieces;

/// A future of an answer, or what such a one has left.
type Work = ReusableBoxFuture<'static, Option<Box<EdgeIo>>>;

thread_local! {
    static LEFT: Pieces<Work> = const { Pieces::new() };
}

/// Room for one future.
pub struct Room(Option<Work>);

impl Room {
    /// One that somebody left, or a new one.
    pub(super) fn take() -> Self {
        Self(LEFT.with(Pieces::take))
    }

    /// Puts `work` there, which gives the connection back when it can carry another request.
    pub fn fill(&mut self, work: impl Future<Output = Option<Box<EdgeIo>>> + Send + 'static) {
        match &mut self.0 {
            Some(room) => room.set(work),
            None => self.0 = Some(ReusableBoxFuture::new(work)),
        }
    }

    /// Goes on with what is there; there is nothing to wait for where nothing is.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Box<EdgeIo>>> {
        self.0.as_mut().map_or(Poll::Ready(None), |work| work.poll(cx))
    }

    /// Leaves it to the next request. What was there has ended.
    pub(super) fn leave(self) {
        if let Some(room) = self.0 {
            LEFT.with(|left| left.leave(room));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    #[test]
    fn a_future_gets_the_memory_of_the_last_one_of_its_kind() {
        let mut cx = Context::from_waker(Waker::noop());
        let mut places = Vec::new();
        for _ in 0..3 {
            let mut room = Room::take();
            let large = [7_u8; 500];
            room.fill(async move {
                assert_eq!(std::hint::black_box(&large).len(), 500);
                None
            });
            let place = room.0.as_mut().map(|work| std::ptr::from_ref(&*work.get_pin()).addr());
            places.push(place);
            assert!(matches!(room.poll(&mut cx), Poll::Ready(None)));
            room.leave();
        }
        assert_eq!(places, [places[0]; 3]);
        // Another kind has memory of its own.
        let mut room = Room::take();
        room.fill(std::future::ready(None));
        assert!(matches!(room.poll(&mut cx), Poll::Ready(None)));
    }

    #[test]
    fn an_empty_room_ends_at_once() {
        let mut cx = Context::from_waker(Waker::noop());
        assert!(matches!(Room(None).poll(&mut cx), Poll::Ready(None)));
    }
}
