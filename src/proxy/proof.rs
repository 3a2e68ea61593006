//! What an ACME server is shown that asks whether a host is ours (RFC 8555 §8.3).

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::Method;
use log::info;
use pingora::protocols::Shutdown;
use tokio::io::AsyncWriteExt;

use crate::listen::io::EdgeIo;
use crate::listen::room::Room;
use crate::listen::shortcut::Asked;
use crate::listen::shortcut::Through;
use crate::listen::stream::Http2Stream;

/// Answers with a text, and closes the connection: who asks does so once.
pub(crate) struct Proof {
    answer: String,
}

impl Proof {
    /// The answer to `asked`, which is a GET or a HEAD.
    pub(crate) fn new(asked: &Asked<'_>, text: String) -> Self {
        let host = asked.host.map_or("a host without a name", |host| host.authority().as_str());
        info!(
            target: "edgeproxy::acme",
            "{} looks whether {host} is ours, and is shown what was agreed on",
            asked.conn.peer.ip()
        );
        let length = text.len();
        let body = if asked.head.method == Method::HEAD { String::new() } else { text };
        let answer = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/octet-stream\r\ncontent-length: {length}\r\n\
             cache-control: no-store\r\nconnection: close\r\n\r\n{body}"
        );
        Self { answer }
    }
}

impl Through for Proof {
    fn run(self: Box<Self>, mut io: Box<EdgeIo>, room: &mut Room) {
        room.fill(async move {
            if io.write_all(self.answer.as_bytes()).await.is_ok() {
                io.conn().response_is_whole();
            }
            Shutdown::shutdown(io.as_mut()).await;
            None
        });
    }

    /// ACME servers look by HTTP/1, and requests of HTTP/2 are never given this.
    fn run_http2(self: Box<Self>, stream: Http2Stream) -> BoxFuture<'static, ()> {
        async move { drop(stream) }.boxed()
    }
}
