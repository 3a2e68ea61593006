//! May I keep it? (RFC 9111 §3)
//!
//! [`may_keep`] goes through what forbids storing in a fixed order and names the first that does;
//! what remains gets its times, its variant fields and the list of fields that are not stored.

use std::time::Duration;

use http::HeaderMap;
use http::HeaderName;
use http::Method;
use http::StatusCode;
use http::header;

use crate::cache::Exchange;
use crate::cache::Payload;
use crate::cache::Policy;
use crate::cache::Request;
use crate::cache::Response;
use crate::cache::SetCookie;
use crate::cache::StatusTtl;
use crate::cache::Statuses;
use crate::cache::deception;
use crate::cache::deception::Fit;
use crate::cache::deception::Guard;
use crate::cache::directives::Reach;
use crate::cache::directives::RequestDirectives;
use crate::cache::directives::ResponseDirectives;
use crate::cache::directives::Source;
use crate::cache::fields;
use crate::cache::freshness;
use crate::cache::freshness::Change;
use crate::cache::freshness::Life;
use crate::cache::freshness::LifetimeSource;
use crate::cache::freshness::Staleness;
use crate::cache::freshness::Validation;
use crate::cache::lookup::is_cached_method;
use crate::cache::revalidate::Conditions;
use crate::cache::vary::Spec;
use crate::cache::vary::Unselectable;

/// Whether a response is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Keep {
    /// It is, like this.
    Yes(Kept),
    /// It is not, for this reason.
    No(NotStorable),
}

/// How a response is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Its age, its lifetime and what staleness it bears.
    pub life: Life,
    /// Where the lifetime came from.
    pub lifetime_source: LifetimeSource,
    /// Which field's directives governed.
    pub directives_source: Source,
    /// The request fields that select it.
    pub vary: Spec,
    /// The fields that are not stored; they still go to the client that is answered now.
    pub strip: Vec<HeaderName>,
    /// Which methods it may answer.
    pub answers: Answers,
}

/// Which methods a stored response may answer (RFC 9111 §4: the method must allow it).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answers {
    /// It came as the answer to a GET and has content.
    GetAndHead,
    /// It came as the answer to a HEAD: without content it cannot answer a GET.
    HeadOnly,
}

impl Answers {
    /// Whether a request with this method may be answered.
    pub fn may_answer(self, method: &Method) -> bool {
        match self {
            Self::GetAndHead => is_cached_method(method),
            Self::HeadOnly => method == Method::HEAD,
        }
    }
}

/// Of whose requests it says something that a response was not kept. What is remembered of it must not be
/// held against others: anybody can send an Authorization, or a `no-store`, with any request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Concerns {
    /// Of all: the response says so, or a rule that is about the response.
    #[default]
    All,
    /// Of those with an Authorization.
    Credentials,
    /// Of those with a cookie.
    Cookies,
    /// Of nobody's but the one that it answered.
    Itself,
}

impl Concerns {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::All, Self::Credentials, Self::Cookies, Self::Itself];

    /// Whether it says something of a request with these fields.
    pub fn is_about(self, request: &HeaderMap) -> bool {
        match self {
            Self::All => true,
            Self::Credentials => request.contains_key(header::AUTHORIZATION),
            Self::Cookies => request.contains_key(header::COOKIE),
            Self::Itself => false,
        }
    }
}

/// Why a response is not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NotStorable {
    /// The route does not cache.
    Disabled,
    /// The request's method is neither GET nor HEAD.
    Method,
    /// The request had content, which the key does not see.
    RequestBody,
    /// The status is not final, or only means something together with other messages: 1xx, 206, 304.
    Status,
    /// `must-understand` beside a status that we do not (§5.2.2.3).
    NotUnderstood,
    /// The response's `no-store`.
    NoStore,
    /// The request's `no-store`.
    RequestNoStore,
    /// A condition of the route on the request.
    RouteNoStore,
    /// The route stores responses with other statuses only.
    RouteStatus,
    /// It was not asked for often enough yet.
    TooFewUses,
    /// `private`.
    Private,
    /// `Vary: *`.
    VaryStar,
    /// A Vary that names no field, or too many.
    VaryMalformed,
    /// A Vary by what the origin is told of the client: its address, or the request's id.
    VaryClient,
    /// It answers an Authorization and nothing allows sharing it (§3.5).
    Authorization,
    /// It sets a cookie, and the route refuses such.
    SetCookie,
    /// It is larger than the route allows.
    TooLarge,
    /// It does not say how long it is fresh, and no rule of the route says it.
    NoFreshness,
    /// It does not say how long it is fresh, and it may be personal: the request had a cookie.
    RequestCookie,
    /// Its Content-Type is not what the name that was asked for promises: it may be somebody's page.
    ContentType,
    /// An error of the origin, kept for a moment by the route's word, would replace what it may be
    /// well to have again.
    WouldReplace,
    /// It is stale on arrival, and has neither a validator nor a window for later use.
    AlreadyStale,
}

