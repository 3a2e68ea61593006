//! The client's side of a request that is passed through: waits for the origin while the client is
//! there, and writes what comes.

use std::future::poll_fn;
use std::io;
use std::io::IoSlice;
use std::io::Write;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http::header;
use pingora::Error;
use pingora::ErrorType;
use pingora::Result;
use pingora::http::ResponseHeader;
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use crate::listen::io::EdgeIo;
use crate::message::chunked::BodyFraming;
use crate::message::reply::ReplyMessage;
use crate::upstream::exchange::Exchange;
use crate::upstream::lease::Lease;

/// Bodies up to here are copied behind their head: one buffer costs the kernel less than two.
const SMALL: usize = 4 * 1024;

/// Writes an answer to a client while it comes.
pub(super) struct Relay<'a> {
    io: &'a mut EdgeIo,
    /// How long the origin may be silent; `None` where its connection sees to that.
    patience: Option<Duration>,
    /// The status of the answer that was begun.
    status: Option<u16>,
    /// Bytes of the answer's body.
    sent: u64,
}

/// How the client finds the end of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    /// Its head says.
    Said,
    /// We write chunks.
    Chunks,
}

impl<'a> Relay<'a> {
    pub(super) fn new(io: &'a mut EdgeIo) -> Self {
        Self { io, patience: None, status: None, sent: 0 }
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
    pub(super) async fn head(&mut self, exchange: &mut Exchange) -> Result<ReplyMessage> {
        self.wait(|cx| exchange.poll_head(cx)).await
    }

    /// Passes an interim response on, which only a client of HTTP/1.1 knows.
    pub(super) async fn interim(&mut self, response: &ResponseHeader) -> Result<()> {
        if response.status == StatusCode::CONTINUE {
            // Nobody has waited for it.
            return Ok(());
        }
        let text = head(response);
        self.send(&[&text, b"\r\n"]).await?;
        self.flush().await
    }

    /// Passes the final answer on: its head, and the body that comes with `exchange`. What is `lent` for
    /// that is given back with the last byte that the origin sends, before the client has it.
    pub(super) async fn answer(
        &mut self,
        mut response: ResponseHeader,
        body: BodyFraming,
        keep: bool,
        mut exchange: Exchange,
        lent: &mut Option<Lease>,
    ) -> Result<()> {
        let framing = match body {
            BodyFraming::None | BodyFraming::Length(_) => Framing::Said,
            BodyFraming::Chunked | BodyFraming::UntilClose | BodyFraming::Tunnel => Framing::Chunks,
        };
        if framing == Framing::Chunks {
            response.insert_header(header::TRANSFER_ENCODING, "chunked")?;
        }
        let connection: &[u8] =
            if keep { b"Connection: keep-alive\r\n\r\n" } else { b"Connection: close\r\n\r\n" };
        let mut out = head(&response);
        out.extend_from_slice(connection);
        self.status = Some(response.status.as_u16());
        let mut next = now(&mut exchange).await;
        loop {
            let part = match next {
                Poll::Ready(part) => part?,
                Poll::Pending => {
                    // What is there does not wait for what may be long in coming.
                    self.send(&[&out]).await?;
                    out.clear();
                    self.flush().await?;
                    self.wait(|cx| exchange.poll_body(cx)).await?
                }
            };
            let Some(data) = part else {
                drop(exchange);
                *lent = None;
                if framing == Framing::Chunks {
                    out.extend_from_slice(b"0\r\n\r\n");
                }
                self.send(&[&out]).await?;
                return self.flush().await;
            };
            if framing == Framing::Chunks {
                write!(out, "{:x}\r\n", data.len()).map_err(unsent)?;
            }
            // The end comes along where it is there, as it mostly is.
            next = now(&mut exchange).await;
            let is_last = matches!(next, Poll::Ready(Ok(None)));
            let end: &[u8] = match (framing, is_last) {
                (Framing::Said, _) => b"",
                (Framing::Chunks, false) => b"\r\n",
                (Framing::Chunks, true) => b"\r\n0\r\n\r\n",
            };
            if is_last {
                drop(exchange);
                *lent = None;
                if data.len() <= SMALL {
                    out.extend_from_slice(&data);
                    out.extend_from_slice(end);
                    self.send(&[&out]).await?;
                } else {
                    self.send(&[&out, &data, end]).await?;
                }
                self.sent += data.len() as u64;
                return self.flush().await;
            }
            self.send(&[&out, &data, end]).await?;
            out.clear();
            self.sent += data.len() as u64;
        }
    }

    /// Answers with a response of our own, and the end of the connection.
    pub(super) async fn own_answer(
        &mut self,
        response: &ResponseHeader,
        body: &[u8],
    ) -> Result<()> {
        let head = head(response);
        self.status = Some(response.status.as_u16());
        self.send(&[&head, b"Connection: close\r\n\r\n", body]).await?;
        self.sent += body.len() as u64;
        self.flush().await
    }

    /// Waits for the origin while it may be silent and the client is there.
    async fn wait<T>(
        &mut self,
        mut poll: impl FnMut(&mut Context<'_>) -> Poll<Result<T>>,
    ) -> Result<T> {
        let patience = self.patience;
        let comes = poll_fn(|cx| {
            if let Poll::Ready(came) = poll(cx) {
                return Poll::Ready(came);
            }
            self.io.poll_client_gone(cx).map(|()| {
                Err(Error::explain(ErrorType::ConnectionClosed, "the client went away").into_down())
            })
        });
        let Some(patience) = patience else { return comes.await };
        match timeout(patience, comes).await {
            Ok(came) => came,
            Err(_) => {
                Err(Error::explain(ErrorType::ReadTimedout, "waiting for the origin").into_up())
            }
        }
    }

    /// Sends all of these.
    async fn send<const N: usize>(&mut self, parts: &[&[u8]; N]) -> Result<()> {
        let mut slices = parts.map(IoSlice::new);
        let mut left = &mut slices[..];
        IoSlice::advance_slices(&mut left, 0);
        while !left.is_empty() {
            let sent = poll_fn(|cx| self.io.poll_send(cx, left)).await.map_err(unsent)?;
            IoSlice::advance_slices(&mut left, sent);
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<()> {
        self.io.flush().await.map_err(unsent)
    }
}

/// What there is of the body without waiting.
async fn now(exchange: &mut Exchange) -> Poll<Result<Option<Bytes>>> {
    poll_fn(|cx| Poll::Ready(exchange.poll_body(cx))).await
}

/// The status line and the fields, without the empty line.
fn head(response: &ResponseHeader) -> Vec<u8> {
    let mut text = Vec::with_capacity(1024);
    text.extend_from_slice(b"HTTP/1.1 ");
    text.extend_from_slice(response.status.as_str().as_bytes());
    text.push(b' ');
    text.extend_from_slice(response.status.canonical_reason().unwrap_or_default().as_bytes());
    text.extend_from_slice(b"\r\n");
    response.header_to_h1_wire(&mut text);
    text
}

/// The client does not take what was sent.
fn unsent(e: io::Error) -> Box<Error> {
    Error::because(ErrorType::WriteError, "writing the answer", e).into_down()
}
