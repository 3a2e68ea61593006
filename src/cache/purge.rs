//! What a purge asks for, and which stored responses that concerns.
//!
//! Whoever purges says it as text (a [`Wish`]): URLs, prefixes, hosts, names. It is read into the
//! normal form that requests are brought into, so that what is purged is what was asked for.

use std::fmt;

use http::HeaderMap;
use serde::Deserialize;
use serde::Serialize;

use crate::cache::groups;
use crate::cache::key::Asked;
use crate::cache::key::default_port;
use crate::cache::surrogate;
use crate::message::target::Authority;
use crate::message::target::Normalisation;
use crate::message::target::Scheme;
use crate::message::target::Target;

/// How much one purge may name.
pub const MOST: usize = 256;
/// What the zone of the store without a name is called where it has to have one.
pub const DEFAULT_ZONE: &str = "default";
/// The longest path of a prefix, in bytes.
const LONGEST_PREFIX: usize = 1024;

/// A purge as it is asked for: everything that any of the lists names.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Wish {
    /// URLs, with all their variants: `https://www.example.org/a?b`. Without a scheme, both.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "one_or_many")]
    pub url: Vec<String>,
    /// URLs with all that is below them: `https://www.example.org/blog`. Without a scheme, both.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "one_or_many")]
    pub prefix: Vec<String>,
    /// Hosts, on every port.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "one_or_many")]
    pub host: Vec<String>,
    /// Names of routes: what they stored.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "one_or_many")]
    pub route: Vec<String>,
    /// Names of upstreams: what came from them.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "one_or_many")]
    pub upstream: Vec<String>,
    /// Names of zones of the store: what is in them. `default` is the one of all that name none.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "one_or_many")]
    pub zone: Vec<String>,
    /// Surrogate keys.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "one_or_many")]
    pub tag: Vec<String>,
    /// Everything there is.
    #[serde(skip_serializing_if = "is_false")]
    pub everything: bool,
    /// Whether it stays as stale: usable while it is confirmed, and where the origin fails.
    #[serde(skip_serializing_if = "is_false")]
    pub soft: bool,
    /// Whether to count only, and change nothing.
    #[serde(skip_serializing_if = "is_false")]
    pub dry_run: bool,
    /// Whether to count everything that is concerned, however long that takes.
    #[serde(skip_serializing_if = "is_false")]
    pub count: bool,
}

/// A purge as it is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// What is purged; never empty.
    pub scopes: Vec<Scope>,
    /// How it is purged.
    pub manner: Manner,
    /// What comes of it.
    pub effect: Effect,
    /// How far it is counted.
    pub count: Count,
}

/// What happens to the stored responses that a purge concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Manner {
    /// They are gone.
    Hard,
    /// They are stale from now on, and serve within their windows.
    Soft,
}

/// Whether a purge does anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Effect {
    /// It does.
    Purge,
    /// It only says what it would concern.
    DryRun,
}

/// How far the responses that a purge concerns are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Count {
    /// As far as one look goes, whose length does not depend on how much is stored.
    Glance,
    /// All.
    All,
}

/// One thing that is purged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// All variants of a URL, under every key it may have.
    Url(Url),
    /// Any number of URLs.
    Many(Many),
}

/// A URL whose stored responses are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    /// `None`: plain and secure ones.
    pub scheme: Option<Scheme>,
    /// Host and port.
    pub authority: Authority,
    /// Path and query.
    pub target: Target,
}

/// Any number of stored responses, by what they have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Many {
    /// Their URL.
    Prefix(Prefix),
    /// Their host, in normal form.
    Host(String),
    /// The route that stored them.
    Route(String),
    /// The upstream they came from.
    Upstream(String),
    /// The zone they are in; empty for the one without a name.
    Zone(String),
    /// A name that their origin gave them.
    SurrogateKey(String),
    /// A group of an origin (RFC 9875); what an answer invalidates, not what anybody asks for.
    Group(Group),
    /// That they are stored.
    Everything,
}

/// Responses of one origin that have a group in common (RFC 9875 §2.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// The origin's scheme.
    pub scheme: Scheme,
    /// The origin's host, in normal form.
    pub host: String,
    /// The origin's port, unless it is the scheme's own.
    pub port: Option<u16>,
    /// The group's name.
    pub name: String,
}

/// A path on a host, and all that is below it at segment boundaries, with any query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prefix {
    /// `None`: plain and secure ones.
    pub scheme: Option<Scheme>,
    /// Host and port.
    pub authority: Authority,
    /// The path, which begins with a slash.
    pub path: String,
}

/// What is stored, as far as purges tell it apart.
#[derive(Debug, Clone)]
pub struct Subject<'a> {
    /// What its key says.
    pub asked: Asked<'a>,
    /// The route that stored it, if that is known.
    pub route: Option<&'a str>,
    /// The stored fields, as far as they hold surrogate keys and groups.
    pub headers: HeaderMap,
}

