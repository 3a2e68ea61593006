//! One HTTP/2 stream: the request that came on it, and an answer that is written past Pingora's
//! machinery.

use std::future::poll_fn;
use std::task::Context;
use std::task::Poll;

use bytes::Bytes;
use h2::RecvStream;
use h2::SendStream;
use h2::server::SendResponse;
use http::HeaderMap;
use http::HeaderName;
use http::Response;
use http::header;
use http::response::Parts;
use pingora::Error;
use pingora::ErrorType;
use pingora::Result;
use pingora::http::RequestHeader;
use pingora::http::ResponseHeader;

use crate::terms::pace::MinRate;
use crate::terms::pace::Pace;

/// Fields that say something of a connection, and that HTTP/2 has no room for (RFC 9113 §8.2.2).
const OF_CONNECTIONS: [HeaderName; 5] = [
    header::CONNECTION,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// A request that came on a stream. Dropped unanswered, the stream is reset.
pub(super) struct Request {
    /// Its head.
    pub(super) head: RequestHeader,
    /// Its body.
    pub(super) incoming: RecvStream,
    /// Where its answer goes.
    pub(super) answer: SendResponse<Bytes>,
}

impl Request {
    /// What the library accepted.
    pub(super) fn of((request, answer): (http::Request<RecvStream>, SendResponse<Bytes>)) -> Self {
        let (head, incoming) = request.into_parts();
        Self { head: head.into(), incoming, answer }
    }
}

/// A stream whose request is read, at the pace of its client. Dropped before its end, it is reset.
pub struct Http2Stream {
    answer: SendResponse<Bytes>,
    /// Dropped early, the rest of the request would be refused.
    _incoming: RecvStream,
    body: Option<SendStream<Bytes>>,
    pace: Pace,
    rate: MinRate,
}

impl Http2Stream {
    pub(super) fn new(request: Request, rate: MinRate) -> Self {
        let Request { answer, incoming, .. } = request;
        Self { answer, _incoming: incoming, body: None, pace: Pace::default(), rate }
    }

    /// Ready when the client gave the stream up.
    pub(crate) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.body {
            Some(body) => body.poll_reset(cx).map(|_| ()),
            None => self.answer.poll_reset(cx).map(|_| ()),
        }
    }

    /// Begins the final answer; `is_whole` says that nothing follows.
    ///
    /// # Errors
    /// The client gave the stream up.
    pub(crate) fn begin(&mut self, response: ResponseHeader, is_whole: bool) -> Result<()> {
        let begun = self.answer.send_response(lines(response.into()), is_whole);
        self.body = Some(begun.map_err(unsent)?);
        Ok(())
    }

    /// Sends an interim response ahead of the final one.
    ///
    /// # Errors
    /// The client gave the stream up.
    pub(crate) fn interim(&mut self, response: ResponseHeader) -> Result<()> {
        self.answer.send_informational(lines(response.into())).map_err(unsent)
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

    /// Ends the answer with these trailers.
    ///
    /// # Errors
    /// The client gave the stream up.
    pub(crate) fn trailers(&mut self, trailers: HeaderMap) -> Result<()> {
        let Some(body) = &mut self.body else { return Err(unbegun()) };
        body.send_trailers(trailers).map_err(unsent)
    }

    /// Cuts the answer, visibly.
    pub(crate) fn cut(&mut self) {
        match &mut self.body {
            Some(body) => body.send_reset(h2::Reason::INTERNAL_ERROR),
            None => self.answer.send_reset(h2::Reason::INTERNAL_ERROR),
        }
    }
}

/// A head as the library writes it.
pub(super) fn lines(mut head: Parts) -> Response<()> {
    for name in &OF_CONNECTIONS {
        head.headers.remove(name);
    }
    Response::from_parts(head, ())
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
