//! Which route a request takes, and what is done with it there.
//!
//! A [`table::Table`] holds the routes and answers [`Ask`]; the order of precedence is written down
//! there. This module changes nothing and sends nothing.

pub mod action;
pub mod asking;
pub mod captures;
pub mod client;
pub mod host;
pub mod path;
pub mod predicate;
pub mod purging;
pub mod rewrite;
pub mod standin;
pub mod table;

mod encode;
mod expression;

use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use http::Method;

use crate::cache;
use crate::message::certificate::ClientCertificate;
use crate::message::certificate::Introduction;
use crate::message::target::Scheme;
use crate::route::action::Action;
use crate::route::asking::Asking;
use crate::route::host::HostPattern;
use crate::route::path::PathPattern;
use crate::route::predicate::Predicates;
use crate::route::rewrite::Rewrite;
use crate::route::standin::Standins;

/// What a request is asked about when its route is chosen. Host and path are in the one normal form
/// that the cache key and the origin see too.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// The method.
    pub method: &'a Method,
    /// The scheme that the client used.
    pub scheme: Scheme,
    /// The host: lower case, without port and trailing dot; IPv6 addresses in brackets.
    pub host: &'a str,
    /// The path: percent-encoded (RFC 3986 §6.2.2), without dot segments, beginning with a slash.
    pub path: &'a str,
    /// What follows the `?`.
    pub query: Option<&'a str>,
    /// The request's header fields.
    pub headers: &'a HeaderMap,
    /// The certificate that the client showed.
    pub client: Option<&'a ClientCertificate>,
}

/// One entry of the routing table, as meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The name in logs, metrics and `check --route`; unique.
    pub name: Arc<str>,
    /// The hosts that the route serves; empty serves every host.
    pub hosts: Vec<HostPattern>,
    /// The paths that the route serves.
    pub path: PathPattern,
    /// Scheme, method, header, query, cookie and certificate conditions; all must hold.
    pub when: Predicates,
    /// What is done.
    pub action: Action,
    /// Who serves beside the upstream of the action.
    pub standins: Standins,
    /// How that upstream is asked, where the route says so itself.
    pub asking: Asking,
    /// How the request is changed on its way to an upstream.
    pub rewrite: Rewrite,
    /// Header changes in both directions.
    pub headers: HeaderRules,
    /// The longest time from the request's arrival to the end of the response, further attempts and
    /// upgraded connections included; `None` is no limit.
    pub total_timeout: Option<Duration>,
    /// The largest request body, in bytes.
    pub max_body: u64,
    /// The largest request header, in bytes.
    pub max_header: u64,
    /// How many bytes of a request body are read before an origin connection is taken.
    pub spool: u64,
    /// What may be stored and served again.
    pub cache: Arc<cache::Policy>,
    /// Who may purge what it stored with the method PURGE; `None` is nobody.
    pub purge: Option<purging::Rule>,
}

impl Route {
    /// Whether the origin is asked for something else than what the client asked for: such a route
    /// does not share what is stored with others.
    #[must_use]
    pub fn changes_request(&self) -> bool {
        !self.rewrite.keeps_path()
            || self.rewrite.host.is_some()
            || !self.headers.request.is_empty()
    }

    /// The same route in a plan that has its upstreams elsewhere: `place` says where. `None` where one of
    /// them has no place there.
    #[must_use]
    pub fn placed(&self, place: impl Fn(usize) -> Option<usize>) -> Option<Self> {
        let mut route = self.clone();
        if let Action::Upstream(index) = &mut route.action {
            *index = place(*index)?;
        }
        for share in &mut route.standins.split {
            share.upstream = place(share.upstream)?;
        }
        if let Some(index) = &mut route.standins.fallback {
            *index = place(*index)?;
        }
        if let Some(mirror) = &mut route.asking.mirror {
            mirror.upstream = place(mirror.upstream)?;
        }
        Some(route)
    }
}

/// Header changes of a route.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeaderRules {
    /// Applied to the request that the origin sees.
    pub request: Vec<HeaderRule>,
    /// Applied to the response that the client sees.
    pub response: Vec<HeaderRule>,
    /// What becomes of a request's fields that some origins take for others.
    pub underscores: Underscores,
    /// What the origin is told of the client's certificate.
    pub client: Introduction,
}

/// What becomes of a request's fields with an underscore in their names, which CGI and its heirs cannot
/// tell from those with a hyphen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Underscores {
    /// None passes.
    #[default]
    Drop,
    /// Those pass that stand in for none that we write or check.
    Pass,
}

/// One header change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeaderRule {
    /// Replace every value of the field by this one.
    Set(HeaderName, HeaderValue),
    /// Add one more value.
    Add(HeaderName, HeaderValue),
    /// Remove every value.
    Remove(HeaderName),
}
