//! One HTTP/2 stream whose answer is written past Pingora's machinery.

use std::future::Future;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::Context;
use std::task::Poll;

use bytes::Bytes;
use h2::SendStream;
use pingora::Error;
use pingora::ErrorType;
use pingora::Result;
use pingora::http::ResponseHeader;
use pingora::protocols::http::v2::server::HttpSession;

use crate::terms::pace::MinRate;
use crate::terms::pace::Pace;

/// A stream whose request is read, at the pace of its client. Dropped before its end, it is reset.
pub struct Http2Stream {
    session: HttpSession,
    body: Option<SendStream<Bytes>>,
    pace: Pace,
    rate: MinRate,
}

impl Http2Stream {
    pub(super) fn new(session: HttpSession, rate: MinRate) -> Self {
        Self { session, body: None, pace: Pace::default(), rate }
    }

    /// Ready when the client gave the stream up.
    pub(crate) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.body {
            Some(body) => body.poll_reset(cx).map(|_| ()),
            None => Pin::new(&mut self.session.idle()).poll(cx).map(|_| ()),
        }
    }

    /// Begins the final answer; `is_whole` says that nothing follows.
    ///
    /// # Errors
    /// The client gave the stream up.
    pub(crate) fn begin(&mut self, response: ResponseHeader, is_whole: bool) -> Result<()> {
        self.session.write_response_header(Box::new(response), is_whole)?;
        self.body = self.session.take_response_body_writer();
        Ok(())
    }

    /// Sends some of the body, as the client takes it, and adds to `sent` what was taken.
    ///
    /// # Errors
    /// The client gave the stream up, or takes too long.
    pub(crate) async fn send(&mut self, part: Bytes, is_last: bool, sent: &mut u64) -> Result<()> {
        let Some(body) = &mut self.body else { return Err(unbegun()) };
        let taken = send_part(body, part, is_last, &mut self.pace, self.rate, sent).await;
        taken.map_err(unsent)
    }

    /// Ends the answer.
    ///
    /// # Errors
    /// The client gave the stream up.
    pub(crate) fn end(&mut self) -> Result<()> {
        let Some(body) = &mut self.body else { return Err(unbegun()) };
        body.send_data(Bytes::new(), true).map_err(unsent)
    }

    /// Cuts the answer, visibly.
    pub(crate) fn cut(&mut self) {
        match &mut self.body {
            Some(body) => body.send_reset(h2::Reason::INTERNAL_ERROR),
            None => self.session.shutdown(),
        }
    }
}

fn unbegun() -> Box<Error> {
    Error::explain(ErrorType::InternalError, "a body before its header")
}

/// The client does not take what was sent.
fn unsent(e: h2::Error) -> Box<Error> {
    Error::because(ErrorType::WriteError, "writing the answer", e).into_down()
}

/// Sends all of `part`, and adds to `sent` what was taken.
pub(super) async fn send_part(
    stream: &mut SendStream<Bytes>,
    mut part: Bytes,
    is_last: bool,
    pace: &mut Pace,
    rate: MinRate,
    sent: &mut u64,
) -> std::result::Result<(), h2::Error> {
    while !part.is_empty() {
        stream.reserve_capacity(part.len());
        while stream.capacity() == 0 {
            poll_fn(|cx| match stream.poll_capacity(cx) {
                Poll::Ready(Some(room)) => Poll::Ready(room),
                Poll::Ready(None) => Poll::Ready(Err(h2::Reason::CANCEL.into())),
                Poll::Pending => {
                    pace.poll_too_slow(cx, rate).map(|()| Err(h2::Reason::CANCEL.into()))
                }
            })
            .await?;
        }
        let piece = part.split_to(stream.capacity().min(part.len()));
        let bytes = piece.len();
        stream.send_data(piece, is_last && part.is_empty())?;
        pace.moved(bytes);
        *sent += bytes as u64;
    }
    Ok(())
}
