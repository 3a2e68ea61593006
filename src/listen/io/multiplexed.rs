//! What a connection that speaks HTTP/2 is watched for, in both directions.

use std::io;
use std::sync::Arc;

use tokio::time::Instant;

use crate::listen::conn::Conn;
use crate::listen::ends::Ends;
use crate::listen::frames::Frames;
use crate::listen::watch::Watch;
use crate::refusal::Refusal;

/// The watch over one HTTP/2 connection.
pub(super) struct Multiplexed {
    frames: Frames,
    ends: Ends,
    watch: Arc<dyn Watch>,
}

impl Multiplexed {
    /// At the start of a connection, before its preface.
    pub(super) fn new(watch: Arc<dyn Watch>) -> Self {
        Self { frames: Frames::new(), ends: Ends::new(), watch }
    }

    /// These bytes come from the client. An error: it floods the connection.
    pub(super) fn came(&mut self, conn: &Conn, bytes: &[u8]) -> io::Result<()> {
        let ends = &mut self.ends;
        if self.frames.came(bytes, Instant::now(), |stream| ends.given_up(stream)) {
            return Ok(());
        }
        self.watch.ended(conn, Refusal::Flood, None);
        Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the client floods the connection with frames that ask for nothing",
        ))
    }

    /// These bytes went to the client.
    pub(super) fn went(&mut self, conn: &Conn, bytes: &[u8]) {
        self.frames.sent(bytes.len());
        let watch = &self.watch;
        self.ends.went(bytes, |end| watch.ended(conn, end.refusal, end.status));
    }
}
