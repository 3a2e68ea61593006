//! What we say to the client beside what the response says itself. Both ways to an answer ask here.

use std::time::Duration;

use http::HeaderMap;
use http::HeaderValue;
use http::StatusCode;
use http::Version;
use http::header;
use http::header::HeaderName;
use pingora::ErrorType;
use pingora::OrErr;
use pingora::Result;
use pingora::http::ResponseHeader;

use crate::cache::Timing;
use crate::cache::directives;
use crate::cache::status::CacheStatus;
use crate::cache::status::Outcome;
use crate::message::hops;
use crate::message::list;
use crate::proxy::arrive::REQUEST_ID;
use crate::proxy::context::RequestCtx;
use crate::route::HeaderRule;

/// What caches did (RFC 9211).
pub(crate) const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
/// The same in one word.
pub(crate) const X_CACHE: HeaderName = HeaderName::from_static("x-cache");

/// The same, and how long it took, where browsers show it.
pub(crate) const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// What the cache did, and how long the origin took to its header, as metrics of Server-Timing.
pub(crate) fn timing(outcome: Outcome, took: Option<Duration>) -> Option<HeaderValue> {
    let cache = format!("cache;desc={}", outcome.label());
    let text = match took {
        Some(took) => format!("{cache}, origin;dur={:.3}", took.as_secs_f64() * 1000.0),
        None => cache,
    };
    HeaderValue::try_from(text).ok()
}

/// What is said to the client of a response.
pub(crate) struct Dress<'a> {
    /// The version in which the response reached us, now or when it was stored.
    pub(crate) received: Version,
    /// The request's id.
    pub(crate) id: &'a str,
    /// Its age in seconds; `None` leaves what the response says.
    pub(crate) age: Option<u64>,
    /// What the cache did, if it was asked.
    pub(crate) cache: Option<(CacheStatus, Outcome)>,
    /// The same, and how long the origin took, in the form of Server-Timing.
    pub(crate) timing: Option<HeaderValue>,
    /// The cookie by which the client comes to its backend again.
    pub(crate) stick: Option<&'a HeaderValue>,
    /// That browsers come over TLS alone, in place of what the response says of it.
    pub(crate) hsts: Option<&'a HeaderValue>,
    /// The route's changes.
    pub(crate) rules: &'a [HeaderRule],
}

impl<'a> Dress<'a> {
    /// What is said of the response to this request, the age aside.
    pub(crate) fn of(ctx: &'a RequestCtx) -> Self {
        let tells = ctx.route().is_some_and(|route| route.cache.timing == Timing::Told);
        let answered = ctx.origin.status.and_then(|status| StatusCode::from_u16(status).ok());
        Self {
            received: ctx
                .route()
                .map_or(Version::HTTP_11, |route| ctx.runtime.version_towards(route)),
            id: &ctx.id,
            age: None,
            cache: ctx.cache.outcome.map(|outcome| {
                let status = ctx.cache.status;
                (answered.map_or(status, |answered| status.with_status(answered)), outcome)
            }),
            timing: ctx
                .cache
                .outcome
                .filter(|_| tells)
                .and_then(|outcome| timing(outcome, ctx.origin.took)),
            stick: ctx.origin.stick.as_ref(),
            hsts: ctx.runtime.hsts(ctx.conn.as_deref()),
            rules: ctx.route().map_or(&[], |route| &route.headers.response),
        }
    }

    /// Whether a field of the response, in any case, does not show beneath it, a route's changes aside. Connection
    /// is not a response's to say.
    pub(crate) fn covers(&self, name: &[u8]) -> bool {
        let is = |known: &[u8]| list::is_word(name, known);
        let [first, ..] = name else { return false };
        // By their letters: a name as the library has it takes longer to tell them.
        match (name.len(), first.to_ascii_lowercase()) {
            (3, b'v') => is(b"via"),
            (3, b'a') => self.age.is_some() && is(b"age"),
            (7, b'x') => self.cache.is_some() && is(b"x-cache"),
            (10, b'c') => is(b"connection"),
            (12, b'x') => is(b"x-request-id"),
            (25, b's') => self.hsts.is_some() && is(b"strict-transport-security"),
            (17, b'c' | b's') | (23, b'e') => {
                directives::targeted_fields().iter().any(|known| is(known.as_str().as_bytes()))
            }
            _ => false,
        }
    }

    /// Whether a route's changes are to this field.
    pub(crate) fn rules_touch(&self, field: &HeaderName) -> bool {
        self.rules.iter().any(|rule| match rule {
            HeaderRule::Set(name, _) | HeaderRule::Add(name, _) | HeaderRule::Remove(name) => {
                name == field
            }
        })
    }

