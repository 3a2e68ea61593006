//! What HTTP says (RFC 9110, RFC 9112), as pure functions over bytes and `http` types.

pub mod admit;
pub mod append;
pub mod certificate;
pub mod chunked;
pub mod conditional;
pub mod digits;
pub mod ends;
pub mod forwarded;
pub mod head;
pub mod hops;
pub mod list;
pub mod names;
pub mod range;
pub mod reply;
pub mod secret;
pub mod segment;
pub mod spare;
pub mod target;
pub mod title;
pub mod trace;
