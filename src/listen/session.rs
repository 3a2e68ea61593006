//! One HTTP/2 stream as Pingora is lent it.
//!
//! Pingora's own session would do, but for three things: it drops interim responses, it writes a `Date`
//! of its own over the origin's, and it answers some requests before we hear of them. So it is given a
//! session of a protocol that it does not know.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;
use bytes::BytesMut;
use futures_util::Stream;
use h2::RecvStream;
use h2::SendStream;
use h2::server::SendResponse;
use http::HeaderMap;
use http::HeaderValue;
use http::StatusCode;
use http::header;
use pingora::Error;
use pingora::ErrorType;
use pingora::OrErr;
use pingora::Result;
use pingora::http::RequestHeader;
use pingora::http::ResponseHeader;
use pingora::protocols::Digest;
use pingora::protocols::http::HttpTask;
use pingora::protocols::http::body_buffer::FixedBuffer;
use pingora::protocols::http::custom::CustomMessageWrite;
use pingora::protocols::http::custom::server::Session;
use pingora::protocols::http::v1::client::http_req_header_to_wire;
use pingora::protocols::l4::socket::SocketAddr;

use crate::listen::stream::Request;
use crate::listen::stream::lines;
use crate::listen::stream::send_part;
use crate::terms;
use crate::terms::pace::MinRate;
use crate::terms::pace::Pace;

/// How much a client is let send although it has its answer: to be told to stop in the middle of a few bytes
/// is taken for a failure by some.
const LET_FINISH: usize = 64 * 1024;

/// How long that may take.
const FINISHING: Duration = Duration::from_secs(2);

/// How much of a request's body is kept for another attempt: as much as Pingora keeps on HTTP/1.
const KEPT_FOR_RETRY: usize = 64 * 1024;

/// A stream whose request is read, and whose answer is written at the pace of its client. Dropped before
/// its end, it is reset.
pub(super) struct Http2Session {
    head: RequestHeader,
    /// `None` once it is dropped.
    incoming: Option<RecvStream>,
    answer: SendResponse<Bytes>,
    /// Where the body goes once the final header was written.
    outgoing: Option<SendStream<Bytes>>,
    /// The final header.
    written: Option<Box<ResponseHeader>>,
    /// The end was written, or the stream was reset.
    ended: bool,
    read: usize,
    sent: u64,
    /// What was read of the body, for another attempt.
    kept: Option<FixedBuffer>,
    pace: Pace,
    rate: MinRate,
    digest: Digest,
    drain_timeout: Option<Duration>,
}

impl Http2Session {
    /// Lends a stream. A client that takes less than `rate` of its answer is given up.
    pub(super) fn new(request: Request, rate: MinRate) -> Self {
        let Request { head, incoming, answer } = request;
        Self {
            head,
            incoming: Some(incoming),
            answer,
            outgoing: None,
            written: None,
            ended: false,
            read: 0,
            sent: 0,
            kept: None,
            pace: Pace::default(),
            rate,
            digest: Digest::default(),
            drain_timeout: None,
        }
    }

    /// Pending until the client gives the stream up.
    async fn gone(&mut self) -> Result<h2::Reason> {
        let Self { answer, outgoing, .. } = self;
        poll_fn(|cx| match outgoing {
            Some(outgoing) => outgoing.poll_reset(cx),
            None => answer.poll_reset(cx),
        })
        .await
        .or_err(ErrorType::H2Error, "waiting for the client to close its stream")
    }

    /// The length that the request says its body has.
    fn length(&self) -> Option<u64> {
        self.head.headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
    }

    /// Whether all of the request has come.
    fn has_come(&self) -> bool {
        self.incoming.as_ref().is_none_or(RecvStream::is_end_stream)
    }

    fn is_empty(&self) -> bool {
        self.read == 0 && (self.has_come() || self.length() == Some(0))
    }

    fn is_done(&self) -> bool {
        self.is_empty() || self.has_come()
    }

    async fn read(&mut self) -> Result<Option<Bytes>> {
        let Some(incoming) = &mut self.incoming else { return Ok(None) };
        poll_fn(|cx| if terms::is_client_held(cx) { Poll::Pending } else { Poll::Ready(()) }).await;
        let data = incoming.data().await.transpose();
        let data = data.or_err(ErrorType::ReadError, "reading the body of a request")?;
        if let Some(data) = &data {
            self.read += data.len();
            if let Some(kept) = &mut self.kept {
                kept.write_to_buffer(data);
            }
            // It fails for a stream that has ended, which wants no more.
            drop(incoming.flow_control().release_capacity(data.len()));
        }
        Ok(data)
    }

