//! Routes that can never win.

use std::collections::BTreeMap;
use std::fmt;

use crate::route::Route;
use crate::route::host::HostPattern;
use crate::route::path::Kind;
use crate::route::path::PathPattern;
use crate::route::path::Segment;
use crate::route::table::Table;
use crate::route::table::index;

/// A route that cannot win, for requests whose path begins with a slash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shadowed<'t> {
    /// Its position in [`Table::routes`].
    pub index: usize,
    /// Its name.
    pub name: &'t str,
    /// On which of its hosts, each with the route that comes first there.
    pub by: Vec<(HostPattern, &'t str)>,
    /// Whether these are all of its hosts.
    pub extent: Extent,
}

/// On how many of its hosts a route cannot win.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// On all: the route is useless.
    Whole,
    /// On some.
    Part,
}

pub(super) fn shadowed(table: &Table) -> Vec<Shadowed<'_>> {
    let routes = table.routes();
    let mut by: BTreeMap<usize, Vec<(HostPattern, &str)>> = BTreeMap::new();
    let mut buckets: BTreeMap<usize, usize> = BTreeMap::new();
    for (name, paths) in table.hosts.all() {
        let order = paths.order();
        let mut sweeping: Vec<usize> = Vec::new();
        for (at, &index) in order.iter().enumerate() {
            *buckets.entry(index).or_default() += 1;
            let route = &routes[index];
            // Equal paths stand together; only routes that sweep up whole branches reach further.
            let alike =
                order[..at].iter().rev().copied().take_while(|&e| is_same(&routes[e], route));
            let mut earlier = sweeping.iter().copied().chain(alike);
            if let Some(first) = earlier.find(|&earlier| covers(&routes[earlier], route)) {
                by.entry(index).or_default().push((index::pattern(name), &routes[first].name));
            }
            if swept(&route.path).is_some() {
                sweeping.push(index);
            }
        }
    }
    let finish = |(index, mut by): (usize, Vec<(HostPattern, _)>)| {
        by.sort_by_cached_key(|(host, _)| host.to_string());
        let whole = buckets.get(&index) == Some(&by.len());
        let extent = if whole { Extent::Whole } else { Extent::Part };
        Shadowed { index, name: &routes[index].name, by, extent }
    };
    by.into_iter().map(finish).collect()
}

/// Whether `earlier` takes every request that `later` could take.
fn covers(earlier: &Route, later: &Route) -> bool {
    let path = is_same(earlier, later)
        || swept(&earlier.path).is_some_and(|branch| lies_below(&later.path, &branch));
    path && earlier.when.cover(&later.when)
}

fn is_same(a: &Route, b: &Route) -> bool {
    match (a.path.kind(), b.path.kind()) {
        (Kind::Exact(a), Kind::Exact(b)) | (Kind::Prefix(a), Kind::Prefix(b)) => a == b,
        (Kind::Pattern(a), Kind::Pattern(b)) => {
            let (a, b) = (a.segments(), b.segments());
            a.len() == b.len()
                && a.iter().zip(b).all(|(a, b)| match (a, b) {
                    (Segment::Literal(a), Segment::Literal(b)) => a == b,
                    (Segment::One(_), Segment::One(_)) | (Segment::Rest(_), Segment::Rest(_)) => {
                        true
                    }
                    (Segment::Literal(_) | Segment::One(_) | Segment::Rest(_), _) => false,
                })
        }
        (Kind::Regex(a), Kind::Regex(b)) => a.text() == b.text(),
        (Kind::Any, Kind::Any) => true,
        (Kind::Exact(_) | Kind::Pattern(_) | Kind::Prefix(_) | Kind::Regex(_) | Kind::Any, _) => {
            false
        }
    }
}

/// The text with which every path begins that the pattern matches, if it matches all of these.
pub(super) fn swept(path: &PathPattern) -> Option<String> {
    match path.kind() {
        Kind::Prefix(text) => text.ends_with('/').then(|| text.to_string()),
        Kind::Pattern(pattern) => {
            let (Segment::Rest(_), literals) = pattern.segments().split_last()? else {
                return None;
            };
            literals.iter().try_fold("/".to_owned(), |branch, segment| match segment {
                Segment::Literal(text) => Some(branch + text + "/"),
                Segment::One(_) | Segment::Rest(_) => None,
            })
        }
        Kind::Exact(_) | Kind::Regex(_) | Kind::Any => None,
    }
}

/// Whether every path that the pattern matches begins with this text.
fn lies_below(path: &PathPattern, branch: &str) -> bool {
    match path.kind() {
        Kind::Prefix(text) => text.starts_with(branch),
        Kind::Regex(_) | Kind::Any => branch == "/",
        // These come before whatever sweeps.
        Kind::Exact(_) | Kind::Pattern(_) => false,
    }
}

impl fmt::Display for Shadowed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the route `{}` can never win", self.name)?;
        if let [(host, first)] = &*self.by
            && (self.extent == Extent::Part || *host != HostPattern::any())
        {
            return write!(f, " on {host}: `{first}` always comes first");
        }
        for (at, (host, first)) in self.by.iter().enumerate() {
            f.write_str(if at == 0 { ": " } else { ", " })?;
            write!(f, "`{first}` always comes first")?;
            if self.by.len() > 1 {
                write!(f, " on {host}")?;
            }
        }
        Ok(())
    }
}
