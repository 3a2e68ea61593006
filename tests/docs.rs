//! The documents, held to the code: every YAML block loads, every table is the code's, every link
//! leads somewhere, every function, test and file that is named exists.
//!
//! `BLESS=1 cargo test --test docs` writes the tables anew.

#[path = "docs/markdown.rs"]
mod markdown;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::path::PathBuf;

use edgeproxy::config;
use edgeproxy::observe::access_log::Field;
use edgeproxy::observe::metrics::DEFINITIONS;
use edgeproxy::observe::metrics::Kind;
use edgeproxy::refusal::Refusal;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// Every file below a folder, as a path from the root, in order.
fn files(folder: &str, extension: &str) -> Vec<String> {
    fn collect(folder: &Path, extension: &str, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).expect("the folder can be listed") {
            let path = entry.expect("the folder can be listed").path();
            if path.is_dir() {
                collect(&path, extension, found);
            } else if path.extension().is_some_and(|e| e == extension) {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    collect(&root().join(folder), extension, &mut found);
    let below = |path: PathBuf| {
        let path = path.strip_prefix(root()).expect("it was found there");
        path.to_string_lossy().into_owned()
    };
    let mut found: Vec<String> = found.into_iter().map(below).collect();
    found.sort();
    found
}

/// Every document: path and text.
fn documents() -> Vec<(String, String)> {
    let mut paths = files("docs", "md");
    for name in ["README.md", "ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md"] {
        if root().join(name).exists() {
            paths.push(name.to_owned());
        }
    }
    paths.into_iter().map(|path| (path.clone(), read(&path))).collect()
}

#[track_caller]
fn assert_none(wrong: &[String]) {
    assert!(wrong.is_empty(), "{} problems:\n{}", wrong.len(), wrong.join("\n"));
}

// ── YAML ────────────────────────────────────────────────────────────────────────────────────────

/// The top-level sections of a YAML text: each key, and its lines.
fn sections(yaml: &str) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = Vec::new();
    for line in yaml.lines() {
        let starts = line.starts_with(|c: char| c.is_ascii_lowercase());
        let key = line.split(':').next().filter(|_| starts && line.contains(':'));
        if let Some(key) = key {
            found.push((key.to_owned(), String::new()));
        }
        if let Some((_, text)) = found.last_mut() {
            text.push_str(line);
            text.push('\n');
        }
    }
    found
}

/// A part, and behind it the sections of the base that it does not have.
fn completed(part: &str, base: &str) -> String {
    let has: BTreeSet<String> = sections(part).into_iter().map(|(key, _)| key).collect();
    let mut whole = part.to_owned();
    for (_, text) in sections(base).into_iter().filter(|(key, _)| !has.contains(key)) {
        whole.push_str(&text);
    }
    whole
}

/// What docs/configuration.md completes parts with: its block `yaml base`.
fn base() -> String {
    let text = read("docs/configuration.md");
    let base = markdown::blocks(&text).into_iter().find(|block| block.info == "yaml base");
    base.expect("docs/configuration.md has a block `yaml base`").text
}

#[test]
fn every_yaml_block_is_a_configuration_that_loads() {
    let base = base();
    let (mut wrong, mut seen) = (Vec::new(), 0);
    for (path, text) in documents() {
        for block in markdown::blocks(&text) {
            if !block.info.starts_with("yaml") {
                continue;
            }
            seen += 1;
            let place = format!("{path}:{}", block.line);
            // A part may leave an upstream of the base unused; a whole one has nothing to warn of.
            let (yaml, may_warn) = match block.info.as_str() {
                "yaml" | "yaml base" => (block.text.clone(), false),
                "yaml part" => (completed(&block.text, &base), true),
                "yaml part srv" if !cfg!(feature = "srv") => continue,
                "yaml part srv" => (completed(&block.text, &base), true),
                other => {
                    wrong.push(format!(
                        "{place}: `{other}` is none of yaml, yaml part, yaml part srv, yaml base"
                    ));
                    continue;
                }
            };
            match config::from_text(&yaml, &place) {
                Ok(loaded) if loaded.warnings.is_empty() || may_warn => {}
                Ok(loaded) => wrong.push(format!("{place}: {}", loaded.warnings.to_json())),
                Err(found) => wrong.push(format!("{place}: {}", found.to_json())),
            }
        }
    }
    assert!(seen >= 20, "found only {seen} blocks");
    assert_none(&wrong);
}

#[test]
fn every_shipped_configuration_loads_without_a_warning() {
    let mut wrong = Vec::new();
    let mut shipped = files("conf", "yaml");
    assert!(shipped.len() >= 4, "found only {shipped:?}");
    shipped.push("packaging/edge.yaml".to_owned());
    for path in shipped {
        match config::from_text(&read(&path), &path) {
            // It names every key, those too that have no effect beside others.
            Ok(_) if path == "conf/reference.yaml" => {}
            Ok(loaded) if loaded.warnings.is_empty() => {}
            Ok(loaded) => wrong.push(loaded.warnings.to_json()),
            Err(found) => wrong.push(found.to_json()),
        }
    }
    assert_none(&wrong);
}

#[test]
fn what_is_packaged_fits_together() {
    let manifest = read("Cargo.toml");
    let quoted = |line: &str| -> Vec<String> {
        line.split('"').skip(1).step_by(2).map(str::to_owned).collect()
    };
    let assets: Vec<Vec<String>> = manifest
        .lines()
        .filter(|line| line.trim_start().starts_with("[\""))
        .map(quoted)
        .filter(|asset| asset.len() == 3)
        .collect();
    assert!(assets.len() >= 5, "{assets:?}");
    let missing: Vec<String> = assets
        .iter()
        .map(|asset| asset[0].clone())
        .filter(|from| !from.starts_with("target/") && !root().join(from).exists())
        .collect();
    assert_none(&missing);
    // What the unit starts and reads is what the package brings.
    let installed = |path: &str| {
        let path = path.trim_start_matches('/');
        assets.iter().any(|asset| {
            let name = asset[0].rsplit('/').next().unwrap_or_default();
            asset[1] == path || format!("{}{name}", asset[1]) == path
        })
    };
    let unit = read("packaging/edgeproxy.service");
    let started: Vec<&str> = unit
        .lines()
        .filter(|line| line.starts_with("ExecStart"))
        .flat_map(|line| line.split(['=', ' ']).filter(|word| word.starts_with('/')))
        .collect();
    assert!(started.len() >= 4, "{started:?}");
    assert!(started.iter().all(|path| installed(path)), "{started:?} of {assets:?}");
    let version = manifest.lines().find(|line| line.starts_with("rust-version"));
    let version = version.map(quoted).expect("it is said").remove(0);
    assert!(read("packaging/Dockerfile").contains(&format!("FROM rust:{version}-")), "{version}");
}

#[test]
fn a_part_is_completed_with_the_sections_that_it_lacks() {
    let base = "listeners:\n  - a\nroutes:\n  - b\n";
    assert_eq!(completed("routes:\n  - c\n", base), "routes:\n  - c\nlisteners:\n  - a\n");
    assert_eq!(completed("# why\ncache: {}\n", base), format!("# why\ncache: {{}}\n{base}"));
}

/// The names of all keys of the configuration: `properties` of the JSON Schema and of its parts.
fn schema_keys(schema: &serde_json::Value, found: &mut BTreeSet<String>) {
    match schema {
        serde_json::Value::Object(map) => {
            for (key, value) in map {
                if key == "properties" {
                    let properties = value.as_object().expect("properties are an object");
                    found.extend(properties.keys().cloned());
                }
                schema_keys(value, found);
            }
        }
        serde_json::Value::Array(values) => {
            values.iter().for_each(|value| schema_keys(value, found));
        }
        _ => {}
    }
}

#[test]
fn every_key_of_the_configuration_is_documented() {
    let schema = serde_json::from_str(&config::json_schema()).expect("the schema is JSON");
    let mut keys = BTreeSet::new();
    schema_keys(&schema, &mut keys);
    assert!(keys.len() > 80, "found only {} keys", keys.len());
    let text = read("docs/configuration.md");
    let words: BTreeSet<&str> =
        text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).collect();
    let missing: Vec<String> = keys.into_iter().filter(|key| !words.contains(&**key)).collect();
    assert_none(&missing);

    let sections = schema["properties"].as_object().expect("the schema has properties").keys();
    let without_heading: Vec<String> =
        sections.filter(|key| !text.contains(&format!("\n## `{key}`"))).cloned().collect();
    assert_none(&without_heading);
}

