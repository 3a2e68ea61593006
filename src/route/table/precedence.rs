//! The order in which routes of one host are asked, as one sortable key.

use std::cmp::Reverse;

use crate::route::Route;
use crate::route::path::Kind;
use crate::route::path::PathPattern;
use crate::route::path::Segment;

/// How specific a path pattern is; less is more specific, equal is the same path.
///
/// Paths that can match one and the same path of a request compare as the rules of precedence say.
/// The rest of the order is arbitrary, but keeps equal paths together.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Specificity<'p> {
    Exact(&'p str),
    Pattern(Vec<Step>, Vec<&'p str>),
    Prefix(Reverse<usize>, &'p str),
    /// The place of the first route with the same expression.
    Regex(usize),
    Any,
}

/// The kind of one segment of a pattern, most specific first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Step {
    Literal,
    One,
    Rest,
}

/// Sorts indices of routes, all on one host, into the order of precedence.
pub(super) fn sort(indices: &mut Vec<usize>, routes: &[Route]) {
    indices.sort_unstable();
    indices.dedup();
    let written = indices.clone();
    indices.sort_by_cached_key(|&index| {
        let route = &routes[index];
        let specificity = specificity(&route.path, routes, &written);
        (specificity, Reverse(route.when.conditions()), index)
    });
}

/// The specificity of a path among the routes of a host, given in the order written.
pub(super) fn specificity<'p>(
    path: &'p PathPattern,
    routes: &[Route],
    written: &[usize],
) -> Specificity<'p> {
    match path.kind() {
        Kind::Exact(text) => Specificity::Exact(text),
        Kind::Pattern(pattern) => {
            let mut literals = Vec::new();
            let steps = pattern.segments().iter().map(|segment| match segment {
                Segment::Literal(text) => {
                    literals.push(&**text);
                    Step::Literal
                }
                Segment::One(_) => Step::One,
                Segment::Rest(_) => Step::Rest,
            });
            Specificity::Pattern(steps.collect(), literals)
        }
        Kind::Prefix(text) => Specificity::Prefix(Reverse(text.len()), text),
        Kind::Regex(expression) => {
            let same = |&&index: &&usize| match routes[index].path.kind() {
                Kind::Regex(other) => other.text() == expression.text(),
                Kind::Exact(_) | Kind::Pattern(_) | Kind::Prefix(_) | Kind::Any => false,
            };
            Specificity::Regex(written.iter().find(same).copied().unwrap_or(usize::MAX))
        }
        Kind::Any => Specificity::Any,
    }
}
