//! The connection of a request that may be hedged: two connections, until one of them has an answer.
//!
//! What is written is kept, so that it can be said again. What the first backend answers is held back until a
//! head is whole: then nothing of the other is wanted any more. An interim response is an answer in this, since
//! whoever gives one is at work.

use std::future::Future;
use std::io;
use std::io::IoSlice;
use std::pin::Pin;
use std::pin::pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;
use std::task::ready;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Buf;
use bytes::BytesMut;
use futures_util::future::BoxFuture;
use futures_util::future::Either;
use futures_util::future::select;
use parking_lot::Mutex;
use pingora::Error;
use pingora::ErrorType;
use pingora::Result;
use pingora::protocols::ALPN;
use pingora::protocols::GetProxyDigest;
use pingora::protocols::GetSocketDigest;
use pingora::protocols::GetTimingDigest;
use pingora::protocols::Peek;
use pingora::protocols::Shutdown;
use pingora::protocols::SocketDigest;
use pingora::protocols::Ssl;
use pingora::protocols::TimingDigest;
use pingora::protocols::UniqueID;
use pingora::protocols::UniqueIDType;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::tls::SslDigest;
use tokio::io::AsyncRead;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWrite;
use tokio::io::ReadBuf;
use tokio::time::Sleep;
use tokio::time::sleep_until;

use crate::message::ends::Ends;
use crate::refusal::Refusal;
use crate::upstream::connect::Kept;
use crate::upstream::fault::refusal_of;
use crate::upstream::guard::OriginIo;
use crate::upstream::pool::Pool;
use crate::upstream::race::Race;
use crate::upstream::race::Second;

/// Room for the head of an answer.
const ROOM: usize = 4 * 1024;

/// A connection that may be another one by the time it answers.
#[derive(Debug)]
pub(in crate::upstream) struct RacedIo {
    /// Whose answer it is, as far as is known.
    io: OriginIo,
    /// What of it was read and held back.
    got: BytesMut,
    /// How it ended while it was raced; comes after what was held back.
    end: Option<io::Result<()>>,
    /// `None`: it is decided.
    contest: Option<Box<Contest>>,
}

/// Two that are asked for the same.
struct Contest {
    race: Arc<Race>,
    /// What was written so far.
    request: Vec<u8>,
    /// How the first one ended, while the second is still at it.
    ended: Option<io::Result<()>>,
    second: Stage,
}

impl std::fmt::Debug for Contest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Contest").field("race", &self.race).finish_non_exhaustive()
    }
}

/// The second one being connected to. A lock makes it what Pingora asks of connections; nobody ever waits for it.
type Opening = BoxFuture<'static, Option<(OriginIo, Second)>>;

/// How far the second one is.
enum Stage {
    /// The first one still has time.
    Delay(Pin<Box<Sleep>>),
    /// It is being connected to.
    Opening(Mutex<Opening>),
    /// It is asked.
    Running(Box<Runner>),
    /// There is none, and will be none.
    None,
}

/// The second one at work.
struct Runner {
    io: OriginIo,
    second: Second,
    /// How much of the request it was sent.
    sent: usize,
    got: BytesMut,
}

/// Who goes on.
enum Verdict {
    First,
    /// The first one, which is at its end, and nobody else is left.
    FirstEnded(io::Result<()>),
    /// The second one, and what it answered so far.
    Second(Box<OriginIo>, BytesMut),
}

/// What reading came to.
enum Read {
    /// A head is whole.
    Answer,
    /// There will be none: `Ok` is an orderly end.
    Ended(io::Result<()>),
}

