//! The client's side of a request that is passed through: waits for the origin while the client is
//! there, and writes what comes.

mod http1;
mod http2;

use std::future::poll_fn;
use std::io;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http::Version;
use pingora::Error;
use pingora::ErrorType;
use pingora::Result;
use pingora::http::ResponseHeader;
use tokio::time::timeout;

use crate::listen::io::EdgeIo;
use crate::listen::stream::Http2Stream;
use crate::message::chunked::BodyFraming;
use crate::message::hops::Nominated;
use crate::message::reply::ReplyMessage;
use crate::message::reply::ReplyText;
use crate::message::spare;
use crate::proxy::dress::Dress;
use crate::proxy::through::header_of;
use crate::proxy::wire;
use crate::upstream::exchange::Came;
use crate::upstream::exchange::Exchange;
use crate::upstream::exchange::Part;
use crate::upstream::lease::Lease;

/// Writes an answer to a client while it comes.
pub(super) struct Relay<'a> {
    client: Client<'a>,
    /// How long the origin may be silent; `None` where its connection sees to that.
    patience: Option<Duration>,
    /// The status of the answer that was begun.
    status: Option<u16>,
    /// Bytes of the answer's body.
    sent: u64,
}

/// How an answer begins.
pub(super) struct Opening {
    status: StatusCode,
    head: Opened,
}

/// An answer that was begun.
pub(super) enum Begins<'a> {
    /// It is here as a whole: as it is sent, and how long its body is.
    Whole(Vec<u8>, usize),
    /// More of it is coming.
    InParts(Opening, Coming<'a>),
}

/// The head of an answer, as its client is sent it.
enum Opened {
    /// Text, without the lines on its framing and its connection.
    Text(Vec<u8>),
    /// Fields.
    Fields(Box<ResponseHeader>),
}

/// Room for the head of most answers, and a small body.
const ROOM: usize = 2048;

/// What is written to.
enum Client<'a> {
    /// A connection that carries nothing else meanwhile.
    Http1(&'a mut EdgeIo),
    /// A stream among others.
    Http2(&'a mut Http2Stream),
}

impl Client<'_> {
    /// Ready when the client went away.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Http1(io) => io.poll_client_gone(cx),
            Self::Http2(stream) => stream.poll_gone(cx).map(Ok),
        }
    }
}

/// What there is of a body without waiting.
type Next = Poll<Result<Part>>;

/// What an origin sends after its head, and what is given back with the last byte of it, before the
/// client has that.
pub(super) struct Coming<'a> {
    /// How it finds its end.
    pub(super) framing: BodyFraming,
    /// What it comes by.
    pub(super) exchange: Exchange,
    /// What was lent for it.
    pub(super) lent: &'a mut Option<Lease>,
}

impl Coming<'_> {
    /// What there is without waiting.
    async fn now(&mut self) -> Next {
        poll_fn(|cx| Poll::Ready(self.exchange.poll_part(cx))).await
    }

    /// The next of it, while the origin may be silent for so long.
    async fn next(&mut self, client: &mut Client<'_>, patience: Option<Duration>) -> Result<Part> {
        wait(client, patience, &mut self.exchange, Exchange::poll_part).await
    }

    /// All of it came.
    fn ended(self) {
        drop(self.exchange);
        *self.lent = None;
    }
}

impl<'a> Relay<'a> {
    /// Writes to a connection.
    pub(super) fn http1(io: &'a mut EdgeIo) -> Self {
        Self::to(Client::Http1(io))
    }

    /// Writes to a stream.
    pub(super) fn http2(stream: &'a mut Http2Stream) -> Self {
        Self::to(Client::Http2(stream))
    }

    fn to(client: Client<'a>) -> Self {
        Self { client, patience: None, status: None, sent: 0 }
    }

    /// How long the origin may be silent from now on; `None` where its connection sees to that.
    pub(super) fn set_patience(&mut self, patience: Option<Duration>) {
        self.patience = patience;
    }

    /// Whether something of the final answer may have been sent.
    pub(super) fn has_begun(&self) -> bool {
        self.status.is_some()
    }

    /// The status of the answer that was begun.
    pub(super) fn status(&self) -> Option<u16> {
        self.status
    }

    /// Bytes of its body that were sent.
    pub(super) fn sent(&self) -> u64 {
        self.sent
    }

    /// Waits for the next head of the origin's.
    pub(super) async fn head(&mut self, exchange: &mut Exchange) -> Result<Came> {
        wait(&mut self.client, self.patience, exchange, Exchange::poll_head).await
    }

    /// Passes an interim response on.
    pub(super) async fn interim(&mut self, response: ResponseHeader) -> Result<()> {
        match &mut self.client {
            Client::Http1(io) => http1::interim(io, &response).await,
            Client::Http2(stream) => stream.interim(response),
        }
    }

    /// Whether the client is written text.
    pub(super) fn writes_text(&self) -> bool {
        matches!(self.client, Client::Http1(_))
    }

