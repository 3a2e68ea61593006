//! What is asked for, as bytes: the cache key (RFC 9111 §2).
//!
//! Every component is written with its length before it and every list with its count, in one fixed
//! order; so two different requests can only share a key when the route's rules say that their
//! difference does not count. The method is no component: GET and HEAD ask for the same thing.

use std::borrow::Cow;

use http::HeaderMap;
use http::header;

use crate::cache::KeyRules;
use crate::cache::QueryRule;
use crate::cache::Ranges;
use crate::cache::fields::push;
use crate::cache::fields::push_number;
use crate::cache::fields::take_number;
use crate::cache::fields::trim;
use crate::cache::search::Variance;
use crate::cache::slice::Piece;
use crate::message::range::Spec;

/// What is asked for, in the normal form that routing and the origin see too.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// Keeps apart what shares a URI but not an origin: the name of the route or of the upstream.
    /// Empty when there is only one.
    pub space: &'a str,
    /// `http` or `https`.
    pub scheme: &'a str,
    /// The host without a port, in any case.
    pub host: &'a str,
    /// The port, if it was said; the scheme's default counts as not said.
    pub port: Option<u16>,
    /// The path, as the origin will see it.
    pub path: &'a str,
    /// The query without `?`; an empty one is not the same as none.
    pub query: Option<&'a str>,
}

/// A cache key. Equal bytes mean the same thing asked for, and only that.
///
/// It begins with the *resource*: all that a URL says of it. Where a route's rules take nothing of a
/// request but its URL, that is the whole key; otherwise one resource has as many keys as its
/// requests have values in the chosen fields and cookies.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    bytes: Vec<u8>,
    /// Where the resource ends.
    resource: usize,
}

/// Whether one resource can have several keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Parts {
    /// The resource is the whole key.
    One,
    /// Fields or cookies of the request are part of the key, or it is stored in pieces or by range.
    Many,
}

/// What a URL says of a cache key under a route's rules.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Resource {
    /// The front of every key of this resource, or the one key it has.
    pub bytes: Vec<u8>,
    /// Which of the two.
    pub parts: Parts,
}

impl Resource {
    /// The resource that a URL names under a route's rules, whatever else a request says.
    pub fn new(target: &Target<'_>, rules: &KeyRules) -> Self {
        Self { bytes: resource(target, rules), parts: parts(rules) }
    }

    /// The resource of all URLs that are equivalent to this one under a response's own rule, where a
    /// route heeds it. `number` is the rule's among all that were ever remembered.
    pub fn equivalents(
        target: &Target<'_>,
        rules: &KeyRules,
        (variance, number): (&Variance, u64),
    ) -> Self {
        let mut bytes = Vec::with_capacity(capacity(target));
        push_origin(&mut bytes, target, rules);
        push(&mut bytes, target.path.as_bytes());
        push_variance(&mut bytes, target.query, rules, variance, number);
        Self { bytes, parts: parts(rules) }
    }
}

/// The origin of a resource, as it begins its keys: of all that responses of one origin say about queries a
/// little is remembered.
pub fn origin(target: &Target<'_>, rules: &KeyRules) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(96 + target.host.len());
    push_origin(&mut bytes, target, rules);
    bytes
}

impl Key {
    /// The key of a request under a route's rules.
    pub fn new(target: &Target<'_>, headers: &HeaderMap, rules: &KeyRules) -> Self {
        Self::of(Resource::new(target, rules), headers, rules)
    }

    /// The key of a request for this resource.
    pub fn of(resource: Resource, headers: &HeaderMap, rules: &KeyRules) -> Self {
        let Resource { mut bytes, parts } = resource;
        let resource = bytes.len();
        match parts {
            Parts::One => {}
            Parts::Many => {
                push_headers(&mut bytes, headers, rules);
                push_cookies(&mut bytes, headers, rules);
            }
        }
        Self { bytes, resource }
    }

    /// The key of one piece of what this is the key of.
    #[must_use]
    pub fn piece(&self, piece: Piece) -> Self {
        let mut bytes = self.bytes.clone();
        push(&mut bytes, b"piece");
        bytes.extend_from_slice(&piece.size.to_be_bytes());
        bytes.extend_from_slice(&piece.index.to_be_bytes());
        Self { bytes, resource: self.resource }
    }