// ── Tables of the code's ────────────────────────────────────────────────────────────────────────

/// Holds what stands between two marks in a document equal to `table`; with BLESS=1 writes it there.
#[track_caller]
fn hold(path: &str, name: &str, table: &str) {
    let text = read(path);
    let (begin, end) = (format!("<!-- {name}: begin -->\n"), format!("<!-- {name}: end -->"));
    let (before, rest) =
        text.split_once(&begin).unwrap_or_else(|| panic!("{path} has no {begin:?}"));
    let (written, after) = rest.split_once(&end).unwrap_or_else(|| panic!("{path} has no {end:?}"));
    let table = format!("\n{table}\n");
    if std::env::var_os("BLESS").is_some() && written != table {
        fs::write(root().join(path), format!("{before}{begin}{table}{end}{after}"))
            .unwrap_or_else(|e| panic!("{path}: {e}"));
        return;
    }
    assert!(
        written == table,
        "{path}: the table `{name}` is not the code's; write it anew with BLESS=1. It should be:\n{table}"
    );
}

#[test]
fn the_table_of_metrics_is_the_codes() {
    let mut table = String::from("| name | kind | labels | what it says |\n|---|---|---|---|\n");
    for metric in DEFINITIONS {
        let kind = match metric.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        let labels = labels.join(", ");
        let _ = writeln!(table, "| `{}` | {kind} | {labels} | {} |", metric.name, metric.help);
    }
    hold("docs/metrics.md", "metrics", &table);
}

