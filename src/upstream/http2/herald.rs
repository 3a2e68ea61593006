//! Hears what an origin says ahead of its answer.
//!
//! Interim responses are under no flow control: the library holds all that come until somebody takes them, and who
//! passes one on may wait for a client that does not read. So from the first one on a task takes them as they come,
//! and gives an origin up that sends too many. Who sends a body hears from it how that ends: nobody may come to read it
//! before that. Most answers have none, and no task.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;

use futures_util::future::select;
use h2::RecvStream;
use h2::client::ResponseFuture;
use http::Response;
use http::response::Parts;
use tokio::sync::mpsc;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::mpsc::UnboundedSender;

use super::body::Sending;

/// What an origin says next.
pub(super) enum Said {
    /// That its answer will come.
    Interim(Box<Parts>),
    /// Its answer; or there is none.
    Final(Result<Response<RecvStream>, h2::Error>),
    /// More interim responses than may be. Nothing follows.
    TooMany,
}

/// What a task heard. It ends when this is dropped.
pub(super) struct Herald {
    heard: UnboundedReceiver<Said>,
}

impl Herald {
    /// Hears `answer` from now on: `most` interim responses at most, and what they lead to. The stream of one that
    /// sends more is reset, the body that is being sent on it included.
    pub(super) fn begin(answer: ResponseFuture, most: u32, sending: Arc<Sending>) -> Self {
        // Holds what is let through, and the end.
        let (tell, heard) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            let unwanted = tell.clone();
            let hearing = pin!(async move {
                let last = hear(answer, most, &tell).await;
                let is_answer = matches!(last, Said::Final(Ok(_)));
                if let Said::TooMany = last {
                    sending.cancel();
                }
                let _ = tell.send(last);
                match is_answer {
                    true => sending.is_answered(),
                    false => sending.has_failed(),
                }
            });
            select(hearing, pin!(unwanted.closed())).await;
        });
        Self { heard }
    }

    /// What was said next; `None`: nothing more is heard.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Said>> {
        self.heard.poll_recv(cx)
    }
}

/// Passes on what comes ahead of the answer: what comes last.
async fn hear(mut answer: ResponseFuture, most: u32, tell: &UnboundedSender<Said>) -> Said {
    let mut left = most;
    while let Some(Ok(interim)) = poll_fn(|cx| answer.poll_informational(cx)).await {
        let Some(less) = left.checked_sub(1) else { return Said::TooMany };
        left = less;
        let _ = tell.send(Said::Interim(Box::new(interim.into_parts().0)));
    }
    // What else came of it, and what was wrong, is told here.
    Said::Final(answer.await)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use h2::server::SendResponse;
    use http::Request;

    use super::*;

    fn interim() -> Response<()> {
        Response::builder().status(103).body(()).expect("a good head")
    }

    /// A herald of a stream, and the origin's end of that.
    async fn between(most: u32) -> (Herald, SendResponse<Bytes>) {
        let (near, far) = tokio::io::duplex(1024);
        let (client, server) =
            tokio::join!(h2::client::handshake(near), h2::server::handshake(far));
        let ((mut client, driven), mut server) = (client.expect("HTTP/2"), server.expect("HTTP/2"));
        tokio::spawn(driven);
        let request = Request::get("http://origin.test/").body(()).expect("a good head");
        let (answer, _) = client.send_request(request, true).expect("a stream");
        let (_, respond) = server.accept().await.expect("a request").expect("a good one");
        tokio::spawn(async move { while server.accept().await.is_some() {} });
        (Herald::begin(answer, most, Sending::none()), respond)
    }

    async fn next(herald: &mut Herald) -> Option<Said> {
        poll_fn(|cx| herald.poll(cx)).await
    }

    #[tokio::test]
    async fn an_origin_without_end_is_given_up_while_nobody_listens() {
        let (mut herald, mut origin) = between(3).await;
        for _ in 0..4 {
            origin.send_informational(interim()).expect("the stream is open");
        }
        let reset = poll_fn(|cx| origin.poll_reset(cx)).await;
        assert_eq!(reset.expect("the connection stays"), h2::Reason::CANCEL);
        for _ in 0..3 {
            assert!(matches!(next(&mut herald).await, Some(Said::Interim(_))));
        }
        assert!(matches!(next(&mut herald).await, Some(Said::TooMany)));
        assert!(next(&mut herald).await.is_none());
    }

    #[tokio::test]
    async fn what_is_said_is_heard_in_its_order() {
        let (mut herald, mut origin) = between(2).await;
        for _ in 0..2 {
            origin.send_informational(interim()).expect("the stream is open");
        }
        origin.send_response(Response::new(()), true).expect("the stream is open");
        for _ in 0..2 {
            assert!(matches!(next(&mut herald).await, Some(Said::Interim(_))));
        }
        assert!(matches!(next(&mut herald).await, Some(Said::Final(Ok(_)))));
    }

    #[tokio::test]
    async fn nobody_hears_on_who_is_not_listened_to() {
        let (herald, mut origin) = between(2).await;
        drop(herald);
        let reset = poll_fn(|cx| origin.poll_reset(cx)).await;
        assert_eq!(reset.expect("the connection stays"), h2::Reason::CANCEL);
    }
}