    fn head(&mut self, mut response: Box<ResponseHeader>, end: bool) -> Result<()> {
        const WHILE: &str = "writing a header on an HTTP/2 stream";
        if response.status == StatusCode::SWITCHING_PROTOCOLS {
            // HTTP/2 knows no such thing (RFC 9113 §8.6), and nobody asked for it.
            return Error::e_explain(ErrorType::InternalError, "a 101 on an HTTP/2 stream");
        }
        if self.written.is_some() || self.ended {
            return Ok(());
        }
        if response.status.is_informational() {
            let interim = lines((*response).into());
            return self.answer.send_informational(interim).or_err(ErrorType::WriteError, WHILE);
        }
        if !response.headers.contains_key(header::DATE)
            && let Ok(now) = HeaderValue::try_from(httpdate::fmt_http_date(SystemTime::now()))
        {
            response.insert_header(header::DATE, now)?;
        }
        let answer = lines(response.as_owned_parts());
        let outgoing =
            self.answer.send_response(answer, end).or_err(ErrorType::WriteError, WHILE)?;
        self.outgoing = Some(outgoing);
        self.written = Some(response);
        self.ended = end;
        Ok(())
    }

    async fn body(&mut self, data: Bytes, end: bool) -> Result<()> {
        let Some(outgoing) = &mut self.outgoing else {
            return Error::e_explain(ErrorType::InternalError, "a body before its header");
        };
        if self.ended {
            // Pingora may still hand on what has no place, as behind the header of a HEAD's answer.
            return Ok(());
        }
        let (pace, rate) = (&mut self.pace, self.rate);
        let written = match data.is_empty() {
            true if !end => return Ok(()),
            true => outgoing.send_data(data, true),
            false => send_part(outgoing, data, end, pace, rate, &mut self.sent).await,
        };
        written.or_err(ErrorType::WriteError, "writing the body of an answer")?;
        self.ended = end;
        Ok(())
    }

    fn trailers(&mut self, trailers: HeaderMap) -> Result<()> {
        let Some(outgoing) = self.outgoing.as_mut().filter(|_| !self.ended) else { return Ok(()) };
        outgoing.send_trailers(trailers).or_err(ErrorType::WriteError, "writing trailers")?;
        self.ended = true;
        Ok(())
    }

    fn end(&mut self) -> Result<()> {
        let Some(outgoing) = self.outgoing.as_mut().filter(|_| !self.ended) else { return Ok(()) };
        let written = outgoing.send_data(Bytes::new(), true);
        written.or_err(ErrorType::WriteError, "ending an answer")?;
        self.ended = true;
        Ok(())
    }

    fn reset(&mut self) {
        if !self.ended {
            self.answer.send_reset(h2::Reason::INTERNAL_ERROR);
            self.ended = true;
        }
    }
}

/// A stream whose answer is whole ends with its request, where that comes soon. Else, and at once where it says
/// that it is long, the rest is refused by a reset without an error (RFC 9113 §8.1).
impl Drop for Http2Session {
    fn drop(&mut self) {
        let rest = self.length().map(|length| length.saturating_sub(self.read as u64));
        let is_long = rest.is_some_and(|rest| rest > LET_FINISH as u64);
        if !self.ended || self.written.is_none() || is_long {
            return;
        }
        let Some(mut incoming) = self.incoming.take().filter(|body| !body.is_end_stream()) else {
            return;
        };
        // There is none while the process ends.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(async move {
            let mut left = LET_FINISH;
            let finishing = async {
                while let Some(Ok(data)) = incoming.data().await {
                    let Some(less) = left.checked_sub(data.len()) else { break };
                    left = less;
                    drop(incoming.flow_control().release_capacity(data.len()));
                }
            };
            // Whether or not it has: it was let.
            drop(tokio::time::timeout(FINISHING, finishing).await);
        });
    }
}

#[async_trait]
impl Session for Http2Session {
    fn req_header(&self) -> &RequestHeader {
        &self.head
    }

    fn req_header_mut(&mut self) -> &mut RequestHeader {
        &mut self.head
    }

    async fn read_body_bytes(&mut self) -> Result<Option<Bytes>> {
        self.read().await
    }

    async fn drain_request_body(&mut self) -> Result<()> {
        let limit = self.drain_timeout;
        let drain = async {
            while !self.has_come() && self.read().await?.is_some() {}
            Ok(())
        };
        match limit {
            None => drain.await,
            Some(limit) => tokio::time::timeout(limit, drain).await.unwrap_or_else(|_| {
                Error::e_explain(ErrorType::ReadTimedout, "reading a body that nobody wants")
            }),
        }
    }

    async fn write_response_header(&mut self, resp: Box<ResponseHeader>, end: bool) -> Result<()> {
        self.head(resp, end)
    }

    async fn write_response_header_ref(&mut self, resp: &ResponseHeader, end: bool) -> Result<()> {
        self.head(Box::new(resp.clone()), end)
    }

    async fn write_body(&mut self, data: Bytes, end: bool) -> Result<()> {
        self.body(data, end).await
    }

    async fn write_trailers(&mut self, trailers: HeaderMap) -> Result<()> {
        self.trailers(trailers)
    }