impl NotStorable {
    /// Every reason.
    pub const ALL: [Self; 22] = [
        Self::Disabled,
        Self::Method,
        Self::RequestBody,
        Self::Status,
        Self::NotUnderstood,
        Self::NoStore,
        Self::RequestNoStore,
        Self::RouteNoStore,
        Self::RouteStatus,
        Self::TooFewUses,
        Self::Private,
        Self::VaryStar,
        Self::VaryMalformed,
        Self::VaryClient,
        Self::Authorization,
        Self::SetCookie,
        Self::TooLarge,
        Self::NoFreshness,
        Self::RequestCookie,
        Self::ContentType,
        Self::WouldReplace,
        Self::AlreadyStale,
    ];

    /// Whether the response itself forbids it, whoever asked: when a 304 brings such a reason, what is
    /// stored has to go as well.
    pub fn is_of_the_response(self) -> bool {
        match self {
            Self::NotUnderstood
            | Self::NoStore
            | Self::Private
            | Self::VaryStar
            | Self::VaryMalformed
            | Self::VaryClient
            | Self::SetCookie
            | Self::ContentType => true,
            Self::Disabled
            | Self::Method
            | Self::RequestBody
            | Self::Status
            | Self::RequestNoStore
            | Self::RouteNoStore
            | Self::RouteStatus
            | Self::TooFewUses
            | Self::Authorization
            | Self::TooLarge
            | Self::NoFreshness
            | Self::RequestCookie
            | Self::WouldReplace
            | Self::AlreadyStale => false,
        }
    }

    /// Of whose requests it says something.
    pub fn concerns(self) -> Concerns {
        match self {
            Self::Authorization => Concerns::Credentials,
            Self::RequestCookie => Concerns::Cookies,
            Self::Method
            | Self::RequestBody
            | Self::RequestNoStore
            | Self::RouteNoStore
            | Self::TooFewUses => Concerns::Itself,
            Self::Disabled
            | Self::Status
            | Self::NotUnderstood
            | Self::NoStore
            | Self::RouteStatus
            | Self::Private
            | Self::VaryStar
            | Self::VaryMalformed
            | Self::VaryClient
            | Self::SetCookie
            | Self::TooLarge
            | Self::NoFreshness
            | Self::ContentType
            | Self::WouldReplace
            | Self::AlreadyStale => Concerns::All,
        }
    }

    /// The name in logs, metrics and Cache-Status.
    pub fn label(self) -> &'static str {
        match self {
            Self::Disabled => "disabled",
            Self::Method => "method",
            Self::RequestBody => "request-body",
            Self::Status => "status",
            Self::NotUnderstood => "must-understand",
            Self::NoStore => "no-store",
            Self::RequestNoStore => "request-no-store",
            Self::RouteNoStore => "route-no-store",
            Self::RouteStatus => "route-status",
            Self::TooFewUses => "min-uses",
            Self::Private => "private",
            Self::VaryStar => "vary-star",
            Self::VaryMalformed => "vary-malformed",
            Self::VaryClient => "vary-client",
            Self::Authorization => "authorization",
            Self::SetCookie => "set-cookie",
            Self::TooLarge => "too-large",
            Self::NoFreshness => "no-freshness",
            Self::RequestCookie => "request-cookie",
            Self::ContentType => "content-type",
            Self::WouldReplace => "would-replace",
            Self::AlreadyStale => "already-stale",
        }
    }
}

/// May this response be kept? (RFC 9111 §3)
///
/// After a 304, ask with the merged header section of [`crate::cache::revalidate::merge`], the stored
/// status and the exchange that brought the 304. That the body arrives whole is the store's concern.
pub fn may_keep(
    request: &Request<'_>,
    response: &Response<'_>,
    policy: &Policy,
    exchange: Exchange,
) -> Keep {
    match judge(request, response, policy, exchange) {
        Ok(kept) => Keep::Yes(kept),
        Err(reason) => Keep::No(reason),
    }
}

