//! Conditions on scheme, method, header, query, cookie and certificate.

pub(crate) mod pairs;

use std::borrow::Cow;
use std::fmt;

use http::HeaderName;
use http::Method;
use regex::Regex;

use crate::message::secret;
use crate::message::target::Scheme;
use crate::route::Ask;
use crate::route::client;
use crate::route::client::ClientMatch;
use crate::route::client::Presence;
use crate::route::expression;

/// Conditions that must all hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Predicates {
    /// The scheme by which the request came; `None` is either.
    pub scheme: Option<Scheme>,
    /// The methods; empty is every method. GET includes HEAD.
    pub methods: Vec<Method>,
    /// Conditions on request fields.
    pub headers: Vec<(HeaderName, ValueMatch)>,
    /// Conditions on query parameters.
    pub queries: Vec<(String, ValueMatch)>,
    /// Conditions on cookies.
    pub cookies: Vec<(String, ValueMatch)>,
    /// Conditions on the certificate that the client showed.
    pub client: ClientMatch,
}

/// A condition on one value.
#[derive(Debug, Clone)]
pub enum ValueMatch {
    /// There is one.
    Present,
    /// There is none.
    Absent,
    /// One of the values is exactly this.
    Exact(String),
    /// One of the values starts with this.
    Prefix(String),
    /// One of the values matches as a whole. Built by [`ValueMatch::regex`], which anchors it.
    Regex(Regex),
}

impl PartialEq for ValueMatch {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Present, Self::Present) | (Self::Absent, Self::Absent) => true,
            (Self::Exact(one), Self::Exact(other)) | (Self::Prefix(one), Self::Prefix(other)) => {
                one == other
            }
            (Self::Regex(one), Self::Regex(other)) => one.as_str() == other.as_str(),
            (
                Self::Present | Self::Absent | Self::Exact(_) | Self::Prefix(_) | Self::Regex(_),
                _,
            ) => false,
        }
    }
}

impl Eq for ValueMatch {}

/// The first condition that a request does not meet.
#[derive(Debug, Clone, Copy)]
pub enum Unmet<'p> {
    /// The client did not use this scheme.
    Scheme(Scheme),
    /// The method is not one of these.
    Method(&'p [Method]),
    /// The condition on this request field.
    Header(&'p HeaderName, &'p ValueMatch),
    /// The condition on this query parameter.
    Query(&'p str, &'p ValueMatch),
    /// The condition on this cookie.
    Cookie(&'p str, &'p ValueMatch),
    /// The condition on the client's certificate.
    Client(client::Unmet<'p>),
}

impl Predicates {
    /// Whether a request meets every condition. A field, parameter or cookie that occurs several
    /// times meets a condition with any one of its values.
    ///
    /// # Errors
    /// The first condition that it does not meet.
    pub fn holds(&self, ask: &Ask<'_>) -> Result<(), Unmet<'_>> {
        if !self.admits(ask.method) {
            return Err(Unmet::Method(&self.methods));
        }
        self.holds_but_for_method(ask)
    }

    /// How many conditions there are; the methods together are one.
    #[must_use]
    pub fn conditions(&self) -> usize {
        usize::from(!self.methods.is_empty())
            .saturating_add(usize::from(self.scheme.is_some()))
            .saturating_add(self.headers.len())
            .saturating_add(self.queries.len())
            .saturating_add(self.cookies.len())
            .saturating_add(self.client.conditions())
    }

    /// Whether the method is one of ours.
    pub(in crate::route) fn admits(&self, method: &Method) -> bool {
        self.methods.is_empty()
            || self.methods.contains(method)
            || (method == Method::HEAD && self.methods.contains(&Method::GET))
    }

    pub(in crate::route) fn holds_but_for_method(&self, ask: &Ask<'_>) -> Result<(), Unmet<'_>> {
        if let Some(scheme) = self.scheme
            && scheme != ask.scheme
        {
            return Err(Unmet::Scheme(scheme));
        }
        for (name, wanted) in &self.headers {
            let values = ask.headers.get_all(name).iter();
            if !wanted.meets(values.map(|value| Cow::Borrowed(value.as_bytes()))) {
                return Err(Unmet::Header(name, wanted));
            }
        }
        for (name, wanted) in &self.queries {
            if !wanted.meets(pairs::parameters(ask.query, name)) {
                return Err(Unmet::Query(name, wanted));
            }
        }
        for (name, wanted) in &self.cookies {
            if !wanted.meets(pairs::cookies(ask.headers, name)) {
                return Err(Unmet::Cookie(name, wanted));
            }
        }
        self.client.holds(ask.client).map_err(Unmet::Client)
    }

    /// Whether every request that meets `other` is sure to meet these conditions too: they are among
    /// the other's. (False may also mean: not known.)
    pub(in crate::route) fn cover(&self, other: &Self) -> bool {
        let methods = self.methods.is_empty()
            || (!other.methods.is_empty()
                && other.methods.iter().all(|method| self.admits(method)));
        let scheme = self.scheme.is_none() || self.scheme == other.scheme;
        methods
            && scheme
            && among(&self.headers, &other.headers)
            && among(&self.queries, &other.queries)
            && among(&self.cookies, &other.cookies)
            && self.client.cover(&other.client)
    }
}

fn among<Name: PartialEq>(few: &[(Name, ValueMatch)], many: &[(Name, ValueMatch)]) -> bool {
    few.iter().all(|(name, wanted)| many.iter().any(|(n, w)| n == name && w.is_same(wanted)))
}

impl ValueMatch {
    /// Compiles a regular expression, anchored at both ends and bounded in size.
    ///
    /// # Errors
    /// What the expression's parser says.
    pub fn regex(text: &str) -> Result<Self, String> {
        expression::anchored(text).map(Self::Regex)
    }

    pub(in crate::route) fn meets<'v>(
        &self,
        mut values: impl Iterator<Item = Cow<'v, [u8]>>,
    ) -> bool {
        match self {
            Self::Present => values.next().is_some(),
            Self::Absent => values.next().is_none(),
            Self::Exact(wanted) => values.any(|value| *value == *wanted.as_bytes()),
            Self::Prefix(wanted) => values.any(|value| value.starts_with(wanted.as_bytes())),
            Self::Regex(regex) => values
                .any(|value| std::str::from_utf8(&value).is_ok_and(|text| regex.is_match(text))),
        }
    }

    fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Present, Self::Present) | (Self::Absent, Self::Absent) => true,
            (Self::Exact(a), Self::Exact(b)) | (Self::Prefix(a), Self::Prefix(b)) => a == b,
            (Self::Regex(a), Self::Regex(b)) => a.as_str() == b.as_str(),
            (
                Self::Present | Self::Absent | Self::Exact(_) | Self::Prefix(_) | Self::Regex(_),
                _,
            ) => false,
        }
    }
}

