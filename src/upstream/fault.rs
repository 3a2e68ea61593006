//! What an error of Pingora's on the origin's side means: the fault found, and the [`Refusal`] it
//! is for the client.

use std::error::Error as StdError;
use std::fmt;
use std::io;

use pingora::Error;
use pingora::ErrorType;
use pingora::RetryType;
use rustls::AlertDescription;

use crate::message::reply::OriginFault;
use crate::refusal::Refusal;

/// The fault that a guard found, if one is at the root of `error`.
#[must_use]
pub fn fault_of(error: &Error) -> Option<&OriginFault> {
    causes(error).find_map(|cause| {
        cause.downcast_ref::<OriginFault>().or_else(|| {
            let inner = cause.downcast_ref::<io::Error>()?.get_ref()?;
            inner.downcast_ref::<OriginFault>()
        })
    })
}

/// Carries `refusal` through Pingora; [`refusal_of`] finds it again.
#[must_use]
#[cold]
pub fn error_of(refusal: Refusal) -> Box<Error> {
    let etype = ErrorType::HTTPStatus(refusal.status().as_u16());
    Error::because(etype, refusal.label(), Refused(refusal)).into_up()
}

/// An error of `kind` that is told as `refusal`, whatever its cause was.
pub(super) fn told_as(refusal: Refusal, kind: ErrorType, what: String) -> Box<Error> {
    Error::because(kind, what, Refused(refusal)).into_up()
}

/// Carries `refusal` through a read; [`refusal_of`] finds it again.
pub(super) fn overdue(refusal: Refusal) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, Refused(refusal))
}

/// What the client is told of `error`, an error on the origin's side.
#[must_use]
pub fn refusal_of(error: &Error) -> Refusal {
    let refused = causes(error).find_map(|cause| {
        cause
            .downcast_ref::<Refused>()
            .or_else(|| cause.downcast_ref::<io::Error>()?.get_ref()?.downcast_ref::<Refused>())
    });
    if let Some(Refused(refusal)) = refused {
        return *refusal;
    }
    if let Some(fault) = fault_of(error) {
        return fault.refusal();
    }
    match error.root_etype() {
        ErrorType::ConnectTimedout | ErrorType::TLSHandshakeTimedout => Refusal::ConnectTimeout,
        ErrorType::ConnectRefused
        | ErrorType::ConnectNoRoute
        | ErrorType::ConnectError
        | ErrorType::ConnectProxyFailure
        | ErrorType::BindError
        | ErrorType::SocketError => Refusal::ConnectFailed,
        ErrorType::TLSWantX509Lookup
        | ErrorType::TLSHandshakeFailure
        | ErrorType::InvalidCert
        | ErrorType::HandshakeError => unsecured(error),
        ErrorType::InvalidHTTPHeader
        | ErrorType::H1Error
        | ErrorType::H2Downgrade
        | ErrorType::InvalidH2 => Refusal::OriginMalformed,
        ErrorType::ReadTimedout | ErrorType::WriteTimedout => Refusal::OriginTimeout,
        ErrorType::ReadError
        | ErrorType::WriteError
        | ErrorType::ConnectionClosed
        | ErrorType::H2Error => broken(error),
        ErrorType::AcceptError
        | ErrorType::HTTPStatus(_)
        | ErrorType::FileOpenError
        | ErrorType::FileCreateError
        | ErrorType::FileReadError
        | ErrorType::FileWriteError
        | ErrorType::InternalError
        | ErrorType::UnknownError
        | ErrorType::Custom(_)
        | ErrorType::CustomCode(..) => Refusal::Internal,
    }
}

/// The longest reason that is told, in characters.
const REASON: usize = 160;

/// Why it came to `error`: what is at its root, or its kind, where that is all there is to say.
pub(super) fn reason_of(error: &Error) -> String {
    let root = causes(error).last().filter(|cause| !is_error(*cause));
    root.map_or_else(|| error.root_etype().as_str().to_owned(), ToString::to_string)
}

