//! What the connection layer tells the rest of the program, without knowing who listens.

use std::any::Any;
use std::time::Duration;

use crate::listen::census::Full;
use crate::listen::conn::Conn;
use crate::refusal::Refusal;
use crate::tls::Version;
use crate::tls::clients::Shown;

/// How a TLS handshake ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handshake {
    /// It succeeded.
    Done {
        /// The version.
        version: Version,
        /// A session was resumed.
        resumed: bool,
        /// What became of the client's certificate, where one was asked for.
        shown: Option<Shown>,
    },
    /// It failed.
    Failed(Why),
    /// It took too long.
    TimedOut,
}

/// Why a connection was closed before a byte of it was read as a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Away {
    /// There are too many.
    Full(Full),
    /// Only proxies may connect, and it is from somebody else.
    Stranger,
    /// It is from a proxy that did not say, or not in time, who it speaks for.
    Unproxied,
}

/// Why a TLS handshake failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// The two sides do not agree, or the client sent no TLS.
    Disagreed,
    /// No certificate is for the name that the client asked for.
    UnknownName,
    /// The client's certificate, or that it has none.
    Certificate(Shown),
}

/// Told of what happens to connections. Called on the data path: implementations are quick and never
/// block.
pub trait Watch: Send + Sync + 'static {
    /// A connection was let in; what is returned is dropped when it ends.
    fn opened(&self, listener: usize) -> Option<Box<dyn Any + Send>>;
    /// A connection was turned away before a byte was read.
    fn turned_away(&self, listener: usize, why: Away);
    /// A TLS handshake ended.
    fn handshake(&self, listener: usize, settled: Handshake);
    /// A request was refused before it became one: what is answered, how long after its first byte,
    /// and what there was of a head. Returns the id under which it is known; empty for none.
    fn refused(&self, conn: &Conn, refusal: Refusal, took: Duration, received: &[u8]) -> String;
    /// The layer that reads HTTP/2 ended a stream or the connection, with this status or none; there is
    /// nothing to show of a request.
    fn ended(&self, conn: &Conn, refusal: Refusal, status: Option<u16>);
    /// How long a kept connection may still ask when the process is ending.
    fn last_word(&self) -> Duration;
    /// A request panicked; only it was harmed.
    fn panicked(&self, conn: &Conn);
}