    /// The key of the answer to a request for this range of what this is the key of.
    #[must_use]
    pub fn range(&self, range: Spec) -> Self {
        let mut bytes = self.bytes.clone();
        push(&mut bytes, b"range");
        push(&mut bytes, range.to_string().as_bytes());
        Self { bytes, resource: self.resource }
    }

    /// The bytes, for hashing and for the store.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The bytes, owned.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// How many bytes at the front are the [`Resource`].
    pub fn resource_len(&self) -> usize {
        self.resource
    }
}

/// What a key says was asked for, its query aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked<'a> {
    /// See [`Target::space`].
    pub space: &'a [u8],
    /// `http` or `https`.
    pub scheme: &'a [u8],
    /// The host, in lower case.
    pub host: &'a [u8],
    /// The port, unless it is the scheme's default.
    pub port: Option<u16>,
    /// The path.
    pub path: &'a [u8],
}

impl<'a> Asked<'a> {
    /// Reads the bytes of a [`Key`]; `None` when they are none.
    pub fn of(key: &'a [u8]) -> Option<Self> {
        let mut rest = key;
        let mut next = || {
            let (length, behind) = take_number(rest)?;
            let (component, behind) = behind.split_at_checked(length)?;
            rest = behind;
            Some(component)
        };
        let (space, scheme, host) = (next()?, next()?, next()?);
        let port = match next()? {
            [] => None,
            port => Some(u16::from_be_bytes(port.try_into().ok()?)),
        };
        Some(Self { space, scheme, host, port, path: next()? })
    }

    /// The name of the upstream: the first line of a space, the zone aside; names have no line ends.
    pub fn upstream(&self) -> &'a [u8] {
        let (_, space) = zone_of(self.space);
        space.split(|byte| *byte == b'\n').next().unwrap_or(space)
    }

    /// The zone of the store that it belongs into; empty for the one without a name.
    pub fn zone(&self) -> &'a [u8] {
        zone_of(self.space).0
    }
}

/// Ends the name of a zone in front of a space; no name has it.
const ZONE_END: u8 = 0;

/// A space in this zone of the store.
#[must_use]
pub fn in_zone(zone: &str, space: &str) -> String {
    format!("{zone}{}{space}", char::from(ZONE_END))
}

/// The name of the zone in front of a space, and the space itself.
fn zone_of(space: &[u8]) -> (&[u8], &[u8]) {
    match space.iter().position(|byte| *byte == ZONE_END) {
        Some(end) => (&space[..end], &space[end + 1..]),
        None => (b"", space),
    }
}

/// The zone of the store that the bytes of a [`Key`] belong into; empty for the one without a name.
#[must_use]
pub fn zone(key: &[u8]) -> &[u8] {
    let space = take_number(key).and_then(|(length, rest)| rest.get(..length));
    zone_of(space.unwrap_or_default()).0
}

/// How much of a key is its resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// So many bytes at the front.
    Bytes(usize),
    /// It names a rule about queries by its number, which says something in this process alone.
    Numbered,
    /// These are not the bytes of a [`Key`].
    Unknown,
}

/// Reads how much of the bytes of a [`Key`] is its resource.
pub fn extent(key: &[u8]) -> Extent {
    let component = |rest| {
        let (length, behind) = take_number(rest)?;
        behind.get(length..)
    };
    let read = || {
        let origin = (0..4).try_fold(key, |rest, _| component(rest))?;
        let (kind, rest) = component(origin)?.split_first()?;
        let rest = match *kind {
            NO_QUERY | NO_PARAMETER_COUNTS => rest,
            WHOLE_QUERY => component(rest)?,
            CHOSEN_PARAMETERS => {
                let (count, rest) = take_number(rest.get(size_of::<u64>()..)?)?;
                // A count that lies runs out of bytes.
                (0..count).try_fold(rest, |rest, _| component(rest))?
            }
            WHAT_MATTERS | WHAT_MATTERS_OF_CHOSEN => return Some(Extent::Numbered),
            _ => return None,
        };
        Some(Extent::Bytes(key.len() - rest.len()))
    };
    read().unwrap_or(Extent::Unknown)
}