/// What stands in logs and listings, part of which may be the origin's: one line that is not long.
pub(super) fn one_line(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(REASON).collect()
}

/// Whether it only wraps what is behind it.
fn is_error(cause: &(dyn StdError + Send + Sync + 'static)) -> bool {
    cause.is::<Box<Error>>() || cause.is::<Error>()
}

/// Why an origin has not looked at a request over HTTP/2 (RFC 9113 §8.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unseen {
    /// It came too late: the connection was given up in good order, or gone before anything was sent.
    Left,
    /// The origin would not have it.
    Refused,
}

/// Whether `error` says for certain that the origin has not looked at a request over HTTP/2, and why.
#[must_use]
pub fn unseen(error: &Error) -> Option<Unseen> {
    let is_said = matches!(error.retry, RetryType::Decided(true));
    if !is_said || error.etype() != &ErrorType::H2Error {
        return None;
    }
    let e = causes(error).find_map(|cause| cause.downcast_ref::<h2::Error>())?;
    let in_order = e.is_go_away() && e.reason() == Some(h2::Reason::NO_ERROR);
    Some(if e.is_io() || in_order { Unseen::Left } else { Unseen::Refused })
}

/// An established connection broke: by whom?
fn broken(error: &Error) -> Refusal {
    for cause in causes(error) {
        if let Some(e) = cause.downcast_ref::<h2::Error>() {
            // A reset or a GOAWAY of the origin's is its way to close; ours answers a breach.
            let theirs = e.is_io() || e.is_remote();
            return if theirs { Refusal::OriginClosed } else { Refusal::OriginMalformed };
        }
        let Some(e) = cause.downcast_ref::<io::Error>() else { continue };
        if let Some(refusal) = of_tls(e) {
            return refusal;
        }
        // The kernel gives a connection up after its keepalive probes.
        let lost = e.kind() == io::ErrorKind::TimedOut;
        return if lost { Refusal::OriginTimeout } else { Refusal::OriginClosed };
    }
    Refusal::OriginClosed
}

/// TLS could not be agreed on: what was wrong?
fn unsecured(error: &Error) -> Refusal {
    let told = causes(error).find_map(|cause| of_tls(cause.downcast_ref::<io::Error>()?));
    told.unwrap_or(Refusal::OriginTls)
}

/// What an error of TLS amounts to; `None`: it is none.
pub(super) fn of_tls(error: &io::Error) -> Option<Refusal> {
    let refusal = match error.get_ref()?.downcast_ref::<rustls::Error>()? {
        rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented => {
            Refusal::OriginCertificate
        }
        // Alerts of a server about a certificate are about the client's. With TLS 1.3 they come when
        // the client believes that the handshake is over (RFC 8446 §4.4.2.4).
        rustls::Error::AlertReceived(
            AlertDescription::NoCertificate
            | AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied
            | AlertDescription::CertificateRequired,
        ) => Refusal::OriginDenied,
        _ => Refusal::OriginTls,
    };
    Some(refusal)
}

/// The causes of `error`, from the outermost to the root.
fn causes(error: &Error) -> impl Iterator<Item = &(dyn StdError + Send + Sync + 'static)> {
    let mut next = error.cause.as_deref();
    std::iter::from_fn(move || {
        let cause = next?;
        next = cause
            .downcast_ref::<Box<Error>>()
            .map(|inner| inner.as_ref())
            .or_else(|| cause.downcast_ref::<Error>())
            .and_then(|inner| inner.cause.as_deref());
        Some(cause)
    })
}

/// A [`Refusal`] as the cause of an error.
#[derive(Debug)]
struct Refused(Refusal);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.sentence())
    }
}

impl StdError for Refused {}

#[cfg(test)]
mod tests {
    use pingora::OrErr;

    use super::*;

    fn read_error(cause: io::Error) -> Box<Error> {
        let inner = Err::<(), _>(cause).or_err(ErrorType::ReadError, "reading").unwrap_err();
        inner.more_context("while proxying")
    }

