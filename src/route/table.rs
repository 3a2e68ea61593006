//! The compiled routing table.
//!
//! # Precedence
//!
//! Of all routes whose host, path and conditions match, the first by these rules wins:
//!
//! 1. **Host**: the exact name, then the longest `*.` pattern, then routes for every host.
//! 2. **Path**: an exact path, then patterns, then the longest prefix, then regular expressions, then
//!    any path. Of two patterns the one is first that has, at the first segment in which they differ
//!    in kind, literal text rather than a capture, or `{one}` rather than `{*rest}`. Of two regular
//!    expressions the one written first is first.
//! 3. **Conditions** on scheme, method, header, query, cookie and certificate: more before fewer.
//! 4. **Order**: written earlier before later.
//!
//! The host is not a wall: where a more specific host has no route for a request, the less specific
//! ones are asked, and last the routes for every host.
//!
//! Looking up costs a few hash look-ups, however many routes there are, but for regular expressions,
//! which are tried one by one.

mod explain;
mod hash;
mod index;
mod precedence;
mod shadow;
mod together;

use std::ops::ControlFlow;

use http::Method;

use crate::route::Ask;
use crate::route::Route;
use crate::route::captures::Captures;
use crate::route::table::index::Hosts;

pub use crate::route::table::explain::Advantage;
pub use crate::route::table::explain::Considered;
pub use crate::route::table::explain::Explanation;
pub use crate::route::table::explain::Outcome;
pub use crate::route::table::explain::Verdict;
pub use crate::route::table::shadow::Extent;
pub use crate::route::table::shadow::Shadowed;

/// All routes, ready to be asked.
#[derive(Debug, Clone, Default)]
pub struct Table {
    routes: Vec<Route>,
    hosts: Hosts,
}

/// The route that a request takes.
#[derive(Debug, Clone)]
pub struct Found<'t> {
    /// Its position in [`Table::routes`].
    pub index: usize,
    /// The route.
    pub route: &'t Route,
    /// What its path captured.
    pub captures: Captures,
}

impl Table {
    /// Compiles routes, given in the order written.
    #[must_use]
    pub fn new(routes: Vec<Route>) -> Self {
        let hosts = Hosts::new(&routes);
        Self { routes, hosts }
    }

    /// The routes in the order written.
    #[must_use]
    pub fn routes(&self) -> &[Route] {
        &self.routes
    }

    /// The route for a request, by the rules of [precedence](self). Allocates only for captures.
    #[must_use]
    pub fn find(&self, ask: &Ask<'_>) -> Option<Found<'_>> {
        let won = self.hosts.visit(&self.routes, ask.host, ask.path, &mut |index| {
            if self.routes[index].when.holds(ask).is_ok() {
                ControlFlow::Break(index)
            } else {
                ControlFlow::Continue(())
            }
        });
        let index = won.break_value()?;
        let route = &self.routes[index];
        Some(Found { index, route, captures: route.path.capture(ask.path) })
    }

    /// The routes that serve this host and path to some request, whatever else they ask of it.
    #[must_use]
    pub fn serving(&self, host: &str, path: &str) -> Vec<&Route> {
        let mut serving = Vec::new();
        let visited: ControlFlow<()> = self.hosts.visit(&self.routes, host, path, &mut |index| {
            if !serving.contains(&index) {
                serving.push(index);
            }
            ControlFlow::Continue(())
        });
        debug_assert!(visited.is_continue(), "nothing ends the visit");
        serving.into_iter().map(|index| &self.routes[index]).collect()
    }

    /// The methods with which the same request would find a route, for the Allow field of a 405
    /// (RFC 9110 §15.5.6); HEAD is named beside GET. Empty where no method would (404), and also
    /// where every method would, which is to say that [`Table::find`] finds a route.
    #[must_use]
    pub fn allowed(&self, ask: &Ask<'_>) -> Vec<Method> {
        let mut allowed: Vec<Method> = Vec::new();
        let mut allow = |method: &Method| {
            if !allowed.contains(method) {
                allowed.push(method.clone());
            }
        };
        let visited: ControlFlow<()> =
            self.hosts.visit(&self.routes, ask.host, ask.path, &mut |index| {
                let when = &self.routes[index].when;
                if when.holds_but_for_method(ask).is_ok() {
                    for method in &when.methods {
                        allow(method);
                        if method == Method::GET {
                            allow(&Method::HEAD);
                        }
                    }
                }
                ControlFlow::Continue(())
            });
        debug_assert!(visited.is_continue(), "nothing ends the visit");
        allowed
    }

    /// Which route a request takes and why, for people.
    #[must_use]
    pub fn explain<'t>(&'t self, ask: &Ask<'_>) -> Explanation<'t> {
        explain::explain(self, ask)
    }

    /// The routes that cannot win on some host or on any, because another one always comes first.
    #[must_use]
    pub fn shadowed(&self) -> Vec<Shadowed<'_>> {
        shadow::shadowed(self)
    }

    /// For each kind of host that routes tell from others: the routes that requests to one of these can take, by their
    /// positions.
    pub fn together(&self) -> impl Iterator<Item = Vec<usize>> {
        together::together(self)
    }
}

#[cfg(test)]
mod tests;
