//! An answer on a stream of HTTP/2.

use std::task::Poll;
use std::time::Duration;

use pingora::Result;
use pingora::http::ResponseHeader;

use super::Client;
use super::Coming;
use super::wait;
use crate::listen::stream::Http2Stream;

/// Passes the final answer on. What is given to the stream leaves when its connection is looked after,
/// so nothing has to be flushed before the origin is waited for.
pub(super) async fn answer(
    stream: &mut Http2Stream,
    patience: Option<Duration>,
    sent: &mut u64,
    response: ResponseHeader,
    mut coming: Coming<'_>,
) -> Result<()> {
    let mut next = coming.now().await;
    if matches!(next, Poll::Ready(Ok(None))) {
        coming.ended();
        return stream.begin(response, true);
    }
    stream.begin(response, false)?;
    loop {
        let part = match next {
            Poll::Ready(part) => part?,
            Poll::Pending => {
                wait(&mut Client::Http2(stream), patience, |cx| coming.exchange.poll_body(cx))
                    .await?
            }
        };
        let Some(data) = part else {
            coming.ended();
            return stream.end();
        };
        // The end comes along where it is there, as it mostly is.
        next = coming.now().await;
        if matches!(next, Poll::Ready(Ok(None))) {
            coming.ended();
            return stream.send(data, true, sent).await;
        }
        stream.send(data, false, sent).await?;
    }
}
