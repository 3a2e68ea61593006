//! The table against a reading of its rules that tries every route.

use std::cmp::Reverse;

use http::Method;
use proptest::prelude::*;

use super::Asked;
use super::Conditions;
use super::Extent;
use super::Route;
use super::Table;
use super::Verdict;
use super::route;

use crate::message::target::Scheme;
use crate::route::Ask;

const HOSTS: [&str; 6] = ["a.org", "b.a.org", "*.a.org", "*.org", "*.b.a.org", "*"];
const ASKED_HOSTS: [&str; 6] = ["a.org", "b.a.org", "c.b.a.org", "c.org", "org", ""];
const METHODS: [Method; 3] = [Method::GET, Method::HEAD, Method::POST];

/// A route as written: the oracle ranks by this text, the table by what it compiled.
#[derive(Debug, Clone)]
struct Written {
    hosts: Vec<&'static str>,
    path: String,
    methods: Vec<Method>,
    queries: Vec<&'static str>,
}

impl Written {
    fn route(&self, at: usize) -> Route {
        let route = route(&at.to_string(), &self.hosts, &self.path).methods(&self.methods);
        self.queries.iter().fold(route, |route, query| route.query(query))
    }

    fn conditions(&self) -> usize {
        usize::from(!self.methods.is_empty()) + self.queries.len()
    }
}

fn path() -> impl Strategy<Value = String> {
    let literal = proptest::collection::vec("[ab]", 0..4).prop_map(|s| format!("/{}", s.join("/")));
    let steps = proptest::collection::vec(prop_oneof!["[ab]", Just("{}".to_owned())], 0..4);
    let pattern = (steps, any::<bool>()).prop_map(|(steps, rest)| {
        let steps = steps.into_iter().enumerate();
        let mut steps: Vec<_> =
            steps.map(|(at, step)| step.replace("{}", &format!("{{p{at}}}"))).collect();
        if rest || steps.is_empty() {
            steps.push("{*rest}".to_owned());
        }
        format!(":/{}", steps.join("/"))
    });
    prop_oneof![
        literal.clone().prop_map(|path| format!("={path}")),
        literal.prop_map(|path| format!("^{path}")),
        pattern,
        prop_oneof!["~/a\\.\\*", "~/\\[ab\\]\\*", "~/\\.\\*b"].prop_map(|path| path),
        Just("*".to_owned()),
    ]
}

fn written() -> impl Strategy<Value = Written> {
    let hosts = proptest::sample::subsequence(HOSTS.to_vec(), 0..3);
    let methods = proptest::sample::subsequence(METHODS.to_vec(), 0..3);
    let queries = proptest::sample::subsequence(vec!["x", "y"], 0..3);
    (hosts, path(), methods, queries).prop_map(|(hosts, path, methods, queries)| Written {
        hosts,
        path,
        methods,
        queries,
    })
}

fn asked() -> impl Strategy<Value = Asked> {
    let host = proptest::sample::select(ASKED_HOSTS.to_vec());
    let method = proptest::sample::select(METHODS.to_vec());
    let query = proptest::sample::select(vec![None, Some("x=1"), Some("y"), Some("x&y=")]);
    (host, "/[ab/]{0,6}", method, query).prop_map(|(host, path, method, query)| Asked {
        method,
        query,
        ..Asked::get(host, &path)
    })
}

impl std::fmt::Debug for Asked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}{} {:?}", self.method, self.host, self.path, self.query)
    }
}

/// How the rules rank a route on one of its hosts; less is first.
type Rank = (u8, Reverse<usize>, u8, String, Reverse<usize>, usize, Reverse<usize>, usize);

