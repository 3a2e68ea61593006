//! The checker itself, tried on what it must find and on what it must not.

use std::fmt::Write as _;

use super::Kind::Pure;
use super::MODULES;
use super::Source;
use super::assert_none;
use super::declarations;
use super::detours;
use super::layering;
use super::purity;
use super::unfinished;
use super::unlisted;

fn sample(path: &str, text: &str) -> [Source; 1] {
    [Source { path: path.to_owned(), text: text.to_owned() }]
}

#[test]
fn an_upward_name_is_caught() {
    let upward = "//! Doc.\nuse crate::proxy::EdgeProxy;\n";
    let found = layering(&sample("cache/key.rs", upward));
    assert_eq!(found, ["cache/key.rs:2: `cache` may not name `proxy`"]);
    let in_a_body = "fn f() -> u8 { crate::admin::port() + $crate::app::port() }";
    assert_eq!(layering(&sample("listen/mod.rs", in_a_body)).len(), 2);
}

#[test]
fn a_sibling_s_name_is_caught() {
    assert_eq!(layering(&sample("admin/mod.rs", "use crate::proxy::X;")).len(), 1);
    assert_eq!(layering(&sample("storage/mod.rs", "use crate::upstream::X;")).len(), 1);
    assert_eq!(layering(&sample("tls/mod.rs", "use crate::listen::X;")).len(), 1);
    assert_none(&layering(&sample("listen/mod.rs", "use crate::tls::X;")));
}

#[test]
fn tests_may_name_no_more_than_what_they_test() {
    let text = "use crate::balance::Balancer;";
    assert_eq!(layering(&sample("resilience/tests/group.rs", text)).len(), 1);
    assert_none(&layering(&sample("upstream/tests/group.rs", text)));
}

#[test]
fn a_name_in_a_comment_or_a_string_is_no_name() {
    let text = "// crate::app\n/* crate::app /* */ crate::app */\nconst A: &str = \"crate::app\";\n\
                const B: &str = r#\"\"crate::app\"#;\nconst C: &[u8] = br\"crate::app\";\n";
    assert_none(&layering(&sample("cache/mod.rs", text)));
}

#[test]
fn code_after_a_literal_is_still_read() {
    for literal in
        ["'\"'", "'\\''", "'\\u{22}'", "\"\\\"\"", "r#\"\"\"#", "b'\"'", "'ü'", "1/*\"*/"]
    {
        let text = format!("fn f<'a>(x: &'a str) {{ g({literal}); crate::app::h() }}");
        assert_eq!(layering(&sample("cache/mod.rs", &text)).len(), 1, "after {literal}");
    }
}

#[test]
fn a_downward_or_own_name_is_fine() {
    let text = "use crate::cache::key::Key;\nuse crate::message::list;\nuse mycrate::app::X;\n";
    assert_none(&layering(&sample("cache/key.rs", text)));
}

#[test]
fn a_module_without_a_layer_is_caught() {
    assert_eq!(layering(&sample("helper.rs", "")).len(), 1);
    assert_eq!(layering(&sample("helper/mod.rs", "")).len(), 1);
    assert_none(&layering(&sample("main.rs", "use crate::anything;")));
}

#[test]
fn detours_are_caught() {
    for text in [
        "use crate::{app, cache};",
        "use crate::*;",
        "use crate as edge;",
        "extern crate self as edge;",
        "use super::super::app;",
        "use std::{fs, io};",
    ] {
        assert_eq!(detours(&sample("cache/key.rs", text)).len(), 1, "{text}");
    }
    assert_none(&detours(&sample("cache/key.rs", "use super::vary;")));
}

#[test]
fn super_at_the_root_of_a_module_is_a_detour() {
    for root in ["cache/mod.rs", "cache.rs"] {
        assert_eq!(detours(&sample(root, "use super::app;")).len(), 1);
        let inline = "mod inner { use super::X; }\n#[cfg(test)]\nmod tests { use super::*; }\n";
        assert_none(&detours(&sample(root, inline)));
        let after = "mod inner;\nmod other { fn f() {} }\nuse super::app;\n";
        assert_eq!(detours(&sample(root, after)).len(), 1);
    }
}

#[test]
fn impure_words_are_caught_in_pure_layers_only() {
    for text in [
        "use std::fs;",
        "let now = std::time::SystemTime::now();",
        "let now = Instant::now();",
        "use tokio::time::sleep;",
        "use pingora_cache::CacheKey;",
        "std::thread::sleep(x);",
        "let home = std::env::var(x);",
        "fn f(s: std::net::TcpStream) {}",
    ] {
        assert_eq!(purity(&sample("cache/key.rs", text)).len(), 1, "{text}");
        assert_eq!(purity(&sample("refusal.rs", text)).len(), 1, "{text}");
        assert_none(&purity(&sample("storage/mod.rs", text)));
        assert_none(&purity(&sample("cache/key_tests.rs", text)));
    }
    for text in ["use std::time::SystemTime;", "use std::net::IpAddr;", "let my_tokio = 1;"] {
        assert_none(&purity(&sample("cache/key.rs", text)));
    }
}

