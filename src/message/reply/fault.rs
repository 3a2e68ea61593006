//! Every way in which an origin's connection breaks HTTP/1.

use std::fmt;

use crate::message::chunked::ChunkFault;
use crate::message::head::fields::FieldFault;
use crate::refusal::Refusal;

/// Why a connection to an origin must not be used any further.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OriginFault {
    // ── the head ──
    /// The status line is not `HTTP-version SP 3DIGIT [SP reason] CRLF` (RFC 9112 §4).
    MalformedStatusLine,
    /// A version other than HTTP/1.0 and HTTP/1.1.
    UnsupportedVersion,
    /// A status outside 100 to 599 (RFC 9110 §15).
    BadStatus,
    /// A line that does not end in CRLF (RFC 9112 §2.2).
    BareLineFeed,
    /// A line that is not `token ":" OWS value OWS` (RFC 9112 §5).
    MalformedField,
    /// A folded field line (RFC 9112 §5.2).
    FoldedField,
    /// A control byte in a value or in the reason phrase (RFC 9110 §5.5).
    ControlByte,
    /// The head is larger than allowed.
    HeadTooLarge,
    /// The head has more fields than allowed.
    TooManyFields,
    /// More interim responses than allowed.
    TooManyInterim,
    /// 101 to a request that did not ask for a WebSocket (RFC 9110 §15.2.2).
    UnaskedUpgrade,
    /// 101 that does not name the protocol that was asked for (RFC 9110 §7.8).
    BadUpgrade,
    // ── the length ──
    /// Content-Length and Transfer-Encoding in one message (RFC 9112 §6.1).
    AmbiguousLength,
    /// A Content-Length that is not one line of one number (RFC 9112 §6.3).
    BadContentLength,
    /// Transfer-Encoding in HTTP/1.0, repeated, or not a list that ends in `chunked`.
    BadTransferEncoding,
    /// A transfer coding that we did not ask for and do not know.
    UnknownTransferCoding,
    /// A 1xx or 204 response that speaks of a body (RFC 9110 §8.6, RFC 9112 §6.1).
    UnexpectedBody,
    /// A breach of the chunked coding.
    Chunk(ChunkFault),
    /// Bytes that no request asked for: before one, or behind the end of its answer.
    Unasked,
    // ── the end ──
    /// The connection ended before the first byte of an answer. The origin may have closed it while
    /// it was idle; the request may be repeated where its method allows.
    ClosedBeforeReply,
    /// The connection ended within a head, or after interim responses alone.
    TruncatedHead,
    /// The connection ended within a body.
    TruncatedBody,
    // ── ourselves ──
    /// What we sent is not a request: a defect of ours or an edit that does not belong in a head.
    OwnRequest(Refusal),
    /// We sent bytes beyond the request before its answer was whole.
    RequestOverrun,
}

impl OriginFault {
    /// The label in metrics and logs.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::MalformedStatusLine => "malformed_status_line",
            Self::UnsupportedVersion => "unsupported_version",
            Self::BadStatus => "bad_status",
            Self::BareLineFeed => "bare_line_feed",
            Self::MalformedField => "malformed_field",
            Self::FoldedField => "folded_field",
            Self::ControlByte => "control_byte",
            Self::HeadTooLarge => "head_too_large",
            Self::TooManyFields => "too_many_fields",
            Self::TooManyInterim => "too_many_interim",
            Self::UnaskedUpgrade => "unasked_upgrade",
            Self::BadUpgrade => "bad_upgrade",
            Self::AmbiguousLength => "ambiguous_length",
            Self::BadContentLength => "bad_content_length",
            Self::BadTransferEncoding => "bad_transfer_encoding",
            Self::UnknownTransferCoding => "unknown_transfer_coding",
            Self::UnexpectedBody => "unexpected_body",
            Self::Chunk(fault) => fault.label(),
            Self::Unasked => "unasked",
            Self::ClosedBeforeReply => "closed_before_reply",
            Self::TruncatedHead => "truncated_head",
            Self::TruncatedBody => "truncated_body",
            Self::OwnRequest(_) => "own_request",
            Self::RequestOverrun => "request_overrun",
        }
    }

    /// What the client is told when nothing of the answer has been passed on yet.
    #[must_use]
    pub fn refusal(self) -> Refusal {
        match self {
            Self::MalformedStatusLine
            | Self::UnsupportedVersion
            | Self::BadStatus
            | Self::BareLineFeed
            | Self::MalformedField
            | Self::FoldedField
            | Self::ControlByte
            | Self::HeadTooLarge
            | Self::TooManyFields
            | Self::TooManyInterim
            | Self::UnaskedUpgrade
            | Self::BadUpgrade
            | Self::AmbiguousLength
            | Self::BadContentLength
            | Self::BadTransferEncoding
            | Self::UnknownTransferCoding
            | Self::UnexpectedBody
            | Self::Chunk(_)
            | Self::Unasked => Refusal::OriginMalformed,
            Self::ClosedBeforeReply | Self::TruncatedHead | Self::TruncatedBody => {
                Refusal::OriginClosed
            }
            Self::OwnRequest(_) | Self::RequestOverrun => Refusal::Internal,
        }
    }
}

impl fmt::Display for OriginFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MalformedStatusLine => "the origin's status line is malformed",
            Self::UnsupportedVersion => "the origin answered in another version of HTTP",
            Self::BadStatus => "the origin's status is not one",
            Self::BareLineFeed => "a line of the origin's head does not end in CRLF",
            Self::MalformedField => "a field of the origin's head is malformed",
            Self::FoldedField => "a field of the origin's head is folded",
            Self::ControlByte => "the origin's head holds a control byte",
            Self::HeadTooLarge => "the origin's head is too large",
            Self::TooManyFields => "the origin's head has too many fields",
            Self::TooManyInterim => "the origin sent too many interim responses",
            Self::UnaskedUpgrade => "the origin switched protocols without being asked",
            Self::BadUpgrade => "the origin switched to another protocol than asked for",
            Self::AmbiguousLength => "the origin sent Content-Length and Transfer-Encoding",
            Self::BadContentLength => "the origin's Content-Length is not valid",
            Self::BadTransferEncoding => "the origin's Transfer-Encoding is not valid",
            Self::UnknownTransferCoding => "the origin used an unknown transfer coding",
            Self::UnexpectedBody => "the origin announced a body where there is none",
            Self::Chunk(fault) => return write!(f, "the origin's body is malformed: {fault}"),
            Self::Unasked => "the origin sent bytes that no request asked for",
            Self::ClosedBeforeReply => "the origin closed the connection before it answered",
            Self::TruncatedHead => "the origin closed the connection within a head",
            Self::TruncatedBody => "the origin closed the connection within a body",
            Self::OwnRequest(refusal) => {
                return write!(f, "the request to the origin is malformed: {}", refusal.label());
            }
            Self::RequestOverrun => "more was sent to the origin than the request",
        })
    }
}

impl std::error::Error for OriginFault {}

impl From<ChunkFault> for OriginFault {
    fn from(fault: ChunkFault) -> Self {
        Self::Chunk(fault)
    }
}

impl From<FieldFault> for OriginFault {
    fn from(fault: FieldFault) -> Self {
        match fault {
            FieldFault::Malformed => Self::MalformedField,
            FieldFault::Folded => Self::FoldedField,
            FieldFault::BareLineFeed => Self::BareLineFeed,
            FieldFault::ControlByte => Self::ControlByte,
            FieldFault::TooMany => Self::TooManyFields,
        }
    }
}
