//! `conf/reference.yaml` and `conf/edgeproxy.schema.json` say what the code says.

use std::collections::BTreeSet;
use std::path::PathBuf;

use regex::Regex;
use serde_json::Value as Json;

use super::load_text;
use crate::config::document::Document;
use crate::config::document::NodeId;
use crate::config::document::Value;
use crate::config::effective;
use crate::config::json_schema;
use crate::config::schema;
use crate::config::schema::Config;
use crate::config::schema::value::Switch;

pub(super) fn conf(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("conf").join(name)
}

fn reference() -> String {
    std::fs::read_to_string(conf("reference.yaml")).expect("it is there")
}

fn written() -> Config {
    load_text(&reference(), "reference.yaml").unwrap_or_else(|found| panic!("{found}")).config
}

/// Types that are written in several ways and count as one value.
const LEAVES: &[&str] = &["Condition", "Query", "Address", "FieldText"];

/// Every path of keys that a schema allows: `listeners[].tls.http2`, `upstreams.{}.host`.
fn allowed(schema: &Json, root: &Json, at: &str, found: &mut BTreeSet<String>) {
    if let Some(name) = schema["$ref"].as_str().and_then(|name| name.strip_prefix("#/$defs/")) {
        if !LEAVES.contains(&name) {
            allowed(&root["$defs"][name], root, at, found);
        }
        return;
    }
    for (key, value) in schema["properties"].as_object().into_iter().flatten() {
        let path = if at.is_empty() { key.clone() } else { format!("{at}.{key}") };
        found.insert(path.clone());
        allowed(value, root, &path, found);
    }
    for list in ["anyOf", "oneOf", "allOf"] {
        for part in schema[list].as_array().into_iter().flatten() {
            allowed(part, root, at, found);
        }
    }
    if schema["items"].is_object() {
        allowed(&schema["items"], root, &format!("{at}[]"), found);
    }
    if schema["additionalProperties"].is_object() {
        allowed(&schema["additionalProperties"], root, &format!("{at}.{{}}"), found);
    }
}

/// Every path of keys in a document that the schema knows as keys.
fn used(document: &Document, id: NodeId, at: &str, known: &BTreeSet<String>) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    match document.value(id) {
        Value::Null | Value::Scalar { .. } => {}
        Value::List(items) => {
            for item in items {
                found.extend(used(document, *item, &format!("{at}[]"), known));
            }
        }
        Value::Map(entries) => {
            let names = known.iter().any(|path| path.starts_with(&format!("{at}.{{}}")));
            for entry in entries {
                let path = match (at.is_empty(), names) {
                    (true, _) => entry.key.clone(),
                    (false, true) => format!("{at}.{{}}"),
                    (false, false) => format!("{at}.{}", entry.key),
                };
                let is_key =
                    known.iter().any(|known| at.is_empty() || known.starts_with(&format!("{at}.")));
                if is_key {
                    if !names {
                        found.insert(path.clone());
                    }
                    found.extend(used(document, entry.value, &path, known));
                }
            }
        }
    }
    found
}

#[test]
fn the_reference_names_every_key_of_the_schema_and_no_other() {
    let schema: Json = serde_json::from_str(&json_schema()).expect("JSON");
    let mut keys = BTreeSet::new();
    allowed(&schema, &schema, "", &mut keys);
    assert!(keys.contains("listeners[].tls.certificates[].internal"), "{keys:#?}");
    assert!(keys.contains("upstreams.{}.timeouts.connect"), "{keys:#?}");

    // Keys without a default stand there as comments.
    let comment = Regex::new(r"(?m)^( *)# ([a-z0-9_]+: \S.*)$").expect("a valid expression");
    let text = reference();
    let text = comment.replace_all(&text, "$1$2");
    let (document, _) = Document::parse(&text, "reference.yaml").unwrap_or_else(|e| panic!("{e}"));
    let written = used(&document, document.root(), "", &keys);
    let missing: Vec<_> = keys.difference(&written).collect();
    let unknown: Vec<_> = written.difference(&keys).collect();
    assert!(missing.is_empty() && unknown.is_empty(), "missing {missing:#?}, unknown {unknown:#?}");
}

