//! Cache directives (RFC 9111 §5.2) of requests and responses, and the targeted fields (RFC 9213)
//! that may speak in place of Cache-Control.
//!
//! The reader is strict where leniency would lengthen a life and tolerant where strictness would: a
//! malformed number of seconds is zero, a restricting directive counts even inside a broken member,
//! a permitting one does not. Of a repeated directive the first occurrence speaks (§4.2.1); what is
//! unknown is ignored (§5.2.3).

use std::time::Duration;

use http::HeaderMap;
use http::HeaderName;
use http::header;

use crate::cache::ClientDirectives;
use crate::cache::dictionary;
use crate::cache::dictionary::Value;
use crate::cache::fields;

/// The longest time that a directive can name: 2^31 seconds, as RFC 9111 §1.2.2 has it for values
/// that overflow. It keeps every sum of ours far from its type's end.
pub const LONGEST: Duration = Duration::from_secs(1 << 31);

/// The field that speaks to this proxy alone.
pub static EDGEPROXY_CACHE_CONTROL: HeaderName = HeaderName::from_static("edgeproxy-cache-control");
/// The field that speaks to all CDN caches (RFC 9213 §3.1).
pub static CDN_CACHE_CONTROL: HeaderName = HeaderName::from_static("cdn-cache-control");
/// The older convention of surrogates; only what is also a structured dictionary is read.
pub static SURROGATE_CONTROL: HeaderName = HeaderName::from_static("surrogate-control");

/// The targeted fields, the most specific first: the first that is valid and not empty governs
/// (RFC 9213 §2.2). They stay in the store, since a 304 may omit them, and are removed before the
/// client.
pub fn targeted_fields() -> [&'static HeaderName; 3] {
    [&EDGEPROXY_CACHE_CONTROL, &CDN_CACHE_CONTROL, &SURROGATE_CONTROL]
}

/// Which field the directives of a response came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Cache-Control; Expires counts beside it.
    CacheControl,
    /// A targeted field; Cache-Control and Expires are ignored (RFC 9213 §2.2).
    Targeted,
}

/// A directive that may name fields: `no-cache` and `private`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Reach {
    /// The directive is absent.
    #[default]
    Nothing,
    /// It is there for the named fields.
    Fields(Vec<HeaderName>),
    /// It is there for the whole response.
    Whole,
}

impl Reach {
    fn widen(&mut self, other: Self) {
        match (&mut *self, other) {
            (Self::Whole, _) | (_, Self::Nothing) => {}
            (Self::Fields(mine), Self::Fields(more)) => mine.extend(more),
            (_, other) => *self = other,
        }
    }

    /// The fields that are named; none when the directive is absent or for the whole response.
    pub fn fields(&self) -> &[HeaderName] {
        match self {
            Self::Fields(names) => names,
            Self::Nothing | Self::Whole => &[],
        }
    }
}

/// What a response says about caching (RFC 9111 §5.2.2, RFC 5861, RFC 8246).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ResponseDirectives {
    /// Nothing of it may be stored.
    pub no_store: bool,
    /// It, or the named fields, may not be reused without validation.
    pub no_cache: Reach,
    /// It, or the named fields, are for one user.
    pub private: Reach,
    /// It may be stored although something else would forbid it.
    pub public: bool,
    /// Once stale, it may not be reused without validation.
    pub must_revalidate: bool,
    /// As `must_revalidate`, for shared caches, which we are.
    pub proxy_revalidate: bool,
    /// It may be stored only by who understands its status code.
    pub must_understand: bool,
    /// While fresh, it does not change (RFC 8246).
    pub immutable: bool,
    /// Content may not be transformed.
    pub no_transform: bool,
    /// The freshness lifetime.
    pub max_age: Option<Duration>,
    /// The freshness lifetime for shared caches.
    pub s_maxage: Option<Duration>,
    /// How long a stale response may be used while it is refreshed (RFC 5861 §3).
    pub stale_while_revalidate: Option<Duration>,
    /// How long a stale response may be used while the origin fails (RFC 5861 §4).
    pub stale_if_error: Option<Duration>,
}

impl ResponseDirectives {
    /// The directives that govern a response, and where they stand.
    pub fn governing(headers: &HeaderMap) -> (Self, Source) {
        for name in targeted_fields() {
            if let Some(directives) = targeted(headers, name) {
                return (directives, Source::Targeted);
            }
        }
        (Self::of_cache_control(headers), Source::CacheControl)
    }

    fn of_cache_control(headers: &HeaderMap) -> Self {
        let mut all = Self::default();
        for_each_directive(headers, |directive| all.take_in(directive));
        all
    }

