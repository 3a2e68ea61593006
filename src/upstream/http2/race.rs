//! A stream of a request that may be hedged: two streams, until one of them has an answer.
//!
//! An interim response is an answer in this, since whoever gives one is at work.

use std::future::Future;
use std::pin::Pin;
use std::pin::pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;
use std::task::ready;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::future::Either;
use futures_util::future::select;
use http::Request;
use parking_lot::Mutex;
use pingora::Error;
use pingora::Result;
use tokio::time::Sleep;
use tokio::time::sleep_until;

use super::stream::Head;
use super::stream::Stream;
use crate::upstream::connect::Kept;
use crate::upstream::fault::refusal_of;
use crate::upstream::pool::Pool;
use crate::upstream::race::Race;
use crate::upstream::race::Second;

/// Two that are asked for the same.
pub(super) struct Contest {
    race: Arc<Race>,
    /// What was asked of the first one.
    request: Option<Request<()>>,
    /// How the first one failed, while the second is still at it.
    failed: Option<Box<Error>>,
    second: Stage,
}

/// The second one being connected to. A lock makes it what Pingora asks of sessions; nobody ever waits for it.
type Opening = Mutex<BoxFuture<'static, Option<(Stream, Second)>>>;

/// How far the second one is.
enum Stage {
    /// The first one still has time.
    Delay(Pin<Box<Sleep>>),
    /// It is being connected to.
    Opening(Opening),
    /// It is asked.
    Running(Box<(Stream, Second)>),
    /// There is none, and will be none.
    None,
}

/// A stream of `pool`; when that takes longer than the race allows, one of another backend. With it what is left to be
/// decided.
///
/// # Errors
/// There is neither.
pub(super) async fn connect(
    pool: &Arc<Pool>,
    patience: Duration,
    kept: Kept,
    race: Arc<Race>,
) -> Result<(Stream, Option<Box<Contest>>)> {
    let mut first = pin!(pool.stream(patience, kept));
    let Some(at) = race.second_at() else { return Ok((first.await?, None)) };
    let second = match select(first.as_mut(), Box::pin(sleep_until(at))).await {
        Either::Left((connected, delay)) => {
            return Ok((connected?, Some(Contest::begin(race, Stage::Delay(delay)))));
        }
        Either::Right(((), _)) => race.second_stream(),
    };
    match select(first, second).await {
        Either::Left((Ok(stream), second)) => {
            let second = Stage::Opening(Mutex::new(second));
            Ok((stream, Some(Contest::begin(race, second))))
        }
        Either::Left((Err(error), second)) => match second.await {
            Some((stream, second)) => {
                let mut error = error;
                error.as_up();
                race.second_won(second, Some(refusal_of(&error)));
                Ok((stream, None))
            }
            None => Err(error),
        },
        Either::Right((Some((stream, second)), _)) => {
            race.second_won(second, None);
            Ok((stream, None))
        }
        Either::Right((None, first)) => Ok((first.await?, None)),
    }
}

impl Contest {
    fn begin(race: Arc<Race>, second: Stage) -> Box<Self> {
        Box::new(Self { race, request: None, failed: None, second })
    }

    /// The first one is asked this, which has no body.
    pub(super) fn asks(&mut self, request: Request<()>) {
        self.request = Some(request);
    }

    /// The first head that comes. Whose it is, `first` is then.
    ///
    /// # Errors
    /// Nobody has one.
    pub(super) fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        first: &mut Stream,
    ) -> Poll<Result<Head>> {
        if self.failed.is_none()
            && let Poll::Ready(head) = first.poll_head(cx)
        {
            match (head, &self.second) {
                (Ok(head), Stage::Opening(_) | Stage::Running(_)) => {
                    self.race.second_lost();
                    return Poll::Ready(Ok(head));
                }
                (Err(error), Stage::Opening(_) | Stage::Running(_)) => self.failed = Some(error),
                (head, Stage::Delay(_) | Stage::None) => return Poll::Ready(head),
            }
        }
        loop {
            match &mut self.second {
                Stage::None => return self.without_second(),
                Stage::Delay(delay) => {
                    ready!(delay.as_mut().poll(cx));
                    self.second = Stage::Opening(Mutex::new(self.race.second_stream()));
                }
                Stage::Opening(opening) => {
                    self.second = match ready!(opening.get_mut().as_mut().poll(cx)) {
                        Some((stream, second)) => self.ask(stream, second),
                        None => Stage::None,
                    };
                }
                Stage::Running(running) => {
                    let head = ready!(running.0.poll_head(cx));
                    let Stage::Running(running) = std::mem::replace(&mut self.second, Stage::None)
                    else {
                        continue;
                    };
                    let (stream, second) = *running;
                    match head {
                        Ok(head) => {
                            *first = stream;
                            let failed = self.failed.take().map(|error| refusal_of(&error));
                            self.race.second_won(second, failed);
                            return Poll::Ready(Ok(head));
                        }
                        Err(error) => self.race.second_failed(second, refusal_of(&error)),
                    }
                }
            }
        }
    }

    /// Asks the second one.
    fn ask(&self, mut stream: Stream, second: Second) -> Stage {
        let Some(request) = self.request.clone() else { return Stage::None };
        match stream.send(request, false) {
            Ok(()) => Stage::Running(Box::new((stream, second))),
            Err(error) => {
                self.race.second_failed(second, refusal_of(&error));
                Stage::None
            }
        }
    }

    /// Only the first one is left, at work or at its end.
    fn without_second(&mut self) -> Poll<Result<Head>> {
        self.failed.take().map_or(Poll::Pending, |error| Poll::Ready(Err(error)))
    }
}