    fn alerted(alert: AlertDescription) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidData, rustls::Error::AlertReceived(alert))
    }

    #[test]
    fn a_refusal_survives_the_way_through_pingora() {
        for refusal in Refusal::ALL {
            let error = error_of(*refusal).more_context("on the way");
            assert_eq!(refusal_of(&error), *refusal);
        }
    }

    #[test]
    fn a_refusal_survives_the_way_through_a_read() {
        for refusal in [Refusal::TotalTimeout, Refusal::BodyTimeout] {
            assert_eq!(refusal_of(&read_error(overdue(refusal))), refusal);
        }
    }

    #[test]
    fn error_types_map_to_refusals() {
        let table = [
            (ErrorType::ConnectTimedout, Refusal::ConnectTimeout),
            (ErrorType::TLSHandshakeTimedout, Refusal::ConnectTimeout),
            (ErrorType::ConnectRefused, Refusal::ConnectFailed),
            (ErrorType::ConnectNoRoute, Refusal::ConnectFailed),
            (ErrorType::TLSHandshakeFailure, Refusal::OriginTls),
            (ErrorType::InvalidCert, Refusal::OriginTls),
            (ErrorType::InvalidHTTPHeader, Refusal::OriginMalformed),
            (ErrorType::InvalidH2, Refusal::OriginMalformed),
            (ErrorType::ReadTimedout, Refusal::OriginTimeout),
            (ErrorType::WriteTimedout, Refusal::OriginTimeout),
            (ErrorType::ConnectionClosed, Refusal::OriginClosed),
            (ErrorType::InternalError, Refusal::Internal),
        ];
        for (etype, refusal) in table {
            assert_eq!(refusal_of(&Error::new_up(etype.clone())), refusal, "{etype:?}");
        }
    }

    #[test]
    fn a_read_error_is_told_apart_by_its_cause() {
        let reset = io::Error::from(io::ErrorKind::ConnectionReset);
        assert_eq!(refusal_of(&read_error(reset)), Refusal::OriginClosed);
        let lost = io::Error::from(io::ErrorKind::TimedOut);
        assert_eq!(refusal_of(&read_error(lost)), Refusal::OriginTimeout);
        for (alert, refusal) in [
            (AlertDescription::InternalError, Refusal::OriginTls),
            (AlertDescription::HandshakeFailure, Refusal::OriginTls),
            (AlertDescription::CertificateRequired, Refusal::OriginDenied),
            (AlertDescription::UnknownCA, Refusal::OriginDenied),
        ] {
            assert_eq!(refusal_of(&read_error(alerted(alert))), refusal, "{alert:?}");
            let shaken = Error::because(ErrorType::TLSHandshakeFailure, "", alerted(alert));
            assert_eq!(refusal_of(&shaken), refusal, "{alert:?}");
        }
        let other = rustls::Error::from(rustls::CertificateError::NotValidForName);
        let other = io::Error::new(io::ErrorKind::InvalidData, other);
        let shaken = Error::because(ErrorType::TLSHandshakeFailure, "", other);
        assert_eq!(refusal_of(&shaken), Refusal::OriginCertificate);
    }

    #[test]
    fn a_fault_is_found_and_names_its_refusal() {
        let table = [
            (OriginFault::AmbiguousLength, Refusal::OriginMalformed),
            (OriginFault::TruncatedBody, Refusal::OriginClosed),
            (OriginFault::RequestOverrun, Refusal::Internal),
        ];
        for (fault, refusal) in table {
            let error = read_error(io::Error::new(io::ErrorKind::InvalidData, fault));
            assert_eq!(fault_of(&error), Some(&fault));
            assert_eq!(refusal_of(&error), refusal);
        }
    }

    #[test]
    fn an_error_without_a_guard_behind_it_has_no_fault() {
        assert_eq!(fault_of(&read_error(io::ErrorKind::ConnectionReset.into())), None);
    }
}