#[test]
fn the_table_of_access_log_fields_is_the_codes() {
    let mut table = String::from("| field | by default | what it says |\n|---|---|---|\n");
    for field in Field::ALL {
        let default = if Field::DEFAULT.contains(field) { "yes" } else { "" };
        let _ = writeln!(table, "| `{}` | {default} | {} |", field.name(), field.description());
    }
    hold("docs/access-log.md", "fields", &table);
}

#[test]
fn the_table_of_refusals_is_the_codes() {
    let mut table = String::from("| reason | status | what the client is told |\n|---|---|---|\n");
    for refusal in Refusal::ALL {
        let status = refusal.status().as_u16();
        let _ = writeln!(table, "| `{}` | {status} | {} |", refusal.label(), refusal.sentence());
    }
    hold("docs/refusals.md", "refusals", &table);
}

// ── What is named exists ────────────────────────────────────────────────────────────────────────

/// The text of a document without its fenced blocks.
fn prose(text: &str) -> String {
    let mut within = false;
    let lines = text.lines().filter(|line| {
        let fence = line.starts_with("```");
        within ^= fence;
        !within && !fence
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// What stands in backticks in a text without blocks.
fn quoted(prose: &str) -> impl Iterator<Item = &str> {
    prose.split('`').skip(1).step_by(2)
}

/// The targets of links, `[text](target)`.
fn links(prose: &str) -> impl Iterator<Item = &str> {
    prose.split("](").skip(1).filter_map(|rest| rest.split(')').next())
}

/// The anchor of a heading, as forges make it.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect()
}

#[test]
fn every_link_within_the_documents_leads_somewhere() {
    let mut wrong = Vec::new();
    for (path, text) in documents() {
        let folder = Path::new(&path).parent().expect("it is a file").to_owned();
        for link in links(&prose(&text)).filter(|link| !link.contains("://")) {
            let (file, fragment) = link.split_once('#').unwrap_or((link, ""));
            let target = match file {
                "" => root().join(&path),
                file => root().join(&folder).join(file),
            };
            if !target.exists() {
                wrong.push(format!("{path}: {link} leads nowhere"));
            } else if !fragment.is_empty() {
                let text = fs::read_to_string(&target).unwrap_or_default();
                let headings = prose(&text);
                let headings = headings.lines().filter(|line| line.starts_with('#'));
                if !headings
                    .map(|line| anchor(line.trim_start_matches('#').trim()))
                    .any(|a| a == fragment)
                {
                    wrong.push(format!("{path}: {link} has no such heading"));
                }
            }
        }
    }
    assert_none(&wrong);
}

#[test]
fn every_file_that_is_named_exists() {
    const FOLDERS: [&str; 6] = ["src/", "tests/", "conf/", "docs/", "scripts/", "benches/"];
    let mut wrong = Vec::new();
    for (path, text) in documents() {
        for name in quoted(&prose(&text)) {
            let is_path = FOLDERS.iter().any(|folder| name.starts_with(folder));
            let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c));
            if is_path && plain && !root().join(name).exists() {
                wrong.push(format!("{path}: there is no {name}"));
            }
        }
    }
    assert_none(&wrong);
}

