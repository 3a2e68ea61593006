//! The JSON Schema, as an editor reads it: what it takes the program takes, and what the program takes it does not
//! call a mistake.

use regex::Regex;
use serde_json::Value as Json;
use serde_json::json;

use crate::config::json_schema;

/// A reader of as much of JSON Schema (2020-12) as ours says.
struct Editor {
    schema: Json,
}

impl Editor {
    fn new() -> Self {
        Self { schema: serde_json::from_str(&json_schema()).expect("JSON") }
    }

    fn takes(&self, written: &Json) -> bool {
        self.fits(&self.schema, written)
    }

    fn fits(&self, schema: &Json, value: &Json) -> bool {
        let Json::Object(keys) = schema else { return schema != &json!(false) };
        keys.iter().all(|(key, said)| self.agrees(key, said, schema, value))
    }

    fn agrees(&self, key: &str, said: &Json, schema: &Json, value: &Json) -> bool {
        let list = || said.as_array().expect("a list");
        let number = || said.as_f64().expect("a number");
        let ways = || list().iter().filter(|way| self.fits(way, value)).count();
        let size = || value.as_object().map(|keys| keys.len() as f64);
        match key {
            "$ref" => {
                let name = said.as_str().and_then(|name| name.strip_prefix("#/$defs/"));
                self.fits(&self.schema["$defs"][name.expect("one of ours")], value)
            }
            "type" => match said {
                Json::Array(kinds) => kinds.iter().any(|kind| is(kind, value)),
                kind => is(kind, value),
            },
            "const" => said == value,
            "enum" => list().contains(value),
            "anyOf" => ways() > 0,
            "oneOf" => ways() == 1,
            "minimum" => value.as_f64().is_none_or(|value| value >= number()),
            "maximum" => value.as_f64().is_none_or(|value| value <= number()),
            "minProperties" => size().is_none_or(|size| size >= number()),
            "maxProperties" => size().is_none_or(|size| size <= number()),
            "pattern" => value.as_str().is_none_or(|text| matches(said, text)),
            "required" => {
                let has = |name: &Json| value.get(name.as_str().expect("a name")).is_some();
                !value.is_object() || list().iter().all(has)
            }
            "items" => {
                value.as_array().is_none_or(|all| all.iter().all(|one| self.fits(said, one)))
            }
            "properties" => {
                let fits = |(name, inner): (&String, &Json)| {
                    value.get(name).is_none_or(|value| self.fits(inner, value))
                };
                said.as_object().expect("keys").iter().all(fits)
            }
            "patternProperties" => value.as_object().into_iter().flatten().all(|(name, value)| {
                let mut said = said.as_object().expect("patterns").iter();
                said.all(|(form, inner)| !matches(&json!(form), name) || self.fits(inner, value))
            }),
            "additionalProperties" => {
                let is_named = |name: &String| {
                    let forms = schema["patternProperties"].as_object().into_iter().flatten();
                    schema["properties"].get(name).is_some()
                        || forms.into_iter().any(|(form, _)| matches(&json!(form), name))
                };
                let mut others = value.as_object().into_iter().flatten();
                others.all(|(name, value)| is_named(name) || self.fits(said, value))
            }
            "$schema" | "$defs" | "title" | "description" | "default" | "examples" | "format" => {
                true
            }
            other => panic!("this reader does not know {other}"),
        }
    }
}

fn is(kind: &Json, value: &Json) -> bool {
    match kind.as_str().expect("a word") {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("{other} is no type"),
    }
}

fn matches(form: &Json, text: &str) -> bool {
    Regex::new(form.as_str().expect("a text")).expect("a pattern").is_match(text)
}

/// A file with this upstream and this process.
fn with(process: Json, upstream: Json) -> Json {
    json!({
        "listeners": [{"address": "127.0.0.1:80", "h2c": true}],
        "process": process,
        "upstreams": {"app": upstream},
        "routes": [{"upstream": "app"}],
    })
}

#[test]
fn files_that_load_are_no_mistakes_to_an_editor() {
    let editor = Editor::new();
    let folder = super::reference::conf("");
    let mut seen = 0;
    for file in std::fs::read_dir(folder).expect("it is there") {
        let path = file.expect("it can be listed").path();
        if path.extension().is_none_or(|end| end != "yaml") {
            continue;
        }
        let text = std::fs::read_to_string(&path).expect("UTF-8");
        let written: Json = serde_yaml::from_str(&text).expect("YAML");
        assert!(editor.takes(&written), "{}", path.display());
        seen += 1;
    }
    assert!(seen > 2, "{seen}");
}

#[test]
fn a_variable_may_stand_for_a_number_a_switch_a_time_a_size_and_a_word() {
    let editor = Editor::new();
    for upstream in [
        json!({"addresses": ["${HOST}:80"]}),
        json!({"addresses": [{"address": "a.test:80", "weight": "${WEIGHT}", "backup": "${BACKUP:-off}"}]}),
        json!({"addresses": ["a:1"], "retry": {"attempts": "${N:-3}", "backoff": "${TIME}ms"}}),
        json!({"addresses": ["a:1"], "retry": {"statuses": [502, "${STATUS}"], "per_try": "${TRY}"}}),
        json!({"addresses": ["a:1"], "balance": "${BALANCE}", "breaker": "${BREAKER}"}),
        json!({"addresses": ["a:1"], "pool": {"max_age": "${AGE}", "max_connections": "1${N}"}}),
    ] {
        let file = with(json!({"threads": "${THREADS:-auto}"}), upstream);
        assert!(editor.takes(&file), "{file}");
    }
}

#[test]
fn what_is_neither_a_value_nor_a_variable_is_a_mistake() {
    let editor = Editor::new();
    assert!(editor.takes(&with(json!({"threads": 4}), json!({"addresses": ["a:1"]}))));
    for (process, upstream) in [
        (json!({"threads": "many"}), json!({"addresses": ["a:1"]})),
        (json!({"threads": {}}), json!({"addresses": ["a:1"]})),
        (json!({"thread": 4}), json!({"addresses": ["a:1"]})),
        (json!({}), json!({"addresses": "${ADDRESSES}"})),
        (json!({}), json!({"addresses": ["a:1"], "balance": "at_will"})),
        (json!({}), json!({"addresses": ["a:1"], "retry": {"attempts": "three"}})),
        (json!({}), json!({"addresses": ["a:1"], "retry": {"attempts": "$N"}})),
        (json!({}), json!({"addresses": ["a:1"], "retry": {"backoff": "soon"}})),
        (json!({}), json!({"addresses": ["a:1"], "breaker": "open"})),
    ] {
        let file = with(process, upstream);
        assert!(!editor.takes(&file), "{file}");
    }
}
