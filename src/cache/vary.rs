//! Which variant: Vary and the request fields that select (RFC 9111 §4.1).
//!
//! Requests select the same variant when their values of every field in Vary are the same after a
//! normalisation that the field's own definition calls meaningless: the order of codings and
//! languages, the way a weight is written, white space around commas, one line or several. Where the
//! definition is unknown, only the last two apply; where a field is known not to be a list, none do.

use std::fmt::Write as _;

use http::HeaderMap;
use http::HeaderName;
use http::header;

use crate::cache::fields::members;
use crate::cache::fields::push;
use crate::cache::fields::trim;
use crate::message::certificate;
use crate::message::forwarded;

/// The most fields that a Vary may name; one that names more selects nothing sensible.
const MOST_FIELDS: usize = 32;

/// The name under which a request is told apart from every other.
const REQUEST_ID: &str = "x-request-id";

/// The fields that select among the variants of a key: sorted, without repetition.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Spec(Vec<HeaderName>);

/// Why a Vary cannot be satisfied by anything stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unselectable {
    /// It contains `*`: something outside the request's fields selects (RFC 9110 §12.5.5).
    Star,
    /// It names what is no field, or too much.
    Malformed,
    /// It names a field that the origin was told by us: what the client wrote there, or left out,
    /// does not say what the origin read.
    Ours,
}

impl Spec {
    /// The fields named by all Vary lines of a response.
    pub fn parse(headers: &HeaderMap) -> Result<Self, Unselectable> {
        let lines = headers.get_all(header::VARY).iter();
        let mut names = Vec::new();
        let mut verdict = Ok(());
        for member in lines.flat_map(|line| members(line.as_bytes())) {
            match HeaderName::from_bytes(member) {
                _ if member.is_empty() => {}
                // `*` is a token and would pass for a field name.
                _ if member == b"*" => return Err(Unselectable::Star),
                Ok(name) if is_ours(&name) => verdict = verdict.and(Err(Unselectable::Ours)),
                Ok(name) => names.push(name),
                Err(_) => verdict = Err(Unselectable::Malformed),
            }
        }
        verdict?;
        Self::of(names)
    }

    /// The given fields, in any order; an error when there are too many.
    pub fn of(mut names: Vec<HeaderName>) -> Result<Self, Unselectable> {
        names.sort_unstable_by(|a, b| a.as_str().cmp(b.as_str()));
        names.dedup();
        if names.len() > MOST_FIELDS {
            return Err(Unselectable::Malformed);
        }
        Ok(Self(names))
    }

    /// Whether nothing selects: there is one variant.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The fields, sorted.
    pub fn names(&self) -> &[HeaderName] {
        &self.0
    }
}

/// What selects a variant: for each field its name, whether it is there, and its normalised value,
/// each with its length. Empty when nothing selects.
pub fn selecting(spec: &Spec, headers: &HeaderMap) -> Vec<u8> {
    let mut bytes = Vec::new();
    for name in &spec.0 {
        push(&mut bytes, name.as_str().as_bytes());
        if !headers.contains_key(name) {
            bytes.push(0);
            continue;
        }
        bytes.push(1);
        push(&mut bytes, &normal_value(name, headers));
    }
    bytes
}

/// Whether a request selects the variant whose selecting values were kept.
pub fn matches(spec: &Spec, stored: &[u8], headers: &HeaderMap) -> bool {
    selecting(spec, headers) == stored
}

/// A field's value, all lines of it, in the form that stands for all that mean the same.
fn normal_value(name: &HeaderName, headers: &HeaderMap) -> Vec<u8> {
    if *name == header::ACCEPT_ENCODING {
        return accept_encoding(headers).into_bytes();
    }
    if *name == header::ACCEPT_LANGUAGE {
        return accept_language(headers).into_bytes();
    }
    let lines = headers.get_all(name).iter().map(|line| line.as_bytes());
    let mut value = Vec::new();
    if is_opaque(name) {
        lines.for_each(|line| push(&mut value, trim(line)));
        return value;
    }
    for (at, member) in lines.flat_map(members).enumerate() {
        if at > 0 {
            value.push(b',');
        }
        value.extend_from_slice(member);
    }
    value
}

/// Whether the origin reads in this field what we say of the client, in place of what the client says.
/// X-Forwarded-Proto and X-Forwarded-Host are ours as well, but repeat what is in every key.
#[must_use]
pub fn is_ours(name: &HeaderName) -> bool {
    [forwarded::X_FORWARDED_FOR, forwarded::X_REAL_IP, header::FORWARDED].contains(name)
        || name == REQUEST_ID
        || forwarded::ADDRESS_CLAIMS.contains(&name.as_str())
        || certificate::is_claim(name.as_str())
}

