//! Bodies of every framing, measured as they pass.

use super::ChunkFault;
use super::ChunkScanner;
use super::Fed;
use super::Of;

/// How the end of a body is found (RFC 9112 §6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyFraming {
    /// There is no body.
    None,
    /// Content-Length: so many bytes.
    Length(u64),
    /// The chunked coding says.
    Chunked,
    /// The connection's end is the body's end; responses only.
    UntilClose,
    /// No message any more: another protocol has taken over.
    Tunnel,
}

/// Follows the body of a message and finds its end.
#[derive(Debug)]
pub struct BodyScanner {
    state: State,
    bytes: u64,
}

#[derive(Debug)]
enum State {
    /// So many bytes are still to come.
    Length(u64),
    Chunked(ChunkScanner),
    UntilClose,
    Tunnel,
}

impl BodyScanner {
    /// A scanner at the start of a request's body with this framing.
    #[must_use]
    pub fn new(framing: BodyFraming) -> Self {
        Self::of(Of::Request, framing)
    }

    /// A scanner at the start of this body, with this framing.
    #[must_use]
    pub fn of(whose: Of, framing: BodyFraming) -> Self {
        let state = match framing {
            BodyFraming::None => State::Length(0),
            BodyFraming::Length(length) => State::Length(length),
            BodyFraming::Chunked => State::Chunked(ChunkScanner::new(whose)),
            BodyFraming::UntilClose => State::UntilClose,
            BodyFraming::Tunnel => State::Tunnel,
        };
        Self { state, bytes: 0 }
    }

    /// Looks at the next bytes; those behind the body are not consumed.
    ///
    /// # Errors
    /// A breach of the chunked coding.
    pub fn feed(&mut self, input: &[u8]) -> Result<Fed, ChunkFault> {
        match &mut self.state {
            State::Length(left) => {
                let consumed =
                    usize::try_from(*left).map_or(input.len(), |left| left.min(input.len()));
                *left -= consumed as u64;
                self.bytes = self.bytes.saturating_add(consumed as u64);
                Ok(Fed { consumed, done: *left == 0 })
            }
            State::Chunked(chunks) => {
                let fed = chunks.feed(input);
                self.bytes = chunks.data_bytes();
                fed
            }
            State::UntilClose | State::Tunnel => {
                self.bytes = self.bytes.saturating_add(input.len() as u64);
                Ok(Fed { consumed: input.len(), done: false })
            }
        }
    }

    /// Whether a Content-Length says where it ends.
    #[must_use]
    pub fn is_sized(&self) -> bool {
        match &self.state {
            State::Length(_) => true,
            State::Chunked(_) | State::UntilClose | State::Tunnel => false,
        }
    }

    /// Whether the body has ended. One that lasts until the connection closes never does by itself.
    #[must_use]
    pub fn at_end(&self) -> bool {
        match &self.state {
            State::Length(left) => *left == 0,
            State::Chunked(chunks) => chunks.is_done(),
            State::UntilClose | State::Tunnel => false,
        }
    }

    /// Whether the end of the connection is a clean end of the body now.
    #[must_use]
    pub fn may_close(&self) -> bool {
        match &self.state {
            State::Length(_) | State::Chunked(_) => self.at_end(),
            State::UntilClose | State::Tunnel => true,
        }
    }

    /// How many bytes are still to come, where that is known.
    #[must_use]
    pub fn remaining(&self) -> Option<u64> {
        match &self.state {
            State::Length(left) => Some(*left),
            State::Chunked(chunks) if chunks.is_done() => Some(0),
            State::Chunked(_) | State::UntilClose | State::Tunnel => None,
        }
    }

    /// How many bytes of content were seen: of a chunked body the data alone.
    #[must_use]
    pub fn body_bytes(&self) -> u64 {
        self.bytes
    }
}
