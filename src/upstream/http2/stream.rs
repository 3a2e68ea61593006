//! One exchange on a connection of HTTP/2: a request, and its answer.
//!
//! The connection itself is driven elsewhere. Here every wait is under the terms of the running request, as on a
//! connection of HTTP/1. A stream that is dropped before its end is reset (CANCEL).

use std::future::Future;
use std::os::fd::RawFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;
use std::task::ready;

use bytes::Bytes;
use h2::RecvStream;
use h2::client::ResponseFuture;
use http::HeaderMap;
use http::HeaderValue;
use http::Request;
use http::StatusCode;
use http::Uri;
use http::header;
use http::response::Parts;
use http::uri::Authority;
use pingora::Error;
use pingora::ErrorType;
use pingora::Result;
use tokio::time::Instant;

use super::body::Sending;
use super::carrier::Place;
use super::fault;
use super::herald::Herald;
use super::herald::Said;
use crate::message::reply::OriginFault;
use crate::refusal::Refusal;
use crate::terms;
use crate::terms::Gate;
use crate::upstream::fault::overdue;
use crate::upstream::vigil::Awaited;
use crate::upstream::vigil::Heard;
use crate::upstream::vigil::Vigil;

/// What belongs to one connection of HTTP/1 and is malformed here (RFC 9113 §8.2.2).
const OF_HTTP_1: [header::HeaderName; 3] =
    [header::CONNECTION, header::TRANSFER_ENCODING, header::UPGRADE];

/// An exchange under way.
pub struct Stream {
    place: Place,
    answer: Answer,
    sending: Arc<Sending>,
    /// Bytes of the request's body that are known to have been passed on.
    passed: u64,
    vigil: Vigil,
    /// When it was asked.
    asked: Instant,
}

/// How far the answer is.
enum Answer {
    /// Nothing was asked.
    Unasked,
    /// Its head is awaited.
    Awaited(ResponseFuture),
    /// Its head is awaited elsewhere, since others came ahead of it.
    Heralded(Herald),
    /// Its head came, of an answer that has no content. Whether it is one is seen by what comes next.
    Held(Box<Parts>, RecvStream),
    /// Its head came.
    Begun(RecvStream),
    /// There is none.
    Failed,
}

/// What came of an answer's head.
pub enum Head {
    /// That it will come: another one follows.
    Interim(Box<Parts>),
    /// The final one.
    Final(Box<Parts>),
}

impl Stream {
    pub(super) fn new(place: Place) -> Self {
        Self {
            place,
            answer: Answer::Unasked,
            sending: Sending::none(),
            passed: 0,
            vigil: Vigil::default(),
            asked: Instant::now(),
        }
    }

    /// Whether its connection carried requests before.
    pub fn was_used(&self) -> bool {
        self.place.used
    }

    /// The descriptor of its connection.
    pub fn descriptor(&self) -> RawFd {
        self.place.descriptor()
    }

    /// Sends the head of a request, which names its Host; `has_body`: one follows.
    ///
    /// # Errors
    /// The connection takes none any more, or it is no request.
    pub fn send(&mut self, request: Request<()>, has_body: bool) -> Result<()> {
        let request = self.suited(request)?;
        self.vigil.begin();
        self.asked = Instant::now();
        let sent = self.place.sender().send_request(request, !has_body);
        let (answer, body) = sent.map_err(fault::unsent)?;
        self.answer = Answer::Awaited(answer);
        if has_body {
            self.sending = Sending::of(body);
        }
        Ok(())
    }

    /// What the request's body is written to.
    pub fn sending(&self) -> Arc<Sending> {
        Arc::clone(&self.sending)
    }

    /// A request as HTTP/2 has it: the Host is its authority, and nothing is said of the connection.
    fn suited(&self, request: Request<()>) -> Result<Request<()>> {
        let (mut head, ()) = request.into_parts();
        for name in &OF_HTTP_1 {
            head.headers.remove(name);
        }
        for name in ["keep-alive", "proxy-connection", "http2-settings"] {
            head.headers.remove(name);
        }
        if head.headers.get(header::TE).is_some_and(|value| value != "trailers") {
            head.headers.remove(header::TE);
        }
        let host = head.headers.remove(header::HOST);
        let host = host.as_ref().map(HeaderValue::as_bytes);
        let named = host.map(Authority::try_from).transpose();
        let authority = match named {
            Ok(named) => named.or_else(|| head.uri.authority().cloned()),
            Err(_) => None,
        };
        let Some(authority) = authority.filter(|authority| !authority.as_str().contains('@'))
        else {
            return Error::e_explain(ErrorType::InternalError, "a request without an authority");
        };
        let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
        let uri = Uri::builder().scheme(self.place.scheme()).authority(authority);
        head.uri = uri.path_and_query(target).build().map_err(|e| {
            Error::because(ErrorType::InternalError, "a target that HTTP/2 cannot have", e)
        })?;
        head.version = http::Version::HTTP_2;
        Ok(Request::from_parts(head, ()))
    }