fn parts(rules: &KeyRules) -> Parts {
    let whole = rules.slice.is_none() && rules.ranges == Ranges::Whole;
    let one = whole && rules.headers.is_empty() && rules.cookies.is_empty();
    if one { Parts::One } else { Parts::Many }
}

fn resource(target: &Target<'_>, rules: &KeyRules) -> Vec<u8> {
    let mut key = Vec::with_capacity(capacity(target));
    push_origin(&mut key, target, rules);
    push(&mut key, target.path.as_bytes());
    push_query(&mut key, target.query, rules);
    key
}

fn capacity(target: &Target<'_>) -> usize {
    96 + target.host.len() + target.path.len() + target.query.map_or(0, str::len)
}

fn push_origin(key: &mut Vec<u8>, target: &Target<'_>, rules: &KeyRules) {
    push(key, target.space.as_bytes());
    push(key, target.scheme.as_bytes());
    push_lower(key, rules.host.as_deref().unwrap_or(target.host));
    push_port(key, target.scheme, target.port);
}

fn push_lower(key: &mut Vec<u8>, text: &str) {
    push(key, text.as_bytes());
    let start = key.len() - text.len();
    key[start..].make_ascii_lowercase();
}

fn push_port(key: &mut Vec<u8>, scheme: &str, port: Option<u16>) {
    let default = default_port(scheme);
    match port.filter(|port| Some(*port) != default) {
        Some(port) => push(key, &port.to_be_bytes()),
        None => push(key, b""),
    }
}

/// The port of a scheme when none is said.
pub(crate) fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    }
}

fn push_count(key: &mut Vec<u8>, count: usize) {
    push_number(key, count);
}

const NO_QUERY: u8 = 0;
const WHOLE_QUERY: u8 = 1;
const CHOSEN_PARAMETERS: u8 = 2;
const NO_PARAMETER_COUNTS: u8 = 5;
const WHAT_MATTERS: u8 = 3;
const WHAT_MATTERS_OF_CHOSEN: u8 = 4;

fn push_variance(
    key: &mut Vec<u8>,
    query: Option<&str>,
    rules: &KeyRules,
    variance: &Variance,
    number: u64,
) {
    if rules.query == QueryRule::All && !rules.sort_query {
        key.push(WHAT_MATTERS);
    } else {
        key.push(WHAT_MATTERS_OF_CHOSEN);
        push_choice(key, rules);
    }
    key.extend_from_slice(&number.to_be_bytes());
    let left = variance.left(counted(query.unwrap_or_default(), rules));
    push_count(key, left.len());
    for (name, value) in left {
        push(key, &name);
        push(key, &value);
    }
}

fn push_query(key: &mut Vec<u8>, query: Option<&str>, rules: &KeyRules) {
    if rules.query == QueryRule::None {
        return key.push(NO_PARAMETER_COUNTS);
    }
    let Some(query) = query else { return key.push(NO_QUERY) };
    if rules.query == QueryRule::All && !rules.sort_query {
        key.push(WHOLE_QUERY);
        return push(key, query.as_bytes());
    }
    let chosen = counted(query, rules);
    key.push(CHOSEN_PARAMETERS);
    push_choice(key, rules);
    push_count(key, chosen.len());
    for parameter in chosen {
        push(key, parameter.as_bytes());
    }
}

