//! What the errors of the library that reads the frames mean for a request: those that Pingora would make of the
//! same events, so that whoever judges them need not know which way they came.

use std::io::ErrorKind;

use h2::Reason;
use pingora::Error;
use pingora::ErrorType;
use pingora::RetryType;

/// A connection on which the origin did not speak HTTP/2.
pub(super) fn no_handshake(e: h2::Error) -> Box<Error> {
    let what = "beginning HTTP/2";
    if e.reason() == Some(Reason::NO_ERROR) {
        // In good order, and nobody's breach.
        return Error::explain(ErrorType::ConnectionClosed, what).into_up();
    }
    let is_theirs = e.is_io() || e.is_remote();
    let kind = if is_theirs { ErrorType::ConnectionClosed } else { ErrorType::InvalidH2 };
    Error::because(kind, what, e).into_up()
}

/// A request that did not leave.
pub(super) fn unsent(e: h2::Error) -> Box<Error> {
    if e.is_io() || e.is_go_away() || e.is_reset() {
        let mut error = Error::because(ErrorType::H2Error, "beginning a stream", e).into_up();
        error.set_retry(true);
        return error;
    }
    // It is none that can be sent.
    Error::because(ErrorType::InternalError, "beginning a stream", e)
}

/// There is no head of an answer. `is_lost`: the connection was ended since nobody was there any more.
pub(super) fn no_head(e: h2::Error, is_lost: bool) -> Box<Error> {
    // RFC 9113 §8.7: what is refused, and what is above the last stream of a GOAWAY, was not looked at. Nobody else
    // hears of a GOAWAY; where it was looked at, the end of the connection ends it.
    let is_refused = e.is_reset() && e.reason() == Some(Reason::REFUSED_STREAM);
    let is_unseen = e.is_remote() && (is_refused || e.is_go_away());
    let was_alone = e.get_io().is_some_and(|io| {
        let kinds = [ErrorKind::ConnectionReset, ErrorKind::TimedOut, ErrorKind::BrokenPipe];
        io.raw_os_error().is_some() || kinds.contains(&io.kind())
    });
    let kind = if e.is_io() {
        ErrorType::ReadError
    } else if e.is_remote() && e.reason() == Some(Reason::HTTP_1_1_REQUIRED) {
        ErrorType::H2Downgrade
    } else {
        ErrorType::H2Error
    };
    let mut error = Error::because(kind, "reading the answer's head", e).into_up();
    if is_unseen {
        error.set_retry(true);
    } else if was_alone && !is_lost {
        // It may have died while it was idle. Who waited until it was found to be lost is not sent there once more.
        error.retry = RetryType::ReusedOnly;
    }
    error
}

/// An answer is not whole.
pub(super) fn not_whole(e: h2::Error) -> Box<Error> {
    Error::because(ErrorType::ReadError, "reading the answer's body", e).into_up()
}

/// An origin takes no more of a request.
pub(super) fn not_taken(e: h2::Error) -> Box<Error> {
    Error::because(ErrorType::WriteError, "writing the request's body", e).into_up()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::refusal::Refusal;
    use crate::upstream::fault::refusal_of;

    #[test]
    fn a_breach_that_was_found_here_is_the_origins() {
        // As the library reports what it found itself.
        let breach = || h2::Error::from(Reason::PROTOCOL_ERROR);
        assert_eq!(refusal_of(&no_head(breach(), false)), Refusal::OriginMalformed);
        assert_eq!(refusal_of(&not_whole(breach())), Refusal::OriginMalformed);
        assert_eq!(refusal_of(&no_handshake(breach())), Refusal::OriginMalformed);
        assert!(!no_head(breach(), false).retry());
        let closed = no_handshake(h2::Error::from(Reason::NO_ERROR));
        assert_eq!(refusal_of(&closed), Refusal::OriginClosed);
    }

    #[test]
    fn a_request_that_cannot_be_sent_is_no_fault_of_the_origin() {
        let ours = unsent(h2::Error::from(Reason::INTERNAL_ERROR));
        assert_eq!(refusal_of(&ours), Refusal::Internal);
        assert!(!ours.retry());
    }
}