fn judge(
    request: &Request<'_>,
    response: &Response<'_>,
    policy: &Policy,
    exchange: Exchange,
) -> Result<Kept, NotStorable> {
    if !policy.enabled {
        return Err(NotStorable::Disabled);
    }
    if !is_cached_method(request.method) {
        return Err(NotStorable::Method);
    }
    if request.payload == Payload::Present {
        return Err(NotStorable::RequestBody);
    }
    if !is_whole(response.status) {
        return Err(NotStorable::Status);
    }
    let headers = response.headers;
    let (directives, source) = ResponseDirectives::governing(headers);
    check_directives(response.status, &directives)?;
    if let Some(forbids) = Forbids::of(request, policy) {
        return Err(forbids.reason());
    }
    let named = |statuses: &Statuses| statuses.contain(response.status);
    if !policy.statuses.is_empty() && !policy.statuses.iter().any(named) {
        return Err(NotStorable::RouteStatus);
    }
    if request.uses < policy.min_uses {
        return Err(NotStorable::TooFewUses);
    }
    let vary = Spec::parse(headers).map_err(|unselectable| match unselectable {
        Unselectable::Star => NotStorable::VaryStar,
        Unselectable::Malformed => NotStorable::VaryMalformed,
        Unselectable::Ours => NotStorable::VaryClient,
    })?;
    if request.headers.contains_key(header::AUTHORIZATION) && !may_share_authorized(&directives) {
        return Err(NotStorable::Authorization);
    }
    let sets_cookie = headers.contains_key(header::SET_COOKIE);
    if sets_cookie && policy.set_cookie == SetCookie::Refuse && !hides_cookies(&directives) {
        return Err(NotStorable::SetCookie);
    }
    if content_length(headers).is_some_and(|length| length > policy.max_object) {
        return Err(NotStorable::TooLarge);
    }
    let (life, lifetime_source) = live(request, response, &directives, source, policy, exchange)?;
    if is_held_against_its_name(policy.guard, lifetime_source)
        && deception::fit(request.path, headers) == Fit::Differs
    {
        return Err(NotStorable::ContentType);
    }
    let answers = match *request.method == Method::HEAD {
        true => Answers::HeadOnly,
        false => Answers::GetAndHead,
    };
    let strip = not_stored(headers, &directives, policy);
    Ok(Kept { life, lifetime_source, directives_source: source, vary, strip, answers })
}

/// Why a request keeps its answer out of the store, whatever that is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forbids {
    /// Its `no-store`.
    Client,
    /// A condition of the route.
    Route,
}

impl Forbids {
    /// Whether a request does, and why.
    pub fn of(request: &Request<'_>, policy: &Policy) -> Option<Self> {
        if RequestDirectives::of(request.headers, policy.client_directives).no_store {
            return Some(Self::Client);
        }
        let holds = policy.no_store.iter().any(|condition| condition.holds(request));
        holds.then_some(Self::Route)
    }

    /// The same as the reason why a response is not kept.
    pub fn reason(self) -> NotStorable {
        match self {
            Self::Client => NotStorable::RequestNoStore,
            Self::Route => NotStorable::RouteNoStore,
        }
    }
}

/// Whether a response with a lifetime from this source has to be what its name promises.
fn is_held_against_its_name(guard: Guard, source: LifetimeSource) -> bool {
    match guard {
        Guard::Off => false,
        Guard::All => true,
        Guard::Unstated => match source {
            LifetimeSource::Override
            | LifetimeSource::Status
            | LifetimeSource::Default
            | LifetimeSource::Heuristic => true,
            LifetimeSource::SMaxage
            | LifetimeSource::MaxAge
            | LifetimeSource::Expires
            | LifetimeSource::NoCache => false,
        },
    }
}

impl Kept {
    /// May this response, with this status, take the place of one that is stored and stale?
    ///
    /// # Errors
    /// Why not: an error that only the route's word keeps must not cost what may still serve, or be
    /// confirmed, once the origin is well again.
    pub fn may_replace(&self, status: StatusCode) -> Result<(), NotStorable> {
        match self.lifetime_source {
            LifetimeSource::Status if status.is_server_error() => Err(NotStorable::WouldReplace),
            LifetimeSource::Override
            | LifetimeSource::SMaxage
            | LifetimeSource::MaxAge
            | LifetimeSource::Expires
            | LifetimeSource::Status
            | LifetimeSource::Default
            | LifetimeSource::Heuristic
            | LifetimeSource::NoCache => Ok(()),
        }
    }
}

/// Whether a response with this status is complete in itself. 206 and 304 are parts of something and
/// handled where that is known; a 1xx is not final.
fn is_whole(status: StatusCode) -> bool {
    !status.is_informational()
        && status != StatusCode::PARTIAL_CONTENT
        && status != StatusCode::NOT_MODIFIED
}