#[test]
fn machinery_is_caught_in_the_configuration() {
    assert_eq!(purity(&sample("config/load.rs", "use tokio::fs;")).len(), 1);
    assert_none(&purity(&sample("config/load.rs", "use std::fs;")));
}

#[test]
fn unwrap_is_caught_outside_tests_only() {
    let unwrap = "//! Doc.\nfn f() { g().unwrap(); }\n";
    assert_eq!(unfinished(&sample("app/mod.rs", unwrap)).len(), 1);
    assert_none(&unfinished(&sample("app/tests.rs", unwrap)));
    let within =
        "//! Doc.\n#[cfg(test)]\n#[path = \"x\"]\nmod tests { fn f() { g().unwrap(); } }\n";
    assert_none(&unfinished(&sample("app/mod.rs", within)));
    let after = format!("{within}fn h() {{ g().unwrap(); }}\n");
    let found = unfinished(&sample("app/mod.rs", &after));
    assert_eq!(found, ["app/mod.rs:5: `.unwrap()` outside a test"]);
    let declared = "//! Doc.\n#[cfg(test)]\nmod tests;\nfn h() { g().unwrap(); }\n";
    assert_eq!(unfinished(&sample("app/mod.rs", declared)).len(), 1);
    let kin = "//! Doc.\nfn f() { g().unwrap_or_default(); my_todo!() }\n";
    assert_none(&unfinished(&sample("app/mod.rs", kin)));
}

#[test]
fn placeholders_and_missing_purposes_are_caught() {
    for text in ["//! D.\nfn f() { todo!() }", "//! D.\nfn f() { unimplemented!() }", "fn f() {}"] {
        assert_eq!(unfinished(&sample("app/mod.rs", text)).len(), 1, "{text}");
    }
}

#[test]
fn a_wrong_gate_or_a_missing_module_is_caught() {
    let mut lib = String::new();
    for (name, kind, _) in MODULES {
        let gate = if *kind == Pure { "" } else { "#[cfg(feature = \"server\")]\n" };
        let _ = writeln!(lib, "{gate}pub mod {name};");
    }
    assert_none(&declarations(&lib));
    let ungated = lib.replace("#[cfg(feature = \"server\")]\npub mod tls;", "pub mod tls;");
    assert_eq!(declarations(&ungated).len(), 1);
    let gated = lib.replace("pub mod cache;", "#[cfg(feature = \"server\")]\npub mod cache;");
    assert_eq!(declarations(&gated).len(), 1);
    assert_eq!(declarations(&lib.replace("pub mod app;", "")).len(), 1);
    assert_eq!(declarations(&format!("{lib}pub mod helper;\n")).len(), 1);
}

#[test]
fn a_lock_that_is_not_listed_and_one_that_is_not_there_are_caught() {
    let text = "//! D.\nuse std::sync::Mutex;\nstruct A {\n    pub(super) state: Mutex<u32>,\n    \
                told: Arc<Notify>,\n}\nfn f(a: &Mutex<u32>) -> Arc<Notify> { Mutex::new(1) }\n\
                struct Shelf(Mutex<u32>);\n#[cfg(test)]\nmod tests { struct B { b: Mutex<u32> } }\n";
    let document = |rows: &[&str]| {
        let row = |name: &&str| format!("| `src/upstream/a.rs` | `{name}` | nobody |\n");
        let rows: String = rows.iter().map(row).collect();
        format!(
            "text\n| file | lock | who takes it |\n|---|---|---|\n{rows}\n| `x` | `y` | other |\n"
        )
    };
    let wrong = |path, rows: &[&str]| unlisted(&sample(path, text), &document(rows));
    assert_none(&wrong("upstream/a.rs", &["state", "told", "Shelf"]));
    let unlisted = wrong("upstream/a.rs", &["state", "Shelf"]);
    assert!(unlisted.len() == 1 && unlisted[0].contains("`told` is a lock"), "{unlisted:?}");
    let gone = wrong("upstream/a.rs", &["state", "told", "Shelf", "other"]);
    assert!(gone.len() == 1 && gone[0].contains("no lock called `other`"), "{gone:?}");
    assert_none(&wrong("storage/a.rs", &[]));
}