#[test]
fn the_reference_has_every_default_of_the_sections() {
    let (written, built_in) = (written(), Config::default());
    assert_eq!(written.process, built_in.process);
    assert_eq!(written.limits, built_in.limits);
    assert_eq!(written.trusted_proxies, built_in.trusted_proxies);
    assert_eq!(written.acme, built_in.acme);
    assert_eq!(written.paths, built_in.paths);
    assert_eq!(written.defaults, built_in.defaults);
    assert_eq!(written.cache, built_in.cache);
    assert_eq!(written.admin, built_in.admin);
    assert_eq!(written.access_log, built_in.access_log);
    assert_eq!(written.log, built_in.log);
}

#[test]
fn the_reference_has_every_default_of_a_listener() {
    let listeners = written().listeners;
    let address = listeners[0].address.clone();
    let built_in = schema::listen::Listener { address, ..schema::listen::Listener::default() };
    assert_eq!(listeners[0], built_in);
    let Switch::On(tls) = &listeners[1].tls else { panic!("the second one speaks TLS") };
    let certificates = tls.certificates.clone();
    let built_in =
        schema::listen::ListenerTls { certificates, ..schema::listen::ListenerTls::default() };
    assert_eq!(*tls, built_in);
}

#[test]
fn the_reference_has_every_default_of_an_upstream() {
    let upstreams = written().upstreams;
    let addresses = upstreams["app"].addresses.clone();
    let built_in =
        schema::upstream::Upstream { addresses, ..schema::upstream::Upstream::default() };
    assert_eq!(upstreams["app"], built_in);
    let Switch::On(tls) = &upstreams["secure"].tls else { panic!("the second one speaks TLS") };
    assert_eq!(*tls, schema::upstream::OriginTls::default());
    let ejection = schema::health::Ejection::default();
    assert_eq!(upstreams["secure"].ejection, Switch::On(ejection));
}

#[test]
fn the_reference_has_every_default_of_a_route() {
    let config = written();
    let built_in = schema::route::Route {
        matches: config.routes[0].matches.clone(),
        upstream: config.routes[0].upstream.clone(),
        rewrite: Some(schema::route::Rewrite::default())
            .filter(|_| config.routes[0].rewrite.is_some()),
        headers: Some(schema::route::Headers::default()),
        ..schema::route::Route::default()
    };
    let bare = Config { routes: vec![built_in], ..Config::default() };
    let full = Config { routes: vec![config.routes[0].clone()], ..Config::default() };
    assert_eq!(effective(&full), effective(&bare));
    let redirect = config.routes[1].redirect.clone().expect("a redirect");
    assert_eq!(redirect.status, schema::route::Redirect::default().status);
    assert_eq!(config.routes[2].respond, Some(schema::route::Respond::default()));
}

#[test]
fn the_schema_for_editors_is_up_to_date() {
    let path = conf("edgeproxy.schema.json");
    if std::env::var_os("BLESS").is_some_and(|value| value == "1") {
        std::fs::write(&path, json_schema()).expect("writable");
    }
    let file = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(file, json_schema(), "`BLESS=1 cargo test` writes it anew");
}

#[test]
fn every_key_of_the_schema_says_what_it_is() {
    fn look(schema: &Json, at: &str, silent: &mut Vec<String>) {
        for (key, value) in schema["properties"].as_object().into_iter().flatten() {
            if value["description"].as_str().is_none_or(str::is_empty) {
                silent.push(format!("{at}.{key}"));
            }
        }
    }
    let schema: Json = serde_json::from_str(&json_schema()).expect("JSON");
    let mut silent = Vec::new();
    look(&schema, "", &mut silent);
    for (name, section) in schema["$defs"].as_object().into_iter().flatten() {
        look(section, name, &mut silent);
    }
    assert!(silent.is_empty(), "{silent:?}");
}
