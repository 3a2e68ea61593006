//! The layers of `src/lib.rs`, held by reading the source text.
//!
//! Modules of one crate may import each other in circles, and nothing in the language keeps the
//! clock out of a decision. This test does: it strips comments and strings, looks at the names that
//! are left, and says for each offence where it is and what to do. `cargo check
//! --no-default-features` proves the same of the pure layers by compiling them alone.
//!
//! `architecture/samples.rs` tries the checker on small bad samples, so that it is known to be able
//! to fail.

#[path = "architecture/code.rs"]
mod code;
#[path = "architecture/samples.rs"]
mod samples;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::path::PathBuf;

use code::code;
use code::has;
use code::names_after;
use code::without_inline_modules;
use code::without_tests;

/// What a layer may touch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// L0 and L1: no I/O, no clock, no threads, no Pingora; compiled without the `server` feature.
    Pure,
    /// L3: reads files, but of the machinery below it names data types and looks at certificates only.
    Data,
    /// All others.
    Server,
}

use Kind::Data;
use Kind::Pure;
use Kind::Server;

/// The top-level modules, lowest first, what they may touch, and which others they may name.
#[rustfmt::skip]
const MODULES: &[(&str, Kind, &str)] = &[
    // L0: words.
    ("refusal",  Pure,   ""),
    ("units",    Pure,   ""),
    ("pieces",   Pure,   ""),
    ("message",  Pure,   "refusal units pieces"),
    // L1: decisions. A route carries the cache policy that it was given.
    ("balance",  Pure,   ""),
    ("resilience", Pure, ""),
    ("cache",    Pure,   "message units"),
    ("route",    Pure,   "message units cache"),
    // L2: machinery. Siblings do not know each other, except that a listener has TLS settings and
    // that certificates are ordered over connections like those to origins; what a request is held to (terms)
    // all of them may ask.
    ("terms",    Server, ""),
    ("socket",   Server, ""),
    ("tls",      Server, "units message"),
    ("listen",   Server, "refusal units pieces message terms socket tls"),
    ("observe",  Server, "refusal units message cache"),
    ("storage",  Server, "refusal units message cache"),
    ("upstream", Server, "refusal units message balance resilience terms socket tls"),
    ("acme",     Server, "tls upstream"),
    // L3: configuration.
    ("config",   Data,   "refusal units pieces message balance resilience cache route terms socket tls listen observe storage upstream acme"),
    // L4: a running generation.
    ("runtime",  Server, "refusal units pieces message balance resilience cache route terms socket tls listen observe storage upstream acme config"),
    // L5: faces, which do not know each other.
    ("admin",    Server, "refusal units pieces message balance resilience cache route terms socket tls listen observe storage upstream acme config runtime"),
    ("demo",     Server, "units"),
    ("proxy",    Server, "refusal units pieces message balance resilience cache route terms socket tls listen observe storage upstream acme config runtime"),
    // L6: the program.
    ("app",      Server, "refusal units pieces message balance resilience cache route terms socket tls listen observe storage upstream acme config runtime admin demo proxy"),
];

/// What a pure layer does not say: the outside world. A word at the end of a path stands for all
/// that begins with it: `pingora` is also `pingora_cache`.
const IMPURE: &[&str] = &[
    "tokio",
    "futures_util",
    "pingora",
    "nix",
    "rustix",
    "socket2",
    "std::env",
    "std::fs",
    "std::net::Tcp",
    "std::net::Udp",
    "std::os",
    "std::process",
    "std::thread",
    "Instant::now",
    "SystemTime::now",
];

/// What the configuration does not say: with these names data would become machinery.
const MACHINERY: &[&str] =
    &["tokio", "pingora", "socket2", "std::net::Tcp", "std::net::Udp", "thread::spawn"];

/// Modules that requests ask. Each lock in them stands in docs/locks.md, with who takes it.
const UNLOCKED: &[&str] = &["balance", "resilience", "upstream", "runtime", "observe"];

/// What is a lock, or may wait behind one.
const LOCKS: &[&str] = &[
    "Mutex<",
    "RwLock<",
    "ArcSwap<",
    "ArcSwapOption<",
    "Condvar",
    "Notify",
    "Semaphore",
    "watch::Receiver<",
];

/// A source file: its path below `src`, with `/`, and its text.
struct Source {
    path: String,
    text: String,
}

impl Source {
    /// The top-level module that the file belongs to; none for `main.rs` and `lib.rs`.
    fn module(&self) -> Option<&str> {
        let first = self.path.split('/').next().unwrap_or_default();
        let module = first.strip_suffix(".rs").unwrap_or(first);
        (module != "main" && module != "lib").then_some(module)
    }

    /// Whether the file is the root of its top-level module, where `super` is the crate.
    fn is_module_root(&self) -> bool {
        self.path.split_once('/').is_none_or(|(_, rest)| rest == "mod.rs")
    }

    /// Whether the file is compiled for tests only. Such files are named after what they are.
    fn is_test(&self) -> bool {
        let names_tests = |part: &str| matches!(part, "tests" | "tests.rs");
        self.path.split('/').any(|part| names_tests(part) || part.ends_with("_tests.rs"))
    }
}

