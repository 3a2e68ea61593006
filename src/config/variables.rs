//! Variables in the JSON Schema: where a file may say `"${N}"` for a number, a switch or a word, an editor must not
//! call that a mistake.

use serde_json::Map;
use serde_json::Value;
use serde_json::json;

/// What a text has in it that is expanded.
const PATTERN: &str = r"\$\{";

/// Keys of a schema whose value is a schema.
const ONE: &[&str] = &["items", "additionalProperties"];
/// Keys of a schema whose value is a list of schemas.
const LISTS: &[&str] = &["anyOf", "oneOf"];
/// Keys of a schema whose value has schemas by name.
const BY_NAME: &[&str] = &["properties", "patternProperties", "$defs"];

/// Allows variables for every value that is no section, list or free text, of which texts with variables are some already.
pub(super) fn allow(schema: &mut Value) {
    let Value::Object(schema) = schema else { return };
    for key in ONE {
        if let Some(inner) = schema.get_mut(*key) {
            allow(inner);
        }
    }
    for key in BY_NAME {
        for inner in schema.get_mut(*key).and_then(Value::as_object_mut).into_iter().flatten() {
            allow(inner.1);
        }
    }
    for key in LISTS {
        if let Some(Value::Array(ways)) = schema.get_mut(*key) {
            let has_words = ways.iter().any(is_words);
            ways.iter_mut().filter(|way| !is_words(way)).for_each(allow);
            if has_words && !ways.iter().any(takes_variables) {
                ways.push(json!({"type": "string", "pattern": PATTERN}));
            }
        }
    }
    if is_words_alone(schema) {
        let words: Map<String, Value> =
            ["type", "enum", "const"].iter().filter_map(|key| schema.remove_entry(*key)).collect();
        let variable = json!({"type": "string", "pattern": PATTERN});
        schema.insert("anyOf".to_owned(), json!([words, variable]));
        return;
    }
    allow_text(schema);
}

/// Whether a text with a variable is allowed here already.
fn takes_variables(schema: &Value) -> bool {
    schema.get("pattern").and_then(Value::as_str).is_some_and(|form| form.ends_with(PATTERN))
}

/// Whether this is a choice of words.
fn is_words(schema: &Value) -> bool {
    schema.as_object().is_some_and(is_words_alone)
}

fn is_words_alone(schema: &Map<String, Value>) -> bool {
    let has = |key: &str| schema.contains_key(key);
    schema.get("type").is_some_and(|kind| kind == "string") && (has("enum") || has("const"))
}

/// Allows a text with a variable beside numbers and switches, and beside texts of a certain form.
fn allow_text(schema: &mut Map<String, Value>) {
    let mut kinds: Vec<Value> = match schema.get("type") {
        Some(Value::Array(kinds)) => kinds.clone(),
        Some(kind) => vec![kind.clone()],
        None => return,
    };
    let is_text = kinds.iter().any(|kind| kind == "string");
    let is_single =
        ["integer", "number", "boolean"].iter().any(|one| kinds.iter().any(|kind| kind == one));
    let form = schema.get("pattern").and_then(Value::as_str).map(str::to_owned);
    let pattern = match (is_text, form) {
        (true, Some(form)) => format!("({form})|{PATTERN}"),
        (false, _) if is_single => {
            kinds.push(json!("string"));
            schema.insert("type".to_owned(), Value::Array(kinds));
            PATTERN.to_owned()
        }
        // Any text will do, or none.
        (true, None) | (false, _) => return,
    };
    schema.insert("pattern".to_owned(), Value::String(pattern));
}