    fn take_in(&mut self, directive: &Directive<'_>) {
        match directive.known() {
            // Restrictions count whatever stands around them.
            b"no-store" => self.no_store = true,
            b"no-cache" => self.no_cache.widen(directive.reach()),
            b"private" => self.private.widen(directive.reach()),
            b"must-revalidate" => self.must_revalidate = true,
            b"proxy-revalidate" => self.proxy_revalidate = true,
            b"no-transform" => self.no_transform = true,
            // Lifetimes: malformed is zero.
            b"max-age" => first(&mut self.max_age, directive.seconds()),
            b"s-maxage" => first(&mut self.s_maxage, directive.seconds()),
            b"stale-while-revalidate" => {
                first(&mut self.stale_while_revalidate, directive.seconds());
            }
            b"stale-if-error" => first(&mut self.stale_if_error, directive.seconds()),
            // Permissions count only where they stand alone.
            b"public" => self.public |= directive.alone,
            b"immutable" => self.immutable |= directive.alone,
            // It lifts `no-store` for known codes, so it is a permission.
            b"must-understand" => self.must_understand |= directive.alone,
            _ => {}
        }
    }

    fn take_in_member(&mut self, key: &str, value: &Value) -> Option<()> {
        let seconds = || match value {
            Value::Integer(seconds) => Some(
                u64::try_from(*seconds).map_or(Duration::ZERO, Duration::from_secs).min(LONGEST),
            ),
            Value::Boolean(_)
            | Value::Text(_)
            | Value::Token(_)
            | Value::List(_)
            | Value::Other => None,
        };
        // A restriction with a value of the wrong type still restricts; only `?0` takes it back.
        let said = *value != Value::Boolean(false);
        match key {
            "no-store" => self.no_store = said,
            "no-cache" => self.no_cache = reach_of(value),
            "private" => self.private = reach_of(value),
            "must-revalidate" => self.must_revalidate = said,
            "proxy-revalidate" => self.proxy_revalidate = said,
            "no-transform" => self.no_transform = said,
            "must-understand" => self.must_understand = *value == Value::Boolean(true),
            "public" => self.public = *value == Value::Boolean(true),
            "immutable" => self.immutable = *value == Value::Boolean(true),
            "max-age" => self.max_age = Some(seconds()?),
            "s-maxage" => self.s_maxage = Some(seconds()?),
            "stale-while-revalidate" => self.stale_while_revalidate = Some(seconds()?),
            "stale-if-error" => self.stale_if_error = Some(seconds()?),
            _ => {}
        }
        Some(())
    }
}

/// A targeted field, if it is there, not empty, a valid dictionary, and its lifetimes are integers.
fn targeted(headers: &HeaderMap, name: &HeaderName) -> Option<ResponseDirectives> {
    let mut text = Vec::new();
    for (at, line) in headers.get_all(name).iter().enumerate() {
        if at > 0 {
            text.extend_from_slice(b", ");
        }
        text.extend_from_slice(line.as_bytes());
    }
    let members = dictionary::parse(&text)?;
    if members.is_empty() {
        return None;
    }
    let mut directives = ResponseDirectives::default();
    for (key, value) in &members {
        directives.take_in_member(key, value)?;
    }
    Some(directives)
}

fn reach_of(value: &Value) -> Reach {
    match value {
        Value::Boolean(false) => Reach::Nothing,
        Value::Text(names) | Value::Token(names) => field_names(names.as_bytes()),
        Value::Boolean(true) | Value::Integer(_) | Value::List(_) | Value::Other => Reach::Whole,
    }
}

/// Field names in a directive's argument. One that is none, or none at all, means everything: the
/// origin wanted something protected, and we cannot say what.
fn field_names(argument: &[u8]) -> Reach {
    let mut names = Vec::new();
    for name in fields::members(argument).filter(|name| !name.is_empty()) {
        match HeaderName::from_bytes(name) {
            Ok(name) => names.push(name),
            Err(_) => return Reach::Whole,
        }
    }
    if names.is_empty() { Reach::Whole } else { Reach::Fields(names) }
}

/// What a request asks of caches (RFC 9111 §5.2.1), as far as the route lets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RequestDirectives {
    /// Nothing stored may be used without validation; also said by `Pragma: no-cache` where there is
    /// no Cache-Control (§5.4).
    pub no_cache: bool,
    /// Nothing of the answer may be stored.
    pub no_store: bool,
    /// The origin may not be asked.
    pub only_if_cached: bool,
    /// The greatest acceptable age.
    pub max_age: Option<Duration>,
    /// By how much a response may be stale; [`LONGEST`] when no bound was given.
    pub max_stale: Option<Duration>,
    /// For how long the response must still be fresh.
    pub min_fresh: Option<Duration>,
    /// How long a stale response may be used while the origin fails (RFC 5861 §4).
    pub stale_if_error: Option<Duration>,
}