    /// The next head of the answer: of an interim response, which another follows, or the final one.
    ///
    /// # Errors
    /// There is none, or not in time.
    pub fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<Head>> {
        if let Some(refusal) = self.vigil.has_ended(self.sending.awaited()) {
            return Poll::Ready(Err(self.late(refusal)));
        }
        let said = loop {
            let said = match &mut self.answer {
                Answer::Awaited(_) => self.poll_first(cx),
                Answer::Heralded(herald) => herald.poll(cx),
                Answer::Held(..) => return self.poll_held(cx),
                Answer::Unasked | Answer::Begun(_) | Answer::Failed => {
                    return Poll::Ready(unasked());
                }
            };
            match said {
                // HTTP/2 has no such thing (RFC 9113 §8.6), whatever it is meant to open.
                Poll::Ready(Some(Said::Interim(head)))
                    if head.status == StatusCode::SWITCHING_PROTOCOLS => {}
                said => break said,
            }
        };
        match said {
            Poll::Ready(Some(Said::Interim(head))) => {
                self.vigil.heard(Heard::Interim);
                Poll::Ready(Ok(Head::Interim(head)))
            }
            Poll::Ready(Some(Said::TooMany)) => {
                // Whoever goes on with this has no ear for other requests.
                self.place.leave();
                self.answer = Answer::Failed;
                Poll::Ready(Err(malformed(OriginFault::TooManyInterim)))
            }
            Poll::Ready(Some(Said::Final(Ok(response)))) => {
                self.vigil.heard(Heard::Answer);
                let (head, body) = response.into_parts();
                let has_none = [StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED];
                let head = Box::new(head);
                if has_none.contains(&head.status) && !body.is_end_stream() {
                    self.answer = Answer::Held(head, body);
                    return self.poll_held(cx);
                }
                self.answer = Answer::Begun(body);
                self.sending.is_answered();
                Poll::Ready(Ok(Head::Final(head)))
            }
            Poll::Ready(Some(Said::Final(Err(e)))) => {
                self.answer = Answer::Failed;
                Poll::Ready(Err(fault::no_head(e, self.place.is_lost())))
            }
            Poll::Ready(None) => Poll::Ready(unasked()),
            Poll::Pending => self.poll_overdue(cx),
        }
    }

    /// What the origin says first. Where that is an interim response, a task hears the rest.
    fn poll_first(&mut self, cx: &mut Context<'_>) -> Poll<Option<Said>> {
        let Answer::Awaited(answer) = &mut self.answer else { return Poll::Ready(None) };
        let Some(Ok(interim)) = ready!(answer.poll_informational(cx)) else {
            // The final one, or what it fails by, is told here. Asked for before it is there, it would skip an interim
            // response that came meanwhile.
            return Pin::new(answer).poll(cx).map(|answer| Some(Said::Final(answer)));
        };
        let Some(more) = self.place.limits().interim.checked_sub(1) else {
            return Poll::Ready(Some(Said::TooMany));
        };
        if let Answer::Awaited(answer) = std::mem::replace(&mut self.answer, Answer::Failed) {
            self.answer = Answer::Heralded(Herald::begin(answer, more, self.sending()));
        }
        Poll::Ready(Some(Said::Interim(Box::new(interim.into_parts().0))))
    }

    /// The head of an answer that has no content, once it is known that none comes (RFC 9110 §6.4.1).
    fn poll_held(&mut self, cx: &mut Context<'_>) -> Poll<Result<Head>> {
        while let Answer::Held(_, body) = &mut self.answer {
            match body.poll_data(cx) {
                Poll::Ready(None) => break,
                Poll::Ready(Some(Ok(data))) if data.is_empty() => {}
                Poll::Ready(Some(Ok(_))) => {
                    return Poll::Ready(Err(malformed(OriginFault::UnexpectedBody)));
                }
                Poll::Ready(Some(Err(e))) => return Poll::Ready(Err(fault::not_whole(e))),
                Poll::Pending => return self.poll_overdue(cx),
            }
        }
        match std::mem::replace(&mut self.answer, Answer::Failed) {
            Answer::Held(head, body) => {
                self.answer = Answer::Begun(body);
                self.sending.is_answered();
                Poll::Ready(Ok(Head::Final(head)))
            }
            Answer::Unasked
            | Answer::Awaited(_)
            | Answer::Heralded(_)
            | Answer::Begun(_)
            | Answer::Failed => Poll::Ready(unasked()),
        }
    }

