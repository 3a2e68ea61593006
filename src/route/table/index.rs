//! Hosts and paths as maps: the candidates for a request, in the order of precedence.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use crate::route::Route;
use crate::route::host;
use crate::route::host::HostPattern;
use crate::route::path;
use crate::route::path::Kind;
use crate::route::path::Segment;
use crate::route::path::first_segment;
use crate::route::table::hash::ByText;
use crate::route::table::precedence;

/// The routes of every host.
#[derive(Debug, Clone, Default)]
pub(super) struct Hosts {
    exact: ByText<Paths>,
    /// By what follows the `*`, which begins with a dot.
    below: LongestFirst<Paths>,
    default: Paths,
}

/// The routes of one host. Every list is in the order of precedence.
#[derive(Debug, Clone, Default)]
pub(super) struct Paths {
    exact: ByText<Vec<usize>>,
    patterns: Node,
    prefixes: LongestFirst<Vec<usize>>,
    regexes: Vec<usize>,
    any: Vec<usize>,
    /// All of them.
    order: Vec<usize>,
}

/// Patterns that have the same segments up to here.
#[derive(Debug, Clone, Default)]
struct Node {
    literals: ByText<Self>,
    one: Option<Box<Self>>,
    rest: Vec<usize>,
    here: Vec<usize>,
}

/// Values by text, asked by the length of the text.
#[derive(Debug, Clone)]
struct LongestFirst<T> {
    /// The lengths that occur, in bytes, longest first.
    lengths: Vec<usize>,
    values: ByText<T>,
}

impl Hosts {
    pub(super) fn new(routes: &[Route]) -> Self {
        let mut exact: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        let mut below: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        let mut default = Vec::new();
        for (index, route) in routes.iter().enumerate() {
            if route.hosts.is_empty() {
                default.push(index);
            }
            for host in &route.hosts {
                match host.kind() {
                    host::Kind::Exact(name) => exact.entry(name).or_default().push(index),
                    host::Kind::Below(suffix) => below.entry(suffix).or_default().push(index),
                    host::Kind::Any => default.push(index),
                }
            }
        }
        let exact = exact.into_iter().map(|(name, list)| (name.into(), Paths::new(list, routes)));
        let mut hosts = Self {
            exact: exact.collect(),
            default: Paths::new(default, routes),
            ..Self::default()
        };
        for (suffix, list) in below {
            hosts.below.put(suffix, Paths::new(list, routes));
        }
        hosts
    }

    /// Calls `f` with every route whose host and path match, in the order of precedence, until it
    /// breaks. A route with several matching hosts comes several times.
    pub(super) fn visit<B>(
        &self,
        routes: &[Route],
        host: &str,
        path: &str,
        f: &mut impl FnMut(usize) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        self.serving(host).try_for_each(|paths| paths.visit(routes, path, f))
    }

    /// The hosts that match, most specific first.
    pub(super) fn serving(&self, host: &str) -> impl Iterator<Item = &Paths> {
        let below = self.below.lengths.iter().filter_map(move |&length| {
            let start = host.len().checked_sub(length).filter(|&start| start > 0)?;
            // A dot, and so a boundary between characters.
            (host.as_bytes()[start] == b'.').then(|| self.below.values.get(&host[start..]))?
        });
        self.exact.get(host).into_iter().chain(below).chain([&self.default])
    }

    /// Every host pattern with its routes; no particular order.
    pub(super) fn all(&self) -> impl Iterator<Item = (Option<&str>, &Paths)> {
        let named = self.exact.iter().chain(&self.below.values);
        named.map(|(name, paths)| (Some(&**name), paths)).chain([(None, &self.default)])
    }
}

impl Paths {
    fn new(mut order: Vec<usize>, routes: &[Route]) -> Self {
        precedence::sort(&mut order, routes);
        let mut paths = Self::default();
        for &index in &order {
            match routes[index].path.kind() {
                Kind::Exact(text) => paths.exact.entry(text.clone()).or_default().push(index),
                Kind::Pattern(pattern) => paths.patterns.put(pattern.segments(), index),
                Kind::Prefix(text) => paths.prefixes.entry(text).push(index),
                Kind::Regex(_) => paths.regexes.push(index),
                Kind::Any => paths.any.push(index),
            }
        }
        Self { order, ..paths }
    }

    /// All routes of the host, in the order of precedence.
    pub(super) fn order(&self) -> &[usize] {
        &self.order
    }

    fn visit<B>(
        &self,
        routes: &[Route],
        path: &str,
        f: &mut impl FnMut(usize) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        if let Some(exact) = self.exact.get(path) {
            each(exact, f)?;
        }
        if let Some(inner) = path.strip_prefix('/') {
            self.patterns.visit(Some(inner), f)?;
        }
        for &length in &self.prefixes.lengths {
            if length > path.len() || !path::ends_segment(path, length) {
                continue;
            }
            // A prefix ends at a slash or before one, and so at a boundary between characters.
            if let Some(prefix) = self.prefixes.values.get(&path[..length]) {
                each(prefix, f)?;
            }
        }
        for &index in &self.regexes {
            if routes[index].path.matches(path) {
                f(index)?;
            }
        }
        each(&self.any, f)
    }
}

impl Node {
    fn put(&mut self, segments: &[Segment], index: usize) {
        match segments {
            [] => self.here.push(index),
            [Segment::Literal(text), more @ ..] => {
                self.literals.entry(text.clone()).or_default().put(more, index);
            }
            [Segment::One(_), more @ ..] => self.one.get_or_insert_default().put(more, index),
            [Segment::Rest(_), ..] => self.rest.push(index),
        }
    }

    /// Goes through the patterns that match: literal text first, then one segment, then the rest,
    /// which is the order of precedence. Each node is reached by one way only, so that the work is
    /// bounded by the size of the table.
    fn visit<B>(
        &self,
        remaining: Option<&str>,
        f: &mut impl FnMut(usize) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        let Some(text) = remaining else {
            return each(&self.here, f);
        };
        if !self.literals.is_empty() || self.one.is_some() {
            let (head, tail) = first_segment(text);
            if let Some(node) = self.literals.get(head) {
                node.visit(tail, f)?;
            }
            if let Some(node) = self.one.as_deref().filter(|_| !head.is_empty()) {
                node.visit(tail, f)?;
            }
        }
        each(&self.rest, f)
    }
}

impl<T> LongestFirst<T> {
    fn put(&mut self, text: &str, value: T) {
        self.note(text.len());
        self.values.insert(text.into(), value);
    }

    fn note(&mut self, length: usize) {
        if let Err(at) = self.lengths.binary_search_by(|known| length.cmp(known)) {
            self.lengths.insert(at, length);
        }
    }
}

impl<T: Default> LongestFirst<T> {
    fn entry(&mut self, text: &str) -> &mut T {
        self.note(text.len());
        self.values.entry(text.into()).or_default()
    }
}

impl<T> Default for LongestFirst<T> {
    fn default() -> Self {
        Self { lengths: Vec::new(), values: ByText::default() }
    }
}

/// The pattern under which a host's routes are known.
pub(super) fn pattern(name: Option<&str>) -> HostPattern {
    let parsed = name.map(|name| match name.strip_prefix('.') {
        Some(_) => HostPattern::parse(&format!("*{name}")),
        None => HostPattern::parse(name),
    });
    parsed.and_then(Result::ok).unwrap_or_else(HostPattern::any)
}

fn each<B>(list: &[usize], f: &mut impl FnMut(usize) -> ControlFlow<B>) -> ControlFlow<B> {
    list.iter().try_for_each(|&index| f(index))
}
