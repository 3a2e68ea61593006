mod oracle;

use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;
use http::Method;
use http::StatusCode;

use super::Extent;
use super::Table;
use super::Verdict;
use crate::cache;
use crate::message::target::Scheme;
use crate::route::Ask;
use crate::route::HeaderRules;
use crate::route::Route;
use crate::route::action::Action;
use crate::route::host::HostPattern;
use crate::route::path::PathPattern;
use crate::route::predicate::Predicates;
use crate::route::predicate::ValueMatch;
use crate::route::rewrite::Rewrite;

/// A route for `hosts` and a path written like `=/exact`, `^/prefix`, `:/pattern/{a}`, `~regex`, `*`.
fn route(name: &str, hosts: &[&str], path: &str) -> Route {
    let text = path.get(1..).unwrap_or_default();
    let path = match path.chars().next() {
        Some('=') => PathPattern::exact(text),
        Some('^') => PathPattern::prefix(text),
        Some(':') => PathPattern::pattern(text),
        Some('~') => PathPattern::regex(text),
        _ => Ok(PathPattern::any()),
    };
    Route {
        name: name.into(),
        hosts: hosts.iter().map(|host| HostPattern::parse(host).expect("a host")).collect(),
        path: path.expect("a path"),
        when: Predicates::default(),
        action: Action::Respond {
            status: StatusCode::OK,
            headers: HeaderMap::new(),
            body: Bytes::new(),
        },
        rewrite: Rewrite::default(),
        headers: HeaderRules::default(),
        total_timeout: None,
        max_body: 0,
        max_header: 0,
        spool: 0,
        cache: Arc::new(cache::Policy::default()),
        purge: None,
        standins: crate::route::standin::Standins::default(),
        asking: crate::route::asking::Asking::default(),
    }
}

trait Conditions {
    fn methods(self, methods: &[Method]) -> Self;
    fn query(self, name: &str) -> Self;
}

impl Conditions for Route {
    fn methods(mut self, methods: &[Method]) -> Self {
        self.when.methods = methods.to_vec();
        self
    }

    fn query(mut self, name: &str) -> Self {
        self.when.queries.push((name.to_owned(), ValueMatch::Present));
        self
    }
}

struct Asked {
    method: Method,
    host: &'static str,
    path: String,
    query: Option<&'static str>,
    headers: HeaderMap,
}

impl Asked {
    fn get(host: &'static str, path: &str) -> Self {
        let (path, headers) = (path.to_owned(), HeaderMap::new());
        Self { method: Method::GET, host, path, query: None, headers }
    }

    fn ask(&self) -> Ask<'_> {
        let Self { method, host, path, query, headers } = self;
        Ask { method, scheme: Scheme::Http, host, path, query: *query, headers, client: None }
    }
}

/// The name of the route that a GET takes.
fn taken(table: &Table, host: &'static str, path: &str) -> Option<String> {
    let asked = Asked::get(host, path);
    table.find(&asked.ask()).map(|found| found.route.name.to_string())
}

#[track_caller]
fn assert_taken(table: &Table, host: &'static str, path: &str, name: &str) {
    assert_eq!(taken(table, host, path).as_deref(), Some(name), "{host}{path}");
}

#[test]
fn an_empty_table_finds_nothing() {
    assert_eq!(taken(&Table::default(), "a.org", "/"), None);
    assert!(Table::default().allowed(&Asked::get("a.org", "/").ask()).is_empty());
}

#[test]
fn all_routes_that_serve_a_host_and_path_are_named_once_whatever_their_conditions() {
    let table = Table::new(vec![
        route("default", &[], "*"),
        route("both", &["a.org", "*.org"], "=/x").methods(&[Method::PUT]),
        route("query", &["a.org"], "=/x").query("q"),
        route("elsewhere", &["b.org"], "=/x"),
        route("below", &["a.org"], "^/y"),
    ]);
    let mut names: Vec<&str> = table.serving("a.org", "/x").iter().map(|r| &*r.name).collect();
    names.sort_unstable();
    assert_eq!(names, ["both", "default", "query"]);
    assert!(Table::default().serving("a.org", "/x").is_empty());
}

#[test]
fn an_exact_host_comes_before_the_longest_wildcard_before_the_default() {
    let table = Table::new(vec![
        route("default", &[], "*"),
        route("org", &["*.org"], "*"),
        route("example", &["*.example.org"], "*"),
        route("www", &["www.example.org"], "*"),
    ]);
    assert_taken(&table, "www.example.org", "/", "www");
    assert_taken(&table, "a.b.example.org", "/", "example");
    assert_taken(&table, "example.org", "/", "org");
    assert_taken(&table, "org", "/", "default");
    assert_taken(&table, "", "/", "default");
}

#[test]
fn a_host_without_the_path_falls_through_to_less_specific_hosts() {
    let table = Table::new(vec![
        route("www", &["www.a.org"], "=/only"),
        route("wild", &["*.a.org"], "^/shared"),
        route("default", &[], "*"),
    ]);
    assert_taken(&table, "www.a.org", "/only", "www");
    assert_taken(&table, "www.a.org", "/shared/x", "wild");
    assert_taken(&table, "www.a.org", "/", "default");
}

