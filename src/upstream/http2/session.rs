//! A stream of HTTP/2 as Pingora's custom connector gives it out.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;
use std::task::ready;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::HeaderMap;
use http::Request;
use http::request::Parts;
use pingora::Error;
use pingora::ErrorType;
use pingora::Result;
use pingora::http::RequestHeader;
use pingora::http::ResponseHeader;
use pingora::protocols::Digest;
use pingora::protocols::UniqueIDType;
use pingora::protocols::http::custom::BodyWrite;
use pingora::protocols::http::custom::CustomMessageWrite;
use pingora::protocols::http::custom::client;
use pingora::protocols::l4::socket::SocketAddr;
use tokio::time::Instant;
use tokio::time::timeout;

use super::body::Sending;
use super::race;
use super::race::Contest;
use super::stream::Head;
use super::stream::Stream;
use crate::refusal::Refusal;
use crate::terms;
use crate::upstream::connect::Kept;
use crate::upstream::fault::overdue;
use crate::upstream::pool::Pool;
use crate::upstream::race::Race;

/// An exchange with an origin that speaks HTTP/2, for Pingora to conduct.
pub struct Session {
    /// Whose answer it is, as far as is known.
    stream: Stream,
    /// `None`: it is decided.
    contest: Option<Box<Contest>>,
    head: Option<ResponseHeader>,
    read: Option<Duration>,
    write: Option<Duration>,
}

/// Messages beside those of HTTP, of which there are none.
type Asides = Box<dyn futures_util::Stream<Item = Result<Bytes>> + Unpin + Send + Sync + 'static>;

impl Session {
    /// A session on a connection of `pool`, within `patience`; if the request is raced, maybe with another backend.
    ///
    /// # Errors
    /// There is none.
    pub(in crate::upstream) async fn begin(
        pool: &Arc<Pool>,
        patience: Duration,
        kept: Kept,
        race: Option<Arc<Race>>,
    ) -> Result<Self> {
        let (stream, contest) = match race {
            Some(race) => race::connect(pool, patience, kept, race).await?,
            None => (pool.stream(patience, kept).await?, None),
        };
        Ok(Self { stream, contest, head: None, read: None, write: None })
    }

    /// Whether its connection carried requests before.
    pub(in crate::upstream) fn was_used(&self) -> bool {
        self.stream.was_used()
    }

    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<Head>> {
        let Some(contest) = &mut self.contest else { return self.stream.poll_head(cx) };
        let head = ready!(contest.poll_head(cx, &mut self.stream));
        // What is left of the other goes with it.
        self.contest = None;
        Poll::Ready(head)
    }

    /// Waits for the origin, which may be silent for as long as Pingora was told.
    async fn wait<T>(
        &mut self,
        mut poll: impl FnMut(&mut Self, &mut Context<'_>) -> Poll<Result<T>>,
    ) -> Result<T> {
        let read = self.read;
        let comes = poll_fn(|cx| poll(self, cx));
        let Some(read) = read else { return comes.await };
        match timeout(read, comes).await {
            Ok(came) => came,
            Err(_) => {
                self.stream.gave_up();
                Err(Error::explain(ErrorType::ReadTimedout, "waiting for the origin").into_up())
            }
        }
    }
}

#[async_trait]
impl client::Session for Session {
    async fn write_request_header(&mut self, req: Box<RequestHeader>, end: bool) -> Result<()> {
        let request = Request::from_parts(Parts::from(*req), ());
        if let Some(contest) = &mut self.contest {
            contest.asks(request.clone());
        }
        self.stream.send(request, !end)
    }

    async fn write_request_body(&mut self, data: Bytes, end: bool) -> Result<()> {
        let mut data = data;
        let sending = self.stream.sending();
        sending.write(&mut data, self.write).await?;
        if end { sending.finish() } else { Ok(()) }
    }

    async fn finish_request_body(&mut self) -> Result<()> {
        self.stream.sending().finish()
    }

    fn set_read_timeout(&mut self, timeout: Option<Duration>) {
        self.read = timeout;
    }

    fn set_write_timeout(&mut self, timeout: Option<Duration>) {
        self.write = timeout;
    }

    async fn read_response_header(&mut self) -> Result<()> {
        let (Head::Interim(head) | Head::Final(head)) = self.wait(Self::poll_head).await?;
        self.head = Some(ResponseHeader::from(*head));
        Ok(())
    }

    async fn read_response_body(&mut self) -> Result<Option<Bytes>> {
        self.wait(|session, cx| session.stream.poll_body(cx)).await
    }

    fn response_finished(&self) -> bool {
        false
    }

    async fn shutdown(&mut self, _code: u32, _ctx: &str) {
        // Dropping it resets what has not ended.
    }

    fn response_header(&self) -> Option<&ResponseHeader> {
        self.head.as_ref()
    }

    fn was_upgraded(&self) -> bool {
        false
    }

    fn digest(&self) -> Option<&Digest> {
        None
    }

    fn digest_mut(&mut self) -> Option<&mut Digest> {
        None
    }

    fn server_addr(&self) -> Option<&SocketAddr> {
        None
    }

    fn client_addr(&self) -> Option<&SocketAddr> {
        None
    }

    async fn read_trailers(&mut self) -> Result<Option<HeaderMap>> {
        self.wait(|session, cx| session.stream.poll_trailers(cx)).await
    }

    fn fd(&self) -> UniqueIDType {
        self.stream.descriptor()
    }

    async fn check_response_end_or_error(&mut self, _headers: bool) -> Result<bool> {
        self.stream.has_ended()
    }

    fn take_request_body_writer(&mut self) -> Option<Box<dyn BodyWrite>> {
        let ends = terms::current().and_then(|terms| terms.ends);
        Some(Box::new(Writer { sending: self.stream.sending(), write: self.write, ends }))
    }

    async fn finish_custom(&mut self) -> Result<()> {
        Ok(())
    }

    fn take_custom_message_reader(&mut self) -> Option<Asides> {
        Some(Box::new(futures_util::stream::empty()))
    }

    async fn drain_custom_messages(&mut self) -> Result<()> {
        Ok(())
    }

    fn take_custom_message_writer(&mut self) -> Option<Box<dyn CustomMessageWrite>> {
        Some(Box::new(()))
    }
}

/// What Pingora writes the body of a request to.
struct Writer {
    sending: Arc<Sending>,
    write: Option<Duration>,
    /// When the whole exchange has to be over.
    ends: Option<Instant>,
}

impl Drop for Writer {
    fn drop(&mut self) {
        // A further attempt reads on.
        terms::hold_client(false);
    }
}

#[async_trait]
impl BodyWrite for Writer {
    async fn write_all_buf(&mut self, data: &mut Bytes) -> Result<()> {
        let left = self.ends.map(|ends| ends.saturating_duration_since(Instant::now()));
        let patience = [self.write, left].into_iter().flatten().min();
        let written = self.sending.write(data, patience).await;
        if written.is_err() && self.ends.is_some_and(|ends| ends <= Instant::now()) {
            let what = "writing the request's body";
            let late = overdue(Refusal::TotalTimeout);
            return Err(Error::because(ErrorType::WriteError, what, late).into_up());
        }
        written
    }

    async fn finish(&mut self) -> Result<()> {
        self.sending.finish()
    }

    async fn cleanup(&mut self) -> Result<()> {
        // The answer was passed on before all of the request was sent.
        self.sending.settled().await;
        Ok(())
    }

    fn upgrade_body_writer(&mut self) {}
}