fn module(name: &str) -> Option<(Kind, &'static str)> {
    MODULES.iter().find(|module| module.0 == name).map(|module| (module.1, module.2))
}

// ── The checks: each takes sources and returns what is wrong with them ──────────────────────────

/// Every file belongs to a module of the table, and names only what that module may name.
fn layering(sources: &[Source]) -> Vec<String> {
    let mut wrong = Vec::new();
    for source in sources.iter().filter(|source| source.module().is_some()) {
        let Source { path, text } = source;
        let name = path.split(['/', '.']).next().unwrap_or_default();
        let Some((_, allowed)) = module(name) else {
            wrong.push(format!("{path}: give the module `{name}` a layer in this test"));
            continue;
        };
        for (at, line) in code(text).lines().enumerate() {
            for named in names_after(line, "crate::") {
                let may = allowed.split(' ').any(|allowed| allowed == named);
                if named != name && !may {
                    wrong.push(format!("{path}:{}: `{name}` may not name `{named}`", at + 1));
                }
            }
        }
    }
    wrong
}

/// Nothing goes around the check above: no grouped imports, no way up but `crate::`.
fn detours(sources: &[Source]) -> Vec<String> {
    const DETOURS: &[(&str, &str)] = &[
        ("crate::{", "write one `use` for each path"),
        ("crate::*", "write one `use` for each path"),
        ("std::{", "write one `use` for each path"),
        ("crate as ", "the crate is called `crate`"),
        ("extern crate ", "the crate is called `crate`"),
        ("super::super", "start the path at `crate::`"),
    ];
    let mut wrong = Vec::new();
    for source in sources {
        let code = code(&source.text);
        let mut find = |text: &str, word: &str, advice: &str| {
            for (at, _) in text.lines().enumerate().filter(|(_, line)| has(line, word)) {
                wrong.push(format!("{}:{}: {advice}", source.path, at + 1));
            }
        };
        for (word, advice) in DETOURS {
            find(&code, word, advice);
        }
        if source.is_module_root() {
            let outside = without_inline_modules(&without_tests(&code));
            find(&outside, "super::", "`super` is the crate here: write `crate::`");
        }
    }
    wrong
}

/// The pure layers say nothing of the outside world, the configuration nothing of machinery.
fn purity(sources: &[Source]) -> Vec<String> {
    let mut wrong = Vec::new();
    for source in sources.iter().filter(|source| !source.is_test()) {
        let words = match source.module().and_then(module) {
            Some((Pure, _)) => IMPURE,
            Some((Data, _)) => MACHINERY,
            Some((Server, _)) | None => continue,
        };
        for (at, line) in without_tests(&code(&source.text)).lines().enumerate() {
            for word in words.iter().filter(|word| has(line, word)) {
                let place = format!("{}:{}", source.path, at + 1);
                wrong.push(format!("{place}: `{word}` is not for this layer: make it an argument"));
            }
        }
    }
    wrong
}

/// What is never written outside tests, and what every file begins with.
fn unfinished(sources: &[Source]) -> Vec<String> {
    const WORDS: &[&str] = &[".unwrap()", ".unwrap_err()", "todo!", "unimplemented!", "dbg!"];
    let mut wrong = Vec::new();
    for source in sources.iter().filter(|source| !source.is_test()) {
        for (at, line) in without_tests(&code(&source.text)).lines().enumerate() {
            for word in WORDS.iter().filter(|word| has(line, word)) {
                wrong.push(format!("{}:{}: `{word}` outside a test", source.path, at + 1));
            }
        }
        if !source.text.starts_with("//!") {
            wrong.push(format!("{}:1: open the file with `//!` and its purpose", source.path));
        }
    }
    wrong
}

/// The locks of [`UNLOCKED`] modules: the file, and the name of the field, variant or type that is one.
fn locks(sources: &[Source]) -> BTreeSet<(String, String)> {
    let mut found = BTreeSet::new();
    let asked = |source: &&Source| source.module().is_some_and(|name| UNLOCKED.contains(&name));
    for source in sources.iter().filter(asked).filter(|source| !source.is_test()) {
        for line in without_tests(&code(&source.text)).lines().map(str::trim) {
            // Neither what is passed on nor what is made, but what is declared.
            let is_used = ["use ", "let ", "impl "].iter().any(|start| line.starts_with(start))
                || ["fn ", ": &", "::new(", "::default(", "::channel("]
                    .iter()
                    .any(|word| line.contains(word));
            if is_used || !LOCKS.iter().any(|lock| has(line, lock)) {
                continue;
            }
            let words = line.split(|c: char| !(c.is_alphanumeric() || c == '_'));
            let word = |word: &&str| {
                !["", "pub", "crate", "super", "self", "in", "struct", "type", "static", "upstream"]
                    .contains(word)
            };
            let name = words.into_iter().find(word).unwrap_or_default();
            found.insert((source.path.clone(), name.to_owned()));
        }
    }
    found
}