impl RacedIo {
    /// Takes a connection of `pool` within `patience`; when that takes longer than the race allows, also one to another
    /// backend.
    ///
    /// # Errors
    /// Neither of them can be connected to.
    pub(in crate::upstream) async fn connect(
        pool: &Arc<Pool>,
        patience: Duration,
        kept: Kept,
        client: Option<Ends>,
        race: Arc<Race>,
    ) -> Result<Self> {
        let mut first = pin!(pool.connect(patience, kept, client));
        let Some(at) = race.second_at() else { return Ok(Self::decided(first.await?)) };
        let delay = match select(first.as_mut(), Box::pin(sleep_until(at))).await {
            Either::Left((connected, delay)) => {
                return Ok(Self::raced(connected?, race, Stage::Delay(delay)));
            }
            Either::Right(((), _)) => race.second(),
        };
        match select(first, delay).await {
            Either::Left((Ok(io), second)) => {
                Ok(Self::raced(io, race, Stage::Opening(Mutex::new(second))))
            }
            Either::Left((Err(error), second)) => match second.await {
                Some((io, second)) => {
                    let mut error = error;
                    error.as_up();
                    race.second_won(second, Some(refusal_of(&error)));
                    Ok(Self::decided(io))
                }
                None => Err(error),
            },
            Either::Right((Some((io, second)), _)) => {
                race.second_won(second, None);
                Ok(Self::decided(io))
            }
            Either::Right((None, first)) => Ok(Self::decided(first.await?)),
        }
    }

    fn decided(io: OriginIo) -> Self {
        Self { io, got: BytesMut::new(), end: None, contest: None }
    }

    fn raced(io: OriginIo, race: Arc<Race>, second: Stage) -> Self {
        let contest = Contest { race, request: Vec::new(), ended: None, second };
        Self { contest: Some(Box::new(contest)), ..Self::decided(io) }
    }

    /// Ready when it is decided whose answer this is.
    fn poll_decided(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(contest) = &mut self.contest else { return Poll::Ready(()) };
        let verdict = ready!(contest.poll(cx, &mut self.io, &mut self.got));
        // What is left of the other goes with it.
        self.contest = None;
        match verdict {
            Verdict::First => {}
            Verdict::FirstEnded(end) => self.end = Some(end),
            Verdict::Second(io, got) => (self.io, self.got) = (*io, got),
        }
        Poll::Ready(())
    }
}

impl Contest {
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        first: &mut OriginIo,
        got: &mut BytesMut,
    ) -> Poll<Verdict> {
        if self.ended.is_none()
            && let Poll::Ready(read) = poll_answer(cx, first, got)
        {
            match read {
                Read::Answer => return Poll::Ready(self.first_won()),
                Read::Ended(end) => match self.second {
                    Stage::Delay(_) | Stage::None => {
                        return Poll::Ready(Verdict::FirstEnded(end));
                    }
                    Stage::Opening(_) | Stage::Running(_) => self.ended = Some(end),
                },
            }
        }
        loop {
            match &mut self.second {
                Stage::None => return self.without_second(),
                Stage::Delay(delay) => {
                    ready!(delay.as_mut().poll(cx));
                    // Nothing of this is sent twice before it was sent once.
                    self.second = match first.has_sent_all() {
                        true => Stage::Opening(Mutex::new(self.race.second())),
                        false => Stage::None,
                    };
                }
                Stage::Opening(opening) => {
                    self.second = match ready!(opening.get_mut().as_mut().poll(cx)) {
                        Some((io, second)) => {
                            let got = BytesMut::new();
                            Stage::Running(Box::new(Runner { io, second, sent: 0, got }))
                        }
                        None => Stage::None,
                    };
                }
                Stage::Running(runner) => {
                    let read = ready!(runner.poll(cx, &self.request));
                    let Stage::Running(runner) = std::mem::replace(&mut self.second, Stage::None)
                    else {
                        continue;
                    };
                    match read {
                        Read::Answer => {
                            return Poll::Ready(self.second_won(*runner));
                        }
                        Read::Ended(end) => {
                            self.race.second_failed(runner.second, refusal_by(end.err()));
                        }
                    }
                }
            }
        }
    }

    fn first_won(&self) -> Verdict {
        match self.second {
            Stage::Opening(_) | Stage::Running(_) => self.race.second_lost(),
            Stage::Delay(_) | Stage::None => {}
        }
        Verdict::First
    }

    fn second_won(&mut self, runner: Runner) -> Verdict {
        // A connection that had died while it was idle would have said so before a second one was asked.
        let failed = self.ended.take().map(|end| refusal_by(end.err()));
        self.race.second_won(runner.second, failed);
        Verdict::Second(Box::new(runner.io), runner.got)
    }

    /// Only the first one is left, at work or at its end.
    fn without_second(&mut self) -> Poll<Verdict> {
        match self.ended.take() {
            Some(end) => Poll::Ready(Verdict::FirstEnded(end)),
            None => Poll::Pending,
        }
    }
}