// must-understand is for codes that carry caching requirements of their own: where we know the code,
// it lifts the no-store that stands there for caches that do not know the directive (§5.2.2.3).
fn check_directives(
    status: StatusCode,
    directives: &ResponseDirectives,
) -> Result<(), NotStorable> {
    if directives.must_understand && !is_understood(status) {
        return Err(NotStorable::NotUnderstood);
    }
    if directives.no_store && !directives.must_understand {
        return Err(NotStorable::NoStore);
    }
    if directives.private == Reach::Whole {
        return Err(NotStorable::Private);
    }
    Ok(())
}

/// The final status codes of RFC 9110 §15 whose responses are complete in themselves.
fn is_understood(status: StatusCode) -> bool {
    matches!(
        status.as_u16(),
        200..=205
            | 300..=303
            | 305
            | 307
            | 308
            | 400..=417
            | 421
            | 422
            | 426
            | 451
            | 500..=505
    )
}

/// The codes that may be given a lifetime they do not state (RFC 9110 §15.1); 206 never gets here.
fn is_heuristically_cacheable(status: StatusCode) -> bool {
    matches!(status.as_u16(), 200 | 203 | 204 | 300 | 301 | 308 | 404 | 405 | 410 | 414 | 501)
}

/// The codes that a route's `default_ttl` applies to. It is meant for pages and redirections: an
/// error that an attacker provokes, or an empty answer, is kept only where the origin says so.
fn takes_default(status: StatusCode) -> bool {
    matches!(status.as_u16(), 200 | 203 | 300 | 301 | 308)
}

/// §3.5: the three directives that allow sharing an answer to an authenticated request.
fn may_share_authorized(directives: &ResponseDirectives) -> bool {
    directives.public || directives.must_revalidate || directives.s_maxage.is_some()
}

/// Whether the response itself says that its cookies are not for the store.
fn hides_cookies(directives: &ResponseDirectives) -> bool {
    let named = |reach: &Reach| reach.fields().contains(&header::SET_COOKIE);
    named(&directives.private) || named(&directives.no_cache)
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    let text = headers.get(header::CONTENT_LENGTH)?.to_str().ok()?;
    // More than 64 bits of length is larger than anything.
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(u64::MAX))
}

fn live(
    request: &Request<'_>,
    response: &Response<'_>,
    directives: &ResponseDirectives,
    source: Source,
    policy: &Policy,
    exchange: Exchange,
) -> Result<(Life, LifetimeSource), NotStorable> {
    let age = freshness::initial_age(response.headers, exchange);
    let stated =
        freshness::explicit_lifetime(response.headers, directives, source, exchange.arrived);
    let (lifetime, lifetime_source) = match stated {
        Some(stated) => overridden(stated, response.status, policy, age),
        None => unstated(request, response, directives, policy, exchange, age)?,
    };
    let overridden =
        lifetime_source == LifetimeSource::Override && policy.overrides(response.status);
    // An override is the operator's word against the response's; only no-store and private stand.
    let always = directives.no_cache == Reach::Whole && !overridden;
    let closed = always || directives.must_revalidate || directives.proxy_revalidate;
    let window = |window: Option<Duration>| window.filter(|_| !closed).unwrap_or_default();
    // The route's windows are for responses that leave stale use open, which s-maxage does not.
    let open = |window: Duration| directives.s_maxage.is_none().then_some(window);
    let while_revalidate =
        directives.stale_while_revalidate.or_else(|| open(policy.stale_while_revalidate));
    let if_error = directives.stale_if_error.or_else(|| open(policy.stale_if_error));
    let life = Life {
        arrived: exchange.arrived,
        age_at_arrival: age,
        lifetime,
        stale_while_revalidate: window(while_revalidate),
        stale_if_error: window(if_error),
        // s-maxage alone forbids stale use like proxy-revalidate (§5.2.2.10). Where the origin names a
        // window beside it, it means that window, as every CDN takes it; nobody else opens one.
        staleness: match directives.s_maxage {
            _ if closed => Staleness::Closed,
            Some(_) => Staleness::WindowsOnly,
            None => Staleness::Open,
        },
        validation: if always { Validation::Always } else { Validation::WhenStale },
        change: if directives.immutable { Change::Never } else { Change::Possible },
    };
    // A window that has passed on the way is of no use.
    let longest = life.stale_while_revalidate.max(life.stale_if_error);
    let usable = !always && age < lifetime.saturating_add(longest)
        || !Conditions::of(response.headers).is_empty();
    if !usable {
        return Err(NotStorable::AlreadyStale);
    }
    Ok((life, lifetime_source))
}