    async fn response_duplex_vec(&mut self, tasks: Vec<HttpTask>) -> Result<bool> {
        let mut end = false;
        for task in tasks {
            end |= match task {
                HttpTask::Header(head, is_end) => {
                    self.head(head, is_end).map_err(Error::into_down)?;
                    is_end
                }
                HttpTask::Body(data, is_end) => {
                    if let Some(data) = data {
                        self.body(data, false).await.map_err(Error::into_down)?;
                    }
                    is_end
                }
                HttpTask::UpgradedBody(..) => {
                    return Error::e_explain(ErrorType::InternalError, "a tunnel on a stream");
                }
                HttpTask::Trailer(Some(trailers)) => {
                    self.trailers(*trailers).map_err(Error::into_down)?;
                    true
                }
                HttpTask::Trailer(None) | HttpTask::Done => true,
                HttpTask::Failed(error) => return Err(error),
            };
        }
        if end {
            self.end().map_err(Error::into_down)?;
        }
        Ok(end)
    }

    fn set_read_timeout(&mut self, _timeout: Option<Duration>) {}

    fn get_read_timeout(&self) -> Option<Duration> {
        None
    }

    // The pace bounds what a client may take.
    fn set_write_timeout(&mut self, _timeout: Option<Duration>) {}

    fn get_write_timeout(&self) -> Option<Duration> {
        None
    }

    fn set_total_drain_timeout(&mut self, timeout: Option<Duration>) {
        self.drain_timeout = timeout;
    }

    fn get_total_drain_timeout(&self) -> Option<Duration> {
        self.drain_timeout
    }

    fn request_summary(&self) -> String {
        let host = self.head.uri.host().unwrap_or_default();
        format!("{} {}, Host: {host}", self.head.method, self.head.uri.path())
    }

    fn response_written(&self) -> Option<&ResponseHeader> {
        self.written.as_deref()
    }

    async fn shutdown(&mut self, _code: u32, _ctx: &str) {
        self.reset();
    }

    fn is_body_done(&mut self) -> bool {
        self.is_done()
    }

    async fn finish(&mut self) -> Result<()> {
        self.end()
    }

    fn is_body_empty(&mut self) -> bool {
        self.is_empty()
    }

    async fn read_body_or_idle(&mut self, no_body_expected: bool) -> Result<Option<Bytes>> {
        if !no_body_expected && !self.is_done() {
            return self.read().await;
        }
        let reason = self.gone().await?;
        Error::e_explain(ErrorType::H2Error, format!("the client closed its stream: {reason}"))
    }

    fn body_bytes_sent(&self) -> usize {
        usize::try_from(self.sent).unwrap_or(usize::MAX)
    }

    fn body_bytes_read(&self) -> usize {
        self.read
    }

    fn digest(&self) -> Option<&Digest> {
        Some(&self.digest)
    }

    fn digest_mut(&mut self) -> Option<&mut Digest> {
        Some(&mut self.digest)
    }

    fn client_addr(&self) -> Option<&SocketAddr> {
        None
    }

    fn server_addr(&self) -> Option<&SocketAddr> {
        None
    }

    fn pseudo_raw_h1_request_header(&self) -> Bytes {
        http_req_header_to_wire(&self.head).map(BytesMut::freeze).unwrap_or_default()
    }

    fn enable_retry_buffering(&mut self) {
        self.kept.get_or_insert_with(|| FixedBuffer::new(KEPT_FOR_RETRY));
    }

    fn retry_buffer_truncated(&self) -> bool {
        self.kept.as_ref().is_some_and(|kept| kept.is_truncated())
    }

    fn get_retry_buffer(&self) -> Option<Bytes> {
        let kept = self.kept.as_ref()?;
        kept.get_buffer().filter(|_| !kept.is_truncated())
    }

    async fn finish_custom(&mut self) -> Result<()> {
        Ok(())
    }

    // Between two sessions of protocols that it does not know Pingora carries messages beside the
    // bodies, and insists on both ends. HTTP has no such thing: nothing is read, nothing is written.

    fn take_custom_message_reader(
        &mut self,
    ) -> Option<Box<dyn Stream<Item = Result<Bytes>> + Unpin + Send + Sync + 'static>> {
        Some(Box::new(futures_util::stream::empty()))
    }

    fn restore_custom_message_reader(
        &mut self,
        _reader: Box<dyn Stream<Item = Result<Bytes>> + Unpin + Send + Sync + 'static>,
    ) -> Result<()> {
        Ok(())
    }

    fn take_custom_message_writer(&mut self) -> Option<Box<dyn CustomMessageWrite>> {
        Some(Box::new(()))
    }

    fn restore_custom_message_writer(
        &mut self,
        _writer: Box<dyn CustomMessageWrite>,
    ) -> Result<()> {
        Ok(())
    }
}
