//! HTTP/2 towards origins: our connections, the streams on them, and what Pingora is given of those.
//!
//! The frames are the `h2` crate's. Ours is what lies around them: a `Carrier` is one connection, dialled as those of
//! HTTP/1 are; a `Shelf` holds the carriers of one [`Pool`](crate::upstream::pool::Pool) and finds room on them; a
//! `Stream` is one exchange, under the same `Vigil` as an exchange of HTTP/1; a [`Session`](session::Session) shows it
//! to Pingora.

pub mod body;
pub(super) mod carrier;
pub(super) mod fault;
mod herald;
mod pulse;
mod race;
pub mod session;
pub(super) mod shelf;
pub mod stream;
mod turns;

/// Requests at once on one connection, if the origin does not want fewer.
pub(super) const STREAMS: u32 = 100;

/// What one stream may hold that its client does not take.
const STREAM_WINDOW: u32 = 256 << 10;

/// What all streams of a connection may hold together: clients that do not read must not take the room of
/// those that do.
const CONNECTION_WINDOW: u32 = STREAM_WINDOW * STREAMS;

/// What of a request's body may wait to be written, for each stream.
const SEND_BUFFER: usize = 128 << 10;

/// The largest frame that an origin may send.
const FRAME: u32 = 64 << 10;