#[test]
fn a_more_specific_host_wins_over_a_more_specific_path() {
    let table = Table::new(vec![route("exact", &[], "=/a"), route("www", &["a.org"], "*")]);
    assert_taken(&table, "a.org", "/a", "www");
}

#[test]
fn paths_are_asked_from_exact_to_any() {
    let table = Table::new(vec![
        route("any", &[], "*"),
        route("regex", &[], "~/a/.*|/r"),
        route("short", &[], "^/a"),
        route("long", &[], "^/a/b"),
        route("pattern", &[], ":/a/{x}"),
        route("exact", &[], "=/a/b"),
    ]);
    assert_taken(&table, "a.org", "/a/b", "exact");
    assert_taken(&table, "a.org", "/a/c", "pattern");
    assert_taken(&table, "a.org", "/a/b/c", "long");
    assert_taken(&table, "a.org", "/a/c/d", "short");
    assert_taken(&table, "a.org", "/r", "regex");
    assert_taken(&table, "a.org", "/x", "any");
}

#[test]
fn prefixes_match_at_segments_only() {
    let table = Table::new(vec![route("api", &[], "^/api"), route("below", &[], "^/api/")]);
    assert_taken(&table, "a.org", "/api", "api");
    assert_taken(&table, "a.org", "/api/", "below");
    assert_taken(&table, "a.org", "/api/x", "below");
    assert_eq!(taken(&table, "a.org", "/apix"), None);
}

#[test]
fn patterns_prefer_literal_text_then_one_segment_then_the_rest_from_the_left() {
    let table = Table::new(vec![
        route("rest", &[], ":/a/{*rest}"),
        route("one-literal", &[], ":/a/{x}/c"),
        route("literal-rest", &[], ":/a/b/{*rest}"),
        route("literal-one", &[], ":/a/b/{x}"),
    ]);
    assert_taken(&table, "a.org", "/a/b/c", "literal-one");
    assert_taken(&table, "a.org", "/a/b/c/d", "literal-rest");
    assert_taken(&table, "a.org", "/a/x/c", "one-literal");
    assert_taken(&table, "a.org", "/a/x/d", "rest");
}

#[test]
fn regular_expressions_are_asked_as_written() {
    let table = Table::new(vec![
        route("first", &[], "~/a.*"),
        route("second", &[], "~/ab.*"),
        route("second-with-condition", &[], "~/ab.*").query("q"),
    ]);
    assert_taken(&table, "a.org", "/ab", "first");
}

#[test]
fn of_equal_paths_the_one_with_more_conditions_wins_where_they_hold() {
    let table = Table::new(vec![
        route("plain", &[], "^/a"),
        route("one", &[], "^/a").query("x"),
        route("two", &[], "^/a").query("x").query("y"),
    ]);
    let mut asked = Asked::get("a.org", "/a");
    for (query, name) in [(Some("x&y"), "two"), (Some("x"), "one"), (Some("y"), "plain")] {
        asked.query = query;
        let found = table.find(&asked.ask()).expect("a route");
        assert_eq!(&*found.route.name, name);
    }
}

#[test]
fn of_equal_routes_the_first_written_wins() {
    let table =
        Table::new(vec![route("first", &["a.org"], ":/{a}"), route("second", &["a.org"], ":/{b}")]);
    assert_taken(&table, "a.org", "/x", "first");
}

#[test]
fn captures_come_with_the_route() {
    let table = Table::new(vec![
        route("first", &[], ":/{a}").methods(&[Method::PUT]),
        route("second", &[], ":/{b}"),
        route("plain", &[], "=/plain"),
    ]);
    let asked = Asked::get("a.org", "/x");
    let found = table.find(&asked.ask()).expect("a route");
    assert_eq!((found.index, found.captures.get("b")), (1, Some("x")));
    assert_eq!(found.captures.get("a"), None);
    let asked = Asked::get("a.org", "/plain");
    assert!(table.find(&asked.ask()).expect("a route").captures.is_empty());
}

#[test]
fn only_the_method_missing_is_told_apart_from_no_route() {
    let table = Table::new(vec![
        route("read", &["a.org"], "^/a").methods(&[Method::GET]),
        route("write", &[], "=/a").methods(&[Method::POST, Method::GET]),
        route("query", &[], "=/a").methods(&[Method::DELETE]).query("really"),
    ]);
    let mut asked = Asked::get("a.org", "/a");
    asked.method = Method::PUT;
    assert!(table.find(&asked.ask()).is_none());
    assert_eq!(table.allowed(&asked.ask()), [Method::GET, Method::HEAD, Method::POST]);
    asked.path = "/b".to_owned();
    assert!(table.allowed(&asked.ask()).is_empty());
}

