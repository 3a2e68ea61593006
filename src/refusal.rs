//! Every reason for which edgeproxy answers a request itself, in one table.
//!
//! A [`Refusal`] is a value: the wire parser, `admit`, routing, and the failure mapping all return
//! one. This file maps it to a status, a label for logs and metrics, and a sentence for the client.
//! The sentence never echoes what the client sent.

use http::StatusCode;

/// Why a request was not answered by an origin or the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refusal {
    // ── the message is not one we pass on ──
    /// The request line is not `method SP target SP HTTP/x.y CRLF` (RFC 9112 §3).
    MalformedRequestLine,
    /// A line ended in a bare LF or contained a bare CR (RFC 9112 §2.2).
    BareLineFeed,
    /// A field line is not `name ":" OWS value OWS` (RFC 9112 §5).
    MalformedField,
    /// A field line is folded (RFC 9112 §5.2).
    FoldedField,
    /// A control byte stands in the target or in a field value (RFC 9110 §5.5).
    ControlByte,
    /// The target is not in a form that this method may use (RFC 9112 §3.2).
    BadTarget,
    /// An HTTP/1.1 request without Host (RFC 9112 §3.2).
    MissingHost,
    /// More than one Host field (RFC 9112 §3.2).
    DuplicateHost,
    /// A Host that is not a valid authority (RFC 9110 §7.2).
    BadHost,
    /// Host and the target's authority name different hosts (RFC 9112 §3.2.2).
    ConflictingHost,
    /// Content-Length and Transfer-Encoding in one message (RFC 9112 §6.1).
    AmbiguousLength,
    /// A Content-Length that is not one line of one number (RFC 9112 §6.3).
    BadContentLength,
    /// Transfer-Encoding in a version that has none, or `chunked` not alone (RFC 9112 §6.1).
    BadTransferEncoding,
    /// A chunk of the request body breaks the grammar (RFC 9112 §7.1).
    BadChunk,
    /// The request body ended before its framing said so.
    IncompleteBody,
    /// Connection names a field that must not be removed, or too many (RFC 9110 §7.6.1).
    BadConnection,
    /// An upgrade request carries a body, or asks for what we do not tunnel.
    BadUpgrade,
    /// An Expect that is not `100-continue` (RFC 9110 §10.1.1).
    BadExpect,
    /// A transfer coding that we do not know (RFC 9112 §6.1).
    UnknownTransferCoding,
    /// A method that is not a token (RFC 9110 §9.1).
    BadMethod,
    /// An HTTP/2 stream that is no request (RFC 9113 §8.1.1), as the HTTP/2
    /// layer found.
    MalformedStream,
    /// An HTTP/2 connection that breaks the rules of frames, compression or flow (RFC 9113 §5.4.1).
    BrokenConnection,
    /// An HTTP/2 connection that makes work without asking for anything (RFC 9113 §10.5).
    Flood,
    /// A version that we do not speak (RFC 9110 §15.6.6).
    UnsupportedVersion,
    // ── too much, too slow ──
    /// The target is longer than allowed.
    TargetTooLong,
    /// The header section is larger than allowed.
    HeadTooLarge,
    /// The header section has more fields than allowed.
    TooManyFields,
    /// The request body is larger than the route allows.
    BodyTooLarge,
    /// The whole header did not arrive in time.
    HeadTimeout,
    /// The body arrived slower than the minimum rate.
    BodyTimeout,
    // ── we understand it and do not do it ──
    /// TRACE and CONNECT are refused, and so is what a route does not list.
    MethodNotAllowed,
    /// No route matches.
    NoRoute,
    /// A PURGE from an address that may not.
    PurgeAddress,
    /// A PURGE without the token that is needed.
    PurgeToken,
    /// The connection is not meant for this host (RFC 9110 §15.5.20).
    Misdirected,
    /// The request came through edgeproxy again and again (RFC 9110 §7.6.3).
    Loop,
    /// `only-if-cached` and nothing usable stored (RFC 9111 §5.2.1.7).
    NotCached,
    /// What is stored must be validated, and the origin could not be asked (RFC 9111 §5.2.2.2).
    NotValidated,
    // ── the origin ──
    /// The upstream is switched off.
    UpstreamOff,
    /// The upstream has no backend that can be used now.
    NoPeer,
    /// The backends that are left are given a rest by their circuit breakers.
    BreakerOpen,
    /// More requests than the upstream can take.
    Shed,
    /// As many requests as may wait for a connection to the backend.
    QueueFull,
    /// No connection to the backend became free in time.
    QueueTimeout,
    /// The connection to the origin was refused or reset while connecting.
    ConnectFailed,
    /// The TLS handshake with the origin failed.
    OriginTls,
    /// The origin's certificate is not trusted, not valid now, or has another name.
    OriginCertificate,
    /// The origin wants a certificate of ours, or does not take the one that it was shown.
    OriginDenied,
    /// The origin closed or reset the connection before a whole header.
    OriginClosed,
    /// The origin sent what HTTP does not allow.
    OriginMalformed,
    /// The origin did not accept the connection in time.
    ConnectTimeout,
    /// The origin was silent for too long.
    OriginTimeout,
    /// The request took longer than the route allows in all.
    TotalTimeout,
    // ── ourselves ──
    /// Too many connections or requests right now.
    Overloaded,
    /// The process ends, and did not wait for this any longer.
    Shutdown,
    /// A defect of ours.
    Internal,
}

