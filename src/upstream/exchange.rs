//! One exchange with an origin without Pingora, in the version that the origin speaks: a request, and its answer.

pub mod http1;
mod inbox;

use std::future::poll_fn;
use std::task::Context;
use std::task::Poll;
use std::task::ready;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http::Request;
use http::StatusCode;
use http::header;
use http::request;
use http::response;
use pingora::Error;
use pingora::ErrorType;
use pingora::Result;
use tokio::time::timeout;

use crate::message::chunked::BodyFraming;
use crate::message::reply::ReplyMessage;
use crate::upstream::http2::stream::Head;
use crate::upstream::http2::stream::Stream;

/// An exchange under way.
pub enum Exchange {
    /// On a connection of its own.
    Http1(Box<http1::Exchange>),
    /// On a stream beside others.
    Http2(Box<Stream>),
}

/// What an origin is asked: a GET that has no body and offers no tunnel.
pub enum Question {
    /// As HTTP/1 has it: a head that is beyond doubt one request.
    Text(Vec<u8>),
    /// As HTTP/2 has it.
    Fields(Box<request::Parts>),
}

/// What comes behind the head of an answer.
#[derive(Debug)]
pub enum Part {
    /// Some of the body, never nothing.
    Data(Bytes),
    /// Its end, and the trailers where the origin speaks HTTP/2.
    End(Option<HeaderMap>),
}

/// The head of an answer that has come.
pub enum Came {
    /// As text; it stands in the exchange.
    Text,
    /// As fields.
    Fields(Box<ReplyMessage>),
}

impl Exchange {
    /// Whether the connection carried requests before.
    #[must_use]
    pub fn is_on_used_connection(&self) -> bool {
        match self {
            Self::Http1(exchange) => exchange.is_on_used_connection(),
            Self::Http2(stream) => stream.was_used(),
        }
    }

    /// Asks, in the version that the origin speaks. Asked again only as long as it was not ready.
    ///
    /// # Errors
    /// The connection is broken, or it is in the other version.
    pub fn poll_send(&mut self, cx: &mut Context<'_>, question: &Question) -> Poll<Result<()>> {
        match (self, question) {
            (Self::Http1(exchange), Question::Text(head)) => exchange.poll_send(cx, head),
            // What is not written waits for nobody.
            (Self::Http2(stream), Question::Fields(head)) => {
                let head = Request::from_parts(request::Parts::clone(head), ());
                Poll::Ready(stream.send(head, false))
            }
            (Self::Http1(_), Question::Fields(_)) | (Self::Http2(_), Question::Text(_)) => {
                let what = "a question in the other version of HTTP";
                Poll::Ready(Error::e_explain(ErrorType::InternalError, what))
            }
        }
    }

    /// Goes on with that, within `patience`.
    ///
    /// # Errors
    /// The same, or the origin does not take it.
    pub async fn send(&mut self, question: &Question, patience: Duration) -> Result<()> {
        sent(patience, poll_fn(|cx| self.poll_send(cx, question))).await
    }

    /// The next head of the answer: of an interim response, which another follows, or the final one.
    ///
    /// # Errors
    /// There is none, or what came is none.
    pub fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<Came>> {
        match self {
            Self::Http1(exchange) => exchange.poll_text(cx).map_ok(|()| Came::Text),
            Self::Http2(stream) => {
                Poll::Ready(Ok(Came::Fields(match ready!(stream.poll_head(cx))? {
                    Head::Interim(head) => message(*head, None),
                    Head::Final(head) => {
                        let framing = framing(&head);
                        message(*head, Some(framing))
                    }
                })))
            }
        }
    }

    /// The exchange in which a head stands as text.
    ///
    /// # Errors
    /// It does not.
    pub fn with_text(&mut self) -> Result<&mut http1::Exchange> {
        match self {
            Self::Http1(exchange) => Ok(exchange),
            Self::Http2(_) => {
                let what = "an answer in the other version of HTTP";
                Error::e_explain(ErrorType::InternalError, what)
            }
        }
    }

    /// Writes all that is to come of the answer's body behind `out`, if it is here and no longer than `most`: how
    /// long it is.
    pub fn take_rest(&mut self, out: &mut Vec<u8>, most: usize) -> Option<usize> {
        match self {
            Self::Http1(exchange) => exchange.take_rest(out, most),
            // Its end may be a frame of its own, with trailers.
            Self::Http2(_) => None,
        }
    }

    /// What comes next behind the head of the answer.
    ///
    /// # Errors
    /// It is not whole, or not what its head says.
    pub fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Result<Part>> {
        match self {
            Self::Http1(exchange) => {
                let data = ready!(exchange.poll_body(cx))?;
                Poll::Ready(Ok(data.map_or(Part::End(None), Part::Data)))
            }
            Self::Http2(stream) => match ready!(stream.poll_body(cx))? {
                Some(data) => Poll::Ready(Ok(Part::Data(data))),
                // The stream ends with them, and is whole only then.
                None => stream.poll_trailers(cx).map_ok(Part::End),
            },
        }
    }

    /// Nobody waits for the origin any longer.
    pub fn gave_up(&self) {
        match self {
            // Its connection is closed.
            Self::Http1(_) => {}
            Self::Http2(stream) => stream.gave_up(),
        }
    }
}

/// Sends a request within `patience`.
async fn sent(patience: Duration, sending: impl Future<Output = Result<()>>) -> Result<()> {
    let late = || Error::explain(ErrorType::WriteTimedout, "writing the request").into_up();
    timeout(patience, sending).await.unwrap_or_else(|_| Err(late()))
}

fn message(head: response::Parts, body: Option<BodyFraming>) -> Box<ReplyMessage> {
    let response::Parts { status, version, headers, .. } = head;
    Box::new(ReplyMessage { status, version, headers, body })
}

/// How a client would find the end of what follows this head. That it ends there the stream has seen to.
fn framing(head: &response::Parts) -> BodyFraming {
    if [StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED].contains(&head.status) {
        return BodyFraming::None;
    }
    let length = head.headers.get(header::CONTENT_LENGTH);
    let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
    length.map_or(BodyFraming::UntilClose, BodyFraming::Length)
}