/// The rows of all tables that have these column titles.
fn rows<'a>(text: &'a str, titles: &str) -> Vec<Vec<&'a str>> {
    let cells = |line: &'a str| line.trim_matches('|').split('|').map(str::trim).collect();
    let mut found = Vec::new();
    let mut within = false;
    for line in text.lines() {
        if line == titles {
            within = true;
        } else if !line.starts_with('|') {
            within = false;
        } else if within && !line.starts_with("|---") {
            found.push(cells(line));
        }
    }
    found
}

/// All sources, tests included.
fn code() -> String {
    let paths = files("src", "rs").into_iter().chain(files("tests", "rs"));
    paths.map(|path| read(&path)).collect()
}

#[test]
fn every_test_in_the_tables_of_protocols_and_of_faults_exists() {
    names_tests("docs/protocols.md", "| what | how | tests |");
    names_tests("docs/upstreams.md", "| the origin | what the client gets, by when | tests |");
}

/// The last column of the table with these titles names tests, all of which exist.
#[track_caller]
fn names_tests(document: &str, titles: &str) {
    let code = code();
    let text = read(document);
    let rows = rows(&text, titles);
    assert!(rows.len() >= 15, "found only {} rows in {document}", rows.len());
    let mut wrong = Vec::new();
    for row in rows {
        let [what, _, tests] = row[..] else {
            wrong.push(format!("a row has {} cells: {row:?}", row.len()));
            continue;
        };
        let missing = quoted(tests).filter(|name| !code.contains(&format!("fn {name}(")));
        wrong.extend(missing.map(|name| format!("{what}: there is no test {name}")));
        if quoted(tests).next().is_none() {
            wrong.push(format!("{what}: names no test"));
        }
    }
    assert_none(&wrong);
}

#[test]
fn every_function_and_test_in_the_caching_table_exists() {
    let code = code();
    let text = read("docs/caching.md");
    let rows = rows(&text, "| clause | function | tests |");
    assert!(rows.len() >= 30, "found only {} clauses", rows.len());
    let mut wrong = Vec::new();
    for row in rows {
        let [clause, functions, tests] = row[..] else {
            wrong.push(format!("a row has {} cells: {row:?}", row.len()));
            continue;
        };
        for name in quoted(functions).chain(quoted(tests)) {
            let name = name.rsplit("::").next().unwrap_or(name);
            if !code.contains(&format!("fn {name}(")) {
                wrong.push(format!("{clause}: there is no function {name}"));
            }
        }
        if quoted(functions).next().is_none() || quoted(tests).next().is_none() {
            wrong.push(format!("{clause}: names no function or no test"));
        }
    }
    assert_none(&wrong);
}