/// The rows of a table of locks: file, name.
fn listed_locks(document: &str) -> BTreeSet<(String, String)> {
    let rows =
        document.lines().skip_while(|line| *line != "| file | lock | who takes it |").skip(2);
    let rows = rows.take_while(|line| line.starts_with('|'));
    let cell = |cell: &str| cell.trim().trim_matches('`').to_owned();
    rows.map(|row| {
        let mut cells = row.split('|').skip(1).map(cell);
        let mut next = || cells.next().unwrap_or_default();
        (next().trim_start_matches("src/").to_owned(), next())
    })
    .collect()
}

/// Each lock is listed, and each listed one is there.
fn unlisted(sources: &[Source], document: &str) -> Vec<String> {
    let (there, listed) = (locks(sources), listed_locks(document));
    let new = there.difference(&listed).map(|(file, name)| {
        format!("src/{file}: `{name}` is a lock: say in docs/locks.md who takes it")
    });
    let gone = listed
        .difference(&there)
        .map(|(file, name)| format!("docs/locks.md: src/{file} has no lock called `{name}`"));
    new.chain(gone).collect()
}

/// `lib.rs` declares exactly the modules of the table; those with the outside world in them are
/// behind the `server` feature, the pure ones are not.
fn declarations(lib: &str) -> Vec<String> {
    const GATE: &str = "#[cfg(feature = \"server\")]";
    let mut wrong = Vec::new();
    let mut declared = Vec::new();
    let mut before = "";
    for line in lib.lines().map(str::trim) {
        let name = line.strip_prefix("pub mod ").or_else(|| line.strip_prefix("mod "));
        if let Some(name) = name.and_then(|name| name.strip_suffix(';')) {
            declared.push(name);
            match module(name) {
                None => wrong.push(format!("lib.rs: give `{name}` a layer in this test")),
                Some((Pure, _)) if before == GATE => {
                    wrong.push(format!("lib.rs: `{name}` is pure: it needs no gate"));
                }
                Some((Data | Server, _)) if before != GATE => {
                    wrong.push(format!("lib.rs: `{name}` is not pure: write {GATE} above it"));
                }
                Some(_) => {}
            }
        }
        before = line;
    }
    for (name, ..) in MODULES.iter().filter(|(name, ..)| !declared.contains(name)) {
        wrong.push(format!("lib.rs: `{name}` has a layer in this test, but is not declared"));
    }
    wrong
}

// ── The tests ───────────────────────────────────────────────────────────────────────────────────

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// Every source file of the crate.
fn sources() -> Vec<Source> {
    fn collect(folder: &Path, root: &Path, sources: &mut Vec<Source>) {
        for entry in fs::read_dir(folder).expect("src can be listed") {
            let path = entry.expect("src can be listed").path();
            if path.is_dir() {
                collect(&path, root, sources);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let below = path.strip_prefix(root).expect("it was found there");
                let text = fs::read_to_string(&path).expect("sources are UTF-8");
                sources.push(Source { path: below.to_string_lossy().into_owned(), text });
            }
        }
    }
    let mut sources = Vec::new();
    collect(&folder(), &folder(), &mut sources);
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(sources.len() > MODULES.len(), "found only {} files", sources.len());
    sources
}

#[track_caller]
fn assert_none(wrong: &[String]) {
    assert!(wrong.is_empty(), "{} problems:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn modules_name_only_the_layers_below_them() {
    assert_none(&layering(&sources()));
}

#[test]
fn nothing_goes_around_the_layers() {
    assert_none(&detours(&sources()));
}

#[test]
fn decisions_do_not_touch_the_outside_world() {
    assert_none(&purity(&sources()));
}

#[test]
fn every_lock_that_a_request_may_meet_is_listed() {
    let path = folder().parent().expect("src is in a folder").join("docs/locks.md");
    let document = fs::read_to_string(path).expect("there is one");
    assert_none(&unlisted(&sources(), &document));
}

#[test]
fn nothing_is_left_unfinished() {
    assert_none(&unfinished(&sources()));
}

#[test]
fn the_library_declares_the_modules_of_the_table() {
    let lib = fs::read_to_string(folder().join("lib.rs")).expect("there is a lib.rs");
    assert_none(&declarations(&lib));
}

#[test]
fn the_table_has_no_circles() {
    for (at, (module, _, may_name)) in MODULES.iter().enumerate() {
        for name in may_name.split_whitespace() {
            let below = MODULES[..at].iter().any(|lower| lower.0 == name);
            assert!(below, "`{module}` may name `{name}`, which does not stand before it");
        }
    }
}

/// For the reader, not a limit: a long file may have two ideas. Written past the test's capture.
#[test]
fn the_longest_files_are_shown() {
    let mut sizes: Vec<(usize, String)> = sources()
        .into_iter()
        .filter(|source| !source.is_test())
        .map(|source| (source.text.lines().count(), source.path))
        .collect();
    sizes.sort_unstable_by(|a, b| b.cmp(a));
    let mut table = String::from("the ten longest files of src:\n");
    for (lines, path) in sizes.iter().take(10) {
        let _ = writeln!(table, "{lines:>6}  {path}");
    }
    let _ = std::io::stderr().write_all(table.as_bytes());
}
