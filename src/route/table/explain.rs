//! Why a request takes the route that it takes, for people.

use std::cmp::Reverse;
use std::collections::HashSet;
use std::fmt;

use http::Method;

use crate::route::Ask;
use crate::route::Route;
use crate::route::predicate::Unmet;
use crate::route::table::Table;
use crate::route::table::precedence;

/// Which route a request takes and why.
#[derive(Debug, Clone)]
pub struct Explanation<'t> {
    /// What becomes of the request.
    pub outcome: Outcome<'t>,
    /// The routes that serve the host, in the order of precedence.
    pub considered: Vec<Considered<'t>>,
    /// The routes that serve other hosts only, in the order written.
    pub elsewhere: Vec<&'t Route>,
}

/// What becomes of a request.
#[derive(Debug, Clone)]
pub enum Outcome<'t> {
    /// It takes this route.
    Taken(&'t Route),
    /// It would take a route if its method were one of these (405).
    OtherMethods(Vec<Method>),
    /// No route (404).
    NoRoute,
}

/// One route in an [`Explanation`].
#[derive(Debug, Clone)]
pub struct Considered<'t> {
    /// Its position in [`Table::routes`].
    pub index: usize,
    /// The route.
    pub route: &'t Route,
    /// What was found about it.
    pub verdict: Verdict<'t>,
}

/// Why a route won or was passed over.
#[derive(Debug, Clone)]
pub enum Verdict<'t> {
    /// It won.
    Won,
    /// Its path does not match.
    OtherPath,
    /// Its path matches, but not this condition.
    Unmet(Unmet<'t>),
    /// It matches, but the winner has precedence over it.
    Behind(Advantage),
}

/// What gave the winner precedence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Advantage {
    /// Its host is more specific.
    Host,
    /// Its path is more specific.
    Path,
    /// It has more conditions.
    Conditions,
    /// It was written earlier.
    Order,
}

pub(super) fn explain<'t>(table: &'t Table, ask: &Ask<'_>) -> Explanation<'t> {
    let routes = table.routes();
    let mut seen = HashSet::new();
    let mut considered: Vec<Considered<'_>> = Vec::new();
    // The winner and the number of its host among those that match.
    let mut winner: Option<(usize, usize)> = None;
    for (host, paths) in table.hosts.serving(ask.host).enumerate() {
        let mut written = paths.order().to_vec();
        written.sort_unstable();
        for &index in paths.order() {
            if !seen.insert(index) {
                continue;
            }
            let route = &routes[index];
            let verdict = if !route.path.matches(ask.path) {
                Verdict::OtherPath
            } else if let Err(unmet) = route.when.holds(ask) {
                Verdict::Unmet(unmet)
            } else if let Some((won, at)) = winner {
                let specificity = |route: &'t Route| {
                    let path = precedence::specificity(&route.path, routes, &written);
                    (path, Reverse(route.when.conditions()))
                };
                let (first, second) = (specificity(&routes[won]), specificity(route));
                Verdict::Behind(if at != host {
                    Advantage::Host
                } else if first.0 != second.0 {
                    Advantage::Path
                } else if first.1 != second.1 {
                    Advantage::Conditions
                } else {
                    Advantage::Order
                })
            } else {
                winner = Some((index, host));
                Verdict::Won
            };
            considered.push(Considered { index, route, verdict });
        }
    }
    let outcome = match winner {
        Some((index, _)) => Outcome::Taken(&routes[index]),
        None => match table.allowed(ask) {
            none if none.is_empty() => Outcome::NoRoute,
            methods => Outcome::OtherMethods(methods),
        },
    };
    let elsewhere = routes.iter().enumerate().filter(|(index, _)| !seen.contains(index));
    let elsewhere = elsewhere.map(|(_, route)| route).collect();
    Explanation { outcome, considered, elsewhere }
}

impl fmt::Display for Explanation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.outcome)?;
        let width = self.considered.iter().map(|c| c.route.name.chars().count()).max();
        let width = width.unwrap_or(0).min(40);
        for Considered { route, verdict, .. } in &self.considered {
            let mark = if matches!(verdict, Verdict::Won) { '>' } else { ' ' };
            writeln!(f, "{mark} {:width$}  {}: {verdict}", route.name, route.path)?;
        }
        if !self.elsewhere.is_empty() {
            f.write_str("  on other hosts:")?;
            for (at, route) in self.elsewhere.iter().enumerate() {
                write!(f, "{} {}", if at == 0 { "" } else { "," }, route.name)?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

impl fmt::Display for Outcome<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Taken(route) => write!(f, "route: {}", route.name),
            Self::OtherMethods(methods) => {
                f.write_str("no route for this method: 405, allowed are")?;
                for (at, method) in methods.iter().enumerate() {
                    write!(f, "{} {method}", if at == 0 { "" } else { "," })?;
                }
                Ok(())
            }
            Self::NoRoute => f.write_str("no route: 404"),
        }
    }
}

impl fmt::Display for Verdict<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Won => f.write_str("wins"),
            Self::OtherPath => f.write_str("the path does not match"),
            Self::Unmet(unmet) => write!(f, "{unmet}"),
            Self::Behind(advantage) => write!(f, "matches, but {advantage}"),
        }
    }
}

impl fmt::Display for Advantage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Host => "the winner's host is more specific",
            Self::Path => "the winner's path is more specific",
            Self::Conditions => "the winner has more conditions",
            Self::Order => "the winner was written earlier",
        })
    }
}