/// By which rules parameters were chosen: what is left of a query says nothing of what is not. Another
/// route to the same upstream, or the same one after the configuration was changed, may choose others.
fn push_choice(key: &mut Vec<u8>, rules: &KeyRules) {
    let (kind, names): (u8, &[String]) = match &rules.query {
        QueryRule::All => (0, &[]),
        QueryRule::None => (1, &[]),
        QueryRule::Only(names) => (2, names),
        QueryRule::Except(names) => (3, names),
    };
    // FNV-1a: the names are the operator's, and nobody looks for two that meet.
    let mut sum = 0xcbf2_9ce4_8422_2325_u64;
    let mut add = |byte: u8| {
        sum = (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    };
    add(kind);
    add(u8::from(rules.sort_query));
    for name in names {
        name.bytes().for_each(&mut add);
        // No name has this byte.
        add(0xff);
    }
    key.extend_from_slice(&sum.to_be_bytes());
}

/// The parameters of a query that are part of the key, in the order in which they are.
pub fn counted<'q>(query: &'q str, rules: &KeyRules) -> Vec<&'q str> {
    let mut chosen: Vec<&str> = query.split('&').filter(|p| counts(p, &rules.query)).collect();
    if rules.sort_query {
        // A stable sort: the order among parameters of one name is the application's business.
        chosen.sort_by(|a, b| name(a).cmp(name(b)));
    }
    chosen
}

/// Whether a parameter is part of the key. Names are compared as the origin will read them, decoded:
/// otherwise `%61=1` would reach it as `a` without being in the key. Some origins also separate at
/// semicolons; a parameter with one may hold any name, so it always counts.
fn counts(parameter: &str, rule: &QueryRule) -> bool {
    let listed = |names: &[String]| {
        let name = decode(name(parameter));
        names.iter().any(|listed| listed.as_bytes() == &*name)
    };
    match rule {
        QueryRule::All => true,
        QueryRule::None => false,
        QueryRule::Only(names) => parameter.contains(';') || listed(names),
        QueryRule::Except(names) => parameter.contains(';') || !listed(names),
    }
}

fn name(parameter: &str) -> &str {
    parameter.split_once('=').map_or(parameter, |(name, _)| name)
}

/// Percent-decoding as forms do it, `+` for a space included; a broken escape stands for itself.
pub(super) fn decode(text: &str) -> Cow<'_, [u8]> {
    let text = text.as_bytes();
    if !text.iter().any(|b| matches!(b, b'%' | b'+')) {
        return Cow::Borrowed(text);
    }
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, behind)) = rest.split_first() {
        rest = behind;
        match (byte, behind) {
            (b'%', [high, low, behind @ ..]) if hex(*high).is_some() && hex(*low).is_some() => {
                let value = hex(*high).unwrap_or_default() * 16 + hex(*low).unwrap_or_default();
                decoded.push(value);
                rest = behind;
            }
            (b'+', _) => decoded.push(b' '),
            (byte, _) => decoded.push(byte),
        }
    }
    Cow::Owned(decoded)
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

fn push_headers(key: &mut Vec<u8>, headers: &HeaderMap, rules: &KeyRules) {
    push_count(key, rules.headers.len());
    for name in &rules.headers {
        push(key, name.as_str().as_bytes());
        let lines = headers.get_all(name);
        push_count(key, lines.iter().count());
        for line in lines {
            push(key, trim(line.as_bytes()));
        }
    }
}

/// All values of each chosen cookie, in the order in which the client sent them: which of several an
/// application takes is not ours to know.
fn push_cookies(key: &mut Vec<u8>, headers: &HeaderMap, rules: &KeyRules) {
    push_count(key, rules.cookies.len());
    for chosen in &rules.cookies {
        push(key, chosen.as_bytes());
        let values = || cookies(headers).filter(|(name, _)| *name == chosen.as_bytes());
        push_count(key, values().count());
        for (_, value) in values() {
            push(key, value);
        }
    }
}

/// The cookies of all Cookie lines (RFC 6265 §4.2, RFC 9113 §8.2.3): names and values.
pub(super) fn cookies(headers: &HeaderMap) -> impl Iterator<Item = (&[u8], &[u8])> {
    let lines = headers.get_all(header::COOKIE).iter();
    lines.flat_map(|line| line.as_bytes().split(|&b| b == b';')).map(|pair| {
        match pair.iter().position(|&b| b == b'=') {
            Some(at) => (trim(&pair[..at]), trim(&pair[at + 1..])),
            None => (trim(pair), &b""[..]),
        }
    })
}

#[cfg(test)]
#[path = "key_tests.rs"]
mod tests;