fn rank(routes: &[Written], at: usize, host: &str) -> Rank {
    let host_class = match host {
        "*" => 2,
        _ if host.starts_with('*') => 1,
        _ => 0,
    };
    let written = &routes[at];
    let kind = written.path.as_bytes()[0];
    let path_class = b"=:^~*".iter().position(|&class| class == kind).expect("a kind of path");
    // `l` < `o` < `r`: literal, one, rest.
    let shape = if kind == b':' {
        let step = |step: &str| match (step.starts_with("{*"), step.starts_with('{')) {
            (true, _) => 'r',
            (_, true) => 'o',
            _ => 'l',
        };
        written.path[2..].split('/').map(step).collect()
    } else {
        String::new()
    };
    let length = if kind == b'^' { written.path.len() } else { 0 };
    let serves =
        |other: &Written| other.hosts.contains(&host) || (host == "*" && other.hosts.is_empty());
    let first = routes.iter().position(|other| serves(other) && other.path == written.path);
    let first = if kind == b'~' { first.expect("the route itself") } else { 0 };
    let conditions = Reverse(written.conditions());
    let path_class = path_class as u8;
    let host_length = if host_class == 1 { host.len() } else { 0 };
    (host_class, Reverse(host_length), path_class, shape, Reverse(length), first, conditions, at)
}

/// The winner by trying every route on every one of its hosts.
fn winner(written: &[Written], routes: &[Route], ask: &Ask<'_>) -> Option<usize> {
    let mut best: Option<(Rank, usize)> = None;
    for (at, route) in routes.iter().enumerate() {
        if !route.path.matches(ask.path) || route.when.holds(ask).is_err() {
            continue;
        }
        let all = vec!["*"];
        let hosts = if written[at].hosts.is_empty() { &all } else { &written[at].hosts };
        for host in hosts {
            let serves = match host.strip_prefix('*') {
                Some("") => true,
                Some(below) => ask.host.ends_with(below) && ask.host != below,
                None => ask.host == *host,
            };
            let rank = rank(written, at, host);
            if serves && best.as_ref().is_none_or(|(first, _)| rank < *first) {
                best = Some((rank, at));
            }
        }
    }
    best.map(|(_, at)| at)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn the_table_agrees_with_trying_every_route_in_order(
        written in proptest::collection::vec(written(), 0..16),
        requests in proptest::collection::vec(asked(), 8),
    ) {
        let routes: Vec<Route> = written.iter().enumerate().map(|(at, w)| w.route(at)).collect();
        let table = Table::new(routes.clone());
        let shadowed = table.shadowed();
        for asked in &requests {
            let ask = asked.ask();
            let found = table.find(&ask).map(|found| found.index);
            prop_assert_eq!(found, winner(&written, &routes, &ask), "{:?}", asked);

            let explained = table.explain(&ask).considered;
            let won = explained.iter().find(|one| matches!(one.verdict, Verdict::Won));
            prop_assert_eq!(found, won.map(|one| one.index), "{:?}", asked);

            let dead = |index: usize| {
                shadowed.iter().any(|s| s.index == index && s.extent == Extent::Whole)
            };
            prop_assert!(!found.is_some_and(dead), "{:?} took a shadowed route", asked);

            for method in table.allowed(&ask) {
                let other = Ask { method: &method, ..ask };
                prop_assert!(table.find(&other).is_some(), "{method} is not allowed");
            }
        }
    }

    #[test]
    fn any_request_is_answered_without_panic(
        written in proptest::collection::vec(written(), 0..8),
        host in "\\PC{0,8}(\\.a\\.org)?", path in "\\PC{0,8}",
    ) {
        let routes: Vec<Route> = written.iter().enumerate().map(|(at, w)| w.route(at)).collect();
        let table = Table::new(routes);
        let headers = http::HeaderMap::new();
        let ask = Ask {
            scheme: Scheme::Http,
            method: &Method::GET, host: &host, path: &path, query: Some(&path), headers: &headers,
            client: None,
        };
        let found = table.find(&ask).map(|found| found.index);
        let explained = table.explain(&ask).considered;
        let won = explained.iter().find(|one| matches!(one.verdict, Verdict::Won));
        prop_assert_eq!(found, won.map(|one| one.index));
    }
}