// In these a comma is no separator, or may be none: they are compared line by line, byte by byte.
fn is_opaque(name: &HeaderName) -> bool {
    [
        header::AUTHORIZATION,
        header::COOKIE,
        header::FROM,
        header::HOST,
        header::ORIGIN,
        header::PROXY_AUTHORIZATION,
        header::REFERER,
        header::USER_AGENT,
    ]
    .contains(name)
}

/// A member of a weighted list: what, in lower case, and its weight in thousandths.
struct Weighted {
    what: String,
    weight: u16,
}

/// The members of a weighted list (RFC 9110 §12.4.2). A member that is not a token with at most a
/// weight is kept as it is written, at full weight: it must not be mistaken for anything else.
fn weighted(name: &HeaderName, headers: &HeaderMap) -> Vec<Weighted> {
    let lines = headers.get_all(name).iter();
    let members = lines.flat_map(|line| members(line.as_bytes()));
    members.filter(|member| !member.is_empty()).map(weigh).collect()
}

fn weigh(member: &[u8]) -> Weighted {
    let text = String::from_utf8_lossy(member).to_ascii_lowercase();
    let (what, parameter) = match text.split_once(';') {
        Some((what, parameter)) => (what.trim_end(), Some(parameter.trim())),
        None => (&*text, None),
    };
    let weight = match parameter {
        None => Some(1000),
        Some(parameter) => parameter.strip_prefix("q=").and_then(thousandths),
    };
    match weight {
        Some(weight) if !what.is_empty() => Weighted { what: what.to_owned(), weight },
        Some(_) | None => Weighted { what: text, weight: 1000 },
    }
}

/// A qvalue: `0` or `1` with up to three decimals.
fn thousandths(text: &str) -> Option<u16> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    if decimals.len() > 3 || !decimals.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let part = format!("{decimals:0<3}").parse().ok()?;
    match (whole, part) {
        ("0", part) => Some(part),
        ("1", 0) => Some(1000),
        _ => None,
    }
}

/// What a weighted list names, in lower case, with weights in thousandths; codings by their own names.
pub(super) fn weights(name: &HeaderName, headers: &HeaderMap) -> Vec<(String, u16)> {
    let members = weighted(name, headers).into_iter();
    members
        .map(|Weighted { what, weight }| match &*what {
            "x-gzip" => ("gzip".to_owned(), weight),
            "x-compress" => ("compress".to_owned(), weight),
            _ => (what, weight),
        })
        .collect()
}

/// Accept-Encoding in normal form: sorted, in lower case, aliases resolved, weights written one way.
/// Left out is what says nothing: a coding at zero where no `*` would admit it, and `identity` where
/// it is liked no better than anything else, as it always is. This is fit to be sent to the origin in
/// the original's place. Absence is no value and not the same as an empty one, so the caller checks
/// for that first.
pub fn accept_encoding(headers: &HeaderMap) -> String {
    let mut codings = weighted(&header::ACCEPT_ENCODING, headers);
    for coding in &mut codings {
        // RFC 9110 §8.4.1.1 and §8.4.1.3.
        match &*coding.what {
            "x-gzip" => "gzip".clone_into(&mut coding.what),
            "x-compress" => "compress".clone_into(&mut coding.what),
            _ => {}
        }
    }
    if !codings.iter().any(|coding| coding.what == "*") {
        let others = codings.iter().filter(|c| c.what != "identity" && c.weight > 0);
        let least = others.map(|coding| coding.weight).min().unwrap_or(1000);
        codings.retain(|coding| match (&*coding.what, coding.weight) {
            ("identity", 0) => true,
            ("identity", weight) => weight > least,
            (_, weight) => weight > 0,
        });
    }
    codings.sort_by(|a, b| a.what.cmp(&b.what).then(b.weight.cmp(&a.weight)));
    codings.dedup_by(|later, first| later.what == first.what);
    written(&codings)
}

/// Accept-Language in normal form: in lower case, sorted by weight and then by tag, since the order
/// of equals says nothing (RFC 9110 §12.5.4).
pub fn accept_language(headers: &HeaderMap) -> String {
    let mut languages = weighted(&header::ACCEPT_LANGUAGE, headers);
    languages.sort_by(|a, b| b.weight.cmp(&a.weight).then(a.what.cmp(&b.what)));
    languages.dedup_by(|later, first| later.what == first.what && later.weight == first.weight);
    written(&languages)
}

fn written(members: &[Weighted]) -> String {
    let mut text = String::new();
    for (at, member) in members.iter().enumerate() {
        if at > 0 {
            text.push(',');
        }
        text.push_str(&member.what);
        match member.weight {
            1000 => {}
            0 => text.push_str(";q=0"),
            weight => {
                // Writing to a String does not fail.
                let _ = write!(text, ";q=0.{weight:03}");
                text.truncate(text.trim_end_matches('0').len());
            }
        }
    }
    text
}

#[cfg(test)]
#[path = "vary_tests.rs"]
mod tests;