    /// How the final answer begins in this dress, which has no rules, for a client that is written text. `ends` are
    /// the fields that its Connection names.
    pub(super) fn opening_of(
        response: &ReplyText<'_>,
        ends: &Nominated<'_>,
        dress: &Dress<'_>,
    ) -> Opening {
        let mut text = room();
        wire::write_text(&mut text, response, ends, dress);
        Opening { status: response.status, head: Opened::Text(text) }
    }

    /// The same of one in a map, for any client.
    pub(super) fn opening(&self, mut response: ReplyMessage, dress: &Dress<'_>) -> Result<Opening> {
        let status = response.status;
        Ok(match self.client {
            Client::Http1(_) => {
                let mut text = room();
                wire::write_passed(&mut text, &mut response, dress)?;
                spare::leave_fields(response.headers);
                Opening { status, head: Opened::Text(text) }
            }
            Client::Http2(_) => {
                dress.put_on(&mut response)?;
                let head = header_of(status, Version::HTTP_11, response.headers);
                Opening { status, head: Opened::Fields(Box::new(head)) }
            }
        })
    }

    /// Begins the final answer with this, and the body that is coming. `keep`: an HTTP/1 connection may carry another
    /// request.
    pub(super) fn begin<'c>(
        &mut self,
        opening: Opening,
        mut coming: Coming<'c>,
        keep: bool,
    ) -> Begins<'c> {
        let Opening { status, mut head } = opening;
        if let (Client::Http1(_), Opened::Text(text)) = (&self.client, &mut head) {
            http1::end_head(text, coming.framing, keep);
            if let Some(length) = coming.exchange.take_rest(text, http1::SMALL) {
                self.status = Some(status.as_u16());
                coming.ended();
                return Begins::Whole(std::mem::take(text), length);
            }
        }
        Begins::InParts(Opening { status, head }, coming)
    }

    /// Sends an answer that is here as a whole, with a body of this length.
    pub(super) async fn whole(&mut self, text: Vec<u8>, length: usize) -> Result<()> {
        let Client::Http1(io) = &mut self.client else { return other_version() };
        http1::send_text(io, text).await?;
        self.sent += length as u64;
        http1::flush(io).await
    }

    /// Passes an answer on that was begun, and of which more is coming.
    pub(super) async fn answer(&mut self, opening: Opening, mut coming: Coming<'_>) -> Result<()> {
        let Opening { status, head } = opening;
        let next = match coming.now().await {
            // Nothing has left yet: it may fail as if there had been no head.
            Poll::Ready(Err(error)) => return Err(error),
            next @ (Poll::Ready(Ok(_)) | Poll::Pending) => next,
        };
        self.status = Some(status.as_u16());
        let Self { client, patience, sent, .. } = self;
        let coming = (coming, next);
        match (client, head) {
            (Client::Http1(io), Opened::Text(text)) => {
                http1::answer(io, *patience, sent, text, coming).await
            }
            (Client::Http2(stream), Opened::Fields(head)) => {
                http2::answer(stream, *patience, sent, *head, coming).await
            }
            (Client::Http1(_), Opened::Fields(_)) | (Client::Http2(_), Opened::Text(_)) => {
                other_version()
            }
        }
    }

    /// Answers with a response of our own, and the end of an HTTP/1 connection.
    pub(super) async fn own_answer(&mut self, response: ResponseHeader, body: Bytes) -> Result<()> {
        self.status = Some(response.status.as_u16());
        let length = body.len() as u64;
        match &mut self.client {
            Client::Http1(io) => {
                http1::own_answer(io, &response, &body).await?;
                self.sent += length;
                Ok(())
            }
            Client::Http2(stream) => {
                stream.begin(response, body.is_empty())?;
                stream.send(body, true, &mut self.sent).await
            }
        }
    }
}

#[cold]
fn other_version() -> Result<()> {
    Error::e_explain(ErrorType::InternalError, "an answer in the other version of HTTP")
}

/// Room for a head.
fn room() -> Vec<u8> {
    let mut text = spare::text();
    text.reserve(ROOM);
    text
}

/// Waits for the origin while it may be silent and the client is there.
async fn wait<T>(
    client: &mut Client<'_>,
    patience: Option<Duration>,
    exchange: &mut Exchange,
    poll: impl Fn(&mut Exchange, &mut Context<'_>) -> Poll<Result<T>>,
) -> Result<T> {
    let comes = poll_fn(|cx| {
        if let Poll::Ready(came) = poll(exchange, cx) {
            return Poll::Ready(came);
        }
        client.poll_gone(cx).map(|gone| {
            let (kind, what) = (ErrorType::ConnectionClosed, "the client went away");
            Err(match gone {
                Ok(()) => Error::explain(kind, what).into_down(),
                Err(e) => Error::because(kind, what, e).into_down(),
            })
        })
    });
    let Some(patience) = patience else { return comes.await };
    match Box::pin(timeout(patience, comes)).await {
        Ok(came) => came,
        Err(_) => {
            exchange.gave_up();
            Err(Error::explain(ErrorType::ReadTimedout, "waiting for the origin").into_up())
        }
    }
}
