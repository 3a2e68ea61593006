//! One line a request, chosen fields, never blocking.

/// Declares the fields once: variant, name, meaning.
macro_rules! fields {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal,)+) => {
        /// A field of an access log line. Its name is the key, and what the configuration says.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Field {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl Field {
            /// Every field, in the order of the documents.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The key in a line and in the configuration.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }

            /// What it says, in one sentence, for documents and schemas.
            #[must_use]
            pub fn description(self) -> &'static str {
                match self {
                    $(Self::$variant => concat!($($doc,)+).trim_ascii(),)+
                }
            }
        }
    };
}

fields! {
    /// When the request arrived: RFC 3339, UTC, milliseconds.
    Time = "time",
    /// The id that the origin and the client saw too.
    RequestId = "request_id",
    /// The client's address, behind trusted proxies the one that they name.
    Client = "client",
    /// The address and port at the other end of the connection.
    Peer = "peer",
    /// The listener's name.
    Listener = "listener",
    /// `HTTP/1.0`, `HTTP/1.1` or `HTTP/2`.
    Protocol = "protocol",
    /// The version of TLS, if any.
    TlsVersion = "tls_version",
    /// The host name that the client asked for in the TLS handshake.
    TlsSni = "tls_sni",
    /// The request method.
    Method = "method",
    /// `http` or `https`.
    Scheme = "scheme",
    /// The host of the request.
    Host = "host",
    /// The path of the request.
    Path = "path",
    /// The query of the request, without `?`; secrets are masked.
    Query = "query",
    /// Path and query; secrets are masked.
    Uri = "uri",
    /// The status that the client saw.
    Status = "status",
    /// Bytes of the response body that were sent.
    BytesSent = "bytes_sent",
    /// Bytes of the request body that were received.
    BytesReceived = "bytes_received",
    /// From the request's arrival to its end, in milliseconds.
    Duration = "duration_ms",
    /// From the request's arrival to the first byte of the response, in milliseconds.
    TimeToFirstByte = "ttfb_ms",
    /// The route's name.
    Route = "route",
    /// The upstream's name, if one was asked.
    Upstream = "upstream",
    /// The address that was asked last.
    UpstreamAddress = "upstream_address",
    /// The status that the origin sent.
    UpstreamStatus = "upstream_status",
    /// What the origin took, in milliseconds.
    UpstreamTime = "upstream_ms",
    /// How often an origin was asked.
    Attempts = "attempts",
    /// What the cache did.
    Cache = "cache",
    /// Why the cache did it.
    CacheReason = "cache_reason",
    /// Why edgeproxy answered itself.
    Refusal = "refusal",
    /// User-Agent of the request.
    UserAgent = "user_agent",
    /// Referer of the request; secrets are masked.
    Referer = "referer",
    /// The trace context that was passed on.
    Traceparent = "traceparent",
}

impl Field {
    /// What a line has when the configuration names no fields.
    pub const DEFAULT: &'static [Self] = &[
        Self::Time,
        Self::RequestId,
        Self::Client,
        Self::Listener,
        Self::Protocol,
        Self::Method,
        Self::Scheme,
        Self::Host,
        Self::Uri,
        Self::Status,
        Self::BytesSent,
        Self::BytesReceived,
        Self::Duration,
        Self::Route,
        Self::Upstream,
        Self::UpstreamAddress,
        Self::UpstreamStatus,
        Self::UpstreamTime,
        Self::Cache,
        Self::CacheReason,
        Self::Refusal,
        Self::UserAgent,
        Self::Referer,
    ];

    /// The field of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|field| field.name() == name)
    }

    /// Every name, in the order of the documents.
    pub fn names() -> impl Iterator<Item = &'static str> {
        Self::ALL.iter().map(|field| field.name())
    }
}