/// Why a wish cannot be granted, in a sentence that says what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unclear(pub String);

impl fmt::Display for Unclear {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Wish {
    /// What it means, paths being brought into their normal form in this way.
    ///
    /// # Errors
    /// The first part that cannot be read.
    pub fn order(&self, how: &Normalisation) -> Result<Order, Unclear> {
        let mut scopes = Vec::new();
        for text in &self.url {
            scopes.push(Scope::Url(Url::parse(text, how)?));
        }
        for text in &self.prefix {
            scopes.push(Scope::Many(Many::Prefix(Prefix::parse(text, how)?)));
        }
        for text in &self.host {
            scopes.push(Scope::Many(Many::Host(host(text)?)));
        }
        for (what, list, scope) in [
            ("route", &self.route, Many::Route as fn(String) -> Many),
            ("upstream", &self.upstream, Many::Upstream),
            ("zone", &self.zone, zone),
        ] {
            for name in list {
                if name.is_empty() {
                    return Err(Unclear(format!("the {what} has no name")));
                }
                scopes.push(Scope::Many(scope(name.clone())));
            }
        }
        for text in &self.tag {
            scopes.push(Scope::Many(Many::SurrogateKey(surrogate_key(text)?)));
        }
        if self.everything {
            scopes.push(Scope::Many(Many::Everything));
        }
        if scopes.is_empty() {
            return Err(Unclear(
                "nothing is named: say a url, prefix, host, route, upstream, zone or tag, or everything"
                    .to_owned(),
            ));
        }
        if scopes.len() > MOST {
            return Err(Unclear(format!(
                "{} things are named, {MOST} are the most: purge in several steps",
                scopes.len()
            )));
        }
        Ok(Order {
            scopes,
            manner: if self.soft { Manner::Soft } else { Manner::Hard },
            effect: if self.dry_run { Effect::DryRun } else { Effect::Purge },
            count: if self.count || self.dry_run { Count::All } else { Count::Glance },
        })
    }
}

impl Scope {
    /// Its kind, in logs and metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Url(_) => "url",
            Self::Many(Many::Prefix(_)) => "prefix",
            Self::Many(Many::Host(_)) => "host",
            Self::Many(Many::Route(_)) => "route",
            Self::Many(Many::Upstream(_)) => "upstream",
            Self::Many(Many::Zone(_)) => "zone",
            Self::Many(Many::SurrogateKey(_)) => "tag",
            Self::Many(Many::Group(_)) => "group",
            Self::Many(Many::Everything) => "everything",
        }
    }

    /// Which one of its kind; empty for everything.
    pub fn value(&self) -> String {
        match self {
            Self::Url(url) => {
                format!("{}//{}{}", before(url.scheme), url.authority, url.target)
            }
            Self::Many(Many::Prefix(prefix)) => {
                format!("{}//{}{}", before(prefix.scheme), prefix.authority, prefix.path)
            }
            Self::Many(
                Many::Host(name)
                | Many::Route(name)
                | Many::Upstream(name)
                | Many::SurrogateKey(name),
            ) => name.clone(),
            Self::Many(Many::Zone(name)) if name.is_empty() => DEFAULT_ZONE.to_owned(),
            Self::Many(Many::Zone(name)) => name.clone(),
            Self::Many(Many::Group(group)) => group.name.clone(),
            Self::Many(Many::Everything) => String::new(),
        }
    }
}

fn before(scheme: Option<Scheme>) -> &'static str {
    match scheme {
        None => "",
        Some(Scheme::Http) => "http:",
        Some(Scheme::Https) => "https:",
    }
}

impl Manner {
    /// The word in logs and metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Hard => "hard",
            Self::Soft => "soft",
        }
    }
}

impl Url {
    /// Reads `https://host:port/path?query`; `host/path` and `//host/path` are of both schemes.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str, how: &Normalisation) -> Result<Self, Unclear> {
        let (scheme, authority, target) = split(text, how)?;
        Ok(Self { scheme, authority, target })
    }

    /// The schemes that are meant.
    pub fn schemes(&self) -> &'static [Scheme] {
        match self.scheme {
            None => &[Scheme::Http, Scheme::Https],
            Some(Scheme::Http) => &[Scheme::Http],
            Some(Scheme::Https) => &[Scheme::Https],
        }
    }
}