impl RequestDirectives {
    /// What a request says, cut down to what the route lets it say.
    pub fn of(headers: &HeaderMap, allowed: ClientDirectives) -> Self {
        let all = match allowed {
            ClientDirectives::Ignore => return Self::default(),
            ClientDirectives::Limited | ClientDirectives::Honour => Self::all(headers),
        };
        match allowed {
            ClientDirectives::Honour => all,
            ClientDirectives::Limited | ClientDirectives::Ignore => Self {
                no_store: all.no_store,
                only_if_cached: all.only_if_cached,
                ..Self::default()
            },
        }
    }

    fn all(headers: &HeaderMap) -> Self {
        let mut all = Self::default();
        for_each_directive(headers, |directive| all.take_in(directive));
        if !headers.contains_key(header::CACHE_CONTROL) {
            let lines = headers.get_all(header::PRAGMA).iter();
            all.no_cache = lines
                .flat_map(|line| fields::members(line.as_bytes()))
                .any(|member| member.eq_ignore_ascii_case(b"no-cache"));
        }
        all
    }

    fn take_in(&mut self, directive: &Directive<'_>) {
        match directive.known() {
            b"no-cache" => self.no_cache = true,
            b"no-store" => self.no_store = true,
            b"only-if-cached" => self.only_if_cached = true,
            b"max-age" => first(&mut self.max_age, directive.seconds()),
            // Malformed, this one asks for more than can be had: the strict reading is validation.
            b"min-fresh" => {
                first(&mut self.min_fresh, directive.well_formed_seconds().unwrap_or(LONGEST));
            }
            b"max-stale" if directive.argument.is_none() && directive.alone => {
                first(&mut self.max_stale, LONGEST);
            }
            b"max-stale" => first(&mut self.max_stale, directive.seconds()),
            b"stale-if-error" => first(&mut self.stale_if_error, directive.seconds()),
            _ => {}
        }
    }
}

fn first(slot: &mut Option<Duration>, value: Duration) {
    slot.get_or_insert(value);
}

/// One directive of a Cache-Control line.
struct Directive<'a> {
    /// In lower case, in the first `length` bytes; names longer than any known one are cut.
    name: [u8; LONGEST_NAME],
    length: usize,
    argument: Option<&'a [u8]>,
    /// Whether it is all of its list member, as the grammar has it.
    alone: bool,
}

/// One byte more than `stale-while-revalidate`, so that nothing longer is taken for it.
const LONGEST_NAME: usize = 23;

impl<'a> Directive<'a> {
    fn of(word: &'a [u8], alone: bool) -> Self {
        let equals = word.iter().position(|&b| b == b'=');
        let written = &word[..equals.unwrap_or(word.len())];
        let mut name = [0; LONGEST_NAME];
        let length = written.len().min(LONGEST_NAME);
        name[..length].copy_from_slice(&written[..length]);
        name.make_ascii_lowercase();
        let argument = equals.map(|at| &word[at + 1..]);
        Self { name, length, argument, alone }
    }

    fn known(&self) -> &[u8] {
        &self.name[..self.length]
    }

    fn seconds(&self) -> Duration {
        self.well_formed_seconds().unwrap_or_default()
    }

    fn well_formed_seconds(&self) -> Option<Duration> {
        let argument = self.argument.filter(|_| self.alone)?;
        match argument {
            [b'"', inner @ .., b'"'] => delta_seconds(inner),
            bare => delta_seconds(bare),
        }
    }

    fn reach(&self) -> Reach {
        match self.argument {
            Some(argument) if self.alone => {
                fields::unquote(argument).map_or(Reach::Whole, |names| field_names(&names))
            }
            _ => Reach::Whole,
        }
    }
}

/// Seconds in decimal digits; more than can be counted is [`LONGEST`] (RFC 9111 §1.2.2). `None` for
/// anything else, a sign included.
pub fn delta_seconds(text: &[u8]) -> Option<Duration> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let seconds = text
        .iter()
        .fold(0_u64, |sum, digit| sum.saturating_mul(10).saturating_add(u64::from(digit - b'0')));
    Some(Duration::from_secs(seconds).min(LONGEST))
}

/// Walks all directives of all Cache-Control lines. A member of several words, such as
/// `max-age =60` or `no-store; private`, breaks the grammar: its words are shown one by one, marked. So are those within a
/// quoted string that is never closed.
fn for_each_directive(headers: &HeaderMap, mut visit: impl FnMut(&Directive<'_>)) {
    for line in headers.get_all(header::CACHE_CONTROL) {
        for member in fields::members(line.as_bytes()) {
            let alone = fields::words(member).nth(1).is_none();
            for word in fields::words(member) {
                visit(&Directive::of(word, alone));
            }
        }
        // A quoted string that is never closed may have swallowed a restriction.
        for word in fields::unclosed(line.as_bytes()) {
            visit(&Directive::of(word, false));
        }
    }
}

#[cfg(test)]
#[path = "directives_tests.rs"]
mod tests;