impl Refusal {
    /// Every refusal, for tables in metrics and documents.
    pub const ALL: &'static [Self] = &[
        Self::MalformedRequestLine,
        Self::BareLineFeed,
        Self::MalformedField,
        Self::FoldedField,
        Self::ControlByte,
        Self::BadTarget,
        Self::MissingHost,
        Self::DuplicateHost,
        Self::BadHost,
        Self::ConflictingHost,
        Self::AmbiguousLength,
        Self::BadContentLength,
        Self::BadTransferEncoding,
        Self::BadChunk,
        Self::IncompleteBody,
        Self::BadConnection,
        Self::BadUpgrade,
        Self::BadExpect,
        Self::UnknownTransferCoding,
        Self::BadMethod,
        Self::MalformedStream,
        Self::BrokenConnection,
        Self::Flood,
        Self::UnsupportedVersion,
        Self::TargetTooLong,
        Self::HeadTooLarge,
        Self::TooManyFields,
        Self::BodyTooLarge,
        Self::HeadTimeout,
        Self::BodyTimeout,
        Self::MethodNotAllowed,
        Self::NoRoute,
        Self::PurgeAddress,
        Self::PurgeToken,
        Self::Misdirected,
        Self::Loop,
        Self::NotCached,
        Self::NotValidated,
        Self::UpstreamOff,
        Self::NoPeer,
        Self::BreakerOpen,
        Self::Shed,
        Self::QueueFull,
        Self::QueueTimeout,
        Self::ConnectFailed,
        Self::OriginTls,
        Self::OriginCertificate,
        Self::OriginDenied,
        Self::OriginClosed,
        Self::OriginMalformed,
        Self::ConnectTimeout,
        Self::OriginTimeout,
        Self::TotalTimeout,
        Self::Overloaded,
        Self::Shutdown,
        Self::Internal,
    ];

    /// After how many seconds it may be worth asking again (RFC 9110 §10.2.3); `None` does not say.
    #[must_use]
    pub fn retry_after(self) -> Option<u32> {
        matches!(self, Self::Shed | Self::QueueFull | Self::QueueTimeout | Self::BreakerOpen)
            .then_some(1)
    }

    /// Whether it is the upstream that has no answer: it is off, down, busy, late or lying.
    #[must_use]
    pub fn blames_upstream(self) -> bool {
        matches!(
            self,
            Self::NotValidated
                | Self::UpstreamOff
                | Self::NoPeer
                | Self::BreakerOpen
                | Self::Shed
                | Self::QueueFull
                | Self::QueueTimeout
                | Self::ConnectFailed
                | Self::OriginTls
                | Self::OriginCertificate
                | Self::OriginDenied
                | Self::OriginClosed
                | Self::OriginMalformed
                | Self::ConnectTimeout
                | Self::OriginTimeout
                | Self::TotalTimeout
        )
    }

    /// Whether it was the client's body that did not come as it should, and nobody else's fault.
    #[must_use]
    pub fn is_of_body(self) -> bool {
        matches!(self, Self::BodyTimeout | Self::BodyTooLarge)
    }

    /// The status that the client sees.
    #[must_use]
    pub fn status(self) -> StatusCode {
        match self {
            Self::MalformedRequestLine
            | Self::BareLineFeed
            | Self::MalformedField
            | Self::FoldedField
            | Self::ControlByte
            | Self::BadTarget
            | Self::MissingHost
            | Self::DuplicateHost
            | Self::BadHost
            | Self::ConflictingHost
            | Self::AmbiguousLength
            | Self::BadContentLength
            | Self::BadTransferEncoding
            | Self::BadChunk
            | Self::IncompleteBody
            | Self::BadConnection
            | Self::BadUpgrade
            | Self::BadMethod
            | Self::MalformedStream
            | Self::BrokenConnection => StatusCode::BAD_REQUEST,
            Self::Flood => StatusCode::TOO_MANY_REQUESTS,
            Self::NoRoute => StatusCode::NOT_FOUND,
            Self::PurgeAddress => StatusCode::FORBIDDEN,
            Self::PurgeToken => StatusCode::UNAUTHORIZED,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::HeadTimeout | Self::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TargetTooLong => StatusCode::URI_TOO_LONG,
            Self::BadExpect => StatusCode::EXPECTATION_FAILED,
            Self::Misdirected => StatusCode::MISDIRECTED_REQUEST,
            Self::HeadTooLarge | Self::TooManyFields => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::UnknownTransferCoding => StatusCode::NOT_IMPLEMENTED,
            Self::UnsupportedVersion => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            Self::ConnectFailed
            | Self::OriginTls
            | Self::OriginCertificate
            | Self::OriginDenied
            | Self::OriginClosed
            | Self::OriginMalformed => StatusCode::BAD_GATEWAY,
            Self::UpstreamOff
            | Self::NoPeer
            | Self::BreakerOpen
            | Self::Shed
            | Self::QueueFull
            | Self::QueueTimeout
            | Self::Overloaded
            | Self::Shutdown => StatusCode::SERVICE_UNAVAILABLE,
            Self::NotCached
            | Self::NotValidated
            | Self::ConnectTimeout
            | Self::OriginTimeout
            | Self::TotalTimeout => StatusCode::GATEWAY_TIMEOUT,
            Self::Loop => StatusCode::LOOP_DETECTED,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The label in metrics and logs: lower case, words joined by `_`, one per variant.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::MalformedRequestLine => "malformed_request_line",
            Self::BareLineFeed => "bare_line_feed",
            Self::MalformedField => "malformed_field",
            Self::FoldedField => "folded_field",
            Self::ControlByte => "control_byte",
            Self::BadTarget => "bad_target",
            Self::MissingHost => "missing_host",
            Self::DuplicateHost => "duplicate_host",
            Self::BadHost => "bad_host",
            Self::ConflictingHost => "conflicting_host",
            Self::AmbiguousLength => "ambiguous_length",
            Self::BadContentLength => "bad_content_length",
            Self::BadTransferEncoding => "bad_transfer_encoding",
            Self::BadChunk => "bad_chunk",
            Self::IncompleteBody => "incomplete_body",
            Self::BadConnection => "bad_connection",
            Self::BadUpgrade => "bad_upgrade",
            Self::BadExpect => "bad_expect",
            Self::UnknownTransferCoding => "unknown_transfer_coding",
            Self::BadMethod => "bad_method",
            Self::MalformedStream => "malformed_stream",
            Self::BrokenConnection => "broken_connection",
            Self::Flood => "flood",
            Self::UnsupportedVersion => "unsupported_version",
            Self::TargetTooLong => "target_too_long",
            Self::HeadTooLarge => "head_too_large",
            Self::TooManyFields => "too_many_fields",
            Self::BodyTooLarge => "body_too_large",
            Self::HeadTimeout => "head_timeout",
            Self::BodyTimeout => "body_timeout",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::NoRoute => "no_route",
            Self::PurgeAddress => "purge_address",
            Self::PurgeToken => "purge_token",
            Self::Misdirected => "misdirected",
            Self::Loop => "loop",
            Self::NotCached => "not_cached",
            Self::NotValidated => "not_validated",
            Self::UpstreamOff => "upstream_off",
            Self::NoPeer => "no_peer",
            Self::BreakerOpen => "breaker_open",
            Self::Shed => "shed",
            Self::QueueFull => "queue_full",
            Self::QueueTimeout => "queue_timeout",
            Self::ConnectFailed => "connect_failed",
            Self::OriginTls => "origin_tls",
            Self::OriginCertificate => "origin_certificate",
            Self::OriginDenied => "origin_denied",
            Self::OriginClosed => "origin_closed",
            Self::OriginMalformed => "origin_malformed",
            Self::ConnectTimeout => "connect_timeout",
            Self::OriginTimeout => "origin_timeout",
            Self::TotalTimeout => "total_timeout",
            Self::Overloaded => "overloaded",
            Self::Shutdown => "shutdown",
            Self::Internal => "internal",
        }
    }

    /// One sentence for the client. It says nothing of the inside and echoes nothing.
    #[must_use]
    pub fn sentence(self) -> &'static str {
        match self {
            Self::MalformedRequestLine => "The request line is malformed.",
            Self::BareLineFeed => "Lines must end in CRLF.",
            Self::MalformedField => "A header field is malformed.",
            Self::FoldedField => "Folded header fields are not accepted.",
            Self::ControlByte => "The request contains a control byte.",
            Self::BadTarget => "The request target is not valid.",
            Self::MissingHost => "The Host field is missing.",
            Self::DuplicateHost => "There is more than one Host field.",
            Self::BadHost => "The Host field is not valid.",
            Self::ConflictingHost => "Host and the request target disagree.",
            Self::AmbiguousLength => "Content-Length and Transfer-Encoding exclude each other.",
            Self::BadContentLength => "The Content-Length is not valid.",
            Self::BadTransferEncoding => "The Transfer-Encoding is not valid.",
            Self::BadChunk => "A chunk of the request body is malformed.",
            Self::IncompleteBody => "The request body is incomplete.",
            Self::BadConnection => "The Connection field is not valid.",
            Self::BadUpgrade => "This upgrade is not accepted.",
            Self::BadExpect => "This expectation cannot be met.",
            Self::UnknownTransferCoding => "The transfer coding is not known.",
            Self::BadMethod => "The method is not valid.",
            Self::MalformedStream => "The HTTP/2 request is malformed.",
            Self::BrokenConnection => "The HTTP/2 connection breaks the rules.",
            Self::Flood => "The HTTP/2 connection is flooded.",
            Self::UnsupportedVersion => "This HTTP version is not spoken here.",
            Self::TargetTooLong => "The request target is too long.",
            Self::HeadTooLarge => "The header section is too large.",
            Self::TooManyFields => "There are too many header fields.",
            Self::BodyTooLarge => "The request body is too large.",
            Self::HeadTimeout => "The request header did not arrive in time.",
            Self::BodyTimeout => "The request body did not arrive in time.",
            Self::MethodNotAllowed => "This method is not allowed here.",
            Self::NoRoute => "Nothing is served here.",
            Self::PurgeAddress => "Nothing may be purged from there.",
            Self::PurgeToken => "Purging needs a token: Authorization: Bearer ...",
            Self::Misdirected => "This connection does not serve that host.",
            Self::Loop => "The request goes in circles.",
            Self::NotCached => "Nothing is stored for this request.",
            Self::NotValidated => "What is stored is out of date, and the server cannot be asked.",
            Self::UpstreamOff => "The service is switched off.",
            Self::NoPeer => "No server is available.",
            Self::Shed | Self::QueueFull | Self::QueueTimeout => "The servers are busy.",
            Self::BreakerOpen => "The servers are given a rest after too many failures.",
            Self::ConnectFailed => "The server could not be reached.",
            Self::OriginTls | Self::OriginCertificate | Self::OriginDenied => {
                "The server could not be reached securely."
            }
            Self::OriginClosed => "The server closed the connection.",
            Self::OriginMalformed => "The server's answer was not valid.",
            Self::ConnectTimeout => "The server could not be reached in time.",
            Self::OriginTimeout => "The server did not answer in time.",
            Self::TotalTimeout => "The request took too long.",
            Self::Overloaded => "The service is overloaded.",
            Self::Shutdown => "The service is being stopped.",
            Self::Internal => "Something went wrong.",
        }
    }

    /// What a 405 says in Allow (RFC 9110 §15.5.6) when no route was asked: the common methods that we
    /// do not refuse ourselves.
    pub const METHODS: &'static str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

    /// Whether the client names a JSON media type, problem details among them, in Accept, and none for
    /// people that it likes more: HTML not as much, plain text not better (RFC 9110 §12.5.1).
    #[must_use]
    pub fn prefers_json(accept: &[u8]) -> bool {
        let accept = String::from_utf8_lossy(accept).to_ascii_lowercase();
        let (mut json, mut html, mut plain) = (0.0_f32, 0.0_f32, 0.0_f32);
        for element in accept.split(',') {
            let mut parts = element.split(';').map(str::trim);
            let range = parts.next().unwrap_or_default();
            let weight = parts.find_map(|part| part.strip_prefix("q=")).unwrap_or("1");
            // What is no weight is no wish.
            let weight = weight.parse().unwrap_or(0.0);
            match range.split_once('/') {
                Some(("text", "html")) => html = html.max(weight),
                Some(("text", "plain" | "*")) => plain = plain.max(weight),
                Some((_, subtype)) if subtype == "json" || subtype.ends_with("+json") => {
                    json = json.max(weight);
                }
                Some(_) | None => {}
            }
        }
        json > html && json >= plain && json > 0.0
    }

    /// The media type of [`Self::body`].
    #[must_use]
    pub fn content_type(json: bool) -> &'static str {
        if json { "application/problem+json" } else { "text/plain; charset=utf-8" }
    }

    /// The small body that goes with the status: text, or problem details (RFC 9457).
    #[must_use]
    pub fn body(self, json: bool) -> String {
        let status = self.status();
        let title = status.canonical_reason().unwrap_or("Error");
        if json {
            // Every part is one of our own literals: nothing to escape.
            format!(
                "{{\"status\":{},\"title\":\"{title}\",\"detail\":\"{}\",\"reason\":\"{}\"}}\n",
                status.as_u16(),
                self.sentence(),
                self.label()
            )
        } else {
            format!("{} {title}\n{}\n", status.as_u16(), self.sentence())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn labels_are_unique_and_plain() {
        let labels: HashSet<_> = Refusal::ALL.iter().map(|r| r.label()).collect();
        assert_eq!(labels.len(), Refusal::ALL.len());
        for label in labels {
            assert!(label.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{label}");
        }
    }

    #[test]
    fn every_refusal_is_an_error_status_with_a_sentence() {
        for refusal in Refusal::ALL {
            let status = refusal.status();
            assert!(status.is_client_error() || status.is_server_error(), "{refusal:?}");
            assert!(refusal.sentence().ends_with('.'), "{refusal:?}");
        }
    }

    #[test]
    fn json_is_for_who_likes_it_most() {
        for (accept, json) in [
            ("", false),
            ("*/*", false),
            ("application/json", true),
            ("Application/Problem+JSON", true),
            ("application/json, text/plain, */*", true),
            ("application/json;q=0, text/plain", false),
            ("application/json;q=0", false),
            ("application/json; q=0.5, text/plain;q=0.4", true),
            ("application/json;q=0.5, text/*;q=0.6", false),
            ("text/html,application/json", false),
            ("text/html;q=0.1, application/json", true),
            ("application/json;q=a", false),
            ("text/json-like, jsonp/x", false),
        ] {
            assert_eq!(Refusal::prefers_json(accept.as_bytes()), json, "{accept}");
        }
    }

    #[test]
    fn timeouts_at_the_origin_are_504() {
        for refusal in [Refusal::ConnectTimeout, Refusal::OriginTimeout, Refusal::TotalTimeout] {
            assert_eq!(refusal.status(), StatusCode::GATEWAY_TIMEOUT);
        }
    }
}