/// A stated lifetime under the route's rules. An override never lengthens the life of an error: the
/// origin's few seconds for a 503 must not become the hour that was meant for its pages.
fn overridden(
    (stated, source): (Duration, LifetimeSource),
    status: StatusCode,
    policy: &Policy,
    age: Duration,
) -> (Duration, LifetimeSource) {
    let from_now = |ttl: Duration| age.saturating_add(ttl);
    match policy.override_ttl.map(from_now) {
        Some(ttl) if status.as_u16() < 400 || ttl < stated => (ttl, LifetimeSource::Override),
        Some(_) => (stated, source),
        None => (clamped(stated, policy, age), source),
    }
}

/// The lifetime of a response that states none.
fn unstated(
    request: &Request<'_>,
    response: &Response<'_>,
    directives: &ResponseDirectives,
    policy: &Policy,
    exchange: Exchange,
    age: Duration,
) -> Result<(Duration, LifetimeSource), NotStorable> {
    let from_now = |ttl: Duration| age.saturating_add(ttl);
    let allowed = directives.public || is_heuristically_cacheable(response.status);
    let default = takes_default(response.status);
    if let Some(ttl) = policy.override_ttl.filter(|_| default) {
        return Ok((from_now(ttl), LifetimeSource::Override));
    }
    if allowed && directives.no_cache == Reach::Whole {
        return Ok((Duration::ZERO, LifetimeSource::NoCache));
    }
    let configured = match policy.status_ttl(response.status) {
        Some(StatusTtl::Off) => return Err(NotStorable::NoFreshness),
        Some(StatusTtl::Is(ttl)) => Some((from_now(ttl), LifetimeSource::Status)),
        None => {
            let ttl = policy.default_ttl.filter(|_| default);
            ttl.map(|ttl| (from_now(ttl), LifetimeSource::Default))
        }
    };
    let guessed = || {
        freshness::heuristic_lifetime(
            response.headers,
            policy.heuristic_percent,
            policy.heuristic_max,
            exchange.arrived,
        )
        .filter(|_| allowed)
        .map(|ttl| (ttl, LifetimeSource::Heuristic))
    };
    let (lifetime, source) = configured.or_else(guessed).ok_or(NotStorable::NoFreshness)?;
    // What does not speak about caching at all may well be written for the one whose cookie came.
    if request.headers.contains_key(header::COOKIE) && !directives.public {
        return Err(NotStorable::RequestCookie);
    }
    Ok((clamped(lifetime, policy, age), source))
}

/// `max_ttl` bounds how long we serve it from now on, whatever age it brought.
fn clamped(lifetime: Duration, policy: &Policy, age: Duration) -> Duration {
    policy.max_ttl.map_or(lifetime, |longest| lifetime.min(age.saturating_add(longest)))
}

/// The fields that are not stored (§3.1, §5.2.2.4, §5.2.2.7), and Age, which is counted anew.
fn not_stored(
    headers: &HeaderMap,
    directives: &ResponseDirectives,
    policy: &Policy,
) -> Vec<HeaderName> {
    let mut strip: Vec<HeaderName> =
        hop_by_hop(headers).into_iter().filter(|name| headers.contains_key(name)).collect();
    let mut add = |name: &HeaderName| {
        if headers.contains_key(name) && !strip.contains(name) {
            strip.push(name.clone());
        }
    };
    add(&header::AGE);
    if policy.set_cookie == SetCookie::Strip {
        add(&header::SET_COOKIE);
    }
    directives.private.fields().iter().for_each(&mut add);
    directives.no_cache.fields().iter().for_each(&mut add);
    strip
}

/// The fields that concern one connection or one proxy only (§3.1, RFC 9110 §7.6.1), those that
/// Connection nominates included; whether they occur is not asked.
pub(crate) fn hop_by_hop(headers: &HeaderMap) -> Vec<HeaderName> {
    let mut names = vec![
        header::CONNECTION,
        HeaderName::from_static("keep-alive"),
        HeaderName::from_static("proxy-connection"),
        header::PROXY_AUTHENTICATE,
        HeaderName::from_static("proxy-authentication-info"),
        header::PROXY_AUTHORIZATION,
        header::TE,
        header::TRAILER,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
    ];
    let lines = headers.get_all(header::CONNECTION).iter();
    let nominated = lines.flat_map(|line| fields::members(line.as_bytes()));
    names.extend(nominated.filter_map(|name| HeaderName::from_bytes(name).ok()));
    names
}

#[cfg(test)]
#[path = "storable_tests.rs"]
mod tests;
