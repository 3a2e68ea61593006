//! What must be forgotten after an unsafe request (RFC 9111 §4.4).
//!
//! A successful answer to a method that may have changed something invalidates what is stored for
//! the request's URI and for the URIs of the same origin that Location and Content-Location name. A
//! URI of another origin is never touched: otherwise any origin could empty another's cache.

use std::net::Ipv6Addr;

use http::HeaderMap;
use http::Method;
use http::StatusCode;
use http::header;

use crate::cache::key::Target;
use crate::cache::key::default_port;

/// A path and query of the request's own origin whose stored responses are invalid, all variants of
/// GET and HEAD alike. The path is as the origin wrote it: bring it into the normal form before the
/// key is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forgotten {
    /// The path; never empty.
    pub path: String,
    /// The query without `?`.
    pub query: Option<String>,
}

/// What the answer to this request invalidates: nothing, or the request's URI first and then what its
/// answer points to, each once. The target is that of the request as the client made it, before any
/// rewriting, since that is what other clients ask for and what the key is made of.
pub fn must_forget(
    method: &Method,
    status: StatusCode,
    target: &Target<'_>,
    response: &HeaderMap,
) -> Vec<Forgotten> {
    if is_safe(method) || !(status.is_success() || status.is_redirection()) {
        return Vec::new();
    }
    let path = if target.path.is_empty() { "/" } else { target.path };
    let mut forgotten =
        vec![Forgotten { path: path.to_owned(), query: target.query.map(str::to_owned) }];
    for name in [header::LOCATION, header::CONTENT_LOCATION] {
        let references = response.get_all(name).iter().filter_map(|line| line.to_str().ok());
        for also in references.filter_map(|reference| resolve(target, reference)) {
            if !forgotten.contains(&also) {
                forgotten.push(also);
            }
        }
    }
    forgotten
}

/// Whether the response says that it is what a GET of the request's URI gets: its Content-Location is that
/// URI (RFC 9110 §8.7, §9.3.3).
pub fn is_of_its_target(target: &Target<'_>, response: &HeaderMap) -> bool {
    let mut lines = response.get_all(header::CONTENT_LOCATION).iter();
    let (Some(line), None) = (lines.next(), lines.next()) else { return false };
    let named = line.to_str().ok().and_then(|reference| resolve(target, reference));
    named.is_some_and(|named| {
        named.path == without_dots(target.path) && named.query.as_deref() == target.query
    })
}

/// Methods that change nothing, as registered (RFC 9110 §9.2.1, RFC 3253, RFC 4918, RFC 5323), and QUERY
/// (draft-ietf-httpbis-safe-method-w-body). Of any other, safety is unknown, and unknown counts as unsafe.
pub(crate) fn is_safe(method: &Method) -> bool {
    matches!(
        method.as_str(),
        "GET" | "HEAD" | "OPTIONS" | "TRACE" | "PROPFIND" | "REPORT" | "SEARCH" | "QUERY"
    )
}

/// A reference resolved against the request's URI (RFC 3986 §5.2), if it stays in its target.
fn resolve(target: &Target<'_>, reference: &str) -> Option<Forgotten> {
    let reference = reference.trim();
    let reference = reference.split_once('#').map_or(reference, |(front, _)| front);
    let (scheme, rest) = split_scheme(reference);
    if scheme.is_some_and(|scheme| !scheme.eq_ignore_ascii_case(target.scheme)) {
        return None;
    }
    let (authority, rest) = match rest.strip_prefix("//") {
        Some(rest) => {
            let (authority, rest) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
            (Some(authority), rest)
        }
        None => (None, rest),
    };
    if !authority.is_none_or(|authority| is_same(target, authority)) {
        return None;
    }
    // `http:path` without an authority is no URI of a host.
    if scheme.is_some() && authority.is_none() {
        return None;
    }
    let (path, query) = match rest.split_once('?') {
        Some((path, query)) => (path, Some(query.to_owned())),
        None => (rest, None),
    };
    if path.is_empty() && authority.is_none() {
        let query = query.or_else(|| target.query.map(str::to_owned));
        return Some(Forgotten { path: without_dots(target.path), query });
    }
    let absolute = path.starts_with('/') || authority.is_some();
    let path = if absolute { without_dots(path) } else { beside(target.path, path) };
    Some(Forgotten { path, query })
}

fn split_scheme(reference: &str) -> (Option<&str>, &str) {
    let end = reference.find([':', '/', '?']).filter(|&at| reference[at..].starts_with(':'));
    match end {
        Some(at) if is_scheme(&reference[..at]) => (Some(&reference[..at]), &reference[at + 1..]),
        _ => (None, reference),
    }
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
}

/// Whether an authority is the request's own: the same host and, counting defaults, the same port.
fn is_same(target: &Target<'_>, authority: &str) -> bool {
    let (host, port) = match authority.rsplit_once(':') {
        // A colon inside brackets belongs to an IPv6 address.
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (authority, None),
    };
    let port = match port {
        None | Some("") => default_port(target.scheme),
        Some(port) => match port.parse() {
            Ok(port) => Some(port),
            Err(_) => return false,
        },
    };
    let same_host = host.eq_ignore_ascii_case(target.host)
        || ipv6(host).is_some_and(|address| ipv6(target.host) == Some(address));
    same_host && port == target.port.or_else(|| default_port(target.scheme))
}

fn ipv6(host: &str) -> Option<Ipv6Addr> {
    let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    inner.unwrap_or(host).parse().ok()
}

/// A relative path in the place of the base path's last segment (RFC 3986 §5.2.3).
fn beside(base: &str, path: &str) -> String {
    let folder = base.rfind('/').map_or("/", |at| &base[..=at]);
    without_dots(&format!("{folder}{path}"))
}

/// A path without `.` and `..` segments (RFC 3986 §5.2.4), with a leading slash.
fn without_dots(path: &str) -> String {
    let mut segments: Vec<&str> = Vec::new();
    let path = path.strip_prefix('/').unwrap_or(path);
    let mut parts = path.split('/').peekable();
    while let Some(part) = parts.next() {
        match part {
            "." | ".." => {
                if part == ".." {
                    segments.pop();
                }
                // A dot segment at the end leaves the slash before it.
                if parts.peek().is_none() {
                    segments.push("");
                }
            }
            part => segments.push(part),
        }
    }
    format!("/{}", segments.join("/"))
}

#[cfg(test)]
#[path = "forget_tests.rs"]
mod tests;
