//! An answer on a connection of HTTP/1.1.

use std::future::poll_fn;
use std::io;
use std::io::IoSlice;
use std::io::Write;
use std::task::Poll;
use std::task::ready;
use std::time::Duration;

use pingora::Error;
use pingora::ErrorType;
use pingora::Result;
use pingora::http::ResponseHeader;
use tokio::io::AsyncWriteExt;

use super::Client;
use super::Coming;
use super::Next;
use crate::listen::io::EdgeIo;
use crate::message::append::append;
use crate::message::append::append_few;
use crate::message::chunked::BodyFraming;
use crate::message::spare;
use crate::upstream::exchange::Part;

/// Bodies up to here are copied behind their head: one buffer costs the kernel less than two.
pub(super) const SMALL: usize = 4 * 1024;

/// How the client finds the end of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    /// Its head says.
    Said,
    /// We write chunks.
    Chunks,
}

/// Passes an interim response on.
pub(super) async fn interim(io: &mut EdgeIo, response: &ResponseHeader) -> Result<()> {
    send(io, &[&head(response), b"\r\n"]).await?;
    flush(io).await
}

impl Framing {
    /// That of an answer which came framed like this.
    fn of(came: BodyFraming) -> Self {
        match came {
            BodyFraming::None | BodyFraming::Length(_) => Self::Said,
            BodyFraming::Chunked | BodyFraming::UntilClose | BodyFraming::Tunnel => Self::Chunks,
        }
    }
}

/// Writes the last lines of a head: how the body is framed that came like this, and what becomes of the connection.
pub(super) fn end_head(out: &mut Vec<u8>, came: BodyFraming, keep: bool) {
    if Framing::of(came) == Framing::Chunks {
        append(out, b"Transfer-Encoding: chunked\r\n");
    }
    let connection: &[u8] =
        if keep { b"Connection: keep-alive\r\n\r\n" } else { b"Connection: close\r\n\r\n" };
    append(out, connection);
}

/// Sends text that is all of what is to be sent now.
pub(super) async fn send_text(io: &mut EdgeIo, text: Vec<u8>) -> Result<()> {
    let mut gone = 0;
    let sending = poll_fn(|cx| {
        while let Some(rest @ [_, ..]) = text.get(gone..) {
            gone += ready!(io.poll_send(cx, &[IoSlice::new(rest)]))?;
        }
        Poll::Ready(Ok(()))
    });
    sending.await.map_err(unsent)?;
    spare::leave_text(text);
    Ok(())
}

/// Passes the final answer on, whose head is this.
pub(super) async fn answer(
    io: &mut EdgeIo,
    patience: Option<Duration>,
    sent: &mut u64,
    mut out: Vec<u8>,
    (mut coming, mut next): (Coming<'_>, Next),
) -> Result<()> {
    let framing = Framing::of(coming.framing);
    loop {
        let part = match next {
            Poll::Ready(part) => part?,
            Poll::Pending => {
                // What is there does not wait for what may be long in coming.
                send(io, &[&out]).await?;
                out.clear();
                flush(io).await?;
                coming.next(&mut Client::Http1(io), patience).await?
            }
        };
        let data = match part {
            Part::Data(data) => data,
            // Trailers are dropped, as on the long way (RFC 9110 §6.5.1).
            Part::End(_) => {
                coming.ended();
                if framing == Framing::Chunks {
                    append(&mut out, b"0\r\n\r\n");
                }
                send_text(io, out).await?;
                return flush(io).await;
            }
        };
        if framing == Framing::Chunks {
            write!(out, "{:x}\r\n", data.len()).map_err(unsent)?;
        }
        // The end comes along where it is there, as it mostly is.
        next = coming.now().await;
        let is_last = matches!(next, Poll::Ready(Ok(Part::End(_))));
        let end: &[u8] = match (framing, is_last) {
            (Framing::Said, _) => b"",
            (Framing::Chunks, false) => b"\r\n",
            (Framing::Chunks, true) => b"\r\n0\r\n\r\n",
        };
        if is_last {
            coming.ended();
            if data.len() <= SMALL {
                out.extend_from_slice(&data);
                append(&mut out, end);
                send(io, &[&out]).await?;
            } else {
                send(io, &[&out, &data, end]).await?;
            }
            *sent += data.len() as u64;
            spare::leave_text(out);
            return flush(io).await;
        }
        send(io, &[&out, &data, end]).await?;
        out.clear();
        *sent += data.len() as u64;
    }
}

/// Answers with a response of our own, and the end of the connection.
pub(super) async fn own_answer(
    io: &mut EdgeIo,
    response: &ResponseHeader,
    body: &[u8],
) -> Result<()> {
    send(io, &[&head(response), b"Connection: close\r\n\r\n", body]).await?;
    flush(io).await
}

/// Sends all of these.
async fn send<const N: usize>(io: &mut EdgeIo, parts: &[&[u8]; N]) -> Result<()> {
    let mut slices = parts.map(IoSlice::new);
    let mut left = &mut slices[..];
    IoSlice::advance_slices(&mut left, 0);
    while !left.is_empty() {
        let sent = poll_fn(|cx| io.poll_send(cx, left)).await.map_err(unsent)?;
        IoSlice::advance_slices(&mut left, sent);
    }
    Ok(())
}

pub(super) async fn flush(io: &mut EdgeIo) -> Result<()> {
    io.flush().await.map_err(unsent)
}

/// The status line and the fields, without the empty line.
fn head(response: &ResponseHeader) -> Vec<u8> {
    let mut text = Vec::with_capacity(1024);
    append(&mut text, b"HTTP/1.1 ");
    append(&mut text, response.status.as_str().as_bytes());
    text.push(b' ');
    append(&mut text, response.status.canonical_reason().unwrap_or_default().as_bytes());
    append_few(&mut text, *b"\r\n");
    response.header_to_h1_wire(&mut text);
    text
}

/// The client does not take what was sent.
#[cold]
fn unsent(e: io::Error) -> Box<Error> {
    Error::because(ErrorType::WriteError, "writing the answer", e).into_down()
}