    /// Says the request's id.
    pub(crate) fn put_id_on(&self, response: &mut impl Fields) -> Result<()> {
        let mut id =
            HeaderValue::from_str(self.id).or_err(ErrorType::InvalidHTTPHeader, "an id")?;
        // Each is another: HTTP/2 must not fill its table of what was said before with them.
        id.set_sensitive(true);
        response.insert(REQUEST_ID, id)
    }

    /// Says it.
    pub(crate) fn put_on(&self, response: &mut impl Fields) -> Result<()> {
        for name in directives::targeted_fields() {
            response.remove(name);
        }
        if let Some(age) = self.age {
            response.insert(header::AGE, HeaderValue::from(age))?;
        }
        let via = hops::via(response.all(), self.received);
        response.insert(header::VIA, via)?;
        self.put_id_on(response)?;
        if let Some((status, outcome)) = &self.cache {
            response.append(CACHE_STATUS, status.to_value())?;
            response.insert(X_CACHE, HeaderValue::from_static(outcome.x_cache()))?;
        }
        if let Some(timing) = &self.timing {
            response.append(SERVER_TIMING, timing.clone())?;
        }
        if let Some(hsts) = self.hsts {
            response.insert(header::STRICT_TRANSPORT_SECURITY, hsts.clone())?;
        }
        for rule in self.rules {
            match rule {
                HeaderRule::Set(name, value) => response.insert(name.clone(), value.clone())?,
                HeaderRule::Add(name, value) => response.append(name.clone(), value.clone())?,
                HeaderRule::Remove(name) => response.remove(name),
            }
        }
        // Behind the changes, which are to the cookies of the origin: without ours, each request would go elsewhere.
        if let Some(cookie) = self.stick {
            response.append(header::SET_COOKIE, cookie.clone())?;
        }
        Ok(())
    }
}

/// The fields of a response, as whoever holds it lets them be changed.
pub(crate) trait Fields {
    /// All of them.
    fn all(&self) -> &HeaderMap;
    /// Replaces every value of a field.
    fn insert(&mut self, name: HeaderName, value: HeaderValue) -> Result<()>;
    /// Adds a value.
    fn append(&mut self, name: HeaderName, value: HeaderValue) -> Result<()>;
    /// Removes every value.
    fn remove(&mut self, name: &HeaderName);
}

/// The head of a response, as whoever holds it lets it be read.
pub(crate) trait Head {
    /// The status.
    fn status(&self) -> StatusCode;
    /// The version that its sender spoke.
    fn version(&self) -> Version;
    /// The first value of a field.
    fn first(&self, name: &HeaderName) -> Option<&[u8]>;
    /// All fields, where they are in a map.
    fn map(&self) -> Option<&HeaderMap>;
}

/// The head of a response, as whoever holds it lets it be changed.
pub(crate) trait HeadMut: Head + Fields {
    /// Replaces the status.
    fn set_status(&mut self, status: StatusCode) -> Result<()>;
}

impl Head for ResponseHeader {
    fn status(&self) -> StatusCode {
        self.status
    }

    fn version(&self) -> Version {
        self.version
    }

    fn first(&self, name: &HeaderName) -> Option<&[u8]> {
        self.headers.get(name).map(HeaderValue::as_bytes)
    }

    fn map(&self) -> Option<&HeaderMap> {
        Some(&self.headers)
    }
}

impl HeadMut for ResponseHeader {
    fn set_status(&mut self, status: StatusCode) -> Result<()> {
        Self::set_status(self, status)
    }
}

impl Fields for ResponseHeader {
    fn all(&self) -> &HeaderMap {
        &self.headers
    }

    fn insert(&mut self, name: HeaderName, value: HeaderValue) -> Result<()> {
        self.insert_header(name, value)
    }

    fn append(&mut self, name: HeaderName, value: HeaderValue) -> Result<()> {
        self.append_header(name, value).map(|_| ())
    }

    fn remove(&mut self, name: &HeaderName) {
        self.remove_header(name);
    }
}

impl Fields for HeaderMap {
    fn all(&self) -> &HeaderMap {
        self
    }

    fn insert(&mut self, name: HeaderName, value: HeaderValue) -> Result<()> {
        self.try_insert(name, value).or_err(ErrorType::InvalidHTTPHeader, "too many fields")?;
        Ok(())
    }

    fn append(&mut self, name: HeaderName, value: HeaderValue) -> Result<()> {
        self.try_append(name, value).or_err(ErrorType::InvalidHTTPHeader, "too many fields")?;
        Ok(())
    }

    fn remove(&mut self, name: &HeaderName) {
        Self::remove(self, name);
    }
}