impl ValueMatch {
    /// Says what a value must do, with its texts as `shown` has them: some are secrets.
    fn say<'s>(
        &'s self,
        f: &mut fmt::Formatter<'_>,
        shown: impl Fn(&'s str) -> &'s str,
    ) -> fmt::Result {
        match self {
            Self::Present => f.write_str("be present"),
            Self::Absent => f.write_str("be absent"),
            Self::Exact(text) => write!(f, "be {:?}", shown(text)),
            Self::Prefix(text) => write!(f, "begin with {:?}", shown(text)),
            Self::Regex(regex) => {
                let text = regex.as_str();
                let inner = text.strip_prefix(r"\A(?:").and_then(|text| text.strip_suffix(r")\z"));
                write!(f, "match `{}`", shown(inner.unwrap_or(text)))
            }
        }
    }
}

impl fmt::Display for Unmet<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scheme(scheme) => write!(f, "the scheme must be {scheme}"),
            Self::Method(methods) => {
                f.write_str("the method must be ")?;
                for (at, method) in methods.iter().enumerate() {
                    write!(f, "{}{method}", if at == 0 { "" } else { " or " })?;
                }
                Ok(())
            }
            Self::Header(name, wanted) => {
                write!(f, "the field `{name}` must ")?;
                wanted.say(f, |text| secret::of_field(name.as_str(), text))
            }
            Self::Query(name, wanted) => {
                write!(f, "the query parameter `{name}` must ")?;
                wanted.say(f, |text| secret::of_name(name, text))
            }
            Self::Cookie(name, wanted) => {
                write!(f, "the cookie `{name}` must ")?;
                wanted.say(f, |text| secret::of_name(name, text))
            }
            Self::Client(client::Unmet::Presence(Presence::Shown)) => {
                f.write_str("the client must show a certificate")
            }
            Self::Client(client::Unmet::Presence(Presence::Missing)) => {
                f.write_str("the client must show no certificate")
            }
            Self::Client(client::Unmet::Subject(wanted)) => {
                f.write_str("the subject of the client's certificate must ")?;
                wanted.say(f, |text| text)
            }
            Self::Client(client::Unmet::Name(wanted)) => {
                f.write_str("a name of the client's certificate must ")?;
                wanted.say(f, |text| text)
            }
            Self::Client(client::Unmet::Fingerprint) => {
                f.write_str("the client's certificate must be one of those listed")
            }
        }
    }
}

#[cfg(test)]
mod tests;
