//! Label values: closed sets, so that no client and no origin can make series without end.

use http::Method as HttpMethod;

use crate::refusal::Refusal;

/// A closed set of label values, each with its place in an array.
pub trait Label: Copy + 'static {
    /// Every value, in the order of [`Label::index`].
    const ALL: &'static [Self];

    /// The text in the exposition.
    fn label(self) -> &'static str;

    /// The place in [`Label::ALL`].
    fn index(self) -> usize;
}

macro_rules! labels {
    ($($(#[doc = $doc:literal])+ $name:ident { $($(#[doc = $each:literal])+ $variant:ident = $label:literal,)+ })+) => {
        $(
            $(#[doc = $doc])+
            #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
            pub enum $name {
                $($(#[doc = $each])+ $variant,)+
            }

            impl Label for $name {
                const ALL: &'static [Self] = &[$(Self::$variant,)+];

                fn label(self) -> &'static str {
                    match self {
                        $(Self::$variant => $label,)+
                    }
                }

                fn index(self) -> usize {
                    self as usize
                }
            }
        )+
    };
}

labels! {
    /// A request method.
    Method {
        /// GET.
        Get = "GET",
        /// HEAD.
        Head = "HEAD",
        /// POST.
        Post = "POST",
        /// PUT.
        Put = "PUT",
        /// DELETE.
        Delete = "DELETE",
        /// CONNECT.
        Connect = "CONNECT",
        /// OPTIONS.
        Options = "OPTIONS",
        /// TRACE.
        Trace = "TRACE",
        /// PATCH.
        Patch = "PATCH",
        /// Any other, and what is no method.
        Other = "other",
    }

    /// What the cache did for a request.
    CacheResult {
        /// Answered from the store, fresh.
        Hit = "hit",
        /// Nothing usable was stored.
        Miss = "miss",
        /// Answered from the store, stale, within a window.
        Stale = "stale",
        /// What was stored was stale; the origin sent a new response.
        Expired = "expired",
        /// What was stored was validated by the origin.
        Revalidated = "revalidated",
        /// The request went past the cache.
        Bypass = "bypass",
        /// The cache was not asked: refused before, redirected, or off for the route.
        None = "none",
    }

    /// The first digit of a status.
    StatusClass {
        /// Informational; 101 above all.
        Informational = "1xx",
        /// Successful.
        Successful = "2xx",
        /// Redirection.
        Redirection = "3xx",
        /// Client error.
        ClientError = "4xx",
        /// Server error.
        ServerError = "5xx",
        /// None of these, or none at all.
        None = "none",
    }

    /// What came of a reload.
    Reloaded {
        /// The new configuration is in use.
        Reloaded = "reloaded",
        /// It is what was in use already.
        Unchanged = "unchanged",
        /// It cannot be used, and the one before stays in use.
        Refused = "refused",
    }

    /// Why a connection was closed right after it was accepted.
    ConnectionRefusal {
        /// As many connections as allowed in all.
        Limit = "limit",
        /// As many connections as allowed from this client address.
        ClientLimit = "client_limit",
        /// Only proxies of `proxy_protocol.from` may connect to this listener.
        NotAProxy = "not_a_proxy",
        /// A proxy of `proxy_protocol.from` that did not begin with a PROXY protocol header.
        NoProxyHeader = "no_proxy_header",
    }

    /// How a TLS handshake ended.
    Handshake {
        /// Agreed, in full.
        Full = "full",
        /// Agreed, resuming an earlier session.
        Resumed = "resumed",
        /// The two sides do not agree, or the client sent no TLS.
        Failed = "failed",
        /// No certificate is for the name that the client asked for.
        UnknownName = "unknown_name",
        /// It took too long.
        Timeout = "timeout",
    }

    /// What became of a client that was asked for a certificate.
    ClientCertificate {
        /// It showed one that is good.
        Verified = "verified",
        /// It showed none, and need not.
        None = "none",
        /// It showed none, and must.
        Missing = "missing",
        /// It is not valid any more, or not yet.
        Expired = "expired",
        /// Its authority took it back.
        Revoked = "revoked",
        /// Nobody who is believed issued it.
        UnknownAuthority = "unknown_authority",
        /// Whether it was revoked cannot be told.
        Undetermined = "undetermined",
        /// It is malformed, for something else, or not the client's.
        Bad = "bad",
    }

    /// What of a listener's has an end.
    Ending {
        /// A certificate.
        Certificate = "certificate",
        /// A list of clients that were revoked.
        Revocations = "revocations",
    }

    /// What came of reading certificates and their like again.
    FilesRead {
        /// They are others, and in use.
        Replaced = "replaced",
        /// They are the same.
        Same = "same",
        /// They cannot be used, and what was in use stays.
        Refused = "refused",
    }

    /// A version of TLS.
    TlsVersion {
        /// TLS 1.2.
        Tls12 = "1.2",
        /// TLS 1.3.
        Tls13 = "1.3",
        /// None was agreed on.
        None = "none",
    }

    /// Why an origin did not answer.
    UpstreamError {
        /// No address that can be used.
        NoPeer = "no_peer",
        /// It is switched off.
        UpstreamOff = "upstream_off",
        /// Open circuit breakers alone were in the way.
        BreakerOpen = "breaker_open",
        /// More requests than the upstream can take.
        Shed = "shed",
        /// As many requests as may wait for a connection.
        QueueFull = "queue_full",
        /// No connection became free in time.
        QueueTimeout = "queue_timeout",
        /// The connection was refused or reset while connecting.
        ConnectFailed = "connect_failed",
        /// It was not accepted in time.
        ConnectTimeout = "connect_timeout",
        /// The TLS handshake failed.
        OriginTls = "origin_tls",
        /// An origin whose certificate is not trusted, or has another name.
        OriginCertificate = "origin_certificate",
        /// An origin that does not take our certificate, or wants one.
        OriginDenied = "origin_denied",
        /// It was closed before a whole response.
        OriginClosed = "origin_closed",
        /// What came is not HTTP.
        OriginMalformed = "origin_malformed",
        /// Nothing came in time.
        OriginTimeout = "origin_timeout",
        /// The request took too long in all.
        TotalTimeout = "total_timeout",
        /// Something else.
        Other = "other",
    }

    /// Whether a connection to an origin was there already.
    Reused {
        /// It was.
        Yes = "true",
        /// It was made for this request.
        No = "false",
    }

    /// What became of a further attempt.
    Retried {
        /// It was made.
        Sent = "sent",
        /// There had been too many.
        OverBudget = "over_budget",
    }

    /// What became of a copy of a request.
    Copied {
        /// It was answered.
        Answered = "answered",
        /// It was not, or not in time.
        Failed = "failed",
        /// It was not sent: as many as may be were under way.
        Busy = "busy",
        /// It was not sent: its body was too large.
        TooLarge = "too_large",
    }

    /// What became of a second backend that was to be asked since the first one took long.
    Hedged {
        /// It answered first.
        Won = "won",
        /// The first one answered first.
        Lost = "lost",
        /// It gave no answer.
        Failed = "failed",
        /// It was not asked: there had been too many.
        OverBudget = "over_budget",
        /// It was not asked: no other backend had a connection to spare.
        NoBackend = "no_backend",
    }
}

impl Method {
    /// The label of a method.
    #[must_use]
    pub fn of(method: &HttpMethod) -> Self {
        Self::from_bytes(method.as_str().as_bytes())
    }

    /// The label of a method as received; methods are case-sensitive (RFC 9110 §9.1).
    #[must_use]
    pub fn from_bytes(method: &[u8]) -> Self {
        match method {
            b"GET" => Self::Get,
            b"HEAD" => Self::Head,
            b"POST" => Self::Post,
            b"PUT" => Self::Put,
            b"DELETE" => Self::Delete,
            b"CONNECT" => Self::Connect,
            b"OPTIONS" => Self::Options,
            b"TRACE" => Self::Trace,
            b"PATCH" => Self::Patch,
            _ => Self::Other,
        }
    }
}

impl StatusClass {
    /// The class of a status; `None` when there was none.
    #[must_use]
    pub fn of(status: Option<u16>) -> Self {
        match status {
            Some(100..=199) => Self::Informational,
            Some(200..=299) => Self::Successful,
            Some(300..=399) => Self::Redirection,
            Some(400..=499) => Self::ClientError,
            Some(500..=599) => Self::ServerError,
            Some(_) | None => Self::None,
        }
    }
}

impl UpstreamError {
    /// The label of what was answered for an origin.
    #[must_use]
    pub fn of(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NoPeer => Self::NoPeer,
            Refusal::UpstreamOff => Self::UpstreamOff,
            Refusal::BreakerOpen => Self::BreakerOpen,
            Refusal::Shed => Self::Shed,
            Refusal::QueueFull => Self::QueueFull,
            Refusal::QueueTimeout => Self::QueueTimeout,
            Refusal::ConnectFailed => Self::ConnectFailed,
            Refusal::ConnectTimeout => Self::ConnectTimeout,
            Refusal::OriginTls => Self::OriginTls,
            Refusal::OriginCertificate => Self::OriginCertificate,
            Refusal::OriginDenied => Self::OriginDenied,
            Refusal::OriginClosed => Self::OriginClosed,
            Refusal::OriginMalformed => Self::OriginMalformed,
            Refusal::OriginTimeout => Self::OriginTimeout,
            Refusal::TotalTimeout => Self::TotalTimeout,
            // Refused before an origin was asked.
            Refusal::MalformedRequestLine
            | Refusal::BareLineFeed
            | Refusal::MalformedField
            | Refusal::FoldedField
            | Refusal::ControlByte
            | Refusal::BadTarget
            | Refusal::MissingHost
            | Refusal::DuplicateHost
            | Refusal::BadHost
            | Refusal::ConflictingHost
            | Refusal::AmbiguousLength
            | Refusal::BadContentLength
            | Refusal::BadTransferEncoding
            | Refusal::BadChunk
            | Refusal::IncompleteBody
            | Refusal::BadConnection
            | Refusal::BadUpgrade
            | Refusal::BadExpect
            | Refusal::UnknownTransferCoding
            | Refusal::BadMethod
            | Refusal::MalformedStream
            | Refusal::BrokenConnection
            | Refusal::Flood
            | Refusal::UnsupportedVersion
            | Refusal::TargetTooLong
            | Refusal::HeadTooLarge
            | Refusal::TooManyFields
            | Refusal::BodyTooLarge
            | Refusal::HeadTimeout
            | Refusal::BodyTimeout
            | Refusal::MethodNotAllowed
            | Refusal::NoRoute
            | Refusal::PurgeAddress
            | Refusal::PurgeToken
            | Refusal::Misdirected
            | Refusal::Loop
            | Refusal::NotCached
            | Refusal::NotValidated
            | Refusal::Overloaded
            | Refusal::Shutdown
            | Refusal::Internal => Self::Other,
        }
    }
}

/// A status in metrics: its code if it is registered, else its class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StatusLabel(u8);

/// The codes that have a series of their own: the registered ones, and 499 and 520 to 524, which are in
/// wide use. An origin may send any of 500 codes; the rest is counted by class.
const CODES: &[u16] = &[
    100, 101, 102, 103, 200, 201, 202, 203, 204, 205, 206, 207, 208, 226, 300, 301, 302, 303, 304,
    305, 307, 308, 400, 401, 402, 403, 404, 405, 406, 407, 408, 409, 410, 411, 412, 413, 414, 415,
    416, 417, 418, 421, 422, 423, 424, 425, 426, 428, 429, 431, 451, 499, 500, 501, 502, 503, 504,
    505, 506, 507, 508, 510, 511, 520, 521, 522, 523, 524,
];

/// `PLACES[status - 100]` is the place of its label: in `CODES`, or behind them by class.
const PLACES: [u8; 500] = {
    let mut places = [0_u8; 500];
    let mut code = 0;
    while code < places.len() {
        places[code] = (CODES.len() + code / 100) as u8;
        code += 1;
    }
    let mut place = 0;
    while place < CODES.len() {
        places[CODES[place] as usize - 100] = place as u8;
        place += 1;
    }
    places
};

impl StatusLabel {
    /// How many labels there are.
    pub const COUNT: usize = CODES.len() + StatusClass::ALL.len();

    /// The label of a status; `None` when the client saw none.
    #[must_use]
    pub fn of(status: Option<u16>) -> Self {
        let place = status.and_then(|status| PLACES.get(usize::from(status).checked_sub(100)?));
        Self(place.copied().unwrap_or((Self::COUNT - 1) as u8))
    }

    /// Its place among all.
    #[must_use]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }

    /// The text of the label at `index`.
    pub(super) fn text(index: usize) -> String {
        match CODES.get(index) {
            Some(code) => code.to_string(),
            None => StatusClass::ALL
                .get(index - CODES.len())
                .map_or_else(String::new, |class| class.label().to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use std::fmt::Debug;

    fn is_closed_set<L: Label + Debug>() {
        let mut seen = HashSet::new();
        for (place, &value) in L::ALL.iter().enumerate() {
            assert_eq!(value.index(), place, "{value:?}");
            assert!(seen.insert(value.label()), "{value:?}");
        }
    }

    #[test]
    fn every_set_is_in_order_and_without_duplicates() {
        is_closed_set::<Method>();
        is_closed_set::<CacheResult>();
        is_closed_set::<StatusClass>();
        is_closed_set::<ConnectionRefusal>();
        is_closed_set::<Handshake>();
        is_closed_set::<TlsVersion>();
        is_closed_set::<UpstreamError>();
        is_closed_set::<Reused>();
        is_closed_set::<Retried>();
        is_closed_set::<Hedged>();
        is_closed_set::<Copied>();
    }

    #[test]
    fn the_nine_methods_are_themselves_and_all_others_are_one() {
        for &method in Method::ALL {
            assert_eq!(Method::from_bytes(method.label().as_bytes()), method);
        }
        assert_eq!(Method::of(&HttpMethod::PATCH), Method::Patch);
        for other in ["get", "PURGE", "", "G\nET"] {
            assert_eq!(Method::from_bytes(other.as_bytes()), Method::Other);
        }
    }

    #[test]
    fn every_status_has_a_label_and_unknown_codes_share_their_class() {
        for status in 0..=u16::MAX {
            let text = StatusLabel::text(StatusLabel::of(Some(status)).index());
            let expected = match status {
                100..=599 if CODES.contains(&status) => status.to_string(),
                100..=599 => format!("{}xx", status / 100),
                _ => "none".to_owned(),
            };
            assert_eq!(text, expected);
        }
        assert_eq!(StatusLabel::text(StatusLabel::of(None).index()), "none");
    }

    #[test]
    fn what_an_origin_did_has_the_word_that_the_refusal_has() {
        for &refusal in Refusal::ALL {
            let error = UpstreamError::of(refusal);
            assert!(error == UpstreamError::Other || error.label() == refusal.label());
        }
    }
}