    /// The next bytes of the answer's body, never none of them; `None` at its end, where trailers may follow.
    ///
    /// # Errors
    /// It is not whole, or not in time.
    pub fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>>> {
        if let Some(refusal) = self.vigil.has_ended(self.sending.awaited()) {
            return Poll::Ready(Err(self.late(refusal)));
        }
        let _ = self.sending.poll_open(cx);
        loop {
            let Answer::Begun(body) = &mut self.answer else { return Poll::Ready(Ok(None)) };
            match body.poll_data(cx) {
                Poll::Ready(Some(Ok(data))) => {
                    if let Err(e) = body.flow_control().release_capacity(data.len()) {
                        return Poll::Ready(Err(fault::not_whole(e)));
                    }
                    if !data.is_empty() {
                        self.vigil.heard(Heard::Answer);
                        return Poll::Ready(Ok(Some(data)));
                    }
                }
                Poll::Ready(Some(Err(e))) => return Poll::Ready(Err(fault::not_whole(e))),
                Poll::Ready(None) => return Poll::Ready(Ok(None)),
                Poll::Pending => return self.poll_overdue(cx),
            }
        }
    }

    /// What follows the answer's body.
    ///
    /// # Errors
    /// The answer is not whole, or not in time.
    pub fn poll_trailers(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<HeaderMap>>> {
        let _ = self.sending.poll_open(cx);
        let Answer::Begun(body) = &mut self.answer else { return Poll::Ready(Ok(None)) };
        match body.poll_trailers(cx) {
            Poll::Ready(trailers) => Poll::Ready(trailers.map_err(fault::not_whole)),
            Poll::Pending => self.poll_overdue(cx),
        }
    }

    /// Whether the answer has ended, without anything behind what was read.
    ///
    /// # Errors
    /// It has ended, and is not whole.
    pub fn has_ended(&mut self) -> Result<bool> {
        let Answer::Begun(body) = &mut self.answer else { return Ok(false) };
        if !body.is_end_stream() {
            return Ok(false);
        }
        // A stream that broke says that it has ended as well.
        let mut cx = Context::from_waker(std::task::Waker::noop());
        match body.poll_data(&mut cx) {
            Poll::Ready(None) => Ok(true),
            Poll::Ready(Some(Err(e))) => Err(fault::not_whole(e)),
            Poll::Ready(Some(Ok(_))) | Poll::Pending => Ok(false),
        }
    }

    /// The origin took too long by another's clock: whether others on its connection had more of it is looked at.
    pub fn gave_up(&self) {
        self.place.was_silent_since(self.asked);
    }

    /// Nothing comes: ready when that takes too long.
    fn poll_overdue<T>(&mut self, cx: &mut Context<'_>) -> Poll<Result<T>> {
        let passed = self.sending.passed();
        if passed > self.passed {
            let more = usize::try_from(passed - self.passed).unwrap_or(usize::MAX);
            self.vigil.took();
            self.vigil.client_sent(more);
            self.passed = passed;
        }
        let awaited = self.sending.awaited();
        // Nobody else tells of it here: what Pingora is told of the client's body it keeps to itself.
        if awaited != Awaited::Origin && terms::is_body_refused(cx) {
            return Poll::Ready(Err(self.late(Refusal::BodyTooLarge)));
        }
        let refusal = ready!(self.vigil.poll_overdue(cx, awaited));
        Poll::Ready(Err(self.late(refusal)))
    }

    fn late(&self, refusal: Refusal) -> Box<Error> {
        if !refusal.is_of_body() {
            self.gave_up();
        }
        Error::because(ErrorType::ReadError, "waiting for the origin", overdue(refusal)).into_up()
    }
}

/// There is no head of an answer to nothing.
fn unasked<T>() -> Result<T> {
    Error::e_explain(ErrorType::InternalError, "nothing was asked")
}

/// A breach of the origin's.
fn malformed(fault: OriginFault) -> Box<Error> {
    let fault = std::io::Error::new(std::io::ErrorKind::InvalidData, fault);
    Error::because(ErrorType::ReadError, "reading the answer's head", fault).into_up()
}
