//! All problems at once: of two mistakes in a file, wherever they are, neither hides the other.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::ops::Range;

use super::load_text;
use super::shipped;
use crate::config::diagnostic::Diagnostic;
use crate::config::diagnostic::Diagnostics;
use crate::config::diagnostic::Severity;
use crate::config::document::Document;
use crate::config::path::Path;

/// Values that are wrong in most places.
const VALUES: [&str; 6] = ["\" ?\\u0001{\"", "0", "4000000000", "\"\"", "40000d", "[[]]"];

/// Keys with something wrong in them, or that go with few others.
const KEYS: [&str; 32] = [
    "nonsense: 1",
    "upstream: nobody",
    "split: [{upstream: nobody, weight: 2000}]",
    "redirect: {to: x, status: 200}",
    "respond: {status: 99}",
    "rewrite: {strip_prefix: x, regex: {pattern: \"(\"}, host: \"a b\"}",
    "fallback: {upstream: nobody}",
    "mirror: {upstream: nobody, percent: 0}",
    "retry: {attempts: 99, statuses: [200]}",
    "hedge: {percentile: 1, budget: 0}",
    "purge: {from: []}",
    "spool: 1GiB",
    "max_header: 1B",
    "headers: {request: {set: {Host: x, \"a b\": \"\\u0001\"}}}",
    "path: x",
    "path_regex: \"(\"",
    "path_prefix: x",
    "methods: [get, \"a b\"]",
    "cookies: {\"a*\": {regex: \"(\"}}",
    "query: {\"\": {prefix: \"\"}}",
    "slice: 1B",
    "ttl_by_status: {999: 0s}",
    "override_ttl: 0s",
    "ranges: as-asked",
    "panic_threshold: 101",
    "hash_by: nothing",
    "sticky: {cookie: \"a b\"}",
    "health: {type: tcp, path: x, headers: {Host: x, \"a b\": y}}",
    "ejection: {consecutive: off, deviations: off, max_percent: 0}",
    "breaker: {counts: [], statuses: [], failures: 0}",
    "socket: \"\"",
    "h2c: true",
];

/// A mistake: what stands at a place of the text from now on, and what is told of it alone.
struct Mistake {
    path: Path,
    line: usize,
    columns: Range<usize>,
    text: String,
    told: BTreeSet<String>,
}

impl Mistake {
    fn plant(&self, text: &str) -> String {
        let lines = text.split('\n').enumerate().map(|(n, line)| {
            if n + 1 != self.line {
                return line.to_owned();
            }
            let chars: Vec<char> = line.chars().collect();
            let (before, after) = (&chars[..self.columns.start], &chars[self.columns.end..]);
            let (before, after): (String, String) =
                (before.iter().collect(), after.iter().collect());
            format!("{before}{}{after}", self.text)
        });
        lines.collect::<Vec<_>>().join("\n")
    }

    /// Whether each would be there without the other.
    fn is_apart_from(&self, other: &Self) -> bool {
        !self.path.contains(&other.path)
            && !other.path.contains(&self.path)
            && !self.mends(other)
            && !other.mends(self)
    }

    /// Whether this one, wrong as it is, gives the other what it lacks: `fallback` needs an upstream.
    fn mends(&self, other: &Self) -> bool {
        let is = |of: &Self, keys: &[&str]| keys.iter().any(|key| of.text.starts_with(key));
        is(self, &["upstream:", "split:"]) && is(other, &["fallback:"])
    }
}

/// Every error, with where it is.
fn told(found: &Diagnostics) -> BTreeSet<String> {
    let errors = found.all().iter().filter(|one| one.severity == Severity::Error);
    errors.map(|one| one.path.clone()).collect()
}

/// What of the lists above is a mistake in this text.
fn mistakes(name: &str, text: &str) -> Vec<Mistake> {
    let (document, _) = Document::parse(text, "planted").expect("YAML");
    let mut possible = Vec::new();
    for id in document.scalars() {
        let place = document.place(id);
        let path = document.path(id);
        if place.line != place.last_line {
            continue;
        }
        // One sort for each place, another at the next: all are tried where there are many places.
        let sort = possible.len() % VALUES.len();
        for value in [VALUES[sort], VALUES[(sort + 1) % VALUES.len()]] {
            possible.push(Mistake {
                path: path.clone(),
                line: place.line,
                columns: place.column..place.column + place.width,
                text: value.to_owned(),
                told: BTreeSet::new(),
            });
        }
        let Some((_, parent)) = path.steps().split_last() else { continue };
        let parent = parent.iter().fold(Path::root(), |path, step| path.then(step.clone()));
        let Some(first) = document.locate_key(&path) else { continue };
        let line: Vec<char> = document.line(first.line).expect("a line").chars().collect();
        let is_key = line[first.column..].iter().collect::<String>().contains(": ");
        if !is_key {
            continue;
        }
        let before: String = line[..first.column].iter().collect();
        let is_block = before.trim_start_matches([' ', '-']).is_empty();
        // The reference has every key already, and so many that this would take long.
        let keys = if name == "reference.yaml" { &[][..] } else { &KEYS[..] };
        for key in keys {
            let word = key.split(':').next().expect("a key");
            let between =
                if is_block { format!("\n{}", " ".repeat(first.column)) } else { ", ".to_owned() };
            possible.push(Mistake {
                path: parent.key(word),
                line: first.line,
                columns: first.column..first.column,
                text: format!("{key}{between}"),
                told: BTreeSet::new(),
            });
        }
    }
    let mut seen = BTreeSet::new();
    possible.retain_mut(|mistake| {
        let key = (mistake.path.to_string(), mistake.text.clone());
        if !seen.insert(key) {
            return false;
        }
        match load_text(&mistake.plant(text), "planted") {
            Ok(_) => false,
            Err(found) => {
                mistake.told = told(&found);
                let is_syntax = |one: &Diagnostic| {
                    one.message.contains("not YAML") || one.message.contains("written twice")
                };
                !found.all().iter().any(is_syntax)
            }
        }
    });
    possible
}

fn hidden(text: &str, one: &Mistake, other: &Mistake) -> Vec<String> {
    let (first, last) = if (one.line, one.columns.start) < (other.line, other.columns.start) {
        (one, other)
    } else {
        (other, one)
    };
    let both = first.plant(&last.plant(text));
    let found = load_text(&both, "planted").map(|_| ()).expect_err("two mistakes");
    let told = told(&found);
    one.told.union(&other.told).filter(|each| !told.contains(*each)).cloned().collect()
}

/// How many of those that come next in the file each mistake is planted with; they are its neighbours, of
/// the same section mostly, where one hides the other if anywhere.
const NEIGHBOURS: usize = 3;

#[test]
fn two_mistakes_are_both_told_wherever_they_are() {
    let mut wrong = BTreeMap::new();
    for name in shipped::ALL {
        let text = shipped::text(name);
        let all = mistakes(name, &text);
        assert!(all.len() > 50, "{name}: {} mistakes", all.len());
        for (n, one) in all.iter().enumerate() {
            let far = all.get((n * 7919) % all.len());
            let others = all.iter().skip(n + 1).take(NEIGHBOURS).chain(far);
            for other in others.filter(|other| one.is_apart_from(other)) {
                for path in hidden(&text, one, other) {
                    let both = [one, other].map(|each| format!("{} {:?}", each.path, each.text));
                    wrong.entry(path).or_insert_with(|| format!("{name}: {}", both.join(" and ")));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "not told, and with which two mistakes: {wrong:#?}");
}