/// The modules of the table in tests/architecture.rs: layer, name, which others they may name.
fn layers() -> Vec<(u32, String, BTreeSet<String>)> {
    let source = read("tests/architecture.rs");
    let table = source.split_once("const MODULES").expect("the table is there").1;
    let mut layer = 0;
    let mut found = Vec::new();
    for line in table.lines().map(str::trim).take_while(|line| *line != "];") {
        if let Some(rest) = line.strip_prefix("// L") {
            layer = rest.chars().next().and_then(|c| c.to_digit(10)).expect("a layer has a number");
        }
        let texts: Vec<&str> = line.split('"').collect();
        if let ["(", name, _, named, "),"] = texts[..] {
            let named = named.split_whitespace().map(str::to_owned).collect();
            found.push((layer, name.to_owned(), named));
        }
    }
    found
}

#[test]
fn the_layers_in_the_architecture_are_those_of_the_test() {
    let layers = layers();
    assert!(layers.len() > 10, "found only {layers:?}");
    let text = read("ARCHITECTURE.md");
    let rows = rows(&text, "| layer | module | what it is | may name |");
    let mut wrong = Vec::new();
    for (layer, name, expected) in &layers {
        let quoted_name = format!("`{name}`");
        let Some(row) = rows.iter().find(|row| row.get(1) == Some(&&*quoted_name)) else {
            wrong.push(format!("{name}: has no row"));
            continue;
        };
        let written: BTreeSet<String> = match row[3] {
            "nothing" => BTreeSet::new(),
            "all below" => {
                let below = layers.iter().filter(|(other, ..)| other < layer);
                below.map(|(_, name, _)| name.clone()).collect()
            }
            listed => quoted(listed).map(str::to_owned).collect(),
        };
        if written != *expected {
            wrong.push(format!("{name}: may name {expected:?}"));
        }
    }
    if rows.len() != layers.len() {
        wrong.push(format!("{} rows for {} modules", rows.len(), layers.len()));
    }
    assert_none(&wrong);
}

#[test]
fn every_document_is_in_the_index() {
    let index = read("docs/README.md");
    let prose = prose(&index);
    let linked: BTreeSet<&str> = links(&prose).collect();
    let missing: Vec<String> = files("docs", "md")
        .into_iter()
        .filter(|path| path != "docs/README.md")
        .filter(|path| !linked.contains(path.trim_start_matches("docs/")))
        .collect();
    assert_none(&missing);
}

#[test]
fn decisions_are_numbered_and_say_context_choice_and_consequences() {
    let mut wrong = Vec::new();
    let decisions = files("docs/decisions", "md");
    assert!(decisions.len() >= 10, "found only {}", decisions.len());
    for (at, path) in decisions.iter().enumerate() {
        let number = format!("docs/decisions/{:04}-", at + 1);
        if !path.starts_with(&number) {
            wrong.push(format!("{path}: expected {number}…"));
        }
        let text = read(path);
        for part in ["## Context", "## Choice", "## Consequences"] {
            if !text.contains(&format!("\n{part}\n")) {
                wrong.push(format!("{path}: there is no \"{part}\""));
            }
        }
        if text.lines().count() > 60 {
            wrong.push(format!("{path}: half a page is enough"));
        }
    }
    assert_none(&wrong);
}

#[test]
fn the_changelog_has_a_place_for_what_is_not_released() {
    const KINDS: [&str; 6] = ["Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"];
    let text = read("CHANGELOG.md");
    let first = text.lines().find(|line| line.starts_with("## "));
    assert_eq!(first, Some("## [Unreleased]"));
    let kinds = text.lines().filter_map(|line| line.strip_prefix("### "));
    let unknown: Vec<String> =
        kinds.filter(|kind| !KINDS.contains(kind)).map(str::to_owned).collect();
    assert_none(&unknown);
}