impl Prefix {
    /// Reads what [`Url::parse`] reads, without a query.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str, how: &Normalisation) -> Result<Self, Unclear> {
        let (scheme, authority, target) = split(text, how)?;
        if target.query().is_some() {
            return Err(Unclear(format!(
                "\"{text}\": a prefix ends before the query, since it concerns every query"
            )));
        }
        if target.path().len() > LONGEST_PREFIX {
            return Err(Unclear(format!(
                "the path of a prefix has {LONGEST_PREFIX} bytes at most: name a shorter one"
            )));
        }
        Ok(Self { scheme, authority, path: target.path().to_owned() })
    }

    /// Whether it concerns what was asked for.
    pub fn covers(&self, asked: &Asked<'_>) -> bool {
        let below = asked.path.strip_prefix(self.path.as_bytes()).is_some_and(|rest| {
            self.path.ends_with('/') || rest.is_empty() || rest.starts_with(b"/")
        });
        let scheme = self.scheme.is_none_or(|scheme| scheme.as_str().as_bytes() == asked.scheme);
        let default = std::str::from_utf8(asked.scheme).ok().and_then(default_port);
        let port = self.authority.port().filter(|port| Some(*port) != default);
        below && scheme && port == asked.port && self.authority.host().as_bytes() == asked.host
    }
}

impl Group {
    /// The group of this name, of the origin of a URL with this authority.
    pub fn new(scheme: Scheme, authority: &Authority, name: String) -> Self {
        let default = default_port(scheme.as_str());
        Self {
            scheme,
            host: authority.host().to_owned(),
            port: authority.port().filter(|port| Some(*port) != default),
            name,
        }
    }

    /// Whether it is of the origin of what was asked for.
    fn is_of(&self, asked: &Asked<'_>) -> bool {
        self.scheme.as_str().as_bytes() == asked.scheme
            && self.host.as_bytes() == asked.host
            && self.port == asked.port
    }
}

impl Many {
    /// Whether it concerns this.
    pub fn concerns(&self, subject: &Subject<'_>) -> bool {
        match self {
            Self::Prefix(prefix) => prefix.covers(&subject.asked),
            Self::Host(host) => host.as_bytes() == subject.asked.host,
            Self::Route(name) => subject.route == Some(name),
            Self::Upstream(name) => name.as_bytes() == subject.asked.upstream(),
            Self::Zone(name) => name.as_bytes() == subject.asked.zone(),
            Self::SurrogateKey(key) => surrogate::has(&subject.headers, key.as_bytes()),
            Self::Group(group) => {
                group.is_of(&subject.asked) && groups::belongs(&subject.headers, &group.name)
            }
            Self::Everything => true,
        }
    }
}

fn split(text: &str, how: &Normalisation) -> Result<(Option<Scheme>, Authority, Target), Unclear> {
    let (scheme, rest) = match text.split_once("://") {
        // A URL may also stand in a query.
        Some((scheme, rest)) if !scheme.contains(['/', '?', '#']) => {
            let scheme = Scheme::parse(scheme.as_bytes()).ok_or_else(|| {
                Unclear(format!("\"{text}\": the scheme is `http` or `https`, or left out"))
            })?;
            (Some(scheme), rest)
        }
        _ => (None, text.strip_prefix("//").unwrap_or(text)),
    };
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let authority = Authority::parse(authority.as_bytes()).map_err(|_| {
        Unclear(format!("\"{text}\" names no host: write `https://www.example.org/path`"))
    })?;
    if path.contains('#') {
        return Err(Unclear(format!("\"{text}\": what follows a `#` is never sent; leave it out")));
    }
    let slash = if path.starts_with('/') { "" } else { "/" };
    let target = Target::normalise(format!("{slash}{path}").as_bytes(), how)
        .map_err(|_| Unclear(format!("\"{text}\" is no URL that any request could ask for")))?;
    Ok((scheme, authority, target))
}

/// The zone of this name, which may be what the one without a name is called.
fn zone(name: String) -> Many {
    Many::Zone(if name == DEFAULT_ZONE { String::new() } else { name })
}

fn host(text: &str) -> Result<String, Unclear> {
    let wrong = || {
        Unclear(format!("\"{text}\" is not the name of a host: write `www.example.org`, no port"))
    };
    let authority = Authority::parse(text.as_bytes()).map_err(|_| wrong())?;
    if authority.port().is_some() {
        return Err(wrong());
    }
    Ok(authority.host().to_owned())
}

fn surrogate_key(text: &str) -> Result<String, Unclear> {
    if text.is_empty() || text.len() > surrogate::LONGEST {
        let longest = surrogate::LONGEST;
        return Err(Unclear(format!("a tag has 1 to {longest} bytes, this one {}", text.len())));
    }
    if text.trim() != text || text.chars().any(char::is_control) {
        return Err(Unclear(format!(
            "\"{}\": a tag has no white space around it and no control characters",
            text.escape_debug()
        )));
    }
    Ok(text.to_owned())
}

fn is_false(value: &bool) -> bool {
    !value
}

/// A text, or a list of texts.
fn one_or_many<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "a text, or a list of texts")]
    enum Written {
        One(String),
        Many(Vec<String>),
    }
    Ok(match Written::deserialize(from)? {
        Written::One(one) => vec![one],
        Written::Many(many) => many,
    })
}

#[cfg(test)]
#[path = "purge_tests.rs"]
mod tests;