#[test]
fn an_explanation_names_the_winner_and_why_the_others_lost() {
    let table = Table::new(vec![
        route("site", &[], "*"),
        route("api", &["a.org"], "^/api"),
        route("api-later", &["a.org"], "^/api"),
        route("wide", &["a.org"], "^/"),
        route("write", &["a.org"], "^/api").methods(&[Method::POST]),
        route("login", &["a.org"], "=/login"),
        route("other", &["b.org"], "*"),
    ]);
    let asked = Asked::get("a.org", "/api/x");
    assert_eq!(
        table.explain(&asked.ask()).to_string(),
        "route: api\n  \
           login      exactly /login: the path does not match\n  \
           write      prefix /api: the method must be POST\n\
         > api        prefix /api: wins\n  \
           api-later  prefix /api: matches, but the winner was written earlier\n  \
           wide       prefix /: matches, but the winner's path is more specific\n  \
           site       any path: matches, but the winner's host is more specific\n  \
           on other hosts: other\n"
    );
}

#[test]
fn an_explanation_tells_404_from_405() {
    let table = Table::new(vec![route("read", &[], "=/a").methods(&[Method::GET])]);
    let mut asked = Asked::get("a.org", "/a");
    asked.method = Method::POST;
    let text = table.explain(&asked.ask()).to_string();
    assert!(text.starts_with("no route for this method: 405, allowed are GET, HEAD\n"), "{text}");
    asked.path = "/b".to_owned();
    let text = table.explain(&asked.ask()).to_string();
    assert!(text.starts_with("no route: 404\n"), "{text}");
}

fn shadows(table: &Table) -> Vec<String> {
    table.shadowed().iter().map(ToString::to_string).collect()
}

#[test]
fn a_route_behind_its_equal_can_never_win() {
    let table = Table::new(vec![
        route("first", &[], ":/{a}/x"),
        route("second", &[], ":/{b}/x"),
        route("narrower", &[], ":/{b}/x").query("q"),
    ]);
    assert_eq!(shadows(&table), ["the route `second` can never win: `first` always comes first"]);
}

#[test]
fn a_route_can_be_shadowed_on_some_of_its_hosts() {
    let table = Table::new(vec![
        route("a", &["a.org"], "^/x"),
        route("both", &["a.org", "*.b.org"], "^/x"),
        route("b", &["*.b.org"], "^/x"),
    ]);
    assert_eq!(
        shadows(&table),
        [
            "the route `both` can never win on a.org: `a` always comes first",
            "the route `b` can never win on *.b.org: `both` always comes first",
        ]
    );
    let extents: Vec<Extent> = table.shadowed().iter().map(|shadowed| shadowed.extent).collect();
    assert_eq!(extents, [Extent::Part, Extent::Whole]);
}

#[test]
fn a_pattern_that_takes_all_the_rest_shadows_prefixes_below_it() {
    let table = Table::new(vec![
        route("prefix", &[], "^/a/b"),
        route("beside", &[], "^/a"),
        route("sweep", &[], ":/a/{*rest}"),
    ]);
    assert_eq!(shadows(&table), ["the route `prefix` can never win: `sweep` always comes first"]);
}

#[test]
fn the_prefix_of_everything_shadows_what_is_less_specific() {
    let table = Table::new(vec![
        route("any", &[], "*"),
        route("regex", &[], "~/x.*").methods(&[Method::GET]),
        route("root", &[], "^/"),
    ]);
    assert_eq!(table.shadowed().len(), 2);
}

#[test]
fn methods_that_another_route_has_already_are_shadowed() {
    let table = Table::new(vec![
        route("read", &[], "=/a").methods(&[Method::GET]),
        route("head", &[], "=/a").methods(&[Method::HEAD]),
        route("write", &[], "=/a").methods(&[Method::GET, Method::POST]),
    ]);
    assert_eq!(shadows(&table), ["the route `head` can never win: `read` always comes first"]);
}

#[test]
fn one_host_named_twice_is_one_host() {
    let table = Table::new(vec![route("twice", &["a.org", "A.org"], "*")]);
    assert!(table.shadowed().is_empty());
    let asked = Asked::get("a.org", "/");
    assert_eq!(table.explain(&asked.ask()).considered.len(), 1);
}

#[test]
fn routes_are_met_together_by_clients_of_one_host() {
    let table = Table::new(vec![
        route("a", &["a.test"], "^/a"),
        route("below", &["*.test"], "^/below"),
        route("rest of b", &["b.test"], "^/"),
        route("deep", &["*.c.test"], "*").methods(&[Method::GET]),
        route("all of d", &["d.test", "d.other"], "*"),
        route("rest", &[], "*"),
        route("any", &["*"], "=/any"),
    ]);
    let mut together: Vec<Vec<usize>> = table.together().collect();
    together.sort();
    let of =
        [vec![0, 1, 5, 6], vec![1, 3, 5, 6], vec![1, 5, 6], vec![2], vec![4], vec![4], vec![5, 6]];
    assert_eq!(together, of);
}
