//! An answer on a stream of HTTP/2.

use std::task::Poll;
use std::time::Duration;

use pingora::Result;
use pingora::http::ResponseHeader;

use super::Client;
use super::Coming;
use super::Next;
use crate::listen::stream::Http2Stream;
use crate::proxy::receive;
use crate::upstream::exchange::Part;

/// Passes the final answer on. What is given to the stream leaves when its connection is looked after,
/// so nothing has to be flushed before the origin is waited for.
pub(super) async fn answer(
    stream: &mut Http2Stream,
    patience: Option<Duration>,
    sent: &mut u64,
    response: ResponseHeader,
    (mut coming, mut next): (Coming<'_>, Next),
) -> Result<()> {
    if is_end(&next) {
        coming.ended();
        return stream.begin(response, true);
    }
    stream.begin(response, false)?;
    loop {
        let part = match next {
            Poll::Ready(part) => part?,
            Poll::Pending => coming.next(&mut Client::Http2(stream), patience).await?,
        };
        let data = match part {
            Part::Data(data) => data,
            Part::End(None) => {
                coming.ended();
                return stream.end();
            }
            Part::End(Some(mut trailers)) => {
                coming.ended();
                receive::examine_trailers(&mut trailers);
                return stream.trailers(trailers);
            }
        };
        // The end comes along where it is there, as it mostly is.
        next = coming.now().await;
        if is_end(&next) {
            coming.ended();
            return stream.send(data, true, sent).await;
        }
        stream.send(data, false, sent).await?;
    }
}

/// Whether the body is whole, and nothing follows it.
fn is_end(next: &Next) -> bool {
    matches!(next, Poll::Ready(Ok(Part::End(None))))
}