impl Runner {
    /// Sends what is missing of the request, and reads on.
    fn poll(&mut self, cx: &mut Context<'_>, request: &[u8]) -> Poll<Read> {
        while let Some(rest @ [_, ..]) = request.get(self.sent..) {
            match ready!(Pin::new(&mut self.io).poll_write(cx, rest)) {
                Ok(0) => return Poll::Ready(Read::Ended(Err(io::ErrorKind::WriteZero.into()))),
                Ok(sent) => self.sent += sent,
                Err(e) => return Poll::Ready(Read::Ended(Err(e))),
            }
        }
        if let Err(e) = ready!(Pin::new(&mut self.io).poll_flush(cx)) {
            return Poll::Ready(Read::Ended(Err(e)));
        }
        poll_answer(cx, &mut self.io, &mut self.got)
    }
}

/// Reads until a head is whole.
fn poll_answer(cx: &mut Context<'_>, io: &mut OriginIo, got: &mut BytesMut) -> Poll<Read> {
    loop {
        got.reserve(ROOM);
        match ready!(pin!(io.read_buf(got)).poll(cx)) {
            Ok(0) => return Poll::Ready(Read::Ended(Ok(()))),
            Ok(_) if !io.is_in_head() => return Poll::Ready(Read::Answer),
            Ok(_) => {}
            Err(e) => return Poll::Ready(Read::Ended(Err(e))),
        }
    }
}

/// What it is when an answer ends so before its head is whole.
fn refusal_by(error: Option<io::Error>) -> Refusal {
    let Some(error) = error else { return Refusal::OriginClosed };
    let mut error = Error::because(ErrorType::ReadError, "reading the answer's head", error);
    error.as_up();
    refusal_of(&error)
}

impl AsyncRead for RacedIo {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        ready!(this.poll_decided(cx));
        if !this.got.is_empty() {
            let here = this.got.len().min(buf.remaining());
            buf.put_slice(&this.got[..here]);
            this.got.advance(here);
            return Poll::Ready(Ok(()));
        }
        match this.end.take() {
            Some(end) => Poll::Ready(end),
            None => Pin::new(&mut this.io).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for RacedIo {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let sent = ready!(Pin::new(&mut this.io).poll_write(cx, data))?;
        if let (Some(contest), Some(sent)) = (&mut this.contest, data.get(..sent)) {
            contest.request.extend_from_slice(sent);
        }
        Poll::Ready(Ok(sent))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.contest.is_none() {
            return Pin::new(&mut self.get_mut().io).poll_write_vectored(cx, bufs);
        }
        let first = bufs.iter().find(|data| !data.is_empty());
        self.poll_write(cx, first.map_or(&[], |data| data))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}

#[async_trait]
impl Shutdown for RacedIo {
    async fn shutdown(&mut self) {
        self.io.shutdown().await;
    }
}

impl UniqueID for RacedIo {
    fn id(&self) -> UniqueIDType {
        self.io.id()
    }
}

impl Ssl for RacedIo {
    fn get_ssl_digest(&self) -> Option<Arc<SslDigest>> {
        self.io.get_ssl_digest()
    }

    fn selected_alpn_proto(&self) -> Option<ALPN> {
        self.io.selected_alpn_proto()
    }
}

impl GetTimingDigest for RacedIo {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        self.io.get_timing_digest()
    }
}

impl GetProxyDigest for RacedIo {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        self.io.get_proxy_digest()
    }
}

impl GetSocketDigest for RacedIo {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.io.get_socket_digest()
    }
}

impl Peek for RacedIo {}
